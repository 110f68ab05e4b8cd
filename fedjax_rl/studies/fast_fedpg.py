"""Study `fast-fedpg`: the theorems of Zhu, Heath and Mitra (2024) as experiments."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from fedjax_rl.studies import fast_fedpg_data as data
from fedjax_rl.studies import fast_fedpg_figures as pictures
from fedjax_rl.studies import fast_fedpg_targets as targets
from fedjax_rl.studies.stages import Parts, conduct
from fedjax_rl.studies.study import Study

FIGURES = {
    "estimators": "what is unbiased: estimators, and the mean MDP",
    "exact": "exact gradients: gap against rounds, with and without correction",
    "bias": "where FedPG ends: bias against steps and against heterogeneity",
    "speedup": "sampled gradients: gap against the number of agents",
    "floor": "strong heterogeneity: what more agents cannot remove",
    "samples": "sample complexity: gap and gradient against all episodes",
    "truncation": "episodes cut short",
    "cartpole": "CartPole with different physics",
    "cheetah": "HalfCheetah with different target speeds",
}
PRESETS = ("paper", "reduced")

_NEEDS = {
    "estimators": ("average", "estimators"),
    "exact": ("exact",),
    "bias": ("bias", "formula"),
    "speedup": ("speedup",),
    "floor": ("floor",),
    "samples": ("samples",),
    "truncation": ("truncation",),
    "cartpole": ("cartpole",),
    "cheetah": ("cheetah",),
}

PARTS = Parts(
    "fast-fedpg", data.STAGES, _NEEDS, targets.measure, pictures.PICTURES, targets.FIGURE_OF
)


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
      scale: "smoke" (a look, minutes), "quick" (fewer seeds, without HalfCheetah) or "paper".
      preset: "paper", or "reduced": at any scale HalfCheetah with fewer rounds, cut short.
      progress: called with (done, total).
      devices: over which the agents are spread.

    Returns:
      The content of `summary.json`.
    """
    figures = tuple(FIGURES) if not figures else tuple(figures)
    size = data.SCALES[scale]
    if preset == "reduced":
        size = dataclasses.replace(size, cheetah=data.REDUCED_CHEETAH)
    return conduct(
        PARTS,
        directory,
        figures=figures,
        shown=[f for f in figures if size.cheetah is not None or f != "cheetah"],
        targets=targets.TARGETS,
        size=size,
        scale=scale,
        preset=preset,
        progress=progress,
        devices=devices,
    )


STUDY = Study(
    name=PARTS.name,
    paper="Zhu, Heath, Mitra, Towards Fast Rates for Federated and Multi-Task Reinforcement "
    "Learning, arXiv 2409.05291",
    figures=FIGURES,
    presets=PRESETS,
    run=run,
)
