"""Tabular MDPs, their generators, their environment and their exact solvers.

Published numbers: M. Einhorn, "Federated Reinforcement Learning Has Linear Speedup" (2023), and
the author's executed notebooks.
"""

import functools
import operator
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st

from fedjax_rl import envs
from fedjax_rl.envs import optimal, tabular_env
from fedjax_rl.envs.tabular import check_mdp

LEAVES = ("transition", "reward", "discount", "initial_state")
# q* of the paper's MDP, [S, U], as printed by the author.
PAPER_Q = [
    [0.57420675564991119, 0.82681618189071693, 1.1375599174556759],
    [0.63745683999465264, 0.78063268534168184, 0.93448151666180834],
    [-0.13418085974813554, 0.81057442305810889, -0.13418086029033371],
    [2.0304025918142541, 2.0304027665680398, 0.77262883730313103],
]


@pytest.fixture(scope="module")
def paper():
    return envs.paper_mdp()


@pytest.fixture(scope="module")
def paper_q(paper):
    return envs.optimal_q(paper)


def switch_mdp(discount=0.5):
    """Action 0 stays, action 1 goes to the other state; arriving in state 1 earns 1."""
    transition = np.stack([np.eye(2), 1 - np.eye(2)], axis=1)
    return envs.tabular_mdp(transition, [0.0, 1.0], discount)


def two_rooms():
    """Two states that are never left."""
    return envs.tabular_mdp(np.eye(2)[:, None, :], [0.0, 1.0], 0.9)


def member(mdps, index):
    return jax.tree.map(lambda leaf: leaf[index], mdps)


def assert_same_bits(mdp, other):
    for name in LEAVES:
        one, two = np.asarray(getattr(mdp, name)), np.asarray(getattr(other, name))
        assert one.dtype == two.dtype
        assert one.shape == two.shape
        assert one.tobytes() == two.tobytes(), name


# The paper's MDP


def test_paper_table_is_the_one_of_the_generator(paper):
    rng = np.random.default_rng(3701)
    powers = rng.normal(size=(4, 3, 4)) ** 15
    weights = np.exp(powers - powers.max(-1, keepdims=True))
    reward = rng.normal(size=4)
    np.testing.assert_allclose(
        paper.transition, weights / weights.sum(-1, keepdims=True), rtol=0, atol=1e-15
    )
    np.testing.assert_array_equal(paper.reward, reward[None, None])

    drawn = envs.random_mdp(seed=3701)
    np.testing.assert_allclose(paper.transition, drawn.transition, rtol=0, atol=1e-15)
    for name in ("reward", "discount", "initial_state"):
        np.testing.assert_array_equal(getattr(paper, name), getattr(drawn, name))


def test_paper_table_holds_the_printed_digits(paper):
    assert paper.transition[0, 2, 0] == 3.3130612752904927e-26
    assert paper.transition[2, 2, 1] == 8.7148659637859129e-74
    np.testing.assert_array_equal(paper.transition[1, 2], [0, 0, 1, 0])
    np.testing.assert_array_equal(
        paper.reward.ravel(),
        [-0.81671681076373925, 1.4697138566988646, 0.44813686282694309, -0.77318491429713254],
    )
    assert paper.transition.dtype == paper.reward.dtype == paper.discount.dtype == np.float64
    assert paper.initial_state.dtype == np.int32
    assert (paper.num_states, paper.num_actions, float(paper.discount)) == (4, 3, 0.6)


def test_t1_norm_of_the_optimal_values(paper_q):
    assert np.sum(paper_q**2) == pytest.approx(13.731440581206957, abs=1e-9)
    np.testing.assert_allclose(paper_q, PAPER_Q, rtol=0, atol=1e-12)
    # State 3 is a tie of two actions, so its choice is left out.
    np.testing.assert_array_equal(paper_q.argmax(-1)[:3], [2, 2, 1])


def test_t2_t3_expected_returns(paper, paper_q):
    uniform, greedy = envs.uniform_policy(paper), envs.greedy_policy(paper_q)
    returns = functools.partial(envs.expected_return, paper, num_steps=10_001)
    assert returns(uniform) == pytest.approx(1210.06, abs=0.01)
    assert returns(greedy) == pytest.approx(3915.74, abs=0.01)
    assert returns(envs.softmax_policy(paper_q)) == pytest.approx(2162.0, abs=0.1)
    # Discounted and average optimality part ways.
    assert returns(np.eye(3)[[2, 1, 1, 1]]) == pytest.approx(4097.4, abs=0.1)


