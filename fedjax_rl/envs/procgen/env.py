"""Either game behind the environment protocol, and the automatic reset of Procgen."""

import dataclasses
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class ProcgenEnv:
    """A game: rules, and what is seen of a state. Everything is for one copy; callers vmap.

    Attributes:
      dynamics: the rules, as `BigFishDynamics`.
      observe: from a state and parameters to an observation, as `BigFishPicture`.
    """

    dynamics: Any
    observe: Callable[[Any, Any], chex.Array]

    def reset(self, key: chex.PRNGKey, params: Any) -> tuple[chex.Array, Any]:
        """Returns ``(obs, state)`` at the start of a level that the key, consumed, draws.

        Args:
          key: consumed.
          params: of the game.
        """
        state = self.dynamics.begin(self.dynamics.draw(key, params), params)
        return self.observe(state, params), state

    def step(
        self, key: chex.PRNGKey, state: Any, action: chex.Array, params: Any
    ) -> tuple[chex.Array, Any, chex.Array, chex.Array, chex.Array, dict[str, Any]]:
        """Makes one step; at the end of an episode no new level starts.

        Args:
          key: unused, for what is random in an episode is a matter of its level.
          state: of `reset` or a step.
          action: integer, 0 to 14.
          params: of the game.

        Returns:
          ``(obs, state, reward, terminated, truncated, info)``: the reward [] float32, two bools,
          and ``info`` with ``level_seed``, ``level_complete`` and ``timeout``.
        """
        del key
        state, reward, terminated, truncated, info = self.dynamics.advance(state, action, params)
        return self.observe(state, params), state, reward, terminated, truncated, info

    def auto_step(
        self, key: chex.PRNGKey, state: Any, action: chex.Array, params: Any
    ) -> tuple[chex.Array, Any, chex.Array, chex.Array, chex.Array, dict[str, Any]]:
        """Makes one step as users of Procgen know it: an end loads the next level.

        The reward and the two ends are those of the step made; the observation and the state are
        then the first ones of the next level, which the key, consumed, draws. One observation is
        made, not two.

        Args:
          key: consumed, of the next level.
          state: of `reset` or a step.
          action: integer, 0 to 14.
          params: of the game.

        Returns:
          As `step`; ``info`` has ``prev_level_seed`` and ``prev_level_complete`` of the step made
          and ``level_seed`` of the level now seen.
        """
        state, reward, terminated, truncated, info = self.dynamics.advance(state, action, params)
        # In every step, as under `vmap` a condition would, too; a level is few draws, or a row.
        fresh = self.dynamics.begin(self.dynamics.draw(key, params), params)
        ends = terminated | truncated
        state = jax.tree.map(lambda new, old: jnp.where(ends, new, old), fresh, state)
        info = {
            "prev_level_seed": info["level_seed"],
            "prev_level_complete": info["level_complete"],
            "level_seed": state.seed,
            "timeout": info["timeout"],
        }
        return self.observe(state, params), state, reward, terminated, truncated, info
