"""The stages of a study: sets of runs, each made once, saved, and shared by figures."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr

from fedjax_rl import plotting
from fedjax_rl.analysis import Target, judge
from fedjax_rl.federation.algorithm import Algorithm
from fedjax_rl.identity import parts
from fedjax_rl.saving import results
from fedjax_rl.saving.fingerprint import differences
from fedjax_rl.studies.study import Meter, Scale, Study, conclude
from fedjax_rl.sweeps.cells import Cell
from fedjax_rl.sweeps.programs import Threads
from fedjax_rl.sweeps.sweep import run_cells

SECONDS = "seconds.json"
PRESETS = ("paper", "reduced")
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


@dataclasses.dataclass(frozen=True)
class Stage:
    """How the runs of a stage are made.

    Attributes:
      make: `(scale, meter, name) -> Dataset`.
      seconds: roughly, at paper scale on two cores, for the estimate of what is left.
    """

    make: Callable
    seconds: float


class Runs:
    """The runs of a study, each stage made when it is first asked for, and saved.

    A stage that was saved before is read again: a study that was stopped goes on where it was. One
    that is damaged is made anew.
    """

    def __init__(
        self,
        stages: Mapping[str, Stage],
        scale: Scale,
        meter: Meter,
        directory: pathlib.Path,
    ) -> None:
        """Takes the stages by name, the size of the study and where it is saved."""
        self.scale, self._stages = scale, stages
        self._meter, self._directory = meter, directory
        self._made: dict[str, xr.Dataset] = {}

    def __getattr__(self, stage: str) -> xr.Dataset:
        """The runs of a stage, such as `cartpole`."""
        if stage.startswith("_") or stage not in self._stages:
            raise AttributeError(stage)
        if stage not in self._made:
            made = self._saved(stage)
            if made is not None:
                self._meter.stage(stage)
                self._meter.count(made)
            else:
                made = self._stages[stage].make(self.scale, self._meter, stage)
                place = self._directory / stage
                place.mkdir(exist_ok=True)
                # Seconds are not in the result: its bytes are the same again.
                seconds = json.loads(made.attrs.get("seconds", "{}"))
                results.write_sealed(place / SECONDS, {**seconds, "of": self._of()})
                results.save(place, made)
            self._made[stage] = made
        return self._made[stage]

    def _of(self) -> dict[str, list[str]]:
        """What decides the runs of a stage."""
        of: dict = {}
        for name, size in self.scale.sizes.items():
            of |= parts(f"scale.{name}", size)
        return {name: list(leaf) for name, leaf in of.items()}

    def _saved(self, stage: str) -> xr.Dataset | None:
        """A whole stage of this very study, with the seconds it took; None where there is none.

        Raises:
          ValueError: it is of another scale.
        """
        place = self._directory / stage
        seconds = results.read_sealed(place / SECONDS)
        if seconds is None:
            return None
        if differ := differences(self._of(), seconds.pop("of", {})):
            raise ValueError(
                f"runs in {place} are of another scale: {'; '.join(differ[:3])}; allowed: the same "
                "scale and preset, or another directory"
            )
        with contextlib.suppress(OSError):
            made = results.load(place)
            return made.assign_attrs(seconds=json.dumps(seconds)) if seconds else made
        return None


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
