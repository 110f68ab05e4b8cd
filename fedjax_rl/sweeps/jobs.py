"""From federations to jobs: which run together, for how long, and with what bound to them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from fedjax_rl import backend, memory
from fedjax_rl.federation.algorithm import Algorithm
from fedjax_rl.federation.mesh import layout
from fedjax_rl.federation.state import Params
from fedjax_rl.saving.checkpoints import Machine
from fedjax_rl.sweeps import of_agents, packing
from fedjax_rl.sweeps.axes import identity
from fedjax_rl.sweeps.cells import Federation
from fedjax_rl.sweeps.programs import NEVER, Job, Recording
from fedjax_rl.sweeps.run import seen
from fedjax_rl.sweeps.run_arguments import Run
from fedjax_rl.sweeps.warned import warn

# On CPU, tables of this many agents stay in the cache; beyond, a second pack is faster.
AGENTS_PER_JOB = {"cpu": 8192}

# Rounds that repay a population of an algorithm's smallest share; of fewer it takes more agents.
SHORT = 100


class Simulated(NamedTuple):
    """A federation that is simulated, for the sake of one cell or of several.

    Attributes:
      first: the place of the first of its cells.
      period: of exchanges in steps; 1 where a round has one unit of time.
    """

    first: int
    period: int


class Part(NamedTuple):
    """Federations that are one population.

    Attributes:
      members: the federations.
      period: of all of them; None where they have several.
      metrics: what is measured of them.
    """

    members: list[Simulated]
    period: int | None
    metrics: tuple[str, ...]


class Place(NamedTuple):
    """Where the numbers of a cell are: which job, and which federation of it."""

    job: int
    federation: int


def recording_of(run: Run) -> Recording:
    """When a run is measured."""
    first, every = run.first_record, run.record_every
    return Recording(first, every, (run.num_steps - first) // every + 1)


def _simulated(federations: Sequence[Federation], length: int) -> tuple[list[Simulated], list[int]]:
    """The different ones of some federations, and which of these each one is.

    Raises:
      ValueError: agents who would never exchange, where that is a mistake.
    """
    out, unique, index, late = [], {}, [], set()
    for i, (cell, own) in enumerate(federations):
        period, alone = 1, cell.num_agents == 1
        if own.periodic:
            first = period = int(own.config.sync_period)
            # A federation of one never exchanges: cells that differ in the period are one run.
            period = int(NEVER) if alone else min(period, int(NEVER))
        else:
            first = None if own.first_exchange is None else own.first_exchange(own.config)
        if first is not None and first > length and not alone:
            if not own.periodic:
                raise ValueError(
                    f"sync_period is {int(own.config.sync_period)}; allowed: at most {length}, the "
                    f"{own.unit}s of the run, so that agents synchronise"
                )
            late.add(int(own.config.sync_period))
        apart = own.periodic or (alone and own.first_exchange is not None)
        rest = tuple(
            (n, identity(v))
            for n, v in cell.properties.items()
            if not (apart and n == "sync_period")
        )
        key = cell.algorithm, cell.num_agents, cell.seed, period, rest
        index.append(unique.setdefault(key, len(unique)))
        if index[-1] == len(out):
            out.append(Simulated(i, period))
    if late:
        warn(
            f"sync_period is {', '.join(map(str, sorted(late)))}, longer than the run of {length} "
            f"{federations[0].algorithm.unit}s: these federations never synchronise"
        )
    return out, index


def plan(
    federations: Sequence[Federation],
    length: int,
    metrics: Sequence[str],
    machine: Machine,
) -> tuple[list[Part], list[Place]]:
    """Splits federations into populations that share static properties, and a period if that pays.

    Args:
      federations: with their configurations.
      length: units of time of the run.
      metrics: names to record, of those configurations that have them.
      machine: how many populations at a time, the devices to spread the agents over, at most, and
        the bytes of each; those that are free now where it does not say.

    Returns:
      The populations, and for each federation its population and its place there.
    """
    simulated, index = _simulated(federations, length)
    # Static properties split first, and what can be measured.
    groups: dict = {}
    static: dict = {}
    for which, (i, period) in enumerate(simulated):
        own = federations[i].algorithm
        # Seeds share a configuration, and there are many of them.
        if id(own) not in static:
            static[id(own)] = own.static(own.config)
        # What is not recorded is not computed: XLA drops it, so that names shape a program.
        measured = tuple(name for name in metrics if name in own.metrics)
        large = of_agents.is_reduced(federations[i].cell.num_agents)
        key = federations[i].cell.algorithm, static[id(own)], large, measured
        groups.setdefault(key, {}).setdefault(period, []).append(which)
    parts: list[Part] = []
    places: dict[int, Place] = {}
    for (*_, measured), by_period in groups.items():
        sizes = {
            period: sum(federations[simulated[u].first].cell.num_agents for u in of_period)
            for period, of_period in by_period.items()
        }
        for periods in packing.join_periods(sizes) if len(sizes) > 1 else [list(sizes)]:
            members = [u for period in periods for u in by_period[period]]
            counts = [federations[simulated[u].first].cell.num_agents for u in members]
            first = federations[simulated[members[0]].first].algorithm
            # As if all groups were of this size: cores are shared by all of them.
            limit, most = _bounds(first, sum(counts) * len(groups), length, machine)
            for pack in packing.split(counts, limit, most):
                meshes = [range(len(pack))]
                if machine.devices > 1:
                    of_pack = [counts[place] for place in pack]
                    spread = _spread(first, machine)
                    meshes = packing.over_devices(of_pack, machine.devices, **spread)
                for within in meshes:
                    own = [members[pack[place]] for place in within]
                    places |= {u: Place(len(parts), f) for f, u in enumerate(own)}
                    period = periods[0] if len(periods) == 1 else None
                    parts.append(Part([simulated[u] for u in own], period, measured))
    return parts, [places[u] for u in index]


def most_in_population() -> int:
    """Agents of a population on one device, unless one federation alone has more."""
    return AGENTS_PER_JOB.get(backend.kind(), 2**20)


def _spread(algorithm: Algorithm, machine: Machine) -> dict:
    """What `layout` is to know of an algorithm: how many work at a time, and how many fit."""
    found = {}
    if algorithm.on_clock:
        found["working"] = algorithm.config.clock.rules.arrivals
    if algorithm.memory is not None:
        found["most"] = int(memory.most_agents(algorithm, machine.free) / (machine.peak or 1))
    return found


def _bounds(
    algorithm: Algorithm, agents: int, length: int, machine: Machine
) -> tuple[int, int | None]:
    """Most agents of a population, and those that repay one of their own if there are several."""
    cores, devices = max(machine.cores, 1), machine.devices
    limit = held = most_in_population() * devices
    if algorithm.memory is not None:
        # As many populations are in memory at a time as there are cores.
        room = memory.most_agents(algorithm, machine.free) * devices / (cores * (machine.peak or 1))
        held = max(1, min(limit, int(room)))
    # Steps are so short that what they cost a population outweighs its agents: fewer are better.
    if algorithm.periodic:
        return held, None
    share = algorithm.smallest_share
    if share > 1:
        # A population of another shape is compiled, which few rounds do not repay.
        share = math.ceil(share * max(1, SHORT / length))
    # Nothing waits within a round but the exchange: a share for every idle core.
    return held, min(held, max(math.ceil(agents / cores), share))


def jobs_of(
    federations: Sequence[Federation],
    metrics: Sequence[str],
    run: Run,
    machine: Machine,
) -> tuple[list[Job], list[Place]]:
    """The jobs of a plan, with everything bound.

    Args:
      federations: with their configurations.
      metrics: names to record.
      run: for how long, and how, settled.
      machine: what they are split for.

    Returns:
      The jobs, and for each federation its job and its place there.
    """
    recording = recording_of(run)
    parts, places = plan(federations, int(recording.times[-1]), metrics, machine)
    return [_job(part, federations, recording, run, machine) for part in parts], places


def _job(
    part: Part,
    federations: Sequence[Federation],
    recording: Recording,
    run: Run,
    machine: Machine,
) -> Job:
    """One population with its parameters."""
    own = [federations[one.first] for one in part.members]
    cells, first = [cell for cell, _ in own], own[0].algorithm
    # Over the devices of now, which need not be those that a run was split for.
    where = layout([cell.num_agents for cell in cells], run.devices, **_spread(first, machine))
    bound, known = [], {}
    for one, (cell, algorithm) in zip(part.members, own, strict=True):
        key = id(algorithm), cell.num_agents
        # One call for all seeds: it is dear, and what is the same object in all stays shared.
        if key not in known:
            known[key] = algorithm.parameters(algorithm.config, cell.num_agents)
        params = known[key]
        if part.period is None:
            federation = {**params.federation, "sync_period": np.uint32(one.period)}
            params = Params(params.agent, federation, params.shared)
        bound.append(params)
    params = where.bind(bound)
    if part.period is not None and first.periodic:
        # A scalar, by which a program knows that all exchange at the same time.
        params.shared["sync_period"] = jax.numpy.uint32(part.period)
    federation, member = where.agents()
    job = Job(
        first,
        where,
        params,
        # Unsigned: an int32 would not hold the upper half of the seeds.
        np.asarray([cell.seed for cell in cells], np.uint32)[federation],
        member,
        recording,
        part.metrics,
        run.chunk,
        recorded=of_agents.recorded(max(cell.num_agents for cell in cells), run.agents),
    )
    return job if run.stop is None else dataclasses.replace(job, stop=_stopper(run, job, cells))


def at_once(
    populations: Sequence[tuple[Algorithm, Sequence[int]]], workers: int, peak: float = 1.0
) -> int:
    """Populations that run at a time, fewer where memory would not hold so many.

    Args:
      populations: of each, a configuration and the agents of its federations.
      workers: at most.
      peak: as of `Machine`.

    Returns:
      Their number, at least 1.
    """
    there = memory.available(devices=1)
    needed = max(
        sum(one.memory(one.config, int(n))["total"] for n in sizes) if one.memory is not None else 0
        for one, sizes in populations
    )
    if there is not None and needed:
        workers = min(workers, int(there // (needed * peak)))
    return max(workers, 1)


def _stopper(run: Run, job: Job, cells):
    """The caller's stop rule in the caller's order of federations."""

    def view(name: str, x):
        found = seen(job, name, x)
        reduced = job.is_reduced and job.algorithm.metrics[name][0] == "agent"
        return of_agents.taken_apart(found)[0] if reduced else found

    def rule(times, records):
        return run.stop(times, {name: view(name, x) for name, x in records.items()}, cells)

    return rule
