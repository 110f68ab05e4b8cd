"""What the figures on clocks share: who is slow, the runs of M3, and times until something."""

from __future__ import annotations

import numpy as np
import xarray as xr

import fedjax_rl as frl
from fedjax_rl.analysis import Measured
from fedjax_rl.federation.clock import Clock
from fedjax_rl.studies.afedpg import tables
from fedjax_rl.studies.estimates import Estimate, of_means
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

    def log_ratio(x, y):
        """Infinite times have logarithms; what they leave of a quotient, 0, has none."""
        return float(np.log(np.min(x)) - np.log(np.min(y)))

    logs = of_means(log_ratio, a, b, centre=np.median)

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
