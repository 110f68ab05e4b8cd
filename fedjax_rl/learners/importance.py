"""Policy gradients off the policy: episodes count with the ratio of their likelihoods."""

from __future__ import annotations

import numbers

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl.learners.advantages import AdvantageRule, advantages
from fedjax_rl.learners.score_gradient import estimate, gradient, log_likelihood, with_entropy
from fedjax_rl.learners.stochastic_policies import Policy
from fedjax_rl.learners.trajectories import Trajectories
from fedjax_rl.names import check_known

WEIGHTS = ("trajectory", "per_decision")

# Logarithms of weights are kept within this of 0: 1000 steps of float32 would leave its range.
LARGEST_LOG_WEIGHT = 20.0


def log_weights(policy: Policy, target, behaviour, trajectories: Trajectories) -> jax.Array:
    """Logarithm of how much likelier each episode is under the target than where it was made, [N].

    The environment cancels: `sum_t log pi_target(a_t | s_t) - log pi_behaviour(a_t | s_t)`.

    Args:
      policy: of both.
      target: [q], the parameters whose gradient is wanted.
      behaviour: [q], those that were followed.
      trajectories: N episodes of T steps, of one agent.
    """
    return jnp.sum(_log_ratios(policy, target, behaviour, trajectories), axis=1)


def _log_ratios(policy, target, behaviour, trajectories):
    here, there = (log_likelihood(policy, x, trajectories) for x in (target, behaviour))
    # Step by step: over an episode both sums are large, and their difference would lose digits.
    return here - there


def _exp(logs):
    """The weights, and which of them overflow; what is no number stays so and overflows."""
    bounded = jnp.clip(logs, -LARGEST_LOG_WEIGHT, LARGEST_LOG_WEIGHT)
    return jnp.exp(bounded), ~(jnp.abs(logs) <= LARGEST_LOG_WEIGHT)


def _truncated(weights, clip, two_sided):
    if clip is None:
        if two_sided:
            raise ValueError("clip is None with two_sided; allowed: a number of at least 1")
        return weights
    least = 1 if two_sided else 0
    if isinstance(clip, numbers.Number | np.ndarray) and not np.all(clip >= least):
        raise ValueError(f"clip is {clip}; allowed: at least {least}")
    clip = jnp.asarray(clip, weights.dtype)
    # The authors' code of FedHAPG-M (arXiv 2405.19499) has both bounds, of FedSVRPG-M the upper.
    return jnp.clip(weights, 2 - clip if two_sided else None, clip)


def importance_weights(
    policy: Policy,
    target,
    behaviour,
    trajectories: Trajectories,
    clip=None,
    *,
    two_sided: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """How much likelier each episode is under the target than under the parameters that made it.

    The mean over such episodes is 1 as long as nothing is truncated. Truncation biases what is
    weighted, and so does the bound of 20 on the logarithms, which keeps the weights finite.

    Args:
      policy: of both.
      target: [q], the numerator.
      behaviour: [q], the denominator: the parameters that were followed.
      trajectories: N episodes of T steps, of one agent.
      clip: largest weight, scalar, may be traced; None or infinity leave them as they are.
      two_sided: whether the weights are truncated to [2 - clip, clip].

    Returns:
      The weights [N], and how many logarithms were beyond +-20 or not a number, int32; the latter
      give weights that are not a number either.

    Raises:
      ValueError: a clip below 0, or below 1 or None on two sides.
    """
    weights, over = _exp(log_weights(policy, target, behaviour, trajectories))
    return _truncated(weights, clip, two_sided), jnp.sum(over, dtype=jnp.int32)


def weighted_gradient(
    policy: Policy,
    target,
    behaviour,
    trajectories: Trajectories,
    discount,
    rule: AdvantageRule,
    entropy=0.0,
    *,
    kind: str = "trajectory",
    clip=None,
    two_sided: bool = False,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    r"""The gradient at the target, from episodes of other parameters.

        trajectory    1/N \sum_n w_n \sum_t c_{n,t} grad log pi(a_{n,t} | s_{n,t})
        per_decision  1/N \sum_n \sum_t discount^t r_{n,t} w_{n,0:t} \sum_{h <= t} grad log pi(...)

    w_n is the weight of the episode and w_{n,0:t} that of its steps up to t. Without truncation
    and baseline both have the gradient at the target as their mean, with and without entropy,
    whose bonus is the target's; per decision the variance is lower. Per decision, a baseline at
    step t counts w_{n,0:t} times.

    Args:
      policy: of both.
      target: [q], where the gradient is wanted.
      behaviour: [q], the parameters that were followed.
      trajectories: N episodes of T steps, of one agent.
      discount: scalar.
      rule: as of `estimate`.
      entropy: as of `estimate`.
      kind: of `WEIGHTS`.
      clip: as of `importance_weights`; per decision, of every w_{n,0:t}.
      two_sided: as of `importance_weights`.

    Returns:
      The gradient [q]; the weights of the episodes [N] before truncation, whose mean should be 1;
      and int32, in how many episodes a weight that is used overflows.

    Raises:
      ValueError: an unknown kind; per decision, the estimator "reinforce" or `normalize`; and as
        `importance_weights`.
    """
    check_known(kind, WEIGHTS, "kind of weights")
    ratios = _log_ratios(policy, target, behaviour, trajectories)
    if kind == "trajectory":
        weights, over = _exp(jnp.sum(ratios, axis=1))
        used = _truncated(weights, clip, two_sided)
        value = estimate(policy, target, trajectories, discount, rule, entropy, used)
    else:
        each, over = _exp(jnp.cumsum(ratios, axis=1))
        used = _truncated(each, clip, two_sided)
        episodes = with_entropy(policy, target, trajectories, entropy)
        advantage = advantages(episodes, discount, decisions=used, **vars(rule))
        value = gradient(policy, target, episodes, advantage)
        # In the padding the ratios are 1, and the last weight is that of the episode.
        weights, over = each[:, -1], jnp.any(over, axis=1)
    return value, weights, jnp.sum(over, dtype=jnp.int32)
