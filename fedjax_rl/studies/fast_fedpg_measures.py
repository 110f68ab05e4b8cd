"""How each number of the study `fast-fedpg` is measured: `{id: (measured, low, high)}`."""

from __future__ import annotations

import numpy as np
import xarray as xr

from fedjax_rl import analysis
from fedjax_rl.studies import fast_fedpg_data as data
from fedjax_rl.studies import fast_fedpg_exact as exact
from fedjax_rl.studies import variant_runs
from fedjax_rl.studies.fast_fedpg_targets import GAMMA, REACHED, SMALL_STEPS
from fedjax_rl.studies.intervals import at_least, bare, mean, seeds_apart, several, slope
from fedjax_rl.studies.policy_gradients import late


def measure(figure: str, runs) -> dict:
    """What the targets of a figure come to: `{id: (measured, low, high)}`."""
    return _MEASURE[figure](runs)


def curve(runs: xr.Dataset, label: str, name: str = "gap") -> np.ndarray:
    """The only trial of a variant, [T]."""
    return variant_runs.line(runs, label, name)[0]


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
        lengths = np.asarray(exact.LENGTHS)
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
