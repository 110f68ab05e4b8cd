"""Derivatives of outcomes: against enumeration, by hand, and refused by name."""

import dataclasses
import importlib
import itertools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedjax_rl as frl
from fedjax_rl.learners import draws

# Two states, two actions; each action leads to the state of its number.
REWARD = np.array([[1.0, 0.2], [0.4, -0.5]])
STEPS, AGENTS = 3, 2


def two_states():
    transition = np.broadcast_to(np.eye(2), (2, 2, 2))
    reward = REWARD[:, :, None]
    return frl.envs.TabularMDP(transition, reward, discount=0.8, initial_state=0)


def enumerated(rate, epsilon, beta, start):
    """The mean final error of two agents that average after every step, over all they may do."""
    q_star = np.zeros((2, 2))
    for _ in range(2_000):
        q_star = REWARD + 0.8 * q_star.max(axis=1)[None, :]

    def after(table, states, left):
        if not left:
            return np.sum((table - q_star) ** 2)
        total = 0.0
        for actions in itertools.product(range(2), repeat=AGENTS):
            chance, tables, nexts = 1.0, [], []
            for state, action in zip(states, actions, strict=True):
                weights = np.exp(beta * table[state])
                greedy = weights[action] / weights.sum()
                chance *= epsilon / 2 + (1 - epsilon) * greedy
                own = table.copy()
                target = REWARD[state, action] + 0.8 * table[action].max()
                own[state, action] += rate * (target - own[state, action])
                tables.append(own)
                nexts.append(action)
            total += chance * after(np.mean(tables, axis=0), nexts, left - 1)
        return total

    return after(start * np.array([[0.3, 0.1], [0.2, -0.4]]), [0] * AGENTS, STEPS)


AT = {"learning_rate": 0.4, "epsilon": 0.2, "beta": 2.0}
FIRST = np.array([[0.3, 0.1], [0.2, -0.4]])


def algorithm(**properties):
    return frl.fedq(two_states(), **{**AT, "initial_q": FIRST, "derivative": "score", **properties})


def asked(own=None, by=tuple(AT), **more):
    sizes = {"num_agents": AGENTS, "num_steps": STEPS, "seeds": range(8)}
    return frl.differentiate(own or algorithm(), "error_server", by, **{**sizes, **more})


def slope(name, step=1e-4):
    up, down = ({**AT, name: AT[name] + s} for s in (step, -step))
    values = [enumerated(*at.values(), 1.0) for at in (up, down)]
    return (values[0] - values[1]) / (2 * step)


def test_scores_have_the_derivatives_of_the_mean_over_everything_that_may_be_drawn():
    found = asked(seeds=range(40_000))
    assert abs(found.value - enumerated(*AT.values(), 1.0)) < 4 * found.error
    for name in AT:
        error = float(found.errors[name])
        assert abs(found.derivatives[name] - slope(name)) < 4 * error
        # Tight enough to tell: without the scores it is another number.
        assert error < 0.03 * abs(slope(name)), name


@pytest.mark.thorough
def test_second_derivatives_are_those_of_the_mean_too():
    found = asked(by=["learning_rate", "beta"], seeds=range(200_000), second=True)

    def mean(rate, beta):
        return enumerated(rate, AT["epsilon"], beta, 1.0)

    x, y, h = AT["learning_rate"], AT["beta"], 1e-3
    cross = mean(x + h, y + h) - mean(x + h, y - h) - mean(x - h, y + h) + mean(x - h, y - h)
    right = {
        ("learning_rate", "learning_rate"): (mean(x + h, y) - 2 * mean(x, y) + mean(x - h, y))
        / h**2,
        ("beta", "beta"): (mean(x, y + h) - 2 * mean(x, y) + mean(x, y - h)) / h**2,
        ("learning_rate", "beta"): cross / (4 * h**2),
    }
    for (one, other), value in right.items():
        error = found.second_errors[one][other]
        assert abs(found.second[one][other] - value) < 4 * error
        assert error < 0.2 * abs(value) + 0.01


