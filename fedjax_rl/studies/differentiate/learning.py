"""Gradient descent on how a federation is run: Adam on its properties, through the simulator."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fedjax_rl.algorithms import fedq
from fedjax_rl.envs import paper_mdp
from fedjax_rl.envs.tabular import TabularMDP
from fedjax_rl.federation.algorithm import Algorithm
from fedjax_rl.sweeps.simulate import simulate

UNSEEN = 1 << 20  # seeds from here on are of federations that nothing was learned from
CHUNK = 64  # federations side by side, where many are only looked at


class Learned(NamedTuple):
    """What came of it.

    Attributes:
      values: name -> array, the properties at the end.
      losses: [I, ...], before every step.
      path: name -> [I, ...], the properties before every step.
      dropped: name -> entries of gradients that were not finite and moved nothing, in all steps.
    """

    values: dict[str, np.ndarray]
    losses: np.ndarray
    path: dict[str, np.ndarray]
    dropped: dict[str, int]


def descend(
    loss: Callable,
    start: Mapping,
    *,
    steps: int,
    rate: float,
    batch: int,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Learned:
    """Adam, at a rate that falls to 0 along a cosine, on fresh federations in every step.

    Args:
      loss: `(values, seeds [B]) -> losses [...]`. Of several problems at once, each with entries of
        its own along the first axis of every value, there are as many losses.
      start: name -> array.
      steps: I.
      rate: of Adam, at the start.
      batch: B, seeds of one step; those of step i are i B to (i + 1) B - 1.
      report: called with (done, total).

    Returns:
      The `Learned`.
    """

    @jax.jit
    def step(values, memory, seeds):
        def total(values):
            losses = loss(values, seeds)
            return jnp.sum(losses), losses

        slopes, losses = jax.grad(total, has_aux=True)(values)
        finite = jax.tree.map(jnp.isfinite, slopes)
        slopes = jax.tree.map(lambda slope, fine: jnp.where(fine, slope, 0), slopes, finite)
        updates, memory = optimizer.update(slopes, memory)
        lost = {name: jnp.sum(~fine) for name, fine in finite.items()}
        return optax.apply_updates(values, updates), memory, losses, lost

    optimizer = optax.adam(optax.cosine_decay_schedule(rate, steps))
    values = {name: jnp.asarray(value, float) for name, value in start.items()}
    # Optax counts in integers and divides by floats, which strict promotion refuses.
    with jax.numpy_dtype_promotion("standard"):
        memory, losses, dropped = optimizer.init(values), [], dict.fromkeys(values, 0)
        path = []
        for i in range(steps):
            seeds = np.arange(i * batch, (i + 1) * batch, dtype=np.uint32)
            path.append(values)
            values, memory, own, lost = step(values, memory, seeds)
            losses.append(np.asarray(own))
            dropped = {name: count + int(lost[name]) for name, count in dropped.items()}
            report(i + 1, steps)
    values, *path = ({k: np.asarray(v) for k, v in own.items()} for own in (values, *path))
    before = {name: np.stack([own[name] for own in path]) for name in values}
    return Learned(values, np.stack(losses), before, dropped)


def over_seeds(function: Callable, seeds, *own, chunk: int = CHUNK) -> np.ndarray:
    """What a function of a federation gives at every seed, [L, ...], computed in chunks.

    Args:
      function: `(seed, *own) -> array`.
      seeds: [L].
      *own: arrays [L, ...], what each has besides its seed.
      chunk: federations side by side.
    """
    every = (jnp.asarray(seeds, jnp.uint32), *(jnp.asarray(array) for array in own))
    run = jax.jit(lambda every: jax.lax.map(lambda one: function(*one), every, batch_size=chunk))
    return np.asarray(run(every))


@functools.cache
def mdp() -> TabularMDP:
    """The MDP of Einhorn (2023)."""
    return paper_mdp()


def tables(**properties) -> Algorithm:
    """Federated Q-learning in it with uniform behaviour, of which derivatives are exact."""
    return fedq(mdp(), epsilon=1.0, **properties)


def server_errors(algorithm, seed, num_agents: int, num_steps: int, last: int = 1):
    """Squared error of the server's table, mean over the last rounds of a federation."""
    found = simulate(algorithm, num_agents=num_agents, num_steps=num_steps, seed=seed)
    return jnp.mean(found.metrics["error_server"][-last:])
