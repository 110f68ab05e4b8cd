"""The one form of an algorithm: what follows from a record and a function."""

import copy
import inspect
import pathlib
import pickle
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fedjax_rl as frl
from fedjax_rl import streams
from fedjax_rl.algorithms import ALGORITHMS, define, definition

sys.path.append(str(pathlib.Path(__file__).parents[1] / "notebooks"))
from fedac import Agent, FedAC, fedac, step

MDP = frl.envs.random_mdp(seed=0)


def by_hand(agents, steps, period, rates, critic=0.1):
    """Averaged actor-critic as a loop in Python, with the same keys."""
    keys = streams.agent_keys(np.zeros(agents, np.int32), np.arange(agents, dtype=np.int32))
    shape = MDP.num_states, MDP.num_actions
    own = [Agent(jnp.zeros(shape), jnp.zeros(shape[0]), jnp.int32(0)) for _ in range(agents)]
    mdp = jax.tree.map(jnp.asarray, MDP)
    for time in range(steps):
        for i, key in enumerate(keys):
            params = {"mdp": mdp, "learning_rate": rates(time), "critic_rate": critic}
            own_key = jax.random.fold_in(key, streams.Engine.OWN)
            mine = jax.random.fold_in(jax.random.fold_in(own_key, streams.Own.STEP), time)
            own[i] = step(mine, own[i], params)
        if (time + 1) % period == 0:
            mean = [sum(agent[j] for agent in own) / agents for j in (0, 1)]
            own = [Agent(*mean, agent.state) for agent in own]
    return np.mean([agent.logits for agent in own], axis=0)


@pytest.mark.parametrize("scheduled", [False, True])
def test_an_algorithm_of_ones_own_is_the_loop_that_it_says(scheduled):
    def rate(time):
        return 0.5 * 0.5 ** (time / 4)

    given = frl.schedule(optax.exponential_decay(0.5, 4, 0.5)) if scheduled else 0.5
    algorithm = fedac(MDP, sync_period=3, learning_rate=given)
    state = frl.init(algorithm, num_agents=2)
    for _ in range(2):
        state, metrics = frl.round(algorithm, state)
    expected = by_hand(2, 6, 3, rate if scheduled else lambda time: 0.5)
    np.testing.assert_allclose(state.state.server[0][0], expected, rtol=1e-5)
    assert state.costs["messages_up"] == 4
    value = frl.envs.objective.value(jax.tree.map(jnp.asarray, MDP), jnp.asarray(expected))
    np.testing.assert_allclose(metrics["objective"], value, rtol=1e-5)


def test_a_unit_may_be_a_function_of_the_record():
    """What counts is what it says, not that it is one."""
    learner, metrics = fedac.definition.learner, fedac.definition.metrics

    def unit(config):
        return "step" if config.critic_rate < 1 else "round"

    own = define.algorithm(FedAC, environments=("mdp",), metrics=metrics, unit=unit)(learner)
    assert (own(MDP).unit, own(MDP, critic_rate=1.0).unit) == ("step", "round")
    for rate, given in ((0.1, False), (1.0, True)):
        one = own(MDP, critic_rate=rate, sync_period=3)
        assert ("sync_period" in one.parameters(one.config, 2).federation) == given
    run = [
        frl.sweep(one(MDP, learning_rate=0.5), num_agents=2, sync_period=[2, 3], num_steps=6)
        for one in (own, fedac)
    ]
    np.testing.assert_array_equal(run[0].objective, run[1].objective)


def test_sizes_of_messages_are_not_kept_for_ever(monkeypatch):
    monkeypatch.setattr(definition, "_MOST_SIZES", 2)
    definition._SIZES.clear()
    for states in (2, 3, 4, 5):
        mdp = frl.envs.random_mdp(seed=0, num_states=states)
        one = fedac(mdp, uplink=frl.uplinks.top_k(1))
        size = definition.Definition.message_size(
            fedac.definition, one.config, fedac(mdp).parameters(fedac(mdp).config, 2)
        )
        assert size == states * mdp.num_actions + states
        assert len(definition._SIZES) <= 2


