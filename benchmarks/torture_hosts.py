"""Kills one of several processes that simulate together, resumes them, compares bit by bit.

A command is started in two processes of this machine, one of which is killed at a random moment.
The other has to end by itself within a minute, with words that say how to go on; both are then
resumed, and so on a few times, until they are left to finish.
"""

from __future__ import annotations

import argparse
import collections
import pathlib
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time

from torture_damage import tell
from torture_kill import EAGER

LINES = {
    "fedq": "run fedq paper-mdp --num-agents 8 --sync-period 200 --num-steps 400000 --seed 7",
    "sweep": (
        "sweep fedq paper-mdp --num-agents 1 16 --learning-rate 0.1 0.3 --sync-period 100 "
        "--num-steps 50000"
    ),
    "es": "run es CartPole-v1 --num-agents 8 --num-steps 20",
}
# Kills before a run is left to finish; seconds that a command may take, and that the others may
# take to end.
KILLS, LONGEST, SILENCE = 3, 600, 90


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--times", type=int, default=20, help="kills")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--lines", nargs="+", choices=LINES, default=list(LINES))


def main(arguments: argparse.Namespace) -> int:
    """Prints what came out; 1 if anything was not as it should be."""
    rng, found = random.Random(arguments.seed), collections.Counter()
    with tempfile.TemporaryDirectory() as root:
        whole: dict[str, tuple[bytes, float]] = {}
        left, place = arguments.times, 0
        while left > 0:
            name = arguments.lines[place % len(arguments.lines)]
            out, place = pathlib.Path(root) / f"{name}-{place}", place + 1
            if name not in whole:
                began, first = time.monotonic(), pathlib.Path(root) / name
                line = [*LINES[name].split(), "--out", str(first)]
                codes = ended(start(line, arguments), LONGEST)
                assert all(code == 0 for code, _ in codes), codes
                whole[name] = (first / "result.nc").read_bytes(), time.monotonic() - began
            result, seconds = whole[name]
            line = [*LINES[name].split(), "--out", str(out)]
            for _ in range(min(left, KILLS)):
                left -= 1
                outcome = killed(start(line, arguments), rng, seconds)
                found[f"{name}: {outcome}"] += 1
                # Where nothing had begun the command is given again.
                if (out / "config.json").is_file():
                    line = ["resume", str(out)]
            codes = ended(start(line, arguments), LONGEST)
            good = all(code == 0 for code, _ in codes)
            good = good and (out / "result.nc").read_bytes() == result
            found[f"{name}: resumed to the same bits" if good else f"WRONG {name}: {codes}"] += 1
    return tell(found)


def start(line: list[str], arguments: argparse.Namespace) -> list[subprocess.Popen]:
    """A command in several processes."""
    with socket.socket() as own:
        own.bind(("localhost", 0))
        where = f"localhost:{own.getsockname()[1]}"
    line = [*line, "--distributed", "--coordinator", where, "--wait", "60"]
    line += ["--num-processes", str(arguments.processes), "--process-index"]
    return [
        subprocess.Popen(
            [sys.executable, "-c", EAGER, *line, str(index)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(arguments.processes)
    ]


def ended(processes: list[subprocess.Popen], seconds: float) -> list[tuple[int | None, str]]:
    """The exit code of each, None where it had to be killed, and its last words."""
    until, found = time.monotonic() + seconds, []
    for own in processes:
        hung = False
        try:
            words = own.communicate(timeout=max(until - time.monotonic(), 0.1))[1]
        except subprocess.TimeoutExpired:
            hung = True
            own.kill()
            words = own.communicate()[1]
        lines = words.strip().splitlines()
        found.append((None if hung else own.returncode, lines[-1] if lines else ""))
    return found


def killed(processes: list[subprocess.Popen], rng: random.Random, seconds: float) -> str:
    """Kills one of several processes at a moment of their life; what came of the others."""
    time.sleep(rng.uniform(0.1, 1.0) * seconds)
    victim = rng.randrange(len(processes))
    before = [own.poll() for own in processes]
    if all(code is not None for code in before):
        codes = [code for code, _ in ended(processes, 1)]
        return "finished before" if not any(codes) else f"WRONG exit codes {codes}"
    processes[victim].send_signal(signal.SIGKILL)
    began = time.monotonic()
    rest = ended([own for own in processes if own is not processes[victim]], SILENCE)
    processes[victim].communicate()
    took = "at once" if time.monotonic() - began < 10 else "after a while"
    whom = "the first" if victim == 0 else "another"
    for code, words in rest:
        if code is None:
            return f"WRONG: a process hung when {whom} was killed: {words}"
        # It may have been at its end.
        if code != 0 and not words.startswith("fedjax-rl: "):
            return f"WRONG words, code {code}, when {whom} was killed: {words}"
    return f"{whom} killed, the others ended {took}"
