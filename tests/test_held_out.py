"""Environments in which no agent learns: the metric against an evaluation by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedjax_rl as frl
from fedjax_rl import streams
from fedjax_rl.algorithms.fedppo_resources import policy_of
from fedjax_rl.algorithms.strategy import behaviour_of, network_of

MEMBERS, EPISODES, AFTER, SEED = 2, 3, 4, 7
UNSEEN = {"members": MEMBERS, "episodes": EPISODES, "after": AFTER}
LEVELS = {"stride": 0.7}
OF = {"level": 0.7, "of": ("stride",), "seed": 3}


class Walk:
    """Steps of a length of one's own, left or right or by chance neither; far out it ends."""

    def reset(self, key, params):
        place = jax.random.uniform(key)
        return place[None], place

    def step(self, key, state, action, params):
        slips = jax.random.bits(key, (), "uint32") % 3 == 0
        new = state + jnp.where(slips, 0.0, params["stride"] * (2 * action - 1))
        return new[None], new, 1 - new**2, jnp.abs(new) > 1.5, False, {}


TASK = frl.envs.as_task(Walk(), {"stride": 0.5}, action=2, max_steps=6, varies=("stride",))


def key_of(words):
    return jax.random.wrap_key_data(jnp.asarray(words))


def played(step, act, environment, reset, words):
    """The undiscounted return of an episode; words [T, 3]: of the action, a key of the step."""
    (observation, state), total = TASK.env.reset(reset, environment), 0.0
    for own in words:
        action = act(observation, own[0])
        observation, state, reward, terminated, truncated, _ = step(
            key_of(own[1:]), state, action, environment
        )
        total += float(reward)
        if terminated or truncated:
            break
    return total


def by_hand(act, stream, time, vectorised=False):
    """The mean over all episodes in all environments, one after the other."""
    unseen = frl.envs.held_out(TASK, MEMBERS, LEVELS, seed=3, after=AFTER)
    steps, returns, step = TASK.max_steps, [], jax.jit(TASK.env.step)
    # Of the federation's first member.
    first = jax.random.fold_in(jax.random.fold_in(jax.random.key(SEED), 0), stream)
    for member in range(MEMBERS):
        environment = jax.tree.map(lambda x, m=member: jnp.asarray(x[m]), unseen)
        key = jax.random.fold_in(jax.random.fold_in(first, time), member)
        for episode in range(EPISODES):
            if vectorised:
                own = jax.random.fold_in(key, episode)
                words = jax.random.bits(own, (5 * (steps + 1),), "uint32")
                reset, words = key_of(words[:2]), words[5:].reshape(steps, 5)[:, :3]
            else:
                reset, draw = (
                    jax.random.fold_in(jax.random.fold_in(key, own), episode)
                    for own in (streams.Episodic.RESET, streams.Episodic.EPISODE)
                )
                words = jax.random.bits(draw, (steps, 3), "uint32")
            returns.append(played(step, act, environment, reset, words))
    assert len(set(returns)) > 1
    return np.mean(returns)


def rounds(algorithm, count=2):
    """The state after some rounds, and what is measured there."""
    state = frl.init(algorithm, num_agents=3, seed=SEED)
    for _ in range(count):
        state, metrics = frl.round(algorithm, state)
    return state.state, metrics


@pytest.mark.thorough
def test_of_a_policy_gradient():
    algorithm = frl.fedpg(TASK, local_steps=1, heterogeneity=OF, held_out=UNSEEN)
    state, metrics = rounds(algorithm)
    policy = algorithm.config.make_policy()
    act = jax.jit(functools.partial(policy.sample, state.server.parameters[0]))
    expected = by_hand(act, streams.Episodic.HELD_OUT, 2)
    np.testing.assert_allclose(metrics["held_out_return"], expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["es", pytest.param("ns_es", marks=pytest.mark.thorough)])
def test_of_strategies_whose_agents_have_one_environment(name):
    algorithm = getattr(frl, name)(TASK, held_out={**UNSEEN, **OF}, learning_rate=0.5)
    state, metrics = rounds(algorithm)
    model, act = state.server, behaviour_of(algorithm.config, network_of(algorithm.config))
    parameters = model.parameters[0] if name == "es" else model.parameters[0, model.chosen[0]]
    act = jax.jit(functools.partial(act, parameters))
    expected = by_hand(act, streams.Episodic.HELD_OUT, 2)
    np.testing.assert_allclose(metrics["held_out_return"], expected, rtol=1e-6)


