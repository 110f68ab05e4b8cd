"""Figure 8 of `linear-speedup`: networks, the game, the ledger, final rewards of federated PPO."""

from __future__ import annotations

import functools

import numpy as np
import xarray as xr

from fedjax_rl.algorithms.fedppo_resources import policy_of
from fedjax_rl.envs import procgen
from fedjax_rl.learners.actor_critic import actor_critic_for
from fedjax_rl.studies.claims import control, effect, number
from fedjax_rl.studies.declared import figure
from fedjax_rl.studies.estimates import exactly, mean_of, measured, together
from fedjax_rl.studies.linear_speedup import deep_runs as runs
from fedjax_rl.studies.linear_speedup.deep_times import KINDS, NEVER, NULL, PASSES, PERIODS, REWARD
from fedjax_rl.studies.numbers import Number
from fedjax_rl.studies.pictures import against, curves, page
from fedjax_rl.studies.runs import Stage
from fedjax_rl.studies.study import Scale

NETWORKS = ("impala", "vit-12-8-64", "vit-6-8-96", "vit-4-4-32", "vit-3-4-16")
PARAMETERS = (626_256, 620_624, 702_256, 61_232, 15_056)
NO_WORSE = (
    "Averages of small networks on vectors are not worse than what is averaged, as the figure "
    "interference finds (rows P14 and P15)."
)
RANDOM_PLAY = (512, 24)  # copies, and episodes of each


def _facts() -> Stage:
    """P1 and P2: parameters of the networks; BigFish under a random policy."""
    game = runs.task(Scale("facts", {"ppo_size": "paper"}))

    def make(meter):
        report = meter.stage("ppo-facts")
        sizes = [actor_critic_for(game, network=name).num_parameters for name in NETWORKS]
        report(1, 2)
        seen = procgen.play(game.env.dynamics, game.params, "random", *RANDOM_PLAY)
        report(2, 2)
        found = {"returns": ("episode", seen.gain.ravel())}
        found["lengths"] = ("episode", seen.length.ravel())
        return xr.Dataset({"parameters": ("network", sizes), **found})

    return Stage("ppo-facts", make, 15, (NETWORKS, RANDOM_PLAY))


def _deviations(size: Scale, *made: xr.Dataset) -> list:
    """Largest deviations of the ledger of K = 1, 10, 100: steps, messages and bytes up."""
    config = runs.algorithm(size).config.resolved()
    each = config.num_envs * config.rollout_steps * -(-size.ppo_epochs // PASSES)
    found = []
    for own, period in zip(made, PERIODS, strict=True):
        messages = own["num_agents"] * ((size.ppo_epochs - 1) // period + 1)
        bytes_up = 4 * policy_of(config).num_parameters * messages
        pairs = ("env_steps", own["num_agents"] * each), ("messages_up", messages)
        pairs = *pairs, ("bytes_up", bytes_up)
        found.append([float(abs(own[name] - expected).max()) for name, expected in pairs])
    return list(map(exactly, np.max(found, axis=0)))


@figure("fig8", "PPO on BigFish: final reward of every N and K", only_named=True)
def fig8(size):
    """The published grid, N = 1, 2, 4, 8 and K = 1, 10, 100, as means over runs.

    Below the paper's size, vectors stand for pictures and a small network learns for few epochs:
    numbers do not compare with the published ones, orders and signs may. Every run has random
    numbers of its own. Beside the grid are agents that average only once, after the first epoch
    (independent), and agents whose learning rate is 1e-12 (nothing is learned). The published
    half of Fig. 8 on the number of epochs is a constant here: all runs go to the end.
    """
    bench = runs.Bench(size)
    size, facts = bench.size, _facts()
    yield number(
        "P1",
        "parameters of IMPALA and of the four ViT",
        measured(lambda own: [exactly(n) for n in own["parameters"].values], facts),
        tuple((n, n) for n in PARAMETERS),
        published=PARAMETERS,
    )
    yield number(
        "P2",
        "BigFish, random policy: return, length",
        measured(lambda own: [mean_of(own[n].values) for n in ("returns", "lengths")], facts),
        ((0.77, 0.93), (110, 124)),
        reference=(0.835, 117.1),
        why="the reference is the original game's, of 3233 episodes",
    )
    yield number(
        "P9",
        "environment steps, messages and bytes up of all runs less what N, K, epochs and the "
        "parameters of the network make: largest",
        measured(functools.partial(_deviations, size), *(bench.stages[k] for k in PERIODS)),
        ((0, 0),) * 3,
    )
    yield number(
        "P9 size",
        "MiB that an agent with IMPALA sends and gets at an average",
        measured(lambda own: exactly(2 * 4 * int(own["parameters"][0]) / 2**20), facts),
        (4.777953, 4.777955),
        published=4.777954,
    )
    eight = {kind: bench.end(kind).sel(N=8) for kind in KINDS}
    one = bench.end(1).sel(N=1)
    yield effect(
        "P10",
        "final reward of N = 8, K = 1 less that of N = 1, of K = 100, of independent agents",
        together(eight[1] - one, eight[1] - eight[100], eight[1] - eight[NEVER]),
        published="1.5 to 1.8 with N = 8, K = 1; 0.36 to 0.45 with N = 1; 0.13 with K = 100",
        band=((0, None),) * 3,
    )
    yield control(
        "P10 null",
        "N = 8 less N = 1 where nothing is learned",
        eight[NULL] - bench.end(NULL).sel(N=1),
    )
    own, average = (bench.server[name]["FedPPO"].late() for name in ("episode_return", "return"))
    yield effect(
        "P11",
        "reward of 8 agents less that of their average, second half, K = 10 and 100: interference",
        REWARD * (own - average),
        published="averages of agents that have drifted apart are worse than these",
        band=((0, None),) * 2,
        why=NO_WORSE if size.preset == "vectors" else "",
    )
    title = f"{size.ppo_trials} runs of {size.ppo_epochs} epochs each, 95 % intervals"
    ends = against(
        _side_by_side(bench),
        "N",
        by="runs",
        x="agents N",
        y="last reward / 10",
        log="x",
        dodge=0.05,
    )
    yield page("fig8", ends, title="last reward, " + title)

    # An epoch has few ends of episodes: of a long run a fiftieth is shown as one.
    window = max(5, size.ppo_epochs // PASSES // 50)

    def curves_of(kind):
        rewards = bench.rewards[kind].then(lambda array: array.mean("agent"))
        return curves(
            rewards, by="N", title=KINDS[kind], y="reward / 10", window=window, limits=(0, None)
        )

    yield page("fig8-curves", *map(curves_of, KINDS), title=title)


def _side_by_side(bench: runs.Bench) -> Number:
    """Final rewards [runs, N, seed]."""
    ends = [bench.end(kind) for kind in KINDS]
    names = xr.DataArray(list(KINDS.values()), dims="runs", name="runs")
    needs = dict.fromkeys(stage for own in ends for stage in own.needs)
    return Number(lambda results: xr.concat([own(results) for own in ends], names), tuple(needs))
