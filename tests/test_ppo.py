"""PPO against loops and NumPy, and FedPPO: accounting, federation, learning, errors."""

import dataclasses
import functools
import itertools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from scipy import signal, stats

import fedjax_rl as frl
from fedjax_rl import memory, streams
from fedjax_rl.algorithms import fedppo_exchange, learned
from fedjax_rl.algorithms.fedppo import fedppo
from fedjax_rl.algorithms.fedppo_properties import PRESETS, SIZES, preset
from fedjax_rl.algorithms.fedppo_resources import memory_of, policy_of, settings_of
from fedjax_rl.envs.registry import make
from fedjax_rl.envs.task import Continuous, Discrete, Task
from fedjax_rl.federation.algorithm import bind
from fedjax_rl.federation.exchange import exchange, first_state
from fedjax_rl.federation.ledger import message_costs
from fedjax_rl.federation.population import population
from fedjax_rl.learners import gae, optimizers, ppo
from fedjax_rl.learners.actor_critic import Normal, Softmax, actor_critic_for
from fedjax_rl.networks import heads, pictures, products
from fedjax_rl.rollouts import batches, vectorised
from fedjax_rl.sweeps.cells import Cell
from fedjax_rl.sweeps.sweep import run_cells

CARTPOLE = make("CartPole-v1")
NANO = {"num_envs": 4, "rollout_steps": 16, "minibatches": 2, "network.hidden": (8,), "passes": 3}


# A probe: the observation counts the steps, the reward is the action ------------------------------


class Clock(NamedTuple):
    end: Any


class Counting:
    """Ends at `params.end`; a picture or a vector."""

    def __init__(self, shape=(2,), dtype=jnp.float32):
        self.shape, self.dtype = shape, dtype

    def _seen(self, time):
        return jnp.full(self.shape, time, jnp.int32).astype(self.dtype)

    def reset(self, key, params):
        del key, params
        return self._seen(0), jnp.int32(0)

    def step(self, key, state, action, params):
        del key
        time = state + 1
        reward = jnp.asarray(action, jnp.float32)
        return self._seen(time), time, reward, time >= params.end, jnp.asarray(False), {}


def counting(end=5, limit=1000, shape=(2,), dtype=jnp.float32, actions=2):
    options = (("end", end), ("limit", limit), ("seen", (shape, str(dtype))), ("actions", actions))
    return Task(
        name="counting",
        env=Counting(shape, dtype),
        params=Clock(np.int32(end)),
        observation_size=math.prod(shape),
        action=Discrete(actions),
        max_steps=limit,
        discount=1.0,
        encode=lambda obs: jnp.ravel(obs).astype(jnp.float32) / 10,
        trace=lambda state: state[None].astype(jnp.float32),
        summarise=lambda last, mean, steps: last,
        behaviour_size=1,
        options=options,
    )


# Equations ----------------------------------------------------------------------------------------


def gae_by_hand(reward, value, after, terminated, truncated, gamma, decay, bootstrap):
    found, later = np.zeros(len(reward)), 0.0
    for t in reversed(range(len(reward))):
        ended = terminated[t] or (truncated[t] and not bootstrap)
        delta = reward[t] + (0 if ended else gamma * after[t]) - value[t]
        later = delta + (0 if terminated[t] or truncated[t] else gamma * decay * later)
        found[t] = later
    return found


@pytest.mark.parametrize("bootstrap", [True, False])
def test_advantages_are_those_of_a_loop(bootstrap):
    rng = np.random.default_rng(0)
    reward, value, after = rng.normal(size=(3, 40)).astype(np.float32)
    terminated, truncated = rng.random((2, 40)) < 0.15
    truncated &= ~terminated
    expected = gae_by_hand(reward, value, after, terminated, truncated, 0.9, 0.8, bootstrap)
    ends = gae.discounts(terminated, truncated, jnp.float32(0.9), jnp.float32(0.8), bootstrap)
    found = gae.advantages(reward, value, after, *ends)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_losses_are_those_of_numpy():
    rng = np.random.default_rng(1)
    new, old, advantage, value, before, target = rng.normal(size=(6, 50)).astype(np.float32)
    new = old + 0.3 * new
    ratio = np.exp(new - old)
    surrogate = -np.minimum(ratio * advantage, np.clip(ratio, 0.8, 1.2) * advantage)
    np.testing.assert_allclose(ppo.policy_loss(new - old, advantage, 0.2), surrogate, rtol=1e-4)
    near = before + np.clip(value - before, -0.2, 0.2)
    worse = np.maximum((value - target) ** 2, (near - target) ** 2) / 2
    np.testing.assert_allclose(ppo.value_loss(value, before, target, 0.2), worse, rtol=1e-4)
    plain = (value - target) ** 2 / 2
    np.testing.assert_allclose(ppo.value_loss(value, before, target, np.inf), plain, rtol=1e-4)
    assert np.array_equal(ppo.is_clipped(new - old, 0.2), np.abs(ratio - 1) > 0.2)
    # The mean of the estimator under the old distribution is the divergence, exactly.
    p, q = np.array([0.2, 0.5, 0.3]), np.array([0.4, 0.4, 0.2])
    kl = np.sum(p * np.asarray(ppo.approximate_kl(np.log(q / p))))
    assert kl == pytest.approx(np.sum(p * np.log(p / q)), rel=1e-5)


