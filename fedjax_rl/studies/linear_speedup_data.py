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
from fedjax_rl.algorithms import fedq
from fedjax_rl.envs import TabularMDP, paper_mdp
from fedjax_rl.studies import stages
from fedjax_rl.studies.stages import Stage
from fedjax_rl.studies.study import Meter, Scale, scales
from fedjax_rl.sweeps.cells import Cell
from fedjax_rl.sweeps.sweep import run_cells

EPISODE = 101  # steps: a limit of 100 with an inclusive loop
RECORD = 10 * EPISODE  # steps between the author's measurements
CAP = 100_000 * EPISODE  # steps, the author's hard limit
THRESHOLD = 0.1  # on the squared distance
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


def algorithm(mdp: TabularMDP | None = None):
    """Federated Q-learning as the paper runs it."""
    return fedq(paper_mdp() if mdp is None else mdp)


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


class AuthorRule:
    """Whether the author's rule has ended each run, told ten records at a time.

    The rule looks at one block of ten records and the block before it, so that is all it keeps;
    which agent is reported is decided afterwards, from the whole series.
    """

    def __init__(self) -> None:
        """Starts with nothing seen."""
        self._kept: dict = {}

    def __call__(self, times, records, cells) -> np.ndarray:
        """Runs that have ended, bool [F]; cells are those of one population."""
        distance = np.sqrt(np.moveaxis(records["error_local"], 0, -1).astype(np.float64))
        # The cells are kept, too, or others might come to lie at their address.
        nothing = cells, np.zeros(len(cells), bool), None
        _, stopped, before = self._kept.get(id(cells), nothing)
        last = distance if before is None else np.concatenate([before, distance], axis=-1)
        # Records of earlier blocks count as before the thirtieth only if they are.
        seen = int(times[-1]) // RECORD
        rule = analysis.author_stop(
            last, np.random.default_rng(0), min_records=30 - (seen - last.shape[-1])
        )
        stopped = stopped | rule.stopped
        self._kept[id(cells)] = cells, stopped, distance[..., -10:]
        return stopped


def author_runs(cells: list[Cell], meter: Meter, stage: str) -> xr.Dataset:
    """Runs cells under the author's protocol (specification 2.4).

    Where a run ends is not known beforehand; progress supposes 0.3/alpha records, and at least
    the thirty that the rule asks for.

    Returns:
      A Dataset along `cell`: `final` (mean of the last ten distances), `final_squared` (mean of
      their squares), `records` kept, `reached` (steps to the threshold, NaN if never), and the
      last ten squared errors of the server average and of all agents together,
      `server_squared`, `all_squared`; `series` [cell, time], the squared errors of the reported
      agent, NaN after the stop.
    """
    slowest = min(cell.properties["learning_rate"] for cell in cells)
    supposed = max(30, 0.3 / slowest) * RECORD / CAP
    report = meter.stage(stage)
    result = meter.count(
        run_cells(
            algorithm(),
            cells,
            num_steps=CAP,
            record_every=RECORD,
            devices=meter.devices,
            metrics=("error_local", "error_server", "error_local_mean"),
            chunk=10,
            stop=AuthorRule(),
            progress=lambda done, total: report(done, supposed * total),
        )
    )
    squared = result["error_local"].values.astype(np.float64)
    distance = np.sqrt(squared)
    # Which of several agents that qualify was first is a race; the draw is fixed by this seed.
    stop = analysis.author_stop(distance, np.random.default_rng(3701))
    final, final_squared = analysis.author_final(distance, stop)
    series = analysis.reported_agent(squared, stop.agent)
    series[np.arange(series.shape[1]) >= stop.num_records[:, None]] = np.nan
    times = result["time"].values
    reached = analysis.time_to_threshold(times, series, THRESHOLD)

    def tail(name):
        return analysis.tail_mean(result[name].values, end=stop.num_records)

    out = xr.Dataset(
        {
            "final": ("cell", final),
            "final_squared": ("cell", final_squared),
            "records": ("cell", stop.num_records),
            "reached": ("cell", reached.time),
            "server_squared": ("cell", tail("error_server")),
            "all_squared": ("cell", tail("error_local_mean")),
            "series": (("cell", "time"), series),
        },
        {n: c for n, c in result.coords.items()},
        result.attrs,
    )
    return out