@pytest.mark.thorough
def test_both_modes_and_other_devices_find_the_same_and_values_need_no_new_program():
    module = importlib.import_module("fedjax_rl.sweeps.differentiate")
    one = asked()
    before = len(module._PROGRAMS)
    again = asked(algorithm(learning_rate=0.3))
    assert len(module._PROGRAMS) == before
    assert again.value != one.value
    forward, spread = asked(mode="forward"), asked(devices=2)
    for other in (forward, spread):
        for ours, theirs in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
            np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("mode", "count", "devices"),
    [
        ("reverse", 5, 4),
        pytest.param("forward", 7, 3, marks=pytest.mark.thorough),
        pytest.param("forward", 1, 8, marks=pytest.mark.thorough),
    ],
)
def test_seeds_that_no_number_of_devices_divides_are_spread(mode, count, devices):
    """A copy that fills a place has no part in any mean, error or baseline."""
    more = {"seeds": range(count), "mode": mode, "second": mode == "forward"}
    one, spread = asked(**more), asked(devices=devices, **more)
    assert spread.each["outcome"].shape == (count,)
    for ours, theirs in zip(jax.tree.leaves(one), jax.tree.leaves(spread), strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-6)


@pytest.mark.thorough
def test_it_is_part_of_a_program_that_asks_for_it():
    @jax.jit
    def inside(rate):
        return asked(algorithm(learning_rate=rate), by="learning_rate").derivatives["learning_rate"]

    outside = asked(by="learning_rate").derivatives["learning_rate"]
    np.testing.assert_allclose(inside(0.4), outside, rtol=1e-4)


@pytest.mark.thorough
def test_a_mean_over_records_pairs_each_with_the_draws_before_it():
    sizes = {"num_steps": 2, "record_every": 1, "seeds": range(4), "by": "learning_rate"}
    both = asked(average=2, baseline=False, **sizes)
    alone = [asked(baseline=False, **{**sizes, "num_steps": n}).each for n in (1, 2)]
    mean = (alone[0]["learning_rate"] + alone[1]["learning_rate"]) / 2
    np.testing.assert_allclose(both.each["learning_rate"], mean, rtol=1e-4)


