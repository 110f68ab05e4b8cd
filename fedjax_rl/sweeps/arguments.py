"""What may be asked of a run, each argument looked at before anything compiles."""

from __future__ import annotations

import itertools
import math
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from fedjax_rl import fields, memory
from fedjax_rl.federation.algorithm import Algorithm
from fedjax_rl.fields import FUNCTION, Allowed, check, instance, whole
from fedjax_rl.names import brief, check_known

# Time, agents and records are counted in int32 on the device.
LIMIT = fields.WHOLE_LIMIT
# Bytes of an agent that only has a key, its counters and a number or two, with their copies.
LEAST_BYTES = 256
# Federations of one call: the host keeps a configuration of each.
MOST_FEDERATIONS = 2**24

SEED = fields.SEED._replace(text="whole numbers from 0 to 4294967295")


def between(low: int, high: int, of: str = "") -> Allowed:
    """Whole numbers of an integer type from `low` to `high`, of which `of` says what it is."""
    return whole(low, high)._replace(text=f"whole numbers from {low} to {of}{high}")


def count(name: str, value, low: int = 1, high: int = LIMIT, of: str = "") -> int:
    """A whole number as Python has it.

    Args:
      name: of the argument.
      value: anything at all.
      low: smallest value.
      high: largest value.
      of: what the largest value is, followed by a space.

    Raises:
      ValueError: naming the argument, its value and what is allowed.
    """
    check(name, value, between(low, high, of))
    return int(value)


def seed(name: str, value) -> int:
    """A seed: keys are made of 32 bits, so that other numbers would repeat one of these."""
    check(name, value, SEED)
    return int(value)


def seeds(value, name: str = "seeds") -> int | list[int]:
    """One seed or several, all different, as equal ones would count one run as two.

    Args:
      value: anything at all.
      name: of the argument.

    Raises:
      ValueError: naming what is wrong and what is allowed.
    """
    text = "different whole numbers from 0 to 4294967295"
    if isinstance(value, jax.Array) and not jax.dtypes.issubdtype(value.dtype, np.signedinteger):
        # The data of a key are two words, which would pass for two seeds.
        raise ValueError(f"{name} is a jax array of {value.dtype}; allowed: {text}")
    if not isinstance(value, Iterable) or _is_words(value) or getattr(value, "ndim", 1) == 0:
        return seed(name, value)
    out = [seed(name, one) for one in _listed(name, value)]
    if not out:
        raise ValueError(f"{name} is an empty list; allowed: {text}")
    if len(set(out)) < len(out):
        raise ValueError(f"{name} is {brief(out)}, which repeats some; allowed: {text}")
    return out


def _is_words(value) -> bool:
    return isinstance(value, str | bytes | Mapping)


def _listed(name: str, values: Iterable) -> list:
    """Values as a list, which what never ends is not."""
    try:
        out = list(itertools.islice(values, MOST_FEDERATIONS + 1))
    except Exception as error:
        raise ValueError(
            f"{name} is {brief(values)}, which fails with {type(error).__name__}; allowed: a list"
        ) from error
    if len(out) > MOST_FEDERATIONS:
        raise ValueError(f"{name} has more than {MOST_FEDERATIONS} entries; allowed: at most these")
    return out


def check_axes(axes: Mapping[str, Sequence]) -> None:
    """Refuses more combinations than a host can list."""
    size = math.prod(len(values) for values in axes.values())
    if size > MOST_FEDERATIONS:
        sizes = ", ".join(f"{name} {len(values)}" for name, values in axes.items())
        raise ValueError(
            f"the sweep has {size} federations ({sizes}); allowed: at most {MOST_FEDERATIONS}"
        )


def check_algorithm(value) -> None:
    """Refuses what is no algorithm."""
    check("algorithm", value, instance(Algorithm, text="an algorithm, such as frl.fedq(mdp)"))


def num_agents(value) -> int:
    """N, as many as there can be.

    Raises:
      ValueError: naming the argument, its value and what is allowed.
    """
    n = count("num_agents", value)
    there = memory.available()
    if there is not None and n * LEAST_BYTES > there:
        raise ValueError(
            f"num_agents is {n}, which needs at least {memory.words(n * LEAST_BYTES)}; allowed: "
            f"at most {there // LEAST_BYTES} in the {memory.words(there)} that there are"
        )
    return n


