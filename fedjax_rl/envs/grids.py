"""Grid worlds: a form for all of them, and Simple Grid, Windy Grid and Frozen Lake as its cases.

Simple Grid and Windy Grid follow Gunn, "Communication Efficient Distributed Reinforcement
Learning" (report, University of Oxford, 2023), sections on the environments; what it leaves open
is said where it is decided. Frozen Lake is that of Gymnasium
(``gymnasium/envs/toy_text/frozen_lake.py``, the maps "4x4" and "8x8" included); Gymnasium ships no
map of 5 by 5, so that one is ours.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from fedjax_rl import fields
from fedjax_rl.envs.grid_maps import letters_of, rows_of
from fedjax_rl.envs.grid_moves import DIRECTIONS
from fedjax_rl.envs.grid_rules import (
    actions_of,
    rewards_of,
    starts_of,
    terminal_of,
    wind_of,
    world_of,
)
from fedjax_rl.envs.grid_tables import GridWorld
from fedjax_rl.envs.grid_tasks import check_encoding, grid_task
from fedjax_rl.envs.tabular import DISCOUNT, check_size
from fedjax_rl.envs.task import Task

_SIZE = fields.whole(2)
_CLIP = fields.word(("once", "twice"))


@fields.checked(
    slip=fields.number(0, 1, follows=False),
    clip=_CLIP,
    discount=DISCOUNT,
    max_steps=fields.COUNT,
)
def grid_world(
    map: str | Sequence[str] = "S..../.##../..#../...../....G",
    actions: Sequence[str] = ("left", "right", "up", "down"),
    slip: float = 0.0,
    wind: Mapping[str, float | Sequence[float]] | None = None,
    clip: str = "once",
    rewards: Mapping[str, float] | None = None,
    terminal: str = "GH",
    starts: Sequence[tuple[int, int]] | None = None,
    encoding: str = "rc",
    discount: float = 0.9,
    max_steps: int = 100,
) -> Task:
    """A grid world of one's own, a task for every algorithm that takes grids.

    An action moves one cell. Walls and the edge stop a move; what a step gives depends on the cell
    where it ends alone. Two tasks are equal if everything in them is.

    Args:
      map: rows of letters, or one word with / between them, or the name of a lake: S where an
        episode begins, in any of them alike; G a goal, H a hole, # a wall, F or a dot where
        nothing is, any other letter or digit a cell that `rewards` or `terminal` speak of.
      actions: U different words of "left", "right", "up", "down", "stay".
      slip: probability that a move goes to a side of its direction instead, half of it to either;
        staying does not slip.
      wind: by direction the mean number of cells that a step is pushed besides: a number, or one
        for each column ("up", "down") or row ("left", "right") that a step begins in, from 0 to
        1000. 1.3 is one cell, and with probability 0.3 another. Directions are independent.
      clip: "once", the action and all pushes are added, and the sum is kept inside, or is none at
        all if it ends in a wall; "twice", one after the other is stopped, cell by cell.
      rewards: of entering a cell, by letter; by default -1, and 0 at a goal. What is not named has
        that of a dot, S and F always.
      terminal: letters of the cells where an episode ends.
      starts: (row, column) of the cells where an episode begins instead of those with an S, any of
        them alike; one that is named twice is twice as probable.
      encoding: what a policy sees, "rc" (row and column in [0, 1]), "onehot" or "index" (the raw
        number, [1]).
      discount: in [0, 1].
      max_steps: T, at least 1.

    Returns:
      A `Task` with exact tables in ``grid``; its S states are the cells, row by row, walls
      included.

    Raises:
      ValueError: If an argument is out of its range.

    Example:
      >>> import fedjax_rl as frl
      >>> cliff = frl.envs.grid_world(
      ...     ("......", "......", "SCCCCG"), rewards={"C": -100}, terminal="GC"
      ... )
      >>> cliff.num_states, cliff.num_actions
      (18, 4)
      >>> float(frl.envs.optimal_q(cliff.grid.mdp).max(-1)[12])  # 7 steps, the last of them free
      -4.68559
      >>> frl.dql(cliff).name
      'dql'
    """
    letters = letters_of(map)
    options = {
        "map": rows_of(map),
        "actions": actions_of(actions),
        "slip": slip,
        "wind": wind_of(wind, letters.shape),
        "clip": clip,
        "rewards": rewards_of(rewards),
        "terminal": terminal_of(terminal),
        "starts": starts_of(starts, letters),
    }
    world = world_of(letters, options, discount)
    return grid_task("grid-world", world, encoding, discount, max_steps, options)


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

    Returns:
      A `Task` with exact tables.

    Raises:
      ValueError: If an argument is out of its range.

    Example:
      >>> import fedjax_rl as frl
      >>> best = frl.envs.optimal_q(frl.envs.simple_grid(3).grid.mdp).max(-1)
      >>> round(float(best[0]), 2)  # 4 steps, the last of them free
      -2.71
    """
    world = _open_world(size, 0.0, "once", encoding, discount)
    return grid_task("simple-grid", world, encoding, discount, max_steps, {"size": size})


