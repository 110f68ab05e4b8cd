"""Sampled gradients of tables: what more agents, more memory and more episodes are worth."""

# ruff: noqa: RUF001 -- the labels say η and − as the papers do

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from fedjax_rl import algorithms
from fedjax_rl.analysis import around
from fedjax_rl.studies.claims import control, effect, number
from fedjax_rl.studies.declared import figure
from fedjax_rl.studies.estimates import exponent, mean, of_means, power, ratio, together
from fedjax_rl.studies.numbers import Number, beside
from fedjax_rl.studies.pictures import against, page
from fedjax_rl.studies.policy_gradients import ENTROPY, m2
from fedjax_rl.studies.runs import STILL, runs

AGENTS = (2, 4, 8, 16, 32)
FEW = (2, 8, 32)
TABLE = ("gap", "gradient_norm")
START = 0.359148  # J* - J of M2 before anything is learned, whatever the spread of its rewards


@figure("speedup", "sampled gradients: gap against the number of agents")
def speedup(size):
    """N agents leave about 1/N of the gap that the noise of one episode leaves.

    They do so with the correction and without it alike, as noise hides the bias here. One agent
    alone, even in the mean MDP, ends further away than it began at this step: its noise is larger
    than what it learns, and nearly so with two.
    """
    own = {"learning_rate": 0.1, "local_steps": 5, "entropy": ENTROPY}
    fast = algorithms.fast_fedpg(m2(max_steps=30), memory_episodes=1, **own)
    plain = algorithms.fedpg(m2(max_steps=30), **own)
    methods = {"Fast-FedPG": fast, "FedPG": plain}
    trials, rounds = size.speedup
    made = {"num_steps": rounds, "trials": trials, "metrics": TABLE}
    gap = runs("speedup", methods, {"num_agents": AGENTS}, seconds=90, **made)["gap"].late()
    mean_task = {"independent": (plain, {"task": m2(0.0, max_steps=30)})}
    alone = runs("alone", mean_task, {"num_agents": (1,)}, seconds=20, **made)["gap"].late()
    null = _null()["gap"].late()
    ours, alone = gap["Fast-FedPG"], alone.sel(num_agents=1)
    reference = (0.365, 0.202, 0.0989, 0.0519, 0.0275)
    yield number(
        "B1",
        "exponent of the late gap in N, N 2 to 32",
        exponent(ours, "num_agents"),
        (-1.1, -0.8),
        published="N-fold speedup",
        reference=-1,
    )
    yield number(
        "B1 far",
        "the same where the gap is well below the untrained one, N 8 to 32",
        exponent(ours.sel(num_agents=AGENTS[2:]), "num_agents"),
        (-1.1, -0.8),
        published="N-fold speedup",
        reference=-1,
    )
    yield number(
        "B1 gaps",
        "late gap, N 2, 4, 8, 16, 32",
        mean(ours),
        around(reference, 0.35),
        reference=reference,
    )
    yield effect(
        "B1 order",
        "late gap at N less that at 2 N, N 2, 4, 8, 16",
        together(*(ours.sel(num_agents=n) - ours.sel(num_agents=2 * n) for n in AGENTS[:-1])),
        published="more agents, a smaller gap",
        band=((0, None),) * 4,
    )
    yield effect(
        "B1 alone",
        "late gap of one agent alone in the mean MDP less that of 32 agents",
        alone["independent"] - ours.sel(num_agents=32),
    )
    yield control(
        "B1 null",
        "exponent of the gap in N where nothing is learned",
        exponent(null, "num_agents"),
        (-1.1, -0.8),
    )
    yield page(
        "speedup",
        _panel(beside(gap, alone), "mean over the second half of the rounds"),
        title=f"M2, η = 0.1, H = 5, one episode a gradient, {trials} trials, 95 % intervals",
        height=3.6,
    )


