"""Panels of curves of the study `momentum`, and what its lines are called."""

# ruff: noqa: RUF001 -- the labels say α, λ and − as the papers do

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedjax_rl.plotting import curve_page
from fedjax_rl.plotting import page as pages
from fedjax_rl.plotting.curve_page import FEWEST
from fedjax_rl.studies import variant_runs
from fedjax_rl.studies.momentum_data import label

SV, HA, PLAIN, CLIPPED = "FedSVRPG-M", "FedHAPG-M", "no momentum, β = 1", "FedSVRPG-M, clipped"
FALLEN = 75  # return that counts as lost where others reach 100
WORDS = {
    "gap": "gap J* − J",
    "gradient_norm": "norm of the gradient of J",
    "estimator_error": "squared error of u",
    "direction_norm": "norm of u",
    "return": "return",
    "weight_max": "largest weight of a round",
    "weight_mean": "mean weight of a round",
}
NAMES = {"plain": PLAIN, "SV": SV, "SV clip": CLIPPED, "HA": HA}
STYLES = {PLAIN: 6, SV: 0, HA: 1, CLIPPED: 2}


def page(title: str, rows: int, columns: int, height: float = 2.45) -> tuple[Figure, np.ndarray]:
    """A figure across the page with its axes [rows, columns]; call inside `plotting.style`."""
    return pages.page(rows, columns, title=title, height=height, more=0.6)


def curves(
    axis: Axes,
    shown: Mapping[str, tuple[xr.Dataset, str]],
    metric: str,
    *,
    styles: Mapping[str, int] | None = None,
    log: bool = False,
    dashed: Sequence[str] = (),
    legend: str = "",
) -> None:
    """Draws a metric against rounds.

    Args:
      axis: where to draw.
      shown: what a legend says -> (runs, label of a variant).
      metric: of the runs.
      styles: what a legend says -> place among the colours and markers.
      log: whether the axis is logarithmic.
      dashed: what a legend says of dashed lines.
      legend: its place; none by default.
    """
    lines, places, thin = {}, {}, []
    for place, (words, (runs, name)) in enumerate(shown.items()):
        lost = int(runs["diverged"].sel(label=name)[: variant_runs.trials(runs, name)].sum())
        said = f"{words} ({lost} of {variant_runs.trials(runs, name)} diverged)" if lost else words
        lines[said] = variant_runs.variant(runs, name, (metric,), "round")
        places[said] = place if styles is None else styles[words]
        thin += [said] * (words in dashed)
    few = min(own.sizes["seed"] for own in lines.values()) < FEWEST
    curve_page.curves(
        axis,
        lines,
        metric,
        WORDS[metric],
        styles=places,
        log=log,
        interval=None if few else 0.95,
        shade=min(0.16, 0.4 / len(lines)),
        dashed=thin,
        each=few,
    )
    if metric == "return":
        axis.set_ylim(0, 104)
    if legend:
        axis.legend(loc=legend)


def of(runs: xr.Dataset, names: Mapping[str, str]) -> dict:
    """What a legend says -> (runs, label), from the same -> label."""
    return {words: (runs, name) for words, name in names.items()}


def at_step(method: str, step: float) -> str:
    """The label of a method with a step of the server."""
    return label(method, **{"lambda": step})


def spread(count: int) -> str:
    """What the curves of that many trials show besides their mean."""
    if count < FEWEST:
        return "thick: mean; thin: every trial"
    return "means; shaded: 10 to 90 % of the trials; thin lines: 95 % interval of the mean"
