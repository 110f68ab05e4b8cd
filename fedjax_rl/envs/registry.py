"""Environments by name, for the command line and for saved configurations."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from fedjax_rl.envs.tabular import paper_mdp, random_mdp
from fedjax_rl.names import check_known

# A new environment is one line here; the options are the keyword arguments of its factory.
ENVIRONMENTS: dict[str, Callable] = {
    "paper-mdp": paper_mdp,
    "random-mdp": random_mdp,
}


def options(name: str) -> dict[str, Any]:
    """The options of an environment and their defaults.

    Raises:
      ValueError: an unknown name, with the nearest known ones.
    """
    check_known(name, ENVIRONMENTS, "environment")
    parameters = inspect.signature(ENVIRONMENTS[name]).parameters
    return {option: parameter.default for option, parameter in parameters.items()}


def make(name: str, **chosen):
    """The environment of that name, ready for an algorithm.

    Raises:
      ValueError: an unknown name or option, with the nearest known ones, or a value that is not
        allowed.
    """
    known = options(name)
    for option in chosen:
        check_known(option, known, f"option of {name}")
    return ENVIRONMENTS[name](**chosen)
