"""Panels of figures 9 to 13 of `linear-speedup`: epochs to a reward, and who has got there."""

# ruff: noqa: RUF001 -- the labels say − as printed numbers do

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from fedjax_rl import analysis
from fedjax_rl.analysis import Measured
from fedjax_rl.plotting import formats
from fedjax_rl.plotting.regressions import band, ticks
from fedjax_rl.plotting.style import GREY, OKABE_ITO, RED
from fedjax_rl.studies.linear_speedup import deep_times as times
from fedjax_rl.studies.linear_speedup.deep_runs import Bench
from fedjax_rl.studies.linear_speedup.deep_times import AGENTS, KINDS, Crossings
from fedjax_rl.studies.pictures import Panel, Picture, page

FIT, PLAIN = "regression with censored runs, 95 %", "ordinary fit to what is reached"
ROOM = 0.22  # of a panel's height, for words beside the points


def epochs(axis: Axes, rows: Crossings, words: str, x: str, ideal: bool) -> None:
    """Runs that reach a threshold black, others red at their last epoch; the fits."""
    late, time = rows.reached.censored, rows.reached.time_or_limit
    shown = rows.x * 2 ** (0.12 * (rows.trial / max(1, rows.trial.max()) - 0.5))
    axis.scatter(shown[~late], time[~late], s=9, color="black", zorder=3, label="reached")
    label = "not reached, at its last epoch"
    axis.scatter(shown[late], time[late], s=13, color=RED, marker="^", zorder=3, label=label)
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    try:
        found = times.fit(rows)
    except ValueError:
        words += "\ntoo few reach it"
    else:
        band(axis, rows.x, found, 2.0, color=OKABE_ITO[0], label=FIT)
        ends = formats.interval((found["slope"], *found.interval("slope")))
        words += f"\nslope {ends}".replace("-", "−")
        if ideal:
            grid = np.unique(rows.x)
            height = 2 ** found.predict([0.0])[0][0] / grid
            axis.plot(grid, height, "--", color=GREY, lw=1, label="1/N")
    plain = times.ordinary(rows)
    if plain is not None:
        band(axis, rows.x, plain, 2.0, color=OKABE_ITO[4], label=PLAIN, linestyle=":")
    # Words stand where no point is, at the end of the axis that lines and points leave free.
    low, high = axis.get_ylim()
    room = (high / low) ** (ROOM / (1 - ROOM))
    axis.set_ylim(*((low / room, high) if ideal else (low, high * room)))
    axis.text(
        0.03,
        0.03 if ideal else 0.97,
        words,
        transform=axis.transAxes,
        va="bottom" if ideal else "top",
        fontsize=6.5,
    )
    ticks(axis.xaxis, 10.0, np.unique(rows.x))
    ticks(axis.yaxis, 10.0)
    axis.set_xlabel(x)
    axis.set_ylabel("epochs")


def against_agents(bench: Bench, stem: str, kind, places: Sequence[int]) -> Picture:
    """A page of panels, one per threshold."""

    def panel_of(place: int):
        def draw(axis, seen):
            level = seen.levels[place]
            words = f"reward / 10 = {level:.2g}"
            epochs(axis, seen.of(kind, level), words, "agents N", True)

        return bench.panel(draw, title=f"{KINDS[kind]}, threshold {place + 1}")

    return page(stem, *map(panel_of, places), columns=2, title=title(bench))


def title(bench: Bench) -> str:
    """Of a page: how many runs, how long, how they are read."""
    size, (reading, _) = bench.size, times.readings(bench.size)
    return f"{size.ppo_trials} runs of {size.ppo_epochs} epochs each; read is {reading}"


def reached(bench: Bench, kind) -> Panel:
    """Kaplan-Meier curves of the part of the runs that has reached the middle threshold."""

    def draw(axis, seen):
        rows = seen.of(kind, seen.middle)
        for place, n in enumerate(AGENTS):
            own = rows.take(rows.x == n).reached
            curve = analysis.kaplan_meier_curve(own)
            time = [0, *curve.time, own.last.max()]
            part = [0, *curve.fraction]
            axis.step(
                time, [*part, part[-1]], where="post", color=OKABE_ITO[place], label=f"N = {n}"
            )
        axis.set_ylim(-0.03, 1.03)
        axis.set_xlabel("epoch")
        axis.set_ylabel("part of the runs")

    return bench.panel(draw, title=KINDS[kind])


def dots(axis: Axes, slopes: dict[str, Measured]) -> None:
    """Slopes with their intervals, one below the other."""
    for place, own in enumerate(slopes.values()):
        if own.low is None:
            axis.annotate("too few reach it", (0.0, place), va="center")
            continue
        axis.plot([own.low, own.high], [place, place], color=OKABE_ITO[0], lw=1.5)
        axis.plot(own.value, place, "o", color=OKABE_ITO[0], ms=5)
    axis.axvline(-1, color=GREY, ls="--", lw=1, label="1/N")
    axis.set_yticks(range(len(slopes)), list(slopes))
    axis.invert_yaxis()
    axis.set_xlabel("slope of log T against log N")
