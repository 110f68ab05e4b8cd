"""Estimators of the policy gradient against all episodes of a small MDP, one by one."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

import fedjax_rl as frl
from fedjax_rl import streams
from fedjax_rl.learners import enumeration
from fedjax_rl.learners import policy_gradient as learner
from fedjax_rl.networks import MLP
from fedjax_rl.rollouts.episodes import evaluate, sample_trajectories

# These programs run for milliseconds.
QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
jit = functools.partial(jax.jit, compiler_options=QUICKLY)

STATES, ACTIONS, STEPS, DISCOUNT = 3, 2, 4, 0.9
TABLE = learner.SoftmaxTable(STATES, ACTIONS)
RNG = np.random.default_rng(0)
KERNEL = RNG.dirichlet(np.full(STATES, 0.5), (STATES, ACTIONS))
REWARD = RNG.normal(size=(STATES, ACTIONS))
START = RNG.dirichlet(np.ones(STATES))
TARGET, BEHAVIOUR, DIRECTION = RNG.normal(0, 0.7, (3, STATES * ACTIONS))
ENTROPIES = (0.0, 0.3)
RULE = learner.AdvantageRule()


@pytest.fixture(autouse=True)
def _double():
    with jax.enable_x64(True):
        yield


MDP = frl.envs.tabular_mdp(KERNEL, REWARD[:, :, None], DISCOUNT, initial_distribution=START)


@functools.cache
def enumerate_trajectories(horizon):
    """All M episodes [M, 1, horizon], and the part of their probabilities that is the MDP's."""
    return enumeration.all_trajectories(MDP, horizon)


def chances(parameters, horizon=STEPS):
    """Probabilities of all episodes, [M]."""
    return enumeration.probabilities(*enumerate_trajectories(horizon), parameters)


def mean_of(function, parameters):
    """Expectation of a function of one episode that `parameters` make."""
    each = jit(jax.vmap(function))(enumerate_trajectories(STEPS)[0])
    return jax.tree.map(lambda x: np.tensordot(chances(parameters), x, 1), each)


def objective(parameters, entropy, horizon=STEPS):
    """J of so many steps, exactly."""
    logs = jax.nn.log_softmax(parameters.reshape(STATES, ACTIONS))
    policy, value = jnp.exp(logs), jnp.zeros(STATES)
    for _ in range(horizon):
        following = REWARD - entropy * logs + DISCOUNT * KERNEL @ value
        value = jnp.sum(policy * following, -1)
    return START @ value


exactly = jit(jax.grad(objective))


def exact(parameters, entropy=0.0):
    return np.asarray(exactly(parameters, entropy))


def estimate(parameters, made, rule=RULE, entropy=0.0, weight=None):
    parameters = jnp.asarray(parameters)
    return learner.estimate(TABLE, parameters, made, DISCOUNT, rule, entropy, weight)


def weighted(made, rule=RULE, entropy=0.0, **options):
    target, behaviour = jnp.asarray(TARGET), jnp.asarray(BEHAVIOUR)
    return learner.weighted_gradient(
        TABLE, target, behaviour, made, DISCOUNT, rule, entropy, **options
    )


def product(parameters, direction, made, rule=RULE, entropy=0.0, policy=TABLE):
    parameters, direction = jnp.asarray(parameters), jnp.asarray(direction)
    return learner.hessian_vector(policy, parameters, direction, made, DISCOUNT, rule, entropy)


# --- on the policy --------------------------------------------------------------------------------


def test_all_episodes_are_there():
    made, _ = enumerate_trajectories(STEPS)
    assert made.mask.shape == (1296, 1, 4)
    np.testing.assert_allclose(chances(TARGET).sum(), 1, rtol=1e-14)
    value = (made.reward[:, 0] * DISCOUNT ** np.arange(STEPS)).sum(1) @ chances(TARGET)
    np.testing.assert_allclose(value, jit(objective)(TARGET, 0.0), rtol=1e-13)
    one = frl.envs.tabular_mdp(KERNEL, REWARD[:, :, None], DISCOUNT, initial_state=2)
    np.testing.assert_array_equal(enumeration.all_trajectories(one, 1)[1], np.eye(3)[2].repeat(2))
    with pytest.raises(ValueError, match="num_steps is 9 with 3 states and 2 actions; allowed"):
        enumeration.all_trajectories(MDP, 9)
    arrived = frl.envs.tabular_mdp(KERNEL, np.ones(STATES), DISCOUNT)
    with pytest.raises(ValueError, match="mdp has rewards of the state arrived in"):
        enumeration.all_trajectories(arrived, 2)


