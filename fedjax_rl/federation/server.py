"""How a server turns what reached it into its next model."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from fedjax_rl.federation.debugging import per_one
from fedjax_rl.federation.population import Population
from fedjax_rl.federation.state import Params

# Under this name a federation on a clock knows which part of it those are who are waited for, and
# its server's step which part has come. Where members count differently each has its own share.
SHARE = "arriving_share"

# Under these names a server's step knows how many messages its total is of, and on a clock what a
# member who has come counts on average, as a multiple of what all members count on average.
MESSAGES = "messages_of_total"
EMPHASIS = "arriving_emphasis"


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

    Args:
      share: name of the property, in [0, 1].
    """

    def step(model, state, total, params):
        def leaf(old, new):
            part = params[share].astype(old.dtype)
            # A choice: old + 1 (new - old) is not `new` to the last bit.
            return jnp.where(part == 1, new, old + part * (new - old))

        return jax.tree.map(leaf, model, total), state

    return ServerStep(lambda model: (), step, _itself)


def emphasised(server: ServerStep, factor: str) -> ServerStep:
    """The same server shown the change of its model `params[factor]` times.

    For optimisers of the server that are to see more of who counts more, where the weights of a
    mean are only relative to those of the others in it.

    Args:
      server: whose optimiser it is.
      factor: name of the property.

    Returns:
      The `ServerStep`.
    """

    def step(model, state, total, params):
        def leaf(old, new):
            times = params[factor].astype(old.dtype)
            # A choice for the same reason.
            return jnp.where(times == 1, new, old + times * (new - old))

        return server.step(model, state, jax.tree.map(leaf, model, total), params)

    return server._replace(step=step)


def of_changes(server: ServerStep) -> ServerStep:
    """The same server where the total is a change of its model instead of a model.

    Args:
      server: a step whose total is a model.
    """

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

    Returns:
      The `ServerStep`; what it keeps is the state of the transformation.
    """

    def shown(model, params):
        parameters = read(model)
        return parameters if meant is None else meant(parameters, params)

    def step(model, state, total, params):
        # Optax goes against what it is given.
        downhill = read(jax.tree.map(jnp.subtract, model, total))
        with jax.numpy_dtype_promotion("standard"):  # optax mixes integer counts with floats
            updates, state = optimizer.update(downhill, state, shown(model, params))
        return optax.apply_updates(model, write(updates)), state

    return ServerStep(optimizer.init, step, _itself, shown)


def next_models(
    population: Population, server: ServerStep, params: Params, before, total, present, counted
):
    """The steps of all servers.

    Args:
      population: who belongs to whom.
      server: what each of them does.
      params: the traced properties of the population.
      before: the servers' models and what their steps keep, leaves [F, ...].
      total: an `Aggregate`, what reached them.
      present: bool [A], the agents that there are at all; None for all of them.
      counted: bool [A], whose message counts; None for all of them.

    Returns:
      The models and what the steps keep after it, leaves [F, ...]; bool [F], whether anything came
      in, or None where that is certain.
    """
    models, states = before
    value, came = total
    by_entry = came is not None and not _one_each(came)
    if by_entry:
        # An entry about which nobody said anything has not changed, and does not become 0.
        value = jax.tree.map(jnp.where, came, value, jax.vmap(server.nothing)(models))
    # What a step may want to know of who is in its total has no place in its signature: few do.
    federation = {**params.federation, MESSAGES: _number(population, counted)}
    if SHARE in federation:
        federation |= _arrived(population, params, present)
    after, states = per_one(
        lambda model, state, value, own: server.step(model, state, value, {**params.shared, **own})
    )(models, states, value, federation)
    if by_entry:
        if jax.tree.structure(after) == jax.tree.structure(came):
            # Once more afterwards: an optimiser's momentum moves what has not changed, too.
            after = jax.tree.map(jnp.where, came, after, models)
        each = [jnp.any(x.reshape(x.shape[0], -1), axis=1) for x in jax.tree.leaves(came)]
        came = jnp.any(jnp.stack(each), axis=0)
    return after, states, came


def _number(population, who):
    """How many of every federation, int32 [F]; all where `who` is None."""
    if who is None:
        return jnp.asarray(population.sizes, jnp.int32)
    return population.sum(who.astype(jnp.int32))


def _arrived(population, params, present) -> dict:
    """Which part of all has arrived, and how much more than others it counts."""
    share = params.federation[SHARE]
    if present is not None:
        # Fewer may have arrived than were waited for.
        part = _number(population, present) / jnp.asarray(population.sizes)
        share = share * part.astype(share.dtype)
    if SHARE not in params.agent:
        return {SHARE: share}
    own = params.agent[SHARE]
    if present is not None:
        own = jnp.where(present, own, 0)
    # All of it to the last bit where everybody is there.
    counts = jnp.where(share == 1, 1, population.sum(own))
    # Where nobody has come nothing of it is kept; it must not be 0 / 0 all the same.
    return {SHARE: counts, EMPHASIS: counts / jnp.where(share > 0, share, 1)}


def _one_each(came) -> bool:
    """Whether presence is said per federation, [F], and not for every entry."""
    return isinstance(came, jax.Array) and came.ndim == 1
