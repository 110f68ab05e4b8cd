"""Scores of evolution strategies, against the mean over all perturbations by quadrature.

An episode is one step and pays what jumps with its action, so that nothing but the density of the
perturbed parameters has a derivative. What a network sees is 0: only its bias b tells, and the
perturbations of b are integrated, on both sides of the jump.
"""

import functools
import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import fedjax_rl as frl

# An action above pays more; the bias with that action.
JUMP = 0.3
EDGE = np.arctanh(JUMP)
FURTHEST = 7.0  # of a normal variable that counts


def pays(action, xp=np):
    return xp.where(action > JUMP, 1.5, 0.2) - 0.5 * action


class Jump:
    """One action an episode, of whoever sees nothing."""

    def reset(self, key, params):
        return jnp.zeros(1), jnp.zeros(())

    def step(self, key, state, action, params):
        return jnp.zeros(1), state, pays(action[0], jnp), True, False, {}


TASK = frl.envs.as_task(
    Jump(), action=frl.envs.Continuous(1), max_steps=1, discount=1.0, name="jump"
)
AT = {"sigma": 0.5, "learning_rate": 0.4}


class Coin(Jump):
    """One of two actions, which shows in the end."""

    def step(self, key, state, action, params):
        shown = action.astype(float)[None]
        return shown, state, jnp.where(action == 1, *SIDES[::-1]), True, False, {}


SIDES = -1.0, 1.0
COIN = frl.envs.as_task(Coin(), action=2, max_steps=1, discount=1.0, name="coin")


def algorithm(make=frl.es, task=TASK, **properties):
    own = {"network": {"hidden": (), "initializer": "zeros"}, "optimizer": "sgd", "l2": 0.0}
    return make(task, **{**own, **AT, "derivative": "score", **properties})


# By quadrature ------------------------------------------------------------------------------------

NODES, WEIGHTS = np.polynomial.legendre.leggauss(20)


def perturbed(theta, sigma):
    """Perturbations of b with their weights: [M] -> two of [M, n]."""
    edge = np.clip((EDGE - theta) / sigma, -FURTHEST, FURTHEST)[:, None]
    noise, weight = [], []
    for low, high in ((-FURTHEST, edge), (edge, FURTHEST)):
        half = (high - low) / 2
        noise.append(low + half * (1 + NODES))
        weight.append(half * WEIGHTS * stats.norm.pdf(noise[-1]))
    return np.concatenate(noise, axis=1), np.concatenate(weight, axis=1)


def episode(theta, noise, sigma):
    return pays(np.tanh(theta + sigma * noise))


def paired(theta, sigma):
    """All perturbations of two agents: noise, returns and weights, [M, n n] each."""
    noise, weight = perturbed(theta, sigma)
    value = episode(theta[:, None], noise, sigma)
    size = noise.shape[1]
    one, other = (x.ravel() for x in np.indices((size, size)))
    return (
        [noise[:, one], noise[:, other]],
        [value[:, one], value[:, other]],
        weight[:, one] * weight[:, other],
    )


def mean_return(theta, sigma):
    """Of an episode around theta, of its shape."""
    noise, weight = perturbed(theta.ravel(), sigma)
    value = episode(theta.reshape(-1, 1), noise, sigma)
    return np.sum(weight * value, axis=1).reshape(theta.shape)


def after_two(at, shape=lambda values: values, heard=((True, True, 1.0),)):
    """The mean return in the second round of two agents."""
    theta, total = np.zeros(1), 0.0
    noise, value, weight = paired(theta, at["sigma"])
    value = shape([v + at.get("return_offset", 0.0) for v in value])
    for *who, chance in heard:
        mean = sum(h * v * e for h, v, e in zip(who, value, noise, strict=True))
        gradient = mean / max(sum(who), 1) / at["sigma"]
        moved = theta[:, None] + at["learning_rate"] * gradient
        total += chance * np.sum(weight * mean_return(moved, at["sigma"]))
    return total + at.get("return_offset", 0.0)