@pytest.mark.thorough
def test_what_is_truncated_was_held_fixed():
    own = algorithm(epsilon=1.0, derivative=None, sync_period=2)
    sizes = {"num_agents": AGENTS, "num_steps": 8, "seeds": [3]}

    def last_round(rate):
        state = frl.init(own, AGENTS, seed=3)
        for _ in range(3):
            state, _ = frl.round(own, state)
        params = dataclasses.replace(
            state.params, agent={**state.params.agent, "learning_rate": jnp.full(AGENTS, rate)}
        )
        return frl.round(own, dataclasses.replace(state, params=params))[1]["error_server"]

    found = frl.differentiate(own, "error_server", truncation=1, **sizes)
    whole = frl.differentiate(own, "error_server", truncation=4, **sizes)
    plain = frl.differentiate(own, "error_server", **sizes)
    np.testing.assert_allclose(
        found.derivatives["learning_rate"], jax.grad(last_round)(0.4), rtol=1e-4
    )
    for ours, theirs in zip(jax.tree.leaves(whole), jax.tree.leaves(plain), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert found.derivatives["learning_rate"] != whole.derivatives["learning_rate"]


@pytest.mark.thorough
def test_relaxed_draws_are_the_draws_and_given_them_gumbel_variables():
    chances = np.array([0.5, 0.2, 0.3])
    key = jax.random.key(0)
    index = jax.random.choice(key, 3, (20_000,), p=jnp.asarray(chances))
    words = jax.random.bits(jax.random.fold_in(key, 1), (20_000, 3), jnp.uint32)
    logs = jnp.log(jnp.asarray(chances))

    def perturbed(index, words):
        """Log p + g, read from the derivative: that of a softmax says its probabilities."""
        slope = jax.jacrev(lambda x: draws.relaxed(index, x, words, 1.0))(logs)
        return draws.relaxed(index, logs, words, 1.0), slope

    hard, slope = jax.vmap(perturbed)(index, words)
    np.testing.assert_array_equal(np.asarray(hard), np.eye(3)[np.asarray(index)])
    # Of a softmax s the derivative is diag(s) - s s', off whose diagonal s can be read.
    s = -np.asarray(slope)
    share = s[:, 0, 1] * s[:, 0, 2] / s[:, 1, 2]
    first = np.sqrt(share)
    direct = np.random.default_rng(0).gumbel(size=(20_000, 3)) + np.log(chances)
    soft = np.exp(direct) / np.exp(direct).sum(axis=1, keepdims=True)
    for quantile in (0.1, 0.3, 0.5, 0.7, 0.9):
        ours, theirs = np.quantile(first, quantile), np.quantile(soft[:, 0], quantile)
        assert abs(ours - theirs) < 0.03


@pytest.mark.parametrize(
    "more",
    [
        {},
        *(
            pytest.param(each, marks=pytest.mark.thorough)
            for each in (
                {"visit_exponent": 0.6},
                {"aggregation": "importance"},
                {"reward_noise": 0.1},
                {"clock": frl.Clock("asynchronous")},
                {"uplink": frl.uplinks.partial(0.5)},
            )
        ),
    ],
)
def test_estimates_leave_the_run_as_it_is(more):
    own = algorithm(sync_period=3, **more)
    steps = 6 if own.periodic else 4
    runs = [
        frl.simulate(own.replace(derivative=way), num_agents=2, num_steps=steps).metrics
        for way in (None, "score", "relaxed")
    ]
    for other in runs[1:]:
        for metric, value in runs[0].items():
            np.testing.assert_allclose(other[metric], value, rtol=1e-6)


@pytest.mark.thorough
def test_biases_are_named():
    for way, says in {
        "pathwise": "leaves out how the draws",
        "relaxed": "is that of relaxed",
    }.items():
        with pytest.warns(UserWarning, match=f"derivative is '{way}' for fedq.*{says}.*biased"):
            asked(algorithm(derivative=way), by="learning_rate", num_steps=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asked(by="learning_rate", num_steps=1)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (
            {"by": "learning_rte"},
            "'learning_rte' is no property of fedq; did you mean learning_rate",
        ),
        ({"by": "sync_period"}, "by is 'sync_period', which is 1, which counts"),
        ({"by": "mixing"}, "by is 'mixing', which is None"),
        ({"by": "generator"}, "by is 'generator', which shapes the program"),
        ({"by": "relaxation"}, "by is 'relaxation', which shapes the program"),
        ({"by": []}, r"by is \[\]; allowed: names of properties"),
        ({"mode": "backward"}, "mode is 'backward'; allowed: "),
        ({"average": 4}, "average is 4; allowed: whole numbers from 1 to 3"),
        ({"truncation": 4}, "truncation is 4; allowed: whole numbers from 1 to 3"),
        ({"devices": 9}, "devices is 9; allowed: whole numbers from 1 to 8"),
        ({"seeds": [1, 1]}, r"seeds is \[1, 1\], which repeats"),
        ({"own": algorithm(derivative=None)}, "derivative is None for fedq"),
        ({"own": algorithm(participation=0.5), "by": "participation"}, "participation of fedq is"),
        ({"own": algorithm(uplink=frl.uplinks.top_k(1))}, "uplink top-k decides"),
        ({"own": algorithm(learning_rate=frl.schedule(lambda t: 0.1))}, "which is a schedule"),
    ],
)
def test_what_has_no_derivative_is_refused_by_name(more, says):
    with pytest.raises(ValueError, match=says):
        asked(**more)


def test_metrics_and_functions_are_looked_at():
    sizes = {"num_agents": 2, "num_steps": 2}
    with pytest.raises(ValueError, match="'error' is no metric of fedq"):
        frl.differentiate(algorithm(), "error", **sizes)
    with pytest.raises(ValueError, match=r"outcome gives an array \[2\]"):
        frl.differentiate(algorithm(), lambda metrics: metrics["error_server"], **sizes)
    with pytest.raises(FloatingPointError, match="by learning_rate is not finite for 2 of 2"):
        frl.differentiate(
            algorithm(), lambda m: jnp.sqrt(0 * m["error_server"][-1]), seeds=[0, 1], **sizes
        )


