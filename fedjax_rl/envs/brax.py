"""Environments of brax (Freeman et al. 2021, arXiv 2106.13281) as tasks."""

import dataclasses
import functools
import logging
import warnings
from typing import Any

import chex
import jax
import jax.numpy as jnp

from fedjax_rl.envs.task import Continuous, Task, cast, foreign
from fedjax_rl.names import check_known

BACKENDS = ("spring", "positional", "generalized", "mjx")
TESTED = "0.14.2"


@dataclasses.dataclass(frozen=True, eq=False)
class BraxEnv:
    """An environment of brax behind the environment protocol; ``params`` is empty.

    The state is brax's own, with the observation, the reward and the metrics in it.

    Attributes:
      env: of brax, bare: no clock, no reset at the end of an episode.
    """

    env: Any

    def reset(self, key: chex.PRNGKey, params: Any) -> tuple[chex.Array, Any]:
        """Returns ``(obs, state)`` of a new episode."""
        del params
        with foreign():
            state = self.env.reset(key)
            state = cast(state, jax.tree.map(jnp.result_type, state))
        return state.obs, state

    def step(
        self, key: chex.PRNGKey, state: Any, action: chex.Array, params: Any
    ) -> tuple[chex.Array, Any, chex.Array, chex.Array, chex.Array, dict[str, Any]]:
        """Makes one control step; at the end of an episode no new one starts.

        Args:
          key: not needed, the physics is deterministic.
          state: of `reset` or a step.
          action: [M] in [-1, 1]; keeping it there is the policy's work.
          params: not needed.

        Returns:
          ``(obs, state, reward, terminated, truncated, info)``: the reward [] float32, whether
          brax says that it is done, False, an empty dictionary.
        """
        del key, params
        # brax writes its metrics into the dictionary that it is handed.
        mine = state.replace(metrics=dict(state.metrics), info=dict(state.info))
        with foreign():
            new = cast(self.env.step(mine, action), jax.tree.map(jnp.result_type, state))
        return new.obs, new, new.reward, new.done > 0, jnp.zeros((), bool), {}


def brax_task(
    name: str = "ant", backend: str = "spring", discount: float = 0.99, max_steps: int = 1000
) -> Task:
    """Adapts an environment of brax; its behaviour is where the torso is at the end (x, y), in m.

    Ant has 27 observations, 8 actions and control steps of 0.05 s; a step gives the velocity
    forward, plus 1, minus half the squared norm of the action, and the episode ends when the
    torso's height leaves [0.2, 1]. The backends are different simulators: returns of one do not
    compare with those of another, nor with MuJoCo's.

    Args:
      name: of brax, such as "ant", "halfcheetah", "hopper", "walker2d".
      backend: "spring", "positional", "generalized" or "mjx".
      discount: in [0, 1].
      max_steps: T, at least 1.

    Raises:
      ImportError: If brax is not installed.
      ValueError: If the environment or the backend is unknown, or an argument is out of range.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend is {backend!r}; allowed: {', '.join(BACKENDS)}")
    envs = _brax_envs()
    check_known(name, envs._envs, "environment of brax")
    with foreign(), warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message=".*not actively being maintained"
        )  # as said above
        env = envs.get_environment(name, backend=backend)
        # brax's own observation_size makes a whole reset, uncompiled.
        (observation_size,) = jax.eval_shape(env.reset, jax.random.key(0)).obs.shape
    return Task(
        name=f"brax/{name}",
        env=BraxEnv(env),
        params=(),
        observation_size=observation_size,
        action=Continuous(int(env.action_size)),
        max_steps=max_steps,
        discount=discount,
        encode=lambda obs: obs,
        trace=lambda state: state.pipeline_state.x.pos[0, :2],
        summarise=lambda last, mean, steps: last,
        behaviour_size=2,
        options=(("backend", backend), ("discount", discount), ("max_steps", max_steps)),
    )


@functools.cache
def _brax_envs() -> Any:
    """Imports brax's environments, and says once what to expect of them."""
    try:
        with foreign():
            import brax
            from brax import envs
    except ImportError as error:
        raise ImportError("environments of brax need it installed: pip install brax") from error
    logging.getLogger("fedjax_rl").info(
        "brax no longer maintains its environments; they are supported here, tested with brax %s "
        "(installed: %s).",
        TESTED,
        brax.__version__,
    )
    return envs
