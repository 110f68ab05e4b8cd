"""What agents and servers keep, and which values count, when some agents are silent, late or away.

States that are kept at both ends are followed by a plain loop in NumPy that is told only who was
heard. Tables of Q-learning are learned in shifted coordinates: nothing may depend on the shift.
"""

import dataclasses
import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from federations import end_of, largest

import fedjax_rl as frl
from fedjax_rl import federation as fed
from fedjax_rl import streams
from fedjax_rl.algorithms.ef_td import basis
from fedjax_rl.algorithms.novelty import SPEC, Sample
from fedjax_rl.algorithms.strategy import of_now
from fedjax_rl.envs import solvers
from fedjax_rl.federation.algorithm import bind
from fedjax_rl.federation.clock import timetable
from fedjax_rl.federation.ledger import _wide_sum
from fedjax_rl.federation.server import SHARE, towards
from fedjax_rl.federation.state import Context
from fedjax_rl.federation.uplinks import (
    View,
    event_triggered,
    lazy,
    partial,
    probabilistic,
    scaled_sign,
    top_k,
)
from fedjax_rl.sweeps.cells import Cell
from fedjax_rl.sweeps.sweep import run_cells

# The package has a function of that name.
exchanges = importlib.import_module("fedjax_rl.federation.exchange")

# Control variates --------------------------------------------------------------------------------

AGENTS, STEPS, RATE, ENTROPY = 4, 3, 0.5, 0.3
FAMILY = frl.envs.dirichlet_mdps(AGENTS, rewards=1.0, num_states=2, num_actions=2)
SOME = frl.Clock("semi-synchronous", wait_for=2, distribution="exponential")
ONE = frl.Clock("asynchronous", distribution="exponential")
AWAY = dataclasses.replace(SOME, failure_time=2.0)
thorough = pytest.mark.thorough

# Who is silent, the clock, whether the loop can follow it and whether it gets to the optimum.
CASES = {
    "partial": (partial(0.5), None, True, True),
    "partial, present": pytest.param(partial(0.5, absent=False), None, True, True, marks=thorough),
    "events": pytest.param(event_triggered(factor=1.0), None, True, False, marks=thorough),
    "probabilistic": pytest.param(probabilistic(2), None, True, True, marks=thorough),
    "lazy": (lazy(0.1), None, True, True),
    "semi-synchronous": (None, SOME, True, True),
    "asynchronous": pytest.param(None, ONE, True, True, marks=thorough),
    "late and silent": pytest.param(partial(0.5), ONE, True, True, marks=thorough),
    "late and lazy": pytest.param(lazy(0.1), ONE, True, False, marks=thorough),
    "away": pytest.param(None, AWAY, False, True, marks=thorough),
    "top k": pytest.param(top_k(3), None, False, True, marks=thorough),
    "signs": pytest.param(scaled_sign(), None, False, True, marks=thorough),
    "nothing left out": pytest.param(top_k(8), None, True, True, marks=thorough),
    "lossy signs": pytest.param(scaled_sign(feedback=False), None, False, True, marks=thorough),
}


def keys_of(num_agents):
    """Of the agents of the federation of seed 0."""
    return streams.agent_keys(jnp.zeros(num_agents, jnp.int32), jnp.arange(num_agents))


def states(algorithm, rounds, metric, num_agents=AGENTS):
    """After each round: the state, and a function for a metric of it."""
    everybody, functions = fed.population(num_agents), algorithm.functions(algorithm.config)
    params = bind([algorithm.parameters(algorithm.config, num_agents)])
    state = functions.init(everybody, params, keys_of(num_agents))
    step = jax.jit(lambda state: functions.round(everybody, params, state, period))
    period = getattr(algorithm.config, "sync_period", 1)
    measure = jax.jit(lambda state: functions.measure(everybody, params, state)[metric])
    for _ in range(rounds):
        state = step(state)
        yield state, lambda state=state: np.asarray(measure(state))[0]


def exact_gradient(agent, parameters):
    """Of the objective of an agent with the entropy, [S U], by linear solves."""
    kernel, discount = np.asarray(FAMILY.transition)[agent], float(FAMILY.discount[agent])
    states, actions = kernel.shape[:2]
    logits = parameters.reshape(states, actions)
    policy = np.exp(logits - logits.max(-1, keepdims=True))
    policy /= policy.sum(-1, keepdims=True)
    reward = np.sum(kernel * np.asarray(FAMILY.reward)[agent], axis=-1) - ENTROPY * np.log(policy)
    system = np.eye(states) - discount * np.einsum("su,sut->st", policy, kernel)
    values = np.linalg.solve(system, np.sum(policy * reward, axis=-1))
    start = np.asarray(FAMILY.initial_distribution)[agent]
    visits = np.linalg.solve(system.T, start)
    advantage = reward + discount * kernel @ values - values[:, None]
    return (visits[:, None] * policy * advantage).ravel()


