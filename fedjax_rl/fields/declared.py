"""Where what a value may be is declared in a dataclass."""

from __future__ import annotations

import dataclasses
import functools

from fedjax_rl.fields.allowed import Allowed


def declared(default=dataclasses.MISSING, allowed: Allowed | None = None, **metadata):
    """A field of a configuration with its default and what it may be.

    Args:
      default: its value unless set.
      allowed: what it may be; None declares that another check looks at it.
      **metadata: further entries of the field's metadata, such as `cli=False`.

    Returns:
      What `dataclasses.field` returns.
    """
    return dataclasses.field(default=default, metadata={"allowed": allowed, **metadata})


@functools.cache
def declarations(kind: type) -> dict[str, Allowed]:
    """What each declared field of a dataclass may be."""
    fields = dataclasses.fields(kind)
    return {f.name: f.metadata["allowed"] for f in fields if f.metadata.get("allowed") is not None}
