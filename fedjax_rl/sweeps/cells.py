"""The cells of a sweep: one federation each, all different, in one unit of time."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from fedjax_rl.federation.algorithm import Algorithm
from fedjax_rl.fields import check_schedules
from fedjax_rl.names import brief
from fedjax_rl.sweeps.axes import identity


class Cell(NamedTuple):
    """One federation of a sweep.

    Example:
      >>> import fedjax_rl as frl
      >>> frl.Cell(num_agents=4, seed=0, properties={"learning_rate": 0.1})
      Cell(num_agents=4, seed=0, properties={'learning_rate': 0.1}, algorithm=None)

    Attributes:
      num_agents: N.
      seed: of its agents.
      properties: what it changes in the algorithm.
      algorithm: which one, by its label; None where there is one.
    """

    num_agents: int
    seed: int
    properties: dict
    algorithm: str | None = None


class Federation(NamedTuple):
    """A cell with its configuration, in which functions of N are evaluated."""

    cell: Cell
    algorithm: Algorithm


def federations(algorithms: dict, cells: Sequence[Cell], length: int) -> list[Federation]:
    """The cells with their configurations, for so many units of time; equal ones are one.

    Args:
      algorithms: by label.
      cells: in any order.
      length: units of time of the run, within which schedules are looked at.

    Returns:
      A `Federation` for each cell; those of one configuration and N share the `Algorithm`.

    Raises:
      ValueError: naming a property, its value and what is allowed, or units of time that differ.
    """
    made: dict = {}
    out = []
    for cell in cells:
        key = cell.algorithm, *((n, identity(v)) for n, v in cell.properties.items())
        # Seeds and sizes share a configuration, which is checked once for all of them.
        if key not in made:
            one = algorithms[cell.algorithm]
            made[key] = one.replace(**cell.properties) if cell.properties else one
            check_schedules(made[key].config, length)
        at = (cell.num_agents, *key)
        if at not in made:
            made[at] = made[key].at(cell.num_agents)
        out.append(Federation(cell, made[at]))
    if len({own.algorithm.unit for own in out}) > 1:
        raise ValueError(_units_differ(out))
    return out


def check_different(cells: Sequence[Cell]) -> None:
    """Refuses equal federations, which would count one run as two.

    Raises:
      ValueError: naming two that are equal.
    """
    first: dict = {}
    for place, cell in enumerate(cells):
        own = frozenset((name, identity(value)) for name, value in cell.properties.items())
        other = first.setdefault((cell.num_agents, cell.seed, cell.algorithm, own), place)
        if other != place:
            raise ValueError(
                f"cells[{place}] is cells[{other}] once more: num_agents {cell.num_agents}, seed "
                f"{cell.seed} and the same properties; allowed: federations that differ"
            )


def metrics_of(federations: Sequence[Federation]) -> dict:
    """What can be measured of some of these federations, as `Algorithm.metrics` has it.

    Raises:
      ValueError: what is measured of agents here and of federations there.
    """
    found: dict = {}
    for one in {id(own.algorithm): own.algorithm for own in federations}.values():
        for name, (side, text) in one.metrics.items():
            if found.setdefault(name, (side, text))[0] != side:
                raise ValueError(
                    f"metrics has {name}, of agents in one configuration and of federations in "
                    "another; allowed: a sweep for each"
                )
    return found


def _units_differ(federations: Sequence[Federation]) -> str:
    """Which value counts time in which unit, where units differ, which have no axis in common."""
    properties = [{"algorithm": cell.algorithm, **cell.properties} for cell, _ in federations]
    names = list(dict.fromkeys(itertools.chain(*properties)))
    units = [own.algorithm.unit for own in federations]

    def decides(name: str) -> bool:
        found: dict = {}
        for unit, own in zip(units, properties, strict=True):
            found.setdefault(identity(own.get(name)), set()).add(unit)
        return all(len(of_value) == 1 for of_value in found.values())

    name = next(filter(decides, names), " and ".join(names))
    of_unit: dict = {}
    for unit, own in zip(units, properties, strict=True):
        of_unit.setdefault(unit, own.get(name))
    parts = (f"{brief(value)}, which counts time in {unit}s" for unit, value in of_unit.items())
    return f"{name} is {', and '.join(parts)}; allowed: one unit of time in a sweep"
