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
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_rl.federation import aggregators
from fedjax_rl.federation.ledger import COLUMNS, Wire, ledger, line, tree_bytes, tree_floats
from fedjax_rl.federation.population import Population, select
from fedjax_rl.federation.server import ServerStep, replace
from fedjax_rl.federation.state import Context, Params, Sent, State, nothing_sent, per_agent
from fedjax_rl.federation.uplinks import MessageSpec, Uplink, View, full


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
      server: how the total becomes the next model.
      broadcast: `model -> broadcast`, what of the server's model goes down; all of it by default.
      spec: how an uplink reads a message.
      wire: bytes of a word and of a header.
      dedicated_server: the server is a machine of its own, so that a federation of one
        communicates, too.
      at_time: `(population, params, time) -> params`, the properties with those that follow time;
        None where none does.
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


# The inner loop reads the words of an agent's key itself; what else is random has a key folded in.
UPLINK_STREAM = 1


# Under this name a federation on a clock knows which part of it those are who are waited for, and
# its server's step which part has come. Where members count differently each has its own share.
SHARE = "arriving_share"


# Under these names a server's step knows how many messages its total is of, and on a clock what a
# member who has come counts on average, as a multiple of what all members count on average.
MESSAGES = "messages_of_total"


EMPHASIS = "arriving_emphasis"


def first_state(
    population: Population, links, params: Params, keys, agents, server, *, detailed=False
) -> State:
    """The state before anything has happened.

    Args:
      population: who belongs to whom.
      links: the exchange whose uplink and server have states, or a tuple of those of a round.
      params: traced properties.
      keys: typed keys [A].
      agents: leaves [A, ...].
      server: leaves [F, ...].
      detailed: whether the state tells what each agent sent last.
    """

    def states(link):
        def first_of_server(model, own):
            return link.server.init(link.server.shown(model, {**params.shared, **own}))

        model = population.spread(jax.vmap(link.broadcast)(server))

        def first_of_uplink(agent, model, params):
            message = link.message(agent, model, params)
            return link.uplink.init(message, model, link.spec)

        of_uplinks = per_agent(first_of_uplink, population, params, agents, model)
        return jax.vmap(first_of_server)(server, params.federation), of_uplinks

    if isinstance(links, Exchange):
        server_state, uplink_state = states(links)
    else:
        server_state, uplink_state = zip(*map(states, links), strict=True)
    return State(
        time=jnp.uint32(0),
        keys=keys,
        agents=agents,
        server=server,
        server_state=server_state,
        uplink_state=uplink_state,
        ledger=ledger(population.num_federations),
        sent=nothing_sent(population.num_agents) if detailed else (),
    )


