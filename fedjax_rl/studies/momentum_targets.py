"""What the study `momentum` is judged by.

The rows A11 to A13, B4 to B6, B9, T3, T6 and T7 are those of the project's specification, with its
bands or, where it has none, around its numbers; those of the paper's figures are not published.
The rows "claim ..." are sentences of the paper (arXiv 2405.19499), with the band that they mean;
some of them do not hold.
"""

from __future__ import annotations

from fedjax_rl.analysis import Target
from fedjax_rl.studies import momentum_data as data
from fedjax_rl.studies.momentum_data import label

START = 0.359148  # J* - J of M2 before anything is learned
GAPS = (1.1e-3, 2.9e-4, 7.3e-5, 3.0e-6, 3.0e-8)  # of A11, at `data.ETAS`
LAW = {beta: beta / (2 - beta) for beta in data.ERROR_BETAS}
FAR = (8, 16, 32)  # agents within the limit of stability
SPEEDUP = {
    ("SV", 0.3): (0.129, 0.043, 0.023),
    ("HA", 0.3): (0.113, 0.048, 0.025),
    ("SV", 1.0): (0.108, 0.044, 0.023),
}
# Gap, squared gradient norm, error of the estimator, at lambda = 0.5.
TUNED = {
    "plain": (1.30e-2, 2.5e-3, 9.3e-2),
    "SV": (1.11e-2, 1.8e-3, 5.5e-3),
    "HA": (1.28e-2, 1.9e-3, 5.5e-3),
}
# The largest lambda at which no run may be lost.
STABLE = {"plain": 4.0, "SV clip": 2.0, "HA": 1.0}
# Return at rounds 10, 20 and 60.
ROUNDS = (10, 20, 60)
POLES = {
    label("plain", **{"lambda": 0.003}): (66.8, 95.0, 99.6),
    label("SV", **{"lambda": 0.003}): (69.8, 94.8, 99.3),
    label("SV clip", **{"lambda": 0.003}): (95.5, 99.8, 99.9),
    label("HA", beta=0.5, **{"lambda": 0.003}): (67.3, 95.3, 99.5),
    label("plain", **{"lambda": 0.01}): (98.4, 99.6, 99.9),
    label("SV clip", **{"lambda": 0.01}): (99.9, 100.0, 100.0),
    label("Fast-FedPG", eta=0.001): (97.6, 99.6, 100.0),
}
# Room around them, of means of three trials: where learning is fast, trials are far apart.
ROOM = (30, 10, 2)
POSITIVE = (0.0, None)
SURELY = "lower ends of the 95 % intervals"
EARLY = 10  # rounds until returns are compared, where nobody is done
FIRST = 20  # rounds over which they are averaged


def around(values, part: float) -> tuple:
    """Bands of values plus or minus a part of each."""
    return tuple((value * (1 - part), value * (1 + part)) for value in values)


def _joined(table) -> tuple:
    return tuple(value for row in table.values() for value in row)


