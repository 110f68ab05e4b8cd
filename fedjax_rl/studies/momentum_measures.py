"""How each number of the study `momentum` is measured: `{id: (measured, low, high)}`."""

from __future__ import annotations

import numpy as np
import xarray as xr

from fedjax_rl.studies import momentum_data as data
from fedjax_rl.studies.intervals import (
    at_least,
    bare,
    difference,
    exponent,
    mean,
    seeds_apart,
    several,
    slope,
)
from fedjax_rl.studies.momentum_data import label
from fedjax_rl.studies.momentum_targets import (
    EARLY,
    FAR,
    FIRST,
    LAW,
    POLES,
    ROUNDS,
    SPEEDUP,
    STABLE,
    START,
    TUNED,
)
from fedjax_rl.studies.policy_gradients import ends, late
from fedjax_rl.studies.variant_runs import line


def measure(figure: str, runs) -> dict:
    """What the runs of a figure decide; only identities where they are too short."""
    if runs.scale.whole:
        return MEASURE[figure](runs)
    return _same(runs) if figure == "bias" else {}


def _end(runs: xr.Dataset, name: str, metric: str = "gap") -> float:
    return float(ends(runs, name, metric)[0])


def _same(runs) -> dict:
    own = runs.identities
    numbers = dict(zip(own["name"].values.tolist(), own["value"].values, strict=True))
    return {
        row: bare(max(value for name, value in numbers.items() if name.startswith(row)))
        for row in ("A12", "A13")
    }


def _bias(runs) -> dict:
    own = runs.exact
    gaps = np.array([_end(own, label("SV", beta=b)) for b in data.BETAS])
    norms = [_end(own, label("SV", eta=e), "gradient_norm") for e in data.ETAS]
    slow = [_end(own, label("PA", eta=e), "gradient_norm") for e in (0.001, 0.1)]
    return {
        **_same(runs),
        "A11": several(
            bare(np.max(np.abs(gaps / gaps.mean() - 1))), bare(exponent(data.ETAS, norms))
        ),
        "A11b": several(*(bare(_end(own, label("SV", eta=e))) for e in data.ETAS)),
        "claim 1": bare(norms[data.ETAS.index(0.1)]),
        "claim 1b": several(bare(norms[-1] / norms[data.ETAS.index(0.1)]), bare(slow[0] / slow[1])),
    }


def errors(runs: xr.Dataset, name: str) -> np.ndarray:
    """Mean error of the estimator over the last half, [L]."""
    return late(runs, name, "estimator_error")


def to_law(runs: xr.Dataset, method: str, beta: float) -> tuple:
    """The error in parts of that of beta = 1, with its interval."""
    pair = [errors(runs, label(method, beta=b)) for b in (beta, 1.0)]
    return seeds_apart(lambda a, b: float(a / b), *pair)


def _error(runs) -> dict:
    own = runs.error
    ratios = [to_law(own, "SV", beta) for beta in (0.5, 0.2, 0.1)]
    laws = [LAW[beta] for beta in (0.5, 0.2, 0.1)]
    parts = [
        tuple(None if x is None else x / law for x in found)
        for found, law in zip(ratios, laws, strict=True)
    ]
    agents = slope({n: errors(own, label("SV", N=n)) for n in data.AGENTS})
    steps = slope({h: errors(own, label("SV", H=h)) for h in data.STEPS})
    return {"B4": several(*parts, agents, steps)}


def speedup_of(runs: xr.Dataset, method: str, beta: float, agents=FAR) -> dict[int, np.ndarray]:
    """Late gaps of the trials by number of agents."""
    return {n: late(runs, label(method, beta=beta, N=n)) for n in agents}


def _speedup(runs) -> dict:
    lines = {key: speedup_of(runs.speedup, *key) for key in SPEEDUP}
    momentum = [slope(lines[key]) for key in (("SV", 0.3), ("HA", 0.3))]
    return {
        "B5": several(*(mean(own) for points in lines.values() for own in points.values())),
        "claim 2": several(*momentum),
    }


def lost(runs: xr.Dataset, name: str) -> np.ndarray:
    """Which trials ended worse than they began, or were not finite, bool [L]."""
    return ~(late(runs, name, part=0.1) < START)


QUARTER = 0.25


def tuned_of(runs: xr.Dataset, method: str, step: float) -> list[np.ndarray]:
    """Gap, squared gradient norm, error of the estimator in the last quarter, [L] each."""
    name = label(method, **{"lambda": step})
    squared = line(runs, name, "gradient_norm") ** 2
    count = max(1, round(QUARTER * squared.shape[1]))
    return [
        late(runs, name, part=QUARTER),
        squared[:, -count:].mean(axis=1),
        late(runs, name, "estimator_error", QUARTER),
    ]


