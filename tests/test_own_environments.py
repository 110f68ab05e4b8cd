"""Environments that a user wrote, as tasks of every kind of algorithm."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedjax_rl as frl
from fedjax_rl import envs


class Params(NamedTuple):
    gain: float = 2.0
    last: int = 5


class Mine:
    """Five steps, whatever is done; the return is five times the gain."""

    num_actions = 2
    default_params = Params()

    def reset(self, key, params):
        place = jax.random.uniform(key, (3,))
        return place, (place, 0)

    def step(self, key, state, action, params):
        place, time = state[0] + 0.1 * action, state[1] + 1
        return place, (place, time), params.gain, time >= params.last, False, {}


class Older(Mine):
    """With one flag for the end of an episode."""

    def step(self, key, state, action, params):
        obs, state, reward, over, _, info = super().step(key, state, action, params)
        return obs, state, reward, over, info


def test_what_is_seen_of_it():
    task = envs.as_task(Mine(), max_steps=9)
    assert (task.name, task.observation_size, task.action) == ("Mine", 3, envs.Discrete(2))
    assert (task.max_steps, task.discount, task.params) == (9, 0.99, Params())
    obs, state = task.env.reset(jax.random.key(0), task.params)
    for time in range(1, 6):
        obs, state, reward, over, given_up, _ = task.env.step(
            jax.random.key(1), state, jnp.int32(1), task.params
        )
        assert (float(reward), bool(over), bool(given_up)) == (2.0, time == 5, False)
        assert reward.dtype == jnp.float32
    np.testing.assert_allclose(task.trace(state), obs[:2])
    np.testing.assert_allclose(task.summarise(0, jnp.ones(2), 3), [1, 1, 1 / 3], rtol=1e-6)
    seen = envs.as_task(Mine(), max_steps=9, encode=lambda obs: obs[:2])
    assert seen.observation_size == 2
    older = envs.as_task(Older(), max_steps=9)
    ends = older.env.step(jax.random.key(1), state, jnp.int32(1), Params(last=6))[3:5]
    assert [bool(end) for end in ends] == [True, False]


def test_it_is_known_by_its_content():
    task = envs.as_task(Mine(), max_steps=9)
    assert task == envs.as_task(Mine(), max_steps=9) == envs.as_task(task)
    assert task != envs.as_task(Mine(), Params(gain=3.0), max_steps=9)
    assert task != envs.as_task(Older(), max_steps=9, name="Mine")
    assert envs.as_task(task, max_steps=8).max_steps == 8
    mdp = envs.paper_mdp()
    assert envs.as_task(mdp, max_steps=3, discount=0.5).params.discount == 0.5
    assert envs.as_task(mdp).max_steps == 10  # 0.6^10 is the first below 1 %


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (frl.es, {}),
        (frl.fedpg, {"heterogeneity": 0.5, "local_steps": 1}),
        pytest.param(
            frl.fedppo,
            {"heterogeneity": 0.5, "num_envs": 2, "rollout_steps": 8, "minibatches": 1},
            marks=pytest.mark.thorough,
        ),
    ],
)
def test_algorithms_take_it(make, options):
    """Five steps of each agent's own gain, whose factors are drawn here."""
    task = envs.as_task(Mine(), max_steps=9, varies=("gain",))
    algorithm = make(task, **options)
    factors = np.ones(3)
    if options:
        (stream,) = np.random.default_rng(0).spawn(1)
        factors = np.exp(0.5 * stream.uniform(-1, 1, 3))
    name = next(m for m in ("return_of_agent", "episode_return_of_agent") if m in algorithm.metrics)
    result = frl.sweep(algorithm, num_agents=3, num_steps=2, record_every=2, metrics=[name])
    found = result[name].isel(time=-1).values.squeeze()
    np.testing.assert_allclose(found, 5 * 2.0 * factors, rtol=1e-5)


def test_an_environment_of_gymnax_by_hand():
    gymnax = pytest.importorskip("gymnax")
    task = envs.as_task(gymnax.make("Pendulum-v1")[0], discount=1.0, max_steps=20)
    named = envs.gymnax_task("Pendulum-v1", max_steps=20)
    assert (task.observation_size, task.action) == (named.observation_size, named.action)
    key = jax.random.key(3)
    for own in (task, named):
        obs, state = own.env.reset(key, own.params)
        obs, state, reward, *_ = own.env.step(key, state, jnp.array([0.4]), own.params)
        if own is task:
            first = np.asarray(obs), float(reward)
    np.testing.assert_array_equal(first[0], obs)
    assert first[1] == float(reward)


@pytest.mark.parametrize("make", [frl.es, frl.reinforce])
def test_who_lives_in_one_environment_is_not_given_several(make):
    """Rather than all agents the first one's."""
    family = envs.tabular_task(envs.dirichlet_mdps(3))
    with pytest.raises(ValueError, match="task is tabular; allowed: an episodic task, one envir"):
        make(family)
    assert make(envs.tabular_task(envs.paper_mdp())).config.task.tabular


class Broken(Mine):
    def step(self, key, state, action, params):
        return state[5]


class Short(Mine):
    def step(self, key, state, action, params):
        return state[0], state, 0.0


class Changing(Mine):
    def step(self, key, state, action, params):
        return state[0], state[0], 0.0, False, False, {}


class Mute(Mine):
    num_actions = None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: envs.as_task(3, max_steps=5), "environment is 3; allowed: an object with reset"),
        (lambda: envs.as_task(Mine()), "max_steps is None of Mine, whose parameters have no"),
        (lambda: envs.as_task(Mine(), max_steps=0), "max_steps is 0; allowed"),
        (lambda: envs.as_task(Mine(), max_steps=5, action=0), "action is 0; allowed: a number of"),
        (lambda: envs.as_task(Mute(), max_steps=5), "action is None of Mute, which has neither"),
        (lambda: envs.as_task(Broken(), max_steps=5), "Broken, whose step fails with IndexError"),
        (lambda: envs.as_task(Short(), max_steps=5), "Short, whose step returns 3 values; allowed"),
        (lambda: envs.as_task(Changing(), max_steps=5), "Changing, whose states are .*; allowed"),
        (
            lambda: envs.as_task(Mine(), max_steps=5, varies=("pain",)),
            "varies has 'pain'; allowed: parameters of Mine",
        ),
        (
            lambda: envs.as_task(Mine(), max_steps=5, encode=lambda obs: 1 / 0),
            "encode is .*; allowed: a function from an observation to a vector",
        ),
        (lambda: envs.as_task(envs.paper_mdp(), name="p"), "name is 'p' of .*, which is made alr"),
    ],
)
def test_what_is_no_environment(make, message):
    with pytest.raises(ValueError, match=message):
        make()
