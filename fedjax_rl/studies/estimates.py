"""Measured numbers with intervals: from arrays of trials, and from expressions over runs.

Functions of arrays return a `Measured`; an `Estimate` is the same to be computed later, from runs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import xarray as xr
from scipy import stats

from fedjax_rl import analysis
from fedjax_rl.analysis import Measured
from fedjax_rl.studies.numbers import Number
from fedjax_rl.studies.runs import Results, Stage

RESAMPLES = 1000
MOST_FAILED = 0.01  # of the resamples, for an interval of the others


# Of arrays ----------------------------------------------------------------------------------------


def exactly(value) -> Measured:
    """A number that nothing random is in."""
    return Measured(float(value))


def mean_of(values) -> Measured:
    """Mean over trials [L] with its 95 % Student t interval."""
    values = np.asarray(values, np.float64)
    if len(values) < analysis.verdict.FEWEST:
        return Measured(float(values.mean()), runs=len(values))
    value, low, high = analysis.mean_interval(values)
    return Measured(float(value), float(low), float(high), len(values))


def share_of(values) -> Measured:
    """Share of the trials [L] that are true, with the 95 % interval of Clopper and Pearson.

    Student's would be of no width where all trials are the same.
    """
    values = np.asarray(values, bool)
    if len(values) < analysis.verdict.FEWEST:
        return Measured(float(values.mean()), runs=len(values))
    found = stats.binomtest(int(values.sum()), len(values)).proportion_ci(0.95, "exact")
    return Measured(float(values.mean()), float(found.low), float(found.high), len(values))


def seeds_apart(statistic: Callable[..., float], *trials, centre: Callable = np.mean) -> Measured:
    """A number computed from means over trials, with a 95 % interval over seeds.

    The interval is the number +- Student's t times its standard deviation over resampled seeds,
    which for a mean is its Student t interval. Where resamples are infinite it is of percentiles,
    which may be infinite too. Where more than one in a hundred resamples cannot be computed, such
    as the ratio of two infinite times, there is none: the others are no fair sample.

    Args:
      statistic: takes the mean over trials of every array.
      *trials: arrays whose first axis is the trials; equal seeds stay together.
      centre: of trials, `np.mean` or `np.median`; the latter takes infinities, of trials that
        never reach a threshold, as what they are.
    """
    count = min(len(one) for one in trials)
    seeds = np.arange(count)
    own = [np.asarray(one[:count], np.float64) for one in trials]

    def of_centres(*own) -> float:
        with np.errstate(invalid="ignore"):  # infinities that meet are not a number
            return statistic(*(centre(one, axis=0) for one in own))

    value = float(of_centres(*own))
    if count < analysis.verdict.FEWEST:
        return Measured(value, runs=count)
    try:
        found = analysis.bootstrap_fit(
            seeds, of_centres, *own, interval="student", num_resamples=RESAMPLES
        )
    except ValueError:  # most resamples could not be computed
        return Measured(value, runs=count)
    if found.num_failed > MOST_FAILED * RESAMPLES:
        return Measured(value, runs=count)
    return Measured(value, found.low, found.high, count)


def power(x, y) -> float:
    """Exponent of a power law through some points, by least squares between logarithms.

    In closed form, since a thousand resamples ask for it.

    Raises:
      ValueError: a number that is not positive.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if not (np.all(x > 0) and np.all(y > 0)):
        raise ValueError("a power law needs positive numbers")
    logs = np.log(x) - np.log(x).mean()
    return float(logs @ np.log(y) / (logs @ logs))


def median_time(times, ends) -> Measured:
    """Median of times [L], infinite where later than the ends, with its 95 % interval.

    Kaplan and Meier's estimate: a run that never comes there is later than it lasted, and no time.
    """
    never = ~np.isfinite(times)
    found = analysis.kaplan_meier_median(
        analysis.ThresholdTime(np.where(never, np.nan, times), never, np.asarray(ends, float))
    )
    value = np.inf if np.isnan(found.median) else found.median
    low = np.max(ends) if np.isnan(found.low) and never.all() else found.low
    return Measured(value, low, found.high, len(times))


# Of runs ------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, eq=False)
class Estimate:
    """One measured number or several, computed from runs when it is asked for.

    Attributes:
      of: `Results -> Measured`, or a list of these.
      needs: the stages that it reads.
    """

    of: Callable[[Results], Measured | list[Measured]]
    needs: tuple[Stage, ...] = ()

    def __call__(self, results: Results) -> list[Measured]:
        """The numbers."""
        found = self.of(results)
        return [found] if isinstance(found, Measured) else list(found)


def measured(function: Callable, *needs: Stage) -> Estimate:
    """Numbers that a function of runs computes.

    Args:
      function: of the datasets of the stages, in their order; returns a `Measured` or several.
      *needs: the stages.
    """
    return Estimate(lambda results: function(*(results[stage] for stage in needs)), needs)


