"""Figure `coinrun` of `linear-speedup`: how its runs are read, on invented ones; one tiny run."""

import numpy as np
import pytest
import xarray as xr

import fedjax_rl as frl
from fedjax_rl.studies.linear_speedup import STUDY, alignment, deep_runs
from fedjax_rl.studies.linear_speedup.alignment import BLIND, CORRECT, EACH, LATE, NULL, STEPS
from fedjax_rl.studies.runs import Results
from fedjax_rl.studies.study import Meter

SIZE = STUDY.size("paper", "vectors")
FIRST = 2.7


def invented(ends, steps):
    """Returns of agents and steps of episodes that go in a line from the first policy to an end."""
    rng = np.random.default_rng(0)
    time = 3.0 * np.arange(1, SIZE.coin_epochs // 3 + 1)
    part = (time / time[-1])[None, :]
    returns = np.full((len(ends), 2, 10, 8, time.size), np.nan)
    lengths = np.zeros((len(ends), 2, 10, time.size))
    for place, method in enumerate(ends):
        for which, n in enumerate((1, 8)):
            noise = rng.normal(0, 0.1, (10, n, time.size))
            line = FIRST + (ends[method] - FIRST) * part
            returns[place, which, :, :n] = line[None] + noise
            lengths[place, which] = 300 + (steps[method] - 300) * part + noise.mean(1)
    dims = ("method", "num_agents", "seed", "time")
    coordinates = {"method": list(ends), "num_agents": [1, 8], "seed": range(10), "time": time}
    each = (("method", "num_agents", "seed", "agent", "time"), returns)
    return xr.Dataset({EACH: each, STEPS: (dims, lengths)}, coordinates)


def lines_of(ends, steps, directory):
    (figure,) = STUDY.declare(["coinrun"], SIZE)
    results = Results(directory, Meter(None, {}))
    results._made = {"ppo-coinrun": invented(ends, steps)}
    return {own.claim.id: own.decide(results) for own in figure.claims}, figure, results


def test_late_rewards_that_are_unlearned_are_told_from_those_with_their_actions(tmp_path):
    ends = {CORRECT: 7.0, LATE: 0.0, BLIND: 4.5, NULL: FIRST}
    steps = {CORRECT: 50.0, LATE: 1000.0, BLIND: 300.0, NULL: 300.0}
    lines, figure, results = lines_of(ends, steps, tmp_path)
    held = {name for name, line in lines.items() if line["verdict"] == "reproduced"}
    assert held == set(lines) - {"P20 reading"}
    # The last fifth of a line ends a tenth of the way below its end; rewards are tenths.
    assert lines["P20"]["measured"] == pytest.approx([0.9 * 0.7] * 2, abs=0.02)
    assert lines["P20 late"]["measured"] == pytest.approx([0.9 * -0.27] * 2, abs=0.02)
    at_the_end = np.log(300 + 700 * np.linspace(0.8, 1, 41)[1:]).mean() - np.log(300)
    assert lines["P20 steps"]["measured"] == pytest.approx([at_the_end] * 2, abs=0.01)
    (drawn,) = (own.draw(results) for own in figure.pictures)
    words = [axis.get_title(loc="left") for axis in drawn.axes]
    assert words == ["one agent", "8 agents that average always", "8 agents"]


def test_where_nothing_differs_nothing_is_claimed(tmp_path):
    same = dict.fromkeys((CORRECT, LATE, BLIND, NULL), FIRST)
    lines, *_ = lines_of(same, dict.fromkeys(same, 300.0), tmp_path)
    held = {name for name, line in lines.items() if line["verdict"] == "reproduced"}
    assert held == {"P20 null"}


def test_its_runs_differ_in_one_thing():
    (figure,) = STUDY.declare(["coinrun"], SIZE)
    (stage,) = figure.stages
    plans = {one.config.resolved().rewards.alignment: counts for one, counts, _ in stage.plan()}
    assert plans["correct"] == {1: 20, 8: 20}  # the control among them
    configs = [one.config.resolved() for one, *_ in stage.plan()]
    assert {config.task.name for config in configs} == {"CoinRun"}
    assert {config.learning_rate for config in configs} == {1e-3}
    author = deep_runs.algorithm(
        STUDY.size("paper", "paper-vectors"),
        game="CoinRun",
        num_epochs=alignment.SIZES["coin_epochs"][2],
    ).config.resolved()
    assert author.schedule.horizon_epochs == 150
    assert author.rewards.alignment == "late"


@pytest.mark.thorough
def test_a_tiny_run(tmp_path, monkeypatch):
    """On CartPole, which compiles sooner."""
    game = frl.envs.gymnax_task("CartPole-v1")
    monkeypatch.setattr(deep_runs, "task", lambda *_: game)
    summary = STUDY.run(tmp_path, ["coinrun"], "smoke")
    verdicts = {line["id"]: line["verdict"] for line in summary["targets"]}
    assert verdicts.pop("P20 null") == "reproduced"
    assert set(verdicts.values()) == {"undecided"}  # of two runs
    assert (tmp_path / "coinrun.png").stat().st_size > 0
