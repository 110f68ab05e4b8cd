"""Claims, their verdicts, expressions over runs: against numbers by hand and by simulation."""

import itertools
import json
import math
import os
import signal
import time

import numpy as np
import pytest
import xarray as xr
from scipy import stats

import fedjax_rl as frl
from fedjax_rl import analysis
from fedjax_rl.analysis import Claim, Measured, decide, runs_to_decide
from fedjax_rl.plotting.style import Picture
from fedjax_rl.saving import results as files
from fedjax_rl.studies import (
    Stage,
    Study,
    against,
    control,
    curves,
    effect,
    exact,
    exponent,
    figure,
    mean,
    measured,
    number,
    of_means,
    page,
    ratio,
    runs,
    scales,
    shares,
    together,
)
from fedjax_rl.studies.estimates import Estimate, mean_of, power, seeds_apart, share_of
from fedjax_rl.studies.numbers import beside
from fedjax_rl.studies.runs import CHECKPOINTS, LONG, SPENT, Results
from fedjax_rl.studies.study import Meter

SLOPE = Claim("T1", "Fig 6", "slope", (-1.1, -0.9), published=-1.0)


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [
        ((-1.05, -0.95), "reproduced"),
        ((-1.1, -0.9), "reproduced"),
        ((-1.2, -0.95), "undecided"),
        ((-1.5, -0.5), "undecided"),
        ((-0.95, -0.85), "undecided"),
        ((-0.89, -0.8), "not reproduced"),
        ((-2.0, -1.11), "not reproduced"),
    ],
)
def test_an_interval_is_inside_its_band_apart_or_neither(interval, verdict):
    middle = sum(interval) / 2
    assert decide(SLOPE, Measured(middle, *interval, runs=10))["verdict"] == verdict


def test_intervals_of_shares_end_where_shares_do():
    """By hand: Student's without its ends, and as many runs to decide as without cutting it."""
    trials = np.array([1.0, 1.0, 1.0, 0.9])
    error = stats.sem(trials) * stats.t.ppf(0.975, 3)
    plain = mean_of(trials)
    (found,) = shares(Estimate(lambda results: plain))(None)
    assert (found.value, found.high, found.runs) == (plain.value, 1.0, 4)
    assert plain.high > 1
    np.testing.assert_allclose(found.low, 0.975 - error, rtol=1e-12)
    (least,) = shares(Estimate(lambda results: mean_of(1 - trials)))(None)
    assert least.low == 0.0
    assert runs_to_decide(found, (0.99, None)) == runs_to_decide(plain, (0.99, None))
    alone = Measured(0.5, runs=1)
    assert shares(Estimate(lambda results: alone))(None) == [alone]
    with pytest.raises(ValueError, match=r"a share is 1.5; allowed: in \[0, 1\]"):
        shares(Estimate(lambda results: Measured(1.5)))(None)


def test_share_of_trials_has_a_width_where_all_are_the_same():
    """In closed form, none of n trials with a chance of (1 - p)^n; and by the law itself."""
    none, some, two = share_of([False] * 5), share_of([True, False, False, True]), share_of([1, 1])
    assert (none.value, none.low, none.runs) == (0.0, 0.0, 5)
    np.testing.assert_allclose(none.high, 1 - 0.025 ** (1 / 5), rtol=1e-9)
    assert some.value == 0.5
    np.testing.assert_allclose(stats.binom.sf(1, 4, some.low), 0.025, rtol=1e-6)
    np.testing.assert_allclose(stats.binom.cdf(2, 4, some.high), 0.025, rtol=1e-6)
    assert two == Measured(1.0, runs=2)


def test_nothing_is_decided_by_two_runs_and_nothing_random_decides_itself():
    line = decide(SLOPE, Measured(-1.0, runs=2))
    assert (line["verdict"], line["note"]) == ("undecided", "2 runs")
    assert decide(SLOPE, Measured(-1.0, -1.01, -0.99, runs=1))["verdict"] == "undecided"
    assert decide(SLOPE, Measured(-1.0))["verdict"] == "reproduced"
    assert decide(SLOPE, Measured(-0.8))["verdict"] == "not reproduced"
    assert decide(SLOPE)["verdict"] == "not run"
    assert decide(SLOPE, Measured(math.nan, runs=9))["verdict"] == "not reproduced"
    assert decide(SLOPE, Measured(-1.0, runs=9))["note"] == "no interval"


