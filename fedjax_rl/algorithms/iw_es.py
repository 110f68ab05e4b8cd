"""Evolution strategies that use every batch of returns several times, by importance weights.

After the step of ES the same returns serve for further steps: a perturbation that was drawn
around the old parameters counts as one around the new, with the ratio of the two densities as its
weight. Nothing crosses the wire for that.

* Campos, Giro-i-Nieto and Torres, *Importance Weighted Evolution Strategies*, arXiv 1811.04624.

The weights degenerate fast: their second moment is `exp(|moved|^2 / sigma^2)`. One step of Adam
with rate 0.01 moves 130 parameters by 2.3 sigma of 0.05, and about one weight of 50 is left; rates
of 0.002 leave most of them. The effective sample size decides, and is a metric.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fedjax_rl import fields
from fedjax_rl.algorithms.assemble import per_federation
from fedjax_rl.algorithms.es import (
    ES,
    aggregate,
    exchange_of,
    metrics_of,
    server_of,
    shaped,
    strategy,
)
from fedjax_rl.algorithms.learner import Learner
from fedjax_rl.algorithms.strategy import direction, evolution_strategy, of_now
from fedjax_rl.federation.aggregators import Aggregate
from fedjax_rl.federation.exchange import Exchange
from fedjax_rl.federation.population import select
from fedjax_rl.federation.server import ServerStep
from fedjax_rl.federation.state import Params
from fedjax_rl.fields import is_number
from fedjax_rl.fields.record import record, static, traced
from fedjax_rl.learners import evolution

METRICS = {
    "effective_sample_size": (
        "federation",
        "samples that the weights of the last reuse tried in this round are worth",
    ),
    "reused": ("federation", "steps of this round that reused its returns"),
}


@record
class IWES(ES):
    """Properties of importance weighted evolution strategies; see also `ES`.

    Attributes:
      reuse: K, most steps a round beyond that of ES, at least 0.
      min_ess: in [0, 1]; there is no further step in a round where the effective sample size is
        below this part of the messages that were received.
    """

    reuse: int = static(3, fields.whole(0))
    min_ess: Any = traced(0.5, fields.PROBABILITY)

    def check(self) -> None:
        """Refuses properties that do not fit together."""
        super().check()
        if self.clock is not None and self.clock.scheduler != "synchronous":
            raise ValueError(
                f"clock is {self.clock} for iw-es, whose server reweighs samples that were drawn "
                "around its parameters of now; allowed: None, or a synchronous one"
            )

    def unscored(self) -> str | None:
        """As of `Strategy`; who goes on by comparing has more than scores."""
        never = is_number(self.min_ess) and self.min_ess == 0
        if self.reuse and not never:
            return (
                f"min_ess is {self.min_ess} with derivative 'score', and whether there is a "
                "further step jumps with what is learned; allowed: 0, or reuse 0"
            )
        return super().unscored()


class Memory(NamedTuple):
    """What the server keeps.

    Attributes:
      optimizer: of `es.server_of`.
      effective: effective sample size of the last reuse that was tried, float.
      reused: steps of the last round that reused its returns, int32.
    """

    optimizer: object
    effective: jax.Array
    reused: jax.Array


def weighted(population, values, noise, moved, counts, params: Params):
    """The gradient times sigma at parameters that have moved, from returns around the old ones.

    Args:
      population: who belongs to whom.
      values: [A], shaped returns.
      noise: [A, q], perturbations around the old parameters in units of sigma.
      moved: [F, q], how far the parameters have moved, in units of sigma.
      counts: bool [A], which samples there are.
      params: with the words of each federation.

    Returns:
      The self-normalised estimate [F, q], and the effective sample size [F].
    """
    weights, effective = evolution.importance(population, noise, moved, counts)
    total = population.sum(weights)
    received = population.sum(counts.astype(values.dtype))
    # Normalised to as many as there are samples, so that ES is the case of equal weights.
    weights = weights * population.spread(received / jnp.where(total > 0, total, 1))
    around = noise - population.spread(moved)
    found = direction(population, weights * values, around, received, params)
    return found.value, effective


def reusing(config: IWES) -> Exchange:
    """The exchange of ES whose aggregate makes all of the server's steps."""
    uphill = server_of(config)

    def init(model):
        return Memory(uphill.init(model), jnp.zeros(()), jnp.int32(0))

    def whole_round(population, sample, sent, weight, context) -> Aggregate:
        """The step of ES, then those that reuse its returns."""
        params = context.params
        sent = of_now(sent, context)
        values, received, counts = shaped(population, sample, sent, params)

        def step(model, optimizer, total):
            return per_federation(uphill.step, params, model, optimizer, total)

        first = aggregate(population, sample, sent, weight, context)
        model, optimizer = step(context.model, context.server_state.optimizer, first.value)
        sigma = params.federation["sigma"][:, None]

        def again(carry, _):
            model, optimizer, going, effective, reused = carry
            moved = (model.parameters - context.model.parameters) / sigma
            total, size = weighted(population, values, sample.noise, moved, counts, params)
            effective = jnp.where(going, size, effective)
            going = going & (size >= params.federation["min_ess"] * received)
            new = step(model, optimizer, total)
            model, optimizer = select(going, new, (model, optimizer))
            return (model, optimizer, going, effective, reused + going.astype(jnp.int32)), None

        # Where nobody was heard there is nothing to reuse.
        start = (model, optimizer, first.present, received, jnp.zeros_like(received, jnp.int32))
        # Of known length: federations stop at different times, in one program.
        (model, optimizer, _, effective, reused), _ = jax.lax.scan(
            again, start, length=config.reuse
        )
        return Aggregate((model, Memory(optimizer, effective, reused)), first.present)

    server = ServerStep(init, lambda model, memory, total, params: total)
    return exchange_of(config)._replace(aggregate=whole_round, server=server)


@evolution_strategy(
    IWES,
    metrics=lambda config: {**metrics_of(config), **METRICS},
    draws=("min_ess",),
    scoreless=("task", "min_ess"),
)
def iw_es(config: IWES) -> Learner:
    """Importance weighted evolution strategies.

    Example:
      >>> import fedjax_rl as frl
      >>> task = frl.envs.gymnax_task("CartPole-v1")
      >>> algorithm = frl.iw_es(task, reuse=2)
      >>> algorithm.config.reuse
      2
    """
    base = strategy(config, reusing(config))

    def measure(population, params, state) -> dict:
        (memory,) = state.server_state
        return {
            **base.measure(population, params, state),
            "effective_sample_size": memory.effective,
            "reused": memory.reused.astype(jnp.float32),
        }

    return base._replace(measure=measure)
