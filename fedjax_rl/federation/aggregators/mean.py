"""Means over who sent, and over all."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl.federation.aggregators.weights import LogWeights, softmax_weights
from fedjax_rl.federation.population import Population, column, select


class Aggregate(NamedTuple):
    """What reached the server.

    Attributes:
      value: pytree [F, ...].
      present: bool [F], whether anything came in at all; a pytree like `value` where that is
        another question for every entry; None when it is certain.
    """

    value: object
    present: object


def mean(population: Population, message, sent=None, weight=None, context=None) -> Aggregate:
    r"""Weighted mean over those who sent, `\sum_i w_i m_i x_i / \sum_i w_i m_i`.

    Where nothing came in (no sender, or no sender with a weight on an entry) the value is zero, to
    be ignored by whoever reads `present`. A member that did not send, or has no weight, cannot
    spoil it, even with a non-finite message.

    Args:
      population: who belongs to whom.
      message: pytree of [A, ...].
      sent: bool [A] or None.
      weight: None, non-negative [A], a pytree like `message` with entries non-negative, or
        `LogWeights`.
      context: not needed.

    Returns:
      The `Aggregate` per federation, its presence by entry where weights are.

    Examples:
      >>> import jax.numpy as jnp
      >>> from fedjax_rl.federation import mean, population
      >>> sent = jnp.asarray([True, False, True])
      >>> mean(population(3), jnp.asarray([1.0, 2.0, 5.0]), sent).value.tolist()
      [3.0]
    """
    del context
    if sent is None and weight is None:
        return Aggregate(population.mean(message), None)
    # A softmax over everybody never adds up to 0.
    certain = sent is None and isinstance(weight, LogWeights)
    if isinstance(weight, LogWeights):
        weight = softmax_weights(population, weight.value, sent)
    weighted = weight is not None
    if not weighted:
        weight = jnp.ones(population.num_agents, jax.tree.leaves(message)[0].dtype)
    alike = isinstance(weight, jax.Array | np.ndarray) and weight.ndim <= 1
    weights = weight
    if alike:
        weights = jax.tree.map(lambda x: column(weight, x).astype(x.dtype), message)
    if sent is not None:
        message = select(sent, message, jax.tree.map(jnp.zeros_like, message))
        weights = select(sent, weights, jax.tree.map(jnp.zeros_like, weights))
    if weighted:
        # Finite messages stay, for the derivative with respect to a weight of 0.
        message = jax.tree.map(
            lambda w, x: jnp.where((w > 0) | jnp.isfinite(x), x, jnp.zeros_like(x)),
            weights,
            message,
        )
    amount = population.sum(jax.tree.map(jnp.multiply, weights, message))
    norm = population.sum(weights)
    value = jax.tree.map(lambda a, w: a / jnp.where(w > 0, w, 1).astype(a.dtype), amount, norm)
    if certain:
        return Aggregate(value, None)
    if not weighted:
        return Aggregate(value, population.max(sent.astype(jnp.int32)) > 0)
    there = jax.tree.map(lambda w: w > 0, norm)
    if alike:
        return Aggregate(
            value, jax.tree.leaves(there)[0].reshape(population.num_federations, -1)[:, 0]
        )
    return Aggregate(value, there)


def part_of_all(population: Population, message, context):
    r"""The sum over those heard by the number of *all* members, `1/N \sum_{i heard} x_i`.

    What the mean c of parts c_i, one kept by each agent, moves by when those who were heard change
    theirs by x_i and nobody else does: Karimireddy et al., *SCAFFOLD*, arXiv 1910.06378, Algorithm
    1, line 17. On a clock N counts those who have not arrived, too.

    Args:
      population: who belongs to whom.
      message: pytree of [A, ...].
      context: with who was `heard`, and the `share` of all that the population is.

    Returns:
      A pytree [F, ...].
    """
    heard, sizes = context.heard, population.sizes
    if heard is None:
        part = population.mean(message)
    else:
        message = select(heard, message, jax.tree.map(jnp.zeros_like, message))
        # N, as a divisor that is rounded like the number of senders in a mean over them: where all
        # are heard both give the same bits.
        count = jnp.maximum(population.sum(heard.astype(jnp.int32)), jnp.asarray(sizes))
        part = jax.tree.map(lambda x: x / column(count, x).astype(x.dtype), population.sum(message))
    if context.share is None:
        return part
    return jax.tree.map(lambda x: x * column(context.share, x).astype(x.dtype), part)
