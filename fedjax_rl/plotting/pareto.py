"""What learning costs: the return against the bytes sent, and what nothing else beats."""

import itertools
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.markers import CARETLEFT
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import ArrayLike

from fedjax_rl.analysis import mean_interval, pareto_front
from fedjax_rl.plotting.labels import place
from fedjax_rl.plotting.style import GREY, MARKERS, OKABE_ITO, PAGE, canvas, style

SHORTEST = 100  # times smaller than a cost is the end of its bar at most


def pareto(
    points: Mapping[str, Mapping[str, tuple[ArrayLike, ArrayLike]]],
    *,
    cost: str = "bytes per agent and episode",
    value: str = "discounted return",
    level: float = 0.95,
    minimise: bool = False,
    axes: Axes | None = None,
) -> Figure:
    """Return against cost, a point per algorithm and setting, with the Pareto front.

    A point is a mean over trials, its bars the Student t interval of either mean; one that goes
    below a hundredth of a cost, often below zero, is cut there and ends in an arrow. The stair
    joins the means that no other setting beats in both; those are filled, the others hollow.

    Args:
        points: algorithm -> setting -> (cost [L], value [L]) of its trials. The setting, e.g. how
            the uplink compresses, is written beside its point; "" writes nothing.
        cost: words of the horizontal axis, logarithmic; smaller is better.
        value: words of the vertical axis.
        level: of confidence of the bars.
        minimise: smaller values are better, an error rather than a return.
        axes: where to draw; new ones by default.

    Returns:
        The figure.

    Raises:
        ValueError: without points, with more algorithms than colours, for costs and values of
            different length or not finite, or for a mean cost that is not positive.

    Examples:
        >>> from fedjax_rl import plotting
        >>> figure = plotting.pareto({"ES": {"full": ([90.0, 110.0], [5.0, 6.0])}})
        >>> figure.axes[0].get_xscale()
        'log'
    """
    names = [name for name, settings in points.items() if settings]
    if not names:
        raise ValueError("points is empty; at least one is needed")
    if len(names) > len(OKABE_ITO):
        raise ValueError(f"{len(names)} algorithms cannot be told apart; at most {len(OKABE_ITO)}")
    keys, x, y = [], [], []
    for name in names:
        for setting, (own_cost, own_value) in points[name].items():
            own_cost, own_value = (np.ravel(np.asarray(v, float)) for v in (own_cost, own_value))
            where = f"{name}, {setting}" if setting else name
            if own_cost.size != own_value.size:
                raise ValueError(f"{where}: {own_cost.size} costs and {own_value.size} values")
            if not (np.isfinite(own_cost).all() and np.isfinite(own_value).all()):
                raise ValueError(f"{where}: a cost or value is not finite; leave that trial out")
            if own_cost.size == 0 or own_cost.mean() <= 0:
                raise ValueError(f"{where}: the mean cost must be positive on a logarithmic axis")
            keys.append((name, setting))
            x.append(mean_interval(own_cost, level=level))
            y.append(mean_interval(own_value, level=level))
    x, y = np.array(x, dtype=np.float64), np.array(y, dtype=np.float64)  # [P, 3]
    cut = x[:, 1] < x[:, 0] / SHORTEST
    x[cut, 1] = x[cut, 0] / SHORTEST  # a bar that reaches zero has no end here
    front = pareto_front(x[:, 0], -y[:, 0] if minimise else y[:, 0])
    with style():
        figure, (axis,) = canvas(axes, (PAGE * 0.78, 3.7))
        axis.set_xscale("log")
        for i, (name, _) in enumerate(keys):
            index = names.index(name)
            colour = OKABE_ITO[index]
            bars = {"color": colour, "linewidth": 0.8, "alpha": 0.75, "zorder": 3}
            axis.hlines(y[i, 0], x[i, 1], x[i, 2], **bars)
            axis.vlines(x[i, 0], y[i, 1], y[i, 2], **bars)
            if cut[i]:
                end = {"color": colour, "markersize": 4, "linestyle": "none", "gid": "cut"}
                axis.plot(x[i, 1], y[i, 0], marker=CARETLEFT, **end)
            axis.plot(
                x[i, 0],
                y[i, 0],
                MARKERS[index],
                color=colour,
                markerfacecolor=colour if i in front else "white",
                markersize=5.5,
                markeredgewidth=1,
                zorder=5,
            )
        for index, name in enumerate(names):
            axis.plot([], [], MARKERS[index], color=OKABE_ITO[index], label=name)
        axis.set_xlim(np.nanmin(x) / 1.8, np.nanmax(x) * 1.8)
        room = np.ptp(y[np.isfinite(y)]) or 1.0
        axis.set_ylim(np.nanmin(y) - 0.12 * room, np.nanmax(y) + 0.12 * room)
        corners = _stair(x[front, 0], y[front, 0], axis, minimise)
        axis.plot(*corners.T, color=GREY, linewidth=1, zorder=1, label="Pareto front")
        axis.xaxis.set_major_locator(LogLocator(numticks=12))
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.set_xlabel(cost)
        axis.set_ylabel(value)
        title = f"means with {100 * level:g} % intervals; filled where nothing beats both"
        axis.set_title(title)
        if axes is None:
            entries = len(names) + 1
            rows = -(-entries // 5)
            figure.legend(loc="outside lower center", ncols=-(-entries // rows))
        else:
            axis.legend()
        written = [i for i, (_, setting) in enumerate(keys) if setting]
        if written:
            place(
                axis,
                np.column_stack([x[:, 0], y[:, 0]])[written],
                [keys[i][1] for i in written],
                [OKABE_ITO[names.index(keys[i][0])] for i in written],
                _along(x, y, corners),
            )
    return figure


def _stair(x: np.ndarray, y: np.ndarray, axis: Axes, minimise: bool) -> np.ndarray:
    """Corners [C, 2] of what the front leaves to be reached, from side to side of the axes."""
    (_, right), (bottom, top) = axis.get_xlim(), axis.get_ylim()
    worst = top if minimise else bottom
    corners = [(x[0], worst)]
    for i in range(len(x)):
        corners.append((x[i], y[i]))
        corners.append((x[i + 1] if i + 1 < len(x) else right, y[i]))
    return np.array(corners)


def _along(x: np.ndarray, y: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Places [O, 2] on the bars and the stair that words had better leave free."""
    part = np.linspace(0, 1, 12)
    found = [corners]
    for (cx, lx, hx), (cy, ly, hy) in zip(x, y, strict=True):
        if np.isfinite([lx, hx, ly, hy]).all():
            # Evenly on a logarithmic axis.
            found.append(np.column_stack([lx * (hx / lx) ** part, np.full(12, cy)]))
            found.append(np.column_stack([np.full(12, cx), ly + (hy - ly) * part]))
    for (ax, ay), (bx, by) in itertools.pairwise(corners):
        found.append(np.column_stack([ax * (bx / ax) ** part, ay + (by - ay) * part]))
    return np.vstack(found)
