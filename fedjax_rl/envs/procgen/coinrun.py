"""CoinRun of Procgen: run and jump to the coin on the right, past lava, saws and enemies.

The rules and their numbers are those of the game of Procgen 0.10.7 (Cobbe, Hesse, Hilton and
Schulman, arXiv 1912.01588), in float32; the pictures are ours. Dynamics and drawing are apart, and
levels are tables that `maps` makes on the host.
"""

import dataclasses
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from fedjax_rl.envs.procgen import generator, levels, maps, motion

TIME_LIMIT = generator.TIME_LIMIT
REWARD = 10.0
HALF_WIDTH, HALF_HEIGHT = maps.PLAYER_HALF_WIDTH, maps.PLAYER_HALF_HEIGHT
TOP_SPEED, TOP_FALL = 0.5, 1.5
_GRAVITY, _JUMP = 0.2, 1.5
_GRIP, _AIR_GRIP = 0.2, 0.03  # shares of the wanted velocity that a step takes on
_HALF = 0.5  # of enemies, saws and crates
_MOVES = 6  # pairs of moves at the largest speed
_SLACK = 0.001  # by which a box has to reach into a cell or a crate
_CORNER = 0.98  # as of `motion`
_SOLID = (maps.CODES["interior"], maps.CODES["surface"])
_LAVA = (maps.CODES["lava"], maps.CODES["lava surface"])


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CoinRunParams:
    """Parameters of CoinRun.

    Attributes:
      table: the levels there are.
    """

    table: maps.MapTable

    def replace(self, **changes: Any) -> "CoinRunParams":
        """Returns a copy with some parameters exchanged, unchecked (they may be traced)."""
        return dataclasses.replace(self, **changes)


class CoinRunState(NamedTuple):
    """State of an episode, scalars of float32 where nothing else is said.

    Attributes:
      seed: of the level, uint32.
      row: of the level in the table, int32.
      clock: steps made, int32.
      x: of the player's centre.
      y: of the player's centre.
      vx: of the player, cells per step.
      vy: of the player.
      on_crate: whether a crate held it in the last step, bool.
      supported: whether it stood on something when the last step began, bool.
      pushing: whether the last action was a sideways one, bool.
      facing_left: bool.
      enemy_x: [36], centres.
      enemy_vx: [36].
    """

    seed: chex.Array
    row: chex.Array
    clock: chex.Array
    x: chex.Array
    y: chex.Array
    vx: chex.Array
    vy: chex.Array
    on_crate: chex.Array
    supported: chex.Array
    pushing: chex.Array
    facing_left: chex.Array
    enemy_x: chex.Array
    enemy_vx: chex.Array


def coinrun_params(
    mode: str = "easy",
    num_levels: int = 0,
    start_level: int = 0,
    source: str = "native",
    pool: int = 1024,
) -> CoinRunParams:
    """Parameters from their names, on the host.

    Args:
      mode: "easy" or "hard".
      num_levels: 0 for all levels.
      start_level: the first level; 0 with all levels.
      source: "native", or "classic" for the very levels of Procgen.
      pool: levels that stand in for all of them, 8 kB and half a millisecond each.

    Raises:
      ValueError: If a word is unknown or the range of levels is not one.
    """
    levels.check_words(mode, source)
    levels.check_levels(num_levels, start_level, pool)
    levels.check_tables(num_levels)
    return CoinRunParams(maps.map_table(mode, source, num_levels, start_level, pool))


