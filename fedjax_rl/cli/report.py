"""What the command line prints: messages, progress, tables and summaries."""

from __future__ import annotations

import contextlib
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence

from fedjax_rl.cli.parts import finite

PROGRAM = "fedjax-rl"
# What is shown of a run beside its headline, where it has a clock.
WATCHED = ("simulated_time", "staleness")
# Runs from which on an interval says something: with two it is 13 standard errors long.
FEWEST = 3
# Values of a curve beside the bar, and what they are drawn with.
_CURVE, _BARS = 16, "▁▂▃▄▅▆▇█"


def say(text: str) -> None:
    """A line on stderr, of ours; of several processes all but the first say who they are."""
    hosts = sys.modules.get("fedjax_rl.hosts")  # imported by who needs it, as JAX comes with it
    who = f"process {hosts.index()}: " if hosts and hosts.index() else ""
    print(f"{PROGRAM}: {who}{text}", file=sys.stderr, flush=True)


def number(value, digits: int = 6) -> str:
    """A number, a list of them, or nothing, as a cell of a table.

    Args:
      value: a number, a list or a word.
      digits: that count, of fractions.
    """
    if value is None:
        return "-"
    if isinstance(value, list | tuple):
        return ", ".join(number(v, digits) for v in value)
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)


def plural(count: int, word: str) -> str:
    """So many of something, such as "1 device" and "2 devices"."""
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"


def interval(mean, low, high) -> str:
    """A mean with its interval, where there is one."""
    text = "not finite" if mean is None else f"{mean:.4g}"
    return text if low is None or high is None else f"{text} [{low:.4g}, {high:.4g}]"


class _Watched:
    """What is said of a run while it runs, from the last values of its metrics and costs."""

    def __init__(self, shown: Sequence[str]) -> None:
        self.shown, self.curve, self.last = shown, [], (time.perf_counter(), 0.0)

    def words(self, values: dict[str, float], pictured: bool) -> str:
        """Metrics, environment steps a second and what was sent, in the order in which one looks.

        Args:
          values: by name.
          pictured: whether the first metric has its curve beside it.
        """
        out = [f"{n.replace('_', ' ')} {values[n]:.4g}" for n in self.shown if n in values]
        if out and pictured:
            self.curve = [*self.curve, values.get(self.shown[0], math.nan)][-_CURVE:]
            out[0] += f" {_sparks(self.curve)}"
        now, steps = time.perf_counter(), values.get("env_steps", 0.0)
        seconds, made = now - self.last[0], steps - self.last[1]
        if made > 0 and seconds > 0:
            self.last = now, steps
            out.append(f"{made / seconds:,.3g} environment steps/s")
        sent = values.get("bytes_up", 0.0) + values.get("bytes_down", 0.0)
        if sent:
            out.append(f"{sent / 1e6:,.4g} MB sent")
        return ", ".join(out)


def _sparks(values: Sequence[float]) -> str:
    """A curve of one character per value, between the least and the largest of them."""
    known = [x for x in values if math.isfinite(x)]
    low, high = (min(known), max(known)) if known else (0.0, 0.0)
    step = (high - low) / (len(_BARS) - 1) or 1.0
    return "".join(_BARS[round((x - low) / step)] if math.isfinite(x) else " " for x in values)


@contextlib.contextmanager
def live(counted: str = "", shown: Sequence[str] = ()) -> Iterator[tuple[Callable, Callable]]:
    """A bar with the time left, or a line every tenth where there is no terminal.

    Args:
      counted: what the speed counts, such as "agent-steps"; no speed is shown without it.
      shown: metrics whose last values stand beside it, the first one with its curve; with them
        stand the environment steps a second and what agents and servers have sent.

    Yields:
      What is to be called with what is done and what there is in all, and then what is to be
      called with the last values of metrics and costs by name.
    """
    from rich import progress
    from rich.console import Console

    console = Console(stderr=True)
    columns = [
        progress.SpinnerColumn(),
        progress.TextColumn("{task.description}"),
        progress.BarColumn(bar_width=20 if shown else 40),
        progress.TaskProgressColumn(),
        progress.TimeElapsedColumn(),
        progress.TextColumn("left"),
        progress.TimeRemainingColumn(),
        progress.TextColumn("{task.fields[values]}" if shown else "{task.fields[speed]}"),
    ]
    bar = progress.Progress(*columns, console=console, disable=not console.is_terminal)
    task = bar.add_task("compiling", total=None, speed="", values="")
    tenths, unsaid, watched = [0], [], _Watched(shown)

    def advance(done: float, total: float) -> None:
        speed = bar.tasks[0].speed
        text = f"{speed:.3g} {counted}/s" if speed and counted else ""
        bar.update(task, description="running", completed=done, total=total, speed=text)
        tenth = int(10 * done / total) if total else 10
        if not console.is_terminal and tenth > tenths[0]:
            tenths[0] = tenth
            seconds = bar.tasks[0].time_remaining
            left = "" if seconds is None or done >= total else f", about {seconds:.0f} s left"
            unsaid.append(f"{10 * tenth} % done{left}")
            if not shown:
                say(unsaid.pop())

    def watch(values: dict[str, float]) -> None:
        if console.is_terminal:
            bar.update(task, values=watched.words(values, pictured=True))
        elif unsaid:
            words = watched.words(values, pictured=False)
            say("; ".join(part for part in (unsaid[-1], words) if part))
            unsaid.clear()

    with bar:
        yield advance, watch


