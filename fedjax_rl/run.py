"""Running a population: the pure simulator, and the host loop over chunks of rounds.

`simulate` is one federation as one pure function, to be jitted, vmapped and differentiated.
`Job` and `execute` run a population for as long as it takes: in chunks of records, with progress,
checkpoints and early stops on the host between them, never inside.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import threading
import time as clock
from collections.abc import Callable, Hashable, Sequence
from concurrent import futures
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl import arguments, streams
from fedjax_rl.federation.algorithm import Algorithm, bind
from fedjax_rl.federation.exchange import Params, State
from fedjax_rl.federation.mesh import Layout
from fedjax_rl.federation.population import population
from fedjax_rl.fields import check_schedules
from fedjax_rl.identity import content

MAX_STEPS = arguments.LIMIT
# A period that never comes due within the longest run.
NEVER = np.uint32(2**32 - 1)


class Trajectory(NamedTuple):
    """What `simulate` returns.

    Attributes:
      metrics: name -> [T] per federation or [T, N] per agent, T records.
      state: the state at the end, a population of one federation.
    """

    metrics: dict
    state: State


def simulate(
    algorithm: Algorithm,
    *,
    num_agents: int,
    num_steps: int,
    seed=0,
    record_every: int | None = None,
) -> Trajectory:
    """One federation from start to end, as one pure function.

    Traceable: properties of the algorithm may be tracers, so that `jax.grad`, `jax.jvp`,
    `jax.vmap` and `jax.jit` apply to anything traced: learning rate, schedule, aggregation
    weights, mixing, rewards. Reverse mode recomputes each round from its start, so memory grows
    with the number of rounds plus K, not with the number of steps.

    Args:
      algorithm: its `sync_period` is a plain integer K here, the length of a scan.
      num_agents: N.
      num_steps: T, a multiple of `record_every`.
      seed: of the federation; may be traced.
      record_every: steps between records, a multiple of K; K by default.

    Raises:
      ValueError: a period that is traced, or lengths that are no multiples of each other.
    """
    arguments.check_algorithm(algorithm)
    num_agents = arguments.num_agents(num_agents)
    algorithm = algorithm.at(num_agents)
    period = algorithm.config.sync_period if algorithm.periodic else 1
    if not isinstance(period, int | np.integer):
        raise ValueError(f"sync_period is {period!r}; simulate takes a plain integer")
    period = int(period)
    num_steps = arguments.count("num_steps", num_steps, high=MAX_STEPS)
    record_every = period if record_every is None else record_every
    record_every = arguments.count("record_every", record_every)
    if not isinstance(seed, jax.core.Tracer):
        seed = np.uint32(arguments.seed("seed", seed))
    if record_every % period:
        raise ValueError(
            f"record_every is {record_every}; allowed: multiples of sync_period {period}"
        )
    if num_steps % record_every:
        raise ValueError(
            f"num_steps is {num_steps}; allowed: multiples of record_every {record_every}"
        )
    check_schedules(algorithm.config, num_steps)
    one = population(num_agents)
    functions = algorithm.functions(algorithm.config)
    params = bind([algorithm.parameters(algorithm.config, num_agents)])
    keys = streams.agent_keys(jnp.full(num_agents, seed), one.member_of)

    @jax.checkpoint
    def round_(state, _):
        return functions.round(one, params, state, period), None

    def record(state, _):
        state, _ = jax.lax.scan(round_, state, length=record_every // period)
        return state, functions.measure(one, params, state)

    state = functions.init(one, params, keys)
    state, metrics = jax.lax.scan(record, state, length=num_steps // record_every)
    sides = algorithm.metrics
    return Trajectory(
        {n: x[:, 0] if sides[n][0] == "federation" else x for n, x in metrics.items()}, state
    )


class Recording(NamedTuple):
    """When a run is measured: after `first` steps, then every `every`, `count` times in all."""

    first: int
    every: int
    count: int

    @property
    def times(self) -> np.ndarray:
        """Steps at each record, int64 [T]."""
        return self.first + self.every * np.arange(self.count, dtype=np.int64)

    @property
    def gaps(self) -> np.ndarray:
        """Steps before each record, uint32 [T]."""
        gaps = np.full(self.count, self.every, np.uint32)
        gaps[:1] = self.first
        return gaps


@dataclasses.dataclass(frozen=True)
class Job:
    """A population and how long to run it.

    Attributes:
      algorithm: any of the federations' configurations; they share the static properties.
      layout: which federation lies where.
      params: bound parameters with the entry `sync_period`, a scalar or [F].
      seeds: int [A] of the global agent axis.
      members: int [A].
      recording: when to measure.
      metrics: names to keep.
      chunk: records between two returns to the host.
      stop: None, or `(times [t], {metric: [t, F or A]}) -> bool [F]`, called between chunks with
        the records of the chunk, and after a resume with those of each chunk before: the job ends
        when it is true everywhere.
    """

    algorithm: Algorithm
    layout: Layout
    params: Params
    seeds: np.ndarray
    members: np.ndarray
    recording: Recording
    metrics: tuple[str, ...]
    chunk: int
    stop: Callable | None = None

    @functools.cached_property
    def identity(self) -> Hashable:
        """What shapes the programs, by content: what a schedule has enclosed may have changed."""
        one = self.algorithm
        return one.name, content(one.functions, one.static(one.config))

    @property
    def side_by_side(self) -> int:
        """What makes a step at a time: agents, or servers where time counts their steps."""
        agents, layout = len(self.seeds), self.layout
        if self.algorithm.on_clock:
            return layout.population.num_federations * layout.blocks[0]
        return agents


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


def compiler_options() -> dict:
    """Options for every program of the package on this backend."""
    if jax.default_backend() != "cpu":
        return {}
    return {
        # XLA prefers 256 bits; the inner loops are straight vector code and gain from 512 where
        # the machine has them.
        "xla_cpu_prefer_vector_width": "512",
        # One thread a program: a core each for several jobs, from as many Python threads, beats
        # two threads that split every small fusion between them and wait.
        "xla_cpu_multi_thread_eigen": False,
        # This scheduler has hung vmapped programs (jaxlib 0.10, jax issue 39257).
        "xla_cpu_enable_concurrency_optimized_scheduler": False,
    }


def threads(workers: int) -> futures.ThreadPoolExecutor:
    """Threads that compute in the precision of this one, which JAX keeps per thread."""
    double = _in_double_precision()
    return futures.ThreadPoolExecutor(
        workers, initializer=lambda: jax.enable_x64(double).__enter__()
    )


def _in_double_precision() -> bool:
    return jnp.result_type(float) == np.float64


class Programs:
    """Compiled programs by what shapes them, so that equal jobs compile once."""

    def __init__(self, size: int = 128) -> None:
        """Keeps the last `size` programs."""
        self._compiled: collections.OrderedDict = collections.OrderedDict()
        self._lock = threading.Lock()
        self._size = size

    def prepare(self, jobs: Sequence[Job], workers: int = 1) -> float:
        """Compiles what the jobs need and is not there yet, several at a time.

        Returns:
          The seconds it took, as wall time.
        """
        began = clock.perf_counter()
        missing = {self._key(job): job for job in jobs if self._key(job) not in self._compiled}
        with threads(workers) as pool:
            for key, programs in zip(missing, pool.map(_compile, missing.values()), strict=True):
                with self._lock:
                    self._compiled[key] = programs
        with self._lock:
            for key in list(self._compiled)[: max(0, len(self._compiled) - self._size)]:
                del self._compiled[key]
        return clock.perf_counter() - began

    def get(self, job: Job):
        """The two programs of a job: `init(params, keys)` and `chunk(params, state, gaps)`."""
        key = self._key(job)
        if key not in self._compiled:
            self.prepare([job])
        return self._compiled[key]

    @staticmethod
    def _key(job: Job):
        return (
            job.identity,
            job.layout.population,
            job.layout.blocks,
            job.chunk,
            job.metrics,
            _signature(job.params),
            _in_double_precision(),
            jax.config.jax_default_matmul_precision,
            jax.config.jax_threefry_partitionable,
            jax.config.jax_default_device,
        )


PROGRAMS = Programs()

# Bytes of an agent on the host while it is started: its seed, its place, its key and the words
# that this is made of.
_STARTING = 64


def bytes_of(job: Job) -> int:
    """Bytes that a job takes while it runs, of one device; it is compiled for that.

    What goes into the program, what comes out, both there at a time, and what it needs between.
    """
    _, again, _ = PROGRAMS.get(job)
    found = again.memory_analysis()
    inside = found.argument_size_in_bytes + found.output_size_in_bytes + found.temp_size_in_bytes
    return inside - found.alias_size_in_bytes + _STARTING * len(job.seeds)


def _signature(tree):
    leaves, structure = jax.tree.flatten(tree)
    return structure, tuple((x.shape, jnp.result_type(x)) for x in leaves)


def _compile(job: Job):
    functions = job.algorithm.functions(job.algorithm.config)
    local, layout = job.layout.population, job.layout
    specs = layout.params_specification(job.params)
    sides = job.algorithm.metrics

    def init(params, keys):
        return functions.init(local, params, keys)

    def chunk(params, state, gaps):
        def record(state, gap):
            state = functions.advance(local, params, state, gap)
            measured = functions.measure(local, params, state)
            return state, {n: measured[n] for n in job.metrics}

        return jax.lax.scan(record, state, gaps)

    keys = job_keys(job)
    # Shapes of the whole from shapes of one device's share: specs only need the structure.
    shape = jax.eval_shape(
        lambda p, k: functions.init(dataclasses.replace(local, axis_name=None), p, k), *_shard(job)
    )
    state_specs = layout.state_specification(shape)
    metric_specs = {n: layout.specification(0, sides[n][0], leading=1) for n in job.metrics}
    gap_spec = layout.specification(0, None)
    starts = jax.jit(layout.shard(init, (specs, layout.specification(0, "agent")), state_specs))
    chunks = jax.jit(
        layout.shard(chunk, (specs, state_specs, gap_spec), (state_specs, metric_specs))
    )
    params = layout.place(job.params, specs)
    keys = layout.place(keys, layout.specification(0, "agent"))
    options = compiler_options()
    first = starts.lower(params, keys).compile(compiler_options=options)
    state = jax.eval_shape(starts, params, keys)
    if layout.mesh is not None:
        state = jax.tree.map(
            lambda x, spec: jax.ShapeDtypeStruct(
                x.shape, x.dtype, sharding=jax.sharding.NamedSharding(layout.mesh, spec)
            ),
            state,
            state_specs,
        )
    gaps = jnp.zeros(job.chunk, jnp.uint32)
    gaps = layout.place(gaps, gap_spec)
    again = chunks.lower(params, state, gaps).compile(compiler_options=options)
    return first, again, (specs, state_specs, gap_spec)


def _shard(job: Job):
    """Abstract parameters and keys of one device's share, for shape inference."""
    down, across = job.layout.blocks
    params = job.params

    def cut(tree, parts):
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((x.shape[0] // parts, *x.shape[1:]), x.dtype), tree
        )

    keys = jax.eval_shape(lambda: job_keys(job))
    return (
        Params(cut(params.agent, down * across), cut(params.federation, down), params.shared),
        cut(keys, down * across),
    )


def job_keys(job: Job) -> jax.Array:
    """Typed keys [A] of the job's global agent axis."""
    return streams.agent_keys(job.seeds, job.members)


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
      checkpoints: None, or a `fedjax_rl.checkpoints.Checkpoints`.
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
    of_servers, of_agents = (state.server, state.server_memory), (state.agents, state.uplink_memory)
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
