"""The error a run settles at, the author's way and the careful way.

Einhorn (2023) stops every run by a rule that looks at the agents' errors and reports the mean of
the last ten records of the agent that stopped first. Both are functions of a recorded series
alone, so a simulator can run a fixed length and apply them afterwards. The `clean` alternative is
the mean of the squared distance after a burn-in fixed in advance.

Axes: `...` runs (any leading axes), `N` agents of a federation, `M` records in order of time.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

BLOCK = 10  # records per decision of the author's rule (b), and per reported steady state


class AuthorStop(NamedTuple):
    """Where the author's rule ends each run.

    Attributes:
        num_records: int [...], records kept (1-based index of the last one); M where nothing stops.
        agent: int [...], the agent that is reported.
        stopped: bool [...], False where the rule is not met inside the records given.
    """

    num_records: np.ndarray
    agent: np.ndarray
    stopped: np.ndarray


def tail_mean(
    values: ArrayLike, last: int = BLOCK, axis: int = -1, end: ArrayLike | None = None
) -> np.ndarray:
    """Mean of the last records of each run.

    With distances `d` the author's `final` is `tail_mean(d)` (Figs 4 and 5 regress the log of its
    square) and `final_sq` is `tail_mean(d**2)` (the red line of Fig. 3); they differ by the
    variance of `d` over the tail.

    Args:
        values: recorded values, time along `axis`.
        last: number of records averaged, at least 1.
        axis: the axis of records.
        end: int, the number of records kept per run (values' shape without `axis`, or something
            that broadcasts to it); all of them by default.

    Returns:
        float64, the shape of `values` without `axis`.

    Raises:
        ValueError: if a run has fewer than `last` records.

    Examples:
        >>> from fedjax_rl import analysis
        >>> analysis.tail_mean([[5.0, 1.0, 3.0], [9.0, 4.0, 4.0]], last=2).tolist()
        [2.0, 4.0]
    """
    values = np.moveaxis(np.asarray(values, dtype=np.float64), axis, -1)
    num_records = values.shape[-1]
    end = np.asarray(num_records if end is None else end)
    if not np.all(end == np.floor(end)):
        raise ValueError(f"end is {end.tolist()}; allowed: whole numbers of records")
    if last < 1 or np.any(end < last) or np.any(end > num_records):
        raise ValueError(
            f"a tail of {last} records was asked of runs keeping {end.min()} to {end.max()} of the "
            f"{num_records} records given; allowed: 1 <= last <= end <= {num_records}"
        )
    end = np.broadcast_to(end.astype(np.int64), values.shape[:-1])
    index = end[..., None] + np.arange(-last, 0)
    return np.take_along_axis(values, index, axis=-1).mean(axis=-1)


def settled_mean(
    values: ArrayLike,
    times: ArrayLike,
    burn_in: float | None = None,
    fraction: float | None = None,
    axis: int = -1,
) -> np.ndarray:
    """Mean over everything recorded after a burn-in: the `clean` steady state.

    Give the squared distance of the server's average to get the quantity the theory bounds.

    Args:
        values: recorded values, time along `axis`.
        times: [M] environment steps of the records, or an array broadcastable to `values` with
            the records along its last axis (after `axis` has been moved there).
        burn_in: environment steps; records at times strictly greater are kept.
        fraction: instead of `burn_in`, the part of the run's last time that is left out, in [0, 1).
            Half when neither is given.
        axis: the axis of records.

    Returns:
        float64, the shape of `values` without `axis`.

    Raises:
        ValueError: if both kinds of burn-in are given, or nothing remains after it.

    Examples:
        >>> from fedjax_rl import analysis
        >>> float(analysis.settled_mean([9.0, 2.0, 4.0], [10, 20, 30], burn_in=15))
        3.0
    """
    values = np.moveaxis(np.asarray(values, dtype=np.float64), axis, -1)
    times = np.broadcast_to(np.asarray(times, dtype=np.float64), values.shape)
    if burn_in is not None and fraction is not None:
        raise ValueError("give the burn-in either in steps (burn_in) or as a fraction, not both")
    if burn_in is None:
        fraction = 0.5 if fraction is None else fraction
        if not 0.0 <= fraction < 1.0:
            raise ValueError(f"fraction must lie in [0, 1), not {fraction}")
        burn_in = fraction * times.max(axis=-1, keepdims=True)
    kept = times > burn_in
    if not np.all(kept.any(axis=-1)):
        raise ValueError(
            f"no record after a burn-in of {np.max(burn_in):g} steps: "
            f"the shortest run ends at {times.max(axis=-1).min():g}"
        )
    return values.mean(axis=-1, where=kept)


def author_stop(
    distance: ArrayLike,
    rng: np.random.Generator,
    threshold: float = 0.01,
    min_records: int = 30,
) -> AuthorStop:
    """Einhorn's stop rule as a function of the recorded distances.

    After record m an agent stops when (a) `d[m] < threshold`, or (b) `m >= min_records`, m is a
    multiple of ten and the mean of its last ten records exceeds the mean of the ten before. The
    run ends when any agent stops and reports that agent; of several, one drawn uniformly (the
    original is a race between processes). The choice favours agents whose error has just risen.

    Args:
        distance: [..., N, M] distances `||q_i - q*||` (not squared) at the measuring times. N = 1
            is a run of one agent.
        rng: draws one uniform number per run for the choice among agents; advanced.
        threshold: of rule (a), on the distance.
        min_records: first record at which rule (b) may apply.

    Returns:
        The record and the agent at which each run stops. Where the records end first, all of them
        are kept and the agent is drawn among all that have a finite record: where federations of
        different size lie side by side, agents past N are NaN and do not exist.
    """
    distance = np.asarray(distance, dtype=np.float64)
    if distance.ndim < 2 or 0 in distance.shape[-2:]:
        raise ValueError(f"distance must be [..., agents, records], not {distance.shape}")
    num_records = distance.shape[-1]

    qualifies = distance < threshold
    # Rule (b) is only looked at on multiples of ten, so its windows are disjoint blocks. Their
    # means are taken directly: differences of a running sum would break ties of equal blocks.
    num_blocks = num_records // BLOCK
    blocks = distance[..., : num_blocks * BLOCK].reshape(*distance.shape[:-1], num_blocks, BLOCK)
    blocks = blocks.mean(axis=-1)
    decisions = BLOCK * np.arange(2, num_blocks + 1)
    rises = (blocks[..., 1:] > blocks[..., :-1]) & (decisions >= min_records)
    qualifies[..., decisions - 1] |= rises

    any_agent = qualifies.any(axis=-2)
    stopped = any_agent.any(axis=-1)
    record = np.where(stopped, any_agent.argmax(axis=-1), num_records - 1)
    candidates = np.take_along_axis(qualifies, record[..., None, None], axis=-1)[..., 0]
    there = np.isfinite(distance).any(axis=-1)
    there |= ~there.any(axis=-1, keepdims=True)  # nobody has: any agent is as good
    candidates |= ~stopped[..., None] & there
    rank = np.floor(rng.random(stopped.shape) * candidates.sum(axis=-1)).astype(int)
    agent = (candidates & (candidates.cumsum(axis=-1) == rank[..., None] + 1)).argmax(axis=-1)
    return AuthorStop(record + 1, agent, stopped)


def reported_agent(values: ArrayLike, agent: ArrayLike) -> np.ndarray:
    """The series of the agent that is reported.

    Args:
        values: [..., N, M] one series per agent.
        agent: int [...], as returned by `author_stop`.

    Returns:
        [..., M]
    """
    agent = np.asarray(agent)[..., None, None]
    return np.take_along_axis(np.asarray(values), agent, axis=-2)[..., 0, :]


def author_final(
    distance: ArrayLike, stop: AuthorStop, last: int = BLOCK
) -> tuple[np.ndarray, np.ndarray]:
    """The author's two steady-state values of the reported agent.

    A run that rule (a) ends before its tenth record averages the records it has, as slicing
    `d[-10:]` does.

    Args:
        distance: [..., N, M] distances (not squared), as given to `author_stop`.
        stop: what `author_stop` returned for them.
        last: number of records averaged.

    Returns:
        `final` [...] = mean of d, whose square is regressed in Figs 4 and 5, and
        `final_sq` [...] = mean of d**2, the line of Fig. 3.
    """
    series = reported_agent(np.asarray(distance, dtype=np.float64), stop.agent)
    position = np.arange(series.shape[-1])
    end = np.asarray(stop.num_records)[..., None]
    kept = (position < end) & (position >= end - last)
    return series.mean(axis=-1, where=kept), (series**2).mean(axis=-1, where=kept)