class Loop:
    """SCAFFOLD, option II, as it is written: `c <- c + 1/N sum over those heard (c_i+ - c_i)`."""

    def __init__(self, remembers, clock):
        self.model = np.zeros(4)
        self.control = np.zeros(4)
        self.own = np.zeros((AGENTS, 4))
        self.handed = [(self.model, self.control)] * AGENTS
        self.last = {}
        self.remembers, self.clock = remembers, clock

    def round(self, there, heard):
        changes = {}
        for i in there:
            model, control = self.handed[i] if self.clock else (self.model, self.control)
            now = model.copy()
            for _ in range(STEPS):
                now = now + RATE * (exact_gradient(i, now) + control - self.own[i])
            changes[i] = now - model, (now - model) / (RATE * STEPS) - control
        self.last.update({i: changes[i][0] for i in heard})
        counted = [i for i in there if i in self.last] if self.remembers else heard
        if counted:
            self.model = self.model + np.mean([self.last[i] for i in counted], axis=0)
        for i in heard:
            self.control = self.control + changes[i][1] / AGENTS
            self.own[i] += changes[i][1]
        for i in there:
            self.handed[i] = self.model, self.control


@pytest.mark.parametrize(("uplink", "clock", "follow", "arrives"), CASES.values(), ids=list(CASES))
def test_control_variates_stay_the_mean_of_those_of_the_agents(uplink, clock, follow, arrives):
    with jax.enable_x64(True):
        options = {"gradient": "exact", "entropy": ENTROPY, "local_steps": STEPS}
        algorithm = frl.scaffold_pg(
            FAMILY, **options, learning_rate=RATE, uplink=uplink, clock=clock
        )
        rounds = 250
        arrivals = timetable(clock, num_agents=AGENTS, num_steps=rounds) if clock else None
        loop = Loop(uplink is not None and uplink.silent == "remembered", clock is not None)
        for t, (state, gap) in enumerate(states(algorithm, rounds, "gap")):
            control = np.asarray(state.server.correction[0])
            own = np.asarray(state.agents.memory)
            np.testing.assert_allclose(control, own.mean(axis=0), rtol=0, atol=1e-15)
            if follow:
                there = arrivals.agent[0, t] if clock else np.arange(AGENTS)
                sent = np.asarray(state.sent.messages)
                loop.round(there, [i for i in there if sent[i]])
                np.testing.assert_allclose(own, loop.own, atol=1e-10)
                np.testing.assert_allclose(control, loop.control, atol=1e-10)
                np.testing.assert_allclose(state.server.parameters[0], loop.model, atol=1e-10)
            if arrives and t == rounds - 1:
                assert abs(gap()) < 1e-7


@thorough
def test_the_weight_of_momentum_is_neither_compressed_nor_left_out():
    """AFedPG's first direction is the gradient that came in over the alpha it was taken for."""
    values = {"gradient": "exact", "entropy": ENTROPY, "episodes_per_step": 1, "momentum": 0.1}
    gradient = exact_gradient(0, np.zeros(4))
    every = frl.Clock("asynchronous", compute_time=np.arange(1.0, AGENTS + 1))
    one = frl.afedpg(FAMILY, **values, clock=every, uplink=top_k(1))
    _, state = end_of(one, AGENTS, 1)
    largest = np.zeros(4)
    largest[2] = gradient[2]
    assert abs(gradient[2]) >= np.abs(gradient).max() - 1e-12
    np.testing.assert_allclose(state.server.direction[0], largest, rtol=1e-5)
    assert state.ledger.totals()["floats_up"][0] == 2 + 1


# How many arrive, and how much they count ------------------------------------------------------


@pytest.mark.parametrize(
    ("clock", "uplink"),
    [
        (AWAY, partial(0.6)),
        pytest.param(None, partial(0.6), marks=thorough),
        pytest.param(ONE, None, marks=thorough),
        pytest.param(SOME, event_triggered(0.9), marks=thorough),
        pytest.param(dataclasses.replace(ONE, scheduler="synchronous"), None, marks=thorough),
    ],
)
@pytest.mark.thorough
def test_a_step_is_as_long_as_there_are_messages_and_only_those_are_reported(clock, uplink):
    """A normalised step has the length of so many steps of one message."""
    values = {"gradient": "exact", "entropy": ENTROPY, "episodes_per_step": 1, "local_steps": 1}
    algorithm = frl.afedpg(FAMILY, **values, learning_rate=0.01, clock=clock, uplink=uplink)
    rounds, model, messages = 40, np.zeros(4), []
    arrivals = timetable(clock, num_agents=AGENTS, num_steps=rounds) if clock else None
    for t, (state, frequency) in enumerate(states(algorithm, rounds, "frequency")):
        sent = np.flatnonzero(state.sent.messages)
        there = arrivals.agent[0, t][arrivals.present[0, t]] if clock else np.arange(AGENTS)
        assert set(sent) <= set(there)
        assert uplink is not None or len(sent) == len(there)
        np.testing.assert_allclose(frequency(), len(sent) / AGENTS)
        after = np.asarray(state.server.parameters[0])
        np.testing.assert_allclose(np.linalg.norm(after - model), 0.01 * len(sent), rtol=1e-4)
        model = after
        messages.append(len(sent))
    assert sum(messages) == state.ledger.totals()["messages_up"][0]
    assert clock is not AWAY or set(messages) == {0, 1, 2}


def taking_part(probability, time, num_agents=AGENTS):
    """Who sends through the uplink `partial` at a time, bool [N]."""

    def one(key):
        key = jax.random.fold_in(jax.random.fold_in(key, streams.Engine.UPLINK), time)
        return jax.random.bernoulli(key, probability)

    return np.asarray(jax.vmap(one)(keys_of(num_agents)))


