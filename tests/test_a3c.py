"""A3C against a plain simulation of its events; that it learns; what it keeps and refuses."""

import heapq

import jax
import n_step
import numpy as np
import pytest
from walk import WALK

import fedjax_rl as frl
from fedjax_rl import envs, memory, streams
from fedjax_rl.algorithms.n_step_properties import memory_of
from fedjax_rl.sweeps import costs

CARTPOLE = envs.gymnax_task("CartPole-v1")
TIMES = (1.0, 2.6, 1.7)
CLOCKS = {
    "asynchronous": (frl.Clock("asynchronous", compute_time=TIMES), 1),
    "first two": (frl.Clock("semi-synchronous", wait_for=2, compute_time=TIMES), 2),
    "rounds": (None, 3),
}


def events(keys, theta, optimizer, arrivals, count):
    """Agents of different speed and one server, event by event.

    Returns:
      The server, the last gradient of every agent, and the staleness of every message.
    """
    server, stale = n_step.Descent(theta, optimizer), []
    actors = [n_step.Actor() for _ in keys]
    handed = [(server.theta, 0) for _ in keys]
    uploads, gradients = [0] * len(keys), [np.zeros(9)] * len(keys)
    flying = [(time, i) for i, time in enumerate(TIMES)]
    for turn in range(count):
        heapq.heapify(flying)
        come = [heapq.heappop(flying) for _ in range(arrivals)]
        for _, i in come:
            # Of what the agent was handed, not of what the server has by now.
            key = jax.random.fold_in(
                jax.random.fold_in(keys[i], streams.Epochs.ROLLOUT), uploads[i]
            )
            gradients[i] = actors[i].gradient(key, handed[i][0])
            stale.append(turn - handed[i][1])
            uploads[i] += 1
        server.step(np.mean([gradients[i] for _, i in come], axis=0))
        for _, i in come:
            handed[i] = (server.theta, turn + 1)
            flying.append((come[-1][0] + TIMES[i], i))
    return server, gradients, stale


@pytest.mark.parametrize(
    ("clock", "optimizer"),
    [
        ("asynchronous", "rmsprop"),
        ("asynchronous", "momentum"),
        ("first two", "adam"),
        ("rounds", "sgd"),
    ],
)
def test_it_is_the_simulation_of_its_events(clock, optimizer):
    """Three agents of different speed: who is slow sends a gradient of old parameters."""
    clock, arrivals = CLOCKS[clock]
    own = {"name": optimizer, **n_step.OPTIMIZER}
    algorithm = frl.a3c(WALK, clock=clock, optimizer=own, **n_step.GIVEN)
    state = frl.init(algorithm, num_agents=3, seed=3)
    first = np.asarray(state.state.server[0])
    expected, gradients, stale = events(list(state.state.keys), first, optimizer, arrivals, 12)
    for _ in range(12):
        state, metrics = frl.round(algorithm, state)
    (moments,) = state.state.server_state
    close = {"rtol": 2e-4, "atol": 1e-5}
    np.testing.assert_allclose(state.state.server[0], expected.theta, **close)
    np.testing.assert_allclose(moments.first[0], expected.first, **close)
    np.testing.assert_allclose(moments.second[0], expected.second, **close)
    np.testing.assert_allclose(state.state.agents.gradient, gradients, **close)
    assert np.max(abs(expected.theta - first)) > 0.05
    assert state.costs["env_steps"] == 12 * arrivals * n_step.ENVS * n_step.STEPS
    assert state.costs["floats_up"] == state.costs["floats_down"] == 12 * arrivals * 9
    if clock is None:
        assert set(stale) == {0}
    else:
        assert max(stale) == metrics["staleness_max"] >= 3 // arrivals
        assert np.mean(stale) == pytest.approx(float(metrics["staleness_mean"]))


@pytest.mark.thorough
def test_what_is_compressed_is_a_gradient():
    """The server moves by two of the largest entries of who arrived first."""
    own = {"name": "sgd", **n_step.OPTIMIZER}
    clock = CLOCKS["asynchronous"][0]
    algorithm = frl.a3c(
        WALK, clock=clock, uplink=frl.uplinks.top_k(2), optimizer=own, **n_step.GIVEN
    )
    state = frl.init(algorithm, num_agents=3, seed=3)
    before = np.asarray(state.state.server[0])
    state, _ = frl.round(algorithm, state)
    moved = np.asarray(state.state.server[0]) - before
    gradient, at = np.asarray(state.state.agents.gradient[0]), np.flatnonzero(moved)
    assert len(at) == 2
    np.testing.assert_allclose(moved[at], -0.05 * gradient[at], rtol=1e-4)
    # As large as any: of two actions magnitudes are equal in pairs.
    assert np.min(abs(gradient[at])) >= 0.999 * np.sort(abs(gradient))[-2]


@pytest.mark.thorough
def test_it_learns_cartpole():
    """Four agents, two of them four times slower, are above 150 of 500 after 256,000 steps."""
    clock = frl.Clock("asynchronous", distribution="two_class")
    algorithm = frl.a3c(CARTPOLE, clock=clock, evaluation_episodes=20)
    run = {"num_agents": 4, "seeds": range(3), "num_steps": 2000, "record_every": 200}
    result = frl.sweep(algorithm, learning_rate=[1e-9, algorithm.config.learning_rate], **run)
    last = result["return"].isel(time=slice(-2, None)).mean("time")
    nothing, learned = (last.isel(learning_rate=i) for i in range(2))
    assert (learned > 150).all()
    assert (nothing < 50).all()


def test_mistakes_are_named_before_anything_compiles(monkeypatch):
    for values, words in (
        ({"optimizer": "lion"}, "optimizer.name is 'lion'; allowed: 'adam' or 'momentum' or"),
        ({"clock": 1.0}, "clock is 1.0; allowed: an frl.Clock"),
        ({"rollout_steps": 0}, "rollout_steps is 0; allowed: a whole number of at least 1"),
    ):
        with pytest.raises(ValueError, match=words):
            frl.a3c(CARTPOLE, **values)
    assert frl.a3c(CARTPOLE, optimizer={"decay": 0.9}).config.optimizer.name == "rmsprop"
    three = frl.a3c(CARTPOLE, clock=frl.Clock("semi-synchronous", wait_for=3))
    with pytest.raises(ValueError, match="wait_for is 3 for num_agents 2; allowed: 1 to 2"):
        frl.simulate(three, num_agents=2, num_steps=1)
    monkeypatch.setattr(memory, "available", lambda devices=None: 10**5)
    with pytest.raises(ValueError, match="num_agents is 4 with num_envs 8, which needs "):
        frl.simulate(frl.a3c(CARTPOLE), num_agents=4, num_steps=1)


@pytest.mark.parametrize(
    ("clock", "at_once"),
    [
        (None, 3),
        (frl.Clock("asynchronous"), 3),
        (frl.Clock("asynchronous", distribution="exponential"), 2),
        (frl.Clock("semi-synchronous", wait_for=2), 3),
    ],
    ids=["rounds", "in turn", "at random", "several"],
)
def test_memory_is_that_of_its_state(clock, at_once):
    """Of agents in turn, or at random, so many work at once as come before one is back."""
    one = frl.a3c(CARTPOLE, clock=clock)
    said = memory_of(one.config, 3)
    kept = sum(costs.costs_of(one, 3).kept.values())
    assert kept == pytest.approx(said["parameters"] + said["environments"], rel=0.1)
    each = memory_of(frl.a3c(CARTPOLE, clock=None).config, 1)["rollout"]
    assert said["rollout"] == at_once * each
