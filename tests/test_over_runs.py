"""Numbers over runs and tasks: by hand, against enumeration, and against rliable."""

import itertools

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from fedjax_rl import analysis, plotting

GENERATOR = np.random.default_rng(0)
SCORES = GENERATOR.normal(size=(7, 3)) + np.arange(3)
OTHERS = GENERATOR.normal(size=(5, 3)) + np.arange(3) - 0.4


def test_the_middle_half_by_hand():
    # Of eight the two least and the two largest go.
    eight = [[100.0, 1.0], [2.0, 3.0], [4.0, 5.0], [-50.0, 7.0]]
    assert analysis.interquartile_mean(eight).value == (2 + 3 + 4 + 5) / 4
    ordered = np.sort(SCORES, axis=None)
    expected = ordered[5:-5].mean()  # a quarter of 21, whole numbers of them
    assert analysis.interquartile_mean(SCORES).value == pytest.approx(expected, rel=1e-12)
    for count in range(1, 12):
        trimmed = stats.trim_mean(SCORES[:4].ravel()[:count], 0.25)
        found = analysis.interquartile_mean(SCORES[:4].ravel()[:count], num_resamples=2)
        assert found.value == pytest.approx(trimmed, rel=1e-12)


def test_improvement_counts_pairs():
    pairs = [
        [np.sign(a - b) / 2 + 0.5 for a, b in itertools.product(SCORES[:, m], OTHERS[:, m])]
        for m in range(3)
    ]
    found = analysis.probability_of_improvement(SCORES, OTHERS)
    assert found.value == pytest.approx(np.mean(pairs), rel=1e-12)
    assert found.runs == 5
    same = analysis.probability_of_improvement(SCORES, SCORES)
    assert same.value == pytest.approx(0.5, rel=1e-12)
    assert analysis.probability_of_improvement([1.0, 1.0], [1.0, 0.0]).value == 0.75


def test_profiles_fall_from_one_to_nothing():
    levels = np.linspace(-5, 7, 25)
    found = analysis.performance_profile(SCORES, levels)
    np.testing.assert_allclose(found.value, [(level < SCORES).mean() for level in levels])
    assert (np.diff(found.value) <= 0).all()
    assert (found.low <= found.value).all()
    assert (found.value <= found.high).all()
    # Strictly above.
    assert analysis.performance_profile([1.0, 2.0, 3.0], [2.0]).value[0] == pytest.approx(1 / 3)


def test_a_bootstrap_of_two_tasks_is_its_enumeration():
    """Three runs of two tasks: all 27 x 27 resamples are equally probable."""
    scores = np.array([[0.0, 10.0], [1.0, 12.0], [5.0, 19.0]])
    each = list(itertools.product(range(3), repeat=3))
    means = [
        np.mean([scores[list(a), 0], scores[list(b), 1]]) for a, b in itertools.product(each, each)
    ]
    found = analysis.stratified_bootstrap(np.mean, scores, num_resamples=5000, confidence=0.8)
    low, high = np.quantile(means, [0.1, 0.9])
    assert found.low == pytest.approx(low, abs=0.15)
    assert found.high == pytest.approx(high, abs=0.15)


