r"""Closed forms of agents of constant speed t_i, always busy. Float64 on the host.

A server that waits for everybody gets N messages in the time of the slowest, one that takes every
message as it comes :math:`\sum_i 1/t_i` of them per unit of time. At equal use of a message the
first takes

.. math:: \frac{t_{max}}{N} \sum_i \frac{1}{t_i} = \frac{t_{max}}{\text{harmonic mean of } t} \ge 1

times as long.

* Lan, Han, Hashemi, Aggarwal and Brinton, *Asynchronous Federated Reinforcement Learning with
  Policy Gradient Updates*, arXiv 2404.08003: the two times.
"""

import numpy as np
from numpy.typing import ArrayLike

from fedjax_rl.names import check_known


def time_per_update(times: ArrayLike, scheduler: str) -> float:
    """Mean time between two steps of the server, in the unit of the times.

    Args:
      times: t_i > 0, [N].
      scheduler: "asynchronous", a step for every message, or "synchronous", for N of them.

    Raises:
      ValueError: a time that is not above 0, or another scheduler.

    Examples:
      >>> from fedjax_rl import analysis
      >>> analysis.time_per_update([1.0, 4.0], "asynchronous")
      0.8
    """
    check_known(scheduler, ("synchronous", "asynchronous"), "scheduler")
    times = _checked(times)
    return float(times.max() if scheduler == "synchronous" else 1 / np.sum(1 / times))


def time_ratio(times: ArrayLike) -> float:
    """Time per message with everybody waited for over that without, at least 1.

    Args:
      times: t_i > 0, [N].

    Raises:
      ValueError: a time that is not above 0.

    Examples:
      >>> from fedjax_rl import analysis
      >>> analysis.time_ratio([1.0, 4.0])  # the slowest over the harmonic mean
      2.5
    """
    times = _checked(times)
    together = time_per_update(times, "synchronous") / times.size
    return together / time_per_update(times, "asynchronous")


def _checked(times: ArrayLike) -> np.ndarray:
    times = np.asarray(times, np.float64).reshape(-1)
    if times.size == 0 or not np.all((times > 0) & np.isfinite(times)):
        raise ValueError(f"times is {times.tolist()}; allowed: finite times above 0, at least one")
    return times
