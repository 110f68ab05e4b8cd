r"""What a round costs on several hosts: a model of two numbers a link, the time and the rate of it.

A message of m bytes takes alpha + m / beta. A federation over H hosts averages within each of them
first, so that what crosses a link is one message, however many agents there are:

.. math:: ring: 2 (H - 1) (alpha + m / (H beta)), \qquad
   tree: 2 \lceil log_2 H \rceil (alpha + m / beta)

* Hockney, *The communication challenge for MPP*, Parallel Computing 20 (1994): alpha and beta.
* Thakur, Rabenseifner and Gropp, *Optimization of Collective Communication Operations in MPICH*
  (2005), and Patarasuk and Yuan, *Bandwidth Optimal All-reduce Algorithms for Clusters of
  Workstations* (2009): the ring, of the least bytes that there can be; the tree, up and down.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from fedjax_rl import fields


class Link(NamedTuple):
    """A connection of two hosts, or of two chips.

    Attributes:
      latency: alpha, seconds of a message of nothing.
      bandwidth: beta, bytes a second, one way.
      source: where these are published.
    """

    latency: float
    bandwidth: float
    source: str


class Chips(NamedTuple):
    """Accelerators that belong together.

    Attributes:
      count: of them.
      bytes: of memory of each.
      link: between neighbours.
      source: where these are published.
    """

    count: int
    bytes: float
    link: Link
    source: str


_V5E = "Google Cloud, *TPU v5e*, cloud.google.com/tpu/docs/v5e"
LINKS = {
    "TPU v5e, chip to chip": Link(
        1e-6,
        400e9 / 2 / 4,
        f"{_V5E}: 400 GB/s both ways over four ports; about a microsecond a hop: Austin et al., "
        "*How to Scale Your Model* (2025), jax-ml.github.io/scaling-book",
    ),
    "40 GbE, past the kernel": Link(
        1.93e-6,
        37.23e9 / 8,
        "Squyres, *MPI over 40Gb Ethernet*, Cisco blogs (2014): measured",
    ),
    "100 GbE, TCP": Link(
        50e-6,
        100e9 / 8,
        "WWT, *The Basics of High-Performance Networking*: kernel to kernel about 50 microseconds",
    ),
}
POD = Chips(256, 16e9, LINKS["TPU v5e, chip to chip"], _V5E)
SHAPES = ("ring", "tree")
_NOT_NEGATIVE = fields.number(0)
_LINK = fields.instance(Link, text="a Link")


@fields.checked(size=_NOT_NEGATIVE, hosts=fields.COUNT, link=_LINK, shape=fields.word(SHAPES))
def all_reduce_time(size: float, hosts: int, link: Link, shape: str = "ring") -> float:
    """Seconds in which all of several hosts have the mean of what each has.

    Example:
      >>> from fedjax_rl.analysis import LINKS, all_reduce_time
      >>> link = LINKS["40 GbE, past the kernel"]
      >>> round(1e6 * all_reduce_time(48, 2, link), 2)  # microseconds, of a table of 12 numbers
      3.87

    Args:
      size: m, bytes that each of them has.
      hosts: H.
      link: between neighbours.
      shape: of `SHAPES`.

    Raises:
      ValueError: naming the argument, its value and what is allowed.
    """
    if shape == "ring":
        return 2 * (hosts - 1) * (link.latency + size / hosts / link.bandwidth)
    return 2 * math.ceil(math.log2(hosts)) * (link.latency + size / link.bandwidth)


@fields.checked(compute=_NOT_NEGATIVE, num_agents=fields.COUNT)
def round_time(
    compute: float, num_agents: int, size: float, hosts: int, link: Link, shape: str = "ring"
) -> float:
    """Seconds of a round of one federation over several hosts, who share its agents.

    Example:
      >>> from fedjax_rl.analysis import LINKS, round_time
      >>> link = LINKS["40 GbE, past the kernel"]
      >>> one, four = (round_time(1e-6, 10_000, 48, hosts, link) for hosts in (1, 4))
      >>> round(one / four, 2)  # times as fast
      3.98

    Args:
      compute: seconds that a host takes for an agent's part of a round.
      num_agents: N.
      size: m, bytes of a message.
      hosts: H.
      link: between neighbours.
      shape: of `SHAPES`.

    Raises:
      ValueError: naming the argument, its value and what is allowed.
    """
    # The host that has most of them is waited for.
    return compute * math.ceil(num_agents / hosts) + all_reduce_time(size, hosts, link, shape)


@fields.checked(bytes_per_agent=fields.POSITIVE, share=fields.number(0, 1, above=True))
def agents_held(bytes_per_agent: float, chips: Chips = POD, share: float = 0.75) -> int:
    """Agents whose state a set of chips holds.

    Example:
      >>> from fedjax_rl.analysis import agents_held
      >>> agents_held(1e6)
      3072000

    Args:
      bytes_per_agent: of each.
      chips: that they lie on.
      share: of memory that is for them, the rest is for programs; JAX takes three quarters of a
        GPU's unless it is told otherwise.

    Raises:
      ValueError: naming the argument, its value and what is allowed.
    """
    return chips.count * int(share * chips.bytes / bytes_per_agent)
