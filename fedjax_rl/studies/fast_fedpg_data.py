"""The runs behind the study `fast-fedpg`: what is exact, what is sampled, what is controlled.

Zhu, Heath and Mitra, *Towards Fast Rates for Federated and Multi-Task Reinforcement Learning*,
arXiv 2409.05291, has theorems and no experiments. Step sizes and lengths are those of the
project's specification; algorithms that are compared have the same.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import xarray as xr

import fedjax_rl as frl
from fedjax_rl import envs
from fedjax_rl.studies import policy_gradients as common
from fedjax_rl.studies import variant_runs
from fedjax_rl.studies.fast_fedpg_exact import (
    METHODS,
    average,
    bias,
    estimators,
    exact,
    formula,
    truncation,
)
from fedjax_rl.studies.policy_gradients import ENTROPY, m2
from fedjax_rl.studies.stage_runs import Stage
from fedjax_rl.studies.study import Meter, Scale, scales
from fedjax_rl.studies.variant_runs import Variant

AGENTS = (2, 4, 8, 16, 32)
FEW = (2, 8, 32)


class Control(NamedTuple):
    """How much is run of an environment whose objective is not known.

    Attributes:
      local_steps: of the methods.
      rounds: of each.
      trials: of each.
      max_steps: where an episode is cut.
    """

    local_steps: tuple[int, ...]
    rounds: int
    trials: int
    max_steps: int = 100


SCALES = scales(
    trials=(4, 8, 16),  # of the sampled experiments on tables
    lengths=((200, 400), (200, 400, 800), (200, 400, 800, 1600)),  # rounds, by sample complexity
    cartpole=(Control((10,), 10, 3), Control((1, 10), 20, 6), Control((1, 5, 20), 40, 10)),
    cheetah=(None, None, Control((1, 5, 10, 20), 300, 10, 500)),  # None, or what is run of it
)
# The HalfCheetah of the preset `reduced`: a size for two cores.
REDUCED_CHEETAH = Control((5,), 15, 3, 50)


# What is exact -----------------------------------------------------------------------------------


# What is sampled ---------------------------------------------------------------------------------


def speedup(scale: Scale, meter: Meter, stage: str) -> xr.Dataset:
    """B1: M2, constant step, one episode per gradient."""
    properties = {"learning_rate": 0.1, "local_steps": 5, "entropy": ENTROPY}
    task = m2(max_steps=30)
    made = {
        "Fast-FedPG": frl.fast_fedpg(task, memory_episodes=1, **properties),
        "FedPG": frl.fedpg(task, **properties),
    }
    variants = [
        Variant(f"{name} N={n}", one, n, {}, scale.trials)
        for name, one in made.items()
        for n in AGENTS
    ]
    return variant_runs.run(variants, 400, meter, stage, metrics=common.TABLE[:3], record_every=5)


def floor(scale: Scale, meter: Meter, stage: str) -> xr.Dataset:
    """B2: M2 with strongly opposed rewards, many local steps."""
    properties = {
        "learning_rate": 0.05,
        "local_steps": 20,
        "episodes_per_step": 4,
        "entropy": ENTROPY,
    }
    task = m2(3.0)
    made = {
        "FedPG": frl.fedpg(task, **properties),
        "SCAFFOLD-PG": frl.scaffold_pg(task, **properties),
        "Fast-FedPG, 4 for the memory": frl.fast_fedpg(task, memory_episodes=4, **properties),
        "Fast-FedPG, 80 for the memory": frl.fast_fedpg(task, memory_episodes=80, **properties),
    }
    variants = [
        Variant(f"{name} N={n}", one, n, {}, scale.trials)
        for name, one in made.items()
        for n in FEW
    ]
    return variant_runs.run(variants, 150, meter, stage, metrics=common.TABLE[:3], record_every=3)


def samples(scale: Scale, meter: Meter, stage: str) -> xr.Dataset:
    """B3: M2, H = 5, steps that shrink as log(NHT) / (HT): `gap` [agents, rounds, seed].

    `stationary` is the mean over the rounds of the squared norm of the gradient without entropy,
    where no gradient dominates, with steps that shrink as sqrt(N / T).
    """
    steps = 5
    properties = {"local_steps": steps, "episodes_per_step": 8, "memory_episodes": 8}
    made = {
        "gap": frl.fast_fedpg(m2(), entropy=ENTROPY, **properties),
        "stationary": frl.fast_fedpg(m2(), **properties),
    }
    todo = [(name, rounds) for name in made for rounds in scale.lengths]
    parts = []
    for (name, rounds), part in zip(todo, meter.split(stage, len(todo)), strict=True):
        variants = []
        for n in FEW:
            shrinking = 30 * np.log(n * steps * rounds) / (steps * rounds)
            rate = shrinking if name == "gap" else np.sqrt(n / rounds) / 5
            variants.append(Variant(f"{n}", made[name], n, {"learning_rate": rate}, scale.trials))
        found = variant_runs.run(
            variants,
            rounds,
            part,
            stage,
            metrics=("gap", "gradient_norm"),
            record_every=rounds // 100,
        )
        parts.append(meter.count(found))
    data: dict = {name: [] for name in made}
    for (name, _), part in zip(todo, parts, strict=True):
        if name == "gap":
            data[name].append(part["gap"].values[..., -5:].mean(-1))
        else:
            data[name].append((part["gradient_norm"].values ** 2).mean(-1))
    return xr.Dataset(
        {n: (("agents", "rounds", "seed"), np.stack(x, axis=1)) for n, x in data.items()},
        {"agents": list(FEW), "rounds": list(scale.lengths)},
        variant_runs.spent(parts),
    )


# Control -----------------------------------------------------------------------------------------

CARTPOLE_RATES = (0.0003, 0.001, 0.003)
CHEETAH_RATE = 0.001


def _controlled(size: Control, task, rates, meter, stage, num_agents, **properties) -> xr.Dataset:
    """All methods, numbers of local steps and learning rates."""
    variants = []
    for name, make in METHODS.items():
        for steps in size.local_steps:
            one = make(task, local_steps=steps, **properties)
            for rate in rates:
                own = {"learning_rate": rate}
                variants.append(
                    Variant(f"{name} H={steps} {rate:g}", one, num_agents, own, size.trials)
                )
    every = max(1, size.rounds // 30)
    return variant_runs.run(
        variants, size.rounds, meter, stage, metrics=common.CONTROL, record_every=every
    )


def cartpole(scale: Scale, meter: Meter, stage: str) -> xr.Dataset:
    """Eight poles whose physics differ strongly, five episodes per gradient."""
    return _controlled(
        scale.cartpole,
        common.cartpoles(),
        CARTPOLE_RATES,
        meter,
        stage,
        8,
        episodes_per_step=5,
    )


def cheetah(scale: Scale, meter: Meter, stage: str) -> xr.Dataset:
    """Eight cheetahs that are to run at speeds of their own, from 0.5 to 3 m/s."""
    size = scale.cheetah
    task = envs.brax_task("halfcheetah", max_steps=size.max_steps, target_speed=1.75)
    return _controlled(
        size,
        task,
        (CHEETAH_RATE,),
        meter,
        stage,
        8,
        episodes_per_step=3,
        network=(64, 64),
        baseline="linear",
        normalize=True,
        discount_weight=False,
        heterogeneity={"level": 1.25, "of": ("target_speed",)},
        evaluation_episodes=3,
    )


STAGES = {
    "average": Stage(average, 3),
    "estimators": Stage(estimators, 10),
    "exact": Stage(exact, 20),
    "bias": Stage(bias, 20),
    "formula": Stage(formula, 15),
    "truncation": Stage(truncation, 10),
    "speedup": Stage(speedup, 60),
    "floor": Stage(floor, 120),
    "samples": Stage(samples, 200),
    "cartpole": Stage(cartpole, 300),
    "cheetah": Stage(cheetah, 1200),
}
