"""Everybody sends a compressed message, with or without error feedback (arXiv 2301.00944)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from fedjax_rl.federation.uplinks.protocol import Uplink


def compressed(name, compress, size, parameters, feedback, check) -> Uplink:
    """Everybody sends compress(residual + numbers); the residual keeps what is left."""

    def init(message, model, spec):
        return jax.tree.map(jnp.zeros_like, spec.numbers(message))

    def send(key, message, state, view):
        del key
        there = jnp.any(view.spec.items(message)[1])
        numbers = view.spec.numbers(message)
        wanted, restore = ravel_pytree(jax.tree.map(jnp.add, state, numbers))
        short = compress(wanted, view.own)
        left = restore(wanted - short if feedback else jnp.zeros_like(wanted))
        left = view.spec.owed(left)
        state = jax.tree.map(lambda new, old: jnp.where(there, new, old), left, state)
        return view.spec.replaced(message, restore(short)), there, state

    return Uplink(name, init, send, parameters, (("feedback", feedback),), size=size, check=check)