@pytest.mark.parametrize(
    ("discarded", "published"), [(0, 3898.6047529358507), (20_002, 3913.4325675884)]
)
def test_t2_regenerates_the_published_rollouts(paper, paper_q, discarded, published):
    rng = np.random.default_rng(3701)
    rng.normal(size=(4, 3, 4))
    rng.normal(size=4)
    rng.uniform(size=discarded)
    cdf, action, reward = paper.transition.cumsum(-1), paper_q.argmax(-1), paper.reward.ravel()
    state, total = 0, 0.0
    for level in rng.uniform(size=10_001):
        state = np.searchsorted(cdf[state, action[state]], level, side="right")
        total += reward[state]
    assert total == pytest.approx(published, abs=1e-6)


def test_stationary_distribution_of_the_paper(paper):
    stationary = envs.stationary_distribution(paper, envs.uniform_policy(paper))
    np.testing.assert_allclose(stationary, [0.306484, 0.285067, 0.219552, 0.188897], atol=1e-6)


def test_linear_theory_of_the_paper(paper, paper_q):
    theory = envs.linear_theory(paper, envs.uniform_policy(paper))
    assert theory.trace_steady_state == pytest.approx(2.908475, abs=1e-6)
    assert theory.trace_noise == pytest.approx(0.387171, abs=1e-6)
    assert theory.rate == pytest.approx(0.0322156, abs=1e-7)
    np.testing.assert_allclose(theory.A @ theory.S + theory.S @ theory.A.T, theory.C, atol=1e-13)
    softmax = envs.linear_theory(paper, envs.softmax_policy(paper_q))
    assert softmax.trace_steady_state == pytest.approx(2.7617, abs=1e-4)
    time = envs.time_to_threshold(theory, 0.005, np.sum(paper_q**2), 0.1)
    assert time == pytest.approx(76.40 / 0.005, rel=1e-3)
    assert envs.steady_state(theory, 0.032, 16) == pytest.approx(0.002 * 2.908475, rel=1e-6)


def test_drift_grows_by_the_noise_and_saturates_at_independent_learners(paper):
    theory = envs.linear_theory(paper, envs.uniform_policy(paper))
    alpha = 1e-3
    covariance, trace = np.zeros_like(theory.C), []
    contraction = np.eye(12) - alpha * theory.A
    for _ in range(51):
        trace.append(np.trace(covariance))
        covariance = contraction @ covariance @ contraction.T + alpha**2 * theory.C
    growth = envs.drift(theory, alpha, 50)
    np.testing.assert_allclose(growth, trace, rtol=1e-12)
    assert growth[1] == pytest.approx(alpha**2 * theory.trace_noise)
    saturated = envs.drift(theory, 0.05, 5_000)[-1]
    assert saturated == pytest.approx(envs.steady_state(theory, 0.05), rel=0.01)


def test_the_choice_of_action_matters_as_much_as_published():
    """The table of the generator: at power 15 the median gap over 300 MDPs is 0.61 sd(R)."""
    gaps = []
    for seed in range(300):
        mdp = envs.random_mdp(seed)
        greedy = envs.greedy_policy(envs.optimal_q(mdp))
        policies = (greedy, envs.uniform_policy(mdp))
        # Some kernels of point masses have no unique stationary distribution.
        best, random = (envs.expected_return(mdp, policy, 500) / 500 for policy in policies)
        gaps.append((best - random) / np.std(mdp.reward))
    assert 0.5 < np.median(gaps) < 0.72


# Probes with answers worked out by hand


def test_switch_is_solved():
    mdp = switch_mdp(discount=0.5)
    # Stay in state 1 for ever: 1 / (1 - 0.5) = 2; one step away from it costs the factor 0.5.
    np.testing.assert_allclose(envs.optimal_q(mdp), [[1.0, 2.0], [2.0, 1.0]], atol=1e-13)
    np.testing.assert_array_equal(envs.expected_reward(mdp), [[0, 1], [1, 0]])
    uniform = envs.uniform_policy(mdp)
    # Half a reward a step, for ever: 0.5 / (1 - 0.5).
    np.testing.assert_allclose(envs.policy_value(mdp, uniform), [1.0, 1.0])
    np.testing.assert_allclose(envs.policy_q(mdp, uniform), [[0.5, 1.5], [1.5, 0.5]])
    np.testing.assert_allclose(envs.stationary_distribution(mdp, uniform), [0.5, 0.5])
    assert envs.average_reward(mdp, uniform) == pytest.approx(0.5)
    # From state 0 always switch: arrives in 1, 0, 1.
    assert envs.expected_return(mdp, np.array([[0, 1], [0, 1]]), 3) == pytest.approx(2.0)
    assert envs.expected_return(mdp, uniform, 0) == 0.0


