"""Action values and values of a policy: Einhorn's runs, Beikmohammadi's and Gunn's code."""

from __future__ import annotations

import itertools

import numpy as np
import optax
import xarray as xr
from scipy import stats

from fedjax_rl import algorithms, analysis, envs
from fedjax_rl.analysis import Measured, around
from fedjax_rl.studies.claims import control, effect, number
from fedjax_rl.studies.declared import figure
from fedjax_rl.studies.estimates import mean, measured
from fedjax_rl.studies.others.reference import beside, reference
from fedjax_rl.studies.pictures import page, panel
from fedjax_rl.studies.runs import STILL, Stage, runs
from fedjax_rl.sweeps.cells import Cell
from fedjax_rl.sweeps.sweep import run_cells

# Beikmohammadi ------------------------------------------------------------------------------------

TD_ROUNDS = (100, 200, 500, 1000)
TD = {  # seed of the MDPs -> squared errors of his code at these rounds, 48 runs
    0: (50.820, 30.952, 7.021, 0.5931),
    2: (58.453, 35.734, 8.410, 0.7704),
}
TD_SAME = (0.005, 0.005, 0.01, 0.03)  # parts of these that count as the same


def perturbed_chains(seed: int):
    """His chains: a kernel [S, S], rewards [S], the agents' kernels and states, in his order."""
    rng = np.random.RandomState(seed)  # these very numbers are drawn
    kernel = rng.random_sample((10, 10))
    kernel /= kernel.sum(1, keepdims=True)
    reward, own = rng.random_sample(10), []
    for _ in range(10):
        noise = rng.normal(0.0, 0.05, kernel.shape)
        noise *= min(1.0, 0.1 / np.linalg.norm(noise))
        one = np.maximum(kernel + noise, 1e-12)
        own.append(one / one.sum(1, keepdims=True))
    return kernel, reward, own, rng.randint(10, size=10)


@figure("td", "Beikmohammadi: federated TD(0) under Markovian sampling")
def td(size):
    """Ten chains that differ by 0.1, K = 5, a local step of 0.05 and half a step of the server.

    References are runs of his code (github.com/AliBeikmohammadi/FedRL, `FedTD-main.py --sampling
    markov`, n = N = 10, gamma 0.8), 48 of each of two sets of chains, with standard errors of
    0.028, 0.023, 0.012 and 0.003. Here it is `fedq` with one action.
    """
    methods = {}
    for seed in TD:
        kernel, reward, own, states = perturbed_chains(seed)
        pairs = zip(own, states, strict=True)
        mdps = [envs.tabular_mdp(p[:, None], reward[:, None, None], 0.8, s) for p, s in pairs]
        options = {"epsilon": 1.0, "learning_rate": 0.05, "sync_period": 5}
        options |= {"server_optimizer": optax.sgd(0.5)}
        methods[f"chains {seed}"] = algorithms.fedq(envs.stack_mdps(mdps), **options)
        centre = np.linalg.solve(np.eye(10) - 0.8 * kernel, reward)[:, None]
        methods[f"chains {seed}, to the centre"] = methods[f"chains {seed}"].replace(
            reference=centre
        )
    methods["still"] = (methods["chains 0"], {"learning_rate": STILL})
    made = {"num_steps": 5000, "num_agents": 10, "record_every": 500, "trials": size.td_trials}
    all_runs = runs("td", methods, seconds=20, metrics=("error_server",), **made)["error_server"]
    times = {"time": [5 * r for r in TD_ROUNDS]}
    for seed, numbers in TD.items():
        yield number(
            f"TD{seed}",
            f"squared distance to the values of the mean chain of seed {seed}, after 100, 200, 500 "
            "and 1000 rounds",
            mean(all_runs[f"chains {seed}"].sel(times)),
            tuple(around((v,), part)[0] for v, part in zip(numbers, TD_SAME, strict=True)),
            reference=numbers,
        )
    yield number(
        "TD0 centre",
        "the same to the values of the chain in the middle after 100 rounds",
        mean(all_runs["chains 0, to the centre"].at(500)),
        *around((50.456,), 0.005),
        reference=50.456,
    )
    yield control(
        "TD0 null",
        "the distance after 1000 rounds where nothing is learned",
        mean(all_runs["still"].at(5000)),
        around(TD[0], 0.03)[-1],
    )

    def draw(axis, data):
        for place, (seed, numbers) in enumerate(TD.items()):
            own = data["error_server"].sel({"method": f"chains {seed}"}).mean("seed")
            axis.semilogy(own.time / 5, own, color=f"C{place}", label=f"fedjax_rl, chains {seed}")
            axis.plot(TD_ROUNDS, numbers, "x", color=f"C{place}", label=f"his code, chains {seed}")
        axis.set_xlabel("rounds")
        axis.set_ylabel("squared distance to the mean chain")
        axis.legend()

    yield page(
        "td",
        panel(draw, *all_runs.needs),
        title=f"ten agents, K = 5, means of {size.td_trials} and of 48 runs",
    )


