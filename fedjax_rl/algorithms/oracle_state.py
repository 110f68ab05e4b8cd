"""What an agent keeps for its estimates of gradients: what it has seen, and learned of values."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fedjax_rl.algorithms.observed import Observed, renewed
from fedjax_rl.learners import policy_gradient as learner
from fedjax_rl.learners.observations import Normalizer, normalizer_of


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
        returns = learner.returns_of(trajectories.reward, discount)
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


class OracleState(NamedTuple):
    """What an oracle keeps of one agent. It stays with the agent, and costs no message.

    Attributes:
      statistics: of its last round.
      observed: `Observed`, by which its policy sees; joined anew for every gradient.
      critic: `learners.critic.Values`, fitted to its episodes so far; () where there is no critic.
      drawn: scalar 0 whose derivative is that of the log-probability of all its actions; or ().
    """

    statistics: RoundStatistics
    observed: Observed = Observed()
    critic: Any = ()
    drawn: Any = ()

    @property
    def normalizer(self) -> Normalizer | None:
        """What the policy's inputs are normalised by now; None where they are as they are."""
        return normalizer_of(renewed(self.observed).used)

    def following(self) -> OracleState:
        """In a round that begins: statistics begin anew, what has been learned stays."""
        return self._replace(statistics=self.statistics.following())

    def weighed(self, weights, overflows) -> OracleState:
        """With the importance weights of one more gradient, as of `RoundStatistics.weighed`."""
        return self._replace(statistics=self.statistics.weighed(weights, overflows))
