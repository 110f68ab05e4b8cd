r"""DAVIA: distributed approximate value iteration in which a message has to be worth its price.

Every agent runs an episode of T steps, epsilon-greedily on the learner's model theta, and has with
the targets y_t = r_{t+1} + discount V(s_{t+1}) of linear values V(s) = theta . phi(s)

    J(x) = 1/T \sum_t (y_t - x . phi(s_t))^2
    g    = 1/T \sum_t phi(s_t) (theta . phi(s_t) - y_t)
    gain = J(theta) - J(theta - eta g) = 2 eta |g|^2 - eta^2 1/T \sum_t (g . phi(s_t))^2

It sends g if the gain reaches `price / ratio^(horizon - 1 - episode)`, and the learner makes the
step theta - eta mean g over what it received.

* Gatsis, *Federated Reinforcement Learning at the Edge*, arXiv 2112.05908.
* Gunn, *Communication Efficient Distributed Reinforcement Learning* (2023), section 2.4.3, whose
  condition lacks J(theta) and a minus sign: `DAVIA.trigger` "literal".

Neither says how to act on the values of states: here by a look-ahead through the known model.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl import fields
from fedjax_rl.algorithms import episodic, optimum
from fedjax_rl.algorithms.define import Federated, Learner, algorithm
from fedjax_rl.algorithms.episodic import Experience
from fedjax_rl.envs import solvers
from fedjax_rl.envs.task import Task
from fedjax_rl.federation import uplinks
from fedjax_rl.federation.aggregators import Aggregate, mean
from fedjax_rl.federation.exchange import Exchange
from fedjax_rl.federation.ledger import Wire
from fedjax_rl.federation.server import ServerStep
from fedjax_rl.federation.state import Params, per_agent
from fedjax_rl.federation.uplinks import MessageSpec, norm_squared
from fedjax_rl.fields.record import engine, environment, host, nested, record, static, traced
from fedjax_rl.learners.features import FEATURES, features
from fedjax_rl.rollouts.grids import TIES, grid_of, sample_on_grid

TRIGGERS = ("gain", "literal")


@record
class DAVIA(Federated):
    """Properties of DAVIA.

    Attributes:
      task: of every agent, a grid world.
      learning_rate: eta, at least 0.
      price: lambda, of a message in units of a squared reward; at least 0.
      ratio: rho, by which the price falls with every episode, on a clock with every step of the
        server; in (0, 1].
      horizon: E, episodes of the run, on a clock steps of the server; the price has fallen to
        `price` at its end and stays.
      epsilon: probability of a random action, in [0, 1].
      ties: "random", any of the best actions, or "first". Values 16 roundings apart, in units of
        the largest size among those of the state, are equal: 2e-6 of it in float32.
      features: "onehot" or "rbf", see `learners.features`.
      trigger: "gain", or "literal": sends where J(theta - eta g) is at most the price, as the
        report has it; nothing is ever sent with that.
      model_free: whether the values are those of states *and* actions, so that no model is needed
        to act: features of (s, a), and the largest value of the next state in the targets.
      initial: number or [d], where theta begins.
      uplink: who sends, see `federation.uplinks`, in place of the price.
      wire: the format of messages.
    """

    task: Task = environment(episodic.GRID)
    learning_rate: Any = traced(0.5, fields.NOT_NEGATIVE)
    price: Any = engine(0.04, fields.number(0, infinite=True))
    ratio: Any = engine(0.9995, fields.number(0, 1, above=True))
    horizon: Any = engine(1000, fields.whole(1, follows=True, traced=True))
    epsilon: Any = traced(0.1, fields.PROBABILITY)
    ties: str = traced("random", fields.word(TIES), by="word")
    features: str = static("onehot", fields.word(FEATURES))
    trigger: str = static("gain", fields.word(TRIGGERS))
    model_free: bool = static(False, fields.switch())
    initial: Any = host(0.0, fields.number(arrays=1))
    wire: Wire = nested(Wire)

    def check(self) -> None:
        """Refuses a task that cannot be, or a first model of another size."""
        episodic.check_task(self.task)
        if np.ndim(self.initial):
            episodic.check_shape("initial", self.initial, basis(self).shape[1:])

    def transmits(self, num_agents=None) -> uplinks.Uplink:
        """Who has a message that is worth its price, unless another uplink is given."""
        if self.uplink is not None:
            return super().transmits(num_agents)
        return uplinks.event_triggered(
            self.price,
            ratio=self.ratio,
            horizon=self.horizon,
            below=self.trigger == "literal",
        )

    def derived(self, num_agents: int) -> Params:
        """The first theta, [d]."""
        del num_agents
        first = episodic.filled(self.initial, basis(self).shape[1:])
        return Params({}, {"initial": first}, {})


def basis(config: DAVIA) -> np.ndarray:
    """The features [P, d] of the states, or of states and actions; 0 where an episode ends."""
    world = grid_of(config.task)
    table = features(world, config.features, config.model_free)
    over = np.repeat(np.asarray(world.terminal), table.shape[0] // world.num_states)
    # Zero features make the value behind an end 0 whatever theta is.
    return np.where(over[:, None], 0.0, table)


class Gradient(NamedTuple):
    """A message; on the wire only the value.

    Attributes:
      value: g, [d].
      merit: what the trigger compares: the gain, or J(theta - eta g).
    """

    value: jax.Array
    merit: jax.Array


class Agent(NamedTuple):
    """One agent.

    Attributes:
      experience: of its last episode.
      message: what it has to send.
    """

    experience: Experience
    message: Gradient


SPEC = MessageSpec(
    numbers=lambda message: message.value,
    replaced=lambda message, value: message._replace(value=value),
    items=lambda message: (message.merit[None], jnp.ones(1, bool)),
    step=lambda params: params["learning_rate"],
)


def semi_gradient(table, index, error, valid):
    """The gradient of an episode with its targets frozen.

    Args:
      table: features [P, d].
      index: int32 [T], rows of the features.
      error: [T], theta . phi(s_t) - y_t.
      valid: bool [T].

    Returns:
      g [d], g . phi(s_t) [T], and the number of steps, at least 1.
    """
    steps = jnp.maximum(jnp.sum(valid.astype(error.dtype)), 1)
    error = jnp.where(valid, error, jnp.zeros_like(error))
    # By row first: one product with the table, however long the episode is.
    by_row = jnp.zeros(table.shape[0], error.dtype).at[index].add(error)
    # Half the slope of J: the report leaves the 2 to eta, and the gain is that of this step.
    gradient = by_row @ table / steps
    return gradient, (table @ gradient)[index], steps


def gain(gradient, along, valid, steps, rate) -> jax.Array:
    """J(theta) - J(theta - rate g), a scalar, from `semi_gradient`.

    Args:
      gradient: g, [d].
      along: g . phi(s_t), [T].
      valid: bool [T].
      steps: their number, at least 1.
      rate: eta.
    """
    # No approximation: with frozen targets J is quadratic in theta.
    curvature = jnp.sum(jnp.where(valid, along**2, jnp.zeros_like(along))) / steps
    return 2 * rate * norm_squared(gradient) - rate**2 * curvature


def error_after(error, along, valid, steps, rate) -> jax.Array:
    """J(theta - rate g), a scalar, from `semi_gradient` and the errors [T] before.

    Args:
      error: theta . phi(s_t) - y_t, [T].
      along: g . phi(s_t), [T].
      valid: bool [T].
      steps: their number, at least 1.
      rate: eta.
    """
    after = jnp.where(valid, error - rate * along, jnp.zeros_like(error))
    return jnp.sum(after**2) / steps


def aggregate(population, message: Gradient, sent, weight, context) -> Aggregate:
    """The mean gradient over those who sent, [F, d].

    Args:
      population: who belongs to whom.
      message: leaves [A, ...].
      sent: bool [A], or None for all.
      weight: of the agents, as `mean` takes it.
      context: of the exchange.
    """
    return mean(population, message.value, sent, weight, context)


def descent() -> ServerStep:
    """A step down the mean gradient."""

    def step(model, memory, total, params):
        return model - params["learning_rate"] * total, memory

    return ServerStep(lambda model: (), step)


@algorithm(
    DAVIA,
    environments=("grid",),
    metrics=optimum.metrics_of,
    unit="episode",
    headline="reward",
    draws=("epsilon", "price", "ratio"),
)
def davia(config: DAVIA) -> Learner:
    """DAVIA: approximate value iteration in which a message has to be worth its price.

    Example:
      >>> import fedjax_rl as frl
      >>> task = frl.envs.simple_grid(max_steps=20)
      >>> algorithm = frl.davia(task, price=0.01, ratio=0.9)
      >>> algorithm.config.price
      0.01
    """
    world, task = grid_of(config.task), config.task
    actions, length = world.num_actions, task.max_steps
    link = Exchange(
        message=lambda agent, model, params: agent.message,
        aggregate=aggregate,
        server=descent(),
        spec=SPEC,
        dedicated_server=True,
    )
    dtype = jnp.result_type(float)
    table = jnp.asarray(basis(config), dtype)
    model = np.asarray(world.mdp.transition).reshape(-1, world.num_states)
    reward = jnp.asarray(solvers.expected_reward(world.mdp).reshape(-1), dtype)

    def values_of(theta):
        """The values [F, P] of models [F, d], and what they make of the actions, [F, S U]."""
        values = theta @ table.T
        if config.model_free:
            return values, values
        return values, reward[None] + task.discount * (values @ jnp.asarray(model.T, dtype))

    def note(step, values):
        if config.model_free:
            index = step.state * actions + step.action
            ahead = jnp.max(step.next_row)
        else:
            index, ahead = step.state, values[step.next_state]
        ahead = jnp.where(step.terminal, jnp.zeros_like(ahead), ahead)
        return index, values[index] - (step.reward + task.discount * ahead)

    def remember(agent, trajectory, params):
        index, error = trajectory.notes
        valid = jnp.arange(length, dtype=jnp.int32) < trajectory.steps
        gradient, along, steps = semi_gradient(table, index, error, valid)
        rate = params["learning_rate"]
        if config.trigger == "literal":
            merit = error_after(error, along, valid, steps, rate)
        else:
            merit = gain(gradient, along, valid, steps, rate)
        experience = agent.experience.following(
            trajectory.value, trajectory.undiscounted, trajectory.steps
        )
        return Agent(experience, Gradient(gradient, merit))

    def work(population, params, state, differentiable):
        # Once per server, before they are spread: all its agents see the same values.
        values, worth = values_of(state.server)
        trajectory = sample_on_grid(
            task,
            note,
            episodic.episode_keys(state)[1],
            population.spread(worth),
            population.spread(values),
            epsilon=population.spread(params.federation["epsilon"]),
            first=population.spread(params.federation["ties"]) == TIES.index("first"),
            differentiable=differentiable,
        )
        agents = per_agent(remember, population, params, state.agents, trajectory)
        state = dataclasses.replace(state, agents=agents)
        return state, trajectory.steps.astype(jnp.uint32)

    def first(key, params):
        del key, params
        nothing = Gradient(jnp.zeros(table.shape[1]), jnp.zeros(()))
        return Agent(episodic.no_experience(), nothing)

    value_error = optimum.value_error(task)

    def measure(population, params, state) -> dict:
        del params
        own = episodic.measure(population, state, config.wire, state.agents.experience)
        values = values_of(state.server)[0]
        if config.model_free:
            values = jnp.max(values.reshape(-1, world.num_states, actions), axis=-1)
        return {**own, **value_error(values)}

    start = lambda key, params: params["initial"]
    return Learner(first, (work, link), measure, model=start)
