"""Every method on one clock: gap against simulated time."""

from __future__ import annotations

import fedjax_rl as frl
from fedjax_rl.studies.afedpg import tables
from fedjax_rl.studies.afedpg.tables import on_clock, reached
from fedjax_rl.studies.afedpg.timing import RATES, median_ratio, two_speeds
from fedjax_rl.studies.claims import control, effect
from fedjax_rl.studies.declared import figure
from fedjax_rl.studies.estimates import of_means
from fedjax_rl.studies.numbers import Number
from fedjax_rl.studies.pictures import page
from fedjax_rl.studies.runs import STILL, runs


@figure("methods", "every method on one clock: gap against simulated time")
def methods(size):
    """Eight agents, four of them four times slower; every method at every learning rate.

    A method is compared at the rate at which its median is the least. Which that is is found anew
    in every resample, so that the interval knows of the choice. Steps that keep their length come
    to the target as fast at rates at which half of the runs never come there: they stay at another
    policy, which saturates the softmax.
    """
    one = frl.afedpg(tables.m3(), clock=two_speeds(4), episodes_per_step=8, momentum=0.1)
    # A message of five local steps takes five times as long.
    local = {"episodes_per_step": 8, "local_steps": 5, "clock": two_speeds(4, work=5.0)}
    makers = {
        "AFedPG": one,
        "no lookahead": one.replace(lookahead=False),
        "first four of eight": one.replace(clock=two_speeds(4, "semi-synchronous")),
        "synchronous": one.replace(clock=two_speeds(4, "synchronous")),
        "A3C-like": frl.a3c_pg(tables.m3(), clock=two_speeds(4), episodes_per_step=8),
        "FedPG, H = 5": frl.fedpg(tables.m3(), **local),
    }
    stage = runs(
        "methods",
        makers,
        {"learning_rate": (STILL, *RATES)},
        num_steps=600,
        record_every=1,
        num_agents=8,
        trials=size.trials,
        metrics=tables.METRICS,
        seconds=150,
    )
    all_times, all_ends = reached(stage), stage["simulated_time"].last()
    times, ends = (own.sel(learning_rate=list(RATES)) for own in (all_times, all_ends))

    def slower(other):
        return median_ratio(times[other], times["AFedPG"])

    def best(results):
        """Place of the rate with the least median, of every method."""
        return times(results).median("seed").argmin("learning_rate")

    def at_best(value):
        own = value.sel(learning_rate=list(RATES))
        return Number(lambda results: own(results).isel(learning_rate=best(results)), own.needs)

    last = at_best(stage["gap"]).last(20)
    yield effect(
        "claim 2",
        "best rate of each: median time of synchronous over AFedPG",
        slower("synchronous"),
        published="AFedPG is faster",
        band=(1, None),
    )
    yield effect(
        "claim 3",
        "best rate of each: median time of A3C-like over AFedPG",
        slower("A3C-like"),
        published="A3C is slower",
        band=(1, None),
        why="A plain gradient, applied as it arrives with a large step, is the fastest to a gap of "
        "a tenth: its steps shrink with the gradient, and can be large. It has no critic.",
    )
    yield effect(
        "claim 3b",
        "at these rates: gap in the end, A3C-like less AFedPG",
        last["A3C-like"] - last["AFedPG"],
        why="At the rate at which it is fastest about half of AFedPG's runs stay at a policy that "
        "is not the best. At a lower rate they do not (row claim 3c).",
    )

    def least(method):
        return stage["gap"].last(20)[method].sel(learning_rate=list(RATES))

    yield effect(
        "claim 3c",
        "each at the rate of its least gap in the end: A3C-like less AFedPG",
        of_means(lambda a, b: float(a.min() - b.min()), least("A3C-like"), least("AFedPG")),
    )
    yield effect(
        "claim 4 coarse",
        "best rate of each: median time without lookahead over AFedPG",
        slower("no lookahead"),
        published="lookahead helps",
        band=(1, None),
        why="At the rate at which both are fastest looking far ahead of noisy gradients harms, as "
        "in row B8 harm; at lower rates the medians are the same (panel of medians). Late in a run "
        "it helps (rows B8 and claim 4).",
    )
    yield control(
        "claim 2 null",
        "share of trials that come to the target where nothing is learned, of the six methods",
        tables.share_reached(all_times.sel(learning_rate=STILL)),
        ((0, None),) * len(makers),
    )
    yield page(
        "methods",
        on_clock(
            at_best(stage["gap"]),
            at_best(stage["simulated_time"]),
            "method",
            title="best rate of each: mean, 95 % interval",
        ),
        tables.times_against(times, ends, "learning_rate", title="medians", x="η"),
        title=f"M3, N = 8, half four times slower, {size.trials} trials",
    )
