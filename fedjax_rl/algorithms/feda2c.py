r"""FedA2C: agents are synchronous advantage actor-critics and average their networks.

In a step an agent makes n steps in each of its E environments, with its policy, and one step of
descent along the gradient of policy, value and entropy from them. After K steps

    theta_i <- 1/N \sum_j theta_j.

* Mnih et al., *Asynchronous Methods for Deep Reinforcement Learning*, arXiv 1602.01783: what an
  agent does, whose workers are here the environments, in step with each other.
* Schulman et al., *High-Dimensional Continuous Control Using Generalized Advantage Estimation*,
  arXiv 1506.02438: advantages between those of one step and of n.
* McMahan et al., *Communication-Efficient Learning of Deep Networks from Decentralized Data*, arXiv
  1602.05629: local steps and averaging.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_rl import streams
from fedjax_rl.algorithms import fresh_episodes
from fedjax_rl.algorithms.define import Learner, Steps, algorithm
from fedjax_rl.algorithms.feda2c_properties import WEIGHTS, FedA2C, Settings, memory_of, policy_of
from fedjax_rl.algorithms.learned import (
    Learned,
    alike,
    drift_of,
    exchange_of,
    parameters_of,
    shared_of,
)
from fedjax_rl.envs.tabular_tasks import task_of
from fedjax_rl.learners import a2c
from fedjax_rl.learners.optimizers import no_moments
from fedjax_rl.rollouts import batches, vectorised

METRICS = {
    "episode_return": (
        "federation",
        "mean over the agents of the undiscounted return of the episodes that ended in the last "
        "rollout in which any did; 0 before",
    ),
    "episode_steps": ("federation", "the same of their lengths"),
    "entropy": ("federation", "of the policies in the last step, in nats"),
    "policy_loss": ("federation", "mean over the agents in the last step"),
    "value_loss": ("federation", "mean over the agents in the last step"),
    "gradient_norm": ("federation", "mean over the agents in the last step, before clipping"),
    "drift": ("federation", "root mean square distance of the agents' parameters to their mean"),
    "episode_return_of_agent": ("agent", "episode_return of each agent"),
    "entropy_of_agent": ("agent", "entropy of each agent's policy in the last step, in nats"),
}


class Agent(NamedTuple):
    """An agent.

    Attributes:
      learned: parameters and moments.
      collector: where its environments are.
      recent: float32 [2], mean return and length of the episodes that ended last.
      diagnostics: of the last step.
    """

    learned: Learned
    collector: batches.Collector
    recent: jax.Array
    diagnostics: a2c.Diagnostics


def metrics_of(config: FedA2C) -> dict:
    """Those of an evaluation first, if there is one."""
    return fresh_episodes.metrics_of(config, METRICS)


@algorithm(
    FedA2C,
    metrics=metrics_of,
    headline=lambda config: next(iter(metrics_of(config))),
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
    task, policy = config.task, policy_of(config)
    settings = Settings(config.bootstrap_timeouts, config.loss.normalize)

    def one(tree):
        """Of an agent as of a group of one."""
        return jax.tree.map(lambda x: jnp.asarray(x)[None], tree)

    def alone(tree):
        return jax.tree.map(lambda x: x[0], tree)

    def first(key, params):
        own = jax.random.fold_in(key, streams.Epochs.ENVIRONMENTS)
        environment = one(params.get("environment"))
        collector = vectorised.begin(
            task, own[None], config.num_envs, environment=environment, scale=False, late=False
        )
        parameters = policy.init(jax.random.fold_in(key, streams.Epochs.MODEL))
        learned = Learned(parameters, no_moments(parameters))
        recent = jnp.zeros(2, jnp.float32)
        return Agent(learned, alone(collector), recent, a2c.no_diagnostics())

    def step(key, agent, params):
        """A rollout, and what is learned from it."""
        # Networks are float32 whatever the precision of the run, as those of PPO.
        weights = {name: jnp.asarray(params[name], jnp.float32) for name in WEIGHTS}
        learned = agent.learned
        collector, batch, ended = vectorised.collect(
            task,
            policy,
            key[None],
            learned.parameters[None],
            one(agent.collector),
            one(batches.empty_batch(task, policy, config.num_envs, config.rollout_steps)),
            environment=one(params.get("environment")),
            weights=one(weights),
            settings=settings,
        )
        collector, batch, ended = alone((collector, batch, ended))
        recent = ended.means(agent.recent)
        *learned, diagnostics = a2c.improve(policy, *learned, batch, weights, config.optimizer.name)
        return Agent(Learned(*learned), collector, recent, diagnostics)

    def measure(population, params, state) -> dict:
        agents, mean = state.agents, population.mean
        parameters, diagnostics = agents.learned.parameters, agents.diagnostics
        returns, steps = agents.recent[:, 0], agents.recent[:, 1]
        model = parameters_of(state.server)
        return {
            **fresh_episodes.measure(config, policy, population, params, state, model),
            "episode_return": mean(returns),
            "episode_steps": mean(steps),
            "entropy": mean(diagnostics.entropy),
            "policy_loss": mean(diagnostics.policy_loss),
            "value_loss": mean(diagnostics.value_loss),
            "gradient_norm": mean(diagnostics.gradient_norm),
            "drift": drift_of(population, parameters),
            "episode_return_of_agent": returns,
            "entropy_of_agent": diagnostics.entropy,
        }

    def act(model, observation, word):
        return policy.act(parameters_of(model), observation, word)

    return Learner(
        first,
        (Steps(step, config.num_envs * config.rollout_steps), exchange_of(config)),
        measure,
        share=lambda agent: shared_of(config, agent.learned),
        begin=alike("learned"),
        act=act,
    )
