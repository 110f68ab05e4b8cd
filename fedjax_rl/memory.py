"""How much memory there is, and how much arrays take."""

from __future__ import annotations

import contextlib
import math
import pathlib
import re

import jax


def size(tree) -> int:
    """Bytes of the arrays of a pytree, or of arrays of these shapes and dtypes."""
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def available(devices: int | None = None) -> int | None:
    """Bytes that so many devices have or, on a CPU, that are free; None if unknown.

    Args:
      devices: all of them by default.
    """
    # What JAX may take of a device, which is less than it has; a CPU does not say.
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    if limit:
        return limit * (jax.device_count() if devices is None else devices)
    with contextlib.suppress(OSError):
        # Not MemFree, which leaves out what the system would give back of its caches.
        found = re.search(r"MemAvailable:\s+(\d+) kB", pathlib.Path("/proc/meminfo").read_text())
        return int(found[1]) * 1024 if found else None
    return None


def resident() -> int:
    """Bytes of memory that this process has; 0 if unknown."""
    with contextlib.suppress(OSError):
        found = re.search(r"VmRSS:\s+(\d+) kB", pathlib.Path("/proc/self/status").read_text())
        return int(found[1]) * 1024 if found else 0
    return 0


def most_agents(algorithm, there: int | None = None) -> int:
    """Agents that a device holds, whatever their federations; many where nothing is known.

    Args:
      algorithm: a `federation.Algorithm` that says what it needs.
      there: bytes of a device; those that are free now by default.

    Returns:
      Their number; 2^20 where nothing is known.
    """
    there = available(devices=1) if there is None else there
    return 2**20 if there is None else there // algorithm.memory(algorithm.config, 1)["total"]


def words(count: float) -> str:
    """A number of bytes for people, such as "1.61 GiB"."""
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    while count >= 1024 and len(units) > 1:
        count /= 1024
        del units[0]
    return f"{count:.3g} {units[0]}"
