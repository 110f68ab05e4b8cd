"""The levels of CoinRun as tables.

Axis letters: ``L`` levels, ``G`` rows and columns of the padded grid, ``S`` saws, ``E`` enemies and
``C`` crates of a level at most, which are the same in all tables: one compiled program serves any
levels.
"""

import dataclasses
import functools

import chex
import jax
import numpy as np

from fedjax_rl.envs.procgen import levels
from fedjax_rl.envs.procgen.generator import (
    BARRIER,
    COIN,
    EMPTY,
    INTERIOR,
    LAVA_INTERIOR,
    LAVA_SURFACE,
    SIZE,
    SURFACE,
    Enemy,
    Level,
    make_level,
)

MARGIN = 8  # cells of ground around it in a table, more than a picture shows of them

# Cells as a table has them; saws and crates, which never move, are cells there.
CELLS = ("empty", "interior", "surface", "lava", "lava surface", "coin", "saw", "crate")
CODES = {name: code for code, name in enumerate(CELLS)}  # a crate of theme n is CODES["crate"] + n
_CODE_OF = {
    COIN: "coin",
    INTERIOR: "interior",
    SURFACE: "surface",
    LAVA_INTERIOR: "lava",
    LAVA_SURFACE: "lava surface",
    BARRIER: "empty",
    EMPTY: "empty",
}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class MapTable:
    """Levels of CoinRun for the device; float32 where nothing else is said.

    Attributes:
      seeds: [L] uint32.
      cells: [L, G, G] uint8, in the numbers of `CODES`, by column and row, `MARGIN` cells of
        ground around.
      ties: [L, 32] uint32, one bit a step.
      saws: [L, S, 2], centres; far outside where there are fewer.
      crates: [L, C, 2], likewise.
      enemies: [L, E, 6]: centre, velocity, the two ends of the free cells of its row, and what
        these ends do to it, the sum of `BRAKES` of the left end and four times that of the right.
      themes: [L, E] int32, of the enemies.
      background: [L] int32.
      offset: [L], of the background.
      player: [L] int32, colour.
      ground: [L] int32, theme.
    """

    seeds: chex.Array
    cells: chex.Array
    ties: chex.Array
    saws: chex.Array
    crates: chex.Array
    enemies: chex.Array
    themes: chex.Array
    background: chex.Array
    offset: chex.Array
    player: chex.Array
    ground: chex.Array


# The most that five sections can hold.
_MOST_SAWS, _MOST_ENEMIES, _MOST_CRATES = 36, 36, 30
# Where entities lie that are not there: no body ever comes near.
NOWHERE = -100.0
ENEMY_SPEED = 0.15
# What the end of an enemy's walk does to it: inner ground takes speed from it.
BRAKES = {"nothing": 0, "wall": 1, "wall with a crate": 3}
PLAYER_HALF_WIDTH, PLAYER_HALF_HEIGHT = 0.5, 0.5787
# Height of the player's centre over that of what it stands on, rounded as the game rounds it: who
# stands on a crate must not touch the saw beside it.
STANDING = np.float32(0.5) + np.float32(PLAYER_HALF_HEIGHT)


@functools.lru_cache(maxsize=4)
def map_table(mode: str, source: str, num_levels: int, start_level: int, pool: int) -> MapTable:
    """Makes all levels of a range, or of a pool, on the host.

    Args:
      mode: "easy" or "hard".
      source: "native" or "classic".
      num_levels: L, or 0 for a pool.
      start_level: the first one.
      pool: L of a pool.

    Returns:
      Tables of NumPy arrays; some 8 kB a level.
    """
    seeds = levels.level_seeds(num_levels, start_level, pool)
    made = [make_level(int(seed), mode, source) for seed in seeds]
    outside = CODES["interior"]
    cells = np.full((len(made), SIZE + 2 * MARGIN, SIZE + 2 * MARGIN), outside, np.uint8)
    code_of = np.zeros(EMPTY + 1, np.uint8)
    for kind, name in _CODE_OF.items():
        code_of[kind] = CODES[name]
    for table, level in zip(cells, made, strict=True):
        inner = table[MARGIN:-MARGIN, MARGIN:-MARGIN]
        inner[...] = code_of[level.grid]
        for column, row in level.saws:
            inner[column, row] = CODES["saw"]
        for column, row, theme in level.crates:
            inner[column, row] = CODES["crate"] + theme
    saws = [[_centre(*saw) for saw in level.saws] for level in made]
    crates = [[_centre(*crate[:2]) for crate in level.crates] for level in made]
    enemies = [[_walk(level, enemy) for enemy in level.enemies] for level in made]
    themes = [[[enemy.theme] for enemy in level.enemies] for level in made]
    return MapTable(
        seeds=seeds,
        cells=cells,
        ties=levels.pack_bits(np.stack([level.ties for level in made])),
        saws=_lists(saws, _MOST_SAWS, 2, NOWHERE),
        crates=_lists(crates, _MOST_CRATES, 2, NOWHERE),
        enemies=_lists(enemies, _MOST_ENEMIES, 6, NOWHERE),
        themes=_lists(themes, _MOST_ENEMIES, 1, 0)[..., 0].astype(np.int32),
        background=np.array([level.background for level in made], np.int32),
        offset=np.array([level.offset for level in made], np.float32),
        player=np.array([level.player for level in made], np.int32),
        ground=np.array([level.ground for level in made], np.int32),
    )


def _centre(column: int, row: int) -> tuple[float, float]:
    return column + 0.5, row + 0.5


def _walk(level: Level, enemy: Enemy) -> list[float]:
    """A row of `MapTable.enemies`: it walks between the next two cells of its row that stop it."""
    line = level.grid[:, enemy.row]
    stops = np.flatnonzero(np.isin(line, (INTERIOR, SURFACE, BARRIER)))
    left = stops[stops < enemy.column].max()
    right = stops[stops > enemy.column].min()
    crates = {column for column, row, _ in level.crates if row == enemy.row}

    def brake(stop, inward):
        if line[stop] != INTERIOR:
            return BRAKES["nothing"]
        reached = {stop + inward, stop + 2 * inward}  # the columns that it covers as it turns
        return BRAKES["wall with a crate" if crates & reached else "wall"]

    ends = brake(left, 1) + 4 * brake(right, -1)
    velocity = ENEMY_SPEED * enemy.direction
    return [*_centre(enemy.column, enemy.row), velocity, left + 1, right, ends]


def _lists(rows: list[list], count: int, width: int, empty: float) -> np.ndarray:
    """Pads lists of rows to float32 [L, count, width]."""
    table = np.full((len(rows), count, width), empty, np.float32)
    for place, row in zip(table, rows, strict=True):
        if row:
            place[: len(row)] = row
    return table
