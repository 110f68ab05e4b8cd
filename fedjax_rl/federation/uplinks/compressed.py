"""Everybody sends a compressed message, with or without error feedback (arXiv 2301.00944)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from fedjax_rl.federation.uplinks.protocol import Uplink


def compressed(name, compress, size, parameters, feedback, check) -> Uplink:
    """Everybody sends `compress(residual + numbers)`; the residual keeps what is left.

    Args:
      name: of the uplink.
      compress: `(numbers, own) -> numbers`, what arrives of all numbers of a message laid end to
        end: a vector, or a list of scalars where the message consists of these; `own` has the
        uplink's traced values.
      size: as of `Uplink`.
      parameters: as of `Uplink`.
      feedback: whether what is left is added to the next message.
      check: as of `Uplink`.

    Returns:
      The `Uplink`, whose state is the residual, a pytree like the numbers.
    """

    def init(message, model, spec):
        return jax.tree.map(jnp.zeros_like, spec.numbers(message))

    def send(key, message, state, view):
        del key
        there = jnp.any(view.spec.items(message)[1])
        numbers = view.spec.numbers(message)
        wanted = jax.tree.map(jnp.add, state, numbers)
        # End to end, so that numbers of different leaves compete with each other.
        flat, restore = _end_to_end(wanted)
        short = restore(compress(flat, view.own))
        if feedback:
            left = jax.tree.map(jnp.subtract, wanted, short)
        else:
            left = jax.tree.map(jnp.zeros_like, wanted)
        left = view.spec.owed(left)
        # Who has nothing to say keeps what it owes.
        state = jax.tree.map(lambda new, old: jnp.where(there, new, old), left, state)
        return view.spec.replaced(message, short), there, state

    return Uplink(name, init, send, parameters, (("feedback", feedback),), size=size, check=check)


def _end_to_end(tree):
    """All numbers of a pytree as a vector, or as a list where all are scalars; and the way back.

    Scalars stay apart: for every agent they lie in arrays of their own, and as a vector all of
    them would have to be moved twice. `learners.tables` says why tables are scalars.
    """
    leaves, structure = jax.tree.flatten(tree)
    if all(leaf.ndim == 0 for leaf in leaves) and len({leaf.dtype for leaf in leaves}) == 1:
        return leaves, structure.unflatten
    return ravel_pytree(tree)
