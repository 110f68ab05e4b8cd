"""Directories of ours: one per command, claimed by one process, every file whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import pathlib
import re
import secrets
import sys
from collections.abc import Iterator

MARK = "fedjax_rl"
# What `write` calls a file until it is whole.
_TEMPORARY = re.compile(r"\..+\.(json|png|svg|nc|md|html)\.[a-z0-9_]{8}")
# Where a copy of the configuration lies, in case the first is damaged.
SPARE = pathlib.Path("checkpoints", "config.json")


def place(path) -> pathlib.Path:
    """A path as it was typed, with `~` for the home directory; all paths are read through this."""
    path = pathlib.Path(path)
    try:
        return path.expanduser()
    except RuntimeError:  # nobody of that name
        raise ValueError(f"path is {path}, whose home is not known; allowed: a path") from None


def write(path, data: bytes | str) -> None:
    """Writes a file so that it is there whole or as it was before.

    Args:
      path: of the file, in a directory that is there.
      data: all of it; words are encoded as UTF-8.

    Raises:
      OSError: naming the file, when the disk is full or refuses.
    """
    path = place(path)
    data = data.encode() if isinstance(data, str) else data
    try:
        # In the same directory: only within one file system is a file replaced at once.
        # Not by `tempfile`, whose files nobody else may read: the umask says who may.
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                # Or a crash of the machine could leave the new name with nothing in it.
                os.fsync(file.fileno())
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
    """Writes plain values as JSON, atomically.

    Args:
      path: of the file.
      value: plain values; NaN is refused.
    """
    write(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path) -> dict | None:
    """A record in JSON, or None where there is no whole one."""
    try:
        value = json.loads(pathlib.Path(path).read_text())
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def write_sealed(path, value: dict) -> dict:
    """Writes a record as JSON, atomically, with a digest that tells whether it is whole.

    Args:
      path: of the file.
      value: plain values by name, none of them "digest".

    Returns:
      What was written.
    """
    sealed = {**value, "digest": _digest(value)}
    write_json(path, sealed)
    return sealed


def read_sealed(path) -> dict | None:
    """A record that `write_sealed` has written, or None where it is not as it was."""
    value = read_json(path) or {}
    word = value.pop("digest", None)
    return value if word is not None and word == _digest(value) else None


def _digest(value: dict) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def held(directory) -> Iterator[bool]:
    """Keeps others, processes and threads, from working in the same directory.

    Yields:
      Whether it is still there; somebody may have removed it before it was held.

    Raises:
      ValueError: somebody is at work there.
    """
    try:
        import fcntl
    except ImportError:  # no such locks on this system
        yield True
        return
    try:
        handle = os.open(directory, os.O_RDONLY)
    except FileNotFoundError:
        yield False
        return
    try:
        try:
            # The system's own: however a process ends, no file is left that somebody has to remove.
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"directory is {directory}, where another process is at work; allowed: one at a "
                "time"
            ) from None
        except OSError:
            pass  # a file system without locks
        # Locked is what was opened; another process may have removed or replaced it before.
        yield _is(handle, directory)
    finally:
        os.close(handle)


def _is(handle: int, path) -> bool:
    """Whether an open directory is the one at a path."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def claim(directory, config: dict, resume: bool = False) -> pathlib.Path:
    """Makes a directory ours, with `config` saying what is run in it.

    Of several that claim one directory at the same time, one gets it; the others change nothing.

    Args:
      directory: new, empty, or to be resumed.
      config: plain values, enough to run it again.
      resume: accept a directory that already holds this very configuration.

    Returns:
      The directory, with `~` expanded.

    Raises:
      ValueError: it holds something else, or another run, or somebody is at work there.
    """
    path = place(directory)
    if path.exists() and not path.is_dir():
        raise ValueError(f"out is {path}, which is a file; allowed: a new or empty directory")
    while True:
        made = [p for p in (path, *path.parents) if not p.exists()]
        path.mkdir(parents=True, exist_ok=True)
        with held(path) as there:
            if not there:
                continue
            try:
                _claim(path, config, resume)
            except (OSError, ValueError):
                for own in made:  # as far as they are empty
                    with contextlib.suppress(OSError):
                        own.rmdir()
                raise
        return path


