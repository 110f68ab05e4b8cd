"""How each number of the study `afedpg` is measured: `{id: (measured, low, high)}`."""

from __future__ import annotations

import functools

import jax
import numpy as np
import xarray as xr

from fedjax_rl import analysis
from fedjax_rl.envs import family_optimum, objective
from fedjax_rl.studies import afedpg_data as data
from fedjax_rl.studies import afedpg_exact as exact
from fedjax_rl.studies import variant_runs
from fedjax_rl.studies.afedpg_targets import SHARE, WINDOW
from fedjax_rl.studies.intervals import at_least, bare, difference, mean, seeds_apart, several
from fedjax_rl.studies.policy_gradients import late


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
    gaps = variant_runs.line(runs, label, "gap")
    times = variant_runs.line(runs, label, "simulated_time")
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
        ends = variant_runs.line(runs, f"{name} N={n}", "simulated_time")[:, -1]
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
    profiles = [exact.PROFILES[name] for name in own["profile"].values]
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
        ends = variant_runs.line(runs.methods, f"{name} {rate:g}", "simulated_time")[:, -1]
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
    alone = variant_runs.line(own, "AFedPG N=1", "return").mean(axis=0)
    return float((alone[0] + alone[-1]) / 2)


def crossed(own: xr.Dataset, label: str, threshold: float) -> np.ndarray:
    """Record at which the mean of three returns is above a threshold, [L]; -1 where never."""
    values = variant_runs.line(own, label, "return")
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
            each = variant_runs.line(own, label, "simulated_time")[np.arange(len(place)), place]
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
