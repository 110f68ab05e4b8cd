"""The numbers behind figures: hand-computed, against references, and on data with known slopes."""

import doctest
import importlib
import json
import math
import pkgutil

import lifelines
import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from fedjax_rl import analysis, plotting
from fedjax_rl.federation import communication_time

AGENTS = np.array([1, 2, 4, 8, 16])


# --- steady state ---------------------------------------------------------------------------------


def test_tail_mean_by_hand():
    d = np.array([[9.0, 1.0, 2.0, 3.0], [9.0, 9.0, 4.0, 4.0]])
    np.testing.assert_allclose(analysis.tail_mean(d, last=2), [2.5, 4.0])
    np.testing.assert_allclose(analysis.tail_mean(d**2, last=2), [6.5, 16.0])
    np.testing.assert_allclose(analysis.tail_mean(d, last=2, end=[3, 4]), [1.5, 4.0])
    np.testing.assert_allclose(analysis.tail_mean(d.T, last=2, axis=0), [2.5, 4.0])


def test_tail_mean_refuses_short_runs():
    with pytest.raises(ValueError, match="a tail of 10 records"):
        analysis.tail_mean(np.ones(9))
    assert analysis.tail_mean(np.arange(9), last=2, end=3.0) == 1.5
    with pytest.raises(ValueError, match=r"end is 2\.5; allowed: whole numbers"):
        analysis.tail_mean(np.ones(9), last=2, end=2.5)
    with pytest.raises(ValueError, match="keeping 3 to 3"):
        analysis.tail_mean(np.ones(9), last=4, end=3)


def test_settled_mean_by_hand():
    times, values = np.array([10, 20, 30, 40]), np.array([[8.0, 4.0, 2.0, 4.0], [1.0, 1, 1, 3]])
    np.testing.assert_allclose(analysis.settled_mean(values, times), [3.0, 2.0])
    np.testing.assert_allclose(analysis.settled_mean(values, times, burn_in=30), [4.0, 3.0])
    np.testing.assert_allclose(analysis.settled_mean(values, times, fraction=0.0), [4.5, 1.5])
    np.testing.assert_allclose(analysis.settled_mean(values.T, times, axis=0), [3.0, 2.0])
    with pytest.raises(ValueError, match="no record after a burn-in of 40 steps"):
        analysis.settled_mean(values, times, burn_in=40)
    with pytest.raises(ValueError, match="not both"):
        analysis.settled_mean(values, times, burn_in=1, fraction=0.1)


def author_loop(d, u):
    """Specification 2.4 read aloud: one run d [N, M], one uniform number u."""
    num_agents, num_records = d.shape
    for m in range(1, num_records + 1):
        stops = []
        for i in range(num_agents):
            a = d[i, m - 1] < 0.01
            b = m >= 30 and m % 10 == 0
            b = b and np.mean(d[i, m - 10 : m]) > np.mean(d[i, m - 20 : m - 10])
            if a or b:
                stops.append(i)
        if stops:
            return m, stops[int(u * len(stops))], True
    return num_records, int(u * num_agents), False


@pytest.mark.parametrize(("decay", "noise"), [(0.0, 0.1), (0.03, 0.02), (0.1, 0.3), (0.05, 0.0)])
@pytest.mark.parametrize("num_records", [5, 29, 30, 73])
def test_author_stop_against_a_loop(decay, noise, num_records):
    rng = np.random.default_rng(3)
    shape = (4, 5, 3, num_records)
    d = np.exp(-decay * np.arange(num_records)) * (1 + noise * rng.normal(size=shape))
    d = np.abs(d)
    stop = analysis.author_stop(d, np.random.default_rng(8))
    uniforms = np.random.default_rng(8).random(shape[:2])
    for index in np.ndindex(shape[:2]):
        expected = author_loop(d[index], uniforms[index])
        assert (stop.num_records[index], stop.agent[index], stop.stopped[index]) == expected


def test_author_stop_rules():
    rng = np.random.default_rng(0)
    falling = np.linspace(1.0, 0.5, 60)
    stop = analysis.author_stop(falling[None], rng)
    assert (int(stop.num_records), bool(stop.stopped)) == (60, False)
    # Equal blocks are not a rise, however their means are rounded.
    assert not analysis.author_stop(np.full((1, 60), 0.1), rng).stopped
    # A rise in the third ten stops at 30, one in the second is not looked at.
    early, late = falling.copy(), falling.copy()
    early[10:20], late[20:30] = 1.0, 1.0
    assert analysis.author_stop(early[None], rng).num_records == 60
    stop = analysis.author_stop(np.stack([falling, late]), rng)
    assert (int(stop.num_records), int(stop.agent)) == (30, 1)
    # Rule (a) acts at once and reports the agent that got there.
    low = falling.copy()
    low[3] = 0.0099
    stop = analysis.author_stop(np.stack([falling, falling, low]), rng)
    assert (int(stop.num_records), int(stop.agent)) == (4, 2)
    with pytest.raises(ValueError, match=r"\[\.\.\., agents, records\]"):
        analysis.author_stop(falling, rng)


def test_author_stop_draws_equal_agents_uniformly():
    d = np.broadcast_to(np.linspace(1.0, 2.0, 40), (4000, 4, 40))
    stop = analysis.author_stop(d, np.random.default_rng(1))
    assert np.all(stop.num_records == 30)
    counts = np.bincount(stop.agent, minlength=4)
    assert stats.chisquare(counts).pvalue > 1e-3


def test_the_agent_reported_exists():
    d = np.full((500, 4, 30), np.nan)  # federations of two, beside ones of four
    d[:, :2] = np.linspace(2.0, 1.0, 30)
    stop = analysis.author_stop(d, np.random.default_rng(1))
    assert not stop.stopped.any()
    assert set(stop.agent) == {0, 1}
    assert np.isfinite(analysis.author_final(d, stop)[0]).all()


