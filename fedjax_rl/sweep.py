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

from fedjax_rl import fields, results, signals
from fedjax_rl.checkpoints import Checkpoints, Machine, begun_on, check
from fedjax_rl.directory import held, place
from fedjax_rl.federation.algorithm import Algorithm
from fedjax_rl.federation.clock import Clock
from fedjax_rl.federation.ledger import COLUMNS
from fedjax_rl.federation.mesh import layout
from fedjax_rl.federation.uplink import Uplink
from fedjax_rl.fingerprint import fingerprint
from fedjax_rl.memory import available, most_agents
from fedjax_rl.names import check_known
from fedjax_rl.run import MAX_STEPS, NEVER, Job, Outcome, Recording, execute_all

# On CPU, tables of this many agents stay in the cache; beyond, a second pack is faster.
AGENTS_PER_JOB = {"cpu": 8192}
# Measured on one CPU core: what a step costs a population, and what it costs an agent. They only
# decide which periods share a population, never a number.
STEP_OVERHEAD, AGENT_STEP = 5e-6, 3e-9


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
    axes, follow = {}, {}
    for name, value in {"num_agents": num_agents, **properties}.items():
        if name != "num_agents":
            check_known(name, algorithm.properties, f"property of {algorithm.name}")
        if isinstance(value, list | tuple | range | np.ndarray) and name != "num_agents":
            axes[name] = list(value)
        elif name == "num_agents" and not np.isscalar(value):
            axes[name] = [_count(n) for n in value]
        elif isinstance(value, fields.ByAgents):
            follow[name] = value
        elif name != "num_agents":
            algorithm = algorithm.replace(**{name: value})
    several = not np.isscalar(seeds)
    if several:
        axes["seed"] = [int(s) for s in seeds]
    for name, values in axes.items():
        if not values:
            raise ValueError(f"{name} is an empty list; allowed: at least one value")
    counts = axes.get("num_agents", [num_agents])
    followed = {
        k: {n: algorithm.evaluated(k, f, _count(n)) for n in counts} for k, f in follow.items()
    }
    combinations = list(itertools.product(*axes.values()))
    cells = []
    for values in combinations:
        at = dict(zip(axes, values, strict=True))
        n = at.pop("num_agents", num_agents)
        seed = at.pop("seed", None if several else int(seeds))
        n = _count(n)
        given = {name: own[n] for name, own in followed.items()}
        cells.append(Cell(n, seed, {**at, **given}))
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


