"""Timing alternatives against each other: interleaved, CPU time beside wall time, saved as JSON."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import os
import pathlib
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from fedjax_rl import streams
from fedjax_rl.federation import population
from fedjax_rl.federation.algorithm import bind
from fedjax_rl.saving import results
from fedjax_rl.sweeps.compiling import compiler_options

PACKAGES = ("numba", "llvmlite", "gymnasium", "gymnax", "evosax", "rejax")


@dataclasses.dataclass(frozen=True)
class Timing:
    """What one alternative did in one case.

    Attributes:
      cpu: units of work per second of the process's CPU time, one entry per repeat.
      wall: units of work per second of wall time, one entry per repeat.
      peak_bytes: see `PeakMemory`.
    """

    cpu: tuple[float, ...]
    wall: tuple[float, ...]
    peak_bytes: int

    def rates(self, clock: str) -> tuple[float, ...]:
        """Those of one of the two clocks, "cpu" or "wall"."""
        return getattr(self, clock)


class PeakMemory:
    """The largest resident set of the whole process between `reset` and `read`, in bytes.

    It contains the interpreter and every library loaded so far, so only differences between rows
    mean something. Linux can reset its high-water mark; elsewhere it is the mark since the start
    of the process. Where JAX counts the memory of an accelerator, its peak since the start of the
    process is reported instead.
    """

    def reset(self) -> None:
        """Forgets the peak so far, where the system allows it."""
        with contextlib.suppress(OSError):
            pathlib.Path("/proc/self/clear_refs").write_text("5")

    def read(self) -> int:
        """The peak since `reset`, in bytes."""
        stats = jax.local_devices()[0].memory_stats()
        if stats and "peak_bytes_in_use" in stats:
            return int(stats["peak_bytes_in_use"])
        with contextlib.suppress(OSError):
            for line in pathlib.Path("/proc/self/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


class Call(NamedTuple):
    """Something to be timed.

    Attributes:
      run: makes the work.
      units: of one call, or a function that says how many after it.
      compile_seconds: of wall time.
    """

    run: Callable
    units: int | Callable[[], int]
    compile_seconds: float


def compiled(function: Callable, *arguments):
    """The program of a function and the seconds that it took to make it."""
    start = time.perf_counter()
    program = jax.jit(function).lower(*arguments).compile(compiler_options=compiler_options())
    return program, time.perf_counter() - start


def alternatives(make: Callable[[], Mapping[str, Callable]], units: int) -> dict[str, Call]:
    """Calls of so many units each, and for each an equal part of the time that making them took."""
    start = time.perf_counter()
    made = make()
    seconds = (time.perf_counter() - start) / len(made)
    return {row: Call(call, units, seconds) for row, call in made.items()}


def cores() -> int:
    """Of this machine, those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def started(algorithm, num_agents: int, federations: int = 1):
    """Population, functions, parameters and first state of so many federations."""
    everybody = population([num_agents] * federations)
    params = bind([algorithm.parameters(algorithm.config, num_agents)] * federations)
    params = jax.tree.map(lambda x: x.astype(jnp.float32) if x.dtype.kind == "f" else x, params)
    if algorithm.periodic:  # as in a sweep, where all federations have the same one
        params.shared["sync_period"] = jnp.uint32(algorithm.config.sync_period)
    keys = streams.agent_keys(np.repeat(np.arange(federations), num_agents), everybody.member_of)
    functions = algorithm.functions(algorithm.config)
    state = jax.jit(lambda p, k: functions.init(everybody, p, k))(params, keys)
    return everybody, functions, params, state


def measure(
    alternatives: Mapping[str, Callable[[], object]],
    units: Mapping[str, int | Callable[[], int]],
    repeats: int,
) -> dict[str, Timing]:
    """Times alternatives in turn, `repeats` times around.

    A machine that slows down slows all of them alike, because they take turns; every second turn
    goes backwards, so that none always runs after the same neighbour.

    Args:
      alternatives: name -> a call that returns what it computed, JAX arrays or anything else.
        Each is called once before, unmeasured.
      units: name -> units of work in one call, or what says how many after it.
      repeats: turns, at least 1.
    """
    memory, peaks = PeakMemory(), {}
    for name, call in alternatives.items():
        memory.reset()
        jax.block_until_ready(call())
        peaks[name] = memory.read()
    cpu, wall = ({name: [] for name in alternatives} for _ in range(2))
    for turn in range(repeats):
        for name in list(alternatives)[:: -1 if turn % 2 else 1]:
            cpu_start, wall_start = time.process_time(), time.perf_counter()
            jax.block_until_ready(alternatives[name]())
            cpu_seconds = time.process_time() - cpu_start
            wall_seconds = time.perf_counter() - wall_start
            count = units[name]() if callable(units[name]) else units[name]
            cpu[name].append(count / max(cpu_seconds, 1e-9))
            wall[name].append(count / max(wall_seconds, 1e-9))
    return {name: Timing(tuple(cpu[name]), tuple(wall[name]), peaks[name]) for name in cpu}


def measure_calls(calls: Mapping[str, Call], repeats: int) -> dict[str, Timing]:
    """The same for calls that know their units."""
    runs = {name: call.run for name, call in calls.items()}
    return measure(runs, {name: call.units for name, call in calls.items()}, repeats)


def clock() -> str:
    """The clock of rates: CPU time, or on an accelerator, where it says nothing, wall time."""
    return "cpu" if jax.default_backend() == "cpu" else "wall"


