"""The random words behind every simulation: exact where they can be, uniform where they must."""

import ast
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import fedjax_rl as frl
from fedjax_rl import streams
from fedjax_rl.learners import tabular_steps

NUM_KEYS, NUM_WORDS = 64, 4096


@pytest.fixture(scope="module")
def words():
    """Words [NUM_KEYS, NUM_WORDS] of neighbouring agents' streams, by generator."""
    keys = streams.agent_keys(np.zeros(NUM_KEYS, int), np.arange(NUM_KEYS))
    data = jax.random.key_data(keys)

    def stream(generator):
        def one(key):
            counters = jnp.arange(NUM_WORDS, dtype=jnp.uint32)
            return jax.vmap(lambda counter: generator((key[0], key[1]), counter))(counters)

        return np.asarray(jax.jit(jax.vmap(one))(data))

    return {name: stream(generator) for name, generator in streams.GENERATORS.items()}


def test_threefry_is_the_generator_of_jax_bit_for_bit(words):
    for agent in (0, 1, 63):
        key = jax.random.fold_in(jax.random.key(0, impl="threefry2x32"), agent)
        np.testing.assert_array_equal(
            words["threefry"][agent], jax.random.bits(key, (NUM_WORDS,), jnp.uint32)
        )


def test_an_agents_key_depends_on_its_seed_and_its_place_alone():
    keys = streams.agent_keys([3, 5, 3], [0, 0, 7])
    alone = jax.random.fold_in(jax.random.key(3, impl="threefry2x32"), 7)
    np.testing.assert_array_equal(jax.random.key_data(keys[2]), jax.random.key_data(alone))
    assert len(np.unique(np.asarray(jax.random.key_data(keys)), axis=0)) == 3


@pytest.mark.parametrize("n", [1, 2, 3, 5, 7, 1000, 65535, 65536])
def test_scaled_is_exact_integer_arithmetic(n):
    rng = np.random.default_rng(n)
    edges = [0, 1, 0xFFFF, 0x10000, 0x55555555, 0x55555556, 0x7FFFFFFF, 0x80000000, 2**32 - 1]
    values = np.concatenate([np.asarray(edges), rng.integers(0, 2**32, 2000)]).astype(np.uint32)
    integer, rest = jax.vmap(lambda word: streams.scaled(word, n))(jnp.asarray(values))
    products = [int(value) * n for value in values]
    np.testing.assert_array_equal(integer, [product >> 32 for product in products])
    np.testing.assert_array_equal(rest, [product % 2**32 for product in products])


def test_uniform_covers_the_half_open_unit_interval():
    edges = jnp.asarray([0, 255, 256, 2**31, 2**32 - 1], jnp.uint32)
    expected = [0.0, 0.0, 2.0**-24, 0.5, 1 - 2.0**-24]
    np.testing.assert_array_equal(jax.vmap(streams.uniform)(edges), expected)


def test_normal_is_the_quantile_function_of_scipy():
    values = np.asarray([2**20, 2**28, 2**31, 3 * 2**30, 2**32 - 2**20], np.uint32)
    level = ((values >> 8).astype(float) + 0.5) / 2**24
    got = jax.vmap(streams.normal)(jnp.asarray(values))
    np.testing.assert_allclose(got, stats.norm.ppf(level), rtol=2e-4, atol=1e-6)


def test_normal_is_finite_at_both_ends():
    low, high = (float(streams.normal(jnp.uint32(word))) for word in (0, 2**32 - 1))
    assert low == -high
    assert 5.0 < high < 5.8  # the most that 24 bits can say


@pytest.mark.parametrize("name", streams.GENERATORS)
def test_words_are_uniform_in_time_across_agents_and_in_every_bit(words, name):
    sample = words[name].astype(np.uint64)
    in_time, across = sample[0], sample[:, 17]
    assert stats.chisquare(np.bincount(in_time >> 26, minlength=64)).pvalue > 1e-3
    assert stats.chisquare(np.bincount(across >> 29, minlength=8)).pvalue > 1e-3
    ones = ((sample.ravel()[:, None] >> np.arange(32, dtype=np.uint64)) & 1).mean(0)
    # 262 144 words: one standard error of a bit is 0.001.
    assert np.abs(ones - 0.5).max() < 0.0045
    assert len(np.unique(sample)) > sample.size - 40  # 8 repeats expected of random words


@pytest.mark.parametrize("name", streams.GENERATORS)
@pytest.mark.parametrize("lag", [1, 2, 3, 7])
def test_words_have_no_serial_correlation(words, name, lag):
    sample = words[name] / 2.0**32 - 0.5
    error = 1 / np.sqrt(sample.size)
    in_time = np.mean(sample[:, lag:] * sample[:, :-lag]) * 12
    across = np.mean(sample[lag:] * sample[:-lag]) * 12
    assert abs(in_time) < 4 * error
    assert abs(across) < 4.2 * error


