"""From the outcomes of jobs to labelled results."""

from __future__ import annotations

import json

import numpy as np
import xarray as xr

from fedjax_rl.federation.ledger import COLUMNS
from fedjax_rl.saving import results
from fedjax_rl.sweeps import grid
from fedjax_rl.sweeps.programs import NEVER, Job
from fedjax_rl.sweeps.run import Outcome, by_member


def collected(variants, cells, recording, metrics, jobs, places, outcomes) -> xr.Dataset:
    """The outcomes as one Dataset in the caller's order of cells."""
    records = max(outcome.count for outcome in outcomes)
    most = max(cell.num_agents for cell in cells)
    known, first, data = grid.metrics_of(variants), variants[0], {}
    for name in metrics:
        side = known[name][0]
        shape = (len(cells), records) if side == "federation" else (len(cells), most, records)
        kinds = (o.metrics[name].dtype for o in outcomes if name in o.metrics)
        data[name] = np.full(shape, np.nan, np.result_type(np.float32, *kinds))
    ledger = {name: np.zeros(len(cells), np.int64) for name in COLUMNS}
    diverged = np.zeros(len(cells), bool)
    views = [_view(job, outcome) for job, outcome in zip(jobs, outcomes, strict=True)]
    for c, (job, f) in enumerate(places):
        per, totals, finite = views[job]
        for name, x in per.items():
            if known[name][0] == "federation":
                data[name][c, : len(x)] = x[:, f]
            else:
                n = cells[c].num_agents
                data[name][c, :n, : len(x)] = x[:, f, :n].T
        for name in COLUMNS:
            ledger[name][c] = totals[name][f]
        diverged[c] = not finite[f]
    dims = {"federation": ("cell", "time"), "agent": ("cell", "agent", "time")}
    variables = {}
    for name in metrics:
        side, text = known[name]
        variables[name] = (dims[side], data[name], {"long_name": text})
    variables |= {name: ("cell", ledger[name]) for name in COLUMNS}
    variables["diverged"] = ("cell", diverged)
    times = recording.times[:records]
    if first.periodic:  # as all others are, whose time has the same unit
        periods = [
            int(NEVER) if cell.num_agents == 1 else int(own.config.sync_period)
            for cell, own in zip(cells, variants, strict=True)
        ]
        variables["phase"] = (
            ("cell", "time"),
            times[None] % np.asarray(periods, np.int64)[:, None],
            {"long_name": "steps since the last exchange"},
        )
    whose = "the server" if first.on_clock else "one agent"
    coordinates = {
        "time": ("time", times, {"long_name": f"{first.unit}s of {whose}"}),
        "num_agents": ("cell", [cell.num_agents for cell in cells]),
        "seed": ("cell", [cell.seed for cell in cells]),
    }
    for name in sorted({n for cell in cells for n in cell.properties}):
        values = [
            cell.properties[name] if name in cell.properties else getattr(own.config, name)
            for cell, own in zip(cells, variants, strict=True)
        ]
        coordinates[name] = ("cell", grid.labels(values))
    attributes = {
        "algorithm": first.name,
        "versions": json.dumps(results.versions()),
        "device": results.device(),
        "fedjax_rl": results.versions().get("fedjax_rl", "source"),
    }
    return xr.Dataset(variables, coordinates, attributes)


def _view(job: Job, outcome: Outcome):
    """Metrics [t, F] and [t, F, N], ledger totals [F] and which are finite, as the job's cells."""
    federation, member = job.layout.agents()
    count = federation.max() + 1
    where = job.layout.first_places(count)
    per = {
        n: x[:, where]
        if job.algorithm.metrics[n][0] == "federation"
        else by_member(x, federation, member, count)
        for n, x in outcome.metrics.items()
    }
    totals = {n: x[where] for n, x in outcome.state.ledger.totals().items()}
    return per, totals, outcome.finite[where]


def unstacked(flat: xr.Dataset, axes: dict, followed: dict) -> xr.Dataset:
    """From one dimension of cells to a dimension per swept name."""
    sizes = {name: len(values) for name, values in axes.items()}
    coordinates = {name: grid.labels(values) for name, values in axes.items()}
    out = {}
    for name, variable in flat.data_vars.items():
        shape = (*sizes.values(), *variable.shape[1:])
        out[name] = ((*sizes, *variable.dims[1:]), variable.values.reshape(shape), variable.attrs)
    coordinates["time"] = flat["time"].variable
    for name, own in followed.items():
        values = grid.labels(list(own.values()))
        coordinates[name] = ("num_agents", values) if "num_agents" in axes else values[0]
    for name in ("num_agents", "seed"):
        if name not in axes:
            coordinates[name] = flat[name].values[0]
    return xr.Dataset(out, coordinates, flat.attrs)
