"""A step of a tabular MDP as inner loops want it: words compared with thresholds, by index.

Everything here is unbatched; callers vmap. Tables are laid out as `fedjax_rl.learners.tables` says.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl.learners import tables
from fedjax_rl.learners.lookup import look_up

# Thresholds have 31 bits, so that "always" (2^31) is above every word of 31 bits.
_CERTAIN = 2.0**31
# Bounds up to which a word is compared with each of them.
_COMPARED = 8
# Outcomes up to which weights are added one by one.
_ONE_BY_ONE = 32


class Environment(NamedTuple):
    """A tabular MDP as the learner's inner loop wants it.

    Attributes:
      thresholds: table of S*U*(S-1) words: cumulative transition probabilities in units of 2^-31.
      reward: table of the rewards, over those of (s, a, s') that they depend on.
      discount: scalar.
      initial_state: int32 scalar.
    """

    thresholds: object
    reward: object
    discount: jax.Array
    initial_state: jax.Array


class Shape(NamedTuple):
    """The static facts about an MDP that shape the program.

    Attributes:
      num_states: S.
      num_actions: U.
      reward: extents of the reward over (s, a, s'), each 1 or full.
    """

    num_states: int
    num_actions: int
    reward: tuple[int, int, int]

    @property
    def size(self) -> int:
        """Entries of a table, S*U."""
        return self.num_states * self.num_actions

    @property
    def unrolled(self) -> bool:
        """Whether tables are tuples of scalars rather than arrays."""
        return self.size <= tables.LARGEST_UNROLLED


def thresholds(probabilities) -> np.ndarray:
    """Cumulative probabilities as words: outcome j is drawn when the word passes j of them.

    Args:
      probabilities: [..., n], rows summing to one, on the host.

    Returns:
      uint32 [..., n-1], in units of 2^-31 so that impossible outcomes are never drawn.
    """
    cumulative = np.cumsum(np.asarray(probabilities, np.float64), axis=-1)[..., :-1]
    # Rounding may leave the sum of a row below one; the tail then belongs to the last outcome
    # of positive probability, not to the last one.
    tail = np.flip(np.cumsum(np.flip(probabilities, -1), -1), -1)[..., 1:] <= 0
    cumulative = np.where(tail, 1.0, cumulative)
    return np.minimum(np.round(cumulative * _CERTAIN), _CERTAIN).astype(np.uint32)


def thresholds_of(weights) -> jax.Array:
    """`thresholds` that are computed in a program, of weights that need not sum to one.

    Args:
      weights: float [..., n], at least 0, not all of a row 0.

    Returns:
      uint32 [..., n-1].
    """
    totals = weights[..., :1]
    if weights.shape[-1] <= _ONE_BY_ONE:
        # What has no weight adds nothing, and has no word between its bounds.
        running = [weights[..., 0]]
        for place in range(1, weights.shape[-1]):
            running.append(running[-1] + weights[..., place])
        totals = jnp.stack(running, axis=-1)
    else:
        # Sums in blocks, as a compiled cumulative sum makes them, may fall by a rounding, and rise
        # by one where nothing is added.
        sums = jnp.where(weights > 0, jnp.cumsum(weights, axis=-1), 0)
        totals = jax.lax.cummax(sums, axis=sums.ndim - 1)
    certain = jnp.asarray(_CERTAIN, weights.dtype)
    # Shares of the total, so that the last one with a weight has all words that are left. A single
    # outcome has no bounds.
    shares = totals[..., :-1] / totals[..., -1:]
    return jnp.round(shares * certain).astype(jnp.uint32)


def outcome(word, bounds) -> jax.Array:
    """The outcome a word stands for: how many of the `thresholds` it reaches, int32 [...].

    Args:
      word: uint32 [...].
      bounds: a sequence of uint32 [...].
    """
    fraction = word >> jnp.uint32(1)
    # A single outcome has no bounds, and is an int32 in double precision, too.
    none = jnp.zeros(jnp.shape(word), jnp.int32)
    return sum(((fraction >= bound).astype(jnp.int32) for bound in bounds), start=none)


def outcome_at(word, bounds, row) -> jax.Array:
    """The same for rows of one table, of all agents.

    Args:
      word: uint32 [...].
      bounds: uint32 [..., n-1].
      row: int32 [...], counted in C order.
    """
    entries, width = bounds.reshape(-1), bounds.shape[-1]
    # At places of the whole table: a copy of its agent's for every episode takes longer.
    first = row * width
    if width <= _COMPARED:
        return outcome(word, [look_up(entries, first + n) for n in range(width)])
    # By halves: of those before `found` all are known to be reached.
    fraction, found = word >> jnp.uint32(1), jnp.zeros(jnp.shape(word), jnp.int32)
    for power in reversed(range(width.bit_length())):
        further = found + (1 << power)
        bound = look_up(entries, first + jnp.minimum(further, width) - 1)
        found = jnp.where((further <= width) & (fraction >= bound), further, found)
    return found


def outcome_of_row(word, bounds) -> jax.Array:
    """The same for bounds in an array [n - 1], which may be long."""
    return jnp.sum((word >> jnp.uint32(1)) >= jnp.asarray(bounds), dtype=jnp.int32)


def transition(environment: Environment, shape: Shape, state, action, word):
    """One step of the MDP.

    Returns:
      The next state, int32 scalar, and the reward.
    """
    bounds = tables.take_row(
        environment.thresholds, state * shape.num_actions + action, shape.num_states - 1
    )
    next_state = outcome(word, bounds)
    index = jnp.int32(0)
    for extent, at in zip(shape.reward, (state, action, next_state), strict=True):
        index = index * extent + at if extent > 1 else index
    return next_state, tables.take(environment.reward, index)
