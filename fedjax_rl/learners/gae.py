"""Advantages of the steps of a rollout, and the rewards that they are made of; of one agent.

* Schulman, Moritz, Levine, Jordan and Abbeel, *High-Dimensional Continuous Control Using
  Generalized Advantage Estimation*, arXiv 1506.02438.
* Pardo, Tavakoli, Levdik and Kormushev, *Time Limits in Reinforcement Learning*, arXiv 1712.00378:
  an episode that was cut off goes on in the value, one that ended does not.
* Dhariwal et al., *OpenAI Baselines* (2017): the scale of rewards, which the papers do not have.

Axes: `T` steps of a rollout, `E` environments of the agent. The state after step t is that of step
t + 1, unless the episode is over.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

ALIGNMENTS = ("correct", "late")


def discounts(terminated, truncated, discount, gae_lambda, bootstrap_timeouts: bool = True):
    """How far the future counts at the ends of episodes; elementwise.

    Args:
      terminated: bool, whether the environment ended with this step.
      truncated: bool, whether it was cut off for another reason, as a limit of time.
      discount: gamma, a scalar.
      gae_lambda: lambda, a scalar.
      bootstrap_timeouts: whether the value goes on where an episode was cut off; otherwise a
        timeout is an end like any other, as in Procgen.

    Returns:
      What the next value counts, and what the next advantage counts, like `terminated`, of the
      dtype of `discount`.
    """
    over = terminated | truncated
    ended = terminated if bootstrap_timeouts else over
    nothing = jnp.zeros((), jnp.result_type(discount))
    # After a cut the value goes on, but the next row is of another episode: no advantage of it.
    return jnp.where(ended, nothing, discount), jnp.where(over, nothing, discount * gae_lambda)


def advantages(reward, value, next_value, discount, trace) -> jax.Array:
    r"""Generalised advantage estimation, arXiv 1506.02438, equation 16.

        delta_t = r_t + discount_t v(s_{t+1}) - v(s_t)
        A_t     = delta_t + trace_t A_{t+1}

    Args:
      reward: float [T], of step t.
      value: float [T], of the state before it.
      next_value: float [T], of the state after it, the last one of its episode included.
      discount: float [T], what the next value counts: gamma, or 0 where the episode ended.
      trace: float [T], gamma lambda, or 0 where the episode ended or was cut off.

    Returns:
      Advantages float [T]; with the values added they are the targets of the value.
    """

    def back(later, now):
        delta, trace = now
        later = delta + trace * later
        return later, later

    delta = reward + discount * next_value - value
    return jax.lax.scan(back, jnp.zeros_like(delta[0]), (delta, trace), reverse=True)[1]


def late(reward, before) -> tuple[jax.Array, jax.Array]:
    """Rewards one step late: that of step t stands at step t + 1, whatever episode that is in.

    An error in the rollouts of Einhorn, *Federated Reinforcement Learning Has Linear Speedup*
    (2023), kept to reproduce them: a reward at the end of an episode is lost to that episode.

    Args:
      reward: float [T].
      before: float scalar, of the step before the first one.

    Returns:
      Late rewards [T], and the reward of the last step, which is due next.
    """
    return jnp.concatenate([before[None], reward[:-1]]), reward[-1]


def targets(
    reward,
    terminated,
    truncated,
    last_value,
    value,
    following,
    due,
    weights,
    count,
    *,
    num_steps: int,
    settings,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Advantages, targets of the value, and the reward that is due next, of one environment.

    Args:
      reward: float32 [R], R = T rows of steps, or T + S with a tail of up to S steps beyond.
      terminated: bool [R].
      truncated: bool [R].
      last_value: float32 [R], of the last observation where the episode was cut off and goes on.
      value: float32 [R], of the observation before each step.
      following: float32 scalar, value of the observation after the last step.
      due: float32 scalar, the reward of the step before the first one.
      weights: float32 scalars "discount", "gae_lambda" and "reward_scale".
      count: int32 scalar, rows that are there.
      num_steps: T.
      settings: has `bootstrap_timeouts`, `reward_alignment` and `stale_tail` (S, 0 for none) as
        attributes.

    Returns:
      Advantages [R], 0 in rows that are not there; targets [R]; the reward of step T - 1, float32.
    """
    reward = reward * weights["reward_scale"]
    # Before rewards are moved: what is due next is what this step earned.
    last = reward[num_steps - 1]
    if settings.reward_alignment == "late":
        reward, _ = late(reward, due)
    discount, trace = discounts(
        terminated,
        truncated,
        weights["discount"],
        weights["gae_lambda"],
        settings.bootstrap_timeouts,
    )
    # The value before step t + 1 is that after step t; the network sees every state once.
    after = jnp.concatenate([value[1:], following[None]])
    own = value
    if settings.stale_tail:
        place = jnp.arange(value.shape[0])
        # Agents have different numbers of rows: the bootstrap stands behind the last that is there.
        after = jnp.where(place == count - 1, following, after)
        there = place < count
        # The recursion comes through these rows first, and is to bring nothing along.
        reward, own, after, trace = (
            jnp.where(there, x, jnp.zeros_like(x)) for x in (reward, value, after, trace)
        )
        last_value = jnp.where(there, last_value, 0.0)
    # Where an episode was cut off, the next row is the start of another one.
    after = jnp.where(truncated, last_value, after)
    found = advantages(reward, own, after, discount, trace)
    return found, found + own, last


# Rewards ------------------------------------------------------------------------------------------


class RewardScale(NamedTuple):
    """What rewards have been like so far.

    Attributes:
      total: float [E], discounted sum of the rewards of the episode under way, looking back.
      mean, variance: float scalars, of these sums at all steps so far.
      count: float scalar, of them; in float32 it stays at 2^24 times the environments, from where
        on the moments forget what is older.
    """

    total: jax.Array
    mean: jax.Array
    variance: jax.Array
    count: jax.Array


def reward_scale(num_envs: int) -> RewardScale:
    """Before anything has happened: mean 0, variance 1, of next to no weight."""
    zero = jnp.zeros((), jnp.float32)
    return RewardScale(jnp.zeros(num_envs, jnp.float32), zero, zero + 1, zero + 1e-4)


def scaled_rewards(scale: RewardScale, reward, over, discount=0.99, clip=10.0):
    """Rewards divided by the running deviation of the discounted return.

    `R <- discount R + r` in every environment, and `r / sqrt(Var R + 1e-8)` clipped. The moments
    are joined as of Chan, Golub and LeVeque, *Updating Formulae and a Pairwise Algorithm for
    Computing Sample Variances* (1979).

    Args:
      scale: of the steps before.
      reward: float [E].
      over: bool [E], whether the episode is over with this step.
      discount: of the return.
      clip: largest reward.

    Returns:
      The scale with this step in it, and the rewards [E].
    """
    total = scale.total * discount + reward
    size = jnp.float32(total.shape[0])
    count = scale.count + size
    apart = jnp.mean(total) - scale.mean
    mean = scale.mean + apart * size / count
    squares = scale.variance * scale.count + jnp.var(total) * size
    variance = (squares + apart**2 * scale.count * size / count) / count
    # Not centred: a constant taken from every reward would pay for the length of an episode.
    reward = jnp.clip(reward / jnp.sqrt(variance + 1e-8), -clip, clip)
    return RewardScale(jnp.where(over, jnp.zeros_like(total), total), mean, variance, count), reward
