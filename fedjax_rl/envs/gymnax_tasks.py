"""Environments of gymnax by name, as tasks."""

import dataclasses
from typing import Any

import chex
import jax
import jax.numpy as jnp

from fedjax_rl import fields
from fedjax_rl.envs.adapting import (
    actions_of,
    common_dtypes,
    encoding_of,
    mean_and_share,
    seen_of,
)
from fedjax_rl.envs.cartpole import CartPoleEnv, CartPoleParams
from fedjax_rl.envs.gymnax_env import GymnaxEnv
from fedjax_rl.envs.tabular import DISCOUNT
from fedjax_rl.envs.task import Task, foreign
from fedjax_rl.names import check_known


@fields.checked(discount=DISCOUNT, max_steps=fields.COUNT.or_none())
def gymnax_task(
    name: str = "CartPole-v1", discount: float = 1.0, max_steps: int | None = None
) -> Task:
    """Adapts an environment of gymnax.

    CartPole's reward is 1 for every step, the one at which it falls included. Its behaviour is
    (mean position, mean angle, steps / 500), in m and rad; that of the others is the mean of the
    first two entries of the observation, and steps / max_steps. The dynamics are those of gymnax.
    They are Gymnasium's but for MountainCarContinuous, where gymnax takes the velocity away at the
    goal and leaves it at the left wall, and Gymnasium does it at the wall. Observations that are
    no vector are flattened, those that are one of a finite set are one-hot.

    Args:
      name: of gymnax, as ``gymnax.registered_envs`` lists it.
      discount: in [0, 1].
      max_steps: T, at least 1; None is the environment's own.

    Returns:
      A `Task`.

    Raises:
      ImportError: If gymnax is not installed.
      ValueError: If the environment is unknown, an argument is out of its range or the actions
        are neither discrete nor a bounded vector.

    Example:
      >>> import fedjax_rl as frl
      >>> task = frl.envs.gymnax_task("Pendulum-v1")
      >>> task.name, task.observation_size, task.action, task.max_steps
      ('gymnax/Pendulum-v1', 3, Continuous(size=1, bounded=True), 200)
    """
    try:
        import gymnax
    except ImportError as error:
        raise ImportError(f"{name} needs gymnax: pip install 'gymnax>=1.0'") from error

    check_known(name, gymnax.registered_envs, "environment of gymnax")
    with foreign():
        try:
            env, params = gymnax.make(name)
        except OSError as error:
            raise ValueError(
                f"name is {name!r}, whose data cannot be fetched ({error}); allowed without a "
                "network: environments that need none"
            ) from error
        own = int(params.max_steps_in_episode)
        max_steps = own if max_steps is None else max_steps
        # Its own clock is set as well: it would truncate a longer episode.
        params = params.replace(max_steps_in_episode=max_steps)
        action_space = env.action_space(params)
        key = jax.random.key(0)
        observation, first = jax.eval_shape(env.reset_env, key, params)
        action = jnp.zeros(action_space.shape, action_space.dtype)
        _, second, *_ = jax.eval_shape(env.step_env, key, first, action, params)
        dtypes = common_dtypes(first, second)

    action, low, high = actions_of(name, action_space)
    size, encode = encoding_of(name, observation, env, params)

    if name == "CartPole-v1":
        # Shares of 500 steps, whatever the length is, so that behaviours of studies compare.
        trace, watch, longest = _cartpole_trace, False, own
        params = CartPoleParams(**dataclasses.asdict(params))
    else:
        trace, watch, longest = seen_of, True, max_steps

    return Task(
        name=name if name == "CartPole-v1" else f"gymnax/{name}",
        env=(CartPoleEnv if name == "CartPole-v1" else GymnaxEnv)(env, dtypes, low, high, watch),
        params=params,
        observation_size=size,
        action=action,
        max_steps=max_steps,
        discount=discount,
        encode=encode,
        trace=trace,
        summarise=mean_and_share(longest),
        behaviour_size=3,
        options=(("discount", discount), ("max_steps", max_steps)),
    )


def _cartpole_trace(state: Any) -> chex.Array:
    return jnp.stack([state.x, state.theta])