def test_an_effect_holds_above_zero_and_is_contradicted_below():
    claim = Claim("c", "f", "difference", (0, None), published="better", kind="effect")
    assert decide(claim, Measured(1.0, 0.1, 1.9, 5))["verdict"] == "reproduced"
    assert decide(claim, Measured(-1.0, -1.9, -0.1, 5))["verdict"] == "not reproduced"
    line = decide(claim, Measured(0.5, -0.5, 1.5, 5))
    assert line["verdict"] == "undecided"
    # A study of five runs with this spread finds 4/5 of the effects of (t_.975 + t_.8) errors.
    error = 1.0 / stats.t.ppf(0.975, 4)
    seen = error * (stats.t.ppf(0.975, 4) + stats.t.ppf(0.8, 4))
    assert f"an effect of {seen:.2g}" in line["note"]
    assert decide(claim, Measured(0.0, 0.0, 0.0, 5))["verdict"] == "not reproduced"
    assert decide(claim, Measured(0.0))["verdict"] == "not reproduced"
    assert decide(claim, Measured(1e-9))["verdict"] == "reproduced"
    strongest = Measured(math.inf, 3.0, math.inf, 5)
    assert decide(claim, strongest)["verdict"] == "reproduced"
    json.dumps(decide(claim, strongest), allow_nan=False)


def test_a_control_is_reproduced_unless_the_claim_holds_there_too():
    claim = Claim("c", "f", "difference", (0, None), kind="control")
    assert decide(claim, Measured(0.5, -0.5, 1.5, 5))["verdict"] == "reproduced"
    assert decide(claim, Measured(-1.0, -1.9, -0.1, 5))["verdict"] == "reproduced"
    line = decide(claim, Measured(1.0, 0.1, 1.9, 5))
    assert (line["verdict"], line["note"]) == ("not reproduced", "holds without learning")
    assert decide(claim)["verdict"] == "not run"


def test_of_several_numbers_the_worst_counts():
    bands = ((0, 1), (0, 1), (0, 1))
    claim = Claim("c", "f", "three", bands, published=(0.5, None, 0.5))
    good, open_, bad = Measured(0.5), Measured(0.5, -1, 1, 3), Measured(2.0)
    order = ["not reproduced", "undecided", "not run", "reproduced"]
    for three in itertools.product([good, open_, bad, None], repeat=3):
        line = decide(claim, list(three))
        assert line["verdict"] == min(line["verdicts"], key=order.index)
        assert len(line["measured"]) == len(line["low"]) == len(line["runs"]) == 3
    with pytest.raises(ValueError, match=r"c: 2 numbers are measured; allowed: 3"):
        decide(claim, [good, good])


def test_claims_that_cannot_be_judged_are_refused():
    with pytest.raises(ValueError, match="c: band is None"):
        Claim("c", "f", "q", None)
    with pytest.raises(ValueError, match=r"one not None"):
        Claim("c", "f", "q", (None, None))
    with pytest.raises(ValueError, match="low at most high"):
        Claim("c", "f", "q", (1, 0))
    with pytest.raises(ValueError, match=r"without the published 2.*corrected="):
        Claim("c", "f", "q", (0, 1), published=2)
    assert Claim("c", "f", "q", (0, 1), published=2, corrected="a misprint").corrected
    with pytest.raises(ValueError, match="1 numbers; allowed: 2"):
        Claim("c", "f", "q", ((0, 1), (0, 1)), published=0.5)
    with pytest.raises(ValueError, match="kind is 'guess'"):
        Claim("c", "f", "q", (0, 1), kind="guess")
    with pytest.raises(ValueError, match="c: estimate is 3"):
        number("c", "q", 3, (0, 1))


def test_so_many_runs_decide_and_one_less_does_not():
    rng = np.random.default_rng(0)
    for _ in range(20):
        values = rng.normal(rng.normal(), 1.0, 8)
        found = mean_of(values)
        needed = runs_to_decide(found, (0, None))
        if needed is None:
            continue
        deviation = values.std(ddof=1)
        reach = [stats.t.ppf(0.975, n - 1) * deviation / math.sqrt(n) for n in (needed, needed - 1)]
        assert reach[0] <= abs(found.value)
        assert needed == 3 or reach[1] > abs(found.value)


