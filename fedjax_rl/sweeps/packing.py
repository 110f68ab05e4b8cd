"""Which federations run together: none more than once, and none without need beside another.

Federations are given by their sizes here, and by their places in the caller's list.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

from fedjax_rl.federation.mesh import blocks_of

# Measured on one CPU core: what a step costs a population, and what it costs an agent. They only
# decide which periods share a population, never a number.
STEP_OVERHEAD, AGENT_STEP = 5e-6, 3e-9


def join_periods(agents: Mapping[int, int]) -> list[list[int]]:
    """Groups periods into populations.

    A population costs a fixed time per step, and one with several periods stops at every multiple
    of each. Periods are joined, longest first, while that is estimated to be cheaper.

    Args:
      agents: of the federations with each period.
    """

    def cost(periods, count) -> float:
        """Seconds per step; an exchange costs about two steps."""
        # Exchanges of different periods hardly ever coincide; more than one a step there are not.
        rate = min(1.0, sum(1 / p for p in periods))
        return STEP_OVERHEAD * (1 + 2 * rate) + count * AGENT_STEP * (1 + 2 * rate)

    groups: list = []
    for period in sorted(agents, reverse=True):
        if groups:
            periods, count = groups[-1]
            joined = cost([*periods, period], count + agents[period])
            if joined < cost(periods, count) + cost([period], agents[period]):
                groups[-1] = [*periods, period], count + agents[period]
                continue
        groups.append(([period], agents[period]))
    return [periods for periods, _ in groups]


def split(sizes: Sequence[int], limit: int, most: int | None = None) -> list[list[int]]:
    """Cuts federations into packs of at most `limit` agents, a larger federation alone in its own.

    Packs of one shape share a compilation, so each takes an equal share of every size; what is
    left over goes to those with the fewest agents. There are more packs than needed, but none of
    fewer agents than about `most`, where that makes the largest one smaller.

    Args:
      sizes: agents of each federation.
      limit: of agents in a pack.
      most: agents that repay a pack of their own; None where fewer packs are better.

    Returns:
      Places of the federations of each pack; every place is in one of them.
    """
    giants = [[place] for place, n in enumerate(sizes) if n > limit]
    rest = [place for place, n in enumerate(sizes) if n <= limit]
    if not rest:
        return giants
    total = sum(sizes[place] for place in rest)
    if most is None and total <= limit:
        return [rest, *giants]
    # The largest are dealt first, so that small ones level what these leave uneven.
    ranked = sorted(rest, key=lambda place: -sizes[place])
    runs = [list(run) for _, run in itertools.groupby(ranked, key=lambda place: sizes[place])]

    def largest(packs: int) -> int:
        return max(_deal([(sizes[run[0]], len(run)) for run in runs], packs)[0])

    fewest = math.ceil(total / limit)
    # Federations cannot be cut, so that the total alone promises too much.
    while largest(fewest) > limit:
        fewest += 1
    repaid = min(len(rest), math.ceil(total / (most or limit)))
    # Of numbers that make the largest pack equally small the first: fewest packs.
    packs = min(range(fewest, max(fewest, repaid) + 1), key=largest)
    if packs == 1:
        return [rest, *giants]
    _, shares = _deal([(sizes[run[0]], len(run)) for run in runs], packs)
    out: list = [[] for _ in range(packs)]
    for run, counts in zip(runs, shares, strict=True):
        left = iter(run)
        for pack, count in zip(out, counts, strict=True):
            pack += itertools.islice(left, count)
    return [*out, *giants]


def _deal(runs: Sequence[tuple[int, int]], packs: int) -> tuple[list[int], list[list[int]]]:
    """Deals federations of equal size, (agents, federations), to packs.

    Returns:
      The agents of each pack, and of each run how many federations each pack gets.
    """
    loads, shares = [0] * packs, []
    for n, count in runs:
        share, left = divmod(count, packs)
        lightest = set(sorted(range(packs), key=lambda pack: loads[pack])[:left])
        counts = [share + (pack in lightest) for pack in range(packs)]
        loads = [load + n * own for load, own in zip(loads, counts, strict=True)]
        shares.append(counts)
    return loads, shares


def over_devices(sizes: Sequence[int], devices: int, **more) -> list[list[int]]:
    """Cuts federations into parts that each leave as few devices idle as can be.

    Of each size as many as devices divide go whole, and the members of the others are spread; all
    at once where that is no more work for a device.

    Args:
      sizes: agents of each federation.
      devices: of the largest mesh.
      **more: of `layout`.

    Returns:
      Places of the federations of each part.
    """
    parts: dict = {}
    working = more.get("working", lambda n: n)

    def laid(members: Sequence[int], n: int) -> tuple[tuple[int, int], int]:
        """The blocks of so many federations of n agents, and what a device then works."""
        # Of any number of devices, which need not be here: a run goes on over others, of other
        # processes, and keeps how it was cut.
        down, across = blocks_of([(len(members), n)], range(1, devices + 1), **more)
        return (down, across), len(members) // down * math.ceil(working(n) / across)

    for n in dict.fromkeys(sizes):
        members = [place for place, size in enumerate(sizes) if size == n]
        full = len(members) // devices * devices
        cuts = [part for part in (members[:full], members[full:]) if part]
        together, apart = laid(members, n), [laid(part, n) for part in cuts]
        if together[1] <= sum(work for _, work in apart):
            cuts, apart = [members], [together]
        for part, (blocks, _) in zip(cuts, apart, strict=True):
            parts.setdefault(blocks, []).extend(part)
    return [sorted(members) for members in parts.values()]
