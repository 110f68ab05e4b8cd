"""Numbers that do not move: short runs of every algorithm, held against those that were recorded.

    python tests/golden.py compare --only fedq fedpg    what moved, case by case
    python tests/golden.py compare --only es --cases top-k clock --precisions float64
    python tests/golden.py record                       writes the numbers anew
    python tests/golden.py record --only fedq           those of one algorithm

The cases stand in `golden_cases.py`. Recording is right only where a change of numbers is meant,
and the change says which moved and why.
"""

import argparse
import collections
import functools
import hashlib
import json
import os
import pathlib
import platform
import time
from concurrent import futures

import conftest  # the flags of the tests decide the last bits
import golden_cases
import jax
import jaxlib
import numpy as np

import fedjax_rl as frl
from fedjax_rl.algorithms import ALGORITHMS

PATH = pathlib.Path(__file__).with_name("golden.json")
PRECISIONS = ("float64", "float32")
# Only these are run in single precision, too.
SINGLE = ("plain", "top-k", "asynchronous")

# What was recorded under another name: metrics, and totals of the ledger.
RENAMED: dict[str, str] = {}

# Differences are relative to the larger of two numbers, and to this where both are smaller.
SMALLEST = 1e-3


class Outcome(collections.namedtuple("Outcome", ["names", "digest", "last"])):
    """What is kept of a run.

    Attributes:
      names: of everything recorded, ledger included.
      digest: of the bits of all that, at all times.
      last: name -> numbers at the last record, flat, the axes in the order of their names.
    """


def run(name: str, case) -> dict[str, np.ndarray]:
    """Everything that a case records, [T, ...] each, the other axes in the order of their names."""
    algorithm = golden_cases.make(name, case)
    result = frl.sweep(algorithm, metrics=tuple(algorithm.metrics), workers=1, **case.arguments)
    arrays = {}
    for metric, values in result.data_vars.items():
        # Of the ruined and the phase there is one for a whole run, or one for each record.
        axes = sorted(values.dims, key=lambda axis: (axis != "time", axis))
        arrays[metric] = np.asarray(values.transpose(*axes).values)
        if "time" not in values.dims:
            arrays[metric] = arrays[metric][None]
    return arrays


def outcome(arrays: dict[str, np.ndarray], names=None) -> Outcome:
    """What is kept of a run; with `names` of these in this order, if all are there."""
    names = sorted(arrays) if names is None else names
    present = [RENAMED.get(name, name) for name in names]
    digest = None
    if set(present) <= set(arrays):
        digest = hashlib.sha256()
        for name in present:
            array = arrays[name].astype(np.float64)
            # Not a number is not a number, whatever its bits.
            digest.update(np.where(np.isnan(array), np.nan, array).tobytes())
        digest = digest.hexdigest()[:12]
    last = {
        name: arrays[at][-1].ravel()
        for name, at in zip(names, present, strict=True)
        if at in arrays
    }
    return Outcome(names, digest, last)


def attempt(name: str, case, precision: str) -> dict[str, np.ndarray] | str:
    """What a case records; or why the algorithm refuses it."""
    with jax.enable_x64(precision == "float64"):
        try:
            return run(name, case)
        except ValueError as error:
            return str(error)


def is_run(name: str, title: str, case, precision: str) -> bool:
    """Whether a case is run in a precision."""
    if golden_cases.is_single(name, case):
        return precision == "float32"
    of_all = SINGLE if name in golden_cases.THOROUGH else SINGLE[:1]
    return precision == "float64" or title in of_all


# Files -------------------------------------------------------------------------------------------


def shortest(values: np.ndarray) -> list:
    """Numbers as JSON has them; read in the same precision they are the same to the bit."""
    if not np.issubdtype(values.dtype, np.floating):
        return [int(value) for value in values]
    wide = [float(str(value)) for value in values]
    return [int(x) if x.is_integer() and abs(x) < 1e15 and str(x) != "-0.0" else x for x in wide]


