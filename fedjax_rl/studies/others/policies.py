"""Averages of tables and softmax policies, by the updates of public codes."""

from __future__ import annotations

import numpy as np
import xarray as xr

from fedjax_rl import algorithms, envs
from fedjax_rl.studies.claims import control, number
from fedjax_rl.studies.declared import figure
from fedjax_rl.studies.estimates import exact, mean
from fedjax_rl.studies.others.reference import beside, drawn, reference, softmax
from fedjax_rl.studies.pictures import page
from fedjax_rl.studies.runs import STILL, runs

# Jin et al. ---------------------------------------------------------------------------------------

ROUNDS = 48
JIN = {"QAvg": (algorithms.qavg, 0.05), "PAvg": (algorithms.pavg, 0.05)}
METRICS = {"objective": "J of the server's policy", "change_norm": "the change of the table"}


def sparse_mdps(seed: int, agents: int = 5, size: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Kernels [N, S, U, S'] with a fifth of their entries, and rewards [S, U] that all share."""
    rng = np.random.default_rng(seed)
    reward = rng.random((size, size))
    there = rng.random((agents, size, size, size)) < 0.2
    there |= np.eye(size, dtype=bool)[rng.integers(size, size=there.shape[:-1])]
    kernels = there * rng.random(there.shape)
    return kernels / kernels.sum(-1, keepdims=True), reward


def jin(method: str, kernels, reward, rate: float, steps: int) -> np.ndarray:
    """J of the server's policy and the norm of what a round changed, [2, ROUNDS].

    Algorithms 1 and 2 of Jin et al., arXiv 2204.02634.
    """
    (size, actions), discount, out = reward.shape, 0.9, []
    start = np.full(size, 1 / size)

    def solved(policy, kernel):
        chain = np.einsum("su,sut->st", policy, kernel)
        inverse = np.linalg.inv(np.eye(size) - discount * chain)
        return inverse @ (policy * reward).sum(1), start @ inverse

    def simplex(row):  # the projection of a vector
        sums = np.sort(row)[::-1].cumsum() - 1
        last = np.flatnonzero(np.sort(row)[::-1] > sums / np.arange(1, actions + 1))[-1]
        return np.maximum(row - sums[last] / (last + 1), 0)

    def step(table, kernel):
        if method == "QAvg":
            return table + rate * (reward + discount * kernel @ table.max(1) - table)
        value, visits = solved(table, kernel)
        return np.apply_along_axis(
            simplex, 1, table + rate * visits[:, None] * (reward + discount * kernel @ value)
        )

    table = np.full(reward.shape, 0.0 if method == "QAvg" else 1 / actions)
    for _ in range(ROUNDS):
        tables = [table] * len(kernels)
        for _ in range(steps):
            tables = [step(*own) for own in zip(tables, kernels, strict=True)]
        before, table = table, np.mean(tables, 0)
        policy = np.eye(actions)[table.argmax(1)] if method == "QAvg" else table
        objective = np.mean([start @ solved(policy, kernel)[0] for kernel in kernels])
        out.append((objective, np.linalg.norm(table - before)))
    return np.transpose(out)


@figure("averages", "Jin et al.: action values and policies, averaged")
def averages(size):
    """Nothing is drawn, so that two programs agree to rounding or are two algorithms.

    The setting is that of the public code of Jin et al. (github.com/pengyang7881187/FedRL,
    `tabular/`): five agents with sparse random kernels, S = U = 5, discount 0.9, uniform start.
    PAvg is the public code's; for QAvg it is Algorithm 1 of the paper, since the code takes its
    local steps on values of states and makes one undamped backup at the end of a round.
    """
    families = [sparse_mdps(seed) for seed in range(size.families)]

    def task(kernels, reward):
        start = np.full(len(reward), 1 / len(reward))
        own = [
            envs.tabular_mdp(kernel, reward[:, :, None], 0.9, initial_distribution=start)
            for kernel in kernels
        ]
        return envs.tabular_task(envs.stack_mdps(own))

    methods = {
        f"{name} {place}": make(task(*family), learning_rate=rate)
        for name, (make, rate) in JIN.items()
        for place, family in enumerate(families)
    }
    made = {"num_steps": ROUNDS, "trials": 1, "metrics": tuple(METRICS), "num_agents": 5}
    made |= {"record_every": 1, "double": True}
    ours = runs("averages", methods, {"local_steps": size.steps}, seconds=60, **made)
    still = {"still": (methods["PAvg 0"], {"learning_rate": STILL, "local_steps": 4})}
    null = runs("averages-null", still, seconds=5, **made)
    axes = {"method": list(methods), "local_steps": list(size.steps), "seed": [0]}
    axes |= {"time": np.arange(1, ROUNDS + 1)}

    def all_of_them(steps):
        own = [
            [[jin(name, *family, rate, own)] for own in steps]
            for name, (_, rate) in JIN.items()
            for family in families
        ]
        return dict(zip(METRICS, np.moveaxis(np.array(own), -2, 0), strict=True))

    theirs = reference("averages-reference", axes, all_of_them, size.steps)

    def largest(array):
        array = abs(array).max("time")
        own = [array.sel({"method": [m for m in methods if m.startswith(name)]}) for name in JIN]
        return xr.concat([one.max("method") for one in own], "method").transpose("method", ...)

    for metric, words in METRICS.items():
        yield number(
            metric,
            f"largest difference of {words} in any round and family: QAvg, PAvg at H = "
            f"{', '.join(map(str, size.steps))}",
            exact((ours[metric] - theirs[metric]).then(largest)),
            ((0, 1e-6),) * 2 * len(size.steps),
        )
    nothing = null["objective"]["still"] - theirs["objective"]["PAvg 0"].sel(local_steps=4)
    yield control(
        "objective null",
        "the same of J of a server that learns nothing",
        exact(nothing.then(abs).last()),
        (0, 1e-6),
    )
    shown = [("QAvg", "change_norm"), ("PAvg", "objective")]
    yield page(
        "averages",
        *(
            beside(
                *(own[metric][f"{name} 0"].sel(local_steps=4) for own in (ours, theirs)),
                f"{name}, H = 4",
                METRICS[metric],
            )
            for name, metric in shown
        ),
        title="the first family, five agents",
    )


# Labbi et al. -------------------------------------------------------------------------------------

PG_ROUNDS, TAUS = (5, 20, 60), (0.0, 0.05)
PG = {"learning_rate": 0.3, "local_steps": 5, "episodes_per_step": 4}


def softmax_fedpg(mdp, trials: int, entropy: float) -> np.ndarray:
    """J of the server's policy after every round, [L, 60], of local REINFORCE steps.

    The updates of Labbi et al.: the reward of step t credits all actions up to it,
    sum_t discount^t (r_t - entropy log pi_t) sum_{k <= t} grad log pi_k.
    """
    rng, agents, batch, length = np.random.default_rng(1), 4, 4, 20
    kernel = np.asarray(mdp.transition)[:agents]
    states, actions = kernel.shape[1:3]
    reward = np.broadcast_to(np.asarray(mdp.reward)[:agents], kernel.shape)
    discount = float(np.ravel(mdp.discount)[0])
    start = np.eye(states)[int(np.ravel(mdp.initial_state)[0])]
    if mdp.initial_distribution is not None:
        start = np.broadcast_to(mdp.initial_distribution, (agents, states))[0]
    own = np.arange(agents)[None, :, None]
    grid = np.ogrid[:trials, :agents, :batch]
    model, objective = np.zeros((trials, states, actions)), []

    for _ in range(max(PG_ROUNDS)):
        local = np.repeat(model[:, None], agents, 1)
        for _ in range(PG["local_steps"]):
            policy = softmax(local)
            credit = np.zeros((trials, agents, batch, states, actions))
            total = np.zeros(local.shape)
            state = drawn(rng, np.broadcast_to(start, (trials, agents, batch, states)))
            for t in range(length):
                chances = policy[grid[0], grid[1], state]
                action = drawn(rng, chances)
                credit[(*grid, state)] -= chances
                credit[(*grid, state, action)] += 1
                after = drawn(rng, kernel[own, state, action])
                bonus = -np.log(np.take_along_axis(chances, action[..., None], -1))[..., 0]
                gained = reward[own, state, action, after] + entropy * bonus
                total += discount**t * (gained[..., None, None] * credit).mean(2)
                state = after
            local = local + PG["learning_rate"] * total
        model = local.mean(1)
        policy = softmax(model)[:, None]
        chain = np.einsum("lnsu,nsut->lnst", np.repeat(policy, agents, 1), kernel)
        gains = (policy * (kernel * reward).sum(-1)).sum(-1)
        values = np.linalg.solve(np.eye(states) - discount * chain, gains[..., None])[..., 0]
        objective.append((values @ start).mean(1))
    return np.stack(objective, 1)


@figure("policy-gradient", "Labbi et al.: softmax policies, local steps, with entropy and without")
def policy_gradient(size):
    """Four agents in different environments, five local steps of four episodes of twenty steps.

    The updates are those of the classes `SoftfedPG` and `RegSoftfedPG` in the public code of Labbi
    et al.; the environments are `dirichlet_mdps(4)`. J is without the bonus. A run of that code in
    environments of its own agreed with `fedpg` in the same way: 6.130 and 6.090 +- 0.05 after 60
    rounds.
    """
    family = envs.dirichlet_mdps(4)
    learner = algorithms.fedpg(envs.tabular_task(family, max_steps=20), **PG)
    methods = {f"entropy {tau}": (learner, {"entropy": tau}) for tau in TAUS}
    made = {"num_steps": max(PG_ROUNDS), "num_agents": 4, "record_every": 1}
    made |= {"metrics": ("plain_objective",), "trials": size.pg_trials}
    ours = runs("policy-gradient", methods, seconds=60, **made)["plain_objective"]
    still = {"still": (learner, {"learning_rate": STILL})}
    null = runs("policy-gradient-null", still, seconds=5, **made)["plain_objective"]
    axes = {"method": list(methods), "seed": np.arange(size.pg_trials)}
    axes |= {"time": np.arange(1, max(PG_ROUNDS) + 1)}
    theirs = reference(
        "policy-gradient-reference",
        axes,
        lambda n: {"plain_objective": np.stack([softmax_fedpg(family, n, t) for t in TAUS])},
        size.pg_trials,
        seconds=120,
    )["plain_objective"]
    apart = (ours - theirs).sel(time=list(PG_ROUNDS))
    yield number(
        "PG",
        "J less that of their algorithm after 5, 20, 60 rounds: without entropy, with 0.05",
        mean(apart),
        ((-0.05, 0.05),) * 6,
    )
    yield control(
        "PG null",
        "the same after 60 rounds where nothing is learned",
        mean((null["still"] - theirs["entropy 0.0"]).last()),
        (-0.05, 0.05),
    )
    yield page(
        "policy-gradient",
        *(
            beside(ours[method], theirs[method], method, "J of the server's policy")
            for method in methods
        ),
        title=f"dirichlet_mdps(4), H = 5, means of {size.pg_trials} runs, 95 % intervals",
    )
