"""A fitted linear regression: coefficients, intervals, the band about its line."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

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
