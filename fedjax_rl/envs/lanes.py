"""Many copies of a function in lanes: side by side along the last axis of every array.

`jax.vmap` has copies in front. The arrays of rigid bodies end in axes of three or four, and a CPU
computes them number by number; along a last axis of copies it computes eight or sixteen at a time.
So a batch is evaluated by rules of our own for what such functions are made of, one operation after
the other; whatever has no rule here is left to the rule of `vmap`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, jaxpr_as_fun

from fedjax_rl import backend

# Copies that are computed together: 128 of HalfCheetah are as fast as can be, 512 half as fast.
LANES = 128
# Terms of a sum of products that is written out; a longer one is a product of matrices.
TERMS = 32


class Many(NamedTuple):
    """A value of every copy, as opposed to one that all of them share.

    Attributes:
      lanes: [..., B].
    """

    lanes: jax.Array


def in_lanes(function: Callable) -> Callable:
    """A function whose batches, under `vmap`, are computed in lanes on a CPU.

    Nested batches are one. Elsewhere than on a CPU nothing changes. Values are the same but for
    the order in which products are summed; derivatives are those of `vmap`.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> import fedjax_rl as frl
      >>> turn = lambda axis, point: jnp.cross(axis, jnp.cross(axis, point))
      >>> many = jax.vmap(frl.envs.in_lanes(turn), in_axes=(None, 0))
      >>> many(jnp.array([0.0, 0.0, 1.0]), jnp.ones((4, 3)))[0].tolist()
      [-1.0, -1.0, 0.0]

    Args:
      function: of pytrees of arrays, returns one.

    Returns:
      A function of the same arguments.
    """

    def call(*args):
        leaves, tree = jax.tree.flatten(args)
        made, shapes = jax.make_jaxpr(
            lambda *own: function(*jax.tree.unflatten(tree, own)), return_shape=True
        )(*leaves)
        # What a function has for constants is handed over, too: a condition under `vmap` makes a
        # batch of all that its branches read, which a rule does not allow of what is enclosed.
        out = _outer(made.jaxpr)(*made.consts, *leaves)
        return jax.tree.unflatten(jax.tree.structure(shapes), out)

    return call


def _outer(jaxpr: Jaxpr) -> Callable:
    """The function of constants and arguments that a jaxpr is; copies in front become lanes."""
    count = len(jaxpr.constvars)

    def plain(*args):
        return jaxpr_as_fun(ClosedJaxpr(jaxpr, args[:count]))(*args[count:])

    one = jax.custom_batching.custom_vmap(plain)

    @one.def_vmap
    def _(size: int, batched, *args):
        if backend.kind() == "cpu":
            pairs = zip(args, batched, strict=True)
            lanes = [jnp.moveaxis(x, 0, -1) if own else x for x, own in pairs]
            out = [jnp.moveaxis(x, -1, 0) for x in _inner(jaxpr, tuple(batched), size)(*lanes)]
        else:
            out = jax.vmap(plain, [0 if own else None for own in batched])(*args)
        return out, [True] * len(out)

    # What has a rule for batches of its own has no derivative in reverse: that is of the function.
    whole = jax.custom_jvp(one)
    whole.defjvp(lambda primals, tangents: jax.jvp(plain, primals, tangents))
    return whole


def _inner(jaxpr: Jaxpr, many: tuple[bool, ...], size: int) -> Callable:
    """The same of arguments in lanes, some of which all copies share; further copies join them."""

    @jax.custom_batching.custom_vmap
    def one(*args):
        return _in_groups(jaxpr, many, size, args)

    @one.def_vmap
    def _(more: int, batched, *args):
        whole = more * size

        def joined(x, own: bool, new: bool):
            if not own and not new:
                return x
            x = jnp.moveaxis(x, 0, -1)[..., None] if not own else x
            x = jnp.moveaxis(x, 0, -2) if own and new else x if new else x[..., None, :]
            return jnp.broadcast_to(x, (*x.shape[:-2], more, size)).reshape(*x.shape[:-2], whole)

        args = [joined(*own) for own in zip(args, many, batched, strict=True)]
        both = tuple(a or b for a, b in zip(many, batched, strict=True))
        out = _inner(jaxpr, both, whole)(*args)
        out = [jnp.moveaxis(x.reshape(*x.shape[:-1], more, size), -2, 0) for x in out]
        return out, [True] * len(out)

    return one


def _in_groups(jaxpr: Jaxpr, many: Sequence[bool], size: int, args) -> list[jax.Array]:
    """Evaluates a jaxpr for copies in lanes, for as many at a time as stay in the cache."""

    def some(size: int, args) -> list[jax.Array]:
        given = [Many(x) if own else x for x, own in zip(args, many, strict=True)]
        count = len(jaxpr.constvars)
        out = evaluate(ClosedJaxpr(jaxpr, given[:count]), given[count:], size)
        return [spread(x, var.aval.shape, size) for x, var in zip(out, jaxpr.outvars, strict=True)]

    groups = math.ceil(size / LANES)
    if groups <= 1:
        return some(size, args)
    each = math.ceil(size / groups)
    # The last group is filled with copies that are there already.
    places = jnp.minimum(jnp.arange(groups * each), size - 1).reshape(groups, each)

    def group(place):
        return some(each, [x[..., place] if own else x for x, own in zip(args, many, strict=True)])

    # One group after the other: at the same time they would be one large batch again.
    out = [jnp.moveaxis(x, 0, -2) for x in lax.map(group, places)]
    return [x.reshape(*x.shape[:-2], groups * each)[..., :size] for x in out]


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


def evaluate(closed: ClosedJaxpr, given: Sequence[Any], size: int) -> list[Any]:
    """The outputs of a jaxpr, `Many` of them where they differ between copies.

    Args:
      closed: of one copy; its constants may be `Many`.
      given: arguments of it, arrays or `Many`.
      size: B, of the lanes.
    """
    jaxpr, known = closed.jaxpr, {}
    known |= dict(zip(jaxpr.constvars, closed.consts, strict=True))
    known |= dict(zip(jaxpr.invars, given, strict=True))

    def read(own):
        # A number that is written down is of the precision that it has there.
        return np.asarray(own.val, own.aval.dtype) if isinstance(own, Literal) else known[own]

    for equation in jaxpr.eqns:
        made = _made(jaxpr, equation, [read(own) for own in equation.invars], size)
        known |= dict(zip(equation.outvars, made, strict=True))
    return [read(own) for own in jaxpr.outvars]


def _made(jaxpr: Jaxpr, equation: JaxprEqn, given: list, size: int) -> list:
    """The outputs of one operation of a jaxpr."""
    name = equation.primitive.name
    many = any(isinstance(own, Many) for own in given)
    if many and name in ("jit", "pjit"):
        return evaluate(equation.params["jaxpr"], given, size)
    if many and name == "scan":
        return _scan(given, equation.params, size)
    rule = _RULES.get(name) if many else None
    made = None if rule is None else rule(Operation(equation, given, size))
    if made is not None:
        return [Many(made)]
    # A jaxpr of this alone: some primitives are not bound by their parameters as they stand there.
    places = [i for i, own in enumerate(equation.invars) if not isinstance(own, Literal)]
    own = jaxpr.replace(
        constvars=[],
        invars=[equation.invars[i] for i in places],
        outvars=equation.outvars,
        eqns=[equation],
    )
    alone, given = jaxpr_as_fun(ClosedJaxpr(own, [])), [given[i] for i in places]
    if not many:
        return alone(*given)
    # The rule of `vmap`, which puts copies where it likes and is asked to put them last again.
    axes = [-1 if isinstance(own, Many) else None for own in given]
    arrays = [own.lanes if isinstance(own, Many) else own for own in given]
    return [Many(own) for own in jax.vmap(alone, axes, -1)(*arrays)]


def _scan(given: list, params: dict, size: int) -> list:
    """A scan whose carry is in lanes, and of whose rows those are that differ between copies."""
    body, first = params["jaxpr"], params["num_consts"]
    last = first + params["num_carry"]
    fixed, carry, rows = given[:first], given[first:last], given[last:]
    shapes = [own.aval.shape for own in body.jaxpr.outvars[: len(carry)]]
    kinds: list[bool] = []

    def turn(carry, here):
        pairs = zip(here, rows, strict=True)
        here = [Many(x) if isinstance(own, Many) else x for x, own in pairs]
        out = evaluate(body, [*fixed, *map(Many, carry), *here], size)
        new, seen = out[: len(carry)], out[len(carry) :]
        kinds[:] = [isinstance(own, Many) for own in seen]
        new = [spread(own, shape, size) for own, shape in zip(new, shapes, strict=True)]
        return new, [own.lanes if isinstance(own, Many) else own for own in seen]

    begin = [spread(own, shape, size) for own, shape in zip(carry, shapes, strict=True)]
    arrays = [own.lanes if isinstance(own, Many) else own for own in rows]
    options = {name: params[name] for name in ("length", "reverse", "unroll")}
    carry, seen = lax.scan(turn, begin, arrays, **options)
    rows = [Many(x) if own else x for x, own in zip(seen, kinds, strict=True)]
    return [*map(Many, carry), *rows]


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
_RULES: dict[str, Callable] = {
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
