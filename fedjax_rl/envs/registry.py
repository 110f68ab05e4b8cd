"""Environments by name, for the command line and for saved configurations."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Literal

from fedjax_rl.envs.brax import brax_task
from fedjax_rl.envs.classic import gymnax_task
from fedjax_rl.envs.grids import frozen_lake, simple_grid, windy_grid
from fedjax_rl.envs.tabular import paper_mdp, random_mdp
from fedjax_rl.envs.task import Task
from fedjax_rl.names import check_known


def _gymnax(name: str) -> Callable[..., Task]:
    """The factory of one environment of gymnax; gymnax is imported when it is called."""

    def factory(discount: float = 1.0, max_steps: int | None = None) -> Task:
        return gymnax_task(name, discount, max_steps)

    factory.__doc__ = f"{name} of gymnax."
    return factory


def _brax(name: str) -> Callable[..., Task]:
    """The factory of one environment of brax; brax is imported when it is called."""

    def factory(backend: str = "spring", discount: float = 0.99, max_steps: int = 1000) -> Task:
        return brax_task(name, backend, discount, max_steps)

    factory.__doc__ = f"{name.capitalize()} of brax."
    return factory


# A new environment is one line here; the options are the keyword arguments of its factory.
ENVIRONMENTS: dict[str, Callable] = {
    "paper-mdp": paper_mdp,
    "random-mdp": random_mdp,
    "simple-grid": simple_grid,
    "windy-grid": windy_grid,
    "frozen-lake": frozen_lake,
    "CartPole-v1": _gymnax("CartPole-v1"),
    "gymnax/Acrobot-v1": _gymnax("Acrobot-v1"),
    "gymnax/MountainCar-v0": _gymnax("MountainCar-v0"),
    "gymnax/MountainCarContinuous-v0": _gymnax("MountainCarContinuous-v0"),
    "gymnax/Pendulum-v1": _gymnax("Pendulum-v1"),
    "brax/ant": _brax("ant"),
    "brax/halfcheetah": _brax("halfcheetah"),
    "brax/hopper": _brax("hopper"),
    "brax/humanoid": _brax("humanoid"),
    "brax/swimmer": _brax("swimmer"),
    "brax/walker2d": _brax("walker2d"),
}

ALIASES = {"ant": "brax/ant", "gymnax/CartPole-v1": "CartPole-v1"}

# Any environment of these packages, listed above or not, is PACKAGE/NAME.
_PACKAGES = {"gymnax": _gymnax, "brax": _brax}


def kind(name: str) -> Literal["mdp", "grid", "task"]:
    """What a name makes: a `TabularMDP`, a `Task` with exact tables, or a `Task` without.

    Raises:
      ValueError: an unknown name, with the nearest known ones.
    """
    factory = _factory(name)
    if factory in (paper_mdp, random_mdp):
        return "mdp"
    return "grid" if factory in (simple_grid, windy_grid, frozen_lake) else "task"


def options(name: str) -> dict[str, Any]:
    """The options of an environment and their defaults.

    Raises:
      ValueError: an unknown name, with the nearest known ones.
    """
    parameters = inspect.signature(_factory(name)).parameters
    return {option: parameter.default for option, parameter in parameters.items()}


def make(name: str, **chosen):
    """The environment of that name, ready for an algorithm.

    Raises:
      ImportError: the package that the environment comes from is not installed.
      ValueError: an unknown name or option, with the nearest known ones, or a value that is not
        allowed.
    """
    known = options(name)
    for option in chosen:
        check_known(option, known, f"option of {name}")
    return _factory(name)(**chosen)


def _factory(name: str) -> Callable:
    name = ALIASES.get(name, name)
    package, slash, rest = name.partition("/")
    if name not in ENVIRONMENTS and slash and package in _PACKAGES:
        return _PACKAGES[package](rest)  # which checks the rest once the package is imported
    check_known(name, [*ENVIRONMENTS, *ALIASES], "environment")
    return ENVIRONMENTS[name]
