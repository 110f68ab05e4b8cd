"""Federated Q-learning against a plain loop over the same random words, and against the theory."""

import dataclasses
import importlib
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

import fedjax_rl as frl
from fedjax_rl import federation as fed
from fedjax_rl import streams
from fedjax_rl.federation.algorithm import bind
from fedjax_rl.learners import tables

# The function of the same name hides the module from `import ... as`.
module = importlib.import_module("fedjax_rl.algorithms.fedq_environment")

SEED, AGENTS, PERIOD, ROUNDS = 5, 3, 7, 36
STEPS = PERIOD * ROUNDS


@pytest.fixture(scope="module")
def paper():
    return frl.envs.paper_mdp()


def simulated(algorithm, num_agents=AGENTS, num_steps=STEPS, seed=SEED):
    """Tables [N, S, U] in the units of rewards, and the last metrics."""
    config = algorithm.config

    @jax.jit
    def run():
        return frl.simulate(
            algorithm, num_agents=num_agents, num_steps=num_steps, seed=seed, record_every=num_steps
        )

    metrics, state = run()
    table = state.agents.table
    table = np.stack(table, -1) if isinstance(table, tuple) else np.asarray(table)
    offset = module.prepared(config.mdp, config.discount)["offset"]
    shape = (num_agents, config.mdp.num_states, config.mdp.num_actions)
    return table.reshape(shape) + offset, {n: np.asarray(x)[-1] for n, x in metrics.items()}


def words_of(generator, agent, count):
    key = streams.agent_keys([SEED], [agent])[0]
    if generator == "threefry":
        return np.asarray(jax.random.bits(key, (count,), jnp.uint32)).astype(object)
    data = jax.random.key_data(key)
    counters = jnp.arange(count, dtype=jnp.uint32)
    return np.asarray(
        jax.vmap(lambda c: streams.GENERATORS[generator]((data[0], data[1]), c))(counters)
    ).astype(object)


