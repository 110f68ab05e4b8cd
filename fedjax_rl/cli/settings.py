"""From algorithms, environments and uplinks to what a word or a number can set of them."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import operator
import re
import types
import typing
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from fedjax_rl.cli import outside


class Setting(NamedTuple):
    """Something that a word, a number or a list of these sets.

    Attributes:
      name: in Python.
      kind: type to read, or None where it is set in Python only.
      default: its value unless set.
      text: what it is.
      required: whether it has no default.
    """

    name: str
    kind: Any
    default: Any
    text: str
    required: bool = False

    @property
    def is_tuple(self) -> bool:
        """Whether one value consists of several words."""
        return any(typing.get_origin(part) is tuple for part in parts(self.kind))


def settings(one) -> list[Setting]:
    """The properties of an algorithm that the command line can set, without its uplink.

    Those of records within its configuration have dots in their names, as in `network.hidden`.
    """
    return _settings(one.config)


def _settings(config, prefix: str = "") -> list[Setting]:
    from fedjax_rl.fields.described import documentation

    texts = documentation(type(config))
    hints = _hints(type(config))
    found = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.metadata.get("record") is not None:
            found += _settings(value, f"{prefix}{field.name}.")
            continue
        kind = _kind(hints.get(field.name, Any), value)
        if kind is not None and field.metadata.get("cli", True):
            text = re.sub(r"`(\w+)`", lambda m: m[1].replace("_", "-"), texts.get(field.name, ""))
            found.append(Setting(f"{prefix}{field.name}", kind, value, text))
    return found


def _hints(annotated) -> dict:
    """The annotations of a class or function, as far as they can be looked up."""
    try:
        return typing.get_type_hints(annotated)
    except NameError:  # of a user's own, imported for type checkers alone
        return {}


def takes_uplinks(one) -> bool:
    """Whether an algorithm lets the command line choose its uplink."""
    own = {field.name: field for field in dataclasses.fields(one.config)}
    return "uplink" in own and own["uplink"].metadata.get("cli", True)


def takes_clocks(one) -> bool:
    """Whether an algorithm can be put on a clock."""
    return "clock" in one.properties and bool(one.functions(one.config).parts)


def clock_options() -> list[Setting]:
    """What can be set of a clock, without its scheduler."""
    from fedjax_rl.federation.clock import Clock

    return [own for own in _settings(Clock()) if own.name != "scheduler"]


def uplink_options(name: str) -> list[Setting]:
    """What can be set of an uplink."""
    from fedjax_rl.federation.uplinks import UPLINKS

    own = outside.uplink_factory(name) if outside.is_outside(name) else UPLINKS[name]
    found = [option for option in parameters(own) if option.kind is not None]
    return [o._replace(kind=o.kind | None) if o.required else o for o in found]


def parameters(factory: Callable) -> list[Setting]:
    """The arguments of a factory."""
    from fedjax_rl.fields.described import section

    hints, texts = _hints(factory), section(factory.__doc__ or "", "Args")
    found = []
    for name, parameter in inspect.signature(factory).parameters.items():
        required = parameter.default is parameter.empty
        default = None if required else parameter.default
        kind = _kind(hints.get(name, Any), default)
        found.append(Setting(name, kind, default, texts.get(name, ""), required))
    return found


def parts(kind) -> list:
    """The members of a union, or the type itself."""
    union = typing.get_origin(kind) in (typing.Union, types.UnionType)
    return list(typing.get_args(kind)) if union else [kind]


def _kind(hint, default):
    """The part of an annotation that can be typed, or None where nothing can."""
    # Numbers are annotated so, as they may also be traced or schedules.
    if hint is Any:
        if default is None:
            return int | float | None
        return type(default) if type(default) in (bool, int, float, str) else None
    typed = [part for part in parts(hint) if _can_be_typed(part)]
    if callable(default) or not set(typed) - {types.NoneType}:
        return None
    return functools.reduce(operator.or_, typed)


def _can_be_typed(kind) -> bool:
    if typing.get_origin(kind) is tuple:
        return all(inner in (int, float, str, ...) for inner in typing.get_args(kind))
    plain = (bool, int, float, str, types.NoneType)
    return kind in plain or typing.get_origin(kind) is Literal
