"""Several processes that simulate together, each with devices of its own.

They are JAX's (`jax.distributed`): every process runs the same program on its part of a mesh over
all their devices. What is said here is what that program needs besides: words that process 0 says
to all, arrays that every process needs whole, and a sentence where one does not answer. A process
alone is process 0 of one, and nothing here costs it anything.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

# The words that processes say to each other need no device, so that they may decide what devices
# there are to be; JAX gives this client no public name.
from jax._src.distributed import global_state
from jax.experimental import multihost_utils

# Milliseconds that a process waits for the word of another one, which may first compile.
_PATIENCE = 3_600_000
# All processes come to the same words in the same order.
_ORDER = itertools.count()
# What the transports of JAX's collectives, and its coordinator, say of a process that has gone.
_LOST = re.compile(
    r"gloo|nccl|connection|socket|heartbeat|coordination|UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED"
    r"|local topologies",
    re.IGNORECASE,
)


def count() -> int:
    """How many processes there are; does not start JAX's devices."""
    return global_state.num_processes or 1


def index() -> int:
    """Which of them this is, from 0 on."""
    return global_state.process_id or 0


def start() -> None:
    """Starts the devices of several processes, in all of them: each waits there for the rest."""
    if count() > 1:
        jax.devices()


def once(function: Callable[[], Any]) -> Any:
    """What process 0 finds, said to all; nobody else calls the function.

    Args:
      function: that returns what JSON can say.

    Returns:
      It, the same in every process.

    Raises:
      ValueError: as raised in process 0.
      OSError: likewise.
    """
    if count() == 1:
        return function()
    name = f"fedjax_rl/once/{next(_ORDER)}"
    if index() == 0:
        try:
            said = json.dumps([function()])
        except (ValueError, OSError) as error:
            kind = "OSError" if isinstance(error, OSError) else "ValueError"
            words = getattr(error, "strerror", None) or str(error)
            _say(name, json.dumps({"kind": kind, "words": words}))
            raise
        _say(name, said)
    else:
        said = _hear(name)
    told = json.loads(said)
    if isinstance(told, list):
        return told[0]
    error = ValueError(told["words"])
    if told["kind"] == "OSError":
        error = OSError(errno.EIO, told["words"])
    # Process 0 says it to the user.
    error.said = True
    raise error


def heard(value: Any) -> list[Any] | None:
    """What every process says, heard by process 0; None elsewhere.

    Args:
      value: that JSON can say.
    """
    if count() == 1:
        return [value]
    name = f"fedjax_rl/heard/{next(_ORDER)}"
    if index() > 0:
        return _say(f"{name}/{index()}", json.dumps(value))
    return [value, *(json.loads(_hear(f"{name}/{other}")) for other in range(1, count()))]


def decided(first: bool = False, anyone: bool = False) -> tuple[bool, bool]:
    """What all processes do next, by collectives alone: for every chunk of a run.

    Args:
      first: as process 0 would have it.
      anyone: as a single process can have it.

    Returns:
      Both, the same in every process.
    """
    if count() == 1:
        return bool(first), bool(anyone)
    said = multihost_utils.process_allgather(np.asarray([first, anyone], np.int32))
    return bool(said[0, 0]), bool(said[:, 1].any())


def fetched(tree: Any) -> Any:
    """A pytree on the host; of arrays that lie over several processes all of them get the whole.

    Args:
      tree: of arrays, the same in every process.
    """
    return jax.tree.map(_fetched, tree)


def _fetched(x) -> np.ndarray:
    if is_spread(x) and not x.is_fully_replicated:
        return multihost_utils.process_allgather(x, tiled=True)
    return np.asarray(x)


def is_spread(x) -> bool:
    """Whether an array lies over devices of other processes too."""
    return isinstance(x, jax.Array) and not x.is_fully_addressable


@contextlib.contextmanager
def losses() -> Iterator[None]:
    """Says of what JAX raises, when another process has gone, that this is so.

    Raises:
      ConnectionError: another process does not answer.
    """
    try:
        yield
    except (RuntimeError, ValueError) as error:
        # A collective that fails while it is awaited by Orbax or in a callback may be a ValueError,
        # and what waits for the devices of all is a plain RuntimeError.
        words = " ".join(str(error).split())
        runtime = isinstance(error, jax.errors.JaxRuntimeError)
        runtime = runtime or "Gloo" in words or "local topologies" in words
        if count() == 1 or not runtime or not _LOST.search(words):
            raise
        raise ConnectionError(
            f"another of the {count()} processes has ended or does not answer ({words[:160]})"
        ) from error


def _say(name: str, words: str) -> None:
    global_state.client.key_value_set(name, words)


def _hear(name: str) -> str:
    return global_state.client.blocking_key_value_get(name, _PATIENCE)
