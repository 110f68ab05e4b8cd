"""Expressions over runs: labelled arrays with a dimension `seed`, computed when asked for."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

if TYPE_CHECKING:
    from fedjax_rl.studies.runs import Results, Stage


@dataclasses.dataclass(frozen=True, eq=False)
class Number:
    """A number of every run: an array with the dimensions of the runs that are left, and `seed`.

    Sums, differences, products and ratios of numbers are numbers; runs of equal seed belong
    together.

    Attributes:
      of: `Results -> DataArray`.
      needs: the stages that it reads.
    """

    of: Callable[[Results], xr.DataArray]
    needs: tuple[Stage, ...]

    def __call__(self, results: Results) -> xr.DataArray:
        """The array."""
        return self.of(results)

    def then(self, function: Callable[[xr.DataArray], xr.DataArray]) -> Number:
        """What a function makes of the array."""
        return Number(lambda results: function(self.of(results)), self.needs)

    def sel(self, at: dict | None = None, **more) -> Number:
        """The runs of some values: `sel(num_agents=8)`, `sel(num_agents=[8, 16])`."""
        where = {**(at or {}), **more}
        return self.then(lambda array: array.sel(_known(array, where)))

    def __getitem__(self, method) -> Number:
        """The runs of one method, or of several in a list."""
        return self.sel(method=method)

    # Along time.

    def at(self, time: float) -> Number:
        """At the record of a time."""
        return self.then(lambda array: array.sel(_known(array, {"time": time})))

    def last(self, records: int = 1) -> Number:
        """Mean over the last records."""
        return self.then(lambda array: array.isel(time=slice(-records, None)).mean("time"))

    def first(self, records: int) -> Number:
        """Mean over the first records."""
        return self.then(lambda array: array.isel(time=slice(records)).mean("time"))

    def late(self, part: float = 0.5) -> Number:
        """Mean over the last part of the records."""

        def of(array):
            count = max(1, round(part * array.sizes["time"]))
            return array.isel(time=slice(-count, None)).mean("time")

        return self.then(of)

    def total(self) -> Number:
        """Sum over the records."""
        return self.then(lambda array: array.sum("time"))

    def until(self, there: Callable[[xr.DataArray], xr.DataArray]) -> Number:
        """Time of the first record where `there(array)` holds, infinite where none does."""

        def of(array):
            return array["time"].where(there(array)).min("time").fillna(np.inf)

        return self.then(of)

    def log(self) -> Number:
        """Natural logarithm."""
        return self.then(np.log)

    # Arithmetic.

    def _with(self, other, operation) -> Number:
        if not isinstance(other, Number):
            return self.then(lambda array: operation(array, other))
        needs = tuple(dict.fromkeys((*self.needs, *other.needs)))

        def of(results):
            # What two numbers do not share, such as the method, is not theirs.
            pair = (number.of(results).reset_coords(drop=True) for number in (self, other))
            return operation(*pair)

        return Number(of, needs)

    def __add__(self, other) -> Number:
        return self._with(other, operator.add)

    def __sub__(self, other) -> Number:
        return self._with(other, operator.sub)

    def __mul__(self, other) -> Number:
        return self._with(other, operator.mul)

    def __truediv__(self, other) -> Number:
        return self._with(other, operator.truediv)

    def __rsub__(self, other) -> Number:
        return self.then(lambda array: other - array)

    def __rmul__(self, other) -> Number:
        return self * other

    def __neg__(self) -> Number:
        return self.then(operator.neg)


def beside(*numbers: Number, dim: str = "method") -> Number:
    """Numbers of several stages as one along a dimension, for all values that another one has."""
    needs = tuple(dict.fromkeys(stage for number in numbers for stage in number.needs))

    def of(results):
        arrays = [number(results) for number in numbers]
        for place, array in enumerate(arrays):
            others = [name for name, own in array.coords.items() if not own.dims and name != dim]
            arrays[place] = array.drop_vars(others)
        return xr.concat(xr.broadcast(*arrays, exclude=(dim,)), dim)

    return Number(of, needs)


def along(number: Number, dim: str, settings: Mapping) -> Number:
    """The runs of some settings, `{name: value}`, along a dimension of these values."""

    def of(array):
        return array.rename(setting=dim).assign_coords({dim: list(map(float, settings.values()))})

    return number.sel(setting=list(settings)).then(of)


def _known(array: xr.DataArray, where: dict) -> dict:
    """The same with the labels of the array: 0.1 finds 0.1 whatever its precision.

    Raises:
      KeyError: naming the dimension, the value and what there is.
    """
    out = {}
    for name, wanted in where.items():
        if name not in array.dims:
            raise KeyError(f"{name} is no dimension of these runs: {', '.join(array.dims)}")
        there = array[name].values.tolist()
        several = isinstance(wanted, list | tuple | np.ndarray)
        found = [_place(name, one, there) for one in (wanted if several else [wanted])]
        out[name] = array[name].values[found if several else found[0]]
    return out


def _place(name: str, wanted, there: list) -> int:
    for place, label in enumerate(there):
        if label == wanted or (
            isinstance(wanted, float) and not isinstance(label, str) and np.isclose(label, wanted)
        ):
            return place
    raise KeyError(f"{name} {wanted!r} was not run; there is {', '.join(map(str, there))}")