WEIGHTS = np.asarray([1.0, 0.0, 2.0, 5.0])


def weights_of(values):
    """Of every agent, by the aggregation."""
    if values["aggregation"] == "mean":
        return np.ones(AGENTS)
    return WEIGHTS if values["aggregation"] == "fixed" else np.exp(WEIGHTS)


@pytest.mark.parametrize(
    ("clock", "values"),
    [
        (SOME, {"aggregation": "fixed", "participation": 0.6}),
        (ONE, {"aggregation": "learned"}),
        (SOME, {"aggregation": "fixed", "server_optimizer": optax.sgd(0.5)}),
        pytest.param(ONE, {"aggregation": "fixed"}, marks=thorough),
        pytest.param(SOME, {"aggregation": "learned"}, marks=thorough),
        pytest.param(SOME, {"aggregation": "mean", "participation": 0.6}, marks=thorough),
        pytest.param(
            ONE, {"aggregation": "learned", "server_optimizer": optax.sgd(0.5)}, marks=thorough
        ),
        pytest.param(
            dataclasses.replace(ONE, scheduler="synchronous"),
            {"aggregation": "fixed", "participation": 0.6},
            marks=thorough,
        ),
    ],
)
@pytest.mark.thorough
def test_a_table_moves_by_the_share_of_the_weight_that_has_arrived(clock, values):
    """One state and one action: everything but who arrives is known."""
    rewards, rate, discount, rounds = np.asarray([1.0, -2.0, 3.0, 0.5]), 0.5, 0.5, 30
    one = np.ones((AGENTS, 1, 1, 1))
    mdp = frl.envs.tabular_mdp(one, rewards[:, None, None, None] * one, discount)
    if values["aggregation"] != "mean":
        values = {**values, "weights": WEIGHTS}
    algorithm = frl.fedq(mdp, learning_rate=rate, epsilon=1.0, clock=clock, **values)
    arrivals = timetable(clock, num_agents=AGENTS, num_steps=rounds)
    weights, server = weights_of(values), 0.0
    handed, origin = np.zeros(AGENTS), rewards.mean() / (1 - discount)
    with jax.enable_x64(True):
        for t, (state, _) in enumerate(states(algorithm, rounds, "error_server")):
            there = arrivals.agent[0, t]
            heard = there[taking_part(values.get("participation", 1.0), t)[there]]
            learned = handed + rate * (rewards + discount * handed - handed)
            if weights[heard].sum() > 0:
                mean = np.average(learned[heard], weights=weights[heard])
                part = weights[there].sum() / weights.sum()
                if "server_optimizer" in values:
                    part = 0.5 * part / (len(there) / AGENTS)
                server = server + part * (mean - server)
            handed[there] = learned[there]
            handed[heard] = server
            np.testing.assert_allclose(np.ravel(state.server) + origin, server, rtol=0, atol=1e-12)


@thorough
@pytest.mark.parametrize("clock", [ONE, AWAY], ids=["one", "away"])
def test_a_mean_over_all_agents_counts_those_who_have_not_arrived(clock):
    options = {"optimizer": "sgd", "l2": 0.0, "network": (2,), "clock": clock}
    all_of, received, still = (
        end_of(frl.es(grid(), **options, denominator=d, learning_rate=rate), AGENTS, 1)[1].server
        for d, rate in (("n", 1.0), ("received", 1.0), ("n", 0.0))
    )
    arrived = timetable(clock, num_agents=AGENTS, num_steps=1).present.sum()
    mean = received.parameters - still.parameters
    assert np.abs(mean).max() > 0.1
    np.testing.assert_allclose(
        all_of.parameters - still.parameters, mean * float(arrived / AGENTS), rtol=1e-4, atol=1e-5
    )


@thorough
def test_lazy_agents_count_each_coordinate_of_the_model_once():
    """AFedPG as the plain gradient: its rule is that of LAPG with exact gradients."""
    rate, rounds = 0.3, 40
    with jax.enable_x64(True):
        algorithm = frl.a3c_pg(
            FAMILY,
            gradient="exact",
            entropy=ENTROPY,
            learning_rate=rate,
            scale_with_arrivals=False,
            clock=None,
            uplink=lazy(0.1, 3, variance=0.0),
        )
        model, senders, silent = np.zeros(4), Senders("lazy", rate), 0
        for state, _ in states(algorithm, rounds, "frequency"):
            gradients = [exact_gradient(i, model) for i in range(AGENTS)]
            total, heard = senders(range(AGENTS), gradients, model)
            model = model + rate * total
            silent += AGENTS - len(heard)
            np.testing.assert_array_equal(np.flatnonzero(state.sent.messages), heard)
            np.testing.assert_allclose(state.server.parameters[0], model, atol=1e-10)
        assert 0 < silent < AGENTS * rounds - AGENTS


def test_weights_that_nobody_knows_before_an_arrival_are_refused():
    with pytest.raises(ValueError, match="with aggregation 'importance'"):
        frl.fedq(frl.envs.random_mdp(seed=0), aggregation="importance", clock=ONE)


# Every other algorithm, against a loop ----------------------------------------------------------

UPLINKS = {
    "everybody": None,
    "partial": partial(0.5),
    "present": partial(0.5, absent=False),
    "events": event_triggered(factor=0.9, decay=0.5),
    "lazy": lazy(0.1, 3, variance=0.5),
    "top k": top_k(2),
}