def ranks(values):
    return [np.sign(values[0] - values[1]) / 2, np.sign(values[1] - values[0]) / 2]


def centred(values):
    return [v - np.mean(values, axis=0) for v in values]


def after_three(at):
    """The mean return in the third round of one agent whose server has a momentum and a decay."""
    theta, velocity, weight = np.zeros(1), np.zeros(1), np.ones(1)
    for _ in range(2):
        noise, own = perturbed(theta, at["sigma"])
        value = episode(theta[:, None], noise, at["sigma"])
        gradient = value * noise / at["sigma"] - at["l2"] * theta[:, None]
        velocity = at["optimizer.momentum"] * velocity[:, None] + gradient
        theta = (theta[:, None] + at["learning_rate"] * velocity).ravel()
        velocity, weight = velocity.ravel(), (weight[:, None] * own).ravel()
    return np.sum(weight * mean_return(theta, at["sigma"]))


def arrived(at):
    """The mean of the last returns of two agents after three arrivals, those of 0, 1 and 0.

    Agent 0 has shown what the model of its own first message is worth, agent 1 the first model.
    """
    theta = np.zeros(1)
    noise, weight = perturbed(theta, at["sigma"])
    value = episode(theta[:, None], noise, at["sigma"])
    moved = theta[:, None] + at["learning_rate"] * value * noise / at["sigma"]
    later = np.sum(weight * mean_return(moved, at["sigma"]))
    return (later + mean_return(theta, at["sigma"])[0]) / 2


def reused(at):
    """The mean return after a step of two agents and one that weighs their returns anew."""
    sigma, rate = at["sigma"], at["learning_rate"]
    (one, other), value, weight = (np.asarray(x) for x in paired(np.zeros(1), sigma))
    # The weight of the network tells nothing of an episode, and counts in the densities.
    nodes, chances = np.polynomial.hermite_e.hermegauss(8)
    beside = np.array(list(itertools.product(nodes, repeat=2)))
    weight = np.outer(np.prod(list(itertools.product(chances, repeat=2)), axis=1), weight[0])
    shape = len(beside), one.shape[1]
    noise = [
        np.stack([np.broadcast_to(beside[:, i, None], shape), np.broadcast_to(e, shape)])
        for i, e in enumerate((one, other))
    ]
    moved = rate / sigma**2 * sum(v * e for v, e in zip(value, noise, strict=True)) / 2
    worth = np.exp([np.sum(e * moved, axis=0) for e in noise])
    worth = 2 * worth / np.sum(worth, axis=0)
    again = sum(w * v * (e - moved) for w, v, e in zip(worth, value, noise, strict=True)) / 2
    theta = sigma * moved[1] + rate / sigma * again[1]
    return np.sum(weight * mean_return(theta, sigma)) / (2 * np.pi)


def tossed(gap, at):
    """Two agents' perturbations of the gap between two biases, and their actions.

    Returns:
      Perturbations in units of sigma and actions, two of [M, n] each, and weights [M, n].
    """
    nodes, chances = np.polynomial.hermite_e.hermegauss(10)
    each = [*itertools.product(range(10), range(10), range(2), range(2))]
    first, second, *action = np.array(each).T
    # Of two biases, each perturbed by itself.
    noise = [np.sqrt(2) * nodes[first], np.sqrt(2) * nodes[second]]
    weight = np.broadcast_to(chances[first] * chances[second] / (2 * np.pi), (len(gap), len(each)))
    for e, own in zip(noise, action, strict=True):
        chance = logistic(gap[:, None] + at["sigma"] * e)
        weight = weight * np.where(own, chance, 1 - chance)
    return noise, action, weight


def logistic(x):
    return 1 / (1 + np.exp(-x))


