"""Published values of the study `linear-speedup`.

The identifiers T1 to T25 and the bands are those of the project's specification of the paper.
"""

from __future__ import annotations

import numpy as np

from fedjax_rl.analysis import Target

# The slope of log(1 + log2 N) on log N for N = 1, 2, 4, 8, 16: what the cost model adds at K = 1.
_N = np.log10([1, 2, 4, 8, 16])
SHIFT = float(np.polyfit(_N, np.log10(1 + np.log2([1, 2, 4, 8, 16])), 1)[0])

_SHIFTS = (SHIFT, 0.1212, 0.0141, 0.0014, 0.0001)
WINDOWS = (50, 100, 300, 1000)

TARGETS = (
    Target(
        "T1", "Fig 1", "D_0^2 = |q*|^2", 13.7314, (13.731440580207, 13.731440582207), kind="exact"
    ),
    Target(
        "T2",
        "Fig 1",
        "reward of the optimal policy in 10001 steps: mean of 100, one regenerated",
        (3913, 3913.4325675884),
        ((3897.7, 3933.7), (3913.4325665884, 3913.4325685884)),
    ),
    Target(
        "T3",
        "Fig 1",
        "reward of the uniform policy in 10001 steps: mean of 100",
        1275,
        (1188, 1232),
    ),
    Target("T4", "Fig 3a", "log10 D^2, alpha=.005, N=1", -1.8, (-1.95, -1.65)),
    Target("T5", "Fig 3b", "log10 D^2, alpha=.005, N=16, K=1", -2.9, (-3.20, -2.75)),
    Target(
        "T6",
        "Fig 3c",
        "log10 D^2, alpha=.005, N=16, K=10^4: one local table, server average",
        (-1.8, None),
        ((-1.97, -1.60), (-3.25, -2.75)),
    ),
    Target("T7", "Fig 3d", "log10 D^2, alpha=.08, N=16, K=1", -1.7, (-1.87, -1.67)),
    Target(
        "T8",
        "Fig 3",
        "log10 of the steps to twice the steady state, alpha=.005: N=1, N=16",
        (4.5, 4.5),
        ((4.2, 4.6), (4.2, 4.6)),
    ),
    Target(
        "T9",
        "Fig 3",
        "T(0.1) alpha of the server average: epsilon 1, epsilon 0",
        None,
        ((72.4, 80.4), (78, 90)),
    ),
    Target("T10", "Fig 4", "slope of log D^2 on log(alpha/N)", 0.997, (0.97, 1.04)),
    Target(
        "T11",
        "Fig 4",
        "slopes of log D^2 on log alpha and log N",
        (0.994, -1.012),
        ((0.97, 1.04), (-1.11, -0.98)),
    ),
    Target(
        "T12",
        "Fig 4",
        "D^2 N / alpha for .005 <= alpha <= .02, K=1: least and largest cell",
        None,
        ((2.7, 3.8), (2.7, 3.8)),
    ),
    Target(
        "T13",
        "Fig 5a",
        "EQ 2 with a free nuisance: K, alpha, nuisance, R^2",
        (0.2075, 1.378, -1466, 0.963),
        ((0.175, 0.235), (1.33, 1.42), (-1800, -1150), (0.95, None)),
    ),
    Target(
        "T14",
        "Fig 5a",
        "EQ 2 as printed (nuisance 1): K, alpha",
        (None, None),
        ((0.335, 0.41), (1.44, 1.53)),
    ),
    Target(
        "T15",
        "Fig 5b",
        "K-slope in the windows up to 50, 100, 300, 1000",
        (1.24, 0.68, 0.10, 0.07),
        ((0.6, 1.4), (0.5, 0.9), (0, 0.25), (0, 0.15)),
    ),
    Target(
        "T16",
        "Fig 5b",
        "alpha-slope in the windows up to 50 and 1000; least R^2",
        (1.96, 1.41, 0.9),
        ((1.35, 2.2), (1.35, 1.50), (0.90, None)),
    ),
    Target(
        "T17",
        "Fig 5",
        "R^2 of the drift-saturation law, and what it gains on the power law",
        None,
        ((0.985, None), (0.015, None)),
        kind="ordering",
    ),
    Target(
        "T18",
        "Fig 6a",
        "log T on log N at alpha=.002: slope, intercept",
        (0.0, 4.604),
        ((-0.04, 0.04), (4.575, 4.635)),
    ),
    Target("T19", "Fig 6c", "slope, errors every 1010 steps", -0.944, (-0.965, -0.905)),
    Target("T20", "Fig 6c", "slope, errors every 5 steps", None, (-1.03, -0.965)),
    Target("T21", "Fig 6d", "slope at K=10^4, one local table", -0.855, (-0.96, -0.69)),
    Target(
        "T22",
        "Fig 6d",
        "slope at K=10^4, server average every 5 steps: epsilon 1, epsilon 0",
        None,
        ((-1.04, -0.92), (-1.04, -0.92)),
    ),
    Target(
        "T23",
        "Fig 7",
        "what the cost model adds to the slope at K=1, 10, 100, 1000, 10^4",
        (0.5644, None, None, None, None),
        ((SHIFT - 1e-9, SHIFT + 1e-9), *((s - 0.002, s + 0.002) for s in _SHIFTS[1:])),
        kind="exact",
    ),
    Target(
        "T24",
        "Fig 7",
        "slope with communication at K=1, 1000, 10^4",
        (-0.38, -0.96, -0.86),
        ((-0.41, -0.33), (-0.99, -0.87), (-0.96, -0.69)),
    ),
    Target(
        "T25",
        "Fig 4, 6c",
        "24 random MDPs: least and largest Fig 4 slope, median Fig 6c slope",
        None,
        ((0.90, 1.12), (0.90, 1.12), (-1.02, -0.98)),
    ),
)
