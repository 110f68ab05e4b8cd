"""Bootstrap intervals over seeds, the unit that is independent."""

import functools
import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

MAX_ELEMENTS = 10_000_000  # numbers resampled at a time; bounds the memory at about 80 MB


class Interval(NamedTuple):
    """A value with confidence limits.

    Attributes:
        value: the statistic of the data.
        low: lower limit; NaN where a single seed leaves nothing to resample.
        high: upper limit, alike.
    """

    value: np.ndarray | float
    low: np.ndarray | float
    high: np.ndarray | float

    def __str__(self) -> str:
        """Of one number, as tables have it: 0.21 [0.19, 0.23]."""
        if np.ndim(self.value):
            return repr(self)
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"


class FitInterval(NamedTuple):
    """A fitted number with confidence limits from resampled seeds.

    Attributes:
        value: the fit to all rows.
        low: lower limit; NaN with a single seed.
        high: upper limit, alike.
        num_failed: resamples left out because they could not be fitted (ValueError), e.g. because
            all their runs were censored.
    """

    value: float
    low: float
    high: float
    num_failed: int


def check_level(name: str, level: float) -> None:
    """Refuses a level of confidence that is none, such as one in percent.

    Args:
        name: of the level, for the message.
        level: of confidence.

    Raises:
        ValueError: outside (0, 1).
    """
    if not 0 < level < 1:
        raise ValueError(f"{name} is {level}; allowed: above 0 and below 1, such as 0.95")


