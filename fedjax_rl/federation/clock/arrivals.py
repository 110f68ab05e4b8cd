"""Any algorithm on a clock: its server makes a step at arrivals instead of rounds.

Who arrives at the next steps is planned in blocks, and the steps of a block are then made in turn.
As an agent works only with its model and its own random stream, it makes no difference that its
work is done when it arrives and not while others do theirs; nor, where nobody comes twice among the
next few steps, that the work of all of them is done before the first one. Its stream is read by the
number of its messages so far, so that the j-th upload of agent i draws the same whatever the
scheduler.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl.federation.algorithm import Algorithm, Functions
from fedjax_rl.federation.clock import step
from fedjax_rl.federation.clock.config import Rules
from fedjax_rl.federation.clock.statistics import METRICS
from fedjax_rl.federation.clock.step import Parts
from fedjax_rl.federation.clock.timing import Timing
from fedjax_rl.federation.derivatives import without_guards
from fedjax_rl.federation.exchange import Exchange
from fedjax_rl.federation.ledger import message_costs
from fedjax_rl.federation.server import SHARE
from fedjax_rl.federation.state import Params, State

# What the clock knows of an agent under this name: its times.
PARAMETERS = "clock"


def driven(algorithm: Algorithm) -> Algorithm:
    """The algorithm on the clock of its configuration; as it is where there is none.

    Its time then counts the servers' steps, "update"s.

    Raises:
      ValueError: an algorithm whose rounds cannot be cut into arrivals.
    """
    if getattr(algorithm.config, "clock", None) is None:
        return algorithm
    # What is made of it has guards of its own.
    functions_of = without_guards(algorithm.functions)
    parameters_of = without_guards(algorithm.parameters)
    _parts(algorithm.name, functions_of(algorithm.config).parts)

    def parameters(config, num_agents: int) -> Params:
        own = parameters_of(config, num_agents)
        times = config.clock.parameters(num_agents)
        share = config.clock.rules.arrivals(num_agents) / num_agents
        return Params(
            {**own.agent, PARAMETERS: times},
            {**own.federation, SHARE: np.asarray(share, np.float64)},
            own.shared,
        )

    def functions(config) -> Functions:
        own = functions_of(config)
        return _functions(own, _parts(algorithm.name, own.parts), config.clock.rules)

    def static(config):
        return algorithm.static(config), config.clock.rules

    return dataclasses.replace(
        algorithm,
        parameters=parameters,
        functions=functions,
        static=static,
        metrics={**algorithm.metrics, **METRICS},
        unit="update",
    )


def _parts(name: str, parts: tuple) -> Parts:
    links = [part for part in parts if isinstance(part, Exchange)]
    if len(links) != 1 or parts[-1] is not links[0] or links[0].due is not None:
        raise ValueError(
            f"clock is given for {name}, whose rounds are more than work of the agents and one "
            "exchange after it; allowed: None"
        )
    # With others arriving later even a federation of one message has somebody to talk to.
    return Parts(tuple(parts[:-1]), links[0]._replace(dedicated_server=True))


def _ahead(every: step.Step, at: Callable, state: State, count) -> State:
    """Steps whose work is done together where nobody comes twice among them.

    Args:
      every: all planned steps, arrivals [T, W].
      at: the step at a place.
      state: before them.
      count: uint32 scalar, of those that are made.

    Returns:
      The state after them.
    """
    width, workers = every.timing.ahead, every.workers.num_agents
    # Steps behind the last one are worked on, too, and not made.
    arrivals = jax.tree.map(
        lambda x: jnp.pad(x, [(0, width), *((0, 0) for _ in x.shape[1:])], "edge"), every.arrivals
    )
    since = _since(arrivals.agent, width)

    def slices(tree, place, size: int):
        return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, place, size), tree)

    def body(carry):
        place, state = carry
        start = place.astype(jnp.int32)
        free = slices(since, start, width) > jnp.arange(width, dtype=jnp.int32)
        known = jnp.sum(jnp.cumprod(free.astype(jnp.uint32)), dtype=jnp.uint32)
        number = jnp.minimum(known, count - place)
        worked = step.work(every._replace(arrivals=slices(arrivals, start, width)), state)

        def one(carry):
            turn, state = carry
            own = turn.astype(jnp.int32)
            mine = slices(worked, own * workers, workers)
            return turn + jnp.uint32(1), step.make(at(start + own), state, mine)

        made = jax.lax.while_loop(lambda own: own[0] < number, one, (jnp.uint32(0), state))
        return place + number, made[1]

    return jax.lax.while_loop(lambda carry: carry[0] < count, body, (jnp.uint32(0), state))[1]


def _since(agent, width: int):
    """How many steps ago one of those who arrive did so last, int32 [T]; `width` if not since.

    Args:
      agent: int32 [T, W].
      width: steps that are looked back, and what stands where nobody has come in them.
    """
    found = jnp.full(len(agent), width, jnp.int32)
    for ago in range(width - 1, 0, -1):
        same = jnp.any(agent[ago:] == agent[:-ago], axis=1)
        found = found.at[ago:].set(jnp.where(same, ago, found[ago:]))
    return found


def _functions(own: Functions, parts: Parts, rules: Rules) -> Functions:
    link = parts.link

    def timing_of(population, params, state) -> Timing:
        transfer = 0
        if rules.limited:
            each = message_costs(population, link, params, state)
            # A whole message, whatever an uplink makes of it: who arrives when is planned before
            # the message is made.
            transfer = each["bytes_up"] + each["bytes_down"]
        return Timing(rules, population, int(transfer))

    def init(population, params, keys) -> State:
        state = own.init(population, params, keys)
        timing = timing_of(population, params, state)
        in_flight, elapsed = timing.start(params.agent[PARAMETERS], keys)
        # A model for each agent, the one that it was handed, as the server's moves on meanwhile.
        models = population.spread(state.server)
        return dataclasses.replace(state, in_flight=(in_flight, models), elapsed=elapsed)

    def block(population, params, state, count, length: int, differentiable):
        """The next steps, planned and then made."""
        timing = timing_of(population, params, state)
        in_flight, models = state.in_flight
        # Who arrives when is discrete: times have no part in a derivative.
        times = jax.lax.stop_gradient(params.agent[PARAMETERS])
        plan = timing.plan(times, in_flight, state.elapsed, state.time, count, length)
        arrivals, in_flight, elapsed = plan
        state = dataclasses.replace(state, in_flight=(in_flight, models), elapsed=elapsed)

        def at(place) -> step.Step:
            here = jax.tree.map(
                lambda x: jax.lax.dynamic_index_in_dim(x, place, keepdims=False), arrivals
            )
            return step.Step(parts, timing, params, here, differentiable)

        # Without a loop: one of a traced length has no reverse mode.
        if length == 1:
            return step.make(at(0), state)
        if timing.ahead > 1:
            first = step.Step(parts, timing, params, arrivals, differentiable)
            return _ahead(first, at, state, count)

        def body(carry):
            place, state = carry
            return place + jnp.uint32(1), step.make(at(place.astype(jnp.int32)), state)

        first = (jnp.uint32(0), state)
        return jax.lax.while_loop(lambda carry: carry[0] < count, body, first)[1]

    def round_(population, params, state, period):
        del period
        return block(population, params, state, jnp.uint32(1), 1, True)

    def advance(population, params, state, num_steps):
        length = timing_of(population, params, state).block
        end = state.time + num_steps

        def body(state):
            # The length shapes the program; how many of its steps are made is traced.
            count = jnp.minimum(end - state.time, jnp.uint32(length))
            return block(population, params, state, count, length, False)

        return jax.lax.while_loop(lambda state: state.time < end, body, state)

    def measure(population, params, state) -> dict:
        timing = timing_of(population, params, state)
        passed = timing.measure(state.in_flight[0], state.elapsed)
        return {**own.measure(population, params, state), **passed}

    # Who has not arrived has drawn nothing, and who has did not know of the others at work.
    counted = {"drawn": own.drawn, "drawn_to_measure": own.drawn_to_measure, "own": own.own}
    return Functions(init, round_, advance, measure, own.parts, links=own.links, **counted)
