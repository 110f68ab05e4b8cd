"""What is wrong with a name or a value that somebody gave, in words."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable

import numpy as np


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


def check_value(name: str, value, allowed: Callable, text: str) -> None:
    """Checks a value that somebody set.

    Args:
      name: of what was set.
      value: a number or an array, not traced.
      allowed: `array -> bool array`.
      text: what is allowed, in words.

    Raises:
      ValueError: naming what was set, its value and what is allowed.
    """
    try:
        fine = np.all(allowed(np.asarray(value, np.float64)))
    except (TypeError, ValueError):
        fine = False
    if not fine:
        raise ValueError(f"{name} is {value}; allowed: {text}")
