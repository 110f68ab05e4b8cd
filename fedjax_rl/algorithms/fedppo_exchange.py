"""What agents of FedPPO exchange: their parameters, and their moments if these are averaged."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_rl.algorithms.average import average
from fedjax_rl.algorithms.fedppo_properties import FedPPO
from fedjax_rl.federation import aggregators
from fedjax_rl.federation.aggregators import Aggregate
from fedjax_rl.federation.exchange import Exchange
from fedjax_rl.learners import ppo


class Learned(NamedTuple):
    """What an agent has learned, and may share.

    Attributes:
      parameters: float32 [q].
      moments: `ppo.Moments`, of Adam.
    """

    parameters: jax.Array
    moments: ppo.Moments


def shared_of(config: FedPPO, learned: Learned):
    """What of it agents exchange.

    Args:
      config: says whether moments are averaged.
      learned: of an agent.

    Returns:
      Parameters [q], or these and both moments.
    """
    if config.moments == "average":
        return learned.parameters, learned.moments.first, learned.moments.second
    return learned.parameters


def exchange_of(config: FedPPO) -> Exchange:
    """What agents exchange: their parameters, and their moments if these are averaged."""

    def receive(agent, broadcast, params):
        del params
        return agent._replace(learned=adopted(agent.learned, broadcast))

    def adopted(learned, broadcast):
        if config.moments == "average":
            parameters, first, second = broadcast
            # A compressed change of what is never negative may leave it so.
            second = jnp.maximum(second, 0.0)
            return Learned(parameters, ppo.Moments(learned.moments.count, first, second))
        if config.moments == "reset":
            return Learned(broadcast, ppo.no_moments(broadcast))
        return learned._replace(parameters=broadcast)

    def total(population, message, sent, weight, context):
        """The sum of the changes of parameters; moments are averaged."""
        mean = aggregators.mean(population, message).value
        rest = ()
        if config.moments == "average":
            message, *rest = message
            own, *_ = context.model
            _, *rest = mean
        else:
            own = context.model
        moved = population.sum(message - population.spread(own))
        parameters = own + moved
        return Aggregate((parameters, *rest) if rest else parameters, None)

    def due(population, params, time):
        """Who averages after an epoch: whoever has somebody to average with."""
        together = jnp.asarray(population.sizes > 1)
        if config.sync_every_minibatches is not None:
            return together
        period, shift = (params.federation[f"sync_{name}"] for name in ("period", "shift"))
        # Time is the epoch just made: with shift 0 an average follows epoch 0, as published.
        return together & ((time + shift) % period == 0)

    return average(
        config,
        lambda agent: shared_of(config, agent.learned),
        receive,
        moves=True,
        aggregate=total if config.aggregation == "sum" else aggregators.mean,
        due=due,
    )
