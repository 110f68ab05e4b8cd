"""How the numbers of the study `linear-speedup` are measured: `{id: (measured, low, high)}`."""

from __future__ import annotations

import numpy as np
import xarray as xr

from fedjax_rl import analysis, envs
from fedjax_rl.federation import communication_time
from fedjax_rl.studies import linear_speedup_data as data
from fedjax_rl.studies import linear_speedup_protocols as protocols
from fedjax_rl.studies.intervals import mean, several

# The slope of log(1 + log2 N) on log N for N = 1, 2, 4, 8, 16: what the cost model adds at K = 1.
from fedjax_rl.studies.linear_speedup_targets import WINDOWS


def pick(runs: xr.Dataset, **wanted) -> xr.Dataset:
    """The cells with the given properties; rates up to rounding, N = 1 at every period."""
    keep = np.ones(runs.sizes["cell"], bool)
    for name, value in wanted.items():
        own = np.isclose(runs[name].values, value, rtol=1e-6)
        if name == "sync_period":
            own |= runs["num_agents"].values == 1
        keep &= own
    return runs.isel(cell=np.flatnonzero(keep))


def speedup_rows(runs: xr.Dataset, period: int) -> xr.Dataset:
    """The rows of Figs 6c, 6d and 7: alpha = 0.002 N at one period, runs that got there."""
    scaled = np.isclose(
        runs["learning_rate"].values, data.SPEEDUP_RATE * runs["num_agents"].values, rtol=1e-6
    )
    rows = pick(runs.isel(cell=np.flatnonzero(scaled)), sync_period=period)
    return rows.isel(cell=np.flatnonzero(np.isfinite(rows["reached"].values)))


def speedup_fit(rows: xr.Dataset, period: int | None = None) -> analysis.Fit:
    """log10 T on log10 N, with the cost of communication when a period is given."""
    n, time = rows["num_agents"].values, rows["reached"].values
    return analysis.loglog(n, time if period is None else communication_time(time, period, n))


def slope(fit: analysis.Fit, name: str = "slope"):
    """(value, low, high) of one coefficient."""
    return (fit[name], *fit.interval(name))


def fig1() -> dict:
    """T1 to T3, from the MDP alone."""
    mdp = envs.paper_mdp()
    q = envs.optimal_q(mdp)
    greedy, uniform = envs.greedy_policy(q), envs.uniform_policy(mdp)
    steps = 10_001
    rng = np.random.default_rng(1)
    best = rollouts(mdp, greedy, rng.random((steps, 2, 100)))
    random = rollouts(mdp, uniform, rng.random((steps, 2, 100)))
    # The author's draw: the generator after kernel and rewards and two earlier evaluations.
    source = np.random.default_rng(3701)
    source.standard_normal((4, 3, 4))
    source.standard_normal(4)
    source.random(2 * steps)
    words = np.zeros((steps, 2, 1))
    words[:, 1, 0] = source.random(steps)
    regenerated = float(rollouts(mdp, greedy, words)[0])

    return {
        "T1": (float(np.sum(q**2)), None, None),
        "T2": several(mean(best), (regenerated, None, None)),
        "T3": mean(random),
    }


def rollouts(mdp, policy, uniforms) -> np.ndarray:
    """Cumulative rewards of rollouts from the initial state, by inversion of given uniforms.

    Args:
      mdp: with rewards of the state arrived in.
      policy: [S, U].
      uniforms: [T, 2, n], for the action and the next state of each step.
    """
    actions, states = np.cumsum(policy, -1), np.cumsum(mdp.transition, -1)
    reward = np.asarray(mdp.reward).reshape(-1)
    state = np.full(uniforms.shape[-1], int(mdp.initial_state))
    total = np.zeros(uniforms.shape[-1])
    for u in uniforms:
        action = (u[0, :, None] >= actions[state][:, :-1]).sum(-1)
        state = (u[1, :, None] >= states[state, action][:, :-1]).sum(-1)
        total += reward[state]
    return total


