"""What is kept and written down of vectorised environments: states, rows, tails, ended episodes."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fedjax_rl.learners import ppo
from fedjax_rl.learners.sight import seen
from fedjax_rl.rollouts.engine import RolloutState


class Collector(NamedTuple):
    """Where the environments of agents are between two batches; leaves [G, ...].

    Attributes:
      rollout: where the episodes are, leaves [G, E, ...]; its memory is `Running`.
      due: float32 [G, E], the last reward, where rewards are one step late; or ().
      tail: `Tail`, where steps beyond a rollout begin the next one; or ().
    """

    rollout: RolloutState
    due: Any = ()
    tail: Any = ()


class Running(NamedTuple):
    """What is kept from step to step.

    Attributes:
      undiscounted: float32 [G, E], rewards of the episode so far, as the environment gave them.
      scale: `gae.RewardScale` [G, ...], or () where rewards are not scaled.
      ended: `Ended` [G], the episodes that ended in the rollout; () between rollouts.
    """

    undiscounted: jax.Array
    scale: Any = ()
    ended: Any = ()


class Tail(NamedTuple):
    """Steps beyond a rollout, at most S of them.

    Attributes:
      count: int32 [G].
      rows: what is written down of a step, leaves [G, S, E, ...]; the first `count` are there.
    """

    count: jax.Array
    rows: Row


class Row(NamedTuple):
    """What is written down of a step; leaves [G, E, ...], with T in between in buffers.

    Attributes:
      observation: before the step.
      action: as drawn.
      log_prob: of the action, float32.
      value: of the observation, float32.
      reward: float32, scaled where rewards are.
      terminated: bool, whether the MDP ended.
      truncated: bool, whether the episode was cut off.
      last_value: float32, of the last observation where the episode was cut off and its value goes
        on; 0 elsewhere.
    """

    observation: jax.Array
    action: jax.Array
    log_prob: jax.Array
    value: jax.Array
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    last_value: jax.Array


class Ended(NamedTuple):
    """The episodes that ended in a rollout; [G].

    Attributes:
      episodes: float32, their number.
      total: float32, sum of their undiscounted returns.
      steps: float32, sum of their lengths.
    """

    episodes: jax.Array
    total: jax.Array
    steps: jax.Array

    def means(self, before) -> jax.Array:
        """Mean return and length, [G, 2]; those of before where no episode ended.

        Args:
          before: [G, 2], of the episodes that ended last.
        """
        count = self.episodes[..., None]
        found = jnp.stack([self.total, self.steps], axis=-1) / jnp.maximum(count, 1)
        return jnp.where(count > 0, found, before)


def none_ended() -> Ended:
    """Before the first rollout, of one agent."""
    return Ended(*(jnp.zeros((), jnp.float32) for _ in Ended._fields))


def empty_batch(task, policy, num_envs: int, num_steps: int) -> ppo.Batch:
    """Zeros of the shape of one agent's rollout, [T, E, ...].

    Observations have the dtype that the environment gives them.

    Args:
      task: an `envs.Task`.
      policy: a `learners.actor_critic.ActorCritic`.
      num_envs: E.
      num_steps: T.
    """
    size, view = (num_steps, num_envs), seen(task)
    drawn = jax.eval_shape(
        policy.actions.sample,
        jax.ShapeDtypeStruct((policy.actions.outputs,), jnp.float32),
        jax.ShapeDtypeStruct((policy.actions.own,), jnp.float32),
        jax.ShapeDtypeStruct((), jnp.uint32),
    )
    number = jnp.zeros(size, jnp.float32)
    return ppo.Batch(
        jnp.zeros((*size, *view.shape), view.dtype),
        jnp.zeros((*size, *drawn.shape), drawn.dtype),
        *(number for _ in range(4)),
    )


def no_tail(batch: ppo.Batch, agents: int) -> Tail:
    """Of so many agents before their first rollout; the batch is as long as a tail may be.

    Args:
      batch: of one agent, leaves [S, E, ...].
      agents: G.
    """
    rows = jax.tree.map(lambda x: jnp.broadcast_to(x, (agents, *x.shape)), rows_of(batch))
    return Tail(jnp.zeros(agents, jnp.int32), rows)


def rows_of(batch: ppo.Batch) -> Row:
    """Buffers of a rollout in place of a batch, to be overwritten; leaves [..., T, E, ...]."""
    nothing = jnp.zeros(batch.value.shape, jnp.float32)
    # What a batch shares with rows are its own buffers: there is no second rollout in memory.
    return Row(*batch[:4], nothing, nothing > 0, nothing > 0, nothing)
