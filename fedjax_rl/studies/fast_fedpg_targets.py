"""What the study `fast-fedpg` is judged by.

The paper has theorems and no figures. The rows A1 to A8 and B1 to B3 are those of the project's
specification, with the bands it derives from them or from a prototype; "prototype" says what that
measured. The rows "claim ..." are sentences of the paper with the band that they mean.
"""

from __future__ import annotations

from fedjax_rl.analysis import Target

GAMMA = 0.8  # of M1
SMALL_STEPS = 2.0  # eta H up to which the first order describes the bias
REACHED = 1e-9

_FIGURES = {
    "estimators": (
        Target(
            "A1",
            "average",
            "mean gradient - gradient of the mean MDP, one kernel: largest entry",
            "equal",
            (None, 1e-12),
            kind="exact",
            prototype="9.4e-16",
        ),
        Target(
            "A1b",
            "average",
            "the same relative to its norm, kernels differ by 0.01, 0.1, 0.3, 1; ratio of the "
            "first two",
            "not equal",
            ((1e-4, None), (1e-3, None), (1e-3, None), (1e-3, None), (8, 12)),
            kind="exact",
            prototype="1.3e-3, 1.3e-2, 3.8e-2, 1.3e-1",
        ),
        Target(
            "A8",
            "estimators",
            "expected error of gradients, weights, Hessian-vector products by enumeration: largest",
            0,
            (None, 1e-12),
            kind="exact",
            prototype="1e-16 to 3e-16",
        ),
    ),
    "exact": (
        Target(
            "A2",
            "exact",
            "Fast-FedPG, eta 0.5, H 10: gap at rounds 50, 100; |gap| at 200",
            "linear, no bias",
            ((2.5e-6, 3.5e-6), (4e-9, 6e-9), (None, 1e-13)),
            kind="exact",
            prototype="3e-6, 4.8e-9, 1.2e-14",
        ),
        Target(
            "A3",
            "exact",
            "FedPG, the same: gap and gradient norm at round 200",
            "biased",
            ((1e-3, None), (1e-2, None)),
            kind="exact",
            prototype="3.25e-3, 2.63e-2",
        ),
        Target(
            "A6",
            "exact",
            "kernels differ by 0.7, Fast-FedPG: gradient norm at round 200",
            0,
            (None, 1e-12),
            kind="exact",
            prototype="9.8e-16",
        ),
        Target(
            "A7",
            "exact",
            "rounds to a gap of 1e-9 with H 10, 20, 40; gap with H 80 after 200",
            "inverse in H",
            ((107, 119), (53, 59), (26, 30), (1e-3, None)),
            kind="exact",
            prototype="113, 56, 28, fails",
        ),
        Target(
            "claim 1",
            "exact",
            "R^2 of log gap against rounds, Fast-FedPG H 10, from round 10 to a gap of 1e-12",
            "linear rate",
            (0.999, None),
            kind="exact",
        ),
    ),
    "bias": (
        Target(
            "A4",
            "bias",
            "exponents of FedPG's bias: gradient norm in eta (H-1), gap in it, both in the spread "
            "of rewards",
            None,
            ((0.9, 1.05), (1.8, 2.1), (1.9, 2.1), (3.7, 4.2)),
            kind="exact",
            prototype="0.97, 1.93, 2.00, 3.99",
        ),
        Target(
            "A5",
            "bias",
            "predicted bias, eta 0.01, H 10: measured norm over predicted, cosine",
            None,
            ((0.97, 1.03), (0.999, None)),
            kind="exact",
            prototype="0.99, 1.00000",
        ),
    ),
    "speedup": (
        Target(
            "B1",
            "speedup",
            "exponent of the late gap in N, N 2 to 32",
            -1,
            (-1.1, -0.8),
            prototype="-0.93",
        ),
        Target(
            "B1 gaps",
            "speedup",
            "late gap, N 2, 4, 8, 16, 32",
            None,
            tuple((0.65 * x, 1.35 * x) for x in (0.365, 0.202, 0.0989, 0.0519, 0.0275)),
            prototype="0.365, 0.202, 0.0989, 0.0519, 0.0275",
        ),
    ),
    "floor": (
        Target(
            "B2",
            "floor",
            "exponent of the late gap in N: FedPG, Fast-FedPG with 80 episodes for the memory",
            "no floor",
            ((-0.15, 0.05), (-1.1, -0.75)),
            prototype="-0.05, -0.92",
        ),
        Target(
            "B2 memory",
            "floor",
            "late gap of Fast-FedPG at N 32 with 4 episodes for the memory over that with 80",
            None,
            (1.7, 4.5),
            prototype="2.7",
        ),
    ),
    "samples": (
        Target(
            "B3",
            "samples",
            "exponent of the last gap in NHT / log NHT",
            -1,
            (-1.25, -0.85),
            prototype="-1.06",
        ),
        Target(
            "claim 2",
            "samples",
            "no domination: exponent in NHT of the mean squared gradient norm",
            -0.5,
            (None, -0.4),
        ),
    ),
    "truncation": (
        Target(
            "claim 3",
            "truncation",
            "episodes cut at K: decay per step of the gradient's norm over gamma, of the gap over "
            "gamma^2",
            1,
            ((0.95, 1.05), (0.95, 1.05)),
            kind="exact",
        ),
    ),
    "cartpole": (
        Target(
            "claim 4",
            "cartpole",
            "CartPole, most local steps, largest rate: mean return of Fast-FedPG - that of FedPG, "
            "lower end of the 95 % interval",
            "the correction helps",
            (0, None),
            kind="ordering",
        ),
    ),
    "cheetah": (
        Target(
            "claim 5",
            "cheetah",
            "HalfCheetah, speeds of their own, most local steps: late return of Fast-FedPG - that "
            "of FedPG, lower end of the 95 % interval",
            "the correction helps",
            (0, None),
            kind="ordering",
        ),
    ),
}
TARGETS = tuple(target for rows in _FIGURES.values() for target in rows)
FIGURE_OF = {target.id: figure for figure, rows in _FIGURES.items() for target in rows}
