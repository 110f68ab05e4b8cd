"""Grid worlds as episodic tasks: what a policy sees of a cell, and what its behaviour is."""

import functools
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl.envs.grid_tables import GridEnv, GridWorld
from fedjax_rl.envs.task import Discrete, Task
from fedjax_rl.names import check_known

ENCODINGS = ("rc", "onehot", "index")


def grid_task(
    name: str,
    world: GridWorld,
    encoding: str,
    discount: float,
    max_steps: int,
    own: dict[str, Any],
) -> Task:
    """Makes the task of a grid world; its behaviour is the last cell, (row, column) in [0, 1].

    Args:
      name: of the factory in the registry.
      world: the tables.
      encoding: one of `ENCODINGS`.
      discount: in [0, 1], that of the tables.
      max_steps: T, at least 1.
      own: further arguments of the factory by name, as JSON could have them.

    Returns:
      A `Task` whose ``params`` and ``grid`` are the tables.

    Raises:
      ValueError: an unknown encoding, with the nearest known ones.
    """
    size, encode = _encoder(encoding, world.rows, world.columns)
    options = {**own, "encoding": encoding, "discount": discount, "max_steps": max_steps}
    return Task(
        name=name,
        env=GridEnv(),
        params=world,
        observation_size=size,
        action=Discrete(world.num_actions),
        max_steps=max_steps,
        discount=discount,
        encode=encode,
        # The place itself, whatever a policy sees of it.
        trace=_encoder("rc", world.rows, world.columns)[1],
        summarise=_last,
        behaviour_size=2,
        grid=world,
        options=tuple(sorted(options.items())),
    )


def check_encoding(encoding: Any) -> None:
    """Refuses what is no encoding of a grid, with the nearest one."""
    check_known(encoding, ENCODINGS, "encoding of a grid")


def _encoder(encoding: str, rows: int, columns: int) -> tuple[int, Callable]:
    """Returns D and the function from a state [] int32 to float32 [D]."""
    check_encoding(encoding)
    ways = {
        "rc": (2, functools.partial(_row_and_column, rows, columns)),
        "onehot": (rows * columns, functools.partial(_one_of, rows * columns)),
        "index": (1, _index),
    }
    return ways[encoding]


# Functions of the module, so that tasks can be pickled.


def _row_and_column(rows: int, columns: int, state: chex.Array) -> chex.Array:
    largest = np.array([max(rows - 1, 1), max(columns - 1, 1)], np.float32)
    return jnp.stack([state // columns, state % columns]).astype(jnp.float32) / largest


def _one_of(size: int, state: chex.Array) -> chex.Array:
    return jax.nn.one_hot(state, size, dtype=jnp.float32)


def _index(state: chex.Array) -> chex.Array:
    return jnp.asarray(state, jnp.float32)[None]


def _last(last: chex.Array, mean: chex.Array, steps: chex.Array) -> chex.Array:
    del mean, steps
    return last
