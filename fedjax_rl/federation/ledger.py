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

    def add(self, amounts: jax.Array, high: jax.Array | None = None) -> Ledger:
        """Adds `amounts`, uint32 [F, C], each below 2^32, or above it with their `high` words."""
        low = self.low + amounts
        carry = (low < amounts).astype(jnp.uint32)
        return Ledger(low, self.high + carry if high is None else self.high + carry + high)

    def totals(self) -> dict[str, np.ndarray]:
        """The counters on the host, int64 [F] by name."""
        words = np.asarray(self.low).astype(np.int64), np.asarray(self.high).astype(np.int64)
        both = words[0] + (words[1] << 32)
        return {name: both[..., c] for c, name in enumerate(COLUMNS)}


def ledger(num_federations: int) -> Ledger:
    """An empty ledger for `num_federations` federations."""
    zeros = jnp.zeros((num_federations, len(COLUMNS)), jnp.uint32)
    return Ledger(zeros, zeros)


def entries(num_federations: int, **amounts) -> jax.Array:
    """One line of the ledger, uint32 [F, C]: the named columns, each a number or [F]."""
    columns = [
        jnp.broadcast_to(jnp.asarray(amounts.get(name, 0)).astype(jnp.uint32), (num_federations,))
        for name in COLUMNS
    ]
    return jnp.stack(columns, axis=-1)


def high_word(a: jax.Array, b: jax.Array) -> jax.Array:
    """The upper 32 bits of the products `a b` of uint32 numbers; `a * b` are the lower ones."""
    half, mask = jnp.uint32(16), jnp.uint32(0xFFFF)
    (al, ah), (bl, bh) = ((x & mask, x >> half) for x in (a, b))
    # No intermediate passes 2^32: (2^16 - 1)^2 + 2^16 - 1 < 2^32.
    inner = ah * bl + (al * bl >> half)
    outer = al * bh + (inner & mask)
    return ah * bh + (inner >> half) + (outer >> half)


def tree_floats(tree) -> int:
    """Numbers in one message with the shape of `tree`."""
    return sum(math.prod(jnp.shape(leaf)) for leaf in jax.tree.leaves(tree))


def tree_bytes(tree) -> int:
    """Bytes of one message with the shape of `tree`, sent as it lies in memory."""
    return sum(math.prod(jnp.shape(x)) * jnp.result_type(x).itemsize for x in jax.tree.leaves(tree))


def communication_time(num_steps, sync_period, num_agents):
    r"""Steps and communication on one scale, `T_c = T + \lfloor T/K \rfloor \log_2 N`.

    The cost model of Einhorn, *Federated Reinforcement Learning Has Linear Speedup* (2023),
    Fig. 7: an all-reduce over N agents takes `log2 N` steps of time. A single agent communicates
    nothing.

    Args:
      num_steps: T, steps of one agent; any shape, NaN for a run that never got there.
      sync_period: K, local steps between exchanges.
      num_agents: N.

    Returns:
      T_c, float64, of the broadcast shape.
    """
    num_steps, sync_period = np.asarray(num_steps, float), np.asarray(sync_period, float)
    return num_steps + np.floor(num_steps / sync_period) * np.log2(np.asarray(num_agents, float))
