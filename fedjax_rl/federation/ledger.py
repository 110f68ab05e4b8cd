"""What a federation spends: communications, messages, floats, bytes and environment steps.

Costs are counted where they are spent, in the state of the simulation, so that they are saved,
resumed, swept and sharded like everything else. Whoever exchanges asks `price` what it costs.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from fedjax_rl import fields
from fedjax_rl.federation.state import per_agent
from fedjax_rl.fields.record import Record, record, static

if TYPE_CHECKING:
    from fedjax_rl.federation.exchange import Exchange
    from fedjax_rl.federation.population import Population
    from fedjax_rl.federation.state import Params, Sent, State

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

    Example:
      >>> import fedjax_rl as frl
      >>> task = frl.envs.simple_grid(max_steps=20)
      >>> frl.es(task, wire=2).config.wire == frl.Wire(word_bytes=2, header_bytes=0)
      True

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

    # A product of 64 bits is many operations: traced once, and inlined by XLA.
    @jax.jit
    def add(self, each: jax.Array, *times) -> Ledger:
        """Adds the line `each`, uint32 [C], as often as the product of `times` says.

        Args:
          each: what happens once, from `line`.
          *times: one or two factors, uint32 [F]; their product with an entry may pass 2^32.

        Returns:
          The `Ledger` after it.
        """
        first, second = (*times, jnp.ones_like(times[0]))[:2]
        count, count_high = wide_product(first, second)
        more, carried = wide_product(each[None, :], count[:, None])
        # The rest of a product of three; what passes 64 bits is lost, where no counter comes.
        carried = carried + each[None, :] * count_high[:, None]
        low = self.low + more
        # Unsigned sums wrap: one that is less than a summand has been carried.
        return Ledger(low, self.high + carried + (low < more).astype(jnp.uint32))

    def add_small(self, *lines) -> Ledger:
        """Adds lines as often as each happens, where all of it together is below 2^32.

        Args:
          *lines: pairs of a line, uint32 [C], and how often it happens, uint32 [F].

        Returns:
          The `Ledger` after it, the same as after an `add` of each.
        """
        more = functools.reduce(jnp.add, [one[None, :] * times[:, None] for one, times in lines])
        low = self.low + more
        return Ledger(low, self.high + (low < more).astype(jnp.uint32))

    def totals(self) -> dict[str, np.ndarray]:
        """The counters on the host, int64 [F] by name."""
        words = np.asarray(self.low).astype(np.int64), np.asarray(self.high).astype(np.int64)
        both = words[0] + (words[1] << 32)
        return {name: both[..., c] for c, name in enumerate(COLUMNS)}


def wide_product(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Low and high words of the 64-bit product of two uint32 arrays that broadcast.

    Args:
      a: uint32.
      b: uint32.

    Returns:
      Two uint32 arrays of the shape that both have together.
    """
    # By halves, as JAX has no 64-bit integers unless all of it computes in double precision; each
    # product of two halves, and the sum of three, fits into 32 bits.
    half, mask = jnp.uint32(16), jnp.uint32(0xFFFF)
    a, b = jnp.broadcast_arrays(a, b)
    a0, a1, b0, b1 = a & mask, a >> half, b & mask, b >> half
    low, cross, other = a0 * b0, a1 * b0, a0 * b1
    middle = (low >> half) + (cross & mask) + (other & mask)
    high = a1 * b1 + (cross >> half) + (other >> half) + (middle >> half)
    return (low & mask) | (middle << half), high


def empty_ledger(num_federations: int) -> Ledger:
    """A ledger in which nothing has been spent, for `num_federations` federations."""
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


def message_costs(population: Population, link: Exchange, params: Params, state: State) -> dict:
    """What one whole message up and its answer down cost, as they lie in memory.

    Args:
      population: who belongs to whom.
      link: the kind of exchange.
      params: traced properties.
      state: of a run; only shapes are looked at.

    Returns:
      Whole numbers by `COLUMNS`.
    """

    def message(state):
        own = params
        if link.at_time is not None:
            own = link.at_time(population, params, state.time)
        model = population.spread(jax.vmap(link.broadcast)(state.server))
        return jax.tree.map(
            lambda x: x[0], per_agent(link.message, population, own, state.agents, model)
        )

    # Shapes alone: nothing of it is left in the program.
    up, down = jax.eval_shape(message, state), _answer(link, state)
    amounts = {
        "messages_up": 1,
        "messages_down": 1,
        "floats_up": tree_floats(up),
        "floats_down": tree_floats(down),
        "bytes_up": tree_bytes(up),
        "bytes_down": tree_bytes(down),
    }
    return {name: amounts.get(name, 0) for name in COLUMNS}


