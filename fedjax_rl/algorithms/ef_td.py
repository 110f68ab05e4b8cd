r"""EF-TD: temporal difference learning with compressed messages and error feedback.

The values of the uniform policy, V(s) = theta . phi(s), are learned from the directions

    g_i   = (r + discount phi(s') . theta - phi(s) . theta) phi(s)
    theta = Proj(theta + learning_rate mean_i h_i)

where h_i is what the uplink makes of g_i. With `top_k` and `scaled_sign` agents keep what was left
out for their next message (error feedback), unless told otherwise. With one-hot features a g has
one entry, and nothing is lost by sending it.

* Mitra, Pappas and Hassani, *Temporal Difference Learning with Compressed Updates: Error-Feedback
  meets Reinforcement Learning*, arXiv 2301.00944.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl import fields, streams
from fedjax_rl.algorithms import episodic
from fedjax_rl.algorithms.define import Federated, Learner, algorithm
from fedjax_rl.algorithms.episodic import Experience
from fedjax_rl.envs.task import Task
from fedjax_rl.federation.exchange import Exchange
from fedjax_rl.federation.ledger import Wire
from fedjax_rl.federation.server import ServerStep
from fedjax_rl.federation.state import Params, per_agent
from fedjax_rl.federation.uplinks import MessageSpec, norm_squared
from fedjax_rl.fields.record import environment, host, nested, record, static, traced
from fedjax_rl.learners import td_limit
from fedjax_rl.learners.features import FEATURES, features
from fedjax_rl.rollouts.grids import grid_env, grid_of, sample_on_grid, start_word

MODES = ("step", "episode")
POLICIES = ("uniform",)

METRICS = {
    "value_error": (
        "federation",
        "RMS difference to the values at the fixed point, over the states as they are visited",
    ),
    **episodic.METRICS,
}
# A step has no return.
_RETURNS = ("return", "return_of_agent")
STEP_METRICS = {
    **{name: about for name, about in METRICS.items() if name not in _RETURNS},
    "reward": ("federation", "mean over the agents of the reward of their step"),
    "frequency": ("federation", "messages per agent and step"),
    "size": ("federation", "bytes sent per agent and step"),
    "episode_steps": ("federation", "steps of every agent in a round, 1"),
    "non_finite": ("federation", "steps so far whose outcome was not finite"),
    "reward_of_agent": ("agent", "reward of each agent's step"),
}


@record
class EFTD(Federated):
    """Properties of EF-TD.

    Attributes:
      task: of every agent, a grid world.
      learning_rate: at least 0.
      features: "rbf", divided by their norm, or "onehot"; see `learners.features`.
      mode: "step", a message after every step, and where an episode ends another step leads to
        the start and gives 0; or "episode", a message after every episode, the mean of g over its
        steps, and an episode ends with value 0. The steps of short episodes weigh more in that
        mean, so that even with a feature per state its fixed point is not the policy's value.
      policy: that is evaluated, "uniform".
      radius: of the ball that theta is kept in, above 0; None for none.
      initial: number or [d], where theta begins.
      wire: the format of messages.
    """

    task: Task = environment(episodic.GRID)
    learning_rate: Any = traced(0.2, fields.NOT_NEGATIVE)
    features: str = static("rbf", fields.word(FEATURES))
    mode: str = static("step", fields.word(MODES))
    policy: str = static("uniform", fields.word(POLICIES))
    radius: Any = traced(None, fields.number(0, above=True, infinite=True).or_none(), absent=np.inf)
    initial: Any = host(0.0, fields.number(arrays=1))
    wire: Wire = nested(Wire)

    def check(self) -> None:
        """Refuses a task without a fixed point, or a first model of another size."""
        episodic.check_task(self.task)
        if self.task.discount >= 1:
            raise ValueError(
                f"discount of the task is {self.task.discount}; allowed: below 1, so that there "
                "is a fixed point"
            )
        if np.ndim(self.initial):
            episodic.check_shape("initial", self.initial, basis(self).shape[1:])

    def derived(self, num_agents: int) -> Params:
        """The first theta, [d]."""
        del num_agents
        first = episodic.filled(self.initial, basis(self).shape[1:])
        return Params({}, {"initial": first}, {})


def basis(config: EFTD) -> np.ndarray:
    """The features [S, d]; 0 where an episode ends, unless another step follows."""
    world = grid_of(config.task)
    table = features(world, config.features)
    over = np.asarray(world.terminal) & (config.mode == "episode")
    return np.where(over[:, None], 0.0, table)


def fixed_point(config: EFTD) -> td_limit.Limit:
    """Where theta goes, exactly."""
    world, phi = grid_of(config.task), basis(config)
    if config.mode == "step":
        return td_limit.of_steps(world, phi, config.task.discount)
    return td_limit.of_episodes(world, phi, config.task.discount, config.task.max_steps)


class Agent(NamedTuple):
    """One agent.

    Attributes:
      experience: of its last episode, or of its last step.
      direction: g, [d], of it.
      state: int32, where it is; the start between episodes.
      words: uint32 [2], the key of its steps.
    """

    experience: Experience
    direction: jax.Array
    state: jax.Array
    words: jax.Array


SPEC = MessageSpec(step=lambda params: params["learning_rate"])


def projected_step() -> ServerStep:
    """A step along the mean direction, then back into the ball."""

    def step(model, memory, total, params):
        model = model + params["learning_rate"] * total
        squared = norm_squared(model)
        inside = jnp.sqrt(squared) <= params["radius"]
        # Inside nothing is divided: of the branch that is not taken reverse mode would keep the
        # slope of a root at 0 or an infinite radius, times 0.
        norm = jnp.sqrt(jnp.where(inside, 1.0, squared))
        return model * jnp.where(inside, 1.0, params["radius"] / norm), memory

    return ServerStep(lambda model: (), step)


def metrics_of(config: EFTD) -> dict:
    """Those of steps, which have no return, or of episodes."""
    return STEP_METRICS if config.mode == "step" else METRICS


@algorithm(
    EFTD,
    environments=("grid",),
    metrics=metrics_of,
    unit=lambda config: config.mode,
    headline="value_error",
    sampled=lambda config: None,
)
def ef_td(config: EFTD) -> Learner:
    """EF-TD: temporal differences with compressed messages and error feedback.

    Example:
      >>> import fedjax_rl as frl
      >>> task = frl.envs.simple_grid(max_steps=20)
      >>> algorithm = frl.ef_td(task, uplink=frl.uplinks.top_k(2))
      >>> str(algorithm.config.uplink)
      'top-k(k=2)'
    """
    task, world = config.task, grid_of(config.task)
    link = Exchange(
        message=lambda agent, model, params: agent.direction,
        server=projected_step(),
        spec=SPEC,
        dedicated_server=True,
    )
    dtype = jnp.result_type(float)
    table, actions, length = basis(config), world.num_actions, task.max_steps
    phi = jnp.asarray(table, dtype)
    env, over = grid_env(world), jnp.asarray(np.asarray(world.terminal))

    def step_once(agent, theta, time, params):
        # One word a step: its integer part is the action, what is left of it the transition.
        action, word = streams.scaled(streams.threefry(agent.words, time), actions)
        state, reward, _ = env.transition(agent.state, action, word)
        ends = over[agent.state]
        # Nothing is moved from where an episode ends, so that the word is free for a new start.
        state = jnp.where(ends, env.start(word), state)
        reward = jnp.where(ends, jnp.zeros_like(reward), reward)
        here, there = phi[agent.state], phi[state]
        error = reward + task.discount * jnp.sum(there * theta) - jnp.sum(here * theta)
        experience = agent.experience.following(reward, reward, jnp.int32(1), jnp.isfinite(error))
        return agent._replace(experience=experience, direction=error * here, state=state)

    def note(step, values):
        ahead = jnp.where(step.terminal, jnp.zeros_like(step.reward), values[step.next_state])
        return step.state, step.reward + task.discount * ahead - values[step.state]

    def remember(agent, trajectory, params):
        state, error = trajectory.notes
        inside = jnp.arange(length, dtype=jnp.int32) < trajectory.steps
        error = jnp.where(inside, error, jnp.zeros_like(error))
        # By state first: one product with the features, however long the episode is.
        by_state = jnp.zeros(phi.shape[0], error.dtype).at[state].add(error)
        direction = by_state @ phi / jnp.maximum(trajectory.steps, 1).astype(error.dtype)
        experience = agent.experience.following(
            trajectory.value, trajectory.undiscounted, trajectory.steps
        )
        return agent._replace(experience=experience, direction=direction)

    def work(population, params, state, differentiable):
        if config.mode == "step":
            theta = population.spread(state.server)
            # On a clock every agent has made a number of steps of its own.
            times = jnp.broadcast_to(state.time, (population.num_agents,))
            agents = per_agent(step_once, population, params, state.agents, theta, times)
            return dataclasses.replace(state, agents=agents), jnp.ones(
                population.num_agents, jnp.uint32
            )
        agents = population.num_agents
        trajectory = sample_on_grid(
            task,
            note,
            episodic.episode_keys(state)[1],
            jnp.zeros((agents, world.num_states * actions)),
            population.spread(state.server @ phi.T),
            # The uniform policy is epsilon-greedy with epsilon 1, on any table.
            epsilon=jnp.ones(agents),
            first=jnp.zeros(agents, bool),
            differentiable=differentiable,
        )
        after = per_agent(remember, population, params, state.agents, trajectory)
        return dataclasses.replace(state, agents=after), trajectory.steps.astype(jnp.uint32)

    def first(key, params):
        del params
        own = jax.random.fold_in(key, streams.Episodic.EPISODE)
        start = env.start(start_word(own))
        nothing = jnp.zeros(phi.shape[1])
        return Agent(episodic.no_experience(), nothing, start, jax.random.key_data(own))

    limit = fixed_point(config)
    values = jnp.asarray(table @ limit.parameters, dtype)
    weight = jnp.asarray(limit.weight, dtype)

    def measure(population, params, state) -> dict:
        del params
        own = episodic.measure(population, state, config.wire, state.agents.experience)
        if config.mode == "step":
            own = {name: value for name, value in own.items() if name not in _RETURNS}
        error = state.server @ phi.T - values[None]
        return {"value_error": jnp.sqrt(jnp.sum(weight[None] * error**2, axis=-1)), **own}

    start = lambda key, params: params["initial"]
    return Learner(first, (work, link), measure, model=start)
