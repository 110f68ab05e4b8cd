"""Interference: what averages of PPO's networks are worth just before agents exchange.

On the line between the parameters of two agents, theta(t) = (1 - t) theta_0 + t theta_1, the return
J has a barrier where it is below the mean of the ends (Frankle, Dziugaite, Roy and Carbin, *Linear
Mode Connectivity and the Lottery Ticket Hypothesis*, arXiv 1912.05671, of returns instead of
errors):

    B(t) = (J(theta_0) + J(theta_1)) / 2 - J(theta(t)).

Agents that average always have learned something to lose. From there they go on alone, as agents
with any period do between two averages, and are looked at after 1, 10 and 100 epochs. Whoever
averages N agents averages the first N of these.
"""

from __future__ import annotations

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

import fedjax_rl as frl
from fedjax_rl import analysis, streams
from fedjax_rl.algorithms.fedppo_resources import policy_of
from fedjax_rl.federation.algorithm import Algorithm
from fedjax_rl.plotting.page import level, shaded
from fedjax_rl.plotting.style import OKABE_ITO
from fedjax_rl.rollouts import vectorised
from fedjax_rl.studies.claims import control, effect, number
from fedjax_rl.studies.declared import figure
from fedjax_rl.studies.estimates import ratio, together
from fedjax_rl.studies.linear_speedup import deep_runs
from fedjax_rl.studies.linear_speedup.deep_times import AGENTS, PERIODS, REWARD
from fedjax_rl.studies.numbers import Number
from fedjax_rl.studies.pictures import against, page, panel
from fedjax_rl.studies.runs import STILL, Stage
from fedjax_rl.sweeps.compiling import compiler_options
from fedjax_rl.sweeps.programs import NEVER, Threads

SIZES, MANY, RARELY = AGENTS[1:], AGENTS[-1], PERIODS[-1]
POSITIONS = np.linspace(0.0, 1.0, 5)
BETWEEN = POSITIONS[1:-1]
HALVES, EPISODES = 2, 64  # of every network, other ones in the other half
LONGEST = 300  # steps of an episode: most are shorter, and all would wait for the few
FIRST_SEED, OF_EPISODES = 20_000, 30_000
BETTER = """Of small networks on vectors averages are better than what is averaged, and more so the
more agents there are and the longer they were apart: in 100 epochs alone no gain is seen (P15
alone), and yet the average of eight has gained (P15 progress). Slow is there what agents learn
alone, not what averaging makes of it."""


def looked_at(parameters) -> jax.Array:
    """What is evaluated of agents: themselves, averages of some, points between pairs of them.

    Args:
      parameters: [8, q].

    Returns:
      [8 + 3 + 4 * 3, q].
    """
    averages = jnp.stack([parameters[:n].mean(axis=0) for n in SIZES])
    at = jnp.asarray(BETWEEN, parameters.dtype)[:, None, None]
    between = (1 - at) * parameters[None, ::2] + at * parameters[None, 1::2]
    return jnp.concatenate([parameters, averages, between.reshape(-1, parameters.shape[1])])


def worth(returns) -> dict[str, np.ndarray]:
    """Returns [..., 23] of `looked_at` by what they are of.

    Args:
      returns: of the networks.

    Returns:
      "own": means of the first 2, 4, 8 agents, [..., 3]; "average": of their averages, likewise;
      "line": means over the pairs, [..., 5].
    """
    agents, average, between = np.split(returns, [MANY, MANY + len(SIZES)], axis=-1)
    own = np.stack([agents[..., :n].mean(axis=-1) for n in SIZES], axis=-1)
    between = between.reshape(*returns.shape[:-1], len(BETWEEN), -1).mean(axis=-1)
    first, last = (agents[..., which::2].mean(axis=-1, keepdims=True) for which in (0, 1))
    line = np.concatenate([first, between, last], axis=-1)
    return {"own": own, "average": average, "line": line}


def drift(parameters) -> np.ndarray:
    """Root mean square distance of the first 2, 4, 8 agents [8, q] to their mean, [3]."""
    parts = (np.asarray(parameters[:n], np.float64) for n in SIZES)
    return np.array([np.sqrt(np.mean(np.sum((x - x.mean(axis=0)) ** 2, axis=1))) for x in parts])


def _going_apart(algorithm: Algorithm):
    """Networks of 8 agents: alike after so many epochs, and each K epochs later, before an average.

    Args:
      algorithm: that averages after every epoch.

    Returns:
      `(seed, epochs) -> ([q], {K: [8, q]})`.
    """
    begin = jax.jit(lambda seed: frl.init(algorithm, num_agents=MANY, seed=seed))

    def advance(state, epochs):
        return jax.lax.fori_loop(0, epochs, lambda _, own: frl.round(algorithm, own)[0], state)

    advance = jax.jit(advance, compiler_options=compiler_options())

    def run(seed: int, epochs: int):
        state = advance(begin(np.uint32(seed)), np.int32(epochs))
        first, found, done = state.state.agents.learned.parameters[0], {}, 0
        # The period is traced: with another one the same program averages no more.
        never = {**state.params.federation, "sync_period": jnp.full(1, NEVER)}
        params = dataclasses.replace(state.params, federation=never)
        state = dataclasses.replace(state, params=params)
        for period in PERIODS:
            state, done = advance(state, np.int32(period - done)), period
            found[period] = state.state.agents.learned.parameters
        return first, found

    return run


