"""Labelled results on disk, and what they were made with."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import io
import numbers
import os
import pathlib
import platform

import h5netcdf
import h5py
import jax
import numpy as np
import xarray as xr
from xarray.backends import H5NetCDFStore

from fedjax_rl.identity import digest
from fedjax_rl.saving.directory import (
    claim,
    hushed,
    place,
    read_config,
    read_sealed,
    recover_config,
    remove_temporary,
    replace_config,
    write,
    write_json,
    write_sealed,
)

__all__ = [
    "claim",
    "device",
    "load",
    "place",
    "read_config",
    "read_sealed",
    "recover_config",
    "remove_temporary",
    "replace_config",
    "save",
    "versions",
    "write",
    "write_json",
    "write_sealed",
]

# The attribute of a `result.nc` that tells whether the rest is as it was written.
SEAL = "fedjax_rl_digest"
_PACKAGES = ("jax", "jaxlib", "numpy", "optax", "xarray", "gymnax", "brax", "mujoco", "mujoco-mjx")


def versions() -> dict[str, str]:
    """Versions of this package, of Python and of what the numbers depend on."""
    return dict(_versions())


# Reading them takes longer than a short run, and what is imported stays what it is.
@functools.cache
def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("fedjax_rl", *_PACKAGES):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def device() -> str:
    """The kind and number of devices, in words."""
    devices = jax.devices()
    kind = devices[0].device_kind
    if devices[0].platform == "cpu":
        # JAX calls every processor "cpu".
        kind = platform.processor() or platform.machine()
        with contextlib.suppress(OSError, StopIteration):
            lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
            kind = next(x.split(":", 1)[1].strip() for x in lines if x.startswith("model name"))
        return f"cpu: {kind}, {os.cpu_count()} cores"
    return f"{len(devices)} x {kind}"


def save(directory, result: xr.Dataset) -> None:
    """Writes `result.nc` into a directory, made if needed, atomically.

    Wall time stays out of the file, so that a run resumed after a kill leaves the same bytes as
    one that never stopped; it stands in `summary.json`. A digest of the content goes with it, so
    that `load` knows a damaged file.

    Example:
      >>> import tempfile
      >>> import fedjax_rl as frl
      >>> result = frl.sweep(frl.fedq(frl.envs.paper_mdp(), epsilon=1.0), num_steps=20)
      >>> with tempfile.TemporaryDirectory() as directory:
      ...     frl.save(directory, result)
      ...     frl.load(directory).equals(result)
      True

    Args:
      directory: made if needed.
      result: such as `sweep` returns.

    Raises:
      ValueError: no Dataset, or one with something that a file cannot hold.
      OSError: the disk is full or refuses; what was there is unchanged.
    """
    if isinstance(directory, xr.Dataset):
        raise ValueError(
            "directory is a Dataset; allowed: a path first, then what is saved, "
            "frl.save(directory, result)"
        )
    if not isinstance(result, xr.Dataset):
        raise ValueError(
            f"result is a {type(result).__name__}; allowed: a Dataset, such as "
            "`array.to_dataset(name=...)`"
        )
    result = result.copy()
    result.attrs = {n: v for n, v in result.attrs.items() if n not in ("seconds", SEAL)}
    for name, own in {"result": result, **result.variables}.items():
        _check_attributes(name, own.attrs)
    path = place(directory)
    data = _bytes(result)
    # Sealed as it is read, not as it is given: a file changes types of attributes on the way.
    with xr.open_dataset(io.BytesIO(data), engine="h5netcdf") as back:
        result.attrs[SEAL] = _seal(back)
    data = _bytes(result)
    path.mkdir(parents=True, exist_ok=True)
    write(path / "result.nc", data)


def _bytes(result: xr.Dataset) -> bytes:
    # In memory first: HDF5 does not survive a disk that fills up under it.
    buffer = io.BytesIO()
    store = H5NetCDFStore(h5netcdf.File(buffer, "w"))
    try:
        result.dump_to_store(store)
        store.close()
    except (TypeError, ValueError, AttributeError, h5netcdf.CompatibilityError) as error:
        raise ValueError(f"result has something that a file cannot hold: {error}") from error
    return buffer.getvalue()


def _check_attributes(name: str, attributes: dict) -> None:
    allowed = (str, bytes, numbers.Number, np.number, np.ndarray)
    for own, value in attributes.items():
        items = value if isinstance(value, list | tuple) else [value]
        kinds = all(isinstance(x, allowed) and not isinstance(x, bool | np.bool_) for x in items)
        if not isinstance(own, str) or not kinds:
            raise ValueError(
                f"attrs[{own!r}] of {name} is {value!r}; allowed: words, numbers and lists of these"
            )


def _seal(result: xr.Dataset) -> str:
    """A digest of everything that a file says."""
    return digest(
        {
            name: (own.dims, np.asarray(own.values), dict(own.attrs))
            for name, own in result.variables.items()
        },
        {name: value for name, value in result.attrs.items() if name != SEAL},
    )


def load(directory) -> xr.Dataset:
    """Reads the result of a directory, or of a `result.nc` file, into memory.

    Example:
      >>> import tempfile
      >>> import fedjax_rl as frl
      >>> result = frl.sweep(frl.fedq(frl.envs.paper_mdp(), epsilon=1.0), num_steps=20)
      >>> with tempfile.TemporaryDirectory() as directory:
      ...     frl.save(directory, result)
      ...     frl.load(f"{directory}/result.nc").attrs["algorithm"]
      'fedq'

    Args:
      directory: of a run, or the file.

    Raises:
      OSError: there is none, or it is damaged.
    """
    path = place(directory)
    path = path / "result.nc" if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"cannot read {path}: there is no such file")
    result = whole = None
    # What a reader says of junk has no end of kinds.
    with hushed(), contextlib.suppress(Exception):
        with h5py.File(path, "r"):
            pass
        with xr.open_dataset(path.absolute(), engine="h5netcdf") as opened:
            result = opened.load()
        whole = SEAL not in result.attrs or result.attrs[SEAL] == _seal(result)
    if not whole:
        raise OSError(
            f"cannot read {path}: it is damaged, or no result of ours; a run is mended by "
            f"`fedjax-rl resume {path.parent}`"
        )
    result.attrs.pop(SEAL, None)
    return result
