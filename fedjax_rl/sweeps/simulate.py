"""One federation as one pure function, to be jitted, vmapped and differentiated."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import NamedTuple

import jax

from fedjax_rl import fields
from fedjax_rl.federation.algorithm import Algorithm
from fedjax_rl.federation.debugging import debugging
from fedjax_rl.federation.state import State
from fedjax_rl.fields import check_schedules
from fedjax_rl.sweeps import arguments
from fedjax_rl.sweeps.stepping import init, period_of, stepper


class Trajectory(NamedTuple):
    """What `simulate` returns.

    Example:
      >>> import fedjax_rl as frl
      >>> algorithm = frl.fedq(frl.envs.paper_mdp(), epsilon=1.0)
      >>> trajectory = frl.simulate(algorithm, num_agents=2, num_steps=20)
      >>> trajectory.metrics["error_local"].shape, int(trajectory.state.time)
      ((20, 2), 20)

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
    debug: bool = False,
) -> Trajectory:
    """One federation from start to end, as one pure function.

    Traceable: properties of the algorithm may be tracers, so that `jax.grad`, `jax.jvp`,
    `jax.vmap` and `jax.jit` apply to anything traced: learning rate, schedule, aggregation
    weights, mixing, rewards. Reverse mode recomputes each round from its start, so memory grows
    with the number of rounds plus K, not with the number of steps.

    Example:
      >>> import jax
      >>> import fedjax_rl as frl
      >>> algorithm = frl.fedq(frl.envs.paper_mdp(), epsilon=1.0)
      >>> def error(rate):
      ...     one = algorithm.replace(learning_rate=rate)
      ...     return frl.simulate(one, num_agents=2, num_steps=20).metrics["error_server"][-1]
      >>> bool(jax.grad(error)(0.1) < 0)  # a larger rate would learn more in these steps
      True

    Args:
      algorithm: its `sync_period` is a plain integer K here, the length of a scan.
      num_agents: N.
      num_steps: T, a multiple of `record_every`.
      seed: of the federation; may be traced.
      record_every: steps between records, a multiple of K; K by default.
      debug: runs without compiling anything, one agent after the other, so that prints and
        breakpoints in an algorithm's own functions show numbers; see `sweep`.

    Returns:
      The metrics at each record and the state at the end.

    Raises:
      FloatingPointError: with `debug`, at the first value that is no longer finite.
      ValueError: a period that is traced, or lengths that are no multiples of each other.
    """
    arguments.check_algorithm(algorithm)
    fields.check("debug", debug, fields.switch())
    num_agents = arguments.num_agents(num_agents)
    algorithm = algorithm.at(num_agents)
    lengths = lengths_of(algorithm, num_steps, record_every)
    with debugging(algorithm.unit) if debug else contextlib.nullcontext():
        first = init(algorithm, num_agents, seed)
        steps = stepper(algorithm, num_agents)
        state, metrics = recorded(steps, first.params, first.state, lengths, steps.measure)
    return Trajectory(metrics, state)


class Lengths(NamedTuple):
    """How long a run is: `records` times so many `rounds`."""

    records: int
    rounds: int


def lengths_of(algorithm: Algorithm, num_steps: int, record_every: int | None) -> Lengths:
    """How long a run is that scans of static lengths make.

    Args:
      algorithm: with its functions of N evaluated.
      num_steps: T, a multiple of `record_every`.
      record_every: units of time between records, a multiple of those of a round, which it is by
        default.

    Raises:
      ValueError: lengths that are no multiples of each other.
    """
    period = period_of(algorithm)
    num_steps = arguments.count("num_steps", num_steps, high=arguments.LIMIT)
    record_every = period if record_every is None else record_every
    record_every = arguments.count("record_every", record_every)
    if record_every % period:
        raise ValueError(
            f"record_every is {record_every}; allowed: multiples of sync_period {period}"
        )
    if num_steps % record_every:
        raise ValueError(
            f"num_steps is {num_steps}; allowed: multiples of record_every {record_every}"
        )
    check_schedules(algorithm.config, num_steps)
    return Lengths(num_steps // record_every, record_every // period)


def recorded(steps, params, state: State, lengths: Lengths, measure: Callable) -> tuple:
    """So many rounds, looked at from time to time; differentiable in both modes.

    Args:
      steps: the `Stepper` of an algorithm.
      params: traced properties.
      state: before the first round.
      lengths: of the run.
      measure: `(params, state) -> pytree`.

    Returns:
      The state at the end, and what was measured, leaves [records, ...].
    """

    def round_(state, _):
        return steps.round(params, state), None

    # What is to be made once more on the way back is traced, even where nothing is compiled.
    again = round_ if jax.config.jax_disable_jit else jax.checkpoint(round_)

    def record(state, _):
        # Scans of static lengths: a `while_loop`, as in a sweep, has no reverse mode.
        state, _ = jax.lax.scan(again, state, length=lengths.rounds)
        return state, measure(params, state)

    return jax.lax.scan(record, state, length=lengths.records)
