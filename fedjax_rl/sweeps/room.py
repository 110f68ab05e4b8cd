"""Whether what is to run fits into memory, found out before it runs.

What arrays take is told from their shapes; what a program takes at its peak, with all that it needs
in between, its compiler knows (`programs.bytes_of`).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from fedjax_rl import hosts, memory, streams, turns
from fedjax_rl.federation.algorithm import Algorithm, bind
from fedjax_rl.federation.population import population
from fedjax_rl.saving.checkpoints import Machine
from fedjax_rl.sweeps.cells import Federation
from fedjax_rl.sweeps.programs import STARTING, Job, bytes_of

# Agents from which on somebody asks whether there is room for them.
MANY = 2 * turns.MOST
# Programs have needed up to so many times what their arrays take.
_AMPLE = 4
# Agents whose arrays are looked at for those of many.
_LOOKED_AT = 1024


def check_agents(several: Sequence[Federation], devices: int) -> None:
    """Refuses federations whose agents alone would not fit, from the shapes of what they keep.

    Args:
      several: federations with their configurations.
      devices: over which they are spread.

    Raises:
      ValueError: naming their number and how many fit.
    """
    there = memory.available(devices=devices)
    if there is not None and jax.default_backend() == "cpu":  # which says what one process has
        there *= hosts.count()
    each: dict = {}
    for cell, algorithm in several:
        if there is None or cell.num_agents <= MANY:
            continue
        key = algorithm.static(algorithm.config)
        if key not in each:
            each[key] = _bytes_of_agent(algorithm)
        if each[key] and each[key] * cell.num_agents > there:
            raise ValueError(_too_many(cell.num_agents, each[key] * cell.num_agents, there))


def check_programs(jobs: Sequence[Job]) -> None:
    """Refuses jobs of many agents whose programs need more memory than there is.

    Args:
      jobs: of which one runs at a time, if they are large.

    Raises:
      ValueError: naming the agents of the largest federation, and how many fit.
    """
    for job in jobs:
        agents = job.layout.whole.num_agents
        if agents <= MANY or jax.config.jax_disable_jit:
            continue
        needed, there = bytes_of(job), memory.available(devices=1)
        if jax.default_backend() == "cpu":  # whose devices have one memory in every process
            needed *= max(math.prod(job.layout.blocks) // hosts.count(), 1)
        if there is not None and needed > there:
            raise ValueError(_too_many(agents, needed, there))


def measured(machine: Machine, jobs: Sequence[Job]) -> Machine:
    """A machine that knows what programs take at their peak, where that decides anything.

    Args:
      machine: that the jobs are split for.
      jobs: compiled, if it is not certain that so many fit as run at a time.

    Returns:
      The same one with a `peak` that is as large as any that was found.
    """
    peak = machine.peak or 0.0
    if machine.free is None or jax.config.jax_disable_jit:
        return machine
    for job in jobs:
        one, sizes = job.algorithm, job.layout.whole.sizes
        if one.memory is None:
            continue
        arrays = sum(one.memory(one.config, int(n))["total"] for n in sizes)
        if _AMPLE * arrays * machine.cores > machine.free * math.prod(job.layout.blocks):
            found = bytes_of(job) * math.prod(job.layout.blocks) / arrays
            # Rounded up, so that what is measured again does not differ by a little.
            peak = max(peak, math.ceil(20 * found) / 20)
    return machine._replace(peak=peak or None)


def _bytes_of_agent(algorithm: Algorithm) -> float:
    """What an agent keeps, and what it is started from; 0 where that cannot be told."""
    some = population(_LOOKED_AT)
    with contextlib.suppress(ValueError), jax.disable_jit(False):
        # Of a clock that waits for more agents than these nothing can be told by so few.
        params = bind([algorithm.parameters(algorithm.config, _LOOKED_AT)])
        functions = algorithm.functions(algorithm.config)

        def first(params):
            keys = streams.agent_keys(jnp.zeros(_LOOKED_AT, jnp.uint32), some.member_of)
            return functions.init(some, params, keys)

        state = jax.eval_shape(first, params)
        kept = state.agents, state.uplink_state, state.in_flight, state.sent, params.agent
        return memory.size(kept) / _LOOKED_AT + STARTING
    return 0.0


def _too_many(num_agents: int, needed: float, there: int) -> str:
    fit = int(num_agents * there / needed)
    return (
        f"num_agents is {num_agents}, which needs {memory.words(needed)}; allowed: at most about "
        f"{fit}, for which the {memory.words(there)} there are suffice"
    )
