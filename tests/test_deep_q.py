"""Deep Q-learning and FedDQN against loops and NumPy; that it learns; what it refuses."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from walk import WALK

import fedjax_rl as frl
from fedjax_rl import envs, memory, streams
from fedjax_rl.algorithms.feddqn_properties import memory_of
from fedjax_rl.learners import deep_q, replay
from fedjax_rl.sweeps import costs

CARTPOLE = envs.gymnax_task("CartPole-v1")
PIXELS = envs.procgen_task("BigFish", num_levels=2, observation="pixels")


class Dark:
    """Pictures as a game's, with nothing on them: a game itself takes long to trace."""

    def reset(self, key, params):
        del key, params
        return jnp.zeros((64, 64, 3), jnp.uint8), jnp.int32(0)

    def step(self, key, state, action, params):
        del key, action, params
        return jnp.zeros((64, 64, 3), jnp.uint8), state + 1, jnp.float32(0), False, False, {}


def dark():
    return envs.as_task(Dark(), action=envs.Discrete(15), max_steps=9, discount=0.9, name="dark")


def test_a_ring_keeps_the_last_steps():
    view = jax.ShapeDtypeStruct((2,), jnp.uint8)
    ring, kept = replay.empty(view, (3, 2)), []
    assert ring.observation.dtype == jnp.uint8
    for time in range(8):
        row = replay.Transition(
            jnp.full((2, 2), time, jnp.uint8),
            jnp.asarray([time, -time]),
            jnp.asarray([time, time + 0.5], jnp.float32),
            jnp.full((2, 2), time + 1, jnp.uint8),
            jnp.asarray([time % 2 == 0, False]),
        )
        ring = replay.write(ring, row, jnp.uint32(time))
        kept = [*kept, row][-3:]
        drawn = replay.sample(jax.random.key(time), ring, jnp.uint32(time + 1), (50, 4))
        there = {
            (int(r.action[e]), float(r.reward[e]), int(r.observation[e, 0]), bool(r.terminated[e]))
            for r in kept
            for e in range(2)
        }
        found = zip(
            np.ravel(drawn.action),
            np.ravel(drawn.reward),
            np.ravel(drawn.observation[..., 0]),
            np.ravel(drawn.terminated),
            strict=True,
        )
        assert set(found) == there
    many = replay.sample(jax.random.key(1), ring, jnp.uint32(8), (6000,))
    counts = np.unique(many.reward, return_counts=True)[1]
    assert (abs(counts - 1000) < 150).all()


def test_targets_and_losses_by_hand():
    online, lagged = jnp.asarray([1.0, 3.0, 2.0]), jnp.asarray([10.0, 20.0, 30.0])
    given = jnp.float32(0.5), jnp.asarray(False), online, lagged, 0.9
    assert deep_q.target(*given, True) == pytest.approx(0.5 + 0.9 * 20)
    assert deep_q.target(*given, False) == pytest.approx(0.5 + 0.9 * 30)
    assert deep_q.target(given[0], jnp.asarray(True), *given[2:], True) == 0.5
    error = jnp.asarray([-3.0, -1.0, 0.5, 2.0])
    np.testing.assert_allclose(deep_q.error_loss(error, "squared"), [4.5, 0.5, 0.125, 2.0])
    np.testing.assert_allclose(deep_q.error_loss(error, "huber"), [2.5, 0.5, 0.125, 1.5])
    slope = jax.vmap(jax.grad(lambda e: deep_q.error_loss(e, "huber")))(error)
    np.testing.assert_allclose(slope, [-1, -1, 0.5, 1])
    times = jnp.asarray([0, 5, 10, 400], jnp.uint32)
    found = [float(deep_q.exploration(time, 1.0, 0.2, 10.0)) for time in times]
    np.testing.assert_allclose(found, [1.0, 0.6, 0.2, 0.2], rtol=1e-6)


# The whole of it against a loop -------------------------------------------------------------------

PLAIN = {
    "num_envs": 2,
    "buffer_size": 8,
    "batch_size": 3,
    "learning_starts": 4,
    "updates": 2,
    "sync_period": 2,
    "learning_rate": 0.05,
    "discount": 0.9,
    "gradient_clip": 0.7,
    "exploration": {"first": 0.8, "last": 0.3, "steps": 6},
    "network": (),
}


