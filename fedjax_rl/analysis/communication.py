"""Probabilistic communication of evolution strategies: how often theory says agents send.

Each of n agents draws one sample and sends it with the probability that it is among the best m of
n, judged by its own history alone. Here are that probability, its mean, and what a finite history
does to it; `signal_to_noise` has what the selection does to a gradient. Float64 on the host.

Source: Gunn, "Communication Efficient Distributed Reinforcement Learning", University of Oxford
(2023), sections 4.4 and 4.7; the closed forms are ours.
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

LAWS = ("normal", "exponential")
MAX_ELEMENTS = 4_000_000  # numbers drawn at a time; a few arrays of 32 MB


def communication_probability(
    probability: ArrayLike, num_senders: ArrayLike, num_agents: ArrayLike
) -> np.ndarray:
    r"""The probability that a sample beats at least n - m of n - 1 independent others.

    .. math:: P(\mathrm{Bin}(n-1, p) \ge n-m) = I_p(n-m, m) \quad (1 \le m \le n-1)

    with the regularised incomplete beta function; 0 for m = 0 and 1 for m = n. Equal to the sum of
    binomial terms to machine precision, without their overflow. Between integers it interpolates.

    Args:
        probability: p in [0, 1], that the sample beats one other.
        num_senders: m in [0, n], messages wanted per episode.
        num_agents: n, at least 1.

    Returns:
        float64, the arguments broadcast against each other.

    Raises:
        ValueError: for arguments outside these ranges.

    Examples:
        >>> from fedjax_rl import analysis
        >>> analysis.communication_probability(0.5, [1, 2], 3).tolist()  # beats both, or one of two
        [0.25, 0.75]
    """
    p, m, n = np.broadcast_arrays(
        *(np.asarray(x, dtype=np.float64) for x in (probability, num_senders, num_agents))
    )
    if not np.all((p >= 0) & (p <= 1)):
        raise ValueError("probabilities must lie in [0, 1]")
    _check_senders(m, n)
    inner = (m > 0) & (m < n)
    # a placeholder where the function is not defined
    value = special.betainc(np.where(inner, n - m, 1.0), np.where(inner, m, 1.0), p)
    return np.where(inner, value, np.where(m > 0, 1.0, 0.0))


def expected_communication(num_senders: ArrayLike, num_agents: int) -> np.ndarray:
    """Mean of the communication probability over p uniform on [0, 1], by quadrature (Fig. 4.1).

    It is m / n exactly: the mean of one minus the distribution function of Beta(n - m, m). The
    Gauss-Legendre rule taken here integrates the polynomial exactly up to rounding.

    Args:
        num_senders: m [...], whole numbers in [0, n].
        num_agents: n, at least 1.

    Returns:
        float64 [...].

    Raises:
        ValueError: for arguments outside these ranges.

    Examples:
        >>> from fedjax_rl import analysis
        >>> analysis.expected_communication([10, 25], 50).round(6).tolist()
        [0.2, 0.5]
    """
    return _moment(num_senders, num_agents, 1)


def communication_variance(num_senders: ArrayLike, num_agents: int) -> np.ndarray:
    """Variance of the communication probability over p uniform on [0, 1], by quadrature.

    Divided by the number of samples it is the mean squared error of `sampled_communication`.

    Args:
        num_senders: m [...], whole numbers in [0, n].
        num_agents: n, at least 1.

    Returns:
        float64 [...], in [0, 1 / 4].

    Raises:
        ValueError: for arguments outside these ranges.
    """
    mean = _moment(num_senders, num_agents, 1)
    return np.maximum(_moment(num_senders, num_agents, 2) - mean**2, 0.0)


def sampled_communication(
    num_senders: ArrayLike,
    num_agents: int,
    samples: int = 100_000,
    seed: int = 0,
    *,
    shared: bool = False,
) -> np.ndarray:
    """Mean of the communication probability over standard normal scores z, p = Phi(z) (Fig. 4.1).

    Args:
        num_senders: m [...], in [0, n].
        num_agents: n, at least 1.
        samples: scores per value of m, at least 1.
        seed: of the draws.
        shared: use the same scores for every m; the errors of neighbours then go together.

    Returns:
        float64 [...].

    Raises:
        ValueError: for arguments outside these ranges.
    """
    senders = _senders(num_senders, num_agents)
    check_count("samples", samples)
    rng = np.random.default_rng(seed)
    means, p = [], None
    for m in senders.ravel():
        if p is None or not shared:
            p = special.ndtr(rng.standard_normal(samples))
        means.append(communication_probability(p, m, num_agents).mean())
    return np.reshape(means, senders.shape)


def window_rate(
    num_senders: ArrayLike,
    num_agents: int,
    window: int,
    samples: int = 200_000,
    seed: int = 0,
    law: str = "normal",
) -> np.ndarray:
    """Expected communication when an agent judges a sample by its last few ones, by simulation.

    The score is the distance of the newest utility from the mean of the window it is in, over the
    window's standard deviation (divisor T), so it is at most sqrt(T - 1). In a window of one it is
    0. `normal_window_rate` is exact for one of the laws.

    Args:
        num_senders: m [...], in [0, n].
        num_agents: n, at least 1.
        window: T, utilities in the window, the newest included: the episode counted from 1 while
            the window fills, its length later.
        samples: windows drawn, the same for every m, at least 1.
        seed: of the draws.
        law: of the utilities, independent: "normal" or "exponential" (skewed to the right).

    Returns:
        float64 [...], messages per agent and episode.

    Raises:
        ValueError: for an unknown law or arguments outside these ranges.
    """
    senders = _senders(num_senders, num_agents)
    check_count("samples", samples)
    check_count("window", window)
    if law not in LAWS:
        raise ValueError(f"law must be one of {', '.join(LAWS)}, not {law!r}")
    rng = np.random.default_rng(seed)
    total = np.zeros(senders.shape)
    for size in batches(samples, window):
        draw = rng.standard_normal if law == "normal" else rng.standard_exponential
        p = special.ndtr(score(draw((size, window))))
        for place, m in np.ndenumerate(senders):
            total[place] += communication_probability(p, m, num_agents).sum()
    return total / samples


def normal_window_rate(num_senders: ArrayLike, num_agents: int, window: int) -> np.ndarray:
    r"""Expected communication under independent normal utilities, exactly.

    The score of the newest of T normal numbers among all of them is
    :math:`z = \sqrt{T-1} \cos\varphi` with the density of :math:`\varphi` proportional to
    :math:`\sin^{T-3}\varphi` on [0, pi] (an internally studentised residual); for T = 2 it is 1 or
    -1, for T = 1 it is 0. As T grows the result tends to m / n.

    Args:
        num_senders: m [...], in [0, n].
        num_agents: n, at least 1.
        window: T, utilities in the window, the newest included.

    Returns:
        float64 [...], messages per agent and episode.

    Raises:
        ValueError: for arguments outside these ranges.

    Examples:
        >>> from fedjax_rl import analysis
        >>> analysis.normal_window_rate([5, 25], 50, window=10).round(3).tolist()
        [0.108, 0.5]
    """
    senders = _senders(num_senders, num_agents)
    check_count("window", window)
    if window == 1:
        score, weight = np.zeros(1), np.ones(1)
    elif window == 2:
        score, weight = np.array([-1.0, 1.0]), np.array([0.5, 0.5])
    else:
        node, weight = np.polynomial.legendre.leggauss(400)
        # beyond nine standard deviations there is nothing
        half = np.arcsin(min(1.0, 9.0 / np.sqrt(window - 1)))
        angle = np.pi / 2 + half * node
        score = np.sqrt(window - 1) * np.cos(angle)
        weight = weight * np.sin(angle) ** (window - 3)
        weight = weight / weight.sum()
    p = special.ndtr(score)
    return communication_probability(p, senders[..., None], num_agents) @ weight


def score(windows: np.ndarray) -> np.ndarray:
    """Standard score of the newest of each window [..., T] in it; 0 in a constant window."""
    mean, variance = windows.mean(axis=-1), windows.var(axis=-1)
    variance = np.where(variance <= 1e-24 * (1.0 + mean**2), 1.0, variance)
    return (windows[..., -1] - mean) / np.sqrt(variance)


def _moment(num_senders: ArrayLike, num_agents: int, power: int) -> np.ndarray:
    senders = _senders(num_senders, num_agents)
    if np.any(senders != np.round(senders)):
        raise ValueError("num_senders must be whole numbers here")
    # degree power * (n - 1); with k nodes the rule is exact up to degree 2 k - 1
    node, weight = np.polynomial.legendre.leggauss(power * num_agents // 2 + 1)
    p = (node + 1.0) / 2.0
    return communication_probability(p, senders[..., None], num_agents) ** power @ (weight / 2.0)


def _senders(num_senders: ArrayLike, num_agents: int) -> np.ndarray:
    senders = np.asarray(num_senders, dtype=np.float64)
    _check_senders(senders, np.asarray(num_agents))
    return senders


def _check_senders(num_senders: np.ndarray, num_agents: np.ndarray) -> None:
    if not np.all((num_agents >= 1) & (num_senders >= 0) & (num_senders <= num_agents)):
        raise ValueError("num_agents must be at least 1, num_senders in [0, num_agents]")


def check_count(name: str, value: int) -> None:
    """Refuses a count below 1, by name."""
    if value < 1:
        raise ValueError(f"{name} must be at least 1, not {value}")


def batches(samples: int, width: int) -> list[int]:
    """Sizes that sum to `samples`, each of at most MAX_ELEMENTS numbers or one sample."""
    most = max(1, MAX_ELEMENTS // width)
    return [min(most, samples - start) for start in range(0, samples, most)]
