"""What agents keep for their estimates, critics and statistics of observations, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedjax_rl as frl
from fedjax_rl.algorithms.oracle import Oracle, keys_at
from fedjax_rl.federation.state import Params
from fedjax_rl.learners import policy_gradient as learner

FAMILY = frl.envs.dirichlet_mdps(4, num_states=3, num_actions=2)
TASK = frl.envs.tabular_task(FAMILY, max_steps=4)
CARTPOLE = frl.envs.gymnax_task("CartPole-v1")
POLE = frl.envs.gymnax_task("CartPole-v1", max_steps=6)
STATES, ACTIONS, STEPS = 3, 2, 4


class Fit:
    """A network of two hidden units for four inputs, fitted by Adam, in NumPy."""

    def __init__(self, parameters):
        self.theta = np.array(parameters, np.float64)
        self.first, self.second, self.count = np.zeros(13), np.zeros(13), 0
        self.inputs, self.returns = np.zeros((0, 4)), np.zeros(0)

    def layers(self):
        a, b, c, d = np.split(self.theta, [8, 10, 12])
        return a.reshape(4, 2), b, c, d

    def scaled(self, inputs):
        variance = self.inputs.var(0) + 1e-8
        return np.clip((inputs - self.inputs.mean(0)) / np.sqrt(variance), -10, 10)

    def scale(self):
        return self.returns.mean(), np.sqrt(self.returns.var() + 1e-8)

    def value(self, inputs):
        if not len(self.returns):
            return np.zeros(len(inputs))
        weights, biases, last, bias = self.layers()
        mean, deviation = self.scale()
        return mean + deviation * (np.tanh(self.scaled(inputs) @ weights + biases) @ last + bias)

    def fit(self, inputs, returns, rate, steps):
        self.inputs = np.concatenate([self.inputs, inputs])
        self.returns = np.concatenate([self.returns, returns])
        inputs = self.scaled(inputs)
        mean, deviation = self.scale()
        for _ in range(steps):
            weights, biases, last, bias = self.layers()
            hidden = np.tanh(inputs @ weights + biases)
            error = (hidden @ last + bias - (returns - mean) / deviation) / len(returns)
            back = np.outer(error, last) * (1 - hidden**2)
            parts = (inputs.T @ back).ravel(), back.sum(0), error @ hidden, error.sum(keepdims=True)
            gradient = np.concatenate(parts)
            self.count += 1
            self.first = 0.9 * self.first + 0.1 * gradient
            self.second = 0.999 * self.second + 0.001 * gradient**2
            move = self.first / (1 - 0.9**self.count)
            self.theta -= rate * move / (np.sqrt(self.second / (1 - 0.999**self.count)) + 1e-8)


def estimated(theta, made, critic, discount, tau, trace):
    """The gradient of one agent's episodes, and what its critic learns from."""
    logs = theta.reshape(STATES, ACTIONS)
    logs = logs - np.log(np.exp(logs).sum(-1, keepdims=True))
    gradient, seen, returns = np.zeros((STATES, ACTIONS)), [], []
    for state, action, reward in zip(made.observation, made.action, made.reward, strict=True):
        inputs = np.column_stack([np.eye(STATES)[state], np.arange(STEPS) / STEPS])
        reward = reward - tau * logs[state, action]
        value = np.append(critic.value(inputs), 0.0)
        delta = reward + discount * value[1:] - value[:-1]
        for t in range(STEPS):
            ahead = np.arange(STEPS - t)
            advantage = np.sum((discount * trace) ** ahead * delta[t:])
            score = np.zeros((STATES, ACTIONS))
            score[state[t]] = np.eye(ACTIONS)[action[t]] - np.exp(logs[state[t]])
            gradient += discount**t * advantage * score / len(made.reward)
            returns.append(np.sum(discount**ahead * reward[t:]))
        seen.append(inputs)
    return gradient.ravel(), np.concatenate(seen), np.array(returns)


