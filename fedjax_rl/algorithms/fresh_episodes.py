"""The server's network in fresh episodes: where the agents live, and where none does."""

from __future__ import annotations

import functools

from fedjax_rl import streams
from fedjax_rl.algorithms import held_out
from fedjax_rl.rollouts import vectorised

OF_EVALUATION = {
    "return": (
        "federation",
        "mean undiscounted return of the agents' average parameters, in fresh episodes",
    ),
    "return_of_agent": ("agent", "the same in each agent's environment"),
}


OF_ROLLOUTS = {
    "episode_return": (
        "federation",
        "mean over the agents of the undiscounted return of the episodes that ended in the last "
        "rollout in which any did; 0 before",
    ),
    "episode_steps": ("federation", "the same of their lengths"),
}


def measured(metrics: dict) -> dict:
    """What `define.algorithm` is told of what is measured: `metrics` and `headline`.

    Args:
      metrics: that are always there.
    """
    return {
        "metrics": lambda config: metrics_of(config, metrics),
        "headline": lambda config: next(iter(metrics_of(config, metrics))),
    }


def metrics_of(config, metrics: dict) -> dict:
    """The metrics of an algorithm, those of an evaluation first, if there is one.

    Args:
      config: with `evaluation_episodes` and a `HeldOut`.
      metrics: that are always there.
    """
    evaluation = OF_EVALUATION if config.evaluation_episodes else {}
    return {**evaluation, **metrics, **held_out.metrics_of(config)}


def measure(config, policy, population, params, state, model) -> dict:
    """The metrics that need episodes; none unless they are asked for.

    Args:
      config: with a task, `evaluation_episodes` and a `HeldOut`.
      policy: as `vectorised.evaluate` takes it.
      population: who belongs to whom.
      params: its properties.
      state: of now.
      model: parameters of the servers, [F, q].
    """

    def returns(count, keys, models, environment):
        evaluate = functools.partial(vectorised.evaluate, config.task, policy)
        return evaluate(keys, models, count, environment=environment or None)[0]

    found = {}
    if config.held_out.members:
        run = functools.partial(returns, config.held_out.episodes)
        found |= held_out.by_episodes(
            run, population, params, state, model, streams.Epochs.HELD_OUT
        )
    if config.evaluation_episodes:
        keys = streams.keys_of(state.keys, streams.Epochs.EVALUATION, state.time)
        environment = params.agent.get("environment", ())
        value = returns(config.evaluation_episodes, keys, population.spread(model), environment)
        found |= {"return": population.mean(value), "return_of_agent": value}
    return found
