"""The drivers: rounds of work and exchanges, and an exchange after every K local steps."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_rl.federation.exchange import Exchange, _charge, _line, _trip, exchange
from fedjax_rl.federation.ledger import line
from fedjax_rl.federation.state import State, nothing_sent, per_agent


class Periodic(NamedTuple):
    """Local steps with an exchange after every K of them.

    Attributes:
      round: `(population, params, state, period) -> state`, one communication round: `period`
        (static) local steps, then the exchange. Differentiable in both modes.
      advance: `(population, params, state, num_steps) -> state`, so many steps with the
        exchanges that fall due in them; the period is the traced `params` entry `sync_period`,
        one number for all or one per federation. One compilation serves every period.
      parts: what a round consists of, in turn: work as of `rounds`, and exchanges; empty where
        no clock can drive them.
    """

    round: Callable
    advance: Callable
    parts: tuple = ()


def rounds(*parts: Callable | Exchange, after: Callable | None = None) -> Periodic:
    """An algorithm whose unit of time is the round: what agents do by themselves, and exchanges.

    Args:
      *parts: in turn. An `Exchange`, or work,
        `(population, params, state, differentiable) -> (state, steps)`: what the agents do with
        what the server sent down last, and the environment steps of each, uint32 [A].
        `differentiable` asks for loops of static length.
      after: `(population, params, state, differentiable) -> (state, steps)`, what the learner
        does by itself at the end of a round, and its environment steps, uint32 [F].

    Returns:
      `round` and `advance` as in `Periodic`, time counted in rounds; the period is 1. In the state
      after a round `sent` is the sum over its exchanges.
    """
    links = [part for part in parts if isinstance(part, Exchange)]

    def one(population, params, state, differentiable):
        sent = nothing_sent(population.num_agents)
        place = 0
        for part in parts:
            if isinstance(part, Exchange):
                state = _exchange_of(population, part, params, state, place, len(links))
                place += 1
                if not isinstance(state.sent, tuple):
                    sent = jax.tree.map(jnp.add, sent, state.sent)
            else:
                state, steps = part(population, params, state, differentiable)
                spent = state.ledger.add(line(env_steps=1), population.sum(steps))
                state = dataclasses.replace(state, ledger=spent)
        if not isinstance(state.sent, tuple):
            state = dataclasses.replace(state, sent=sent)
        if after is not None:
            state, steps = after(population, params, state, differentiable)
            spent = state.ledger.add(line(env_steps=1), steps)
            state = dataclasses.replace(state, ledger=spent)
        return dataclasses.replace(state, time=state.time + jnp.uint32(1))

    def round_(population, params, state, period):
        del period
        return one(population, params, state, True)

    def advance(population, params, state, num_steps):
        def go_on(carry):
            return carry[0] < num_steps

        def body(carry):
            done, state = carry
            return done + jnp.uint32(1), one(population, params, state, False)

        return jax.lax.while_loop(go_on, body, (jnp.uint32(0), state))[1]

    return Periodic(round_, advance, parts if after is None else ())


def _exchange_of(population, link, params, state, place: int, count: int) -> State:
    """The exchange at a place among so many of a round, with the states of that place."""
    if count == 1:
        return exchange(population, link, params, state)
    servers, uplinks = state.server_state, state.uplink_state
    own = dataclasses.replace(state, server_state=servers[place], uplink_state=uplinks[place])
    new = exchange(population, link, params, own)

    def among(states, state):
        return (*states[:place], state, *states[place + 1 :])

    return dataclasses.replace(
        new,
        server_state=among(servers, new.server_state),
        uplink_state=among(uplinks, new.uplink_state),
    )


def periodic(local: Callable, link: Exchange, length: int | None = None) -> Periodic:
    """An algorithm that works alone for K local steps and then exchanges.

    Args:
      local: `(key, agent, params, time, num_steps) -> agent`, unbatched: so many local steps
        from `time` on. `num_steps` is an int in `round` and traced in `advance`.
      link: the exchange.
      length: K where it is known. A clock's rounds are then loops of that length, which can be
        differentiated in reverse; of agents whose `sync_period` is another they are NaN.
    """

    def work(population, params, state, num_steps):
        if isinstance(num_steps, int):  # a static trip count must not pass through vmap
            function, fixed = functools.partial(local, num_steps=num_steps), (state.time,)
        else:
            function, fixed = local, (state.time, num_steps)
        agents = per_agent(function, population, params, state.keys, state.agents, fixed=fixed)
        return dataclasses.replace(state, agents=agents, time=state.time + jnp.uint32(num_steps))

    def spent(population, state, num_steps):
        """The state with the environment steps of every agent in the ledger."""
        sizes = jnp.asarray(population.sizes).astype(jnp.uint32)
        steps = jnp.broadcast_to(jnp.uint32(num_steps), sizes.shape)
        spent = state.ledger.add(line(env_steps=1), sizes, steps)
        return dataclasses.replace(state, ledger=spent)

    def round_(population, params, state, period):
        state = spent(population, work(population, params, state, period), period)
        return exchange(population, link, params, state)

    def advance(population, params, state, num_steps):
        period = {**params.shared, **params.federation}["sync_period"]
        start, end = state.time, state.time + jnp.uint32(num_steps)

        def left(time):
            """Steps until the next exchange of each federation; counts down to 1, never 0."""
            return period - time % period

        def go_on(state):
            return jnp.min(left(state.time)) <= end - state.time

        def body(state):
            state = work(population, params, state, jnp.min(left(state.time)))
            due = None if period.ndim == 0 else state.time % period == 0
            if link.uplink.send is None:
                return _trip(population, link, params, state, due)[0]
            return exchange(population, link, params, state, due)

        # Where everybody sends, an exchange always costs the same. It is then charged once at
        # the end rather than in the loop, which matters where an exchange follows every step.
        after = jax.lax.while_loop(go_on, body, state)
        after = spent(population, work(population, params, after, end - after.time), num_steps)
        if link.uplink.send is None:
            sizes = jnp.asarray(population.sizes).astype(jnp.uint32)
            times = jnp.broadcast_to(end // period - start // period, sizes.shape)
            times = jnp.where(sizes > 1, times, 0)
            if link.at_time is not None:
                params = link.at_time(population, params, state.time)
            each = _line(population, link, params, state)
            after = _charge(after, each, times, times, sizes)
        return after

    def alone(population, params, state, differentiable):
        """K steps of agents each of which has made as many rounds as its entry of the time says."""
        known = differentiable and length is not None

        def steps(key, agent, turn, params):
            period = params["sync_period"]
            start = turn * period
            if not known:
                return local(key, agent, params, start, period), period
            agent = local(key, agent, params, start, length)
            fits = period == length
            return jax.tree.map(lambda x: jnp.where(fits, x, _not_a_number(x)), agent), period

        agents, made = per_agent(steps, population, params, state.keys, state.agents, state.time)
        return dataclasses.replace(state, agents=agents), made

    return Periodic(round_, advance, (alone, link))


def _not_a_number(x):
    """NaN in place of floats; anything else as it is."""
    return jnp.full_like(x, jnp.nan) if jnp.issubdtype(x.dtype, jnp.floating) else x
