"""The picture of CoinRun: 13 by 13 cells around the player, tiles by one gather, bodies as patches.

Axis letters as in `raster`: ``B`` sprites (12 enemies and the player), ``H`` and ``W`` of a patch.
"""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl import backend
from fedjax_rl.envs.procgen import coinrun, generator, maps, motion, raster
from fedjax_rl.envs.procgen.coinrun import CoinRunParams, CoinRunState
from fedjax_rl.envs.procgen.coinrun_vector import VIEW
from fedjax_rl.envs.procgen.drawing import Drawing

_VIEW = float(VIEW)
_SCALE = raster.PIXELS / _VIEW  # pixels per cell
_WINDOW = VIEW + 2  # cells that a picture can touch
_ROWS, _COLUMNS = 10, 8  # of a patch: the player is 9.9 by 4.9 pixels
_STRETCH = 1.7415  # of the player's picture, upward, against its box
_TEXELS = 16  # of a tile, along a side
_ENEMIES = 12  # more are never in view
_CRATES, _GROUNDS, _FLIP = 4, 6, 5  # a saw has two frames, a walk two of five steps
_TURNED = maps.CODES["crate"] + _CRATES  # the code of a saw's second frame
_OPAQUE = 1 << 24
# The background is as high as the world and 16 to 9.
_HEIGHT = generator.SIZE * _SCALE
_SLACK = 16 / 9 - 1

_SKINS = np.array(
    [(232, 196, 150), (122, 178, 232), (140, 208, 120), (240, 158, 190), (244, 220, 110)]
)
_SUITS = np.array([(214, 130, 70), (50, 92, 176), (52, 128, 62), (184, 70, 122), (196, 140, 30)])
_BLOBS = np.array(
    [
        (236, 92, 160),
        (120, 200, 70),
        (90, 150, 240),
        (250, 170, 60),
        (190, 110, 230),
        (240, 80, 70),
        (70, 210, 190),
        (230, 220, 90),
        (190, 200, 214),
    ]
)
_DARK, _WHITE = (24, 20, 30), (250, 250, 250)
# By ground: the inside, and the strip on top of it.
_EARTH = np.array(
    [
        (180, 186, 190),
        (150, 98, 62),
        (206, 172, 112),
        (120, 92, 130),
        (196, 222, 236),
        (92, 108, 92),
    ]
)
_STRIP = np.array(
    [
        (204, 126, 62),
        (98, 182, 72),
        (238, 206, 120),
        (196, 120, 190),
        (250, 252, 255),
        (180, 200, 70),
    ]
)
_WOODS = np.array([(172, 112, 58), (146, 96, 60), (196, 140, 76), (128, 92, 70)])
_FLAT = np.array(
    [
        (0, 0, 0),
        (127, 127, 127),
        (191, 127, 127),
        (255, 127, 0),
        (255, 63, 0),
        (255, 255, 127),
        (255, 127, 255),
        *[(191, 127, 63)] * _CRATES,
        (255, 127, 255),
    ]
)
_FLAT_PLAYER, _FLAT_ENEMY = (127, 255, 127), (255, 127, 127)