@figure("floor", "strong heterogeneity: what more agents cannot remove")
def floor(size):
    """Where rewards are strongly opposed and local steps many, FedPG ends at its bias.

    That is next to where it began, however many agents there are. Fast-FedPG goes on as 1/N, if its
    memory is of as many episodes as the local steps together: with a few, their noise, which stays
    for a whole round, leaves a part that more agents do not remove either.
    """
    own = {"learning_rate": 0.05, "local_steps": 20, "entropy": ENTROPY}
    fast = algorithms.fast_fedpg(m2(3.0), episodes_per_step=4, **own)
    plain = algorithms.fedpg(m2(3.0), episodes_per_step=4, **own)
    few, many = "Fast-FedPG, 4 for the memory", "Fast-FedPG, 80 for the memory"
    methods, little = {many: fast, "FedPG": plain}, {few: fast.replace(memory_episodes=4)}
    made, axes = {"num_steps": size.floor, "metrics": TABLE, "record_every": 3}, {"num_agents": FEW}
    gap = runs("floor", methods, axes, trials=size.trials, seconds=120, **made)
    little = runs("floor-few", little, axes, trials=size.few, seconds=60, **made)
    whole = {"FedPG, whole gradients": algorithms.fedpg(m2(3.0), gradient="exact", **own)}
    biased = runs("floor-exact", whole, num_agents=32, trials=1, seconds=10, **made)
    gap, biased = gap["gap"].late(), biased["gap"].late()["FedPG, whole gradients"]
    least = little["gap"].late()
    yield number(
        "B2",
        "exponent of the late gap in N: FedPG, Fast-FedPG with 80 episodes for the memory",
        exponent(gap[["FedPG", many]], "num_agents"),
        ((-0.15, 0.05), (-1.1, -0.75)),
        published="no floor with the correction",
        reference=(-0.05, -0.92),
    )
    yield effect(
        "B2 correction",
        "late gap of FedPG (no memory) less that of Fast-FedPG, N 2, 8, 32",
        gap["FedPG"] - gap[many],
        published="no bias, however different the agents",
        band=((0, None),) * 3,
    )
    yield number(
        "B2 bias",
        "late gap of FedPG with 32 agents over that with whole gradients",
        mean(gap["FedPG"].sel(num_agents=32) / biased.then(lambda own: own.isel(seed=0))),
        (0.9, 1.1),
        why="What more agents do not remove is the bias that whole gradients have, too.",
    )
    yield number(
        "B2 memory",
        "late gap of Fast-FedPG at N 32 with 4 episodes for the memory over that with 80",
        ratio(least[few].sel(num_agents=32), gap[many].sel(num_agents=32)),
        (1.7, 4.5),
        reference=2.7,
    )
    yield control(
        "B2 null",
        "exponent of the gap in N where nothing is learned",
        exponent(_null()["gap"].late(), "num_agents"),
        (-1.1, -0.75),
    )
    yield page(
        "floor",
        _panel(
            beside(gap, least) if little.there else gap,
            "M2, rewards opposed by 3, η = 0.05, H = 20, B = 4",
        ),
        title=f"{size.trials} trials, 95 % intervals",
        height=3.6,
    )


