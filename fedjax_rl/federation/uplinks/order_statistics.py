"""Where a value stands among its like, and the chance to be among the best of many."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def window_moments(window, count) -> tuple[jax.Array, jax.Array]:
    """Mean and standard deviation of the first `count` entries of a window [C].

    The population's deviation; 1 where all entries are equal, up to rounding.

    Args:
      window: float [C].
      count: whole number, at most C.

    Returns:
      Two scalars.
    """
    weight = (jnp.arange(window.shape[0], dtype=jnp.int32) < count).astype(window.dtype)
    weight = weight / jnp.maximum(count, 1).astype(window.dtype)
    mean = jnp.sum(weight * window)
    # About the mean: the difference of two moments would lose the digits of close utilities.
    variance = jnp.sum(weight * (window - mean) ** 2)
    constant = variance <= 1e-12 * mean**2  # a share, whatever the unit
    return mean, jnp.sqrt(jnp.where(constant, 1.0, variance))


def gaussian_rank(window, count, utility) -> jax.Array:
    r"""`\Phi((u - mean) / deviation)`: where the utility stands among Gaussians like the window.

    Args:
      window: float [C], earlier utilities.
      count: how many of them there are yet.
      utility: u, scalar.

    Returns:
      A scalar in [0, 1], the probability to beat somebody like these.
    """
    mean, deviation = window_moments(window, count)
    return jax.scipy.stats.norm.cdf((utility - mean) / deviation)


def empirical_rank(window, count, utility) -> jax.Array:
    """Mid-rank of the utility in the window, (smaller + equal / 2) / count.

    Args:
      window: float [C], earlier utilities.
      count: how many of them there are yet.
      utility: scalar.

    Returns:
      A scalar in [0, 1]. It makes no difference which of two equal ones came first.
    """
    # Whole numbers until the last step, so that ties come out exact.
    there = jnp.arange(window.shape[0], dtype=jnp.int32) < count
    smaller = jnp.sum(there & (window < utility))
    equal = jnp.sum(there & (window == utility))
    return (2 * smaller + equal).astype(window.dtype) / (
        2 * jnp.maximum(count, 1).astype(window.dtype)
    )


UTILITY_MODELS = {"gaussian": gaussian_rank, "empirical": empirical_rank}


def communication_probability(p, target, members) -> jax.Array:
    """Probability of being among the `target` best of `members` when one beats another with p.

    The upper tail of a binomial law, `P(Bin(n-1, p) >= n-m)`, as the regularised incomplete beta
    function `I_p(n-m, m)`; 0 for m = 0 and 1 for m = n. Differentiable in p.

    Args:
      p: in [0, 1], any shape.
      target: m, a number in 0..n.
      members: n, a number of at least 1.

    Returns:
      A probability, of the shape and type of `p`.

    Examples:
      >>> from fedjax_rl.federation.uplinks import communication_probability
      >>> communication_probability([0.0, 0.5, 1.0], 1, 3).round(3).tolist()  # of both others
      [0.0, 0.25, 1.0]
    """
    p = jnp.asarray(p)
    m, n = (jnp.asarray(x).astype(p.dtype) for x in (target, members))
    # betainc is not defined at the ends; what it is given there is not used, and not NaN, which
    # would spoil the derivative of what is.
    inside = (m > 0) & (m < n)
    tail = jax.scipy.special.betainc(
        jnp.where(inside, n - m, 1), jnp.where(inside, m, 1), jnp.clip(p, 0, 1)
    )
    return jnp.where(inside, tail, (m >= n).astype(p.dtype))
