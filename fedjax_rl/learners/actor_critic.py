"""A policy and a value from one vector of parameters [q], which is what agents exchange.

Everything is for one agent, and networks are applied to batches [B, ...] of its observations.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from fedjax_rl import streams
from fedjax_rl.envs.task import Continuous, Discrete
from fedjax_rl.learners import observations, policies
from fedjax_rl.learners.sight import check_vectors, picture_of, pixels
from fedjax_rl.networks import heads
from fedjax_rl.networks.flat import Flat


@dataclasses.dataclass(frozen=True)
class Softmax:
    """Discrete actions, of outputs [U].

    Attributes:
      num: U.
    """

    num: int

    @property
    def outputs(self) -> int:
        """Numbers that the network gives, U."""
        return self.num

    @property
    def own(self) -> int:
        """Parameters besides the network's."""
        return 0

    def sample(self, outputs, own, word) -> jax.Array:
        """An action, int32 scalar, from outputs [U], no parameters and a uint32 word."""
        del own
        return policies.categorical(outputs, word)

    def log_prob(self, outputs, own, action) -> jax.Array:
        """Logarithm of the probability of an action, a scalar.

        Args:
          outputs: [U].
          own: [0].
          action: int32 scalar.
        """
        del own
        # A product rather than an index, whose backward pass would be a scatter.
        chosen = jax.nn.one_hot(action, self.num, dtype=outputs.dtype)
        return jnp.sum(jax.nn.log_softmax(outputs) * chosen)

    def entropy(self, outputs, own) -> jax.Array:
        """Of the distribution, in nats, a scalar."""
        del own
        logs = jax.nn.log_softmax(outputs)
        return -jnp.sum(jnp.exp(logs) * logs)

    def performed(self, action) -> jax.Array:
        """What the environment is told to do."""
        return action


@dataclasses.dataclass(frozen=True)
class Normal:
    """Independent normal actions: means are outputs [M], deviations the same in every state.

    Attributes:
      size: M.
      bounded: whether actions are clipped to [-1, 1].
    """

    size: int
    bounded: bool = True

    @property
    def outputs(self) -> int:
        """Numbers that the network gives, M."""
        return self.size

    @property
    def own(self) -> int:
        """Parameters besides the network's: logarithms of the deviations, M."""
        return self.size

    def sample(self, outputs, own, word) -> jax.Array:
        """An action [M], not clipped, from means [M], log deviations [M] and a uint32 word.

        Args:
          outputs: [M], means.
          own: [M], logarithms of the deviations.
          word: uint32 scalar, random.
        """
        # The word is the key of a stream of its own, so that a step takes one word whatever M is.
        places = jnp.arange(self.size, dtype=jnp.uint32)
        words = jax.vmap(lambda place: streams.threefry((word, jnp.uint32(0)), place))(places)
        return outputs + jnp.exp(own) * streams.normal(words, outputs.dtype)

    def log_prob(self, outputs, own, action) -> jax.Array:
        """Logarithm of the density of an action, a scalar.

        Args:
          outputs: [M], means.
          own: [M], logarithms of the deviations.
          action: [M], as drawn.
        """
        scaled = (action - outputs) * jnp.exp(-own)
        return jnp.sum(-(scaled**2) / 2 - own - math.log(2 * math.pi) / 2)

    def entropy(self, outputs, own) -> jax.Array:
        """Of the density, in nats, a scalar."""
        del outputs
        return jnp.sum(own) + self.size * (math.log(2 * math.pi) + 1) / 2

    def performed(self, action) -> jax.Array:
        """The action, clipped to [-1, 1] if bounded."""
        return jnp.clip(action, -1.0, 1.0) if self.bounded else action


class Unpacked(NamedTuple):
    """Parameters as the network has them.

    Attributes:
      network: a pytree.
      own: of the actions' distribution, a vector.
    """

    network: Any
    own: jax.Array


