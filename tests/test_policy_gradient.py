"""Policies, trajectories, estimators of the policy gradient, REINFORCE and LAPG."""

import dataclasses
import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import fedjax_rl as frl
from fedjax_rl import algorithms, streams
from fedjax_rl.algorithms import lapg, reinforce
from fedjax_rl.envs import solvers
from fedjax_rl.federation import population, uplinks
from fedjax_rl.federation.algorithm import bind
from fedjax_rl.learners import policy_gradient as learner
from fedjax_rl.networks import MLP
from fedjax_rl.rollouts import episodes

GRID = frl.envs.simple_grid(size=2, max_steps=12)
CART = frl.envs.gymnax_task("CartPole-v1", max_steps=40)
TABLE = learner.SoftmaxTable(4, 5)
# These programs run for milliseconds.
QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
RNG = np.random.default_rng(0)
PREFERENCES = RNG.normal(size=20).astype(np.float32)


def keys_of(count, seed=0):
    keys = streams.agent_keys(jnp.full(count, seed), jnp.arange(count))
    return keys, jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys)


@functools.cache
def sampled(count=2000):
    """`count` agents with 2 episodes each on the small grid, all with `PREFERENCES`."""

    @functools.partial(jax.jit, compiler_options=QUICKLY)
    def make():
        parameters = jnp.broadcast_to(PREFERENCES, (count, 20))
        return episodes.sample_trajectories(GRID, TABLE, keys_of(count), parameters, 2)

    return make()


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def truncated_value(preferences):
    """Discounted return of at most 12 steps from the start, exactly, in float64."""
    policy = softmax(np.asarray(preferences, np.float64).reshape(4, 5))
    mdp = GRID.grid.mdp
    chain = np.einsum("su,sut->st", policy, mdp.transition)
    reward = np.sum(policy * solvers.expected_reward(mdp), axis=-1)
    value = np.zeros(4)
    for _ in range(GRID.max_steps):
        value = reward + GRID.discount * chain @ value
    return value[int(mdp.initial_state)]


def exact_gradient():
    step, eye = 1e-5, np.eye(20)
    ends = [[truncated_value(PREFERENCES + s * step * e) for s in (1, -1)] for e in eye]
    return np.array([(up - down) / (2 * step) for up, down in ends])


# --- roll-outs ------------------------------------------------------------------------------------


def test_episodes_in_turns_are_the_same(monkeypatch):
    """More episodes than stay in the cache are made in several turns, of the same numbers."""

    def make():
        parameters = jnp.broadcast_to(PREFERENCES, (5, 20))
        made = episodes.sample_trajectories(GRID, TABLE, keys_of(5), parameters, 12)
        return made, episodes.evaluate(GRID, TABLE, keys_of(5), parameters, 12)

    ends = []
    for most in (4096, 20):  # in one turn, and in three of four episodes for each agent
        monkeypatch.setitem(episodes.EPISODES_AT_ONCE, "cpu", most)
        ends.append(jax.jit(lambda: make(), compiler_options=QUICKLY)())
    assert ends[0][0].mask.shape == (5, 12, 12)
    jax.tree.map(np.testing.assert_array_equal, *ends)


# --- policies -------------------------------------------------------------------------------------


def test_probabilities_of_actions_sum_to_one():
    network = learner.Categorical(MLP((4, 3, 5)))
    parameters = network.init(jax.random.key(1))
    observation = jnp.asarray([0.3, -1.0, 2.0, 0.1])
    for policy, own, seen in ((TABLE, PREFERENCES, 2), (network, parameters, observation)):
        logs = [policy.log_prob(jnp.asarray(own), seen, jnp.int32(a)) for a in range(5)]
        assert abs(np.exp(logs).sum() - 1) < 1e-6
    assert TABLE.init(jax.random.key(0)).shape == (TABLE.num_parameters,)
    assert parameters.shape == (network.num_parameters,)


