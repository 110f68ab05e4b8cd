"""The compiled programs of a population: how it starts, and a chunk of records of it."""

from __future__ import annotations

import collections
import contextvars
import dataclasses
import functools
import math
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent import futures
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl import hosts, streams
from fedjax_rl.federation.algorithm import Algorithm
from fedjax_rl.federation.mesh import Layout
from fedjax_rl.federation.state import Params, State
from fedjax_rl.identity import content
from fedjax_rl.sweeps import compiling, of_agents

# A period that never comes due within the longest run.
NEVER = np.uint32(2**32 - 1)


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
      recorded: as of `of_agents.recorded`.
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
    recorded: tuple[int, ...] | None = None

    @functools.cached_property
    def identity(self) -> Hashable:
        """What shapes the programs, by content: what a schedule has enclosed may have changed."""
        one = self.algorithm
        return one.name, content(one.functions, one.static(one.config))

    @property
    def is_reduced(self) -> bool:
        """Whether metrics of agents are recorded as `of_agents.reduced` makes them."""
        return self.recorded is not None

    def side(self, metric: str) -> str:
        """Which axis the records of a metric have, "federation" or "agent"."""
        return "federation" if self.is_reduced else self.algorithm.metrics[metric][0]

    @property
    def side_by_side(self) -> int:
        """What makes a step at a time: agents, or servers where time counts their steps."""
        everybody = self.layout.whole
        return everybody.num_federations if self.algorithm.on_clock else everybody.num_agents


class Threads(futures.ThreadPoolExecutor):
    """Threads that compute as the one that hands work in, in what JAX and the engine keep of it."""

    def submit(self, function, /, *args, **values) -> futures.Future:
        """Calls a function in another thread, in the precision and the context of this one.

        Args:
          function: to be called.
          *args: of it.
          **values: of it, by name.

        Returns:
          The future of what it returns.
        """
        double, by_hand = jax.config.jax_enable_x64, jax.config.jax_disable_jit
        context = contextvars.copy_context()

        def alike():
            # Both are of a thread in JAX, and no part of the context that is copied.
            with jax.enable_x64(double), jax.disable_jit(by_hand):
                return context.run(function, *args, **values)

        return super().submit(alike)


class Programs:
    """Compiled programs by what shapes them, so that equal jobs compile once."""

    def __init__(self, size: int = 128) -> None:
        """Keeps the last `size` programs."""
        self._compiled: collections.OrderedDict = collections.OrderedDict()
        self._lock = threading.Lock()
        self._size = size

    def clear(self) -> None:
        """Lets go of all programs."""
        with self._lock:
            self._compiled.clear()

    def prepare(self, jobs: Sequence[Job], workers: int = 1) -> float:
        """Compiles what the jobs need and is not there yet, several at a time.

        Args:
          jobs: in any order; equal ones are compiled once.
          workers: programs at a time.

        Returns:
          The seconds it took, as wall time.
        """
        began = time.perf_counter()
        missing = {self._key(job): job for job in jobs if self._key(job) not in self._compiled}
        with Threads(workers) as pool:
            for key, programs in zip(missing, pool.map(_compile, missing.values()), strict=True):
                self._keep(key, programs)
        return time.perf_counter() - began

    def get(self, job: Job):
        """The two programs of a job: `init(params, keys)` and `chunk(params, state, gaps)`."""
        key = self._key(job)
        # Not looked up again: another thread's programs may have taken its place meanwhile.
        programs = self._compiled.get(key) or _compile(job)
        self._keep(key, programs)
        return programs

    def _keep(self, key, programs) -> None:
        """Keeps programs as those used last, and lets go of those that were not for longest."""
        with self._lock:
            self._compiled[key] = programs
            self._compiled.move_to_end(key)
            while len(self._compiled) > self._size:
                self._compiled.popitem(last=False)

    @staticmethod
    def _key(job: Job):
        # What JAX would trace anew for, too: programs are compiled by hand, so that nobody else
        # looks. Not the mesh, which follows from the blocks, and not the values of any parameter.
        leaves, structure = jax.tree.flatten(job.params)
        return (
            job.identity,
            job.layout.population,
            job.layout.blocks,
            job.chunk,
            job.metrics,
            job.recorded,
            structure,
            tuple((x.shape, jnp.result_type(x)) for x in leaves),
            jax.config.jax_enable_x64,
            jax.config.jax_default_matmul_precision,
            jax.config.jax_threefry_partitionable,
            jax.config.jax_default_device,
            jax.config.jax_disable_jit,
            compiling.is_quick(),
        )


PROGRAMS = Programs()


# Bytes of an agent on the host while it is started: its seed, its place, its key and the words
# that this is made of.
STARTING = 64


def bytes_of(job: Job) -> int:
    """Bytes that a job takes while it runs, of one device; it is compiled for that.

    What goes into the program, what comes out, both there at a time, and what it needs between.
    """
    # While debugging, too, there has to be a program that can be asked.
    with jax.disable_jit(False):
        _, again, _ = PROGRAMS.get(job)
    found = again.memory_analysis()
    inside = found.argument_size_in_bytes + found.output_size_in_bytes + found.temp_size_in_bytes
    # Output that takes the place of input has been counted twice.
    return inside - found.alias_size_in_bytes + STARTING * len(job.seeds)


def _compiles_slowly(job: Job) -> bool:
    """Whether copies of the step of the environment are worth avoiding."""
    task = getattr(job.algorithm.config, "task", None)
    return getattr(getattr(task, "env", None), "compiles_slowly", False)


