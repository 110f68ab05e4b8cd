"""Learning curves over independent trials: bands, intervals of the mean, and when things happen.

Axes: `L` trials (independent seeds), `E` training episodes, counted from 0. The metrics are those
of Gunn, "Communication Efficient Distributed Reinforcement Learning", University of Oxford (2023):
the mean over trials with the 10th and 90th percentile across trials.
"""

from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike
from scipy import stats

from fedjax_rl.analysis.bootstrap import Interval, check_level

# Runs from which on an interval says something: with two it is 13 standard errors long.
FEWEST = 3


class Bands(NamedTuple):
    """A mean over trials and how far the trials lie apart.

    Attributes:
        mean: float64, the mean over trials.
        low: float64 alike, the lower percentile.
        high: float64 alike, the upper percentile.
    """

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def percentile_bands(
    values: ArrayLike, axis: int = 0, low: float = 10.0, high: float = 90.0
) -> Bands:
    """Mean and percentiles across trials, with linear interpolation between order statistics.

    Agents are averaged before: their spread inside a trial is no part of the band.

    Args:
        values: any unit, trials along `axis`; a NaN makes its column NaN.
        axis: of trials.
        low: lower percentile in [0, 100].
        high: upper percentile in [0, 100].

    Returns:
        Mean, lower and upper percentile, each float64 of the shape of `values` without `axis`.

    Raises:
        ValueError: without trials, or for percentiles that are not 0 <= low <= high <= 100.

    Examples:
        >>> from fedjax_rl import analysis
        >>> low, high = analysis.percentile_bands([[1.0], [2.0], [9.0]])[1:]
        >>> float(low[0]), float(high[0])
        (1.2, 7.6000000000000005)
    """
    values = _trials_last(values, axis)
    if not 0 <= low <= high <= 100:
        raise ValueError(f"percentiles must be 0 <= low <= high <= 100, not {low} and {high}")
    below, above = np.percentile(values, [low, high], axis=-1, method="linear")
    return Bands(values.mean(axis=-1), below, above)


def mean_interval(values: ArrayLike, axis: int = 0, level: float = 0.95) -> Interval:
    """Mean over trials with Student's t interval, L - 1 degrees of freedom.

    `bootstrap_interval` makes no assumption on the distribution and takes longer.

    Args:
        values: any unit, trials along `axis`; a NaN makes its column NaN.
        axis: of trials.
        level: of confidence, in (0, 1).

    Returns:
        Mean and limits, each float64 of the shape of `values` without `axis`; the limits of a
        single trial are NaN.

    Raises:
        ValueError: without trials, or for a level outside (0, 1).

    Examples:
        >>> from fedjax_rl import analysis
        >>> [round(float(x), 2) for x in analysis.mean_interval([1.0, 2.0, 3.0])]
        [2.0, -0.48, 4.48]
    """
    values = _trials_last(values, axis)
    check_level("level", level)
    count, mean = values.shape[-1], values.mean(axis=-1)
    if count == 1:
        return Interval(mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan))
    error = values.std(axis=-1, ddof=1) / np.sqrt(count)
    half = stats.t.ppf((1 + level) / 2, count - 1) * error
    return Interval(mean, mean - half, mean + half)


def first_episode(condition: ArrayLike, *, lasting: bool = False) -> np.ndarray:
    """The first episode at which something holds.

    Args:
        condition: bool [..., E].
        lasting: the first episode from which it holds to the end instead.

    Returns:
        float64 [...], the index of the episode, counted from 0; NaN where there is none.

    Raises:
        ValueError: without episodes.

    Examples:
        >>> from fedjax_rl import analysis
        >>> analysis.first_episode([[False, True], [False, False]]).tolist()
        [1.0, nan]
    """
    condition = np.asarray(condition, dtype=bool)
    if condition.ndim < 1 or condition.shape[-1] == 0:
        raise ValueError(f"condition must be [..., episodes], not {condition.shape}")
    if lasting:
        condition = np.logical_and.accumulate(condition[..., ::-1], axis=-1)[..., ::-1]
    return np.where(condition.any(axis=-1), condition.argmax(axis=-1), np.nan)


def first_below(curve: ArrayLike, level: float, *, lasting: bool = False) -> np.ndarray:
    """The first episode at which a curve is strictly below a level.

    Args:
        curve: [..., E], e.g. the mean frequency of messages; NaN is not below.
        level: in the unit of the curve.
        lasting: the first episode from which it stays below instead.

    Returns:
        float64 [...], counted from 0; NaN where it never is.

    Examples:
        >>> from fedjax_rl import analysis
        >>> float(analysis.first_below([0.9, 0.4, 0.6, 0.3], 0.5, lasting=True))
        3.0
    """
    return first_episode(np.asarray(curve, dtype=np.float64) < level, lasting=lasting)


