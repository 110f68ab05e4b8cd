"""A study of stages: runs what its figures need, draws them, judges their targets."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fedjax_rl import plotting
from fedjax_rl.analysis import Target, judge
from fedjax_rl.saving import results
from fedjax_rl.studies.stage_runs import Runs, Stage
from fedjax_rl.studies.study import Meter, Scale, Study, conclude

PRESETS = ("paper", "reduced")


@dataclasses.dataclass(frozen=True)
class Parts:
    """What a study of stages consists of.

    Attributes:
      name: of the study.
      stages: by name.
      needs: figure -> the stages that it shows.
      measure: `(figure, runs) -> {id of a target: (measured, low, high)}`.
      pictures: figure -> `runs -> {stem of a file: Figure}`.
      figure_of: id of a target -> its figure.
    """

    name: str
    stages: Mapping[str, Stage]
    needs: Mapping[str, Sequence[str]]
    measure: Callable
    pictures: Mapping[str, Callable]
    figure_of: Mapping[str, str]


def conduct(
    parts: Parts,
    directory,
    *,
    figures: Sequence[str],
    shown: Sequence[str],
    targets: Sequence[Target],
    size: Scale,
    preset: str,
    progress: Callable[[float, float], None] | None,
    devices: int,
) -> dict:
    """Runs what figures need, draws them, judges their targets.

    Args:
      parts: of the study.
      directory: exists; gets `<figure>.png` and `.svg`, the runs as `<stage>/result.nc`,
        `scoreboard.png` and `summary.json`.
      figures: asked for; all targets of these are listed.
      shown: those of them that this scale has runs for.
      targets: with the bands for this scale.
      size: what the stages take as their scale.
      preset: of the run.
      progress: called with (done, total).
      devices: over which the agents are spread.

    Returns:
      The content of `summary.json`.
    """
    directory = results.place(directory)
    needed = {stage for figure in shown for stage in parts.needs[figure]}
    shares = {name: stage.seconds for name, stage in parts.stages.items() if name in needed}
    meter = Meter(progress, shares, devices)
    runs = Runs(parts.stages, size, meter, directory)
    measured: dict = {}
    for figure in shown:
        measured |= parts.measure(figure, runs)
        for stem, picture in parts.pictures[figure](runs).items():
            plotting.save(picture, directory / stem)
    lines = [
        judge(target, *measured[target.id]) if target.id in measured else judge(target)
        for target in targets
        if parts.figure_of[target.id] in figures
    ]
    if lines:
        plotting.save(plotting.scoreboard(lines), directory / "scoreboard")
    return conclude(
        directory,
        meter,
        lines,
        study=parts.name,
        scale=size.name,
        preset=preset,
        figures=figures,
        size=dict(size.sizes),
    )


def staged(
    parts: Parts,
    *,
    paper: str,
    figures: Mapping[str, str],
    scales: Mapping[str, Scale],
    costly: Mapping[str, Sequence[str]],
    reduced: Mapping[str, Any],
    targets: Callable[[Any], Sequence[Target]],
    anywhere: bool = True,
) -> Study:
    """A study of stages, with the presets "paper" and "reduced".

    Args:
      parts: what it consists of.
      paper: authors, title, year or arXiv id.
      figures: name of each figure -> what it shows.
      scales: by name.
      costly: size of a scale -> the figures that are shown only where it is not None.
      reduced: size -> its value with the preset "reduced".
      targets: of a scale.
      anywhere: whether the preset "reduced" shows costly figures at any scale, or only where the
        scale has them.
    """

    def run(
        directory,
        chosen: Sequence[str] | None = None,
        scale: str = "quick",
        preset: str = "paper",
        progress: Callable[[float, float], None] | None = None,
        devices: int = 1,
    ) -> dict:
        chosen = tuple(figures) if not chosen else tuple(chosen)
        size = scales[scale]
        if preset == "reduced":
            there = [n for n in reduced if anywhere or getattr(size, n) is not None]
            size = size.replace(**{name: reduced[name] for name in there})
        absent = {f for name, own in costly.items() if getattr(size, name) is None for f in own}
        return conduct(
            parts,
            directory,
            figures=chosen,
            shown=[figure for figure in chosen if figure not in absent],
            targets=targets(size),
            size=size,
            preset=preset,
            progress=progress,
            devices=devices,
        )

    return Study(name=parts.name, paper=paper, figures=dict(figures), presets=PRESETS, run=run)