@pytest.mark.parametrize("entropy", ENTROPIES)
def test_estimates_are_unbiased(entropy):
    reinforce = learner.AdvantageRule(estimator="reinforce")
    undiscounted = learner.AdvantageRule(discount_weight=False)
    rules = (RULE, reinforce, undiscounted)
    found = mean_of(lambda one: [estimate(TARGET, one, c, entropy) for c in rules], TARGET)
    for unbiased in found[:2]:
        np.testing.assert_allclose(unbiased, exact(TARGET, entropy), atol=1e-12)
    assert np.abs(found[2] - exact(TARGET, entropy)).max() > 1e-2


def worth(entropy):
    """V of every time and state under `TARGET`, [T, S]."""
    logs = special.log_softmax(TARGET.reshape(STATES, ACTIONS), -1)
    values = [np.zeros(STATES)]
    for _ in range(STEPS):
        gain = REWARD - entropy * logs + DISCOUNT * KERNEL @ values[0]
        values.insert(0, np.sum(np.exp(logs) * gain, -1))
    return np.array(values[:STEPS])


@pytest.mark.parametrize("entropy", ENTROPIES)
def test_a_critic_leaves_the_mean_of_every_estimate(entropy):
    """Whatever it says if lambda is 1; if it is right with any lambda, and with less variance."""
    whole, half = (learner.AdvantageRule(baseline="critic", gae_lambda=x) for x in (1.0, 0.5))
    rubbish = np.random.default_rng(5).normal(size=(STEPS, STATES))

    def judged(one, value):
        return one._replace(value=jnp.asarray(value)[jnp.arange(STEPS), one.observation])

    def on_policy(one):
        wrong, right = judged(one, rubbish), judged(one, worth(entropy))
        each = [estimate(TARGET, *pair, entropy) for pair in ((wrong, whole), (right, half))]
        spread = [jnp.sum(x**2) for x in (each[1], estimate(TARGET, one, RULE, entropy))]
        biased = estimate(TARGET, wrong, half, entropy)
        return each, product(TARGET, DIRECTION, wrong, whole, entropy), biased, spread

    each, along, biased, spread = mean_of(on_policy, TARGET)
    for unbiased in each:
        np.testing.assert_allclose(unbiased, exact(TARGET, entropy), atol=1e-12)
    hessian = jit(jax.hessian(objective))(jnp.asarray(TARGET), entropy)
    np.testing.assert_allclose(along, hessian @ DIRECTION, atol=1e-12)
    assert np.abs(biased - exact(TARGET, entropy)).max() > 1e-2
    assert spread[0] < 0.8 * spread[1]

    def off_policy(one):
        wrong = judged(one, rubbish)
        return [weighted(wrong, whole, entropy, kind=kind)[0] for kind in learner.WEIGHTS]

    for unbiased in mean_of(off_policy, BEHAVIOUR):
        np.testing.assert_allclose(unbiased, exact(TARGET, entropy), atol=1e-12)
    with pytest.raises(ValueError, match="estimator is reinforce with baseline critic; allowed"):
        learner.AdvantageRule(estimator="reinforce", baseline="critic")
    with pytest.raises(ValueError, match="baseline is critic without values of the states"):
        estimate(TARGET, sample(TABLE, 2, 3), whole)


def test_without_entropy_no_logarithm_is_taken():
    one = jax.tree.map(lambda x: x[0], enumerate_trajectories(STEPS)[0])

    def logs(entropy):
        return " log " in str(jax.make_jaxpr(lambda x: estimate(x, one, RULE, entropy))(TARGET))

    assert not any(map(logs, (0, 0.0, np.float32(0), np.zeros(()))))
    assert logs(jnp.zeros(()))
    assert logs(0.1)


def sample(policy, count, length, seed=0, states=STATES):
    """Episodes of different lengths with arbitrary rewards; the padding is full of rubbish."""
    rng = np.random.default_rng(seed)
    mask = np.arange(length) < rng.integers(1, length + 1, count)[:, None]
    if isinstance(policy, learner.SoftmaxTable):
        observation = rng.integers(0, states, (count, length)).astype(np.int32)
    else:
        observation = rng.normal(size=(count, length, policy.network.sizes[0]))
    if isinstance(policy, learner.Gaussian):
        action = rng.normal(size=(count, length, policy.num_actions))
    else:
        action = rng.integers(0, 2, (count, length)).astype(np.int32)
    reward = rng.normal(size=(count, length)) * mask
    return jax.tree.map(jnp.asarray, learner.Trajectories(observation, action, reward, mask))


def test_weights_count_episodes():
    made, weight = sample(TABLE, 5, 6), jnp.asarray([0.0, 1.0, 2.0, -1.0, 0.5])

    @jit
    def both():
        each = jax.vmap(functools.partial(estimate, TARGET))(
            jax.tree.map(lambda x: x[:, None], made)
        )
        return estimate(TARGET, made, weight=weight), weight @ each / 5

    np.testing.assert_allclose(*both(), atol=1e-14)