def test_actions_are_drawn_as_often_as_likely():
    words = jax.random.bits(jax.random.key(3), (20_000,))
    drawn = jax.vmap(TABLE.sample, in_axes=(None, None, 0))(jnp.asarray(PREFERENCES), 1, words)
    chances = softmax(PREFERENCES.reshape(4, 5))[1]
    error = np.bincount(drawn, minlength=5) / 20_000 - chances
    assert np.all(np.abs(error) < 4 * np.sqrt(chances * (1 - chances) / 20_000))


def test_gaussian_against_scipy():
    policy = learner.Gaussian(MLP((3, 4, 2)), deviation=0.7)
    parameters = policy.init(jax.random.key(0))
    assert parameters.shape == (policy.num_parameters,)
    np.testing.assert_allclose(np.exp(parameters[-2:]), 0.7, rtol=1e-6)
    parameters = parameters.at[-1].set(0.2)
    observation, action = jnp.asarray([0.1, -0.4, 1.0]), jnp.asarray([0.9, -1.7])
    mean = policy.network.apply(parameters[:-2], observation)
    expected = stats.norm.logpdf(action, mean, np.exp(parameters[-2:])).sum()
    found = policy.log_prob(parameters, observation, action)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    words = jax.random.bits(jax.random.key(1), (20_000,))
    drawn = jax.vmap(policy.sample, in_axes=(None, None, 0))(parameters, observation, words)
    scores = (np.asarray(drawn) - np.asarray(mean)) / np.exp(np.asarray(parameters[-2:]))
    for column in scores.T:
        assert stats.kstest(column, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(scores.T)[0, 1]) < 0.03
    np.testing.assert_array_equal(policy.performed(action), np.float32([0.9, -1.0]))


def test_the_closed_form_of_a_table_is_the_derivative():
    one = jax.tree.map(lambda x: x[0], sampled())
    advantages = jnp.asarray(RNG.normal(size=one.mask.shape) * np.asarray(one.mask), jnp.float32)
    parameters = jnp.asarray(PREFERENCES)

    @jax.jit
    def both_ways(parameters):
        def total(parameters):
            logs = advantages * learner.log_likelihood(TABLE, parameters, one)
            return jnp.mean(jnp.sum(logs, axis=1))

        by_steps = jax.vmap(
            lambda *steps: learner.Policy.score(TABLE, parameters, *(x[None] for x in steps))
        )
        return (
            learner.per_episode(TABLE, parameters, one, advantages),
            by_steps(one.observation, one.action, advantages),
            learner.gradient(TABLE, parameters, one, advantages),
            jax.grad(total)(parameters),
        )

    closed, derived, whole, slope = map(np.asarray, both_ways(parameters))
    np.testing.assert_allclose(closed, derived, atol=2e-6)
    np.testing.assert_allclose(whole, slope, atol=2e-6)
    np.testing.assert_allclose(whole, closed.mean(0), atol=2e-6)


# --- trajectories ---------------------------------------------------------------------------------


def test_trajectories_are_those_of_the_grid():
    made = jax.tree.map(np.asarray, sampled())
    steps = made.mask.sum(-1)
    assert steps.min() >= 2
    assert steps.max() == GRID.max_steps
    assert np.all(np.diff(made.mask.astype(int), axis=-1) <= 0)
    np.testing.assert_array_equal(made.observation[..., 0], 0)
    following = GRID.grid.next_state[made.observation, made.action, 0]
    both = made.mask[..., 1:]
    np.testing.assert_array_equal(made.observation[..., 1:][both], following[..., :-1][both])
    arrived = following == 3
    expected = np.where(arrived, 0.0, -1.0) * made.mask
    np.testing.assert_array_equal(made.reward, expected)
    ended = np.take_along_axis(arrived, steps[..., None] - 1, -1)[..., 0]
    np.testing.assert_array_equal(ended | (steps == GRID.max_steps), True)


