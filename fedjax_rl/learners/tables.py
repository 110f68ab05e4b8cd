"""Tables of numbers read and written at an index that is only known at run time.

A small table is a tuple of scalars: under `vmap` it becomes a tuple of vectors over the agents,
and reading it by comparison with every index is straight vector code. A large one is an array,
read by gather. Both give the same numbers; `layout` chooses, in one place.
"""

from __future__ import annotations

import jax.numpy as jnp

# Selection costs one comparison per entry, a gather one cache line: measured, selection wins up
# to about two dozen entries and loses clearly at a hundred.
LARGEST_UNROLLED = 24


def layout(values, unrolled: bool):
    """The table of the entries `values` [n]: a tuple of n scalars, or the array itself.

    Args:
      values: [n].
      unrolled: whether the table is a tuple.
    """
    return tuple(values[i] for i in range(values.shape[0])) if unrolled else values


def is_there(table) -> bool:
    """Whether something optional, a table or a number, is kept; what is absent is ()."""
    return not isinstance(table, tuple) or len(table) > 0


def as_array(table):
    """The entries of a table as an array [n]."""
    return jnp.stack(table) if isinstance(table, tuple) else table


def filled(size: int, value, unrolled: bool):
    """A table of `size` entries, all equal to the scalar `value`.

    Args:
      size: n.
      value: scalar.
      unrolled: whether the table is a tuple.
    """
    value = jnp.asarray(value)
    return (value,) * size if unrolled else jnp.broadcast_to(value, (size,))


def take(table, index):
    """Entry `index` of the table.

    Args:
      table: n entries.
      index: integer scalar, of one of them.

    Returns:
      Scalar.
    """
    if not isinstance(table, tuple):
        return table[index]
    # An index is always one of them, so that the last entry needs no comparison.
    entry = table[-1]
    for i in range(len(table) - 2, -1, -1):
        entry = jnp.where(index == i, table[i], entry)
    return entry


def take_row(table, row, width: int) -> tuple:
    """The `width` entries of row `row` of a table laid out row by row.

    Args:
      table: laid out row by row.
      row: integer scalar.
      width: entries of a row.

    Returns:
      A tuple of scalars.
    """
    if not isinstance(table, tuple):
        start = row * width
        return tuple(table[start + i] for i in range(width))
    return tuple(take(table[i::width], row) for i in range(width))


def put(table, index, value):
    """The table with `value` at `index`; an index past the end changes nothing.

    Args:
      table: n entries.
      index: integer scalar.
      value: scalar.
    """
    if not isinstance(table, tuple):
        return table.at[index].set(value, mode="drop")
    return tuple(jnp.where(index == i, value, entry) for i, entry in enumerate(table))


def add(table, index, value):
    """The table with `value` added at `index`; an index past the end changes nothing.

    Args:
      table: n entries.
      index: integer scalar.
      value: scalar.
    """
    if not isinstance(table, tuple):
        return table.at[index].add(value, mode="drop")
    return tuple(jnp.where(index == i, entry + value, entry) for i, entry in enumerate(table))
