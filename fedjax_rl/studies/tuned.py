"""Runs of methods of which each has the step that suits it, found by one rule for all."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from fedjax_rl.studies.runs import Methods, Own, Planned, Stage, Values, runs, with_properties
from fedjax_rl.studies.study import Meter

FIRST = 1000  # of the seeds that choose; those that are judged begin at 0
LATE = 0.25  # of the records, by which a step is chosen
TRIES = 0.3  # of the seconds, roughly


def tuned(
    name: str,
    methods: Methods | Callable[[], Methods],
    steps: Mapping[Any, Mapping[str, Any]],
    axes: Mapping[str, Values] | None = None,
    *,
    num_steps: int,
    trials: int | None,
    choosing: Mapping[str, Any],
    metrics: Sequence[str],
    fixed: Methods | Callable[[Methods], Methods] | None = None,
    seconds: float = 10.0,
    **more,
) -> Stage:
    """Methods x axes x seeds as of `runs`, each method at its own step of a grid.

    All methods are tried with all steps of the same grid, for equally long and with equal seeds,
    which are none of those that are judged. A step is worth the mean over seeds of the last quarter
    of the records of the first metric; one that diverges is worth nothing. The Dataset says which
    was chosen: `chosen` [method]. The tries are a stage of their own, before it.

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
      fixed: methods that are judged, too, and are not tuned; or a function that makes them of
        those that are.
      seconds: of both stages, as of `Stage`.
      **more: as of `runs`, of both.
    """

    @functools.cache
    def known():
        """The methods, as they are tried; those that are not, too."""
        made = with_properties(methods() if callable(methods) else methods)
        return made, with_properties(fixed(made) if callable(fixed) else fixed or {})

    def judged(best: Mapping[str, Any]) -> Planned:
        def own():
            made, others = known()
            return {k: (a, _with(own, steps[best[k]])) for k, (a, own) in made.items()} | others

        every = {"num_steps": num_steps, "trials": trials, "metrics": metrics, **more}
        return runs(name, own, axes, seconds=(1 - TRIES) * seconds, **every)

    tries = runs(
        f"{name}-tries",
        lambda: known()[0],
        {"step": steps},
        metrics=metrics[:1],
        first_seed=FIRST,
        seconds=TRIES * seconds,
        **{**more, **choosing},
    )
    tries = dataclasses.replace(tries, there=trials is not None)

    def at_any_step() -> Planned:
        """What is judged, as far as it is known before: the plan is the same at every step."""
        return judged(dict.fromkeys(known()[0], next(iter(steps))))

    def make(meter: Meter, tried: xr.Dataset) -> xr.Dataset:
        best = chosen(tried[metrics[0]])
        result = judged(best).make(meter)
        words = [str(best.get(method, "")) for method in result["method"].values]
        return result.assign(chosen=("method", words))

    return Planned(
        name,
        make,
        (1 - TRIES) * seconds,
        lambda: {"tries": tries.decides, "judged": at_any_step().decides},
        trials is not None,
        (tries,),
        lambda: at_any_step().plan(),
    )


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