def steady_line(rows: xr.Dataset, name: str = "final_squared") -> tuple[float, float, float]:
    """The red line of Fig. 3 and its band: log10 of mean and mean +- sd over the curves."""
    values = rows[name].values
    mean, sd = values.mean(), values.std(ddof=1) if len(values) > 1 else 0.0
    low = np.log10(mean - sd) if mean > sd else np.nan
    return float(np.log10(mean)), float(low), float(np.log10(mean + sd))


PANELS = {
    "a": dict(learning_rate=0.005, num_agents=1),
    "b": dict(learning_rate=0.005, num_agents=16, sync_period=1),
    "c": dict(learning_rate=0.005, num_agents=16, sync_period=10_000),
    "d": dict(learning_rate=0.08, num_agents=16, sync_period=1),
}


def fig3(runs: xr.Dataset, same: xr.Dataset) -> dict:
    """T4 to T9."""
    panel = {name: pick(runs, **where) for name, where in PANELS.items()}
    out = {
        "T4": steady_line(panel["a"]),
        "T5": steady_line(panel["b"]),
        "T6": several(steady_line(panel["c"]), steady_line(panel["c"], "server_squared")),
        "T7": steady_line(panel["d"]),
    }
    products = []
    for epsilon in (1.0, 0.0):
        rows = pick(same, epsilon=epsilon)
        values = rows["reached"].values * rows["learning_rate"].values
        products.append(mean(values))
    out["T9"] = several(*products)
    times = []
    for n in (1, 16):
        rows = pick(same, epsilon=1.0, learning_rate=0.005, num_agents=n)
        curve = rows["error_server"].values.astype(np.float64).mean(axis=0)
        settled = analysis.settled_mean(curve, rows["time"].values, burn_in=50_000)
        hit = analysis.time_to_threshold(rows["time"].values, curve, 2 * settled)
        times.append((float(np.log10(hit.time)), None, None))
    out["T8"] = several(*times)
    return out


def fig4_rows(runs: xr.Dataset) -> xr.Dataset:
    """The rows of Fig. 4: K = 1 or a single agent."""
    return pick(runs, sync_period=1)


def fig4(runs: xr.Dataset, steady: xr.Dataset) -> dict:
    """T10 to T12."""
    rows = fig4_rows(runs)
    n, rate = rows["num_agents"].values, rows["learning_rate"].values
    squared = rows["final"].values ** 2
    one = analysis.loglog(rate / n, squared)
    two = analysis.two_variable(squared, alpha=rate, N=n)
    scaled = steady["final_squared"] * steady["num_agents"] / steady["learning_rate"]
    cells = {}
    for value, key in zip(
        scaled.values,
        zip(steady["num_agents"].values, steady["learning_rate"].values, strict=True),
        strict=True,
    ):
        cells.setdefault(key, []).append(value)
    ranges = sorted(map(mean, cells.values()), key=lambda interval: interval[0])
    ends = ranges[0], ranges[-1]
    return {
        "T10": slope(one),
        "T11": several(slope(two, "alpha"), slope(two, "N")),
        "T12": several(*ends),
    }


def fig5_fit(runs: xr.Dataset, nuisance: str) -> analysis.Fit:
    """The regression of Fig. 5a."""
    return analysis.factored(
        runs["final"].values ** 2,
        runs["sync_period"].values,
        runs["learning_rate"].values,
        runs["num_agents"].values,
        nuisance=nuisance,
    )


def fig5_windows(runs: xr.Dataset) -> dict[int, analysis.Fit]:
    """The regressions of Fig. 5b, by the largest period of the window."""
    return analysis.windowed(
        runs["final"].values ** 2,
        runs["sync_period"].values,
        runs["learning_rate"].values,
        runs["num_agents"].values,
    )


def phases(runs: xr.Dataset) -> np.ndarray:
    """Steps since the last exchange at the records that were averaged, [cell, P]."""
    period = runs["sync_period"].values
    if "records" not in runs:  # the clean protocol looks just before the exchange
        return period[:, None] - 1
    last = runs["records"].values[:, None] + np.arange(-9, 1)
    return (last * protocols.RECORD) % period[:, None]


