"""Episodes of many agents on a grid world, with what happened in every step.

The world is stepped on its tables, with one random word a step. The actions are epsilon-greedy on
a table of values. A trajectory is padded to the longest episode; what lies behind its last step
says nothing. The loop stops when nobody is left: nobody is moved aside for that, because the
trajectories would have to be moved, too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl import streams
from fedjax_rl.envs.grid_tables import GridWorld
from fedjax_rl.envs.task import Task
from fedjax_rl.learners import tabular_steps
from fedjax_rl.learners.policies import epsilon_greedy
from fedjax_rl.rollouts import engine
from fedjax_rl.rollouts.engine import Inputs
from fedjax_rl.rollouts.episodes import no_returns

TIES = ("random", "first")


class Transition(NamedTuple):
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


class GridTrajectory(NamedTuple):
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


@dataclasses.dataclass(frozen=True, eq=False)
class GridEnv:
    """The vectorised environment of a grid world, on tables that are read with one index.

    Their entries are the outcomes of s and a, B of each.

    Attributes:
      bounds: uint32 [S U (B-1)], see `tabular_steps.thresholds`.
      next_state: int32 [S U B].
      reward: float [S U B].
      terminal: bool [S U B], whether the next state ends the episode.
      actions: U.
      outcomes: B.
      initial_state: int32 scalar, where every episode begins in the same state.
      start_bounds: uint32 [S-1], thresholds of the first state where it is drawn; else None.
    """

    bounds: jax.Array
    next_state: jax.Array
    reward: jax.Array
    terminal: jax.Array
    actions: int
    outcomes: int
    initial_state: jax.Array
    start_bounds: jax.Array | None = None

    words = 1

    def start(self, word) -> jax.Array:
        """Where an episode begins, int32 scalar, from a uint32 word that may be unused."""
        if self.start_bounds is None:
            return self.initial_state
        return tabular_steps.outcome_of_row(word, self.start_bounds)

    def transition(self, state, action, word) -> tuple:
        """One step of one agent.

        Args:
          state: int32 scalar.
          action: int32 scalar.
          word: uint32 scalar; unused where every step has one outcome.

        Returns:
          Next state (int32), reward and whether the next state is terminal, scalars.
        """
        at = state * self.actions + action
        if self.outcomes > 1:
            first = at * (self.outcomes - 1)
            bounds = [self.bounds[first + b] for b in range(self.outcomes - 1)]
            at = at * self.outcomes + tabular_steps.outcome(word, bounds)
        return self.next_state[at], self.reward[at], self.terminal[at]

    def reset(self, keys, environment=()) -> tuple:
        """The first state of every agent, int32 [A], as observation and as state.

        Args:
          keys: typed keys [A]; consumed.
          environment: not asked for, all agents have these tables.
        """
        del environment
        state = jax.vmap(lambda key: self.start(start_word(key)))(keys)
        return state, state

    def step(self, words, state, action, environment=()) -> tuple:
        """Steps all agents, as `VectorEnv.step`; the tables never truncate.

        Args:
          words: one uint32 [A].
          state: int32 [A].
          action: int32 [A].
          environment: not asked for.
        """
        del environment
        state, reward, terminal = jax.vmap(self.transition)(state, action, *words)
        return state, state, reward, terminal, jnp.zeros_like(terminal)


def grid_env(world: GridWorld) -> GridEnv:
    """The world in the form that is sampled here."""
    bounds = tabular_steps.thresholds(np.asarray(world.probability))
    start = world.mdp.initial_distribution
    return GridEnv(
        jnp.asarray(bounds.reshape(-1)),
        jnp.asarray(np.asarray(world.next_state).reshape(-1)),
        jnp.asarray(np.asarray(world.reward).reshape(-1), jnp.result_type(float)),
        # By outcome rather than by state: in the loop one gather would have to wait for another.
        jnp.asarray(np.asarray(world.terminal)[np.asarray(world.next_state)].reshape(-1)),
        world.num_actions,
        world.next_state.shape[-1],
        jnp.asarray(world.mdp.initial_state, jnp.int32),
        None if start is None else jnp.asarray(tabular_steps.thresholds(np.asarray(start))),
    )


def start_word(key) -> jax.Array:
    """The random word that a first state is drawn with, uint32 scalar; it belongs to no step."""
    return streams.threefry(
        jax.random.key_data(jax.random.fold_in(key, streams.OfEpisode.START)), jnp.uint32(0)
    )


def sample_on_grid(
    task: Task,
    note: Callable,
    keys,
    tables,
    fixed=(),
    *,
    epsilon,
    first,
    differentiable: bool = False,
) -> GridTrajectory:
    """One epsilon-greedy episode of every agent.

    Args:
      task: with tables.
      note: `(transition, fixed) -> pytree` of one agent: what is kept of a `Transition`.
      keys: typed keys [A], of everything that is drawn in the episode; consumed.
      tables: float [A, S U], what the actions are worth, row by row.
      fixed: what `note` reads besides, leaves [A, ...].
      epsilon: float [A], probability of any action rather than one of the best.
      first: bool [A], whether the first of equal actions is taken.
      differentiable: whether every step of the horizon is made, so that the notes can be
        differentiated in reverse.

    Returns:
      A `GridTrajectory` of [A]; its notes are [A, T, ...].

    Raises:
      ValueError: a task without tables, or with traced ones.
    """
    world = grid_of(task)
    env, num = grid_env(world), world.num_actions

    def row_of(table, state):
        return jax.lax.dynamic_slice(table, (state * num,), (num,))

    def act_of_one(policy, state, word):
        table, epsilon, first = policy
        return epsilon_greedy(row_of(table, state), epsilon, first, word)

    def act(policy, state, words):
        return jax.vmap(act_of_one)(policy, state, words), ()

    def note_of_one(table, fixed, state, action, reward, next_state, terminal):
        rows = row_of(table, state), row_of(table, next_state)
        return note(Transition(state, action, reward, next_state, terminal, *rows), fixed)

    def note_of_all(step, returns, inputs):
        seen = step.state, step.action, step.reward, step.next_state, step.terminated
        row = jax.vmap(note_of_one)(inputs.policy[0], inputs.note, *seen)
        return returns.following(step, task.discount), row

    inputs = Inputs((tables, epsilon, first), jax.random.key_data(keys), (), fixed)
    state = engine.begin(env, keys, memory=no_returns(keys.shape))
    step = engine.stepper(env, act, note_of_all)
    # One time after the other: what is written in a step is contiguous.
    rows = engine.empty_rows(step, inputs, state, task.max_steps, time_axis=0)
    kind = "scan" if differentiable else "while"
    state, rows = engine.rollout(
        step, inputs, state, task.max_steps, kind=kind, rows=rows, time_axis=0
    )
    notes = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), rows)
    return GridTrajectory(notes, state.memory.value, state.memory.undiscounted, state.steps)
