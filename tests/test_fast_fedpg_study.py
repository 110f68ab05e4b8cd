"""The study `fast-fedpg`: its rows, what is exact, what it leaves behind at a tiny size."""

import json

import numpy as np
import pytest
import xarray as xr

from fedjax_rl.studies import fast_fedpg as study
from fedjax_rl.studies import fast_fedpg_data as data
from fedjax_rl.studies import fast_fedpg_figures as figures
from fedjax_rl.studies import fast_fedpg_measures as measures
from fedjax_rl.studies import fast_fedpg_targets as targets
from fedjax_rl.studies import intervals, stage_runs
from fedjax_rl.studies.study import Meter


def test_every_row_belongs_to_a_figure_that_measures_and_draws_it():
    ids = [target.id for target in targets.TARGETS]
    assert len(set(ids)) == len(ids)
    for name in (*(f"A{n}" for n in range(1, 9)), "B1", "B2", "B3"):
        assert name in ids
    assert set(study.FIGURES) == set(measures._MEASURE) == set(figures.PICTURES)
    assert set(study.FIGURES) == set(study._NEEDS) == set(targets.FIGURE_OF.values())
    assert {stage for needs in study._NEEDS.values() for stage in needs} == set(data.STAGES)


def test_exact_rows_and_their_picture(tmp_path):
    """A1, A1b and A8, from nothing to a complete directory."""
    seen = []
    summary = study.STUDY.run(tmp_path, ["estimators"], progress=lambda *now: seen.append(now))
    verdicts = {line["id"]: line["verdict"] for line in summary["targets"]}
    assert verdicts == dict.fromkeys(("A1", "A1b", "A8"), "reproduced")
    assert seen[-1][0] == seen[-1][1]
    assert (tmp_path / "estimators.png").exists()
    assert json.loads((tmp_path / "summary.json").read_text())["study"] == "fast-fedpg"


def test_without_cheetahs_theirs_is_not_run(tmp_path):
    lines = study.STUDY.run(tmp_path, ["cheetah"], "smoke")["targets"]
    assert [(line["id"], line["verdict"]) for line in lines] == [("claim 5", "not run")]


def invented(gaps, trials=3):
    """Runs whose gaps are given by label, with a little noise."""
    noise = np.random.default_rng(0).uniform(0.99, 1.01, (len(gaps), trials, 4))
    values = np.array(list(gaps.values()))[:, None, None] * noise
    return xr.Dataset(
        {"gap": (("label", "seed", "time"), values), "trials": ("label", [trials] * len(gaps))},
        {"label": list(gaps), "time": range(4)},
    )


def test_exponents_are_those_of_the_points(tmp_path):
    labels = {f"Fast-FedPG N={n}": 0.7 / n for n in data.AGENTS}
    runs = stage_runs.Runs(data.STAGES, data.SCALES["smoke"], Meter(None, {}), tmp_path)
    runs._made["speedup"] = invented(labels)
    value, low, high = measures.measure("speedup", runs)["B1"]
    assert low < value < high
    assert value == pytest.approx(-1, abs=0.01)


def test_slopes_keep_seeds_together():
    """A factor common to all points of a seed widens nothing."""
    factor = np.array([0.1, 1.0, 10.0])
    value, low, high = intervals.slope({n: factor / n for n in (1, 2, 4)})
    assert (value, low, high) == pytest.approx((-1, -1, -1))
