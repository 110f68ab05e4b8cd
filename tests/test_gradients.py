"""What can be differentiated is, to nine digits; what cannot be says so."""

import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fedjax_rl as frl

SEEDS = np.arange(4)
SIZES = {"num_agents": 8, "num_steps": 600, "record_every": 600}

module = importlib.import_module("fedjax_rl.algorithms.fedq")


@pytest.fixture
def double():
    module._remembered.cache_clear()
    with jax.enable_x64(True):
        yield
    module._remembered.cache_clear()


@functools.cache
def paper():
    return frl.envs.paper_mdp()


def objective(properties, seeds=SEEDS, sizes=SIZES):
    """The mean over federations of the server's final error, as a function of a number."""

    def value(x):
        algorithm = frl.fedq(**{"mdp": paper(), "sync_period": 10, "epsilon": 1.0, **properties(x)})
        run = functools.partial(frl.simulate, algorithm, **sizes)
        return jnp.mean(jax.vmap(lambda seed: run(seed=seed).metrics["error_server"][-1])(seeds))

    return value


EVERYTHING = {
    "rate": 0.05,
    "rate_at_300": 0.06,
    "logit": 0.1,
    "mixing": 0.7,
    "reward": 0.0,
    "discount": 0.6,
    "noise": 0.3,
}


def everything(x):
    """All that is differentiable at once, under a fixed policy that is not uniform."""
    x = dict(zip(EVERYTHING, x, strict=True))
    change = jnp.zeros((1, 1, 4)).at[0, 0, 1].set(x["reward"])
    return {
        "behaviour": "policy",
        "policy": np.tile([0.2, 0.3, 0.5], (4, 1)),
        "epsilon": 0.0,
        "learning_rate": frl.schedule(
            lambda step: jnp.where(step == 300, x["rate_at_300"], x["rate"])
        ),
        "aggregation": "learned",
        "weights": jnp.zeros(8).at[2].set(x["logit"]),
        "mixing": x["mixing"],
        "mdp": paper().replace(reward=paper().reward + change),
        "discount": x["discount"],
        "reward_noise": x["noise"],
    }


@pytest.mark.usefixtures("double")
def test_reverse_forward_and_finite_differences_agree():
    """The specification, section 9.1: to nine digits, relative errors below 1e-5."""
    value, at = objective(everything), list(EVERYTHING.values())

    @jax.jit
    def all_three(x, step):
        basis = jnp.eye(x.size)
        slopes = jax.lax.map(lambda tangent: jax.jvp(value, (x,), (tangent,))[1], basis)
        points = jnp.concatenate([x[None] + step * basis, x[None] - step * basis])
        above, below = jnp.split(jax.lax.map(value, points), 2)
        return jax.grad(value)(x), slopes, (above - below) / (2 * step)

    reverse, forward, difference = map(np.asarray, all_three(jnp.asarray(at), 1e-6))
    assert np.abs(difference).min() > 1e-5
    np.testing.assert_allclose(reverse, forward, rtol=1e-9)
    np.testing.assert_allclose(reverse, difference, rtol=1e-5)


def test_gradients_through_sampled_actions_are_refused():
    small = {"num_agents": 2, "num_steps": 4}
    for properties in ({"beta": 4.0}, {"behaviour": "greedy"}):
        change = {"epsilon": 0.1, "sync_period": 2, **properties}
        value = objective(lambda x, c=change: {**c, "learning_rate": x}, SEEDS[:1], small)
        for derivative in (jax.grad(value), lambda x, v=value: jax.jvp(v, (x,), (1.0,))):
            with pytest.raises(ValueError, match=r"gradient is None.*gradient='pathwise'"):
                jax.jit(derivative).lower(0.2)


def test_the_pathwise_gradient_of_sampled_actions_is_biased():
    """The specification, section 9.2: finite difference -8.17, pathwise -12.93 (K = T)."""
    seeds = np.arange(8192)
    sizes = {"num_agents": 2, "num_steps": 60, "record_every": 60}
    common = {"epsilon": 0.0, "beta": 4.0, "sync_period": 60, "gradient": "pathwise"}
    value = objective(lambda x: {**common, "learning_rate": x}, seeds, sizes)

    @jax.jit
    def both(x, step):
        slope = jax.jvp(value, (x,), (jnp.ones_like(x),))[1]
        near = jax.lax.map(value, jnp.stack([x + step, x - step]))
        return slope, (near[0] - near[1]) / (2 * step)

    pathwise, difference = map(float, both(jnp.float32(0.2), jnp.float32(0.02)))
    assert abs(pathwise + 12.93) < 0.3
    assert abs(difference + 8.17) < 1.0
    assert pathwise < difference - 3


@pytest.mark.thorough
def test_memory_of_reverse_mode_grows_with_the_rounds_and_not_with_the_steps():
    def bytes_of(period, rounds):
        sizes = {"num_agents": 8, "num_steps": period * rounds, "record_every": period * rounds}
        value = objective(lambda x: {"learning_rate": x, "sync_period": period}, SEEDS, sizes)
        compiled = jax.jit(jax.grad(value)).lower(jnp.float32(0.05)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    base = bytes_of(20, 400)
    # One table of 12 floats per round and agent has to be there; one per step is not.
    tables = 400 * SEEDS.size * 8 * 12 * 4
    assert tables < base < 5 * tables
    assert bytes_of(40, 400) < 1.1 * base


@pytest.mark.thorough
def test_learned_weights_find_the_inverse_variances():
    """Agents whose rewards are noisier get less weight: showcase 2, with its known answer."""
    noise = np.array([0.1, 0.1, 0.5, 0.5, 1.0, 1.0, 2.0, 2.0])
    algorithm = frl.fedq(
        paper(),
        epsilon=1.0,
        learning_rate=0.05,
        sync_period=10,
        reward_noise=noise,
        aggregation="learned",
        weights=np.zeros(8),
    )

    def errors(logits, seeds):
        one = functools.partial(
            frl.simulate, algorithm.replace(weights=logits), num_agents=8, num_steps=3000
        )
        return jax.vmap(lambda seed: one(seed=seed).metrics["error_server"][-30:])(seeds)

    @jax.jit
    def step(logits, memory, seeds):
        loss = lambda logits: jnp.log(jnp.mean(errors(logits, seeds)))
        updates, memory = optimizer.update(jax.grad(loss)(logits), memory)
        return optax.apply_updates(logits, updates), memory

    schedule = frl.schedule(optax.cosine_decay_schedule(0.15, 60))
    optimizer = optax.adam(schedule)
    # optax counts in integers and divides by floats, which strict promotion refuses.
    with jax.numpy_dtype_promotion("standard"):
        logits = jnp.zeros(8)
        memory = optimizer.init(logits)
        for i in range(60):
            logits, memory = step(logits, memory, 100 + 16 * i + np.arange(16))
        # Leading order: the noise of agent i adds its variance to that of the TD error, tr C.
        mdp = paper()
        own = frl.envs.linear_theory(mdp, frl.envs.uniform_policy(mdp)).trace_noise
        best = 1 / (own + noise**2)
        best = best / best.sum()
        np.testing.assert_allclose(jax.nn.softmax(logits), best, atol=0.02)
        test = np.arange(10_000, 10_064)
        ratio = jnp.mean(errors(logits, test)) / jnp.mean(errors(jnp.zeros(8), test))
    assert 0.4 < ratio < 0.55
