"""Arrivals at servers that take every message as it comes, merged instead of searched one by one.

Nobody waits, so that the times at which agent i arrives do not depend on the others:

    end_{i,j+1} = end_{i,j} + duration_{i,j+1}

The next few of every agent are drawn at once, and the order of all is a sort. An agent may be so
fast that more of its arrivals belong among them than were drawn. Certain is the order of those
before the first agent's last drawn one, and that one itself; from there it goes on.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fedjax_rl import backend
from fedjax_rl.federation.clock.state import Arrivals
from fedjax_rl.federation.clock.times import durations

# Arrivals of every agent that are drawn at once: of agents of one speed hardly any has more among
# the first n (measured: 3 come as fast, 2 and 6 take half as long again).
_DEPTH = 4


def merged(group, in_flight, version, count, length: int):
    """The next `count` steps, each of one message: as `Group.plan`.

    Args:
      group: an `order.Group` of n agents, without failures.
      in_flight: leaves [f, n, ...].
      version: uint32 scalar, steps that the servers have made.
      count: uint32 scalar, steps to plan, from 1 to `length`.
      length: T.

    Returns:
      As `Group.plan`.
    """
    width = min(length, group.agents)

    def body(carry):
        done, _, in_flight, kept = carry
        window = _window(group, in_flight, version + done, count - done, width)
        made, now, in_flight, arrivals = window
        at = done.astype(jnp.int32)
        kept = jax.tree.map(
            lambda x, new: jax.lax.dynamic_update_slice_in_dim(x, new, at, axis=0), kept, arrivals
        )
        return done + made, now, in_flight, kept

    # A window may begin at any step but the last, and writes whole.
    nothing = jax.tree.map(
        lambda x: jnp.zeros((length + width, *x.shape[1:]), x.dtype),
        jax.eval_shape(lambda x: _window(group, x, version, count, width)[3], in_flight),
    )
    first = (jnp.uint32(0), in_flight.end[:, 0], in_flight, nothing)
    _, now, in_flight, kept = jax.lax.while_loop(lambda carry: carry[0] < count, body, first)
    return jax.tree.map(lambda x: x[:length], kept), in_flight, now


def _window(group, in_flight, version, count, width: int):
    """The next steps, at most `count` and `width`, as far as their order is certain.

    Returns:
      Their number; the time of the last one [f]; the work in flight after it; `Arrivals`, T of
      them `width`.
    """
    f, n = in_flight.end.shape
    ends = _next_ends(group, in_flight)
    drawn = ends[..., :-1]
    # Of equal times the first in this order, by agent and then by number, comes first.
    _, order = jax.lax.top_k(-drawn.reshape(f, -1), width)
    time = jnp.take_along_axis(drawn.reshape(f, -1), order, axis=1)
    horizon = jnp.min(drawn[..., -1], axis=1, keepdims=True)
    # Servers go on together, so that of several the one with the fewest certain steps decides.
    certain = jnp.min(jnp.sum(time < horizon, axis=1, dtype=jnp.uint32)) + jnp.uint32(1)
    made = jnp.minimum(jnp.minimum(certain, jnp.uint32(width)), count)

    following = version + jnp.arange(1, width + 1, dtype=jnp.uint32)[None]
    # The version that an agent works with before its next arrivals [..., 0] and after each.
    after = jnp.zeros((f, n * _DEPTH), jnp.uint32)
    after = after.at[group.rows, order].set(
        jnp.broadcast_to(following, order.shape), unique_indices=True
    )
    versions = jnp.concatenate([in_flight.version[..., None], after.reshape(f, n, -1)], axis=2)
    member, place = order // _DEPTH, order % _DEPTH
    arrivals = Arrivals(
        agent=member.T[..., None],
        present=(),
        upload=(in_flight.uploads[group.rows, member] + place.astype(jnp.uint32)).T[..., None],
        staleness=(following - jnp.uint32(1) - versions[group.rows, member, place]).T[..., None],
        time=time.T,
        returned_before=(),
        returned_after=(),
    )

    last = made.astype(jnp.int32) - 1
    now, final = time[:, last], order[:, last]
    arrived = _upto(drawn, now, final)
    at = arrived.astype(jnp.int32)[..., None]
    in_flight = in_flight._replace(
        end=jnp.take_along_axis(ends, at, axis=2)[..., 0],
        version=jnp.take_along_axis(versions, at, axis=2)[..., 0],
        uploads=in_flight.uploads + arrived,
    )
    return made, now, in_flight, arrivals


def _next_ends(group, in_flight):
    """The end of the work in flight and of the next after it, [f, n, _DEPTH + 1]."""

    def again(x):
        return jnp.broadcast_to(x[:, :, None], (*x.shape[:2], _DEPTH, *x.shape[2:]))

    attempt = in_flight.uploads[..., None] + jnp.arange(1, _DEPTH + 1, dtype=jnp.uint32)[None, None]
    more = durations(
        group.rules,
        group.transfer,
        jax.tree.map(again, group.own),
        jax.tree.map(again, in_flight.stream),
        attempt,
        in_flight.end.dtype,
    )
    # Fused into the sums below, every one of them would draw its predecessors' words again.
    more = backend.once(more)
    ends = [in_flight.end]
    for place in range(_DEPTH):  # one after the other, as `work` adds them
        ends.append(ends[-1] + more[..., place])
    return jnp.stack(ends, axis=2)


def _upto(drawn, now, final):
    """How many of each agent's drawn arrivals are made by the one of that time and place.

    Args:
      drawn: [f, n, _DEPTH], their times.
      now: [f], time of the last one.
      final: int32 [f], its place among all of a federation.

    Returns:
      uint32 [f, n].
    """
    places = jnp.arange(drawn[0].size, dtype=jnp.int32).reshape(1, *drawn.shape[1:])
    now, final = now[:, None, None], final[:, None, None]
    made = (drawn < now) | ((drawn == now) & (places <= final))
    return jnp.sum(made, axis=2, dtype=jnp.uint32)
