"""Environments of one agent that begin anew by themselves, step by step: transitions for a ring.

Axis: `E` environments of the agent.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_rl import streams
from fedjax_rl.learners import policies, replay
from fedjax_rl.learners.sight import seen
from fedjax_rl.rollouts import engine
from fedjax_rl.rollouts.engine import RolloutState
from fedjax_rl.rollouts.environments import VectorEnv


class Episodes(NamedTuple):
    """What is known of the episodes of an agent's environments, [E].

    Attributes:
      total: float32, rewards of the episode under way.
      last: float32, undiscounted return of the last one that ended.
      steps: float32, its length.
      ended: int32, how many have ended.
    """

    total: jax.Array
    last: jax.Array
    steps: jax.Array
    ended: jax.Array

    def of_last(self, value) -> jax.Array:
        """Mean of a value [E] over the environments in which an episode has ended; 0 if none."""
        some = self.ended > 0
        count = jnp.sum(some, axis=-1).astype(value.dtype)
        return jnp.sum(jnp.where(some, value, 0.0), axis=-1) / jnp.maximum(count, 1.0)


def _env(task) -> VectorEnv:
    return VectorEnv(task, dtype=seen(task).dtype)


def keys_of(key, num_envs: int) -> jax.Array:
    """A key of every environment of an agent, [E]."""
    places = jnp.arange(num_envs, dtype=jnp.uint32)
    return streams.fold(key, places)


def begin(task, keys, environment=()) -> RolloutState:
    """The first states, leaves [E, ...], with `Episodes` as memory.

    Args:
      task: an `envs.Task`.
      keys: typed keys [E]; consumed.
      environment: parameters of the environments, leaves [E, ...]; () for the task's own.
    """
    zeros = jnp.zeros(keys.shape, jnp.float32)
    episodes = Episodes(zeros, zeros, zeros, jnp.zeros(keys.shape, jnp.int32))
    return engine.begin(_env(task), keys, environment, episodes)


def stepper(task, q) -> engine.Stepper:
    """The step of an agent's environments, epsilon-greedily; a row is a `replay.Transition`.

    Its `Inputs.policy` is (parameters [q], epsilon). An episode is cut off after `task.max_steps`
    steps, too, which terminates nothing.

    Args:
      task: an `envs.Task`.
      q: a `learners.deep_q.QNetwork`.
    """

    def act(policy, observation, words):
        parameters, epsilon = policy
        values, _ = q.apply(parameters, observation)
        choose = jax.vmap(policies.epsilon_greedy, in_axes=(0, None, None, 0))
        return choose(values, epsilon.astype(values.dtype), False, words), ()

    def note(step, episodes: Episodes, inputs):
        del inputs
        reward, over = step.reward.astype(jnp.float32), step.over
        total = episodes.total + reward
        episodes = Episodes(
            jnp.where(over, 0.0, total),
            jnp.where(over, total, episodes.last),
            jnp.where(over, step.length.astype(jnp.float32), episodes.steps),
            episodes.ended + over.astype(jnp.int32),
        )
        row = replay.Transition(
            step.observation, step.action, reward, step.next_observation, step.terminated
        )
        return episodes, row

    return engine.stepper(_env(task), act, note, begins_anew=task.max_steps)
