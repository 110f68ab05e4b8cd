"""Ant: Figs 4.6, 4.9 and 4.11, at the paper's scale only.

Episodes, agents and settings are the thesis's. Six trials where it has 3, 6 and 5; an episode is
cut at 300 of 1000 steps, which hold 95 % of the discounted weight. Ant is that of brax (spring),
another simulator than the thesis's: orders and shapes compare, numbers do not.
"""

from __future__ import annotations

import numpy as np

from fedjax_rl.algorithms import espc
from fedjax_rl.envs import brax_task
from fedjax_rl.studies.claims import effect, number
from fedjax_rl.studies.communication_efficient.cartpole import IN_ORDER, ORDER, THREE
from fedjax_rl.studies.communication_efficient.lines import (
    ANT_ES,
    end,
    of_fifty,
    over,
    pairs,
    positive,
    row,
)
from fedjax_rl.studies.declared import figure
from fedjax_rl.studies.estimates import mean, of_means, shares, together
from fedjax_rl.studies.pictures import page
from fedjax_rl.studies.runs import runs

STEPS = 300
RATE = 40_000  # steps of the environment in a second on two cores, all overheads included
METRICS = ("reward", "frequency")
FEW = "Six runs, where the thesis has 3, 6 and 5: one takes minutes."


def _ant(size, name: str, lines, episodes: int, first_seed: int):
    """Runs of lines, label -> the agents and properties of each."""
    agents = sum(own.get("num_agents", 50) for own in lines.values())

    def methods():
        one = espc(brax_task("ant", max_steps=STEPS), loop="while", **ANT_ES)
        return {label: (one, own) for label, own in lines.items()}

    cost = agents * (size.ant_trials or 6) * episodes * STEPS / RATE
    return runs(
        name,
        methods,
        num_agents=50,
        num_steps=episodes,
        trials=size.ant_trials,
        metrics=METRICS,
        record_every=1,
        first_seed=first_seed,
        seconds=cost,
        chunk=10,
    )


def _learned(made, id: str, lines):
    """That every line has learned anything, without which it would tell nothing."""
    return effect(
        f"{id} learn",
        f"last 20 less the first episode: {', '.join(lines)}",
        mean((end(made, list(lines)) - made["reward"].first(1))[list(lines)]),
        band=((0, None),) * len(lines),
        why=FEW,
    )


def _some(number, trials: int):
    """The first trials, as many as the thesis has."""
    return number.then(lambda array: array.isel(seed=slice(trials)))


@figure("fig4-6", "Ant: ES and ESPC")
def fig4_6(size):
    """Selection helps raw returns, and taking the mean off helps more.

    Returns grow from 1 to 5 times their spread. Three trials order nothing.
    """
    made = _ant(size, "ant", of_fifty(*THREE, "ES n=50 centred"), 200, 0)
    ends, two = end(made, [*THREE, "ES n=50 centred"]), ((0, None),) * 2
    yield effect(
        "C36",
        "last 20: ESPC - ES n=50, ES n=50 - ES n=25",
        together(*pairs(ends, *IN_ORDER)),
        published=ORDER,
        band=two,
        why=FEW,
    )
    yield effect(
        "C36 three",
        "the same of three trials, as the thesis has",
        together(*pairs(_some(ends, 3), *IN_ORDER)),
        published=ORDER,
        band=two,
    )
    yield positive(
        "C36 centred",
        "last 20: ES n=50 centred - ESPC",
        ends["ES n=50 centred"] - ends["ESPC n=50"],
        why=FEW,
    )
    reward = made["reward"]

    def always(a, b):
        return float(np.mean(a > b))

    yield number(
        "C36 always",
        "share of all episodes in which the mean of ESPC is above ES n=50; ES n=25",
        shares(
            together(
                *(of_means(always, reward["ESPC n=50"], reward[o]) for o in ("ES n=50", "ES n=25"))
            )
        ),
        ((0.995, None),) * 2,
        published=(1.0, 1.0),
        why=FEW,
    )
    yield _learned(made, "C36", THREE)
    yield number(
        "C37",
        "mean frequency of ESPC",
        shares(over(made, "ESPC n=50", "frequency")),
        (0.45, 0.60),
        published=0.5,
        reference=0.54,
        why=FEW,
    )
    yield page(
        "fig4-6",
        *row(
            made,
            (*THREE, "ES n=50 centred"),
            METRICS,
            title="",
            reward="discounted return",
        ),
        title=f"Ant, {size.ant_trials} trials, episodes of at most {STEPS} steps",
        caption="dashed: not in the thesis",
    )


@figure("fig4-9", "Ant: number of senders wanted")
def fig4_9(size):
    """Of few senders an update is noisy, and one that throws the ant over is hard to undo."""
    asked = (5, 10, 15, 30, 45)
    lines = {f"m={m}": {"target_senders": m, "window": 10} for m in (*asked, 50)}
    made = _ant(size, "ant-targets", lines, 200, 1000)
    ends, curve = end(made, list(lines)), made["reward"]["m=5"]

    def mean_of_episodes(a, b):
        return curve.then(lambda array: array.isel(time=slice(a, b)).mean("time"))

    yield positive(
        "claim 4.9",
        "m = 5, return in episodes 91 to 110 less that in 131 to 150",
        mean_of_episodes(90, 110) - mean_of_episodes(130, 150),
        published="m = 5 collapses near episode 120",
        why=FEW,
    )
    yield positive(
        "claim 4.9 others",
        "last 20 above ES n=50: m = 10, 15, 30, 45",
        *(ends[f"m={m}"] - ends["m=50"] for m in asked[1:]),
        published="all others beat ES n=50",
        why=FEW,
    )
    yield _learned(made, "claim 4.9", lines)
    yield page(
        "fig4-9",
        *(
            own
            for m in asked
            for own in row(
                made,
                (f"m={m}", "m=50"),
                ("reward",),
                title=f"m = {m}",
                reward="discounted return",
            )
        ),
        *row(made, list(lines), ("frequency",), title="all"),
        title=f"Ant, messages wanted m of 50 (all: ES), {size.ant_trials} trials",
    )


@figure("fig4-11", "Ant: length of the window")
def fig4_11(size):
    """The longer the window, the longer a rise of the return keeps everybody talking."""
    lengths = (3, 10, 30)
    lines = {"ES n=50": {"target_senders": 50}}
    lines |= {f"k={k}": {"target_senders": 25, "window": k} for k in lengths}
    made = _ant(size, "ant-windows", lines, 300, 2000)
    ends = end(made, list(lines))
    yield number(
        "claim 4.11",
        "last 20, a relative difference: k = 10 to 3, 30 to 10",
        together(
            *(
                of_means(lambda a, b: float(a / b - 1), ends[f"k={a}"], ends[f"k={b}"])
                for a, b in ((10, 3), (30, 10))
            )
        ),
        ((-0.25, 0.25),) * 2,
        published=(0, 0),
        why=FEW,
    )
    talk = {k: over(made, f"k={k}", "frequency") for k in lengths}
    yield positive(
        "claim 4.11 talk",
        "mean frequency while the return rises: k = 10 - 3, 30 - 10",
        talk[10] - talk[3],
        talk[30] - talk[10],
        published="communication follows growth longer for larger k",
        why=FEW,
    )
    yield _learned(made, "claim 4.11", lines)
    yield page(
        "fig4-11",
        *row(made, list(lines), METRICS, title="", reward="discounted return"),
        title=f"Ant, 25 messages wanted of 50, {size.ant_trials} trials",
    )
