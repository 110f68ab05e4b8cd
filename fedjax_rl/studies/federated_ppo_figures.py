"""Figures 8 to 13 of the study `linear-speedup`."""

# ruff: noqa: RUF001 -- the labels say − as printed numbers do

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes

from fedjax_rl import plotting
from fedjax_rl.plotting import formats
from fedjax_rl.plotting.page import page
from fedjax_rl.plotting.regressions import band, colour_bar, ticks
from fedjax_rl.plotting.style import GREY, OKABE_ITO, PAGE, RED
from fedjax_rl.plotting.tables import cells
from fedjax_rl.studies import federated_ppo_data as data
from fedjax_rl.studies import federated_ppo_targets as targets


def _fig8(runs) -> dict:
    grid = runs.grid
    columns = [(k, t) for k in data.PERIODS for t in range(runs.scale.trials)]
    ends = targets.final(grid, runs.scale)
    rewards = np.full((len(data.AGENTS), len(columns)), np.nan)
    names = ("num_agents", "sync_period", "trial")
    for n, k, t, end in zip(*(grid[name].values for name in names), ends, strict=True):
        # One agent has no K, and stands under all.
        for column, (period, trial) in enumerate(columns):
            if trial == t and (period == k or n == 1):
                rewards[data.AGENTS.index(int(n)), column] = end
    with plotting.style():
        figure, ((axis,),) = page(height=2.6)
        labels = [f"{k}, {t + 1}" for k, t in columns]
        image = cells(axis, rewards, [f"{n}" for n in data.AGENTS], labels)
        axis.invert_yaxis()
        last, all_of_them = runs.scale.window, runs.scale.epochs
        axis.set_title(f"mean reward / 10 of the last {last} of {all_of_them} epochs")
        axis.set_xlabel("K, trial")
        axis.set_ylabel("N")
        colour_bar(axis, image, "")
    return {"fig8": figure, "fig8-curves": _curves(runs)}


def _curves(runs):
    """Rewards against epochs, a panel per K."""
    grid, window = runs.grid, runs.scale.window
    with plotting.style():
        figure, (axes,) = page(1, len(data.PERIODS), sharey=True)
        for axis, period in zip(axes, data.PERIODS, strict=True):
            for place, n in enumerate(data.AGENTS):
                here = grid["num_agents"].values == n
                here &= (grid["sync_period"].values == period) | (n == 1)
                values = targets.smoothed(grid["reward"].values[here], window, "clean")
                axis.plot(grid["time"], values.T, color=OKABE_ITO[place], lw=0.5, alpha=0.5)
                axis.plot(
                    grid["time"], values.mean(0), color=OKABE_ITO[place], lw=1.5, label=f"N = {n}"
                )
            for threshold in targets.thresholds(runs):
                axis.axhline(threshold, color=GREY, lw=0.6, ls=":")
            axis.set_title(f"K = {period}")
            axis.set_xlabel("epoch")
        axes[0].set_ylabel(f"reward / 10, mean of {window} epochs")
        axes[0].legend(loc="upper left", fontsize="x-small")
    return figure


def _panel(axis: Axes, times: targets.Times, title: str, x: str) -> None:
    """Reached runs black, censored ones red at their last epoch; both fits."""
    rng = np.random.default_rng(0)
    shown = times.x * 2 ** rng.uniform(-0.06, 0.06, times.x.size)
    late = times.censored
    axis.scatter(shown[~late], times.time[~late], s=12, color="black", zorder=3)
    axis.scatter(shown[late], times.time[late], s=16, color=RED, marker="^", zorder=3)
    axis.set_xscale("log", base=2)
    axis.set_yscale("log", base=2)
    text = []
    fits = (targets.fit(times), OKABE_ITO[0], "censored"), (targets.ordinary(times), GREY, "plain")
    for found, colour, name in fits:
        if found is None:
            text.append(f"{name}: too few")
            continue
        band(axis, times.x, found, 2.0, color=colour, label=name)
        exponent = found.names[1]
        text.append(f"{name} {formats.interval((found[exponent], *found.interval(exponent)))}")
    axis.set_title("\n".join([title, *text]).replace("-", "−"), fontsize="small")
    ticks(axis.xaxis, 10.0, np.unique(times.x))
    ticks(axis.yaxis, 10.0, np.array([1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 4000]))
    axis.set_xlabel(x)