def reference(algorithm, num_agents=AGENTS, num_steps=STEPS):
    """The same as `simulated` in float64 NumPy, an agent and a step at a time, nothing centred."""
    c = algorithm.config
    mdps = c.mdp
    each = (
        [jax.tree.map(lambda leaf, i=i: leaf[i], mdps) for i in range(num_agents)]
        if mdps.transition.ndim > 3
        else [mdps] * num_agents
    )
    num_states, num_actions = mdps.num_states, mdps.num_actions
    uniform = np.all(np.asarray(c.epsilon) == 1) or c.sampling != "markovian"
    behaviour = "uniform" if uniform else c.behaviour
    per_agent = {
        n: np.broadcast_to(np.asarray(getattr(c, n), float), (num_agents,))
        for n in ("epsilon", "beta", "reward_noise", "visit_exponent")
        if getattr(c, n) is not None
    }
    noisy = c.reward_noise is not None
    width = (1 if behaviour == "uniform" else 2) + noisy + (c.sampling == "iid")
    if c.sampling == "generative":
        width = num_states * num_actions * (1 + noisy)
    words = [words_of(c.generator, i, width * num_steps) for i in range(num_agents)]
    q = np.broadcast_to(c.initial_q, (num_agents, num_states, num_actions)).astype(float)
    model, speed = q[0].copy(), 0.0
    visits, log_weight = np.zeros(q.shape), np.zeros(q.shape)
    state = [int(mdp.initial_state) for mdp in each]
    uplink = jax.vmap(lambda key: jax.random.fold_in(key, 1))(
        streams.agent_keys([SEED] * num_agents, np.arange(num_agents))
    )

    def drawn(probabilities, word):
        """The outcome at this word, of 31 bits."""
        bounds = np.round(np.cumsum(probabilities)[:-1] * 2**31)
        return int(np.sum((word >> 1) >= bounds))

    def action_of(t, i, s, row, own):
        """The action, and the word for what comes of it."""
        level = (own[0] >> 8) / 2**24
        if behaviour == "uniform":
            return own[0] * num_actions >> 32, own[0] * num_actions % 2**32
        epsilon, beta = per_agent["epsilon"][i], per_agent["beta"][i]
        if behaviour == "softmax":
            p = np.exp(beta * row) / np.exp(beta * row).sum()
            p = epsilon / num_actions + (1 - epsilon) * p
            a = int(np.sum(level >= np.cumsum(p)[:-1]))
        elif behaviour == "greedy":
            explore = level < epsilon
            a = int(level * num_actions / epsilon) if explore else int(np.argmax(row))
        else:
            policy = np.broadcast_to(c.policy, (num_agents, num_states, num_actions))
            a = drawn(policy[i, s], own[0])
        return a, own[1]

    def learn(t, i, s, a, word, last, before):
        """The update of one pair, with targets from the table before; the next state."""
        mdp = each[i]
        following = drawn(mdp.transition[s, a], word)
        reward = np.broadcast_to(mdp.reward, mdp.transition.shape)[s, a, following]
        if noisy:
            reward = reward + per_agent["reward_noise"][i] * stats.norm.ppf(
                ((last >> 8) + 0.5) / 2**24
            )
        visits[i, s, a] += 1
        rate = c.learning_rate
        rate = float(rate(t)) if callable(rate) else np.broadcast_to(rate, num_agents)[i]
        if c.visit_exponent is not None:
            rate = rate / visits[i, s, a] ** per_agent["visit_exponent"][i]
        discount = mdp.discount if c.discount is None else c.discount
        q[i, s, a] += rate * (reward + discount * before[following].max() - q[i, s, a])
        log_weight[i, s, a] -= np.log1p(-rate)
        return following

    for t in range(num_steps):
        for i in range(num_agents):
            own, s = words[i][t * width : (t + 1) * width], state[i]
            if c.sampling == "generative":
                before, apart = q[i].copy(), own.reshape(num_states, num_actions, -1)
                for s, a in np.ndindex(num_states, num_actions):
                    learn(t, i, s, a, apart[s, a, 0], apart[s, a, -1], before)
                continue
            if c.sampling == "iid":
                s, own = own[0] * num_states >> 32, own[1:]
            a, word = action_of(t, i, s, q[i, s], own)
            state[i] = learn(t, i, s, a, word, own[-1], q[i])
        if (t + 1) % int(c.sync_period) or num_agents == 1:
            continue
        sent = np.ones(num_agents, bool)
        if c.participation is not None:
            keys = jax.vmap(lambda key, t=t: jax.random.fold_in(key, t + 1))(uplink)
            draw = jax.vmap(lambda key: jax.random.bernoulli(key, c.participation))
            sent = np.asarray(draw(keys))
        if not sent.any():
            continue
        weight = np.ones(q.shape)
        if c.aggregation in ("fixed", "learned"):
            given = np.asarray(c.weights, float)
            given = np.exp(given) if c.aggregation == "learned" else given
            weight = np.broadcast_to(given[:, None, None], q.shape)
        elif c.aggregation == "importance":
            weight = np.exp(log_weight)
        weight = weight * sent[:, None, None]
        total = (weight * q).sum(0) / weight.sum(0)
        if c.server_optimizer is None:
            model = total
        else:  # sgd(0.7, momentum=0.5)
            speed = 0.5 * speed + (model - total)
            model = model - 0.7 * speed
        share = 1.0 if c.mixing is None else c.mixing
        q[sent] = q[sent] + share * (model - q[sent])
        log_weight[sent] = 0
    return q


def skewed(count):
    """A policy per agent, no row of it uniform."""
    rng = np.random.default_rng(0)
    policy = rng.dirichlet(np.ones(3), (count, 4))
    policy[0, 0] = [0.0, 1.0, 0.0]
    return policy


