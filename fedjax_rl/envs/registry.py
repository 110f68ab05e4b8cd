"""Environments by name, for the command line and for saved configurations."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Literal

from fedjax_rl.envs.brax_tasks import backends, brax_task, longest
from fedjax_rl.envs.dirichlet import dirichlet_mdp, dirichlet_mdps, opposed_mdps
from fedjax_rl.envs.generators import paper_mdp, random_mdp
from fedjax_rl.envs.grids import frozen_lake, grid_world, simple_grid, windy_grid
from fedjax_rl.envs.gymnax_tasks import gymnax_task
from fedjax_rl.envs.lqr import lqr
from fedjax_rl.envs.procgen import procgen_task
from fedjax_rl.envs.tabular import TabularMDP
from fedjax_rl.envs.tabular_tasks import tabular_task
from fedjax_rl.envs.task import Task
from fedjax_rl.fields import plain
from fedjax_rl.names import check_known


def _tabular(name: str, draw: Callable[..., TabularMDP]) -> Callable[..., Task]:
    """The factory of a `tabular_task`: its options are those of the function, and max_steps."""
    own = inspect.signature(draw)

    def factory(max_steps: int = 25, **chosen) -> Task:
        max_steps, chosen = plain(max_steps), {o: plain(value) for o, value in chosen.items()}
        options = {o: p.default for o, p in own.parameters.items()} | chosen
        return tabular_task(draw(**options), max_steps, name, options)

    hints = {"max_steps": int, "return": Task}
    steps = inspect.signature(factory).parameters["max_steps"].replace(annotation=int)
    factory.__doc__ = draw.__doc__
    factory.__annotations__ = draw.__annotations__ | hints
    # The command line reads the options off the signature.
    factory.__signature__ = own.replace(
        parameters=[*own.parameters.values(), steps], return_annotation=Task
    )
    return factory


def _gymnax(name: str) -> Callable[..., Task]:
    """The factory of one environment of gymnax; gymnax is imported when it is called."""

    def factory(discount: float = 1.0, max_steps: int | None = None) -> Task:
        return gymnax_task(name, discount, max_steps)

    factory.__doc__ = f"{name} of gymnax."
    return factory


def _brax(name: str) -> Callable[..., Task]:
    """The factory of one environment of brax; brax is imported when it is called."""

    def factory(
        backend: str = backends(name)[0],
        discount: float = 0.99,
        max_steps: int = longest(name),
        target_speed: float | None = None,
    ) -> Task:
        return brax_task(name, backend, discount, max_steps, target_speed)

    factory.__doc__ = f"{name.capitalize()} of brax."
    return factory


def _procgen(game: str) -> Callable[..., Task]:
    """The factory of one game of Procgen."""
    own = inspect.signature(procgen_task)

    def factory(**chosen) -> Task:
        return procgen_task(game, **chosen)

    factory.__doc__ = f"{game} of {procgen_task.__doc__.partition(' of ')[2]}"
    factory.__annotations__ = procgen_task.__annotations__
    factory.__signature__ = own.replace(
        parameters=[option for name, option in own.parameters.items() if name != "game"]
    )
    return factory


_TABULAR = {
    "dirichlet-mdps": dirichlet_mdps,
    "opposed-mdps": opposed_mdps,
    "dirichlet-mdp": dirichlet_mdp,
}

# A new environment is one line here or above; the options are the keyword arguments of its factory.
ENVIRONMENTS: dict[str, Callable] = {
    "paper-mdp": paper_mdp,
    "random-mdp": random_mdp,
    "simple-grid": simple_grid,
    "windy-grid": windy_grid,
    "frozen-lake": frozen_lake,
    "grid-world": grid_world,
    **{name: _tabular(name, draw) for name, draw in _TABULAR.items()},
    "lqr": lqr,
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
    "BigFish": _procgen("BigFish"),
    "CoinRun": _procgen("CoinRun"),
}

ALIASES = {
    "ant": "brax/ant",
    "gymnax/CartPole-v1": "CartPole-v1",
    "bigfish": "BigFish",
    "coinrun": "CoinRun",
}

# Any environment of these packages, listed above or not, is PACKAGE/NAME.
_PACKAGES = {"gymnax": _gymnax, "brax": _brax}


def kind(name: str) -> Literal["mdp", "grid", "tabular", "task"]:
    """What a name makes.

    Returns:
      "mdp" for a `TabularMDP`; "grid" and "tabular" for a `Task` with exact tables, those of a
      grid world and those of one or several MDPs; "task" for a `Task` without.

    Raises:
      ValueError: an unknown name, with the nearest known ones.
    """
    factory = _factory(name)
    if factory in (paper_mdp, random_mdp):
        return "mdp"
    if ALIASES.get(name, name) in _TABULAR:
        return "tabular"
    return "grid" if factory in (simple_grid, windy_grid, frozen_lake, grid_world) else "task"


def options(name: str) -> dict[str, Any]:
    """The options of an environment and their defaults.

    Raises:
      ValueError: an unknown name, with the nearest known ones.
    """
    parameters = inspect.signature(_factory(name)).parameters
    return {option: parameter.default for option, parameter in parameters.items()}


def make(name: Any, **chosen: Any) -> Task | TabularMDP:
    """The environment of a name, or what somebody hands in instead of one.

    Args:
      name: one of `ENVIRONMENTS` or `ALIASES`, or PACKAGE/NAME; or a `Task` or a `TabularMDP`,
        which is returned as it is.
      **chosen: options by name, of which `options` has the defaults.

    Returns:
      What an algorithm takes, a `Task` or a `TabularMDP`.

    Raises:
      ImportError: the package that the environment comes from is not installed.
      ValueError: an unknown name or option, with the nearest known ones, or a value that is not
        allowed.

    Example:
      >>> import fedjax_rl as frl
      >>> frl.envs.make("windy-grid", wind=0.1) == frl.envs.windy_grid(wind=0.1)
      True
      >>> frl.envs.make("windi-grid")  # doctest: +ELLIPSIS
      Traceback (most recent call last):
      ValueError: 'windi-grid' is no environment; did you mean windy-grid ...
    """
    if isinstance(name, Task | TabularMDP):
        for option in chosen:
            raise ValueError(
                f"{option} is set of an environment that is made already; allowed: none, or "
                "envs.as_task, which changes max_steps and discount"
            )
        return name
    known = options(name)
    for option in chosen:
        check_known(option, known, f"option of {name}")
    return _factory(name)(**chosen)


def _factory(name: str) -> Callable:
    if not isinstance(name, str):
        check_known(name, [*ENVIRONMENTS, *ALIASES], "environment")
    name = ALIASES.get(name, name)
    package, slash, rest = name.partition("/")
    if name not in ENVIRONMENTS and slash and package in _PACKAGES:
        # Without the package nobody knows its names, and importing it takes seconds.
        return _PACKAGES[package](rest)  # which checks the rest once the package is imported
    check_known(name, [*ENVIRONMENTS, *ALIASES], "environment")
    return ENVIRONMENTS[name]
