"""BigFish of Procgen: eat smaller fish and grow, touch a bigger one and the episode is over.

The rules and their numbers are those of the game of Procgen 0.10.7 (Cobbe, Hesse, Hilton and
Schulman, arXiv 1912.01588), in float32; the pictures are ours. Dynamics and drawing are apart: a
step with vector observations draws nothing.
"""

import dataclasses
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl import backend
from fedjax_rl.envs.procgen import fish, levels, motion

TO_EAT = 30
TIME_LIMIT = fish.TIME_LIMIT
START_RADIUS = {"easy": 1.0, "hard": 0.5}
LARGEST = 2.0  # half size of the player that has eaten all
_SLOTS = 32  # more fish are never alive: at most 17 have been seen
# More contacts in one step are next to impossible, and would count in the next one.
_CONTACTS = 3


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class BigFishParams:
    """Parameters of BigFish; [] or [N] each.

    Attributes:
      num_levels: uint32, 0 for all levels.
      start_level: uint32, the first level.
      radius: half size of the player at the start, float32.
      growth: of the half size for every fish eaten, float32.
      table: of the classic source, which then says which levels there are; None for the native.
    """

    num_levels: Any
    start_level: Any
    radius: Any
    growth: Any
    table: fish.FishTable | None = None

    def replace(self, **changes: Any) -> "BigFishParams":
        """Returns a copy with some parameters exchanged, unchecked (they may be traced)."""
        return dataclasses.replace(self, **changes)


class Shoal(NamedTuple):
    """The fish alive, in 32 slots; float32 [32] where nothing else is said.

    Attributes:
      x: of the centre.
      y: of the centre.
      radius: half width.
      half_height: radius by the aspect of the species.
      velocity: cells per step, positive to the right.
      species: int32.
      born: int32, step of the birth, which also orders them; 0 in an empty slot.
    """

    x: chex.Array
    y: chex.Array
    radius: chex.Array
    half_height: chex.Array
    velocity: chex.Array
    species: chex.Array
    born: chex.Array


class BigFishState(NamedTuple):
    """State of an episode, scalars of float32 where nothing else is said.

    Attributes:
      seed: of the level, uint32.
      row: of the level in the table, int32; 0 without one.
      clock: steps made, int32.
      next_birth: births so far, int32.
      background: int32.
      offset: of the background, in [0, 1].
      x: of the player.
      y: of the player.
      vx: of the player, cells per step.
      vy: of the player.
      radius: half width and half height of the player.
      eaten: fish eaten, int32.
      facing_left: bool.
      shoal: the fish.
    """

    seed: chex.Array
    row: chex.Array
    clock: chex.Array
    next_birth: chex.Array
    background: chex.Array
    offset: chex.Array
    x: chex.Array
    y: chex.Array
    vx: chex.Array
    vy: chex.Array
    radius: chex.Array
    eaten: chex.Array
    facing_left: chex.Array
    shoal: Shoal


def bigfish_params(
    mode: str = "easy",
    num_levels: int = 0,
    start_level: int = 0,
    source: str = "native",
    pool: int = 1024,
) -> BigFishParams:
    """Parameters from their names, on the host.

    Args:
      mode: "easy" or "hard".
      num_levels: 0 for all levels.
      start_level: the first level; 0 with all levels.
      source: "native", or "classic" for the very levels of Procgen.
      pool: levels that stand in for all of them with the classic source, 16 kB each.

    Raises:
      ValueError: If a word is unknown or the range of levels is not one.
    """
    levels.check_words(mode, source)
    levels.check_levels(num_levels, start_level, pool)
    table = None
    if source == "classic":
        levels.check_tables(num_levels)
        table = fish.classic_table(levels.level_seeds(num_levels, start_level, pool))
    radius = START_RADIUS[mode]
    return BigFishParams(
        num_levels=np.uint32(num_levels),
        start_level=np.uint32(start_level),
        radius=np.float32(radius),
        growth=np.float32((LARGEST - radius) / TO_EAT),
        table=table,
    )


