"""One step of the servers on a clock: work, exchange and what is put back, of those who arrive.

An agent at work is a federation of one with the model that it was dispatched. What an algorithm
lets its agents do in a round is therefore called as it is, on the population of those who arrive,
each alone; then comes the algorithm's own exchange, of the federations that consist of them. Only
they are simulated: a step costs the work of its m messages, whatever N is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fedjax_rl.federation.clock.state import Arrivals
from fedjax_rl.federation.clock.timing import Timing
from fedjax_rl.federation.debugging import look
from fedjax_rl.federation.exchange import Exchange, exchange
from fedjax_rl.federation.ledger import answer_costs, empty_ledger, line
from fedjax_rl.federation.population import Population, column, select
from fedjax_rl.federation.state import Params, State, per_agent


class Worked(NamedTuple):
    """Workers after their work, leaves [W, ...].

    Attributes:
      keys: typed keys.
      agents: what they are by themselves.
      server: the model that each was dispatched.
      env_steps: uint32, of this work.
    """

    keys: jax.Array
    agents: Any
    server: Any
    env_steps: jax.Array


class Parts(NamedTuple):
    """A round: what agents do, and the exchange at its end."""

    works: tuple[Callable, ...]
    link: Exchange


class Step(NamedTuple):
    """A step of every server: who arrives, and what a round of theirs consists of.

    W workers are the m who arrive of every federation, in its order. Where the members are spread
    over devices, so are the workers, evenly, wherever they lie: they are fetched before their work
    and handed back after it.

    Attributes:
      parts: of a round.
      timing: the clock with the population.
      params: traced properties of all agents.
      arrivals: of this step, leaves [W], of all devices.
      differentiable: whether loops have to be of static length.
    """

    parts: Parts
    timing: Timing
    params: Params
    arrivals: Arrivals
    differentiable: bool

    @property
    def fails(self) -> bool:
        """Whether anybody can fail, so that not every worker is present."""
        return self.timing.rules.fails

    @property
    def workers(self) -> Population:
        """The workers as a population."""
        return self.timing.workers

    @property
    def upload(self) -> jax.Array:
        """Messages of each worker before this one, uint32 [W]."""
        return self.workers.held(self.arrivals.upload)

    @property
    def present(self) -> jax.Array | None:
        """Which worker arrives at all, bool [W]; None for all of them."""
        return self.workers.held(self.arrivals.present) if self.fails else None

    @property
    def _everybody(self) -> bool:
        return self.workers == self.timing.population

    def take(self, tree):
        """What the workers have of all agents' leaves, [A, ...] -> [W, ...]."""
        # Where all arrive at every step, they stand in the order of the agent axis already.
        if self._everybody:
            return tree
        if self.workers.axis_name is None:
            return jax.tree.map(lambda x: x[self.arrivals.agent], tree)
        here, index = self._own()

        def fetched(x):
            if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
                data = fetched(jax.random.key_data(x))
                return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
            words = _as_words(x)[jnp.where(here, index, 0)]
            mine = jnp.where(column(here, words), words, jnp.zeros_like(words))
            # Everybody lies on one device: a sum of words and zeros, every bit as it is.
            found = jax.lax.psum(mine, self.workers.axis_name)
            return _of_words(self.workers.held(found), x.dtype)

        return jax.tree.map(fetched, tree)

    def put(self, tree, new):
        """All agents' leaves [A, ...] with the workers' [W, ...].

        Args:
          tree: of all agents, leaves [A, ...].
          new: the same of the workers, leaves [W, ...]; cast to the dtypes of `tree`.

        Returns:
          A pytree like `tree`.
        """
        if self._everybody:
            return new
        at = self.arrivals.agent
        if self.workers.axis_name is not None:
            new, (here, index) = self.workers.gathered(new), self._own()
            # Beyond the end for those of other devices, each at a place of its own, and dropped.
            beyond = self.timing.population.num_agents + jnp.arange(len(index), dtype=jnp.int32)
            at = jnp.where(here, index, beyond)
        return jax.tree.map(
            lambda x, y: x.at[at].set(y.astype(x.dtype), unique_indices=True, mode="drop"),
            tree,
            new,
        )

    def _own(self) -> tuple[jax.Array, jax.Array]:
        """Which of all workers lie on this device, bool [W], and at which of its places, int32."""
        own, at = self.timing.population, self.arrivals.agent
        device = jax.lax.axis_index(own.axis_name).astype(jnp.int32)
        here, index = [], []
        first = local = worker = 0
        for (f, n), size, m in zip(own.groups, own.members, self.timing.counts, strict=True):
            rows = jnp.repeat(jnp.arange(f, dtype=jnp.int32), m)
            member = at[worker : worker + f * m] - first - rows * size
            here.append(member // n == device)
            index.append(local + rows * n + member % n)
            first, local, worker = first + f * size, local + f * n, worker + f * m
        return jnp.concatenate(here), jnp.concatenate(index)


def _as_words(x):
    """Numbers as unsigned ones of the same bits."""
    if x.dtype == bool:
        return x.astype(jnp.uint32)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        return x
    return jax.lax.bitcast_convert_type(x, f"uint{8 * x.dtype.itemsize}")


def _of_words(words, dtype):
    """What `_as_words` was given."""
    if not jnp.issubdtype(dtype, jnp.floating):
        return words.astype(dtype)
    return jax.lax.bitcast_convert_type(words, dtype)


def make(step: Step, state: State, worked: Worked | None = None) -> State:
    """One step of every server.

    Args:
      step: who arrives, and what a round of theirs consists of.
      state: of all agents, before it.
      worked: their work, where that is done already.

    Returns:
      The state of all agents after it, whose time is one update later.
    """
    # Before the step: models for who begins while nobody is at work; after it, for who has returned
    # in the meantime.
    if step.fails:
        state = _dispatched(step, state, step.arrivals.returned_before)
    if worked is None:
        worked = work(step, state)
    exchanged, models = _exchanged(step, state, worked)
    spent = exchanged.ledger.add(line(env_steps=1), step.workers.sum(worked.env_steps))
    state = _put_back(step, state, dataclasses.replace(exchanged, ledger=spent), models)
    if step.fails:
        state = _dispatched(step, state, step.arrivals.returned_after)
    look(step.timing.population, state, "an arrival")
    return state


def _dispatched(step: Step, state: State, times) -> State:
    """After those who returned from a failure were dispatched the servers' models.

    Args:
      step: of the servers.
      state: before.
      times: [A], how often each was; bool, or uint32 as each dispatch is paid for.
    """
    population, link = step.timing.population, step.parts.link
    in_flight, models = state.in_flight
    times = population.held(times.astype(jnp.uint32))
    params = step.params
    if link.at_time is not None:
        params = link.at_time(population, params, state.time)
    broadcast = population.spread(jax.vmap(link.broadcast)(state.server))
    received = per_agent(link.receive, population, params, state.agents, broadcast)
    return dataclasses.replace(
        state,
        agents=select(times > 0, received, state.agents),
        in_flight=(in_flight, select(times > 0, population.spread(state.server), models)),
        ledger=state.ledger.add(line(**answer_costs(link, state)), population.sum(times)),
    )


def work(step: Step, state: State) -> Worked:
    """The workers after their work, each alone with the model that it was dispatched.

    Args:
      step: whose arrivals may be of several steps, leaves [S, W], if nobody comes twice.
      state: of all agents, before it.

    Returns:
      The workers, leaves [W, ...]; of several steps one behind the other, [S W, ...].
    """
    workers, steps = step.workers, 1
    federation_of = workers.federation_of
    if step.arrivals.agent.ndim > 1:
        steps = len(step.arrivals.agent)
        federation_of = jnp.tile(federation_of, steps)
        step = step._replace(arrivals=jax.tree.map(jnp.ravel, step.arrivals))
    # Federations of one: within its work an agent knows only the model that it was handed.
    alone = Population(((steps * workers.num_agents, 1),))
    federation = jax.tree.map(lambda x: x[federation_of], step.params.federation)
    params = Params(step.take(step.params.agent), federation, step.params.shared)
    before = step.take(state.agents)
    worked = State(
        time=step.upload,
        keys=step.take(state.keys),
        agents=before,
        server=step.take(state.in_flight[1]),
        # No work reads these: they belong to the exchange.
        server_state=(),
        uplink_state=(),
        ledger=empty_ledger(alone.num_agents),
    )
    env_steps = jnp.zeros(alone.num_agents, jnp.uint32)
    for part in step.parts.works:
        worked, more = part(alone, params, worked, step.differentiable)
        env_steps = env_steps + more
    agents = worked.agents
    if step.fails:
        # Who is not there has been simulated all the same, as a step has a fixed number of workers.
        env_steps = jnp.where(step.present, env_steps, 0)
        agents = select(step.present, agents, before)
    return Worked(worked.keys, agents, worked.server, env_steps)


def _exchanged(step: Step, state: State, worked: Worked):
    """The exchange of the servers with the workers alone.

    Returns:
      The state after it, of the workers only; and the models that they work with next, [W, ...].
    """
    workers = step.workers
    exchanged = exchange(
        workers,
        step.parts.link,
        dataclasses.replace(step.params, agent=step.take(step.params.agent)),
        dataclasses.replace(
            state,
            keys=worked.keys,
            agents=worked.agents,
            uplink_state=step.take(state.uplink_state),
            sent=step.take(state.sent),
            in_flight=None,
            elapsed=None,
        ),
        present=step.present,
        # The server's model has moved since, which nobody who arrives can know.
        held=worked.server,
    )
    models = jax.tree.map(lambda x: x[workers.federation_of], exchanged.server)
    if step.fails:
        models = select(step.present, models, worked.server)
    return exchanged, models


def _put_back(step: Step, state: State, exchanged: State, models) -> State:
    """The state of all agents after the workers' exchange."""
    in_flight, before = state.in_flight
    return dataclasses.replace(
        state,
        time=state.time + jnp.uint32(1),
        agents=step.put(state.agents, exchanged.agents),
        server=exchanged.server,
        server_state=exchanged.server_state,
        uplink_state=step.put(state.uplink_state, exchanged.uplink_state),
        ledger=exchanged.ledger,
        # Who has not arrived has sent nothing.
        sent=step.put(jax.tree.map(jnp.zeros_like, state.sent), exchanged.sent),
        in_flight=(in_flight, step.put(before, models)),
    )