def test_constant_advantages_are_normalised_to_nothing():
    """Also those that are the difference of two large numbers; the gradient is then exactly 0."""
    normalised = jax.jit(ppo.normalized)
    for size in (2, 3, 7, 64, 1000):
        for value in (0.1, 1 / 3, 9.9, 100.3, 1e4 / 3):
            np.testing.assert_array_equal(normalised(jnp.full(size, value)), 0.0)
    noise = 1e-6 * jnp.asarray([1.0, -2.0, 1.0])
    np.testing.assert_array_equal(normalised(noise, 3.0), 0.0)
    apart = np.array([1.0, 1.001, 1.003])
    expected = (apart - apart.mean()) / apart.std()
    np.testing.assert_allclose(normalised(jnp.asarray(apart, jnp.float32)), expected, atol=1e-3)


def test_large_ratios_and_gradients_do_not_overflow():
    loss, slope = jax.vmap(jax.value_and_grad(ppo.policy_loss), (0, 0, None))(
        jnp.asarray([200.0, 200.0, 1.0]), jnp.asarray([2.0, 0.0, 2.0]), 0.2
    )
    np.testing.assert_allclose(loss, [-2.4, 0, -2.4], rtol=1e-6)
    np.testing.assert_array_equal(slope, 0.0)
    clipped, norm = optimizers.bounded(jnp.asarray([3e25, 4e25]), 0.5)
    np.testing.assert_allclose(clipped, [0.3, 0.4], rtol=1e-6)
    assert float(norm) == pytest.approx(5e25)


def test_the_scale_of_rewards_looks_as_far_ahead_as_the_returns():
    """The discount of the task; what is published for the games keeps its 0.99."""
    for values, expected in (
        ({"discount": 0.5}, 0.5),
        ({"preset": "procgen"}, 0.99),
        ({"preset": "procgen", "rewards.normalization_discount": 0.9}, 0.9),
    ):
        algorithm = fedppo(CARTPOLE, **{"rewards.normalize": True, **values})
        own = algorithm.parameters(algorithm.config, 2).federation
        assert float(own["rewards.normalization_discount"]) == expected


def test_the_loss_of_a_minibatch_joins_its_parts():
    policy = actor_critic_for(CARTPOLE, hidden=(8,))
    rng = np.random.default_rng(2)
    parameters = jnp.asarray(rng.normal(size=policy.num_parameters), jnp.float32)
    seen = rng.normal(size=(20, 4)).astype(np.float32)
    outputs, values = policy.apply(parameters, seen)
    logs = jax.nn.log_softmax(outputs * 3)
    action = rng.integers(2, size=20).astype(np.int32)
    old = np.take_along_axis(np.asarray(logs), action[:, None], 1)[:, 0]
    advantage, target = rng.normal(size=(2, 20)).astype(np.float32)
    batch = ppo.Batch(seen, action, old, values + 0.1, advantage, target)
    weights = {
        "policy_clip": 0.2,
        "value_clip": 0.2,
        "value_coefficient": 0.5,
        "entropy_coefficient": 0.01,
    }
    total, told = jax.jit(functools.partial(ppo.loss, policy))(parameters, batch, weights)
    total, told = float(total), jax.tree.map(float, told)
    own = np.asarray(jax.nn.log_softmax(outputs))
    change = np.take_along_axis(own, action[:, None], 1)[:, 0] - old
    actor = float(np.mean(ppo.policy_loss(change, advantage, 0.2)))
    critic = float(np.mean(ppo.value_loss(values, values + 0.1, target, 0.2)))
    entropy = -np.mean(np.sum(np.exp(own) * own, 1))
    assert told.policy_loss == pytest.approx(actor, rel=1e-4)
    assert told.value_loss == pytest.approx(critic, rel=1e-4)
    assert told.entropy == pytest.approx(entropy, rel=1e-4)
    assert total == pytest.approx(actor + 0.5 * critic - 0.01 * entropy, rel=1e-4)


def test_rewards_are_scaled_by_the_running_deviation_of_the_return():
    rng = np.random.default_rng(3)
    rewards = rng.normal(2.0, 5.0, (30, 4)).astype(np.float32)
    over = rng.random((30, 4)) < 0.1
    scale, total, seen = gae.reward_scale(4), np.zeros(4), []
    for reward, end in zip(rewards, over, strict=True):
        scale, found = gae.scaled_rewards(scale, reward, end)
        total = 0.99 * total + reward
        seen.append(total)
        expected = np.clip(reward / np.sqrt(np.var(seen) + 1e-8), -10, 10)
        total = np.where(end, 0, total)
    np.testing.assert_allclose(scale.mean, np.mean(seen), rtol=1e-4)
    np.testing.assert_allclose(found, expected, rtol=1e-3)  # a count of 1e-4 at variance 1 besides


def test_the_published_schedule_warms_up_from_nothing_and_is_not_clamped():
    def at(epoch):
        return float(ppo.rate("cosine", 2.0, jnp.uint32(epoch), 10.0, 1000.0))

    assert at(0) == 0
    assert at(5) == pytest.approx(1.0)
    assert at(10) == pytest.approx(2.0)
    assert at(505) == pytest.approx(1.0, abs=1e-4)
    assert at(1000) == pytest.approx(0.0, abs=1e-6)
    assert at(1990) == pytest.approx(2.0, abs=1e-4)  # it rises again
    assert float(ppo.rate("constant", 2.0, jnp.uint32(0), 10.0, 1000.0)) == 2