# Einhorn ------------------------------------------------------------------------------------------

RATES, SOME = (0.01, 0.1, 0.2, 0.5, 1.0), (2, 4, 8, 16)
PERIODS = {"K >= 100": (100, 1000, 10_000), "K <= 10": (1, 10)}
EPISODE_STEPS, MOST = 101, 61  # of an episode; records of ten episodes, of which he needed 60
# MDP, K -> the geometric mean of the last errors of all his runs, epsilon 0 and 1.
HIS = {
    (3701, "K >= 100"): 0.6968,
    (3703, "K >= 100"): 1.0205,
    (3701, "K <= 10"): 0.3265,
    (3703, "K <= 10"): 0.5035,
}


def _repeated(repetitions: int):
    """A stage: the last error of every one of his runs, [mdp, K, run, repetition]."""

    def make(meter):
        report, parts = meter.stage("einhorn"), {}
        for place, (mdp, periods) in enumerate(HIS):
            product = itertools.product((0.0, 1.0), SOME, RATES, PERIODS[periods])
            cells = [
                Cell(n, seed, {"learning_rate": a, "sync_period": k, "epsilon": e})
                for seed, ((e, n, a, k), _) in enumerate(
                    itertools.product(list(product), range(repetitions))
                )
            ]
            made = run_cells(
                algorithms.fedq(envs.random_mdp(mdp)),
                cells,
                num_steps=10 * EPISODE_STEPS * MOST,
                record_every=10 * EPISODE_STEPS,
                metrics=("error_local",),
                devices=meter.devices,
                progress=lambda done, total, at=place: report(at + done / total, len(HIS)),
            )
            distance = np.sqrt(meter.count(made)["error_local"].values.astype(np.float64))
            stop = analysis.author_stop(distance, np.random.default_rng(mdp))
            final, _ = analysis.author_final(distance, stop)
            parts[f"{mdp}, {periods}"] = ((periods, "repetition"), final.reshape(-1, repetitions))
        return xr.Dataset(parts)

    return Stage("einhorn", make, 120, (repetitions, MOST))


def factor(mdp: int, periods: str, data: xr.Dataset) -> Measured:
    """His error in parts of ours, a geometric mean over his runs, with a 95 % interval.

    Every repetition has all of his runs, each with words of its own. His are one more, so that
    the interval is that of the difference between one repetition and the mean of the others.
    """
    logs = np.log(data[f"{mdp}, {periods}"].values).mean(0)
    count, value = len(logs), np.log(HIS[mdp, periods]) - logs.mean()
    reach = stats.t.ppf(0.975, count - 1) * logs.std(ddof=1) * np.sqrt(1 + 1 / count)
    return Measured(*(float(np.exp(x)) for x in (value, value - reach, value + reach)), count)


@figure("einhorn", "Einhorn: the last errors of his raw runs")
def einhorn(size):
    """His raw runs are public (github.com/MichaelEinhorn/FederatedRL, `mdpv4.csv`).

    Each of 400 runs on two MDPs, with 2 to 16 agents, five rates and both behaviours, is repeated
    under his protocol, with his rule to stop. At K of 100 and more the errors are the same. At K of
    1 and 10 his are larger: in his program all workers take averages from one queue, so that a fast
    one takes what was meant for a slow one, and their numbers of steps drift apart by hundreds. The
    program run with a queue for each worker gives our errors.
    """
    stage = _repeated(size.repetitions)

    def factors(periods):
        return lambda data: [factor(mdp, periods, data) for mdp in (3701, 3703)]

    yield number(
        "E1",
        "his last error in parts of ours, K >= 100, geometric mean: MDPs 3701, 3703",
        measured(factors("K >= 100"), stage),
        ((0.95, 1.05),) * 2,
    )
    yield effect(
        "E2",
        "the same at K = 1 and 10, less one",
        measured(
            lambda data: [
                Measured(own.value - 1, own.low - 1, own.high - 1, own.runs)
                for own in factors("K <= 10")(data)
            ],
            stage,
        ),
        band=((0, None),) * 2,
        why="his workers share one queue of averages: run with a queue each, his program gives "
        "0.63 where it gave 0.71, and we 0.61 (N = 4, K = 1, alpha = 0.5)",
    )


# Gunn ---------------------------------------------------------------------------------------------

EPISODES, LENGTH, SIDE = 40, 100, 5
PARTS = {"2-5": (1, 5), "6-15": (5, 15), "16-25": (15, 25), "26-40": (25, 40)}
GRID_METHODS = {"DQL": None, "EBCDQL": 0.5}  # the threshold of a message


