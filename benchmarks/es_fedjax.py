"""The rows of fedjax_rl in the case `es`, and the loops of the case `episodes`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import es_peers as peers
import jax
import jax.numpy as jnp
import numpy as np
from harness import compiled

from fedjax_rl.algorithms import es, espc
from fedjax_rl.algorithms.strategy import network_of, run_episodes
from fedjax_rl.envs import gymnax_task
from fedjax_rl.rollouts.loops import LOOPS
from fedjax_rl.sweeps.cells import Cell
from fedjax_rl.sweeps.sweep import run_cells

PROPERTIES = {
    "network": peers.LAYERS[1:-1],
    "sigma": peers.SIGMA,
    "learning_rate": peers.LEARNING_RATE,
    "l2": peers.L2,
}
# Trials of the slower rows, enough for their rates; the others run 60.
TRIALS = {"gymnasium": 4, "evosax_own_keys": 6, "jax_plain": 10, "jax_early_stop": 10}
# Every line of Fig. 4.5, and what the study adds to it: agents and properties.
VARIANTS = {
    "ES n=25": (25, {"target_senders": 25}),
    "ES n=50": (50, {"target_senders": 50}),
    "ESPC n=50": (50, {"target_senders": 25}),
    "ES n=25 centred": (25, {"target_senders": 25, "shaping": "center"}),
    "ES n=50 centred": (50, {"target_senders": 50, "shaping": "center"}),
    "ESPC own baseline": (50, {"target_senders": 25, "baseline": "own_window"}),
}


def fedjax_rl(workload: peers.Workload, workers: int | None = None) -> peers.Program:
    """Evolution strategies as a sweep runs them: exchange, ledger and metrics included."""
    algorithm = es(gymnax_task(peers.ENVIRONMENT), shaping=workload.shaping, **PROPERTIES)

    def cells(seed):
        return [Cell(workload.agents, seed + s, {}) for s in range(workload.trials)]

    return _program(algorithm, cells, workload, workers)


def all_variants(workload: peers.Workload) -> peers.Program:
    """Every variant of Fig. 4.5 in one call."""
    algorithm = espc(gymnax_task(peers.ENVIRONMENT), **PROPERTIES)

    def cells(seed):
        return [
            Cell(n, seed + s, own) for n, own in VARIANTS.values() for s in range(workload.trials)
        ]

    return _program(algorithm, cells, workload, None)


def _program(algorithm, cells: Callable, workload, workers) -> peers.Program:
    def call(seed, episodes):
        return run_cells(
            algorithm,
            cells(seed),
            num_steps=episodes,
            record_every=1,
            metrics=("reward",),
            workers=workers,
            chunk=workload.episodes,
        )

    start = time.perf_counter()
    call(0, 1)
    seconds = time.perf_counter() - start

    def run(seed):
        start = time.perf_counter()
        result = call(seed, workload.episodes)
        returns = result["reward"].values.astype(np.float64)
        alive = int(result["env_steps"].sum())
        return peers.Outcome(returns, alive, alive, time.perf_counter() - start)

    return peers.Program(run, seconds)


def episode_loops(lengths: str, agents: int, kinds: Sequence[str] = LOOPS) -> dict[str, Callable]:
    """Each loop over the episodes of so many agents with random policies.

    Args:
      lengths: "short", policies as they are drawn first, or "long", of trained ones: a policy
        that pushes where the pole leans, perturbed.
      agents: A.
      kinds: of the loops.

    Returns:
      Name of the loop -> a call that returns the steps of every episode, int32 [A].
    """
    task = gymnax_task(peers.ENVIRONMENT)
    config = es(task, **PROPERTIES).config
    network = network_of(config)
    keys = jax.random.split(jax.random.key(0), (2, agents))
    centre = network.init(jax.random.key(1))
    parameters = centre + jax.random.normal(jax.random.key(2), (agents, centre.size))
    if lengths == "long":
        parameters = jax.random.normal(jax.random.key(2), (agents, centre.size)) * 0.3
        parameters = parameters + jnp.asarray(leaning(network))
    out = {}
    for kind in kinds:

        def run(keys, parameters, kind=kind):
            episode = run_episodes(config, network, (keys[0], keys[1]), parameters, kind)
            return episode.steps

        out[kind] = _compiled(run, keys, parameters)
    return out


def parts(agents: int, steps: int) -> dict[str, Callable]:
    """Policies of so many agents without environments, and their parameters read without policies.

    Args:
      agents: A.
      steps: of a call.
    """
    task = gymnax_task(peers.ENVIRONMENT)
    network = network_of(es(task, **PROPERTIES).config)
    seen = jnp.ones((agents, task.observation_size))
    numbers = jax.random.normal(jax.random.key(0), (network.num_parameters, agents))

    def policies(numbers, seen):
        """What it says is seen next, so that no step is left out."""

        def body(_, seen):
            said = jax.vmap(network.apply)((*numbers,), seen)
            return seen + sum(said)[:, None]

        return jax.lax.fori_loop(0, steps, body, seen)

    def read(numbers, seen):
        def body(_, total):
            for own in numbers:
                total = total + own * seen[:, 0]
            return total * 1e-3

        return jax.lax.fori_loop(0, steps, body, seen[:, 0])

    return {
        "policies alone": _compiled(policies, numbers, seen),
        "parameters read": _compiled(read, numbers, seen),
    }


def _compiled(function: Callable, *arguments) -> Callable:
    program, _ = compiled(function, *arguments)
    return lambda: program(*arguments)


def leaning(network) -> np.ndarray:
    """Parameters [q] of a policy that pushes to where the pole leans and falls."""
    parts = []
    for place, (inputs, outputs) in enumerate(network.layers):
        weights = np.zeros((inputs, outputs), np.float32)
        if place == 0:
            weights[:, 0] = (0.1, 0.3, 3.0, 1.0)
        elif place == len(network.layers) - 1:
            weights[0] = (-4.0, 4.0)
        else:
            weights[0, 0] = 1.5
        parts += [weights.ravel(), np.zeros(outputs, np.float32)]
    return np.concatenate(parts)
