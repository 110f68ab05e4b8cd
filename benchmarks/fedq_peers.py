"""Federated Q-learning five times: fedjax_rl, its bare kernel, and what one writes instead.

Every row is a function `(case) -> Program`. They learn the same MDP with the same step sizes,
periods and behaviour, in float32, on random numbers of their own (the kernel on those of
fedjax_rl); `agreements` compares what they learned.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl import streams
from fedjax_rl.algorithms.fedq import fedq
from fedjax_rl.envs import paper_mdp, solvers
from fedjax_rl.federation.algorithm import bind
from fedjax_rl.federation.population import Population
from fedjax_rl.learners import behaviours, q_learning, tabular_steps
from fedjax_rl.sweeps.compiling import compiler_options

MDP = paper_mdp()
S, U = MDP.num_states, MDP.num_actions
REWARD = np.asarray(MDP.reward, np.float32).reshape(S)  # of the state arrived in
DISCOUNT = float(MDP.discount)
OPTIMAL = solvers.optimal_q(MDP).reshape(S * U)
CUMULATIVE = np.cumsum(MDP.transition, -1)[..., :-1].reshape(S * U, S - 1)


@dataclasses.dataclass(frozen=True)
class Pack:
    """Federations that share K: groups (number of federations, N), and a learning rate of each."""

    groups: tuple[tuple[int, int], ...]
    period: int
    learning_rates: tuple[float, ...]

    @property
    def population(self) -> Population:
        """Its federations on one agent axis."""
        return Population(self.groups)

    @property
    def agent_rates(self) -> np.ndarray:
        """Learning rate of every agent, float32 [A]."""
        return np.asarray(self.learning_rates, np.float32)[self.population.federation_of]

    def slices(self):
        """(start, end, federations, agents) of each group on the agent axis."""
        at = 0
        for federations, agents in self.groups:
            yield at, at + federations * agents, federations, agents
            at += federations * agents


@dataclasses.dataclass(frozen=True)
class Case:
    """What is measured: packs run one after the other, uniform actions with probability epsilon.

    `epsilon` 1 is uniform behaviour, less is softmax of the row otherwise.
    """

    name: str
    packs: tuple[Pack, ...]
    epsilon: float

    @property
    def num_agents(self) -> int:
        """Of all packs together."""
        return sum(pack.population.num_agents for pack in self.packs)


def _one(name, federations, agents, period, epsilon) -> Case:
    pack = Pack(((federations, agents),), period, (0.05,) * federations)
    return Case(name, (pack,), epsilon)


def _sweep() -> Case:
    sizes, periods, rates, seeds = (1, 4, 16, 64), (1, 10, 100, 1000), (0.02, 0.05, 0.1), 16
    groups = tuple((len(rates) * seeds, n) for n in sizes)
    each = rates * seeds * len(sizes)
    return Case("mixed sweep", tuple(Pack(groups, k, each) for k in periods), 1.0)


CASES = (
    _one("N=1", 4096, 1, 1000, 1.0),
    _one("N=16 K=1", 256, 16, 1, 1.0),
    _one("N=256 K=100", 16, 256, 100, 1.0),
    _one("N=256 K=100 softmax", 16, 256, 100, 0.1),
    _sweep(),
)


class Program(NamedTuple):
    """A peer made ready for a case.

    Attributes:
      run: `num_steps -> result`, so many steps of every agent of the case from the start.
      tables: `result -> list` with the tables of each pack, [A, S*U] on the host.
      compile_seconds: wall time it took to get ready.
    """

    run: Callable
    tables: Callable
    compile_seconds: float


# Steps of one call, by row: rates are per agent-step, so the slow ones run fewer.
STEPS = {"fedjax_rl": 20_000, "kernel": 20_000, "numba": 10_000, "numpy": 2_000, "naive_jax": 2_000}
CHECK_STEPS = 2_000


def steps(row: str, case: Case, scale: float) -> int:
    """Steps of a call: those of the row times `scale`, in whole rounds of every pack."""
    whole = max(pack.period for pack in case.packs)
    return max(1, round(STEPS[row] * scale / whole)) * whole


class Agreement(NamedTuple):
    """The mean D^2 of one group of federations, learned by two rows.

    Attributes:
      what: the group.
      expected: its mean over the federations in the row compared with.
      found: in the other one.
      standard_errors: of the difference, how many it is.
    """

    what: str
    expected: float
    found: float
    standard_errors: float

    @property
    def holds(self) -> bool:
        """Within 5 standard errors: 80 comparisons are made, from samples of 16 up."""
        return abs(self.standard_errors) <= 5


def agreements(case: Case, expected: list, found: list) -> list[Agreement]:
    """Compares the mean D^2 of two rows, by N and K, after an exchange: agents equal the server.

    Args:
      case: what was run, by both for the same number of steps.
      expected: tables of each pack, [A, S*U].
      found: of the other row.
    """

    def errors(tables, start, end, federations, agents):
        own = np.asarray(tables[start:end], np.float64).reshape(federations, agents, S * U)
        return np.sum((own - OPTIMAL) ** 2, -1).mean(1)

    def variance(values, rates):
        """Of the values among federations of one learning rate."""
        kinds = np.unique(rates)
        rest = [values[rates == kind] - values[rates == kind].mean() for kind in kinds]
        return np.sum(np.concatenate(rest) ** 2) / (len(values) - len(kinds))

    out = []
    for pack, one, other in zip(case.packs, expected, found, strict=True):
        first = 0
        for group in pack.slices():
            rates = np.asarray(pack.learning_rates[first : first + group[2]])
            first += group[2]
            a, b = errors(one, *group), errors(other, *group)
            error = np.sqrt((variance(a, rates) + variance(b, rates)) / len(a))
            apart = (b.mean() - a.mean()) / error if np.isfinite(b).all() else np.inf
            what = f"N={group[3]} K={pack.period}"
            out.append(Agreement(what, float(a.mean()), float(b.mean()), float(apart)))
    return out


# --- fedjax_rl -----------------------------------------------------------------------------------


def _bound(case: Case, pack: Pack):
    """Algorithm, population, parameters and keys of a pack, as a sweep makes them."""
    population = pack.population
    algorithm = fedq(MDP, epsilon=case.epsilon)
    each = []
    for size, rate in zip(population.sizes, pack.learning_rates, strict=True):
        variant = algorithm.replace(learning_rate=rate)
        each.append(variant.parameters(variant.config, int(size)))
    params = bind(each)
    params.shared["sync_period"] = jnp.uint32(pack.period)
    keys = streams.agent_keys(population.federation_of, population.member_of)
    return algorithm, population, params, keys


def _timed_compile(function, *arguments, options=None):
    start = time.perf_counter()
    program = jax.jit(function).lower(*arguments).compile(compiler_options=options)
    return program, time.perf_counter() - start


def _centred(tables, params) -> np.ndarray:
    """Tables of the package hold q - c; as [A, S*U] of q."""
    return np.stack([np.asarray(x) for x in tables], -1) + np.asarray(params.shared["offset"])


def engine(case: Case) -> Program:
    """The package as a sweep runs it: local steps, exchange, ledger, one program for every K."""
    seconds, program, ready = 0.0, None, []
    for pack in case.packs:
        algorithm, population, params, keys = _bound(case, pack)
        functions = algorithm.functions(algorithm.config)
        state = functions.init(population, params, keys)
        if program is None:
            program, seconds = _timed_compile(
                lambda p, s, n, f=functions, of=population: f.advance(of, p, s, n),
                params,
                state,
                jnp.uint32(1),
                options=compiler_options(),
            )
        ready.append((params, state))

    def run(num_steps):
        num_steps = jnp.uint32(num_steps)
        return [program(params, state, num_steps) for params, state in ready]

    def tables(states):
        return [
            _centred(state.agents.table, params)
            for (params, _), state in zip(ready, states, strict=True)
        ]

    return Program(run, tables, seconds)


def kernel(case: Case) -> Program:
    """The learner's kernel alone, vmapped, and a mean by reshape: what the engine adds to."""
    epsilon_one = case.epsilon == 1.0
    shape = tabular_steps.Shape(S, U, tuple(MDP.reward.shape))
    behaviour = (behaviours.uniform_behaviour if epsilon_one else behaviours.softmax_behaviour)(
        shape
    )

    def local(key, agent, own, shared, now, num_steps):
        return q_learning.learn(
            key,
            agent,
            {**shared, **own},
            now,
            num_steps,
            shape=shape,
            behaviour=behaviour,
            step_size=lambda params, visits: params["learning_rate"],
        )

    def make(pack):
        def average(x):
            parts = []
            for start, end, federations, agents in pack.slices():
                part = x[start:end]
                if agents > 1:
                    mean = part.reshape(federations, agents).mean(1, keepdims=True)
                    part = jnp.broadcast_to(mean, (federations, agents)).reshape(-1)
                parts.append(part)
            return parts[0] if len(parts) == 1 else jnp.concatenate(parts)

        work = jax.vmap(local, in_axes=(0, 0, 0, None, None, None))

        def program(keys, agents, own, shared, period, num_steps):
            def round_(i, agents):
                agents = work(keys, agents, own, shared, i * period, period)
                return agents._replace(table=jax.tree.map(average, agents.table))

            return jax.lax.fori_loop(jnp.uint32(0), num_steps // period, round_, agents)

        return program

    seconds, program, ready = 0.0, None, []
    for pack in case.packs:
        algorithm, population, params, keys = _bound(case, pack)
        start = algorithm.functions(algorithm.config).init(population, params, keys).agents
        arguments = (keys, start, params.agent, params.shared, jnp.uint32(pack.period))
        if program is None:
            program, seconds = _timed_compile(
                make(pack), *arguments, jnp.uint32(1), options=compiler_options()
            )
        ready.append((arguments, params))

    def run(num_steps):
        num_steps = jnp.uint32(num_steps)
        return [program(*arguments, num_steps) for arguments, _ in ready]

    def tables(agents):
        return [_centred(a.table, params) for a, (_, params) in zip(agents, ready, strict=True)]

    return Program(run, tables, seconds)


# --- what one writes first in JAX ----------------------------------------------------------------


def naive_jax(case: Case) -> Program:
    """A scan over steps, vmapped over agents and federations, that reads like the pseudo-code."""
    logits = jnp.log(jnp.asarray(MDP.transition, jnp.float32))
    reward = jnp.asarray(REWARD)

    def step(carry, _, learning_rate):
        key, q, s = carry
        key, key_a, key_s = jax.random.split(key, 3)
        if case.epsilon == 1.0:
            a = jax.random.randint(key_a, (), 0, U)
        else:
            policy = case.epsilon / U + (1 - case.epsilon) * jax.nn.softmax(q[s])
            a = jax.random.categorical(key_a, jnp.log(policy))
        s_next = jax.random.categorical(key_s, logits[s, a])
        target = reward[s_next] + DISCOUNT * q[s_next].max()
        q = q.at[s, a].set(q[s, a] + learning_rate * (target - q[s, a]))
        return (key, q, s_next), None

    def federation(key, learning_rate, num_rounds, num_agents, period):
        def agent(carry):
            body = functools.partial(step, learning_rate=learning_rate)
            return jax.lax.scan(body, carry, length=period)[0]

        def round_(_, carry):
            keys, q, s = jax.vmap(agent)(carry)
            q = jnp.broadcast_to(q.mean(0), q.shape)
            return keys, q, s

        keys = jax.random.split(key, num_agents)
        carry = keys, jnp.zeros((num_agents, S, U)), jnp.zeros(num_agents, jnp.int32)
        return jax.lax.fori_loop(0, num_rounds, round_, carry)[1]

    def inputs(pack):
        """For each group: its federations' keys and learning rates, and N."""
        first = 0
        for federations, agents in pack.groups:
            rates = pack.learning_rates[first : first + federations]
            first += federations
            # The root only has to differ from the seeds of the other rows and groups.
            key = jax.random.fold_in(jax.random.key(1_000_003 * agents), pack.period)
            keys = jax.random.split(key, federations)
            yield keys, jnp.asarray(rates, jnp.float32), agents

    ready, total = [], 0.0
    for pack in case.packs:
        for keys, rates, agents in inputs(pack):
            one = functools.partial(federation, num_agents=agents, period=pack.period)
            many = jax.vmap(one, in_axes=(0, 0, None))
            program, seconds = _timed_compile(many, keys, rates, jnp.int32(1))
            total += seconds
            ready.append((functools.partial(program, keys, rates), pack))

    def run(num_steps):
        return [program(jnp.int32(num_steps // pack.period)) for program, pack in ready]

    def tables(results):
        return [
            np.concatenate(
                [
                    np.asarray(q).reshape(-1, S * U)
                    for q, (_, of) in zip(results, ready, strict=True)
                    if of is pack
                ]
            )
            for pack in case.packs
        ]

    return Program(run, tables, total)


# --- NumPy ---------------------------------------------------------------------------------------


def numpy_loop(case: Case) -> Program:
    """A Python loop over steps; each is array code over all agents of a pack."""
    bounds = [np.ascontiguousarray(column, np.float32) for column in CUMULATIVE.T]
    discount, epsilon = np.float32(DISCOUNT), np.float32(case.epsilon)
    block = 64  # steps whose random numbers are drawn in one call

    def choose(q, row, level):
        if case.epsilon == 1.0:
            return (level * np.float32(U)).astype(np.int32)
        values = [q.take(row + b) for b in range(U)]
        top = functools.reduce(np.maximum, values)
        weights = [np.exp(value - top) for value in values]
        total = sum(weights[1:], weights[0])
        level = level * total
        explore = total * (epsilon / np.float32(U))
        bound, action = 0, np.zeros(len(row), np.int32)
        for weight in weights[:-1]:
            bound = bound + (explore + (1 - epsilon) * weight)
            action += level >= bound
        return action

    def learn(pack, generator, num_steps):
        agents = pack.population.num_agents
        rate = pack.agent_rates
        q = np.zeros(agents * S * U, np.float32)
        base = np.arange(agents, dtype=np.int32) * (S * U)
        s = np.zeros(agents, np.int32)
        for t in range(num_steps):
            if t % block == 0:
                words = generator.random((block, 2, agents), np.float32)
            level, other = words[t % block]
            sa = s * U + choose(q, base + s * U, level)
            s = sum((other >= bound.take(sa)).view(np.int8) for bound in bounds).astype(np.int32)
            row = base + s * U
            best = functools.reduce(np.maximum, (q.take(row + b) for b in range(U)))
            at = base + sa
            old = q.take(at)
            q[at] = old + rate * (REWARD.take(s) + discount * best - old)
            if (t + 1) % pack.period == 0:
                for start, end, federations, members in pack.slices():
                    if members > 1:
                        part = q[start * S * U : end * S * U].reshape(federations, members, S * U)
                        part[:] = part.mean(1, keepdims=True)
        return q.reshape(agents, S * U)

    def run(num_steps):
        generator = np.random.Generator(np.random.SFC64(7))
        return [learn(pack, generator, num_steps) for pack in case.packs]

    return Program(run, list, 0.0)


def _numba_loop(case: Case) -> Program:
    """The row of numba, which is imported where it is asked for."""
    from fedq_numba import numba_loop

    return numba_loop(case)


ROWS: dict[str, Callable[[Case], Program]] = {
    "fedjax_rl": engine,
    "kernel": kernel,
    "numba": _numba_loop,
    "numpy": numpy_loop,
    "naive_jax": naive_jax,
}
