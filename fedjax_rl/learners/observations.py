r"""Running means and variances of what a policy sees, and inputs that are normalised by them.

* Welford, *Note on a Method for Calculating Corrected Sums of Squares and Products* (1962), and
  Chan, Golub and LeVeque, *Updating Formulae and a Pairwise Algorithm for Computing Sample
  Variances* (1979): moments of a batch are joined with those so far, where sums of squares would
  lose their digits.
* Dhariwal et al., *OpenAI Baselines* (2017): inputs less their mean, over the root of their
  variance plus 1e-8, clipped to +- 10.
* Andrychowicz et al., *What Matters in On-Policy Reinforcement Learning?*, arXiv 2006.05990,
  section 3.3: high returns needed it in all of their five tasks of continuous control but Hopper.

Axes: `D` inputs of the network, `B` observations. Leaves are `[...]` and `[..., D]`, of one agent
or of many.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

# Beside the variance, as in OpenAI Baselines.
EPSILON = 1e-8


class Statistics(NamedTuple):
    """What inputs have been like.

    Attributes:
      count: float [...], observations; in float32, past 2^24 times those of a rollout it grows no
        more, and the moments forget what is older.
      mean: float [..., D].
      squares: float [..., D], sum of the squared distances to the mean.
    """

    count: jax.Array
    mean: jax.Array
    squares: jax.Array


def nothing_seen(size: int, dtype=jnp.float32) -> Statistics:
    """Before the first of so many inputs; joined with others it changes no bit of them."""
    nothing = jnp.zeros(size, dtype)
    return Statistics(jnp.zeros((), dtype), nothing, nothing)


def moments_of(inputs) -> Statistics:
    """The statistics of a batch.

    Args:
      inputs: float32 [..., B, D].
    """
    # Less the first of them, without which what they have in common would cost digits.
    first = inputs[..., :1, :]
    apart = inputs - first
    shift = jnp.mean(apart, axis=-2, keepdims=True)
    squares = jnp.sum((apart - shift) ** 2, axis=-2)
    count = jnp.full(inputs.shape[:-2], inputs.shape[-2], jnp.float32)
    return Statistics(count, (first + shift)[..., 0, :], squares)


def moments_where(inputs, there) -> Statistics:
    """The statistics of those of a batch that are there.

    Args:
      inputs: float [B, D]; the first is there.
      there: bool [B].
    """
    part = there[:, None].astype(inputs.dtype)
    count = jnp.sum(part)
    # Selected, not multiplied: padding may be infinite.
    apart = jnp.where(there[:, None], inputs - inputs[:1], jnp.zeros_like(inputs))
    shift = jnp.sum(apart, axis=0) / jnp.maximum(count, 1)
    squares = jnp.sum(part * (apart - shift[None]) ** 2, axis=0)
    return Statistics(count, inputs[0] + shift, squares)


def joined(one: Statistics, other: Statistics) -> Statistics:
    r"""The statistics of both together, Chan, Golub and LeVeque (1979), equation 2.1.

        n = n_1 + n_2,   m = m_1 + (m_2 - m_1) n_2 / n,   S = S_1 + S_2 + (m_2 - m_1)^2 n_1 n_2 / n

    Args:
      one: of some observations.
      other: of others.
    """
    count = one.count + other.count
    part = other.count / jnp.maximum(count, 1.0)
    apart = other.mean - one.mean
    mean = one.mean + apart * part[..., None]
    squares = one.squares + other.squares + apart**2 * (one.count * part)[..., None]
    return Statistics(count, mean, squares)


class Normalizer(NamedTuple):
    """What inputs are normalised by; float [..., D].

    Attributes:
      mean: what is taken off.
      deviation: what the rest is divided by, above 0.
    """

    mean: jax.Array
    deviation: jax.Array


def normalizer_of(statistics: Statistics | tuple) -> Normalizer | None:
    """By statistics; before the first observation one that changes nothing.

    Args:
      statistics: of the inputs; () where they are not normalised.

    Returns:
      The `Normalizer`; None where inputs are not normalised.
    """
    if not isinstance(statistics, Statistics):
        return None
    variance = statistics.squares / jnp.maximum(statistics.count, 1.0)[..., None]
    deviation = jnp.sqrt(variance + EPSILON)
    some = (statistics.count > 0)[..., None]
    return Normalizer(statistics.mean, jnp.where(some, deviation, jnp.ones_like(deviation)))


def normalized(inputs, normalizer: Normalizer, clip: float) -> jax.Array:
    """`(x - mean) / sqrt(variance + 1e-8)`, clipped; [B, D] of the normalizer's dtype.

    Args:
      inputs: [B, D].
      normalizer: [D].
      clip: the largest magnitude, above 0.
    """
    apart = inputs.astype(normalizer.mean.dtype) - normalizer.mean[None]
    return jnp.clip(apart / normalizer.deviation[None], -clip, clip)


class Normalizing(NamedTuple):
    """Parameters of a policy that sees normalised inputs, in place of parameters.

    Attributes:
      parameters: [q], or as the network has them.
      normalizer: of its inputs.
    """

    parameters: Any
    normalizer: Normalizer


def normalizing(parameters, normalizer: Normalizer | None):
    """The parameters with a normalizer; themselves where there is none."""
    return parameters if normalizer is None else Normalizing(parameters, normalizer)