def worth(gap):
    """The mean return of an episode of the server's parameters."""
    return SIDES[0] + (SIDES[1] - SIDES[0]) * logistic(gap)


def by_itself(at):
    """Of the server's parameters after a step of two agents."""
    noise, action, weight = tossed(np.zeros(1), at)
    step = sum(np.take(SIDES, a) * e for a, e in zip(action, noise, strict=True)) / 2
    return np.sum(weight * worth(at["learning_rate"] / at["sigma"] * step))


def searched(at):
    """Of the server's parameters after two steps for return and novelty."""
    gap, weight, share = np.zeros(2), np.full(2, 0.5), at["reward_weight"]
    # Whether somebody has shown an action before: the server itself, with its first parameters.
    seen = np.eye(2, dtype=bool)
    for _ in range(2):
        noise, action, own = tossed(gap, at)
        novel = [np.where(seen[:, a], 0.0, 1.0) for a in action]
        value = [
            share * r + (1 - share) * v
            for r, v in zip(ranks([np.take(SIDES, a) for a in action]), ranks(novel), strict=True)
        ]
        step = sum(v * e for v, e in zip(value, noise, strict=True)) / 2
        gap = (gap[:, None] + at["learning_rate"] / at["sigma"] * step).ravel()
        weight = (weight[:, None] * own).ravel()
        mean = np.sum(weight * worth(gap))
        # Its own episode with these, whose return is the best so far.
        chance = logistic(gap)
        seen = np.repeat(seen, len(action[0]), axis=0)
        seen = np.concatenate([seen | [True, False], seen | [False, True]])
        weight = np.concatenate([weight * (1 - chance), weight * chance])
        gap, share = np.tile(gap, 2), share + at["weight_step"]
    return mean


FAR = {"sigma": 0.8}
RATE = {"learning_rate": 0.4}
SEARCH = {"learning_rate": 1.5, "reward_weight": 0.6, "weight_step": 0.1}
CASES = {
    # Properties, the mean, agents, rounds, and what is differentiated by.
    "raw": ({"return_offset": 0.3}, after_two, 2, 2, {**AT, "return_offset": 0.3}),
    "rank": ({"shaping": "rank"}, functools.partial(after_two, shape=ranks), 2, 2, AT),
    "center": ({"shaping": "center"}, functools.partial(after_two, shape=centred), 2, 2, AT),
    "some are heard": (
        {"uplink": frl.uplinks.partial(0.5)},
        functools.partial(
            after_two, heard=[(*w, 0.25) for w in itertools.product((False, True), repeat=2)]
        ),
        2,
        2,
        AT,
    ),
    "on a clock": (
        {"clock": frl.Clock("asynchronous", compute_time=[1.0, 1.7])},
        arrived,
        2,
        3,
        AT,
    ),
    "by itself": (
        {"task": COIN, "evaluate": True, **FAR},
        lambda at: by_itself({**FAR, **at}),
        2,
        2,
        RATE,
    ),
    "search": (
        {"make": frl.nsra_es, "task": COIN, "meta_population": 1, "neighbours": 1, **FAR, **SEARCH},
        lambda at: searched({**FAR, **at}),
        2,
        2,
        SEARCH,
    ),
    "reused": ({"make": frl.iw_es, "reuse": 1, "min_ess": 0.0}, reused, 2, 2, AT),
    "momentum": (
        {"optimizer": {"name": "momentum", "momentum": 0.6}, "l2": 0.2},
        after_three,
        1,
        3,
        {**AT, "optimizer.momentum": 0.6, "l2": 0.2},
    ),
}


def slope(mean, at, name, step=1e-4):
    up, down = (mean({**at, name: at[name] + s}) for s in (step, -step))
    return (up - down) / (2 * step)


