"""Whole episodes of many agents: only counted, or kept as trajectories.

Under stochastic policies every one of an agent's N episodes has a place of its own in the loop,
with a copy of its agent's parameters: on a CPU that takes two thirds of the time of episodes nested
in agents, and half to compile. More copies than stay in the cache would take twice the time: there,
episodes are made in several turns. Tables, of policies and of environments, are not copied but read
at places of one array for all agents, as thresholds of random words.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_rl import backend, fields, streams, turns
from fedjax_rl.learners.fitting_policies import check_fits
from fedjax_rl.learners.stochastic_policies import Policy
from fedjax_rl.learners.trajectories import Trajectories
from fedjax_rl.rollouts import engine
from fedjax_rl.rollouts.engine import Inputs, Step
from fedjax_rl.rollouts.environments import VectorEnv, choose, vector_env
from fedjax_rl.rollouts.loops import fitting

# Episodes under way whose copies stay in the cache.
EPISODES_AT_ONCE = {"cpu": 4096}


class Returns(NamedTuple):
    """Of the rewards of an episode so far; leaves [B].

    Attributes:
      value: discounted return, float; the first reward has weight 1.
      undiscounted: the sum of the rewards, float.
      weight: of the next reward.
    """

    value: jax.Array
    undiscounted: jax.Array
    weight: jax.Array

    def following(self, step: Step, discount) -> Returns:
        """After one step more; what a finished episode is rewarded with does not count.

        Args:
          step: of the episodes.
          discount: of the task.
        """
        zero = jnp.zeros_like(self.value)
        reward = step.reward.astype(zero.dtype)
        return Returns(
            # Selected, not multiplied: a finished environment that is stepped on may say nan.
            self.value + jnp.where(step.alive, self.weight * reward, zero),
            self.undiscounted + jnp.where(step.alive, reward, zero),
            self.weight * jnp.asarray(discount, zero.dtype),
        )


def no_returns(shape: tuple[int, ...], dtype=float) -> Returns:
    """Of episodes [B] that begin.

    Args:
      shape: B.
      dtype: of the returns.
    """
    zero = jnp.zeros(shape, jnp.result_type(dtype))
    return Returns(zero, zero, zero + 1)


class Episode(NamedTuple):
    """What came of one episode.

    Attributes:
      value: discounted return, float scalar; the first reward has weight 1.
      undiscounted: the sum of the rewards, float scalar.
      steps: int32 scalar.
      behaviour: [b], what novelty is measured on; () unless asked for.
      log_probability: float scalar, of all of its actions; () unless asked for.
    """

    value: jax.Array
    undiscounted: jax.Array
    steps: jax.Array
    behaviour: object
    log_probability: object = ()


def run_episodes(
    task,
    act: Callable,
    keys,
    parameters,
    environment=None,
    *,
    axis: int = 0,
    kind: str = "compact",
    behaviour: bool = False,
    log_probability: Callable | None = None,
) -> Episode:
    """One episode of every agent, of which the returns are kept.

    Args:
      task: an `envs.Task`.
      act: `(parameters, observation [D], word) -> action` of one agent, of observations as
        `task.encode` gives them; the word is a uint32 scalar of the agent's stream.
      keys: typed keys, a pair of [A]: of the first state, and of everything drawn in the episode.
        Both are consumed.
      parameters: what `act` reads, leaves [A, ...], or with A at `axis`.
      environment: parameters of the environments, leaves [A, ...]; None for the task's own.
      axis: where the leaves of `parameters` have the axis A.
      kind: of `loops.LOOPS`.
      behaviour: whether to describe the behaviour, too.
      log_probability: `(parameters, observation [D], action) -> scalar` of one agent, where that of
        an episode is asked for.

    Returns:
      An `Episode` of [A].

    Raises:
      ValueError: an unknown kind.
    """
    env, trace = VectorEnv(task), jax.vmap(task.trace)

    def one(parameters, observation, word):
        return act(parameters, task.encode(observation), word)

    def act_of_all(parameters, observation, word):
        action = jax.vmap(one, in_axes=(axis, 0, 0))(parameters, observation, word)
        if log_probability is None:
            return action, ()
        seen = jax.vmap(task.encode)(observation)
        return action, jax.vmap(log_probability, in_axes=(axis, 0, 0))(parameters, seen, action)

    def note(step, memory, inputs):
        del inputs
        returns, last, total, logs = memory
        if log_probability is not None:
            logs = logs + jnp.where(step.alive, step.output, jnp.zeros_like(step.output))
        if behaviour:
            seen = trace(step.next_state)
            last = choose(step.alive, seen, last)
            total = total + choose(step.alive, seen, jnp.zeros_like(seen))
        return (returns.following(step, task.discount), last, total, logs), ()

    # Loops that move episodes aside move what these read along, and have to know its axis.
    axes, loop = Inputs(axis, 0, 0, 0), fitting(kind, task.env)

    def made(parameters, resets, draws, environment):
        state = engine.begin(env, resets, environment)
        nothing = jnp.zeros_like(trace(state.state)) if behaviour else ()
        returns = no_returns(resets.shape)
        logs = () if log_probability is None else jnp.zeros_like(returns.value)
        state = state._replace(memory=(returns, nothing, nothing, logs))
        inputs = Inputs(parameters, jax.random.key_data(draws), environment)
        step = engine.stepper(env, act_of_all, note)
        done, _ = engine.rollout(step, inputs, state, task.max_steps, kind=loop, axes=axes)
        returns, last, total, logs = done.memory
        described = ()
        if behaviour:
            steps = jnp.maximum(done.steps, 1).astype(total.dtype)
            described = jax.vmap(task.summarise)(last, total / steps[:, None], done.steps)
            described = described.astype(returns.value.dtype)
        return Episode(returns.value, returns.undiscounted, done.steps, described, logs)

    environment = () if environment is None else environment
    size = turns.length(len(keys[0]), (parameters, environment))
    return turns.in_turns(made, size, parameters, *keys, environment, axes=(axis, 0, 0, 0))


# Stochastic policies ------------------------------------------------------------------------------


def play(
    task,
    policy,
    keys,
    parameters,
    num_episodes: int,
    environment,
    kind: str,
    note: Callable,
    memory: Callable | None = None,
    *,
    around: Callable = lambda step: step,
) -> tuple:
    """Plays the episodes of `sample_trajectories`, of whatever is noted.

    Args:
      task: as of `sample_trajectories`, and so are the others that are not named here.
      policy: likewise.
      keys: likewise.
      parameters: likewise.
      num_episodes: likewise.
      environment: likewise.
      kind: likewise.
      note: as of `engine.stepper`.
      memory: from a number of episodes to their memories when they begin, leaves of that length;
        without, steps are written down instead.
      around: from the `Stepper` to the one that is used.

    Returns:
      The states at the end and what was written down, leaves [A, N, ...].
    """
    check_fits(task, policy)
    fields.check("num_episodes", num_episodes, fields.COUNT)
    agents, env, written = keys[0].shape[0], vector_env(task), memory is None
    environment = () if environment is None else environment

    def act(ready, observation, word):
        return policy.act(ready, observation, word), ()

    step = around(engine.stepper(env, act, note, performed=jax.vmap(policy.performed)))

    def played(places):
        """The episodes of these numbers, of every agent."""
        count = len(places)
        resets, draws = (streams.fold(key[:, None], places[None]).reshape(-1) for key in keys)
        own = env.ready(environment, count)
        inputs = Inputs(policy.ready(parameters, count), jax.random.key_data(draws), own)
        nothing = () if written else memory(agents * count)
        state = engine.begin(env, resets, own, nothing)
        rows = engine.empty_rows(step, inputs, state, task.max_steps, 0) if written else ()
        loop = fitting(kind, task.env, written)
        axes = Inputs(policy.axes, 0, env.axes, 0)
        state, rows = engine.rollout(
            step, inputs, state, task.max_steps, kind=loop, axes=axes, rows=rows, time_axis=0
        )
        # One time after the other: what is written in a step is contiguous.
        rows = jax.tree.map(lambda x: x.reshape(-1, agents, count, *x.shape[2:]), rows)
        rows = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 2), rows)
        ends = jax.tree.map(
            lambda x: x.reshape(agents, count, *x.shape[1:]), (state.memory, state.steps)
        )
        return *ends, rows

    places = jnp.arange(num_episodes, dtype=jnp.uint32)
    parts = _turns(agents, num_episodes)
    if parts == 1:
        return played(places)
    made = jax.lax.map(played, places.reshape(parts, -1))
    return jax.tree.map(
        lambda x: jnp.moveaxis(x, 0, 1).reshape(agents, num_episodes, *x.shape[3:]), made
    )


def _turns(agents: int, num_episodes: int) -> int:
    """The fewest equal parts of every agent's episodes of which one stays in the cache."""
    most = EPISODES_AT_ONCE.get(backend.kind(), math.inf)
    divisors = (t for t in range(1, num_episodes + 1) if num_episodes % t == 0)
    return next((t for t in divisors if agents * num_episodes <= most * t), num_episodes)


