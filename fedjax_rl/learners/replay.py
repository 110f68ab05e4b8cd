"""A ring of the last transitions of one agent, to learn from again and again.

* Lin, *Self-Improving Reactive Agents Based on Reinforcement Learning, Planning and Teaching*
  (1992): experience replay.
* Mnih et al., *Human-Level Control Through Deep Reinforcement Learning* (Nature, 2015): drawn
  uniformly, with replacement.

Axes: `C` steps that the ring holds, `E` environments of the agent, `B` transitions of a batch.
Where a step goes follows from how many there have been: agents that are at one time write to one
place, which is a slice of the ring of all agents.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_rl import streams


class Transition(NamedTuple):
    """A step of an environment; leaves [E, ...], in a ring [C, E, ...], in a batch [B, ...].

    Attributes:
      observation: before the step, as the environment gives it.
      action: int32.
      reward: float32, as the environment gives it.
      next_observation: after the step, the last one of its episode included.
      terminated: bool, whether the MDP ended; not where the episode was cut off.
    """

    observation: jax.Array
    action: jax.Array
    reward: jax.Array
    next_observation: jax.Array
    terminated: jax.Array


def empty(view: jax.ShapeDtypeStruct, size: tuple[int, int]) -> Transition:
    """A ring of nothing.

    Args:
      view: an observation.
      size: (C, E).
    """
    seen = jnp.zeros((*size, *view.shape), view.dtype)
    number = jnp.zeros(size, jnp.float32)
    return Transition(seen, number.astype(jnp.int32), number, seen, number > 0)


def write(ring: Transition, row: Transition, time) -> Transition:
    """The ring with a step in place of the oldest one.

    Args:
      ring: leaves [C, E, ...].
      row: leaves [E, ...].
      time: uint32 scalar, steps before it.
    """
    place = (time % jnp.uint32(ring.reward.shape[0])).astype(jnp.int32)
    return jax.tree.map(
        lambda old, new: jax.lax.dynamic_update_index_in_dim(old, new, place, 0), ring, row
    )


def sample(key, ring: Transition, steps, shape: tuple[int, ...]) -> Transition:
    """Transitions drawn uniformly with replacement, leaves [*shape, ...].

    Args:
      key: typed key, consumed.
      ring: leaves [C, E, ...].
      steps: uint32 scalar, at least 1, how many have been written.
      shape: of the draw.
    """
    slots, envs = ring.reward.shape
    there = jnp.minimum(steps, jnp.uint32(slots)).astype(jnp.int32) * jnp.int32(envs)
    places = streams.below(key, there, shape)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[places], ring)
