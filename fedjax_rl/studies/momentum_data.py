"""The runs behind the study `momentum`: FedSVRPG-M, FedHAPG-M, and what they are compared with.

Wang, He, Zhang, Miao and Anderson, *Momentum for the Win*, arXiv 2405.19499. The tables M1 and M2
are those of `policy_gradients`, with entropy 0.3 unless said otherwise. A label is a method and
what differs, such as "SV beta=0.1 lambda=0.5"; `label` makes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr

from fedjax_rl import algorithms, envs
from fedjax_rl.studies import variant_runs
from fedjax_rl.studies.policy_gradients import CONTROL, ENTROPY, TABLE, cartpoles, exactly, m1, m2
from fedjax_rl.studies.stage_runs import Stage
from fedjax_rl.studies.study import Meter, Scale, scales
from fedjax_rl.studies.variant_runs import Variant
from fedjax_rl.sweeps.simulate import simulate

BETAS = (0.01, 0.05, 0.2, 0.5, 1.0)
ETAS = (0.2, 0.1, 0.05, 0.01, 0.001)
# Local steps with eta H = 1.
FIXED = (1, 5, 10, 20)
ERROR_BETAS = (1.0, 0.5, 0.2, 0.1, 0.05)
AGENTS = (2, 4, 8, 16, 32)
STEPS = (1, 5, 10, 20)
LAMBDAS = (0.1, 0.2, 0.5, 1.0, 2.0, 4.0)
KAPPAS = (0.0, 0.2, 0.5, 0.8, 1.0)
ANCHORS = (0.1, 0.5, 1.0)
AUTHORS_ETAS = (0.05, 0.25, 1.0)
# The authors' rates, on CartPole.
POLE_ETAS = (0.05, 0.1)
# lambda on CartPole; without momentum more of them, to compare at equal steps.
POLE_LAMBDAS = (0.001, 0.003, 0.01)
PLAIN_LAMBDAS = (0.001, 0.003, 0.005, 0.007, 0.01)
POLE_BETAS = (0.1, 0.2, 0.5, 1.0)
HA_BETAS = (0.2, 0.5, 1.0)
POLE_AGENTS = (1, 2, 5, 10)
POLE_STEPS = (1, 5, 10, 20)
CLIP = 1.2  # of the authors
CHEETAH_STEP = 0.001  # lambda


class Cheetah(NamedTuple):
    """How much of HalfCheetah is run; by default as the authors' code has it, but for `trials`."""

    trials: int = 5
    rounds: int = 150
    max_steps: int = 500
    num_agents: int = 5
    local_steps: int = 10
    episodes: int = 20


SCALES = scales(
    exact_rounds=(600, 3000, 6000),  # with exact gradients
    kernel_rounds=(300, 1500, 4000),  # with exact gradients and without entropy
    trials=(2, 10, 32),  # of the tables with sampled gradients
    error_rounds=(40, 240, 400),  # of the law of the estimator's error; the last half counts
    rounds=(40, 300, 300),  # of the speedup
    tuned_rounds=(20, 120, 120),  # of the tuned comparison
    pole_trials=(1, 3, 10),  # of CartPole
    pole_rounds=(6, 60, 60),  # of CartPole
    sweep_rounds=(6, 20, 60),  # of the sweeps there
    whole=(False, True, True),  # whether this is long enough to be judged
    cheetah=(None, None, Cheetah()),  # None, or how much of HalfCheetah is run
)
REDUCED_CHEETAH = Cheetah(2, 20, 100, 3, 5, 4)


def label(method: str, **differs) -> str:
    """Name of a line: the method and what differs, in the order given."""
    return " ".join([method, *(f"{name}={value:g}" for name, value in differs.items())])


