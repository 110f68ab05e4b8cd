"""Loops over the steps of many episodes, where nobody waits longer than need be for the last one.

Episodes end at different times. Three loops give the same numbers:

* "scan": every step of the horizon, the finished masked. Differentiable in reverse.
* "while": stops when nobody is left. For steps that take long to compile.
* "compact": when no more than half of the episodes are left, these go on in a loop of half the
  width, and so on. Measured in `benchmarks/` (case `episodes`): on CartPole a fraction of the
  others' time, because a few long episodes do not make all wait.

A fourth, "fixed", makes a given number of steps of environments that begin anew by themselves.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from fedjax_rl.names import check_known

LOOPS = ("scan", "while", "compact")

# Below this width a step is dominated by what it costs to start its kernels.
_NARROWEST = 64


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
      kind: of `LOOPS`, or "fixed".
      axes: "compact" alone: where `fixed` has the axis B, a prefix of its tree as for `vmap`.

    Returns:
      The carry at the end.

    Raises:
      ValueError: an unknown kind.
    """
    check_known(kind, (*LOOPS, "fixed"), "loop")
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

    def descend(t, fixed, carry, width):
        half = (width + 1) // 2
        if kind == "while" or half < _NARROWEST:
            return run(t, fixed, carry, 0)[1]
        t, carry = run(t, fixed, carry, half)
        # The finished behind the others; equal keys keep their order, so that places are definite.
        order = jnp.argsort(~alive(carry), stable=True)[:half]
        here = jax.tree.map(
            lambda axis, part: jax.tree.map(lambda x: jnp.take(x, order, axis=axis), part),
            axes,
            fixed,
        )
        inner = jax.tree.map(lambda x: x[order], carry)
        finished = descend(t, here, inner, half)
        return jax.tree.map(lambda x, part: x.at[order].set(part), carry, finished)

    width = jax.tree.leaves(carry)[0].shape[0]
    return descend(jnp.uint32(0), fixed, carry, width)
