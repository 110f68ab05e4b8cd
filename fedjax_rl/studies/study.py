"""What a study is: a paper's experiments, declared."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

SCALES = ("smoke", "quick", "paper")


@dataclasses.dataclass(frozen=True)
class Study:
    """A paper's experiments.

    Attributes:
      name: as on the command line.
      paper: authors, title, year or arXiv id.
      figures: name of each figure -> what it shows.
      presets: the protocols it can be run with, the default first.
      run: `(directory, figures, scale, preset, progress, devices) -> summary`, the content of
        `summary.json`: `study, scale, preset, device, versions, seconds, targets`. Writes the
        pictures, `result*.nc` and `summary.json` into `directory`. `progress(done, total)` may be
        called often, with fractions of the whole study.
    """

    name: str
    paper: str
    figures: dict[str, str]
    presets: tuple[str, ...]
    run: Callable
