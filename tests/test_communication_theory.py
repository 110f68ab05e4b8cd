"""Probabilistic communication in theory, bands over trials, and the pictures of both."""

import math

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure
from scipy import stats

from fedjax_rl import analysis, plotting

pytestmark = pytest.mark.filterwarnings("error")

SENDERS = np.arange(51)


def binomial_tail(p, m, n):
    terms = (math.comb(n - 1, j) * p**j * (1 - p) ** (n - 1 - j) for j in range(n - m, n))
    return math.fsum(terms)


# --- the probability to send ----------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 5, 30, 50])
def test_probability_is_the_binomial_sum(n):
    p = np.array([0.0, 1e-6, 0.1, 0.5, 0.9, 1.0])
    senders = np.arange(n + 1)
    found = analysis.communication_probability(p[:, None], senders, n)
    expected = [[binomial_tail(x, m, n) for m in senders] for x in p]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-300)
    np.testing.assert_array_equal(found[:, 0], 0.0)
    np.testing.assert_array_equal(found[:, n], 1.0)


def test_probability_rises_with_both_arguments():
    p = np.linspace(0, 1, 201)
    found = analysis.communication_probability(p[:, None], SENDERS, 50)
    assert np.all(np.diff(found, axis=0) >= 0)
    assert np.all(np.diff(found, axis=1) >= 0)
    assert found.min() == 0.0
    assert found.max() == 1.0


def test_probability_refuses_what_is_none():
    for p, m, n in [(1.1, 1, 2), (np.nan, 1, 2), (-0.1, 1, 2)]:
        with pytest.raises(ValueError, match=r"\[0, 1\]"):
            analysis.communication_probability(p, m, n)
    for m, n in [(-1, 2), (3, 2), (0, 0)]:
        with pytest.raises(ValueError, match="num_senders"):
            analysis.communication_probability(0.5, m, n)


def test_first_episode_values():
    found = analysis.communication_probability(0.5, [15, 20, 25, 30, 35], 50)
    np.testing.assert_allclose(found, [0.001901, 0.076204, 0.5, 0.923796, 0.998099], atol=1e-6)


def test_expected_communication_is_m_over_n():
    for n in (1, 2, 5, 50):
        senders = np.arange(n + 1)
        np.testing.assert_allclose(
            analysis.expected_communication(senders, n), senders / n, rtol=0, atol=1e-13
        )
    with pytest.raises(ValueError, match="whole"):
        analysis.expected_communication(1.5, 3)


def test_sampled_communication_errs_as_much_as_it_should():
    samples = 20_000
    variance = analysis.communication_variance(SENDERS, 50) / samples
    # per 100 000 samples
    np.testing.assert_allclose(variance.mean() * samples / 1e5, 1.3315e-6, rtol=1e-3)
    error = analysis.sampled_communication(SENDERS, 50, samples) - SENDERS / 50
    assert error[0] == error[50] == 0.0
    score = error[1:-1] / np.sqrt(variance[1:-1])
    assert 0.6 < np.mean(score**2) < 1.6  # chi squared over 49
    shared = analysis.sampled_communication(SENDERS, 50, samples, shared=True)
    assert np.all(np.diff(shared) >= 0)  # the same scores for every m


# --- finite windows -------------------------------------------------------------------------------


@pytest.mark.thorough
def test_window_rates_of_normal_utilities():
    senders = [5, 10, 15, 25, 30, 45]
    table = {
        1: [0.000, 0.000, 0.0019, 0.500, 0.924, 1.000],
        2: [0.047, 0.378, 0.496, 0.500, 0.500, 0.953],
        3: [0.114, 0.287, 0.375, 0.500, 0.558, 0.885],
        5: [0.118, 0.238, 0.334, 0.500, 0.582, 0.883],
        10: [0.109, 0.216, 0.314, 0.500, 0.592, 0.893],
        30: [0.103, 0.205, 0.305, 0.500, 0.598, 0.898],
    }
    for window, expected in table.items():
        exact = analysis.normal_window_rate(senders, 50, window)
        np.testing.assert_allclose(exact, expected, atol=0.002)
        sampled = analysis.window_rate(senders, 50, window, samples=20_000)
        np.testing.assert_allclose(sampled, exact, atol=4 * 0.5 / math.sqrt(20_000))
    np.testing.assert_allclose(analysis.normal_window_rate(15, 50, 10_000), 0.3, atol=1e-4)


