"""The host loop over chunks of rounds.

A population runs for as long as it takes: in chunks of records, with progress, checkpoints and
early stops on the host between them, never inside.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl import hosts
from fedjax_rl.federation.mesh import SIDES
from fedjax_rl.federation.state import State
from fedjax_rl.sweeps import of_agents
from fedjax_rl.sweeps.programs import PROGRAMS, Job, Threads, job_keys


class Outcome(NamedTuple):
    """What came of a job.

    Attributes:
      metrics: name -> [t, F or A], on the global axes of the layout; t records were made.
      count: t.
      state: the final state; its ledger on the host where it lies over several processes.
      finite: bool [F], whether all that the servers and their agents hold has a finite square.
    """

    metrics: dict[str, np.ndarray]
    count: int
    state: State
    finite: np.ndarray


def execute(
    job: Job,
    *,
    begun: Outcome | None = None,
    checkpoints=None,
    progress: Callable[[int], None] = lambda steps: None,
    watch: Callable[[dict[str, float]], None] | None = None,
    cancelled: threading.Event | None = None,
) -> Outcome:
    """Runs a job to its end, from where it was if there is something of it.

    Chunks are cut at records, where the simulation is cut anyway, so a run that was interrupted
    and one that was not go through the same numbers.

    Args:
      job: what to run.
      begun: None, or what came of the same job with fewer records.
      checkpoints: None, or a `fedjax_rl.saving.checkpoints.Checkpoints`.
      progress: called with the agent-steps of each chunk, see `Job.side_by_side`.
      watch: called after a chunk with the means of the last records, and with the ledger's totals.
      cancelled: stops between chunks when set: saves, and raises KeyboardInterrupt.

    Returns:
      The `Outcome`, of all records from the first one on.
    """
    _, again, (specs, state_specs, gap_spec) = PROGRAMS.get(job)
    params = job.layout.place(job.params, specs)
    gaps, agents = job.recording.gaps, job.side_by_side
    done, state, records = _begin(job, begun, checkpoints)
    state = job.layout.place(state, state_specs)
    progress(int(gaps[:done].sum()) * agents)
    ended = None if job.stop is None else _rule(job)
    while done < job.recording.count:
        over, stopped = hosts.decided(
            first=ended is not None and ended(done, records),
            anyone=cancelled is not None and cancelled.is_set(),
        )
        if over:
            break
        if stopped:
            if checkpoints is not None and done:
                checkpoints.save(done, state, lambda: _joined(records))
            raise KeyboardInterrupt
        # Chunks end at multiples of their length, wherever a shorter run before has ended.
        part = gaps[done : (done // job.chunk + 1) * job.chunk]
        # A short chunk is filled with records of no steps, and these are dropped.
        padded = np.zeros(job.chunk, np.uint32)
        padded[: len(part)] = part
        padded = job.layout.place(jnp.asarray(padded), gap_spec)
        state, measured = again(params, state, padded)
        measured = hosts.fetched({name: measured[name] for name in records})
        for name, chunks in records.items():
            chunks.append(measured[name][: len(part)])
        done += len(part)
        progress(int(part.sum()) * agents)
        # Of several processes only the first watches, and all have to bring what it sees.
        ledger = hosts.fetched(state.ledger) if hosts.count() > 1 else state.ledger
        if watch is not None:
            last = {name: _shown(job, name, chunks[-1][-1]) for name, chunks in records.items()}
            watch({n: float(np.mean(x)) for n, x in (last | ledger.totals()).items()})
        if checkpoints is not None:
            # A function, as records are only joined where something is written.
            checkpoints.maybe_save(done, state, lambda: _joined(records))
    if checkpoints is not None:  # what has been learned, for whoever wants to see it at work
        checkpoints.save(done, state, lambda: _joined(records))
    jax.block_until_ready(state)
    finite = _finite(job, state)
    if hosts.count() > 1:
        state = dataclasses.replace(state, ledger=hosts.fetched(state.ledger))
    return Outcome(_joined(records), done, state, finite)


def _shown(job: Job, name: str, last):
    """Of the last record of a metric what its mean is to be taken of."""
    if job.is_reduced and job.algorithm.metrics[name][0] == "agent":
        return of_agents.taken_apart(last)[1]
    return last


def _joined(records: dict[str, list]) -> dict[str, np.ndarray]:
    """All records, [t, ...] of each name, of which the chunks become one."""
    for chunks in records.values():
        # In place, so that no record is held twice.
        chunks[:] = [np.concatenate(chunks) if chunks else np.empty((0, 0))]
    return {name: chunks[0] for name, chunks in records.items()}


def _begin(job: Job, begun: Outcome | None, checkpoints) -> tuple[int, State, dict[str, list]]:
    """How many records there are, the state after them, and the records: {name: [chunks]}."""
    if begun is not None:
        kept = {name: [begun.metrics[name]] for name in job.metrics}
        # A copy, as a program writes over the state that it is given.
        return begun.count, jax.tree.map(jnp.copy, begun.state), kept
    first, _, (specs, _, _) = PROGRAMS.get(job)
    keys = job.layout.place(job_keys(job), job.layout.specification(0, "agent"))
    state = first(job.layout.place(job.params, specs), keys)
    if checkpoints is not None:
        saved = checkpoints.load(state, job.metrics, functools.partial(_moved, job))
        if saved is not None:
            done, state, records = saved
            return done, state, {name: [x] for name, x in records.items()}
    return 0, state, {name: [] for name in job.metrics}


def _moved(job: Job, told: list, state: State, records: dict) -> tuple[State, dict]:
    """What was saved over other devices, as it lies over those of now."""
    parts = {
        name: job.layout.moved(told, getattr(state, name), side) for name, side in SIDES.items()
    }
    records = {
        name: job.layout.moved(told, x, job.side(name), axis=1) for name, x in records.items()
    }
    return State(**parts), records


def _rule(job: Job) -> Callable[[int, dict], bool]:
    """Whether the caller's rule ends a job; it hears of every chunk, also after a resume."""
    asked, times = 0, job.recording.times

    def ended(done: int, records: dict[str, list]) -> bool:
        nonlocal asked
        while asked < done:
            end = min(asked + job.chunk, done)
            # Half a chunk, where a shorter run has ended: the rule hears of it when it is whole.
            if end % job.chunk and end < job.recording.count:
                return False
            began, asked = asked, end
            chunk = {name: x[began:end] for name, x in _joined(records).items()}
            if np.all(job.stop(times[began:end], chunk)):
                return True
        return False

    return ended


