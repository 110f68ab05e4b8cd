"""Federated policy gradients with local steps on tables, written in NumPy.

A run takes the properties of the package's algorithms and does what they do, for all agents of
one or of several federations at once. Only where its episodes come from is open: from a generator
of its own where it is timed, from the package's keys where it is compared with the package.

Axis letters: F federations, A agents of all of them, n episodes under way, T steps of an episode,
S states, U actions, q = S U parameters.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from fedjax_rl import envs

SIZES = (1, 2, 4, 8, 16, 32, 64)  # N
LOCAL_STEPS = (1, 5, 10)  # H
EPISODES = 4  # B, for one gradient
HORIZON = 25  # T
ENTROPY = 0.3
MDPS = envs.dirichlet_mdps(64, rewards=1.0, kernels=0.5)
DISCOUNT = float(MDPS.discount[0])
S, U = MDPS.num_states, MDPS.num_actions

# Episodes under way from which on a comparison per entry of a row beats a search in it.
_FEW = 128


class Workload(NamedTuple):
    """So many rounds of every federation of a grid.

    Attributes:
      rounds: R.
      seeds: of each N and H.
    """

    rounds: int
    seeds: int


def trajectories(algorithm, workload: Workload) -> int:
    """Episodes of all agents of the grid, those for the first momentum included."""
    out = 0
    for local_steps in LOCAL_STEPS:
        config = algorithm.replace(local_steps=local_steps).config.resolved()
        each = local_steps * config.episodes_per_step + getattr(config, "memory_episodes", 0)
        out += workload.rounds * each + getattr(config, "first_episodes", 0)
    return workload.seeds * sum(SIZES) * out


# --- tables --------------------------------------------------------------------------------------


class Tables:
    """The agents of some federations, side by side, and their MDPs.

    Attributes:
      sizes: N of each federation.
      agents: A.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        """Lays out the first N members of the family for every federation."""
        self.sizes = np.asarray(sizes)
        self.agents = int(self.sizes.sum())
        self.first = np.cumsum(self.sizes) - self.sizes
        self.of = np.repeat(np.arange(len(sizes)), self.sizes)
        self.member = np.arange(self.agents) - self.first[self.of]
        self.kernel = MDPS.transition[self.member]
        self.rewards = MDPS.reward[self.member].reshape(-1)
        below = np.cumsum(self.kernel, -1)[..., :-1].reshape(-1, S - 1)
        self.bounds = np.ascontiguousarray(below.T)
        self.factors = DISCOUNT ** np.arange(HORIZON)[:, None]

    def mean(self, x):
        """Over the members of each federation, [A, q] -> [F, q]."""
        return np.add.reduceat(x, self.first, axis=0) / self.sizes[:, None]

    def spread(self, x):
        """[F, q] -> [A, q]."""
        return x.take(self.of, 0)

    def policy(self, theta):
        """Logarithms of the chances of the actions and the chances, both [A, S, U]."""
        logits = theta.reshape(-1, S, U)
        logits = logits - logits.max(-1, keepdims=True)
        chances = np.exp(logits)
        total = chances.sum(-1, keepdims=True)
        return logits - np.log(total), chances / total

    def play(self, theta, count: int, generator):
        """Episodes of every agent, [T, n]: at each step (agent S + state) U + action."""
        copies = self.agents * count
        row = np.repeat(np.arange(self.agents) * S, count)
        row += generator.integers(S, size=copies)
        chances = self.policy(theta)[1]
        out = np.empty((HORIZON, copies), np.int64)
        if copies < _FEW:
            base = row // S * S
            joint = (chances[..., None] * self.kernel).reshape(-1, U * S).cumsum(-1)
            joint[:, -1] = 1
            joint += np.arange(len(joint))[:, None]
            joint, levels = joint.ravel(), generator.random((HORIZON, copies), np.float32)
            for step, level in zip(out, levels, strict=True):
                found = joint.searchsorted(row + level, "right")
                step[:] = found // S
                row = base + found % S
            return out
        base = row // S * S
        below = np.ascontiguousarray(chances.cumsum(-1)[..., :-1].reshape(-1, U - 1).T)
        levels = generator.random((HORIZON, 2, copies))
        for step, (choice, arrival) in zip(out, levels, strict=True):
            np.multiply(row, U, out=step)
            step += (choice >= below.take(row, 1)).sum(0)
            row = base + (arrival >= self.bounds.take(step, 1)).sum(0)
        return out

    def objective(self, theta) -> np.ndarray:
        """The mean objective of each federation, exact, [F]."""
        logs, chances = self.policy(self.spread(theta))
        rewards = self.rewards.reshape(-1, S, U) - ENTROPY * logs
        chain = np.einsum("asu,asut->ast", chances, self.kernel)
        values = np.linalg.solve(
            np.eye(S) - DISCOUNT * chain, (chances * rewards).sum(-1, keepdims=True)
        )
        return self.mean(values.mean(1))[:, 0]

    # Estimates, all [A, q].

    def gradient(self, theta, place, weight=None):
        """The estimate of the gradient from episodes, each of which may have a weight [n]."""
        logs, chances = self.policy(theta)
        worth = self._worth(place, logs)
        taken = self._taken(place, worth if weight is None else worth * weight)
        return (taken - chances * taken.sum(-1, keepdims=True)).reshape(-1, S * U)

    def weights(self, target, behaviour, place):
        """How much likelier every episode is under the target, [n]."""
        ratios = self.policy(target)[0] - self.policy(behaviour)[0]
        return np.exp(np.clip(ratios.ravel().take(place).sum(0), -20, 20))

    def hessian_vector(self, theta, way, place):
        """The estimated product of the Hessian with a direction."""
        logs, chances = self.policy(theta)
        way = way.reshape(-1, S, U)
        slopes = way - (chances * way).sum(-1, keepdims=True)
        slope, worth = slopes.ravel().take(place), self._worth(place, logs)
        change = worth * slope.sum(0) - ENTROPY * self._to_go(slope)
        taken, moved = self._taken(place, worth), self._taken(place, change)
        visits = moved.sum(-1, keepdims=True) + slopes * taken.sum(-1, keepdims=True)
        return (moved - chances * visits).reshape(-1, S * U)

    def _to_go(self, rewards):
        """discount^t times the return from t on."""
        return (rewards * self.factors)[::-1].cumsum(0)[::-1]

    def _worth(self, place, logs):
        return self._to_go((self.rewards - ENTROPY * logs.ravel()).take(place))

    def _taken(self, place, worth):
        """What the visits of every state and action weigh, per episode, [A, S, U]."""
        size = self.agents * S * U
        total = np.bincount(place.ravel(), worth.ravel(), size)
        return total.reshape(-1, S, U) * (self.agents / place.shape[1])


