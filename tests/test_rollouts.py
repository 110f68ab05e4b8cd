"""The engine of roll-outs against a loop over agents and steps in NumPy."""

import collections
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedjax_rl as frl
from fedjax_rl import streams
from fedjax_rl.algorithms.oracle import Oracle
from fedjax_rl.envs.task import Discrete, Task
from fedjax_rl.federation.population import population
from fedjax_rl.federation.state import Params
from fedjax_rl.rollouts import engine, episodes
from fedjax_rl.rollouts.engine import Inputs
from fedjax_rl.rollouts.environments import VectorEnv
from fedjax_rl.rollouts.loops import LOOPS, loop
from fedjax_rl.sweeps.programs import PROGRAMS

LIMIT = 9


class Walk(NamedTuple):
    """A walk on whole numbers from a random start; it ends far out, and is cut off at 4."""

    def reset(self, key, far):
        del far
        start = (jax.random.key_data(key)[0] % 3).astype(jnp.int32)
        return start, start

    def step(self, key, state, action, far):
        state = state + action + (jax.random.key_data(key)[1] % 2).astype(jnp.int32)
        terminated, reward = state >= far, 0.5 * state.astype(jnp.float32)
        return state, state, reward, terminated, (state == 4) & ~terminated, {}


TASK = Task(
    name="walk",
    env=Walk(),
    params=np.int32(6),
    observation_size=1,
    action=Discrete(2),
    max_steps=LIMIT,
    discount=0.5,
    encode=lambda obs: obs[None].astype(jnp.float32),
    trace=lambda state: state[None].astype(jnp.float32),
    summarise=lambda last, mean, steps: jnp.stack([last[0], mean[0], steps.astype(jnp.float32)]),
    behaviour_size=3,
)


def act(shift, seen, word):
    """0 or 1, of what is seen, a number of the agent and a random word."""
    return (
        ((word >> jnp.uint32(8)).astype(jnp.int32) + seen[0].astype(jnp.int32) + shift) % 3
    ) // 2


class Made(NamedTuple):
    """What a loop in NumPy says of an episode."""

    states: list
    actions: list
    rewards: list
    terminated: list
    truncated: list


def episode(words, start, shift, far, limit, stride=3, place=0):
    """One episode from its first state, with the words from a place on."""
    made, state = Made([start], [], [], [], []), start
    while True:
        choice, _, own = (int(x) for x in words[place : place + 3])
        place += stride
        action = ((choice >> 8) + state + shift) % 3 // 2
        state = state + action + own % 2
        over, cut = state >= far, state == 4 and state < far
        last = len(made.actions) + 1 == limit
        for column, x in zip(made, (state, action, 0.5 * state, over, cut), strict=True):
            column.append(x)
        if over or cut or last:
            return made, place


def keys_of(count):
    keys = streams.agent_keys(jnp.zeros(count, jnp.int32), jnp.arange(count))
    return keys, jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys)


def words_of(keys, count):
    return np.asarray(jax.vmap(lambda key: jax.random.bits(key, (count,), "uint32"))(keys))


@functools.cache
def by_hand(count, far):
    """Episodes of so many agents, as the engine should play them."""
    resets, draws = keys_of(count)
    starts = np.asarray(jax.random.key_data(resets))[:, 0] % 3
    words = words_of(draws, 3 * LIMIT)
    return [
        episode(words[i], int(starts[i]), i % 5, far[i % len(far)], LIMIT)[0] for i in range(count)
    ]


@pytest.mark.parametrize("kind", [*LOOPS, "blocks"])
def test_episodes_are_those_of_a_loop(kind):
    """130 agents, so that "compact" moves some aside; each has an end of its own."""
    count, far = 130, (6, 9, 3)
    shifts, ends = (jnp.asarray(np.resize(x, count), jnp.int32) for x in (np.arange(5), far))
    run = jax.jit(
        lambda keys: episodes.run_episodes(TASK, act, keys, shifts, ends, kind=kind, behaviour=True)
    )
    found, expected = run(keys_of(count)), by_hand(count, far)
    weights = 0.5 ** np.arange(LIMIT)
    np.testing.assert_array_equal(found.steps, [len(e.actions) for e in expected])
    np.testing.assert_allclose(found.undiscounted, [sum(e.rewards) for e in expected])
    value = [np.dot(e.rewards, weights[: len(e.rewards)]) for e in expected]
    np.testing.assert_allclose(found.value, value, rtol=1e-6)
    described = [[e.states[-1], np.mean(e.states[1:]), len(e.actions)] for e in expected]
    np.testing.assert_allclose(found.behaviour, described, rtol=1e-6)
    assert {len(e.actions) for e in expected} >= {1, 2, 3, LIMIT}


