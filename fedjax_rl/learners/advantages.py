"""Returns, baselines and advantages of the actions of whole episodes."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fedjax_rl import lapack, rounding
from fedjax_rl.learners.trajectories import Trajectories
from fedjax_rl.names import check_known

ESTIMATORS = ("gpomdp", "reinforce")


def returns_to_go(reward, discount) -> jax.Array:
    r"""Discounted return from every step on, `G_t = \sum_{k >= t} discount^{k-t} r_{k+1}`.

    Args:
      reward: [..., T], that of the action in t at place t.
      discount: scalar.

    Returns:
      [..., T].
    """
    return jnp.moveaxis(_backwards(reward, discount, lambda now: now)[1], 0, -1)


def returns_of(reward, discount) -> jax.Array:
    """Discounted return of whole episodes: the first of `returns_to_go`, and no other is kept.

    Args:
      reward: [..., T].
      discount: scalar.

    Returns:
      [...].
    """
    return _backwards(reward, discount, lambda now: None)[0]


def _backwards(reward, discount, kept: Callable):
    def back(following, reward):
        now = reward + jnp.asarray(discount, reward.dtype) * following
        return now, kept(now)

    reward = jnp.moveaxis(reward, -1, 0)
    return jax.lax.scan(back, jnp.zeros_like(reward[0]), reward, reverse=True)


# Baselines ----------------------------------------------------------------------------------------


def _mean_where(values, mask, axis):
    count = jnp.maximum(jnp.sum(mask, axis=axis, keepdims=True), 1).astype(values.dtype)
    values = jnp.where(mask, values, jnp.zeros_like(values))
    return jnp.sum(values, axis=axis, keepdims=True) / count


def _no_baseline(trajectories, returns, num_states):
    return jnp.zeros_like(returns)


def _state_mean(trajectories, returns, num_states):
    """Of every state, over all its visits; the present one is among them."""
    state, mask = trajectories.observation, trajectories.mask
    there = mask.astype(returns.dtype)
    nothing = jnp.zeros(num_states, returns.dtype)
    total = nothing.at[state].add(there * returns)
    visits = nothing.at[state].add(there)
    mean = (total / jnp.maximum(visits, 1))[state]
    least = (
        jnp.full(num_states, jnp.inf, returns.dtype)
        .at[state]
        .min(jnp.where(mask, returns, jnp.inf))
    )
    most = (
        jnp.full(num_states, -jnp.inf, returns.dtype)
        .at[state]
        .max(jnp.where(mask, returns, -jnp.inf))
    )
    return jnp.where(rounding.alike(least, most)[state], returns, mean)


def _batch_mean(trajectories, returns, num_states):
    """Of every step, over the episodes that have got there."""
    same = rounding.alike_where(returns, trajectories.mask, 0)
    return jnp.where(same, returns, _mean_where(returns, trajectories.mask, 0))


# Of features of variance 1. Duan et al. have 1e-5 of the features as they are, in float64.
_RIDGE = 1e-5


def _linear(trajectories, returns, num_states):
    """Least squares on the observation and the time; see `AdvantageRule`.

    The features are centred, which is the constant feature, and scaled, so that the ridge means
    the same for all of them. What float32 cannot solve leaves the mean.
    """
    mask, dtype = trajectories.mask.reshape(-1, 1), returns.dtype
    there = mask.astype(dtype)
    count = jnp.maximum(jnp.sum(there), 1)
    # Coarser products, as an accelerator has them, are further from the truth than the ridge.
    product = functools.partial(jnp.matmul, precision="highest")

    def centred(x):
        mean = _mean_where(x, mask, 0)
        return mean, (x - mean) * there

    mean, features = centred(_features(trajectories, num_states, dtype))
    scale = jnp.sqrt(jnp.sum(features**2, axis=0, keepdims=True) / count)
    varies = scale > rounding.share(dtype) * jnp.abs(mean)
    features = jnp.where(varies, features / jnp.where(varies, scale, jnp.ones_like(scale)), 0)
    mean, targets = centred(returns.reshape(-1, 1))
    moments = product(features.T, features) / count
    moments = moments + _RIDGE * jnp.eye(len(moments), dtype=dtype)
    slopes = product(features.T, targets) / count
    slopes = lapack.solve_positive(moments, slopes)
    slopes = jnp.where(jnp.all(jnp.isfinite(slopes)), slopes, jnp.zeros_like(slopes))
    fit = (mean + product(features, slopes)).reshape(returns.shape)
    return jnp.where(rounding.alike_where(returns, trajectories.mask), returns, fit)


def _features(trajectories, num_states, dtype):
    """Of every step, [N T, d]."""
    observation, shape = trajectories.observation, trajectories.mask.shape
    time = jnp.arange(shape[1], dtype=dtype) / 100
    parts = [jnp.broadcast_to(jnp.stack([time, time**2, time**3], -1), (*shape, 3))]
    if jnp.issubdtype(observation.dtype, jnp.floating):
        seen = jnp.clip(observation.reshape(*shape, -1).astype(dtype), -10, 10)
        parts += [seen, seen**2]
    elif num_states is not None:
        parts.append(jax.nn.one_hot(observation, num_states, dtype=dtype))
    return jnp.concatenate(parts, axis=-1).reshape(shape[0] * shape[1], -1)


# `(trajectories, returns [N, T], num_states) -> [N, T]`. Where the returns that a mean is of are
# alike but for rounding it is each of them, so that nothing is left to be made a step of.
BASELINES: dict[str, Callable] = {
    "none": _no_baseline,
    "state_mean": _state_mean,
    "batch_mean": _batch_mean,
    "linear": _linear,
}
# Values that have been learned from earlier episodes, see `learners.critic`.
CRITIC = "critic"


def _generalised(trajectories, reward, discount, gae_lambda, decisions):
    r"""Generalised advantage estimation, arXiv 1506.02438, equation 16; nothing follows the end.

    delta_t = w_t (r_{t+1} + discount V(s_{t+1}) - V(s_t))
    A_t     = \sum_{k >= t} (discount lambda)^{k-t} delta_k
    """
    if trajectories.value is None:
        raise ValueError("baseline is critic without values of the states; allowed: with values")
    value = jnp.where(trajectories.mask, trajectories.value, jnp.zeros_like(trajectories.value))
    after = jnp.concatenate([value[:, 1:], jnp.zeros_like(value[:, :1])], axis=1)
    delta = reward + jnp.asarray(discount, reward.dtype) * after - value
    if decisions is not None:
        delta = decisions * delta
    return returns_to_go(delta, discount * gae_lambda)


# Advantages --------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class AdvantageRule:
    """How advantages are made of rewards; hashable, one for all places that need the same.

    Attributes:
      estimator: of `ESTIMATORS`.
      baseline: of `BASELINES`, all of the agent's own N episodes, the present one included:
        "none"; "state_mean" (of each state, where observations are states); "batch_mean" (of each
        step, over the episodes that have got there); "linear" (least squares on the observation
        clipped to [-10, 10], its square, t / 100, its square and cube and 1, with a small ridge:
        Duan et al., *Benchmarking Deep Reinforcement Learning for Continuous Control*, arXiv
        1604.06778; states are one-hot where S is given and are left out otherwise). Or "critic",
        the values that come with the episodes, of gpomdp.
      discount_weight: whether gpomdp has its factor discount^t. Without it, and without a
        baseline, this is the update that is often printed as REINFORCE.
      num_states: S, where observations are states.
      normalize: whether the advantages are standardised over the steps of the batch, before the
        factor discount^t: mean 0, deviation 1, or less where they hardly differ.
      gae_lambda: lambda of "critic", in [0, 1], may be traced. With 1 an advantage is G_t - V(s_t),
        unbiased whatever V is; below, what V knows of the future stands for what was seen of it.

    Raises:
      ValueError: an unknown word, "state_mean" without S, or "critic" of "reinforce".
    """

    estimator: str = "gpomdp"
    baseline: str = "none"
    discount_weight: bool = True
    num_states: int | None = None
    normalize: bool = False
    gae_lambda: Any = 1.0

    def __post_init__(self) -> None:
        """Checks the words."""
        check_known(self.estimator, ESTIMATORS, "estimator")
        check_known(self.baseline, (*BASELINES, CRITIC), "baseline")
        if self.baseline == CRITIC and self.estimator != "gpomdp":
            raise ValueError(f"estimator is {self.estimator} with baseline critic; allowed: gpomdp")
        if self.baseline == "state_mean" and self.num_states is None:
            raise ValueError(
                "baseline is state_mean without num_states; allowed: none, batch_mean or linear "
                "where observations are no states"
            )


def _standardised(advantage, returns, mask):
    apart = advantage - _mean_where(advantage, mask, None)
    least = rounding.share(advantage.dtype) ** 2 * _mean_where(returns**2, mask, None)
    variance = _mean_where(apart**2, mask, None) + least + jnp.finfo(advantage.dtype).tiny
    return apart / jnp.sqrt(variance)


def advantages(trajectories: Trajectories, discount, *, decisions=None, **choices) -> jax.Array:
    r"""The advantages of all actions: the weights c_t of their scores, [N, T].

        gpomdp       c_t = discount^t (G_t - b_t),   G_t the return from t on
        reinforce    c_t = G_0 - b_t

    Without a baseline both have the gradient of the discounted return as their mean. The
    baselines shrink it by a term of order 1/N, because the present episode is part of them. A
    critic's values, fitted to earlier episodes, do not; G_t - b_t is then `_generalised`.

    With weights of decisions w_t, `G_t = \sum_{k >= t} discount^{k-t} w_k r_{k+1}` and the baseline
    counts w_t times; with a critic it is delta_k that counts w_k times.

    Args:
      trajectories: of one agent.
      discount: scalar.
      decisions: [N, T], w_t of gpomdp; 1 by default.
      **choices: the attributes of `AdvantageRule`.

    Returns:
      Of the dtype of the rewards; zero in the padding.

    Raises:
      ValueError: as `AdvantageRule`; weights of decisions with "reinforce", where an action is
        told of rewards weighted by less than its own decision, or with `normalize`, whose mean
        would count w_t times, too.
    """
    rule = AdvantageRule(**choices)
    if decisions is not None and rule.estimator != "gpomdp":
        raise ValueError(
            f"estimator is {rule.estimator} with weights of decisions; allowed: gpomdp"
        )
    if decisions is not None and rule.normalize:
        raise ValueError("normalize is True with weights of decisions; allowed: False")
    reward = trajectories.reward
    returns = returns_to_go(reward, discount)
    if rule.estimator == "reinforce":
        returns = jnp.broadcast_to(returns[:, :1], returns.shape)
    if rule.baseline == CRITIC:
        advantage = _generalised(trajectories, reward, discount, rule.gae_lambda, decisions)
    else:
        baseline = BASELINES[rule.baseline](trajectories, returns, rule.num_states)
        if decisions is not None:
            returns, baseline = returns_to_go(decisions * reward, discount), decisions * baseline
        advantage = returns - baseline
    if rule.normalize:
        advantage = _standardised(advantage, returns, trajectories.mask)
    if rule.estimator == "gpomdp" and rule.discount_weight:
        # G_t is discounted from t on; as of the first step it counts discount^t.
        exponent = jnp.arange(returns.shape[1], dtype=returns.dtype)
        advantage = advantage * (jnp.asarray(discount, returns.dtype) ** exponent)[None]
    return jnp.where(trajectories.mask, advantage, jnp.zeros_like(advantage))
