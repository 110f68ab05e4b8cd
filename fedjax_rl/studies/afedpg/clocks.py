"""M3 on clocks: agents of equal and of different speed, and every method on one of them."""

from __future__ import annotations

import numpy as np
import xarray as xr

import fedjax_rl as frl
from fedjax_rl import analysis
from fedjax_rl.analysis import Measured, around
from fedjax_rl.federation.clock import Clock
from fedjax_rl.plotting.page import describe
from fedjax_rl.plotting.regressions import ticks
from fedjax_rl.plotting.style import GREY
from fedjax_rl.studies.afedpg import tables
from fedjax_rl.studies.afedpg.tables import on_clock, reached
from fedjax_rl.studies.claims import control, effect, number
from fedjax_rl.studies.declared import figure
from fedjax_rl.studies.estimates import Estimate, medians, of_means, time_exponent, together
from fedjax_rl.studies.numbers import Number, along, beside
from fedjax_rl.studies.pictures import Panel, page
from fedjax_rl.studies.runs import STILL, runs

AGENTS = {f"N = {n}": n for n in (1, 2, 4, 8, 16)}
RATIOS = {f"r = {r}": r for r in (1, 2, 4, 10, 20)}  # of the times of slow and fast agents
SLOW = {f"slow = {t}": t for t in (10, 100)}  # times of the one slow agent
SHARES = (0.2, 0.1, 0.05)  # of the first gap
RATES = (0.02, 0.05, 0.1, 0.3, 1.0)
# What a prototype measured in ten trials.
TIMES, ROUNDS = (230, 110, 58, 28, 14), (220, 128, 76, 42, 18)
MIXED, ONE_SLOW = (28.5, 38.5, 48.0, 53.5, 57.0), (36.5, 38.5)
BESIDE = "The band is 25 % around medians of ten trials of a prototype, each known to about a tenth"


