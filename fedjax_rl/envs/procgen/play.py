"""Plays fixed policies: the same number of episodes in every copy, so that short ones count once.

Axis letters: ``C`` copies, ``Q`` episodes of each.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl import fields, streams
from fedjax_rl.names import check_known

Policy = Callable[[chex.Array, chex.Array], chex.Array]


def _cycle(t: chex.Array, actions: tuple[int, ...], steps: int) -> chex.Array:
    return jnp.array(actions, jnp.int32)[(t // steps) % len(actions)]


# From the steps since the start of the episode, int32, and a random word to an action, int32.
POLICIES: dict[str, Policy] = {
    "random": lambda t, word: streams.scaled(word, 15)[0],
    "noop": lambda t, word: jnp.int32(4),
    "left": lambda t, word: jnp.int32(1),
    "right": lambda t, word: jnp.int32(7),
    "up": lambda t, word: jnp.int32(5),
    "up_right": lambda t, word: jnp.int32(8),
    "circle": lambda t, word: _cycle(t, (7, 5, 1, 3), 10),
    "up20_noop": lambda t, word: jnp.where(t < 20, jnp.int32(5), jnp.int32(4)),
    "right_or_jump": lambda t, word: 7 + streams.scaled(word, 2)[0],
    "hop15": lambda t, word: jnp.where(t % 15 == 0, jnp.int32(8), jnp.int32(7)),
}


class Episodes(NamedTuple):
    """Episodes of some policy, leaves [C, Q] of NumPy.

    Attributes:
      length: steps, int32.
      gain: undiscounted return, float32.
      complete: whether the level was completed.
      timeout: whether the clock ended it.
    """

    length: np.ndarray
    gain: np.ndarray
    complete: np.ndarray
    timeout: np.ndarray


@fields.checked(
    copies=fields.COUNT,
    quota=fields.COUNT,
    seed=fields.SEED,
    levels=fields.reals("[C, Q] that are whole").or_none(),
)
def play(
    dynamics: Any,
    params: Any,
    policy: str,
    copies: int,
    quota: int,
    seed: int = 0,
    levels: np.ndarray | None = None,
) -> Episodes:
    """Plays one of `POLICIES`, without observations; all of them share a compiled program.

    Args:
      dynamics: of the game, as `BigFishDynamics`.
      params: of the game.
      policy: a name of `POLICIES`.
      copies: C, at least 1.
      quota: Q, at least 1.
      seed: of actions and levels.
      levels: what ``begin`` of the dynamics takes, integer [C, Q]; None draws them.

    Returns:
      The first Q episodes of every copy.

    Raises:
      ValueError: If the policy is unknown.
    """
    check_known(policy, POLICIES, "policy")
    if levels is not None:
        levels = jnp.asarray(levels, jnp.uint32)
    number = jnp.int32(list(POLICIES).index(policy))
    notes = np.asarray(_play(dynamics, copies, quota, params, number, jnp.uint32(seed), levels))
    length, gain, complete, timeout = np.moveaxis(notes, -1, 0)
    return Episodes(length.astype(np.int32), gain, complete > 0, timeout > 0)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _play(dynamics, copies, quota, params, policy, seed, levels):
    """The episodes as float32 [C, Q, 4], in the order of the fields of `Episodes`."""
    keys = jax.random.key_data(streams.agent_keys(jnp.full(copies, seed), jnp.arange(copies)))

    def begin(key, order, done, word):
        """The next level of a copy."""
        if order is None:
            data = jnp.stack([streams.threefry(key, word), word])
            key = jax.random.wrap_key_data(data, impl=streams.IMPLEMENTATION)
            return dynamics.begin(dynamics.draw(key, params), params)
        # Whoever is through goes on with its last level until all are, and nothing of it is kept.
        return dynamics.begin(order[jnp.minimum(done, quota - 1)], params)

    def step(key, order, tick, state, gain, done, kept):
        word = jnp.uint32(2) * tick
        choice = streams.threefry(key, word)
        action = jax.lax.switch(policy, list(POLICIES.values()), state.clock, choice)
        state, reward, terminated, truncated, info = dynamics.advance(state, action, params)
        ends, gain = terminated | truncated, gain + reward
        note = (state.clock, gain, info["level_complete"], info["timeout"])
        note = jnp.stack([jnp.asarray(x).astype(jnp.float32) for x in note])
        # Behind the end, where nothing is written, unless an episode has ended.
        kept = kept.at[jnp.where(ends, done, quota)].set(note, mode="drop")
        done = done + ends.astype(jnp.int32)
        new = begin(key, order, done, word + jnp.uint32(1))
        state = jax.tree.map(lambda a, b: jnp.where(ends, a, b), new, state)
        return state, jnp.where(ends, 0, gain), done, kept

    axis = None if levels is None else 0
    steps = jax.vmap(step, in_axes=(0, axis, None, 0, 0, 0, 0))
    none = jnp.zeros(copies, jnp.int32)
    # With a word that no step comes to.
    first = jax.vmap(begin, in_axes=(0, axis, 0, None))(keys, levels, none, jnp.uint32(2**32 - 1))
    carry = (
        jnp.uint32(0),
        first,
        jnp.zeros(copies, jnp.float32),
        none,
        jnp.zeros((copies, quota, 4), jnp.float32),
    )
    return jax.lax.while_loop(
        lambda carry: jnp.any(carry[3] < quota),
        lambda carry: (carry[0] + jnp.uint32(1), *steps(keys, levels, *carry)),
        carry,
    )[-1]
