"""The transitions of an episode as a message, and what a learner makes of their errors."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Transitions(NamedTuple):
    """An episode as a message, padded to T.

    Attributes:
      index: int32 [T], s U + a.
      error: [T], with the table that was sent down.
      kept: bool [T], the transitions that are sent; none behind the end of the episode.
      reward: [T], or () where the errors are all the learner needs.
      next_state: int32 [T], or ().
      terminal: bool [T], whether the next state is, or ().
    """

    index: jax.Array
    error: jax.Array
    kept: jax.Array
    reward: object = ()
    next_state: object = ()
    terminal: object = ()


def td_errors(table, actions: int, discount, index, reward, next_state, terminal) -> jax.Array:
    """The error of a transition, a scalar.

    Args:
      table: [S U].
      actions: U.
      discount: scalar.
      index: int32, s U + a.
      reward: scalar.
      next_state: int32.
      terminal: bool, whether the next state is.
    """
    row = jax.lax.dynamic_slice(table, (next_state * actions,), (actions,))
    # Only terminal states: behind a step that was cut off the value goes on.
    ahead = jnp.where(terminal, jnp.zeros_like(reward), discount * jnp.max(row))
    return reward + ahead - table[index]


def sums(message: Transitions, size: int):
    """The errors that are kept, by entry of the table: their sums and their numbers, [size, 2].

    Args:
      message: of one agent, or of one step.
      size: S U.
    """
    kept = message.kept.astype(message.error.dtype)
    # Side by side, so that one scatter adds up both.
    pair = jnp.stack([jnp.where(message.kept, message.error, jnp.zeros_like(kept)), kept], axis=-1)
    return jnp.zeros((size, 2), pair.dtype).at[message.index].add(pair)


def means(total) -> jax.Array:
    """Means from sums and numbers [..., 2]; 0 where there is nothing."""
    return total[..., 0] / jnp.maximum(total[..., 1], 1)


def received(message: Transitions, sent) -> Transitions:
    """The messages [A, ...] with nothing kept in those that were not sent.

    Args:
      message: leaves [A, ...].
      sent: bool [A], or None for all.
    """
    if sent is None:
        return message
    return message._replace(kept=message.kept & sent[:, None])
