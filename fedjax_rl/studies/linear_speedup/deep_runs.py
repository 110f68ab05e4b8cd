"""The runs behind figures 8 to 13 of `linear-speedup`: federated PPO on BigFish."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable

import numpy as np
import xarray as xr

import fedjax_rl as frl
from fedjax_rl import envs
from fedjax_rl.algorithms.fedppo_properties import SIZES as SETUPS
from fedjax_rl.federation.algorithm import Algorithm
from fedjax_rl.studies.estimates import Estimate
from fedjax_rl.studies.linear_speedup import deep_times as times
from fedjax_rl.studies.linear_speedup.deep_times import (
    AGENTS,
    AUTHORS,
    NEVER,
    NULL,
    PASSES,
    PERIODS,
    Seen,
)
from fedjax_rl.studies.numbers import Number
from fedjax_rl.studies.pictures import Panel
from fedjax_rl.studies.runs import STILL, Results, Stage, runs
from fedjax_rl.studies.study import Scale

EACH = "episode_return_of_agent"
# Of trials, epochs and so on (smoke, quick, paper); controls and server are trials, too.
SIZES = {
    "ppo_size": ("tiny", "tiny", "paper"),
    "ppo_trials": (2, 10, 3),
    "ppo_epochs": (30, 300, 3999),
    "ppo_lines": (30, 600, 3999),
    "ppo_controls": (None, None, 3),
    "ppo_server": (None, None, 3),
}
PRESETS = ("paper", "clean", "vectors", "paper-vectors")
SMALL = ("vectors", "paper-vectors")
# These at paper scale: a small network that sees numbers, for as long as it learns.
VECTORS = {
    "ppo_size": "tiny",
    "ppo_trials": 10,
    "ppo_epochs": 3000,
    "ppo_lines": 3000,
    "ppo_controls": 5,
}
PICTURES = 145.0  # seconds of an epoch of an agent with IMPALA, roughly
WIDE = "one agent, N times the batch"


def task(size: Scale, game: str = "BigFish"):
    """A game with the paper's options: easy, all levels, plain rectangles on black."""
    return envs.procgen_task(
        game,
        observation="pixels" if size.ppo_size == "paper" else "vector",
        discount=0.99,
        paint_vel_info=True,
        use_backgrounds=False,
        restrict_themes=True,
        use_monochrome_assets=True,
    )


