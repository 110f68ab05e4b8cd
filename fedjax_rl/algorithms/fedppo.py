r"""FedPPO: agents learn by proximal policy optimisation and average their networks.

An epoch is one pass of every agent over its own last rollout; a new rollout is made after so many
passes. After epoch e = 0, 1, ... the agents average their parameters if K divides e:

    theta_i <- 1/N \sum_j theta_j.

* Einhorn, *Federated Reinforcement Learning Has Linear Speedup* (2023): the algorithm, and the
  preset "paper".
* Schulman et al., *Proximal Policy Optimization Algorithms*, arXiv 1707.06347: what an agent does.
* Cobbe et al., *Leveraging Procedural Generation to Benchmark Reinforcement Learning*, arXiv
  1912.01588: the preset "procgen".
* McMahan et al., *Communication-Efficient Learning of Deep Networks from Decentralized Data*, arXiv
  1602.05629: local passes and averaging.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl import fields, streams
from fedjax_rl.algorithms import episodic
from fedjax_rl.algorithms.fedppo_properties import (
    TRACED,
    FedPPO,
    check,
    check_memory,
    first_exchange,
    memory_of,
    policy_of,
    resolved,
    settings_of,
    tail_of,
    together_of,
)
from fedjax_rl.algorithms.properties import per_federation
from fedjax_rl.envs.heterogeneity import differs, environments_of
from fedjax_rl.envs.tabular_tasks import task_of
from fedjax_rl.envs.task import Task
from fedjax_rl.federation import aggregators
from fedjax_rl.federation import server as servers
from fedjax_rl.federation.aggregators import Aggregate
from fedjax_rl.federation.algorithm import Algorithm, Functions, describe_config
from fedjax_rl.federation.exchange import Exchange, exchange, first_state
from fedjax_rl.federation.ledger import line
from fedjax_rl.federation.state import Params, State
from fedjax_rl.federation.uplinks import norm_squared
from fedjax_rl.learners import ppo
from fedjax_rl.names import check_known
from fedjax_rl.rollouts import vectorised

# Streams folded into an agent's key; the engine's own uplink has 1.

METRICS = {
    "episode_return": (
        "federation",
        "mean over the agents of the undiscounted return of the episodes that ended in the last "
        "rollout in which any did; 0 before",
    ),
    "episode_steps": ("federation", "the same of their lengths"),
    "episodes": ("federation", "episodes that ended in the current rollout, of all agents"),
    "entropy": ("federation", "of the policies in the last epoch, in nats"),
    "kl": ("federation", "estimated divergence from the policies of the rollout, in nats"),
    "clip_fraction": ("federation", "samples whose ratio of probabilities is out of bounds"),
    "policy_loss": ("federation", "mean over the agents in the last epoch"),
    "value_loss": ("federation", "mean over the agents in the last epoch"),
    "gradient_norm": ("federation", "mean over the agents in the last epoch, before clipping"),
    "drift": ("federation", "root mean square distance of the agents' parameters to their mean"),
    "episode_return_of_agent": ("agent", "episode_return of each agent"),
    "episode_steps_of_agent": ("agent", "episode_steps of each agent"),
    "entropy_of_agent": ("agent", "entropy of each agent's policy in the last epoch, in nats"),
    "kl_of_agent": ("agent", "kl of each agent, in nats"),
    "clip_fraction_of_agent": ("agent", "clip_fraction of each agent"),
}
OF_EVALUATION = {
    "return": (
        "federation",
        "mean undiscounted return of the agents' average parameters, in fresh episodes",
    ),
    "return_of_agent": ("agent", "the same in each agent's environment"),
}


def fedppo(task: Task, **values) -> Algorithm:
    """Federated proximal policy optimisation; see `FedPPO` for the properties.

    Args:
      task: a `Task`, or a `TabularMDP`, whose episodes are then cut off.
      **values: of the properties.

    Raises:
      ValueError: naming the property, its value and what is allowed.
    """
    for value in values:
        check_known(value, [f.name for f in dataclasses.fields(FedPPO)], "property of fedppo")
    config = fields.check_config(FedPPO(task=task_of(task), **values))
    episodic.check_task(config.task)
    check(config)
    evaluated = config.evaluation_episodes > 0
    return Algorithm(
        name="fedppo",
        config=config,
        factory=fedppo,
        parameters=_parameters,
        functions=_functions,
        static=_static,
        metrics={**OF_EVALUATION, **METRICS} if evaluated else METRICS,
        describe=describe_config,
        unit="epoch",
        headline="return" if evaluated else "episode_return",
        first_exchange=first_exchange,
        smallest_share=1,
        memory=memory_of,
        sampled=lambda config: "actions are drawn from the policies",
    )


def _parameters(config: FedPPO, num_agents: int) -> Params:
    config = resolved(config)
    federation = per_federation(config, TRACED, num_agents)
    period = per_federation(config, ["sync_period"], num_agents)["sync_period"]
    kind = np if fields.is_concrete(period) else jnp
    federation["sync_period"] = kind.asarray(period, kind.uint32)
    federation["sync_shift"] = np.uint32(0 if config.sync_first else 1)
    policy = policy_of(config)
    numbers = policy.num_parameters * (3 if config.moments == "average" else 1)
    federation |= episodic.uplink_parameters(episodic.uplink_of(config), num_agents, numbers)
    agent = {}
    if differs(config):
        agent["environment"] = environments_of(config, num_agents)
    check_memory(config, num_agents)
    return Params(agent, federation, {})


def _static(config: FedPPO) -> tuple:
    own = resolved(config)
    names = (
        "sync_every_minibatches",
        "moments",
        "aggregation",
        "evaluation_episodes",
        "batching",
    )
    return (
        own.task.static if differs(own) else own.task,
        differs(own),
        policy_of(own).module,
        own.deviation,
        tuple(getattr(own, name) for name in names),
        settings_of(own),
        episodic.uplink_of(own).static,
    )


class Learned(NamedTuple):
    """What an agent has learned, and may share.

    Attributes:
      parameters: float32 [q].
      moments: `ppo.Moments`, of Adam.
    """

    parameters: jax.Array
    moments: ppo.Moments


class Agent(NamedTuple):
    """An agent; leaves [A, ...] in a population.

    Attributes:
      learned: `Learned`.
      collector: where its environments are.
      batch: its last rollout.
      ended: `vectorised.Ended` of that rollout.
      recent: float32 [2], mean return and length of the episodes that ended last.
      told: `ppo.Diagnostics` of the last epoch.
    """

    learned: Learned
    collector: vectorised.Collector
    batch: ppo.Batch
    ended: vectorised.Ended
    recent: jax.Array
    told: ppo.Diagnostics


def _each(function, together: bool, *trees):
    """Calls a function of one agent on agents [A, ...]: all at once, or one after the other.

    A single agent is not an array of one: products and convolutions with a kernel for each of one
    agents are slower than those with a kernel.
    """
    if jax.tree.leaves(trees)[0].shape[0] == 1:
        out = function(*jax.tree.map(lambda x: x[0], trees))
        return jax.tree.map(lambda x: x[None], out)
    if together:
        return jax.vmap(function)(*trees)
    return jax.lax.map(lambda each: function(*each), trees)


def _grouped(function, together: bool, *trees):
    """The same for a function of agents [G, ...] that are simulated together."""
    if together or jax.tree.leaves(trees)[0].shape[0] == 1:
        return function(*trees)

    def one(*trees):
        out = function(*jax.tree.map(lambda x: x[None], trees))
        return jax.tree.map(lambda x: x[0], out)

    return _each(one, together, *trees)


def _shared(config: FedPPO, learned: Learned):
    """What of it agents exchange."""
    if config.moments == "average":
        return learned.parameters, learned.moments.first, learned.moments.second
    return learned.parameters


def _link(config: FedPPO) -> Exchange:
    """What agents exchange: their parameters, and their moments if these are averaged."""
    uplink = episodic.uplink_of(config)
    changes = uplink.on_changes

    def message(learned, broadcast, params):
        if changes:
            return jax.tree.map(jnp.subtract, _shared(config, learned), broadcast)
        return _shared(config, learned)

    def receive(learned, broadcast, params):
        if config.moments == "average":
            parameters, first, second = broadcast
            # A compressed change of what is never negative may leave it so.
            second = jnp.maximum(second, 0.0)
            return Learned(parameters, ppo.Moments(learned.moments.count, first, second))
        if config.moments == "reset":
            return Learned(broadcast, ppo.no_moments(broadcast))
        return learned._replace(parameters=broadcast)

    def total(population, message, sent, weight, context):
        """The sum of the changes of parameters; moments are averaged."""
        mean = aggregators.mean(population, message).value
        rest = ()
        if config.moments == "average":
            message, *rest = message
            own, *_ = context.model
            _, *rest = mean
        else:
            own = context.model
        moved = population.sum(message - population.spread(own))
        parameters = own + moved
        return Aggregate((parameters, *rest) if rest else parameters, None)

    server = servers.replace()
    return Exchange(
        message=message,
        receive=receive,
        uplink=uplink,
        aggregate=total if config.aggregation == "sum" else aggregators.mean,
        server=servers.of_changes(server) if changes else server,
    )


def _own(population, params) -> dict:
    """Properties of the agents' federations, float32 [A] each."""
    values = {name: params.federation[name] for name in TRACED}
    return population.spread({n: x.astype(jnp.float32) for n, x in values.items()})


