"""Products of matrices whose gradients put the narrower matrix first on a CPU.

The gradient of a kernel is a product over all rows of a batch, x^T g. XLA for CPUs copies the first
of two such matrices, entry by entry, to where it can be multiplied, which takes up to ten times as
long as the product (jaxlib 0.10: 4,096 rows of 64 and of 2 take 410 microseconds, and (g^T x)^T
43). Without a barrier XLA turns the second form into the first.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fedjax_rl import backend


def multiply(x, kernel, dimensions=None, precision=None, preferred_element_type=None) -> jax.Array:
    """`x @ kernel`, [..., K] with [K, M] to [..., M]; what `flax.linen.Dense` takes as a product.

    Args:
      x: [..., K].
      kernel: [K, M].
      dimensions: as of `jax.lax.dot_general`, of this product.
      precision: likewise.
      preferred_element_type: likewise.
    """
    kinds = {"precision": precision, "preferred_element_type": preferred_element_type}
    inputs, outputs = kernel.shape
    last = (x.ndim - 1,)
    if backend.kind() != "cpu" or outputs >= inputs:
        return jax.lax.dot_general(x, kernel, ((last, (0,)), ((), ())), **kinds)
    # What a kernel that lies is multiplied by comes first in the gradient of it.
    lying = jax.lax.optimization_barrier(jnp.transpose(kernel))
    return jax.lax.dot_general(x, lying, ((last, (1,)), ((), ())), **kinds)


def over_rows(x, g) -> jax.Array:
    """`x.T @ g`, [N, K] with [N, M] to [K, M]."""
    if backend.kind() != "cpu" or g.shape[1] >= x.shape[1]:
        return x.T @ g
    return jnp.transpose(jax.lax.optimization_barrier(g.T @ x))
