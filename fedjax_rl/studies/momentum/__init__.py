"""Study `momentum`: FedSVRPG-M and FedHAPG-M of Wang et al. (2024), and what holds of them."""

from __future__ import annotations

from fedjax_rl.studies.declared import Study
from fedjax_rl.studies.momentum import authors, cheetah, exact, poles, rates, tables
from fedjax_rl.studies.study import scales

SCALES = scales(
    # What smoke leaves out or does with fewer points is compiled for longer than it runs.
    identities=(False, True, True),  # whether to
    fixed=((1, 20), (1, 5, 20), (1, 5, 20)),  # local steps with eta H = 1
    error_steps=((1, 20), (1, 5, 20), (1, 5, 20)),  # local steps of the estimator's error
    exact_rounds=(600, 3000, 6000),  # with exact gradients
    kernel_rounds=(200, 1500, 4000),  # likewise, without entropy
    trials=(3, 10, 32),  # of the tables with sampled gradients
    lone_trials=(None, 10, 32),  # of agents that never hear of each other
    error_rounds=(20, 240, 400),  # of the law of the estimator's error; the last half counts
    rounds=(20, 300, 300),  # of the speedup
    lengths=((10, 40), (50, 100, 200, 400), (50, 100, 200, 400, 800)),  # of the rates, in rounds
    tuned_trials=(None, 10, 96),  # of the tuned comparison
    tuned_rounds=(None, 120, 120),
    pole_trials=(None, 10, 20),  # of CartPole
    pole_rounds=(None, 60, 60),
    sweep_rounds=(None, 20, 20),
    cheetah=(None, None, (50, 5)),  # rounds and trials of HalfCheetah
)

STUDY = Study(
    "momentum",
    "Wang, He, Zhang, Miao, Anderson, Momentum for the Win, arXiv 2405.19499 (2024)",
    (
        exact.bias,
        tables.error,
        tables.speedup,
        rates.rates,
        tables.tuned,
        poles.clipping,
        exact.kernels,
        poles.hyperparameters,
        poles.cartpole,
        authors.authors,
        cheetah.halfcheetah,
    ),
    SCALES,
    note="""The paper's figures have no published numbers: a band is what its sentence means, a
    reference what a prototype of the algorithms measured, or what their theory says.""",
    found="""the gap falls with the number of agents, with exponents of {claim 2/0} and {claim
    2/1} ({claim 2!}), and momentum makes the estimate of the gradient better as beta / (2 -
    beta) says ({B4!}). That it takes away the bias of local steps: {claim 1!} at a fixed step,
    {claim 1b equal!} against FedPG at equal steps of the server; that the model is better for
    it: {claim 3!} at one step, {claim 3b!} each at its best; that truncated weights learn faster
    for more than their longer steps: {claim 4!}.""",
)