def test_between_exchanges_the_mean_of_what_agents_know_is_measured():
    """An agent alone exchanges with nobody, and is measured all the same."""
    run = frl.sweep(fedac(MDP, learning_rate=0.5), num_agents=1, num_steps=4, record_every=4)
    model = by_hand(1, 4, 1, lambda time: 0.5)
    value = frl.envs.objective.value(jax.tree.map(jnp.asarray, MDP), jnp.asarray(model))
    np.testing.assert_allclose(run.objective[..., -1], value, rtol=1e-5)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_signature_and_help_tell_every_property(name):
    factory = ALGORITHMS[name].make
    known = inspect.signature(factory).parameters
    own = factory.definition.record
    assert next(iter(known)) in ("task", "mdp")
    for place in own.names():
        if "." not in place:
            assert place in known
        assert f"{place}: " in factory.__doc__
    headings = ("Args:", "Example:", "Raises:")
    lines = [line.strip() for line in factory.__doc__.splitlines()]
    assert not [line for line in lines if line.endswith(":") and line not in headings]


def test_records_are_values():
    one, same = fedac(MDP, critic_rate=0.2), fedac(frl.envs.random_mdp(seed=0), critic_rate=0.2)
    other = fedac(MDP, critic_rate=0.3)
    assert one == same
    assert hash(one) == hash(same)
    assert one != other
    assert pickle.loads(pickle.dumps(one)) == one
    assert copy.deepcopy(one) == one
    assert fedac(MDP, critic_rate=np.float32(0.25)).config.critic_rate == 0.25


def test_records_within_records_are_set_by_value_dict_or_dotted_name():
    grid = frl.envs.simple_grid(max_steps=4)
    three = [
        frl.reinforce(grid, network=(4,)),
        frl.reinforce(grid, network={"hidden": [4]}),
        frl.reinforce(grid).replace(**{"network.hidden": (4,)}),
    ]
    assert three[0] == three[1] == three[2]
    assert three[0].config.network.activation == "tanh"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"network": (0,)}, r"network\.hidden is \(0,\); allowed"),
        ({"network.hiden": (4,)}, "did you mean network.hidden"),
        ({"wire.word_bytes": 3}, r"wire\.word_bytes is 3; allowed: 2, 4, 8"),
        ({"optimizer": "adm"}, "optimizer.name is 'adm'.*did you mean adam"),
        ({"hidden": (4,)}, "did you mean network.hidden"),
    ],
)
def test_what_is_refused_in_a_record_within_has_its_whole_name(values, words):
    with pytest.raises(ValueError, match=words):
        frl.reinforce(frl.envs.simple_grid(max_steps=4), **values)


def test_what_a_part_of_a_record_does_not_say_stays_as_it_was():
    task = frl.envs.simple_grid(max_steps=5)
    for given in ({"momentum": 0.5}, frl.Optimizer(name="adam", momentum=0.5)):
        assert frl.es(task, optimizer=given).config.optimizer == frl.Optimizer(
            name="adam", momentum=0.5
        )
    tabular = frl.envs.tabular_task(frl.envs.dirichlet_mdp(), max_steps=5)
    variant = frl.fedavgm_pg(tabular, optimizer={"momentum": 0.5})
    assert variant.config.optimizer == frl.Optimizer(name="momentum", momentum=0.5)
    changed = variant.replace(optimizer={"name": "sgd"}).replace(optimizer="momentum")
    assert changed.config.optimizer == frl.Optimizer(name="momentum", momentum=0.5)
    both = variant.replace(**{"optimizer": "sgd", "optimizer.momentum": 0.25})
    assert both.config.optimizer == frl.Optimizer(name="sgd", momentum=0.25)
    network = frl.feddqn(tabular, network=(4,)).config.network
    assert (network.hidden, network.activation) == ((4,), "relu")