def test_author_final_uses_the_reported_agent_and_its_records():
    d = np.stack([np.full(50, 5.0), np.linspace(2.0, 1.0, 50)])
    d[1, 20:30] = [3.0, 5.0] * 5
    d[1, 30:] = 99.0
    stop = analysis.author_stop(d, np.random.default_rng(0))
    final, final_sq = analysis.author_final(d, stop)
    assert (int(stop.num_records), float(final), float(final_sq)) == (30, 4.0, 17.0)
    short = np.array([[4.0, 2.0, 0.001, 7.0]])
    stop = analysis.author_stop(short, np.random.default_rng(0))
    np.testing.assert_allclose(analysis.author_final(short, stop)[0], 6.001 / 3)


# --- time to threshold ----------------------------------------------------------------------------


def test_time_to_threshold_by_hand():
    values = np.array([[0.5, 0.1, 0.05, 0.2], [0.5, 0.4, 0.3, 0.1], [0.01, 1, 1, 1]])
    reached = analysis.time_to_threshold([10, 20, 30, 40], values, 0.1)
    np.testing.assert_array_equal(reached.time, [30, np.nan, 10])  # 0.1 itself is not below 0.1
    np.testing.assert_array_equal(reached.censored, [False, True, False])
    np.testing.assert_array_equal(reached.last, [40, 40, 40])
    np.testing.assert_array_equal(reached.time_or_limit, [30, 40, 10])
    cut = analysis.time_to_threshold([10, 20, 30, 40], values, 0.1, end=[2, 3, 1])
    np.testing.assert_array_equal(cut.time, [np.nan, np.nan, 10])
    np.testing.assert_array_equal(cut.last, [20, 30, 10])
    above = analysis.time_to_threshold([10, 20, 30, 40], values, 0.5, above=True)
    np.testing.assert_array_equal(above.time, [np.nan, np.nan, 20])
    assert np.isnan(analysis.time_to_threshold([1.0], [np.nan], 0.1).time)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.floats(0, 1), st.floats(0, 1))
def test_a_lower_threshold_is_never_reached_earlier(values, one, other):
    times = np.arange(1, len(values) + 1)
    low, high = sorted([one, other])
    harder = analysis.time_to_threshold(times, values, low)
    easier = analysis.time_to_threshold(times, values, high)
    assert harder.censored or easier.time <= harder.time
    assert np.isnan(harder.time) == harder.censored


def threshold_times(times, censored):
    times, censored = np.asarray(times, dtype=float), np.asarray(censored, dtype=bool)
    return analysis.ThresholdTime(np.where(censored, np.nan, times), censored, times)


def test_kaplan_meier_by_hand_and_against_lifelines():
    times, censored = [1, 2, 3, 4, 5, 6, 7], [0, 1, 0, 0, 1, 0, 0]
    reached = threshold_times(times, censored)
    curve = analysis.kaplan_meier_curve(reached)
    # S = 6/7, then 4/5, 3/4, 1/2 and 0 of what is left
    left = np.cumprod([6 / 7, 4 / 5, 3 / 4, 1 / 2, 0.0])
    np.testing.assert_array_equal(curve.time, [1, 3, 4, 6, 7])
    np.testing.assert_allclose(curve.fraction, 1 - left, atol=1e-15)
    median = analysis.kaplan_meier_median(reached)
    reference = lifelines.KaplanMeierFitter().fit(times, 1 - np.array(censored))
    assert median.median == reference.median_survival_time_ == 6
    limits = lifelines.utils.median_survival_times(reference.confidence_interval_).to_numpy()[0]
    assert median.low == limits[0]
    assert median.low <= median.median <= median.high
    assert (median.num_reached, median.num_runs) == (5, 7)


def test_kaplan_meier_degenerate():
    nothing = analysis.kaplan_meier_median(threshold_times([9, 9, 9], [1, 1, 1]))
    assert np.isnan(nothing.median)
    assert nothing.high == np.inf
    few = analysis.kaplan_meier_median(threshold_times([5] + [9] * 99, [0] + [1] * 99))
    assert np.isnan(few.median)
    assert few.high == np.inf
    same = analysis.kaplan_meier_median(threshold_times([1010] * 4, [0] * 4))
    assert (same.median, same.low, same.high) == (1010, 1010, 1010)
    assert np.isnan(analysis.kaplan_meier_median(threshold_times([3], [0])).low)
    with pytest.raises(ValueError, match="no runs"):
        analysis.kaplan_meier_median(threshold_times([], []))


