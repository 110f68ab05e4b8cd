"""The state of a run on disk, between chunks of rounds.

A directory of checkpoints is of one run. Every checkpoint says of which: it carries the
fingerprint of everything that decides the numbers, the machine that the run was split for, and
digests of its own files, so that what is damaged or of another run is never gone on from.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import hashlib
import os
import pathlib
import shutil
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from fedjax_rl import hosts, streams
from fedjax_rl.federation.state import State
from fedjax_rl.saving.directory import MARK, hushed, place, read_sealed, write_sealed
from fedjax_rl.saving.fingerprint import differences

# Bytes that Orbax writes beside the arrays, amply.
_OVERHEAD = 2**18
# What a checkpoint says of itself.
_MANIFEST = "manifest.json"
_OTHER = (
    "checkpoints in {} are of another run, or of another version of the algorithm: arrays have "
    "other shapes or types; allowed: another directory"
)


def labels(root) -> dict[pathlib.Path, dict]:
    """What the checkpoints of a run say of themselves, as far as that is legible, newest first."""
    found = {}
    for job in sorted(place(root).glob("job-*")):
        for step in _steps(job):
            if (label := _manifest(step)) is not None:
                found[step] = label
    return dict(sorted(found.items(), key=lambda pair: -pair[1]["done"]))


def check(root, fingerprint: dict, count: int, made_with: dict) -> list[str]:
    """Checks that the checkpoints in a directory are of this run, and not of more of it.

    Args:
      root: of all jobs.
      fingerprint: of the run.
      count: records that it makes.
      made_with: versions and device of this process, by name.

    Returns:
      What has changed of `made_with`, in words.

    Raises:
      ValueError: naming what differs.
    """
    known = labels(root)
    for step, label in known.items():
        if differ := differences(fingerprint, label["fingerprint"]):
            raise ValueError(
                f"checkpoints in {root} are of another run: {'; '.join(differ[:4])}; allowed: the "
                "same arguments, or another directory"
            )
        # One that was renamed says nothing of a run's length; loading passes it over.
        if step.name == str(label["done"]) and label["done"] > count:
            raise ValueError(
                f"num_steps is too short for the checkpoints in {root}: {label['done']} records "
                f"are made there, and it makes {count}; allowed: as many steps or more, or another "
                "directory"
            )
    there = next(iter(known.values()), {}).get("made_with") or made_with
    names = [name for name in {**there, **made_with} if there.get(name) != made_with.get(name)]
    return [f"{name} is {made_with.get(name)}, was {there.get(name)}" for name in names]


class Machine(NamedTuple):
    """What cells are split into jobs for. Numbers may depend on it, so that a run keeps its own.

    Attributes:
      cores: that work at a time.
      free: bytes of memory, or None if unknown.
      devices: that agents are spread over, at most.
      peak: how many times what its arrays take a program takes while it runs; None where nobody
        had to measure it.
    """

    cores: int
    free: int | None
    devices: int = 1
    peak: float | None = None


class Checkpoints:
    """The last few checkpoints of one job, written atomically by Orbax.

    A checkpoint holds the whole state (keys and ledger included) and the records made so far. A
    process killed while it writes leaves the ones before untouched.

    Of several processes each writes what it has of the state, into a directory that all of them
    see; the first one decides when, and says last of all that a checkpoint is whole.
    """

    def __init__(
        self, directory, label: dict | None = None, keep: int = 3, seconds: float = 2.0
    ) -> None:
        """Opens the checkpoints in `directory`, made if needed.

        Args:
          directory: of this job alone.
          label: what every checkpoint says beside what it holds: "fingerprint" and whatever else
            there is to know; None where checkpoints are only read.
          keep: how many to keep.
          seconds: least time between two, stretched so that saving takes at most a twentieth.

        Raises:
          ValueError: it is no directory.
        """
        self._directory = place(directory).absolute()
        if self._directory.exists() and not self._directory.is_dir():
            raise ValueError(f"{self._directory} is a file; allowed: a directory of checkpoints")
        self._directory.mkdir(parents=True, exist_ok=True)
        self._label = {"fingerprint": {}} if label is None else label
        self._keep, self._manager = keep, None
        self._seconds = seconds
        self._last = time.monotonic()

    def maybe_save(self, done: int, state: State, records: Callable[[], dict]) -> None:
        """Saves if the last checkpoint is old enough; `done` counts the records made.

        Args:
          done: records made.
          state: after them.
          records: a function that returns them, called where something is written.

        Raises:
          OSError: the disk is full; the checkpoints before are untouched.
        """
        due, _ = hosts.decided(first=time.monotonic() - self._last >= self._seconds)
        if due:
            self.save(done, state, records)

    def save(self, done: int, state: State, records: Callable[[], dict]) -> None:
        """Saves, unless as many records have been saved before; as `maybe_save`.

        Args:
          done: as in `maybe_save`.
          state: likewise.
          records: likewise.

        Raises:
          OSError: the disk is full; the checkpoints before are untouched.
        """
        if hosts.once(lambda: self._is_sound(self._directory / str(done))):
            return
        began = time.monotonic()
        # On the host first, so that its size is known before anything is written.
        tree = {"state": _plain(state), "records": records()}
        tree = jax.tree.map(lambda x: x if hosts.is_spread(x) else jax.device_get(x), tree)
        size = sum(x.nbytes for x in jax.tree.leaves(tree))
        try:
            hosts.once(lambda: self._check_room(size))
            if self._manager is None:
                # Before Orbax opens the directory, which keeps so many of whatever looks like a
                # checkpoint.
                hosts.once(self._discard_unsound)
                self._manager = _manager(self._directory, self._keep)
            self._manager.save(done, args=ocp.args.StandardSave(tree))
            self._manager.wait_until_finished()
            hosts.once(lambda: self._describe(done))
        except (OSError, ValueError) as error:  # what TensorStore could not write is a ValueError
            reason = getattr(error, "strerror", None) or str(error)
            raise OSError(
                getattr(error, "errno", None) or errno.EIO,
                f"cannot write a checkpoint in {self._directory}: {reason}; those before are "
                "unchanged",
            ) from error
        self._last = time.monotonic()
        self._seconds = max(self._seconds, 20 * (self._last - began))

    def _check_room(self, size: int) -> None:
        # Asked beforehand: a write that fails half-way leaves Orbax talking for pages.
        if shutil.disk_usage(self._directory).free < 2 * size + _OVERHEAD:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _describe(self, done: int) -> None:
        """Writes last of all what makes a checkpoint count."""
        step = self._directory / str(done)
        label = {"made_by": MARK, **self._label, "job": self._directory.name, "done": done}
        label["files"] = {str(path.relative_to(step)): _digest(path) for path in _files(step)}
        write_sealed(step / _MANIFEST, label)

    def _is_sound(self, step: pathlib.Path) -> bool:
        """Whether a checkpoint is whole, at its place and of this run."""
        label = _manifest(step)
        return (
            label is not None
            and (label["job"], str(label["done"])) == (self._directory.name, step.name)
            and label["fingerprint"] == (self._label["fingerprint"] or label["fingerprint"])
            and label["files"] == {str(p.relative_to(step)): _digest(p) for p in _files(step)}
        )

    def _discard_unsound(self) -> None:
        """Removes what the next checkpoints must not meet."""
        for step in _steps(self._directory):
            if not self._is_sound(step):
                _remove(step)

    def load(
        self, like: State, metrics, moved: Callable = lambda told, state, records: (state, records)
    ) -> tuple[int, State, dict[str, np.ndarray]] | None:
        """The newest whole checkpoint as (records made, state, records), or None.

        What a full disk, a crash of the machine or a careless hand has damaged is passed over: an
        older one will do.

        Args:
          like: a state of the same structure.
          metrics: names of the records.
          moved: `(told, state, records) -> (state, records)`, as they lie here what was laid out
            as the label's "layout" tells.

        Returns:
          The records made, the state after them and the records themselves; None where no
          checkpoint is whole.

        Raises:
          ValueError: it is of another version of the algorithm.
        """
        for name in hosts.once(lambda: [step.name for step in _steps(self._directory)]):
            step = self._directory / name
            if not hosts.once(functools.partial(self._is_sound, step)):
                continue
            told = hosts.once(lambda step=step: (_manifest(step) or {}).get("layout"))
            # What lay otherwise is moved on the host.
            there = like if told == self._label.get("layout") else None
            found = None
            with contextlib.suppress(Exception), hushed():  # whatever a reader cannot read
                tree = _read(step / "default", there)
                records = tree.get("records") or {}
                found = tree["state"], {n: np.asarray(records[n]) for n in metrics}
            _, missing = hosts.decided(anyone=found is None)
            if missing:
                continue
            saved, records = found
            state = _restore(like, saved, self._directory)
            if told is not None:
                state, records = moved(told, state, records)
            return int(step.name), _checked(like, state, self._directory), records
        return None

    def close(self) -> None:
        """Releases the directory."""
        if self._manager is not None:
            self._manager.close()


def _manager(directory: pathlib.Path, keep: int) -> ocp.CheckpointManager:
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep, create=True, enable_async_checkpointing=False
    )
    return ocp.CheckpointManager(directory, options=options)


def _read(path: pathlib.Path, like: State | None) -> dict:
    """What Orbax has written: on the host, or where `like` is if that is over several processes.

    By the shapes and types that are there, not those of `like`: what differs is compared by us,
    who can say so.
    """
    known = ocp.StandardCheckpointHandler().metadata(path).tree
    # On the host, or it would be asked for on devices that may not be here any more.
    how = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), known)
    if hosts.count() > 1 and like is not None:
        for name, x in _plain(like).items():
            there = known["state"].get(name)
            if hosts.is_spread(x) and there is not None and tuple(there.shape) == x.shape:
                how["state"][name] = ocp.ArrayRestoreArgs(sharding=x.sharding)
    return ocp.PyTreeCheckpointer().restore(path, restore_args=how)


def _steps(directory: pathlib.Path) -> list[pathlib.Path]:
    """What looks like a checkpoint, newest first."""
    found = [p for p in directory.iterdir() if p.name.isdigit()] if directory.is_dir() else []
    return sorted(found, key=lambda p: int(p.name), reverse=True)


def _manifest(step: pathlib.Path) -> dict | None:
    """What a checkpoint says of itself, if that is whole."""
    label = read_sealed(step / _MANIFEST)
    return label if label is not None and label.get("made_by") == MARK else None


def _files(step: pathlib.Path) -> list[pathlib.Path]:
    own = step / _MANIFEST
    return sorted(p for p in step.rglob("*") if p != own and not p.is_dir())


def _digest(path: pathlib.Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _remove(path: pathlib.Path) -> None:
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _plain(state: State) -> dict:
    """The state as named plain arrays: a form that any storage gives back as it got it."""
    leaves = jax.tree.leaves(dataclasses.replace(state, keys=jax.random.key_data(state.keys)))
    return {f"{place:05d}": leaf for place, leaf in enumerate(leaves)}


def _restore(like: State, saved: dict, where: pathlib.Path) -> State:
    """A state with the structure of `like` and the arrays of `saved`, keys as their data."""
    structure = jax.tree.structure(like)
    # Names of one width, so that words are sorted as numbers are.
    arrays = [saved[place] for place in sorted(saved)]
    if len(arrays) != structure.num_leaves:
        raise ValueError(_OTHER.format(where))
    return jax.tree.unflatten(structure, arrays)


def _checked(like: State, state: State, where: pathlib.Path) -> State:
    """A state that is put in the place of `like`."""
    like = dataclasses.replace(like, keys=jax.random.key_data(like.keys))
    state = jax.tree.map(lambda x: x if hosts.is_spread(x) else jnp.asarray(x), state)
    # Types too, or a state of another precision would go on in a mixture of both.
    kinds = [[(x.shape, x.dtype) for x in jax.tree.leaves(each)] for each in (state, like)]
    if kinds[0] != kinds[1]:
        raise ValueError(_OTHER.format(where))
    # By our generator's name, as the data of a key do not say whose they are.
    keys = jax.random.wrap_key_data(state.keys, impl=streams.IMPLEMENTATION)
    return dataclasses.replace(state, keys=keys)
