"""The likelihood of normal responses known to lie in intervals: its maximum and its profiles.

What `censored` computes with. In (b / s, 1 / s) it is concave (Olsen 1978), so that Newton's method
finds its one maximum.
"""

from typing import NamedTuple

import numpy as np
from scipy import optimize, special

_LOG_ROOT_2PI = 0.5 * np.log(2 * np.pi)


def known_middle(low, high):
    """The middle of intervals with two ends, the only end of the others.

    Args:
        low: [n] lower ends, -inf where open.
        high: [n] upper ends, inf where open.

    Returns:
        float64 [n], finite.
    """
    with np.errstate(invalid="ignore"):
        return np.where(np.isfinite(low), np.where(np.isfinite(high), (low + high) / 2, low), high)


def residual(y, design):
    """What a line of least squares leaves of responses.

    Args:
        y: [n].
        design: [n, p].

    Returns:
        float64 [n].
    """
    return y - design @ np.linalg.lstsq(design, y, rcond=None)[0]


def middle_line(low, high, design):
    """The line through all intervals that is furthest from their ends.

    Args:
        low: [n] lower ends.
        high: [n] upper ends.
        design: [n, p].

    Returns:
        Its coefficients, float64 [p]; None where no line goes through all.
    """
    known, point, count = known_middle(low, high), low == high, design.shape[1]
    unit = np.ptp(known) or 1.0
    rounding = 1e-10 * unit + 8 * np.finfo(np.float64).eps * np.abs(known).max()
    if point.any() and residual(known[point], design[point]).std() > rounding:
        return None
    # Orthonormal regressors and responses of unit spread about 0, for the tolerances of the solver.
    q, r = np.linalg.qr(design)
    q, r = q * np.sqrt(len(low)), r / np.sqrt(len(low))
    centre = known.mean()
    below, above = ((end - side * rounding - centre) / unit for end, side in ((low, 1), (high, -1)))
    width = np.where(point | ~np.isfinite(high - low), 0.0, high - low) / unit
    bound = np.column_stack([np.vstack([q, -q]), np.tile(width, 2)])
    ends = np.concatenate([above, -below])
    kept = np.isfinite(ends)
    found = optimize.linprog(
        np.append(np.zeros(count), -1.0),
        bound[kept],
        ends[kept],
        bounds=[(None, None)] * count + [(0.0, 0.5)],
    )
    if not found.success or (width.any() and found.x[-1] <= 1e-6):
        return None
    params = np.linalg.solve(r, found.x[:-1] * unit)
    params[0] += centre
    return params


def likelihood(theta, low, high, design):
    """Log-likelihood, gradient and Hessian in (b / s, 1 / s), in which it is concave (Olsen 1978).

    Args:
        theta: float64 [p + 1], the last one positive.
        low: [n] lower ends, -inf where open.
        high: [n] upper ends, equal to the lower ones at points.
        design: [n, p].
    """
    mean, inverse, point = design @ theta[:-1], theta[-1], low == high
    a, b = inverse * low - mean, inverse * high - mean
    # The difference of two probabilities, taken in the tail where both are small.
    flip = a + b > 0
    less, more = special.log_ndtr(np.where(flip, (-b, -a), (a, b)))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        log_p = more + np.log1p(-np.exp(less - more))
        # phi / P at both ends, from logarithms: both vanish far out.
        at_low, at_high = (np.exp(-0.5 * z**2 - _LOG_ROOT_2PI - log_p) for z in (a, b))
    at_low[point] = at_high[point] = 0.0
    value = np.where(point, -0.5 * b**2 - _LOG_ROOT_2PI + np.log(inverse), log_p)
    if not np.isfinite(value + at_low + at_high).all():  # far off: no probability left somewhere
        return -np.inf, *(np.zeros(shape) for shape in (len(theta), (len(theta),) * 2))
    a, b, low, high = (np.where(np.isfinite(end), end, 0.0) for end in (a, b, low, high))
    rows = np.column_stack([-design, low]), np.column_stack([-design, high])  # dz / d theta
    # d value / dz at both ends; a point has the upper one alone.
    gradient = -at_low @ rows[0] + np.where(point, -b, at_high) @ rows[1]
    mixed = rows[0].T @ ((at_low * at_high)[:, None] * rows[1])
    hessian = mixed + mixed.T
    hessian += rows[0].T @ (((a - at_low) * at_low)[:, None] * rows[0])
    hessian += rows[1].T @ (np.where(point, -1.0, -(b + at_high) * at_high)[:, None] * rows[1])
    gradient[-1] += point.sum() / inverse
    hessian[-1, -1] -= point.sum() / inverse**2
    return value.sum(), gradient, hessian


