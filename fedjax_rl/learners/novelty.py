"""Novelty of a behaviour: how far it is from those seen before; and a server that searches for it.

* Lehman and Stanley, *Abandoning Objectives: Evolution Through the Search for Novelty Alone*,
  Evolutionary Computation 19 (2011): the mean distance to the nearest neighbours in an archive.
* Conti, Madhavan, Petroski Such, Lehman, Stanley and Clune, *Improving Exploration in Evolution
  Strategies for Deep Reinforcement Learning via a Population of Novelty-Seeking Agents*, arXiv
  1712.06560.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

# Below every return, and with a square that is finite: a model says whether it has diverged.
_LEAST = -1e18


class Archive(NamedTuple):
    """Behaviours that were seen, a ring: the oldest makes room.

    Attributes:
      entries: [C, b].
      count: int32 scalar, behaviours ever added; the first `min(count, C)` entries are valid.
    """

    entries: jax.Array
    count: jax.Array


def empty(size: int, behaviour_size: int) -> Archive:
    """An archive for C behaviours of size b.

    Args:
      size: C.
      behaviour_size: b.
    """
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
    # Squares rank as distances do, and only K roots are taken.
    squares = jnp.sum((archive.entries - behaviour[None]) ** 2, axis=-1)
    squares = jnp.where(jnp.arange(size, dtype=jnp.int32) < archive.count, squares, jnp.inf)
    nearest = -jax.lax.top_k(-squares, min(neighbours, size))[0]
    valid = jnp.isfinite(nearest)
    total = jnp.sum(jnp.sqrt(jnp.where(valid, nearest, 0.0)))
    return total / jnp.maximum(jnp.sum(valid.astype(total.dtype)), 1)


class Model(NamedTuple):
    """The server.

    Attributes:
      parameters: [M, q].
      behaviours: [M, b], of each set of parameters as last seen.
      archive: of behaviours.
      chosen: int32, the set of parameters of this round.
      stepped: whether it has made a step in this round.
      value: return of its last episode, that of the first set of parameters at the start.
      novelty: mean novelty of the behaviours received last.
      weight: w, of the return.
      best: largest return of the server's own episodes so far.
      waited: int32, rounds since then, or since w went down.
      drawn: scalar 0 whose derivative is that of the log-probability of all actions of its own
        episodes; or ().
    """

    parameters: jax.Array
    behaviours: jax.Array
    archive: Archive
    chosen: jax.Array
    stepped: jax.Array
    value: jax.Array
    novelty: jax.Array
    weight: jax.Array
    best: jax.Array
    waited: jax.Array
    drawn: Any = ()


def first_model(parameters, archive_size: int, behaviour_size: int, weight) -> Model:
    """A server that has seen nothing yet.

    Args:
      parameters: [M, q].
      archive_size: C.
      behaviour_size: b.
      weight: w, float scalar.
    """
    return Model(
        parameters=parameters,
        behaviours=jnp.zeros((parameters.shape[0], behaviour_size)),
        archive=empty(archive_size, behaviour_size),
        chosen=jnp.int32(0),
        stepped=jnp.asarray(False),
        value=jnp.zeros(()),
        novelty=jnp.zeros(()),
        weight=jnp.asarray(weight, float),
        best=jnp.asarray(_LEAST, float),
        waited=jnp.int32(0),
    )


def begun(model: Model, value, behaviours) -> Model:
    """The server after an episode of every set of parameters.

    Args:
      model: as of `first_model`.
      value: return of the first episode, float scalar.
      behaviours: [M, b]; what is not finite is 0 and not archived.
    """
    archive = model.archive
    for n in range(behaviours.shape[0]):
        archive = add(archive, behaviours[n], jnp.all(jnp.isfinite(behaviours[n])))
    return model._replace(
        behaviours=jnp.where(jnp.isfinite(behaviours), behaviours, 0.0),
        archive=archive,
        value=jnp.where(jnp.isfinite(value), value, jnp.zeros_like(value)),
    )


def choose(key, model: Model, neighbours: int) -> Model:
    """Draws the parameters of a round, with chances in proportion to their novelty.

    Args:
      key: typed key, consumed.
      model: the server.
      neighbours: K, as of `novelty`.

    Returns:
      The server with its choice.
    """
    found = jax.vmap(lambda b: novelty(model.archive, b, neighbours))(model.behaviours)
    # Without any novelty all have the same chance.
    logits = jnp.where(jnp.sum(found) > 0, jnp.log(found), jnp.zeros_like(found))
    chosen = jax.random.categorical(key, logits).astype(jnp.int32)
    return model._replace(chosen=chosen, stepped=jnp.asarray(False))


def adapt(model: Model, value, params) -> Model:
    """The weight of the return after an episode with that return.

    Args:
      model: the server.
      value: return, float scalar.
      params: with "weight_step" and "patience".
    """
    dw = params["weight_step"]
    better = value > model.best
    waited = jnp.where(better, 0, model.waited + 1)
    tired = ~better & (waited.astype(dw.dtype) >= params["patience"])
    change = jnp.where(better, dw, jnp.where(tired, -dw, jnp.zeros_like(dw)))
    return model._replace(
        weight=jnp.clip(model.weight + change, 0, 1),
        best=jnp.maximum(model.best, jnp.where(better, value, model.best)),
        waited=jnp.where(tired, 0, waited),
    )


def settle(model: Model, value, behaviour, params) -> Model:
    """The server after its own episode with the parameters of the round.

    Args:
      model: the server.
      value: return of the episode, float scalar.
      behaviour: [b].
      params: of the federation.

    Returns:
      The server with the behaviour in its archive; as it was, where it has made no step or the
      episode was not finite.
    """
    fine = model.stepped & jnp.isfinite(value) & jnp.all(jnp.isfinite(behaviour))
    new = adapt(model, value, params)._replace(
        value=value,
        behaviours=model.behaviours.at[model.chosen].set(behaviour),
        archive=add(model.archive, behaviour),
    )
    return jax.tree.map(lambda new, old: jnp.where(fine, new, old), new, model)