def test_padding_is_cut_off_and_nothing_else():
    start = jnp.zeros((3, 2, 100), jnp.int32)
    lengths = jnp.asarray([[10, 1], [1, 37], [20, 20]])[..., None]
    mask = jnp.arange(100)[None, None] < lengths
    made = learner.Trajectories(start, start, jnp.zeros((3, 2, 100)), mask)
    for end, width in ((int(made.steps.max()), 50), (50, 50), (51, 100), (100, 100)):
        mask = made.mask.at[1, 0].set(jnp.arange(100) < end)
        seen = []

        def count(own, seen=seen):
            seen.append(own.mask.shape[2])
            return jnp.sum(own.mask, axis=(1, 2)), jnp.float32(own.mask.shape[2])

        found, used = learner.without_padding(count, made._replace(mask=mask))
        np.testing.assert_array_equal(found, mask.sum((1, 2)))
        assert float(used) == width
        assert sorted(seen) == [50, 100]


# --- estimators -----------------------------------------------------------------------------------


def by_hand(one, discount, estimator, baseline, weighted):
    """Weights of the scores, by loops."""
    count, length = one.reward.shape
    returns = np.zeros((count, length + 1))
    for t in reversed(range(length)):
        returns[:, t] = one.reward[:, t] + discount * returns[:, t + 1]
    returns = returns[:, :-1]
    if estimator == "reinforce":
        returns = np.repeat(returns[:, :1], length, 1)
    out = np.zeros((count, length))
    for n, t in np.argwhere(one.mask):
        same = {
            "none": np.zeros_like(one.mask),
            "state_mean": one.mask & (one.observation == one.observation[n, t]),
            "batch_mean": one.mask & (np.arange(length) == t),
        }[baseline]
        out[n, t] = returns[n, t] - (returns[same].mean() if same.any() else 0)
        out[n, t] *= discount**t if weighted and estimator == "gpomdp" else 1
    return out


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("baseline", [b for b in learner.BASELINES if b != "linear"])
@pytest.mark.parametrize("estimator", learner.ESTIMATORS)
def test_credits_by_hand(estimator, baseline, weighted):
    one = jax.tree.map(lambda x: x[5], sampled())
    options = {"estimator": estimator, "baseline": baseline, "discount_weight": weighted}
    found = learner.advantages(one, 0.9, num_states=4, **options)
    expected = by_hand(jax.tree.map(np.asarray, one), 0.9, estimator, baseline, weighted)
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize("estimator", learner.ESTIMATORS)
def test_estimates_have_the_exact_gradient_as_their_mean(estimator):
    @jax.jit
    @jax.vmap
    def estimate(one):
        advantages = learner.advantages(one, GRID.discount, estimator=estimator)
        return learner.gradient(TABLE, jnp.asarray(PREFERENCES), one, advantages)

    made = np.asarray(estimate(sampled()), np.float64)
    error = made.mean(0) - exact_gradient()
    deviation = made.std(0, ddof=1) / np.sqrt(len(made))
    assert np.all(np.abs(error) <= 4 * deviation + 1e-12)
    assert np.linalg.norm(exact_gradient()) > 20 * np.linalg.norm(deviation) / np.sqrt(20)


def test_the_exact_value_is_that_of_the_solver():
    mdp = GRID.grid.mdp
    value = solvers.policy_value(mdp, softmax(PREFERENCES.reshape(4, 5).astype(np.float64)))
    gap = GRID.discount**GRID.max_steps / (1 - GRID.discount)
    assert abs(truncated_value(PREFERENCES) - value[0]) < gap


def test_variance_is_that_of_numpy():
    gradients = RNG.normal(size=(7, 30)).astype(np.float32)
    expected = gradients.var(0, ddof=1).sum() / 7
    np.testing.assert_allclose(learner.variance_of_mean(gradients), expected, rtol=1e-5)
    assert learner.variance_of_mean(jnp.ones((1, 3))) == 0


# --- the algorithms -------------------------------------------------------------------------------


def rounds_of(algorithm, num_rounds, num_agents=3):
    """States after each round, as NumPy."""
    functions = algorithm.functions(algorithm.config)
    one = population(num_agents)
    params = bind([algorithm.parameters(algorithm.config, num_agents)])
    keys = streams.agent_keys(jnp.zeros(num_agents, int), one.member_of)

    @functools.partial(jax.jit, compiler_options=QUICKLY)
    def run():
        def body(state, _):
            state = functions.advance(one, params, state, jnp.uint32(1))
            kept = dataclasses.replace(state, keys=())
            return state, (kept, functions.measure(one, params, state))

        first = functions.init(one, params, keys)
        return first.server, jax.lax.scan(body, first, length=num_rounds)[1]

    return jax.tree.map(np.asarray, run())


