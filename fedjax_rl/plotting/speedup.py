"""The question of the package in one picture: how much faster do N agents learn than one?"""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedjax_rl.analysis import Fit, ThresholdTime, speedup_fit, time_to_threshold
from fedjax_rl.plotting import formats
from fedjax_rl.plotting.regressions import band, slope, ticks
from fedjax_rl.plotting.rows import MAX_GROUPS, groups, to_rows, unique
from fedjax_rl.plotting.style import COLUMN, GREY, MARKERS, canvas, colours, style

DODGE, SPREAD = 0.14, 0.5  # of lines, of all of them: parts of a step from one N to the next


def speedup(
    result: xr.Dataset,
    threshold: float = 0.1,
    metric: str = "error_server",
    base: float = 10.0,
    *,
    above: bool = False,
    axes: Axes | None = None,
) -> Figure:
    """Time to a threshold against the number of agents, with slopes (Fig. 6 of Einhorn 2023).

    Every run is a point, moved sideways a little so that runs of equal time stay visible. It stands
    at the record that shows the crossing, with a thin line down to the record before, since the
    crossing lies between; a hollow triangle pointing down has crossed by the first record, one
    pointing up has not by its last. The line is fitted to what is known (`analysis.speedup_fit`):
    crossings taken at their records would flatten it, leaving late runs out would flatter.

    Args:
        result: of a sweep over `num_agents`, on a grid or as a flat list of cells. Every other
            property that varies, e.g. `sync_period`, makes a line per value; one that follows
            from `num_agents`, as a learning rate given as a function of it does, makes none. Runs
            without that property (NaN) count for every line.
        threshold: first record strictly below it.
        metric: variable to look at, [..., num_agents, ..., time].
        base: of the logarithms of the axes; 10 or 2.
        above: first record strictly above instead, for a reward.
        axes: where to draw; new ones by default.

    Returns:
        The figure. The legend holds slope ± standard error of each line, and why there is none.

    Raises:
        ValueError: for an unknown variable (naming the nearest), a result without `num_agents`, a
            metric without time, or too many lines.
    """
    table = to_rows(result, metric)
    if "num_agents" not in table.columns:
        raise ValueError("the result has no num_agents; sweep it to see a speedup")
    if not table.times.size:
        raise ValueError(f"{metric} has no time dimension, so it reaches no threshold")
    names = tuple(name for name in table.swept if name != "num_agents")
    found = groups(table, names)
    if len(found) > MAX_GROUPS:
        raise ValueError(
            f"{len(found)} combinations of {', '.join(names)} are too many lines; select at most "
            f"{MAX_GROUPS}, e.g. result.sel({names[0]}=[...])"
        )
    agents = table.columns["num_agents"].astype(np.float64)
    reached = time_to_threshold(table.times, table.values, threshold, above, table.ends)

    with style():
        figure, (axis,) = canvas(axes, (COLUMN * 1.35, 3.3))
        axis.set_xscale("log", base=base)
        axis.set_yscale("log", base=base)
        fits, missing = [], []
        # Lines that coincide show as stripes.
        weights = np.linspace(2.2, 1.1, len(found)) if len(found) > 1 else [1.3]
        palette = colours([label[0] if len(label) == 1 else str(label) for label, _ in found])
        steps = np.diff(np.log(unique(agents)))
        step = float(steps.min()) if steps.size else 1.0
        texts = formats.tags(names, [label for label, _ in found])
        for i, ((_, member), colour) in enumerate(zip(found, palette, strict=True)):
            width = min(DODGE, SPREAD / len(found)) * step
            side = (i - (len(found) - 1) / 2) * width
            marker = MARKERS[i % len(MARKERS)]
            _points(axis, agents, reached, member, side, 0.4 * width, colour, marker)
            text = f"{texts[i]}: " if names else ""
            try:
                fit = speedup_fit(agents[member], reached.take(member), base)
            except ValueError:
                axis.plot([], [], color=colour, label=f"{text}no slope")
                missing.append(text + _why(agents[member], reached.take(member)))
                continue
            options = {"color": colour, "linewidth": weights[i]}
            band(axis, agents[member], fit, base, label=text + slope(fit), **options)
            fits.append(fit)
        _ideal(axis, agents, reached, fits, base)
        for some, marker, text in (
            (reached.censored, "^", "not reached by its end"),
            (_at_first(reached), "v", "reached by its first record"),
        ):
            if some.any():
                axis.plot([], [], marker, color=GREY, markerfacecolor="none", label=text)
        ticks(axis.xaxis, base, agents)
        ticks(axis.yaxis, base)
        sign = ">" if above else "<"
        axis.set_xlabel(formats.axis_label("num_agents"))
        axis.set_ylabel(f"steps of an agent until the value {sign} {formats.number(threshold)}")
        axis.set_title(formats.axis_label(metric, result), fontsize=8)
        title = "\n".join(["slope ± se, 95 % band", *(f"no slope: {why}" for why in missing)])
        axis.legend(loc="lower left", title=title, title_fontsize=7)
        lost = int(table.diverged.sum())
        if lost:
            axis.text(
                0.98,
                0.98,
                f"{lost} of {len(agents)} runs diverged",
                transform=axis.transAxes,
                ha="right",
                va="top",
                fontsize=7,
            )
    return figure


