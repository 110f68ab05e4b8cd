"""The study `differentiate`: what it declares, how exchanges are made whole, and two answers."""

import jax
import numpy as np
import pytest
import xarray as xr

from fedjax_rl.studies.differentiate import (
    STUDY,
    elasticities,
    exchanges,
    paths,
    schedules,
    tuning,
    weights,
)
from fedjax_rl.studies.differentiate.learning import descend
from fedjax_rl.studies.runs import Results
from fedjax_rl.studies.study import Meter

FIGURES = ("schedule", "weights", "exchanges", "tuning", "elasticity", "paths")


def test_every_row_is_declared_at_every_scale():
    for scale in STUDY.scales:
        made = STUDY.declare(list(STUDY.figures), STUDY.size(scale))
        assert tuple(figure.name for figure in made) == FIGURES
        ids = {own.claim.id for figure in made for own in figure.claims}
        assert {
            "9.3 times",
            "9.3 null",
            "9.4 weights",
            "9.4 null",
            "when null",
            "tuned null",
            "steady null",
            "paths null",
        } <= ids
        assert all(own.there for figure in made for own in figure.claims)


def test_what_is_exchanged_adds_up():
    whole = exchanges.hardened(np.full(80, 0.125))
    assert whole.sum() == 10
    assert np.ptp(np.diff(np.flatnonzero(whole))) == 0
    assert exchanges.count(whole) == 11
    # The last exchange of a period is the one that collects the result.
    assert exchanges.count(exchanges.periodic(10, 100)) == 10
    assert exchanges.count(exchanges.periodic(30, 100)) == 4
    assert exchanges.hardened([1.0, 1.0, 0.0, 1.0]).tolist() == [1, 1, 0, 1]


def test_descent_of_several_problems_at_once_drops_what_is_not_finite():
    def loss(values, seeds):
        assert seeds.shape == (2,)
        # The slope of the root at 0 is infinite: that entry stays where it is.
        return (values["x"] - np.array([1.0, -2.0])) ** 2 + values["y"] ** 0.5

    start = {"x": np.zeros(2), "y": np.array([0.0, 400.0])}
    found = descend(loss, start, steps=200, rate=0.2, batch=2)
    np.testing.assert_allclose(found.values["x"], [1, -2], atol=1e-3)
    assert found.values["y"][0] == 0
    assert found.dropped == {"x": 0, "y": 200}
    assert found.losses.shape == (200, 2)
    np.testing.assert_allclose(found.losses[0], [1, 24])


def lines_of(name, invented, tmp_path):
    """The claims of a figure, whose pictures are drawn, of invented runs, or of those by stage."""
    figure = STUDY.declare([name], STUDY.size("smoke"))[0]
    results = Results(tmp_path, Meter(None, {}))
    of = invented if callable(invented) else lambda stage: invented
    results._made = {stage.name: of(stage.name) for stage in figure.stages}
    for own in figure.pictures:
        own.draw(results)
    return {own.claim.id: own.decide(results) for own in figure.claims}


SPREAD = np.linspace(0.99, 1.01, 5)  # of errors over seeds


def test_a_schedule_is_compared_on_the_same_federations(tmp_path):
    methods = {"constant": 9.8e-3, "hyperbola": 3.6e-3, "learned": 3.3e-3}
    methods["learned, in reverse"] = 0.3
    rates = np.maximum(0.006, np.minimum(0.9, 33 / (1 + np.arange(3000))))
    data = {
        "error": (("method", "seed"), np.outer(list(methods.values()), SPREAD)),
        "rate": (("method", "step"), np.tile(rates, (4, 1))),
        "loss": ("iteration", np.zeros(3)),
    }
    lines = lines_of("schedule", xr.Dataset(data, {"method": list(methods)}), tmp_path)
    assert lines["9.3 times"]["measured"] == pytest.approx(9.8 / 3.3)
    assert lines["9.3 rate"]["measured"][2:] == pytest.approx([33, 33, 33], rel=3e-3)
    assert {line["verdict"] for line in lines.values()} == {"reproduced"}


