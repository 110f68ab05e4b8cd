r"""Proximal policy optimisation of one agent, equation by equation.

* Schulman, Wolski, Dhariwal, Radford and Klimov, *Proximal Policy Optimization Algorithms*, arXiv
  1707.06347: the loss.
* Dhariwal et al., *OpenAI Baselines* (2017): the clipped value loss, which the paper does not have.

Axes: `T` steps of a rollout, `E` environments of the agent, `B` samples of a minibatch. Advantages
are made in `learners.gae`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fedjax_rl import rounding
from fedjax_rl.learners import microbatches
from fedjax_rl.learners.observations import Normalizer, normalizing
from fedjax_rl.learners.optimizers import Moments, adam, bounded

NORMALISATIONS = ("rollout", "minibatch", "none")
SHUFFLES = ("samples", "steps")
SCHEDULES = ("constant", "cosine")


# Advantages ---------------------------------------------------------------------------------------


def normalized(x, size=0.0, epsilon: float = 1e-8) -> jax.Array:
    """Of mean 0 and standard deviation 1 over all axes; all 0 where x is constant but for rounding.

    Args:
      x: any shape.
      size: of the terms that x is the difference of, an array or a scalar: differences that are
        small beside it are rounding, see `fedjax_rl.rounding`.
      epsilon: added to the deviation.
    """
    same = rounding.alike(jnp.min(x), jnp.max(x), jnp.max(jnp.abs(size)))
    scaled = (x - jnp.mean(x)) / (jnp.std(x) + epsilon)
    return jnp.where(same, jnp.zeros_like(x), scaled)


def with_normalized_advantage(batch: Batch) -> Batch:
    """The batch with its advantages `normalized`, beside the values that they are made of."""
    size = jnp.maximum(jnp.max(jnp.abs(batch.value)), jnp.max(jnp.abs(batch.target)))
    return batch._replace(advantage=normalized(batch.advantage, size))


# Losses -------------------------------------------------------------------------------------------


def policy_loss(log_ratio, advantage, clip) -> jax.Array:
    """The clipped surrogate, arXiv 1707.06347, equation 7, with its sign turned; elementwise.

    Args:
      log_ratio: log pi(a | s) less that at the time of the rollout.
      advantage: of the action.
      clip: epsilon.
    """
    # Where the bound takes over in any case, the ratio must not overflow: 0 times it is nan.
    log_ratio = jnp.where(advantage >= 0, jnp.minimum(log_ratio, 80.0), log_ratio)
    ratio = jnp.exp(log_ratio)
    bounded = jnp.clip(ratio, 1 - clip, 1 + clip)
    return -jnp.minimum(ratio * advantage, bounded * advantage)


def value_loss(value, old_value, target, clip) -> jax.Array:
    """Half the squared error, the worse of that of a value kept near its old one; elementwise.

    Args:
      value: v(s).
      old_value: v(s) at the time of the rollout.
      target: what it should be.
      clip: farthest from the old value, infinite for no bound.
    """
    near = old_value + jnp.clip(value - old_value, -clip, clip)
    return jnp.maximum((value - target) ** 2, (near - target) ** 2) / 2


def approximate_kl(log_ratio) -> jax.Array:
    """Unbiased and never negative estimate of KL(old | new), `ratio - 1 - log ratio`; elementwise.

    Schulman, *Approximating KL Divergence* (2020), the third estimator.
    """
    # In the first pass ratios are near 1, where exp and a subtraction leave no digits.
    return jnp.expm1(log_ratio) - log_ratio


def is_clipped(log_ratio, clip) -> jax.Array:
    """Whether the ratio is farther than `clip` from 1, bool; elementwise.

    Args:
      log_ratio: log pi(a | s) less that at the time of the rollout.
      clip: epsilon.
    """
    return jnp.abs(jnp.expm1(log_ratio)) > clip


class Batch(NamedTuple):
    """Steps to learn from; leaves [T, E, ...], or [B, ...].

    Attributes:
      observation: before the step, as the environment gives it.
      action: as drawn.
      log_prob: of the action at the time, float32.
      value: of the observation at the time, float32.
      advantage: float32.
      target: of the value, float32.
    """

    observation: jax.Array
    action: jax.Array
    log_prob: jax.Array
    value: jax.Array
    advantage: jax.Array
    target: jax.Array


class Diagnostics(NamedTuple):
    """Means over the samples of a minibatch, or of a pass; float32 scalars.

    Attributes:
      policy_loss, value_loss: as the functions of that name.
      entropy: of the policy, in nats.
      kl: estimate of KL(old | new).
      clip_fraction: samples whose ratio is out of bounds.
      gradient_norm: of the gradient before any clipping.
    """

    policy_loss: Any
    value_loss: Any
    entropy: Any
    kl: Any
    clip_fraction: Any
    gradient_norm: Any


def no_diagnostics() -> Diagnostics:
    """Before the first pass."""
    return Diagnostics(*(jnp.zeros((), jnp.float32) for _ in Diagnostics._fields))


def loss(policy, parameters, batch: Batch, weights: dict) -> tuple[jax.Array, Diagnostics]:
    """The loss of a minibatch, arXiv 1707.06347, equation 9 with its sign turned.

    Args:
      policy: a `learners.actor_critic.ActorCritic`.
      parameters: as the policy takes them.
      batch: leaves [B, ...], its advantages normalised if they are to be.
      weights: float scalars "policy_clip", "value_clip", "value_coefficient" and
        "entropy_coefficient".

    Returns:
      The loss, and what it consists of.
    """
    log_prob, entropy, value = policy.judged(parameters, batch.observation, batch.action)
    log_ratio = log_prob - batch.log_prob
    actor = jnp.mean(policy_loss(log_ratio, batch.advantage, weights["policy_clip"]))
    critic = jnp.mean(value_loss(value, batch.value, batch.target, weights["value_clip"]))
    clipped = is_clipped(log_ratio, weights["policy_clip"]).astype(jnp.float32)
    told = Diagnostics(
        actor,
        critic,
        entropy,
        jnp.mean(approximate_kl(log_ratio)),
        jnp.mean(clipped),
        jnp.zeros((), jnp.float32),
    )
    total = actor + weights["value_coefficient"] * critic - weights["entropy_coefficient"] * entropy
    return total, told


# Passes over a rollout ----------------------------------------------------------------------------


def order(key, shape: tuple[int, int], minibatches: int, shuffle: str) -> jax.Array:
    """Which steps make up each minibatch of a pass, without replacement.

    Args:
      key: typed key, consumed.
      shape: (T, E).
      minibatches: M.
      shuffle: "samples" (any, to be read from [T E]) or "steps" (all environments at a step; to
        be read from [T]).

    Returns:
      int32 [M, T E / M] or [M, T / M].
    """
    steps, envs = shape
    count = steps * envs if shuffle == "samples" else steps
    # A sample's place in its own lower bits: words that differ, sorted alone, which takes a CPU a
    # fifth of the time of an order beside them. Where the random bits above are equal, of 32,768
    # samples one in eight pairs of neighbours, they keep their order, next to each other.
    low = jnp.uint32((1 << max(count - 1, 1).bit_length()) - 1)
    words = jax.random.bits(key, (count,), jnp.uint32) & ~low
    words = jnp.sort(words | jnp.arange(count, dtype=jnp.uint32))
    return (words & low).astype(jnp.int32).reshape(minibatches, -1)


def minibatch(batch: Batch, places, shuffle: str) -> Batch:
    """The samples of a minibatch, leaves [B, ...]; nothing else of the rollout is copied.

    Args:
      batch: leaves [T, E, ...].
      places: a line of `order`.
      shuffle: as of `order`.
    """

    def take(x):
        if shuffle == "samples":
            return x.reshape(-1, *x.shape[2:])[places]
        return x[places].reshape(-1, *x.shape[2:])

    return jax.tree.map(take, batch)


def improve(
    policy,
    parameters,
    moments: Moments,
    batch: Batch,
    places,
    weights: dict,
    settings,
    normalizer: Normalizer | None = None,
):
    """Updates on some minibatches, one after the other.

    Args:
      policy: a `learners.actor_critic.ActorCritic`.
      parameters: [q].
      moments: of Adam.
      batch: leaves [T, E, ...].
      places: int32 [M, ...], lines of `order`.
      weights: as of `loss`, and float scalars "rate", "gradient_clip" and "adam_epsilon".
      settings: has the words `shuffle` and `normalize` as attributes.
      normalizer: of the network's inputs, that of the rollout; None for inputs as they are.

    Returns:
      Parameters, moments, and `Diagnostics` that are means over the minibatches.
    """

    def update(carry, places):
        parameters, moments = carry
        part = minibatch(batch, places, settings.shuffle)
        if settings.normalize == "minibatch":
            part = with_normalized_advantage(part)

        def objective(parameters, part):
            return loss(policy, normalizing(parameters, normalizer), part, weights)

        size = microbatches.at_once(policy.shape, part.log_prob.shape[0])
        unpacked = policy.unpack(parameters)
        gradient, told = microbatches.gradient(objective, unpacked, part, size)
        gradient, norm = bounded(policy.pack(gradient), weights["gradient_clip"])
        move, moments = adam(gradient, moments, weights["adam_epsilon"])
        parameters = parameters - weights["rate"] * move
        return (parameters, moments), told._replace(gradient_norm=norm)

    (parameters, moments), told = jax.lax.scan(update, (parameters, moments), places)
    return parameters, moments, jax.tree.map(jnp.mean, told)


def rate(schedule: str, peak, time, warmup, horizon) -> jax.Array:
    """The learning rate of an epoch.

    Args:
      schedule: "constant", or "cosine": linearly from 0 to the peak, then
        `peak (1 + cos(pi (e - warmup) / (horizon - warmup))) / 2`, which rises again after the
        horizon, as in Einhorn (2023).
      peak: float scalar.
      time: uint32 scalar, e.
      warmup: float scalar, epochs.
      horizon: float scalar, epochs at which the cosine is at its lowest.
    """
    if schedule == "constant":
        return peak
    epoch = time.astype(jnp.float32)
    wave = (1 + jnp.cos(jnp.pi * (epoch - warmup) / (horizon - warmup))) / 2
    return peak * jnp.where(epoch < warmup, epoch / jnp.maximum(warmup, 1.0), wave)
