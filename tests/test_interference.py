"""Interference: agents just before an exchange, barriers of lines, one tiny run."""

import functools

import jax
import numpy as np
import pytest
import xarray as xr
from walk import WALK

import fedjax_rl as frl
from fedjax_rl.studies.linear_speedup import STUDY, deep_runs, interference

NANO = {"num_envs": 2, "rollout_steps": 8, "minibatches": 2, "network.hidden": (4,)}
TINY = frl.fedppo(WALK, **NANO)


def lines(values):
    return xr.DataArray(
        values, dims=("seed", "half", "position"), coords={"position": interference.POSITIONS}
    )


def test_barriers_of_a_known_line():
    line = lines(np.broadcast_to([4.0, 1, 3, 2, 6], (3, 2, 5)))
    np.testing.assert_allclose(interference.middle(line), [2, 2, 2])
    np.testing.assert_allclose(interference.highest(line), [4, 4, 4])


def test_the_highest_of_nothing_is_nothing():
    """The least of three noisy numbers lies 0.85 deviations below them."""
    noise = np.random.default_rng(0).normal(size=(4000, 2, 5))
    found = interference.highest(lines(noise))
    assert abs(found.mean()) < 0.06
    assert noise[..., 1:-1].min(-1).mean() < -0.8


def test_what_is_looked_at_and_what_it_is_worth():
    """A return that is linear in the parameters has no barrier; one that is not has a known one."""
    own = np.random.default_rng(1).normal(size=(8, 5))
    with jax.enable_x64(True):
        points = np.asarray(interference.looked_at(own))
    assert points.shape == (8 + 3 + 4 * 3, 5)
    straight = interference.worth(points.sum(axis=-1))
    np.testing.assert_allclose(straight["own"], straight["average"])
    np.testing.assert_allclose(np.diff(straight["line"]), [np.diff(straight["line"])[0]] * 4)
    bent = interference.worth(np.sum(points**2, axis=-1))
    lost = bent["own"] - bent["average"]
    # The mean of squares less the square of the mean is the variance: drift squared.
    np.testing.assert_allclose(lost, interference.drift(own) ** 2)
    apart = np.sum((own[::2] - own[1::2]) ** 2, axis=1).mean()
    chord = np.linspace(*bent["line"][[0, -1]], 5)
    np.testing.assert_allclose(chord - bent["line"], apart * np.array([0, 3, 4, 3, 0]) / 16)


@pytest.mark.thorough
def test_agents_are_looked_at_just_before_they_average():
    """Rounds by hand of which the last one averages give the mean of what is looked at."""
    state = frl.init(TINY, num_agents=8, seed=5)
    for _ in range(3):
        state, _ = frl.round(TINY, state)
    alike = state.state.agents.learned.parameters
    state, metrics = frl.round(TINY, state)
    assert metrics["drift"] < 1e-6
    first, apart = interference._going_apart(TINY)(5, 3)
    assert list(apart) == [1, 10, 100]
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    close(alike, np.broadcast_to(first, (8, len(first))))
    close(state.state.agents.learned.parameters[0], apart[1].mean(axis=0))
    drifts = [interference.drift(own) for own in apart.values()]
    assert (np.diff(drifts, axis=0) > 0).all()


@pytest.mark.thorough
def test_a_tiny_run(tmp_path, monkeypatch):
    """On a walk of three steps, which compiles sooner."""
    tiny = functools.partial(frl.fedppo, WALK, **NANO)
    monkeypatch.setattr(deep_runs, "algorithm", lambda size, **more: tiny(**more))
    monkeypatch.setattr(interference, "EPISODES", 4)
    monkeypatch.setitem(STUDY.scales, "smoke", STUDY.scales["smoke"].replace(ppo_trials=3))
    summary = STUDY.run(tmp_path, ["interference"], "smoke")
    lines = {line["id"]: line["verdict"] for line in summary["targets"]}
    assert lines["P16"] == lines["P15 null"] == "reproduced"
    assert (tmp_path / "interference.png").stat().st_size > 0
