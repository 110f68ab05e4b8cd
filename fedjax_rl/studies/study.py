"""Sizes of a study, its progress, and the summary that ends it."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import xarray as xr

from fedjax_rl.names import check_known
from fedjax_rl.saving import results

SCALES = ("smoke", "quick", "paper")


@dataclasses.dataclass(frozen=True)
class Scale:
    """How much of a study is run: numbers of trials, rounds and so on, read as `scale.trials`.

    Attributes:
      name: one of `SCALES`.
      sizes: by name.
    """

    name: str
    sizes: Mapping[str, Any]

    def __getattr__(self, name: str) -> Any:
        """A size, such as `trials`."""
        sizes = self.__dict__.get("sizes", {})  # of a copy under way there are none yet
        if name not in sizes:
            raise AttributeError(f"{name!r} is no size of this study; known: {', '.join(sizes)}")
        return sizes[name]

    def replace(self, **sizes) -> Scale:
        """The same with other sizes.

        Raises:
          ValueError: an unknown size, naming the nearest.
        """
        for name in sizes:
            check_known(name, self.sizes, "size of this study")
        return Scale(self.name, {**self.sizes, **sizes})


def scales(**sizes: tuple) -> dict[str, Scale]:
    """The scales of a study from size -> its values (smoke, quick, paper)."""
    columns = zip(*sizes.values(), strict=True)
    names = zip(SCALES, columns, strict=True)
    return {name: Scale(name, dict(zip(sizes, own, strict=True))) for name, own in names}


class Meter:
    """Adds up the seconds of several sweeps and reports progress over all of them.

    Shares are of the whole study; a stage whose end is not known beforehand reports as it goes.

    Attributes:
      devices: that every sweep uses.
      checkpoints: directory where the sweep of the stage that is made is saved as it goes; None
        where it is not.
      compile_seconds, run_seconds: of what was counted.
    """

    def __init__(
        self,
        progress: Callable[[float, float], None] | None,
        shares: dict,
        devices: int = 1,
    ) -> None:
        """Takes the share of each stage, and the devices that every sweep uses."""
        self.devices = devices
        self.checkpoints: pathlib.Path | None = None
        self._progress = progress
        self._shares = shares
        self._before = 0.0
        self.compile_seconds = 0.0
        self.run_seconds = 0.0

    def stage(self, name: str) -> Callable[[int, int], None]:
        """A progress callback for one stage."""
        share, before = self._shares[name], self._before
        self._before += share

        def report(done: int, total: int) -> None:
            if self._progress is not None:
                self._progress(before + share * min(done / max(total, 1), 1), self.total)

        report(0, 1)
        return report

    def split(self, name: str, parts: int) -> list[Meter]:
        """Meters of the parts of a stage, which all take the same time."""
        report = self.stage(name)

        def one(place: int) -> Meter:
            return Meter(
                lambda done, total: report(place + done / total, parts), {name: 1.0}, self.devices
            )

        return [one(place) for place in range(parts)]

    def finish(self) -> None:
        """Reports that everything is done."""
        if self._progress is not None:
            whole = self.total or 1.0  # a figure of pure theory needs no stage
            self._progress(whole, whole)

    @property
    def total(self) -> float:
        """All shares together."""
        return sum(self._shares.values())

    def count(self, result: xr.Dataset) -> xr.Dataset:
        """Adds the seconds of a result, if it says how many; returns it."""
        seconds = json.loads(result.attrs.get("seconds", '{"compile": 0, "run": 0}'))
        self.compile_seconds += seconds["compile"]
        self.run_seconds += seconds["run"]
        return result


def conclude(
    directory: pathlib.Path,
    meter: Meter,
    lines: list[dict],
    *,
    study: str,
    scale: str,
    preset: str,
    figures: Sequence[str],
    **more,
) -> dict:
    """Writes `summary.json`, last of all: a directory that has one is complete.

    Args:
      directory: of the run.
      meter: knows the seconds.
      lines: of `analysis.decide`, one per claim.
      study: its name.
      scale: of the run.
      preset: of the run.
      figures: that were asked for.
      **more: whatever else the summary says.

    Returns:
      What was written.
    """
    summary = {
        "study": study,
        "scale": scale,
        "preset": preset,
        "figures": list(figures),
        **more,
        "device": results.device(),
        "versions": results.versions(),
        "seconds": {"compile": meter.compile_seconds, "run": meter.run_seconds},
        "targets": lines,
    }
    summary = results.write_sealed(directory / "summary.json", summary)
    meter.finish()
    return summary
