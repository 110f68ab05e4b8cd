"""Many federations side by side on one flat agent axis.

Axis letters, used throughout the package: `F` federations, `A` agents of all federations
together, `N` agents of one federation, `K` local steps between exchanges, `T` time, `S` states,
`U` actions.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class Population:
    """The static shape of a population: groups of federations of equal size, side by side.

    A federation is a contiguous run of the agent axis, and federations of equal size lie next to
    each other. A reduction per federation is therefore a static slice, a reshape and a reduction:
    no scatter, no padding, no wasted agent, and a fixed order of summation.

    Everything that differs between federations without changing the shape (learning rate, seed,
    period ...) is a traced value; only these counts are static.

    Attributes:
      groups: pairs (number of federations, agents in each), in the order of the agent axis.
      axis_name: the mesh axis over which the *members* of every federation are spread, or None.
        With it, `groups` counts the places on this device, and reductions finish with a
        collective over the axis. See `fedjax_rl.federation.mesh`.
      shares: devices on that axis; 1 without a mesh.
      members: agents of a federation of each group, over all devices; as many as there are places
        by default. With fewer, the last places hold nobody: whoever is there goes through the
        motions, and counts in no reduction.
    """

    groups: tuple[tuple[int, int], ...]
    axis_name: str | None = None
    shares: int = 1
    members: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.members:
            everybody = tuple(agents * self.shares for _, agents in self.groups)
            object.__setattr__(self, "members", everybody)
        if not self.groups:
            raise ValueError("groups is empty: a population has at least one federation")
        for federations, agents in self.groups:
            if federations < 1 or agents < 1:
                raise ValueError(
                    f"groups has the entry ({federations}, {agents}): every group needs at least "
                    "one federation and every federation at least one agent"
                )

    @property
    def num_federations(self) -> int:
        """F."""
        return sum(federations for federations, _ in self.groups)

    @property
    def num_agents(self) -> int:
        """A, places on this device."""
        return sum(federations * agents for federations, agents in self.groups)

    @property
    def sizes(self) -> np.ndarray:
        """Members of each federation over all devices, int32 [F]."""
        pairs = zip(self.groups, self.members, strict=True)
        return np.concatenate([np.full(f, size, np.int32) for (f, _), size in pairs])

    @property
    def whole(self) -> Population:
        """The same federations with all of their members in one place."""
        pairs = zip(self.groups, self.members, strict=True)
        return Population(tuple((f, size) for (f, _), size in pairs))

    @property
    def federation_of(self) -> np.ndarray:
        """The federation each agent belongs to, int32 [A]."""
        local = np.concatenate([np.full(f, n, np.int32) for f, n in self.groups])
        return np.repeat(np.arange(self.num_federations, dtype=np.int32), local)

    @property
    def member_of(self) -> np.ndarray:
        """The place of each agent in its own federation on this device, int32 [A]."""
        return np.concatenate([np.tile(np.arange(n, dtype=np.int32), f) for f, n in self.groups])

    @property
    def places(self):
        """The place of each agent in its own federation over all devices, int32 [A].

        Where nobody is, that of the last member.
        """
        if self.axis_name is None:
            return self.member_of
        rows = [
            jnp.tile(self._places(n, size), f)
            for (f, n), size in zip(self.groups, self.members, strict=True)
        ]
        return jnp.concatenate(rows)

    def mean(self, x):
        """Mean over the members of each federation, [A, ...] -> [F, ...], for any pytree."""
        if self.axis_name is None:
            return self._reduce(jnp.mean, x)
        totals = self.sum(x)
        sizes = self.sizes
        return jax.tree.map(lambda t: t / column(sizes, t).astype(t.dtype), totals)

    def sum(self, x):
        """Sum over the members of each federation, [A, ...] -> [F, ...], for any pytree.

        Counters keep their dtype, in double precision too.
        """
        total = self._reduce(lambda part, axis: jnp.sum(part, axis=axis, dtype=part.dtype), x)
        return total if self.axis_name is None else jax.lax.psum(total, self.axis_name)

    def max(self, x):
        """Maximum over the members of each federation, [A, ...] -> [F, ...], any pytree."""
        top = self._reduce(jnp.max, x, _lowest)
        return top if self.axis_name is None else jax.lax.pmax(top, self.axis_name)

    # Said so often in a program that it is traced once for each kind of tree; XLA inlines it.
    @functools.partial(jax.jit, static_argnums=0)
    def spread(self, x):
        """Gives every member the value of its federation, [F, ...] -> [A, ...], any pytree."""

        def leaf(x):
            parts = []
            for start, (federations, agents) in zip(self._starts, self.groups, strict=True):
                part = x[start : start + federations]
                shape = (federations, agents, *part.shape[1:])
                parts.append(
                    # As static as a reduction: no gather by the index of a federation.
                    jnp.broadcast_to(part[:, None], shape).reshape(-1, *part.shape[1:])
                    if agents > 1
                    else part
                )
            return parts[0] if len(parts) == 1 else jnp.concatenate(parts)

        return jax.tree.map(leaf, x)

    def mid_rank(self, x, mask):
        """Place of every member's value among those of its federation, ties averaged.

        Args:
          x: [A].
          mask: bool [A], which values count.

        Returns:
          [A] like `x`: 0 for the smallest that counts; meaningless where the mask is false.
        """
        # Last in the order, where it moves nobody's place.
        x = jnp.where(mask, x, jnp.inf)
        parts, at = [], 0
        for (federations, agents), size in zip(self.groups, self.members, strict=True):
            part = x[at : at + federations * agents].reshape(federations, agents)
            at += federations * agents
            part = self._without_nobody(part, size, lambda x: jnp.inf)
            whole = part
            if self.axis_name is not None:
                # A place among all needs all values, not a sum; they are one scalar for each agent.
                whole = jax.lax.all_gather(part, self.axis_name, axis=1, tiled=True)

            def rank(values, among):
                ordered = jnp.sort(among)
                below = jnp.searchsorted(ordered, values, side="left")
                upto = jnp.searchsorted(ordered, values, side="right")
                # Equal values have the places `below` to `upto - 1`, and get the middle of these.
                return (below + upto - 1).astype(values.dtype) / 2

            parts.append(jax.vmap(rank)(part, whole).reshape(-1))
        return parts[0] if len(parts) == 1 else jnp.concatenate(parts)

    def first(self, x):
        """The value of every federation's first member, [A, ...] -> [F, ...], any pytree."""
        places = np.unique(self.federation_of, return_index=True)[1]
        own = jax.tree.map(lambda leaf: leaf[places], x)
        if self.axis_name is None:
            return own
        # Each device has a first member of its own; the federation's is on the first device.
        return jax.tree.map(lambda leaf: jax.lax.all_gather(leaf, self.axis_name)[0], own)

    def others(self, x, member):
        """What other members of the own federation have, [A, ...] -> [A, ...], any pytree.

        Args:
          x: leaves [A, ...].
          member: int32 [A], for each agent the place of the other one, as of `places`.

        Returns:
          A pytree like `x`.
        """
        whole = self.whole
        index = self._starts_of_agents(whole) + member
        return jax.tree.map(lambda leaf: leaf[index], self.gathered(x))

    def gathered(self, x):
        """All members of every federation, on each of its devices, for any pytree.

        Args:
          x: leaves [A, ...].

        Returns:
          A pytree of the agent axis of `whole`; as it is without a mesh.
        """
        if self.axis_name is None:
            return x

        def leaf(x):
            parts, at = [], 0
            for (federations, agents), size in zip(self.groups, self.members, strict=True):
                part = x[at : at + federations * agents]
                at += federations * agents
                part = part.reshape(federations, agents, *part.shape[1:])
                part = jax.lax.all_gather(part, self.axis_name, axis=1, tiled=True)[:, :size]
                parts.append(part.reshape(-1, *part.shape[2:]))
            return parts[0] if len(parts) == 1 else jnp.concatenate(parts)

        return jax.tree.map(leaf, x)

    def held(self, x):
        """What this device holds of what is known of all members: the inverse of `gathered`.

        Args:
          x: leaves of the agent axis of `whole`.

        Returns:
          Leaves [A, ...]; where nobody is, the last member's. As it is without a mesh.
        """
        if self.axis_name is None:
            return x
        index = self._starts_of_agents(self.whole) + self.places
        return jax.tree.map(lambda leaf: leaf[index], x)

    @functools.cached_property
    def _starts(self) -> tuple[int, ...]:
        return tuple(itertools.accumulate((f for f, _ in self.groups[:-1]), initial=0))

    def _starts_of_agents(self, whole: Population) -> np.ndarray:
        """Of each agent here the place of its federation's first member in another population."""
        first = np.unique(whole.federation_of, return_index=True)[1].astype(np.int32)
        return first[self.federation_of]

    def _places(self, agents: int, size: int):
        """Places of so many members here, int32 [N], of a federation of that size."""
        here = jax.lax.axis_index(self.axis_name).astype(jnp.int32) * agents
        return jnp.minimum(here + jnp.arange(agents, dtype=jnp.int32), size - 1)

    def _without_nobody(self, part, size: int, nothing: Callable):
        """Values [f, n, ...] with `nothing(x)` in the places that hold nobody."""
        agents = part.shape[1]
        # Sizes are static: where all places are taken, nothing of it is in the program.
        if agents * self.shares == size:
            return part
        here = jax.lax.axis_index(self.axis_name).astype(jnp.int32) * agents
        there = here + jnp.arange(agents, dtype=jnp.int32) < size
        mask = there.reshape(1, agents, *(1,) * (part.ndim - 2))
        return jnp.where(mask, part, jnp.asarray(nothing(part), part.dtype))

    def _reduce(self, reduction: Callable, x, nothing: Callable = lambda part: 0):
        def leaf(x):
            parts, at = [], 0
            for (federations, agents), size in zip(self.groups, self.members, strict=True):
                part = x[at : at + federations * agents]
                at += federations * agents
                if agents * self.shares > size:
                    rows = part.reshape(federations, agents, *part.shape[1:])
                    part = self._without_nobody(rows, size, nothing).reshape(part.shape)
                # A federation of one is its own mean; skipping the reduction is exact and free.
                parts.append(
                    reduction(part.reshape(federations, agents, *part.shape[1:]), axis=1)
                    if agents > 1
                    else part
                )
            return parts[0] if len(parts) == 1 else jnp.concatenate(parts)

        return jax.tree.map(leaf, x)


