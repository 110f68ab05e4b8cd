"""Episodic environments: exact values, sampled steps, adapters, the registry.

The golden values are those of an independent prototype of Gunn (2023), to the digits given there.
"""

import importlib.metadata
import logging
import pickle
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_rl import envs
from fedjax_rl.envs import brax_tasks, registry
from fedjax_rl.envs.grid_maps import MAPS
from fedjax_rl.learners import policy_gradient as learner

GRIDS = {
    "simple": envs.simple_grid,
    "windy": envs.windy_grid,
    "windy, clipped twice": lambda **o: envs.windy_grid(clip="twice", **o),
    "lake": envs.frozen_lake,
    "lake, not slippery": lambda **o: envs.frozen_lake(slippery=False, **o),
    "lake 4x4": lambda **o: envs.frozen_lake("4x4", **o),
    "lake 8x8": lambda **o: envs.frozen_lake("8x8", **o),
}


def start(values):
    return np.asarray(values)[0]


def best_success(grid, num_steps):
    """The largest probability of the goal within some steps, by backward induction."""
    reward = envs.expected_reward(grid.mdp)
    value = np.zeros(grid.num_states)
    for _ in range(num_steps):
        value = (reward + grid.mdp.transition @ value).max(-1)
    return value[0]


def random_returns(task, num_episodes, seed=0):
    """Discounted and plain return of the uniform policy, and the steps, of every episode."""

    def episode(key):
        key, reset_key = jax.random.split(key)
        _, state = task.env.reset(reset_key, task.params)

        def step(carry, key):
            state, alive = carry
            action_key, step_key = jax.random.split(key)
            action = jax.random.randint(action_key, (), 0, task.action.num)
            _, state, reward, terminated, truncated, _ = task.env.step(
                step_key, state, action, task.params
            )
            gain = jnp.where(alive, reward, 0.0)
            return (state, alive & ~(terminated | truncated)), (gain, alive)

        keys = jax.random.split(key, task.max_steps)
        _, (reward, alive) = jax.lax.scan(step, (state, jnp.array(True)), keys)
        discounts = jnp.float32(task.discount) ** jnp.arange(task.max_steps, dtype=jnp.float32)
        return reward @ discounts, reward.sum(), alive.sum()

    keys = jax.random.split(jax.random.key(seed), num_episodes)
    return [np.asarray(x, np.float64) for x in jax.jit(jax.vmap(episode))(keys)]


# Exact values --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "optimal", "uniform", "digits"),
    [
        (envs.simple_grid(), -5.217031, -9.845519, 6),
        (envs.windy_grid(), -7.566073, -9.999159, 6),
        (envs.windy_grid(clip="twice"), -7.566073, -9.999238, 6),
        (envs.frozen_lake(), 0.042091, 0.00133, 5),
        (envs.frozen_lake(slippery=False), 0.9**7, 0.00133, 5),
        (envs.frozen_lake("4x4"), 0.068891, 0.00448, 5),
        (envs.frozen_lake("4x4", slippery=False), 0.9**5, 0.00448, 5),
        (envs.frozen_lake("8x8"), 0.006411, 0.00003, 5),
    ],
)
def test_golden_values(task, optimal, uniform, digits):
    mdp = task.grid.mdp
    assert start(envs.optimal_q(mdp).max(-1)) == pytest.approx(optimal, abs=5.1e-7)
    value = start(envs.policy_value(mdp, envs.uniform_policy(mdp)))
    assert value == pytest.approx(uniform, abs=0.51 * 10.0**-digits)


@pytest.mark.parametrize(
    ("map", "slippery", "best", "uniform"),
    [
        ("5x5", True, 0.8990, 0.0063),
        ("5x5", False, 1.0, 0.0063),
        ("4x4", True, 0.7442, 0.0139),
        ("4x4", False, 1.0, 0.0139),
        ("8x8", True, 0.6407, 0.0017),
    ],
)
def test_success_in_a_hundred_steps(map, slippery, best, uniform):
    grid = envs.frozen_lake(map, slippery).grid
    assert best_success(grid, 100) == pytest.approx(best, abs=5.1e-5)
    chance = envs.expected_return(grid.mdp, envs.uniform_policy(grid.mdp), 100)
    assert chance == pytest.approx(uniform, abs=5.1e-5)