def clean_runs(cells: list[Cell], meter: Meter, stage: str) -> xr.Dataset:
    """Runs cells for 400/alpha steps and measures the server average; columns as `author_runs`.

    The steady state is the mean over the last 150/alpha steps, when the transient (time constant
    about 16/alpha) is gone; times to the threshold are read every 0.05/alpha steps. Error before
    an exchange, where drift is largest, is `all_squared` at the last records.
    """
    rates = sorted({cell.properties["learning_rate"] for cell in cells})
    report = meter.stage(stage)
    parts = []
    for i, rate in enumerate(rates):
        own = [c for c, cell in enumerate(cells) if cell.properties["learning_rate"] == rate]
        every = max(1, round(0.05 / rate))
        result = meter.count(
            run_cells(
                algorithm(),
                [cells[c] for c in own],
                num_steps=int(np.ceil(400 / rate)),
                record_every=every,
                devices=meter.devices,
                metrics=("error_server", "error_local_mean"),
                chunk=200,
                progress=lambda done, total, i=i: report(i + done / total, len(rates)),
            )
        )
        times = result["time"].values
        squared = result["error_server"].values.astype(np.float64)
        burnt = 250 / rate
        mean = analysis.settled_mean(squared, times, burn_in=burnt)
        parts.append(
            (
                own,
                np.sqrt(mean),
                mean,
                analysis.time_to_threshold(times, squared, THRESHOLD).time,
                analysis.settled_mean(result["error_local_mean"].values, times, burn_in=burnt),
                np.interp(np.geomspace(0.5, 400, 200) / rate, times, np.arange(len(times))).astype(
                    int
                ),
                squared,
                times,
            )
        )
    count, shown = len(cells), 200
    final, mean, reached, local = (np.full(count, np.nan) for _ in range(4))
    series, grid = np.full((count, shown), np.nan), np.full((count, shown), np.nan)
    for own, root, square, time, drift, index, squared, times in parts:
        final[own], mean[own], reached[own], local[own] = root, square, time, drift
        series[own], grid[own] = squared[:, index], times[index]
    names = ("learning_rate", "sync_period", "epsilon")
    return xr.Dataset(
        {
            "final": ("cell", final),
            "final_squared": ("cell", mean),
            "reached": ("cell", reached),
            "server_squared": ("cell", mean),
            "all_squared": ("cell", local),
            "series": (("cell", "record"), series),
            "series_time": (("cell", "record"), grid),
        },
        {
            "num_agents": ("cell", [c.num_agents for c in cells]),
            "seed": ("cell", [c.seed for c in cells]),
            **{n: ("cell", [c.properties[n] for c in cells]) for n in names},
        },
        result.attrs,
    )


def drift_runs(cells: list[Cell], meter: Meter, stage: str) -> xr.Dataset:
    """Grid B, measured where drift is largest: K-1 steps after an exchange, over all agents.

    Thirty records as near to every 1010 steps as the phase allows; the last ten are averaged.
    """
    periods = sorted({cell.properties["sync_period"] for cell in cells})
    report = meter.stage(stage)
    value = np.full(len(cells), np.nan)
    for i, period in enumerate(periods):
        own = [c for c, cell in enumerate(cells) if cell.properties["sync_period"] == period]
        every = period * max(1, round(RECORD / period))
        result = meter.count(
            run_cells(
                algorithm(),
                [cells[c] for c in own],
                num_steps=30 * every + period - 1,
                first_record=period - 1,
                record_every=every,
                devices=meter.devices,
                metrics=("error_local_mean",),
                chunk=31,
                progress=lambda done, total, i=i: report(i + done / total, len(periods)),
            )
        )
        value[own] = analysis.tail_mean(result["error_local_mean"].values)
    names = ("learning_rate", "sync_period", "epsilon")
    return xr.Dataset(
        {
            "final": ("cell", np.sqrt(value)),
            "final_squared": ("cell", value),
            "all_squared": ("cell", value),
        },
        {
            "num_agents": ("cell", [c.num_agents for c in cells]),
            **{n: ("cell", [c.properties[n] for c in cells]) for n in names},
        },
        result.attrs,
    )


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
    return out.assign_attrs(stages.spent([*made, result]))


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
