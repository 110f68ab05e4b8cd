"""Entries of a flat table by index, of which those of many agents are one table.

`jax.vmap` of an indexed array makes pairs of an agent and an index, and reads or adds one agent
after the other: on a CPU that takes several times as long as the rest of an estimate. Here a batch
of tables becomes one table that is as long as all of them, and indices are moved to where their
agent's entries are.

The last axis, which is time, is gone through first, and then that of the agents: so steps were
written down, and the steps of an agent, which add to the same few entries and have to wait for each
other, stand apart.

    look_up(table [n], place [...])            -> table[place]
    add_up(values [...], place [...], n)       -> sums of the values of every place, [n]

Both are linear in floats, and each is the transpose of the other.
"""

from __future__ import annotations

import functools
import inspect

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

_LOOK_UP, _ADD_UP = Primitive("look_up"), Primitive("add_up")


def look_up(table, place) -> jax.Array:
    """The entries of a table.

    Args:
      table: [n].
      place: int32 [...], in 0..n-1.

    Returns:
      [...], of the dtype of the table.
    """
    return _LOOK_UP.bind(table, place)


def add_up(values, place, size: int) -> jax.Array:
    """The sum of the values of every entry of a table.

    Args:
      values: [...].
      place: int32 [...], in 0..n-1.
      size: n.

    Returns:
      [n], of the dtype of the values.
    """
    return _ADD_UP.bind(values, place, size=size)


def _looked_up(table, place):
    if place.ndim < 2:
        return table.at[place].get(mode="clip", wrap_negative_indices=False)
    row = jnp.moveaxis(place, -1, 0)
    found = table.at[row.reshape(-1)].get(mode="clip", wrap_negative_indices=False)
    return jnp.moveaxis(found.reshape(row.shape), 0, -1)


def _added_up(values, place, *, size):
    nothing = jnp.zeros(size, values.dtype)
    if place.ndim > 1:
        place, values = (jnp.moveaxis(x, -1, 0) for x in (place, values))
    return nothing.at[place.reshape(-1)].add(
        values.reshape(-1), mode="promise_in_bounds", wrap_negative_indices=False
    )


def _moved(place, axis, batch: int, size: int):
    """The places of a batch in one table, and the axis of the batch."""
    if axis is None:
        place, axis = place[None], 0
    own = jnp.arange(batch, dtype=place.dtype) * size
    return jnp.expand_dims(own, [n for n in range(place.ndim) if n != axis]) + place, axis


def _batched_look_up(arguments, axes):
    (table, place), (of_table, of_place) = arguments, axes
    if of_table is None:
        return look_up(table, place), of_place
    table = jnp.moveaxis(table, of_table, 0)
    place, axis = _moved(place, of_place, *table.shape)
    return look_up(table.reshape(-1), place), axis


def _batched_add_up(arguments, axes, *, size):
    (values, place), (of_values, of_place) = arguments, axes
    batch = values.shape[of_values] if of_values is not None else place.shape[of_place]
    place, axis = _moved(place, of_place, batch, size)
    place = jnp.moveaxis(place, axis, 0)
    if of_values is None:
        values = jnp.broadcast_to(values, place.shape)
    else:
        values = jnp.moveaxis(values, of_values, 0)
    return add_up(values, place, batch * size).reshape(batch, size), 0


def _shape_of(made, *arguments, **choices):
    out = jax.eval_shape(functools.partial(made, **choices), *arguments)
    return jax.core.ShapedArray(out.shape, out.dtype)


def _transposed_look_up(change, table, place):
    size = table.aval.shape[0]
    if isinstance(change, ad.Zero):
        return ad.Zero(table.aval), None
    return add_up(change, place, size), None


def _transposed_add_up(change, values, place, *, size):
    if isinstance(change, ad.Zero):
        return ad.Zero(values.aval), None
    return look_up(change, place), None


def _define(primitive, made, batched, transposed) -> None:
    primitive.def_impl(jax.jit(made, static_argnames=tuple({"size"} & set(_parameters(made)))))
    primitive.def_abstract_eval(functools.partial(_shape_of, made))
    mlir.register_lowering(primitive, mlir.lower_fun(made, multiple_results=False))
    batching.primitive_batchers[primitive] = batched
    # Of the floats alone: a place has no derivative.
    again = primitive.bind
    ad.defjvp(primitive, lambda change, _, place, **own: again(change, place, **own), None)
    ad.primitive_transposes[primitive] = transposed


def _parameters(function):
    return inspect.signature(function).parameters


_define(_LOOK_UP, _looked_up, _batched_look_up, _transposed_look_up)
_define(_ADD_UP, _added_up, _batched_add_up, _transposed_add_up)
