"""The rows of fedjax_rl in the case `gradients`: sweeps, federations, estimates."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Callable
from typing import NamedTuple

import gradient_peers as peers
import jax
import jax.numpy as jnp
import numpy as np
from harness import compiled

import fedjax_rl as frl
from fedjax_rl import envs, streams
from fedjax_rl.algorithms.oracle import Oracle, keys_at
from fedjax_rl.federation.algorithm import bind
from fedjax_rl.federation.population import Population
from fedjax_rl.federation.state import Params
from fedjax_rl.learners import policy_gradient as learner
from fedjax_rl.sweeps.cells import Cell
from fedjax_rl.sweeps.sweep import run_cells

TASK = envs.tabular_task(peers.MDPS, max_steps=peers.HORIZON)
_COMMON = {
    "episodes_per_step": peers.EPISODES,
    "entropy": peers.ENTROPY,
    "learning_rate": 0.05,
}
_MOMENTUM = {**_COMMON, "learning_rate": 0.005, "server_learning_rate": 0.1}
ALGORITHMS = {
    "fedpg": frl.fedpg(TASK, **_COMMON),
    "scaffold_pg": frl.scaffold_pg(TASK, **_COMMON),
    "fedprox_pg": frl.fedprox_pg(TASK, **_COMMON),
    "fedavgm_pg": frl.fedavgm_pg(TASK, **_COMMON),
    "fedadam_pg": frl.fedadam_pg(TASK, **_COMMON),
    "fast_fedpg": frl.fast_fedpg(TASK, **_COMMON),
    "fedsvrpg_m": frl.fedsvrpg_m(TASK, **_MOMENTUM),
    "fedhapg_m": frl.fedhapg_m(TASK, **_MOMENTUM),
}

# Those whose rounds are made of different parts.
DISTINCT = ("fedpg", "scaffold_pg", "fast_fedpg", "fedsvrpg_m", "fedhapg_m")


def sweep(algorithm, workload: peers.Workload) -> tuple[dict, float]:
    """The grid as one sweep: the objectives as `peers.numpy_loop` has them, seconds to compile."""
    grid = list(itertools.product(peers.SIZES, peers.LOCAL_STEPS))
    cells = [
        Cell(size, seed, {"local_steps": local_steps})
        for size, local_steps in grid
        for seed in range(workload.seeds)
    ]
    runs = run_cells(
        algorithm,
        cells,
        num_steps=workload.rounds,
        record_every=workload.rounds,
        metrics=("objective",),
    )
    ends = runs["objective"].values[:, -1].reshape(len(grid), -1).astype(np.float64)
    seconds = json.loads(runs.attrs["seconds"])["compile"]
    return dict(zip(grid, ends, strict=True)), seconds


# --- agreement -----------------------------------------------------------------------------------


_PLAYER = Oracle(ALGORITHMS["fedpg"].config.resolved())


@functools.partial(jax.jit, static_argnames="count")
def _played(environment, keys, theta, round_, place, count):
    """Observations and actions, [A, count, T] each, of the keys of a stream."""
    params = Params({"environment": environment}, {}, {})
    keys = keys_at(keys, round_, place)
    played = _PLAYER.sample(params, keys, theta, count, False)
    return played.observation, played.action


@jax.jit
def _shares(keys, round_, place):
    own = jax.vmap(lambda key: jax.random.fold_in(key, place))(
        streams.keys_of(keys, streams.Episodic.LEARNER, round_)
    )
    words = jax.vmap(lambda key: jax.random.bits(key, (), "uint32"))(own)
    return streams.uniform(words, jnp.float64)


class _Replayed:
    """The episodes that the package makes of its keys, for `peers.run`."""

    def __init__(self, tables: peers.Tables, keys, params) -> None:
        self._keys, self._environment = keys, params.agent["environment"]
        self._agents = np.arange(tables.agents)[:, None, None]

    def episodes(self, theta, count, stream, round_, place):
        keys = self._keys
        if stream != "step":
            which = {"memory": "MEMORY", "first": "FIRST"}[stream]
            keys = streams.keys_of(keys, streams.Episodic[which])
        when = jnp.uint32(round_), jnp.uint32(place)
        played = _played(self._environment, keys, jnp.asarray(theta), *when, count)
        state, action = (np.asarray(x, np.int64) for x in played)
        where = (self._agents * peers.S + state) * peers.U + action
        return where.reshape(-1, where.shape[-1]).T

    def shares(self, round_, place):
        return np.asarray(_shares(self._keys, jnp.uint32(round_), jnp.uint32(place)))


def difference(algorithm, sizes=(1, 3), local_steps: int = 3, rounds: int = 3) -> float:
    """How far package and NumPy are apart on the same episodes, as a share of how far they went.

    In double precision, in which no draw hangs on the last digit.

    Args:
      algorithm: one of `ALGORITHMS`.
      sizes: N of federations that run side by side.
      local_steps: H.
      rounds: R.
    """
    algorithm = algorithm.replace(local_steps=local_steps)
    with jax.enable_x64(True):
        population, params, keys = _bound(algorithm, [(size, 0) for size in sizes])
        functions = algorithm.functions(algorithm.config)

        def advance(params, keys):
            state = functions.init(population, params, keys)
            return functions.advance(population, params, state, jnp.uint32(rounds))

        expected = np.asarray(jax.jit(advance)(params, keys).server.parameters)
        tables = peers.Tables(sizes)
        source = _Replayed(tables, keys, params)
        found = peers.run(algorithm.name, algorithm.config.resolved(), tables, rounds, source)
    return float(np.max(np.abs(found - expected)) / np.max(np.abs(expected)))


def _bound(algorithm, federations):
    """Population, parameters and keys of federations (N, seed), in order of their sizes."""
    groups = itertools.groupby(federations, key=lambda one: one[0])
    population = Population(tuple((len(list(group)), size) for size, group in groups))
    params = bind([algorithm.parameters(algorithm.config, size) for size, _ in federations])
    seeds = np.asarray([seed for _, seed in federations])[population.federation_of]
    return population, params, streams.agent_keys(seeds, population.member_of)


# --- federations of many and of one --------------------------------------------------------------


def federations(algorithm, size: int, local_steps: int, rounds: int) -> dict[str, Callable]:
    """So many agents as one federation, and as many federations: calls that run them.

    Both have the same environments; a call is the program alone, without what a sweep does on the
    host.

    Args:
      algorithm: one of `ALGORITHMS`.
      size: agents in all.
      local_steps: H.
      rounds: of a call.
    """
    algorithm = algorithm.replace(local_steps=local_steps)
    functions = algorithm.functions(algorithm.config)
    family = algorithm.parameters(algorithm.config, size).agent
    out = {}
    for name, each in {"one": [(size, 0)], "many": [(1, seed) for seed in range(size)]}.items():
        population, params, keys = _bound(algorithm, each)
        params.agent.update(jax.tree.map(jnp.asarray, family))
        state = functions.init(population, params, keys)
        program = _compiled(
            lambda p, s, n, of=population: functions.advance(of, p, s, n),
            params,
            state,
            jnp.uint32(1),
        )
        steps = jnp.uint32(rounds)
        out[name] = lambda p=program, a=(params, state, steps): p(*a).server.parameters
    return out


def parts(agents: int = 512, local_steps: int = 5, rounds: int = 8) -> dict[str, Callable]:
    """FedPG of agents alone, its episodes without gradients, and their random words without either.

    Args:
      agents: A.
      local_steps: H.
      rounds: of a call.
    """
    algorithm = ALGORITHMS["fedpg"].replace(local_steps=local_steps)
    functions, oracle = algorithm.functions(algorithm.config), Oracle(algorithm.config.resolved())
    population, params, keys = _bound(algorithm, [(1, seed) for seed in range(agents)])
    state = functions.init(population, params, keys)
    theta = state.server.parameters
    shape = peers.HORIZON, peers.EPISODES, 2  # a word for the action and one for the next state

    def loop(one):
        def body(place, total):
            return total + one(place // local_steps, place % local_steps, total)

        return jax.lax.fori_loop(0, rounds * local_steps, body, jnp.zeros(agents))

    def episodes(params, keys, theta):
        def one(time, place, total):
            both = keys_at(keys, jnp.uint32(time), jnp.uint32(place))
            # Of the turn before, so that no turn is left out.
            played = oracle.sample(params, both, theta + 0 * total[:, None], peers.EPISODES, False)
            return played.reward.sum((1, 2))

        return loop(one)

    def words(keys):
        def one(time, place, total):
            both = keys_at(keys, jnp.uint32(time), jnp.uint32(place))
            made = jax.vmap(lambda key: jax.random.bits(key, shape, "uint32"))(both[1])
            return (made ^ total.astype(jnp.uint32)[:, None, None, None]).sum((1, 2, 3)) * 1e-9

        return loop(one)

    whole = _compiled(
        lambda p, s: functions.advance(population, p, s, jnp.uint32(rounds)), params, state
    )
    played, drawn = _compiled(episodes, params, keys, theta), _compiled(words, keys)
    return {
        "whole": lambda: whole(params, state).server.parameters,
        "episodes": lambda: played(params, keys, theta),
        "words": lambda: drawn(keys),
    }


def _compiled(function, *arguments):
    return compiled(function, *arguments)[0]


# --- estimates -----------------------------------------------------------------------------------


class Setting(NamedTuple):
    """A policy and the episodes on which its estimates are timed.

    Attributes:
      task: of all agents.
      properties: of FedPG.
      calls: of each estimate in a turn.
    """

    task: object
    properties: dict
    calls: int


CARTPOLE = envs.gymnax_task("CartPole-v1", discount=0.995, max_steps=100)
SETTINGS = {
    "table": Setting(TASK, {}, 300),
    "table, entropy": Setting(TASK, {"entropy": peers.ENTROPY}, 300),
    "network of tables": Setting(TASK, {"policy": "mlp"}, 30),
    "network of CartPole": Setting(CARTPOLE, {}, 15),
}


ESTIMATES = 64  # agents, and estimates of a call


def estimates(setting: Setting, agents: int = ESTIMATES, episodes: int = 10) -> dict[str, Callable]:
    """The estimates of all agents on the same episodes: name -> so many calls as is set.

    Args:
      setting: policy and task.
      agents: A.
      episodes: of each agent.
    """
    algorithm = frl.fedpg(setting.task, episodes_per_step=episodes, **setting.properties)
    oracle = Oracle(algorithm.config.resolved())
    policy, discount, rule = oracle.policy, oracle.task.discount, oracle.advantages
    params = bind([algorithm.parameters(algorithm.config, agents)])
    keys = jax.random.split(jax.random.key(0), (4, agents))
    noise = jax.random.normal(jax.random.key(1), (2, agents, policy.num_parameters))
    theta = jax.vmap(policy.init)(keys[2]) + 0.1 * noise[0]
    played = jax.jit(lambda: oracle.sample(params, keys[:2], theta, episodes, False))()
    entropy = jnp.broadcast_to(params.federation["entropy"], agents)

    def own(entropy):
        return oracle.entropy({"entropy": entropy})

    def gradient(theta, way, played, entropy):
        return learner.estimate(policy, theta, played, discount, rule, own(entropy))

    def weighted(theta, way, played, entropy):
        target = theta + way
        return learner.weighted_gradient(
            policy, target, theta, played, discount, rule, own(entropy)
        )

    def hessian_vector(theta, way, played, entropy):
        return learner.hessian_vector(policy, theta, way, played, discount, rule, own(entropy))

    arguments = (theta, 0.1 * noise[1], played, entropy)
    out = {}
    for function in (gradient, weighted, hessian_vector):
        program = _compiled(jax.vmap(function), *arguments)

        def call(program=program):
            done = None
            for _ in range(setting.calls):
                done = program(*arguments)
            return done

        out[function.__name__] = call
    return out
