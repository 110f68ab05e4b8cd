"""Gradients of means over many pictures, some pictures at a time (gradient accumulation).

What a network for pictures keeps of 2,048 of them for its backward pass is far larger than any
cache of a CPU, which takes two thirds of the time where 16 are learned at a time, and a hundredth
of the memory. An accelerator waits for every small product, and takes all at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from fedjax_rl import backend

PIXELS = 16 * 64 * 64  # at a time; with twice or four times as many networks take about as long
_FEWEST = 8  # pictures, of which a product of matrices is worth its call


def at_once(shape: tuple[int, ...], samples: int) -> int:
    """How many samples a gradient is made of at a time.

    Args:
      shape: of one input of the network; [H, W, C] is a picture.
      samples: B, of the whole gradient.

    Returns:
      A divisor of B: B itself on an accelerator, of what is no picture, and where none of at least
      8 pictures has as few pixels as are taken at a time.
    """
    if backend.kind() != "cpu" or len(shape) < 3:
        return samples
    most = max(_FEWEST, PIXELS // math.prod(shape[:2]))
    sizes = range(min(most, samples), _FEWEST - 1, -1)
    return next((size for size in sizes if samples % size == 0), samples)


def gradient(objective: Callable, parameters, batch, size: int) -> tuple:
    """Gradient of a mean over samples, the mean of those of parts of equal size.

    Args:
      objective: of parameters and samples: a mean over these, and a tree of others.
      parameters: a tree.
      batch: leaves [B, ...].
      size: samples of a part, a divisor of B.

    Returns:
      The gradient, as the parameters, and the tree of means.
    """
    slope = jax.grad(objective, has_aux=True)
    parts = jax.tree.leaves(batch)[0].shape[0] // size
    if parts == 1:
        return slope(parameters, batch)

    def add(total, part):
        return jax.tree.map(jnp.add, total, slope(parameters, part)), None

    batch = jax.tree.map(lambda x: x.reshape(parts, size, *x.shape[1:]), batch)
    none = jax.eval_shape(slope, parameters, jax.tree.map(lambda x: x[0], batch))
    none = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), none)
    total, _ = jax.lax.scan(add, none, batch)
    return jax.tree.map(lambda x: x / parts, total)
