"""First-order optimisers of one agent, whose parameters are one vector [q].

* Kingma and Ba, *Adam: A Method for Stochastic Optimization*, arXiv 1412.6980, Algorithm 1.
* Tieleman and Hinton, *Lecture 6.5: RMSProp* (2012), as of Mnih et al., *Asynchronous Methods for
  Deep Reinforcement Learning*, arXiv 1602.01783, equation S3; their momentum likewise.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

NAMES = ("adam", "momentum", "rmsprop", "sgd")


class Moments(NamedTuple):
    """What an optimiser remembers.

    Attributes:
      count: int32, updates so far.
      first, second: float [q], moving means of the gradient and of its square.
    """

    count: jax.Array
    first: jax.Array
    second: jax.Array


def no_moments(parameters) -> Moments:
    """Before the first update."""
    return Moments(jnp.int32(0), jnp.zeros_like(parameters), jnp.zeros_like(parameters))


def adam(gradient, moments: Moments, epsilon) -> tuple[jax.Array, Moments]:
    """The direction of Adam, not yet scaled by the learning rate, with 0.9 and 0.999.

    Without weight decay AdamW is the same.

    Args:
      gradient: [q].
      moments: before.
      epsilon: beside the root of the second moment.
    """
    move, new = scaled_by_adam(gradient, optax.ScaleByAdamState(*moments), epsilon)
    return move, Moments(new.count, new.mu, new.nu)


@jax.custom_jvp
def scaled_by_adam(gradient, state: optax.ScaleByAdamState, epsilon) -> tuple:
    """Optax's direction of Adam, whose derivative is finite where there was no gradient so far.

    There, as in the rows of a table for states that nobody has visited, the root of the second
    moment has no derivative. The direction is 0, and that of its derivative.

    Args:
      gradient: a pytree.
      state: before.
      epsilon: beside the root of the second moment.

    Returns:
      The direction, and the state after.
    """
    return _by_adam(gradient, state, epsilon)


def _by_adam(gradient, state, epsilon):
    optimizer = optax.scale_by_adam(eps=epsilon)
    with jax.numpy_dtype_promotion("standard"):  # optax mixes integer counts with floats
        return optimizer.update(gradient, state)


@scaled_by_adam.defjvp
def _scaled_by_adam(primals, tangents):
    def defined(gradient, state, epsilon):
        new = _by_adam(gradient, state, epsilon)[1]
        still = jax.tree.map(lambda v: v == 0, new.nu)
        # Roots of something else where they are not used: 0 times infinity would be nan.
        other = lambda where, x: jnp.where(where, jnp.ones_like(x), x)
        safe = state._replace(nu=jax.tree.map(other, still, state.nu))
        move = _by_adam(jax.tree.map(other, still, gradient), safe, epsilon)[0]
        return jax.tree.map(lambda x, y: jnp.where(x, jnp.zeros_like(y), y), still, move), new

    return jax.jvp(defined, primals, tangents)


def rms_prop(gradient, moments: Moments, epsilon, decay) -> tuple[jax.Array, Moments]:
    """The direction of RMSProp, g / sqrt(E[g^2] + epsilon), of which the first moment is no part.

    Args:
      gradient: [q].
      moments: before.
      epsilon: beside the second moment, below the root.
      decay: of the second moment, in [0, 1].
    """
    second = decay * moments.second + (1 - decay) * gradient**2
    return gradient / jnp.sqrt(second + epsilon), Moments(moments.count + 1, moments.first, second)


def momentum(gradient, moments: Moments, decay) -> tuple[jax.Array, Moments]:
    """The running mean m <- decay m + (1 - decay) g, which begins at 0.

    Args:
      gradient: [q].
      moments: before.
      decay: of the mean, in [0, 1].
    """
    first = decay * moments.first + (1 - decay) * gradient
    return first, Moments(moments.count + 1, first, moments.second)


def direction(name: str, gradient, moments: Moments, epsilon, decay) -> tuple[jax.Array, Moments]:
    """The direction of an optimiser, not yet scaled by the learning rate.

    Args:
      name: of `NAMES`.
      gradient: [q].
      moments: before.
      epsilon: of "adam" and "rmsprop".
      decay: of "rmsprop" and "momentum".
    """
    if name == "adam":
        return adam(gradient, moments, epsilon)
    if name == "rmsprop":
        return rms_prop(gradient, moments, epsilon, decay)
    if name == "momentum":
        return momentum(gradient, moments, decay)
    return gradient, moments._replace(count=moments.count + 1)


def bounded(gradient, norm) -> tuple[jax.Array, jax.Array]:
    """The gradient [q] scaled down to a norm where it has a larger one, and its norm before.

    Args:
      gradient: [q].
      norm: the largest there is to be, scalar; may be infinite.

    Returns:
      The gradient [q], and a scalar.
    """
    # Squares of more than 1.8e19 overflow in float32; then in units of the largest.
    length = jnp.sqrt(jnp.sum(gradient**2))
    top = jnp.max(jnp.abs(gradient))
    scaled = top * jnp.sqrt(jnp.sum((gradient / jnp.maximum(top, 1e-30)) ** 2))
    length = jnp.where(jnp.isfinite(length), length, scaled)
    return gradient * jnp.minimum(1.0, norm / jnp.maximum(length, 1e-12)), length
