"""The study `linear-speedup`: its grids, its protocols and what it leaves behind."""

import copy
import json

import numpy as np
import pytest

from fedjax_rl import analysis, envs
from fedjax_rl.studies import (
    STUDIES,
    intervals,
    linear_speedup_protocols,
)
from fedjax_rl.studies import linear_speedup_data as data
from fedjax_rl.studies import linear_speedup_measures as measures
from fedjax_rl.studies import linear_speedup_targets as targets
from fedjax_rl.studies.study import Meter

ENTRIES = {
    *("id", "figure", "quantity", "published", "measured"),
    *("low", "high", "band", "kind", "verdict"),
}


def test_the_grids_are_the_authors():
    full = data.SCALES["paper"]
    runs = data.grid_a(full)
    assert len(runs) == 1920
    assert len(data.grid_b(full)) == 1782
    at = [(c.num_agents, c.properties["learning_rate"], c.properties["sync_period"]) for c in runs]
    assert len(set(at)) == 320
    assert sum(n == 1 or k == 1 for n, _, k in at) == 432
    assert len({c.seed for c in runs}) == 1920
    assert {c.properties["learning_rate"] for c in runs if c.num_agents == 1} == set(data.RATES)


def test_targets_are_those_of_the_specification():
    assert [t.id for t in targets.TARGETS] == [f"T{i}" for i in range(1, 26)]
    shift = np.log2(50) / 10
    np.testing.assert_allclose(targets.SHIFT, shift, atol=1e-12)


def test_the_mdp_alone_reproduces_its_targets():
    measured = measures.fig1()
    for target in targets.TARGETS[:3]:
        assert analysis.judge(target, *measured[target.id])["verdict"] == "reproduced"


def test_rollouts_follow_the_policy_and_the_kernel():
    mdp = envs.tabular_mdp(np.array([[[0.0, 1.0]], [[1.0, 0.0]]]), np.array([2.0, 3.0]), 0.5)
    total = measures.rollouts(mdp, np.ones((2, 1)), np.full((5, 2, 3), 0.5))
    np.testing.assert_array_equal(total, [3 + 2 + 3 + 2 + 3] * 3)


@pytest.fixture(scope="module")
def meter():
    return Meter(None, {"some": 1})


@pytest.fixture(scope="module")
def author(meter):
    where = {"learning_rate": 0.08, "sync_period": 10, "epsilon": 1.0}
    return data.author_runs([data.Cell(n, 7, where) for n in (1, 4)], meter, "some")


def test_author_runs_end_by_the_authors_rule(author):
    for run in range(2):
        kept = int(author["records"][run])
        series = author["series"].values[run]
        assert kept >= 30
        assert kept % 10 == 0
        assert np.isfinite(series[:kept]).all()
        assert np.isnan(series[kept:]).all()
        distance = np.sqrt(series[:kept])
        assert distance[-10:].mean() > distance[-20:-10].mean()
        np.testing.assert_allclose(author["final"][run], distance[-10:].mean())
        np.testing.assert_allclose(author["final_squared"][run], series[kept - 10 : kept].mean())
        first = np.flatnonzero(series < 0.1)[0]
        assert author["reached"][run] == 1010 * (first + 1)


def test_a_single_agent_belongs_to_every_period(author):
    assert measures.pick(author, sync_period=1000).sizes["cell"] == 1
    assert measures.pick(author, sync_period=10).sizes["cell"] == 2


def test_clean_runs_measure_the_server_for_a_fixed_length(meter):
    where = {"learning_rate": 0.08, "sync_period": 10, "epsilon": 1.0}
    clean = data.clean_runs([data.Cell(n, 7, where) for n in (1, 16)], meter, "some")
    assert clean["series_time"].values.max() == 400 / 0.08
    ratio = clean["final_squared"].values[0] / clean["final_squared"].values[1]
    assert 8 < ratio < 32
    np.testing.assert_allclose(clean["reached"], 76.4 / 0.08, rtol=0.3)


