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
      compress: `(vector, own) -> vector`, what arrives of all numbers of a message laid end to end;
        `own` has the uplink's traced values.
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
        # End to end, so that numbers of different leaves compete with each other.
        wanted, restore = ravel_pytree(jax.tree.map(jnp.add, state, numbers))
        short = compress(wanted, view.own)
        left = restore(wanted - short if feedback else jnp.zeros_like(wanted))
        left = view.spec.owed(left)
        # Who has nothing to say keeps what it owes.
        state = jax.tree.map(lambda new, old: jnp.where(there, new, old), left, state)
        return view.spec.replaced(message, restore(short)), there, state

    return Uplink(name, init, send, parameters, (("feedback", feedback),), size=size, check=check)