def first_within(
    curve: ArrayLike, fraction: float = 0.05, last: int = 100, *, lasting: bool = False
) -> np.ndarray:
    """The first episode at which a curve is within a part of its final value.

    The final value is the mean of the last episodes, its neighbourhood the part `fraction` of its
    absolute value, to either side.

    Args:
        curve: [..., E], e.g. the mean return.
        fraction: of the absolute final value; not negative.
        last: episodes that make the final value, 1 to E.
        lasting: the first episode from which it stays there instead.

    Returns:
        float64 [...], counted from 0; NaN where it never is.

    Raises:
        ValueError: for a negative fraction or a tail that is not 1 <= last <= E.

    Examples:
        >>> from fedjax_rl import analysis
        >>> float(analysis.first_within([0.0, 5.0, 9.8, 10.0, 10.0], 0.05, last=2))
        2.0
    """
    curve = np.asarray(curve, dtype=np.float64)
    if fraction < 0:
        raise ValueError(f"fraction must not be negative, not {fraction}")
    if curve.ndim < 1 or not 1 <= last <= curve.shape[-1]:
        raise ValueError(f"last = {last} episodes were asked of a curve of shape {curve.shape}")
    final = curve[..., -last:].mean(axis=-1, keepdims=True)
    # The mean of equal numbers may differ from them in the last digit.
    reach = (fraction + 8 * np.finfo(np.float64).eps) * np.abs(final)
    return first_episode(np.abs(curve - final) <= reach, lasting=lasting)


def growth_correlation(
    reward: ArrayLike, frequency: ArrayLike, lag: int = 10, level: float = 0.95
) -> Interval:
    """How closely communication follows learning (Figs 4.10 and 4.11 of Gunn 2023).

    Inside each trial, Pearson's correlation over episodes between the logarithmic growth
    `log(reward[e] / reward[e - lag])` and `frequency[e]`.

    Args:
        reward: positive [L, E], the mean return over agents.
        frequency: [L, E], the mean number of messages per agent.
        lag: episodes over which the growth is taken, 1 to E - 3.
        level: of confidence of the interval over trials.

    Returns:
        The mean over trials and its Student t interval. A trial in which either side is constant
        has no correlation and is left out; the mean is NaN when all are, or when a value is not
        finite.

    Raises:
        ValueError: for shapes that differ, a lag that leaves fewer than three episodes, or a
            return that is not positive, which has no logarithm.
    """
    reward = np.asarray(reward, dtype=np.float64)
    frequency = np.asarray(frequency, dtype=np.float64)
    if reward.ndim != 2 or reward.shape != frequency.shape:
        raise ValueError(
            f"reward and frequency must both be [trials, episodes], not {reward.shape} and "
            f"{frequency.shape}"
        )
    if not 1 <= lag <= reward.shape[1] - 3:
        raise ValueError(f"a lag of {lag} of {reward.shape[1]} episodes leaves fewer than three")
    if not np.all(reward > 0):
        raise ValueError(f"the smallest return is {reward.min()}; logarithms need positive ones")
    if not (np.isfinite(reward).all() and np.isfinite(frequency).all()):
        return Interval(np.nan, np.nan, np.nan)
    growth = np.log(reward[:, lag:] / reward[:, :-lag])
    rate = frequency[:, lag:]
    growth = growth - growth.mean(axis=1, keepdims=True)
    rate = rate - rate.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(growth, axis=1), np.linalg.norm(rate, axis=1)
    scales = np.ones(len(reward)), np.abs(frequency).max(axis=1)
    size = np.sqrt(growth.shape[1])
    # Rounding leaves a constant series a norm of the order of its last digit.
    varies = np.logical_and(*(n > 1e-12 * s * size for n, s in zip(norms, scales, strict=True)))
    if not varies.any():
        return Interval(np.nan, np.nan, np.nan)
    each = (growth * rate).sum(axis=1)[varies] / (norms[0] * norms[1])[varies]
    return Interval(*(float(x) for x in mean_interval(each, level=level)))


def agent_mean(values: xr.DataArray) -> xr.DataArray:
    """Mean over the agents there are; one of them that is not finite makes it so.

    Federations of different size lie side by side, padded with NaN to the largest. Skipping every
    NaN would skip agents that broke, too, and leave the mean of the survivors.

    Args:
        values: with a dimension `agent`; with a coordinate `num_agents`, agents from that number
            on are padding.
    """
    if "num_agents" not in values.coords:
        return values.mean("agent", skipna=False)
    # Their places, from 0 on where none were chosen.
    there = values["agent"] < values["num_agents"]
    total = values.where(there, 0.0).sum("agent", skipna=False)
    return total / there.sum("agent")


def _trials_last(values: ArrayLike, axis: int) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim == 0 or values.shape[axis] == 0:
        raise ValueError(f"no trials on axis {axis} of values of shape {values.shape}")
    return np.moveaxis(values, axis, -1)
