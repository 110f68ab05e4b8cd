r"""FedA2C: agents are synchronous advantage actor-critics and average their networks.

In a step an agent makes n steps in each of its E environments, with its policy, and one step of
descent along the gradient of policy, value and entropy from them. After K steps

    theta_i <- 1/N \sum_j theta_j.

Of `a3c` agents send these gradients instead.

* Mnih et al., *Asynchronous Methods for Deep Reinforcement Learning*, arXiv 1602.01783: what an
  agent does, whose workers are here the environments, in step with each other.
* Schulman et al., *High-Dimensional Continuous Control Using Generalized Advantage Estimation*,
  arXiv 1506.02438: advantages between those of one step and of n.
* McMahan et al., *Communication-Efficient Learning of Deep Networks from Decentralized Data*, arXiv
  1602.05629: local steps and averaging.
"""

from __future__ import annotations

from typing import NamedTuple

from fedjax_rl import fields
from fedjax_rl.algorithms import fresh_episodes, n_step
from fedjax_rl.algorithms.define import Averaged, Learner, Steps, algorithm
from fedjax_rl.algorithms.learned import (
    MOMENTS,
    Learned,
    alike,
    drift_of,
    exchange_of,
    parameters_of,
    shared_of,
)
from fedjax_rl.algorithms.n_step import Actors, Rollouts, weights_of
from fedjax_rl.algorithms.n_step_properties import NStep, memory_of
from fedjax_rl.envs.tabular_tasks import task_of
from fedjax_rl.fields.record import record, static
from fedjax_rl.learners import a2c
from fedjax_rl.learners.optimizers import no_moments
from fedjax_rl.rollouts import vectorised

METRICS = {
    **n_step.METRICS,
    "drift": ("federation", "root mean square distance of the agents' parameters to their mean"),
}


@record
class FedA2C(NStep, Averaged):
    """Properties of FedA2C; see also `NStep`.

    Attributes:
      optimizer: of every agent.
      moments: the optimiser's at an average: "local" (each agent goes on with its own), "average"
        (they are sent, too) or "reset".
    """

    moments: str = static("local", fields.word(MOMENTS))


class Agent(NamedTuple):
    """An agent.

    Attributes:
      learned: parameters and moments.
      rollouts: what they leave.
    """

    learned: Learned
    rollouts: Rollouts


@algorithm(
    FedA2C,
    **fresh_episodes.measured(METRICS),
    sampled=lambda config: "actions are drawn from the policies",
    adapt=task_of,
    smallest_share=1,
    memory=memory_of,
)
def feda2c(config: FedA2C) -> Learner:
    """Federated synchronous advantage actor-critic.

    Example:
      >>> import fedjax_rl as frl
      >>> task = frl.envs.gymnax_task("CartPole-v1")
      >>> algorithm = frl.feda2c(task, sync_period=10, optimizer="rmsprop")
      >>> algorithm.config.optimizer.decay
      0.99
    """
    actors = Actors(config)

    def first(key, params):
        parameters = actors.init(key)
        return Agent(Learned(parameters, no_moments(parameters)), actors.first(key, params))

    def step(key, agent, params):
        """A rollout, and what is learned from it."""
        weights, learned = weights_of(params), agent.learned
        own = vectorised.one(
            (learned.parameters, agent.rollouts, params.get("environment"), weights)
        )
        rollouts, batch = vectorised.alone(actors.collect(key[None], *own))
        gradient, diagnostics = a2c.gradient(actors.policy, learned.parameters, batch, weights)
        learned = a2c.descended(*learned, gradient, weights, config.optimizer.name)
        return Agent(Learned(*learned), rollouts._replace(diagnostics=diagnostics))

    def measure(population, params, state) -> dict:
        agents, model = state.agents, parameters_of(state.server)
        return {
            **actors.measure(population, params, state, model, agents.rollouts),
            "drift": drift_of(population, agents.learned.parameters),
        }

    def act(model, observation, word):
        return actors.policy.act(parameters_of(model), observation, word)

    return Learner(
        first,
        (Steps(step, actors.env_steps), exchange_of(config)),
        measure,
        share=lambda agent: shared_of(config, agent.learned),
        begin=alike("learned"),
        act=act,
    )
