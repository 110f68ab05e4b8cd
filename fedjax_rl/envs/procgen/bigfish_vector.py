"""BigFish as a vector: the player and the nearest fish."""

import chex
import jax.numpy as jnp
import numpy as np

from fedjax_rl import backend
from fedjax_rl.envs.procgen import bigfish, fish, motion
from fedjax_rl.envs.procgen.bigfish import BigFishParams, BigFishState

SEEN = 8  # fish
VECTOR_SIZE = 5 + 4 * SEEN


def features(state: BigFishState, params: BigFishParams) -> chex.Array:
    """The vector observation.

    Args:
      state: of an episode.
      params: not asked for.

    Returns:
      float32 [37] in cells and cells per step: x, y, half size and velocity (vx, vy) of the
      player; then dx, dy, half width and velocity of the 8 nearest fish, the nearest first, zeros
      where there are fewer.
    """
    del params
    state = backend.once(state)  # else a step is redone for every pair of fish
    shoal = state.shoal
    dx, dy = shoal.x - state.x, shoal.y - state.y
    far = jnp.where(shoal.born > 0, dx * dx + dy * dy, jnp.inf)
    columns = motion.nearest(far, (dx, dy, shoal.radius, shoal.velocity), SEEN)
    player = jnp.stack([state.x, state.y, state.radius, state.vx, state.vy])
    return jnp.concatenate([player, columns.ravel()])


def feature_scale() -> np.ndarray:
    """What divides the entries of `features` so that they are of order one, float32 [37]."""
    player = [fish.SIZE, fish.SIZE, bigfish.LARGEST, 0.5, 0.5]
    return np.array(player + [fish.SIZE, fish.SIZE, bigfish.LARGEST, 0.5] * SEEN, np.float32)
