"""What the figures on tables share: M3, times to a target, and how these are drawn.

A time to the target is that until the mean of the last 20 gaps is a tenth of the first gap. A run
that never comes there is infinite: in medians by Kaplan and Meier's estimate, in regressions as
later than it lasted.
"""

# ruff: noqa: RUF001 -- the labels say − as printed numbers do

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import numpy as np
import xarray as xr

from fedjax_rl import analysis, envs
from fedjax_rl.envs import family_optimum, objective
from fedjax_rl.envs.task import Task
from fedjax_rl.plotting.page import describe, errors, level, shaded
from fedjax_rl.plotting.regressions import ticks
from fedjax_rl.plotting.style import GREY, OKABE_ITO, colours
from fedjax_rl.studies.estimates import Estimate, median_time, share_of_trials
from fedjax_rl.studies.numbers import Number
from fedjax_rl.studies.pictures import Panel, styles_of
from fedjax_rl.studies.runs import Stage

WINDOW, SHARE = 20, 0.1
METRICS = ("gap", "simulated_time", "staleness", "idle")


@functools.cache
def m3() -> Task:
    """M3: five states, three actions, episodes of 25 steps."""
    return envs.tabular_task(envs.dirichlet_mdp(), max_steps=25)


@functools.cache
def first_gap() -> float:
    """J* - J of the uniform policy on M3."""
    mdp = m3().params
    family = jax.tree.map(lambda x: np.asarray(x)[None], mdp)
    with jax.enable_x64(True):
        start = objective.value(mdp, np.zeros((mdp.num_states, mdp.num_actions)))
    return float(family_optimum.optimum(family)) - float(start)


def crossed(stage: Stage, there, clock: str = "simulated_time", also=()) -> Number:
    """Time of the first record where `there(data, results)`, infinite if none; `also` is read."""

    def of(results):
        data = results[stage]
        true = there(data, results)
        times = (data[clock] + xr.zeros_like(true, float)).isel(time=true.argmax("time"))
        return times.drop_vars("time").where(true.any("time"), np.inf)

    return Number(of, (stage, *also))


def reached(stage: Stage, share=SHARE, window: int = WINDOW, clock="simulated_time") -> Number:
    """Time until the mean of so many gaps is this part of the first one."""

    def there(data, results):
        means = data["gap"].astype(np.float64).rolling(time=window).mean()
        return means <= share * first_gap()

    return crossed(stage, there, clock)


def parts(*shares: float) -> xr.DataArray:
    """Parts of the first gap, along `eps`."""
    return xr.DataArray(np.array(shares), {"eps": list(shares)})


def whether_reached(times: Number) -> Number:
    """1 of trials that come to the target, 0 of all others."""
    return times.then(lambda array: np.isfinite(array).astype(float))


def share_reached(times: Number) -> Estimate:
    """Share of the trials that come to the target."""
    return share_of_trials(whether_reached(times))


# Pictures -----------------------------------------------------------------------------------------


def times_against(
    times: Number, ends: Number, dim: str, *, title: str, x: str, ideal: float | None = None
) -> Panel:
    """Medians with 95 % intervals against a dimension, one line per method.

    Args:
      times: [method, dim, seed].
      ends: likewise.
      dim: along the axis.
      title: above the panel.
      x: label of the axis.
      ideal: exponent of a line through the first median.
    """

    def draw(axis, results):
        array, limits = times(results), ends(results)
        values, names = array[dim].values, array["method"].values.tolist()
        for place, (name, style) in enumerate(styles_of(names).items()):
            both = (own.isel(method=place).transpose(dim, "seed").values for own in (array, limits))
            found = np.array([median_time(*own)[:3] for own in zip(*both, strict=True)], float)
            found[~np.isfinite(found)] = np.nan
            aside = values * (1 + 0.05 * (place - (len(names) - 1) / 2))
            errors(axis, aside, found, style, label=name, ms=4, lw=1)
            if ideal is not None and place == 0:
                line = found[0, 0] * (values / values[0]) ** ideal
                axis.plot(values, line, "--", color=GREY, lw=1, zorder=1, label="1/N")
        axis.set_xscale("log")
        axis.set_yscale("log")
        ticks(axis.xaxis, 10.0, values)
        ticks(axis.yaxis, 10.0)
        describe(axis, title, x, "median time to the target")

    return Panel(draw, tuple(dict.fromkeys((*times.needs, *ends.needs))), title)


def on_clock(
    value: Number,
    clock: Number,
    dim: str,
    *,
    title: str,
    y: str = "J* − J",
    x: str = "simulated time",
    words: Callable = str,
    target: bool = True,
) -> Panel:
    """Means with 95 % intervals against simulated time, one line per label of a dimension."""

    def draw(axis, results):
        array, times = value(results), clock(results)
        values = array[dim].values.tolist()
        labels = [words(own) for own in values]
        methods = [OKABE_ITO[style] for style in styles_of(labels).values()]
        # Numbers have an order, and no colour that means a method elsewhere.
        shades = methods if isinstance(values[0], str) else colours(values)
        for place, (label, shade) in enumerate(zip(labels, shades, strict=True)):
            table = array.isel({dim: place}).transpose("seed", "time").values.astype(float)
            mean, low, high = analysis.mean_interval(table)
            low = np.maximum(low, 1e-3) if target else low
            when = times.isel({dim: place}).mean("seed").values
            shaded(axis, when, low, mean, high, color=shade, lw=1.3, label=label)
        axis.set_xscale("log")
        ticks(axis.xaxis, 10.0)
        describe(axis, title, x, y)
        if target:
            axis.set_yscale("log")
            axis.set_ylim(1e-2, 1.5)
            level(axis, SHARE * first_gap(), "target")

    return Panel(draw, tuple(dict.fromkeys((*value.needs, *clock.needs))), title)
