"""Values that are functions: of the number of agents, or of time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from fedjax_rl.names import brief


@dataclasses.dataclass(frozen=True)
class ByAgents:
    """A value that follows the number of agents; made by `by_agents`."""

    function: Callable

    def __call__(self, num_agents: int):
        """The value at N agents."""
        return self.function(num_agents)

    def __repr__(self) -> str:
        """As it is written."""
        return f"by_agents({_name(self.function)})"


@dataclasses.dataclass(frozen=True)
class Schedule:
    """A value that changes with time; made by `schedule`."""

    function: Callable

    def __call__(self, time):
        """The value at a time."""
        return self.function(time)

    def __repr__(self) -> str:
        """As it is written."""
        return f"schedule({_name(self.function)})"


def by_agents(function: Callable) -> ByAgents:
    """A property as a function of the number of agents: `by_agents(lambda n: 0.005 * n)`.

    Example:
      >>> import fedjax_rl as frl
      >>> rate = frl.by_agents(lambda num_agents: 0.25 * num_agents)
      >>> frl.fedq(frl.envs.paper_mdp(), learning_rate=rate).at(2).config.learning_rate
      0.5

    Args:
      function: `num_agents -> value`, a plain Python function called once for each N.

    Returns:
      What every property takes that may differ between sizes of federations.

    Raises:
      ValueError: what is given cannot be called.
    """
    return ByAgents(_callable("by_agents", function))


def schedule(function: Callable) -> Schedule:
    """A property as a function of time: `schedule(optax.exponential_decay(0.5, 100, 0.9))`.

    Example:
      >>> import fedjax_rl as frl
      >>> rate = frl.schedule(lambda time: 1 / (1 + time))
      >>> frl.fedq(frl.envs.paper_mdp(), learning_rate=rate).config.learning_rate(3)
      0.25

    Args:
      function: `time -> value` on traced int32 scalars, such as any optax schedule; time counts in
        the algorithm's unit from 0.

    Returns:
      What every property takes that may change with time.

    Raises:
      ValueError: what is given cannot be called.
    """
    return Schedule(_callable("schedule", function))


def _callable(what: str, function) -> Callable:
    if not callable(function) or isinstance(function, ByAgents | Schedule | type):
        raise ValueError(f"{what} is given {brief(function)}; allowed: a function")
    return function


def _name(function) -> str:
    return getattr(function, "__name__", type(function).__name__)
