"""Agents of different speed: waiting for everybody or for nobody."""

from __future__ import annotations

import numpy as np

from fedjax_rl import analysis
from fedjax_rl.analysis import around
from fedjax_rl.plotting.page import describe
from fedjax_rl.plotting.regressions import ticks
from fedjax_rl.plotting.style import GREY
from fedjax_rl.studies.afedpg import tables
from fedjax_rl.studies.afedpg.tables import reached
from fedjax_rl.studies.afedpg.timing import (
    BESIDE,
    MIXED,
    ONE_SLOW,
    RATIOS,
    SLOW,
    median_less,
    on_their_own,
    stage_of,
)
from fedjax_rl.studies.claims import effect, number
from fedjax_rl.studies.declared import figure
from fedjax_rl.studies.estimates import medians, of_means, together
from fedjax_rl.studies.numbers import along, beside
from fedjax_rl.studies.pictures import Panel, page


@figure("heterogeneity", "agents of different speed: waiting for everybody or for nobody")
def heterogeneity(size):
    """Who waits for nobody is as much sooner as the slowest is slower than the harmonic mean.

    Agents on their own take the time of one agent times their mean slowness.
    """
    stage = stage_of(size)
    every, every_end = reached(stage), stage["simulated_time"].last()
    times, ends = (along(own, "ratio", RATIOS) for own in (every, every_end))
    steps = along(reached(stage, clock="time")["AFedPG"], "ratio", RATIOS)
    ours, theirs = times["AFedPG"], times["synchronous"]
    slowness = {ratio: (1 + ratio) / 2 for ratio in map(float, RATIOS.values())}
    lonely = on_their_own(every, "ratio", slowness)
    predicted = np.array([analysis.time_ratio([1.0] * 4 + [r] * 4) for r in slowness])

    def differences(others):
        pairs = ((own.sel(ratio=r) for own in (others, ours)) for r in slowness)
        return together(*(median_less(*pair) for pair in pairs))

    yield effect(
        "claim 2b",
        "median time of synchronous less that of AFedPG, half of eight agents 1, 2, 4, 10, 20 "
        "times slower",
        differences(theirs),
        published="faster than synchronous, by t_max over the harmonic mean",
        band=((0, None),) * len(RATIOS),
    )
    yield effect(
        "claim 2c",
        "the same: agents on their own less AFedPG",
        differences(lonely["independent agents"]),
        band=((0, None),) * len(RATIOS),
    )
    yield number(
        "B7 times",
        "median time to the target, AFedPG, half of eight agents 1, 2, 4, 10, 20 times slower",
        medians(ours, ends["AFedPG"], "ratio"),
        around(MIXED, 0.25),
        reference=MIXED,
        why=f"{BESIDE}.",
    )
    yield number(
        "B7 steps",
        "steps that this takes: largest deviation from their mean, relative",
        of_means(_spread, steps, centre=np.median),
        (None, 0.15),
        published=0,
        reference=0.02,
    )
    yield number(
        "B7 ratio",
        "synchronous over asynchronous time over t_max / harmonic mean: largest deviation from its "
        "mean, relative",
        of_means(lambda a, b: _spread(a / b / predicted), theirs, ours, centre=np.median),
        (None, 0.15),
        published=0,
        reference=0.05,
    )
    yield number(
        "B7 factor",
        "mean of the same",
        of_means(lambda a, b: float((a / b / predicted).mean()), theirs, ours, centre=np.median),
        (0.75, 1.75),
        published=1,
        reference=1.4,
        why="What is left beyond the prediction is the step of the synchronous method: eight times "
        "as long, it is not eight times as good.",
    )
    yield number(
        "B7 slow",
        "median time, AFedPG, one agent 10 or 100 times slower",
        medians(*(along(own["AFedPG"], "slow", SLOW) for own in (every, every_end)), "slow"),
        around(ONE_SLOW, 0.25),
        reference=ONE_SLOW,
        why=f"{BESIDE}.",
    )

    def against_prediction(axis, results):
        ratio = theirs(results).median("seed").values / ours(results).median("seed").values
        axis.loglog(predicted, ratio, "o-", ms=4, label="synchronous / AFedPG")
        axis.loglog(predicted, predicted, ":", color=GREY, label="predicted")
        for part in (axis.xaxis, axis.yaxis):
            ticks(part, 10.0, np.array([1, 2, 5, 10, 20]))
        describe(axis, "", "$t_{max}$ / harmonic mean", "ratio of the median times")

    yield page(
        "heterogeneity",
        tables.times_against(
            beside(times, lonely),
            beside(ends, on_their_own(every_end, "ratio", slowness)),
            "ratio",
            title="half of eight agents slower",
            x="times slower",
        ),
        Panel(against_prediction, (stage,), "what waiting costs"),
        title=f"M3, eight agents, B = 8, {size.trials} trials, medians",
        legends="below",
    )


def _spread(values) -> float:
    """Largest deviation from the mean, relative."""
    return float(np.abs(values / values.mean() - 1).max())