def test_without_discount_values_are_rewards_and_theory_is_in_closed_form():
    mdp = envs.tabular_mdp(np.full((1, 1, 1), 1.0), [3.0], 0.0)
    np.testing.assert_array_equal(envs.optimal_q(mdp), [[3.0]])
    fair = envs.tabular_mdp(np.full((2, 1, 2), 0.5), [0.0, 2.0], 0.0)
    theory = envs.linear_theory(fair, envs.uniform_policy(fair))
    # mu = 1/2, variance 1: A = I / 2, C = I / 2, S = I / 2.
    for matrix in (theory.A, theory.C, theory.S):
        np.testing.assert_allclose(matrix, np.eye(2) / 2)
    assert theory.rate == pytest.approx(0.5)


def test_bandit_prefers_the_better_arm():
    mdp = envs.tabular_mdp(np.ones((1, 3, 1)), np.array([[1.0], [3.0], [2.0]]), 0.75)
    np.testing.assert_allclose(envs.optimal_q(mdp), [[10.0, 12.0, 11.0]], atol=1e-12)
    np.testing.assert_array_equal(envs.greedy_policy(envs.optimal_q(mdp)), [[0, 1, 0]])
    np.testing.assert_allclose(envs.softmax_policy([[0.0, np.log(3)]], beta=2.0), [[0.1, 0.9]])
    np.testing.assert_array_equal(envs.greedy_policy([[1.0, 1.0]]), [[1, 0]])


def exact_values(kernel, reward, discount):
    """q* [S, U] less q*(0, 0), and that entry, by policy iteration in rational numbers."""
    num, actions, _ = kernel.shape
    rows = [[[Fraction(float(p)) for p in row] for row in rows] for rows in kernel]
    gains = [[Fraction(float(r)) for r in row] for row in reward]
    gamma, policy = Fraction(float(discount)), [0] * num
    while True:
        system = [
            [(i == j) - gamma * rows[i][policy[i]][j] for j in range(num)] + [gains[i][policy[i]]]
            for i in range(num)
        ]
        for k in range(num):  # Gauss and Jordan; the pivots are above 0
            system[k] = [x / system[k][k] for x in system[k]]
            for i in set(range(num)) - {k}:
                system[i] = [
                    x - system[i][k] * y for x, y in zip(system[i], system[k], strict=True)
                ]
        value = [line[-1] for line in system]
        q = [
            [
                gains[s][a] + gamma * sum(map(operator.mul, rows[s][a], value))
                for a in range(actions)
            ]
            for s in range(num)
        ]
        better = [
            max(range(actions), key=lambda a, s=s: (q[s][a], a == policy[s])) for s in range(num)
        ]
        if better == policy:
            return np.array([[float(x - q[0][0]) for x in line] for line in q]), float(q[0][0])
        policy = better


@pytest.mark.parametrize("discount", [0.0, 0.9, 0.99, 0.9999999, 1 - 1e-9, 1 - 1e-12])
def test_optimal_values_are_those_of_exact_arithmetic(discount):
    """Levels and differences, to rounding; also where the best policy leaves states apart."""
    rng = np.random.default_rng(1)
    apart = np.eye(4)[rng.integers(4, size=(4, 2))]
    apart[0, :], apart[1, :] = np.eye(4)[0], np.eye(4)[1]
    for kernel in (rng.dirichlet(np.full(4, 0.3), (4, 2)), apart):
        reward = rng.standard_normal((4, 2))
        mdp = envs.tabular_mdp(kernel, reward[:, :, None], discount)
        differences, level = exact_values(kernel, reward, discount)
        found = optimal.optimal_split(mdp)
        size = np.abs(differences).max()
        assert found.apart - found.apart[0, 0] == pytest.approx(differences, abs=1e-13 * size)
        assert envs.optimal_q(mdp)[0, 0] == pytest.approx(level, rel=1e-13)
        value = envs.optimal_q(mdp).max(-1)
        greedy = envs.greedy_policy(found.apart)
        assert envs.policy_value(mdp, greedy) == pytest.approx(value, rel=1e-12)


