"""A study: figures that declare claims and pictures over runs; how they are made and judged."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from fedjax_rl import plotting
from fedjax_rl.names import check_known
from fedjax_rl.saving import results as files
from fedjax_rl.studies.claims import Measurable
from fedjax_rl.studies.pictures import Picture
from fedjax_rl.studies.runs import Results, Stage, work
from fedjax_rl.studies.study import SCALES, Meter, Scale, conclude

COMPILING = 5.0  # seconds, of any program


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure as it is declared for a scale.

    Attributes:
      name: as on the command line.
      claims: in their order.
      pictures: likewise.
    """

    name: str
    claims: list[Measurable]
    pictures: list[Picture]

    @property
    def stages(self) -> list[Stage]:
        """What it needs and the scale has, each once, by name."""
        needs = [
            *(own.estimate.needs for own in self.claims),
            *(own.needs for own in self.pictures),
        ]
        found: dict[str, Stage] = {}
        for stage in (stage for own in needs for last in own for stage in last.whole):
            if stage.there:
                found.setdefault(stage.name, stage)
        return list(found.values())


@dataclasses.dataclass(frozen=True)
class Declaration:
    """A figure before its size is known; `figure` makes one.

    Attributes:
      name: as on the command line.
      about: what it shows, in a line.
      of: `size -> iterator of claims and pictures`.
      only_named: whether it takes so long that it is run only where it is named.
    """

    name: str
    about: str
    of: Callable[[Scale], Iterator]
    only_named: bool = False

    @property
    def prose(self) -> str:
        """What the gallery says beside it."""
        return inspect.getdoc(self.of) or ""

    def at(self, size: Scale) -> Figure:
        """The figure at a size; nothing runs.

        Raises:
          ValueError: neither claims nor pictures.
        """
        claims, pictures = [], []
        for own in self.of(size):
            if isinstance(own, Picture):
                pictures.append(own)
            else:
                claim = dataclasses.replace(own.claim, figure=own.claim.figure or self.name)
                claims.append(dataclasses.replace(own, claim=claim))
        if not claims and not pictures:
            raise ValueError(f"figure {self.name} declares nothing; allowed: claims and pictures")
        return Figure(self.name, claims, pictures)


def figure(name: str, about: str, *, only_named: bool = False) -> Callable:
    """Decorates `(size) -> iterator of claims and pictures`, whose docstring is for the gallery.

    Args:
      name: as on the command line.
      about: what it shows, in a line.
      only_named: whether it takes so long that it is run only where it is named.

    Example:
      >>> from fedjax_rl.studies import figure, number, exact
      >>> @figure("fig1", "the MDP of the paper")
      ... def fig1(size):
      ...     yield number("T1", "states", exact(4), (4, 4), published=4)
      >>> fig1.about
      'the MDP of the paper'
    """
    return lambda function: Declaration(name, about, function, only_named)


