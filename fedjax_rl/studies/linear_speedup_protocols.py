"""How the study `linear-speedup` measures: the author's protocol, and one of fixed length."""

from __future__ import annotations

import numpy as np
import xarray as xr

from fedjax_rl import analysis
from fedjax_rl.algorithms import fedq
from fedjax_rl.envs import TabularMDP, paper_mdp
from fedjax_rl.studies.study import Meter
from fedjax_rl.sweeps.cells import Cell
from fedjax_rl.sweeps.sweep import run_cells

EPISODE = 101  # steps: a limit of 100 with an inclusive loop
RECORD = 10 * EPISODE  # steps between the author's measurements
CAP = 100_000 * EPISODE  # steps, the author's hard limit
THRESHOLD = 0.1  # on the squared distance


def algorithm(mdp: TabularMDP | None = None):
    """Federated Q-learning as the paper runs it."""
    return fedq(paper_mdp() if mdp is None else mdp)


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