def test_soft_optimal_values_solve_their_equation_at_every_discount():
    rng = np.random.default_rng(2)
    kernel, reward = rng.dirichlet(np.full(3, 0.3), (3, 2)), rng.standard_normal((3, 2))
    for discount, entropy in ((0.5, 1.0), (0.99, 1e-3), (0.9999999, 0.3)):
        mdp = envs.tabular_mdp(kernel, reward[:, :, None], discount)
        value = optimal.soft_optimal_values(mdp, entropy)
        ahead = (reward + discount * kernel @ value) / entropy
        again = entropy * scipy.special.logsumexp(ahead, axis=-1)
        assert again == pytest.approx(value, rel=1e-13)


def test_values_that_diverge_are_refused():
    """Rows stored in float32 may exceed one by more than a discount near 1 leaves."""
    kernel = np.full((2, 1, 2), 0.5 + 2e-7)
    with pytest.raises(ValueError, match="allowed: sums below 1 / discount"):
        envs.optimal_q(envs.tabular_mdp(kernel, [0.0, 1.0], 0.9999999))


@pytest.mark.parametrize(
    "discount", [pytest.param(d, marks=pytest.mark.thorough) for d in (0.9, 0.99)] + [0.999]
)
def test_traced_optimal_values_are_the_concrete_ones_with_their_derivative(discount):
    mdp = envs.random_mdp(5, discount=discount)
    weights = np.random.default_rng(0).standard_normal((4, 3))

    def total(mdp):
        found = optimal.optimal_split(mdp)
        return (weights * (found.gain / (1 - mdp.discount) + found.apart)).sum()

    with jax.enable_x64(True):
        exact = envs.optimal_q(mdp)
        slope = jax.jit(jax.grad(lambda r, d: total(mdp.replace(reward=r, discount=d)), (0, 1)))
        by_reward, by_discount = slope(jnp.asarray(mdp.reward), jnp.asarray(discount))
        scaled = jax.vmap(lambda x: total(mdp.replace(reward=x * mdp.reward)))
        np.testing.assert_allclose(
            scaled(jnp.array([1.0, 2.0])), np.array([1, 2]) * (weights * exact).sum()
        )

    def moved(**change):
        return np.sum(weights * envs.optimal_q(mdp.replace(**change)))

    for place in range(4):
        step = 1e-6 * (np.arange(4) == place)
        slope = (moved(reward=mdp.reward + step) - moved(reward=mdp.reward - step)) / 2e-6
        assert by_reward.ravel()[place] == pytest.approx(slope, rel=1e-5, abs=1e-5)
    h = 1e-7 * (1 - discount)
    up, down = (moved(discount=np.float64(discount + sign * h)) for sign in (1, -1))
    assert float(by_discount) == pytest.approx((up - down) / (2 * h), rel=1e-4)


def test_transient_states_and_tiny_links():
    # State 0 leaks into a pair held together by 1e-30 one way and 3e-30 the other.
    tiny = 1e-30
    transition = np.array([[[0.5, 0.5, 0]], [[0, 1 - tiny, tiny]], [[0, 3 * tiny, 1 - 3 * tiny]]])
    mdp = envs.tabular_mdp(transition, np.zeros(3), 0.9)
    stationary = envs.stationary_distribution(mdp, envs.uniform_policy(mdp))
    np.testing.assert_allclose(stationary, [0, 0.75, 0.25], rtol=1e-14)


def test_unanswerable_questions_are_refused(paper):
    with pytest.raises(ValueError, match=r"\[\[0\], \[1\]\] are separate recurrent classes"):
        envs.stationary_distribution(two_rooms(), np.ones((2, 1)))
    with pytest.raises(ValueError, match="state 0 with action 1"):
        envs.linear_theory(paper, np.tile([0.5, 0.0, 0.5], (4, 1)))
    with pytest.raises(ValueError, match="allowed: one MDP"):
        envs.optimal_q(envs.random_mdps([0, 1]))
    with pytest.raises(ValueError, match="policy has shape"):
        envs.policy_value(paper, np.ones((4, 1)))
    with pytest.raises(ValueError, match="allowed: rows of sum 1"):
        envs.policy_value(paper, np.ones((4, 3)))
    theory = envs.linear_theory(paper, envs.uniform_policy(paper))
    with pytest.raises(ValueError, match="threshold is 20"):
        envs.time_to_threshold(theory, 0.1, 13.7, 20)


