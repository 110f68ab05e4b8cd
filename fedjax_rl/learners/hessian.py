"""The product of the Hessian of the discounted return with a direction."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fedjax_rl.learners.advantages import AdvantageRule
from fedjax_rl.learners.score_gradient import estimate, log_likelihood
from fedjax_rl.learners.stochastic_policies import Policy
from fedjax_rl.learners.trajectories import Trajectories


def hessian_vector(
    policy: Policy,
    parameters,
    direction,
    trajectories: Trajectories,
    discount,
    rule: AdvantageRule,
    entropy=0.0,
) -> jax.Array:
    r"""The product of the Hessian of the discounted return with a direction, estimated.

    The derivative along the direction v of the weighted gradient, at the parameters that made the
    episodes, where the weights are 1:

        d/dx 1/N \sum_n w_n(theta + x v) g_n(theta + x v)
            = 1/N \sum_n <grad log p_n, v> g_n + grad g_n v

    Without a baseline its mean is the product with the Hessian. With parameters theta =
    a theta' + (1 - a) theta'', a uniform in [0, 1], and v = theta' - theta'', it is the difference
    of the gradients at theta' and theta''. The baseline is that of `estimate`; with an entropy
    bonus it moves with theta, too. A baseline that the episode has no part in would leave the
    mean as it is; of these all but "none" include it, which is a bias of order 1/N, as there.

    Shen et al. (2019); one forward derivative of one backward pass.

    Args:
      policy: that has been followed.
      parameters: [q], theta, which made the episodes.
      direction: [q], v.
      trajectories: N episodes of T steps, of one agent.
      discount: scalar.
      rule: as of `estimate`.
      entropy: as of `estimate`; its bonus is differentiated, too.

    Returns:
      [q], of the dtype of the parameters.
    """
    direction = direction.astype(parameters.dtype)

    def logarithm(parameters):
        return jnp.sum(log_likelihood(policy, parameters, trajectories), axis=1)

    def weighted(parameters, weight):
        return estimate(policy, parameters, trajectories, discount, rule, entropy, weight)

    # The weights are 1 and change as their logarithms do.
    change = jax.jvp(logarithm, (parameters,), (direction,))[1]
    here = (parameters, jnp.ones_like(change))
    return jax.jvp(weighted, here, (direction, change))[1]
