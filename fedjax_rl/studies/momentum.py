"""Study `momentum`: FedSVRPG-M and FedHAPG-M of Wang et al. (2024), and what holds of them."""

from __future__ import annotations

from fedjax_rl.studies import momentum_data as data
from fedjax_rl.studies import momentum_figures as pictures
from fedjax_rl.studies import momentum_measures as measures
from fedjax_rl.studies import momentum_targets as targets
from fedjax_rl.studies.stages import Parts, staged

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
    "momentum", data.STAGES, _NEEDS, measures.measure, pictures.PICTURES, targets.FIGURE_OF
)


STUDY = staged(
    PARTS,
    paper="Wang, He, Zhang, Miao, Anderson, Momentum for the Win, arXiv 2405.19499 (2024)",
    figures=FIGURES,
    scales=data.SCALES,
    costly={"cheetah": ("halfcheetah",)},
    reduced={"cheetah": data.REDUCED_CHEETAH},
    targets=lambda size: targets.TARGETS,
)
