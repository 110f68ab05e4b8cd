"""Scores of several runs on several tasks as a few numbers, with stratified bootstrap intervals.

* Agarwal, Schwarzer, Castro, Courville and Bellemare, *Deep Reinforcement Learning at the Edge of
  the Statistical Precipice*, NeurIPS 2021, arXiv 2108.13264.

Axes: `R` runs (seeds), `M` tasks. Scores of different tasks are averaged as they stand: bring them
to one scale before. Nothing here knows whether more is better; "above" says what is asked.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from fedjax_rl.analysis.bands import FEWEST
from fedjax_rl.analysis.bootstrap import check_level

RUNS = "seed"  # the dimension of a labelled array along which runs lie; all others are tasks


class RunInterval(NamedTuple):
    """A number with its interval, and how many runs that rests on.

    Attributes:
        value: of all runs, float64 of any shape.
        low: lower limit alike; NaN of fewer than three runs.
        high: upper limit alike.
        runs: R, of each task; of two algorithms the fewer.
    """

    value: np.ndarray | float
    low: np.ndarray | float
    high: np.ndarray | float
    runs: int

    def __str__(self) -> str:
        """Such as "0.5 [0.4, 0.6], 5 runs"; without an interval "0.5, 2 runs"."""
        count = "1 run" if self.runs == 1 else f"{self.runs} runs"
        if np.ndim(self.value):
            return f"{np.size(self.value)} values, {count}"
        limits = f" [{self.low:.4g}, {self.high:.4g}]" if np.isfinite(self.low) else ""
        return f"{self.value:.4g}{limits}, {count}"


def interquartile_mean(
    scores: ArrayLike | xr.DataArray,
    *,
    confidence: float = 0.95,
    seed: int = 0,
    num_resamples: int = 2000,
) -> RunInterval:
    """Mean of the middle half of all scores, over runs and tasks together.

    It is moved by outliers as little as the median, and scatters less than that.

    Args:
        scores: [R] of one task, [R, M], or labelled with "seed" and any other dimensions as tasks.
        confidence: level of the interval.
        seed: of the resampling.
        num_resamples: number of resamples.

    Returns:
        The mean with its interval, and R.

    Raises:
        ValueError: no scores, scores that are not finite, or a level that is none.

    Examples:
        >>> from fedjax_rl import analysis
        >>> float(analysis.interquartile_mean([1.0, 2.0, 3.0, 100.0]).value)
        2.5
        >>> str(analysis.interquartile_mean([1.0, 2.0]))
        '1.5, 2 runs'
    """
    options = {"confidence": confidence, "seed": seed, "num_resamples": num_resamples}
    return stratified_bootstrap(_interquartile_mean, scores, **options)


def _interquartile_mean(scores: np.ndarray) -> float:
    # As `scipy.stats.trim_mean`, a tenth of whose time is this.
    cut = scores.size // 4
    return float(np.sort(scores, axis=None)[cut : scores.size - cut].mean())


def probability_of_improvement(
    scores: ArrayLike | xr.DataArray,
    others: ArrayLike | xr.DataArray,
    *,
    confidence: float = 0.95,
    seed: int = 0,
    num_resamples: int = 2000,
) -> RunInterval:
    """How probably a run lies above one of another algorithm on the same task, over all tasks.

    Of all pairs of runs of a task the share in which the first is above, ties counting half: the
    Mann-Whitney statistic over R R'. Where less is better, it is the probability of being worse.

    Args:
        scores: [R], [R, M] or labelled, as of `interquartile_mean`.
        others: [R'], [R', M] or labelled, of the same tasks.
        confidence: level of the interval; runs of both are resampled independently.
        seed: of the resampling.
        num_resamples: number of resamples.

    Returns:
        The mean over tasks with its interval, and the fewer runs of both.

    Raises:
        ValueError: as `interquartile_mean`, or other tasks.

    Examples:
        >>> from fedjax_rl import analysis
        >>> float(analysis.probability_of_improvement([2.0, 4.0], [1.0, 3.0]).value)
        0.75
    """
    options = {"confidence": confidence, "seed": seed, "num_resamples": num_resamples}
    return stratified_bootstrap(_improvement, scores, others, **options)


def _improvement(scores: np.ndarray, others: np.ndarray) -> float:
    above = scores[:, None] > others[None]
    equal = scores[:, None] == others[None]
    return float(np.mean(above + 0.5 * equal))


def performance_profile(
    scores: ArrayLike | xr.DataArray,
    thresholds: ArrayLike,
    *,
    confidence: float = 0.95,
    seed: int = 0,
    num_resamples: int = 2000,
) -> RunInterval:
    """The share of runs, over all tasks, whose score lies above each threshold.

    Args:
        scores: [R], [R, M] or labelled, as of `interquartile_mean`.
        thresholds: [J] in the unit of the scores.
        confidence: level of the interval of each share by itself.
        seed: of the resampling.
        num_resamples: number of resamples.

    Returns:
        Shares [J] with their intervals [J], and R.

    Raises:
        ValueError: as `interquartile_mean`, or thresholds that are not one axis of numbers.

    Examples:
        >>> from fedjax_rl import analysis
        >>> analysis.performance_profile([1.0, 2.0, 3.0], [0.0, 1.5, 5.0]).value.round(2).tolist()
        [1.0, 0.67, 0.0]
    """
    levels = np.asarray(thresholds, np.float64)
    if levels.ndim != 1 or levels.size == 0 or np.isnan(levels).any():
        raise ValueError(f"thresholds has the shape {levels.shape}; allowed: numbers on one axis")

    def shares(values: np.ndarray) -> np.ndarray:
        # How many of the sorted scores are at or below each threshold.
        ordered = np.sort(values, axis=None)
        return 1 - np.searchsorted(ordered, levels, side="right") / ordered.size

    options = {"confidence": confidence, "seed": seed, "num_resamples": num_resamples}
    return stratified_bootstrap(shares, scores, **options)


def stratified_bootstrap(
    statistic: Callable[..., np.ndarray | float],
    *scores: ArrayLike | xr.DataArray,
    confidence: float = 0.95,
    seed: int = 0,
    num_resamples: int = 2000,
) -> RunInterval:
    """A statistic of scores with a percentile interval: runs are resampled within each task.

    So that every task keeps its weight, whatever is drawn; tasks are not resampled, as they are
    what is asked about. Like every percentile bootstrap it is too short for few runs: see
    `bootstrap_interval`.

    Args:
        statistic: takes as many arrays [R, M] as there are scores; a number or an array.
        *scores: [R] of one task, [R, M], or labelled with "seed"; of the same tasks.
        confidence: level.
        seed: of the resampling.
        num_resamples: number of resamples.

    Returns:
        The statistic of all runs with its limits, NaN where there are fewer than three runs.

    Raises:
        ValueError: no scores, scores that are not finite, other tasks, or a level that is none.

    Examples:
        >>> import numpy as np
        >>> from fedjax_rl import analysis
        >>> found = analysis.stratified_bootstrap(np.median, [[1.0, 9.0], [2.0, 8.0], [3.0, 7.0]])
        >>> float(found.value), found.runs
        (5.0, 3)
    """
    check_level("confidence", confidence)
    arrays = [_scores(own) for own in scores]
    if len({array.shape[1] for array in arrays}) != 1:
        counts = " and ".join(str(array.shape[1]) for array in arrays)
        raise ValueError(f"scores have {counts} tasks; allowed: of all the same tasks")
    value = np.asarray(statistic(*arrays), np.float64)
    runs = min(len(array) for array in arrays)
    if runs < FEWEST:
        nothing = np.full_like(value, np.nan)[()]
        return RunInterval(value[()], nothing, nothing, runs)
    generator = np.random.default_rng(seed)
    tasks = np.arange(arrays[0].shape[1])

    def resampled() -> list[np.ndarray]:
        return [array[generator.integers(0, len(array), array.shape), tasks] for array in arrays]

    found = np.asarray([statistic(*resampled()) for _ in range(num_resamples)], np.float64)
    low, high = np.quantile(found, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return RunInterval(value[()], low[()], high[()], runs)


def _scores(values: ArrayLike | xr.DataArray) -> np.ndarray:
    """Scores as float64 [R, M].

    Raises:
        ValueError: naming what is wrong and what is allowed.
    """
    if isinstance(values, xr.DataArray):
        if RUNS not in values.dims or {"time", "agent"} & {*values.dims}:
            names = ", ".join(map(str, values.dims)) or "none"
            raise ValueError(
                f"scores have the dimensions {names}; allowed: {RUNS} and those of tasks, such as "
                "`result['return'].isel(time=-1)`"
            )
        values = values.transpose(RUNS, ...).values
        values = values.reshape(len(values), -1)
    array = np.asarray(values, np.float64)
    array = array[:, None] if array.ndim == 1 else array
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"scores have the shape {array.shape}; allowed: [runs] or [runs, tasks]")
    if not np.isfinite(array).all():
        count = int((~np.isfinite(array)).sum())
        raise ValueError(
            f"scores have {count} of {array.size} that are not finite; allowed: finite ones, such "
            "as the worst score in the place of a run that diverged"
        )
    return array