class Senders:
    """What of N messages [q] a server has, by the rules of the uplinks as they are written."""

    def __init__(self, kind, rate=1.0, num_agents=AGENTS, dtype=np.float64):
        self.kind, self.rate, self.time, self.dtype = kind, rate, 0, dtype
        self.filter = np.zeros(num_agents)
        self.last = [None] * num_agents
        self.residual = [0.0] * num_agents
        self.moves, self.model = np.zeros((3, num_agents)), [None] * num_agents

    def __call__(self, there, messages, models, magnitude=None, variance=None):
        """The mean of what counts, or None; and who has sent.

        Args:
          there: who works.
          messages: of each of these.
          models: [q], or one for each: of what each knows.
          magnitude: of each message, where it is not the norm.
          variance: of each message, where it is not 0.
        """
        heard, counted = [], []
        mask = taking_part(0.5, self.time) if self.kind in ("partial", "present") else None
        self.time += 1
        for i in there:
            message, sent = messages[i], True
            if mask is not None:
                sent = mask[i]
            elif self.kind == "events":
                d = np.linalg.norm(message) if magnitude is None else magnitude[i]
                sent = d >= 0.9 * self.filter[i]
                self.filter[i] += 0.5 * (d - self.filter[i])
            elif self.kind == "lazy":
                model = models if np.ndim(models) == 1 else models[i]
                moved = 0.0 if self.model[i] is None else np.sum((model - self.model[i]) ** 2)
                self.moves[:, i] = moved, *self.moves[:2, i]
                self.model[i] = model
                bound = 0.1 / self.rate**2 * np.sum(self.moves[:, i])
                bound += 0.0 if variance is None else 0.5 * variance[i]
                sent = self.last[i] is None or np.sum((message - self.last[i]) ** 2) >= bound
                self.last[i] = message if sent else self.last[i]
                message = self.last[i]
            elif self.kind == "top k":
                whole = self.residual[i] + message
                message = largest(whole, 2, self.dtype)
                self.residual[i] = whole - message
            if sent:
                heard.append(i)
            if sent or self.kind == "lazy":
                counted.append(message)
        return (np.mean(counted, axis=0) if counted else None), heard


def some(names, quick):
    """Cases of which only some are quick."""
    return [n if n in quick else pytest.param(n, marks=thorough) for n in names]


def of_agent(i):
    """Kernel, mean rewards and discount of an agent of the family."""
    kernel = np.asarray(FAMILY.transition)[i]
    reward = np.sum(kernel * np.asarray(FAMILY.reward)[i], axis=-1)
    return kernel, reward, float(FAMILY.discount[i])


def bellman_step(i, table):
    kernel, reward, discount = of_agent(i)
    return 0.5 * table + 0.5 * (reward + discount * kernel @ table.max(-1))


def nearest_policy(table):
    """Of two actions."""
    first = np.clip((table[:, 0] - table[:, 1] + 1) / 2, 0, 1)
    return np.stack([first, 1 - first], axis=-1)


def ascent_step(i, table):
    kernel, reward, discount = of_agent(i)
    system = np.eye(2) - discount * np.einsum("su,sut->st", table, kernel)
    values = np.linalg.solve(system, np.sum(table * reward, axis=-1))
    visits = np.linalg.solve(system.T, np.asarray(FAMILY.initial_distribution)[i])
    return nearest_policy(table + 0.5 * visits[:, None] * (reward + discount * kernel @ values))


@pytest.mark.parametrize("kind", some(UPLINKS, ["partial"]))
@pytest.mark.parametrize("name", ["qavg", "pavg"])
def test_averages_of_tables_are_those_of_a_loop(name, kind):
    step = {"qavg": bellman_step, "pavg": ascent_step}[name]
    uplink = UPLINKS[kind]
    with jax.enable_x64(True):
        make = {"qavg": frl.qavg, "pavg": frl.pavg}[name]
        algorithm = make(FAMILY, learning_rate=0.5, local_steps=2, uplink=uplink)
        table = np.zeros((2, 2)) if name == "qavg" else np.full((2, 2), 0.5)
        senders = Senders(kind)
        for state, change in states(algorithm, 25, "change_norm"):
            changes = []
            for i in range(AGENTS):
                changes.append((step(i, step(i, table)) - table).ravel())
            total, heard = senders(range(AGENTS), changes, table.ravel())
            before = table
            if total is not None:
                table = table + total.reshape(2, 2)
                if name == "pavg" and kind in ("lazy", "top k"):
                    table = nearest_policy(table)
            np.testing.assert_array_equal(np.flatnonzero(state.sent.messages), heard)
            np.testing.assert_allclose(state.server.table[0], table, atol=1e-12)
            np.testing.assert_allclose(change(), np.linalg.norm(table - before), atol=1e-12)


HAPG_CASES = [(kind, None) for kind in UPLINKS] + [
    (kind, clock) for kind in ("everybody", "partial", "lazy", "top k") for clock in (SOME, ONE)
]
QUICK_HAPG = [("partial", None), ("everybody", SOME)]


