"""What agents do that learn policy and value from n steps of each of their environments."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_rl import streams
from fedjax_rl.algorithms import fresh_episodes
from fedjax_rl.algorithms.n_step_properties import WEIGHTS, NStep, policy_of
from fedjax_rl.learners import a2c, ppo
from fedjax_rl.rollouts import batches, vectorised

METRICS = {
    **fresh_episodes.OF_ROLLOUTS,
    "entropy": ("federation", "of the policies in the last rollout of each agent, in nats"),
    "policy_loss": ("federation", "mean over the agents in the last rollout of each"),
    "value_loss": ("federation", "mean over the agents in the last rollout of each"),
    "gradient_norm": (
        "federation",
        "mean over the agents in the last rollout of each, before clipping",
    ),
    "episode_return_of_agent": ("agent", "episode_return of each agent"),
    "entropy_of_agent": ("agent", "entropy of each agent's policy in its last rollout, in nats"),
}


class Rollouts(NamedTuple):
    """What the rollouts of an agent leave.

    Attributes:
      collector: where its environments are.
      recent: float32 [2], mean return and length of the episodes that ended last.
      diagnostics: of the last rollout.
    """

    collector: batches.Collector
    recent: jax.Array
    diagnostics: a2c.Diagnostics


class Settings(NamedTuple):
    """What shapes a rollout, as `rollouts.vectorised` reads it."""

    bootstrap_timeouts: bool
    normalize: str
    reward_alignment: str = "correct"
    reward_normalization: bool = False
    stale_tail: int = 0


def weights_of(params: dict) -> dict[str, jax.Array]:
    """The properties of `WEIGHTS`, of one agent or of many."""
    # Networks are float32 whatever the precision of the run, and rates must not promote them.
    return {name: jnp.asarray(params[name], jnp.float32) for name in WEIGHTS}


class Actors:
    """Rollouts of agents, and what is measured of them, as an algorithm asks for them."""

    def __init__(self, config: NStep) -> None:
        """Takes the static properties of a configuration, resolved."""
        self.config = config
        self.policy = policy_of(config)
        self.settings = Settings(config.bootstrap_timeouts, config.loss.normalize)

    @property
    def env_steps(self) -> int:
        """Environment steps of a rollout."""
        return self.config.num_envs * self.config.rollout_steps

    def init(self, key) -> jax.Array:
        """First parameters [q] of the agent, or of the federation, with that key."""
        return self.policy.init(jax.random.fold_in(key, streams.Epochs.MODEL))

    def first(self, key, params) -> Rollouts:
        """Of an agent before its first rollout.

        Args:
          key: of the agent.
          params: of the agent.
        """
        own = jax.random.fold_in(key, streams.Epochs.ENVIRONMENTS)
        collector = vectorised.begin(
            self.config.task,
            own[None],
            self.config.num_envs,
            environment=vectorised.one(params.get("environment")),
            scale=False,
            late=False,
        )
        return Rollouts(
            vectorised.alone(collector), jnp.zeros(2, jnp.float32), a2c.no_diagnostics()
        )

    def collect(
        self, keys, parameters, rollouts: Rollouts, environment, weights
    ) -> tuple[Rollouts, ppo.Batch]:
        """A rollout of each of G agents, by its own parameters.

        Args:
          keys: typed keys [G] of this rollout.
          parameters: float32 [G, q].
          rollouts: leaves [G, ...].
          environment: parameters of the environments, leaves [G, ...], or None for the task's own.
          weights: of `weights_of`, [G] each.

        Returns:
          What the rollouts leave, without diagnostics of their own, and batches [G, T, E, ...].
        """
        config = self.config
        shape = config.num_envs, config.rollout_steps
        empty = batches.empty_batch(config.task, self.policy, *shape)
        collector, batch, ended = vectorised.collect(
            config.task,
            self.policy,
            keys,
            parameters,
            rollouts.collector,
            jax.tree.map(lambda x: jnp.broadcast_to(x, (len(parameters), *x.shape)), empty),
            environment=environment,
            weights=weights,
            settings=self.settings,
        )
        recent = ended.means(rollouts.recent)
        return rollouts._replace(collector=collector, recent=recent), batch

    def measure(self, population, params, state, model, rollouts: Rollouts) -> dict:
        """The values of `METRICS`, after those of an evaluation.

        Args:
          population: who belongs to whom.
          params: its properties.
          state: of now.
          model: parameters of the servers, [F, q].
          rollouts: leaves [A, ...].
        """
        mean, diagnostics = population.mean, rollouts.diagnostics
        returns, steps = rollouts.recent[:, 0], rollouts.recent[:, 1]
        return {
            **fresh_episodes.measure(self.config, self.policy, population, params, state, model),
            "episode_return": mean(returns),
            "episode_steps": mean(steps),
            "entropy": mean(diagnostics.entropy),
            "policy_loss": mean(diagnostics.policy_loss),
            "value_loss": mean(diagnostics.value_loss),
            "gradient_norm": mean(diagnostics.gradient_norm),
            "episode_return_of_agent": returns,
            "entropy_of_agent": diagnostics.entropy,
        }
