"""Actor-critic and FedA2C against loops and NumPy; that it learns; what it refuses."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from walk import WALK

import fedjax_rl as frl
from fedjax_rl import envs, memory, streams
from fedjax_rl.algorithms.feda2c_properties import memory_of
from fedjax_rl.learners import a2c
from fedjax_rl.learners.actor_critic import actor_critic_for
from fedjax_rl.learners.ppo import Batch

CARTPOLE = envs.gymnax_task("CartPole-v1")
PENDULUM = envs.gymnax_task("Pendulum-v1")


@pytest.mark.parametrize("task", [CARTPOLE, PENDULUM], ids=str)
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


class Loop:
    """One agent in NumPy, linear in the observation, and the agent's own words."""

    def __init__(self, key, parameters, optimizer):
        self.theta, self.key, self.optimizer = np.array(parameters, float), key, optimizer
        self.first, self.second = (np.zeros_like(self.theta) for _ in range(2))
        self.count, self.place, self.time = 0, np.zeros(2, int), np.zeros(2, int)

    def seen(self, e):
        return np.array([self.place[e], self.time[e] ** 2]) / 2

    def chances(self, seen):
        logits = self.theta[:2] + seen @ self.theta[2:6].reshape(2, 2)
        weights = np.exp(logits - logits.max())
        return weights / weights.sum()

    def value(self, seen):
        return self.theta[6] + seen @ self.theta[7:9]

    def rollout(self, when):
        own = jax.random.fold_in(self.key, streams.Engine.OWN)
        own = jax.random.fold_in(jax.random.fold_in(own, streams.Own.STEP), when)
        words = [jax.random.bits(jax.random.fold_in(own, e), (25,), jnp.uint32) for e in range(2)]
        rows = []
        for e in range(2):
            steps = []
            for t in range(5):
                before = self.seen(e)
                level = (int(words[e][5 * t]) >> 8) * 2.0**-24
                action = int(level >= self.chances(before)[0])
                self.place[e] += action
                self.time[e] += 1
                ended, late = self.place[e] >= 2, self.time[e] == 3
                after = None if ended else self.value(self.seen(e)) if late else "goes on"
                steps.append((before, action, 2.0 * (0.5 + self.place[e]), after))
                if ended or late:
                    self.place[e] = self.time[e] = 0
            # What n steps were worth, and the value of where they led.
            worth = self.value(self.seen(e))
            for before, action, reward, after in reversed(steps):
                later = 0.0 if after is None else worth if after == "goes on" else after
                worth = reward + 0.9 * later
                rows.append((before, action, worth))
        return rows

    def step(self, when):
        gradient = np.zeros(9)
        rows = self.rollout(when)
        for seen, action, worth in rows:
            chances, error = self.chances(seen), self.value(seen) - worth
            logs = np.log(chances)
            outwards = (np.eye(2)[action] - chances) * error
            outwards += 0.1 * chances * (logs - chances @ logs)
            gradient[:2] += outwards / len(rows)
            gradient[2:6] += np.outer(seen, outwards).ravel() / len(rows)
            gradient[6] += 0.4 * error / len(rows)
            gradient[7:] += 0.4 * error * seen / len(rows)
        gradient *= min(1, 0.6 / np.linalg.norm(gradient))
        self.count += 1
        if self.optimizer == "rmsprop":
            self.second = 0.8 * self.second + 0.2 * gradient**2
            move = gradient / np.sqrt(self.second + 1e-3)
        else:
            self.first = 0.9 * self.first + 0.1 * gradient
            self.second = 0.999 * self.second + 0.001 * gradient**2
            move = self.first / (1 - 0.9**self.count)
            move /= np.sqrt(self.second / (1 - 0.999**self.count)) + 1e-3
        self.theta = self.theta - 0.05 * move


@pytest.mark.parametrize("optimizer", a2c.OPTIMIZERS)
def test_it_is_the_loop_of_n_steps(optimizer):
    """Rollouts, n-step advantages, updates and averages of two agents, for four rounds of K = 2."""
    algorithm = frl.feda2c(
        WALK,
        **{"num_envs": 2, "rollout_steps": 5, "sync_period": 2, "learning_rate": 0.05},
        **{"discount": 0.9, "gae_lambda": 1.0, "gradient_clip": 0.6, "reward_scale": 2.0},
        loss={"value_coefficient": 0.4, "entropy_coefficient": 0.1},
        optimizer={"name": optimizer, "decay": 0.8, "epsilon": 1e-3},
        network={"hidden": ()},
    )
    state = frl.init(algorithm, num_agents=2, seed=3)
    first = np.asarray(state.state.agents.learned.parameters)
    agents = [Loop(key, first[0], optimizer) for key in state.state.keys]
    for turn in range(4):
        state, _ = frl.round(algorithm, state)
        for agent in agents:
            agent.step(2 * turn)
            agent.step(2 * turn + 1)
        mean = np.mean([agent.theta for agent in agents], axis=0)
        for i, agent in enumerate(agents):
            agent.theta = mean
            found = state.state.agents.learned
            close = functools.partial(np.testing.assert_allclose, rtol=2e-4, atol=1e-5)
            close(found.parameters[i], agent.theta)
            close(found.moments.second[i], agent.second)
    assert np.max(abs(mean - first[0])) > 0.1
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
        ({"optimizer": "sgd"}, "optimizer.name is 'sgd'; allowed: 'adam' or 'rmsprop'"),
        ({"loss": {"normalize": "minibatch"}}, "loss.normalize is 'minibatch'; allowed: 'none'"),
        ({"gae_lambda": 2}, "gae_lambda is 2; allowed: "),
        ({"network": "impala"}, "network.kind is impala on .*CartPole-v1, whose observations"),
    ):
        with pytest.raises(ValueError, match=words):
            frl.feda2c(CARTPOLE, **values)
    said = memory_of(frl.feda2c(CARTPOLE).config, 4)
    assert said["total"] == 2 * (said["parameters"] + said["environments"]) + said["rollout"]
    monkeypatch.setattr(memory, "available", lambda devices=None: 10**5)
    with pytest.raises(ValueError, match="num_agents is 4 with num_envs 8, which needs "):
        frl.simulate(frl.feda2c(CARTPOLE), num_agents=4, num_steps=1)