@dataclasses.dataclass(frozen=True)
class CoinRunPicture:
    """Draws a state.

    Attributes:
      drawing: options of drawing.
    """

    drawing: Drawing

    def __call__(self, state: CoinRunState, params: CoinRunParams) -> chex.Array:
        """Returns the picture, uint8 [64, 64, 3], row 0 at the top."""
        table = jax.tree.map(jnp.asarray, params.table)
        state = backend.once(state)  # else it is redone for every pixel
        ground = table.ground[state.row]
        skin = table.player[state.row]
        themes = table.themes[state.row]
        if self.drawing.restrict_themes:
            ground, skin, themes = (jnp.zeros_like(x) for x in (ground, skin, themes))
        words = self._tiles(state, table, ground)
        shape = (raster.PIXELS, raster.PIXELS)
        behind = jnp.zeros(shape, jnp.uint32)
        if self.drawing.use_backgrounds:
            behind = _scene(state.x, state.y, table.background[state.row], table.offset[state.row])
        words = jnp.where(words == 0, behind, words & jnp.uint32(raster.COLOUR))
        enemies = _in_view(state, table.enemies[state.row, :, 1], themes)
        sprites = _sprites(state, enemies, skin, self.drawing.use_monochrome_assets)
        words = raster.stamp(*sprites, words)
        if self.drawing.paint_vel_info:
            words = raster.paint_velocity(
                words, state.vx / coinrun.TOP_SPEED, state.vy / coinrun.TOP_FALL
            )
        return raster.picture(words)

    def _tiles(self, state: CoinRunState, table: maps.MapTable, ground: chex.Array) -> chex.Array:
        """The cells in view, as words [64, 64] above `_OPAQUE`, 0 where nothing is."""
        centres = (jnp.arange(raster.PIXELS, dtype=jnp.float32) + 0.5) / _SCALE - _VIEW / 2
        x, y = state.x + centres, state.y - centres
        column, line = jnp.floor(x), jnp.floor(y)
        left, low = (jnp.floor(z - _VIEW / 2).astype(jnp.int32) for z in (state.x, state.y))
        start = (state.row, left + maps.MARGIN, low + maps.MARGIN)
        codes = jax.lax.dynamic_slice(table.cells, start, (1, _WINDOW, _WINDOW))[0]
        codes = codes.T.astype(jnp.int32)
        turned = (codes == maps.CODES["saw"]) & (state.clock % 2 == 1)
        codes = jnp.where(turned, _TURNED, codes)
        if self.drawing.restrict_themes:
            crate = maps.CODES["crate"]
            codes = jnp.where((codes > crate) & (codes < _TURNED), crate, codes)
        tile = (ground * (_TURNED + 1) + codes) * _TEXELS**2
        across = ((x - column) * _TEXELS).astype(jnp.int32)
        down = _TEXELS - 1 - ((y - line) * _TEXELS).astype(jnp.int32)
        # Places in the atlas, a row for each line of cells: a row of pixels is one of these.
        columns, lines = column.astype(jnp.int32) - left, line.astype(jnp.int32) - low
        tile, columns, across, lines, down = backend.once((tile, columns, across, lines, down))
        places = backend.once(tile[:, columns] + across[None])
        atlas = jnp.asarray(tiles(self.drawing.use_monochrome_assets).ravel())
        return atlas[places[lines] + (_TEXELS * down)[:, None]]


def _in_view(state: CoinRunState, heights: chex.Array, themes: chex.Array) -> chex.Array:
    """The nearest enemies, float32 [12, 4]: x, y and velocity, and the look."""
    far = (state.enemy_x - state.x) ** 2 + (heights - state.y) ** 2
    columns = (state.enemy_x, heights, state.enemy_vx, themes.astype(jnp.float32))
    return motion.nearest(far, columns, _ENEMIES)


