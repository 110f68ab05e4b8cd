"""A clock with a population: the start, and who arrives at the next steps.

Nothing of it depends on what is learned: the next steps of all servers are planned in blocks, and
the learner then makes them.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl import backend
from fedjax_rl.federation import debugging
from fedjax_rl.federation.clock import statistics
from fedjax_rl.federation.clock.config import Rules
from fedjax_rl.federation.clock.order import Group
from fedjax_rl.federation.clock.state import Arrivals, InFlight
from fedjax_rl.federation.clock.statistics import Elapsed
from fedjax_rl.federation.clock.times import stream_of_times, work
from fedjax_rl.federation.population import Population

# Whose work is done together at most: on a CPU, and of all federations on an accelerator.
_WORKERS, _WORKERS_ELSEWHERE = 16, 4096


class Timing(NamedTuple):
    """A clock with a population; static.

    Attributes:
      rules: of the clock.
      population: who belongs to whom; where members are spread over devices, on one of these. Each
        of them plans the steps of all members, as who is next follows from all.
      transfer: bytes of a message up and its answer down.
    """

    rules: Rules
    population: Population
    transfer: int = 0

    @property
    def counts(self) -> tuple[int, ...]:
        """m, by group of federations."""
        return tuple(self.rules.arrivals(n) for n in self.population.members)

    @property
    def workers(self) -> Population:
        """Those who arrive at a step, as a population, spread over devices as all agents are."""
        own = self.population
        groups = tuple(
            (federations, -(-m // own.shares))
            for (federations, _), m in zip(own.groups, self.counts, strict=True)
        )
        return Population(groups, own.axis_name, own.shares, self.counts)

    @property
    def ahead(self) -> int:
        """Steps whose work is done together, as long as nobody comes twice among them.

        What somebody works with who comes once is known before the first of them. A worker at a
        time leaves a processor waiting. With several federations a CPU has enough to do, and all
        would wait for the longest episode (policy gradients on CartPole: half as long again).
        """
        own = self.population
        alone = all(m == 1 for m in self.counts) and not self.rules.fails
        if not alone or own.axis_name is not None or debugging.is_on():
            return 1
        agents = min(own.members)
        # Of agents who come at random, so many come before the first one of them is back.
        apart = agents if self.rules.even else round(math.sqrt(math.pi * agents / 2))
        if backend.kind() == "cpu":
            return max(1, min(apart, _WORKERS)) if own.num_federations == 1 else 1
        return max(1, min(apart, _WORKERS_ELSEWHERE // own.num_federations))

    @property
    def random(self) -> bool:
        """Whether times have to be drawn."""
        return self.rules.fails or self.rules.distribution in ("log_normal", "exponential")

    @property
    def waits(self) -> bool:
        """Whether anybody ever waits."""
        return self.rules.fails or any(m > 1 for m in self.counts)

    @property
    def block(self) -> int:
        """Steps that are planned at once."""
        whole = self.population.whole
        agents = whole.num_agents
        if self.rules.fails:  # with a mask of all agents for each of them
            return int(np.clip(2**20 // agents, 1, 64))
        # What a block costs every agent is spread over so many arrivals.
        return int(np.clip(max(n for _, n in whole.groups) // 16, 64, 4096))

    def start(self, own: dict, keys) -> tuple[InFlight, Elapsed]:
        """Everybody begins with the first model.

        Args:
          own: `Clock.parameters` of all agents, leaves [A, ...].
          keys: typed keys [A].

        Returns:
          The work in flight, leaves [A, ...], and what has passed: nothing, leaves [F, ...].
        """
        agents, fails = self.population.num_agents, self.rules.fails
        nothing = jnp.zeros(agents, jnp.uint32)
        stream = stream_of_times(keys) if self.random else ()
        start = jnp.zeros(agents)
        end, failing, ready = work(self.rules, self.transfer, own, stream, nothing, start)
        in_flight = InFlight(
            end=end,
            version=nothing,
            uploads=nothing,
            idle=jnp.zeros(agents) if self.waits else (),
            stream=stream,
            attempts=nothing + jnp.uint32(1) if fails else (),
            failing=failing,
            ready=ready,
            lost=nothing if fails else (),
        )
        return in_flight, statistics.nothing_elapsed(self.population.num_federations)

    def plan(
        self, own: dict, in_flight: InFlight, elapsed: Elapsed, version, count, length: int
    ) -> tuple[Arrivals, InFlight, Elapsed]:
        """The next `count` steps of every server.

        Args:
          own: `Clock.parameters` of all agents, leaves [A, ...].
          in_flight: the work in flight before them.
          elapsed: what has passed.
          version: uint32 scalar, steps that the servers have made.
          count: uint32 scalar, steps to plan, may be traced, at most `length`.
          length: T, steps to return; those from `count` on mean nothing.

        Returns:
          The arrivals, on the agent axis of all members (`Population.whole`), and the work in
          flight and what has passed after `count` steps.
        """
        own, in_flight = self.population.gathered((own, in_flight))
        arrivals, in_flight, elapsed = self._plan(own, in_flight, elapsed, version, count, length)
        return arrivals, self.population.held(in_flight), elapsed

    def _plan(self, own, in_flight, elapsed, version, count, length: int):
        """`plan` where all members are."""
        whole = self.population.whole
        shift = whole.spread(elapsed.now)
        # From the block's own start: single precision has digits for a block, not for a run.
        in_flight = in_flight._replace(end=in_flight.end - shift)
        if self.rules.fails:
            in_flight = in_flight._replace(ready=in_flight.ready - shift)
        elapsed = statistics.next_block(elapsed)
        arrivals, agents, federations = [], [], []
        at = place = 0
        for (f, n), m in zip(whole.groups, self.counts, strict=True):

            def group(x, f=f, n=n, at=at):
                return x[at : at + f * n].reshape(f, n, *x.shape[1:])

            here = jax.tree.map(lambda x, f=f, p=place: x[p : p + f], elapsed)
            one = Group(self.rules, self.transfer, f, n, m, jax.tree.map(group, own))
            found, mine, now = one.plan(
                jax.tree.map(group, in_flight), here.now, version, count, length
            )
            present = found.present if self.rules.fails else ()
            here = here._replace(now=now)
            federations.append(statistics.recorded(here, found.staleness, present, count))
            arrivals.append(found.on_agent_axis(at, n))
            agents.append(jax.tree.map(lambda x, f=f, n=n: x.reshape(f * n, *x.shape[2:]), mine))
            at, place = at + f * n, place + f

        def join(parts, axis: int):
            if len(parts) == 1:
                return parts[0]
            return jax.tree.map(lambda *x: jnp.concatenate(x, axis=axis), *parts)

        return join(arrivals, 1), join(agents, 0), join(federations, 0)

    def measure(self, in_flight: InFlight, elapsed: Elapsed) -> dict:
        """The values of `METRICS`.

        Args:
          in_flight: the work in flight.
          elapsed: what has passed.

        Returns:
          As `statistics.measure`.
        """
        return statistics.measure(self.population, in_flight, elapsed)


def at_work(rules: Rules, num_agents: int) -> int:
    """Agents of a federation whose work is done at once, at most.

    Args:
      rules: of a clock.
      num_agents: N.

    Returns:
      Their number: all who come to a step, or to the steps whose work is done ahead.
    """
    # Whoever asks what one agent needs asks it of a clock that waits for several, too.
    if rules.scheduler != "asynchronous":
        return num_agents
    return Timing(rules, Population(((1, num_agents),))).ahead
