"""Linear regression with responses known to lie in an interval, by maximum likelihood.

A run that was cut off says "later than this" and a crossing seen at a record says "since the record
before": both are intervals, the first without an upper end. With log times as the response this is
the log-normal accelerated failure time model. Neither scipy nor statsmodels fits it; the likelihood
is a page, and lifelines checks it in the tests.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import interpolate, stats

from fedjax_rl.analysis.bootstrap import check_level
from fedjax_rl.analysis.fit import INTERCEPT, Fit
from fedjax_rl.analysis.likelihood import (
    known_middle,
    maximise,
    middle_line,
    observed_covariance,
    profile_limits,
    residual,
)
from fedjax_rl.analysis.power_laws import log_of
from fedjax_rl.analysis.regression import design_matrix, rank
from fedjax_rl.analysis.threshold import ThresholdTime

INTERVALS = ("student", "profile", "wald")
KNOTS = 9  # places between which a band is interpolated
NARROW = 1e-7  # an interval narrower than this part of the spread is a point


@dataclass(frozen=True, eq=False)
class CensoredFit(Fit):
    """A fit to intervals; its band inverts the same test as its own intervals.

    Attributes:
        rows: float64 [n, 2 + p], lower end, upper end and regressors of each observation.
        fall: log-likelihood at the maximum, and how far it falls to the ends of the intervals; the
            latter is NaN where they are Wald's.
    """

    rows: np.ndarray | None = None
    fall: tuple[float, float] = (np.nan, np.nan)

    def predict(self, x: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As `Fit.predict`, with limits where the profile likelihood of the mean has fallen as far.

        More than nine points of a single regressor are interpolated between nine Chebyshev nodes.
        """
        mean, low, high = super().predict(x)
        if not np.isfinite(self.fall[1]):
            return mean, low, high
        x = np.asarray(x, dtype=np.float64)
        x = x.reshape(-1, 1) if len(self.names) == 2 else np.atleast_2d(x)
        if x.shape[1] > 1 or len(x) <= KNOTS:
            low, high = np.array([self._mean_limits(place) for place in x]).reshape(-1, 2).T
            return mean, low, high
        turn = np.cos(np.linspace(np.pi, 0, KNOTS))
        knots = np.unique(x.min() + np.ptp(x) * (turn + 1) / 2)
        limits = np.array([self._mean_limits(np.array([knot])) for knot in knots])
        low, high = interpolate.BarycentricInterpolator(knots, limits)(x[:, 0]).T
        return mean, low, high

    def _mean_limits(self, x: np.ndarray) -> tuple[float, float]:
        """Limits of the mean at x [p - 1], which is the intercept of regressors shifted by x."""
        place = np.concatenate([[1.0], x])
        low, high, design = self.rows[:, 0], self.rows[:, 1], self.rows[:, 2:].copy()
        design[:, 1:] -= x
        error = float(np.sqrt(place @ self.covariance @ place))
        size = place @ self.params, error, self.residual_sd
        # It is drawn: a thousandth of a standard error does.
        return profile_limits(low, high, design, 0, *size, *self.fall, precision=1e-3)


