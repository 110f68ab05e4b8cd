"""Levels are seeds: who draws them, and the two sources of what is random inside a level.

The native source is counter-based, threefry of (level seed, step, draw), and needs no tables. The
classic source is that of Procgen (Cobbe, Hesse, Hilton and Schulman, "Leveraging Procedural
Generation to Benchmark Reinforcement Learning", arXiv 1912.01588): the 32-bit words of a Mersenne
Twister seeded with the level, so that a level is the same one there and here. Its words are read
on the host and become tables.
"""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl import fields, streams
from fedjax_rl.names import check_known

# Seeds of unlimited levels are 0, ..., UNLIMITED - 1.
UNLIMITED = 2**31 - 1
# Levels that are tables: 1 to 2 GB of them, and a minute or two to make.
MOST_TABLES = 2**17
SOURCES = ("native", "classic")
GAMES = ("BigFish", "CoinRun")
MODES = ("easy", "hard")
_TAG = 0x9E3779B9  # makes a key of a seed; any number would do


def check_words(mode: str, source: str) -> None:
    """Checks what a game is asked for.

    Args:
      mode: of the game.
      source: of its levels.

    Raises:
      ValueError: an unknown mode or source, with the nearest known ones.
    """
    check_known(mode, MODES, "mode")
    check_known(source, SOURCES, "source of levels")


def check_levels(num_levels: Any, start_level: Any, pool: Any) -> None:
    """Checks a range of levels.

    Args:
      num_levels: 0 for all, or how many.
      start_level: the first one.
      pool: how many stand in for all of them where levels are tables.

    Raises:
      ValueError: If an argument is no integer or out of its range.
    """
    for name, value, least, most in (
        ("num_levels", num_levels, 0, UNLIMITED),
        ("start_level", start_level, 0, UNLIMITED),
        ("pool", pool, 1, MOST_TABLES),
    ):
        fields.check(name, value, fields.whole(least, most))
    if num_levels == 0 and start_level != 0:
        raise ValueError(
            f"start_level is {start_level} with num_levels 0, which is all levels; allowed: 0"
        )
    if start_level + num_levels > UNLIMITED:
        raise ValueError(
            f"start_level + num_levels is {start_level + num_levels}; allowed: at most {UNLIMITED}"
        )


def check_tables(num_levels: int) -> None:
    """Checks how many levels are to become tables.

    Raises:
      ValueError: If they would take all the memory, and hours to make.
    """
    if num_levels > MOST_TABLES:
        raise ValueError(
            f"num_levels is {num_levels} of levels that are tables; allowed: at most {MOST_TABLES}"
        )


def level_seeds(num_levels: int, start_level: int, pool: int) -> np.ndarray:
    """Returns the seeds of a range, or of a pool that stands in for all levels; uint32 [L].

    Args:
      num_levels: of the range; 0 for all levels.
      start_level: the first one.
      pool: L of all levels.
    """
    if num_levels:
        return np.arange(start_level, start_level + num_levels, dtype=np.uint32)
    # One pool for all runs, so that these compare.
    return np.random.default_rng(0).integers(UNLIMITED, size=pool, dtype=np.uint32)


def draw_level(key: chex.PRNGKey, num_levels: chex.Array, start_level: chex.Array) -> chex.Array:
    """Draws a level seed uniformly, with replacement.

    Args:
      key: consumed.
      num_levels: uint32, 0 for all.
      start_level: uint32.

    Returns:
      uint32 scalar.
    """
    word = jax.random.bits(key, dtype=jnp.uint32)
    count = jnp.where(num_levels == 0, jnp.uint32(UNLIMITED), num_levels)
    return start_level + word % count


def native_words(seed: chex.Array, step: chex.Array) -> tuple[chex.Array, ...]:
    """The random words of one step of a level by the native source.

    Args:
      seed: of the level, uint32.
      step: int32, 0 for the start of the level.

    Returns:
      Four uint32 scalars.
    """
    key = (seed, jnp.uint32(_TAG))
    block = jnp.asarray(step, jnp.uint32) * jnp.uint32(2)
    first, second = (streams.threefry_block(key, block + jnp.uint32(n)) for n in range(2))
    return *first, *second


def twister_words(seeds: np.ndarray, count: int) -> np.ndarray:
    """The first words of the classic source, on the host.

    Args:
      seeds: integer [L], of the levels.
      count: n.

    Returns:
      uint32 [L, n]: MT19937 after its usual initialisation by one integer.
    """
    rows = [np.random.RandomState(int(seed)).bytes(4 * count) for seed in seeds]
    return np.frombuffer(b"".join(rows), "<u4").reshape(len(seeds), count)


def uniforms(words: np.ndarray) -> np.ndarray:
    """Words of the classic source as float32 in [0, 1]."""
    return (words / 2.0**32).astype(np.float32)


def pack_bits(bits: np.ndarray) -> np.ndarray:
    """Packs bools [L, T] into uint32 [L, ceil(T / 32)], the first one lowest."""
    padded = np.pad(bits, ((0, 0), (0, -bits.shape[1] % 32)))
    return np.packbits(padded, axis=1, bitorder="little").view("<u4")


def read_bit(row: chex.Array, place: chex.Array) -> chex.Array:
    """Reads one bit of a packed row uint32 [W] back, a bool scalar; place is int32.

    Args:
      row: uint32 [W], of `pack_bits`.
      place: int32 scalar.
    """
    return ((row[place >> 5] >> (place & 31).astype(jnp.uint32)) & jnp.uint32(1)) == 1
