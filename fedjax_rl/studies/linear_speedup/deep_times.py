"""How the runs of figures 8 to 13 are read: from rewards of agents to slopes of times.

An epoch is a pass over a rollout, of which there are three; they are recorded once. Rewards are
divided by ten. A run reaches a threshold when a mean over some epochs first is above it:

* `ANY`, of the author's presets, as published: a centred mean of any agent's, zeros beyond the
  ends;
* `MEAN`, of the others: a mean over all agents and whole windows, dated to their middle, as one
  dated to the end would be late by as much for many agents as for one, which flattens slopes. At
  K = 1 it is the return of the server, as every rollout begins after an average.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import xarray as xr

from fedjax_rl import analysis
from fedjax_rl.analysis import Measured
from fedjax_rl.federation import communication_time
from fedjax_rl.studies.study import Scale

AUTHORS = ("paper", "paper-vectors")  # presets, in what agents do and in how they are read
AGENTS, PERIODS, PASSES = (1, 2, 4, 8), (1, 10, 100), 3
NEVER, NULL = "independent", "nothing is learned"
KINDS = {**{k: f"K = {k}" for k in PERIODS}, NEVER: NEVER, NULL: NULL}
ANY, MEAN = "any agent's mean", "the mean of all agents"
REWARD = 0.1  # of a fish
PAPER_LEVELS = (0.15, 0.2, 0.3, 0.5)
# Elsewhere parts of the way from the best that play without learning is read as to the best end.
SHARES = (0.1, 0.3, 0.5, 0.7)
RESAMPLES = 300
UNREAD = Measured(np.nan, runs=0)  # where too few runs reach a threshold for a slope


class Crossings(NamedTuple):
    """When runs reached a threshold; leaves [runs].

    Attributes:
      x: N or K.
      trial: runs of one number, none of which has anything to do with another.
      reached: epochs, known to a rollout.
    """

    x: np.ndarray
    trial: np.ndarray
    reached: analysis.ThresholdTime

    def take(self, chosen: np.ndarray) -> Crossings:
        """Some of the runs, by places or by a condition."""
        return Crossings(self.x[chosen], self.trial[chosen], self.reached.take(chosen))

    def of_trials(self, trials: np.ndarray) -> Crossings:
        """The runs of trials, as often as each is named."""
        return self.take(np.concatenate([np.flatnonzero(self.trial == one) for one in trials]))

    def charged(self, cost: float) -> Crossings:
        """At K = 1 with the time of communication, that of the limits included; x is N."""
        time, censored, last, before = self.reached
        time, last, before = (communication_time(t, 1, self.x, cost) for t in (time, last, before))
        return self._replace(reached=analysis.ThresholdTime(time, censored, last, before))

    @property
    def count(self) -> int:
        """Trials."""
        return len(np.unique(self.trial))

    @property
    def ends(self) -> tuple[np.ndarray, np.ndarray]:
        """Ends of the intervals of log2 T."""
        with np.errstate(divide="ignore"):
            return np.log2(self.reached.lower), np.log2(self.reached.upper)


def readings(size: Scale) -> tuple[str, str]:
    """That of the protocol, and the other one."""
    return (ANY, MEAN) if size.preset in AUTHORS else (MEAN, ANY)


def _window(rewards: xr.DataArray, size: Scale) -> int:
    """Records of the paper's 50 epochs, of 30 where there are few; no more than there are."""
    return min(round((50 if size.ppo_size == "paper" else 30) / PASSES), rewards.sizes["time"])


def read(rewards: xr.DataArray, size: Scale, reading: str) -> xr.DataArray:
    """Rewards of agents [..., agent, time] as they are held against a threshold [..., time]."""
    window = _window(rewards, size)
    if reading == MEAN:
        return rewards.mean("agent").rolling(time=window, center=True).mean()
    centred = rewards.rolling(time=window, center=True, min_periods=1).sum() / window
    return centred.max("agent")


def late(rewards: xr.DataArray, size: Scale) -> xr.DataArray:
    """Mean over the last epochs, as many as rewards are averaged over."""
    return rewards.isel(time=slice(-_window(rewards, size), None)).mean("time")


def crossings(read: xr.DataArray, level: float) -> Crossings:
    """When what was read of runs [N, seed, time] first is above a level."""
    values = read.transpose("N", "seed", "time").values
    reached = analysis.time_to_threshold(read["time"].values, values, level, above=True)
    x, trial = np.meshgrid(read["N"].values.astype(float), range(values.shape[1]), indexing="ij")
    flat = analysis.ThresholdTime(*(part.ravel() for part in reached))
    return Crossings(x.ravel(), trial.ravel(), flat)


def fit(rows: Crossings, interval: str = "student") -> analysis.Fit:
    """Regression of log2 T on log2 x with censoring.

    Raises:
      ValueError: too few runs reach the threshold.
    """
    return analysis.interval_regression(*rows.ends, interval=interval, slope=np.log2(rows.x))


