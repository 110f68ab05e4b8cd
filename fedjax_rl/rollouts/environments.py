"""Vectorised environments: stepped for whole arrays of episodes at a time.

Tables are one array for all agents, read at places of the whole of it: where every episode has a
copy of its agent's tables, copying them and looking an agent up takes as long as all the rest. Rows
of transitions are summed up once, to thresholds of random words, and not in every step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from fedjax_rl import streams
from fedjax_rl.envs import tabular_env
from fedjax_rl.learners import tabular_steps
from fedjax_rl.learners.stochastic_policies import repeated


class Environments(Protocol):
    """Environments that are stepped together, such as `VectorEnv`.

    Attributes:
      words: random words that a step takes.
      axes: where what they read has the axis B, a prefix of it as for `vmap`.
    """

    words: int
    axes: Any

    def ready(self, environment, copies: int = 1) -> Any:
        """What the others read, once for all steps.

        Args:
          environment: parameters of the environments, leaves [A, ...]; () for their own.
          copies: episodes of every agent, next to each other in B.
        """

    def reset(self, keys, environment) -> tuple:
        """Observations and states of new episodes.

        Args:
          keys: typed keys [B]; consumed.
          environment: as of `ready`.
        """

    def step(self, words, state, action, environment) -> tuple:
        """Observations, states, rewards, and whether it terminated and was truncated.

        Args:
          words: as many uint32 [B] as a step takes.
          state: leaves [B, ...].
          action: [B, ...].
          environment: as of `ready`.
        """


def vector_env(task) -> Environments:
    """The environments of episodes of a task, one after another or side by side."""
    return TableEnv(task) if task.tabular else VectorEnv(task)


@dataclasses.dataclass(frozen=True)
class VectorEnv:
    """The vectorised environment of a task: one per agent, or E of each agent.

    Attributes:
      task: an `envs.Task`.
      nested: whether B is G and E, rather than A.
      dtype: of the observations; None for that of the environment.
    """

    task: Any
    nested: bool = False
    dtype: Any = None

    # A key of two words.
    words = 2
    axes = 0

    def ready(self, environment=(), copies: int = 1) -> Any:
        """The parameters of every episode, leaves [A copies, ...], as of `Environments`."""
        return repeated(environment, copies)

    def _mapped(self, function, environment) -> Callable:
        """`function(*arrays, environment)` of arrays [B, ...]; agents share what they share."""
        # No parameters is an empty tuple, which is a pytree, too.
        shared = isinstance(environment, tuple) and not environment
        parameters, axis = (self.task.params, None) if shared else (environment, 0)

        def call(*arrays):
            each = (0,) * len(arrays)
            mapped = function
            if self.nested:
                mapped = jax.vmap(mapped, in_axes=(*each, None))
            return jax.vmap(mapped, in_axes=(*each, axis))(*arrays, parameters)

        return call

    def _seen(self, observation) -> jax.Array:
        return observation if self.dtype is None else observation.astype(self.dtype)

    def reset(self, keys, environment=()) -> tuple:
        """Starts episodes.

        Args:
          keys: typed keys [B]; consumed.
          environment: parameters of the environments, leaves [A, ...]; () for the task's own.

        Returns:
          Observations and states, leaves [B, ...].
        """
        observation, state = self._mapped(self.task.env.reset, environment)(keys)
        return self._seen(observation), state

    def step(self, words, state, action, environment=()) -> tuple:
        """Steps every environment once; none begins anew.

        Args:
          words: two uint32 [B], the key of each step.
          state: leaves [B, ...].
          action: [B, ...], as the environment takes it.
          environment: as of `reset`.

        Returns:
          Observations, states, rewards, whether the MDP ended and whether the environment cut the
          episode off, leaves [B, ...].
        """
        made = self._mapped(self.task.env.step, environment)(key_of(*words), state, action)
        observation, state, reward, terminated, truncated, _ = made
        return self._seen(observation), state, reward, terminated, truncated


class Tables(NamedTuple):
    """What steps of tables read.

    Attributes:
      mdps: a `TabularMDP`, one or those of all agents, of leaves [A, ...].
      bounds: uint32 [A, S, U, S - 1], or [S, U, S - 1], `tabular_steps.thresholds_of` of the next
        states.
      place: int32 [B], which of them is an episode's; None where there is one.
    """

    mdps: Any
    bounds: jax.Array
    place: jax.Array | None


@dataclasses.dataclass(frozen=True)
class TableEnv:
    """The vectorised environment of a `TabularMDP` or of a family of them.

    Attributes:
      task: of `envs.tabular_task`.
    """

    task: Any

    words = 1
    axes = Tables(None, None, 0)

    def ready(self, environment=(), copies: int = 1) -> Tables:
        """`Tables`, as of `Environments`: rows are summed up once, not in every step.

        Raises:
          ValueError: tables of more entries than an index of 32 bits can tell.
        """
        if isinstance(environment, tuple):
            mdp = self.task.params
            return Tables(mdp, tabular_steps.thresholds_of(jnp.asarray(mdp.transition)), None)
        kernels = jnp.asarray(environment.transition)
        if kernels.size >= 2**31:
            raise ValueError(
                f"the transitions of all agents have {kernels.size:.3g} entries; allowed: below "
                "2^31"
            )
        place = repeated(jnp.arange(len(kernels), dtype=jnp.int32), copies)
        return Tables(environment, tabular_steps.thresholds_of(kernels), place)

    def reset(self, keys, environment: Tables) -> tuple:
        """The first states, int32 [B], as observations and as states.

        Args:
          keys: typed keys [B]; consumed where first states are drawn.
          environment: of `ready`.
        """
        mdps, _, place = environment
        state, law = mdps.initial_state, mdps.initial_distribution
        if law is None:
            state = jnp.asarray(state, jnp.int32)
            state = jnp.broadcast_to(state if place is None else state[place], keys.shape)
        else:
            law = jnp.asarray(law)
            level = jax.vmap(lambda key: tabular_env.level(key, law.dtype))(keys)
            state = tabular_env.draw(level, law, jnp.int32(0) if place is None else place)
        return state, state

    def step(self, words, state, action, environment: Tables) -> tuple:
        """Steps every environment once, as `VectorEnv.step`; none ends.

        Args:
          words: one uint32 [B].
          state: int32 [B].
          action: int32 [B].
          environment: of `ready`.
        """
        mdps, bounds, place = environment
        place = jnp.int32(0) if place is None else place
        row = tabular_env.row_of(state, action, mdps, place)
        after = tabular_steps.outcome_at(words[0], bounds, row)
        reward = tabular_env.reward_of(state, action, after, mdps, place)
        never = jnp.zeros(after.shape, bool)
        return after, after, reward, never, never


def words_at(data, place, count: int) -> list:
    """So many words of every stream, from a place on.

    Args:
      data: uint32 [B, 2], key data.
      place: uint32 scalar.
      count: how many.

    Returns:
      A list of uint32 [B].
    """
    key = data[..., 0], data[..., 1]
    return [streams.threefry(key, place + jnp.uint32(n)) for n in range(count)]


def key_of(first, second) -> jax.Array:
    """Typed keys [B] from two words [B] each.

    Args:
      first: uint32 [B].
      second: uint32 [B].
    """
    return jax.random.wrap_key_data(
        jnp.stack([first, second], axis=-1), impl=streams.IMPLEMENTATION
    )


def choose(condition, new, old) -> Any:
    """Whole episodes of one tree or the other: `condition` bool [B], leaves [B, ...].

    Args:
      condition: bool [B].
      new: leaves [B, ...], taken where it is true.
      old: leaves [B, ...], taken elsewhere.
    """
    ndim = condition.ndim

    def leaf(new, old):
        return jnp.where(condition.reshape(*condition.shape, *(1,) * (new.ndim - ndim)), new, old)

    return jax.tree.map(leaf, new, old)
