"""Episodes on tables: the words they are drawn with, how likely they are, and look-ups."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import fedjax_rl as frl
from fedjax_rl import streams
from fedjax_rl.learners import policy_gradient as learner
from fedjax_rl.learners import tabular_steps
from fedjax_rl.learners.lookup import add_up, look_up
from fedjax_rl.rollouts import episodes

RNG = np.random.default_rng(0)


def family(agents, states, actions, drawn):
    """MDPs whose rewards depend on all three, some of whose transitions are impossible."""
    kernel = RNG.dirichlet(np.ones(states), (agents, states, actions))
    kernel[..., 0] *= kernel[..., 0] > 0.3 / states
    kernel[..., -1] *= kernel[..., -1] > 0.3 / states
    kernel /= kernel.sum(-1, keepdims=True)
    reward = RNG.normal(size=(agents, states, actions, states))
    start = RNG.dirichlet(np.ones(states), agents) if drawn else None
    place = RNG.integers(states, size=agents).astype(np.int32)
    return frl.envs.tabular_mdp(kernel, reward, 0.9, place, start)


def keys_of(agents):
    keys = streams.agent_keys(jnp.zeros(agents, jnp.int32), jnp.arange(agents))
    return streams.keys_of(keys, 4), streams.keys_of(keys, 5)


def softmax(preferences):
    weights = np.exp(preferences - preferences.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def played(key, mdp, preferences, first, steps):
    """One episode in NumPy: states, actions, rewards."""
    words = np.asarray(jax.random.bits(key, (2 * steps,), jnp.uint32))
    state, chances, rows = first, softmax(preferences), []

    def drawn(word, law):
        """The outcome in whose share of all words of 31 bits this one is."""
        return int((int(word) // 2 >= np.round(np.cumsum(law)[:-1] / law.sum() * 2.0**31)).sum())

    for t in range(steps):
        action = drawn(words[2 * t], chances[state])
        law = mdp.transition[state, action]
        after = drawn(words[2 * t + 1], law)
        assert law[after] > 0
        rows.append((state, action, mdp.reward[state, action, after]))
        state = after
    return zip(*rows, strict=True)


@pytest.mark.parametrize(
    ("states", "actions", "drawn"),
    [(3, 2, False), (5, 3, True), (2, 1, False), (12, 11, True), (40, 2, False)],
)
def test_episodes_are_those_of_a_loop_with_the_same_words(states, actions, drawn):
    """In double precision, in which no draw hangs on the last digit."""
    agents, count, steps = 3, 5, 7
    with jax.enable_x64(True):
        mdps = family(agents, states, actions, drawn)
        task = frl.envs.tabular_task(mdps, max_steps=steps)
        policy = learner.SoftmaxTable(states, actions)
        preferences = RNG.normal(size=(agents, states * actions))
        keys = keys_of(agents)
        made = jax.jit(
            lambda keys, x, mdps: episodes.sample_trajectories(
                task, policy, keys, x, count, environment=mdps
            )
        )(keys, jnp.asarray(preferences), jax.tree.map(jnp.asarray, mdps))
        made = jax.tree.map(np.asarray, made)
        assert made.mask.shape == (agents, count, steps)
        assert made.mask.all()
        for i, n in itertools.product(range(agents), range(count)):
            own = jax.tree.map(lambda x, i=i: np.asarray(x)[i], mdps)
            first = int(mdps.initial_state[i])
            if drawn:
                first = int(frl.envs.TabularEnv().reset(jax.random.fold_in(keys[0][i], n), own)[1])
            key, table = jax.random.fold_in(keys[1][i], n), preferences[i].reshape(states, actions)
            found = played(key, own, table, first, steps)
            for one, expected in zip(made[:3], found, strict=True):
                np.testing.assert_array_equal(one[i, n], expected)


def test_trajectories_are_as_likely_as_they_are():
    """All 32 trajectories of three actions and two transitions, of agents that differ."""
    mdps, policy, count = family(2, 2, 2, False), learner.SoftmaxTable(2, 2), 8192
    task = frl.envs.tabular_task(mdps, max_steps=3)
    preferences = RNG.normal(size=(2, 4)).astype(np.float32)
    environment = jax.tree.map(jnp.asarray, mdps)
    made = episodes.sample_trajectories(
        task, policy, keys_of(2), jnp.asarray(preferences), count, environment=environment
    )
    for i in range(2):
        chances, kernel = softmax(preferences[i].astype(float).reshape(2, 2)), mdps.transition[i]
        first, states, actions = int(mdps.initial_state[i]), *map(np.asarray, made[:2])
        codes = np.ravel_multi_index((*actions[i].T, *states[i].T[1:]), (2,) * 5)
        expected = np.zeros(32)
        for code, (a, b, c, s, t) in enumerate(itertools.product(range(2), repeat=5)):
            path = chances[first, a] * kernel[first, a, s] * chances[s, b] * kernel[s, b, t]
            expected[code] = path * chances[t, c]
        found, possible = np.bincount(codes, minlength=32), expected > 0
        assert found[~possible].sum() == 0
        outcome = stats.chisquare(found[possible], count * expected[possible])
        assert outcome.pvalue > 1e-3


@pytest.mark.parametrize("size", [2, 6, 9, 33, 100])
def test_thresholds_in_a_program_are_those_of_the_host(size):
    rows = RNG.dirichlet(np.ones(size), 50)
    rows[:, 0] *= rows[:, 0] > 1.2 / size
    rows[:, size // 2 :] *= rows[:, size // 2 :] > 0.6 / size
    rows = rows[rows.sum(-1) > 0]
    rows /= rows.sum(-1, keepdims=True)
    with jax.enable_x64(True):
        found = np.asarray(jax.jit(tabular_steps.thresholds_of)(jnp.asarray(rows)), np.int64)
    assert np.abs(found - tabular_steps.thresholds(rows).astype(np.int64)).max() <= 1
    # In single precision, too, the first and the last word, and those at the bounds, draw something
    # that is possible; and by halves what is counted one by one.
    bounds = tabular_steps.thresholds_of(jnp.asarray(rows, jnp.float32))
    assert np.all(np.diff(np.asarray(bounds, np.int64), axis=1) >= 0)
    place = jnp.arange(len(rows), dtype=jnp.int32)
    at = 2 * np.asarray(bounds, np.int64)
    words = [np.full(len(rows), word, np.int64) for word in (0, 2**31, 2**32 - 1)]
    words += [at[:, n] + shift for n in range(size - 1) for shift in (-2, 0)]
    for word in np.clip(np.asarray(words), 0, 2**32 - 1).astype(np.uint32):
        counted = jax.vmap(tabular_steps.outcome_of_row)(word, bounds)
        index = np.asarray(tabular_steps.outcome_at(jnp.asarray(word), bounds, place))
        np.testing.assert_array_equal(index, counted)
        assert np.all(rows[np.arange(len(rows)), index] > 0)


def test_numbers_are_folded_in_as_jax_does():
    keys = jax.random.split(jax.random.key(3), (5, 2))
    for number in map(jnp.uint32, (0, 7, 2**32 - 1)):
        fold = jax.vmap(jax.vmap(lambda key, n=number: jax.random.fold_in(key, n)))
        found, expected = (jax.random.key_data(x) for x in (streams.fold(keys, number), fold(keys)))
        np.testing.assert_array_equal(found, expected)


def test_look_ups_are_indexing_and_so_are_their_derivatives():
    """Of one table and of a batch, whatever is batched and in whatever axis."""
    table, place = RNG.normal(size=(4, 7)), RNG.integers(7, size=(3, 4, 5)).astype(np.int32)
    values = RNG.normal(size=(3, 4, 5))
    plain = lambda table, place: table[place]
    summed = lambda values, place: jnp.zeros(7).at[place].add(values)
    added = lambda values, place: add_up(values, place, 7)
    with jax.enable_x64(True):
        for mine, other, first, axis in ((look_up, plain, table, 0), (added, summed, values, 1)):
            for axes in ((None, 1), (axis, None), (axis, 1)):
                arguments = tuple(
                    jnp.asarray(x if a is not None else np.take(x, 0, b))
                    for x, a, b in zip((first, place), axes, (axis, 1), strict=True)
                )
                pair = [jax.vmap(f, axes) for f in (mine, other)]
                found, expected = (f(*arguments) for f in pair)
                np.testing.assert_allclose(found, expected, atol=1e-12)

            def slope(x, place, f):
                return jax.grad(lambda x: jnp.sum(jnp.sin(f(x, place)) ** 2))(x)

            # Once more where all are batched: in reverse, and forwards through that.
            x, place_of_all = arguments
            way = jnp.asarray(RNG.normal(size=x.shape))
            both = [
                jax.jit(
                    lambda x, way, place, f=f: jax.jvp(lambda x: slope(x, place, f), (x,), (way,))
                )(x, way, place_of_all)
                for f in pair
            ]
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), *both)