@pytest.mark.thorough
@pytest.mark.parametrize("count", [3, 5, 10, 30])
def test_verdicts_on_nothing_are_wrong_as_often_as_said(count):
    """Of effects that are not there 2.5 % hold and 2.5 % are contradicted."""
    claim = Claim("c", "f", "difference", (0, None), kind="effect")
    rng = np.random.default_rng(count)
    found = [decide(claim, mean_of(rng.normal(size=count)))["verdict"] for _ in range(4000)]
    for verdict in ("reproduced", "not reproduced"):
        assert abs(found.count(verdict) / 4000 - 0.025) < 0.008


@pytest.mark.thorough
@pytest.mark.parametrize("count", [3, 5, 10, 30])
def test_intervals_of_ratios_and_exponents_cover(count):
    rng, hits = np.random.default_rng(count), np.zeros(2)
    x = np.array([1.0, 2, 4, 8])
    for _ in range(150):
        # Runs of one seed have something in common, as runs of one seed have.
        common = rng.normal(scale=0.1, size=(count, 1))
        table = np.exp(common + rng.normal(scale=0.1, size=(count, 4))) / x
        slope = seeds_apart(lambda means: power(x, means), table)
        parts = seeds_apart(lambda a, b: float(a / b), table[:, 0], table[:, 3])
        hits += slope.low < -1 < slope.high, parts.low < 8 < parts.high
    assert np.all(hits / 150 > 0.89)
    assert np.all(hits / 150 < 0.995)


# Expressions over runs ----------------------------------------------------------------------------

SEEDS, TIMES, AGENTS = 4, 6, (1, 2, 4)


def invented(seed=0):
    rng = np.random.default_rng(seed)
    return xr.Dataset(
        {
            "gap": (
                ("method", "num_agents", "seed", "time"),
                rng.uniform(1, 2, (2, 3, SEEDS, TIMES)),
            )
        },
        {
            "method": ["a", "b"],
            "num_agents": list(AGENTS),
            "seed": range(SEEDS),
            "time": 10 * np.arange(1, TIMES + 1),
        },
    )


@pytest.fixture
def stage():
    def make(meter):
        meter.stage("one")
        return invented()

    return Stage("one", make)


@pytest.fixture
def results(tmp_path):
    return Results(tmp_path, Meter(None, {"one": 1.0, "two": 1.0}))


def test_numbers_are_those_of_the_array(stage, results):
    gap, array = stage["gap"], invented()["gap"].values
    below, times = array < 1.2, 10 * np.arange(1, TIMES + 1)
    first = np.where(below.any(-1), times[below.argmax(-1)], np.inf)
    rows = {
        "late": (gap.late(), array[..., 3:].mean(-1)),
        "last": (gap.last(2), array[..., 4:].mean(-1)),
        "first": (gap.first(2), array[..., :2].mean(-1)),
        "at": (gap.at(30), array[..., 2]),
        "total": (gap.total(), array.sum(-1)),
        "until": (gap.until(lambda own: own < 1.2), first),
        "difference": (gap["a"] - gap["b"], array[0] - array[1]),
        "ratio": (gap["a"] / gap["b"], array[0] / array[1]),
        "shifted": (2 * gap - 1, 2 * array - 1),
        "turned": (1 - gap, 1 - array),
        "negative": (-gap.log(), -np.log(array)),
        "selected": (gap.sel(num_agents=[1, 4]), array[:, [0, 2]]),
        "across": (gap.sel(num_agents=1) - gap.sel(num_agents=4), array[:, 0] - array[:, 2]),
    }
    for name, (own, expected) in rows.items():
        np.testing.assert_allclose(own(results).values, expected, err_msg=name)
    both = beside(gap["b"].sel(num_agents=1), gap[["a"]])(results).transpose("method", ...)
    np.testing.assert_array_equal(
        both.sel({"method": "a"}).transpose("num_agents", "seed", "time"), array[0]
    )
    np.testing.assert_array_equal(both.sel({"method": "b", "num_agents": 4}), array[1, 0])
    with pytest.raises(KeyError, match="num_agents 3 was not run; there is 1, 2, 4"):
        gap.sel(num_agents=3)(results)
    with pytest.raises(KeyError, match="beta is no dimension"):
        gap.sel(beta=3)(results)


