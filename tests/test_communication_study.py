"""The study `communication-efficient`: its rows, its runs at a tiny size, its directory."""

import json

import numpy as np
import pytest
import xarray as xr

from fedjax_rl.algorithms import espc
from fedjax_rl.envs import simple_grid
from fedjax_rl.saving import results
from fedjax_rl.studies import communication_efficient as study
from fedjax_rl.studies import communication_efficient_data as data
from fedjax_rl.studies import communication_efficient_measures as measures
from fedjax_rl.studies import communication_efficient_targets as targets
from fedjax_rl.studies import stage_runs, variant_runs
from fedjax_rl.studies.study import Meter

TINY = data.SCALES["smoke"].replace(
    grid_trials=2,
    grid_es_trials=1,
    episodes=4,
    windy_trials=2,
    cartpole_trials=2,
    setting_trials=2,
    setting_a_trials=2,
    cartpole_episodes=3,
    table=False,
    samples=200,
)


def test_every_row_of_the_specification_is_there_once_and_belongs_to_a_figure():
    ids = [target.id for target in targets.TARGETS]
    assert len(set(ids)) == len(ids)
    assert [i for i in ids if i.startswith("C")] == [f"C{n}" for n in range(1, 38)]
    assert set(targets.FIGURE_OF.values()) <= set(study.FIGURES)
    assert set(measures.MEASURE) == set(study.FIGURES) == set(study._NEEDS)
    assert {stage for needs in study._NEEDS.values() for stage in needs} == set(data.STAGES)


def test_bands_widen_with_fewer_trials_and_nothing_else_changes():
    scale = data.SCALES["paper"].replace(grid_trials=25)
    wide = {target.id: target for target in targets.for_scale(scale)}
    same = {target.id: target for target in targets.TARGETS}
    np.testing.assert_allclose(wide["C9"].band, (-8.55, -5.55))  # -7.05 +- 2 times 0.75
    assert wide["C8"].bands[1] == (None, 80)  # one-sided
    assert wide["C12"].bands == ((1, 1), (1, 1))  # exact
    for name in ("C1", "C20", "C26", "claim 7"):
        assert wide[name] == same[name]
    assert targets.for_scale(data.SCALES["paper"]) == list(targets.TARGETS)


def test_reference_numbers_of_the_rows_agree_with_each_other():
    """The first episode is the row of one sample; the rates tend to m / n."""
    assert targets.FIRST_EPISODE[25] == 0.5
    assert set(measures.SIGNAL_TO_NOISE) == set(data.METHODS)
    assert all(len(row) == len(data.RATIOS) for row in measures.SIGNAL_TO_NOISE.values())
    for m, rate in measures.WINDOW_RATES[30].items():
        assert abs(rate - m / 50) < 0.006


@pytest.fixture(scope="module")
def runs():
    """Variants of one algorithm with different agents and trials."""
    one = espc(simple_grid(), **data.GRID_ES)
    variants = [
        variant_runs.Variant("ES", one, 4, {"target_senders": 4}, 3),
        variant_runs.Variant("ESPC", one, 4, {"target_senders": 2}, 2),
        variant_runs.Variant("few", one, 2, {"target_senders": 2, "shaping": "center"}, 3),
    ]
    return data.run(variants, 5, Meter(None, {"some": 1.0}), "some")


def test_a_stage_holds_every_trial_of_every_variant(runs):
    assert dict(runs.sizes) == {"label": 3, "seed": 3, "time": 5}
    assert np.isnan(runs["reward"].sel(label="ESPC", seed=2)).all()
    assert data.line(runs, "ESPC").shape == (2, 5)
    assert (data.line(runs, "ES", "frequency") == 1).all()
    assert (data.line(runs, "ES", "size") == 4).all()
    # What the curves say is what the ledger says.
    for label in ("ES", "ESPC", "few"):
        n = int(runs.sel(label=label)["num_agents"])
        sent = data.line(runs, label, "frequency").sum(axis=1) * n
        trials = len(sent)
        np.testing.assert_allclose(runs.sel(label=label)["messages_up"].values[:trials], sent)
        np.testing.assert_allclose(runs.sel(label=label)["bytes_up"].values[:trials], 4 * sent)


