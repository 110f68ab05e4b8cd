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
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_rl import streams
from fedjax_rl.algorithms import fresh_episodes, held_out
from fedjax_rl.algorithms.define import Learner, Repeated, algorithm
from fedjax_rl.algorithms.fedppo_exchange import exchange_of
from fedjax_rl.algorithms.fedppo_properties import WEIGHTS, FedPPO, first_exchange
from fedjax_rl.algorithms.fedppo_resources import (
    memory_of,
    policy_of,
    settings_of,
    tail_of,
    together_of,
)
from fedjax_rl.algorithms.learned import Learned, alike, drift_of, parameters_of, shared_of
from fedjax_rl.algorithms.observed import (
    Observed,
    nothing_observed,
    pooled,
    renewed,
    with_rollout,
)
from fedjax_rl.envs.tabular_tasks import task_of
from fedjax_rl.learners import optimizers, ppo
from fedjax_rl.learners.observations import normalizer_of, normalizing
from fedjax_rl.rollouts import batches, vectorised

METRICS = {
    **fresh_episodes.OF_ROLLOUTS,
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


class Agent(NamedTuple):
    """An agent; leaves [A, ...] in a population.

    Attributes:
      learned: `Learned`.
      collector: where its environments are.
      batch: its last rollout.
      ended: `batches.Ended` of that rollout.
      recent: float32 [2], mean return and length of the episodes that ended last.
      diagnostics: `ppo.Diagnostics` of the last epoch.
      observed: `Observed`.
    """

    learned: Learned
    collector: batches.Collector
    batch: ppo.Batch
    ended: batches.Ended
    recent: jax.Array
    diagnostics: ppo.Diagnostics
    observed: Observed


def _each(function, together: int | None, *trees):
    """Calls a function of one agent on agents [A, ...], so many at a time; None: all of them.

    A single agent is not an array of one: products and convolutions with a kernel for each of one
    agents are slower than those with a kernel.
    """
    count = jax.tree.leaves(trees)[0].shape[0]
    if count == 1:
        return vectorised.one(function(*vectorised.alone(trees)))
    if together is None or together >= count:
        return jax.vmap(function)(*trees)
    # Of about one size: what is left over for the last turn is compiled once more.
    size = math.ceil(count / math.ceil(count / together))
    batches = {"batch_size": size} if size > 1 else {}
    return jax.lax.map(lambda each: function(*each), trees, **batches)


def _grouped(function, together: int | None, *trees):
    """The same for a function of agents [G, ...] that are simulated together."""
    if together is None or jax.tree.leaves(trees)[0].shape[0] == 1:
        return function(*trees)

    def one(*trees):
        return vectorised.alone(function(*vectorised.one(trees)))

    return _each(one, together, *trees)


def _weights(population, params) -> dict:
    """Properties of the agents' federations under the names of learning, float32 [A] each."""
    values = {name: params.federation[known] for name, known in WEIGHTS.items()}
    # Networks are float32 whatever the precision of the run, and rates must not promote them.
    return population.spread({n: x.astype(jnp.float32) for n, x in values.items()})


@algorithm(
    FedPPO,
    **fresh_episodes.measured(METRICS),
    unit="epoch",
    sampled=lambda config: "actions are drawn from the policies",
    adapt=task_of,
    first_exchange=first_exchange,
    smallest_share=1,
    memory=memory_of,
)
def fedppo(config: FedPPO) -> Learner:
    """Federated proximal policy optimisation.

    Example:
      >>> import fedjax_rl as frl
      >>> task = frl.envs.gymnax_task("CartPole-v1")
      >>> algorithm = frl.fedppo(task, sync_period=10, network={"hidden": (64, 64)})
      >>> algorithm.config.network.hidden
      (64, 64)
    """
    task, policy, settings = config.task, policy_of(config), settings_of(config)
    together, passes = together_of(config), jnp.uint32(settings.passes)
    kind = settings.observations

    def first(key, params):
        """Everything of an agent but its parameters, which are those of its federation."""
        collector = vectorised.begin(
            task,
            streams.keys_of(key[None], streams.Epochs.ENVIRONMENTS, jnp.uint32(0)),
            settings.num_envs,
            environment=vectorised.one(params.get("environment")),
            scale=settings.reward_normalization,
            late=settings.reward_alignment == "late",
            tail=tail_of(task, policy, settings),
        )
        parameters = policy.init(jax.random.fold_in(key, streams.Epochs.MODEL))
        return Agent(
            Learned(parameters, optimizers.no_moments(parameters)),
            vectorised.alone(collector),
            batches.empty_batch(task, policy, settings.num_envs, settings.rollout_steps),
            batches.none_ended(),
            jnp.zeros(2, jnp.float32),
            ppo.no_diagnostics(),
            nothing_observed(kind, math.prod(policy.shape)),
        )

    def collect(population, params, state):
        """A new rollout of every agent."""

        def made(keys, agents, environment, weights):
            observed = renewed(agents.observed)
            collector, batch, ended = vectorised.collect(
                task,
                policy,
                keys,
                normalizing(agents.learned.parameters, normalizer_of(observed.used)),
                agents.collector,
                agents.batch,
                environment=environment or None,
                weights=weights,
                settings=settings,
            )
            # Of long episodes most rollouts see no end: what is known of the last ones stands.
            recent = ended.means(agents.recent)
            if kind != "none":
                inputs = jax.vmap(jax.vmap(jax.vmap(policy.inputs)))(batch.observation)
                observed = with_rollout(observed, inputs.reshape(len(keys), -1, *policy.shape))
            return agents._replace(
                collector=collector, batch=batch, ended=ended, recent=recent, observed=observed
            )

        keys = streams.keys_of(state.keys, streams.Epochs.ROLLOUT, state.time)
        environment = params.agent.get("environment", ())
        weights = _weights(population, params)
        agents = _grouped(made, together.rollouts, keys, state.agents, environment, weights)
        return dataclasses.replace(state, agents=agents)

    def learn(population, params, state, place, count: int):
        """Some updates of the pass of every agent, from the minibatch `place` on."""

        def one(key, learned, batch, weights, used):
            size = settings.rollout_steps, settings.num_envs
            # The order of the whole pass, whatever part of it is learned now: a pass with exchanges
            # within goes through the minibatches of one without.
            places = ppo.order(key, size, settings.minibatches, settings.shuffle)
            places = jax.lax.dynamic_slice_in_dim(places, place, count)
            peak, horizon = weights["learning_rate"], weights["horizon_epochs"]
            # Time counts passes, several to a rollout, and so does the schedule of the paper.
            rate = ppo.rate(settings.schedule, peak, state.time, weights["warmup_epochs"], horizon)
            weights = {**weights, "rate": rate}
            parameters, moments, diagnostics = ppo.improve(
                policy,
                learned.parameters,
                learned.moments,
                batch,
                places,
                weights,
                settings,
                normalizer_of(used),
            )
            return Learned(parameters, moments), diagnostics

        agents = state.agents
        keys = streams.keys_of(state.keys, streams.Epochs.SHUFFLE, state.time)
        weights = _weights(population, params)
        learned, diagnostics = _each(
            one, together.passes, keys, agents.learned, agents.batch, weights, agents.observed.used
        )
        return dataclasses.replace(
            state, agents=agents._replace(learned=learned, diagnostics=diagnostics)
        )

    def gather(population, params, state, differentiable):
        """A new rollout where one is due, and the environment steps of it."""
        del differentiable
        begins, before = state.time % passes == 0, state.agents.collector.tail
        # A scalar, as all agents are at the same epoch: under vmap a `cond` would do both.
        state = jax.lax.cond(
            begins,
            lambda state: collect(population, params, state),
            lambda state: state,
            state,
        )
        steps = jnp.full(population.num_agents, settings.rollout_steps, jnp.int32)
        if settings.stale_tail:
            steps = steps + state.agents.collector.tail.count - before.count
        steps = steps.astype(jnp.uint32) * jnp.uint32(settings.num_envs)
        return state, jnp.where(begins, steps, 0)

    def learn_all(population, params, state, differentiable):
        del differentiable
        state = learn(population, params, state, 0, settings.minibatches)
        # Steps of environments are counted where they are made, in `gather`.
        return state, jnp.zeros(population.num_agents, jnp.uint32)

    def measure(population, params, state) -> dict:
        agents = state.agents
        diagnostics, parameters = agents.diagnostics, agents.learned.parameters
        average = population.mean(parameters)
        returns, steps = agents.recent[:, 0], agents.recent[:, 1]
        mean = population.mean
        found = {
            "episode_return": mean(returns),
            "episode_steps": mean(steps),
            "episodes": population.sum(agents.ended.episodes),
            "entropy": mean(diagnostics.entropy),
            "kl": mean(diagnostics.kl),
            "clip_fraction": mean(diagnostics.clip_fraction),
            "policy_loss": mean(diagnostics.policy_loss),
            "value_loss": mean(diagnostics.value_loss),
            "gradient_norm": mean(diagnostics.gradient_norm),
            "drift": drift_of(population, parameters),
            "episode_return_of_agent": returns,
            "episode_steps_of_agent": steps,
            "entropy_of_agent": diagnostics.entropy,
            "kl_of_agent": diagnostics.kl,
            "clip_fraction_of_agent": diagnostics.clip_fraction,
        }

        def returns(count, *trees):
            """Mean returns of parameters in an environment each, of so many episodes."""

            def evaluate(keys, parameters, environment):
                environment = environment or None
                made = vectorised.evaluate(
                    task, policy, keys, parameters, count, environment=environment
                )
                return made[0]

            return _grouped(evaluate, together.rollouts, *trees)

        used = agents.observed.used
        if config.held_out.members:
            all_used = pooled(population, used) if kind != "none" else ()
            models = normalizing(average, normalizer_of(all_used))
            run = functools.partial(returns, config.held_out.episodes)
            found |= held_out.by_episodes(
                run, population, params, state, models, streams.Epochs.HELD_OUT
            )
        if not config.evaluation_episodes:
            return found
        keys = streams.keys_of(state.keys, streams.Epochs.EVALUATION, state.time)
        environment = params.agent.get("environment", ())
        spread = normalizing(population.spread(average), normalizer_of(used))
        value = returns(config.evaluation_episodes, keys, spread, environment)
        return {"return": mean(value), "return_of_agent": value, **found}

    def act(model, observation, word):
        model, statistics = model if kind == "shared" else (model, ())
        parameters = normalizing(parameters_of(model), normalizer_of(statistics))
        return policy.act(parameters, observation, word)

    def share(agent):
        learned = shared_of(config, agent.learned)
        return (learned, agent.observed.base) if kind == "shared" else learned

    every, link = config.sync_every_minibatches, exchange_of(config)
    rest = (learn_all, link)
    if every is not None:

        def some(population, params, state, turn):
            return learn(population, params, state, turn * every, every)

        rest = (Repeated(settings.minibatches // every, some, link),)
    return Learner(
        first,
        (gather, *rest),
        measure,
        share=share,
        begin=alike("learned"),
        # Nobody knows what a server's model is to be normalised by that no agent has.
        act=None if kind == "personal" else act,
    )
