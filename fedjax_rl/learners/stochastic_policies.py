"""Policies whose actions have a probability: what they have in common, and a softmax table.

A policy is a frozen record of functions of one flat vector of parameters [q], which is what agents
exchange. Everything is for one agent; callers vmap.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from fedjax_rl import fields
from fedjax_rl.learners import policies


class Policy:
    """What the estimators need of a policy.

    Attributes:
      num_parameters: q.
    """

    num_parameters: int

    def init(self, key) -> jax.Array:
        """First parameters, float [q]."""
        raise NotImplementedError

    def sample(self, parameters, observation, word) -> jax.Array:
        """Draws an action.

        Args:
          parameters: [q].
          observation: as the environment gives it.
          word: uint32 scalar, random.
        """
        raise NotImplementedError

    def log_prob(self, parameters, observation, action) -> jax.Array:
        """Logarithm of the probability, or of the density, of an action; a scalar.

        Args:
          parameters: [q].
          observation: as the environment gives it.
          action: as `sample` draws it.
        """
        raise NotImplementedError

    def performed(self, action) -> jax.Array:
        """What the environment is told to do when this action was drawn."""
        return action

    def log_probs(self, parameters, observation, action) -> jax.Array:
        """`log_prob` of T steps, [T].

        Args:
          parameters: [q].
          observation: [T, ...].
          action: [T, ...].
        """
        return jax.vmap(self.log_prob, in_axes=(None, 0, 0))(parameters, observation, action)

    def score(self, parameters, observation, action, weight) -> jax.Array:
        """Weighted sum of scores, [q]: `sum_t weight_t grad log pi(action_t | observation_t)`.

        One backward pass.

        Args:
          parameters: [q].
          observation: [T, ...].
          action: [T, ...].
          weight: [T].
        """

        def total(parameters):
            return jnp.sum(weight * self.log_probs(parameters, observation, action))

        # Only of the logarithms: weights are constants here, whatever they were made of.
        return jax.grad(total)(parameters)


@dataclasses.dataclass(frozen=True)
class SoftmaxTable(Policy):
    """Softmax of one preference per state and action, laid out state by state; zeros at first.

    Attributes:
      num_states: S; observations are states in 0..S-1, an int32 scalar.
      num_actions: U.
    """

    num_states: int
    num_actions: int

    def __post_init__(self) -> None:
        """Checks the sizes; a ValueError names what is not allowed."""
        fields.check("num_states", self.num_states, fields.COUNT)
        fields.check("num_actions", self.num_actions, fields.COUNT)

    @property
    def num_parameters(self) -> int:
        """S U."""
        return self.num_states * self.num_actions

    def init(self, key) -> jax.Array:
        """Zeros: every action is as likely as any other; the key is not needed."""
        del key
        return jnp.zeros(self.num_parameters)

    def logits(self, parameters) -> jax.Array:
        """The preferences [S, U]."""
        return parameters.reshape(self.num_states, self.num_actions)

    def sample(self, parameters, observation, word) -> jax.Array:
        """An action in 0..U-1; as in `Policy`."""
        return policies.categorical(self.logits(parameters)[observation], word)

    def log_prob(self, parameters, observation, action) -> jax.Array:
        """As in `Policy`."""
        return jax.nn.log_softmax(self.logits(parameters)[observation])[action]

    def log_probs(self, parameters, observation, action) -> jax.Array:
        """As in `Policy`; the softmax is taken of the table and not of every step."""
        logs = jnp.ravel(jax.nn.log_softmax(self.logits(parameters), axis=-1))
        return logs[self._place(observation, action)]

    def score(self, parameters, observation, action, weight) -> jax.Array:
        """As in `Policy`, in closed form.

        Row s of the sum is what its actions weigh, minus the probabilities times what the visits
        of s weigh.
        """
        place = self._place(observation, action)
        taken = jnp.zeros_like(parameters).at[place].add(weight.astype(parameters.dtype))
        taken = self.logits(taken)
        chances = jax.nn.softmax(self.logits(parameters), axis=-1)
        return jnp.ravel(taken - chances * jnp.sum(taken, axis=-1, keepdims=True))

    def _place(self, observation, action) -> jax.Array:
        """Where the preference is among the parameters."""
        return observation * self.num_actions + action
