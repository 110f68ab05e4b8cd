"""The linear law of rounds on M2: a quadratic with its curvature, and noise of the same variance.

Near the optimum a round moves the model by `lambda u`, and the momentum has an error e:

    e <- (1 - beta) e + beta xi,    theta <- theta - lambda (h theta + e),

for each curvature h of the mean objective, with `var xi` as of one gradient over N H. Where
`lambda h << beta` the mean squared gradient that noise leaves is `lambda h var xi / 2`, whatever
beta; where `lambda h >> beta` it is `beta var xi / 2`, the rate of the theorem.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from scipy import linalg

from fedjax_rl.envs import objective
from fedjax_rl.studies.policy_gradients import ENTROPY, m2

LONGEST = 2000  # rounds that are summed one by one; after these the noise has settled
ASCENT = 4000  # steps to the optimum


@functools.cache
def curvature() -> tuple[np.ndarray, np.ndarray]:
    """Curvatures h of M2's mean objective where it is best, and how far zero logits are from there.

    Both [q], along the directions in which there is a curvature.
    """
    mdps = m2(1.0, 20).members(2)  # rewards are opposed in pairs: of any even number the same mean

    def loss(x):
        each = jax.vmap(lambda mdp: objective.value(mdp, x.reshape(5, 3), ENTROPY))(mdps)
        return -jnp.mean(each)

    @jax.jit
    def optimum():
        best = jax.lax.fori_loop(0, ASCENT, lambda _, x: x - jax.grad(loss)(x), jnp.zeros(15))
        return best, jax.hessian(loss)(best)

    with jax.enable_x64(True):
        best, hessian = (np.asarray(x) for x in optimum())
    values, vectors = np.linalg.eigh(hessian)
    bent = values > 1e-6  # adding a number to all logits of a state changes nothing
    return values[bent], -(vectors.T @ best)[bent]


def squared_norm(rounds: int, momentum: float, step: float, variance: float) -> float:
    """Mean squared gradient norm over R rounds from zero logits.

    Args:
      rounds: R.
      momentum: beta.
      step: lambda.
      variance: of the gradient of a round, of all its entries together.
    """
    total = 0.0
    values, starts = curvature()
    each = variance / len(values)
    for h, mean in zip(values, starts, strict=True):
        move = np.array([[1 - step * h, -step * (1 - momentum)], [0.0, 1 - momentum]])
        noise = each * momentum**2 * np.outer([-step, 1.0], [-step, 1.0])
        spread = np.diag([0.0, each])
        for _ in range(min(rounds, LONGEST)):
            total += h**2 * (mean**2 + spread[0, 0])
            spread, mean = move @ spread @ move.T + noise, mean * (1 - step * h)
        settled = linalg.solve_discrete_lyapunov(move, noise)[0, 0]
        total += max(0, rounds - LONGEST) * h**2 * settled
    return total / rounds
