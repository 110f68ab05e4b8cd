"""Derivatives of algorithms that learn from sampled episodes, against enumeration of all episodes.

Everything that may happen is run in NumPy, each with its probability: runs stand along an axis M,
one for every sequence of actions, and an algorithm is a plain loop that asks for the next episode.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedjax_rl as frl

GAMMA = 0.8


class Chain:
    """Episodes of T steps with two actions in a small deterministic world."""

    def __init__(self, leads, reward, steps, terminal=None):
        self.leads, self.reward, self.steps, self.terminal = (
            np.array(leads),
            reward,
            steps,
            terminal,
        )
        self.size = 2**steps

    def play(self, policy, tape, agent):
        """An episode of actions by number: (log-probability, visits, rewards, alive), [T, M]."""
        state, alive, count = (
            np.zeros(len(tape), int),
            np.ones(len(tape), bool),
            np.arange(len(tape)),
        )
        logs, visits, rewards, lives = 0.0, [], [], []
        for t in range(self.steps):
            action = tape >> t & 1
            # After the end an action is a coin that nobody looks at.
            chance = np.where(alive, policy[count, state, action], 0.5)
            logs = logs + np.log(chance)
            visits.append((state, action))
            rewards.append(np.where(alive, self.reward[agent][state, action], 0.0))
            lives.append(alive)
            state = self.leads[state, action]
            if self.terminal is not None:
                alive = alive & (state != self.terminal)
        return logs, visits, np.array(rewards), np.array(lives)


# Each action leads to the state of its number; what it pays is each agent's own.
REWARDS = np.array([[[1.0, 0.2], [0.4, -0.5]], [[0.8, -0.3], [0.7, 0.1]]])
FAMILY = Chain([[0, 1], [0, 1]], REWARDS, 2)
# A row of three cells, the last one a goal; what a step pays is of the cell where it ends.
ROW = Chain([[0, 1], [0, 2], [0, 2]], np.array([[[-0.5, 0.7], [-0.5, 2.0], [0.0, 0.0]]] * 2), 3, 2)


def family(agents=2, steps=2):
    transition = np.broadcast_to(np.eye(2), (agents, 2, 2, 2))
    mdps = frl.envs.TabularMDP(
        transition, REWARDS[:agents, :, :, None], np.full(agents, GAMMA), np.zeros(agents, int)
    )
    return frl.envs.tabular_task(mdps, max_steps=steps)


def row():
    return frl.envs.grid_world(
        ("S1G",),
        ("left", "right"),
        rewards={".": -0.5, "1": 0.7, "G": 2.0},
        terminal="G",
        discount=GAMMA,
        max_steps=3,
    )


def softmax(theta):
    weights = np.exp(theta - theta.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


class Runs:
    """All runs of an algorithm: M sequences of the episodes that it draws."""

    def __init__(self, chain, draws):
        self.chain, self.place, self.logs = chain, 0, 0.0
        places = np.indices((chain.size,) * draws).reshape(draws, -1)
        self.tapes = places

    @property
    def first(self):
        states = len(self.chain.leads)
        return np.zeros((self.tapes.shape[1], states, 2))

    def draw(self, theta, agent=0):
        tape = self.tapes[self.place]
        self.place += 1
        logs, *episode = self.chain.play(softmax(theta), tape, agent)
        self.logs = self.logs + logs
        return tape, agent, *episode

    def toss(self, coins):
        """Fair coins in place of an episode, bool [M] each."""
        tape = self.tapes[self.place]
        self.place, self.logs = self.place + 1, self.logs - np.log(self.chain.size)
        return [tape >> i & 1 for i in range(coins)]

    def log_likelihood(self, theta, episode):
        return self.chain.play(softmax(theta), *episode[:2])[0]

    def gradient(self, theta, episode, baseline=0.0):
        """The G(PO)MDP estimate of one episode, [M, S, U]."""
        _, _, visits, rewards, lives = episode
        policy, out, count = softmax(theta), np.zeros_like(theta), np.arange(len(theta))
        following, weights = np.zeros(len(theta)), []
        for reward in rewards[::-1]:
            following = reward + GAMMA * following
            weights.insert(0, following)
        for t, (state, action) in enumerate(visits):
            weight = np.where(lives[t], GAMMA**t * (weights[t] - baseline), 0.0)
            out[count, state] -= weight[:, None] * policy[count, state]
            out[count, state, action] += weight
        return out

    @property
    def chances(self):
        """The probability of every run, [M]."""
        assert self.place == len(self.tapes)
        chances = np.exp(self.logs)
        assert math.isclose(chances.sum(), 1)
        return chances


def objective(theta, agents=2):
    """J of the family, the mean over its agents, of whole discounted futures."""
    policy = softmax(theta)
    # An action's number is the state that it leads to: the policy is the kernel.
    inverse = np.linalg.inv(np.eye(2) - GAMMA * policy)[:, 0]
    pays = [np.sum(policy * REWARDS[i], axis=-1) for i in range(agents)]
    return np.mean([np.sum(inverse * own, axis=-1) for own in pays], axis=0)


def of_episodes(theta, agents):
    """The mean undiscounted return of an episode in the row."""
    total, policy = 0.0, softmax(theta)
    for number in range(ROW.size):
        logs, _, rewards, _ = ROW.play(policy, np.full(len(theta), number), 0)
        total = total + np.exp(logs) * rewards.sum(axis=0)
    return total


# Algorithms as loops --------------------------------------------------------------------------


def local(at, runs, agents, rounds=1, steps=1, corrects=False, server=None):
    """FedPG and what is made of it; the server moves along the mean change by default."""
    theta, control, memory = runs.first, 0.0, [0.0] * agents
    rate, proximal = at["learning_rate"], at.get("proximal", 0.0)
    server = server or (lambda change: at.get("server_learning_rate", 1.0) * change)
    for _ in range(rounds):
        changes, news = [], []
        for i in range(agents):
            own = theta
            for _ in range(steps):
                gradient = runs.gradient(own, runs.draw(own, i))
                own = own + rate * (gradient + control - memory[i] - proximal * (own - theta))
            changes.append(own - theta)
            news.append(memory[i] - control + (own - theta) / (rate * steps))
        if corrects:
            memory, control = news, np.mean(news, axis=0)
        theta = theta + server(np.mean(changes, axis=0))
    return theta


def momentum(at):
    velocity = [0.0]

    def server(change):
        velocity[0] = at["optimizer.momentum"] * velocity[0] + change
        return at["server_learning_rate"] * velocity[0]

    return server


def adam(at):
    kept = [0, 0.0, 0.0]

    def server(change):
        kept[:] = kept[0] + 1, 0.9 * kept[1] + 0.1 * change, 0.999 * kept[2] + 0.001 * change**2
        first, second = kept[1] / (1 - 0.9 ** kept[0]), kept[2] / (1 - 0.999 ** kept[0])
        return at["server_learning_rate"] * first / (np.sqrt(second) + 1e-8)

    return server


def fast(at, runs, agents, steps=2, reuse=False):
    theta = runs.first
    memory = [runs.gradient(theta, runs.draw(theta, i)) for i in range(agents)]
    changes = []
    for i in range(agents):
        own = theta
        for h in range(steps):
            gradient = memory[i] if reuse and h == 0 else runs.gradient(own, runs.draw(own, i))
            own = own + at["learning_rate"] * (gradient + np.mean(memory, axis=0) - memory[i])
        changes.append(own - theta)
    return theta + np.mean(changes, axis=0)


def svrpg(at, runs, agents, steps=2):
    theta, beta = runs.first, at["momentum"]
    u = np.mean([runs.gradient(theta, runs.draw(theta, i)) for i in range(agents)], axis=0)
    changes = []
    for i in range(agents):
        own = theta
        for _ in range(steps):
            episode = runs.draw(own, i)
            newest = runs.gradient(own, episode)
            ratio = runs.log_likelihood(theta, episode) - runs.log_likelihood(own, episode)
            old = np.exp(ratio)[:, None, None] * runs.gradient(theta, episode)
            own = own + at["learning_rate"] * (beta * newest + (1 - beta) * (u + newest - old))
        changes.append(own - theta)
    u = np.mean(changes, axis=0) / (at["learning_rate"] * steps)
    return theta + at["server_learning_rate"] * u


def hapg(share, at, runs, two=False):
    """One agent, two steps; the place on the way of the second one is a share of it."""
    theta, beta, way = runs.first, at["momentum"], 0.0
    u, own = runs.gradient(theta, runs.draw(theta)), theta
    for _ in range(2):
        way = own - theta
        here = own - (1 - share) * way
        first = runs.draw(own) if two else None
        episode = runs.draw(here)
        if two:
            newest = runs.gradient(own, first)
        else:
            ratio = runs.log_likelihood(own, episode) - runs.log_likelihood(here, episode)
            newest = np.exp(ratio)[:, None, None] * runs.gradient(own, episode)

        def weighted(x, here=here, episode=episode, way=way):
            ratio = runs.log_likelihood(here + x * way, episode)
            ratio = ratio - runs.log_likelihood(here, episode)
            return np.exp(ratio)[:, None, None] * runs.gradient(here + x * way, episode)

        change = (weighted(1e-4) - weighted(-1e-4)) / 2e-4
        own = own + at["learning_rate"] * (beta * newest + (1 - beta) * (u + change))
    u = (own - theta) / (at["learning_rate"] * 2)
    return theta + at["server_learning_rate"] * u


def ahead(at, runs, agents, rounds=2):
    """AFedPG whose steps wait for everybody."""
    theta = before = runs.first
    alpha, direction = min(1.0, agents * at["momentum"]), None
    for _ in range(rounds):
        point = theta + (1 - alpha) / alpha * (theta - before)
        each = [runs.gradient(point, runs.draw(point, i)) for i in range(agents)]
        mean = np.mean(each, axis=0)
        direction = mean if direction is None else (1 - alpha) * direction + alpha * mean
        length = np.sqrt(np.sum(direction**2, axis=(1, 2), keepdims=True))
        before = theta
        theta = theta + agents * at["learning_rate"] * direction / length
    return theta


def arriving(at, runs, agents, arrivals):
    """`a3c_pg` on a clock: who arrives in turn, each with a gradient of what it was handed."""
    theta, handed = runs.first, [runs.first] * agents
    for i in arrivals:
        theta = theta + at["learning_rate"] * runs.gradient(handed[i], runs.draw(handed[i], i))
        handed[i] = theta
    return theta


def some(at, runs, agents):
    """FedPG of two local steps, of which each agent's is heard with probability 1/2."""
    theta, changes = runs.first, []
    for i in range(agents):
        own = theta
        for _ in range(2):
            own = own + at["learning_rate"] * runs.gradient(own, runs.draw(own, i))
        changes.append(own - theta)
    who = runs.toss(agents)
    total = sum(heard[:, None, None] * change for heard, change in zip(who, changes, strict=True))
    return theta + total / np.maximum(sum(who), 1)[:, None, None]