def test_a_score_without_an_outcome_is_refused():
    own = algorithm()

    def value(x):
        run = frl.simulate(own.replace(learning_rate=x), num_agents=2, num_steps=1)
        return run.metrics["error_server"][-1]

    with pytest.raises(ValueError, match=r"derivative is 'score' .* allowed: frl.differentiate"):
        jax.eval_shape(jax.grad(value), 0.1)


def test_algorithms_say_which_derivatives_they_estimate():
    with pytest.raises(
        ValueError, match=r"derivative is 'score', which fedq does not .*'pathwise'"
    ):
        frl.fedq(two_states(), behaviour="greedy", derivative="score")
    with pytest.raises(ValueError, match="derivative is 'relaxed', which es does not estimate"):
        frl.es(frl.envs.simple_grid(), derivative="relaxed")


def test_a_rate_that_falls_by_comparing_is_refused():
    own = frl.fedpg(
        frl.envs.dirichlet_mdps(2),
        gradient="exact",
        learning_rate=frl.on_plateau(0.1, metric="gap", patience=1, better="lower"),
    )

    def value(x):
        run = frl.simulate(own.replace(server_learning_rate=x), num_agents=2, num_steps=2)
        return run.metrics["gap"][-1]

    with pytest.raises(ValueError, match="learning_rate falls when gap has stopped"):
        jax.eval_shape(jax.grad(value), 1.0)


@pytest.mark.thorough
def test_the_derivatives_of_the_specification():
    """Section 9.2: of E[D^2] by alpha, softmax behaviour, finite differences of 24,576 runs."""
    for beta, right in {1.0: (-21.35, 0.09), 4.0: (-8.17, 0.16), 10.0: (-6.84, 0.13)}.items():
        own = frl.fedq(
            frl.envs.paper_mdp(),
            learning_rate=0.2,
            epsilon=0.0,
            beta=beta,
            sync_period=60,
            derivative="score",
        )
        found = frl.differentiate(
            own, "error_server", num_agents=2, num_steps=60, seeds=range(24_576)
        )
        slope, error = (x["learning_rate"] for x in (found.derivatives, found.errors))
        assert abs(slope - right[0]) < 3.5 * np.hypot(error, right[1]), beta
        assert error < 0.25


@pytest.mark.thorough
@pytest.mark.parametrize(
    "more",
    [
        {"clock": frl.Clock("asynchronous", distribution="exponential"), "sync_period": 3},
        {"clock": frl.Clock("semi-synchronous", wait_for=1), "sync_period": 3},
        {"uplink": frl.uplinks.partial(0.5), "sync_period": 2},
        {"aggregation": "importance", "sync_period": 3},
        {"visit_exponent": 0.6, "reward_noise": 0.3, "sync_period": 2},
        {"mixing": 0.5, "sync_period": 2},
    ],
)
def test_scores_are_right_whoever_is_heard_and_when(more):
    """Against differences of many runs on the same random words."""
    own = algorithm(beta=4.0, epsilon=0.1, **more)
    steps = 6 if own.periodic else 4
    found = asked(own, by="learning_rate", num_steps=steps, seeds=range(40_000))

    def end(rate, seed):
        one = own.replace(learning_rate=rate, derivative=None)
        run = frl.simulate(one, num_agents=AGENTS, num_steps=steps, seed=seed)
        return run.metrics["error_server"][-1]

    step, seeds = 0.02, jnp.arange(100_000, dtype=jnp.uint32)
    ends = jax.jit(jax.vmap(end, (None, 0)))
    apart = np.asarray(ends(0.4 + step, seeds) - ends(0.4 - step, seeds), np.float64) / (2 * step)
    slope, error = apart.mean(), apart.std() / np.sqrt(apart.size)
    both = np.hypot(error, found.errors["learning_rate"])
    assert abs(found.derivatives["learning_rate"] - slope) < 4 * both
    assert both < 0.1 * abs(slope)
