"""How a class of records is shown: what is said of its fields, their order, the signature."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import re


def documentation(kind: type) -> dict[str, str]:
    """What is said of each property of a class of records, by name."""
    found: dict[str, str] = {}
    # Bases first, so that a class may say something else of what it inherits.
    for base in reversed(kind.__mro__):
        found |= section(base.__doc__ or "", "Attributes")
    return found


def section(docstring: str, name: str) -> dict[str, str]:
    """The entries of a section of a docstring, such as "Args" or "Attributes", by name.

    Args:
      docstring: as it stands in the source.
      name: of the section.

    Returns:
      Name of an entry -> what is said of it, in one line.
    """
    found: dict[str, str] = {}
    lines = inspect.cleandoc(docstring).partition(f"{name}:\n")[2].splitlines()
    entry = indent = None
    for line in itertools.takewhile(lambda line: not line or line.startswith(" "), lines):
        match = re.match(r"( +)(\w+): (.*)", line)
        # A line that goes on with an entry may begin like one, but stands further in.
        if match and match[1] == (indent or match[1]):
            indent = match[1]
            entry = match[2]
            found[entry] = match[3]
        elif entry and line.strip():
            found[entry] += f" {line.strip()}"
    return found


def environment_of(kind: type) -> str:
    """The name of the property that says where agents live."""
    return next(f.name for f in dataclasses.fields(kind) if f.metadata.get("environment"))


def in_order(kind: type) -> list[dataclasses.Field]:
    """The fields for a reader: the environment, then what is a class's own before its bases'."""
    places = {}
    for place, base in enumerate(kind.__mro__):
        for name in vars(base).get("__annotations__", ()):
            places.setdefault(name, place)
    own = dataclasses.fields(kind)
    return sorted(own, key=lambda f: -1 if f.metadata.get("environment") else places[f.name])


def signature_of(kind: type, returns, **defaults) -> inspect.Signature:
    """The signature of a factory: the environment first, then every property by keyword.

    Args:
      kind: class of records.
      returns: annotation of the result.
      **defaults: where these differ from those of the class.

    Returns:
      The signature.
    """
    parameters = []
    for place, field in enumerate(in_order(kind)):
        missing = field.default is dataclasses.MISSING
        default = defaults.get(field.name, inspect.Parameter.empty if missing else field.default)
        way = inspect.Parameter.KEYWORD_ONLY if place else inspect.Parameter.POSITIONAL_OR_KEYWORD
        parameters.append(
            inspect.Parameter(field.name, way, default=default, annotation=field.type)
        )
    return inspect.Signature(parameters, return_annotation=returns)