def drift_fit(runs: xr.Dataset) -> analysis.DriftFit:
    """The drift-saturation law on the mean over all agents, at the phases really measured."""
    return analysis.fit_drift_law(
        runs["all_squared"].values,
        runs["learning_rate"].values,
        runs["num_agents"].values,
        phases(runs),
        sync_period=runs["sync_period"].values,
    )


def fig5(runs: xr.Dataset, complete: bool) -> dict:
    """T17; T13 and T14 where all periods were run; with all trials T15 and T16."""
    free, one = fig5_fit(runs, "free"), fig5_fit(runs, "one")
    drift = drift_fit(runs)
    names = [n for n in free.names if n != "intercept"]
    out = {
        "T17": several(
            (drift.r_squared, None, None),
            (drift.r_squared - drift.power_law.r_squared, None, None),
        ),
    }
    if len(np.unique(runs["sync_period"].values)) == len(data.B_PERIODS):
        out["T13"] = several(*(slope(free, n) for n in names), (free.r_squared, None, None))
        out["T14"] = several(*(slope(one, n) for n in one.names if n != "intercept"))
    if complete:
        windows = fig5_windows(runs)
        period, rate = names[0], names[1]
        out["T15"] = several(*(slope(windows[k], period) for k in WINDOWS))
        least = min(fit.r_squared for fit in windows.values())
        out["T16"] = several(
            slope(windows[50], rate), slope(windows[1000], rate), (least, None, None)
        )
    return out


def fig6(runs: xr.Dataset, fine: xr.Dataset) -> dict:
    """T18 to T22."""
    rows = pick(runs, learning_rate=data.SPEEDUP_RATE, sync_period=1)
    rows = rows.isel(cell=np.flatnonzero(np.isfinite(rows["reached"].values)))
    flat = speedup_fit(rows)
    longest = max(data.PERIODS)
    return {
        "T18": several(slope(flat), slope(flat, "intercept")),
        "T19": slope(speedup_fit(speedup_rows(runs, 1))),
        "T20": slope(speedup_fit(speedup_rows(pick(fine, epsilon=1.0), 1))),
        "T21": slope(speedup_fit(speedup_rows(runs, longest))),
        "T22": several(
            *(slope(speedup_fit(speedup_rows(pick(fine, epsilon=e), longest))) for e in (1.0, 0.0))
        ),
    }


def fig7(runs: xr.Dataset) -> dict:
    """T23 and T24."""
    shifts, costs = [], {}
    for period in data.PERIODS:
        rows = speedup_rows(runs, period)
        if np.all(rows["num_agents"].values == 1):
            shifts.append((None, None, None))
            costs[period] = (None, None, None)
            continue
        with_cost = speedup_fit(rows, period)
        costs[period] = slope(with_cost)
        shifts.append((with_cost["slope"] - speedup_fit(rows)["slope"], None, None))
    return {"T23": several(*shifts), "T24": several(costs[1], costs[1000], costs[10_000])}


def other_mdps(runs: xr.Dataset) -> dict:
    """T25."""
    slopes, speeds = [], []
    for seed in np.unique(runs["mdp"].values):
        own = runs.isel(
            cell=np.flatnonzero(runs["mdp"].values == seed),
            timed=np.flatnonzero(runs["timed_mdp"].values == seed),
        )
        ratio = own["learning_rate"].values / own["num_agents"].values
        slopes.append(analysis.loglog(ratio, own["final_squared"].values)["slope"])
        # Ours, not the paper's: runs that did not get there count as later than their end.
        reached = analysis.ThresholdTime(*(own[name].values for name in data.THRESHOLD_TIMES))
        speeds.append(analysis.speedup_fit(own["timed_agents"].values, reached)["slope"])
    middle = analysis.bootstrap_interval(np.asarray(speeds), np.median)
    return {
        "T25": several(
            (min(slopes), None, None),
            (max(slopes), None, None),
            (middle.value, middle.low, middle.high),
        )
    }
