"""The largest numbers of a message are sent."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl import backend, fields, rounding
from fedjax_rl.federation.uplinks.compressed import compressed
from fedjax_rl.federation.uplinks.protocol import Uplink, uplink

# Up to so many numbers every one is compared with every other, which vectorises over agents.
_FEW = 32


def largest(x, k):
    """The vector with all but its k entries of largest magnitude set to zero.

    Args:
      x: float [q], or q scalars.
      k: whole number from 1 to q; may be traced.

    Returns:
      As `x`. Of magnitudes that are equal but for rounding the earlier entry stays: those of a
      softmax's gradient with two actions are, and which is larger is another compiler's choice.
    """
    if isinstance(x, list):
        return _largest_of_few(x, k)
    if x.size <= _FEW:
        return jnp.stack(_largest_of_few([x[place] for place in range(x.size)], k))
    size = _magnitude(x)
    # Not by `lax.top_k`, whose k shapes the program: this one is traced. Numbers of at least 0 are
    # in the order of their bits, and a CPU sorts whole numbers four times as fast.
    bits = jax.lax.bitcast_convert_type(size, f"int{8 * size.dtype.itemsize}")
    least = jnp.sort(bits)[x.size - k]  # of those that stay
    least = jax.lax.bitcast_convert_type(least, size.dtype)
    above, equal = _against(size, least)
    stays = above | (equal & (jnp.cumsum(equal) <= k - jnp.sum(above)))
    return jnp.where(stays, x, jnp.zeros_like(x))


def _largest_of_few(x: list, k) -> list:
    """`largest` of scalars, in which nothing is sorted."""
    sizes = [_magnitude(value) for value in x]
    # The least of those that stay is the least of those that fewer than k are larger than.
    larger = [_count([other > size for other in sizes]) for size in sizes]
    among = [jnp.where(n < k, s, jnp.inf) for n, s in zip(larger, sizes, strict=True)]
    least = functools.reduce(jnp.minimum, among)
    above, equal = zip(*(_against(size, least) for size in sizes), strict=True)
    room = k - _count(above)
    stays = []
    for first, second in zip(above, equal, strict=True):
        stays.append(first | (second & (room > 0)))
        room = room - second.astype(room.dtype)
    # XLA would do all of it again for each of the numbers; in one word it is done once.
    bits = [stay.astype(jnp.uint32) << np.uint32(place) for place, stay in enumerate(stays)]
    word = backend.once(functools.reduce(jnp.bitwise_or, bits))
    return [
        jnp.where(word >> np.uint32(place) & np.uint32(1) == 1, value, jnp.zeros_like(value))
        for place, value in enumerate(x)
    ]


def _magnitude(x):
    size = jnp.abs(x)
    # A NaN would be the largest, and as the least that stays it would let nothing through.
    return jnp.where(jnp.isnan(size), jnp.zeros_like(size), size)


def _against(size, least):
    """Whether a magnitude is above the least that stays, and whether equal but for rounding."""
    share = rounding.share(size.dtype)
    above = size > least * (1 + share)
    return above, ~above & (size >= least * (1 - share))


def _count(flags):
    """How many of some flags are up, int32."""
    return functools.reduce(jnp.add, [flag.astype(jnp.int32) for flag in flags])


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
