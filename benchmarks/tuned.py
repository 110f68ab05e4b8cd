"""Measures what tuned settings reach, and writes it beside them.

    python benchmarks/tuned.py                        every entry that has no numbers yet
    python benchmarks/tuned.py fedpg CartPole-v1      this one again
    python benchmarks/tuned.py --all                  every entry again

An entry is run by the very command that `fedjax-rl list tuned` shows. What it reaches is the mean
return of the last tenth of the records, with the 95 % Student t interval over seeds; where it
starts is the mean of a run of a tenth of the length that learns nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import re
import shlex
import tempfile
import time

import harness

import fedjax_rl as frl
from fedjax_rl import analysis, cli, presets
from fedjax_rl.presets import table
from fedjax_rl.saving import results

STILL = 1e-12  # a rate at which nothing is learned


def device() -> str:
    """The device in words, without the model's number."""
    name = re.sub(r"\((R|TM)\)|Processor|CPU|\d+-Core| @.*", "", results.device())
    kind, _, cores = name.removeprefix("cpu: ").rpartition(", ")
    kind = " ".join(kind.split())
    if not cores.endswith("cores"):
        return results.device()
    used = harness.cores()
    part = "" if used == os.cpu_count() else f"{used} of "
    return f"{part}{cores} of an {kind}"


def returns(entry: presets.Tuned, *more: str):
    """The return that a command records, [seed, time], and its name.

    Args:
      entry: of the table.
      *more: words behind its command.
    """
    one = entry.make()
    metric = next(name for name in ("return", "episode_return") if name in one.metrics)
    with tempfile.TemporaryDirectory() as folder:
        out = str(pathlib.Path(folder) / "run")
        words = shlex.split(entry.command)[1:]
        code = cli.main([*words, "--metrics", metric, "--out", out, *more])
        if code:
            raise SystemExit(code)
        return frl.load(out)[metric].transpose("seed", "time").values, metric


def measure(entry: presets.Tuned) -> dict:
    """What an entry reaches, as `reached.json` has it."""
    begun = time.monotonic()
    values, metric = returns(entry)
    seconds = time.monotonic() - begun
    rates = [n for n in ("learning_rate", "server_learning_rate") if n in entry.make().properties]
    words = [word for n in rates for word in (f"--{n.replace('_', '-')}", str(STILL))]
    still, _ = returns(entry, *words, "--num-steps", str(max(1, entry.num_steps // 10)))
    last = values[:, -max(1, values.shape[1] // 10) :].mean(axis=1)
    mean, low, high = (float(x) for x in analysis.mean_interval(last))
    reached = presets.Reached(
        metric,
        round(float(still.mean()), 2),
        *(round(x, 2) for x in (mean, low, high)),
        round(seconds),
        device(),
    )
    return {"command": entry.command, "flags": entry.flags, **reached._asdict()}


def write(rows: dict[str, dict]) -> None:
    """Puts rows into the file, in the order of the table; whatever is no entry goes."""
    there = json.loads(table.REACHED.read_text()) | rows
    names = [f"{one.algorithm} {one.environment}" for one in presets.entries()]
    kept = {name: there[name] for name in names if name in there}
    text = json.dumps(kept, indent=1) + "\n"
    new = table.REACHED.with_suffix(".new")
    new.write_text(text)
    os.replace(new, table.REACHED)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("algorithm", nargs="?")
    parser.add_argument("environment", nargs="?")
    parser.add_argument("--all", action="store_true", help="also what has been measured")
    asked = parser.parse_args()
    wanted = [one for one in presets.entries() if asked.all or one.reached is None]
    if asked.algorithm:
        every = [one for one in presets.entries() if one.algorithm == asked.algorithm]
        wanted = [one for one in every if asked.environment in (None, one.environment)]
    for entry in wanted:
        row = measure(entry)
        print(f"{entry.algorithm} {entry.environment}: {row['mean']} [{row['low']}, {row['high']}]")
        write({f"{entry.algorithm} {entry.environment}": row})


if __name__ == "__main__":
    main()
