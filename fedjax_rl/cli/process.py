"""The process of a command: its environment, its directory, its end by Ctrl-C."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import pathlib
import sys
from collections.abc import Callable, Iterator

from fedjax_rl.directory import held

__all__ = ["Stopped", "free", "held", "interruptible", "prepare", "quiet"]


class Stopped(KeyboardInterrupt):
    """Interrupted; `args[0]` is the directory to resume, or None when nothing is written yet."""


def prepare(devices: int = 1) -> None:
    """Sets what XLA reads when it starts, as far as the user has not.

    Options that concern our own programs are given where these are compiled; see
    `fedjax_rl.run.compiler_options`.

    Args:
      devices: how many a CPU pretends to have.
    """
    os.environ.setdefault("MPLBACKEND", "Agg")
    if not _on_cpu():
        return
    wanted = {"--xla_cpu_enable_concurrency_optimized_scheduler": "false"}
    if devices > 1:
        wanted["--xla_force_host_platform_device_count"] = str(devices)
    given = os.environ.get("XLA_FLAGS", "")
    missing = [f"{flag}={value}" for flag, value in wanted.items() if flag not in given]
    os.environ["XLA_FLAGS"] = " ".join([*given.split(), *missing])


def _on_cpu() -> bool:
    """Whether JAX will run on the CPU, found out without starting it."""
    platforms = os.environ.get("JAX_PLATFORMS", "")
    if platforms:
        return platforms.split(",")[0] == "cpu"
    plugins = list(importlib.metadata.entry_points(group="jax_plugins"))
    plugins += [d for d in ("libtpu",) if importlib.util.find_spec(d) is not None]
    if not plugins or sys.platform != "linux":
        return not plugins
    nodes = ("nvidia[0-9]*", "accel*", "vfio/[0-9]*", "kfd")
    return not any(next(pathlib.Path("/dev").glob(node), None) for node in nodes)


@contextlib.contextmanager
def interruptible(directory: Callable[[], pathlib.Path | None]) -> Iterator[None]:
    """Turns Ctrl-C into `Stopped` with the directory as it is then."""
    try:
        yield
    except KeyboardInterrupt:
        raise Stopped(directory()) from None


def free(stem: str) -> pathlib.Path:
    """The first directory in `runs` that is not there yet."""
    number = 1
    while (path := pathlib.Path("runs") / f"{stem}-{number}").exists():
        number += 1
    return path


def quiet() -> None:
    """Silences the chatter of libraries: what matters they raise."""
    import logging

    logging.getLogger("absl").setLevel(logging.CRITICAL)