@functools.cache
def recorded() -> dict:
    """The file: `machine`, `columns` (lists of names), and algorithm -> "case, precision" -> run.

    A run is the place of its names in `columns`, its digest and the last numbers of each name; or
    why it was refused.
    """
    return json.loads(PATH.read_text()) if PATH.exists() else {"columns": [], "runs": {}}


def machine() -> dict:
    """What the last bits depend on."""
    model = platform.processor() or platform.machine()
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    flags = " ".join(sorted(set(os.environ.get("XLA_FLAGS", "").split())))
    return {"jaxlib": jaxlib.__version__, "cpu": model, "flags": flags}


def read(name: str, key: str) -> Outcome | str | None:
    """A run as it was recorded; why it was refused; None if there was none."""
    file = recorded()
    own = file["runs"].get(name, {}).get(key)
    if own is None or isinstance(own, str):
        return own
    place, digest, last = own
    names = file["columns"][place]
    return Outcome(names, digest, dict(zip(names, map(np.asarray, last), strict=True)))


def is_recorded(name: str, title: str, precision: str) -> bool:
    """Whether there is a record of a case."""
    return f"{title}, {precision}" in recorded()["runs"].get(name, {})


def write(runs: dict[str, dict]) -> None:
    """Puts runs in place of those of the same names: one line each."""
    columns, before = recorded()["columns"], recorded()["runs"]
    rows = {}
    for name in ALGORITHMS:
        rows[name] = {}
        for key, own in {**before.get(name, {}), **runs.get(name, {})}.items():
            if isinstance(own, Outcome):
                if own.names not in columns:
                    columns.append(own.names)
                own = (
                    columns.index(own.names),
                    own.digest,
                    [shortest(x) for x in own.last.values()],
                )
            rows[name][key] = own
    dense = functools.partial(json.dumps, separators=(",", ":"))
    algorithms = [
        f"{dense(name)}: {{\n"
        + ",\n".join(f"{dense(key)}: {dense(own)}" for key, own in own_rows.items())
        + "\n}"
        for name, own_rows in rows.items()
    ]
    PATH.write_text(
        f'{{"machine": {json.dumps(machine())},\n"columns": [\n'
        + ",\n".join(map(dense, columns))
        + '\n],\n"runs": {\n'
        + ",\n".join(algorithms)
        + "\n}}\n"
    )
    recorded.cache_clear()


# Comparison --------------------------------------------------------------------------------------


def differences(before: Outcome, now: Outcome) -> dict[str, float]:
    """Largest relative difference of each name at the last record; infinite for other shapes."""
    found = {}
    for name, old in before.last.items():
        if name not in now.last:
            continue
        new = now.last[name]
        old = old.astype(new.dtype) if np.issubdtype(new.dtype, np.floating) else old
        if old.shape != new.shape:
            found[name] = np.inf
            continue
        a, b = old.astype(np.float64), new.astype(np.float64)
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        size = np.maximum(np.maximum(np.abs(a), np.abs(b)), SMALLEST)
        with np.errstate(invalid="ignore"):
            apart = np.where(same, 0.0, np.abs(a - b) / size)
        found[name] = float(np.max(np.where(np.isnan(apart), np.inf, apart), initial=0.0))
    return found


class Verdict(collections.namedtuple("Verdict", ["text", "apart", "bits"])):
    """How a run stands beside its record.

    Attributes:
      text: in words.
      apart: largest relative difference; infinite where something is missing.
      bits: whether all bits are the same.
    """


def verdict(before, now) -> Verdict:
    """How a run stands beside its record, both as `read` and `attempt` give them."""
    if before is None:
        return Verdict("not recorded", np.inf, False)
    if isinstance(before, str) or isinstance(now, str):
        if isinstance(before, str) and isinstance(now, str):
            return Verdict("refused as before", 0.0, True)
        whose = f"is no longer refused: {before}" if isinstance(before, str) else f"fails: {now}"
        return Verdict(whose, np.inf, False)
    now = outcome(now, before.names)
    missing = [name for name in before.names if name not in now.last]
    gone = f"; missing: {', '.join(missing)}" if missing else ""
    if now.digest == before.digest:
        return Verdict("same bits", 0.0, True)
    found = differences(before, now)
    moved = sorted((name for name in found if found[name] > 0), key=found.get, reverse=True)
    if not moved:
        apart = np.inf if missing else 0.0
        return Verdict(f"same bits at the last record{gone or ', not before'}", apart, False)
    worst = ", ".join(f"{name} {found[name]:.1e}" for name in moved[:4])
    text = f"max relative difference {found[moved[0]]:.1e} ({len(moved)} moved: {worst}){gone}"
    return Verdict(text, np.inf if missing else found[moved[0]], False)


