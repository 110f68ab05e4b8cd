"""A grid of configurations -> populations -> chunks of rounds -> labelled results."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import threading
import warnings
from collections.abc import Callable, Iterable, Sequence

import jax
import xarray as xr

from fedjax_rl import fields, memory
from fedjax_rl.federation.algorithm import Algorithm
from fedjax_rl.names import check_known
from fedjax_rl.saving import results, signals
from fedjax_rl.saving.checkpoints import Checkpoints, Machine, begun_on, check
from fedjax_rl.saving.directory import held, place
from fedjax_rl.saving.fingerprint import fingerprint
from fedjax_rl.sweeps import arguments, grid
from fedjax_rl.sweeps.collect import collected, unstacked
from fedjax_rl.sweeps.jobs import Cell, at_once, jobs_of, recording_of, variants_of
from fedjax_rl.sweeps.run import execute_all


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

    A list sweeps; anything else is one value, such as a tuple where values are tuples
    (`hidden=(8, 4)`). `frl.each([...])` sweeps whatever is in it. `frl.by_agents(f)` follows
    `num_agents` and becomes a coordinate along it. Values that are arrays per agent are given
    inside a list, or through `algorithm.replace`.

    Args:
      algorithm: such as `fedq(mdp)`; its own properties hold where none is given.
      num_steps: T, local steps of every agent.
      num_agents: N, one or several.
      seeds: one or several, different whole numbers from 0 to 2^32 - 1; agent i of a federation
        draws the stream of (seed, i) whatever the rest of the sweep.
      record_every: steps between records; about 100 records by default.
      first_record: steps before the first record; `record_every` by default.
      metrics: names to record, of any of the configurations; those per federation by default.
      devices: how many to spread the agents over, at most: none does another one's work again.
      workers: jobs at a time, at most, where memory holds so many; on CPU one per core by default.
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
      at each record), `agent` for metrics per agent (NaN past N). A metric that a configuration
      does not have is NaN there. Beside them the ledger's totals; `diverged`, true where something
      that servers or agents hold is not finite at the end, or has no finite square, whatever is
      recorded; `phase`, steps since the last exchange at each record, where time counts steps.
      Labels of an axis are its numbers, the names of clocks, uplinks, tasks and tuples, or else
      places from 0 on.

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
    return unstacked(flat, axes, followed)


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
    grid.check_different(cells)
    devices, workers, chunk = arguments.run(
        devices=devices,
        workers=workers,
        chunk=chunk,
        stop=stop,
        checkpoints=checkpoints,
        progress=progress,
        watch=watch,
    )
    recording = recording_of(num_steps, record_every, first_record)
    variants = variants_of(algorithm, cells, int(recording.times[-1]))
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
        return jobs_of(variants, cells, *rest, machine.cores, machine.free)

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

        held_by = [(job.algorithm, job.layout.population.sizes) for job in jobs]
        workers = at_once(held_by, min(len(jobs), cores) if workers is None else workers)
        outcomes, compiling, running = execute_all(
            jobs, workers=workers, checkpoints=saved, progress=advanced, watch=watch
        )
    dataset = collected(variants, cells, recording, metrics, jobs, places, outcomes)
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
    try:
        described = describe(jobs)
    except ValueError as error:
        raise ValueError(f"{error}; without checkpoints it may be anything") from error
    root = place(arguments.directory(checkpoints))
    if root.exists() and not root.is_dir():
        raise ValueError(f"checkpoints is {root}, which is a file; allowed: a directory")
    root.mkdir(parents=True, exist_ok=True)
    stack.enter_context(signals.saving(root))
    stack.enter_context(held(root))
    if (begun := begun_on(root, machine)) != machine:
        machine, (jobs, places) = begun, split(begun)
        described = describe(jobs)
    # Not how many cores: the split into jobs is kept.
    made_with = {**results.versions(), "device": results.device().partition(", ")[0]}
    if changed := check(root, described, count, made_with):
        warnings.warn(
            f"checkpoints in {root} were begun with others: {'; '.join(changed)}: the last digits "
            "may differ",
            stacklevel=4,
        )
    saved = [Checkpoints(root / f"job-{i:04d}") for i in range(len(jobs))]
    for own in saved:
        stack.callback(own.close)
        own.label = {
            "fingerprint": described,
            "machine": machine._asdict(),
            "made_with": made_with,
        }
    return jobs, places, saved