def test_the_dtype_is_that_of_the_parameters():
    made = sample(TABLE, 3, 4)
    rule = learner.AdvantageRule(baseline="linear", num_states=STATES, normalize=True)

    def all_of(parameters):
        return (
            estimate(parameters, made, rule, 0.1),
            product(parameters, DIRECTION, made, rule, 0.1),
            learner.weighted_gradient(TABLE, parameters, -parameters, made, 0.9, rule, 0.1)[:2],
            evaluate(GRID, learner.policy_for(GRID), keys_of(2), rows(parameters), 1),
        )

    def rows(parameters):
        return jnp.zeros((2, 20), parameters.dtype)

    for dtype in (jnp.float32, jnp.float64):
        shapes = jax.eval_shape(all_of, jnp.zeros(6, dtype))
        assert {x.dtype for x in jax.tree.leaves(shapes)} == {jnp.dtype(dtype)}


# --- off the policy -------------------------------------------------------------------------------


@pytest.mark.parametrize("entropy", ENTROPIES)
def test_weighted_gradients_are_unbiased(entropy):
    reinforce = learner.AdvantageRule(estimator="reinforce")

    def all_of(one):
        return [
            weighted(one, RULE, entropy),
            weighted(one, reinforce, entropy, clip=jnp.inf, two_sided=True),
            weighted(one, RULE, entropy, kind="per_decision"),
        ]

    found = mean_of(all_of, BEHAVIOUR)
    for value, weight, overflows in found:
        np.testing.assert_allclose(value, exact(TARGET, entropy), atol=1e-12)
        np.testing.assert_allclose(weight, 1, rtol=1e-12)
        assert overflows == 0


def test_wrong_weights_are_wrong_and_those_of_decisions_vary_less():
    target, behaviour = jnp.asarray(TARGET), jnp.asarray(BEHAVIOUR)

    def all_of(one):
        inverted = learner.importance_weights(TABLE, behaviour, target, one)[0]
        clipped = [weighted(one, clip=clip)[0] for clip in (1.2, 1.8, 5.0)]
        squares = [jnp.sum(weighted(one, kind=kind)[0] ** 2) for kind in learner.WEIGHTS]
        return squares, estimate(TARGET, one, weight=inverted), estimate(TARGET, one), *clipped

    squares, *found = mean_of(all_of, BEHAVIOUR)
    whole, single = np.array(squares) - np.sum(exact(TARGET) ** 2)
    assert single < 0.9 * whole
    inverted, omitted, *clipped = (np.abs(x - exact(TARGET)).max() for x in found)
    assert min(inverted, omitted) > 0.1
    assert clipped[0] > clipped[1] > clipped[2] > 1e-3


def test_logarithms_of_weights_by_hand():
    made = sample(TABLE, 6, 5)
    logs = [special.log_softmax(np.reshape(x, (3, 2)), -1) for x in (TARGET, BEHAVIOUR)]
    expected = (logs[0] - logs[1])[made.observation, made.action]
    expected = np.sum(np.where(made.mask, expected, 0), 1)

    @jit
    def both(*parameters):
        one = learner.importance_weights(TABLE, *parameters, made)[0]
        return learner.log_weights(TABLE, *parameters, made), jnp.log(one)

    for found in both(TARGET, BEHAVIOUR):
        np.testing.assert_allclose(found, expected, atol=1e-13)


def test_credits_with_weights_of_decisions_by_hand():
    made, weights = sample(TABLE, 4, 5), RNG.lognormal(size=(4, 5))
    reward, mask = np.asarray(made.reward), np.asarray(made.mask)
    powers = DISCOUNT ** np.arange(5)
    expected = np.zeros((4, 5))
    for n, h in np.argwhere(mask):
        there = mask[:, h]
        baseline = np.mean([powers[: 5 - h] @ reward[m, h:] for m in np.flatnonzero(there)])
        gain = powers[: 5 - h] @ (weights * reward)[n, h:]
        expected[n, h] = powers[h] * (gain - weights[n, h] * baseline)
    found = advantages(made, baseline="batch_mean", decisions=jnp.asarray(weights))
    np.testing.assert_allclose(found, expected, atol=1e-13)


def steep(height):
    """Parameters under which action 0 is `exp(height)` times as likely as action 1."""
    return jnp.tile(jnp.asarray([height, 0.0]), STATES)


