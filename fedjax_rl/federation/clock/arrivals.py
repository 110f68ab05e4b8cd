"""Any algorithm on a clock: its server makes a step at arrivals instead of rounds.

An agent at work is a federation of one with the model that it was handed. What an algorithm lets
its agents do in a round is therefore called as it is, on the population of those who arrive, each
alone; then comes the algorithm's own exchange, of the federations that consist of them. Only they
are simulated: a step costs the work of its m messages, whatever N is.

As an agent works only with its model and its own random stream, it makes no difference that its
work is done when it arrives and not while others do theirs. Its stream is read by the number of
its messages so far, so that the j-th upload of agent i draws the same whatever the scheduler.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl.federation import clock as clocks
from fedjax_rl.federation.algorithm import Algorithm, Functions
from fedjax_rl.federation.debugging import look
from fedjax_rl.federation.exchange import Exchange, exchange
from fedjax_rl.federation.ledger import answer_costs, empty_ledger, line, message_costs
from fedjax_rl.federation.population import Population, select
from fedjax_rl.federation.server import SHARE
from fedjax_rl.federation.state import Params, State, per_agent

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
    _parts(algorithm.name, algorithm.functions(algorithm.config).parts)

    def parameters(config, num_agents: int) -> Params:
        own = algorithm.parameters(config, num_agents)
        times = config.clock.parameters(num_agents)
        share = config.clock.rules.arrivals(num_agents) / num_agents
        return Params(
            {**own.agent, PARAMETERS: times},
            {**own.federation, SHARE: np.asarray(share, np.float64)},
            own.shared,
        )

    def functions(config) -> Functions:
        own = algorithm.functions(config)
        return _functions(own, _parts(algorithm.name, own.parts), config.clock.rules)

    def static(config):
        return algorithm.static(config), config.clock.rules

    return dataclasses.replace(
        algorithm,
        parameters=parameters,
        functions=functions,
        static=static,
        metrics={**algorithm.metrics, **clocks.METRICS},
        unit="update",
    )


class _Parts(NamedTuple):
    """A round: what agents do, and the exchange at its end."""

    works: tuple[Callable, ...]
    link: Exchange


def _parts(name: str, parts: tuple) -> _Parts:
    links = [part for part in parts if isinstance(part, Exchange)]
    if len(links) != 1 or parts[-1] is not links[0]:
        raise ValueError(
            f"clock is given for {name}, whose rounds are more than work of the agents and one "
            "exchange after it; allowed: None"
        )
    # With others arriving later even a federation of one message has somebody to talk to.
    return _Parts(tuple(parts[:-1]), links[0]._replace(dedicated_server=True))


def _functions(own: Functions, parts: _Parts, rules: clocks.Rules) -> Functions:
    works, link = parts

    def timing_of(population, params, state) -> clocks.Timing:
        if population.shares > 1:
            raise ValueError(
                "devices spread the members of a federation, which a clock cannot be; allowed: as "
                "many devices as divide the number of federations"
            )
        transfer = 0
        if rules.limited:
            each = message_costs(population, link, params, state)
            transfer = each["bytes_up"] + each["bytes_down"]
        return clocks.Timing(rules, population, int(transfer))

    def init(population, params, keys) -> State:
        state = own.init(population, params, keys)
        timing = timing_of(population, params, state)
        underway, elapsed = timing.start(params.agent[PARAMETERS], keys)
        return dataclasses.replace(
            state,
            underway=(underway, population.spread(state.server)),
            elapsed=elapsed,
        )

    def step(timing, params, state, entry, differentiable):
        """One step of every server."""
        population, workers = timing.population, timing.workers
        alone = Population(((workers.num_agents, 1),))
        underway, held = state.underway
        agents, memory = state.agents, state.uplink_state

        def hand_over(who, agents, held):
            """The servers' models to whoever has come back."""
            model = population.spread(state.server)
            broadcast = population.spread(jax.vmap(link.broadcast)(state.server))
            received = per_agent(link.receive, population, params, agents, broadcast)
            return select(who, received, agents), select(who, model, held)

        def paid(spent, who):
            """The ledger with the models that were handed over."""
            each = line(**answer_costs(link, state))
            return spent.add(each, population.sum(who.astype(jnp.uint32)))

        if rules.fails:
            agents, held = hand_over(entry.early > 0, agents, held)
        everybody = workers.groups == population.groups
        rows = entry.agent
        home = workers.federation_of

        def take(tree):
            return tree if everybody else jax.tree.map(lambda x: x[rows], tree)

        def put(old, new):
            if everybody:
                return new
            return jax.tree.map(
                lambda x, y: x.at[rows].set(y.astype(x.dtype), unique_indices=True), old, new
            )

        mine = take(params.agent)
        before = take(agents)
        there = State(
            time=entry.turn,
            keys=take(state.keys),
            agents=before,
            server=take(held),
            server_state=(),
            uplink_state=(),
            ledger=empty_ledger(workers.num_agents),
        )
        of_one = jax.tree.map(lambda x: x[home], params.federation)
        steps = jnp.zeros(workers.num_agents, jnp.uint32)
        for work in works:
            there, more = work(alone, Params(mine, of_one, params.shared), there, differentiable)
            steps = steps + more
        done = there.agents
        if rules.fails:
            steps = jnp.where(entry.present, steps, 0)
            done = select(entry.present, done, before)
        together = dataclasses.replace(
            state,
            keys=there.keys,
            agents=done,
            uplink_state=take(memory),
            sent=take(state.sent),
            underway=None,
            elapsed=None,
        )
        together = exchange(
            workers,
            link,
            Params(mine, params.federation, params.shared),
            together,
            present=entry.present if rules.fails else None,
            # The server's model has moved since, which nobody who arrives can know.
            held=there.server,
        )
        model = jax.tree.map(lambda x: x[home], together.server)
        if rules.fails:
            model = select(entry.present, model, there.server)
        spent = together.ledger.add(line(env_steps=1), workers.sum(steps))
        state = dataclasses.replace(
            state,
            time=state.time + jnp.uint32(1),
            agents=put(agents, together.agents),
            server=together.server,
            server_state=together.server_state,
            uplink_state=put(memory, together.uplink_state),
            ledger=spent,
            # Who has not arrived has sent nothing.
            sent=put(jax.tree.map(jnp.zeros_like, state.sent), together.sent),
        )
        held = put(held, model)
        if rules.fails:
            agents, held = hand_over(entry.late, state.agents, held)
            spent = paid(paid(state.ledger, entry.early), entry.late)
            state = dataclasses.replace(state, agents=agents, ledger=spent)
        look(population, state, "an arrival")
        return dataclasses.replace(state, underway=(underway, held))

    def block(population, params, state, count, length: int, differentiable):
        """The next steps, planned and then made."""
        timing = timing_of(population, params, state)
        underway, held = state.underway
        plan = timing.plan(
            jax.lax.stop_gradient(params.agent[PARAMETERS]),
            underway,
            state.elapsed,
            state.time,
            count,
            length,
        )
        entries, underway, elapsed = plan
        state = dataclasses.replace(state, underway=(underway, held), elapsed=elapsed)

        def at(place):
            return jax.tree.map(
                lambda x: jax.lax.dynamic_index_in_dim(x, place, keepdims=False), entries
            )

        if length == 1:
            return step(timing, params, state, at(jnp.int32(0)), differentiable)

        def body(carry):
            place, state = carry
            state = step(timing, params, state, at(place.astype(jnp.int32)), differentiable)
            return place + jnp.uint32(1), state

        first = (jnp.uint32(0), state)
        return jax.lax.while_loop(lambda carry: carry[0] < count, body, first)[1]

    def round_(population, params, state, period):
        del period
        return block(population, params, state, jnp.uint32(1), 1, True)

    def advance(population, params, state, num_steps):
        length = timing_of(population, params, state).block
        end = state.time + num_steps

        def body(state):
            count = jnp.minimum(end - state.time, jnp.uint32(length))
            return block(population, params, state, count, length, False)

        return jax.lax.while_loop(lambda state: state.time < end, body, state)

    def measure(population, params, state) -> dict:
        timing = timing_of(population, params, state)
        passed = timing.measure(state.underway[0], state.elapsed)
        return {**own.measure(population, params, state), **passed}

    return Functions(init, round_, advance, measure, own.parts)