# The record and its constructor


def test_rewards_of_every_rank():
    transition = np.full((2, 3, 2), 0.5)
    by_next = envs.tabular_mdp(transition, [1.0, 2.0], 0.5)
    assert by_next.reward.shape == (1, 1, 2)
    by_action = envs.tabular_mdp(transition, np.arange(6.0).reshape(3, 2), 0.5)
    assert by_action.reward.shape == (1, 3, 2)
    np.testing.assert_array_equal(envs.expected_reward(by_action), [[0.5, 2.5, 4.5]] * 2)
    by_pair = envs.tabular_mdp(transition, np.arange(6.0).reshape(2, 3, 1), 0.5)
    np.testing.assert_array_equal(envs.expected_reward(by_pair), [[0, 1, 2], [3, 4, 5]])
    family = envs.tabular_mdp(np.full((5, 2, 3, 2), 0.5), [1.0, 2.0], 0.5, np.arange(5) % 2)
    assert [getattr(family, name).shape for name in LEAVES] == [
        (5, 2, 3, 2),
        (5, 1, 1, 2),
        (5,),
        (5,),
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"transition": np.full((2, 1, 2), 0.6)}, r"row sum of transition\[0, 0\] is 1.2"),
        ({"transition": np.full((2, 1, 3), 1 / 3)}, r"transition has shape \(2, 1, 3\)"),
        ({"transition": [[[1.5, -0.5]], [[0.5, 0.5]]]}, r"transition\[0, 0, 1\] is -0.5"),
        ({"transition": np.full((2, 1, 2), np.nan)}, r"transition\[0, 0, 0\] is nan"),
        ({"reward": [1.0, 2.0, 3.0]}, r"reward has shape \(3,\)"),
        ({"reward": 1.0}, r"reward has shape \(\)"),
        ({"reward": np.zeros((5, 2, 1, 2))}, "reward has shape"),
        ({"reward": [0.0, np.inf]}, "reward.* is inf; allowed: finite"),
        ({"discount": 1.0}, r"discount is 1.0; allowed: in \[0, 1\)"),
        ({"discount": -0.1}, "discount is -0.1"),
        ({"discount": np.nan}, "discount is nan"),
        ({"discount": [0.5, 0.5]}, r"discount has shape \(2,\)"),
        ({"initial_state": 2}, r"initial_state is 2; allowed: from 0 to 1"),
        ({"initial_state": -1}, "initial_state is -1"),
        ({"initial_state": 0.5}, "initial_state has dtype float64"),
    ],
)
def test_bad_parts_are_named(change, message):
    parts = {"transition": np.full((2, 1, 2), 0.5), "reward": [0.0, 1.0], "discount": 0.9}
    envs.tabular_mdp(**parts)
    with pytest.raises(ValueError, match=message):
        envs.tabular_mdp(**(parts | change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"transition": np.full((2, 1, 2), np.nan)}, r"mdp.transition\[0, 0, 0\] is nan; allowed"),
        ({"transition": np.ones((2, 1, 2))}, r"the row sum of mdp.transition\[0, 0\] is 2.0"),
        ({"transition": np.ones((2, 2))}, r"mdp.transition has shape \(2, 2\); allowed"),
        ({"transition": "x"}, "mdp.transition is 'x'; allowed: an array of real numbers"),
        ({"reward": np.full((1, 1, 2), 1e39)}, r"mdp.reward\[0, 0, 0\] is 1e\+39; allowed: finite"),
        ({"reward": np.zeros((7, 7, 7))}, r"mdp.reward has shape \(7, 7, 7\); allowed"),
        ({"reward": np.zeros(2)}, r"mdp.reward has shape \(2,\); allowed"),
        ({"discount": 1.0}, r"mdp.discount is 1.0; allowed: in \[0, 1\)"),
        ({"discount": np.full(3, 0.5)}, r"mdp.discount has shape \(3,\)"),
        ({"discount": None}, "mdp.discount is None; allowed"),
        ({"initial_state": np.int32(99)}, "mdp.initial_state is 99; allowed: from 0 to 1"),
        ({"initial_state": 0.0}, "mdp.initial_state has dtype float64"),
        ({"initial_distribution": np.array([0.5, 0.6])}, "mdp.initial_distribution .* 1.1"),
    ],
)
def test_records_put_together_by_hand_are_checked(change, message):
    mdp = envs.tabular_mdp(np.full((2, 1, 2), 0.5), [0.0, 1.0], 0.9)
    check_mdp(mdp)
    with pytest.raises(ValueError, match=message):
        check_mdp(mdp.replace(**change))


