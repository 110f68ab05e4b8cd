"""Commands that are killed, resumed, killed again a few times, and then left to finish.

Whatever they are killed with: `torture_kill` and `torture_hosts` say how a command is started and
how it ends, and what is compared here is its result with that of one that nobody disturbed.
"""

from __future__ import annotations

import argparse
import collections
import pathlib
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from torture_damage import tell

# Saves after every chunk, so that most moments are inside a save.
EAGER = (
    "import sys; from fedjax_rl import cli; from fedjax_rl.saving import checkpoints as c; "
    "c.Checkpoints.maybe_save = c.Checkpoints.save; sys.exit(cli.main(sys.argv[1:]))"
)
# Seconds that a command may take, and after which whoever did not hear the time was stopped.
LONGEST, STOPPED = 600, 10
# Times that processes may lose each other though nobody was killed, as on a machine that is too
# busy they do: what they do then is to be resumed.
LOSSES = 3
LOST = ("does not answer", "has ended")
# What was killed too late to have been killed.
LATE = "finished before"


class Torture(NamedTuple):
    """How commands are killed.

    Attributes:
      lines: name -> the words of a command, without its directory.
      kills: of a run, before it is left to finish.
      start: the processes of a command.
      killed: `(processes, directory, rng, seconds that the whole takes) -> outcome`; kills some of
        them at a moment of their life. "WRONG" is in what should not be; `LATE` kills nobody.
    """

    lines: Mapping[str, str]
    kills: int
    start: Callable[[list[str]], list[subprocess.Popen]]
    killed: Callable[[list[subprocess.Popen], pathlib.Path, random.Random, float], str]


def options(parser: argparse.ArgumentParser, times: int, lines: Mapping[str, str]) -> None:
    parser.add_argument("--times", type=int, default=times, help="kills")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--lines", nargs="+", choices=lines, default=list(lines))


def tortured(torture: Torture, arguments: argparse.Namespace) -> int:
    """Prints what came out, as it comes on stderr; 1 if anything was not as it should be."""
    rng, found, stops = random.Random(arguments.seed), collections.Counter(), Stops()
    with tempfile.TemporaryDirectory() as root:
        whole: dict[str, tuple[bytes, float]] = {}
        left, place = arguments.times, 0
        while left > 0:
            name = arguments.lines[place % len(arguments.lines)]
            out, place = pathlib.Path(root) / f"{name}-{place}", place + 1
            if name not in whole:
                first = pathlib.Path(root) / name
                whole[name] = _undisturbed(torture, name, first, stops, found)
            result, seconds = whole[name]
            for _ in range(min(left, torture.kills)):
                before, started = stops.count, torture.start(_line(torture, name, out))
                outcome = torture.killed(started, out, rng, seconds)
                if "WRONG" in outcome and stops.since(before):
                    outcome = "stopped with the whole machine"
                left -= "stopped" not in outcome and outcome != LATE
                found[f"{name}: {outcome}"] += 1
                print(f"{name}: {outcome}, {left} kills left", file=sys.stderr, flush=True)
                if outcome == LATE:
                    break
            words = _finished(torture, name, out, stops, found)
            good = not words and (out / "result.nc").read_bytes() == result
            outcome = "resumed to the same bits" if good else f"WRONG {words or 'bits'}"
            found[f"{name}: {outcome}"] += 1
            print(f"{name}: {outcome}", file=sys.stderr, flush=True)
    return tell(found)


def _line(torture: Torture, name: str, out: pathlib.Path) -> list[str]:
    # Where nothing had begun the command is given again.
    if (out / "config.json").is_file():
        return ["resume", str(out)]
    return [*torture.lines[name].split(), "--out", str(out)]


def _undisturbed(torture: Torture, name: str, out: pathlib.Path, stops: Stops, found):
    """The result of a command, and the seconds that it took."""
    began, before = time.monotonic(), stops.seconds
    words = _finished(torture, name, out, stops, found)
    assert not words, f"{name}: {words}"
    seconds = time.monotonic() - began - (stops.seconds - before)
    print(f"{name}: takes {seconds:.0f} s", file=sys.stderr, flush=True)
    return (out / "result.nc").read_bytes(), seconds


def _finished(torture: Torture, name: str, out: pathlib.Path, stops: Stops, found) -> str:
    """Lets a command come to its end; what is wrong, or nothing."""
    losses = 0
    while True:
        before = stops.count
        codes = ended(torture.start(_line(torture, name, out)), LONGEST)
        if all(code == 0 for code, _ in codes):
            return ""
        if not stops.since(before):
            losses += 1
            lost = all(any(text in words for text in LOST) for _, words in codes)
            if not lost or losses > LOSSES:
                return f"exit codes and last words {codes}"
            found[f"{name}: lost each other though nobody was killed, went on"] += 1
            print(f"{name}: lost each other: {codes}", file=sys.stderr, flush=True)


class Stops:
    """How often and for how long this process was stopped, and so whatever it has started.

    A laptop that sleeps, or a machine that is kept quiet: processes that hear nothing of each
    other for so long end, as they should, and it says nothing about who was killed.
    """

    def __init__(self) -> None:
        """Begins to watch the time."""
        self.count, self.seconds = 0, 0.0
        threading.Thread(target=self._watch, daemon=True).start()

    def since(self, count: int) -> bool:
        """Whether there was another stop after so many."""
        time.sleep(2)  # until the watch has looked
        return self.count > count

    def _watch(self) -> None:
        last = time.monotonic()
        while True:
            time.sleep(1)
            now = time.monotonic()
            if now - last > STOPPED:
                self.count, self.seconds = self.count + 1, self.seconds + now - last
            last = now


def process(line: list[str], before: str = "") -> subprocess.Popen:
    """A command in a process of its own, which saves as often as it can, after some other words."""
    return subprocess.Popen(
        [sys.executable, "-c", before + EAGER, *line],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


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
