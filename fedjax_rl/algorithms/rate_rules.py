"""Numbers that follow how well learning goes: from round to round, in every federation for itself.

What the rules know is carried in the state of the run; a round is then driven with the values that
the rules have by now, and afterwards they are shown what the algorithm measures.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_rl.algorithms import parameters
from fedjax_rl.federation.algorithm import Functions
from fedjax_rl.federation.state import Params
from fedjax_rl.fields import OnPlateau
from fedjax_rl.names import check_known


def rules_of(config) -> dict[str, tuple[str, OnPlateau]]:
    """The properties that follow a metric: name -> (whose, rule)."""
    schedules = parameters.schedules_of(config)
    return {n: own for n, own in schedules.items() if isinstance(own[1], OnPlateau)}


def check_rules(config, metrics: dict) -> None:
    """Refuses rules where nothing can follow them.

    Args:
      config: of an algorithm.
      metrics: its metrics, name -> (whose, what).

    Raises:
      ValueError: an unknown metric or one of agents, or a clock.
    """
    for name, (_, rule) in rules_of(config).items():
        of_federations = [metric for metric, (side, _) in metrics.items() if side == "federation"]
        check_known(rule.metric, of_federations, f"metric of federations for {name}")
        if config.clock is not None:
            raise ValueError(
                f"{name} is {rule!r} with clock {config.clock}, on which there are no rounds to "
                "count; allowed: a number or a schedule"
            )


def refuse_steps(config) -> None:
    """Refuses rules in algorithms whose time counts local steps.

    Raises:
      ValueError: naming the property and its rule.
    """
    for name, (_, rule) in rules_of(config).items():
        raise ValueError(
            f"{name} is {rule!r} in an algorithm whose time counts local steps; allowed: a number "
            "or a schedule"
        )


class Kept(NamedTuple):
    """What a rule knows of a federation, scalars.

    Attributes:
      scale: by which its first value is multiplied.
      best: value of the metric so far, the larger the better.
      waited: int32, rounds since then, or since the scale fell.
    """

    scale: jax.Array
    best: jax.Array
    waited: jax.Array


def kept_after(rule: OnPlateau, kept: Kept, value) -> Kept:
    """What a rule knows after a round in which the metric had this value; unbatched.

    Args:
      rule: of a property.
      kept: what it knew before.
      value: of its metric, scalar.
    """
    value = -value if rule.better == "lower" else value
    # What is not a number is no improvement.
    improved = value > kept.best
    waited = jnp.where(improved, jnp.int32(0), kept.waited + jnp.int32(1))
    due = waited == rule.patience
    return Kept(
        jnp.where(due, kept.scale * rule.factor, kept.scale),
        jnp.where(improved, value, kept.best),
        jnp.where(due, jnp.int32(0), waited),
    )


def following(own: Functions, rules: dict[str, tuple[str, OnPlateau]]) -> Functions:
    """The functions of an algorithm some of whose properties follow rules.

    Args:
      own: its functions, which find these among the traced properties.
      rules: from `rules_of`.

    Returns:
      The same functions for properties without them.
    """

    def filled(population, params: Params, scales: dict) -> Params:
        agent, federation = dict(params.agent), dict(params.federation)
        for name, (by, rule) in rules.items():
            value = rule.start * scales[name]
            if by == "agent":
                agent[name] = population.spread(value)
            else:
                federation[name] = value
        return Params(agent, federation, params.shared)

    def now(population, params, state) -> Params:
        return filled(population, params, {n: kept.scale for n, kept in state.rules.items()})

    def init(population, params, keys):
        count = population.num_federations
        kept = {
            # The first value of a metric is an improvement, whatever it is.
            name: Kept(jnp.ones(count), jnp.full(count, -jnp.inf), jnp.zeros(count, jnp.int32))
            for name in rules
        }
        params = filled(population, params, {name: kept[name].scale for name in rules})
        return dataclasses.replace(own.init(population, params, keys), rules=kept)

    def ruled(drive: Callable) -> Callable:
        """A round, and what the rules make of it."""

        def one(population, params, state, length):
            params = now(population, params, state)
            state = drive(population, params, state, length)
            measured, kept = own.measure(population, params, state), dict(state.rules)
            for name, (_, rule) in rules.items():
                update = functools.partial(kept_after, rule)
                kept[name] = jax.vmap(update)(state.rules[name], measured[rule.metric])
            return dataclasses.replace(state, rules=kept)

        return one

    def advance(population, params, state, num_steps):
        one = ruled(own.advance)

        def body(carry):
            done, state = carry
            return done + jnp.uint32(1), one(population, params, state, jnp.uint32(1))

        # One round at a time: after each the rule may have another value.
        start = jnp.uint32(0), state
        return jax.lax.while_loop(lambda carry: carry[0] < num_steps, body, start)[1]

    def measure(population, params, state):
        return own.measure(population, now(population, params, state), state)

    return Functions(init, ruled(own.round), advance, measure, (), own.act, links=own.links)
