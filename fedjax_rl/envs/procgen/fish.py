"""When and where the fish of BigFish are born: a function of level and step alone.

Axis letters: ``L`` levels of a table, ``R`` births of a level at most and one, 761.
"""

import dataclasses
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl import streams
from fedjax_rl.envs.procgen import levels

SIZE = 20.0  # of the world, width and height
TIME_LIMIT = 6000
NUM_BACKGROUNDS = 7
ASPECTS = (78 / 46, 112 / 88, 108 / 58)  # width to height of the three species
_ONE_IN = 10  # a fish is born in one step of ten
_MOST_BIRTHS = 760  # in 6000 steps: the mean and 6.9 standard deviations


class Start(NamedTuple):
    """What a level fixes at its start.

    Attributes:
      offset: of the background, float32 in [0, 1].
      background: int32 below `NUM_BACKGROUNDS`.
      x: of the player's centre, float32.
    """

    offset: chex.Array
    background: chex.Array
    x: chex.Array


class Birth(NamedTuple):
    """At most one birth in a step, float32 where nothing else is said.

    Attributes:
      born: bool.
      radius: half width, in (0.25, 2).
      y: of the centre.
      velocity: cells per step, positive to the right.
      species: int32, 0 to 2.
    """

    born: chex.Array
    radius: chex.Array
    y: chex.Array
    velocity: chex.Array
    species: chex.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class FishTable:
    """Levels of the classic source, for the device.

    Attributes:
      seeds: [L] uint32.
      offset: [L] float32, as of `Start`.
      background: [L] int32.
      x: [L] float32.
      ties: [L, ceil(6000 / 32)] uint32, one bit a step: a tie of both axes goes horizontally.
      births: [L, R, 5] float32: step, radius, y, velocity and species, in order of the step; 0
        where there are fewer.
    """

    seeds: chex.Array
    offset: chex.Array
    background: chex.Array
    x: chex.Array
    ties: chex.Array
    births: chex.Array


def native_start(seed: chex.Array) -> Start:
    """The start of a level by the native source; seed is uint32."""
    offset, background, x, _ = levels.native_words(seed, jnp.int32(0))
    return Start(
        offset=streams.uniform(offset),
        background=streams.scaled(background, NUM_BACKGROUNDS)[0],
        x=_start_x(streams.uniform(x)),
    )


def native_birth(seed: chex.Array, clock: chex.Array) -> tuple[chex.Array, Birth]:
    """Tie and birth of a step by the native source.

    Args:
      seed: of the level, uint32.
      clock: of the step, int32, the first one is 1.

    Returns:
      Whether a tie of both axes goes horizontally, bool, and the `Birth`.
    """
    lot, size, y, speed = levels.native_words(seed, clock)
    # The lowest bit, which the draws below, from the top of the word, hardly feel.
    tie = (lot & jnp.uint32(1)) == 0
    chance, rest = streams.scaled(lot, _ONE_IN)
    species, rest = streams.scaled(rest, len(ASPECTS))
    rightward = rest < jnp.uint32(2**31)
    radius = _radius(streams.uniform(size) ** 1.4)
    speed = _speed(streams.uniform(speed))
    return tie, Birth(
        born=chance == 1,
        radius=radius,
        # Not centred: large fish stay away from the upper rim, a refuge that is part of the game.
        y=streams.uniform(y) * (SIZE - 2 * radius),
        velocity=jnp.where(rightward, speed, -speed),
        species=species,
    )


def table_start(table: FishTable, row: chex.Array) -> Start:
    """The start of a level of a table; row is int32.

    Args:
      table: of the classic source.
      row: int32 scalar.
    """
    return Start(table.offset[row], table.background[row], table.x[row])


def table_birth(
    table: FishTable, row: chex.Array, clock: chex.Array, next_birth: chex.Array
) -> tuple[chex.Array, Birth]:
    """Tie and birth of a step of a table, as `native_birth`.

    Args:
      table: of the classic source.
      row: of the level, int32.
      clock: of the step, int32.
      next_birth: births of this level so far, int32.
    """
    step, radius, y, velocity, species = table.births[row, next_birth]
    tie = levels.read_bit(table.ties[row], clock - 1)
    born = step.astype(jnp.int32) == clock
    return tie, Birth(born, radius, y, velocity, species.astype(jnp.int32))


def classic_table(seeds: np.ndarray) -> FishTable:
    """Reads whole levels of the classic source, on the host.

    Args:
      seeds: uint32 [L].

    Returns:
      Tables of NumPy arrays; 16 kB a level.
    """
    words = levels.twister_words(seeds, 4 + 2 * TIME_LIMIT + 5 * _MOST_BIRTHS)
    first = levels.uniforms(words[:, :4])
    everyone = np.arange(len(seeds))
    place = np.full(len(seeds), 4)
    ties = np.empty((len(seeds), TIME_LIMIT), bool)
    births = []
    for step in range(1, TIME_LIMIT + 1):
        # The tie is the parity of a remainder by 10^6, which is that of the word.
        ties[:, step - 1] = words[everyone, place] % 2 == 0
        born = everyone[words[everyone, place + 1] % _ONE_IN == 1]
        place += 2
        if born.size:
            births.append((step, born, words[born[:, None], place[born, None] + np.arange(5)]))
            place[born] += 5

    steps = np.concatenate([np.full(born.size, step) for step, born, _ in births])
    owners = np.concatenate([born for _, born, _ in births])
    draws = np.concatenate([draws for *_, draws in births])
    share = levels.uniforms(draws)
    # In double precision, as the game has it: the levels are to be the same.
    radius = _radius(share[:, 0].astype(np.float64) ** 1.4).astype(np.float32)
    speed = _speed(share[:, 3])
    rows = np.stack(
        [
            steps.astype(np.float32),
            radius,
            share[:, 1] * (np.float32(SIZE) - 2 * radius),
            np.where(share[:, 2] < 0.5, speed, -speed),
            (draws[:, 4] % len(ASPECTS)).astype(np.float32),
        ],
        axis=1,
    )
    order = np.argsort(owners, kind="stable")
    owners, rows = owners[order], rows[order]
    number = np.arange(len(owners)) - np.searchsorted(owners, owners)
    table = np.zeros((len(seeds), _MOST_BIRTHS + 1, rows.shape[1]), np.float32)
    table[owners, number] = rows
    return FishTable(
        seeds=np.asarray(seeds, np.uint32),
        offset=first[:, 0],
        background=(words[:, 1] % NUM_BACKGROUNDS).astype(np.int32),
        x=_start_x(first[:, 2]),
        ties=levels.pack_bits(ties),
        births=table,
    )


def _start_x(share):
    # Whatever the player's size is: some begin across an edge, as in the game.
    return 0.4 + (SIZE - 0.8) * share


def _radius(power):
    return 1.75 * power + 0.25


def _speed(share):
    return 0.15 + 0.25 * share
