"""Study `communication-efficient`: the figures of Gunn (2023), and what explains them."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Sequence

import xarray as xr

from fedjax_rl import results
from fedjax_rl.analysis import judge
from fedjax_rl.studies import communication_efficient_data as data
from fedjax_rl.studies import communication_efficient_figures as pictures
from fedjax_rl.studies import communication_efficient_targets as targets
from fedjax_rl.studies.study import Meter, Study, conclude

FIGURES = {
    "fig3-4": "Simple Grid: reward, frequency and size of messages",
    "fig3-5": "Frozen Lake: cumulative reward, frequency and size of messages",
    "fig4-1": "expected communication against the number of senders wanted",
    "fig4-2": "Windy Grid with 30 agents",
    "fig4-3": "Frozen Lake with 30 agents",
    "fig4-5": "CartPole: ES and ESPC",
    "fig4-6": "Ant: ES and ESPC",
    "fig4-7": "probability of communication in the first episode",
    "fig4-8": "CartPole: number of senders wanted",
    "fig4-9": "Ant: number of senders wanted",
    "fig4-10": "CartPole: length of the window",
    "fig4-11": "Ant: length of the window",
    "snr": "why selection helps: signal to noise against the mean return",
    "offset": "what a constant added to every return does",
    "grids": "evolution strategies do learn the grids",
    "pareto": "learning against bytes, for uplinks on several algorithms",
}
PRESETS = ("paper", "reduced")

# Rough seconds of each stage at paper scale on two cores, for the estimate of what is left.
_SHARES = {
    "simple": 20,
    "lake": 20,
    "windy": 20,
    "lake30": 15,
    "cartpole": 70,
    "setting_a": 30,
    "targets_and_windows": 60,
    "offset": 30,
    "grids_by_es": 10,
    "pareto": 60,
    "pareto_grid": 30,
    "noise": 20,
    "ant": 600,
    "ant_targets": 600,
    "ant_windows": 400,
}
_NEEDS = {
    "fig3-4": ("simple",),
    "fig3-5": ("lake",),
    "fig4-1": (),
    "fig4-2": ("windy",),
    "fig4-3": ("lake30",),
    "fig4-5": ("cartpole", "setting_a"),
    "fig4-6": ("ant",),
    "fig4-7": (),
    "fig4-8": ("targets_and_windows",),
    "fig4-9": ("ant_targets",),
    "fig4-10": ("targets_and_windows",),
    "fig4-11": ("ant_windows",),
    "snr": ("noise",),
    "offset": ("offset",),
    "grids": ("grids_by_es", "windy", "simple"),
    "pareto": ("pareto", "pareto_grid"),
}
_ANT = ("fig4-6", "fig4-9", "fig4-11")


class Runs:
    """The runs of the study, each made when it is first asked for, and saved.

    A stage that was saved before is read again: a study that was stopped goes on where it was.
    """

    def __init__(self, scale: data.Scale, meter: Meter, directory: pathlib.Path) -> None:
        """Takes the size of the study and where its stages are saved."""
        self.scale, self._meter, self._directory = scale, meter, directory
        self._made: dict[str, xr.Dataset] = {}

    def __getattr__(self, stage: str) -> xr.Dataset:
        """The runs of a stage, such as `cartpole`."""
        if stage.startswith("_") or stage not in _SHARES:
            raise AttributeError(stage)
        if stage not in self._made:
            place = self._directory / stage
            if (place / "result.nc").is_file():
                self._made[stage] = results.load(place)
                self._meter.stage(stage)
            else:
                self._made[stage] = getattr(data, stage)(self.scale, self._meter, stage)
                place.mkdir(exist_ok=True)
                results.save(place, self._made[stage])
        return self._made[stage]


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
      directory: exists; gets `<figure>.png` and `.svg`, the runs as `<stage>/result.nc`,
        `scoreboard.png` and `summary.json`.
      figures: of `FIGURES`; all by default.
      scale: "smoke" (a look, minutes), "quick" (fewer trials, without Ant) or "paper" (the
        thesis's own sizes, and the more trials that separate its curves).
      preset: "paper", or "reduced": Ant with fewer episodes, cut short.
      progress: called with (done, total).
      devices: over which the agents are spread.

    Returns:
      The content of `summary.json`.
    """
    directory = pathlib.Path(directory)
    figures = tuple(FIGURES) if not figures else tuple(figures)
    size = data.SCALES[scale]
    if preset == "reduced" and size.ant is not None:
        size = dataclasses.replace(size, ant=data.REDUCED_ANT)
    shown = [f for f in figures if size.ant is not None or f not in _ANT]
    needed = {stage for figure in shown for stage in _NEEDS[figure]}
    meter = Meter(progress, {n: s for n, s in _SHARES.items() if n in needed}, devices)
    runs = Runs(size, meter, directory)
    measured: dict = {}
    for figure in shown:
        measured |= targets.measure(figure, runs)
        pictures.draw(figure, runs, directory)
    lines = [
        judge(target, *measured[target.id]) if target.id in measured else judge(target)
        for target in targets.for_scale(size)
        if targets.FIGURE_OF[target.id] in figures
    ]
    pictures.scoreboard(lines, directory)
    return conclude(
        directory,
        meter,
        lines,
        study=STUDY.name,
        scale=scale,
        preset=preset,
        figures=figures,
        size=dataclasses.asdict(size),
    )


STUDY = Study(
    name="communication-efficient",
    paper="Gunn, Communication Efficient Distributed Reinforcement Learning (2023)",
    figures=FIGURES,
    presets=PRESETS,
    run=run,
)