@pytest.mark.parametrize(
    "name", ["raw", *(pytest.param(n, marks=pytest.mark.thorough) for n in CASES if n != "raw")]
)
def test_scores_have_the_derivatives_of_the_mean_over_all_perturbations(name):
    properties, mean, agents, rounds, at = CASES[name]
    outcome = "reward_of_model" if properties.get("task") is COIN else "reward"
    own = algorithm(**properties)
    found = frl.differentiate(
        own, outcome, list(at), num_agents=agents, num_steps=rounds, seeds=range(40_000)
    )
    assert abs(found.value - mean(at)) < 4 * found.error
    slopes = {name: slope(mean, at, name) for name in at}
    largest = max(map(abs, slopes.values()))
    for name, right in slopes.items():
        error = float(found.errors[name])
        assert abs(found.derivatives[name] - right) < 4 * error, name
        assert error < 0.1 * abs(right) + 0.03 * largest, name


@pytest.mark.thorough
def test_second_derivatives_are_those_of_the_mean_too():
    found = frl.differentiate(
        algorithm(),
        "reward",
        list(AT),
        num_agents=2,
        num_steps=2,
        seeds=range(200_000),
        second=True,
    )
    h = 1e-2
    for one, other in itertools.combinations_with_replacement(AT, 2):

        def mean(up, side, one=one, other=other):
            at = {**AT, one: AT[one] + up * h}
            return after_two({**at, other: at[other] + side * h})

        ends = mean(1, 1) - mean(1, -1) - mean(-1, 1) + mean(-1, -1)
        right, error = ends / (4 * h**2), float(found.second_errors[one][other])
        assert abs(found.second[one][other] - right) < 4 * error
        assert error < 0.2 * abs(right) + 0.02


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore:derivative is 'pathwise'")
@pytest.mark.parametrize(
    "more",
    [
        {"shaping": "center", "optimizer": "sgd", "learning_rate": 0.01},
        {"shaping": "zscore", "optimizer": "adam", "learning_rate": 0.05, "l2": 0.1},
    ],
)
def test_of_smooth_episodes_scores_are_what_paths_are(more):
    """In a system that moves smoothly, as all that follows does: a path has no bias there."""
    network = {"hidden": (), "initializer": "zeros"}
    own = frl.iw_es(
        frl.envs.lqr(max_steps=2), network=network, sigma=0.3, reuse=1, min_ess=0.0, **more
    )
    by = ["learning_rate", "sigma"]
    sizes = {"num_agents": 4, "num_steps": 2, "mode": "forward", "seeds": range(40_000)}
    score, path = (
        frl.differentiate(own.replace(derivative=way), "return", by, **sizes)
        for way in ("score", "pathwise")
    )
    for name in by:
        error = np.hypot(score.errors[name], path.errors[name])
        assert abs(score.derivatives[name] - path.derivatives[name]) < 4 * error
        assert error < 0.2 * abs(path.derivatives[name]), name


@pytest.mark.parametrize(
    ("make", "properties", "says"),
    [
        (frl.es, {"antithetic": True}, "antithetic is True with derivative 'score'"),
        (frl.es, {"evaluate": True}, "policy is 'sample' with derivative 'score' on jump"),
        (frl.espc, {}, "derivative is 'score' for espc"),
        (frl.iw_es, {"min_ess": 0.5}, "min_ess is 0.5 with derivative 'score'"),
        (frl.nsr_es, {"task": COIN, "policy": "argmax"}, "policy is 'argmax' with derivative"),
    ],
)
def test_what_has_no_score_is_refused_by_name(make, properties, says):
    with pytest.raises(ValueError, match=f"{says}.*; allowed: "):
        algorithm(make, **properties)


def test_a_threshold_is_refused_by_name():
    own = algorithm(frl.iw_es, reuse=0)
    assert frl.differentiable(own)["min_ess"].startswith("refused")
    with pytest.raises(ValueError, match="min_ess of iw-es is differentiated"):
        frl.differentiate(own, "reward", "min_ess", num_agents=2, num_steps=2, seeds=[0, 1])
