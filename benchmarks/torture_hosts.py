"""Kills one of several processes that simulate together, resumes them, compares bit by bit.

A command is started in two processes of this machine, one of which is killed at a random moment.
The other has to end by itself soon after it is heard of no more, with words that say how to go on;
both are then resumed, and so on a few times, until they are left to finish.
"""

from __future__ import annotations

import argparse
import functools
import pathlib
import random
import signal
import socket
import subprocess
import time

import torture_loop
from torture_loop import LATE, Torture, ended

LINES = {
    "fedq": "run fedq paper-mdp --num-agents 8 --sync-period 200 --num-steps 400000 --seed 7",
    "sweep": (
        "sweep fedq paper-mdp --num-agents 1 16 --learning-rate 0.1 0.3 --sync-period 100 "
        "--num-steps 50000"
    ),
    "es": "run es CartPole-v1 --num-agents 4 --num-steps 12",
}
# Kills before a run is left to finish; seconds that the others may take to end once they know.
KILLS, SLOW = 3, 60
# Sets after how many seconds a silent process counts as ended.
SILENT = "from fedjax_rl.cli import cluster; cluster._SILENT = {}; "


def options(parser: argparse.ArgumentParser) -> None:
    torture_loop.options(parser, 20, LINES)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument(
        "--silent",
        type=int,
        default=30,
        help="seconds until a silent process counts as ended; more where all may be stopped",
    )


def main(arguments: argparse.Namespace) -> int:
    """Prints what came out; 1 if anything was not as it should be."""
    begin = functools.partial(start, count=arguments.processes, silent=arguments.silent)
    kill = functools.partial(killed, silent=arguments.silent)
    return torture_loop.tortured(Torture(LINES, KILLS, begin, kill), arguments)


def start(line: list[str], count: int, silent: int) -> list[subprocess.Popen]:
    """A command in several processes."""
    with socket.socket() as own:
        own.bind(("localhost", 0))
        where = f"localhost:{own.getsockname()[1]}"
    line = [*line, "--distributed", "--coordinator", where, "--wait", str(30 + silent)]
    line += ["--num-processes", str(count), "--process-index"]
    before = SILENT.format(silent)
    return [torture_loop.process([*line, str(index)], before) for index in range(count)]


def killed(
    processes: list[subprocess.Popen],
    out: pathlib.Path,
    rng: random.Random,
    seconds: float,
    silent: int,
) -> str:
    """Kills one of several processes at a moment of their life; what came of the others."""
    time.sleep(rng.uniform(0.1, 1.0) * seconds)
    victim = rng.randrange(len(processes))
    if all(own.poll() is not None for own in processes):
        codes = [code for code, _ in ended(processes, 1)]
        return f"WRONG exit codes {codes}" if any(codes) else LATE
    processes[victim].send_signal(signal.SIGKILL)
    began = time.monotonic()
    rest = ended([own for own in processes if own is not processes[victim]], silent + SLOW)
    processes[victim].communicate()
    took = "at once" if time.monotonic() - began < 10 else "after a while"
    whom = "the first" if victim == 0 else "another"
    when = "in the run" if (out / "checkpoints").is_dir() else "while they started"
    for code, words in rest:
        if code is None:
            return f"WRONG: a process hung when {whom} was killed: {words}"
        # It may have been at its end.
        if code != 0 and not words.startswith("fedjax-rl: "):
            return f"WRONG words, code {code}, when {whom} was killed: {words}"
    return f"{whom} killed {when}, the others ended {took}"