def test_estimates_are_those_of_the_arrays(stage, results):
    gap, array = stage["gap"].late(), invented()["gap"].values[..., 3:].mean(-1)
    found = mean(gap)(results)
    assert [own.value for own in found] == pytest.approx(array.mean(-1).ravel())
    low, high = stats.t.interval(0.95, 3, array[0, 0].mean(), stats.sem(array[0, 0]))
    assert (found[0].low, found[0].high, found[0].runs) == pytest.approx((low, high, SEEDS))
    slopes = exponent(gap, "num_agents")(results)
    expected = [np.polyfit(np.log(AGENTS), np.log(own.mean(-1)), 1)[0] for own in array]
    assert [own.value for own in slopes] == pytest.approx(expected)
    one = gap.sel(num_agents=1)
    parts = ratio(one["a"], one["b"])(results)[0]
    assert parts.value == pytest.approx(array[0, 0].mean() / array[1, 0].mean())
    largest = of_means(lambda means: float(means.max()), gap["a"])(results)[0]
    assert largest.value == pytest.approx(array[0].mean(-1).max())
    assert exact(one["a"])(results) == [Measured(pytest.approx(array[0, 0, 0]))]
    assert exact(3)(results) == [Measured(3.0)]
    own = measured(lambda data: mean_of(data["gap"].values[0, 0, :, -1]), stage)(results)[0]
    assert own.value == pytest.approx(invented()["gap"].values[0, 0, :, -1].mean())
    assert len(together(one["a"], ratio(one["a"], one["b"]), exact(1))(results)) == 3


MDP = frl.envs.tabular_mdp(np.array([[[0.0, 1.0]], [[1.0, 0.0]]]), np.array([2.0, 3.0]), 0.5)


def small(trials=3, num_steps=4, **more):
    learner = frl.fedq(MDP, epsilon=1.0, learning_rate=0.5)
    methods = {"slow": (learner, {"learning_rate": 0.1}), "fast": learner}
    both = {"few": {"num_agents": 1, "sync_period": 1}, "many": {"num_agents": 3, "sync_period": 2}}
    return runs(
        "two",
        methods,
        {"size": both},
        num_steps=num_steps,
        trials=trials,
        metrics=("error_server",),
        record_every=1,
        **more,
    )


def test_runs_are_those_of_a_sweep(results):
    made = results[small()]
    assert made["error_server"].dims == ("method", "size", "seed", "time")
    for rate, label in ((0.1, "slow"), (0.5, "fast")):
        for agents, period, size in ((1, 1, "few"), (3, 2, "many")):
            alone = frl.sweep(
                frl.fedq(MDP, epsilon=1.0, learning_rate=rate, sync_period=period),
                num_agents=agents,
                seeds=range(3),
                num_steps=4,
                record_every=1,
            )
            own = made["error_server"].sel({"method": label, "size": size})
            np.testing.assert_array_equal(own.values, alone["error_server"].values)
    # Methods of one algorithm are one set of runs.
    ((algorithm, federations, steps),) = small().plan()
    assert (algorithm.name, federations, steps) == ("fedq", {1: 6, 3: 6}, 4)


def test_a_method_has_properties_of_its_own_at_every_value(results):
    learner = frl.fedq(MDP, epsilon=1.0)
    rule = lambda at: {"learning_rate": 0.1 * at["sync_period"]}
    steps = {"one": (learner, rule), "the same": (learner, rule)}
    same = {"num_steps": 4, "trials": 2, "num_agents": 2, "metrics": ("error_server",)}
    own = results[runs("one", steps, {"sync_period": [1, 2]}, **same)]
    other = learner.replace(learning_rate=0.2, sync_period=2)
    alone = results[runs("two", {"one": other}, **same)]
    for label in steps:  # what is the same is run once
        found = own["error_server"].sel({"method": [label], "sync_period": 2})
        np.testing.assert_array_equal(found.values, alone["error_server"].values)


