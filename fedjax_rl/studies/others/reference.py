"""What others' algorithms are beside ours: stages that NumPy makes, and both in one picture."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import xarray as xr

from fedjax_rl.studies.numbers import Number
from fedjax_rl.studies.pictures import Panel, curves
from fedjax_rl.studies.runs import Stage

LABELS = ("fedjax_rl", "their algorithm in NumPy")


def reference(name: str, axes: dict, of: Callable, *given, seconds: float = 10.0) -> Stage:
    """Variables with the same axes that `of(*given)` computes, `given` being what decides them."""

    def make(meter):
        meter.stage(name)
        return xr.Dataset({own: (tuple(axes), x) for own, x in of(*given).items()}, axes)

    return Stage(name, make, seconds, given)


def beside(ours: Number, theirs: Number, title: str, y: str) -> Panel:
    """Curves of both."""

    def of(results):
        both = [own(results).reset_coords(drop=True) for own in (ours, theirs)]
        return xr.concat(both, xr.Variable("method", list(LABELS)))

    both = Number(of, (*ours.needs, *theirs.needs))
    return curves(both, title=title, y=y, dashed=LABELS[1:])


def softmax(table: np.ndarray) -> np.ndarray:
    """Probabilities of the last axis."""
    powers = np.exp(table - table.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def drawn(rng: np.random.Generator, chances: np.ndarray) -> np.ndarray:
    """An index of each row of chances [..., n]."""
    sums = chances.cumsum(-1)[..., :-1]
    return (rng.random((*chances.shape[:-1], 1)) >= sums).sum(-1)