def sample_trajectories(
    task,
    policy: Policy,
    keys,
    parameters,
    num_episodes: int,
    *,
    environment=None,
    kind: str = "while",
) -> Trajectories:
    """N episodes of every agent under its own parameters.

    Args:
      task: an `envs.Task`.
      policy: of all agents.
      keys: typed keys, a pair of [A]: of the first states, and of everything drawn in the
        episodes. Episode n has n folded in, whatever N is.
      parameters: float [A, q], or leaves [A, ...] of a policy that takes more.
      num_episodes: N, at least 1.
      environment: parameters of the environments, leaves [A, ...]; None for the task's own.
      kind: of `loops.LOOPS`.

    Returns:
      `Trajectories` with leaves [A, N, T, ...], T the longest episode of the task; the rewards
      have the dtype of the parameters.

    Raises:
      ValueError: an unknown kind, no episode, or a policy that does not fit the task.
    """
    dtype = jax.tree.leaves(parameters)[0].dtype

    def note(step, memory, inputs):
        reward = jnp.where(step.alive, step.reward, jnp.zeros_like(step.reward))
        reward = reward.astype(dtype)
        return (), Trajectories(step.observation, step.action, reward, step.alive)

    return play(task, policy, keys, parameters, num_episodes, environment, kind, note)[2]


