"""From values to cells: what is one value, what are several, and what they are called."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import numbers
import typing
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence, Set
from typing import Any, NamedTuple

import jax
import numpy as np

from fedjax_rl.federation.algorithm import Algorithm
from fedjax_rl.federation.clock import Clock
from fedjax_rl.federation.uplinks import Uplink
from fedjax_rl.fields import ByAgents, Schedule, check_schedules
from fedjax_rl.names import brief
from fedjax_rl.sweeps import arguments


class Cell(NamedTuple):
    """One federation of a sweep.

    Example:
      >>> import fedjax_rl as frl
      >>> frl.Cell(num_agents=4, seed=0, properties={"learning_rate": 0.1})
      Cell(num_agents=4, seed=0, properties={'learning_rate': 0.1}, algorithm=None)

    Attributes:
      num_agents: N.
      seed: of its agents.
      properties: what it changes in the algorithm.
      algorithm: which one, by its label; None where there is one.
    """

    num_agents: int
    seed: int
    properties: dict
    algorithm: str | None = None


class Federation(NamedTuple):
    """A cell with its configuration, in which functions of N are evaluated."""

    cell: Cell
    algorithm: Algorithm


class Grid(NamedTuple):
    """A product of values.

    Attributes:
      algorithms: by label, with the values that are not swept; the label is None where one
        algorithm is given by itself.
      axes: the values of each name that is swept, in the order of dimensions.
      followed: what follows N: name -> {N: value}.
      num_agents: N where it is not swept.
      seed: where it is not swept.
    """

    algorithms: dict[str | None, Algorithm]
    axes: dict[str, list]
    followed: dict[str, dict[int, Any]]
    num_agents: int | None
    seed: int | None

    @property
    def seeds(self) -> list[int]:
        """All seeds."""
        return self.axes.get("seed", [self.seed])

    @property
    def cells(self) -> list[Cell]:
        """Every combination, in the order of the axes."""
        out = []
        for values in itertools.product(*self.axes.values()):
            at = dict(zip(self.axes, values, strict=True))
            label, n = at.pop("algorithm", None), at.pop("num_agents", self.num_agents)
            seed = at.pop("seed", self.seed)
            followed = {name: own[n] for name, own in self.followed.items()}
            out.append(Cell(n, seed, {**at, **followed}, label))
        return out


def grid(algorithms: dict, num_agents, seeds, properties: dict) -> Grid:
    """The product of what somebody gave.

    Args:
      algorithms: as `arguments.algorithms` gives them.
      num_agents: N, one or several.
      seeds: one or several.
      properties: of all of the algorithms; lists are swept.

    Raises:
      ValueError: naming the argument, its value and what is allowed.
    """
    several = list(algorithms.values())
    axes: dict = {} if None in algorithms else {"algorithm": list(algorithms)}
    counts, one_count, one_seed = axis(several, "num_agents", num_agents), None, None
    if counts is None:
        one_count = arguments.num_agents(num_agents)
    else:
        axes["num_agents"] = [arguments.num_agents(n) for n in counts]
    follow, fixed = {}, {}
    for name, value in properties.items():
        values = axis(several, name, value)
        if values is not None:
            axes[name] = values
        elif isinstance(value, ByAgents):
            follow[name] = value
        else:
            fixed[name] = value
    seeds = arguments.seeds(seeds)
    if isinstance(seeds, list):
        axes["seed"] = seeds
    else:
        one_seed = seeds
    if (size := math.prod(map(len, axes.values()))) > arguments.MOST_FEDERATIONS:
        text = ", ".join(f"{name} {len(values)}" for name, values in axes.items())
        raise ValueError(
            f"the sweep has {size} federations ({text}); allowed: at most "
            f"{arguments.MOST_FEDERATIONS}"
        )
    # Once for each N, on the host: what they give is checked like any value.
    counts = axes.get("num_agents", [one_count])
    followed = {
        name: {n: [one.evaluated(name, value, n) for one in several].pop() for n in counts}
        for name, value in follow.items()
    }
    made = Grid(algorithms, axes, followed, one_count, one_seed)
    # All at once, with values that are swept: some are only allowed beside others.
    own = {name: values[0] for name, values in axes.items() if name in properties}
    own |= {name: values[counts[0]] for name, values in followed.items()}
    replaced = {label: one.replace(**fixed, **own) for label, one in algorithms.items()}
    return made._replace(algorithms=replaced)


def federations(algorithms: dict, cells: Sequence[Cell], length: int) -> list[Federation]:
    """The cells with their configurations, for so many units of time; equal ones are one.

    Raises:
      ValueError: naming a property, its value and what is allowed, or units of time that differ.
    """
    made: dict = {}
    out = []
    for cell in cells:
        key = cell.algorithm, *((n, identity(v)) for n, v in cell.properties.items())
        if key not in made:
            one = algorithms[cell.algorithm]
            made[key] = one.replace(**cell.properties) if cell.properties else one
            check_schedules(made[key].config, length)
        at = (cell.num_agents, *key)
        if at not in made:
            made[at] = made[key].at(cell.num_agents)
        out.append(Federation(cell, made[at]))
    if len({own.algorithm.unit for own in out}) > 1:
        raise ValueError(_units_differ(out))
    return out


@dataclasses.dataclass(frozen=True)
class Each:
    """Several values to sweep, whatever they are; made by `each`."""

    values: tuple

    def __iter__(self) -> Iterator:
        """The values in order."""
        return iter(self.values)

    def __repr__(self) -> str:
        """As it is written."""
        return f"each({list(self.values)})"


def each(values: Iterable) -> Each:
    """An axis of a sweep: `sweep(..., network=each([(8, 4), (16,)]))`.

    A plain list means the same wherever a list cannot be a value itself.

    Example:
      >>> import fedjax_rl as frl
      >>> frl.each([(8, 4), (16,)])
      each([(8, 4), (16,)])

    Args:
      values: at least one, in any order, of any type.

    Returns:
      What `sweep` takes for as many values of one name.

    Raises:
      ValueError: nothing that has values in an order.
    """
    if isinstance(values, str | bytes | Mapping | Set | Each) or not isinstance(values, Iterable):
        raise ValueError(f"each is given {brief(values)}; allowed: a list of values")
    values = tuple(values)
    if not values:
        raise ValueError("each is given an empty list; allowed: at least one value")
    return Each(values)


def axis(algorithms: Sequence[Algorithm], name: str, value) -> list | None:
    """The values of a property that is to be swept; None where one value is given.

    Args:
      algorithms: whose property it is.
      name: of the property.
      value: as somebody gave it.

    Raises:
      ValueError: an empty list, equal values, or what could be one value as well as several.
    """
    if isinstance(value, Each):
        values = list(value.values)
    elif any(
        type(getattr(one.config, name, None)) is tuple or name in _tuples(type(one.config))
        for one in algorithms
    ):
        alone = isinstance(value, np.ndarray) and value.ndim == 0
        if alone or not isinstance(value, list | range | np.ndarray):
            return None
        if not all(isinstance(x, tuple | list | None) for x in value):
            raise ValueError(
                f"{name} is {brief(value)}, a list of what is no tuple; allowed: a tuple for one "
                "value, frl.each([...]) of tuples for several"
            )
        values = list(value)
    elif isinstance(value, np.ndarray | jax.Array) and np.ndim(value) > 0:
        # What could be the values of all agents is no axis unless somebody says so.
        one_value = any(type(one.config).allowed(name).axes > 0 for one in algorithms)
        if isinstance(value, jax.Array) or np.ndim(value) > 1 or one_value:
            kind = "a jax array" if isinstance(value, jax.Array) else "an array"
            raise ValueError(
                f"{name} is {kind} of shape {np.shape(value)}; allowed: [array] for one value, "
                "frl.each(array) for a value in each row"
            )
        values = list(value)
    elif isinstance(value, list | range) or type(value) is tuple:  # no record of named fields
        values = list(value)
    else:
        return None
    if not values:
        raise ValueError(f"{name} is an empty list; allowed: at least one value")
    if len({identity(v) for v in values}) < len(values):
        raise ValueError(f"{name} is {brief(value)}; allowed: values that differ")
    return values


@functools.cache
def _tuples(kind: type) -> set[str]:
    """Names of the properties of which one value is a tuple, or may be given as one."""
    found = {
        name
        for name, hint in typing.get_type_hints(kind).items()
        if any(typing.get_origin(part) is tuple for part in (hint, *typing.get_args(hint)))
    }
    for field in dataclasses.fields(kind):
        if (inner := field.metadata.get("record")) is not None:
            within = _tuples(inner)
            found |= {f"{field.name}.{name}" for name in within}
            # A record may be given by its first property.
            found |= {field.name} if dataclasses.fields(inner)[0].name in within else set()
    return found


def identity(value) -> Hashable:
    """Something hashable that tells values of a property apart."""
    if isinstance(value, bool | np.bool_):
        return "switch", bool(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, int | float | str | type(None)):
        return value
    if isinstance(value, np.ndarray):
        return (value.shape, value.tobytes())
    if type(value) in (tuple, list):
        return tuple(identity(x) for x in value)
    if isinstance(value, Uplink):
        return (value.static, *sorted((n, identity(v)) for n, v in value.parameters.items()))
    return id(value)


def labels(values: Sequence) -> np.ndarray:
    """Values as a coordinate: numbers as they are, what has a name by that, the rest by its place.

    Args:
      values: of one property; None among numbers is NaN.
    """
    values = [v.item() if isinstance(v, np.generic) or _is_scalar(v) else v for v in values]
    if all(isinstance(v, numbers.Real | None) for v in values):
        whole = all(isinstance(v, int) for v in values)
        return np.asarray(values, np.int64 if whole else np.float64)
    words = [_word(v) for v in values]
    if None not in words:
        found: dict = {}
        for word, value in zip(words, values, strict=True):
            found.setdefault(word, {}).setdefault(identity(value), len(found[word]))
        if all(len(same) == 1 for same in found.values()):
            return np.asarray(words)
        numbered = (
            f"{word} #{1 + found[word][identity(value)]}" if len(found[word]) > 1 else word
            for word, value in zip(words, values, strict=True)
        )
        return np.asarray(list(numbered))
    places: dict = {}
    return np.asarray([places.setdefault(identity(v), len(places)) for v in values])


def _is_scalar(value) -> bool:
    return isinstance(value, np.ndarray | jax.Array) and np.ndim(value) == 0


def _word(value) -> str | None:
    """What a value is called; None where nothing short says it."""
    if isinstance(value, str | Uplink | Clock | ByAgents | Schedule | numbers.Real | None):
        return str(value)
    if type(value) is tuple and all(isinstance(x, str | numbers.Real | None) for x in value):
        return str(value)
    name = getattr(value, "name", None)
    return name if isinstance(name, str) and not callable(value) else None


def check_different(cells: Sequence[Cell]) -> None:
    """Refuses equal federations, which would count one run as two.

    Raises:
      ValueError: naming two that are equal.
    """
    first: dict = {}
    for place, cell in enumerate(cells):
        own = frozenset((name, identity(value)) for name, value in cell.properties.items())
        other = first.setdefault((cell.num_agents, cell.seed, cell.algorithm, own), place)
        if other != place:
            raise ValueError(
                f"cells[{place}] is cells[{other}] once more: num_agents {cell.num_agents}, seed "
                f"{cell.seed} and the same properties; allowed: federations that differ"
            )


def metrics_of(federations: Sequence[Federation]) -> dict:
    """What can be measured of some of these federations, as `Algorithm.metrics` has it.

    Raises:
      ValueError: what is measured of agents here and of federations there.
    """
    found: dict = {}
    for one in {id(own.algorithm): own.algorithm for own in federations}.values():
        for name, (side, text) in one.metrics.items():
            if found.setdefault(name, (side, text))[0] != side:
                raise ValueError(
                    f"metrics has {name}, of agents in one configuration and of federations in "
                    "another; allowed: a sweep for each"
                )
    return found


def _units_differ(federations: Sequence[Federation]) -> str:
    """Which value counts time in which unit, where units differ, which have no axis in common."""
    properties = [{"algorithm": cell.algorithm, **cell.properties} for cell, _ in federations]
    names = list(dict.fromkeys(itertools.chain(*properties)))
    units = [own.algorithm.unit for own in federations]

    def decides(name: str) -> bool:
        found: dict = {}
        for unit, own in zip(units, properties, strict=True):
            found.setdefault(identity(own.get(name)), set()).add(unit)
        return all(len(of_value) == 1 for of_value in found.values())

    name = next(filter(decides, names), " and ".join(names))
    of_unit: dict = {}
    for unit, own in zip(units, properties, strict=True):
        of_unit.setdefault(unit, own.get(name))
    parts = (f"{brief(value)}, which counts time in {unit}s" for unit, value in of_unit.items())
    return f"{name} is {', and '.join(parts)}; allowed: one unit of time in a sweep"
