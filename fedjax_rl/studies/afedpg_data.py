"""The runs behind the study `afedpg`: a clock, what it costs to wait, and what looking ahead gives.

Lan, Han, Hashemi, Aggarwal and Brinton, *Asynchronous Federated Reinforcement Learning with Policy
Gradient Updates*, arXiv 2404.08003. The paper shows MuJoCo; the claims are tested here on a small
MDP whose objective is known exactly (M3 of the project's specification), and on brax.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import xarray as xr

import fedjax_rl as frl
from fedjax_rl import envs
from fedjax_rl.federation.clock import Clock
from fedjax_rl.studies import variant_runs
from fedjax_rl.studies.afedpg_exact import lookahead, m3, schedule, transport
from fedjax_rl.studies.policy_gradients import ENTROPY
from fedjax_rl.studies.stage_runs import Stage
from fedjax_rl.studies.study import Meter, Scale, scales
from fedjax_rl.studies.variant_runs import Variant

METRICS = ("gap", "simulated_time", "staleness", "idle")
AGENTS = (1, 2, 4, 8, 16)
RATIOS = (1, 2, 4, 10, 20)  # of the times of slow and fast agents
SLOW = (10, 100)  # times of the one slow agent
COMPANY = (1, 4, 8, 16, 32)  # agents, where the delay grows
SETTINGS = ((0.01, 0.05), (0.01, 0.02), (0.003, 0.02))  # eta, alpha
SCHEDULERS = ("asynchronous", "synchronous")
# Methods that are compared on one clock: factory, properties and scheduler.
METHODS = {
    "AFedPG": (frl.afedpg, {}, "asynchronous"),
    "no lookahead": (frl.afedpg, {"lookahead": False}, "asynchronous"),
    "first four of eight": (frl.afedpg, {}, "semi-synchronous"),
    "synchronous": (frl.afedpg, {}, "synchronous"),
    "A3C-like": (frl.a3c_pg, {}, "asynchronous"),
    "FedPG, H = 5": (frl.fedpg, {"local_steps": 5}, "asynchronous"),
}
# Learning rates that are tried of each, because their steps have no unit in common.
RATES = {
    "A3C-like": (0.1, 0.3, 1.0),
    "FedPG, H = 5": (0.02, 0.06, 0.2),
}
USUAL = (0.02, 0.05, 0.1)


class Control(NamedTuple):
    """How much is run of brax.

    Attributes:
      names: of the environments.
      agents: N, each.
      steps: of a federation's servers, all messages together.
      trials: of each.
      max_steps: where an episode is cut; None for the usual.
      episodes: of an upload.
    """

    names: tuple[str, ...]
    agents: tuple[int, ...]
    steps: int
    trials: int
    max_steps: int | None
    episodes: int


PAPER_BRAX = Control(("swimmer", "hopper", "walker2d", "humanoid"), (1, 2, 4, 8), 2000, 10, None, 5)
SCALES = scales(
    trials=(4, 30, 100),  # of the sampled experiments on tables
    steps=(600, 3000, 3000),  # of the experiments on looking ahead
    sampled=(False, True, True),  # whether these are run with sampled gradients, too
    brax=(None, None, PAPER_BRAX),  # None, or what is run of it
)
# The brax of the preset `reduced`: a size for two cores.
REDUCED_BRAX = Control(("hopper",), (1, 2, 4, 8), 160, 6, 100, 4)


def two_speeds(ratio: float, scheduler: str = "asynchronous", work: float = 1.0) -> Clock:
    """Half of the agents take so much longer; a semi-synchronous step waits for the first half."""
    return Clock(
        scheduler,
        frl.by_agents(_half) if scheduler == "semi-synchronous" else None,
        compute_time=work,
        distribution="two_class",
        slow_factor=float(ratio),
    )


def _half(num_agents: int) -> int:
    return num_agents // 2


def one_slow(time: float, scheduler: str = "asynchronous") -> Clock:
    """The last agent takes so long, the others 1."""

    def times(num_agents: int) -> np.ndarray:
        return np.where(np.arange(num_agents) == num_agents - 1, float(time), 1.0)

    return Clock(scheduler, compute_time=frl.by_agents(times))


# What is exact -----------------------------------------------------------------------------------


# What is sampled ---------------------------------------------------------------------------------


def _pair(**properties):
    """AFedPG as it is run on both clocks, so that the runs of one share a program."""
    return frl.afedpg(m3(), episodes_per_step=8, learning_rate=0.05, momentum=0.1, **properties)


def speedup(scale: Scale, meter: Meter, stage: str) -> xr.Dataset:
    """B7: agents of equal speed, B = 8, eta 0.05, alpha 0.1."""
    made = {name: _pair(clock=Clock(name)) for name in SCHEDULERS}
    variants = [
        Variant(f"{name} N={n}", one, n, {}, scale.trials)
        for name, one in made.items()
        for n in AGENTS
    ]
    return variant_runs.run(variants, 600, meter, stage, metrics=METRICS)


def heterogeneity(scale: Scale, meter: Meter, stage: str) -> xr.Dataset:
    """B7: eight agents, four of them slow; or one."""
    made = {name: _pair(clock=Clock(name)) for name in SCHEDULERS}
    clocks = {f"r={ratio}": functools.partial(two_speeds, ratio) for ratio in RATIOS}
    clocks |= {f"slow={time}": functools.partial(one_slow, time) for time in SLOW}
    variants = [
        Variant(f"{name} {label}", one, 8, {"clock": clock(name)}, scale.trials)
        for name, one in made.items()
        for label, clock in clocks.items()
    ]
    return variant_runs.run(variants, 600, meter, stage, metrics=METRICS)


def methods(scale: Scale, meter: Meter, stage: str) -> xr.Dataset:
    """Every method and learning rate, eight agents of two speeds, one to four; B = 8.

    A message of several local steps takes as many times as long.
    """
    variants = []
    for name, (make, properties, scheduler) in METHODS.items():
        momentum = {"momentum": 0.1} if make is frl.afedpg else {}
        clock = two_speeds(4, scheduler, properties.get("local_steps", 1))
        one = make(m3(), episodes_per_step=8, clock=clock, **properties, **momentum)
        for rate in RATES.get(name, USUAL):
            own = {"learning_rate": rate}
            variants.append(Variant(f"{name} {rate:g}", one, 8, own, scale.trials))
    return variant_runs.run(variants, 600, meter, stage, metrics=METRICS)


def ablation(scale: Scale, meter: Meter, stage: str) -> xr.Dataset:
    """B8: M3 with an entropy bonus, eight agents of equal speed, with and without lookahead.

    Exact gradients; sampled ones of 64 episodes, where the scale has them.
    """
    kinds = {"exact": {"gradient": "exact"}}
    if scale.sampled:
        kinds["sampled"] = {"episodes_per_step": 64}
    variants = []
    for kind, properties in kinds.items():
        for name, ahead in (("with", True), ("without", False)):
            one = frl.afedpg(m3(), entropy=ENTROPY, lookahead=ahead, **properties)
            for rate, momentum in SETTINGS:
                own = {"learning_rate": rate, "momentum": momentum}
                trials = 1 if kind == "exact" else max(2, scale.trials // 3)
                variants.append(
                    Variant(f"{kind} {name} {rate:g}/{momentum:g}", one, 8, own, trials)
                )
    return variant_runs.run(variants, scale.steps, meter, stage, metrics=METRICS, record_every=10)


def delay(scale: Scale, meter: Meter, stage: str) -> xr.Dataset:
    """The same with exact gradients, eta 0.01, alpha 0.05, as the number of agents grows."""
    shared = {"entropy": ENTROPY, "gradient": "exact", "learning_rate": 0.01, "momentum": 0.05}
    made = {
        "with": frl.afedpg(m3(), **shared),
        "without": frl.afedpg(m3(), lookahead=False, **shared),
        "compensated": frl.afedpg(
            m3(), delay_compensation=frl.by_agents(lambda n: n - 1.0), **shared
        ),
    }
    variants = [
        Variant(f"{name} N={n}", one, n, {}, 1) for name, one in made.items() for n in COMPANY
    ]
    return variant_runs.run(variants, scale.steps, meter, stage, metrics=METRICS, record_every=10)


def harm(scale: Scale, meter: Meter, stage: str) -> xr.Dataset:
    """Too long a lookahead for the noise: one episode a message, eta and alpha 0.1, N = 8."""
    variants = [
        Variant(
            name,
            frl.afedpg(m3(), learning_rate=0.1, momentum=0.1, lookahead=ahead),
            8,
            {},
            scale.trials,
        )
        for name, ahead in (("with", True), ("without", False))
    ]
    return variant_runs.run(variants, 4800, meter, stage, metrics=METRICS)


# Control -----------------------------------------------------------------------------------------

# What the pictures of brax show; a message is one of `Control.episodes` episodes.
CONTROL = ("return", "episode_steps", "simulated_time", "staleness", "direction_norm")
BRAX_METHODS = {
    "AFedPG": (frl.afedpg, {}, "asynchronous"),
    "no lookahead": (frl.afedpg, {"lookahead": False}, "asynchronous"),
    "synchronous": (frl.afedpg, {}, "synchronous"),
    "A3C-like": (frl.a3c_pg, {"learning_rate": 0.003}, "asynchronous"),
}


def brax(scale: Scale, meter: Meter, stage: str) -> xr.Dataset:
    """E1 and E2: [environment, label, seed, time]; half of the agents take four times as long.

    AFedPG with every number of agents, the others with the most. Time counts messages: what is
    synchronous is recorded after as many.
    """
    size = scale.brax
    parts = meter.split(stage, len(size.names))
    made = [_brax(size, name, part, stage) for name, part in zip(size.names, parts, strict=True)]
    whole = xr.concat(made, "environment", combine_attrs="override").assign_coords(
        environment=list(size.names)
    )
    return whole.assign_attrs(variant_runs.spent(made))


def _brax(size: Control, name: str, meter: Meter, stage: str) -> xr.Dataset:
    task = envs.brax_task(name, **({} if size.max_steps is None else {"max_steps": size.max_steps}))
    most = max(size.agents)
    groups: dict[int, list[Variant]] = {}
    for method, (make, properties, scheduler) in BRAX_METHODS.items():
        values = {"learning_rate": 0.05, "momentum": 0.2, **properties}
        if make is frl.a3c_pg:
            values.pop("momentum")
        one = make(
            task,
            episodes_per_step=size.episodes,
            clock=two_speeds(4, scheduler),
            network={"hidden": (64, 64), "initializer": "orthogonal"},
            baseline="linear",
            normalize=True,
            discount_weight=False,
            evaluation_episodes=4,
            **values,
        )
        for n in size.agents if method == "AFedPG" else (most,):
            messages = n if scheduler == "synchronous" else 1
            groups.setdefault(messages, []).append(
                Variant(f"{method} N={n}", one, n, {}, size.trials)
            )
    found = []
    every = max(1, size.steps // 40 // most) * most
    meters = meter.split(stage, len(groups))
    for (messages, variants), part in zip(groups.items(), meters, strict=True):
        runs = variant_runs.run(
            variants,
            size.steps // messages,
            part,
            stage,
            metrics=CONTROL,
            record_every=every // messages,
        )
        found.append(meter.count(runs).assign_coords(time=runs["time"].values * messages))
    joined = xr.concat(found, "label", combine_attrs="override")
    return joined.assign_attrs(variant_runs.spent(found))


STAGES = {
    "lookahead": Stage(lookahead, 10),
    "schedule": Stage(schedule, 4),
    "transport": Stage(transport, 10),
    "speedup": Stage(speedup, 40),
    "heterogeneity": Stage(heterogeneity, 60),
    "methods": Stage(methods, 70),
    "ablation": Stage(ablation, 120),
    "delay": Stage(delay, 20),
    "harm": Stage(harm, 30),
    "brax": Stage(brax, 1200),
}