def _tuned(runs) -> dict:
    own = runs.tuned
    found = {name: tuned_of(own, name, 0.5) for name in TUNED}
    best = {
        name: min((tuned_of(own, name, x)[0] for x in data.LAMBDAS), key=np.mean) for name in TUNED
    }
    shares = [
        np.mean([lost(own, label(name, **{"lambda": x})) for x in data.LAMBDAS if x <= most])
        for name, most in STABLE.items()
    ]
    return {
        "B6": several(*(mean(values) for row in found.values() for values in row)),
        "B6b": several(*map(bare, shares)),
        "claim 3": several(*map(at_least, found["plain"], found["SV"])),
        "claim 3b": several(*(at_least(best["plain"], best[n]) for n in ("SV", "HA"))),
    }


def at(runs: xr.Dataset, name: str, number: int, metric: str = "return") -> np.ndarray:
    """A metric after some rounds, [L]: the mean with the rounds before and after it, if any."""
    values = line(runs, name, metric)
    return values[:, number - 2 : number + 1].mean(axis=1)


def path(runs: xr.Dataset, name: str, step: float, number: int = EARLY) -> np.ndarray:
    """Lengths of the server's first moves added up, [L]."""
    return step * line(runs, name, "direction_norm")[:, :number].sum(axis=1)


def _stepped(method: str, step: float) -> str:
    return label(method, **{"lambda": step})


def _clipping(runs) -> dict:
    own, step = runs.sweeps, 0.003
    clipped, plain = _stepped("SV clip", step), _stepped("plain", step)
    norms = [at(own, name, EARLY, "direction_norm") for name in (clipped, _stepped("SV", step))]
    names = [_stepped("plain", x) for x in data.PLAIN_LAMBDAS]
    paths = np.stack(
        [path(own, n, x) for n, x in zip(names, data.PLAIN_LAMBDAS, strict=True)], axis=1
    )
    returns = np.stack([at(own, name, EARLY) for name in names], axis=1)

    def matched(length, value, lengths, values):
        return float(value - np.interp(np.log(length), np.log(lengths), values))

    apart = seeds_apart(matched, path(own, clipped, step), at(own, clipped, EARLY), paths, returns)
    return {
        "T6": seeds_apart(lambda a, b: float(a / b), *norms),
        "claim 4": several(difference(at(own, clipped, EARLY), at(own, plain, EARLY)), apart),
    }


def _kernels(runs) -> dict:
    def falling(method):
        values = line(runs.kernels, label(method, kappa=1.0), "gap")[0]
        return bare(values[-1] / values[len(values) // 2 - 1])

    methods = ("FedSVRPG-M", "FedHAPG-M", "PAvg", "QAvg", "FedPG")
    return {"claim 5": several(*map(falling, methods))}


def _hyperparameters(runs) -> dict:
    def apart(*names, own=runs.sweeps):
        return at_least(*(line(own, n, "return")[:, :FIRST].mean(axis=1) for n in names))

    step = {"lambda": 0.003}
    hessian = [label("HA", beta=b, **step) for b in (0.2, 1.0)]
    return {
        "claim 3c": several(
            apart(label("SV", beta=0.2), label("SV", beta=1.0)), apart(*hessian, own=runs.cartpole)
        ),
        "claim 6": apart(label("SV clip", N=10), label("SV clip", N=1)),
        "claim 7": apart(label("SV clip", H=20), label("SV clip", H=1)),
    }


def _cartpole(runs) -> dict:
    own, step = runs.cartpole, {"lambda": 0.01}

    def after(name, number):
        return mean(line(own, name, "return")[:, number - 1])

    names = [label("SV", **step), *(label("HA", beta=b, **step) for b in (0.2, 0.5))]
    return {
        "B9": several(*(after(name, number) for name in POLES for number in ROUNDS)),
        "B9b": several(*(after(name, ROUNDS[-1]) for name in names)),
    }


def _authors(runs) -> dict:
    step = {"lambda": 1.0}
    pair = (
        late(runs.authors, label("current", **step), "estimator_error", QUARTER),
        late(runs.tuned, label("SV", **step), "estimator_error", QUARTER),
    )
    own = runs.authors_cartpole

    def beta(method):
        return difference(
            *(late(own, label(method, beta=b, eta=0.05), "return", QUARTER) for b in (0.2, 1.0))
        )

    return {
        "T3": seeds_apart(lambda a, b: float(a / b), *pair),
        "T7": several(beta("SV"), beta("HA")),
    }


def _halfcheetah(runs) -> dict:
    own = [late(runs.halfcheetah, n, "return", QUARTER) for n in ("SV clip", "HA", "FedPG")]
    return {"claim 8": several(*(at_least(one, own[2]) for one in own[:2]))}


# Which targets a figure's runs decide.
MEASURE = {
    "bias": _bias,
    "estimator-error": _error,
    "speedup": _speedup,
    "tuned": _tuned,
    "clipping": _clipping,
    "kernels": _kernels,
    "hyperparameters": _hyperparameters,
    "cartpole": _cartpole,
    "authors": _authors,
    "halfcheetah": _halfcheetah,
}