class _InTurn(NamedTuple):
    """A chunk of records as two programs that compile side by side, called for every record.

    Evaluation has a copy of the environment's step, as the rounds have. Where that is compiled for
    seconds and runs for longer, calls from the host cost nothing.
    """

    advance: Callable
    measure: Callable

    def __call__(self, params, state, gaps) -> tuple[State, dict]:
        """The state after a chunk and the records, as from one program."""
        records = []
        for place in range(len(gaps)):
            state = self.advance(params, state, gaps[place])
            records.append(self.measure(params, state))
        return state, {n: np.stack([hosts.fetched(r[n]) for r in records]) for n in records[0]}

    def memory_analysis(self):
        """That of the program that keeps what is learned from."""
        return self.advance.memory_analysis()


class Program(NamedTuple):
    """A function that is to be compiled, and what it will be called with.

    Attributes:
      function: jitted.
      arguments: arrays, or their shapes.
    """

    function: Callable
    arguments: tuple


def programs_of(job: Job) -> tuple[dict[str, Program], tuple]:
    """What a job compiles.

    Args:
      job: any.

    Returns:
      "begin" `(params, keys) -> state`, and "chunk" `(params, state, gaps) -> (state, metrics)` or,
      of what compiles slowly, "advance" `(params, state, gap) -> state` and "measure"
      `(params, state) -> metrics`; and the partition specs of params, state and gaps.
    """
    functions = job.algorithm.functions(job.algorithm.config)
    local, layout = job.layout.population, job.layout
    specs = layout.params_specification(job.params)

    def init(params, keys):
        return functions.init(local, params, keys)

    def measure(params, state):
        measured = functions.measure(local, params, state)
        return {
            n: of_agents.reduced(local, measured[n], job.recorded)
            if job.is_reduced and job.algorithm.metrics[n][0] == "agent"
            else measured[n]
            for n in job.metrics
        }

    def chunk(params, state, gaps):
        def record(state, gap):
            state = functions.advance(local, params, state, gap)
            return state, measure(params, state)

        # Gaps are traced: every distance between records, and the rest of a run, is one program.
        return jax.lax.scan(record, state, gaps)

    gap_spec = layout.specification(0, None)
    if jax.config.jax_disable_jit:
        if layout.mesh is not None:
            count = math.prod(layout.blocks)
            raise ValueError(f"devices is {count}; allowed: 1 where nothing is compiled")
        return {"begin": Program(init, ()), "chunk": Program(chunk, ())}, (specs, None, None)
    keys = layout.place(job_keys(job), layout.specification(0, "agent"))
    params = layout.place(job.params, specs)
    if layout.mesh is None:  # which nothing is laid over, so that one trace tells everything
        begin = jax.jit(init)
        state = begin.trace(params, keys).out_info
        state_specs = layout.state_specification(state)
    else:
        # As if all were on one device: specs only need the structure.
        shape = jax.eval_shape(lambda p, k: functions.init(layout.whole, p, k), *_whole(job))
        state_specs = layout.state_specification(shape)
        parts = specs, layout.specification(0, "agent")
        begin = jax.jit(layout.shard(init, parts, state_specs))
        state = jax.tree.map(
            lambda x, spec: jax.ShapeDtypeStruct(
                x.shape, x.dtype, sharding=jax.sharding.NamedSharding(layout.mesh, spec)
            ),
            begin.trace(params, keys).out_info,
            state_specs,
        )
    made = {"begin": Program(begin, (params, keys))}
    if _compiles_slowly(job):
        metric_specs = {n: layout.specification(0, job.side(n)) for n in job.metrics}
        measures = layout.shard(measure, (specs, state_specs), metric_specs)
        advance = functools.partial(functions.advance, local)
        steps = layout.shard(advance, (specs, state_specs, gap_spec), state_specs)
        gap = layout.place(jnp.uint32(0), gap_spec)
        made["measure"] = Program(jax.jit(measures), (params, state))
        made["advance"] = Program(jax.jit(steps, donate_argnums=1), (params, state, gap))
    else:
        metric_specs = {n: layout.specification(0, job.side(n), leading=1) for n in job.metrics}
        chunks = layout.shard(chunk, (specs, state_specs, gap_spec), (state_specs, metric_specs))
        gaps = layout.place(jnp.zeros(job.chunk, jnp.uint32), gap_spec)
        # The state before is nobody's any more: that after it takes its place.
        made["chunk"] = Program(jax.jit(chunks, donate_argnums=1), (params, state, gaps))
    return made, (specs, state_specs, gap_spec)


def _compile(job: Job):
    programs, specs = programs_of(job)
    if jax.config.jax_disable_jit:
        return *(one.function for one in programs.values()), specs
    pending, quickly = {}, compiling.is_quick()
    # One program is traced while another one compiles, for which Python has nothing to do.
    with Threads(len(programs)) as pool:
        for name, one in programs.items():
            lowered = one.function.lower(*one.arguments)
            options = compiling.compiler_options(runs_once=quickly or name == "begin")
            pending[name] = pool.submit(lowered.compile, compiler_options=options)
    made = {name: one.result() for name, one in pending.items()}
    again = made["chunk"] if "chunk" in made else _InTurn(made["advance"], made["measure"])
    return made["begin"], again, specs


def _whole(job: Job):
    """Abstract parameters and keys without the places that hold nobody, for shape inference."""
    count = job.layout.whole.num_agents

    def cut(tree):
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct((count, *x.shape[1:]), x.dtype), tree)

    keys = jax.eval_shape(lambda: job_keys(job))
    return dataclasses.replace(job.params, agent=cut(job.params.agent)), cut(keys)


def job_keys(job: Job) -> jax.Array:
    """Typed keys [A] of the job's global agent axis."""
    return streams.agent_keys(job.seeds, job.members)
