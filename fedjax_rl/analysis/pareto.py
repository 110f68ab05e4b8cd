"""What nothing else beats: points of low cost and high value."""

import numpy as np
from numpy.typing import ArrayLike


def pareto_front(cost: ArrayLike, value: ArrayLike) -> np.ndarray:
    """The points to which no other is at least as cheap, at least as good, and better in one.

    Args:
        cost: [P], smaller is better, e.g. bytes sent.
        value: [P], larger is better, e.g. the return; negate an error.

    Returns:
        int64 [F], indices in order of increasing cost, hence of increasing value. Of points that
        coincide all are listed, in the order given; one with a NaN never is.

    Raises:
        ValueError: unless both are vectors of one length.

    Examples:
        >>> from fedjax_rl import analysis
        >>> analysis.pareto_front(cost=[1.0, 2.0, 3.0], value=[5.0, 4.0, 6.0]).tolist()
        [0, 2]
    """
    cost, value = np.asarray(cost, dtype=np.float64), np.asarray(value, dtype=np.float64)
    if cost.ndim != 1 or cost.shape != value.shape:
        raise ValueError(f"cost and value must be vectors alike, not {cost.shape}, {value.shape}")
    order = np.lexsort((-value, cost))  # by cost; the best first among equally cheap ones
    front: list[int] = []
    best = (np.nan, np.nan)
    for i in order:
        if np.isnan(cost[i]) or np.isnan(value[i]):
            continue
        if not front or value[i] > best[1] or (cost[i], value[i]) == best:
            front.append(i)
            best = (cost[i], value[i])
    return np.array(front, dtype=np.int64)
