"""What figures 8 to 13 of the study `linear-speedup` are judged by, and how it is measured.

Rows P1 to P9 of the project's specification. Slopes of times to a threshold are those of a
log-normal regression in which runs that never reach it are censored; beside it, as the paper has
it, is the ordinary fit to those that do. Only runs of the paper's size have its thresholds, others
have parts of the way that the best of them go, so that their numbers do not compare with the
paper's, their order does. A function below returns `{id: (measured, low, high)}`.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
import xarray as xr

from fedjax_rl import analysis
from fedjax_rl.algorithms.fedppo_properties import SIZES
from fedjax_rl.analysis import Target
from fedjax_rl.federation import communication_time
from fedjax_rl.studies import federated_ppo_data as data
from fedjax_rl.studies.intervals import bare, mean, several

COSTS = (0.1, 1.0, 10.0)
PARAMETERS = (626_256, 620_624, 702_256, 61_232, 15_056)
PASSES = 3
# What the trials of a cell have in common.
KIND = ("num_agents", "sync_period")
# Published slopes of Fig. 12 less that of Fig. 9c.
SHIFTS = (0.1261, 0.6585, 1.5796)

_FIGURES = {
    "fig8": (
        Target(
            "P1",
            "Fig. 8",
            "parameters of IMPALA and of the four ViT",
            list(PARAMETERS),
            tuple((x, x) for x in PARAMETERS),
            kind="exact",
        ),
        Target(
            "P2",
            "Fig. 8",
            "BigFish, random policy: return, length",
            "about 1",
            ((0.77, 0.93), (110, 124)),
            prototype="0.863, 117.1",
        ),
        Target(
            "P9",
            "Fig. 8",
            "environment steps, averages and bytes up of every run less what the accounting "
            "says: largest",
            0,
            ((0, 0),) * 3,
            kind="exact",
        ),
    ),
    "fig9": (
        Target(
            "P4",
            "Fig. 9",
            "K = 1: slope of log T against log N, lowest and highest over the thresholds",
            [-1.4706, -1.1118],
            ((-2.0, -0.7), (-2.0, -0.7)),
        ),
        Target(
            "P5",
            "Fig. 9",
            "the same at a constant learning rate, middle threshold",
            None,
            (-1.5, -0.7),
            prototype="about -1.1",
        ),
    ),
    "fig10": (
        Target(
            "P6",
            "Fig. 10",
            "K = 10, middle threshold: slope, its upper limit, and slope less that at K = 1",
            [-0.4273, None, 0.9],
            ((None, 0), (None, 0.1), (0.2, None)),
            kind="ordering",
        ),
    ),
    "fig11": (
        Target(
            "P7",
            "Fig. 11",
            "K = 100, lowest threshold: slope with censoring",
            0.0205,
            (-0.4, None),
            kind="ordering",
        ),
    ),
    "fig12": (
        Target(
            "P3",
            "Fig. 12",
            "shift of the slope at K = 1 by C = 0.1, 1, 10 less log2(1 + C log2 N) per log2 N",
            0,
            ((-1e-9, 1e-9),) * 3,
            kind="exact",
        ),
        Target(
            "P3 published",
            "Fig. 12",
            "these shifts",
            list(SHIFTS),
            tuple((x - 1e-4, x + 1e-4) for x in SHIFTS),
            kind="exact",
        ),
    ),
    "fig13": (
        Target(
            "P8",
            "Fig. 13",
            "slope of log T against log K, lowest threshold, N = 2, 4, 8; differences",
            [0.18, 0.42, 0.55, None, None],
            ((0, 1), (0, 1), (0, 1), (0, None), (0, None)),
            kind="ordering",
        ),
    ),
}
TARGETS = tuple(target for rows in _FIGURES.values() for target in rows)
FIGURE_OF = {target.id: figure for figure, rows in _FIGURES.items() for target in rows}


def measure(figure: str, runs) -> dict:
    """What the targets of a figure come to: `{id: (measured, low, high)}`."""
    return _MEASURE[figure](runs)


class Times(NamedTuple):
    """Epochs to a threshold, one entry per run.

    Attributes:
      x: what they are against.
      time: where reached, and elsewhere the last epoch.
      censored: whether it was never reached.
    """

    x: np.ndarray
    time: np.ndarray
    censored: np.ndarray

    def charged(self, period, cost: float) -> Times:
        """With the time of communication, of the limits of censored runs too; x is N."""
        return self._replace(time=communication_time(self.time, period, self.x, cost))


def smoothed(values, window: int, protocol: str) -> np.ndarray:
    """Means over so many epochs: centred with zeros beyond the ends, or trailing.

    Args:
      values: [..., time].
      window: epochs.
      protocol: "paper" or "clean", whose trailing mean is not a number before the window is full.
    """
    values = np.asarray(values, np.float64)
    kernel = np.ones(window) / window
    if protocol == "paper":
        return np.apply_along_axis(lambda row: np.convolve(row, kernel, "same"), -1, values)
    full = np.apply_along_axis(lambda row: np.convolve(row, kernel, "valid"), -1, values)
    blank = np.full((*values.shape[:-1], window - 1), np.nan)
    return np.concatenate([blank, full], axis=-1)


def reached(runs: xr.Dataset, scale, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """First epochs above a threshold as the protocol reads them, [cell]; and who is censored."""
    if scale.preset == "paper":
        means = smoothed(runs["reward_of_agent"].values, scale.window, "paper")
        with np.errstate(invalid="ignore"):
            above = (means > threshold).any(axis=-2)
    else:
        with np.errstate(invalid="ignore"):
            above = smoothed(runs["reward"].values, scale.window, "clean") > threshold
    ever = above.any(axis=-1)
    epochs = runs["time"].values
    return np.where(ever, epochs[above.argmax(axis=-1)], epochs[-1]), ~ever


def final(runs: xr.Dataset, scale) -> np.ndarray:
    """Mean reward over the last window of epochs, [cell]."""
    return runs["reward"].values[..., -scale.window :].mean(axis=-1)


def thresholds(runs) -> tuple[float, ...]:
    """The paper's at its size; elsewhere parts of the way to the best of all N and K.

    In so few epochs a single agent has not converged.
    """
    if runs.scale.size == "paper":
        return data.PAPER_THRESHOLDS
    grid = runs.grid
    first = float(grid["reward"].values[:, : runs.scale.window].mean())
    ends, kinds = final(grid, runs.scale), list(zip(*(grid[n].values for n in KIND), strict=True))
    last = max(np.mean([e for e, k in zip(ends, kinds, strict=True) if k == own]) for own in kinds)
    return tuple(float(first + share * (last - first)) for share in data.SHARES)


def against_agents(runs, period: int, threshold: float) -> Times:
    """Times at one K; the runs of one agent belong to every K."""
    grid = runs.grid
    number, periods = grid["num_agents"].values, grid["sync_period"].values
    here = (number == 1) | (periods == period)
    time, censored = reached(grid, runs.scale, threshold)
    return Times(number[here].astype(float), time[here].astype(float), censored[here])


def against_periods(runs, num_agents: int, threshold: float) -> Times:
    """Times of one N."""
    grid = runs.grid
    here = grid["num_agents"].values == num_agents
    time, censored = reached(grid, runs.scale, threshold)
    periods = grid["sync_period"].values[here].astype(float)
    return Times(periods, time[here].astype(float), censored[here])


def fit(times: Times) -> analysis.Fit | None:
    """The regression of log2 time on log2 x with censoring; None where too little is reached."""
    x, y = np.log2(times.x), np.log2(np.maximum(times.time, 1))
    try:
        return analysis.tobit(y, times.censored, interval="student", slope=x)
    except ValueError:
        return None


def ordinary(times: Times) -> analysis.Fit | None:
    """The paper's fit: what was reached, the rest left out."""
    seen = ~times.censored
    if len(np.unique(times.x[seen])) < 2 or seen.sum() < 3:
        return None
    return analysis.loglog(times.x[seen], np.maximum(times.time[seen], 1), 2.0)


