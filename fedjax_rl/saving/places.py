"""Where files are kept that can be made again."""

from __future__ import annotations

import os
import pathlib
import sys


def user_cache() -> pathlib.Path:
    """The package's part of the user's cache directory; it need not be there."""
    home = pathlib.Path(os.path.expanduser("~"))
    base = {
        "darwin": home / "Library" / "Caches",
        "win32": pathlib.Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local"),
    }.get(sys.platform, home / ".cache")
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or base) / "fedjax_rl"