def table(
    cases: Iterable[tuple[str, Mapping[str, Call]]],
    units: str,
    arguments,
    *,
    repeats: int | None = None,
    at_least: int = 1,
    measure: Callable = measure_calls,
) -> list[dict]:
    """Rows, one per alternative, of cases that are made one after the other.

    Args:
      cases: name of a case and its alternatives. What a generator does after a pair is done when
        that is timed.
      units: what rates count.
      arguments: of the line, with `repeats` and `wanted`.
      repeats: turns; those of the line by default.
      at_least: turns, whatever the line says.
      measure: `(calls, repeats) -> {row: Timing}`.
    """
    timings, compiled = {}, {}
    for case, calls in cases:
        calls = arguments.wanted(calls)
        compiled[case] = {row: call.compile_seconds for row, call in calls.items()}
        timings[case] = measure(calls, max(at_least, repeats or arguments.repeats))
        print(f"{case}: timed", file=sys.stderr, flush=True)
    second = "core-second" if clock() == "cpu" else "second"
    return rows(timings, compiled, f"{units} per {second}", clock())


def target(name: str, measured: float, limit: float, *, most: bool = False) -> dict:
    """What a number should come to, at least or at most."""
    met = measured <= limit if most else measured >= limit
    return {"id": name, "measured": measured, "limit": limit, "met": bool(met)}


def rows(
    timings: Mapping[str, Mapping[str, Timing]],
    compiled: Mapping[str, Mapping[str, float]],
    unit: str,
    clock: str = "cpu",
) -> list[dict]:
    """One row per alternative, from case -> alternative -> what it did.

    A case's ratio of two alternatives is the median over the turns of the ratio within a turn; a
    row's is the median over the cases. A row's median, low and high are the medians over the cases
    of the case's.

    Args:
      timings: case -> alternative -> `Timing`.
      compiled: case -> alternative -> seconds of wall time spent compiling.
      unit: of the rates.
      clock: the clock of rates and ratios, "cpu" or "wall".
    """
    names = list(next(iter(timings.values())))
    out = []
    for name in names:
        cases = {}
        for case, of in timings.items():
            own = of[name].rates(clock)
            cases[case] = {
                "median": statistics.median(own),
                "low": min(own),
                "high": max(own),
                "wall": statistics.median(of[name].wall),
                "compile_seconds": compiled[case][name],
                "ratio": {
                    other: statistics.median(
                        a / b for a, b in zip(own, of[other].rates(clock), strict=True)
                    )
                    for other in names
                    if other != name
                },
            }
        out.append(
            {
                "name": name,
                "unit": unit,
                **{
                    key: statistics.median(case[key] for case in cases.values())
                    for key in ("median", "low", "high")
                },
                "compile_seconds": sum(compiled[case][name] for case in timings),
                "peak_bytes": max(of[name].peak_bytes for of in timings.values()),
                "ratio": {
                    other: statistics.median(case["ratio"][other] for case in cases.values())
                    for other in names
                    if other != name
                },
                "cases": cases,
            }
        )
    return out


def report(case: str, rows: list[dict], **more) -> dict:
    """The content of the JSON file of a benchmark."""
    versions = results.versions()
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return {
        "case": case,
        "device": results.device(),
        "versions": versions,
        "rows": rows,
        **more,
    }


def show(content: dict, subject: str) -> None:
    """Prints a table of rates with the ratios of the row `subject`, and the limits met or not."""
    console = Console()
    found = content["rows"]
    lead = next(row for row in found if row["name"] == subject)
    table = Table(title=f"{content['case']} on {content['device']}")
    table.add_column("case")
    for row in found:
        table.add_column(row["name"], justify="right")
    for case in lead["cases"]:
        table.add_row(case, *(_cell(row["cases"][case], lead, row, case) for row in found))
    table.add_section()
    table.add_row("median over cases", *(_cell(row, lead, row, None) for row in found))
    table.add_row("compile seconds", *(f"{row['compile_seconds']:.1f}" for row in found))
    table.add_row("peak MB of process", *(f"{row['peak_bytes'] / 1e6:.0f}" for row in found))
    console.print(table)
    console.print(
        f"millions of {found[0]['unit']}; in brackets how many times that of the row {subject} is"
    )
    for target in content.get("targets", ()):
        verdict = "met" if target["met"] else "NOT met"
        console.print(
            f"{target['id']}: {target['measured']:.3f}, limit {target['limit']}: {verdict}"
        )


def show_plain(content: dict) -> None:
    """Prints a table of rows that are not compared case by case."""
    table = Table(title=f"{content['case']} on {content['device']}")
    columns = ("median", "low", "high", "compile_seconds")
    for column in ("row", *columns, "peak MB"):
        table.add_column(column, justify="left" if column == "row" else "right")
    for row in content["rows"]:
        numbers = (f"{row[column]:.1f}" for column in columns)
        table.add_row(row["name"], *numbers, f"{row['peak_bytes'] / 1e6:.0f}")
    console = Console()
    console.print(table)
    console.print(content["rows"][0]["unit"])


def _cell(numbers: dict, lead: dict, row: dict, case: str | None) -> str:
    text = f"{numbers['median'] / 1e6:.1f}"
    if row is lead:
        return text
    ratio = (lead if case is None else lead["cases"][case])["ratio"][row["name"]]
    return f"{text} ({ratio:.2f})"