def test_numbers_of_agents_have_their_dimension(results):
    learner = frl.fedq(MDP, epsilon=1.0, learning_rate=0.5)
    own = {"num_steps": 2, "record_every": 1, "metrics": ("error_local",)}
    made = runs("two", {"fedq": learner}, {"num_agents": (1, 3)}, trials=2, **own)
    alone = frl.sweep(learner, num_agents=3, seeds=range(2), **own)
    found = results[made]["error_local"].sel({"method": "fedq", "num_agents": 3})
    assert found.dims == ("seed", "agent", "time")
    np.testing.assert_array_equal(found.values, alone["error_local"].values)


def test_runs_that_are_not_paired_have_seeds_of_their_own(results):
    own = {"num_steps": 20, "record_every": 10, "metrics": ("error_server",)}
    learner = frl.fedq(MDP, epsilon=1.0, learning_rate=0.1, reward_noise=0.5)
    made = runs("two", {"a": learner}, {"num_agents": (1, 3)}, trials=2, paired=False, **own)
    alone = frl.sweep(learner, num_agents=3, seeds=(0, 1, 2, 3), **own)["error_server"].values
    found = results[made]["error_server"].sel({"method": "a", "num_agents": 3})
    assert found["seed"].values.tolist() == [0, 1]
    np.testing.assert_allclose(found.values, alone[2:], rtol=1e-5)
    assert np.ptp(alone[:, -1]) > 1e-3


def test_an_ideal_line_goes_through_the_middle_of_the_first(stage, results):
    gap = (stage["gap"].last() * 0).then(lambda array: array + 8 / array["num_agents"] ** 2)
    drawn = against(gap, "num_agents", ideal=(-1, "1/N"))
    axis = Picture().subplots()
    drawn.draw(axis, results)
    (ideal,) = (line for line in axis.lines if line.get_label() == "1/N")
    np.testing.assert_allclose(ideal.get_ydata(), [4, 2, 1])  # of 8, 2, 1/2


def test_saved_stages_are_believed_only_if_they_are_these_runs(tmp_path):
    first = Results(tmp_path, Meter(None, {"two": 1.0}))[small()]
    unmade = Stage("two", lambda meter: pytest.fail("made again"), of=small().decides)
    again = Results(tmp_path, Meter(None, {"two": 1.0}))[unmade]
    xr.testing.assert_equal(first, again)
    with pytest.raises(ValueError, match=r"are others: two.trials is 5, there 3"):
        Results(tmp_path, Meter(None, {"two": 1.0}))[small(5)]
    results = Results(tmp_path, Meter(None, {"two": 1.0}))
    assert set(results[small()]) == set(first)
    with pytest.raises(ValueError, match=r"two stages are called two: two.first_seed"):
        results[small(first_seed=7)]


def test_a_long_stage_that_is_stopped_goes_on_in_its_middle(tmp_path, hears_signals):
    def made(directory, progress=None, seconds=LONG):
        directory.mkdir(exist_ok=True)
        stage = small(num_steps=40, seconds=seconds)
        results = Results(directory, Meter(progress, {"two": 1.0}))
        return results[stage], results.seconds["two"]

    def stop(done, total):
        if 0.3 < done < 1 and not came:
            came.append(done)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.5)  # for the main thread, which gets the signal

    came, seen = [], []
    with pytest.raises(KeyboardInterrupt):
        made(tmp_path / "stopped", stop)
    assert not (tmp_path / "stopped/two/seconds.json").exists()
    spent = files.read_sealed(tmp_path / "stopped/two" / SPENT)["all"]
    assert spent > 0.5
    result, seconds = made(tmp_path / "stopped", lambda done, total: seen.append(done))
    assert seen[0] == 0
    assert seen[1] >= came[0] * (1 - 1e-6)  # not once more from the beginning
    assert seconds > spent
    whole, _ = made(tmp_path / "whole")
    xr.testing.assert_equal(result, whole)
    made(tmp_path / "short", seconds=LONG - 1)
    assert not (tmp_path / "short/two" / CHECKPOINTS).exists()


