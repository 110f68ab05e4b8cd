"""Games of Procgen as tasks."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl import fields
from fedjax_rl.envs.procgen import (
    bigfish,
    bigfish_vector,
    coinrun,
    coinrun_vector,
    fish,
    generator,
    levels,
    raster,
)
from fedjax_rl.envs.procgen.bigfish_picture import BigFishPicture
from fedjax_rl.envs.procgen.coinrun_picture import CoinRunPicture
from fedjax_rl.envs.procgen.drawing import Drawing, InTurns
from fedjax_rl.envs.procgen.env import ProcgenEnv
from fedjax_rl.envs.task import DISCOUNT, Discrete, Task
from fedjax_rl.names import check_known

OBSERVATIONS = ("vector", "pixels")
TIMEOUTS = ("end", "truncation")
PICTURE = (raster.PIXELS, raster.PIXELS, 3)
# Returns that published normalised scores take for 0 and for 1.
SCORES = {
    ("BigFish", "easy"): (1, 40),
    ("BigFish", "hard"): (0, 40),
    ("CoinRun", "easy"): (5, 10),
    ("CoinRun", "hard"): (5, 10),
}


_LEVELS = {
    "num_levels": fields.whole(0, levels.UNLIMITED),
    "start_level": fields.whole(0, levels.UNLIMITED),
    "pool": fields.whole(1, levels.MOST_TABLES),
}


@fields.checked(drawing=fields.instance(Drawing).or_none())
def procgen_env(
    game: str = "BigFish",
    observation: str = "vector",
    timeout: str = "end",
    drawing: Drawing | None = None,
) -> ProcgenEnv:
    """A game behind the environment protocol; two of the same arguments are equal.

    Args:
      game: "BigFish" or "CoinRun".
      observation: "vector", as ``features`` of `bigfish_vector` or `coinrun_vector` has it, or
        "pixels", uint8 [64, 64, 3] with row 0 at the top.
      timeout: "end", the time limit ends an episode like anything else, as users of Procgen have
        it, or "truncation".
      drawing: options of drawing; None is that of `Drawing`.

    Raises:
      ValueError: If a word is unknown.
    """
    drawing = Drawing() if drawing is None else drawing
    check_known(game, levels.GAMES, "game")
    check_known(observation, OBSERVATIONS, "observation")
    check_known(timeout, TIMEOUTS, "timeout")
    truncate, pixels = timeout == "truncation", observation == "pixels"
    if game == "BigFish":
        dynamics = bigfish.BigFishDynamics(drawing.restrict_themes, truncate)
        observe = InTurns(BigFishPicture(drawing)) if pixels else bigfish_vector.features
        return ProcgenEnv(dynamics, observe)
    observe = InTurns(CoinRunPicture(drawing)) if pixels else coinrun_vector.features
    return ProcgenEnv(coinrun.CoinRunDynamics(truncate), observe)


@fields.checked(**_LEVELS)
def procgen_params(
    game: str = "BigFish",
    mode: str = "easy",
    num_levels: int = 0,
    start_level: int = 0,
    source: str = "native",
    pool: int = 1024,
) -> Any:
    """Parameters of a game, on the host; arguments as of `procgen_task`.

    Args:
      game: "BigFish" or "CoinRun".
      mode: "easy" or "hard".
      num_levels: levels that episodes are drawn from, 0 for all.
      start_level: the first of them.
      source: "native" or "classic".
      pool: levels that stand in for all where they are tables.

    Raises:
      ValueError: If a word is unknown or the range of levels is not one.
    """
    check_known(game, levels.GAMES, "game")
    make = bigfish.bigfish_params if game == "BigFish" else coinrun.coinrun_params
    return make(mode, num_levels, start_level, source, pool)


@fields.checked(
    **_LEVELS,
    own_levels=fields.switch(),
    discount=DISCOUNT,
    max_steps=fields.COUNT.or_none(),
    **{field.name: fields.switch() for field in dataclasses.fields(Drawing)},
)
def procgen_task(
    game: str = "BigFish",
    mode: str = "easy",
    num_levels: int = 0,
    start_level: int = 0,
    own_levels: bool = False,
    source: str = "native",
    observation: str = "vector",
    discount: float = 0.99,
    max_steps: int | None = None,
    timeout: str = "end",
    pool: int = 1024,
    paint_vel_info: bool = False,
    use_backgrounds: bool = True,
    restrict_themes: bool = False,
    use_monochrome_assets: bool = False,
) -> Task:
    """BigFish or CoinRun of Procgen (Cobbe, Hesse, Hilton and Schulman, arXiv 1912.01588).

    Everything random in an episode is a function of its level and the step. Rewards are those of
    the game: 1 for a fish and 10 for all 30 of them; 10 for the coin. The behaviour of an episode
    of BigFish is (mean x, mean y, fish eaten / 30), that of CoinRun the last x and y, with places
    in [0, 1].

    Args:
      game: "BigFish" or "CoinRun".
      mode: "easy" or "hard".
      num_levels: levels that episodes are drawn from, 0 for all.
      start_level: the first of them.
      own_levels: whether agents have levels of their own: agent i those from start_level + i
        num_levels on.
      source: of what is random in a level, "native", or "classic" for the levels of Procgen.
      observation: "vector", or "pixels", which a policy sees as 64 x 64 x 3 numbers in [0, 1].
      discount: in [0, 1].
      max_steps: T, at least 1; None is the time limit of the game, 6000 or 1000.
      timeout: "end", or "truncation" if the time limit is to be one.
      pool: levels that stand in for all where they are tables (CoinRun, and the classic source).
      paint_vel_info: whether pictures tell the player's velocity in two grey squares.
      use_backgrounds: whether pictures have a background.
      restrict_themes: whether every kind of thing has one look; then all fish have one shape.
      use_monochrome_assets: whether things are drawn as rectangles.

    Returns:
      A `Task`.

    Raises:
      ValueError: If a word is unknown or a number out of its range.

    Example:
      >>> import fedjax_rl as frl
      >>> task = frl.envs.procgen_task("BigFish", num_levels=50, observation="pixels")
      >>> task.observation_size, task.action, task.max_steps
      (12288, Discrete(num=15), 6000)
    """
    # Before anything else has a name: the arguments are the options.
    options = dict(locals())
    own_game = options.pop("game")
    drawing = Drawing(**{field.name: options[field.name] for field in dataclasses.fields(Drawing)})
    env = procgen_env(own_game, observation, timeout, drawing)
    limit = bigfish.TIME_LIMIT if own_game == "BigFish" else coinrun.TIME_LIMIT
    options["max_steps"] = max_steps = limit if max_steps is None else max_steps
    if own_levels and num_levels == 0:
        raise ValueError(
            "own_levels is True with num_levels 0; allowed: False, or True with num_levels of at "
            "least 1"
        )

    first = procgen_params(own_game, mode, num_levels, start_level, source, pool)
    members = functools.partial(_own_levels, own_game, mode, num_levels, start_level, source, pool)
    sizes = tuple(np.shape(leaf) for leaf in jax.tree.leaves(first))
    size, encode = _encoder(own_game, observation)
    trace, summarise, behaviour_size = _behaviour(own_game)
    return Task(
        name=own_game,
        env=env,
        params=first,
        observation_size=size,
        action=Discrete(15),
        max_steps=max_steps,
        discount=discount,
        encode=encode,
        trace=trace,
        summarise=summarise,
        behaviour_size=behaviour_size,
        options=tuple(sorted(options.items())),
        members=members if own_levels else None,
        shape=(env, sizes),
    )


@fields.checked(mean_return=fields.reals("of any shape"))
def normalised_score(game: str, mode: str, mean_return: Any) -> Any:
    """The published normalisation of returns; a policy at random is below 0.

    Args:
      game: "BigFish" or "CoinRun".
      mode: "easy" or "hard".
      mean_return: any shape.

    Raises:
      ValueError: If a word is unknown.
    """
    check_known(game, levels.GAMES, "game")
    check_known(mode, levels.MODES, "mode")
    low, high = SCORES[game, mode]
    return (np.asarray(mean_return) - low) / (high - low)


def _encoder(game: str, observation: str) -> tuple[int, Callable[[chex.Array], chex.Array]]:
    """Returns D and the function from an observation to float32 [D] of order one."""
    if observation == "pixels":
        return int(np.prod(PICTURE)), _flat
    module = bigfish_vector if game == "BigFish" else coinrun_vector
    return module.VECTOR_SIZE, functools.partial(_scaled, module.feature_scale())


def _behaviour(game: str) -> tuple[Callable, Callable, int]:
    """Returns ``trace``, ``summarise`` and ``behaviour_size`` of the `Task`."""
    if game == "CoinRun":
        return _place, _last, 2
    return _place_and_eaten, _mean_place_and_eaten, 3


# Functions of the module, and parts of them, so that tasks can be pickled.


def _own_levels(
    game: str, mode: str, num_levels: int, start: int, source: str, pool: int, num_agents: int
) -> Any:
    """Parameters of N agents, of levels of their own each, leaves [N, ...]."""
    every = [
        procgen_params(game, mode, num_levels, start + agent * num_levels, source, pool)
        for agent in range(num_agents)
    ]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *every)


def _flat(picture: chex.Array) -> chex.Array:
    return jnp.ravel(picture).astype(jnp.float32) / 255


def _scaled(scale: np.ndarray, vector: chex.Array) -> chex.Array:
    return vector / scale


def _place(state: coinrun.CoinRunState) -> chex.Array:
    return jnp.stack([state.x, state.y]) / generator.SIZE


def _last(last: chex.Array, mean: chex.Array, steps: chex.Array) -> chex.Array:
    del mean, steps
    return last


def _place_and_eaten(state: bigfish.BigFishState) -> chex.Array:
    eaten = state.eaten.astype(jnp.float32) / bigfish.TO_EAT
    return jnp.stack([state.x / fish.SIZE, state.y / fish.SIZE, eaten])


def _mean_place_and_eaten(last: chex.Array, mean: chex.Array, steps: chex.Array) -> chex.Array:
    del steps
    return jnp.append(mean[:2], last[2])