def test_skewed_utilities_lower_the_rate():
    found = [analysis.window_rate(25, 50, k, 40_000, law="exponential") for k in (5, 10, 30)]
    np.testing.assert_allclose(found, [0.414, 0.392, 0.380], atol=0.008)
    with pytest.raises(ValueError, match="law must be one of"):
        analysis.window_rate(25, 50, 5, law="cauchy")
    with pytest.raises(ValueError, match="window must be"):
        analysis.window_rate(25, 50, 0)


# --- signal to noise ------------------------------------------------------------------------------


def test_selection_intensity_against_its_integral():
    for a in (0.1, 0.27, 0.5, 0.9):
        mean = stats.norm.expect(lambda x: x, lb=stats.norm.isf(a)) / a
        np.testing.assert_allclose(analysis.selection_intensity(a), mean, rtol=1e-8)
    assert analysis.selection_intensity(1.0) == 0.0
    fraction, best = analysis.best_fraction()
    assert fraction == pytest.approx(0.2703, abs=1e-3)
    assert best == pytest.approx(0.6363, abs=1e-4)
    thresholds = analysis.selection_threshold([0.1, 0.2, 0.3, 0.5, 0.6, 0.9])
    np.testing.assert_allclose(thresholds, [1.50, 1.25, 1.22, 1.46, 1.74, 5.31], atol=0.006)
    assert analysis.selection_threshold(1.0) == np.inf
    with pytest.raises(ValueError, match="fraction"):
        analysis.selection_intensity(0.0)


@pytest.mark.parametrize("method", ["raw", "center"])
@pytest.mark.parametrize("ratio", [-5.0, 0.0, 2.0])
def test_exact_closed_forms_against_simulation(method, ratio):
    found = analysis.signal_to_noise(method, ratio, num_agents=12, num_parameters=20)
    ideal = analysis.ideal_signal_to_noise(method, ratio, num_agents=12)
    assert abs(found.value - ideal) < 4 * found.standard_error
    assert found.frequency == 1.0


def test_top_fraction_against_simulation():
    for ratio in (-5.0, 0.0, 2.0, 20.0):
        found = analysis.signal_to_noise(
            "top", ratio, 400, 120, num_parameters=100_000, samples=600
        )
        ideal = analysis.ideal_signal_to_noise("top", ratio, 400, 120)
        assert found.value == pytest.approx(ideal, abs=0.03 + 4 * found.standard_error)
        assert found.frequency == pytest.approx(0.3)
    limit = 0.5 * analysis.selection_intensity(0.3) * np.sqrt(120)
    for sign in (1, -1):
        far = analysis.ideal_signal_to_noise("top", sign * np.inf, 400, 120)
        assert far == pytest.approx(sign * limit)
    everyone = analysis.ideal_signal_to_noise("top", [0.0, 3.0], 50, 50)
    np.testing.assert_allclose(everyone, analysis.ideal_signal_to_noise("raw", [0.0, 3.0], 50))


