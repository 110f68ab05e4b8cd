"""Probabilistic communication of evolution strategies: what theory says.

Each of n agents draws one sample and sends it with the probability that it is among the best m of
n, judged by its own history alone. Here are that probability, its mean, what a finite history does
to it, and what the selection does to a gradient estimate. Float64 on the host.

Source: Gunn, "Communication Efficient Distributed Reinforcement Learning", University of Oxford
(2023), sections 4.4 and 4.7; the closed forms are ours.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, special, stats

METHODS = ("raw", "center", "top", "probabilistic", "probabilistic_baseline")
LAWS = ("normal", "exponential")
DENOMINATORS = ("received", "n")
MAX_ELEMENTS = 4_000_000  # numbers drawn at a time; a few arrays of 32 MB


class SignalToNoise(NamedTuple):
    """How well an estimate of a gradient points.

    Attributes:
        value: mean component along the gradient over the noise of one other coordinate.
        standard_error: of `value`, from the finite number of episodes.
        frequency: messages per agent and episode, in [0, 1].
    """

    value: float
    standard_error: float
    frequency: float


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
    _check_count("samples", samples)
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
    _check_count("samples", samples)
    _check_count("window", window)
    if law not in LAWS:
        raise ValueError(f"law must be one of {', '.join(LAWS)}, not {law!r}")
    rng = np.random.default_rng(seed)
    total = np.zeros(senders.shape)
    for size in _batches(samples, window):
        draw = rng.standard_normal if law == "normal" else rng.standard_exponential
        p = special.ndtr(_score(draw((size, window))))
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
    """
    senders = _senders(num_senders, num_agents)
    _check_count("window", window)
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


def selection_intensity(fraction: ArrayLike) -> np.ndarray:
    """Mean of the largest part of a standard normal population, phi(z_a) / a.

    Args:
        fraction: a in (0, 1], the part that is kept.

    Returns:
        float64, alike.

    Raises:
        ValueError: for fractions outside (0, 1].
    """
    a = _fraction(fraction)
    return stats.norm.pdf(special.ndtri(a)) / a  # the density is even: z_a = -ndtri(a)


def best_fraction() -> tuple[float, float]:
    """The part to keep that gives the most signal to noise, for returns far from zero.

    Returns:
        a, and i(a) sqrt(a): the signal to noise relative to centred returns of all agents.
    """
    found = optimize.minimize_scalar(
        lambda a: -selection_intensity(a) * np.sqrt(a),
        bounds=(0.01, 0.99),
        method="bounded",
        options={"xatol": 1e-9},
    )
    return float(found.x), float(-found.fun)


def selection_threshold(fraction: ArrayLike) -> np.ndarray:
    """The b / S beyond which keeping a part of the samples beats raw returns of all agents.

    Args:
        fraction: a in (0, 1), the part that is kept.

    Returns:
        float64, alike: sqrt(1 / (i(a)^2 a) - 1); infinite for a = 1. It uses the limit of large
        b / S for the selection, so it is a guide rather than a bound.
    """
    a = _fraction(fraction)
    with np.errstate(divide="ignore"):
        return np.sqrt(np.maximum(1.0 / (selection_intensity(a) ** 2 * a) - 1.0, 0.0))


