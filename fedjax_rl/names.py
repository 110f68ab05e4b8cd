"""What is wrong with a name that somebody gave, in words."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable


def brief(value, length: int = 80) -> str:
    """A value in one line of a message.

    Args:
      value: anything at all.
      length: most characters.

    Returns:
      Its text without line breaks, cut where it is longer.
    """
    try:
        text = repr(value) if isinstance(value, str | bytes) else str(value)
    except Exception:  # an object that cannot even be printed
        text = f"a {type(value).__name__}"
    text = " ".join(text.split())
    if len(text) > length and dataclasses.is_dataclass(value):
        return f"a {type(value).__name__}"
    return text if len(text) <= length else f"{text[: length - 3]}..."


def check_known(name: str, known: Iterable[str], what: str) -> None:
    """Checks a name that somebody typed.

    Args:
      name: what was given, of any type.
      known: what there is.
      what: what kind of thing it names, for the message.

    Raises:
      ValueError: an unknown name, with the nearest known ones.
    """
    known = list(known)
    if isinstance(name, str) and name in known:
        return
    near = nearest(name, known)
    hint = f"; did you mean {' or '.join(near)}?" if near else "."
    raise ValueError(
        f"{brief(name)} is no {what.rstrip('.')}{hint} Known: {', '.join(sorted(known))}"
    )


def nearest(name, known: Iterable[str]) -> list[str]:
    """The known names that somebody may have meant, none for what is no word.

    Args:
      name: what was given, of any type.
      known: what there is.

    Returns:
      At most three, the nearest first.
    """
    if not isinstance(name, str):
        return []
    # The search is quadratic in the lengths of the words.
    return difflib.get_close_matches(name[:80], known, n=3, cutoff=0.4)
