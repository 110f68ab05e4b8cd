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
from fedjax_rl.algorithms.episodic import Experience
from fedjax_rl.algorithms.properties import codes, per_federation
from fedjax_rl.envs.task import Task
from fedjax_rl.federation import uplinks
from fedjax_rl.federation.aggregators import Aggregate, mean
from fedjax_rl.federation.algorithm import Algorithm, Functions
from fedjax_rl.federation.derivatives import DERIVATIVE
from fedjax_rl.federation.exchange import Exchange, first_state
from fedjax_rl.federation.ledger import HEADER, WORD
from fedjax_rl.federation.population import Population
from fedjax_rl.federation.rounds import rounds
from fedjax_rl.federation.server import ServerStep, replace
from fedjax_rl.federation.state import Params, per_agent
from fedjax_rl.federation.uplinks import MessageSpec
from fedjax_rl.fields import declared
from fedjax_rl.rollouts.grids import TIES, grid_of, sample_on_grid

ORDERS = ("batch", "sequential")
MESSAGES = ("transitions", "increments")

# A transition is two states, an action and a reward; in a compact run of transitions each state
# is there once.
WORDS, COMPACT_WORDS = 4, 3


@dataclasses.dataclass(frozen=True)
class DQL:
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
      uplink: who sends what, see `federation.uplinks`; everybody everything by default.
      word_bytes: bytes of a number on the wire, 2, 4 or 8.
      header_bytes: bytes of every message besides.
      derivative: None, or "pathwise" to allow derivatives that leave out how
        actions are drawn; see `federation.derivatives`.
    """

    task: Task = declared(allowed=episodic.GRID)
    learning_rate: Any = declared(0.5, fields.NOT_NEGATIVE)
    epsilon: Any = declared(0.1, fields.PROBABILITY)
    ties: str = declared("random", fields.word(TIES))
    order: str = declared("batch", fields.word(ORDERS))
    literal_state_average: bool = declared(False, fields.switch())
    message: str | None = declared(None, fields.word(MESSAGES).or_none())
    compact_trajectory: bool = declared(False, fields.switch())
    uplink: uplinks.Uplink | None = declared(None, episodic.UPLINK)
    word_bytes: int = declared(4, WORD)
    header_bytes: int = declared(0, HEADER)
    derivative: str | None = declared(None, DERIVATIVE, cli=False)


@dataclasses.dataclass(frozen=True)
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

    uplink: uplinks.Uplink | None = declared(
        None, fields.nothing("ebcdql is dql with the uplink event-triggered"), cli=False
    )
    threshold: Any = declared(0.8, fields.number(0, infinite=True))
    factor: Any = declared(0.5, fields.NOT_NEGATIVE)
    decay: Any = declared(0.1, fields.PROBABILITY)
    reset: bool = declared(False, fields.switch())


def dql(task: Task, **values) -> Algorithm:
    """Distributed Q-learning; see `DQL` for the properties.

    Raises:
      ValueError: naming the property, its value and what is allowed.
    """
    return _build("dql", DQL, dql, task, values, metrics=optimum.metrics_of(task))


def ebcdql(task: Task, **values) -> Algorithm:
    """DQL with event-based communication; see `EBCDQL` for the properties.

    Raises:
      ValueError: naming the property, its value and what is allowed.
    """
    metrics = optimum.metrics_of(task)
    return _build("ebcdql", EBCDQL, ebcdql, task, values, metrics=metrics)


def check(config: DQL) -> None:
    """Raises ValueError for properties that do not fit together."""
    if config.message == "transitions" and uplink_of(config).alters:
        raise ValueError(
            f"message is transitions with the uplink {config.uplink}, which changes or stores "
            'numbers; allowed: message="increments"'
        )
    if message_of(config) == "increments":
        for name, plain in (
            ("order", "batch"),
            ("literal_state_average", False),
            ("compact_trajectory", False),
        ):
            if getattr(config, name) != plain:
                raise ValueError(
                    f"{name} is {getattr(config, name)} with messages of increments; allowed: "
                    f"{plain}"
                )
    if config.order == "sequential" and config.literal_state_average:
        raise ValueError(
            "literal_state_average is True with the order sequential; allowed: the order batch"
        )


def uplink_of(config: DQL) -> uplinks.Uplink:
    """Who sends what."""
    if not isinstance(config, EBCDQL):
        return episodic.uplink_of(config)
    return uplinks.event_triggered(config.threshold, config.factor, config.decay, config.reset)


def message_of(config: DQL) -> str:
    """What a message is, of `MESSAGES`."""
    return config.message or MESSAGES[uplink_of(config).alters]


def parameters(config: DQL, num_agents: int) -> Params:
    """What is traced, for one federation."""
    federation = per_federation(config, ("learning_rate", "epsilon"), num_agents)
    federation |= codes(config, ("ties",))
    federation["literal"] = np.bool_(config.literal_state_average)
    world = grid_of(config.task)
    # What a trajectory is made of can be dropped, but not compressed.
    numbers = world.num_states * world.num_actions
    federation |= episodic.uplink_parameters(uplink_of(config), num_agents, numbers)
    return Params({}, federation, {})


def static(config: DQL):
    """Equal for configurations that one compilation serves."""
    return (
        config.task,
        config.order,
        message_of(config),
        config.compact_trajectory,
        uplink_of(config).static,
        episodic.wire_of(config),
    )


def sampled(config: DQL) -> str | None:
    """Why a derivative is wrong: episodes depend on the table, or events do."""
    if isinstance(config, EBCDQL):
        return "events decide by the errors what is sent"
    epsilon = config.epsilon
    if fields.is_number(epsilon) and fields.is_concrete(epsilon) and np.all(epsilon == 1):
        return None
    return "episodes are drawn from what is learned (with epsilon=1 it is exact)"


class Transitions(NamedTuple):
    """An episode as a message, padded to T.

    Attributes:
      index: int32 [T], s U + a.
      error: [T], with the table that was sent down.
      kept: bool [T], the transitions that are sent; none behind the end of the episode.
      reward: [T], or () where the errors are all the learner needs.
      next_state: int32 [T], or ().
      terminal: bool [T], whether the next state is, or ().
    """

    index: jax.Array
    error: jax.Array
    kept: jax.Array
    reward: object = ()
    next_state: object = ()
    terminal: object = ()


class Agent(NamedTuple):
    """One agent.

    Attributes:
      experience: of its last episode.
      message: what it has to send.
    """

    experience: Experience
    message: object


def td_errors(table, actions: int, discount, index, reward, next_state, terminal) -> jax.Array:
    """The error of a transition, a scalar.

    Args:
      table: [S U].
      actions: U.
      discount: scalar.
      index: int32, s U + a.
      reward: scalar.
      next_state: int32.
      terminal: bool, whether the next state is.
    """
    row = jax.lax.dynamic_slice(table, (next_state * actions,), (actions,))
    ahead = jnp.where(terminal, jnp.zeros_like(reward), discount * jnp.max(row))
    return reward + ahead - table[index]


def sums(message: Transitions, size: int):
    """The errors that are kept, by entry of the table: their sums and their numbers, [size, 2]."""
    kept = message.kept.astype(message.error.dtype)
    pair = jnp.stack([jnp.where(message.kept, message.error, jnp.zeros_like(kept)), kept], axis=-1)
    return jnp.zeros((size, 2), pair.dtype).at[message.index].add(pair)


def means(total) -> jax.Array:
    """Means from sums and numbers [..., 2]; 0 where there is nothing."""
    return total[..., 0] / jnp.maximum(total[..., 1], 1)


def aggregate_of(actions: int):
    """The mean error of every entry over all that was received, [F, S U]."""

    def aggregate(population: Population, message: Transitions, sent, weight, context) -> Aggregate:
        del weight
        size = context.model.shape[-1]
        total = population.sum(jax.vmap(lambda m: sums(m, size))(received(message, sent)))
        by_state = jnp.sum(total.reshape(-1, size // actions, actions, 2), axis=2)
        literal = context.params.federation["literal"][:, None]
        spread = jnp.repeat(means(by_state), actions, axis=-1)
        return Aggregate(jnp.where(literal, spread, means(total)), None)

    return aggregate


def received(message: Transitions, sent) -> Transitions:
    """The messages [A, ...] with nothing kept in those that were not sent."""
    if sent is None:
        return message
    return message._replace(kept=message.kept & sent[:, None])


def sequential_of(actions: int, discount: float):
    """The table after the transitions of step 0 of all agents, then those of step 1, ..."""

    def aggregate(population: Population, message: Transitions, sent, weight, context) -> Aggregate:
        del weight
        message = received(message, sent)
        rate = context.params.federation["learning_rate"][:, None]
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
    if message_of(config) == "increments":
        return MessageSpec(step=lambda params: params["learning_rate"])

    def size(message: Transitions):
        kept = jnp.sum(message.kept, dtype=jnp.uint32)
        if not config.compact_trajectory:
            return jnp.uint32(WORDS) * kept
        before = jnp.concatenate([jnp.zeros(1, bool), message.kept[:-1]])
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
    if message_of(config) == "increments":
        aggregate = mean
    elif config.order == "sequential":
        server, aggregate = replace(), sequential_of(actions, config.task.discount)
    return Exchange(
        message=lambda agent, model, params: agent.message,
        uplink=uplink_of(config),
        aggregate=aggregate,
        server=server,
        spec=spec_of(config),
        wire=episodic.wire_of(config),
        dedicated_server=True,
    )


def functions(config: DQL) -> Functions:
    """The algorithm as pure functions of a population."""
    world, length = grid_of(config.task), config.task.max_steps
    actions, size = world.num_actions, world.num_states * world.num_actions
    whole, sequential = message_of(config) == "transitions", config.order == "sequential"
    link = link_of(config)

    def note(step, _):
        index = step.state * actions + step.action
        ahead = config.task.discount * jnp.max(step.next_row)
        ahead = jnp.where(step.terminal, jnp.zeros_like(ahead), ahead)
        error = step.reward + ahead - step.row[step.action]
        rest = (step.reward, step.next_state, step.terminal) if sequential else ()
        return index, error, rest

    def remember(agent, trajectory, params):
        index, error, rest = trajectory.notes
        kept = jnp.arange(length, dtype=jnp.int32) < trajectory.steps
        message = Transitions(index, error, kept, *rest)
        if not whole:
            message = means(sums(message, size))
        return Agent(
            agent.experience.following(trajectory.value, trajectory.undiscounted, trajectory.steps),
            message,
        )

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

    drive = rounds(work, link)

    def init(population, params, keys):
        message = jnp.zeros(size)
        if whole:
            places, nothing = jnp.zeros(length, jnp.int32), jnp.zeros(length)
            none = jnp.zeros(length, bool)
            rest = (nothing, places, none) if sequential else ()
            message = Transitions(places, nothing, none, *rest)
        agents = episodic.alike(population, Agent(episodic.no_experience(), message))
        table = jnp.zeros((population.num_federations, size))
        return first_state(population, link, params, keys, agents, table, detailed=True)

    value_error = optimum.value_error(config.task)

    def measure(population, params, state) -> dict:
        del params
        own = episodic.measure(population, state, link.wire, state.agents.experience)
        values = jnp.max(state.server.reshape(-1, world.num_states, actions), axis=-1)
        return {**own, **value_error(values)}

    return Functions(init, drive.round, drive.advance, measure)


# What `dql` and `ebcdql` are made of.
_build = functools.partial(
    episodic.build,
    check=check,
    parameters=parameters,
    functions=functions,
    static=static,
    sampled=sampled,
    draws=("epsilon",),
)
