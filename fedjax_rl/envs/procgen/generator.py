"""The generator of CoinRun's levels, on the host.

It asks for random integers in a fixed order, so that the words of the classic source give the
levels of Procgen.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fedjax_rl.envs.procgen import levels

SIZE = 64  # cells of the world, width and height
TIME_LIMIT = 1000
NUM_BACKGROUNDS = 62
_PLAYER_COLOURS, _GROUNDS, _ENEMY_LOOKS, _CRATE_LOOKS = 5, 6, 9, 4
_NUM_WORDS = 512  # of the generator; it takes some 150

# Cells as the generator writes them, in the numbers of Procgen.
COIN, INTERIOR, SURFACE, LAVA_INTERIOR, LAVA_SURFACE, BARRIER, EMPTY = 1, 15, 16, 17, 18, 19, 100
_LAVA, _SAWS, _ENEMIES = range(3)


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
        # Drawn whatever the danger is: the words behind it are those of Procgen.
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
        # Drawn on easy levels, too, for the same reason.
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
