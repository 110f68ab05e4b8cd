"""The largest numbers of a message are sent."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fedjax_rl import fields, rounding
from fedjax_rl.federation.uplinks.compressed import compressed
from fedjax_rl.federation.uplinks.protocol import Uplink, uplink


def largest(x, k) -> jax.Array:
    """The vector with all but its k entries of largest magnitude set to zero.

    Args:
      x: float [q].
      k: whole number from 1 to q; may be traced.

    Returns:
      float [q]. Of magnitudes that are equal but for rounding the earlier entry stays: those of a
      softmax's gradient with two actions are, and which is larger is another compiler's choice.
    """
    size = jnp.abs(x)
    # A NaN would be sorted first, and as the least that stays it would let nothing through.
    size = jnp.where(jnp.isnan(size), jnp.zeros_like(size), size)
    # Not by `lax.top_k`, whose k shapes the program: this one is traced.
    least = jnp.sort(size, descending=True)[k - 1]  # of those that stay
    share = rounding.share(size.dtype)
    above = size > least * (1 + share)
    equal = ~above & (size >= least * (1 - share))
    stays = above | (equal & (jnp.cumsum(equal) <= k - jnp.sum(above)))
    return jnp.where(stays, x, jnp.zeros_like(x))


@uplink(k=fields.whole(1, follows=True, traced=True), feedback=fields.switch())
def top_k(k: int, feedback: bool = True) -> Uplink:
    """The k numbers of largest magnitude are sent, with their places.

    Args:
      k: from 1 to the numbers in a message.
      feedback: whether what is left is added to the next message (error feedback; Mitra, Pappas
        and Hassani, arXiv 2301.00944).

    Returns:
      The `Uplink`.

    Examples:
      >>> import fedjax_rl as frl
      >>> algorithm = frl.fedq(frl.envs.paper_mdp(), uplink=frl.uplinks.top_k(3))
      >>> str(algorithm.config.uplink)
      'top-k(k=3)'
    """

    def check(values, num_agents, numbers):
        kept = values["k"]
        if not isinstance(kept, jax.core.Tracer) and kept > numbers:
            raise ValueError(
                f"k is {kept} with messages of {numbers} numbers; allowed: a whole number from 1 "
                f"to {numbers}"
            )

    def size(numbers, params):
        # A number and its place, each of them a word on the wire.
        return (2 * params["uplink"]["k"]).astype(jnp.uint32), jnp.uint32(0)

    return compressed("top-k", lambda x, own: largest(x, own["k"]), size, {"k": k}, feedback, check)
