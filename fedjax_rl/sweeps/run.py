"""The host loop over chunks of rounds.

A population runs for as long as it takes: in chunks of records, with progress, checkpoints and
early stops on the host between them, never inside.
"""

from __future__ import annotations

import threading
import time as clock
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl.federation.state import State
from fedjax_rl.sweeps import arguments
from fedjax_rl.sweeps.programs import PROGRAMS, Job, Programs, job_keys, threads


class Outcome(NamedTuple):
    """What came of a job.

    Attributes:
      metrics: name -> [t, F or A], on the global axes of the layout; t records were made.
      count: t.
      state: the final state.
      finite: bool [F], whether all that the servers and their agents hold has a finite square.
      compile_seconds, run_seconds: wall time.
    """

    metrics: dict[str, np.ndarray]
    count: int
    state: State
    finite: np.ndarray
    compile_seconds: float
    run_seconds: float


def start(job: Job, programs: Programs) -> State:
    """The initial state of a job."""
    first, _, (specs, _, _) = programs.get(job)
    keys = job.layout.place(job_keys(job), job.layout.specification(0, "agent"))
    return first(job.layout.place(job.params, specs), keys)


def execute(
    job: Job,
    programs: Programs,
    *,
    checkpoints=None,
    progress: Callable[[int], None] = lambda steps: None,
    watch: Callable[[dict[str, float]], None] | None = None,
    cancelled: threading.Event | None = None,
) -> Outcome:
    """Runs a job to its end, from its last checkpoint if it has one.

    Chunks are cut at records, where the simulation is cut anyway, so a run that was interrupted
    and one that was not go through the same numbers.

    Args:
      job: what to run.
      programs: the cache of compiled programs.
      checkpoints: None, or a `fedjax_rl.saving.checkpoints.Checkpoints`.
      progress: called with the agent-steps of each chunk, see `Job.side_by_side`.
      watch: called after a chunk with the means of the last records, and with the ledger's totals.
      cancelled: stops between chunks when set: saves, and raises KeyboardInterrupt.
    """
    compiled = programs.prepare([job])
    began = clock.perf_counter()
    _, again, (specs, state_specs, gap_spec) = programs.get(job)
    params = job.layout.place(job.params, specs)
    state = start(job, programs)
    gaps, times = job.recording.gaps, job.recording.times
    agents = job.side_by_side
    done, told, kept = 0, 0, {n: [] for n in job.metrics}
    if checkpoints is not None and (saved := checkpoints.load(state, job.metrics)) is not None:
        done, state, records = saved
        state = job.layout.place(state, state_specs)
        kept = {n: [x] for n, x in records.items()}
        progress(int(gaps[:done].sum()) * agents)

    def records() -> dict[str, np.ndarray]:
        return {n: np.concatenate(x) if x else np.empty((0, 0)) for n, x in kept.items()}

    def ends() -> bool:
        """Asks the rule about every chunk that it has not heard of, also after a resume."""
        nonlocal told
        while job.stop is not None and told < done:
            end = min(told + job.chunk, done)
            if end % job.chunk and end < job.recording.count:
                return False
            started, told = told, end
            if np.all(job.stop(times[started:end], {n: x[started:end] for n, x in all_().items()})):
                return True
        return False

    def all_() -> dict[str, np.ndarray]:
        for n, x in kept.items():
            kept[n] = [np.concatenate(x)]
        return {n: x[0] for n, x in kept.items()}

    while not ends() and done < job.recording.count:
        if cancelled is not None and cancelled.is_set():
            if checkpoints is not None and done:
                checkpoints.save(done, state, records)
            raise KeyboardInterrupt
        # Chunks end at multiples of their length, wherever a shorter run before has ended.
        part = gaps[done : (done // job.chunk + 1) * job.chunk]
        # A short chunk is filled with records of no steps, and these are dropped.
        padded = np.zeros(job.chunk, np.uint32)
        padded[: len(part)] = part
        padded = job.layout.place(jnp.asarray(padded), gap_spec)
        state, measured = again(params, state, padded)
        for n in job.metrics:
            kept[n].append(np.asarray(measured[n])[: len(part)])
        done += len(part)
        progress(int(part.sum()) * agents)
        if watch is not None:
            spent = state.ledger.totals()
            last = {n: x[-1][-1] for n, x in kept.items()} | spent
            watch({n: float(np.mean(x)) for n, x in last.items()})
        if checkpoints is not None:
            checkpoints.maybe_save(done, state, records)
    if checkpoints is not None:  # what has been learned, for whoever wants to see it at work
        checkpoints.save(done, state, records)
    jax.block_until_ready(state)
    finite = _finite(job, state)
    return Outcome(records(), done, state, finite, compiled, clock.perf_counter() - began)


def _finite(job: Job, state: State) -> np.ndarray:
    """Whether all that servers and agents hold is finite, and its squares are: bool [F].

    That is asked of the state, as what somebody chose to record may well be finite when the model
    is not, or when its optimiser's moments are not, so that it has come to a halt: ranks of
    returns, time, bytes. Beyond the root of the largest number every norm, and so every error, is
    infinite.
    """
    federation, _ = job.layout.agents()
    order = np.asarray(job.layout.order)
    fine = np.ones(order.max() + 1, bool)
    of_servers, of_agents = (state.server, state.server_state), (state.agents, state.uplink_state)
    for owner, tree in ((order, of_servers), (federation, of_agents)):
        for leaf in jax.tree.leaves(tree):
            if jnp.issubdtype(leaf.dtype, jnp.inexact):
                with np.errstate(over="ignore", invalid="ignore"):
                    each = np.isfinite(np.square(np.asarray(leaf)))
                np.logical_and.at(fine, owner, each.reshape(len(owner), -1).all(axis=1))
    return fine[order]


def execute_all(
    jobs: Sequence[Job],
    *,
    workers: int = 1,
    checkpoints: Sequence | None = None,
    progress: Callable[[int], None] = lambda steps: None,
    watch: Callable[[dict[str, float]], None] | None = None,
) -> tuple[list[Outcome], float, float]:
    """Runs several jobs, a few at a time.

    One job on one XLA thread per core beats one job on all of them, by about a half on two
    cores: XLA splits each small fusion between its threads and waits.

    Args:
      jobs: independent of each other.
      workers: jobs at a time, each from a thread of its own.
      checkpoints: one per job, or None.
      progress: as in `execute`.
      watch: as in `execute`.

    Returns:
      The outcomes, and the seconds spent compiling and running, as wall time.
    """
    workers = arguments.count("workers", workers)
    compiled = PROGRAMS.prepare(jobs, workers)
    began = clock.perf_counter()
    checkpoints = [None] * len(jobs) if checkpoints is None else checkpoints
    cancelled = threading.Event()

    def one(job, saved):
        return execute(
            job,
            PROGRAMS,
            checkpoints=saved,
            progress=progress,
            watch=watch,
            cancelled=cancelled,
        )

    # In threads even one at a time: a signal is then nobody's but this thread's, which waits until
    # the others have come to the end of a chunk and saved it.
    with threads(workers) as pool:
        started = [pool.submit(one, *pair) for pair in zip(jobs, checkpoints, strict=True)]
        try:
            outcomes = [future.result() for future in started]
        except BaseException:
            cancelled.set()
            for future in started:
                future.cancel()
            raise
    return outcomes, compiled, clock.perf_counter() - began


def by_member(x, federation, member, count) -> np.ndarray:
    """[t, A] of a layout -> [t, F, N], NaN past the size of a federation."""
    out = np.full((len(x), count, member.max() + 1), np.nan, np.result_type(x, np.float32))
    out[:, federation, member] = x
    return out
