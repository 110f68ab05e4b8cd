"""Study `linear-speedup`: the tabular figures of Einhorn (2023), with verdicts."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable, Sequence

import xarray as xr

from fedjax_rl import results
from fedjax_rl.analysis import judge
from fedjax_rl.studies import linear_speedup_data as data
from fedjax_rl.studies import linear_speedup_figures as pictures
from fedjax_rl.studies import linear_speedup_targets as targets
from fedjax_rl.studies.study import Meter, Study, conclude

FIGURES = {
    "fig1": "the MDP of the paper: optimal values and transitions",
    "fig3": "learning curves",
    "fig4": "steady-state error against alpha/N",
    "fig5": "steady-state error against the sync period",
    "fig6": "time to the threshold against N",
    "fig7": "the same with the time of communication",
}
PRESETS = ("paper", "clean")

# Rough shares of the time each stage takes, for the estimate of what is left.
_SHARES = {"grid_a": 30, "grid_b": 40, "fine": 15, "same": 4, "steady": 3, "mdps": 15}
_NEEDS = {
    "fig1": (),
    "fig3": ("grid_a", "same"),
    "fig4": ("grid_a", "steady", "mdps"),
    "fig5": ("grid_b",),
    "fig6": ("grid_a", "fine", "mdps"),
    "fig7": ("grid_a",),
}


class Runs:
    """The runs of the study, each made when it is first asked for."""

    def __init__(self, scale: data.Scale, preset: str, meter: Meter) -> None:
        self._scale, self._preset, self._meter = scale, preset, meter

    @functools.cached_property
    def grid_a(self) -> xr.Dataset:
        """Figs 3, 4, 6, 7."""
        if self._preset == "clean":
            return data.clean_runs(data.clean_grid(self._scale), self._meter, "grid_a")
        return data.author_runs(data.grid_a(self._scale), self._meter, "grid_a")

    @functools.cached_property
    def grid_b(self) -> xr.Dataset:
        """Fig. 5."""
        run = data.drift_runs if self._preset == "clean" else data.author_runs
        return run(data.grid_b(self._scale), self._meter, "grid_b")

    @functools.cached_property
    def fine(self) -> xr.Dataset:
        """Fig. 6 on a fine grid of times."""
        return data.fine_times(self._scale, self._meter, "fine")

    @functools.cached_property
    def same(self) -> xr.Dataset:
        """The same small rate for every N."""
        return data.same_rate_times(self._scale, self._meter, "same")

    @functools.cached_property
    def steady(self) -> xr.Dataset:
        """Steady states of the server average at small rates."""
        return data.steady_states(self._scale, self._meter, "steady")

    @functools.cached_property
    def mdps(self) -> tuple[xr.Dataset, xr.Dataset] | None:
        """Other MDPs, at paper scale."""
        if not self._scale.random_mdps:
            return None
        return data.other_mdps(self._scale, self._meter, "mdps")


def run(
    directory,
    figures: Sequence[str] | None = None,
    scale: str = "quick",
    preset: str = "paper",
    progress: Callable[[float, float], None] | None = None,
    devices: int = 1,
) -> dict:
    """Runs the study, or some of its figures, into a directory.

    Args:
      directory: exists; gets `<figure>.png` and `.svg`, the runs as `<name>/result.nc`,
        `scoreboard.png` and `summary.json`.
      figures: of `FIGURES`; all by default.
      scale: "smoke" (a look, a minute), "quick" (enough seeds for the bands) or "paper" (the
        author's full grids).
      preset: "paper" (the author's protocol) or "clean".
      progress: called with (done, total).
      devices: over which the agents are spread.

    Returns:
      The content of `summary.json`.
    """
    directory = pathlib.Path(directory)
    figures = tuple(FIGURES) if not figures else tuple(figures)
    size = data.SCALES[scale]
    needed = {n for f in figures for n in _NEEDS[f] if n != "mdps" or size.random_mdps}
    meter = Meter(progress, {n: s for n, s in _SHARES.items() if n in needed}, devices)
    runs = Runs(size, preset, meter)
    measured: dict = {}
    for name in figures:
        measured |= _measure(name, runs, scale, preset)
        pictures.draw(name, runs, preset, directory)
    shown = {"".join(c for c in f if c.isdigit()) for f in figures}
    lines = [
        judge(t, *measured[t.id]) if t.id in measured else judge(t)
        for t in targets.TARGETS
        if t.figure.split()[1][0] in shown
    ]
    for name in sorted(needed - {"mdps"}):
        (directory / name).mkdir(exist_ok=True)
        results.save(directory / name, getattr(runs, name))
    pictures.scoreboard(lines, directory)
    return conclude(
        directory,
        meter,
        lines,
        study=STUDY.name,
        scale=scale,
        preset=preset,
        figures=figures,
    )


def _measure(name: str, runs: Runs, scale: str, preset: str) -> dict:
    """What the targets of a figure come to; empty numbers where the scale has no runs for it."""
    if name == "fig1":
        return targets.fig1()
    if name == "fig3":
        out = targets.fig3(runs.grid_a, runs.same)
        return out if scale == "paper" else {k: v for k, v in out.items() if k != "T8"}
    if name == "fig4":
        out = targets.fig4(runs.grid_a, runs.steady)
        return out | (targets.other_mdps(*runs.mdps) if runs.mdps else {})
    if name == "fig5":
        return targets.fig5(runs.grid_b, complete=scale == "paper")
    if name == "fig6":
        return targets.fig6(runs.grid_a, runs.fine)
    return targets.fig7(runs.grid_a)


STUDY = Study(
    name="linear-speedup",
    paper="Einhorn, Federated Reinforcement Learning Has Linear Speedup (2023)",
    figures=FIGURES,
    presets=PRESETS,
    run=run,
)
