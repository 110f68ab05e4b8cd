"""Pictures of 64 by 64 pixels: colours as words, sprites as small patches, one scatter for all.

A colour is a uint32 word, red lowest. A sprite fills a rectangle with real-valued edges, and a
pixel belongs to it if its centre is inside. All sprites are drawn at once: each on a patch of its
own that starts at its first pixel, as a word with the order of drawing above the colour, and the
largest word of a pixel wins.

Axis letters: ``B`` sprites, ``H`` rows and ``W`` columns of a patch.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np

PIXELS = 64
COLOUR = 0xFFFFFF  # the bits of a word that are its colour


def pack(colours: np.ndarray) -> np.ndarray:
    """Packs RGB [..., 3] of 0 to 255 into words [...], on the host."""
    red, green, blue = np.moveaxis(np.clip(np.rint(colours), 0, 255).astype(np.uint32), -1, 0)
    return red | (green << np.uint32(8)) | (blue << np.uint32(16))


def grey(value: chex.Array) -> chex.Array:
    """Words of greys, from integers 0 to 255 of any shape."""
    return jnp.asarray(value, jnp.uint32) * jnp.uint32(0x010101)


def picture(words: chex.Array) -> chex.Array:
    """Unpacks words [64, 64] to uint8 [64, 64, 3]."""
    return jax.lax.bitcast_convert_type(words, jnp.uint8)[..., :3]


def within(low: chex.Array, size: chex.Array, count: int) -> tuple[chex.Array, chex.Array]:
    """The pixels of patches along one axis.

    Args:
      low: the lower edges in pixels, float32 [B].
      size: float32 [B], in pixels, above 0.
      count: H or W.

    Returns:
      The first pixel, int32 [B], and where in the sprite the centres of the pixels lie, float32
      [B, count]: 0 to 1 inside, 2 outside.
    """
    first = jnp.ceil(low - 0.5)
    centres = jnp.arange(count, dtype=jnp.float32)[None] + (first + 0.5 - low)[:, None]
    share = centres / size[:, None]
    return first.astype(jnp.int32), jnp.where(share < 1, share, 2)


def stamp(
    words: chex.Array, rows: chex.Array, columns: chex.Array, ground: chex.Array
) -> chex.Array:
    """Draws patches over a picture.

    Args:
      words: uint32 [B, H, W]; order of drawing, 1 to 127, times 2^24 plus the colour, or 0 where
        a patch is transparent.
      rows: of the patches' first pixels, int32 [B]; may be outside the picture.
      columns: likewise.
      ground: words [64, 64] of what is behind.

    Returns:
      Words [64, 64].
    """
    _, height, width = words.shape
    canvas = jnp.zeros((PIXELS + 2 * height, PIXELS + 2 * width), jnp.int32)
    corner = jnp.stack(
        [
            jnp.clip(rows + height, 0, PIXELS + height),
            jnp.clip(columns + width, 0, PIXELS + width),
        ],
        axis=1,
    )
    canvas = jax.lax.scatter_max(
        canvas,
        corner,
        words.astype(jnp.int32),
        jax.lax.ScatterDimensionNumbers((1, 2), (), (0, 1)),
        mode=jax.lax.GatherScatterMode.PROMISE_IN_BOUNDS,
    )
    drawn = canvas[height : height + PIXELS, width : width + PIXELS].astype(jnp.uint32)
    return jnp.where(drawn == 0, ground, drawn & jnp.uint32(COLOUR))


def paint_velocity(words: chex.Array, vx: chex.Array, vy: chex.Array) -> chex.Array:
    """Paints the velocity into the top left of a picture: two grey squares of 12.8 pixels.

    Args:
      words: [64, 64].
      vx: horizontal velocity by the largest, float32 in [-1, 1]; black is -1, white is 1.
      vy: vertical velocity, likewise.
    """
    side = 13  # pixels whose centres are below 12.8
    second = 13  # and those between 12.8 and 25.6
    shades = [grey(jnp.clip(255 * (0.5 * v + 0.5), 0, 255).astype(jnp.int32)) for v in (vx, vy)]
    words = words.at[:side, :side].set(shades[0])
    return words.at[:side, side : side + second].set(shades[1])