@pytest.mark.parametrize(
    ("kind", "clock"),
    [c if c in QUICK_HAPG else pytest.param(*c, marks=thorough) for c in HAPG_CASES],
)
def test_momentum_of_changes_is_that_of_a_loop(kind, clock):
    """FedHAPG-M with exact gradients, whose anchor and momentum go down with the model."""
    beta, rate, pace, rounds = 0.3, 0.2, 0.6, 25
    with jax.enable_x64(True):
        algorithm = frl.fedhapg_m(
            FAMILY,
            gradient="exact",
            entropy=ENTROPY,
            local_steps=2,
            learning_rate=rate,
            server_learning_rate=pace,
            momentum=beta,
            uplink=UPLINKS[kind],
            clock=clock,
        )
        arrivals = timetable(clock, num_agents=AGENTS, num_steps=rounds) if clock else None
        first = np.mean([exact_gradient(i, np.zeros(4)) for i in range(AGENTS)], axis=0)
        server = np.zeros(4), np.zeros(4), first
        handed, senders = [server] * AGENTS, Senders(kind, pace / (2 * rate))
        for t, (state, _) in enumerate(states(algorithm, rounds, "gap")):
            there = arrivals.agent[0, t] if clock else range(AGENTS)
            changes = {}
            for i in there:
                start, anchor, momentum = handed[i]
                now = start
                for _ in range(2):
                    newest = exact_gradient(i, now)
                    moved = momentum + newest - exact_gradient(i, anchor)
                    now = now + rate * (beta * newest + (1 - beta) * moved)
                changes[i] = now - start
            total, heard = senders(there, changes, [h[0] for h in handed])
            if total is not None:
                direction = total / (2 * rate)
                server = server[0] + pace * direction, server[0], direction
            for i in there:
                handed[i] = server
            np.testing.assert_array_equal(np.flatnonzero(state.sent.messages), sorted(heard))
            for got, want in zip(
                (state.server.parameters, state.server.previous, state.server.direction),
                server,
                strict=True,
            ):
                np.testing.assert_allclose(got[0], want, atol=1e-10)


@functools.cache
def grid():
    return frl.envs.simple_grid(max_steps=8)


@pytest.mark.parametrize("kind", some(UPLINKS, ["top k"]))
def test_temporal_differences_are_those_of_a_loop(kind):
    """EF-TD, every step from where the agents are seen to have gone."""
    rate, radius = 0.4, 0.5
    with jax.enable_x64(True):
        task = grid()
        algorithm = frl.ef_td(task, learning_rate=rate, radius=radius, uplink=UPLINKS[kind])
        phi, theta = basis(algorithm.config), None
        senders, where = Senders(kind, rate), [int(task.grid.mdp.initial_state)] * AGENTS
        for state, _ in states(algorithm, 60, "value_error"):
            theta = np.zeros(phi.shape[1]) if theta is None else theta
            after, reward = np.asarray(state.agents.state), state.agents.experience.value
            here, there = phi[where], phi[after]
            errors = np.asarray(reward) + task.discount * there @ theta - here @ theta
            total, heard = senders(range(AGENTS), errors[:, None] * here, theta)
            if total is not None:
                theta = theta + rate * total
                theta = theta * min(1, radius / max(np.linalg.norm(theta), 1e-300))
            where = after
            np.testing.assert_array_equal(np.flatnonzero(state.sent.messages), heard)
            np.testing.assert_allclose(state.server[0], theta, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("lapg", "lazy"),
        *(pytest.param("reinforce", kind, marks=thorough) for kind in UPLINKS),
        ("davia", "events"),
        *(pytest.param("davia", kind, marks=thorough) for kind in UPLINKS if kind != "events"),
    ],
)
def test_gradients_of_episodes_count_as_in_a_loop(name, kind):
    """What agents have learned from their episodes is read from them."""
    rate, uplink = 0.3, UPLINKS[kind]
    with jax.enable_x64(True):
        values = {"learning_rate": rate} | ({} if name == "davia" else {"episodes_per_round": 2})
        values |= {"weight": 0.1, "depth": 3, "variance": 0.5} if name == "lapg" else {}
        values |= {} if name == "lapg" else {"uplink": uplink or frl.uplinks.full()}
        make = {"lapg": frl.lapg, "reinforce": frl.reinforce, "davia": frl.davia}[name]
        algorithm, senders, theta = make(grid(), **values), Senders(kind, rate), None
        sign = -1 if name == "davia" else 1
        for state, _ in states(algorithm, 40, "frequency"):
            own = state.agents.message if name == "davia" else state.agents.gradient
            messages = np.asarray(own.value)
            theta = np.zeros(messages.shape[1]) if theta is None else theta
            apart = (np.asarray(own.merit), None) if name == "davia" else (None, own.variance)
            total, heard = senders(range(AGENTS), messages, theta, *apart)
            if total is not None:
                theta = theta + sign * rate * total
            np.testing.assert_array_equal(np.flatnonzero(state.sent.messages), heard)
            np.testing.assert_allclose(state.server[0], theta, atol=1e-10)