def ideal_signal_to_noise(
    method: str,
    ratio: ArrayLike,
    num_agents: int = 50,
    num_senders: int = 25,
    correlation: float = 0.5,
    num_parameters: float = np.inf,
) -> np.ndarray:
    r"""Signal to noise of a gradient estimate in closed form; the model of `signal_to_noise`.

    =========  ==================================================================================
    raw        :math:`r \sqrt n / \sqrt{1 + \rho^2}`, exact
    center     :math:`r \sqrt{n-1}`, exact
    top        the best m = a n by utility, raw weights; with :math:`z = \Phi^{-1}(1-a)`,
               :math:`c = 1 / \sqrt{1 + \rho^2 / 2q}` and :math:`v = 1 + c^2 z\,i(a)`:
               :math:`r \sqrt{a n}\,(\rho c\,i(a) + v) / \sqrt{\rho^2 + 2 \rho c\,i(a) + v}`,
               for large n; it tends to :math:`r\,i(a) \sqrt{a n}` with :math:`\rho \to \infty`
               and many parameters
    =========  ==================================================================================

    The factor c is the part of a utility's spread that comes from the return: the norm of the
    perturbation, of relative spread :math:`1 / \sqrt{2q}`, is noise times b.

    Args:
        method: "raw", "center" or "top".
        ratio: rho = b / S [...], mean over standard deviation of the returns; may be infinite for
            "center" and "top".
        num_agents: n, at least 1.
        num_senders: m in [1, n]; of "top" alone.
        correlation: r of the return with the direction of the gradient, in [0, 1].
        num_parameters: q; infinite where utility is the return itself.

    Returns:
        float64 [...].

    Raises:
        ValueError: for another method or arguments outside these ranges.
    """
    ratio = np.asarray(ratio, dtype=np.float64)
    _check_model(method, num_agents, num_senders, correlation)
    if method == "raw":
        return correlation * np.sqrt(num_agents) / np.hypot(1.0, ratio)
    if method == "center":
        return np.full(ratio.shape, correlation * np.sqrt(num_agents - 1.0))
    if method != "top":
        raise ValueError(f"there is a closed form for raw, center and top, not for {method!r}")
    a = num_senders / num_agents
    intensity, z = selection_intensity(a), -special.ndtri(a)
    scale = correlation * np.sqrt(num_senders)
    if num_senders == num_agents:  # nothing is selected: raw returns
        return scale / np.hypot(1.0, ratio)
    finite = np.where(np.isfinite(ratio), ratio, 0.0)
    c = 1.0 / np.sqrt(1.0 + finite**2 / (2.0 * num_parameters))
    v = 1.0 + c**2 * z * intensity
    value = (finite * c * intensity + v) / np.sqrt(finite**2 + 2.0 * finite * c * intensity + v)
    limit = np.sign(ratio) * intensity if np.isinf(num_parameters) else 0.0
    return scale * np.where(np.isfinite(ratio), value, limit)