class Study:
    """A paper's experiments.

    Attributes:
      name: as on the command line.
      paper: authors, title, year or arXiv id.
      scales: name -> sizes, read as `size.trials`.
      presets: the protocols it can be run with, the default first; read as `size.preset`.
      note: for the gallery: what a reader has to know of all figures.
      found: for the README: what came of it, with `{id}` for the measured number of a claim,
        `{id/0}` for one of several, `{id!}` for the mark of its verdict.
    """

    def __init__(
        self,
        name: str,
        paper: str,
        figures: Sequence[Declaration],
        scales: Mapping[str, Scale],
        *,
        presets: Sequence[str] = ("paper",),
        note: str = "",
        found: str = "",
    ) -> None:
        """Takes the figures in the order of the paper.

        Raises:
          ValueError: two figures of one name.
        """
        self.name, self.paper, self.scales = name, paper, dict(scales)
        self.presets = tuple(presets)
        self.note, self.found = (" ".join(words.split()) for words in (note, found))
        self._figures = {own.name: own for own in figures}
        if len(self._figures) < len(figures):
            raise ValueError(f"two figures of {name} have one name; allowed: a name each")

    @property
    def figures(self) -> dict[str, str]:
        """Name of each figure -> what it shows."""
        return {name: own.about for name, own in self._figures.items()}

    @property
    def only_named(self) -> tuple[str, ...]:
        """Figures that are run only where they are named."""
        return tuple(name for name, own in self._figures.items() if own.only_named)

    def prose(self, figure: str) -> str:
        """What the gallery says beside a figure."""
        return self._figures[figure].prose

    def size(self, scale: str, preset: str = "") -> Scale:
        """The sizes of a scale, with the preset among them."""
        preset = preset or self.presets[0]
        check_known(scale, self.scales, f"scale of {self.name}")
        check_known(preset, self.presets, f"preset of {self.name}")
        return Scale(scale, {**self.scales[scale].sizes, "preset": preset})

    def declare(self, figures: Sequence[str], size: Scale) -> list[Figure]:
        """Figures as they are at a size; nothing runs.

        Raises:
          ValueError: a figure without claims and pictures, two claims or two pictures of one name.
        """
        made, seen = [], set()
        for name in figures:
            check_known(name, self._figures, f"figure of {self.name}")
            made.append(self._figures[name].at(size))
            keys = [f"claim {own.claim.id}" for own in made[-1].claims]
            keys += [f"picture {own.stem}" for own in made[-1].pictures]
            for key in keys:
                if key in seen:
                    raise ValueError(f"{self.name} has two of {key}; allowed: a name each")
                seen.add(key)
        return made

    def run(
        self,
        directory,
        figures: Sequence[str] | None = None,
        scale: str = "quick",
        preset: str = "",
        progress: Callable[[float, float], None] | None = None,
        devices: int = 1,
    ) -> dict[str, Any]:
        """Makes the runs of figures, draws them, decides their claims.

        Args:
          directory: exists; gets `<picture>.png` and `.svg`, the runs as `<stage>/result.nc` and
            `summary.json`. Stages that it has are not made again.
          figures: all by default, but those that are only run where they are named.
          scale: of `SCALES`.
          preset: of `presets`; the first by default.
          progress: called with (done, total).
          devices: over which the agents are spread.

        Returns:
          The content of `summary.json`.
        """
        directory = files.place(directory)
        usual = [name for name in self._figures if name not in self.only_named]
        size = self.size(scale, preset)
        made = self.declare(figures or usual, size)
        stages = {stage.name: stage for figure in made for stage in figure.stages}
        shares = {name: stage.seconds for name, stage in stages.items()}
        meter = Meter(progress, shares, devices)
        results = Results(directory, meter, quickly=size.name == SCALES[0])
        lines, parts = [], []
        for figure in made:
            lines += [self._line(figure.name, size, own, results) for own in figure.claims]
            pictures = [own for own in figure.pictures if own.there]
            for own in pictures:
                plotting.save(own.draw(results), directory / own.stem)
            parts.append(
                {
                    "figure": figure.name,
                    "pictures": [own.stem for own in pictures],
                    "seconds": sum(results.seconds.get(one.name, 0.0) for one in figure.stages),
                }
            )
        return conclude(
            directory,
            meter,
            lines,
            study=self.name,
            scale=scale,
            preset=size.preset,
            figures=[figure.name for figure in made],
            size=dict(size.sizes),
            parts=parts,
        )

    def _line(self, figure: str, size: Scale, own: Measurable, results: Results) -> dict[str, Any]:
        """The line of a claim, with what runs it; of one that was not run also what it costs."""
        line = own.decide(results)
        scale = size.name if own.there else "paper"
        line |= {"part": figure, "command": self.command(figure, scale, size.preset)}
        if not own.there:
            line["cost"] = sum(stage.seconds for last in own.estimate.needs for stage in last.whole)
        return line

    def command(self, figure: str, scale: str, preset: str) -> str:
        """What makes a figure on the command line."""
        line = f"fedjax-rl reproduce {self.name}:{figure} --scale {scale}"
        return line if preset == self.presets[0] else f"{line} --preset {preset}"

    def plan(self, figures: Sequence[str], scale: str, preset: str) -> dict:
        """The sets of runs of figures: `{stage: [(algorithm, {N: federations}, steps)]}`."""
        made = self.declare(figures, self.size(scale, preset))
        stages = {stage.name: stage for figure in made for stage in figure.stages}
        return {name: planned for name, stage in stages.items() if (planned := stage.plan())}

    def seconds(self, figures: Sequence[str], scale: str, preset: str) -> dict[str, float]:
        """Roughly the seconds of every stage of figures on two cores.

        Stages say what they take at paper scale. Of the same runs in a smaller number it is a part
        that is proportional to agents times steps, but not less than it takes to compile them.
        """

        def stages(scale):
            made = self.declare(figures, self.size(scale, preset))
            return {stage.name: stage for figure in made for stage in figure.stages}

        whole, out = stages("paper"), {}
        for name, stage in stages(scale).items():
            out[name], there = stage.seconds, whole.get(name)
            if there is not None and there.seconds == stage.seconds and work(there):
                part = stage.seconds * min(1.0, work(stage) / work(there))
                out[name] = max(part, min(stage.seconds, COMPILING))
        return out