def test_events_of_single_transitions_are_those_of_a_loop():
    """EBCDQL: the filter of an agent goes on over its transitions, one after the other."""
    rate, factor, decay, floor = 0.5, 0.8, 0.2, 0.01
    with jax.enable_x64(True):
        algorithm = frl.ebcdql(
            grid(), learning_rate=rate, epsilon=0.5, threshold=floor, factor=factor, decay=decay
        )
        used_to, table = np.zeros(AGENTS), None
        for state, _ in states(algorithm, 40, "frequency"):
            message = jax.tree.map(np.asarray, state.agents.message)
            table = np.zeros(state.server.shape[1]) if table is None else table
            errors, numbers, words = np.zeros_like(table), np.zeros_like(table), np.zeros(AGENTS)
            for i in range(AGENTS):
                steps = zip(message.index[i], message.error[i], message.kept[i], strict=True)
                for place, error, there in steps:
                    if there and abs(error) >= max(factor * used_to[i], floor):
                        errors[place] += error
                        numbers[place] += 1
                        words[i] += 1
                    if there:
                        used_to[i] += decay * (abs(error) - used_to[i])
            table = table + rate * errors / np.maximum(numbers, 1)
            np.testing.assert_array_equal(state.sent.messages, words > 0)
            np.testing.assert_allclose(state.server[0], table, atol=1e-12)


@pytest.mark.parametrize("kind", some(["partial", "present", "events", "top k"], ["partial"]))
@pytest.mark.thorough
def test_averages_of_moments_are_those_of_who_was_heard(kind):
    """FedPPO: what an agent has learned by itself is what it has where nobody is heard."""
    values = {
        "num_envs": 2,
        "rollout_steps": 8,
        "minibatches": 2,
        "network.hidden": (4,),
        "passes": 1,
    }
    task = frl.envs.tabular_task(FAMILY, max_steps=4)
    algorithm = frl.fedppo(task, **values, moments="average", uplink=UPLINKS[kind])
    silent = algorithm.replace(uplink=partial(0.0))
    everybody, config = fed.population(AGENTS), algorithm.config
    params, none = (bind([a.parameters(a.config, AGENTS)]) for a in (algorithm, silent))
    functions = algorithm.functions(config)
    step = jax.jit(lambda state, params: functions.round(everybody, params, state, 1))
    alone = step
    if kind != "partial":
        lonely = silent.functions(silent.config)
        alone = jax.jit(lambda state, params: lonely.round(everybody, params, state, 1))
    state, senders = (
        functions.init(everybody, params, keys_of(AGENTS)),
        Senders(kind, dtype=np.float32),
    )

    def shared(agents):
        parameters, moments = agents.learned
        return np.concatenate([parameters, moments.first, moments.second], axis=1)

    server = shared(state.agents)[0].astype(np.float64)
    for _ in range(6):
        memory = ((),) if kind != "partial" else state.uplink_state
        own = shared(alone(dataclasses.replace(state, uplink_state=memory), none).agents)
        state = step(state, params)
        messages = own if kind == "partial" else own - server
        total, heard = senders(range(AGENTS), messages, server)
        if total is not None:
            server = total if kind == "partial" else server + total
        want = np.broadcast_to(server, own.shape).copy()
        if kind == "partial":
            silence = np.setdiff1d(np.arange(AGENTS), heard)
            want[silence] = own[silence]
        numbers = want.shape[1] // 3
        want[:, 2 * numbers :] = np.maximum(want[:, 2 * numbers :], 0)
        np.testing.assert_allclose(shared(state.agents), want, rtol=1e-4, atol=1e-6)
    assert (np.asarray(state.agents.learned.moments.count) == 12).all()


@thorough
def test_who_sends_is_drawn_at_every_average_of_an_epoch():
    values = {"num_envs": 2, "rollout_steps": 8, "minibatches": 4, "network.hidden": (4,)}
    task = frl.envs.tabular_task(FAMILY, max_steps=4)
    algorithm = frl.fedppo(task, **values, sync_every_minibatches=1, uplink=partial(0.5))
    _, state = end_of(algorithm, AGENTS, 2)
    sent = sum(taking_part(0.5, exchange).sum() for exchange in range(2 * 4))
    assert state.ledger.totals()["messages_up"][0] == sent
    assert sent != 4 * sum(taking_part(0.5, epoch).sum() for epoch in range(2))


# Values that are there for some entries only -----------------------------------------------------

KERNEL = np.asarray([[[0.9, 0.1], [0.2, 0.8]], [[0.5, 0.5], [0.05, 0.95]]])


def test_who_has_no_weight_does_not_make_a_table():
    """Reward 1 and q* = 10; a learning rate of nearly nothing leaves an error of 4 * 10^2."""
    mdp = frl.envs.tabular_mdp(KERNEL, np.ones((1, 1, 1)), 0.9)
    common = {"learning_rate": 1e-6, "epsilon": 1.0, "participation": 0.5}
    algorithm = frl.fedq(mdp, **common, aggregation="fixed", weights=[0.0, 1.0])
    metrics, _ = end_of(algorithm, 2, 8, every=1)
    np.testing.assert_allclose(metrics["error_local"], 400, rtol=1e-4)


def test_importance_weights_of_those_heard_do_not_underflow():
    """From q*, with rewards that do not vary, every update and every average leaves q*."""
    reward = np.broadcast_to(np.asarray([1.0, -1.0])[None, :, None], (2, 2, 1))
    mdp = frl.envs.tabular_mdp(KERNEL, reward, 0.5)
    policy = np.broadcast_to(np.eye(2)[:, None, :], (2, 2, 2))
    algorithm = frl.fedq(
        mdp,
        behaviour="policy",
        policy=policy,
        learning_rate=0.3,
        sync_period=500,
        aggregation="importance",
        participation=0.5,
        initial_q=solvers.optimal_q(mdp),
    )
    metrics, state = end_of(algorithm, 2, 4000, every=500)
    np.testing.assert_allclose(metrics["error_local"], 0, atol=1e-9)
    reference = np.ravel(solvers.optimal_q(mdp) - solvers.optimal_q(mdp).mean())
    np.testing.assert_allclose(np.ravel(state.server), reference, atol=1e-6)


