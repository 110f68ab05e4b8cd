"""What is told of the arrivals: staleness, idle time, lost uploads."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

# Smallest ages of the groups that are counted.
AGES = (0, 1, 4, 16, 64, 256)

METRICS = {
    "simulated_time": ("federation", "time at the last step of the server, in units of the clock"),
    "staleness": (
        "federation",
        "mean age of the messages of the last step: steps of the server since its sender was "
        "handed its model",
    ),
    "staleness_mean": ("federation", "mean age of all messages so far"),
    "staleness_max": ("federation", "largest age of a message so far"),
    "idle": ("federation", "mean share of the time that an agent has waited for others"),
    "lost": ("federation", "uploads lost so far because the agent failed at work"),
    **{
        f"age_{low}": (
            "federation",
            f"messages so far of an age of {low}"
            + (f" to {high - 1}" if high and high > low + 1 else "" if high else " or more"),
        )
        for low, high in zip(AGES, (*AGES[1:], None), strict=True)
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
      staleness: mean age of the messages of the last step.
      total: uint32, sum of all ages so far, modulo 2^32.
      carries: uint32, how often 2^32 has been passed.
      largest: uint32, of all ages so far.
      ages: uint32 [F, len(AGES)], messages so far by age, modulo 2^32.
      wraps: uint32 [F, len(AGES)], how often 2^32 of them have come.
    """

    now: jax.Array
    before: jax.Array
    remainder: jax.Array
    staleness: jax.Array
    total: jax.Array
    carries: jax.Array
    largest: jax.Array
    ages: jax.Array
    wraps: jax.Array


def wide(low, high, dtype):
    """The number low + 2^32 high, of uint32."""
    return high.astype(dtype) * 2.0**32 + low.astype(dtype)


def sum_of_all(x, axes):
    """Exact sums of uint32: modulo 2^32, and how often 2^32 has been passed."""

    def add(one, other):
        low = one[0] + other[0]
        return low, one[1] + other[1] + (low < one[0]).astype(jnp.uint32)

    nothing = jnp.uint32(0)
    return jax.lax.reduce((x, jnp.zeros_like(x)), (nothing, nothing), add, axes)
