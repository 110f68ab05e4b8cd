"""Policies whose actions a network decides: a softmax of its outputs, and normal actions."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from fedjax_rl import fields, streams
from fedjax_rl.learners import policies
from fedjax_rl.learners.observations import Normalizer, Normalizing, normalized
from fedjax_rl.learners.stochastic_policies import Policy
from fedjax_rl.names import check_known
from fedjax_rl.networks import MLP
from fedjax_rl.networks.mlp import INITIALIZERS

DEVIATION = fields.number(0, above=True, follows=False)


def _check_network(policy) -> None:
    fields.check("network", policy.network, fields.instance(MLP))
    fields.check("encode", policy.encode, fields.FUNCTION)
    check_known(policy.initializer, INITIALIZERS, "initializer")


def _as_it_is(observation):
    return observation


@dataclasses.dataclass(frozen=True)
class Categorical(Policy):
    """Softmax of the outputs of a network.

    Attributes:
      network: one output per action.
      encode: from an observation to what the network sees, as of an `envs.Task`.
      initializer: of the network.
    """

    network: MLP
    encode: Callable = _as_it_is
    initializer: str = "normal"

    def __post_init__(self) -> None:
        """Checks the parts; a ValueError names what is not allowed."""
        _check_network(self)

    @property
    def num_parameters(self) -> int:
        """Those of the network."""
        return self.network.num_parameters

    def init(self, key) -> jax.Array:
        """As the network's."""
        return self.network.init(key, self.initializer)

    def outputs(self, parameters, observation) -> jax.Array:
        """What the softmax is taken of, [U].

        Args:
          parameters: [q].
          observation: as the environment gives it.
        """
        return self.network.apply(parameters, self.encode(observation).astype(parameters.dtype))

    def sample(self, parameters, observation, word) -> jax.Array:
        """An action in 0..U-1; as in `Policy`."""
        return policies.categorical(self.outputs(parameters, observation), word)

    def log_prob(self, parameters, observation, action) -> jax.Array:
        """As in `Policy`."""
        return jax.nn.log_softmax(self.outputs(parameters, observation))[action]


@dataclasses.dataclass(frozen=True)
class Gaussian(Policy):
    """Independent normal actions: means from a network, deviations the same in every state.

    The parameters are the network's and then the logarithms of the deviations [M]. The environment
    gets the action clipped to [-1, 1], unless actions are not bounded; the density is that of the
    action before.

    Attributes:
      network: M outputs, the means.
      encode: as of `Categorical`.
      initializer: of the network.
      deviation: at first, above 0.
      bounded: whether actions are clipped.
    """

    network: MLP
    encode: Callable = _as_it_is
    initializer: str = "normal"
    deviation: float = 0.5
    bounded: bool = True

    def __post_init__(self) -> None:
        """Checks the parts; a ValueError names what is not allowed."""
        _check_network(self)
        fields.check("deviation", self.deviation, DEVIATION)

    @property
    def num_actions(self) -> int:
        """M."""
        return self.network.sizes[-1]

    @property
    def num_parameters(self) -> int:
        """Those of the network and M."""
        return self.network.num_parameters + self.num_actions

    def init(self, key) -> jax.Array:
        """As the network's, with the deviation given."""
        # Learned as a logarithm, a deviation stays above 0.
        log_deviation = jnp.full(self.num_actions, math.log(self.deviation))
        return jnp.concatenate([self.network.init(key, self.initializer), log_deviation])

    def moments(self, parameters, observation) -> tuple[jax.Array, jax.Array]:
        """Means and logarithms of the deviations, both [M].

        Args:
          parameters: [q].
          observation: as the environment gives it.
        """
        own = parameters[: self.network.num_parameters]
        mean = self.network.apply(own, self.encode(observation).astype(parameters.dtype))
        return mean, parameters[self.network.num_parameters :]

    def sample(self, parameters, observation, word) -> jax.Array:
        """An action [M], not clipped; as in `Policy`."""
        mean, log_deviation = self.moments(parameters, observation)
        # The word is the key of a stream of its own, so that a step takes one word whatever M is.
        key = (word, jnp.uint32(0))
        places = jnp.arange(self.num_actions, dtype=jnp.uint32)
        words = jax.vmap(lambda place: streams.threefry(key, place))(places)
        return mean + jnp.exp(log_deviation) * streams.normal(words, mean.dtype)

    def log_prob(self, parameters, observation, action) -> jax.Array:
        """As in `Policy`."""
        mean, log_deviation = self.moments(parameters, observation)
        scaled = (action.astype(mean.dtype) - mean) * jnp.exp(-log_deviation)
        each = -(scaled**2) / 2 - log_deviation - math.log(2 * math.pi) / 2
        return jnp.sum(each)

    def performed(self, action) -> jax.Array:
        """The action, clipped to [-1, 1] if bounded, of the dtype that `envs.Continuous` has."""
        if not self.bounded:
            return action
        return jnp.clip(action, -1.0, 1.0).astype(jnp.float32)


def seeing(policy, normalizer: Normalizer | None, clip: float):
    """The policy, which sees normalised what it saw as it is.

    Args:
      policy: `Categorical` or `Gaussian`; any where nothing is normalised.
      normalizer: [D], of its inputs; None where nothing is normalised.
      clip: largest magnitude of an input.
    """
    if normalizer is None:
        return policy

    def encode(observation):
        return normalized(policy.encode(observation)[None], normalizer, clip)[0]

    return dataclasses.replace(policy, encode=encode)


@dataclasses.dataclass(frozen=True)
class Seeing(Policy):
    """A policy of agents each of whom sees by its own normalizer, for roll-outs.

    Its parameters are `Normalizing`.

    Attributes:
      policy: `Categorical` or `Gaussian`.
      clip: largest magnitude of an input.
    """

    policy: Policy
    clip: float

    def sample(self, parameters: Normalizing, observation, word) -> jax.Array:
        """As in `Policy`."""
        own = seeing(self.policy, parameters.normalizer, self.clip)
        return own.sample(parameters.parameters, observation, word)

    def performed(self, action) -> jax.Array:
        """As the policy's."""
        return self.policy.performed(action)