CASES = {
    "uniform": {"epsilon": 1.0},
    "uniform, mixing": {"behaviour": "uniform", "mixing": 0.4, "generator": "hash"},
    "softmax, fixed weights": {
        "epsilon": 0.3,
        "beta": [0.5, 2.0, 4.0],
        "weights": [0.2, 0.5, 0.3],
        "aggregation": "fixed",
    },
    "greedy, learned weights": {
        "behaviour": "greedy",
        "epsilon": [0.3, 0.8, 0.05],
        "aggregation": "learned",
        "weights": [0.0, 1.0, -1.0],
        "learning_rate": [0.1, 0.3, 0.05],
    },
    "policy, importance, participation": {
        "behaviour": "policy",
        "policy": skewed(AGENTS),
        "aggregation": "importance",
        "participation": 0.6,
    },
    "visit counts, noise": {
        "epsilon": 1.0,
        "visit_exponent": 0.6,
        "learning_rate": 0.9,
        "reward_noise": [0.1, 1.0, 3.0],
    },
    "schedule, family": {
        "epsilon": 1.0,
        "learning_rate": frl.schedule(optax.exponential_decay(0.5, 50, 0.7)),
        "mdp": "family",
    },
    "iid, noise, importance": {
        "sampling": "iid",
        "mdp": "family",
        "reward_noise": 0.5,
        "aggregation": "importance",
    },
    "generative, noise, importance": {
        "sampling": "generative",
        "mdp": "family",
        "visit_exponent": 0.4,
        "learning_rate": [0.9, 0.5, 0.3],
        "reward_noise": [0.1, 0.4, 0.2],
        "aggregation": "importance",
        "participation": 0.7,
        "reference": np.linspace(0, 1, 12).reshape(4, 3),
    },
    "everything": {
        "mdp": "family",
        "beta": 3.0,
        "discount": 0.8,
        "initial_q": np.linspace(-1, 2, 12).reshape(4, 3),
        "reward_noise": 0.2,
        "aggregation": "importance",
        "participation": 0.7,
        "mixing": 0.8,
        "visit_exponent": 0.5,
        "server_optimizer": optax.sgd(0.7, momentum=0.5),
    },
}
ALSO_ARRAYS = (
    "softmax, fixed weights",
    "policy, importance, participation",
    "generative, noise, importance",
    "everything",
)


def case(name, paper):
    properties = {"learning_rate": 0.2, "sync_period": PERIOD, **CASES[name]}
    mdp = properties.pop("mdp", None)
    mdp = paper if mdp is None else frl.envs.perturbed_mdps(paper, 4, kernel=0.4, reward=0.5)
    return frl.fedq(mdp, **properties)


@pytest.mark.parametrize("name", CASES)
def test_a_plain_loop_over_the_same_words(paper, name, monkeypatch):
    algorithm = case(name, paper)
    got, metrics = simulated(algorithm)
    expected = reference(algorithm)
    np.testing.assert_allclose(got, expected, rtol=0, atol=2e-5)
    assert np.abs(expected - np.broadcast_to(algorithm.config.initial_q, (4, 3))).max() > 0.3

    family = algorithm.config.mdp.transition.ndim > 3
    optimal = frl.envs.optimal_q(
        frl.envs.average_mdp(algorithm.config.mdp) if family else algorithm.config.mdp
    )
    given = algorithm.config.reference
    gap = expected - (optimal if given is None else given)
    np.testing.assert_allclose(metrics["error_local"], (gap**2).sum((1, 2)), rtol=1e-4)
    np.testing.assert_allclose(metrics["error_local_mean"], (gap**2).sum((1, 2)).mean(), rtol=1e-4)
    np.testing.assert_allclose(
        metrics["sup_error_local_mean"], np.abs(gap).max((1, 2)).mean(), rtol=1e-4
    )
    if algorithm.config.aggregation == "mean":
        np.testing.assert_allclose(metrics["error_server"], (gap.mean(0) ** 2).sum(), rtol=1e-4)
        np.testing.assert_allclose(
            metrics["sup_error_server"], np.abs(gap.mean(0)).max(), rtol=1e-4
        )

    if name in ALSO_ARRAYS:
        # Tables that are arrays, as those of larger MDPs are, hold the same numbers.
        monkeypatch.setattr(tables, "LARGEST_UNROLLED", 0)
        module._remembered.cache_clear()
        arrays, _ = simulated(algorithm)
        module._remembered.cache_clear()
        np.testing.assert_allclose(arrays, got, rtol=0, atol=1e-6)


