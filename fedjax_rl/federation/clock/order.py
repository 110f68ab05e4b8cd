"""Who arrives next in federations of equal size, and what everybody is at afterwards.

Three ways lead to the same order, that of a heap of ends whose ties go to the lower place:

* Where the server takes every message as it comes, an agent's times depend on nobody else, and
  the arrivals are merged at once (`asynchronous`).
* Where it waits for the first m, its steps are made one after the other.
* Where agents fail, who has returned joins in at every step.

The next arrivals of many agents can only be among those whose work ends first: without failures
the others are left aside for the length of a block.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_rl.federation.clock import asynchronous
from fedjax_rl.federation.clock.config import Rules
from fedjax_rl.federation.clock.state import Arrivals
from fedjax_rl.federation.clock.times import work

# Fewer agents than this are looked through with masks, which vectorise better than indices.
_FEW = 128
# From this many agents on merging beats one step after the other (measured on a CPU).
_MERGED_FROM = 64


class Group(NamedTuple):
    """Federations of equal size.

    Attributes:
      rules: of the clock.
      transfer: bytes of a message up and its answer down.
      federations: f.
      agents: n, of each.
      messages: m, of a step.
      own: `Clock.parameters`, leaves [f, n, ...].
    """

    rules: Rules
    transfer: int
    federations: int
    agents: int
    messages: int
    own: dict

    @property
    def rows(self) -> jax.Array:
        """Places of the federations, int32 [f, 1]."""
        return jnp.arange(self.federations, dtype=jnp.int32)[:, None]

    def plan(self, in_flight, now, version, count, length: int):
        """The next `count` steps of every server.

        Args:
          in_flight: leaves [f, n, ...].
          now: [f], time of the last step.
          version: uint32 scalar, steps that the servers have made.
          count: uint32 scalar, steps to plan, at most `length`.
          length: T.

        Returns:
          `Arrivals` [T, f, m] (times [T, f], masks [T, f, n]) of places within the federation,
          the work in flight afterwards, and the time of the last step [f].
        """
        candidates = length * self.messages
        if self.rules.fails or length == 1 or 2 * candidates > self.agents:
            return self._among_all(in_flight, now, version, count, length)
        # Of equal ends `top_k` takes the lower places first, as a heap of (end, place) does.
        members = _first(in_flight.end, candidates)
        # In the order of their places, which decides between those who end at the same time.
        members = jnp.sort(members, axis=1)
        at = (self.rows, members)
        among = self._replace(agents=candidates, own=jax.tree.map(lambda x: x[at], self.own))
        arrivals, mine, now = among._among_all(
            jax.tree.map(lambda x: x[at], in_flight), now, version, count, length
        )
        arrivals = arrivals._replace(
            agent=jnp.take_along_axis(members[None], arrivals.agent, axis=2)
        )

        def put(x, new):
            return x.at[at].set(new, unique_indices=True, indices_are_sorted=True)

        # Streams are never written: writing them back would copy those of all agents.
        changed = in_flight._replace(stream=()), mine._replace(stream=())
        return arrivals, jax.tree.map(put, *changed)._replace(stream=in_flight.stream), now

    def _among_all(self, in_flight, now, version, count, length: int):
        alone = self.messages == 1 and not self.rules.fails
        if alone and self.agents >= _MERGED_FROM and length > 1:
            return asynchronous.merged(self, in_flight, version, count, length)
        return self._step_by_step(in_flight, now, version, count, length)

    def _step_by_step(self, in_flight, now, version, count, length: int):
        if length == 1:
            in_flight, now, arrivals = self._step(jnp.uint32(0), in_flight, now, version)
            return jax.tree.map(lambda x: x[None], arrivals), in_flight, now
        # As many as there can be: how many are made is traced, and the rest means nothing.
        nothing = jax.tree.map(
            lambda x: jnp.zeros((length, *x.shape), x.dtype),
            jax.eval_shape(self._step, jnp.uint32(0), in_flight, now, version)[2],
        )

        def body(carry):
            place, in_flight, now, kept = carry
            in_flight, now, arrivals = self._step(place, in_flight, now, version)
            at = place.astype(jnp.int32)
            kept = jax.tree.map(
                lambda x, new: jax.lax.dynamic_update_index_in_dim(x, new, at, 0), kept, arrivals
            )
            return place + jnp.uint32(1), in_flight, now, kept

        first = (jnp.uint32(0), in_flight, now, nothing)
        _, in_flight, now, kept = jax.lax.while_loop(lambda carry: carry[0] < count, body, first)
        return kept, in_flight, now

    # Who is next ----------------------------------------------------------------------------------

    def _next(self, in_flight):
        """Whose messages make the next step.

        Returns:
          Members int32 [f, m] in order, the time [f], and whether each arrives, or None for all.
        """
        n, m = self.agents, self.messages
        end = in_flight.end
        if self.rules.fails:
            return self._next_of_those_who_come(in_flight)
        if m == n:
            return self._everybody(), jnp.max(end, axis=1), None
        if m > 1:
            members = _first(end, m)
            last = jnp.take_along_axis(end, members[:, -1:], axis=1)[:, 0]
            return jnp.sort(members, axis=1), last, None
        # The first of equal ends, as above.
        member = jnp.argmin(end, axis=1).astype(jnp.int32)[:, None]
        return member, jnp.take_along_axis(end, member, axis=1)[:, 0], None

    def _next_of_those_who_come(self, in_flight):
        """As `_next`, where some of the work in flight is going to be lost."""
        n, m = self.agents, self.messages
        end = in_flight.end
        # Work that is going to be lost brings no message, and stands behind all that does.
        coming = jnp.where(in_flight.failing, jnp.inf, end)
        count = jnp.sum(~in_flight.failing, axis=1, dtype=jnp.int32)
        if m == n:
            members, present = self._everybody(), ~in_flight.failing
            chosen = jnp.max(jnp.where(present, end, -jnp.inf), axis=1)
        else:
            members = jnp.sort(_first(coming, m), axis=1)
            present = jnp.take_along_axis(~in_flight.failing, members, axis=1)
            ends = jnp.take_along_axis(coming, members, axis=1)
            chosen = jnp.max(jnp.where(ends < jnp.inf, ends, -jnp.inf), axis=1)
        # Too few are coming: the last one at work, whose end is the latest, is waited for.
        last = jnp.maximum(chosen, jnp.max(end, axis=1))
        return members, jnp.where(count < m, last, chosen), present

    def _everybody(self):
        every = jnp.arange(self.agents, dtype=jnp.int32)
        return jnp.broadcast_to(every, (self.federations, self.agents))

    # A step ---------------------------------------------------------------------------------------

    def _step(self, place, in_flight, now, version):
        """One step of the server of every federation: `(in_flight, now, arrivals)`."""
        version = version + place
        before = ()
        if self.rules.fails:
            in_flight, before, now = self._until_somebody_comes(in_flight, now, version)
        members, now, present = self._next(in_flight)
        take, put = self._access(members, present)

        staleness = version - take(in_flight.version)
        upload = take(in_flight.uploads)
        attempt = take(in_flight.attempts) if self.rules.fails else upload + jnp.uint32(1)
        then = jnp.broadcast_to(now[:, None], members.shape)
        end, failing, ready = work(
            self.rules,
            self.transfer,
            jax.tree.map(take, self.own),
            jax.tree.map(take, in_flight.stream),
            attempt,
            then,
        )
        arrived = jnp.ones_like(members, bool) if present is None else present
        waited = jnp.where(arrived, then - take(in_flight.end), 0)
        following = jnp.broadcast_to(version + jnp.uint32(1), members.shape)
        new = in_flight._replace(
            end=put(in_flight.end, end),
            version=put(in_flight.version, following),
            uploads=put(in_flight.uploads, upload + jnp.uint32(1)),
        )
        if not isinstance(in_flight.idle, tuple):
            new = new._replace(idle=put(in_flight.idle, take(in_flight.idle) + waited))
        after = ()
        if self.rules.fails:
            new = new._replace(
                attempts=put(in_flight.attempts, attempt + jnp.uint32(1)),
                failing=put(in_flight.failing, failing),
                ready=put(in_flight.ready, ready),
            )
            after = new.failing & (new.ready <= now[:, None])
            new = self._redispatched(new, after, now, version + jnp.uint32(1))
        arrivals = Arrivals(
            agent=members,
            present=present if self.rules.fails else (),
            upload=upload,
            staleness=staleness,
            time=now,
            returned_before=before,
            returned_after=after,
        )
        return new, now, arrivals

    def _access(self, members, present):
        """How to read and write leaves [f, n, ...] at `members` [f, m], but those not present."""
        everybody = self.messages == self.agents
        few = self.messages == 1 and self.agents < _FEW
        at = (self.rows, members)
        hit = members == jnp.arange(self.agents, dtype=jnp.int32)[None] if few else None

        def take(x):
            if everybody:
                return x
            if few:
                chosen = jnp.where(_as(hit, x), x, jnp.zeros_like(x))
                # One entry and zeros: a sum, yet exact; and of its dtype, which x64 would widen.
                return jnp.sum(chosen, axis=1, keepdims=True, dtype=x.dtype)
            return x[at]

        def put(x, new):
            new = new.astype(x.dtype)
            if present is not None:
                new = jnp.where(_as(present, new), new, take(x))
            if everybody:
                return new
            # Nobody arrives twice in a step, which spares XLA an order of writes.
            return jnp.where(hit, new, x) if few else x.at[at].set(new, unique_indices=True)

        return take, put

    # Failures -------------------------------------------------------------------------------------

    def _redispatched(self, in_flight, who, now, version):
        """With those who have returned at work again; what they last worked on is lost."""
        attempt = in_flight.attempts
        then = jnp.broadcast_to(now[:, None], attempt.shape)
        end, failing, ready = work(
            self.rules, self.transfer, self.own, in_flight.stream, attempt, then
        )
        one = who.astype(jnp.uint32)
        waited = in_flight.idle + jnp.where(who, then - in_flight.ready, 0)
        return in_flight._replace(
            end=jnp.where(who, end, in_flight.end),
            failing=jnp.where(who, failing, in_flight.failing),
            ready=jnp.where(who, ready, in_flight.ready),
            version=jnp.where(who, version, in_flight.version),
            attempts=attempt + one,
            lost=in_flight.lost + one,
            idle=waited,
        )

    def _until_somebody_comes(self, in_flight, now, version):
        """Where all work in flight is going to be lost, who is back begins once it is."""

        def nobody(in_flight):
            return jnp.all(in_flight.failing, axis=1)

        def body(carry):
            in_flight, returned, now = carry
            waiting = nobody(in_flight)
            # The server learns of a failure when it happens, not before.
            over = jnp.max(in_flight.end, axis=1)
            first = jnp.maximum(over, jnp.min(in_flight.ready, axis=1))
            now = jnp.where(waiting, jnp.maximum(now, first), now)
            who = waiting[:, None] & (in_flight.ready <= now[:, None])
            in_flight = self._redispatched(in_flight, who, now, version)
            return in_flight, returned + who.astype(jnp.uint32), now

        first = (in_flight, jnp.zeros(in_flight.failing.shape, jnp.uint32), now)
        # Again and again: who begins may fail once more before anybody arrives.
        return jax.lax.while_loop(lambda carry: jnp.any(nobody(carry[0])), body, first)


def _first(end, count: int):
    """The places of the smallest of each row [f, n], int32 [f, count], in order.

    Of equal ones the lower places come first. XLA for CPUs sorts a whole row where their values are
    asked for, too, which takes ten times as long.
    """
    return jax.lax.top_k(-end, count)[1]


def _as(mask, like):
    """A mask [f, m] with as many axes as what it chooses from."""
    return mask.reshape(*mask.shape, *(1,) * (like.ndim - mask.ndim))
