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

import jax
import jax.numpy as jnp

from fedjax_rl import fields, streams
from fedjax_rl.algorithms.define import Learner
from fedjax_rl.algorithms.local_gradient import (
    gradients_of,
    learner_of,
    local_steps,
    moving,
    policy_gradient,
)
from fedjax_rl.algorithms.local_gradient_properties import LocalAscent
from fedjax_rl.algorithms.oracle import Oracle, keys_at
from fedjax_rl.federation.exchange import Exchange
from fedjax_rl.federation.server import ServerStep
from fedjax_rl.federation.state import per_agent
from fedjax_rl.fields.record import record, static


@record
class FastFedPG(LocalAscent):
    """Properties of Fast-FedPG; see also `LocalAscent`.

    Attributes:
      memory_episodes: B_mem, episodes of an agent for its gradient at the server's model, at
        least 1. By default as many as in all its local steps: the noise of this gradient stays
        for the whole round.
      reuse_first: whether the first local step takes that gradient instead of another; it then
        comes from episodes_per_step episodes.
    """

    memory_episodes: int | None = static(None, fields.COUNT.or_none())
    reuse_first: bool = static(False, fields.switch())

    def check(self) -> None:
        """Refuses properties that do not fit together."""
        super().check()
        count = self.of_policy("episodes_per_step")
        if self.reuse_first and self.memory_episodes not in (None, count):
            raise ValueError(
                f"memory_episodes is {self.memory_episodes} with reuse_first; allowed: none, the "
                "gradient that is used again is one of episodes_per_step "
                f"{count}"
            )

    def with_defaults(self):
        """With B_mem that fits."""
        own = super().with_defaults()
        if own.reuse_first:
            return dataclasses.replace(own, memory_episodes=own.episodes_per_step)
        if own.memory_episodes is None:
            count = own.local_steps * own.episodes_per_step
            return dataclasses.replace(own, memory_episodes=count)
        return own


def _remember() -> ServerStep:
    """The mean of the gradients is what goes down next."""
    return ServerStep(
        lambda model: (),
        lambda model, memory, total, params: (model._replace(correction=total), memory),
    )


@policy_gradient(FastFedPG)
def fast_fedpg(config: FastFedPG) -> Learner:
    """Fast-FedPG.

    Example:
      >>> import fedjax_rl as frl
      >>> task = frl.envs.tabular_task(frl.envs.dirichlet_mdps(4), max_steps=20)
      >>> algorithm = frl.fast_fedpg(task, local_steps=10, gradient="exact")
      >>> "gap" in algorithm.metrics
      True
    """
    oracle = Oracle(config)

    def remember(population, params, state, differentiable):
        """Every agent's gradient at the server's model."""
        # Episodes of their own, or else, on purpose, those of the first step, which reads the
        # agents' keys at place 0.
        keys = state.keys
        if not config.reuse_first:
            keys = streams.keys_of(keys, streams.Episodic.MEMORY)
        before = state.agents.oracle
        gradients, kept = oracle.gradients(
            population,
            params,
            keys_at(keys, state.time, jnp.uint32(0)),
            population.spread(state.server.parameters),
            before,
            config.memory_episodes,
            differentiable,
        )
        agents = state.agents._replace(memory=gradients, proposal=gradients, oracle=kept)
        spent = kept.statistics.steps - before.statistics.steps
        return dataclasses.replace(state, agents=agents), spent

    def direction(population, params, state, models, now, keys, place, differentiable):
        gradients, kept = gradients_of(oracle, population, params, keys, now, differentiable)
        if config.reuse_first:
            # Drawn again at place 0, dropped and not counted: steps of one scan are one program.
            first = place == 0
            gradients = jnp.where(first, state.agents.memory, gradients)
            kept = jax.tree.map(lambda new, old: jnp.where(first, old, new), kept, now.oracle)

        def corrected(gradient, agent, model, params):
            # Constant over the round: only the gradient is taken anew, with episodes of its own.
            return gradient + model.correction - agent.memory

        moves = per_agent(corrected, population, params, gradients, state.agents, models)
        return moves, now._replace(oracle=kept)

    tell = Exchange(
        message=lambda agent, broadcast, params: agent.memory,
        server=_remember(),
        broadcast=lambda model: model.correction,
        dedicated_server=True,
    )
    average = Exchange(
        message=lambda agent, broadcast, params: agent.change,
        server=moving(config),
        broadcast=lambda model: model.parameters,
        dedicated_server=True,
    )
    return learner_of(oracle, remember, tell, local_steps(oracle, direction), average)
