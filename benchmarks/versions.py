"""The same case of the benchmark with two versions of the package, in turn."""

from __future__ import annotations

import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

import cases


def against(name: str, directory: pathlib.Path, arguments) -> dict:
    """Measures a case with this package and with that in another checkout, and prints ratios.

    Processes alternate, this one first in one turn and the other in the next, so that a machine
    that slows down slows both alike. A checkout that has a benchmark of its own is measured by
    that, since only it knows the inside of its package.

    Args:
      name: of the case.
      directory: of the other checkout.
      arguments: of the line: `turns`, `repeats`, `scale`, `only` and the options of cases.

    Returns:
      `{case, directory, turns, ratios}`, with ratios `{table: {row: {case: ratio}}}`: the median
      rate here over that there, and over the turns.
    """
    sides = {"here": cases.here().parent, "there": directory}
    found: dict = {side: {} for side in sides}
    for turn in range(arguments.turns):
        for side in list(sides)[:: -1 if turn % 2 else 1]:
            content = _in_process(name, sides[side], arguments)
            for key, rate in _rates(content).items():
                found[side].setdefault(key, []).append(rate)
            print(f"{name}, turn {turn + 1}, {side}: timed", file=sys.stderr, flush=True)
    ratios: dict = {}
    for key in found["here"]:
        if key not in found["there"]:
            continue
        table, row, case = key
        ratio = statistics.median(found["here"][key]) / statistics.median(found["there"][key])
        ratios.setdefault(table, {}).setdefault(row, {})[case] = ratio
    _show(name, directory, ratios)
    return {"case": name, "directory": str(directory), "turns": arguments.turns, "ratios": ratios}


def _in_process(name: str, checkout: pathlib.Path, arguments) -> dict:
    script = checkout / "benchmarks" / "run.py"
    script = script if script.is_file() else cases.here() / "run.py"
    with tempfile.TemporaryDirectory() as scratch:
        file = pathlib.Path(scratch, "out.json")
        line = [name, "--json", str(file), "--scale", str(arguments.scale)]
        if arguments.repeats is not None:
            line += ["--repeats", str(arguments.repeats)]
        if name == "es":
            line += ["--shapings", *arguments.shapings]
        if "--only" in script.read_text():
            subject = cases.case(name).subject
            line += ["--only", *(arguments.only or ([subject] if subject else ["fedjax_rl"]))]
        # Of several paths the first counts; what else Python finds is the same for both.
        more = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        own = [str(checkout), *(path for path in more if path and not _is_checkout(path))]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(own)}
        done = subprocess.run(
            [sys.executable, script, *line],
            cwd=scratch,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"{script} {' '.join(line)}:\n{done.stderr[-3000:]}")
        return json.loads(file.read_text())


def _is_checkout(path: str) -> bool:
    return (pathlib.Path(path) / "fedjax_rl").is_dir()


def _rates(content: dict) -> dict[tuple[str, str, str], float]:
    """(table, row, case) -> median rate, of every list of rows in a report."""
    out = {}
    for table, rows in content.items():
        if not (isinstance(rows, list) and rows and all("median" in row for row in rows)):
            continue
        for row in rows:
            of_cases = row.get("cases") or {"": row}
            for case, found in of_cases.items():
                out[table, row["name"], case] = found["median"]
    return out


def _show(name: str, directory: pathlib.Path, ratios: dict) -> None:
    print(f"{name}: median rate here over that in {directory}")
    for table, rows in ratios.items():
        for row, of_cases in rows.items():
            middle = statistics.median(of_cases.values())
            print(f"  {table}, {row}: median {middle:.3f}")
            for case, ratio in of_cases.items():
                print(f"    {case}: {ratio:.3f}")
