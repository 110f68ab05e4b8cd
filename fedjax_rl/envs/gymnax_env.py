"""Environments of gymnax (Lange 2022, https://github.com/RobertTLange/gymnax) behind our protocol.

Their bare functions are called, without the reset that gymnax puts behind every end of an episode
and without its compilation, so that a step inside a roll-out is nothing but its arithmetic.
"""

import dataclasses
from typing import Any, NamedTuple

import chex
import jax.numpy as jnp
import numpy as np

from fedjax_rl.envs.task import cast, foreign


class Watched(NamedTuple):
    """A state with what the behaviour needs of its observation.

    Attributes:
      state: of gymnax.
      seen: [2] float32, the first two entries of the observation.
    """

    state: Any
    seen: chex.Array


@dataclasses.dataclass(frozen=True, eq=False)
class GymnaxEnv:
    """An environment of gymnax behind the environment protocol; ``params`` are its own.

    Attributes:
      env: of gymnax.
      dtypes: of a state's leaves, the same after a reset and after a step.
      low: [M] lower end of every action, None where actions are discrete.
      high: [M] upper end.
      watch: whether a state is a `Watched` one or the bare one of gymnax.
    """

    env: Any
    dtypes: Any
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    watch: bool = False

    def reset(self, key: chex.PRNGKey, params: Any) -> tuple[chex.Array, Any]:
        """Returns ``(obs, state)`` of a new episode."""
        with foreign():
            obs, state = self.env.reset_env(key, params)
        return obs, self._watched(obs, cast(state, self.dtypes))

    def step(
        self, key: chex.PRNGKey, state: Any, action: chex.Array, params: Any
    ) -> tuple[chex.Array, Any, chex.Array, chex.Array, chex.Array, dict[str, Any]]:
        """Makes one step; at the end of an episode no new one starts.

        Args:
          key: consumed.
          state: of `reset` or a step.
          action: [] integer, or [M] in [-1, 1], which is stretched to the environment's range.
          params: of gymnax.

        Returns:
          ``(obs, state, reward, terminated, truncated, info)``: the reward [] float32, two bools
          of which the second is the environment's clock, an empty dictionary.
        """
        old = state.state if self.watch else state
        if self.low is not None:
            action = self.low + (action + 1) * ((self.high - self.low) / 2)
        with foreign():
            obs, new, reward, terminated, _ = self.env.step_env(key, old, action, params)
            truncated = self.env.is_truncated(new, params)
        return (
            obs,
            self._watched(obs, cast(new, self.dtypes)),
            jnp.asarray(reward, jnp.float32).reshape(()),
            jnp.asarray(terminated, bool),
            jnp.asarray(truncated, bool),
            {},
        )

    def limit(self, params: Any, max_steps: int) -> Any:
        """Returns parameters whose clock stops after ``max_steps`` steps."""
        return params.replace(max_steps_in_episode=max_steps)

    def _watched(self, obs: chex.Array, state: Any) -> Any:
        if not self.watch:
            return state
        seen = jnp.ravel(obs)[:2].astype(jnp.float32)
        return Watched(state, jnp.pad(seen, (0, 2 - seen.size)))