def test_simulation_against_drawing_every_coordinate():
    n, q, r, ratio, m, window, episodes = 10, 6, 0.5, 2.0, 4, 3, 40_000
    rng = np.random.default_rng(5)
    noise = rng.standard_normal((episodes, n, window, q))
    returns = ratio + r * noise[..., 0]
    returns += math.sqrt(1 - r**2) * rng.standard_normal(returns.shape)
    utility = returns * np.linalg.norm(noise, axis=-1)
    score = (utility[..., -1] - utility.mean(-1)) / utility.std(-1)
    p = analysis.communication_probability(stats.norm.cdf(score), m, n)
    sent = rng.random(p.shape) < p
    count = sent.sum(axis=1)
    weight = np.where(sent, returns[..., -1], 0.0)
    for denominator, divisor in {"received": count, "n": np.full(episodes, n)}.items():
        kept = count > 0
        estimate = np.einsum("ei,eiq->eq", weight, noise[:, :, -1])[kept] / divisor[kept, None]
        direct = estimate[:, 0].mean() / estimate[:, 1:].std()
        found = analysis.signal_to_noise(
            "probabilistic", ratio, n, m, window, q, r, samples=episodes, denominator=denominator
        )
        assert found.value == pytest.approx(direct, abs=0.04)
        assert found.frequency == pytest.approx(sent.mean(), abs=0.01)


def test_signal_to_noise_of_the_published_setting():
    # b / S -> ESPC with 15 and 25 of 50, and 25 with its own baseline
    table = {0: (2.32, 2.46, 3.03), 2: (2.11, 2.11, 2.97), 20: (1.28, 1.16, 2.96)}
    for ratio, expected in table.items():
        for method, m, value in zip(
            ("probabilistic", "probabilistic", "probabilistic_baseline"),
            (15, 25, 25),
            expected,
            strict=True,
        ):
            found = analysis.signal_to_noise(
                method, ratio, num_senders=m, samples=2000, denominator="n"
            )
            assert found.value == pytest.approx(value, abs=0.15)
            assert found.standard_error < 0.05
    for ratio, value in {-2: -0.62, -5: -1.34, -20: -0.99}.items():
        assert analysis.signal_to_noise(
            "probabilistic", ratio, samples=2000
        ).value == pytest.approx(value, abs=0.15)


def test_signal_to_noise_refuses():
    with pytest.raises(ValueError, match="method must be one of"):
        analysis.signal_to_noise("rank", 1.0)
    with pytest.raises(ValueError, match="denominator must be one of"):
        analysis.signal_to_noise("raw", 1.0, denominator="m")
    with pytest.raises(ValueError, match="num_senders"):
        analysis.signal_to_noise("probabilistic", 1.0, num_senders=51)
    with pytest.raises(ValueError, match="nobody sent"):
        analysis.signal_to_noise("probabilistic", 1.0, num_senders=1, window=1, samples=2)
    with pytest.raises(ValueError, match="closed form"):
        analysis.ideal_signal_to_noise("probabilistic", 1.0)


# --- bands ----------------------------------------------------------------------------------------


def test_bands_by_hand():
    trials = np.arange(11.0)[:, None] * [1.0, -2.0]
    band = analysis.percentile_bands(trials)
    np.testing.assert_allclose(band.mean, [5.0, -10.0])
    np.testing.assert_allclose(band.low, [1.0, -18.0])
    np.testing.assert_allclose(band.high, [9.0, -2.0])
    # between two order statistics: 0.1 of the way from 0 to 10
    narrow = analysis.percentile_bands([[0.0, 10.0]], axis=1)
    np.testing.assert_allclose(np.ravel(narrow), [5.0, 1.0, 9.0])
    with pytest.raises(ValueError, match="percentiles"):
        analysis.percentile_bands(trials, 0, 90, 10)
    with pytest.raises(ValueError, match="no trials"):
        analysis.percentile_bands(np.zeros((0, 3)))


def test_interval_of_the_mean_by_hand():
    found = analysis.mean_interval([[1.0, 2.0, 3.0]], axis=1)
    half = 4.302652729911275 / math.sqrt(3)  # t(0.975, 2), unit standard deviation
    np.testing.assert_allclose(np.ravel(found), [2.0, 2.0 - half, 2.0 + half])
    single = analysis.mean_interval([[1.0, 2.0]])
    assert np.isnan(single.low).all()
    np.testing.assert_array_equal(single.value, [1.0, 2.0])


