"""Actor-critic and FedA2C against loops and NumPy; that it learns; what it refuses."""

import functools

import jax
import jax.numpy as jnp
import n_step
import numpy as np
import pytest
from walk import WALK

import fedjax_rl as frl
from fedjax_rl import envs, memory, streams
from fedjax_rl.algorithms.n_step_properties import memory_of
from fedjax_rl.learners import a2c, optimizers
from fedjax_rl.learners.actor_critic import actor_critic_for
from fedjax_rl.learners.ppo import Batch
from fedjax_rl.sweeps import costs

CARTPOLE = envs.gymnax_task("CartPole-v1")
PENDULUM = envs.gymnax_task("Pendulum-v1")


@pytest.mark.parametrize(
    "task", [CARTPOLE, pytest.param(PENDULUM, marks=pytest.mark.thorough)], ids=str
)
def test_the_gradient_is_that_of_the_plain_loss_of_a_trajectory(task):
    policy = actor_critic_for(task, hidden=(3,), deviation=0.7)
    parameters = policy.init(jax.random.key(0))
    rng = np.random.default_rng(1)
    seen = jnp.asarray(rng.normal(size=(5, 1, task.observation_size)), jnp.float32)
    discrete = isinstance(task.action, envs.Discrete)
    drawn = rng.integers(0, 2, (5, 1)) if discrete else rng.normal(size=(5, 1, 1))
    action = jnp.asarray(drawn, jnp.int32 if discrete else jnp.float32)
    advantage, target = (jnp.asarray(rng.normal(size=(5, 1)), jnp.float32) for _ in range(2))
    nothing = jnp.zeros((5, 1))
    batch = Batch(seen, action, nothing, nothing, advantage, target)
    weights = {"loss.value_coefficient": 0.3, "loss.entropy_coefficient": 0.2}

    def plain(parameters):
        total = 0.0
        for t in range(5):
            outputs, value = policy.apply(parameters, seen[t])
            if discrete:
                chances = jnp.exp(outputs[0]) / jnp.sum(jnp.exp(outputs[0]))
                log = jnp.log(chances[action[t, 0]])
                entropy = -jnp.sum(chances * jnp.log(chances))
            else:
                deviation = jnp.exp(parameters[-1])
                density = jax.scipy.stats.norm.pdf(action[t, 0, 0], outputs[0, 0], deviation)
                log, entropy = jnp.log(density), jnp.log(deviation * np.sqrt(2 * np.pi * np.e))
            total -= log * advantage[t, 0] - 0.3 * (value[0] - target[t, 0]) ** 2 / 2
            total -= 0.2 * entropy
        return total / 5

    value, slope = jax.value_and_grad(plain)(parameters)
    own = jax.value_and_grad(lambda p: a2c.loss(policy, p, batch, weights)[0])(parameters)
    np.testing.assert_allclose(own[0], value, rtol=1e-5)
    np.testing.assert_allclose(own[1], slope, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("optimizer", optimizers.NAMES)
def test_it_is_the_loop_of_n_steps(optimizer):
    """Rollouts, n-step advantages, updates and averages of two agents, for four rounds of K = 2."""
    own = {"name": optimizer, **n_step.OPTIMIZER}
    algorithm = frl.feda2c(WALK, sync_period=2, optimizer=own, **n_step.GIVEN)
    state = frl.init(algorithm, num_agents=2, seed=3)
    first = np.asarray(state.state.agents.learned.parameters)
    agents = [(n_step.Actor(), n_step.Descent(first[0], optimizer)) for _ in range(2)]
    for turn in range(4):
        state, _ = frl.round(algorithm, state)
        for key, (actor, descent) in zip(state.state.keys, agents, strict=True):
            for when in (2 * turn, 2 * turn + 1):
                stream = jax.random.fold_in(key, streams.Engine.OWN)
                stream = jax.random.fold_in(jax.random.fold_in(stream, streams.Own.STEP), when)
                descent.step(actor.gradient(stream, descent.theta))
        mean = np.mean([descent.theta for _, descent in agents], axis=0)
        for i, (_, descent) in enumerate(agents):
            descent.theta = mean
            found = state.state.agents.learned
            close = functools.partial(np.testing.assert_allclose, rtol=2e-4, atol=1e-5)
            close(found.parameters[i], descent.theta)
            close(found.moments.first[i], descent.first)
            close(found.moments.second[i], descent.second)
    assert np.max(abs(mean - first[0])) > 0.05
    assert state.costs["env_steps"] == 2 * 8 * 10
    assert state.costs["floats_up"] == 2 * 4 * 9


@pytest.mark.thorough
def test_it_learns_cartpole():
    """Two agents with 154,000 steps each are above 150 of 500."""
    algorithm = frl.feda2c(CARTPOLE, sync_period=10, evaluation_episodes=20)
    result = frl.sweep(algorithm, num_agents=2, seeds=range(3), num_steps=1200, record_every=200)
    assert (result["return"].isel(time=slice(-2, None)).mean("time") > 150).all()


def test_mistakes_are_named_before_anything_compiles(monkeypatch):
    for values, words in (
        ({"optimizer": "lion"}, "optimizer.name is 'lion'; allowed: 'adam' or 'momentum' or"),
        ({"loss": {"normalize": "minibatch"}}, "loss.normalize is 'minibatch'; allowed: 'none'"),
        ({"gae_lambda": 2}, "gae_lambda is 2; allowed: "),
        ({"network": "impala"}, "network.kind is impala on .*CartPole-v1, whose observations"),
    ):
        with pytest.raises(ValueError, match=words):
            frl.feda2c(CARTPOLE, **values)
    said, kept = memory_of(frl.feda2c(CARTPOLE).config, 4), costs.costs_of(frl.feda2c(CARTPOLE), 4)
    lasting = said["parameters"] + said["environments"]
    assert sum(kept.kept.values()) == pytest.approx(lasting, rel=0.1)
    assert said["total"] > lasting + said["rollout"] / 2
    monkeypatch.setattr(memory, "available", lambda devices=None: 10**5)
    with pytest.raises(ValueError, match="num_agents is 4 with num_envs 8, which needs "):
        frl.simulate(frl.feda2c(CARTPOLE), num_agents=4, num_steps=1)