def test_the_worst_return_of_a_simple_grid():
    task = envs.simple_grid()
    never = -(1 - 0.9**task.max_steps) / (1 - 0.9)
    assert never == pytest.approx(-9.999734, abs=5.1e-7)
    stay = np.eye(5)[np.full(25, 4)]
    assert start(envs.policy_value(task.grid.mdp, stay)) == pytest.approx(-10)


@pytest.mark.parametrize(("map", "slippery"), [("4x4", True), ("8x8", True), ("4x4", False)])
def test_frozen_lake_is_gymnasiums(map, slippery):
    toy = pytest.importorskip("gymnasium.envs.toy_text.frozen_lake")
    theirs = toy.FrozenLakeEnv(map_name=map, is_slippery=slippery)
    grid = envs.frozen_lake(map, slippery).grid
    transition = np.zeros_like(grid.mdp.transition)
    reward = np.zeros(transition.shape[:2])
    for state, actions in theirs.P.items():
        for action, outcomes in actions.items():
            for probability, next_state, gain, terminated in outcomes:
                transition[state, action, next_state] += probability
                reward[state, action] += probability * gain
                assert terminated == grid.terminal[next_state]
    np.testing.assert_allclose(grid.mdp.transition, transition, atol=1e-15)
    np.testing.assert_allclose(envs.expected_reward(grid.mdp), reward, atol=1e-15)


# Sampled steps -------------------------------------------------------------------------------


@pytest.mark.parametrize("make", GRIDS.values(), ids=GRIDS)
def test_the_sampled_tables_are_the_exact_ones(make):
    grid = make().grid
    transition = np.zeros_like(grid.mdp.transition)
    states, actions, _ = np.indices(grid.next_state.shape)
    np.add.at(transition, (states, actions, grid.next_state), grid.probability)
    np.testing.assert_array_equal(transition, grid.mdp.transition)
    expected = np.sum(grid.probability * grid.reward, axis=-1)
    np.testing.assert_allclose(expected, envs.expected_reward(grid.mdp), atol=1e-15)
    np.testing.assert_allclose(grid.probability.sum(-1), 1)


@pytest.mark.parametrize("make", [envs.windy_grid, envs.frozen_lake])
def test_step_frequencies(make):
    task, num_draws = make(), 1000
    grid = task.grid
    shape = (num_draws, grid.num_states, grid.num_actions)
    keys = jax.random.split(jax.random.key(1), np.prod(shape))
    _, states, actions = (jnp.asarray(i.ravel(), jnp.int32) for i in np.indices(shape))
    step = lambda key, s, a: task.env.step(key, s, a, task.params)[1:5]
    drawn = jax.jit(jax.vmap(step))(keys, states, actions)
    state, _, terminated, truncated = (np.asarray(x).reshape(shape) for x in drawn)
    frequency = np.stack([(state == s).mean(0) for s in range(grid.num_states)], -1)
    exact = grid.mdp.transition
    error = np.sqrt(exact * (1 - exact) / num_draws)
    assert np.all(np.abs(frequency - exact) <= 5 * error)  # impossible next states: never
    np.testing.assert_array_equal(terminated, grid.terminal[state])
    assert not np.any(truncated)


@pytest.mark.parametrize("name", ["simple", "windy", "lake", "lake 4x4"])
def test_random_returns(name):
    task = GRIDS[name]()
    mdp = task.grid.mdp
    discounted, plain, _ = random_returns(task, 4_000)
    value = start(envs.policy_value(mdp, envs.uniform_policy(mdp)))
    total = envs.expected_return(mdp, envs.uniform_policy(mdp), task.max_steps)
    # What lies beyond the last step is at most 0.9^100 * 10 = 3e-4 of the value.
    for sample, exact, beyond in ((discounted, value, 3e-4), (plain, total, 1e-6)):
        error = sample.std() / np.sqrt(sample.size)
        assert abs(sample.mean() - exact) < 4 * error + beyond * (name in ("simple", "windy"))


