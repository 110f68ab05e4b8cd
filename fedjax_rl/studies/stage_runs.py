"""The runs of a study in stages, each made once, saved, and shared by figures."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
from collections.abc import Callable, Mapping

import xarray as xr

from fedjax_rl.identity import parts
from fedjax_rl.saving import results
from fedjax_rl.saving.fingerprint import differences
from fedjax_rl.studies.study import Meter, Scale

SECONDS = "seconds.json"


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