def test_a_larger_mdp():
    """25 entries and more lie in arrays."""
    options = {"num_states": 7, "num_actions": 4, "reward": "normal_action_next_state"}
    mdp = frl.envs.random_mdp(seed=2, **options)
    algorithm = frl.fedq(mdp, learning_rate=0.2, sync_period=PERIOD, epsilon=0.5)
    np.testing.assert_allclose(simulated(algorithm)[0], reference(algorithm), rtol=0, atol=2e-5)


def test_a_bandit_has_one_state():
    mdp = frl.envs.tabular_mdp(np.ones((1, 2, 1)), np.asarray([[1.0], [2.0]]), 0.0)
    algorithm = frl.fedq(mdp, learning_rate=0.5, sync_period=PERIOD, epsilon=1.0)
    got, _ = simulated(algorithm)
    np.testing.assert_allclose(got, reference(algorithm), rtol=0, atol=1e-6)
    np.testing.assert_allclose(got[0], [[1.0, 2.0]], atol=1e-3)


def test_importance_weights_by_hand():
    """Agent 0 tries only action 0, agent 1 only action 1: 3 visits weigh (1 - 1/2)^-3 = 8.

    q(0) of agent 0 is 7/8 of the reward 1 after three halvings, that of agent 1 is 0; the server
    has (8 * 7/8 + 1 * 0) / 9 = 7/9 for action 0, and 14/9 for action 1 of reward 2.
    """
    mdp = frl.envs.tabular_mdp(np.ones((1, 2, 1)), np.asarray([[1.0], [2.0]]), 0.0)
    algorithm = frl.fedq(
        mdp,
        learning_rate=0.5,
        sync_period=3,
        behaviour="policy",
        policy=np.asarray([[[1.0, 0.0]], [[0.0, 1.0]]]),
        aggregation="importance",
    )
    got, _ = simulated(algorithm, num_agents=2, num_steps=3)
    np.testing.assert_allclose(got, [[[7 / 9, 14 / 9]]] * 2, rtol=1e-6)


def test_importance_weights_with_equal_visits_are_plain_averaging():
    """A cycle that nobody can leave: all agents visit alike, noise makes their tables differ."""
    cycle = np.roll(np.eye(3), 1, axis=1)[:, None, :].repeat(2, 1)
    mdp = frl.envs.tabular_mdp(cycle, np.asarray([1.0, -1.0, 0.5]), 0.5)
    common = {
        "learning_rate": 0.3,
        "sync_period": 5,
        "behaviour": "policy",
        "policy": np.tile([1.0, 0.0], (3, 1)),
        "reward_noise": 1.0,
    }
    runs = [
        simulated(frl.fedq(mdp, aggregation=name, **common), num_steps=50)[0]
        for name in ("mean", "importance")
    ]
    np.testing.assert_allclose(*runs, rtol=0, atol=1e-5)


# One result, however it is computed


@pytest.mark.thorough
def test_a_federation_is_the_same_however_it_is_run(paper):
    """Static rounds; a traced period; a period per federation; among others."""
    algorithm = frl.fedq(paper, learning_rate=0.2, beta=2.0, participation=0.5)
    own = frl.Cell(4, 3, {"sync_period": 7})
    options = {"num_steps": 84, "record_every": 21, "metrics": tuple(algorithm.metrics)}
    others = [
        frl.Cell(4, 4, {"sync_period": 3}),
        frl.Cell(2, 3, {"sync_period": 7}),
        frl.Cell(1, 3, {"sync_period": 1}),
    ]
    alone = frl.run_cells(algorithm, [own], **options).isel(cell=0)
    among = frl.run_cells(algorithm, [*others, own], **options).isel(cell=3)
    neighbours = frl.run_cells(
        algorithm, [own, frl.Cell(4, 9, {"sync_period": 7, "learning_rate": 0.9})], **options
    ).isel(cell=0)
    static = jax.jit(
        lambda seed: (
            frl.simulate(
                algorithm.replace(sync_period=7),
                num_agents=4,
                num_steps=84,
                seed=seed,
                record_every=21,
            ).metrics
        )
    )(3)
    for name in algorithm.metrics:
        reference = alone[name].values
        # Sizes differ, and with them how XLA contracts products and sums: not bit for bit.
        tolerance = {"rtol": 2e-5, "atol": 1e-7}
        np.testing.assert_allclose(neighbours[name].values, reference, **tolerance)
        np.testing.assert_allclose(among[name].values, reference, **tolerance)
        np.testing.assert_allclose(np.asarray(static[name]).T, reference, **tolerance)


