"""Pages of panels, their captions and legends: what pictures of several panels are made from."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from fedjax_rl.plotting.style import GREY, MARKERS, OKABE_ITO, PAGE, Picture

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


def legend_below_panel(axis: Axes) -> None:
    """The legend of a panel, below it, in two columns.

    Args:
        axis: of the panel.
    """
    axis.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=2, fontsize=6, columnspacing=1.0
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