@figure("samples", "sample complexity: gap and gradient against all episodes")
def samples(size):
    """Agents, local steps and rounds count alike.

    Steps shrink as log(NHT) / (HT) where the gradient dominates the gap, which it does with the
    entropy bonus, and as sqrt(N / T) where it need not.
    """
    steps = 5
    own = {"local_steps": steps, "episodes_per_step": 8, "memory_episodes": 8}
    tau, none = (algorithms.fast_fedpg(m2(), entropy=tau, **own) for tau in (ENTROPY, 0.0))

    def stage(rounds):
        def shrinking(at):
            effort = at["num_agents"] * steps * rounds
            return {"learning_rate": 30 * np.log(effort) / (steps * rounds)}

        def square_root(at):
            return {"learning_rate": np.sqrt(at["num_agents"] / rounds) / 5}

        return runs(
            f"samples-{rounds}",
            {"entropy": (tau, shrinking), "no entropy": (none, square_root)},
            {"num_agents": FEW},
            num_steps=rounds,
            record_every=max(1, rounds // 100),
            trials=size.trials,
            metrics=TABLE,
            seconds=0.3 * rounds,
        )

    stages = [stage(rounds) for rounds in size.lengths]
    effort = steps * np.outer(size.lengths, FEW)
    gap = _by_rounds([own["gap"]["entropy"].last(5) for own in stages], size.lengths)
    norms = [own["gradient_norm"]["no entropy"].then(_mean_square) for own in stages]
    norm = _by_rounds(norms, size.lengths)
    null = _null()["gradient_norm"].then(_mean_square)

    def exponent_in(x, number):
        return of_means(lambda means: power(x.ravel(), means.ravel()), number)

    yield number(
        "B3",
        "exponent of the last gap in NHT / log NHT",
        exponent_in(effort / np.log(effort), gap),
        (-1.25, -0.85),
        published="O(log NHT / NHT)",
        reference=-1,
    )
    yield number(
        "claim 2",
        "no domination: exponent in NHT of the mean squared gradient norm",
        exponent_in(effort, norm),
        (None, -0.4),
        published="O(1 / sqrt(NHT))",
        reference=-0.5,
        why="The rate is a bound: faster is as good.",
    )
    yield control(
        "samples null",
        "exponents in N of the gap and of the mean squared gradient norm where nothing is learned",
        together(exponent(_null()["gap"].late(), "num_agents"), exponent(null, "num_agents")),
        ((-1.25, -0.85), (None, -0.4)),
    )
    on_gap = {"by": "N", "x": "NHT / log NHT", "y": "last J* − J", "ideal": (-1, "∝ 1/x")}
    on_norm = {"by": "N", "x": "NHT, thousands", "y": "mean of |∇J|²", "ideal": (-0.5, "∝ 1/√x")}
    at, title = np.round(effort / np.log(effort)), "entropy: the gradient dominates"
    yield page(
        "samples",
        against(_by_effort(gap, at), "effort", title=title, **on_gap),
        against(_by_effort(norm, effort / 1000), "effort", title="no entropy", **on_norm),
        title=f"M2, Fast-FedPG, H = 5, B = 8, {size.trials} trials, 95 % intervals",
        height=3.2,
    )


def _null():
    """Fast-FedPG that learns nothing, for every figure's control."""
    fast = algorithms.fast_fedpg(m2(), local_steps=1, entropy=ENTROPY)
    still = {"still": (fast, {"learning_rate": STILL})}
    axes = {"num_agents": AGENTS}
    return runs("null", still, axes, num_steps=8, trials=10, metrics=TABLE, seconds=8)


def _panel(gap: Number, title: str):
    words = {"title": title, "x": "agents N", "y": "gap J* − J", "level": (START, "untrained")}
    line = {"ideal": (-1, "1/N"), "dashed": ["independent"], "dodge": 0.05}
    return against(gap, "num_agents", **words, **line)


def _mean_square(norms: xr.DataArray) -> xr.DataArray:
    return (norms**2).mean("time")


def _by_rounds(parts: list[Number], lengths) -> Number:
    """Numbers of several lengths as one, [seed, rounds, num_agents]."""
    index = pd.Index(lengths, name="rounds")

    def of(results):
        own = [part(results).reset_coords(drop=True) for part in parts]
        return xr.concat(own, index).transpose("seed", "rounds", "num_agents")

    return Number(of, tuple(stage for part in parts for stage in part.needs))


def _by_effort(number: Number, effort: np.ndarray) -> Number:
    """The same against an effort [rounds, num_agents] that differs by the number of agents."""

    def of(array):
        lines = []
        for place in range(array.sizes["num_agents"]):
            own = array.isel(num_agents=place).rename(rounds="effort").reset_coords(drop=True)
            lines.append(own.assign_coords(effort=effort[:, place]))
        index = pd.Index(array["num_agents"].values, name="N")
        return xr.concat(lines, index, join="outer")

    return number.then(of)