def bootstrap_interval(
    values: ArrayLike,
    statistic: Callable[..., np.ndarray] = np.mean,
    axis: int = -1,
    confidence: float = 0.95,
    seed: int = 0,
    num_resamples: int = 2000,
) -> Interval:
    """Percentile bootstrap over the seeds axis (scipy).

    Percentiles rather than the bias-corrected kind, which is undefined for constant data; here
    such data give an interval of zero width. It is too short for few seeds: of normal data, one of
    95 % for the mean covers 50 % with two, 75 % with three, 86 % with six and 93 % with twenty.
    `mean_interval` covers what it says with any number.

    Args:
        values: data with the seeds along `axis`.
        statistic: takes an array and the keyword `axis`, e.g. `np.mean`, `np.median`; one that
            does not take `axis` is applied to one-dimensional samples.
        axis: the axis of seeds.
        confidence: level.
        seed: of the resampling; the same seeds are drawn for all entries of the other axes.
        num_resamples: number of resamples.

    Returns:
        The statistic and its limits, each of the shape of `values` without `axis`.

    Examples:
        >>> from fedjax_rl import analysis
        >>> found = analysis.bootstrap_interval([1.0, 2.0, 3.0, 4.0])
        >>> bool(found.low < found.value < found.high)
        True
    """
    check_level("confidence", confidence)
    values = np.moveaxis(np.asarray(values, dtype=np.float64), axis, -1)
    if values.ndim == 0 or values.shape[-1] == 0:
        raise ValueError(f"no seeds on axis {axis}")
    try:
        value = np.asarray(statistic(values, axis=-1), dtype=np.float64)
    except TypeError:
        value = np.apply_along_axis(statistic, -1, values)
    if values.shape[-1] == 1:
        # The statistic of one seed is defined, its spread over seeds is not.
        nothing = np.full_like(value, np.nan)[()]
        return Interval(value[()], nothing, nothing)
    with warnings.catch_warnings(), np.errstate(invalid="ignore"):
        # Values that are not finite have limits that are not; scipy says so in other words.
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        distribution = stats.bootstrap(
            (values,),
            statistic,
            axis=-1,
            n_resamples=num_resamples,
            batch=max(1, MAX_ELEMENTS // values.size),
            method="percentile",
            rng=np.random.default_rng(seed),
        ).bootstrap_distribution
    return Interval(value[()], *_limits(distribution, confidence))


def bootstrap_fit(
    seeds: ArrayLike,
    fit_function: Callable[..., float],
    *columns: ArrayLike,
    confidence: float = 0.95,
    seed: int = 0,
    num_resamples: int = 1000,
    interval: str = "percentile",
) -> FitInterval:
    """Cluster bootstrap of a fitted number: whole seeds are resampled, with all their rows.

    Runs that share a seed share their random numbers whatever N or K is, so the rows of one seed
    stand or fall together.

    Args:
        seeds: [rows] label of the seed of each row.
        fit_function: takes the resampled columns, returns a number, e.g.
            `lambda n, t: loglog(n, t)["slope"]`. A ValueError marks a resample as failed.
        *columns: [rows] arrays handed to `fit_function`.
        confidence: level.
        seed: of the resampling.
        num_resamples: number of resamples.
        interval: "percentile" takes percentiles of the resamples, which are too short for few
            seeds. "student" is the value +- t standard deviations of the resamples, with L - 1
            degrees of freedom and sqrt(L / (L - 1)), L being the number of seeds: of a mean that
            is its Student t interval.

    Returns:
        The fit of all rows, its limits over the resamples that could be fitted, infinite where
        those are, and how many could not, or came out as NaN. `interval="student"` with infinite
        resamples gives percentiles.

    Raises:
        ValueError: if columns and seeds differ in length, or most resamples cannot be fitted.
    """
    check_level("confidence", confidence)
    if interval not in ("percentile", "student"):
        raise ValueError(f"interval must be 'percentile' or 'student', not {interval!r}")
    labels, group = np.unique(np.asarray(seeds), return_inverse=True)
    arrays = [np.asarray(column) for column in columns]
    for i, array in enumerate(arrays):
        if array.shape[:1] != group.shape:
            raise ValueError(f"column {i} has shape {array.shape}, there are {len(group)} rows")
    value = float(fit_function(*arrays))
    if len(labels) == 1:
        return FitInterval(value, np.nan, np.nan, 0)
    rows_of = [np.flatnonzero(group == g) for g in range(len(labels))]

    # Of few seeds the same resamples come again and again: of three there are 27.
    @functools.cache
    def refitted(*chosen):
        rows = np.concatenate([rows_of[g] for g in chosen])
        try:
            return float(fit_function(*(array[rows] for array in arrays)))
        except ValueError:
            return np.nan

    def refit(chosen):
        return refitted(*chosen.tolist())

    with warnings.catch_warnings(), np.errstate(invalid="ignore"):
        # scipy's own limits are NaN when one resample failed; ours come from those that did not.
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        distribution = stats.bootstrap(
            (np.arange(len(labels)),),
            refit,
            vectorized=False,
            n_resamples=num_resamples,
            method="percentile",
            rng=np.random.default_rng(seed),
        ).bootstrap_distribution
    num_failed = int(np.isnan(distribution).sum())
    if num_failed > num_resamples // 2:
        raise ValueError(f"{num_failed} of {num_resamples} resamples could not be fitted")
    distribution = distribution[~np.isnan(distribution)]
    if interval == "student" and np.isfinite(distribution).all() and np.isfinite(value):
        count = len(labels)
        reach = stats.t.ppf((1 + confidence) / 2, count - 1) * np.sqrt(count / (count - 1))
        reach *= distribution.std()
        return FitInterval(value, value - reach, value + reach, num_failed)
    low, high = _limits(distribution, confidence)
    return FitInterval(value, float(low), float(high), num_failed)


def _limits(distribution: np.ndarray, confidence: float) -> np.ndarray:
    """Percentiles [2, ...] of resamples [..., B], of equal weight to either side.

    Between two infinities there is nothing to interpolate; the resample itself is taken there.
    """
    levels = [(1 - confidence) / 2, (1 + confidence) / 2]
    with np.errstate(invalid="ignore"):
        limits = np.quantile(distribution, levels, axis=-1)
    steps = np.quantile(distribution, levels, axis=-1, method="inverted_cdf")
    return np.where(np.isnan(limits), steps, limits)
