"""What an operation of a jaxpr does to copies that lie side by side along the last axis.

A rule has the operation with its operands and returns its output in lanes, [..., B]; or None, where
it leaves this case to the rule of `vmap`. `lanes` walks a jaxpr by them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import JaxprEqn

# Terms of a sum of products that is written out; a longer one is a product of matrices.
TERMS = 32


class Many(NamedTuple):
    """A value of every copy, as opposed to one that all of them share.

    Attributes:
      lanes: [..., B].
    """

    lanes: jax.Array


def spread(value, shape: Sequence[int], size: int) -> jax.Array:
    """A value in lanes, [*shape, B], also where all copies share it or it is a single number.

    Args:
      value: `Many`, or an array; [*shape] without the lanes, or of fewer entries that are repeated.
      shape: without the lanes.
      size: B.
    """
    own = value.lanes if isinstance(value, Many) else jnp.asarray(value)[..., None]
    axes = range(own.ndim - 1) if own.ndim > 1 else ()
    return lax.broadcast_in_dim(own, (*shape, size), (*axes, len(shape)))


class Operation(NamedTuple):
    """One operation of a jaxpr, with what it is given.

    Attributes:
      equation: of the jaxpr.
      given: an array or `Many` for each of its operands.
      size: B, of the lanes.
    """

    equation: JaxprEqn
    given: list
    size: int

    @property
    def params(self) -> dict:
        """Of the primitive, for one copy."""
        return self.equation.params

    @property
    def shape(self) -> tuple[int, ...]:
        """Of its output, without lanes."""
        return self.equation.outvars[0].aval.shape

    def whole(self, place: int) -> jax.Array:
        """An operand in lanes, [..., B]."""
        return spread(self.given[place], self.equation.invars[place].aval.shape, self.size)

    def open(self, place: int) -> jax.Array:
        """An operand in lanes, [..., B], or [..., 1] where all copies share it."""
        own = self.given[place]
        return own.lanes if isinstance(own, Many) else jnp.asarray(own)[..., None]

    def shared(self, *places: int) -> bool:
        """Whether all copies share these operands."""
        return not any(isinstance(self.given[place], Many) for place in places)

    def bind(self, *operands, **changed) -> jax.Array:
        """The primitive itself, of operands in lanes."""
        return self.equation.primitive.bind(*operands, **{**self.params, **changed})


def _each(own: Operation):
    """Number by number: operands of the output's shape, or single numbers."""
    return own.bind(*(spread(x, own.shape, own.size) for x in own.given))


def _ahead(own: Operation):
    """What names axes from the front on needs not know that there is one more."""
    return own.bind(*map(own.whole, range(len(own.given))))


def _broadcast(own: Operation):
    axes = (*own.params["broadcast_dimensions"], len(own.shape))
    return lax.broadcast_in_dim(own.whole(0), (*own.shape, own.size), axes)


def _reshape(own: Operation):
    if own.params["dimensions"] is not None:
        return None
    return lax.reshape(own.whole(0), (*own.shape, own.size))


def _transpose(own: Operation):
    return lax.transpose(own.whole(0), (*own.params["permutation"], len(own.shape)))


def _slice(own: Operation):
    begin, end = (*own.params["start_indices"], 0), (*own.params["limit_indices"], own.size)
    strides = own.params["strides"]
    return lax.slice(own.whole(0), begin, end, None if strides is None else (*strides, 1))


def _pad(own: Operation):
    if not own.shared(1):
        return None
    return lax.pad(own.whole(0), own.given[1], (*own.params["padding_config"], (0, 0, 0)))


def _tile(own: Operation):
    return jnp.tile(own.whole(0), (*own.params["reps"], 1))


def _dynamic_slice(own: Operation):
    places = range(1, len(own.given))
    if not own.shared(*places):
        return None
    first = [*own.given[1:], np.zeros((), np.result_type(own.given[1])) if own.given[1:] else 0]
    return lax.dynamic_slice(own.whole(0), first, (*own.params["slice_sizes"], own.size))


def _gather(own: Operation):
    """Rows that all copies agree on."""
    if not own.shared(1):
        return None
    numbers = own.params["dimension_numbers"]
    numbers = numbers._replace(offset_dims=(*numbers.offset_dims, len(own.shape)))
    sizes = (*own.params["slice_sizes"], own.size)
    return own.bind(own.whole(0), own.given[1], dimension_numbers=numbers, slice_sizes=sizes)


def _scatter(own: Operation):
    """Likewise, of rows that are changed."""
    if not own.shared(1):
        return None
    numbers, updates = own.params["dimension_numbers"], own.whole(2)
    window = (*numbers.update_window_dims, updates.ndim - 1)
    numbers = numbers._replace(update_window_dims=window)
    return own.bind(own.whole(0), own.given[1], updates, dimension_numbers=numbers)


def _dot(own: Operation):
    """A sum of few products, written out; matrices of a body are three by three."""
    (left, right), (first, second) = own.params["dimension_numbers"]
    shapes = [x.aval.shape for x in own.equation.invars]
    terms = math.prod(shapes[0][d] for d in left)
    kinds = {x.aval.dtype for x in (*own.equation.invars, *own.equation.outvars)}
    if not 1 <= terms <= TERMS or len(kinds) > 1:
        return None

    def arranged(place: int, batch, summed, behind: bool):
        """[batch, free of the left, free of the right, terms, B], with 1 for the other's."""
        x, shape = own.open(place), shapes[place]
        free = [d for d in range(len(shape)) if d not in (*batch, *summed)]
        x = lax.transpose(x, (*batch, *free, *summed, len(shape)))
        ones = (1,) * (len(own.shape) - len(batch) - len(free))
        sizes = tuple(shape[d] for d in free)
        middle = (*ones, *sizes) if behind else (*sizes, *ones)
        return x.reshape(*(shape[d] for d in batch), *middle, terms, x.shape[-1])

    x, y = arranged(0, first, left, False), arranged(1, second, right, True)
    out = x[..., 0, :] * y[..., 0, :]
    for k in range(1, terms):
        out = out + x[..., k, :] * y[..., k, :]
    return jnp.broadcast_to(out, (*own.shape, own.size))


_ELEMENTWISE = """abs acos acosh add add_any and asin asinh atan atan2 atanh cbrt ceil clamp
convert_element_type copy cos cosh digamma div eq erf erf_inv erfc exp exp2 expm1 floor ge gt
integer_pow is_finite le lgamma log log1p logistic lt max min mul ne neg nextafter not or pow
reduce_precision rem round rsqrt select_n shift_left shift_right_arithmetic shift_right_logical sign
sin sinh sqrt square stop_gradient sub tan tanh xor"""
_AHEAD = """argmax argmin concatenate cumlogsumexp cummax cummin cumprod cumsum expand_dims
reduce_and reduce_max reduce_min reduce_or reduce_prod reduce_sum reduce_xor rev squeeze"""
RULES: dict[str, Callable] = {
    **dict.fromkeys(_ELEMENTWISE.split(), _each),
    **dict.fromkeys(_AHEAD.split(), _ahead),
    **dict.fromkeys(("scatter", "scatter-add", "scatter_add"), _scatter),
    "broadcast_in_dim": _broadcast,
    "dot_general": _dot,
    "dynamic_slice": _dynamic_slice,
    "gather": _gather,
    "pad": _pad,
    "reshape": _reshape,
    "slice": _slice,
    "tile": _tile,
    "transpose": _transpose,
}
