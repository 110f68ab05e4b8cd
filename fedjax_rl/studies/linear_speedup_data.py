"""The runs behind the study `linear-speedup`: grids and protocols.

Einhorn, *Federated Reinforcement Learning Has Linear Speedup* (2023). Two protocols measure the
same learning. `paper` is the author's, as found in his public code: one local table, looked at
every 1010 steps, until a rule on the errors ends the run. `clean` looks at the server's average,
often, for a length fixed in advance.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from fedjax_rl import analysis
from fedjax_rl.studies import variant_runs
from fedjax_rl.studies.linear_speedup_protocols import (
    THRESHOLD,
    algorithm,
    author_runs,
    clean_runs,
    drift_runs,
)
from fedjax_rl.studies.stage_runs import Stage
from fedjax_rl.studies.study import Meter, Scale, scales
from fedjax_rl.sweeps.cells import Cell
from fedjax_rl.sweeps.sweep import run_cells

RATES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
AGENTS = (1, 2, 4, 8, 16)
PERIODS = (1, 10, 100, 1000, 10_000)
EPSILONS = (0.0, 1.0)
# Columns of an `analysis.ThresholdTime`, in its order.
THRESHOLD_TIMES = ("reached", "censored", "last", "before")
SPEEDUP_RATE = 0.002  # alpha = 0.002 N in Figs 6c, 6d and 7
B_RATES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
B_PERIODS = tuple(range(20, 1001, 10))
B_AGENTS = 256


SCALES = scales(
    preset=("paper", "paper", "paper"),  # the protocol, "paper" or "clean"
    agents=(AGENTS, AGENTS, AGENTS),  # these, rates and periods are of Grid A
    # The lowest rate takes half of Grid A's time.
    rates=(RATES[1:], RATES, RATES),
    periods=(PERIODS, PERIODS, PERIODS),
    shown_only=(True, False, False),  # leaves out the cells of Grid A that no figure shows
    trials=(3, 3, 3),  # repetitions of a cell of Grid A
    # Thinning Grid B leaves its regression without the design that its bands are for.
    b_periods=(B_PERIODS[::7], B_PERIODS, B_PERIODS),
    b_trials=(1, 1, 3),
    fine_seeds=(32, 32, 32),  # repetitions of the runs on a fine grid of times
    random_mdps=(0, 0, 24),  # how many further MDPs (T25)
)


def grid_a(scale: Scale) -> list[Cell]:
    """The cells of Grid A: at full scale 320 of them, 1920 runs (specification 2.5).

    Every run has a seed of its own, as every run of the author had. Rates are those of the base
    set, and for several agents also N times those, while below one.
    """
    runs = []
    for n in scale.agents:
        # Rounded, so that 0.002 * 16 and 0.032 are one rate.
        own = {round(r, 12) for r in scale.rates}
        if n > 1:
            own |= {round(r * n, 12) for r in scale.rates if r * n < 1}
            if SPEEDUP_RATE in scale.rates and 0.005 in scale.rates:
                own |= {0.005, 0.08} if n == 16 else set()
        for rate in sorted(own):
            for period in scale.periods if n > 1 else (max(scale.periods),):
                if scale.shown_only and not _shown(n, rate, period):
                    continue
                runs += [
                    (n, rate, period, epsilon) for epsilon in EPSILONS for _ in range(scale.trials)
                ]
    return _numbered(runs)


def _shown(n: int, rate: float, period: int) -> bool:
    """Whether a figure shows this cell of Grid A: Fig. 4, Figs 6 and 7, or Fig. 3c."""
    one = n == 1 or period == 1
    return one or np.isclose(rate, SPEEDUP_RATE * n) or (n, rate, period) == (16, 0.005, 10_000)


def grid_b(scale: Scale) -> list[Cell]:
    """The cells of Grid B: 256 agents, uniform behaviour, 99 periods, 1782 runs at full scale."""
    runs = [
        (B_AGENTS, rate, period, 1.0)
        for period in scale.b_periods
        for rate in B_RATES
        for _ in range(scale.b_trials)
    ]
    return _numbered(runs, first_seed=1_000_000)


def _numbered(runs, first_seed: int = 0) -> list[Cell]:
    return [
        Cell(n, first_seed + i, {"learning_rate": a, "sync_period": k, "epsilon": e})
        for i, (n, a, k, e) in enumerate(runs)
    ]


def fine_times(scale: Scale, meter: Meter, stage: str) -> xr.Dataset:
    """Errors of the server average every five steps: alpha = 0.002 N, K = 1 and 10^4.

    Returns:
      A Dataset along `cell` with `reached`, steps to the threshold; both behaviours.
    """
    runs = [
        (n, round(SPEEDUP_RATE * n, 12), period, epsilon)
        for n in scale.agents
        for period in ((1, max(PERIODS)) if n > 1 else (max(PERIODS),))
        for epsilon in EPSILONS
        for _ in range(scale.fine_seeds)
    ]
    return _reached(_numbered(runs, 2_000_000), 60_000, 5, meter, stage)


def same_rate_times(scale: Scale, meter: Meter, stage: str) -> xr.Dataset:
    """Errors of the server average at small rates, any N: T alpha is one number (T9, T8)."""
    runs = [
        (n, rate, 1, epsilon)
        for n in (1, 4, 16)
        for rate in (0.002, 0.005)
        for epsilon in EPSILONS
        for _ in range(scale.fine_seeds)
    ]
    return _reached(_numbered(runs, 3_000_000), 60_000, 20, meter, stage, keep=True)


def _reached(cells, num_steps, every, meter, stage, keep: bool = False) -> xr.Dataset:
    result = meter.count(
        run_cells(
            algorithm(),
            cells,
            num_steps=num_steps,
            record_every=every,
            devices=meter.devices,
            metrics=("error_server",),
            chunk=200,
            progress=meter.stage(stage),
        )
    )
    reached = analysis.time_to_threshold(
        result["time"].values, result["error_server"].values, THRESHOLD
    )
    result["reached"] = ("cell", reached.time)
    return result if keep else result.drop_vars(("error_server", "phase")).drop_dims("time")


def steady_states(scale: Scale, meter: Meter, stage: str) -> xr.Dataset:
    """Steady states of the server average at small rates, for T12; columns as `clean_runs`."""
    runs = [
        (n, rate, 1, 1.0)
        for n in (1, 4, 16)
        for rate in (0.005, 0.01, 0.02)
        for _ in range(scale.fine_seeds)
    ]
    return clean_runs(_numbered(runs, 4_000_000), meter, stage)


def other_mdps(scale: Scale, meter: Meter, stage: str) -> xr.Dataset:
    """Fig. 4 and Fig. 6c on random MDPs of the paper's family (T25; specification 4.1).

    Returns:
      Steady states along `cell` (rates .005, .02, .1, .4; N = 1, 4, 16) with the coordinate `mdp`,
      the generator's seed, and times to the threshold 0.00728 D_0^2 (alpha = 0.002 N) along
      `timed`, with the coordinates `timed_mdp` and `timed_agents`.
    """
    from fedjax_rl.envs import optimal_q, random_mdp

    report = meter.stage(stage)
    mdps = {seed: random_mdp(seed) for seed in range(1, scale.random_mdps + 1)}
    # All MDPs lie in one population: an environment is a property like any other.
    steady, made, rates = [], [], (0.005, 0.02, 0.1, 0.4)
    for i, rate in enumerate(rates):
        cells = [
            Cell(n, 5_000_000 + 100 * seed + trial, {"mdp": mdp, "learning_rate": rate})
            for seed, mdp in mdps.items()
            for n in (1, 4, 16)
            for trial in range(4)
        ]
        result = meter.count(
            run_cells(
                algorithm().replace(epsilon=1.0),
                cells,
                num_steps=int(800 / rate),
                record_every=max(1, round(1 / rate)),
                devices=meter.devices,
                metrics=("error_server",),
                chunk=100,
                progress=lambda done, total, i=i: report(i + done / total, len(rates) + 1),
            )
        )
        made.append(result)
        value = analysis.settled_mean(
            result["error_server"].values, result["time"].values, burn_in=500 / rate
        )
        steady.append(
            xr.Dataset(
                {"final_squared": ("cell", value)},
                {
                    "mdp": ("cell", [s for s in mdps for _ in range(12)]),
                    "num_agents": ("cell", [c.num_agents for c in cells]),
                    "learning_rate": ("cell", [rate] * len(cells)),
                },
            )
        )
    cells = [
        Cell(n, 6_000_000 + 100 * seed + t, {"mdp": mdp, "learning_rate": SPEEDUP_RATE * n})
        for seed, mdp in mdps.items()
        for n in AGENTS
        for t in range(6)
    ]
    result = meter.count(
        run_cells(
            algorithm().replace(epsilon=1.0),
            cells,
            num_steps=150_000,
            record_every=20,
            devices=meter.devices,
            metrics=("error_server",),
            chunk=200,
            progress=lambda done, total: report(len(rates) + done / total, len(rates) + 1),
        )
    )
    starts = {seed: float(np.sum(optimal_q(mdp) ** 2)) for seed, mdp in mdps.items()}
    names = np.asarray([s for s in mdps for _ in range(30)])
    level = np.asarray([0.00728 * starts[s] for s in names])
    scaled = result["error_server"].values / level[:, None]
    reached = analysis.time_to_threshold(result["time"].values, scaled, 1.0)
    times = {n: ("timed", part) for n, part in zip(THRESHOLD_TIMES, reached, strict=True)}
    agents = [c.num_agents for c in cells]
    out = xr.concat(steady, "cell").assign(times)
    out = out.assign_coords(timed_mdp=("timed", names), timed_agents=("timed", agents))
    return out.assign_attrs(variant_runs.spent([*made, result]))


def clean_grid(scale: Scale) -> list[Cell]:
    """The cells of the figures, without those of Grid A that no figure shows.

    The base rates at K = 1 (Figs 4 and 6a), alpha = 0.002 N at every period (Figs 6c, 6d, 7), and
    the panels of Fig. 3; four times the trials, because fewer cells leave time for them.
    """
    where = {(n, r, 1) for n in scale.agents for r in {*scale.rates, 0.08, SPEEDUP_RATE}}
    where |= {(n, round(SPEEDUP_RATE * n, 12), k) for n in scale.agents for k in scale.periods}
    where |= {(16, 0.005, max(PERIODS))}
    # A federation of one has no period; keep one cell of it.
    where = {(n, r, max(PERIODS) if n == 1 else k) for n, r, k in where}
    return _numbered(
        [
            (n, r, k, epsilon)
            for n, r, k in sorted(where)
            for epsilon in EPSILONS
            for _ in range(4 * scale.trials)
        ]
    )


def _grid_a(scale: Scale, meter: Meter, stage: str) -> xr.Dataset:
    """Figs 3, 4, 6, 7."""
    if scale.preset == "clean":
        return clean_runs(clean_grid(scale), meter, stage)
    return author_runs(grid_a(scale), meter, stage)


def _grid_b(scale: Scale, meter: Meter, stage: str) -> xr.Dataset:
    """Fig. 5."""
    make = drift_runs if scale.preset == "clean" else author_runs
    return make(grid_b(scale), meter, stage)


STAGES = {
    "grid_a": Stage(_grid_a, 30),
    "grid_b": Stage(_grid_b, 40),
    "fine": Stage(fine_times, 15),
    "same": Stage(same_rate_times, 4),
    "steady": Stage(steady_states, 3),
    "mdps": Stage(other_mdps, 15),
}
