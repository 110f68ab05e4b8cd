"""Laws of the error that tables settle at: EQ 1 and the later bound, EQ 2 and drift (Fig. 5)."""

# ruff: noqa: RUF001 -- the labels say α as the paper does

from __future__ import annotations

import numpy as np

from fedjax_rl import analysis, envs, plotting
from fedjax_rl.analysis import Measured
from fedjax_rl.plotting.style import OKABE_ITO
from fedjax_rl.studies.claims import effect
from fedjax_rl.studies.declared import figure
from fedjax_rl.studies.estimates import mean_of, measured
from fedjax_rl.studies.linear_speedup import grids
from fedjax_rl.studies.linear_speedup.errors import START
from fedjax_rl.studies.linear_speedup.grids import coefficient, numbers_of, pick
from fedjax_rl.studies.linear_speedup.protocols import RECORD
from fedjax_rl.studies.pictures import page, panel, picture

WINDOWS = (50, 100, 300, 1000)
FEW = 100  # resamples, for the deviation of an R^2
NAMES = ("sync_period", "learning_rate", "nuisance")
# Published rows of Fig. 5b: window -> coefficients.
FIG5B = {
    50: {"intercept": -1.4016, "sync_period": 1.2395, "learning_rate": 1.9579, "r_squared": 0.9617},
    60: {"intercept": -0.9763, "sync_period": 0.9457, "learning_rate": 1.7930, "r_squared": 0.9571},
}
ALIASED = """The author's records are 1010 m mod K steps after an exchange, always 210 to 300 steps
for K = 1000, and the slopes are of these phases. Just before every exchange, as under `clean`, they
are others."""
PAIR = ((1, OKABE_ITO[0]), (16, OKABE_ITO[1]))  # N and its colour


def _above(rows) -> Measured:
    """log10 of EQ 1 over the least that the squared sup norm can be, D^2 / 12, at step 10 000."""
    own = pick(rows, epsilon=1.0, learning_rate=0.005, num_agents=16).sel(time=10_000)
    bound = float(analysis.einhorn_bound(0.005, 16, 1, 10_000).total)
    return mean_of(np.log10(bound * 12 / own["error_server"].values))


def _in_time(axis, rows):
    times, mdp = rows["time"].values, envs.paper_mdp()
    theory = envs.linear_theory(mdp, envs.uniform_policy(mdp))
    rate = 2 * np.linalg.eigvals(theory.A).real.min()
    constants = (START * 0.005, theory.trace_steady_state, 1.0, 1.0)
    for n, colour in PAIR:
        own = pick(rows, epsilon=1.0, learning_rate=0.005, num_agents=n)
        first = analysis.einhorn_bound(0.005, n, 1, times).total
        later = analysis.khodadadian_bound(0.005, n, 1, times, constants=constants, c=rate).total
        axis.plot(times, own.error_server.mean("cell"), color=colour, label=f"measured, N = {n}")
        axis.plot(times, first, "--", color=colour, linewidth=1, label=f"EQ 1, N = {n}")
        axis.plot(times, later, ":", color=colour, linewidth=1.4, label=f"constants, N = {n}")
    axis.set(yscale="log", ylim=(1e-4, 50), xlabel="steps", ylabel="D²")


def _in_rate(axis, rows):
    rates = np.geomspace(0.001, 1, 50)
    for n, colour in PAIR:
        own = pick(rows, num_agents=n, sync_period=1).groupby("learning_rate").mean()
        later = analysis.khodadadian_bound(rates, n, 1, np.inf, constants=(0, 2.908, 1, 1)).total
        axis.plot(own.learning_rate, own["final_squared"], "o", color=colour, markersize=3)
        axis.plot(rates, rates / n, "--", color=colour, linewidth=1)
        axis.plot(rates, later, ":", color=colour, linewidth=1.4)
    axis.set(xscale="log", yscale="log", xlabel="α", ylabel="steady-state D²")


@figure("bounds", "EQ 1 and the later bound over what is measured")
def bounds(size):
    """EQ 1 has the shape of a theorem and none of its constants.

    It forgets the start with (1 - α)^T, where this MDP does so with (1 - 0.064 α)^T, and settles at
    α/N, not at 2.9 α/N. With the constants of the MDP (dotted) and the term α³ of the theorem it is
    near the measurement.
    """
    yield effect(
        "EQ 1",
        "log10 of EQ 1 over D^2/12, less than what it bounds: alpha=.005, N=16, 10^4 steps",
        measured(_above, grids.same(size)),
        published="the error is bounded by EQ 1",
        why="EQ 1 leaves the constants of the theorem out: the start is forgotten 16 times slower.",
    )
    yield page(
        "bounds",
        panel(_in_time, grids.same(size), title="α = .005, K = 1"),
        panel(_in_rate, grids.grid(size), title="steady state, K = 1"),
        title=f"bounds on the squared error, {size.seeds} runs on the left",
        caption="EQ 1: all constants 1; constants: those of this MDP to first order",
    )


