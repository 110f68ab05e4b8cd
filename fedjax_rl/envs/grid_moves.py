"""What a step on a grid may do: the action, what slips, and where the wind blows.

Axis letters: ``S`` cells (row by row), ``U`` actions; a cell is a row and a column.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import chex
import numpy as np

# Steps as (rows, columns).
DIRECTIONS = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0), "stay": (0, 0)}


def outcomes_of(
    walls: chex.ArrayNumpy,
    actions: Sequence[str],
    slip: float,
    wind: Mapping[str, chex.ArrayNumpy],
    clip: str,
) -> list[tuple[Any, np.ndarray]]:
    """Lists what a step may do; see `fedjax_rl.envs.grid_world` for the rules.

    Args:
      walls: [rows, columns] bool.
      actions: U words of `DIRECTIONS`.
      slip: probability that a step goes to a side of its direction, in [0, 1].
      wind: by direction, the mean cells [S] that a step from each cell is pushed.
      clip: "once" or "twice".

    Returns:
      Pairs of a probability, [] or [S, 1], and where it leads, [S, U, 2]. In every cell the
      probabilities sum to one.
    """
    cells = np.indices(walls.shape).reshape(2, -1).T[:, None]
    pushes = [_pushes(strength) for strength in wind.values()]
    found = []
    for turned, *blown in itertools.product(_turns(actions, slip), *pushes):
        chance, moves = turned
        units = [
            (np.array(DIRECTIONS[d]), count) for d, (_, count) in zip(wind, blown, strict=True)
        ]
        for mass, _ in blown:
            chance = chance * mass
        if clip == "once":
            total = moves + sum((count * unit for unit, count in units), np.zeros(2, int))
            ends = _stopped(cells, cells + total, walls)
        else:
            ends = _stopped(cells, cells + moves, walls)
            for unit, count in units:
                for pushed in range(int(np.max(count, initial=0))):
                    further = _stopped(ends, ends + unit, walls)
                    ends = np.where(pushed < count, further, ends)
        found.append((chance, ends))
    return found


def _turns(actions: Sequence[str], slip: float) -> list[tuple[float, np.ndarray]]:
    """Where actions lead, [U, 2], with the probability of it: to a side, ahead, to the other."""
    ahead = np.array([DIRECTIONS[action] for action in actions])
    if slip == 0:
        return [(1.0, ahead)]
    side, straight = slip / 2, 1 - slip
    # Thirds are to be three equal numbers, which 1 - 2/3 misses by a rounding.
    straight = side if math.isclose(straight, side, rel_tol=1e-12) else straight
    # A quarter of a turn takes (row, column) to (column, -row).
    turned = np.stack([ahead[:, 1], -ahead[:, 0]], axis=-1)
    return [(side, turned), (straight, ahead), (side, -turned)]


def _pushes(strength: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """How many cells a step is pushed, [S, 1, 1], with the probability of it, [S, 1].

    A strength of 1.3 is one cell for sure and a second one with probability 0.3.
    """
    least = np.floor(strength)
    further = strength - least
    whole = least.astype(int)[:, None, None]
    if not further.any():
        return [(np.ones((len(whole), 1)), whole)]
    return [((1 - further)[:, None], whole), (further[:, None], whole + 1)]


def _stopped(cells: np.ndarray, ends: np.ndarray, walls: np.ndarray) -> np.ndarray:
    """Where moves end, [S, U, 2]: inside the grid, and where a wall stands, where they began."""
    ends = np.clip(ends, 0, np.array(walls.shape) - 1)
    blocked = walls[ends[..., 0], ends[..., 1]]
    return np.where(blocked[..., None], cells, ends)
