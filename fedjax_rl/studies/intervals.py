"""Measured numbers with their intervals, `(value, low, high)`, as `judge` takes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from fedjax_rl import analysis

RESAMPLES = 1000
MOST_FAILED = 0.01  # of the resamples, for an interval of the others


def several(*intervals) -> tuple:
    """Several measurements as the columns (values, lows, highs)."""
    return tuple(list(column) for column in zip(*intervals, strict=True))


def bare(value) -> tuple:
    """A number without an interval."""
    return float(value), None, None


def mean(values) -> tuple:
    """Mean over trials with its 95 % interval."""
    values = np.asarray(values, np.float64)
    if len(values) < 2:
        return bare(values.mean())
    return tuple(float(x) for x in analysis.mean_interval(values))


def difference(a, b) -> tuple:
    """Mean difference of two sets of trials with the 95 % interval; trials of equal seed pair."""
    common = min(len(a), len(b))
    return mean(np.asarray(a[:common]) - np.asarray(b[:common]))


def at_least(a, b) -> tuple:
    """Lower end of the 95 % interval of a mean difference: what is claimed for sure."""
    _, low, _ = difference(a, b)
    return low, None, None


def seeds_apart(statistic: Callable[..., float], *trials, centre: Callable = np.mean) -> tuple:
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
    try:
        found = analysis.bootstrap_fit(
            seeds, of_centres, *own, interval="student", num_resamples=RESAMPLES
        )
    except ValueError:  # most resamples could not be computed
        return bare(value)
    if count < 2 or found.num_failed > MOST_FAILED * RESAMPLES:
        return bare(value)
    return value, found.low, found.high


def slope(points: Mapping[float, np.ndarray]) -> tuple:
    """Exponent of a power law through means over trials, with a 95 % interval as `seeds_apart`.

    Args:
      points: x -> positive numbers of its trials [L]; trials of equal seed stay together.
    """
    x = np.asarray(list(points), np.float64)
    count = min(len(one) for one in points.values())
    table = np.stack([np.asarray(one[:count], np.float64) for one in points.values()], axis=1)
    return seeds_apart(lambda means: exponent(x, means), table)


def exponent(x, y) -> float:
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
