"""Unknown names are answered with the nearest known ones."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def check_known(name: str, known: Iterable[str], what: str) -> None:
    """Checks a name that somebody typed.

    Args:
      name: what was given.
      known: what there is.
      what: what kind of thing it names, for the message.

    Raises:
      ValueError: an unknown name, with the nearest known ones.
    """
    known = list(known)
    if name in known:
        return
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    hint = f"; did you mean {' or '.join(near)}?" if near else "."
    raise ValueError(f"{name!r} is no {what.rstrip('.')}{hint} Known: {', '.join(sorted(known))}")
