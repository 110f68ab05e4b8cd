"""Federated Q-learning in expectation: a plain loop, its derivatives, and what sampled runs do."""

import dataclasses
import functools
import importlib
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedjax_rl as frl
from fedjax_rl.learners import tables

environment = importlib.import_module("fedjax_rl.algorithms.fedq_environment")

STATES, ACTIONS, AGENTS, PERIOD, STEPS = 3, 2, 2, 3, 12


@pytest.fixture
def double():
    environment._remembered.cache_clear()
    with jax.enable_x64(True):
        yield
    environment._remembered.cache_clear()


@functools.cache
def family():
    """Two MDPs with first states of their own and rewards of every transition."""
    rng = np.random.default_rng(3)
    kernel = rng.dirichlet(np.ones(STATES), (AGENTS, STATES, ACTIONS))
    reward = rng.normal(size=kernel.shape)
    return frl.envs.tabular_mdp(kernel, reward, 0.7, 0, rng.dirichlet(np.ones(STATES), AGENTS))


FIRST = np.array([[0.3, 0.1], [-0.2, 0.4], [0.0, 0.9]])
POLICY = np.array([[[0.2, 0.8], [1.0, 0.0], [0.5, 0.5]], [[0.0, 1.0], [0.6, 0.4], [0.3, 0.7]]])


def falling(time):
    return 0.9 / (2.0 + jnp.asarray(time, float))


CASES = {
    "everything": {
        "beta": [0.5, 4.0],
        "epsilon": [0.3, 0.1],
        "visit_exponent": 0.6,
        "aggregation": "importance",
        "mixing": 0.8,
        "discount": 0.5,
    },
    "greedy": {
        "behaviour": "greedy",
        "epsilon": 0.2,
        "aggregation": "learned",
        "weights": [0.0, 1.0],
    },
    "policy": {"behaviour": "policy", "policy": POLICY, "learning_rate": [0.3, 0.1]},
    "uniform": {
        "epsilon": 1.0,
        "learning_rate": frl.schedule(lambda t: 0.9 / (2.0 + jnp.asarray(t, float))),
    },
}


def made(name, **more):
    own = {"learning_rate": 0.4, "sync_period": PERIOD, "initial_q": FIRST, **CASES[name], **more}
    return frl.fedq(own.pop("mdp", family()), sampling="expected", **own)


def best(kernel, reward, discount):
    q = np.zeros(kernel.shape[:-1])
    for _ in range(150):
        q = (kernel * (reward + discount * q.max(-1))).sum(-1)
    return q


def averaged(c, q, log_weight):
    weight = np.exp(log_weight) if c.aggregation == "importance" else np.ones_like(q)
    if c.aggregation == "learned":
        weight = np.broadcast_to(np.exp(c.weights)[:, None, None], q.shape)
    return (weight * q).sum(0) / weight.sum(0)


def loop(c, steps=STEPS):
    """Tables [N, S, U] and the error of the server, an agent and a pair at a time."""
    mdp = c.mdp
    of = {
        name: np.broadcast_to(getattr(c, name), (AGENTS,))
        for name in ("epsilon", "beta", "visit_exponent")
        if getattr(c, name) is not None
    }
    q = np.tile(np.asarray(c.initial_q, float), (AGENTS, 1, 1))
    visits, log_weight = np.zeros_like(q), np.zeros_like(q)
    law = np.array(mdp.initial_distribution, float)
    for t in range(steps):
        for i in range(AGENTS):
            kernel, before, after = mdp.transition[i], q[i].copy(), np.zeros(STATES)
            gamma = mdp.discount[i] if c.discount is None else c.discount
            rate = c.learning_rate(t) if callable(c.learning_rate) else c.learning_rate
            rate = float(np.broadcast_to(rate, (AGENTS,))[i])
            for s in range(STATES):
                if c.behaviour == "policy":
                    pi = c.policy[i, s]
                else:
                    own = np.exp(of["beta"][i] * before[s])
                    if c.behaviour == "greedy":
                        own = np.eye(ACTIONS)[np.argmax(before[s])]
                    pi = of["epsilon"][i] / ACTIONS + (1 - of["epsilon"][i]) * own / own.sum()
                for a in range(ACTIONS):
                    here = law[i, s] * pi[a]
                    target = kernel[s, a] @ (mdp.reward[i, s, a] + gamma * before.max(1))
                    alpha = rate
                    if c.visit_exponent is not None:
                        alpha = rate / (1 + visits[i, s, a]) ** of["visit_exponent"][i]
                    q[i, s, a] += alpha * here * (target - before[s, a])
                    visits[i, s, a] += here
                    log_weight[i, s, a] -= np.log(1 - alpha * here)
                    after += here * kernel[s, a]
            law[i] = after / after.sum()
        if (t + 1) % PERIOD == 0:
            share = 1.0 if c.mixing is None else c.mixing
            q = q + share * (averaged(c, q, log_weight) - q)
            log_weight[:] = 0
    gap = averaged(c, q, log_weight) - best(
        mdp.transition.mean(0), mdp.reward.mean(0), mdp.discount[0]
    )
    return q, np.sum(gap**2)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("name", CASES)