def test_a_pass_takes_every_sample_once():
    key = jax.random.key(0)
    places = ppo.order(key, (6, 4), 3, "samples")
    assert places.shape == (3, 8)
    assert sorted(np.ravel(places)) == list(range(24))
    steps = ppo.order(key, (6, 4), 6, "steps")
    assert sorted(np.ravel(steps)) == list(range(6))
    grid = np.arange(24).reshape(6, 4)
    batch = ppo.Batch(*(jnp.asarray(grid) for _ in ppo.Batch._fields))
    step = ppo.minibatch(batch, steps[0], "steps").action
    np.testing.assert_array_equal(step, grid[steps[0, 0]])


def test_any_two_samples_are_as_likely_to_share_a_minibatch():
    """Of 12 samples in 3 minibatches every pair with 3 of 11, and each is in each with 1 of 3."""
    count, minibatches, passes = 12, 3, 4000
    keys = jax.random.split(jax.random.key(1), passes)
    places = np.asarray(jax.vmap(lambda key: ppo.order(key, (4, 3), minibatches, "samples"))(keys))
    where = np.zeros((passes, count), int)
    np.put_along_axis(
        where, places.reshape(passes, -1), np.repeat(np.arange(minibatches), 4)[None], axis=1
    )
    for sample in range(count):
        assert stats.chisquare(np.bincount(where[:, sample])).pvalue > 1e-4
    shared = [np.sum(where[:, i] == where[:, j]) for i in range(count) for j in range(i)]
    chance = 3 / 11
    errors = (np.asarray(shared) / passes - chance) / math.sqrt(chance * (1 - chance) / passes)
    assert np.abs(errors).max() < 4.5


@pytest.mark.parametrize(("inputs", "outputs"), [(64, 2), (5, 1), (3, 7), (6, 6)])
def test_products_and_their_derivatives_are_those_of_jax(inputs, outputs):
    """Forwards, in reverse, forwards through that, and for a kernel of every agent."""
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        x, way = (jnp.asarray(rng.normal(size=(2, 9, inputs))) for _ in range(2))
        kernel, turn = (jnp.asarray(rng.normal(size=(2, inputs, outputs))) for _ in range(2))

        def slope(x, kernel, product):
            return jax.grad(lambda *args: jnp.sum(jnp.sin(product(*args))), (0, 1))(x, kernel)

        def everything(product):
            def one(x, kernel, way, turn):
                slopes = jax.jvp(lambda *args: slope(*args, product), (x, kernel), (way, turn))
                return product(x, kernel), *slopes

            return jax.jit(jax.vmap(one))(x, kernel, way, turn)

        both = map(everything, (products.multiply, jnp.matmul))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), *both)
        rows = jnp.asarray(rng.normal(size=(9, outputs)))
        np.testing.assert_allclose(products.over_rows(x[0], rows), x[0].T @ rows, atol=1e-12)


def test_heads_have_the_probabilities_that_they_draw():
    outputs = jnp.asarray([0.3, -1.0, 0.7])
    head, nothing = Softmax(3), jnp.zeros(0)
    logs = jax.vmap(lambda a: head.log_prob(outputs, nothing, a))(jnp.arange(3))
    chances = np.exp(np.asarray(outputs)) / np.sum(np.exp(np.asarray(outputs)))
    np.testing.assert_allclose(np.exp(logs), chances, rtol=1e-5)
    assert head.entropy(outputs, nothing) == pytest.approx(stats.entropy(chances), rel=1e-5)
    mean, deviation = np.array([0.5, -2.0], np.float32), np.array([0.5, 3.0], np.float32)
    head, own = Normal(2), jnp.log(jnp.asarray(deviation))
    action = jnp.asarray([1.0, 1.0])
    expected = stats.norm(mean, deviation).logpdf([1.0, 1.0]).sum()
    assert head.log_prob(mean, own, action) == pytest.approx(expected, rel=1e-5)
    entropy = stats.norm(mean, deviation).entropy().sum()
    assert head.entropy(mean, own) == pytest.approx(entropy, rel=1e-5)
    words = jax.random.bits(jax.random.key(0), (4000,))
    drawn = jax.jit(jax.vmap(lambda word: head.sample(mean, own, word)))(words)
    np.testing.assert_allclose(np.mean(drawn, 0), mean, atol=0.2)
    np.testing.assert_allclose(np.std(drawn, 0), deviation, rtol=0.05)
    assert np.abs(head.performed(drawn)).max() == 1


# Networks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("classic", 336_112),
        ("impala", 626_256),
        ("vit-12-8-64", 620_624),
        ("vit-6-8-96", 702_256),
        ("vit-4-4-32", 61_232),
        ("vit-3-4-16", 15_056),
        ("vit-3-4-32-8", 46_992),
    ],
)
def test_networks_have_the_published_numbers_of_parameters(name, count):
    task = counting(shape=(64, 64, 3), dtype=jnp.uint8, actions=15)
    assert actor_critic_for(task, name).num_parameters == count


def test_convolution_and_pooling_are_the_usual_ones():
    x = jax.random.normal(jax.random.key(0), (2, 7, 6, 3))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 3, 4))

    def total(convolve):
        return jax.value_and_grad(lambda *args: jnp.sum(jnp.sin(convolve(*args))), (0, 1))

    @jax.jit
    def all_of_it(x, kernel):
        pooled = nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        both = (total(f)(x, kernel) for f in (pictures.convolve, pictures._convolve))
        return *both, pictures.pool(x), pooled

    ours, usual, pooled, same = all_of_it(x, kernel)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), ours, usual)
    np.testing.assert_array_equal(pooled, same)


