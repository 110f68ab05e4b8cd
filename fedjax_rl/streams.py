"""Random streams: one key per agent, one word per counter.

Agent `i` of a federation with a given seed owns the key `fold_in(key(seed), i)`, whatever the
size of its federation, whatever else is in the population and however it is laid over devices.
Inner loops read that stream by counter, so that nothing of the size of the run is ever stored.

Whatever else draws folds a number into that key first, and which one stands here: `Engine` for
what every algorithm may meet, the other registers for algorithms that never meet each other. Two
who fold in the same number draw the same words. An algorithm of one's own is given
`own_keys(keys)`, into which it may fold what it likes.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

# The user's default generator may be another one; ours is fixed, because `rbg` under vmap does
# not draw what it draws in a loop.
IMPLEMENTATION = "threefry2x32"

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA


@enum.unique
class Engine(enum.IntEnum):
    """Streams of the engine, apart from those of every algorithm."""

    # A number once given stays: with another one every recorded run would draw other words.
    UPLINK = 1
    CLOCK = 64
    OWN = 16


@enum.unique
class Episodic(enum.IntEnum):
    """Streams of algorithms whose rounds are made of episodes."""

    MODEL = 2
    NOISE = 3
    RESET = 4
    EPISODE = 5
    LEARNER = 6
    MEMORY = 7
    FIRST = 8
    EVALUATION = 9
    HELD_OUT = 10
    CRITIC = 11


@enum.unique
class Epochs(enum.IntEnum):
    """Streams of algorithms whose rounds are made of epochs of vectorised environments."""

    MODEL = 2
    ENVIRONMENTS = 3
    ROLLOUT = 4
    SHUFFLE = 5
    EVALUATION = 6
    HELD_OUT = 7
    REPLAY = 8


@enum.unique
class Tabular(enum.IntEnum):
    """Streams of tabular learners, which read their key by counter besides."""

    RESET = 3
    RELAXED = 4


@enum.unique
class OfEpisode(enum.IntEnum):
    """Streams of the key of one episode, which its steps read by counter."""

    START = 3


@enum.unique
class Own(enum.IntEnum):
    """Streams of `Engine.OWN`, one for each place where an algorithm of one's own draws."""

    FIRST = 1
    MODEL = 2
    STEP = 3
    WORK = 4
    BEGIN = 5
    AFTER = 6


# Each with `Engine` is a set of different numbers; `tests/test_streams.py` looks.
REGISTERS = (Episodic, Epochs, Tabular)


def keys_of(keys, stream: int, time=None) -> jax.Array:
    """One stream of every agent.

    Args:
      keys: typed keys [A].
      stream: its number in a register.
      time: an integer, one for all or one for each agent, [A], folded in besides; None for none.

    Returns:
      Typed keys [A].
    """
    # One after the other: in a sum of both, streams would meet.
    own = fold(keys, stream)
    return own if time is None else fold(own, time)


def fold(keys, number) -> jax.Array:
    """`jax.random.fold_in`, of any number of keys, the same bits.

    Written out, as `threefry_block` is: the loop that `jax.random` calls takes as long as several
    steps of an episode.

    Args:
      keys: typed keys [...].
      number: integer, broadcasts with the keys.

    Returns:
      Typed keys [...].
    """
    number = jnp.asarray(number).astype(jnp.uint32)
    if not _written_out(keys):
        return jnp.vectorize(jax.random.fold_in)(keys, number)
    data = jax.random.key_data(keys)
    block = threefry_block((data[..., 0], data[..., 1]), number)
    return jax.random.wrap_key_data(jnp.stack(block, axis=-1), impl=IMPLEMENTATION)


