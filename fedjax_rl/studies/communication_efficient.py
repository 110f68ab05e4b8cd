"""Study `communication-efficient`: the figures of Gunn (2023), and what explains them."""

from __future__ import annotations

from fedjax_rl.studies import communication_efficient_data as data
from fedjax_rl.studies import communication_efficient_figures as pictures
from fedjax_rl.studies import communication_efficient_measures as measures
from fedjax_rl.studies import communication_efficient_targets as targets
from fedjax_rl.studies.stages import Parts, staged

FIGURES = {
    "fig3-4": "Simple Grid: reward, frequency and size of messages",
    "fig3-5": "Frozen Lake: cumulative reward, frequency and size of messages",
    "fig4-1": "expected communication against the number of senders wanted",
    "fig4-2": "Windy Grid with 30 agents",
    "fig4-3": "Frozen Lake with 30 agents",
    "fig4-5": "CartPole: ES and ESPC",
    "fig4-6": "Ant: ES and ESPC",
    "fig4-7": "probability of communication in the first episode",
    "fig4-8": "CartPole: number of senders wanted",
    "fig4-9": "Ant: number of senders wanted",
    "fig4-10": "CartPole: length of the window",
    "fig4-11": "Ant: length of the window",
    "snr": "why selection helps: signal to noise against the mean return",
    "offset": "what a constant added to every return does",
    "grids": "evolution strategies do learn the grids",
    "pareto": "learning against bytes, for uplinks on several algorithms",
}

_NEEDS = {
    "fig3-4": ("simple",),
    "fig3-5": ("lake",),
    "fig4-1": (),
    "fig4-2": ("windy",),
    "fig4-3": ("lake30",),
    "fig4-5": ("cartpole", "setting_a"),
    "fig4-6": ("ant",),
    "fig4-7": (),
    "fig4-8": ("targets_and_windows",),
    "fig4-9": ("ant_targets",),
    "fig4-10": ("targets_and_windows",),
    "fig4-11": ("ant_windows",),
    "snr": ("noise",),
    "offset": ("offset",),
    "grids": ("grids_by_es", "windy", "simple"),
    "pareto": ("pareto", "pareto_grid"),
}
_ANT = ("fig4-6", "fig4-9", "fig4-11")


PARTS = Parts(
    "communication-efficient",
    data.STAGES,
    _NEEDS,
    measures.measure,
    pictures.PICTURES,
    targets.FIGURE_OF,
)


STUDY = staged(
    PARTS,
    paper="Gunn, Communication Efficient Distributed Reinforcement Learning (2023)",
    figures=FIGURES,
    scales=data.SCALES,
    costly={"ant": _ANT},
    reduced={"ant": data.REDUCED_ANT},
    targets=targets.for_scale,
    anywhere=False,
)