def two_speeds(ratio: float, scheduler: str = "asynchronous", work: float = 1.0) -> Clock:
    """Half of the agents take so much longer; a semi-synchronous step waits for the first half."""
    return Clock(
        scheduler,
        frl.by_agents(lambda n: n // 2) if scheduler == "semi-synchronous" else None,
        compute_time=work,
        distribution="two_class",
        slow_factor=float(ratio),
    )


def one_slow(time: float, scheduler: str) -> Clock:
    """The last agent takes so long, the others 1."""
    times = frl.by_agents(lambda n: np.where(np.arange(n) == n - 1, float(time), 1.0))
    return Clock(scheduler, compute_time=times)


def stage_of(size):
    """M3 with B = 8, eta 0.05, alpha 0.1 on every clock, with and without waiting."""
    one = frl.afedpg(tables.m3(), episodes_per_step=8, learning_rate=0.05, momentum=0.1)
    settings = {label: {"num_agents": n} for label, n in AGENTS.items()}
    settings |= {label: {"num_agents": 8} for label in (*RATIOS, *SLOW)}
    settings["still"] = {"num_agents": 8, "learning_rate": STILL}

    def on(scheduler):
        clocks = {label: two_speeds(ratio, scheduler) for label, ratio in RATIOS.items()}
        clocks |= {label: one_slow(time, scheduler) for label, time in SLOW.items()}
        equal = Clock(scheduler)
        return one.replace(clock=equal), lambda at: {"clock": clocks.get(at["setting"], equal)}

    return runs(
        "clocks",
        {"AFedPG": on("asynchronous"), "synchronous": on("synchronous")},
        {"setting": settings},
        num_steps=600,
        record_every=1,
        trials=size.trials,
        metrics=tables.METRICS,
        seconds=120,
    )


def median_less(a, b):
    """The median of times less that of others."""
    return of_means(lambda x, y: float(x - y), a, b, centre=np.median)


def median_ratio(a, b):
    """The least median of times in parts of that of others, with an interval in logarithms."""
    logs = of_means(lambda x, y: float(np.log(np.min(x) / np.min(y))), a, b, centre=np.median)

    def of(results):
        (own,) = logs(results)
        ends = (None if end is None else float(np.exp(end)) for end in own[:3])
        return Measured(*ends, own.runs)

    return Estimate(of, logs.needs)


def on_their_own(number, dim, factors):
    """A number of N = 1, times a factor of every value of a dimension: a method of its own."""
    factors = xr.DataArray(np.array(list(factors.values()), float), {dim: list(factors)})
    return (
        number["AFedPG"]
        .sel(setting="N = 1")
        .then(lambda array: (array * factors).expand_dims(method=np.array(["independent agents"])))
    )


@figure("speedup", "agents of equal speed: time to a target against their number")
def speedup(size):
    """N agents of equal speed come to a target N times as soon, whether they wait or not.

    An agent on its own is the run with N = 1; agents that do not communicate take as long as it
    does, however many they are.
    """
    stage = stage_of(size)
    every, every_end = reached(stage), stage["simulated_time"].last()
    times, ends = (along(own, "num_agents", AGENTS) for own in (every, every_end))
    ours = times["AFedPG"]
    alone, *several = (ours.sel(num_agents=n) for n in AGENTS.values())
    closer = along(reached(stage, tables.parts(*SHARES))["AFedPG"], "num_agents", AGENTS)
    yield number(
        "claim 1",
        "exponent of the time to the target in N, N = 1 to 16",
        time_exponent(ours, ends["AFedPG"], "num_agents"),
        (-1.1, -0.9),
        published=-1,
    )
    yield number(
        "claim 6 N",
        "the same to 20, 10, 5 % of the first gap: O(eps^-2.5 / N) at every eps",
        together(
            *(time_exponent(closer.sel(eps=part), ends["AFedPG"], "num_agents") for part in SHARES)
        ),
        ((-1.1, -0.9),) * len(SHARES),
        published=(-1,) * len(SHARES),
    )
    yield effect(
        "claim 1b",
        "median time of agents on their own less that of N = 2, 4, 8, 16 together",
        together(*(median_less(alone, own) for own in several)),
        published="N agents are faster than one",
        band=((0, None),) * len(several),
    )
    yield control(
        "claim 1 null",
        "share of trials that come to the target where nothing is learned: AFedPG, synchronous",
        tables.share_reached(every.sel(setting="still")),
        ((0, None),) * 2,
    )
    yield number(
        "B7 speedup",
        "median time with one agent over that with N = 2, 4, 8, 16",
        together(*(median_ratio(alone, own) for own in several)),
        around((2, 4, 8, 16), 0.25),
        published=(2, 4, 8, 16),
        reference=(2.1, 4.0, 8.0, 15.8),
    )
    yield number(
        "B7 agents",
        "median time to the target, AFedPG, N = 1, 2, 4, 8, 16",
        medians(ours, ends["AFedPG"], "num_agents"),
        around(TIMES, 0.25),
        reference=TIMES,
        why=f"{BESIDE}; the exponent in N is the same.",
    )
    yield number(
        "B7 rounds",
        "the same, synchronous",
        medians(times["synchronous"], ends["synchronous"], "num_agents"),
        around(ROUNDS, 0.25),
        reference=ROUNDS,
        why="With 16 agents that wait for each other the mean of the last 20 gaps cannot fall "
        "before round 20: the prototype's 18 is of another mean. To the first gap of a tenth it "
        f"takes as long as there (row B7 first). {BESIDE}.",
    )
    first = along(reached(stage, window=1)["synchronous"], "num_agents", AGENTS)
    yield number(
        "B7 first",
        "the same to the first gap of a tenth, without a mean",
        medians(first, ends["synchronous"], "num_agents"),
        around(ROUNDS, 0.25),
        reference=ROUNDS,
        why=f"{BESIDE}.",
    )
    same = dict.fromkeys(AGENTS.values(), 1)
    lonely = [on_their_own(own, "num_agents", same) for own in (every, every_end)]
    yield page(
        "speedup",
        on_clock(
            along(stage["gap"]["AFedPG"], "num_agents", AGENTS),
            along(stage["simulated_time"]["AFedPG"], "num_agents", AGENTS),
            "num_agents",
            title="AFedPG: mean, 95 % interval",
            words=lambda n: f"N = {n:g}",
        ),
        tables.times_against(
            beside(times, lonely[0]),
            beside(ends, lonely[1]),
            "num_agents",
            title="medians, 95 % intervals",
            x="agents N",
            ideal=-1,
        ),
        title=f"M3, equal speeds, B = 8, {size.trials} trials",
        legends="below",
    )


def _spread(values) -> float:
    """Largest deviation from the mean, relative."""
    return float(np.abs(values / values.mean() - 1).max())


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