@dataclasses.dataclass(frozen=True)
class CoinRunDynamics:
    """The rules of the game, without observations.

    Attributes:
      truncate: whether the time limit is a truncation; otherwise it is an end like any other.
    """

    truncate: bool = False

    def draw(self, key: chex.PRNGKey, params: CoinRunParams) -> chex.Array:
        """Draws the row of a level, uint32. Consumes the key.

        Args:
          key: consumed.
          params: of the game.
        """
        rows = jnp.uint32(params.table.seeds.shape[0])
        return levels.draw_level(key, rows, jnp.uint32(0))

    def begin(self, level: chex.Array, params: CoinRunParams) -> CoinRunState:
        """Returns the first state of a level; level is what `draw` gives.

        Args:
          level: uint32 scalar.
          params: of the game.
        """
        row = jnp.asarray(level, jnp.int32)
        enemies = jnp.asarray(params.table.enemies)[row]
        no, zero = jnp.array(False), jnp.float32(0)
        return CoinRunState(
            seed=jnp.asarray(params.table.seeds)[row],
            row=row,
            clock=jnp.int32(0),
            x=jnp.float32(1 + HALF_WIDTH),
            y=jnp.float32(1 + HALF_HEIGHT),
            vx=zero,
            vy=zero,
            on_crate=no,
            supported=jnp.array(True),
            pushing=no,
            facing_left=no,
            enemy_x=enemies[:, 0],
            enemy_vx=enemies[:, 2],
        )

    def advance(
        self, state: CoinRunState, action: chex.Array, params: CoinRunParams
    ) -> tuple[CoinRunState, chex.Array, chex.Array, chex.Array, dict[str, chex.Array]]:
        """Makes one step; nothing in it is random but the level.

        Args:
          state: of an episode that has not ended.
          action: integer, 0 to 14.
          params: of the game.

        Returns:
          ``(state, reward, terminated, truncated, info)``: the reward float32, 10 at the coin and
          0 elsewhere; two bools; ``info`` with ``level_seed`` (uint32), ``level_complete`` and
          ``timeout`` (bool).
        """
        table = jax.tree.map(jnp.asarray, params.table)
        clock = state.clock + 1
        tie = levels.read_bit(table.ties[state.row], state.clock)
        enemies = table.enemies[state.row]
        ax, ay = motion.axes(action)
        supported = _supported(state, table.cells)
        ay = jnp.where(supported, ay, jnp.minimum(ay, 0))
        vx, vy = _run(state.vx, ax, supported), _jump(state.vy, ay, supported)
        body = motion.Body(state.x, state.y, vx, vy, jnp.array(False))
        held = (vy < 0) & (ay >= 0) & (state.y >= enemies[:, 1] + (_HALF + HALF_HEIGHT))
        # Enemies first: the player meets them where they are by then.
        enemy_x, enemy_vx = _walk(state.enemy_x, state.enemy_vx, enemies, held)

        def blocked(left, right, bottom, top):
            hits = [
                _solid(table.cells, state.row, x, y) for x in (left, right) for y in (bottom, top)
            ]
            return hits[0] | hits[1] | hits[2] | hits[3]

        body = motion.step_body(
            body,
            ax,
            ay,
            tie,
            jnp.float32(HALF_WIDTH),
            jnp.float32(HALF_HEIGHT),
            blocked,
            most=_MOVES,
            hold=lambda body: _hold(body, ay, state.y, table.crates[state.row]),
        )

        touched = _touches(body, table.saws[state.row][:, 0], table.saws[state.row][:, 1])
        touched = touched | _touches(body, enemy_x, enemies[:, 1])
        burnt, complete = _enters(body, table.cells, state.row)
        # Where the same step is deadly, too.
        reward = jnp.where(complete, jnp.float32(REWARD), 0)
        ended = touched | burnt | complete
        timeout = (clock >= TIME_LIMIT) & ~ended
        state = state._replace(
            clock=clock,
            x=body.x,
            y=body.y,
            vx=body.vx,
            vy=body.vy,
            on_crate=body.held,
            supported=supported,
            pushing=ax != 0,
            facing_left=(ax < 0) | ((ax == 0) & state.facing_left),
            enemy_x=enemy_x,
            enemy_vx=enemy_vx,
        )
        info = {"level_seed": state.seed, "level_complete": complete, "timeout": timeout}
        if self.truncate:
            return state, reward, ended, timeout, info
        return state, reward, ended | timeout, jnp.array(False), info


def _cell(cells: chex.Array, row: chex.Array, x: chex.Array, y: chex.Array) -> chex.Array:
    """The code of the cell at a point; around the world is ground."""
    column, line = (jnp.floor(z).astype(jnp.int32) + maps.MARGIN for z in (x, y))
    return cells[row, column, line]


def _solid(cells: chex.Array, row: chex.Array, x: chex.Array, y: chex.Array) -> chex.Array:
    code = _cell(cells, row, x, y)
    return (code == _SOLID[0]) | (code == _SOLID[1])


def _supported(state: CoinRunState, cells: chex.Array) -> chex.Array:
    """Whether the player stands: on what it does not fall from, exactly, and on something."""
    left, right = state.x - (HALF_WIDTH - 0.01), state.x + (HALF_WIDTH - 0.01)
    below = state.y - (HALF_HEIGHT + 0.01)
    ground = _solid(cells, state.row, left, below) | _solid(cells, state.row, right, below)
    # Exactly 0, which it is when all moves of a step were blocked: after a landing support comes a
    # step late, and a tolerance would let the player jump too early.
    return (state.vy == 0) & (state.on_crate | ground)


def _run(vx: chex.Array, ax: chex.Array, supported: chex.Array) -> chex.Array:
    grip = jnp.where(supported, jnp.float32(_GRIP), jnp.float32(_AIR_GRIP))
    push = grip * TOP_SPEED
    vx = (1 - grip) * vx + push * ax
    return jnp.where(jnp.abs(vx) < push, 0, vx)