def _functions(config: FedPPO) -> Functions:
    config = resolved(config)
    task, policy, settings = config.task, policy_of(config), settings_of(config)
    link, together = _link(config), together_of(config)
    passes = jnp.uint32(settings.passes)
    late = settings.reward_alignment == "late"

    def init(population, params, keys) -> State:
        firsts = episodic.first_key(population, keys)
        own = streams.keys_of(firsts, streams.Epochs.MODEL)
        parameters = population.spread(jax.vmap(policy.init)(own))
        learned = Learned(parameters, jax.vmap(ppo.no_moments)(parameters))
        blank = (
            vectorised.empty_batch(task, policy, settings.num_envs, settings.rollout_steps),
            vectorised.none_ended(),
            jnp.zeros(2, jnp.float32),
            ppo.no_diagnostics(),
        )
        collector = vectorised.begin(
            task,
            streams.keys_of(keys, streams.Epochs.ENVIRONMENTS, jnp.uint32(0)),
            settings.num_envs,
            environment=params.agent.get("environment"),
            scale=settings.reward_normalization,
            late=late,
            tail=tail_of(task, policy, settings),
        )
        model = population.first(_shared(config, learned))
        state = first_state(population, link, params, keys, learned, model)
        agents = Agent(learned, collector, *episodic.alike(population, blank))
        return dataclasses.replace(state, agents=agents)

    def collect(population, params, state) -> State:
        """A new rollout of every agent."""

        def made(keys, agents, environment, weights):
            collector, batch, ended = vectorised.collect(
                task,
                policy,
                keys,
                agents.learned.parameters,
                agents.collector,
                agents.batch,
                environment=environment or None,
                weights=weights,
                settings=settings,
            )
            count = ended.episodes[:, None]
            recent = jnp.stack([ended.total, ended.steps], axis=1) / jnp.maximum(count, 1)
            recent = jnp.where(count > 0, recent, agents.recent)
            return agents._replace(collector=collector, batch=batch, ended=ended, recent=recent)

        keys = streams.keys_of(state.keys, streams.Epochs.ROLLOUT, state.time)
        environment = params.agent.get("environment", ())
        weights = _own(population, params)
        agents = _grouped(made, together.rollouts, keys, state.agents, environment, weights)
        return dataclasses.replace(state, agents=agents)

    def learn(population, params, state, place, count: int) -> State:
        """Some updates of the pass of every agent, from the minibatch `place` on."""

        def one(key, learned, batch, weights):
            size = settings.rollout_steps, settings.num_envs
            places = ppo.order(key, size, settings.minibatches, settings.shuffle)
            places = jax.lax.dynamic_slice_in_dim(places, place, count)
            peak, horizon = weights["learning_rate"], weights["horizon_epochs"]
            rate = ppo.rate(settings.schedule, peak, state.time, weights["warmup_epochs"], horizon)
            weights = {**weights, "rate": rate}
            parameters, moments, told = ppo.improve(
                policy, learned.parameters, learned.moments, batch, places, weights, settings
            )
            return Learned(parameters, moments), told

        agents = state.agents
        keys = streams.keys_of(state.keys, streams.Epochs.SHUFFLE, state.time)
        weights = _own(population, params)
        learned, told = _each(one, together.passes, keys, agents.learned, agents.batch, weights)
        return dataclasses.replace(state, agents=agents._replace(learned=learned, told=told))

    def share(population, params, state, due=None) -> State:
        """An average of those who have somebody to average with.

        What agents keep to themselves, such as their rollouts, is none of its business.
        """
        company = population.sizes > 1
        if not company.any():
            return state
        due = jnp.asarray(company) if due is None else due & company
        agents = state.agents
        state = exchange(
            population, link, params, dataclasses.replace(state, agents=agents.learned), due
        )
        return dataclasses.replace(state, agents=agents._replace(learned=state.agents))

    def epoch(population, params, state) -> State:
        begins, before = state.time % passes == 0, state.agents.collector.tail
        state = jax.lax.cond(
            begins,
            lambda state: collect(population, params, state),
            lambda state: state,
            state,
        )
        made = jnp.asarray(population.sizes) * settings.rollout_steps
        if settings.stale_tail:
            made = made + population.sum(state.agents.collector.tail.count - before.count)
        each = jnp.where(begins, settings.num_envs, 0).astype(jnp.uint32)
        made = made.astype(jnp.uint32)
        spent = state.ledger.add(line(env_steps=1), made, jnp.broadcast_to(each, made.shape))
        state = dataclasses.replace(state, ledger=spent)
        every = config.sync_every_minibatches
        if every is None:
            state = learn(population, params, state, 0, settings.minibatches)
            period, shift = (params.federation[f"sync_{name}"] for name in ("period", "shift"))
            due = (state.time + shift) % period == 0
            state = share(population, params, state, due)
        else:

            def some(state, turn):
                state = learn(population, params, state, turn * every, every)
                # Who sends is drawn anew at every exchange, not once for all of an epoch.
                time = state.time
                exchanges = time * jnp.uint32(turns.shape[0]) + turn.astype(jnp.uint32)
                state = share(population, params, dataclasses.replace(state, time=exchanges))
                return dataclasses.replace(state, time=time), None

            turns = jnp.arange(settings.minibatches // every, dtype=jnp.int32)
            state, _ = jax.lax.scan(some, state, turns)
        return dataclasses.replace(state, time=state.time + jnp.uint32(1))

    def round_(population, params, state, period):
        del period
        return epoch(population, params, state)

    def advance(population, params, state, num_steps):
        end = state.time + jnp.uint32(num_steps)
        return jax.lax.while_loop(
            lambda state: state.time < end, lambda state: epoch(population, params, state), state
        )

    def measure(population, params, state) -> dict:
        agents = state.agents
        told, parameters = agents.told, agents.learned.parameters
        average = population.mean(parameters)
        apart = jax.vmap(norm_squared)(parameters - population.spread(average))
        returns, steps = agents.recent[:, 0], agents.recent[:, 1]
        mean = population.mean
        found = {
            "episode_return": mean(returns),
            "episode_steps": mean(steps),
            "episodes": population.sum(agents.ended.episodes),
            "entropy": mean(told.entropy),
            "kl": mean(told.kl),
            "clip_fraction": mean(told.clip_fraction),
            "policy_loss": mean(told.policy_loss),
            "value_loss": mean(told.value_loss),
            "gradient_norm": mean(told.gradient_norm),
            "drift": jnp.sqrt(mean(apart)),
            "episode_return_of_agent": returns,
            "episode_steps_of_agent": steps,
            "entropy_of_agent": told.entropy,
            "kl_of_agent": told.kl,
            "clip_fraction_of_agent": told.clip_fraction,
        }
        if not config.evaluation_episodes:
            return found

        def evaluate(keys, parameters, environment):
            return vectorised.evaluate(
                task,
                policy,
                keys,
                parameters,
                config.evaluation_episodes,
                environment=environment or None,
            )[0]

        keys = streams.keys_of(state.keys, streams.Epochs.EVALUATION, state.time)
        environment = params.agent.get("environment", ())
        value = _grouped(evaluate, together.rollouts, keys, population.spread(average), environment)
        return {"return": mean(value), "return_of_agent": value, **found}

    def act(model, observation, word):
        parameters = model[0] if isinstance(model, tuple) else model
        outputs, _ = policy.apply(parameters, observation[None])
        return policy.performed(policy.sample(parameters, outputs[0], word))

    return Functions(init, round_, advance, measure, act=act)
