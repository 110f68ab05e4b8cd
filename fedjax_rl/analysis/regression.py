"""Straight lines through results by ordinary least squares, with intervals."""

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from fedjax_rl.analysis.bootstrap import check_level
from fedjax_rl.analysis.fit import INTERCEPT, Fit


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