def _jump(vy: chex.Array, ay: chex.Array, supported: chex.Array) -> chex.Array:
    """The vertical velocity: a jump knows no gravity in its first step."""
    pressed = jnp.where(supported, vy + 0.2 * ay, vy)
    fallen = jnp.clip(pressed - _GRAVITY, -TOP_FALL, TOP_FALL)
    return jnp.where(ay > 0, jnp.float32(_JUMP), fallen)


def _hold(
    body: motion.Body, ay: chex.Array, last_y: chex.Array, crates: chex.Array
) -> tuple[motion.Body, chex.Array]:
    """Crates hold who falls on them from above and does not press down.

    Args:
      body: after a vertical move.
      ay: of the action.
      last_y: of the player after the last step.
      crates: [C, 2], as of `maps.MapTable`.

    Returns:
      The body, lifted onto the highest such crate, and whether there is one.
    """
    x, y, level = crates[:, 0], crates[:, 1], crates[:, 1] + maps.STANDING
    reach_x, reach_y = HALF_WIDTH + _HALF - _SLACK, HALF_HEIGHT + _HALF - _SLACK
    under = (jnp.abs(x - body.x) < reach_x) & (jnp.abs(y - body.y) < reach_y)
    # Feet and edge are compared, not centres: that rounding is the game's.
    under = under & (body.vy < 0) & (ay >= 0) & (last_y - jnp.float32(HALF_HEIGHT) >= y + _HALF)
    held = jnp.any(under)
    height = jnp.max(jnp.where(under, level, maps.NOWHERE))
    lifted = body._replace(
        y=jnp.where(held, height, body.y),
        vy=jnp.where(held, 0, body.vy),
        held=body.held | held,
    )
    return lifted, held


def _walk(
    x: chex.Array, vx: chex.Array, enemies: chex.Array, falling: chex.Array
) -> tuple[chex.Array, chex.Array]:
    """Moves all enemies for one step, in four moves; each turns where its row ends.

    Inner ground takes a quarter of the speed. Where a crate is there too, and could hold the
    player, the rest of the step is lost as well: a quirk of the game.

    Args:
      x: [E].
      vx: [E].
      enemies: [E, 6], as of `maps.MapTable`.
      falling: [E] bool, whether a crate in the enemy's row could hold the player.

    Returns:
      The new x and vx.
    """
    left, right, ends = enemies[:, 3], enemies[:, 4], enemies[:, 5].astype(jnp.int32)
    brake_left, brake_right = ends & 3, ends >> 2
    free, going = jnp.zeros_like(x), jnp.ones_like(falling)
    reach = _CORNER * _HALF
    for _ in range(4):
        moved = x + vx / 4
        hits_left, hits_right = moved - reach < left, moved + reach >= right
        rim = jnp.where(vx < 0, moved - _HALF, moved + _HALF)
        line = jnp.where(vx < 0, jnp.ceil(rim), jnp.floor(rim))
        turns = hits_left | hits_right
        brake = jnp.where(hits_left, brake_left, 0) | jnp.where(hits_right, brake_right, 0)
        free = free + (going & (brake == 0)).astype(jnp.float32)
        x = jnp.where(going, jnp.where(turns, moved + 2 * (line - rim), moved), x)
        vx = jnp.where(going & turns, -vx, vx)
        going = going & ~(falling & (brake == maps.BRAKES["wall with a crate"]))
    return x, vx * (free / 4)


def _touches(body: motion.Body, x: chex.Array, y: chex.Array) -> chex.Array:
    """Whether the player's box and one of those at x and y, [n] each, overlap."""
    near = jnp.abs(x - body.x) < HALF_WIDTH + _HALF
    return jnp.any(near & (jnp.abs(y - body.y) < maps.STANDING))


def _enters(body: motion.Body, cells: chex.Array, row: chex.Array) -> tuple[chex.Array, chex.Array]:
    """Whether the player's box reaches into lava, and whether it reaches the coin."""
    reach_x, reach_y = HALF_WIDTH - _SLACK, HALF_HEIGHT - _SLACK
    # A box of 1 by 1.16 cells covers at most two columns and three rows: corners and middle.
    codes = [
        _cell(cells, row, x, y)
        for x in (body.x - reach_x, body.x + reach_x)
        for y in (body.y - reach_y, body.y, body.y + reach_y)
    ]
    lava = coin = jnp.array(False)
    for code in codes:
        lava = lava | (code == _LAVA[0]) | (code == _LAVA[1])
        coin = coin | (code == maps.CODES["coin"])
    return lava, coin
