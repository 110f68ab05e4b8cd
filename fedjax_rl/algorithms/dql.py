r"""Distributed Q-learning on whole episodes, and with event-triggered messages.

Every agent runs an episode, epsilon-greedily on the learner's table, and sends its transitions
u = (s, a, r, s'); the learner moves every entry by the mean of the errors that it received for it,

    error(u) = r + discount max_b Q(s', b) [s' is not terminal] - Q(s, a)
    Q(s, a) += learning_rate mean of error(u) over the received u with this s and a

* Gunn, *Communication Efficient Distributed Reinforcement Learning* (2023), section 2.4.1: DQL,
  with the set of a state and an action where the report has that of a state (see
  `DQL.literal_state_average`).
* Jarne Ornia and Mazo, *Event-Based Communication in Distributed Q-Learning*, arXiv 2109.01417:
  the order "sequential", and EBCDQL, which is DQL on the uplink `event_triggered`.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl import fields
from fedjax_rl.algorithms import episodic, optimum
from fedjax_rl.algorithms.define import Federated, Learner, algorithm
from fedjax_rl.algorithms.episodic import Experience
from fedjax_rl.envs.task import Task
from fedjax_rl.federation import uplinks
from fedjax_rl.federation.aggregators import Aggregate, mean
from fedjax_rl.federation.exchange import Exchange
from fedjax_rl.federation.ledger import Wire
from fedjax_rl.federation.population import Population
from fedjax_rl.federation.server import ServerStep, replace
from fedjax_rl.federation.state import Params, per_agent
from fedjax_rl.federation.uplinks import MessageSpec
from fedjax_rl.fields.record import engine, environment, host, nested, record, static, traced
from fedjax_rl.learners.transitions import Transitions, means, received, sums, td_errors
from fedjax_rl.rollouts.grids import TIES, grid_of, sample_on_grid

ORDERS = ("batch", "sequential")
MESSAGES = ("transitions", "increments")

# A transition is two states, an action and a reward; in a compact run of transitions each state
# is there once.
WORDS, COMPACT_WORDS = 4, 3


@record
class DQL(Federated):
    """Properties of distributed Q-learning.

    Attributes:
      task: of every agent, a grid world.
      learning_rate: at least 0.
      epsilon: probability of a random action, in [0, 1].
      ties: "random", any of the best actions; or "first", with which nothing is ever found where
        no reward is seen at first. Values 16 roundings apart, in units of the largest size among
        those of the state, are equal: 2e-6 of it in float32.
      order: "batch", all errors with the table that was sent down; or "sequential", step after
        step of the episodes with the table as it becomes.
      literal_state_average: whether an entry moves by the mean over all actions of its state, as
        the report has it; nothing is learned with that.
      message: "transitions"; "increments", every agent sends the mean errors of all S U entries
        (0 where it was not), and the learner takes the mean over agents; None for "transitions"
        unless the uplink changes the numbers in a message.
      compact_trajectory: whether consecutive transitions are sent as s, a, r, s', a', r', ...
      initial_q: number or [S, U], where the table begins.
      wire: the format of messages.
    """

    task: Task = environment(episodic.GRID)
    learning_rate: Any = traced(0.5, fields.NOT_NEGATIVE)
    epsilon: Any = traced(0.1, fields.PROBABILITY)
    ties: str = traced("random", fields.word(TIES), by="word")
    order: str = static("batch", fields.word(ORDERS))
    literal_state_average: bool = traced(False, fields.switch(), by="switch")
    message: str | None = static(None, fields.word(MESSAGES).or_none())
    compact_trajectory: bool = static(False, fields.switch())
    initial_q: Any = host(0.0, fields.number(arrays=2))
    wire: Wire = nested(Wire)

    @property
    def shape(self) -> tuple[int, int]:
        """S and U."""
        world = grid_of(self.task)
        return world.num_states, world.num_actions

    def check(self) -> None:
        """Refuses properties that do not fit together."""
        episodic.check_task(self.task)
        if self.message == "transitions" and self.transmits().alters:
            raise ValueError(
                f"message is transitions with the uplink {self.uplink}, which changes or stores "
                'numbers; allowed: message="increments"'
            )
        if self.resolved().message == "increments":
            for name, plain in (
                ("order", "batch"),
                ("literal_state_average", False),
                ("compact_trajectory", False),
            ):
                if getattr(self, name) != plain:
                    raise ValueError(
                        f"{name} is {getattr(self, name)} with messages of increments; allowed: "
                        f"{plain}"
                    )
        if self.order == "sequential" and self.literal_state_average:
            raise ValueError(
                "literal_state_average is True with the order sequential; allowed: the order batch"
            )
        episodic.check_shape("initial_q", self.initial_q, self.shape)

    def with_defaults(self):
        """With the message that fits the uplink."""
        if self.message is not None:
            return self
        return dataclasses.replace(self, message=MESSAGES[self.transmits().alters])

    def derived(self, num_agents: int) -> Params:
        """The first table, [S U]."""
        del num_agents
        return Params({}, {"initial_q": episodic.filled(self.initial_q, self.shape)}, {})


@record
class EBCDQL(DQL):
    """Properties of event-based distributed Q-learning; see also `DQL`.

    A transition is sent when the size of its error reaches the threshold and `factor` times what
    the agent is used to; see `federation.uplinks.event_triggered`.

    Attributes:
      threshold: at least 0; infinite for silence.
      factor: at least 0.
      decay: of what the agent is used to, in [0, 1].
      reset: whether it starts anew with every episode.
    """

    uplink: uplinks.Uplink | None = engine(
        None, fields.nothing("ebcdql is dql with the uplink event-triggered"), cli=False
    )
    threshold: Any = engine(0.8, fields.number(0, infinite=True))
    factor: Any = engine(0.5, fields.NOT_NEGATIVE)
    decay: Any = engine(0.1, fields.PROBABILITY)
    reset: bool = engine(False, fields.switch())

    def transmits(self, num_agents=None) -> uplinks.Uplink:
        """Who is surprised enough."""
        del num_agents
        return uplinks.event_triggered(self.threshold, self.factor, self.decay, self.reset)


def sampled(config: DQL) -> str | None:
    """Why a derivative is wrong: episodes depend on the table, or events do."""
    if isinstance(config, EBCDQL):
        return "events decide by the errors what is sent"
    epsilon = config.epsilon
    if fields.is_number(epsilon) and fields.is_concrete(epsilon) and np.all(epsilon == 1):
        return None
    return "episodes are drawn from what is learned (with epsilon=1 it is exact)"


class Agent(NamedTuple):
    """One agent.

    Attributes:
      experience: of its last episode.
      message: what it has to send.
    """

    experience: Experience
    message: object


def aggregate_of(actions: int):
    """The mean error of every entry over all that was received, [F, S U]."""

    def aggregate(population: Population, message: Transitions, sent, weight, context) -> Aggregate:
        del weight
        size = context.model.shape[-1]
        total = population.sum(jax.vmap(lambda m: sums(m, size))(received(message, sent)))
        # Added before they are divided: a mean of means would weigh all actions alike.
        by_state = jnp.sum(total.reshape(-1, size // actions, actions, 2), axis=2)
        # The switch is traced: both means are made, and one program serves a sweep over it.
        literal = context.params.federation["literal_state_average"][:, None]
        spread = jnp.repeat(means(by_state), actions, axis=-1)
        return Aggregate(jnp.where(literal, spread, means(total)), None)

    return aggregate


def sequential_of(actions: int, discount: float):
    """The table after the transitions of step 0 of all agents, then those of step 1, ...

    Args:
      actions: U.
      discount: of the task.

    Returns:
      An aggregate, as an `Exchange` has it.
    """

    def aggregate(population: Population, message: Transitions, sent, weight, context) -> Aggregate:
        del weight
        message = received(message, sent)
        rate = context.params.federation["learning_rate"][:, None]
        # Time leads: the scan is over the steps of all agents together.
        by_step = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), message)

        def learn(table, now: Transitions):
            error = jax.vmap(td_errors, in_axes=(0, None, None, 0, 0, 0, 0))(
                population.spread(table),
                actions,
                discount,
                now.index,
                now.reward,
                now.next_state,
                now.terminal,
            )
            one = now._replace(error=error[:, None], index=now.index[:, None])
            one = one._replace(kept=now.kept[:, None])
            total = population.sum(jax.vmap(lambda m: sums(m, table.shape[-1]))(one))
            return table + rate * means(total)

        def step(table, now):
            # Episodes are mostly shorter than they may be: nothing is done when nobody is left.
            left = jnp.any(population.max(now.kept.astype(jnp.int32)) > 0)
            return jax.lax.cond(left, learn, lambda table, now: table, table, now), None

        table = jax.lax.scan(step, context.model, by_step)[0]
        return Aggregate(table, None)

    return aggregate


def spec_of(config: DQL) -> MessageSpec:
    """How an uplink reads the messages."""
    if config.message == "increments":
        return MessageSpec(step=lambda params: params["learning_rate"])

    def size(message: Transitions):
        kept = jnp.sum(message.kept, dtype=jnp.uint32)
        if not config.compact_trajectory:
            return jnp.uint32(WORDS) * kept
        before = jnp.concatenate([jnp.zeros(1, bool), message.kept[:-1]])
        # The first state of a run is sent besides; all others are next states of the one before.
        runs = jnp.sum(message.kept & ~before, dtype=jnp.uint32)
        return jnp.uint32(COMPACT_WORDS) * kept + runs

    return MessageSpec(
        numbers=lambda m: jnp.where(m.kept, m.error, jnp.zeros_like(m.error)),
        items=lambda m: (jnp.abs(m.error), m.kept),
        keep=lambda m, kept: m._replace(kept=m.kept & kept),
        step=lambda params: params["learning_rate"],
        size=size,
    )


def learning_step() -> ServerStep:
    """The table moves by the learning rate times the mean errors."""

    def step(model, memory, total, params):
        return model + params["learning_rate"] * total, memory

    return ServerStep(lambda model: (), step)


def link_of(config: DQL) -> Exchange:
    """The exchange after every episode."""
    actions = grid_of(config.task).num_actions
    server, aggregate = learning_step(), aggregate_of(actions)
    if config.message == "increments":
        aggregate = mean
    elif config.order == "sequential":
        server, aggregate = replace(), sequential_of(actions, config.task.discount)
    return Exchange(
        message=lambda agent, model, params: agent.message,
        aggregate=aggregate,
        server=server,
        spec=spec_of(config),
        dedicated_server=True,
    )


def _learner(config: DQL) -> Learner:
    """Both algorithms, which differ in their uplink."""
    (states, actions), length = config.shape, config.task.max_steps
    whole, sequential = config.message == "transitions", config.order == "sequential"

    def note(step, _):
        index = step.state * actions + step.action
        ahead = config.task.discount * jnp.max(step.next_row)
        ahead = jnp.where(step.terminal, jnp.zeros_like(ahead), ahead)
        # Of the table that was sent down, in all steps of an episode: one batch, one table.
        error = step.reward + ahead - step.row[step.action]
        # Only that order makes the errors anew, with a table that has moved since.
        rest = (step.reward, step.next_state, step.terminal) if sequential else ()
        return index, error, rest

    def first(key, params):
        del key, params
        message = jnp.zeros(states * actions)
        if whole:
            places, nothing = jnp.zeros(length, jnp.int32), jnp.zeros(length)
            none = jnp.zeros(length, bool)
            rest = (nothing, places, none) if sequential else ()
            message = Transitions(places, nothing, none, *rest)
        return Agent(episodic.no_experience(), message)

    def remember(agent, trajectory, params):
        del params
        index, error, rest = trajectory.notes
        kept = jnp.arange(length, dtype=jnp.int32) < trajectory.steps
        message = Transitions(index, error, kept, *rest)
        if not whole:
            message = means(sums(message, states * actions))
        experience = agent.experience.following(
            trajectory.value, trajectory.undiscounted, trajectory.steps
        )
        return Agent(experience, message)

    def work(population, params, state, differentiable):
        trajectory = sample_on_grid(
            config.task,
            note,
            episodic.episode_keys(state)[1],
            population.spread(state.server),
            epsilon=population.spread(params.federation["epsilon"]),
            first=population.spread(params.federation["ties"]) == TIES.index("first"),
            differentiable=differentiable,
        )
        agents = per_agent(remember, population, params, state.agents, trajectory)
        state = dataclasses.replace(state, agents=agents)
        return state, trajectory.steps.astype(jnp.uint32)

    value_error = optimum.value_error(config.task)

    def measure(population, params, state) -> dict:
        del params
        own = episodic.measure(population, state, config.wire, state.agents.experience)
        values = jnp.max(state.server.reshape(-1, states, actions), axis=-1)
        return {**own, **value_error(values)}

    model = lambda key, params: params["initial_q"]
    return Learner(first, (work, link_of(config)), measure, model=model)


# Decorates `config -> Learner` with what is the same of both.
_of_both = functools.partial(
    algorithm,
    environments=("grid",),
    metrics=optimum.metrics_of,
    unit="episode",
    headline="reward",
    sampled=sampled,
    draws=("epsilon",),
)


@_of_both(DQL)
def dql(config: DQL) -> Learner:
    """Distributed Q-learning on whole episodes.

    Example:
      >>> import fedjax_rl as frl
      >>> task = frl.envs.simple_grid(max_steps=20)
      >>> algorithm = frl.dql(task, learning_rate=0.1, epsilon=0.1, wire={"word_bytes": 8})
      >>> algorithm.config.wire
      Wire(word_bytes=8, header_bytes=0)
    """
    return _learner(config)


@_of_both(EBCDQL, draws=("epsilon", "threshold", "factor", "decay"))
def ebcdql(config: EBCDQL) -> Learner:
    """DQL with event-based communication.

    Example:
      >>> import fedjax_rl as frl
      >>> task = frl.envs.simple_grid(max_steps=20)
      >>> algorithm = frl.ebcdql(task, threshold=0.05)
      >>> str(algorithm.config.transmits(4))
      'event-triggered(threshold=0.05, factor=0.5)'
    """
    return _learner(config)