def _finite(job: Job, state: State) -> np.ndarray:
    """Whether all that servers and agents hold is finite, and its squares are: bool [F].

    That is asked of the state, as what somebody chose to record may well be finite when the model
    is not, or when its optimiser's moments are not, so that it has come to a halt: ranks of
    returns, time, bytes. Beyond the root of the largest number every norm, and so every error, is
    infinite.
    """
    federation, _ = job.layout.agents()
    order = np.asarray(job.layout.order)
    fine = np.ones(len(order), bool)
    servers, agents = (state.server, state.server_state), (state.agents, state.uplink_state)
    for owner, tree in ((order, servers), (federation, agents)):
        for leaf in jax.tree.leaves(tree):
            if jnp.issubdtype(leaf.dtype, jnp.inexact):
                fine[owner[~_all_finite(leaf)]] = False
    return fine[order]


def _all_finite(leaf: jax.Array) -> np.ndarray:
    """Whether the squares of all that an agent or a server has of a leaf are finite, [A or F]."""
    if hosts.is_spread(leaf):
        # Where it lies: no process is to hold the models of all.
        return hosts.fetched(_finite_rows(leaf))
    with np.errstate(over="ignore", invalid="ignore"):
        return np.isfinite(np.square(np.asarray(leaf))).reshape(len(leaf), -1).all(axis=1)


@jax.jit
def _finite_rows(leaf: jax.Array) -> jax.Array:
    return jnp.isfinite(jnp.square(leaf)).all(axis=tuple(range(1, leaf.ndim)))


def execute_all(
    jobs: Sequence[Job],
    *,
    workers: int = 1,
    begun: Sequence[Outcome | None] | None = None,
    checkpoints: Sequence | None = None,
    progress: Callable[[int], None] = lambda steps: None,
    finished: Callable[[int], None] = lambda place: None,
    watch: Callable[[dict[str, float]], None] | None = None,
) -> tuple[list[Outcome], float, float]:
    """Runs several jobs, a few at a time.

    One job on one XLA thread per core beats one job on all of them, by about a half on two
    cores: XLA splits each small fusion between its threads and waits.

    Args:
      jobs: independent of each other.
      workers: jobs at a time, each from a thread of its own.
      begun: what came of each with fewer records, or None.
      checkpoints: one per job, or None.
      progress: as in `execute`.
      finished: called with the place of a job that has come to its end.
      watch: as in `execute`.

    Returns:
      The outcomes, and the seconds spent compiling and running, as wall time.
    """
    nothing = [None] * len(jobs)
    begun, checkpoints = begun or nothing, checkpoints or nothing

    left = [
        own is None or own.count < job.recording.count for job, own in zip(jobs, begun, strict=True)
    ]
    compiled = PROGRAMS.prepare(list(itertools.compress(jobs, left)), workers)
    timer = time.perf_counter()
    cancelled = threading.Event()

    def one(place: int) -> Outcome:
        outcome = begun[place]
        if left[place]:
            outcome = execute(
                jobs[place],
                begun=outcome,
                checkpoints=checkpoints[place],
                progress=progress,
                watch=watch,
                cancelled=cancelled,
            )
        finished(place)
        return outcome

    # In threads even one at a time: a signal is then nobody's but this thread's, which waits until
    # the others have come to the end of a chunk and saved it.
    with Threads(workers) as pool:
        started = [pool.submit(one, place) for place in range(len(jobs))]
        try:
            outcomes = [future.result() for future in started]
        except BaseException:
            cancelled.set()
            # Of several processes each begins them all, to hear from the others that they end.
            for future in started if hosts.count() == 1 else ():
                future.cancel()
            raise
    return outcomes, compiled, time.perf_counter() - timer


def seen(job: Job, name: str, x) -> np.ndarray:
    """The records of a metric in the caller's order of federations.

    Args:
      job: that made them.
      name: of the metric.
      x: [t, F, ...] or [t, A], on the global axes of its layout.

    Returns:
      [t, F, ...]; of agents float [t, F, N], N the size of the largest and NaN past that of a
      federation.
    """
    if job.side(name) == "federation":
        return x[:, job.layout.places("federation")]
    places = job.layout.places("agent")
    federation, member = (each[places] for each in job.layout.agents())
    # A float of any kind has NaN, a counter has not.
    shape = len(x), len(job.layout.order), member.max() + 1
    out = np.full(shape, np.nan, np.result_type(x, np.float32))
    out[:, federation, member] = x[:, places]
    return out
