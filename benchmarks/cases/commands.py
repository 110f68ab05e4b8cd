"""What a user waits for: commands from a cold start and once more, seconds of wall time."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from cases import Case

STARTS = ("cold", "second")
# Words of each, and how long it may take from a cold start and once more.
COMMANDS = {
    "help": (("--help",), None, 0.3),
    "list": (("list",), None, 0.5),
    "reproduce": (("reproduce", "linear-speedup", "--scale", "smoke"), 25, 12),
    "run afedpg brax/hopper": (("run", "afedpg", "brax/hopper", "--num-agents", "4"), 20, 8),
}
UNIT = "seconds of wall time, start of the process to its end"
NOTE = """`reproduce` is `reproduce linear-speedup --scale smoke`. Cold: nothing compiled is
kept from before. Once more: what the first one kept is there, and is traced and read again. 38
to 40 s are the runs themselves: the largest stage alone has 550,000 steps one after the other,
each of some 200 agents and as long as its sixty kernels take to start, some 14 us. What neither
compiles nor runs is intervals and pictures. Of `run afedpg brax/hopper` 15 to 17 s are its
1,000 steps, and of a cold start 40 s the compiler. `list` reads what all algorithms say of
themselves, and keeps it."""


def _rows(arguments) -> dict:
    rows = []
    for name, (words, *_) in arguments.wanted(COMMANDS).items():
        turns = [_cold_and_warm(words) for _ in range(arguments.repeats)]
        cases = {start: _of([turn[start] for turn in turns]) for start in STARTS}
        peak = max(run["peak_bytes"] for turn in turns for run in turn.values())
        first = {"name": name, "unit": UNIT, **cases[STARTS[0]], "peak_bytes": peak, "ratio": {}}
        rows.append(first | {"cases": cases})
        told = ", ".join(f"{start} {of['median']:.2f} s" for start, of in cases.items())
        print(f"{name}: {told}", file=sys.stderr, flush=True)
    return {"rows": rows}


def _of(runs: list[dict]) -> dict:
    """The run in the middle, and how far the others are from it."""
    runs = sorted(runs, key=lambda run: run["wall"])
    middle = runs[len(runs) // 2]
    seconds = middle["summary"].get("seconds", {})
    return {
        "median": middle["wall"],
        "low": runs[0]["wall"],
        "high": runs[-1]["wall"],
        "compile_seconds": seconds.get("compile", 0.0),
        "run_seconds": seconds.get("run", 0.0),
        "cpu_seconds": middle["cpu"],
        "verdicts": middle["verdicts"],
    }


def _cold_and_warm(words) -> dict[str, dict]:
    """A command twice, each in a process and directory of its own; the first finds no caches."""
    with tempfile.TemporaryDirectory() as scratch:
        environment = {
            **os.environ,
            "XDG_CACHE_HOME": scratch + "/cache",
            "JAX_COMPILATION_CACHE_DIR": scratch + "/compiled",
        }
        return {start: _run(words, pathlib.Path(scratch, start), environment) for start in STARTS}


def _run(words, work: pathlib.Path, environment) -> dict:
    command = [sys.executable, "-m", "fedjax_rl", *words]
    work.mkdir()
    log = work.with_name(f"{work.name}.log")
    start = time.perf_counter()
    with log.open("wb") as file:
        child = subprocess.Popen(command, cwd=work, env=environment, stdout=file, stderr=file)
        try:
            _, status, usage = os.wait4(child.pid, 0)
        except BaseException:
            child.kill()
            raise
    wall = time.perf_counter() - start
    child.returncode = code = os.waitstatus_to_exitcode(status)
    found = sorted(work.rglob("summary.json"))
    if code or (words[0] == "reproduce" and not found):
        why = f"ended with {code}" if code else "left no summary.json"
        tail = log.read_text(errors="replace")[-2000:]
        raise SystemExit(f"{' '.join(command)} {why}:\n{tail}")
    summary = json.loads(found[0].read_text()) if found else {}
    verdicts = [target["verdict"] for target in summary.get("targets", [])]
    return {
        "wall": wall,
        "cpu": usage.ru_utime + usage.ru_stime,
        "peak_bytes": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        "summary": summary,
        "verdicts": {verdict: verdicts.count(verdict) for verdict in sorted(set(verdicts))},
    }


def _limits(content) -> list[dict]:
    from harness import target

    return [
        target(f"{row['name']}, {start}", row["cases"][start]["median"], limit, most=True)
        for row in content["rows"]
        for start, limit in zip(STARTS, COMMANDS[row["name"]][1:], strict=True)
        if limit is not None
    ]


CASE = Case(_rows, None, _limits, 1, environment={}, note=NOTE)
