"""What the study `fast-fedpg` is judged by, and how each number is measured here.

The paper has theorems and no figures. The rows A1 to A8 and B1 to B3 are those of the project's
specification, with the bands it derives from them or from a prototype; "prototype" says what that
measured. The rows "claim ..." are sentences of the paper with the band that they mean. A function
below returns, for the targets of one figure, `{id: (measured, low, high)}`.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from fedjax_rl import analysis
from fedjax_rl.analysis import Target
from fedjax_rl.studies import fast_fedpg_data as data
from fedjax_rl.studies import stages
from fedjax_rl.studies.measures import at_least, bare, mean, seeds_apart, several, slope
from fedjax_rl.studies.policy_gradients import late

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


def measure(figure: str, runs) -> dict:
    """What the targets of a figure come to: `{id: (measured, low, high)}`."""
    return _MEASURE[figure](runs)


def curve(runs: xr.Dataset, label: str, name: str = "gap") -> np.ndarray:
    """The only trial of a variant, [T]."""
    return stages.line(runs, label, name)[0]


def linear_part(gaps: np.ndarray) -> slice:
    """Rounds, from 0, whose gaps are past the start and above rounding."""
    return slice(9, int(np.argmax(gaps < 1e-12)))


def _estimators(runs) -> dict:
    own, errors = runs.average, runs.estimators
    relative = own["relative"].values
    right = errors["error"].values[errors["right"].values]
    return {
        "A1": bare(own["largest"].values[0]),
        "A1b": several(*map(bare, (*relative[1:], relative[2] / relative[1]))),
        "A8": bare(right.max()),
    }


def _exact(runs) -> dict:
    own = runs.exact
    fast = curve(own, "Fast-FedPG H=10")
    rounds = np.arange(1, len(fast) + 1)
    reached = [int(np.argmax(curve(own, f"Fast-FedPG H={h}") < REACHED)) + 1 for h in (10, 20, 40)]
    part = linear_part(fast)
    fit = analysis.ols(np.log(fast[part]), rounds=rounds[part])
    return {
        "A2": several(bare(fast[49]), bare(fast[99]), bare(abs(fast[199]))),
        "A3": several(
            bare(curve(own, "FedPG H=10")[-1]),
            bare(curve(own, "FedPG H=10", "gradient_norm")[-1]),
        ),
        "A6": bare(curve(own, "Fast-FedPG kernels", "gradient_norm")[-1]),
        "A7": several(*map(bare, (*reached, curve(own, "Fast-FedPG H=80")[-1]))),
        "claim 1": bare(fit.r_squared),
    }


def reach(own: xr.Dataset) -> np.ndarray:
    """How far local steps reach, eta (H - 1), [steps, rate]."""
    return (own["steps"].values[:, None] - 1) * own["rate"].values


def small(own: xr.Dataset) -> np.ndarray:
    """Where steps are small enough for the first order, bool [steps, rate]."""
    return own["steps"].values[:, None] * own["rate"].values <= SMALL_STEPS


def _bias(runs) -> dict:
    own, formula = runs.bias, runs.formula
    where, found = small(own), []
    for name in ("gradient_norm", "gap"):
        fit = analysis.loglog(reach(own)[where], own[name].values[where])
        found.append((fit["slope"], *fit.interval("slope")))
    for name in ("gradient_norm", "gap"):
        fit = analysis.loglog(own["spread"].values, own[f"{name}_by_spread"].values)
        found.append((fit["slope"], *fit.interval("slope")))
    measured, predicted = formula["measured"].values, formula["predicted"].values
    norms = np.linalg.norm(measured), np.linalg.norm(predicted)
    cosine = measured @ predicted / np.prod(norms)
    return {"A4": several(*found), "A5": several(bare(norms[0] / norms[1]), bare(cosine))}


def by_agents(runs: xr.Dataset, name: str, agents) -> dict[int, np.ndarray]:
    """Late gaps of a method by the number of agents, [L] each."""
    return {n: late(runs, f"{name} N={n}") for n in agents}


def _speedup(runs) -> dict:
    own = by_agents(runs.speedup, "Fast-FedPG", data.AGENTS)
    return {"B1": slope(own), "B1 gaps": several(*map(mean, own.values()))}


def _floor(runs) -> dict:
    few, many = "Fast-FedPG, 4 for the memory", "Fast-FedPG, 80 for the memory"
    ends = [late(runs.floor, f"{name} N=32") for name in (few, many)]
    return {
        "B2": several(*(slope(by_agents(runs.floor, n, data.FEW)) for n in ("FedPG", many))),
        "B2 memory": seeds_apart(lambda a, b: a / b, *ends),
    }


def efforts(own: xr.Dataset) -> np.ndarray:
    """NHT, [agents, rounds]."""
    return own["agents"].values[:, None] * 5 * own["rounds"].values


def _samples(runs) -> dict:
    own, effort = runs.samples, efforts(runs.samples).ravel()

    def power(x, name):
        table = own[name].values.reshape(-1, own.sizes["seed"]).T
        return slope(dict(zip(x, table.T, strict=True)))

    return {
        "B3": power(effort / np.log(effort), "gap"),
        "claim 2": power(effort, "stationary"),
    }


def _truncation(runs) -> dict:
    found = []
    for name, power in (("gradient_norm", 1), ("gap", 2)):
        lengths = np.asarray(data.LENGTHS)
        ends = np.array([curve(runs.truncation, f"{k}", name)[-1] for k in lengths])
        fit = analysis.ols(np.log(ends), length=lengths)
        found.append(bare(np.exp(fit["length"]) / GAMMA**power))
    return {"claim 3": several(*found)}


def _control(runs: xr.Dataset, size, rate: float, whole: bool) -> tuple:
    part = 1.0 if whole else 0.2
    most = max(size.local_steps)
    ends = (
        late(runs, f"{name} H={most} {rate:g}", "return", part) for name in ("Fast-FedPG", "FedPG")
    )
    return at_least(*ends)


def _cartpole(runs) -> dict:
    rate = max(data.CARTPOLE_RATES)
    return {"claim 4": _control(runs.cartpole, runs.scale.cartpole, rate, whole=True)}


def _cheetah(runs) -> dict:
    rate = data.CHEETAH_RATE
    return {"claim 5": _control(runs.cheetah, runs.scale.cheetah, rate, whole=False)}


_MEASURE = {
    "estimators": _estimators,
    "exact": _exact,
    "bias": _bias,
    "speedup": _speedup,
    "floor": _floor,
    "samples": _samples,
    "truncation": _truncation,
    "cartpole": _cartpole,
    "cheetah": _cheetah,
}
