"""How bodies move in both games: actions, one move along an axis, one step in several moves.

World coordinates: x to the right, y up, in cells; a body is a box given by its centre and its half
sizes. Everything is for one body, scalars of float32; callers vmap.
"""

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

NUM_ACTIONS = 15
IDLE = 4  # what the actions 9 to 14 do as well

# A box is tested a little inside its corners, so that a body fits where it exactly fits.
_CORNER = 0.98

Blocked = Callable[[chex.Array, chex.Array, chex.Array, chex.Array], chex.Array]


class Body(NamedTuple):
    """A moving box.

    Attributes:
      x: of the centre.
      y: of the centre.
      vx: cells per step.
      vy: cells per step.
      held: whether something else than a cell has stopped its fall, bool.
    """

    x: chex.Array
    y: chex.Array
    vx: chex.Array
    vy: chex.Array
    held: chex.Array


def axes(action: chex.Array) -> tuple[chex.Array, chex.Array]:
    """Returns the direction of an action as float32 (ax, ay), each -1, 0 or 1.

    Args:
      action: integer; 0 to 8 are (left, none, right) by (down, none, up), the rest does nothing.
    """
    action = jnp.asarray(action, jnp.int32)
    move = jnp.where(action < 9, action, jnp.int32(IDLE))
    return (move // 3 - 1).astype(jnp.float32), (move % 3 - 1).astype(jnp.float32)


def inside(width: float, height: float) -> Blocked:
    """Returns the rule by which only the rim of a world blocks.

    Args:
      width: of the world, in cells.
      height: of the world, in cells.
    """

    def blocked(left, right, bottom, top):
        return (left < 0) | (right >= width) | (bottom < 0) | (top >= height)

    return blocked


def axis_move(
    x: chex.Array,
    y: chex.Array,
    dx: chex.Array,
    dy: chex.Array,
    half_x: chex.Array,
    half_y: chex.Array,
    blocked: Blocked,
) -> tuple[chex.Array, chex.Array, chex.Array]:
    """Moves a box along one axis and, where that is blocked, snaps it to the lines of the cells.

    All four corners count, whichever way the box moves, and a move of zero counts as one downward:
    a box that sticks out on one axis is held on the other, and can hop.

    Args:
      x: of the centre.
      y: of the centre.
      dx: of the move; one of the two is zero.
      dy: of the move.
      half_x: half width.
      half_y: half height.
      blocked: from (left, right, bottom, top) of the corners to whether one of them is blocked.

    Returns:
      The new centre, and whether the move was blocked, bool.
    """
    x, y = x + dx, y + dy
    reach_x, reach_y = _CORNER * half_x, _CORNER * half_y
    hit = blocked(x - reach_x, x + reach_x, y - reach_y, y + reach_y)
    sideways = dx != 0
    return (
        jnp.where(hit & sideways, _snap(x, dx, half_x), x),
        jnp.where(hit & ~sideways, _snap(y, dy, half_y), y),
        hit,
    )


def _snap(centre: chex.Array, move: chex.Array, half: chex.Array) -> chex.Array:
    return jnp.where(move > 0, jnp.floor(centre + half) - half, jnp.ceil(centre - half) + half)


def never_held(body: Body) -> tuple[Body, chex.Array]:
    """The rule of a world where only cells and rims stop a body."""
    return body, jnp.zeros_like(body.held)


def step_body(
    body: Body,
    ax: chex.Array,
    ay: chex.Array,
    tie: chex.Array,
    half_x: chex.Array,
    half_y: chex.Array,
    blocked: Blocked,
    most: int = 4,
    hold: Callable[[Body], tuple[Body, chex.Array]] = never_held,
) -> Body:
    """Moves the player for one step, in ``n = max(4, floor(4 |v|))`` pairs of moves.

    Args:
      body: where it is and how fast.
      ax: of the action.
      ay: of the action.
      tie: bool, whether the horizontal move is the first one of a pair if nothing else says it.
      half_x: half width.
      half_y: half height.
      blocked: as of `axis_move`.
      most: the largest n that speeds can lead to, static.
      hold: what happens after a vertical move; returns the body and whether the move is blocked.

    Returns:
      The body afterwards: a velocity keeps the share of its moves that was not blocked.
    """
    speed = jnp.sqrt(body.vx * body.vx + body.vy * body.vy)
    count = jnp.maximum(jnp.floor(4 * speed), 4)
    wide, high = jnp.abs(body.vx), jnp.abs(body.vy)
    sideways_first = (ay == 0) & ((ax != 0) | (wide > high) | ((wide == high) & tie))

    def one(body, sideways):
        dx = jnp.where(sideways, body.vx / count, 0)
        dy = jnp.where(sideways, 0, body.vy / count)
        x, y, hit = axis_move(body.x, body.y, dx, dy, half_x, half_y, blocked)
        moved = body._replace(x=x, y=y)
        caught, stopped = hold(moved)
        rises = dx == 0
        return _where(rises, caught, moved), hit | (rises & stopped)

    def pair(n, carry):
        body, free_x, free_y, going = carry
        active = going & (n < count)
        after, first_hit = one(body, sideways_first)
        after, second_hit = one(after, ~sideways_first)
        hit_x = jnp.where(sideways_first, first_hit, second_hit)
        hit_y = jnp.where(sideways_first, second_hit, first_hit)
        return (
            _where(active, after, body),
            free_x + (active & ~hit_x).astype(jnp.float32),
            free_y + (active & ~hit_y).astype(jnp.float32),
            going & ~(active & first_hit & second_hit),
        )

    none = jnp.zeros_like(body.x)
    carry = (body, none, none, jnp.ones_like(body.held))
    # Unrolled, few moves run faster, and many take long to compile.
    body, free_x, free_y, _ = jax.lax.fori_loop(
        0, most, lambda n, carry: pair(n.astype(jnp.float32), carry), carry, unroll=most <= 4
    )
    return body._replace(vx=body.vx * (free_x / count), vy=body.vy * (free_y / count))


def _where(condition: chex.Array, yes: Body, no: Body) -> Body:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)


def nearest(far: chex.Array, columns: tuple[chex.Array, ...], count: int) -> chex.Array:
    """Sorts the few nearest of many, by counting who is nearer: cheaper than a sort of so few.

    Args:
      far: float32 [n], distances, infinite where there is nothing.
      columns: float32 [n] each, what is asked of them.
      count: k.

    Returns:
      float32 [k, number of columns], the nearest first, zeros where there are fewer than k.
    """
    earlier = np.tri(far.shape[0], k=-1, dtype=bool)
    nearer = (far[None] < far[:, None]) | ((far[None] == far[:, None]) & earlier)
    place = jnp.sum(nearer, axis=1, dtype=jnp.int32)
    chosen = place[None] == jnp.arange(count, dtype=jnp.int32)[:, None]
    chosen = chosen & (far < jnp.inf)[None]
    picked = [jnp.sum(jnp.where(chosen, column[None], 0), axis=1) for column in columns]
    return jnp.stack(picked, axis=1)
