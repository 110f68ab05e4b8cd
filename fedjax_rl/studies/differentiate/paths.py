"""Showcase (f): gradients through the environment, against likelihood ratios of what was drawn."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import xarray as xr

from fedjax_rl import analysis, envs
from fedjax_rl.algorithms import fedapg, fedpg
from fedjax_rl.envs.task import Task
from fedjax_rl.federation.algorithm import Algorithm
from fedjax_rl.plotting import page as pages
from fedjax_rl.plotting.style import OKABE_ITO
from fedjax_rl.studies.claims import control, effect, number
from fedjax_rl.studies.declared import figure
from fedjax_rl.studies.differentiate.learning import UNSEEN, over_seeds
from fedjax_rl.studies.estimates import exact, of_means, together
from fedjax_rl.studies.numbers import Number
from fedjax_rl.studies.pictures import page, panel
from fedjax_rl.studies.runs import STILL, Stage
from fedjax_rl.sweeps.simulate import simulate
from fedjax_rl.sweeps.sweep import sweep

AGENTS, EPISODES = 4, 4
# Of local steps by Adam; the same for both, of which each takes what suits it.
RATES = {"LQR": (0.01, 0.03, 0.1, 0.3), "Pendulum": (0.001, 0.003, 0.01, 0.03)}
METRICS = {"LQR": "reward", "Pendulum": "return"}
RECORDS = 8
METHODS = ("FedAPG", "FedPG")
STYLES = {"FedAPG": 0, "FedPG": 6}
CUT = 20  # steps after which derivatives on the pendulum are cut
_ADAM = {"local_optimizer": "adam", "local_moments": "local", "episodes_per_step": EPISODES}
# What both have in common, by task.
COMMON = {
    "LQR": {
        "network": {"hidden": (), "initializer": "zeros"},
        "deviation": 0.3,
        "local_steps": 5,
        "evaluation_episodes": 64,
        **_ADAM,
    },
    "Pendulum": {"network": (32, 32), "deviation": 0.5, "local_steps": 10, **_ADAM},
}
# What each has besides, where it learns.
OWN = {
    "LQR": {"FedAPG": {}, "FedPG": {}},
    "Pendulum": {
        "FedAPG": {"truncation": CUT, "gradient_clip": 1.0},
        "FedPG": {"baseline": "critic"},
    },
}


@functools.cache
def task(name: str) -> Task:
    """The environment of all agents."""
    return envs.lqr(max_steps=50) if name == "LQR" else envs.gymnax_task("Pendulum-v1")


def make(name: str, method: str, **more) -> Algorithm:
    """An algorithm with drawn actions, whose deviation is learned."""
    own = {**COMMON[name], **more}
    if method == "FedAPG":
        return fedapg(task(name), actions="drawn", **own)
    return fedpg(task(name), **own)


# Of one gradient ----------------------------------------------------------------------------------


def first_gradient(name: str, method: str, seed, agents: int):
    """Mean [q] over agents of their first gradients, and behind it the trace of the covariance.

    What an agent changes in one plain step of length 1 is its gradient.
    """
    plain = {"local_optimizer": "sgd", "local_steps": 1, "learning_rate": 1.0}
    if method == "FedPG":
        # As they are: standardised, they would be of one size whatever the returns.
        plain |= {"normalize": False}
    elif name == "Pendulum":
        plain |= {"truncation": CUT}
    algorithm = make(name, method, **plain, evaluation_episodes=1)
    found = simulate(algorithm, num_agents=agents, num_steps=1, seed=seed).state.agents.change
    return jnp.append(jnp.mean(found, axis=0), jnp.sum(jnp.var(found, axis=0, ddof=1)))


def spread(found):
    """log10 of the trace of a covariance in parts of the squared norm of a mean.

    The mean of so many agents has noise of its own: what is noisier is flattered more.

    Args:
      found: [..., q + 1], from `first_gradient`.
    """
    return np.log10(found[..., -1] / np.sum(found[..., :-1] ** 2, axis=-1))


def _gradients(name: str, size) -> Callable:
    seeds, _, agents, *_ = size.paths

    def made(meter) -> xr.Dataset:
        report = meter.stage(f"paths-gradients-{name}")
        found = []
        for place, method in enumerate(METHODS):
            of = functools.partial(first_gradient, name, method, agents=agents)
            found.append(over_seeds(of, np.arange(seeds), chunk=1))
            report(place + 1, len(METHODS))
        found = np.stack(found).astype(np.float64)
        data = {
            "gradient": (("method", "seed", "parameter"), found[..., :-1]),
            "spread": (("method", "seed"), spread(found)),
        }
        return xr.Dataset(data, {"method": list(METHODS), "seed": np.arange(seeds)})

    return made


def cosine(a, b) -> float:
    """Of the angle between two vectors."""
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


# Of what is learned -------------------------------------------------------------------------------


def _learned(name: str, size) -> Callable:
    """Every method at the rate of the best mean return at the end, on seeds of its own."""
    seeds, tried, _, *rounds = size.paths
    steps = rounds[name == "Pendulum"]
    lengths = {
        "num_agents": AGENTS,
        "num_steps": steps,
        "record_every": max(1, steps // RECORDS),
        "metrics": [METRICS[name]],
    }

    def made(meter) -> xr.Dataset:
        report = meter.stage(f"paths-{name}")
        each = []
        for place, method in enumerate(METHODS):
            algorithm = make(name, method, **OWN[name][method])
            others = (UNSEEN + np.arange(tried)).tolist()
            tuning = meter.count(
                sweep(algorithm, learning_rate=list(RATES[name]), seeds=others, **lengths)
            )
            ends = tuning[METRICS[name]].isel(time=-1).mean("seed").squeeze().values
            # What has no value is none to choose.
            rate = RATES[name][int(np.argmax(np.where(np.isfinite(ends), ends, -np.inf)))]
            report(2 * place + 1, 2 * len(METHODS))
            # Where nothing is learned is looked at on the linear system alone.
            rates = [rate, STILL] if name == "LQR" else [rate]
            found = meter.count(
                sweep(algorithm, learning_rate=rates, seeds=list(range(seeds)), **lengths)
            ).transpose("learning_rate", "seed", ...)
            report(2 * place + 2, 2 * len(METHODS))
            returns = found[METRICS[name]].values
            each.append(
                {
                    "return": returns[0],
                    "still": returns[-1, :, -1],
                    "steps": found["env_steps"].values[0],
                    "tuning": ends,
                    "rate": rate,
                }
            )
        dims = {
            "return": ("seed", "time"),
            "still": ("seed",),
            "steps": ("seed",),
            "tuning": ("tried",),
            "rate": (),
        }
        data = {
            key: (("method", *own), np.stack([np.asarray(one[key], float) for one in each]))
            for key, own in dims.items()
        }
        labels = {"method": list(METHODS), "seed": np.arange(seeds), "tried": list(RATES[name])}
        return xr.Dataset(data, {**labels, "time": found["time"].values})

    return made


@functools.cache
def best_return() -> float:
    """Of the best gains of the linear system, from the Riccati equation."""
    return envs.lqr_return(task("LQR"), envs.lqr_gains(task("LQR")))


def _less(variable: Number) -> Number:
    return variable["FedAPG"] - variable["FedPG"]


@figure("paths", "gradients through the environment, against likelihood ratios")
def paths(size):
    """Where an environment is smooth, a derivative goes through its steps.

    It says how every entry of an action matters, and not only how a return compares with others:
    the covariance of a gradient is smaller in parts of its squared mean, and after as many steps of
    the environment more is learned. Agents draw actions from the same kind of policy. Local steps
    are by Adam, and each method has that of four rates at which it ends best on other seeds. On the
    pendulum derivatives are cut after 20 steps, as they grow along chaotic paths, and likelihood
    ratios have the help of a critic.
    """
    seeds, tried, agents, *rounds = size.paths
    gradients = {
        name: Stage(
            f"paths-gradients-{name}",
            _gradients(name, size),
            60,
            (size.paths, COMMON[name], CUT),
        )
        for name in RATES
    }
    learned = {
        name: Stage(
            f"paths-{name}",
            _learned(name, size),
            120 if name == "LQR" else 900,
            (size.paths, COMMON[name], OWN[name], RATES[name], AGENTS),
        )
        for name in RATES
    }
    names, of_lqr = ", ".join(RATES), learned["LQR"]
    yield number(
        "paths same",
        "LQR: cosine of the angle between the mean gradients of both, whose policies are the same",
        of_means(cosine, *(gradients["LQR"]["gradient"][method] for method in METHODS)),
        (0.95, None),
        reference=1,
    )
    yield effect(
        "paths variance",
        f"log10 of trace of covariance over squared mean of a gradient: FedPG - FedAPG: {names}",
        together(*(-_less(own["spread"]) for own in gradients.values())),
        band=((0, None),) * len(RATES),
    )
    yield number(
        "paths steps",
        f"steps of the environments by FedPG in parts of those by FedAPG: {names}",
        together(
            *(exact(own["steps"]["FedPG"] / own["steps"]["FedAPG"]) for own in learned.values())
        ),
        ((1, 1),) * len(RATES),
    )
    quarter = [own["return"].then(_at_quarter) for own in learned.values()]
    yield effect(
        "paths early",
        f"return after a quarter of the rounds: FedAPG - FedPG: {names}",
        together(*(_less(own) for own in quarter)),
        band=((0, None),) * len(RATES),
    )
    yield effect(
        "paths return",
        f"return at the end: FedAPG - FedPG: {names}",
        together(*(_less(own["return"].last()) for own in learned.values())),
        band=((0, None),) * len(RATES),
    )
    yield number(
        "paths optimum",
        "LQR: what FedAPG gains in parts of what the best gains would",
        of_means(
            lambda end, start: float((end - start) / (best_return() - start)),
            of_lqr["return"].last()["FedAPG"],
            of_lqr["still"]["FedAPG"],
        ),
        (0.9, 1.05),
        reference=1,
    )
    yield control(
        "paths null",
        "LQR: return where nothing is learned: FedAPG - FedPG",
        _less(of_lqr["still"]),
    )
    yield page(
        "paths",
        panel(_spreads, *gradients.values(), title=f"a gradient of {EPISODES} episodes"),
        panel(functools.partial(_curves, name="LQR"), of_lqr, title="LQR"),
        panel(functools.partial(_curves, name="Pendulum"), learned["Pendulum"], title="Pendulum"),
        title=f"N = {AGENTS}, {rounds[0]} and {rounds[1]} rounds; {seeds} seeds, rates chosen on "
        f"{tried} others; gradients of {agents} agents; 95 % intervals",
        height=2.9,
    )


def _at_quarter(array):
    return array.isel(time=max(0, array.sizes["time"] // 4 - 1))


def _spreads(axis, *datas):
    width = 0.3
    for place, method in enumerate(METHODS):
        for at, data in enumerate(datas):
            values = data["spread"].sel({"method": method}).values
            middle = values.mean()
            bar = 1.96 * values.std(ddof=1) / len(values) ** 0.5
            low, high = 10 ** (middle - bar), 10 ** (middle + bar)
            axis.errorbar(
                [at + width * (place - 0.5)],
                [10**middle],
                [[10**middle - low], [high - 10**middle]],
                fmt="o",
                color=OKABE_ITO[STYLES[method]],
                label=method if at == 0 else None,
            )
    axis.set_xticks(range(len(datas)), list(RATES))
    axis.set(
        yscale="log",
        xlim=(-0.6, len(datas) - 0.4),
        ylabel="trace of covariance / |mean|²",
    )


def _curves(axis, data, name):
    # Of one agent, in thousands; the same for both.
    per_round = data["steps"].values.mean() / data["time"].values[-1] / AGENTS / 1000
    for method in METHODS:
        own = data.sel({"method": method})
        x, colour = own["time"].values * per_round, OKABE_ITO[STYLES[method]]
        each = own["return"].transpose("time", "seed").values
        axis.plot(x, each.mean(axis=1), color=colour, label=method)
        if each.shape[1] >= analysis.verdict.FEWEST:
            ends = np.array([analysis.mean_interval(values)[1:] for values in each])
            axis.fill_between(x, *ends.T, color=colour, alpha=0.16, lw=0)
    axis.set(
        xlabel="thousand steps of an agent",
        ylabel=f"{METRICS[name].replace('reward', 'discounted return')}",
    )
    if name == "LQR":
        pages.level(axis, best_return(), "best gains")
