"""What agents with optimisers of their own exchange: parameters, and perhaps moments.

The optimiser of an agent goes on through an average, forgets, or is averaged, too. Of McMahan et
al., *Communication-Efficient Learning of Deep Networks from Decentralized Data*, arXiv 1602.05629,
whose local steps are plain descent, no answer follows.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_rl import memory
from fedjax_rl.algorithms.average import average
from fedjax_rl.federation.exchange import Exchange
from fedjax_rl.federation.uplinks import norm_squared
from fedjax_rl.learners.optimizers import Moments, no_moments

MOMENTS = ("local", "average", "reset")


class Learned(NamedTuple):
    """What an agent has learned, and may share.

    Attributes:
      parameters: float [q].
      moments: of its optimiser.
    """

    parameters: jax.Array
    moments: Moments


def shared_of(config, learned: Learned):
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


def parameters_of(shared) -> jax.Array:
    """The parameters [..., q] of what is exchanged."""
    # Where moments are averaged, too, they are part of the model.
    return shared[0] if isinstance(shared, tuple) else shared


def adopted(config, learned: Learned, broadcast) -> Learned:
    """What an agent has learned once it has heard what the federation has.

    Args:
      config: says what becomes of the moments.
      learned: before.
      broadcast: as of `shared_of`, of the server.
    """
    if config.moments == "average":
        parameters, first, second = broadcast
        # A compressed change of what is never negative may leave it so.
        second = jnp.maximum(second, 0.0)
        return Learned(parameters, Moments(learned.moments.count, first, second))
    if config.moments == "reset":
        return Learned(broadcast, no_moments(broadcast))
    return learned._replace(parameters=broadcast)


def exchange_of(config, **more) -> Exchange:
    """The exchange of averaging of agents whose attribute `learned` is `Learned`.

    Args:
      config: the configuration.
      **more: further fields of the `Exchange`.
    """

    def receive(agent, broadcast, params):
        del params
        return agent._replace(learned=adopted(config, agent.learned, broadcast))

    return average(
        config,
        lambda agent: shared_of(config, agent.learned),
        receive,
        moves=config.clock is None,
        **more,
    )


def alike(*names: str):
    """How agents begin: with what the first of their federation has under these names.

    The mean of networks that began apart is no network that learned anything.

    Args:
      *names: fields of an agent.

    Returns:
      `(population, params, state) -> state`, as `Learner.begin`.
    """

    def begin(population, params, state):
        del params
        own = {name: getattr(state.agents, name) for name in names}
        own = population.spread(population.first(own))
        return dataclasses.replace(state, agents=state.agents._replace(**own))

    return begin


def drift_of(population, parameters) -> jax.Array:
    """Root mean square distance of the agents' parameters [A, q] to their mean, [F]."""
    apart = jax.vmap(norm_squared)(parameters - population.spread(population.mean(parameters)))
    return jnp.sqrt(population.mean(apart))


def check_memory(name: str, value: int, needed: dict[str, int], num_agents: int) -> None:
    """Refuses a federation that the device cannot hold.

    Args:
      name: of the property that decides how much an agent keeps.
      value: of it.
      needed: bytes, "total" among them.
      num_agents: N.
    """
    there = memory.available()
    if there is not None and needed["total"] > there:
        raise ValueError(
            f"num_agents is {num_agents} with {name} {value}, which needs "
            f"{memory.words(needed['total'])}; allowed: at most {memory.words(there)}, what there "
            "is"
        )
