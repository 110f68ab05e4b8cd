"""Straight lines through results, with intervals: ordinary, windowed and right-censored.

The regressions of Einhorn (2023), Figs 4 to 7 and 9 to 13, are ordinary least squares between
logarithms with an intercept; statsmodels does them. Runs that were cut off before reaching a
threshold need the censored (Tobit) regression instead, which statsmodels does not have.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from fedjax_rl.analysis.bootstrap import check_level

INTERCEPT = "intercept"


@dataclass(frozen=True, eq=False)
class Fit:
    """A fitted linear regression; plain numbers, so that a saved fit can still draw its band.

    Attributes:
        names: p names of the coefficients, the intercept first.
        params: float64 [p]
        standard_errors: float64 [p]
        intervals: float64 [p, 2], `confidence` limits of the coefficients.
        covariance: float64 [p, p], of the coefficients.
        r_squared: centred R^2; NaN for data that are constant up to rounding and for a censored
            regression.
        num_observations: rows used, censored ones included.
        df: residual degrees of freedom; infinite for a likelihood fit, whose intervals are normal.
        residual_sd: sd of the residuals in units of y (OLS: unbiased; Tobit: maximum likelihood).
        confidence: level of `intervals` and of the band of `predict`.
        num_censored: rows that were censored.
    """

    names: tuple[str, ...]
    params: np.ndarray
    standard_errors: np.ndarray
    intervals: np.ndarray
    covariance: np.ndarray
    r_squared: float
    num_observations: int
    df: float
    residual_sd: float
    confidence: float = 0.95
    num_censored: int = 0

    def __getitem__(self, name: str) -> float:
        """The coefficient called `name`."""
        return float(self.params[self._index(name)])

    def interval(self, name: str) -> tuple[float, float]:
        """Confidence limits of the coefficient called `name`."""
        low, high = self.intervals[self._index(name)]
        return float(low), float(high)

    def standard_error(self, name: str) -> float:
        """Standard error of the coefficient called `name`."""
        return float(self.standard_errors[self._index(name)])

    def predict(self, x: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The regression mean and its pointwise confidence band (not a prediction band).

        Args:
            x: regressors without the intercept, in the units of the fit (logarithms for `loglog`):
                [points] for a single regressor, [points, p - 1] for several.

        Returns:
            mean, low and high, float64 [points] each.
        """
        x = np.asarray(x, dtype=np.float64)
        x = x.reshape(-1, 1) if len(self.names) == 2 else np.atleast_2d(x)
        if x.shape[-1] != len(self.names) - 1:
            raise ValueError(f"predict needs the columns {self.names[1:]}, got shape {x.shape}")
        design = np.column_stack([np.ones(len(x)), x])
        mean = design @ self.params
        sd = np.sqrt(np.einsum("ij,jk,ik->i", design, self.covariance, design))
        reach = stats.t.ppf(0.5 + self.confidence / 2, self.df) if self.df > 0 else np.nan
        return mean, mean - reach * sd, mean + reach * sd

    def to_dict(self) -> dict:
        """Plain numbers for a summary; what is not finite becomes None."""
        return {
            "coefficients": {
                name: {
                    "value": _plain(self.params[i]),
                    "standard_error": _plain(self.standard_errors[i]),
                    "low": _plain(self.intervals[i, 0]),
                    "high": _plain(self.intervals[i, 1]),
                }
                for i, name in enumerate(self.names)
            },
            "r_squared": _plain(self.r_squared),
            "num_observations": self.num_observations,
            "num_censored": self.num_censored,
            "df": _plain(self.df),
            "residual_sd": _plain(self.residual_sd),
            "confidence": self.confidence,
        }

    def _index(self, name: str) -> int:
        if name not in self.names:
            raise KeyError(f"no coefficient {name!r}; there are {', '.join(self.names)}")
        return self.names.index(name)


def _plain(number: float) -> float | None:
    return float(number) if np.isfinite(number) else None


