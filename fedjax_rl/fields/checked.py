"""Configurations and functions whose values are checked."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable

from fedjax_rl.fields.allowed import Allowed
from fedjax_rl.fields.check import check
from fedjax_rl.fields.declared import declarations
from fedjax_rl.fields.evaluated import check_schedules
from fedjax_rl.fields.values import is_number, plain
from fedjax_rl.names import check_known


def check_config(config):
    """Checks every declared field of a configuration.

    Returns:
      The configuration, its values as Python has them: 0.5 for an array without axes, a tuple for a
      list, so that they can be compared, hashed and written down.

    Raises:
      ValueError: naming the property, its value and what is allowed.
    """
    changes = {}
    for name, allowed in declarations(type(config)).items():
        value = getattr(config, name)
        check(name, value, allowed)
        if value is not None and is_number(value):
            read = allowed.read(value)
            changes |= {} if read is value else {name: read}
    # At time 0 alone: how long a run is, is not known yet, and is looked at with it.
    check_schedules(config, 1)
    return dataclasses.replace(config, **changes) if changes else config


def checked(**allowed: Allowed) -> Callable:
    """Decorates a function whose arguments are checked before it is called.

    Single numbers and switches of NumPy or JAX reach it as those of Python, which can be hashed,
    compared and written down.

    Args:
      **allowed: what each argument may be; the attribute `allowed` of the result. A function
        without `**kwargs` answers an unknown name with the nearest known ones.

    Raises:
      TypeError: a name that is no argument of the function.
    """

    def wrap(function: Callable) -> Callable:
        signature = inspect.signature(function)
        parameters = signature.parameters.values()
        open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters)
        unknown = set(allowed) - set(signature.parameters)
        if unknown:
            raise TypeError(f"{function.__qualname__} has no argument {', '.join(sorted(unknown))}")

        @functools.wraps(function)
        def call(*args, **kwargs):
            for name in kwargs:
                if not open_ended:
                    check_known(name, signature.parameters, f"argument of {function.__name__}")
            bound = signature.bind(*args, **kwargs)
            for name, kind in allowed.items():
                # Defaults are ours, and need no look.
                if name in bound.arguments:
                    check(name, bound.arguments[name], kind)
                    bound.arguments[name] = plain(bound.arguments[name])
            return function(*bound.args, **bound.kwargs)

        call.allowed = allowed
        return call

    return wrap
