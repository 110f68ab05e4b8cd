r"""Advantage actor-critic of one agent: one step of descent for every rollout.

* Mnih et al., *Asynchronous Methods for Deep Reinforcement Learning*, arXiv 1602.01783, Algorithm
  S3 and section 4: gradients of policy, value and entropy from n steps, here of E environments in
  step with each other. Advantages are those of `learners.gae`; its own have lambda = 1.

Axes: `T` steps of a rollout, `E` environments of the agent.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fedjax_rl.learners import microbatches, optimizers
from fedjax_rl.learners.ppo import Batch


class Diagnostics(NamedTuple):
    """Means over the steps of a rollout; float scalars.

    Attributes:
      policy_loss: -log pi(a | s) A.
      value_loss: half the squared error of the value.
      entropy: of the policy, in nats.
      gradient_norm: before clipping.
    """

    policy_loss: Any
    value_loss: Any
    entropy: Any
    gradient_norm: Any


def no_diagnostics() -> Diagnostics:
    """Before the first rollout."""
    return Diagnostics(*(jnp.zeros((), jnp.float32) for _ in Diagnostics._fields))


def loss(policy, parameters, batch: Batch, weights: dict) -> tuple[jax.Array, Diagnostics]:
    """The loss of a rollout, arXiv 1602.01783, section 4 with its sign turned.

        mean of  -log pi(a | s) A + c_v (v(s) - R)^2 / 2 - c_e H(pi(. | s))

    Args:
      policy: a `learners.actor_critic.ActorCritic`.
      parameters: [q], or `Unpacked`.
      batch: leaves [T, E, ...]; advantages A and targets R are constants.
      weights: float scalars "loss.value_coefficient" c_v and "loss.entropy_coefficient" c_e.

    Returns:
      The loss, and what it consists of.
    """
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batch)
    log_prob, entropy, value = policy.judged(parameters, flat.observation, flat.action)
    actor = -jnp.mean(log_prob * flat.advantage)
    critic = jnp.mean((value - flat.target) ** 2) / 2
    total = actor + weights["loss.value_coefficient"] * critic
    total = total - weights["loss.entropy_coefficient"] * entropy
    return total, Diagnostics(actor, critic, entropy, jnp.zeros((), jnp.float32))


def gradient(policy, parameters, batch: Batch, weights: dict) -> tuple[jax.Array, Diagnostics]:
    """The gradient of the loss, scaled down where it is too long.

    Args:
      policy: a `learners.actor_critic.ActorCritic`.
      parameters: [q].
      batch: leaves [T, E, ...].
      weights: as of `loss`, and a float scalar "gradient_clip".

    Returns:
      The gradient [q], and `Diagnostics`.
    """
    # To the loss, samples in any order are steps of one environment.
    samples = jax.tree.map(lambda x: x.reshape(-1, 1, *x.shape[2:]), batch)
    size = microbatches.at_once(policy.shape, samples.log_prob.shape[0])

    def objective(unpacked, part):
        return loss(policy, unpacked, part, weights)

    unpacked = policy.unpack(parameters)
    found, diagnostics = microbatches.gradient(objective, unpacked, samples, size)
    found, norm = optimizers.bounded(policy.pack(found), weights["gradient_clip"])
    return found, diagnostics._replace(gradient_norm=norm)


def descended(parameters, moments, gradient, weights: dict, optimizer: str) -> tuple:
    """One step of descent.

    Args:
      parameters: [q].
      moments: of the optimiser.
      gradient: [q].
      weights: float scalars "learning_rate", "optimizer.epsilon" and "optimizer.decay".
      optimizer: of `optimizers.NAMES`.

    Returns:
      Parameters and moments.
    """
    epsilon, decay = weights["optimizer.epsilon"], weights["optimizer.decay"]
    move, moments = optimizers.direction(optimizer, gradient, moments, epsilon, decay)
    return parameters - weights["learning_rate"] * move, moments