def chosen(names, patterns, precisions):
    """(algorithm, title, case, precision) of what is asked for, plain ones first.

    Then those of all algorithms in turn, so that what is recorded until it is stopped tells most.
    """
    found = [
        (name, title, case, precision)
        for name in names
        for title, case in golden_cases.cases(name).items()
        for precision in precisions
        if is_run(name, title, case, precision)
        and (not patterns or any(pattern in title for pattern in patterns))
    ]
    if len(names) == 1:
        return found
    places = collections.defaultdict(dict)
    for name, title, _, precision in found:
        places[name, precision][title] = len(places[name, precision])

    def order(own):
        name, title, case, precision = own
        shared = title not in golden_cases.OWN[name]
        place = places[name, precision][title]
        again = precision == "float32" and not golden_cases.is_single(name, case)
        return again, title != "plain", case.devices, shared, place * 7 % 19

    return sorted(found, key=order)


def attempts(wanted, workers: int):
    """What cases record, in the order given, some at a time: most of it is spent compiling."""

    def one(own):
        name, _, case, precision = own
        try:
            return attempt(name, case, precision)
        except Exception as error:  # the others are to be seen all the same
            return f"{type(error).__name__}: {error}"

    with futures.ThreadPoolExecutor(workers) as pool:
        yield from zip(wanted, pool.map(one, wanted), strict=True)


def compare(wanted, workers: int) -> int:
    """Prints how every case stands; returns how many have not the same bits."""
    others, begun = 0, time.monotonic()
    for (name, title, _, precision), now in attempts(wanted, workers):
        found = verdict(read(name, f"{title}, {precision}"), now)
        others += not found.bits
        print(f"{name:12} {title:28} {precision:8} {found.text}", flush=True)
    print(f"{others} of {len(wanted)} without the same bits; {time.monotonic() - begun:.0f} s")
    return others


def record(wanted, workers: int) -> None:
    """Runs cases and writes what they record, every now and then."""
    begun, runs = time.monotonic(), collections.defaultdict(dict)
    for count, ((name, title, _, precision), now) in enumerate(attempts(wanted, workers), 1):
        if isinstance(now, str):
            print(f"{name}, {title}, {precision}: {now}", flush=True)
        if not isinstance(now, str):
            runs[name][f"{title}, {precision}"] = outcome(now)
        elif "allowed: " in now:  # a refusal; what fails otherwise is not to be kept
            runs[name][f"{title}, {precision}"] = now[:80]
        if count % 5 == 0 or count == len(wanted):
            write(runs)
            print(f"{count} of {len(wanted)}, {time.monotonic() - begun:.0f} s", flush=True)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("command", choices=("compare", "record"))
    parser.add_argument("--only", nargs="+", default=list(ALGORITHMS), choices=list(ALGORITHMS))
    parser.add_argument("--cases", nargs="+", default=(), help="parts of names of cases")
    parser.add_argument("--precisions", nargs="+", default=PRECISIONS, choices=PRECISIONS)
    parser.add_argument("--missing", action="store_true", help="only what is not recorded")
    parser.add_argument("--workers", type=int, default=2, help="cases at a time")
    asked = parser.parse_args()
    wanted = chosen(asked.only, asked.cases, asked.precisions)
    if asked.command == "compare" or asked.missing:
        there = asked.command == "compare"
        wanted = [own for own in wanted if is_recorded(own[0], own[1], own[3]) == there]
    try:
        command = {"compare": compare, "record": record}[asked.command]
        return int(bool(command(wanted, asked.workers)))
    finally:
        conftest.pytest_unconfigure()


if __name__ == "__main__":
    raise SystemExit(main())
