"""Compiled programs kept on disk, in JAX's persistent cache, so that they are compiled once."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import platform
import tempfile

import jax
import jaxlib

from fedjax_rl.saving.places import user_cache

# Bytes that are kept; what was not written for longest goes first.
_MOST = 2**31


def keep_programs(least_seconds: float | None = None) -> pathlib.Path | None:
    """Has JAX keep compiled programs in the user's cache directory, from now on in this process.

    Whoever has told JAX where to keep them, or not to, is heard (`JAX_COMPILATION_CACHE_DIR`,
    `JAX_ENABLE_COMPILATION_CACHE=0`, or the same in `jax.config`). A directory that cannot be
    written is none: programs are then compiled each time. An entry that is damaged is passed over.

    Args:
      least_seconds: programs that compile faster are not kept; JAX's own setting by default.

    Returns:
      The directory; None where nothing is kept by this.
    """
    given = jax.config.jax_compilation_cache_dir
    if not jax.config.jax_enable_compilation_cache or given not in (None, str(directory())):
        return None
    where = directory()
    try:
        where.mkdir(parents=True, exist_ok=True)
        # Only writing tells whether it can be written: modes say little to root or over a network.
        with tempfile.TemporaryFile(dir=where):
            pass
    except OSError:
        return None
    # Once in a process, as from then on JAX has been told this directory.
    if given is None:
        _prune(where, _MOST)
        jax.config.update("jax_compilation_cache_dir", str(where))
    if least_seconds is not None and not os.environ.get(f"{_LEAST}_SECS".upper()):
        jax.config.update(f"{_LEAST}_secs", least_seconds)
    return where


_LEAST = "jax_persistent_cache_min_compile_time"


def directory() -> pathlib.Path:
    """Where programs are kept, apart for every machine that would compile others.

    Programs are made for the instructions of one processor, and a home may be shared by several.
    """
    machine = f"{platform.machine()} {_instructions()}"
    digest = hashlib.blake2b(machine.encode(), digest_size=4).hexdigest()
    return user_cache() / f"programs-{jaxlib.__version__}-{digest}"


def _instructions() -> str:
    """The instructions of this processor, where the system lists them."""
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features")):
                return line.partition(":")[2]
    return platform.processor()


def _prune(where: pathlib.Path, most: int) -> None:
    """Removes what was not written for longest until the rest has at most so many bytes."""
    entries = []
    for path in where.iterdir():
        with contextlib.suppress(OSError):  # another process may prune, too
            found = path.stat()
            entries.append((found.st_mtime, found.st_size, path))
    total = sum(size for _, size, _ in entries)
    for _, size, path in sorted(entries, key=lambda entry: entry[0]):
        if total <= most:
            break
        with contextlib.suppress(OSError):
            path.unlink()
        total -= size