def looked_at(at, runs, agents):
    """The product of the returns of two fresh episodes, one after each of two rounds."""
    theta, product = runs.first, 1.0
    for _ in range(2):
        theta = theta + at["learning_rate"] * runs.gradient(theta, runs.draw(theta))
        product = product * runs.draw(theta)[3].sum(axis=0)
    return product


def ascent(at, runs, agents):
    """The mean return in the second round of REINFORCE."""
    theta = runs.first
    first = [runs.gradient(theta, runs.draw(theta, i)) for i in range(agents)]
    theta = theta + at["learning_rate"] * np.mean(first, axis=0)
    return np.mean([runs.draw(theta, i)[3].sum(axis=0) for i in range(agents)], axis=0)


# Algorithms, and what they are compared with ------------------------------------------------------


class Case(NamedTuple):
    """An algorithm with the loop that it is.

    Attributes:
      make: `properties -> Algorithm`.
      loop: `(at, runs, agents) -> theta`, or several with weights.
      draws: episodes in all.
      at: the properties that are differentiated by.
      agents: N.
      rounds: T.
      chain: where.
      value: `(theta, agents) -> J`, the mean over the agents.
      outcome: what that is in the simulation.
    """

    make: Callable
    loop: Callable
    draws: int
    at: dict
    agents: int = 2
    rounds: int = 1
    chain: Chain = FAMILY
    value: Callable = objective
    outcome: str | Callable = "objective"


