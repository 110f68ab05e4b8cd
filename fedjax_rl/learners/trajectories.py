"""Episodes of many agents on a grid world, with what happened in every step.

The actions are epsilon-greedy on a table. A trajectory is padded to the longest episode; what lies
behind its last step says nothing. The loop stops when nobody is left: nobody is moved aside for
that, because the trajectories would have to be moved, too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl import streams
from fedjax_rl.envs.grid_tables import GridWorld
from fedjax_rl.envs.task import Task
from fedjax_rl.learners import q_learning, rounding

TIES = ("random", "first")
# Folded into the key of an episode where its first state is drawn.
_START = 3


class Step(NamedTuple):
    """One step of one agent; all scalars but the rows.

    Attributes:
      state: int32.
      action: int32.
      reward: float.
      next_state: int32.
      terminal: bool, whether the MDP ends there.
      row: [U], the table's row of the state.
      next_row: [U], that of the next state.
    """

    state: jax.Array
    action: jax.Array
    reward: jax.Array
    next_state: jax.Array
    terminal: jax.Array
    row: jax.Array
    next_row: jax.Array


class Trajectory(NamedTuple):
    """An episode.

    Attributes:
      notes: pytree of [T, ...], what was noted of every step.
      value: discounted return, float scalar; the first reward has weight 1.
      undiscounted: the sum of the rewards, float scalar.
      steps: int32 scalar; the notes from there on say nothing.
    """

    notes: object
    value: jax.Array
    undiscounted: jax.Array
    steps: jax.Array


def grid_of(task: Task) -> GridWorld:
    """The tables of a task.

    Raises:
      ValueError: a task without, or traced tables.
    """
    if task.grid is None:
        raise ValueError(
            f"task is {task.name}; allowed: a grid world, such as envs.simple_grid() or "
            "envs.frozen_lake()"
        )
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(task.grid)):
        raise ValueError(
            f"the tables of {task.name} are traced, and what happens is drawn from them, which has "
            "no derivative; allowed: tables of numbers"
        )
    return task.grid


def epsilon_greedy(row, epsilon, first, word) -> jax.Array:
    """An action: any with probability epsilon, else one of the best, as `rounding.best_of` says.

    Args:
      row: [U], what the actions are worth.
      epsilon: scalar in [0, 1].
      first: bool scalar, whether the first of equals is taken rather than any of them.
      word: uint32 scalar, the only random number: its place above or below epsilon decides, what
        is left of it chooses.

    Returns:
      int32 scalar in 0..U-1.
    """
    num = row.shape[0]
    values = [row[a] for a in range(num)]
    best = [equal.astype(jnp.int32) for equal in rounding.best_of(values)]
    ties = best[0]
    for equal in best[1:]:
        ties = ties + equal
    level = streams.uniform(word, row.dtype)
    explores = level < epsilon
    rest = jnp.where(explores, level, level - epsilon)
    rest = rest / jnp.maximum(jnp.where(explores, epsilon, 1 - epsilon), 2.0**-24)

    def among(count):
        return jnp.minimum((rest * count.astype(rest.dtype)).astype(jnp.int32), count - 1)

    place = jnp.where(first, 0, among(ties))
    chosen, seen = jnp.int32(0), jnp.int32(0)
    for action, equal in enumerate(best):
        chosen = jnp.where((equal > 0) & (seen == place), jnp.int32(action), chosen)
        seen = seen + equal
    return jnp.where(explores, among(jnp.int32(num)), chosen)


class Dice(NamedTuple):
    """A grid world as arrays that are read with one index; entries are outcomes of s and a.

    Attributes:
      bounds: uint32 [S U (B-1)], see `q_learning.thresholds`.
      next_state: int32 [S U B].
      reward: float [S U B].
      terminal: bool [S U B], whether the next state ends the episode.
      actions: U.
      outcomes: B.
    """

    bounds: jax.Array
    next_state: jax.Array
    reward: jax.Array
    terminal: jax.Array
    actions: int
    outcomes: int


def dice(world: GridWorld) -> Dice:
    """The world in the form that is sampled here."""
    bounds = q_learning.thresholds(np.asarray(world.probability))
    return Dice(
        jnp.asarray(bounds.reshape(-1)),
        jnp.asarray(np.asarray(world.next_state).reshape(-1)),
        jnp.asarray(np.asarray(world.reward).reshape(-1), jnp.result_type(float)),
        jnp.asarray(np.asarray(world.terminal)[np.asarray(world.next_state)].reshape(-1)),
        world.num_actions,
        world.next_state.shape[-1],
    )


def throw(world: Dice, state, action, word) -> tuple:
    """One step in the world.

    Args:
      world: of all agents.
      state: int32 scalar.
      action: int32 scalar.
      word: uint32 scalar; unused where every step has one outcome.

    Returns:
      Next state (int32), reward and whether the next state is terminal, scalars.
    """
    at = state * world.actions + action
    if world.outcomes > 1:
        first = at * (world.outcomes - 1)
        bounds = [world.bounds[first + b] for b in range(world.outcomes - 1)]
        at = at * world.outcomes + q_learning.outcome(word, bounds)
    return world.next_state[at], world.reward[at], world.terminal[at]


def start_of(world: GridWorld, word) -> jax.Array:
    """Where an episode begins, int32 scalar.

    Args:
      world: of all agents.
      word: uint32 scalar; unused where every episode begins in the same state.
    """
    start = world.mdp.initial_distribution
    if start is None:
        return jnp.asarray(world.mdp.initial_state, jnp.int32)
    return q_learning.outcome_of_row(word, q_learning.thresholds(np.asarray(start)))


def start_word(key) -> jax.Array:
    """The random word that a first state is drawn with, uint32 scalar; it belongs to no step."""
    return streams.threefry(jax.random.key_data(jax.random.fold_in(key, _START)), jnp.uint32(0))


class _Now(NamedTuple):
    """An episode under way."""

    state: jax.Array
    value: jax.Array
    undiscounted: jax.Array
    weight: jax.Array
    steps: jax.Array
    alive: jax.Array


def trajectories(
    task: Task,
    note: Callable,
    keys,
    tables,
    fixed=(),
    *,
    epsilon,
    first,
    differentiable: bool = False,
) -> Trajectory:
    """One episode of every agent.

    Args:
      task: with tables.
      note: `(step, fixed) -> pytree` of one agent: what is kept of a `Step`.
      keys: typed keys [A], of everything that is drawn in the episode.
      tables: [A, S U], what the actions are worth, row by row.
      fixed: what `note` reads besides, leaves [A, ...].
      epsilon: [A].
      first: bool [A], whether the first of equal actions is taken.
      differentiable: whether every step of the horizon is made, so that the notes can be
        differentiated in reverse.

    Returns:
      A `Trajectory` of [A]; its notes are [A, T, ...].
    """
    world, num, length = dice(grid_of(task)), grid_of(task).num_actions, task.max_steps
    data = jax.random.key_data(keys)
    agents = data.shape[0]
    start = jax.vmap(lambda key: start_of(grid_of(task), start_word(key)))(keys)
    now = _Now(
        start,
        jnp.zeros(agents),
        jnp.zeros(agents),
        jnp.ones(agents),
        jnp.zeros(agents, jnp.int32),
        jnp.ones(agents, bool),
    )

    def row_of(table, state):
        return jax.lax.dynamic_slice(table, (state * num,), (num,))

    def one(t, now, data, table, epsilon, first, fixed):
        # Two words a step: one for the action, one for the world.
        place = jnp.uint32(2) * t
        row = row_of(table, now.state)
        action = epsilon_greedy(row, epsilon, first, streams.threefry(data, place))
        word = streams.threefry(data, place + jnp.uint32(1))
        state, reward, terminal = throw(world, now.state, action, word)
        following = row_of(table, state)
        step = Step(now.state, action, reward, state, terminal, row, following)
        gain = jnp.where(now.alive, now.weight * reward, jnp.zeros_like(reward))
        return _Now(
            state,
            now.value + gain,
            now.undiscounted + jnp.where(now.alive, reward, jnp.zeros_like(reward)),
            now.weight * task.discount,
            now.steps + now.alive.astype(jnp.int32),
            now.alive & ~terminal,
        ), note(step, fixed)

    def all_of(t, now):
        return jax.vmap(one, in_axes=(None, *(0,) * 6))(t, now, data, tables, epsilon, first, fixed)

    if differentiable:
        times = jnp.arange(length, dtype=jnp.uint32)
        now, notes = jax.lax.scan(lambda now, t: all_of(t, now), now, times)
    else:
        shapes = jax.eval_shape(all_of, jnp.uint32(0), now)[1]
        notes = jax.tree.map(lambda x: jnp.zeros((length, *x.shape), x.dtype), shapes)

        def go_on(carry):
            t, now, _ = carry
            return (t < length) & jnp.any(now.alive)

        def body(carry):
            t, now, notes = carry
            now, new = all_of(t, now)
            # One time after the other: the notes of a step are contiguous while they are written.
            notes = jax.tree.map(
                lambda old, x: jax.lax.dynamic_update_index_in_dim(old, x, t, 0), notes, new
            )
            return t + jnp.uint32(1), now, notes

        now, notes = jax.lax.while_loop(go_on, body, (jnp.uint32(0), now, notes))[1:]
    notes = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), notes)
    return Trajectory(notes, now.value, now.undiscounted, now.steps)
