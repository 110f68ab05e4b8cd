"""Numbers in boxes: a value over two properties."""

import textwrap
from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from fedjax_rl.plotting import formats
from fedjax_rl.plotting.regressions import colour_bar
from fedjax_rl.plotting.rows import groups, to_rows, unique
from fedjax_rl.plotting.style import COLUMN, SEQUENTIAL, canvas, norm, style


def heat(
    result: xr.Dataset,
    value: str,
    x: str,
    y: str,
    *,
    last: int = 10,
    statistic: Callable[..., np.ndarray] = np.median,
    axes: Axes | None = None,
) -> Figure:
    """A variable over two swept properties, one number per box.

    Args:
        result: of a sweep, on a grid or as a flat list of cells.
        value: variable to show; of one with time, the mean of the last `last` records.
        x: property along the columns.
        y: property along the rows, growing upwards.
        last: see `value`.
        statistic: over everything else (seeds ...), e.g. `np.median` or `np.mean`.
        axes: where to draw; new ones by default.

    Returns:
        The figure. A combination that was not run, or whose runs all diverged, is hatched; where
        some diverged the number is of the others, and a star says so.

    Raises:
        ValueError: for an unknown variable or property, naming the nearest.
    """
    table = to_rows(result, value)
    values = table.values
    if table.times.size:
        ends = table.ends
        recent = np.arange(values.shape[-1]) >= np.maximum(ends - last, 0)[:, None]
        recent &= np.arange(values.shape[-1]) < ends[:, None]
        values = np.where(recent, values, 0.0).sum(-1) / recent.sum(-1)
    values = np.where(table.diverged, np.nan, values)
    found = dict(groups(table, (y, x)))
    rows, columns = (unique(table.columns[name]) for name in (y, x))
    grid = np.full((len(rows), len(columns)), np.nan)
    partly = np.zeros(grid.shape, bool)
    for (row, column), member in found.items():
        own = values[member][np.isfinite(values[member])]
        if own.size:
            place = rows.index(row), columns.index(column)
            grid[place], partly[place] = statistic(own), own.size < member.sum()
    with style():
        size = (max(COLUMN, 0.5 * len(columns) + 1.5), max(2.0, 0.3 * len(rows) + 0.9))
        figure, (axis,) = canvas(axes, size)
        image = cells(axis, grid, formats.numbers(rows), formats.numbers(columns), partly)
        if partly.any():
            axis.set_title("* without runs that diverged")
        axis.invert_yaxis()
        axis.set_xlabel(formats.axis_label(x, result))
        axis.set_ylabel(formats.axis_label(y, result))
        colour_bar(axis, image, textwrap.fill(formats.axis_label(value, result), 24))
    return figure


def cells(
    axis: Axes,
    grid: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    starred: np.ndarray | None = None,
):
    """Draws a heat map with its numbers, the first row on top, and returns the image.

    Args:
        axis: where to draw.
        grid: float64 [rows, columns]; NaN is hatched.
        rows: labels.
        columns: labels.
        starred: bool like `grid`, numbers that get a star.
    """
    finite = grid[np.isfinite(grid)]
    scale = norm(finite) if finite.size else norm(np.zeros(1))
    if isinstance(scale, LogNorm) and scale.vmax / scale.vmin < 30:
        scale = norm(np.array([-1.0, 1.0]))  # linear; limits follow
        scale.vmin, scale.vmax = finite.min(), finite.max()
    image = axis.imshow(grid, cmap=SEQUENTIAL, norm=scale, aspect="auto")
    axis.set_xticks(range(len(columns)), columns)
    axis.set_yticks(range(len(rows)), rows)
    axis.tick_params(length=0)
    axis.grid(False)
    axis.spines[:].set_visible(False)
    for (i, j), value in np.ndenumerate(grid):
        if not np.isfinite(value):
            axis.add_patch(
                Rectangle(
                    (j - 0.5, i - 0.5),
                    1,
                    1,
                    fill=False,
                    hatch="////",
                    edgecolor="#BBBBBB",
                    linewidth=0,
                )
            )
            continue
        red, green, blue, _ = image.cmap(scale(value))
        # Luma of the box, as of ITU-R BT.601.
        dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
        axis.text(
            j,
            i,
            formats.number(value, 3) + ("*" if starred is not None and starred[i, j] else ""),
            ha="center",
            va="center",
            fontsize=7,
            color="white" if dark else "black",
        )
    return image