def _lowest(part):
    """What is no maximum of anything."""
    if jnp.issubdtype(part.dtype, jnp.floating):
        return -jnp.inf
    return jnp.iinfo(part.dtype).min


def population(num_agents: int | Sequence[int]) -> Population:
    """The population of federations with the given numbers of agents.

    Args:
      num_agents: members of each federation, in order; equal neighbours form a group. Sort them
        to get the fewest groups. One integer is one federation.

    Raises:
      ValueError: a federation without agents, or no federation.

    Returns:
      The `Population`.

    Examples:
      >>> import jax.numpy as jnp
      >>> from fedjax_rl.federation import population
      >>> two = population([2, 3])
      >>> two.mean(jnp.arange(5.0)).tolist(), two.spread(jnp.asarray([1, 2])).tolist()
      ([0.5, 3.0], [1, 1, 2, 2, 2])
    """
    sizes = [num_agents] if isinstance(num_agents, int | np.integer) else list(num_agents)
    for n in sizes:
        if n < 1:
            raise ValueError(f"num_agents is {n}: a federation has at least one agent")
    return Population(tuple((len(list(run)), int(n)) for n, run in itertools.groupby(sizes)))


def column(x, like):
    """A vector in the shape that broadcasts against others of its federations, or its agents.

    Args:
      x: [B], of federations or agents.
      like: [B, ...].

    Returns:
      [B, 1, ...], with as many axes as `like`.
    """
    return jnp.asarray(x).reshape(-1, *(1,) * (like.ndim - 1))


def select(condition, new, old):
    """Chooses whole agents or whole federations: `condition` [B], leaves [B, ...].

    A choice, not a product: a non-finite value on the side not taken cannot leak.

    Args:
      condition: bool [B].
      new: pytree of [B, ...], taken where it is true.
      old: the same of what is taken where it is false.

    Returns:
      A pytree like both.
    """
    return jax.tree.map(lambda n, o: jnp.where(column(condition, n), n, o), new, old)
