"""What of a message crosses the wire.

An uplink is a record of two unbatched functions, vmapped over the agents by the engine:
`init(message) -> memory` and `send(key, message, memory, params) -> (message, sent, memory)`.
`sent` says whether the agent takes part in this exchange. An uplink without memory keeps `()`.
"""

from __future__ import annotations

from typing import NamedTuple

import jax


class Uplink(NamedTuple):
    """One kind of uplink.

    Attributes:
      init: `message -> memory`.
      send: `(key, message, memory, params) -> (message, sent, memory)`, or None when every
        message crosses as it is, at every exchange: then nothing is computed at all.
    """

    init: object
    send: object | None


def full() -> Uplink:
    """Everybody sends everything."""
    return Uplink(lambda message: (), None)


def bernoulli(name: str = "participation") -> Uplink:
    """Every agent takes part in an exchange with probability `params[name]`, independently.

    Who does not take part neither sends nor receives, and goes on from its own model.
    """

    def send(key, message, memory, params):
        return message, jax.random.bernoulli(key, params[name]), memory

    return Uplink(lambda message: (), send)
