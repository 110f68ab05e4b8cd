"""Statistics of the arrivals: simulated time, staleness, idle time, lost uploads."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_rl.federation.clock.state import InFlight
from fedjax_rl.federation.population import Population

# Smallest staleness of each bin of the histogram.
BINS = (0, 1, 4, 16, 64, 256)


def _range(low: int, high: int | None) -> str:
    if high is None:
        return f"{low} or more"
    return str(low) if high == low + 1 else f"{low} to {high - 1}"


METRICS = {
    "simulated_time": ("federation", "time at the last step of the server, in units of the clock"),
    "staleness": (
        "federation",
        "mean staleness of the messages of the last step: steps of the server since the sender was "
        "dispatched its model",
    ),
    "staleness_mean": ("federation", "mean staleness of all messages so far"),
    "staleness_max": ("federation", "largest staleness of a message so far"),
    "idle": ("federation", "mean share of the time that an agent has waited for others"),
    "lost": ("federation", "uploads lost so far because the agent failed at work"),
    **{
        f"age_{low}": ("federation", f"messages so far of a staleness of {_range(low, high)}")
        for low, high in zip(BINS, (*BINS[1:], None), strict=True)
    },
    "idle_of_agent": ("agent", "time that each agent has waited for others"),
    "uploads_of_agent": ("agent", "messages of each agent that have arrived"),
}


class Elapsed(NamedTuple):
    """What has passed in every federation; leaves [F, ...].

    Attributes:
      now: time of the server's last step since the last block's start.
      before: time of that start.
      remainder: what rounding has left out of it.
      staleness: mean of the messages of the last step.
      total: uint32, sum of the staleness of all messages so far, modulo 2^32.
      carries: uint32, how often 2^32 has been passed.
      largest: uint32, staleness of a message so far.
      histogram: uint32 [F, len(BINS)], messages so far by staleness, modulo 2^32.
      wraps: uint32 [F, len(BINS)], how often 2^32 of them have come.
    """

    now: jax.Array
    before: jax.Array
    remainder: jax.Array
    staleness: jax.Array
    total: jax.Array
    carries: jax.Array
    largest: jax.Array
    histogram: jax.Array
    wraps: jax.Array


def nothing_elapsed(num_federations: int) -> Elapsed:
    """Before anything has happened; times of the default precision."""
    # Counters are whole numbers: a float32 counts to 2^24, which long runs pass.
    none = jnp.zeros(num_federations, jnp.uint32)
    zero = jnp.zeros(num_federations)
    counts = jnp.zeros((num_federations, len(BINS)), jnp.uint32)
    return Elapsed(zero, zero, zero, zero, none, none, none, counts, counts)


def next_block(elapsed: Elapsed) -> Elapsed:
    """With times that begin anew: those of long runs would lose their last digits.

    What rounding leaves out of the sum goes into the next one (Kahan, 1965).
    """
    more = elapsed.now - elapsed.remainder
    total = elapsed.before + more
    # Not 0: XLA leaves sums of floats as they are written, unless told to be fast.
    remainder = (total - elapsed.before) - more
    return elapsed._replace(now=jnp.zeros_like(elapsed.now), before=total, remainder=remainder)


def recorded(elapsed: Elapsed, staleness, present, count) -> Elapsed:
    """With the staleness of the messages of a block.

    Args:
      elapsed: before it, leaves [f, ...] of f federations of equal size.
      staleness: uint32 [T, f, m].
      present: bool [T, f, m], which messages there are; () for all of them.
      count: uint32 scalar, the steps that are made, the first of T.

    Returns:
      What has passed after it, leaves [f, ...].
    """
    dtype = elapsed.now.dtype
    made = jnp.arange(staleness.shape[0], dtype=jnp.uint32) < count
    arrived = jnp.broadcast_to(made[:, None, None], staleness.shape)
    if not isinstance(present, tuple):
        arrived = arrived & present
    staleness = jnp.where(arrived, staleness, jnp.uint32(0))
    low = jnp.asarray(BINS, jnp.uint32)
    at_least = jnp.sum(
        arrived[..., None] & (staleness[..., None] >= low[None, None, None]),
        axis=(0, 2),
        dtype=jnp.uint32,
    )
    # Bins as differences of cumulative counts: one reduction, no scatter into a histogram.
    more = at_least - jnp.pad(at_least[:, 1:], ((0, 0), (0, 1)))
    last = (count - jnp.uint32(1)).astype(jnp.int32)
    messages = jnp.sum(_at(arrived, last), axis=1, dtype=jnp.uint32).astype(dtype)
    latest = jnp.sum(_at(staleness, last).astype(dtype), axis=1) / jnp.maximum(messages, 1)
    histogram = elapsed.histogram + more
    total, carries = _wide_sum(staleness, (0, 2))
    total = elapsed.total + total
    carries = elapsed.carries + carries + (total < elapsed.total).astype(jnp.uint32)
    return elapsed._replace(
        staleness=latest,
        total=total,
        carries=carries,
        largest=jnp.maximum(elapsed.largest, jnp.max(staleness, axis=(0, 2))),
        histogram=histogram,
        wraps=elapsed.wraps + (histogram < more).astype(jnp.uint32),
    )


def measure(population: Population, in_flight: InFlight, elapsed: Elapsed) -> dict:
    """The values of `METRICS`, [F] or [A].

    Args:
      population: who belongs to whom.
      in_flight: the work in flight, leaves [A, ...].
      elapsed: what has passed, leaves [F, ...].

    Returns:
      A value of each of `METRICS` by name, in the dtype of the times.
    """
    time = elapsed.before + elapsed.now
    waits = not isinstance(in_flight.idle, tuple)
    idle = in_flight.idle if waits else jnp.zeros_like(in_flight.end)
    share = population.mean(idle) / jnp.where(time > 0, time, 1)
    lost = jnp.zeros_like(time)
    if not isinstance(in_flight.lost, tuple):
        # A loss is known from the start of the work, and counted once it has happened.
        over = in_flight.failing & (in_flight.end <= population.spread(elapsed.now))
        lost = population.sum(in_flight.lost + over.astype(jnp.uint32)).astype(time.dtype)
    counts = _wide(elapsed.histogram, elapsed.wraps, time.dtype)
    messages = jnp.maximum(jnp.sum(counts, axis=1), 1)
    return {
        "simulated_time": time,
        "staleness": elapsed.staleness,
        "staleness_mean": _wide(elapsed.total, elapsed.carries, time.dtype) / messages,
        "staleness_max": elapsed.largest.astype(time.dtype),
        "idle": share,
        "lost": lost,
        **{f"age_{low}": counts[:, place] for place, low in enumerate(BINS)},
        "idle_of_agent": idle,
        "uploads_of_agent": in_flight.uploads.astype(time.dtype),
    }


def _wide(low, high, dtype):
    """The number low + 2^32 high, of uint32."""
    return high.astype(dtype) * 2.0**32 + low.astype(dtype)


def _wide_sum(x, axes):
    """Exact sums of uint32: modulo 2^32, and how often 2^32 has been passed."""

    def add(one, other):
        low = one[0] + other[0]
        return low, one[1] + other[1] + (low < one[0]).astype(jnp.uint32)

    # Pairs of words in one reduction: their addition carries, and is associative.
    nothing = jnp.uint32(0)
    return jax.lax.reduce((x, jnp.zeros_like(x)), (nothing, nothing), add, axes)


def _at(x, place):
    """The entry at a place of the first axis."""
    return jax.lax.dynamic_index_in_dim(x, place, keepdims=False)