SMALL = {"learning_rate": 0.5, "episodes_per_round": 4}


@pytest.fixture
def canned(monkeypatch):
    """Episodes are taken from `sampled` instead of being run, which takes long to compile."""
    # On the host, so that no program of a test holds on to those of another.
    store = jax.tree.map(lambda x: np.asarray(x).reshape(-1, 4, *x.shape[2:]), sampled())

    def sample(task, policy, keys, parameters, num_episodes, *, kind):
        del policy, parameters, kind
        place = jax.random.key_data(keys[1])[:, 1] % jnp.uint32(len(store.reward))
        made = jax.tree.map(lambda x: jnp.asarray(x)[place, :num_episodes], store)
        corner = (made.observation == 0) & (made.action == 2)
        bad = jnp.asarray(task.params.reward)[0, 2, 0]
        return made._replace(reward=jnp.where(corner & made.mask, bad, made.reward))

    monkeypatch.setattr(
        importlib.import_module("fedjax_rl.algorithms.reinforce"), "sample_trajectories", sample
    )


@pytest.mark.usefixtures("canned")
def test_without_thresholds_lapg_is_the_synchronous_policy_gradient():
    _, (lazy, own) = rounds_of(lapg(GRID, weight=0.0, variance=0.0, **SMALL), 8)
    first, (plain, other) = rounds_of(reinforce(GRID, **SMALL), 8)
    np.testing.assert_allclose(lazy.server, plain.server, atol=1e-5)
    np.testing.assert_array_equal(own["reward"], other["reward"])
    jax.tree.map(np.testing.assert_array_equal, lazy.ledger, plain.ledger)
    assert own["sent"].all()
    np.testing.assert_array_equal(first, 0)
    assert np.all(own["size"] == 4 * 20)


@pytest.mark.usefixtures("canned")
def test_the_learner_moves_along_the_mean_of_what_was_sent_last():
    rate, depth = SMALL["learning_rate"], 3
    algorithm = lapg(GRID, weight=0.3, variance=1.0, depth=depth, **SMALL)
    first, (state, own) = rounds_of(algorithm, 25)
    sent = own["sent"] > 0
    assert sent[0].all()
    assert 0.05 < sent[1:].mean() < 0.95
    models = np.concatenate([first[None], state.server])[:, 0]
    gradients, variances = state.agents.gradient.value, state.agents.gradient.variance
    last = np.zeros_like(gradients[0])
    for e in range(25):
        moves = [models[e - d] - models[e - d - 1] for d in range(min(depth, e))]
        bound = 0.3 / rate**2 * sum(float(m @ m) for m in moves) + variances[e]
        change = np.sum((gradients[e] - last) ** 2, axis=1)
        sure = np.abs(change - bound) > 1e-4 * bound
        expected = (change >= bound) | (e == 0)
        np.testing.assert_array_equal(sent[e][sure], expected[sure])
        last = np.where(sent[e][:, None], gradients[e], last)
        moved = models[e] + rate * last.mean(0)
        np.testing.assert_allclose(models[e + 1], moved, atol=1e-5)
    np.testing.assert_array_equal(own["bytes"], 80 * sent)


