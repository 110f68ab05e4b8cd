"""Everybody sends everything."""

from __future__ import annotations

from fedjax_rl.federation.uplinks.protocol import Uplink, uplink


@uplink()
def full() -> Uplink:
    """Everybody sends everything."""
    return Uplink("full", lambda message, model, spec: (), None, continuous=True)
