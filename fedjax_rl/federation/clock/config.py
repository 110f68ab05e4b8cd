"""How long agents take, and whom the server waits for: what a user says of a clock."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import numpy as np

from fedjax_rl import fields
from fedjax_rl.fields import declared

SCHEDULERS = ("synchronous", "semi-synchronous", "asynchronous")
DISTRIBUTIONS = ("constant", "log_normal", "exponential", "two_class", "trace")


class Rules(NamedTuple):
    """What of a clock shapes the program; equal for clocks that share compiled programs.

    Attributes:
      scheduler: of `SCHEDULERS`.
      wait_for: as of `Clock`.
      distribution: of `DISTRIBUTIONS`.
      fails: whether any agent can fail.
      limited: whether any link has a finite bandwidth.
      even: whether all agents take equally long, so that they come in turn.
    """

    scheduler: str
    wait_for: int | fields.ByAgents | None
    distribution: str
    fails: bool
    limited: bool
    even: bool = False

    def arrivals(self, num_agents: int) -> int:
        """m, messages of a step of a federation of N.

        Raises:
          ValueError: more than there are agents.
        """
        if self.scheduler == "asynchronous":
            return 1
        if self.scheduler == "synchronous":
            return num_agents
        count = fields.evaluated("wait_for", self.wait_for, _WAIT_FOR, num_agents)
        if count > num_agents:
            raise ValueError(
                f"wait_for is {count} for num_agents {num_agents}; allowed: 1 to {num_agents}"
            )
        return int(count)


_WAIT_FOR = fields.whole(1, follows=True)


def _known(*bounds, **options) -> fields.Allowed:
    """Numbers that are known before anything runs."""
    return fields.number(*bounds, **options)._replace(traced=False)


_times = functools.partial(_known, 0, per_agent=True)


@dataclasses.dataclass(frozen=True, eq=False)
class Clock:
    """How long agents take, and whom the server waits for. Times are in any unit.

    Any number may also follow the number of agents: `frl.by_agents(f)`.

    Example:
      >>> import fedjax_rl as frl
      >>> half = frl.by_agents(lambda num_agents: num_agents // 2)
      >>> clock = frl.Clock("semi-synchronous", wait_for=half, distribution="exponential")
      >>> algorithm = frl.fedq(frl.envs.paper_mdp(), sync_period=10, clock=clock)
      >>> algorithm.unit  # time counts steps of the server
      'update'
      >>> frl.timetable(clock, num_agents=8, num_steps=3).agent.shape  # of 4 messages each
      (1, 3, 4)

    Attributes:
      scheduler: "synchronous" (a step waits for everybody), "semi-synchronous" (for the first
        `wait_for`) or "asynchronous" (for the first one).
      wait_for: m, messages of a semi-synchronous step, at least 1.
      compute_time: mean time of an agent for one upload, above 0; a number or [N]. With the
        distribution "trace" [N, J]: upload j takes the time at j modulo J.
      distribution: of the time of an upload: "constant", "log_normal" (of `sigma`),
        "exponential", "two_class" (constant, and `slow_factor` times as long for the last
        `slow_share` of the agents) or "trace".
      sigma: standard deviation of the logarithm of a log-normal time, at least 0.
      slow_factor: how much longer slow agents take, above 0.
      slow_share: of the agents that are slow, in [0, 1], rounded to whole agents, halves down: at
        0.5 one of three is slow, and one agent alone is not.
      latency: of every message, up or down, at least 0; a number or [N].
      bandwidth: bytes per unit of time, up or down, above 0; a number or [N];
        infinite by default.
      failure_time: mean time at work until an agent fails (exponential), above 0; as `latency`;
        infinite by default.
      return_time: mean time until an agent that failed is back (exponential), above 0 and finite;
        as `latency`.

    Raises:
      ValueError: naming the property, its value and what is allowed.
    """

    scheduler: str = declared("synchronous", fields.word(SCHEDULERS))
    wait_for: int | fields.ByAgents | None = declared(None, _WAIT_FOR.or_none())
    compute_time: Any = declared(1.0, _times(above=True, arrays=2))
    distribution: str = declared("constant", fields.word(DISTRIBUTIONS))
    sigma: float = declared(0.5, _known(0))
    slow_factor: float = declared(4.0, _known(0, above=True))
    slow_share: float = declared(0.5, _known(0, 1))
    latency: Any = declared(0.0, _times())
    bandwidth: Any = declared(math.inf, _times(above=True, infinite=True))
    failure_time: Any = declared(math.inf, _times(above=True, infinite=True))
    return_time: Any = declared(1.0, _times(above=True))

    def __post_init__(self) -> None:
        """Checks whatever has a value already."""
        for name, value in vars(fields.check_config(self)).items():
            object.__setattr__(self, name, value)
        semi = self.scheduler == "semi-synchronous"
        if semi != (self.wait_for is not None):
            raise ValueError(
                f"wait_for is {self.wait_for} with the scheduler {self.scheduler}; allowed: a "
                "number with semi-synchronous, None otherwise"
            )
        if fields.is_number(self.compute_time):
            self._check_axes(self.compute_time)

    def _check_axes(self, compute_time) -> None:
        """Refuses a table of times for anything but a trace."""
        axes = np.ndim(compute_time)
        if (self.distribution == "trace") != (axes == 2):
            raise ValueError(
                f"compute_time has {axes} axes with the distribution {self.distribution}; "
                "allowed: [N, J] with trace, a number or [N] otherwise"
            )

    def __str__(self) -> str:
        """The scheduler, and in brackets what else is set."""
        known = dataclasses.fields(self)[1:]
        own = [(f.name, getattr(self, f.name)) for f in known]
        texts = [
            f"{name} {value if isinstance(value, str) else _brief(value)}"
            for (name, value), field in zip(own, known, strict=True)
            if not isinstance(value, fields.ByAgents) and not np.array_equal(value, field.default)
        ]
        return self.scheduler + (f" ({', '.join(texts)})" if texts else "")

    @property
    def rules(self) -> Rules:
        """What of it shapes the program."""
        # What never happens has no part in the program: failures and limits cost nothing where all
        # are infinite.
        return Rules(
            self.scheduler,
            self.wait_for,
            self.distribution,
            fails=_any_finite(self.failure_time),
            limited=_any_finite(self.bandwidth),
            even=self.distribution == "constant"
            and not any(map(_by_agent, (self.compute_time, self.latency, self.bandwidth))),
        )

    def parameters(self, num_agents: int) -> dict:
        """What is traced of one federation, leaves [N, ...].

        Raises:
          ValueError: a value that is out of range, or too few of them.
        """
        rules = self.rules
        rules.arrivals(num_agents)
        # All of them, whether or not the distribution has a use for them.
        for name, allowed in fields.declarations(Clock).items():
            fields.evaluated(name, getattr(self, name), allowed, num_agents)

        def number(name: str) -> np.ndarray:
            allowed = fields.declarations(Clock)[name]
            value = fields.evaluated(name, getattr(self, name), allowed, num_agents)
            return np.asarray(value, np.float64)

        def each(name: str) -> np.ndarray:
            value = number(name)
            if name == "compute_time":
                self._check_axes(value)
            axes = 2 if (name, self.distribution) == ("compute_time", "trace") else 1
            if value.ndim == 0 and axes == 1:
                return np.full(num_agents, value)
            if value.ndim != axes or value.shape[0] < num_agents or value.size == 0:
                raise ValueError(
                    f"{name} has the shape {value.shape} for num_agents {num_agents}; allowed: "
                    + ("[N, J]" if axes == 2 else "one number, or one for every agent")
                )
            return value[:num_agents]

        time = each("compute_time")
        if self.distribution == "two_class":
            share = float(number("slow_share"))
            # Of 50 agents 0.29 is 14.5, which a float misses by its last digit.
            count = math.ceil(round(share * num_agents, 6) - 0.5)
            slow = np.arange(num_agents) >= num_agents - count
            time = np.where(slow, number("slow_factor") * time, time)
        own = {"time": time, "latency": each("latency")}
        if rules.limited:
            own["bandwidth"] = each("bandwidth")
        if self.distribution == "log_normal":
            own["sigma"] = np.full(num_agents, number("sigma"))
        if rules.fails:
            own |= {name: each(name) for name in ("failure_time", "return_time")}
        return own


def tree_latency(cost: float = 1.0) -> fields.ByAgents:
    """Latency of a message so that an exchange takes `cost * log2 N`, as a function of N.

    With a time of K for K local steps, synchronous rounds then take the time T + cost floor(T / K)
    log2 N of Einhorn's cost model, see `ledger.communication_time`.
    """
    # An exchange has two messages, one up and one down.
    return fields.by_agents(lambda num_agents: cost * math.log2(num_agents) / 2)


def _brief(value) -> str:
    return np.array2string(np.asarray(value), threshold=8, separator=",")


def _by_agent(value) -> bool:
    return isinstance(value, fields.ByAgents) or np.ndim(value) > 0


def _any_finite(value) -> bool:
    # What a function of N gives is not known yet, and may be finite for some N.
    return isinstance(value, fields.ByAgents) or bool(
        np.any(np.isfinite(np.asarray(value, np.float64)))
    )


CLOCK = fields.instance(Clock, text="an frl.Clock")
