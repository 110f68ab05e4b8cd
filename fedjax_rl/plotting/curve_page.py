"""Curves of trials against time in one panel, and in rows of panels across a page."""

from collections.abc import Collection, Mapping

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedjax_rl.plotting import bands, panel
from fedjax_rl.plotting.page import fitted_below, headline, level
from fedjax_rl.plotting.panel import PERCENTILES, SHADE, Panel
from fedjax_rl.plotting.style import PAGE, Picture, style

SMOOTH = 10  # records averaged on a logarithmic axis
LEAST = 0.05  # where a logarithmic axis of a curve page ends at the latest
FEWEST = 5  # trials for an interval of the mean along a curve


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
