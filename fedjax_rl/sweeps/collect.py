"""From the outcomes of jobs to labelled results."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import xarray as xr

from fedjax_rl.federation.ledger import COLUMNS
from fedjax_rl.saving import results
from fedjax_rl.sweeps import of_agents
from fedjax_rl.sweeps.cells import Cell, Federation, metrics_of
from fedjax_rl.sweeps.grid import Grid
from fedjax_rl.sweeps.jobs import Place
from fedjax_rl.sweeps.labels import labels
from fedjax_rl.sweeps.of_agents import MEAN, QUANTILES, SPREAD
from fedjax_rl.sweeps.programs import NEVER, Job, Recording
from fedjax_rl.sweeps.run import Outcome, seen


def collected(
    federations: Sequence[Federation],
    recording: Recording,
    metrics: Sequence[str],
    jobs: Sequence[Job],
    places: Sequence[Place],
    outcomes: Sequence[Outcome],
    chosen: Sequence[int] | None = None,
) -> xr.Dataset:
    """The outcomes as one Dataset in the caller's order of cells.

    Args:
      federations: the cells with their configurations, in the caller's order.
      recording: when they were measured.
      metrics: names that were recorded.
      jobs: that were run.
      places: where the numbers of each cell are.
      outcomes: of each job.
      chosen: whose metrics somebody asked for, by their place in a federation.

    Returns:
      The Dataset, with the dimensions `cell` and `time`, and `agent` where a metric has it. Of
      federations that are too large for that, see `of_agents`, it has the first agents, or those
      that were chosen, and each metric of agents also as its mean and its quantiles.
    """
    cells, count = [cell for cell, _ in federations], len(federations)
    first = federations[0].algorithm
    records = max(outcome.count for outcome in outcomes)
    reduced = any(job.is_reduced for job in jobs)
    most = max(_recorded(cell, jobs[place.job]) for cell, place in zip(cells, places, strict=True))
    known, data, dims = metrics_of(federations), {}, {}
    for name in metrics:
        shapes = {name: ()}
        if known[name][0] == "agent":
            shapes[name] = (most,)
            if reduced:
                shapes |= {
                    name + MEAN: (),
                    name + SPREAD: (len(QUANTILES),),
                }
        kinds = (o.metrics[name].dtype for o in outcomes if name in o.metrics)
        # At least float32, so that NaN can stand for what was not recorded.
        kind = np.result_type(np.float32, *kinds)
        for each, axes in shapes.items():
            data[each] = np.full((count, *axes, records), np.nan, kind)
            dims[each] = ("cell", *("agent" if each == name else "quantile" for _ in axes), "time")
    # Counters pass 2^32.
    ledger = {name: np.zeros(count, np.int64) for name in COLUMNS}
    diverged = np.zeros(count, bool)
    # One view of each job, as several cells may share a place in it.
    views = [_view(job, outcome) for job, outcome in zip(jobs, outcomes, strict=True)]
    for c, (job, f) in enumerate(places):
        per, totals, finite = views[job]
        for name, x in per.items():
            if known[name][0] == "federation":
                data[name][c, : len(x)] = x[:, f]
                continue
            n, own = cells[c].num_agents, x[:, f]
            if jobs[job].is_reduced:
                own, *whole = of_agents.taken_apart(own)
            elif reduced:
                whole = of_agents.of_all(own[:, :n])
            each = _recorded(cells[c], jobs[job])
            data[name][c, :each, : len(x)] = own[:, :each].T
            if reduced:
                for end, values in zip((MEAN, SPREAD), whole, strict=True):
                    data[name + end][c, ..., : len(x)] = values.T
        for name in COLUMNS:
            ledger[name][c] = totals[name][f]
        diverged[c] = not finite[f]
    texts = {name: text for name, (_, text) in known.items()}
    for name in metrics:
        texts |= {
            name + MEAN: f"{texts[name]}: mean",
            name + SPREAD: f"{texts[name]}: spread",
        }
    variables = {n: (dims[n], x, {"long_name": texts[n]}) for n, x in data.items()}
    variables |= {name: ("cell", ledger[name]) for name in COLUMNS}
    variables["diverged"] = ("cell", diverged)
    times = recording.times[:records]
    if any(own.periodic for _, own in federations):
        phase = _phase(federations, times), {"long_name": "steps since the last exchange"}
        variables["phase"] = (("cell", "time"), *phase)
    whose = "the server" if first.on_clock else "one agent"
    time = ("time", times, {"long_name": f"{first.unit}s of {whose}"})
    names = dict.fromkeys(own.name for _, own in federations)
    attributes = {
        "algorithm": ", ".join(names),
        "versions": json.dumps(results.versions()),
        "device": results.device(),
        "fedjax_rl": results.versions().get("fedjax_rl", "source"),
    }
    own = {"time": time, **_coordinates(federations)}
    if any("quantile" in each for each in dims.values()):
        own["quantile"] = list(QUANTILES)
    if chosen is not None and any("agent" in each for each in dims.values()):
        own["agent"] = list(chosen)
    return xr.Dataset(variables, own, attributes)


def _recorded(cell: Cell, job: Job) -> int:
    """Of how many agents of a federation metrics are recorded one by one."""
    return len(job.recorded) if job.is_reduced else cell.num_agents


def _phase(federations: Sequence[Federation], times: np.ndarray) -> np.ndarray:
    """Steps since the last exchange, int64 [cell, time]; NaN where a round has no period."""
    periods = [
        # An agent alone has nobody to exchange with.
        0 if not own.periodic else NEVER if cell.num_agents == 1 else own.config.sync_period
        for cell, own in federations
    ]
    periods = np.asarray([int(period) for period in periods], np.int64)[:, None]
    # 0 stands for no period; what is divided by 1 instead becomes NaN.
    phase = times[None] % np.maximum(periods, 1)
    return phase if periods.all() else np.where(periods, phase, np.nan)


def _coordinates(federations: Sequence[Federation]) -> dict:
    """What tells the cells apart, along `cell`."""
    cells = [cell for cell, _ in federations]
    out = {
        "num_agents": ("cell", [cell.num_agents for cell in cells]),
        "seed": ("cell", [cell.seed for cell in cells]),
    }
    if cells[0].algorithm is not None:
        out["algorithm"] = ("cell", [cell.algorithm for cell in cells])
    for name in sorted({name for cell in cells for name in cell.properties}):
        values = [
            cell.properties[name] if name in cell.properties else getattr(own.config, name, None)
            for cell, own in federations
        ]
        out[name] = ("cell", labels(values))
    return out


def _view(job: Job, outcome: Outcome):
    """Metrics [t, F] and [t, F, N], ledger totals [F] and which are finite, as the job's cells."""
    where = job.layout.places("federation")
    per = {n: seen(job, n, x) for n, x in outcome.metrics.items()}
    totals = {n: x[where] for n, x in outcome.state.ledger.totals().items()}
    return per, totals, outcome.finite[where]


def unstacked(flat: xr.Dataset, grid: Grid) -> xr.Dataset:
    """From one dimension of cells to a dimension per swept name.

    Args:
      flat: with the dimension `cell`, in the order of `grid.cells`.
      grid: whose cells these are.

    Returns:
      The same numbers with the grid's dimensions in place of `cell`.
    """
    sizes = {name: len(values) for name, values in grid.axes.items()}
    coordinates = {name: labels(values) for name, values in grid.axes.items()}
    out = {}
    for name, variable in flat.data_vars.items():
        shape = (*sizes.values(), *variable.shape[1:])
        out[name] = ((*sizes, *variable.dims[1:]), variable.values.reshape(shape), variable.attrs)
    coordinates |= {n: flat[n].variable for n in ("time", "quantile", "agent") if n in flat.coords}
    for name, own in grid.followed.items():
        values = labels(list(own.values()))
        coordinates[name] = ("num_agents", values) if "num_agents" in sizes else values[0]
    for name in ("num_agents", "seed"):
        if name not in sizes:
            coordinates[name] = flat[name].values[0]
    return xr.Dataset(out, coordinates, flat.attrs)
