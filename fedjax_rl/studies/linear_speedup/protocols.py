"""How runs of tables are measured: the author's protocol, and one of fixed length.

Every run has a seed of its own, as every run of the author had; a Dataset has the dimension `cell`.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from fedjax_rl import analysis
from fedjax_rl.algorithms import fedq
from fedjax_rl.envs import paper_mdp
from fedjax_rl.studies.study import Meter
from fedjax_rl.sweeps.cells import Cell
from fedjax_rl.sweeps.sweep import run_cells

EPISODE = 101  # steps: a limit of 100 with an inclusive loop
RECORD = 10 * EPISODE  # steps between the author's measurements
CAP = 100_000 * EPISODE  # steps, the author's hard limit
THRESHOLD = 0.1  # on the squared distance
POINTS = 200  # of a learning curve, where it is read often
PROPERTIES = ("learning_rate", "sync_period", "epsilon")


def cells_of(runs, first_seed: int) -> list[Cell]:
    """Cells from `(N, alpha, K, epsilon)`, with a seed each."""
    return [
        Cell(n, first_seed + place, dict(zip(PROPERTIES, own, strict=True)))
        for place, (n, *own) in enumerate(runs)
    ]


def measured(cells, meter: Meter, report, num_steps: int, every: int, **options) -> xr.Dataset:
    """Runs cells of the paper's MDP; of the server, unless `metrics` says otherwise."""
    options = {"metrics": ("error_server",), "chunk": 200, **options}
    return meter.count(
        run_cells(
            fedq(paper_mdp()),
            cells,
            num_steps=num_steps,
            record_every=every,
            devices=meter.devices,
            progress=report,
            **options,
        )
    )


def along(cells: list[Cell], attrs=None, **columns) -> xr.Dataset:
    """Columns along `cell` with what the cells are."""
    own = {name: [cell.properties[name] for cell in cells] for name in PROPERTIES}
    own |= {"num_agents": [c.num_agents for c in cells], "seed": [c.seed for c in cells]}
    data, where = ({n: ("cell", v) for n, v in part.items()} for part in (columns, own))
    return xr.Dataset(data, where, attrs)


def by(name: str, cells: list[Cell], report):
    """The values of a property; of each the places of its cells and its share of the progress."""
    values = sorted({cell.properties[name] for cell in cells})
    for i, value in enumerate(values):
        own = [c for c, cell in enumerate(cells) if cell.properties[name] == value]
        yield value, own, lambda done, total, i=i: report(i + done / total, len(values))


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


def author(cells: list[Cell], meter: Meter, stage: str) -> xr.Dataset:
    """Runs cells as the author did: one local table, every 1010 steps, until his rule ends the run.

    Where a run ends is not known beforehand; progress supposes 0.3/alpha records, and at least
    the thirty that the rule asks for.

    Returns:
      Along `cell`: `final` (mean of the last ten distances), `final_squared` (mean of their
      squares), `records` kept, `reached` (steps to the threshold, NaN if never), the last ten
      squared errors of the server average and of all agents, `server_squared`, `all_squared`;
      `series` [cell, time], squared errors of the reported agent, NaN after the stop.
    """
    slowest = min(cell.properties["learning_rate"] for cell in cells)
    supposed = max(30, 0.3 / slowest) * RECORD / CAP
    report = meter.stage(stage)
    result = measured(
        cells,
        meter,
        lambda done, total: report(done, supposed * total),
        CAP,
        RECORD,
        metrics=("error_local", "error_server", "error_local_mean"),
        chunk=10,
        stop=AuthorRule(),
    )
    squared = result["error_local"].values.astype(np.float64)
    distance = np.sqrt(squared)
    # Which of several agents that qualify was first is a race; the draw is fixed by this seed.
    stop = analysis.author_stop(distance, np.random.default_rng(3701))
    final, final_squared = analysis.author_final(distance, stop)
    series = analysis.reported_agent(squared, stop.agent)
    series[np.arange(series.shape[1]) >= stop.num_records[:, None]] = np.nan
    reached = analysis.time_to_threshold(result["time"].values, series, THRESHOLD).time

    def tail(name):
        return analysis.tail_mean(result[name].values, end=stop.num_records)

    return along(
        cells,
        result.attrs,
        final=final,
        final_squared=final_squared,
        records=stop.num_records,
        reached=reached,
        server_squared=tail("error_server"),
        all_squared=tail("error_local_mean"),
    ).assign(series=(("cell", "time"), series), time=result["time"])


def clean(cells: list[Cell], meter: Meter, stage: str) -> xr.Dataset:
    """Runs cells for 400/alpha steps and measures the server average; columns as `author`.

    The steady state is the mean over the last 150/alpha steps, when the transient (time constant
    about 16/alpha) is gone; times to the threshold are read every 0.05/alpha steps.
    """
    settled, spread, reached = np.full((3, len(cells)), np.nan)
    series, grid = np.full((2, len(cells), POINTS), np.nan)
    for rate, own, report in by("learning_rate", cells, meter.stage(stage)):
        steps, every = int(np.ceil(400 / rate)), max(1, round(0.05 / rate))
        metrics = ("error_server", "error_local_mean")
        result = measured([cells[c] for c in own], meter, report, steps, every, metrics=metrics)
        times, squared = result["time"].values, result["error_server"].values.astype(np.float64)
        settled[own] = analysis.settled_mean(squared, times, burn_in=250 / rate)
        spread[own] = analysis.settled_mean(result[metrics[1]], times, burn_in=250 / rate)
        reached[own] = analysis.time_to_threshold(times, squared, THRESHOLD).time
        shown = np.geomspace(0.5, 400, POINTS) / rate
        shown = np.interp(shown, times, np.arange(len(times))).astype(int)
        series[own], grid[own] = squared[:, shown], times[shown]
    made = along(cells, final=np.sqrt(settled), final_squared=settled, server_squared=settled)
    made = made.assign(all_squared=("cell", spread), reached=("cell", reached))
    return made.assign(series=(("cell", "record"), series), series_time=(("cell", "record"), grid))


def before_exchange(cells: list[Cell], meter: Meter, stage: str) -> xr.Dataset:
    """Runs cells and measures all agents K-1 steps after an exchange, where drift is largest.

    Thirty records as near to every 1010 steps as the phase allows; the last ten are averaged.
    """
    value = np.full(len(cells), np.nan)
    for period, own, report in by("sync_period", cells, meter.stage(stage)):
        every = period * max(1, round(RECORD / period))
        options = {"first_record": period - 1, "metrics": ("error_local_mean",), "chunk": 31}
        steps = 30 * every + period - 1
        result = measured([cells[c] for c in own], meter, report, steps, every, **options)
        value[own] = analysis.tail_mean(result["error_local_mean"].values)
    return along(cells, final=np.sqrt(value), final_squared=value, all_squared=value)


def server_times(
    cells: list[Cell], meter: Meter, stage: str, every: int, keep: bool = False
) -> xr.Dataset:
    """Steps of the server average to the threshold, `reached`, read every so many of 60 000 steps.

    Its whole series, `error_server` [cell, time], is kept where it is asked for.
    """
    result = measured(cells, meter, meter.stage(stage), 60_000, every)
    times, squared = result["time"].values, result["error_server"].values
    reached = analysis.time_to_threshold(times, squared, THRESHOLD).time
    made = along(cells, result.attrs, reached=reached)
    return made.assign(error_server=result["error_server"]) if keep else made
