r"""FedDQN: agents learn action values with replay and a target network, and average their networks.

In a step an agent acts once in each of its E environments, epsilon-greedily, writes what came of it
into its own ring of transitions and, if it is time, learns from some of them. After K steps

    theta_i <- 1/N \sum_j theta_j.

The ring and the target network stay where they are: what is averaged is what agents act by, and the
target follows that as it follows any other change of theta, at its own pace. An agent whose
environment is its own so bootstraps from values of that environment, and nothing more is sent.

* Jin, Peng, Yang, Wang and Zhang, *Federated Reinforcement Learning with Environment
  Heterogeneity*, arXiv 2204.02634: DQNAvg, section 6.
* van Hasselt, Guez and Silver, *Deep Reinforcement Learning with Double Q-Learning*, arXiv
  1509.06461, and Mnih et al., *Human-Level Control Through Deep Reinforcement Learning* (Nature,
  2015): what an agent does.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_rl import streams
from fedjax_rl.algorithms import fresh_episodes
from fedjax_rl.algorithms.define import Learner, Local, algorithm
from fedjax_rl.algorithms.feddqn_properties import FedDQN, memory_of, network_of
from fedjax_rl.algorithms.learned import (
    Learned,
    alike,
    drift_of,
    exchange_of,
    parameters_of,
    shared_of,
)
from fedjax_rl.algorithms.parameters import at_step, schedules_of
from fedjax_rl.envs.tabular_tasks import task_of
from fedjax_rl.learners import deep_q, replay
from fedjax_rl.learners.optimizers import no_moments
from fedjax_rl.learners.sight import seen
from fedjax_rl.rollouts import transitions
from fedjax_rl.rollouts.engine import Inputs, RolloutState

METRICS = {
    "episode_return": (
        "federation",
        "mean over the agents of the undiscounted return of the last episode that ended in each of "
        "their environments; 0 before any did",
    ),
    "episode_steps": ("federation", "the same of their lengths"),
    "episodes": ("federation", "episodes that have ended so far, of all agents"),
    "epsilon": ("federation", "probability of a random action in the last step"),
    "loss": ("federation", "mean over the agents of the loss when they last learned"),
    "mean_q": ("federation", "mean value of the actions that they last learned from"),
    "gradient_norm": ("federation", "mean over the agents when they last learned, before clipping"),
    "drift": ("federation", "root mean square distance of the agents' parameters to their mean"),
    "episode_return_of_agent": ("agent", "episode_return of each agent"),
    "loss_of_agent": ("agent", "loss of each agent"),
    "mean_q_of_agent": ("agent", "mean_q of each agent"),
}


class Agent(NamedTuple):
    """An agent.

    Attributes:
      learned: parameters and moments.
      lagged: float [q], of the target network.
      updates: int32, made so far.
      rollout: where its environments are, leaves [E, ...].
      ring: its last transitions, leaves [C, E, ...].
      epsilon: of the last step.
      diagnostics: of the last time it learned.
    """

    learned: Learned
    lagged: jax.Array
    updates: jax.Array
    rollout: RolloutState
    ring: replay.Transition
    epsilon: jax.Array
    diagnostics: deep_q.Diagnostics


class Settings(NamedTuple):
    """What shapes an update; as of `FedDQN`."""

    double: bool
    loss: str
    target_every: int


@algorithm(
    FedDQN,
    **fresh_episodes.measured(METRICS),
    sampled=lambda config: "actions follow the values that are learned",
    draws=("exploration",),
    adapt=task_of,
    smallest_share=1,
    memory=memory_of,
)
def feddqn(config: FedDQN) -> Learner:
    """Federated deep Q-learning.

    Example:
      >>> import fedjax_rl as frl
      >>> task = frl.envs.gymnax_task("CartPole-v1")
      >>> algorithm = frl.feddqn(task, sync_period=10, target={"every": 1, "tau": 0.01})
      >>> algorithm.config.target.tau
      0.01
    """
    task, q, envs = config.task, network_of(config), config.num_envs
    settings = Settings(config.double, config.loss, config.target.every)
    schedules, step = schedules_of(config), transitions.stepper(task, q)

    def of_each(params):
        """Parameters of an agent's environments, leaves [E, ...]."""
        own = params.get("environment", ())
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (envs, *jnp.shape(x))), own)

    def first(key, params):
        parameters = q.init(streams.fold(key, streams.Epochs.MODEL))
        keys = transitions.keys_of(streams.fold(key, streams.Epochs.ENVIRONMENTS), envs)
        nothing = jnp.zeros((), parameters.dtype)
        return Agent(
            Learned(parameters, no_moments(parameters)),
            parameters,
            jnp.int32(0),
            transitions.begin(task, keys, of_each(params)),
            replay.empty(seen(task), (config.buffer_size // envs, envs)),
            jnp.zeros(()),
            deep_q.Diagnostics(nothing, nothing, nothing),
        )

    def learn(key, agent, params, time, num_steps):
        """So many steps of the environments, each with the updates that are due."""
        own, places = of_each(params), streams.fold(key, streams.Epochs.REPLAY)
        words = transitions.keys_of(streams.fold(key, streams.Epochs.ROLLOUT), envs)
        words = jax.random.key_data(words)

        def one(i, agent):
            when = time + jnp.uint32(i)
            made = when + jnp.uint32(1)
            now = at_step(schedules, params, when)
            epsilon = deep_q.exploration(
                when, *(now[f"exploration.{name}"] for name in ("first", "last", "steps"))
            )
            inputs = Inputs((agent.learned.parameters, epsilon), words, own)
            rollout, row = step(when, inputs, agent.rollout)
            ring = replay.write(agent.ring, row, when)
            agent = agent._replace(rollout=rollout, ring=ring, epsilon=epsilon)
            # Without a clock all agents are at one time, and nothing is computed where none learns.
            due = (made * jnp.uint32(envs) >= config.learning_starts) & (
                made % jnp.uint32(config.update_every) == 0
            )
            learned = agent.learned, agent.lagged, agent.updates, agent.diagnostics
            learned = jax.lax.cond(
                due, lambda *x: improved(when, now, ring, *x), lambda *x: x, *learned
            )
            names = ("learned", "lagged", "updates", "diagnostics")
            return agent._replace(**dict(zip(names, learned, strict=True)))

        def improved(when, now, ring, learned, lagged, updates, _):
            shape = config.updates, config.batch_size
            batches = replay.sample(streams.fold(places, when), ring, when + jnp.uint32(1), shape)
            learner = deep_q.Learner(*learned, lagged, updates)
            learner, found = deep_q.improve(q, learner, batches, now, settings)
            learned = Learned(learner.parameters, learner.moments)
            return learned, learner.lagged, learner.updates, found

        start = 0 if isinstance(num_steps, int) else jnp.uint32(0)
        return jax.lax.fori_loop(start, num_steps, one, agent)

    def measure(population, params, state) -> dict:
        agents, mean = state.agents, population.mean
        parameters, model = agents.learned.parameters, parameters_of(state.server)
        episodes, diagnostics = agents.rollout.memory, agents.diagnostics
        returns = episodes.of_last(episodes.last)
        return {
            **fresh_episodes.measure(config, q, population, params, state, model),
            "episode_return": mean(returns),
            "episode_steps": mean(episodes.of_last(episodes.steps)),
            "episodes": population.sum(jnp.sum(episodes.ended, axis=1)).astype(jnp.float32),
            "epsilon": mean(agents.epsilon),
            "loss": mean(diagnostics.loss),
            "mean_q": mean(diagnostics.mean_q),
            "gradient_norm": mean(diagnostics.gradient_norm),
            "drift": drift_of(population, parameters),
            "episode_return_of_agent": returns,
            "loss_of_agent": diagnostics.loss,
            "mean_q_of_agent": diagnostics.mean_q,
        }

    def act(model, observation, word):
        parameters = parameters_of(model)
        return q.sample(parameters, q.apply(parameters, observation[None])[0][0], word)

    return Learner(
        first,
        (Local(learn, envs), exchange_of(config)),
        measure,
        share=lambda agent: shared_of(config, agent.learned),
        begin=alike("learned", "lagged"),
        act=act,
    )
