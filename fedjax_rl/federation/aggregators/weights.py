"""Weights of a federation's members."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_rl.federation.population import Population, select


class LogWeights(NamedTuple):
    """Weights by their logarithms, of which only the differences among those who sent matter.

    Attributes:
      value: [A], or a pytree like the message.
    """

    value: object


def softmax_weights(population: Population, logits, sent=None):
    """Weights on the simplex of every federation from logits, [A, ...] -> [A, ...], any pytree.

    Computed in log space with the maximum over those who sent removed, so that importance weights
    `(1 - alpha)^(-n)` of Woo, Joshi and Chi (arXiv 2305.10697) do not overflow, and those of who
    is there do not all underflow before somebody silent.

    Args:
      population: who belongs to whom.
      logits: pytree of [A, ...].
      sent: bool [A], who is to share the weight, the others have none; None for everybody.

    Returns:
      The weights; all zero where nobody sent.
    """
    if sent is not None:
        nothing = jax.tree.map(lambda x: jnp.full_like(x, -jnp.inf), logits)
        logits = select(sent, logits, nothing)
    top = population.max(logits)
    if sent is not None:
        # Where nobody sent, -inf less -inf would be NaN.
        top = jax.tree.map(lambda x: jnp.where(x > -jnp.inf, x, jnp.zeros_like(x)), top)
    logits = jax.tree.map(lambda x, top: x - top, logits, population.spread(top))
    weights = jax.tree.map(jnp.exp, logits)
    total = population.sum(weights)
    if sent is not None:
        total = jax.tree.map(lambda x: jnp.where(x > 0, x, jnp.ones_like(x)), total)
    return jax.tree.map(jnp.divide, weights, population.spread(total))