def test_weights_are_compared_with_the_optimum(tmp_path):
    logits = np.log(weights.optimum()) + np.zeros((3, 1))
    data = {
        "error": (("method", "seed"), np.outer([0.08, 0.038, 0.038], SPREAD)),
        "logits": (("repeat", "agent"), logits),
        "logits_equal": (("equal", "agent"), np.zeros((3, 8))),
        "loss": (("iteration", "run"), np.zeros((4, 6))),
    }
    invented = xr.Dataset(data, {"method": list(weights.STYLES)})
    lines = lines_of("weights", invented, tmp_path)
    assert lines["9.4 weights"]["measured"] == pytest.approx(0, abs=1e-6)
    assert lines["9.4 ratio"]["measured"] == pytest.approx(0.475)
    assert lines["9.4 null"]["measured"] == pytest.approx(weights.optimum()[0] - 0.125)
    assert {line["verdict"] for line in lines.values()} == {"reproduced"}


def test_exchanges_are_compared_with_periods_of_as_many(tmp_path):
    """Half the error at as many exchanges is a fourth of the exchanges, where 1/n is a square."""
    steps = STUDY.size("smoke").exchanges[0]
    periods, counts = exchanges.periods(steps), np.array([10.0, 12.0, 15.0, 18.0])
    of_periods = exchanges.count(np.stack([exchanges.periodic(own, steps) for own in periods]))
    errors = counts**-0.5
    share = np.full((4, steps), 0.1)
    data = {
        "hard": (("price", "seed"), np.outer(errors / 2, SPREAD)),
        "relaxed": (("price", "seed"), np.outer(errors / 2, SPREAD)),
        "reversed": (("price", "seed"), np.outer(errors * 2, SPREAD)),
        "periodic": (("period", "seed"), np.outer(of_periods**-0.5, SPREAD)),
        "apart": (("one", "checked"), np.zeros((1, 4))),
        "share": (("price", "step"), share),
        "exchanges": (("price", "step"), np.stack([exchanges.hardened(own) for own in share])),
        "count": (("one", "price"), [counts]),
        "count_periodic": (("one", "period"), [of_periods]),
        "bytes": ((), 1e5),
    }
    coordinates = {"price": list(exchanges.PRICES), "period": periods}
    lines = lines_of("exchanges", xr.Dataset(data, coordinates), tmp_path)
    assert lines["when error"]["measured"] == pytest.approx([np.log(2)] * 4)
    assert lines["when saved"]["measured"] == pytest.approx([4] * 4)
    assert {line["verdict"] for line in lines.values()} == {"reproduced"}


