"""Study `differentiate`: what the derivative of a federation by how it is run is good for."""

from __future__ import annotations

from fedjax_rl.studies.declared import Study
from fedjax_rl.studies.differentiate import (
    elasticities,
    exchanges,
    paths,
    schedules,
    tuning,
    weights,
)
from fedjax_rl.studies.study import scales

SCALES = scales(
    # Steps; of Adam; federations of a step, of the choice by hand, unseen.
    schedule=((300, 6, 2, 4, 8), (3000, 200, 32, 128, 1024), (3000, 400, 64, 512, 8192)),
    # Steps; of Adam; federations of a step; learnings, of equal agents; unseen.
    weights=((300, 6, 2, 3, 3, 8), (3000, 160, 16, 10, 3, 1024), (3000, 200, 16, 20, 5, 8192)),
    # Steps; of Adam; federations of a step; unseen.
    exchanges=((120, 4, 2, 8), (800, 60, 16, 512), (800, 200, 64, 4096)),
    tuning=((3, 2, 2), (16, 6, 8), (64, 8, 32)),  # Sets; families of each, unseen ones.
    # Seeds; steps of FedQ, of FedTD; rounds of FedPG.
    elasticity=((4, 100, 50, 4), (64, 2000, 300, 10), (256, 4000, 300, 10)),
    # Seeds, and others to choose rates on; agents of a gradient; rounds of LQR, of Pendulum.
    paths=((3, 2, 8, 4, 2), (10, 3, 512, 40, 24), (40, 10, 4096, 40, 64)),
)

STUDY = Study(
    "differentiate",
    "Our own: the gradient of a federation with respect to how it is run",
    (
        schedules.learned_schedule,
        weights.learned_weights,
        exchanges.learned_exchanges,
        tuning.tuned,
        elasticities.elasticity,
        paths.paths,
    ),
    SCALES,
    note="""Nobody has published these: references are of a prototype or of theory. Everything is
    learned by Adam on derivatives through whole runs, from other federations, or in other
    environments, than those it is compared on. A control takes the same numbers where nothing was
    learned, or of what was learned with its times reversed.""",
    found="""A step-size schedule learned by derivatives ends {9.3 times} times better than the best
    constant ({9.3 times!}), learned weights of aggregation within {9.4 weights} of the known
    optimum ({9.4 weights!}), and every period needs {when saved/2} times the exchanges of those
    spent where derivatives say ({when saved!}). Elasticities by derivatives are those of
    differences ({same FedQ!}). Gradients through the environment vary less than likelihood ratios
    ({paths variance!}) and learn more of as many steps ({paths return!}).""",
)
