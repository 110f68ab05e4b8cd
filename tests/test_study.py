"""The tabular half of the study `linear-speedup`: its grids, protocols and regressions."""

import copy

import numpy as np
import pytest
import xarray as xr

from fedjax_rl import envs
from fedjax_rl.analysis import Measured, decide
from fedjax_rl.studies import STUDIES
from fedjax_rl.studies.linear_speedup import SCALES, errors, grids, laws, protocols, times
from fedjax_rl.studies.study import SCALES as NAMES
from fedjax_rl.studies.study import Meter

STUDY = STUDIES["linear-speedup"]
TABLES = [name for name in STUDY.figures if name not in STUDY.only_named]
FULL = STUDY.size("paper")


def at(cell):
    return cell.num_agents, *cell.properties.values()


def test_the_grids_are_the_authors():
    cells = [cell for cell in grids.grid_cells(FULL) if cell.seed < grids.EXTRA]
    kinds = {at(cell)[:3] for cell in cells}
    assert (len(cells), len(kinds)) == (1920, 320)
    assert sum(n == 1 or k == 1 for n, _, k, _ in map(at, cells)) == 432
    assert {rate for n, rate, _ in kinds if n == 1} == set(grids.RATES)
    assert len(grids.period_cells(FULL.replace(period_trials=3))) == 1782
    # Every run is a run of its own.
    every = grids.grid_cells(FULL)
    assert len({cell.seed for cell in every}) == len(every)


@pytest.mark.parametrize("scale", NAMES)
@pytest.mark.parametrize("preset", STUDY.presets)
def test_every_figure_declares_the_rows_of_the_specification(scale, preset):
    made = STUDY.declare(TABLES, STUDY.size(scale, preset))
    claims = [own.claim for figure in made for own in figure.claims]
    rows = {claim.id for claim in claims}
    assert {f"T{i}" for i in range(1, 25)} | {"T25a", "T25b", "T6b", "F6b", "5.2", "EQ 1"} <= rows
    assert sum(claim.kind == "control" for claim in claims) >= 2
    assert all(figure.claims and figure.pictures for figure in made)


def test_the_mdp_alone_reproduces_its_rows():
    (made,) = STUDY.declare(["fig1"], FULL)
    for own in made.claims:
        assert own.decide(None)["verdict"] == "reproduced"


def test_rollouts_follow_the_policy_and_the_kernel():
    mdp = envs.tabular_mdp(np.array([[[0.0, 1.0]], [[1.0, 0.0]]]), np.array([2.0, 3.0]), 0.5)
    total = errors.rollouts(mdp, np.ones((2, 1)), np.full((5, 2, 3), 0.5))
    np.testing.assert_array_equal(total, [3 + 2 + 3 + 2 + 3] * 3)


@pytest.fixture(scope="module")
def meter():
    return Meter(None, {"some": 1})


@pytest.fixture(scope="module")
def author(meter):
    cells = protocols.cells_of([(n, 0.08, 10, 1.0) for n in (1, 4)], 7)
    return protocols.author(cells, meter, "some")


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
    assert grids.pick(author, sync_period=1000).sizes["cell"] == 1
    assert grids.pick(author, sync_period=10).sizes["cell"] == 2


def test_clean_runs_measure_the_server_for_a_fixed_length(meter):
    cells = protocols.cells_of([(n, 0.08, 10, 1.0) for n in (1, 16)], 7)
    clean = protocols.clean(cells, meter, "some")
    assert clean["series_time"].values.max() == 400 / 0.08
    one, many = clean["final_squared"].values
    assert 8 < one / many < 32
    np.testing.assert_allclose(clean["reached"], 76.4 / 0.08, rtol=0.3)


def invented(trials=4, noise=0.01):
    """Runs of which every answer is known: D^2 = 3 alpha / N, T = 76 / alpha."""
    cells = [at(cell) for cell in grids.grid_cells(FULL.replace(trials=trials, extra=0))]
    n, rate, period, epsilon = np.array(cells).T
    noisy = np.exp(noise * np.random.default_rng(0).normal(size=(2, n.size)))
    squared, reached = 3 * rate / n * noisy[0], np.round(76 / rate * noisy[1])
    data = {"final": np.sqrt(squared), "final_squared": squared, "reached": reached}
    data["server_squared"] = squared
    where = {"num_agents": n.astype(int), "learning_rate": rate, "sync_period": period.astype(int)}
    where |= {"epsilon": epsilon, "seed": np.arange(n.size)}
    return xr.Dataset(*({k: ("cell", v) for k, v in own.items()} for own in (data, where)))


class Invented(dict):
    def __getitem__(self, stage):
        return super().__getitem__(stage.name)


def lines(figure, ids, results):
    (made,) = STUDY.declare([figure], FULL)
    return {
        own.claim.id: own.decide(Invented(results)) for own in made.claims if own.claim.id in ids
    }