@pytest.mark.thorough
def test_they_agree_with_rliable():
    """The numbers exactly, the intervals up to what differs between resamples."""
    from rliable import library, metrics

    state = np.random.RandomState(0)  # rliable takes nothing newer
    options = {"reps": 2000, "random_state": state}
    iqm = lambda scores: np.array([metrics.aggregate_iqm(scores)])
    points, limits = library.get_interval_estimates({"a": SCORES}, iqm, **options)
    own = analysis.interquartile_mean(SCORES, num_resamples=2000)
    assert own.value == pytest.approx(points["a"][0], rel=1e-12)
    np.testing.assert_allclose([own.low, own.high], limits["a"][:, 0], atol=0.06)
    pairs = {"ab": (SCORES, OTHERS)}
    improvement = lambda x, y: np.array([metrics.probability_of_improvement(x, y)])
    points, limits = library.get_interval_estimates(pairs, improvement, **options)
    own = analysis.probability_of_improvement(SCORES, OTHERS, num_resamples=2000)
    assert own.value == pytest.approx(points["ab"][0], rel=1e-12)
    np.testing.assert_allclose([own.low, own.high], limits["ab"][:, 0], atol=0.03)
    levels = np.linspace(-1, 3, 9)
    points, limits = library.create_performance_profile({"a": SCORES}, levels, reps=2000)
    own = analysis.performance_profile(SCORES, levels, num_resamples=2000)
    np.testing.assert_allclose(own.value, points["a"], rtol=1e-12)
    np.testing.assert_allclose([own.low, own.high], limits["a"], atol=0.05)


@pytest.mark.thorough
def test_intervals_cover_what_they_say():
    """Of normal scores, twelve runs on four tasks; percentiles are known to be a little short."""
    inside = 0
    for trial in range(100):
        scores = np.random.default_rng(trial).normal(size=(12, 4))
        found = analysis.interquartile_mean(scores, num_resamples=300, seed=trial)
        inside += found.low <= 0 <= found.high
    assert stats.binomtest(inside, 100, 0.92).pvalue > 0.01


def test_labelled_scores_are_those_of_arrays():
    dims = ("environment", "seed", "num_agents")
    labelled = xr.DataArray(SCORES.T.reshape(3, 7, 1), dims=dims)
    assert analysis.interquartile_mean(labelled) == analysis.interquartile_mean(SCORES)


def test_two_runs_are_said_and_have_no_interval():
    found = analysis.interquartile_mean([1.0, 2.0])
    assert np.isnan(found.low)
    assert str(found) == "1.5, 2 runs"
    assert str(analysis.interquartile_mean([1.0])) == "1, 1 run"
    three = analysis.interquartile_mean([1.0, 2.0, 3.0])
    assert str(three) == f"2 [{three.low:.4g}, {three.high:.4g}], 3 runs"
    assert str(analysis.performance_profile(SCORES, [0.0, 1.0])) == "2 values, 7 runs"


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        ([], "shape"),
        (np.ones((2, 2, 2)), r"shape \(2, 2, 2\); allowed: \[runs\] or \[runs, tasks\]"),
        ([1.0, np.nan, np.inf], "2 of 3 that are not finite"),
        (xr.DataArray(np.ones((2, 3)), dims=("seed", "time")), "dimensions seed, time; allowed"),
        (xr.DataArray(np.ones(3), dims="num_agents"), "allowed: seed and those of tasks"),
    ],
)
def test_bad_scores_are_refused(scores, words):
    with pytest.raises(ValueError, match=words):
        analysis.interquartile_mean(scores)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="scores have 3 and 2 tasks; allowed: of all the same"):
        analysis.probability_of_improvement(SCORES, OTHERS[:, :2])
    with pytest.raises(ValueError, match="confidence is 95"):
        analysis.interquartile_mean(SCORES, confidence=95)
    with pytest.raises(ValueError, match="thresholds has the shape"):
        analysis.performance_profile(SCORES, 0.5)


def test_profiles_are_drawn_with_their_runs_and_no_band_of_two():
    figure = plotting.performance_profiles({"a": SCORES, "b": OTHERS[:2]}, np.linspace(-3, 5, 9))
    (axis,) = figure.axes
    shares = [(level < SCORES).mean() for level in np.linspace(-3, 5, 9)]
    np.testing.assert_allclose(axis.lines[0].get_ydata(), shares)
    assert len(axis.collections) == 1
    words = [text.get_text() for text in axis.get_legend().get_texts()]
    assert words == ["a, 7 runs", "b, 2 runs"]
    with pytest.raises(ValueError, match="scores is empty"):
        plotting.performance_profiles({})
