"""What a command prints that only the installed files decide: made once, then read from disk."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import io
import os
import pathlib
import sys
from collections.abc import Callable

from fedjax_rl.saving import directory
from fedjax_rl.saving.places import user_cache


def kept(name: str, make: Callable[[], None]) -> str:
    """What a function prints, of which the user's cache directory has a copy from then on.

    To make it, everything is imported, which takes seconds. The copy holds as long as no file of
    the package changes, nor the packages that environments come from. Where it cannot be written,
    or what is there is damaged, the text is made anew.

    Args:
      name: of the file.
      make: prints.

    Returns:
      The text.
    """
    path, of = user_cache() / f"{name}.json", _installed()
    found = directory.read_sealed(path)
    if found is not None and found.get("of") == of:
        return found["text"]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        make()
    text = printed.getvalue()
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        directory.write_sealed(path, {"of": of, "text": text})
    return text


def _installed() -> str:
    """A digest of what is installed: our files by size and time, the others' versions."""
    root = pathlib.Path(__file__).parents[1]
    found = [str(root), sys.version]
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(own for own in folders if own != "__pycache__")
        for file in sorted(files):
            is_ = os.stat(os.path.join(folder, file))
            found.append(f"{folder}/{file} {is_.st_size} {is_.st_mtime_ns}")
    for package in ("gymnax", "brax"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.append(f"{package} {importlib.metadata.version(package)}")
    return hashlib.blake2b("\n".join(found).encode(), digest_size=16).hexdigest()