def _count(n) -> int:
    if isinstance(n, bool) or int(n) != n or n < 1:
        raise ValueError(f"num_agents is {n}; allowed: whole numbers of at least 1")
    return int(n)


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
    if not 1 <= num_steps <= MAX_STEPS:
        raise ValueError(f"num_steps is {num_steps}; allowed: 1 to {MAX_STEPS}")
    for name, value in (("chunk", chunk), ("workers", workers)):
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}; allowed: at least 1")
    recording = _recording(num_steps, record_every, first_record)
    known = algorithm.metrics
    metrics = tuple(m for m in known if known[m][0] == "federation") if metrics is None else metrics
    for name in metrics:
        check_known(name, known, f"metric of {algorithm.name}")
    on_cpu = jax.default_backend() == "cpu" and devices == 1
    cores = (workers or os.cpu_count() or 1) if on_cpu else 1
    machine = Machine(cores, available(devices=1))

    def split(machine: Machine):
        rest = (recording, tuple(metrics), devices, chunk, stop)
        return _jobs(algorithm, cells, *rest, machine.cores, machine.free)

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

        if workers is None:
            workers = min(len(jobs), cores)
        outcomes, compiling, running = execute_all(
            jobs, workers=max(workers, 1), checkpoints=saved, progress=advanced, watch=watch
        )
    dataset = _collect(algorithm, cells, recording, metrics, jobs, places, outcomes)
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
    root = place(checkpoints() if callable(checkpoints) else checkpoints)
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
    every = max(1, num_steps // 100) if record_every is None else record_every
    if not 1 <= every <= num_steps:
        raise ValueError(f"record_every is {every}; allowed: 1 to num_steps {num_steps}")
    first = every if first_record is None else first_record
    if not 1 <= first <= num_steps:
        raise ValueError(f"first_record is {first}; allowed: 1 to num_steps {num_steps}")
    return Recording(int(first), int(every), (num_steps - first) // every + 1)


def _jobs(algorithm, cells, recording, metrics, devices, chunk, stop, cores=1, free=None):
    """Splits cells into jobs that share static properties, and a period where that pays."""
    if not cells:
        raise ValueError("cells is empty; allowed: at least one federation")
    length = int(recording.times[-1])
    made: dict = {}

    def variant(cell: Cell) -> Algorithm:
        key = tuple((n, _identity(v)) for n, v in cell.properties.items())
        if key not in made:
            made[key] = algorithm.replace(**cell.properties) if key else algorithm
            fields.check_schedules(made[key].config, (0, length // 2, length - 1))
        at = (cell.num_agents, *key)
        if at not in made:
            made[at] = made[key].at(cell.num_agents)
        return made[at]

    variants = [variant(cell) for cell in cells]
    periods, unique, index, late = [], {}, [], set()
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
                    f"{algorithm.unit}s of the run, so that agents synchronise"
                )
            late.add(int(own.config.sync_period))
        apart = own.periodic or (alone and own.first_exchange is not None)
        rest = tuple(
            (n, _identity(v))
            for n, v in cell.properties.items()
            if not (apart and n == "sync_period")
        )
        index.append(unique.setdefault((cell.num_agents, cell.seed, period, rest), len(unique)))
        if index[-1] == len(periods):
            periods.append((period, i))
    if late:
        warnings.warn(
            f"sync_period is {', '.join(map(str, sorted(late)))}, longer than the run of {length} "
            f"{algorithm.unit}s: these federations never synchronise",
            stacklevel=4,
        )
    # Static properties split first.
    groups: dict = {}
    for u, (period, i) in enumerate(periods):
        groups.setdefault(variants[i].static(variants[i].config), {}).setdefault(period, []).append(
            (u, i)
        )
    jobs, places = [], [None] * len(periods)
    limit = AGENTS_PER_JOB.get(jax.default_backend(), 2**20) * devices
    for by_period in groups.values():
        for period, pairs in _packs(by_period, cells):
            most, own = None, variants[pairs[0][1]]
            held = limit
            if own.memory is not None:
                held = max(1, min(limit, most_agents(own, free) * devices // max(cores, 1)))
            if not algorithm.periodic:
                # Nothing waits within a round but the exchange: a share for every idle core.
                share = sum(cells[i].num_agents for _, i in pairs) * len(groups) / max(cores, 1)
                most = min(held, max(math.ceil(share), algorithm.smallest_share))
            for part in _split([(cells[i].num_agents, u, i) for u, i in pairs], held, most):
                plan = layout([n for n, _, _ in part], devices)
                each = []
                for n, u, i in part:
                    params = variants[i].parameters(variants[i].config, n)
                    if period is None:
                        own = np.uint32(periods[u][0])
                        params = params.__class__(
                            params.agent, {**params.federation, "sync_period": own}, params.shared
                        )
                    each.append(params)
                params = plan.bind(each)
                if period is not None and algorithm.periodic:
                    params.shared["sync_period"] = jax.numpy.uint32(period)
                federation, member = plan.agents()
                seeds = np.asarray([cells[i].seed for _, _, i in part])[federation]
                for f, (_, u, _) in enumerate(part):
                    # Repeats that fill a layout come later and are ignored.
                    if places[u] is None:
                        places[u] = (len(jobs), f)
                own = [cells[i] for _, _, i in part]
                jobs.append(
                    Job(
                        variants[part[0][2]],
                        plan,
                        params,
                        seeds,
                        member,
                        recording,
                        metrics,
                        chunk or int(np.clip(recording.count // 50, 1, 256)),
                        _stopper(stop, plan, own, metrics, algorithm) if stop else None,
                    )
                )
    return jobs, [places[u] for u in index]


def _packs(by_period: dict, cells: Sequence[Cell]) -> list[tuple]:
    """Groups periods into populations: (period, federations), the period None for several.

    A population costs a fixed time per step, and one with several periods stops at every multiple
    of each. Periods are joined, longest first, while that is estimated to be cheaper.
    """

    def cost(periods, agents) -> float:
        """Seconds per step; an exchange costs about two steps."""
        rate = min(1.0, sum(1 / p for p in periods))
        return STEP_OVERHEAD * (1 + 2 * rate) + agents * AGENT_STEP * (1 + 2 * rate)

    packs: list = []
    for period in sorted(by_period, reverse=True):
        pairs = by_period[period]
        agents = sum(cells[i].num_agents for _, i in pairs)
        if packs:
            periods, others, count = packs[-1]
            joined = cost([*periods, period], count + agents)
            if joined < cost(periods, count) + cost([period], agents):
                packs[-1] = ([*periods, period], others + pairs, count + agents)
                continue
        packs.append(([period], pairs, agents))
    return [(p[0] if len(p) == 1 else None, pairs) for p, pairs, _ in packs]


def _split(part: list, limit: int, most: int | None = None) -> list[list]:
    """Cuts federations into packs of at most about `limit` agents, of the same shape.

    Packs of one shape share a compilation, so each takes an equal share of every size; where that
    leaves a remainder the last federation is repeated. There are more packs than needed, but none
    of fewer agents than about `most`, where that makes each of them smaller.
    """
    total = sum(n for n, _, _ in part)
    ranked = sorted(part, key=lambda entry: entry[0])
    sizes = [list(run) for _, run in itertools.groupby(ranked, key=lambda entry: entry[0])]

    def largest(packs: int) -> int:
        return sum(math.ceil(len(run) / packs) * run[0][0] for run in sizes)

    least = math.ceil(total / limit)
    packs = min(range(least, max(least, math.ceil(total / (most or limit))) + 1), key=largest)
    if packs == 1:
        return [part]
    out = []
    for pack in range(packs):
        own = []
        for run in sizes:
            share = math.ceil(len(run) / packs)
            mine = run[pack * share : (pack + 1) * share]
            own += mine + [run[-1]] * (share - len(mine))
        out.append(own)
    return out


def _stopper(stop, plan, own, metrics, algorithm):
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


def _identity(value):
    """Something hashable that tells values of a property apart."""
    if isinstance(value, int | float | str | bool | type(None)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return (value.shape, value.tobytes())
    if isinstance(value, Uplink):
        return (value.static, *sorted((n, _identity(v)) for n, v in value.parameters.items()))
    return id(value)


def _collect(algorithm, cells, recording, metrics, jobs, places, outcomes) -> xr.Dataset:
    """The outcomes as one Dataset in the caller's order of cells."""
    records = max(o.metrics[m].shape[0] for o in outcomes for m in metrics) if metrics else 0
    most = max(cell.num_agents for cell in cells)
    data: dict = {}
    for name in metrics:
        side = algorithm.metrics[name][0]
        shape = (len(cells), records) if side == "federation" else (len(cells), most, records)
        kinds = (outcome.metrics[name].dtype for outcome in outcomes)
        data[name] = np.full(shape, np.nan, np.result_type(np.float32, *kinds))
    ledger = {name: np.zeros(len(cells), np.int64) for name in COLUMNS}
    views = [_view(algorithm, job, outcome) for job, outcome in zip(jobs, outcomes, strict=True)]
    for c, (job, f) in enumerate(places):
        per, totals = views[job]
        for name in metrics:
            x = per[name]
            if algorithm.metrics[name][0] == "federation":
                data[name][c, : len(x)] = x[:, f]
            else:
                n = cells[c].num_agents
                data[name][c, :n, : len(x)] = x[:, f, :n].T
        for name in COLUMNS:
            ledger[name][c] = totals[name][f]
    diverged = np.zeros(len(cells), bool)
    for c, (job, _) in enumerate(places):
        for name in metrics:
            count = outcomes[job].metrics[name].shape[0]
            own = data[name][c]
            own = own[: cells[c].num_agents] if own.ndim == 2 else own
            diverged[c] |= not np.isfinite(own[..., :count]).all()
    dims = {"federation": ("cell", "time"), "agent": ("cell", "agent", "time")}
    variables = {}
    for name in metrics:
        side, text = algorithm.metrics[name]
        variables[name] = (dims[side], data[name], {"long_name": text})
    variables |= {name: ("cell", ledger[name]) for name in COLUMNS}
    variables["diverged"] = ("cell", diverged)
    times = recording.times[:records]
    if algorithm.periodic:
        numbers = [_plain_period(algorithm, cell) for cell in cells]
        variables["phase"] = (
            ("cell", "time"),
            times[None] % np.asarray(numbers, np.int64)[:, None],
            {"long_name": "steps since the last exchange"},
        )
    coordinates = {
        "time": ("time", times, {"long_name": f"{algorithm.unit}s of one agent"}),
        "num_agents": ("cell", [cell.num_agents for cell in cells]),
        "seed": ("cell", [cell.seed for cell in cells]),
    }
    names = {n for cell in cells for n in cell.properties}
    for name in sorted(names):
        coordinates[name] = ("cell", _labels([cell.properties.get(name) for cell in cells]))
    attributes = {
        "algorithm": algorithm.name,
        "configuration": json.dumps(algorithm.describe(algorithm.config)),
        "versions": json.dumps(results.versions()),
        "device": results.device(),
        "fedjax_rl": results.versions().get("fedjax_rl", "source"),
    }
    return xr.Dataset(variables, coordinates, attributes)


def _plain_period(algorithm, cell) -> int:
    period = cell.properties.get("sync_period", algorithm.config.sync_period)
    return int(NEVER) if cell.num_agents == 1 else int(period)


def _view(algorithm, job: Job, outcome: Outcome):
    """Metrics [t, F] and [t, F, N] and ledger totals [F] in the order of the job's cells."""
    federation, member = job.layout.agents()
    count = federation.max() + 1
    where = job.layout.first_places(count)
    per = {
        n: x[:, where]
        if algorithm.metrics[n][0] == "federation"
        else _by_member(x, federation, member, count)
        for n, x in outcome.metrics.items()
    }
    totals = outcome.state.ledger.totals()
    return per, {n: x[where] for n, x in totals.items()}


def _labels(values: list) -> np.ndarray:
    """Values as a coordinate: numbers and words as they are, anything else by its place."""
    if all(isinstance(v, str | Uplink | Clock) for v in values):
        return np.asarray([str(v) for v in values])
    try:
        labels = np.asarray(values, dtype=np.float64)
        if labels.ndim == 1:
            whole = all(isinstance(v, int | np.integer) for v in values)
            return labels.astype(np.int64) if whole else labels
    except (TypeError, ValueError):
        pass
    places: dict = {}
    return np.asarray([places.setdefault(_identity(v), len(places)) for v in values])


def _unstack(flat: xr.Dataset, axes: dict, followed: dict) -> xr.Dataset:
    """From one dimension of cells to a dimension per swept name."""
    sizes = {name: len(values) for name, values in axes.items()}
    coordinates = {name: _labels(values) for name, values in axes.items()}
    out = {}
    for name, variable in flat.data_vars.items():
        shape = (*sizes.values(), *variable.shape[1:])
        out[name] = ((*sizes, *variable.dims[1:]), variable.values.reshape(shape), variable.attrs)
    coordinates["time"] = flat["time"].variable
    for name, own in followed.items():
        values = _labels(list(own.values()))
        coordinates[name] = ("num_agents", values) if "num_agents" in axes else values[0]
    for name in ("num_agents", "seed"):
        if name not in axes:
            coordinates[name] = flat[name].values[0]
    return xr.Dataset(out, coordinates, flat.attrs)
