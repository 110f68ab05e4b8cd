"""Episodes of many agents under stochastic policies: kept as trajectories, or only counted.

Every episode has a place of its own in the loop, with a copy of its agent's parameters: on a CPU
that takes two thirds of the time of episodes nested in agents, and half to compile. More copies
than stay in the cache would take twice the time: there, episodes are made in several turns.
"""

from __future__ import annotations

import functools
import math
import numbers
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_rl import streams
from fedjax_rl.learners import episodes
from fedjax_rl.learners.stochastic_policies import Policy, check_fits

# Episodes under way whose copies stay in the cache.
EPISODES_AT_ONCE = {"cpu": 4096}


class Trajectories(NamedTuple):
    """N episodes of one agent, each padded to T steps.

    Attributes:
      observation: [N, T, ...], before each action, as the environment gives it.
      action: [N, T, ...], as drawn.
      reward: [N, T], 0 in the padding.
      mask: bool [N, T], the steps that were made.
    """

    observation: jax.Array
    action: jax.Array
    reward: jax.Array
    mask: jax.Array

    @property
    def steps(self) -> jax.Array:
        """Length of each episode, int32 [..., N]."""
        return jnp.sum(self.mask, axis=-1, dtype=jnp.int32)


class _Now(NamedTuple):
    """An episode under way; `memory` is what is kept of it."""

    state: object
    observation: jax.Array
    alive: jax.Array
    memory: object


def _play(task, policy, keys, parameters, num_episodes, environment, kind, begin, note):
    """Plays the episodes of `roll_out`, whose arguments are these and two more.

    `begin: observation -> memory` and `note: (t, now, action, reward) -> memory` say what is kept
    of one episode; the reward is 0 where it is over. The memory at the end has leaves [A, N, ...].
    """
    check_fits(task, policy)
    if not isinstance(num_episodes, numbers.Integral) or num_episodes < 1:
        raise ValueError(f"num_episodes is {num_episodes}; allowed: a whole number of at least 1")
    own = environment is not None
    environment = environment if own else ()
    agents = parameters.shape[0]

    def first(key, environment):
        observation, state = task.env.reset(key, environment if own else task.params)
        return _Now(state, observation, jnp.asarray(True), begin(observation))

    def step(t, fixed, now):
        parameters, data, environment = fixed
        # As in `episodes`: a word for the action, two for the environment.
        place = jnp.uint32(3) * t
        word, *rest = (streams.threefry(data, place + jnp.uint32(n)) for n in range(3))
        action = policy.sample(parameters, now.observation, word)
        key = jax.random.wrap_key_data(jnp.stack(rest), impl=streams.IMPLEMENTATION)
        observation, state, reward, terminated, truncated, _ = task.env.step(
            key, now.state, policy.performed(action), environment if own else task.params
        )
        reward = jnp.where(now.alive, reward, jnp.zeros_like(reward)).astype(parameters.dtype)
        memory = note(t, now, action, reward)
        return _Now(state, observation, now.alive & ~(terminated | truncated), memory)

    def play(places):
        """The episodes of these numbers, of every agent."""
        count = len(places)

        def each(x):
            return jax.tree.map(lambda x: jnp.repeat(x, count, axis=0), x)

        tiled = jnp.tile(places, agents)
        resets, draws = (jax.vmap(jax.random.fold_in)(each(key), tiled) for key in keys)
        worlds = each(environment)
        done = episodes.loop(
            step,
            lambda now: now.alive,
            (each(parameters), jax.random.key_data(draws), worlds),
            jax.vmap(first)(resets, worlds),
            task.max_steps,
            kind,
        )
        return jax.tree.map(lambda x: x.reshape(agents, count, *x.shape[1:]), done.memory)

    places = jnp.arange(num_episodes, dtype=jnp.uint32)
    turns = _turns(agents, num_episodes)
    if turns == 1:
        return play(places)
    memory = jax.lax.map(play, places.reshape(turns, -1))
    return jax.tree.map(
        lambda x: jnp.moveaxis(x, 0, 1).reshape(agents, num_episodes, *x.shape[3:]), memory
    )