@pytest.mark.parametrize("make", GRIDS.values(), ids=GRIDS)
def test_terminal_states_absorb(make):
    task = make()
    grid = task.grid
    (terminal,) = np.nonzero(grid.terminal)
    np.testing.assert_array_equal(grid.mdp.transition[terminal, :, terminal], 1)
    assert not np.any(envs.expected_reward(grid.mdp)[terminal])
    step = jax.vmap(lambda s: task.env.step(jax.random.key(0), s, 1, task.params))
    obs, state, reward, terminated, truncated, info = step(jnp.asarray(terminal, jnp.int32))
    np.testing.assert_array_equal(state, terminal)
    np.testing.assert_array_equal(obs, terminal)
    assert not np.any(reward)
    assert np.all(terminated)
    assert not np.any(truncated)
    assert info == {}


def test_entering_the_goal():
    task = envs.simple_grid()
    key = jax.random.key(0)
    _, state, reward, terminated, _, _ = task.env.step(key, jnp.int32(23), 1, task.params)
    assert (int(state), float(reward), bool(terminated)) == (24, 0.0, True)
    _, state, reward, terminated, _, _ = task.env.step(key, jnp.int32(0), 0, task.params)
    assert (int(state), float(reward), bool(terminated)) == (0, -1.0, False)


def test_parameters_may_have_an_agent_axis():
    worlds = [envs.windy_grid(wind=w).grid for w in (0.2, 0.6)]
    params = jax.tree.map(lambda *leaves: np.stack(leaves), *worlds)
    task = envs.windy_grid().replace(params=params)
    reset = jax.vmap(task.env.reset, (None, 0))
    step = jax.vmap(task.env.step, (None, 0, None, 0))
    _, state = reset(jax.random.key(0), params)
    _, state, *_ = step(jax.random.key(0), state, 3, params)
    assert state.shape == (2,)


# Encodings and behaviours --------------------------------------------------------------------


def test_encodings_of_a_grid():
    lake = ("SFG", "FFF")
    for encoding, expected in (
        ("rc", [1.0, 0.5]),
        ("onehot", [0, 0, 0, 0, 1, 0]),
        ("index", [4]),
    ):
        task = envs.frozen_lake(lake, encoding=encoding)
        vector = task.encode(jnp.int32(4))
        assert vector.dtype == jnp.float32
        assert vector.shape == (task.observation_size,)
        np.testing.assert_array_equal(vector, np.array(expected, np.float32))


def test_behaviour_of_a_grid_is_its_last_cell():
    task = envs.simple_grid(encoding="onehot")
    last, mean = task.trace(jnp.int32(13)), jnp.zeros(2)
    behaviour = task.summarise(last, mean, jnp.int32(7))
    assert behaviour.shape == (task.behaviour_size,)
    np.testing.assert_array_equal(behaviour, np.array([2, 3], np.float32) / 4)


# Tasks ---------------------------------------------------------------------------------------


def test_tasks_are_known_by_name_and_options():
    task = envs.frozen_lake()
    assert task == envs.frozen_lake(max_steps=100)
    assert hash(task) == hash(envs.frozen_lake(max_steps=100))
    assert task != envs.frozen_lake(slippery=False)
    assert task != envs.simple_grid()
    assert task != "frozen-lake"
    assert len({task, envs.frozen_lake(), envs.frozen_lake("4x4")}) == 2
    assert envs.frozen_lake(["SF", "FG"]) == envs.frozen_lake(("SF", "FG"))
    assert hash(envs.frozen_lake(["SF", "FG"]))
    for original in (task, envs.windy_grid(wind=0.1), envs.frozen_lake(["SF", "FG"])):
        assert registry.make(original.name, **dict(original.options)) == original


def test_replacing_what_a_task_has():
    task = envs.frozen_lake()
    shorter = task.replace(max_steps=7, discount=0.5)
    assert shorter == envs.frozen_lake(max_steps=7, discount=0.5)
    assert shorter.params is shorter.grid
    assert shorter.grid.mdp.discount == 0.5
    assert task.replace(params=None) != task
    assert task.replace(discount=1.0).grid.mdp.discount == 1
    with pytest.raises(ValueError, match="encode is changed under an old name; allowed: "):
        task.replace(encode=None)
    assert task.replace(encode=None, name="mine") != task


def test_length_of_frozen_lakes():
    assert [envs.frozen_lake(m).max_steps for m in ("4x4", "5x5", "8x8")] == [100, 100, 200]


