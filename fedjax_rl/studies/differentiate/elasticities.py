"""Showcase (e): what a federation is most sensitive to."""

# ruff: noqa: RUF001 -- the labels say α as the papers do

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from fedjax_rl import envs
from fedjax_rl.algorithms import fedpg, fedtd
from fedjax_rl.federation.algorithm import Algorithm
from fedjax_rl.plotting.style import GREY, OKABE_ITO
from fedjax_rl.studies.claims import control, number
from fedjax_rl.studies.declared import figure
from fedjax_rl.studies.differentiate.learning import mdp, tables
from fedjax_rl.studies.estimates import of_means, together
from fedjax_rl.studies.numbers import Number
from fedjax_rl.studies.pictures import page, panel
from fedjax_rl.studies.policy_gradients import exactly
from fedjax_rl.studies.runs import STILL, Stage
from fedjax_rl.sweeps.differentiate import differentiate
from fedjax_rl.sweeps.simulate import simulate

AGENTS = 8
PART = 1e-5  # by which properties are made larger and smaller, for differences
NOISE = 0.5  # of rewards
SAME = 1e-4  # between a derivative and a difference, of elasticities


@dataclasses.dataclass(frozen=True)
class Case:
    """An algorithm whose outcome is differentiated.

    Attributes:
      make: `seed -> Algorithm`; the same for all seeds where `families` is false.
      outcome: a metric, at the end.
      by: properties, or parts of them.
      num_steps: T.
      num_agents: N.
      families: whether a seed is of environments, as nothing else is drawn.
    """

    make: Callable[..., Algorithm]
    outcome: str
    by: tuple[str, ...]
    num_steps: int
    num_agents: int = AGENTS
    families: bool = False


def _fedq(rate=0.1) -> Algorithm:
    return tables(
        learning_rate=rate,
        sync_period=10,
        reward_noise=NOISE,
        mixing=0.7,
        initial_q=1.0,
        discount=0.6,
    )


@functools.cache
def _fedtd() -> Algorithm:
    return fedtd(mdp(), learning_rate=0.1, sync_period=10, initial=1.0)


