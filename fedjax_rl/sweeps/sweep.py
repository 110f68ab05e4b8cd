"""A grid of configurations -> populations -> chunks of rounds -> labelled results."""

from __future__ import annotations

import dataclasses
import inspect
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import xarray as xr

from fedjax_rl import fields, hosts, memory
from fedjax_rl.federation.algorithm import Algorithm
from fedjax_rl.names import brief, check_known
from fedjax_rl.sweeps import arguments
from fedjax_rl.sweeps.batches import Begun, carry_out
from fedjax_rl.sweeps.cells import Cell, check_different
from fedjax_rl.sweeps.collect import unstacked
from fedjax_rl.sweeps.grid import Grid, grid
from fedjax_rl.sweeps.run import Outcome
from fedjax_rl.sweeps.run_arguments import Run, taking_run

# Bytes of states that a result keeps, so that it can be gone on with.
MOST_KEPT = 2**30


@taking_run
def sweep(
    algorithm: Algorithm | Sequence[Algorithm] | Mapping[str, Algorithm],
    *,
    num_agents: int | Sequence[int] = 1,
    seeds: int | Iterable[int] = 0,
    **properties,
) -> xr.Dataset:
    """Every combination of the given values, as one array program.

    A list sweeps; anything else is one value, such as a tuple where values are tuples
    (`network=(8, 4)`). `frl.each([...])` sweeps whatever is in it. `frl.by_agents(f)` follows
    `num_agents` and becomes a coordinate along it. An array of what may differ between agents is
    refused, as it could mean both: `[array]` is one value, `frl.each(array)` one for each entry.

    Example:
      >>> import fedjax_rl as frl
      >>> mdp = frl.envs.paper_mdp()
      >>> result = frl.sweep(
      ...     {"mean": frl.fedq(mdp), "noisy": frl.fedq(mdp, reward_noise=0.1)},
      ...     num_agents=[1, 2],
      ...     learning_rate=frl.by_agents(lambda num_agents: 0.05 * num_agents),
      ...     seeds=range(3),
      ...     num_steps=20,
      ...     record_every=10,
      ... )
      >>> result.error_server.dims
      ('algorithm', 'num_agents', 'seed', 'time')

    Args:
      algorithm: such as `fedq(mdp)`; its own properties hold where none is given. Several, in a
        list or as `{label: algorithm}`, are compared along the axis `algorithm`: they count time in
        the same unit, and have every property that is given here. Each is as if it were alone.
      num_steps: T, local steps of every agent.
      num_agents: N, one or several.
      seeds: one or several, different whole numbers from 0 to 2^32 - 1; agent i of a federation
        draws the stream of (seed, i) whatever the rest of the sweep.
      record_every: steps between records; about 100 records by default.
      first_record: steps before the first record; `record_every` by default.
      metrics: names to record, of any of the configurations; those per federation by default. Of a
        federation of more than 65536 agents a metric of agents is recorded of the first 16, and
        as `NAME_mean_of_agents` and `NAME_quantiles`, over all of them.
      agents: places of agents in their federation, such as `[0, 5, 99_999]`: metrics of agents are
        recorded of these, whatever the size of a federation, and as mean and quantiles over all.
      devices: how many to spread the agents over, at most: none does another one's work again. One
        by default; all that there are where several processes, which have found each other by
        `jax.distributed.initialize`, make the same calls. Each of them gets the whole result; the
        first one calls `progress` and `watch`.
      workers: jobs at a time, at most, where memory holds so many; on CPU one per core by default.
      chunk: records between two returns to the host.
      stop: `(times [t], {metric: [t, F or F, N]}, cells) -> bool [F]`, called between chunks with
        the records of the chunk for these cells, and after a resume with those of each chunk
        before: ends a population early when true for all of its federations; the records not made
        are NaN.
      checkpoints: directory for checkpoints; a second call with the same arguments, or with more
        `num_steps` and the same recording, more `seeds` after the others or more algorithms, goes
        on to the same bits, whatever the cores or the free memory are by then. Arguments that
        change the numbers are refused by name. A function that returns the directory is called
        once the arguments are found good. Ctrl-C, SIGTERM and SIGHUP save before they end the
        process.
      progress: True for a bar in a terminal or a notebook, which is the default where IPython runs;
        False for none; or a function that is called between chunks with what is done and what
        there is in all, in agent-steps (in steps of servers where time counts these).
      watch: called between chunks with the mean over federations of each metric, as last recorded,
        and of each of the ledger's totals.
      cache: whether programs are kept on disk once they are compiled, in the user's cache
        directory, for other processes too, unless JAX is told another place; see
        `fedjax_rl.sweeps.cache`.
      debug: runs without compiling anything, one agent after the other, so that prints and
        breakpoints in an algorithm's own functions show numbers. The first value that is no
        longer finite ends the run with a FloatingPointError that names its time, agent and place.
      **properties: of the algorithm, lists to sweep.

    Returns:
      A Dataset with a dimension per list, then `seed` where several were given, and `time` (steps
      at each record), `agent` for metrics per agent (NaN past N). A metric that a configuration
      does not have is NaN there. Beside them the ledger's totals; `diverged`, true where something
      that servers or agents hold is not finite at the end, or has no finite square, whatever is
      recorded; `phase`, steps since the last exchange at each record, where time counts steps.
      Labels of an axis are its numbers, the names of clocks, uplinks, tasks and tuples, or else
      places from 0 on.

    Raises:
      ValueError: naming the argument, its value and what is allowed, before anything compiles.
    """
    algorithms = arguments.algorithms(algorithm)
    for name in properties:
        for one in algorithms.values():
            known = (*one.properties, *_RUN, "num_agents", "seeds")
            check_known(name, known, f"argument of sweep or property of {one.name}")
    run = Run.taken(properties)
    made = grid(algorithms, num_agents, seeds, properties)
    return _carried_out(made, run)


