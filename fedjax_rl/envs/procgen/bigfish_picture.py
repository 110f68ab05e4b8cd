"""The picture of BigFish: 3.2 pixels per cell, seven waters, three species; all drawn by formula.

Axis letters as in `raster`: ``B`` sprites (32 fish and the player), ``H`` and ``W`` of a patch.
"""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl import backend
from fedjax_rl.envs.procgen import fish, raster
from fedjax_rl.envs.procgen.bigfish import BigFishParams, BigFishState
from fedjax_rl.envs.procgen.drawing import Drawing

_SCALE = raster.PIXELS / fish.SIZE
# 12.8 pixels are the most; 16 columns, because a power of two is twice as fast.
_ROWS, _COLUMNS = 13, 16
_PLAYER = 3  # after the species, which are 0, 1 and 2
_TOP = 63  # the order of the player, over all fish

# By species, then of the player: back, belly and band. Their sizes are not to be seen in them.
_PAINT = np.array(
    [
        [(222, 148, 230), (170, 105, 186), (242, 196, 246)],
        [(226, 74, 54), (170, 40, 48), (250, 128, 96)],
        [(250, 158, 14), (206, 112, 8), (255, 222, 150)],
        [(44, 196, 104), (22, 128, 74), (130, 236, 160)],
    ],
    np.float64,
)
_FLAT = np.array([(127, 127, 255), (255, 127, 127), (255, 191, 127), (127, 255, 127)], np.float64)
_EYE = (16, 16, 32)
# Width to height of the seven backgrounds.
_BACKGROUND_ASPECTS = (16 / 9, 16 / 9, 16 / 9, 16 / 9, 1.69, 1.4, 4 / 3)


@dataclasses.dataclass(frozen=True)
class BigFishPicture:
    """Draws a state.

    Attributes:
      drawing: options of drawing.
    """

    drawing: Drawing

    def __call__(self, state: BigFishState, params: BigFishParams) -> chex.Array:
        """Returns the picture, uint8 [64, 64, 3], row 0 at the top."""
        del params
        state = backend.once(state)  # else it is redone for every pixel
        words = raster.stamp(
            *_sprites(state, self.drawing.use_monochrome_assets), self._water(state)
        )
        if self.drawing.paint_vel_info:
            words = raster.paint_velocity(words, state.vx / 0.5, state.vy / 0.5)
        return raster.picture(words)

    def _water(self, state: BigFishState) -> chex.Array:
        shape = (raster.PIXELS, raster.PIXELS)
        if not self.drawing.use_backgrounds:
            return jnp.zeros(shape, jnp.uint32)
        slack = jnp.asarray(np.array(_BACKGROUND_ASPECTS, np.float32) - 1)[state.background]
        shift = jnp.round(state.offset * slack * raster.PIXELS).astype(jnp.int32)
        start = (state.background, jnp.int32(0), shift)
        return jax.lax.dynamic_slice(jnp.asarray(backgrounds()), start, (1, *shape))[0]


def _sprites(state: BigFishState, monochrome: bool) -> tuple[chex.Array, chex.Array, chex.Array]:
    """Returns the patches of all bodies, uint32 [B, H, W], and their first pixels, int32 [B]."""
    shoal = state.shoal
    older = (shoal.born[None] < shoal.born[:, None]) & (shoal.born[None] > 0)
    place = 1 + jnp.sum(older, axis=1, dtype=jnp.int32)

    def both(fish_values, player):
        return jnp.append(fish_values, player)

    x, y = both(shoal.x, state.x), both(shoal.y, state.y)
    half_x, half_y = both(shoal.radius, state.radius), both(shoal.half_height, state.radius)
    # An empty slot is drawn outside.
    x = jnp.where(both(shoal.born, 1) > 0, x, -2 * fish.SIZE)
    half_x, half_y = jnp.maximum(half_x, 0.1), jnp.maximum(half_y, 0.1)
    look = both(shoal.species, jnp.int32(_PLAYER))
    leftward = both(shoal.velocity < 0, state.facing_left)
    order = both(place, jnp.int32(_TOP)).astype(jnp.uint32) << jnp.uint32(24)

    columns, u = raster.within(_SCALE * (x - half_x), 2 * _SCALE * half_x, _COLUMNS)
    rows, v = raster.within(_SCALE * (fish.SIZE - y - half_y), 2 * _SCALE * half_y, _ROWS)
    if monochrome:
        filled = (u < 1)[:, None] & (v < 1)[:, :, None]
        colour = jnp.asarray(raster.pack(_FLAT))[look][:, None, None]
        return jnp.where(filled, order[:, None, None] | colour, jnp.uint32(0)), rows, columns

    u = jnp.where(leftward[:, None] & (u < 1), 1 - u, u)
    # Each shape is a sum or a comparison of a row's and a column's number.
    body = ((u - 0.6) / 0.4)[:, None] ** 2 + ((v - 0.5) / 0.45)[:, :, None] ** 2 < 1
    flare = jnp.where(u < 0.3, 0.46 - 1.3 * u, -1.0)
    tail = jnp.abs(v - 0.5)[:, :, None] < flare[:, None]
    eye = ((u - 0.8) / 0.075)[:, None] ** 2 + ((v - 0.38) / 0.1)[:, :, None] ** 2 < 1
    band = (jnp.abs(u - 0.52) < 0.06) & (look != 0)[:, None]
    back, belly, stripe = (
        jnp.asarray(raster.pack(_PAINT[:, n]))[look][:, None, None] for n in range(3)
    )
    colour = jnp.where((v < 0.66)[:, :, None], back, belly)
    colour = jnp.where(band[:, None] & body, stripe, colour)
    colour = jnp.where(eye, jnp.uint32(raster.pack(np.array(_EYE))), colour)
    return jnp.where(body | tail, order[:, None, None] | colour, jnp.uint32(0)), rows, columns


