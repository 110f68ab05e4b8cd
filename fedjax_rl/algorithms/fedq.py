"""Federated tabular Q-learning.

Agents learn Q-tables on their own trajectories and average them after every K steps.

* Einhorn, *Federated Reinforcement Learning Has Linear Speedup* (2023): the algorithm as it
  stands here by default, and the experiments of the study `linear-speedup`.
* Khodadadian, Sharma, Joshi and Maguluri, *Federated Reinforcement Learning: Linear Speedup
  Under Markovian Sampling*, arXiv 2206.10185: its analysis.
* Woo, Joshi and Chi, *The Blessing of Heterogeneity in Federated Q-Learning*, arXiv 2305.10697:
  importance aggregation.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from fedjax_rl import backend, streams
from fedjax_rl.algorithms import parameters
from fedjax_rl.algorithms.define import Learner, Local, algorithm, average, per_federation
from fedjax_rl.algorithms.fedq_environment import shape_of
from fedjax_rl.algorithms.fedq_kernel import kernel_of
from fedjax_rl.algorithms.fedq_properties import BEHAVIOURS, FedQ, behaviour_of
from fedjax_rl.federation import aggregators
from fedjax_rl.federation import server as servers
from fedjax_rl.federation.derivatives import ESTIMATORS
from fedjax_rl.federation.server import EMPHASIS
from fedjax_rl.federation.state import per_agent_in_turns
from fedjax_rl.learners import (
    expected_q_learning,
    q_learning,
    relaxed_q_learning,
    tables,
    tabular_steps,
)

METRICS = {
    "error_server": (
        "federation",
        "squared Frobenius distance of the server average to the reference",
    ),
    "error_local_mean": ("federation", "mean over the agents of error_local"),
    "error_local": ("agent", "squared Frobenius distance of each agent's table to the reference"),
    "sup_error_server": ("federation", "largest absolute error of the server average"),
    "sup_error_local_mean": ("federation", "mean over the agents of their largest absolute error"),
}


def _sampled(config: FedQ) -> str | None:
    """Why a derivative is wrong: the behaviour reads the table."""
    name = behaviour_of(config)
    if config.sampling == "expected" or not BEHAVIOURS[name](shape_of(config.mdp)).uses_table:
        return None
    return (
        f"the behaviour {name} draws actions from the table (with behaviour 'uniform' or 'policy', "
        "epsilon=1, or sampling 'expected', the derivative is exact)"
    )


def _estimators(config: FedQ) -> tuple[str, ...]:
    """Those of derivatives: what is greedy has no probability that could be differentiated."""
    if config.sampling == "expected":
        return ()
    behaviour = BEHAVIOURS[behaviour_of(config)](shape_of(config.mdp))
    there = behaviour.smooth or not behaviour.uses_table
    return ESTIMATORS if there else ()


def _draws(config: FedQ) -> tuple[str, ...]:
    """What only decides what is drawn; expected steps depend on behaviour, and have no noise."""
    return ("reward_noise",) if config.sampling == "expected" else ("epsilon", "beta")


@algorithm(
    FedQ,
    environments=("mdp",),
    metrics=METRICS,
    sampled=_sampled,
    draws=_draws,
    estimators=_estimators,
)
def fedq(config: FedQ) -> Learner:
    """Federated tabular Q-learning.

    Example:
      >>> import fedjax_rl as frl
      >>> mdp = frl.envs.paper_mdp()
      >>> result = frl.sweep(frl.fedq(mdp, sync_period=10), num_agents=[1, 4], num_steps=100)
      >>> result.error_server.dims
      ('num_agents', 'time')
    """
    shape = shape_of(config.mdp)
    behaviour = BEHAVIOURS[behaviour_of(config)](shape)
    schedules = parameters.schedules_of(config)
    generator = streams.GENERATORS[config.generator]
    noisy = config.reward_noise is not None

    def step_size(params, visits):
        rate = params["learning_rate"]
        if visits is None:
            return rate
        return rate / visits.astype(jnp.result_type(float)) ** params["visit_exponent"]

    kernel = kernel_of(config)
    # Where nothing is drawn from the table, the derivative is exact without an estimate.
    estimator = config.derivative if behaviour.uses_table else None
    expected = config.sampling == "expected"
    own = {"shape": shape, "step_size": step_size}
    own["at"] = functools.partial(parameters.at_step, schedules)
    num_words = 0
    if expected:
        learn = functools.partial(expected_q_learning.learn, behaviour=behaviour, **own)
    elif config.sampling == "generative":
        own |= {"generator": generator, "noisy": noisy}
        learn = functools.partial(q_learning.learn_everywhere, **own)
    else:
        own |= {"generator": generator, "noisy": noisy}
        anywhere = config.sampling == "iid"
        learn = functools.partial(
            q_learning.learn,
            behaviour=behaviour,
            anywhere=anywhere,
            # In a kernel nothing is waited for, and longer code is slower there, too.
            loop=jax.lax.fori_loop if kernel is not None else backend.repeat,
            **own,
        )
        if estimator == "relaxed":
            learn = functools.partial(
                relaxed_q_learning.learn,
                behaviour=behaviour,
                temperature=config.relaxation,
                **own,
            )
        num_words = behaviour.num_words + noisy + anywhere

    def first(key, params):
        # Centred, as the inner loop keeps tables: floats are finest about 0.
        table = tables.layout(params["initial_q"] - params["offset"], shape.unrolled)
        nothing = tables.filled(shape.size, jnp.zeros(()), shape.unrolled)
        # Expected visits are no whole numbers.
        counts = nothing
        if not expected:
            counts = tables.filled(shape.size, jnp.int32(0), shape.unrolled)
        state = () if expected else first_state(key, params)
        place = params["start"] if expected else ()
        if estimator == "relaxed":
            place = jax.nn.one_hot(state, shape.num_states, dtype=float)
        return q_learning.Agent(
            table,
            state,
            # The loop draws the words of a step one step ahead.
            q_learning.words(key, jnp.uint32(0), num_words, generator),
            counts if config.visit_exponent is not None else (),
            nothing if config.aggregation == "importance" else (),
            drawn=jnp.zeros(()) if estimator == "score" else (),
            place=place,
        )

    def first_state(key, params):
        if "start" not in params:
            return params["initial_state"]
        own = jax.random.key_data(jax.random.fold_in(key, streams.Tabular.RESET))
        return tabular_steps.outcome_of_row(streams.threefry(own, jnp.uint32(0)), params["start"])

    def adopt(agent, model, params):
        if config.mixing is not None:
            share = params["mixing"]
            model = jax.tree.map(lambda q, m: q + share * (m - q), agent.table, model)
        # Visits go on counting: steps fall with all of them, weights are those of one period.
        return agent._replace(
            table=model, log_weight=jax.tree.map(jnp.zeros_like, agent.log_weight)
        )

    def weight(population, agents, params):
        if config.aggregation == "mean":
            return None
        if config.aggregation == "fixed":
            return params.agent["weights"]
        if config.aggregation == "learned":
            return aggregators.LogWeights(params.agent["weights"])
        # As logarithms: products of 1 / (1 - alpha) over a long period overflow.
        return aggregators.LogWeights(agents.log_weight)

    def errors(table, params):
        gap = tables.as_array(table) - tables.as_array(params["reference"])
        return jnp.sum(gap**2), jnp.max(jnp.abs(gap))

    def measure(population, params, state) -> dict:
        # Both: the linear speedup paper measures a local table, which drifts between exchanges; the
        # bounds of the theory are on the mean.
        local_error, local_sup = per_agent_in_turns(errors, population, params, state.agents.table)
        server_error, server_sup = per_federation(errors, params, state.server)
        return {
            "error_server": server_error,
            "error_local_mean": population.mean(local_error),
            "error_local": local_error,
            "sup_error_server": server_sup,
            "sup_error_local_mean": population.mean(local_sup),
        }

    more = {} if config.server_optimizer is None else {"server": _optimizer_step(config, shape)}
    link = average(config, lambda agent: agent.table, adopt, weight=weight, **more)
    drawn = (lambda agents: agents.drawn) if estimator == "score" else None
    return Learner(
        first,
        (Local(learn, kernel=kernel), link),
        measure,
        share=lambda agent: agent.table,
        drawn=drawn,
    )


def _optimizer_step(config: FedQ, shape: tabular_steps.Shape) -> servers.ServerStep:
    """The step of a server optimizer.

    Tables are centred and perhaps unrolled; the optimizer is to see action values, [S, U].
    """
    server = servers.optimizer_step(
        config.server_optimizer,
        lambda q, params: q + params["offset"].astype(q.dtype),
        lambda table: tables.as_array(table).reshape(shape.num_states, shape.num_actions),
        lambda q: tables.layout(q.reshape(-1), shape.unrolled),
    )
    if config.clock is not None and config.weights is not None:
        return servers.emphasised(server, EMPHASIS)
    return server