def answer_costs(link: Exchange, state: State) -> dict:
    """What the model costs that goes down to one agent, in the format of the wire.

    Args:
      link: the kind of exchange.
      state: of a run; only shapes are looked at.

    Returns:
      Whole numbers by name, of those `COLUMNS` that are not 0.
    """
    floats, wire = tree_floats(_answer(link, state)), link.wire
    size = floats * wire.word_bytes + wire.header_bytes
    return {"messages_down": 1, "floats_down": floats, "bytes_down": size}


def _answer(link, state):
    """Shapes of what goes down to one agent."""
    return jax.eval_shape(
        lambda server: jax.tree.map(lambda x: x[0], jax.vmap(link.broadcast)(server)), state.server
    )


def price(
    population: Population,
    link: Exchange,
    params: Params,
    state: State,
    times: jax.Array,
    sent: Sent | None = None,
    present: jax.Array | None = None,
) -> Ledger:
    """The ledger after exchanges: the one price list.

    Args:
      population: who belongs to whom.
      link: the kind of exchange.
      params: traced properties.
      state: before it, with the ledger so far.
      times: uint32 [F], exchanges of every federation; with `sent` 0 or 1.
      sent: what each agent sent, a `Sent` of [A]; None where everybody sends all of its message,
        which costs the same every time and is priced as it lies in memory.
      present: bool [A], the agents that there are at all; None for all of them.

    Returns:
      The ledger.
    """
    members = jnp.asarray(population.sizes).astype(jnp.uint32)
    whole = message_costs(population, link, params, state)
    if sent is None:
        spent = state.ledger.add(line(communications=1), times)
        return spent.add(line(**whole), times, members)
    # Line by line, as messages, floats and bits of different senders do not go together.
    messages, wire, answer = population.sum(sent.messages), link.wire, answer_costs(link, state)
    each = line(floats_up=1, bytes_up=wire.word_bytes)
    # Rounded up by message: bytes are what is sent, and no two messages share one.
    octets = (sent.bits + jnp.uint32(7)) // jnp.uint32(8)
    # Who is absent hears nothing, all others do where the server speaks at all.
    heard = messages
    if link.dedicated_server or link.uplink.silent != "absent":
        present = members if present is None else population.sum(present.astype(jnp.uint32))
        heard = present * times
    lines = [
        (line(communications=1), times),
        (line(messages_up=1, bytes_up=wire.header_bytes), messages),
        (line(**answer), heard),
    ]
    largest = _LARGEST * whole["floats_up"]
    # More than any counter grows by: with an exchange in every round, products of two words and
    # their carries take as long as a local step.
    most = 1 + wire.header_bytes + (wire.word_bytes + 1) * largest + sum(answer.values())
    if int(population.sizes.max()) * most < 2**32:
        sums = (each, population.sum(sent.floats)), (line(bytes_up=1), population.sum(octets))
        return state.ledger.add_small(*lines, *sums)
    spent = state.ledger
    for one, count in lines:
        spent = spent.add(one, count)
    for one, amounts in ((each, sent.floats), (line(bytes_up=1), octets)):
        for amount, unit in _wide_sum(population, amounts, largest):
            spent = spent.add(one, amount, unit)
    return spent


# An uplink sends at most so many floats for each number of a message.
_LARGEST = 4


def _wide_sum(population, amounts, largest: int):
    """Sums per federation of uint32 [A], each at most `largest`, as pairs (sum, unit) of [F].

    A sum that may pass 2^32 comes in parts, of as many bits as that many members leave.
    """
    one = jnp.ones(population.num_federations, jnp.uint32)
    members = int(population.sizes.max())
    if members * largest < 2**32:
        return [(population.sum(amounts), one)]
    bits = 32 - members.bit_length()  # of which so many members cannot make 2^32
    mask = jnp.uint32((1 << bits) - 1)
    return [
        (population.sum(amounts >> jnp.uint32(start) & mask), one << jnp.uint32(start))
        for start in range(0, 32, bits)
    ]


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

    Raises:
        ValueError: a period or a number of agents below 1.

    Examples:
        >>> from fedjax_rl.federation import communication_time
        >>> float(communication_time(1000, 10, 4))  # 100 exchanges of two steps each
        1200.0
    """
    steps = np.asarray(num_steps, dtype=np.float64)
    period = np.asarray(np.inf if sync_period is None else sync_period, dtype=np.float64)
    agents = np.asarray(num_agents, dtype=np.float64)
    if not np.all(period >= 1) or not np.all(agents >= 1):
        raise ValueError("sync_period (None or infinite for never) and num_agents must be >= 1")
    return steps + cost * np.floor_divide(steps, period) * np.log2(agents)
