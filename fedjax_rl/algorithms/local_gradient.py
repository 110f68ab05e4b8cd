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
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fedjax_rl import fields, streams
from fedjax_rl.algorithms import local_metrics
from fedjax_rl.algorithms.define import Learner, algorithm
from fedjax_rl.algorithms.local_gradient_properties import LocalAscent, LocalGradient
from fedjax_rl.algorithms.observed import Standing, with_statistics
from fedjax_rl.algorithms.oracle import Oracle, keys_at
from fedjax_rl.algorithms.oracle_state import OracleState
from fedjax_rl.envs.tabular_tasks import task_of
from fedjax_rl.federation.ledger import line
from fedjax_rl.federation.server import ServerStep
from fedjax_rl.federation.state import per_agent
from fedjax_rl.learners import optimizers
from fedjax_rl.learners.observations import nothing_seen


def sampled(config: LocalGradient) -> str | None:
    """Why a derivative is wrong: gradients are estimated from episodes of the parameters."""
    if config.gradient != "sampled":
        return None
    return "gradients are sampled from episodes (on tables with gradient='exact' it is exact)"


def estimators(config: LocalGradient) -> tuple[str, ...]:
    """Of derivatives; episodes in environments in which no agent learns are not counted."""
    return () if config.held_out.members and not config.task.tabular else ("score",)


class Model(NamedTuple):
    """What a server knows; all [q].

    Attributes:
      parameters: theta.
      previous: theta before the last round.
      direction: mean change of the last round per local step and learning rate.
      correction: what the agents correct their gradients with: the mean gradient, or the control
        variate; 0 where there is none.
      observed: `Statistics` that it hands out, where they are shared; ().
    """

    parameters: jax.Array
    previous: jax.Array
    direction: jax.Array
    correction: jax.Array
    observed: Any = ()


class Agent(NamedTuple):
    """One agent.

    Attributes:
      change: [q], of its parameters in the last round.
      memory: [q], its own part of the correction: its gradient at the server's model, or its
        control variate.
      proposal: [q], its memory once it has been heard.
      oracle: what it keeps for its estimates.
      moments: `optimizers.Moments` of its local optimiser; () where it keeps none.
    """

    change: jax.Array
    memory: jax.Array
    proposal: jax.Array
    oracle: OracleState
    moments: Any = ()


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
    optimizer, keeps = config.local_rule, config.keeps_moments

    def work(population, params, state, differentiable):
        models = population.spread(state.server)
        moments = state.agents.moments
        if optimizer is not None and not keeps:
            moments = jax.vmap(optimizers.no_moments)(models.parameters)
        start = LocalState(
            models.parameters, models.parameters, models.direction, state.agents.oracle, moments
        )

        def step(now, place):
            keys = keys_at(state.keys, state.time, place)
            moves, new = direction(
                population, params, state, models, now, keys, place, differentiable
            )

            def moved(parameters, move, moments, params):
                if optimizer is not None:
                    epsilon, decay = (params[f"local_optimizer.{n}"] for n in ("epsilon", "decay"))
                    move, moments = optimizers.direction(optimizer, move, moments, epsilon, decay)
                return parameters + params["learning_rate"] * move, moments

            parameters, moments = per_agent(
                moved, population, params, now.parameters, moves, now.moments
            )
            new = new._replace(parameters=parameters, before=now.parameters, moments=moments)
            return new, None

        # Steps are counted from 0 in every round: with the time they make the key of a gradient.
        places = jnp.arange(config.local_steps, dtype=jnp.uint32)
        end, _ = jax.lax.scan(step, start, places)
        agents = state.agents._replace(
            change=end.parameters - models.parameters,
            oracle=end.oracle,
            moments=end.moments if keeps else (),
        )
        if propose is not None:
            agents = agents._replace(
                proposal=per_agent(propose, population, params, agents, models)
            )
        before = state.agents.oracle.statistics.steps
        state = dataclasses.replace(state, agents=agents)
        return state, end.oracle.statistics.steps - before

    return work


def gradients_of(oracle: Oracle, population, params, keys, now: LocalState, differentiable):
    """Gradients of all agents where they are among their local steps.

    Args:
      oracle: makes episodes and gradients.
      population: who belongs to whom.
      params: traced properties.
      keys: of this step, as of `Oracle.gradients`.
      now: of all agents.
      differentiable: whether loops have a static length.

    Returns:
      [A, q], and what oracles keep after.
    """
    count = oracle.config.episodes_per_step
    return oracle.gradients(
        population, params, keys, now.parameters, now.oracle, count, differentiable
    )