def bits(key, shape: tuple[int, ...] = ()) -> jax.Array:
    """`jax.random.bits(key, shape)`, exactly, written out likewise.

    Args:
      key: typed key; consumed.
      shape: of few words.

    Returns:
      uint32 of that shape.
    """
    if not _written_out(key):
        return jax.random.bits(key, shape, jnp.uint32)
    data = jax.random.key_data(key)
    places = jnp.arange(math.prod(shape), dtype=jnp.uint32).reshape(shape)
    return threefry((data[0], data[1]), places)


def uniform_of(key, dtype, size: int | None = None) -> jax.Array:
    """`jax.random.uniform(key, (), dtype)`, exactly, written out likewise.

    Args:
      key: typed key; consumed.
      dtype: of the result.
      size: how many numbers, few; None for a scalar.

    Returns:
      A scalar, or [size], in [0, 1).
    """
    if not _written_out(key) or dtype != jnp.float32:
        return jax.random.uniform(key, () if size is None else (size,), dtype)
    word = bits(key, () if size is None else (size,))
    # The upper 23 bits behind the exponent of 1: a float in [1, 2).
    one_to_two = (word >> _word(9)) | _word(0x3F800000)
    return jax.lax.bitcast_convert_type(one_to_two, jnp.float32) - 1


def below(key, span, shape: tuple[int, ...]) -> jax.Array:
    """`jax.random.randint(key, shape, 0, span)`, exactly, written out where it has 32 bits.

    Args:
      key: typed key; consumed.
      span: int32 scalar, at least 1.
      shape: of the result.

    Returns:
      Integers of that shape and of JAX's default dtype, in 0..span-1.
    """
    if not _written_out(key) or jax.config.jax_enable_x64:
        return jax.random.randint(key, shape, jnp.int32(0), span)
    span = jnp.asarray(span).astype(jnp.uint32)
    first, second = (bits(fold(key, number), shape) % span for number in range(2))
    # The first counts 2^32 times as much: what is left of their sum is nearly uniform.
    half = _word(2**16) % span
    return ((first * ((half * half) % span) + second) % span).astype(jnp.int32)


def _written_out(keys) -> bool:
    """Whether keys are of the generator that is written out here, as `jax.random` uses it."""
    return (
        str(jax.random.key_impl(keys)) == "threefry2x32" and jax.config.jax_threefry_partitionable
    )


def own_keys(keys, place: Own | None = None) -> jax.Array:
    """The keys that an algorithm of one's own is given, [A] -> [A].

    Whatever it folds in, it draws none of the words that the engine draws, nor those of another
    place.

    Args:
      keys: typed keys [A] of the agents.
      place: where they are used; None for all places in common.

    Returns:
      Typed keys [A].
    """
    own = keys_of(keys, Engine.OWN)
    return own if place is None else keys_of(own, place)


def any_key() -> jax.ShapeDtypeStruct:
    """What stands for a key where only the shapes of what is drawn are asked for."""
    return jax.eval_shape(lambda: jax.random.key(0))


def agent_keys(seeds, members) -> jax.Array:
    """The key of every agent: `fold_in(key(seed), member)`.

    Args:
      seeds: integer [A], the seed of each agent's federation.
      members: integer [A], its place in the federation.

    Returns:
      Typed threefry keys [A].
    """
    root = jax.vmap(lambda seed: jax.random.key(seed, impl=IMPLEMENTATION))(jnp.asarray(seeds))
    # By its place alone: what `split` gives may depend on how many it is asked for.
    return jax.vmap(jax.random.fold_in)(root, jnp.asarray(members))


def _word(value: int) -> jax.Array:
    return jnp.uint32(value)