def of(function, **more):
    """An algorithm on the family."""
    return lambda **at: function(family(), derivative="score", **more, **at)


RATE = {"learning_rate": 0.3}
SERVER = {**RATE, "server_learning_rate": 1.3}
CASES = {
    "fedpg": Case(
        of(frl.fedpg, local_steps=2),
        functools.partial(local, steps=2),
        4,
        {**SERVER, "proximal": 0.4},
    ),
    "fedavgm": Case(
        of(frl.fedavgm_pg, local_steps=1),
        lambda at, *who: local(at, *who, rounds=2, server=momentum(at)),
        4,
        {**SERVER, "optimizer.momentum": 0.6},
        rounds=2,
    ),
    "fedadam": Case(
        of(frl.fedadam_pg, local_steps=1, **RATE),
        lambda at, *who: local(RATE, *who, rounds=2, server=adam(at)),
        4,
        {"server_learning_rate": 0.5},
        rounds=2,
    ),
    "scaffold": Case(
        of(frl.scaffold_pg, local_steps=2),
        functools.partial(local, rounds=2, steps=2, corrects=True),
        8,
        RATE,
        rounds=2,
    ),
    "fast": Case(of(frl.fast_fedpg, local_steps=2, memory_episodes=1), fast, 6, RATE),
    "fast, first again": Case(
        of(frl.fast_fedpg, local_steps=2, reuse_first=True),
        functools.partial(fast, reuse=True),
        4,
        RATE,
    ),
    "svrpg": Case(
        of(frl.fedsvrpg_m, local_steps=2, first_episodes=1), svrpg, 6, {**SERVER, "momentum": 0.4}
    ),
    "afedpg": Case(
        lambda **at: frl.afedpg(family(1), clock=None, derivative="score", **at),
        functools.partial(ahead, rounds=4),
        4,
        {**RATE, "momentum": 0.3},
        agents=1,
        rounds=4,
    ),
    "a3c on a clock": Case(
        of(frl.a3c_pg, clock=frl.Clock("asynchronous", compute_time=[1.0, 1.7])),
        functools.partial(arriving, arrivals=[0, 1, 0, 0]),
        4,
        RATE,
        rounds=4,
    ),
    "some are heard": Case(
        of(frl.fedpg, local_steps=2, uplink=frl.uplinks.partial(0.5)), some, 5, RATE
    ),
    "fresh episodes": Case(
        lambda **at: frl.fedpg(
            row(), derivative="score", local_steps=1, evaluation_episodes=2, **at
        ),
        functools.partial(local, rounds=2),
        2,
        RATE,
        agents=1,
        rounds=2,
        chain=ROW,
        value=of_episodes,
        outcome="return",
    ),
    "a function of fresh episodes": Case(
        lambda **at: frl.fedpg(
            row(), derivative="score", local_steps=1, evaluation_episodes=1, **at
        ),
        looked_at,
        4,
        RATE,
        agents=1,
        rounds=2,
        chain=ROW,
        value=lambda product, agents: product,
        outcome=lambda metrics: metrics["return"][0] * metrics["return"][1],
    ),
    "reinforce": Case(
        lambda **at: frl.reinforce(
            row(), derivative="score", baseline="none", episodes_per_round=1, **at
        ),
        ascent,
        4,
        RATE,
        rounds=2,
        chain=ROW,
        value=lambda returns, agents: returns,
        outcome="return",
    ),
}