@pytest.mark.thorough
def test_rounds_are_a_plain_loop():
    """Two rounds of two steps of two agents; only the episodes are made by what is tested."""
    with jax.enable_x64(True):
        algorithm = frl.fedpg(
            TASK,
            **{"baseline": "critic", "local_steps": 2, "episodes_per_step": 2},
            **{"learning_rate": 0.3, "entropy": 0.1},
            critic={"learning_rate": 0.05, "steps": 3, "gae_lambda": 0.8, "hidden": (2,)},
        )
        state = frl.init(algorithm, num_agents=2, seed=3)
        oracle = Oracle(algorithm.config.resolved())
        critics = [Fit(x) for x in np.asarray(state.state.agents.oracle.critic.parameters)]
        theta = np.zeros(STATES * ACTIONS)
        for time in range(2):
            models = np.stack([theta, theta])
            for place in range(2):
                keys = keys_at(state.state.keys, jnp.uint32(time), jnp.uint32(place))
                made = oracle.sample(state.params, keys, jnp.asarray(models), 2, False)
                made = jax.tree.map(np.asarray, made)
                assert made.mask.all()
                for i, critic in enumerate(critics):
                    own = jax.tree.map(lambda x, i=i: x[i], made)
                    gradient, seen, returns = estimated(
                        models[i], own, critic, float(TASK.discount), 0.1, 0.8
                    )
                    models[i] += 0.3 * gradient
                    critic.fit(seen, returns, 0.05, 3)
            theta = models.mean(0)
            state, _ = frl.round(algorithm, state)
            found = state.state.agents.oracle.critic
            np.testing.assert_allclose(state.state.server.parameters[0], theta, rtol=1e-9)
            for i, critic in enumerate(critics):
                np.testing.assert_allclose(found.parameters[i], critic.theta, rtol=1e-8)
        assert np.abs(theta).max() > 0.01
        assert np.abs(found.parameters[0] - found.parameters[1]).max() > 0.01
        # What is personal costs nothing.
        assert state.costs["floats_up"] == 2 * 2 * theta.size


@pytest.mark.parametrize(
    "make",
    [
        frl.fast_fedpg,
        *(
            pytest.param(x, marks=pytest.mark.thorough)
            for x in (frl.fedsvrpg_m, frl.fedhapg_m, frl.afedpg)
        ),
    ],
)
def test_every_algorithm_keeps_its_critics(make):
    """They differ between agents, no message grows, and first directions are learned from too."""
    more = {"local_steps": 2} if make is not frl.afedpg else {}
    plain, own = (
        make(TASK, baseline=name, critic={"hidden": (2,), "steps": 2}, **more)
        for name in ("none", "critic")
    )
    first = frl.init(own, num_agents=3)
    end, _ = frl.round(own, first)
    before, after = (x.state.agents.oracle.critic for x in (first, end))
    begun = bool(getattr(own.config, "first_episodes", 0))
    assert (np.asarray(before.returns.count) > 0).all() == begun
    assert (after.returns.count > before.returns.count).any()
    assert np.abs(after.parameters - before.parameters).max() > 0
    assert frl.round(plain, frl.init(plain, num_agents=3))[0].costs == end.costs


def test_mistakes_are_named():
    for values, words in (
        (
            {"estimator": "reinforce"},
            "estimator is reinforce with baseline critic; allowed: gpomdp",
        ),
        ({"gradient": "exact"}, "gradient is exact with baseline critic; allowed: sampled"),
        ({"critic": {"gae_lambda": 1.5}}, "critic.gae_lambda is 1.5; allowed: in"),
        ({"critic": (0,)}, r"critic.hidden is \(0,\); allowed"),
        ({"critic": {"rate": 1}}, "rate"),
    ):
        with pytest.raises(ValueError, match=words):
            frl.fedpg(TASK, baseline="critic", **values)


@pytest.mark.thorough
def test_it_learns_cartpole():
    """Two agents, critics, Adam in the local steps, about a million steps: 500 of 500."""
    algorithm = frl.fedpg(
        CARTPOLE,
        **{"local_steps": 5, "episodes_per_step": 5, "learning_rate": 0.003, "network": (32, 32)},
        **{"baseline": "critic", "local_optimizer": "adam", "local_moments": "local"},
    )
    result = frl.sweep(algorithm, num_agents=2, seeds=range(3), num_steps=48, record_every=4)
    assert (result["return"].isel(time=slice(-3, None)).mean("time") > 400).all()