@taking_run
def run_cells(
    algorithm: Algorithm | Sequence[Algorithm] | Mapping[str, Algorithm],
    cells: Sequence[Cell],
    **options,
) -> xr.Dataset:
    """Any list of federations, not necessarily a product.

    Example:
      >>> import fedjax_rl as frl
      >>> cells = [frl.Cell(1, 0, {"learning_rate": 0.1}), frl.Cell(4, 0, {"learning_rate": 0.3})]
      >>> algorithm = frl.fedq(frl.envs.paper_mdp(), epsilon=1.0)
      >>> frl.run_cells(algorithm, cells, num_steps=20)["learning_rate"].values
      array([0.1, 0.3])

    Args:
      algorithm: as of `sweep`; of several, each cell names one by its label.
      cells: federations that differ.
      **options: as of `sweep`.

    Returns:
      A Dataset with the dimension `cell` in the order given, and every property that differs as a
      coordinate along it.

    Raises:
      ValueError: naming the argument, its value and what is allowed, before anything compiles.
    """
    algorithms = arguments.algorithms(algorithm)
    cells = [Cell(*own) for own in arguments.cells(cells, algorithms)]
    check_different(cells)
    for name in options:
        check_known(name, _RUN, "argument of run_cells")
    return carry_out(algorithms, cells, Run.taken(options))[0]


_RUN = inspect.signature(Run).parameters


