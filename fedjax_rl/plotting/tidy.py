"""From a labelled result to rows: one run a row, whether swept on a grid or listed cell by cell."""

# ruff: noqa: RUF001 -- the labels say α and − as the papers do

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
import xarray as xr

from fedjax_rl.names import check_known

TIME = "time"
REPEATS = ("seed", "agent")  # what varies without being swept: a spread, not a question
MAX_GROUPS = 10  # more lines than that cannot be told apart

# name -> (symbol, words)
_WORDS = {
    "num_agents": ("N", "number of agents N"),
    "sync_period": ("K", "local steps per round K"),
    "learning_rate": ("α", "learning rate α"),
    "epsilon": ("ε", "exploration ε"),
    "time": ("t", "environment steps of an agent"),
    "error_server": ("D²", "squared distance to q*, server average"),
    "error_local_mean": ("D²", "squared distance to q*, mean over agents"),
    "error_local": ("D²", "squared distance to q*, one agent"),
    "sup_error_server": ("D∞", "largest distance to q*, server average"),
}


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


def rows(result: xr.Dataset, metric: str) -> Rows:
    """Flattens a variable; an `agent` dimension becomes a column like the others.

    Args:
        result: dimensions named by the swept properties, or a flat `cell` with them as
            coordinates; see `fedjax_rl.sweep`.
        metric: name of a variable, with or without `time`.

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


def words(name: str, result: xr.Dataset | None = None) -> str:
    """What an axis called `name` says; the result's own `long_name` for a name we do not know."""
    if name in _WORDS:
        return _WORDS[name][1]
    attributes = result[name].attrs if result is not None and name in result.variables else {}
    return attributes.get("long_name", name.replace("_", " "))


def tag(names: Sequence[str], values: Sequence, digits: int = 6) -> str:
    """A group in a legend, e.g. "K = 10, ε = 1"."""
    symbols = (_WORDS[name][0] if name in _WORDS else name.replace("_", " ") for name in names)
    return ", ".join(f"{s} = {number(v, digits)}" for s, v in zip(symbols, values, strict=True))


def tags(names: Sequence[str], groups: Sequence[Sequence]) -> list[str]:
    """Tags of several groups, of as many digits as tell them apart, or else with a count."""
    for digits in (6, 9, 17):
        found = [tag(names, values, digits) for values in groups]
        if len(set(found)) == len(found):
            return found
    return numbered(found)


def numbers(values: Sequence) -> list[str]:
    """Numbers of as many digits as tell them apart."""
    for digits in (6, 9, 17):
        found = [number(value, digits) for value in values]
        if len(set(found)) == len(found):
            break
    return found


def numbered(labels: Sequence[str]) -> list[str]:
    """Labels, of equal ones the second and later with their number, so that none is lost."""
    seen: dict[str, int] = {}
    out = []
    for label in labels:
        seen[label] = seen.get(label, 0) + 1
        out.append(label if seen[label] == 1 else f"{label} ({seen[label]})")
    return out


def number(value, digits: int = 6) -> str:
    """A number in few letters: true minus sign, groups of three from five digits on.

    Args:
        value: a number; a word or a truth value stays what it is.
        digits: significant digits of what is not whole.
    """
    if isinstance(value, bool | np.bool_ | str):
        return str(value)
    value = float(value)
    if not np.isfinite(value):
        return {np.inf: "∞", -np.inf: "−∞"}.get(value, "NaN")
    if value.is_integer() and abs(value) < 1e15:
        text = f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.0f}"
    else:
        text = f"{value:.{digits}g}"
    return text.replace(",", "\u2009").replace("-", "−")


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