@pytest.mark.parametrize(
    "make", [envs.simple_grid, envs.windy_grid, envs.frozen_lake, envs.gymnax_task]
)
def test_lengths_and_discounts_out_of_range(make):
    if make is envs.gymnax_task:
        pytest.importorskip("gymnax")
    for discount in (-0.1, float("nan")):
        with pytest.raises(ValueError, match=rf"discount is {discount}; allowed: in \[0, 1\]"):
            make(discount=discount)
    for max_steps in (0, 2.5):
        with pytest.raises(ValueError, match=f"max_steps is {max_steps}; allowed: a whole number"):
            make(max_steps=max_steps)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: envs.simple_grid(size=1), "size is 1; allowed"),
        (lambda: envs.simple_grid(size=2.5), r"size is 2\.5; allowed"),
        (lambda: envs.simple_grid(encoding="onehut"), "did you mean onehot"),
        (lambda: envs.windy_grid(wind=1.5), r"wind is 1.5; allowed: in \[0, 1\]"),
        (lambda: envs.windy_grid(clip="thrice"), "clip is 'thrice'; allowed: 'once' or 'twice'"),
        (lambda: envs.frozen_lake("5x4"), "no map; did you mean"),
        (lambda: envs.frozen_lake(()), r"map has rows of lengths \[\]; allowed"),
        (lambda: envs.frozen_lake(("SF", "G")), r"map has rows of lengths \[1, 2\]; allowed"),
        (lambda: envs.frozen_lake(("SX", "FG")), "map has the letters X; allowed: S, F, H, G"),
        (
            lambda: envs.frozen_lake(("FF", "FG")),
            "map has 0 cells S, the start; allowed: at",
        ),
        (lambda: envs.frozen_lake(("SF", "FF")), "map has 0 cells G, the goal; allowed"),
        (lambda: envs.brax_task(backend="sprung"), "'sprung' for ant; allowed: spring, "),
        (lambda: envs.brax_task("swimmer", "mjx"), "'mjx' for swimmer; allowed: generalized$"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# CartPole and the rest of gymnax -------------------------------------------------------------


def cartpole_step(state, action):
    """Barto, Sutton and Anderson (1983) with Gymnasium's constants, in float64."""
    x, v, angle, spin = state
    force = 10.0 if action else -10.0
    push = (force + 0.05 * spin**2 * np.sin(angle)) / 1.1
    turn = (9.8 * np.sin(angle) - np.cos(angle) * push) / (
        0.5 * (4 / 3 - 0.1 * np.cos(angle) ** 2 / 1.1)
    )
    pull = push - 0.05 * turn * np.cos(angle) / 1.1
    new = np.array([x + 0.02 * v, v + 0.02 * pull, angle + 0.02 * spin, spin + 0.02 * turn])
    return new, abs(new[0]) > 2.4 or abs(new[2]) > 12 * 2 * np.pi / 360


def test_cartpole_is_its_formulae():
    pytest.importorskip("gymnax")
    task = envs.gymnax_task()
    rng = np.random.default_rng(0)
    old = rng.uniform(-1, 1, (200, 4)).astype(np.float32) * np.array([2.4, 2, 0.2, 2], np.float32)
    action = rng.integers(2, size=200).astype(np.int32)
    _, like = task.env.reset(jax.random.key(0), task.params)

    def step(old, action):
        x, v, angle, spin = old
        state = like.replace(x=x, x_dot=v, theta=angle, theta_dot=spin)
        obs, state, *rest, _ = task.env.step(jax.random.key(0), state, action, task.params)
        return task.encode(obs), task.trace(state), *rest

    vector, trace, reward, terminated, truncated = jax.jit(jax.vmap(step))(old, action)
    new, fallen = zip(*map(cartpole_step, old.astype(np.float64), action), strict=True)
    np.testing.assert_allclose(vector, new, rtol=0, atol=1e-6)
    np.testing.assert_allclose(trace, np.array(new)[:, [0, 2]], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(terminated, fallen)
    assert 0 < np.sum(fallen) < 200
    np.testing.assert_array_equal(reward, 1)  # of the last step as well
    assert not np.any(truncated)


@pytest.mark.parametrize("double", [False, True])
def test_cartpole_begins_where_gymnax_does(double):
    with jax.enable_x64(double):
        task = registry.make("CartPole-v1")
        keys = jax.random.split(jax.random.key(5), 20)
        found, state = jax.jit(jax.vmap(task.env.reset, (0, None)))(keys, task.params)
        theirs, params = pytest.importorskip("gymnax").make("CartPole-v1")
        expected, other = jax.jit(jax.vmap(theirs.reset_env, (0, None)))(keys, params)
        np.testing.assert_allclose(found, expected, rtol=0, atol=4e-9)
        assert jax.tree.map(jnp.shape, state) == jax.tree.map(jnp.shape, other)
        assert not np.any(state.time)


def test_cartpole_as_a_task():
    pytest.importorskip("gymnax")
    task = envs.gymnax_task()
    assert (task.max_steps, task.discount, task.observation_size) == (500, 1.0, 4)
    assert task.action == envs.Discrete(2)
    assert task == registry.make("CartPole-v1") == registry.make("gymnax/CartPole-v1")
    obs, state = task.env.reset(jax.random.key(0), task.params)
    assert task.encode(obs) is obs
    assert np.all(np.abs(obs) <= 0.05)
    behaviour = task.summarise(task.trace(state), jnp.array([0.5, 0.25]), jnp.int32(250))
    np.testing.assert_allclose(behaviour, [0.5, 0.25, 0.5])
    # A pole that is left alone falls after some twenty steps, long before the clock.
    _, plain, steps = random_returns(task, 100)
    np.testing.assert_array_equal(plain, steps)
    assert 15 < steps.mean() < 30


def test_truncation_is_no_termination():
    pytest.importorskip("gymnax")
    task = envs.gymnax_task().replace(max_steps=3)
    assert task == envs.gymnax_task(max_steps=3)
    _, state = task.env.reset(jax.random.key(0), task.params)
    ends = []
    for action in (0, 1, 0):
        _, state, _, terminated, truncated, _ = task.env.step(
            jax.random.key(0), state, action, task.params
        )
        ends.append((bool(terminated), bool(truncated)))
    assert ends == [(False, False), (False, False), (False, True)]
    assert int(state.time) == 3  # no new episode began


def test_actions_are_stretched_to_the_range():
    gymnax = pytest.importorskip("gymnax")
    task = envs.gymnax_task("Pendulum-v1", discount=0.9)
    assert task.action == envs.Continuous(1)
    assert task.name == "gymnax/Pendulum-v1"
    raw, params = gymnax.make("Pendulum-v1")
    key = jax.random.key(0)
    _, state = task.env.reset(key, task.params)
    obs, state_2, reward, *_ = task.env.step(key, state, jnp.array([0.5]), task.params)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        expected = raw.step_env(key, state.state, jnp.array([1.0]), params)
    np.testing.assert_array_equal(obs, expected[0])
    assert float(reward) == float(expected[2])
    assert jax.tree.map(jnp.result_type, state) == jax.tree.map(jnp.result_type, state_2)
    np.testing.assert_array_equal(task.trace(state_2), obs[:2])
    behaviour = task.summarise(obs[:2], obs[:2], jnp.int32(50))
    assert behaviour.shape == (task.behaviour_size,)
    assert behaviour[2] == 0.25


def test_other_observations_become_vectors():
    pytest.importorskip("gymnax")
    board = envs.gymnax_task("Catch-bsuite")
    obs, _ = board.env.reset(jax.random.key(0), board.params)
    assert obs.ndim == 2
    assert board.encode(obs).shape == (board.observation_size,) == (obs.size,)
    lake = envs.gymnax_task("FrozenLake-misc")
    obs, _ = lake.env.reset(jax.random.key(0), lake.params)
    np.testing.assert_array_equal(lake.encode(obs), np.eye(16)[int(obs)])


def test_unknown_environments_of_gymnax():
    pytest.importorskip("gymnax")
    with pytest.raises(ValueError, match=r"environment of gymnax; did you mean CartPole-v1"):
        envs.gymnax_task("CartPole-v2")


# Pickled ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: envs.gymnax_task("CartPole-v1", max_steps=5),
        lambda: envs.gymnax_task("DiscountingChain-bsuite", max_steps=5),
        lambda: envs.procgen_task("BigFish", num_levels=3, own_levels=True),
        lambda: envs.procgen_task("BigFish", num_levels=3, observation="pixels"),
        lambda: envs.procgen_task("CoinRun", num_levels=2),
        lambda: envs.tabular_task(envs.dirichlet_mdps(4), max_steps=5).replace(discount=0.5),
        lambda: envs.simple_grid(max_steps=5),
        lambda: envs.lqr(max_steps=5),
        lambda: pytest.importorskip("brax") and envs.brax_task("hopper", max_steps=5),
    ],
    ids=["cartpole", "chain", "own levels", "pixels", "coinrun", "family", "grid", "lqr", "brax"],
)
def test_a_task_comes_back_from_a_pickle(make):
    """The task itself, and a copy of it, with members and functions of the same values."""
    for task in (make(), make().replace(max_steps=4)):
        again = pickle.loads(pickle.dumps(task))
        assert again == task
        assert hash(again) == hash(task)
        assert again.static == task.static
        if task.members is not None:
            jax.tree.map(np.testing.assert_array_equal, again.members(2), task.members(2))
    if not task.name.startswith("brax"):
        shown = jax.eval_shape(task.env.reset, jax.random.key(0), task.params)
        observation, state = jax.tree.map(lambda x: jnp.ones(x.shape, x.dtype), shown)
        for function, value in (("encode", observation), ("trace", state)):
            ours, theirs = (getattr(x, function)(value) for x in (task, again))
            np.testing.assert_array_equal(ours, theirs)