def metrics(names, known: Mapping[str, Any], of: str) -> tuple[str, ...]:
    """The metrics to record.

    Args:
      names: what somebody asks for.
      known: what there is.
      of: the name of the algorithm, for the message.

    Raises:
      ValueError: naming the argument, its value and what is allowed.
    """
    if not isinstance(names, list | tuple):
        raise ValueError(
            f"metrics is {brief(names)}; allowed: a list of names, of {', '.join(sorted(known))}"
        )
    names = tuple(names)
    for name in names:
        if not isinstance(name, str):
            raise ValueError(f"metrics has {brief(name)}; allowed: names")
        check_known(name, known, f"metric of {of}")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"metrics has {', '.join(twice)} twice; allowed: different names")
    return names


def function(name: str, value, of: str) -> None:
    """Refuses what cannot be called, None aside.

    Args:
      name: of the argument.
      value: anything at all.
      of: what it is called with.

    Raises:
      ValueError: naming the argument, its value and what is allowed.
    """
    check(name, value, Allowed(f"a function of {of}", callable, optional=True))


def run(
    *, devices, workers, chunk, stop, checkpoints, progress, watch
) -> tuple[int, int | None, int | None]:
    """Checks how a run is to be made, whatever is run.

    Returns:
      devices, workers and chunk as Python's integers.

    Raises:
      ValueError: naming the argument, its value and what is allowed.
    """
    devices = count("devices", devices, high=jax.device_count())
    workers = None if workers is None else count("workers", workers)
    chunk = None if chunk is None else count("chunk", chunk)
    function("stop", stop, "(times, records, cells)")
    function("progress", progress, "(done, total)")
    function("watch", watch, "the last values by name")
    if checkpoints is not None and not FUNCTION.fine(checkpoints):
        check(
            "checkpoints",
            checkpoints,
            Allowed(
                "a directory, or a function that returns one",
                _is_path,
            ),
        )
    return devices, workers, chunk


def _is_path(value) -> bool:
    """Whether a value can be the name of a file: none that a file system refuses."""
    if not isinstance(value, str | os.PathLike) or str(value) == "" or "\0" in str(value):
        return False
    return all(len(part.encode()) <= 255 for part in pathlib.PurePath(value).parts)


def directory(checkpoints) -> Any:
    """Where checkpoints lie: what is given, or what it returns when called.

    Raises:
      ValueError: what cannot be called with nothing, or returns no directory.
    """
    text = "a directory, or a function of nothing that returns one"
    if callable(checkpoints):
        try:
            given = checkpoints()
        except TypeError as error:
            raise ValueError(
                f"checkpoints is {brief(checkpoints)}, which fails with TypeError: {brief(error)}; "
                f"allowed: {text}"
            ) from error
        check("what checkpoints returns", given, Allowed(text, _is_path))
        return given
    return checkpoints


def cells(values: Iterable) -> list[tuple[int, int, dict]]:
    """A list of federations, each with `num_agents`, `seed` and `properties`, as plain values.

    Raises:
      ValueError: naming what is wrong and what is allowed.
    """
    if _is_words(values) or not isinstance(values, Iterable):
        raise ValueError(f"cells is {brief(values)}; allowed: a list of frl.Cell")
    out, found = [], set()
    for place, cell in enumerate(_listed("cells", values)):
        name = f"cells[{place}]"
        if not all(hasattr(cell, part) for part in ("num_agents", "seed", "properties")):
            raise ValueError(f"{name} is {brief(cell)}; allowed: frl.Cell(N, seed, properties)")
        try:
            n = count("num_agents", cell.num_agents)
            if n not in found:
                found.add(num_agents(n))
            own_seed = seed("seed", cell.seed)
        except ValueError as error:
            raise ValueError(f"{name}.{error}") from None
        own = cell.properties
        if not isinstance(own, Mapping) or not all(isinstance(key, str) for key in own):
            raise ValueError(
                f"{name}.properties is {brief(own)}; allowed: a dictionary of properties"
            )
        out.append((n, own_seed, dict(own)))
    if not out:
        raise ValueError("cells is empty; allowed: at least one federation")
    return out