@pytest.mark.parametrize("count", [2, 6, 10, 12, 18, 56, 58, 84, 200])
def test_the_median_of_an_even_number_of_runs_is_the_first_time_with_fewer_than_half_left(count):
    """After half of them exactly half is left, whichever way the product of n steps is rounded."""
    times = np.arange(1, count + 1)
    everybody = analysis.kaplan_meier_median(threshold_times(times, np.zeros(count)))
    assert everybody.median == count // 2 + 1
    half = analysis.kaplan_meier_median(threshold_times(times, times > count // 2))
    assert np.isnan(half.median)
    # Ties and censoring in between: S = 3/4, then 3/4 * 2/3 = 1/2, then 1/4.
    tied = analysis.kaplan_meier_median(
        threshold_times(np.repeat([1, 2, 3, 4, 5], [1, 0, 1, 1, 1]), [0, 0, 0, 0])
    )
    assert tied.median == 4


def test_censoring_shifts_the_median_up():
    event = np.random.default_rng(0).exponential(10.0, size=400)
    limit = np.random.default_rng(1).uniform(2.0, 20.0, size=400)
    censored = event > limit
    honest = analysis.kaplan_meier_median(threshold_times(np.minimum(event, limit), censored))
    assert honest.low < 10 * np.log(2) < honest.high
    assert np.median(event[~censored]) < honest.low


# --- regressions ----------------------------------------------------------------------------------


def test_ols_by_hand():
    # x = 0, 1, 2; y = 1, 2, 4: slope 3/2, intercept 5/6, residuals 1/6, -1/3, 1/6
    fit = analysis.ols([1.0, 2.0, 4.0], x=[0.0, 1.0, 2.0])
    assert fit.names == ("intercept", "x")
    np.testing.assert_allclose(fit.params, [5 / 6, 3 / 2])
    np.testing.assert_allclose(fit.residual_sd, math.sqrt(1 / 6))
    np.testing.assert_allclose(fit.standard_errors, np.sqrt([1 / 6 * 5 / 6, 1 / 12]))
    np.testing.assert_allclose(fit.r_squared, 1 - (1 / 6) / (14 / 3))
    quantile = stats.t.ppf(0.975, 1)
    np.testing.assert_allclose(
        fit.interval("x"), [1.5 - quantile / math.sqrt(12), 1.5 + quantile / math.sqrt(12)]
    )
    assert (fit.df, fit.num_observations, fit["x"]) == (1, 3, fit.params[1])
    assert json.loads(json.dumps(fit.to_dict(), allow_nan=False))["df"] == 1.0


def test_band_is_that_of_statsmodels():
    rng = np.random.default_rng(0)
    u, v = rng.normal(size=(2, 30))
    y = 1 + u - 2 * v + rng.normal(size=30)
    fit = analysis.ols(y, u=u, v=v)
    design = sm.add_constant(np.column_stack([u, v]))
    frame = sm.OLS(y, design).fit().get_prediction(design).summary_frame()
    mean, low, high = fit.predict(np.column_stack([u, v]))
    np.testing.assert_allclose(mean, frame["mean"])
    np.testing.assert_allclose(low, frame["mean_ci_lower"])
    np.testing.assert_allclose(high, frame["mean_ci_upper"])
    with pytest.raises(ValueError, match="predict needs the columns"):
        fit.predict(u)


@given(
    st.floats(-3, 3),
    st.floats(-3, 3),
    st.sampled_from([2.0, 10.0, math.e]),
)
def test_loglog_recovers_a_power_law(slope, log_scale, base):
    x = np.array([1.0, 2, 4, 8, 16, 3])
    fit = analysis.loglog(x, base**log_scale * x**slope, base=base)
    np.testing.assert_allclose(fit.params, [log_scale, slope], atol=1e-9)


def test_two_variable_and_factored_recover_their_slopes():
    alpha, period = (grid.ravel() for grid in np.meshgrid([0.1, 0.2, 0.4], [20, 50, 100, 400]))
    fit = analysis.two_variable(
        3 * alpha**1.1 * period**-0.9, learning_rate=alpha, num_agents=period
    )
    np.testing.assert_allclose(fit.params, [np.log10(3), 1.1, -0.9], atol=1e-12)

    steps, n = period - 1.0, 256
    term = 1 + 1 / (n * alpha * steps)
    for nuisance, power in (("free", -1466.0), ("one", 1.0), ("none", 0.0)):
        y = 1.7 * steps**0.2075 * alpha**1.378 * term**power
        fit = analysis.factored(y, period, alpha, n, nuisance=nuisance)
        np.testing.assert_allclose(fit.params[:3], [np.log10(1.7), 0.2075, 1.378], atol=1e-8)
        assert fit.names[1:3] == ("sync_period", "learning_rate")
    free = analysis.factored(1.7 * steps * term**-1466, period, alpha, n)
    np.testing.assert_allclose(free["nuisance"], -1466, rtol=1e-8)
    with pytest.raises(ValueError, match="'free', 'one' or 'none'"):
        analysis.factored(y, period, alpha, n, nuisance="two")
    with pytest.raises(ValueError, match="sync_period - 1 must be positive"):
        analysis.factored(y, np.ones_like(period), alpha, n)


def test_windowed_takes_the_rows_of_its_window():
    rng = np.random.default_rng(0)
    period, alpha = (
        grid.ravel()
        for grid in np.meshgrid(np.arange(20, 401, 10), np.array([0.1, 0.2, 0.4], np.float32))
    )
    y = period**0.3 * alpha**1.4 * np.exp(0.1 * rng.normal(size=period.size))
    fits = analysis.windowed(y, period, alpha, 256)
    assert list(fits) == list(range(50, 401, 10))
    # K = 50: K' = 20..50 (4 values); K = 400: K' = 80..400 (33); two learning rates each.
    assert (fits[50].num_observations, fits[400].num_observations) == (8, 66)
    rows = (period >= 80) & (alpha > 0.15)
    expected = analysis.factored(y[rows], period[rows], alpha[rows], 256)
    np.testing.assert_allclose(fits[400].params, expected.params)
    with pytest.raises(ValueError, match=r"window ending at K = 10: .*0 observations"):
        analysis.windowed(y, period, alpha, 256, windows=[10])


def test_regressions_name_what_is_wrong():
    with pytest.raises(ValueError, match=r"2 observations .* 3 coefficients .*'u', 'v'"):
        analysis.ols([1.0, 2.0], u=[1.0, 2.0], v=[0.0, 1.0])
    with pytest.raises(ValueError, match="u has 1 values that are not finite"):
        analysis.ols([1.0, 2.0, 3.0], u=[1.0, np.nan, 2.0])
    with pytest.raises(ValueError, match=r"'u'\) are collinear"):
        analysis.ols([1.0, 2.0, 3.0], u=[2.0, 2.0, 2.0])
    with pytest.raises(ValueError, match=r"u has shape \(2,\)"):
        analysis.ols([1.0, 2.0, 3.0], u=[2.0, 2.0])
    with pytest.raises(ValueError, match="y must be positive"):
        analysis.loglog([1, 2], [0, 1])
    with pytest.raises(ValueError, match="two regressors"):
        analysis.two_variable([1, 2], u=[1, 2])
    with pytest.raises(KeyError, match="there are intercept, u"):
        analysis.ols([1.0, 2.0, 4.0], u=[1.0, 2.0, 3.0])["v"]


@settings(max_examples=50, deadline=None)
@given(st.floats(1e-150, 1e150), st.integers(3, 40), st.sampled_from([1.0, -1.0]))
def test_constant_data_have_no_r_squared(value, count, sign):
    assert np.isnan(analysis.ols(np.full(count, sign * value), x=np.arange(count)).r_squared)


def test_small_variations_have_an_r_squared():
    y = 1 + 1e-9 * np.array([0.0, 1, 2, 4])
    expected = stats.linregress(range(4), [0.0, 1, 2, 4]).rvalue ** 2
    np.testing.assert_allclose(analysis.ols(y, x=range(4)).r_squared, expected, rtol=1e-5)


def test_columns_of_any_unit_and_offset_are_fitted():
    rng = np.random.default_rng(0)
    s, a = np.arange(1, 8.0), np.array([3.0, 1, 4, 1, 5, 9, 2])
    y = 2 + 3 * s - 5 * a + 0.1 * rng.normal(size=7)
    plain = analysis.ols(y, s=s, a=a)
    design = sm.add_constant(np.column_stack([s, a]))
    np.testing.assert_allclose(plain.covariance, sm.OLS(y, design).fit().cov_params(), rtol=1e-9)
    scaled = analysis.ols(y, s=1e9 * s, a=1e-7 * a)
    unit = np.array([1.0, 1e-9, 1e7])
    np.testing.assert_allclose(scaled.params, plain.params * unit, rtol=1e-9)
    np.testing.assert_allclose(scaled.standard_errors, plain.standard_errors * unit, rtol=1e-9)
    np.testing.assert_allclose([scaled.r_squared, scaled.df], [plain.r_squared, 4])
    x = np.arange(10.0)
    for offset in (1e8, 1e12):
        np.testing.assert_allclose(analysis.ols(5 + 2 * x, x=offset + x)["x"], 2, rtol=1e-9)
        with pytest.raises(ValueError, match="collinear"):
            analysis.ols(5 + 2 * x, x=x, z=offset + x)


def test_confidence_is_no_percentage():
    x = np.arange(4.0)
    for call in (
        lambda: analysis.ols(x**2, confidence=95, x=x),
        lambda: analysis.tobit(x**2, x < 0, confidence=95, x=x),
        lambda: analysis.bootstrap_interval(x, confidence=95),
        lambda: analysis.bootstrap_fit(x, np.mean, x, confidence=95),
        lambda: analysis.kaplan_meier_median(threshold_times(x, x < 0), 95),
        lambda: analysis.mean_interval(x, level=95),
    ):
        with pytest.raises(ValueError, match="is 95; allowed: above 0 and below 1"):
            call()


def test_exact_fit_has_no_errors_and_is_json_safe():
    fit = analysis.loglog([1, 10], [5, 50])
    np.testing.assert_allclose(fit.params, [np.log10(5), 1.0])
    assert np.all(np.isnan(fit.intervals))
    assert np.all(np.isnan(fit.predict([0.0, 1.0])[1]))
    assert json.loads(json.dumps(fit.to_dict(), allow_nan=False))["residual_sd"] is None


def test_ols_intervals_cover():
    rng = np.random.default_rng(0)
    x = np.tile(np.log2([1, 2, 4, 8]), 3)
    fits = [analysis.ols(1 - x + 0.5 * rng.normal(size=12), x=x) for _ in range(200)]
    covered = np.mean([fit.interval("x")[0] < -1 < fit.interval("x")[1] for fit in fits])
    assert 0.89 < covered < 0.99


# --- censored regression --------------------------------------------------------------------------


def runs(slope, num_trials, seed, sd=0.55):
    """Log2 times over N in {1, 2, 4, 8}, cut off early where N is large (specification 7.6)."""
    rng = np.random.default_rng(seed)
    x = np.tile(np.arange(4.0), num_trials)
    event = 10.5 + slope * x + sd * rng.normal(size=x.size)
    limit = np.log2(np.array([4000, 2500, 1200, 850]))[x.astype(int)]
    return x, np.minimum(event, limit), event > limit


def test_tobit_without_censoring_is_ols():
    x, _, _ = runs(-0.5, 10, seed=0)
    y = 10 - 0.5 * x + 0.5 * np.random.default_rng(0).normal(size=40)
    plain = analysis.ols(y, x=x)
    fit = analysis.tobit(y, np.zeros(40, bool), interval="wald", x=x)
    ratio = np.sqrt(38 / 40)  # maximum likelihood divides by n, not n - p
    np.testing.assert_allclose(fit.params, plain.params, rtol=1e-7)
    np.testing.assert_allclose(fit.standard_errors, plain.standard_errors * ratio, rtol=1e-6)
    np.testing.assert_allclose(fit.residual_sd, plain.residual_sd * ratio, rtol=1e-7)
    reach = stats.norm.ppf(0.975) * fit.standard_errors
    np.testing.assert_allclose(fit.intervals[:, 1] - fit.params, reach)
    # The profile of a normal regression is n / 2 log(1 + (b - b0)^2 / (n se^2)).
    profile = analysis.tobit(y, np.zeros(40, bool), x=x)
    half = fit.standard_error("x") * np.sqrt(40 * np.expm1(stats.chi2.ppf(0.95, 1) / 40))
    np.testing.assert_allclose(profile.intervals[1], fit["x"] + half * np.array([-1, 1]), rtol=1e-5)
    assert fit.predict([0.0, 1.0])[0].shape == (2,)


def test_tobit_with_censoring_is_lifelines():
    import pandas as pd

    x, y, censored = runs(-0.3, 20, seed=1)
    assert censored.sum() > 10
    fit = analysis.tobit(y, censored, interval="wald", x=x)
    frame = pd.DataFrame({"time": np.exp(y), "reached": ~censored, "x": x})
    reference = lifelines.LogNormalAFTFitter().fit(frame, "time", "reached")
    np.testing.assert_allclose(fit["x"], reference.params_["mu_", "x"], atol=1e-4)
    np.testing.assert_allclose(fit["intercept"], reference.params_["mu_", "Intercept"], rtol=1e-4)
    log_sd = reference.params_["sigma_", "Intercept"]
    np.testing.assert_allclose(np.log(fit.residual_sd), log_sd, atol=1e-4)
    errors = reference.standard_errors_
    np.testing.assert_allclose(fit.standard_error("x"), errors["mu_", "x"], rtol=1e-3)
    assert (fit.num_censored, fit.num_observations) == (censored.sum(), 80)


@pytest.mark.thorough
def test_dropping_censored_runs_manufactures_speedup():
    fits = []
    for seed in range(60):
        x, y, censored = runs(0.0, 3, seed)
        kept = ~censored
        if kept.sum() > 3 and np.ptp(x[kept]) > 0:
            tobit = analysis.tobit(y, censored, x=x)
            fits.append((analysis.ols(y[kept], x=x[kept])["x"], tobit["x"], *tobit.interval("x")))
    dropped, honest, low, high = np.array(fits).T
    assert len(fits) > 40
    assert np.median(dropped) < -0.15
    assert abs(np.median(honest)) < 0.1
    assert np.mean((low < 0) & (high > 0)) > 0.85


def test_profile_interval_leans_to_the_side_left_open():
    # Everything beyond x = 1 is censored below the line: little speaks against a steeper rise.
    x = np.array([0.0, 0, 0, 1, 1, 2, 2, 2])
    y = np.array([1.0, 1.2, 0.9, 1.1, 1.3, 0.2, 0.2, 0.2])
    fit = analysis.tobit(y, np.array([0, 0, 0, 0, 1, 1, 1, 1], bool), x=x)
    low, high = fit.interval("x")
    assert 0 < 1.2 * (fit["x"] - low) < high - fit["x"]


def test_tobit_refuses_what_it_cannot_identify():
    y, x = np.arange(5.0), np.array([0.0, 0, 0, 1, 1])
    with pytest.raises(ValueError, match="3 uncensored of 5 observations cannot identify"):
        analysis.tobit(y, [0, 0, 0, 1, 1], x=x)
    with pytest.raises(ValueError, match="exactly on a line"):
        analysis.tobit(2 + 3 * y, np.zeros(5, bool), x=y)
    tiny = 1e-12 * np.array([1.0, 2, 4, 3, 6])  # no line, in any unit
    assert analysis.tobit(tiny, np.zeros(5, bool), x=y)["x"] == pytest.approx(1.1e-12)
    with pytest.raises(ValueError, match="'profile' or 'wald'"):
        analysis.tobit(y, np.zeros(5, bool), interval="exact", x=x)


def recorded(rng, agents, seeds, records, slope=-1.0, noise=0.07, first=0.8):
    """Runs of true time first * N**slope with log-normal noise, seen at equally spaced records."""
    n = np.repeat(agents, seeds)
    true = first * n**slope * np.exp(noise * rng.normal(size=n.size))
    times = np.arange(1, records + 1) / records
    return n, analysis.time_to_threshold(times, (times < true[:, None]).astype(float), 0.5)


def test_points_give_the_limits_and_the_band_of_least_squares():
    rng = np.random.default_rng(0)
    x = np.repeat(np.log2(AGENTS), 3)
    y = 3 - x + 0.2 * rng.normal(size=15)
    fit, plain = analysis.interval_regression(y, y, x=x), analysis.ols(y, x=x)
    np.testing.assert_allclose(fit.params, plain.params, rtol=1e-9)
    np.testing.assert_allclose(fit.standard_errors, plain.standard_errors, rtol=1e-5)
    np.testing.assert_allclose(fit.intervals, plain.intervals, rtol=1e-5)
    np.testing.assert_allclose(fit.residual_sd, plain.residual_sd, rtol=1e-6)
    assert fit.df == plain.df
    # Interpolated between nodes and within a thousandth of an error, which is drawn.
    place = np.linspace(0, 4, 60)
    for ours, theirs in zip(fit.predict(place), plain.predict(place), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=3e-4)


def test_intervals_are_fitted_as_by_lifelines():
    import pandas as pd

    n, reached = recorded(np.random.default_rng(3), AGENTS, 12, 30, noise=0.3)
    assert np.any(reached.before == 0)
    assert np.any(reached.censored)
    with np.errstate(divide="ignore"):
        ends = np.log(reached.lower), np.log(reached.upper)
    fit = analysis.interval_regression(*ends, interval="wald", x=np.log(n))
    low = np.maximum(reached.lower, 1e-3)  # far below every run; it takes no zero
    frame = pd.DataFrame({"low": low, "high": reached.upper, "x": np.log(n)})
    reference = lifelines.LogNormalAFTFitter().fit_interval_censoring(frame, "low", "high")
    np.testing.assert_allclose(fit["x"], reference.params_["mu_", "x"], atol=1e-4)
    np.testing.assert_allclose(fit["intercept"], reference.params_["mu_", "Intercept"], atol=1e-4)
    np.testing.assert_allclose(
        np.log(fit.residual_sd), reference.params_["sigma_", "Intercept"], atol=1e-4
    )
    np.testing.assert_allclose(
        fit.standard_error("x"), reference.standard_errors_["mu_", "x"], rtol=1e-3
    )
    # The profile ends where twice the log-likelihood has fallen by the quantile of chi-squared.
    profile = analysis.interval_regression(*ends, interval="profile", x=np.log(n))

    def log_likelihood(theta):
        mean, sd = theta[0] + theta[1] * np.log(n), np.exp(theta[2])
        inside = stats.norm.cdf((ends[1] - mean) / sd) - stats.norm.cdf((ends[0] - mean) / sd)
        return np.log(np.maximum(inside, 1e-300)).sum()

    start = np.array([fit["intercept"], np.log(fit.residual_sd)])
    for end in profile.interval("x"):
        best = optimize.minimize(
            lambda t, end=end: -log_likelihood([t[0], end, t[1]]), start, method="Nelder-Mead"
        )
        top = log_likelihood([fit["intercept"], fit["x"], np.log(fit.residual_sd)])
        np.testing.assert_allclose(2 * (top + best.fun), stats.chi2.ppf(0.95, 1), rtol=1e-3)


def test_where_a_line_goes_through_every_interval_the_middle_one_is_given():
    # Any line that is above 0 at 0, below 1 at 0, and so on: slopes within (-2, 2) about 1.
    low, x = np.array([0.0, 1.0, 2.0, 0.5]), np.array([0.0, 1.0, 2.0, 0.5])
    fit = analysis.interval_regression(low, low + 1, x=x)
    np.testing.assert_allclose(fit.params, [0.5, 1.0], atol=1e-5)
    lower, upper = fit.interval("x")
    assert lower < 0.5 < 1.5 < upper  # slopes from 0.5 to 1.5 go through all
    assert fit.residual_sd == 0
    assert upper - lower == pytest.approx(2 * stats.t.ppf(0.975, 2) * fit.standard_error("x"))
    with pytest.raises(ValueError, match="exactly on a line"):
        analysis.interval_regression([0.0, 1.0, 2.0], [0.0, 1.0, 2.0], x=[0.0, 1.0, 2.0])


def check_slopes(agents, seeds, records, repetitions, seed):
    """The interval covers in 92 to 97 %, and the slope is right on average."""
    rng = np.random.default_rng(seed)
    found, naive = [], []
    for _ in range(repetitions):
        n, reached = recorded(rng, agents, seeds, records)
        fit = analysis.speedup_fit(n, reached)
        low, high = fit.interval("slope")
        found.append((fit["slope"], fit.standard_error("slope"), low <= -1 <= high))
        naive.append(analysis.loglog(n, reached.time_or_limit)["slope"])
    slope, error, covered = np.array(found, float).T
    rounding = slope.std() / np.sqrt(repetitions)
    assert abs(slope.mean() + 1) < 4 * rounding
    np.testing.assert_allclose(error.mean(), slope.std(), rtol=4 / np.sqrt(2 * repetitions))
    slack = 3 * np.sqrt(0.05 * 0.95 / repetitions)
    assert 0.92 - slack < covered.mean() < 0.97 + slack
    # Taken at the records that show them, crossings of many agents come late.
    assert np.mean(naive) + 1 > 10 * rounding


def test_slopes_of_crossings_seen_at_a_hundred_records_are_right():
    check_slopes(2 ** np.arange(6), 6, 100, 60, seed=0)


@pytest.mark.thorough
@pytest.mark.parametrize("most", [16, 32])
@pytest.mark.parametrize("seeds", [2, 3, 6])
def test_slopes_of_crossings_cover(most, seeds):
    check_slopes(2 ** np.arange(int(np.log2(most)) + 1), seeds, 100, 500, seed=1)


def test_a_crossing_lies_between_two_records():
    values = np.array([[9, 0, 9, 9], [9, np.nan, 0, 9], [0, 9, 9, 9], [9, 9, 9, 9.0]])
    reached = analysis.time_to_threshold([10, 20, 30, 40], values, 1.0)
    np.testing.assert_array_equal(reached.lower, [10, 10, 0, 40])  # a NaN says nothing
    np.testing.assert_array_equal(reached.upper, [20, 30, 10, np.inf])
    with pytest.raises(ValueError, match="times must increase"):
        analysis.time_to_threshold([10, 30, 20, 40], values, 1.0)
    at_once = analysis.time_to_threshold([0, 20, 30, 40], values, 1.0)
    with pytest.raises(ValueError, match="1 runs are beyond the threshold from the start"):
        analysis.speedup_fit([1, 2, 4, 8], at_once)


@settings(max_examples=10, deadline=None)
@given(st.floats(0.01, 100), st.floats(0.01, 100), st.integers(0, 1000))
def test_tobit_follows_a_change_of_units(y_unit, x_unit, seed):
    x, y, censored = runs(-0.5, 6, seed)
    fit = analysis.tobit(y, censored, interval="wald", x=x)
    other = analysis.tobit(y * y_unit, censored, interval="wald", x=x * x_unit)
    factor = np.array([y_unit, y_unit / x_unit])
    np.testing.assert_allclose(other.params, fit.params * factor, rtol=1e-4)
    np.testing.assert_allclose(other.standard_errors, fit.standard_errors * factor, rtol=1e-3)


def test_tobit_follows_a_change_of_origin():
    x, y, censored = runs(-0.5, 4, 0)
    fit = analysis.tobit(y, censored, x=x)
    for moved in (analysis.tobit(y + 1e8, censored, x=x), analysis.tobit(y, censored, x=x + 1e8)):
        np.testing.assert_allclose(moved["x"], fit["x"], rtol=1e-6)
        np.testing.assert_allclose(moved.interval("x"), fit.interval("x"), rtol=1e-6)


# --- drift law ------------------------------------------------------------------------------------


def drift_data(noise, law, num_agents=256):
    alpha, period = (
        grid.ravel() for grid in np.meshgrid(np.arange(1, 7) / 10, np.arange(20, 1001, 30))
    )
    phases = analysis.sync_phases(1010 * np.arange(21, 31), period)
    values = law(alpha[:, None], num_agents, phases).mean(axis=1)
    values = values * 10 ** (noise * np.random.default_rng(0).normal(size=alpha.size))
    return values, alpha, period, phases


def test_sync_phases_alias_as_specified():
    phases = analysis.sync_phases(1010 * np.arange(21, 31), [20, 1000, 1010, np.inf])
    np.testing.assert_array_equal(np.unique(phases[0]), [0, 10])
    np.testing.assert_array_equal(phases[1], np.arange(210, 301, 10))
    np.testing.assert_array_equal(phases[2], 0)
    np.testing.assert_array_equal(phases[3], 1010 * np.arange(21, 31))


def test_drift_law_limits():
    law = analysis.DriftLaw(3.0, 5.83, 1.305, 10.7)
    np.testing.assert_allclose(law(0.1, 16, 0), 3 * 0.1 / 16)
    np.testing.assert_allclose(law(0.1, 16, np.inf), 3 * 0.1 / 16 + 5.83 * 0.1**1.305)
    np.testing.assert_allclose(law(0.1, 1e12, 1.0), 5.83 * 0.1**1.305 * 0.01 / 1.07, rtol=1e-2)


def test_fit_drift_law_recovers_the_law_and_beats_the_power_law():
    law = analysis.DriftLaw(3.0, 5.83, 1.305, 10.7)
    values, alpha, period, phases = drift_data(0.0, law)
    for unit in (1.0, 1e-10, 1e10):
        exact = analysis.fit_drift_law(unit * values, alpha, 256, phases)
        np.testing.assert_allclose(
            [exact.law.c1 / unit, exact.law.c2 / unit, exact.law.exponent, exact.law.kappa],
            [3.0, 5.83, 1.305, 10.7],
            rtol=1e-4,
        )
        assert exact.r_squared > 1 - 1e-9
        assert exact.power_law is None

    values, alpha, period, phases = drift_data(0.025, law)
    for c1 in (None, 2.908475):
        fit = analysis.fit_drift_law(values, alpha, 256, list(phases), sync_period=period, c1=c1)
        np.testing.assert_allclose(fit.law.c2, 5.83, rtol=0.05)
        np.testing.assert_allclose(fit.law.exponent, 1.305, atol=0.03)
        np.testing.assert_allclose(fit.law.kappa, 10.7, rtol=0.05)
        np.testing.assert_allclose(fit.residual_sd, 0.025, rtol=0.2)
        assert fit.r_squared > 0.985
        assert fit.r_squared > fit.power_law.r_squared + 0.015


def test_fit_drift_law_takes_unequal_numbers_of_phases():
    law = analysis.DriftLaw(3.0, 5.83, 1.305, 10.7)
    alpha = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    phases = [[0], [3, 50], [20, 30, 40], [200], [10, 10], [5, 400, 7, 1]]
    values = [law(a, 16, np.array(j)).mean() for a, j in zip(alpha, phases, strict=True)]
    fit = analysis.fit_drift_law(values, alpha, 16, phases)
    np.testing.assert_allclose([fit.law.c2, fit.law.kappa], [5.83, 10.7], rtol=1e-3)
    with pytest.raises(ValueError, match="at least 4 runs"):
        analysis.fit_drift_law(values[:3], alpha[:3], 16, phases[:3])
    with pytest.raises(ValueError, match="phases are given for 5 runs"):
        analysis.fit_drift_law(values, alpha, 16, phases[:5])
    with pytest.raises(ValueError, match="positive and finite"):
        analysis.fit_drift_law([0.0, *values[1:]], alpha, 16, phases)


# --- bounds and cost ------------------------------------------------------------------------------


def test_bound_terms_by_hand():
    terms = analysis.khodadadian_bound(0.1, 4, 11, 2, tau=3, constants=(2, 3, 5, 7), c=0.5)
    np.testing.assert_allclose(
        terms, [2 / 0.1 * 0.95**2, 3 * 0.1 * 9 / 4, 5 * 10 * 0.01 * 3, 7 * 0.001 * 9]
    )
    np.testing.assert_allclose(terms.total, sum(terms))
    paper = analysis.einhorn_bound(0.1, 4, 11, 2)
    np.testing.assert_allclose(paper, [8.1, 0.025, 0.1, 0.0])
    assert analysis.khodadadian_bound([0.1, 1.0], 4, [[1], [10]], 100).total.shape == (2, 2)
    with pytest.raises(ValueError, match=r"\(0, 1\]"):
        analysis.khodadadian_bound(1.5, 4, 1, 10)


def test_equation_2_factors_the_last_two_terms_of_equation_1():
    alpha, n, k = 0.3, 256, 70
    terms = analysis.einhorn_bound(alpha, n, k, 10_000)
    factored = (k - 1) * alpha**2 * (1 + 1 / (n * alpha * (k - 1)))
    np.testing.assert_allclose(terms.variance + terms.drift, factored)


def test_communication_time_by_hand():
    np.testing.assert_allclose(communication_time(1005, 10, 8), 1005 + 100 * 3)
    np.testing.assert_allclose(communication_time(1005, 10, 8, cost=0.1), 1005 + 30)
    assert communication_time(1005, 10, 1) == 1005
    for never in (None, np.inf, 1006):
        assert communication_time(1005, never, 8) == 1005
    assert np.isnan(communication_time(np.nan, 1, 8))
    with pytest.raises(ValueError, match="sync_period"):
        communication_time(1005, 0, 8)


@settings(deadline=None)
@given(st.lists(st.integers(1, 10**6), min_size=15, max_size=15))
def test_cost_shifts_the_tabular_slope_by_a_constant(times):
    """T23: at K = 1 the regression of Fig. 7 is that of Fig. 6 plus a number."""
    n, t = np.tile(AGENTS, 3), np.array(times)
    before = analysis.loglog(n, t)["slope"]
    after = analysis.loglog(n, communication_time(t, 1, n))["slope"]
    # log2 N = 0..4 about 2 against log2(1 + log2 N): (-2*0 - 1*1 + 2 + 2 log2 5) / 10
    np.testing.assert_allclose(after - before, np.log2(50) / 10, atol=1e-9)
    assert abs(np.log2(50) / 10 - 0.5644) < 5e-5


@pytest.mark.parametrize(("cost", "shift"), [(0.1, 0.1261), (1, 0.6585), (10, 1.5795)])
def test_cost_shifts_the_ppo_slopes(cost, shift):
    """P3: N in {1, 2, 4, 8} at K = 1."""
    n = np.tile([1, 2, 4, 8], 3)
    t = np.random.default_rng(0).integers(100, 4000, size=12)
    before = analysis.loglog(n, t, base=2)["slope"]
    after = analysis.loglog(n, communication_time(t, 1, n, cost), base=2)["slope"]
    logs = [math.log2(1 + cost * k) for k in range(4)]
    expected = (-1.5 * logs[0] - 0.5 * logs[1] + 0.5 * logs[2] + 1.5 * logs[3]) / 5
    np.testing.assert_allclose(after - before, expected, atol=1e-9)
    assert abs(expected - shift) < 1e-4


# --- bootstrap ------------------------------------------------------------------------------------


def test_bootstrap_interval_is_reproducible_and_near_the_normal_one():
    values = np.random.default_rng(0).normal(size=(2, 200))
    interval = analysis.bootstrap_interval(values)
    again = analysis.bootstrap_interval(values.T, axis=0)
    np.testing.assert_array_equal(interval.low, again.low)
    np.testing.assert_allclose(interval.value, values.mean(axis=1))
    half = 1.96 * values.std(axis=1) / np.sqrt(200)
    np.testing.assert_allclose(interval.high - interval.value, half, rtol=0.15)
    alone = analysis.bootstrap_interval(values[1])
    # Common resamples: an entry does not see its neighbours.
    np.testing.assert_allclose(alone.low, interval.low[1], rtol=1e-12)


@pytest.mark.filterwarnings("ignore:random_state is deprecated:FutureWarning")
def test_bootstrap_interval_agrees_with_rliable():
    from rliable import library

    scores = np.random.default_rng(1).uniform(size=(30, 1))
    state = np.random.RandomState(0)  # rliable takes nothing newer
    _, limits = library.get_interval_estimates(
        {"x": scores}, lambda s: np.array([s.mean()]), reps=2000, random_state=state
    )
    ours = analysis.bootstrap_interval(scores[:, 0])
    np.testing.assert_allclose([ours.low, ours.high], limits["x"][:, 0], atol=0.02)


def test_bootstrap_interval_degenerate():
    constant = analysis.bootstrap_interval(np.full((3, 6), 2.5))
    np.testing.assert_array_equal(constant, np.full((3, 3), 2.5))
    single = analysis.bootstrap_interval(np.array([[1.0], [2.0]]))
    np.testing.assert_array_equal(single.value, [1.0, 2.0])
    assert np.all(np.isnan(single.low))
    with pytest.raises(ValueError, match="no seeds"):
        analysis.bootstrap_interval(np.zeros((3, 0)))
    spread = analysis.bootstrap_interval([1.0, 2.0, 4.0], statistic=lambda x: max(x) - min(x))
    assert spread.value == 3.0


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=12))
def test_bootstrap_mean_stays_within_the_data(values):
    interval = analysis.bootstrap_interval(values, num_resamples=50)
    slack = 1e-9 * (1 + np.abs(values).max())
    assert min(values) - slack <= interval.low <= interval.high <= max(values) + slack


