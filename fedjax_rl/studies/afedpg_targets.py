"""What the study `afedpg` is judged by, and how each number is measured here.

The figure-level numbers of the paper are not available. Rows A9, A10, A14, B7 and B8 are those of
the project's specification with its bands, or 25 % around what its prototype measured; "claim ..."
are sentences of the paper with the band that they mean. Times to the target are those until the
mean of the last 20 gaps is 10 % of the first; trials that never come there are infinite in medians
and censored in regressions. A function below returns, for the targets of one figure,
`{id: (measured, low, high)}`.
"""

from __future__ import annotations

import functools

import jax
import numpy as np
import xarray as xr

from fedjax_rl import analysis
from fedjax_rl.analysis import Target
from fedjax_rl.envs import family_optimum, objective
from fedjax_rl.studies import afedpg_data as data
from fedjax_rl.studies import stages
from fedjax_rl.studies.measures import at_least, bare, difference, mean, seeds_apart, several
from fedjax_rl.studies.policy_gradients import late

WINDOW, SHARE = 20, 0.1


def _around(*values: float, by: float = 0.25) -> tuple:
    """Bands around what a prototype measured."""
    return tuple((x * (1 - by), x * (1 + by)) for x in values)


_TIMES = (230, 110, 58, 28, 14)
_ROUNDS = (220, 128, 76, 42, 18)
_MIXED = (28.5, 38.5, 48.0, 53.5, 57.0)
_EXACT = (2.1e-4, 3.7e-4, 2.0e-5, 1.5e-3, 3.5e-3, 3.2e-4)
_SAMPLED = (7.7e-3, 9.0e-3, 3.8e-3, 1.33e-2, 1.54e-2, 4.7e-3)

