"""Time to reach an error, with runs that never do kept as censored.

A run cut off before it reached the threshold says "longer than this", not nothing: runs that stop
early are not a random sample, and dropping them manufactures speedup (specification 7.6).
"""

from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from fedjax_rl.analysis.bootstrap import check_level

if TYPE_CHECKING:
    from statsmodels.duration.survfunc import SurvfuncRight


class ThresholdTime(NamedTuple):
    """Time to a threshold, one entry per run.

    Attributes:
        time: float64 [...], in the unit of the times given; NaN where never reached.
        censored: bool [...], True where never reached.
        last: float64 [...], time of the last record: the censoring time of a run that never
            reached the threshold.
        before: float64 [...], time of the record before the crossing, 0 where the first record
            shows it: the crossing lies between. None where the times are exact.
    """

    time: np.ndarray
    censored: np.ndarray
    last: np.ndarray
    before: np.ndarray | None = None

    @property
    def time_or_limit(self) -> np.ndarray:
        """float64 [...], the time where reached and the censoring time elsewhere."""
        return np.where(self.censored, self.last, self.time)

    @property
    def lower(self) -> np.ndarray:
        """float64 [...], the run had not crossed then: the record before, or the last one."""
        before = self.time if self.before is None else self.before
        return np.where(self.censored, self.last, before)

    @property
    def upper(self) -> np.ndarray:
        """float64 [...], the run had crossed by then; infinite where it never did."""
        return np.where(self.censored, np.inf, self.time)

    def take(self, chosen: np.ndarray) -> "ThresholdTime":
        """The runs where `chosen` holds."""
        return ThresholdTime(*(None if part is None else part[chosen] for part in self))


class MedianTime(NamedTuple):
    """Kaplan-Meier median of the time to a threshold.

    Attributes:
        median: the median, NaN when half of the runs or more never got there.
        low: lower limit of the interval, NaN when there is nothing to say.
        high: upper limit, infinite when censoring leaves it open.
        num_reached: runs that reached the threshold.
        num_runs: all runs.
    """

    median: float
    low: float
    high: float
    num_reached: int
    num_runs: int


class ReachedCurve(NamedTuple):
    """Fraction of runs that have reached the threshold, right-continuous steps.

    Attributes:
        time: [events] times at which the fraction jumps.
        fraction: [events] 1 - S, the Kaplan-Meier estimate just after each jump.
        standard_error: [events] Greenwood's; NaN where every run has got there.
    """

    time: np.ndarray
    fraction: np.ndarray
    standard_error: np.ndarray


