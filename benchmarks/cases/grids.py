"""The study `linear-speedup` from a cold start, seconds of wall time per scale."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from cases import Case


def _rows(arguments) -> dict:
    command = [sys.executable, "-m", "fedjax_rl"]
    rows = []
    for scale in arguments.grids:
        runs = [
            _reproduce([*command, "reproduce", "linear-speedup", "--scale", scale])
            for _ in range(arguments.repeats)
        ]
        walls = sorted(run["wall"] for run in runs)
        middle = sorted(runs, key=lambda run: run["wall"])[len(runs) // 2]
        rows.append(
            {
                "name": scale,
                "unit": "seconds of wall time, start of the process to its end",
                "median": middle["wall"],
                "low": walls[0],
                "high": walls[-1],
                "compile_seconds": middle["summary"]["seconds"]["compile"],
                "run_seconds": middle["summary"]["seconds"]["run"],
                "cpu_seconds": middle["cpu"],
                "peak_bytes": max(run["peak_bytes"] for run in runs),
                "ratio": {},
                "verdicts": middle["verdicts"],
            }
        )
        print(f"{scale}: {middle['wall']:.1f} s", file=sys.stderr, flush=True)
    for row in rows:
        row["ratio"] = {
            other["name"]: row["median"] / other["median"] for other in rows if other is not row
        }
    return {"rows": rows}


def _reproduce(command) -> dict:
    """One run of a study in a process and a directory of its own, with nothing compiled before."""
    with tempfile.TemporaryDirectory() as scratch:
        environment = {
            **os.environ,
            "XDG_CACHE_HOME": scratch + "/cache",
            "JAX_COMPILATION_CACHE_DIR": scratch + "/compiled",
        }
        work, log = pathlib.Path(scratch, "work"), pathlib.Path(scratch, "log")
        work.mkdir()
        start = time.perf_counter()
        with log.open("wb") as file:
            child = subprocess.Popen(command, cwd=work, env=environment, stdout=file, stderr=file)
            try:
                _, status, usage = os.wait4(child.pid, 0)
            except BaseException:
                child.kill()
                raise
        wall = time.perf_counter() - start
        found = sorted(work.rglob("summary.json"))
        code = os.waitstatus_to_exitcode(status)
        child.returncode = code
        if code or not found:
            tail = log.read_text(errors="replace")[-2000:]
            why = f"ended with {code}" if code else "left no summary.json"
            raise SystemExit(f"{' '.join(command)} {why}:\n{tail}")
        summary = json.loads(found[0].read_text())
    verdicts = [target["verdict"] for target in summary["targets"]]
    return {
        "wall": wall,
        "cpu": usage.ru_utime + usage.ru_stime,
        "peak_bytes": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        "summary": summary,
        "verdicts": {verdict: verdicts.count(verdict) for verdict in sorted(set(verdicts))},
    }


CASE = Case(_rows, None, lambda content: [], 1, environment={})
