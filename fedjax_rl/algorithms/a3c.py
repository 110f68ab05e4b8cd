r"""A3C: asynchronous advantage actor-critics send their gradients to one server.

The server makes a step at every arrival. An agent that was handed the parameters theta_s makes n
steps in each of its E environments with their policy and value, and sends the gradient g there of
the loss of policy, value and entropy; when it arrives at step k,

    v         <- decay v + (1 - decay) g^2                       (RMSProp, whose v is the server's)
    theta_k+1 = theta_k - eta g / sqrt(v + epsilon),

and the agent goes on from theta_k+1, its environments from where they are. The gradient is one of
the parameters that the agent was handed, however old they are by then: nothing corrects for the
staleness k - s. Statistics of the optimiser are one for all agents, "shared RMSProp" of the paper.

Where a step of the server has m messages (of a clock that waits for some or for all, or without a
clock of all N), it is one step along the *mean* of their gradients with the same eta: m messages
move the model once, not m times, by less noise. A rate that follows N makes up for that,
`learning_rate=frl.by_agents(lambda num_agents: 1e-3 * num_agents)`.

Workers of the paper share a memory and have one environment each, and a rollout ends with its
episode. Here they are agents whose messages are counted, with E environments each that begin anew
within a rollout, so that every gradient is of n E steps.

* Mnih et al., *Asynchronous Methods for Deep Reinforcement Learning*, arXiv 1602.01783, Algorithm
  S3 and equations S2 and S3.
* Schulman et al., *High-Dimensional Continuous Control Using Generalized Advantage Estimation*,
  arXiv 1506.02438: advantages; those of the paper are those of `gae_lambda=1`.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fedjax_rl import fields, streams
from fedjax_rl.algorithms import fresh_episodes, n_step
from fedjax_rl.algorithms.define import Learner, algorithm
from fedjax_rl.algorithms.n_step import Actors, Rollouts, weights_of
from fedjax_rl.algorithms.n_step_properties import (
    Copies,
    NStep,
    memory_of,
)
from fedjax_rl.algorithms.records import GradientOptimizer
from fedjax_rl.envs.tabular_tasks import task_of
from fedjax_rl.federation.clock import CLOCK, Clock, at_work
from fedjax_rl.federation.exchange import Exchange
from fedjax_rl.federation.server import ServerStep
from fedjax_rl.federation.uplinks import MessageSpec
from fedjax_rl.fields.record import engine, nested, record, static, traced
from fedjax_rl.learners import a2c, optimizers
from fedjax_rl.learners.optimizers import no_moments


@record
class ServerOptimizer(GradientOptimizer):
    """What the server makes of gradients before its learning rate; see `GradientOptimizer`."""

    name: str = static("rmsprop", fields.word(optimizers.NAMES))


@record
class A3C(NStep):
    """Properties of A3C; see also `NStep`.

    Attributes:
      learning_rate: eta, of a step of the server, above 0.
      optimizer: of the server; what it keeps is of the gradients of all agents.
      clock: how long agents take and whom the server waits for, see `federation.clock`; a step at
        every arrival by default. A step of several messages is one along their mean.
    """

    learning_rate: Any = traced(3e-3, fields.POSITIVE)
    optimizer: ServerOptimizer = nested(ServerOptimizer)
    clock: Clock | None = engine(Clock("asynchronous"), CLOCK.or_none())

    def copies(self, num_agents: int) -> Copies:
        """A gradient of every agent, on a clock the model it was handed, and what a server has.

        Args:
          num_agents: N.
        """
        if self.clock is None:
            return Copies(num_agents + 3, num_agents)
        return Copies(2 * num_agents + 3, at_work(self.clock.rules, num_agents))


class Agent(NamedTuple):
    """An agent.

    Attributes:
      gradient: float32 [q], its last one, of what it was handed.
      rollouts: what they leave.
    """

    gradient: jax.Array
    rollouts: Rollouts


# A message is a gradient, which moves the model by about the learning rate times itself.
SPEC = MessageSpec(step=lambda params: params["learning_rate"])


def server_of(optimizer: str) -> ServerStep:
    """A step of descent along the mean of gradients [q] that came in.

    Args:
      optimizer: of `optimizers.NAMES`.
    """

    def step(model, moments, total, params):
        return a2c.descended(model, moments, total, weights_of(params), optimizer)

    return ServerStep(no_moments, step)


@algorithm(
    A3C,
    **fresh_episodes.measured(n_step.METRICS),
    unit="round",
    sampled=lambda config: "actions are drawn from the policies",
    adapt=task_of,
    smallest_share=1,
    memory=memory_of,
)
def a3c(config: A3C) -> Learner:
    """Asynchronous advantage actor-critic.

    Example:
      >>> import fedjax_rl as frl
      >>> task = frl.envs.gymnax_task("CartPole-v1")
      >>> slow = frl.Clock("asynchronous", compute_time=[1.0, 1.0, 4.0, 4.0])
      >>> algorithm = frl.a3c(task, clock=slow, num_envs=4)
      >>> algorithm.unit, algorithm.config.optimizer.name
      ('update', 'rmsprop')
    """
    actors = Actors(config)

    def first(key, params):
        nothing = jnp.zeros(actors.policy.num_parameters, jnp.float32)
        return Agent(nothing, actors.first(key, params))

    def model(key, params):
        del params
        return actors.init(key)

    def work(population, params, state, differentiable):
        """A rollout of every agent by what it was handed, and the gradient there."""
        del differentiable
        keys = streams.keys_of(state.keys, streams.Epochs.ROLLOUT, state.time)
        models = population.spread(state.server)
        weights = population.spread(weights_of(params.federation))
        environment = params.agent.get("environment")
        before = state.agents.rollouts
        rollouts, batch = actors.collect(keys, models, before, environment, weights)

        def gradient(parameters, batch, weights):
            return a2c.gradient(actors.policy, parameters, batch, weights)

        gradients, diagnostics = jax.vmap(gradient)(models, batch, weights)
        agents = Agent(gradients, rollouts._replace(diagnostics=diagnostics))
        steps = jnp.full(population.num_agents, actors.env_steps, jnp.uint32)
        return dataclasses.replace(state, agents=agents), steps

    def measure(population, params, state) -> dict:
        return actors.measure(population, params, state, state.server, state.agents.rollouts)

    link = Exchange(
        message=lambda agent, broadcast, params: agent.gradient,
        spec=SPEC,
        server=server_of(config.optimizer.name),
        dedicated_server=True,
    )
    return Learner(first, (work, link), measure, model=model, act=actors.policy.act)
