r"""Temporal difference learning with linear values of a fixed policy, by equations.

    theta <- theta + rate g,    g = (r + discount phi(s') . theta - phi(s) . theta) phi(s)

(Sutton, *Learning to Predict by the Methods of Temporal Differences*, 1988). Where states s are
met with probabilities w, g is in expectation b - A theta with

    A = \sum_s w(s) phi(s) (phi(s) - discount \sum_s' P(s, s') phi(s'))^T,
    b = \sum_s w(s) phi(s) r(s).

Everything that runs in a program is unbatched; callers vmap.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl.envs.solvers import stationary_distribution
from fedjax_rl.envs.tabular import TabularMDP
from fedjax_rl.fields import is_concrete
from fedjax_rl.learners.tabular_steps import outcome_of_row, thresholds
from fedjax_rl.remembered import remembered


class Environment(NamedTuple):
    """A tabular MDP and a policy as the learner wants them; probabilities are `thresholds`.

    Attributes:
      policy: uint32 [S, U-1].
      transition: uint32 [S, U, S-1].
      reward: [S or 1, U or 1, S or 1].
      discount: scalar.
    """

    policy: jax.Array
    transition: jax.Array
    reward: jax.Array
    discount: jax.Array


def prepared(mdp: TabularMDP, policy) -> Environment:
    """The `Environment` of an MDP; of a family the leaves but `policy` lead with the agents.

    Args:
      mdp: one MDP or a family; only its reward may be traced.
      policy: [S, U].
    """
    xp = np if is_concrete(mdp.reward) else jnp
    reward = xp.asarray(mdp.reward, float)
    return Environment(
        thresholds(policy), thresholds(mdp.transition), reward, np.asarray(mdp.discount, float)
    )


def transition(environment: Environment, state, words):
    """One step under the policy.

    Args:
      environment: of the agent.
      state: int32 scalar.
      words: uint32 [2], for the action and what comes of it.

    Returns:
      The next state, int32 scalar, and the reward.
    """
    action = outcome_of_row(words[0], environment.policy[state])
    next_state = outcome_of_row(words[1], environment.transition[state, action])
    place = tuple(
        index if extent > 1 else 0
        for index, extent in zip((state, action, next_state), environment.reward.shape, strict=True)
    )
    return next_state, environment.reward[place]


def direction(theta, phi, discount, state, reward, next_state) -> jax.Array:
    """g, [d], of one step; theta is [d] and phi [S, d].

    Args:
      theta: [d].
      phi: [S, d].
      discount: scalar.
      state: int32 scalar.
      reward: of the step.
      next_state: int32 scalar.
    """
    error = reward + discount * (phi[next_state] @ theta) - phi[state] @ theta
    return error * phi[state]


def system(mdp: TabularMDP, policy, phi, weight) -> tuple:
    """A [d, d] and b [d], on the host in float64, but b where the reward is traced.

    Args:
      mdp: one MDP.
      policy: [S, U].
      phi: [S, d].
      weight: [S], how often each state is met.
    """
    xp = np if is_concrete(mdp.reward) else jnp
    chain = np.einsum("su,sun->sn", policy, mdp.transition)
    joint = policy[:, :, None] * np.asarray(mdp.transition, np.float64)
    earned = xp.sum(joint * xp.asarray(mdp.reward, float), axis=(1, 2))
    weighted = weight[:, None] * phi
    return weighted.T @ (phi - mdp.discount * (chain @ phi)), weighted.T @ earned


def members_of(mdp: TabularMDP, num_agents: int) -> list[TabularMDP]:
    """The environments of N agents; the one of all but once.

    Args:
      mdp: one MDP or a family.
      num_agents: N.
    """
    if mdp.transition.ndim == 3:
        return [mdp]
    return [jax.tree.map(lambda leaf, i=i: leaf[i], mdp) for i in range(num_agents)]


def visits(mdp: TabularMDP, policy, sampling: str) -> np.ndarray:
    """How often the states of one MDP are met, [S], sum 1.

    Args:
      mdp: one MDP.
      policy: [S, U].
      sampling: "generative", all alike; or another word, the stationary distribution.
    """
    if sampling == "generative":
        return np.full(mdp.num_states, 1 / mdp.num_states)
    # The reward, which may be traced, has no part in it.
    return stationary_distribution(mdp.replace(reward=np.zeros((1, 1, 1))), policy)


@remembered(64)
def mean_solution(mdp: TabularMDP, policy, phi, sampling: str, num_agents: int):
    """Where the mean of the agents' equations has its solution, [d].

    Args:
      mdp: one MDP or a family.
      policy: [S, U].
      phi: [S, d].
      sampling: as of `visits`.
      num_agents: N.
    """
    systems = [
        system(member, policy, phi, visits(member, policy, sampling))
        for member in members_of(mdp, num_agents)
    ]
    # Means of A and b, then one solution: the mean of the agents' own solutions is another point.
    matrix = np.mean([a for a, _ in systems], axis=0)
    # Features may be dependent, which leaves A singular.
    return np.linalg.pinv(matrix) @ (sum(b for _, b in systems) / len(systems))