class Maximum(NamedTuple):
    """Where the likelihood is largest: coefficients, spread and its logarithm."""

    params: np.ndarray  # [p]
    sd: float
    value: float  # of the log-likelihood


def maximise(low, high, design, near: Maximum | None = None) -> Maximum:
    """Newton's method with halved steps.

    There may be no regressor left when an intercept is profiled out, and the spread may vanish,
    which ends the search.
    """
    # Orthonormal regressors, and responses of unit spread about the line of least squares: one
    # tolerance fits all directions, and offsets take no digits.
    q, r = np.linalg.qr(design)
    q, r = q * np.sqrt(len(low)), r / np.sqrt(len(low))
    known, points = known_middle(low, high), int(np.sum(low == high))
    centre = q.T @ known / len(known)
    line = q @ centre
    unit = (known - line).std() or np.ptp(known) or 1.0
    low, high = (low - line) / unit, (high - line) / unit
    theta = np.append(np.zeros(len(centre)), 1.0)
    value, gradient, hessian = likelihood(theta, low, high, q)
    if near is not None:  # the maximum of a neighbouring problem, unless that is far off
        other = np.append((r @ near.params - centre) / near.sd, unit / near.sd)
        found = likelihood(other, low, high, q)
        if found[0] > value:
            theta, (value, gradient, hessian) = other, found
    for _ in range(200):
        step = np.linalg.lstsq(-hessian, gradient, rcond=None)[0]
        gain = gradient @ step
        if gain < 1e-12 * len(low) or (points == 0 and value > -1e-12):
            break
        size = 1.0
        while size > 1e-10:
            trial = theta + size * step
            if trial[-1] > 0:
                found = likelihood(trial, low, high, q)
                if found[0] >= value + 1e-4 * size * gain:
                    break
            size /= 2
        else:  # only rounding is left
            break
        theta, (value, gradient, hessian) = trial, found
    params = np.linalg.solve(r, centre + theta[:-1] / theta[-1] * unit)
    # Change of unit of the density of points.
    return Maximum(params, unit / theta[-1], value - points * np.log(unit))


def observed_covariance(low, high, design, best: Maximum):
    """Covariance of the coefficients from the curvature at the maximum (observed information).

    Args:
        low: [n] lower ends.
        high: [n] upper ends.
        design: [n, p].
        best: the maximum.

    Returns:
        float64 [p, p].
    """
    q, r = np.linalg.qr(design)
    line, unit = design @ best.params, best.sd
    # About the fitted line and in units of its spread b / s is 0 and 1 / s is 1.
    theta = np.append(np.zeros(len(best.params)), 1.0)
    _, _, hessian = likelihood(theta, (low - line) / unit, (high - line) / unit, q)
    inner = np.linalg.pinv(-hessian)[:-1, :-1]
    back = np.linalg.solve(r, np.eye(len(best.params))) * unit
    return back @ inner @ back.T


def profile_limits(
    low, high, design, index, estimate, error, sd, top, drop, precision=1e-6
) -> tuple[float, float]:
    """Where the likelihood maximised over everything but one coefficient falls by `drop`.

    Args:
        low: [n] lower ends.
        high: [n] upper ends.
        design: [n, p].
        index: of the coefficient.
        estimate: its value at the maximum.
        error: its standard error, where to begin.
        sd: the spread at the maximum.
        top: the logarithm of the likelihood there.
        drop: by how much it falls.
        precision: of the limits, in parts of a step of the search.

    Returns:
        The lower and the upper limit.
    """
    others, column = np.delete(design, index, axis=1), design[:, index]
    # Where the spread all but vanishes the curvature says nothing, the widths of intervals do.
    widths = (high - low)[np.isfinite(high - low)]
    alone = residual(column, others) if others.shape[1] else column  # whatever their offset
    scale = 10 * max(np.median(widths), sd) / np.abs(alone).max()
    error = min(error, scale) if error > 0 else scale

    near = None

    def excess(value):
        # A fixed coefficient is an offset of the response: the same problem, one column fewer.
        nonlocal near
        offset = value * column
        near = maximise(low - offset, high - offset, others, near)
        # The root of the fall is nearly straight, and found in a few steps.
        return np.sqrt(max(top - near.value, 0.0)) - np.sqrt(drop)

    # The likelihood falls without end, since the runs with two ends identify every coefficient.
    def limit(step):
        nonlocal near
        near, inner, outer = None, estimate, estimate + 2 * step
        while excess(outer) <= 0:
            inner, outer = outer, outer + 2 * (outer - estimate)
        return optimize.brentq(excess, inner, outer, xtol=precision * abs(step))

    return limit(-error), limit(error)
