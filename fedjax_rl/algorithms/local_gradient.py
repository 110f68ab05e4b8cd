r"""What the federated policy gradients have in common whose agents make H local steps a round.

The agents' environments may differ. Agent i has the objective J_i, the federation the mean

    J(theta) = 1/N \sum_i J_i(theta),

and every algorithm says along which direction an agent moves in its local steps and how the mean
of the changes becomes the server's next model. Gradients are sampled from episodes, or exact where
the environments are tables; there the suboptimality J* - J is measured exactly, too.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_rl import fields, streams
from fedjax_rl.algorithms import local_metrics
from fedjax_rl.algorithms.define import Learner, algorithm
from fedjax_rl.algorithms.local_gradient_properties import LocalGradient
from fedjax_rl.algorithms.oracle import Oracle, RoundStatistics, keys_at, no_statistics
from fedjax_rl.envs.tabular_tasks import task_of
from fedjax_rl.federation.ledger import line
from fedjax_rl.federation.state import per_agent


def sampled(config: LocalGradient) -> str | None:
    """Why a derivative is wrong: gradients are estimated from episodes of the parameters."""
    if config.gradient != "sampled":
        return None
    return "gradients are sampled from episodes (on tables with gradient='exact' it is exact)"


class Model(NamedTuple):
    """What a server knows; all [q].

    Attributes:
      parameters: theta.
      previous: theta before the last round.
      direction: mean change of the last round per local step and learning rate.
      correction: what the agents correct their gradients with: the mean gradient, or the control
        variate; 0 where there is none.
    """

    parameters: jax.Array
    previous: jax.Array
    direction: jax.Array
    correction: jax.Array


class Agent(NamedTuple):
    """One agent.

    Attributes:
      change: [q], of its parameters in the last round.
      memory: [q], its own part of the correction: its gradient at the server's model, or its
        control variate.
      proposal: [q], its memory once it has been heard.
      statistics: of its last round.
    """

    change: jax.Array
    memory: jax.Array
    proposal: jax.Array
    statistics: RoundStatistics


def local_steps(oracle: Oracle, direction: Callable, propose: Callable | None = None) -> Callable:
    """The work of a round: H steps of every agent from the server's parameters.

    Args:
      oracle: makes episodes and gradients.
      direction: `(population, params, state, models, now, keys, place, differentiable) ->
        (moves [A, q], now)`: along which every agent steps. `models` is the servers' `Model`
        spread to [A]; `now` a `LocalState` of [A] whose parameters the step starts from.
      propose: `(agent, model, params) -> memory`, unbatched: what the agent's memory becomes once
        its change has been heard; by default it stays.

    Returns:
      As `rounds` takes it.
    """
    config = oracle.config

    def work(population, params, state, differentiable):
        models = population.spread(state.server)
        start = LocalState(
            models.parameters, models.parameters, models.direction, state.agents.statistics
        )

        def step(now, place):
            keys = keys_at(state.keys, state.time, place)
            moves, new = direction(
                population, params, state, models, now, keys, place, differentiable
            )

            def moved(parameters, move, params):
                return parameters + params["learning_rate"] * move

            parameters = per_agent(moved, population, params, now.parameters, moves)
            return new._replace(parameters=parameters, before=now.parameters), None

        # Steps are counted from 0 in every round: with the time they make the key of a gradient.
        places = jnp.arange(config.local_steps, dtype=jnp.uint32)
        end, _ = jax.lax.scan(step, start, places)
        agents = state.agents._replace(
            change=end.parameters - models.parameters, statistics=end.statistics
        )
        if propose is not None:
            agents = agents._replace(
                proposal=per_agent(propose, population, params, agents, models)
            )
        before = state.agents.statistics.steps
        state = dataclasses.replace(state, agents=agents)
        return state, end.statistics.steps - before

    return work


class LocalState(NamedTuple):
    """Where every agent is among its local steps; leaves [A, ...].

    Attributes:
      parameters: [A, q].
      before: [A, q], those of one step earlier.
      direction: [A, q], a running estimate of the gradient, where an algorithm keeps one.
      statistics: `RoundStatistics` of the round so far.
    """

    parameters: jax.Array
    before: jax.Array
    direction: jax.Array
    statistics: RoundStatistics


def begin(population, params, state, differentiable):
    """The work that starts a round: the statistics begin anew.

    Args:
      population: who belongs to whom.
      params: not asked for.
      state: of now.
      differentiable: not asked for.

    Returns:
      The state, and no environment steps, uint32 [A].
    """
    del params, differentiable
    agents = state.agents._replace(statistics=state.agents.statistics.following())
    state = dataclasses.replace(state, agents=agents)
    return state, jnp.zeros(population.num_agents, jnp.uint32)


def mean_direction(config: LocalGradient, change, params) -> jax.Array:
    """The mean change of a round per local step and learning rate, [q]; unbatched.

    Args:
      config: of the algorithm.
      change: [q], of the parameters.
      params: of the federation.
    """
    length = params["learning_rate"] * config.local_steps
    if not isinstance(config.learning_rate, fields.Schedule):
        return change / length
    # A schedule may have fallen to 0, where nothing has moved.
    return jnp.where(length > 0, change / jnp.where(length > 0, length, 1), 0)


def _no_direction(parameters) -> Model:
    nothing = jnp.zeros_like(parameters)
    # theta_{-1} = theta_0: in the first round there is no way to correct for.
    return Model(parameters, parameters, nothing, nothing)


def _no_change(parameters) -> Agent:
    nothing = jnp.zeros_like(parameters)
    return Agent(nothing, nothing, nothing, no_statistics())


def learner_of(
    oracle: Oracle,
    *parts,
    directions: Callable | None = None,
    first_model: Callable = _no_direction,
    first_agent: Callable = _no_change,
) -> Learner:
    """The learner of an algorithm from what a round consists of.

    Args:
      oracle: makes episodes and gradients.
      *parts: of a round, after its statistics have begun anew.
      directions: `(population, params, keys, parameters [A, q]) -> (messages [A, q], steps [A])`,
        whose means are the servers' first directions, and the environment steps they take; the
        directions are zero by default.
      first_model: from parameters [q] to the server's first model; `Model` by default. Of another
        kind `parameters`, `previous` and `direction` are asked for.
      first_agent: from parameters [q] to an agent that has not begun; `Agent` by default. Of
        another kind `statistics` is asked for.
    """
    config, policy = oracle.config, oracle.policy

    def agent(key, params):
        del key, params
        return first_agent(jnp.zeros(policy.num_parameters))

    def model(key, params):
        del params
        parameters = policy.init(jax.random.fold_in(key, streams.Episodic.MODEL))
        return first_model(parameters.astype(jnp.result_type(float)))

    def first_directions(population, params, state):
        """The server's first directions, told and paid for before the first round."""
        parameters = population.spread(state.server.parameters)
        each, steps = directions(population, params, state.keys, parameters)
        server = state.server._replace(direction=population.mean(each))
        floats, wire = policy.num_parameters, config.wire
        size = floats * wire.word_bytes + wire.header_bytes
        once = jnp.ones(population.num_federations, jnp.uint32)
        everybody = jnp.asarray(population.sizes).astype(jnp.uint32)
        spent = state.ledger.add(line(communications=1), once)
        spent = spent.add(line(messages_up=1, floats_up=floats, bytes_up=size), everybody)
        spent = spent.add(line(env_steps=1), population.sum(steps))
        return dataclasses.replace(state, server=server, ledger=spent)

    return Learner(
        agent,
        (begin, *parts),
        local_metrics.measure_of(oracle),
        model=model,
        begin=None if directions is None else first_directions,
    )


# Decorates `config -> Learner` with what is the same of all of them.
policy_gradient = functools.partial(
    algorithm,
    metrics=local_metrics.metrics_of,
    unit="round",
    headline=local_metrics.headline_of,
    sampled=sampled,
    adapt=task_of,
)
