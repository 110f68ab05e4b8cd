"""Everybody sends everything."""

from __future__ import annotations

from fedjax_rl.federation.uplinks.protocol import Uplink, uplink


@uplink()
def full() -> Uplink:
    """Everybody sends everything.

    Examples:
      >>> import fedjax_rl as frl
      >>> algorithm = frl.fedq(frl.envs.paper_mdp(), uplink=frl.uplinks.full())
      >>> str(algorithm.config.uplink)
      'full'
    """
    return Uplink("full", lambda message, model, spec: (), None, continuous=True)
