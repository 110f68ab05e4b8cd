"""From values to axes: what is one value, what are several, and what they are called."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import numbers
import typing
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence, Set

import jax
import numpy as np

from fedjax_rl.federation.algorithm import Algorithm
from fedjax_rl.federation.clock import Clock
from fedjax_rl.federation.uplinks import Uplink
from fedjax_rl.fields import ByAgents, Schedule
from fedjax_rl.names import brief


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
    """An axis of a sweep: `sweep(..., hidden=each([(8, 4), (16,)]))`.

    A plain list means the same wherever a list cannot be a value itself.

    Args:
      values: at least one, in any order, of any type.

    Raises:
      ValueError: nothing that has values in an order.
    """
    if isinstance(values, str | bytes | Mapping | Set | Each) or not isinstance(values, Iterable):
        raise ValueError(f"each is given {brief(values)}; allowed: a list of values")
    values = tuple(values)
    if not values:
        raise ValueError("each is given an empty list; allowed: at least one value")
    return Each(values)


def axis(algorithm: Algorithm, name: str, value) -> list | None:
    """The values of a property that is to be swept; None where one value is given.

    Args:
      algorithm: whose property it is.
      name: of the property.
      value: as somebody gave it.

    Raises:
      ValueError: an empty list, equal values, or what could be one value as well as several.
    """
    if isinstance(value, Each):
        values = list(value.values)
    elif _holds_tuples(algorithm, name):
        if not isinstance(value, list | range | np.ndarray):
            return None
        if not all(isinstance(x, tuple | list | None) for x in value):
            raise ValueError(
                f"{name} is {brief(value)}, a list of what is no tuple; allowed: a tuple for one "
                "value, frl.each([...]) of tuples for several"
            )
        values = list(value)
    elif isinstance(value, np.ndarray | jax.Array) and np.ndim(value) > 0:
        if isinstance(value, jax.Array) or np.ndim(value) > 1:
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


def _holds_tuples(algorithm: Algorithm, name: str) -> bool:
    """Whether one value of a property is a tuple."""
    if type(getattr(algorithm.config, name, None)) is tuple:
        return True
    hint = _hints(type(algorithm.config)).get(name)
    return any(typing.get_origin(part) is tuple for part in (hint, *typing.get_args(hint)))


@functools.cache
def _hints(kind: type) -> dict:
    return typing.get_type_hints(kind)


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


def check_different(cells: Sequence) -> None:
    """Refuses equal federations, which would count one run as two.

    Args:
      cells: with `num_agents`, `seed` and `properties`.

    Raises:
      ValueError: naming two that are equal.
    """
    first: dict = {}
    for place, (num_agents, seed, properties) in enumerate(cells):
        own = frozenset((name, identity(value)) for name, value in properties.items())
        other = first.setdefault((num_agents, seed, own), place)
        if other != place:
            raise ValueError(
                f"cells[{place}] is cells[{other}] once more: num_agents {num_agents}, seed {seed} "
                "and the same properties; allowed: federations that differ"
            )


def metrics_of(variants: Sequence[Algorithm]) -> dict:
    """What can be measured of some of these configurations, as `Algorithm.metrics` has it.

    Raises:
      ValueError: what is measured of agents here and of federations there.
    """
    found: dict = {}
    for variant in {id(variant): variant for variant in variants}.values():
        for name, (side, text) in variant.metrics.items():
            if found.setdefault(name, (side, text))[0] != side:
                raise ValueError(
                    f"metrics has {name}, of agents in one configuration and of federations in "
                    "another; allowed: a sweep for each"
                )
    return found


def same_unit(variants: Sequence[Algorithm], properties: Sequence[Mapping]) -> str:
    """The unit of time of several configurations.

    Args:
      variants: one configuration for each federation.
      properties: what each of them changes.

    Raises:
      ValueError: they count time in different units, which have no axis in common.
    """
    units = list(dict.fromkeys(variant.unit for variant in variants))
    if len(units) == 1:
        return units[0]
    names = list(dict.fromkeys(itertools.chain(*properties)))

    def decides(name: str) -> bool:
        found: dict = {}
        for variant, own in zip(variants, properties, strict=True):
            found.setdefault(identity(own.get(name)), set()).add(variant.unit)
        return all(len(of_value) == 1 for of_value in found.values())

    name = next(filter(decides, names), " and ".join(names))
    of_unit: dict = {}
    for variant, own in zip(variants, properties, strict=True):
        of_unit.setdefault(variant.unit, own.get(name))
    parts = (f"{brief(value)}, which counts time in {unit}s" for unit, value in of_unit.items())
    raise ValueError(f"{name} is {', and '.join(parts)}; allowed: one unit of time in a sweep")