def enumerated(case, at, chances=None):
    """The mean over all runs, or that of these probabilities, and the probabilities."""
    runs = Runs(case.chain, case.draws)
    values = case.value(case.loop(at, runs, case.agents), case.agents)
    chances = runs.chances if chances is None else chances
    return float(np.sum(chances * values)), chances


def slopes(case, name, step=1e-4):
    """The derivative of the mean, and that with all probabilities held fixed."""
    chances = enumerated(case, case.at)[1]
    ends = [{**case.at, name: case.at[name] + s} for s in (step, -step)]
    each = [[enumerated(case, at, held)[0] for at in ends] for held in (None, chances)]
    return [(up - down) / (2 * step) for up, down in each]


@pytest.mark.parametrize(
    "name", ["fedpg", *(pytest.param(n, marks=pytest.mark.thorough) for n in CASES if n != "fedpg")]
)
def test_scores_have_the_derivatives_of_the_mean_over_all_episodes(name):
    case = CASES[name]
    found = frl.differentiate(
        case.make(**case.at),
        case.outcome,
        list(case.at),
        num_agents=case.agents,
        num_steps=case.rounds,
        seeds=range(16_000),
    )
    mean = enumerated(case, case.at)[0]
    assert abs(found.value - mean) < 4 * found.error
    told = False
    for name in case.at:
        right, held = slopes(case, name)
        error = float(found.errors[name])
        assert abs(found.derivatives[name] - right) < 4 * error, name
        # Returns of episodes are data: with those held fixed nothing of them changes.
        told |= abs(right - (held if case.outcome == "objective" else 0)) > 6 * error
    # Tight enough to tell: without the scores something is another number. Steps of Adam are of one
    # length whatever is drawn.
    assert told or case is CASES["fedadam"]


@pytest.mark.thorough
@pytest.mark.parametrize("two", [False, True])
def test_episodes_on_the_way_of_hapg_count_too(two):
    """What is drawn on the way is a mean over places there; Gauss and Legendre take it."""
    at = {"learning_rate": 0.3, "server_learning_rate": 1.3, "momentum": 0.4}
    own = frl.fedhapg_m(
        family(1),
        derivative="score",
        local_steps=2,
        first_episodes=1,
        two_trajectories=two,
        **at,
    )
    found = frl.differentiate(
        own, "objective", list(at), num_agents=1, num_steps=1, seeds=range(16_000)
    )
    nodes, weights = np.polynomial.legendre.leggauss(6)

    def mean(at):
        each = []
        for node in nodes:
            runs = Runs(FAMILY, 5 if two else 3)
            values = objective(hapg((node + 1) / 2, at, runs, two), 1)
            each.append(np.sum(runs.chances * values))
        return weights @ each / 2

    assert abs(found.value - mean(at)) < 4 * found.error
    for name in at:
        ends = [mean({**at, name: at[name] + s}) for s in (1e-4, -1e-4)]
        right = (ends[0] - ends[1]) / 2e-4
        assert abs(found.derivatives[name] - right) < 4 * found.errors[name], name


