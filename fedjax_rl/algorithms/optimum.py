"""How far the values of a learner are from the optimal ones, where these are known."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp

from fedjax_rl.algorithms import episodic
from fedjax_rl.envs import solvers
from fedjax_rl.envs.task import Task
from fedjax_rl.rollouts.grids import grid_of

VALUE_METRIC = {
    "value_error": ("federation", "RMS over the states of the difference to the optimal values")
}


def is_known(task) -> bool:
    """Whether the optimal values are known: on a grid with a discount below 1."""
    return getattr(task, "grid", None) is not None and task.discount < 1


def metrics_of(config) -> dict:
    """The metrics of an algorithm on its task."""
    return {**episodic.METRICS, **(VALUE_METRIC if is_known(config.task) else {})}


def value_error(task: Task) -> Callable:
    """`values -> metrics`: from values [F, S] to those of `VALUE_METRIC`, none where not known."""
    if not is_known(task):
        return lambda values: {}
    best = solvers.optimal_q(grid_of(task).mdp).max(-1)  # 0 where an episode ends

    def error(values):
        off = values - jnp.asarray(best, values.dtype)[None]
        return {"value_error": jnp.sqrt(jnp.mean(off**2, axis=-1))}

    return error