def test_first_episodes_by_hand():
    curve = np.array([1.0, 0.4, 0.6, 0.3, 0.2])
    assert analysis.first_below(curve, 0.5) == 1
    assert analysis.first_below(curve, 0.5, lasting=True) == 3
    np.testing.assert_array_equal(analysis.first_below([curve, curve + 1], 0.5), [1, np.nan])
    learning = np.array([-10.0, -6.0, -5.2, -6.0, -5.0, -5.0])
    assert analysis.first_within(learning, 0.05, last=2) == 2
    assert analysis.first_within(learning, 0.05, last=2, lasting=True) == 4
    with pytest.raises(ValueError, match="last = 7"):
        analysis.first_within(learning, last=7)


def test_growth_correlation():
    rng = np.random.default_rng(0)
    frequency = rng.random((4, 300))
    growth = np.zeros((4, 300))
    growth[:, 2:] = (frequency - 0.5)[:, 2:]
    logs = np.zeros((4, 300))
    for e in range(2, 300):
        logs[:, e] = logs[:, e - 2] + growth[:, e]
    found = analysis.growth_correlation(np.exp(logs), frequency, lag=2)
    assert found.value == pytest.approx(1.0)
    independent = analysis.growth_correlation(np.exp(logs), rng.random((4, 300)), lag=2)
    assert abs(independent.value) < 0.15
    by_hand = np.corrcoef(logs[0, 7:] - logs[0, :-7], frequency[0, 7:])[0, 1]
    one = analysis.growth_correlation(np.exp(logs[:1]), frequency[:1], lag=7)
    assert one.value == pytest.approx(by_hand)
    # a method that always sends has no correlation
    assert np.isnan(analysis.growth_correlation(np.exp(logs), np.ones((4, 300))).value)
    mixed = np.concatenate([frequency[:3], np.full((1, 300), 0.3)])
    assert analysis.growth_correlation(np.exp(logs), mixed, lag=2).value == pytest.approx(1.0)
    with pytest.raises(ValueError, match="positive"):
        analysis.growth_correlation(logs, frequency)
    with pytest.raises(ValueError, match="fewer than three"):
        analysis.growth_correlation(np.exp(logs), frequency, lag=298)


def test_a_trial_that_broke_is_not_left_out_of_the_correlation():
    rng = np.random.default_rng(0)
    reward, frequency = np.exp(rng.normal(size=(2, 3, 40)))
    for one in (reward, frequency):
        broken = one.copy()
        broken[1, 7] = np.inf
        pair = (broken, frequency) if one is reward else (reward, broken)
        assert np.isnan(analysis.growth_correlation(*pair).value)


def test_the_cheapest_point_is_on_the_front_whatever_its_value():
    np.testing.assert_array_equal(analysis.pareto_front([1, 2, 3], [-np.inf, 0, -np.inf]), [0, 1])


def test_pareto_front_by_hand():
    cost = np.array([3.0, 1.0, 2.0, 2.0, 4.0, np.nan, 3.0])
    value = np.array([5.0, 1.0, 0.5, 3.0, 4.0, 9.0, 5.0])
    np.testing.assert_array_equal(analysis.pareto_front(cost, value), [1, 3, 0, 6])
    assert analysis.pareto_front([], []).size == 0
    rng = np.random.default_rng(0)
    cost, value = rng.integers(0, 6, (2, 40))
    beaten = [
        any((c <= cost[i]) & (v >= value[i]) & ((c < cost[i]) | (v > value[i]))
            for c, v in zip(cost, value, strict=True))
        for i in range(40)
    ]  # fmt: skip
    assert set(analysis.pareto_front(cost, value)) == set(np.flatnonzero(~np.array(beaten)))
    with pytest.raises(ValueError, match="vectors"):
        analysis.pareto_front([1.0], [1.0, 2.0])


# --- pictures -------------------------------------------------------------------------------------