def test_truncation_and_overflow_are_reported():
    action = jnp.asarray([[0, 0], [1, 1], [1, 0], [0, 0]], jnp.int32)
    mask = jnp.asarray([[1, 1], [1, 1], [1, 1], [1, 0]], bool)
    made = learner.Trajectories(jnp.zeros((4, 2), jnp.int32), action, jnp.ones((4, 2)), mask)

    @jit
    def weights(height):
        """Not truncated, above, on both sides; of one and the same overflow."""
        at = TABLE, steep(height), steep(-height), made
        none, over = learner.importance_weights(*at)
        above, same = learner.importance_weights(*at, jnp.float32(1.5))
        both, alike = learner.importance_weights(*at, 1.5, two_sided=True)
        unlimited, _ = learner.importance_weights(*at, jnp.inf)
        return none, above, both, unlimited, over, same, alike

    # Of every step, height or -height; of two steps 2 height, -2 height, 0; of one height.
    found, *_, overflows, _, _ = weights(9.0)
    np.testing.assert_allclose(np.log(found), [18, -18, 0, 9], atol=1e-9)
    assert (overflows.dtype, int(overflows)) == (jnp.int32, 0)
    found, above, both, unlimited, *overflows = weights(15.0)
    np.testing.assert_allclose(np.log(found), [20, -20, 0, 15], atol=1e-9)
    np.testing.assert_allclose(above, [1.5, np.exp(-20), 1, 1.5])
    np.testing.assert_allclose(both, [1.5, 0.5, 1, 1.5])
    np.testing.assert_array_equal(unlimited, found)
    assert list(map(int, overflows)) == [2, 2, 2]
    *found, _, overflows, _, _ = weights(jnp.nan)
    assert np.isnan(found).all()
    assert int(overflows) == 4

    @jit
    def gradients():
        return [
            learner.weighted_gradient(
                TABLE, steep(25.0), steep(-25.0), made, 0.9, RULE, kind=kind, clip=2.0
            )
            for kind in learner.WEIGHTS
        ]

    # Per decision, the third episode passes the bound on its way back to 1.
    found = gradients()
    assert [int(overflows) for _, _, overflows in found] == [3, 4]
    for value, weight, _ in found:  # as they were before truncation
        np.testing.assert_allclose(np.log(weight), [20, -20, 0, 20], atol=1e-9)
        assert np.isfinite(value).all()


# --- products with the Hessian --------------------------------------------------------------------


@pytest.mark.parametrize("entropy", ENTROPIES)
def test_products_with_the_hessian_are_unbiased(entropy):
    rules = (RULE, learner.AdvantageRule(estimator="reinforce"))

    def all_of(one):
        def fixed(parameters):
            logs = learner.log_likelihood(TABLE, parameters, one)
            held = one.reward - entropy * jax.lax.stop_gradient(logs)
            weight = jnp.exp(jnp.sum(logs - jax.lax.stop_gradient(logs), 1))
            return estimate(parameters, one._replace(reward=held), weight=weight)

        return [
            *(product(TARGET, DIRECTION, one, rule, entropy) for rule in rules),
            jax.jvp(fixed, (jnp.asarray(TARGET),), (jnp.asarray(DIRECTION),))[1],
        ]

    *found, fixed = mean_of(all_of, TARGET)
    hessian = jit(jax.hessian(objective))(jnp.asarray(TARGET), entropy)
    for unbiased in found:
        np.testing.assert_allclose(unbiased, hessian @ DIRECTION, atol=1e-12)
    # The bonus has to be differentiated, too.
    assert (np.abs(fixed - hessian @ DIRECTION).max() > 1e-2) == (entropy > 0)


@pytest.mark.parametrize("entropy", ENTROPIES)
def test_products_along_a_line_are_the_difference_of_gradients(entropy):
    direction = TARGET - BEHAVIOUR
    places, masses = np.polynomial.legendre.leggauss(16)
    places, masses = (places + 1) / 2, masses / 2

    def both(parameters, one):
        parts = (jnp.asarray(parameters),), (jnp.asarray(direction),)
        moves = jax.jvp(lambda x: estimate(x, one, RULE, entropy), *parts)[1]
        return product(parameters, direction, one, RULE, entropy), moves

    each = jit(jax.vmap(both, in_axes=(None, 0)))

    def means(place):
        at = BEHAVIOUR + place * direction
        return np.array([chances(at) @ x for x in each(at, enumerate_trajectories(STEPS)[0])])

    total, unscored = np.tensordot(masses, [means(place) for place in places], 1)
    difference = exact(TARGET, entropy) - exact(BEHAVIOUR, entropy)
    np.testing.assert_allclose(total, difference, atol=1e-12)
    for wrong in (unscored, means(0.5)[0]):
        assert np.abs(wrong - difference).max() > 1e-3


MIXED = [
    TABLE,
    learner.Categorical(MLP((3, 4, 2))),
    learner.Gaussian(MLP((3, 4, 2)), deviation=0.7),
]


def parameters_of(policy, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(0, 0.5, policy.num_parameters))