# Observations -------------------------------------------------------------------------------------


def normalising(seen):
    """The pole whose observations are normalised by those that were seen, [B, 4], if any."""
    if not len(seen):
        return POLE
    mean, deviation = seen.mean(0), np.sqrt(seen.var(0) + 1e-8)

    def encode(observation):
        return jnp.clip((POLE.encode(observation) - mean) / deviation, -10, 10)

    return POLE.replace(encode=encode, name=f"seen {len(seen)} {mean[0]}")


@pytest.mark.parametrize(
    ("kind", "rounds", "steps"),
    [("shared", 2, 1), pytest.param("personal", 1, 2, marks=pytest.mark.thorough)],
)
def test_policies_see_by_what_was_seen_before(kind, rounds, steps):
    """Rounds of FedPG as if somebody had normalised the task, for every gradient anew."""
    own = {"local_steps": steps, "episodes_per_step": 3, "learning_rate": 0.1, "baseline": "none"}
    own |= {"network": (3,), "normalize": False, "evaluation_episodes": 1}
    algorithm = frl.fedpg(POLE, observations=kind, **own)
    state = frl.init(algorithm, num_agents=2, seed=1)
    theta = np.asarray(state.state.server.parameters[0])
    seen, rule = [np.zeros((0, 4), np.float32)] * 2, learner.AdvantageRule()
    for time in range(rounds):
        models = np.stack([theta, theta])
        for place in range(steps):
            keys = keys_at(state.state.keys, jnp.uint32(time), jnp.uint32(place))
            ends, new = models.copy(), list(seen)
            for i in range(2):
                used = np.concatenate(seen) if kind == "shared" else seen[i]
                oracle = Oracle(frl.fedpg(normalising(used), **own).config.resolved())
                made = oracle.sample(Params({}, {}, {}), keys, jnp.asarray(models), 3, False)
                made = jax.tree.map(lambda x, i=i: x[i], made)
                gradient = learner.estimate(oracle.policy, models[i], made, POLE.discount, rule)
                ends[i] += 0.1 * np.asarray(gradient)
                new[i] = np.concatenate([seen[i], np.asarray(made.observation)[made.mask]])
            models, seen = ends, new
        theta = models.mean(0)
        state, _ = frl.round(algorithm, state)
        np.testing.assert_allclose(state.state.server.parameters[0], theta, rtol=2e-4, atol=2e-5)
    observed = state.state.agents.oracle.observed
    if kind == "shared":
        whole = np.concatenate(seen)
        np.testing.assert_allclose(state.state.server.observed.mean[0], whole.mean(0), rtol=1e-4)
        assert state.state.server.observed.count == len(whole)
        assert not observed.own.count.any()
    else:
        np.testing.assert_array_equal(observed.own.count, [len(x) for x in seen])
    sent = theta.size + (9 if kind == "shared" else 0)
    assert state.costs["floats_up"] == rounds * 2 * sent


@pytest.mark.thorough
@pytest.mark.parametrize(
    "make", [frl.scaffold_pg, frl.fast_fedpg, frl.fedsvrpg_m, frl.fedhapg_m, frl.afedpg]
)
@pytest.mark.parametrize("kind", ["personal", "shared"])
def test_every_algorithm_has_normalised_observations(make, kind):
    """With an uplink of half of them, where agents differ, and where no agent learns."""
    own = {"heterogeneity": 0.3, "held_out": {"members": 2, "episodes": 2}}
    more = {"local_steps": 2} if make is not frl.afedpg else {}
    algorithm = make(
        POLE, observations=kind, uplink=frl.uplinks.partial(0.5), network=(3,), **own, **more
    )
    result = frl.sweep(algorithm, num_agents=3, num_steps=4, record_every=2, seeds=0, workers=1)
    for name in ("return", "held_out_return"):
        assert np.isfinite(result[name]).all()
    assert not result.diverged.any()


def test_states_are_not_normalised():
    words = "observations.normalize is shared on .*, whose observations are states; allowed: none"
    with pytest.raises(ValueError, match=words):
        frl.fedpg(TASK, observations="shared")
