"""Numbers in boxes: a value over two properties, and the verdicts on a study."""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from fedjax_rl.plotting import formats
from fedjax_rl.plotting.regressions import colour_bar
from fedjax_rl.plotting.rows import groups, to_rows, unique
from fedjax_rl.plotting.style import COLUMN, GREEN, GREY, PAGE, RED, SEQUENTIAL, canvas, norm, style

# verdict -> (marker, colour): told apart by shape as well
_MARKS = {
    "reproduced": ("$\u2713$", GREEN),
    "not reproduced": ("$\u2717$", RED),
    "not run": ("$\u2013$", GREY),
}
_HEADINGS = ("", "quantity", "published", "here", "interval", "verdict")
_PLACES = (0.0, 0.055, 0.46, 0.61, 0.76, 0.96)  # left edges, in parts of the width
_LETTERS = 135  # of this size fill the width
_ROW = 0.19  # inches
_LEADING = 0.7  # rows from one line of a broken text to the next


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


def scoreboard(targets: Sequence[Mapping[str, Any]], *, title: str = "") -> Figure:
    """The table "published | here | interval | verdict", grouped by figure.

    Args:
        targets: lines of `summary.json`, as `analysis.judge` returns them: `{id, figure, quantity,
            published, measured, low, high, band, kind, verdict}`.
        title: above the table.

    Returns:
        The figure, as tall as the table. A tick is "reproduced", a cross "not reproduced", a dash
        "not run".

    Raises:
        ValueError: if there is no target, one lacks an entry, or its verdict is unknown.
    """
    if not targets:
        raise ValueError("targets is empty; at least one is needed")
    wanted = {"id", "figure", "quantity", "published", "measured", "low", "high", "verdict"}
    grouped: dict[str, list] = {}
    for target in targets:
        if missing := wanted - target.keys():
            raise ValueError(f"a target lacks {', '.join(sorted(missing))}: {dict(target)}")
        if target["verdict"] not in _MARKS:
            raise ValueError(
                f"{target['id']}: verdict is {target['verdict']!r}; it must be one of "
                f"{', '.join(_MARKS)}"
            )
        grouped.setdefault(target["figure"], []).append(target)
    lines = [(name, [_entries(target) for target in group]) for name, group in grouped.items()]
    count = 3.6 + 1.2 * bool(title) + 1.1 * len(lines)
    count += sum(_height(entries) for _, group in lines for entries in group)
    with style():
        figure, (axis,) = canvas(None, (PAGE, _ROW * count))
        axis.set_axis_off()
        axis.set_xlim(0, 1)
        axis.set_ylim(count, 0)
        line = 0.7
        if title:
            axis.text(0, line, title, fontsize=9.5, weight="bold", va="center")
            line += 1.3
        for place, heading in zip(_PLACES, _HEADINGS, strict=True):
            side = "center" if heading == "verdict" else "left"
            axis.text(place, line, heading, weight="bold", va="center", ha=side)
        axis.axhline(line + 0.6, color="#222222", linewidth=0.8)
        for name, group in lines:
            line += 1.2
            axis.text(0, line, name, color=GREY, va="center", weight="bold", fontsize=7.5)
            for entries, target in zip(group, grouped[name], strict=True):
                for place, text in zip(_PLACES, entries, strict=False):
                    for i, part in enumerate(text.split("\n")):
                        axis.text(place, line + 1.2 + _LEADING * i, part, fontsize=7)
                marker, colour = _MARKS[target["verdict"]]
                axis.plot(_PLACES[-1], line + 1, marker=marker, color=colour, markersize=7, mew=0)
                line += _height(entries)
        axis.axhline(line + 0.7, color="#222222", linewidth=0.8)
        tally = [target["verdict"] for target in targets]
        text = ", ".join(f"{tally.count(v)} {v}" for v in _MARKS if v in tally)
        axis.text(0, line + 1.4, text, va="center", color=GREY)
    return figure


def _entries(target: Mapping[str, Any]) -> list[str]:
    """The texts of one line of the scoreboard, each broken to the width of its column."""
    low, high = target["low"], target["high"]
    pairs = zip(low, high, strict=True) if _is_list(low) else [(low, high)]
    spans = [f"[{_entry(a)},\u00a0{_entry(b)}]" for a, b in pairs if (a, b) != (None, None)]
    texts = (
        str(target["id"]),
        str(target["quantity"]),
        _entry(target["published"]),
        _entry(target["measured"]),
        ", ".join(spans),
    )
    room = np.diff(_PLACES) * _LETTERS
    return [textwrap.fill(text, int(most)) for text, most in zip(texts, room, strict=True)]


def _height(entries: Sequence[str]) -> float:
    return 1 + _LEADING * max(text.count("\n") for text in entries)


def _is_list(value) -> bool:
    return isinstance(value, Sequence | np.ndarray) and not isinstance(value, str)


def _entry(value) -> str:
    if value is None:
        return "\u2013"
    if _is_list(value):
        return ", ".join(_entry(v) for v in value)
    return formats.number(value, 4)
