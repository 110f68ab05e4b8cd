"""The state of a run on disk, between chunks of rounds."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import pathlib
import shutil
import time as clock
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from fedjax_rl import streams
from fedjax_rl.federation.exchange import State

# Bytes that Orbax writes beside the arrays, amply.
_OVERHEAD = 2**18


class Checkpoints:
    """The last few checkpoints of one job, written atomically by Orbax.

    A checkpoint holds the whole state (keys and ledger included) and the records made so far. A
    process killed while it writes leaves the ones before untouched.
    """

    def __init__(self, directory, keep: int = 3, seconds: float = 2.0) -> None:
        """Opens the checkpoints in `directory`, made if needed.

        Args:
          directory: of this job alone.
          keep: how many to keep.
          seconds: least time between two, stretched so that saving takes at most a twentieth.
        """
        self._directory = pathlib.Path(directory).absolute()
        self._options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, create=True, enable_async_checkpointing=False
        )
        self._manager = ocp.CheckpointManager(self._directory, options=self._options)
        self._seconds = seconds
        self._last = clock.monotonic()

    def maybe_save(self, done: int, state: State, records: Callable[[], dict]) -> None:
        """Saves if the last checkpoint is old enough; `done` counts the records made.

        Raises:
          OSError: the disk is full; the checkpoints before are untouched.
        """
        if clock.monotonic() - self._last >= self._seconds:
            self.save(done, state, records)

    def save(self, done: int, state: State, records: Callable[[], dict]) -> None:
        """Saves, unless as many records have been saved before; as `maybe_save`.

        Raises:
          OSError: the disk is full; the checkpoints before are untouched.
        """
        if done in self._manager.all_steps():
            return
        began = clock.monotonic()
        tree = {"state": _plain(state), "records": records()}
        size = sum(x.nbytes for x in jax.tree.leaves(tree))
        try:
            # Asked beforehand: a write that fails half-way leaves Orbax talking for pages.
            if shutil.disk_usage(self._directory).free < 2 * size + _OVERHEAD:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._manager.save(done, args=ocp.args.StandardSave(tree))
            self._manager.wait_until_finished()
        except (OSError, ValueError) as error:  # what TensorStore could not write is a ValueError
            reason = getattr(error, "strerror", None) or str(error)
            raise OSError(
                getattr(error, "errno", None) or errno.EIO,
                f"cannot write a checkpoint in {self._directory}: {reason}; those before are "
                "unchanged",
            ) from error
        self._last = clock.monotonic()
        self._seconds = max(self._seconds, 20 * (self._last - began))

    def load(self, like: State, metrics) -> tuple[int, State, dict[str, np.ndarray]] | None:
        """The newest readable checkpoint as (records made, state, records), or None.

        Args:
          like: a state of the same structure.
          metrics: names of the records.
        """
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                tree = self._manager.restore(step, args=ocp.args.StandardRestore())
            except (ValueError, OSError, KeyError):
                # Torn by a full disk or a crash of the machine: an older one will do, and its
                # successors must not meet this one.
                with contextlib.suppress(ValueError, OSError):
                    self._manager.delete(step)
                continue
            records = tree.get("records") or {}
            return step, _restore(like, tree["state"]), {n: np.asarray(records[n]) for n in metrics}
        return None

    def close(self) -> None:
        """Releases the directory."""
        self._manager.close()


def _plain(state: State) -> dict:
    """The state as named plain arrays: a form that any storage gives back as it got it."""
    leaves = jax.tree.leaves(dataclasses.replace(state, keys=jax.random.key_data(state.keys)))
    return {f"{place:05d}": leaf for place, leaf in enumerate(leaves)}


def _restore(like: State, saved: dict) -> State:
    """A state with the structure of `like` and the arrays of `saved`."""
    like = dataclasses.replace(like, keys=jax.random.key_data(like.keys))
    leaves, structure = jax.tree.flatten(like)
    arrays = [jnp.asarray(saved[place]) for place in sorted(saved)]
    if [x.shape for x in arrays] != [x.shape for x in leaves]:
        raise ValueError("the checkpoint is of another run: its arrays have other shapes")
    state = jax.tree.unflatten(structure, arrays)
    keys = jax.random.wrap_key_data(state.keys, impl=streams.IMPLEMENTATION)
    return dataclasses.replace(state, keys=keys)
