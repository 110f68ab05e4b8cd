"""From the outputs of a network to an action."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fedjax_rl import rounding, streams

CHOICES = ("sample", "argmax")


def categorical(outputs, word) -> jax.Array:
    """An action drawn from the softmax of the outputs, by inversion of one random word.

    Args:
      outputs: [U], or a tuple of U scalars.
      word: uint32 scalar.

    Returns:
      int32 scalar in 0..U-1.
    """
    outputs = tuple(outputs[a] for a in range(len(outputs)))
    top = outputs[0]
    for output in outputs[1:]:
        top = jnp.maximum(top, output)
    # Less the largest, so that nothing overflows. Scalars rather than arrays: under `vmap` each
    # is a vector over the agents.
    weights = [jnp.exp(output - top) for output in outputs]
    totals = [weights[0]]
    for weight in weights[1:]:
        totals.append(totals[-1] + weight)
    level = streams.uniform(word, top.dtype) * totals[-1]
    action = jnp.int32(0)
    # The last action is what is left, whatever the sum was rounded to.
    for total in totals[:-1]:
        action = action + (level >= total).astype(jnp.int32)
    return action


def log_probability(outputs, action) -> jax.Array:
    """Of an action that `categorical` has drawn, a scalar.

    Args:
      outputs: [U], or a tuple of U scalars.
      action: int32 scalar.
    """
    return jax.nn.log_softmax(linear(outputs))[action]


def greedy(outputs) -> jax.Array:
    """The first action of largest output, int32 scalar."""
    action, best = jnp.int32(0), outputs[0]
    for place in range(1, len(outputs)):
        better = outputs[place] > best
        action = jnp.where(better, jnp.int32(place), action)
        best = jnp.where(better, outputs[place], best)
    return action


def squashed(outputs) -> jax.Array:
    """Actions in (-1, 1): tanh of the outputs, [M]."""
    return jnp.tanh(linear(outputs))


def linear(outputs) -> jax.Array:
    """Actions as large as they like: the outputs, [M]."""
    return jnp.stack(outputs) if isinstance(outputs, tuple) else outputs


def epsilon_greedy(row, epsilon, first, word) -> jax.Array:
    """An action: any with probability epsilon, else one of the best, as `rounding.best_of` says.

    Args:
      row: float [U], what the actions are worth.
      epsilon: float scalar in [0, 1].
      first: bool scalar, whether the first of equals is taken rather than any of them.
      word: uint32 scalar, the only random number: its place above or below epsilon decides, what
        is left of it chooses.

    Returns:
      int32 scalar in 0..U-1.
    """
    num = row.shape[0]
    values = [row[a] for a in range(num)]
    best = [equal.astype(jnp.int32) for equal in rounding.best_of(values)]
    ties = best[0]
    for equal in best[1:]:
        ties = ties + equal
    level = streams.uniform(word, row.dtype)
    explores = level < epsilon
    # On either side of epsilon what is left of the word is uniform again; a side narrower than
    # the 24 bits of `level` is next to never drawn, and only must not divide by 0.
    rest = jnp.where(explores, level, level - epsilon)
    rest = rest / jnp.maximum(jnp.where(explores, epsilon, 1 - epsilon), 2.0**-24)

    def among(count):
        # A quotient may round to 1.
        return jnp.minimum((rest * count.astype(rest.dtype)).astype(jnp.int32), count - 1)

    place = jnp.where(first, 0, among(ties))
    chosen, seen = jnp.int32(0), jnp.int32(0)
    for action, equal in enumerate(best):
        chosen = jnp.where((equal > 0) & (seen == place), jnp.int32(action), chosen)
        seen = seen + equal
    return jnp.where(explores, among(jnp.int32(num)), chosen)