def _turns(agents: int, num_episodes: int) -> int:
    """The fewest equal parts of every agent's episodes of which one stays in the cache."""
    most = EPISODES_AT_ONCE.get(jax.default_backend(), math.inf)
    parts = (turns for turns in range(1, num_episodes + 1) if num_episodes % turns == 0)
    return next((t for t in parts if agents * num_episodes <= most * t), num_episodes)


def roll_out(
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
      parameters: [A, q].
      num_episodes: N, at least 1.
      environment: parameters of the environment, leaves [A, ...]; the task's own by default.
      kind: of `episodes.LOOPS`.

    Returns:
      `Trajectories` with leaves [A, N, T, ...], T the longest episode of the task; the rewards
      have the dtype of the parameters.

    Raises:
      ValueError: an unknown kind, no episode, or a policy that does not fit the task.
    """

    def begin(observation):
        drawn = jax.eval_shape(policy.sample, parameters[0], observation, jnp.uint32(0))

        def buffer(shape, dtype):
            return jnp.zeros((task.max_steps, *shape), dtype)

        return Trajectories(
            buffer(observation.shape, observation.dtype),
            buffer(drawn.shape, drawn.dtype),
            buffer((), parameters.dtype),
            buffer((), bool),
        )

    def note(t, now, action, reward):
        made = Trajectories(now.observation, action, reward, now.alive)
        return jax.tree.map(
            lambda old, new: jax.lax.dynamic_update_index_in_dim(old, new, t.astype(jnp.int32), 0),
            now.memory,
            made,
        )

    return _play(task, policy, keys, parameters, num_episodes, environment, kind, begin, note)


class _Sums(NamedTuple):
    """Of the rewards so far, discounted and not, of the steps; and the next discount factor."""

    value: jax.Array
    total: jax.Array
    steps: jax.Array
    factor: jax.Array


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

    The actions are drawn, as in `roll_out`; the same keys give the same episodes. No trajectory is
    kept: the memory does not grow with T.

    Args:
      task: an `envs.Task`.
      policy: of all agents.
      keys: as of `roll_out`.
      parameters: [A, q].
      num_episodes: N, at least 1.
      environment: as of `roll_out`.
      kind: of `episodes.LOOPS`.

    Returns:
      Mean discounted return, mean undiscounted return and mean length, each [A], of the dtype of
      the parameters.

    Raises:
      ValueError: as `roll_out`.
    """
    zero, one = (jnp.asarray(x, parameters.dtype) for x in (0, 1))

    def begin(observation):
        del observation
        return _Sums(zero, zero, zero, one)

    def note(t, now, action, reward):
        del t, action
        value, total, steps, factor = now.memory
        return _Sums(
            value + factor * reward,
            total + reward,
            steps + now.alive.astype(parameters.dtype),
            factor * jnp.asarray(task.discount, parameters.dtype),
        )

    sums = _play(task, policy, keys, parameters, num_episodes, environment, kind, begin, note)
    value, total, steps = (jnp.mean(x, axis=1) for x in (sums.value, sums.total, sums.steps))
    return value, total, steps


# Steps below which trajectories are not shortened any further.
_SHORTEST = 32


def without_padding(function: Callable, trajectories: Trajectories, *others):
    """Calls a function on trajectories cut off where, to a factor of two, the longest one ends.

    One of a few programs is chosen while running: with episodes of 20 steps out of 500, most of
    a backward pass would be spent on padding.

    Args:
      function: `(trajectories, *others) -> pytree` of shapes that do not depend on T.
      trajectories: leaves [A, N, T, ...], of all agents. Not to be called under `vmap`, where all
        of the programs would run.
      *others: further arguments.
    """
    lengths = [trajectories.mask.shape[2]]
    while lengths[-1] // 2 >= _SHORTEST:
        lengths.append(lengths[-1] // 2)
    longest = jnp.max(trajectories.steps)
    place = sum(((longest <= length).astype(jnp.int32) for length in lengths[1:]), jnp.int32(0))

    def cut(length, trajectories, *others):
        short = jax.tree.map(lambda x: x[:, :, :length], trajectories)
        return function(short, *others)

    branches = [functools.partial(cut, length) for length in lengths]
    return jax.lax.switch(place, branches, trajectories, *others)
