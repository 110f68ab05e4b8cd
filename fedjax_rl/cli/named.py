"""Algorithms, environments and uplinks by name: ours, or a user's own as `module:name`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from fedjax_rl.cli import outside
from fedjax_rl.cli.settings import parameters


def algorithm(name: str, place: str | None = None):
    """The algorithm with its defaults.

    Args:
      name: of ours, or `module:name`.
      place: the environment that was named with it. Ours have the same properties in all of them
        and are made in the first one that they accept; so is a user's that says which it accepts.

    Raises:
      ValueError: an unknown name, with the nearest known ones.
    """
    if (kinds := accepted(name)) is not None:
        return made_in(name, environment(_OF_KIND[kinds[0]]))
    if place is not None:
        return made_in(name, environment(place))
    refused = None
    for one in (*_OF_KIND.values(), "CartPole-v1"):
        try:
            return made_in(name, environment(one))
        except ValueError as error:
            refused = refused or error
    raise refused


# An environment of each kind, cheap to make.
_OF_KIND = {
    "mdp": "paper-mdp",
    "grid": "simple-grid",
    "tabular": "dirichlet-mdp",
    "task": "lqr",
}


def accepted(name: str) -> tuple[str, ...] | None:
    """The kinds of environments that an algorithm accepts; None where only it can tell.

    Raises:
      ValueError: an unknown name, with the nearest known ones.
    """
    from fedjax_rl.algorithms import ALGORITHMS
    from fedjax_rl.names import check_known

    if outside.is_outside(name):
        definition = getattr(outside.algorithm_factory(name), "definition", None)
        return getattr(definition, "environments", None)
    check_known(name, ALGORITHMS, "algorithm")
    return ALGORITHMS[name].environments


def made_in(name: str, place):
    """The algorithm of that name with its defaults, in an environment that is made already.

    Args:
      name: of ours, or `module:name`.
      place: a `TabularMDP` or a `Task`.
    """
    from fedjax_rl.algorithms import ALGORITHMS

    if outside.is_outside(name):
        return outside.algorithm(name, place)
    return ALGORITHMS[name].make(place)


def fitting(name: str) -> list[str]:
    """The environments of ours that an algorithm accepts; all where only it can tell."""
    from fedjax_rl.envs.registry import ENVIRONMENTS, kind

    kinds = accepted(name)
    return [place for place in ENVIRONMENTS if kinds is None or kind(place) in kinds]


def check_fits(name: str, place: str) -> None:
    """Refuses an environment that an algorithm cannot run in, as far as names tell.

    Args:
      name: of the algorithm.
      place: name of the environment.

    Raises:
      ValueError: an unknown name, or what does not fit, with what does.
    """
    from fedjax_rl.envs.registry import kind

    kinds = accepted(name)
    if outside.is_outside(place):
        outside.environment_factory(place)
    elif kind(place) not in (kinds or (kind(place),)):
        raise ValueError(f"environment is {place}; allowed with {name}: {', '.join(fitting(name))}")


def environment(name: str, **options):
    """The environment of a name, with options.

    Args:
      name: of ours, of a package, or `module:name`.
      **options: of its factory.

    Raises:
      ValueError: an unknown name or option, with the nearest known ones, a value that is not
        allowed, or a package that is not installed.
    """
    from fedjax_rl.names import check_known

    if outside.is_outside(name):
        known = environment_options(name)
        for option in options:
            check_known(option, known, f"option of {name}")
        return outside.environment(name, **options)
    try:
        return _making()(name, options)
    except ImportError as error:
        raise ValueError(str(error)) from error


@functools.cache
def _making():
    """What makes environments of ours, and keeps the last ones: models of bodies take a second."""
    from fedjax_rl.envs.registry import make
    from fedjax_rl.remembered import remembered

    return remembered(8)(lambda name, options: make(name, **options))


def environment_options(name: str) -> dict[str, Any]:
    """The options of an environment and their defaults.

    Raises:
      ValueError: an unknown name; or an argument of a user's environment without a default.
    """
    from fedjax_rl.envs.registry import options

    if not outside.is_outside(name):
        return options(name)
    found = parameters(outside.environment_factory(name))
    for option in found:
        if option.required:
            raise ValueError(
                f"environment is {name}, whose {option.name} has no default; allowed: a function "
                "whose arguments all have one"
            )
    return {option.name: option.default for option in found}


def check_uplink(name: str) -> None:
    """Refuses an uplink that is not there.

    Raises:
      ValueError: an unknown name, with the nearest known ones.
    """
    from fedjax_rl.federation.uplinks import UPLINKS
    from fedjax_rl.names import check_known

    if outside.is_outside(name):
        outside.uplink_factory(name)
    else:
        check_known(name, UPLINKS, "uplink")


def uplink(name: str, **values):
    """The uplink of a name, with its values.

    Args:
      name: of ours, or `module:name`.
      **values: of its factory.

    Raises:
      ValueError: an unknown name or value, with the nearest known ones, or a bad value.
    """
    from fedjax_rl.federation.uplinks import make

    return outside.uplink(name, **values) if outside.is_outside(name) else make(name, **values)


def factory_of(name: str) -> Callable:
    """The factory of an environment, or one with the same options."""
    from fedjax_rl.envs.registry import ALIASES, ENVIRONMENTS

    if outside.is_outside(name):
        return outside.environment_factory(name)
    name = ALIASES.get(name, name)
    package = f"{name.partition('/')[0]}/"
    similar = [factory for other, factory in ENVIRONMENTS.items() if other.startswith(package)]
    return ENVIRONMENTS[name] if name in ENVIRONMENTS else similar[0]
