"""Policies as tables: of action values, and the uniform one.

A policy is a table [S, U], float64, whose rows sum to one.
"""

import numpy as np
import scipy.special

from fedjax_rl import fields
from fedjax_rl.envs.tabular import TabularMDP

_FINITE_TABLE = fields.anything(
    "finite real numbers [..., S, U]",
    lambda q: np.ndim(q) >= 2 and np.size(q) > 0 and bool(np.isfinite(fields.real_array(q)).all()),
)


@fields.checked(q=_FINITE_TABLE)
def greedy_policy(q: np.ndarray) -> np.ndarray:
    """Returns all weight on the largest entry of each row, of equals on the first.

    Args:
      q: [..., S, U], what actions are worth, finite.

    Returns:
      [..., S, U].

    Raises:
      ValueError: If ``q`` is no such table.

    Example:
      >>> import fedjax_rl as frl
      >>> frl.envs.greedy_policy([[1.0, 3.0], [2.0, 2.0]])
      array([[0., 1.],
             [1., 0.]])
    """
    q = np.asarray(q)
    return np.eye(q.shape[-1])[q.argmax(-1)]


@fields.checked(q=_FINITE_TABLE, beta=fields.number(0, follows=False))
def softmax_policy(q: np.ndarray, beta: float = 1.0) -> np.ndarray:
    """Returns the softmax of ``beta * q`` over actions.

    Args:
      q: [..., S, U], what actions are worth, finite.
      beta: inverse of the temperature, at least 0; 0 is the uniform policy.

    Returns:
      [..., S, U].

    Raises:
      ValueError: If ``q`` is no such table, or ``beta`` is out of its range.

    Example:
      >>> import math, fedjax_rl as frl
      >>> frl.envs.softmax_policy([[0.0, math.log(3)]]).round(6)
      array([[0.25, 0.75]])
    """
    return scipy.special.softmax(beta * np.asarray(q, np.float64), axis=-1)


@fields.checked(mdp=fields.instance(TabularMDP))
def uniform_policy(mdp: TabularMDP) -> np.ndarray:
    """Returns every action with probability 1 / U.

    Args:
      mdp: one MDP or a family, of which S and U are taken.

    Returns:
      [S, U].

    Raises:
      ValueError: If ``mdp`` is no MDP.

    Example:
      >>> import fedjax_rl as frl
      >>> frl.envs.uniform_policy(frl.envs.random_mdp(num_states=1, num_actions=4))
      array([[0.25, 0.25, 0.25, 0.25]])
    """
    return np.full((mdp.num_states, mdp.num_actions), 1 / mdp.num_actions)
