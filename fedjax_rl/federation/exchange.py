"""The primitive of the engine: one exchange between the agents and their servers.

Everything a paper calls a communication round is made of two things: agents working by
themselves, and exchanges. An exchange is one trip up and one down,

    message_i  = message(agent_i)                      every agent, vmapped
    message_i  = uplink(key_i, message_i, memory_i)    what of it crosses the wire, and whether
    total      = aggregate(message, sent, weight)      per federation
    server     = server step(server, total)            per federation
    agent_i    = receive(agent_i, server)              every agent that takes part

and an algorithm is a choice of these functions. What the engine has to carry besides the first
algorithm decided their types:

* FedAvg of a network with Adam: the agent holds parameters and Adam's moments; `message` and
  `receive` touch the parameters (or both: an option of the algorithm).
* Event-triggered and compressed uplinks: an `Uplink` with memory; `sent` masks who takes part.
* Two exchanges in a round: two `Exchange` records applied in turn to the same state.
* A server driven by arrivals: the same `aggregate`, `server` and `receive` with `due` true for
  the federations where something arrived and `sent` for the agent that did.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_rl.federation import aggregate as aggregation
from fedjax_rl.federation import ledger as ledgers
from fedjax_rl.federation.population import Population, select
from fedjax_rl.federation.uplink import Uplink, full


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
      time: uint32 scalar, local steps taken by every agent.
      keys: typed keys [A]; constant, streams are read by counter or by `fold_in` of the time.
      agents: the algorithm's agents, leaves [A, ...].
      server: the servers' models, leaves [F, ...].
      server_memory: what the server step keeps, leaves [F, ...].
      uplink_memory: what the uplink keeps, leaves [A, ...].
      ledger: what has been spent so far.
    """

    time: jax.Array
    keys: jax.Array
    agents: object
    server: object
    server_memory: object
    uplink_memory: object
    ledger: ledgers.Ledger


class Exchange(NamedTuple):
    """One kind of trip up and down. All functions but `weight` and `aggregate` are unbatched.

    Attributes:
      message: `(agent, params) -> message`, a pytree.
      receive: `(agent, broadcast, params) -> agent`.
      weight: `(population, agents, params) -> None, [A] or a pytree of [A, ...]`.
      uplink: what crosses the wire.
      aggregate: `(population, message, sent, weight) -> Total`.
      server: how the total becomes the next model.
      broadcast: `model -> broadcast`, what of the server's model goes down; all of it by default.
    """

    message: Callable
    receive: Callable
    weight: Callable = lambda population, agents, params: None
    uplink: Uplink = full()
    aggregate: Callable = aggregation.mean
    server: aggregation.ServerStep = aggregation.replace()
    broadcast: Callable = lambda model: model


# Streams derived from an agent's key; its own index 0 is the word stream of the inner loop.
UPLINK_STREAM = 1


def per_agent(function: Callable, population: Population, params: Params, *batched, fixed=()):
    """Applies an unbatched `function(*batched, params, *fixed)` to every agent.

    Args:
      function: works on one agent; its `params` is a flat dict of that agent's properties.
      population: spreads the properties of a federation to its members.
      params: the properties.
      *batched: pytrees of [A, ...].
      fixed: further arguments, the same for all.
    """
    own = {**population.spread(params.federation), **params.agent}

    def one(batched, own, *fixed):
        return function(*batched, {**params.shared, **own}, *fixed)

    return jax.vmap(one, in_axes=(0, 0, *(None,) * len(fixed)))(batched, own, *fixed)


def exchange(
    population: Population, link: Exchange, params: Params, state: State, due=None
) -> State:
    """One exchange: messages up, servers' step, models down, costs in the ledger.

    Args:
      population: who belongs to whom.
      link: the kind of exchange.
      params: traced properties.
      state: the state before.
      due: bool [F], the federations whose exchange it is; None for all of them. A federation
        that is not due keeps its state bit for bit.

    Returns:
      The state after. A federation of one has nobody to talk to: it exchanges with itself,
      which the ledger does not count.
    """
    message = per_agent(link.message, population, params, state.agents)
    sent, memory = None, state.uplink_memory
    if link.uplink.send is not None:
        streams = jax.vmap(lambda key: jax.random.fold_in(key, UPLINK_STREAM))(state.keys)
        keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(streams, state.time)

        def send(key, message, memory, params):
            return link.uplink.send(key, message, memory, params)

        message, sent, memory = per_agent(send, population, params, keys, message, memory)
    weight = link.weight(population, state.agents, params)
    total, present = link.aggregate(population, message, sent, weight)
    server, server_memory = jax.vmap(link.server.step)(state.server, state.server_memory, total)
    kept = present if due is None else due if present is None else due & present
    if kept is not None:
        server, server_memory = select(
            kept, (server, server_memory), (state.server, state.server_memory)
        )
    broadcast = jax.vmap(link.broadcast)(server)
    agents = per_agent(
        link.receive, population, params, state.agents, population.spread(broadcast)
    )
    takes_part = sent
    if due is not None:
        here = population.spread(due)
        takes_part = here if sent is None else sent & here
        memory = select(here, memory, state.uplink_memory)
    if takes_part is not None:
        agents = select(takes_part, agents, state.agents)
    return dataclasses.replace(
        state,
        agents=agents,
        server=server,
        server_memory=server_memory,
        uplink_memory=memory,
        ledger=_count(population, state.ledger, message, broadcast, sent, due),
    )