@pytest.mark.parametrize("name", streams.GENERATORS)
def test_actions_and_next_states_of_one_word_are_independent_and_have_the_right_law(words, name):
    """Chi-square over the joint table of (action, next state), and of consecutive actions."""
    probabilities = np.asarray([0.1, 0.25, 0.5, 0.15])
    bounds = jnp.asarray(tabular_steps.thresholds(probabilities))

    def draw(word):
        action, rest = streams.scaled(word, 3)
        return action, tabular_steps.outcome(rest, tuple(bounds))

    action, state = map(np.asarray, jax.vmap(draw)(jnp.asarray(words[name].ravel())))
    joint = np.bincount(action * 4 + state, minlength=12)
    expected = np.tile(probabilities, 3) / 3 * action.size
    assert stats.chisquare(joint, expected).pvalue > 1e-3
    action = action.reshape(words[name].shape)
    pairs = np.bincount((action[:, 1:] * 3 + action[:, :-1]).ravel(), minlength=9)
    assert stats.chisquare(pairs).pvalue > 1e-3


@pytest.mark.thorough
def test_both_generators_give_the_same_steady_state():
    """The specification found .00945 and .00943 at alpha = .05, N = 16, K = 1."""
    found, errors = {}, {}
    for name in streams.GENERATORS:
        result = frl.sweep(
            frl.fedq(frl.envs.paper_mdp(), epsilon=1.0, generator=name),
            num_agents=16,
            learning_rate=0.05,
            seeds=range(32),
            num_steps=20_000,
            first_record=2000,
            record_every=50,
            metrics=["error_server"],
        )
        each = result["error_server"].mean("time").values
        found[name], errors[name] = each.mean(), each.std(ddof=1) / np.sqrt(each.size)
        assert errors[name] < 2e-4
        assert abs(found[name] - 0.00944) < 4 * errors[name]
    apart = found["hash"] - found["threefry"]
    assert abs(apart) < 4 * np.hypot(*errors.values())


# Who reads which stream


def test_nobody_folds_another_ones_number_into_an_agents_key():
    engine = [int(stream) for stream in streams.Engine]
    for register in streams.REGISTERS:
        numbers = [*engine, *(int(stream) for stream in register)]
        assert len(set(numbers)) == len(numbers)


def folds(function):
    return function.endswith(("fold_in", "keys_of"))


def test_streams_are_registered():
    """No module folds in a number of its own, as a literal or under a name."""
    wrong, package = [], pathlib.Path(frl.__file__).parent
    for path in package.rglob("*.py"):
        if path == package / "streams.py":
            continue
        tree = ast.parse(path.read_text())
        constants = {
            name.id
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant | ast.Tuple)
            for target in node.targets
            for name in ast.walk(target)
            if isinstance(name, ast.Name)
        }
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or not folds(ast.unparse(node.func)):
                continue
            for given in node.args:
                named = isinstance(given, ast.Name) and given.id in constants
                if named or isinstance(given, ast.Constant):
                    wrong.append(f"{path.relative_to(package)}:{node.lineno}")
    assert not wrong


def test_what_an_own_algorithm_folds_in_draws_nothing_that_the_engine_draws():
    keys = streams.agent_keys(np.zeros(3, int), np.arange(3))
    drawn = [streams.keys_of(keys, stream) for stream in streams.Engine]
    drawn += [streams.keys_of(streams.own_keys(keys), number) for number in range(100)]
    data = np.concatenate([np.asarray(jax.random.key_data(own)) for own in drawn])
    assert len(np.unique(data, axis=0)) == len(data)


@pytest.mark.parametrize("implementation", ["threefry2x32", "rbg"])
def test_what_is_written_out_draws_what_jax_draws(implementation):
    keys = jax.random.split(jax.random.key(3, impl=implementation), 7)
    for time in (jnp.uint32(5), jnp.arange(7, dtype=jnp.uint32) * 123_457):
        own = streams.fold(streams.fold(keys, streams.Engine.UPLINK), time)
        expected = jax.vmap(jax.random.fold_in, (0, None))(keys, streams.Engine.UPLINK)
        expected = jax.vmap(jax.random.fold_in, (0, 0 if time.ndim else None))(expected, time)
        np.testing.assert_array_equal(jax.random.key_data(own), jax.random.key_data(expected))
    found = jax.vmap(lambda key: streams.uniform_of(key, jnp.float32))(keys)
    np.testing.assert_array_equal(found, jax.vmap(jax.random.uniform)(keys))
    for shape in ((), (5,), (2, 3)):
        found = jax.vmap(lambda key, shape=shape: streams.bits(key, shape))(keys)
        drawn = lambda key, shape=shape: jax.random.bits(key, shape)
        np.testing.assert_array_equal(found, jax.vmap(drawn)(keys))
    for span in map(jnp.int32, (1, 7, 50_000, 2**31 - 1)):
        found = jax.vmap(lambda key, n=span: streams.below(key, n, (3, 4)))(keys)
        drawn = lambda key, n=span: jax.random.randint(key, (3, 4), 0, n)
        np.testing.assert_array_equal(found, jax.vmap(drawn)(keys))
    found = jax.vmap(lambda key: streams.uniform_of(key, jnp.float32, 5))(keys)
    np.testing.assert_array_equal(found, jax.vmap(lambda k: jax.random.uniform(k, (5,)))(keys))