@functools.cache
def _families(count: int):
    made = [envs.dirichlet_mdps(AGENTS // 2, seed=seed) for seed in range(count)]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *made)


def _fedpg(seed, count: int) -> Algorithm:
    own = jax.tree.map(lambda leaf: jnp.asarray(leaf)[seed], _families(count))
    base = envs.tabular_task(envs.dirichlet_mdps(AGENTS // 2))
    # Its parameters are those of the first member, so that whoever looks sees what is traced.
    task = base.replace(
        members=lambda num_agents: own, params=jax.tree.map(lambda x: x[0], own), name="drawn"
    )
    more = {"learning_rate": 0.3, "server_learning_rate": 1.0, "local_steps": 5}
    return fedpg(task, **exactly(optimizer={"name": "momentum", "momentum": 0.5}, **more))


def cases(size) -> dict[str, Case]:
    """The three algorithms."""
    seeds, steps, td_steps, rounds = size.elasticity
    return {
        "FedQ": Case(
            lambda seed: _fedq(),
            "error_server",
            ("learning_rate", "discount", "mixing", "mdp.reward", "reward_noise", "initial_q"),
            steps,
        ),
        "FedTD": Case(
            lambda seed: _fedtd(),
            "error_server",
            ("learning_rate", "mdp.reward", "initial"),
            td_steps,
        ),
        "FedPG": Case(
            functools.partial(_fedpg, count=seeds),
            "gap",
            ("learning_rate", "server_learning_rate", "optimizer.momentum", "entropy"),
            rounds,
            AGENTS // 2,
            families=True,
        ),
    }


def valued(algorithm: Algorithm, name: str):
    """The value of a property, or of a part of it."""
    own = algorithm.config
    for part in name.split("."):
        own = getattr(own, part)
    return own


def scaled(algorithm: Algorithm, factors: dict) -> Algorithm:
    """An algorithm with some properties times a factor each."""
    changes = {}
    for name, factor in factors.items():
        head, _, inner = name.partition(".")
        value = factor * jnp.asarray(valued(algorithm, name), float)
        if head == "mdp":
            changes[head] = algorithm.config.mdp.replace(**{inner: value})
        else:
            changes[name] = value
    return algorithm.replace(**changes)


def derivatives(case: Case, seeds) -> tuple[np.ndarray, np.ndarray]:
    """Outcomes [L], and the derivatives by the logarithms of the properties [property, L]."""
    lengths = {"num_agents": case.num_agents, "num_steps": case.num_steps}
    values = [np.asarray(valued(case.make(0), name), float) for name in case.by]

    def of(seed, own):
        return differentiate(case.make(seed), case.outcome, case.by, seeds=own, **lengths).each

    if case.families:
        each = jax.jit(jax.vmap(lambda seed: of(seed, [0])))(np.asarray(seeds))
        each = {name: np.asarray(own)[:, 0] for name, own in each.items()}
    else:
        each = {name: np.asarray(own) for name, own in of(0, seeds).items()}
    along = [
        np.sum((each[name] * value).reshape(len(seeds), -1), axis=1)
        for name, value in zip(case.by, values, strict=True)
    ]
    return each["outcome"], np.stack(along)


def differences(case: Case, seeds, part: float = PART) -> np.ndarray:
    """The same derivatives [property, L] by differences, with the same random words."""

    def outcome(factors, seed):
        algorithm = scaled(case.make(seed), dict(zip(case.by, factors, strict=True)))
        own = jnp.uint32(0) if case.families else seed
        lengths = {"num_agents": case.num_agents, "num_steps": case.num_steps}
        found = simulate(algorithm, seed=own, **lengths).metrics[case.outcome]
        return jnp.mean(found[-1])

    @jax.jit
    def every(factors):
        return jax.lax.map(
            lambda own: jax.vmap(lambda seed: outcome(own, seed))(jnp.asarray(seeds)), factors
        )

    steps = part * np.eye(len(case.by))
    above, below = np.split(np.asarray(every(jnp.asarray(np.exp([*steps, *-steps]), float))), 2)
    return (above - below) / (2 * part)


def _make(name: str, case: Case, count: int):
    def make(meter) -> xr.Dataset:
        report = meter.stage(f"elasticity-{name}")
        seeds = np.arange(count)
        # In double precision: differences would lose more by rounding than they could show.
        with jax.enable_x64(True):
            outcome, along = derivatives(case, seeds)
            by_difference = differences(case, seeds)
        data = {
            "outcome": (("seed",), outcome),
            "slope": (("property", "seed"), along),
            "difference": (("property", "seed"), by_difference),
        }
        if name == "FedQ":
            with jax.enable_x64(True):
                frozen = dataclasses.replace(case, make=lambda seed: _fedq(STILL))
                of_nothing, along = derivatives(frozen, seeds)
            data["frozen"] = ("seed", of_nothing)
            data["frozen_slope"] = ("seed", along[0])
        report(1, 1)
        return xr.Dataset(data, {"property": list(case.by), "seed": seeds})

    return make


def _each(stage: Stage, case: Case, variable: str = "slope"):
    return [stage[variable].sel(property=name) for name in case.by]


def _elasticity(slope: Number, outcome: Number):
    return of_means(lambda a, b: float(a / b), slope, outcome)


@figure("elasticity", "what a federation is most sensitive to: elasticities of its error")
def elasticity(size):
    """An elasticity is by how many percent an error grows with one percent of a property.

    All of an algorithm come from one derivative, and are those of differences with the same random
    words. What they must add up to is known: rewards, their noise and first tables of twice the
    size make errors four times as large. So is the law of Q-learning in its steady state, where the
    error is proportional to the step size and to the variance of TD errors.
    """
    own = cases(size)
    stages = {
        name: Stage(
            f"elasticity-{name}",
            _make(name, case, size.elasticity[0]),
            60,
            (size.elasticity, name, case.by, PART, NOISE),
        )
        for name, case in own.items()
    }
    for name, case in own.items():
        stage = stages[name]
        apart = [
            _elasticity(slope - other, stage["outcome"])
            for slope, other in zip(
                _each(stage, case), _each(stage, case, "difference"), strict=True
            )
        ]
        yield number(
            f"same {name}",
            f"elasticity by the derivative less that by a difference: {', '.join(case.by)}",
            together(*apart),
            ((-SAME, SAME),) * len(case.by),
            reference=(0,) * len(case.by),
        )
    for name, scales in (
        ("FedQ", ("mdp.reward", "reward_noise", "initial_q")),
        ("FedTD", ("mdp.reward", "initial")),
    ):
        stage = stages[name]
        total = stage["slope"].sel(property=list(scales)).then(lambda x: x.sum("property"))
        yield number(
            f"sum {name}",
            f"sum of the elasticities by {', '.join(scales)}",
            _elasticity(total, stage["outcome"]),
            (1.99, 2.01),
            reference=2,
        )
    stage = stages["FedQ"]
    theory = envs.linear_theory(mdp(), envs.uniform_policy(mdp())).trace_noise
    yield number(
        "steady rate",
        "elasticity of FedQ's error by the step size, in the steady state",
        _elasticity(stage["slope"].sel(property="learning_rate"), stage["outcome"]),
        (0.85, 1.35),
        reference=1,
    )
    yield number(
        "steady noise",
        "the same by the noise of rewards: 2 sd² / (sd² + tr C) to leading order",
        _elasticity(stage["slope"].sel(property="reward_noise"), stage["outcome"]),
        (0.6, 0.95),
        reference=2 * NOISE**2 / (NOISE**2 + theory),
    )
    yield control(
        "steady null",
        "that by the step size where nothing is learned",
        _elasticity(stage["frozen_slope"], stage["frozen"]),
        (0.85, 1.35),
    )
    seeds, steps, td_steps, rounds = size.elasticity
    titles = {
        "FedQ": f"FedQ, {steps} steps: ‖q − q*‖²",
        "FedTD": f"FedTD, {td_steps} steps: ‖θ − θ*‖²",
        "FedPG": f"FedPG, {rounds} rounds: J* − J",
    }
    yield page(
        "elasticity",
        *(panel(_bars, stages[name], title=titles[name].replace(": ", ":\n")) for name in own),
        title=f"percent of the error by a percent of a property; {seeds} seeds "
        "(FedPG: families), 95 % intervals",
        height=2.6,
    )


def _bars(axis, data):
    means, count = data["outcome"].mean("seed").item(), data.sizes["seed"]
    found, bars, other = [], [], []
    for name in data["property"].values:
        one = data.sel(property=name)
        value = one["slope"].mean("seed").item() / means
        rest = (one["slope"] - value * data["outcome"]).values
        found.append(value)
        bars.append(1.96 * rest.std() / count**0.5 / means)
        other.append(one["difference"].mean("seed").item() / means)
    order = np.argsort(np.abs(found))
    places = np.arange(len(order))
    found, bars, other = (np.asarray(own)[order] for own in (found, bars, other))
    axis.barh(places, found, color=OKABE_ITO[5], height=0.6, label="derivative")
    axis.errorbar(found, places, xerr=bars, fmt="none", ecolor=OKABE_ITO[0], lw=1)
    axis.plot(other, places, "|", color=OKABE_ITO[1], ms=11, mew=1.4, label="difference")
    axis.axvline(0, color=GREY, lw=0.8)
    names = [str(name).removeprefix("optimizer.") for name in data["property"].values[order]]
    axis.set_yticks(places, [name.replace("learning_rate", "rate") for name in names])
    axis.set_xlabel("elasticity")
    axis.grid(visible=False, axis="y")
