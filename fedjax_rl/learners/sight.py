"""What a task shows, and which networks can see it."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from fedjax_rl import streams
from fedjax_rl.envs.task import Discrete
from fedjax_rl.networks import heads
from fedjax_rl.remembered import remembered


@remembered()
def seen(task) -> jax.ShapeDtypeStruct:
    """Shape and dtype of what a task's environment shows, after a reset and after a step."""
    key = streams.any_key()
    first, state = jax.eval_shape(task.env.reset, key, task.params)
    if isinstance(task.action, Discrete):
        action = jax.ShapeDtypeStruct((), jnp.int32)
    else:
        action = jax.ShapeDtypeStruct((task.action.size,), jnp.float32)
    second = jax.eval_shape(task.env.step, key, state, action, task.params)[0]
    dtype = first.dtype
    if dtype != second.dtype:  # what a reset gives as an integer, a step may give as a fraction
        # Others' environments mix precisions, which the strict promotion of a caller would refuse.
        with jax.numpy_dtype_promotion("standard"):
            dtype = jnp.promote_types(dtype, second.dtype)
    return jax.ShapeDtypeStruct(first.shape, dtype)


def is_picture(task) -> bool:
    """Whether a task shows pictures [H, W, C]."""
    return len(seen(task).shape) == 3


def check_vectors(name: str, value: str, task) -> None:
    """Refuses a picture where a network takes vectors, and nobody has said which.

    Args:
      name: of the property that says the network.
      value: of it.
      task: an `envs.Task`; one with an `encode` of its own makes a vector of its picture.

    Raises:
      ValueError: naming the property, the picture and what is allowed.
    """
    shape = seen(task).shape
    if len(shape) == 3 and task.observation_size == math.prod(shape):
        raise ValueError(
            f"{name} is {value}, a network for vectors, on {task.name}, which shows pictures "
            f"{shape}; allowed: fedppo, feda2c or feddqn with network.kind "
            f"{', '.join(heads.PICTURES)}"
        )


def picture_of(task, network: str) -> tuple[int, ...]:
    """Shape [H, W, C] of the pictures of a task that a network is to see.

    Args:
      task: an `envs.Task`.
      network: of `networks.heads.PICTURES`.

    Raises:
      ValueError: observations that are no pictures, or that the network cannot see.
    """
    shape = seen(task).shape
    if len(shape) != 3:
        raise ValueError(
            f"network.kind is {network} on {task.name}, whose observations have the shape {shape}; "
            "allowed: mlp, or pictures [H, W, C]"
        )
    trunk, sides = heads.PICTURES[network], f"{shape[0]} x {shape[1]}"
    patch, smallest = getattr(trunk, "patch", 1), getattr(trunk, "smallest", 1)
    if shape[0] % patch or shape[1] % patch:
        raise ValueError(
            f"network.kind is {network} on pictures of {sides}; allowed: sides that are multiples "
            f"of its patch {patch}"
        )
    if min(shape[:2]) < smallest:
        raise ValueError(
            f"network.kind is {network} on pictures of {sides}; allowed: sides of at least "
            f"{smallest}"
        )
    return shape


def pixels(observation) -> jax.Array:
    """A picture as floats; bytes become fractions of 255."""
    # Converted for the network and not before: a rollout of floats is four times as large.
    if observation.dtype == jnp.uint8:
        return observation.astype(jnp.float32) * jnp.float32(1 / 255)
    return observation.astype(jnp.float32)
