r"""Deep Q-learning of one agent, equation by equation.

* Mnih et al., *Human-Level Control Through Deep Reinforcement Learning* (Nature, 2015): the loss,
  the target network, exploration that shrinks linearly.
* van Hasselt, Guez and Silver, *Deep Reinforcement Learning with Double Q-Learning*, arXiv
  1509.06461: the target, equation 4.
* Lillicrap et al., *Continuous Control with Deep Reinforcement Learning*, arXiv 1509.02971: a
  target network that follows slowly.

Axes: `B` transitions of a batch, `M` updates, `U` actions, `q` parameters.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fedjax_rl.envs.task import Discrete
from fedjax_rl.learners import policies
from fedjax_rl.learners.optimizers import Moments, adam, bounded
from fedjax_rl.learners.replay import Transition
from fedjax_rl.learners.sight import check_vectors, picture_of, pixels
from fedjax_rl.networks import MLP, Flat, OneHead
from fedjax_rl.networks.heads import PICTURES

LOSSES = ("huber", "squared")


@dataclasses.dataclass(frozen=True)
class QNetwork:
    """Values of the actions of a task, whose greedy policy can be evaluated.

    Attributes:
      network: one output per action.
      encode: from an observation to what the network sees.
      initializer: of the network.
    """

    network: MLP
    encode: Callable
    initializer: str = "uniform"

    def init(self, key) -> jax.Array:
        """First parameters, float [q]; the key is consumed."""
        return self.network.init(key, self.initializer)

    def apply(self, parameters, observations) -> tuple[jax.Array, jax.Array]:
        """Values of all actions [B, U], and of the best one [B], from observations [B, ...]."""
        values = jax.vmap(lambda x: self.network.apply(parameters, self.encode(x)))(observations)
        return values, jnp.max(values, axis=-1)

    def sample(self, parameters, values, word) -> jax.Array:
        """One of the best actions, int32, from values [U] and a uint32 word."""
        del parameters
        return policies.epsilon_greedy(values, jnp.zeros((), values.dtype), False, word)

    def performed(self, action) -> jax.Array:
        """What the environment is told to do."""
        return action


@dataclasses.dataclass(frozen=True)
class PictureQNetwork(QNetwork):
    """The same of a task that shows pictures.

    Attributes:
      network: one output per action.
      encode: from a picture to what the network sees, float32 of its shape.
    """

    network: Flat
    encode: Callable = pixels

    def init(self, key) -> jax.Array:
        """First parameters, float32 [q]; the key is consumed."""
        return self.network.init(key)

    def apply(self, parameters, observations) -> tuple[jax.Array, jax.Array]:
        """As of `QNetwork`, for all pictures at once."""
        values = self.network.apply(parameters, jax.vmap(self.encode)(observations))
        return values, jnp.max(values, axis=-1)


def q_network_for(task, kind: str, *, hidden, activation: str, initializer: str) -> QNetwork:
    """The network that fits a task.

    Args:
      task: an `envs.Task`.
      kind: of `networks.heads.NETWORKS`; all but "mlp" see pictures.
      hidden: units in each hidden layer, of "mlp".
      activation: of "mlp".
      initializer: of "mlp".

    Raises:
      ValueError: continuous actions, or observations that the network cannot see.
    """
    if not isinstance(task.action, Discrete):
        raise ValueError(
            f"task is {task.name}, whose actions are continuous ({task.action}); allowed: a task "
            "with discrete actions, of which each has a value"
        )
    if kind != "mlp":
        module = OneHead(PICTURES[kind], task.action.num)
        return PictureQNetwork(Flat(module, picture_of(task, kind)))
    check_vectors("network.kind", kind, task)
    units = tuple(int(number) for number in hidden)
    network = MLP((task.observation_size, *units, task.action.num), activation)
    return QNetwork(network, task.encode, initializer)


def exploration(time, first, last, steps) -> jax.Array:
    """Epsilon at a step: linearly from the first to the last in so many steps, then the last.

    Args:
      time: uint32 scalar, steps before it.
      first: float scalar.
      last: float scalar.
      steps: float scalar, above 0.
    """
    part = jnp.minimum(time.astype(jnp.result_type(first)) / steps, 1.0)
    return first + part * (last - first)


def target(reward, terminated, online, lagged, discount, double: bool) -> jax.Array:
    """What an action should be worth; arXiv 1509.06461, equation 4 if double, else equation 2.

        r + gamma (1 - terminated) Q'(s', argmax_u Q(s', u)),   with Q' in place of Q if not double

    Args:
      reward: float scalar.
      terminated: bool scalar; an episode that was cut off goes on in the value.
      online: [U], values after the step by the parameters that are learned.
      lagged: [U], by those of the target network.
      discount: gamma.
      double: whether the parameters that are learned choose the action.
    """
    chosen = lagged[jnp.argmax(online)] if double else jnp.max(lagged)
    return reward + jnp.where(terminated, jnp.zeros_like(chosen), discount * chosen)


def error_loss(error, kind: str) -> jax.Array:
    """Half the square of an error; "huber" grows linearly beyond 1, as clipping the error does."""
    square, size = error**2 / 2, jnp.abs(error)
    return square if kind == "squared" else jnp.where(size <= 1, square, size - 0.5)


class Diagnostics(NamedTuple):
    """Means over the updates of a step; float scalars.

    Attributes:
      loss: of a batch.
      mean_q: value of the actions of a batch.
      gradient_norm: before clipping.
    """

    loss: Any
    mean_q: Any
    gradient_norm: Any


def loss(q: QNetwork, parameters, lagged, batch: Transition, discount, settings) -> tuple:
    """Mean loss of the errors of a batch, and the mean value of its actions.

    Args:
      q: the network.
      parameters: [q], that are learned.
      lagged: [q], of the target network.
      batch: leaves [B, ...].
      discount: gamma, a float scalar.
      settings: has `double` and `loss` (of `LOSSES`) as attributes.
    """
    values, _ = q.apply(parameters, batch.observation)
    # A product rather than an index, whose backward pass would be a scatter.
    chosen = jnp.sum(values * jax.nn.one_hot(batch.action, values.shape[1], dtype=values.dtype), 1)
    later, _ = q.apply(lagged, batch.next_observation)
    online = q.apply(parameters, batch.next_observation)[0] if settings.double else later
    reward = batch.reward.astype(values.dtype)
    wanted = jax.vmap(target, in_axes=(0, 0, 0, 0, None, None))(
        reward, batch.terminated, online, later, discount, settings.double
    )
    error = chosen - jax.lax.stop_gradient(wanted)
    return jnp.mean(error_loss(error, settings.loss)), jnp.mean(chosen)


class Learner(NamedTuple):
    """What updates change.

    Attributes:
      parameters: [q].
      moments: of Adam.
      lagged: [q], of the target network.
      updates: int32, so far.
    """

    parameters: jax.Array
    moments: Moments
    lagged: jax.Array
    updates: jax.Array


def improve(q: QNetwork, learner: Learner, batches: Transition, weights: dict, settings) -> tuple:
    """Updates on some batches, one after the other.

    After every `target_every` updates the target network moves towards the parameters,
    theta' <- theta' + tau (theta - theta'); with tau = 1 it becomes a copy of them.

    Args:
      q: the network.
      learner: before.
      batches: leaves [M, B, ...].
      weights: float scalars "learning_rate", "discount", "gradient_clip", "adam_epsilon" and
        "target.tau".
      settings: as of `loss`, and `target_every`.

    Returns:
      The learner after, and `Diagnostics`.
    """
    # Networks for pictures are float32 in double precision, too, and rates must not promote them.
    names = ("learning_rate", "discount", "gradient_clip", "adam_epsilon", "target.tau")
    weights = {name: jnp.asarray(weights[name], learner.parameters.dtype) for name in names}

    def update(learner, batch):
        def objective(parameters):
            return loss(q, parameters, learner.lagged, batch, weights["discount"], settings)

        (value, mean_q), gradient = jax.value_and_grad(objective, has_aux=True)(learner.parameters)
        gradient, norm = bounded(gradient, weights["gradient_clip"])
        move, moments = adam(gradient, learner.moments, weights["adam_epsilon"])
        parameters = learner.parameters - weights["learning_rate"] * move
        updates = learner.updates + 1
        nearer = learner.lagged + weights["target.tau"] * (parameters - learner.lagged)
        lagged = jnp.where(updates % settings.target_every == 0, nearer, learner.lagged)
        return Learner(parameters, moments, lagged, updates), Diagnostics(value, mean_q, norm)

    learner, found = jax.lax.scan(update, learner, batches)
    return learner, jax.tree.map(jnp.mean, found)