def _run(variants, num_steps, meter, stage, metrics=TABLE, **options) -> xr.Dataset:
    options.setdefault("record_every", max(1, num_steps // 60))
    return variant_runs.run(variants, num_steps, meter, stage, metrics=metrics, **options)


# Exact gradients ----------------------------------------------------------------------------------


def exact(scale: Scale, meter: Meter, stage: str) -> xr.Dataset:
    """The bias on M1 with kernels of their own, in double precision."""
    own = exactly(local_steps=10, learning_rate=0.1)
    one = algorithms.fedsvrpg_m(m1(1.0, 0.5), **own, momentum=0.2, server_learning_rate=1.0)
    hessian = algorithms.fedhapg_m(m1(1.0, 0.5), **own, momentum=0.2, server_learning_rate=1.0)
    plain = algorithms.fedpg(m1(1.0, 0.5), **own)
    made = [
        *((label("SV", beta=b), one, {"momentum": b}) for b in BETAS),
        *((label("SV", eta=e), one, {"learning_rate": e}) for e in ETAS),
        (label("SV anchor", beta=0.2), one, {"anchor": "current"}),
        (label("HA", beta=0.2), hessian, {}),
        *((label("PA", eta=e), plain, {"learning_rate": e}) for e in ETAS),
        *((label("SV", H=h), one, {"local_steps": h, "learning_rate": 1.0 / h}) for h in FIXED),
    ]
    variants = [Variant(name, algorithm, 8, own, 1) for name, algorithm, own in made]
    return _run(variants, scale.exact_rounds, meter, stage, double=True)


def identities(scale: Scale, meter: Meter, stage: str) -> xr.Dataset:
    """A12 and A13: what is the same to rounding, in double precision; numbers by name."""
    report = meter.stage(stage)

    def server(algorithm, rounds, seed):
        go = jax.jit(
            lambda: (
                simulate(
                    algorithm, num_agents=8, num_steps=rounds, record_every=rounds, seed=seed
                ).state.server
            )
        )
        return go()

    table, found = m1(), {}
    with jax.enable_x64(True):
        for name, make in (("SV", algorithms.fedsvrpg_m), ("HA", algorithms.fedhapg_m)):
            end = server(make(table, **exactly(), server_learning_rate=0.7), 5, 0)
            move = (end.parameters - end.previous) / 0.7
            found[f"A12 {name}"] = np.max(np.abs(move - end.direction))
        own = {"local_steps": 1, "learning_rate": 0.1, "episodes_per_step": 2, "entropy": ENTROPY}
        plain = {"momentum": 1.0, "server_learning_rate": 0.1}
        each = {
            "FedPG": algorithms.fedpg(table, **own),
            "Fast-FedPG": algorithms.fast_fedpg(table, **own, reuse_first=True),
            "SV": algorithms.fedsvrpg_m(table, **own, **plain),
            "HA": algorithms.fedhapg_m(table, **own, **plain, two_trajectories=True),
        }
        ends = {name: np.asarray(server(own, 4, 0).parameters) for name, own in each.items()}
        for name in list(each)[1:]:
            found[f"A13 {name}"] = np.max(np.abs(ends[name] - ends["FedPG"]))
        found["moved"] = np.max(np.abs(ends["FedPG"]))
    report(1, 1)
    return xr.Dataset({"value": ("name", list(found.values()))}, {"name": list(found)})


def _kernel_methods() -> dict[str, tuple[Any, dict]]:
    """Method -> what makes it, and its properties; ten local steps, eta H lambda alike."""
    own = {"gradient": "exact", "entropy": 0.0, "local_steps": 10}
    big, small = {"learning_rate": 0.5}, {"learning_rate": 0.0005, "server_learning_rate": 5.0}
    return {
        "FedPG": (algorithms.fedpg, own | big),
        "SCAFFOLD": (algorithms.scaffold_pg, own | big),
        "Fast-FedPG": (algorithms.fast_fedpg, own | big),
        "FedSVRPG-M": (algorithms.fedsvrpg_m, own | small | {"momentum": 0.2}),
        "FedHAPG-M": (algorithms.fedhapg_m, own | small | {"momentum": 0.2}),
        "QAvg": (algorithms.qavg, {"learning_rate": 0.5, "local_steps": 10}),
        "PAvg": (algorithms.pavg, {"learning_rate": 0.05, "local_steps": 10}),
    }


def kernels(scale: Scale, meter: Meter, stage: str) -> xr.Dataset:
    """Exact gap without entropy where kernels and rewards differ, all methods at one budget.

    P_i = (1 - kappa) P + kappa Q_i and rewards likewise, as in the tabular study of the paper.
    """
    variants = []
    for name, (make, own) in _kernel_methods().items():
        algorithm = make(m1(), **own)
        variants += [
            Variant(label(name, kappa=k), algorithm, 8, {"task": m1(k, k)}, 1) for k in KAPPAS
        ]
    metrics = ("gap", "objective")
    return _run(variants, scale.kernel_rounds, meter, stage, metrics=metrics, double=True)


# Sampled gradients on M2 --------------------------------------------------------------------------


def _sampled(make, **more):
    return make(m2(1.0, 20), entropy=ENTROPY, **more)


def error(scale: Scale, meter: Meter, stage: str) -> xr.Dataset:
    """B4: the error of the momentum as an estimate of the gradient."""
    own = {"learning_rate": 0.001, "server_learning_rate": 0.05, "momentum": 0.2}
    one = _sampled(algorithms.fedsvrpg_m, **own)
    other = _sampled(algorithms.fedhapg_m, **own)
    made = [
        *((label("SV", beta=b), one, 8, {"momentum": b}) for b in ERROR_BETAS),
        *((label("HA", beta=b), other, 8, {"momentum": b}) for b in ERROR_BETAS),
        *((label("SV", N=n), one, n, {}) for n in AGENTS if n != 8),
        *((label("SV", H=h), one, 8, {"local_steps": h}) for h in STEPS if h != 10),
    ]
    out = _run([Variant(*line, scale.trials) for line in made], scale.error_rounds, meter, stage)
    return again(out, {label("SV", beta=0.2): [label("SV", N=8), label("SV", H=10)]})


def again(runs: xr.Dataset, names: Mapping[str, list[str]]) -> xr.Dataset:
    """With some lines a second time, under other names."""
    pairs = [(old, new) for old, several in names.items() for new in several]
    more = runs.sel(label=[old for old, _ in pairs]).assign_coords(label=[n for _, n in pairs])
    return xr.concat([runs, more], "label", data_vars="all", combine_attrs="override")


def speedup(scale: Scale, meter: Meter, stage: str) -> xr.Dataset:
    """B5: the gap against the number of agents."""
    own = {"local_steps": 5, "learning_rate": 0.005, "server_learning_rate": 0.5}
    one, other = (_sampled(make, **own) for make in (algorithms.fedsvrpg_m, algorithms.fedhapg_m))
    made = [
        (label(name, beta=b, N=n), algorithm, n, {"momentum": b})
        for name, algorithm, b in (("SV", one, 0.3), ("HA", other, 0.3), ("SV", one, 1.0))
        for n in AGENTS
    ]
    return _run([Variant(*line, scale.trials) for line in made], scale.rounds, meter, stage)


def tuned(scale: Scale, meter: Meter, stage: str) -> xr.Dataset:
    """B6: the server's step, without momentum and with it."""
    own = {"learning_rate": 0.005, "episodes_per_step": 4}
    one, other = (_sampled(make, **own) for make in (algorithms.fedsvrpg_m, algorithms.fedhapg_m))
    kinds = {
        "plain": (one, {"momentum": 1.0}),
        "SV": (one, {"momentum": 0.1}),
        "SV clip": (one, {"momentum": 0.1, "weight_clip": 1.5}),
        "HA": (other, {"momentum": 0.1}),
    }
    variants = [
        Variant(
            label(name, **{"lambda": step}),
            algorithm,
            8,
            {**values, "server_learning_rate": step},
            scale.trials,
        )
        for name, (algorithm, values) in kinds.items()
        for step in LAMBDAS
    ]
    return _run(variants, scale.tuned_rounds, meter, stage, record_every=1)


def authors(scale: Scale, meter: Meter, stage: str) -> xr.Dataset:
    """T3 and T7 on M2: another anchor, and the recursion of the authors' code."""
    own = {"learning_rate": 0.005, "episodes_per_step": 4, "momentum": 0.1}
    current = _sampled(algorithms.fedsvrpg_m, **own, anchor="current")
    made = [
        (label("current", **{"lambda": step}), current, {"server_learning_rate": step})
        for step in ANCHORS
    ]
    for name, make in (("SV", algorithms.fedsvrpg_m), ("HA", algorithms.fedhapg_m)):
        theirs = _sampled(make, **own, authors_code=True)
        made += [
            (label(f"{name} authors", eta=e), theirs, {"learning_rate": e}) for e in AUTHORS_ETAS
        ]
    variants = [Variant(name, algorithm, 8, more, scale.trials) for name, algorithm, more in made]
    return _run(variants, scale.tuned_rounds, meter, stage, record_every=1)


# CartPole -----------------------------------------------------------------------------------------

_POLE = {"local_steps": 10, "episodes_per_step": 10, "baseline": "batch_mean"}
_MOMENTUM = {
    "plain": {"momentum": 1.0},
    "SV": {"momentum": 0.2},
    "SV clip": {"momentum": 0.2, "weight_clip": CLIP},
}


def _step(step: float, local_steps: int = 10, **more) -> dict:
    """A server's step, lambda, whose local steps lead as far."""
    return {"server_learning_rate": step, "learning_rate": step / local_steps, **more}


def cartpole(scale: Scale, meter: Meter, stage: str) -> xr.Dataset:
    """B9: all methods on CartPoles that differ strongly; FedPG is "plain" with lambda = eta H."""
    task = cartpoles()
    one, other = algorithms.fedsvrpg_m(task, **_POLE), algorithms.fedhapg_m(task, **_POLE)
    made = [
        (label(name, **{"lambda": step}), one, _step(step, **own))
        for name, own in _MOMENTUM.items()
        for step in (0.003, 0.01)
    ]
    made += [
        (label("HA", beta=b, **{"lambda": step}), other, _step(step, momentum=b))
        for step, betas in ((0.003, HA_BETAS), (0.01, HA_BETAS[:2]))
        for b in betas
    ]
    local = {
        "SCAFFOLD": (algorithms.scaffold_pg, {}),
        "Fast-FedPG": (algorithms.fast_fedpg, {}),
        # In the end its step is that of FedPG.
        "FedAvgM": (algorithms.fedavgm_pg, {"server_learning_rate": 0.1}),
        "FedAdam": (algorithms.fedadam_pg, {}),
    }
    made += [
        (label(name, eta=0.001), make(task, **_POLE, **own, learning_rate=0.001), {})
        for name, (make, own) in local.items()
    ]
    variants = [Variant(name, a, 5, own, scale.pole_trials) for name, a, own in made]
    return _run(variants, scale.pole_rounds, meter, stage, metrics=CONTROL, record_every=1)


def sweeps(scale: Scale, meter: Meter, stage: str) -> xr.Dataset:
    """beta, lambda, N and H of FedSVRPG-M on the same CartPoles."""
    one = algorithms.fedsvrpg_m(cartpoles(), **_POLE)
    clipped = _MOMENTUM["SV clip"]
    made = [
        (label(name, **{"lambda": step}), 5, _step(step, **own))
        for name, own in _MOMENTUM.items()
        for step in (PLAIN_LAMBDAS if name == "plain" else POLE_LAMBDAS)
    ]
    made += [
        (label(name, beta=b), 5, _step(0.003, **{**_MOMENTUM[name], "momentum": b}))
        for name in ("SV", "SV clip")
        for b in POLE_BETAS
        if b not in (0.2, 1.0)
    ]
    made += [(label("SV clip", N=n), n, _step(0.003, **clipped)) for n in POLE_AGENTS if n != 5]
    made += [
        (label("SV clip", H=h), 5, {"local_steps": h, **_step(0.003, h, **clipped)})
        for h in POLE_STEPS
        if h != 10
    ]
    variants = [Variant(name, one, n, own, scale.pole_trials) for name, n, own in made]
    out = _run(variants, scale.sweep_rounds, meter, stage, metrics=CONTROL, record_every=1)
    same = label("SV clip", **{"lambda": 0.003})
    plain, free = label("plain", **{"lambda": 0.003}), label("SV", **{"lambda": 0.003})
    names = {same: [label("SV clip", beta=0.2), label("SV clip", N=5), label("SV clip", H=10)]}
    names |= {plain: [label(n, beta=1.0) for n in ("SV", "SV clip")], free: [label("SV", beta=0.2)]}
    return again(out, names)


def authors_cartpole(scale: Scale, meter: Meter, stage: str) -> xr.Dataset:
    """The recursion of the authors' code on the same CartPoles, with its learning rates."""
    own = {"authors_code": True, "normalize": True, "baseline": "linear", "weight_clip": CLIP}
    variants = []
    for name, make in (("SV", algorithms.fedsvrpg_m), ("HA", algorithms.fedhapg_m)):
        theirs = make(cartpoles(), **{**_POLE, **own})
        variants += [
            Variant(
                label(name, beta=b, eta=e),
                theirs,
                5,
                {"momentum": b, "learning_rate": e},
                scale.pole_trials,
            )
            for b, e in (*((0.2, e) for e in POLE_ETAS), (1.0, 0.05))
        ]
    return _run(variants, scale.pole_rounds, meter, stage, metrics=CONTROL, record_every=1)


# HalfCheetah --------------------------------------------------------------------------------------


def halfcheetah(scale: Scale, meter: Meter, stage: str) -> xr.Dataset:
    """All methods on HalfCheetahs whose first states differ, as in the authors' code."""
    size = scale.cheetah
    task = envs.brax_task("halfcheetah", discount=0.999, max_steps=size.max_steps)
    own = {
        "local_steps": size.local_steps,
        "episodes_per_step": size.episodes,
        "network": (64, 64),
        "baseline": "batch_mean",
        "normalize": True,
        "heterogeneity": {"level": 0.01, "of": ("reset",)},
        "evaluation_episodes": 4,
        "learning_rate": CHEETAH_STEP / size.local_steps,
    }
    momentum = {"server_learning_rate": CHEETAH_STEP, "first_episodes": size.episodes}
    made = {
        "FedPG": (algorithms.fedpg, {}),
        "SCAFFOLD": (algorithms.scaffold_pg, {}),
        "FedAvgM": (algorithms.fedavgm_pg, {"server_learning_rate": 0.1}),
        "FedAdam": (algorithms.fedadam_pg, {"server_learning_rate": 0.003}),
        "Fast-FedPG": (algorithms.fast_fedpg, {}),
        "SV clip": (algorithms.fedsvrpg_m, {**momentum, "momentum": 0.2, "weight_clip": CLIP}),
        "HA": (algorithms.fedhapg_m, {**momentum, "momentum": 0.5}),
    }
    variants = [
        Variant(name, make(task, **own, **more), size.num_agents, {}, size.trials)
        for name, (make, more) in made.items()
    ]
    return _run(variants, size.rounds, meter, stage, metrics=CONTROL, record_every=1)


STAGES = {
    "exact": Stage(exact, 60),
    "identities": Stage(identities, 30),
    "kernels": Stage(kernels, 60),
    "error": Stage(error, 120),
    "speedup": Stage(speedup, 90),
    "tuned": Stage(tuned, 120),
    "authors": Stage(authors, 60),
    "cartpole": Stage(cartpole, 600),
    "sweeps": Stage(sweeps, 600),
    "authors_cartpole": Stage(authors_cartpole, 200),
    "halfcheetah": Stage(halfcheetah, 3600),
}
