"""From algorithms, environments and uplinks to what a word or a number can set of them."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import itertools
import operator
import re
import types
import typing
from collections.abc import Callable
from typing import Any, Literal, NamedTuple


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


def algorithm(name: str):
    """The algorithm with its defaults, in the first environment that it accepts."""
    from fedjax_rl.algorithms import ALGORITHMS
    from fedjax_rl.envs.registry import make

    return ALGORITHMS[name].make(make(fitting(name)[0]))


def fitting(name: str) -> list[str]:
    """The environments that an algorithm accepts."""
    from fedjax_rl.algorithms import ALGORITHMS
    from fedjax_rl.envs.registry import ENVIRONMENTS, kind

    return [place for place in ENVIRONMENTS if kind(place) in ALGORITHMS[name].environments]


def settings(one) -> list[Setting]:
    """The properties of an algorithm that the command line can set, without its uplink."""
    config, texts = one.config, {}
    for kind in reversed(type(config).__mro__):
        texts |= _documented(kind.__doc__ or "", "Attributes")
    hints = typing.get_type_hints(type(config))
    found = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        kind = _kind(hints[field.name], value)
        if kind is not None and field.metadata.get("cli", True):
            text = re.sub(r"`(\w+)`", lambda m: m[1].replace("_", "-"), texts.get(field.name, ""))
            found.append(Setting(field.name, kind, value, text))
    return found


def takes_uplinks(one) -> bool:
    """Whether an algorithm lets the command line choose its uplink."""
    fields = {field.name: field for field in dataclasses.fields(one.config)}
    return "uplink" in fields and fields["uplink"].metadata.get("cli", True)


def takes_clocks(one) -> bool:
    """Whether an algorithm can be put on a clock."""
    return "clock" in one.properties and bool(one.functions(one.config).parts)


def clock_options() -> list[Setting]:
    """What can be set of a clock, without its scheduler."""
    from fedjax_rl.federation.clock import Clock

    texts = _documented(Clock.__doc__, "Attributes")
    hints = typing.get_type_hints(Clock)
    return [
        Setting(
            field.name, _kind(hints[field.name], field.default), field.default, texts[field.name]
        )
        for field in dataclasses.fields(Clock)
        if field.name != "scheduler"
    ]


def uplink_options(name: str) -> list[Setting]:
    """What can be set of an uplink."""
    from fedjax_rl.federation.uplinks import UPLINKS

    found = [option for option in parameters(UPLINKS[name]) if option.kind is not None]
    return [o._replace(kind=o.kind | None) if o.required else o for o in found]


def parameters(factory: Callable) -> list[Setting]:
    """The arguments of a factory."""
    hints, texts = typing.get_type_hints(factory), _documented(factory.__doc__ or "", "Args")
    found = []
    for name, parameter in inspect.signature(factory).parameters.items():
        required = parameter.default is parameter.empty
        default = None if required else parameter.default
        kind = _kind(hints.get(name, Any), default)
        found.append(Setting(name, kind, default, texts.get(name, ""), required))
    return found


def factory_of(name: str) -> Callable:
    """The factory of an environment, or one with the same options."""
    from fedjax_rl.envs.registry import ALIASES, ENVIRONMENTS

    name = ALIASES.get(name, name)
    package = f"{name.partition('/')[0]}/"
    similar = [factory for other, factory in ENVIRONMENTS.items() if other.startswith(package)]
    return ENVIRONMENTS[name] if name in ENVIRONMENTS else similar[0]


def parts(kind) -> list:
    """The members of a union, or the type itself."""
    union = typing.get_origin(kind) in (typing.Union, types.UnionType)
    return list(typing.get_args(kind)) if union else [kind]


def _kind(hint, default):
    """The part of an annotation that can be typed, or None where nothing can."""
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


def _documented(docstring: str, section: str) -> dict[str, str]:
    """The entries of a section of a docstring by name."""
    found: dict = {}
    lines = inspect.cleandoc(docstring).partition(f"{section}:\n")[2].splitlines()
    name = None
    for line in itertools.takewhile(lambda line: not line or line.startswith(" "), lines):
        match = re.match(r"\s{2,4}(\w+): (.*)", line)
        if match:
            name = match[1]
            found[name] = match[2]
        elif name and line.strip():
            found[name] += f" {line.strip()}"
    return found
