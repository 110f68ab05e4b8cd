"""From the outputs of a network to an action."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fedjax_rl import streams

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
    weights = [jnp.exp(output - top) for output in outputs]
    totals = [weights[0]]
    for weight in weights[1:]:
        totals.append(totals[-1] + weight)
    level = streams.uniform(word, top.dtype) * totals[-1]
    action = jnp.int32(0)
    for total in totals[:-1]:
        action = action + (level >= total).astype(jnp.int32)
    return action


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
    return jnp.tanh(jnp.stack(outputs) if isinstance(outputs, tuple) else outputs)