def test_an_entry_that_nobody_weighs_keeps_its_value():
    population = fed.population([2, 2])
    message = {"a": jnp.asarray([[1.0, 2.0], [3.0, 4.0], [5.0, jnp.nan], [7.0, 8.0]])}
    weight = {"a": jnp.asarray([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0], [1.0, 1.0]])}
    sent = jnp.asarray([True, True, True, False])
    total = fed.mean(population, message, sent, weight)
    np.testing.assert_array_equal(total.present["a"], [[True, False], [False, False]])
    np.testing.assert_array_equal(total.value["a"], [[2, 0], [0, 0]])
    link = fed.Exchange(
        message=lambda agent, broadcast, params: agent,
        receive=lambda agent, broadcast, params: broadcast,
        weight=lambda population, agents, params: weight,
        uplink=fed.Uplink("given", lambda *_: (), lambda key, m, memory, view: (m, view.own, ())),
    )
    params = fed.Params({"uplink": sent}, {}, {})
    keys = streams.agent_keys(jnp.zeros(4, jnp.int32), population.member_of)
    server = {"a": jnp.full((2, 2), 9.0)}
    state = exchanges.first_state(population, link, params, keys, message, server)
    after = exchanges.exchange(population, link, params, state)
    np.testing.assert_array_equal(after.server["a"], [[2, 9], [9, 9]])
    np.testing.assert_array_equal(after.agents["a"], [[2, 9], [2, 9], [9, 9], [9, 9]])


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.chain(optax.add_decayed_weights(0.1), optax.sgd(1.0)),
        pytest.param(optax.lamb(0.05), marks=thorough),
        pytest.param(optax.adamw(0.2, weight_decay=0.1), marks=thorough),
        pytest.param(optax.chain(optax.sgd(2.5), optax.keep_params_nonnegative()), marks=thorough),
    ],
)
def test_an_optimiser_of_the_server_reads_action_values(optimizer):
    """One state, two actions, only the first of which is taken: no chance is left."""
    mdp = frl.envs.tabular_mdp(np.ones((1, 2, 1)), np.asarray([[2.0], [-3.0]]), 0.5)
    values = {"learning_rate": 0.5, "behaviour": "policy", "policy": np.asarray([[1.0, 0.0]])}
    algorithm = frl.fedq(mdp, **values, initial_q=1.0, server_optimizer=optimizer)
    _, state = end_of(algorithm, 2, 12)
    q = jnp.ones((1, 2))
    memory = optimizer.init(q)
    with jax.numpy_dtype_promotion("standard"):
        for _ in range(12):
            learned = q.at[0, 0].add(0.5 * (2.0 + 0.5 * q.max() - q[0, 0]))
            updates, memory = optimizer.update(q - learned, memory, q)
            q = optax.apply_updates(q, updates)
    centre = solvers.optimal_q(mdp).mean()
    np.testing.assert_allclose(np.ravel(state.server) + centre, np.ravel(q), rtol=1e-4, atol=1e-4)


# Shifted rewards ---------------------------------------------------------------------------------

PLAIN = {
    "events": {"uplink": event_triggered(0.02, 0.5)},
    "top k": {"uplink": top_k(2), "aggregation": "importance"},
}
RARE = {
    "late": {"clock": ONE, "uplink": lazy(0.1)},
    "away": {"clock": AWAY, "uplink": event_triggered(0.02, 0.5)},
    "mixing": {"mixing": 0.5, "participation": 0.5},
    "weights": {"aggregation": "fixed", "weights": [0.0, 0.0, 1.0, 2.0], "participation": 0.3},
    "logits": {
        "aggregation": "learned",
        "weights": [0.0, 60.0, 120.0, 180.0],
        "participation": 0.3,
    },
    "importance": {"aggregation": "importance", "participation": 0.3, "sync_period": 40},
    "probabilistic": {"uplink": probabilistic(2)},
    "lazy": {"uplink": lazy(0.1, 3)},
    "present": {"uplink": partial(0.3, absent=False), "aggregation": "importance"},
    "signs": {"uplink": scaled_sign()},
    "lossy": {"uplink": top_k(1, feedback=False), "clock": ONE},
    "share": {"clock": SOME, "participation": 0.5},
    "momentum": {"server_optimizer": optax.sgd(0.5, 0.9), "participation": 0.3},
    "adam": {"server_optimizer": optax.adam(0.1), "uplink": event_triggered(0.02, 0.5)},
    "adam of importance": {
        "server_optimizer": optax.adam(0.1),
        "aggregation": "importance",
        "participation": 0.3,
    },
}


