"""Batches of cells, each split into jobs by itself, and where the state of each is kept.

Numbers may depend, in their last digits, on how cells are split into jobs, and so on what else is
in a sweep and on the machine. Cells are therefore split in batches: each algorithm by itself, as
if it were alone, and those that come later by themselves. A batch that is gone on with keeps the
split it was begun with.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

from fedjax_rl.saving import results, signals
from fedjax_rl.saving.checkpoints import Checkpoints, Machine, check, labels
from fedjax_rl.saving.directory import held, place
from fedjax_rl.sweeps import arguments
from fedjax_rl.sweeps.cells import Cell, Federation
from fedjax_rl.sweeps.jobs import Place, jobs_of
from fedjax_rl.sweeps.programs import Job
from fedjax_rl.sweeps.run import Outcome


class Begun(NamedTuple):
    """A batch that there is something of already.

    Attributes:
      algorithm: its label.
      seeds: of its cells.
      machine: that it was split for.
      outcomes: of its jobs, where these are in memory.
      root: the directory of its checkpoints, where it has one.
    """

    algorithm: str | None
    seeds: tuple[int, ...]
    machine: Machine
    outcomes: Sequence[Outcome] | None = None
    root: pathlib.Path | None = None


@dataclasses.dataclass
class Batch:
    """Cells that are split into jobs together.

    Attributes:
      cells: their places in the caller's order.
      machine: that they are split for.
      jobs: their jobs.
      places: where the numbers of each cell are, among these jobs.
      begun: what has come of each job so far, or None.
      checkpoints: of each job, or None.
    """

    cells: list[int]
    machine: Machine
    jobs: list[Job]
    places: list[Place]
    begun: Sequence[Outcome | None]
    checkpoints: Sequence[Checkpoints | None]


def batches_of(
    federations: Sequence[Federation],
    metrics: Sequence[str],
    run: arguments.Run,
    machine: Machine,
    begun: Sequence[Begun] = (),
) -> list[Batch]:
    """Splits a sweep into batches and these into jobs.

    Args:
      federations: in the caller's order.
      metrics: names to record.
      run: for how long, and how.
      machine: this one.
      begun: batches that there is something of.
    """
    out = []
    for places, own in _assigned([cell for cell, _ in federations], begun):
        split_for = machine if own is None else own.machine
        part = [federations[place] for place in places]
        jobs, where = jobs_of(part, metrics, run, split_for)
        kept = None if own is None else own.outcomes
        nothing = [None] * len(jobs)
        out.append(Batch(places, split_for, jobs, where, kept or nothing, nothing))
    return out


def _assigned(
    cells: Sequence[Cell], begun: Sequence[Begun]
) -> list[tuple[list[int], Begun | None]]:
    """Places of the cells of each batch: those that there is something of, then the others."""
    left = dict.fromkeys(range(len(cells)))
    out: list = []
    for own in begun:
        of_algorithm = [i for i in left if cells[i].algorithm == own.algorithm]
        if not of_algorithm:
            raise ValueError(
                f"checkpoints in {own.root} are of another run, of algorithm {own.algorithm}; "
                "allowed: the same arguments, or another directory"
            )
        if not {*own.seeds} <= {cells[i].seed for i in of_algorithm}:
            # Not more of the same: its fingerprint says what differs.
            return [*out, (of_algorithm, own)]
        places = [i for i in of_algorithm if cells[i].seed in own.seeds]
        for i in places:
            del left[i]
        out.append((places, own))
    for label in dict.fromkeys(cells[i].algorithm for i in left):
        out.append(([i for i in left if cells[i].algorithm == label], None))
    return out


def opened(stack: contextlib.ExitStack, checkpoints) -> tuple[pathlib.Path, list[Begun]]:
    """A directory of checkpoints, ours until `stack` closes, and what is there.

    Args:
      stack: gets what is to be closed.
      checkpoints: the directory, or a function that returns it.

    Raises:
      ValueError: it is a file, or somebody is at work there.
    """
    root = place(arguments.directory(checkpoints))
    if root.exists() and not root.is_dir():
        raise ValueError(f"checkpoints is {root}, which is a file; allowed: a directory")
    root.mkdir(parents=True, exist_ok=True)
    stack.enter_context(signals.saving(root))
    stack.enter_context(held(root))
    begun = []
    for own in (root, *sorted(root.glob("batch-*"))):
        for label in labels(own).values():
            with contextlib.suppress(KeyError, TypeError):
                machine, batch = Machine(**label["machine"]), label["batch"]
                begun.append(Begun(batch["algorithm"], tuple(batch["seeds"]), machine, root=own))
                break
    return root, begun


def save_in(
    stack: contextlib.ExitStack,
    root: pathlib.Path,
    begun: Sequence[Begun],
    batches: Sequence[Batch],
    cells: Sequence[Cell],
    describe: Callable[[Batch], dict],
) -> None:
    """Opens the checkpoints of every job, the first batch's in `root` and the others' below.

    Args:
      stack: gets what is to be closed.
      root: of all.
      begun: the batches that are there already, which are the first ones of `batches`.
      batches: get their checkpoints.
      cells: in the caller's order.
      describe: gives the fingerprint of a batch.

    Raises:
      ValueError: checkpoints of another run are there.
    """
    # Not how many cores: the split into jobs is kept.
    made_with = {**results.versions(), "device": results.device().partition(", ")[0]}
    homes = [own.root for own in begun]
    free = (root / f"batch-{i:04d}" if i else root for i in range(len(begun) + len(batches)))
    homes += [home for home in free if home not in homes]
    for batch, home in zip(batches, homes, strict=False):
        try:
            described = describe(batch)
        except ValueError as error:
            raise ValueError(f"{error}; without checkpoints it may be anything") from error
        if changed := check(home, described, batch.jobs[0].recording.count, made_with):
            warnings.warn(
                f"checkpoints in {home} were begun with others: {'; '.join(changed)}: the last "
                "digits may differ",
                stacklevel=4,
            )
        batch.checkpoints = [Checkpoints(home / f"job-{i:04d}") for i in range(len(batch.jobs))]
        seeds = list(dict.fromkeys(cells[i].seed for i in batch.cells))
        for own in batch.checkpoints:
            stack.callback(own.close)
            own.label = {
                "fingerprint": described,
                "machine": batch.machine._asdict(),
                "made_with": made_with,
                "batch": {"algorithm": cells[batch.cells[0]].algorithm, "seeds": seeds},
            }