def test_environments_begin_anew_and_show_where_the_last_episode_ended():
    """Two agents with three environments each, of ends of their own, for 25 steps."""
    agents, envs, steps, far, limit = 2, 3, 25, (6, 3), 4
    env, shifts = VectorEnv(TASK, nested=True), jnp.arange(agents, dtype=jnp.int32)

    def act_of_all(shifts, seen, words):
        each = jax.vmap(lambda *x: act(x[0], TASK.encode(x[1]), x[2]), in_axes=(None, 0, 0))
        return jax.vmap(each)(shifts, seen, words), ()

    def note(step, memory, inputs):
        ends = step.terminated, step.truncated
        seen = step.observation, step.action, step.reward, *ends, step.next_observation
        return memory + step.over.astype(jnp.int32), (*seen, step.length)

    resets, draws = (keys.reshape(agents, envs) for keys in keys_of(agents * envs))

    @jax.jit
    def run():
        ends = jnp.asarray(far, jnp.int32)
        state = engine.begin(env, resets, ends, jnp.zeros((agents, envs), jnp.int32))
        inputs = Inputs(shifts, jax.random.key_data(draws), ends)
        step = engine.stepper(env, act_of_all, note, begins_anew=limit)
        rows = engine.empty_rows(step, inputs, state, steps)
        return engine.rollout(step, inputs, state, steps, kind="fixed", rows=rows)

    state, rows = jax.tree.map(np.asarray, run())
    words = words_of(draws.ravel(), 5 * (steps + limit)).reshape(agents, envs, -1)
    starts = np.asarray(jax.random.key_data(resets))[..., 0] % 3
    for i in range(agents):
        for e in range(envs):
            own, place, start, count = words[i, e], 0, int(starts[i, e]), 0
            columns = [x[i, :, e].tolist() for x in rows]
            at = 0
            while at < steps:
                made, place = episode(own, start, i, far[i], limit, 5, place)
                length = min(len(made.actions), steps - at)
                ended = np.zeros(len(made.actions), bool)
                ended[-1] = True
                over = np.array(made.terminated)
                expected = (
                    *(made.states[:-1], made.actions, made.rewards, over, ended & ~over),
                    *(made.states[1:], 1 + np.arange(len(over))),
                )
                for column, want in zip(columns, expected, strict=True):
                    assert column[at : at + length] == list(want[:length])
                at, count = at + length, count + (length == len(over))
                # The last two words of an episode's last step are the key of the next one.
                start = int(own[place - 2]) % 3
            assert state.memory[i, e] == count
            assert state.steps[i, e] == (0 if length == len(over) else length)
    assert rows[3].any()
    assert rows[4].any()


def test_an_unknown_loop_is_refused():
    with pytest.raises(ValueError, match=r"'whale' is no loop; .*while"):
        loop(None, None, (), (), 3, "whale")


class Marked(Walk):
    """A step with an operation in it that nobody else has."""

    def step(self, key, state, action, far):
        seen, state, reward, *ends = super().step(key, state, action, far)
        return seen, state, reward + jax.lax.lgamma(1 + reward), *ends


@pytest.mark.parametrize(
    ("name", "properties", "expected"),
    [
        ("reinforce", {}, 1),
        ("fedpg", {}, 1),
        ("fedhapg_m", {}, 1),
        ("fedhapg_m", {"two_trajectories": True}, 1),
        ("es", {}, 1),
        ("es", {"evaluate": True}, 1),
        # An exchange lies between the two: what is played next depends on it.
        ("fast_fedpg", {}, 2),
        ("ns_es", {}, 2),
    ],
)
def test_a_round_has_one_copy_of_the_environments_step(name, properties, expected):
    """Where nothing that is played depends on something that was played before it."""
    task = TASK.replace(env=Marked(), name="marked")
    algorithm = getattr(frl, name)(task, **properties)
    state = frl.init(algorithm, num_agents=2)
    advance = algorithm.functions(algorithm.config).advance
    run = functools.partial(advance, population(2))
    assert str(jax.make_jaxpr(run)(state.params, state.state, 1)).count("lgamma") == expected


@pytest.mark.thorough
def test_episodes_of_two_kinds_in_one_loop_are_those_of_two():
    """Under networks, in environments of the agents' own."""
    ends = jnp.asarray([6, 9, 3], jnp.int32)
    oracle = Oracle(frl.fedpg(TASK, baseline="none").config.resolved())
    oracle.own = lambda params: params.agent["environment"]
    params = Params({"environment": ends}, {}, {})
    keys = [keys_of(3), keys_of(6)]
    keys[1] = tuple(key[3:] for key in keys[1])
    models = [
        jax.vmap(oracle.policy.init)(jax.random.split(jax.random.key(seed), 3)) for seed in (0, 1)
    ]
    both = oracle.sample_both(params, keys, models, 5, False)
    for own, key, model in zip(both, keys, models, strict=True):
        alone = oracle.sample(params, key, model, 5, False)
        np.testing.assert_array_equal(own.mask, alone.mask)
        for name in ("observation", "action", "reward"):
            x, y = (np.asarray(getattr(made, name))[np.asarray(own.mask)] for made in (own, alone))
            np.testing.assert_array_equal(x, y, err_msg=name)


@pytest.mark.thorough
def test_what_compiles_slowly_is_compiled_in_parts_and_tells_the_same(monkeypatch):
    """On one device and on two; episodes in blocks, rounds and evaluation in programs of theirs."""
    task = frl.envs.gymnax_task("CartPole-v1", max_steps=6)
    algorithm = frl.fedpg(task, evaluation_episodes=40)

    def run(devices):
        return frl.sweep(
            algorithm, num_agents=2, num_steps=3, record_every=1, devices=devices, workers=1
        )

    plain = run(1)
    monkeypatch.setattr(type(task.env), "compiles_slowly", True, raising=False)
    monkeypatch.setattr(PROGRAMS, "_compiled", collections.OrderedDict())
    for devices in (1, 2):
        parts = run(devices)
        assert set(parts.data_vars) == set(plain.data_vars)
        for name in plain.data_vars:
            np.testing.assert_allclose(parts[name], plain[name], rtol=1e-5, err_msg=name)
