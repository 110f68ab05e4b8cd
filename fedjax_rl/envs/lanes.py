"""Many copies of a function in lanes: side by side along the last axis of every array.

`jax.vmap` has copies in front. The arrays of rigid bodies end in axes of three or four, and a CPU
computes them number by number; along a last axis of copies it computes eight or sixteen at a time.
So a batch is evaluated by rules of our own for what such functions are made of, one operation after
the other; whatever has no rule here is left to the rule of `vmap`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, jaxpr_as_fun

from fedjax_rl import backend
from fedjax_rl.envs.lane_rules import RULES, Many, Operation, spread

# Copies that are computed together: 128 of HalfCheetah are as fast as can be, 512 half as fast.
LANES = 128
# Instructions take sixteen numbers, and loops over fewer go number by number: of so many copies
# sixteen are done sooner (Hopper: 8 in 131 microseconds, 16 in 102, 4 in 81).
VECTOR, FEW = 16, 7


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

    def group(place):
        """Copies at places, as many as there are places."""
        return some(
            len(place), [x[..., place] if b else x for x, b in zip(args, many, strict=True)]
        )

    # Places beyond the end are filled with the last copy again.
    if FEW <= size < VECTOR:
        return [x[..., :size] for x in group(np.minimum(np.arange(VECTOR), size - 1))]
    groups = math.ceil(size / LANES)
    if groups <= 1:
        return some(size, args)
    each = math.ceil(size / groups)
    places = jnp.minimum(jnp.arange(groups * each), size - 1).reshape(groups, each)
    # One group after the other: at the same time they would be one large batch again.
    out = [jnp.moveaxis(x, 0, -2) for x in lax.map(group, places)]
    return [x.reshape(*x.shape[:-2], groups * each)[..., :size] for x in out]


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
    rule = RULES.get(name) if many else None
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
