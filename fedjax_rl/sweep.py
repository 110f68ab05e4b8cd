"""A grid of configurations -> populations -> chunks of rounds -> labelled results."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import threading
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import jax
import numpy as np
import xarray as xr

from fedjax_rl import arguments, fields, grid, memory, packing, results, signals
from fedjax_rl.checkpoints import Checkpoints, Machine, begun_on, check
from fedjax_rl.directory import held, place
from fedjax_rl.federation.algorithm import Algorithm
from fedjax_rl.federation.ledger import COLUMNS
from fedjax_rl.federation.mesh import layout
from fedjax_rl.fingerprint import fingerprint
from fedjax_rl.names import check_known
from fedjax_rl.run import MAX_STEPS, NEVER, Job, Outcome, Recording, execute_all

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


def sweep(
    algorithm: Algorithm,
    *,
    num_steps: int,
    num_agents: int | Sequence[int] = 1,
    seeds: int | Iterable[int] = 0,
    record_every: int | None = None,
    first_record: int | None = None,
    metrics: Sequence[str] | None = None,
    devices: int = 1,
    workers: int | None = None,
    chunk: int | None = None,
    stop: Callable | None = None,
    checkpoints: str | os.PathLike | Callable | None = None,
    progress: Callable[[int, int], None] | None = None,
    watch: Callable[[dict[str, float]], None] | None = None,
    **properties,
) -> xr.Dataset:
    """Every combination of the given values, as one array program.

    A list sweeps; anything else is one value. `frl.by_agents(f)` follows `num_agents` and becomes
    a coordinate along it. Values that are arrays per agent are given inside a list, or through
    `algorithm.replace`.

    Args:
      algorithm: such as `fedq(mdp)`; its own properties hold where none is given.
      num_steps: T, local steps of every agent.
      num_agents: N, one or several.
      seeds: one or several; agent i of a federation draws the stream of (seed, i) whatever the
        rest of the sweep.
      record_every: steps between records; about 100 records by default.
      first_record: steps before the first record; `record_every` by default.
      metrics: names to record; those per federation by default.
      devices: how many to spread the agents over.
      workers: jobs at a time; on CPU one per core by default.
      chunk: records between two returns to the host.
      stop: `(times [t], {metric: [t, F or F, N]}, cells) -> bool [F]`, called between chunks with
        the records of the chunk for these cells, and after a resume with those of each chunk
        before: ends a population early when true for all of its federations; the records not made
        are NaN.
      checkpoints: directory for checkpoints; a second call with the same arguments, or with more
        `num_steps` and the same recording, goes on to the same bits, whatever the cores or the
        free memory are by then. Arguments that change the numbers are refused by name. A function
        that returns the directory is called once the arguments are found good. Ctrl-C, SIGTERM
        and SIGHUP save before they end the process.
      progress: called between chunks with what is done and what there is in all, in agent-steps
        (in steps of servers where time counts these).
      watch: called between chunks with the mean over federations of each metric, as last recorded,
        and of each of the ledger's totals.
      **properties: of the algorithm, lists to sweep.

    Returns:
      A Dataset with a dimension per list, then `seed` where several were given, and `time` (steps
      at each record), `agent` for metrics per agent (NaN past N); the ledger's totals; `diverged`,
      true where a metric became non-finite; `phase`, steps since the last exchange at each record.

    Raises:
      ValueError: naming the argument, its value and what is allowed, before anything compiles.
    """
    arguments.check_algorithm(algorithm)
    counts = grid.axis(algorithm, "num_agents", num_agents)
    axes = {} if counts is None else {"num_agents": [arguments.num_agents(n) for n in counts]}
    follow, fixed = {}, {}
    for name, value in properties.items():
        check_known(name, algorithm.properties, f"property of {algorithm.name}")
        values = grid.axis(algorithm, name, value)
        if values is not None:
            axes[name] = values
        elif isinstance(value, fields.ByAgents):
            follow[name] = value
        else:
            fixed[name] = value
    seeds = arguments.seeds(seeds)
    if isinstance(seeds, list):
        axes["seed"] = seeds
    arguments.check_axes(axes)
    counts = axes["num_agents"] if "num_agents" in axes else [arguments.num_agents(num_agents)]
    followed = {
        name: {n: algorithm.evaluated(name, value, n) for n in counts}
        for name, value in follow.items()
    }
    cells = []
    for values in itertools.product(*axes.values()):
        at = dict(zip(axes, values, strict=True))
        n = at.pop("num_agents", counts[0])
        seed = at.pop("seed", seeds)
        cells.append(Cell(n, seed, {**at, **{name: own[n] for name, own in followed.items()}}))
    # All at once, with values that are swept: some are only allowed beside others.
    algorithm = algorithm.replace(**fixed, **cells[0].properties)
    flat = run_cells(
        algorithm,
        cells,
        num_steps=num_steps,
        record_every=record_every,
        first_record=first_record,
        metrics=metrics,
        devices=devices,
        workers=workers,
        chunk=chunk,
        stop=stop,
        checkpoints=checkpoints,
        progress=progress,
        watch=watch,
    )
    return _unstack(flat, axes, followed)


def run_cells(
    algorithm: Algorithm,
    cells: Sequence[Cell],
    *,
    num_steps: int,
    record_every: int | None = None,
    first_record: int | None = None,
    metrics: Sequence[str] | None = None,
    devices: int = 1,
    workers: int | None = None,
    chunk: int | None = None,
    stop: Callable | None = None,
    checkpoints: str | os.PathLike | Callable | None = None,
    progress: Callable[[int, int], None] | None = None,
    watch: Callable[[dict[str, float]], None] | None = None,
) -> xr.Dataset:
    """Any list of federations, not necessarily a product; see `sweep` for the arguments.

    Returns:
      A Dataset with the dimension `cell` in the order given, and every property that differs as a
      coordinate along it.
    """
    arguments.check_algorithm(algorithm)
    cells = [Cell(*own) for own in arguments.cells(cells)]
    devices, workers, chunk = arguments.run(
        devices=devices,
        workers=workers,
        chunk=chunk,
        stop=stop,
        checkpoints=checkpoints,
        progress=progress,
        watch=watch,
    )
    recording = _recording(num_steps, record_every, first_record)
    variants = _variants(algorithm, cells, int(recording.times[-1]))
    grid.same_unit(variants, [cell.properties for cell in cells])
    known = grid.metrics_of(variants)
    if metrics is None:
        metrics = tuple(name for name, (side, _) in known.items() if side == "federation")
    else:
        metrics = arguments.metrics(metrics, known, algorithm.name)
    on_cpu = jax.default_backend() == "cpu" and devices == 1
    cores = (workers or os.cpu_count() or 1) if on_cpu else 1
    machine = Machine(cores, memory.available(devices=1))

    def split(machine: Machine):
        rest = (recording, tuple(metrics), devices, chunk, stop)
        return _jobs(variants, cells, *rest, machine.cores, machine.free)

    def describe(jobs) -> dict:
        return fingerprint(algorithm, cells, recording, metrics, devices, stop, jobs)

    jobs, places = split(machine)
    with contextlib.ExitStack() as stack:
        saved = None
        if checkpoints is not None:
            jobs, places, saved = _resumed(
                stack, checkpoints, machine, (jobs, places), split, describe, recording.count
            )
        total = sum(recording.times[-1] * job.side_by_side for job in jobs)
        report, lock, done = progress, threading.Lock(), [0]

        def advanced(steps: int) -> None:
            with lock:
                done[0] += steps
                if report is not None:
                    report(done[0], int(total))

        workers = _at_once(jobs, min(len(jobs), cores) if workers is None else workers)
        outcomes, compiling, running = execute_all(
            jobs, workers=workers, checkpoints=saved, progress=advanced, watch=watch
        )
    dataset = _collect(variants, cells, recording, metrics, jobs, places, outcomes)
    dataset.attrs["configuration"] = json.dumps(algorithm.describe(algorithm.config))
    dataset.attrs["seconds"] = json.dumps({"compile": compiling, "run": running})
    return dataset


def _resumed(stack, checkpoints, machine, made, split, describe, count):
    """The jobs of a run as it was begun in a directory, which is ours until `stack` closes.

    Args:
      stack: gets what is to be closed.
      checkpoints: the directory, or a function that returns it.
      machine: this one.
      made: the jobs as this machine would split them, and the places of the cells.
      split: `Machine -> (jobs, places)`.
      describe: `jobs -> fingerprint`.
      count: records that are made.

    Returns:
      The jobs, the places and one `Checkpoints` per job.
    """
    jobs, places = made
    described = describe(jobs)
    root = place(arguments.directory(checkpoints))
    root.mkdir(parents=True, exist_ok=True)
    stack.enter_context(signals.saving(root))
    stack.enter_context(held(root))
    if (begun := begun_on(root, machine)) != machine:
        machine, (jobs, places) = begun, split(begun)
        described = describe(jobs)
    check(root, described, count)
    saved = [Checkpoints(root / f"job-{i:04d}") for i in range(len(jobs))]
    for own in saved:
        stack.callback(own.close)
        own.label = {
            "fingerprint": described,
            "machine": machine._asdict(),
            "made_with": {"versions": results.versions(), "device": results.device()},
        }
    return jobs, places, saved


def _recording(num_steps, record_every, first_record) -> Recording:
    num_steps = arguments.count("num_steps", num_steps, high=MAX_STEPS)
    every = max(1, num_steps // 100) if record_every is None else record_every
    every = arguments.count("record_every", every, high=num_steps, of="num_steps ")
    first = every if first_record is None else first_record
    first = arguments.count("first_record", first, high=num_steps, of="num_steps ")
    return Recording(first, every, (num_steps - first) // every + 1)


def _variants(algorithm: Algorithm, cells: Sequence[Cell], length: int) -> list[Algorithm]:
    """The configuration of each federation, for so many units of time; equal ones are one."""
    made: dict = {}

    def variant(cell: Cell) -> Algorithm:
        key = tuple((n, grid.identity(v)) for n, v in cell.properties.items())
        if key not in made:
            made[key] = algorithm.replace(**cell.properties) if key else algorithm
            fields.check_schedules(made[key].config, (0, length // 2, length - 1))
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
            stacklevel=6,
        )
    return runs, index


def _jobs(variants, cells, recording, metrics, devices, chunk, stop, cores=1, free=None):
    """Splits cells into jobs that share static properties, and a period where that pays.

    Returns:
      The jobs, and for each cell its job and its place among the federations of that.
    """
    runs, index = _runs(variants, cells, int(recording.times[-1]))
    # Static properties split first, and what can be measured.
    groups: dict = {}
    for u, (i, period) in enumerate(runs):
        own = variants[i]
        key = own.static(own.config), tuple(name for name in metrics if name in own.metrics)
        groups.setdefault(key, {}).setdefault(period, []).append(u)
    jobs, places = [], {}
    limit = AGENTS_PER_JOB.get(jax.default_backend(), 2**20) * devices
    for (_, measured), by_period in groups.items():
        sizes = {p: sum(cells[runs[u].cell].num_agents for u in us) for p, us in by_period.items()}
        for periods in packing.join_periods(sizes):
            members = [u for period in periods for u in by_period[period]]
            first, most, held = variants[runs[members[0]].cell], None, limit
            if first.memory is not None:
                held = max(
                    1, min(limit, memory.most_agents(first, free) * devices // max(cores, 1))
                )
            if not first.periodic:
                # Nothing waits within a round but the exchange: a share for every idle core.
                share = sum(sizes[p] for p in periods) * len(groups) / max(cores, 1)
                most = min(held, max(math.ceil(share), first.smallest_share))
            for part, used in _parts(members, runs, cells, held, most, devices, first):
                each = [runs[u] for u in part]
                places |= {u: (len(jobs), f) for f, u in enumerate(part)}
                period = periods[0] if len(periods) == 1 else None
                jobs.append(
                    _job(each, period, variants, cells, recording, measured, used, chunk, stop)
                )
    return jobs, [places[u] for u in index]


def _parts(members, runs, cells, held, most, devices, first):
    """The runs of each job, and over how many devices it goes."""
    for pack in packing.split([cells[runs[u].cell].num_agents for u in members], held, most):
        own = [members[place] for place in pack]
        sizes = [cells[runs[u].cell].num_agents for u in own]
        for part, used in packing.over_devices(sizes, devices, spread=not first.on_clock):
            yield [own[place] for place in part], used


def _job(each, period, variants, cells, recording, metrics, devices, chunk, stop) -> Job:
    """One population; `period` is None where its federations have several."""
    own, first = [cells[run.cell] for run in each], variants[each[0].cell]
    plan = layout([cell.num_agents for cell in own], devices, spread=not first.on_clock)
    bound = []
    for run, cell in zip(each, own, strict=True):
        variant = variants[run.cell]
        params = variant.parameters(variant.config, cell.num_agents)
        if period is None:
            federation = {**params.federation, "sync_period": np.uint32(run.period)}
            params = params.__class__(params.agent, federation, params.shared)
        bound.append(params)
    params = plan.bind(bound)
    if period is not None and first.periodic:
        params.shared["sync_period"] = jax.numpy.uint32(period)
    federation, member = plan.agents()
    return Job(
        first,
        plan,
        params,
        np.asarray([cell.seed for cell in own], np.uint32)[federation],
        member,
        recording,
        metrics,
        chunk or int(np.clip(recording.count // 50, 1, 256)),
        _stopper(stop, plan, own, first) if stop else None,
    )


def _at_once(jobs: Sequence[Job], workers: int) -> int:
    """Jobs that run at a time, fewer where memory would not hold so many."""
    there = memory.available(devices=1)
    needed = max(
        sum(
            federations * job.algorithm.memory(job.algorithm.config, n)["total"]
            for federations, n in job.layout.population.groups
        )
        if job.algorithm.memory is not None
        else 0
        for job in jobs
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
            else _by_member(x, federation, member, len(own))
            for n, x in records.items()
        }
        return stop(times, view, own)

    return rule


def _by_member(x, federation, member, count) -> np.ndarray:
    """[t, A] of a layout -> [t, F, N], NaN past the size of a federation."""
    out = np.full((len(x), count, member.max() + 1), np.nan, np.result_type(x, np.float32))
    out[:, federation, member] = x
    return out


def _collect(variants, cells, recording, metrics, jobs, places, outcomes) -> xr.Dataset:
    """The outcomes as one Dataset in the caller's order of cells."""
    records = max(outcome.count for outcome in outcomes)
    most = max(cell.num_agents for cell in cells)
    known, first, data = grid.metrics_of(variants), variants[0], {}
    for name in metrics:
        side = known[name][0]
        shape = (len(cells), records) if side == "federation" else (len(cells), most, records)
        kinds = (o.metrics[name].dtype for o in outcomes if name in o.metrics)
        data[name] = np.full(shape, np.nan, np.result_type(np.float32, *kinds))
    ledger = {name: np.zeros(len(cells), np.int64) for name in COLUMNS}
    diverged = np.zeros(len(cells), bool)
    views = [_view(job, outcome) for job, outcome in zip(jobs, outcomes, strict=True)]
    for c, (job, f) in enumerate(places):
        per, totals, finite = views[job]
        for name, x in per.items():
            if known[name][0] == "federation":
                data[name][c, : len(x)] = x[:, f]
            else:
                n = cells[c].num_agents
                data[name][c, :n, : len(x)] = x[:, f, :n].T
        for name in COLUMNS:
            ledger[name][c] = totals[name][f]
        diverged[c] = not finite[f]
    dims = {"federation": ("cell", "time"), "agent": ("cell", "agent", "time")}
    variables = {}
    for name in metrics:
        side, text = known[name]
        variables[name] = (dims[side], data[name], {"long_name": text})
    variables |= {name: ("cell", ledger[name]) for name in COLUMNS}
    variables["diverged"] = ("cell", diverged)
    times = recording.times[:records]
    if first.periodic:  # as all others are, whose time has the same unit
        periods = [
            int(NEVER) if cell.num_agents == 1 else int(own.config.sync_period)
            for cell, own in zip(cells, variants, strict=True)
        ]
        variables["phase"] = (
            ("cell", "time"),
            times[None] % np.asarray(periods, np.int64)[:, None],
            {"long_name": "steps since the last exchange"},
        )
    whose = "the server" if first.on_clock else "one agent"
    coordinates = {
        "time": ("time", times, {"long_name": f"{first.unit}s of {whose}"}),
        "num_agents": ("cell", [cell.num_agents for cell in cells]),
        "seed": ("cell", [cell.seed for cell in cells]),
    }
    for name in sorted({n for cell in cells for n in cell.properties}):
        values = [
            cell.properties[name] if name in cell.properties else getattr(own.config, name)
            for cell, own in zip(cells, variants, strict=True)
        ]
        coordinates[name] = ("cell", grid.labels(values))
    attributes = {
        "algorithm": first.name,
        "versions": json.dumps(results.versions()),
        "device": results.device(),
        "fedjax_rl": results.versions().get("fedjax_rl", "source"),
    }
    return xr.Dataset(variables, coordinates, attributes)


