"""Study `communication-efficient`: the figures of Gunn (2023), and what explains them."""

from __future__ import annotations

from fedjax_rl.studies.communication_efficient import (
    ant,
    cartpole,
    gradients,
    grids,
    many,
    others,
    settings,
    theory,
    variants,
)
from fedjax_rl.studies.declared import Study
from fedjax_rl.studies.study import scales

# Smoke is within a minute, most of it compilation: what it leaves out is not run there.
SCALES = scales(
    episodes=(40, 1000, 1000),  # of the grids
    grid_trials=(2, 40, 100),  # of Figs 3.4 and 3.5
    windy_trials=(None, 10, 20),  # of Fig. 4.2
    more_grid_trials=(None, 10, 20),  # of Fig. 4.3, other grids, and learning against bytes
    cartpole_episodes=(20, 200, 200),
    trials=(2, 30, 60),  # of Fig. 4.5
    setting_trials=(None, 20, 60),  # of Figs 4.8 and 4.10, and of the offset
    setting_a_trials=(None, 60, 200),  # where methods differ by less than trials do
    more_trials=(None, 30, 60),  # of controls and variants on CartPole
    others_trials=(None, 10, 30),  # of the algorithms in figures of their own
    td_steps=(400, 40000, 40000),
    ant_trials=(None, None, 6),  # the thesis has 3, 6 and 5
    samples=(2000, 4000, 8000),  # episodes of the model of signal to noise, per point
)

STUDY = Study(
    "communication-efficient",
    "Gunn, Communication Efficient Distributed Reinforcement Learning (2023)",
    (
        grids.fig3_4,
        grids.fig3_5,
        theory.fig4_1,
        many.fig4_2,
        many.fig4_3,
        cartpole.fig4_5,
        ant.fig4_6,
        theory.fig4_7,
        cartpole.fig4_8,
        ant.fig4_9,
        cartpole.fig4_10,
        ant.fig4_11,
        theory.snr,
        settings.settings,
        variants.offset,
        variants.outlook,
        many.unsuitable,
        variants.pareto,
        gradients.reinforce,
        gradients.lapg,
        others.ef_td,
        others.novelty,
        others.iw_es,
    ),
    SCALES,
    note="""The thesis publishes curves and few numbers: a band is what its sentence means, a
    reference what a prototype of the algorithms measured. It leaves open much that decides a
    figure: ties, first parameters, how actions are chosen, thresholds and rates. Ours are said
    beside each figure; those of the author's public code are rows where they differ. Rows without
    anything published are our own.""",
    found="""with equally many agents ESPC learns more than ES on CartPole from fewer messages,
    {C26/2} against {C26/1} ({C26 order!}); with the mean taken off the returns ES reaches
    {C29/0}, more than ESPC ({C29 order!}), and learns the grids better ({claim 4 mean!}). That
    it is unsuitable for these, as the thesis has it: {claim 4!} with the mean taken off, {claim
    4 raw!} without. Its order of methods on Frozen Lake: {claim 2!} with random ties, {claim 2
    ties!} with the first index.""",
)
