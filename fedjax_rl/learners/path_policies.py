"""Policies whose actions are a smooth function of parameters, observation and noise.

What is drawn is drawn first, and the action made of it, so that a derivative goes through the
action: Heess, Wayne, Silver, Lillicrap, Erez and Tassa, *Learning Continuous Control Policies by
Stochastic Value Gradients*, arXiv 1510.09142.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from fedjax_rl import streams
from fedjax_rl.learners.sight import check_vectors
from fedjax_rl.learners.stochastic_policies import Policy
from fedjax_rl.networks import MLP


@dataclasses.dataclass(frozen=True)
class Smooth(Policy):
    """Outputs of a network, with or without normal noise, as actions.

    The action is tanh of that where actions are bounded: one that is cut off has no derivative, and
    a policy that has once left the box would never come back.

    The parameters are the network's and then, with noise, the logarithms of the deviations [M].

    Attributes:
      network: M outputs.
      encode: from an observation to what the network sees.
      initializer: of the network.
      deviation: of the noise, at first, above 0; None without noise.
      bounded: whether actions are in [-1, 1].
    """

    network: MLP
    encode: Callable
    initializer: str = "normal"
    deviation: float | None = None
    bounded: bool = True

    @property
    def num_actions(self) -> int:
        """M."""
        return self.network.sizes[-1]

    @property
    def num_parameters(self) -> int:
        """Those of the network, and M with noise."""
        return self.network.num_parameters + (self.deviation is not None) * self.num_actions

    def init(self, key) -> jax.Array:
        """As the network's, with the deviation given."""
        own = self.network.init(key, self.initializer)
        if self.deviation is None:
            return own
        return jnp.concatenate([own, jnp.full(self.num_actions, math.log(self.deviation))])

    def sample(self, parameters, observation, word) -> jax.Array:
        """An action [M]; as in `Policy`."""
        size = self.network.num_parameters
        seen = self.encode(observation).astype(parameters.dtype)
        action = self.network.apply(parameters[:size], seen)
        if self.deviation is not None:
            # The word is the key of a stream of its own, as of `network_policies.Gaussian`.
            places = jnp.arange(self.num_actions, dtype=jnp.uint32)
            words = jax.vmap(lambda place: streams.threefry((word, jnp.uint32(0)), place))(places)
            action = action + jnp.exp(parameters[size:]) * streams.normal(words, action.dtype)
        return jnp.tanh(action) if self.bounded else action

    def performed(self, action) -> jax.Array:
        """The action, of the dtype that `envs.Continuous` has."""
        return action.astype(jnp.float32) if self.bounded else action


def smooth_policy(
    task, hidden: tuple[int, ...], activation: str, initializer: str, deviation: float | None
) -> Smooth:
    """The policy of that kind that fits a task of continuous actions.

    Args:
      task: an `envs.Task`.
      hidden: units in each hidden layer; without any, actions are affine in what is seen.
      activation: of the hidden units, of `networks.mlp.ACTIVATIONS`.
      initializer: of the network, of `networks.mlp.INITIALIZERS`.
      deviation: first standard deviation of the noise; None without noise.

    Raises:
      ValueError: observations that are pictures.
    """
    check_vectors("policy", "mlp", task)
    network = MLP((task.observation_size, *hidden, task.action.size), activation)
    return Smooth(network, task.encode, initializer, deviation, task.action.bounded)