def test_one_exchange_at_the_end_averages_independent_runs(paper):
    algorithm = frl.fedq(paper, learning_rate=0.3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = frl.sweep(
            algorithm,
            num_agents=5,
            sync_period=[300, 301],
            num_steps=300,
            record_every=300,
            metrics=["error_server", "error_local"],
        )
    synchronised, apart = (result.isel(sync_period=k, time=0) for k in (0, 1))
    server = apart["error_server"].values
    np.testing.assert_allclose(synchronised["error_local"], np.full(5, server), rtol=1e-5)
    assert apart["error_local"].values.mean() > 2 * server


def test_identical_agents_are_one_agent(paper):
    algorithm = frl.fedq(paper, learning_rate=0.3)
    functions = algorithm.functions(algorithm.config)

    @jax.jit
    def final(params, keys):
        population = fed.population(len(keys))
        state = functions.init(population, params, keys)
        return functions.advance(population, params, state, jnp.uint32(110)).agents.table

    found = []
    for n in (1, 4):
        params = bind([algorithm.parameters(algorithm.config, n)])
        params.shared["sync_period"] = jnp.uint32(3)
        keys = streams.agent_keys(np.full(n, 2), np.zeros(n, int))
        found.append(np.stack(final(params, keys)))
    np.testing.assert_allclose(found[1], np.tile(found[0], 4), rtol=1e-6)


@pytest.mark.thorough
def test_all_the_weight_on_one_agent_is_that_agent_alone(paper):
    common = {"learning_rate": 0.3, "epsilon": 0.5, "mdp": paper}
    options = {"num_agents": 3, "num_steps": 200, "record_every": 10, "metrics": ["error_local"]}
    only = frl.fedq(**common, aggregation="fixed", weights=[0.0, 0.0, 1.0], sync_period=10)
    with pytest.warns(UserWarning, match="never synchronise"):
        alone = frl.sweep(frl.fedq(**common, sync_period=1000), **options)["error_local"]
    federated = frl.sweep(only, **options)["error_local"]
    np.testing.assert_allclose(federated[0], alone[2], rtol=1e-5)
    np.testing.assert_allclose(federated[2], alone[2], rtol=1e-5)
    assert not np.allclose(alone[0], alone[2], rtol=0.1)


def test_costs_of_a_run(paper):
    result = frl.sweep(
        frl.fedq(paper, epsilon=1.0),
        num_agents=[1, 3, 8],
        sync_period=[1, 7, 50],
        num_steps=100,
        record_every=30,  # not a multiple of anything: 90 steps are made
    )
    agents, periods = np.meshgrid([1, 3, 8], [1, 7, 50], indexing="ij")
    exchanges = np.where(agents > 1, 90 // periods, 0)
    np.testing.assert_array_equal(result["communications"], exchanges)
    for way in ("up", "down"):
        np.testing.assert_array_equal(result[f"messages_{way}"], agents * exchanges)
        np.testing.assert_array_equal(result[f"floats_{way}"], 12 * agents * exchanges)
        np.testing.assert_array_equal(result[f"bytes_{way}"], 48 * agents * exchanges)
    np.testing.assert_array_equal(result["env_steps"], agents * 90)


# float32


@pytest.mark.parametrize("discount", [0.9, 0.99, 0.999])
@pytest.mark.thorough
def test_errors_under_a_trace_are_those_of_a_run(discount):
    """q* under a trace is q*, however long the horizon: one step from it, its error is small."""
    kernel = np.array([[[0.9, 0.1], [0.2, 0.8]], [[0.5, 0.5], [0.05, 0.95]]])
    mdp = frl.envs.tabular_mdp(kernel, [0.0, 1.0], discount)
    q = jnp.asarray(frl.envs.optimal_q(mdp), jnp.float32)

    def error(scale):
        scaled = mdp.replace(reward=jnp.asarray(mdp.reward, jnp.float32) * scale)
        algorithm = frl.fedq(scaled, behaviour="uniform", initial_q=q)
        return frl.simulate(algorithm, num_agents=1, num_steps=1).metrics["error_server"][-1]

    plain = frl.fedq(mdp, behaviour="uniform", initial_q=q)
    expected = frl.simulate(plain, num_agents=1, num_steps=1).metrics["error_server"][-1]
    assert jax.jit(error)(1.0) == pytest.approx(float(expected), rel=1e-2)
    # By how much q* moves with the rewards: q* itself, in units of the step that was made.
    assert abs(float(jax.grad(error)(1.0))) < 2 * np.sqrt(float(expected)) * np.linalg.norm(q)


def test_small_steps_are_not_lost_in_float32(paper):
    """At discount .99 values are large and q* is flat; only centred tables keep small updates."""
    mdp = frl.envs.tabular_mdp(paper.transition, paper.reward + 1.0, 0.99)
    middle = frl.envs.optimal_q(mdp).mean()
    steps, rate = 20_000, 1e-5
    algorithm = frl.fedq(mdp, epsilon=1.0, learning_rate=rate, initial_q=middle, sync_period=steps)
    single, _ = simulated(algorithm, num_agents=1, num_steps=steps)
    with jax.enable_x64(True):
        module._remembered.cache_clear()
        double, _ = simulated(algorithm, num_agents=1, num_steps=steps)
    module._remembered.cache_clear()
    moved = np.linalg.norm(double - middle)
    assert np.linalg.norm(single - double) < 1e-3 * moved

    plain = np.full((4, 3), middle, np.float32)
    s, words = 0, words_of("threefry", 0, steps)
    bounds = np.round(np.cumsum(mdp.transition, -1)[..., :-1] * 2**31)
    reward, rate, discount = (np.float32(x) for x in (mdp.reward[0, 0], rate, 0.99))
    for word in words:
        a, rest = word * 3 >> 32, word * 3 % 2**32
        following = int(np.sum((rest >> 1) >= bounds[s, a]))
        target = reward[following] + discount * plain[following].max()
        plain[s, a] += rate * (target - plain[s, a])
        s = following
    assert np.linalg.norm(plain - double[0]) > 0.05 * moved


# Rates of the theory


@pytest.mark.thorough
def test_steady_state_of_the_theory(paper):
    """D^2 N / alpha is 2.9085 to leading order; measured 2.9 to 3.3."""
    result = frl.sweep(
        frl.fedq(paper, epsilon=1.0, generator="hash"),
        num_agents=[1, 4, 16],
        learning_rate=[0.02, 0.05],
        seeds=range(16),
        num_steps=30_000,
        first_record=8000,
        record_every=100,
        metrics=["error_server"],
    )
    steady = result["error_server"].mean(("time", "seed"))
    scaled = (steady * result["num_agents"] / result["learning_rate"]).values
    assert scaled.min() > 2.7
    assert scaled.max() < 3.8


@pytest.mark.thorough
def test_time_to_threshold_is_inverse_in_the_number_of_agents(paper):
    result = frl.sweep(
        frl.fedq(paper, epsilon=1.0, generator="hash"),
        num_agents=[1, 4, 16],
        learning_rate=frl.by_agents(lambda num_agents: 0.002 * num_agents),
        seeds=range(8),
        num_steps=50_000,
        record_every=1,
        chunk=5000,
        metrics=["error_server"],
    )
    below = result["error_server"].values < 0.1
    assert below.any(-1).all()
    times = below.argmax(-1) + 1.0
    scaled = times.mean(-1) * result["learning_rate"].values
    np.testing.assert_allclose(scaled, 76.4, atol=4)
    fit = frl.analysis.loglog(np.repeat([1, 4, 16], 8), times.ravel())
    assert -1.03 < fit.params[1] < -0.965


@pytest.mark.thorough
def test_error_against_period_and_learning_rate(paper):
    """Fig. 5 of the paper, thinned: 7e8 agent-steps, the sharpest cheap test of the simulator."""
    periods, rates = range(20, 1001, 70), (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
    cells = [
        frl.Cell(256, 0, {"sync_period": k, "learning_rate": rate})
        for k in periods
        for rate in rates
    ]
    result = frl.run_cells(
        frl.fedq(paper, epsilon=1.0, generator="hash"),
        cells,
        num_steps=30_300,
        record_every=1010,
        metrics=["error_local_mean"],
    )
    final = result["error_local_mean"].values[:, -10:].mean(-1)
    where = result["sync_period"].values, result["learning_rate"].values, 256
    free = frl.analysis.factored(final, *where).params
    without = frl.analysis.factored(final, *where, nuisance="none").params
    assert 0.23 < free[1] < 0.26
    assert 1.35 < free[2] < 1.38
    assert 0.415 < without[1] < 0.44
    assert 1.475 < without[2] < 1.50


# What is refused


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        ({"learning_rate": 1.5}, r"learning_rate is 1.5; allowed: in \(0, 1\]"),
        ({"behaviour": "sofmax"}, "did you mean softmax"),
        ({"behaviour": "policy"}, "policy is None with behaviour 'policy'; allowed: an array"),
        ({"policy": np.ones((4, 3)) / 3}, r"policy is .* with behaviour 'softmax'; allowed: None"),
        ({"aggregation": "fixed"}, "weights is None with aggregation 'fixed'; allowed: an array"),
        ({"reference": np.ones((4, 2))}, r"reference is an array \[4, 2\] with an MDP of 4"),
        ({"reference": 1.0}, r"reference is 1.0; allowed: an array \[S, U\]"),
        (
            {"behaviour": "policy", "policy": np.ones((4, 3)) / 3, "sampling": "iid"},
            "behaviour is 'policy' with sampling 'iid'",
        ),
        ({"weights": [1.0]}, r"weights is .* with aggregation 'mean'; allowed: None"),
        ({"aggregation": "importance", "learning_rate": 1.0}, r"allowed: \(0, 1\)"),
        ({"aggregation": "importance", "learning_rate": 1 - 1e-9}, r"allowed: \(0, 1\)"),
        (
            {
                "aggregation": "importance",
                "learning_rate": frl.schedule(lambda t: 1 / (t.astype(float) + 1)),
            },
            "learning_rate is 1 somewhere with importance aggregation",
        ),
        ({"aggregation": "fixed", "weights": [-1.0, 2.0]}, "weights is"),
        ({"aggregation": "fixed", "weights": [0.0, 0.0]}, "weights is"),
        ({"learnin_rate": 0.1}, "did you mean learning_rate"),
    ],
)
def test_a_bad_value_is_refused_with_what_is_allowed(paper, properties, message):
    with pytest.raises(ValueError, match=message):
        frl.fedq(paper, **properties)


def test_too_few_entries_for_the_agents_are_refused(paper):
    family = frl.envs.perturbed_mdps(paper, 2, kernel=0.1)
    for algorithm, name in (
        (
            frl.fedq(paper, learning_rate=[0.1, 0.2]),
            r"learning_rate is .* one for each of 3 agents",
        ),
        (frl.fedq(family), "mdp is a family of 2 for num_agents 3"),
    ):
        with pytest.raises(ValueError, match=name):
            frl.simulate(algorithm, num_agents=3, num_steps=1)


def test_agents_of_a_family_may_start_in_states_of_their_own():
    """Before the first exchange each is an agent of an MDP that starts where it does."""
    mdp = frl.envs.random_mdp(seed=0)
    starts = [mdp.replace(initial_state=np.int32(state)) for state in (0, 2, 3)]
    options = {"num_agents": 3, "num_steps": 5, "record_every": 5, "metrics": ["error_local"]}

    def errors(environment):
        algorithm = frl.fedq(environment, epsilon=1.0, sync_period=5, participation=0.0)
        return frl.sweep(algorithm, **options).error_local.isel(time=0).values

    together = errors(frl.envs.stack_mdps(starts))
    alone = [errors(one)[i] for i, one in enumerate(starts)]
    np.testing.assert_allclose(together, alone, rtol=1e-5)
    assert len(np.unique(alone)) == 3


@pytest.mark.parametrize("of_its_own", [False, True])
def test_agents_draw_their_first_states(of_its_own):
    """Who starts where is worked out here; the run is that of agents who start there for sure."""
    start = np.array([[0.1, 0.0, 0.6, 0.3], [0.5, 0.25, 0.0, 0.25], [0.2, 0.3, 0.1, 0.4]])
    start = start if of_its_own else np.broadcast_to(start[0], (3, 4))
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(3), i))(jnp.arange(3))
    words = jax.vmap(lambda key: jax.random.bits(jax.random.fold_in(key, 3)))(keys)
    level = np.asarray(words, np.float64) / 2**32
    states = (np.cumsum(start, axis=1) <= level[:, None]).sum(1)
    assert len(np.unique(states)) > 1

    mdp = frl.envs.random_mdp(seed=0)
    drawing = mdp.replace(initial_distribution=start[0])
    if of_its_own:
        drawing = frl.envs.stack_mdps([mdp.replace(initial_distribution=row) for row in start])
    known = frl.envs.stack_mdps([mdp.replace(initial_state=np.int32(s)) for s in states])
    drawn, sure = (
        frl.sweep(
            frl.fedq(one, epsilon=1.0, sync_period=2),
            num_agents=3,
            seeds=[3],
            num_steps=4,
            metrics=["error_local", "error_server"],
        )
        for one in (drawing, known)
    )
    np.testing.assert_allclose(drawn.error_local, sure.error_local, rtol=1e-5)
    np.testing.assert_allclose(drawn.error_server, sure.error_server, rtol=1e-5)


