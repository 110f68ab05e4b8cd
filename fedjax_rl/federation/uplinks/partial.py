"""A random part of the agents takes part (McMahan et al., arXiv 1602.05629)."""

from __future__ import annotations

from fedjax_rl import fields, streams
from fedjax_rl.federation.uplinks.protocol import Uplink, real, uplink


@uplink(probability=fields.PROBABILITY, absent=fields.switch())
def partial(probability=0.5, absent: bool = True) -> Uplink:
    """Every agent takes part in an exchange with some probability, independently.

    Args:
      probability: in [0, 1].
      absent: whether who does not send also receives nothing, and goes on from its own model.
        Agents that have no model of their own, and act on what is broadcast, always hear it.

    Returns:
      The `Uplink`.

    Examples:
      >>> import fedjax_rl as frl
      >>> algorithm = frl.fedq(frl.envs.paper_mdp(), uplink=frl.uplinks.partial(0.3))
      >>> str(algorithm.config.uplink)
      'partial(probability=0.3)'
    """

    def send(key, message, state, view):
        # A uniform below the probability: at 1 everybody sends.
        chance = view.own["probability"]
        return message, streams.uniform_of(key, chance.dtype) < chance, state

    return Uplink(
        "partial",
        lambda message, model, spec: (),
        send,
        {"probability": real(probability)},
        (("absent", absent),),
        "absent" if absent else "skipped",
        continuous=True,
    )
