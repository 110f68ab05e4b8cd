"""What a run carries from one moment to the next, and the traced properties of a population."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from fedjax_rl import turns
from fedjax_rl.federation.debugging import per_one
from fedjax_rl.federation.population import Population

if TYPE_CHECKING:
    from fedjax_rl.federation.ledger import Ledger, Wire


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Params:
    """The traced properties of a population, by how they vary.

    Attributes:
      agent: leaves [A, ...], one value per agent.
      federation: leaves [F, ...], one per federation.
      shared: leaves without a population axis, one for all.
    """

    agent: dict
    federation: dict
    shared: dict


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """Everything a run carries from one moment to the next.

    Attributes:
      time: uint32 scalar, in the unit of the algorithm: local steps of an agent, rounds or updates.
      keys: typed keys [A]; constant, streams are read by counter or by `fold_in` of the time.
      agents: the algorithm's agents, leaves [A, ...].
      server: the servers' models, leaves [F, ...].
      server_state: what the server's steps keep, an entry for each exchange of a round, leaves
        [F, ...].
      uplink_state: what the uplinks keep, an entry for each exchange, leaves [A, ...].
      ledger: what has been spent so far.
      sent: what each agent sent in the last round, a `Sent` of [A], on a clock in the last step,
        nothing if it did not arrive; None where nobody asks.
      in_flight: what each agent works on, leaves [A, ...]; None without a clock, see
        `clock.arrivals`.
      elapsed: what has passed in each federation, leaves [F, ...]; None likewise.
      rules: what properties know that follow a metric, leaves [F]; None where none does.
    """

    time: jax.Array
    keys: jax.Array
    agents: object
    server: object
    server_state: tuple
    uplink_state: tuple
    ledger: Ledger
    sent: Sent | None = None
    in_flight: object = None
    elapsed: object = None
    rules: object = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sent:
    """What an agent sent in an exchange.

    Attributes:
      messages: uint32, 1 or 0.
      floats, bits: uint32, the size of the message, 0 where none was sent.
    """

    messages: jax.Array
    floats: jax.Array
    bits: jax.Array

    def bytes(self, wire: Wire) -> jax.Array:
        """Bytes on the wire, float32: of a message of 2^32 bytes, too, where uint32 would wrap."""
        # Rounded up by message, as the ledger does.
        packed = (self.bits + jnp.uint32(7)) // jnp.uint32(8)
        floats, packed, messages = (
            jnp.asarray(x, jnp.float32) for x in (self.floats, packed, self.messages)
        )
        return floats * wire.word_bytes + packed + messages * wire.header_bytes


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Context:
    """What the server has before it makes its step.

    Attributes:
      model: the servers' models, leaves [F, ...].
      params: the traced properties of the population.
      time: uint32 scalar.
      server_state: what the servers' steps of this exchange keep, leaves [F, ...].
      heard: bool [A], whose message of now it has; None for all. Not the same as who counts, where
        the last message of who is silent is remembered.
      share: [F], the part of their federations that these agents are; None for the whole.
    """

    model: object
    params: Params
    time: jax.Array
    server_state: object = ()
    heard: jax.Array | None = None
    share: jax.Array | None = None


def nothing_sent(num_agents: int) -> Sent:
    """Of agents that are silent, [A]."""
    nothing = jnp.zeros(num_agents, jnp.uint32)
    return Sent(nothing, nothing, nothing)


def per_agent(function: Callable, population: Population, params: Params, *batched, fixed=()):
    """Applies an unbatched `function(*batched, params, *fixed)` to every agent.

    Args:
      function: works on one agent; its `params` is a flat dict of that agent's properties.
      population: spreads the properties of a federation to its members.
      params: the properties.
      *batched: pytrees of [A, ...].
      fixed: further arguments, the same for all.

    Returns:
      What the function returns, leaves [A, ...].
    """
    # The narrower scope wins: an agent's own value, then its federation's, then that of all.
    own = {**population.spread(params.federation), **params.agent}

    def one(batched, own, *fixed):
        return function(*batched, {**params.shared, **own}, *fixed)

    # What is shared is closed over, not batched: there is one of it, whatever A is.
    return per_one(one, (0, 0, *(None,) * len(fixed)))(batched, own, *fixed)


def per_agent_in_turns(function: Callable, population: Population, params: Params, *batched):
    """`per_agent` of what agents do by themselves, of so many at a time as stay in the cache.

    Args:
      function: as of `per_agent`.
      population: as of `per_agent`.
      params: as of `per_agent`.
      *batched: as of `per_agent`.

    Returns:
      What the function returns, leaves [A, ...].
    """
    size = turn_of(population, (batched, params.agent))
    if size == population.num_agents:
        return per_agent(function, population, params, *batched)

    def some(own, *batched):
        count = jax.tree.leaves(batched)[0].shape[0]
        part = Population(((1, count),))
        return per_agent(function, part, dataclasses.replace(params, agent=own), *batched)

    return turns.in_turns(some, size, params.agent, *batched)


def turn_of(population: Population, tree) -> int:
    """How many agents work at a time; all where they are few, or of several federations.

    Args:
      population: who belongs to whom.
      tree: what they read and change, leaves [A, ...].
    """
    # A federation that is larger than the cache has a population of its own.
    if population.num_federations > 1 or jax.config.jax_disable_jit:
        return population.num_agents
    return turns.length(population.num_agents, tree)