_FIGURES = {
    "lookahead": (
        Target(
            "A9",
            "lookahead",
            "error of the momentum on a quadratic in Hessian steps, delays 0, 1, 4, 8: without "
            "lookahead, with",
            "(1 - alpha) / alpha + delay; delay",
            (
                *((0.99 * x, 1.01 * x) for x in (9, 10, 13, 17)),
                (None, 1e-09),
                *tuple((0.99 * x, 1.01 * x) for x in (1, 4, 8)),
            ),
            kind="exact",
            prototype="exact",
        ),
        Target(
            "A9 compensated",
            "lookahead",
            "the same with the delay added to the coefficient: largest",
            0,
            (None, 5e-3),
            kind="exact",
        ),
        Target(
            "A14",
            "lookahead",
            "AFedPG with one agent - N-PG-IGT, same keys, 50 steps: largest entry",
            0,
            (None, 1e-12),
            kind="exact",
            prototype="2e-15",
        ),
    ),
    "clock": (
        Target(
            "A10",
            "clock",
            "always busy agents, four profiles: time per step over 1 / sum 1/t",
            1,
            ((0.999, 1.001),) * 4,
            kind="exact",
        ),
        Target(
            "A10 delay",
            "clock",
            "mean delay over N - 1; largest delay",
            "N - 1",
            ((0.999, 1.001),) * 4 + ((7, 7), (18, 19), (18, 18), (70, 70)),
            kind="exact",
            prototype="1; 7, 19, 18, 70",
        ),
        Target(
            "time ratio",
            "clock",
            "constant times: time per message of synchronous over asynchronous over t_max / "
            "harmonic mean",
            1,
            ((0.95, 1.05),) * 4,
            kind="exact",
        ),
    ),
    "speedup": (
        Target(
            "claim 1",
            "speedup",
            "exponent of the time to the target in N, asynchronous, N 1 to 16",
            -1,
            (-1.1, -0.9),
        ),
        Target(
            "B7 speedup",
            "speedup",
            "median time to the target with one agent over that with 2, 4, 8, 16, asynchronous",
            "N",
            _around(2.1, 4.0, 8.0, 15.8),
            prototype="2.1, 4.0, 8.0, 15.8",
        ),
        Target(
            "B7 agents",
            "speedup",
            "median time to the target, asynchronous, N 1, 2, 4, 8, 16",
            None,
            _around(*_TIMES),
            prototype=", ".join(map(str, _TIMES)),
        ),
        Target(
            "B7 rounds",
            "speedup",
            "the same, synchronous",
            None,
            _around(*_ROUNDS),
            prototype=", ".join(map(str, _ROUNDS)),
        ),
    ),
    "heterogeneity": (
        Target(
            "B7 times",
            "heterogeneity",
            "median time to the target, half of eight agents 1, 2, 4, 10, 20 times slower",
            None,
            _around(*_MIXED),
            prototype=", ".join(map(str, _MIXED)),
        ),
        Target(
            "B7 steps",
            "heterogeneity",
            "largest deviation from their mean of the steps that this takes, relative",
            "constant",
            (None, 0.15),
            prototype="0.02",
        ),
        Target(
            "B7 ratio",
            "heterogeneity",
            "synchronous over asynchronous time over the prediction: largest deviation from its "
            "mean, relative",
            "constant",
            (None, 0.15),
            prototype="0.05",
        ),
        Target(
            "B7 factor",
            "heterogeneity",
            "mean of that ratio over the prediction",
            1,
            (0.75, 1.75),
            prototype="1.4",
        ),
        Target(
            "B7 slow",
            "heterogeneity",
            "median time with one agent 10 or 100 times slower",
            "harmless",
            _around(36.5, 38.5),
            prototype="36.5, 38.5",
        ),
    ),
    "methods": (
        Target(
            "claim 2",
            "methods",
            "half of the agents four times slower, best rate of each: median time of synchronous "
            "over asynchronous, lower end of the interval",
            "faster",
            (1, None),
            kind="ordering",
        ),
        Target(
            "claim 3",
            "methods",
            "best rate of each: median time of A3C-like over AFedPG, lower end of the interval",
            "A3C slower",
            (1, None),
            kind="ordering",
        ),
    ),
    "ablation": (
        Target(
            "B8",
            "ablation",
            "exact gradients, three settings: late gap with lookahead, without",
            None,
            _around(*_EXACT, by=0.15),
            kind="exact",
            prototype=", ".join(f"{x:g}" for x in _EXACT),
        ),
        Target(
            "B8 sampled",
            "ablation",
            "64 episodes a gradient, three settings: late gap with lookahead, without",
            None,
            _around(*_SAMPLED, by=0.4),
            prototype=", ".join(f"{x:g}" for x in _SAMPLED),
        ),
        Target(
            "claim 4",
            "ablation",
            "the same: late gap without - with, lower end of the interval",
            "lookahead helps",
            ((0, None),) * 3,
            kind="ordering",
        ),
        Target(
            "B8 harm",
            "ablation",
            "one episode a gradient, long lookahead: share of trials that come to the target "
            "with - without",
            "harms",
            (None, 0),
            kind="ordering",
            prototype="0 against more than half",
        ),
    ),
    "brax": (
        Target(
            "E1",
            "brax",
            "exponent in N of the messages per agent to half of the way of N = 1",
            -1,
            (-1, -0.6),
        ),
        Target(
            "E2",
            "brax",
            "simulated time there, most agents: synchronous over asynchronous",
            "faster",
            (1, None),
            kind="ordering",
        ),
        Target(
            "E2 lookahead",
            "brax",
            "last return, most agents: with lookahead - without, lower end of the interval",
            "lookahead helps",
            (0, None),
            kind="ordering",
        ),
        Target(
            "E2 A3C",
            "brax",
            "last return, most agents: AFedPG - A3C-like, lower end of the interval",
            "A3C worse",
            (0, None),
            kind="ordering",
        ),
    ),
}
TARGETS = tuple(target for rows in _FIGURES.values() for target in rows)
FIGURE_OF = {target.id: figure for figure, rows in _FIGURES.items() for target in rows}


def measure(figure: str, runs) -> dict:
    """What the targets of a figure come to: `{id: (measured, low, high)}`."""
    return _MEASURE[figure](runs)


@functools.cache
def first_gap() -> float:
    """J* - J of the uniform policy on M3."""
    mdp = data.m3().params
    family = jax.tree.map(lambda x: np.asarray(x)[None], mdp)
    with jax.enable_x64(True):
        start = objective.value(mdp, np.zeros((mdp.num_states, mdp.num_actions)))
    return float(family_optimum.optimum(family)) - float(start)