def _sprites(
    state: CoinRunState, enemies: chex.Array, skin: chex.Array, monochrome: bool
) -> tuple[chex.Array, chex.Array, chex.Array]:
    """Returns the patches of enemies and player, uint32 [B, H, W], and their pixels, int32 [B]."""
    enemy_x, heights, enemy_vx, themes = enemies.T
    last = _ENEMIES
    is_player = jnp.arange(last + 1) == last
    x = jnp.append(enemy_x, state.x) - state.x + _VIEW / 2
    feet = jnp.append(heights - 0.5, state.y - coinrun.HALF_HEIGHT) - state.y
    height = jnp.where(is_player, jnp.float32(2 * coinrun.HALF_HEIGHT * _STRETCH), 1)
    columns, u = raster.within(_SCALE * (x - 0.5), jnp.full_like(x, _SCALE), _COLUMNS)
    rows, v = raster.within(_SCALE * (_VIEW / 2 - feet - height), _SCALE * height, _ROWS)
    # Enemies are drawn over the player.
    order = jnp.where(is_player, jnp.uint32(1), jnp.uint32(2)) << jnp.uint32(24)
    if monochrome:
        flat = [jnp.uint32(raster.pack(np.array(c))) for c in (_FLAT_PLAYER, _FLAT_ENEMY)]
        colour = order | jnp.where(is_player, *flat)
        filled = (u < 1)[:, None] & (v < 1)[:, :, None]
        return jnp.where(filled, colour[:, None, None], jnp.uint32(0)), rows, columns

    # Enemies look left, the player right, unless they move or face the other way.
    mirrored = jnp.append(enemy_vx > 0, state.facing_left)
    u = jnp.where(mirrored[:, None] & (u < 1), 1 - u, u)
    second = (state.clock // _FLIP) % 2 == 1
    blobs = _blob(u[:last], v[:last], themes.astype(jnp.int32), second)
    player = _runner(u[last], v[last], skin, _pose(state, second))
    words = jnp.concatenate([blobs, player[None]])
    return jnp.where(words == 0, words, order[:, None, None] | words), rows, columns


def _pose(state: CoinRunState, second: chex.Array) -> chex.Array:
    """0 standing, 1 and 2 the frames of a walk, int32; in the air it is the first of these."""
    still = state.supported & ~state.pushing & (jnp.abs(state.vx) < 0.01)
    walk = jnp.where(state.supported & second, jnp.int32(2), jnp.int32(1))
    return jnp.where(still, jnp.int32(0), walk)


def _word(colours: np.ndarray, index: chex.Array) -> chex.Array:
    """Words of colours [n, 3] at some indices."""
    return jnp.asarray(raster.pack(colours))[index]


def _blob(u: chex.Array, v: chex.Array, themes: chex.Array, second: chex.Array) -> chex.Array:
    """A dome with two eyes that breathes; words [E, H, W], 0 outside."""
    top = jnp.where(second, jnp.float32(0.72), jnp.float32(0.9))
    body = ((u - 0.5) / 0.5)[:, None] ** 2 + ((1 - v) / top)[:, :, None] ** 2 < 1
    body = body & (u < 1)[:, None] & (v < 1)[:, :, None]
    eye = (jnp.abs(u - 0.3) < 0.12)[:, None] & (jnp.abs(v - 0.5) < 0.13)[:, :, None]
    foot = (v > 0.82)[:, :, None]
    colour = _word(_BLOBS, themes)[:, None, None]
    colour = jnp.where(foot, _word(_BLOBS // 2, themes)[:, None, None], colour)
    colour = jnp.where(eye, jnp.uint32(raster.pack(np.array(_WHITE))), colour)
    return jnp.where(body, colour, jnp.uint32(0))


def _runner(u: chex.Array, v: chex.Array, skin: chex.Array, pose: chex.Array) -> chex.Array:
    """Head, suit and two legs; words [H, W], 0 outside."""
    inside = (u < 1)[None] & (v < 1)[:, None]
    head = ((u - 0.5) / 0.46)[None] ** 2 + ((v - 0.24) / 0.23)[:, None] ** 2 < 1
    suit = (jnp.abs(u - 0.5) < 0.34)[None] & ((v > 0.42) & (v < 0.76))[:, None]
    spread = jnp.where(pose == 1, jnp.float32(0.5), jnp.float32(0.34))
    gap = jnp.where(pose == 2, jnp.float32(-1), jnp.float32(0.11))
    apart = jnp.abs(u - 0.5)
    legs = ((apart < spread) & (apart > gap))[None] & (v >= 0.76)[:, None]
    eye = (jnp.abs(u - 0.6) < 0.1)[None] & (jnp.abs(v - 0.22) < 0.06)[:, None]
    colour = jnp.where(head, _word(_SKINS, skin), _word(_SUITS, skin))
    colour = jnp.where(legs, _word(_SUITS // 2, skin), colour)
    colour = jnp.where(eye, jnp.uint32(raster.pack(np.array(_DARK))), colour)
    return jnp.where(inside & (head | suit | legs), colour, jnp.uint32(0))


def _scene(x: chex.Array, y: chex.Array, background: chex.Array, offset: chex.Array) -> chex.Array:
    """The background behind a view, words [64, 64]: a sky and two ranges of hills.

    Args:
      x: of the player's centre.
      y: likewise.
      background: int32 below `generator.NUM_BACKGROUNDS`.
      offset: in [0, 1].
    """
    colours, shapes = (jnp.asarray(part)[background] for part in scenes())
    pixels = (jnp.arange(raster.PIXELS, dtype=jnp.float32) + 0.5) / _HEIGHT
    u = pixels + (x - _VIEW / 2) / generator.SIZE + offset * _SLACK
    v = pixels + (generator.SIZE - y - _VIEW / 2) / generator.SIZE
    level, height, frequency, phase = shapes
    wave = lambda f: jnp.sin(f * frequency * u + phase)
    far = level - height * (wave(1.0) + 0.4 * wave(2.7))
    near = level + 0.16 + height * (wave(-1.6) + 0.3 * wave(4.3))
    # Bands, as fine as the picture of the world would have them.
    share = jnp.clip(v + 0.015 * jnp.sin(90 * v), 0, 1)[:, None]
    sky, hill, front = (_blend(colours[n], colours[n + 1], share) for n in (0, 2, 4))
    # What is a number per row or per column must not be redone for every pixel.
    far, near, sky, hill, front = backend.once((far, near, sky, hill, front))
    words = jnp.where(v[:, None] > far[None], hill[:, None], sky[:, None])
    words = jnp.where(v[:, None] > near[None], front[:, None], words)
    # A grain of eight greys that stays with the world, so that it is seen to move.
    return words + raster.grey((_noise(v)[:, None] ^ _noise(u)[None]) >> jnp.uint32(29))


def _noise(share: chex.Array) -> chex.Array:
    """A random word for every pixel of the world's picture, from its place over the height."""
    pixel = jnp.floor(share * _HEIGHT).astype(jnp.int32).astype(jnp.uint32)
    mixed = (pixel + jnp.uint32(1)) * jnp.uint32(0x9E3779B1)
    return (mixed ^ (mixed >> jnp.uint32(15))) * jnp.uint32(0x85EBCA77)


def _blend(top: chex.Array, bottom: chex.Array, share: chex.Array) -> chex.Array:
    """Words [64] between two colours, float32 [3], by a share [64, 1]."""
    colour = jnp.round(top[None] + (bottom - top)[None] * share).astype(jnp.uint32)
    red, green, blue = colour[:, 0], colour[:, 1], colour[:, 2]
    return red | (green << jnp.uint32(8)) | (blue << jnp.uint32(16))


@functools.cache
def scenes() -> tuple[np.ndarray, np.ndarray]:
    """The 62 backgrounds: colours float32 [62, 6, 3] and shapes float32 [62, 4].

    Colours are those at the top and at the bottom of sky, far and near hills; a shape is level,
    height, frequency and phase of the hills. The first one, of easy levels, is a dark teal.
    """
    rng = np.random.default_rng(0)
    count = generator.NUM_BACKGROUNDS
    light = rng.uniform(0.5, 1.0, (count, 1, 1))
    base = rng.uniform(60, 245, (count, 3, 3))
    ends = np.stack([base, base * rng.uniform(0.45, 1.0, (count, 3, 1))], axis=2)
    colours = (ends.reshape(count, 6, 3) * light).astype(np.float32)
    colours[0] = [(0, 38, 60), (0, 30, 50), (0, 32, 52), (0, 25, 43), (0, 27, 46), (0, 20, 37)]
    shapes = rng.uniform((0.35, 0.03, 4, 0), (0.75, 0.14, 16, 6.3), (count, 4)).astype(np.float32)
    return colours, shapes


@functools.cache
def tiles(monochrome: bool) -> np.ndarray:
    """Every kind of cell on every ground, words [6, 12, 16, 16] above `_OPAQUE`, 0 if clear."""
    y, x = (np.mgrid[:_TEXELS, :_TEXELS] + 0.5) / _TEXELS
    everywhere = np.ones_like(x, bool)
    atlas = np.zeros((_GROUNDS, _TURNED + 1, _TEXELS, _TEXELS), np.uint32)

    def draw(ground, code, *layers):
        """Layers are (where, colour [3] or three channels), the last one on top."""
        for where, colour in layers:
            colour = np.broadcast_to(np.stack(np.broadcast_arrays(*colour), -1), (*x.shape, 3))
            atlas[ground, code][where] = raster.pack(colour[where]) | _OPAQUE

    if monochrome:
        for code, colour in enumerate(_FLAT[1:], 1):
            atlas[:, code] = raster.pack(colour) | np.uint32(_OPAQUE)
        return atlas

    joints = (np.abs(y - 0.5) < 0.04) | (np.abs((x + 0.5 * (y > 0.5)) % 1 - 0.5) < 0.04)
    for ground in range(_GROUNDS):
        earth, strip = _EARTH[ground], _STRIP[ground]
        inner = [(everywhere, earth), (joints, earth * 0.88), (y > 0.94, earth * 0.88)]
        draw(ground, maps.CODES["interior"], *inner)
        edge = y < 0.3 + 0.05 * np.sin(4 * np.pi * x)
        draw(ground, maps.CODES["surface"], *inner, (edge, strip), (y < 0.1, strip * 1.15))
        glow = 0.9 + 0.1 * np.sin(2 * np.pi * (x + y)) * np.sin(2 * np.pi * (x - 2 * y))
        lava = [(everywhere, np.array([226, 104, 23])[:, None, None] * glow)]
        draw(ground, maps.CODES["lava"], *lava)
        crest = 0.18 + 0.08 * np.sin(2 * np.pi * x)
        atlas[ground, maps.CODES["lava surface"]] = np.where(
            y > crest, atlas[ground, maps.CODES["lava"]], 0
        )
        draw(ground, maps.CODES["lava surface"], ((y > crest) & (y < crest + 0.16), (255, 206, 90)))

        far = np.hypot(x - 0.5, y - 0.5)
        gold = [(far < 0.3, (176, 120, 4)), (far < 0.25, (245, 197, 9))]
        shine = (np.abs(x - 0.44) < 0.06) & (np.abs(y - 0.46) < 0.14)
        draw(ground, maps.CODES["coin"], *gold, (shine, (255, 244, 170)))

        radius, angle = np.hypot(x - 0.5, y - 1), np.arctan2(1 - y, x - 0.5)
        for code, turn in ((maps.CODES["saw"], 0.0), (_TURNED, np.pi / 8)):
            rim = 0.46 + 0.04 * np.sign(np.sin(8 * (angle + turn)))
            disc = [(radius < rim, (150, 156, 164)), (radius < 0.36, (196, 202, 208))]
            draw(ground, code, *disc, (radius < 0.12, (70, 74, 82)))

        for look, wood in enumerate(_WOODS):
            rim = np.maximum(np.abs(x - 0.5), np.abs(y - 0.5)) > 0.38
            cross = {
                0: np.abs(x - y) < 0.1,
                1: np.abs(x + y - 1) < 0.1,
                2: (np.abs(x - y) < 0.09) | (np.abs(x + y - 1) < 0.09),
                3: np.abs(y - 0.5) < 0.1,
            }[look]
            planks = [(everywhere, wood), (cross, wood * 0.78), (rim, wood * 0.6)]
            draw(ground, maps.CODES["crate"] + look, *planks)
    return atlas