# Figure 5 -----------------------------------------------------------------------------------------


def columns(rows) -> list[np.ndarray]:
    """D^2, K, alpha and N of every run."""
    names = ("sync_period", "learning_rate", "num_agents")
    return [rows["final"].values ** 2, *(rows[name].values for name in names)]


def phases(rows) -> np.ndarray:
    """Steps since the last exchange at the records that were averaged, [cell, P]."""
    period = rows["sync_period"].values
    if "records" not in rows:  # the clean protocol looks just before the exchange
        return period[:, None] - 1
    last = rows["records"].values[:, None] + np.arange(-9, 1)
    return (last * RECORD) % period[:, None]


def drift(rows) -> analysis.DriftFit:
    """The drift-saturation law on the mean over all agents, at the phases really measured."""
    _, period, alpha, agents = columns(rows)
    own = rows["all_squared"].values, alpha, agents, phases(rows)
    return analysis.fit_drift_law(*own, sync_period=period)


def _resampled(function, rows) -> Measured:
    """A number of a regression with an interval of resampled runs."""
    every = np.arange(rows.sizes["cell"])
    found = analysis.bootstrap_fit(
        every,
        lambda own: function(rows.isel(cell=own)),
        every,
        interval="student",
        num_resamples=FEW,
    )
    return Measured(found.value, found.low, found.high, every.size)


def _free(rows) -> list[Measured]:
    """T13."""
    fit = analysis.factored(*columns(rows))
    least = _resampled(lambda own: analysis.factored(*columns(own)).r_squared, rows)
    return [*(coefficient(fit, name) for name in NAMES), least]


def _as_printed(rows) -> list[Measured]:
    """T14."""
    fit = analysis.factored(*columns(rows), nuisance="one")
    return [coefficient(fit, name) for name in NAMES[:2]]


def _windows(name: str, windows=WINDOWS):
    def of(rows):
        fits = analysis.windowed(*columns(rows), windows=windows)
        return [coefficient(fits[window], name) for window in windows]

    return of


def _rates(rows) -> list[Measured]:
    """T16; in which window R^2 is least, is decided once."""
    fits = analysis.windowed(*columns(rows))
    worst = [min(fits, key=lambda one: fits[one].r_squared)]

    def least(own):
        return analysis.windowed(*columns(own), windows=worst)[worst[0]].r_squared

    return [*_windows("learning_rate", (50, 1000))(rows), _resampled(least, rows)]


def _gain(rows) -> float:
    found = drift(rows)
    return found.r_squared - found.power_law.r_squared


def _law(rows) -> list[Measured]:
    """T17."""
    return [_resampled(of, rows) for of in (lambda own: drift(own).r_squared, _gain)]


def _scatter(rows):
    return plotting.drift(*columns(rows), drift(rows).law, phases=phases(rows))


@figure("fig5", "steady-state error against the sync period")
def fig5(size):
    """The slopes quoted for EQ 2 are of a regression whose last term has a coefficient of -1466.

    As printed, with one, they are others (T14). Neither is a law: agents drift apart until they are
    independent, and the law of that (T17) explains what the power law leaves.
    """
    made, design = grids.periods(size), grids.all_periods(size)
    fitted = numbers_of(design)
    yield fitted(
        "T13",
        "(a) EQ 2 with a free nuisance: K, alpha, nuisance, R^2",
        _free,
        ((0.175, 0.235), (1.33, 1.42), (-1800, -1150), (0.95, None)),
        published=(0.2075, 1.378, -1466, 0.963),
        why=ALIASED,
    )
    yield fitted(
        "T14",
        "(a) EQ 2 as printed (nuisance 1): K, alpha",
        _as_printed,
        ((0.335, 0.41), (1.44, 1.53)),
        reference=(0.370, 1.490),
        why=ALIASED,
    )
    yield fitted(
        "T15",
        "(b) K-slope in the windows up to 50, 100, 300, 1000",
        _windows("sync_period"),
        ((0.6, 1.4), (0.5, 0.9), (0, 0.25), (0, 0.15)),
        published=(1.24, 0.68, 0.10, 0.07),
        why=ALIASED,
    )
    yield fitted(
        "T16",
        "(b) alpha-slope in the windows up to 50 and 1000; least R^2",
        _rates,
        ((1.35, 2.2), (1.35, 1.50), (0.90, None)),
        published=(1.96, 1.41, 0.9),
        why=ALIASED,
    )
    yield numbers_of(made)(
        "T17",
        "R^2 of the drift-saturation law, and what it gains on the power law",
        _law,
        ((0.985, None), (0.015, None)),
        reference=(0.996, 0.027),
        why="At one phase, as under `clean`, the power law has less to miss.",
    )
    yield picture("fig5a", _scatter, made)
    yield picture(
        "fig5b",
        lambda rows: plotting.coefficients(analysis.windowed(*columns(rows)), published=FIG5B),
        design,
    )


FIGURES = (bounds, fig5)