@fields.checked(
    size=_SIZE,
    wind=fields.number(0, 1, follows=False),
    clip=_CLIP,
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

    Returns:
      A `Task` with exact tables.

    Raises:
      ValueError: If an argument is out of its range.

    Example:
      >>> import fedjax_rl as frl
      >>> frl.envs.windy_grid(wind=0.5).grid.probability.shape  # S, U and the outcomes of a step
      (25, 5, 4)
    """
    world = _open_world(size, wind, clip, encoding, discount)
    own = {"size": size, "wind": wind, "clip": clip}
    return grid_task("windy-grid", world, encoding, discount, max_steps, own)


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
      map: "5x5", "4x4", "8x8", or rows of the letters S (start), F (ice), H (hole), G (goal), a
        list or one word with / between them. Of several starts any is taken alike.
      slippery: False does what the action says.
      encoding: as of `simple_grid`.
      discount: in [0, 1].
      max_steps: T, at least 1; None is 100, and 200 for a map of 64 cells or more (Gymnasium's
        100 for its map of 4 by 4 and 200 for that of 8 by 8).

    Returns:
      A `Task` with exact tables.

    Raises:
      ValueError: If the map is unknown or no map, or an argument is out of its range.

    Example:
      >>> import fedjax_rl as frl
      >>> lake = frl.envs.frozen_lake("4x4", discount=0.99)
      >>> round(float(frl.envs.optimal_q(lake.grid.mdp).max(-1)[0]), 4)
      0.542
    """
    letters = letters_of(map, "SFHG")
    if "G" not in letters:
        raise ValueError("map has 0 cells G, the goal; allowed: at least one")
    if max_steps is None:
        max_steps = 200 if letters.size >= 64 else 100
    check_encoding(encoding)
    # In the order of a circle, so that a side of an action is the one before or after it.
    rules = {
        "actions": ("left", "down", "right", "up"),
        "slip": 2 / 3 if slippery else 0.0,
        "rewards": {".": 0.0, "G": 1.0},
    }
    world = world_of(letters, rules, discount)
    own = {"map": rows_of(map), "slippery": slippery}
    return grid_task("frozen-lake", world, encoding, discount, max_steps, own)


def _open_world(size: int, wind: float, clip: str, encoding: str, discount: float) -> GridWorld:
    """A square without obstacles, with wind or, where that is 0, without."""
    check_encoding(encoding)
    check_size("size", size, size**2, 5, size**2)
    letters = np.full((size, size), ".")
    letters[0, 0], letters[-1, -1] = "S", "G"
    rules = {"actions": (*DIRECTIONS,), "wind": {"up": wind, "left": wind}, "clip": clip}
    return world_of(letters, rules, discount)