# brax ----------------------------------------------------------------------------------------


def test_ant():
    """Only traced: to compile it takes longer than all the other tests together."""
    pytest.importorskip("brax")
    task = envs.brax_task()
    assert task == envs.brax_task("ant")
    assert (task.observation_size, task.action, task.max_steps) == (27, envs.Continuous(8), 1000)
    assert dict(task.options) == {"backend": "spring", "discount": 0.99, "max_steps": 1000}
    raw = task.env.env
    assert float(raw.dt) == pytest.approx(0.05)
    assert (raw._healthy_reward, raw._ctrl_cost_weight) == (1.0, 0.5)
    assert raw._healthy_z_range == (0.2, 1.0)
    assert raw._reset_noise_scale == 0.1

    key = jax.random.key(0)
    obs, state = jax.eval_shape(task.env.reset, key, task.params)

    def two_steps(state, action):
        carried = lambda state, _: (task.env.step(key, state, action, task.params)[1], None)
        state, _ = jax.lax.scan(carried, state, length=2)
        return task.env.step(key, state, action, task.params), task.trace(state)

    action = jax.ShapeDtypeStruct((8,), jnp.float32)
    (obs, _, reward, terminated, truncated, info), trace = jax.eval_shape(two_steps, state, action)
    assert jax.eval_shape(task.encode, obs).shape == (27,)
    assert (reward.shape, reward.dtype) == ((), jnp.float32)
    assert terminated.dtype == truncated.dtype == bool
    assert info == {}
    assert trace.shape == (task.behaviour_size,)
    with pytest.raises(ValueError, match="no environment of brax; did you mean ant"):
        envs.brax_task("ants")
    with pytest.raises(ValueError, match="'fast' is no environment of brax"):
        envs.brax_task("fast")


