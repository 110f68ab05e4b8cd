"""The axes of a sweep: what is one value, and what are several."""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence, Set

import jax
import numpy as np

from fedjax_rl.federation.algorithm import Algorithm
from fedjax_rl.federation.uplinks import Uplink
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

    Returns:
      The values in order, or None.

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
        # Numbers of agents are no property, and their values always an axis.
        kinds = [type(one.config) for one in algorithms]
        one_value = any(name in kind.names() and kind.allowed(name).axes > 0 for kind in kinds)
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
    # True is 1 to Python, and another value of a property.
    if isinstance(value, bool | np.bool_):
        return "switch", bool(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, int | float | str | type(None)):
        return value
    if isinstance(value, np.ndarray):
        return (value.shape, value.dtype.str, value.tobytes())
    if type(value) in (tuple, list):
        return tuple(identity(x) for x in value)
    # Two that do the same are equal, whichever call has made each.
    if isinstance(value, Uplink):
        return (value.static, *sorted((n, identity(v)) for n, v in value.parameters.items()))
    # Tasks, clocks, functions: each object is a value of its own, alive as long as the sweep.
    return id(value)
