"""The timetable without a learner."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl import fields, streams
from fedjax_rl.federation.clock.config import Clock
from fedjax_rl.federation.clock.timing import Timing
from fedjax_rl.federation.population import population


class Timetable(NamedTuple):
    """The first E steps of the servers of F federations of N agents.

    Attributes:
      time: [F, E], of every step.
      agent: int32 [F, E, m], members who arrive, in order.
      present: bool [F, E, m], whether there is such a member; false where too many have failed.
      staleness: int64 [F, E, m], steps since the member was dispatched its model; -1 where none
        is present.
      idle: [F, N], time that each agent has waited for others until the last step.
      uploads: int64 [F, N], messages of each agent.
      lost: int64 [F], uploads lost.
    """

    time: np.ndarray
    agent: np.ndarray
    present: np.ndarray
    staleness: np.ndarray
    idle: np.ndarray
    uploads: np.ndarray
    lost: np.ndarray


_SEEDS = fields.anything(
    "different whole numbers from 0 to 4294967295, at least one",
    lambda seeds: (
        isinstance(seeds, list | tuple | range | np.ndarray)
        and len(seeds) > 0
        and all(fields.is_whole(seed) and 0 <= seed < 2**32 for seed in seeds)
        and len({int(seed) for seed in seeds}) == len(seeds)
    ),
)


def timetable(
    clock: Clock, *, num_agents: int, num_steps: int, seeds=(0,), transfer: int = 0
) -> Timetable:
    """Who arrives when, without anything being learned: the same order as in a run.

    Example:
      >>> import fedjax_rl as frl
      >>> clock = frl.Clock("asynchronous", compute_time=[1.0, 2.5])
      >>> order = frl.timetable(clock, num_agents=2, num_steps=4)
      >>> order.agent[0, :, 0].tolist(), order.time[0].tolist()
      ([0, 0, 1, 0], [1.0, 2.0, 2.5, 3.0])

    Args:
      clock: how long agents take, and whom the server waits for.
      num_agents: N.
      num_steps: E, steps of the server.
      seeds: one federation each.
      transfer: bytes of a message up and its answer down, where the bandwidth is limited.

    Returns:
      The `Timetable`.

    Raises:
      ValueError: naming the argument, its value and what is allowed.
    """
    fields.check("clock", clock, fields.instance(Clock, text="an frl.Clock"))
    fields.check("num_agents", num_agents, fields.COUNT)
    fields.check("num_steps", num_steps, fields.COUNT)
    fields.check("transfer", transfer, fields.whole(0))
    seeds = [seeds] if fields.is_whole(seeds) else seeds
    fields.check("seeds", seeds, _SEEDS)
    seeds, transfer = np.asarray([int(seed) for seed in seeds]), int(transfer)
    num_agents, num_steps = int(num_agents), int(num_steps)
    everybody = population([num_agents] * len(seeds))
    timing = Timing(clock.rules, everybody, transfer)
    one = clock.parameters(num_agents)
    own = {name: jnp.asarray(np.concatenate([x] * len(seeds)), float) for name, x in one.items()}
    keys = streams.agent_keys(np.repeat(seeds, num_agents), everybody.member_of)
    length = min(max(timing.block, 1024), num_steps)
    first, more = _programs(timing, length)
    in_flight, elapsed = first(own, keys)
    parts, done = [], 0
    while done < num_steps:
        count = min(length, num_steps - done)
        arrivals, start, in_flight, elapsed = more(
            own, in_flight, elapsed, jnp.uint32(done), jnp.uint32(count)
        )
        # Times within a block are of the run's precision; on the host their sum need not be.
        begun = np.asarray(start, np.float64)
        kept = jax.tree.map(lambda x, count=count: np.asarray(x)[:count], arrivals)
        parts.append((kept, begun + np.asarray(kept.time, np.float64)))
        done += count
    f, m = len(seeds), timing.counts[0]

    def joined(name: str) -> np.ndarray:
        rows = np.concatenate([getattr(part, name) for part, _ in parts])
        return np.moveaxis(rows.reshape(num_steps, f, m), 0, 1)

    agent = joined("agent") - (np.arange(f) * num_agents)[:, None, None]
    present = joined("present") if timing.rules.fails else np.ones(agent.shape, bool)
    measured = timing.measure(in_flight, elapsed)
    return Timetable(
        time=np.concatenate([time for _, time in parts]).T,
        agent=agent.astype(np.int32),
        present=present,
        staleness=np.where(present, joined("staleness").astype(np.int64), -1),
        idle=np.asarray(measured["idle_of_agent"]).reshape(f, num_agents),
        uploads=np.asarray(in_flight.uploads, np.int64).reshape(f, num_agents),
        lost=np.asarray(measured["lost"]).astype(np.int64),
    )


@functools.lru_cache(maxsize=64)
def _programs(timing: Timing, length: int) -> tuple[Callable, Callable]:
    """Compiled: the start, and the next steps, with the time of the block's start."""

    @jax.jit
    def more(own, in_flight, elapsed, version, count):
        arrivals, in_flight, elapsed = timing.plan(own, in_flight, elapsed, version, count, length)
        return arrivals, elapsed.before, in_flight, elapsed

    return jax.jit(timing.start), more
