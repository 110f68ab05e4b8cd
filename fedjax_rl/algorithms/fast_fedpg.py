r"""Fast-FedPG: policy gradients whose local steps leave no bias where environments differ.

A round has two exchanges. In the first every agent tells its gradient G_i at the server's model
and hears the mean G. In the second it tells where H steps from there have led it,

    theta <- theta + eta (g_i(theta) + G - G_i),

and the server moves along the mean change. The terms G - G_i add up to zero over the agents: they
change only where gradients are taken. Where the mean gradient vanishes every agent stays.

* Zhu, Heath and Mitra, *Towards Fast Rates for Federated and Multi-Task Reinforcement Learning*,
  arXiv 2409.05291. There costs are minimised, here rewards maximised.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from fedjax_rl import fields, streams
from fedjax_rl.algorithms import episodic, local_gradient
from fedjax_rl.algorithms.local_gradient import LocalGradient, Oracle, mean_direction
from fedjax_rl.envs.task import Task
from fedjax_rl.federation.algorithm import Algorithm, Functions
from fedjax_rl.federation.exchange import Exchange
from fedjax_rl.federation.server import ServerStep
from fedjax_rl.federation.state import per_agent
from fedjax_rl.fields import declared


@dataclasses.dataclass(frozen=True)
class FastFedPG(LocalGradient):
    """Properties of Fast-FedPG; see also `LocalGradient`.

    Attributes:
      server_learning_rate: alpha_g, of the mean change, above 0.
      memory_episodes: B_mem, episodes of an agent for its gradient at the server's model, at
        least 1. By default as many as in all its local steps: the noise of this gradient stays
        for the whole round.
      reuse_first: whether the first local step takes that gradient instead of another; it then
        comes from episodes_per_step episodes.
    """

    server_learning_rate: Any = declared(1.0, fields.POSITIVE)
    memory_episodes: int | None = declared(None, fields.COUNT.or_none())
    reuse_first: bool = declared(False, fields.switch())


def fast_fedpg(task: Task, **values) -> Algorithm:
    """Fast-FedPG; see `FastFedPG` for the properties.

    Raises:
      ValueError: naming the property, its value and what is allowed.
    """
    return local_gradient.build("fast-fedpg", FastFedPG, fast_fedpg, task, values, _PIECES)


def _check(config: FastFedPG) -> None:
    if config.reuse_first and config.memory_episodes not in (None, config.episodes_per_step):
        raise ValueError(
            f"memory_episodes is {config.memory_episodes} with reuse_first; allowed: none, the "
            f"gradient that is used again is one of episodes_per_step {config.episodes_per_step}"
        )


def memory_episodes(config: FastFedPG) -> int:
    """B_mem."""
    if config.reuse_first:
        return config.episodes_per_step
    if config.memory_episodes is None:
        return config.local_steps * config.episodes_per_step
    return config.memory_episodes


def _remember() -> ServerStep:
    """The mean of the gradients is what goes down next."""
    return ServerStep(
        lambda model: (),
        lambda model, memory, total, params: (model._replace(correction=total), memory),
    )


def _move(config: FastFedPG) -> ServerStep:
    """Moves along the mean change."""

    def step(model, memory, total, params):
        model = model._replace(
            parameters=model.parameters + params["server_learning_rate"] * total,
            previous=model.parameters,
            direction=mean_direction(config, total, params),
        )
        return model, memory

    return ServerStep(lambda model: (), step)


def _functions(config: FastFedPG) -> Functions:
    oracle, wire = Oracle(config), episodic.wire_of(config)

    def remember(population, params, state, differentiable):
        """Every agent's gradient at the server's model."""
        keys = state.keys
        if not config.reuse_first:
            keys = streams.keys_of(keys, streams.Episodic.MEMORY)
        before = state.agents.tally
        gradients, tally = oracle.gradients(
            population,
            params,
            local_gradient.keys_at(keys, state.time, jnp.uint32(0)),
            population.spread(state.server.parameters),
            before,
            memory_episodes(config),
            differentiable,
        )
        agents = state.agents._replace(memory=gradients, proposal=gradients, tally=tally)
        return dataclasses.replace(state, agents=agents), tally.steps - before.steps

    def direction(population, params, state, models, now, keys, place, differentiable):
        gradients, tally = oracle.gradients(
            population,
            params,
            keys,
            now.parameters,
            now.tally,
            config.episodes_per_step,
            differentiable,
        )
        if config.reuse_first:
            first = place == 0
            gradients = jnp.where(first, state.agents.memory, gradients)
            tally = jax.tree.map(lambda new, old: jnp.where(first, old, new), tally, now.tally)

        def corrected(gradient, agent, model, params):
            return gradient + model.correction - agent.memory

        moves = per_agent(corrected, population, params, gradients, state.agents, models)
        return moves, now._replace(tally=tally)

    tell = Exchange(
        message=lambda agent, broadcast, params: agent.memory,
        server=_remember(),
        broadcast=lambda model: model.correction,
        wire=wire,
        dedicated_server=True,
    )
    average = Exchange(
        message=lambda agent, broadcast, params: agent.change,
        uplink=episodic.uplink_of(config),
        server=_move(config),
        broadcast=lambda model: model.parameters,
        wire=wire,
        dedicated_server=True,
    )
    work = local_gradient.local_steps(oracle, direction)
    return local_gradient.assemble(oracle, remember, tell, work, average)


_PIECES = local_gradient.Pieces(
    check=_check,
    names=("server_learning_rate",),
    static=lambda config: (memory_episodes(config), config.reuse_first),
    functions=_functions,
)
