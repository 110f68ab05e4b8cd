"""Lines and pages of panels of the study `communication-efficient`."""

# ruff: noqa: RUF001 -- the labels say − as printed numbers do

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from fedjax_rl import envs
from fedjax_rl.plotting.curve_page import curve_page
from fedjax_rl.studies import variant_runs

LAST = 20  # episodes whose mean return is compared, as the targets do
PUBLISHED = "as in the thesis"
WORDS = {
    "reward": "return",
    "frequency": "messages per agent",
    "messages": "messages per episode",
    "size": "bytes per agent and episode",
}
THREE = ("ES n=25", "ES n=50", "ESPC n=50")
BOTH = {n: WORDS[n] for n in ("reward", "frequency", "messages")}
TWO = {n: WORDS[n] for n in ("reward", "frequency")}


def variants(
    runs: xr.Dataset, labels: Collection[str] | Mapping[str, str]
) -> dict[str, xr.Dataset]:
    """Variants by what the legend calls them, with `messages` per episode besides.

    Args:
        runs: of a stage.
        labels: of variants; a mapping goes from label to what the legend says.
    """
    shown = labels if isinstance(labels, Mapping) else {label: label for label in labels}
    out = {}
    for label, words in shown.items():
        own = variant_runs.variant(runs, label, ("reward", "frequency", "size"), "episode")
        agents = runs["num_agents"].sel(label=label, drop=True)
        out[words] = own.assign(messages=own["frequency"] * agents)
    return out


def thesis_page(rows, variables, *, dashed=(), best=None, **options) -> Figure:
    """Rows of panels of curves; `best` is the largest expected return, a dotted line."""
    return curve_page(
        rows,
        variables,
        dashed=dashed,
        dashed_means="not in the thesis",
        levels={} if best is None else {"reward": (best, optimum(best))},
        ranges={"frequency": (-0.03, 1.06)},
        **options,
    )


def optimum(best: float) -> str:
    """What a line at the largest expected return says."""
    return f"optimum {best:.2f}".replace("-", "−")


def best_return(task) -> float:
    """The largest expected return from the first state of a grid world."""
    return float(envs.optimal_q(task.grid.mdp).max(-1)[0])


def untrained(runs: xr.Dataset) -> float:
    """The mean return of the first episode, before anything was learned."""
    return float(np.nanmean(runs["reward"].values[:, :, 0]))
