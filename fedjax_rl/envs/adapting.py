"""What a task needs to know of an environment that somebody else wrote."""

import functools
import math
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl.envs.task import Continuous, Discrete, foreign


def actions_of(name: str, space: Any) -> tuple[Discrete | Continuous, Any, Any]:
    """Reads a space of actions as gymnax has it.

    Args:
      name: of the environment, for messages.
      space: with ``n``, or with ``shape``, ``low`` and ``high``.

    Returns:
      The actions, and the two ends of a box, float32 of its shape, None of discrete actions.

    Raises:
      ValueError: If actions are neither discrete nor a bounded vector.
    """
    # By structure: spaces of gymnax, and of anybody who writes alike.
    if hasattr(space, "n"):
        return Discrete(int(space.n)), None, None
    shape = getattr(space, "shape", None)
    if shape is None or len(shape) != 1 or not hasattr(space, "low"):
        raise ValueError(
            f"name is {name!r} with the actions {space}; allowed: environments with discrete "
            "actions or a vector of them"
        )
    low, high = (np.broadcast_to(np.asarray(e, np.float32), shape) for e in (space.low, space.high))
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise ValueError(f"name is {name!r} with unbounded actions; allowed: bounded actions")
    return Continuous(shape[0]), low, high


def encoding_of(
    name: str, observation: Any, env: Any, params: Any
) -> tuple[int, Callable[[chex.Array], chex.Array]]:
    """Returns D and the function from an observation to what a policy sees, float32 [D].

    Observations that are no vector are flattened, those that are one of a finite set are one-hot.

    Args:
      name: of the environment, for messages.
      observation: its shape and dtype, as ``jax.eval_shape`` has them.
      env: may have an ``observation_space``, which says how many values a scalar can have.
      params: of the environment.

    Raises:
      ValueError: If an observation is no array.
    """
    if not isinstance(observation, jax.ShapeDtypeStruct):
        raise ValueError(f"name is {name!r}; allowed: environments that observe one array")
    if observation.shape == () and hasattr(env, "observation_space"):
        with foreign():
            categories = getattr(env.observation_space(params), "n", None)
        if categories:
            size = int(categories)
            return size, functools.partial(_one_of, size)
    return math.prod(observation.shape), _vector


# Functions of the module, and parts of them, so that tasks can be pickled.


def _one_of(size: int, obs: chex.Array) -> chex.Array:
    return jax.nn.one_hot(obs, size, dtype=jnp.float32)


def _vector(obs: chex.Array) -> chex.Array:
    """A float32 vector is itself; anything else is flattened and cast."""
    if obs.ndim == 1 and obs.dtype == jnp.float32:
        return obs
    return jnp.ravel(obs).astype(jnp.float32)


def common_dtypes(first: Any, second: Any) -> Any:
    """Dtypes that the leaves of a state have after a reset and after a step.

    What a reset gives as an integer, a step may give as a fraction; a loop can only carry one.

    Args:
      first: state after a reset, as ``jax.eval_shape`` has it.
      second: state after a step.

    Returns:
      A pytree of dtypes, of the structure of a state.
    """
    return jax.tree.map(lambda a, b: jnp.result_type(a.dtype, b.dtype), first, second)


def mean_and_share(longest: int) -> Callable:
    """The behaviour of an episode: the mean of its traces, and its steps as a share of T.

    Args:
      longest: T.

    Returns:
      ``summarise`` of a `Task`.
    """
    return functools.partial(_mean_and_share, longest)


def _mean_and_share(
    longest: int, last: chex.Array, mean: chex.Array, steps: chex.Array
) -> chex.Array:
    del last
    share = jnp.asarray(steps, mean.dtype) / longest
    return jnp.append(mean, share)


def seen_of(state: Any) -> chex.Array:
    """What an adapter keeps of the observation, ``trace`` of a `Task`."""
    return state.seen
