"""Agents of equal speed: time to a target against their number."""

from __future__ import annotations

from fedjax_rl.analysis import around
from fedjax_rl.studies.afedpg import tables
from fedjax_rl.studies.afedpg.tables import on_clock, reached
from fedjax_rl.studies.afedpg.timing import (
    AGENTS,
    BESIDE,
    ROUNDS,
    SHARES,
    TIMES,
    median_less,
    median_ratio,
    on_their_own,
    stage_of,
)
from fedjax_rl.studies.claims import control, effect, number
from fedjax_rl.studies.declared import figure
from fedjax_rl.studies.estimates import medians, time_exponent, together
from fedjax_rl.studies.numbers import along, beside
from fedjax_rl.studies.pictures import page


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
