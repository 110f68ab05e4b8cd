"""What is drawn from a distribution that one differentiates by: its score, or a relaxation of it.

* Foerster et al., *DiCE: The Infinitely Differentiable Monte-Carlo Estimator*, arXiv 1802.05098:
  `score`.
* Jang, Gu and Poole, *Categorical Reparameterization with Gumbel-Softmax*, arXiv 1611.01144, and
  Maddison, Mnih and Teh, *The Concrete Distribution*, arXiv 1611.00712: `relaxed`.
* Paulus, Maddison and Krause, *Rao-Blackwellizing the Straight-Through Gumbel-Softmax Gradient
  Estimator*, arXiv 2010.04838: Gumbel variables given what has been drawn.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fedjax_rl import streams


def score(log_probability) -> jax.Array:
    """What a draw adds to the sum of an agent's draws: 0, whose derivative is the score.

    Times the exponential of that sum an outcome has the derivative of its mean, to every order
    (DiCE, eq. 5).

    Args:
      log_probability: of what has been drawn, a scalar or [...].

    Returns:
      The same shape.
    """
    return log_probability - jax.lax.stop_gradient(log_probability)


def positive(probabilities) -> jax.Array:
    """The same, but for those of 0: of their logarithms, and of its derivative, nothing is nan."""
    return jnp.maximum(probabilities, jnp.finfo(probabilities.dtype).tiny)


def straight_through(value, soft):
    """The first, with the derivative of the second; of equal shapes."""
    # In this order: the difference is exactly 0, and the value stays as it is.
    return value + (soft - jax.lax.stop_gradient(soft))


def relaxed(index, log_probabilities, words, temperature) -> jax.Array:
    r"""A draw as a vector of zeros and a one, which can be differentiated.

    Its derivative is that of softmax((log p + g) / temperature) with the Gumbel variables g held
    fixed, the straight-through Gumbel-softmax. They are drawn given what has been drawn, so that
    nothing is drawn otherwise than without a derivative: the largest of log p + g is a Gumbel
    variable of location 0, whichever it is, and the others are such variables cut off there.

    Args:
      index: integer scalar, what has been drawn.
      log_probabilities: [n].
      words: [n], uint32, that have been used for nothing else.
      temperature: scalar above 0; small ones have less bias and more variance.

    Returns:
      [n], 1 at the index.
    """
    number = log_probabilities.shape[0]
    hard = jax.nn.one_hot(index, number, dtype=log_probabilities.dtype)
    held = jax.lax.stop_gradient(log_probabilities)
    exponential = -jnp.log1p(-streams.uniform(words, held.dtype))
    # Never 0, of which the logarithm would be infinite.
    exponential = jnp.maximum(exponential, jnp.finfo(held.dtype).tiny)
    first = exponential[index]
    others = -jnp.log(exponential / jnp.exp(held) + first)
    perturbed = jnp.where(hard > 0, -jnp.log(first), others)
    soft = jax.nn.softmax((log_probabilities + (perturbed - held)) / temperature)
    return straight_through(hard, soft)
