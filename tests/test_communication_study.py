"""The study `communication-efficient`: its declarations, its numbers from invented runs, a run."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from fedjax_rl import sweep
from fedjax_rl.algorithms import es
from fedjax_rl.envs import frozen_lake, optimal_q, simple_grid
from fedjax_rl.studies.communication_efficient import SCALES, STUDY, lines, settings, variants


@pytest.fixture(scope="module")
def declared():
    return {name: STUDY.declare(list(STUDY.figures), STUDY.size(name)) for name in SCALES}


def test_every_row_of_the_specification_is_there_at_every_scale(declared):
    for figures in declared.values():
        ids = [own.claim.id for figure in figures for own in figure.claims]
        assert {f"C{n}" for n in range(1, 38)} <= set(ids)
        assert {"claim 2", "claim 4", "claim 6", "claim 7", "claim 7b", "claim 1.4"} <= set(ids)
        assert len(set(ids)) == len(ids)


def test_learning_is_controlled_in_every_figure_that_claims_it(declared):
    for figure in declared["quick"]:
        words = " ".join(own.claim.quantity + own.claim.id for own in figure.claims)
        kinds = {own.claim.kind for own in figure.claims}
        if figure.name in {"fig3-4", "fig3-5", "fig4-2", "fig4-3", "fig4-5", "fig4-8"}:
            assert "control" in kinds or "without learning" in words, figure.name


def test_what_is_run_at_quick_and_paper_rests_on_ten_runs_at_least():
    """Of Ant, which takes hours, on as many as the thesis has at most."""
    for name in ("quick", "paper"):
        own = {size: n for size, n in SCALES[name].sizes.items() if "trials" in size and n}
        assert all(n >= (6 if size == "ant_trials" else 10) for size, n in own.items())


def test_ant_is_not_run_below_the_paper_and_says_its_cost(declared):
    ant = [figure for figure in declared["quick"] if figure.name in ("fig4-6", "fig4-9", "fig4-11")]
    assert all(not own.there for figure in ant for own in figure.claims)
    seconds = {s.name: s.seconds for f in declared["paper"] for s in f.stages if "ant" in s.name}
    assert 3600 < sum(seconds.values()) < 4 * 3600


def test_the_authors_windy_grid_has_the_published_optimum():
    """By value iteration on moves that are written down here."""
    moves = np.array([(0, -1), (0, 1), (-1, 0), (1, 0), (0, 0)])
    value = np.zeros((5, 5))
    for _ in range(400):
        best = np.full((5, 5), -np.inf)
        for move in moves:
            q = np.zeros((5, 5))
            for down, left in np.ndindex(2, 2):
                chance = (0.3 if down else 0.7) * (0.3 if left else 0.7)
                for row, column in np.ndindex(5, 5):
                    r, c = np.clip(np.array([row, column]) + move, 0, 4)
                    r, c = min(r + down, 4), max(c - left, 0)
                    goal = (r, c) == (4, 4)
                    q[row, column] += chance * (0 if goal else -1 + 0.9 * value[r, c])
            best = np.maximum(best, q)
        best[4, 4] = 0
        if np.abs(best - value).max() < 1e-12:
            break
        value = best
    np.testing.assert_allclose(lines.best_return(lines.gunn_grid()), value[0, 0], atol=1e-9)
    assert round(value[0, 0], 2) == -5.19


def test_a_policy_that_explores_attains_less_than_the_optimum():
    lake = frozen_lake()
    assert lines.attainable(lake, 0.0) == pytest.approx(optimal_q(lake.grid.mdp).max(-1)[0])
    assert lines.attainable(lake) == pytest.approx(0.02985, abs=1e-5)


class Invented(dict):
    """Runs by the name of their stage."""

    def __getitem__(self, stage):
        return super().__getitem__(stage.name)


def test_orders_and_rates_of_invented_runs(declared):
    figure = next(own for own in declared["quick"] if own.name == "fig4-8")
    m = np.array([5, 10, 15, 25, 30, 45, 50])
    seeds, episodes = 10, 30
    noise = np.random.default_rng(0).uniform(-1, 1, (1, 1, seeds, 1)) + [1.0, -1.0] * (
        episodes // 2
    )
    level = np.array([120.0, 140, 180, 150, 140, 96, 100])[None, :, None, None]
    reward = np.broadcast_to(level + noise, (3, 7, seeds, episodes)).copy()
    reward[2] = 20.0  # nothing is learned
    frequency = np.broadcast_to((m / 50)[None, :, None, None], reward.shape)
    dims = ("method", "target_senders", "seed", "time")
    made = xr.Dataset(
        {"reward": (dims, reward), "frequency": (dims, frequency)},
        {"method": ["as in the thesis", "own baseline", "still"], "target_senders": m},
    )
    found = {own.claim.id: own.decide(Invented(senders=made)) for own in figure.claims}
    np.testing.assert_allclose(found["claim 7"]["measured"], [20, 40, 80, 40, -4])
    assert found["claim 7"]["verdicts"] == ["reproduced"] * 4 + ["not reproduced"]
    np.testing.assert_allclose(found["claim 7 best"]["measured"], [60, 40, 40, 84])
    assert found["claim 7 best"]["verdict"] == "reproduced"
    assert found["claim 7 null"]["verdict"] == "reproduced"
    np.testing.assert_allclose(found["claim 1.4"]["measured"], [60, -40, -44])
    np.testing.assert_allclose(found["C33"]["measured"], [0.1, 0.2, 0.3, 0.6, 0.9])


def test_moments_that_forget_are_those_of_weighted_samples():
    uplink = variants._forgetting(keep=0.8)
    spec = types.SimpleNamespace(
        utility=lambda message: message, items=lambda message: (message[None], jnp.ones(1, bool))
    )
    view = types.SimpleNamespace(spec=spec, own={"target": 25, "members": 50})
    state, values = uplink.init(None, None, spec), np.array([3.0, 1.0, 4.0, 1.0, 5.0])
    for value in values:
        state = uplink.send(jax.random.key(0), jnp.float32(value), state, view)[2]
    weights = 0.8 ** np.arange(len(values))[::-1]
    mean = np.average(values, weights=weights)
    variance = np.average((values - mean) ** 2, weights=weights)
    np.testing.assert_allclose(state, [weights.sum(), mean, variance], rtol=1e-5)


def test_everybody_sends_once_espc_is_over():
    uplink = settings._espc_then_everybody(3)
    algorithm = es(simple_grid(max_steps=5), network=(2,), uplink=uplink)
    sent = sweep(algorithm, num_agents=50, num_steps=6, record_every=1).frequency.values[..., :]
    assert (sent[..., 3:] == 1).all()
    assert (sent[..., :3] < 1).all()


@pytest.mark.thorough
def test_a_figure_runs_at_a_tiny_size(tmp_path, monkeypatch):
    tiny = SCALES["smoke"].replace(windy_trials=3, episodes=12)
    monkeypatch.setitem(STUDY.scales, "smoke", tiny)
    summary = STUDY.run(tmp_path, ["grids", "fig4-7"], "smoke")
    verdicts = {line["id"]: line["verdict"] for line in summary["targets"]}
    assert verdicts["C4"] == verdicts["C5"] == "reproduced"
    assert verdicts["claim 4 mean"] in ("undecided", "not reproduced", "reproduced")
    assert {"grids.png", "fig4-7.png", "summary.json"} <= {p.name for p in tmp_path.iterdir()}