def slope(n, t):
    return analysis.loglog(n, t)["slope"]


def test_bootstrap_fit_resamples_whole_seeds():
    # Each seed has a slope of its own and no noise: the interval is of the mean of those slopes.
    slopes = np.array([-1.1, -1.0, -0.9, -0.7, -1.2, -0.8])
    seeds = np.repeat(np.arange(6), 5)
    n = np.tile(AGENTS, 6)
    t = 1000.0 * n ** slopes[seeds]
    fit = analysis.bootstrap_fit(seeds, slope, n, t, num_resamples=500)
    mean = analysis.bootstrap_interval(slopes, num_resamples=500)
    np.testing.assert_allclose([fit.value, fit.low, fit.high], mean, atol=1e-9)
    assert fit.num_failed == 0
    order = np.random.default_rng(0).permutation(30)
    shuffled = analysis.bootstrap_fit(seeds[order], slope, n[order], t[order], num_resamples=500)
    np.testing.assert_allclose(shuffled, fit, atol=1e-9)


def test_bootstrap_fit_counts_failures():
    assert np.isnan(analysis.bootstrap_fit([1, 1, 1], slope, [1, 2, 4], [4.0, 2.0, 1.0]).low)
    seeds, n, t = [0, 0, 1, 1, 2], [1, 2, 2, 4, 1], [8.0, 4.0, 5.0, 2.0, 9.0]
    fit = analysis.bootstrap_fit(seeds, slope, n, t, num_resamples=300)
    assert 0 < fit.num_failed < 50  # only seed 2 was drawn, about 1 in 27
    assert fit.low <= fit.value <= fit.high
    with pytest.raises(ValueError, match="column 1 has shape"):
        analysis.bootstrap_fit(seeds, slope, n, t[:4])


