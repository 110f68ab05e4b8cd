"""Linear systems with quadratic costs: exact values, the best gains, families, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedjax_rl as frl
from fedjax_rl.envs import registry

A = np.array([[1.1, 0.3], [-0.2, 0.8]])
B = np.array([[0.1, 0.5], [1.0, -0.3]])
Q = np.array([[1.0, 0.2], [0.2, 0.5]])
R = np.array([[0.4, 0.1], [0.1, 0.9]])
GIVEN = {"dynamics": A, "control": B, "state_cost": Q, "action_cost": R}


def test_the_best_gains_are_those_of_the_best_actions_of_all_steps_at_once():
    """Without noise an episode is one quadratic problem of all its actions."""
    task = frl.envs.lqr(**GIVEN, noise=0.0, discount=0.9, max_steps=4)
    # Actions u -> states (x_1, x_2, x_3) = F x_0 + G u, the first being x_0 itself.
    first = np.stack([np.linalg.matrix_power(A, t) for t in range(4)])
    ahead = np.zeros((4, 2, 4, 2))
    for t in range(4):
        for s in range(t):
            ahead[t, :, s] = np.linalg.matrix_power(A, t - 1 - s) @ B
    weight = 0.9 ** np.arange(4)
    hessian = np.einsum("t,tasu,ab,tbrv->surv", weight, ahead, Q, ahead)
    hessian += np.einsum("s,sr,uv->surv", weight, np.eye(4), R)
    linear = np.einsum("t,tasu,ab,tbi->sui", weight, ahead, Q, first)
    actions = -np.linalg.solve(hessian.reshape(8, 8), linear.reshape(8, 2)).reshape(4, 2, 2)
    gains = frl.envs.lqr_gains(task)
    state = np.eye(2)  # both first states at once
    for gain, action in zip(gains, actions, strict=True):
        np.testing.assert_allclose(-gain @ state, action, atol=1e-12)
        state = A @ state + B @ action
    # Of two first states, each as wide as it is long.
    value = np.einsum("tai,ab,tbi->", (s := _states(actions)) * weight[:, None, None], Q, s)
    value += np.einsum("t,tui,uv,tvi->", weight, actions, R, actions)
    assert frl.envs.lqr_return(task, gains) == pytest.approx(-value)


def _states(actions):
    found = [np.eye(2)]
    for action in actions[:-1]:
        found.append(A @ found[-1] + B @ action)
    return np.stack(found)


def test_far_from_the_end_the_best_gain_is_that_of_the_fixed_point():
    for discount in (0.8, 1.0):
        task = frl.envs.lqr(**GIVEN, discount=discount, max_steps=200)
        gain = frl.envs.lqr_gain(task)
        np.testing.assert_allclose(frl.envs.lqr_gains(task)[0], gain, atol=1e-10)
        assert (frl.envs.lqr_gains(task)[-1] == 0).all()


def test_a_step_is_its_equation_and_returns_have_the_mean_that_is_computed():
    task = frl.envs.lqr(**GIVEN, noise=0.3, first=0.5, discount=0.9, max_steps=5)
    gain = frl.envs.lqr_gain(task)

    def episode(key):
        keys = jax.random.split(key, 6)
        _, state = task.env.reset(keys[0], task.params)

        def step(state, key):
            action = -jnp.asarray(gain, jnp.float32) @ state
            _, new, reward, *_ = task.env.step(key, state, action, task.params)
            return new, (state, action, reward, new)

        return jax.lax.scan(step, state, keys[1:])[1]

    made = jax.jit(jax.vmap(episode))(jax.random.split(jax.random.key(0), 20_000))
    state, action, reward, new = (np.asarray(x, np.float64) for x in made)
    cost = np.einsum("...i,ij,...j", state, Q, state) + np.einsum("...i,ij,...j", action, R, action)
    np.testing.assert_allclose(reward, -cost, rtol=1e-5, atol=1e-6)
    noise = new - state @ A.T - action @ B.T
    assert np.cov(noise.reshape(-1, 2).T) == pytest.approx(0.09 * np.eye(2), abs=2e-3)
    assert np.cov(state[:, 0].T) == pytest.approx(0.25 * np.eye(2), abs=1e-2)
    returns = reward @ 0.9 ** np.arange(5)
    error = returns.std() / np.sqrt(len(returns))
    assert abs(returns.mean() - frl.envs.lqr_return(task, gain)) < 4 * error


def test_agents_differ_in_parts_and_in_whole_systems():
    task = frl.envs.lqr()
    assert frl.envs.parts(task) == ("drift", "control", "state_cost", "action_cost", "noise")
    own = frl.envs.members(task, 3, {"drift": 0.5, "noise": 0.2})
    factors = own.dynamics[:, 0, 1] / 0.2
    assert len(set(factors)) == 3
    assert (np.abs(np.log(factors)) <= 0.5).all()
    np.testing.assert_array_equal(own.dynamics[:, [0, 1, 1], [0, 0, 1]], [[1, 0, 1]] * 3)
    np.testing.assert_array_equal(own.control, [[[0.02], [0.2]]] * 3)
    assert len(set(own.noise)) == 3

    def members(num_agents):
        return jax.tree.map(lambda x: np.stack([x] * num_agents), frl.envs.lqr(**GIVEN).params)

    family = frl.envs.lqr(**GIVEN).replace(members=members)
    assert frl.envs.members(family, 2, {}).control.shape == (2, 2, 2)


def test_options_make_it_again():
    task = frl.envs.lqr(**GIVEN, first=2)
    again = registry.make(**{**task.config, "name": "lqr"})
    assert again == task
    assert hash(again) == hash(task)
    assert registry.make("lqr") == frl.envs.lqr() != task
    assert frl.envs.lqr(state_cost=2.0) == frl.envs.lqr(state_cost=2 * np.eye(2)).replace(
        options=frl.envs.lqr(state_cost=2.0).options
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"dynamics": [[1.0, 2.0], [3.0]]}, "dynamics is no matrix of numbers; allowed: rows of"),
        ({"dynamics": [[np.inf]]}, "dynamics is empty or not finite; allowed: rows of finite"),
        ({"control": [[1.0]]}, r"dynamics has shape \(2, 2\) with control of shape \(1, 1\)"),
        ({"state_cost": [[1.0, 2.0], [2.0, 1.0]]}, "state_cost has the smallest eigenvalue -1"),
        ({"action_cost": 0.0}, r"action_cost is 0.0; allowed: a matrix \[1, 1\], or finite and"),
        ({"action_cost": [[1.0, 0.0]]}, r"action_cost has shape \(1, 2\); allowed: a number or"),
        ({"noise": -1.0}, "noise is -1.0; allowed: finite and at least 0"),
        ({"dynamic": 1}, "dynamic.* did you mean dynamics"),
    ],
)
def test_refused(arguments, sentence):
    with pytest.raises((ValueError, TypeError), match=sentence):
        frl.envs.lqr(**arguments)


def test_what_has_no_best_gain_is_refused():
    with pytest.raises(ValueError, match="whose Riccati equation has no solution; allowed"):
        frl.envs.lqr_gain(frl.envs.lqr([[2.0]], [[0.0]], discount=1.0))
    with pytest.raises(ValueError, match=r"task is simple-grid; allowed: a task of envs\.lqr"):
        frl.envs.lqr_gain(frl.envs.simple_grid())
    with pytest.raises(ValueError, match=r"gain is .*; allowed: an array \[1, 2\] or \["):
        frl.envs.lqr_return(frl.envs.lqr(), [[1.0]])