class Loop:
    """One agent in NumPy, with values linear in the observation, and the agent's own words."""

    def __init__(self, key, parameters, double, kind, every, tau):
        self.theta, self.lagged = (np.array(parameters) for _ in range(2))
        self.first, self.second = (np.zeros_like(self.theta) for _ in range(2))
        self.count, self.double, self.kind = 0, double, kind
        self.every, self.tau, self.key = every, tau, key
        self.place, self.time = np.zeros((2, 2), int)
        self.ring = []

    def values(self, theta, seen):
        return seen @ theta[:4].reshape(2, 2) + theta[4:]

    def seen(self, e):
        return np.array([self.place[e], self.time[e] ** 2]) / 2

    def act(self, t, e, epsilon):
        stream = jax.random.fold_in(jax.random.fold_in(self.key, streams.Epochs.ROLLOUT), e)
        word = int(jax.random.bits(stream, (5 * t + 1,), jnp.uint32)[5 * t])
        level = (word >> 8) * 2.0**-24
        if level < epsilon:
            return int(2 * level / epsilon)
        return int(np.argmax(self.values(self.theta, self.seen(e))))

    def step(self, t):
        epsilon = 0.8 + min(t / 6, 1) * (0.3 - 0.8)
        for e in range(2):
            before, action = self.seen(e), self.act(t, e, epsilon)
            self.place[e] += action
            self.time[e] += 1
            over = self.place[e] >= 2
            row = before, action, 0.5 + self.place[e], self.seen(e), over
            self.ring = [*self.ring, row]
            if over or self.time[e] == 3:
                self.place[e] = self.time[e] = 0
        if 2 * (t + 1) >= 4:
            self.learn(t)

    def learn(self, t):
        slots = min(t + 1, 4)
        key = jax.random.fold_in(jax.random.fold_in(self.key, streams.Epochs.REPLAY), t)
        places = np.asarray(jax.random.randint(key, (2, 3), jnp.int32(0), jnp.int32(2 * slots)))
        for batch in places:
            gradient = np.zeros_like(self.theta)
            for place in batch:
                # The last step whose place in the ring this is.
                slot, e = divmod(place, 2)
                when = max(n for n in range(t + 1) if n % 4 == slot)
                before, action, reward, after, over = self.ring[2 * when + e]
                later = self.values(self.lagged, after)
                best = np.argmax(self.values(self.theta, after) if self.double else later)
                wanted = reward + (0.0 if over else 0.9 * later[best])
                error = self.values(self.theta, before)[action] - wanted
                slope = np.clip(error, -1, 1) if self.kind == "huber" else error
                own = np.zeros((2, 2))
                own[:, action] = slope * before
                gradient[:4] += own.ravel() / 3
                gradient[4 + action] += slope / 3
            gradient *= min(1, 0.7 / np.linalg.norm(gradient))
            self.count += 1
            self.first = 0.9 * self.first + 0.1 * gradient
            self.second = 0.999 * self.second + 0.001 * gradient**2
            step = self.first / (1 - 0.9**self.count)
            step /= np.sqrt(self.second / (1 - 0.999**self.count)) + 1e-8
            self.theta = self.theta - 0.05 * step
            if self.count % self.every == 0:
                self.lagged = self.lagged + self.tau * (self.theta - self.lagged)


@pytest.mark.parametrize(
    ("double", "kind", "every", "tau"), [(True, "huber", 3, 1.0), (False, "squared", 1, 0.25)]
)
def test_it_is_the_plain_loop(double, kind, every, tau):
    """Ring, actions, targets, updates and averages of two agents, for seven rounds of K = 2."""
    with jax.enable_x64(True):
        own = {"double": double, "loss": kind, "target": {"every": every, "tau": tau}}
        algorithm = frl.feddqn(WALK, **PLAIN, **own)
        state = frl.init(algorithm, num_agents=2, seed=3)
        keys = state.state.keys
        first = np.asarray(state.state.agents.learned.parameters)
        np.testing.assert_array_equal(first[0], first[1])
        agents = [Loop(key, first[0], double, kind, every, tau) for key in keys]
        for turn in range(7):
            state, _ = frl.round(algorithm, state)
            for t in (2 * turn, 2 * turn + 1):
                for agent in agents:
                    agent.step(t)
            mean = np.mean([agent.theta for agent in agents], axis=0)
            for agent in agents:
                agent.theta = mean
            found = state.state.agents
            for i, agent in enumerate(agents):
                close = functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-12)
                close(found.learned.parameters[i], agent.theta)
                close(found.lagged[i], agent.lagged)
                close(found.learned.moments.second[i], agent.second)
                for t in (2 * turn, 2 * turn + 1):
                    for e in range(2):
                        row = jax.tree.map(lambda x, t=t, e=e, i=i: x[i, t % 4, e], found.ring)
                        for got, is_ in zip(row, agent.ring[2 * t + e], strict=True):
                            np.testing.assert_allclose(got, is_)
    ends = [row[4] for agent in agents for row in agent.ring]
    assert any(ends)
    assert not np.all(found.learned.moments.count == 0)
    assert state.costs["env_steps"] == 2 * 2 * 14
    assert state.costs["floats_up"] == 2 * 7 * 6


