"""A tabular MDP behind the environment protocol: how a state and its successors are drawn.

Axis letters: ``S`` states, ``U`` actions.
"""

import dataclasses
from typing import Any

import chex
import jax
import jax.numpy as jnp

from fedjax_rl import streams
from fedjax_rl.envs.tabular import TabularMDP

UNROLLED = 32  # states up to which a row is read entry by entry


@dataclasses.dataclass(frozen=True)
class TabularEnv:
    """A tabular MDP behind the environment protocol of gymnax 1.x; ``params`` is a `TabularMDP`.

    The task continues for ever: no step terminates or truncates. The observation is the state, an
    int32 scalar. Both functions are for one agent; callers vmap.
    """

    def reset(self, key: chex.PRNGKey, params: TabularMDP) -> tuple[chex.Array, chex.Array]:
        """Returns ``(obs, state)``, both the state in which an episode begins.

        The key is consumed where ``params`` has an initial distribution, and not needed elsewhere.

        Args:
          key: of the first state.
          params: one MDP.
        """
        state = first_state(key, params)
        return state, state

    def step(
        self, key: chex.PRNGKey, state: chex.Array, action: chex.Array, params: TabularMDP
    ) -> tuple[chex.Array, chex.Array, chex.Array, chex.Array, chex.Array, dict[str, Any]]:
        """Moves to a next state by inverting the distribution function of its row.

        Args:
          key: consumed, one uniform variate.
          state: [] integer.
          action: [] integer.
          params: one MDP.

        Returns:
          ``(obs, state, reward, terminated, truncated, info)``: the next state twice, the reward
          [] of the dtype of ``params``, two False, an empty dictionary.
        """
        chex.assert_rank([state, action, params.transition], [0, 0, 3])
        state, action = (jnp.asarray(index, jnp.int32) for index in (state, action))
        transition = jnp.asarray(params.transition)
        next_state = draw(level(key, transition.dtype), transition, row_of(state, action, params))
        reward = reward_of(state, action, next_state, params)
        never = jnp.zeros((), bool)
        return next_state, next_state, reward, never, never, {}


def row_of(state: chex.Array, action: chex.Array, mdps: TabularMDP, place: Any = 0) -> chex.Array:
    """Which row of the transitions of a family is that of a state and an action, int32."""
    return (place * mdps.num_states + state) * mdps.num_actions + action


def reward_of(
    state: chex.Array, action: chex.Array, next_state: chex.Array, mdps: TabularMDP, place: Any = 0
) -> chex.Array:
    """The rewards of any number of transitions, of arrays of one shape or that broadcast to it.

    Args:
      state: int32.
      action: int32.
      next_state: int32.
      mdps: one MDP or a family of them.
      place: int32, which member of the family.
    """
    reward = jnp.asarray(mdps.reward)
    for extent, index in zip(reward.shape[-3:], (state, action, next_state), strict=True):
        place = place * extent + (0 if extent == 1 else index)
    return entry(reward.reshape(-1), place)


def first_state(key: chex.PRNGKey, mdp: TabularMDP) -> chex.Array:
    """Draws where an episode begins, [] int32.

    Args:
      key: consumed where there is an initial distribution, and not needed elsewhere.
      mdp: one MDP.

    Returns:
      [] int32 in [0, S).
    """
    if mdp.initial_distribution is None:
        return jnp.asarray(mdp.initial_state, jnp.int32)
    law = jnp.asarray(mdp.initial_distribution)
    return draw(level(key, law.dtype), law, 0)


def draw(level: chex.Array, table: chex.Array, row: chex.Array | int) -> chex.Array:
    """Draws an index, int32, from a row of probabilities of a table [..., S].

    Of any number of rows of one table at a time: gathers of single entries, each at a place of the
    whole table, fuse with what is done with them, and gathers of rows do not.

    Args:
      level: [...] in (0, 1], random, the share of a row's total that is to be reached.
      table: whose rows are distributions, or are so but for rounding.
      row: integer, broadcasts to the level; counted in C order.

    Returns:
      [...] int32 in [0, S).
    """
    size = table.shape[-1]
    if size > UNROLLED:
        mass = entry(table.reshape(-1, size), row)
        # Sums in blocks, as a compiled cumulative sum makes them, are not monotone: they may rise
        # by a rounding where the probability is 0. Only where it is not, is anything drawn.
        cdf = jnp.where(mass > 0, jnp.cumsum(mass, axis=-1), -1)
        top = jnp.broadcast_to(jnp.max(cdf, axis=-1), jnp.shape(level))
        cdf = jnp.broadcast_to(cdf, (*jnp.shape(level), size))
        return jnp.argmax(cdf >= (top * level)[..., None], axis=-1).astype(jnp.int32)
    entries = table.reshape(-1)
    cdf = [entry(entries, row * size)]
    for place in range(1, size):
        cdf.append(cdf[-1] + entry(entries, row * size + place))
    level = cdf[-1] * level
    index = jnp.zeros(jnp.shape(level), jnp.int32)
    for mass in cdf[:-1]:
        index += (mass < level).astype(jnp.int32)
    return index


def entry(array: chex.Array, place: chex.Array) -> chex.Array:
    """Returns the entries at these places, of which none is negative."""
    return array.at[place].get(mode="clip", wrap_negative_indices=False)


def level(key: chex.PRNGKey, dtype: Any) -> chex.Array:
    """Returns 1 - ``jax.random.uniform(key)``, [] in (0, 1].

    Below it, as a share of the total of a row, there is never an index of probability zero, be it
    the first or the last, even where rounding leaves the total short of one.
    """
    if not jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key):
        return 1 - jax.random.uniform(key, dtype=dtype)
    return 1 - streams.uniform_of(key, dtype)