def batch_of(policy):
    """Episodes, parameters and a direction."""
    return sample(policy, 6, 5), parameters_of(policy), parameters_of(policy, 1)


@pytest.mark.parametrize("policy", MIXED, ids=lambda policy: type(policy).__name__)
def test_products_are_those_of_the_explicit_formula(policy):
    made, parameters, direction = batch_of(policy)
    tau = 0.2

    def by_hand(observation, action, reward, mask):
        def logs(x):
            each = jax.vmap(policy.log_prob, in_axes=(None, 0, 0))(x, observation, action)
            return jnp.where(mask, each, 0)

        def value(x):
            gains = (reward - tau * logs(x)) * DISCOUNT ** np.arange(5)
            to_go = jnp.cumsum(gains[::-1])[::-1]
            return jax.grad(lambda y: to_go @ logs(y))(x)

        score = jax.jvp(logs, (parameters,), (direction,))[1]
        here, moves = jax.jvp(value, (parameters,), (direction,))
        return jnp.sum(score) * here + moves

    @jit
    def both():
        expected = jnp.mean(jax.vmap(by_hand)(*made[:4]), 0)
        return product(parameters, direction, made, RULE, tau, policy), expected

    np.testing.assert_allclose(*both(), rtol=1e-10, atol=1e-12)


def choices(policy):
    """Every baseline but none once, the last one with all else."""
    states = STATES if policy is TABLE else None
    yield learner.AdvantageRule("gpomdp", "batch_mean", False)
    if states:
        yield learner.AdvantageRule("reinforce", "state_mean", num_states=states)
    yield learner.AdvantageRule("gpomdp", "linear", True, states, True)


@pytest.mark.parametrize("policy", MIXED, ids=lambda policy: type(policy).__name__)
def test_products_are_central_differences_of_the_weighted_gradient(policy):
    made, parameters, direction = batch_of(policy)
    steps = jnp.asarray([1e-5, -1e-5])

    @jit
    def both(parameters):
        found, slopes = [], []

        def at(step, rule):
            target = parameters + step * direction
            own = (target, parameters, made, DISCOUNT, rule, 0.2)
            return learner.weighted_gradient(policy, *own)[0]

        for rule in choices(policy):
            above, below = jax.vmap(functools.partial(at, rule=rule))(steps)
            found.append(product(parameters, direction, made, rule, 0.2, policy))
            slopes.append((above - below) / (steps[0] - steps[1]))
        return found, slopes

    for mine, slope in zip(*both(parameters), strict=True):
        np.testing.assert_allclose(mine, slope, rtol=1e-6, atol=1e-7)


def test_batch_means_shrink_all_estimates_alike():
    made, _ = enumerate_trajectories(2)
    first, second = (x.ravel() for x in np.indices((36, 36)))
    pairs = jax.tree.map(lambda x: np.concatenate([x[first], x[second]], 1), made)
    rule = learner.AdvantageRule(baseline="batch_mean")
    tau = 0.3

    def all_of(one):
        return (
            estimate(BEHAVIOUR, one, rule, tau),
            product(BEHAVIOUR, DIRECTION, one, rule, tau),
            weighted(one, rule, tau)[0],
        )

    chance = chances(BEHAVIOUR, 2)[first] * chances(BEHAVIOUR, 2)[second]
    found = [chance @ x for x in jit(jax.vmap(all_of))(pairs)]
    slope = jax.grad(lambda x: objective(x, tau, 2))

    @jit
    def expected(behaviour, target):
        here, product = jax.jvp(slope, (behaviour,), (jnp.asarray(DIRECTION),))
        return here, product, slope(target)

    expected = expected(BEHAVIOUR, TARGET)
    for shrunk, full in zip(found, expected, strict=True):
        np.testing.assert_allclose(shrunk, full / 2, atol=1e-12)


# --- padding --------------------------------------------------------------------------------------


@functools.cache
def everything(policy):
    """A program of all that can be estimated from one batch."""

    def all_of(made, target, behaviour):
        for rule in choices(policy):
            own = (made, DISCOUNT, rule, 0.2)
            yield learner.weighted_gradient(policy, target, behaviour, *own)
            yield learner.hessian_vector(policy, target, behaviour, *own)
        own = (made, DISCOUNT, RULE, 0.2)
        yield learner.weighted_gradient(policy, target, behaviour, *own, kind="per_decision")

    return jit(lambda *own: list(all_of(*own)))


@jit
def all_credits(made):
    return [learner.advantages(made, DISCOUNT, **vars(rule)) for rule in choices(TABLE)]


def same(one, other):
    """Equal but for the order of sums; a least-squares baseline loses about half of the digits."""
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-7, atol=1e-9), one, other)


