"""Where temporal difference learning on a grid world goes, exactly; float64 on the host."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fedjax_rl.envs.grid_tables import GridWorld
from fedjax_rl.envs.tabular import initial_distribution


class Chain(NamedTuple):
    """A grid world under the uniform policy, float64 on the host.

    Attributes:
      transition: [S, S].
      reward: [S, S], the mean reward of a step from one state to another.
      start: [S], probability of each first state.
    """

    transition: np.ndarray
    reward: np.ndarray
    start: np.ndarray


def chain_of(world: GridWorld) -> Chain:
    """Where the uniform policy leads, and what it earns."""
    transition = np.asarray(world.mdp.transition, np.float64)
    reward = np.broadcast_to(np.asarray(world.mdp.reward, np.float64), transition.shape)
    moves = transition.mean(axis=1)
    earned = (transition * reward).mean(axis=1)
    return Chain(
        moves,
        np.divide(earned, moves, out=np.zeros_like(earned), where=moves > 0),
        initial_distribution(world.mdp),
    )


def restarted(chain: Chain, terminal) -> Chain:
    """The chain in which a step from a terminal state leads to the start and gives 0.

    Args:
      chain: that stays in terminal states.
      terminal: bool [S].
    """
    transition, reward = chain.transition.copy(), chain.reward.copy()
    transition[terminal] = chain.start
    reward[terminal] = 0.0
    return Chain(transition, reward, chain.start)


def pairs_in_steps(chain: Chain) -> np.ndarray:
    """How often a step leads from one state to another in the long run, [S, S], sum 1."""
    num = len(chain.transition)
    # Stationarity leaves the scale open; the last row says that probabilities add up to 1.
    system = np.vstack([chain.transition.T - np.eye(num), np.ones(num)])
    stationary = np.linalg.lstsq(system, np.append(np.zeros(num), 1.0), rcond=None)[0]
    return stationary[:, None] * chain.transition


def pairs_in_episodes(chain: Chain, terminal, max_steps: int) -> np.ndarray:
    """The expected part of an episode's steps that lead from one state to another, [S, S], sum 1.

    A step in a long episode weighs less than one in a short one: with t steps before it and k
    after it, 1 / (t + 1 + k). The chances of k are worked out backwards from the end.

    Args:
      chain: of the episodes.
      terminal: bool [S].
      max_steps: T.
    """
    num = len(chain.transition)
    inside = np.where(terminal[:, None], 0.0, chain.transition)
    # ends[k, s]: the episode goes on for exactly k steps from s.
    ends = np.zeros((max_steps, num))
    ends[0] = terminal
    for k in range(1, max_steps):
        ends[k] = inside @ ends[k - 1]
    now = chain.start * ~terminal
    pairs = np.zeros((num, num))
    for t in range(max_steps):
        left = max_steps - t - 1
        after = ends[:left]
        weight = np.sum(after / (t + 1 + np.arange(left))[:, None], axis=0)
        # Whoever has not ended by then is cut off: an episode of all the steps.
        weight = weight + (1 - after.sum(axis=0)) / max_steps
        pairs += now[:, None] * inside * weight
        now = now @ inside * ~terminal
    return pairs


class Limit(NamedTuple):
    """Where TD learning goes.

    Attributes:
      parameters: [d], float64; those of least norm where the features leave several.
      weight: [S], how often each state is visited, sum 1.
    """

    parameters: np.ndarray
    weight: np.ndarray


def of_steps(world: GridWorld, phi: np.ndarray, discount: float) -> Limit:
    """The limit where a step from a terminal state leads to the start and gives 0.

    Args:
      world: under the uniform policy.
      phi: features [S, d].
      discount: below 1.
    """
    chain = restarted(chain_of(world), np.asarray(world.terminal))
    return _solved(chain, pairs_in_steps(chain), phi, discount)


def of_episodes(world: GridWorld, phi: np.ndarray, discount: float, max_steps: int) -> Limit:
    """The limit where the mean over the steps of every episode counts alike.

    Args:
      world: under the uniform policy.
      phi: features [S, d], 0 where an episode ends.
      discount: below 1.
      max_steps: T, of an episode.
    """
    chain = chain_of(world)
    pairs = pairs_in_episodes(chain, np.asarray(world.terminal), max_steps)
    return _solved(chain, pairs, phi, discount)


def _solved(chain: Chain, pairs: np.ndarray, phi: np.ndarray, discount: float) -> Limit:
    r"""Solves `\sum_{s,s'} w(s,s') phi(s) (r(s,s') + discount phi(s').x - phi(s).x) = 0`."""
    weight = pairs.sum(axis=1)
    ahead = pairs @ phi * discount
    matrix = phi.T @ (weight[:, None] * phi - ahead)
    earned = phi.T @ np.sum(pairs * chain.reward, axis=1)
    # Least squares, as the features of states that are never met leave directions open.
    return Limit(np.linalg.lstsq(matrix, earned, rcond=None)[0], weight)
