"""The runs of the tabular figures: grids of the paper and our own, and what is read from them."""

from __future__ import annotations

import dataclasses

import numpy as np
import xarray as xr

from fedjax_rl import analysis, envs
from fedjax_rl.algorithms import fedq
from fedjax_rl.analysis import Measured
from fedjax_rl.studies.claims import number
from fedjax_rl.studies.estimates import mean_of, measured
from fedjax_rl.studies.linear_speedup import protocols
from fedjax_rl.studies.linear_speedup.protocols import cells_of, clean, server_times
from fedjax_rl.studies.runs import STILL, Stage, runs
from fedjax_rl.studies.study import Meter
from fedjax_rl.sweeps.cells import Cell
from fedjax_rl.sweeps.sweep import run_cells

RATES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
AGENTS = (1, 2, 4, 8, 16)
PERIODS = (1, 10, 100, 1000, 10_000)
LONGEST = 10_000
EPSILONS = (0.0, 1.0)
FAST = 0.002  # alpha = 0.002 N in Figs 6c, 6d and 7
GRID_B = tuple(range(20, 1001, 10))  # periods of Fig. 5
MANY = 256  # agents of Fig. 5
EXTRA = 100_000  # first seed of the runs beyond the author's three of a kind
PANELS = ((1, 0.005), (16, 0.005), (16, 0.08))  # N and alpha of Fig. 3
SAME_RATES = (0.002, 0.005)
SLOW_RATES = (0.005, 0.01, 0.02)
MDP_RATES = (0.005, 0.02, 0.1, 0.4)


def grid_cells(size) -> list[Cell]:
    """Grid A: at full size 320 cells, 1920 runs, as the author's; and more of the figures' cells.

    Rates are those of the base set, and for several agents also N times those, while below one.
    """
    runs, more = [], []
    for n in AGENTS:
        # Rounded, so that 0.002 * 16 and 0.032 are one rate.
        rates = {round(r, 12) for r in size.rates}
        if n > 1:
            rates |= {round(r * n, 12) for r in size.rates if r * n < 1}
        for rate in sorted(rates):
            for period in PERIODS if n > 1 else (LONGEST,):
                one = n == 1 or period == 1
                shown = bool(np.isclose(rate, FAST * n)) or (n, rate, period) == (
                    16,
                    0.005,
                    LONGEST,
                )
                if not (one or shown or (size.whole and size.preset == "paper")):
                    continue
                own = [(n, rate, period, epsilon) for epsilon in EPSILONS]
                runs += [cell for cell in own for _ in range(size.trials)]
                if shown or (one and (rate in (0.002, 0.01) or (n, rate) in PANELS)):
                    more += [cell for cell in own for _ in range(size.extra)]
    return cells_of(runs, 0) + cells_of(more, EXTRA)


def grid(size) -> Stage:
    """Figs 3, 4, 6 and 7."""
    make = clean if size.preset != "paper" else protocols.author
    of = (size.preset, size.rates, size.trials, size.extra, size.whole)
    return Stage("grid", lambda meter: make(grid_cells(size), meter, "grid"), 120, of)


def period_cells(size) -> list[Cell]:
    """Grid B: 256 agents, uniform behaviour, 99 periods, 1782 runs with three trials each."""
    rates = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
    return cells_of(
        ((MANY, a, k, 1.0) for k in size.periods for a in rates for _ in range(size.period_trials)),
        1_000_000,
    )


def periods(size) -> Stage:
    """Fig. 5."""
    make = protocols.before_exchange if size.preset != "paper" else protocols.author
    of = (size.preset, size.periods, size.period_trials)
    return Stage("periods", lambda meter: make(period_cells(size), meter, "periods"), 240, of)


def all_periods(size) -> Stage:
    """The same where it has the author's design, without which the regressions are others."""
    return dataclasses.replace(periods(size), there=len(size.periods) == len(GRID_B))


def fine(size) -> Stage:
    """Times of the server average read every five steps: alpha = 0.002 N, K = 1, 10^4, and alone.

    `alone` are agents that never hear of each other, at the rates of N that do; `num_agents` is 1,
    and N is what the rate says.
    """
    rates = {n: round(FAST * n, 12) for n in AGENTS}
    where = [(n, rates[n], k) for n in AGENTS for k in ((1, LONGEST) if n > 1 else (LONGEST,))]
    where += [(1, rates[n], LONGEST) for n in AGENTS[1:]]
    own = [(*cell, epsilon) for cell in where for epsilon in EPSILONS for _ in range(size.seeds)]
    cells = cells_of(own, 2_000_000)
    return Stage("fine", lambda meter: server_times(cells, meter, "fine", 5), 30, size.seeds)


def same(size) -> Stage:
    """Errors of the server average at two small rates, whatever N."""
    where = [(n, rate, 1, e) for n in (1, 4, 16) for rate in SAME_RATES for e in EPSILONS]
    cells = cells_of([cell for cell in where for _ in range(size.seeds)], 3_000_000)
    return Stage("same", lambda meter: server_times(cells, meter, "same", 20, True), 8, size.seeds)


def steady(size) -> Stage:
    """Steady states of the server average at small rates."""
    where = [(n, rate, 1, 1.0) for n in (1, 4, 16) for rate in SLOW_RATES]
    where += [(16, 0.005, LONGEST, 1.0)]
    cells = cells_of([cell for cell in where for _ in range(2 * size.seeds)], 4_000_000)
    return Stage("steady", lambda meter: clean(cells, meter, "steady"), 12, size.seeds)


