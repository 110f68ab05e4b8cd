"""Maps of Frozen Lake: those that have a name, and those that a user writes as rows of letters."""

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


def letters_of(map: str | Sequence[str]) -> np.ndarray:
    """Returns a map as letters [rows, columns], after checking it."""
    if isinstance(map, str):
        check_known(map, MAPS, "map of frozen-lake")
        map = MAPS[map]
    plain = isinstance(map, list | tuple) and all(isinstance(row, str) for row in map)
    if not plain:
        raise ValueError(
            f"map is {brief(map)}; allowed: {', '.join(MAPS)}, or rows of the letters S, F, H and G"
        )
    lengths = {len(row) for row in map}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"map has rows of lengths {sorted(lengths)}; allowed: one length above 0")
    letters = np.array([list(row) for row in map])
    unknown = sorted(set(letters.ravel().tolist()) - set("SFHG"))
    if unknown:
        raise ValueError(f"map has the letters {', '.join(unknown)}; allowed: S, F, H and G")
    starts, goals = (int(np.sum(letters == letter)) for letter in "SG")
    if starts != 1:
        raise ValueError(f"map has {starts} cells S, the start; allowed: one")
    if not goals:
        raise ValueError("map has 0 cells G, the goal; allowed: at least one")
    return letters