def _returns(algorithm: Algorithm, paired: bool):
    """Returns of networks [G, q], of one half of the episodes and the other.

    Args:
      algorithm: of the agents.
      paired: whether all networks play the same episodes, or each its own.

    Returns:
      `(seed, networks) -> [2, G]`.
    """
    config = algorithm.config.resolved()
    task, policy = dataclasses.replace(config.task, max_steps=LONGEST), policy_of(config)

    def evaluate(keys, networks):
        return vectorised.evaluate(task, policy, keys, networks, EPISODES)[0]

    evaluate = jax.jit(evaluate, compiler_options=compiler_options())

    def of(seed: int, networks):
        count, found = len(networks), []
        for half in range(HALVES):
            whose = np.full(count, half) if paired else half * count + np.arange(count)
            keys = streams.agent_keys(np.full(count, OF_EPISODES + seed, np.uint32), whose)
            found.append(evaluate(keys, networks))
        return REWARD * np.asarray(found, np.float64)

    return of


def _stage(
    name: str, algorithm: Algorithm, *, epochs: int, trials: int, each: float, paired: bool = True
) -> Stage:
    """Returns and drift [K, N, seed, ...] of agents that went apart after so many epochs.

    Args:
      name: of the stage.
      algorithm: of the agents.
      epochs: in which they average always.
      trials: seeds.
      each: seconds of an epoch of an agent.
      paired: as of `_returns`.
    """

    def make(meter):
        report, done = meter.stage(name), itertools.count(1)
        run, returns = _going_apart(algorithm), _returns(algorithm, paired)

        def one(seed: int) -> dict[str, np.ndarray]:
            first, apart = run(seed, epochs)
            networks = [first[None], *map(looked_at, apart.values())]
            played = returns(seed, jnp.concatenate(networks))
            made = np.moveaxis(played[:, 1:].reshape(HALVES, len(PERIODS), -1), 0, 1)
            drifts = np.stack([drift(own) for own in apart.values()])
            report(next(done), trials)
            return {"first": played[:, 0], **worth(made), "drift": drifts}

        seeds = range(FIRST_SEED, FIRST_SEED + trials)
        made = [one(seeds[0])]  # compiles what the others share
        with Threads(2) as pool:
            made += pool.map(one, seeds[1:])
        found = {key: np.stack([own[key] for own in made]) for key in made[0]}
        dims = {
            "first": ("half",),
            "own": ("K", "half", "N"),
            "average": ("K", "half", "N"),
            "line": ("K", "half", "position"),
            "drift": ("K", "N"),
        }
        return xr.Dataset(
            {key: (("seed", *dims[key]), values) for key, values in found.items()},
            {"K": list(PERIODS), "N": list(SIZES), "seed": list(seeds), "position": POSITIONS},
        )

    of = {
        "algorithm": (algorithm.name, algorithm.config),
        "epochs": epochs,
        "trials": trials,
        "evaluation": (POSITIONS.tolist(), HALVES, EPISODES, LONGEST, FIRST_SEED, OF_EPISODES),
        "paired": paired,
    }
    return Stage(name, make, trials * each * MANY * (epochs + RARELY), of)


def middle(line: xr.DataArray) -> xr.DataArray:
    """The barrier in the middle of lines [..., half, position], [...]."""
    ends = line.isel(position=[0, -1]).mean("position")
    return (ends - line.sel(position=0.5, drop=True)).mean("half")


def highest(line: xr.DataArray) -> xr.DataArray:
    """The barrier at its highest, of lines [..., half, position], [...].

    Where that is, the other half of the episodes says: the highest of several noisy numbers would
    be too high, and above 0 where there is no barrier.
    """
    inner = line.isel(position=slice(1, -1)).drop_vars("position")
    least = inner.isel(half=slice(None, None, -1)).argmin("position")
    ends = line.isel(position=[0, -1]).mean("position")
    return (ends - inner.isel(position=least)).mean("half")


