"""The rules of a grid world as a user writes them: read, checked, and made into tables."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fedjax_rl import fields
from fedjax_rl.envs.grid_moves import DIRECTIONS, outcomes_of
from fedjax_rl.envs.grid_tables import GridWorld, tabulated
from fedjax_rl.envs.tabular import check_size
from fedjax_rl.names import brief, check_known

# Of entering a cell by its letter, unless something else is said.
_REWARDS = {".": -1.0, "G": 0.0}
_STRENGTH = fields.number(0, 1000, follows=False)
_REWARD = fields.number(follows=False)


def world_of(letters: np.ndarray, rules: Mapping[str, Any], discount: float) -> GridWorld:
    """Builds the tables of a map.

    Args:
      letters: of the map, [rows, columns].
      rules: arguments of `grid_world` by name, as the functions below return them; "actions" are
        needed, what else is left out has its default.
      discount: in [0, 1].

    Returns:
      A `GridWorld`.

    Raises:
      ValueError: If the tables are too large, or there is no cell to begin in.
    """
    actions, walls = rules["actions"], letters == "#"
    check_size("map", f"of {letters.size} cells", letters.size, len(actions), letters.size)
    starts = rules.get("starts") or tuple(np.argwhere(letters == "S").tolist())
    if not starts:
        raise ValueError("map has 0 cells S, the start; allowed: at least one, or starts")
    rewards = _REWARDS | dict(rules.get("rewards", {}))
    # A start is a place like any other once an episode has begun.
    plain = np.where(np.isin(letters, ("S", "F")), ".", letters)
    reward = np.vectorize(lambda letter: float(rewards.get(letter, rewards["."])))(plain)
    wind = {d: _by_cell(d, s, letters.shape) for d, s in rules.get("wind", {}).items()}
    outcomes = outcomes_of(walls, actions, rules.get("slip", 0.0), wind, rules.get("clip", "once"))
    # Nobody is ever inside a wall; as ends, walls have the value 0 that tables begin with.
    ends = walls | np.isin(letters, list(rules.get("terminal", "GH")))
    for row, column in starts:
        if ends[row, column]:
            raise ValueError(
                f"starts has {(row, column)}, a cell {letters[row, column]} where an episode ends; "
                "allowed: other cells"
            )
    places = [row * letters.shape[1] + column for row, column in starts]
    return tabulated(outcomes, reward, ends, places, discount)


def _by_cell(direction: str, strength: Any, shape: tuple[int, int]) -> np.ndarray:
    """The strength of wind in every cell, [S], from a number or one for each column or row."""
    array = np.asarray(strength, np.float64)
    if array.ndim and direction in ("left", "right"):
        array = array[:, None]
    return np.broadcast_to(array, shape).ravel()


def actions_of(actions: Any) -> tuple[str, ...]:
    """Actions as a tuple of words, after checking them."""
    fields.check("actions", actions, fields.words(DIRECTIONS))
    return tuple(actions)


def terminal_of(terminal: Any) -> str:
    """Letters of cells where an episode ends, after checking them."""
    if not isinstance(terminal, str) or set(terminal) & set("SF.#"):
        raise ValueError(
            f"terminal is {brief(terminal)}; allowed: a word of letters of a map, without S, F, . "
            "and #"
        )
    return terminal


def wind_of(wind: Any, shape: tuple[int, int]) -> dict[str, Any]:
    """Wind by direction as plain numbers and tuples, after checking it."""
    if not isinstance(wind, Mapping | None):
        raise ValueError(f"wind is {brief(wind)}; allowed: a dictionary from directions to numbers")
    found = {}
    for direction, strength in (wind or {}).items():
        check_known(direction, [d for d in DIRECTIONS if d != "stay"], "direction of wind")
        name = f"wind[{direction!r}]"
        if isinstance(strength, str) or not isinstance(strength, Sequence | np.ndarray):
            fields.check(name, strength, _STRENGTH)
            found[direction] = float(strength)
            continue
        across, number = ("column", shape[1]) if direction in ("up", "down") else ("row", shape[0])
        if len(strength) != number:
            raise ValueError(
                f"{name} is {brief(strength)}; allowed: a number, or {number}, one a {across}"
            )
        for place, one in enumerate(strength):
            fields.check(f"{name}[{place}]", one, _STRENGTH)
        found[direction] = tuple(float(one) for one in strength)
    return found


def rewards_of(rewards: Any) -> dict[str, float]:
    """Rewards by letter as plain numbers, after checking them."""
    if not isinstance(rewards, Mapping | None):
        raise ValueError(
            f"rewards is {brief(rewards)}; allowed: a dictionary from letters to numbers"
        )
    for letter, reward in (rewards or {}).items():
        if not (isinstance(letter, str) and len(letter) == 1) or letter in "SF#":
            raise ValueError(
                f"rewards has the letter {brief(letter)}; allowed: letters of a map but S, F and #"
            )
        fields.check(f"rewards[{letter!r}]", reward, _REWARD)
    return {letter: float(reward) for letter, reward in (rewards or {}).items()}


def starts_of(starts: Any, letters: np.ndarray) -> tuple[tuple[int, int], ...] | None:
    """Cells where episodes begin as plain numbers, after checking them."""
    if starts is None:
        return None
    try:
        cells = np.asarray(starts)
        fine = cells.ndim == 2 and cells.shape[1] == 2 and len(cells) and cells.dtype.kind in "iu"
        fine = fine and bool(np.all((cells >= 0) & (cells < letters.shape)))
        fine = fine and not np.any(letters[tuple(cells.T)] == "#")
    except Exception:  # whatever is handed in as cells
        fine = False
    if not fine:
        raise ValueError(
            f"starts is {brief(starts)}; allowed: pairs (row, column) of cells on a map of "
            f"{letters.shape[0]} by {letters.shape[1]} that are no walls"
        )
    return tuple((row, column) for row, column in cells.tolist())
