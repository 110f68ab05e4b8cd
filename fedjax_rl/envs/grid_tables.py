"""Grid worlds as exact tables, and behind the environment protocol.

Axis letters: ``S`` states (row by row), ``U`` actions, ``B`` outcomes of a step at most.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl.envs.tabular import TabularMDP, tabular_mdp
from fedjax_rl.envs.tabular_env import first_state, level


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class GridWorld:
    """A grid world as a pytree: the exact MDP, and the same numbers in the form that is sampled.

    Attributes:
      mdp: float64 tables; terminal states are left by no action and give reward 0, so that the
        exact solvers apply as they are.
      terminal: [S] bool, where an episode ends.
      next_state: [S, U, B] int32, the states that a step can lead to.
      probability: [S, U, B] float64, of each; 0 where there are fewer than B.
      reward: [S, U, B] float64, with each.
      rows: of the grid; S = rows * columns.
      columns: of the grid.
    """

    mdp: TabularMDP
    terminal: chex.Array
    next_state: chex.Array
    probability: chex.Array
    reward: chex.Array
    rows: int = dataclasses.field(metadata={"static": True})
    columns: int = dataclasses.field(metadata={"static": True})

    @property
    def num_states(self) -> int:
        """S, the number of cells."""
        return self.rows * self.columns

    @property
    def num_actions(self) -> int:
        """U, the number of actions."""
        return self.mdp.num_actions

    def with_discount(self, discount: float) -> "GridWorld":
        """Returns the same world, its MDP with another discount in [0, 1].

        An exact solver needs one below 1, as everywhere.
        """
        discount = np.full_like(self.mdp.discount, discount)
        return dataclasses.replace(self, mdp=self.mdp.replace(discount=discount))


@dataclasses.dataclass(frozen=True)
class GridEnv:
    """A grid world behind the environment protocol; ``params`` is a `GridWorld`.

    The observation is the state, an int32 scalar. Both functions are for one agent.
    """

    def reset(self, key: chex.PRNGKey, params: GridWorld) -> tuple[chex.Array, chex.Array]:
        """Returns ``(obs, state)``, both the state in which an episode begins.

        The key is consumed where episodes begin in several states, and not needed elsewhere.

        Args:
          key: of the first state.
          params: one grid world.
        """
        state = first_state(key, params.mdp)
        return state, state

    def step(
        self, key: chex.PRNGKey, state: chex.Array, action: chex.Array, params: GridWorld
    ) -> tuple[chex.Array, chex.Array, chex.Array, chex.Array, chex.Array, dict[str, Any]]:
        """Draws one of at most B outcomes.

        Args:
          key: consumed, one uniform variate; unused where B is 1.
          state: [] integer.
          action: [] integer.
          params: one grid world.

        Returns:
          ``(obs, state, reward, terminated, truncated, info)``: the next state twice, the reward
          [] float32 (float64 where that is enabled), whether the next state is terminal, False,
          an empty dictionary. A step in a terminal state stays there with reward 0.
        """
        row = jnp.asarray(params.probability)[state, action]
        outcome = jnp.zeros((), jnp.int32)
        if row.shape[0] > 1:
            # The distribution function is inverted at a level in (0, total]: an outcome of
            # probability zero is never drawn, even where rounding leaves the total short of one.
            cdf = [row[0]]
            for b in range(1, row.shape[0]):
                cdf.append(cdf[-1] + row[b])
            reached = cdf[-1] * level(key, row.dtype)
            for mass in cdf[:-1]:
                outcome += (mass < reached).astype(jnp.int32)
        next_state = jnp.asarray(params.next_state)[state, action, outcome]
        reward = jnp.asarray(params.reward)[state, action, outcome]
        terminated = jnp.asarray(params.terminal)[next_state]
        return next_state, next_state, reward, terminated, jnp.zeros((), bool), {}


def tabulated(
    outcomes: Sequence[tuple[Any, chex.ArrayNumpy]],
    reward: chex.ArrayNumpy,
    terminal: chex.ArrayNumpy,
    starts: Sequence[int],
    discount: float,
) -> GridWorld:
    """Builds the tables of a grid world from what a step may do; nothing is checked.

    Args:
      outcomes: as of `grid_moves.outcomes_of`.
      reward: [rows, columns], of entering a cell.
      terminal: [rows, columns] bool; a step in such a cell stays there with reward 0.
      starts: states, one of which an episode begins in; one that stands there twice is twice as
        probable.
      discount: in [0, 1].

    Returns:
      A `GridWorld`; B is the largest number of different next states.
    """
    rows, columns = np.shape(terminal)
    num_states, num_actions = rows * columns, outcomes[0][1].shape[1]
    terminal, reward = np.ravel(terminal), np.ravel(np.asarray(reward, np.float64))
    transition = np.zeros((num_states, num_actions, num_states))
    states, actions = np.ogrid[:num_states, :num_actions]
    for probability, cells in outcomes:
        np.add.at(
            transition, (states, actions, cells[..., 0] * columns + cells[..., 1]), probability
        )
    # Absorbing with reward 0, so that solvers of MDPs that go on for ever apply as they are.
    transition[terminal] = np.eye(num_states)[terminal][:, None]
    entering = np.where(terminal[:, None], 0.0, reward)[:, None]
    where = np.bincount(starts, minlength=num_states)
    # One start is no distribution: programs then draw nothing.
    several = None if np.count_nonzero(where) == 1 else where / where.sum()
    mdp = tabular_mdp(transition, entering, 0.0, starts[0], several)

    possible = transition > 0
    # A stable sort puts the possible next states first, in their order.
    width = possible.sum(-1).max()
    next_state = np.argsort(~possible, axis=-1, kind="stable")[..., :width]
    probability = np.take_along_axis(transition, next_state, axis=-1)
    drawn = np.take_along_axis(np.broadcast_to(entering, transition.shape), next_state, axis=-1)
    world = GridWorld(
        mdp=mdp,
        terminal=terminal,
        next_state=next_state.astype(np.int32),
        probability=probability,
        reward=np.where(probability > 0, drawn, 0.0),
        rows=rows,
        columns=columns,
    )
    return world.with_discount(discount)
