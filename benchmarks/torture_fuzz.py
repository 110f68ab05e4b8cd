"""Hands values of every kind to everything that takes one, as far as compiling.

Every case is refused by one sentence that names the argument, its value and what is allowed, or
accepted and then fits by an oracle that shares no code with the checks. What is counted, and has
to be zero: raw exceptions, hangs, refusals without a name, nonsense accepted.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import os
import re
import resource
import signal
import tempfile
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

# Seconds after which a case hangs. `doctor` compiles brax for 15 s, and longer beside others.
LIMIT = 60.0
# Bytes that the process may take: a case that wants all the memory must not get it.
MEMORY = 8 * 2**30
OUTCOMES = ("refused", "accepted", "raw", "hang", "unnamed", "nonsense")
WRONG = OUTCOMES[2:]


class Reached(BaseException):
    """Everything was checked: the next step would compile."""


class Late(BaseException):
    """A case has taken too long."""


class Case(NamedTuple):
    """What was tried and what came of it."""

    target: str
    argument: str
    value: str
    outcome: str
    words: str


def options(parser) -> None:
    """Adds the options of `fuzz` to a parser."""
    parser.add_argument("--cases", type=int, default=30_000, help="how many values to try")
    parser.add_argument("--seed", type=int, default=0, help="of their choice")
    parser.add_argument("--pairs", type=int, default=20, help="of properties, of each algorithm")
    parser.add_argument("--show", type=int, default=3, help="examples of each fault")
    parser.add_argument("--only", default="", help="targets whose name has this in it")
    parser.add_argument("--log", default=None, help="a file for all that was not refused well")


def main(arguments) -> int:
    """Runs the cases, prints what came of them, and returns 1 where anything was wrong."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    cases = run(arguments.cases, arguments.seed, arguments.only)
    cases += run_pairs(arguments.pairs, arguments.seed)
    report(cases, arguments.show)
    if arguments.log:
        with open(arguments.log, "w") as file:
            for case in cases:
                if case.outcome != "refused":
                    print(*case, sep="\t", file=file)
    return int(any(case.outcome in WRONG for case in cases))


def run(number: int, seed: int = 0, only: str = "") -> list[Case]:
    """Tries so many values, a twentieth of them on the command line."""
    import torture_line

    rng = np.random.default_rng(seed)
    targets = [t for t in everything() if only in f"{t.name}.{t.argument}"]
    lines = 0 if only not in "command line" else max(1, number // 20)
    with _stopping_at_compilation(), tempfile.TemporaryDirectory() as place, _inside(place):
        cases = [tried(*pair) for pair in _chosen(targets, number - lines, rng)] if targets else []
        return cases + torture_line.run(lines, rng)


def everything() -> list:
    """All targets but the command line's."""
    import torture_environments
    import torture_records
    import torture_targets as runs

    groups = (
        *(torture_records.of_algorithms, torture_records.of_records),
        *(runs.of_runs, runs.of_comparisons, runs.of_steps, runs.of_uplinks, runs.of_clocks),
        torture_environments.of_environments,
    )
    return [target for group in groups for target in group()]


def run_pairs(number: int, seed: int = 0, schedules: bool = True) -> list[Case]:
    """Traces pairs of properties that are allowed each by itself.

    Args:
      number: of pairs of each algorithm.
      seed: of their choice.
      schedules: whether every property is traced that follows time, too.
    """
    import torture_records as records

    cases, rng = [], np.random.default_rng(seed)
    alone = records.schedules() if schedules else ()
    with _stopping_at_compilation():
        for name, values in itertools.chain(alone, records.pairs(number, rng)):
            outcome, words = attempt(lambda name=name, values=values: records.traced(name, values))
            if outcome == "refused" and not is_named(words, values):
                outcome = "unnamed"
            shown = ", ".join(f"{value!r}"[:60] for value in values.values())
            cases.append(Case(f"pairs of {name}", " and ".join(values), shown, outcome, words))
    return cases


def _chosen(targets, number: int, rng) -> Iterator[tuple]:
    """Pairs of a target and a value: the fixed ones or a part of them, then random ones."""
    from torture_values import VALUES, random_value

    pairs = [(t, label, value) for t in targets for label, value in VALUES.items() if t.keep(value)]
    for place in rng.permutation(len(pairs))[:number]:
        yield pairs[place]
    missing = number - len(pairs)
    while missing > 0:
        target = targets[rng.integers(len(targets))]
        label, value = random_value(rng)
        if target.keep(value):
            missing -= 1
            yield target, label, value


def tried(target, label: str, value) -> Case:
    """What comes of a value that is handed to a target."""
    from torture_values import fits

    outcome, words = attempt(lambda: target.call(value))
    if outcome == "accepted" and fits(target.kind, value) is False:
        outcome = "nonsense"
    if outcome == "refused" and not is_named(words, (target.argument, *target.also)):
        outcome = "unnamed"
    return Case(target.name, target.argument, label, outcome, words)


def attempt(call) -> tuple[str, str]:
    """What comes of a call, and its words."""
    try:
        with warnings.catch_warnings(), limited():
            warnings.simplefilter("ignore")
            call()
    except Reached:
        return "accepted", ""
    except Late:
        return "hang", f"more than {LIMIT:g} s"
    except (ValueError, ImportError) as error:
        # A sentence of ours has been raised by ours; one of a library below is raw.
        kind = "refused" if is_sentence(str(error)) else "raw"
        return kind, f"{type(error).__name__}: {error}" if kind == "raw" else str(error)
    except Exception as error:
        return "raw", f"{type(error).__name__}: {str(error)[:200]}{_place(error)}"
    return "accepted", ""


def is_sentence(text: str) -> bool:
    """Whether a refusal is one line of some length that says what is allowed."""
    return "\n" not in text and len(text) < 1500 and bool(re.search(r"allowed|Known: |needs", text))


def is_named(text: str, names) -> bool:
    """Whether a refusal names its argument, as it is written or in words."""
    spoken = text.lower().replace("_", " ").replace("-", " ")
    plain = [name.lower().replace("_", " ").replace("-", " ").strip() for name in names]
    # Of a name such as "----" nothing is left in words.
    as_it_is = any(name in text for name in names if name)
    return as_it_is or any(name in spoken for name in plain if name)


def _place(error) -> str:
    """Where an exception was raised, within the package if it came through it."""
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "fedjax_rl" in frame.filename] or frames
    return f" @ {os.path.basename(own[-1].filename)}:{own[-1].lineno}"