def signal_to_noise(
    method: str,
    ratio: float,
    num_agents: int = 50,
    num_senders: int = 25,
    window: int = 5,
    num_parameters: int = 130,
    correlation: float = 0.5,
    samples: int = 4000,
    seed: int = 0,
    denominator: str = "received",
) -> SignalToNoise:
    r"""Signal to noise of one estimate of the gradient, by simulation of a local model.

    With a perturbation :math:`\epsilon \sim N(0, I_q)` and a gradient along the unit vector u,

    .. math:: F = b + S (r\, u \cdot \epsilon + \sqrt{1 - r^2}\, \xi), \quad \xi \sim N(0, 1)

    The estimate is :math:`\sum_{i \in C} w_i \epsilon_i / |C|` over the senders C:

    - raw: every agent, w = F.
    - center: every agent, w = F minus the mean over agents.
    - top: the m agents of largest U = F |epsilon|, w = F; nobody can do this without talking.
    - probabilistic: agent i sends with `communication_probability` of its score in its own full
      window of utilities U; w = F.
    - probabilistic_baseline: the same with the advantage A = F - mean of the agent's `window`
      returns before, U = abs(A) |epsilon|, w = A.

    The directions across u are never drawn: weights depend on them through their norm alone, so
    the noise of a coordinate is :math:`\sum_i w_i^2 |\epsilon_{\perp i}|^2 / (q - 1) / |C|^2` in
    the mean. An episode in which nobody sends makes no estimate and is left out. Dividing by n
    instead of |C| gives more where few send: a few lone senders then make less of the noise.

    Args:
        method: see above.
        ratio: b / S, of either sign.
        num_agents: n, at least 1; 2 for "center".
        num_senders: m in [1, n]; of the last three methods.
        window: k, utilities in the window, the newest included, and returns in the baseline.
        num_parameters: q, at least 2.
        correlation: r in [0, 1].
        samples: episodes simulated. The standard error is 1 to 1.5 over its square root.
        seed: of the draws; methods of one seed share them only in part.
        denominator: "received" divides by the number of senders, "n" by that of agents.

    Returns:
        The ratio, its standard error and the frequency of messages.

    Raises:
        ValueError: for an unknown method, arguments outside these ranges, or when nobody ever
            sends.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, not {method!r}")
    if denominator not in DENOMINATORS:
        raise ValueError(
            f"denominator must be one of {', '.join(DENOMINATORS)}, not {denominator!r}"
        )
    _check_model(method, num_agents, num_senders, correlation)
    _check_count("samples", samples)
    _check_count("window", window)
    if num_parameters < 2:
        raise ValueError(f"num_parameters must be at least 2, not {num_parameters}")
    if method == "center" and num_agents < 2:
        raise ValueError("centred returns of one agent are zero")
    rng = np.random.default_rng(seed)
    past = {"probabilistic": window - 1, "probabilistic_baseline": 2 * window - 1}.get(method, 0)
    signals, noises, sent = [], [], 0.0
    for size in _batches(samples, num_agents * (past + 1)):
        shape = (size, num_agents, past + 1)  # the last episode is now
        along = rng.standard_normal(shape)
        across = rng.chisquare(num_parameters - 1, shape)
        rest = rng.standard_normal(shape)
        returns = ratio + correlation * along + np.sqrt(1.0 - correlation**2) * rest
        weight, chosen = _selected(
            method, returns, np.sqrt(along**2 + across), num_agents, num_senders, window, rng
        )
        count = chosen.sum(axis=1)
        kept = count > 0
        divisor = count[kept, None] if denominator == "received" else num_agents
        weight = np.where(chosen, weight, 0.0)[kept] / divisor
        signals.append((weight * along[kept, :, -1]).sum(axis=1))
        noises.append((weight**2 * across[kept, :, -1]).sum(axis=1) / (num_parameters - 1.0))
        sent += count.sum()
    signal, noise = np.concatenate(signals), np.concatenate(noises)
    if not signal.size:
        raise ValueError(f"nobody sent in {samples} episodes; give more samples or senders")
    value = signal.mean() / np.sqrt(noise.mean())
    # delta method; the value is a ratio of two means over episodes
    spread = signal / np.sqrt(noise.mean()) - value * noise / (2.0 * noise.mean())
    error = spread.std(ddof=1) / np.sqrt(spread.size) if spread.size > 1 else np.nan
    return SignalToNoise(float(value), float(error), float(sent / (samples * num_agents)))


def _selected(method, returns, norm, num_agents, num_senders, window, rng):
    """Weights float64 [M, n] and senders bool [M, n] of the newest of the episodes [M, n, e]."""
    now = returns[..., -1]
    everyone = np.ones(now.shape, dtype=bool)
    if method == "raw":
        return now, everyone
    if method == "center":
        return now - now.mean(axis=1, keepdims=True), everyone
    if method == "top":
        utility = now * norm[..., -1]
        last = np.partition(utility, num_agents - num_senders, axis=1)
        return now, utility >= last[:, num_agents - num_senders, None]
    if method == "probabilistic":
        weight, utility = now, returns * norm
    else:
        total = np.cumsum(np.concatenate([np.zeros((*now.shape, 1)), returns], axis=-1), axis=-1)
        before = (total[..., window:-1] - total[..., : -window - 1]) / window
        advantage = returns[..., window:] - before
        weight, utility = advantage[..., -1], np.abs(advantage) * norm[..., window:]
    p = special.ndtr(_score(utility))
    return weight, rng.random(now.shape) < communication_probability(p, num_senders, num_agents)


def _score(windows: np.ndarray) -> np.ndarray:
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


def _check_model(method: str, num_agents: int, num_senders: int, correlation: float) -> None:
    if num_agents < 1:
        raise ValueError(f"num_agents must be at least 1, not {num_agents}")
    if method not in ("raw", "center") and not 1 <= num_senders <= num_agents:
        raise ValueError(f"num_senders must lie in [1, {num_agents}], not {num_senders}")
    if not 0 <= correlation <= 1:
        raise ValueError(f"correlation must lie in [0, 1], not {correlation}")


def _check_count(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name} must be at least 1, not {value}")


def _fraction(fraction: ArrayLike) -> np.ndarray:
    fraction = np.asarray(fraction, dtype=np.float64)
    if not np.all((fraction > 0) & (fraction <= 1)):
        raise ValueError("the fraction that is kept must lie in (0, 1]")
    return fraction


def _batches(samples: int, width: int) -> list[int]:
    """Sizes that sum to `samples`, each of at most MAX_ELEMENTS numbers or one sample."""
    most = max(1, MAX_ELEMENTS // width)
    return [min(most, samples - start) for start in range(0, samples, most)]