def learning(labels=("ES", "ESPC"), trials=6, episodes=60):
    rng = np.random.default_rng(0)
    shape = (len(labels), trials, episodes)
    frequency = np.broadcast_to(np.linspace(1, 0, len(labels))[:, None, None], shape)
    reward = np.arange(episodes) * 0.1 + rng.normal(size=shape)
    dims = ("algorithm", "seed", "time")
    data = {"reward": (dims, reward), "frequency": (dims, frequency), "size": (dims, 4 * frequency)}
    return xr.Dataset(data, {"algorithm": list(labels), "time": np.arange(episodes)})


def legend(figure):
    (found,) = figure.legends
    return [text.get_text() for text in found.get_texts()], found.get_title().get_text()


def drawn(axis, gid):
    return [line.get_ydata() for line in axis.lines if line.get_gid() == gid]


def settings():
    rng = np.random.default_rng(0)
    return {
        name: {
            setting: (rng.lognormal(c + k, 0.1, 8), rng.normal(10 * c + k, 1, 8))
            for k, setting in enumerate(("sign", "float16", "float32"))
        }
        for c, name in enumerate(("ESPC", "ES", "DQL"))
    }


PICTURES = {
    "bands": lambda: plotting.banded_curves(
        learning(), ("reward", "frequency", "size"), log=("size",)
    ),
    "pareto": lambda: plotting.pareto(settings()),
    "snr": lambda: plotting.snr(
        [0.0, 2.0],
        {"raw": [1.0, 0.5], "ESPC": [1.0, 0.9]},
        {"raw": ([0.0, 1.0, 2.0], [1.0, 0.7, 0.5]), "limit": ([0.0, 2.0], [1.0, 1.0])},
        errors={"raw": [0.1, 0.1]},
        marks={"CartPole": 2.0},
    ),
    "expected": lambda: plotting.expected_communication(10, samples=1000),
    "first": plotting.first_communication,
}


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_are_drawn_the_same_again(name, tmp_path):
    before = dict(mpl.rcParams)
    figure = PICTURES[name]()
    assert isinstance(figure, Figure)
    one = [path.read_bytes() for path in plotting.save(figure, tmp_path / "a")]
    other = [path.read_bytes() for path in plotting.save(PICTURES[name](), tmp_path / "b")]
    assert one == other
    assert dict(mpl.rcParams) == before


def test_bands_draw_mean_band_and_interval():
    result = learning()
    figure = plotting.banded_curves(result, ("reward", "frequency"))
    values = result.reward.values
    for i, mean in enumerate(drawn(figure.axes[0], "mean")):
        np.testing.assert_allclose(mean, values[i].mean(axis=0))
    limits = drawn(figure.axes[0], "limit")
    np.testing.assert_allclose(limits[0], analysis.mean_interval(values[0]).low)
    assert len(figure.axes[0].collections) == 2
    labels, caption = legend(figure)
    assert labels == ["ES", "ESPC"]
    assert "mean of 6 trials, 10 to 90 %" in caption
    assert "95 % interval" in caption
    assert figure.axes[1].get_ylabel() == "messages per agent"


def test_bands_keep_the_look_of_a_line():
    result = learning()
    figure = plotting.banded_curves(result, styles={"ESPC": 4, "ES": 2})
    means = [line for line in figure.axes[0].lines if line.get_gid() == "mean"]
    assert [line.get_color() for line in means] == ["#009E73", "#E69F00"]
    assert [line.get_color() for line in figure.legends[0].get_lines()] == ["#009E73", "#E69F00"]
    with pytest.raises(ValueError, match=r"'ESPC' is no line with a style.*ES"):
        plotting.banded_curves(result, styles={"ES": 2})


