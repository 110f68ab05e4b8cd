"""What an algorithm is made of: properties of all, and a learner's functions."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from fedjax_rl import fields
from fedjax_rl.federation import uplinks
from fedjax_rl.federation.algorithm import Own
from fedjax_rl.federation.clock import CLOCK, Clock
from fedjax_rl.federation.derivatives import DERIVATIVE
from fedjax_rl.federation.state import Params
from fedjax_rl.fields.record import Record, engine, host, record


@record
class Federated(Record):
    """Properties of every algorithm.

    Attributes:
      uplink: what of a message crosses the wire, and who sends, see `federation.uplinks`;
        everything of everybody by default.
      clock: how long agents take and whom the server waits for, see `federation.clock`; by
        default rounds in which time does not pass.
      derivative: None, or what derivatives are where draws depend on what is learned: "pathwise"
        leaves that out, "score" estimates it without a bias (`frl.differentiate`), "relaxed" with
        one and with little variance; see `federation.derivatives`.
    """

    uplink: uplinks.Uplink | None = engine(None, uplinks.UPLINK.or_none())
    clock: Clock | None = engine(None, CLOCK.or_none())
    derivative: str | None = host(None, DERIVATIVE, cli=False)

    def transmits(self, num_agents: int | None = None) -> uplinks.Uplink:
        """The uplink as the engine takes it.

        Args:
          num_agents: N; None where only the shape of the program is asked for.
        """
        del num_agents
        return uplinks.full() if self.uplink is None else self.uplink

    def derived(self, num_agents: int) -> Params:
        """Traced values of one federation that are made of properties, besides these.

        Args:
          num_agents: N.
        """
        del num_agents
        return Params({}, {}, {})

    def static(self) -> tuple:
        """Hashable; what else shapes the program, besides the properties that are static."""
        return ()


@record
class Averaged(Federated):
    """Properties of algorithms that exchange after K local steps.

    Attributes:
      sync_period: K, units of time between exchanges, at least 1.
    """

    sync_period: Any = engine(1, fields.whole(1, follows=True, traced=True))


class Learner(NamedTuple):
    """An algorithm with its static choices made; functions are pure, and unbatched but for two.

    Attributes:
      agent: `(key, params) -> agent`, what an agent holds at first; its key is constant.
      round: what a communication round consists of, in turn: `Local` or `Steps` and an `Exchange`,
        whose period is `sync_period`; or exchanges, and work between them, `(population, params,
        state, differentiable) -> (state, steps)`, and `Repeated` ones, as `rounds` takes them. The
        last exchange goes over the uplink of the configuration.
      measure: `(population, params, state) -> {metric: [F] or [A]}`. Of local steps without a clock
        `state.server` is the mean of what agents would share now.
      model: `(key, params) -> model`, what a server holds at first, with the key of its
        federation's first member; by default what `share` makes of that agent.
      share: `agent -> model`.
      begin: `(population, params, state) -> state`, what happens before the first round.
      after: as of `rounds`, what a server does by itself after a round.
      act: `(model, observation, word) -> action`, what a model does; None where it does not act.
      drawn: `agents -> [A]`, as of `federation.algorithm.Functions`; None where it is not counted.
      drawn_by_server: `server -> [F]`, what servers have drawn; None where they draw nothing, or
        nobody counts.
      drawn_to_measure: `(population, params, state) -> [A]`, likewise.
      own: metric -> `Own`, likewise.
    """

    agent: Callable
    round: tuple
    measure: Callable
    model: Callable | None = None
    share: Callable = lambda agent: agent
    begin: Callable | None = None
    after: Callable | None = None
    act: Callable | None = None
    drawn: Callable | None = None
    drawn_by_server: Callable | None = None
    drawn_to_measure: Callable | None = None
    own: Mapping[str, Own] = types.MappingProxyType({})


class Local(NamedTuple):
    """Local steps, all at once, of one agent.

    Attributes:
      learn: `(key, agent, params, time, num_steps) -> agent`: so many steps from `time` on
        (uint32). `num_steps` is an int where the loop can be differentiated, else traced uint32.
      env_steps: environment steps of a local step.
      kernel: what of a round may be one kernel where the platform gains by it, see
        `federation.kernels`: "steps", or "round" with the exchange; None for nothing. The key is
        then the pair of its words.
    """

    learn: Callable
    env_steps: int = 1
    kernel: str | None = None


class Steps(NamedTuple):
    """Local steps, one after the other, of one agent.

    Attributes:
      step: `(key, agent, params) -> agent`; the key is that of the step, properties that follow a
        schedule have the value of the step.
      env_steps: environment steps of a local step.
    """

    step: Callable
    env_steps: int = 1
