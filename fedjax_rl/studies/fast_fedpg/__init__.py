"""Study `fast-fedpg`: the theorems of Zhu, Heath and Mitra (2024) as experiments."""

from __future__ import annotations

from fedjax_rl.studies.declared import Study
from fedjax_rl.studies.fast_fedpg import enumerated, exact, physics, sampled
from fedjax_rl.studies.study import scales

SCALES = scales(
    # What smoke leaves out or does with fewer points is compiled for longer than it runs.
    faster=(None, 1, 1),  # trials of the rounds against H
    reaches=((2, 10), (2, 5, 10, 20), (2, 5, 10, 20)),  # local steps of the bias
    cuts=((5, 40), (5, 10, 20, 40), (5, 10, 20, 40)),  # lengths of episodes cut short
    few=(None, 16, 40),  # trials with little memory
    trials=(3, 16, 40),  # of the tables with sampled gradients
    speedup=((3, 40), (40, 400), (100, 400)),  # trials and rounds
    floor=(15, 150, 150),  # rounds
    lengths=((20, 40), (200, 400, 800), (200, 400, 800, 1600)),  # rounds, by sample complexity
    cartpole=((None, 3), (16, 20), (40, 40)),  # trials and rounds; slow to compile
    cheetah=(None, None, 10),  # trials
    bodies=(None, None, (50, 5)),  # rounds and trials
)

STUDY = Study(
    "fast-fedpg",
    "Zhu, Heath, Mitra, Towards Fast Rates for Federated and Multi-Task Reinforcement Learning, "
    "arXiv 2409.05291 (2024)",
    (
        enumerated.estimators,
        exact.convergence,
        exact.bias,
        exact.truncation,
        sampled.speedup,
        sampled.floor,
        sampled.samples,
        physics.cartpole,
        physics.cheetah,
        physics.bodies,
    ),
    SCALES,
    note="""The paper has theorems and no experiments; these are the experiments that they call
    for. `published` is what a theorem says, in words; a reference is its exponent, or what a
    prototype of the algorithms measured. M1 and M2 are families of MDPs with five states, three
    actions and an entropy bonus, whose optimum is known; M2's mean is the same for every even
    number of agents. Fast-FedPG without its memory is FedPG, with the agents' last corrections in
    its place SCAFFOLD-PG; all are compared at the same step.""",
    found="""Theorems only, and they hold: without the correction local steps leave a bias that
    more agents cannot remove (exponent of the gap in N {B2/0}), with it the gap falls linearly to
    rounding with exact gradients, and nearly as 1/N with sampled ones ({B2/1}).""",
)
