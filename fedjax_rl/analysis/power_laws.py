"""Power laws through results: straight lines between logarithms, over all of them or in windows.

The regressions of Einhorn (2023), Figs 4 to 7 and 9 to 13, are ordinary least squares between
logarithms with an intercept.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike

from fedjax_rl.analysis.fit import Fit
from fedjax_rl.analysis.regression import ols


def log_of(name: str, values: ArrayLike, base: float) -> np.ndarray:
    """Logarithms; a value that has none is refused.

    Args:
        name: of the values, for the message.
        values: [n] positive.
        base: of the logarithms.

    Returns:
        float64 [n].

    Raises:
        ValueError: for a value that is not positive.
    """
    values = np.asarray(values, dtype=np.float64)
    if not np.all(values > 0):  # also catches NaN
        bad = np.sum(~(values > 0))
        raise ValueError(f"{name} must be positive to take its logarithm; {bad} values are not")
    return np.log(values) / np.log(base)


def loglog(x: ArrayLike, y: ArrayLike, base: float = 10.0, confidence: float = 0.95) -> Fit:
    """`log y = intercept + slope log x` by ordinary least squares (Figs 4, 6, 7, 9 to 13).

    Args:
        x: [n] positive.
        y: [n] positive.
        base: of the logarithms; 10 for the tabular figures, 2 for PPO. The slope does not depend
            on it.
        confidence: level of the intervals.

    Returns:
        The fit, coefficients "intercept" and "slope", in logarithms.

    Examples:
        >>> from fedjax_rl import analysis
        >>> f"{analysis.loglog([1, 2, 4], [8.0, 4.1, 2.0])['slope']:.2f}"
        '-1.00'
    """
    return ols(log_of("y", y, base), confidence=confidence, slope=log_of("x", x, base))


def two_variable(
    y: ArrayLike, *, base: float = 10.0, confidence: float = 0.95, **columns: ArrayLike
) -> Fit:
    """`log y = intercept + a log u + b log v` (the second regression of Fig. 4).

    Args:
        y: [n] positive.
        base: of the logarithms.
        confidence: level of the intervals.
        **columns: two positive regressors [n], whose names become those of the slopes.

    Returns:
        The fit, in logarithms.

    Raises:
        ValueError: for another number of regressors, or as `ols`.
    """
    if len(columns) != 2:
        raise ValueError(f"two regressors are needed, got {tuple(columns)}")
    logs = {name: log_of(name, column, base) for name, column in columns.items()}
    return ols(log_of("y", y, base), confidence=confidence, **logs)


def factored(
    final_sq: ArrayLike,
    sync_period: ArrayLike,
    learning_rate: ArrayLike,
    num_agents: ArrayLike,
    nuisance: str = "free",
    confidence: float = 0.95,
) -> Fit:
    r"""The factored steady-state error of Fig. 5a (EQ 2 of the paper).

    .. math::
        \log D^2 = c + a \log(K-1) + b \log\alpha + d \log(1 + 1/(N \alpha (K-1)))

    The paper's EQ 2 says d = 1; its numbers come from a free d, which came out at -1466
    (specification 0.6). The theory's slopes are a = 1 and b = 2.

    Args:
        final_sq: [n] steady-state squared distances, positive.
        sync_period: [n] or scalar, local steps per round K > 1.
        learning_rate: [n] or scalar, alpha.
        num_agents: [n] or scalar, N.
        nuisance: "free" fits d, "one" fixes it to 1 (subtracts its term from the response, which
            R^2 then refers to), "none" leaves the term out.
        confidence: level of the intervals.

    Returns:
        The fit in log10; coefficients "intercept", "sync_period", "learning_rate" and, when free,
        "nuisance".
    """
    if nuisance not in ("free", "one", "none"):
        raise ValueError(f"nuisance must be 'free', 'one' or 'none', not {nuisance!r}")
    y = log_of("final_sq", final_sq, 10.0)
    steps = np.broadcast_to(np.asarray(sync_period, dtype=np.float64) - 1.0, y.shape)
    alpha = np.broadcast_to(np.asarray(learning_rate, dtype=np.float64), y.shape)
    agents = np.broadcast_to(np.asarray(num_agents, dtype=np.float64), y.shape)
    columns = {
        "sync_period": log_of("sync_period - 1", steps, 10.0),
        "learning_rate": log_of("learning_rate", alpha, 10.0),
    }
    term = log_of("1 + 1 / (N alpha (K - 1))", 1.0 + 1.0 / (agents * alpha * steps), 10.0)
    if nuisance == "free":
        columns["nuisance"] = term
    elif nuisance == "one":
        y = y - term
    return ols(y, confidence=confidence, **columns)


def windowed(
    final_sq: ArrayLike,
    sync_period: ArrayLike,
    learning_rate: ArrayLike,
    num_agents: ArrayLike,
    windows: Iterable[int] | None = None,
    min_learning_rate: float = 0.2,
    nuisance: str = "free",
) -> dict[int, Fit]:
    """The regression of `factored` in a window of sync periods sliding upwards (Fig. 5b).

    For each K the rows with `max(K / 5, 20) <= K' <= K` and `alpha >= min_learning_rate`.

    Args:
        final_sq: [n], as in `factored`.
        sync_period: [n], K'.
        learning_rate: [n] or scalar.
        num_agents: [n] or scalar.
        windows: upper ends K; by default all sync periods of the data from 50 on.
        min_learning_rate: compared with a relative tolerance of 1e-6, for float32 grids.
        nuisance: as in `factored`.

    Returns:
        K -> its fit, in the order of `windows`.
    """
    final_sq = np.asarray(final_sq, dtype=np.float64)
    period, alpha, agents = (
        np.broadcast_to(np.asarray(column, dtype=np.float64), final_sq.shape)
        for column in (sync_period, learning_rate, num_agents)
    )
    if windows is None:
        windows = [int(k) for k in np.unique(period) if k >= 50]
    fits = {}
    for k in windows:
        rows = (period >= max(k / 5, 20)) & (period <= k)
        rows &= alpha >= min_learning_rate * (1 - 1e-6)
        try:
            fits[k] = factored(final_sq[rows], period[rows], alpha[rows], agents[rows], nuisance)
        except ValueError as error:
            raise ValueError(f"window ending at K = {k}: {error}") from error
    return fits