@pytest.mark.thorough
@hypothesis.settings(max_examples=20, deadline=None, derandomize=True)
@hypothesis.given(
    lengths=st.lists(st.integers(0, 4), min_size=3, max_size=3), seed=st.integers(0, 9)
)
def test_padding_says_nothing(lengths, seed):
    with jax.enable_x64(True):
        mask = jnp.asarray(np.arange(6) < np.asarray(lengths)[:, None])
        one, other = (sample(TABLE, 3, 6, seed + n) for n in range(2))
        one = one._replace(mask=mask, reward=jnp.where(mask, one.reward, 0))
        other = one._replace(
            observation=jnp.where(mask, one.observation, other.observation),
            action=jnp.where(mask, one.action, other.action),
        )
        at = jnp.asarray(TARGET), jnp.asarray(BEHAVIOUR)
        found = everything(TABLE)(one, *at)
        same(found, everything(TABLE)(other, *at))
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(found))
        full, short = all_credits(one), all_credits(jax.tree.map(lambda x: x[:, :4], one))
        same([x[:, :4] for x in full], short)


def test_padding_says_nothing_to_a_network():
    policy = MIXED[2]
    made, mask = sample(policy, 3, 6), jnp.asarray(np.arange(6) < np.array([[2], [4], [6]]))
    made = made._replace(mask=mask, reward=jnp.where(mask, made.reward, 0))
    other = made._replace(
        observation=jnp.where(mask[..., None], made.observation, 7.0),
        action=jnp.where(mask[..., None], made.action, -3.0),
    )
    at = [parameters_of(policy, seed) for seed in range(2)]
    same(everything(policy)(made, *at), everything(policy)(other, *at))


# --- baselines ------------------------------------------------------------------------------------


def advantages(made, **options):
    return np.asarray(jit(lambda made: learner.advantages(made, DISCOUNT, **options))(made))


def least_squares(features, returns, mask, ridge=1e-5):
    """Predictions [N, T] of a linear fit with a ridge on standardised features, by NumPy."""
    x, y = features[mask], returns[mask]
    apart = x - x.mean(0)
    scale = apart.std(0)
    apart = apart / np.where(scale > 0, scale, 1)
    rows = np.concatenate([apart, np.sqrt(ridge * len(x)) * np.eye(x.shape[1])])
    slopes = np.linalg.lstsq(rows, np.concatenate([y - y.mean(), np.zeros(x.shape[1])]), rcond=None)
    out = np.zeros(returns.shape)
    out[mask] = y.mean() + apart @ slopes[0]
    return out


@pytest.mark.parametrize("kind", ["network", "one-hot", "time"])
def test_linear_baseline_against_lstsq(kind):
    policy = MIXED[1] if kind == "network" else TABLE
    made = sample(policy, 20, 9)
    time = np.broadcast_to(np.arange(9) / 100, (20, 9))
    own = {
        "network": lambda: [x for n in range(3) for x in (seen[..., n], seen[..., n] ** 2)],
        "one-hot": lambda: [made.observation == s for s in range(STATES)],
        "time": list,
    }[kind]
    made = made._replace(observation=made.observation * 9) if kind == "network" else made
    seen = np.clip(made.observation, -10, 10)
    features = np.stack([time, time**2, time**3, *own()], -1).astype(float)
    mask = np.asarray(made.mask)
    returns = np.asarray(learner.returns_to_go(made.reward, DISCOUNT))
    expected = (returns - least_squares(features, returns, mask)) * mask
    states = STATES if kind == "one-hot" else None
    options = {"baseline": "linear", "discount_weight": False, "num_states": states}
    found = advantages(made, **options)
    np.testing.assert_allclose(found, expected, atol=1e-9)
    # The ridge is small: without it the fit is hardly another.
    plain = (returns - least_squares(features, returns, mask, 0.0)) * mask
    assert np.abs(found - plain).max() < 0.05 * np.abs(returns).max()


def test_linear_baseline_of_float32():
    made = sample(MIXED[1], 50, 40)
    made = made._replace(observation=made.observation * jnp.asarray([[[1e-3, 1.0, 0.0]]]) + 1)
    options = {"baseline": "linear", "discount_weight": False}
    single = jax.tree.map(lambda x: x.astype(jnp.float32) if x.dtype == jnp.float64 else x, made)
    np.testing.assert_allclose(
        advantages(single, **options), advantages(made, **options), atol=2e-3
    )


def test_standardised_credits():
    made = sample(TABLE, 20, 9)
    options = {"discount_weight": False, "normalize": True}

    @jit
    def both(made):
        here = learner.advantages(made, DISCOUNT, **options)
        return here, learner.advantages(made, DISCOUNT, normalize=True)

    found, discounted = (np.asarray(x) for x in both(made))
    valid = found[made.mask]
    np.testing.assert_allclose([valid.mean(), valid.std()], [0, 1], atol=1e-8)
    np.testing.assert_allclose(discounted, found * DISCOUNT ** np.arange(9), atol=1e-12)