def test_limits_between_infinities_are_infinite():
    times = np.array([1.0, 2, 3, 4, np.inf, np.inf])
    for interval in ("percentile", "student"):
        fit = analysis.bootstrap_fit(range(6), np.median, times, interval=interval)
        # The median of six is infinite where three or more drawn are, one time in three.
        assert (fit.value, fit.high) == (3.5, np.inf)
        assert 1 < fit.low <= 2
    never = analysis.bootstrap_fit(range(6), np.median, np.full(6, np.inf))
    assert never == (np.inf, np.inf, np.inf, 0)
    assert analysis.bootstrap_interval(times, np.median).high == np.inf


def test_student_bootstrap_of_a_mean_is_the_t_interval():
    values = np.random.default_rng(0).normal(size=5)
    fit = analysis.bootstrap_fit(
        range(5), np.mean, values, interval="student", num_resamples=20_000
    )
    expected = analysis.mean_interval(values)
    np.testing.assert_allclose(fit[:3], expected, rtol=0.02)
    with pytest.raises(ValueError, match="'percentile' or 'student'"):
        analysis.bootstrap_fit(range(5), np.mean, values, interval="t")


def test_values_that_are_not_finite_have_no_limits_and_no_warning():
    for bad in (np.nan, np.inf):
        interval = analysis.bootstrap_interval([1.0, bad, 2.0])
        assert not np.isfinite(interval.high)
    ranged = analysis.bootstrap_interval([3.0], lambda x, axis: np.ptp(x, axis=axis))
    assert ranged.value == 0


def test_bootstrap_coverage_is_near_nominal():
    rng = np.random.default_rng(5)
    values = rng.normal(size=(300, 30))
    interval = analysis.bootstrap_interval(values, num_resamples=400)
    assert 0.88 < np.mean((interval.low < 0) & (interval.high > 0)) < 0.98


@pytest.mark.parametrize("room", [analysis, plotting])
def test_examples_of_docstrings_give_what_they_say(room):
    for module in pkgutil.iter_modules(room.__path__, f"{room.__name__}."):
        assert doctest.testmod(importlib.import_module(module.name)).failed == 0


def test_resamples_that_come_again_are_fitted_once():
    """Of three seeds 27 resamples can be drawn, in whatever order."""
    calls = []

    def fit(values):
        calls.append(values)
        return values.mean()

    found = analysis.bootstrap_fit([0, 1, 2], fit, np.array([1.0, 2.0, 6.0]))
    assert len(calls) <= 1 + 27
    assert (found.value, found.low, found.high) == (3.0, 1.0, 6.0)