def gunn(trials: int, threshold: float | None, alike: float = 1e-9) -> np.ndarray:
    """Mean discounted return of three agents in every episode, [L, 40], on the simple grid.

    Agents keep their episodes and send (s, a, r, s') at their end; an entry moves by the mean of
    its errors. With a threshold they send those whose error is at least that large and 0.9 times
    what they are used to. Values that are so much `alike` are tied.
    """
    rng, agents, actions = np.random.default_rng(2), 3, 5
    goal, own = SIDE * SIDE - 1, np.arange(trials)[:, None]
    moves = np.array([(0, -1), (0, 1), (-1, 0), (1, 0), (0, 0)])
    q, used_to = np.zeros((trials, SIDE * SIDE, actions)), np.zeros((trials, agents))
    returns = np.zeros((trials, EPISODES))
    for episode in range(EPISODES):
        state = np.zeros((trials, agents), int)
        sums, counts = np.zeros(q.shape), np.zeros(q.shape)
        for t in range(LENGTH):
            playing = state != goal
            values = q[own, state]
            best = values >= values.max(-1, keepdims=True) - alike
            action = (best * rng.random(values.shape)).argmax(-1)
            some = rng.random(state.shape) < 0.1
            action = np.where(some, rng.integers(actions, size=state.shape), action)
            cell = np.stack(np.divmod(state, SIDE), -1) + moves[action]
            after = np.clip(cell, 0, SIDE - 1) @ (SIDE, 1)
            reward = np.where(after == goal, 0.0, -1.0)
            error = reward + 0.9 * q[own, after].max(-1) - q[own, state, action]
            sent = playing
            if threshold is not None:
                used_to = np.where(playing, 0.95 * used_to + 0.05 * abs(error), used_to)
                sent = playing & (abs(error) >= np.maximum(0.9 * used_to, threshold))
            np.add.at(sums, (own, state, action), error * sent)
            np.add.at(counts, (own, state, action), sent)
            returns[:, episode] += (0.9**t * reward * playing).mean(1)
            state = np.where(playing, after, state)
        q += 0.9 * sums / np.maximum(counts, 1)
    return returns


@figure("grid", "Gunn: DQL and EBCDQL on the simple grid")
def grid(size):
    """Three agents on the simple grid of five by five cells, with a rate and a discount of 0.9.

    The updates are those of `EDQLearner`, `EDumbAgent` and `EEBCDQLAgent` in the public code of
    the thesis (github.com/edsgunn/DistributedReinforcementLearningOnTheEdge), with ties broken at
    random, which that code has as a comment, and with the exploration of 0.1 that is meant. The
    first table is zero, so that nobody finds the goal other than by chance in the first episodes.

    Values that rounding alone keeps apart are ties here. Where they are not, as in that comment,
    the mean of many errors of -1 is the best action by its last bit, and agents explore less.
    """
    task = envs.simple_grid(SIDE, max_steps=LENGTH)
    plain = {"learning_rate": 0.9, "epsilon": 0.1}
    methods = {
        "DQL": algorithms.dql(task, **plain),
        "EBCDQL": algorithms.ebcdql(task, threshold=0.5, factor=0.9, decay=0.05, **plain),
    }
    made = {"num_steps": EPISODES, "num_agents": 3, "record_every": 1}
    made |= {"metrics": ("reward",), "trials": size.grid_trials}
    ours = runs("grid", methods, seconds=40, **made)["reward"]
    still = {"still": (methods["DQL"], {"learning_rate": 0.0})}
    null = runs("grid-null", still, seconds=10, **made)["reward"]
    axes = {"method": list(methods), "seed": np.arange(size.grid_trials)}
    axes |= {"time": np.arange(1, EPISODES + 1)}
    theirs = reference(
        "grid-reference",
        axes,
        lambda n: {"reward": np.stack([gunn(n, own) for own in GRID_METHODS.values()])},
        size.grid_trials,
        seconds=60,
    )["reward"]

    bits = reference(
        "grid-bits",
        {name: axes[name] for name in ("seed", "time")},
        lambda n: {"reward": gunn(n, GRID_METHODS["EBCDQL"], alike=0.0)},
        size.grid_trials,
        seconds=30,
    )["reward"]

    def parts(array):
        own = [array.isel(time=slice(*ends)).mean("time") for ends in PARTS.values()]
        return xr.concat(own, xr.Variable("part", list(PARTS))).transpose(..., "part", "seed")

    apart = (ours - theirs).then(parts)
    for method in methods:
        yield number(
            method,
            f"{method}: discounted return less that of their algorithm in episodes "
            f"{', '.join(PARTS)}",
            mean(apart[method]),
            ((-0.1, 0.1), (-0.2, 0.2), (-0.2, 0.2), (-0.2, 0.2)),
        )
    yield effect(
        "EBCDQL ties",
        "EBCDQL: discounted return less that of their algorithm with values apart by rounding, "
        "episodes 6-15, 16-25",
        mean((ours["EBCDQL"] - bits).then(parts).sel(part=["6-15", "16-25"])),
        band=((0, None),) * 2,
    )
    yield control(
        "DQL null",
        "the same of DQL in the last episodes where nothing is learned",
        mean((null["still"] - theirs["DQL"]).then(parts).sel(part="26-40")),
        (-0.2, 0.2),
    )
    yield page(
        "grid",
        *(beside(ours[own], theirs[own], own, "discounted return") for own in methods),
        title=f"simple grid, three agents, means of {size.grid_trials} runs, 95 % intervals",
    )
