"""From federations to jobs: which run together, for how long, and with what bound to them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from fedjax_rl import fields, memory
from fedjax_rl.federation.algorithm import Algorithm
from fedjax_rl.federation.mesh import layout
from fedjax_rl.sweeps import arguments, grid, packing
from fedjax_rl.sweeps.programs import NEVER, Job, Recording
from fedjax_rl.sweeps.run import by_member

# On CPU, tables of this many agents stay in the cache; beyond, a second pack is faster.
AGENTS_PER_JOB = {"cpu": 8192}


class Cell(NamedTuple):
    """One federation of a grid.

    Attributes:
      num_agents: N.
      seed: of its agents.
      properties: what it changes in the algorithm.
    """

    num_agents: int
    seed: int
    properties: dict


def recording_of(num_steps, record_every, first_record) -> Recording:
    """When a run is measured, about a hundred times unless somebody says how often.

    Raises:
      ValueError: naming the argument, its value and what is allowed.
    """
    num_steps = arguments.count("num_steps", num_steps, high=arguments.LIMIT)
    every = max(1, num_steps // 100) if record_every is None else record_every
    every = arguments.count("record_every", every, high=num_steps, of="num_steps ")
    first = every if first_record is None else first_record
    first = arguments.count("first_record", first, high=num_steps, of="num_steps ")
    return Recording(first, every, (num_steps - first) // every + 1)


def variants_of(algorithm: Algorithm, cells: Sequence[Cell], length: int) -> list[Algorithm]:
    """The configuration of each federation, for so many units of time; equal ones are one."""
    made: dict = {}

    def variant(cell: Cell) -> Algorithm:
        key = tuple((n, grid.identity(v)) for n, v in cell.properties.items())
        if key not in made:
            made[key] = algorithm.replace(**cell.properties) if key else algorithm
            fields.check_schedules(made[key].config, length)
        at = (cell.num_agents, *key)
        if at not in made:
            made[at] = made[key].at(cell.num_agents)
        return made[at]

    return [variant(cell) for cell in cells]


class _Run(NamedTuple):
    """A federation that is simulated, for the sake of one cell or of several.

    Attributes:
      cell: the first of its cells.
      period: of exchanges in steps; 1 where a round has one unit of time.
    """

    cell: int
    period: int


def _runs(variants, cells, length: int) -> tuple[list[_Run], list[int]]:
    """The different federations of some cells, and which one each cell is.

    Raises:
      ValueError: agents who would never exchange, where that is a mistake.
    """
    runs, unique, index, late = [], {}, [], set()
    for i, (cell, own) in enumerate(zip(cells, variants, strict=True)):
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
            (n, grid.identity(v))
            for n, v in cell.properties.items()
            if not (apart and n == "sync_period")
        )
        index.append(unique.setdefault((cell.num_agents, cell.seed, period, rest), len(unique)))
        if index[-1] == len(runs):
            runs.append(_Run(i, period))
    if late:
        warnings.warn(
            f"sync_period is {', '.join(map(str, sorted(late)))}, longer than the run of {length} "
            f"{variants[0].unit}s: these federations never synchronise",
            stacklevel=7,
        )
    return runs, index


class Part(NamedTuple):
    """Federations that are one population.

    Attributes:
      runs: the federations.
      period: of all of them; None where they have several.
      metrics: what is measured of them.
      devices: over which it goes.
    """

    runs: list[_Run]
    period: int | None
    metrics: tuple[str, ...]
    devices: int


def plan(variants, cells, length, metrics, devices, cores=1, free=None):
    """Splits cells into populations that share static properties, and a period where that pays.

    Args:
      variants: the configuration of each cell.
      cells: the federations.
      length: units of time of the run.
      metrics: names to record, of those configurations that have them.
      devices: to spread the agents over, at most.
      cores: populations at a time.
      free: bytes of a device; those that are free now by default.

    Returns:
      The populations, and for each cell its population and its place among the runs of that.
    """
    runs, index = _runs(variants, cells, length)
    # Static properties split first, and what can be measured.
    groups: dict = {}
    for u, (i, period) in enumerate(runs):
        own = variants[i]
        key = own.static(own.config), tuple(name for name in metrics if name in own.metrics)
        groups.setdefault(key, {}).setdefault(period, []).append(u)
    parts, places = [], {}
    limit = most_in_population() * devices
    for (_, measured), by_period in groups.items():
        sizes = {p: sum(cells[runs[u].cell].num_agents for u in us) for p, us in by_period.items()}
        for periods in packing.join_periods(sizes):
            members = [u for period in periods for u in by_period[period]]
            first, most, held = variants[runs[members[0]].cell], None, limit
            if first.memory is not None:
                room = memory.most_agents(first, free) * devices // max(cores, 1)
                held = max(1, min(limit, room))
            if not first.periodic:
                # Nothing waits within a round but the exchange: a share for every idle core.
                share = sum(sizes[p] for p in periods) * len(groups) / max(cores, 1)
                most = min(held, max(math.ceil(share), first.smallest_share))
            counts = [cells[runs[u].cell].num_agents for u in members]
            for pack in packing.split(counts, held, most):
                of_pack = [counts[place] for place in pack]
                spread = not first.on_clock
                for within, used in packing.over_devices(of_pack, devices, spread):
                    own = [members[pack[place]] for place in within]
                    places |= {u: (len(parts), f) for f, u in enumerate(own)}
                    period = periods[0] if len(periods) == 1 else None
                    parts.append(Part([runs[u] for u in own], period, measured, used))
    return parts, [places[u] for u in index]


def most_in_population() -> int:
    """Agents of a population on one device, unless one federation alone has more."""
    return AGENTS_PER_JOB.get(jax.default_backend(), 2**20)


def jobs_of(variants, cells, recording, metrics, devices, chunk, stop, cores=1, free=None):
    """The jobs of a plan, with everything bound; arguments as of `plan` and `run_cells`.

    Returns:
      The jobs, and for each cell its job and its place among the federations of that.
    """
    length = int(recording.times[-1])
    parts, places = plan(variants, cells, length, metrics, devices, cores, free)
    return [_job(part, variants, cells, recording, chunk, stop) for part in parts], places


def _job(part: Part, variants, cells, recording, chunk, stop) -> Job:
    """One population with its parameters."""
    own, first = [cells[run.cell] for run in part.runs], variants[part.runs[0].cell]
    where = layout([cell.num_agents for cell in own], part.devices, spread=not first.on_clock)
    bound = []
    for run, cell in zip(part.runs, own, strict=True):
        variant = variants[run.cell]
        params = variant.parameters(variant.config, cell.num_agents)
        if part.period is None:
            federation = {**params.federation, "sync_period": np.uint32(run.period)}
            params = params.__class__(params.agent, federation, params.shared)
        bound.append(params)
    params = where.bind(bound)
    if part.period is not None and first.periodic:
        params.shared["sync_period"] = jax.numpy.uint32(part.period)
    federation, member = where.agents()
    return Job(
        first,
        where,
        params,
        np.asarray([cell.seed for cell in own], np.uint32)[federation],
        member,
        recording,
        part.metrics,
        chunk or int(np.clip(recording.count // 50, 1, 256)),
        _stopper(stop, where, own, first) if stop else None,
    )


def at_once(populations: Sequence[tuple[Algorithm, Sequence[int]]], workers: int) -> int:
    """Populations that run at a time, fewer where memory would not hold so many.

    Args:
      populations: of each, a configuration and the agents of its federations.
      workers: at most.
    """
    there = memory.available(devices=1)
    needed = max(
        sum(one.memory(one.config, int(n))["total"] for n in sizes) if one.memory is not None else 0
        for one, sizes in populations
    )
    if there is not None and needed:
        workers = min(workers, int(there // needed))
    return max(workers, 1)


def _stopper(stop, plan, own, algorithm):
    """The caller's stop rule in the caller's order of federations."""
    where = plan.first_places(len(own))
    federation, member = plan.agents()

    def rule(times, records):
        view = {
            n: x[:, where]
            if algorithm.metrics[n][0] == "federation"
            else by_member(x, federation, member, len(own))
            for n, x in records.items()
        }
        return stop(times, view, own)

    return rule
