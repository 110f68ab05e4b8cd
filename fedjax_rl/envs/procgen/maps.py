"""The levels of CoinRun: a generator on the host, and what it has drawn as tables.

The generator asks for random integers in a fixed order, so that the words of the classic source
give the levels of Procgen. Axis letters: ``L`` levels, ``G`` rows and columns of the padded grid,
``S`` saws, ``E`` enemies and ``C`` crates of a level at most, which are the same in all tables: one
compiled program serves any levels.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import numpy as np

from fedjax_rl.envs.procgen import levels

SIZE = 64  # cells of the world, width and height
MARGIN = 8  # cells of ground around it in a table, more than a picture shows of them
TIME_LIMIT = 1000
NUM_BACKGROUNDS = 62
_PLAYER_COLOURS, _GROUNDS, _ENEMY_LOOKS, _CRATE_LOOKS = 5, 6, 9, 4
_NUM_WORDS = 512  # of the generator; it takes some 150

# Cells as the generator writes them, in the numbers of Procgen.
COIN, INTERIOR, SURFACE, LAVA_INTERIOR, LAVA_SURFACE, BARRIER, EMPTY = 1, 15, 16, 17, 18, 19, 100
_LAVA, _SAWS, _ENEMIES = range(3)

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


class Enemy(NamedTuple):
    """An enemy where it is placed: cell, direction (-1 or 1) and theme."""

    column: int
    row: int
    direction: int
    theme: int


class Level(NamedTuple):
    """A level as the generator makes it.

    Attributes:
      grid: uint8 [64, 64] in the numbers of Procgen, by column and row.
      coin: its cell.
      saws: their cells.
      enemies: in order of placing.
      crates: (column, row, theme).
      background: 0 to 61.
      offset: of the background, in [0, 1].
      player: colour, 0 to 4.
      ground: theme, 0 to 5.
      ties: [1000] bool, a bit a step.
    """

    grid: np.ndarray
    coin: tuple[int, int]
    saws: list[tuple[int, int]]
    enemies: list[Enemy]
    crates: list[tuple[int, int, int]]
    background: int
    offset: float
    player: int
    ground: int
    ties: np.ndarray


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


def make_level(seed: int, mode: str, source: str) -> Level:
    """Makes a level.

    Args:
      seed: of the level.
      mode: "easy" or "hard".
      source: of the words, "native" or "classic".
    """
    words = _words(seed, source, _NUM_WORDS + TIME_LIMIT)
    taken = iter(words.tolist())
    draw = lambda count: next(taken) % count
    hard = mode == "hard"
    offset = float(np.float32(next(taken) / 2.0**32))
    background = draw(NUM_BACKGROUNDS)
    next(taken), next(taken)  # a place to start that this game does not use
    player, ground = (draw(_PLAYER_COLOURS), draw(_GROUNDS)) if hard else (0, 0)
    grid, coin, saws, enemies, crates, used = _generate(draw, hard)
    used += 6 if hard else 4
    return Level(
        grid=grid,
        coin=coin,
        saws=saws,
        enemies=enemies,
        crates=crates,
        background=background if hard else 0,
        offset=offset,
        player=player,
        ground=ground,
        ties=words[used : used + TIME_LIMIT] % 2 == 0,
    )


def _words(seed: int, source: str, count: int) -> np.ndarray:
    if source == "classic":
        return levels.twister_words(np.array([seed]), count)[0]
    return np.random.Philox(key=int(seed)).random_raw(count // 2).view("<u4")


def _generate(draw: Callable[[int], int], hard: bool):
    """Draws the shape of a level, from left to right in up to five sections.

    Args:
      draw: a uniform integer below its argument.
      hard: whether enemies walk on the floor.

    Returns:
      Grid, coin, saws, enemies, crates as of `Level`, and the number of draws.
    """
    count = 0

    def below(limit: int) -> int:
        nonlocal count
        count += 1
        return draw(limit)

    grid = np.full((SIZE, SIZE), EMPTY, np.uint8)
    saws, enemies, crates = [], [], []

    def block(column, row, width, height, interior=INTERIOR, surface=SURFACE):
        if width > 0 and height > 0:
            grid[column : column + width, row : row + height - 1] = interior
            grid[column : column + width, row + height - 1] = surface

    def place_enemy(column, row):
        direction = 2 * below(2) - 1
        enemies.append(Enemy(column, row, direction, below(_ENEMY_LOOKS)))

    def is_ground(column, row):
        return grid[column, row] in (INTERIOR, SURFACE)

    def pit(c, h, length):
        left, right = below(3) + 1, below(3) + 1
        start, gap = c + left, length - left - right
        block(c, 0, left, h)
        block(c + length - right, 0, right, h)
        depth = below(h - 3) + 1
        if danger == _LAVA:
            block(start, 1, gap, depth, LAVA_INTERIOR, LAVA_SURFACE)
        elif danger == _SAWS:
            saws.extend((start + n, 1) for n in range(gap))
        else:
            for n in range(gap):
                place_enemy(start + n, 1)
        if gap > 4:
            if gap == 5:
                away, width = 1 + below(2), 1 + below(2)
            elif gap == 6:
                away, width = 2 + below(2), 1 + below(2)
            else:
                away = 2 + below(2)
                width = gap - away - (2 + below(2))
            block(start + away, h - 1, width, 1)

    def floor(c, h, length):
        block(c, 0, length, h)
        busy = []
        if below(10) < 2 * difficulty and length > 3:
            busy.append(c + below(length - 2) + 1)
            saws.append((busy[-1], h))
        if below(10) < difficulty and length > 3 and hard:
            busy.append(c + below(length - 2) + 1)
            place_enemy(busy[-1], h)
        for _ in range(2):
            column = c + below(length - 2) + 1
            if below(2) == 1 and column not in busy:
                height = below(3) + 1
                crates.extend((column, h + n, below(_CRATE_LOOKS)) for n in range(height))

    grid[:, 0] = SURFACE
    grid[0], grid[-1], grid[:, -1] = INTERIOR, INTERIOR, INTERIOR
    difficulty = below(3) + 1
    sections = below(difficulty) + difficulty
    danger = below(3)
    more = int(difficulty == 3)
    c, h = 5, 1
    for _ in range(sections):
        if c + 15 >= SIZE:
            break
        rise = below(4) + 1 + more
        if h >= 20 or (h >= 5 and below(2) == 1):
            rise = -rise
        length = below(2 * difficulty) + 3 + more
        h = max(1, h + rise)
        if length > 7 and h > 3 and below(20) >= difficulty:
            pit(c, h, length)
        else:
            floor(c, h, length)
        if not is_ground(c - 1, h):
            grid[c - 1, h] = BARRIER
        c += length
        grid[c, h] = BARRIER
    grid[c, h] = COIN
    block(c, 0, 1, h)
    grid[c + 1 :] = INTERIOR
    return grid, (c, h), saws, enemies, crates, count


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
