"""Analytic policy gradients: closed forms on linear systems, the best gain, what has no path."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedjax_rl as frl
from fedjax_rl.algorithms.oracle import keys_at
from fedjax_rl.learners.path_policies import smooth_policy
from fedjax_rl.rollouts.paths import differentiable_episodes

STEPS, DISCOUNT = 40, 0.6
SCALES = np.array([0.5, 1.5])
AFFINE = {"hidden": (), "initializer": "zeros"}


@pytest.fixture
def double():
    with jax.enable_x64(True):
        yield


def by_hand(params, gain, moment):
    """The return of u = -K x without noise and its derivative by -K, with Lyapunov equations.

    The last entry of a state is 1, so that K has what is added to an action, too.

    Backward P_t = Q + K'RK + gamma (A - BK)' P_{t+1} (A - BK), forward S_t, moments of the state:
    dJ/d(-K) = 2 sum_t gamma^t ((R + gamma B'P_{t+1} B) K - gamma B'P_{t+1} A) S_t.
    """
    a, b, q, r = (
        np.asarray(x)
        for x in (params.dynamics, params.control, params.state_cost, params.action_cost)
    )
    a = np.block([[a, np.zeros((2, 1))], [np.zeros((1, 2)), np.eye(1)]])
    b, q = np.pad(b, ((0, 1), (0, 0))), np.pad(q, ((0, 1), (0, 1)))
    closed, cost = a - b @ gain, q + gain.T @ r @ gain
    ahead = [np.zeros_like(q)]
    for _ in range(STEPS):
        ahead.append(cost + DISCOUNT * closed.T @ ahead[-1] @ closed)
    total, slope, weight = 0.0, np.zeros_like(gain), 1.0
    for p in ahead[-2::-1]:
        total -= weight * np.sum(cost * moment)
        inner = (r + DISCOUNT * b.T @ p @ b) @ gain - DISCOUNT * b.T @ p @ a
        slope += 2 * weight * inner @ moment
        moment, weight = closed @ moment @ closed.T, weight * DISCOUNT
    return total, slope


def first_states(task, keys, count):
    """With a 1 behind them, [A, N, n + 1]; `keys` of the agents' first states, [A]."""

    def one(key, n):
        state = task.env.reset(jax.random.fold_in(key, n), task.params)[1]
        return jnp.append(state, 1.0)

    of_agent = jax.vmap(one, in_axes=(None, 0))
    return jax.vmap(of_agent, in_axes=(0, None))(keys, jnp.arange(count))


def test_rounds_are_a_loop_of_closed_forms_that_ends_at_the_best_gain(double):
    """Agents whose costs differ by a factor have one best gain, and different gradients."""
    task = frl.envs.lqr(noise=0.0, discount=DISCOUNT, max_steps=STEPS)
    one = task.params

    def members(num_agents):
        own = jax.tree.map(lambda x: np.stack([x] * num_agents), one)
        scale = SCALES[:num_agents, None, None]
        costs = {n: getattr(own, n) * scale for n in ("state_cost", "action_cost")}
        return type(own)(**{**vars(own), **costs})

    rate, local, rounds, episodes = 0.1, 5, 30, 2
    algorithm = frl.fedapg(
        task.replace(members=members),
        network=AFFINE,
        local_optimizer="sgd",
        learning_rate=rate,
        local_steps=local,
        episodes_per_step=episodes,
        evaluation_episodes=1,
    )
    run = frl.simulate(algorithm, num_agents=2, num_steps=rounds)
    systems = [jax.tree.map(lambda x, i=i: x[i], members(2)) for i in range(2)]
    gain, expected = np.zeros((1, 3)), []

    def firsts(time, place):
        return first_states(task, keys_at(run.state.keys, time, place)[0], episodes)

    times, places = np.divmod(np.arange(rounds * local, dtype=np.uint32), np.uint32(local))
    states = np.asarray(jax.jit(jax.vmap(firsts))(times, places))
    states = states.reshape(rounds, local, 2, episodes, 3)
    for each in states:
        ends, values = [], []
        for agent, system in enumerate(systems):
            own = gain
            for first in each[:, agent]:
                value, slope = by_hand(system, own, first.T @ first / episodes)
                own = own - rate * slope  # the parameters are -K
                values.append(value)
            ends.append(own)
        gain = np.mean(ends, axis=0)
        expected.append(np.mean(values))
    np.testing.assert_allclose(run.metrics["training_reward"].ravel(), expected, rtol=1e-9)
    end = np.asarray(run.state.server.parameters).ravel()
    np.testing.assert_allclose(end, -gain.ravel(), atol=1e-12)
    # What comes behind 40 steps weighs 0.6^40 = 1.3e-9.
    np.testing.assert_allclose(end, [*-frl.envs.lqr_gain(task).ravel(), 0], atol=1e-6)


@pytest.mark.thorough
def test_a_gradient_is_the_closed_form_in_both_modes_and_of_what_is_drawn(double):
    task = frl.envs.lqr(noise=0.0, discount=DISCOUNT, max_steps=STEPS)
    keys = tuple(jax.random.split(jax.random.key(n), 1) for n in (0, 1))
    gain = np.array([[0.5, 0.9, 0.0]])
    plain = jnp.asarray(-gain.ravel())
    noisy = jnp.asarray([-0.5, -0.9, 0.1, -1.0])
    policy, drawn = (smooth_policy(task, (), "tanh", "zeros", d) for d in (None, 0.3))

    def value(parameters, policy, truncation=None, observes=False):
        made = differentiable_episodes(
            task, policy, keys, parameters[None], 3, truncation=truncation, observes=observes
        )
        return jnp.mean(made.value), made.observed

    @jax.jit
    def everything(plain, noisy):
        of = lambda x: value(x, policy)[0]
        along = lambda x: value(x, drawn)[0]
        found, seen = jax.grad(value, has_aux=True)(plain, policy, None, True)
        cut = jax.grad(lambda x: value(x, policy, 1)[0])(plain)
        return found, jax.jacfwd(of)(plain), cut, seen, jax.grad(along)(noisy)

    reverse, forward, cut, seen, through = everything(plain, noisy)
    states = np.asarray(first_states(task, keys[0], 3)[0])
    moment = states.T @ states / 3
    np.testing.assert_allclose(reverse, by_hand(task.params, gain, moment)[1][0], rtol=1e-12)
    np.testing.assert_allclose(forward, reverse, rtol=1e-12)
    # Cut at every step, an action is known by what it costs alone.
    closed = np.eye(3)
    closed[:2, :2] = task.params.dynamics
    closed[:2] -= task.params.control @ gain
    expected, every = np.zeros(3), [states]
    for t in range(STEPS):
        expected += DISCOUNT**t * 2 * gain[0] @ (every[-1].T @ every[-1]) / 3
        every.append(every[-1] @ closed.T)
    np.testing.assert_allclose(cut, expected, rtol=1e-12)
    every = np.concatenate(every[:-1])[:, :2]
    assert float(seen.count[0]) == 3 * STEPS
    np.testing.assert_allclose(seen.mean[0], every.mean(0), rtol=1e-5)
    np.testing.assert_allclose(seen.squares[0] / len(every), every.var(0), rtol=1e-5)
    run = jax.jit(lambda x: value(x, drawn)[0])
    step = 1e-6 * np.eye(4)
    slopes = [(float(run(noisy + h)) - float(run(noisy - h))) / 2e-6 for h in step]
    np.testing.assert_allclose(through, slopes, rtol=1e-6)


class Wall:
    """x' = x + u until the wall at 1, behind which nothing is a number."""

    def reset(self, key, params):
        return jnp.zeros(1), jnp.float32(0)

    def step(self, key, state, action, params):
        new = state + action[0]
        reward = new + jnp.sqrt(1.5 - new)
        return new[None], new, reward, new > 1, False, {}


def test_what_comes_behind_the_end_of_an_episode_has_no_derivative():
    task = frl.envs.as_task(
        Wall(), action=frl.envs.Continuous(1, bounded=False), max_steps=9, discount=1.0
    )
    policy = smooth_policy(task, (), "tanh", "zeros", None)
    keys = tuple(jax.random.split(jax.random.key(n), 1) for n in (0, 1))

    def value(parameters):
        made = differentiable_episodes(task, policy, keys, parameters[None], 1)
        return jnp.sum(made.value), made.steps

    slope, steps = jax.jit(jax.grad(value, has_aux=True))(jnp.asarray([0.0, 0.4]))
    # Three steps to 0.4, 0.8 and 1.2, each moved by t times the bias.
    assert steps.tolist() == [[3]]
    x, t = np.array([0.4, 0.8, 1.2]), np.arange(1, 4)
    assert slope[1] == pytest.approx(np.sum(t * (1 - 0.5 / np.sqrt(1.5 - x))), rel=1e-5)


class Loops(Wall):
    """With a loop of unknown length."""

    def step(self, key, state, action, params):
        new = jax.lax.while_loop(lambda x: x < 1, lambda x: x + 0.3, state + action[0])
        return new[None], new, new, False, False, {}


def own_loops():
    return frl.envs.as_task(
        Loops(), action=frl.envs.Continuous(1), max_steps=3, discount=0.9, name="loops"
    )


@pytest.mark.parametrize(
    ("task", "sentence"),
    [
        (frl.envs.simple_grid, "task is simple-grid, whose 5 actions are discrete; allowed: cont"),
        (frl.envs.paper_mdp, "task is tabular, whose 3 actions are discrete; allowed: cont"),
        (lambda: frl.envs.make("CartPole-v1"), "task is CartPole-v1, whose 2 actions are discrete"),
        (own_loops, "task is loops, whose step cannot be differentiated in reverse; allowed: cont"),
        (lambda: 3, "task is 3; allowed: "),
    ],
)
def test_tasks_without_a_path_are_refused_by_name(task, sentence):
    with pytest.raises(ValueError, match=sentence):
        frl.fedapg(task())


def test_steps_of_gymnax_keep_their_derivatives():
    pytest.importorskip("gymnax")
    task = frl.envs.make("gymnax/Pendulum-v1")
    _, state = task.env.reset(jax.random.key(0), task.params)

    def velocity(action):
        return task.env.step(jax.random.key(0), state, action, task.params)[0][2]

    # 3 / (m l^2) times 0.05 s, of an action that is half of its 2 N m to either side.
    assert jax.grad(velocity)(jnp.zeros(1)).tolist() == pytest.approx([3 * 0.05 * 2])
    assert frl.fedapg(task).config.derivative is None


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("backend", "reversible"),
    [("spring", True), ("positional", True), ("generalized", True), ("mjx", False)],
)
def test_brax_has_derivatives_where_it_says_so(backend, reversible):
    """Only traced."""
    pytest.importorskip("brax")
    task = frl.envs.brax_task("hopper", backend=backend)
    assert task.env.reversible == reversible

    def reward(action, key):
        _, state = task.env.reset(key, task.params)
        return task.env.step(key, state, action, task.params)[2]

    def slope():
        return jax.eval_shape(jax.grad(reward), jnp.zeros(3), jax.random.key(0)).shape

    if reversible:
        assert slope() == (3,)
        return
    with pytest.raises(ValueError, match="while_loop"):
        slope()
    with pytest.raises(ValueError, match="task is brax/hopper, whose physics has loops"):
        frl.fedapg(task)


@pytest.mark.thorough
def test_pendulum_is_learned():
    pytest.importorskip("gymnax")
    algorithm = frl.fedapg(
        frl.envs.make("gymnax/Pendulum-v1"), truncation=20, gradient_clip=1.0, learning_rate=0.01
    )
    run = frl.simulate(algorithm, num_agents=4, num_steps=30, record_every=15)
    # Gravity alone costs 1200; who swings up from wherever it begins, 150.
    assert float(run.metrics["return"][-1]) > -250