def _claim(path: pathlib.Path, config: dict, resume: bool) -> None:
    # What a process killed while it claimed the directory left behind does not count.
    present = sorted(p.name for p in path.iterdir() if not p.name.startswith(".config.json."))
    if present and read_config(path) is None and _spare(path) is None:
        raise ValueError(
            f"out is {path}, which holds {', '.join(present[:3])} and is not ours; allowed: a "
            "new or empty directory"
        )
    if present and not resume:
        raise ValueError(
            f"out is {path}, which already holds a run; allowed: a new or empty directory "
            f"(`fedjax-rl resume {path}` goes on where it stopped)"
        )
    if not present:
        whole = {"made_by": MARK, **config}
        write_sealed(path / "config.json", whole)
        _write_spare(path, whole)
        remove_temporary(path)


def _write_spare(path: pathlib.Path, config: dict) -> None:
    """A copy that tells whether it is whole; not to have one is no reason to stop."""
    with contextlib.suppress(OSError):
        (path / SPARE).parent.mkdir(exist_ok=True)
        write_sealed(path / SPARE, config)


def remove_temporary(directory) -> None:
    """Removes the half-made files that a killed process left in a directory of ours."""
    for path in place(directory).iterdir():
        if _TEMPORARY.fullmatch(path.name):
            with contextlib.suppress(OSError):
                path.unlink()


def read_config(directory) -> dict | None:
    """The configuration of a directory of ours, or None when it is not ours."""
    config = read_json(place(directory) / "config.json") or {}
    config.pop("digest", None)
    return config if config.get("made_by") == MARK else None


def _spare(path: pathlib.Path) -> dict | None:
    """The copy of the configuration, if it is whole."""
    config = read_sealed(path / SPARE)
    return config if config is not None and config.get("made_by") == MARK else None


def replace_config(directory, config: dict) -> None:
    """Writes what is run in a directory of ours from now on.

    Args:
      directory: ours.
      config: plain values, with whose it is under "made_by".

    Raises:
      OSError: the disk is full or refuses; what was there is unchanged.
    """
    path = place(directory)
    # Whoever is stopped in between leaves one that is whole, never two that differ.
    (path / SPARE).unlink(missing_ok=True)
    write_sealed(path / "config.json", config)
    _write_spare(path, config)


def recover_config(directory) -> dict | None:
    """The configuration of a directory to be resumed, mended from its copy where it is damaged.

    Returns:
      None where nothing says what was run.

    Raises:
      ValueError: it is not what was begun with.
    """
    path = place(directory)
    config, spare = read_config(path), _spare(path)
    if config is None and spare is not None:
        write_sealed(path / "config.json", spare)
        return spare
    if config is None or config == spare:
        return config
    file = path / "config.json"
    if spare is not None:
        differ = [n for n in sorted({*config, *spare}) if config.get(n) != spare.get(n)]
        words = ", ".join(f"{n} is {config.get(n)}, there {spare.get(n)}" for n in differ[:3])
        raise ValueError(
            f"{file} is not what the run was begun with, of which {path / SPARE} is a copy: "
            f"{words}; allowed: as it was, or a new directory"
        )
    # Without a digest it was written by hand, which is allowed.
    if "digest" in (read_json(file) or {}) and read_sealed(file) is None:
        raise ValueError(
            f"{file} is not what the run was begun with, and the copy of that is damaged; "
            "allowed: as it was, or a new directory"
        )
    _write_spare(path, config)
    return config


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Keeps readers of files that give up half-way from telling the terminal how they ended."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    loops = logging.getLogger("asyncio")
    disabled, loops.disabled = loops.disabled, True
    try:
        yield
    finally:
        sys.unraisablehook, loops.disabled = hook, disabled
