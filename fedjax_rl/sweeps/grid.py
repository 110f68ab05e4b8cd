"""The grid of a sweep: the product of what somebody gave."""

from __future__ import annotations

import itertools
import math
from typing import Any, NamedTuple

from fedjax_rl.federation.algorithm import Algorithm
from fedjax_rl.fields import ByAgents
from fedjax_rl.sweeps import arguments
from fedjax_rl.sweeps.axes import axis
from fedjax_rl.sweeps.cells import Cell


class Grid(NamedTuple):
    """A product of values.

    Attributes:
      algorithms: by label, with the values that are not swept; the label is None where one
        algorithm is given by itself.
      axes: the values of each name that is swept, in the order of dimensions.
      followed: what follows N: name -> {N: value}.
      num_agents: N where it is not swept.
      seed: where it is not swept.
    """

    algorithms: dict[str | None, Algorithm]
    axes: dict[str, list]
    followed: dict[str, dict[int, Any]]
    num_agents: int | None
    seed: int | None

    @property
    def seeds(self) -> list[int]:
        """All seeds."""
        return self.axes.get("seed", [self.seed])

    @property
    def cells(self) -> list[Cell]:
        """Every combination, in the order of the axes."""
        out = []
        for values in itertools.product(*self.axes.values()):
            at = dict(zip(self.axes, values, strict=True))
            label, n = at.pop("algorithm", None), at.pop("num_agents", self.num_agents)
            seed = at.pop("seed", self.seed)
            followed = {name: own[n] for name, own in self.followed.items()}
            out.append(Cell(n, seed, {**at, **followed}, label))
        return out


def grid(algorithms: dict, num_agents, seeds, properties: dict) -> Grid:
    """The product of what somebody gave.

    Args:
      algorithms: as `arguments.algorithms` gives them.
      num_agents: N, one or several.
      seeds: one or several.
      properties: of all of the algorithms; lists are swept.

    Returns:
      The `Grid`, whose algorithms have the values that are not swept.

    Raises:
      ValueError: naming the argument, its value and what is allowed.
    """
    several = list(algorithms.values())
    # In the order of dimensions: what is compared first, seeds last.
    axes: dict = {} if None in algorithms else {"algorithm": list(algorithms)}
    counts, one_count, one_seed = axis(several, "num_agents", num_agents), None, None
    if counts is None:
        one_count = arguments.num_agents(num_agents)
    else:
        axes["num_agents"] = [arguments.num_agents(n) for n in counts]
    follow, fixed = {}, {}
    for name, value in properties.items():
        values = axis(several, name, value)
        if values is not None:
            axes[name] = values
        elif isinstance(value, ByAgents):
            follow[name] = value
        else:
            fixed[name] = value
    seeds = arguments.seeds(seeds)
    if isinstance(seeds, list):
        axes["seed"] = seeds
    else:
        one_seed = seeds
    if (size := math.prod(map(len, axes.values()))) > arguments.MOST_FEDERATIONS:
        text = ", ".join(f"{name} {len(values)}" for name, values in axes.items())
        raise ValueError(
            f"the sweep has {size} federations ({text}); allowed: at most "
            f"{arguments.MOST_FEDERATIONS}"
        )
    # Once for each N, on the host: what they give is checked like any value.
    counts = axes.get("num_agents", [one_count])
    followed = {
        name: {n: [one.evaluated(name, value, n) for one in several].pop() for n in counts}
        for name, value in follow.items()
    }
    made = Grid(algorithms, axes, followed, one_count, one_seed)
    # All at once, with values that are swept: some are only allowed beside others.
    own = {name: values[0] for name, values in axes.items() if name in properties}
    own |= {name: values[counts[0]] for name, values in followed.items()}
    replaced = {label: one.replace(**fixed, **own) for label, one in algorithms.items()}
    return made._replace(algorithms=replaced)
