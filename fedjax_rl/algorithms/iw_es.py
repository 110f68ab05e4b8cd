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

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_rl import fields
from fedjax_rl.algorithms import episodic
from fedjax_rl.algorithms.es import ES, metrics_of, server_of, shaped
from fedjax_rl.algorithms.es import aggregate as aggregate_of_es
from fedjax_rl.algorithms.es import check as check_es
from fedjax_rl.algorithms.es import functions as functions_of_es
from fedjax_rl.algorithms.es import parameters as parameters_of_es
from fedjax_rl.algorithms.es import static as static_of_es
from fedjax_rl.algorithms.properties import per_federation
from fedjax_rl.algorithms.strategy import direction, of_now
from fedjax_rl.envs.task import Task
from fedjax_rl.federation.aggregators import Aggregate
from fedjax_rl.federation.algorithm import Algorithm, Functions
from fedjax_rl.federation.population import select
from fedjax_rl.federation.server import ServerStep
from fedjax_rl.federation.state import Params
from fedjax_rl.fields import declared

METRICS = {
    "effective_sample_size": (
        "federation",
        "samples that the weights of the last reuse tried in this round are worth",
    ),
    "reused": ("federation", "steps of this round that reused its returns"),
}


@dataclasses.dataclass(frozen=True)
class IWES(ES):
    """Properties of importance weighted evolution strategies; see also `ES`.

    Attributes:
      reuse: K, most steps a round beyond that of ES, at least 0.
      min_ess: in [0, 1]; there is no further step in a round where the effective sample size is
        below this part of the messages that were received.
    """

    reuse: int = declared(3, fields.whole(0))
    min_ess: float = declared(0.5, fields.PROBABILITY)


def iw_es(task: Task, **values) -> Algorithm:
    """Importance weighted evolution strategies; see `IWES` for the properties.

    Raises:
      ValueError: naming the property, its value and what is allowed.
    """
    return episodic.build(
        "iw-es",
        IWES,
        iw_es,
        task,
        values,
        check=check,
        parameters=parameters,
        functions=functions,
        static=lambda config: (*static_of_es(config), config.reuse),
        metrics=metrics_of(values, METRICS),
    )


def check(config: IWES) -> None:
    """Raises ValueError for properties that do not fit together."""
    check_es(config)
    if config.clock is not None and config.clock.scheduler != "synchronous":
        raise ValueError(
            f"clock is {config.clock} for iw-es, whose learner reweighs samples that were drawn "
            "around its parameters of now; allowed: None, or a synchronous one"
        )


def parameters(config: IWES, num_agents: int) -> Params:
    """What is traced, for one federation."""
    own = parameters_of_es(config, num_agents)
    own.federation.update(per_federation(config, ("min_ess",), num_agents))
    return own


class Memory(NamedTuple):
    """What the learner keeps.

    Attributes:
      optimizer: of `es.server_of`.
      effective: effective sample size of the last reuse that was tried, float.
      reused: steps of the last round that reused its returns, int32.
    """

    optimizer: object
    effective: jax.Array
    reused: jax.Array


def importance(population, noise, moved, counts):
    r"""Densities around the new parameters over those around the old, and what they are worth.

    With e the perturbations and m how far the parameters have moved, both in units of sigma,

        w_i = exp((|e_i|^2 - |e_i - m|^2) / 2) = exp(e_i m - |m|^2 / 2)

    Args:
      population: who belongs to whom.
      noise: [A, q], e.
      moved: [F, q], m.
      counts: bool [A], which samples there are.

    Returns:
      [A], w up to a factor per federation, the largest 1, zero where there is no sample; and the
      effective sample size `(\sum w)^2 / \sum w^2`, [F], 0 without samples.
    """
    logits = jnp.sum(noise * population.spread(moved), axis=-1)
    logits = jnp.where(counts, logits, -jnp.inf)
    top = population.max(logits)
    top = jnp.where(jnp.isfinite(top), top, jnp.zeros_like(top))
    weights = jnp.exp(logits - population.spread(top))
    total, squares = population.sum(weights), population.sum(weights**2)
    return weights, total**2 / jnp.where(squares > 0, squares, 1)


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
    weights, effective = importance(population, noise, moved, counts)
    total = population.sum(weights)
    received = population.sum(counts.astype(values.dtype))
    # Normalised to as many as there are samples, so that ES is the case of equal weights.
    weights = weights * population.spread(received / jnp.where(total > 0, total, 1))
    around = noise - population.spread(moved)
    found = direction(population, weights * values, around, received, params)
    return found.value, effective


def learner_of(config: IWES) -> tuple:
    """Aggregate and server of the exchange; the learner makes all its steps in the former."""
    uphill = server_of(config)

    def init(model):
        return Memory(uphill.init(model), jnp.zeros(()), jnp.int32(0))

    def aggregate(population, sample, sent, weight, context) -> Aggregate:
        """The learner's whole round: the step of ES, then those that reuse its returns."""
        params = context.params
        sent = of_now(sent, context)
        counts = sample.valid if sent is None else sample.valid & sent
        values, received = shaped(population, sample.value, counts, params)

        def step(model, optimizer, total):
            return jax.vmap(
                lambda model, optimizer, total, own: uphill.step(
                    model, optimizer, total, {**params.shared, **own}
                )
            )(model, optimizer, total, params.federation)

        first = aggregate_of_es(population, sample, sent, weight, context)
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

        start = (model, optimizer, first.present, received, jnp.zeros_like(received, jnp.int32))
        (model, optimizer, _, effective, reused), _ = jax.lax.scan(
            again, start, length=config.reuse
        )
        return Aggregate((model, Memory(optimizer, effective, reused)), first.present)

    return aggregate, ServerStep(init, lambda model, memory, total, params: total)


def functions(config: IWES) -> Functions:
    """The algorithm as pure functions of a population."""
    base = functions_of_es(config, *learner_of(config))

    def measure(population, params, state) -> dict:
        (memory,) = state.server_state
        return {
            **base.measure(population, params, state),
            "effective_sample_size": memory.effective,
            "reused": memory.reused.astype(jnp.float32),
        }

    return base._replace(measure=measure)
