"""The driver of rounds: what agents do by themselves, and the exchanges in between."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_rl import turns
from fedjax_rl.federation.debugging import look
from fedjax_rl.federation.exchange import (
    Exchange,
    exchange,
    exchanging,
    sends_everything,
    trip,
)
from fedjax_rl.federation.ledger import line, price
from fedjax_rl.federation.population import Population
from fedjax_rl.federation.state import State, nothing_sent, per_agent, turn_of


class LocalSteps(NamedTuple):
    """Work of K local steps; the time of an algorithm with this part counts them.

    Attributes:
      local: `(key, agent, params, time, num_steps) -> agent`, unbatched: so many local steps from
        `time` on. `num_steps` is an int in `Rounds.round` and traced in `Rounds.advance`.
      length: K where it is known. A clock's rounds are then loops of that length, which can be
        differentiated in reverse; of agents whose `sync_period` is another they are NaN.
      env_steps: environment steps of a local step.
    """

    local: Callable
    length: int | None = None
    env_steps: int = 1


class Repeated(NamedTuple):
    """Work and exchanges that follow each other several times within a round.

    Attributes:
      count: how many times.
      work: `(population, params, state, turn) -> state`, with the number of the time from 0.
      link: the exchange after it; who sends is drawn anew at every one.
    """

    count: int
    work: Callable
    link: Exchange


class Rounds(NamedTuple):
    """An algorithm as it is driven.

    Attributes:
      round: `(population, params, state, period) -> state`, one communication round, with `period`
        (static) local steps where time counts these. Differentiable in both modes.
      advance: `(population, params, state, num_steps) -> state`, so many units of time. Where
        these are local steps, with the exchanges that fall due in them; the period is the traced
        `params` entry `sync_period`, one number for all or one per federation, and one compilation
        serves every period.
      parts: what a round consists of, in turn: work, and exchanges; empty where no clock can
        drive them.
    """

    round: Callable
    advance: Callable
    parts: tuple = ()


def rounds(
    *parts: Callable | LocalSteps | Exchange | Repeated, after: Callable | None = None
) -> Rounds:
    """The driver of an algorithm that consists of these parts.

    Args:
      *parts: in turn. An `Exchange`, `Repeated` work with one, or work,
        `(population, params, state, differentiable) -> (state, steps)`: what the agents do with
        what the server sent down last, and the environment steps of each, uint32 [A].
        `differentiable` asks for loops of static length. Time then counts rounds. With `LocalSteps`
        in place of work it counts local steps; there is then one exchange, after them.
      after: `(population, params, state, differentiable) -> (state, steps)`, what the server does
        by itself at the end of a round, and its environment steps, uint32 [F].

    Returns:
      The `Rounds`. In the state after a round `sent` is the sum over its exchanges.

    Raises:
      ValueError: `LocalSteps` with anything but one exchange after them.
    """
    if not any(isinstance(part, LocalSteps) for part in parts):
        return _of_rounds(parts, after)
    if len(parts) != 2 or not isinstance(parts[1], Exchange) or after is not None:
        kinds = ", ".join(type(part).__name__ for part in parts)
        raise ValueError(
            f"parts is {kinds}; allowed: LocalSteps and one Exchange, or no LocalSteps"
        )
    return _of_steps(*parts)


def _of_rounds(parts, after) -> Rounds:
    """Time counts rounds."""

    def exchanged(population, params, state, link, place, total):
        """The state after an exchange, and what has been sent in the round."""
        due = None if link.due is None else link.due(population, params, state.time)
        # Each exchange has an uplink and a server, which keep states of their own.
        state = exchange(population, link, params, state, due, place=place)
        look(population, state, "an exchange", state.time + jnp.uint32(1))
        if state.sent is not None:
            total = jax.tree.map(jnp.add, total, state.sent)
        return state, total

    def repeated(population, params, state, part, place, total):
        time, link = state.time, part.link
        if link.at_time is not None:
            # Properties follow the rounds, whatever the exchanges in them count.
            params = link.at_time(population, params, time)
            link = link._replace(at_time=None)

        def once(carry, turn):
            state, total = carry
            state = part.work(population, params, state, turn)
            # What an uplink draws it draws by time, of which every exchange has its own.
            count = time * jnp.uint32(part.count) + turn.astype(jnp.uint32)
            state = dataclasses.replace(state, time=count)
            state, total = exchanged(population, params, state, link, place, total)
            return (dataclasses.replace(state, time=time), total), None

        numbers = jnp.arange(part.count, dtype=jnp.int32)
        # One copy of the work in the program, however often it is repeated.
        return jax.lax.scan(once, (state, total), numbers)[0]

    def one(population, params, state, differentiable):
        total, place = nothing_sent(population.num_agents), 0
        time = state.time + jnp.uint32(1)
        for part in parts:
            if isinstance(part, Exchange):
                state, total = exchanged(population, params, state, part, place, total)
                place += 1
            elif isinstance(part, Repeated):
                state, total = repeated(population, params, state, part, place, total)
                place += 1
            else:
                state, steps = part(population, params, state, differentiable)
                state = _stepped(state, population.sum(steps))
                look(population, state, "local work", time)
        if state.sent is not None:
            state = dataclasses.replace(state, sent=total)
        if after is not None:
            state, steps = after(population, params, state, differentiable)
            state = _stepped(state, steps)
        return dataclasses.replace(state, time=time)

    def round_(population, params, state, period):
        del period
        return one(population, params, state, True)

    def advance(population, params, state, num_steps):
        def go_on(carry):
            return carry[0] < num_steps

        def body(carry):
            done, state = carry
            return done + jnp.uint32(1), one(population, params, state, False)

        # Of a traced length, so that one program serves every distance between two records; reverse
        # mode, which needs a scan, goes through `round`.
        return jax.lax.while_loop(go_on, body, (jnp.uint32(0), state))[1]

    return Rounds(round_, advance, parts if after is None else ())


def _stepped(state: State, *steps) -> State:
    """The state with environment steps in the ledger: a product of uint32 [F]."""
    return dataclasses.replace(state, ledger=state.ledger.add(line(env_steps=1), *steps))


def spent(population: Population, state: State, env_steps: int, num_steps) -> State:
    """The state with the environment steps of every agent in the ledger, so many a local step."""
    sizes = jnp.asarray(population.sizes).astype(jnp.uint32) * jnp.uint32(env_steps)
    return _stepped(state, sizes, jnp.broadcast_to(jnp.uint32(num_steps), sizes.shape))


def charged(population: Population, link: Exchange, params, state: State, start) -> State:
    """The state with the exchanges since `start` in the ledger, where all send everything."""
    period = {**params.shared, **params.federation}["sync_period"]
    if link.at_time is not None:
        params = link.at_time(population, params, state.time)
    due = state.time // period - start // period
    times = jnp.where(exchanging(population, link), due, 0)
    return dataclasses.replace(state, ledger=price(population, link, params, state, times))


def _by_themselves(function: Callable, population, params, state: State, fixed):
    """The agents after work that each does by itself, in turns where the cache does not hold all.

    Args:
      function: `(key, agent, params, *fixed) -> agent`, unbatched.
      population: who belongs to whom.
      params: traced properties.
      state: before it.
      fixed: the same for all.
    """
    size = turn_of(population, (state.agents, params.agent))
    if size == population.num_agents:
        return per_agent(function, population, params, state.keys, state.agents, fixed=fixed)

    def work(agents, keys, own):
        some = Population(((1, keys.shape[0]),))
        own = dataclasses.replace(params, agent=own)
        return per_agent(function, some, own, keys, agents, fixed=fixed)

    return turns.changed_in_turns(work, size, state.agents, state.keys, params.agent)


def _of_steps(steps: LocalSteps, link: Exchange) -> Rounds:
    """Time counts local steps, K of which make a round."""
    local, length, env_steps = steps

    def work(population, params, state, num_steps):
        if isinstance(num_steps, int):  # a static trip count must not pass through vmap
            function, fixed = functools.partial(local, num_steps=num_steps), (state.time,)
        else:
            function, fixed = local, (state.time, num_steps)
        agents = _by_themselves(function, population, params, state, fixed)
        state = dataclasses.replace(state, agents=agents, time=state.time + jnp.uint32(num_steps))
        look(population, state, "local work")
        return state

    def round_(population, params, state, period):
        state = work(population, params, state, period)
        state = spent(population, state, env_steps, period)
        state = exchange(population, link, params, state)
        look(population, state, "an exchange")
        return state

    def advance(population, params, state, num_steps):
        period = {**params.shared, **params.federation}["sync_period"]
        start, end = state.time, state.time + jnp.uint32(num_steps)

        def left(time):
            """LocalSteps until the next exchange of each federation; counts down to 1, never 0."""
            return period - time % period

        def go_on(state):
            # Unsigned, and never below 0: no turn of the loop passes the end.
            return jnp.min(left(state.time)) <= end - state.time

        def body(state):
            # Federations of many periods lie side by side: all work up to the next exchange of any.
            state = work(population, params, state, jnp.min(left(state.time)))
            # One period for all: at every exchange everybody is due, and nothing is masked.
            due = None if period.ndim == 0 else state.time % period == 0
            if sends_everything(link):
                state = trip(population, link, params, state, due)[0]
            else:
                state = exchange(population, link, params, state, due)
            look(population, state, "an exchange")
            return state

        # Where everybody sends, an exchange always costs the same. It is then charged once at
        # the end rather than in the loop, which matters where an exchange follows every step.
        after = jax.lax.while_loop(go_on, body, state)
        # The rest of the way, in which no exchange falls due.
        after = work(population, params, after, end - after.time)
        after = spent(population, after, env_steps, num_steps)
        return charged(population, link, params, after, start) if sends_everything(link) else after

    def alone(population, params, state, differentiable):
        """K steps of agents each of which has made as many rounds as its entry of the time says."""
        known = differentiable and length is not None

        def one(key, agent, turn, params):
            period = params["sync_period"]
            start = turn * period
            if not known:
                return local(key, agent, params, start, period), period
            # Reverse mode needs a loop of static length, and a wrong one must not go unnoticed.
            agent = local(key, agent, params, start, length)
            fits = period == length
            return jax.tree.map(lambda x: jnp.where(fits, x, _not_a_number(x)), agent), period

        # On a clock workers have made different numbers of rounds: time is batched here, [A].
        agents, made = per_agent(one, population, params, state.keys, state.agents, state.time)
        return dataclasses.replace(state, agents=agents), made * jnp.uint32(env_steps)

    return Rounds(round_, advance, (alone, link))


def _not_a_number(x):
    """NaN in place of floats; anything else as it is."""
    return jnp.full_like(x, jnp.nan) if jnp.issubdtype(x.dtype, jnp.floating) else x