def _panels(panels: list[tuple[str, targets.Times]], x: str, y: str = "epochs"):
    columns = 2 if len(panels) > 1 else 1
    rows = -(-len(panels) // columns)
    with plotting.style():
        width = PAGE if columns == 2 else PAGE * 0.55
        figure, axes = page(rows, columns, height=2.9, width=width)
        axes = axes.ravel()
        for axis, (title, times) in zip(axes, panels, strict=False):
            _panel(axis, times, title, x)
            axis.set_ylabel(y)
        for axis in axes[len(panels) :]:
            axis.remove()
    return figure


def _by_threshold(runs, period: int, chosen) -> list:
    return [
        (f"K = {period}, reward {x:.2g}", targets.against_agents(runs, period, x)) for x in chosen
    ]


def _fig9(runs) -> dict:
    pictures = {"fig9": _panels(_by_threshold(runs, 1, targets.thresholds(runs)), "agents N")}
    if runs.scale.controls:
        pictures["fig9-controls"] = _controls(runs)
    return pictures


def _controls(runs):
    """The slope at K = 1 under every control, with its interval.

    "mean of the agents" is another reading of the published runs: the trailing mean over all agents
    has to be above the threshold, not the centred mean of any of them.
    """
    threshold = targets.middle(runs)
    slopes = {
        name: targets.slope(targets.control_times(runs, name, threshold))
        for name in runs.controls["control"].values
    }
    plain = next(iter(slopes))
    mean = targets.control_times(runs, plain, threshold, "clean")
    slopes = {plain: slopes[plain], "mean of the agents": targets.slope(mean), **slopes}
    with plotting.style():
        figure, ((axis,),) = page(width=PAGE * 0.8, height=3.2)
        for place, (value, low, high) in enumerate(slopes.values()):
            if not np.isfinite(value):
                axis.annotate("too few reach it", (0.0, place), va="center")
                continue
            axis.plot([low, high], [place, place], color=OKABE_ITO[0], lw=1.5)
            axis.plot(value, place, "o", color=OKABE_ITO[0], ms=6)
        axis.axvline(-1, color=GREY, ls="--", lw=1)
        axis.set_yticks(range(len(slopes)), list(slopes))
        axis.invert_yaxis()
        axis.set_xlabel(f"slope of log T against log N, K = 1, reward {threshold:.2g}; dashed: −1")
    return figure


def _fig10(runs) -> dict:
    return {"fig10": _panels(_by_threshold(runs, 10, targets.thresholds(runs)), "agents N")}


def _fig11(runs) -> dict:
    return {"fig11": _panels(_by_threshold(runs, 100, targets.thresholds(runs)[:1]), "agents N")}


def _fig12(runs) -> dict:
    times = targets.against_agents(runs, 1, targets.middle(runs))
    panels = [("C = 0", times)]
    panels += [(f"C = {cost:g}", times.charged(1, cost)) for cost in targets.COSTS]
    return {"fig12": _panels(panels, "agents N", "epochs and communication")}


def _fig13(runs) -> dict:
    panels = [
        (f"N = {n}, reward {x:.2g}", targets.against_periods(runs, n, x))
        for n in data.AGENTS[1:]
        for x in targets.thresholds(runs)[:2]
    ]
    return {"fig13": _panels(panels, "K")}


PICTURES: dict[str, Callable] = {
    "fig8": _fig8,
    "fig9": _fig9,
    "fig10": _fig10,
    "fig11": _fig11,
    "fig12": _fig12,
    "fig13": _fig13,
}
