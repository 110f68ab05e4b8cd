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

from fedjax_rl import turns

# Below the 2e5 operations from which a batch is split.
MOST = 150_000


def in_parts(function: Callable, work: int) -> Callable:
    """`turns.in_parts` of batches that are not handed to other threads.

    Args:
      function: of arrays, returns a pytree of arrays; not differentiated.
      work: operations of one call, or more.
    """
    return turns.in_parts(function, work, MOST)


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
