"""Study `afedpg`: agents of different speed, after Lan et al. (2024)."""

from __future__ import annotations

from fedjax_rl.studies import afedpg_data as data
from fedjax_rl.studies import afedpg_figures as pictures
from fedjax_rl.studies import afedpg_measures as measures
from fedjax_rl.studies import afedpg_targets as targets
from fedjax_rl.studies.stages import Parts, staged

FIGURES = {
    "lookahead": "what looking ahead makes up for: errors on a quadratic, and N-PG-IGT",
    "clock": "who arrives when, and the time per message against closed forms",
    "speedup": "agents of equal speed: time to a target against their number",
    "heterogeneity": "agents of different speed: waiting for everybody or for nobody",
    "methods": "every method on one clock: gap against simulated time",
    "ablation": "with and without looking ahead, as the delay grows",
    "brax": "brax: return against messages and against simulated time",
}
PARTS = Parts(
    "afedpg",
    data.STAGES,
    {
        "lookahead": ("lookahead", "transport"),
        "clock": ("schedule",),
        "speedup": ("speedup",),
        "heterogeneity": ("heterogeneity",),
        "methods": ("methods",),
        "ablation": ("ablation", "delay", "harm"),
        "brax": ("brax",),
    },
    measures.measure,
    pictures.PICTURES,
    targets.FIGURE_OF,
)

STUDY = staged(
    PARTS,
    paper="Lan, Han, Hashemi, Aggarwal, Brinton, Asynchronous Federated Reinforcement Learning "
    "with Policy Gradient Updates, arXiv 2404.08003",
    figures=FIGURES,
    scales=data.SCALES,
    costly={"brax": ("brax",)},
    reduced={"brax": data.REDUCED_BRAX},
    targets=lambda size: targets.TARGETS,
)
