"""Study `momentum`: FedSVRPG-M and FedHAPG-M of Wang et al. (2024), and what holds of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from fedjax_rl.studies import momentum_data as data
from fedjax_rl.studies import momentum_figures as pictures
from fedjax_rl.studies import momentum_targets as targets
from fedjax_rl.studies.stages import Parts, conduct
from fedjax_rl.studies.study import Study

FIGURES = {
    "bias": "exact gradients: what bias is left, against beta, eta and H; what is the same",
    "estimator-error": "error of the momentum against beta, N and H",
    "speedup": "tables: gap against the number of agents",
    "tuned": "tables: gap, gradient norm and error against the server's step",
    "clipping": "CartPole: what truncated weights do",
    "kernels": "tables: exact gap where kernels and rewards differ, all methods",
    "hyperparameters": "CartPole: beta, the server's step, N and H",
    "cartpole": "CartPole: all methods",
    "authors": "the authors' code and another anchor beside the algorithm",
    "halfcheetah": "HalfCheetah: all methods",
}
PRESETS = ("paper", "reduced")

_NEEDS = {
    "bias": ("exact", "identities"),
    "estimator-error": ("error",),
    "speedup": ("speedup",),
    "tuned": ("tuned",),
    "clipping": ("sweeps",),
    "kernels": ("kernels",),
    "hyperparameters": ("cartpole", "sweeps"),
    "cartpole": ("cartpole",),
    "authors": ("tuned", "authors", "cartpole", "authors_cartpole"),
    "halfcheetah": ("halfcheetah",),
}

PARTS = Parts(
    "momentum", data.STAGES, _NEEDS, targets.measure, pictures.PICTURES, targets.FIGURE_OF
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
      scale: "smoke" (a look, nothing but identities is judged), "quick" (fewer trials, without
        HalfCheetah) or "paper".
      preset: "paper", or "reduced": at any scale HalfCheetah with fewer and shorter
        episodes.
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
        shown=[f for f in figures if size.cheetah is not None or f != "halfcheetah"],
        targets=targets.TARGETS,
        size=size,
        scale=scale,
        preset=preset,
        progress=progress,
        devices=devices,
    )


STUDY = Study(
    name=PARTS.name,
    paper="Wang, He, Zhang, Miao, Anderson, Momentum for the Win, arXiv 2405.19499 (2024)",
    figures=FIGURES,
    presets=PRESETS,
    run=run,
)