@pytest.mark.parametrize("baseline", ["state_mean", "batch_mean", "linear"])
def test_equal_returns_are_worth_nothing_beside_their_mean(baseline):
    """Exactly nothing: with Adam, a rounding of the mean would be a full step."""
    states = jnp.asarray(np.random.default_rng(0).integers(3, size=(7, 5)), jnp.int32)
    trajectories = learner.Trajectories(
        observation=states,
        action=jnp.zeros((7, 5), jnp.int32),
        reward=jnp.full((7, 5), 0.1, jnp.float32).at[:, 1:].set(0.0),
        mask=jnp.ones((7, 5), bool),
    )
    weights = jax.jit(
        lambda x: learner.advantages(
            x, 1.0, estimator="reinforce", baseline=baseline, num_states=3, normalize=True
        )
    )(trajectories)
    np.testing.assert_array_equal(weights, 0.0)


def test_what_hardly_differs_is_not_blown_up():
    made = sample(TABLE, 20, 9)
    alike = made._replace(reward=jnp.full((20, 9), 0.1, jnp.float32), mask=jnp.ones((20, 9), bool))
    nothing = alike._replace(reward=jnp.zeros((20, 9)))
    rule = learner.AdvantageRule(baseline="linear", num_states=STATES, normalize=True)

    @jit
    def all_of():
        rounding = learner.advantages(alike, DISCOUNT, baseline="batch_mean", normalize=True)
        moves = product(TARGET, DIRECTION, nothing, rule)
        return rounding, estimate(TARGET, nothing, rule), moves

    rounding, *zeros = all_of()
    assert np.abs(rounding).max() < 0.1
    np.testing.assert_array_equal(zeros, 0)


# --- policies and roll-outs -----------------------------------------------------------------------


def test_densities_against_scipy():
    gaussian, categorical = MIXED[2], MIXED[1]
    parameters, seen = parameters_of(gaussian), jnp.asarray([0.1, -0.4, 1.0])
    action = jnp.asarray([0.9, -1.7])
    mean = gaussian.network.apply(parameters[:-2], seen)
    expected = stats.norm.logpdf(action, mean, np.exp(parameters[-2:])).sum()
    found = gaussian.log_prob(jnp.asarray(parameters), seen, action)
    np.testing.assert_allclose(found, expected, rtol=1e-13)
    parameters = jnp.asarray(parameters_of(categorical))
    outputs = categorical.network.apply(parameters, seen)
    found = [categorical.log_prob(parameters, seen, jnp.int32(a)) for a in range(2)]
    np.testing.assert_allclose(found, special.log_softmax(outputs), rtol=1e-13)


def test_the_log_probabilities_of_a_table_are_those_of_its_steps():
    state, action = jnp.asarray([0, 2, 1, 2]), jnp.asarray([1, 0, 0, 1])
    single, many = (
        functools.partial(kind.log_probs, TABLE, jnp.asarray(TARGET))
        for kind in (learner.Policy, learner.SoftmaxTable)
    )
    np.testing.assert_allclose(single(state, action), many(state, action), rtol=1e-14)


GRID = frl.envs.simple_grid(size=2, max_steps=12)
CART = frl.envs.gymnax_task("CartPole-v1", max_steps=20)
PENDULUM = frl.envs.gymnax_task("Pendulum-v1", max_steps=3)


def keys_of(count):
    keys = streams.agent_keys(jnp.zeros(count, int), jnp.arange(count))
    return keys, jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys)


@pytest.mark.parametrize("task", [GRID, CART], ids=lambda task: task.name)
def test_what_is_evaluated_is_what_is_rolled_out(task):
    # The environments are of the dtype they were made in.
    with jax.enable_x64(task is GRID):
        check_evaluation(task)


def check_evaluation(task):
    agents, count = (4, 3) if task is GRID else (70, 2)  # many are compacted
    policy = learner.policy_for(task, hidden=(2,))
    parameters = jax.random.normal(jax.random.key(1), (agents, policy.num_parameters))
    # Of agents with environments of their own, too.
    own = jax.tree.map(lambda x: jnp.broadcast_to(x, (agents, *jnp.shape(x))), task.params)

    @jit
    def both():
        keys = keys_of(agents)
        found = evaluate(task, policy, keys, parameters, count)
        made = sample_trajectories(task, policy, keys, parameters, count, environment=own)
        returns = learner.returns_to_go(made.reward, task.discount)[..., 0]
        steps = made.steps.astype(returns.dtype)
        return found, [jnp.mean(x, 1) for x in (returns, jnp.sum(made.reward, -1), steps)]

    found, expected = both()
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.shape == (agents,)
        np.testing.assert_allclose(mine, theirs, rtol=1e-5)
    assert np.ptp(found[2]) > 0


