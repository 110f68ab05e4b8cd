"""Words beside points that do not lie on one another."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from fedjax_rl.plotting.style import GREY

_LETTER, _LINE = 0.56, 1.25  # of the font size: width of a letter and height of a line
_TURNS = np.deg2rad([20, -20, 160, 200, 90, -90, 50, -50, 130, 230])  # in order of preference
_REACH = (1.0, 1.6, 2.4, 3.4, 4.8)
_FREE = 1.7  # from this reach on a line leads to the point


def place(
    axis: Axes,
    points: np.ndarray,
    texts: Sequence[str],
    colours: Sequence,
    obstacles: np.ndarray | None = None,
    size: float = 6.5,
) -> None:
    """Writes a word beside each point, where it covers neither points nor other words.

    Greedy: every word takes the first free place of those around its point, the near ones first,
    or the least crowded. The limits of the axes must be final.

    Args:
        axis: where to write.
        points: float64 [P, 2] in data coordinates.
        texts: [P], of one line.
        colours: [P].
        obstacles: float64 [O, 2] in data coordinates, more places to keep free.
        size: of the letters in points.
    """
    figure = axis.get_figure(root=True)
    figure.draw_without_rendering()  # the layout decides how large the axes are
    unit = figure.dpi / 72.0
    spots = axis.transData.transform(points)
    blocked = (
        spots if obstacles is None else np.vstack([spots, axis.transData.transform(obstacles)])
    )
    frame = axis.get_window_extent()
    taken: list[np.ndarray] = []
    gap = 5.0 * unit
    # the crowded ones first
    near = np.hypot(*np.moveaxis(spots[:, None] - spots[None], -1, 0))
    order = np.argsort(np.sort(near, axis=1)[:, 1] if len(spots) > 1 else near[:, 0])
    for i in order:
        half = np.array([_LETTER * len(texts[i]), _LINE]) * size * unit / 2.0
        best, found = np.inf, None
        for reach in _REACH:
            for turn in _TURNS:
                way = np.array([np.cos(turn), np.sin(turn)])
                # from the point to the edge of the box and a gap further
                centre = spots[i] + way * reach * gap + half * np.sign(np.round(way, 1))
                box = np.concatenate([centre - half, centre + half])
                cost = _crowd(box, blocked, taken, frame, gap) + 0.05 * reach
                if cost < best:
                    best, found = cost, (box, centre, reach)
        box, centre, reach = found
        taken.append(box)
        leader = {"arrowstyle": "-", "color": GREY, "linewidth": 0.4, "shrinkA": 0, "shrinkB": 2}
        label = axis.annotate(
            texts[i],
            points[i],
            (centre - spots[i]) / unit,
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=size,
            color=colours[i],
            zorder=6,
            arrowprops=leader if reach > _FREE else None,
        )
        label.set_in_layout(False)


def _crowd(box, blocked, taken, frame, gap) -> float:
    """How much a box covers: points weigh 1, the area of other boxes and of the outside more."""
    low, high = box[:2], box[2:]
    margin = 0.3 * gap
    inside = np.all((blocked > low - margin) & (blocked < high + margin), axis=1)
    cost = float(inside.sum())
    area = np.prod(high - low)
    for other in taken:
        shared = np.minimum(high, other[2:]) - np.maximum(low, other[:2]) + margin
        if np.all(shared > 0):
            cost += 1.0 + 5.0 * np.prod(shared) / area
    if low[0] < frame.x0 or low[1] < frame.y0 or high[0] > frame.x1 or high[1] > frame.y1:
        cost += 10.0
    return cost