def interval_regression(
    low: ArrayLike,
    high: ArrayLike,
    *,
    interval: str = "student",
    confidence: float = 0.95,
    **columns: ArrayLike,
) -> Fit:
    r"""Gaussian linear regression of responses that are only known to lie between two ends.

    Maximises :math:`\sum_i \log(\Phi((h_i - x_i b)/s) - \Phi((l_i - x_i b)/s))`, where the ends
    coincide :math:`\log\phi((y_i - x_i b)/s) - \log s`.

    Where some line goes through every interval the likelihood grows until s = 0, and all such lines
    are equally likely: the one that keeps furthest from the ends, each in parts of its interval, is
    given. Its limits are those of the likelihood all the same.

    Args:
        low: [n] lower ends; -inf where only the upper one is known.
        high: [n] upper ends, not below the lower ones; inf where only the lower one is known.
        interval: how limits are found. "profile" inverts the likelihood-ratio test with the
            quantile of chi-squared, and reaches further to the side that censoring leaves open.
            "student" does so with the quantile that is exact for points, whose limits are then
            those of least squares: it keeps its level with a handful of runs. "wald" is
            estimate +- z standard errors.
        confidence: level of the intervals.
        **columns: [n] regressors; their names become the names of the coefficients.

    Returns:
        The fit. Standard errors come from the Hessian at the maximum (observed information), for
        "student" from the distance of the limits, which points make the same. `residual_sd` is the
        maximum-likelihood s and `df` infinite; for "student", with m observations of two ends, `df`
        is m - p and s is scaled by sqrt(m / (m - p)). `r_squared` is NaN, and `num_censored`
        counts the intervals with an open end.

    Raises:
        ValueError: for an interval that is empty or has no end, or if the observations with two
            ends alone cannot identify the line and its spread; the likelihood may then have no
            maximum.
    """
    if interval not in INTERVALS:
        raise ValueError(f"interval must be 'student', 'profile' or 'wald', not {interval!r}")
    check_level("confidence", confidence)
    low, high = (np.asarray(end, dtype=np.float64) for end in (low, high))
    if low.shape != high.shape:
        raise ValueError(f"low has shape {low.shape}, high has {high.shape}")
    if not np.all((low <= high) & (np.isfinite(low) | np.isfinite(high))):
        raise ValueError("every interval needs low <= high and an end that is finite")
    known, design = design_matrix(known_middle(low, high), columns)
    names, count = (INTERCEPT, *columns), len(known)
    seen = np.isfinite(low) & np.isfinite(high)
    num_seen, p = int(seen.sum()), len(names)
    if num_seen < p + (num_seen < count) or rank(design[seen]) < p:
        raise ValueError(
            f"the {num_seen} uncensored of {count} observations cannot identify the {p} "
            f"coefficients {names} and a spread"
        )
    # The difference of two nearly equal probabilities would lose its digits.
    narrow = seen & (high - low <= NARROW * residual(known[seen], design[seen]).std())
    low, high = np.where(narrow, known, low), np.where(narrow, known, high)

    middle = middle_line(low, high, design)
    if middle is not None and np.any(low == high):
        raise ValueError("the uncensored observations lie exactly on a line: no spread to estimate")
    df, scale = num_seen - p, 1.0
    quantile, drop = stats.norm.ppf(0.5 + confidence / 2), np.nan
    if interval == "profile":
        drop = stats.chi2.ppf(confidence, 1) / 2
    elif interval == "student" and df:
        quantile, scale = stats.t.ppf(0.5 + confidence / 2, df), np.sqrt(num_seen / df)
        # -2 log of the likelihood ratio of a normal regression is n log(1 + t^2 / df).
        drop = num_seen / 2 * np.log1p(quantile**2 / df)

    if middle is None:
        best = maximise(low, high, design)
        params, top, sd = best.params, best.value, scale * best.sd
        covariance = scale**2 * observed_covariance(low, high, design, best)
    else:
        params, top, sd = middle, 0.0, 0.0
        covariance = np.full((p, p), np.nan)
    errors = np.sqrt(np.diag(covariance))
    intervals = np.column_stack([params - quantile * errors, params + quantile * errors])
    if np.isfinite(drop):
        for i in range(p):
            intervals[i] = profile_limits(low, high, design, i, params[i], errors[i], sd, top, drop)
    if interval == "student" or middle is not None:
        errors = np.ptp(intervals, axis=1) / (2 * quantile)
    return CensoredFit(
        names=names,
        params=params,
        standard_errors=errors,
        intervals=intervals,
        covariance=covariance,
        r_squared=np.nan,
        num_observations=count,
        df=df if interval == "student" else np.inf,
        residual_sd=sd,
        confidence=confidence,
        num_censored=count - num_seen,
        rows=np.column_stack([low, high, design]),
        fall=(top, drop),
    )


def tobit(y: ArrayLike, censored: ArrayLike, **options) -> Fit:
    r"""Gaussian linear regression in which some responses are only known to exceed a limit.

    Maximises :math:`\sum_{reached} \log\phi(z_i) - \log s + \sum_{censored} \log(1 - \Phi(z_i))`
    with :math:`z_i = (y_i - x_i b) / s` (Tobin 1958; specification 7.6).

    Args:
        y: [n] response where reached, the limit where censored (e.g. log2 of epochs).
        censored: bool [n], True where the response is only known to exceed `y`.
        **options: of `interval_regression`, the regressors [n] among them; `interval` is "profile"
            by default.

    Returns:
        The fit, as of `interval_regression`.

    Raises:
        ValueError: if the reached runs alone cannot identify the line or its spread; the
            likelihood may then have no maximum.

    Examples:
        >>> import numpy as np
        >>> from fedjax_rl.analysis import tobit
        >>> epochs, late = np.array([64.0, 30, 17, 8]), [False, False, False, True]
        >>> fit = tobit(np.log2(epochs), late, interval="wald", agents=np.log2([1, 2, 4, 8]))
        >>> f"{fit['agents']:.2f}, {fit.num_censored} censored"
        '-0.95, 1 censored'
    """
    options = {"interval": "profile", **options}
    regressors = {n: x for n, x in options.items() if n not in ("interval", "confidence")}
    y, _ = design_matrix(y, regressors)
    censored = np.asarray(censored, dtype=bool)
    if censored.shape != y.shape:
        raise ValueError(f"censored has shape {censored.shape}, y has {y.shape}")
    return interval_regression(y, np.where(censored, np.inf, y), **options)


def speedup_fit(
    num_agents: ArrayLike, reached: ThresholdTime, base: float = 10.0, confidence: float = 0.95
) -> Fit:
    """`log time = intercept + slope log N`, each time known as well as the records tell it.

    A crossing lies between the record that shows it and the one before, or before the first; a run
    that never got there crosses after its last record. Taken as exact at the record that shows
    them, crossings of many agents, a few records from the start, come out late and the slope flat.

    Args:
        num_agents: [n] N of each run.
        reached: times of `time_to_threshold`, [n].
        base: of the logarithms; the slope does not depend on it.
        confidence: level of the intervals.

    Returns:
        The fit, coefficients "intercept" and "slope", in logarithms.

    Raises:
        ValueError: if a run had crossed at time 0, which has no logarithm, for an N that is not
            positive, or as `interval_regression`.
    """
    if np.any(reached.upper <= 0):
        at_once = int(np.sum(reached.upper <= 0))
        raise ValueError(f"{at_once} runs are beyond the threshold from the start")
    with np.errstate(divide="ignore"):
        low, high = (np.log(end) / np.log(base) for end in (reached.lower, reached.upper))
    slope = log_of("num_agents", num_agents, base)
    return interval_regression(low, high, confidence=confidence, slope=slope)
