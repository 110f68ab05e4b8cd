"""The pictures of the study `linear-speedup`, one function per figure of the paper."""

# ruff: noqa: RUF001 -- the labels say α as the paper does

from __future__ import annotations

import numpy as np
import xarray as xr

from fedjax_rl import envs, plotting
from fedjax_rl.federation import communication_time
from fedjax_rl.studies import linear_speedup_data as data
from fedjax_rl.studies import linear_speedup_measures as measures

# Published rows of Fig. 5b: window -> coefficients.
_FIG5B = {
    50: {"intercept": -1.4016, "sync_period": 1.2395, "learning_rate": 1.9579, "r_squared": 0.9617},
    60: {"intercept": -0.9763, "sync_period": 0.9457, "learning_rate": 1.7930, "r_squared": 0.9571},
}


def _fig1(runs) -> dict:
    mdp = envs.paper_mdp()
    return {"fig1": plotting.mdp(mdp, envs.optimal_q(mdp))}


def _fig3(runs) -> dict:
    titles = {
        "a": "(a) α = .005, N = 1",
        "b": "(b) α = .005, N = 16, K = 1",
        "c": "(c) α = .005, N = 16, K = 10⁴",
        "d": "(d) α = .08, N = 16, K = 1",
    }
    panels = {}
    for letter, where in measures.PANELS.items():
        rows = measures.pick(runs.grid_a, **where)
        if rows.sizes["cell"] == 0:
            continue
        if "series_time" in rows:  # one rate, hence one grid of times, in a panel
            rows = rows.rename(record="time").assign_coords(
                time=("time", rows["series_time"].values[0])
            )
            rows = rows.drop_vars("series_time")
        panels[titles[letter]] = rows[["series"]]
    start = float(np.sum(envs.optimal_q(envs.paper_mdp()) ** 2))
    figure = plotting.learning_curves(panels, metric="series", start=start, threshold=0.1)
    return {"fig3": figure}


def _fig4(runs) -> dict:
    rows = measures.fig4_rows(runs.grid_a)
    ratio = rows["learning_rate"].values / rows["num_agents"].values
    figure = plotting.regression(
        ratio,
        rows["final"].values ** 2,
        colour=rows["learning_rate"].values,
        colour_label="α",
        x_label="α / N",
        y_label="steady-state D²",
    )
    mdp = envs.paper_mdp()
    theory = envs.linear_theory(mdp, envs.uniform_policy(mdp)).trace_steady_state
    ends = np.array([ratio.min(), ratio.max()])
    axis = figure.axes[0]
    label = f"theory for α → 0: {theory:.2f} α/N"
    with plotting.style():
        axis.plot(ends, theory * ends, "--", color="#222222", linewidth=1, zorder=3, label=label)
        axis.legend(loc="lower right")
    return {"fig4": figure}


def _fig5(runs) -> dict:
    rows = runs.grid_b
    law = measures.drift_fit(rows).law
    scatter = plotting.drift(
        rows["final"].values ** 2,
        rows["sync_period"].values,
        rows["learning_rate"].values,
        rows["num_agents"].values,
        law,
        phases=measures.phases(rows),
    )
    out = {"fig5a": scatter}
    if len(np.unique(rows["sync_period"].values)) >= len(data.B_PERIODS):
        out["fig5b"] = plotting.coefficients(measures.fig5_windows(rows), published=_FIG5B)
    return out


def _time_panel(rows: xr.Dataset, reference: float, period: int | None = None):
    """A picture of the time to the threshold against N."""
    n, time = rows["num_agents"].values, rows["reached"].values
    time = time if period is None else communication_time(time, period, n)

    def picture(axes):
        plotting.regression(
            n,
            time,
            reference=reference,
            x_label="agents N",
            y_label="steps to D² < 0.1" if period is None else "steps and communication",
            axes=axes,
        )

    return picture


def _fig6(runs) -> dict:
    longest = max(data.PERIODS)
    flat = measures.pick(runs.grid_a, learning_rate=data.SPEEDUP_RATE, sync_period=1)
    flat = flat.isel(cell=np.flatnonzero(np.isfinite(flat["reached"].values)))
    steady = measures.pick(runs.grid_a, learning_rate=0.01, sync_period=1)

    def error(axes):
        plotting.regression(
            steady["num_agents"].values,
            steady["final"].values ** 2,
            reference=-1,
            x_label="agents N",
            y_label="steady-state D²",
            axes=axes,
        )

    panels = {
        "(a) α = .002, K = 1": _time_panel(flat, 0),
        "(b) α = .01, K = 1": error,
        "(c) α = .002 N, K = 1": _time_panel(measures.speedup_rows(runs.grid_a, 1), -1),
        "(d) α = .002 N, K = 10⁴": _time_panel(measures.speedup_rows(runs.grid_a, longest), -1),
    }
    fine = measures.pick(runs.fine, epsilon=1.0)
    first, last = "one table, every 1010 steps", "server average, every 5 steps"
    if runs.scale.preset == "clean":
        first = "server average, every .05/α steps"
    measuring = {
        f"K = 1: {first}": panels["(c) α = .002 N, K = 1"],
        f"K = 1: {last}": _time_panel(measures.speedup_rows(fine, 1), -1),
        f"K = 10⁴: {first}": panels["(d) α = .002 N, K = 10⁴"],
        f"K = 10⁴: {last}": _time_panel(measures.speedup_rows(fine, longest), -1),
    }
    return {"fig6": plotting.panels(panels), "fig6-measuring": plotting.panels(measuring)}


def _fig7(runs) -> dict:
    present = set(runs.grid_a["sync_period"].values.tolist())
    panels = {
        f"K = {period:,}".replace(",", " "): _time_panel(
            measures.speedup_rows(runs.grid_a, period), -1, period
        )
        for period in data.PERIODS
        if period in present and period != 100
    }
    return {"fig7": plotting.panels(panels)}


PICTURES = {
    "fig1": _fig1,
    "fig3": _fig3,
    "fig4": _fig4,
    "fig5": _fig5,
    "fig6": _fig6,
    "fig7": _fig7,
}
