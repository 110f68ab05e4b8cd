"""How a server turns what reached it into its next model."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax


def _itself(model):
    return model


class ServerStep(NamedTuple):
    """How a server turns a total into its next model; unbatched, the engine vmaps over F.

    Attributes:
      init: `model -> state`.
      step: `(model, state, total, params) -> (model, state)`, with the properties of the
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
    return ServerStep(lambda model: (), lambda model, state, total, params: (total, state), _itself)


def towards(share: str) -> ServerStep:
    """The model moves the fraction `params[share]` of the way to the total, averaging at 1.

    Xie, Koyejo and Gupta, *Asynchronous Federated Optimization*, arXiv 1903.03934: with a model of
    one agent at a time, FedAsync.
    """

    def step(model, state, total, params):
        def leaf(old, new):
            part = params[share].astype(old.dtype)
            return jnp.where(part == 1, new, old + part * (new - old))

        return jax.tree.map(leaf, model, total), state

    return ServerStep(lambda model: (), step, _itself)


def emphasised(server: ServerStep, factor: str) -> ServerStep:
    """The same server shown the change of its model `params[factor]` times.

    For optimisers of the server that are to see more of who counts more, where the weights of a
    mean are only relative to those of the others in it.
    """

    def step(model, state, total, params):
        def leaf(old, new):
            times = params[factor].astype(old.dtype)
            return jnp.where(times == 1, new, old + times * (new - old))

        return server.step(model, state, jax.tree.map(leaf, model, total), params)

    return server._replace(step=step)


def of_changes(server: ServerStep) -> ServerStep:
    """The same server where the total is a change of its model instead of a model."""

    def step(model, state, total, params):
        return server.step(model, state, jax.tree.map(jnp.add, model, total), params)

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

    def step(model, state, total, params):
        downhill = read(jax.tree.map(jnp.subtract, model, total))
        with jax.numpy_dtype_promotion("standard"):  # optax mixes integer counts with floats
            updates, state = optimizer.update(downhill, state, shown(model, params))
        return optax.apply_updates(model, write(updates)), state

    return ServerStep(optimizer.init, step, _itself, shown)