def exchange(
    population: Population,
    link: Exchange,
    params: Params,
    state: State,
    due=None,
    present=None,
    handed=None,
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
      handed: leaves [A, ...], the servers' models that agents were handed last, where these are
        not those of now.

    Returns:
      The state after. A federation of one has nobody to talk to: it exchanges with itself,
      which the ledger does not count.
    """
    params = params if link.at_time is None else link.at_time(population, params, state.time)
    happened = _happens(population, link, due)
    if link.uplink.send is None and not link.dedicated_server and present is None:
        each = _line(population, link, params, state)
        state, _ = _trip(population, link, params, state, due)
        messages = jnp.where(happened, jnp.asarray(population.sizes), 0).astype(jnp.uint32)
        return _charge(state, each, happened.astype(jnp.uint32), messages)
    state, sent = _trip(population, link, params, state, due, present, handed)
    sent = jax.tree.map(lambda x: jnp.where(population.spread(happened), x, 0), sent)
    state = _bill(population, link, params, state, sent, happened.astype(jnp.uint32), present)
    return dataclasses.replace(state, sent=() if isinstance(state.sent, tuple) else sent)


def _happens(population, link, due):
    """The federations [F] that exchange anything: all that are due and have a partner."""
    happened = jnp.asarray((population.sizes > 1) | link.dedicated_server)
    return happened if due is None else happened & due


def _charge(state: State, each, happened, *messages) -> State:
    """The ledger after so many exchanges [F] with so many messages (a product of [F])."""
    spent = state.ledger.add(line(communications=1), happened).add(each, *messages)
    return dataclasses.replace(state, ledger=spent)


def _bill(population, link, params, state: State, sent: Sent, happened, present=None) -> State:
    """The ledger after an exchange in which agents sent different amounts."""
    messages = population.sum(sent.messages)
    everyone = link.dedicated_server or link.uplink.silent != "absent"
    listeners = jnp.asarray(population.sizes).astype(jnp.uint32)
    if present is not None:
        listeners = population.sum(present.astype(jnp.uint32))
    header, word = link.wire.header_bytes, link.wire.word_bytes
    spent = state.ledger.add(line(communications=1), happened)
    spent = spent.add(line(messages_up=1, bytes_up=header), messages)
    largest = _LARGEST * costs(population, link, params, state)[_FLOATS_UP]
    each = line(floats_up=1, bytes_up=word)
    for amount, unit in _wide_sum(population, sent.floats, largest):
        spent = spent.add(each, amount, unit)
    octets = (sent.bits + jnp.uint32(7)) // jnp.uint32(8)
    for amount, unit in _wide_sum(population, octets, largest):
        spent = spent.add(line(bytes_up=1), amount, unit)
    down = listeners * happened if everyone else messages
    spent = spent.add(answer_line(link, state), down)
    return dataclasses.replace(state, ledger=spent)


# An uplink sends at most so many floats for each number of a message.
_LARGEST, _FLOATS_UP = 4, COLUMNS.index("floats_up")


def _wide_sum(population, amounts, largest: int):
    """Sums per federation of uint32 [A], each at most `largest`, as pairs (sum, unit) of [F].

    A sum that may pass 2^32 comes in two parts.
    """
    one = jnp.ones(population.num_federations, jnp.uint32)
    if int(population.sizes.max()) * largest < 2**32:
        return [(population.sum(amounts), one)]
    bits = jnp.uint32(12)
    low, high = amounts & ((jnp.uint32(1) << bits) - jnp.uint32(1)), amounts >> bits
    return [(population.sum(low), one), (population.sum(high), one << bits)]


def answer_line(link: Exchange, state: State) -> jax.Array:
    """What the model costs that goes down to one agent, a line of the ledger."""
    down = jax.eval_shape(
        lambda s: jax.tree.map(lambda x: x[0], jax.vmap(link.broadcast)(s.server)), state
    )
    floats, wire = tree_floats(down), link.wire
    size = floats * wire.word_bytes + wire.header_bytes
    return line(messages_down=1, floats_down=floats, bytes_down=size)


def _outgoing(population, link, params, state, model):
    """What the uplink makes of the messages.

    Returns:
      Messages [A, ...]; whether each was sent, bool [A] or None for all; the uplinks' states; the
      size of each message as floats and bits [A], or None where all have the size of their shape.
    """
    message = per_agent(link.message, population, params, state.agents, model)
    sent, uplink_state = None, state.uplink_state

    def size(message, params):
        return link.spec.size(message), jnp.uint32(0)

    if link.uplink.send is not None:
        streams = jax.vmap(lambda key: jax.random.fold_in(key, UPLINK_STREAM))(state.keys)
        keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(streams, state.time)

        def send(key, message, uplink_state, model, params, time):
            view = View(link.spec, model, time, params)
            return link.uplink.send(key, message, uplink_state, view)

        message, sent, uplink_state = _to_others(
            population,
            link,
            (message, jnp.ones(population.num_agents, bool), state.uplink_state),
            per_agent(
                send,
                population,
                params,
                keys,
                message,
                state.uplink_state,
                model,
                fixed=(state.time,),
            ),
        )
        if link.uplink.size is not None:

            def size(message, params):
                floats, bits = link.uplink.size(link.spec.numbers(message), params)
                return floats + jnp.uint32(link.spec.rest), bits

    if link.dedicated_server:

        def there(message, params):
            return jnp.any(link.spec.items(message)[1])

        # Who has nothing to say does not speak, whatever the uplink.
        something = per_agent(there, population, params, message)
        sent = something if sent is None else sent & something
    sizes = per_agent(size, population, params, message)
    return message, sent, uplink_state, sizes


def _to_others(population, link, whole, sent):
    """What is sent, and the whole message where there is no wire to cross.

    A federation of one without a server apart has only itself to talk to, and loses nothing of
    what it has learned.
    """
    alone = population.sizes == 1
    if link.dedicated_server or not alone.any():
        return sent
    return select(population.spread(jnp.asarray(alone)), whole, sent)


def _trip(population, link, params, state, due, here=None, handed=None):
    """An exchange not yet in the ledger: the state after, and what each agent sent."""
    params = params if link.at_time is None else link.at_time(population, params, state.time)
    if handed is None:
        model = population.spread(jax.vmap(link.broadcast)(state.server))
    else:
        model = jax.vmap(link.broadcast)(handed)
    message, sent, uplink_state, (floats, bits) = _outgoing(population, link, params, state, model)
    if here is not None:
        sent = here if sent is None else sent & here
    arrived = None if link.uplink.send is None else message
    message = jax.vmap(link.decode)(message, model)
    weight = link.weight(population, state.agents, params)
    share = params.federation.get(SHARE)
    context = Context(state.server, params, state.time, state.server_state, sent, share)
    counted = here if link.uplink.silent == "remembered" else sent
    total = link.aggregate(population, message, counted, weight, context)
    server, server_state, present = _step(population, link, params, state, total, here, counted)
    kept = present if due is None else due if present is None else due & present
    if kept is not None:
        server, server_state = select(
            kept, (server, server_state), (state.server, state.server_state)
        )
    broadcast = jax.vmap(link.broadcast)(server)
    agents = per_agent(link.receive, population, params, state.agents, population.spread(broadcast))
    takes_part = sent if link.uplink.silent == "absent" else here
    heard = sent
    if due is not None:
        due_here = population.spread(due)
        here = due_here if here is None else here & due_here
        takes_part = here if takes_part is None else takes_part & here
        heard = here if heard is None else heard & here
    if here is not None:
        uplink_state = select(here, uplink_state, state.uplink_state)
    if takes_part is not None:
        agents = select(takes_part, agents, state.agents)
    if link.acknowledge is not None:
        after = per_agent(link.acknowledge, population, params, agents, arrived)
        agents = after if heard is None else select(heard, after, agents)
    state = dataclasses.replace(
        state,
        agents=agents,
        server=server,
        server_state=server_state,
        uplink_state=uplink_state,
    )
    flag = jnp.ones_like(floats) if sent is None else sent.astype(jnp.uint32)
    return state, Sent(flag, floats * flag, bits * flag)


def _step(population, link, params, state, total, here, counted):
    """The servers' steps: their models, their states, and whether anything came in, [F]."""
    total, present = total
    by_entry = present is not None and not _one_each(present)
    if by_entry:
        # An entry about which nobody said anything has not changed, and does not become 0.
        nothing = jax.vmap(link.server.nothing)(state.server)
        total = jax.tree.map(jnp.where, present, total, nothing)
    federation = {**params.federation, MESSAGES: _number(population, counted)}
    if SHARE in federation:
        federation |= _arrived(population, params, here)
    server, server_state = jax.vmap(
        lambda model, server_state, total, own: link.server.step(
            model, server_state, total, {**params.shared, **own}
        )
    )(state.server, state.server_state, total, federation)
    if by_entry:
        if jax.tree.structure(server) == jax.tree.structure(present):
            server = jax.tree.map(jnp.where, present, server, state.server)
        each = [jnp.any(x.reshape(x.shape[0], -1), axis=1) for x in jax.tree.leaves(present)]
        present = jnp.any(jnp.stack(each), axis=0)
    return server, server_state, present


def _number(population, who):
    """How many of every federation, int32 [F]; all where `who` is None."""
    if who is None:
        return jnp.asarray(population.sizes, jnp.int32)
    return population.sum(who.astype(jnp.int32))


def _arrived(population, params, here) -> dict:
    """Which part of all has arrived, and how much more than others it counts."""
    share = params.federation[SHARE]
    if here is not None:
        # Fewer may have arrived than were waited for.
        part = _number(population, here) / jnp.asarray(population.sizes)
        share = share * part.astype(share.dtype)
    if SHARE not in params.agent:
        return {SHARE: share}
    own = params.agent[SHARE]
    if here is not None:
        own = jnp.where(here, own, 0)
    # All of it to the last bit where everybody is there.
    counts = jnp.where(share == 1, 1, population.sum(own))
    return {SHARE: counts, EMPHASIS: counts / jnp.where(share > 0, share, 1)}


def _one_each(present) -> bool:
    """Whether presence is said per federation, [F], and not for every entry."""
    return isinstance(present, jax.Array) and present.ndim == 1


def _line(population, link, params, state) -> jax.Array:
    """What one message up and its answer down cost, a line of the ledger."""
    amounts = costs(population, link, params, state)
    return jnp.asarray(amounts, jnp.uint32)


def costs(population, link, params, state) -> tuple[int, ...]:
    """What one message up, of the size of its shape, and its answer down cost, by `COLUMNS`."""

    def one(tree):
        return jax.tree.map(lambda x: x[0], tree)

    def messages(state):
        model = population.spread(jax.vmap(link.broadcast)(state.server))
        return one(per_agent(link.message, population, params, state.agents, model))

    up = jax.eval_shape(messages, state)
    down = jax.eval_shape(lambda s: one(jax.vmap(link.broadcast)(s.server)), state)
    amounts = {
        "messages_up": 1,
        "messages_down": 1,
        "floats_up": tree_floats(up),
        "floats_down": tree_floats(down),
        "bytes_up": tree_bytes(up),
        "bytes_down": tree_bytes(down),
    }
    return tuple(amounts.get(name, 0) for name in COLUMNS)
