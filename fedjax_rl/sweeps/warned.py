"""Warnings that point at the line of the user, however many of our functions lie between."""

from __future__ import annotations

import sys
import warnings


def warn(text: str) -> None:
    """Warns at the first line outside this room.

    Args:
      text: what is said.
    """
    room, frame, level = __name__.rpartition(".")[0], sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(room):
        frame, level = frame.f_back, level + 1
    warnings.warn(text, stacklevel=level)
