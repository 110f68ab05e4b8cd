"""Exact solutions of one tabular MDP, in float64 on the host.

Shapes: ``S`` states, ``U`` actions, ``P = S U`` state-action pairs in C order. A policy is an
[S, U] table whose rows sum to one. Every function takes a single MDP; solve a family agent by
agent. Nothing here is traced: these are the references that learning is measured against.
"""

import dataclasses
import math

import numpy as np
import scipy.linalg
import scipy.sparse.csgraph
import scipy.special

from fedjax_rl import fields
from fedjax_rl.envs import optimal
from fedjax_rl.envs.tabular import TabularMDP, check_mdp, initial_distribution
from fedjax_rl.names import brief

_FINITE_TABLE = fields.anything(
    "finite real numbers [..., S, U]",
    lambda q: np.ndim(q) >= 2 and np.size(q) > 0 and bool(np.isfinite(fields.real_array(q)).all()),
)
_RATE = fields.number(0, above=True, follows=False)


def expected_reward(mdp: TabularMDP) -> np.ndarray:
    """Returns [S, U], the mean over next states of the reward of a state and an action."""
    transition, reward = _tables(mdp)
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
    """
    _tables(mdp, undiscounted=False)
    split = optimal.optimal_split(mdp)
    return split.gain / (1 - float(mdp.discount)) + split.apart


def policy_value(mdp: TabularMDP, policy: np.ndarray) -> np.ndarray:
    """Returns [S], the discounted value of following ``policy`` [S, U], by one linear solve.

    Raises:
      ValueError: If ``mdp`` is a family or ``policy`` is not an [S, U] table of probabilities.
    """
    check_mdp(mdp)
    _chain(mdp, policy)
    split = optimal.evaluated(mdp, np.asarray(policy, np.float64))
    return split.gain / (1 - float(mdp.discount)) + split.apart


def policy_q(mdp: TabularMDP, policy: np.ndarray) -> np.ndarray:
    """Returns [S, U], the discounted value of an action followed by ``policy`` [S, U].

    Raises:
      ValueError: As `policy_value`.
    """
    transition, _ = _tables(mdp)
    return expected_reward(mdp) + float(mdp.discount) * transition @ policy_value(mdp, policy)


@fields.checked(q=_FINITE_TABLE)
def greedy_policy(q: np.ndarray) -> np.ndarray:
    """Returns [S, U], all weight on the largest entry of each row of ``q``; the first of equals."""
    q = np.asarray(q)
    return np.eye(q.shape[-1])[q.argmax(-1)]


@fields.checked(q=_FINITE_TABLE, beta=fields.number(0, follows=False))
def softmax_policy(q: np.ndarray, beta: float = 1.0) -> np.ndarray:
    """Returns [S, U], the softmax of ``beta * q`` over actions; ``beta`` is 1 / temperature."""
    return scipy.special.softmax(beta * np.asarray(q, np.float64), axis=-1)


def uniform_policy(mdp: TabularMDP) -> np.ndarray:
    """Returns [S, U], every action with probability 1 / U."""
    fields.check("mdp", mdp, fields.instance(TabularMDP))
    return np.full((mdp.num_states, mdp.num_actions), 1 / mdp.num_actions)


def stationary_distribution(mdp: TabularMDP, policy: np.ndarray) -> np.ndarray:
    """Solves for the stationary distribution over states by state reduction.

    Grassmann, Taksar and Heyman, "Regenerative Analysis and Steady State Distributions for Markov
    Chains" (Operations Research 33, 1985). It never subtracts, so that chains which hold together
    by probabilities of 1e-26, as softmax kernels of high power do, are solved to full precision.

    Args:
      mdp: one MDP.
      policy: [S, U].

    Returns:
      [S], zero on transient states.

    Raises:
      ValueError: If the chain has several recurrent classes, and so no unique solution.
    """
    chain = _chain(mdp, policy)
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
    """Returns the reward per step of ``policy`` [S, U] in the long run.

    Raises:
      ValueError: As `stationary_distribution`.
    """
    pairs = stationary_distribution(mdp, policy)[:, None] * policy
    return float(np.sum(pairs * expected_reward(mdp)))


@fields.checked(num_steps=fields.whole(0))
def expected_return(mdp: TabularMDP, policy: np.ndarray, num_steps: int) -> float:
    """Returns the mean undiscounted sum of the first ``num_steps`` rewards of an episode.

    The distribution over states is iterated, nothing is simulated.

    Raises:
      ValueError: If ``mdp`` is a family or ``policy`` is not an [S, U] table of probabilities.
    """
    chain = _chain(mdp, policy)
    reward = np.sum(policy * expected_reward(mdp), axis=-1)
    occupation = initial_distribution(mdp)
    visits = np.zeros(mdp.num_states)
    for _ in range(num_steps):
        visits += occupation
        occupation = occupation @ chain
    return float(visits @ reward)


@dataclasses.dataclass(frozen=True, eq=False)
class LinearTheory:
    r"""Q-learning near its fixed point, to first order in the learning rate.

    With e = q - q* one update has the mean :math:`-\alpha A e` and noise of covariance
    :math:`\alpha^2 C`. The TD noise at q* is a martingale difference, so that the correlations of
    the trajectory do not enter at this order.

    Attributes:
      A: [P, P] drift, diag(mu) (I - discount G), G the greedy chain on state-action pairs.
      C: [P, P] diagonal covariance of the noise, diag(mu sigma^2).
      S: [P, P] solution of A S + S A^T = C, the covariance of e divided by the learning rate.
    """

    A: np.ndarray
    C: np.ndarray
    S: np.ndarray

    @property
    def trace_steady_state(self) -> float:
        """Tr S: the mean of ||q - q*||^2 divided by the learning rate, for one agent."""
        return float(np.trace(self.S))

    @property
    def trace_noise(self) -> float:
        """Tr C: the growth of ||q - q*||^2 per step at q*, divided by the learning rate squared."""
        return float(np.trace(self.C))

    @property
    def rate(self) -> float:
        """Lambda, the smallest real part of an eigenvalue of A."""
        return float(np.linalg.eigvals(self.A).real.min())


def linear_theory(mdp: TabularMDP, policy: np.ndarray) -> LinearTheory:
    r"""Linearises asynchronous Q-learning under a fixed behaviour policy around q*.

    .. math::
      A = diag(\mu)(I - \gamma G), \quad C = diag(\mu \sigma^2), \quad A S + S A^T = C

    with mu the stationary distribution of (s, a) under ``policy``, G the transition matrix of
    pairs whose next action is greedy in q*, and
    :math:`\sigma^2(s,a) = Var[R + \gamma \max_b q^*(s', b)]`.

    Args:
      mdp: one MDP.
      policy: [S, U] behaviour, under which every pair is visited for ever.

    Returns:
      A `LinearTheory` with P = S U.

    Raises:
      ValueError: If the stationary distribution is not unique or leaves a pair out.
    """
    transition, reward = _tables(mdp)
    discount = float(mdp.discount)
    visits = (stationary_distribution(mdp, policy)[:, None] * policy).ravel()
    if not visits.min() > 0:
        state, action = divmod(int(visits.argmin()), mdp.num_actions)
        raise ValueError(
            f"policy never visits state {state} with action {action} in the long run; allowed: "
            "one that visits every pair"
        )
    q = optimal_q(mdp)
    num_pairs = q.size
    greedy_chain = (transition[..., None] * greedy_policy(q)).reshape(num_pairs, num_pairs)
    target = reward + discount * q.max(-1)
    # Deviations before squares: the variance of a deterministic row is then exactly zero.
    deviation = target - np.sum(transition * target, axis=-1, keepdims=True)
    variance = np.sum(transition * deviation**2, axis=-1).ravel()
    A = visits[:, None] * (np.eye(num_pairs) - discount * greedy_chain)
    C = np.diag(visits * variance)
    return LinearTheory(A=A, C=C, S=scipy.linalg.solve_continuous_lyapunov(A, C))


@fields.checked(theory=fields.instance(LinearTheory), alpha=_RATE, num_agents=fields.COUNT)
def steady_state(theory: LinearTheory, alpha: float, num_agents: int = 1) -> float:
    """Returns (alpha / N) tr S, the mean of ||q - q*||^2 of N agents averaged at every step."""
    return alpha / num_agents * theory.trace_steady_state


@fields.checked(theory=fields.instance(LinearTheory), alpha=_RATE, num_steps=fields.whole(0))
def drift(theory: LinearTheory, alpha: float, num_steps: int) -> np.ndarray:
    r"""Returns how far an agent strays from its federation's mean after a synchronisation.

    .. math:: V_{j+1} = B V_j B^T + \alpha^2 C, \quad B = I - \alpha A, \quad V_0 = 0

    The squared error of a local table is then the steady state plus (1 - 1/N) tr V_j. It grows as
    :math:`\alpha^2 j \, tr C` and saturates near :math:`\alpha \, tr S`, N independent learners.

    Args:
      theory: of the MDP and the behaviour.
      alpha: learning rate.
      num_steps: number of steps since the synchronisation, >= 0.

    Returns:
      [num_steps + 1], tr V_j for j = 0, 1, ..., num_steps.
    """
    # tr V_j = alpha^2 sum_{i<j} ||B^i C^(1/2)||_F^2: one product a step, and no cancellation.
    contraction = np.eye(len(theory.A)) - alpha * theory.A
    factor = alpha * np.sqrt(theory.C)  # C is diagonal
    growth = np.zeros(num_steps + 1)
    for j in range(1, num_steps + 1):
        growth[j] = np.sum(factor**2)
        factor = contraction @ factor
    return np.cumsum(growth)


@fields.checked(
    theory=fields.instance(LinearTheory),
    alpha=_RATE,
    initial=fields.number(0, above=True, follows=False),
    threshold=fields.number(0, above=True, follows=False),
)
def time_to_threshold(
    theory: LinearTheory, alpha: float, initial: float, threshold: float
) -> float:
    r"""Returns the steps until ||q - q*||^2 falls from ``initial`` to ``threshold``.

    .. math:: T = \ln(D_0^2 / threshold) / (2 \lambda \alpha)

    The noise floor is left out: it has to lie well below the threshold.

    Args:
      theory: of the MDP and the behaviour.
      alpha: learning rate.
      initial: D_0^2, the squared distance at the start, as the threshold is one.
      threshold: in (0, initial].

    Returns:
      A number of steps, not rounded.

    Raises:
      ValueError: If the threshold is not in (0, initial].
    """
    if not threshold <= initial:
        raise ValueError(f"threshold is {threshold}; allowed: at most {initial}, the initial error")
    return math.log(initial / threshold) / (2 * theory.rate * alpha)


def _tables(mdp: TabularMDP, undiscounted: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Returns the kernel and the reward of one MDP, both [S, U, S'] float64."""
    check_mdp(mdp, undiscounted=undiscounted)
    transition = np.asarray(mdp.transition, np.float64)
    if transition.ndim != 3:
        raise ValueError(
            f"mdp has a kernel of shape {transition.shape}; allowed: one MDP, [S, U, S]; solve a "
            "family agent by agent"
        )
    return transition, np.broadcast_to(np.asarray(mdp.reward, np.float64), transition.shape)


def _chain(mdp: TabularMDP, policy: np.ndarray) -> np.ndarray:
    """Returns [S, S'], the Markov chain of states under a policy, after checking the policy."""
    transition, _ = _tables(mdp)
    fields.check("policy", policy, fields.reals("[S, U]"))
    policy = np.asarray(policy, np.float64)
    if policy.shape != transition.shape[:2]:
        raise ValueError(f"policy has shape {policy.shape}; allowed: {transition.shape[:2]}")
    if not (np.all(policy >= 0) and np.allclose(policy.sum(-1), 1, rtol=0, atol=1e-6)):
        raise ValueError(f"policy is {brief(policy.tolist())}; allowed: rows of sum 1")
    return np.einsum("su,sun->sn", policy, transition)
