"""Vectorised environments: stepped for whole arrays of episodes at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from fedjax_rl import streams


class Environments(Protocol):
    """Environments that are stepped together, such as `VectorEnv`.

    Attributes:
      words: random words that a step takes.
    """

    words: int

    def reset(self, keys, environment) -> tuple:
        """Observations and states of new episodes.

        Args:
          keys: typed keys [B]; consumed.
          environment: parameters of the environments, leaves [A, ...]; () for their own.
        """

    def step(self, words, state, action, environment) -> tuple:
        """Observations, states, rewards, and whether it terminated and was truncated.

        Args:
          words: as many uint32 [B] as a step takes.
          state: leaves [B, ...].
          action: [B, ...].
          environment: as of `reset`.
        """


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