@figure("interference", "PPO: what averages are worth, by N and K", only_named=True)
def interference(size):
    """Averages of networks that have drifted apart are published as why averaging rarely is slow.

    Eight agents average after every epoch, and then go on alone from the network that they have by
    then, each on its own experience. After 1, 10 and 100 epochs agents with that period K would
    average. The left panel has the return along the line between two of them, over the same
    episodes at every point and less that before they went apart; the middle one by how much the
    average of the first N is below their own mean. Rates are constant. In the control nothing is
    learned, and every network plays episodes of its own.
    """
    size = deep_runs.sized(size)
    plain, trials = deep_runs.algorithm(size, schedule="constant"), size.ppo_trials
    each = {"trials": trials, "each": deep_runs.PICTURES if size.ppo_size == "paper" else 1 / 250}
    stage = _stage("ppo-lines", plain, epochs=size.ppo_lines, **each)
    # Alike for ever, these agents would do the very same in the same episodes.
    still = plain.replace(learning_rate=STILL)
    null = _stage("ppo-lines-null", still, epochs=0, paired=False, **each)
    first, line, own, average = (
        stage[name] if name == "line" else stage[name].then(lambda x: x.mean("half"))
        for name in ("first", "line", "own", "average")
    )
    barrier, lost = line.then(middle), own - average
    yield effect(
        "P14",
        "barrier in the middle of the line between two agents: K = 100",
        barrier.sel(K=RARELY),
        published="averages of agents that have drifted apart are worse than these",
        why=BETTER,
    )
    yield effect(
        "P14 highest",
        "the same where it is highest along the line",
        line.sel(K=RARELY).then(highest),
        why="as P14",
    )
    yield effect(
        "P14 order",
        "the barrier in the middle: K = 10 less K = 1, K = 100 less K = 10",
        together(*_steps(barrier)),
        band=((0, None),) * 2,
        why="as P14; between K = 1 and K = 10 there is too little to see in ten runs",
    )
    yield effect(
        "P15",
        "own mean of N = 2, 4, 8 agents less the return of their average: K = 100",
        lost.sel(K=RARELY),
        published="averages of agents that have drifted apart are worse than these",
        band=((0, None),) * len(SIZES),
        why="as P14",
    )
    yield number(
        "P15 often",
        "the same in parts of the own mean: K = 1",
        together(*(ratio(lost.sel(K=1, N=n), own.sel(K=1, N=n)) for n in SIZES)),
        ((None, 0.05),) * len(SIZES),
        why="of two agents 128 episodes each in ten runs leave more than 5 % open",
    )
    yield effect(
        "P15 agents",
        "own mean less average, K = 100: N = 8 less N = 2",
        lost.sel(K=RARELY, N=MANY) - lost.sel(K=RARELY, N=SIZES[0]),
        why="as P14",
    )
    yield effect(
        "P15 progress",
        "return of the average of 8 less that of the network they began with: K = 100",
        average.sel(K=RARELY, N=MANY) - first,
    )
    yield effect(
        "P15 alone",
        "own mean of 8 agents less the return of the network they began with: K = 100",
        own.sel(K=RARELY, N=MANY) - first,
        why="whether agents even lose in 100 epochs alone, ten runs leave open",
    )
    yield effect(
        "P16",
        "logarithm of the drift of 8 agents: K = 10 less K = 1, K = 100 less K = 10",
        together(*_steps(stage["drift"].log().sel(N=MANY))),
        band=((0, None),) * 2,
    )
    yield control(
        "P14 null",
        "barrier in the middle, and where it is highest, where nothing is learned: K = 100",
        together(*(null["line"].sel(K=RARELY).then(of) for of in (middle, highest))),
        ((0, None),) * 2,
    )
    yield control(
        "P15 null",
        "own mean of 8 agents less average where nothing is learned: K = 100",
        (null["own"] - null["average"]).sel(K=RARELY, N=MANY).then(lambda x: x.mean("half")),
    )
    among = {
        "by": "N",
        "log": "x",
        "dodge": 0.1,
        "x": "epochs alone K",
        "styles": {f"N = {n}": place for place, n in enumerate(SIZES, 3)},
    }
    yield page(
        "interference",
        panel(_line, stage, title="between two agents"),
        against(
            lost,
            "K",
            title="averages of N agents",
            y="own mean less average",
            level=(0.0, "no loss"),
            **among,
        ),
        against(
            stage["drift"], "K", title="distance to the average", y="drift", **among | {"log": "xy"}
        ),
        title=f"{trials} runs, {size.ppo_lines} epochs with averages and K alone; 95 % intervals",
    )


def _steps(own: Number) -> list[Number]:
    """Differences of neighbouring periods."""
    each = [own.sel(K=period) for period in PERIODS]
    return [later - sooner for sooner, later in itertools.pairwise(each)]


def _line(axis, made: xr.Dataset) -> None:
    """Return along the line less that before they went apart, a band of every K."""
    own = (made["line"] - made["first"]).mean("half")
    for period, colour in zip(PERIODS, OKABE_ITO, strict=False):
        values = own.sel(K=period).transpose("seed", "position").values
        mean, low, high = np.array([analysis.mean_interval(x) for x in values.T]).T
        shaded(
            axis, POSITIONS, low, mean, high, color=colour, marker="o", ms=3, label=f"K = {period}"
        )
    level(axis, 0.0, "before they went apart")
    axis.set_xlabel("position")
    axis.set_ylabel("return / 10, change")