@pytest.mark.parametrize("sampling", ["markovian", "generative"])
def test_every_number_of_a_step_may_follow_time(sampling):
    """Until and from step 4 on it is a run whose properties are changed by hand there."""
    first = {"learning_rate": 0.3, "epsilon": 0.9, "beta": 2.0, "reward_noise": 0.5}
    then = {"learning_rate": 0.1, "epsilon": 0.1, "beta": 0.5, "reward_noise": 0.1}
    if sampling == "generative":  # nobody behaves in any way
        first, then = ({n: x for n, x in own.items() if n[0] in "lr"} for own in (first, then))

    def follows(name):
        a, b = first[name], then[name]
        return frl.schedule(lambda time: jnp.where(time < 4, a, b))

    fixed = {"sampling": sampling, "sync_period": 2, "visit_exponent": 0.5}
    mdp = frl.envs.paper_mdp()
    scheduled = frl.fedq(mdp, **fixed, **{name: follows(name) for name in first})
    found = frl.simulate(scheduled, num_agents=2, num_steps=8, record_every=2)
    one = frl.fedq(mdp, **fixed, **first)
    state, errors = frl.init(one, num_agents=2), []
    for place in range(4):
        if place == 2:
            agent = {n: jnp.full_like(state.params.agent[n], x) for n, x in then.items()}
            own = {**state.params.agent, **agent}
            params = dataclasses.replace(state.params, agent=own)
            state = dataclasses.replace(state, params=params)
        state, metrics = frl.round(one, state)
        errors.append(metrics["error_server"])
    np.testing.assert_array_equal(found.metrics["error_server"], errors)
