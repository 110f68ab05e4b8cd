"""Episodes and gradients of the agents of a population, sampled or exact, and what they kept."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from fedjax_rl import streams
from fedjax_rl.algorithms import episodic
from fedjax_rl.algorithms.observed import nothing_observed
from fedjax_rl.algorithms.oracle_state import OracleState, no_statistics
from fedjax_rl.envs import objective
from fedjax_rl.federation.state import Params, per_agent
from fedjax_rl.learners import draws
from fedjax_rl.learners import policy_gradient as learner
from fedjax_rl.learners.network_policies import Seeing, seeing
from fedjax_rl.learners.observations import joined as statistics_joined
from fedjax_rl.learners.observations import moments_where, normalizing
from fedjax_rl.learners.score_gradient import with_entropy
from fedjax_rl.rollouts.episodes import sample_trajectories


class Oracle:
    """Episodes and gradients of all agents of a population, as an algorithm asks for them.

    Attributes:
      evaluation_loop: of the episodes in which a model is measured, of `loops.LOOPS`.
      scored: whether the probability of what is drawn counts, for the score of what comes out.
    """

    evaluation_loop = "compact"
    scored = False

    def __init__(self, config) -> None:
        """Takes the static properties of a `LocalGradient`, resolved."""
        self.config = config
        self.task = config.task
        self.policy = config.make_policy()
        self.advantages = config.make_advantages()
        self.critic = config.make_critic()
        self.observations = config.observations
        self.exact = config.gradient != "sampled"
        self.regularised = config.regularised
        self.scored = config.derivative == "score" and not self.exact

    def first(self, key) -> OracleState:
        """Of an agent that has not begun, with a key of its own."""
        observed = nothing_observed(self.observations.normalize, self.task.observation_size)
        values = ()
        if self.critic is not None:
            values = self.critic.init(jax.random.fold_in(key, streams.Episodic.CRITIC))
        drawn = jnp.zeros(()) if self.scored else ()
        return OracleState(no_statistics(), observed._replace(used=()), values, drawn)

    def acting(self, kept: OracleState) -> learner.Policy:
        """The policy of one agent, which sees what it sees normalised, unbatched."""
        return seeing(self.policy, kept.normalizer, self.observations.clip)

    def player(self, parameters, normalizer) -> tuple:
        """A policy and its parameters as roll-outs take them.

        Args:
          parameters: [A, q].
          normalizer: of the inputs, [A, D], or None.
        """
        if normalizer is None:
            return self.policy, parameters
        policy = Seeing(self.policy, self.observations.clip)
        return policy, normalizing(parameters, normalizer)

    def entropy(self, params) -> Any:
        """Weight of the entropy of one agent; a plain 0 where nobody has any."""
        return params["entropy"] if self.regularised else 0.0

    def logits(self, parameters) -> jax.Array:
        """The preferences [S, U] where observations are states, of a network too; unbatched."""
        if isinstance(self.policy, learner.SoftmaxTable):
            return self.policy.logits(parameters)
        states = jnp.arange(self.task.num_states, dtype=jnp.int32)
        return jax.vmap(self.policy.outputs, in_axes=(None, 0))(parameters, states)

    def value(self, parameters, params) -> jax.Array:
        """J_i on a table, a scalar; unbatched.

        Args:
          parameters: [q].
          params: of the agent, with its environment.
        """
        logits = self.logits(parameters)
        return objective.value(params["environment"], logits, self.entropy(params))

    def plain_value(self, parameters, params) -> jax.Array:
        """J_i on a table without the entropy bonus, a scalar; unbatched.

        Args:
          parameters: [q].
          params: of the agent, with its environment.
        """
        return objective.value(params["environment"], self.logits(parameters))

    def gradient(self, parameters, params) -> jax.Array:
        """Gradient of J_i, or of what an episode sees of it, [q]; unbatched.

        Args:
          parameters: [q].
          params: of the agent, with its environment.
        """
        if self.config.gradient == "exact":
            return jax.grad(self.value)(parameters, params)

        def truncated(parameters):
            logits, mdp = self.logits(parameters), params["environment"]
            steps = self.task.max_steps
            return objective.truncated_value(mdp, logits, steps, self.entropy(params))

        return jax.grad(truncated)(parameters)

    def sample(self, params, keys, parameters, count: int, differentiable: bool, kept=None):
        """Episodes of all agents under parameters [A, q]: `Trajectories` of [A, count, T].

        Args:
          params: traced properties.
          keys: a pair of [A], as `sample_trajectories` takes them.
          parameters: [A, q].
          count: episodes of each agent.
          differentiable: whether loops have a static length.
          kept: `OracleState` of [A], of whom observations are normalised.
        """
        # Reverse mode needs a loop of known length.
        kind = "scan" if differentiable else self.config.loop
        normalizer = None if self.observations.normalize == "none" else kept.normalizer
        policy, parameters = self.player(self.held(parameters), normalizer)
        return sample_trajectories(
            self.task, policy, keys, parameters, count, environment=self.own(params), kind=kind
        )

    def sample_both(
        self, params, keys, parameters, count: int, differentiable: bool, kept=None
    ) -> tuple:
        """Episodes of all agents under two parameters each, in one loop.

        A loop has a copy of the environment's step, which is most of what there is to compile.

        Args:
          params: traced properties.
          keys: two pairs of [A].
          parameters: two of [A, q].
          count: episodes of each agent under each.
          differentiable: whether loops have a static length.
          kept: as of `sample`.

        Returns:
          Two `Trajectories` of [A, count, T], those of two calls of `sample`.
        """

        def joined(*trees):
            return jax.tree.map(lambda *x: jnp.concatenate(x), *trees)

        # What is of a federation has no part in an episode; only environments are an agent's own.
        twice = Params({n: joined(x, x) for n, x in params.agent.items()}, {}, {})
        made = self.sample(
            twice, joined(*keys), joined(*parameters), count, differentiable, joined(kept, kept)
        )
        size = len(parameters[0])
        first = jax.tree.map(lambda x: x[:size], made)
        return first, jax.tree.map(lambda x: x[size:], made)

    def held(self, parameters):
        """Parameters as episodes are played with.

        What is drawn is held fixed where its probability counts, else it would count twice: an
        action of a normal distribution has a derivative by itself.

        Args:
          parameters: [A, q].
        """
        return jax.lax.stop_gradient(parameters) if self.scored else parameters

    def score(self, parameters, trajectories, kept: OracleState) -> jax.Array:
        """0 with the derivative of the log-probability of an agent's actions, a scalar.

        Args:
          parameters: [q], which made the episodes.
          trajectories: of the agent, of `held` parameters.
          kept: by which its policy saw.
        """
        logs = learner.log_likelihood(self.acting(kept), parameters, trajectories)
        return draws.score(jnp.sum(logs))

    def own(self, params: Params):
        """Parameters of the agents' environments, [A, ...], or None where all are alike."""
        return params.agent["environment"] if self.config.differs else None

    def judged(self, trajectories, kept: OracleState) -> learner.Trajectories:
        """Episodes of one agent as its estimates read them: with values, if there is a critic.

        Args:
          trajectories: of the agent.
          kept: before these episodes.
        """
        if self.critic is None:
            return trajectories
        return self.critic.judged(kept.critic, trajectories)

    def rule(self, params) -> learner.AdvantageRule:
        """What makes advantages of the rewards of one agent."""
        if self.critic is None:
            return self.advantages
        return dataclasses.replace(self.advantages, gae_lambda=params["critic.gae_lambda"])

    def with_episodes(
        self, kept: OracleState, parameters, trajectories, params, seeing: OracleState | None = None
    ) -> OracleState:
        """What one agent keeps after the episodes of one more gradient.

        Only after it: values that had learned from the episodes would bias their estimate.

        Args:
          kept: before.
          parameters: [q], which made the episodes.
          trajectories: of the agent.
          params: of the agent.
          seeing: by which its policy saw; `kept` by default.
        """
        discount = self.task.discount
        drawn = kept.drawn
        if self.scored:
            drawn = drawn + self.score(parameters, trajectories, kept if seeing is None else seeing)
        statistics = kept.statistics.seen(trajectories, discount)
        after = kept = kept._replace(statistics=statistics, drawn=drawn)
        if self.observations.normalize != "none":
            inputs = jax.vmap(jax.vmap(self.task.encode))(trajectories.observation)
            inputs = inputs.reshape(-1, inputs.shape[-1]).astype(jnp.float32)
            new = moments_where(inputs, trajectories.mask.reshape(-1))
            observed = kept.observed._replace(own=statistics_joined(kept.observed.own, new))
            after = kept._replace(observed=observed)
        if self.critic is None:
            return after
        seen = with_entropy(self.acting(kept), parameters, trajectories, self.entropy(params))
        returns = learner.returns_to_go(seen.reward, discount)
        rate, steps = params["critic.learning_rate"], self.config.critic.steps
        return after._replace(critic=self.critic.fitted(kept.critic, seen, returns, rate, steps))

    def estimate(self, parameters, trajectories, params, kept: OracleState) -> jax.Array:
        """The estimated gradient [q] of one agent.

        Args:
          parameters: [q], which made the episodes.
          trajectories: of the agent, as `judged`.
          params: of the agent.
          kept: before these episodes.
        """
        return learner.estimate(
            self.acting(kept),
            parameters,
            trajectories,
            self.task.discount,
            self.rule(params),
            self.entropy(params),
        )

    def gradients(self, population, params, keys, parameters, kept, count, differentiable):
        """Gradients of all agents at their own parameters.

        Args:
          population: who belongs to whom.
          params: traced properties.
          keys: a pair of [A], as `rollouts.episodes.sample_trajectories` takes them.
          parameters: [A, q].
          kept: `OracleState` of [A].
          count: episodes of each agent.
          differentiable: whether loops have a static length.

        Returns:
          [A, q], and what is kept after.
        """
        if self.exact:
            # No episode is made, and none is counted.
            return per_agent(self.gradient, population, params, parameters), kept

        trajectories = self.sample(params, keys, parameters, count, differentiable, kept)
        return self.estimates(population, params, trajectories, parameters, kept)

    def estimates(self, population, params, trajectories, parameters, kept):
        """Estimated gradients of all agents from their episodes.

        Args:
          population: who belongs to whom.
          params: traced properties.
          trajectories: of [A, N, T], under the parameters.
          parameters: [A, q].
          kept: `OracleState` of [A].

        Returns:
          [A, q], and what is kept after.
        """

        def one(parameters, kept, trajectories, params):
            value = self.estimate(parameters, self.judged(trajectories, kept), params, kept)
            return value, self.with_episodes(kept, parameters, trajectories, params)

        def everybody(trajectories, parameters, kept):
            return per_agent(one, population, params, parameters, kept, trajectories)

        return learner.without_padding(everybody, trajectories, parameters, kept)


def keys_at(keys, time, place) -> tuple:
    """Keys of first states and of episodes, [A] each, of one gradient.

    Args:
      keys: [A], of a stream or of the agents.
      time: the round.
      place: of the gradient in the round.
    """
    return tuple(streams.fold(own, place) for own in episodic.pair_of(keys, time))
