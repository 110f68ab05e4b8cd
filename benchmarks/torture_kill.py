"""Kills runs at random moments, resumes them, and compares the results bit by bit.

A command is started, killed, resumed, killed again, a few times, and then left to finish. Moments
are anywhere in its life, or inside a save: while a checkpoint is half written, before it counts,
while results are written. Signals are SIGKILL, SIGTERM, SIGHUP and SIGINT; the last three have to
be answered by the words and the exit code that a shell expects.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import random
import signal
import subprocess
import time

import torture_loop
from torture_loop import LATE, LONGEST, Torture, ended

LINES = {
    "run": "run fedq paper-mdp --num-agents 8 --sync-period 5 --num-steps 2000000 --seed 7",
    "sweep": (
        "sweep fedq paper-mdp --num-agents 1 16 --learning-rate 0.1 0.3 --seeds 0 1 2 "
        "--num-steps 400000"
    ),
    "clock": (
        "run fedq paper-mdp --num-agents 4 --sync-period 5 --scheduler asynchronous "
        "--clock.distribution exponential --num-steps 100000"
    ),
}
SIGNALS = ("SIGKILL", "SIGTERM", "SIGHUP", "SIGINT")
MOMENTS = ("any", "any", "checkpoint", "manifest", "result")
# Kills before a run is left to finish.
KILLS = 4


def options(parser: argparse.ArgumentParser) -> None:
    torture_loop.options(parser, 30, LINES)


def main(arguments: argparse.Namespace) -> int:
    """Prints what came out; 1 if anything was not as it should be."""
    return torture_loop.tortured(Torture(LINES, KILLS, start, killed), arguments)


def start(line: list[str]) -> list[subprocess.Popen]:
    """A command in a process of its own."""
    return [torture_loop.process(line)]


def killed(
    processes: list[subprocess.Popen], out: pathlib.Path, rng: random.Random, seconds: float
) -> str:
    """Kills a command at a moment; what came of it."""
    moment, word = rng.choice(MOMENTS), rng.choice(SIGNALS)
    (process,), number = processes, getattr(signal, word)
    until = time.monotonic() + rng.uniform(0, 1.1) * seconds
    chance = rng.uniform(0.05, 0.5)
    while process.poll() is None and time.monotonic() < until:
        if moment != "any" and inside(out, moment) and rng.random() < chance:
            break
        time.sleep(0.001)
    running = process.poll() is None
    if running:
        process.send_signal(number)
    ((code, words),) = ended(processes, LONGEST)
    if not running or code == 0:
        return LATE if code == 0 else f"WRONG exit code {code}: {words}"
    where = "in a save" if moment != "any" else "anywhere"
    if word == "SIGKILL":
        return f"{word}, {where}" if code == -number else f"WRONG exit code {code}"
    # Before it handles signals a process dies of them as any other.
    if code == -number and words in ("", "KeyboardInterrupt"):
        return f"{word}, while it started"
    if code != 128 + number:
        return f"WRONG exit code {code} after {word}: {words}"
    # What reads its arguments has nothing to go on with yet.
    begun = (out / "config.json").is_file()
    if begun and f"resume {out}" not in words and words != "fedjax-rl: stopped":
        return f"WRONG words after {word}: {words}"
    return f"{word}, {where}"


def inside(out: pathlib.Path, moment: str) -> bool:
    """Whether a process seems to be at a moment."""
    if moment == "result":
        return any(name.startswith((".summary", ".result", ".figure")) for name in _names(out))
    for job in _names(out / "checkpoints"):
        for step in _names(out / "checkpoints" / job):
            if moment == "checkpoint" and "tmp" in step:
                return True
            if moment == "manifest" and step.isdigit():
                return not (out / "checkpoints" / job / step / "manifest.json").exists()
    return False


def _names(directory: pathlib.Path) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []
