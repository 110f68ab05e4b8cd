"""The study `momentum`: its rows, numbers from invented runs with a known answer, one tiny run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from fedjax_rl.envs import family_optimum, objective
from fedjax_rl.studies import policy_gradients
from fedjax_rl.studies.momentum import STUDY, exact, tables
from fedjax_rl.studies.runs import Results
from fedjax_rl.studies.study import Meter

SIZE = STUDY.size("quick").replace(lengths=(50, 100), rounds=60, error_rounds=60, tuned_rounds=60)
SHOWN = [name for name in STUDY.figures if name != "halfcheetah"]


def test_every_row_is_there_once():
    ids = [own.claim.id for one in STUDY.declare(list(STUDY.figures), SIZE) for own in one.claims]
    assert len(set(ids)) == len(ids)
    specified = {
        "A11",
        "A11b",
        "A12",
        "A13",
        "B4",
        "B5",
        "B6",
        "B6b",
        "B9",
        "B9b",
        "T3",
        "T6",
        "T7",
    }
    claims = {f"claim {own}" for own in ("1", "1b", "2", "3", "3b", "3c", "4", "5", "6", "7", "8")}
    assert specified | claims <= set(ids)


def test_what_counts_as_lost_is_the_gap_before_anything_is_learned():
    mdps = policy_gradients.m2().members(8)
    each = [jax.tree.map(lambda x, i=i: x[i], mdps) for i in range(8)]
    with jax.enable_x64(True):
        untrained = np.mean([objective.value(mdp, jnp.zeros((5, 3)), 0.3) for mdp in each])
    assert family_optimum.optimum(mdps, 0.3) - untrained == pytest.approx(tables.START, abs=1e-6)


def invented(stage) -> xr.Dataset:
    """Random numbers in the shape of a stage, without a run."""
    if stage.name == "identities":
        return xr.Dataset({k: (("seed", f"of_{k}"), [[1e-16]]) for k in ("moved", "ended")})
    of, rng = stage.decides, np.random.default_rng(0)
    sizes = {"method": list(of["methods"]), **{k: list(v) for k, v in of["axes"].items()}}
    sizes["seed"] = range(of["trials"])
    sizes["time"] = range(of["record_every"], of["num_steps"] + 1, of["record_every"])
    shape = [len(own) for own in sizes.values()]
    made = {name: (list(sizes), rng.uniform(0.1, 0.3, shape)) for name in of["metrics"]}
    return xr.Dataset(made, {name: list(own) for name, own in sizes.items()})


def decided(directory, figure, **fill):
    """The lines of a figure by id, from invented runs some of whose variables are set.

    Args:
      directory: for the stages.
      figure: its name.
      **fill: variable -> function of the runs, which returns what it is.
    """
    (one,) = STUDY.declare([figure], SIZE)
    results = Results(directory, Meter(None, {}))
    for stage in one.stages:
        made = results._made[stage.name] = invented(stage)
        for name, value in fill.items():
            if name in made:
                made[name] = value(made).broadcast_like(made[name])
    return {own.claim.id: own.decide(results) for own in one.claims}, one, results


@pytest.mark.parametrize("figure", SHOWN)
def test_every_figure_measures_what_it_claims(tmp_path, figure):
    fill = {"gap": lambda made: xr.where(made["method"] == "still", 1.0, 1e-3)}
    lines, _, _ = decided(tmp_path, figure, **(fill if figure == "bias" else {}))
    for line in lines.values():
        assert line["verdict"] != "not run"
        assert np.all(np.isfinite(line["measured"]))


@pytest.mark.thorough
@pytest.mark.parametrize("figure", SHOWN)
def test_every_figure_is_drawn(tmp_path, figure):
    _, one, results = decided(tmp_path, figure)
    assert [own.draw(results).axes != [] for own in one.pictures] == [True]


def test_speedup_is_the_exponent_of_the_gap_in_the_number_of_agents(tmp_path):
    def gap(made):  # of one agent alone there is no axis
        return 2 / made["num_agents"] if "num_agents" in made.coords else made["gap"]

    lines, _, _ = decided(tmp_path, "speedup", gap=gap)
    assert lines["claim 2"]["measured"] == pytest.approx([-1, -1])
    assert lines["claim 2b"]["measured"] == pytest.approx([2 / 8 - 2 / 32] * 2)


def test_averaging_is_as_slow_as_its_steps_are_small(tmp_path):
    def gap(made):
        if "learning_rate" not in made.coords:
            return made["gap"]
        own = xr.where(made["method"] == exact.AVERAGED, 2 * made["learning_rate"], 0.2)
        return np.exp(-own * made["time"] * (made["method"] != "still"))

    lines, _, _ = decided(tmp_path, "bias", gap=gap)
    # The first rounds after log(100) / 0.002 and log(100) / 0.2.
    assert lines["claim 1b"]["measured"][1:] == pytest.approx([1, 2303 / 24])


def test_error_is_compared_with_the_law(tmp_path):
    def law(made):
        if "momentum" in made.coords:
            return tables.law(made["momentum"])
        sizes = [float(label.split()[-1]) for label in made["setting"].values]
        return xr.zeros_like(made["setting"], float) + 1 / np.asarray(sizes)

    lines, _, _ = decided(tmp_path, "estimator-error", estimator_error=law)
    assert lines["B4"]["measured"] == pytest.approx([1, 1, 1, -1, -1])


def test_rates_are_exponents_in_rounds_agents_and_what_is_to_be_reached(tmp_path):
    def norm(made):
        return (made["num_agents"] * made["length"]) ** (-1 / 3)

    lines, _, _ = decided(tmp_path, "rates", gradient_norm=norm)
    assert lines["rate"]["measured"] == pytest.approx([-2 / 3, -2 / 3])
    assert lines["rate ε"]["measured"] == pytest.approx([-1.5, -1])
    assert lines["rate order"]["measured"] == pytest.approx(0, abs=1e-12)


def test_runs_are_lost_that_end_worse_than_untrained(tmp_path):
    def gap(made):
        worst = (made["method"] == tables.HA) & (made["server_learning_rate"] == 1.0)
        return xr.where(worst, 0.5, 0.01)

    lines, _, _ = decided(tmp_path, "tuned", gap=gap)
    assert lines["B6b"]["measured"] == [0, 0, 1]
    # Of few seeds that none is lost says little.
    assert lines["B6b"]["verdicts"] == ["undecided", "undecided", "not reproduced"]


def test_longer_steps_alone_are_no_advantage_at_equal_steps(tmp_path):
    """Truncation that doubles the steps and nothing else: better at equal lambda only."""

    def norm(made):
        return xr.where(made["method"] == tables.CLIPPED, 2.0, 1.0)

    def value(made):
        return 50 + 10 * np.log(made["server_learning_rate"] * norm(made))

    fill = {"direction_norm": norm, "return": value}
    lines, _, _ = decided(tmp_path, "clipping", **fill)
    at_lambda, at_steps = lines["claim 4"]["measured"]
    assert at_lambda == pytest.approx(10 * np.log(2))
    # Between the lambdas that were run it is interpolated.
    assert at_steps == pytest.approx(0, abs=0.02)
    assert lines["T6"]["measured"] == pytest.approx(2)


def test_at_equal_steps_of_the_server_fedpg_is_as_biased_and_as_fast():
    """The bias does not know of momentum; averaging with a small step is slow."""
    (one,) = STUDY.declare(["bias"], STUDY.size("quick").replace(exact_rounds=120))
    stage = next(own for own in one.stages if own.name == "bias-eta")
    found = stage.make(Meter(None, {"bias-eta": 1.0}))["gap"].isel(time=-1, seed=0)
    gap = dict(zip(found["method"].values.tolist(), found.values, strict=True))
    np.testing.assert_allclose(gap[exact.SAME], gap[exact.SV], rtol=0.2)
    place = exact.ETAS.index(0.01)
    assert gap[exact.AVERAGED][place] > 100 * gap[exact.SV][place]
    assert np.all(gap["still"] > 0.1)


def test_without_halfcheetah_its_rows_are_not_run(tmp_path):
    lines = STUDY.run(tmp_path, ["halfcheetah"], "quick")["targets"]
    assert {line["verdict"] for line in lines} == {"not run"}
    assert lines[0]["command"] == "fedjax-rl reproduce momentum:halfcheetah --scale paper"
    assert lines[0]["cost"] == 3000