def _count(population, ledger, message, broadcast, sent, due) -> ledgers.Ledger:
    """The ledger after one more exchange: messages [A, ...] up, broadcasts [F, ...] down."""
    up, down = (
        jax.eval_shape(lambda tree: jax.tree.map(lambda x: x[0], tree), tree)
        for tree in (message, broadcast)
    )
    several = jnp.asarray(population.sizes > 1)
    happened = several if due is None else several & due
    if sent is None:
        messages = jnp.asarray(population.sizes)
    else:
        messages = population.sum(sent.astype(jnp.int32))
    messages = jnp.where(happened, messages, 0).astype(jnp.uint32)
    costs = {"messages": (1, 1)}
    for name, measure in (("floats", ledgers.tree_floats), ("bytes", ledgers.tree_bytes)):
        costs[name] = measure(up), measure(down)
    each = {
        f"{name}_{way}": jnp.uint32(cost)
        for name, pair in costs.items()
        for way, cost in zip(("up", "down"), pair, strict=True)
    }
    amounts = {name: messages * cost for name, cost in each.items()}
    count, high = population.num_federations, None
    if int(population.sizes.max()) * max(costs["bytes"]) >= 2**32:
        high = ledgers.entries(
            count, **{name: ledgers.high_word(messages, cost) for name, cost in each.items()}
        )
    return ledger.add(ledgers.entries(count, communications=happened, **amounts), high)


class Periodic(NamedTuple):
    """Local steps with an exchange after every K of them.

    Attributes:
      round: `(population, params, state, period) -> state`, one communication round: `period`
        (static) local steps, then the exchange. Differentiable in both modes.
      advance: `(population, params, state, num_steps) -> state`, so many steps with the
        exchanges that fall due in them; the period is the traced `params` entry `sync_period`,
        one number for all or one per federation. One compilation serves every period.
    """

    round: Callable
    advance: Callable


def periodic(local: Callable, link: Exchange) -> Periodic:
    """An algorithm that works alone for K local steps and then exchanges.

    Args:
      local: `(key, agent, params, time, num_steps) -> agent`, unbatched: so many local steps
        from `time` on. `num_steps` is an int in `round` and traced in `advance`.
      link: the exchange.
    """

    def work(population, params, state, num_steps):
        def function(key, agent, params, time, num_steps):
            return local(key, agent, params, time, num_steps)

        if isinstance(num_steps, int):  # a static trip count stays static under vmap
            def function(key, agent, params, time, n=num_steps):
                return local(key, agent, params, time, n)

            fixed = (state.time,)
        else:
            fixed = (state.time, num_steps)
        agents = per_agent(function, population, params, state.keys, state.agents, fixed=fixed)
        num_steps = jnp.uint32(num_steps)
        sizes, count = jnp.asarray(population.sizes).astype(jnp.uint32), population.num_federations
        # Between two records of a long run a large federation makes more than 2^32 steps.
        spent = state.ledger.add(
            ledgers.entries(count, env_steps=sizes * num_steps),
            ledgers.entries(count, env_steps=ledgers.high_word(sizes, num_steps)),
        )
        return dataclasses.replace(
            state, agents=agents, time=state.time + num_steps, ledger=spent
        )

    def round_(population, params, state, period):
        return exchange(population, link, params, work(population, params, state, period))

    def advance(population, params, state, num_steps):
        period = {**params.shared, **params.federation}["sync_period"]
        end = state.time + jnp.uint32(num_steps)

        def left(time):
            """Steps until the next exchange of each federation; counts down to 1, never 0."""
            return period - time % period

        def go_on(state):
            return jnp.min(left(state.time)) <= end - state.time

        def body(state):
            state = work(population, params, state, jnp.min(left(state.time)))
            due = None if period.ndim == 0 else state.time % period == 0
            return exchange(population, link, params, state, due)

        state = jax.lax.while_loop(go_on, body, state)
        return work(population, params, state, end - state.time)

    return Periodic(round_, advance)