def slope(rows: Crossings) -> Measured:
    """Its slope with the profile interval."""
    try:
        found = fit(rows)
    except ValueError:
        return UNREAD
    return Measured(found["slope"], *found.interval("slope"), runs=rows.count)


def value(rows: Crossings) -> float:
    """The slope alone, quickly; for runs that are drawn again."""
    return fit(rows, "wald")["slope"]


def turned(own: Measured) -> Measured:
    """A number with the other sign."""
    ends = (None, None) if own.low is None else (-own.high, -own.low)
    return Measured(-own.value, *ends, own.runs)


def ordinary(rows: Crossings) -> analysis.Fit | None:
    """The paper's fit: what was reached, the rest left out."""
    seen = ~rows.reached.censored
    if len(np.unique(rows.x[seen])) < 2 or seen.sum() < 3:
        return None
    return analysis.loglog(rows.x[seen], rows.reached.time[seen], 2.0)


def apart(first: Crossings, second: Crossings, shared: bool) -> Measured:
    """Slope of the second less that of the first, both in one regression, profile interval.

    Args:
      first: some runs.
      second: others.
      shared: whether the runs of one agent are in both, whose lines then meet there.
    """
    second = second.take(second.x > 1) if shared else second
    low, high = np.concatenate([np.array(rows.ends) for rows in (first, second)], axis=1)
    x, other = np.log2([*first.x, *second.x]), np.repeat([0.0, 1.0], [len(first.x), len(second.x)])
    columns = {"slope": x, "apart": x * other, **({} if shared else {"height": other})}
    try:
        found = analysis.interval_regression(low, high, **columns)
    except ValueError:
        return UNREAD
    return Measured(found["apart"], *found.interval("apart"), runs=min(first.count, second.count))


def resampled(statistic: Callable[..., float], *rows: Crossings) -> Measured:
    """A number of regressions with an interval from whole runs drawn again, a trial at a time."""
    trials = np.unique(rows[0].trial)

    def of(chosen: np.ndarray) -> float:
        return statistic(*(own.of_trials(chosen) for own in rows))

    try:
        if len(trials) < analysis.verdict.FEWEST:
            return Measured(of(trials), runs=len(trials))
        found = analysis.bootstrap_fit(
            trials, of, trials, interval="student", num_resamples=RESAMPLES
        )
    except ValueError:
        return UNREAD
    if found.num_failed > 0.01 * RESAMPLES:
        return Measured(found.value, runs=len(trials))
    return Measured(found.value, found.low, found.high, len(trials))


class Seen:
    """Runs that were made.

    Attributes:
      size: of them.
      rewards: kind (K, `NEVER` or `NULL`) -> of agents [N, seed, agent, time].
      reading: of the protocol.
      other: reading.
    """

    def __init__(self, size: Scale, rewards: dict) -> None:
        """Takes the size and the rewards."""
        self.size, self.rewards = size, rewards
        self.reading, self.other = readings(size)

    @functools.cached_property
    def levels(self) -> tuple[float, ...]:
        """The paper's thresholds at its size; elsewhere above what is reached without learning."""
        if self.size.ppo_size == "paper":
            return PAPER_LEVELS
        least = float(read(self.rewards[NULL], self.size, ANY).max())
        ends = [late(self.rewards[k].mean("agent"), self.size).mean("seed") for k in PERIODS]
        way = max(0.0, max(float(own.max()) for own in ends) - least)
        return tuple(least + share * way for share in SHARES)

    def slopes(self, kind, reading: str = "") -> list[Measured]:
        """Of runs of a kind against N, at the thresholds."""
        return [slope(self.of(kind, level, reading)) for level in self.levels]

    def between(self, first, second) -> Measured:
        """Slope of the second kind less that of the first, middle threshold."""
        pair = (self.of(kind, self.middle) for kind in (first, second))
        return apart(*pair, shared=True)

    @property
    def middle(self) -> float:
        """The threshold of Fig. 12; the paper's is 0.3."""
        return self.levels[2]

    def of(self, kind, level: float, reading: str = "") -> Crossings:
        """Runs of a kind against N."""
        return crossings(read(self.rewards[kind], self.size, reading or self.reading), level)

    def over_periods(self, num_agents: int, level: float, kinds=PERIODS) -> Crossings:
        """Runs of one N against K; those without learning, where K is nothing, get one in turn."""
        parts = []
        for kind, period in zip(kinds, PERIODS, strict=True):
            own = self.of(kind, level)
            own = own.take(own.x == num_agents)
            if kind == NULL:
                own = own.take(own.trial % len(PERIODS) == PERIODS.index(period))
            parts.append(own._replace(x=np.full(len(own.x), float(period))))
        columns = zip(*(own.reached for own in parts), strict=True)
        joined = analysis.ThresholdTime(*map(np.concatenate, columns))
        x, trial = (np.concatenate([getattr(own, n) for own in parts]) for n in ("x", "trial"))
        return Crossings(x, trial, joined)
