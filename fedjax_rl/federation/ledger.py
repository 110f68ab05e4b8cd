"""What a federation spends: communications, messages, floats, bytes and environment steps.

Costs are counted where they are spent, in the state of the simulation, so that they are saved,
resumed, swept and sharded like everything else.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from fedjax_rl import fields
from fedjax_rl.fields.record import Record, record, static

COLUMNS = (
    "communications",
    "messages_up",
    "messages_down",
    "floats_up",
    "floats_down",
    "bytes_up",
    "bytes_down",
    "env_steps",
)


WORD_BYTES = (2, 4, 8)
WORD = fields.anything(
    ", ".join(map(str, WORD_BYTES)), lambda value: fields.is_whole(value) and value in WORD_BYTES
)
HEADER = fields.whole(0)


@record
class Wire(Record):
    """The format of messages of different sizes.

    Attributes:
      word_bytes: bytes of a number, 2, 4 (float32 and int32) or 8.
      header_bytes: bytes of every message besides, such as a sender's name.

    Raises:
      ValueError: a format that does not exist.
    """

    word_bytes: int = static(4, WORD)
    header_bytes: int = static(0, HEADER)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Ledger:
    """Counters of every federation since the start of the run.

    A counter is two 32-bit words, because runs pass 2^32 bytes long before JAX's default
    integers could say so.

    Attributes:
      low, high: uint32 [F, C], the words of the counters; `COLUMNS` names the axis C.
    """

    low: jax.Array
    high: jax.Array

    def add(self, each: jax.Array, *times) -> Ledger:
        """Adds the line `each`, uint32 [C], as often as the product of `times` says.

        Args:
          each: what happens once, from `line`.
          *times: one or two factors, uint32 [F]; their product with an entry may pass 2^32.
        """
        first, second = (*times, jnp.ones_like(times[0]))[:2]
        count, count_high = wide_product(first, second)
        more, carried = wide_product(each[None, :], count[:, None])
        carried = carried + each[None, :] * count_high[:, None]
        low = self.low + more
        return Ledger(low, self.high + carried + (low < more).astype(jnp.uint32))

    def totals(self) -> dict[str, np.ndarray]:
        """The counters on the host, int64 [F] by name."""
        words = np.asarray(self.low).astype(np.int64), np.asarray(self.high).astype(np.int64)
        both = words[0] + (words[1] << 32)
        return {name: both[..., c] for c, name in enumerate(COLUMNS)}


def wide_product(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Low and high words of the 64-bit product of two uint32 arrays that broadcast."""
    half, mask = jnp.uint32(16), jnp.uint32(0xFFFF)
    a, b = jnp.broadcast_arrays(a, b)
    a0, a1, b0, b1 = a & mask, a >> half, b & mask, b >> half
    low, cross, other = a0 * b0, a1 * b0, a0 * b1
    middle = (low >> half) + (cross & mask) + (other & mask)
    high = a1 * b1 + (cross >> half) + (other >> half) + (middle >> half)
    return (low & mask) | (middle << half), high


def ledger(num_federations: int) -> Ledger:
    """An empty ledger for `num_federations` federations."""
    zeros = jnp.zeros((num_federations, len(COLUMNS)), jnp.uint32)
    return Ledger(zeros, zeros)


def line(**amounts: int) -> jax.Array:
    """What something costs once, uint32 [C]: the named columns, the others zero."""
    return jnp.asarray([amounts.get(name, 0) for name in COLUMNS], jnp.uint32)


def tree_floats(tree) -> int:
    """Numbers in one message with the shape of `tree`."""
    return sum(math.prod(jnp.shape(leaf)) for leaf in jax.tree.leaves(tree))


def tree_bytes(tree) -> int:
    """Bytes of one message with the shape of `tree`, sent as it lies in memory."""
    return sum(math.prod(jnp.shape(x)) * jnp.result_type(x).itemsize for x in jax.tree.leaves(tree))


def communication_time(
    num_steps: ArrayLike,
    sync_period: ArrayLike | None,
    num_agents: ArrayLike,
    cost: float = 1.0,
) -> np.ndarray:
    """Time including communication, `T + cost * floor(T / K) * log2 N` (Figs 7 and 12).

    The cost model of Einhorn, *Federated Reinforcement Learning Has Linear Speedup* (2023): a
    reduction over a tree of N agents takes log2 N exchanges, each as long as `cost` steps. One
    agent adds nothing, and neither does never synchronising. Censoring times are priced alike.

    Args:
        num_steps: T, steps (tabular) or epochs (PPO) to the threshold; NaN stays NaN.
        sync_period: K in the same unit; None or infinite for never.
        num_agents: N.
        cost: C, time of one exchange in units of a step; 0.1, 1 and 10 in Fig. 12.

    Returns:
        float64, arguments broadcast against each other, in the unit of `num_steps`.
    """
    steps = np.asarray(num_steps, dtype=np.float64)
    period = np.asarray(np.inf if sync_period is None else sync_period, dtype=np.float64)
    agents = np.asarray(num_agents, dtype=np.float64)
    if not np.all(period >= 1) or not np.all(agents >= 1):
        raise ValueError("sync_period (None or infinite for never) and num_agents must be >= 1")
    return steps + cost * np.floor_divide(steps, period) * np.log2(agents)
