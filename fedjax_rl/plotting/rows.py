"""From a labelled result to rows: one run a row, whether swept on a grid or listed cell by cell."""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
import xarray as xr

from fedjax_rl.names import check_known

TIME = "time"
REPEATS = ("seed", "agent")  # what varies without being swept: a spread, not a question
MAX_GROUPS = 10  # more lines than that cannot be told apart


@dataclasses.dataclass(frozen=True)
class Rows:
    """One variable of a result, run by run.

    Attributes:
        values: float64 [R, T] or [R]; NaN where nothing was recorded.
        times: float64 [T]; empty for a variable without time.
        columns: property -> [R] its value in each run.
        diverged: bool [R].
        swept: properties that vary, in the order of the result; without `REPEATS` and without
            those that follow from `num_agents`.
    """

    values: np.ndarray
    times: np.ndarray
    columns: dict[str, np.ndarray]
    diverged: np.ndarray
    swept: tuple[str, ...]

    @property
    def ends(self) -> np.ndarray:
        """Records up to the last finite one, at least 1: a stopped run is padded; int [R]."""
        finite = np.isfinite(self.values)
        length = finite.shape[-1] - finite[:, ::-1].argmax(axis=-1)
        return np.where(finite.any(axis=-1), length, 1)

    def take(self, chosen: np.ndarray) -> "Rows":
        """The runs where `chosen`, bool [R], holds."""
        columns = {name: column[chosen] for name, column in self.columns.items()}
        return Rows(self.values[chosen], self.times, columns, self.diverged[chosen], self.swept)


def to_rows(result: xr.Dataset, metric: str) -> Rows:
    """Flattens a variable; an `agent` dimension becomes a column like the others.

    Args:
        result: dimensions named by the swept properties, or a flat `cell` with them as
            coordinates; see `fedjax_rl.sweep`.
        metric: name of a variable, with or without `time`.

    Returns:
        The rows.

    Raises:
        ValueError: if there is no such variable; the message names the nearest.
    """
    check_known(metric, result.data_vars, "variable of the result.")
    variable = result[metric]
    dims = [dim for dim in variable.dims if dim != TIME]
    shape = tuple(variable.sizes[dim] for dim in dims)
    values = variable.transpose(*dims, ...).values.astype(np.float64)
    columns = {
        name: np.broadcast_to(
            coordinate.values.reshape(
                [n if d in coordinate.dims else 1 for d, n in zip(dims, shape, strict=True)]
            ),
            shape,
        ).ravel()
        for name, coordinate in _coordinates(variable, dims).items()
    }
    diverged = np.zeros(shape, bool)
    if "diverged" in result:
        diverged = np.broadcast_to(_aligned(result["diverged"], dims, shape), shape)
    has_time = TIME in variable.dims
    if has_time:  # curves go forwards, and the last record is the latest
        order = np.argsort(result[TIME].values, kind="stable")
        result, values = result.isel({TIME: order}), values[..., order]
    flat = Rows(
        values=values.reshape(-1, variable.sizes[TIME]) if has_time else values.ravel(),
        times=result[TIME].values.astype(np.float64) if has_time else np.empty(0),
        columns=columns,
        diverged=diverged.ravel(),
        swept=tuple(n for n in columns if n not in REPEATS and _varies(columns, n)),
    )
    if {"agent", "num_agents"} <= columns.keys():  # agents past N are padding, not runs
        flat = flat.take(columns["agent"] < columns["num_agents"])
    return flat


def groups(table: Rows, by: Sequence[str]) -> list[tuple[tuple, np.ndarray]]:
    """The runs of every combination of the properties `by` that occurs.

    A run whose property is NaN has none (a single agent has no sync period) and belongs to all.

    Args:
        table: of a variable.
        by: properties.

    Returns:
        Pairs of the values of `by` and bool [R]; one pair with all runs when `by` is empty.

    Raises:
        ValueError: if a property is unknown.
    """
    for name in by:
        check_known(name, table.columns, "property of the result.")
    found = []
    for values in itertools.product(*(unique(table.columns[name]) for name in by)):
        member = np.ones(len(table.diverged), bool)
        own = np.ones(len(table.diverged), bool)
        for name, value in zip(by, values, strict=True):
            column = table.columns[name]
            own &= column == value
            member &= (column == value) | (column != column)  # NaN differs from itself
        if own.any() or not by:
            found.append((values, member))
    return found


def unique(column: np.ndarray) -> list:
    """The sorted values of a column, without NaN, as plain Python values."""
    return [value for value in np.unique(column).tolist() if value == value]


def _coordinates(variable: xr.DataArray, dims: list[str]) -> dict[str, xr.DataArray]:
    """Coordinates along `dims`, those that are dimensions first; dimensions without get a count."""
    found = {dim: variable[dim] for dim in dims if dim != "cell"}
    for name, coordinate in variable.coords.items():
        if name not in (TIME, "cell") and name not in found and set(coordinate.dims) <= set(dims):
            found[name] = coordinate.transpose(*(d for d in dims if d in coordinate.dims))
    return found


def _aligned(variable: xr.DataArray, dims: list[str], shape: tuple[int, ...]) -> np.ndarray:
    own = [dim for dim in dims if dim in variable.dims]
    extents = [n if d in own else 1 for d, n in zip(dims, shape, strict=True)]
    return variable.transpose(*own).values.reshape(extents)


def _varies(columns: dict[str, np.ndarray], name: str) -> bool:
    """Whether a property takes several values that the number of agents does not decide."""
    if len(unique(columns[name])) < 2:
        return False
    agents = columns.get("num_agents")
    if name == "num_agents" or agents is None:
        return True
    return any(len(unique(columns[name][agents == n])) > 1 for n in unique(agents))