def test_a_search_takes_the_best_point_that_has_a_value():
    points = np.arange(2 * 4 * 3, dtype=float).reshape(2, 4, 3)
    scores = [[3.0, np.nan, 1.0, 2.0], [-np.inf, 5.0, 4.0, 6.0]]
    evaluate = iter(np.transpose(scores)).__next__
    chosen, course = tuning.search(lambda values: evaluate(), points)
    np.testing.assert_array_equal(chosen, [points[0, 2], points[1, 2]])
    np.testing.assert_array_equal(course, [[3, 3, 1, 1], [np.inf, 5, 4, 4]])
    # The middle of the grid, from which the derivative goes on.
    grid = tuning.grid()
    middle = [np.log(tuning.RATES[2]), np.log(tuning.RATES[2]), tuning.logit(tuning.MOMENTA[2])]
    np.testing.assert_allclose(grid[len(grid) // 2], middle)
    assert tuning.steps() * tuning.COST <= len(grid)


def test_searches_are_compared_by_set(tmp_path):
    scores = np.array([-1.0, -3.0, -4.0, -5.0])[:, None] + SPREAD
    data = {
        "score": (("algorithm", "search", "seed"), np.stack([scores, scores])),
        "searched": (("algorithm", "by", "seed", "run"), -np.ones((2, 2, 5, 4))),
        "learned": (("algorithm", "seed", "step"), -np.ones((2, 5, 3))),
        "cost": (("algorithm", "repeat"), np.full((2, 5), 4.0) + SPREAD),
    }
    labels = {"algorithm": list(tuning.ALGORITHMS), "search": list(tuning.SEARCHES)}
    labels["by"] = ["grid", "random"]
    lines = lines_of("tuning", xr.Dataset(data, labels), tmp_path)
    assert lines["tuned grid"]["measured"] == pytest.approx([2, 2])
    assert lines["tuned random"]["measured"] == pytest.approx([1, 1])
    assert {line["verdict"] for line in lines.values()} == {"reproduced"}


def test_elasticities_are_ratios_of_means(tmp_path):
    cases = elasticities.cases(STUDY.size("smoke"))

    def invented(stage):
        by = cases[stage.removeprefix("elasticity-")].by
        known = {"learning_rate": 1.0, "reward_noise": 0.785, "initial_q": 0.2, "initial": 0.9}
        known["mdp.reward"] = 2 - 0.785 - 0.2 if "initial_q" in by else 1.1
        slope = np.outer([known.get(name, -0.3) for name in by], 4 * SPREAD)
        data = {
            "outcome": ("seed", 4 * SPREAD),
            "slope": (("property", "seed"), slope),
            "difference": (("property", "seed"), slope + 1e-6),
            "frozen": ("seed", 4 * SPREAD),
            "frozen_slope": ("seed", 0 * SPREAD),
        }
        return xr.Dataset(data, {"property": list(by)})

    lines = lines_of("elasticity", invented, tmp_path)
    assert lines["steady rate"]["measured"] == pytest.approx(1)
    assert lines["sum FedQ"]["measured"] == lines["sum FedTD"]["measured"] == pytest.approx(2)
    assert {line["verdict"] for line in lines.values()} == {"reproduced"}


def test_paths_are_compared_by_seed(tmp_path):
    curve = np.array([-40.0, -30.0, -25.0, -20.0])
    labels = {"method": list(paths.METHODS), "time": [1, 2, 3, 4]}
    gradient = np.array([[3.0, 4.0], [6.0, 8.0]])[:, None] * SPREAD[:, None]

    def invented(stage):
        if "gradients" in stage:
            # A trace of 250 in parts of 25 and, of what is twice as long, 25000 of 100.
            found = np.concatenate([gradient, [[[250.0]] * 5, [[25_000.0]] * 5]], axis=-1)
            data = {"spread": paths.spread(found), "gradient": gradient}
            dims = {"spread": ("method", "seed"), "gradient": ("method", "seed", "parameter")}
        else:
            better = np.where(curve > -25, paths.best_return(), curve + 1)
            each = np.stack([better, curve])[:, None] * SPREAD[:, None]
            still = np.full((2, 5), -60.0)
            data = {"return": each, "still": still, "steps": np.full((2, 5), 4000.0)}
            dims = {"return": ("method", "seed", "time")}
            dims |= {"still": ("method", "seed"), "steps": ("method", "seed")}
        return xr.Dataset({n: (dims[n], own) for n, own in data.items()}, labels)

    lines = lines_of("paths", invented, tmp_path)
    assert lines["paths same"]["measured"] == pytest.approx(1)
    assert lines["paths variance"]["measured"] == pytest.approx([np.log10(25)] * 2, rel=1e-2)
    assert lines["paths early"]["measured"] == pytest.approx([1, 1])
    assert lines["paths optimum"]["measured"] == pytest.approx(1)
    assert {line["verdict"] for line in lines.values()} == {"reproduced"}


@pytest.mark.thorough
@pytest.mark.parametrize("name", FIGURES)
def test_from_nothing_to_a_directory(name, tmp_path):
    summary = STUDY.run(tmp_path, [name], "smoke")
    assert {"control", "number"} <= {line["kind"] for line in summary["targets"]}
    assert (tmp_path / f"{name}.png").exists()


@pytest.mark.thorough
def test_learned_weights_find_the_inverse_variances():
    """The specification, section 9.4: agents whose rewards are noisier get less weight."""
    noises = np.stack([weights.NOISE])
    logits = weights.learn(noises, steps=3000, iterations=60, batch=16).values["logits"]
    best = 1 / (0.387171 + weights.NOISE**2)
    np.testing.assert_allclose(jax.nn.softmax(logits[0]), best / best.sum(), atol=0.02)
    uniform, learned, _ = weights.compare(logits, 10_000 + np.arange(64), 3000).mean(axis=1)
    assert 0.4 < learned / uniform < 0.55


@pytest.mark.thorough
def test_a_learned_schedule_is_better_than_the_best_constant():
    """The specification, section 9.3, with an eighth of its learning."""
    learned = schedules.learn(0.05, steps=3000, iterations=100, batch=8)
    rates = [np.full(3000, 0.05), schedules.rates_of(learned.values["logits"], 3000)]
    constant, ours = schedules.compare(rates, 10_000 + np.arange(256)).mean(axis=1)
    assert constant == pytest.approx(0.0098, rel=0.15)
    assert constant / ours > 2.3
