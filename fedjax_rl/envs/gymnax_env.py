"""Environments that others wrote, behind our protocol: gymnax's, and a user's own.

Of gymnax (Lange 2022, https://github.com/RobertTLange/gymnax) the bare functions are called,
without the reset that it puts behind every end of an episode and without its compilation, so that a
step inside a roll-out is nothing but its arithmetic.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import chex
import jax.numpy as jnp
import numpy as np

from fedjax_rl.envs.task import cast, foreign

# Of gymnax, those with smooth steps in which no state ends an episode.
_ENDLESS = ("Pendulum-v1", "PointRobot-misc", "Reacher-misc", "Swimmer-misc")


class Watched(NamedTuple):
    """A state with what the behaviour needs of its observation.

    Attributes:
      state: of the environment.
      seen: [2] float32, the first two entries of the observation.
    """

    state: Any
    seen: chex.Array


@dataclasses.dataclass(frozen=True, eq=False)
class AdaptedEnv:
    """An environment behind the environment protocol; ``params`` are its own.

    Attributes:
      env: the environment.
      dtypes: of a state's leaves, the same after a reset and after a step.
      low: [M] lower end of every action, None where actions are taken as they are.
      high: [M] upper end.
      watch: whether a state is a `Watched` one or the environment's bare one.
    """

    env: Any
    dtypes: Any
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    watch: bool = False

    def reset(self, key: chex.PRNGKey, params: Any) -> tuple[chex.Array, Any]:
        """Returns ``(obs, state)`` of a new episode.

        Args:
          key: consumed.
          params: of the environment.
        """
        with foreign():
            obs, state = self._begin(key, params)
        return obs, self._watched(obs, cast(state, self.dtypes))

    def step(
        self, key: chex.PRNGKey, state: Any, action: chex.Array, params: Any
    ) -> tuple[chex.Array, Any, chex.Array, chex.Array, chex.Array, dict[str, Any]]:
        """Makes one step; at the end of an episode no new one starts.

        Args:
          key: consumed.
          state: of `reset` or a step.
          action: [] integer, or [M] in [-1, 1], which is stretched to the environment's range.
          params: of the environment.

        Returns:
          ``(obs, state, reward, terminated, truncated, info)``: the reward [] float32, two bools
          of which the second is the environment's clock, an empty dictionary.
        """
        old = state.state if self.watch else state
        if self.low is not None:
            # In double precision a policy is finer than the ends, which are the environment's own.
            low, high = (end.astype(action.dtype) for end in (self.low, self.high))
            action = low + (action + 1) * ((high - low) / 2)
        # Others' code was written for JAX's default promotion, and the caller may be stricter.
        with foreign():
            obs, new, reward, terminated, truncated = self._move(key, old, action, params)
        return (
            obs,
            self._watched(obs, cast(new, self.dtypes)),
            jnp.asarray(reward, jnp.float32).reshape(()),
            jnp.asarray(terminated, bool),
            jnp.asarray(truncated, bool),
            {},
        )

    def _begin(self, key, params) -> tuple:
        raise NotImplementedError

    def _move(self, key, state, action, params) -> tuple:
        raise NotImplementedError

    def _watched(self, obs: chex.Array, state: Any) -> Any:
        if not self.watch:
            return state
        seen = jnp.ravel(obs)[:2].astype(jnp.float32)
        return Watched(state, jnp.pad(seen, (0, 2 - seen.size)))


@dataclasses.dataclass(frozen=True, eq=False)
class GymnaxEnv(AdaptedEnv):
    """An environment of gymnax behind the environment protocol; ``params`` are its own."""

    @property
    def endless(self) -> bool:
        """Whether an episode ends by its clock alone, as far as is known."""
        return getattr(self.env, "name", None) in _ENDLESS

    def __post_init__(self):
        # gymnax detaches what a step gives, and has smooth steps that do not when they are asked.
        if getattr(self.env, "supports_transition_gradients", False):
            object.__setattr__(self, "env", self.env.with_transition_gradients())

    def _begin(self, key, params) -> tuple:
        return self.env.reset_env(key, params)

    def _move(self, key, state, action, params) -> tuple:
        obs, new, reward, terminated, _ = self.env.step_env(key, state, action, params)
        return obs, new, reward, terminated, self.env.is_truncated(new, params)

    def limit(self, params: Any, max_steps: int) -> Any:
        """Returns parameters whose clock stops after ``max_steps`` steps.

        Args:
          params: of the environment.
          max_steps: T.
        """
        return params.replace(max_steps_in_episode=max_steps)


@dataclasses.dataclass(frozen=True, eq=False)
class OwnEnv(AdaptedEnv):
    """A user's environment behind the environment protocol; ``params`` are its own.

    Attributes:
      varies: names of the parameters that may differ between agents, by a factor.
    """

    varies: tuple[str, ...] = ()

    def _begin(self, key, params) -> tuple:
        return self.env.reset(key, params)

    def _move(self, key, state, action, params) -> tuple:
        obs, new, reward, terminated, *rest = self.env.step(key, state, action, params)
        # Four values and information, or five: an older protocol tells one end of an episode.
        return obs, new, reward, terminated, rest[0] if len(rest) > 1 else jnp.zeros((), bool)

    def parts(self, params: Any) -> tuple[str, ...]:
        """What can differ between agents, as `envs.members` names it."""
        del params
        return self.varies

    def vary(self, params: Any, changes: Mapping[str, np.ndarray]) -> Any:
        """Returns parameters of N agents, on the host.

        Args:
          params: leaves [N, ...].
          changes: by name, factors [N].
        """
        new = {}
        for name, factor in changes.items():
            old = np.asarray(read(params, name))
            own = old * factor.reshape(-1, *(1,) * (old.ndim - 1))
            new[name] = own.astype(np.result_type(old.dtype, np.float32))
        if isinstance(params, Mapping):
            return type(params)({**params, **new})
        if isinstance(params, tuple):
            return params._replace(**new)
        return dataclasses.replace(params, **new)


def read(params: Any, name: str) -> Any:
    """Reads a parameter by name.

    Args:
      params: of an environment, a mapping or a record.
      name: of the parameter.

    Returns:
      Its value; None where there is none.
    """
    if isinstance(params, Mapping):
        return params.get(name)
    return getattr(params, name, None)
