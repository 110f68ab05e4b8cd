"""Study `linear-speedup`: the figures of Einhorn (2023), with verdicts.

Figures 1 to 7 are about tables; 8 to 13, about federated PPO on BigFish, are run where they are
named.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence

import xarray as xr

from fedjax_rl import plotting
from fedjax_rl.analysis import judge
from fedjax_rl.saving import results
from fedjax_rl.studies import federated_ppo_data as deep_data
from fedjax_rl.studies import federated_ppo_figures as deep_pictures
from fedjax_rl.studies import federated_ppo_targets as deep_targets
from fedjax_rl.studies import linear_speedup_data as data
from fedjax_rl.studies import linear_speedup_figures as pictures
from fedjax_rl.studies import linear_speedup_targets as targets
from fedjax_rl.studies import stages
from fedjax_rl.studies.study import Meter, Study, conclude

FIGURES = {
    "fig1": "the MDP of the paper: optimal values and transitions",
    "fig3": "learning curves",
    "fig4": "steady-state error against alpha/N",
    "fig5": "steady-state error against the sync period",
    "fig6": "time to the threshold against N",
    "fig7": "the same with the time of communication",
    "fig8": "PPO on BigFish: final reward and epochs of every run",
    "fig9": "PPO, K = 1: epochs to a reward against N",
    "fig10": "PPO, K = 10: the same",
    "fig11": "PPO, K = 100: the same",
    "fig12": "PPO, K = 1: the same with the time of communication",
    "fig13": "PPO: epochs to a reward against K",
}
PRESETS = ("paper", "clean")

# Rough shares of the time each stage takes, for the estimate of what is left.
_SHARES = {"grid_a": 30, "grid_b": 40, "fine": 15, "same": 4, "steady": 3, "mdps": 15}
# Those of federated PPO.
_DEEP = {
    "fig8": ("facts", "grid"),
    "fig9": ("grid", "controls"),
    **dict.fromkeys(("fig10", "fig11", "fig12", "fig13"), ("grid",)),
}
_NEEDS = {
    "fig1": (),
    "fig3": ("grid_a", "same"),
    "fig4": ("grid_a", "steady", "mdps"),
    "fig5": ("grid_b",),
    "fig6": ("grid_a", "fine", "mdps"),
    "fig7": ("grid_a",),
}


def _grid_a(scale: data.Scale, meter: Meter, stage: str, preset: str) -> xr.Dataset:
    """Figs 3, 4, 6, 7."""
    if preset == "clean":
        return data.clean_runs(data.clean_grid(scale), meter, stage)
    return data.author_runs(data.grid_a(scale), meter, stage)


def _grid_b(scale: data.Scale, meter: Meter, stage: str, preset: str) -> xr.Dataset:
    """Fig. 5."""
    make = data.drift_runs if preset == "clean" else data.author_runs
    return make(data.grid_b(scale), meter, stage)


class Runs(stages.Runs):
    """The runs of the figures of tables."""

    def __init__(
        self, scale: data.Scale, preset: str, meter: Meter, directory: pathlib.Path
    ) -> None:
        makers = {
            "grid_a": functools.partial(_grid_a, preset=preset),
            "grid_b": functools.partial(_grid_b, preset=preset),
            "fine": data.fine_times,
            "same": data.same_rate_times,
            "steady": data.steady_states,
        }
        known = {name: stages.Stage(make, _SHARES[name]) for name, make in makers.items()}
        super().__init__(known, scale, meter, directory, preset)

    @functools.cached_property
    def mdps(self) -> tuple[xr.Dataset, xr.Dataset] | None:
        """Other MDPs, at paper scale."""
        if not self.scale.random_mdps:
            return None
        return data.other_mdps(self.scale, self._meter, "mdps")


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
      figures: of `FIGURES`; those of tables by default.
      scale: "smoke" (a look, a minute; with PPO a quarter of an hour), "quick" (enough seeds for
        the bands; PPO on pictures, for an accelerator) or "paper" (the author's full grids).
      preset: "paper" (the author's protocol) or "clean".
      progress: called with (done, total).
      devices: over which the agents are spread.

    Returns:
      The content of `summary.json`.
    """
    directory = results.place(directory)
    figures = tuple(f for f in FIGURES if f not in _DEEP) if not figures else tuple(figures)
    size, deep_size = data.SCALES[scale], deep_data.SCALES[scale]
    deep_size = dataclasses.replace(deep_size, preset=preset)
    tables = [f for f in figures if f not in _DEEP]
    needed = {n for f in tables for n in _NEEDS[f] if n != "mdps" or size.random_mdps}
    deep = {n for f in figures if f in _DEEP for n in _DEEP[f]}
    shares = {n: s for n, s in _SHARES.items() if n in needed}
    shares |= {n: stage.seconds for n, stage in deep_data.STAGES.items() if n in deep}
    meter = Meter(progress, shares, devices)
    runs = Runs(size, preset, meter, directory)
    of_ppo = stages.Runs(deep_data.STAGES, deep_size, meter, directory)
    measured: dict = {}
    for name in figures:
        if name in _DEEP:
            measured |= deep_targets.measure(name, of_ppo)
            for stem, picture in deep_pictures.PICTURES[name](of_ppo).items():
                plotting.save(picture, directory / stem)
        else:
            measured |= _measure(name, runs, scale, preset)
            pictures.draw(name, runs, preset, directory)
    shown = {"".join(c for c in f if c.isdigit()) for f in figures}
    chosen = [
        *(t for t in targets.TARGETS if t.figure.split()[1][0] in shown & set("1234567")),
        *(t for t in deep_targets.TARGETS if deep_targets.FIGURE_OF[t.id] in figures),
    ]
    lines = [judge(t, *measured[t.id]) if t.id in measured else judge(t) for t in chosen]
    for name in sorted(needed - {"mdps"}):  # made in any case, and saved
        getattr(runs, name)
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


def plan(figures: Sequence[str], scale: str, preset: str) -> dict:
    """What the figures about federated PPO run; those of tables take next to nothing."""
    size = dataclasses.replace(deep_data.SCALES[scale], preset=preset)
    return deep_data.plan(size, {n for f in figures if f in _DEEP for n in _DEEP[f]})


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
    only_named=tuple(_DEEP),
    plan=plan,
)
