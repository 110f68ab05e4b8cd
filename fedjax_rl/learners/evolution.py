"""What evolution strategies make of returns: ranks, shapes, and weights for samples of before.

Functions are of a whole population, because a return is worth what the others of its federation
make it worth.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fedjax_rl import rounding
from fedjax_rl.learners import draws

SHAPINGS = ("raw", "center", "zscore", "rank")
WEIGHTS = ("return", "equal")


def held(noise, centre, sigma):
    r"""Perturbations of parameters that are held fixed where theta and sigma are not.

    What an episode gives has no derivative by the parameters phi that it is of, but these have a
    density. With them held fixed, the perturbations are what theta and sigma make of them,

        e = (phi - theta) / sigma.

    Args:
      noise: [A, q], e as drawn.
      centre: [A, q], theta.
      sigma: [A, 1].

    Returns:
      phi [A, q], which has no derivative; and e with the derivative that it has then.
    """
    perturbed = jax.lax.stop_gradient(centre + sigma * noise)
    return perturbed, draws.straight_through(noise, (perturbed - centre) / sigma)


def log_density(noise, sigma):
    r"""Log p(phi) = -|e|^2 / 2 - q log sigma of normal perturbations, but for a constant.

    Args:
      noise: [q], e, as of `held`.
      sigma: scalar.

    Returns:
      A scalar.
    """
    return -jnp.sum(noise**2) / 2 - noise.shape[-1] * jnp.log(sigma)


def all_alike(population, values, counts):
    """Whether what a federation received is all the same but for rounding.

    Args:
      population: who belongs to whom.
      values: [A].
      counts: bool [A], which of them were received.

    Returns:
      bool [A], alike for all of a federation.
    """
    most = population.max(jnp.where(counts, values, -jnp.inf))
    least = -population.max(jnp.where(counts, -values, -jnp.inf))
    return population.spread((most < least) | rounding.alike(least, most))


def centred_ranks(population, values, counts):
    """Ranks in [-1/2, 1/2] among what was received, ties averaged; 0 where all are alike.

    Args:
      population: who belongs to whom.
      values: [A].
      counts: bool [A], which of them were received.

    Returns:
      [A], zero where nothing was received.
    """
    size = population.spread(jnp.maximum(population.sum(counts.astype(values.dtype)), 1))
    ranks = population.mid_rank(values, counts) / jnp.maximum(size - 1, 1) - 0.5
    # Of equal values a compiled division leaves a rounding, which Adam would make a step of.
    differ = counts & ~all_alike(population, values, counts)
    return jnp.where(differ, ranks, jnp.zeros_like(values))


def shaped(population, values, counts, shaping, weights):
    """Returns as the weights of their perturbations.

    Args:
      population: who belongs to whom.
      values: [A], returns.
      counts: bool [A], which of them were received.
      shaping: int [F], places in `SHAPINGS`.
      weights: int [F], places in `WEIGHTS`.

    Returns:
      [A], zero where nothing was received, and the number received [F].
    """
    received = population.sum(counts.astype(values.dtype))
    size = population.spread(jnp.maximum(received, 1))
    values = jnp.where(counts, values, jnp.zeros_like(values))
    centred = values - population.spread(population.sum(values)) / size
    differ = counts & ~all_alike(population, values, counts)
    centred = jnp.where(differ, centred, jnp.zeros_like(values))
    variance = population.spread(population.sum(centred**2)) / size
    deviation = rounding.root(variance)
    # Two selections: a quotient that is not taken must be finite, too, for its derivative.
    scored = jnp.where(deviation > 0, centred / jnp.where(deviation > 0, deviation, 1), 0.0)
    ranks = centred_ranks(population, values, counts)
    shaping = population.spread(shaping)
    # All four are made and one is taken: the word is traced, a sweep over it is one program.
    kinds = [values, centred, scored, ranks]
    out = jnp.select([shaping == n for n in range(len(kinds))], kinds)
    equal = population.spread(weights) == WEIGHTS.index("equal")
    return jnp.where(equal, counts.astype(values.dtype), out), received


def importance(population, noise, moved, counts):
    r"""Densities around the new parameters over those around the old, and what they are worth.

    With e the perturbations and m how far the parameters have moved, both in units of sigma,

        w_i = exp((|e_i|^2 - |e_i - m|^2) / 2) = exp(e_i m - |m|^2 / 2)

    Args:
      population: who belongs to whom.
      noise: [A, q], e.
      moved: [F, q], m.
      counts: bool [A], which samples there are.

    Returns:
      [A], w up to a factor per federation, the largest 1, zero where there is no sample; and the
      effective sample size `(\sum w)^2 / \sum w^2`, [F], 0 without samples.
    """
    # Without |m|^2 / 2, which all samples of a federation have in common.
    logits = jnp.sum(noise * population.spread(moved), axis=-1)
    logits = jnp.where(counts, logits, -jnp.inf)
    top = population.max(logits)
    # Of nobody the largest is -inf, and -inf less -inf is nan.
    top = jnp.where(jnp.isfinite(top), top, jnp.zeros_like(top))
    weights = jnp.exp(logits - population.spread(top))
    total, squares = population.sum(weights), population.sum(weights**2)
    return weights, total**2 / jnp.where(squares > 0, squares, 1)
