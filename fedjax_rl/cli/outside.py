"""What a user has written: algorithms, environments and uplinks under `module:name`.

The module is looked for where Python would look for it, the current directory first, as with
`python -m`. Whatever is wrong with it is said in one line.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import pathlib
import re
import sys
import traceback
from collections.abc import Callable
from typing import Any

from fedjax_rl.names import nearest

_DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


def is_outside(word) -> bool:
    """Whether a word names something of a user's own, `module:name`."""
    return isinstance(word, str) and ":" in word and not word.startswith("-")


def factory(what: str, word: str, returns: str) -> Callable:
    """The function of that name.

    Args:
      what: "algorithm", "environment" or "uplink", for messages.
      word: `module:name`.
      returns: what it has to return, for messages.

    Raises:
      ValueError: a module that cannot be imported, a name that it does not have, or no function.
    """
    module, _, name = word.partition(":")
    if not _DOTTED.fullmatch(module) or not name.isidentifier():
        raise ValueError(f"{what} is {word!r}; allowed: module:name, both names of Python")
    home = _imported(what, word, module)
    if not hasattr(home, name):
        own = [n for n, x in vars(home).items() if callable(x) and not n.startswith("_")]
        near = nearest(name, own)
        hint = f"; did you mean {module}:{f' or {module}:'.join(near)}?" if near else ""
        known = ", ".join(n for n in own if getattr(getattr(home, n), "__module__", "") == module)
        raise ValueError(
            f"{what} is {word}, but {module} has no {name}; allowed: one of its functions"
            f"{f' ({known})' if known else ''}{hint}"
        )
    value = getattr(home, name)
    if not callable(value):
        raise ValueError(
            f"{what} is {word}, of type {type(value).__name__}; allowed: a function that returns "
            f"{returns}"
        )
    return value


def called(what: str, word: str, kind: type | tuple[type, ...], returns: str, *args, **values):
    """What a user's function makes, if that is of the right kind.

    Args:
      what: as of `factory`.
      word: as of `factory`.
      kind: what it has to be.
      returns: the same in words.
      *args: for the function.
      **values: for the function.

    Raises:
      ValueError: what the function itself refuses, how it fails, or what else it returns.
    """
    function = factory(what, word, returns)
    try:
        made = function(*args, **values)
    except ValueError:  # which says what is allowed
        raise
    except Exception as error:
        raise ValueError(
            f"{what} is {word}, which fails with {_failure(error)}; allowed: a function that "
            f"returns {returns}"
        ) from error
    if not isinstance(made, kind):
        raise ValueError(
            f"{what} is {word}, which returns a value of type {type(made).__name__}; allowed: a "
            f"function that returns {returns}"
        )
    return made


def _imported(what: str, word: str, module: str):
    """The module, found from the current directory as well."""
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        # A console script has its own directory there instead.
        sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise ValueError(_unfit(what, word, error)) from error
        near = nearest(module, _modules_here())
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(
            f"{what} is {word}, but there is no module {error.name}; allowed: one in {here} or on "
            f"PYTHONPATH{hint}"
        ) from error
    except (Exception, SystemExit) as error:  # whatever a module does when it is imported
        raise ValueError(_unfit(what, word, error)) from error


def _unfit(what: str, word: str, error: BaseException) -> str:
    return (
        f"{what} is {word}, whose module cannot be imported: {_failure(error)}; allowed: a module "
        "that can (--debug shows where it fails)"
    )


def _failure(error: BaseException) -> str:
    """An error and the last line of a user's own that it comes from, in a few words."""
    text = " ".join(str(error).split())
    text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    if isinstance(error, SyntaxError):  # which says where by itself
        return text
    own = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "-packages" not in frame.filename
        and not frame.filename.startswith(("<", _HERE, os.path.dirname(os.__file__)))
    ]
    return f"{text} ({pathlib.Path(own[-1].filename).name}, line {own[-1].lineno})" if own else text


# Of this package, whose lines are not the user's.
_HERE = str(pathlib.Path(__file__).parent.parent)


def _modules_here() -> list[str]:
    """Names of the modules in the current directory."""
    found = [p.stem for p in pathlib.Path().glob("*.py")]
    return found + [p.parent.name for p in pathlib.Path().glob("*/__init__.py")]


def environment(word: str, **options) -> Any:
    """A user's environment.

    Args:
      word: `module:name`.
      **options: of its function.

    Raises:
      ValueError: as of `called`.
    """
    from fedjax_rl.envs.tabular import TabularMDP
    from fedjax_rl.envs.task import Task

    return called("environment", word, (Task, TabularMDP), _ENVIRONMENT, **options)


def environment_factory(word: str) -> Callable:
    """The function that makes it.

    Raises:
      ValueError: as of `factory`.
    """
    return factory("environment", word, _ENVIRONMENT)


def uplink(word: str, **options):
    """A user's uplink, under the name by which a saved configuration finds it again.

    Args:
      word: `module:name`.
      **options: of its function.

    Raises:
      ValueError: as of `called`.
    """
    from fedjax_rl.federation.uplinks import Uplink

    return dataclasses.replace(called("uplink", word, Uplink, _UPLINK, **options), name=word)


def uplink_factory(word: str) -> Callable:
    """The function that makes it.

    Raises:
      ValueError: as of `factory`.
    """
    return factory("uplink", word, _UPLINK)


def algorithm(word: str, place) -> Any:
    """A user's algorithm with its defaults, in an environment.

    Args:
      word: `module:name`.
      place: what its function is called with.

    Raises:
      ValueError: as of `called`.
    """
    from fedjax_rl.federation.algorithm import Algorithm

    return called("algorithm", word, Algorithm, _ALGORITHM, place)


def algorithm_factory(word: str) -> Callable:
    """The function that makes it.

    Raises:
      ValueError: as of `factory`.
    """
    return factory("algorithm", word, _ALGORITHM)


_ALGORITHM = "an algorithm in the environment that it is given"
_ENVIRONMENT = "a Task or a TabularMDP"
_UPLINK = "an Uplink"
