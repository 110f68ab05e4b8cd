"""Exact solutions of one tabular MDP, in float64 on the host.

Shapes: ``S`` states, ``U`` actions, ``P = S U`` state-action pairs in C order. A policy is an
[S, U] table whose rows sum to one. Every function takes a single MDP; solve a family agent by
agent. Nothing here is traced: these are the references that learning is measured against.
"""

import numpy as np
import scipy.sparse.csgraph

from fedjax_rl import fields
from fedjax_rl.envs import optimal
from fedjax_rl.envs.tabular import TabularMDP, check_mdp, initial_distribution
from fedjax_rl.names import brief


def expected_reward(mdp: TabularMDP) -> np.ndarray:
    """Returns the mean over next states of the reward of a state and an action.

    Args:
      mdp: one MDP.

    Returns:
      [S, U].

    Raises:
      ValueError: If ``mdp`` is a family.

    Example:
      >>> import fedjax_rl as frl
      >>> frl.envs.expected_reward(frl.envs.paper_mdp()).shape
      (4, 3)
    """
    transition, reward = tables_of(mdp)
    return np.sum(transition * reward, axis=-1)


def optimal_q(mdp: TabularMDP) -> np.ndarray:
    """Solves the Bellman optimality equation by policy iteration; see `envs.optimal`.

    Right to rounding for every discount below 1, in a few linear solves.

    Args:
      mdp: one MDP.

    Returns:
      [S, U] optimal action values.

    Raises:
      ValueError: If ``mdp`` is a family, or rows of its kernel exceed one by so much that values
        diverge.

    Example:
      >>> import numpy as np, fedjax_rl as frl
      >>> kernel = np.array([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]])
      >>> mdp = frl.envs.tabular_mdp(kernel, [0.0, 1.0], 0.5)  # 1 for being in state 1
      >>> frl.envs.optimal_q(mdp).round(6)
      array([[1., 2.],
             [2., 2.]])
    """
    tables_of(mdp, undiscounted=False)
    # The gain apart: near discount 1 it dwarfs the differences that policies are chosen by.
    split = optimal.optimal_split(mdp)
    return split.gain / (1 - float(mdp.discount)) + split.apart


def policy_value(mdp: TabularMDP, policy: np.ndarray) -> np.ndarray:
    """Returns the discounted value of following a policy, by one linear solve.

    Args:
      mdp: one MDP.
      policy: [S, U], rows of probabilities.

    Returns:
      [S].

    Raises:
      ValueError: If ``mdp`` is a family or ``policy`` is not an [S, U] table of probabilities.

    Example:
      >>> import fedjax_rl as frl
      >>> mdp = frl.envs.paper_mdp()
      >>> q = frl.envs.optimal_q(mdp)
      >>> value = frl.envs.policy_value(mdp, frl.envs.greedy_policy(q))
      >>> bool(abs(value - q.max(-1)).max() < 1e-12)
      True
    """
    check_mdp(mdp)
    chain_of(mdp, policy)
    split = optimal.evaluated(mdp, np.asarray(policy, np.float64))
    return split.gain / (1 - float(mdp.discount)) + split.apart


def policy_q(mdp: TabularMDP, policy: np.ndarray) -> np.ndarray:
    """Returns the discounted value of an action that is followed by a policy.

    Args:
      mdp: one MDP.
      policy: [S, U], rows of probabilities.

    Returns:
      [S, U].

    Raises:
      ValueError: As `policy_value`.

    Example:
      >>> import fedjax_rl as frl
      >>> mdp = frl.envs.paper_mdp()
      >>> policy = frl.envs.uniform_policy(mdp)
      >>> value = (policy * frl.envs.policy_q(mdp, policy)).sum(-1)
      >>> bool(abs(value - frl.envs.policy_value(mdp, policy)).max() < 1e-12)
      True
    """
    transition, _ = tables_of(mdp)
    return expected_reward(mdp) + float(mdp.discount) * transition @ policy_value(mdp, policy)