@pytest.mark.thorough
def test_of_ppo():
    small = {"num_envs": 2, "rollout_steps": 8, "minibatches": 2}
    algorithm = frl.fedppo(TASK, **small, heterogeneity=OF, held_out=UNSEEN, sync_period=2)
    state, metrics = rounds(algorithm)
    policy = policy_of(algorithm.config.resolved())
    parameters = jnp.mean(state.agents.learned.parameters, axis=0)

    @jax.jit
    def act(observation, word):
        outputs, _ = policy.apply(parameters, observation[None])
        return policy.performed(policy.sample(parameters, outputs[0], word))

    expected = by_hand(act, streams.Epochs.HELD_OUT, 2, vectorised=True)
    np.testing.assert_allclose(metrics["held_out_return"], expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["fedpg", "pavg", "qavg"])
def test_of_tables_exactly(name):
    task = frl.envs.tabular_task(frl.envs.dirichlet_mdps(6, num_states=3), max_steps=4)
    algorithm = getattr(frl, name)(task, held_out={"members": 2, "after": 4})
    state, metrics = rounds(algorithm)
    model = state.server
    if name == "fedpg":
        policy = jax.nn.softmax(model.parameters[0].reshape(3, -1))
    elif name == "qavg":
        policy = jax.nn.one_hot(jnp.argmax(model.table[0], axis=-1), model.table.shape[-1])
    else:
        policy = model.table[0]
    mdps, each = frl.envs.held_out(task, 2, {}, after=4), []
    for i in range(2):
        mdp = jax.tree.map(lambda x, i=i: np.asarray(x[i], np.float64), mdps)
        flow = np.einsum("su,sut->st", policy, mdp.transition)
        reward = np.einsum("su,sut,sut->s", policy, mdp.transition, mdp.reward)
        values = np.linalg.solve(np.eye(3) - mdp.discount * flow, reward)
        each.append(mdp.initial_distribution @ values)
    np.testing.assert_allclose(metrics["held_out_objective"], np.mean(each), rtol=1e-5)


@pytest.mark.thorough
@pytest.mark.parametrize("clock", [None, frl.Clock("asynchronous")])
def test_everything_else_is_to_the_bit_as_without(clock):
    unseen, runs = {**UNSEEN, **OF}, []
    for own in ({}, {"held_out": unseen}):
        algorithm = frl.es(TASK, clock=clock, **own)
        runs.append(frl.sweep(algorithm, num_agents=2, num_steps=2, record_every=1))
    for name in runs[0].data_vars:
        np.testing.assert_array_equal(runs[0][name], runs[1][name], err_msg=name)
    assert runs[1].held_out_return.shape == runs[1].reward.shape


@pytest.mark.parametrize(
    ("properties", "words"),
    [
        ({"held_out": 2}, r"held_out\.members is 2 on Walk: levels is .*; allowed: a level"),
        ({"held_out": {"members": 2, "level": -1}}, r"held_out\.level is -1; allowed: "),
        ({"held_out": {"members": 2, "level": 9.0}}, r"held_out\.level is 9\.0; allowed: "),
        (
            {"held_out": {"members": 2, "of": ("strid",)}},
            r"held_out\.of is .*; allowed: .* stride",
        ),
        ({"held_out": -1}, r"held_out\.members is -1; allowed: "),
    ],
)
def test_what_cannot_be_held_out_is_refused_by_name(properties, words):
    with pytest.raises(ValueError, match=words):
        frl.es(TASK, **properties)


def test_agents_do_not_learn_in_what_is_held_out():
    algorithm = frl.fedpg(TASK, heterogeneity=0.5, held_out=UNSEEN)
    with pytest.raises(ValueError, match=r"held_out\.after is 4 with num_agents 5; allowed: "):
        frl.init(algorithm, num_agents=5)
    family = frl.envs.tabular_task(frl.envs.dirichlet_mdps(4), max_steps=4)
    algorithm = frl.fedpg(family, held_out=2)
    with pytest.raises(ValueError, match="family of 4"):
        frl.init(algorithm, num_agents=3)


def test_what_differs_is_refused_by_name_even_where_nobody_is_held_out():
    task = frl.envs.gymnax_task("CartPole-v1")
    for make in (frl.es, frl.fedpg):
        with pytest.raises(ValueError, match=r"held_out.of is \('a',\); allowed: .*gravity"):
            make(task, held_out={"of": ("a",)})
