"""Metrics of agents where there are too many to write all of them down.

Of a federation of more than `MOST` agents the mean, quantiles and the first agents are recorded, or
those that somebody has chosen, of which federation ever: they are found out in the program, so that
a record is no array of all agents.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl.federation.population import Population

# Agents of a federation whose metrics are recorded one by one; beyond, those of the first few.
MOST, FIRST = 2**16, 16
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
# What stands behind the name of a metric of agents for what all of them come to.
MEAN, SPREAD = "_mean_of_agents", "_quantiles"


def is_reduced(num_agents: int) -> bool:
    """Whether a federation has too many agents to record each."""
    return num_agents > MOST


def recorded(num_agents: int, chosen: Sequence[int] | None = None) -> tuple[int, ...] | None:
    """Whose metrics are recorded one by one, beside what all agents come to.

    Args:
      num_agents: N.
      chosen: by somebody.

    Returns:
      Their places in the federation; None where everybody is recorded and nothing is summed up.
    """
    if chosen is not None:
        return tuple(chosen)
    return tuple(range(FIRST)) if is_reduced(num_agents) else None


def reduced(population: Population, x, agents: Sequence[int]) -> jax.Array:
    """A metric of agents [A], reduced within each federation.

    Args:
      population: who belongs to whom.
      x: [A], of whatever kind of numbers.
      agents: whose own is kept, by their place in the federation.

    Returns:
      Float [F, len(agents) + 1 + len(QUANTILES)]: of these agents, NaN where a federation has no
      such agent, the mean, and the quantiles.
    """
    # One number of every agent, where members are spread: quantiles are no sums.
    x = population.gathered(x)
    x = x.astype(jnp.result_type(x.dtype, jnp.float32))
    parts, at, agents = [], 0, np.asarray(agents)
    for federations, count in population.whole.groups:
        rows = x[at : at + federations * count].reshape(federations, count)
        at += federations * count
        own = jnp.where(agents < count, rows[:, np.minimum(agents, count - 1)], jnp.nan)
        mean = jnp.mean(rows, axis=1, keepdims=True)
        quantiles = jnp.quantile(rows, jnp.asarray(QUANTILES, rows.dtype), axis=1).T
        parts.append(jnp.concatenate([own, mean, quantiles], axis=1))
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts)


def taken_apart(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What `reduced` has joined: of some agents, the mean, the quantiles.

    Args:
      x: [..., n + 1 + len(QUANTILES)].

    Returns:
      [..., n], [...] and [..., len(QUANTILES)].
    """
    last = x.shape[-1] - len(QUANTILES)
    return x[..., : last - 1], x[..., last - 1], x[..., last:]


def of_all(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean and the quantiles of a metric that is recorded of every agent.

    Args:
      x: [t, N].

    Returns:
      [t] and [t, len(QUANTILES)].
    """
    return x.mean(axis=1), np.quantile(x, QUANTILES, axis=1).T
