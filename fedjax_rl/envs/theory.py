"""What first-order theory says of Q-learning near its fixed point, in float64 on the host.

Shapes: ``S`` states, ``U`` actions, ``P = S U`` state-action pairs in C order.
"""

import dataclasses
import math

import numpy as np
import scipy.linalg

from fedjax_rl import fields
from fedjax_rl.envs.policies import greedy_policy
from fedjax_rl.envs.solvers import optimal_q, stationary_distribution, tables_of
from fedjax_rl.envs.tabular import TabularMDP

_RATE = fields.number(0, above=True, follows=False)


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

    Example:
      >>> import fedjax_rl as frl
      >>> mdp = frl.envs.paper_mdp()
      >>> theory = frl.envs.linear_theory(mdp, frl.envs.uniform_policy(mdp))
      >>> theory.A.shape
      (12, 12)
    """
    transition, reward = tables_of(mdp)
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
    """Returns (alpha / N) tr S, the mean of ||q - q*||^2 of N agents averaged at every step.

    Args:
      theory: of the MDP and the behaviour.
      alpha: learning rate, above 0.
      num_agents: N, at least 1.

    Returns:
      A squared Frobenius distance.

    Raises:
      ValueError: If an argument is out of its range.

    Example:
      >>> import fedjax_rl as frl
      >>> mdp = frl.envs.paper_mdp()
      >>> theory = frl.envs.linear_theory(mdp, frl.envs.uniform_policy(mdp))
      >>> bool(frl.envs.steady_state(theory, 0.1, 4) * 4 == frl.envs.steady_state(theory, 0.1))
      True
    """
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

    Raises:
      ValueError: If an argument is out of its range.

    Example:
      >>> import fedjax_rl as frl
      >>> mdp = frl.envs.paper_mdp()
      >>> theory = frl.envs.linear_theory(mdp, frl.envs.uniform_policy(mdp))
      >>> drifts = frl.envs.drift(theory, 0.1, 2)
      >>> drifts.shape, float(drifts[0])
      ((3,), 0.0)
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
      ValueError: If the threshold is not in (0, initial], or an argument is out of its range.

    Example:
      >>> import fedjax_rl as frl
      >>> mdp = frl.envs.paper_mdp()
      >>> theory = frl.envs.linear_theory(mdp, frl.envs.uniform_policy(mdp))
      >>> fast, slow = (frl.envs.time_to_threshold(theory, a, 10.0, 0.1) for a in (0.2, 0.1))
      >>> round(slow / fast, 9)
      2.0
    """
    if not threshold <= initial:
        raise ValueError(f"threshold is {threshold}; allowed: at most {initial}, the initial error")
    return math.log(initial / threshold) / (2 * theory.rate * alpha)
