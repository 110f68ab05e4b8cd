"""Kills runs at random moments, resumes them, and compares the results bit by bit.

A command is started, killed, resumed, killed again, a few times, and then left to finish. Moments
are anywhere in its life, or inside a save: while a checkpoint is half written, before it counts,
while results are written. Signals are SIGKILL, SIGTERM, SIGHUP and SIGINT; the last three have to
be answered by the words and the exit code that a shell expects.
"""

from __future__ import annotations

import argparse
import collections
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

from torture_damage import tell

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
# Kills before a run is left to finish, and seconds that a command may take.
KILLS, LONGEST = 4, 600
# Saves after every chunk, so that most moments are inside a save.
EAGER = (
    "import sys; from fedjax_rl import cli; from fedjax_rl.saving import checkpoints as c; "
    "c.Checkpoints.maybe_save = c.Checkpoints.save; sys.exit(cli.main(sys.argv[1:]))"
)


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--times", type=int, default=30, help="kills")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--lines", nargs="+", choices=LINES, default=list(LINES))


def main(arguments: argparse.Namespace) -> int:
    """Prints what came out; 1 if anything was not as it should be."""
    rng, found = random.Random(arguments.seed), collections.Counter()
    with tempfile.TemporaryDirectory() as root:
        whole: dict[str, tuple[bytes, float]] = {}
        left, place = arguments.times, 0
        while left > 0:
            name = arguments.lines[place % len(arguments.lines)]
            if name not in whole:
                whole[name] = undisturbed(name, pathlib.Path(root) / name)
            result, seconds = whole[name]
            out, place = pathlib.Path(root) / f"{name}-{place}", place + 1
            line = [*LINES[name].split(), "--out", str(out)]
            for _ in range(min(left, KILLS)):
                left -= 1
                outcome, line = killed(line, out, rng, seconds)
                found[f"{name}: {outcome}"] += 1
                if outcome.startswith("finished"):
                    break
            code, words = ended(start(line))
            good = code == 0 and (out / "result.nc").read_bytes() == result
            found[f"{name}: resumed to the same bits" if good else f"WRONG {name}: {words}"] += 1
    return tell(found)


def undisturbed(name: str, out: pathlib.Path) -> tuple[bytes, float]:
    """The result of a command, and the seconds that it took."""
    began = time.monotonic()
    code, words = ended(start([*LINES[name].split(), "--out", str(out)]))
    assert code == 0, words
    return (out / "result.nc").read_bytes(), time.monotonic() - began


def start(line: list[str]) -> subprocess.Popen:
    """A command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", EAGER, *line],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen) -> tuple[int, str]:
    """The exit code and the last words of a process."""
    words = process.communicate(timeout=LONGEST)[1].strip().splitlines()
    return process.returncode, words[-1] if words else ""


def killed(line, out: pathlib.Path, rng: random.Random, seconds: float) -> tuple[str, list[str]]:
    """Runs a command until a moment; what came of it, and the command that goes on."""
    moment, word = rng.choice(MOMENTS), rng.choice(SIGNALS)
    process, number = start(line), getattr(signal, word)
    until = time.monotonic() + rng.uniform(0, 1.1) * seconds
    chance = rng.uniform(0.05, 0.5)
    while process.poll() is None and time.monotonic() < until:
        if moment != "any" and inside(out, moment) and rng.random() < chance:
            break
        time.sleep(0.001)
    running = process.poll() is None
    if running:
        process.send_signal(number)
    code, words = ended(process)
    # Where nothing had begun the command is given again.
    begun = (out / "config.json").is_file()
    line = ["resume", str(out)] if begun else line
    if not running or code == 0:
        good = code == 0
        return ("finished before" if good else f"WRONG exit code {code}: {words}"), line
    where = "in a save" if moment != "any" else "anywhere"
    if word == "SIGKILL":
        return f"{word}, {where}" if code == -number else f"WRONG exit code {code}", line
    # Before it handles signals a process dies of them as any other.
    if code == -number and words in ("", "KeyboardInterrupt"):
        return f"{word}, while it started", line
    if code != 128 + number:
        return f"WRONG exit code {code} after {word}: {words}", line
    # What reads its arguments has nothing to go on with yet.
    if begun and f"resume {out}" not in words and words != "fedjax-rl: stopped":
        return f"WRONG words after {word}: {words}", line
    return f"{word}, {where}", line


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
