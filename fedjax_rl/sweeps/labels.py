"""What the values of an axis are called in a result."""

from __future__ import annotations

import numbers
from collections.abc import Sequence

import jax
import numpy as np

from fedjax_rl.federation.clock import Clock
from fedjax_rl.federation.uplinks import Uplink
from fedjax_rl.fields import ByAgents, Schedule
from fedjax_rl.sweeps.axes import identity


def labels(values: Sequence) -> np.ndarray:
    """Values as a coordinate: numbers as they are, what has a name by that, the rest by its place.

    Args:
      values: of one property; None among numbers is NaN.
    """
    values = [v.item() if isinstance(v, np.generic) or _is_scalar(v) else v for v in values]
    if all(isinstance(v, numbers.Real | None) for v in values):
        whole = all(isinstance(v, int) for v in values)
        return np.asarray(values, np.int64 if whole else np.float64)
    words = [_word(v) for v in values]
    if None not in words:
        # Different values may bear one name, such as two tasks; labels have to tell them apart.
        found: dict = {}
        for word, value in zip(words, values, strict=True):
            found.setdefault(word, {}).setdefault(identity(value), len(found[word]))
        if all(len(same) == 1 for same in found.values()):
            return np.asarray(words)
        numbered = (
            f"{word} #{1 + found[word][identity(value)]}" if len(found[word]) > 1 else word
            for word, value in zip(words, values, strict=True)
        )
        return np.asarray(list(numbered))
    places: dict = {}
    return np.asarray([places.setdefault(identity(v), len(places)) for v in values])


def _is_scalar(value) -> bool:
    return isinstance(value, np.ndarray | jax.Array) and np.ndim(value) == 0


def _word(value) -> str | None:
    """What a value is called; None where nothing short says it."""
    if isinstance(value, str | Uplink | Clock | ByAgents | Schedule | numbers.Real | None):
        return str(value)
    if type(value) is tuple and all(isinstance(x, str | numbers.Real | None) for x in value):
        return str(value)
    name = getattr(value, "name", None)
    return name if isinstance(name, str) and not callable(value) else None
