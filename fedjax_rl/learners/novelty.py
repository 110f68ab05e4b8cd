"""Novelty of a behaviour: how far it is from those that were seen before.

* Lehman and Stanley, *Abandoning Objectives: Evolution Through the Search for Novelty Alone*,
  Evolutionary Computation 19 (2011): the mean distance to the nearest neighbours in an archive.
* Conti, Madhavan, Petroski Such, Lehman, Stanley and Clune, *Improving Exploration in Evolution
  Strategies for Deep Reinforcement Learning via a Population of Novelty-Seeking Agents*, arXiv
  1712.06560.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Archive(NamedTuple):
    """Behaviours that were seen, a ring: the oldest makes room.

    Attributes:
      entries: [C, b].
      count: int32 scalar, behaviours ever added; the first `min(count, C)` entries are valid.
    """

    entries: jax.Array
    count: jax.Array


def empty(size: int, behaviour_size: int) -> Archive:
    """An archive for C behaviours of size b."""
    return Archive(jnp.zeros((size, behaviour_size)), jnp.int32(0))


def add(archive: Archive, behaviour, wanted=True) -> Archive:
    """The archive with one behaviour more.

    Args:
      archive: before.
      behaviour: [b].
      wanted: bool scalar; the archive stays as it is where false.
    """
    place = archive.count % archive.entries.shape[0]
    entry = jnp.where(wanted, behaviour, archive.entries[place])
    count = archive.count + jnp.asarray(wanted).astype(archive.count.dtype)
    return Archive(archive.entries.at[place].set(entry), count)


def novelty(archive: Archive, behaviour, neighbours: int) -> jax.Array:
    """Mean Euclidean distance of a behaviour to its nearest neighbours in the archive.

    Args:
      archive: where to look; all of it where it has fewer than `neighbours` entries.
      behaviour: [b].
      neighbours: K, at least 1.

    Returns:
      Float scalar, 0 where the archive is empty.
    """
    size = archive.entries.shape[0]
    squares = jnp.sum((archive.entries - behaviour[None]) ** 2, axis=-1)
    squares = jnp.where(jnp.arange(size, dtype=jnp.int32) < archive.count, squares, jnp.inf)
    nearest = -jax.lax.top_k(-squares, min(neighbours, size))[0]
    valid = jnp.isfinite(nearest)
    total = jnp.sum(jnp.sqrt(jnp.where(valid, nearest, 0.0)))
    return total / jnp.maximum(jnp.sum(valid.astype(total.dtype)), 1)
