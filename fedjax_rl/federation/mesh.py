"""The agent axis over the devices of a mesh.

The mesh has two axes: `federation`, over which whole federations are spread, and `agent`, over
which the members of every federation are. Every device then holds the same smaller population,
and the mean over a federation is a local mean followed by one collective over `agent`, the only
one there is. A federation larger than a device's share has `agent` > 1.
"""

from __future__ import annotations

import dataclasses
import itertools

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from fedjax_rl.federation.algorithm import bind, common
from fedjax_rl.federation.population import Population
from fedjax_rl.federation.state import Params, State

AXES = ("federation", "agent")


@dataclasses.dataclass(frozen=True)
class Layout:
    """Which federation lies where.

    Attributes:
      population: what one device holds.
      blocks: devices along `federation`, devices along `agent`.
      order: [blocks[0] * F], the federation (index into the caller's list) at each place of the
        global federation axis; entries repeated to fill the mesh come after their original.
      mesh: None on a single device.
    """

    population: Population
    blocks: tuple[int, int]
    order: tuple[int, ...]
    mesh: jax.sharding.Mesh | None

    def bind(self, each: list[Params]) -> Params:
        """The population's parameters, device by device, from those of single federations."""
        if self.mesh is None:
            return bind([each[f] for f in self.order])
        # Of all federations at once: parts of which one finds more in common would not concatenate.
        same = common(each)
        parts = [
            bind([_members(each[f], j, self.blocks[1]) for f in block], same)
            for block in self._federation_blocks()
            for j in range(self.blocks[1])
        ]
        agent = _concatenate([p.agent for p in parts])
        # All devices of a federation block hold the same federation leaves.
        federation = _concatenate([p.federation for p in parts[:: self.blocks[1]]])
        return Params(agent, federation, parts[0].shared)

    def agents(self) -> tuple[np.ndarray, np.ndarray]:
        """For each place of the global agent axis: the caller's federation, and the member."""
        federation, member = [], []
        share = np.concatenate([np.full(f, n, np.int32) for f, n in self.population.groups])
        for block in self._federation_blocks():
            for j in range(self.blocks[1]):
                federation.append(np.asarray(block)[self.population.federation_of])
                member.append(self.population.member_of + j * share[self.population.federation_of])
        return np.concatenate(federation), np.concatenate(member)

    def first_places(self, num_federations: int) -> np.ndarray:
        """Where on the global federation axis each of the caller's federations lies, [F]."""
        places = np.full(num_federations, -1)
        # Backwards, so that of a federation and its repetitions the original stays.
        for place in range(len(self.order) - 1, -1, -1):
            places[self.order[place]] = place
        return places

    def specification(self, tree, axis: str | None, leading: int = 0):
        """How the leaves of a tree are spread.

        Args:
          tree: of arrays that have all the axis in the same place.
          axis: "agent", "federation", or None for leaves that every device holds.
          leading: where that axis is, as many axes come before it.

        Returns:
          A partition spec for each leaf.
        """
        # Agents lie over both axes of the mesh, those of one federation beside each other.
        name = {"agent": AXES, "federation": AXES[0], None: None}[axis]
        spec = PartitionSpec(*(None,) * leading, name) if name else PartitionSpec()
        return jax.tree.map(lambda _: spec, tree)

    def params_specification(self, params: Params) -> Params:
        """Partition specs of the population's parameters."""
        return Params(
            self.specification(params.agent, "agent"),
            self.specification(params.federation, "federation"),
            self.specification(params.shared, None),
        )

    def state_specification(self, state: State) -> State:
        """Partition specs of the state of a run."""
        axes = {
            "time": None,
            "keys": "agent",
            "agents": "agent",
            "server": "federation",
            "server_state": "federation",
            "uplink_state": "agent",
            "ledger": "federation",
            "sent": "agent",
            "in_flight": "agent",
            "elapsed": "federation",
            "rules": "federation",
        }
        return State(**{n: self.specification(getattr(state, n), a) for n, a in axes.items()})

    def shard(self, function, in_specs, out_specs):
        """Makes a function of one device's population one of the whole; as it is without mesh.

        Args:
          function: of arrays as one device holds them.
          in_specs: partition specs of its arguments.
          out_specs: of what it returns.

        Returns:
          A function of global arrays.
        """
        if self.mesh is None:
            return function
        # Unchecked: that a server is the same on all devices of its members cannot be inferred.
        return jax.shard_map(
            function, mesh=self.mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False
        )

    def place(self, tree, specs):
        """Puts the leaves of a tree on the devices.

        Args:
          tree: of global arrays.
          specs: a partition spec for each.

        Returns:
          The same tree, laid over the mesh; as it is without one.
        """
        if self.mesh is None:
            return tree
        return jax.tree.map(
            lambda x, spec: jax.device_put(x, NamedSharding(self.mesh, spec)), tree, specs
        )

    def _federation_blocks(self) -> list[tuple[int, ...]]:
        size = self.population.num_federations
        return [self.order[i : i + size] for i in range(0, len(self.order), size)]


def layout(sizes, num_devices: int = 1, spread: bool = True) -> Layout:
    """Lays federations of the given sizes over devices.

    Of all factorisations of the number of devices it takes the one that repeats the fewest
    agents: federations are repeated where their number is no multiple, and members are only split
    evenly.

    Args:
      sizes: agents of each federation, in the caller's order.
      num_devices: devices to use; 1 makes no mesh.
      spread: whether the members of a federation may be spread over devices; those that a clock
        drives may not, as one agent's arrival decides what all others do next.

    Raises:
      ValueError: more devices than there are, or fewer than one.

    Returns:
      The `Layout`.
    """
    available = jax.device_count()
    if not 1 <= num_devices <= available:
        raise ValueError(f"devices is {num_devices}; allowed: 1 to {available}")
    ranked = sorted(range(len(sizes)), key=lambda f: sizes[f])
    groups = [list(run) for _, run in itertools.groupby(ranked, key=lambda f: sizes[f])]

    def split(across: int):
        """Agents in all, groups of a device, and the order, with `across` devices a federation."""
        down = num_devices // across
        if any(sizes[group[0]] % across for group in groups):
            return None
        # One program for all devices needs one shape: as many federations of each size everywhere.
        padded = [group + [group[-1]] * (-len(group) % down) for group in groups]
        total = sum(len(group) * sizes[group[0]] for group in padded)
        local = tuple((len(g) // down, sizes[g[0]] // across) for g in padded)
        order = tuple(
            f
            for i in range(down)
            for g in padded
            for f in g[i * (len(g) // down) : (i + 1) * (len(g) // down)]
        )
        # In this order options are compared: of equal work the one of fewest devices a federation.
        return total, across, local, order

    shares = range(1, num_devices + 1) if spread else (1,)
    options = [split(across) for across in shares if num_devices % across == 0]
    _, across, local, order = min(option for option in options if option is not None)
    if num_devices == 1:
        return Layout(Population(local), (1, 1), order, None)
    down = num_devices // across
    mesh = jax.make_mesh((down, across), AXES, devices=jax.devices()[:num_devices])
    return Layout(Population(local, AXES[1], across), (down, across), order, mesh)


def _members(params: Params, part: int, parts: int) -> Params:
    """The parameters of one of `parts` equal runs of a federation's members."""

    def cut(leaf):
        size = leaf.shape[0] // parts
        return leaf[part * size : (part + 1) * size]

    return Params(jax.tree.map(cut, params.agent), params.federation, params.shared)


def _concatenate(trees):
    return jax.tree.map(lambda *leaves: np.concatenate([np.asarray(x) for x in leaves]), *trees)