def first_step(task):
    """From a key and an action to the first state and to what the first step gives."""

    def run(key, action):
        _, state = task.env.reset(key, task.params)
        return state, task.env.step(key, state, action, task.params)

    return run


@pytest.mark.parametrize(
    ("name", "observations", "actions", "seconds", "parameters"),
    [
        ("halfcheetah", 17, 6, 0.05, 5708),
        ("hopper", 11, 3, 0.008, 5126),
        ("humanoid", 244, 17, 0.015, 20962),
        ("swimmer", 8, 2, 0.04, 4868),
        ("walker2d", 17, 6, 0.008, 5708),
    ],
)
def test_sizes_of_brax(name, observations, actions, seconds, parameters):
    """Only traced: what a policy sees, how much it moves, and how long a message is."""
    pytest.importorskip("brax")
    task = envs.brax_task(name)
    assert (task.observation_size, task.action) == (observations, envs.Continuous(actions))
    assert float(task.env.env.dt) == pytest.approx(seconds)
    defaults = registry.options(f"brax/{name}")
    assert dict(task.options) == {o: v for o, v in defaults.items() if v is not None}
    assert task.max_steps == (500 if name == "swimmer" else 1000)
    assert dict(task.options)["backend"] == ("generalized" if name == "swimmer" else "spring")

    key = jax.random.key(0)
    action = jax.ShapeDtypeStruct((actions,), jnp.float32)
    state, (obs, new, *_) = jax.eval_shape(first_step(task), key, action)
    assert jax.tree.structure(new) == jax.tree.structure(state)
    assert (obs.shape, obs.dtype) == ((observations,), jnp.float32)
    policy = learner.policy_for(task, "mlp", hidden=(64, 64), initializer="orthogonal")
    assert jax.eval_shape(policy.init, key).shape == (policy.num_parameters,) == (parameters,)