# --- federations ---------------------------------------------------------------------------------


class Drawn:
    """Episodes from a generator."""

    def __init__(self, tables: Tables, seed) -> None:
        """Seeds the generator."""
        self.tables = tables
        self.generator = np.random.Generator(np.random.SFC64(seed))

    def episodes(self, theta, count: int, stream: str, round_: int, place: int):
        """As `Tables.play`; which gradient they are for does not matter here."""
        del stream, round_, place
        return self.tables.play(theta, count, self.generator)

    def shares(self, round_: int, place: int):
        """Uniform in [0, 1), [A]."""
        del round_, place
        return self.generator.random(self.tables.agents)


class Server:
    """What the servers know; leaves [F, q], of which the agents of FedPG keep control variates."""

    def __init__(self, tables: Tables) -> None:
        """All zeros."""
        self.theta = np.zeros((len(tables.sizes), S * U))
        self.previous, self.direction = self.theta, np.zeros_like(self.theta)
        self.correction, self.speed = np.zeros_like(self.theta), np.zeros_like(self.theta)
        self.square, self.memory = np.zeros_like(self.theta), np.zeros((tables.agents, S * U))


def run(name: str, config, tables: Tables, rounds: int, source) -> np.ndarray:
    """The servers' parameters [F, q] after so many rounds of an algorithm.

    Args:
      name: of the algorithm, as the package has it.
      config: its properties, as the package has them once defaults are filled in.
      tables: the federations.
      rounds: R.
      source: of episodes, as `Drawn`.
    """
    server = Server(tables)
    if name in _MOMENTUM:
        start = tables.spread(server.theta)
        place = source.episodes(start, config.first_episodes, "first", 0, 0)
        server.direction = tables.mean(tables.gradient(start, place))
    for round_ in range(rounds):
        _ROUNDS[name](config, tables, server, source, round_)
    return server.theta


