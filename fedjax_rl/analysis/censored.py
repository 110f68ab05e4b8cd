"""Linear regression with right-censored responses (Tobit), by maximum likelihood.

With log times as the response this is the log-normal accelerated failure time model. Neither scipy
nor statsmodels fits it; the likelihood is a page, and lifelines checks it in the tests.
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, special, stats

from fedjax_rl.analysis.regression import INTERCEPT, Fit, design_matrix, rank


def tobit(
    y: ArrayLike,
    censored: ArrayLike,
    *,
    interval: str = "profile",
    confidence: float = 0.95,
    **columns: ArrayLike,
) -> Fit:
    r"""Gaussian linear regression in which some responses are only known to exceed a limit.

    Maximises :math:`\sum_{reached} \log\phi(z_i) - \log s + \sum_{censored} \log(1 - \Phi(z_i))`
    with :math:`z_i = (y_i - x_i b) / s` (Tobin 1958; specification 7.6).

    Args:
        y: [n] response where reached, the limit where censored (e.g. log2 of epochs).
        censored: bool [n], True where the response is only known to exceed `y`.
        interval: "profile" inverts the likelihood-ratio test, which keeps its level better with a
            dozen runs and reaches further to the side that censoring leaves open; "wald" is
            estimate +- z standard errors.
        confidence: level of the intervals.
        **columns: [n] regressors; their names become the names of the coefficients.

    Returns:
        The fit. Standard errors come from the Hessian at the maximum (observed information),
        `residual_sd` is the maximum-likelihood s, `df` is infinite and `r_squared` NaN.

    Raises:
        ValueError: if the reached runs alone cannot identify the line or its spread; the
            likelihood may then have no maximum.
    """
    if interval not in ("profile", "wald"):
        raise ValueError(f"interval must be 'profile' or 'wald', not {interval!r}")
    y, design = design_matrix(y, columns)
    censored = np.asarray(censored, dtype=bool)
    if censored.shape != y.shape:
        raise ValueError(f"censored has shape {censored.shape}, y has {y.shape}")
    names = (INTERCEPT, *columns)
    reached = design[~censored]
    if len(reached) <= len(names) or rank(reached) < len(names):
        raise ValueError(
            f"the {len(reached)} uncensored of {len(y)} observations cannot identify the "
            f"{len(names)} coefficients {names} and a spread"
        )
    residual = y[~censored] - reached @ np.linalg.lstsq(reached, y[~censored], rcond=None)[0]
    if residual.std() <= 1e-10 * max(1.0, np.abs(y).max()):
        raise ValueError("the uncensored observations lie exactly on a line: no spread to estimate")

    params, log_sd, top = _maximise(y, censored, design)
    _, _, hessian = _likelihood(np.append(params, log_sd), y, censored, design)
    covariance = np.linalg.inv(-hessian)[:-1, :-1]
    errors = np.sqrt(np.diag(covariance))
    if interval == "wald":
        reach = stats.norm.ppf(0.5 + confidence / 2) * errors
        intervals = np.column_stack([params - reach, params + reach])
    else:
        drop = stats.chi2.ppf(confidence, 1) / 2
        intervals = np.array(
            [
                [
                    _profile_limit(y, censored, design, i, params[i], side * errors[i], top - drop)
                    for side in (-1, 1)
                ]
                for i in range(len(names))
            ]
        )
    return Fit(
        names=names,
        params=params,
        standard_errors=errors,
        intervals=intervals,
        covariance=covariance,
        r_squared=np.nan,
        num_observations=len(y),
        df=np.inf,
        residual_sd=float(np.exp(log_sd)),
        confidence=confidence,
        num_censored=int(censored.sum()),
    )


def _likelihood(theta, y, censored, design):
    """Log-likelihood, gradient and Hessian in (b, log s); float64 [p + 1]."""
    sd = np.exp(theta[-1])
    z = (y - design @ theta[:-1]) / sd
    log_survival = special.log_ndtr(-z)
    # The hazard phi / (1 - Phi) from logarithms: both vanish far out.
    hazard = np.exp(-0.5 * z**2 - 0.5 * np.log(2 * np.pi) - log_survival)
    value = np.where(censored, log_survival, -0.5 * z**2 - 0.5 * np.log(2 * np.pi) - theta[-1])
    slope = np.where(censored, -hazard, -z)  # d value / dz
    curvature = np.where(censored, -hazard * (hazard - z), -1.0)
    rows = np.column_stack([design / sd, z])  # -dz / d theta
    mixed = rows.T @ slope
    gradient = -mixed
    gradient[-1] -= np.sum(~censored)
    hessian = rows.T @ (curvature[:, None] * rows)
    # d2z / (d log s d theta_k) = -dz / d theta_k = rows_k, for every k including log s itself.
    hessian[:, -1] += mixed
    hessian[-1, :-1] += mixed[:-1]
    return value.sum(), gradient, hessian


def _maximise(y, censored, design):
    """Coefficients [p], log of the sd and the log-likelihood at the maximum."""
    # Orthonormal regressors and a response of unit spread: one step length fits all directions.
    # There may be no regressor left when an intercept is profiled out.
    q, r = np.linalg.qr(design)
    q, r = q * np.sqrt(len(y)), r / np.sqrt(len(y))
    start = q.T @ y / len(y)
    scale = (y - q @ start).std()
    y_unit, start = y / scale, np.append(start / scale, 0.0)
    result = optimize.minimize(
        lambda theta: -_likelihood(theta, y_unit, censored, q)[0],
        start,
        jac=lambda theta: -_likelihood(theta, y_unit, censored, q)[1],
        hess=lambda theta: -_likelihood(theta, y_unit, censored, q)[2],
        method="trust-exact",
        options={"gtol": 1e-7, "maxiter": 500},
    )
    gradient = np.abs(_likelihood(result.x, y_unit, censored, q)[1]).max()
    if gradient > 1e-4 * len(y):
        raise RuntimeError(f"the censored likelihood was not maximised: {result.message}")
    params = np.linalg.solve(r, result.x[:-1] * scale)
    log_sd = result.x[-1] + np.log(scale)
    # Unit change of the density of the uncensored responses.
    return params, log_sd, -result.fun - np.sum(~censored) * np.log(scale)


def _profile_limit(y, censored, design, index, estimate, step, level):
    """Where the likelihood maximised over everything but one coefficient falls to `level`."""
    others = np.delete(design, index, axis=1)

    def excess(value):
        # A fixed coefficient is an offset of the response: the same problem, one column fewer.
        return _maximise(y - value * design[:, index], censored, others)[2] - level

    # The likelihood falls without end, since the reached runs alone identify every coefficient.
    inner, outer = estimate, estimate + 2 * step
    while excess(outer) >= 0:
        inner, outer = outer, outer + 2 * (outer - estimate)
    return optimize.brentq(excess, inner, outer, xtol=1e-6 * abs(step))
