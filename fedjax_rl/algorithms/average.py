"""The exchange of averaging, which most algorithms have."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from fedjax_rl.algorithms.learner import Federated
from fedjax_rl.federation import server as servers
from fedjax_rl.federation.exchange import Exchange
from fedjax_rl.federation.server import SHARE


def average(
    config: Federated,
    share: Callable = lambda agent: agent,
    adopt: Callable = lambda agent, model, params: model,
    *,
    moves: bool = False,
    **more,
) -> Exchange:
    """The exchange of averaging: agents send what they share, and adopt the mean.

    Over an uplink that acts on changes the changes since the last broadcast are sent, and on a
    clock the server moves the part of the way to the mean that those who arrived are of all.

    Args:
      config: the configuration.
      share: `agent -> message`.
      adopt: `(agent, model, params) -> agent`.
      moves: whether the server adds the mean of the changes to its model, instead of each to the
        model that its sender had; not on a clock.
      **more: further fields of the `Exchange`, such as weights or a server step.
    """
    # Compressed models would lose what agents have in common; their changes are small.
    changes = config.transmits().on_changes
    server = servers.towards(SHARE) if config.clock is not None else servers.replace()
    if changes and moves:
        # Rounded once instead of once for each agent, which float32 of a network shows. On a clock
        # the model has moved since, and a change is one of an older model.
        server = servers.of_changes(server)

    def message(agent, model, params):
        del params
        return jax.tree.map(jnp.subtract, share(agent), model) if changes else share(agent)

    def decode(message, model):
        return jax.tree.map(jnp.add, model, message) if changes and not moves else message

    own = {"message": message, "receive": adopt, "decode": decode, "server": server}
    return Exchange(**{**own, **more})