def test_traced_parts_are_checked_by_their_shapes():
    mdp = envs.tabular_mdp(np.full((2, 1, 2), 0.5), [0.0, 1.0], 0.9)

    def inside(reward, discount):
        check_mdp(mdp.replace(reward=reward, discount=discount))
        with pytest.raises(ValueError, match=r"mdp\.reward has shape"):
            check_mdp(mdp.replace(reward=reward[0]))
        return discount

    jax.jit(inside)(mdp.reward, 0.5)
    check_mdp(mdp.replace(discount=1.0), undiscounted=True)
    for nothing in (None, "x", 3, [mdp], envs.simple_grid()):
        with pytest.raises(ValueError, match=r"mdp is .*; allowed: a TabularMDP"):
            check_mdp(nothing)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reward": "cauchy"}, "reward is 'cauchy'; allowed: 'normal_next_state'"),
        ({"power": -1.0}, "power is -1.0; allowed: finite and at least 0"),
        ({"power": 1e6}, "power is 1000000.0, of which a kernel is nan"),
        ({"num_states": 0}, "num_states is 0; allowed: a whole number of at least 1"),
        ({"reward_scale": -2.0}, "reward_scale is -2.0"),
        ({"discount": 1.5}, "discount is 1.5"),
        ({"seed": None}, "seed is None; allowed: a whole number from 0 to 4294967295"),
        ({"seed": 2**32}, "seed is 4294967296; allowed"),
        ({"signed": "x"}, "signed is 'x'; allowed: True or False"),
        ({"num_states": 3.0}, "num_states is 3.0; allowed: a whole"),
        ({"num_states": 10**5}, r"num_states is 100000, a table of 3e\+10 entries; allowed"),
    ],
)
def test_bad_generator_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        envs.random_mdp(**options)


def test_record_passes_through_transformations(paper):
    assert jax.tree.structure(paper).num_leaves == 4
    value = jax.jit(lambda mdp: jnp.sum(mdp.transition) * mdp.discount)(paper)
    assert value == pytest.approx(12 * 0.6, rel=1e-6)
    mdps = envs.random_mdps(range(3))
    assert jax.vmap(lambda mdp: mdp.transition[0, 0, 0])(mdps).shape == (3,)

    def mean_reward(reward):
        mdp = paper.replace(reward=reward)
        return jnp.sum(jnp.asarray(mdp.transition)[0, 0] * mdp.reward[0, 0])

    gradient = jax.grad(mean_reward)(jnp.asarray(paper.reward))
    np.testing.assert_allclose(gradient[0, 0], paper.transition[0, 0], rtol=1e-6)


# Generators


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_states=st.integers(1, 6),
    num_actions=st.integers(1, 4),
    power=st.floats(0, 40),
    signed=st.booleans(),
    kernel=st.floats(0, 1),
)
def test_rows_sum_to_one(seed, num_states, num_actions, power, signed, kernel):
    mdp = envs.random_mdp(seed, num_states, num_actions, power, signed)
    family = envs.perturbed_mdps(mdp, 3, seed, kernel=kernel, reward=1.0)
    mean = envs.average_mdp(family)
    for some in (mdp, family, mean):
        assert np.all(some.transition >= 0)
        np.testing.assert_allclose(some.transition.sum(-1), 1, rtol=0, atol=1e-13)
    assert mean.transition.shape == (num_states, num_actions, num_states)


@pytest.mark.parametrize("power", [0.0, 0.5, 2.5, 4.0])
def test_any_power_keeps_the_sign_unless_told(power):
    z = np.random.default_rng(5).normal(size=(2, 2, 2))
    signed = envs.random_mdp(5, 2, 2, power).transition
    unsigned = envs.random_mdp(5, 2, 2, power, signed=False).transition
    for transition, logits in (
        (signed, np.sign(z) * abs(z) ** power),
        (unsigned, abs(z) ** power),
    ):
        ratio = np.log(transition[..., 1] / transition[..., 0])
        np.testing.assert_allclose(ratio, logits[..., 1] - logits[..., 0], rtol=1e-9, atol=1e-12)


