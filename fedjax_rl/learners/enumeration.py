"""Every episode of a small MDP: expectations of estimators as sums, not as samples."""

from __future__ import annotations

import itertools

import numpy as np
from scipy import special

from fedjax_rl.envs.tabular import TabularMDP, initial_distribution
from fedjax_rl.learners.trajectories import Trajectories

LARGEST = 1_000_000  # episodes


def all_trajectories(mdp: TabularMDP, num_steps: int) -> tuple[Trajectories, np.ndarray]:
    """All M = (S U)^T episodes of T steps, and what the MDP makes of them.

    Args:
      mdp: rewards may depend on state and action, not on the state arrived in.
      num_steps: T, at least 1.

    Returns:
      Leaves [M, 1, T], one episode per batch, and the part of their probabilities [M] that is the
      MDP's: that of the first state and of the transitions. Float64 on the host.

    Raises:
      ValueError: rewards of another kind, fewer than one step or more than a million episodes.
    """
    states, actions = mdp.transition.shape[:2]
    if np.shape(mdp.reward)[-1] != 1:
        raise ValueError("mdp has rewards of the state arrived in; allowed: of state and action")
    if num_steps < 1 or (states * actions) ** num_steps > LARGEST:
        raise ValueError(
            f"num_steps is {num_steps} with {states} states and {actions} actions; allowed: at "
            f"least 1, and at most {LARGEST:,} episodes"
        )
    visited = np.array(list(itertools.product(range(states), repeat=num_steps)), np.int32)
    taken = np.array(list(itertools.product(range(actions), repeat=num_steps)), np.int32)
    visited, taken = np.repeat(visited, len(taken), 0), np.tile(taken, (len(visited), 1))
    kernel = np.asarray(mdp.transition, np.float64)
    reward = np.broadcast_to(np.asarray(mdp.reward, np.float64), (states, actions, 1))
    moves = kernel[visited[:, :-1], taken[:, :-1], visited[:, 1:]]
    # Without the policy's part, so that one enumeration serves all parameters.
    chance = np.asarray(initial_distribution(mdp), np.float64)[visited[:, 0]] * moves.prod(1)
    made = (visited, taken, reward[visited, taken, 0], np.ones(visited.shape, bool))
    return Trajectories(*(x[:, None] for x in made)), chance


def probabilities(trajectories: Trajectories, chance, logits) -> np.ndarray:
    """Probabilities of all episodes under a softmax policy, float64 [M]; they add up to 1.

    Args:
      trajectories: of `all_trajectories`.
      chance: [M], likewise.
      logits: [S, U], or flat.
    """
    logits = np.reshape(logits, (trajectories.observation.max() + 1, -1))
    policy = special.softmax(logits, -1)
    return chance * policy[trajectories.observation, trajectories.action][:, 0].prod(1)