def reached(runs: xr.Dataset, label: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps of the server and time to the target of every trial, [L] each; infinite where never."""
    gaps = stages.line(runs, label, "gap")
    times = stages.line(runs, label, "simulated_time")
    sums = np.cumsum(np.pad(gaps, ((0, 0), (1, 0))), axis=1)
    means = (sums[:, WINDOW:] - sums[:, :-WINDOW]) / WINDOW
    there = means <= SHARE * first_gap()
    place = there.argmax(axis=1) + WINDOW - 1
    ever = there.any(axis=1)
    steps = np.where(ever, runs["time"].values[place], np.inf)
    return steps, np.where(ever, times[np.arange(len(times)), place], np.inf)


def median(values) -> tuple:
    """Median over trials with its 95 % interval; its ends may be infinite."""
    with np.errstate(invalid="ignore"):
        return seeds_apart(float, np.asarray(values), centre=np.median)


def prediction(ratio: float) -> float:
    """Synchronous over asynchronous time, half of eight agents so much slower."""
    return analysis.time_ratio([1.0] * 4 + [float(ratio)] * 4)


def time_exponent(runs: xr.Dataset, name: str) -> tuple:
    """Exponent in N of the time to the target, by a regression with censoring."""
    agents, times, limits = [], [], []
    for n in data.AGENTS:
        _, own = reached(runs, f"{name} N={n}")
        ends = stages.line(runs, f"{name} N={n}", "simulated_time")[:, -1]
        agents += [n] * len(own)
        times += own.tolist()
        limits += ends.tolist()
    censored = ~np.isfinite(times)
    known = np.log(np.where(censored, limits, times))
    fit = analysis.tobit(known, censored, interval="student", agents=np.log(agents))
    return fit["agents"], *fit.interval("agents")


def best(runs: xr.Dataset, name: str) -> tuple[float, np.ndarray]:
    """The rate of a method with the least median time to the target, and its times [L]."""
    rates = data.RATES.get(name, data.USUAL)
    times = {rate: reached(runs, f"{name} {rate:g}")[1] for rate in rates}
    chosen = min(times, key=lambda rate: np.median(times[rate]))
    return chosen, times[chosen]


def _lookahead(runs) -> dict:
    table = runs.lookahead["factor"]
    without, with_it, compensated = (table.sel(kind=kind).values for kind in table["kind"].values)
    apart = np.abs(runs.transport["parameters"] - runs.transport["reference"]).max()
    return {
        "A9": several(*map(bare, (*without, *with_it))),
        "A9 compensated": bare(compensated.max()),
        "A14": bare(apart),
    }


def _clock(runs) -> dict:
    own = runs.schedule
    profiles = [data.PROFILES[name] for name in own["profile"].values]
    step = [analysis.time_per_update(times, "asynchronous") for times in profiles]
    ratios = own["round"].values / 8 / own["time"].values
    expected = [analysis.time_ratio(times) for times in profiles]
    return {
        "A10": several(*map(bare, own["time"].values / step)),
        "A10 delay": several(*map(bare, (*(own["age"].values / 7), *own["largest"].values))),
        "time ratio": several(*map(bare, ratios / expected)),
    }


def _speedup(runs) -> dict:
    def times(name: str) -> list[np.ndarray]:
        return [reached(runs.speedup, f"{name} N={n}")[1] for n in data.AGENTS]

    alone, *others = times("asynchronous")
    return {
        "claim 1": time_exponent(runs.speedup, "asynchronous"),
        "B7 speedup": several(
            *(seeds_apart(lambda a, b: float(a / b), alone, x, centre=np.median) for x in others)
        ),
        "B7 agents": several(*map(median, (alone, *others))),
        "B7 rounds": several(*map(median, times("synchronous"))),
    }


def _spread(values) -> float:
    """Largest deviation from the mean, relative."""
    values = np.asarray(values)
    return float(np.abs(values / values.mean() - 1).max())


def _heterogeneity(runs) -> dict:
    own = {
        name: [reached(runs.heterogeneity, f"{name} r={r}") for r in data.RATIOS]
        for name in data.SCHEDULERS
    }
    steps = np.stack([steps for steps, _ in own["asynchronous"]], axis=1)
    times = {name: np.stack([times for _, times in each], axis=1) for name, each in own.items()}
    expected = np.array([prediction(ratio) for ratio in data.RATIOS])

    def factors(together, apart):
        return together / apart / expected

    both = times["synchronous"], times["asynchronous"]
    return {
        "B7 times": several(*map(median, times["asynchronous"].T)),
        "B7 steps": seeds_apart(_spread, steps, centre=np.median),
        "B7 ratio": seeds_apart(lambda a, b: _spread(factors(a, b)), *both, centre=np.median),
        "B7 factor": seeds_apart(lambda a, b: float(factors(a, b).mean()), *both, centre=np.median),
        "B7 slow": several(
            *(median(reached(runs.heterogeneity, f"asynchronous slow={t}")[1]) for t in data.SLOW)
        ),
    }


def _methods(runs) -> dict:
    ours = best(runs.methods, "AFedPG")[1]

    def slower(name: str) -> tuple:
        rate, other = best(runs.methods, name)
        # A run that never got there took longer than it lasted: the least that is sure.
        ends = stages.line(runs.methods, f"{name} {rate:g}", "simulated_time")[:, -1]
        other = np.where(np.isfinite(other), other, ends)
        _, low, _ = seeds_apart(lambda a, b: float(a / b), other, ours, centre=np.median)
        return bare(np.nan if low is None else low)

    return {"claim 2": slower("synchronous"), "claim 3": slower("A3C-like")}


def ends(runs: xr.Dataset, kind: str, name: str) -> list[np.ndarray]:
    """Late gaps of the three settings, [L] each."""
    return [
        late(runs, f"{kind} {name} {rate:g}/{momentum:g}", part=0.2)
        for rate, momentum in data.SETTINGS
    ]


def _ablation(runs) -> dict:
    own, harm = runs.ablation, runs.harm
    exact = [*ends(own, "exact", "with"), *ends(own, "exact", "without")]
    found = {"B8": several(*(bare(x.mean()) for x in exact))}
    if runs.scale.sampled:
        ahead, plain = (ends(own, "sampled", name) for name in ("with", "without"))
        found["B8 sampled"] = several(*map(mean, (*ahead, *plain)))
        pairs = zip(plain, ahead, strict=True)
        found["claim 4"] = several(*(at_least(a, b) for a, b in pairs))
    came = [np.isfinite(reached(harm, name)[1]).astype(float) for name in ("with", "without")]
    found["B8 harm"] = difference(*came)
    return found


def halfway(own: xr.Dataset) -> float:
    """Half of the way of AFedPG's mean return with one agent."""
    alone = stages.line(own, "AFedPG N=1", "return").mean(axis=0)
    return float((alone[0] + alone[-1]) / 2)


def crossed(own: xr.Dataset, label: str, threshold: float) -> np.ndarray:
    """Record at which the mean of three returns is above a threshold, [L]; -1 where never."""
    values = stages.line(own, label, "return")
    sums = np.cumsum(np.pad(values, ((0, 0), (1, 0))), axis=1)
    there = (sums[:, 3:] - sums[:, :-3]) / 3 >= threshold
    return np.where(there.any(axis=1), there.argmax(axis=1) + 2, -1)


def _brax(runs) -> dict:
    size, slopes, ratios, ahead, ours = runs.scale.brax, [], [], [], []
    most = max(size.agents)
    for name in size.names:
        own = runs.brax.sel(environment=name)
        threshold = halfway(own)
        agents, messages, censored = [], [], []
        for n in size.agents:
            place = crossed(own, f"AFedPG N={n}", threshold)
            never = place < 0
            messages += (own["time"].values[np.where(never, -1, place)] / n).tolist()
            censored += never.tolist()
            agents += [n] * len(place)
        try:
            fit = analysis.tobit(
                np.log(messages), censored, interval="student", agents=np.log(agents)
            )
            slopes.append((fit["agents"], *fit.interval("agents")))
        except ValueError:  # too few have come there
            slopes.append(bare(np.nan))
        times = []
        for method in ("synchronous", "AFedPG"):
            label = f"{method} N={most}"
            place = crossed(own, label, threshold)
            each = stages.line(own, label, "simulated_time")[np.arange(len(place)), place]
            times.append(np.median(np.where(place < 0, np.inf, each)))
        ratios.append(bare(times[0] / times[1] if np.isfinite(times[1]) else np.nan))
        last = {m: late(own, f"{m} N={most}", "return", 0.1) for m in data.BRAX_METHODS}
        ahead.append(at_least(last["AFedPG"], last["no lookahead"]))
        ours.append(at_least(last["AFedPG"], last["A3C-like"]))
    first = {"E1": slopes, "E2": ratios, "E2 lookahead": ahead, "E2 A3C": ours}
    # Of several environments the middle one counts.
    return {
        name: sorted(rows, key=lambda row: row[0])[len(rows) // 2] for name, rows in first.items()
    }


_MEASURE = {
    "lookahead": _lookahead,
    "clock": _clock,
    "speedup": _speedup,
    "heterogeneity": _heterogeneity,
    "methods": _methods,
    "ablation": _ablation,
    "brax": _brax,
}