def test_a_figure_leaves_a_complete_directory(tmp_path, monkeypatch):
    tiny = data.SCALES["quick"].replace(
        rates=(0.002, 0.02), periods=(1, 1000), trials=1, fine_seeds=2
    )
    monkeypatch.setitem(data.SCALES, "smoke", tiny)
    seen = []
    summary = STUDIES["linear-speedup"].run(
        tmp_path, ["fig7"], "smoke", progress=lambda done, total: seen.append(done / total)
    )
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    keys = {"study", "scale", "preset", "device", "versions", "seconds", "targets"}
    assert keys <= set(summary)
    assert set(summary["seconds"]) == {"compile", "run"}
    assert [line["id"] for line in summary["targets"]] == ["T23", "T24"]
    for line in summary["targets"]:
        assert set(line) == ENTRIES
    # Two of its periods were not run, and a target of several numbers needs them all.
    assert summary["targets"][0]["verdict"] == "not run"
    np.testing.assert_allclose(summary["targets"][0]["measured"][0], targets.SHIFT, atol=1e-9)
    for name in ("fig7.png", "fig7.svg", "scoreboard.png", "grid_a/result.nc"):
        assert (tmp_path / name).stat().st_size > 0
    assert seen == sorted(seen)
    assert seen[-1] == 1
    # Going on reads the runs, of other MDPs too, and makes none.
    monkeypatch.setattr(data, "run_cells", None)
    monkeypatch.setattr(linear_speedup_protocols, "run_cells", None)
    again = STUDIES["linear-speedup"].run(tmp_path, ["fig7"], "smoke")
    assert again["targets"] == summary["targets"]
    assert again["seconds"] == summary["seconds"]
    assert set(data.STAGES) == {"grid_a", "grid_b", "fine", "same", "steady", "mdps"}


def slopes_of(count, repetitions, noise):
    x, rng = np.array([1.0, 2, 4, 8]), np.random.default_rng(0)
    trials = np.exp(noise * rng.normal(size=(repetitions, 4, count))) / x[:, None]
    found = [intervals.slope(dict(zip(x, own, strict=True))) for own in trials]
    each = np.polyfit(np.log(x), np.log(trials).transpose(1, 0, 2).reshape(4, -1), 1)[0]
    return np.array(found, float).T, each.reshape(repetitions, count)


@pytest.mark.parametrize("count", [2, 3, 6])
def test_small_differences_of_seeds_give_the_t_interval_of_their_slopes(count):
    (value, low, high), each = slopes_of(count, 3, 1e-3)
    expected = analysis.mean_interval(each, axis=1)
    np.testing.assert_allclose(value, expected.value, rtol=1e-5)
    np.testing.assert_allclose(high - low, expected.high - expected.low, rtol=0.15)


@pytest.mark.thorough
@pytest.mark.parametrize("count", [2, 3, 5, 10])
def test_intervals_of_numbers_over_seeds_cover(count):
    """Percentiles of a bootstrap cover 49, 76, 83 and 90 %."""
    (_, low, high), _ = slopes_of(count, 300, 0.2)
    assert 0.92 < np.mean((low < -1) & (high > -1)) < 0.98


def test_times_that_are_infinite_stay_so_in_intervals():
    def ratio(a, b):
        return intervals.seeds_apart(lambda x, y: float(x / y), a, b, centre=np.median)

    never, times = np.full(6, np.inf), np.arange(1.0, 7)
    assert ratio(never, times) == (np.inf, np.inf, np.inf)
    some = np.array([1, 2, 3, 4, np.inf, np.inf])
    # Of many resamples both medians are infinite: the ratio of the others is no fair sample.
    assert ratio(some, 2 * some) == (0.5, None, None)
    points = {n: np.array([1.0, 2.0, 1.5]) / n for n in (1, 2, 4)}
    points[4] = np.array([1.0, -0.6, 0.2])
    assert intervals.slope(points)[1:] == (None, None)


def test_finishing_without_stages_is_done():
    seen = []
    meter = Meter(lambda *done: seen.append(done), {})
    meter.finish()
    assert seen == [(1.0, 1.0)]


def test_a_scale_knows_its_sizes():
    scale = data.SCALES["smoke"]
    assert scale.replace(trials=7).trials == 7
    assert copy.deepcopy(scale) == scale
    with pytest.raises(AttributeError, match=r"no size of this study; known: .*trials"):
        _ = scale.trails
    with pytest.raises(ValueError, match=r"trails.*trials"):
        scale.replace(trails=7)