@contextlib.contextmanager
def limited(seconds: float = LIMIT) -> Iterator[None]:
    """Raises `Late` in what takes longer."""

    def late(*_):
        raise Late

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _stopping_at_compilation() -> Iterator[None]:
    """Stops every run where its first program would be compiled."""
    from fedjax_rl.sweeps.programs import Programs

    def reached(*_, **__):
        raise Reached

    before = Programs.prepare
    Programs.prepare = reached
    try:
        yield
    finally:
        Programs.prepare = before


@contextlib.contextmanager
def _inside(directory: str) -> Iterator[None]:
    """Works in another directory, where whatever is written does no harm."""
    before = os.getcwd()
    os.chdir(directory)
    try:
        yield
    finally:
        os.chdir(before)


def report(cases: list[Case], show: int = 3) -> None:
    """Prints counts by group of targets, and examples of what was wrong."""
    counts: dict = collections.defaultdict(collections.Counter)
    for case in cases:
        counts[_group(case)][case.outcome] += 1
    rows = [(name, counts[name]) for name in sorted(counts)]
    rows.append(("all", sum(counts.values(), collections.Counter())))
    print(f"{'':24}{'cases':>9}", *(f"{outcome:>9}" for outcome in OUTCOMES))
    for name, row in rows:
        print(f"{name[:24]:24}{row.total():9}", *(f"{row[outcome]:9}" for outcome in OUTCOMES))
    faults: dict = collections.defaultdict(list)
    for case in cases:
        if case.outcome in WRONG:
            where = case.words.rpartition(" @ ")[2] if case.outcome == "raw" else case.argument
            faults[case.outcome, where].append(case)
    for (outcome, where), found in sorted(faults.items(), key=lambda item: -len(item[1])):
        print(f"{outcome} {len(found)} times, {where}")
        for case in found[:show]:
            print(f"    {case.target}, {case.argument} = {case.value[:40]}: {case.words[:160]!r}")


def _group(case: Case) -> str:
    for word in (
        "uplink",
        "clock",
        "registry",
        "envs",
        "networks",
        "sweep of",
        "run_cells",
        "line",
        "records",
        "pairs",
    ):
        if case.target.startswith(word):
            return word.split()[0]
    return case.target.partition(",")[0]
