"""The runs behind figures 8 to 13 of the study `linear-speedup`: federated PPO on BigFish.

Einhorn, *Federated Reinforcement Learning Has Linear Speedup* (2023), the deep half. An epoch is a
pass over a rollout, rewards are divided by ten. Two protocols read the same kind of runs. `paper`
is the author's: PPO as in his code, and the first epoch at which a centred mean of any agent's
rewards is above the threshold. `clean` has PPO without the peculiarities, and the first epoch at
which the trailing mean over all agents is.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np
import xarray as xr

import fedjax_rl as frl
from fedjax_rl import envs
from fedjax_rl.algorithms.fedppo_properties import SIZES
from fedjax_rl.envs import procgen
from fedjax_rl.federation.algorithm import Algorithm
from fedjax_rl.federation.ledger import COLUMNS
from fedjax_rl.learners.actor_critic import actor_critic_for
from fedjax_rl.studies import variant_runs
from fedjax_rl.studies.stage_runs import Stage
from fedjax_rl.studies.study import Meter, Scale, scales
from fedjax_rl.sweeps.cells import Cell
from fedjax_rl.sweeps.sweep import run_cells

AGENTS = (1, 2, 4, 8)
PERIODS = (1, 10, 100)
REWARD = 0.1  # of a fish
PAPER_THRESHOLDS = (0.15, 0.2, 0.3, 0.5)
# Of the way from the first reward to the best last one, where the sizes are not the paper's.
SHARES = (0.2, 0.4, 0.6)
NETWORKS = ("impala", "vit-12-8-64", "vit-6-8-96", "vit-4-4-32", "vit-3-4-16")
RANDOM_PLAY = (512, 12)  # copies, and episodes of each


SCALES = scales(
    preset=("paper", "paper", "paper"),  # the protocol, "paper" or "clean"
    size=("tiny", "small", "paper"),  # of the networks and rollouts, as FedPPO names them
    observation=("vector", "pixels", "pixels"),
    trials=(3, 3, 3),  # of every cell
    epochs=(400, 600, 4000),  # of every run
    window=(30, 30, 50),  # epochs that rewards are averaged over
    controls=(2, 0, 3),  # trials of the controls of the single-rate explanation; 0 for none
    # None for those of the protocol, whose entropy is most of what a small network learns in few
    # epochs. The learning rate is the peak, minibatches are those of a pass.
    learning_rate=(3e-3, None, None),
    minibatches=(8, None, None),
    entropy_coefficient=(1e-3, None, None),
)


def task(scale: Scale):
    """BigFish with the paper's options: easy, all levels, plain rectangles on black."""
    return envs.procgen_task(
        "BigFish",
        observation=scale.observation,
        discount=0.99,
        paint_vel_info=True,
        use_backgrounds=False,
        restrict_themes=True,
        use_monochrome_assets=True,
    )