def _local_steps(config, tables, theta, direction: Callable):
    """The change of every agent in its H steps, [A, q]."""
    now = theta
    for place in range(config.local_steps):
        now = now + config.learning_rate * direction(now, place)
    return now - theta


def _fedpg(config, tables, server, source, round_):
    theta, memory = tables.spread(server.theta), server.memory
    controlled = config.correction == "scaffold"
    control = tables.spread(server.correction) - memory if controlled else 0

    def direction(now, place):
        episodes = source.episodes(now, config.episodes_per_step, "step", round_, place)
        pull = config.proximal * (now - theta) if config.proximal else 0
        return tables.gradient(now, episodes) + control - pull

    change = _local_steps(config, tables, theta, direction)
    if controlled:
        steps = config.learning_rate * config.local_steps
        server.memory = change / steps - control
        server.correction = server.correction + tables.mean(server.memory - memory)
    move = tables.mean(change)
    if config.optimizer.name == "momentum":
        move = server.speed = config.optimizer.momentum * server.speed + move
    if config.optimizer.name == "adam":
        server.speed = 0.9 * server.speed + 0.1 * move
        server.square = 0.999 * server.square + 0.001 * move**2
        centre = np.sqrt(server.square / (1 - 0.999 ** (round_ + 1)))
        move = server.speed / (1 - 0.9 ** (round_ + 1)) / (centre + 1e-8)
    server.theta = server.theta + config.server_learning_rate * move


def _fast_fedpg(config, tables, server, source, round_):
    theta = tables.spread(server.theta)
    episodes = source.episodes(theta, config.memory_episodes, "memory", round_, 0)
    own = tables.gradient(theta, episodes)
    control = tables.spread(tables.mean(own)) - own

    def direction(now, place):
        episodes = source.episodes(now, config.episodes_per_step, "step", round_, place)
        return tables.gradient(now, episodes) + control

    change = _local_steps(config, tables, theta, direction)
    server.theta = server.theta + config.server_learning_rate * tables.mean(change)


def _momentum(change_of: Callable) -> Callable:
    """A round of the two with momentum.

    Args:
      change_of: `(config, tables, source, now, before, round_, place) -> (g, change of g)`.
    """

    def round_of(config, tables, server, source, round_):
        theta, before = tables.spread(server.theta), tables.spread(server.previous)
        speed, beta = tables.spread(server.direction), config.momentum

        def direction(now, place):
            newest, change = change_of(config, tables, source, now, before, round_, place)
            return beta * newest + (1 - beta) * (speed + change)

        change = tables.mean(_local_steps(config, tables, theta, direction))
        server.previous = server.theta
        server.direction = change / (config.learning_rate * config.local_steps)
        server.theta = server.theta + config.server_learning_rate * server.direction

    return round_of


def _weighted(config, tables, source, now, before, round_, place):
    episodes = source.episodes(now, config.episodes_per_step, "step", round_, place)
    newest = tables.gradient(now, episodes)
    weight = tables.weights(before, now, episodes)
    return newest, newest - tables.gradient(before, episodes, weight)


