"""Policy gradients on the policy: scores weighted by advantages."""

from __future__ import annotations

import numbers

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl.learners.advantages import AdvantageRule, advantages
from fedjax_rl.learners.stochastic_policies import Policy
from fedjax_rl.learners.trajectories import Trajectories


def log_likelihood(policy: Policy, parameters, trajectories: Trajectories) -> jax.Array:
    """Logarithm of the probability of every action that was taken, [N, T]; 0 in the padding.

    What depends on the policy in the likelihood of an episode is its sum over the steps.

    Args:
      policy: that has been followed, or another of the same actions.
      parameters: [q].
      trajectories: N episodes of T steps, of one agent.
    """
    observation, action, mask = trajectories.observation, trajectories.action, trajectories.mask
    logs = policy.log_probs(parameters, observation, action)
    # Selected, not multiplied: padding may have a logarithm of -inf, and 0 times that is nan.
    return jnp.where(mask, logs, jnp.zeros_like(logs))


def gradient(policy: Policy, parameters, trajectories: Trajectories, advantage) -> jax.Array:
    """The estimate of the gradient, [q]: mean over the episodes.

    Args:
      policy: that has been followed, or another of the same actions.
      parameters: [q], where the scores are taken.
      trajectories: of one agent.
      advantage: [N, T], such as `advantages`; 0 in the padding.
    """
    steps = trajectories.observation, trajectories.action, advantage
    # Per episode, never per step: a mean over steps is no gradient of the return where episodes
    # differ in length, and no derivative of a likelihood.
    return policy.score(parameters, *steps) / advantage.shape[0]


def per_episode(policy: Policy, parameters, trajectories: Trajectories, advantage) -> jax.Array:
    """The summands of the estimate, one per episode, [N, q]; as in `gradient`, their mean.

    Args:
      policy: as of `gradient`.
      parameters: [q].
      trajectories: N episodes of one agent.
      advantage: [N, T].
    """
    steps = trajectories.observation, trajectories.action, advantage
    one = lambda *steps: policy.score(parameters, *(x[None] for x in steps))
    return jax.vmap(one)(*steps)


def variance_of_mean(gradients) -> jax.Array:
    """Estimated variance of the mean of N gradients [N, q], summed over coordinates; a scalar.

    The sample variance over N; 0 for N = 1, where there is no estimate.
    """
    count = gradients.shape[0]
    apart = gradients - jnp.mean(gradients, axis=0, keepdims=True)
    return jnp.sum(apart**2) / (max(count - 1, 1) * count)


def _is_zero(number) -> bool:
    """Whether a number is known to be zero before anything is traced."""
    return isinstance(number, numbers.Number | np.ndarray) and not np.any(number)


def with_entropy(policy, parameters, trajectories, entropy) -> Trajectories:
    """The same episodes with the bonus in their rewards, which get the dtype of the parameters.

    Args:
      policy: whose entropy counts.
      parameters: [q].
      trajectories: of one agent.
      entropy: tau, scalar; a plain 0 costs nothing.
    """
    reward = trajectories.reward.astype(parameters.dtype)
    if not _is_zero(entropy):
        logs = log_likelihood(policy, parameters, trajectories)
        # No stop_gradient: `score` holds advantages constant by itself, and Hessian-vector
        # products are biased unless the bonus moves with theta.
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
    episodes = with_entropy(policy, parameters, trajectories, entropy)
    advantage = advantages(episodes, discount, **vars(rule))
    if weight is not None:
        advantage = advantage * weight.astype(advantage.dtype)[:, None]
    return gradient(policy, parameters, episodes, advantage)