@pytest.mark.thorough
def test_swimmer_is_mujoco():
    """Its backend has the physics of MuJoCo; the only one of the six that is compiled here."""
    pytest.importorskip("brax")
    mujoco = pytest.importorskip("mujoco")
    task = envs.brax_task("swimmer")
    model = task.env.env.sys.mj_model
    action = np.array([0.5, -1.0], np.float32)
    state, (obs, new, reward, *ends, _) = jax.jit(first_step(task))(jax.random.key(0), action)
    q, qd = np.asarray(state.pipeline_state.q), np.asarray(state.pipeline_state.qd)
    data = mujoco.MjData(model)
    data.qpos[:], data.qvel[:], data.ctrl[:] = q, qd, action
    mujoco.mj_step(model, data, nstep=4)
    np.testing.assert_allclose(obs, [*data.qpos[2:], *data.qvel], atol=1e-5)
    np.testing.assert_allclose(task.trace(new), data.qpos[:2], atol=1e-6)
    forward = (data.qpos[0] - q[0]) / 0.04
    assert float(reward) == pytest.approx(forward - 1e-4 * 1.25, abs=1e-4)
    assert not any(ends)


def test_brax_is_announced_once(caplog):
    """At the lowest level that Python shows unasked."""
    pytest.importorskip("brax")
    brax_tasks._brax_envs.cache_clear()
    assert brax_tasks._brax_envs() is brax_tasks._brax_envs()
    (record,) = [record for record in caplog.records if record.name == "fedjax_rl"]
    assert record.levelno == logging.WARNING
    assert f"tested with brax {brax_tasks.TESTED}" in record.getMessage()
    assert f"installed is {importlib.metadata.version('brax')}." in record.getMessage()


# The registry --------------------------------------------------------------------------------


def test_kinds():
    assert {name: registry.kind(name) for name in registry.ENVIRONMENTS} == {
        "paper-mdp": "mdp",
        "random-mdp": "mdp",
        "simple-grid": "grid",
        "windy-grid": "grid",
        "frozen-lake": "grid",
        "grid-world": "grid",
        "dirichlet-mdps": "tabular",
        "opposed-mdps": "tabular",
        "dirichlet-mdp": "tabular",
        **{name: "task" for name in [*registry.ENVIRONMENTS][9:]},
    }
    assert registry.kind("ant") == registry.kind("gymnax/Pong-misc") == "task"


def test_the_registry_makes_grids():
    for name in ("simple-grid", "windy-grid", "frozen-lake", "grid-world"):
        defaults = registry.options(name)
        task = registry.make(name, **defaults)
        assert task.name == name
        assert dict(task.options).keys() == defaults.keys()
    assert registry.options("frozen-lake")["map"] in MAPS
    assert registry.options("ant") == registry.options("brax/ant")


def test_the_registry_makes_any_environment_of_a_package():
    pytest.importorskip("gymnax")
    task = registry.make("gymnax/PointRobot-misc", max_steps=5)
    assert task.name == "gymnax/PointRobot-misc"
    assert task == registry.make(task.name, **dict(task.options))
    with pytest.raises(ValueError, match="environment of gymnax; did you mean PointRobot-misc"):
        registry.make("gymnax/PointRobt-misc")


def test_unknown_names():
    with pytest.raises(ValueError, match="no environment; did you mean frozen-lake"):
        registry.make("frozen-pond")
    with pytest.raises(ValueError, match="no option of windy-grid; did you mean wind"):
        registry.make("windy-grid", winds=0.1)
    with pytest.raises(ValueError, match="no environment"):
        registry.kind("other/ant")
    mdp = envs.paper_mdp()
    assert envs.make(mdp) is mdp
    with pytest.raises(ValueError, match="max_steps is set of an environment that is made already"):
        envs.make(mdp, max_steps=3)


def test_every_environment_says_what_it_is():
    for name, factory in registry.ENVIRONMENTS.items():
        assert factory.__doc__.strip(), name
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            registry.options(name)
