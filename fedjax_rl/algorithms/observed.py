"""Observations that are normalised by what agents have seen, each by itself or all together."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fedjax_rl import fields
from fedjax_rl.federation.aggregators import Aggregate
from fedjax_rl.federation.exchange import Exchange
from fedjax_rl.federation.population import column, select
from fedjax_rl.federation.uplinks import MessageSpec
from fedjax_rl.fields.record import Record, record, static
from fedjax_rl.learners.observations import Statistics, joined, moments_of, nothing_seen

KINDS = ("none", "personal", "shared")
_CLIP = fields.number(0, above=True, infinite=True).fixed()


@record
class Observations(Record):
    """What policies and values see: running means and variances that inputs are normalised by.

    Of inputs as the network has them, `(x - mean) / sqrt(variance + 1e-8)`, clipped; see
    `learners.observations` for the sources. An agent joins what it sees in a rollout, or in the
    episodes of a gradient, when the next one begins, so that it learns from a rollout by the
    statistics by which it acted in it; in the first one nothing is normalised. "personal"
    statistics stay where they are. "shared" ones are those of all agents: at every exchange an
    agent sends count, mean and sum of squares of what it has seen since it was last heard,
    uncompressed whatever the uplink makes of the rest (1 + 2 D numbers of D inputs, counted in the
    ledger), and the server hands out those of all that it has heard of. Who is silent or absent
    owes what it has seen until it is heard. In between an agent adds its own, just as it goes on
    from the server's parameters by itself: it sees something normalised before the first exchange,
    too, and alone it is a "personal" one.

    That shared statistics harm agents whose environments differ is claimed in arXiv 2605.27385.

    Example:
      >>> import fedjax_rl as frl
      >>> task = frl.envs.gymnax_task("CartPole-v1")
      >>> algorithm = frl.fedppo(task, observations="shared")
      >>> algorithm.config.observations == frl.Observations(normalize="shared", clip=10.0)
      True

    Attributes:
      normalize: by statistics that are "personal" or "shared", or "none".
      clip: largest magnitude of an input that is normalised, above 0; may be infinite.
    """

    normalize: str = static("none", fields.word(KINDS))
    clip: float = static(10.0, _CLIP)


class Observed(NamedTuple):
    """What an agent has seen; leaves [A, ...] of many. Where nothing is normalised all are ().

    Attributes:
      used: `Statistics` by which it acts in its rollout, and learns from it.
      own: what it has seen; if shared, since it was last heard.
      base: what the server handed out last, if shared; ().
    """

    used: Any = ()
    own: Any = ()
    base: Any = ()


def nothing_observed(kind: str, size: int) -> Observed:
    """Before the first rollout of an agent.

    Args:
      kind: of `KINDS`.
      size: D.
    """
    if kind == "none":
        return Observed()
    nothing = nothing_seen(size)
    return Observed(nothing, nothing, nothing if kind == "shared" else ())


def renewed(observed: Observed) -> Observed:
    """With everything in use that was seen by the beginning of a rollout."""
    base, own = observed.base, observed.own
    return observed._replace(used=joined(base, own) if isinstance(base, Statistics) else own)


def with_rollout(observed: Observed, inputs) -> Observed:
    """With the observations of a rollout, which are used from the next one on.

    Args:
      observed: leaves [A, ...].
      inputs: of the network, [A, B, D].
    """
    if not isinstance(observed.own, Statistics):
        return observed
    return observed._replace(own=joined(observed.own, moments_of(inputs.astype(jnp.float32))))


def pooled(population, statistics: Statistics, heard=None) -> Statistics:
    r"""The statistics of all members together, in one step.

        n = \sum n_i,   m = \sum n_i m_i / n,   S = \sum S_i + n_i (m_i - m)^2

    Args:
      population: who belongs to whom.
      statistics: leaves [A, ...].
      heard: bool [A], whose; None for everybody's.

    Returns:
      `Statistics` of [F, ...]; nothing where nobody was heard.
    """
    if heard is not None:
        statistics = select(heard, statistics, jax.tree.map(jnp.zeros_like, statistics))
    count = statistics.count
    # Around a place near all of them, as what they have in common would cost digits.
    centre = population.mean(statistics.mean)
    apart = statistics.mean - population.spread(centre)
    total = population.sum(count)
    part = count / population.spread(jnp.maximum(total, 1.0))
    shift = population.sum(column(part, apart) * apart)
    between = column(count, apart) * (apart - population.spread(shift)) ** 2
    mean = jnp.where(column(total, shift) > 0, centre + shift, jnp.zeros_like(shift))
    return Statistics(total, mean, population.sum(statistics.squares + between))


class Standing(NamedTuple):
    """Where agents and servers have what was observed; by default in a field, and in a pair.

    Functions are unbatched.

    Attributes:
      of_agent: `agent -> Observed`.
      to_agent: `(agent, Observed) -> agent`.
      of_model: `model -> Statistics` that the server hands out.
      to_model: `(learned, Statistics) -> model`.
      learned: `model -> learned`, what the exchange without statistics takes for the model.
    """

    of_agent: Callable = lambda agent: agent.observed
    to_agent: Callable = lambda agent, observed: agent._replace(observed=observed)
    of_model: Callable = lambda model: model[1]
    to_model: Callable = lambda learned, statistics: (learned, statistics)
    learned: Callable = lambda model: model[0]


OF_PAIRS = Standing()


def with_statistics(link: Exchange, size: int, at: Standing = OF_PAIRS) -> Exchange:
    """An exchange in which statistics of observations are sent beside what else is.

    The uplink reads, measures and compresses what else is: counts that are compressed count
    nothing. Where the last message of who is silent counts, its statistics do not count again.

    Args:
      link: of agents who have an `Observed` that is shared.
      size: D.
      at: where it stands.

    Returns:
      The `Exchange`; what is sent, up and down, are pairs of that of `link` and `Statistics`.
    """

    def message(agent, broadcast, params):
        return link.message(agent, broadcast[0], params), at.of_agent(agent).own

    def decode(message, broadcast):
        return link.decode(message[0], broadcast[0]), message[1]

    def receive(agent, broadcast, params):
        agent = link.receive(agent, broadcast[0], params)
        return at.to_agent(agent, at.of_agent(agent)._replace(base=broadcast[1]))

    def acknowledge(agent, message, params):
        if link.acknowledge is not None:
            agent = link.acknowledge(agent, None if message is None else message[0], params)
        return at.to_agent(agent, at.of_agent(agent)._replace(own=nothing_seen(size)))

    def aggregate(population, message, sent, weight, context):
        inner = dataclasses.replace(context, model=at.learned(context.model))
        total = link.aggregate(population, message[0], sent, weight, inner)
        new = pooled(population, message[1], context.heard)
        return Aggregate((total.value, new), total.present)

    def step(model, state, total, params):
        learned, state = link.server.step(at.learned(model), state, total[0], params)
        return at.to_model(learned, joined(at.of_model(model), total[1])), state

    def nothing(model):
        return link.server.nothing(at.learned(model)), nothing_seen(size)

    def shown(model, params):
        return at.to_model(link.server.shown(at.learned(model), params), at.of_model(model))

    server = link.server._replace(
        init=lambda model: link.server.init(at.learned(model)),
        step=step,
        nothing=nothing,
        shown=shown,
    )
    return link._replace(
        message=message,
        decode=decode,
        receive=receive,
        acknowledge=acknowledge,
        aggregate=aggregate,
        server=server,
        broadcast=lambda model: (link.broadcast(at.learned(model)), at.of_model(model)),
        spec=_beside(link.spec, 1 + 2 * size),
    )


def _beside(spec: MessageSpec, rest: int) -> MessageSpec:
    """How an uplink reads what it read before, of a pair whose second part it lets pass."""
    return MessageSpec(
        numbers=lambda message: spec.numbers(message[0]),
        replaced=lambda message, numbers: (spec.replaced(message[0], numbers), message[1]),
        items=lambda message: spec.items(message[0]),
        keep=lambda message, kept: (spec.keep(message[0], kept), message[1]),
        utility=lambda message: spec.utility(message[0]),
        variance=lambda message: spec.variance(message[0]),
        step=spec.step,
        moving=lambda broadcast: spec.moving(broadcast[0]),
        size=lambda message: spec.size(message[0]) + jnp.uint32(rest),
        owed=spec.owed,
        rest=spec.rest + rest,
    )
