"""How a tabular learner chooses its actions, from a row of its table and random words.

Everything here is unbatched; callers vmap.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_rl import rounding, streams
from fedjax_rl.learners import tables
from fedjax_rl.learners.tabular_steps import Shape, outcome


class Behaviour(NamedTuple):
    """How actions are chosen.

    Attributes:
      num_words: random words an action and the transition after it take together.
      act: `(words, state, row, params) -> (action, word left for the transition)`.
      uses_table: whether actions depend on what is learned, which makes the trajectory, and so
        every gradient through it, depend on the parameters.
      probabilities: `(state, row, params) -> [U]`, of every action.
      smooth: whether these are a smooth function of the row.
    """

    num_words: int
    act: Callable
    uses_table: bool
    probabilities: Callable
    smooth: bool = True


def uniform_behaviour(shape: Shape) -> Behaviour:
    """Every action alike; one word serves the action and the transition."""

    def act(words, state, row, params):
        return streams.scaled(words[0], shape.num_actions)

    def probabilities(state, row, params):
        return jnp.full(shape.num_actions, 1 / shape.num_actions)

    return Behaviour(1, act, False, probabilities)


def fixed_behaviour(shape: Shape) -> Behaviour:
    """A given policy.

    `params["policy"]` is a table of its `thresholds`, S*(U-1) words; where nothing is drawn, its
    probabilities [S, U].
    """

    def act(words, state, row, params):
        bounds = tables.take_row(params["policy"], state, shape.num_actions - 1)
        return outcome(words[0], bounds), words[1]

    def probabilities(state, row, params):
        return params["policy"][state]

    return Behaviour(2, act, False, probabilities)


def softmax_behaviour(shape: Shape) -> Behaviour:
    """Softmax of `beta` times the row with probability 1 - epsilon, uniform otherwise.

    The mixture is drawn with one word, by inversion; `epsilon` 0 is the behaviour that the linear
    speedup paper calls epsilon = 0.
    """

    def act(words, state, row, params):
        epsilon, beta = params["epsilon"], params["beta"]
        top = functools.reduce(jnp.maximum, row)
        # Less the largest: nothing overflows, and the sum is at least 1.
        weights = [jnp.exp(beta * (value - top)) for value in row]
        total = functools.reduce(jnp.add, weights)
        # Comparing with unnormalised sums saves the division.
        level = streams.uniform(words[0], total.dtype) * total
        explore = epsilon * total / shape.num_actions
        action, cumulative = jnp.int32(0), jnp.zeros_like(total)
        # The last action is what is left: no rounding of the sum leaves a word without one.
        for weight in weights[:-1]:
            cumulative = cumulative + (explore + (1 - epsilon) * weight)
            action = action + (level >= cumulative).astype(jnp.int32)
        return action, words[1]

    def probabilities(state, row, params):
        epsilon = params["epsilon"]
        greedy = jax.nn.softmax(params["beta"] * jnp.stack(row))
        return epsilon / shape.num_actions + (1 - epsilon) * greedy

    return Behaviour(2, act, True, probabilities)


def greedy_behaviour(shape: Shape) -> Behaviour:
    """The first of the best actions with probability 1 - epsilon, uniform otherwise.

    Which are the best, `rounding.best_of` says.
    """

    def best_action(row):
        best = jnp.int32(0)
        # Backwards, so that the first of the best is what stays.
        for i, equal in reversed(list(enumerate(rounding.best_of(row)))):
            best = jnp.where(equal, jnp.int32(i), best)
        return best

    def act(words, state, row, params):
        best, epsilon = best_action(row), params["epsilon"]
        level = streams.uniform(words[0], epsilon.dtype)
        # Below epsilon the word is a fraction of epsilon, uniform again after rescaling.
        spread = (level * shape.num_actions / jnp.maximum(epsilon, 2.0**-24)).astype(jnp.int32)
        spread = jnp.minimum(spread, shape.num_actions - 1)
        return jnp.where(level < epsilon, spread, best), words[1]

    def probabilities(state, row, params):
        epsilon = params["epsilon"]
        best = jax.nn.one_hot(best_action(row), shape.num_actions, dtype=epsilon.dtype)
        return epsilon / shape.num_actions + (1 - epsilon) * best

    return Behaviour(2, act, True, probabilities, smooth=False)
