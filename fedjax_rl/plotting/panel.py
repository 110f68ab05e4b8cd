"""One panel of learning: means of trials with the band between two percentiles."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from fedjax_rl.analysis import FEWEST, mean_interval, percentile_bands
from fedjax_rl.names import check_known
from fedjax_rl.plotting import formats
from fedjax_rl.plotting.style import DASHES, MARKERS, OKABE_ITO

MARKS = 6  # markers along a line
FLOOR = 0.3  # lower end of a logarithmic axis, in parts of the smallest positive mean
PERCENTILES = (10.0, 90.0)
SHADE = 0.16  # opacity of a band
SPAN = 1e-7  # of a logarithmic axis at most, in parts of the largest mean


class Curve(NamedTuple):
    """What was drawn of one line.

    Attributes:
        mean: over the trials.
        band: between two percentiles, None where there is none.
    """

    mean: Line2D
    band: PolyCollection | None


class Panel(NamedTuple):
    """What was drawn of a variable.

    Attributes:
        curves: label -> what was drawn; without lines that have no finite trial.
        lost: label -> trials that were left out.
        counts: how many trials lines have.
    """

    curves: dict[str, Curve]
    lost: dict[str, int]
    counts: set[int]


def styles_of(labels: Sequence[str], styles: Mapping[str, int] | None) -> dict[str, int]:
    """Label -> place among the colours and markers.

    Args:
        labels: of the lines.
        styles: places of these and perhaps more; the order of the labels by default.

    Returns:
        The places.

    Raises:
        ValueError: for more lines than colours, or a line without a style.
    """
    if len(labels) > len(OKABE_ITO):
        raise ValueError(f"{len(labels)} lines cannot be told apart; at most {len(OKABE_ITO)}")
    styles = {label: i for i, label in enumerate(labels)} if styles is None else dict(styles)
    for label in labels:
        check_known(label, styles, "line with a style.")
    return styles


def panel(
    axis: Axes,
    lines: Mapping[str, tuple[np.ndarray, np.ndarray]],
    styles: Mapping[str, int],
    *,
    log: bool = False,
    cumulative: bool = False,
    percentiles: tuple[float, float] = PERCENTILES,
    level: float | None = 0.95,
    window: int = 1,
    shade: float = SHADE,
    dashed: Collection[str] = (),
    each: bool = False,
) -> Panel:
    """Draws one variable; neither words nor a legend.

    Args:
        axis: where to draw.
        lines: label -> times [T] and values float64 [trials, T].
        styles: label -> place among the colours and markers.
        log: whether the axis is logarithmic.
        cumulative: whether values are summed over the records.
        percentiles: of the band, in [0, 100].
        level: of confidence of the mean; None draws no interval.
        window: records in a running mean, at least 1.
        shade: opacity of the bands.
        dashed: labels of dashed lines.
        each: whether every trial is a thin line, where there are too few for a band.

    Returns:
        What was drawn, and how many trials were not.

    Raises:
        ValueError: for a window without records or longer than the values.
    """
    if window < 1:
        raise ValueError(f"window must be at least 1 record, not {window}")
    drawn, lost, counts = {}, {}, set()
    for label, (times, values) in lines.items():
        whole = np.isfinite(values).all(axis=1)
        lost[label] = int((~whole).sum())
        if not whole.any():
            continue
        counts.add(int(whole.sum()))
        values = values[whole].cumsum(axis=1) if cumulative else _running(values[whole], window)
        times = times[len(times) - values.shape[1] :]
        dashes = DASHES if label in dashed else "-"
        ends = percentile_bands(values, 0, *percentiles)
        curve = _mean(axis, times, ends.mean, styles[label], dashes)
        band = None
        colour = OKABE_ITO[styles[label]]
        if each:
            axis.plot(times, values.T, color=colour, linewidth=0.6, alpha=0.6)
        elif len(values) >= FEWEST:
            shape = {"color": colour, "alpha": shade, "linewidth": 0, "zorder": 2, "gid": "band"}
            band = axis.fill_between(times, ends.low, ends.high, **shape)
            _interval(axis, times, values, colour, level, log)
        drawn[label] = Curve(curve, band)
    if log:
        _logarithmic(axis, [curve.mean.get_ydata() for curve in drawn.values()])
    axis.margins(x=0.01)
    axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: formats.number(x)))
    return Panel(drawn, lost, counts)


def _mean(axis, times, mean, place, dashes) -> Line2D:
    """The mean over trials [T] in the style of its place."""
    # The first marker of each line sits elsewhere, so that markers of equal lines stay visible.
    step = max(1, len(times) // MARKS)
    first = int(step * (0.3 + 0.6 * place / len(OKABE_ITO)))
    (line,) = axis.plot(
        times,
        mean,
        color=OKABE_ITO[place],
        marker=MARKERS[place],
        markevery=(first, step),
        markersize=4,
        markeredgecolor="white",
        markeredgewidth=0.4,
        linestyle=dashes,
        zorder=4,
        gid="mean",
    )
    return line


def _interval(axis, times, values, colour, level, log) -> None:
    """Thin lines around the mean of values [trials, T], unless the level is None."""
    if level is not None:
        interval = mean_interval(values, 0, level)
        # As of points: what a logarithm does not have would fall to the end of the axis.
        low = np.maximum(interval.low, interval.value / 10) if log else interval.low
        for limit in (low, interval.high):
            axis.plot(times, limit, color=colour, linewidth=0.5, alpha=0.7, zorder=3, gid="limit")


def _logarithmic(axis: Axes, means: Sequence[np.ndarray]) -> None:
    """A logarithmic axis that ends just below the smallest positive mean."""
    means = np.concatenate(means) if means else np.ones(1)
    axis.set_yscale("log", nonpositive="clip")
    if (means > 0).any():
        axis.set_ylim(bottom=max(FLOOR * means[means > 0].min(), SPAN * means.max()))


def entries(
    axis: Axes, styles: Mapping[str, int], lost: Mapping[str, int], dashed: Collection[str] = ()
) -> list[Line2D]:
    """Handles of a legend, which know their words; they are drawn nowhere else.

    Args:
        axis: whose legend finds them, too.
        styles: label -> place among the colours and markers.
        lost: label -> trials left out, which the words say.
        dashed: labels of dashed lines.

    Returns:
        One handle per label.
    """
    handles = []
    for label, place in styles.items():
        text = f"{label} ({lost[label]} left out)" if lost[label] else label
        handles += axis.plot(
            [],
            [],
            color=OKABE_ITO[place],
            marker=MARKERS[place],
            markeredgecolor="white",
            markeredgewidth=0.4,
            linestyle=DASHES if label in dashed else "-",
            label=text or "mean",
        )
    return handles


def caption(
    counts: Collection[int],
    percentiles: tuple[float, float] = PERCENTILES,
    level: float | None = 0.95,
    window: int = 1,
    between: str = "; ",
) -> str:
    """What lines of so many trials show.

    Args:
        counts: of trials that lines have.
        percentiles: of the bands.
        level: of confidence of the mean; None where no interval is drawn.
        window: records in a running mean.
        between: what separates the two halves.

    Returns:
        Words for the title of a legend.
    """
    if not counts or max(counts) == 1:
        return "a single trial"
    if max(counts) < FEWEST:
        return f"mean of {max(counts)} runs, too few for an interval"
    trials = f"{min(counts)} to {max(counts)}" if len(counts) > 1 else f"{max(counts)}"
    low, high = (formats.number(p) for p in percentiles)
    text = f"mean of {trials} trials, {low} to {high} % of them shaded"
    if level is not None:
        text += f"{between}{formats.number(100 * level)} % interval of the mean in thin lines"
    if min(counts) < FEWEST:
        text += f"{between}neither of fewer than {FEWEST} trials"
    if window > 1:
        text += f", running means of {window}"
    return text


def _running(values: np.ndarray, window: int) -> np.ndarray:
    """Running means [trials, T - window + 1] of values [trials, T]."""
    if window > values.shape[1]:
        raise ValueError(f"a window of {window} records is longer than the {values.shape[1]} given")
    return np.lib.stride_tricks.sliding_window_view(values, window, axis=1).mean(axis=-1)
