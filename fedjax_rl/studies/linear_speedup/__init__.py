"""Study `linear-speedup`: the figures of Einhorn (2023), with tables and with federated PPO.

Figures 1 to 7 are about tables. 8 to 13, `interference`, `coinrun`, `pixels` and `networks`, about
federated PPO on games of Procgen, are run where they are named.
"""

from __future__ import annotations

from fedjax_rl.studies.declared import Study
from fedjax_rl.studies.linear_speedup import (
    alignment,
    deep,
    errors,
    interference,
    laws,
    pixels,
    times,
)
from fedjax_rl.studies.linear_speedup.grids import GRID_B, RATES
from fedjax_rl.studies.study import scales

SCALES = scales(
    rates=((0.002, 0.005, 0.01, 0.1, 1.0), RATES, RATES),  # of Fig. 4
    trials=(3, 3, 3),  # repetitions of a cell of the grid, as the author's
    extra=(0, 13, 29),  # and more of those that Figs 3, 6 and 7 show
    whole=(False, True, True),  # whether the grid has the cells that no figure shows
    periods=(GRID_B[::7], GRID_B, GRID_B),
    period_trials=(1, 3, 12),
    seeds=(16, 32, 64),  # of our own runs on a fine grid of times
    mdps=(None, 24, 24),  # random MDPs
    mdp_trials=(None, 12, 24),
    **deep.SIZES,
    **alignment.SIZES,
    **pixels.SIZES,
)

STUDY = Study(
    "linear-speedup",
    "Einhorn, Federated Reinforcement Learning Has Linear Speedup (2023)",
    (
        *(*errors.FIGURES, *laws.FIGURES, *times.FIGURES),
        *(*deep.FIGURES, interference.interference, alignment.coinrun, *pixels.FIGURES),
    ),
    SCALES,
    presets=deep.PRESETS,
    found="""N agents at N times the rate need an N-th of the time: time falls with N to the power
    {T20} {T20!}. The paper's -0.944 (here {T19} {T19!}) and, at K = 10^4, -0.855 (here {T21}
    {T21!}) are how it was read: one local table, every 1010 steps. What averaging buys is the
    error, which agents alone make {T12 alone/1} times as large as 16 that average {T12 alone!}. The
    author's raw runs agree at K >= 100 {raw K >= 100!}; below, a race in his averaging makes his
    errors larger {raw K <= 10!}.""",
    note="""`paper` is the author's protocol: one local table, errors every 1010 steps, a stop rule
    on the errors. `clean` measures the server average, finely in time and for a fixed length
    (Fig. 5: over all agents, just before an exchange). A band is of the published protocol, so
    what fails under `clean` alone is a number of how it was measured (which table, when, and at
    which rates) rather than of learning; `vectors` and `paper-vectors`, of PPO with a small network
    by the clean and by the author's protocol, have tables as `clean` has.
    References are of an independent prototype, of theory and of the author's notebooks. Figure 2
    shows the two games and has no numbers.""",
)
