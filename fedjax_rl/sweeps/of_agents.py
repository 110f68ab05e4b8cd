"""Metrics of agents where there are too many to write all of them down.

Of a federation of more than `MOST` agents the mean, quantiles and the first agents are recorded:
they are found out in the program, so that a record is no array of all agents.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl.federation.population import Population

# Agents of a federation whose metrics are recorded one by one; beyond, those of the first few.
MOST, FIRST = 2**16, 16
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


def is_reduced(num_agents: int) -> bool:
    """Whether a federation has too many agents to record each."""
    return num_agents > MOST


def reduced(population: Population, x) -> jax.Array:
    """A metric of agents [A], reduced within each federation.

    Args:
      population: who belongs to whom.
      x: [A], of whatever kind of numbers.

    Returns:
      Float [F, FIRST + 1 + len(QUANTILES)]: of the first agents, the mean, and the quantiles.
    """
    # One number of every agent, where members are spread: quantiles are no sums.
    x = population.gathered(x)
    x = x.astype(jnp.result_type(x.dtype, jnp.float32))
    parts, at = [], 0
    for federations, agents in population.whole.groups:
        rows = x[at : at + federations * agents].reshape(federations, agents)
        at += federations * agents
        mean = jnp.mean(rows, axis=1, keepdims=True)
        quantiles = jnp.quantile(rows, jnp.asarray(QUANTILES, rows.dtype), axis=1).T
        parts.append(jnp.concatenate([rows[:, :FIRST], mean, quantiles], axis=1))
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts)


def taken_apart(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What `reduced` has joined: of the first agents, the mean, the quantiles.

    Args:
      x: [..., FIRST + 1 + len(QUANTILES)].

    Returns:
      [..., FIRST], [...] and [..., len(QUANTILES)].
    """
    return x[..., :FIRST], x[..., FIRST], x[..., FIRST + 1 :]


def of_all(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean and the quantiles of a metric that is recorded of every agent.

    Args:
      x: [t, N].

    Returns:
      [t] and [t, len(QUANTILES)].
    """
    return x.mean(axis=1), np.quantile(x, QUANTILES, axis=1).T