def test_it_is_the_plain_loop_of_means(name, monkeypatch):
    for most in (tables.LARGEST_UNROLLED, 0) if name == "everything" else (24,):
        monkeypatch.setattr(tables, "LARGEST_UNROLLED", most)
        environment._remembered.cache_clear()
        algorithm = made(name)
        metrics, state = jax.jit(
            lambda algorithm=algorithm: frl.simulate(
                algorithm, num_agents=AGENTS, num_steps=STEPS, record_every=STEPS
            )
        )()
        table = state.agents.table
        table = np.stack(table, -1) if isinstance(table, tuple) else np.asarray(table)
        offset = environment.prepared(family(), algorithm.config.discount, True)["offset"]
        expected, error = loop(algorithm.config)
        np.testing.assert_allclose(table.reshape(expected.shape) + offset, expected, atol=1e-12)
        np.testing.assert_allclose(metrics["error_server"][-1], error, rtol=1e-12)


BY = (
    *("learning_rate", "epsilon", "beta", "visit_exponent", "mixing", "discount", "initial_q"),
    *("mdp.transition", "mdp.reward", "mdp.discount", "mdp.initial_distribution"),
)


def moved(name, place, step):
    """What the plain loop finds in the case with everything, with one number moved."""
    head, _, inner = name.partition(".")
    config = made("everything").config
    own = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    value = np.array(getattr(own[head], inner) if inner else own[head], float)
    value[place] += step
    own[head] = dataclasses.replace(own[head], **{inner: value}) if inner else value
    return loop(types.SimpleNamespace(**own))[1]


@pytest.mark.usefixtures("double")
def test_derivatives_are_differences_of_the_plain_loop():
    """By behaviour, transitions and first states, too; rows need not sum to one for that."""
    own, step = made("everything"), 1e-6
    sizes = {"num_agents": AGENTS, "num_steps": STEPS, "seeds": [0]}
    found = frl.differentiate(own, "error_server", BY, **sizes)
    np.testing.assert_allclose(found.value, loop(own.config)[1], rtol=1e-12)
    for name in BY:
        slopes = np.asarray(found.derivatives[name])
        for place in np.ndindex(slopes.shape):
            difference = (moved(name, place, step) - moved(name, place, -step)) / (2 * step)
            assert slopes[place] == pytest.approx(difference, rel=1e-6, abs=1e-7), (name, place)
        assert np.abs(slopes).max() > 1e-3, name
    kinds = frl.differentiable(own)
    assert {kinds[n] for n in BY if "." not in n} == {"exact"}