def design_matrix(y: ArrayLike, columns: dict[str, ArrayLike]) -> tuple[np.ndarray, np.ndarray]:
    """The response and the regressors with an intercept, checked.

    Args:
        y: [n]
        columns: regressors [n] by name.

    Returns:
        y as float64 [n] and the design, float64 [n, 1 + number of columns].

    Raises:
        ValueError: naming what is not finite, too short, of another length or collinear.
    """
    y = np.asarray(y, dtype=np.float64)
    arrays = {name: np.asarray(column, dtype=np.float64) for name, column in columns.items()}
    if y.ndim != 1:
        raise ValueError(f"y must be one-dimensional, not {y.shape}")
    for name, column in {"y": y, **arrays}.items():
        if column.shape != y.shape:
            raise ValueError(f"{name} has shape {column.shape}, y has {y.shape}")
        if not np.all(np.isfinite(column)):
            raise ValueError(
                f"{name} has {np.sum(~np.isfinite(column))} values that are not finite"
            )
    design = np.column_stack([np.ones(len(y)), *arrays.values()])
    names = (INTERCEPT, *arrays)
    if len(y) < len(names):
        raise ValueError(
            f"{len(y)} observations cannot determine the {len(names)} coefficients {names}"
        )
    if rank(design) < len(names):
        raise ValueError(f"the regressors {names} are collinear (is one of them constant?)")
    return y, design


def rank(design: np.ndarray) -> int:
    """Rank of a design whatever the units and offsets of its columns; the intercept comes first."""
    return int(np.linalg.matrix_rank(_centred(design)[0]))


def spread(values: np.ndarray) -> float:
    """Sum of squares about the mean; 0 where it is no more than rounding, as of equal numbers."""
    size = np.abs(values).max()
    if size == 0:
        return 0.0
    total = np.sum((values / size - (values / size).mean()) ** 2)
    rounding = 8 * np.finfo(np.float64).eps
    return float(total * size**2) if total > len(values) * rounding**2 else 0.0


def _centred(design: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Columns of mean 0 and unit size behind the intercept, and their coefficients' way back.

    Steps beside learning rates, or times with an offset, would lose their digits to each other.

    Returns:
        The design [n, p] and T [p, p]: coefficients c of it are T c of the one given.
    """
    count = design.shape[1]
    out, back = design.copy(), np.eye(count)
    for k in range(1, count):
        size = np.sqrt(spread(design[:, k]) / len(design))
        mean = design[:, k].mean()
        out[:, k] = (design[:, k] - mean) / size if size else 0.0
        back[k, k] = 1 / size if size else 1.0
        back[0, k] = -mean * back[k, k]
    return out, back


def ols(y: ArrayLike, *, confidence: float = 0.95, **columns: ArrayLike) -> Fit:
    """Ordinary least squares with an intercept.

    Args:
        y: [n] response.
        confidence: level of the intervals.
        **columns: [n] regressors; their names become the names of the coefficients.

    Returns:
        The fit. With as many observations as coefficients it is exact, and its errors are NaN.

    Raises:
        ValueError: naming what is not finite, too short, of another length or collinear; for a
            confidence outside (0, 1).

    Examples:
        >>> from fedjax_rl import analysis
        >>> fit = analysis.ols([1.0, 3.1, 4.9], steps=[0.0, 1.0, 2.0])
        >>> f"{fit['steps']:.2f}"
        '1.95'
    """
    check_level("confidence", confidence)
    y, design = design_matrix(y, columns)
    centred, back = _centred(design)
    middle = y.mean()
    from statsmodels.regression.linear_model import OLS  # takes long to import

    result = OLS(y - middle, centred).fit()
    p = design.shape[1]
    total = spread(y)
    exact = result.df_resid == 0
    unknown = np.full((p, p), np.nan)
    params = back @ result.params + middle * (np.arange(p) == 0)
    covariance = unknown if exact else back @ np.asarray(result.cov_params()) @ back.T
    errors = np.sqrt(np.diag(covariance))
    reach = stats.t.ppf(0.5 + confidence / 2, result.df_resid) if not exact else np.nan
    return Fit(
        names=(INTERCEPT, *columns),
        params=params,
        standard_errors=errors,
        intervals=np.column_stack([params - reach * errors, params + reach * errors]),
        covariance=covariance,
        r_squared=1.0 - float(result.ssr) / total if total > 0 else np.nan,
        num_observations=len(y),
        df=float(result.df_resid),
        residual_sd=np.nan if exact else float(np.sqrt(result.scale)),
        confidence=confidence,
    )


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
