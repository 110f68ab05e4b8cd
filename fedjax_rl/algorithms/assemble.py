"""From a learner to the functions that the engine drives."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl import backend, streams
from fedjax_rl.algorithms import parameters, rate_rules
from fedjax_rl.algorithms.learner import Federated, Learner, Local, Steps
from fedjax_rl.federation import aggregators
from fedjax_rl.federation.algorithm import Functions
from fedjax_rl.federation.exchange import Exchange, first_state
from fedjax_rl.federation.kernels import in_kernels
from fedjax_rl.federation.population import select
from fedjax_rl.federation.rounds import LocalSteps, Repeated, Rounds, rounds
from fedjax_rl.federation.state import Params, per_agent


def at_time(population, params: Params, schedules: dict, time) -> Params:
    """The properties with those filled in that follow time.

    Args:
      population: who belongs to whom.
      params: its properties.
      schedules: from `record.schedules_of`.
      time: scalar for all, or [A] where each federation is one agent with a time of its own.
    """
    steps = jnp.asarray(time).astype(jnp.int32)
    own = {"agent": dict(params.agent), "federation": dict(params.federation)}
    sizes = {"agent": population.num_agents, "federation": population.num_federations}
    for name, (by, function) in schedules.items():
        value = jax.vmap(function)(steps) if steps.ndim else function(steps)
        own[by][name] = jnp.broadcast_to(jnp.asarray(value, float), (sizes[by],))
    return Params(own["agent"], own["federation"], params.shared)


def assemble(config: Federated, learner: Learner, root_keys: bool = True) -> Functions:
    """The engine's functions of a learner.

    Args:
      config: resolved.
      learner: of it.
      root_keys: as in `algorithm`.
    """
    rules = rate_rules.rules_of(config)
    # Rules look like schedules, but have a state: they are driven from around these functions.
    schedules = {n: own for n, own in parameters.schedules_of(config).items() if n not in rules}

    def now(population, params, time):
        return at_time(population, params, schedules, time)

    def of(keys, place: streams.Own):
        return keys if root_keys else streams.own_keys(keys, place)

    parts = _equipped(config, learner.round, now if schedules else None, of)
    links = links_of(parts)
    inner = parts[0]
    stepwise = isinstance(inner, Local | Steps)
    if stepwise:
        rate_rules.refuse_steps(config)
        local = inner.learn if isinstance(inner, Local) else _one_by_one(inner.step, schedules)
        period = config.sync_period
        known = isinstance(period, int | np.integer)
        local = LocalSteps(local, int(period) if known else None, inner.env_steps)
        drive = rounds(local, links[0])
        drive = _in_kernels(drive, local, links[0], getattr(inner, "kernel", None))
    else:
        after = learner.after
        after = None if after is None else _handed(after, now, of, streams.Own.AFTER)
        drive = rounds(*parts, after=after)

    def init(population, params, keys):
        params = now(population, params, jnp.uint32(0))
        own = of(keys, streams.Own.FIRST)
        agents = per_agent(learner.agent, population, params, own)
        if learner.model is None:
            model = population.first(jax.vmap(learner.share)(agents))
        else:
            own = first_keys(population, of(keys, streams.Own.MODEL))
            model = per_federation(learner.model, params, own)
        state = first_state(population, links, params, keys, agents, model, detailed=not stepwise)
        if learner.begin is None:
            return state
        return _handed(learner.begin, None, of, streams.Own.BEGIN)(population, params, state)

    def measure(population, params, state):
        params = now(population, params, state.time)
        if stepwise and config.clock is None:
            # Between exchanges, and where one agent has nobody to exchange with, what counts is
            # the mean of what agents have learned by now.
            shared = jax.vmap(learner.share)(state.agents)
            weights = links[0].weight(population, state.agents, params)
            average = aggregators.mean(population, shared, None, weights).value
            state = dataclasses.replace(state, server=average)
        return learner.measure(population, params, state)

    def model(population, params, state):
        # One agent has nobody to exchange with: its server stays as it was in the beginning.
        alone = jnp.asarray((population.sizes == 1) & (not links[0].dedicated_server))
        shared = population.first(jax.vmap(learner.share)(state.agents))
        return select(alone, shared, state.server)

    kept = {"own": learner.own, "links": tuple(zip(links, times_of(parts), strict=True))}
    if learner.model is None:
        kept["model"] = model
    if learner.drawn is not None:
        by_server = learner.drawn_by_server or (lambda server: jnp.zeros(0))
        kept["drawn"] = lambda state: jnp.concatenate(
            [learner.drawn(state.agents), by_server(state.server)]
        )
    if learner.drawn_to_measure is not None:
        kept["drawn_to_measure"] = learner.drawn_to_measure
    own = Functions(init, drive.round, drive.advance, measure, drive.parts, learner.act, **kept)
    return rate_rules.following(own, rules) if rules else own


def _in_kernels(drive: Rounds, local: LocalSteps, link: Exchange, kernel: str | None) -> Rounds:
    """A driver whose rounds are kernels where a device gains by that."""
    if kernel is None:
        return drive

    def advance(population, params, state, num_steps):
        # Asked when a program is made: what reads a command line must not start JAX.
        how = backend.kernels()
        own = drive
        if how is not None:
            own = in_kernels(drive, local, link, kernel == "round", how)
        return own.advance(population, params, state, num_steps)

    return drive._replace(advance=advance)


def links_of(parts: tuple) -> tuple[Exchange, ...]:
    """The exchanges of a round, in turn."""
    links = [part.link if isinstance(part, Repeated) else part for part in parts]
    return tuple(link for link in links if isinstance(link, Exchange))


def times_of(parts: tuple) -> tuple[int, ...]:
    """How often a round has each of its exchanges."""
    times = [part.count if isinstance(part, Repeated) else 1 for part in parts]
    exchanging = [isinstance(part, Repeated | Exchange) for part in parts]
    return tuple(itertools.compress(times, exchanging))


def _equipped(config: Federated, parts: tuple, now: Callable | None, of: Callable) -> tuple:
    """The parts of a round with the wire, the uplink and the schedules of a configuration.

    Args:
      config: of the algorithm.
      parts: as a `Learner` has them.
      now: `(population, params, time) -> params`; None where nothing follows time.
      of: `(keys, place) -> keys`, those that are handed to the algorithm.
    """
    last = links_of(parts)[-1]
    wire = getattr(config, "wire", None)
    handed = functools.partial(_handed, now=now, of=of, place=streams.Own.WORK)

    def equipped(part):
        if isinstance(part, Exchange):
            more = {} if wire is None else {"wire": wire}
            more |= {} if now is None else {"at_time": now}
            return part._replace(**more, **({"uplink": config.transmits()} if part is last else {}))
        if isinstance(part, Repeated):
            return part._replace(work=handed(part.work), link=equipped(part.link))
        return part if isinstance(part, Local | Steps) else handed(part)

    return tuple(equipped(part) for part in parts)


def _handed(work: Callable, now: Callable | None, of: Callable, place: streams.Own) -> Callable:
    """Work that is handed the properties of its time, and keys of its own.

    Args:
      work: `(population, params, state, ...) -> state`, or a tuple of it and more.
      now: as of `_equipped`.
      of: as of `_equipped`.
      place: where it draws.
    """

    def wrapped(population, params, state, *which):
        params = params if now is None else now(population, params, state.time)
        keys = state.keys
        own = dataclasses.replace(state, keys=of(keys, place))
        out = work(population, params, own, *which)
        # Streams are read from keys that stay.
        if isinstance(out, tuple):
            return dataclasses.replace(out[0], keys=keys), *out[1:]
        return dataclasses.replace(out, keys=keys)

    return wrapped


def _one_by_one(step: Callable, schedules: dict) -> Callable:
    """Local steps in a loop, each with a key of its own and the properties of its time."""

    def learn(key, agent, params, time, num_steps):
        # A stream of its own: what the algorithm folds into a step's key meets nobody else's.
        stream = streams.own_keys(key, streams.Own.STEP)

        def one(i, agent):
            when = time + jnp.uint32(i)
            own = parameters.at_step(schedules, params, when)
            return step(streams.fold(stream, when), agent, own)

        first = 0 if isinstance(num_steps, int) else jnp.uint32(0)
        return backend.repeat(first, num_steps, one, agent)

    return learn


def per_federation(function: Callable, params: Params, *batched):
    """Applies an unbatched `function(*batched, params)` to every federation.

    Args:
      function: works on one federation; its `params` is a flat dict of its properties.
      params: the properties.
      *batched: pytrees of [F, ...].
    """
    return jax.vmap(lambda own, *each: function(*each, {**params.shared, **own}))(
        params.federation, *batched
    )


def first_keys(population, keys):
    """The key of every federation's first member, for what its server draws: [A] -> [F].

    Args:
      population: who belongs to whom.
      keys: typed keys [A] of the agents.

    Returns:
      Typed keys [F].
    """
    data = population.first(jax.random.key_data(keys))
    return jax.random.wrap_key_data(data, impl=streams.IMPLEMENTATION)
