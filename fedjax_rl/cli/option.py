"""One option: a field of the dataclass that the parser reads a command's arguments into."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from typing import Annotated

from fedjax_rl.cli.settings import parts


def option(name, kind, default, text, metavar=None, hint=None) -> tuple:
    """An option.

    Args:
      name: in Python.
      kind: type to read.
      default: its value unless given.
      text: what it is, for the help.
      metavar: what stands for its value there.
      hint: what is said of its default, instead of the default.
    """
    import tyro

    # The parser formats the help.
    text = text.replace("%", "%%")
    arg = tyro.conf.arg(help=text, metavar=metavar or _metavar(kind), help_behavior_hint=hint)
    return name, Annotated[kind, arg], dataclasses.field(default=default)


def values(several: bool, name, kind, default, text) -> tuple:
    """An option of one value, or of several of which a list is the default, too."""
    if not several:
        return option(name, kind, default, text)
    default = tuple(default) if isinstance(default, list) else (default,)
    return option(name, tuple[kind, ...], default, text)


def _metavar(kind) -> str | None:
    """What stands for a value in the help, or None where the parser knows better."""
    words = {int: "INT", float: "FLOAT", str: "STR"}
    each = [part for part in parts(kind) if part is not types.NoneType]
    if each == [int, float]:
        return "NUMBER"
    if len(each) != 1:
        return None
    if typing.get_origin(each[0]) is tuple:
        inner = typing.get_args(each[0])[0]
        inner = "True|False" if inner is bool else _metavar(inner)
        return inner and f"{inner} ..."
    return words.get(each[0])


def positional(name, text, default=dataclasses.MISSING) -> tuple:
    """An argument without a flag, any word: unknown names are answered by us, with the nearest."""
    import tyro

    kind = Annotated[str, tyro.conf.arg(help=text, metavar=name.upper())]
    return name, tyro.conf.Positional[kind], dataclasses.field(default=default)


def of_record(name: str, inner: dict) -> tuple:
    """A field with the properties of a record as its own, so that they are `--network.hidden`."""
    fields = [own if isinstance(own, tuple) else of_record(n, own) for n, own in inner.items()]
    kind = dataclasses.make_dataclass(name.title().replace("_", ""), fields)
    kind.__doc__ = f"Of {name.replace('_', '-')}."
    return name, kind, dataclasses.field(default_factory=kind)


def spelled_out(argv: list[str], command: type) -> list[str]:
    """The line with a value behind every switch that a grid may give several values.

    Args:
      argv: as typed, with `--reset` or `--no-reset`.
      command: the dataclass of its arguments.
    """
    switches = _switches(command)
    out = []
    for word, following in zip(argv, [*argv[1:], "--"], strict=True):
        if word in switches and following.startswith("--"):
            out += [word, "True"]
        elif (positive := re.sub(r"^(--(?:[\w-]+\.)*)no-", r"\1", word)) in switches - {word}:
            out += [positive, "False"]
        else:
            out.append(word)
    return out


def _switches(command: type, prefix: str = "--") -> set[str]:
    """The options of a command, and of what is nested in it, that are lists of switches."""
    found = set()
    for field in dataclasses.fields(command):
        name = field.name.removesuffix("_options").replace("_", "-")
        if dataclasses.is_dataclass(field.default_factory):
            found |= _switches(field.default_factory, f"{prefix}{name}.")
        elif typing.get_args(field.type)[:1] == (tuple[bool, ...],):
            found.add(f"{prefix}{name}")
    return found
