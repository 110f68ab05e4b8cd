"""Study `differentiate`: what the derivative of a federation by how it is run is good for."""

from __future__ import annotations

from fedjax_rl.studies.declared import Study
from fedjax_rl.studies.differentiate import exchanges, schedules, weights
from fedjax_rl.studies.study import scales

SCALES = scales(
    # Steps; of Adam; federations of a step, of the choice by hand, unseen.
    schedule=((300, 6, 2, 4, 8), (3000, 200, 32, 128, 1024), (3000, 400, 64, 512, 8192)),
    # Steps; of Adam; federations of a step; learnings, of equal agents; unseen.
    weights=((300, 6, 2, 3, 3, 8), (3000, 80, 16, 10, 3, 1024), (3000, 200, 16, 20, 5, 8192)),
    # Steps; of Adam; federations of a step; unseen.
    exchanges=((120, 4, 2, 8), (800, 60, 16, 512), (800, 200, 64, 4096)),
)

STUDY = Study(
    "differentiate",
    "Our own: the gradient of a federation with respect to how it is run",
    (schedules.learned_schedule, weights.learned_weights, exchanges.learned_exchanges),
    SCALES,
    note="""Nobody has published these: references are of a prototype. Everything is learned by Adam
    on derivatives through whole runs, from other federations than those it is compared on.""",
)
