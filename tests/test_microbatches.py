"""Gradients some pictures at a time: those of all at once."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedjax_rl as frl
from fedjax_rl import backend
from fedjax_rl.algorithms.fedppo_resources import memory_of
from fedjax_rl.learners import a2c, microbatches, optimizers, ppo
from fedjax_rl.learners.actor_critic import actor_critic_for

PICTURE = (64, 64, 3)


@pytest.mark.parametrize(
    ("shape", "samples", "size"),
    [
        (PICTURE, 2048, 16),
        (PICTURE, 72, 12),
        (PICTURE, 12, 12),
        (PICTURE, 4, 4),
        (PICTURE, 37, 37),
        (PICTURE, 74, 74),
        ((10, 10, 4), 2048, 512),
        ((200, 200, 3), 2048, 8),
        ((64,), 2048, 2048),
        ((), 2048, 2048),
    ],
)
def test_pictures_are_taken_in_equal_parts(shape, samples, size):
    assert microbatches.at_once(shape, samples) == size
    with backend.made_for("gpu"):
        assert microbatches.at_once(shape, samples) == samples


@pytest.mark.parametrize("size", [1, 4, 6, 12])
def test_the_gradient_of_a_mean_of_squares(size):
    rng = np.random.default_rng(0)
    x, y, w = rng.normal(size=(12, 3)), rng.normal(size=12), rng.normal(size=3)

    def objective(own, batch):
        error = batch["x"] @ own["w"] - batch["y"]
        return jnp.mean(error**2), {"error": jnp.mean(error), "largest": jnp.mean(batch["y"])}

    found, told = microbatches.gradient(objective, {"w": w}, {"x": x, "y": y}, size)
    error = x @ w - y
    np.testing.assert_allclose(found["w"], 2 * x.T @ error / 12, rtol=1e-5)
    np.testing.assert_allclose(told["error"], error.mean(), rtol=1e-5)
    np.testing.assert_allclose(told["largest"], y.mean(), rtol=1e-5)


@functools.cache
def _seen():
    """A policy for pictures, its parameters, and a rollout of four environments for 16 steps."""
    task = frl.envs.procgen_task("BigFish", observation="pixels")
    policy = actor_critic_for(task, "classic")
    rng = np.random.default_rng(1)
    numbers = lambda: jnp.asarray(rng.normal(size=(16, 4)), jnp.float32)
    batch = ppo.Batch(
        observation=jnp.asarray(rng.integers(0, 256, (16, 4, *PICTURE)), jnp.uint8),
        action=jnp.asarray(rng.integers(0, 15, (16, 4)), jnp.int32),
        log_prob=numbers() - 2.7,
        value=numbers(),
        advantage=numbers(),
        target=numbers(),
    )
    return policy, policy.init(jax.random.key(0)), batch


def _ppo(policy, parameters, batch):
    weights = {
        "rate": 0.01,
        "policy_clip": 0.2,
        "value_clip": 0.2,
        "value_coefficient": 0.5,
        "entropy_coefficient": 0.01,
        "gradient_clip": 0.5,
        "adam_epsilon": 1e-5,
    }
    settings = types.SimpleNamespace(shuffle="samples", normalize="minibatch")
    places = ppo.order(jax.random.key(1), (16, 4), 1, "samples")
    moments = optimizers.no_moments(parameters)
    return ppo.improve(policy, parameters, moments, batch, places, weights, settings)


def _a2c(policy, parameters, batch):
    weights = {
        "loss.value_coefficient": 0.5,
        "loss.entropy_coefficient": 0.01,
        "gradient_clip": np.inf,
    }
    return a2c.gradient(policy, parameters, batch, weights)


@pytest.mark.parametrize("learn", [_ppo, _a2c])
def test_what_is_learned_from_pictures_is_the_same(learn, monkeypatch):
    policy, parameters, batch = _seen()

    def learned(pictures):
        monkeypatch.setattr(microbatches, "PIXELS", pictures * 64 * 64)
        text = str(jax.make_jaxpr(lambda p: learn(policy, p, batch))(parameters))
        return learn(policy, parameters, batch), text.count("scan[")

    (parts, more), (whole, loops) = learned(8), learned(1000)
    assert more == loops + 1
    for one, other in zip(jax.tree.leaves(parts), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=2e-6)


def test_memory_is_that_of_the_device_that_programs_are_made_for():
    """Whichever is asked for first: what was computed for one is not remembered for the other."""
    game = frl.envs.procgen_task("BigFish", observation="pixels")
    sizes = {"num_envs": 32, "rollout_steps": 16, "minibatches": 1}
    one = frl.fedppo(game, network="classic", **sizes).config

    def bytes_kept():
        return memory_of(one)["minibatch"] - 512 * (64 * 64 * 3 + 5 * 4)

    own = bytes_kept()
    with backend.made_for("gpu"):
        whole = bytes_kept()
    assert 20 * own < whole < 32 * own
    assert bytes_kept() == own