def stationary_distribution(mdp: TabularMDP, policy: np.ndarray) -> np.ndarray:
    """Solves for the stationary distribution over states by state reduction.

    Grassmann, Taksar and Heyman, "Regenerative Analysis and Steady State Distributions for Markov
    Chains" (Operations Research 33, 1985). It never subtracts, so that chains which hold together
    by probabilities of 1e-26, as softmax kernels of high power do, are solved to full precision.

    Args:
      mdp: one MDP.
      policy: [S, U], rows of probabilities.

    Returns:
      [S], zero on transient states.

    Raises:
      ValueError: If the chain has several recurrent classes, and so no unique solution, or as
        `policy_value`.

    Example:
      >>> import numpy as np, fedjax_rl as frl
      >>> mdp = frl.envs.tabular_mdp([[[0.8, 0.2]], [[0.6, 0.4]]], [0.0, 1.0], 0.5)
      >>> frl.envs.stationary_distribution(mdp, np.ones((2, 1))).round(6)
      array([0.75, 0.25])
    """
    chain = chain_of(mdp, policy)
    # A class that no transition leaves is recurrent, however small the others' probabilities are:
    # eigenvectors could not tell one of 1e-26 from 0.
    _, label = scipy.sparse.csgraph.connected_components(chain > 0, connection="strong")
    leaves = np.any((chain > 0) & (label[:, None] != label), axis=1)
    classes = [np.flatnonzero(label == c) for c in np.unique(label) if not leaves[label == c].any()]
    if len(classes) != 1:
        raise ValueError(
            "policy has no unique stationary distribution: the states "
            f"{[c.tolist() for c in classes]} are separate recurrent classes; allowed: a policy "
            "with one"
        )

    (recurrent,) = classes
    reduced = chain[np.ix_(recurrent, recurrent)]
    for n in range(len(recurrent) - 1, 0, -1):
        reduced[:n, n] /= reduced[n, :n].sum()
        reduced[:n, :n] += np.outer(reduced[:n, n], reduced[n, :n])
    weights = np.ones(len(recurrent))
    for n in range(1, len(recurrent)):
        weights[n] = weights[:n] @ reduced[:n, n]
    stationary = np.zeros(mdp.num_states)
    stationary[recurrent] = weights / weights.sum()
    return stationary


def average_reward(mdp: TabularMDP, policy: np.ndarray) -> float:
    """Returns the reward per step of a policy in the long run.

    Args:
      mdp: one MDP.
      policy: [S, U], rows of probabilities.

    Returns:
      A number.

    Raises:
      ValueError: As `stationary_distribution`.

    Example:
      >>> import numpy as np, fedjax_rl as frl
      >>> mdp = frl.envs.tabular_mdp([[[0.8, 0.2]], [[0.6, 0.4]]], [0.0, 1.0], 0.5)
      >>> round(frl.envs.average_reward(mdp, np.ones((2, 1))), 6)
      0.25
    """
    pairs = stationary_distribution(mdp, policy)[:, None] * policy
    return float(np.sum(pairs * expected_reward(mdp)))


@fields.checked(num_steps=fields.whole(0))
def expected_return(mdp: TabularMDP, policy: np.ndarray, num_steps: int) -> float:
    """Returns the mean undiscounted sum of the first rewards of an episode.

    The distribution over states is iterated, nothing is simulated.

    Args:
      mdp: one MDP.
      policy: [S, U], rows of probabilities.
      num_steps: T, of the episode, at least 0.

    Returns:
      A number.

    Raises:
      ValueError: If ``mdp`` is a family or ``policy`` is not an [S, U] table of probabilities.

    Example:
      >>> import numpy as np, fedjax_rl as frl
      >>> mdp = frl.envs.tabular_mdp(np.full((2, 1, 2), 0.5), [0.0, 1.0], 0.9)
      >>> frl.envs.expected_return(mdp, np.ones((2, 1)), 3)
      1.5
    """
    chain = chain_of(mdp, policy)
    reward = np.sum(policy * expected_reward(mdp), axis=-1)
    occupation = initial_distribution(mdp)
    visits = np.zeros(mdp.num_states)
    # Rewards are weighted once, by all visits: a step costs a product and no more.
    for _ in range(num_steps):
        visits += occupation
        occupation = occupation @ chain
    return float(visits @ reward)


def tables_of(mdp: TabularMDP, undiscounted: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Returns the kernel and the reward of one MDP, both [S, U, S'] float64, after checking it.

    Args:
      mdp: one MDP.
      undiscounted: whether a discount of 1 is allowed.

    Raises:
      ValueError: If ``mdp`` is a family, or no MDP.
    """
    check_mdp(mdp, undiscounted=undiscounted)
    transition = np.asarray(mdp.transition, np.float64)
    if transition.ndim != 3:
        raise ValueError(
            f"mdp has a kernel of shape {transition.shape}; allowed: one MDP, [S, U, S]; solve a "
            "family agent by agent"
        )
    return transition, np.broadcast_to(np.asarray(mdp.reward, np.float64), transition.shape)


def chain_of(mdp: TabularMDP, policy: np.ndarray) -> np.ndarray:
    """Returns the Markov chain of states under a policy, after checking both.

    Args:
      mdp: one MDP.
      policy: [S, U], rows of probabilities.

    Returns:
      [S, S'].

    Raises:
      ValueError: As `policy_value`.
    """
    transition, _ = tables_of(mdp)
    fields.check("policy", policy, fields.reals("[S, U]"))
    policy = np.asarray(policy, np.float64)
    if policy.shape != transition.shape[:2]:
        raise ValueError(f"policy has shape {policy.shape}; allowed: {transition.shape[:2]}")
    if not (np.all(policy >= 0) and np.allclose(policy.sum(-1), 1, rtol=0, atol=1e-6)):
        raise ValueError(f"policy is {brief(policy.tolist())}; allowed: rows of sum 1")
    return np.einsum("su,sun->sn", policy, transition)
