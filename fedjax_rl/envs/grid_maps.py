"""Maps of grid worlds: those that have a name, and those that a user writes as rows of letters.

A map is a rectangle of letters: S where an episode may begin, G a goal, H a hole, # a wall, and F
or a dot where nothing is. Any other letter is a cell of a kind of its own.
"""

from collections.abc import Sequence

import numpy as np

from fedjax_rl.names import brief, check_known

MAPS = {
    "5x5": ("SFFFF", "FHFHF", "FFFHF", "HFFFF", "FHFFG"),
    "4x4": ("SFFF", "FHFH", "FFFH", "HFFG"),
    "8x8": (
        "SFFFFFFF",
        "FFFFFFFF",
        "FFFHFFFF",
        "FFFFFHFF",
        "FFFHFFFF",
        "FHHFFFHF",
        "FHFFHFHF",
        "FFFHFFFG",
    ),
}
_NAMED = ", ".join(MAPS)


def rows_of(map: str | Sequence[str]) -> str | tuple[str, ...]:
    """A map as it is written down: its name, or its rows; rows in one word have / between them."""
    if isinstance(map, str):
        return tuple(map.split("/")) if "/" in map else map
    if isinstance(map, list | tuple) and all(isinstance(row, str) for row in map):
        return tuple(map)
    raise ValueError(
        f"map is {brief(map)}; allowed: {_NAMED}, or rows of letters such as ('S.', '.G')"
    )


def letters_of(map: str | Sequence[str], known: str | None = None) -> np.ndarray:
    """Reads a map.

    Args:
      map: the name of one of `MAPS`, its rows, or its rows in one word with / between them.
      known: the letters that are allowed; None allows a dot, # and any letter or digit.

    Returns:
      One letter a cell, [rows, columns].

    Raises:
      ValueError: If it is no map, has another letter or has no start.
    """
    rows = rows_of(map)
    if isinstance(rows, str):
        check_known(rows, MAPS, "map")
        rows = MAPS[rows]
    lengths = {len(row) for row in rows}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"map has rows of lengths {sorted(lengths)}; allowed: one length above 0")
    letters = np.array([list(row) for row in rows])
    # Blanks and the like are slips: two maps that differ in one look the same on a page.
    own = sorted(set(letters.ravel().tolist()))
    odd = [x for x in own if x not in known] if known else [x for x in own if not _plain(x)]
    if odd:
        text = ", ".join(known) if known else "letters, digits, '.' and '#'"
        raise ValueError(f"map has the letters {', '.join(odd)}; allowed: {text}")
    return letters


def _plain(letter: str) -> bool:
    return letter in ".#" or (letter.isascii() and letter.isalnum())