def test_reward_variants():
    exponential = envs.random_mdp(1, reward="exponential_next_state", reward_scale=3.0)
    assert exponential.reward.shape == (1, 1, 4)
    assert np.all(exponential.reward > 0)
    by_action = envs.random_mdp(1, reward="normal_action_next_state")
    assert by_action.reward.shape == (1, 3, 4)
    unit, scaled = envs.random_mdp(1), envs.random_mdp(1, reward_scale=3.0)
    np.testing.assert_array_equal(scaled.reward, 3.0 * unit.reward)
    np.testing.assert_array_equal(scaled.transition, unit.transition)


def test_families_hold_their_members():
    mdps = envs.random_mdps([4, 7], num_states=3, discount=0.9)
    assert_same_bits(member(mdps, 1), envs.random_mdp(7, num_states=3, discount=0.9))
    by_action = envs.random_mdp(0, reward="normal_action_next_state")
    mixed = envs.stack_mdps([envs.random_mdp(0), by_action])
    assert mixed.reward.shape == (2, 1, 3, 4)
    with pytest.raises(ValueError, match=r"mdps is .*allowed: a sequence of TabularMDPs"):
        envs.stack_mdps([])
    with pytest.raises(ValueError, match="allowed: the same number of states"):
        envs.stack_mdps([envs.random_mdp(0), envs.random_mdp(0, num_states=5)])


def test_level_zero_is_the_base_bit_for_bit(paper):
    family = envs.perturbed_mdps(paper, 3, seed=1)
    for index in range(3):
        assert_same_bits(member(family, index), paper)


def test_levels_are_independent_per_agent_and_scale_the_same_draws(paper):
    family = envs.perturbed_mdps(paper, 2, 1, kernel=[0.0, 0.4], reward=[0.2, 0.0])
    np.testing.assert_array_equal(family.transition[0], paper.transition)
    np.testing.assert_array_equal(family.reward[1], paper.reward)
    assert np.all(family.reward[0] != paper.reward)
    full = envs.perturbed_mdps(paper, 2, 1, kernel=1.0, reward=1.0)
    np.testing.assert_allclose(
        family.transition[1], 0.6 * paper.transition + 0.4 * full.transition[1], rtol=1e-14
    )
    larger = envs.perturbed_mdps(paper, 5, 1, kernel=1.0, reward=1.0)
    for index in range(2):
        assert_same_bits(member(larger, index), member(full, index))
    for level in ({"kernel": 1.5}, {"kernel": [0.1] * 3}, {"reward": -1.0}):
        with pytest.raises(ValueError, match=next(iter(level))):
            envs.perturbed_mdps(paper, 2, **level)
    with pytest.raises(ValueError, match="num_agents is 0"):
        envs.perturbed_mdps(paper, 0)
    with pytest.raises(ValueError, match="mdp has a kernel of shape"):
        envs.perturbed_mdps(family, 2)


def test_average_of_a_family(paper):
    family = envs.random_mdps([0, 1])
    mean = envs.average_mdp(family)
    np.testing.assert_allclose(mean.transition, (family.transition[0] + family.transition[1]) / 2)
    np.testing.assert_allclose(mean.reward, (family.reward[0] + family.reward[1]) / 2)
    with pytest.raises(ValueError, match="mdps has a kernel of shape"):
        envs.average_mdp(paper)
    with pytest.raises(ValueError, match="discount takes the values"):
        envs.average_mdp(family.replace(discount=np.array([0.5, 0.6])))


# The environment


def rollout(key, mdp, policy, num_steps):
    """Sum of rewards of one rollout; ``policy`` [S, U]."""
    env = envs.TabularEnv()
    cdf = jnp.cumsum(jnp.asarray(policy), axis=-1)

    def step(carry, step_key):
        state, total = carry
        action_key, env_key = jax.random.split(step_key)
        action = jnp.sum(cdf[state] <= jax.random.uniform(action_key), dtype=jnp.int32)
        _, state, reward, _, _, _ = env.step(env_key, state, action, mdp)
        return (state, total + reward), None

    _, state = env.reset(key, mdp)
    start = (state, jnp.zeros(()))
    (_, total), _ = jax.lax.scan(step, start, jax.random.split(key, num_steps))
    return total


def test_switch_steps_where_it_must():
    env, mdp, key = envs.TabularEnv(), switch_mdp(), jax.random.key(0)
    obs, state = env.reset(key, mdp)
    assert (int(obs), int(state)) == (0, 0)
    for step in (env.step, jax.jit(env.step)):
        for now, action, after in [(0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 0)]:
            obs, state, reward, terminated, truncated, info = step(
                key, jnp.asarray(now), jnp.asarray(action), mdp
            )
            assert (int(obs), int(state), float(reward)) == (after, after, after)
            assert obs.dtype == jnp.int32
            assert (bool(terminated), bool(truncated), info) == (False, False, {})


