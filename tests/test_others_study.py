"""The study `others`: its NumPy algorithms against numbers by hand, and a tiny run."""

import numpy as np
import pytest
import xarray as xr

from fedjax_rl import envs
from fedjax_rl.studies import OTHERS
from fedjax_rl.studies.others import policies, values


def test_averages_of_one_chain_are_its_own():
    # Two states, one action that stays: values rise towards r / (1 - discount), nothing to choose.
    kernels, reward = np.eye(2)[None, :, None], np.array([[1.0], [3.0]])
    objective, change = policies.jin("QAvg", kernels, reward, 0.5, 1)
    np.testing.assert_allclose(objective, 20.0)
    # Q <- Q + (r + 0.9 Q - Q) / 2, so that what is left shrinks by 0.95 a round.
    first = 0.5 * np.hypot(1.0, 3.0)
    np.testing.assert_allclose(change, first * 0.95 ** np.arange(policies.ROUNDS))
    # A second action that gives 0 has no chance after one long step.
    both = np.repeat(kernels, 2, 2)
    objective, _ = policies.jin("PAvg", both, np.hstack([reward, 0 * reward]), 10.0, 1)
    np.testing.assert_allclose(objective, 20.0)


def test_kernels_are_sparse_and_chains_his():
    kernels, reward = policies.sparse_mdps(0)
    np.testing.assert_allclose(kernels.sum(-1), 1)
    assert 0.1 < (kernels > 0).mean() < 0.45
    kernel, reward, own, _ = values.perturbed_chains(0)
    assert all(np.linalg.norm(one - kernel) < 0.15 for one in own)
    start = np.linalg.solve(np.eye(10) - 0.8 * np.mean(own, 0), reward)
    np.testing.assert_allclose(start @ start, 84.1512, rtol=1e-5)


def test_softmax_policies_learn_the_better_action():
    reward = np.array([0.0, 1.0])[None, :, None]
    mdp = envs.stack_mdps([envs.tabular_mdp(np.ones((1, 2, 1)), reward, 0.5)] * 4)
    found = policies.softmax_fedpg(mdp, 5, 0.0)
    assert found.shape == (5, 60)
    assert np.all(found[:, 0] > 1.0)  # half of the steps give one, of two discounted ones
    assert np.all(found[:, -1] > 1.9)
    # Much entropy keeps both.
    assert np.all(policies.softmax_fedpg(mdp, 5, 5.0)[:, -1] < 1.6)


def test_agents_of_the_grid_find_the_goal(monkeypatch):
    monkeypatch.setattr(values, "SIDE", 2)
    returns = values.gunn(20, None)
    assert returns[:, -5:].mean() == pytest.approx(-1.1, abs=0.15)  # two steps, the last is free
    never = values.gunn(20, np.inf)
    assert abs(never[:, -5:].mean() - never[:, :5].mean()) < 0.5


def test_a_factor_counts_his_runs_as_one_more_repetition():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        logs = 0.1 * rng.normal(size=(4, 5))
        data = xr.Dataset({"3701, K >= 100": (("run", "repetition"), np.exp(logs))})
        values.HIS[3701, "K >= 100"] = float(np.exp(0.1 * rng.normal(size=4).mean()))
        found = values.factor(3701, "K >= 100", data)
        hits += found.low < 1 < found.high
    values.HIS[3701, "K >= 100"] = 0.6968
    assert 0.92 < hits / 400 < 0.98


def test_a_tiny_run_agrees_with_jin(tmp_path, monkeypatch):
    tiny = OTHERS.scales["smoke"].replace(families=1, steps=(4,))
    monkeypatch.setitem(OTHERS.scales, "smoke", tiny)
    lines = OTHERS.run(tmp_path, ["averages"], "smoke")["targets"]
    assert [line["verdict"] for line in lines] == ["reproduced"] * 3
    assert (tmp_path / "averages.png").stat().st_size > 0