def still(size) -> Stage:
    """Nothing is learned, with any number of agents."""
    return runs(
        "still",
        {"still": (fedq(envs.paper_mdp()), {"learning_rate": STILL, "epsilon": 1.0})},
        {"num_agents": AGENTS},
        num_steps=60_000,
        record_every=1000,
        trials=10,
        metrics=("error_server",),
        seconds=3,
    )


def mdps(size) -> Stage:
    """Fig. 4 and Fig. 6c on random MDPs of the paper's family.

    Along `cell`, steady states `final_squared` at four rates, N = 1, 4, 16; along `timed` times to
    0.00728 D_0^2 at alpha = 0.002 N, an `analysis.ThresholdTime` by its columns.
    """
    known = {seed: envs.random_mdp(seed) for seed in range(1, (size.mdps or 0) + 1)}

    def run(meter, report, where, first_seed, num_steps, every):
        # All MDPs lie in one population: an environment is a property like any other.
        cells = [
            Cell(n, first_seed + 100 * seed + trial, {"mdp": mdp, "learning_rate": rate})
            for seed, mdp in known.items()
            for n, rate, trials in where
            for trial in range(trials)
        ]
        labels = {"num_agents": [c.num_agents for c in cells]}
        labels["learning_rate"] = [c.properties["learning_rate"] for c in cells]
        labels["mdp"] = np.repeat(list(known), sum(trials for *_, trials in where))
        result = run_cells(
            fedq(envs.paper_mdp(), epsilon=1.0),
            cells,
            num_steps=num_steps,
            record_every=every,
            devices=meter.devices,
            metrics=("error_server",),
            chunk=100,
            progress=report,
        )
        return meter.count(result), labels

    def make(meter: Meter) -> xr.Dataset:
        *parts, last = meter.split("mdps", len(MDP_RATES) + 1)
        steady = []
        for i, rate in enumerate(MDP_RATES):
            where = [(n, rate, size.mdp_trials) for n in (1, 4, 16)]
            steps, every = int(800 / rate), max(1, round(1 / rate))
            result, labels = run(meter, parts[i].stage("mdps"), where, 5_000_000, steps, every)
            value = analysis.settled_mean(result.error_server, result.time, burn_in=500 / rate)
            own = {name: ("cell", values) for name, values in labels.items()}
            steady.append(xr.Dataset({"final_squared": ("cell", value)}, own))
        where = [(n, FAST * n, 6) for n in AGENTS]
        result, labels = run(meter, last.stage("mdps"), where, 6_000_000, 150_000, 20)
        starts = {seed: float(np.sum(envs.optimal_q(mdp) ** 2)) for seed, mdp in known.items()}
        level = np.asarray([0.00728 * starts[seed] for seed in labels["mdp"]])
        scaled = result["error_server"].values / level[:, None]
        reached = analysis.time_to_threshold(result["time"].values, scaled, 1.0)
        timed = {name: ("timed", values) for name, values in reached._asdict().items()}
        own = {f"timed_{name}": ("timed", values) for name, values in labels.items()}
        return xr.concat(steady, "cell").assign(timed).assign_coords(own)

    return Stage("mdps", make, 60, (size.mdps, size.mdp_trials), there=size.mdps is not None)


# What is read from them ---------------------------------------------------------------------------


def pick(rows: xr.Dataset, **wanted) -> xr.Dataset:
    """The cells with the given properties; rates up to rounding, N = 1 at every period."""
    keep = np.ones(rows.sizes["cell"], bool)
    for name, value in wanted.items():
        own = np.isclose(rows[name].values, value, rtol=1e-6)
        if name == "sync_period":
            own |= rows["num_agents"].values == 1
        keep &= own
    return rows.isel(cell=np.flatnonzero(keep))


def published(rows: xr.Dataset) -> xr.Dataset:
    """The runs that the paper has: three of a kind, of each behaviour."""
    return rows.isel(cell=np.flatnonzero(rows["seed"].values < EXTRA))


def scaled(rows: xr.Dataset, period: int) -> xr.Dataset:
    """The runs of Figs 6c, 6d and 7: alpha = 0.002 N at one period."""
    alpha = FAST * rows["num_agents"].values
    keep = np.isclose(rows["learning_rate"].values, alpha, rtol=1e-6)
    return pick(rows.isel(cell=np.flatnonzero(keep)), sync_period=period)


def coefficient(fit: analysis.Fit, name: str = "slope") -> Measured:
    """A coefficient with its interval; every row of the regression is a run of its own."""
    return Measured(fit[name], *fit.interval(name), fit.num_observations)


def log_mean(values) -> Measured:
    """The logarithm to base 10 of a mean over runs."""
    own = mean_of(values)
    with np.errstate(invalid="ignore"):
        ends = (None if x is None else float(np.log10(x)) for x in own[:3])
        return Measured(*ends, own.runs)


def numbers_of(stage: Stage):
    """`claims.number` of what a function of a stage's runs measures."""
    return lambda id, quantity, of, *band, **more: number(
        id, quantity, measured(of, stage), *band, **more
    )


def less(a: Measured, b: Measured) -> Measured:
    """The difference of two numbers; runs in common, of one agent, make its interval too wide."""
    reach = np.hypot((a.high - a.low) / 2, (b.high - b.low) / 2)
    value = a.value - b.value
    return Measured(value, value - reach, value + reach, min(a.runs, b.runs))


def whole(size) -> Stage:
    """The grid where it has all of the author's cells."""
    return dataclasses.replace(grid(size), there=size.whole and size.preset == "paper")