def test_full_rewards_are_looked_up_at_all_three_indices():
    transition = np.stack([np.eye(2), 1 - np.eye(2)], axis=1)
    table = np.arange(8.0).reshape(2, 2, 2)
    mdp = envs.tabular_mdp(transition, table, 0.9)
    step = functools.partial(envs.TabularEnv().step, jax.random.key(0), params=mdp)
    for state in range(2):
        for action in range(2):
            _, after, reward, *_ = step(jnp.asarray(state), jnp.asarray(action))
            assert float(reward) == table[state, action, int(after)]


def test_next_states_follow_the_row_and_skip_impossible_ones():
    row = np.array([0.0, 0.2, 0.0, 0.8, 0.0])
    mdp = envs.tabular_mdp(np.broadcast_to(row, (5, 1, 5)), np.zeros(5), 0.9)
    zero = jnp.zeros((), jnp.int32)
    draw = lambda key: envs.TabularEnv().step(key, zero, zero, mdp)[1]
    states = jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(1), 20_000))
    frequency = np.bincount(states, minlength=5) / 20_000
    np.testing.assert_array_equal(frequency[[0, 2, 4]], 0)
    assert frequency[1] == pytest.approx(0.2, abs=3 * np.sqrt(0.16 / 20_000))


def test_agents_of_a_family_do_not_leak_into_each_other():
    mdps = envs.perturbed_mdps(envs.random_mdp(0), 3, kernel=1.0, reward=1.0)
    keys = jax.random.split(jax.random.key(2), 3)
    policy = envs.uniform_policy(mdps)
    together = jax.vmap(lambda key, mdp: rollout(key, mdp, policy, 50))(keys, mdps)
    for index in range(3):
        alone = rollout(keys[index], member(mdps, index), policy, 50)
        np.testing.assert_allclose(together[index], alone, rtol=1e-5)


def test_rollouts_have_the_exact_expectation(paper, paper_q):
    """T2 and T3: the mean of 100 rollouts of 10 001 steps lies within 3 standard errors."""
    policies = jnp.stack([envs.uniform_policy(paper), envs.greedy_policy(paper_q)])
    run = lambda key, policy: rollout(key, paper, policy, 10_001)
    keys = jax.random.split(jax.random.key(0), 100)
    totals = np.asarray(jax.jit(jax.vmap(jax.vmap(run, (0, None)), (None, 0)))(keys, policies))
    for total, expected, spread in zip(totals, (1210.06, 3915.74), (72, 58), strict=True):
        assert total.mean() == pytest.approx(expected, abs=3 * spread / 10)
        assert total.std() == pytest.approx(spread, rel=0.25)


def test_large_tables_never_draw_what_has_no_probability():
    """Cumulative sums of long rows, compiled, rise by a rounding where the probability is 0."""
    size, rows = 600, 40
    rng = np.random.default_rng(0)
    table = rng.dirichlet(np.full(size, 0.05), rows)
    table[table < 1e-3] = 0
    table = (table / table.sum(-1, keepdims=True)).astype(np.float32)
    sums = np.asarray(jax.jit(jax.vmap(jnp.cumsum))(table))
    rises = [(r, j) for r in range(rows) for j in range(1, size) if table[r, j] == 0]
    rises = [(r, j) for r, j in rises if sums[r, j] > sums[r, :j].max()]

    def draw(level, row):
        return tabular_env.draw(level, jnp.asarray(table), row)

    # Levels are multiples of 2^-23: few keys fall into such a gap, so levels are set to each.
    levels = jnp.asarray([sums[r, j] / sums[r, -1] for r, j in rises] or [0.5], jnp.float32)
    places = jnp.asarray([r for r, _ in rises] or [0], jnp.int32)
    for level in (levels, jnp.ones_like(levels), jnp.full_like(levels, 1e-7)):
        drawn = np.asarray(jax.jit(draw)(level, places))
        assert np.all(table[np.asarray(places), drawn] > 0)
    levels = 1 - jax.random.uniform(jax.random.key(0), (20_000,))
    drawn = np.bincount(jax.jit(draw)(levels, jnp.int32(3)), minlength=size) / 20_000
    np.testing.assert_allclose(drawn, table[3], atol=0.012)