@functools.cache
def backgrounds() -> np.ndarray:
    """The seven waters, words [7, 64, 115]; the narrower ones are padded by their last column."""
    widest = int(np.ceil(max(_BACKGROUND_ASPECTS) * raster.PIXELS)) + 1
    scenes = [_striped(n) for n in range(4)] + [_teal, _deep, _bright]
    words = []
    for scene, aspect in zip(scenes, _BACKGROUND_ASPECTS, strict=True):
        width = int(np.ceil(aspect * raster.PIXELS)) + 1
        y, x = np.mgrid[: raster.PIXELS, :width] / (raster.PIXELS - 1)
        colours = np.stack(np.broadcast_arrays(*scene(x, y)), axis=-1)
        words.append(np.pad(raster.pack(colours), ((0, 0), (0, widest - width)), mode="edge"))
    return np.stack(words)


def _mix(share, one, other):
    """Three channels from one colour to another, by a share [64, W] in [0, 1]."""
    share = np.clip(share, 0, 1)
    return tuple(a + (b - a) * share for a, b in zip(one, other, strict=True))


def _add(colour, amount):
    """Lightens three channels by [64, W]."""
    return tuple(channel + amount for channel in colour)


def _over(shape, one, other):
    """One colour where a shape is, another elsewhere."""
    return tuple(np.where(shape, a, b) for a, b in zip(one, other, strict=True))


def _striped(number: int):
    """Water from almost white to black blue, in bands that swing; four of them, nearly equal."""

    def scene(x, y):
        phase = 1.7 * number
        swing = 0.035 * np.sin(5 * x + phase) + 0.02 * np.sin(11 * x - 2 * phase)
        band = np.sin(2 * np.pi * (7 + 0.5 * number) * (y + swing))
        colour = _mix(1.15 * y**0.8 + 0.22 * band, (196, 250, 255), (0, 16, 70))
        return _add(colour, 6 * np.sin(31 * x + 17 * y))

    return scene


def _teal(x, y):
    """Light teal with a floor of sand and weeds."""
    water = _mix(y, (196, 246, 236), (58, 168, 170))
    water = _add(water, 9 * np.sin(9 * x + 4 * np.sin(7 * y)))
    floor = y > 0.84 + 0.05 * np.sin(6 * x) + 0.02 * np.sin(17 * x)
    sand = _add(_mix(y, (190, 190, 150), (120, 130, 104)), 6 * np.sin(60 * x) * np.sin(50 * y))
    weeds = np.abs((3.1 * x + 0.05 * np.sin(25 * y)) % 1 - 0.5) < 0.10 * (y - 0.45)
    return _over(floor, sand, _over(weeds, (36, 128, 112), water))


def _deep(x, y):
    """Deep blue under slanting rays."""
    ray = np.sin(14 * (x + 0.45 * y)) + 0.6 * np.sin(29 * (x + 0.45 * y) + 1)
    water = _mix(y, (22, 84, 190), (4, 14, 70))
    water = _add(water, 16 * np.maximum(ray, 0) * (1 - y))
    rocks = y > 0.9 + 0.06 * np.sin(9 * x + 1) * np.sin(4 * x)
    return _over(rocks, _mix(y, (14, 26, 74), (4, 8, 36)), water)


def _bright(x, y):
    """Bright turquoise, lit by a net of light."""
    net = np.abs(np.sin(8 * x + 2 * np.sin(6 * y)) + np.sin(9 * y + 2 * np.sin(5 * x)))
    water = _mix(y, (110, 240, 244), (14, 170, 206))
    return _add(water, 34 * np.exp(-6 * net) - 4)
