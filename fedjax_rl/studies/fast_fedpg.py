"""Study `fast-fedpg`: the theorems of Zhu, Heath and Mitra (2024) as experiments."""

from __future__ import annotations

from fedjax_rl.studies import fast_fedpg_data as data
from fedjax_rl.studies import fast_fedpg_figures as pictures
from fedjax_rl.studies import fast_fedpg_measures as measures
from fedjax_rl.studies import fast_fedpg_targets as targets
from fedjax_rl.studies.stages import Parts, staged

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
    "fast-fedpg", data.STAGES, _NEEDS, measures.measure, pictures.PICTURES, targets.FIGURE_OF
)


STUDY = staged(
    PARTS,
    paper="Zhu, Heath, Mitra, Towards Fast Rates for Federated and Multi-Task Reinforcement "
    "Learning, arXiv 2409.05291",
    figures=FIGURES,
    scales=data.SCALES,
    costly={"cheetah": ("cheetah",)},
    reduced={"cheetah": data.REDUCED_CHEETAH},
    targets=lambda size: targets.TARGETS,
)
