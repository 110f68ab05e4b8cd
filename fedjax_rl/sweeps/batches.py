"""Batches of cells, each split into jobs by itself, and where the state of each is kept.

Numbers may depend, in their last digits, on how cells are split into jobs, and so on what else is
in a sweep and on the machine. Cells are therefore split in batches: each algorithm by itself, as
if it were alone, and those that come later by themselves. A batch that is gone on with keeps the
split it was begun with.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import json
import os
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import xarray as xr

from fedjax_rl import hosts, memory
from fedjax_rl.federation.algorithm import Algorithm
from fedjax_rl.federation.debugging import debugging
from fedjax_rl.saving import results, signals
from fedjax_rl.saving.checkpoints import Checkpoints, Machine, check, labels
from fedjax_rl.saving.directory import held, place
from fedjax_rl.saving.fingerprint import fingerprint
from fedjax_rl.sweeps import arguments, room, run_arguments
from fedjax_rl.sweeps.agreement import agree
from fedjax_rl.sweeps.cache import keep_programs
from fedjax_rl.sweeps.cells import Cell, Federation, federations, metrics_of
from fedjax_rl.sweeps.collect import collected
from fedjax_rl.sweeps.jobs import Place, at_once, jobs_of, recording_of
from fedjax_rl.sweeps.programs import Job
from fedjax_rl.sweeps.progress import counted
from fedjax_rl.sweeps.run import Outcome, execute_all
from fedjax_rl.sweeps.run_arguments import Run
from fedjax_rl.sweeps.warned import warn

# Times that a sweep is cut anew, as what is measured depends a little on how it is cut.
_CUTS = 3


class Begun(NamedTuple):
    """What a batch is, and what there is of it.

    Attributes:
      algorithm: its label.
      seeds: of its cells.
      machine: that it is split for.
      outcomes: what has come of its jobs so far, where that is in memory.
      root: the directory of its checkpoints, where it has one.
    """

    algorithm: str | None
    seeds: tuple[int, ...]
    machine: Machine
    outcomes: Sequence[Outcome] | None = None
    root: pathlib.Path | None = None


@dataclasses.dataclass
class Batch:
    """Cells of one algorithm that are split into jobs together.

    Attributes:
      begun: what there is of it.
      cells: themselves.
      jobs: of these.
      places: where the numbers of each cell are, by its place in the caller's order.
      checkpoints: of each job, or None.
    """

    begun: Begun
    cells: list[Cell]
    jobs: list[Job]
    places: dict[int, Place]
    checkpoints: Sequence[Checkpoints | None]


def batches_of(
    several: Sequence[Federation],
    metrics: Sequence[str],
    run: Run,
    machine: Machine,
    begun: Sequence[Begun] = (),
) -> list[Batch]:
    """Splits a sweep into batches and these into jobs.

    Args:
      several: federations in the caller's order.
      metrics: names to record.
      run: for how long, and how.
      machine: this one.
      begun: batches that there is something of.

    Returns:
      The batches that there is something of, then one for the rest of each algorithm.
    """
    out, count = [], 0
    for order, own in _assigned([cell for cell, _ in several], begun, machine):
        part = [several[i] for i in order]
        jobs, places = jobs_of(part, metrics, run, own.machine)
        where = {
            i: Place(count + job, federation)
            for i, (job, federation) in zip(order, places, strict=True)
        }
        out.append(Batch(own, [cell for cell, _ in part], jobs, where, [None] * len(jobs)))
        count += len(jobs)
    return out


def _assigned(
    cells: Sequence[Cell], begun: Sequence[Begun], machine: Machine
) -> list[tuple[list[int], Begun]]:
    """Places of the cells of each batch: those that there is something of, then the others."""
    left = dict.fromkeys(range(len(cells)))
    out: list = []
    for own in begun:
        of_algorithm = [i for i, cell in enumerate(cells) if cell.algorithm == own.algorithm]
        if not of_algorithm:
            raise ValueError(
                f"checkpoints in {own.root} are of another run, of algorithm {own.algorithm}; "
                "allowed: the same arguments, or another directory"
            )
        if not {*own.seeds} <= {cells[i].seed for i in of_algorithm}:
            # Not more of the same: its fingerprint says what differs.
            return [*out, (of_algorithm, own)]
        places = [i for i in of_algorithm if i in left and cells[i].seed in own.seeds]
        for i in places:
            del left[i]
        out.append((places, own))
    for label in dict.fromkeys(cells[i].algorithm for i in left):
        places = [i for i in left if cells[i].algorithm == label]
        seeds = tuple(dict.fromkeys(cells[i].seed for i in places))
        out.append((places, Begun(label, seeds, machine)))
    return out


def opened(stack: contextlib.ExitStack, checkpoints) -> tuple[pathlib.Path, list[Begun]]:
    """A directory of checkpoints, ours until `stack` closes, and what is there.

    Args:
      stack: gets what is to be closed.
      checkpoints: the directory, or a function that returns it.

    Returns:
      The directory, and the batches whose checkpoints are legible there.

    Raises:
      ValueError: it is a file, or somebody is at work there.
    """
    root = place(run_arguments.directory(checkpoints))
    stack.enter_context(signals.saving(root))
    found = hosts.once(lambda: _found(stack, root))
    begun = [
        Begun(algorithm, tuple(seeds), Machine(**machine), root=root / name)
        for algorithm, seeds, machine, name in found
    ]
    return root, begun


def _found(stack: contextlib.ExitStack, root: pathlib.Path) -> list[tuple]:
    """Of each batch in a directory the algorithm, the seeds, the machine and the name."""
    if root.exists() and not root.is_dir():
        raise ValueError(f"checkpoints is {root}, which is a file; allowed: a directory")
    root.mkdir(parents=True, exist_ok=True)
    # Held before anything is read: another process may be writing there.
    stack.enter_context(held(root))
    found = []
    # In the order in which they were begun, of which the names tell.
    for own in (root, *sorted(root.glob("batch-*"))):
        for label in labels(own).values():
            with contextlib.suppress(KeyError, TypeError):
                machine, batch = Machine(**label["machine"]), label["batch"]
                name = str(own.relative_to(root))
                found.append((batch["algorithm"], batch["seeds"], machine._asdict(), name))
                break
    return found


def save_in(
    stack: contextlib.ExitStack,
    root: pathlib.Path,
    batches: Sequence[Batch],
    describe: Callable[[Batch], dict],
    devices: int,
) -> None:
    """Opens the checkpoints of every job, the first batch's in `root` and the others' below.

    Args:
      stack: gets what is to be closed.
      root: of all.
      batches: get their checkpoints.
      describe: gives the fingerprint of a batch.
      devices: that agents are spread over now, at most.

    Raises:
      ValueError: checkpoints of another run are there.
    """
    # Not how many cores: the split into jobs is kept.
    made_with = {**results.versions(), "device": results.device().partition(", ")[0]}
    # How agents lie over devices orders sums.
    made_with["devices"] = devices
    taken = [batch.begun.root for batch in batches]
    free = (root / f"batch-{i:04d}" if i else root for i in itertools.count())
    for batch in batches:
        home = batch.begun.root or next(path for path in free if path not in taken)
        try:
            described = describe(batch)
        except ValueError as error:
            raise ValueError(f"{error}; without checkpoints it may be anything") from error
        count = batch.jobs[0].recording.count
        looked = functools.partial(check, home, described, count, made_with)
        if changed := hosts.once(looked):
            warn(
                f"checkpoints in {home} were begun with others: {'; '.join(changed)}: the last "
                "digits may differ"
            )
        label = {
            "fingerprint": described,
            "machine": batch.begun.machine._asdict(),
            "made_with": made_with,
            "batch": {"algorithm": batch.begun.algorithm, "seeds": list(batch.begun.seeds)},
        }
        batch.checkpoints = [
            Checkpoints(home / f"job-{i:04d}", {**label, "layout": job.layout.told()})
            for i, job in enumerate(batch.jobs)
        ]
        for own in batch.checkpoints:
            stack.callback(own.close)


def carry_out(
    algorithms: Mapping[str | None, Algorithm],
    cells: Sequence[Cell],
    run: Run,
    begun: Sequence[Begun] = (),
) -> tuple[xr.Dataset, list[Begun]]:
    """Simulates cells, what there is not yet of them.

    Args:
      algorithms: by label.
      cells: that differ.
      run: for how long, and how.
      begun: batches in memory that there is something of; without checkpoints alone.

    Returns:
      A Dataset as of `run_cells`, and the batches that have been run, to be gone on with.
    """
    if run.debug:
        # One job after the other, or prints and breakpoints of several would mix.
        run = dataclasses.replace(run, workers=1, chunk=run.chunk or 1)
    recording = recording_of(run)
    # Up to the last record: steps after it are not made.
    several = federations(algorithms, cells, int(recording.times[-1]))
    names = " and ".join(dict.fromkeys(one.name for one in algorithms.values()))
    known = metrics_of(several)
    metrics = arguments.metrics(run.metrics, known, names)
    most = max(cell.num_agents for cell in cells)
    run = dataclasses.replace(run, agents=arguments.agents(run.agents, most, metrics, known))
    # An accelerator runs one program after the other, a mesh of CPU devices one on all cores.
    on_cpu = jax.default_backend() == "cpu" and run.devices == 1
    cores = (run.workers or os.cpu_count() or 1) if on_cpu else 1
    # Of several processes the one with least memory decides for all.
    free = hosts.heard(memory.available(devices=1))
    least = hosts.once(lambda: min((x for x in free if x), default=None))
    machine = Machine(cores, least, run.devices)
    shown = hosts.index() == 0

    def describe(batch: Batch) -> dict:
        one = algorithms[batch.begun.algorithm]
        return fingerprint(one, batch.cells, metrics, run, batch.jobs)

    with contextlib.ExitStack() as stack:
        if run.debug:
            stack.enter_context(debugging(several[0].algorithm.unit))
        elif run.cache:
            keep_programs()
        room.check_agents(several, run.devices)
        batches = batches_of(several, metrics, run, machine, begun)  # or refuses before it writes
        stack.enter_context(hosts.losses())
        if hosts.count() > 1:
            each = [(one.begun.algorithm, functools.partial(describe, one)) for one in batches]
            agree(run, each)
        timer = time.perf_counter()
        for _ in range(_CUTS):
            new = [job for one in batches if one.begun.machine is machine for job in one.jobs]
            known = room.measured(machine, new)
            # Compiled by all, and said by one.
            known = Machine(*hosts.once(lambda: known))  # noqa: B023
            if known == machine:
                break
            machine = known
            batches = batches_of(several, metrics, run, machine, begun)
        room.check_programs([job for one in batches for job in one.jobs])
        measuring = time.perf_counter() - timer
        if run.checkpoints is not None:
            root, begun = opened(stack, run.checkpoints)
            if begun:
                batches = batches_of(several, metrics, run, machine, begun)
            save_in(stack, root, batches, describe, run.devices)
        jobs = [job for batch in batches for job in batch.jobs]
        # Cells of one batch need not lie beside each other, as seeds are the last axis.
        where = {i: place for batch in batches for i, place in batch.places.items()}
        places = [where[i] for i in range(len(cells))]
        progress, watch = (run.progress, run.watch) if shown else (False, None)
        counter, watch = stack.enter_context(counted(progress, watch, jobs, places))
        held_by = [(job.algorithm, job.layout.population.sizes) for job in jobs]
        outcomes, compiling, running = execute_all(
            jobs,
            workers=at_once(
                held_by,
                # Several processes have to come to the same collectives in the same order.
                1 if hosts.count() > 1 else run.workers or min(len(jobs), cores),
                max(one.begun.machine.peak or 1 for one in batches),
            ),
            begun=[own for one in batches for own in one.begun.outcomes or [None] * len(one.jobs)],
            checkpoints=[own for batch in batches for own in batch.checkpoints],
            progress=counter.advance,
            finished=counter.finish,
            watch=watch,
        )
    dataset = collected(several, recording, metrics, jobs, places, outcomes, run.agents)
    described = {label: one.describe(one.config) for label, one in algorithms.items()}
    dataset.attrs["headline"] = several[0].algorithm.headline
    dataset.attrs["configuration"] = json.dumps(described.get(None, described))
    dataset.attrs["seconds"] = json.dumps({"compile": measuring + compiling, "run": running})
    left = iter(outcomes)
    made = [one.begun._replace(outcomes=[next(left) for _ in one.jobs]) for one in batches]
    return dataset, made