@jax.jit
def threefry_block(key, counter) -> tuple[jax.Array, jax.Array]:
    """Both words of block `counter` of threefry-2x32 with 20 rounds.

    After Salmon, Moraes, Dror and Shaw, *Parallel random numbers: as easy as 1, 2, 3*, 2011,
    written out so that it fuses into the caller's loop; `jax.random` calls a rolled loop instead,
    which costs several times the whole learning step.

    Args:
      key: uint32 pair, the data of a typed threefry key.
      counter: uint32 scalar.

    Returns:
      Two uint32 scalars, independent of each other.
    """
    schedule = (key[0], key[1], key[0] ^ key[1] ^ _word(_PARITY))
    # The 64-bit counter of jax.random's partitionable threefry is (0, counter).
    a, b = schedule[0], counter + schedule[1]
    for block in range(5):
        for distance in _ROTATIONS[block % 2]:
            a = a + b
            b = a ^ ((b << _word(distance)) | (b >> _word(32 - distance)))
        a = a + schedule[(block + 1) % 3]
        b = b + schedule[(block + 2) % 3] + _word(block + 1)
    return a, b


def threefry(key, counter) -> jax.Array:
    """Word `counter` of a key's stream: `jax.random.bits(key, (n,))[counter]`, exactly.

    Args:
      key: uint32 pair, the data of a typed threefry key.
      counter: uint32 scalar.

    Returns:
      uint32 scalar.
    """
    a, b = threefry_block(key, counter)
    # Both words of the block, as `jax.random` makes one of 32 bits when it is partitionable.
    return a ^ b


def integer_hash(key, counter) -> jax.Array:
    """A 32-bit mixer over key and counter: half the cost of threefry, 32 bits of state.

    Two rounds of xor-shift and multiplication with the constants of Wellons' `lowbias32`.
    Statistically adequate for simulation here (see `tests/test_streams.py`), and opt-in.

    Args:
      key: uint32 pair, the data of a typed threefry key.
      counter: uint32 scalar.

    Returns:
      uint32 scalar.
    """

    def mix(x):
        x = (x ^ (x >> _word(16))) * _word(0x7FEB352D)
        x = (x ^ (x >> _word(15))) * _word(0x846CA68B)
        return x ^ (x >> _word(16))

    # 2^32 over the golden ratio: counters in a row start far from each other.
    return mix(mix(key[0] + counter * _word(0x9E3779B9)) ^ key[1])


GENERATORS: dict[str, Callable] = {"threefry": threefry, "hash": integer_hash}


def scaled(word, n: int) -> tuple[jax.Array, jax.Array]:
    """Splits a word `w` into the integer `floor(w n / 2^32)` and the fraction left over.

    A word is a fraction of 2^32. Multiplied by `n`, its integer part is uniform on 0..n-1 and the
    rest is a fresh fraction, coarser by log2(n) bits: one word serves two draws.

    Args:
      word: uint32 scalar.
      n: at most 2^16.

    Returns:
      int32 scalar in 0..n-1, and uint32 scalar.
    """
    low, high = word & _word(0xFFFF), word >> _word(16)
    # The product needs 48 bits; in halves, every intermediate fits into 32.
    integer = (high * _word(n) + ((low * _word(n)) >> _word(16))) >> _word(16)
    return integer.astype(jnp.int32), word * _word(n)


def uniform(word, dtype=jnp.float32) -> jax.Array:
    """The word as a float in [0, 1), of 24 bits.

    Args:
      word: uint32, of any shape.
      dtype: of the result.

    Returns:
      A number of that dtype, in steps of 2^-24.
    """
    # Through int32: unsigned to float conversion is emulated on most vector units.
    # 24 bits, as many as a float32 has: with more of them the largest would be rounded to 1.
    return (word >> _word(8)).astype(jnp.int32).astype(dtype) * jnp.asarray(2.0**-24, dtype)


def normal(word, dtype=jnp.float32) -> jax.Array:
    """The word as a standard normal variate, by inversion.

    Args:
      word: uint32, of any shape.
      dtype: of the result.

    Returns:
      A number of that dtype, always finite.
    """
    # The middle of each of 2^24 steps: never -1 or 1, where the inverse is infinite.
    centred = 2 * uniform(word, dtype) - jnp.asarray(1 - 2.0**-24, dtype)
    return jnp.asarray(2.0**0.5, dtype) * jax.lax.erf_inv(centred)