def exact(number: Number | float) -> Estimate:
    """Numbers that nothing random is in: of deterministic runs, whatever their seed; or given."""
    if not isinstance(number, Number):
        return Estimate(lambda results: exactly(number))
    return Estimate(
        lambda results: [exactly(own[0]) for own in _rows(number(results))], number.needs
    )


def mean(number: Number) -> Estimate:
    """Means over seeds with 95 % Student t intervals; further dimensions in their order."""
    return Estimate(lambda results: [mean_of(own) for own in _rows(number(results))], number.needs)


def share_of_trials(number: Number) -> Estimate:
    """Shares of seeds at which something is true, as `share_of`; further dimensions in order."""
    return Estimate(lambda results: [share_of(own) for own in _rows(number(results))], number.needs)


def of_means(statistic: Callable[..., float], *numbers: Number, centre=np.mean) -> Estimate:
    """A function of means over seeds, as `seeds_apart`.

    Args:
      statistic: of the mean of every number, arrays of its dimensions but `seed`.
      *numbers: whose equal seeds belong together.
      centre: as of `seeds_apart`.
    """

    def of(results):
        arrays = [number(results).transpose("seed", ...).values for number in numbers]
        return seeds_apart(statistic, *arrays, centre=centre)

    return Estimate(of, _joined(numbers))


def ratio(a: Number, b: Number, centre=np.mean) -> Estimate:
    """The mean of one number in parts of that of another."""
    return of_means(lambda x, y: float(x / y), a, b, centre=centre)


def exponent(number: Number, dim: str) -> Estimate:
    """Exponents of the power laws of means along a dimension; further dimensions in their order."""

    def of(results):
        array = number(results)
        x = array[dim].values.astype(np.float64)
        rest = [name for name in array.dims if name not in (dim, "seed")]
        tables = array.transpose(*rest, "seed", dim).values.reshape(-1, array.sizes["seed"], x.size)
        return [seeds_apart(lambda means: power(x, means), table) for table in tables]

    return Estimate(of, number.needs)


def medians(times: Number, ends: Number, dim: str) -> Estimate:
    """Medians along a dimension, as `median_time`."""

    def of(results):
        both = (number(results).transpose(dim, "seed").values for number in (times, ends))
        return [median_time(*own) for own in zip(*both, strict=True)]

    return Estimate(of, _joined((times, ends)))


def time_exponent(times: Number, ends: Number, dim: str) -> Estimate:
    """Exponent of times in a dimension, seeds resampled whole; infinite ones are later than ends.

    A regression of logarithms by maximum likelihood; that of least squares where all are finite.
    """

    def statistic(x, own, limits):
        never = ~np.isfinite(own)
        logs = np.log(np.where(never, limits, own))
        if not never.any():
            return power(x, np.exp(logs.mean(axis=0)))
        columns = {"slope": np.log(np.broadcast_to(x, own.shape)).ravel()}
        fit = analysis.tobit(logs.ravel(), never.ravel(), interval="wald", **columns)
        return fit["slope"]

    def of(results):
        x = times(results)[dim].values.astype(np.float64)
        both = [number(results).transpose("seed", dim).values for number in (times, ends)]
        try:
            return seeds_apart(
                lambda *own: statistic(x, *own), *both, centre=lambda own, axis: np.asarray(own)
            )
        except ValueError:  # too few have come there
            return Measured(np.nan, runs=len(both[0]))

    return Estimate(of, _joined((times, ends)))


def together(*estimates: Estimate | Number) -> Estimate:
    """Several estimates as one; of a `Number` its means."""
    parts = [mean(one) if isinstance(one, Number) else one for one in estimates]

    def of(results):
        return [number for part in parts for number in part(results)]

    return Estimate(of, _joined(parts))


def shares(estimate: Estimate | Number) -> Estimate:
    """Shares of a whole, such as how often somebody sends: intervals end at 0 and at 1.

    Student's knows no ends. What lies beyond them nobody can find, so that as many intervals hold
    the number as before.

    Args:
      estimate: of shares; of a `Number` its means.

    Raises:
      ValueError: a number that is no share.
    """
    whole = together(estimate)

    def cut(found: Measured) -> Measured:
        if found.value < 0 or found.value > 1:
            raise ValueError(f"a share is {found.value}; allowed: in [0, 1]")
        if found.low is None:
            return found
        return found._replace(low=max(found.low, 0.0), high=min(found.high, 1.0))

    return Estimate(lambda results: list(map(cut, whole(results))), whole.needs)


def _joined(parts) -> tuple[Stage, ...]:
    return tuple(dict.fromkeys(stage for part in parts for stage in part.needs))


def _rows(array: xr.DataArray) -> np.ndarray:
    """The trials of every number, [n, seed]."""
    rest = [name for name in array.dims if name != "seed"]
    return array.transpose(*rest, "seed").values.reshape(-1, array.sizes["seed"])