def algorithm(
    size: Scale, *, game: str = "BigFish", num_epochs: int | None = None, **more
) -> Algorithm:
    """FedPPO as a protocol has it; a small network learns faster, with less entropy.

    The two presets for small networks differ in the author's protocol alone: rewards a step late, a
    schedule, minibatches of whole steps, gradients that are not clipped.

    Args:
      size: of the study.
      game: "BigFish" or "CoinRun".
      num_epochs: of the longest run; those of figures 9 to 13 by default.
      **more: properties of the algorithm.
    """
    own: dict = {"preset": "clean", "size": size.ppo_size}
    if size.preset in AUTHORS:
        # The schedule is at its lowest after a quarter of the longest run.
        horizon = max(4, ((num_epochs or size.ppo_epochs) + 1) // 4)
        own |= {"preset": "paper", "schedule.horizon_epochs": horizon}
        own["schedule.warmup_epochs"] = max(1, horizon // 100)
    if size.preset in SMALL:
        own["learning_rate"] = 1e-3
        if size.preset in AUTHORS:
            own["minibatches"] = 8
    elif size.ppo_size != "paper":
        own |= {"learning_rate": 3e-3, "minibatches": 8, "loss.entropy_coefficient": 1e-3}
    return frl.fedppo(task(size, game), **{**own, **more})


def sized(size: Scale) -> Scale:
    """With what the preset says: small networks at paper scale are not of the paper's size."""
    if size.preset in SMALL and size.name == "paper":
        return size.replace(**{**VECTORS, "ppo_server": VECTORS["ppo_trials"]})
    return size


class Bench:
    """All runs of a size: every one has a seed of its own.

    Attributes:
      size: with what the preset says.
      stages: name -> runs of it.
    """

    def __init__(self, size: Scale) -> None:
        """Declares the stages; nothing runs."""
        self.size = size = sized(size)
        plain, place = algorithm(size), itertools.count()
        still = {NULL: (plain, {"learning_rate": STILL})}
        rate = plain.config.resolved().learning_rate
        setup = SETUPS[size.ppo_size]

        def made(name: str, methods: dict, axes: dict, agents: int, trials="ppo_trials", **more):
            count = getattr(size, trials)
            # What the scale has none of takes as long as at the paper's.
            paper = size.ppo_size == "paper" or count is None
            each = 3999 * PICTURES if paper else size.ppo_epochs / 250
            options = {"metrics": (EACH,), "record_every": PASSES, **more}
            return runs(
                f"ppo-{name}",
                methods,
                axes,
                num_steps=size.ppo_epochs,
                trials=count,
                paired=False,
                first_seed=1000 * next(place),
                seconds=agents * (count or 3) * each,
                **options,
            )

        self.stages: dict[str, Stage] = {}
        many = {"num_agents": AGENTS[1:]}
        self.stages["one"] = made("one", {"FedPPO": plain, **still}, {"num_agents": AGENTS[:1]}, 2)
        for kind, period in {**{k: k for k in PERIODS}, NEVER: size.ppo_epochs + 1}.items():
            method = {"FedPPO": (plain, {"sync_period": period})}
            self.stages[kind] = made(str(kind), method, many, sum(AGENTS[1:]))
        self.stages[NULL] = made("null", still, many, sum(AGENTS[1:]))
        alone = {
            "one agent, rate / N": lambda at: {"learning_rate": rate / at["N"]},
            "one agent, rate / √N": lambda at: {"learning_rate": rate / np.sqrt(at["N"])},
            WIDE: lambda at: {"num_envs": at["N"] * setup["num_envs"]},
        }
        controls = {
            "constant rate": {"schedule": "constant"},
            "averaged moments": {"moments": "average"},
            "aligned rewards": {"rewards": "correct"},
        }
        self.controls = made(
            "controls",
            {n: (algorithm(size, **own), _agents) for n, own in controls.items()}
            | {n: (plain, own) for n, own in alone.items()},
            {"N": {n: {} for n in AGENTS}},
            6 * sum(AGENTS),
            "ppo_controls",
        )
        # Rarely looked at, as episodes are played to their ends.
        self.server = made(
            "server",
            {"FedPPO": algorithm(size, evaluation_episodes=8)},
            {"sync_period": PERIODS[1:]},
            2 * AGENTS[-1],
            "ppo_server",
            num_agents=AGENTS[-1],
            metrics=("episode_return", "return"),
            record_every=10 * PASSES,
        )
        self.rewards = {kind: self._joined(kind) for kind in times.KINDS}
        # Results of a directory are read once, not for every claim.
        self.seen = functools.lru_cache(maxsize=1)(self._seen)

    def _joined(self, kind) -> Number:
        """Rewards of agents [N, seed, agent, time] of a kind; one agent stands under all."""
        one, many = self.stages["one"], self.stages[kind]

        def of(results: Results) -> xr.DataArray:
            first = results[one][EACH].sel({"method": NULL if kind == NULL else "FedPPO"})
            more = results[many][EACH].isel(method=0)
            first = first.pad(agent=(0, more.sizes["agent"] - 1))
            parts = [own.reset_coords(drop=True) for own in (first, more)]
            return times.REWARD * xr.concat(parts, "num_agents").rename(num_agents="N")

        return Number(of, (one, many))

    def _seen(self, results: Results) -> Seen:
        return Seen(self.size, {kind: own(results) for kind, own in self.rewards.items()})

    def end(self, kind) -> Number:
        """Final reward of runs of a kind, by N."""
        return self.rewards[kind].then(lambda array: times.late(array.mean("agent"), self.size))

    def of(self, function: Callable, *more: Stage) -> Estimate:
        """Numbers that a function of `Seen`, and of the Datasets of other stages, computes."""
        needs = (*self.stages.values(), *more)
        return Estimate(
            lambda results: function(self.seen(results), *(results[own] for own in more)), needs
        )

    def panel(self, draw: Callable, *more: Stage, title: str = "") -> Panel:
        """A panel; `draw` takes the axes, `Seen` and the Datasets of other stages."""

        def of(axis, results):
            draw(axis, self.seen(results), *(results[own] for own in more))

        return Panel(of, (*self.stages.values(), *more), title)


def _agents(at: dict) -> dict:
    return {"num_agents": at["N"]}
