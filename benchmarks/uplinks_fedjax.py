"""The rows of the case `uplinks`: federated Q-learning with each uplink of the package."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import harness
import jax.numpy as jnp
from harness import Call, compiled

import fedjax_rl as frl
from fedjax_rl import envs

# (F, N, K): what an uplink costs is paid once in K steps.
CASES = ((256, 16, 10), (256, 16, 100))
# Local steps of every agent in one call, times the scale.
STEPS = 10_000
# As functions: an uplink is made when it is measured.
UPLINKS: dict[str, Callable] = {
    "none": frl.uplinks.full,
    "partial": lambda: frl.uplinks.partial(0.5),
    "event_triggered": lambda: frl.uplinks.event_triggered(factor=0.9, decay=0.2),
    "lazy": lambda: frl.uplinks.lazy(0.1),
    "probabilistic": lambda: frl.uplinks.probabilistic(8),
    "scaled_sign": frl.uplinks.scaled_sign,
    "top_k": lambda: frl.uplinks.top_k(2),
}


@functools.cache
def _program(uplink: str, federations: int, agents: int):
    """The program of every period, what it starts from, and the seconds that it took to make it."""
    algorithm = frl.fedq(envs.paper_mdp(), learning_rate=0.05, uplink=UPLINKS[uplink]())
    everybody, functions, params, state = harness.started(algorithm, agents, federations)
    program, seconds = compiled(
        lambda p, s, n: functions.advance(everybody, p, s, n), params, state, jnp.uint32(1)
    )
    return program, params, state, seconds


def call(uplink: str, federations: int, agents: int, period: int, scale: float) -> Call:
    """`fedq` on the MDP of the linear-speedup paper, 12 numbers a message, with an uplink."""
    program, params, state, seconds = _program(uplink, federations, agents)
    shared = {**params.shared, "sync_period": jnp.uint32(period)}
    params = dataclasses.replace(params, shared=shared)
    steps = max(1, round(scale * STEPS / period)) * period
    return Call(
        lambda: program(params, state, jnp.uint32(steps)), federations * agents * steps, seconds
    )
