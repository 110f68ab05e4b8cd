"""Runs of methods of which each has the step that suits it, found by one rule for all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from fedjax_rl.federation.algorithm import Algorithm
from fedjax_rl.studies.runs import Own, Planned, Stage, Values, runs
from fedjax_rl.studies.study import Meter

FIRST = 1000  # of the seeds that choose; those that are judged begin at 0
LATE = 0.25  # of the records, by which a step is chosen


def tuned(
    name: str,
    methods: Mapping[str, Algorithm | tuple[Algorithm, Own]],
    steps: Mapping[Any, Mapping[str, Any]],
    axes: Mapping[str, Values] | None = None,
    *,
    num_steps: int,
    trials: int | None,
    choosing: Mapping[str, Any],
    metrics: Sequence[str],
    fixed: Mapping[str, tuple[Algorithm, Own]] | None = None,
    seconds: float = 10.0,
    **more,
) -> Stage:
    """Methods x axes x seeds as of `runs`, each method at its own step of a grid.

    All methods are tried with all steps of the same grid, for equally long and with equal seeds,
    which are none of those that are judged. A step is worth the mean over seeds of the last quarter
    of the records of the first metric; one that diverges is worth nothing. The Dataset says which
    was chosen: `chosen` [method].

    Args:
      name: of the stage.
      methods: as of `runs`; what a step changes they leave alone.
      steps: label of a step -> the properties that it is.
      axes: as of `runs`, of the runs that are judged.
      num_steps: of these.
      trials: of these; None where the scale has none.
      choosing: what `runs` takes for those that choose: `num_steps`, `trials`, and `num_agents`
        or whatever else differs.
      metrics: as of `runs`; the more of the first the better.
      fixed: methods that are judged, too, and are not tuned.
      seconds: of all, as of `Stage`.
      **more: as of `runs`, of both.
    """
    made = {k: v if isinstance(v, tuple) else (v, {}) for k, v in methods.items()}
    fixed = dict(fixed or {})
    trying = {**more, **choosing}
    tries = runs(name, made, {"step": steps}, metrics=metrics[:1], first_seed=FIRST, **trying)

    def judged(best: Mapping[str, Any]) -> Stage:
        own = {k: (a, _with(own, steps[best[k]])) for k, (a, own) in made.items()}
        every = {"num_steps": num_steps, "trials": trials, "metrics": metrics, **more}
        return runs(name, {**own, **fixed}, axes, **every)

    def make(meter: Meter) -> xr.Dataset:
        first, second = meter.split(name, 2)
        tried = tries.make(first)
        best = chosen(tried[metrics[0]])
        result = judged(best).make(second)
        spent = [json.loads(own.attrs["seconds"]) for own in (tried, result)]
        result.attrs["seconds"] = json.dumps({k: sum(own[k] for own in spent) for k in spent[0]})
        meter.count(result)
        words = [str(best.get(method, "")) for method in result["method"].values]
        return result.assign(chosen=("method", words))

    def plan():
        return [*tries.plan(), *judged(dict.fromkeys(made, next(iter(steps)))).plan()]

    of = {"tries": tries.of, "judged": judged(dict.fromkeys(made, next(iter(steps)))).of}
    return Planned(name, make, seconds, of, trials is not None, plan)


def chosen(values: xr.DataArray) -> dict[str, Any]:
    """The best step of every method.

    Args:
      values: [method, step, seed, time], the more the better.
    """
    last = max(1, round(LATE * values.sizes["time"]))
    late = values.isel(time=slice(-last, None)).transpose("method", "step", ...).values
    # Of all runs: a step at which one of them diverges is none.
    worth = late.reshape(*late.shape[:2], -1).mean(-1)
    places = np.where(np.isfinite(worth), worth, -np.inf).argmax(1)
    labels = values["step"].values.tolist()
    return dict(zip(values["method"].values.tolist(), (labels[i] for i in places), strict=True))


def _with(own: Own, step: Mapping[str, Any]) -> Own:
    """The properties of a method with those of its step."""
    if callable(own):
        return lambda at: {**own(at), **step}
    return {**own, **step}
