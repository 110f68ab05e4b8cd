"""Fitted straight lines between logarithms, one at a time, in grids and window by window."""

# ruff: noqa: RUF001 -- the labels say α and − as the papers do

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator
from numpy.typing import ArrayLike

from fedjax_rl.analysis import Fit, loglog
from fedjax_rl.plotting import formats
from fedjax_rl.plotting.style import (
    COLUMN,
    OKABE_ITO,
    PAGE,
    RED,
    canvas,
    colour_map,
    norm,
    style,
)

WORDS = 0.2  # of the height of an axis, for two lines in a corner
_BOX = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 2.0}


def regression(
    x: ArrayLike,
    y: ArrayLike,
    fit: Fit | None = None,
    *,
    colour: ArrayLike | None = None,
    colour_label: str = "",
    reference: float | None = None,
    base: float = 10.0,
    x_label: str = "x",
    y_label: str = "y",
    title: str = "",
    axes: Axes | None = None,
) -> Figure:
    """Points, the fitted power law and the 95 % band of its mean (Figs 4, 6 and 7).

    The corner says slope ± standard error, R² and the number of points.

    Args:
        x: [n] positive.
        y: [n] positive.
        fit: of `analysis.loglog(x, y, base)` or a censored fit with the one regressor "slope";
            fitted here by default.
        colour: [n] positive values shown as colour, on a logarithmic scale when they span enough.
        colour_label: of the colour bar.
        reference: slope of theory, a dashed line through the middle of the fit.
        base: of the logarithms of `fit`.
        x_label: what x is.
        y_label: what y is.
        title: above the axes.
        axes: where to draw; new ones by default.

    Returns:
        The figure.

    Raises:
        ValueError: if lengths differ, a value is not positive, or the fit has other regressors.

    Examples:
        >>> from fedjax_rl import plotting
        >>> figure = plotting.regression([1, 2, 4], [8.0, 4.1, 2.0], reference=-1)
        >>> figure.axes[0].texts[0].get_text().splitlines()[0]
        'slope −1.000 ± 0.021'
    """
    x, y = _positive("x", x), _positive("y", y)
    if x.shape != y.shape:
        raise ValueError(f"x has {x.size} values, y has {y.size}")
    fit = loglog(x, y, base) if fit is None else fit
    if len(fit.names) != 2:
        raise ValueError(f"a line needs one regressor, the fit has {', '.join(fit.names[1:])}")
    with style():
        figure, (axis,) = canvas(axes, (COLUMN, 2.7))
        axis.set_xscale("log", base=base)
        axis.set_yscale("log", base=base)
        shade = {"color": OKABE_ITO[0]}
        if colour is not None:
            colour = _positive("colour", colour)
            shade = {"c": colour, "cmap": colour_map(), "norm": norm(colour)}
        points = axis.scatter(x, y, s=13, alpha=0.8, linewidths=0, zorder=3, **shade)
        if colour is not None:
            colour_bar(axis, points, colour_label)
        band(axis, x, fit, base, color="#222222", label="fit, 95 % band")
        if reference is not None:
            middle = float(np.exp(np.log(x).mean()))
            height = base ** fit.predict([np.log(middle) / np.log(base)])[0][0]
            ends = np.array([x.min(), x.max()])
            axis.plot(
                ends,
                height * (ends / middle) ** reference,
                color=RED,
                linestyle="--",
                linewidth=1,
                label=f"slope {formats.number(reference)}",
            )
            axis.legend(loc="upper right" if fit["slope"] < 0 else "lower right")
        # The corner that the line does not cross.
        left = 0.03
        bottom = fit["slope"] < 0
        _make_room(axis, x, y, bottom)
        axis.text(
            left,
            0.04 if bottom else 0.96,
            summary(fit),
            transform=axis.transAxes,
            va="bottom" if bottom else "top",
            fontsize=7,
            bbox=_BOX,
            zorder=5,
        )
        axis.set_xlabel(x_label)
        axis.set_ylabel(y_label)
        axis.set_title(title)
        ticks(axis.xaxis, base, x)
        ticks(axis.yaxis, base)
    return figure


