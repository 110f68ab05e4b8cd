"""Figures 8 to 13 of `linear-speedup`: how their runs are read, on invented ones; one tiny run."""

import json

import numpy as np
import pytest
import xarray as xr

import fedjax_rl as frl
from fedjax_rl import analysis
from fedjax_rl.cli.study import _named
from fedjax_rl.studies.linear_speedup import STUDY, deep_runs, deep_times
from fedjax_rl.studies.linear_speedup.deep import FIGURES
from fedjax_rl.studies.linear_speedup.deep_rewards import PARAMETERS
from fedjax_rl.studies.linear_speedup.deep_runs import EACH, SMALL, Bench
from fedjax_rl.studies.linear_speedup.deep_times import AGENTS, ANY, MEAN, NEVER, NULL, PERIODS
from fedjax_rl.studies.runs import Results
from fedjax_rl.studies.study import Meter

NAMES = [own.name for own in FIGURES]
SLOPES = {1: -1.0, 10: -0.5, 100: 0.0, NEVER: 0.0}
TRIALS = 10
# Two towers of 64 and 64 units on 37 numbers, 15 logits, a value.
PARAMETERS_HERE = 2 * (37 * 64 + 64 + 64 * 64 + 64) + 64 * 15 + 15 + 64 + 1


def size_of(preset="paper", **sizes):
    return STUDY.size("quick", preset).replace(ppo_epochs=3000, **sizes)