def _plain(value):
    """A label as JSON has it: None among numbers is NaN on an axis."""
    return None if isinstance(value, float) and math.isnan(value) else finite(value)


def summarise(config: dict, result, headline: str | None = None) -> dict:
    """The content of `summary.json`: a row per configuration, seeds averaged, with intervals.

    Args:
      config: as of `config.json`.
      result: of the run or sweep.
      headline: the metric in which algorithms are compared, where they are.
    """
    import numpy as np

    from fedjax_rl import analysis
    from fedjax_rl.federation.ledger import COLUMNS
    from fedjax_rl.saving import results
    from fedjax_rl.sweeps.of_agents import MEAN, SPREAD

    metrics = [n for n in result.data_vars if n not in (*COLUMNS, "diverged", "phase")]
    # Where not every agent is recorded the mean over all stands for a metric.
    whole = [n for n in metrics if n + MEAN in metrics]
    apart = [n + end for n in whole for end in (MEAN, SPREAD)]
    metrics = [n for n in metrics if n not in apart]
    dims = [d for d in result["diverged"].dims if d != "seed"]
    seeds = result.sizes.get("seed", 1)
    moved = result.transpose(*dims, ..., "time")

    def estimate(values) -> dict:
        values = np.asarray(values, np.float64).reshape(-1)
        with np.errstate(invalid="ignore", over="ignore"):
            mean, *limits = analysis.mean_interval(values)
        if len(values) < FEWEST:
            limits = None, None
        numbers = zip(("mean", "low", "high"), (mean, *limits), strict=True)
        return {n: None if x is None or not np.isfinite(x) else float(x) for n, x in numbers}

    rows, diverged, broken = [], [], "non_finite" in result
    for index in np.ndindex(*(result.sizes[d] for d in dims)):
        one = moved.isel(dict(zip(dims, index, strict=True)))
        at = {n: _plain(one[n].item()) for n in one.coords if one[n].ndim == 0 and n != "seed"}
        row = {**at, "metrics": {}}
        for name in metrics:
            if one[name].isnull().all() and not one["diverged"].any():
                continue  # what this configuration does not have
            values = one[name + MEAN] if name in whole else one[name]
            values = analysis.agent_mean(values) if "agent" in values.dims else values
            row["metrics"][name] = {
                "final": estimate(values.isel(time=-1)),
                # A run that broke has no mean over its second half, as it has no last value.
                "second_half": estimate(
                    values.isel(time=slice(result.sizes["time"] // 2, None)).mean(
                        "time", skipna=False
                    )
                ),
            }
        row["ledger"] = {n: float(one[n].mean()) for n in COLUMNS}
        rows.append(row)
        labels = np.atleast_1d(one["seed"].values)
        bad = labels[np.atleast_1d(one["diverged"].values)]
        diverged += [{**at, "seed": int(seed)} for seed in bad]
    if config["command"] == "compare" and headline is not None:
        over_runs(rows, result, headline)
    return {
        "command": config["command"],
        "algorithm": config["algorithm"],
        "environment": config["environment"],
        "environment_options": config["environment_options"],
        "num_steps": config["num_steps"],
        "seeds": seeds,
        "interval": f"95 % Student t over seeds; null for fewer than {FEWEST}",
        "rows": rows,
        "ledger": {n: int(result[n].sum()) for n in COLUMNS},
        "diverged": diverged,
        "non_finite": int(result["non_finite"].isel(time=-1).sum()) if broken else 0,
        "seconds": json.loads(result.attrs["seconds"]),
        "versions": results.versions(),
        "device": results.device(),
    }


def over_runs(rows: list[dict], result, metric: str) -> None:
    """Adds to the rows of a comparison what single runs have come to in the end.

    Under "over_runs" stand the interquartile mean and, of all algorithms but the first, how
    probably a run lies above one of the first; None where a run is not finite.

    Args:
      rows: of a summary.
      result: of the comparison.
      metric: name, of federations.
    """
    import numpy as np

    from fedjax_rl import analysis

    last = result[metric].isel(time=-1).transpose("algorithm", ..., missing_dims="ignore")
    last = last if "seed" in last.dims else last.expand_dims("seed")
    first = rows[0]["algorithm"]

    def of(name: str, row: dict):
        at = {n: row[n] for n in last.dims if n in row and n != "algorithm"}
        return last.sel(algorithm=name, **at).values

    def said(found) -> dict:
        values = zip(("value", "low", "high"), found[:3], strict=True)
        numbers = {n: float(x) if np.isfinite(x) else None for n, x in values}
        return {**numbers, "runs": found.runs}

    for row in rows:
        own, others = of(row["algorithm"], row), of(first, row)
        middle = above = None
        if np.isfinite(own).all():
            middle = said(analysis.interquartile_mean(own))
            if row["algorithm"] != first and np.isfinite(others).all():
                above = {"of": first, **said(analysis.probability_of_improvement(own, others))}
        row["over_runs"] = {"metric": metric, "interquartile_mean": middle, "above": above}
