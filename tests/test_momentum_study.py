"""The study `momentum`: its rows, numbers from invented runs, one tiny run."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from fedjax_rl import plotting
from fedjax_rl.envs import family_optimum, objective
from fedjax_rl.studies import momentum as study
from fedjax_rl.studies import momentum_data as data
from fedjax_rl.studies import momentum_figures as figures
from fedjax_rl.studies import momentum_measures as measures
from fedjax_rl.studies import momentum_targets as targets
from fedjax_rl.studies import policy_gradients, stage_runs, variant_runs
from fedjax_rl.studies.momentum_data import label
from fedjax_rl.studies.study import Meter

TINY = data.SCALES["smoke"].replace(
    exact_rounds=4,
    kernel_rounds=4,
    trials=2,
    error_rounds=6,
    rounds=6,
    tuned_rounds=8,
    pole_trials=3,
    pole_rounds=60,
    sweep_rounds=20,
)


def test_every_row_is_there_once_and_belongs_to_a_figure():
    ids = [target.id for target in targets.TARGETS]
    assert len(set(ids)) == len(ids)
    assert {"A11", "A12", "A13", "B4", "B5", "B6", "B9"} <= set(ids)
    assert set(targets.FIGURE_OF.values()) == set(study.FIGURES) == set(measures.MEASURE)
    assert set(study._NEEDS) == set(figures.PICTURES) == set(study.FIGURES)
    assert {stage for needs in study._NEEDS.values() for stage in needs} == set(data.STAGES)


def test_what_counts_as_lost_is_the_gap_before_anything_is_learned():
    mdps = policy_gradients.m2().members(8)
    each = [jax.tree.map(lambda x, i=i: x[i], mdps) for i in range(8)]
    with jax.enable_x64(True):
        untrained = np.mean([objective.value(mdp, jnp.zeros((5, 3)), 0.3) for mdp in each])
    assert family_optimum.optimum(mdps, 0.3) - untrained == pytest.approx(targets.START, abs=1e-6)


def invented(variants, num_steps, meter, stage, *, metrics, record_every=1, **options):
    """A stage of random numbers, without a run."""
    del options
    meter.stage(stage)
    rng = np.random.default_rng(len(variants))
    time = np.arange(record_every, num_steps + 1, record_every)
    shape = (len(variants), max(v.trials for v in variants), len(time))
    made = {name: (("label", "seed", "time"), rng.uniform(0.1, 0.3, shape)) for name in metrics}
    made["diverged"] = ("label", "seed"), np.zeros(shape[:2])
    made["trials"] = "label", [v.trials for v in variants]
    return xr.Dataset(
        made, {"label": [v.label for v in variants], "seed": range(shape[1]), "time": time}
    )


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.setattr(variant_runs, "run", invented)
    made = stage_runs.Runs(
        data.STAGES, TINY, Meter(None, dict.fromkeys(data.STAGES, 1.0)), tmp_path
    )
    names = ["A12 SV", "A13 SV"]
    made._made["identities"] = xr.Dataset({"value": ("name", [1e-16, 2e-16])}, {"name": names})
    return made


SHOWN = [figure for figure in study.FIGURES if figure != "halfcheetah"]


@pytest.mark.parametrize("figure", SHOWN)
def test_every_figure_has_the_lines_that_it_measures_and_shows(runs, figure):
    bands = {t.id: len(t.bands) for t in targets.TARGETS if t.figure == figure}
    found = measures.MEASURE[figure](runs)
    assert set(found) == set(bands)
    for name, (measured, _, _) in found.items():
        assert np.size(measured) == bands[name]
        assert np.all(np.isfinite(measured))
    assert set(measures.measure(figure, runs)) == ({"A12", "A13"} if figure == "bias" else set())
    assert list(figures.PICTURES[figure](runs)) == [figure]


def fill(runs, stage, metric, value):
    """Sets a metric of every line to a function of its label."""
    made = getattr(runs, stage)
    for place, name in enumerate(made["label"].values.tolist()):
        made[metric].values[place] = value(name)


def number(name, letter):
    return float(name.split(f"{letter}=")[1].split()[0])


def test_speedup_is_the_exponent_of_the_gap_in_the_number_of_agents(runs):
    fill(runs, "speedup", "gap", lambda name: 2 / number(name, "N"))
    assert measures.MEASURE["speedup"](runs)["claim 2"][0] == pytest.approx([-1, -1])


def test_error_is_compared_with_the_law(runs):
    def law(name):
        if "beta" in name:
            beta = number(name, "beta")
            return beta / (2 - beta)
        return 1 / number(name, "N" if "N=" in name else "H")

    fill(runs, "error", "estimator_error", law)
    measured = measures.MEASURE["estimator-error"](runs)["B4"][0]
    assert measured == pytest.approx([1, 1, 1, -1, -1])


def test_runs_are_lost_that_end_worse_than_untrained(runs):
    fill(runs, "tuned", "gap", lambda name: 0.5 if name == "HA lambda=1" else 0.01)
    found = measures.MEASURE["tuned"](runs)
    assert found["B6b"][0] == pytest.approx([0, 0, 0.25])
    assert measures.lost(runs.tuned, "HA lambda=1").all()


def test_longer_steps_alone_are_no_advantage_at_equal_steps(runs):
    """Truncation that doubles the steps and nothing else: better at equal lambda only."""

    def length(name):
        step = 0.003 if "lambda" not in name else number(name, "lambda")
        return step * (2 if name.startswith("SV clip") else 1)

    def norm(name):
        return 2.0 if name.startswith("SV clip") else 1.0

    fill(runs, "sweeps", "direction_norm", norm)
    fill(runs, "sweeps", "return", lambda name: 50 + 10 * np.log(length(name)))
    found = measures.MEASURE["clipping"](runs)
    at_lambda, at_steps = found["claim 4"][0]
    assert at_lambda == pytest.approx(10 * np.log(2))
    # Between the lambdas that were run it is interpolated.
    assert at_steps == pytest.approx(0, abs=0.02)
    assert found["T6"][0] == pytest.approx(2)


def test_points_leave_out_what_is_not_finite_and_mark_what_is_hollow():
    lines = {"one": {1: [1.0, 3.0, np.nan], 10: [np.nan] * 3, 100: [5.0]}}
    (axis,) = plotting.points(lines, hollow={"one": [100]}).axes
    bars, empty = axis.containers[0], axis.lines[-1]
    np.testing.assert_allclose(bars[0].get_xydata(), [[1, 2], [100, 5]])
    np.testing.assert_allclose(empty.get_xydata(), [[100, 5]])


def test_a_tiny_run_of_exact_gradients(tmp_path, monkeypatch):
    """Alike environments: one curve for averaging, and QAvg is exact."""
    methods = data._kernel_methods()
    few = {name: methods[name] for name in ("FedPG", "QAvg")}
    monkeypatch.setattr(data, "_kernel_methods", lambda: few)
    monkeypatch.setattr(data, "KAPPAS", (0.0, 1.0))
    monkeypatch.setitem(data.SCALES, "smoke", TINY.replace(kernel_rounds=20))
    summary = study.STUDY.run(tmp_path, ["kernels"], "smoke")
    saved = json.loads((tmp_path / "summary.json").read_text())
    assert saved["targets"] == summary["targets"]
    assert [line["verdict"] for line in saved["targets"]] == ["not run"]
    assert {"kernels.png", "kernels.svg", "scoreboard.png"} <= {p.name for p in tmp_path.iterdir()}
    meter = Meter(None, {"kernels": 1.0})
    made = stage_runs.Runs(data.STAGES, data.SCALES["smoke"], meter, tmp_path).kernels
    gap = {name: variant_runs.line(made, name, "gap")[0, -1] for name in made["label"].values}
    assert gap[label("QAvg", kappa=0.0)] < 1e-9 < 1e-3 < gap[label("QAvg", kappa=1.0)]
    assert 0 < gap[label("FedPG", kappa=0.0)] < gap[label("FedPG", kappa=1.0)]


def test_without_halfcheetah_its_row_is_not_run(tmp_path):
    (line,) = study.STUDY.run(tmp_path, ["halfcheetah"], "quick")["targets"]
    assert line["verdict"] == "not run"