def time_to_threshold(
    times: ArrayLike,
    values: ArrayLike,
    threshold: float,
    above: bool = False,
    end: ArrayLike | None = None,
) -> ThresholdTime:
    """First time at which a recorded value is strictly below (or above) a threshold.

    The time is that of the record, i.e. the end of the measuring interval, as in the paper: there
    `values` is the squared distance, the threshold 0.1 and the times multiples of 1010 steps. The
    crossing itself lies between `lower` and `upper`, which a regression has to honour.

    Args:
        times: [M] times of the records, increasing, or an array broadcastable to `values`.
        values: [..., M] recorded values; NaN is never a crossing, and says nothing on whether the
            run had crossed.
        threshold: compared strictly.
        above: look for the first value above instead (a reward rather than an error).
        end: int [...], records that count in each run, as `AuthorStop.num_records`; all by default.

    Returns:
        Times, censoring flags, censoring times and times before, each [...].

    Raises:
        ValueError: without records, for times that do not increase, or an `end` without records.

    Examples:
        >>> from fedjax_rl import analysis
        >>> errors = [[3.0, 0.5, 0.1], [3.0, 2.0, 1.0]]
        >>> reached = analysis.time_to_threshold([10, 20, 30], errors, 1.0)
        >>> reached.time.tolist(), reached.censored.tolist()
        ([20.0, nan], [False, True])
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim < 1 or values.shape[-1] == 0:
        raise ValueError(f"values must have at least one record on its last axis: {values.shape}")
    times = np.broadcast_to(np.asarray(times, dtype=np.float64), values.shape)
    num_records = values.shape[-1]
    end = np.broadcast_to(num_records if end is None else np.asarray(end), values.shape[:-1])
    if np.any(end < 1) or np.any(end > num_records):
        raise ValueError(f"end must lie in 1..{num_records}, got {end.min()}..{end.max()}")
    kept = np.arange(num_records) < end[..., None]
    if np.any((np.diff(times, axis=-1) <= 0) & kept[..., 1:]):
        raise ValueError("times must increase from record to record; sort them with their values")

    crossed = (values > threshold if above else values < threshold) & kept
    reached = crossed.any(axis=-1)
    first = crossed.argmax(axis=-1)[..., None]
    time = np.take_along_axis(times, first, axis=-1)[..., 0]
    last = np.take_along_axis(times, end[..., None] - 1, axis=-1)[..., 0]
    # The last record that says "not yet".
    not_yet = (np.arange(num_records) < first) & ~np.isnan(values)
    before = np.max(np.where(not_yet, times, 0.0), axis=-1, initial=0.0)
    return ThresholdTime(
        np.where(reached, time, np.nan), ~reached, last, np.where(reached, before, np.nan)
    )


def kaplan_meier_median(reached: ThresholdTime, confidence: float = 0.95) -> MedianTime:
    """Median time to threshold that honours censored runs.

    Kaplan-Meier estimate (statsmodels) with the interval of inverted z-tests on the
    log(-log S) scale. The median is the first time at which fewer than half of the runs are left,
    in exact arithmetic: with an even number of runs S is often one half itself, which a rounded
    product may miss to either side. The interval of 95 % covers 94 to 97 % from five runs on, with
    three 78 %, and takes the times as exact.

    Args:
        reached: times of any shape; all entries are runs of one group.
        confidence: of the interval.

    Returns:
        Median and interval in the unit of the times.

    Raises:
        ValueError: without runs, or for a confidence outside (0, 1).

    Examples:
        >>> import numpy as np
        >>> from fedjax_rl import analysis
        >>> reached = analysis.time_to_threshold([1, 2, 3], np.eye(3)[[0, 1, 2]], 0.5, above=True)
        >>> float(analysis.kaplan_meier_median(reached).median)
        2.0
    """
    check_level("confidence", confidence)
    curve = _survival(reached)
    num_runs, num_reached = reached.censored.size, int((~reached.censored).sum())
    if num_reached == 0:
        return MedianTime(np.nan, np.nan, np.inf, 0, num_runs)
    median = _exact_median(curve)
    with np.errstate(divide="ignore", invalid="ignore"):  # S = 0 after the last run got there
        low, high = curve.quantile_ci(0.5, alpha=1.0 - confidence)
    # No event time is left in doubt. Either S never comes near one half, and the median lies
    # beyond the records; or S steps over it at once, common with times on a coarse grid, and the
    # interval is the median itself. One run says nothing.
    if np.isnan(low) and np.isnan(median):
        high = np.inf
    elif np.isnan(low) and num_runs > 1:
        low = high = median
    return MedianTime(median, float(low), float(high), num_reached, num_runs)


def kaplan_meier_curve(reached: ThresholdTime) -> ReachedCurve:
    """Fraction of runs that have reached the threshold against time, honouring censored runs.

    Args:
        reached: times of any shape; all entries are runs of one group.

    Returns:
        One entry per distinct time at which a run got there; empty when none did.
    """
    curve = _survival(reached)
    return ReachedCurve(curve.surv_times, 1.0 - curve.surv_prob, curve.surv_prob_se)


def _exact_median(curve: "SurvfuncRight") -> float:
    """The first time at which the product of (n_i - d_i) / n_i is below one half; NaN if never."""
    left = Fraction(1)
    for time, at_risk, events in zip(curve.surv_times, curve.n_risk, curve.n_events, strict=True):
        left *= Fraction(int(at_risk - events), int(at_risk))
        if left < Fraction(1, 2):
            return float(time)
    return np.nan


def _survival(reached: ThresholdTime) -> "SurvfuncRight":
    if reached.censored.size == 0:
        raise ValueError("no runs were given")
    status = (~np.asarray(reached.censored)).astype(int).ravel()
    from statsmodels.duration.survfunc import SurvfuncRight  # takes long to import

    return SurvfuncRight(np.ravel(reached.time_or_limit), status)
