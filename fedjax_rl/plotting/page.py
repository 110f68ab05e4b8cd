"""Pages of panels, their captions and legends: what pictures of several panels are made from."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from fedjax_rl.plotting import bands, panel
from fedjax_rl.plotting.panel import PERCENTILES, SHADE, Panel
from fedjax_rl.plotting.style import GREY, MARKERS, OKABE_ITO, PAGE, Picture, style

SMOOTH = 10  # records averaged on a logarithmic axis
LEAST = 0.05  # where a logarithmic axis of a curve page ends at the latest
FEWEST = 5  # trials for an interval of the mean along a curve
LETTERS = 125  # of a legend across the page
HAIR = {"color": GREY, "linestyle": ":", "linewidth": 1, "zorder": 1}


def page(
    rows: int = 1,
    columns: int = 1,
    *,
    title: str = "",
    height: float = 3.0,
    width: float = PAGE,
    more: float = 0.0,
    **options,
) -> tuple[Figure, np.ndarray]:
    """A figure with its axes; call inside `plotting.style`.

    Args:
        rows: of axes.
        columns: of axes.
        title: above all, on the left.
        height: of a row in inches.
        width: of the whole in inches.
        more: height of what is above and below the rows, in inches.
        **options: of `Figure.subplots`.

    Returns:
        The figure and its axes [rows, columns].
    """
    figure = Picture(figsize=(width, height * rows + more))
    if title:
        headline(figure, title)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def headline(figure: Figure, title: str, **options) -> None:
    """Writes a title above a figure or a part of it, on the left.

    Args:
        figure: or a subfigure.
        title: what it says.
        **options: of `Figure.suptitle`.
    """
    figure.suptitle(title, x=0.01, ha="left", **options)


def describe(axis: Axes, title: str, x: str, y: str) -> None:
    """Writes what a panel shows and what its axes are.

    Args:
        axis: of the panel.
        title: above it.
        x: below it.
        y: beside it.
    """
    axis.set_title(title)
    axis.set_xlabel(x)
    axis.set_ylabel(y)


def legend_below(
    figure: Figure, axes: Sequence[Axes], columns: int, caption: str = "", **options
) -> None:
    """One legend for several panels below a figure, each entry once.

    Args:
        figure: gets the legend.
        axes: whose entries it has.
        columns: of the legend.
        caption: its title.
        **options: of `Figure.legend`.
    """
    options = {"title_fontsize": 7, "handlelength": 2.4, **options}
    found: dict = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    figure.legend(
        found.values(),
        found.keys(),
        loc="outside lower center",
        ncols=columns,
        title=caption or None,
        **options,
    )


def fitted_below(figure: Figure, axis: Axes, caption: str) -> None:
    """The legend of a panel below a figure, in as many columns as its width holds.

    Args:
        figure: gets the legend.
        axis: whose entries it has.
        caption: its title.
    """
    labels = axis.get_legend_handles_labels()[1]
    fitting = LETTERS // (9 + max(map(len, labels)))
    # As few rows as hold all, and then as few columns as these rows need.
    columns = -(-len(labels) // -(-len(labels) // max(1, fitting)))
    legend_below(figure, [axis], columns, caption)


def level(axis: Axes, height: float, text: str, below: bool = False) -> None:
    """A dotted line across, with words at its right end.

    Args:
        axis: where to draw.
        height: of the line, in the unit of the axis.
        text: what it is.
        below: whether the words stand below the line and not above.
    """
    axis.axhline(height, color="black", linestyle=":", linewidth=1, zorder=5)
    axis.annotate(
        text,
        (1, height),
        (-2, -3 if below else 3),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        ha="right",
        va="top" if below else "bottom",
        fontsize=6.5,
        zorder=6,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.6},
    )


def shaded(axis: Axes, x, low, mean, high, **options) -> None:
    """A line with a shade around it.

    Args:
        axis: where to draw.
        x: [T].
        low: [T] lower end of the shade.
        mean: [T] of the line.
        high: [T] upper end of the shade.
        **options: of `Axes.plot`, with `color`.
    """
    axis.fill_between(x, low, high, color=options["color"], alpha=0.15, lw=0)
    axis.plot(x, mean, **options)


def errors(axis: Axes, x: ArrayLike, numbers: ArrayLike, place: int, **options) -> None:
    """Numbers with their intervals in the style of a place.

    Args:
        axis: where to draw.
        x: [n].
        numbers: [n, 3], value, low and high of each.
        place: among the colours and markers.
        **options: of `Axes.errorbar`.
    """
    value, low, high = np.asarray(numbers, np.float64).T
    bars = [value - low, high - value]
    colour, marker = OKABE_ITO[place], MARKERS[place]
    axis.errorbar(x, value, bars, color=colour, marker=marker, capsize=2, **options)


def power_law(axis: Axes, points: Mapping[float, np.ndarray], colour: str) -> None:
    """The power law through means of trials, by least squares between logarithms, dotted.

    Args:
        axis: where to draw.
        points: x -> positive numbers of the trials [L].
        colour: of the line.
    """
    x = np.array(list(points), float)
    logs = np.log([own.mean() for own in points.values()])
    away = np.log(x) - np.log(x).mean()
    power = away @ logs / (away @ away)
    height = np.exp(np.mean(logs - power * np.log(x)))
    axis.plot(x, height * x**power, color=colour, linestyle=":", linewidth=1, zorder=1)


def curves(
    axis: Axes,
    lines: Mapping[str, xr.Dataset],
    metric: str,
    label: str,
    *,
    styles: Mapping[str, int] | None = None,
    log: bool = False,
    cumulative: bool = False,
    interval: float | None = 0.95,
    window: int = 1,
    shade: float = SHADE,
    dashed: Collection[str] = (),
    each: bool = False,
) -> Panel:
    """Draws a metric of several lines against time, without a legend.

    Args:
        axis: where to draw.
        lines: label -> a result with the metric, [seed, time].
        metric: name of a variable.
        label: of the vertical axis.
        styles: label -> place among the colours and markers; their order by default.
        log: whether the axis is logarithmic.
        cumulative: whether the metric is summed over time.
        interval: level of confidence of the mean; None draws none.
        window: records in a running mean.
        shade: opacity of the bands between two percentiles.
        dashed: labels of dashed lines.
        each: whether every trial is a thin line instead of a band.

    Returns:
        What was drawn. `legend_below` and `Axes.legend` know the words.
    """
    styles = panel.styles_of(list(lines), styles)
    drawn = panel.panel(
        axis,
        bands.lines_of(lines, metric),
        styles,
        log=log,
        cumulative=cumulative,
        level=interval,
        window=window,
        shade=shade,
        dashed=dashed,
        each=each,
    )
    axis.set_xlabel(bands.time_label(lines, metric))
    axis.set_ylabel(f"cumulative {label}" if cumulative else label)
    panel.entries(axis, {name: styles[name] for name in lines}, drawn.lost, dashed)
    return drawn


def episode_curves(
    axis: Axes,
    lines: Mapping[str, xr.Dataset],
    metric: str,
    label: str,
    styles: Mapping[str, int],
    *,
    cumulative: bool = False,
    window: int | None = None,
    dashed: Collection[str] = (),
) -> Panel:
    """Draws a metric against episodes in a range that fits means and bands.

    Messages' sizes have a logarithmic axis. Of very few trials there is no interval: it would be
    wider than the picture.

    Args:
        axis: where to draw.
        lines: label -> a result with the metric, [seed, time].
        metric: name of a variable.
        label: of the vertical axis, which says the running mean besides.
        styles: label -> place among the colours and markers.
        cumulative: whether the metric is summed over episodes.
        window: episodes in a running mean where there are enough; of sizes `SMOOTH` by default.
        dashed: labels of dashed lines.

    Returns:
        What was drawn.
    """
    sizes = [own.sizes for own in lines.values()]
    log = metric == "size"
    # Single messages late in a run would fill a logarithmic axis with lines from top to bottom.
    window = window or (SMOOTH if log else 1)
    window = window if min(own["time"] for own in sizes) > 10 * window else 1
    drawn = curves(
        axis,
        lines,
        metric,
        f"{label}\n(running mean of {window})" if window > 1 else label,
        styles=styles,
        log=log,
        cumulative=cumulative,
        interval=_level(lines),
        window=window,
        shade=min(SHADE, 0.5 / len(lines)),  # the more of them, the paler
        dashed=dashed,
    )
    axis.set_xlim(0, max(own["time"] for own in sizes) * 1.01)
    if log:
        axis.set_ylim(bottom=max(axis.get_ylim()[0], LEAST))
        return drawn
    shown = [curve.mean.get_ydata() for curve in drawn.curves.values()]
    for curve in drawn.curves.values():
        if curve.band is not None:
            shown += [path.vertices[:, 1] for path in curve.band.get_paths()]
    shown = np.concatenate(shown)
    low, high = shown.min(), shown.max()
    room = 0.05 * (high - low) or 1.0
    axis.set_ylim(0.0 if metric == "messages" else low - room, high + room)
    return drawn


def _level(lines: Mapping[str, xr.Dataset]) -> float | None:
    return 0.95 if min(own.sizes["seed"] for own in lines.values()) >= FEWEST else None


def curve_caption(lines: Mapping[str, xr.Dataset], drawn: Panel) -> str:
    """What the lines of a panel of `episode_curves` show.

    Args:
        lines: label -> a result, as given to it.
        drawn: what it returned.

    Returns:
        Words for the title of a legend.
    """
    return panel.caption(drawn.counts, PERCENTILES, _level(lines))


def curve_page(
    rows: Mapping[str, Mapping[str, xr.Dataset]],
    variables: Mapping[str, str],
    *,
    title: str = "",
    dashed: Collection[str] = (),
    dashed_means: str = "",
    cumulative: Collection[str] = (),
    smooth: Mapping[str, int] | None = None,
    levels: Mapping[str, tuple[float, str]] | None = None,
    ranges: Mapping[str, tuple[float, float]] | None = None,
) -> Figure:
    """Rows of panels of curves, one panel per variable, with one legend per row.

    Args:
        rows: title -> label -> a result [seed, time]; lines of one label look alike in all rows.
        variables: variable -> label of its axis.
        title: of the whole.
        dashed: labels of lines that are dashed.
        dashed_means: what the legend says of these.
        cumulative: variables summed up to each episode.
        smooth: variable -> episodes in a running mean.
        levels: variable -> height of a dotted line and its words.
        ranges: variable -> ends of its axis; by default those that hold all rows.

    Returns:
        The figure.
    """
    labels = list(dict.fromkeys(label for lines in rows.values() for label in lines))
    styles = {label: place for place, label in enumerate(labels)}
    with style():
        figure = Picture(figsize=(PAGE, 2.8 * len(rows) + (0.3 if title else 0)))
        if title:
            headline(figure, title)
        parts = figure.subfigures(len(rows), 1, squeeze=False).ravel()
        panels: dict[str, list[Axes]] = {name: [] for name in variables}
        for part, (text, lines) in zip(parts, rows.items(), strict=True):
            axes = part.subplots(1, len(variables), squeeze=False).ravel()
            drawn = []
            for axis, (name, label) in zip(axes, variables.items(), strict=True):
                panels[name].append(axis)
                drawn.append(
                    episode_curves(
                        axis,
                        lines,
                        name,
                        label,
                        styles,
                        cumulative=name in cumulative,
                        window=(smooth or {}).get(name),
                        dashed=dashed,
                    )
                )
                if name in (levels or {}):
                    level(axis, *levels[name])
            said = f"; dashed: {dashed_means}" if dashed else ""
            fitted_below(part, axes[0], curve_caption(lines, drawn[0]) + said)
            if text:
                headline(part, text, fontsize=8.5)
        for name, column in panels.items():  # one range for a variable
            low = min(axis.get_ylim()[0] for axis in column)
            high = max(axis.get_ylim()[1] for axis in column)
            for axis in column:
                axis.set_ylim((ranges or {}).get(name, (low, high)))
    return figure
