"""The drift-saturation law: local error against the steps since the last synchronisation.

Between two synchronisations the agents drift apart, first as `alpha^2 j` and in the end to what N
independent learners have. Einhorn (2023) measured one local table at times that alias with the
sync period, so that the law has to be averaged over the phases that were really measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize

from fedjax_rl.analysis.fit import Fit
from fedjax_rl.analysis.power_laws import two_variable
from fedjax_rl.analysis.regression import spread


@dataclass(frozen=True)
class DriftLaw:
    r"""Squared distance of a local table, j steps after a synchronisation (specification 5.3).

    .. math::
        D^2(j) = c_1 \alpha / N + c_2 \alpha^e (1 - \exp(-\alpha j / \kappa))

    Both limits are right: synchronised every step (j = 0) it is alpha / N, never synchronised it is
    that of independent learners. A single agent has no drift: j = 0.

    Attributes:
        c1: floor of the synchronised average.
        c2: ceiling of the drift.
        exponent: e.
        kappa: learning-rate-weighted steps over which the drift saturates.
    """

    c1: float
    c2: float
    exponent: float
    kappa: float

    def __call__(
        self, learning_rate: ArrayLike, num_agents: ArrayLike, phase: ArrayLike
    ) -> np.ndarray:
        """D^2 at these arguments, which broadcast against each other; `phase` may be infinite."""
        alpha, agents, j = (
            np.asarray(x, dtype=np.float64) for x in (learning_rate, num_agents, phase)
        )
        drift = -np.expm1(-alpha * j / self.kappa)
        return self.c1 * alpha / agents + self.c2 * alpha**self.exponent * drift


@dataclass(frozen=True, eq=False)
class DriftFit:
    """A fitted drift-saturation law and the power law it replaces, both judged in log10.

    Attributes:
        law: the fitted law.
        r_squared: of log10 values.
        residual_sd: of log10 values, in dex, with the degrees of freedom of the free parameters.
        num_observations: runs.
        power_law: `log10 D^2 ~ log10(K-1) + log10(alpha)` on the same runs, if K was given.
    """

    law: DriftLaw
    r_squared: float
    residual_sd: float
    num_observations: int
    power_law: Fit | None


def sync_phases(times: ArrayLike, sync_period: ArrayLike) -> np.ndarray:
    """Steps since the last synchronisation at each measuring time.

    A record taken at the step of a synchronisation is taken after it and has phase 0.

    Args:
        times: [M] environment steps of the records.
        sync_period: [...] local steps per round K; infinite for never.

    Returns:
        float64 [..., M], `times mod K`.
    """
    period = np.asarray(sync_period, dtype=np.float64)[..., None]
    # numpy's mod by infinity is the dividend, as wanted
    return np.mod(np.asarray(times, dtype=np.float64), period)


def fit_drift_law(
    values: ArrayLike,
    learning_rate: ArrayLike,
    num_agents: ArrayLike,
    phases: ArrayLike | Sequence[ArrayLike],
    sync_period: ArrayLike | None = None,
    c1: float | None = None,
) -> DriftFit:
    """Least squares of the drift-saturation law in log10.

    The law is averaged over each run's phases before the logarithm is taken, as the values were.

    Args:
        values: [runs] squared distances, each the mean over the run's records (best also over its
            agents), positive.
        learning_rate: [runs] or scalar, alpha.
        num_agents: [runs] or scalar, N. With a single large N the floor c1 hardly shows: fix it.
        phases: [runs, P] steps since the last synchronisation of the records averaged, or one
            sequence per run where their numbers differ.
        sync_period: [runs] K > 1, for the comparison with the power law; left out by default.
        c1: fixes the floor, e.g. to tr S of specification 5.2; fitted by default.

    Returns:
        The law with its goodness of fit.

    Raises:
        ValueError: if there are fewer runs than free parameters, or a value is not positive.
    """
    values = np.asarray(values, dtype=np.float64)
    free = 4 if c1 is None else 3
    if values.ndim != 1 or len(values) < free:
        raise ValueError(f"values must be at least {free} runs, not an array {values.shape}")
    if not np.all((values > 0) & np.isfinite(values)):
        raise ValueError("values must be positive and finite to be fitted in logarithms")
    alpha = np.broadcast_to(np.asarray(learning_rate, dtype=np.float64), values.shape)[:, None]
    agents = np.broadcast_to(np.asarray(num_agents, dtype=np.float64), values.shape)[:, None]
    phase = _padded(phases)
    if len(phase) != len(values):
        raise ValueError(f"phases are given for {len(phase)} runs, values for {len(values)}")

    # In units of their geometric mean, so that start and bounds mean the same in every unit.
    unit = np.exp(np.log(values).mean())
    logs = np.log10(values / unit)

    def law(theta):
        floor = np.exp(theta[3]) if c1 is None else c1 / unit
        return DriftLaw(floor, np.exp(theta[0]), theta[1], np.exp(theta[2]))

    def residuals(theta):
        mean = np.nanmean(law(theta)(alpha, agents, phase), axis=1)
        return np.log10(np.maximum(mean, np.finfo(np.float64).tiny)) - logs

    # Positive parameters are fitted as logarithms. Independent learners have D^2 of the order of
    # alpha, of which the floor is a part, and the drift saturates when alpha j is some tens; a
    # bound stops a floor that the data do not show from running to minus infinity.
    ceiling = np.log(values.max() / unit / alpha.max())
    start = np.array([ceiling, 1.0, np.log(10.0), ceiling - np.log(2.0)])[:free]
    lower = np.array([-np.inf, -np.inf, -np.inf, ceiling - np.log(1e7)])[:free]
    result = optimize.least_squares(residuals, start, bounds=(lower, np.inf), xtol=1e-12)

    total = spread(np.log10(values))
    squares = 2.0 * result.cost
    power_law = None
    if sync_period is not None:
        period = np.broadcast_to(np.asarray(sync_period, dtype=np.float64), values.shape)
        power_law = two_variable(values, sync_period=period - 1.0, learning_rate=alpha[:, 0])
    fitted = law(result.x)
    floor = fitted.c1 * unit if c1 is None else c1
    numbers = floor, fitted.c2 * unit, fitted.exponent, fitted.kappa
    return DriftFit(
        law=DriftLaw(*(float(x) for x in numbers)),
        r_squared=float(1.0 - squares / total) if total > 0 else np.nan,
        residual_sd=float(np.sqrt(squares / (len(values) - free)))
        if len(values) > free
        else np.nan,
        num_observations=len(values),
        power_law=power_law,
    )


def _padded(phases) -> np.ndarray:
    """float64 [runs, P]; shorter rows are filled with NaN, which the averages skip."""
    rows = [np.atleast_1d(np.asarray(row, dtype=np.float64)) for row in phases]
    if not rows or min(map(len, rows)) == 0:
        raise ValueError("every run needs at least one phase")
    padded = np.full((len(rows), max(map(len, rows))), np.nan)
    for row, phase in zip(padded, rows, strict=True):
        row[: len(phase)] = phase
    return padded
