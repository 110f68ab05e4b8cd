"""CoinRun as a vector: the player, the map around it and the next enemies."""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl import backend
from fedjax_rl.envs.procgen import coinrun, generator, maps, motion
from fedjax_rl.envs.procgen.coinrun import CoinRunParams, CoinRunState

VIEW = 13  # cells of the map on a side, as a picture shows them
SEEN = 4  # enemies
VECTOR_SIZE = 5 + VIEW * VIEW + 3 * SEEN

# What is said of a cell, in the order of `maps.CODES`.
_VALUES = {
    "empty": 0.0,
    "interior": 1.0,
    "surface": 1.0,
    "lava": -1.0,
    "lava surface": -1.0,
    "coin": 2.0,
    "saw": -0.5,
    "crate": 0.5,
}


def features(state: CoinRunState, params: CoinRunParams) -> chex.Array:
    """The vector observation: the player, the cells that a picture shows, the next enemies.

    Args:
      state: of an episode.
      params: of the game, with its levels.

    Returns:
      float32 [186] in cells and cells per step: x, y, vx and vy of the player and whether it
      stood; the 13 by 13 cells around its own, by column and row from the lower left (ground 1,
      crate 0.5, empty 0, saw -0.5, lava -1, coin 2); dx, dy and velocity of the 4 nearest enemies,
      the nearest first, zeros where there are fewer.
    """
    state = backend.once(state)  # else a step is redone for every entry
    corner = [jnp.floor(z).astype(jnp.int32) + maps.MARGIN - VIEW // 2 for z in (state.x, state.y)]
    cells = jnp.asarray(params.table.cells)
    window = jax.lax.dynamic_slice(cells, (state.row, *corner), (1, VIEW, VIEW)).ravel()
    value = jnp.zeros(VIEW * VIEW, jnp.float32)
    for name, code in maps.CODES.items():
        here = window >= code if name == "crate" else window == code
        value = jnp.where(here, jnp.float32(_VALUES[name]), value)

    dx = state.enemy_x - state.x
    dy = jnp.asarray(params.table.enemies)[state.row, :, 1] - state.y
    there = state.enemy_x > 0
    far = jnp.where(there, dx * dx + dy * dy, jnp.inf)
    columns = motion.nearest(far, (dx, dy, state.enemy_vx), SEEN)
    player = [state.x, state.y, state.vx, state.vy, state.supported.astype(jnp.float32)]
    return jnp.concatenate([jnp.stack(player), value, columns.ravel()])


def feature_scale() -> np.ndarray:
    """What divides the entries of `features` so that they are of order one, float32 [186]."""
    player = [generator.SIZE, generator.SIZE, coinrun.TOP_SPEED, coinrun.TOP_FALL, 1]
    enemy = [VIEW, VIEW, maps.ENEMY_SPEED]
    return np.array(player + [1] * VIEW**2 + enemy * SEEN, np.float32)