def algorithm(scale: Scale, **values) -> Algorithm:
    """FedPPO as a protocol has it."""
    own = {"preset": scale.preset, "size": scale.size, "sync_period": 1}
    if scale.preset == "paper":
        # The schedule is at its lowest after a quarter of the longest run.
        horizon = max(4, scale.epochs // 4)
        own |= {
            "schedule.warmup_epochs": max(1, horizon // 100),
            "schedule.horizon_epochs": horizon,
        }
    for name in ("learning_rate", "minibatches"):
        if getattr(scale, name) is not None:
            own[name] = getattr(scale, name)
    if scale.entropy_coefficient is not None:
        own["loss.entropy_coefficient"] = scale.entropy_coefficient
    return frl.fedppo(task(scale), **{**own, **values})


def runs_of(one: Algorithm, cells: list[Cell], scale: Scale, meter: Meter, stage: str):
    """`reward` [cell, time] and `reward_of_agent` [cell, agent, time] of cells, and the ledger."""
    found = meter.count(
        run_cells(
            one,
            cells,
            num_steps=scale.epochs,
            record_every=1,
            metrics=("episode_return", "episode_return_of_agent"),
            devices=meter.devices,
            progress=meter.stage(stage),
        )
    )
    # As many places for agents everywhere, so that sets of runs can be laid side by side.
    each = REWARD * found.episode_return_of_agent.values
    missing = max(AGENTS) - each.shape[1]
    each = np.pad(each, ((0, 0), (0, missing), (0, 0)), constant_values=np.nan)
    return xr.Dataset(
        {
            "reward": (("cell", "time"), REWARD * found.episode_return.values),
            "reward_of_agent": (("cell", "agent", "time"), each),
            **{name: ("cell", found[name].values) for name in COLUMNS},
        },
        {
            "time": found.time.values,
            "num_agents": ("cell", [cell.num_agents for cell in cells]),
            "sync_period": ("cell", [int(c.properties.get("sync_period", 1)) for c in cells]),
            "trial": ("cell", [cell.seed for cell in cells]),
        },
        {"seconds": found.attrs["seconds"]},
    )


def grid_cells(scale: Scale) -> list[Cell]:
    """N, K and trials; one agent has one K."""
    return [
        Cell(n, trial, {"sync_period": period})
        for n in AGENTS
        for period in (PERIODS if n > 1 else PERIODS[:1])
        for trial in range(scale.trials)
    ]


def grid(scale: Scale, meter: Meter, stage: str) -> xr.Dataset:
    """Figs 8 to 13."""
    return runs_of(algorithm(scale), grid_cells(scale), scale, meter, stage)


class Control(NamedTuple):
    """Runs with K = 1 that differ from the published ones in one thing.

    Attributes:
      name: what differs.
      algorithm: of the runs.
      cells: of the runs.
      sizes: N that each of them is plotted at; a single agent may stand for several.
    """

    name: str
    algorithm: Algorithm
    cells: list[Cell]
    sizes: list[int]


WIDE = "one agent, N times the batch"


def control_sets(scale: Scale) -> list[Control]:
    """What a slope below -1 is made of.

    "as published" is the protocol itself; "constant rate" has no schedule; "averaged moments"
    averages Adam's, too; "aligned rewards" counts a reward for its own action; "one agent, N times
    the batch" and "one agent, rate / N" and "rate / sqrt N" have a single agent. The first of them
    is a program, and an entry, for every N.
    """
    many = [(n, trial) for n in AGENTS for trial in range(scale.controls)]
    sizes = [n for n, _ in many]
    plain = algorithm(scale)
    rate = plain.config.resolved().learning_rate
    variants = {
        "as published": plain,
        "constant rate": algorithm(scale, schedule="constant"),
        "averaged moments": algorithm(scale, moments="average"),
        "aligned rewards": algorithm(scale, rewards="correct"),
    }
    rates = {
        "one agent, rate / N": [rate / n for n in sizes],
        "one agent, rate / sqrt N": [rate / np.sqrt(n) for n in sizes],
    }
    cells = [Cell(n, trial, {}) for n, trial in many]
    sets = [Control(name, one, cells, sizes) for name, one in variants.items()]
    for name, values in rates.items():
        pairs = zip(many, values, strict=True)
        own = [Cell(1, trial, {"learning_rate": value}) for (_, trial), value in pairs]
        sets.append(Control(name, plain, own, sizes))
    for n in AGENTS:
        wide = algorithm(scale, num_envs=n * environments(scale))
        alone = [Cell(1, trial, {}) for trial in range(scale.controls)]
        sets.append(Control(WIDE, wide, alone, [n] * len(alone)))
    return sets


def controls(scale: Scale, meter: Meter, stage: str) -> xr.Dataset:
    """The runs of `control_sets`, [control, cell]."""
    if not scale.controls:
        return xr.Dataset()
    parts: dict = {}
    sets = control_sets(scale)
    for one, part in zip(sets, meter.split(stage, len(sets)), strict=True):
        found = runs_of(one.algorithm, one.cells, scale, part, stage)
        found = found.assign_coords(control=one.name, size=("cell", one.sizes))
        found = found.drop_vars(["num_agents", "sync_period", "trial"])
        parts.setdefault(one.name, []).append(found)
    spent = variant_runs.spent([part for each in parts.values() for part in each])
    joined = [xr.concat(each, "cell", combine_attrs="override") for each in parts.values()]
    whole = xr.concat(joined, "control", combine_attrs="override", coords="minimal")
    return meter.count(whole.assign_attrs(spent))


def plan(scale: Scale, needed) -> dict:
    """The runs of stages, as `Study.plan` has them."""
    made = {
        "grid": [Control("grid", algorithm(scale), grid_cells(scale), [])],
        "controls": control_sets(scale) if scale.controls else [],
    }
    return {
        stage: [
            (one.algorithm, Counter(cell.num_agents for cell in one.cells), scale.epochs)
            for one in sets
        ]
        for stage, sets in made.items()
        if stage in needed and sets
    }


def environments(scale: Scale) -> int:
    """Environments of an agent."""
    return SIZES[scale.size]["num_envs"]


def facts(scale: Scale, meter: Meter, stage: str) -> xr.Dataset:
    """P1 and P2: parameters of the networks; BigFish under a random policy."""
    report = meter.stage(stage)
    game = task(scale.replace(observation="pixels"))
    sizes = [actor_critic_for(game, network=name).num_parameters for name in NETWORKS]
    report(1, 2)
    seen = procgen.play(game.env.dynamics, game.params, "random", *RANDOM_PLAY)
    report(2, 2)
    return xr.Dataset(
        {
            "parameters": ("network", sizes),
            "returns": ("episode", seen.gain.ravel()),
            "lengths": ("episode", seen.length.ravel()),
        },
        {"network": list(NETWORKS)},
    )


STAGES = {
    "facts": Stage(facts, 10),
    "grid": Stage(grid, 300),
    "controls": Stage(controls, 500),
}
