"""Figures 8 to 13 of `linear-speedup`: federated PPO on BigFish. Here are epochs to a reward."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from fedjax_rl import analysis
from fedjax_rl.studies.claims import control, effect, number
from fedjax_rl.studies.declared import figure
from fedjax_rl.studies.estimates import Estimate, exact, together
from fedjax_rl.studies.linear_speedup import deep_panels, deep_rewards
from fedjax_rl.studies.linear_speedup import deep_times as times
from fedjax_rl.studies.linear_speedup.deep_runs import EACH, PRESETS, SIZES, WIDE, Bench
from fedjax_rl.studies.linear_speedup.deep_times import (
    AGENTS,
    AUTHORS,
    NEVER,
    NULL,
    PERIODS,
    Seen,
    value,
)
from fedjax_rl.studies.pictures import page

__all__ = ["FIGURES", "PRESETS", "SIZES"]
COSTS = (0.1, 1.0, 10.0)
SLOPES = (-1.1118, -1.3602, -1.4214, -1.4706)  # published at K = 1
SHIFTS = (0.1261, 0.6585, 1.5796)  # of Fig. 12 from Fig. 9c
SUBLINEAR = (-2.0, -0.7)
LESS_NOISE = (
    "N agents that average make as many steps as one, along gradients of less noise: they end "
    "higher (row P10), and are not N times as soon at a reward. The author's reading, of any "
    "agent, makes slopes steeper (row P4 other), also where nothing is learned (row P4 noise)."
)
ARITHMETIC = (
    "The slope without a charge is flatter (row P4); the charge adds what it should (row P3)."
)


@figure("fig9", "PPO, K = 1: epochs to a reward against N", only_named=True)
def fig9(size):
    """More agents are published as faster, by more than their number.

    The published thresholds are rewards of .15, .2, .3 and .5. At other sizes they are 10, 30, 50
    and 70 % of the way from the best that agents which learn nothing are ever read as, to the best
    final reward: the author's reading, a centred mean of any agent's, makes more agents faster
    without any learning (row P4 noise).
    """
    bench = Bench(size)
    why = LESS_NOISE if size.preset == "vectors" else ""
    yield number(
        "P4",
        "slope of log T against log N at the four thresholds",
        bench.of(lambda seen: seen.slopes(1)),
        (SUBLINEAR,) * 4,
        published=SLOPES,
        why=why,
    )
    yield number(
        "P4 other",
        "the same by the other reading: at K = 1 the mean over the agents is the server's return",
        bench.of(lambda seen: seen.slopes(1, seen.other)),
        (SUBLINEAR,) * 4,
    )
    yield number(
        "P4 resampled",
        "the same with intervals from whole runs drawn again",
        bench.of(lambda seen: [times.resampled(value, seen.of(1, level)) for level in seen.levels]),
        (SUBLINEAR,) * 4,
        published=SLOPES,
        why=why,
    )
    yield control(
        "P4 null",
        "slopes of runs that reach the thresholds where nothing is learned",
        bench.of(lambda seen: seen.slopes(NULL)),
        (SUBLINEAR,) * 4,
    )
    yield effect(
        "P4 noise",
        "slope at a reward of 0.1 where nothing is learned, turned round, by the author's reading",
        bench.of(lambda seen: times.turned(times.slope(seen.of(NULL, 0.1, times.ANY)))),
        why="the largest of N noisy means is sooner above a low threshold: at 0.1 a slope, the "
        "published -0.33 among them, says nothing of learning",
    )
    yield effect(
        "P12",
        "slope of independent agents less that of K = 1, middle threshold",
        bench.of(lambda seen: seen.between(1, NEVER)),
        published="agents learn faster because they average",
    )
    yield deep_panels.against_agents(bench, "fig9", 1, range(4))
    yield page(
        "fig9-reached",
        *(deep_panels.reached(bench, kind) for kind in (*PERIODS, NEVER)),
        columns=2,
        title="runs that have reached the middle threshold (Kaplan-Meier)",
    )


@figure("fig9-controls", "PPO, K = 1: runs that differ in one thing", only_named=True)
def fig9_controls(size):
    """What the slope of Fig. 9c owes to the schedule, to the optimiser and to more samples."""
    bench = Bench(size)
    constant = bench.of(lambda seen: times.slope(seen.of(1, seen.middle)))
    why = f"The rate of these runs is constant: the slope is that of row P4. {LESS_NOISE}"
    if bench.size.preset in AUTHORS:
        constant = _of_control(bench, "constant rate", times.slope)
        why = "the reference is what the schedule's share in the published slope comes to"
    yield number(
        "P5",
        "slope at a constant learning rate, middle threshold",
        constant,
        (-1.5, -0.7),
        reference=-1.1,
        why=why,
    )
    yield effect(
        "P5 batch",
        "slope of one agent with N times the batch, turned round, middle threshold",
        _of_control(bench, WIDE, lambda rows: times.turned(times.slope(rows))),
        published="N agents that average have N times the samples",
        why="" if bench.size.preset == "paper" else "Half as many seeds as of the runs themselves.",
    )
    yield page(
        "fig9-controls",
        bench.panel(_dots, bench.controls),
        title="slope at K = 1 of runs that differ in one thing, middle threshold",
        height=3.0,
    )


def _of_control(bench: Bench, name: str, function) -> Estimate:
    return bench.of(lambda seen, made: function(_control(seen, made, name)), bench.controls)


def _control(seen: Seen, made: xr.Dataset, name: str) -> times.Crossings:
    rewards = times.REWARD * made[EACH].sel({"method": name})
    return times.crossings(times.read(rewards, seen.size, seen.reading), seen.middle)


def _dots(axis: Axes, seen: Seen, made: xr.Dataset) -> None:
    """The slope by either reading, and of every control."""
    slopes = {own: times.slope(seen.of(1, seen.middle, own)) for own in (times.ANY, times.MEAN)}
    for name in made["method"].values:
        slopes[name] = times.slope(_control(seen, made, name))
    deep_panels.dots(axis, slopes)


@figure("fig10", "PPO, K = 10: the same", only_named=True)
def fig10(size):
    """Averaging every ten epochs is published as a weaker speedup than averaging always."""
    bench = Bench(size)
    yield number(
        "P6",
        "slope of log T against log N at the four thresholds",
        bench.of(lambda seen: seen.slopes(10)),
        ((None, 0.1),) * 4,
        published=(-0.2826, -0.4273, -0.7847, -0.5314),
    )
    yield number(
        "P6 flatter",
        "slope less that at K = 1, middle threshold",
        bench.of(lambda seen: seen.between(1, 10)),
        (0.2, None),
        published=round(-0.7847 + 1.4214, 4),
    )
    yield effect(
        "P6 reversal",
        "slope less that without N = 8, middle threshold",
        bench.of(
            lambda seen: times.resampled(
                lambda rows: value(rows) - value(rows.take(rows.x < 8)),
                seen.of(10, seen.middle),
            )
        ),
        published="-0.59 to -0.78 without N = 8",
    )
    yield control(
        "P6 null",
        "slope of runs that reach the lowest threshold where nothing is learned",
        bench.of(lambda seen: times.slope(seen.of(NULL, seen.levels[0]))),
        (None, 0.1),
    )
    yield deep_panels.against_agents(bench, "fig10", 10, range(4))


@figure("fig11", "PPO, K = 100: the same", only_named=True)
def fig11(size):
    """Averaging every hundred epochs is published as no speedup.

    Runs that never reach the threshold were left out of the published fit, which flatters. The
    regression here keeps them as censored.
    """
    bench = Bench(size)

    def plain(seen):
        rows = seen.of(100, seen.levels[0])
        found = times.ordinary(rows)
        if found is None:
            return times.UNREAD
        name = found.names[1]
        return analysis.Measured(found[name], *found.interval(name), rows.count)

    yield number(
        "P7",
        "slope, lowest threshold, without the runs that never reach it",
        bench.of(plain),
        (-0.4, 0.4),
        published=0.0205,
    )
    yield number(
        "P7 censored",
        "the same with these runs",
        bench.of(lambda seen: times.slope(seen.of(100, seen.levels[0]))),
        (-0.4, None),
    )
    yield effect(
        "P7 flatter",
        "slope less that at K = 1, middle threshold",
        bench.of(lambda seen: seen.between(1, 100)),
        published="no speedup at K = 100",
    )
    yield deep_panels.against_agents(bench, "fig11", 100, (0, 1))


@figure("fig12", "PPO, K = 1: the same with the time of communication", only_named=True)
def fig12(size):
    """An average of N agents is charged C log2 N epochs, which shifts the slope at K = 1."""
    bench = Bench(size)
    agents = np.array(AGENTS, float)
    added = [analysis.loglog(agents, 1 + c * np.log2(agents), 2.0)["slope"] for c in COSTS]

    def moved(seen):
        rows = seen.of(1, seen.middle)
        return [
            times.resampled(lambda own, c=c: value(own.charged(c)) - value(own), rows)
            for c in COSTS
        ]

    yield number(
        "P3",
        "shift of a slope by C = 0.1, 1, 10 where every N has as many runs: arithmetic",
        together(*map(exact, added)),
        tuple((x - 1e-4, x + 1e-4) for x in SHIFTS),
        published=SHIFTS,
    )
    yield number(
        "P3 data",
        "shift of the slope of these runs by C = 0.1, 1, 10, middle threshold",
        bench.of(moved),
        tuple((x - 0.1, x + 0.1) for x in SHIFTS),
        published=SHIFTS,
    )
    yield number(
        "P13",
        "slope at C = 0, 0.1, 1, 10, middle threshold",
        bench.of(
            lambda seen: [
                times.slope(seen.of(1, seen.middle).charged(cost)) for cost in (0.0, *COSTS)
            ]
        ),
        tuple((SUBLINEAR[0] + x, SUBLINEAR[1] + x) for x in (0.0, *SHIFTS)),
        published=(-1.4214, -1.2953, -0.7629, 0.1582),
        why=ARITHMETIC if size.preset == "vectors" else "",
    )

    def panel_of(cost: float):
        def draw(axis, seen):
            rows = seen.of(1, seen.middle).charged(cost)
            deep_panels.epochs(axis, rows, f"reward / 10 = {seen.middle:.2g}", "agents N", True)
            axis.set_ylabel("epochs and communication")

        return bench.panel(draw, title=f"K = 1, C = {cost:g}")

    yield page("fig12", *map(panel_of, (0.0, *COSTS)), columns=2, title=deep_panels.title(bench))


@figure("fig13", "PPO: epochs to a reward against K", only_named=True)
def fig13(size):
    """Averaging less often is slower, and more so the more agents there are."""
    bench = Bench(size)

    def over(seen, n, kinds=PERIODS):
        return seen.over_periods(n, seen.levels[0], kinds)

    yield number(
        "P8",
        "slope of log T against log K, lowest threshold, N = 2, 4, 8",
        bench.of(lambda seen: [times.slope(over(seen, n)) for n in AGENTS[1:]]),
        ((0, 1),) * 3,
        published=(0.18, 0.42, 0.5543),
    )
    yield effect(
        "P8 order",
        "these slopes: N = 4 less N = 2, N = 8 less N = 4",
        bench.of(
            lambda seen: [
                times.apart(over(seen, n), over(seen, 2 * n), shared=False) for n in AGENTS[1:3]
            ]
        ),
        published="0.16 to 0.20, 0.40 to 0.44, 0.55 to 0.82",
        band=((0, None),) * 2,
    )
    yield control(
        "P8 null",
        "these slopes of runs that learn nothing, so that K is a label",
        bench.of(lambda seen: [times.slope(over(seen, n, (NULL,) * 3)) for n in AGENTS[1:]]),
        ((0, 1),) * 3,
    )

    def panel_of(n: int, place: int):
        def draw(axis, seen):
            rows = seen.over_periods(n, seen.levels[place])
            deep_panels.epochs(axis, rows, f"reward / 10 = {seen.levels[place]:.2g}", "K", False)

        return bench.panel(draw, title=f"N = {n}, threshold {place + 1}")

    shown = [panel_of(n, place) for place in (0, 1) for n in AGENTS[1:]]
    yield page("fig13", *shown, title=deep_panels.title(bench))


FIGURES = (deep_rewards.fig8, fig9, fig9_controls, fig10, fig11, fig12, fig13)
