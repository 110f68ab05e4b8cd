"""The agent axis over the devices of a mesh.

The mesh has two axes: `federation`, over which whole federations are spread, and `agent`, over
which the members of every federation are. Every device then holds the same smaller population,
and the mean over a federation is a local sum followed by one collective over `agent`. Members that
no number of devices divides leave places that hold nobody (`Population.members`): whoever stands
there is a copy of the last member, and counts nowhere.

On a clock who arrives is known to all devices of a federation, and those who arrive are fetched
from where they lie (`clock.step`).
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterable, Sequence

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from fedjax_rl import hosts
from fedjax_rl.federation.algorithm import bind, common
from fedjax_rl.federation.population import Population
from fedjax_rl.federation.state import Params, State

AXES = ("federation", "agent")


def _everybody(num_agents: int) -> int:
    """All of them."""
    return num_agents


# Which axis the leaves of each part of a state have; None for what every device holds.
SIDES = {
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


@dataclasses.dataclass(frozen=True)
class Layout:
    """Which federation lies where.

    Attributes:
      population: what one device holds.
      blocks: devices along `federation`, devices along `agent`.
      order: [F], the federation (index into the caller's list) at each place of the global
        federation axis.
      mesh: None on a single device.
    """

    population: Population
    blocks: tuple[int, int]
    order: tuple[int, ...]
    mesh: jax.sharding.Mesh | None = None

    @functools.cached_property
    def whole(self) -> Population:
        """All federations in one place, block after block."""
        groups = self.population.whole.groups
        return Population(tuple((f * self.blocks[0], n) for f, n in groups))

    def bind(self, each: list[Params]) -> Params:
        """The population's parameters, device by device, from those of single federations."""
        if self.mesh is None:
            return bind([each[f] for f in self.order])
        # Of all federations at once: parts of which one finds more in common would not concatenate.
        same, local = common(each), self.population
        share = np.concatenate([np.full(f, n) for f, n in local.groups])

        def held(place: int, f: int, part: int) -> Params:
            """The parameters of the members of a federation that one device holds."""
            index = np.arange(share[place]) + part * share[place]
            index = np.minimum(index, local.sizes[place] - 1)
            own = each[f]
            return Params(jax.tree.map(lambda x: x[index], own.agent), own.federation, own.shared)

        parts = [
            bind([held(place, f, j) for place, f in enumerate(block)], same)
            for block in self._federation_blocks()
            for j in range(self.blocks[1])
        ]
        agent = _concatenate([p.agent for p in parts])
        # All devices of a federation block hold the same federation leaves.
        federation = _concatenate([p.federation for p in parts[:: self.blocks[1]]])
        return Params(agent, federation, parts[0].shared)

    def agents(self) -> tuple[np.ndarray, np.ndarray]:
        """For each place of the global agent axis: the caller's federation, and the member.

        Where nobody is, the last member of the federation.
        """
        local, federation, member = self.population, [], []
        share = np.concatenate([np.full(f, n, np.int32) for f, n in local.groups])
        for block in self._federation_blocks():
            for j in range(self.blocks[1]):
                federation.append(np.asarray(block)[local.federation_of])
                place = local.member_of + j * share[local.federation_of]
                member.append(np.minimum(place, local.sizes[local.federation_of] - 1))
        return np.concatenate(federation), np.concatenate(member)

    def places(self, side: str) -> np.ndarray:
        """Where on a global axis everybody is, in the caller's order.

        Args:
          side: "federation", or "agent" for the members of each federation in turn.

        Returns:
          int [F] or [A], without the places that hold nobody.
        """
        return np.argsort(self.order) if side == "federation" else self._places_of_agents

    @functools.cached_property
    def _places_of_agents(self) -> np.ndarray:
        federation, member = self.agents()
        # Of several places of a member the first is its own.
        order = np.lexsort((member, federation))
        own = np.ones(len(order), bool)
        own[1:] = (np.diff(federation[order]) != 0) | (np.diff(member[order]) != 0)
        return order[own]

    def told(self) -> list:
        """What saved arrays are to say of where everybody was, as plain values."""
        local = self.population
        groups = [[*group] for group in local.groups]
        return [groups, [*local.members], [*self.blocks], [*self.order]]

    def moved(self, told: list, tree, side: str | None, axis: int = 0):
        """Arrays that were laid out otherwise, as they lie here.

        Args:
          told: by the other layout, of the same federations.
          tree: of arrays on the host, with the global axis of `side`.
          side: "agent", "federation" or None for what has no such axis.
          axis: where that is.

        Returns:
          A pytree like `tree`, copied where anything moves.
        """
        if side is None or told == self.told():
            return tree
        groups, members, blocks, order = told
        shares = blocks[1]
        local = Population(tuple(map(tuple, groups)), AXES[1], shares, tuple(members))
        there = Layout(local, tuple(blocks), tuple(order)).places(side)
        if side == "federation":
            index = there[np.asarray(self.order)]
        else:
            federation, member = self.agents()
            sizes = np.bincount(federation[self.places(side)], minlength=len(order))
            index = there[(np.cumsum(sizes) - sizes)[federation] + member]
        return jax.tree.map(lambda x: np.take(np.asarray(x), index, axis), tree)

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
        each = ((name, getattr(state, name), side) for name, side in SIDES.items())
        return State(**{name: self.specification(tree, side) for name, tree, side in each})

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
        put = jax.device_put if hosts.count() == 1 else _put
        return jax.tree.map(lambda x, spec: put(x, NamedSharding(self.mesh, spec)), tree, specs)

    def _federation_blocks(self) -> list[tuple[int, ...]]:
        size = self.population.num_federations
        return [self.order[i : i + size] for i in range(0, len(self.order), size)]


def layout(
    sizes, num_devices: int = 1, working: Callable = _everybody, most: int | None = None
) -> Layout:
    """Lays federations of the given sizes over devices, none of them twice.

    Of all ways to share so many devices, or fewer, between federations and between their members,
    it takes the one whose devices have the fewest agents at work at a time; of several the one of
    fewest devices, and of these the one that spreads a federation over fewest. Members are split
    as evenly as can be: where their number is no multiple, the last places hold nobody.

    Args:
      sizes: agents of each federation, in the caller's order.
      num_devices: devices to use, at most; 1 makes no mesh.
      working: how many of a federation's agents are at work at a time, by their number; all by
        default. On a clock these are the arrivals that a server waits for.
      most: agents that a device holds; layouts that fit come before those that do not.

    Raises:
      ValueError: more devices than there are, or fewer than one.

    Returns:
      The `Layout`.
    """
    available = jax.device_count()
    if not 1 <= num_devices <= available:
        raise ValueError(f"devices is {num_devices}; allowed: 1 to {available}")
    ranked = sorted(range(len(sizes)), key=lambda f: sizes[f])
    runs = [list(run) for _, run in itertools.groupby(ranked, key=lambda f: sizes[f])]
    pairs = [(len(run), int(sizes[run[0]])) for run in runs]
    counts = filter(usable, range(1, num_devices + 1))
    down, across = blocks_of(pairs, counts, working, most)
    order = tuple(
        f
        for i in range(down)
        for run in runs
        for f in run[i * (len(run) // down) : (i + 1) * (len(run) // down)]
    )
    local = tuple((f // down, -(-n // across)) for f, n in pairs)
    used = down * across
    if used == 1:
        return Layout(Population(local), (1, 1), order)
    mesh = jax.make_mesh((down, across), AXES, devices=_devices(used))
    members = tuple(n for _, n in pairs)
    return Layout(Population(local, AXES[1], across, members), (down, across), order, mesh)


def blocks_of(
    pairs: Sequence[tuple[int, int]],
    counts: Iterable[int],
    working: Callable = _everybody,
    most: int | None = None,
) -> tuple[int, int]:
    """How `layout` shares devices between federations and between their members.

    Args:
      pairs: (federations, agents of each) by size.
      counts: numbers of devices to choose from, which need not be here.
      working: as of `layout`.
      most: likewise.

    Returns:
      The devices along the axis of federations, and along that of agents.
    """

    def load(blocks: tuple[int, int], count: Callable) -> int:
        """Of one device, what `count` says of each federation shared out evenly."""
        down, across = blocks
        return sum(f // down * -(-count(n) // across) for f, n in pairs)

    def rank(blocks: tuple[int, int]) -> tuple:
        held = load(blocks, _everybody)
        fits = most is None or held <= most
        # What does not fit is to be as near to it as can be.
        return not fits, 0 if fits else held, load(blocks, working), math.prod(blocks), blocks[1]

    # One program for all devices needs one shape: as many federations of each size everywhere.
    options = (
        (used // across, across)
        for used in counts
        for across in range(1, used + 1)
        if used % across == 0 and all(f % (used // across) == 0 for f, _ in pairs)
    )
    return min(options, key=rank)


def usable(num_devices: int) -> bool:
    """Whether so many devices can be a mesh: one of every process, as many of each, or one alone.

    A population on one device is simulated by every process for itself.
    """
    return num_devices == 1 or num_devices % hosts.count() == 0


def _devices(count: int) -> list[jax.Device]:
    """So many devices, of all processes the same number, those of a process beside each other."""
    share = count // hosts.count()
    devices = sorted(jax.devices(), key=lambda device: device.process_index)
    each = itertools.groupby(devices, key=lambda device: device.process_index)
    return [device for _, own in each for device in itertools.islice(own, share)]


def _put(x, sharding: NamedSharding) -> jax.Array:
    """An array that every process has whole, of which each puts its part on its devices."""
    if hosts.is_spread(x):
        return x
    if isinstance(x, jax.Array) and jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
        data = _put(jax.random.key_data(x), sharding)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
    # Not `device_put`, which would have all processes compare what they have.
    whole = np.asarray(x)
    whole = whole.astype(jax.dtypes.canonicalize_dtype(whole.dtype), copy=False)
    return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])


def _concatenate(trees):
    return jax.tree.map(lambda *leaves: np.concatenate([np.asarray(x) for x in leaves]), *trees)
