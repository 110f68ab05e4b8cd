"""Published bounds to lay over measurements."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


class BoundTerms(NamedTuple):
    """The terms of a bound on the squared distance, each broadcast to one shape.

    Attributes:
        initial: what is left of the starting error.
        variance: sampling noise, falls with the number of agents.
        drift: disagreement built up between synchronisations; vanishes at K = 1.
        bias: higher order in the learning rate.
    """

    initial: np.ndarray
    variance: np.ndarray
    drift: np.ndarray
    bias: np.ndarray

    @property
    def total(self) -> np.ndarray:
        """The bound: the sum of its terms."""
        return self.initial + self.variance + self.drift + self.bias


def khodadadian_bound(
    learning_rate: ArrayLike,
    num_agents: ArrayLike,
    sync_period: ArrayLike,
    num_steps: ArrayLike,
    tau: ArrayLike = 1.0,
    constants: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
    c: float = 1.0,
) -> BoundTerms:
    r"""Structure of the bound of federated Q-learning under Markovian sampling, term by term.

    .. math::
        E \|\bar Q_T - Q^*\|_\infty^2 \le \frac{C_1}{\alpha} (1 - c\alpha)^T
            + C_2 \frac{\alpha \tau^2}{N} + C_3 (K-1) \alpha^2 \tau + C_4 \alpha^3 \tau^2

    Khodadadian, Sharma, Joshi, Maguluri, "Federated Reinforcement Learning: Linear Speedup Under
    Markovian Sampling", arXiv 2206.10185. It bounds the sup norm of the average over agents at a
    random late time, not one local table in Frobenius norm at the end. The constants depend on the
    discount, the mixing and the smallest stationary probability; ones show the shape only.

    Args:
        learning_rate: alpha.
        num_agents: N.
        sync_period: K, local steps per round.
        num_steps: T, environment steps of each agent.
        tau: mixing time, O(log(1 / alpha)).
        constants: C1 to C4.
        c: rate of forgetting the start; c alpha must not exceed 1.

    Returns:
        The four terms; arguments broadcast against each other.
    """
    alpha, agents, period, steps, mixing = np.broadcast_arrays(
        *(
            np.asarray(x, dtype=np.float64)
            for x in (learning_rate, num_agents, sync_period, num_steps, tau)
        )
    )
    if np.any(alpha <= 0) or np.any(c * alpha > 1):
        raise ValueError(f"learning rates must lie in (0, {1 / c:g}] (c = {c:g})")
    if np.any(agents < 1) or np.any(period < 1):
        raise ValueError("num_agents and sync_period must be at least 1")
    c1, c2, c3, c4 = constants
    return BoundTerms(
        initial=c1 / alpha * (1.0 - c * alpha) ** steps,
        variance=c2 * alpha * mixing**2 / agents,
        drift=c3 * (period - 1.0) * alpha**2 * mixing,
        bias=c4 * alpha**3 * mixing**2,
    )


def einhorn_bound(
    learning_rate: ArrayLike,
    num_agents: ArrayLike,
    sync_period: ArrayLike,
    num_steps: ArrayLike,
    tau: ArrayLike = 1.0,
) -> BoundTerms:
    """EQ 1 of Einhorn (2023): `khodadadian_bound` without its last term and without constants.

    With tau = 1 its last two terms are what the paper's EQ 2 factors and Fig. 5 regresses. The
    measured rate of forgetting is 2 lambda = 0.064 times that of `(1 - alpha)^T`
    (specification 5.2).

    Args:
        learning_rate: alpha.
        num_agents: N.
        sync_period: K.
        num_steps: T.
        tau: mixing time.

    Returns:
        The terms, the last one zero.

    Examples:
        >>> from fedjax_rl import analysis
        >>> one, many = (analysis.einhorn_bound(0.1, n, 1, num_steps=1000) for n in (1, 16))
        >>> bool(many.total < one.total)
        True
    """
    return khodadadian_bound(
        learning_rate, num_agents, sync_period, num_steps, tau, constants=(1.0, 1.0, 1.0, 0.0)
    )