def _hessian(config, tables, source, now, before, round_, place):
    way = now - before
    at = now - (1 - source.shares(round_, place))[:, None] * way
    episodes = source.episodes(at, config.episodes_per_step, "step", round_, place)
    newest = tables.gradient(now, episodes, tables.weights(now, at, episodes))
    return newest, tables.hessian_vector(at, way, episodes)


_MOMENTUM = ("fedsvrpg-m", "fedhapg-m")
_ROUNDS: dict[str, Callable] = {
    **dict.fromkeys(("fedpg", "scaffold-pg", "fedprox-pg", "fedavgm-pg", "fedadam-pg"), _fedpg),
    "fast-fedpg": _fast_fedpg,
    "fedsvrpg-m": _momentum(_weighted),
    "fedhapg-m": _momentum(_hessian),
}


# --- rows ----------------------------------------------------------------------------------------


def numpy_loop(algorithm, workload: Workload, joined: bool) -> dict[tuple[int, int], np.ndarray]:
    """The objective of every seed at the end, by (N, H).

    Args:
      algorithm: of the package.
      workload: what to run.
      joined: all federations of one H side by side in every array, instead of one after the other.
    """
    out: dict = {}
    grid = list(itertools.product(SIZES, range(workload.seeds)))
    for local_steps in LOCAL_STEPS:
        config = algorithm.replace(local_steps=local_steps).config.resolved()
        for part in [grid] if joined else [[cell] for cell in grid]:
            tables = Tables([size for size, _ in part])
            source = Drawn(tables, (local_steps, part[0][0], part[0][1]))
            theta = run(algorithm.name, config, tables, workload.rounds, source)
            for (size, _), value in zip(part, tables.objective(theta), strict=True):
                out.setdefault((size, local_steps), []).append(value)
    return {cell: np.asarray(values) for cell, values in out.items()}


class Agreement(NamedTuple):
    """The mean objective of the federations of one size, as two rows have learned it.

    Attributes:
      what: N and H.
      expected: in the row compared with.
      found: in the other one.
      standard_errors: of the difference, how many it is.
    """

    what: str
    expected: float
    found: float
    standard_errors: float

    @property
    def holds(self) -> bool:
        """Within 6 standard errors: 168 comparisons are made, from samples of 8."""
        return abs(self.standard_errors) <= 6


def agreements(expected: dict, found: dict) -> list[Agreement]:
    """Compares what two rows return, at least two seeds of each N and H."""
    out = []
    for (size, local_steps), one in expected.items():
        other = found[size, local_steps]
        error = np.sqrt(np.var(one, ddof=1) / len(one) + np.var(other, ddof=1) / len(other))
        apart = (other.mean() - one.mean()) / error if np.isfinite(other).all() else np.inf
        what = f"N={size} H={local_steps}"
        out.append(Agreement(what, float(one.mean()), float(other.mean()), float(apart)))
    return out


def show(content: dict) -> None:
    """Prints rates by algorithm and, below, what is compared with each other and the limits."""
    console = Console()
    for name in ("rows", "federations", "estimates"):
        rows = content[name]
        lead, *others = rows
        table = Table(title=f"{content['case']}, {rows[0]['unit']}, on {content['device']}")
        table.add_column("case")
        for row in rows:
            table.add_column(row["name"], justify="right")
        for case in lead["cases"]:
            rates = [f"{row['cases'][case]['median']:.3g}" for row in rows]
            ratios = [lead["cases"][case]["ratio"][row["name"]] for row in others]
            both = zip(rates[1:], ratios, strict=True)
            table.add_row(case, rates[0], *(f"{rate} ({ratio:.2f})" for rate, ratio in both))
        table.add_section()
        table.add_row("compile seconds", *(f"{row['compile_seconds']:.1f}" for row in rows))
        console.print(table)
        console.print(f"in brackets how many times that of the row {lead['name']} is")
    for target in content["targets"]:
        verdict = "met" if target["met"] else "NOT met"
        found, limit = target["measured"], target["limit"]
        console.print(f"{target['id']}: costs {found:.3f} times, limit {limit}: {verdict}")
