"""The primitive of the engine: one exchange between the agents and their servers.

Everything a paper calls a communication round is made of two things: agents working by
themselves, and exchanges. An exchange is one trip up and one down,

    message_i  = message(agent_i, broadcast)           every agent, vmapped
    message_i  = uplink(key_i, message_i, state_i)     what of it crosses the wire, and whether
    total      = aggregate(message, sent, weight)      per federation
    server     = server step(server, total)            per federation
    agent_i    = receive(agent_i, server)              every agent that takes part
    agent_i    = acknowledge(agent_i)                  every agent whose message was heard

and an algorithm is a choice of these functions. What an agent keeps and the server counts, too,
belongs in `acknowledge` and, at the server, in `aggregators.part_of_all`: then the two stay equal
whoever is silent, absent or late. What the engine has to carry besides the first
algorithm decided their types:

* FedAvg of a network with Adam: the agent holds parameters and Adam's moments; `message` and
  `receive` touch the parameters (or both: an option of the algorithm).
* Event-triggered and compressed uplinks: an `Uplink` with a state; `sent` masks who takes part.
* Two exchanges in a round: two `Exchange` records applied in turn to the same state, each with
  states of its own.
* A server driven by arrivals: the same `aggregate`, `server` and `receive` with `due` true for
  the federations where something arrived and `sent` for the agent that did.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_rl.federation import aggregators
from fedjax_rl.federation.debugging import per_one
from fedjax_rl.federation.ledger import Wire, empty_ledger, price
from fedjax_rl.federation.outgoing import both, outgoing
from fedjax_rl.federation.population import Population, select
from fedjax_rl.federation.server import SHARE, ServerStep, next_models, replace
from fedjax_rl.federation.state import Context, Params, Sent, State, nothing_sent, per_agent
from fedjax_rl.federation.uplinks import MessageSpec, Uplink, full


class Exchange(NamedTuple):
    """One kind of trip up and down. All functions but `weight` and `aggregate` are unbatched.

    Attributes:
      message: `(agent, broadcast, params) -> message`, a pytree; `broadcast` is what the server
        sent down last.
      receive: `(agent, broadcast, params) -> agent`, of who listens.
      acknowledge: `(agent, message, params) -> agent`, of whose message was heard, after `receive`;
        None where agents keep nothing that depends on it. `message` is what came in, None where
        every message comes in as it is.
      decode: `(message, broadcast) -> message`, what the server makes of a message, knowing what
        it had sent down to its sender.
      weight: `(population, agents, params) -> weights` as of `aggregate`.
      uplink: what crosses the wire.
      aggregate: `(population, message, sent, weight, context) -> Aggregate`.
      server: how what is aggregated becomes the next model.
      broadcast: `model -> broadcast`, what of the server's model goes down; all of it by default.
      spec: how an uplink reads a message.
      wire: bytes of a word and of a header.
      dedicated_server: the server is a machine of its own, so that a federation of one
        communicates, too.
      at_time: `(population, params, time) -> params`, the properties with those that follow time;
        None where none does.
      due: `(population, params, time) -> bool [F]`, whose exchange it is in a round; None for
        everybody's in every round. On no clock, which knows no rounds.
    """

    message: Callable
    receive: Callable = lambda agent, broadcast, params: agent
    acknowledge: Callable | None = None
    decode: Callable = lambda message, broadcast: message
    weight: Callable = lambda population, agents, params: None
    uplink: Uplink = full()
    aggregate: Callable = aggregators.mean
    server: ServerStep = replace()
    broadcast: Callable = lambda model: model
    spec: MessageSpec = MessageSpec()
    wire: Wire = Wire()
    dedicated_server: bool = False
    at_time: Callable | None = None
    due: Callable | None = None


def first_state(
    population: Population,
    links: Exchange | Sequence[Exchange],
    params: Params,
    keys,
    agents,
    server,
    *,
    detailed: bool = False,
) -> State:
    """The state before anything has happened.

    Args:
      population: who belongs to whom.
      links: the exchange of a round, or all of them in turn.
      params: traced properties.
      keys: typed keys [A].
      agents: leaves [A, ...].
      server: leaves [F, ...].
      detailed: whether the state tells what each agent sent last.

    Returns:
      The `State` at time 0.
    """

    def of_server(link):
        def first(model, own):
            return link.server.init(link.server.shown(model, {**params.shared, **own}))

        return jax.vmap(first)(server, params.federation)

    def of_uplink(link):
        def first(agent, model, params):
            return link.uplink.init(link.message(agent, model, params), model, link.spec)

        model = population.spread(jax.vmap(link.broadcast)(server))
        return per_agent(first, population, params, agents, model)

    links = (links,) if isinstance(links, Exchange) else tuple(links)
    return State(
        time=jnp.uint32(0),
        keys=keys,
        agents=agents,
        server=server,
        server_state=tuple(of_server(link) for link in links),
        uplink_state=tuple(of_uplink(link) for link in links),
        ledger=empty_ledger(population.num_federations),
        sent=nothing_sent(population.num_agents) if detailed else None,
    )


def exchange(
    population: Population,
    link: Exchange,
    params: Params,
    state: State,
    due=None,
    present=None,
    held=None,
    place: int = 0,
) -> State:
    """One exchange: messages up, servers' step, models down, costs in the ledger.

    Args:
      population: who belongs to whom.
      link: the kind of exchange.
      params: traced properties.
      state: the state before.
      due: bool [F], the federations whose exchange it is; None for all of them. A federation
        that is not due keeps its state bit for bit.
      present: bool [A], the agents that there are at all; None for all of them. Who is not there
        neither sends nor receives.
      held: leaves [A, ...], the servers' models that agents work from, where these are not those
        of now.
      place: which exchange of a round it is, from 0.

    Returns:
      The state after. A federation of one has nobody to talk to: it exchanges with itself,
      which the ledger does not count.
    """
    if link.at_time is not None:
        params = link.at_time(population, params, state.time)
    times = exchanging(population, link, due).astype(jnp.uint32)
    before = state
    state, sent = trip(population, link, params, state, due, present, held, place)
    if sends_everything(link) and present is None:
        return dataclasses.replace(state, ledger=price(population, link, params, before, times))
    # Who is alone, or not due, has gone through all of it as well: nothing is skipped under vmap.
    sent = jax.tree.map(lambda x: jnp.where(population.spread(times > 0), x, 0), sent)
    spent = price(population, link, params, before, times, sent, present)
    sent = None if before.sent is None else sent
    return dataclasses.replace(state, ledger=spent, sent=sent)


def sends_everything(link: Exchange) -> bool:
    """Whether every agent sends all of its message, whatever is in it: it always costs the same."""
    return link.uplink.send is None and not link.dedicated_server


def exchanging(population: Population, link: Exchange, due=None) -> jax.Array:
    """The federations, bool [F], that exchange anything: all that are due and have a partner.

    Args:
      population: who belongs to whom.
      link: the kind of exchange.
      due: bool [F], whose exchange it is; None for all of them.

    Returns:
      bool [F].
    """
    happens = jnp.asarray((population.sizes > 1) | link.dedicated_server)
    return happens if due is None else happens & due


def trip(
    population: Population,
    link: Exchange,
    params: Params,
    state: State,
    due=None,
    present=None,
    held=None,
    place: int = 0,
) -> tuple[State, Sent]:
    """An exchange that is not yet in the ledger.

    Args:
      population: this and all others as in `exchange`.
      link: the kind of exchange.
      params: traced properties.
      state: the state before.
      due: bool [F] or None.
      present: bool [A] or None.
      held: leaves [A, ...] or None.
      place: which exchange of a round it is.

    Returns:
      The state after, and what each agent sent, a `Sent` of [A].
    """
    if link.at_time is not None:
        params = link.at_time(population, params, state.time)
    model = state.server if held is None else held
    # Over federations, or over agents where each is held to the model that it was handed.
    model = jax.vmap(link.broadcast)(model)
    model = population.spread(model) if held is None else model
    message, sent, uplink_state, (floats, bits) = outgoing(
        population, link, params, state, model, place
    )
    sent = both(present, sent)
    # Whose message of now counts: an uplink that remembers lets the last one count for who is
    # silent, which the agent itself must not take for having been heard.
    counted = present if link.uplink.silent == "remembered" else sent
    share = params.federation.get(SHARE)
    context = Context(state.server, params, state.time, state.server_state[place], sent, share)
    # Before it is weighed and summed: the server knows what it had sent down to each.
    decoded = per_one(link.decode)(message, model)
    weight = link.weight(population, state.agents, params)
    total = link.aggregate(population, decoded, counted, weight, context)
    before = state.server, state.server_state[place]
    server, server_state, came = next_models(
        population, link.server, params, before, total, present, counted
    )
    kept = both(due, came)
    if kept is not None:
        # Without a message an optimiser would still move the model by its momentum.
        server, server_state = select(kept, (server, server_state), before)
    due = None if due is None else population.spread(due)
    broadcast = jax.vmap(link.broadcast)(server)
    agents = per_agent(link.receive, population, params, state.agents, population.spread(broadcast))
    # Who sits a round out hears nothing; who is there and has nothing to send hears the answer.
    listens = sent if link.uplink.silent == "absent" else present
    listens, heard = (both(both(due, present), who) for who in (listens, sent))
    # An uplink's state changes in silence too, such as what it is used to; not in absence.
    if (acts := both(due, present)) is not None:
        uplink_state = select(acts, uplink_state, state.uplink_state[place])
    if listens is not None:
        agents = select(listens, agents, state.agents)
    if link.acknowledge is not None:
        # Where no uplink has touched it, a message is what the agent itself has made.
        arrived = None if link.uplink.send is None else message
        after = per_agent(link.acknowledge, population, params, agents, arrived)
        agents = after if heard is None else select(heard, after, agents)
    state = dataclasses.replace(
        state,
        agents=agents,
        server=server,
        server_state=_put(state.server_state, place, server_state),
        uplink_state=_put(state.uplink_state, place, uplink_state),
    )
    flag = jnp.ones_like(floats) if sent is None else sent.astype(jnp.uint32)
    # Sizes were worked out for all; what was not sent has none.
    return state, Sent(flag, floats * flag, bits * flag)


def _put(states: tuple, place: int, state) -> tuple:
    """The states of a round's exchanges with that of one place replaced."""
    return (*states[:place], state, *states[place + 1 :])