def invented(size):
    """Rewards that rise from 0.1 to 0.6 in about 2000 N^slope epochs, by stage."""
    rng = np.random.default_rng(0)
    time = np.arange(3, size.ppo_epochs + 1, 3)

    def stage(methods, agents, slope, learns=True, trials=TRIALS):
        shape = (len(methods), len(agents), trials, max(agents), time.size)
        each = np.full(shape, np.nan)
        for m, n, trial in np.ndindex(*shape[:3]):
            slow = 2000 * agents[n] ** slope * 2 ** rng.normal(0, 0.15)
            own = 0.1 + (0.5 * np.minimum(time / slow, 1.0) if learns and m == 0 else 0)
            noise = rng.normal(0, 0.02, (agents[n], time.size))
            each[m, n, trial, : agents[n]] = (own + noise) / deep_times.REWARD
        dims = ("method", "num_agents", "seed", "agent", "time")
        coordinates = {"method": methods, "num_agents": list(agents), "time": time}
        return xr.Dataset({EACH: (dims, each)}, {**coordinates, "seed": np.arange(trials)})

    out = {"ppo-one": stage(["FedPPO", NULL], AGENTS[:1], 0.0)}
    out |= {f"ppo-{kind}": stage(["FedPPO"], AGENTS[1:], own) for kind, own in SLOPES.items()}
    out["ppo-null"] = stage([NULL], AGENTS[1:], 0.0, learns=False)
    for period in PERIODS:
        own = out[f"ppo-{period}"]
        number = own["num_agents"].values[:, None] * np.ones(TRIALS)
        messages = number * ((size.ppo_epochs - 1) // period + 1)
        counts = {"env_steps": number * 16 * 128 * size.ppo_epochs / 3, "messages_up": messages}
        counts["bytes_up"] = 4 * PARAMETERS_HERE * messages
        for name, values in counts.items():
            own[name] = (("method", "num_agents", "seed"), values[None])
    controls = ["constant rate", deep_runs.WIDE]
    own = stage(controls, AGENTS, -1.0)
    own[EACH][:] = own[EACH][0]
    out["ppo-controls"] = own.rename(num_agents="N")
    dims = ("method", "sync_period", "seed", "time")
    returns = np.ones((1, 2, TRIALS, time.size)) + rng.normal(0, 0.1, (1, 2, TRIALS, 1))
    out["ppo-server"] = xr.Dataset(
        {"episode_return": (dims, returns), "return": (dims, returns - 0.5)},
        {"method": ["FedPPO"], "sync_period": [10, 100], "time": time},
    )
    out["ppo-facts"] = xr.Dataset(
        {
            "parameters": ("network", list(PARAMETERS)),
            "returns": ("episode", rng.poisson(0.85, 5000)),
            "lengths": ("episode", rng.normal(117, 60, 5000)),
        }
    )
    return out


def results_of(size, directory):
    results = Results(directory, Meter(None, {}))
    results._made = invented(size)
    return results


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The lines of all claims and the pictures of invented runs, by preset."""
    size = size_of(ppo_controls=TRIALS, ppo_server=TRIALS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deep_times, "RESAMPLES", 40)
        yield from _measured(size, tmp_path_factory)


def _measured(size, tmp_path_factory):
    results = results_of(size, tmp_path_factory.mktemp("invented"))
    figures = STUDY.declare(NAMES, size)
    lines = [own.decide(results) for figure in figures for own in figure.claims]
    yield {line["id"]: line for line in lines}, figures, results


def test_known_slopes_are_found(measured):
    lines, _, _ = measured
    assert lines["P4"]["measured"] == pytest.approx([-1] * 4, abs=0.25)
    assert lines["P4 other"]["measured"] == pytest.approx([-1] * 4, abs=0.15)
    for low, high, narrow in zip(
        lines["P4 resampled"]["low"], lines["P4 resampled"]["high"], lines["P4"]["low"], strict=True
    ):
        assert low < -1 < high
        assert low == pytest.approx(narrow, abs=0.1)
    assert lines["P5"]["measured"] == pytest.approx(-1, abs=0.15)
    assert lines["P6"]["measured"] == pytest.approx([-0.5] * 4, abs=0.15)
    assert lines["P6 flatter"]["measured"] == pytest.approx(0.5, abs=0.1)
    assert lines["P7 flatter"]["measured"] == pytest.approx(1, abs=0.15)
    assert lines["P12"]["verdict"] == "reproduced"
    assert lines["P7"]["measured"] == pytest.approx(0, abs=0.15)
    # log T of K = 1, 10, 100 at N: 0, log N / 2, log N.
    over = [np.log2(n) / 2 / np.log2(10) for n in AGENTS[1:]]
    assert lines["P8"]["measured"] == pytest.approx(over, abs=0.08)
    assert lines["P8 order"]["measured"] == pytest.approx(np.diff(over), abs=0.1)
    assert lines["P3"]["verdict"] == lines["P9"]["verdict"] == lines["P1"]["verdict"]
    assert lines["P3"]["verdict"] == lines["P9 size"]["verdict"] == "reproduced"
    # A charge that every run pays moves the slope of any runs that all get there alike.
    assert lines["P3 data"]["measured"] == pytest.approx([0.1261, 0.6585, 1.5796], abs=0.02)
    assert lines["P11"]["measured"] == pytest.approx([0.05, 0.05])


def test_without_learning_nothing_is_claimed(measured):
    lines, _, _ = measured
    for name in ("P4 null", "P6 null", "P8 null", "P10 null"):
        assert lines[name]["verdict"] == "reproduced", name
    assert lines["P4 null"]["measured"] == [None] * 4


def test_every_figure_is_drawn(measured):
    _, figures, results = measured
    stems = [own.stem for figure in figures for own in figure.pictures if own.draw(results)]
    assert set(NAMES) | {"fig8-curves", "fig9-reached"} == set(stems)


def test_thresholds_are_above_what_is_read_without_learning(tmp_path):
    for preset in ("paper", "clean"):
        size = size_of(preset)
        seen = Bench(size).seen(results_of(size, tmp_path))
        null = deep_times.read(seen.rewards[NULL], seen.size, ANY)
        assert seen.levels[0] > float(null.max())
        assert list(seen.levels) == sorted(seen.levels)
    assert deep_times.Seen(STUDY.size("paper"), {}).levels == (0.15, 0.2, 0.3, 0.5)


def test_two_readings_of_the_same_rewards():
    """The author's mean has zeros beyond the ends, and is of any agent; ours is of all."""
    size = size_of("paper")
    ramp = np.arange(1.0, 31.0)
    rewards = xr.DataArray(
        [ramp, ramp + 1, np.full(30, np.nan)], dims=("agent", "time"), coords={"time": ramp}
    )
    centred = deep_times.read(rewards, size, ANY).values
    np.testing.assert_allclose(centred, np.convolve(ramp + 1, np.ones(10) / 10, "same"))
    whole = deep_times.read(rewards, size, MEAN).values
    np.testing.assert_allclose(whole[5:-4], ramp[5:-4] + 0.5 - 0.5)
    assert np.isnan(whole[:5]).all()
    assert np.isnan(whole[-4:]).all()


def test_what_is_never_reached_is_censored_and_decides_nothing(measured):
    _, _, results = measured
    seen = Bench(size_of()).seen(results)
    rows = seen.of(1, 10.0)
    assert rows.reached.censored.all()
    assert (rows.reached.lower == 3000).all()
    line = analysis.decide(
        analysis.Claim("P", "fig9", "slope", (-2.0, -0.7)), deep_times.slope(rows)
    )
    assert line["verdict"] == "undecided"


def test_every_run_has_a_seed_of_its_own_and_vectors_are_a_preset():
    bench = Bench(STUDY.size("paper", "vectors"))
    assert (bench.size.ppo_trials, bench.size.ppo_epochs) == (10, 3000)
    plan = [own for stage in bench.stages.values() for own in stage.plan()]
    assert sum(n * count for _, counts, _ in plan for n, count in counts.items()) == 720
    firsts = [dict(stage.decides)["first_seed"] for stage in bench.stages.values()]
    assert np.diff(firsts).min() >= 30
    assert not any(stage.decides["paired"] for stage in bench.stages.values())


def test_small_networks_learn_by_either_protocol():
    """Alike in everything but what the author's protocol is."""
    size = STUDY.size("paper", "paper-vectors")
    ours, own = (deep_runs.algorithm(deep_runs.sized(STUDY.size("paper", p))) for p in SMALL)
    assert deep_runs.sized(size).ppo_epochs == 3000
    assert deep_times.readings(size) == (ANY, MEAN)
    clean, author = (
        {each.name: each.value for each in one.config.resolved().properties()}
        for one in (ours, own)
    )
    differ = {name for name, value in clean.items() if not np.array_equal(value, author[name])}
    assert differ == {
        *("preset", "schedule.name", "schedule.warmup_epochs", "schedule.horizon_epochs"),
        *("shuffle", "gradient_clip", "rewards.alignment", "bootstrap_timeouts"),
    }
    assert author["rewards.alignment"] == "late"
    assert author["schedule.horizon_epochs"] == 750


def test_figures_are_named_by_numbers_too():
    assert _named("8-13", STUDY.figures) == [name for name in NAMES if "-" not in name]
    assert set(NAMES) <= set(STUDY.only_named)


@pytest.mark.thorough
def test_a_tiny_run_says_that_it_says_nothing(tmp_path, monkeypatch):
    """On CartPole, which compiles sooner."""
    monkeypatch.setattr(deep_runs, "task", lambda size, game: frl.envs.gymnax_task("CartPole-v1"))
    tiny = STUDY.scales["smoke"].replace(ppo_epochs=6)
    monkeypatch.setitem(STUDY.scales, "smoke", tiny)
    summary = STUDY.run(tmp_path, ["fig10"], "smoke")
    lines = {line["id"]: line["verdict"] for line in summary["targets"]}
    assert lines == {
        "P6": "undecided",
        "P6 flatter": "undecided",
        "P6 reversal": "undecided",
        "P6 null": "reproduced",
    }
    assert json.loads((tmp_path / "summary.json").read_text())["targets"] == summary["targets"]
    assert (tmp_path / "fig10.png").stat().st_size > 0