@pytest.mark.thorough
@pytest.mark.usefixtures("double")
def test_where_nothing_is_left_to_chance_it_is_the_sampled_run():
    """A cycle under policies that are certain: every law is a point, every update whole."""
    cycle = np.roll(np.eye(STATES), 1, axis=1)[:, None, :].repeat(ACTIONS, 1)
    mdp = frl.envs.tabular_mdp(cycle, np.arange(6.0).reshape(3, 2, 1), 0.6)
    one = frl.fedq(
        mdp,
        learning_rate=0.4,
        sync_period=PERIOD,
        behaviour="policy",
        policy=np.eye(2)[np.array([[0, 1, 0], [1, 1, 0]])],
        visit_exponent=0.7,
        aggregation="importance",
    )
    sizes = {"num_agents": AGENTS, "num_steps": STEPS, "seeds": [0]}
    both = frl.sweep(one, sampling=["markovian", "expected"], **sizes)
    for metric in ("error_server", "error_local_mean"):
        drawn, mean = (both[metric].sel(sampling=way) for way in both.sampling)
        np.testing.assert_allclose(drawn, mean, rtol=1e-12)


@pytest.mark.thorough
def test_sampled_runs_are_as_far_from_it_as_their_rate():
    """At a fixed sum of rates means of many runs differ from it by a multiple of the rate."""
    mdp = frl.envs.random_mdp(seed=1)
    # No two actions alike: there a mean of maxima differs by the root of the rate.
    first = np.linspace(0, 4, mdp.num_states * mdp.num_actions).reshape(mdp.num_states, -1)
    apart, rates = [], np.array([0.2, 0.1, 0.05, 0.025])
    for rate in rates:
        one = frl.fedq(mdp, learning_rate=rate, beta=1.0, epsilon=0.2, initial_q=first)
        steps = round(3.2 / rate)
        sizes = {"num_agents": 1, "num_steps": steps, "record_every": steps}
        drawn = frl.sweep(one, seeds=range(40_000), metrics=["error_server"], **sizes)
        mean = frl.sweep(one.replace(sampling="expected"), metrics=["error_server"], **sizes)
        apart.append(float(drawn.error_server.mean() - mean.error_server.mean()))
    slope = np.polyfit(np.log(rates), np.log(np.abs(apart)), 1)[0]
    assert 0.75 < slope < 1.25, (slope, apart)


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        ({"reward_noise": 0.5}, "reward_noise is 0.5 with sampling 'expected', in which nothing"),
        ({"reward_noise": [0.1, 0.2]}, r"reward_noise is .* with sampling 'expected'"),
        ({"generator": "hash"}, "generator is 'hash' with sampling 'expected'"),
        ({"derivative": "score"}, "derivative is 'score', which fedq does not estimate"),
    ],
)
def test_what_is_about_draws_is_refused(properties, message):
    with pytest.raises(ValueError, match=message):
        frl.fedq(frl.envs.paper_mdp(), sampling="expected", **properties)


def test_what_an_environment_has_no_derivative_by_is_refused():
    sizes = {"num_agents": 2, "num_steps": 3, "seeds": [0]}
    one = frl.fedq(frl.envs.paper_mdp(), epsilon=1.0)
    for by, says in {
        "mdp.transition": "mdp.transition is traced: next states .* or with sampling='expected'",
        "mdp.initial_state": "mdp.initial_state is traced, and it counts",
        "mdp.initial_distribution": "by is 'mdp.initial_distribution', which is None",
        "mdp.replace": "by is 'mdp.replace', which is .* no number",
    }.items():
        with pytest.raises(ValueError, match=says):
            frl.differentiate(one, by=by, **sizes)


@pytest.mark.thorough
def test_it_goes_through_uplinks_and_clocks():
    """With everybody heard at once a clock of equal times is rounds."""
    own = {"num_agents": 2, "num_steps": 6, "metrics": ["error_server"]}
    one = made("everything", aggregation="mean", mixing=None)
    whole = frl.sweep(one, record_every=PERIOD, **own).error_server
    told = one.replace(uplink=frl.uplinks.top_k(STATES * ACTIONS))
    np.testing.assert_allclose(frl.sweep(told, record_every=PERIOD, **own).error_server, whole)
    clocked = frl.sweep(one.replace(clock=frl.Clock()), **{**own, "num_steps": 2}).error_server
    np.testing.assert_allclose(clocked.values.ravel(), whole.values.ravel(), rtol=1e-6)
