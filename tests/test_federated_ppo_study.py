"""Figures 8 to 13 of the study `linear-speedup`: how their runs are read, on made-up ones."""

import types

import numpy as np
import pytest
import xarray as xr

from fedjax_rl import analysis
from fedjax_rl.cli.study import _named
from fedjax_rl.studies import federated_ppo_data as data
from fedjax_rl.studies import federated_ppo_figures as pictures
from fedjax_rl.studies import federated_ppo_targets as targets
from fedjax_rl.studies.linear_speedup import FIGURES

SCALE = data.SCALES["smoke"].replace(preset="clean", epochs=240, window=2)


def made_up(scale=SCALE, exponents=(-1.0, -0.5, 0.0)):
    """Rewards that rise as t / T, T = 100 N^exponent of K, but for a little noise."""
    rng = np.random.default_rng(0)
    time = np.arange(1, scale.epochs + 1)
    rows = [
        (n, k, trial)
        for n in data.AGENTS
        for k in (data.PERIODS if n > 1 else (1,))
        for trial in range(3)
    ]
    reward, each = [], []
    for n, k, _ in rows:
        slow = 100 * n ** exponents[data.PERIODS.index(k)] * 2 ** rng.normal(0, 0.1)
        reward.append(0.1 + np.minimum(time / slow, 2.5))
        own = np.full((8, time.size), np.nan)
        own[:n] = reward[-1] + 0.01 * np.arange(n)[:, None]
        each.append(own)
    number, period = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
    averages = np.where(number > 1, (scale.epochs - 1) // period + 1, 0)
    messages = averages * number
    steps = 16 * 128 * -(-scale.epochs // 3) * number
    grid = xr.Dataset(
        {
            "reward": (("cell", "time"), np.array(reward)),
            "reward_of_agent": (("cell", "agent", "time"), np.array(each)),
            "env_steps": ("cell", steps),
            "communications": ("cell", averages),
            "messages_up": ("cell", messages),
            "floats_up": ("cell", 1000 * messages),
            "bytes_up": ("cell", 4000 * messages),
        },
        {
            "time": time,
            "num_agents": ("cell", number),
            "sync_period": ("cell", period),
            "trial": ("cell", [r[2] for r in rows]),
        },
    )
    control = grid.isel(cell=np.flatnonzero((number == 1) | (period == 1)))
    control = control.drop_vars(["num_agents", "sync_period", "trial"])
    size = number[(number == 1) | (period == 1)]
    names = ["as published", "constant rate"]
    controls = xr.concat([control] * 2, "control").assign_coords(
        control=names, size=(("control", "cell"), np.tile(size, (2, 1)))
    )
    rng = np.random.default_rng(1)
    facts = xr.Dataset(
        {
            "parameters": ("network", list(targets.PARAMETERS)),
            "returns": ("episode", rng.poisson(0.85, 5000)),
            "lengths": ("episode", rng.normal(117, 60, 5000)),
        }
    )
    return types.SimpleNamespace(scale=scale, grid=grid, controls=controls, facts=facts)


@pytest.fixture(scope="module")
def runs():
    return made_up()


def test_known_slopes_are_found(runs):
    measured = {}
    for figure in pictures.PICTURES:
        measured |= targets.measure(figure, runs)
    lines = {t.id: analysis.judge(t, *measured[t.id]) for t in targets.TARGETS}
    assert lines["P1"]["verdict"] == lines["P9"]["verdict"] == "reproduced"
    assert lines["P3"]["verdict"] == lines["P3 published"]["verdict"] == "reproduced"
    for slope in lines["P4"]["measured"]:
        assert slope == pytest.approx(-1, abs=0.15)
    assert lines["P5"]["measured"] == pytest.approx(-1, abs=0.15)
    slope, high, apart = lines["P6"]["measured"]
    assert slope == pytest.approx(-0.5, abs=0.15)
    assert slope < high
    assert apart == pytest.approx(0.5, abs=0.2)
    assert lines["P7"]["measured"] == pytest.approx(0, abs=0.15)
    rising = lines["P8"]["measured"][:3]
    assert rising == sorted(rising)


def test_every_figure_is_drawn(runs):
    drawn = {}
    for figure, draw in pictures.PICTURES.items():
        drawn |= draw(runs)
        assert figure in drawn
    assert "fig9-controls" in drawn


def test_what_is_never_reached_is_censored(runs):
    times = targets.against_agents(runs, 1, 10.0)
    assert times.censored.all()
    assert (times.time == SCALE.epochs).all()
    assert targets.fit(times) is None
    assert np.isnan(targets.slope(times)[0])
    assert set(times.x) == set(data.AGENTS)


def test_two_readings_of_the_same_rewards():
    """The author's mean is centred, with zeros beyond the ends; ours is of what has been."""
    ramp = np.arange(20.0)
    np.testing.assert_allclose(targets.smoothed(ramp, 5, "paper")[5:15], ramp[5:15])
    assert targets.smoothed(ramp, 5, "paper")[-1] == pytest.approx((17 + 18 + 19) / 5)
    clean = targets.smoothed(ramp, 5, "clean")
    assert np.isnan(clean[:4]).all()
    np.testing.assert_allclose(clean[4:], ramp[4:] - 2)


def test_any_agent_is_enough_for_the_author():
    author = made_up(SCALE.replace(preset="paper", window=10))
    early, _ = targets.reached(author.grid, author.scale, 0.5)
    late, _ = targets.reached(author.grid, SCALE.replace(window=10), 0.5)
    assert (early < late).all()


def test_sizes_have_thresholds_of_their_own(runs):
    own = targets.thresholds(runs)
    assert len(own) == 3
    assert list(own) == sorted(own)
    paper = types.SimpleNamespace(scale=data.SCALES["paper"])
    assert targets.thresholds(paper) == (0.15, 0.2, 0.3, 0.5)


def test_figures_are_named_by_numbers_too():
    assert _named("8-13", FIGURES) == [f"fig{n}" for n in range(8, 14)]
    assert _named("fig4,9", FIGURES) == ["fig4", "fig9"]
    assert _named("fig99", FIGURES) == ["fig99"]