def test_strided_convolution_is_that_of_scipy_and_its_gradient_the_usual_one():
    x = jax.random.normal(jax.random.key(0), (2, 15, 13, 3))
    kernel = jax.random.normal(jax.random.key(1), (4, 4, 3, 5))

    def usual(x, kernel):
        layout = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, (2, 2), "VALID", dimension_numbers=layout)

    def total(convolve):
        return jax.grad(lambda *args: jnp.sum(jnp.sin(convolve(*args))), (0, 1))

    @jax.jit
    def all_of_it(x, kernel):
        ours = functools.partial(pictures.stride, step=2)
        return ours(x, kernel), total(ours)(x, kernel), total(usual)(x, kernel)

    found, ours, theirs = all_of_it(x, kernel)
    for b, d in np.ndindex(2, 5):
        each = [signal.correlate2d(x[b, ..., c], kernel[..., c, d], "valid") for c in range(3)]
        np.testing.assert_allclose(found[b, ..., d], sum(each)[::2, ::2], rtol=1e-4, atol=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), ours, theirs)


def test_a_picture_costs_the_classic_network_what_it_says():
    """5.7 million operations, of 2.86 million multiply-adds."""
    task = counting(shape=(64, 64, 3), dtype=jnp.uint8, actions=15)
    policy = actor_critic_for(task, "classic")
    shapes = (
        jax.eval_shape(policy.init, jax.random.key(0)),
        jax.ShapeDtypeStruct((9, 64, 64, 3), "u1"),
    )
    spent = jax.jit(policy.apply).lower(*shapes).cost_analysis()["flops"] / 9
    products = 15**2 * 192 * 32 + 6**2 * 512 * 64 + 36 * 64 * 128 + 128 * 16
    assert 2 * products == pytest.approx(5.7e6, rel=0.01)
    assert spent == pytest.approx(2 * products, rel=0.02)


def test_last_layers_are_scaled_and_pixels_are_fractions():
    policy = actor_critic_for(CARTPOLE, hidden=(8,))
    parameters = jax.jit(policy.init)(jax.random.key(0))
    outputs, values = jax.jit(policy.apply)(parameters, 10 * jnp.eye(4))
    assert np.abs(outputs).max() < 0.1 < np.abs(values).max()
    pixels = actor_critic_for(counting(shape=(8, 8, 3), dtype=jnp.uint8), "vit-3-4-16")
    np.testing.assert_allclose(pixels.inputs(jnp.full((8, 8, 3), 51, jnp.uint8)), 0.2, rtol=1e-6)


# Rollouts -----------------------------------------------------------------------------------------


def roll_outs(end, limit, bootstrap=True, alignment="correct"):
    """The probe's rollout of 12 steps in 3 environments for 2 agents, its policy and weights."""
    policy, parameters, program, *first = probe(end, limit, bootstrap, alignment)
    return policy, parameters, program(*first)


@functools.cache
def probe(end, limit, bootstrap=True, alignment="correct", tail=0):
    """What makes such a rollout, and the collector and the batch to begin with."""
    task = counting(end, limit)
    policy = actor_critic_for(task, hidden=(8,))
    agents, envs, steps = 2, 3, 12
    keys = streams.agent_keys(np.zeros(agents, int), np.arange(agents))
    parameters = np.random.default_rng(7).normal(0, 0.5, (agents, policy.num_parameters))
    parameters = jnp.asarray(parameters, jnp.float32)
    config = fedppo(
        task,
        num_envs=envs,
        rollout_steps=steps,
        minibatches=1,
        bootstrap_timeouts=bootstrap,
        stale_tail=tail,
        rewards=alignment,
        loss={"normalize": "none"},
    ).config
    settings = settings_of(config.resolved())
    weights = {"discount": 0.9, "gae_lambda": 0.8, "reward_scale": 0.5}
    weights["normalization_discount"] = 0.99
    weights = {n: jnp.full(agents, x, jnp.float32) for n, x in weights.items()}
    late = alignment == "late"
    blank = batches.empty_batch(task, policy, envs, tail) if tail else None
    collector = jax.jit(
        lambda: vectorised.begin(task, keys, envs, scale=False, late=late, tail=blank)
    )()
    batch = batches.empty_batch(task, policy, envs, steps)
    batch = jax.tree.map(lambda x: jnp.broadcast_to(x, (agents, *x.shape)), batch)

    @jax.jit
    def program(collector, batch):
        return vectorised.collect(
            task,
            policy,
            keys,
            parameters,
            collector,
            batch,
            environment=None,
            weights=weights,
            settings=settings,
        )

    return policy, parameters, program, collector, batch