def _make_room(axis: Axes, x: np.ndarray, y: np.ndarray, bottom: bool) -> None:
    """Moves the ends of the vertical axis until no point is behind the words or the legend.

    They stand in opposite corners, the words on the left.
    """
    logs, heights = np.log(x), np.log(y)
    left = logs <= (logs.min() + logs.max()) / 2
    below, above = (left, ~left) if bottom else (~left, left)
    low, high = np.log(axis.get_ylim())
    for _ in range(5):  # room at one end makes that at the other less
        if below.any():
            low = min(low, (heights[below].min() - WORDS * high) / (1 - WORDS))
        if above.any():
            high = max(high, (heights[above].max() - WORDS * low) / (1 - WORDS))
    axis.set_ylim(np.exp(low), np.exp(high))


def panels(
    pictures: Mapping[str, Callable[[Axes], Any]],
    *,
    columns: int = 2,
    size: tuple[float, float] | None = None,
    share: bool = False,
) -> Figure:
    """A grid of pictures of any kind (Fig. 6a-d, Fig. 7 for several K).

    Args:
        pictures: title -> a function that draws into the Axes it is given, e.g.
            `lambda axes: regression(n, time, axes=axes)`.
        columns: of the grid.
        size: of the whole in inches; two columns fill a page by default.
        share: one range for all axes.

    Returns:
        The figure.

    Raises:
        ValueError: without pictures.
    """
    if not pictures:
        raise ValueError("pictures is empty; at least one is needed")
    columns = min(columns, len(pictures))
    height = -(-len(pictures) // columns)
    with style():
        size = (PAGE * columns / 2, 2.6 * height) if size is None else size
        figure, flat = canvas(None, size, height, columns, sharex=share, sharey=share)
        for axis, (title, draw) in zip(flat, pictures.items(), strict=False):
            draw(axis)
            axis.set_title(title)
        for axis in flat[len(pictures) :]:
            axis.remove()
    return figure


def coefficients(
    windows: Mapping[float, Fit],
    *,
    published: Mapping[float, Mapping[str, float]] | None = None,
    names: Mapping[str, str] | None = None,
    axes: Sequence[Axes] | None = None,
) -> Figure:
    """Coefficients of a regression in a sliding window, one above the other (Fig. 5b).

    Args:
        windows: upper end K of the window -> its fit, as `analysis.windowed` returns.
        published: K -> {coefficient or "r_squared": value}, drawn as crosses.
        names: coefficient -> label of its panel; intercept, K-slope and alpha-slope by default.
        axes: one per coefficient and one for R²; new ones by default.

    Returns:
        The figure; bands are ± one standard error.

    Raises:
        ValueError: if there is no window, or a fit lacks a coefficient.
    """
    if not windows:
        raise ValueError("windows is empty; at least one fit is needed")
    names = names or {
        "intercept": "intercept",
        "sync_period": "slope of K − 1",
        "learning_rate": "slope of α",
    }
    x = np.array(sorted(windows), dtype=np.float64)
    fits = [windows[k] for k in sorted(windows)]
    for name in names:
        if name not in fits[0].names:
            raise ValueError(f"the fits have no {name!r}; there are {', '.join(fits[0].names)}")
    share = {"sharex": True} if axes is None else {}
    with style():
        count = len(names) + 1
        figure, flat = canvas(axes, (COLUMN, 1.15 * count + 0.4), count, 1, **share)
        for axis, (name, label) in zip(flat, [*names.items(), ("r_squared", "R²")], strict=True):
            axis.set_xscale("log")
            colour = OKABE_ITO[0]
            if name == "r_squared":
                middle = np.array([fit.r_squared for fit in fits])
            else:
                middle = np.array([fit[name] for fit in fits])
                se = np.array([fit.standard_error(name) for fit in fits])
                axis.fill_between(x, middle - se, middle + se, color=colour, alpha=0.2, linewidth=0)
            axis.plot(x, middle, color=colour, marker="o", markersize=2.5, label="here, ± se")
            points = {k: row[name] for k, row in (published or {}).items() if name in row}
            if points:
                axis.plot(
                    list(points),
                    list(points.values()),
                    color=OKABE_ITO[1],
                    marker="x",
                    linestyle="none",
                    label="published",
                )
            axis.set_ylabel(label)
            ticks(axis.xaxis, 10.0)
        flat[-1].set_xlabel("largest K of the window")
        if published:
            flat[1].legend(loc="best")
        figure.align_ylabels()
    return figure


def band(axis: Axes, x: np.ndarray, fit: Fit, base: float, *, label: str, **options) -> None:
    """Draws a line fitted between logarithms, with the confidence band of its mean.

    Args:
        axis: where to draw, with logarithmic axes.
        x: [n] positive; the line reaches from the least to the largest.
        fit: with one regressor.
        base: of the logarithms of the fit.
        label: in the legend.
        **options: of `Axes.plot`, with `color`.
    """
    grid = np.geomspace(x.min(), x.max(), 101)
    mean, low, high = (base**value for value in fit.predict(np.log(grid) / np.log(base)))
    axis.plot(grid, mean, label=label, zorder=4, **options)
    axis.fill_between(grid, low, high, alpha=0.18, linewidth=0, zorder=2, color=options["color"])


def summary(fit: Fit, name: str = "slope") -> str:
    """Slope ± standard error, R² where there is one, and the number of points.

    Args:
        fit: of a line.
        name: of the coefficient.

    Returns:
        Two lines of words.
    """
    lines = [slope(fit, name)]
    size = f"n = {fit.num_observations}"
    if fit.num_censored:
        size += f" ({fit.num_censored} censored)"
    lines.append(size if np.isnan(fit.r_squared) else f"R² {fit.r_squared:.3f}, {size}")
    return "\n".join(lines)


def colour_bar(axis: Axes, points: ScalarMappable, label: str) -> None:
    """Draws the bar that says what the colours of points mean.

    Args:
        axis: beside which it stands.
        points: that have the colours.
        label: what they mean.
    """
    # Fixed to its parent: a bar placed by the layout would drift from one drawing to the next.
    room = axis.inset_axes((1.025, 0, 0.03, 1))
    bar = axis.figure.colorbar(points, cax=room)
    bar.set_label(label)
    bar.outline.set_linewidth(0.4)
    room.grid(False)
    bar.solids.set_alpha(1)  # the points are translucent, their meaning is not
    if isinstance(points.norm, LogNorm):
        ticks(bar.ax.yaxis, 10.0)


def ticks(axis: Axis, base: float, values: ArrayLike = ()) -> None:
    """Ticks of a logarithmic axis: at the values where they are few, readable on a short axis.

    Args:
        axis: such as `axes.xaxis`, with its final limits.
        base: of its logarithm.
        values: what was measured there; up to eight of them, well apart, get a tick each.
    """
    low, high = sorted(axis.get_view_interval())
    span = np.log(high / low)
    found = np.unique(values)
    if 1 < len(found) <= 8 and np.diff(np.log(found)).min() > 0.08 * span:
        axis.set_major_locator(FixedLocator(found))
        axis.set_minor_locator(NullLocator())
    elif span < 2.2 * np.log(10) and base == 10:
        # matplotlib labels powers of ten only, of which there may be one or none here.
        axis.set_major_locator(LogLocator(base, subs=(1, 2, 5)))
    else:
        return
    axis.set_major_formatter(FuncFormatter(lambda x, _: formats.number(x)))
    axis.set_minor_formatter(NullFormatter())


def slope(fit: Fit, name: str = "slope") -> str:
    """A coefficient and its standard error, as the legends have it.

    Args:
        fit: of a line.
        name: of the coefficient.

    Returns:
        Such as "slope −1.000 ± 0.021".
    """
    return f"slope {fit[name]:.3f} ± {fit.standard_error(name):.3f}".replace("-", "−")


def _positive(name: str, values: ArrayLike) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64).ravel()
    bad = int(np.sum(~((values > 0) & np.isfinite(values))))
    if bad or not values.size:
        raise ValueError(
            f"{name} must be positive and finite for a logarithmic axis; {bad} of "
            f"{values.size} values are not"
        )
    return values
