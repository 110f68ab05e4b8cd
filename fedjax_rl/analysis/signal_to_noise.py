"""What sending only some perturbations does to the gradient of evolution strategies.

Closed forms and simulations of a local model of the returns, beside `communication`, which says how
often agents send. Float64 on the host.

Source: Gunn, "Communication Efficient Distributed Reinforcement Learning", University of Oxford
(2023), sections 4.4 and 4.7; the closed forms are ours.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, special, stats

from fedjax_rl.analysis.communication import batches, check_count, communication_probability, score

METHODS = ("raw", "center", "top", "probabilistic", "probabilistic_baseline")
DENOMINATORS = ("received", "n")


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

    Examples:
        >>> from fedjax_rl import analysis
        >>> [round(x, 3) for x in analysis.best_fraction()]
        [0.27, 0.636]
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

    Examples:
        >>> from fedjax_rl import analysis
        >>> analysis.ideal_signal_to_noise("raw", [0.0, 2.0], num_agents=50).round(2).tolist()
        [3.54, 1.58]
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
    check_count("samples", samples)
    check_count("window", window)
    if num_parameters < 2:
        raise ValueError(f"num_parameters must be at least 2, not {num_parameters}")
    if method == "center" and num_agents < 2:
        raise ValueError("centred returns of one agent are zero")
    rng = np.random.default_rng(seed)
    past = {"probabilistic": window - 1, "probabilistic_baseline": 2 * window - 1}.get(method, 0)
    signals, noises, sent = [], [], 0.0
    for size in batches(samples, num_agents * (past + 1)):
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
    p = special.ndtr(score(utility))
    return weight, rng.random(now.shape) < communication_probability(p, num_senders, num_agents)


def _check_model(method: str, num_agents: int, num_senders: int, correlation: float) -> None:
    if num_agents < 1:
        raise ValueError(f"num_agents must be at least 1, not {num_agents}")
    if method not in ("raw", "center") and not 1 <= num_senders <= num_agents:
        raise ValueError(f"num_senders must lie in [1, {num_agents}], not {num_senders}")
    if not 0 <= correlation <= 1:
        raise ValueError(f"correlation must lie in [0, 1], not {correlation}")


def _fraction(fraction: ArrayLike) -> np.ndarray:
    fraction = np.asarray(fraction, dtype=np.float64)
    if not np.all((fraction > 0) & (fraction <= 1)):
        raise ValueError("the fraction that is kept must lie in (0, 1]")
    return fraction
