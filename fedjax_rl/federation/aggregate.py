"""From the messages of a federation's members to one total, and from there to the next model.

An aggregator is a function `(population, message, sent, weight, context) -> total`: `message`
[A, ...] a pytree; `sent` bool [A], or None when everybody counts; `weight` None (all members count
alike), a leaf [A], or a pytree like the message (a weight per entry); `context` the servers'
models and the properties. A robust rule has the same signature.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fedjax_rl.federation.population import Population, _column, select


class Total(NamedTuple):
    """What reached the server.

    Attributes:
      value: pytree [F, ...].
      present: bool [F], whether anything came in at all; None when that is certain.
    """

    value: object
    present: jax.Array | None


def mean(population: Population, message, sent=None, weight=None, context=None) -> Total:
    r"""Weighted mean over those who sent, `\sum_i w_i m_i x_i / \sum_i w_i m_i`.

    Where nothing came in (no sender, or no weight on an entry) the value is zero, to be ignored
    by whoever reads `present`. A member that did not send cannot spoil the total, even with a
    non-finite message.

    Args:
      population: who belongs to whom.
      message: pytree of [A, ...].
      sent: bool [A] or None.
      weight: None, non-negative [A], or a pytree like `message` with entries non-negative.
      context: not needed.

    Returns:
      The `Total` per federation.
    """
    del context
    if sent is None and weight is None:
        return Total(population.mean(message), None)
    if weight is None:
        weight = jnp.ones(population.num_agents, jax.tree.leaves(message)[0].dtype)
    if not isinstance(weight, jax.Array | np.ndarray) or weight.ndim > 1:
        weights = weight
    else:
        weights = jax.tree.map(lambda x: _column(weight, x).astype(x.dtype), message)
    if sent is not None:
        message = select(sent, message, jax.tree.map(jnp.zeros_like, message))
        weights = select(sent, weights, jax.tree.map(jnp.zeros_like, weights))
    amount = population.sum(jax.tree.map(jnp.multiply, weights, message))
    norm = population.sum(weights)
    value = jax.tree.map(lambda a, w: a / jnp.where(w > 0, w, 1).astype(a.dtype), amount, norm)
    present = None if sent is None else population.max(sent.astype(jnp.int32)) > 0
    return Total(value, present)


def softmax_weights(population: Population, logits):
    """Weights on the simplex of every federation from logits, [A, ...] -> [A, ...], any pytree.

    Computed in log space with the federation's maximum removed, so that importance weights
    `(1 - alpha)^(-n)` of Woo, Joshi and Chi (arXiv 2305.10697) do not overflow.
    """
    logits = jax.tree.map(lambda x, top: x - top, logits, population.spread(population.max(logits)))
    weights = jax.tree.map(jnp.exp, logits)
    total = population.spread(population.sum(weights))
    return jax.tree.map(jnp.divide, weights, total)


class ServerStep(NamedTuple):
    """How a server turns a total into its next model; unbatched, the engine vmaps over F.

    Attributes:
      init: `model -> memory`.
      step: `(model, memory, total, params) -> (model, memory)`, with the properties of the
        federation.
    """

    init: object
    step: object


def replace() -> ServerStep:
    """The model becomes the total: plain averaging of models."""
    return ServerStep(lambda model: (), lambda model, memory, total, params: (total, memory))


def towards(share: str) -> ServerStep:
    """The model moves the fraction `params[share]` of the way to the total, averaging at 1.

    Xie, Koyejo and Gupta, *Asynchronous Federated Optimization*, arXiv 1903.03934: with a model of
    one agent at a time, FedAsync.
    """

    def step(model, memory, total, params):
        def leaf(old, new):
            part = params[share].astype(old.dtype)
            return jnp.where(part == 1, new, old + part * (new - old))

        return jax.tree.map(leaf, model, total), memory

    return ServerStep(lambda model: (), step)


def of_changes(server: ServerStep) -> ServerStep:
    """The same server where the total is a change of its model instead of a model."""

    def step(model, memory, total, params):
        return server.step(model, memory, jax.tree.map(jnp.add, model, total), params)

    return ServerStep(server.init, step)


def optimizer_step(optimizer: optax.GradientTransformation) -> ServerStep:
    """Any optax transformation of the mean change.

    The mean change of the members, `total - model`, is a pseudo-gradient pointing uphill (Reddi
    et al., *Adaptive Federated Optimization*, arXiv 2003.00295, Algorithm 1): `optax.sgd(1.0)` is
    plain averaging, `optax.sgd(lr, momentum)` FedAvgM, `optax.adam(lr)` FedAdam.
    """

    def step(model, memory, total, params):
        downhill = jax.tree.map(jnp.subtract, model, total)
        updates, memory = optimizer.update(downhill, memory, model)
        return optax.apply_updates(model, updates), memory

    return ServerStep(optimizer.init, step)