@dataclasses.dataclass(frozen=True)
class ActorCritic:
    """A network with two heads on a task.

    The parameters are the network's, then those of the actions' distribution. What takes them takes
    them in one vector [q] or `Unpacked`, or either as `observations.Normalizing`.

    Attributes:
      module: from inputs [B, ...] to outputs [B, O] and values [B].
      actions: `Softmax` or `Normal`.
      shape: of one input.
      inputs: from an observation to what the network sees, float32 of that shape.
      deviation: first standard deviation of continuous actions.
      clip: largest magnitude of an input that is normalised.
    """

    module: nn.Module
    actions: Softmax | Normal
    shape: tuple[int, ...]
    inputs: Callable
    deviation: float = 1.0
    clip: float = 10.0

    @property
    def _flat(self) -> Flat:
        return Flat(self.module, self.shape)

    @property
    def num_parameters(self) -> int:
        """Q."""
        return self._flat.num_parameters + self.actions.own

    def init(self, key) -> jax.Array:
        """First parameters, float32 [q]; the key is consumed."""
        # Learned as a logarithm, a deviation stays above 0.
        own = jnp.full(self.actions.own, math.log(self.deviation), jnp.float32)
        return jnp.concatenate([self._flat.init(key), own])

    def unpack(self, parameters) -> Unpacked:
        """The parameters [q] as the network has them.

        A gradient with respect to these is cheaper: that of a part of a vector is a vector.
        """
        flat = self._flat
        return Unpacked(flat.unpack(parameters), parameters[flat.num_parameters :])

    def pack(self, unpacked: Unpacked) -> jax.Array:
        """The parameters, or a gradient with respect to them, in one vector [q]."""
        leaves = jax.tree.leaves(unpacked.network)
        return jnp.concatenate([*(leaf.ravel() for leaf in leaves), unpacked.own])

    def apply(self, parameters, seen) -> tuple[jax.Array, jax.Array]:
        """What the network says of observations.

        Args:
          parameters: of the network and the distribution.
          seen: [B, ...], observations as the environment gives them.

        Returns:
          Outputs [B, O], which the other functions take, and values [B].
        """
        parameters, normalizer = _with_normalizer(parameters)
        if not isinstance(parameters, Unpacked):
            parameters = self.unpack(parameters)
        inputs = jax.vmap(self.inputs)(seen)
        if normalizer is not None:
            inputs = observations.normalized(inputs, normalizer, self.clip)
        return self.module.apply(parameters.network, inputs)

    def act(self, parameters, observation, word):
        """The action that is performed at one observation, with a uint32 word.

        Args:
          parameters: of the network and the distribution.
          observation: as the environment gives it.
          word: uint32 scalar, random.
        """
        outputs, _ = self.apply(parameters, observation[None])
        return self.performed(self.sample(parameters, outputs[0], word))

    def judged(self, parameters, seen, actions) -> tuple[jax.Array, jax.Array, jax.Array]:
        """What a loss is made of.

        Args:
          parameters: of the network and the distribution.
          seen: [B, ...], observations as the environment gives them.
          actions: [B, ...], as drawn.

        Returns:
          Logarithms of the actions' probabilities [B], the mean entropy, values [B].
        """
        outputs, value = self.apply(parameters, seen)
        log_prob = jax.vmap(self.log_prob, in_axes=(None, 0, 0))(parameters, outputs, actions)
        entropy = jnp.mean(jax.vmap(self.entropy, in_axes=(None, 0))(parameters, outputs))
        return log_prob, entropy, value

    def _own(self, parameters) -> jax.Array:
        parameters, _ = _with_normalizer(parameters)
        if isinstance(parameters, Unpacked):
            return parameters.own
        return parameters[parameters.shape[0] - self.actions.own :]

    def sample(self, parameters, outputs, word) -> jax.Array:
        """An action drawn from outputs [O] with a uint32 word.

        Args:
          parameters: [q], or `Unpacked`.
          outputs: [O], of the network.
          word: uint32 scalar, random.
        """
        return self.actions.sample(outputs, self._own(parameters), word)

    def log_prob(self, parameters, outputs, action) -> jax.Array:
        """Logarithm of the probability, or of the density, of an action; a scalar.

        Args:
          parameters: [q], or `Unpacked`.
          outputs: [O], of the network.
          action: as drawn.
        """
        return self.actions.log_prob(outputs, self._own(parameters), action)

    def entropy(self, parameters, outputs) -> jax.Array:
        """Entropy of the actions at outputs [O], in nats, a scalar.

        Args:
          parameters: [q], or `Unpacked`.
          outputs: [O], of the network.
        """
        return self.actions.entropy(outputs, self._own(parameters))

    def performed(self, action) -> jax.Array:
        """What the environment is told to do when this action was drawn."""
        return self.actions.performed(action)


def _with_normalizer(parameters) -> tuple:
    """Parameters, and what normalises their inputs; None where nothing does."""
    if isinstance(parameters, observations.Normalizing):
        return parameters
    return parameters, None


def actor_critic_for(
    task,
    network: str = "mlp",
    *,
    hidden: tuple[int, ...] = (64, 64),
    activation: str = "tanh",
    deviation: float = 1.0,
) -> ActorCritic:
    """The network of that name with the heads that fit a task.

    Args:
      task: an `envs.Task`.
      network: of `networks.heads.NETWORKS`; all but "mlp" see pictures.
      hidden: units in each hidden layer, of "mlp".
      activation: of "mlp", "tanh" or "relu".
      deviation: first standard deviation of continuous actions, above 0.

    Raises:
      ValueError: an unknown word, a network for pictures where there are none, or for vectors where
        there are pictures, a picture that it cannot see, a layer without units, a deviation that
        is not above 0.
    """
    if not (math.isfinite(deviation) and deviation > 0):
        raise ValueError(f"deviation is {deviation}; allowed: finite and above 0")
    discrete = isinstance(task.action, Discrete)
    if not discrete and not isinstance(task.action, Continuous):
        raise ValueError(
            f"the actions of {task.name} are {task.action}; allowed: Discrete, Continuous"
        )
    actions = Softmax(task.action.num) if discrete else Normal(*task.action)
    module = heads.actor_critic(network, actions.outputs, hidden=hidden, activation=activation)
    if network == "mlp":
        check_vectors("network.kind", network, task)
        encode, size = task.encode, (task.observation_size,)
        return ActorCritic(module, actions, size, encode, float(deviation))
    return ActorCritic(module, actions, picture_of(task, network), pixels, float(deviation))
