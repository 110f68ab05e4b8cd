"""What goes out in an exchange: what the uplink makes of the messages, and what it costs."""

from __future__ import annotations

import jax.numpy as jnp

from fedjax_rl import backend
from fedjax_rl.federation.population import select
from fedjax_rl.federation.state import per_agent
from fedjax_rl.federation.uplinks import View
from fedjax_rl.streams import Engine, fold


def both(one, other):
    """Where both are true, None standing for true everywhere.

    Args:
      one: bool array, or None.
      other: bool array that broadcasts against it, or None.

    Returns:
      A bool array, or None where both are.
    """
    if one is None or other is None:
        return other if one is None else one
    return one & other


def outgoing(population, link, params, state, model, place):
    """What the uplink makes of the messages.

    Args:
      population: who belongs to whom.
      link: the kind of exchange.
      params: traced properties.
      state: before the exchange.
      model: leaves [A, ...], what the server sent down last, to each agent.
      place: which exchange of a round it is, from 0.

    Returns:
      Messages [A, ...]; whether each was sent, bool [A] or None for all; the uplinks' states; the
      size of each message as floats and bits [A].
    """
    message = per_agent(link.message, population, params, state.agents, model)
    sent, before = None, state.uplink_state[place]
    uplink_state = before

    def size(message, params):
        return link.spec.size(message), jnp.uint32(0)

    if link.uplink.send is not None:
        # By time, not by the number of draws so far: silence moves nobody's later words.
        keys = fold(fold(state.keys, Engine.UPLINK), state.time)

        def send(key, message, uplink_state, model, params, time):
            view = View(link.spec, model, time, params)
            return link.uplink.send(key, message, uplink_state, view)

        message, sent, uplink_state = _to_others(
            population,
            link,
            (message, jnp.ones(population.num_agents, bool), before),
            per_agent(
                send,
                population,
                params,
                keys,
                message,
                before,
                model,
                fixed=(state.time,),
            ),
        )
        # Who sends is asked for by every number of a message.
        sent = backend.once(sent)
        if link.uplink.size is not None:

            def size(message, params):
                floats, bits = link.uplink.size(link.spec.numbers(message), params)
                return floats + jnp.uint32(link.spec.rest), bits

    if link.dedicated_server:

        def there(message, params):
            return jnp.any(link.spec.items(message)[1])

        # Who has nothing to say does not speak, whatever the uplink.
        something = per_agent(there, population, params, message)
        sent = both(sent, something)
    # After the uplink, whose message may be another; whoever is silent is masked by the caller.
    sizes = per_agent(size, population, params, message)
    return message, sent, uplink_state, sizes


def _to_others(population, link, whole, sent):
    """What is sent, and the whole message where there is no wire to cross.

    A federation of one without a server apart has only itself to talk to, and loses nothing of
    what it has learned.
    """
    # Sizes are static: where nobody is alone, nothing of it is in the program.
    alone = population.sizes == 1
    if link.dedicated_server or not alone.any():
        return sent
    return select(population.spread(jnp.asarray(alone)), whole, sent)
