"""Every algorithm on its smallest environment, for what is promised of all of them."""

import functools

import numpy as np

import fedjax_rl as frl
from fedjax_rl.algorithms import ALGORITHMS
from fedjax_rl.federation.ledger import COLUMNS

N_STEP = {"num_envs": 2, "rollout_steps": 4, "network": {"hidden": (4,)}}
# What makes an algorithm small; nothing that changes what it is.
SMALL = {
    "davia": {"horizon": 4},
    "a3c": N_STEP,
    "feda2c": N_STEP,
    "feddqn": {
        "num_envs": 2,
        "buffer_size": 8,
        "batch_size": 2,
        "learning_starts": 2,
        "network": (4,),
    },
    "fedapg": {"local_steps": 2, "episodes_per_step": 2, "network": {"hidden": (4,)}},
    "fedppo": {"num_envs": 2, "rollout_steps": 8, "minibatches": 2, "network": {"hidden": (4,)}},
}
RUN = {"num_agents": 3, "seeds": 5, "num_steps": 4, "record_every": 2, "workers": 1}


@functools.cache
def environment(kind):
    """The smallest environment of a kind: "mdp", "tabular", "grid" or "task"."""
    if kind == "task":
        return frl.envs.lqr(max_steps=4)
    if kind == "mdp":
        return frl.envs.random_mdp(seed=0)
    if kind == "tabular":
        family = frl.envs.dirichlet_mdps(8, num_states=3, num_actions=2)
        return frl.envs.tabular_task(family, max_steps=4)
    return frl.envs.simple_grid(max_steps=8)


def kind_of(name):
    """The kind of the smallest environment that an algorithm accepts."""
    kinds = ALGORITHMS[name].environments
    return next(kind for kind in ("tabular", "mdp", "grid", "task") if kind in kinds)


def smallest(name, **properties):
    """An algorithm by name on its smallest environment."""
    return ALGORITHMS[name].make(
        environment(kind_of(name)), **{**SMALL.get(name, {}), **properties}
    )


def short_run(name):
    """Everything that an algorithm records in a short run."""
    algorithm = smallest(name)
    return frl.sweep(algorithm, metrics=tuple(algorithm.metrics), **RUN)


def last(result):
    """What stands at the end of a run: metrics, and totals of the ledger."""
    end = result.isel(time=-1)
    totals = {name: int(end[name]) for name in COLUMNS}
    metrics = {
        name: np.asarray(end[name], np.float64).tolist()
        for name in end.data_vars
        if name not in (*COLUMNS, "diverged", "phase")
    }
    return {"metrics": metrics, "ledger": totals}