class LocalState(NamedTuple):
    """Where every agent is among its local steps; leaves [A, ...].

    Attributes:
      parameters: [A, q].
      before: [A, q], those of one step earlier.
      direction: [A, q], a running estimate of the gradient, where an algorithm keeps one.
      oracle: `OracleState`, with the statistics of the round so far.
      moments: of the local optimiser; () where there is none.
    """

    parameters: jax.Array
    before: jax.Array
    direction: jax.Array
    oracle: OracleState
    moments: Any = ()


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
    agents = state.agents._replace(oracle=state.agents.oracle.following())
    state = dataclasses.replace(state, agents=agents)
    return state, jnp.zeros(population.num_agents, jnp.uint32)


def moving(config: LocalAscent) -> ServerStep:
    """A server that moves along the mean change, by its optimiser."""

    def step(model, state, change, params):
        momentum = params["optimizer.momentum"]
        move, state = config.optimizer.direction(change, state, model.parameters, momentum)
        model = model._replace(
            parameters=model.parameters + params["server_learning_rate"] * move,
            previous=model.parameters,
            direction=mean_direction(config, change, params),
        )
        return model, state

    return ServerStep(lambda model: config.optimizer.init(model.parameters), step)


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


def _no_change(parameters, kept: OracleState) -> Agent:
    nothing = jnp.zeros_like(parameters)
    return Agent(nothing, nothing, nothing, kept)


OF_STATES = Standing(
    of_agent=lambda agent: agent.oracle.observed,
    to_agent=lambda agent, own: agent._replace(oracle=agent.oracle._replace(observed=own)),
    of_model=lambda model: model.observed,
    to_model=lambda model, statistics: model._replace(observed=statistics),
    learned=lambda model: model,
)


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
      *parts: of a round, after its statistics have begun anew; with the last one, an exchange,
        statistics of observations go along if they are shared.
      directions: `(population, params, keys, parameters [A, q], kept) -> (messages [A, q], kept)`,
        whose means are the servers' first directions, and what oracles keep after them; the
        directions are zero by default.
      first_model: from parameters [q] to the server's first model; `Model` by default. Of another
        kind `parameters`, `previous` and `direction` are asked for.
      first_agent: from parameters [q] and an `OracleState` to an agent that has not begun; `Agent`
        by default. Of another kind `oracle` is asked for, which is that state.
    """
    config, policy, size = oracle.config, oracle.policy, oracle.task.observation_size
    shared = config.observations.normalize == "shared"
    if shared:
        parts = (*parts[:-1], with_statistics(parts[-1], size, OF_STATES))

    def agent(key, params):
        del params
        parameters = jnp.zeros(policy.num_parameters)
        own = first_agent(parameters, oracle.first(key))
        if not config.keeps_moments:
            return own
        return own._replace(moments=optimizers.no_moments(parameters))

    def model(key, params):
        del params
        parameters = policy.init(jax.random.fold_in(key, streams.Episodic.MODEL))
        first = first_model(parameters.astype(jnp.result_type(float)))
        return first._replace(observed=nothing_seen(size)) if shared else first

    def first_directions(population, params, state):
        """The server's first directions, told and paid for before the first round."""
        parameters = population.spread(state.server.parameters)
        before = state.agents.oracle
        each, kept = directions(population, params, state.keys, parameters, before)
        steps = kept.statistics.steps
        # What came of these episodes stands in the direction; statistics are those of rounds.
        agents = state.agents._replace(oracle=kept._replace(statistics=before.statistics))
        server = state.server._replace(direction=population.mean(each))
        floats, wire = policy.num_parameters, config.wire
        weight = floats * wire.word_bytes + wire.header_bytes
        once = jnp.ones(population.num_federations, jnp.uint32)
        everybody = jnp.asarray(population.sizes).astype(jnp.uint32)
        spent = state.ledger.add(line(communications=1), once)
        spent = spent.add(line(messages_up=1, floats_up=floats, bytes_up=weight), everybody)
        spent = spent.add(line(env_steps=1), population.sum(steps))
        return dataclasses.replace(state, agents=agents, server=server, ledger=spent)

    return Learner(
        agent,
        (begin, *parts),
        local_metrics.measure_of(oracle),
        model=model,
        begin=None if directions is None else first_directions,
        drawn=(lambda agents: agents.oracle.drawn) if oracle.scored else None,
        drawn_to_measure=local_metrics.drawn_of(oracle),
        own=local_metrics.OWN,
    )


# Decorates `config -> Learner` with what is the same of all of them.
policy_gradient = functools.partial(
    algorithm,
    metrics=local_metrics.metrics_of,
    unit="round",
    headline=local_metrics.headline_of,
    sampled=sampled,
    estimators=estimators,
    adapt=task_of,
)
