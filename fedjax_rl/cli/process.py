"""The process of a command: its environment, its directory, its end by Ctrl-C."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import pathlib
import signal
import sys
from collections.abc import Callable, Iterator

from fedjax_rl.saving.directory import held

__all__ = ["Stopped", "free", "held", "interruptible", "keeping", "on_cpu", "prepare", "quiet"]


# A CPU can pretend to have so many; far more and the process dies when JAX starts.
MOST_DEVICES = 1024


class Stopped(KeyboardInterrupt):
    """Interrupted by a signal.

    Attributes:
      directory: to resume, or None when nothing is written yet.
      code: of the process that ends so, 128 and the number of the signal.
    """

    def __init__(self, directory: pathlib.Path | None, number: int = signal.SIGINT) -> None:
        """Takes the directory and the number of the signal."""
        super().__init__(directory)
        self.directory, self.code = directory, 128 + number


def prepare(devices: int = 1) -> None:
    """Sets what XLA reads when it starts, as far as the user has not.

    Options that concern our own programs are given where these are compiled; see
    `fedjax_rl.sweeps.compiling.compiler_options`.

    Args:
      devices: how many a CPU pretends to have.
    """
    os.environ.setdefault("MPLBACKEND", "Agg")
    if not on_cpu():
        return
    # Here, too, for what JAX compiles besides: this scheduler has hung (jax issue 39257).
    wanted = {"--xla_cpu_enable_concurrency_optimized_scheduler": "false"}
    if devices > 1:
        wanted["--xla_force_host_platform_device_count"] = str(devices)
    given = os.environ.get("XLA_FLAGS", "")
    missing = [f"{flag}={value}" for flag, value in wanted.items() if flag not in given]
    os.environ["XLA_FLAGS"] = " ".join([*given.split(), *missing])


@contextlib.contextmanager
def keeping(programs: bool) -> Iterator[None]:
    """While it runs, compiled programs are kept on disk, or none at all.

    Args:
      programs: whether to.
    """
    import jax

    from fedjax_rl.sweeps.cache import keep_programs

    before = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", before and programs)
    keep_programs(_LEAST_SECONDS)
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)


# What compiles faster is not worth a file.
_LEAST_SECONDS = 0.1


def on_cpu() -> bool:
    """Whether JAX will run on the CPU, found out without starting it."""
    platforms = os.environ.get("JAX_PLATFORMS", "")
    if platforms:
        return platforms.split(",")[0] == "cpu"
    plugins = list(importlib.metadata.entry_points(group="jax_plugins"))
    plugins += [d for d in ("libtpu",) if importlib.util.find_spec(d) is not None]
    if not plugins or sys.platform != "linux":
        return not plugins
    # A plugin may be installed where there is nothing that it could run on.
    nodes = ("nvidia[0-9]*", "accel*", "vfio/[0-9]*", "kfd")
    return not any(next(pathlib.Path("/dev").glob(node), None) for node in nodes)


@contextlib.contextmanager
def interruptible(directory: Callable[[], pathlib.Path | None]) -> Iterator[None]:
    """Turns Ctrl-C and other signals into `Stopped` with the directory as it is then."""
    try:
        yield
    except KeyboardInterrupt as stopped:
        raise Stopped(directory(), getattr(stopped, "number", signal.SIGINT)) from None


def free(stem: str) -> pathlib.Path:
    """The first directory in `runs` that is not there yet; one that a shell takes as one word."""
    stem, number = stem.replace(", ", "-"), 1
    while (path := pathlib.Path("runs") / f"{stem}-{number}").exists():
        number += 1
    return path


def quiet() -> None:
    """Silences the chatter of libraries: what matters they raise."""
    import logging

    logging.getLogger("absl").setLevel(logging.CRITICAL)