def test_variants_share_their_first_episode(runs):
    """The same seed, the same first parameters, perturbations and states."""
    first = runs["reward"].isel(time=0, seed=slice(0, 2))
    np.testing.assert_array_equal(first.sel(label="ES"), first.sel(label="ESPC"))


def curves(labels, episodes=4, trials=2):
    """A stage as `data.run` makes it, of invented numbers."""
    rng = np.random.default_rng(0)
    shape = (len(labels), trials, episodes)
    return xr.Dataset(
        {
            "reward": (("label", "seed", "time"), rng.uniform(-10, -5, shape)),
            "frequency": (("label", "seed", "time"), np.ones(shape)),
            "size": (("label", "seed", "time"), np.full(shape, 4.0)),
            "messages_up": (("label", "seed"), np.full(shape[:2], 5.0 * episodes)),
            "bytes_up": (("label", "seed"), np.full(shape[:2], 20.0 * episodes)),
            "trials": ("label", [trials] * len(labels)),
            "num_agents": ("label", [5] * len(labels)),
        },
        {"label": list(labels), "seed": range(trials), "time": np.arange(1, episodes + 1)},
    )


def test_runs_that_are_too_short_are_not_judged(tmp_path):
    made = stage_runs.Runs(data.STAGES, TINY, Meter(None, {"simple": 1}), tmp_path)
    made._made["simple"] = curves(["DQL", "EBCDQL", "DAVIA", "ES", "ES centred"])
    assert set(measures.measure("fig3-4", made)) == {"C12", "C17"}


@pytest.mark.thorough
def test_a_study_that_was_stopped_reads_the_stages_it_has(tmp_path, monkeypatch):
    calls = []

    def simple(scale, meter, stage):
        calls.append(stage)
        meter.stage(stage)
        return curves(["DQL", "EBCDQL", "DAVIA", "ES", "ES centred"])

    monkeypatch.setitem(data.STAGES, "simple", stage_runs.Stage(simple, 1))
    monkeypatch.setitem(data.SCALES, "smoke", TINY)
    seen = []
    for _ in range(2):
        summary = study.STUDY.run(
            tmp_path, ["fig3-4", "fig4-7"], "smoke", progress=lambda *now: seen.append(now)
        )
    assert calls == ["simple"]
    xr.testing.assert_equal(
        results.load(tmp_path / "simple"), simple(TINY, Meter(None, {"x": 1}), "x")
    )
    assert seen[-1][0] == seen[-1][1]
    saved = json.loads((tmp_path / "summary.json").read_text())
    assert saved["targets"] == summary["targets"]
    verdicts = {line["id"]: line["verdict"] for line in saved["targets"]}
    assert verdicts["C12"] == verdicts["C4"] == verdicts["C5"] == "reproduced"
    assert verdicts["C7"] == "not run"
    assert "C26" not in verdicts
    # What is damaged is made anew, and what is of another scale is not shown as of this one.
    (tmp_path / "simple" / "result.nc").write_bytes(b"junk")
    study.STUDY.run(tmp_path, ["fig3-4"], "smoke")
    assert calls == ["simple", "x", "simple"]
    monkeypatch.setitem(data.SCALES, "smoke", TINY.replace(grid_trials=3))
    with pytest.raises(ValueError, match=r"scale.grid_trials is 3, there 2; allowed"):
        study.STUDY.run(tmp_path, ["fig3-4"], "smoke")
    assert {"fig3-4.png", "fig4-7.png", "fig4-7.svg", "scoreboard.png"} <= {
        path.name for path in tmp_path.iterdir()
    }


def test_without_ant_its_figures_are_not_run(tmp_path):
    summary = study.STUDY.run(tmp_path, ["fig4-6", "fig4-7"], "quick")
    verdicts = {line["id"]: line["verdict"] for line in summary["targets"]}
    assert verdicts["C36"] == verdicts["C37"] == "not run"
    assert not (tmp_path / "fig4-6.png").exists()
