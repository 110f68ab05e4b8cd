"""Grid worlds with exact tables: Simple Grid, Windy Grid and Frozen Lake.

The first two follow Gunn, "Communication Efficient Distributed Reinforcement Learning" (report,
University of Oxford, 2023), sections on the environments; what it leaves open is said where it is
decided. Frozen Lake is that of Gymnasium (``gymnasium/envs/toy_text/frozen_lake.py``, the maps
"4x4" and "8x8" included); Gymnasium ships no map of 5 by 5, so that one is ours.

Axis letters: ``S`` states (row by row), ``U`` actions, ``B`` outcomes of a step at most.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fedjax_rl import fields
from fedjax_rl.envs.frozen_maps import letters_of
from fedjax_rl.envs.grid_tables import grid_world
from fedjax_rl.envs.grid_tasks import ENCODINGS, grid_task
from fedjax_rl.envs.tabular import DISCOUNT, check_size
from fedjax_rl.envs.task import Task
from fedjax_rl.names import check_known

# Steps as (rows, columns).
_LEFT, _RIGHT, _UP, _DOWN, _STAY = (0, -1), (0, 1), (-1, 0), (1, 0), (0, 0)

_SIZE = fields.whole(2)


@fields.checked(size=_SIZE, discount=DISCOUNT, max_steps=fields.COUNT)
def simple_grid(
    size: int = 5, encoding: str = "rc", discount: float = 0.9, max_steps: int = 100
) -> Task:
    """An empty square: from the top left to the bottom right cell, -1 for every step before.

    Actions are 0 left, 1 right, 2 up, 3 down, 4 stay; a wall stops a move. The step that enters
    the goal gives 0. Discount and length are ours, Gunn (2023) gives none.

    Args:
      size: rows and columns, at least 2.
      encoding: "rc" (row and column in [0, 1]), "onehot" or "index" (the raw number, [1]).
      discount: in [0, 1].
      max_steps: T, at least 1.

    Raises:
      ValueError: If an argument is out of its range.
    """
    return _open_grid("simple-grid", size, 0.0, "once", encoding, discount, max_steps, {})


@fields.checked(
    size=_SIZE,
    wind=fields.number(0, 1, follows=False),
    clip=fields.word(("once", "twice")),
    discount=DISCOUNT,
    max_steps=fields.COUNT,
)
def windy_grid(
    size: int = 5,
    wind: float = 0.3,
    clip: str = "once",
    encoding: str = "rc",
    discount: float = 0.9,
    max_steps: int = 100,
) -> Task:
    """A simple grid with wind: every step is pushed up and pushed left, each with some chance.

    The two pushes are independent of each other, and only the cell where the step ends counts.
    Whether a wall stops the sum or each part is open in Gunn (2023).

    Args:
      size: rows and columns, at least 2.
      wind: probability of a push, in [0, 1].
      clip: "once", the sum of the action and the pushes is kept inside; "twice", the action is,
        and then the pushes are.
      encoding: as of `simple_grid`.
      discount: in [0, 1].
      max_steps: T, at least 1.

    Raises:
      ValueError: If an argument is out of its range.
    """
    own = {"wind": wind, "clip": clip}
    return _open_grid("windy-grid", size, wind, clip, encoding, discount, max_steps, own)


@fields.checked(slippery=fields.switch(), discount=DISCOUNT, max_steps=fields.COUNT.or_none())
def frozen_lake(
    map: str | Sequence[str] = "5x5",
    slippery: bool = True,
    encoding: str = "rc",
    discount: float = 0.9,
    max_steps: int | None = None,
) -> Task:
    """Frozen Lake of Gymnasium: reach G from S over ice, holes end the episode; 1 at the goal.

    Actions are 0 left, 1 down, 2 right, 3 up. On slippery ice the action before, itself and the
    action after, in that circle, are taken with probability 1/3 each.

    Args:
      map: "5x5", "4x4", "8x8", or rows of the letters S (start, one), F (ice), H (hole), G (goal).
      slippery: False does what the action says.
      encoding: as of `simple_grid`.
      discount: in [0, 1].
      max_steps: T, at least 1; None is 100, and 200 for a map of 64 cells or more (Gymnasium's
        100 for its map of 4 by 4 and 200 for that of 8 by 8).

    Raises:
      ValueError: If the map is unknown or no map, or an argument is out of its range.
    """
    letters = letters_of(map)
    if max_steps is None:
        max_steps = 200 if letters.size >= 64 else 100
    check_size("map", f"of {letters.size} cells", letters.size, 4, letters.size)
    moves = np.array([_LEFT, _DOWN, _RIGHT, _UP])
    cells = _cells(letters.shape)
    turns = (-1, 0, 1) if slippery else (0,)
    outcomes = [
        (1 / len(turns), _inside(cells + moves[(np.arange(4) + turn) % 4], letters.shape))
        for turn in turns
    ]
    goal = letters.ravel() == "G"
    world = grid_world(
        outcomes,
        reward=goal.astype(np.float64),
        terminal=goal | (letters.ravel() == "H"),
        shape=letters.shape,
        start=int(np.argmax(letters.ravel() == "S")),
        discount=discount,
    )
    own = {"map": map if isinstance(map, str) else tuple(map), "slippery": slippery}
    return grid_task("frozen-lake", world, encoding, discount, max_steps, own)


def _open_grid(
    name: str,
    size: int,
    wind: float,
    clip: str,
    encoding: str,
    discount: float,
    max_steps: int,
    own: dict[str, Any],
) -> Task:
    """A square without obstacles, with wind or, where that is 0, without."""
    check_known(encoding, ENCODINGS, "encoding of a grid")
    check_size("size", size, size**2, 5, size**2)
    shape = (size, size)
    cells = _cells(shape) + np.array([_LEFT, _RIGHT, _UP, _DOWN, _STAY])
    if clip == "twice":
        cells = _inside(cells, shape)
    outcomes = []
    for up, up_mass in ((_STAY, 1 - wind), (_UP, wind)):
        for left, left_mass in ((_STAY, 1 - wind), (_LEFT, wind)):
            push = np.add(up, left)
            outcomes.append((up_mass * left_mass, _inside(cells + push, shape)))
    goal = np.arange(size**2) == size**2 - 1
    world = grid_world(outcomes, np.where(goal, 0.0, -1.0), goal, shape, 0, discount)
    return grid_task(name, world, encoding, discount, max_steps, {"size": size, **own})


def _cells(shape: tuple[int, int]) -> np.ndarray:
    """Returns [S, 1, 2], the row and the column of every state."""
    return np.indices(shape).reshape(2, -1).T[:, None]


def _inside(cells: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Keeps cells [..., 2] inside the grid."""
    return np.clip(cells, 0, np.array(shape) - 1)
