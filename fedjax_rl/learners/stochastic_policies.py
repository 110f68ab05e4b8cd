"""Policies whose actions have a probability: what they have in common, and a softmax table.

A policy is a frozen record of functions of one flat vector of parameters [q], which is what agents
exchange. Everything is for one agent, and callers vmap, but for `ready` and `act`: what is the same
in all steps is made once there, for the episodes of all agents.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fedjax_rl import fields
from fedjax_rl.learners import tabular_steps
from fedjax_rl.learners.lookup import add_up, look_up

# Actions up to which the sum over those of a state is written out.
_WRITTEN_OUT = 8


class Policy:
    """What the estimators need of a policy.

    Attributes:
      num_parameters: q.
      axes: where what `ready` makes has the axis B, a prefix of it as for `vmap`.
    """

    num_parameters: int
    axes: Any = 0

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

    def ready(self, parameters, copies: int) -> Any:
        """What `act` reads in B = A copies episodes, once for all their steps.

        Args:
          parameters: [A, q], or leaves [A, ...] where a policy has more.
          copies: episodes of every agent, next to each other.
        """
        return repeated(parameters, copies)

    def act(self, ready, observation, word) -> jax.Array:
        """Draws the actions of all episodes, as `sample` does.

        Args:
          ready: of `ready`.
          observation: [B, ...].
          word: uint32 [B].
        """
        return jax.vmap(self.sample)(ready, observation, word)

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
        """`log_prob` of T steps of N episodes, [N, T].

        Args:
          parameters: [q].
          observation: [N, T, ...].
          action: [N, T, ...].
        """
        one = jax.vmap(self.log_prob, in_axes=(None, 0, 0))
        logs = one(parameters, _flat(observation), _flat(action))
        return logs.reshape(observation.shape[:2])

    def score(self, parameters, observation, action, weight) -> jax.Array:
        """Weighted sum of scores, [q]: `sum weight grad log pi(action | observation)`.

        One backward pass.

        Args:
          parameters: [q].
          observation: [N, T, ...].
          action: [N, T, ...].
          weight: [N, T].
        """

        def total(parameters):
            return jnp.sum(weight * self.log_probs(parameters, observation, action))

        # Only of the logarithms: weights are constants here, whatever they were made of.
        return jax.grad(total)(parameters)


def _flat(x) -> jax.Array:
    """All steps of all episodes in one row: [N, T, ...] -> [N T, ...]."""
    return x.reshape(-1, *x.shape[2:])


def repeated(tree, copies: int) -> Any:
    """Every entry of leaves [A, ...] so many times, next to each other, [A copies, ...].

    Args:
      tree: of leaves [A, ...].
      copies: how many.
    """
    if copies == 1:
        return tree
    return jax.tree.map(lambda x: jnp.repeat(x, copies, axis=0), tree)


def _total(rows) -> jax.Array:
    """The sum over a last axis that may be short, [..., U] -> [..., 1]."""
    if rows.shape[-1] > _WRITTEN_OUT:
        return jnp.sum(rows, axis=-1, keepdims=True)
    # XLA hands a reduction of three numbers, with all that is done with it, to a library that takes
    # 15 ns a number (jaxlib 0.10 on a CPU).
    return functools.reduce(jnp.add, (rows[..., n : n + 1] for n in range(rows.shape[-1])))


class Bounds(NamedTuple):
    """What a table of preferences is drawn from.

    Attributes:
      bounds: uint32 [A, S, U - 1], `tabular_steps.thresholds` of the actions of every state.
      place: int32 [B], which agent is an episode's.
    """

    bounds: jax.Array
    place: jax.Array


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

    axes = Bounds(None, 0)

    def bounds(self, parameters) -> jax.Array:
        """Cumulative probabilities of the actions as words, uint32 [..., S, U - 1].

        Args:
          parameters: [..., q].
        """
        logits = parameters.reshape(*parameters.shape[:-1], self.num_states, self.num_actions)
        # Less the largest, so that nothing overflows.
        weights = jnp.exp(logits - jnp.max(logits, axis=-1, keepdims=True))
        return tabular_steps.thresholds_of(weights)

    def sample(self, parameters, observation, word) -> jax.Array:
        """An action in 0..U-1; as in `Policy`."""
        return tabular_steps.outcome(word, self.bounds(parameters)[observation])

    def ready(self, parameters, copies: int) -> Bounds:
        """As in `Policy`: a softmax of the table, not one of every step."""
        agents = jnp.arange(len(parameters), dtype=jnp.int32)
        return Bounds(self.bounds(parameters), repeated(agents, copies))

    def act(self, ready: Bounds, observation, word) -> jax.Array:
        """As in `Policy`."""
        row = ready.place * self.num_states + observation
        return tabular_steps.outcome_at(word, ready.bounds, row)

    def log_prob(self, parameters, observation, action) -> jax.Array:
        """As in `Policy`."""
        return jax.nn.log_softmax(self.logits(parameters)[observation])[action]

    def log_probs(self, parameters, observation, action) -> jax.Array:
        """As in `Policy`; the softmax is taken of the table and not of every step."""
        logs = jnp.ravel(jax.nn.log_softmax(self.logits(parameters), axis=-1))
        return look_up(logs, self._place(observation, action))

    def score(self, parameters, observation, action, weight) -> jax.Array:
        """As in `Policy`, in closed form.

        Row s of the sum is what its actions weigh, minus the probabilities times what the visits
        of s weigh.
        """
        place = self._place(observation, action)
        taken = self.logits(add_up(weight.astype(parameters.dtype), place, parameters.size))
        chances = jax.nn.softmax(self.logits(parameters), axis=-1)
        return jnp.ravel(taken - chances * _total(taken))

    def _place(self, observation, action) -> jax.Array:
        """Where the preference is among the parameters."""
        return observation * self.num_actions + action
