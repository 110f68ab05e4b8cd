"""The signs of the numbers of a message are sent, and one scale."""

from __future__ import annotations

import functools

import jax.numpy as jnp

from fedjax_rl import backend, fields
from fedjax_rl.federation.ledger import tree_floats
from fedjax_rl.federation.uplinks.compressed import compressed
from fedjax_rl.federation.uplinks.protocol import Uplink, uplink


def scaled_signs(x):
    """`mean |x| sign(x)`, with sign(0) = 1: one number and one bit per coordinate.

    Args:
      x: float [q], or q scalars.

    Returns:
      As `x`.
    """

    def sign(x):
        # `jnp.sign` would make a third value of 0, for which one bit has no room.
        return jnp.where(x >= 0, jnp.ones_like(x), -jnp.ones_like(x))

    if not isinstance(x, list):
        return jnp.mean(jnp.abs(x)) * sign(x)
    scale = backend.once(functools.reduce(jnp.add, map(jnp.abs, x)) / len(x))
    return [scale * sign(value) for value in x]


@uplink(feedback=fields.switch())
def scaled_sign(feedback: bool = True) -> Uplink:
    """One scale for all numbers and the sign of each are sent.

    Args:
      feedback: whether what is left is added to the next message.

    Returns:
      The `Uplink`.

    Examples:
      >>> import fedjax_rl as frl
      >>> algorithm = frl.fedq(frl.envs.paper_mdp(), uplink=frl.uplinks.scaled_sign(feedback=False))
      >>> str(algorithm.config.uplink)
      'scaled-sign(feedback=False)'
    """

    def size(numbers, params):
        return jnp.uint32(1), jnp.uint32(tree_floats(numbers))

    return compressed(
        "scaled-sign",
        lambda x, own: scaled_signs(x),
        size,
        {},
        feedback,
        lambda values, num_agents, numbers: None,
    )