def test_bands_accumulate_smooth_and_take_single_trials():
    result = learning()
    arrays = {"a": result.reward[0], "b": result.reward[1, :1, :50].rename(time="episode")}
    figure = plotting.banded_curves(arrays, {"reward": "points"}, cumulative={"reward"}, window=3)
    (axis,) = figure.axes
    assert axis.get_ylabel() == "cumulative points"
    means = drawn(axis, "mean")
    values = result.reward.values[0]
    # A sum is of all records, and no running mean.
    np.testing.assert_allclose(means[0], values.mean(axis=0).cumsum())
    assert [len(mean) for mean in means] == [60, 50]
    assert len(axis.collections) == 1  # no band around one trial
    assert not any("running means" in text for text in legend(figure))
    figure = plotting.banded_curves(arrays, "reward", window=3)
    smooth = np.stack([values[:, i : i + 58] for i in range(3)]).mean(axis=0)
    np.testing.assert_allclose(drawn(figure.axes[0], "mean")[0], smooth.mean(axis=0))
    assert "running means of 3" in legend(figure)[1]


def test_bands_leave_out_broken_trials_and_say_so():
    result = learning()
    result["reward"] = result.reward.copy()
    result.reward[1, 2, 30:] = np.nan
    figure = plotting.banded_curves(result)
    assert legend(figure)[0] == ["ES", "ESPC (1 left out)"]
    expected = np.delete(result.reward.values[1], 2, axis=0).mean(axis=0)
    np.testing.assert_allclose(drawn(figure.axes[0], "mean")[1], expected)


def test_bands_average_agents_and_refuse_what_they_cannot_read():
    result = learning()
    agents = result.expand_dims(agent=3, axis=-1)
    first = plotting.banded_curves(result)
    second = plotting.banded_curves(agents)
    for one, other in zip(drawn(first.axes[0], "mean"), drawn(second.axes[0], "mean"), strict=True):
        np.testing.assert_allclose(one, other)
    with pytest.raises(ValueError, match="did you mean reward"):
        plotting.banded_curves(result, "rewards")
    with pytest.raises(ValueError, match="select one value"):
        plotting.banded_curves(result.expand_dims(uplink=2))
    with pytest.raises(ValueError, match="cannot be told apart"):
        plotting.banded_curves(learning([str(i) for i in range(8)]))
    with pytest.raises(ValueError, match="window of 61"):
        plotting.banded_curves(result, window=61)
    with pytest.raises(ValueError, match="must have one of time"):
        plotting.banded_curves({"a": result.reward})


def test_a_silent_method_stays_on_a_logarithmic_axis():
    figure = plotting.banded_curves(learning(), "size", log={"size"})
    (axis,) = figure.axes
    assert axis.get_yscale() == "log"
    assert axis.get_ylim()[0] == pytest.approx(0.3 * 4)


def test_pareto_fills_the_front_and_its_words_lie_apart():
    points = settings()
    figure = plotting.pareto(points)
    (axis,) = figure.axes
    cost, value = np.array([[c.mean(), v.mean()] for s in points.values() for c, v in s.values()]).T
    front = set(analysis.pareto_front(cost, value))
    markers = [line for line in axis.lines if len(line.get_xdata()) == 1]
    filled = {i for i, m in enumerate(markers) if m.get_markerfacecolor() != "white"}
    assert filled == front
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in axis.texts]
    assert len(boxes) == 9
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:i])
    with pytest.raises(ValueError, match="ES, sign: the mean cost must be positive"):
        plotting.pareto({"ES": {"sign": ([0.0], [1.0])}})
    with pytest.raises(ValueError, match="2 costs and 1 values"):
        plotting.pareto({"ES": {"": ([1.0, 2.0], [1.0])}})
    with pytest.raises(ValueError, match="empty"):
        plotting.pareto({})


def test_pareto_takes_errors_and_single_trials():
    points = {"a": {"x": ([1.0], [3.0])}, "b": {"y": ([2.0], [1.0]), "z": ([4.0], [2.0])}}
    figure = plotting.pareto(points, minimise=True)
    markers = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 1]
    assert [m.get_markerfacecolor() == "white" for m in markers] == [False, False, True]


def test_snr_refuses_values_that_do_not_match():
    with pytest.raises(ValueError, match="raw has shape"):
        plotting.snr([0.0, 1.0], {"raw": [1.0]})
    with pytest.raises(ValueError, match="0 methods"):
        plotting.snr([0.0], {})