def test_policies_for_tasks():
    tabular = frl.envs.tabular_task(frl.envs.random_mdp(num_states=5, num_actions=2))
    assert learner.policy_for(GRID) == learner.SoftmaxTable(4, 5)
    assert learner.policy_for(tabular) == learner.SoftmaxTable(5, 2)
    network = learner.policy_for(GRID, "mlp", hidden=(3,), activation="relu")
    assert network.network == MLP((2, 3, 5), "relu")
    assert learner.policy_for(CART).network.sizes == (4, 8, 8, 2)
    gaussian = learner.policy_for(PENDULUM, hidden=(), deviation=0.3, initializer="uniform")
    assert isinstance(gaussian, learner.Gaussian)
    assert (gaussian.network.sizes, gaussian.deviation) == ((3, 1), 0.3)
    for task in (GRID, tabular, CART, PENDULUM):
        learner.check_fits(task, learner.policy_for(task))
        learner.check_fits(task, learner.policy_for(task, "mlp"))


def test_orthogonal_weights():
    """Columns, or rows where these are fewer, of length sqrt(2), and of 0.01 in the last layer."""
    policy = learner.Gaussian(MLP((3, 8, 2)), initializer="orthogonal", deviation=1.0)
    parameters = np.asarray(policy.init(jax.random.key(2)))
    assert parameters.shape == (policy.num_parameters,)
    wide, tall = parameters[:24].reshape(3, 8), parameters[32:48].reshape(8, 2)
    np.testing.assert_allclose(wide @ wide.T, 2 * np.eye(3), atol=1e-5)
    np.testing.assert_allclose(tall.T @ tall, 1e-4 * np.eye(2), atol=1e-9)
    assert not np.any(parameters[24:32])
    assert not np.any(parameters[48:])
    other = policy.init(jax.random.key(3))
    assert np.abs(other[:24] - parameters[:24]).min() > 0


BAD = [
    (lambda: learner.policy_for(CART, "table"), "policy is table on CartPole-v1; allowed: on a"),
    (lambda: learner.policy_for(GRID, "tabel"), "'tabel' is no policy"),
    (lambda: learner.policy_for(CART, hidden=(0,)), "hidden is"),
    (lambda: learner.policy_for(CART, activation="tan"), "activation"),
    (lambda: learner.policy_for(CART, initializer="ones"), "initializer"),
    (lambda: learner.policy_for(PENDULUM, deviation=0.0), "deviation is 0.0; allowed"),
    (lambda: learner.check_fits(GRID, learner.SoftmaxTable(3, 5)), "3 states on .*; allowed: 4"),
    (lambda: learner.check_fits(GRID, learner.SoftmaxTable(4, 4)), "4 discrete actions"),
    (lambda: learner.check_fits(CART, learner.Categorical(MLP((3, 2)))), "3 inputs on CartPole"),
    (lambda: learner.check_fits(CART, learner.Gaussian(MLP((4, 2)))), "2 continuous actions"),
    (lambda: evaluate(GRID, TABLE, None, jnp.zeros((1, 6)), 1), "policy has 3 states"),
    (
        lambda: sample_trajectories(GRID, learner.policy_for(GRID), None, jnp.zeros((1, 20)), 0),
        "num_episodes is 0; allowed",
    ),
    (lambda: learner.AdvantageRule(estimator="gpomd"), "did you mean gpomdp"),
    (lambda: learner.AdvantageRule(baseline="mean"), "'mean' is no baseline"),
    (lambda: learner.AdvantageRule(baseline="state_mean"), "state_mean without num_states"),
    (lambda: weighted(sample(TABLE, 2, 3), kind="step"), "'step' is no kind of weights"),
    (lambda: weighted(sample(TABLE, 2, 3), clip=0.5, two_sided=True), "clip is 0.5; allowed"),
    (lambda: weighted(sample(TABLE, 2, 3), clip=-1.0), "clip is -1.0; allowed: at least 0"),
    (lambda: weighted(sample(TABLE, 2, 3), two_sided=True), "clip is None with two_sided"),
    (
        lambda: weighted(
            sample(TABLE, 2, 3), learner.AdvantageRule(estimator="reinforce"), kind="per_decision"
        ),
        "estimator is reinforce with weights of decisions",
    ),
    (
        lambda: weighted(
            sample(TABLE, 2, 3), learner.AdvantageRule(normalize=True), kind="per_decision"
        ),
        "normalize is True with weights of decisions",
    ),
]


@pytest.mark.parametrize(("call", "words"), BAD, ids=[words for _, words in BAD])
def test_bad_inputs_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        jax.eval_shape(call)