def evaluate(
    task,
    policy: Policy,
    keys,
    parameters,
    num_episodes: int,
    *,
    environment=None,
    kind: str = "compact",
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """How well every agent does with its parameters, over N episodes.

    The actions are drawn, as in `sample_trajectories`; the same keys give the same episodes. No
    trajectory is kept: the memory does not grow with T.

    Args:
      task: an `envs.Task`.
      policy: of all agents.
      keys: as of `sample_trajectories`.
      parameters: as of `sample_trajectories`.
      num_episodes: N, at least 1.
      environment: as of `sample_trajectories`.
      kind: of `loops.LOOPS`.

    Returns:
      Mean discounted return, mean undiscounted return and mean length, each [A], of the dtype of
      the parameters.

    Raises:
      ValueError: as `sample_trajectories`.
    """
    dtype = jax.tree.leaves(parameters)[0].dtype

    def note(step, returns, inputs):
        return returns.following(step, task.discount), ()

    returns, steps, _ = play(
        task,
        policy,
        keys,
        parameters,
        num_episodes,
        environment,
        kind,
        note,
        lambda size: no_returns((size,), dtype),
    )
    means = (jnp.mean(x, axis=1) for x in (returns.value, returns.undiscounted))
    return *means, jnp.mean(steps.astype(dtype), axis=1)
