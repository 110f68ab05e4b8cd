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
from fedjax_rl.algorithms.episodic import Experience
from fedjax_rl.algorithms.properties import per_federation
from fedjax_rl.envs.grid_tables import GridWorld
from fedjax_rl.envs.tabular import initial_distribution
from fedjax_rl.envs.task import Task
from fedjax_rl.federation import uplinks
from fedjax_rl.federation.algorithm import Algorithm, Functions
from fedjax_rl.federation.derivatives import DERIVATIVE
from fedjax_rl.federation.exchange import Exchange, first_state
from fedjax_rl.federation.ledger import HEADER, WORD
from fedjax_rl.federation.rounds import rounds
from fedjax_rl.federation.server import ServerStep
from fedjax_rl.federation.state import Params, per_agent
from fedjax_rl.federation.uplinks import MessageSpec, norm_squared
from fedjax_rl.fields import declared
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


@dataclasses.dataclass(frozen=True)
class EFTD:
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
      uplink: what is sent, see `federation.uplinks`; everything by default.
      word_bytes: bytes of a number on the wire, 2, 4 or 8.
      header_bytes: bytes of every message besides.
      derivative: None, or "pathwise" to allow derivatives that leave out how
        an uplink chooses what it sends; see `federation.derivatives`.
    """

    task: Task = declared(allowed=episodic.GRID)
    learning_rate: Any = declared(0.2, fields.NOT_NEGATIVE)
    features: str = declared("rbf", fields.word(FEATURES))
    mode: str = declared("step", fields.word(MODES))
    policy: str = declared("uniform", fields.word(POLICIES))
    radius: Any = declared(None, fields.number(0, above=True, infinite=True).or_none())
    uplink: uplinks.Uplink | None = declared(None, episodic.UPLINK)
    word_bytes: int = declared(4, WORD)
    header_bytes: int = declared(0, HEADER)
    derivative: str | None = declared(None, DERIVATIVE, cli=False)


def ef_td(task: Task, **values) -> Algorithm:
    """EF-TD; see `EFTD` for the properties.

    Raises:
      ValueError: naming the property, its value and what is allowed.
    """
    mode = values.get("mode", "step")
    by_step = isinstance(mode, str) and mode == "step"
    return episodic.build(
        "ef-td",
        EFTD,
        ef_td,
        task,
        values,
        check=check,
        parameters=parameters,
        functions=functions,
        static=static,
        metrics=STEP_METRICS if by_step else METRICS,
        unit="step" if by_step else "episode",
        headline="value_error",
        sampled=lambda config: None,
    )


def check(config: EFTD) -> None:
    """Raises ValueError for a task without a fixed point."""
    if config.task.discount >= 1:
        raise ValueError(
            f"discount of the task is {config.task.discount}; allowed: below 1, so that there is "
            "a fixed point"
        )


def basis(config: EFTD) -> np.ndarray:
    """The features [S, d]; 0 where an episode ends, unless another step follows."""
    world = grid_of(config.task)
    table = features(world, config.features)
    over = np.asarray(world.terminal) & (config.mode == "episode")
    return np.where(over[:, None], 0.0, table)


def parameters(config: EFTD, num_agents: int) -> Params:
    """What is traced, for one federation."""
    federation = per_federation(config, ("learning_rate",), num_agents)
    federation["radius"] = np.asarray(np.inf)
    if config.radius is not None:
        federation |= per_federation(config, ("radius",), num_agents)
    numbers = basis(config).shape[1]
    federation |= episodic.uplink_parameters(episodic.uplink_of(config), num_agents, numbers)
    return Params({}, federation, {})


def static(config: EFTD):
    """Equal for configurations that one compilation serves."""
    return (
        config.task,
        config.features,
        config.mode,
        config.policy,
        episodic.uplink_of(config).static,
        episodic.wire_of(config),
    )


# The fixed point, exactly ----------------------------------------------------------------------


class Chain(NamedTuple):
    """A grid world under the uniform policy, float64 on the host.

    Attributes:
      transition: [S, S].
      reward: [S, S], the mean reward of a step from one state to another.
      start: [S], probability of each first state.
    """

    transition: np.ndarray
    reward: np.ndarray
    start: np.ndarray


def chain_of(world: GridWorld) -> Chain:
    """Where the uniform policy leads, and what it earns."""
    transition = np.asarray(world.mdp.transition, np.float64)
    reward = np.broadcast_to(np.asarray(world.mdp.reward, np.float64), transition.shape)
    moves = transition.mean(axis=1)
    earned = (transition * reward).mean(axis=1)
    return Chain(
        moves,
        np.divide(earned, moves, out=np.zeros_like(earned), where=moves > 0),
        initial_distribution(world.mdp),
    )


def restarted(chain: Chain, terminal) -> Chain:
    """The chain in which a step from a terminal state leads to the start and gives 0."""
    transition, reward = chain.transition.copy(), chain.reward.copy()
    transition[terminal] = chain.start
    reward[terminal] = 0.0
    return Chain(transition, reward, chain.start)


def pairs_in_steps(chain: Chain) -> np.ndarray:
    """How often a step leads from one state to another in the long run, [S, S], sum 1."""
    num = len(chain.transition)
    system = np.vstack([chain.transition.T - np.eye(num), np.ones(num)])
    stationary = np.linalg.lstsq(system, np.append(np.zeros(num), 1.0), rcond=None)[0]
    return stationary[:, None] * chain.transition


def pairs_in_episodes(chain: Chain, terminal, max_steps: int) -> np.ndarray:
    """The expected part of an episode's steps that lead from one state to another, [S, S], sum 1.

    A step in a long episode weighs less than one in a short one: with t steps before it and k
    after it, 1 / (t + 1 + k). The chances of k are worked out backwards from the end.
    """
    num = len(chain.transition)
    inside = np.where(terminal[:, None], 0.0, chain.transition)
    # ends[k, s]: the episode goes on for exactly k steps from s.
    ends = np.zeros((max_steps, num))
    ends[0] = terminal
    for k in range(1, max_steps):
        ends[k] = inside @ ends[k - 1]
    now = chain.start * ~terminal
    pairs = np.zeros((num, num))
    for t in range(max_steps):
        left = max_steps - t - 1
        after = ends[:left]
        weight = np.sum(after / (t + 1 + np.arange(left))[:, None], axis=0)
        weight = weight + (1 - after.sum(axis=0)) / max_steps
        pairs += now[:, None] * inside * weight
        now = now @ inside * ~terminal
    return pairs


class Limit(NamedTuple):
    """Where TD learning goes.

    Attributes:
      parameters: [d], float64; those of least norm where the features leave several.
      weight: [S], how often each state is visited, sum 1.
    """

    parameters: np.ndarray
    weight: np.ndarray


def fixed_point(config: EFTD) -> Limit:
    r"""Solves `\sum_{s,s'} w(s,s') phi(s) (r(s,s') + discount phi(s').x - phi(s).x) = 0`."""
    world = grid_of(config.task)
    terminal, chain = np.asarray(world.terminal), chain_of(world)
    if config.mode == "step":
        chain = restarted(chain, terminal)
        pairs = pairs_in_steps(chain)
    else:
        pairs = pairs_in_episodes(chain, terminal, config.task.max_steps)
    phi, weight = basis(config), pairs.sum(axis=1)
    ahead = pairs @ phi * config.task.discount
    matrix = phi.T @ (weight[:, None] * phi - ahead)
    earned = phi.T @ np.sum(pairs * chain.reward, axis=1)
    return Limit(np.linalg.lstsq(matrix, earned, rcond=None)[0], weight)


# The algorithm ---------------------------------------------------------------------------------


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


def functions(config: EFTD) -> Functions:
    """The algorithm as pure functions of a population."""
    task, world = config.task, grid_of(config.task)
    link = Exchange(
        message=lambda agent, model, params: agent.direction,
        uplink=episodic.uplink_of(config),
        server=projected_step(),
        spec=SPEC,
        wire=episodic.wire_of(config),
        dedicated_server=True,
    )
    dtype = jnp.result_type(float)
    table, actions, length = basis(config), world.num_actions, task.max_steps
    phi = jnp.asarray(table, dtype)
    env, over = grid_env(world), jnp.asarray(np.asarray(world.terminal))

    def step_once(agent, theta, params, time):
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
        by_state = jnp.zeros(phi.shape[0], error.dtype).at[state].add(error)
        direction = by_state @ phi / jnp.maximum(trajectory.steps, 1).astype(error.dtype)
        experience = agent.experience.following(
            trajectory.value, trajectory.undiscounted, trajectory.steps
        )
        return agent._replace(experience=experience, direction=direction)

    def work(population, params, state, differentiable):
        if config.mode == "step":
            theta = population.spread(state.server)
            agents = per_agent(
                step_once, population, params, state.agents, theta, fixed=(state.time,)
            )
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
            epsilon=jnp.ones(agents),
            first=jnp.zeros(agents, bool),
            differentiable=differentiable,
        )
        after = per_agent(remember, population, params, state.agents, trajectory)
        return dataclasses.replace(state, agents=after), trajectory.steps.astype(jnp.uint32)

    drive = rounds(work, link)

    def init(population, params, keys):
        own = streams.keys_of(keys, streams.Episodic.EPISODE)
        start = jax.vmap(lambda key: env.start(start_word(key)))(own)
        agent = Agent(episodic.no_experience(), jnp.zeros(phi.shape[1]), jnp.int32(0), ())
        agents = episodic.alike(population, agent)
        agents = agents._replace(state=start, words=jax.random.key_data(own))
        theta = jnp.zeros((population.num_federations, phi.shape[1]))
        return first_state(population, link, params, keys, agents, theta, detailed=True)

    limit = fixed_point(config)
    values = jnp.asarray(table @ limit.parameters, dtype)
    weight = jnp.asarray(limit.weight, dtype)

    def measure(population, params, state) -> dict:
        del params
        own = episodic.measure(population, state, link.wire, state.agents.experience)
        if config.mode == "step":
            own = {name: value for name, value in own.items() if name not in _RETURNS}
        error = state.server @ phi.T - values[None]
        return {"value_error": jnp.sqrt(jnp.sum(weight[None] * error**2, axis=-1)), **own}

    return Functions(init, drive.round, drive.advance, measure)
