"""Damages files of a run's directory, resumes, and compares the result bit by bit.

Half of the cases are of a run that was stopped, half of one that was finished. What comes out must
be the result of a run that nobody disturbed, or a message that says what to do, after which it is.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import io
import os
import pathlib
import random
import shutil
import signal
import tempfile
import threading

from fedjax_rl import cli
from fedjax_rl.saving import results

LINE = (
    "sweep fedq paper-mdp --num-agents 1 3 --sync-period 4 --participation 0.6 --seeds 0 1 "
    "--num-steps 4000 --record-every 100 --metrics error_server error_local"
)
CONFIG = "config.json"
COPY = "checkpoints/config.json"


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--times", type=int, default=150, help="damaged directories")
    parser.add_argument("--seed", type=int, default=0, help="of what is damaged, and how")


def main(arguments: argparse.Namespace) -> int:
    """Prints what came out; 1 if anything was not as it should be."""
    rng, found = random.Random(arguments.seed), collections.Counter()
    with tempfile.TemporaryDirectory() as root:
        sources = prepare(pathlib.Path(root))
        result = (sources[1] / "result.nc").read_bytes()
        for place in range(arguments.times):
            source = sources[place % 2]
            copy = pathlib.Path(root) / "copy"
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(source, copy)
            done = [damage(copy, rng) for _ in range(rng.choice((1, 1, 1, 2, 3)))]
            outcome, words = judge(copy, source, result)
            found[outcome] += 1
            if "WRONG" in outcome:
                print(f"{place}: {'; '.join(done)}: {outcome}: {words}", flush=True)
    return tell(found)


def tell(found: collections.Counter) -> int:
    """Prints a table of outcomes; 1 if one of them is wrong."""
    for outcome, count in found.most_common():
        print(f"{count:6d}  {outcome}")
    wrong = sum(count for outcome, count in found.items() if "WRONG" in outcome)
    print(f"of {found.total()} cases {wrong} are wrong")
    return 1 if wrong else 0


def prepare(root: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """The directories of a run that was stopped half-way and of one that was not."""
    stopped, whole = root / "stopped", root / "whole"
    with eager():
        code, words = call([*LINE.split(), "--out", str(whole)])
        assert code == 0, words
        with stopping(stopped / "checkpoints" / "job-0000" / "20"):
            code, words = call([*LINE.split(), "--out", str(stopped)])
        assert code == 130, words
    return stopped, whole


@contextlib.contextmanager
def eager():
    """Saves after every chunk."""
    from fedjax_rl.saving.checkpoints import Checkpoints

    usual, Checkpoints.maybe_save = Checkpoints.maybe_save, Checkpoints.save
    try:
        yield
    finally:
        Checkpoints.maybe_save = usual


@contextlib.contextmanager
def stopping(sign: pathlib.Path):
    """Presses Ctrl-C once a path is there."""
    over = threading.Event()

    def wait() -> None:
        while not over.wait(0.001):
            if sign.exists():
                os.kill(os.getpid(), signal.SIGINT)
                return

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def call(line: list[str]) -> tuple[int, str]:
    """The exit code of a command and what it said on stderr."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        return cli.main(line), said.getvalue()


def judge(copy: pathlib.Path, source: pathlib.Path, result: bytes) -> tuple[str, str]:
    """What came of a damaged directory, in words, and what was said."""
    code, words = call(["resume", str(copy)])
    told = ""
    if code == 2 and "allowed: " in words and CONFIG in words:
        # As it was: whoever has edited or lost it has to know.
        for name in (CONFIG, COPY):
            (copy / name).unlink(missing_ok=True)
            shutil.copy(source / name, copy / name)
        told = "told what to do, and then "
        code, words = call(["resume", str(copy)])
    if code != 0:
        return f"WRONG: exit code {code}", words
    if any(line and not line.startswith("fedjax-rl: ") for line in words.splitlines()):
        return "WRONG: chatter", words
    if (copy / "result.nc").read_bytes() != result:
        # A bit between the numbers of a finished run is nobody's loss.
        if not results.load(copy).identical(results.load(source.parent / "whole")):
            return "WRONG: other bits", words
        told += "between the numbers other bytes, "
    code, words = call(["resume", str(copy)])
    if code or words:
        return "WRONG: not finished by then", words
    return f"{told}the same bits, {source.name}", words


# From what a file holds to what it holds then.
BYTES = {
    "emptied": lambda data, rng: b"",
    "halved": lambda data, rng: data[: len(data) // 2],
    "cut": lambda data, rng: data[:-1],
    "junk": lambda data, rng: rng.randbytes(len(data) or 10),
    "zeroed": lambda data, rng: bytes(len(data)),
    "flipped": lambda data, rng: _flipped(data, rng),
    "appended to": lambda data, rng: data + b"xyz",
    "made a record": lambda data, rng: b"{}",
    "made a list": lambda data, rng: b"[]",
}


def _flipped(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    if out:
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def damage(directory: pathlib.Path, rng: random.Random) -> str:
    """Damages something in a directory; says what and how."""
    everything = sorted(directory.rglob("*"))
    files = [path for path in everything if path.is_file()]
    # Files that are one of many are as likely as those that are the only one of their kind.
    top = [path for path in files if path.name == CONFIG or path.parent == directory]
    if rng.random() < 0.15:
        steps = [path for path in everything if path.is_dir() and path.name.isdigit()]
        return _damage_step(rng.choice(steps), rng) if steps else "nothing"
    if not files:
        return "nothing"
    path = rng.choice(top if top and rng.random() < 0.4 else files)
    name = str(path.relative_to(directory))
    kind = rng.choice([*BYTES, "removed"])
    if kind in BYTES:
        path.write_bytes(BYTES[kind](path.read_bytes(), rng))
    else:
        path.unlink()
    return f"{name} {kind}"


def _damage_step(step: pathlib.Path, rng: random.Random) -> str:
    kind = rng.choice(("removed", "emptied", "renamed", "copied to a later step"))
    later = step.parent / str(1000 + rng.randrange(1000))
    if kind == "renamed":
        step.rename(later)
    elif kind.startswith("copied"):
        shutil.copytree(step, later)
    else:
        shutil.rmtree(step)
        if kind == "emptied":
            step.mkdir()
    return f"step {step.name} {kind}"