def test_a_round_is_the_estimate_of_the_learner():
    first, (state, own) = rounds_of(reinforce(GRID, uplink=uplinks.lazy(), **SMALL), 3)
    keys = streams.agent_keys(jnp.zeros(3, int), jnp.arange(3))
    fold = jax.vmap(jax.random.fold_in, in_axes=(0, None))
    both = [fold(fold(keys, stream), 0) for stream in (4, 5)]

    @jax.jit
    def expected():
        made = episodes.sample_trajectories(GRID, TABLE, both, jnp.zeros((3, 20)), 4)

        def estimate(one):
            advantages = learner.advantages(one, 0.9, baseline="state_mean", num_states=4)
            return learner.per_episode(TABLE, jnp.zeros(20), one, advantages)

        return made, jax.vmap(estimate)(made), learner.returns_to_go(made.reward, 0.9)[..., 0]

    made, each, returns = expected()
    each = np.asarray(each)
    np.testing.assert_array_equal(first, 0)
    gradient = jax.tree.map(lambda x: x[0], state.agents.gradient)
    np.testing.assert_allclose(gradient.value, each.mean(1), atol=1e-5)
    variance = each.var(1, ddof=1).sum(-1) / 4
    np.testing.assert_allclose(gradient.variance, variance, rtol=1e-4)
    np.testing.assert_allclose(own["reward_of_agent"][0], returns.mean(1), rtol=1e-5)
    steps = np.asarray(made.steps)
    np.testing.assert_allclose(own["episode_steps"][0], steps.mean(), rtol=1e-6)
    assert int(steps.sum()) == int(state.agents.experience.steps[0].sum())


VALUES = {"top-k": {"k": 3}, "probabilistic": {"target": 1}, "event-triggered": {"factor": 1.0}}


@pytest.mark.usefixtures("canned")
@pytest.mark.parametrize("name", uplinks.UPLINKS)
def test_every_uplink(name):
    own = uplinks.make(name, **VALUES.get(name, {}))
    _, (state, metrics) = rounds_of(reinforce(GRID, uplink=own, **SMALL), 2)
    assert np.isfinite(state.server).all()
    sizes = {"top-k": 24, "scaled-sign": 4 + 3}
    np.testing.assert_array_equal(metrics["bytes"], sizes.get(name, 80) * metrics["sent"])
    assert np.abs(state.server).max() > 0 or not metrics["sent"].any()


@pytest.mark.usefixtures("canned")
def test_what_is_not_finite_is_counted_and_left_out():
    reward = np.array(GRID.grid.reward)
    reward[0, 2] = np.inf  # in the corner, upwards
    broken = dataclasses.replace(GRID.grid, reward=reward)
    task = GRID.replace(params=broken, name="broken-grid")
    for uplink in (None, uplinks.lazy()):
        few = reinforce(task, learning_rate=0.1, episodes_per_round=1, uplink=uplink)
        _, (state, metrics) = rounds_of(few, 6)
        assert 0 < metrics["non_finite"][-1] < 18
        assert np.isfinite(state.server).all()
        assert np.abs(state.server[-1]).max() > 0
        assert all(np.isfinite(x).all() for x in metrics.values())
        if uplinks is None:
            valid, sent = state.agents.gradient.valid, state.agents.gradient.value
            total = np.sum(np.where(valid[..., None], sent, 0), axis=1)
            mean = total / np.maximum(valid.sum(1), 1)[:, None]
            np.testing.assert_allclose(state.server[-1, 0], 0.1 * mean.sum(0), atol=1e-6)


@pytest.mark.thorough
def test_a_network_learns_to_balance():
    algorithm = reinforce(
        CART, learning_rate=0.03, optimizer="adam", episodes_per_round=8, network=(8,)
    )
    _, (state, metrics) = rounds_of(algorithm, 40, num_agents=2)
    assert state.server.shape[-1] == 4 * 8 + 8 + 8 * 2 + 2
    assert metrics["reward"][:3].mean() < 26
    assert metrics["reward"][-5:].mean() > 32


@pytest.mark.usefixtures("canned")
def test_momentum_remembers():
    algorithm = reinforce(GRID, optimizer={"name": "momentum", "momentum": 0.7}, **SMALL)
    _, (state, _) = rounds_of(algorithm, 4)
    speed = model = np.zeros(20)
    for gradients, server in zip(state.agents.gradient.value, state.server, strict=True):
        speed = 0.7 * speed + gradients.mean(0)
        model = model + SMALL["learning_rate"] * speed
        np.testing.assert_allclose(server[0], model, atol=1e-5)


