"""The variants of a figure: how they are run, and the trials of one of them."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr

from fedjax_rl.federation.algorithm import Algorithm
from fedjax_rl.studies.study import Meter
from fedjax_rl.sweeps.cells import Cell
from fedjax_rl.sweeps.programs import Threads
from fedjax_rl.sweeps.sweep import run_cells

LEDGER = ("env_steps", "messages_up", "bytes_up", "bytes_down", "diverged")


class Variant(NamedTuple):
    """One line of a figure.

    Attributes:
      label: in the legend.
      algorithm: with the properties that all variants of a program share.
      num_agents: n.
      properties: what differs.
      trials: L, with the seeds 0 to L - 1.
    """

    label: str
    algorithm: Algorithm
    num_agents: int
    properties: Mapping[str, Any]
    trials: int


def run(
    variants: Sequence[Variant],
    num_steps: int,
    meter: Meter,
    stage: str,
    *,
    metrics: Sequence[str],
    record_every: int = 1,
    double: bool = False,
    **options,
) -> xr.Dataset:
    """Runs variants, those of one algorithm as one population.

    Args:
      variants: with different labels.
      num_steps: of every federation.
      meter: of the study.
      stage: its name there.
      metrics: of federations; all algorithms have them.
      record_every: steps between two records.
      double: whether to compute in double precision.
      **options: of `run_cells`.

    Returns:
      The metrics [label, seed, time] of every trial (NaN past the trials of a variant), the
      ledger's totals and whether a federation diverged [label, seed]; `trials`, `num_agents`
      [label].
    """
    groups: dict = {}
    for place, variant in enumerate(variants):
        groups.setdefault(id(variant.algorithm), []).append(place)
    report = meter.stage(stage)
    done, lock = dict.fromkeys(groups, 0.0), threading.Lock()
    parts: list = [None] * len(variants)

    def one(group) -> None:
        places = groups[group]
        cells = [
            Cell(variants[place].num_agents, seed, dict(variants[place].properties))
            for place in places
            for seed in range(variants[place].trials)
        ]
        owners = np.repeat(places, [variants[place].trials for place in places])

        def progress(steps: int, total: int) -> None:
            with lock:
                done[group] = len(places) * steps / max(total, 1)
                report(round(1000 * sum(done.values())), 1000 * len(variants))

        result = run_cells(
            variants[places[0]].algorithm,
            cells,
            num_steps=num_steps,
            record_every=record_every,
            metrics=metrics,
            devices=meter.devices,
            progress=progress,
            **options,
        )
        for place in places:
            parts[place] = result.isel(cell=np.flatnonzero(owners == place))

    # Different programs compile side by side.
    with (
        jax.enable_x64(True) if double else contextlib.nullcontext(),
        Threads(min(len(groups), os.cpu_count() or 1)) as pool,
    ):
        list(pool.map(one, groups))
    first = [parts[places[0]] for places in groups.values()]
    return meter.count(_stacked(variants, parts, metrics, first))


def _stacked(variants, parts, metrics: Sequence[str], first) -> xr.Dataset:
    """The runs of each variant as one Dataset, with the seconds of the first of each group."""
    most = max(variant.trials for variant in variants)
    time = parts[0]["time"]
    shape, data = (len(variants), most), {}
    for name in (*metrics, *LEDGER):
        sizes = (*shape, time.size) if name in metrics else shape
        kind = np.result_type(np.float32, *(part[name].dtype for part in parts))
        values = np.full(sizes, np.nan, kind)
        for place, part in enumerate(parts):
            values[place, : part.sizes["cell"]] = part[name].values
        data[name] = ("label", "seed", "time")[: values.ndim], values
    data["trials"] = ("label", [v.trials for v in variants])
    data["num_agents"] = ("label", [v.num_agents for v in variants])
    coordinates = {
        "label": [v.label for v in variants],
        "seed": np.arange(most),
        "time": ("time", time.values, time.attrs),
    }
    return xr.Dataset(data, coordinates, parts[0].attrs | spent(first))


def spent(parts: Sequence[xr.Dataset]) -> dict[str, str]:
    """The attribute `seconds` of what is made of several results."""
    each = [json.loads(part.attrs["seconds"]) for part in parts]
    return {"seconds": json.dumps({name: sum(own[name] for own in each) for name in each[0]})}


def trials(runs: xr.Dataset, label: str) -> int:
    """How many trials a variant has."""
    return int(runs["trials"].sel(label=label))


def variant(runs: xr.Dataset, label: str, metrics: Sequence[str], unit: str) -> xr.Dataset:
    """The trials of one variant.

    Args:
      runs: of a stage.
      label: of the variant.
      metrics: that are wanted, [seed, time].
      unit: what time counts, for an axis.
    """
    own = runs.sel(label=label).isel(seed=slice(trials(runs, label)))
    out = own[list(metrics)].drop_vars("label")
    out["time"].attrs["long_name"] = unit
    return out


def line(runs: xr.Dataset, label: str, name: str) -> np.ndarray:
    """A metric of the trials of one variant, float64 [L, T], or a total, [L]."""
    own = runs.sel(label=label)
    return own[name].values[: int(own["trials"])].astype(np.float64)
