r"""From the messages of a federation's members to one total, and from there to the next model.

An aggregator is a function `(population, message, sent, weight, context) -> total`: `message`
[A, ...] a pytree; `sent` bool [A], or None when everybody counts; `weight` None (all members count
alike), a leaf [A], a pytree like the message (a weight per entry), or the logarithms of either,
`LogWeights`; `context` the servers' models and the properties. A robust rule has the same
signature.

A server that keeps a state which every agent keeps a part of, c = 1/N \sum_i c_i, must not take
the mean of the changes that came in: what the silent ones keep has not changed. `part_of_all` is
what such a state moves by.
"""

from __future__ import annotations

from collections.abc import Callable
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
      present: bool [F], whether anything came in at all; a pytree like `value` where that is
        another question for every entry; None when it is certain.
    """

    value: object
    present: object


class LogWeights(NamedTuple):
    """Weights by their logarithms, of which only the differences among those who sent matter.

    Attributes:
      value: [A], or a pytree like the message.
    """

    value: object


def mean(population: Population, message, sent=None, weight=None, context=None) -> Total:
    r"""Weighted mean over those who sent, `\sum_i w_i m_i x_i / \sum_i w_i m_i`.

    Where nothing came in (no sender, or no sender with a weight on an entry) the value is zero, to
    be ignored by whoever reads `present`. A member that did not send, or has no weight, cannot
    spoil the total, even with a non-finite message.

    Args:
      population: who belongs to whom.
      message: pytree of [A, ...].
      sent: bool [A] or None.
      weight: None, non-negative [A], a pytree like `message` with entries non-negative, or
        `LogWeights`.
      context: not needed.

    Returns:
      The `Total` per federation, its presence by entry where weights are.
    """
    del context
    if sent is None and weight is None:
        return Total(population.mean(message), None)
    certain = sent is None and isinstance(weight, LogWeights)
    if isinstance(weight, LogWeights):
        weight = softmax_weights(population, weight.value, sent)
    weighted = weight is not None
    if not weighted:
        weight = jnp.ones(population.num_agents, jax.tree.leaves(message)[0].dtype)
    alike = isinstance(weight, jax.Array | np.ndarray) and weight.ndim <= 1
    weights = weight
    if alike:
        weights = jax.tree.map(lambda x: _column(weight, x).astype(x.dtype), message)
    if sent is not None:
        message = select(sent, message, jax.tree.map(jnp.zeros_like, message))
        weights = select(sent, weights, jax.tree.map(jnp.zeros_like, weights))
    if weighted:
        # Finite messages stay, for the derivative with respect to a weight of 0.
        message = jax.tree.map(
            lambda w, x: jnp.where((w > 0) | jnp.isfinite(x), x, jnp.zeros_like(x)),
            weights,
            message,
        )
    amount = population.sum(jax.tree.map(jnp.multiply, weights, message))
    norm = population.sum(weights)
    value = jax.tree.map(lambda a, w: a / jnp.where(w > 0, w, 1).astype(a.dtype), amount, norm)
    if certain:
        return Total(value, None)
    if not weighted:
        return Total(value, population.max(sent.astype(jnp.int32)) > 0)
    there = jax.tree.map(lambda w: w > 0, norm)
    if alike:
        return Total(value, jax.tree.leaves(there)[0].reshape(population.num_federations, -1)[:, 0])
    return Total(value, there)


def part_of_all(population: Population, message, context):
    r"""The sum over those heard by the number of *all* members, `1/N \sum_{i heard} x_i`.

    What the mean c of parts c_i, one kept by each agent, moves by when those who were heard change
    theirs by x_i and nobody else does: Karimireddy et al., *SCAFFOLD*, arXiv 1910.06378, Algorithm
    1, line 17. On a clock N counts those who have not arrived, too.

    Args:
      population: who belongs to whom.
      message: pytree of [A, ...].
      context: with who was `heard`, and the `share` of all that the population is.

    Returns:
      A pytree [F, ...].
    """
    heard, sizes = context.heard, population.sizes
    if heard is None:
        part = population.mean(message)
    else:
        message = select(heard, message, jax.tree.map(jnp.zeros_like, message))
        # N, as a divisor that is rounded like the number of senders in a mean over them: where all
        # are heard both give the same bits.
        count = jnp.maximum(population.sum(heard.astype(jnp.int32)), jnp.asarray(sizes))
        part = jax.tree.map(
            lambda x: x / _column(count, x).astype(x.dtype), population.sum(message)
        )
    if context.share is None:
        return part
    return jax.tree.map(lambda x: x * _column(context.share, x).astype(x.dtype), part)


def softmax_weights(population: Population, logits, sent=None):
    """Weights on the simplex of every federation from logits, [A, ...] -> [A, ...], any pytree.

    Computed in log space with the maximum over those who sent removed, so that importance weights
    `(1 - alpha)^(-n)` of Woo, Joshi and Chi (arXiv 2305.10697) do not overflow, and those of who
    is there do not all underflow before somebody silent.

    Args:
      population: who belongs to whom.
      logits: pytree of [A, ...].
      sent: bool [A], who is to share the weight, the others have none; None for everybody.

    Returns:
      The weights; all zero where nobody sent.
    """
    if sent is not None:
        nothing = jax.tree.map(lambda x: jnp.full_like(x, -jnp.inf), logits)
        logits = select(sent, logits, nothing)
    top = population.max(logits)
    if sent is not None:
        top = jax.tree.map(lambda x: jnp.where(x > -jnp.inf, x, jnp.zeros_like(x)), top)
    logits = jax.tree.map(lambda x, top: x - top, logits, population.spread(top))
    weights = jax.tree.map(jnp.exp, logits)
    total = population.sum(weights)
    if sent is not None:
        total = jax.tree.map(lambda x: jnp.where(x > 0, x, jnp.ones_like(x)), total)
    return jax.tree.map(jnp.divide, weights, population.spread(total))


def _itself(model):
    return model


class ServerStep(NamedTuple):
    """How a server turns a total into its next model; unbatched, the engine vmaps over F.

    Attributes:
      init: `model -> memory`.
      step: `(model, memory, total, params) -> (model, memory)`, with the properties of the
        federation.
      nothing: `model -> total`, the total that stands for "no change", put in the entries for
        which nothing came in while something came in for others.
      shown: `(model, params) -> model`, what `init` is to be shown for the model, where the
        engine's model is the meant one in other coordinates.
    """

    init: Callable
    step: Callable
    nothing: Callable = lambda model: jax.tree.map(jnp.zeros_like, model)
    shown: Callable = lambda model, params: model


def replace() -> ServerStep:
    """The model becomes the total: plain averaging of models."""
    return ServerStep(
        lambda model: (), lambda model, memory, total, params: (total, memory), _itself
    )


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

    return ServerStep(lambda model: (), step, _itself)


def emphasised(server: ServerStep, factor: str) -> ServerStep:
    """The same server shown the change of its model `params[factor]` times.

    For optimisers of the server that are to see more of who counts more, where the weights of a
    mean are only relative to those of the others in it.
    """

    def step(model, memory, total, params):
        def leaf(old, new):
            times = params[factor].astype(old.dtype)
            return jnp.where(times == 1, new, old + times * (new - old))

        return server.step(model, memory, jax.tree.map(leaf, model, total), params)

    return server._replace(step=step)


def of_changes(server: ServerStep) -> ServerStep:
    """The same server where the total is a change of its model instead of a model."""

    def step(model, memory, total, params):
        return server.step(model, memory, jax.tree.map(jnp.add, model, total), params)

    return server._replace(step=step, nothing=lambda model: jax.tree.map(jnp.zeros_like, model))


def optimizer_step(
    optimizer: optax.GradientTransformation,
    meant: Callable | None = None,
    read: Callable = _itself,
    write: Callable = _itself,
) -> ServerStep:
    """Any optax transformation of the mean change.

    The mean change of the members, `total - model`, is a pseudo-gradient pointing uphill (Reddi
    et al., *Adaptive Federated Optimization*, arXiv 2003.00295, Algorithm 1): `optax.sgd(1.0)` is
    plain averaging, `optax.sgd(lr, momentum)` FedAvgM, `optax.adam(lr)` FedAdam.

    Where the engine's models are those that are meant in other coordinates, a transformation that
    reads parameters (weight decay, trust ratios, projections) has to see what is meant.

    Args:
      optimizer: what is done with the pseudo-gradient.
      meant: `(parameters, params) -> parameters` that are meant by those of the engine, less an
        origin: changes are the same in both.
      read: `model -> parameters`, the model in the layout that the transformation is to see;
        linear.
      write: its inverse.
    """

    def shown(model, params):
        parameters = read(model)
        return parameters if meant is None else meant(parameters, params)

    def step(model, memory, total, params):
        downhill = read(jax.tree.map(jnp.subtract, model, total))
        with jax.numpy_dtype_promotion("standard"):  # optax mixes integer counts with floats
            updates, memory = optimizer.update(downhill, memory, shown(model, params))
        return optax.apply_updates(model, write(updates)), memory

    return ServerStep(optimizer.init, step, _itself, shown)
