"""The study `fast-fedpg`: what it declares, numbers of invented runs, and its exact rows."""

import numpy as np
import pytest
import xarray as xr

from fedjax_rl.studies.fast_fedpg import STUDY
from fedjax_rl.studies.fast_fedpg import sampled as tables
from fedjax_rl.studies.runs import Results
from fedjax_rl.studies.study import Meter

TINY = STUDY.size("smoke").replace(trials=3, speedup=(3, 4), floor=6, lengths=(10, 20))


def test_every_row_is_declared_at_every_scale():
    for scale in STUDY.scales:
        made = STUDY.declare(list(STUDY.figures), STUDY.size(scale))
        ids = [own.claim.id for figure in made for own in figure.claims]
        rows = (*(f"A{n}" for n in range(1, 9)), "A1b", "B1", "B2", "B3")
        assert {*rows, *(f"claim {n}" for n in range(1, 7))} <= {*ids}
        assert {"claim 1 null", "B1 null", "B2 null", "samples null", "claim 4 null"} <= {*ids}
        unmade = {own.claim.id for figure in made for own in figure.claims if not own.there}
        poles = {f"claim 4{own}" for own in ("", " size", " memory", " worst", " null")}
        bodies = {"claim 5", "claim 6", "claim 6 null", "claim 6 methods"}
        missing = {
            "smoke": {*poles, *bodies, "A7", "B2 memory"},
            "quick": bodies,
            "paper": set(),
        }
        assert unmade == missing[scale]


def results_of(figure, values, tmp_path):
    """Results whose stages are made of `values(variable, method, {axis: value}, seed)`."""

    def fake(stage):
        of = stage.decides
        axes = {k: list(v) for k, v in of["axes"].items()}
        shape = (len(of["methods"]), *map(len, axes.values()), 3, 4)
        dims = ("method", *axes, "seed", "time")
        coordinates = {"method": list(of["methods"]), **axes, "seed": range(3), "time": range(4)}
        data = {name: (dims, np.zeros(shape)) for name in of["metrics"]}
        made = xr.Dataset(data, coordinates)
        for name, place in ((n, p) for n in made for p in np.ndindex(shape)):
            at = {d: made[d].values[i] for d, i in zip(dims, place, strict=True)}
            made[name].values[place] = values(stage.name, name, at)
        return made

    results = Results(tmp_path, Meter(None, {stage.name: 1.0 for stage in figure.stages}))
    results._made = {stage.name: fake(stage) for stage in figure.stages}
    return results


def lines_of(name, values, tmp_path):
    (figure,) = STUDY.declare([name], TINY)
    results = results_of(figure, values, tmp_path)
    for own in figure.pictures:
        own.draw(results)
    return {own.claim.id: own.decide(results) for own in figure.claims}


def test_exponents_are_those_of_the_runs(tmp_path):
    def values(stage, name, at):
        noise = 1 + 0.01 * at["seed"]
        return noise * (tables.START if stage == "null" else 0.7 / at["num_agents"])

    lines = lines_of("speedup", values, tmp_path)
    assert lines["B1"]["measured"] == pytest.approx(-1)
    assert lines["B1 null"]["measured"] == pytest.approx(0)
    assert lines["B1 order"]["measured"] == pytest.approx([1.01 * 0.35 / n for n in (2, 4, 8, 16)])
    assert {lines[name]["verdict"] for name in ("B1", "B1 order", "B1 null")} == {"reproduced"}


def test_every_length_counts_in_the_rates(tmp_path):
    def values(stage, name, at):
        if stage == "null":
            return 1.0
        effort = 5 * at["num_agents"] * int(stage.removeprefix("samples-"))
        return np.log(effort) / effort if name == "gap" else effort**-0.25

    lines = lines_of("samples", values, tmp_path)
    assert lines["B3"]["measured"] == pytest.approx(-1)
    assert lines["claim 2"]["measured"] == pytest.approx(-0.5)
    assert lines["samples null"]["measured"] == pytest.approx([0, 0])


def test_the_bias_is_the_ratio_to_whole_gradients(tmp_path):
    def values(stage, name, at):
        return 0.4 if stage == "floor-exact" else 0.8 + 0.1 * at["seed"]

    line = lines_of("floor", values, tmp_path)["B2 bias"]
    assert (line["measured"], line["runs"]) == (pytest.approx(2.25), 3)


def test_exact_rows_from_nothing_to_a_directory(tmp_path):
    summary = STUDY.run(tmp_path, ["estimators"], "smoke")
    assert {line["verdict"] for line in summary["targets"]} == {"reproduced"}
    assert (tmp_path / "average.png").exists()
