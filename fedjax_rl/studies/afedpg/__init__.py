"""Study `afedpg`: agents of different speed, after Lan et al. (2024)."""

from __future__ import annotations

from fedjax_rl.studies.afedpg import control, exact, heterogeneity, methods, speedup, steps
from fedjax_rl.studies.declared import Study
from fedjax_rl.studies.study import scales

SCALES = scales(
    trials=(4, 30, 200),  # of the sampled experiments on tables
    harm=(None, 30, 600),  # of those on what looking ahead harms
    steps=(600, 3000, 3000),  # of the experiments on looking ahead; half of those on rates
    sampled=(None, 10, 30),  # trials of those that take longest
    brax=(None, control.SHORT, control.PAPER),
)

STUDY = Study(
    "afedpg",
    "Lan, Han, Hashemi, Aggarwal, Brinton, Asynchronous Federated Reinforcement Learning with "
    "Policy Gradient Updates, arXiv 2404.08003",
    (
        exact.lookahead,
        exact.clock,
        speedup.speedup,
        heterogeneity.heterogeneity,
        methods.methods,
        steps.ablation,
        steps.rates,
        *control.FIGURES,
    ),
    SCALES,
    note="""The figure-level numbers of the paper are not available. Bands of rows B7 and B8 are 15
    to 40 % around what a prototype measured, of ten trials where they are sampled; those of a claim
    are what its sentence means. M3 is one MDP with five states and three actions. Times are
    simulated. Agents on their own never communicate; they are the run with N = 1.""",
    found="""with always busy agents the exponent of the time to a target in N is {claim 1}
    ({claim 1!}), and the time of a message against that of waiting for everybody is the
    harmonic mean of the times over their largest ({time ratio!}). Looking ahead removes the age
    of the momentum exactly, the delay of the agents remains ({A9!}). That AFedPG is faster than
    waiting for everybody: {claim 2!}; than a plain asynchronous gradient: {claim 3!}; that
    looking ahead helps: {claim 4!} where gradients are good, {claim 4 coarse!} at coarse
    targets. Gap and gradient fall in the steps at least as fast as the bounds: {claim 5!},
    {claim 5b!}.""",
)