@pytest.mark.parametrize(
    "properties",
    [*PLAIN.values(), *(pytest.param(p, marks=thorough) for p in RARE.values())],
    ids=[*PLAIN, *RARE],
)
def test_shifting_all_rewards_shifts_all_tables_and_no_error(properties):
    """Rewards r + c (1 - discount) and tables from c on are the same run, to rounding."""
    mdp, shift = frl.envs.random_mdp(seed=0), 16.0
    discount = float(mdp.discount)
    shifted = dataclasses.replace(mdp, reward=np.asarray(mdp.reward) + shift * (1 - discount))
    one = frl.fedq(mdp, **{"learning_rate": 0.3, "sync_period": 5, "epsilon": 1.0, **properties})
    cells = [Cell(4, 0, {}), Cell(4, 0, {"mdp": shifted, "initial_q": shift})]
    steps = 60 if one.config.clock is not None else 8 * one.config.sync_period
    metrics = ("error_server", "error_local")
    out = run_cells(one, cells, num_steps=steps, record_every=steps // 4, metrics=metrics)
    plain, other = (out.isel(cell=n) if "cell" in out.dims else out for n in (0, 1))
    for name in metrics:
        np.testing.assert_allclose(other[name], plain[name], rtol=2e-3, atol=1e-4)


# What was known, and what is paid ----------------------------------------------------------------


@thorough
def test_changes_count_from_the_model_that_an_agent_was_handed():
    """Nothing is left out of a change: the server has the tables that it has without an uplink."""
    one = frl.fedq(frl.envs.random_mdp(seed=0), learning_rate=0.3, sync_period=5, clock=ONE)
    size = one.config.mdp.num_states * one.config.mdp.num_actions
    ends = [end_of(one.replace(uplink=up), 4, 40)[0] for up in (None, top_k(size))]
    np.testing.assert_allclose(ends[1]["error_server"], ends[0]["error_server"], rtol=1e-4)


def test_the_policy_of_the_server_stays_one():
    one = frl.pavg(FAMILY, learning_rate=1.0, uplink=scaled_sign(feedback=False))
    _, state = end_of(one, AGENTS, 8)
    table = np.asarray(state.server.table)
    assert table.min() >= 0
    np.testing.assert_allclose(table.sum(-1), 1, rtol=1e-5)


@thorough
@pytest.mark.parametrize("uplink", [event_triggered(1e9), top_k(1)])
def test_who_has_nobody_to_talk_to_loses_nothing(uplink):
    one = frl.fedq(frl.envs.random_mdp(seed=0), learning_rate=0.3, sync_period=2, epsilon=1.0)
    ends = [end_of(one.replace(uplink=up), 1, 8)[0] for up in (None, uplink)]
    np.testing.assert_allclose(ends[1]["error_local"], ends[0]["error_local"], rtol=1e-5)


def test_a_step_of_fewer_than_were_waited_for_moves_the_server_less():
    """Three of four arrive and the fourth has failed: 3/4 of the way to the mean of the three."""
    everybody = fed.population(4)
    link = fed.Exchange(
        message=lambda agent, broadcast, params: agent,
        server=towards(SHARE),
        dedicated_server=True,
    )
    params = fed.Params({}, {SHARE: jnp.ones(1)}, {})
    keys = streams.agent_keys(jnp.zeros(4, jnp.int32), everybody.member_of)
    tables = jnp.asarray([1.0, 2.0, 6.0, 100.0])
    state = exchanges.first_state(everybody, link, params, keys, tables, jnp.zeros(1))
    here = jnp.asarray([True, True, True, False])
    after = exchanges.exchange(everybody, link, params, state, present=here)
    np.testing.assert_allclose(after.server, 0.75 * 3)
    spent = after.ledger.totals()
    assert (spent["messages_up"], spent["messages_down"]) == (3, 3)


def test_sums_of_sizes_beyond_32_bits_come_in_two_parts():
    everybody = fed.population([3, 3])
    amounts = jnp.asarray([2**31, 2**31 - 1, 5000, 1, 2, 4095], jnp.uint32)
    parts = _wide_sum(everybody, amounts, 2**31)
    totals = sum(np.asarray(n, np.int64) * np.asarray(unit, np.int64) for n, unit in parts)
    np.testing.assert_array_equal(totals, [2**32 - 1 + 5000, 4098])
    assert len(_wide_sum(everybody, amounts, 5000)) == 1


def test_samples_of_several_rounds_are_not_mixed():
    """Nothing of a sample is kept for the next; one that is remembered counts as silence."""
    uplink, spec = top_k(1), SPEC
    one = Sample(jnp.float32(2.0), jnp.asarray([3.0, 1.0]), jnp.zeros(4), jnp.asarray(True))
    memory = uplink.init(one, (), spec)
    view = View(spec, (), jnp.uint32(0), {"uplink": {"k": 1}})
    sent, _, memory = uplink.send(None, one, memory, view)
    np.testing.assert_array_equal(sent.behaviour, [3, 0])
    assert not any(np.any(x) for x in jax.tree.leaves(memory))
    heard = jnp.asarray([True, False])
    context = Context((), fed.Params({}, {}, {}), jnp.uint32(0), (), heard)
    np.testing.assert_array_equal(of_now(None, context), heard)
    np.testing.assert_array_equal(of_now(~heard, context), [False, False])


def test_samples_of_old_parameters_are_not_reweighed():
    with pytest.raises(ValueError, match="for iw-es, whose server reweighs"):
        frl.iw_es(frl.envs.simple_grid(), clock=ONE)


def test_one_agent_is_not_silent_for_ever():
    one = frl.espc(frl.envs.simple_grid(max_steps=8))
    targets = [one.parameters(one.config, n).federation["uplink"]["target"] for n in (1, 2, 3, 8)]
    assert targets == [1, 1, 1, 4]
