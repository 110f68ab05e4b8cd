"""What agents of FedPPO exchange, and when."""

from __future__ import annotations

import math

import jax.numpy as jnp

from fedjax_rl.algorithms import learned
from fedjax_rl.algorithms.fedppo_properties import FedPPO
from fedjax_rl.algorithms.fedppo_resources import policy_of
from fedjax_rl.algorithms.observed import with_statistics
from fedjax_rl.federation import aggregators
from fedjax_rl.federation.aggregators import Aggregate
from fedjax_rl.federation.exchange import Exchange


def exchange_of(config: FedPPO) -> Exchange:
    """What agents exchange: parameters, moments if averaged, and statistics if shared."""

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

    link = learned.exchange_of(
        config,
        aggregate=total if config.aggregation == "sum" else aggregators.mean,
        due=due,
    )
    if config.observations.normalize != "shared":
        return link
    return with_statistics(link, math.prod(policy_of(config).shape))
