"""Episodes and gradients of the agents of a population, sampled or exact, and what they saw."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fedjax_rl.algorithms import episodic
from fedjax_rl.envs import objective
from fedjax_rl.federation.state import Params, per_agent
from fedjax_rl.learners import policy_gradient as learner
from fedjax_rl.rollouts.episodes import sample_trajectories


class RoundStatistics(NamedTuple):
    """What an agent has seen in a round, all scalars.

    Attributes:
      value: sum of the discounted returns of its episodes.
      episodes: how many, float.
      steps: environment steps, uint32.
      weight: sum of its importance weights.
      weights: how many, float.
      largest: the largest of them.
      overflows: int32, of all rounds.
    """

    value: jax.Array
    episodes: jax.Array
    steps: jax.Array
    weight: jax.Array
    weights: jax.Array
    largest: jax.Array
    overflows: jax.Array

    def following(self) -> RoundStatistics:
        """Of a round that begins."""
        return jax.tree.map(jnp.zeros_like, self)._replace(overflows=self.overflows)

    def seen(self, trajectories: learner.Trajectories, discount) -> RoundStatistics:
        """With the episodes [N, T] of one more gradient.

        Args:
          trajectories: of one agent.
          discount: of the task.
        """
        returns = learner.returns_to_go(trajectories.reward, discount)[:, 0]
        return self._replace(
            # Sums rather than means: agents of other numbers of episodes are averaged by weight.
            value=self.value + jnp.sum(returns),
            episodes=self.episodes + returns.shape[0],
            steps=self.steps + jnp.sum(trajectories.steps, dtype=jnp.uint32),
        )

    def weighed(self, weights, overflows) -> RoundStatistics:
        """With the importance weights [N] of one more gradient, before any truncation.

        Args:
          weights: [N].
          overflows: int32 scalar, how many of them are beyond exp(+-20).
        """
        return self._replace(
            weight=self.weight + jnp.sum(weights),
            weights=self.weights + weights.size,
            largest=jnp.maximum(self.largest, jnp.max(weights)),
            overflows=self.overflows + overflows,
        )


def no_statistics() -> RoundStatistics:
    """Of an agent that has not begun."""
    nothing = jnp.zeros(())
    return RoundStatistics(nothing, nothing, jnp.uint32(0), nothing, nothing, nothing, jnp.int32(0))


class Oracle:
    """Episodes and gradients of all agents of a population, as an algorithm asks for them."""

    def __init__(self, config) -> None:
        """Takes the static properties of a `LocalGradient`, resolved."""
        self.config = config
        self.task = config.task
        self.policy = config.make_policy()
        self.advantages = config.make_advantages()
        self.exact = config.gradient != "sampled"
        self.regularised = config.regularised

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

    def sample(self, params, keys, parameters, count: int, differentiable: bool):
        """Episodes of all agents under parameters [A, q]: `Trajectories` of [A, count, T].

        Args:
          params: traced properties.
          keys: a pair of [A], as `sample_trajectories` takes them.
          parameters: [A, q].
          count: episodes of each agent.
          differentiable: whether loops have a static length.
        """
        # Reverse mode needs a loop of known length.
        kind = "scan" if differentiable else self.config.loop
        return sample_trajectories(
            self.task, self.policy, keys, parameters, count, environment=self.own(params), kind=kind
        )

    def sample_both(self, params, keys, parameters, count: int, differentiable: bool) -> tuple:
        """Episodes of all agents under two parameters each, in one loop.

        A loop has a copy of the environment's step, which is most of what there is to compile.

        Args:
          params: traced properties.
          keys: two pairs of [A].
          parameters: two of [A, q].
          count: episodes of each agent under each.
          differentiable: whether loops have a static length.

        Returns:
          Two `Trajectories` of [A, count, T], those of two calls of `sample`.
        """

        def joined(*trees):
            return jax.tree.map(lambda *x: jnp.concatenate(x), *trees)

        # What is of a federation has no part in an episode; only environments are an agent's own.
        twice = Params({n: joined(x, x) for n, x in params.agent.items()}, {}, {})
        made = self.sample(twice, joined(*keys), joined(*parameters), count, differentiable)
        size = len(parameters[0])
        first = jax.tree.map(lambda x: x[:size], made)
        return first, jax.tree.map(lambda x: x[size:], made)

    def own(self, params: Params):
        """Parameters of the agents' environments, [A, ...], or None where all are alike."""
        return params.agent["environment"] if self.config.differs else None

    def estimate(self, parameters, trajectories, params) -> jax.Array:
        """The estimated gradient [q] of one agent.

        Args:
          parameters: [q], which made the episodes.
          trajectories: of the agent.
          params: of the agent.
        """
        return learner.estimate(
            self.policy,
            parameters,
            trajectories,
            self.task.discount,
            self.advantages,
            self.entropy(params),
        )

    def gradients(self, population, params, keys, parameters, statistics, count, differentiable):
        """Gradients of all agents at their own parameters.

        Args:
          population: who belongs to whom.
          params: traced properties.
          keys: a pair of [A], as `rollouts.episodes.sample_trajectories` takes them.
          parameters: [A, q].
          statistics: `RoundStatistics` of [A].
          count: episodes of each agent.
          differentiable: whether loops have a static length.

        Returns:
          [A, q] and the statistics.
        """
        if self.exact:
            # No episode is made, and none is counted.
            return per_agent(self.gradient, population, params, parameters), statistics

        trajectories = self.sample(params, keys, parameters, count, differentiable)
        return self.estimates(population, params, trajectories, parameters, statistics)

    def estimates(self, population, params, trajectories, parameters, statistics):
        """Estimated gradients of all agents from their episodes.

        Args:
          population: who belongs to whom.
          params: traced properties.
          trajectories: of [A, N, T], under the parameters.
          parameters: [A, q].
          statistics: `RoundStatistics` of [A].

        Returns:
          [A, q] and the statistics.
        """

        def one(parameters, own, trajectories, params):
            value = self.estimate(parameters, trajectories, params)
            return value, own.seen(trajectories, self.task.discount)

        def everybody(trajectories, parameters, statistics):
            return per_agent(one, population, params, parameters, statistics, trajectories)

        return learner.without_padding(everybody, trajectories, parameters, statistics)


def keys_at(keys, time, place) -> tuple:
    """Keys of first states and of episodes, [A] each, of one gradient.

    Args:
      keys: [A], of a stream or of the agents.
      time: the round.
      place: of the gradient in the round.
    """
    fold = jax.vmap(jax.random.fold_in, in_axes=(0, None))
    return tuple(fold(own, place) for own in episodic.pair_of(keys, time))
