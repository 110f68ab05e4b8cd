"""What is measured of policy gradients with local steps."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from fedjax_rl import rounding, streams
from fedjax_rl.algorithms import episodic, held_out
from fedjax_rl.algorithms.observed import pooled, renewed
from fedjax_rl.algorithms.oracle import Oracle, keys_at
from fedjax_rl.federation.algorithm import Own
from fedjax_rl.federation.state import per_agent
from fedjax_rl.federation.uplinks import norm_squared
from fedjax_rl.learners.observations import Statistics, normalizer_of
from fedjax_rl.rollouts.episodes import evaluate

METRICS = {
    "training_reward": (
        "federation",
        "mean discounted return of the round's episodes; those of different parameters, so that "
        "it is no measure of the model",
    ),
    "direction_norm": ("federation", "norm of the mean change per local step and learning rate"),
    "weight_mean": ("federation", "mean importance weight of the round; 1 where there is none"),
    "weight_max": ("federation", "largest importance weight of the round, before any truncation"),
    "overflows": ("federation", "importance weights so far beyond exp(+-20), or not a number"),
    "frequency": ("federation", "messages per agent and round"),
    "size": ("federation", "bytes sent per agent and round"),
}
OF_TABLES = {
    "gap": ("federation", "J* - J of the server's model, exact, both with the entropy bonus"),
    "objective": ("federation", "J of the server's model, exact, with the entropy bonus"),
    "plain_gap": ("federation", "J* - J of the server's model, exact, both without entropy bonus"),
    "plain_objective": ("federation", "J of the server's model, exact, without entropy bonus"),
    "gradient_norm": ("federation", "norm of the gradient of J there, exact"),
    "estimator_error": (
        "federation",
        "squared distance of the direction moved last from the gradient of J before that move",
    ),
    "objective_of_agent": ("agent", "J_i of the server's model, exact, with the entropy bonus"),
}
OF_EPISODES = {
    "return": ("federation", "mean over the agents of undiscounted returns of the server's model"),
    "reward": ("federation", "mean over the agents of discounted returns of the server's model"),
    "episode_steps": ("federation", "mean over the agents of the steps of these episodes"),
    "return_of_agent": ("agent", "mean undiscounted return of the server's model"),
}


# Every agent plays the episodes of an evaluation by itself.
OWN = {
    "return": Own("return_of_agent", "measure"),
    "return_of_agent": Own("return_of_agent", "measure"),
}


def metrics_of(config) -> dict:
    """The metrics on a task: exact where it is a table, else from episodes."""
    exact = config.task.tabular
    own = dict(OF_TABLES if exact else OF_EPISODES)
    if config.local_rule is not None:
        # What another optimiser moves along is no estimate of a gradient.
        own.pop("estimator_error", None)
    return {**own, **METRICS, **held_out.metrics_of(config, exact)}


def headline_of(config) -> str:
    """The gap on tables, else the return."""
    return next(iter(metrics_of(config)))


def _evaluated(population, state) -> tuple:
    """Keys of the episodes of an evaluation, and the parameters [A, q] that make them."""
    # Fresh ones: the round's own are of parameters on the way, not of the model.
    own = streams.keys_of(state.keys, streams.Episodic.EVALUATION)
    keys = keys_at(own, state.time, jnp.uint32(0))
    return keys, population.spread(state.server.parameters)


def drawn_of(oracle: Oracle) -> Callable | None:
    """`(population, params, state) -> [A]`, what is drawn to measure it, as `Learner` takes it."""
    if not oracle.scored or oracle.task.tabular:
        return None

    def drawn(population, params, state):
        keys, parameters = _evaluated(population, state)
        # The same episodes as those of the metrics, as of the same keys; these keep no actions.
        count, kept = oracle.config.evaluation_episodes, state.agents.oracle
        trajectories = oracle.sample(params, keys, parameters, count, True, kept)
        return jax.vmap(oracle.score)(parameters, trajectories, kept)

    return drawn


def measure_of(oracle: Oracle) -> Callable:
    """`(population, params, state) -> metrics` of the algorithms with an oracle."""
    config, task = oracle.config, oracle.task

    def exactly(population, params, state) -> dict:
        models = population.spread(state.server)

        def at(parameters, params):
            return jax.value_and_grad(oracle.value)(parameters, params)

        values, gradients = per_agent(at, population, params, models.parameters)
        error = {}
        if config.local_rule is None:
            # The direction was estimated where the model was before it moved.
            before = per_agent(jax.grad(oracle.value), population, params, models.previous)
            apart = state.server.direction - population.mean(before)
            error["estimator_error"] = jax.vmap(norm_squared)(apart)
        plain, best = values, params.federation["optimum"]
        if oracle.regularised:
            plain = per_agent(oracle.plain_value, population, params, models.parameters)
            best = params.federation["plain_optimum"]
        return {
            "gap": params.federation["optimum"] - population.mean(values),
            "objective": population.mean(values),
            "plain_gap": best - population.mean(plain),
            "plain_objective": population.mean(plain),
            # Never alone: where a policy has saturated it is small, far from any optimum.
            "gradient_norm": rounding.root(jax.vmap(norm_squared)(population.mean(gradients))),
            "objective_of_agent": values,
            **error,
        }

    def unseen(population, params, state) -> dict:
        """Of the server's model where no agent learns."""
        if not config.held_out.members:
            return {}
        parameters = state.server.parameters
        if task.tabular:
            return held_out.exactly(oracle.value, params, parameters)

        def run(keys, models, environments):
            pair, count = episodic.pair_of(keys), config.held_out.episodes
            kind = oracle.evaluation_loop
            made = evaluate(task, policy, pair, models, count, environment=environments, kind=kind)
            return made[1]

        used = renewed(state.agents.oracle.observed).used
        used = pooled(population, used) if isinstance(used, Statistics) else ()
        policy, models = oracle.player(parameters, normalizer_of(used))
        return held_out.by_episodes(
            run, population, params, state, models, streams.Episodic.HELD_OUT
        )

    def by_episodes(population, params, state) -> dict:
        keys, parameters = _evaluated(population, state)
        normalizer = state.agents.oracle.normalizer
        policy, parameters = oracle.player(oracle.held(parameters), normalizer)
        value, undiscounted, steps = evaluate(
            task,
            policy,
            keys,
            parameters,
            config.evaluation_episodes,
            environment=oracle.own(params),
            kind=oracle.evaluation_loop,
        )
        return {
            "return": population.mean(undiscounted),
            "reward": population.mean(value),
            "episode_steps": population.mean(steps),
            "return_of_agent": undiscounted,
        }

    def measure(population, params, state) -> dict:
        statistics = state.agents.oracle.statistics
        totals = population.sum(
            (
                statistics.value,
                statistics.episodes,
                statistics.weight,
                statistics.weights,
                statistics.overflows,
            )
        )
        value, count, weight, weights, overflows = totals
        largest = population.max(statistics.largest)
        own = exactly if task.tabular else by_episodes
        return {
            **own(population, params, state),
            **unseen(population, params, state),
            "training_reward": value / jnp.maximum(count, 1),
            "direction_norm": rounding.root(jax.vmap(norm_squared)(state.server.direction)),
            "weight_mean": jnp.where(weights > 0, weight / jnp.maximum(weights, 1), 1.0),
            "weight_max": jnp.where(weights > 0, largest, 1.0),
            # Recorded as a float, in which what is missing is NaN.
            "overflows": overflows.astype(jnp.float32),
            "frequency": population.mean(state.sent.messages.astype(jnp.float32)),
            "size": population.mean(state.sent.bytes(config.wire)),
        }

    return measure