def _view(job: Job, outcome: Outcome):
    """Metrics [t, F] and [t, F, N], ledger totals [F] and which are finite, as the job's cells."""
    federation, member = job.layout.agents()
    count = federation.max() + 1
    where = job.layout.first_places(count)
    per = {
        n: x[:, where]
        if job.algorithm.metrics[n][0] == "federation"
        else _by_member(x, federation, member, count)
        for n, x in outcome.metrics.items()
    }
    totals = {n: x[where] for n, x in outcome.state.ledger.totals().items()}
    return per, totals, outcome.finite[where]


def _unstack(flat: xr.Dataset, axes: dict, followed: dict) -> xr.Dataset:
    """From one dimension of cells to a dimension per swept name."""
    sizes = {name: len(values) for name, values in axes.items()}
    coordinates = {name: grid.labels(values) for name, values in axes.items()}
    out = {}
    for name, variable in flat.data_vars.items():
        shape = (*sizes.values(), *variable.shape[1:])
        out[name] = ((*sizes, *variable.dims[1:]), variable.values.reshape(shape), variable.attrs)
    coordinates["time"] = flat["time"].variable
    for name, own in followed.items():
        values = grid.labels(list(own.values()))
        coordinates[name] = ("num_agents", values) if "num_agents" in axes else values[0]
    for name in ("num_agents", "seed"):
        if name not in axes:
            coordinates[name] = flat[name].values[0]
    return xr.Dataset(out, coordinates, flat.attrs)