@pytest.mark.thorough
def test_second_derivatives_are_those_of_the_mean_over_all_episodes():
    case = CASES["fedpg"]._replace(
        agents=1, rounds=2, loop=functools.partial(local, steps=2, rounds=2)
    )
    found = frl.differentiate(
        frl.fedpg(family(1), derivative="score", local_steps=2, **case.at),
        "objective",
        ["learning_rate"],
        num_agents=1,
        num_steps=2,
        seeds=range(100_000),
        second=True,
    )
    mean = lambda rate: enumerated(case, {**case.at, "learning_rate": rate})[0]
    right = (mean(0.301) - 2 * mean(0.3) + mean(0.299)) / 1e-6
    second, error = (
        float(x["learning_rate"]["learning_rate"]) for x in (found.second, found.second_errors)
    )
    assert abs(second - right) < 4 * error
    assert error < 0.1 * abs(right)


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore:derivative is 'pathwise'")
def test_of_continuous_actions_scores_are_what_paths_are():
    """Where actions, and all that follows, move smoothly with the policy, a path has no bias."""
    own = frl.fedpg(
        frl.envs.lqr(max_steps=3),
        network={"hidden": ()},
        local_steps=1,
        episodes_per_step=4,
        evaluation_episodes=1,
        learning_rate=0.05,
    )
    sizes = {"num_agents": 2, "num_steps": 2, "mode": "forward", "seeds": range(40_000)}
    score, path = (
        frl.differentiate(own.replace(derivative=way), "return", **sizes)
        for way in ("score", "pathwise")
    )
    np.testing.assert_allclose(score.value, path.value, rtol=1e-5)
    one, other = (x.derivatives["learning_rate"] for x in (score, path))
    error = np.hypot(score.errors["learning_rate"], path.errors["learning_rate"])
    assert abs(one - other) < 4 * error
    assert error < 0.2 * abs(other)


# Name -> properties, an outcome that is computed of data, and a rate.
GIVEN_DATA = {
    "fedppo": ({"rollout_steps": 8, "minibatches": 2}, "entropy", 0.02),
    "feda2c": ({"rollout_steps": 4, "sync_period": 1}, "entropy", 0.02),
    "a3c": ({"rollout_steps": 4}, "entropy", 0.01),
    "feddqn": (
        {"buffer_size": 8, "batch_size": 2, "learning_starts": 2, "sync_period": 2},
        "mean_q",
        0.003,
    ),
}


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore:derivative is 'pathwise'")
@pytest.mark.parametrize("name", GIVEN_DATA)
def test_derivatives_through_updates_are_exact_given_the_data(name):
    properties, outcome, rate = GIVEN_DATA[name]
    own = getattr(frl, name)(
        frl.envs.simple_grid(max_steps=6),
        num_envs=2,
        network={"hidden": (4,)},
        evaluation_episodes=1,
        derivative="pathwise",
        learning_rate=rate,
        **properties,
    )
    sizes = {"num_agents": 2, "num_steps": 4}
    found = frl.differentiate(own, outcome, **sizes, seeds=range(4))

    @jax.jit
    def at(rate):
        each = own.replace(derivative=None, learning_rate=rate)
        return jax.vmap(lambda seed: frl.simulate(each, **sizes, seed=seed).metrics)(jnp.arange(4))

    step = 0.03 * rate
    up, down = at(rate + step), at(rate - step)
    # So small a step changes no action: the data of both are the same.
    for data in ("episode_return", "return"):
        np.testing.assert_array_equal(up[data], down[data])
    right = (np.asarray(up[outcome]) - np.asarray(down[outcome]))[:, -1] / (2 * step)
    close = 0.01 * np.abs(right).max()
    np.testing.assert_allclose(found.each["learning_rate"], right, rtol=0.02, atol=close)
    with pytest.warns(UserWarning, match="by learning_rate is exactly 0 for every seed"):
        nothing = frl.differentiate(own, "return", **sizes, seeds=range(2))
    assert nothing.derivatives["learning_rate"] == 0