def test_regressions_find_what_was_put_into_runs():
    results = {"grid": invented()}
    found = lines("fig4", ("T10", "T11"), results) | lines("fig6", ("T18", "F6b"), results)
    found |= lines("fig7", ("T23", "T24", "T24b"), results)
    np.testing.assert_allclose(found["T10"]["measured"], 1, atol=0.01)
    np.testing.assert_allclose(found["T11"]["measured"], [1, -1], atol=0.01)
    np.testing.assert_allclose(found["T18"]["measured"], [0, np.log10(76 / 0.002)], atol=0.01)
    np.testing.assert_allclose(found["F6b"]["measured"], -1, atol=0.02)
    np.testing.assert_allclose(found["T24"]["measured"], [-0.4356, -1, -1], atol=0.01)
    assert {line["verdict"] for line in (found["T18"], found["F6b"], found["T24b"])} == {
        "reproduced"
    }
    # Perfect times are not those that the paper read every 1010 steps.
    assert found["T24"]["verdict"] == "not reproduced"
    np.testing.assert_allclose(found["T23"]["measured"][0], np.log2(50) / 10, atol=1e-9)
    assert found["T10"]["runs"] == 432 * 4 / 3
    assert found["T24"]["runs"] == [40, 40, 40]


def test_raw_runs_are_compared_cell_by_cell():
    runs = invented()
    (line,) = lines("fig3", ("raw K <= 10",), {"grid": runs}).values()
    rates, agents = np.array(errors.RAW_RATES), np.array([2, 4, 8, 16])
    expected = np.exp(np.mean(np.log(3 * rates[:, None] / agents)) / 2)
    excess = np.log([errors.RAW[1] / expected, errors.RAW[10] / expected])
    np.testing.assert_allclose(line["measured"], excess, atol=0.01)
    assert line["runs"] == [160, 160]
    # His runs have noise, too: 1.96 times 0.014.
    np.testing.assert_allclose(line["high"], 0.02744 + np.array(line["measured"]), rtol=1e-3)


def test_agents_alone_and_together_are_told_apart():
    reached = np.array([100.0, 101, 102, 10, 11, 12, 9, 10, 11])
    where = {"num_agents": [1] * 6 + [16] * 3, "learning_rate": [0.002] * 3 + [0.032] * 6}
    where |= {"sync_period": [10_000] * 6 + [1] * 3, "epsilon": [1.0] * 9}
    fine = xr.Dataset({"reached": ("cell", reached)}, {k: ("cell", v) for k, v in where.items()})
    assert times.together(fine).sizes["cell"] == 6
    assert times.alone(fine)["num_agents"].values.tolist() == [1] * 3 + [16] * 3
    gain = times._gain(fine)
    np.testing.assert_allclose(
        gain.value, np.log10([10, 11, 12]).mean() - np.log10([9, 10, 11]).mean()
    )


def test_a_difference_of_independent_numbers():
    found = grids.less(Measured(3, 0, 6, 10), Measured(1, -3, 5, 8))
    assert found == Measured(2, -3, 7, 8)


def test_the_drift_law_of_runs_that_follow_it():
    rng = np.random.default_rng(0)
    period, rate = (a.ravel() for a in np.meshgrid(grids.GRID_B[::5], (0.1, 0.3, 0.6)))
    phase = (1010 * np.arange(21, 31)[None]) % period[:, None]
    law = 0.02 * rate[:, None] + 5 * rate[:, None] ** 1.3 * -np.expm1(-rate[:, None] * phase / 10)
    value = law.mean(axis=1) * np.exp(0.02 * rng.normal(size=period.size))
    data = {"all_squared": value, "final": np.sqrt(value), "records": np.full(period.size, 30)}
    where = {"sync_period": period, "learning_rate": rate, "num_agents": np.full(period.size, 256)}
    runs = xr.Dataset(*({k: ("cell", v) for k, v in own.items()} for own in (data, where)))
    (line,) = lines("fig5", ("T17",), {"periods": runs}).values()
    assert line["measured"][0] > 0.99
    np.testing.assert_allclose(laws.drift(runs).law.exponent, 1.3, atol=0.05)


def test_a_figure_leaves_a_complete_directory(tmp_path, monkeypatch):
    monkeypatch.setattr(grids, "FAST", 0.01)  # runs are as short as the author's rule has them
    monkeypatch.setitem(STUDY.scales, "smoke", SCALES["smoke"].replace(rates=(0.01,), trials=1))
    summary = STUDY.run(tmp_path, ["fig7"], "smoke")
    assert [line["id"] for line in summary["targets"]] == ["T23", "T24", "T24b"]
    for name in ("fig7.png", "fig7.svg", "grid/result.nc"):
        assert (tmp_path / name).stat().st_size > 0
    # Going on reads the runs and makes none.
    monkeypatch.setattr(protocols, "run_cells", None)
    again = STUDY.run(tmp_path, ["fig7"], "smoke")
    assert again["targets"] == summary["targets"]
    np.testing.assert_allclose(list(again["seconds"].values()), list(summary["seconds"].values()))


def test_what_a_scale_lacks_is_not_run():
    (made,) = STUDY.declare(["fig4"], STUDY.size("smoke"))
    (own,) = (own for own in made.claims if own.claim.id == "T25a")
    assert not own.there
    assert decide(own.claim)["verdict"] == "not run"


def test_finishing_without_stages_is_done():
    seen = []
    meter = Meter(lambda *done: seen.append(done), {})
    meter.finish()
    assert seen == [(1.0, 1.0)]


def test_a_scale_knows_its_sizes():
    scale = SCALES["smoke"]
    assert scale.replace(trials=7).trials == 7
    assert copy.deepcopy(scale) == scale
    with pytest.raises(AttributeError, match=r"no size of this study; known: .*trials"):
        _ = scale.trails
    with pytest.raises(ValueError, match=r"trails.*trials"):
        scale.replace(trails=7)
