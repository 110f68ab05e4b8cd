"""The cases of the benchmark, one file each; none starts JAX before it is asked for rows."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

NAMES = (
    *("fedq", "uplinks", "scaling", "commands", "es", "episodes", "gradients", "differentiate"),
    *("clock", "brax", "returns", "procgen", "ppo"),
)
# One XLA thread a core; the scheduler for many small operations hangs on many small loops.
ONE_THREAD = {"NPROC": "1"}
SMALL_LOOPS = {
    **ONE_THREAD,
    "XLA_FLAGS": "--xla_cpu_enable_concurrency_optimized_scheduler=false",
    "OMP_NUM_THREADS": "1",
}


class Case(NamedTuple):
    """What is measured, and what it should come to.

    Attributes:
      rows: `arguments -> {"rows": ..., and what else is reported}`; alternatives interleaved.
      units: what a rate counts, such as "agent-steps"; None where rows are no rates.
      limits: `content -> targets`, from what `rows` gave; `harness.target` makes one.
      repeats: turns, by default.
      subject: the row whose ratios to the others are shown; None for a table without ratios.
      environment: variables that are set before JAX starts, unless they are set already.
      show: prints the content; by the subject by default.
      note: what stands below what was measured: what bounds it, and why a limit is not met.
      peers: packages without which the subject is measured alone.
    """

    rows: Callable[[argparse.Namespace], dict]
    units: str | None
    limits: Callable[[dict], list[dict]]
    repeats: int
    subject: str | None = None
    environment: Mapping[str, str] = SMALL_LOOPS
    show: Callable[[dict], None] | None = None
    note: str = ""
    peers: tuple[str, ...] = ()


def case(name: str) -> Case:
    """The case of that name."""
    return importlib.import_module(f"cases.{name}").CASE


def measured(name: str, arguments: argparse.Namespace) -> dict:
    """Runs a case and returns the content of its JSON file."""
    one = case(name)
    for variable, value in one.environment.items():
        os.environ.setdefault(variable, value)
    import harness

    missing = [package for package in one.peers if importlib.util.find_spec(package) is None]
    if missing and not arguments.only:
        said = f'needs {", ".join(missing)}; `pip install ".[bench]"` has what it takes'
        print(f"{name}: {one.subject} is measured alone, as every other row {said}")
        arguments.only = (one.subject,)
    content = one.rows(arguments)
    # A ratio to a row that was left out has no limit.
    targets = [] if arguments.only else one.limits(content)
    return harness.report(name, repeats=arguments.repeats, **content, targets=targets)


def show(name: str, content: dict) -> None:
    """Prints what was measured."""
    import harness

    one = case(name)
    if one.show is not None:
        one.show(content)
    elif one.subject is not None and one.subject in {row["name"] for row in content["rows"]}:
        harness.show(content, one.subject)
    else:
        harness.show_plain(content)


def here() -> pathlib.Path:
    """The folder of the benchmark."""
    return pathlib.Path(__file__).resolve().parents[1]