def test_what_is_made_once_more_is_not_counted_twice(results, tmp_path):
    def interrupted(meter):
        meter.stage("one")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        results[Stage("one", interrupted, seconds=LONG)]
    assert not (tmp_path / "one" / SPENT).exists()


@figure("curves", "errors fall")
def _curves(size):
    """Prose of the figure."""
    made = small(size.trials)
    error = made["error_server"]
    fall = error["fast"].sel(size="many")
    yield effect("falls", "first error less the last", fall.at(1) - fall.at(4), published="it does")
    still = Stage("null", lambda meter: made.make(meter) * 0, there=size.trials is not None)
    yield control(
        "falls null", "the same of nothing", still["error_server"]["fast"].sel(size="few").last()
    )
    yield number("T1", "steps", exact(4), (4, 4), published=4, figure="Fig 1")
    rates = error.last().then(lambda array: array.assign_coords(size=[1, 3]))
    yield page("curves", curves(error.sel(size="few"), y="error"), against(rates, "size"))


STUDY = Study("small", "nobody", [_curves], scales(trials=(3, 4, 5)), presets=("paper", "clean"))


def test_a_study_leaves_a_complete_directory(tmp_path):
    (one,) = STUDY.declare(["curves"], STUDY.size("smoke"))
    assert [own.claim.id for own in one.claims] == ["falls", "falls null", "T1"]
    assert _curves.prose == "Prose of the figure."
    seen = []
    summary = STUDY.run(
        tmp_path, scale="smoke", progress=lambda done, total: seen.append(done / total)
    )
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    assert [line["verdict"] for line in summary["targets"]] == ["reproduced"] * 3
    assert [line["figure"] for line in summary["targets"]] == ["curves", "curves", "Fig 1"]
    assert (tmp_path / "curves.png").stat().st_size > 0
    assert seen == sorted(seen)
    assert seen[-1] == 1
    command = "fedjax-rl reproduce small:curves --scale smoke"
    assert {line["command"] for line in summary["targets"]} == {command}
    assert {line["part"] for line in summary["targets"]} == {"curves"}
    (part,) = summary["parts"]
    assert (part["figure"], part["pictures"]) == ("curves", ["curves"])
    assert part["seconds"] > 0
    # Stages that are read again took what they took.
    assert STUDY.run(tmp_path, scale="smoke")["parts"] == [part]


def test_fewer_runs_take_as_much_less_time():
    whole = STUDY.seconds(["curves"], "paper", "paper")
    assert whole == {"two": 10.0, "null": 10.0}
    # Three trials of five; what has no plan takes what it says.
    assert STUDY.seconds(["curves"], "smoke", "paper") == {"two": 6.0, "null": 10.0}


def test_what_a_scale_does_not_have_is_not_run(tmp_path, monkeypatch):
    monkeypatch.setitem(STUDY.scales, "smoke", STUDY.scales["smoke"].replace(trials=None))
    lines = STUDY.run(tmp_path, scale="smoke")["targets"]
    assert [line["verdict"] for line in lines] == ["not run", "not run", "reproduced"]
    assert lines[0]["command"] == "fedjax-rl reproduce small:curves --scale paper"
    assert lines[0]["cost"] == 10
    assert not list(tmp_path.glob("*.png"))


def test_declarations_that_say_one_thing_twice_or_nothing_are_refused():
    @figure("twice", "two claims of one name")
    def twice(size):
        yield number("T1", "steps", exact(4), (4, 4))
        yield number("T1", "steps", exact(4), (4, 4))

    @figure("nothing", "no claim")
    def nothing(size):
        yield from ()

    study = Study("small", "nobody", [twice, nothing], scales(trials=(1, 1, 1)))
    with pytest.raises(ValueError, match="two of claim T1"):
        study.declare(["twice"], study.size("smoke"))
    with pytest.raises(ValueError, match="nothing declares nothing"):
        study.declare(["nothing"], study.size("smoke"))
    with pytest.raises(ValueError, match="two figures of small"):
        Study("small", "nobody", [twice, twice], scales(trials=(1, 1, 1)))
    with pytest.raises(ValueError, match=r"preset of small.*'paper'|paper"):
        study.size("smoke", "papr")
    assert analysis.Claim is Claim