def extend(
    result: xr.Dataset,
    *,
    seeds: int | Iterable[int] | None = None,
    num_steps: int | None = None,
    progress: bool | Callable[[int, int], None] | None = None,
    watch: Callable[[dict[str, float]], None] | None = None,
) -> xr.Dataset:
    """Adds seeds or steps to a result, simulating only what is not there yet.

    Models and counts are the same bits as those of one `sweep` with all of them, recorded as the
    first one was; a mean over agents may differ in its last digit, as more federations at a time
    are summed in another order. A result knows what it was made with for as long as this process
    keeps it; what is derived from it, or loaded from a file, does not. Runs that are to outlive a
    process are given `checkpoints`, and are extended by the same call of `sweep` with more seeds or
    steps.

    Example:
      >>> import fedjax_rl as frl
      >>> algorithm = frl.fedq(frl.envs.paper_mdp(), epsilon=1.0)
      >>> result = frl.sweep(algorithm, seeds=range(2), num_steps=20, record_every=10)
      >>> longer = frl.extend(result, seeds=range(3), num_steps=40)
      >>> dict(longer.sizes)
      {'seed': 3, 'time': 4}

    Args:
      result: what `sweep` or `extend` returned.
      seeds: further ones; those that are there already stay first.
      num_steps: T, steps in all of every federation.
      progress: as of `sweep`.
      watch: as of `sweep`.

    Returns:
      A Dataset as of `sweep`.

    Raises:
      ValueError: a result that is not known, fewer steps than it has, another precision, or
        nothing to add.
    """
    made = _known(result)
    if seeds is None and num_steps is None:
        raise ValueError("extend is given neither seeds nor num_steps; allowed: one, or both")
    grid, run = made.grid, made.run
    if seeds is not None:
        more = arguments.seeds(seeds)
        more = more if isinstance(more, list) else [more]
        union = list(dict.fromkeys([*grid.seeds, *more]))
        if len(union) > len(grid.seeds):
            grid = grid._replace(axes={**grid.axes, "seed": union}, seed=None)
    if num_steps is not None:
        most = arguments.count("num_steps", num_steps, low=run.num_steps)
        if most > run.num_steps and not made.has_states:
            raise ValueError(
                f"num_steps is {most}, but the end of this result is not in memory, as it takes "
                f"more than {memory.words(MOST_KEPT)} or lies over several processes; allowed: "
                "sweep(..., checkpoints=directory)"
            )
        run = dataclasses.replace(run, num_steps=most)
    run = dataclasses.replace(run, progress=progress, watch=watch)
    fields.check_config(run)
    return _carried_out(grid, run, made.begun)


class _Made(NamedTuple):
    """What a result was made with.

    Attributes:
      grid, run: as of `carry_out`.
      begun: what has come of it.
      has_states: whether that has the states at the end, to go on from.
      precision: of the simulation.
    """

    grid: Grid
    run: Run
    begun: list[Begun]
    has_states: bool
    precision: jnp.dtype


# By the id of a result, for as long as it is there; a Dataset cannot be hashed.
_RESULTS: dict[int, tuple[weakref.ref, _Made]] = {}


def _carried_out(grid: Grid, run: Run, begun: Sequence[Begun] = ()) -> xr.Dataset:
    """A grid simulated, as a Dataset that can be extended."""
    flat, done = carry_out(grid.algorithms, grid.cells, run, begun)
    result = unstacked(flat, grid)
    # On the host: what somebody keeps to look at must not fill the memory of a device.
    size = memory.size([one.state for own in done for one in own.outcomes])
    # Nor that of this process with what lies over several.
    has_states = size <= MOST_KEPT and hosts.count() == 1
    done = [own._replace(outcomes=[_kept(one, has_states) for one in own.outcomes]) for own in done]
    key = id(result)
    whole = _Made(grid, run, done, has_states, jnp.result_type(float))
    # Weakly: what is known of a result must not keep it, and ids are given away again.
    _RESULTS[key] = weakref.ref(result, lambda _: _RESULTS.pop(key, None)), whole
    return result


def _kept(outcome: Outcome, whole: bool) -> Outcome:
    """An outcome on the host, with the state at the end or with its ledger alone."""
    state = outcome.state
    if not whole:
        names = (field.name for field in dataclasses.fields(state) if field.name != "ledger")
        state = dataclasses.replace(state, **dict.fromkeys(names))
    return outcome._replace(state=jax.device_get(state))


def _known(result) -> _Made:
    """What a result was made with.

    Raises:
      ValueError: nobody knows, or it was in another precision.
    """
    found, made = _RESULTS.get(id(result), (lambda: None, None))
    if found() is not result or result is None:
        kind = "a Dataset" if isinstance(result, xr.Dataset) else brief(result)
        raise ValueError(
            f"result is {kind} that no sweep of this process has returned; allowed: what sweep or "
            "extend returned, as it was; a run with checkpoints is extended by the same sweep with "
            "more seeds or num_steps"
        )
    if (now := jnp.result_type(float)) != made.precision:
        raise ValueError(f"result is of {made.precision}; allowed: {now}, as jax_enable_x64 says")
    return made
