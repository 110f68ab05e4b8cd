"""A grid of configurations -> populations -> chunks of rounds -> labelled results."""

from __future__ import annotations

import collections
import contextlib
import inspect
import json
import os
from collections.abc import Iterable, Mapping, Sequence

import jax
import xarray as xr

from fedjax_rl import memory
from fedjax_rl.federation.algorithm import Algorithm
from fedjax_rl.names import check_known
from fedjax_rl.saving.checkpoints import Machine
from fedjax_rl.saving.fingerprint import fingerprint
from fedjax_rl.sweeps import arguments
from fedjax_rl.sweeps.arguments import Run, taking_run
from fedjax_rl.sweeps.batches import Batch, Begun, batches_of, opened, save_in
from fedjax_rl.sweeps.cells import Cell, Federation, check_different, federations, grid, metrics_of
from fedjax_rl.sweeps.collect import collected, unstacked
from fedjax_rl.sweeps.jobs import Place, at_once, recording_of
from fedjax_rl.sweeps.progress import counted
from fedjax_rl.sweeps.run import execute_all


@taking_run
def sweep(
    algorithm: Algorithm | Sequence[Algorithm] | Mapping[str, Algorithm],
    *,
    num_agents: int | Sequence[int] = 1,
    seeds: int | Iterable[int] = 0,
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
    algorithms = arguments.algorithms(algorithm)
    for name in properties:
        for one in algorithms.values():
            known = (*one.properties, *_RUN, "num_agents", "seeds")
            check_known(name, known, f"argument of sweep or property of {one.name}")
    run = Run.taken(properties)
    made = grid(algorithms, num_agents, seeds, properties)
    flat, _ = carry_out(made.algorithms, made.cells, run)
    return unstacked(flat, made)


@taking_run
def run_cells(
    algorithm: Algorithm | Sequence[Algorithm] | Mapping[str, Algorithm],
    cells: Sequence[Cell],
    **options,
) -> xr.Dataset:
    """Any list of federations, not necessarily a product; see `sweep` for the arguments.

    Returns:
      A Dataset with the dimension `cell` in the order given, and every property that differs as a
      coordinate along it.
    """
    algorithms = arguments.algorithms(algorithm)
    cells = [Cell(*own) for own in arguments.cells(cells, algorithms)]
    check_different(cells)
    for name in options:
        check_known(name, _RUN, "argument of run_cells")
    return carry_out(algorithms, cells, Run.taken(options))[0]


_RUN = inspect.signature(Run).parameters


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
    recording = recording_of(run)
    several = federations(algorithms, cells, int(recording.times[-1]))
    metrics = _metrics(run.metrics, algorithms, several)
    on_cpu = jax.default_backend() == "cpu" and run.devices == 1
    cores = (run.workers or os.cpu_count() or 1) if on_cpu else 1
    machine = Machine(cores, memory.available(devices=1))

    def describe(batch: Batch) -> dict:
        own = [cells[place] for place in batch.cells]
        return fingerprint(algorithms[own[0].algorithm], own, metrics, run, batch.jobs)

    with contextlib.ExitStack() as stack:
        root = None
        if run.checkpoints is not None:
            root, begun = opened(stack, run.checkpoints)
        batches = batches_of(several, metrics, run, machine, begun)
        if root is not None:
            save_in(stack, root, begun, batches, cells, describe)
        jobs = [job for batch in batches for job in batch.jobs]
        places = _places(batches, len(cells))
        counter = stack.enter_context(counted(run.progress, jobs, len(cells)))
        of_job = collections.Counter(place.job for place in places)
        held_by = [(job.algorithm, job.layout.population.sizes) for job in jobs]
        outcomes, compiling, running = execute_all(
            jobs,
            workers=at_once(held_by, run.workers or min(len(jobs), cores)),
            begun=[own for batch in batches for own in batch.begun],
            checkpoints=[own for batch in batches for own in batch.checkpoints],
            progress=lambda steps: counter.add(steps),
            finished=lambda place: counter.add(cells=of_job[place]),
            watch=run.watch,
        )
    dataset = collected(several, recording, metrics, jobs, places, outcomes)
    described = {label: one.describe(one.config) for label, one in algorithms.items()}
    dataset.attrs["configuration"] = json.dumps(described.get(None, described))
    dataset.attrs["seconds"] = json.dumps({"compile": compiling, "run": running})
    return dataset, _begun(batches, cells, outcomes)


def _metrics(names, algorithms: Mapping, several: Sequence[Federation]) -> tuple[str, ...]:
    """Names of what is recorded: those per federation unless somebody says which."""
    known = metrics_of(several)
    if names is None:
        return tuple(name for name, (side, _) in known.items() if side == "federation")
    of = " and ".join(dict.fromkeys(one.name for one in algorithms.values()))
    return arguments.metrics(names, known, of)


def _places(batches: Sequence[Batch], count: int) -> list[Place]:
    """Where the numbers of each cell are, among the jobs of all batches."""
    places, jobs = [None] * count, 0
    for batch in batches:
        for cell, place in zip(batch.cells, batch.places, strict=True):
            places[cell] = Place(jobs + place.job, place.federation)
        jobs += len(batch.jobs)
    return places


def _begun(batches: Sequence[Batch], cells: Sequence[Cell], outcomes: Sequence) -> list[Begun]:
    """The batches with what has come of their jobs."""
    out, left = [], iter(outcomes)
    for batch in batches:
        seeds = tuple(dict.fromkeys(cells[i].seed for i in batch.cells))
        own = [next(left) for _ in batch.jobs]
        out.append(Begun(cells[batch.cells[0]].algorithm, seeds, batch.machine, own))
    return out
