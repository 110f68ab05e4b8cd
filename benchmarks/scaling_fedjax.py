"""The rows of the case `scaling`: one federation of tables, from one agent to a million."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from harness import Call

import fedjax_rl as frl
from fedjax_rl import memory
from fedjax_rl.saving.checkpoints import Checkpoints, Machine
from fedjax_rl.sweeps.cells import Cell, Federation
from fedjax_rl.sweeps.jobs import jobs_of
from fedjax_rl.sweeps.programs import PROGRAMS, STARTING, Job, bytes_of, job_keys
from fedjax_rl.sweeps.run_arguments import Run

# Local steps between two exchanges.
PERIOD = 100
# Agents of a federation; those from `LARGE` on are to cost the same each.
AGENTS = (1, 8, 64, 512, 4096, 32_768, 262_144, 1_000_000)
LARGE = 4096
# Agents that are spread over devices.
SPREAD = 262_144
# Agent-steps of a call, and steps at most.
AGENT_STEPS, STEPS = 2e8, 200_000
# Seconds of a run that writes checkpoints, and its agents.
RUN_SECONDS, SAVED = 30.0, (4096, 262_144)


def algorithm(period: int = PERIOD):
    """Federated Q-learning on the table of the paper on linear speedup."""
    return frl.fedq(frl.envs.paper_mdp(), epsilon=1.0, sync_period=period)


def sizes(scale: float) -> list[int]:
    """Of `AGENTS` those that a run of that scale has time for."""
    return [n for n in AGENTS if n <= max(2 * LARGE, scale * AGENTS[-1])]


def steps_of(num_agents: int, scale: float) -> int:
    """Steps of a call, whole periods."""
    steps = min(scale * STEPS, scale * AGENT_STEPS / num_agents)
    return max(1, round(steps / PERIOD)) * PERIOD


def job_of(num_agents: int, devices: int = 1, period: int = PERIOD) -> Job:
    """The population of one federation, over so many devices."""
    one = algorithm(period).at(num_agents)
    # As long as can be, so that no call comes to an end.
    most = 2**31 // PERIOD * PERIOD
    run = Run.taken({"num_steps": most, "record_every": most, "chunk": 1, "devices": devices})
    names = ("error_server", "error_local_mean")
    cells = [Federation(Cell(num_agents, 0, {}), one)]
    (job,), _ = jobs_of(cells, names, run, Machine(1, None, devices))
    return job


def call(
    num_agents: int, scale: float, devices: int = 1, period: int = PERIOD, steps: int | None = None
) -> Call:
    """So many steps of one federation and a record, by the programs of the package."""
    job = job_of(num_agents, devices, period)
    began = time.perf_counter()
    first, again, (specs, state_specs, gap_spec) = PROGRAMS.get(job)
    seconds = time.perf_counter() - began
    place, steps = job.layout.place, steps or steps_of(num_agents, scale)
    params = place(job.params, specs)
    keys = place(job_keys(job), job.layout.specification(0, "agent"))
    gaps = place(jnp.full(1, steps, jnp.uint32), gap_spec)
    # The state is handed on from call to call, as its memory is.
    state = [place(first(params, keys), state_specs)]

    def run():
        state[0], measured = again(params, state[0], gaps)
        return measured

    return Call(run, num_agents * steps, seconds)


def bytes_of_agents(scale: float) -> Iterator[dict]:
    """What a program takes at its peak for an agent, and what the agent's arrays do."""
    for num_agents in (n for n in sizes(scale) if n > LARGE):
        job = job_of(num_agents)
        functions, keys = job.algorithm.functions(job.algorithm.config), job_keys(job)
        one = job.layout.population
        state = jax.eval_shape(lambda p, k, f=functions, n=one: f.init(n, p, k), job.params, keys)
        arrays = memory.size((state, job.params)) / num_agents
        # Of the program alone, not what starts it on the host.
        peak = bytes_of(job) / num_agents - STARTING
        yield {"agents": num_agents, "arrays": arrays, "peak": peak, "ratio": peak / arrays}


def saving(scale: float) -> Iterator[dict]:
    """The part of a run's time in which it writes checkpoints, as often as it does by default.

    Args:
      scale: of the seconds of a run.
    """
    for num_agents in (n for n in SAVED if n in sizes(scale)):
        trial = call(num_agents, scale)
        for _ in range(2):
            began = time.perf_counter()
            jax.block_until_ready(trial.run())
        rate = trial.units / (time.perf_counter() - began)
        steps = max(1, round(scale * RUN_SECONDS * rate / num_agents / PERIOD)) * PERIOD
        spent, save = [0.0], Checkpoints.save

        def timed(*args, save=save, spent=spent):
            began = time.perf_counter()
            save(*args)
            spent[0] += time.perf_counter() - began

        Checkpoints.save = timed
        try:
            with tempfile.TemporaryDirectory() as scratch:
                one = algorithm()
                run = {"num_agents": num_agents, "num_steps": steps}
                began = time.perf_counter()
                result = frl.sweep(one, checkpoints=scratch, **run)
                seconds = time.perf_counter() - began
        finally:
            Checkpoints.save = save
        assert np.isfinite(result.error_server.values).all()
        yield {"agents": num_agents, "seconds": seconds, "share": spent[0] / seconds}
