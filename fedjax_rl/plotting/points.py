"""Means of trials with their intervals against a number that was varied."""

from collections.abc import Collection, Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.markers import CARETDOWN
from numpy.typing import ArrayLike

from fedjax_rl.analysis import mean_interval
from fedjax_rl.plotting.regressions import ticks
from fedjax_rl.plotting.style import COLUMN, DASHES, MARKERS, OKABE_ITO, canvas, style

SHORTEST = 0.1  # lower end of an interval on a logarithmic axis, in parts of the mean


def points(
    lines: Mapping[str, Mapping[float, ArrayLike]],
    *,
    x_label: str = "x",
    y_label: str = "y",
    log: str = "xy",
    styles: Mapping[str, int] | None = None,
    hollow: Mapping[str, Collection[float]] | None = None,
    dashed: Collection[str] = (),
    dodge: float = 0.0,
    each: bool = False,
    axes: Axes | None = None,
) -> Figure:
    """Means over trials with 95 % Student t intervals, one line per label; without a legend.

    On a logarithmic axis an interval that goes below a tenth of its mean, often below zero, is cut
    there and ends in an arrow.

    Args:
        lines: label -> x -> numbers of the trials [L]; those that are not finite are left out, and
            how many there are of how many is written beside the point.
        x_label: what x is.
        y_label: what y is.
        log: which axes are logarithmic, letters of "xy".
        styles: label -> place among the colours and markers; the order of the lines by default.
        hollow: label -> x whose markers are hollow.
        dashed: labels of dashed lines.
        each: whether every trial is a thin line, where there are too few for an interval.
        dodge: by how much lines are moved apart sideways: in parts of x on a logarithmic axis, in
            units of x on another.
        axes: where to draw; new ones by default.

    Returns:
        The figure; labels are in the handles of its axes.

    Raises:
        ValueError: for a negative mean on a logarithmic axis.

    Examples:
        >>> from fedjax_rl import plotting
        >>> figure = plotting.points({"FedPG": {1: [4.0, 4.4], 2: [2.0, 2.1]}}, x_label="agents")
        >>> figure.axes[0].get_xlabel()
        'agents'
    """
    styles = styles or {label: place for place, label in enumerate(lines)}
    with style():
        figure, (axis,) = canvas(axes, (COLUMN * 1.35, 2.9))
        for which in log:
            getattr(axis, f"set_{which}scale")("log")
        for place, (label, trials) in enumerate(lines.items()):
            x = np.array([x for x, own in trials.items() if np.isfinite(own).any()], np.float64)
            side = (place - (len(lines) - 1) / 2) * dodge
            # Equal distances on either axis, so that intervals of lines do not cover each other.
            shown = x * (1 + side) if "x" in log else x + side
            means, lows, highs = np.array([_interval(trials[value]) for value in x]).T
            if each:
                table = np.stack([np.asarray(trials[value], np.float64) for value in x])
                axis.plot(shown, table, color=OKABE_ITO[styles[label]], linewidth=0.6, alpha=0.6)
                lows = highs = means
            cut = np.zeros(len(x), bool)
            if "y" in log:
                if (means < 0).any():
                    raise ValueError(
                        f"{label} has the mean {means.min():g}, which a logarithmic axis cannot "
                        "show; allowed: log without y, or means that are not negative"
                    )
                cut = lows < SHORTEST * means
                lows = np.where(cut, SHORTEST * means, lows)
            colour, marker = OKABE_ITO[styles[label]], MARKERS[styles[label]]
            axis.errorbar(
                shown,
                means,
                [means - lows, highs - means],
                color=colour,
                marker=marker,
                markersize=5,
                markeredgecolor="white",
                markeredgewidth=0.4,
                linewidth=0.9,
                linestyle=DASHES if label in dashed else "-",
                elinewidth=1.2,
                label=label,
            )
            ends = {"color": colour, "linestyle": "none", "markersize": 4, "markeredgewidth": 1}
            axis.plot(np.tile(shown, 2), [*highs, *np.where(cut, np.nan, lows)], "_", **ends)
            axis.plot(shown[cut], lows[cut], marker=CARETDOWN, gid="cut", **ends)
            for spot, value in enumerate(x):
                found, given = np.isfinite(trials[value]).sum(), np.size(trials[value])
                if found < given:
                    axis.annotate(
                        f"{found} of {given}",
                        (shown[spot], means[spot]),
                        (4, 4),
                        textcoords="offset points",
                        fontsize=6,
                        color=colour,
                    )
            empty = np.isin(x, list((hollow or {}).get(label, ())))
            axis.plot(
                shown[empty],
                means[empty],
                marker,
                color=colour,
                markerfacecolor="white",
                markersize=5,
                zorder=5,
            )
        axis.set_xlabel(x_label)
        axis.set_ylabel(y_label)
        axis.autoscale_view()
        if "x" in log:
            ticks(axis.xaxis, 10.0, sorted({x for own in lines.values() for x in own}))
        if "y" in log:
            ticks(axis.yaxis, 10.0)
    return figure


def _interval(trials) -> tuple[float, float, float]:
    """Mean and interval of the finite trials; without an interval where there is one."""
    values = np.asarray(trials, np.float64)
    values = values[np.isfinite(values)]
    if len(values) == 1:
        return values[0], values[0], values[0]
    return tuple(float(x) for x in mean_interval(values))
