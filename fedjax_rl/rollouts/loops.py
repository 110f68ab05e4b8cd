"""Loops over the steps of many episodes, where nobody waits longer than need be for the last one.

Episodes end at different times. Three loops give the same numbers:

* "scan": every step of the horizon, the finished masked. Differentiable in reverse.
* "while": stops when nobody is left. For steps that take long to compile.
* "compact": when no more than half of the episodes are left, these go on in a loop of half the
  width, and so on. Measured in `benchmarks/` (case `episodes`): on CartPole a fraction of the
  others' time, because a few long episodes do not make all wait.

"compact" has a copy of the step for every width. Where a step takes seconds to compile, as in brax,
"blocks" is in its place: episodes are stepped in blocks of one width, of which fewer are left the
fewer episodes are, and there is one copy, however many episodes. "fixed" makes a given number of
steps of environments that begin anew by themselves.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from fedjax_rl import backend
from fedjax_rl.names import check_known

LOOPS = ("scan", "while", "compact")

# Below this width a step is dominated by what it costs to start its kernels.
_NARROWEST = 64
# Lanes of a 512-bit vector. What is left over is computed by other code, which may round otherwise.
_LANES = 16


def fitting(kind: str, env, rows: bool = False) -> str:
    """The loop that does for an environment what "compact" does for one that compiles fast.

    Args:
      kind: of `LOOPS`.
      env: of a task; `compiles_slowly` says that a copy of its step is to be avoided.
      rows: whether steps are written down, which would have to be moved with the episodes.

    Returns:
      Of `LOOPS`, or "blocks".
    """
    if kind != "compact" or not getattr(env, "compiles_slowly", False):
        return kind
    # An accelerator is as fast with all of them as with a block.
    return "while" if rows or backend.kind() != "cpu" else "blocks"


def loop(
    step: Callable,
    alive: Callable,
    fixed,
    carry,
    max_steps: int,
    kind: str = "compact",
    axes=0,
):
    """Steps episodes until each is done, or `max_steps` times.

    Args:
      step: `(t, fixed, carry) -> carry` of all episodes that it is handed, t a uint32 scalar. A
        finished episode may be stepped on: what it has to keep, `step` masks.
      alive: `carry -> bool [B, ...]`; once false, false for ever.
      fixed: pytree of what a step reads and does not change.
      carry: pytree of what it changes, leaves [B, ...].
      max_steps: T, a Python int.
      kind: of `LOOPS`, "blocks" or "fixed".
      axes: "compact" and "blocks" alone: where `fixed` has the axis B, a prefix of its tree as for
        `vmap`; None where it has none.

    Returns:
      The carry at the end.

    Raises:
      ValueError: an unknown kind.
    """
    check_known(kind, (*LOOPS, "blocks", "fixed"), "loop")
    if kind == "fixed":
        each = lambda t, carry: step(jnp.uint32(t), fixed, carry)
        return jax.lax.fori_loop(0, max_steps, each, carry)
    if kind == "scan":
        times = jnp.arange(max_steps, dtype=jnp.uint32)
        return jax.lax.scan(lambda carry, t: (step(t, fixed, carry), None), carry, times)[0]

    def run(t, fixed, carry, fewest):
        """Steps while more than `fewest` episodes are under way."""

        def go_on(now):
            t, carry = now
            left = jnp.sum(alive(carry).astype(jnp.int32))
            return (t < max_steps) & (left > fewest)

        def body(now):
            t, carry = now
            return t + jnp.uint32(1), step(t, fixed, carry)

        return jax.lax.while_loop(go_on, body, (t, carry))

    width = jax.tree.leaves(carry)[0].shape[0]
    if kind == "blocks" and width > _NARROWEST:
        return _in_blocks(step, alive, fixed, carry, max_steps, axes)

    def descend(t, fixed, carry, width):
        half = (width + 1) // 2
        if kind != "compact" or half < _NARROWEST:
            return run(t, fixed, carry, 0)[1]
        t, carry = run(t, fixed, carry, half)
        order = _in_front(alive(carry))[:half]
        inner = jax.tree.map(lambda x: x[order], carry)
        finished = descend(t, _taken(fixed, order, axes), inner, half)
        return jax.tree.map(lambda x, part: x.at[order].set(part), carry, finished)

    return descend(jnp.uint32(0), fixed, carry, width)


def _in_front(flags) -> jax.Array:
    """The places of those with a flag, then of the others, both in their order, int32 [B].

    Counted, not sorted, which takes a CPU ten times as long.
    """
    place = jnp.arange(len(flags), dtype=jnp.int32)
    ahead = jnp.cumsum(flags, dtype=jnp.int32)
    target = jnp.where(flags, ahead - 1, ahead[-1] + place - ahead)
    return jnp.zeros_like(place).at[target].set(place, unique_indices=True)


def _each(function: Callable, axes, fixed):
    """`function(x, axis)` of all leaves that have the axis B; the others are as they are."""

    def part(axis, own):
        return own if axis is None else jax.tree.map(lambda x: function(x, axis), own)

    return jax.tree.map(part, axes, fixed, is_leaf=lambda axis: axis is None)


def _taken(fixed, order, axes):
    """What the episodes of these places read."""
    return _each(lambda x, axis: jnp.take(x, order, axis=axis), axes, fixed)


def _in_blocks(step, alive, fixed, carry, max_steps: int, axes):
    """As `loop`: steps blocks of one width, sorted anew whenever half of the episodes are over."""
    count = jax.tree.leaves(carry)[0].shape[0]
    blocks = -(-count // _NARROWEST)
    width = -(-count // (_LANES * blocks)) * _LANES
    # What fills the last block is episodes that are there twice, of which the first are kept.
    places = jnp.arange(blocks * width, dtype=jnp.int32)
    filled = places % count
    fixed, carry = _taken(fixed, filled, axes), jax.tree.map(lambda x: x[filled], carry)

    def left(carry):
        return jnp.sum(alive(carry).astype(jnp.int32))

    def sort(now):
        t, places, fixed, carry = now
        order = _in_front(alive(carry))
        places, fixed = places[order], _taken(fixed, order, axes)
        carry = jax.tree.map(lambda x: x[order], carry)
        many = left(carry)
        busy = (many + width - 1) // width
        fewest = jnp.where(busy > 1, many // 2, 0)

        def block(t, place, carry):
            def cut(x, axis):
                return jax.lax.dynamic_slice_in_dim(x, place * width, width, axis)

            new = step(t, _each(cut, axes, fixed), _each(cut, 0, carry))
            return jax.tree.map(
                lambda x, part: jax.lax.dynamic_update_slice_in_dim(x, part, place * width, 0),
                carry,
                new,
            )

        def body(now):
            t, carry = now
            each = lambda place, carry: block(t, place, carry)
            return t + jnp.uint32(1), jax.lax.fori_loop(0, busy, each, carry)

        def go_on(now):
            return (now[0] < max_steps) & (left(now[1]) > fewest)

        t, carry = jax.lax.while_loop(go_on, body, (t, carry))
        return t, places, fixed, carry

    def go_on(now):
        return (now[0] < max_steps) & (left(now[3]) > 0)

    now = jnp.uint32(0), places, fixed, carry
    _, places, _, carry = jax.lax.while_loop(go_on, sort, now)
    back = (
        jnp.zeros_like(places).at[places].set(jnp.arange(len(places), dtype=places.dtype))[:count]
    )
    return jax.tree.map(lambda x: x[back], carry)
