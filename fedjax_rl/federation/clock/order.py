"""Who arrives when: the order of arrivals, which depends on nothing that is learned."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl import streams
from fedjax_rl.federation.clock.config import Rules
from fedjax_rl.federation.clock.statistics import AGES, Elapsed, sum_of_all, wide
from fedjax_rl.federation.population import Population

# Words of an agent's stream for one attempt: how long it takes, when it would fail, when the agent
# would return.
_WORDS = 3

# From this many agents on the next arrival is looked for in blocks of them.
_IN_BLOCKS = 128


class Underway(NamedTuple):
    """What every agent is at; leaves [A, ...]. Times count from that of the last block's start.

    Attributes:
      end: when its work under way ends, with a message unless it fails.
      handed: uint32, steps that the server had made when it was handed its model.
      uploads: uint32, messages that have arrived.
      idle: time it has waited for others; () where nobody waits.
      stream: uint32 [2], data of the key of its times; () where they are constant.
      attempts: uint32, how often it has begun; () where nobody fails.
      failing: bool, whether the work under way is going to be lost; () likewise.
      ready: when it will be back; () likewise.
      lost: uint32, uploads lost before the work under way; () likewise.
    """

    end: jax.Array
    handed: jax.Array
    uploads: jax.Array
    idle: Any
    stream: Any
    attempts: Any
    failing: Any
    ready: Any
    lost: Any


class Entries(NamedTuple):
    """The next steps of all servers, [E, ...] each; W = m agents of every federation.

    Attributes:
      agent: int32 [E, W], places on the agent axis, those of a federation in order.
      present: bool [E, W], whether the agent arrives at all; () where nobody fails.
      turn: uint32 [E, W], messages of the agent before this one.
      age: uint32 [E, W].
      time: [E, F], since the start of the block.
      early: uint32 [E, A], how often each is handed the model before the step; () where nobody
        fails.
      late: bool [E, A], who has not arrived and yet is handed the model after it; () likewise.
    """

    agent: jax.Array
    present: Any
    turn: jax.Array
    age: jax.Array
    time: jax.Array
    early: Any
    late: Any


class Timing(NamedTuple):
    """A clock with a population; static.

    Attributes:
      rules: of the clock.
      population: who belongs to whom.
      transfer: bytes of a message up and its answer down.
    """

    rules: Rules
    population: Population
    transfer: int = 0

    @property
    def counts(self) -> tuple[int, ...]:
        """m, by group of federations."""
        return tuple(self.rules.arrivals(n) for _, n in self.population.groups)

    @property
    def workers(self) -> Population:
        """Those who arrive at a step, as a population."""
        groups = zip(self.population.groups, self.counts, strict=True)
        return Population(tuple((federations, m) for (federations, _), m in groups))

    @property
    def random(self) -> bool:
        """Whether times have to be drawn."""
        return self.rules.fails or self.rules.distribution in ("log_normal", "exponential")

    @property
    def waits(self) -> bool:
        """Whether anybody ever waits."""
        return self.rules.fails or any(m > 1 for m in self.counts)

    @property
    def block(self) -> int:
        """Steps that are planned at once."""
        agents = self.population.num_agents
        if self.rules.fails:  # with a mask of all agents for each of them
            return int(np.clip(2**20 // agents, 1, 64))
        # What a block costs every agent is spread over so many arrivals.
        return int(np.clip(max(n for _, n in self.population.groups) // 16, 64, 4096))

    def start(self, own: dict, keys) -> tuple[Underway, Elapsed]:
        """Everybody begins with the first model.

        Args:
          own: `Clock.parameters` of all agents, leaves [A, ...].
          keys: typed keys [A].
        """
        agents, federations = self.population.num_agents, self.population.num_federations
        nothing = jnp.zeros(agents, jnp.uint32)
        stream = ()
        if self.random:
            stream = jax.random.key_data(streams.keys_of(keys, streams.Engine.CLOCK))
        end, failing, ready = self._begin(own, stream, nothing, jnp.zeros(agents))
        fails = self.rules.fails
        none = jnp.zeros(federations, jnp.uint32)
        zero = jnp.zeros(federations)
        underway = Underway(
            end=end,
            handed=nothing,
            uploads=nothing,
            idle=jnp.zeros(agents) if self.waits else (),
            stream=stream,
            attempts=nothing + jnp.uint32(1) if fails else (),
            failing=failing,
            ready=ready,
            lost=nothing if fails else (),
        )
        ages = jnp.zeros((federations, len(AGES)), jnp.uint32)
        return underway, Elapsed(zero, zero, zero, zero, none, none, none, ages, ages)

    def _begin(self, own: dict, stream, attempt, now):
        """Ends of work that begins at times `now`: `(end, failing, ready)`, () where nobody fails.

        Args:
          own: parameters of these agents, leaves of the shape of `now`.
          stream: uint32 [..., 2], or ().
          attempt: uint32, how often each has begun before.
          now: when.
        """
        kind = self.rules.distribution
        dtype = now.dtype

        def word(place: int):
            counter = attempt * jnp.uint32(_WORDS) + jnp.uint32(place)
            return streams.threefry((stream[..., 0], stream[..., 1]), counter)

        def exponential(place: int, mean):
            return -jnp.log1p(-streams.uniform(word(place), dtype)) * mean

        if kind == "trace":
            length = own["time"].shape[-1]
            place = (attempt % jnp.uint32(length)).astype(jnp.int32)
            time = jnp.take_along_axis(own["time"], place[..., None], axis=-1)[..., 0]
        elif kind == "exponential":
            time = exponential(0, own["time"])
        elif kind == "log_normal":
            sigma = own["sigma"]
            time = own["time"] * jnp.exp(sigma * (streams.normal(word(0), dtype) - sigma / 2))
        else:
            time = own["time"]
        time = time + 2 * own["latency"]
        if self.rules.limited:
            time = time + self.transfer / own["bandwidth"]
        end = now + time.astype(dtype)
        if not self.rules.fails:
            return end, (), ()
        broken = now + exponential(1, own["failure_time"]).astype(dtype)
        failing = broken < end
        end = jnp.where(failing, broken, end)
        return end, failing, end + exponential(2, own["return_time"]).astype(dtype)

    def plan(
        self, own: dict, underway: Underway, elapsed: Elapsed, version, count, length: int
    ) -> tuple[Entries, Underway, Elapsed]:
        """The next `count` steps of every server.

        Args:
          own: `Clock.parameters` of all agents, leaves [A, ...].
          underway: where the agents are.
          elapsed: what has passed.
          version: uint32 scalar, steps that the servers have made.
          count: steps to plan, may be traced, at most `length`.
          length: E, entries to return; those from `count` on mean nothing.
        """
        # Times begin anew with every block: those of long runs would lose their last digits.
        shift = self.population.spread(elapsed.now)
        underway = underway._replace(end=underway.end - shift)
        if self.rules.fails:
            underway = underway._replace(ready=underway.ready - shift)
        more = elapsed.now - elapsed.remainder
        total = elapsed.before + more
        remainder = (total - elapsed.before) - more
        elapsed = elapsed._replace(
            now=jnp.zeros_like(elapsed.now), before=total, remainder=remainder
        )
        entries, agents, federations = [], [], []
        at = place = 0
        for (f, n), m in zip(self.population.groups, self.counts, strict=True):

            def group(x, f=f, n=n, at=at):
                return x[at : at + f * n].reshape(f, n, *x.shape[1:])

            one = _Group(self, f, n, m, at, jax.tree.map(group, own))
            here = jax.tree.map(lambda x, f=f, p=place: x[p : p + f], elapsed)
            planned, mine, here = one.plan(
                jax.tree.map(group, underway), here, version, count, length
            )
            entries.append(planned)
            agents.append(jax.tree.map(lambda x, f=f, n=n: x.reshape(f * n, *x.shape[2:]), mine))
            federations.append(here)
            at, place = at + f * n, place + f

        def join(parts, axis: int):
            if len(parts) == 1:
                return parts[0]
            return jax.tree.map(lambda *x: jnp.concatenate(x, axis=axis), *parts)

        return join(entries, 1), join(agents, 0), join(federations, 0)

    def measure(self, underway: Underway, elapsed: Elapsed) -> dict:
        """The metrics of `METRICS`."""
        population = self.population
        time = elapsed.before + elapsed.now
        idle = underway.idle if self.waits else jnp.zeros_like(underway.end)
        share = population.mean(idle) / jnp.where(time > 0, time, 1)
        lost = jnp.zeros_like(time)
        if self.rules.fails:
            over = underway.failing & (underway.end <= population.spread(elapsed.now))
            lost = population.sum(underway.lost + over.astype(jnp.uint32)).astype(time.dtype)
        counts = wide(elapsed.ages, elapsed.wraps, time.dtype)
        messages = jnp.maximum(jnp.sum(counts, axis=1), 1)
        ages = {f"age_{low}": counts[:, n] for n, low in enumerate(AGES)}
        return {
            "simulated_time": time,
            "staleness": elapsed.staleness,
            "staleness_mean": wide(elapsed.total, elapsed.carries, time.dtype) / messages,
            "staleness_max": elapsed.largest.astype(time.dtype),
            "idle": share,
            "lost": lost,
            **ages,
            "idle_of_agent": idle,
            "uploads_of_agent": underway.uploads.astype(time.dtype),
        }


class _Group(NamedTuple):
    """Federations of equal size; leaves [f, n, ...] of agents, [f, ...] of federations."""

    timing: Timing
    federations: int
    agents: int
    arrivals: int
    start: int
    own: dict

    @property
    def _fails(self) -> bool:
        return self.timing.rules.fails

    def plan(self, underway, elapsed, version, count, length: int):
        """As `Timing.plan`."""
        if self._size:
            entries, underway, now = self._one_by_one(underway, elapsed.now, version, count, length)
        else:
            entries, underway, now = self._step_by_step(
                underway, elapsed.now, version, count, length
            )
        return entries, underway, self._note(elapsed._replace(now=now), entries, count)

    def _step_by_step(self, underway, now, version, count, length: int):
        """Steps of all federations at a time."""
        if length == 1:
            underway, now, entry = self._step(jnp.uint32(0), underway, now, version)
            return jax.tree.map(lambda x: x[None], entry), underway, now
        entries = jax.tree.map(
            lambda x: jnp.zeros((length, *x.shape), x.dtype),
            jax.eval_shape(self._step, jnp.uint32(0), underway, now, version)[2],
        )

        def body(carry):
            place, underway, now, entries = carry
            underway, now, entry = self._step(place, underway, now, version)
            entries = jax.tree.map(lambda kept, new: _put(kept, new, place), entries, entry)
            return place + jnp.uint32(1), underway, now, entries

        first = (jnp.uint32(0), underway, now, entries)
        _, underway, now, entries = jax.lax.while_loop(lambda carry: carry[0] < count, body, first)
        return entries, underway, now

    # One message after the other, of many agents --------------------------------------------------

    @property
    def _size(self) -> int:
        """Agents of a block, about the root of their number; 0 where all are looked through.

        With the earliest end of every block at hand the next arrival costs two searches of sqrt(n)
        instead of one of n. On accelerators searching is free, and loops are not.
        """
        n = self.agents
        if self.arrivals > 1 or self._fails or n < _IN_BLOCKS or jax.default_backend() != "cpu":
            return 0
        return 2 ** round(math.log2(n) / 2)

    def _one_by_one(self, underway, now, version, count, length: int):
        """Federation by federation, whose agents stay in the cache meanwhile."""
        n, size = self.agents, self._size

        def blocks(x, filler):
            return jnp.pad(x, (0, -n % size), constant_values=filler).reshape(-1, size)

        def federation(federation):
            own, underway, now = federation

            def body(carry):
                place, _, least, ends, handed, uploads, entries = carry
                block = jnp.argmin(least).astype(jnp.int32)
                # Read once and kept: reading again after writing would copy everything.
                rows = jax.lax.optimization_barrier(
                    [_at(x, block) for x in (ends, handed, uploads)]
                )
                inside = jnp.argmin(rows[0]).astype(jnp.int32)
                then, since, turn = (x[inside] for x in rows)
                agent = block * size + inside
                mine = jax.tree.map(lambda x: _at(x, agent), own)
                stream = _at(underway.stream, agent) if self.timing.random else ()
                end, _, _ = self.timing._begin(mine, stream, turn + jnp.uint32(1), then)
                step = version + place
                new = (end, step + jnp.uint32(1), turn + jnp.uint32(1))
                rows = [_put(row, value, inside) for row, value in zip(rows, new, strict=True)]
                ends, handed, uploads = (
                    _put(x, row, block)
                    for x, row in zip((ends, handed, uploads), rows, strict=True)
                )
                least = _put(least, jnp.min(rows[0]), block)
                entry = (agent, turn, step - since, then)
                entries = [_put(x, y, place) for x, y in zip(entries, entry, strict=True)]
                return place + jnp.uint32(1), then, least, ends, handed, uploads, entries

            ends = blocks(underway.end, jnp.inf)
            kept = [
                jnp.zeros(length, kind)
                for kind in (jnp.int32, jnp.uint32, jnp.uint32, underway.end.dtype)
            ]
            least = jnp.min(ends, axis=1)
            handed, uploads = blocks(underway.handed, 0), blocks(underway.uploads, 0)
            first = (jnp.uint32(0), now, least, ends, handed, uploads, kept)
            _, now, _, ends, handed, uploads, entries = jax.lax.while_loop(
                lambda carry: carry[0] < count, body, first
            )
            underway = underway._replace(
                end=ends.reshape(-1)[:n],
                handed=handed.reshape(-1)[:n],
                uploads=uploads.reshape(-1)[:n],
            )
            return entries, underway, now

        (agent, turn, age, time), underway, now = jax.lax.map(federation, (self.own, underway, now))
        start = self.start + n * jnp.arange(self.federations, dtype=jnp.int32)
        entries = Entries(agent.T + start[None], (), turn.T, age.T, time.T, (), ())
        return entries, underway, now

    # Who is next ----------------------------------------------------------------------------------

    def _next(self, underway):
        """Whose messages make the next step.

        Returns:
          Members int32 [f, m] in order, the time [f], and whether each arrives, or None for all.
        """
        n, m = self.agents, self.arrivals
        end = underway.end
        if self._fails:
            coming = jnp.where(underway.failing, jnp.inf, end)
            count = jnp.sum(~underway.failing, axis=1, dtype=jnp.int32)
            if m == n:
                members, present = self._everybody(), ~underway.failing
                chosen = jnp.max(jnp.where(present, end, -jnp.inf), axis=1)
            else:
                earliest, members = jax.lax.top_k(-coming, m)
                members = jnp.sort(members, axis=1)
                present = jnp.take_along_axis(~underway.failing, members, axis=1)
                chosen = -jnp.min(jnp.where(earliest > -jnp.inf, earliest, jnp.inf), axis=1)
            # Too few are coming: the last one at work, whose end is the latest, is waited for.
            last = jnp.maximum(chosen, jnp.max(end, axis=1))
            return members, jnp.where(count < m, last, chosen), present
        if m == n:
            return self._everybody(), jnp.max(end, axis=1), None
        if m > 1:
            earliest, members = jax.lax.top_k(-end, m)
            return jnp.sort(members, axis=1), -earliest[:, -1], None
        member = jnp.argmin(end, axis=1).astype(jnp.int32)[:, None]
        return member, jnp.take_along_axis(end, member, axis=1)[:, 0], None

    def _everybody(self):
        every = jnp.arange(self.agents, dtype=jnp.int32)
        return jnp.broadcast_to(every, (self.federations, self.agents))

    # A step ---------------------------------------------------------------------------------------

    def _step(self, place, underway, now, version):
        """One step of the server of every federation: `(underway, now, entry)`."""
        n, everybody = self.agents, self.arrivals == self.agents
        version = version + place
        early = ()
        if self._fails:
            underway, early, now = self._until_somebody_comes(underway, now, version)
        members, now, present = self._next(underway)
        rows = (jnp.arange(self.federations, dtype=jnp.int32)[:, None], members)

        # Of few agents a mask finds one sooner than an index.
        few = self.arrivals == 1 and n < _IN_BLOCKS
        hit = members == jnp.arange(n, dtype=jnp.int32)[None] if few else None

        def take(x):
            if everybody:
                return x
            if few:
                chosen = jnp.where(_as(hit, x), x, jnp.zeros_like(x))
                return jnp.sum(chosen, axis=1, keepdims=True, dtype=x.dtype)
            return x[rows]

        def put(x, new, chosen=present):
            new = new.astype(x.dtype)
            if chosen is not None:
                new = jnp.where(_as(chosen, new), new, take(x))
            if everybody:
                return new
            return jnp.where(hit, new, x) if few else x.at[rows].set(new, unique_indices=True)

        age = version - take(underway.handed)
        turn = take(underway.uploads)
        own = jax.tree.map(take, self.own)
        stream = take(underway.stream) if self.timing.random else ()
        attempt = take(underway.attempts) if self._fails else turn + jnp.uint32(1)
        then = jnp.broadcast_to(now[:, None], members.shape)
        end, failing, ready = self.timing._begin(own, stream, attempt, then)
        arrived = jnp.ones_like(members, bool) if present is None else present
        waited = jnp.where(arrived, then - take(underway.end), 0)
        new = underway._replace(
            end=put(underway.end, end),
            handed=put(underway.handed, jnp.broadcast_to(version + jnp.uint32(1), members.shape)),
            uploads=put(underway.uploads, turn + jnp.uint32(1)),
        )
        if self.timing.waits:
            new = new._replace(idle=put(underway.idle, take(underway.idle) + waited))
        late = ()
        if self._fails:
            new = new._replace(
                attempts=put(underway.attempts, attempt + jnp.uint32(1)),
                failing=put(underway.failing, failing),
                ready=put(underway.ready, ready),
            )
            late = new.failing & (new.ready <= now[:, None])
            new = self._again(new, late, now, version + jnp.uint32(1))
        entry = Entries(
            agent=(self.start + rows[0] * n + members).reshape(-1),
            present=present.reshape(-1) if self._fails else (),
            turn=turn.reshape(-1),
            age=age.reshape(-1),
            time=now,
            early=early.reshape(-1) if self._fails else (),
            late=late.reshape(-1) if self._fails else (),
        )
        return new, now, entry

    def _again(self, underway, who, now, version):
        """With those who are back at work; their last upload is lost."""
        attempt = underway.attempts
        then = jnp.broadcast_to(now[:, None], attempt.shape)
        end, failing, ready = self.timing._begin(self.own, underway.stream, attempt, then)
        one = who.astype(jnp.uint32)
        waited = underway.idle + jnp.where(who, then - underway.ready, 0)
        return underway._replace(
            end=jnp.where(who, end, underway.end),
            failing=jnp.where(who, failing, underway.failing),
            ready=jnp.where(who, ready, underway.ready),
            handed=jnp.where(who, version, underway.handed),
            attempts=attempt + one,
            lost=underway.lost + one,
            idle=waited,
        )

    def _until_somebody_comes(self, underway, now, version):
        """Where all work under way is going to be lost, who is back begins once it is."""

        def nobody(underway):
            return jnp.all(underway.failing, axis=1)

        def body(carry):
            underway, early, now = carry
            waiting = nobody(underway)
            # The server learns of a failure when it happens, not before.
            over = jnp.max(underway.end, axis=1)
            first = jnp.maximum(over, jnp.min(underway.ready, axis=1))
            now = jnp.where(waiting, jnp.maximum(now, first), now)
            who = waiting[:, None] & (underway.ready <= now[:, None])
            return self._again(underway, who, now, version), early + who.astype(jnp.uint32), now

        first = (underway, jnp.zeros(underway.failing.shape, jnp.uint32), now)
        return jax.lax.while_loop(lambda carry: jnp.any(nobody(carry[0])), body, first)

    def _note(self, elapsed, entries, count):
        """What has passed after the first `count` entries."""
        shape = (entries.age.shape[0], self.federations, self.arrivals)
        age, dtype = entries.age.reshape(shape), elapsed.now.dtype
        arrived = (jnp.arange(shape[0], dtype=jnp.uint32) < count)[:, None, None]
        arrived = jnp.broadcast_to(arrived, shape)
        if self._fails:
            arrived = arrived & entries.present.reshape(shape)
        age = jnp.where(arrived, age, jnp.uint32(0))
        upto = [
            jnp.sum(arrived & (age >= low), axis=(0, 2), dtype=jnp.uint32)
            for low in map(jnp.uint32, AGES)
        ]
        more = jnp.stack(
            [a - b for a, b in zip(upto, [*upto[1:], jnp.zeros_like(upto[0])], strict=True)], axis=1
        )
        last = (count - jnp.uint32(1)).astype(jnp.int32)
        messages = jnp.sum(_at(arrived, last), axis=1, dtype=jnp.uint32).astype(dtype)
        latest = jnp.sum(_at(age, last).astype(dtype), axis=1) / jnp.maximum(messages, 1)
        ages = elapsed.ages + more
        total, carries = sum_of_all(age, (0, 2))
        total = elapsed.total + total
        carries = elapsed.carries + carries + (total < elapsed.total).astype(jnp.uint32)
        return elapsed._replace(
            staleness=latest,
            total=total,
            carries=carries,
            largest=jnp.maximum(elapsed.largest, jnp.max(age, axis=(0, 2))),
            ages=ages,
            wraps=elapsed.wraps + (ages < more).astype(jnp.uint32),
        )


def _at(x, place):
    """The entry at a place of the first axis."""
    return jax.lax.dynamic_index_in_dim(x, place, keepdims=False)


def _put(x, value, place):
    """With another entry at a place of the first axis."""
    place = place.astype(jnp.int32)
    return jax.lax.dynamic_update_index_in_dim(x, value.astype(x.dtype), place, 0)


def _as(mask, like):
    """A mask [f, m] with as many axes as what it chooses from."""
    return mask.reshape(*mask.shape, *(1,) * (like.ndim - mask.ndim))
