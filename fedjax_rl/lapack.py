"""Linear algebra in batches that stay in the thread that asked for them.

On a CPU, jaxlib hands a batch of more than 2e5 operations to XLA's threads and waits for them on
one of these (jaxlib 0.10, `ParallelBatchMap` of its LAPACK kernels). Where as many calls wait as
there are threads, they wait for ever: of two programs at a time on two cores, or of two layers that
are initialised side by side in one. Smaller batches are computed where they are, to the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from fedjax_rl import backend

# Below the 2e5 operations from which a batch is split.
MOST = 150_000


def in_parts(function: Callable, work: int) -> Callable:
    """A function of arrays whose batches, under `vmap`, are computed in parts of a bounded size.

    Args:
      function: of arrays, returns a pytree of arrays; not differentiated.
      work: operations of one call, or more.

    Returns:
      A function of the same arrays, with the same values.
    """
    # Only under `vmap` is it known how large a batch is.
    one = jax.custom_batching.custom_vmap(function)

    @one.def_vmap
    def _(size: int, batched, *args):
        args = [
            arg if is_batched else jnp.broadcast_to(arg, (size, *arg.shape))
            for arg, is_batched in zip(args, batched, strict=True)
        ]
        # What is batched further counts as so much work a call.
        many = min(size, max(1, MOST // work))
        part = in_parts(jax.vmap(function), work * many)
        if many == size or backend.kind() != "cpu":
            made = part(*args)
            return made, jax.tree.map(lambda x: True, made)
        parts = math.ceil(size / many)
        # The last part is filled with what is there already.
        places = jnp.minimum(jnp.arange(parts * many), size - 1)
        cut = [arg[places].reshape(parts, many, *arg.shape[1:]) for arg in args]
        # One part after the other: at the same time they would be one large batch again.
        made = jax.lax.map(lambda own: part(*own), cut)
        joined = jax.tree.map(lambda x: x.reshape(parts * many, *x.shape[2:])[:size], made)
        return joined, jax.tree.map(lambda x: True, joined)

    return one


def solve(matrix: jax.Array, vector: jax.Array) -> jax.Array:
    """Solves a linear system; differentiable.

    Args:
      matrix: float [S, S].
      vector: float [S].

    Returns:
      x [S] with matrix @ x = vector.
    """
    size = matrix.shape[-1]
    # As `jnp.linalg.solve`: one factorisation, for the derivative too.
    factor = in_parts(lambda matrix: jax.scipy.linalg.lu_factor(matrix), size**3)
    # Derivatives come from `matrix @ x` below, by the implicit function, not through the factors.
    factors = factor(jax.lax.stop_gradient(matrix))

    def solver(trans: int) -> Callable:
        def triangular(lu, pivots, b):
            return jax.scipy.linalg.lu_solve((lu, pivots), b, trans)

        return lambda _, b: in_parts(triangular, 4 * size**2)(*factors, b)

    return jax.lax.custom_linear_solve(
        lambda x: matrix @ x, vector, solve=solver(0), transpose_solve=solver(1)
    )


def solve_positive(matrix: jax.Array, vectors: jax.Array) -> jax.Array:
    """Solves linear systems of one positive definite matrix; differentiable.

    Args:
      matrix: float [S, S].
      vectors: float [S, R].

    Returns:
      x [S, R] with matrix @ x = vectors; not finite where the matrix is not positive definite.
    """

    def cholesky(matrix, vectors):
        return jax.scipy.linalg.solve(matrix, vectors, assume_a="pos")

    size = matrix.shape[-1]
    solver = in_parts(cholesky, size**3 + 4 * size * vectors.size)
    fixed = jax.lax.stop_gradient(matrix)
    return jax.lax.custom_linear_solve(
        lambda x: matrix @ x, vectors, solve=lambda _, b: solver(fixed, b), symmetric=True
    )


def orthogonal(gain: float) -> Callable:
    """`jax.nn.initializers.orthogonal` in parts: `(key, (inputs, outputs), dtype) -> weights`."""
    initializer = jax.nn.initializers.orthogonal(gain)

    def init(key, shape, dtype=None):
        make = in_parts(
            lambda key: initializer(key, shape, dtype), 4 * math.prod(shape) * min(shape)
        )
        return make(key)

    return init
