"""What learners of whole episodes learn from."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Trajectories(NamedTuple):
    """N episodes of one agent, each padded to T steps.

    Attributes:
      observation: [N, T, ...], before each action, as the environment gives it.
      action: [N, T, ...], as drawn.
      reward: float [N, T], 0 in the padding.
      mask: bool [N, T], the steps that were made.
      value: float [N, T], what a critic says of the state before each action, anything in the
        padding; None where there is none.
    """

    observation: jax.Array
    action: jax.Array
    reward: jax.Array
    mask: jax.Array
    value: jax.Array | None = None

    @property
    def steps(self) -> jax.Array:
        """Length of each episode, int32 [..., N]."""
        return jnp.sum(self.mask, axis=-1, dtype=jnp.int32)


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

    Returns:
      What the function returns.
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