@pytest.mark.thorough
def test_moments_are_averaged_or_forgotten():
    for moments, floats in (("average", 3 * 6), ("reset", 6)):
        algorithm = frl.feddqn(WALK, **PLAIN, moments=moments)
        state, _ = frl.round(algorithm, frl.init(algorithm, num_agents=3))
        state, _ = frl.round(algorithm, state)
        first = np.asarray(state.state.agents.learned.moments.first)
        np.testing.assert_allclose(first, [first[0]] * 3, atol=1e-7)
        assert np.any(first) == (moments == "average")
        assert state.costs["floats_up"] == 2 * 3 * floats


@pytest.mark.thorough
def test_it_learns_cartpole():
    """Two agents with 64,000 steps each, alone and together, and greedily above 150 of 500."""
    algorithm = frl.feddqn(CARTPOLE, sync_period=100, evaluation_episodes=20)
    result = frl.sweep(algorithm, num_agents=2, seeds=range(3), num_steps=8000, record_every=1000)
    assert (result["return"].isel(time=slice(-3, None)).mean("time") > 150).all()


def test_memory_is_that_of_its_state():
    one = frl.feddqn(CARTPOLE)
    said = memory_of(one.config, 3)
    kept = sum(costs.costs_of(one, 3).kept.values())
    lasting = said["parameters"] + said["replay"] + said["environments"]
    assert kept == pytest.approx(lasting, rel=0.1)
    assert said["total"] > lasting
    transition = 4 * 4 * 2 + 4 + 4 + 1
    assert said["replay"] == 3 * 10_000 * transition


@pytest.mark.parametrize(
    ("task", "double"),
    [
        (dark, False),
        pytest.param(dark, True, marks=pytest.mark.thorough),
        pytest.param(lambda: PIXELS, False, marks=pytest.mark.thorough),
        pytest.param(lambda: PIXELS, True, marks=pytest.mark.thorough),
    ],
)
def test_pictures_are_seen_by_a_network_for_them(task, double):
    """By default the classic one; in the ring they are bytes. In double precision, too."""
    with jax.enable_x64(double):
        small = {"num_envs": 2, "buffer_size": 8, "batch_size": 2}
        algorithm = frl.feddqn(task(), sync_period=2, **small)
        state = jax.eval_shape(lambda: frl.init(algorithm, num_agents=2))
        agents = state.state.agents
        assert agents.ring.observation.shape == (2, 4, 2, 64, 64, 3)
        assert agents.ring.observation.dtype == jnp.uint8
        heads = 128 * 15 + 15
        assert agents.learned.parameters.shape == (2, 336_112 - 128 * 16 - 16 + heads)
        assert agents.learned.parameters.dtype == jnp.float32
        after, _ = jax.eval_shape(lambda s: frl.round(algorithm, s), state)
        assert jax.tree.structure(after) == jax.tree.structure(state)


def test_mistakes_are_named_before_anything_compiles(monkeypatch):
    for values, words in (
        ({"batch_size": 65, "buffer_size": 64}, "buffer_size is 64; allowed: at least batch_size"),
        ({"buffer_size": 1001}, "buffer_size is 1001; allowed: multiples of num_envs 8"),
        ({"exploration": {"first": 1.5}}, "exploration.first is 1.5; allowed: "),
        ({"target": {"tau": -1}}, "target.tau is -1; allowed: "),
        ({"loss": "l1"}, "loss is 'l1'; allowed: 'huber' or 'squared'"),
    ):
        with pytest.raises(ValueError, match=words):
            frl.feddqn(CARTPOLE, **values)
    with pytest.raises(ValueError, match=r"task is .*Pendulum-v1, whose actions are continuous"):
        frl.feddqn(envs.gymnax_task("Pendulum-v1"))
    with pytest.raises(ValueError, match=r"network.kind is mlp, a network for vectors, on BigFish"):
        frl.feddqn(PIXELS, network={"kind": "mlp"})
    with pytest.raises(ValueError, match=r"network.kind is classic on CartPole-v1, whose ob"):
        frl.feddqn(CARTPOLE, network={"kind": "classic"})
    monkeypatch.setattr(memory, "available", lambda devices=None: 10**6)
    with pytest.raises(ValueError, match="num_agents is 4 with buffer_size 10000, which needs "):
        frl.simulate(frl.feddqn(CARTPOLE), num_agents=4, num_steps=1)