TARGETS = (
    Target(
        "A11",
        "bias",
        "FedSVRPG-M, exact: largest deviation of the gap from its mean over beta 0.01 to 1; "
        "exponent of the gradient norm in eta",
        (0, 1),
        ((0, 0.15), (0.95, 1.05)),
        kind="exact",
    ),
    Target("A11b", "bias", "gap at eta 0.2 to 0.001", GAPS, around(GAPS, 0.05), kind="exact"),
    Target(
        "A12",
        "bias",
        "largest difference of the momentum and what the model moved by",
        0,
        (0, 1e-12),
        kind="exact",
    ),
    Target(
        "A13",
        "bias",
        "beta = H = 1: largest difference of the parameters of FedPG, Fast-FedPG, FedSVRPG-M and "
        "FedHAPG-M",
        0,
        (0, 1e-12),
        kind="exact",
    ),
    Target(
        "claim 1",
        "bias",
        "exact convergence with different environments: gradient norm at a fixed eta = 0.1, H = 10",
        0,
        (0, 1e-6),
        kind="exact",
    ),
    Target(
        "claim 1b",
        "bias",
        "gradient norm at eta = 0.001 in parts of that at 0.1: FedSVRPG-M, averaging of parameters",
        "0 at no cost in rounds; averaging slows down",
        ((0, 0.02), (1, None)),
        kind="exact",
    ),
    Target(
        "B4",
        "estimator-error",
        "error in parts of that of beta = 1 over beta / (2 - beta), beta = 0.5, 0.2, 0.1; "
        "exponents in N and in H",
        (1, 1, 1, -1, -1),
        (*((0.8, 1.2),) * 3, (-1.1, -0.85), (-1.1, -0.85)),
    ),
    Target(
        "B5",
        "speedup",
        "late gap at N = 8, 16, 32: FedSVRPG-M, FedHAPG-M, without momentum",
        None,
        around(_joined(SPEEDUP), 0.25),
    ),
    Target(
        "claim 2",
        "speedup",
        "linear speedup: exponent of the gap in N, N = 8, 16, 32: FedSVRPG-M, FedHAPG-M",
        (-1, -1),
        ((None, -0.85), (None, -0.85)),
    ),
    Target(
        "B6",
        "tuned",
        "lambda = 0.5: gap, squared gradient norm, error of the estimator: beta = 1, FedSVRPG-M "
        "0.1, FedHAPG-M 0.1",
        None,
        around(_joined(TUNED), 0.3),
    ),
    Target(
        "B6b",
        "tuned",
        "share of runs lost up to lambda = 4 without momentum, 2 (FedSVRPG-M, w <= 1.5), 1 "
        "(FedHAPG-M)",
        (0, 0, 0),
        ((0, 0), (0, 0), (0, 0)),
    ),
    Target(
        "claim 3",
        "tuned",
        "beta = 1 less beta = 0.1 of FedSVRPG-M, lambda = 0.5: gap, squared gradient norm, error, "
        f"{SURELY}",
        "positive",
        (POSITIVE, POSITIVE, POSITIVE),
        kind="ordering",
    ),
    Target(
        "claim 3b",
        "tuned",
        f"gap of beta = 1 less that of FedSVRPG-M, of FedHAPG-M, each at its best lambda, {SURELY}",
        "positive",
        (POSITIVE, POSITIVE),
        kind="ordering",
    ),
    Target(
        "T6",
        "clipping",
        "norm of u at round 10 with weights of at most 1.2, in parts of that without",
        None,
        (1.5, 3.5),
    ),
    Target(
        "claim 4",
        "clipping",
        f"return at round {EARLY}, beta = 0.2 and w <= 1.2, less that of beta = 1: at equal "
        "lambda, at equal steps",
        "positive",
        (POSITIVE, POSITIVE),
        kind="ordering",
    ),
    Target(
        "claim 5",
        "kernels",
        "kappa = 1, gap at the end in parts of that at half the rounds: FedSVRPG-M, FedHAPG-M, "
        "PAvg, QAvg, FedPG",
        "a plateau of averaging only",
        ((None, 0.8), (None, 0.8), (0.95, None), (0.95, None), (0.95, None)),
        kind="exact",
    ),
    Target(
        "claim 3c",
        "hyperparameters",
        f"mean return of {FIRST} rounds, beta = 0.2 less beta = 1, equal lambda, no clip: "
        f"FedSVRPG-M, FedHAPG-M, {SURELY}",
        "positive",
        (POSITIVE, POSITIVE),
        kind="ordering",
    ),
    Target(
        "claim 6",
        "hyperparameters",
        f"mean return of {FIRST} rounds, N = 10 less N = 1, {SURELY}",
        "positive",
        POSITIVE,
        kind="ordering",
    ),
    Target(
        "claim 7",
        "hyperparameters",
        f"mean return of {FIRST} rounds, H = 20 less H = 1 at one lambda, {SURELY}",
        "positive",
        POSITIVE,
        kind="ordering",
    ),
    Target(
        "B9",
        "cartpole",
        "return at rounds 10, 20, 60: beta = 1, FedSVRPG-M, with w <= 1.2, FedHAPG-M 0.5, all at "
        "lambda = 0.003; beta = 1, FedSVRPG-M with w <= 1.2 at 0.01; Fast-FedPG at eta = 0.001",
        None,
        tuple(
            (value - room, value + room)
            for row in POLES.values()
            for value, room in zip(row, (ROOM if row[0] < 97 else (5, 2, 2)), strict=True)
        ),
    ),
    Target(
        "B9b",
        "cartpole",
        "return at round 60, lambda = 0.01: FedSVRPG-M without clip, FedHAPG-M of beta = 0.2, of "
        "0.5",
        None,
        ((None, 75), (None, 30), (90, None)),
    ),
    Target(
        "T3",
        "authors",
        "error of the estimator with the anchor of today in parts of that of the round before, "
        "lambda = 1",
        None,
        (1.0, None),
    ),
    Target(
        "T7",
        "authors",
        "authors' code, return at the end, beta = 0.2 less beta = 1, eta = 0.05: FedSVRPG-M, "
        "FedHAPG-M",
        "0 (their logs)",
        ((-5, 5), (-5, 5)),
    ),
    Target(
        "claim 8",
        "halfcheetah",
        f"return of the last quarter less that of FedPG: FedSVRPG-M, FedHAPG-M, {SURELY}",
        "positive",
        (POSITIVE, POSITIVE),
        kind="ordering",
    ),
)
FIGURE_OF = {target.id: target.figure for target in TARGETS}
