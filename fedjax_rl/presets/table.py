"""The table of tuned settings.

`settings.toml` is written by hand. What its settings reach is measured by `benchmarks/tuned.py`,
which writes `reached.json` beside it, so that no number of a result is typed.
"""

from __future__ import annotations

import functools
import json
import pathlib
import shlex
import tomllib
from collections.abc import Callable
from typing import Any, NamedTuple

from fedjax_rl.algorithms import ALGORITHMS
from fedjax_rl.envs import registry
from fedjax_rl.envs.task import Task
from fedjax_rl.federation.algorithm import Algorithm
from fedjax_rl.names import brief, check_known

HERE = pathlib.Path(__file__).parent
SETTINGS, REACHED = HERE / "settings.toml", HERE / "reached.json"


class Reached(NamedTuple):
    """What a run with tuned settings has reached.

    Attributes:
      metric: name of the return that was recorded.
      start: its mean where nothing is learned.
      mean: of the last tenth of the records, over seeds.
      low: lower limit of the 95 % Student t interval of that mean.
      high: upper limit.
      seconds: wall time of all seeds, compiling included.
      device: in words.
    """

    metric: str
    start: float
    mean: float
    low: float
    high: float
    seconds: float
    device: str


class Tuned(NamedTuple):
    """Tuned settings of one algorithm in one environment.

    Attributes:
      algorithm: name on the command line.
      environment: name on the command line.
      options: of the environment.
      properties: of the algorithm, with dotted names.
      num_agents: N.
      num_steps: T, in the algorithm's unit of time.
      seeds: of the runs that were measured.
      reached: by these; None where it has not been measured.
    """

    algorithm: str
    environment: str
    options: dict[str, Any]
    properties: dict[str, Any]
    num_agents: int
    num_steps: int
    seeds: tuple[int, ...]
    reached: Reached | None = None

    @property
    def run(self) -> dict[str, int]:
        """How many agents and steps, as arguments of `sweep`."""
        return {"num_agents": self.num_agents, "num_steps": self.num_steps}

    @property
    def command(self) -> str:
        """The line whose return was measured."""
        seeds = " ".join(map(str, self.seeds))
        words = f"{self.algorithm} {self.environment} --preset tuned --seeds {seeds}"
        return f"fedjax-rl sweep {words}"

    @property
    def flags(self) -> str:
        """The settings as they are typed where no preset is used."""
        words = [("num_agents", self.num_agents), ("num_steps", self.num_steps)]
        words += [(f"env.{name}", value) for name, value in self.options.items()]
        kind = ALGORITHMS[self.algorithm].make.definition.record
        for name, value in self.properties.items():
            # What may be None is no switch to the command line.
            is_word = isinstance(value, bool) and kind.allowed(name).optional
            words.append((name, str(value) if is_word else value))
        return " ".join(_flag(name.replace("_", "-"), value) for name, value in words)

    def make(self, task: Task | None = None, **properties) -> Algorithm:
        """The algorithm with these settings.

        Args:
          task: where to run it; the environment of the entry by default.
          **properties: instead of tuned ones, or besides them.
        """
        place = registry.make(self.environment, **self.options) if task is None else task
        return ALGORITHMS[self.algorithm].make(place, **{**self.properties, **properties})


def _flag(name: str, value) -> str:
    """A setting as it is typed; of a switch that is off, "no" stands before its last word."""
    if isinstance(value, bool):
        record, dot, switch = name.rpartition(".")
        return f"--{record}{dot}{'' if value else 'no-'}{switch}"
    words = value if isinstance(value, tuple) else (value,)
    return f"--{name} {' '.join(shlex.quote(str(word)) for word in words)}"


@functools.cache
def entries() -> tuple[Tuned, ...]:
    """All tuned settings, in the order of the table."""
    found = json.loads(REACHED.read_text())
    return tuple(_entry(own, found) for own in tomllib.loads(SETTINGS.read_text())["tuned"])


def _entry(own: dict, found: dict) -> Tuned:
    one = Tuned(
        own["algorithm"],
        own["environment"],
        own.get("options", {}),
        {name: _plain(value) for name, value in own.get("properties", {}).items()},
        own["num_agents"],
        own["num_steps"],
        tuple(own["seeds"]),
    )
    row = found.get(f"{one.algorithm} {one.environment}")
    # Numbers of settings that have been changed since are none of these.
    if row is None or row["flags"] != one.flags or row["command"] != one.command:
        return one
    return one._replace(reached=Reached(**{name: row[name] for name in Reached._fields}))


def _plain(value):
    """A value as a property has it, whose sequences are tuples."""
    return tuple(value) if isinstance(value, list) else value


def find(algorithm: str, environment: str) -> Tuned | None:
    """The entry of an algorithm and an environment by their names; None where there is none."""
    place = registry.ALIASES.get(environment, environment)
    known = {(one.algorithm, one.environment): one for one in entries()}
    return known.get((algorithm, place))


def refusal(algorithm: str, environment: str) -> str:
    """What is said where there are no tuned settings."""
    places = [one.environment for one in entries() if one.algorithm == algorithm]
    other = dict.fromkeys(one.algorithm for one in entries())
    known = f"with {algorithm}: {', '.join(places)}" if places else f"with {', '.join(other)}"
    return f"preset is tuned for {algorithm} on {environment}; allowed: {known}"


def tuned(algorithm: str | Callable, environment: str | Task) -> Tuned:
    """The tuned settings of an algorithm in an environment.

    Example:
      >>> import fedjax_rl as frl
      >>> best = frl.tuned("fedpg", "CartPole-v1")
      >>> algorithm = best.make(local_steps=5)
      >>> algorithm.name, sorted(best.run)
      ('fedpg', ['num_agents', 'num_steps'])

    Args:
      algorithm: its name, or the public function that makes it, such as `frl.fedpg`.
      environment: its name, or a task that was made from it.

    Returns:
      The entry; `entry.make()` is the algorithm, `frl.sweep(entry.make(), **entry.run)` runs it.

    Raises:
      ValueError: an unknown name, or a combination for which there are no tuned settings.
    """
    definition = getattr(algorithm, "definition", None)
    name = algorithm if definition is None else definition.name
    check_known(name, ALGORITHMS, "algorithm")
    place = environment.name if isinstance(environment, Task) else environment
    if not isinstance(place, str):
        raise ValueError(f"environment is {brief(place)}; allowed: a name, or a Task")
    if not isinstance(environment, Task):
        registry.kind(place)
    found = find(name, place)
    if found is None:
        raise ValueError(refusal(name, place))
    return found