@pytest.mark.thorough
def test_the_table_learns_a_grid_and_static_loops_agree():
    algorithm = reinforce(GRID, learning_rate=1.0)
    run = jax.jit(
        lambda: frl.simulate(algorithm, num_agents=3, num_steps=30).metrics,
        compiler_options=QUICKLY,
    )()
    _, (_, same) = rounds_of(algorithm, 30)
    np.testing.assert_allclose(run["reward"], same["reward"][:, 0], atol=1e-5)
    # Two steps to the goal, the last one free.
    assert run["reward"][-1] > -1.3
    assert run["reward"][0] < -3


def test_continuous_actions():
    task = frl.envs.gymnax_task("Pendulum-v1", max_steps=5)
    _, (state, metrics) = rounds_of(reinforce(task, learning_rate=1e-3, network=(4,)), 2)
    assert state.server.shape[-1] == 3 * 4 + 4 + 4 + 1 + 1
    assert np.isfinite(state.server).all()
    assert np.all(state.server[1] != state.server[0])
    np.testing.assert_allclose(metrics["episode_steps"], 5, rtol=1e-6)


def test_federations_that_differ_in_numbers_share_a_program():
    one = lapg(GRID, **SMALL)
    names = ("learning_rate", "weight", "variance", "optimizer.momentum")
    for changes in ({name: 0.5} for name in names):
        other = one.replace(**changes)
        assert one.static(one.config) == other.static(other.config)
        assert hash(one.static(one.config)) == hash(other.static(other.config))
    for changes in ({"depth": 3}, {"estimator": "reinforce"}, {"baseline": "none"}):
        other = one.replace(**changes)
        assert one.static(one.config) != other.static(other.config)


def test_both_are_known_by_name():
    for name in ("reinforce", "lapg"):
        assert algorithms.ALGORITHMS[name].environments == ("grid", "task")
        assert algorithms.ALGORITHMS[name].make(GRID).name == name


BAD = [
    (reinforce, GRID, {"episodes_per_round": 0}, "episodes_per_round is 0; allowed: a whole"),
    (reinforce, GRID, {"episodes_per_round": 2.5}, "episodes_per_round is 2.5; allowed: a whole"),
    (reinforce, GRID, {"learning_rate": -1.0}, "learning_rate is -1.0; allowed"),
    (reinforce, GRID, {"estimator": "gpomd"}, "gpomdp"),
    (reinforce, GRID, {"baseline": "mean"}, "baseline"),
    (reinforce, GRID, {"policy": "tables"}, "table"),
    (reinforce, GRID, {"optimizer": "adamw"}, "adam"),
    (reinforce, GRID, {"baseline": "batch_mean", "episodes_per_round": 1}, "at least 2"),
    (reinforce, CART, {"policy": "table"}, "policy is table on CartPole-v1; allowed: on a grid"),
    (reinforce, CART, {"baseline": "state_mean"}, "baseline is state_mean on CartPole-v1"),
    (reinforce, CART, {"deviation": 0.0}, "deviation is 0.0; allowed"),
    (reinforce, CART, {"network": (0,)}, "network.hidden is"),
    (reinforce, None, {}, "task is None; allowed: an episodic task"),
    (reinforce, GRID, {"xi": 1.0}, "property of reinforce"),
    (lapg, GRID, {"weight": -0.1}, "weight is -0.1; allowed"),
    (lapg, GRID, {"depth": 0}, "depth is 0; allowed"),
    (lapg, GRID, {"variance": -1.0}, "variance is -1.0; allowed"),
    (lapg, GRID, {"learning_rate": 0.0}, "learning_rate is 0.0; allowed: finite and above 0"),
    (lapg, GRID, {"episodes_per_round": 1}, "variance is 2.0 with episodes_per_round 1"),
    (lapg, GRID, {"uplink": uplinks.lazy()}, "uplink is lazy; allowed: None, as lapg"),
]


@pytest.mark.parametrize(("make", "task", "values", "words"), BAD)
def test_bad_properties_are_refused(make, task, values, words):
    with pytest.raises(ValueError, match=words):
        make(task, **values)


def test_a_baseline_of_states_needs_their_number():
    one = jax.tree.map(lambda x: x[0], sampled())
    with pytest.raises(ValueError, match="state_mean without num_states"):
        learner.advantages(one, 0.9, baseline="state_mean")
