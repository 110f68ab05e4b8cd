"""What of a message crosses the wire, and whether anything does: one file for each uplink.

| uplink | who sends | source |
|---|---|---|
| `full` | everybody | |
| `partial` | a random part | McMahan et al., arXiv 1602.05629 |
| `event_triggered` | whoever is surprised | Jarne Ornia and Mazo, arXiv 2109.01417; Gatsis, arXiv 2112.05908 |
| `probabilistic` | whoever believes to be among the m best | Gunn, *Communication Efficient Distributed Reinforcement Learning* (2023) |
| `lazy` | whoever has changed since it last sent | Chen et al., arXiv 1812.03239 |
| `top_k`, `scaled_sign` | everybody, a compressed message | Mitra, Pappas and Hassani, arXiv 2301.00944 |

`protocol` says what an uplink is, and how to write one's own.
"""  # noqa: E501

from __future__ import annotations

import inspect
from collections.abc import Callable

from fedjax_rl.federation.uplinks.event_triggered import event_triggered
from fedjax_rl.federation.uplinks.full import full
from fedjax_rl.federation.uplinks.lazy import lazy
from fedjax_rl.federation.uplinks.order_statistics import (
    communication_probability,
    empirical_rank,
    gaussian_rank,
    window_moments,
)
from fedjax_rl.federation.uplinks.partial import partial
from fedjax_rl.federation.uplinks.probabilistic import UTILITY_MODEL, probabilistic
from fedjax_rl.federation.uplinks.protocol import (
    UPLINK,
    MessageSpec,
    Uplink,
    View,
    norm_squared,
    uplink,
)
from fedjax_rl.federation.uplinks.scaled_sign import scaled_sign, scaled_signs
from fedjax_rl.federation.uplinks.top_k import largest, top_k
from fedjax_rl.names import check_known

__all__ = [
    "UPLINK",
    "UPLINKS",
    "UTILITY_MODEL",
    "MessageSpec",
    "Uplink",
    "View",
    "communication_probability",
    "empirical_rank",
    "event_triggered",
    "full",
    "gaussian_rank",
    "largest",
    "lazy",
    "make",
    "norm_squared",
    "partial",
    "probabilistic",
    "scaled_sign",
    "scaled_signs",
    "top_k",
    "uplink",
    "window_moments",
]

UPLINKS: dict[str, Callable] = {
    "full": full,
    "partial": partial,
    "event-triggered": event_triggered,
    "probabilistic": probabilistic,
    "lazy": lazy,
    "top-k": top_k,
    "scaled-sign": scaled_sign,
}


def make(name: str, **values) -> Uplink:
    """The uplink of that name, for the command line and saved configurations.

    Args:
      name: of `UPLINKS`.
      **values: of its properties; the others have their defaults.

    Returns:
      The `Uplink`.

    Raises:
      ValueError: an unknown name or property, with the nearest known ones, or a bad value.
    """
    check_known(name, UPLINKS, "uplink")
    known = inspect.signature(UPLINKS[name]).parameters
    for value in values:
        check_known(value, known, f"property of the uplink {name}")
    missing = [n for n, p in known.items() if p.default is p.empty and n not in values]
    if missing:
        raise ValueError(f"the uplink {name} needs {' and '.join(missing)}")
    return UPLINKS[name](**values)