@dataclasses.dataclass(frozen=True)
class BigFishDynamics:
    """The rules of the game, without observations.

    Attributes:
      one_species: whether all fish are of the first species, as with restricted themes.
      truncate: whether the time limit is a truncation; otherwise it is an end like any other.
    """

    one_species: bool = False
    truncate: bool = False

    def draw(self, key: chex.PRNGKey, params: BigFishParams) -> chex.Array:
        """Draws a level: its seed, or its row where there is a table; uint32. Consumes the key.

        Args:
          key: consumed.
          params: of the game.
        """
        if params.table is None:
            return levels.draw_level(key, params.num_levels, params.start_level)
        rows = jnp.uint32(params.table.seeds.shape[0])
        return levels.draw_level(key, rows, jnp.uint32(0))

    def begin(self, level: chex.Array, params: BigFishParams) -> BigFishState:
        """Returns the first state of a level; level is what `draw` gives.

        Args:
          level: uint32 scalar.
          params: of the game.
        """
        row = jnp.int32(0)
        if params.table is None:
            seed, start = jnp.asarray(level, jnp.uint32), fish.native_start(level)
        else:
            row = jnp.asarray(level, jnp.int32)
            seed = jnp.asarray(params.table.seeds)[row]
            start = fish.table_start(jax.tree.map(jnp.asarray, params.table), row)
        zero, none = jnp.float32(0), jnp.zeros(_SLOTS, jnp.float32)
        radius = jnp.asarray(params.radius, jnp.float32)
        return BigFishState(
            seed=seed,
            row=row,
            clock=jnp.int32(0),
            next_birth=jnp.int32(0),
            background=start.background,
            offset=start.offset,
            x=start.x,
            y=1 + radius,
            vx=zero,
            vy=zero,
            radius=radius,
            eaten=jnp.int32(0),
            facing_left=jnp.array(False),
            shoal=Shoal(*[none] * 5, *[jnp.zeros(_SLOTS, jnp.int32)] * 2),
        )

    def advance(
        self, state: BigFishState, action: chex.Array, params: BigFishParams
    ) -> tuple[BigFishState, chex.Array, chex.Array, chex.Array, dict[str, chex.Array]]:
        """Makes one step; nothing in it is random but the level.

        Args:
          state: of an episode that has not ended.
          action: integer, 0 to 14.
          params: of the game.

        Returns:
          ``(state, reward, terminated, truncated, info)``: the reward float32, up to 40 in an
          episode; two bools; ``info`` with ``level_seed`` (uint32), ``level_complete`` and
          ``timeout`` (bool).
        """
        clock = state.clock + 1
        if params.table is None:
            tie, birth = fish.native_birth(state.seed, clock)
        else:
            table = jax.tree.map(jnp.asarray, params.table)
            tie, birth = fish.table_birth(table, state.row, clock, state.next_birth)

        # Else the compiler redoes the random words for every slot.
        tie, birth = backend.once((tie, birth))
        ax, ay = motion.axes(action)
        body = motion.step_body(
            motion.Body(
                state.x, state.y, _velocity(state.vx, ax), _velocity(state.vy, ay), jnp.array(False)
            ),
            ax,
            ay,
            tie,
            state.radius,
            state.radius,
            motion.inside(fish.SIZE, fish.SIZE),
        )
        shoal = state.shoal._replace(x=state.shoal.x + state.shoal.velocity)
        growth = jnp.asarray(params.growth, jnp.float32)
        shoal, radius, gained, died = _contacts(shoal, body, state.radius, growth)
        eaten = state.eaten + gained
        # Then the birth: a newborn neither moves nor touches anybody in its first step.
        shoal = _remove_gone(shoal)
        shoal = _add(shoal, birth, clock, self.one_species)

        complete = eaten >= TO_EAT
        # In the step of a death, too: what was eaten in it is paid.
        reward = gained.astype(jnp.float32) + jnp.where(complete, jnp.float32(10), 0)
        timeout = clock >= TIME_LIMIT
        ended = complete | died
        state = state._replace(
            clock=clock,
            next_birth=state.next_birth + birth.born.astype(jnp.int32),
            x=body.x,
            y=body.y,
            vx=body.vx,
            vy=body.vy,
            radius=radius,
            eaten=eaten,
            facing_left=(ax < 0) | ((ax == 0) & state.facing_left),
            shoal=shoal,
        )
        info = {"level_seed": state.seed, "level_complete": complete, "timeout": timeout & ~ended}
        if self.truncate:
            return state, reward, ended, timeout & ~ended, info
        return state, reward, ended | timeout, jnp.array(False), info


def _velocity(old: chex.Array, push: chex.Array) -> chex.Array:
    # In this order float32 has the digits of the game, and so its levels.
    return 0.9 * (0.5 * old + 0.25 * push)


def _contacts(
    shoal: Shoal, body: motion.Body, radius: chex.Array, growth: chex.Array
) -> tuple[Shoal, chex.Array, chex.Array, chex.Array]:
    """Eats or is eaten, from the newest fish to the oldest, each with the size reached by then.

    Returns:
      The fish left, the player's half size, how many were eaten (int32), whether one was deadly.
    """
    apart_x, apart_y = jnp.abs(shoal.x - body.x), jnp.abs(shoal.y - body.y)
    before = jnp.int32(TIME_LIMIT + 1)
    gained, died, born = jnp.int32(0), jnp.array(False), shoal.born
    for _ in range(_CONTACTS):
        touches = (apart_x < shoal.radius + radius) & (apart_y < shoal.half_height + radius)
        candidates = jnp.where(touches & (shoal.born < before), shoal.born, 0)
        before = jnp.max(candidates)  # 0 if there is none, and then nothing is earlier
        this = (candidates == before) & (before > 0)
        width = jnp.max(jnp.where(this, shoal.radius, 0))
        deadly = width > radius
        eats = (before > 0) & ~deadly
        died = died | deadly
        born = jnp.where(this & eats, 0, born)
        radius = jnp.where(eats, radius + growth, radius)
        gained = gained + eats.astype(jnp.int32)
    return shoal._replace(born=born), radius, gained, died


def _remove_gone(shoal: Shoal) -> Shoal:
    gone = (shoal.x + shoal.radius < 0) | (shoal.x - shoal.radius > fish.SIZE)
    return shoal._replace(born=jnp.where(gone, 0, shoal.born))


def _add(shoal: Shoal, birth: fish.Birth, clock: chex.Array, one_species: bool) -> Shoal:
    """Puts a newborn, if there is one, into the first empty slot, just out of sight."""
    empty = shoal.born == 0
    here = birth.born & (jnp.arange(_SLOTS) == jnp.argmax(empty)) & jnp.any(empty)
    species = jnp.int32(0) if one_species else birth.species
    first, second, third = (jnp.float32(aspect) for aspect in fish.ASPECTS)
    aspect = jnp.where(species == 0, first, jnp.where(species == 1, second, third))
    newborn = Shoal(
        x=jnp.where(birth.velocity > 0, -birth.radius, fish.SIZE + birth.radius),
        y=birth.y,
        radius=birth.radius,
        half_height=birth.radius / aspect,
        velocity=birth.velocity,
        species=species,
        born=clock,
    )
    return Shoal(*(jnp.where(here, new, old) for new, old in zip(newborn, shoal, strict=True)))
