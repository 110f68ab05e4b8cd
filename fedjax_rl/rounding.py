"""What is zero, or equal, but for rounding.

Some steps do not know of size: a division by a deviation, Adam, the choice of the best of two
actions. They make a full step of a difference of one unit in the last place, so that what would be
zero in exact arithmetic has to be zero for them. One rule for all of these places: numbers whose
range is at most a share of their size are equal.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

# In units of the spacing of floats: 1e-5 in float32, 2e-14 in float64. A sum of a hundred terms
# has an error of that size.
UNITS = 84
# The same for the best of some actions: 2e-6 in float32, 4e-15 in float64. Closer, because values
# far from all rewards differ by little; further than the few roundings of a mean or two.
TIE_UNITS = 16


def share(dtype) -> float:
    """The share of its size up to which a difference is taken for rounding."""
    return UNITS * float(jnp.finfo(dtype).eps)


def alike(least, most, size=0.0):
    """Whether numbers are equal but for rounding; elementwise.

    Args:
      least: the smallest of them.
      most: the largest.
      size: of the terms that they were made of, where these may be larger.

    Returns:
      bool; false where anything is nan.
    """
    size = jnp.maximum(jnp.maximum(jnp.abs(least), jnp.abs(most)), size)
    return most - least <= share(size.dtype) * size


def alike_where(values, mask, axis=None, size=0.0):
    """`alike` of the values of a mask along an axis, which stays; true where there are none.

    Args:
      values: float array.
      mask: bool, which of them count.
      axis: along which they are compared; all of them by default.
      size: as in `alike`.

    Returns:
      bool, with the axis as one of length 1.
    """
    least = jnp.min(jnp.where(mask, values, jnp.inf), axis=axis, keepdims=True)
    most = jnp.max(jnp.where(mask, values, -jnp.inf), axis=axis, keepdims=True)
    # Where the mask is empty, the smallest is +inf and the largest -inf.
    return (most < least) | alike(least, most, size)


def best_of(row):
    """Which entries of a row are the largest but for rounding.

    A mean of equal numbers is a rounding off, and would part for ever two actions that are equally
    good: what lies within `TIE_UNITS` roundings of the largest entry, in units of the row's size,
    is a largest one.

    Args:
      row: an array [..., U], or U scalars.

    Returns:
      bool, as the row.
    """
    if not isinstance(row, tuple | list):
        size = jnp.max(jnp.abs(row), axis=-1, keepdims=True)
        top = jnp.max(row, axis=-1, keepdims=True)
        return row >= top - TIE_UNITS * float(jnp.finfo(row.dtype).eps) * size
    # A row of a small table, which is scalars: `learners.tables` says why.
    top = functools.reduce(jnp.maximum, row)
    size = functools.reduce(jnp.maximum, [jnp.abs(value) for value in row])
    least = top - TIE_UNITS * float(jnp.finfo(top.dtype).eps) * size
    return [value >= least for value in row]


@jax.custom_jvp
def root(square):
    """The square root of numbers of at least 0; its derivative is 0 where it has none, at 0.

    Infinite there, it would be nan behind a choice or a product that does not ask for it.
    """
    return jnp.sqrt(square)


@root.defjvp
def _root(primals, tangents):
    square, still = primals[0], primals[0] == 0
    # Selected below the root, too: derivatives of higher order are to be finite as well.
    length = jnp.sqrt(jnp.where(still, jnp.ones_like(square), square))
    zero = jnp.zeros_like(square)
    return jnp.where(still, zero, length), jnp.where(still, zero, tangents[0] / (2 * length))
