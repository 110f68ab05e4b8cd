r"""Policy gradients from whole episodes: on the policy, off it, and differentiated once more.

Of N episodes of every agent, `advantages` says how much better than expected each action was, and

    g(theta) = 1/N \sum_n \sum_t c_{n,t} grad log pi_theta(a_{n,t} | s_{n,t})

is `gradient`, or `per_episode` for the N summands; `estimate` does all of that. With an entropy
bonus tau the reward of a step is r_t - tau log pi_theta(a_t | s_t): sums of scores need no other
term, but the bonus moves with theta where g is differentiated.

Episodes of other parameters count with the ratio of their likelihoods (`importance_weights`,
`weighted_gradient`). The derivative of that along a direction is the product of the Hessian with
it (`hessian_vector`).

Everything is for one agent; callers vmap. Axis letters: N episodes, T steps, q parameters. Policies
and advantages have modules of their own and are to be found here, too.

* Williams, *Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement
  Learning* (1992): REINFORCE.
* Baxter and Bartlett, *Infinite-Horizon Policy-Gradient Estimation* (2001): G(PO)MDP.
* Precup, Sutton and Singh, *Eligibility Traces for Off-Policy Policy Evaluation* (ICML 2000):
  weights of episodes and of decisions.
* Papini et al., *Stochastic Variance-Reduced Policy Gradient*, arXiv 1806.05618: weighted
  gradients as corrections.
* Shen, Ribeiro, Hassani, Qian and Mi, *Hessian Aided Policy Gradient* (ICML 2019): products with
  the Hessian in place of them.
"""

from __future__ import annotations

import numbers

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl.learners.advantages import (
    BASELINES,
    ESTIMATORS,
    AdvantageRule,
    advantages,
    returns_to_go,
)
from fedjax_rl.learners.stochastic_policies import (
    POLICIES,
    Categorical,
    Gaussian,
    Policy,
    SoftmaxTable,
    check_fits,
    policy_for,
)
from fedjax_rl.learners.trajectories import Trajectories, without_padding
from fedjax_rl.names import check_known

__all__ = [
    "BASELINES",
    "ESTIMATORS",
    "POLICIES",
    "WEIGHTS",
    "AdvantageRule",
    "Categorical",
    "Gaussian",
    "Policy",
    "SoftmaxTable",
    "Trajectories",
    "advantages",
    "check_fits",
    "estimate",
    "gradient",
    "hessian_vector",
    "importance_weights",
    "log_likelihood",
    "log_weights",
    "per_episode",
    "policy_for",
    "returns_to_go",
    "variance_of_mean",
    "weighted_gradient",
    "without_padding",
]

WEIGHTS = ("trajectory", "per_decision")

# Logarithms of weights are kept within this of 0: 1000 steps of float32 would leave its range.
LARGEST_LOG_WEIGHT = 20.0


def _flat(x) -> jax.Array:
    """All steps of all episodes in one row: [N, T, ...] -> [N T, ...]."""
    return x.reshape(-1, *x.shape[2:])


def log_likelihood(policy: Policy, parameters, trajectories: Trajectories) -> jax.Array:
    """Logarithm of the probability of every action that was taken, [N, T]; 0 in the padding.

    What depends on the policy in the likelihood of an episode is its sum over the steps.
    """
    observation, action, mask = trajectories.observation, trajectories.action, trajectories.mask
    logs = policy.log_probs(parameters, _flat(observation), _flat(action)).reshape(mask.shape)
    return jnp.where(mask, logs, jnp.zeros_like(logs))


def gradient(policy: Policy, parameters, trajectories: Trajectories, advantage) -> jax.Array:
    """The estimate of the gradient, [q]: mean over the episodes.

    Args:
      policy: that has been followed, or another of the same actions.
      parameters: [q], where the scores are taken.
      trajectories: of one agent.
      advantage: [N, T], such as `advantages`; 0 in the padding.
    """
    flat = map(_flat, (trajectories.observation, trajectories.action, advantage))
    return policy.score(parameters, *flat) / advantage.shape[0]


def per_episode(policy: Policy, parameters, trajectories: Trajectories, advantage) -> jax.Array:
    """The summands of the estimate, one per episode, [N, q]; as in `gradient`, their mean."""
    score = jax.vmap(policy.score, in_axes=(None, 0, 0, 0))
    return score(parameters, trajectories.observation, trajectories.action, advantage)


def variance_of_mean(gradients) -> jax.Array:
    """Estimated variance of the mean of N gradients [N, q], summed over coordinates; a scalar.

    The sample variance over N; 0 for N = 1, where there is no estimate.
    """
    count = gradients.shape[0]
    apart = gradients - jnp.mean(gradients, axis=0, keepdims=True)
    return jnp.sum(apart**2) / (max(count - 1, 1) * count)


# On the policy ------------------------------------------------------------------------------------


def _is_zero(number) -> bool:
    """Whether a number is known to be zero before anything is traced."""
    return isinstance(number, numbers.Number | np.ndarray) and not np.any(number)


def _with_entropy(policy, parameters, trajectories, entropy) -> Trajectories:
    """The same episodes with the bonus in their rewards, which get the dtype of the parameters."""
    reward = trajectories.reward.astype(parameters.dtype)
    if not _is_zero(entropy):
        logs = log_likelihood(policy, parameters, trajectories)
        reward = reward - jnp.asarray(entropy, reward.dtype) * logs
    return trajectories._replace(reward=reward)


def estimate(
    policy: Policy,
    parameters,
    trajectories: Trajectories,
    discount,
    rule: AdvantageRule,
    entropy=0.0,
    weight=None,
) -> jax.Array:
    r"""The gradient of the discounted return that episodes show.

        1/N \sum_n w_n \sum_t c_{n,t} grad log pi_theta(a_{n,t} | s_{n,t})

    Without weights and a baseline its mean over episodes of `parameters` is the gradient of the
    expected sum of the first T discounted rewards. It costs one backward pass.

    Args:
      policy: that has been followed.
      parameters: [q], theta; the estimate can be differentiated in it.
      trajectories: N episodes of T steps, of one agent.
      discount: scalar.
      rule: what makes c of the rewards.
      entropy: tau, scalar; a Python or NumPy 0 costs nothing.
      weight: [N], w; 1 by default. The baseline is of the episodes as they are.

    Returns:
      [q], of the dtype of the parameters.

    Raises:
      ValueError: "state_mean" without S, when the rule is made.
    """
    episodes = _with_entropy(policy, parameters, trajectories, entropy)
    advantage = advantages(episodes, discount, **vars(rule))
    if weight is not None:
        advantage = advantage * weight.astype(advantage.dtype)[:, None]
    return gradient(policy, parameters, episodes, advantage)


# Off the policy -----------------------------------------------------------------------------------


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
        episodes = _with_entropy(policy, target, trajectories, entropy)
        advantage = advantages(episodes, discount, decisions=used, **vars(rule))
        value = gradient(policy, target, episodes, advantage)
        # In the padding the ratios are 1, and the last weight is that of the episode.
        weights, over = each[:, -1], jnp.any(over, axis=1)
    return value, weights, jnp.sum(over, dtype=jnp.int32)


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
