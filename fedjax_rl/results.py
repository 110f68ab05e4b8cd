"""Labelled results on disk: one directory per command, every file written whole or not at all."""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import json
import os
import pathlib
import platform
import re
import tempfile

import h5netcdf
import jax
import xarray as xr
from xarray.backends import H5NetCDFStore

MARK = "fedjax_rl"
# What `write` calls a file until it is whole.
_TEMPORARY = re.compile(r"\..+\.(json|png|svg|nc|md)\.[a-z0-9_]{8}")
_PACKAGES = ("jax", "jaxlib", "numpy", "optax", "xarray", "gymnax", "brax", "mujoco", "mujoco-mjx")


def versions() -> dict[str, str]:
    """Versions of this package, of Python and of what the numbers depend on."""
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
        kind = _processor() or platform.machine()
        return f"cpu: {kind}, {os.cpu_count()} cores"
    return f"{len(devices)} x {kind}"


def _processor() -> str | None:
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or None


def write(path, data: bytes | str) -> None:
    """Writes a file so that it is there whole or as it was before.

    Raises:
      OSError: naming the file, when the disk is full or refuses.
    """
    path = pathlib.Path(path)
    data = data.encode() if isinstance(data, str) else data
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise OSError(
            error.errno, f"cannot write {path}: {error.strerror}; what was there is unchanged"
        ) from error


def write_json(path, value) -> None:
    """Writes plain values as JSON, atomically."""
    write(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def claim(directory, config: dict, resume: bool = False) -> pathlib.Path:
    """Makes a directory ours, with `config` saying what is run in it.

    Args:
      directory: new, empty, or to be resumed.
      config: plain values, enough to run it again.
      resume: accept a directory that already holds this very configuration.

    Raises:
      ValueError: it holds something else, or another run.
    """
    path = pathlib.Path(directory)
    if path.exists() and not path.is_dir():
        raise ValueError(f"out is {path}, which is a file; allowed: a new or empty directory")
    # What a process killed while it claimed the directory left behind does not count.
    present = [p.name for p in path.iterdir()] if path.is_dir() else []
    present = sorted(name for name in present if not name.startswith(".config.json."))
    if present:
        if "config.json" not in present or read_config(path) is None:
            raise ValueError(
                f"out is {path}, which holds {', '.join(present[:3])} and is not ours; allowed: a "
                "new or empty directory"
            )
        if not resume:
            raise ValueError(
                f"out is {path}, which already holds a run; allowed: a new or empty directory "
                f"(`fedjax-rl resume {path}` goes on where it stopped)"
            )
        return path
    made = [p for p in (path, *path.parents) if not p.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        write_json(path / "config.json", {"made_by": MARK, **config})
    except OSError:
        for directory in made:
            with contextlib.suppress(OSError):
                directory.rmdir()
        raise
    tidy(path)
    return path


def tidy(directory) -> None:
    """Removes the half-made files that a killed process left in a directory of ours."""
    for path in pathlib.Path(directory).iterdir():
        if _TEMPORARY.fullmatch(path.name):
            with contextlib.suppress(OSError):
                path.unlink()


def read_config(directory) -> dict | None:
    """The configuration of a directory of ours, or None when it is not ours."""
    try:
        config = json.loads((pathlib.Path(directory) / "config.json").read_text())
    except (OSError, ValueError):
        return None
    return config if isinstance(config, dict) and config.get("made_by") == MARK else None


def save(directory, result: xr.Dataset) -> None:
    """Writes `result.nc`, atomically.

    Wall time stays out of the file, so that a run resumed after a kill leaves the same bytes as
    one that never stopped; it stands in `summary.json`.
    """
    result = result.copy()
    result.attrs.pop("seconds", None)
    # In memory first: HDF5 does not survive a disk that fills up under it.
    buffer = io.BytesIO()
    store = H5NetCDFStore(h5netcdf.File(buffer, "w"))
    result.dump_to_store(store)
    store.close()
    write(pathlib.Path(directory) / "result.nc", buffer.getvalue())


def load(directory) -> xr.Dataset:
    """Reads the result of a directory, or of a `result.nc` file, into memory."""
    path = pathlib.Path(directory)
    path = path / "result.nc" if path.is_dir() else path
    with xr.open_dataset(path, engine="h5netcdf") as result:
        return result.load()
