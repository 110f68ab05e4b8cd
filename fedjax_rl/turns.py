"""Agents that take turns: so many at a time as stay in the cache while they work by themselves.

What agents do between two exchanges depends on nobody else. Where there are more than the cache
holds, it makes a difference whether each of them makes one step after the other's, so that all are
fetched from memory for every step, or all of its steps while it is there.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

from fedjax_rl import backend

# Bytes of agents that stay in the cache of a core, and how many are worth a turn at most, as more
# do not vectorise better. An accelerator has threads for all of them.
CACHE, MOST = {"cpu": 2**20}, 8192


def length(count: int, tree) -> int:
    """How many of so many take a turn together; all where they are few.

    Args:
      count: A.
      tree: what they read and change, leaves [A, ...] in any order of axes.

    Returns:
      A divisor of A where there is one that is large enough, so that all turns are equal.
    """
    cache = CACHE.get(backend.kind())
    # Of two turns none is worth another loop.
    if cache is None or count <= 2 * MOST:
        return count
    leaves = jax.tree.leaves(tree)
    each = sum(math.prod(x.shape) * x.dtype.itemsize for x in leaves) / count
    most = min(MOST, max(MOST // 64, int(cache / max(each, 1))))
    divisors = (n for n in range(most, most // 2, -1) if count % n == 0)
    return next(divisors, math.ceil(count / math.ceil(count / most)))


def in_turns(function: Callable, size: int, *batched, axes: tuple[int, ...] = ()):
    """`function(*batched)` of so many agents at a time.

    Args:
      function: of pytrees of [n, ...], of any n, to one of [n, ...]; what becomes of an agent
        depends on it alone.
      size: n, of a turn.
      *batched: of [A, ...], A the same for all.
      axes: where each has that axis; in front by default.

    Returns:
      A pytree of [A, ...].
    """
    axes = axes or (0,) * len(batched)
    count = next(
        leaf.shape[axis]
        for tree, axis in zip(batched, axes, strict=True)
        for leaf in jax.tree.leaves(tree)
    )
    turns, rest = divmod(count, size)

    def part(start, n: int):
        return [
            jax.tree.map(lambda x, a=axis: jax.lax.dynamic_slice_in_dim(x, start, n, a), tree)
            for tree, axis in zip(batched, axes, strict=True)
        ]

    if turns == 1 and not rest:
        return function(*batched)
    starts = jnp.arange(turns, dtype=jnp.int32) * size
    made = jax.lax.map(lambda start: function(*part(start, size)), starts)
    made = jax.tree.map(lambda x: x.reshape(turns * size, *x.shape[2:]), made)
    if not rest:
        return made
    last = function(*part(turns * size, rest))
    return jax.tree.map(lambda x, y: jnp.concatenate([x, y]), made, last)


def in_parts(function: Callable, work: float, most: float) -> Callable:
    """A function whose batches, under `vmap`, are computed on a CPU in parts of a bounded size.

    Nested batches count together. Elsewhere than on a CPU nothing changes.

    Args:
      function: of pytrees of arrays, returns one; not differentiated.
      work: of one call, in any unit.
      most: of a part, in the same unit; a part has one call at least.

    Returns:
      A function of the same arguments, with the same values.
    """

    def call(*args):
        # What a function has for constants is handed over, too: a condition under `vmap` makes a
        # batch of all that its branches read, which a rule does not allow of what is enclosed.
        made, shapes = jax.make_jaxpr(function, return_shape=True)(*args)

        def own(constants, *args):
            closed = ClosedJaxpr(made.jaxpr, constants)
            out = jaxpr_as_fun(closed)(*jax.tree.leaves(args))
            return jax.tree.unflatten(jax.tree.structure(shapes), out)

        return _in_parts(own, work, most)(made.consts, *args)

    return call


def _in_parts(function: Callable, work: float, most: float) -> Callable:
    # Only under `vmap` is it known how large a batch is.
    one = jax.custom_batching.custom_vmap(function)

    @one.def_vmap
    def _(size: int, batched, *args):
        many = min(size, max(1, int(most // work)))
        # What is the same for all is there once, in a batch and in its parts.
        axes = jax.tree.map(lambda own: 0 if own else None, tuple(batched))
        # What is batched further counts as so much work a call.
        part = _in_parts(jax.vmap(function, axes), work * many, most)
        if many == size or backend.kind() != "cpu":
            made = part(*args)
            return made, jax.tree.map(lambda _: True, made)
        parts = math.ceil(size / many)
        # The last part is filled with what is there already.
        places = jnp.minimum(jnp.arange(parts * many), size - 1).reshape(parts, many)
        leaves, tree = jax.tree.flatten(args)
        own = jax.tree.leaves(tuple(batched))

        def turn(place):
            here = [x[place] if b else x for x, b in zip(leaves, own, strict=True)]
            return part(*jax.tree.unflatten(tree, here))

        # One part after the other: at the same time they would be one large batch again.
        made = jax.lax.map(turn, places)
        joined = jax.tree.map(lambda x: x.reshape(parts * many, *x.shape[2:])[:size], made)
        return joined, jax.tree.map(lambda _: True, joined)

    return one


def changed_in_turns(function: Callable, size: int, changed, *batched):
    """`function(changed, *batched)`, which takes the place of `changed`, of so many at a time.

    Args:
      function: as of `in_turns`, to a pytree like its first argument.
      size: n, of a turn.
      changed: of [A, ...]; changed in place where a compiler can.
      *batched: of [A, ...].

    Returns:
      A pytree like `changed`.
    """
    count = jax.tree.leaves(changed)[0].shape[0]
    turns, rest = divmod(count, size)

    def turn(start, n: int, changed):
        own = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, start, n), (changed, *batched))
        return jax.tree.map(
            lambda x, new: jax.lax.dynamic_update_slice_in_dim(x, new, start, 0),
            changed,
            function(*own),
        )

    if turns == 1 and not rest:
        return function(changed, *batched)
    starts = jnp.arange(turns, dtype=jnp.int32) * size
    # A scan, which has a derivative in reverse.
    changed, _ = jax.lax.scan(lambda own, start: (turn(start, size, own), None), changed, starts)
    return turn(jnp.int32(turns * size), rest, changed) if rest else changed