def slope(times: Times) -> tuple:
    """The slope with its profile interval; not a number where it cannot be told."""
    found = fit(times)
    return bare(np.nan) if found is None else (found["slope"], *found.interval("slope"))


def control_times(runs, control: str, threshold: float, reading: str | None = None) -> Times:
    """Times of a control against its N, read as a protocol has it; that of the runs by default."""
    own = runs.controls.sel(control=control)
    there = np.isfinite(own["reward"].values).all(axis=-1)
    scale = runs.scale if reading is None else runs.scale.replace(preset=reading)
    time, censored = reached(own, scale, threshold)
    size = own["size"].values.astype(float)
    return Times(size[there], time[there].astype(float), censored[there])


def accounting(runs) -> tuple[float, float, float]:
    """Largest deviations of the ledger: environment steps, averages, bytes up per message."""
    grid, scale = runs.grid, runs.scale
    number, period = grid["num_agents"].values, grid["sync_period"].values
    last = scale.epochs - 1
    rollouts = -(-(last + 1) // PASSES)
    of_size = SIZES[scale.size]
    each = of_size["num_envs"] * of_size["rollout_steps"] * rollouts
    averages = np.where(number > 1, last // period + 1, 0)
    messages = np.where(number > 1, averages * number, 0)
    floats = grid["floats_up"].values / np.maximum(grid["messages_up"].values, 1)
    bytes_up = np.where(number > 1, 4 * floats * messages, 0)
    return (
        float(np.abs(grid["env_steps"].values - each * number).max()),
        float(np.abs(grid["communications"].values - averages).max()),
        float(np.abs(grid["bytes_up"].values - bytes_up).max()),
    )


def shifts() -> np.ndarray:
    """What C adds to the slope at K = 1 when all N have the same number of runs."""
    agents = np.array(data.AGENTS, float)
    return np.array(
        [analysis.loglog(agents, 1 + cost * np.log2(agents), 2.0)["slope"] for cost in COSTS]
    )


def _fig8(runs) -> dict:
    facts = runs.facts
    return {
        "P1": several(*map(bare, facts["parameters"].values)),
        "P2": several(mean(facts["returns"].values), mean(facts["lengths"].values)),
        "P9": several(*map(bare, accounting(runs))),
    }


def _fig9(runs) -> dict:
    slopes = [slope(against_agents(runs, 1, x)) for x in thresholds(runs)]
    known = [row for row in slopes if np.isfinite(row[0])]
    ends = [min(known), max(known)] if known else [bare(np.nan)] * 2
    found = {"P4": several(*ends)}
    if runs.scale.controls:
        found["P5"] = slope(control_times(runs, "constant rate", middle(runs)))
    return found


def middle(runs) -> float:
    """The threshold in the middle; the paper's is 0.3."""
    own = thresholds(runs)
    return own[len(own) // 2]


def _fig10(runs) -> dict:
    here, one = (slope(against_agents(runs, period, middle(runs))) for period in (10, 1))
    high = np.nan if len(here) < 3 or here[2] is None else here[2]
    return {"P6": several(here, bare(high), bare(here[0] - one[0]))}


def _fig11(runs) -> dict:
    return {"P7": slope(against_agents(runs, 100, thresholds(runs)[0]))}


def _fig12(runs) -> dict:
    plain = against_agents(runs, 1, middle(runs))
    agents = np.unique(plain.x)
    times = np.repeat(np.geomspace(1000, 100, len(agents)).round(), 3)
    balanced = Times(np.repeat(agents, 3), times, np.zeros(times.size, bool))
    base = ordinary(balanced)["slope"]
    moved = [ordinary(balanced.charged(1, cost))["slope"] - base for cost in COSTS]
    return {
        "P3": several(*(bare(a - b) for a, b in zip(moved, shifts(), strict=True))),
        "P3 published": several(*map(bare, moved)),
    }


def _fig13(runs) -> dict:
    lowest = thresholds(runs)[0]
    slopes = [slope(against_periods(runs, n, lowest)) for n in data.AGENTS[1:]]
    steps = [bare(b[0] - a[0]) for a, b in itertools.pairwise(slopes)]
    return {"P8": several(*slopes, *steps)}


_MEASURE = {
    "fig8": _fig8,
    "fig9": _fig9,
    "fig10": _fig10,
    "fig11": _fig11,
    "fig12": _fig12,
    "fig13": _fig13,
}
