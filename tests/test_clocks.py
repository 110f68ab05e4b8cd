"""Whole rounds on a clock, against a loop in Python that hands the models over one by one.

What an agent does by itself is tested elsewhere, and called here as it is. Here it is who works
from which model and with which random words, and what the server makes of what has come.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from federations import largest
from heap import attempts, by_heap
from smallest import smallest

import fedjax_rl as frl
from fedjax_rl import streams
from fedjax_rl.federation.algorithm import bind
from fedjax_rl.federation.ledger import empty_ledger
from fedjax_rl.federation.population import population
from fedjax_rl.federation.state import Params, State

AGENTS, STEPS, SEED = 3, 9, 5
TIMES = {"compute_time": [1.0, 1.7, 2.9]}
CLOCKS = {
    "one at a time": frl.Clock("asynchronous", **TIMES),
    "two of three": frl.Clock("semi-synchronous", wait_for=2, **TIMES),
    "with failures": frl.Clock(
        "semi-synchronous",
        wait_for=2,
        distribution="exponential",
        failure_time=2.0,
        return_time=0.5,
        **TIMES,
    ),
}

# What makes something of every part of the server happen in a few steps.
PROPERTIES = {
    "dql": {"learning_rate": 0.25, "epsilon": 0.25},
    "ebcdql": {"learning_rate": 0.25, "epsilon": 0.25, "threshold": 0.5, "factor": 0.9},
    "davia": {"learning_rate": 0.25, "price": 0.05, "ratio": 0.8, "horizon": 7},
    "ef-td": {"learning_rate": 0.25, "uplink": frl.uplinks.top_k(3), "radius": 0.5},
    "reinforce": {"learning_rate": 0.25, "episodes_per_round": 2, "optimizer": "momentum"},
    "lapg": {"learning_rate": 0.25, "episodes_per_round": 3, "weight": 0.6, "variance": 1.0},
    "qavg": {"learning_rate": 0.25, "local_steps": 2},
    "pavg": {"learning_rate": 0.25, "local_steps": 2},
}


def worker(algorithm):
    """What an agent does alone: `(agent, its model, its number of uploads) -> (agent, steps)`."""
    functions = algorithm.functions(algorithm.config)
    params = bind([algorithm.parameters(algorithm.config, AGENTS)])
    keys = streams.agent_keys(np.full(AGENTS, SEED), np.arange(AGENTS))
    first = functions.init(population(AGENTS), params, keys)
    *works, _ = functions.parts
    one = population(1)

    @jax.jit
    def work(i, agents, model, count, follow):
        pick = lambda tree: jax.tree.map(lambda x: x[i][None], tree)
        own = {n: jnp.full(1, x, float) for n, x in follow.items()}
        own = Params(pick(params.agent), {**params.federation, **own}, params.shared)
        again = jax.tree.map(lambda x: x[None], model)
        state = State(count, keys[i][None], pick(agents), again, (), (), empty_ledger(1))
        steps = jnp.uint32(0)
        for part in works:
            state, more = part(one, own, state, False)
            steps += more[0]
        agents = jax.tree.map(lambda x, new: x.at[i].set(new[0]), agents, state.agents)
        return agents, jax.tree.map(lambda x: x[0], state.agents), steps

    return work, first.agents, np.asarray(jax.tree.leaves(first.server)[0][0], float), first


class Transitions:
    """DQL: every entry moves by the mean of the errors that came for it."""

    def __init__(self, values, event_triggered):
        self.values, self.triggered = values, event_triggered
        self.used_to = np.zeros(AGENTS)

    def send(self, i, agent, model, time):
        """What arrives of it, and its size in floats."""
        m = jax.tree.map(np.asarray, agent.message)
        pairs = [(k, e) for k, e, kept in zip(m.index, m.error, m.kept, strict=True) if kept]
        if self.triggered:
            some = []
            for index, error in pairs:
                size = abs(error)
                bound = max(self.values["factor"] * self.used_to[i], self.values["threshold"])
                some += [(index, error)] if size >= bound else []
                self.used_to[i] = 0.9 * self.used_to[i] + 0.1 * size
            pairs = some
        return (pairs, 4 * len(pairs)) if pairs else (None, 0)

    def step(self, model, came):
        """The model after what came."""
        by_entry = {}
        for pairs in came:
            for index, error in pairs:
                by_entry.setdefault(index, []).append(error)
        model = model.copy()
        for index, errors in by_entry.items():
            model[index] += self.values["learning_rate"] * np.mean(errors)
        return model


class Worth:
    """DAVIA: gradients that are worth a price, which falls with the models there have been."""

    def __init__(self, values):
        self.values = values

    def send(self, i, agent, model, time):
        """What arrives of it, and its size in floats."""
        v, message = self.values, agent.message
        left = max(v["horizon"] - 1 - time, 0)
        if message.merit < v["price"] / v["ratio"] ** left:
            return None, 0
        return np.asarray(message.value), message.value.size

    def step(self, model, came):
        """The model after what came."""
        return model - self.values["learning_rate"] * np.mean(came, axis=0)


class Compressed:
    """EF-TD: the three largest numbers of what is owed, and back into the ball."""

    def __init__(self, values):
        self.values, self.owed = values, None

    def send(self, i, agent, model, time):
        """What arrives of it, and its size in floats."""
        direction = np.asarray(agent.direction, float)
        self.owed = np.zeros((AGENTS, direction.size)) if self.owed is None else self.owed
        whole = self.owed[i] + direction
        sent = largest(whole, 3)
        self.owed[i] = whole - sent
        return sent, 6

    def step(self, model, came):
        """The model after what came."""
        model = model + self.values["learning_rate"] * np.mean(came, axis=0)
        return model / max(1, np.linalg.norm(model) / self.values["radius"])


class Gradients:
    """REINFORCE with momentum at the server."""

    def __init__(self, values):
        self.values, self.velocity = values, 0.0

    def send(self, i, agent, model, time):
        """What arrives of it, and its size in floats."""
        return np.asarray(agent.gradient.value, float), agent.gradient.value.size

    def step(self, model, came):
        """The model after what came."""
        self.velocity = 0.9 * self.velocity + np.mean(came, axis=0)
        return model + self.values["learning_rate"] * self.velocity


class Lazy:
    """LAPG: of who has nothing new to say the last gradient counts."""

    def __init__(self, values):
        self.values, self.last = values, [None] * AGENTS
        self.seen = [[] for _ in range(AGENTS)]

    def send(self, i, agent, model, time):
        """What counts of it, and its size in floats."""
        value, v = np.asarray(agent.gradient.value, float), self.values
        self.seen[i].append(model)
        moves = np.sum(np.diff(self.seen[i][-11:], axis=0) ** 2)
        bound = v["weight"] / v["learning_rate"] ** 2 * moves
        bound += v["variance"] * float(agent.gradient.variance)
        new = self.last[i] is None or np.sum((value - self.last[i]) ** 2) >= bound
        self.last[i] = value if new else self.last[i]
        return self.last[i], value.size if new else 0

    def step(self, model, came):
        """The model after what came."""
        return model + self.values["learning_rate"] * np.mean(came, axis=0)


class Changes:
    """QAvg and PAvg: the mean of the changes of those who have come."""

    def __init__(self, values):
        self.values = values

    def send(self, i, agent, model, time):
        """What arrives of it, and its size in floats."""
        return np.asarray(agent, float), agent.size

    def step(self, model, came):
        """The model after what came."""
        return model + np.mean(came, axis=0)


SERVERS = {
    "dql": functools.partial(Transitions, event_triggered=False),
    "ebcdql": functools.partial(Transitions, event_triggered=True),
    "davia": Worth,
    "ef-td": Compressed,
    "reinforce": Gradients,
    "lapg": Lazy,
    "qavg": Changes,
    "pavg": Changes,
}


def held(first, model):
    """A server of which agents are handed this model."""
    leaves, structure = jax.tree.flatten(jax.tree.map(lambda x: x[0], first.server))
    return jax.tree.unflatten(structure, [jnp.asarray(model, float), *leaves[1:]])


def by_hand(name, clock, **follow):
    """Servers' models after every step, who arrived, the ledger and the numbers of uploads.

    Properties in `follow` are functions of time: of an agent the number of its uploads, of the
    server that of its steps.
    """
    algorithm = smallest(name, **PROPERTIES[name])
    work, agents, model, first = worker(algorithm)
    server = SERVERS[name](dict(PROPERTIES[name]))
    draw = attempts(clock, AGENTS, SEED, 60)
    order, _, _, dispatched = by_heap(draw, AGENTS, clock.rules.arrivals(AGENTS), STEPS)
    models, uploads = [model], [0] * AGENTS
    spent = dict.fromkeys(("messages_up", "floats_up", "env_steps"), 0)
    for time, (_, arrived) in enumerate(order):
        came = []
        server.values.update({n: f(time) for n, f in follow.items()})
        for i, age in arrived:
            own = models[time - age]
            now = {n: f(uploads[i]) for n, f in follow.items()}
            agents, agent, steps = work(i, agents, held(first, own), jnp.uint32(uploads[i]), now)
            uploads[i] += 1
            message, floats = server.send(i, agent, own, time)
            came += [] if message is None else [message]
            spent["messages_up"] += floats > 0
            spent["floats_up"] += floats
            spent["env_steps"] += int(steps)
        models.append(server.step(models[-1], came) if came else models[-1])
    spent |= {"bytes_up": 4 * spent["floats_up"], "communications": STEPS}
    spent |= {"messages_down": dispatched, "floats_down": dispatched * model.size}
    return models, order, spent, uploads


# Every kind of memory, of agents, uplinks and servers, and every clock.
SHORT = {
    "ebcdql": "one at a time",
    "davia": "two of three",
    "ef-td": "one at a time",
    "lapg": "with failures",
    "qavg": "with failures",
}
EACH = [
    pytest.param(name, kind, marks=() if SHORT.get(name) == kind else pytest.mark.thorough)
    for name in SERVERS
    for kind in CLOCKS
]


@pytest.mark.parametrize(("name", "kind"), EACH)
def test_a_clock_hands_every_agent_its_own_model(name, kind):
    clock = CLOCKS[kind]
    models, order, spent, uploads = by_hand(name, clock)
    algorithm = smallest(name, clock=clock, **PROPERTIES[name])
    state, found, told = frl.init(algorithm, num_agents=AGENTS, seed=SEED), [], []
    for _ in range(STEPS):
        state, metrics = frl.round(algorithm, state)
        found.append(np.asarray(jax.tree.leaves(state.state.server)[0][0]))
        told.append(metrics)
    np.testing.assert_allclose(found, models[1:], rtol=2e-4, atol=2e-6)
    times = [metrics["simulated_time"] for metrics in told]
    np.testing.assert_allclose(times, [time for time, _ in order], rtol=1e-5)
    np.testing.assert_array_equal(told[-1]["uploads_of_agent"], uploads)
    assert {column: state.costs[column] for column in spent} == spent
    # The case is one that tells: models are older than the last, and they differ.
    assert max(age for _, arrived in order for _, age in arrived) > 0
    assert not np.allclose(models[-1], models[-2])
    if name in ("davia", "lapg"):
        assert 0 < spent["messages_up"] < sum(uploads)
    if name == "ebcdql":
        assert 0 < spent["floats_up"] < 4 * spent["env_steps"]


def test_on_a_clock_agents_follow_their_own_count_and_the_server_its_steps():
    """Agents explore less with every upload, the server learns less with every step."""
    clock = CLOCKS["one at a time"]
    bases = {"epsilon": 0.8, "learning_rate": 0.9}
    follow = {n: lambda time, base=base: base**time for n, base in bases.items()}
    models, *_, uploads = by_hand("dql", clock, **follow)
    schedules = {
        n: frl.schedule(optax.exponential_decay(1.0, 1, base)) for n, base in bases.items()
    }
    algorithm = smallest("dql", clock=clock, **schedules)
    state, found = frl.init(algorithm, num_agents=AGENTS, seed=SEED), []
    for _ in range(STEPS):
        state, _ = frl.round(algorithm, state)
        found.append(np.asarray(state.state.server[0]))
    np.testing.assert_allclose(found, models[1:], rtol=2e-4, atol=2e-6)
    assert len(set(uploads)) > 1
