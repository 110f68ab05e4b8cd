"""What may be asked of a run, each argument looked at before anything compiles."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping

import jax
import numpy as np

from fedjax_rl import fields, memory
from fedjax_rl.federation.algorithm import Algorithm
from fedjax_rl.fields import NAME, Allowed, check, instance, whole
from fedjax_rl.names import brief, check_known

# Time, agents and records are counted in int32 on the device.
LIMIT = fields.WHOLE_LIMIT
# Bytes of an agent that only has a key, its counters and a number or two, with their copies.
LEAST_BYTES = 256
# Federations of one call: the host keeps a configuration of each.
MOST_FEDERATIONS = 2**24

SEED = fields.SEED._replace(text="whole numbers from 0 to 4294967295")


def between(low: int, high: int, of: str = "") -> Allowed:
    """Whole numbers of an integer type from `low` to `high`, of which `of` says what it is.

    Args:
      low: smallest value.
      high: largest value.
      of: what the largest value is, followed by a space.

    Returns:
      The `Allowed`.
    """
    return whole(low, high)._replace(text=f"whole numbers from {low} to {of}{high}")


COUNT = between(1, LIMIT)


def count(name: str, value, low: int = 1, high: int = LIMIT, of: str = "") -> int:
    """A whole number as Python has it.

    Args:
      name: of the argument.
      value: anything at all.
      low: smallest value.
      high: largest value.
      of: what the largest value is, followed by a space.

    Returns:
      The number as an `int`.

    Raises:
      ValueError: naming the argument, its value and what is allowed.
    """
    check(name, value, between(low, high, of))
    return int(value)


def seed(name: str, value) -> int:
    """A seed: keys are made of 32 bits, so that other numbers would repeat one of these.

    Args:
      name: of the argument.
      value: anything at all.

    Returns:
      The seed as an `int`.
    """
    check(name, value, SEED)
    return int(value)


def seeds(value, name: str = "seeds") -> int | list[int]:
    """One seed or several, all different, as equal ones would count one run as two.

    Args:
      value: anything at all.
      name: of the argument.

    Returns:
      An `int` where one is given by itself, else a list of them.

    Raises:
      ValueError: naming what is wrong and what is allowed.
    """
    text = "different whole numbers from 0 to 4294967295"
    if isinstance(value, jax.Array) and not jax.dtypes.issubdtype(value.dtype, np.signedinteger):
        # The data of a key are two words, which would pass for two seeds.
        raise ValueError(f"{name} is a jax array of {value.dtype}; allowed: {text}")
    if not isinstance(value, Iterable) or _is_words(value) or getattr(value, "ndim", 1) == 0:
        check(name, value, SEED)
        return int(value)
    out = _listed(name, value)
    for one in out:
        check(name, one, SEED)
    out = [int(one) for one in out]
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
        # One more than allowed, so that what never ends is refused, too.
        out = list(itertools.islice(values, MOST_FEDERATIONS + 1))
    except Exception as error:
        raise ValueError(
            f"{name} is {brief(values)}, which fails with {type(error).__name__}; allowed: a list"
        ) from error
    if len(out) > MOST_FEDERATIONS:
        raise ValueError(f"{name} has more than {MOST_FEDERATIONS} entries; allowed: at most these")
    return out


_ALGORITHM = instance(Algorithm, text="an algorithm, such as frl.fedq(mdp)")


def check_algorithm(value) -> None:
    """Refuses what is no algorithm."""
    check("algorithm", value, _ALGORITHM)


def algorithms(value) -> dict[str | None, Algorithm]:
    """One algorithm or several to compare, by label; the label of one by itself is None.

    Raises:
      ValueError: naming what is wrong and what is allowed.
    """
    if isinstance(value, Mapping):
        labels, own = list(value), list(value.values())
        for label in labels:
            check("a label of algorithm", label, NAME)
    elif isinstance(value, list | tuple) and not isinstance(value, Algorithm):
        own = list(value)
        labels = [getattr(one, "name", None) for one in own]
    else:
        check("algorithm", value, _ALGORITHM)
        return {None: value}
    if not own:
        raise ValueError(f"algorithm is {brief(value)}; allowed: at least one algorithm")
    for one in own:
        check_algorithm(one)
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise ValueError(
            f"algorithm has {', '.join(twice)} twice; allowed: {{label: algorithm}} with a label "
            "for each"
        )
    return dict(zip(labels, own, strict=True))


def num_agents(value) -> int:
    """N, as many as there can be.

    Raises:
      ValueError: naming the argument, its value and what is allowed.
    """
    check("num_agents", value, COUNT)
    # By the least that any agent needs: what an algorithm needs is asked later, of its jobs.
    n, there = int(value), memory.available()
    if there is not None and n * LEAST_BYTES > there:
        raise ValueError(
            f"num_agents is {n}, which needs at least {memory.words(n * LEAST_BYTES)}; allowed: "
            f"at most {there // LEAST_BYTES} in the {memory.words(there)} that there are"
        )
    return n


def metrics(names, known: Mapping[str, tuple], of: str) -> tuple[str, ...]:
    """The metrics to record.

    Args:
      names: what somebody asks for; those per federation where it is None.
      known: what there is, as in `Algorithm.metrics`.
      of: the name of the algorithm, for the message.

    Returns:
      Their names, in the order in which they were asked for.

    Raises:
      ValueError: naming the argument, its value and what is allowed.
    """
    if names is None:
        return tuple(name for name, (side, *_) in known.items() if side == "federation")
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


def agents(
    value, most: int, recorded: Iterable[str], known: Mapping[str, tuple]
) -> tuple[int, ...] | None:
    """Whose metrics are recorded, by their place in a federation.

    Args:
      value: anything at all; None for nobody in particular.
      most: agents of the largest federation.
      recorded: metrics that are.
      known: what there is, as in `Algorithm.metrics`.

    Returns:
      Their places, in the order in which they were asked for.

    Raises:
      ValueError: naming the argument, its value and what is allowed.
    """
    if value is None:
        return None
    text = f"a list of different whole numbers from 0 to {most - 1}, num_agents - 1"
    several = isinstance(value, list | tuple | range) or getattr(value, "ndim", 0) == 1
    if not several or not len(value) or len(value) > most:
        raise ValueError(f"agents is {brief(value)}; allowed: {text}")
    for one in value:
        check("an entry of agents", one, between(0, most - 1, "num_agents - 1, "))
    out = tuple(int(one) for one in value)
    if len({*out}) < len(out):
        raise ValueError(f"agents is {brief(list(out))}, which repeats some; allowed: {text}")
    if not any(known[name][0] == "agent" for name in recorded):
        of_agents = [name for name, (side, *_) in known.items() if side == "agent"]
        raise ValueError(
            f"agents is {brief(list(out))}, but metrics has none of agents; allowed: with "
            f"{' or '.join(of_agents) or 'an algorithm that has some'}"
        )
    return out


def cells(values: Iterable, algorithms: Mapping[str | None, Algorithm]) -> list[tuple]:
    """A list of federations, with what `frl.Cell` has, as plain values.

    Args:
      values: anything at all.
      algorithms: by label.

    Returns:
      Tuples (num_agents, seed, properties, label of the algorithm), in the same order.

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
            # Free memory is looked up once for each N, not for every one of thousands of cells.
            if n not in found:
                found.add(num_agents(n))
            own_seed = seed("seed", cell.seed)
        except ValueError as error:
            raise ValueError(f"{name}.{error}") from None
        own, label = cell.properties, getattr(cell, "algorithm", None)
        if not isinstance(own, Mapping) or not all(isinstance(key, str) for key in own):
            raise ValueError(
                f"{name}.properties is {brief(own)}; allowed: a dictionary of properties"
            )
        if not isinstance(label, str | None) or label not in algorithms:
            known = ", ".join("None" if one is None else one for one in algorithms)
            raise ValueError(f"{name}.algorithm is {brief(label)}; allowed: {known}")
        out.append((n, own_seed, dict(own), label))
    if not out:
        raise ValueError("cells is empty; allowed: at least one federation")
    return out