def _points(axis, agents, reached: ThresholdTime, member, side, jitter, colour, marker):
    """Runs of one line; the spread sideways is a function of their order, not of chance."""
    x = np.empty(int(member.sum()))
    own = agents[member]
    for n in np.unique(own):
        place = np.flatnonzero(own == n)
        x[place] = np.log(n) + side + np.linspace(-jitter, jitter, len(place) + 2)[1:-1]
    x, reached = np.exp(x), reached.take(member)
    late, at_first = reached.censored, _at_first(reached)
    seen = ~late & ~at_first
    axis.vlines(
        x[seen], reached.before[seen], reached.time[seen], color=colour, linewidth=0.5, alpha=0.5
    )
    axis.plot(
        x[seen],
        reached.time[seen],
        marker,
        color=colour,
        markersize=3.2,
        markeredgewidth=0,
        alpha=0.75,
    )
    for some, triangle, gid in ((late, "^", "censored"), (at_first, "v", "first")):
        axis.plot(
            x[some],
            reached.time_or_limit[some],
            triangle,
            color=colour,
            markerfacecolor="none",
            markersize=4.5,
            markeredgewidth=0.7,
            gid=gid,
        )


def _at_first(reached: ThresholdTime) -> np.ndarray:
    """Runs, bool [...], that had crossed by their first record."""
    return reached.before == 0


def _why(agents: np.ndarray, reached: ThresholdTime) -> str:
    """What keeps the runs of a line from having a slope, in a few words."""
    if np.any(reached.upper <= 0):
        return f"{int(np.sum(reached.upper <= 0))} runs are beyond the threshold at time 0"
    seen = ~reached.censored & ~_at_first(reached)
    if len(np.unique(agents)) < 2:
        return f"N = {formats.number(agents[0])} only"
    count = f"{int(seen.sum())} of {len(agents)} runs"
    return f"{count}, of {len(np.unique(agents[seen]))} N, cross between two records"


def _ideal(axis, agents, reached: ThresholdTime, fits: list[Fit], base: float) -> None:
    """The line of linear speedup, 1 / N, from where the first fit or else the runs start."""
    ends = np.array([agents.min(), agents.max()])
    if ends[0] == ends[1]:
        return
    if fits:
        # Not the median of the runs, which is their end where most never got there.
        start = base ** fits[0].predict([np.log(ends[0]) / np.log(base)])[0][0]
    else:
        start = np.median(reached.time_or_limit[agents == ends[0]])
    line = start * ends[0] / ends
    axis.plot(ends, line, color="black", dashes=(3, 3), linewidth=1, zorder=5, label="ideal, 1/N")
