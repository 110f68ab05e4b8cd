"""Evolution strategies and their relatives: estimators, learners, uplinks, on toy tasks."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import fedjax_rl as frl
from fedjax_rl import federation as fed
from fedjax_rl import streams
from fedjax_rl.algorithms import episodic, es, espc, iw_es, ns_es, nsr_es, nsra_es
from fedjax_rl.algorithms.es import UTILITIES, Agent, Sample, aggregate, message
from fedjax_rl.algorithms.es import Model as Centre
from fedjax_rl.algorithms.es import exchange_of as exchange_of_es
from fedjax_rl.algorithms.iw_es import reusing, weighted
from fedjax_rl.algorithms.novelty import Agent as NoveltyAgent
from fedjax_rl.algorithms.novelty import NoveltySearch, exchange_of
from fedjax_rl.algorithms.strategy import network_of
from fedjax_rl.envs.task import Continuous, Task
from fedjax_rl.federation.algorithm import bind
from fedjax_rl.federation.exchange import first_state
from fedjax_rl.federation.ledger import COLUMNS
from fedjax_rl.federation.state import Context
from fedjax_rl.federation.uplinks import UPLINKS, make
from fedjax_rl.learners import novelty as search
from fedjax_rl.learners.evolution import centred_ranks, importance
from fedjax_rl.learners.evolution import shaped as shaped_by
from fedjax_rl.learners.novelty import Model, choose, settle

# Toy tasks ----------------------------------------------------------------------------------------


class OneStep:
    """An episode of one step; x uniform in [-1, 1] is seen, `reward(x, action)` is given."""

    def __init__(self, reward):
        self.reward = reward

    def reset(self, key, params):
        x = jax.random.uniform(key, minval=-1.0)
        return x, (x, jnp.zeros(1))

    def step(self, key, state, action, params):
        x, yes = state[0], jnp.asarray(True)
        return x, (x, action), self.reward(x, action), yes, ~yes, {}


def toy(name, reward):
    return Task(
        name=name,
        env=OneStep(reward),
        params=(),
        observation_size=1,
        action=Continuous(1),
        max_steps=1,
        discount=1.0,
        encode=lambda x: x[None],
        trace=lambda state: jnp.stack([state[0], state[1][0]]),
        summarise=lambda last, mean, steps: last,
        behaviour_size=2,
    )


SMOOTH = toy("toy-smooth", lambda x, action: -((action[0] - 0.6) ** 2) - 0.1 * x * action[0])
RESETS = toy("toy-resets", lambda x, action: jnp.where(x < -0.5, jnp.nan, x))
PLAIN = {"network": (), "sigma": 0.1, "learning_rate": 0.05, "optimizer": "momentum", "l2": 0.0}


# All runs have this shape, so that few programs have to be compiled.
FEDERATIONS, AGENTS = 10, 8
PROGRAMS = {}
# These programs run for milliseconds and take seconds to compile.
quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def setting(algorithms, seeds):
    """Population, parameters and keys of `FEDERATIONS` federations, the last one repeated."""
    missing = FEDERATIONS - len(algorithms)
    population = fed.Population(((FEDERATIONS, AGENTS),))
    each = [a.parameters(a.config, AGENTS) for a in algorithms]
    seeds = np.asarray([*(seeds or [0] * len(algorithms)), *[0] * missing])
    keys = streams.agent_keys(seeds[population.federation_of], population.member_of)
    return population, bind(each + each[-1:] * missing), keys


def run(*algorithms, rounds=3, seeds=None):
    """First and last state and the last metrics of federations that share a program.

    Those of the novelty family do, for all that their records differ.
    """
    static = algorithms[0].static(algorithms[0].config)
    population, params, keys = setting(algorithms, seeds)
    key = (static, jax.tree.structure(params))
    if key not in PROGRAMS:
        functions = algorithms[0].functions(algorithms[0].config)

        def go(params, keys, rounds):
            first = functions.init(population, params, keys)
            last = functions.advance(population, params, first, rounds)
            return first, last, functions.measure(population, params, last)

        PROGRAMS[key] = quick(go)
    first, last, metrics = PROGRAMS[key](params, keys, jnp.uint32(rounds))
    sides = algorithms[0].metrics
    metrics = {n: wanted(x, algorithms, sides[n][0]) for n, x in metrics.items()}
    return *(only(state, algorithms) for state in (first, last)), metrics


def wanted(tree, algorithms, side):
    """The part of a tree that belongs to the algorithms."""
    size = len(algorithms) * (AGENTS if side == "agent" else 1)
    return jax.tree.map(lambda x: x[:size], tree)


def only(state, algorithms):
    of_agents = {n: wanted(getattr(state, n), algorithms, "agent") for n in AGENT_LEAVES}
    of_servers = {n: wanted(getattr(state, n), algorithms, "federation") for n in SERVER_LEAVES}
    of_agents["keys"] = jax.random.key_data(of_agents["keys"])
    return dataclasses.replace(state, **of_agents, **of_servers)


AGENT_LEAVES = ("keys", "agents", "uplink_state", "sent")
SERVER_LEAVES = ("server", "server_state", "ledger")


def spent(state, column):
    """A column of the ledger, int [F]."""
    return np.asarray(state.ledger.low[:, COLUMNS.index(column)])


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


# Estimators (pure functions) ----------------------------------------------------------------------

F, N, Q = 2000, 10, 4
SLOPE = np.array([1.0, -2.0, 0.5, 0.0], np.float32)
SIGMA = 0.2


def draws(seed=0, pairs=False):
    noise = np.random.default_rng(seed).standard_normal((F, N, Q)).astype(np.float32)
    if pairs:
        noise[:, 1::2] = -noise[:, ::2]
    return noise.reshape(F * N, Q)


def shaped(population, values, counts, params):
    """Shaped returns, and how many were received."""
    own = params.federation
    return shaped_by(population, values, counts, own["shaping"], own["weights"])


def estimates(values, noise, **words):
    """The gradient estimate of every federation, [F, Q]."""
    algorithm = es(SMOOTH, **PLAIN, **words)
    population = fed.Population(((F, N),))
    own = algorithm.parameters(algorithm.config, N).federation
    federation = {n: jnp.full(F, x) for n, x in own.items()}
    context = Context((), fed.Params({}, federation, {}), jnp.uint32(0))
    everyone = jnp.ones(F * N, bool)
    sample = Sample(jnp.asarray(values), jnp.asarray(noise), jnp.asarray(values), everyone)
    total = quick(lambda s, c: aggregate(population, s, None, None, c).value)(sample, context)
    return np.asarray(total) / SIGMA


def own_baseline(constant, noise):
    """Values of the messages of agents with five earlier returns of the same kind."""
    past = [constant + draws(9 + k) @ SLOPE * SIGMA for k in range(5)]
    value = constant + noise @ SLOPE * SIGMA
    ring = jnp.asarray(np.stack([*past, value], axis=1))
    agents = Agent(
        episodic.Experience(
            jnp.asarray(value),
            jnp.asarray(value),
            jnp.ones(F * N, jnp.int32),
            jnp.zeros(F * N),
            jnp.ones(F * N, bool),
        ),
        jnp.asarray(noise),
        ring,
        jnp.full(F * N, 6),
    )
    params = {"baseline": jnp.int32(1), "utility": jnp.int32(0)}
    sample = quick(jax.vmap(lambda agent: message(agent, None, params)))(agents)
    np.testing.assert_allclose(sample.value, value - np.mean(past, axis=0), atol=1e-4)
    assert sample.valid.all()
    return sample.value


FORMS = {
    "raw": lambda constant, noise: estimates(constant + noise @ SLOPE * SIGMA, noise),
    "center": lambda constant, noise: (
        estimates(constant + noise @ SLOPE * SIGMA, noise, shaping="center") * N / (N - 1)
    ),
    "antithetic": lambda constant, noise: estimates(constant + noise @ SLOPE * SIGMA, noise),
    "own baseline": lambda constant, noise: estimates(own_baseline(constant, noise), noise),
}


@pytest.mark.parametrize("form", FORMS)
def test_estimators_find_the_slope_of_a_linear_return(form):
    spread = {}
    for constant in (0.0, 3.0):
        found = FORMS[form](constant, draws(pairs=form == "antithetic"))
        error = found.std(0, ddof=1) / np.sqrt(F)
        assert np.all(np.abs(found.mean(0) - SLOPE) < 3 * error + 1e-6)
        spread[constant] = found.var(0).sum()
    if form == "raw":
        assert spread[3.0] > 10 * spread[0.0]
    else:
        np.testing.assert_allclose(spread[3.0], spread[0.0], rtol=1e-3)


def test_utilities_of_a_sample():
    noise, value = np.array([3.0, 4.0], np.float32), -2.0
    agent = Agent(
        episodic.no_experience().following(jnp.float32(value), jnp.float32(value), jnp.int32(1)),
        jnp.asarray(noise),
        jnp.zeros(6).at[0].set(value),
        jnp.int32(1),
    )
    expected = {"signed": -10.0, "absolute": 10.0, "return": -2.0, "norm": 5.0}
    for place, name in enumerate(UTILITIES):
        params = {"baseline": jnp.int32(0), "utility": jnp.int32(place)}
        assert message(agent, None, params).utility == pytest.approx(expected[name])
    # Without an earlier return there is no baseline, and nothing to say.
    params = {"baseline": jnp.int32(1), "utility": jnp.int32(0)}
    assert not message(agent, None, params).valid


def test_mid_ranks_are_those_of_scipy():
    rng = np.random.default_rng(0)
    population = fed.Population(((2, 7), (1, 3), (2, 1)))
    x = rng.integers(0, 4, population.num_agents).astype(np.float32)
    mask = rng.random(population.num_agents) < 0.7
    mask[:7] = True
    ranks, centred = quick(
        lambda x, mask: (population.mid_rank(x, mask), centred_ranks(population, x, mask))
    )(x, mask)
    for f in range(population.num_federations):
        there = (population.federation_of == f) & mask
        expected = stats.rankdata(x[there]) - 1
        np.testing.assert_allclose(ranks[there], expected)
        size = there.sum()
        expected = expected / max(size - 1, 1) - 0.5 if size > 1 else np.zeros(size)
        np.testing.assert_allclose(centred[there], expected, atol=1e-6)
    np.testing.assert_array_equal(centred[~mask], 0.0)


def test_shaping_of_returns():
    population = fed.Population(((1, 5),))
    shape = quick(functools.partial(shaped, population))
    x, counts = jnp.asarray([1.0, 3.0, 3.0, 5.0, jnp.nan]), jnp.asarray([True] * 4 + [False])
    expected = {
        "raw": [1, 3, 3, 5],
        "center": [-2, 0, 0, 2],
        "zscore": [-(2**0.5), 0, 0, 2**0.5],
        "rank": [-0.5, 0, 0, 0.5],
    }
    for name, values in expected.items():
        for weights in ("return", "equal"):
            algorithm = es(SMOOTH, shaping=name, weights=weights)
            params = bind([algorithm.parameters(algorithm.config, 5)])
            found, received = shape(x, counts, params)
            values = values if weights == "return" else [1] * 4
            np.testing.assert_allclose(found, [*values, 0], atol=1e-6)
            assert received == 4


@pytest.mark.parametrize("shaping", ["center", "zscore", "rank"])
def test_of_equal_returns_nothing_is_learned(shaping):
    """Exactly nothing: Adam would make a full step of a rounding."""
    sizes = (2, 3, 5, 7, 8, 10, 11, 12, 23, 40)
    population = fed.Population(tuple((1, n) for n in sizes))
    algorithm = es(SMOOTH, shaping=shaping)
    params = bind([algorithm.parameters(algorithm.config, n) for n in sizes])
    shape = quick(functools.partial(shaped, population))
    everybody = jnp.ones(population.num_agents, bool)
    for value in (-200.0, -50.0, 0.1, 1 / 3):
        alike = jnp.full(population.num_agents, value)
        np.testing.assert_array_equal(shape(alike, everybody, params)[0], 0.0)
        # One unit in the last place is a rounding, a thousandth is not.
        near = alike.at[::2].multiply(1 + 2e-7)
        np.testing.assert_array_equal(shape(near, everybody, params)[0], 0.0)
        apart = shape(alike.at[::2].multiply(1.001), everybody, params)[0]
        assert np.all(np.asarray(apart)[::2] != 0)


def test_equal_returns_are_their_own_baseline():
    """The mean of the window is a rounding off the return: nothing is sent of that."""
    params = {"baseline": jnp.int32(1), "utility": jnp.int32(0)}
    one = episodic.no_experience()
    send = quick(
        jax.vmap(
            lambda v, k: (
                message(
                    Agent(one.following(v, v, jnp.int32(9)), jnp.ones(2), jnp.full(6, v), k),
                    None,
                    params,
                ).value
            )
        )
    )
    values, counts = (
        x.reshape(-1)
        for x in jnp.meshgrid(jnp.asarray([-50.0, 0.1, 1 / 3]), jnp.arange(2, 9, dtype=jnp.int32))
    )
    np.testing.assert_array_equal(send(values, counts), 0.0)


# A round of ES against NumPy ----------------------------------------------------------------------


def by_hand(config, keys, theta, rounds):
    """Rounds of plain ES on SMOOTH, federation of one member per key, in float64."""
    mean, square, speed = (np.zeros_like(theta) for _ in range(3))
    for t in range(rounds):
        sigma, rate = (
            float(value(jnp.int32(t))) if callable(value) else value
            for value in (config.sigma, config.learning_rate)
        )

        def stream(key, number, t=t):
            return jax.random.fold_in(jax.random.fold_in(key, number), t)

        noise = np.stack([jax.random.normal(stream(k, 3), (2,)) for k in keys]).astype(float)
        x = np.array([jax.random.uniform(stream(k, 4), minval=-1.0) for k in keys], float)
        w, b = (theta + sigma * noise).T
        action = np.tanh(w * x + b)
        value = -((action - 0.6) ** 2) - 0.1 * x * action
        gradient = (value[:, None] * noise).mean(0) / sigma
        coupled = config.l2_mode == "coupled"
        gradient = gradient - coupled * config.l2 * theta
        if config.optimizer.name == "adam":
            mean = 0.9 * mean + 0.1 * gradient
            square = 0.999 * square + 0.001 * gradient**2
            step = mean / (1 - 0.9 ** (t + 1))
            step = step / (np.sqrt(square / (1 - 0.999 ** (t + 1))) + 1e-8)
        else:
            speed = config.optimizer.momentum * speed + gradient
            step = speed
        decay = 0 if coupled else config.l2 * theta
        theta = theta + rate * (step - decay)
    return theta


SCHEDULES = {
    "sigma": frl.schedule(lambda t: 0.1 / (1 + t.astype(float))),
    "learning_rate": frl.schedule(lambda t: 0.05 / (3 - t.astype(float))),
}


@pytest.mark.parametrize(("optimizer", "numbers"), [("adam", {}), ("momentum", SCHEDULES)])
def test_rounds_are_those_of_numpy(optimizer, numbers):
    """With constant steps and perturbations, and with ones that follow a schedule."""
    words = {**PLAIN, "optimizer": optimizer, "l2": 0.3, **numbers}
    each = [es(SMOOTH, **{**words, "l2_mode": mode}) for mode in ("coupled", "decoupled")]
    first, last, _ = run(*each)
    assert not np.allclose(last.server.parameters[0], last.server.parameters[1], atol=1e-4)
    keys = jax.random.wrap_key_data(first.keys)
    for f, algorithm in enumerate(each):
        start = np.asarray(first.server.parameters[f], float)
        expected = by_hand(algorithm.config, keys[AGENTS * f : AGENTS * (f + 1)], start, 3)
        np.testing.assert_allclose(last.server.parameters[f], expected, rtol=2e-4, atol=1e-5)
    numbers = 3 * AGENTS  # rounds times agents: a return up each time, two parameters down
    np.testing.assert_array_equal(spent(last, "env_steps"), numbers)
    np.testing.assert_array_equal(spent(last, "bytes_up"), 4 * numbers)
    np.testing.assert_array_equal(spent(last, "floats_down"), 2 * numbers)


# Invariances --------------------------------------------------------------------------------------


def moved(first, last):
    return np.asarray(last.server.parameters - first.server.parameters)


@pytest.mark.thorough
def test_what_an_offset_of_the_returns_changes():
    words = {**PLAIN, "learning_rate": 0.01}
    kinds = [{"shaping": s} for s in ("center", "zscore", "rank", "raw")]
    kinds += [{"baseline": "own_window"}]
    offsets = (0.0, 2.0)
    each = [es(SMOOTH, **words, **k, return_offset=o) for k in kinds for o in offsets]
    first, last, _ = run(*each)
    change = moved(first, last).reshape(len(kinds), 2, -1)
    raw = [k.get("shaping") == "raw" for k in kinds]
    for found, changes in zip(change, raw, strict=True):
        assert np.abs(found).max() > 1e-4
        assert np.allclose(*found, rtol=1e-3, atol=1e-6) is not changes
    each = [es(SMOOTH, **words, antithetic=True, return_offset=o) for o in offsets]
    np.testing.assert_allclose(*moved(*run(*each)[:2]), rtol=1e-3, atol=1e-6)
    each = [espc(RESETS, **words, target_senders=4, return_offset=o) for o in offsets]
    found = moved(*run(*each, rounds=6)[:2])
    assert not np.allclose(*found, rtol=1e-2)


@pytest.mark.thorough
def test_without_senders_the_learner_stays_as_it_is():
    decay, silent = {**PLAIN, "l2": 0.3}, make("partial", probability=0.0)
    first, last, metrics = run(espc(RESETS, **decay, target_senders=0))
    same((first.server, first.server_state), (last.server, last.server_state))
    assert metrics["frequency"] == 0
    assert metrics["size"] == 0
    decay["optimizer"] = "adam"
    for factory, words in ((es, decay), (iw_es, decay), (nsra_es, {**SMALL, **decay})):
        (first, *_, last), _ = exchanges(factory(SMOOTH, **words, uplink=silent), 2)
        same((first.server, first.server_state), (last.server, last.server_state))


# IW-ES --------------------------------------------------------------------------------------------


def test_importance_weights():
    population = fed.Population(((2, 5), (1, 3)))
    rng = np.random.default_rng(1)
    noise = rng.standard_normal((13, 3)).astype(np.float32)
    counts = np.ones(13, bool)
    counts[[2, 7]] = False
    weigh = quick(functools.partial(importance, population))
    weights, effective = weigh(noise, jnp.zeros((3, 3)), counts)
    np.testing.assert_array_equal(weights, counts.astype(np.float32))
    np.testing.assert_allclose(effective, [4, 4, 3])
    shift = rng.standard_normal((3, 3)).astype(np.float32)
    weights, effective = weigh(noise, jnp.asarray(shift), counts)
    for f in range(3):
        own = population.federation_of == f
        new = ((noise[own] - shift[f]) ** 2).sum(1)
        expected = np.exp(((noise[own] ** 2).sum(1) - new) / 2) * counts[own]
        np.testing.assert_allclose(weights[own], expected / expected.max(), rtol=1e-4)
        expected = expected.sum() ** 2 / (expected**2).sum()
        np.testing.assert_allclose(effective[f], expected, rtol=1e-4)
    # However far, nothing overflows; without samples nothing is worth anything.
    weights, effective = weigh(noise, jnp.full((3, 3), 1e3), counts)
    np.testing.assert_allclose(effective, 1.0)
    weights, effective = weigh(noise, jnp.asarray(shift), counts & False)
    np.testing.assert_array_equal(weights, 0.0)
    np.testing.assert_array_equal(effective, 0.0)


def test_reused_returns_give_the_gradient_at_the_new_place():
    n, federations, sigma = 100, 400, 0.5
    population = fed.Population(((federations, n),))
    rng = np.random.default_rng(2)
    best, old = np.array([1.0, -1.0, 0.5]), np.zeros(3)
    shift = np.array([0.3, -0.2, 0.1])  # in units of sigma
    algorithm = es(SMOOTH, shaping="center")
    own = algorithm.parameters(algorithm.config, n).federation
    params = fed.Params({}, {k: jnp.full(federations, x) for k, x in own.items()}, {})
    counts = jnp.ones(federations * n, bool)

    @quick
    def estimate(value, noise, moved):
        value, _ = shaped(population, value, counts, params)
        return weighted(population, value, noise, moved, counts, params)

    def gradient(centre, shift):
        noise = rng.standard_normal((federations * n, 3)).astype(np.float32)
        value = -((centre + sigma * noise - best) ** 2).sum(1).astype(np.float32)
        moved = np.tile(np.asarray(shift, np.float32), (federations, 1))
        found, effective = estimate(value, noise, moved)
        assert np.all(effective <= n * (1 + 1e-5))
        return np.asarray(found) / sigma

    again, fresh = gradient(old, shift), gradient(old + sigma * shift, np.zeros(3))
    error = np.sqrt((again.var(0) + fresh.var(0)) / federations)
    bias = 0.03 * np.abs(fresh.mean(0))  # of the order 1 / n: self-normalised, and centred
    assert np.all(np.abs(again.mean(0) - fresh.mean(0)) < 3 * error + bias)
    np.testing.assert_allclose(fresh.mean(0), -2 * (old + sigma * shift - best), rtol=0.1)
    # Not the gradient at the old place.
    assert np.linalg.norm(again.mean(0) - -2 * (old - best)) > 0.2


@pytest.mark.thorough
def test_reuse_costs_nothing_and_stops():
    words = {**PLAIN, "shaping": "center"}
    plain, none = (
        exchanges(f(SMOOTH, **words), 2)[0] for f in (es, functools.partial(iw_es, reuse=0))
    )
    same((plain[-1].server, plain[-1].ledger), (none[-1].server, none[-1].ledger))
    assert none[-1].server_state[0].effective == 4
    assert none[-1].server_state[0].reused == 0
    _, expected, _ = run(es(SMOOTH, **words))
    # Steps of no length lose nothing; long ones leave nothing to reuse, unless nothing is asked.
    rules = ((0.0, 0.5), (5.0, 1.0), (5.0, 0.0))
    each = [iw_es(SMOOTH, **{**words, "learning_rate": r}, reuse=2, min_ess=m) for r, m in rules]
    _, last, metrics = run(*each)
    np.testing.assert_array_equal(metrics["reused"], [2, 0, 2])
    assert metrics["effective_sample_size"][0] == AGENTS
    assert np.all(metrics["effective_sample_size"][1:] < AGENTS)
    assert np.isfinite(last.server.parameters).all()
    for column in ("messages_up", "bytes_up", "bytes_down", "env_steps"):
        np.testing.assert_array_equal(spent(last, column), spent(expected, column)[0])


@pytest.mark.thorough
def test_reuse_gets_further_on_the_same_messages():
    words = {**PLAIN, "learning_rate": 0.002, "optimizer": "sgd", "shaping": "center"}
    each = [a(SMOOTH, **words) for a in (es, functools.partial(iw_es, reuse=2))]
    results = [run(*[one] * 5, rounds=30, seeds=[*range(5)])[2] for one in each]
    assert results[1]["reward"].mean() > results[0]["reward"].mean()
    np.testing.assert_array_equal(results[1]["reused"], 2)


# The novelty family -------------------------------------------------------------------------------


def test_archive_is_a_ring():
    archive = search.empty(3, 2)
    rows = np.arange(10.0, dtype=np.float32).reshape(5, 2)
    for row in rows:
        archive = search.add(archive, jnp.asarray(row))
        kept = search.add(archive, jnp.asarray(row), jnp.asarray(False))
        same(archive, kept)
    assert archive.count == 5
    np.testing.assert_array_equal(archive.entries, rows[[3, 4, 2]])


@pytest.mark.parametrize("count", [0, 2, 6, 9])
def test_novelty_is_the_mean_distance_to_the_nearest(count):
    rng = np.random.default_rng(count)
    archive = search.empty(6, 3)
    rows = rng.standard_normal((count, 3)).astype(np.float32)
    for row in rows:
        archive = search.add(archive, jnp.asarray(row))
    behaviour = rng.standard_normal(3).astype(np.float32)
    distances = np.sort(np.linalg.norm(rows[-6:] - behaviour, axis=1))
    for k in (1, 4, 10):
        expected = distances[:k].mean() if count else 0.0
        found = search.novelty(archive, jnp.asarray(behaviour), k)
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def learner(many=3, size=8, weight=1.0, q=2):
    return Model(
        parameters=jnp.zeros((many, q)),
        behaviours=jnp.zeros((many, 1)),
        archive=search.empty(size, 1),
        chosen=jnp.int32(0),
        stepped=jnp.asarray(True),
        value=jnp.float32(0),
        novelty=jnp.float32(0),
        weight=jnp.float32(weight),
        best=jnp.float32(-jnp.inf),
        waited=jnp.int32(0),
    )


def test_weight_of_the_return_follows_the_schedule():
    returns = [1.0, 1.0, 0.5, 0.9, 2.0, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 3.0, np.nan, 4.0, 0.0]
    step, patience = 0.3, 2
    model, params = learner(), {"weight_step": jnp.float32(step), "patience": jnp.float32(patience)}
    w, best, counter, found, expected = 1.0, -np.inf, 0, [], []
    advance = quick(settle)
    for value in returns:
        model = advance(model, jnp.float32(value), jnp.full(1, value), params)
        found.append(float(model.weight))
        if np.isfinite(value):  # an episode that broke did not happen
            if value > best:
                w, best, counter = min(1.0, w + step), value, 0
            else:
                counter += 1
                if counter >= patience:
                    w, counter = max(0.0, w - step), 0
        expected.append(w)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert min(found) < 0.5 < max(found[-3:])
    assert model.archive.count == len(returns) - 1
    idle = model._replace(stepped=jnp.asarray(False))
    same(idle, advance(idle, jnp.float32(99.0), jnp.ones(1), params))


def test_parameters_are_chosen_by_novelty():
    archive = search.empty(4, 1)
    for x in (0.0, 1.0, 4.0):
        archive = search.add(archive, jnp.full(1, x))
    model = learner()._replace(archive=archive, behaviours=jnp.asarray([[0.0], [1.0], [4.0]]))
    keys = jax.random.split(jax.random.key(0), 4000)
    pick = quick(jax.vmap(lambda key, model: choose(key, model, 2).chosen, in_axes=(0, None)))
    share = np.bincount(pick(keys, model), minlength=3) / 4000
    np.testing.assert_allclose(share, [0.2, 0.2, 0.6], atol=0.03)
    share = np.bincount(pick(keys, learner()), minlength=3) / 4000  # nothing is novel
    np.testing.assert_allclose(share, 1 / 3, atol=0.03)


SMALL = {**PLAIN, "meta_population": 2, "archive_size": 4, "neighbours": 2}


@pytest.mark.thorough
def test_weights_of_the_novelty_family():
    """One round of each by hand: ranks of the return and of the novelty, mixed."""
    factories = (ns_es, nsr_es, functools.partial(nsra_es, reward_weight=0.2))
    first, last, metrics = run(*[f(SMOOTH, **SMALL) for f in factories], rounds=1)
    for f, w in enumerate((0.0, 0.5, 0.2)):
        archive = np.asarray(first.server.archive.entries[f, :2])
        own = slice(f * AGENTS, (f + 1) * AGENTS)
        agents, chosen = last.agents, int(last.server.chosen[f])
        distance = np.linalg.norm(np.asarray(agents.behaviour)[own, None] - archive, axis=2).mean(1)
        ranks = [stats.rankdata(x) - 1 for x in (agents.experience.value[own], distance)]
        shares = [r / (AGENTS - 1) - 0.5 for r in ranks]
        values = w * shares[0] + (1 - w) * shares[1]
        gradient = (values[:, None] * np.asarray(agents.noise)[own]).mean(0) / PLAIN["sigma"]
        change = moved(first, last)[f]
        np.testing.assert_allclose(change[chosen], 0.05 * gradient, rtol=1e-3, atol=1e-5)
        np.testing.assert_array_equal(change[1 - chosen], 0.0)
        np.testing.assert_allclose(metrics["novelty"][f], distance.mean(), rtol=1e-4)
    np.testing.assert_array_equal(metrics["size"], 4 * (1 + 2))
    np.testing.assert_array_equal(last.server.archive.count, 3)
    # The learner's own episodes: two at the start, one a round.
    np.testing.assert_array_equal(spent(first, "env_steps"), 2)
    np.testing.assert_array_equal(spent(last, "env_steps"), 2 + AGENTS + 1)
    np.testing.assert_array_equal(spent(last, "floats_down"), 2 * AGENTS)


@pytest.mark.thorough
def test_nsra_with_the_return_alone_climbs():
    words = {**SMALL, "weight_step": 0.0, "optimizer": "sgd"}
    first, _, metrics = run(*[nsra_es(SMOOTH, **words)] * 5, rounds=300, seeds=[*range(5)])
    np.testing.assert_array_equal(metrics["reward_weight"], 1.0)
    assert metrics["reward"].mean() > first.server.value.mean() + 0.2


# The whole family ---------------------------------------------------------------------------------

# Those that share a program side by side.
FAMILY = {"es": (es,), "espc": (espc,), "novelty": (ns_es, nsr_es, nsra_es)}


@pytest.mark.thorough
def test_seeds_decide_everything_and_resets_are_common():
    """The reward says nothing but where an episode began; for some agents it is not finite."""
    seen = {}
    for name, factories in FAMILY.items():
        each = [f(RESETS, **(SMALL if name == "novelty" else PLAIN)) for f in factories]
        (_, last, metrics), (_, again, _) = (run(*each) for _ in range(2))
        same(last, again)
        seen[name] = np.asarray(metrics["reward_of_agent"]).reshape(-1, AGENTS)
        # What is not finite is counted, and goes no further.
        broken = np.asarray(last.agents.experience.broken).reshape(-1, AGENTS)
        assert np.all((broken.sum(1) > 0) & (broken.sum(1) < 3 * AGENTS))
        np.testing.assert_array_equal(metrics["non_finite"], broken.sum(1))
        model = last.server if name == "novelty" else last.server.parameters
        if name == "novelty":  # there may be no best return yet
            model = model._replace(best=jnp.zeros(1))
        for leaf in jax.tree.leaves((last.agents, model, last.server_state, metrics)):
            assert np.isfinite(leaf).all()
    _, _, metrics = run(es(RESETS, **PLAIN), seeds=[1])
    assert np.any(np.asarray(metrics["reward_of_agent"]) != seen["es"][0])
    for values in seen.values():
        for own in values:
            np.testing.assert_array_equal(own, seen["es"][0])


VALUES = {
    "event-triggered": {"threshold": 0.2},
    "probabilistic": {"target": 2},
    "top-k": {"k": 1},
}


SIZES = {"top-k": 8, "scaled-sign": 5}


def check_messages(uplink, numbers, sent, size):
    assert np.isin(sent, (0, 1)).all()
    np.testing.assert_array_equal(size, sent * SIZES.get(uplink, 4 * numbers))
    if uplink in ("full", "lazy", *SIZES):  # the lazy ones have no earlier message
        assert sent.all()


def exchanges(one, times):
    """So many exchanges in a row without any episode, what was to be said made up.

    Returns:
      The states after each, the first one before any.
    """
    config, novel = one.config, isinstance(one.config, NoveltySearch)
    population = fed.Population(((1, 4),))
    params = bind([one.parameters(config, 4)])
    keys = streams.agent_keys(np.zeros(4, int), population.member_of)
    rng = np.random.default_rng(0)

    def agents():
        value = jnp.asarray(rng.standard_normal(4), jnp.float32)
        behaviour, noise = jnp.asarray(rng.standard_normal((2, 4, 2)), jnp.float32)
        zeros = jnp.zeros(4, jnp.int32)
        experience = episodic.Experience(value, value, zeros, zeros, zeros == 0)
        if novel:
            return NoveltyAgent(experience, noise, behaviour, jnp.ones(4, bool).at[0].set(False))
        return Agent(experience, noise, jnp.zeros((4, 6)), zeros + 1)

    if novel:
        server = learner(many=2, size=4, weight=0.5)
        server = server._replace(behaviours=jnp.zeros((2, 2)), archive=search.empty(4, 2))
        link = exchange_of(config)
    else:
        server = Centre(jnp.zeros(2), jnp.full((), jnp.nan))
        link = reusing(config) if one.name == "iw-es" else exchange_of_es(config)
    link = link._replace(uplink=config.transmits(4), wire=config.wire)
    server = jax.tree.map(lambda x: x[None], server)
    trip = quick(functools.partial(fed.exchange, population, link))
    start = quick(functools.partial(first_state, population, link, detailed=True))
    state = start(params, keys, agents(), server)
    states = [state]
    for t in range(times):
        state = dataclasses.replace(states[-1], agents=agents(), time=jnp.uint32(t))
        states.append(trip(params, state))
    return states, link


@pytest.mark.parametrize("factory", [es, nsr_es])
@pytest.mark.parametrize("uplink", UPLINKS)
@pytest.mark.thorough
def test_every_uplink_fits(uplink, factory):
    novel = factory is nsr_es
    words, numbers = (SMALL, 3) if novel else (PLAIN, 1)
    one = factory(SMOOTH, **words, uplink=make(uplink, **VALUES.get(uplink, {})))
    states, link = exchanges(one, 2)
    last = states[-1].server.parameters
    assert np.isfinite(last).all()
    assert np.any(last != 0)
    for state in states[1:]:
        sent, size = state.sent.messages, state.sent.bytes(link.wire)
        np.testing.assert_array_equal(size, sent * SIZES.get(uplink, 4 * numbers))
        if novel and uplink not in ("full", "partial"):
            assert not sent[0]  # it has nothing to say; these two do not ask
    if uplink in ("full", "lazy", *SIZES):  # the lazy ones have no earlier message
        assert states[1].sent.messages[1:].all()


SIZES = {"top-k": 8, "scaled-sign": 5}


def test_lazy_agents_go_on_talking():
    """Whoever asks for no change at all always talks, evaluated model or not."""
    states, _ = exchanges(es(SMOOTH, **PLAIN, uplink=make("lazy", weight=0.0, variance=0.0)), 3)
    assert all(state.sent.messages.all() for state in states[1:])


def test_parameters_may_all_be_zero_at_first():
    network = network_of(es(SMOOTH, network={"hidden": (3,), "initializer": "zeros"}).config)
    np.testing.assert_array_equal(network.init(jax.random.key(0), "zeros"), np.zeros(10))


@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1"])
def test_double_precision_on_environments_of_gymnax(name):
    """Rewards, ends of actions and behaviours that are narrower than the policy."""
    with jax.enable_x64(True):
        one = nsra_es(frl.envs.gymnax_task(name, max_steps=3), **SMALL)
        run = jax.eval_shape(lambda: frl.simulate(one, num_agents=2, num_steps=1).metrics)
        assert run["reward"].dtype == run["novelty"].dtype == jnp.float64


@pytest.mark.thorough
def test_members_on_several_devices():
    one = nsra_es(SMOOTH, **SMALL)
    _, _, metrics = run(one, rounds=2)
    double = frl.sweep(one, devices=2, num_steps=2, num_agents=AGENTS, record_every=2)
    for metric in set(double.data_vars) & set(metrics):
        np.testing.assert_allclose(double[metric][-1], metrics[metric][0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("factory", "values", "text"),
    [
        (iw_es, {"reuse": -1}, "reuse is -1; allowed: a whole number of at least 0"),
        (iw_es, {"min_ess": 2}, "min_ess is 2"),
        (iw_es, {"shaping": "ranks"}, "did you mean rank"),
        (ns_es, {"meta_population": 0}, "meta_population is 0"),
        (ns_es, {"neighbours": 1.5}, "neighbours is 1.5"),
        (ns_es, {"archive_size": 3}, "archive_size is 3 with meta_population 5"),
        (ns_es, {"shaping": "rank"}, "no property of ns-es"),
        (nsr_es, {"patience": 3}, "no property of nsr-es"),
        (nsra_es, {"patience": 0}, "patience is 0"),
        (nsra_es, {"weight_step": -0.1}, "weight_step is -0.1"),
        (nsra_es, {"reward_weight": 1.1}, "reward_weight is 1.1"),
        (es, {"sigma": 0}, "sigma is 0"),
        (es, {"l2_mode": "both"}, "l2_mode"),
        (espc, {"uplink": make("full")}, "uplink"),
    ],
)
def test_bad_values_are_refused(factory, values, text):
    with pytest.raises(ValueError, match=text):
        factory(SMOOTH, **values)


def test_what_does_not_fit_the_federation_is_refused():
    odd = nsr_es(SMOOTH, antithetic=True)
    with pytest.raises(ValueError, match="num_agents is 3"):
        odd.parameters(odd.config, 3)
    long = nsr_es(SMOOTH, uplink=make("top-k", k=4))
    with pytest.raises(ValueError, match="messages of 3 numbers"):
        long.parameters(long.config, 4)
    with pytest.raises(ValueError, match="task is a TabularMDP"):
        ns_es(frl.envs.paper_mdp())