@pytest.mark.parametrize(
    ("end", "limit", "bootstrap"), [(5, 1000, True), (1000, 4, True), (1000, 4, False)]
)
def test_rollouts_begin_anew_and_tell_timeouts_from_ends(end, limit, bootstrap):
    """Episodes of 5 steps that end, or of 4 that are cut off, against a loop."""
    policy, parameters, (collector, batch, ended) = roll_outs(end, limit, bootstrap)
    length = min(end, limit)
    place = np.arange(12) % length
    np.testing.assert_array_equal(batch.observation[..., 0], np.tile(place[:, None], (2, 1, 3)))
    over = place == length - 1
    terminated, truncated = (over, ~over & over) if end < limit else (~over & over, over)
    for agent in range(2):
        seen = jnp.arange(length + 1.0)[:, None] * jnp.ones((1, 2))
        values = np.asarray(jax.jit(policy.apply)(parameters[agent], seen)[1])
        for env in range(3):
            reward = 0.5 * np.asarray(batch.action[agent, :, env])
            expected = gae_by_hand(
                reward, values[place], values[place + 1], terminated, truncated, 0.9, 0.8, bootstrap
            )
            np.testing.assert_allclose(batch.advantage[agent, :, env], expected, atol=1e-5)
            target = expected + values[place]
            np.testing.assert_allclose(batch.target[agent, :, env], target, atol=1e-5)
    np.testing.assert_array_equal(ended.episodes, [3 * (12 // length)] * 2)
    np.testing.assert_array_equal(ended.steps, [3 * (12 // length) * length] * 2)
    whole = np.asarray(batch.action)[:, : 12 // length * length]
    np.testing.assert_allclose(ended.total, whole.sum((1, 2)))
    np.testing.assert_array_equal(collector.rollout.steps, np.full((2, 3), 12 % length))


def test_late_rewards_tell_nothing_of_the_action_that_ends_an_episode():
    """Episodes of one step: advantages are the reward, or have nothing to do with it."""
    for alignment in ("correct", "late"):
        policy, parameters, (collector, batch, _) = roll_outs(1, 1000, alignment=alignment)
        reward = 0.5 * np.asarray(batch.action, np.float32)
        values = jax.jit(jax.vmap(policy.apply))(parameters, jnp.zeros((2, 1, 2)))[1]
        value = np.asarray(values)[..., None]
        if alignment == "late":
            assert collector.due == pytest.approx(reward[:, -1])
            reward = np.concatenate([np.zeros((2, 1, 3)), reward[:, :-1]], axis=1)
        np.testing.assert_allclose(batch.advantage, reward - value, atol=1e-5)


@pytest.mark.parametrize(("tail", "lengths"), [(4, (15, 13, 16)), (2, (14, 13, 14))])
def test_a_stale_tail_begins_the_next_rollout(tail, lengths):
    """Episodes of 5 steps; tails of at most 2 steps are too short for some of them."""
    policy, parameters, program, collector, batch = probe(5, 1000, alignment="late", tail=tail)
    seen = jnp.arange(6.0)[:, None] * jnp.ones((1, 2))
    values = np.asarray(jax.jit(jax.vmap(policy.apply, (0, None)))(parameters, seen)[1])
    begun, due, rows = 0, np.zeros((2, 3)), np.zeros((2, 0, 3))
    for length in lengths:
        collector, batch, ended = program(collector, batch)
        np.testing.assert_array_equal(collector.tail.count, [length - 12] * 2)
        place = (begun + np.arange(length)) % 5
        np.testing.assert_array_equal(batch.observation[0, :, 0, 0], place[:12])
        actions = np.concatenate([batch.action, collector.tail.rows[1][:, : length - 12]], axis=1)
        np.testing.assert_array_equal(actions[:, : rows.shape[1]], rows)
        made = place[rows.shape[1] :]
        np.testing.assert_array_equal(ended.episodes, [3 * np.sum(made == 4)] * 2)
        over, none = place == 4, np.zeros(length, bool)
        for agent, env in itertools.product(range(2), range(3)):
            own = values[agent]
            reward = 0.5 * np.append(due[agent, env], actions[agent, :-1, env])
            expected = gae_by_hand(reward, own[place], own[place + 1], over, none, 0.9, 0.8, True)
            found = batch.advantage[agent, :, env]
            np.testing.assert_allclose(found, expected[:12], atol=1e-5)
        due, rows, begun = actions[:, 11], actions[:, 12:], begun + 12


@pytest.mark.thorough
def test_a_stale_tail_is_counted_and_needs_room():
    values = {**NANO, "sync_period": 2}
    metrics = {"num_agents": 2, "num_steps": 6, "record_every": 1, "metrics": ["kl", "episodes"]}
    plain, tail = (frl.sweep(fedppo(CARTPOLE, **values, stale_tail=s), **metrics) for s in (0, 15))
    assert plain.env_steps == 2 * 2 * 16 * 4
    assert plain.env_steps < tail.env_steps <= plain.env_steps + 2 * 15 * 4
    assert np.all(np.isfinite(tail["kl"]))
    with pytest.raises(
        ValueError, match=r"stale_tail is 16; allowed: .* less than rollout_steps 16"
    ):
        fedppo(CARTPOLE, **values, stale_tail=16)


def test_an_evaluation_counts_whole_episodes():
    """Of the probe, whose length is 5, or 3 where that is the limit; the reward is the action."""
    for limit, length in ((1000, 5), (3, 3)):
        task = counting(5, limit)
        policy = actor_critic_for(task, hidden=(8,))
        parameters = np.random.default_rng(5).normal(0, 2, (2, policy.num_parameters))
        parameters = jnp.asarray(parameters, jnp.float32)
        keys = streams.agent_keys(np.zeros(2, int), np.arange(2))
        evaluate = jax.jit(functools.partial(vectorised.evaluate, task, policy, num_episodes=1000))
        total, steps = evaluate(keys, parameters)
        np.testing.assert_allclose(steps, [length] * 2, rtol=1e-6)
        seen = jnp.arange(float(length))[:, None] * jnp.ones((1, 2))
        outputs, _ = jax.jit(jax.vmap(policy.apply, (0, None)))(parameters, seen)
        expected = jax.nn.softmax(outputs)[..., 1].sum(1)
        np.testing.assert_allclose(total, expected, atol=0.15)


# The federation -----------------------------------------------------------------------------------


class Holder(NamedTuple):
    """Of an agent what an exchange looks at."""

    learned: learned.Learned


def shares(num_agents, **values):
    """Parameters and moments of agents before and after one average that is due."""
    algorithm = fedppo(CARTPOLE, **NANO, **values)
    config = algorithm.config.resolved()
    one = population(num_agents)
    params = bind([algorithm.parameters(algorithm.config, num_agents)])
    keys = streams.agent_keys(np.zeros(num_agents, int), one.member_of)
    size = num_agents, policy_of(config).num_parameters
    rng = np.random.default_rng(4)
    before = learned.Learned(
        jnp.asarray(rng.normal(size=size), jnp.float32),
        optimizers.Moments(
            jnp.arange(num_agents, dtype=jnp.int32) + 3,
            jnp.asarray(rng.normal(size=size), jnp.float32),
            jnp.asarray(rng.random(size), jnp.float32),
        ),
    )
    link = fedppo_exchange.exchange_of(config)
    first = learned.Learned(jnp.ones(size), before.moments)
    model = one.first(learned.shared_of(config, first))
    state = first_state(one, link, params, keys, Holder(before), model)
    after = exchange(one, link, params, state, jnp.ones(1, bool))
    return first, before, dataclasses.replace(after, agents=after.agents.learned)


@pytest.mark.thorough
def test_an_average_leaves_the_moments_averages_them_or_forgets_them():
    _, before, state = shares(3)
    after, floats = state.agents, before.parameters.shape[1]
    mean = np.asarray(before.parameters).mean(0)
    np.testing.assert_allclose(after.parameters, [mean] * 3, atol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, after.moments, before.moments)
    totals = state.ledger.totals()
    assert totals["bytes_up"] == totals["bytes_down"] == 3 * 4 * floats
    _, before, state = shares(3, moments="average")
    after = state.agents.moments
    for own, old in ((after.first, before.moments.first), (after.second, before.moments.second)):
        np.testing.assert_allclose(own, [np.asarray(old).mean(0)] * 3, atol=1e-6)
    np.testing.assert_array_equal(after.count, before.moments.count)
    assert state.ledger.totals()["floats_up"] == 3 * 3 * floats
    _, _, state = shares(3, moments="reset")
    assert all(not np.any(x) for x in jax.tree.leaves(state.agents.moments))


def test_a_sum_adds_all_changes():
    first, before, state = shares(3, aggregation="sum")
    moved = np.asarray(before.parameters) - np.asarray(first.parameters)
    expected = np.asarray(first.parameters[0]) + moved.sum(0)
    np.testing.assert_allclose(state.agents.parameters, [expected] * 3, atol=1e-5)


CELLS = [Cell(n, 0, {"sync_period": k, "sync_first": True}) for n in (1, 2) for k in (1, 2, 4, 100)]
CELLS += [Cell(2, 0, {"sync_period": k, "sync_first": False}) for k in (3, 7)]


@functools.cache
def grid():
    """Seven epochs of all cells: one program."""
    algorithm = fedppo(CARTPOLE, **NANO)
    metrics = [*algorithm.metrics]
    return run_cells(algorithm, CELLS, num_steps=7, record_every=1, metrics=metrics, workers=1)


def cell(num_agents, period, first=True):
    """The records of one cell."""
    own = {"sync_period": period, "sync_first": first}
    return grid().isel(cell=CELLS.index(Cell(num_agents, 0, own)))


@pytest.mark.thorough
def test_what_is_spent_is_what_the_definition_says():
    """7.4: steps E T ceil((e + 1) / passes), and floor(e / K) + 1 averages after epoch e = 6."""
    size = actor_critic_for(CARTPOLE, hidden=(8,)).num_parameters
    for period in (1, 2, 4, 100):
        one = cell(2, period)
        assert one.env_steps == 2 * 4 * 16 * math.ceil(7 / 3)
        times = 6 // period + 1
        assert one.communications == times
        assert one.bytes_up == one.bytes_down == 2 * times * 4 * size
        alone = cell(1, period)
        assert alone.env_steps == 64 * 3
        assert alone.bytes_up == 0
    assert np.all(cell(2, 1)["drift"] < 1e-6)
    assert np.all(cell(2, 100)["drift"][1:] > 1e-4)
    # After epochs 0, 2, 4 and 6 nothing is left of it.
    assert np.array_equal(cell(2, 2)["drift"] > 1e-6, np.arange(7) % 2 == 1)


@pytest.mark.thorough
def test_an_average_can_come_at_the_end_of_a_period():
    assert cell(2, 3, first=False).communications == 2
    assert np.array_equal(cell(2, 3, first=False)["drift"] < 1e-6, np.arange(7) % 3 == 2)
    assert cell(2, 7, first=False).communications == 1


def test_one_agent_has_nobody_to_average_with():
    for name in ("episode_return", "kl", "entropy", "value_loss"):
        alone = cell(1, 1)[name]
        for period in (2, 4, 100):
            np.testing.assert_array_equal(cell(1, period)[name], alone)
    # Before the first average, agent 0 does the same in company.
    first = [cell(n, 1)["kl_of_agent"][0, 0] for n in (1, 2)]
    np.testing.assert_allclose(*first, rtol=1e-4)
    assert not grid()["diverged"].any()


@pytest.mark.parametrize("values", [{}, {"observations": "shared"}, {"moments": "average"}])
def test_what_one_agent_has_learned_is_what_is_played(values):
    """Its server stays as it was in the beginning, since nobody talks to it."""
    sizes = {"num_envs": 2, "rollout_steps": 4, "network.hidden": (2,), "passes": 1}
    algorithm = frl.fedppo(counting(), **sizes, minibatches=2, **values)
    one = population(1)
    functions = algorithm.functions(algorithm.config)
    params = bind([algorithm.parameters(algorithm.config, 1)])
    state = functions.init(one, params, streams.agent_keys(np.array([0]), one.member_of))
    state = jax.jit(lambda state: functions.round(one, params, state, 1))(state)
    parameters = learned.parameters_of(functions.model(one, params, state))
    np.testing.assert_array_equal(parameters, state.agents.learned.parameters)
    assert not np.array_equal(parameters, learned.parameters_of(state.server))


@functools.cache
def together():
    """First states from keys [2], and so many epochs, of agents in one array."""
    algorithm = fedppo(CARTPOLE, **NANO, batching="together", sync_period=100)
    functions, one = algorithm.functions(algorithm.config), population(2)
    params = bind([algorithm.parameters(algorithm.config, 2)])
    first = jax.jit(lambda keys: functions.init(one, params, keys))
    return first, jax.jit(lambda state, steps: functions.advance(one, params, state, steps))


@pytest.mark.thorough
def test_agents_learn_in_turn_or_together():
    first, program = together()
    state = first(streams.agent_keys(np.zeros(2, int), np.arange(2)))
    parameters, _ = state.agents.learned
    np.testing.assert_array_equal(parameters[0], parameters[1])
    for epochs in (1, 6):
        state = program(state, np.uint32(epochs))
        for name in ("kl", "entropy", "clip_fraction"):
            others = cell(2, 100)[f"{name}_of_agent"].isel(time=int(state.time) - 1)
            own = getattr(state.agents.diagnostics, name)
            np.testing.assert_allclose(own, others, rtol=1e-3, atol=1e-5)


@pytest.mark.thorough
def test_alike_agents_stay_alike_and_a_run_can_stop_anywhere():
    """Also within the passes over one rollout, bit for bit."""
    first, program = together()
    state = first(streams.agent_keys(np.zeros(2, int), np.zeros(2, int)))
    whole = program(state, np.uint32(5))
    parts = program(program(state, np.uint32(2)), np.uint32(3))
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
        if not jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            np.testing.assert_array_equal(a, b)
    for leaf in jax.tree.leaves(whole.agents):
        np.testing.assert_allclose(leaf[0], leaf[1], rtol=1e-6, atol=1e-7)


def test_pictures_are_kept_as_bytes_and_networks_sent_as_floats():
    """7.4: 4 * 626,256 bytes up and down."""
    task = counting(shape=(64, 64, 3), dtype=jnp.uint8, actions=15)
    algorithm = fedppo(task, network="impala", num_envs=4, rollout_steps=16)
    functions, one = algorithm.functions(algorithm.config), population(2)
    params = bind([algorithm.parameters(algorithm.config, 2)])
    keys = streams.agent_keys(np.zeros(2, int), np.arange(2))
    state = jax.eval_shape(lambda: functions.init(one, params, keys))
    batch = state.agents.batch
    assert batch.observation.dtype == jnp.uint8
    assert batch.observation.shape == (2, 16, 4, 64, 64, 3)
    assert (batch.action.dtype, batch.action.shape) == (jnp.int32, (2, 16, 4))
    link = fedppo_exchange.exchange_of(algorithm.config.resolved())
    spent = message_costs(one, link, params, state)
    assert spent["bytes_up"] == spent["bytes_down"] == 4 * 626_256
    assert spent["floats_up"] == 626_256


@pytest.mark.thorough
def test_it_learns_cartpole_and_can_average_within_a_pass():
    algorithm = fedppo(CARTPOLE, learning_rate=1e-3, sync_every_minibatches=4)
    out = frl.sweep(algorithm, num_agents=2, num_steps=60, record_every=20)
    assert out.episode_return.values[-1] > 150  # a random policy: 22
    assert out.communications == 60 * 8 // 4


@pytest.mark.parametrize(
    "name", ["gymnax/Pendulum-v1", "gymnax/Breakout-MinAtar", "dirichlet-mdps"]
)
def test_it_runs_in_environments_of_all_kinds(name):
    algorithm = fedppo(make(name), num_envs=4, rollout_steps=8, evaluation_episodes=1)
    functions, one = algorithm.functions(algorithm.config), population([2, 1])
    params = bind([algorithm.parameters(algorithm.config, n) for n in (2, 1)])
    keys = streams.agent_keys(np.zeros(3, int), one.member_of)
    state = jax.eval_shape(lambda: functions.init(one, params, keys))
    after = jax.eval_shape(lambda s: functions.advance(one, params, s, jnp.uint32(1)), state)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    metrics = jax.eval_shape(lambda s: functions.measure(one, params, s), after)
    assert set(metrics) == set(algorithm.metrics)


# Properties ---------------------------------------------------------------------------------------


def test_presets_and_sizes_give_what_is_published():
    pixels = counting(shape=(64, 64, 3), dtype=jnp.uint8, actions=15)
    paper = fedppo(pixels, preset="paper", size="paper").config.resolved()
    assert (paper.num_envs, paper.rollout_steps, paper.minibatches) == (64, 256, 256)
    assert (paper.network.kind, paper.rewards.alignment) == ("impala", "late")
    assert paper.schedule.name == "cosine"
    games = fedppo(pixels, preset="procgen", size="paper").config.resolved()
    assert (games.discount, games.learning_rate, games.minibatches) == (0.999, 5e-4, 8)
    tiny = fedppo(CARTPOLE).config.resolved()
    assert (tiny.size, tiny.network.kind, tiny.num_envs) == ("tiny", "mlp", 16)
    assert tiny.rollout_steps == 128
    assert fedppo(pixels).config.resolved().network.kind == "impala-small"
    assert fedppo(pixels, size="tiny").config.resolved().network.kind == "classic"
    named = preset("procgen", "tiny")
    assert named["adam_epsilon"] == 1e-5
    assert fedppo(CARTPOLE, **named).config.num_envs == 16
    # A property that was given outlives a change of the preset, the others follow.
    changed = fedppo(CARTPOLE, passes=5).replace(preset="procgen")
    assert changed.config.resolved().passes == 5
    assert changed.config.resolved().discount == 0.999
    assert set(PRESETS["clean"]) == set(PRESETS["paper"]) == set(PRESETS["procgen"])
    assert all(set(size) == set(SIZES["tiny"]) for size in SIZES.values())


def test_memory_is_known_and_refused_beforehand(monkeypatch):
    pixels = counting(shape=(64, 64, 3), dtype=jnp.uint8, actions=15)
    config = fedppo(pixels, size="paper").config
    needed = memory_of(config, 8)
    samples = 8 * 64 * 256
    assert needed["rollout"] == samples * (64 * 64 * 3 + 5 * 4)
    assert needed["parameters"] == 8 * (3 * 4 * 626_256 + 4)
    assert needed["total"] > 2 * needed["rollout"]
    monkeypatch.setattr(memory, "available", lambda devices=None: 2**20)
    with pytest.raises(ValueError, match=r"num_agents is 8 .* needs .* GiB .*1\.5 GiB of rollou"):
        fedppo(pixels, size="paper").parameters(config, 8)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"preset": "papr"}, r"preset is .papr.*did you mean paper"),
        ({"size": "huge"}, r"size is 'huge'; allowed"),
        ({"network": "impla"}, "did you mean impala"),
        ({"network": "impala"}, r"network.kind is impala on CartPole-v1, .*\(4,\); allowed: mlp"),
        ({"moments": "mean"}, r"moments is 'mean'; allowed"),
        ({"minibatches": 3}, "minibatches is 3; allowed: a divisor of num_envs times roll.* 2048"),
        ({"shuffle": "steps", "minibatches": 256}, "a divisor of rollout_steps, 128"),
        ({"sync_period": 0}, "sync_period is 0; allowed: a whole number"),
        ({"sync_every_minibatches": 3}, "sync_every_minibatches is 3 with 8 minibatches"),
        ({"learning_rate": -1}, "learning_rate is -1; allowed: finite and above 0"),
        ({"gae_lambda": 2}, r"gae_lambda is 2; allowed: in \[0, 1\]"),
        ({"schedule": {"name": "cosine", "horizon_epochs": 5}}, "horizon_epochs is 5; allowed: mo"),
        ({"network.hidden": (0,)}, r"network.hidden is \(0,\); allowed"),
        ({"deviation": 0.0}, "deviation is 0.0; allowed: finite and above 0"),
        ({"evaluation_episodes": -1}, "evaluation_episodes is -1; allowed"),
        ({"enviroments": 3}, "'enviroments' is no property of fedppo"),
    ],
)
def test_mistakes_are_named_before_anything_compiles(values, message):
    with pytest.raises(ValueError, match=message):
        fedppo(CARTPOLE, **values)


def test_agents_that_never_synchronise_are_refused():
    algorithm = fedppo(CARTPOLE, sync_period=40, sync_first=False)
    with pytest.raises(ValueError, match="sync_period is 40; allowed: at most 30, the epochs of"):
        frl.sweep(algorithm, num_agents=2, num_steps=30)


def test_tasks_and_patches_have_to_fit():
    with pytest.raises(ValueError, match="task is 3; allowed: a Task"):
        fedppo(3)
    odd = counting(shape=(10, 10, 3), dtype=jnp.uint8)
    with pytest.raises(ValueError, match="pictures of 10 x 10; allowed: sides that"):
        fedppo(odd, network="vit-3-4-16")
    with pytest.raises(ValueError, match=r"is classic on pictures of 10 x 10; allowed: .* 20"):
        fedppo(odd, network="classic")
    for made in (functools.partial(fedppo, network="mlp"), frl.es, frl.reinforce, frl.fedpg):
        with pytest.raises(ValueError, match=r"for vectors, on counting, which shows pictures .10"):
            made(odd)
    assert actor_critic_for(dataclasses.replace(odd, observation_size=4)).shape == (4,)
    with pytest.raises(ValueError, match="outputs is 0; allowed: a whole number of at least 1"):
        heads.actor_critic("mlp", 0)
    assert isinstance(actor_critic_for(make("gymnax/Pendulum-v1")).actions, Normal)
    assert isinstance(make("gymnax/Pendulum-v1").action, Continuous)
