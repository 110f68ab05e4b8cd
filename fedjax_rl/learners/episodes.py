"""Episodes of many agents at once, where nobody waits longer than need be for the last one.

Agents' episodes end at different times. Three loops give the same numbers:

* "scan": every step of the horizon, the finished masked. Differentiable in reverse.
* "while": stops when nobody is left. For steps that take long to compile.
* "compact": when no more than half of the agents are left, these go on in a loop of half the
  width, and so on. Measured in `benchmarks/` (case `episodes`): on CartPole a fraction of the
  others' time, because a few long episodes do not make all wait.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_rl import streams
from fedjax_rl.names import check_known

LOOPS = ("scan", "while", "compact")

# Below this width a step is dominated by what it costs to start its kernels.
_NARROWEST = 64


def loop(
    step: Callable,
    alive: Callable,
    fixed,
    carry,
    max_steps: int,
    kind: str = "compact",
    axes=0,
):
    """Steps all agents until each is done.

    Args:
      step: `(t, fixed, carry) -> carry` of one agent, t uint32. A finished agent may be stepped
        on: what it has to keep, `step` masks.
      alive: `carry -> bool`, of one agent; once false, false for ever.
      fixed: what a step reads and does not change, leaves [A, ...].
      carry: what it changes, leaves [A, ...].
      max_steps: T.
      kind: of `LOOPS`.
      axes: where `fixed` has the axis A, a prefix of its tree as for `vmap`.

    Returns:
      The carry at the end.

    Raises:
      ValueError: an unknown kind.
    """
    check_known(kind, LOOPS, "loop")
    steps, living = jax.vmap(step, in_axes=(None, axes, 0)), jax.vmap(alive)
    if kind == "scan":

        def one(carry, t):
            return steps(t, fixed, carry), None

        return jax.lax.scan(one, carry, jnp.arange(max_steps, dtype=jnp.uint32))[0]

    def run(t, fixed, carry, fewest):
        """Steps while more than `fewest` agents live."""

        def go_on(now):
            t, carry = now
            left = jnp.sum(living(carry).astype(jnp.int32))
            return (t < max_steps) & (left > fewest)

        def body(now):
            t, carry = now
            return t + jnp.uint32(1), steps(t, fixed, carry)

        return jax.lax.while_loop(go_on, body, (t, carry))

    def descend(t, fixed, carry, width):
        half = (width + 1) // 2
        if kind == "while" or half < _NARROWEST:
            return run(t, fixed, carry, 0)[1]
        t, carry = run(t, fixed, carry, half)
        order = jnp.argsort(~living(carry), stable=True)[:half]
        here = jax.tree.map(
            lambda axis, part: jax.tree.map(lambda x: jnp.take(x, order, axis=axis), part),
            axes,
            fixed,
        )
        inner = jax.tree.map(lambda x: x[order], carry)
        finished = descend(t, here, inner, half)
        return jax.tree.map(lambda x, part: x.at[order].set(part), carry, finished)

    width = jax.tree.leaves(carry)[0].shape[0]
    return descend(jnp.uint32(0), fixed, carry, width)


class Episode(NamedTuple):
    """What came of one episode.

    Attributes:
      value: discounted return, float scalar; the first reward has weight 1.
      undiscounted: the sum of the rewards, float scalar.
      steps: int32 scalar.
      behaviour: [b], what novelty is measured on; () unless asked for.
    """

    value: jax.Array
    undiscounted: jax.Array
    steps: jax.Array
    behaviour: object


class _Now(NamedTuple):
    """An episode under way."""

    state: object
    observation: jax.Array
    value: jax.Array
    undiscounted: jax.Array
    weight: jax.Array
    steps: jax.Array
    alive: jax.Array
    last: object
    total: object


def episodes(
    task,
    act: Callable,
    keys,
    fixed,
    environment=None,
    *,
    axis: int = 0,
    kind: str = "compact",
    behaviour: bool = False,
) -> Episode:
    """One episode of every agent.

    Args:
      task: an `envs.Task`.
      act: `(fixed, observation [D], word) -> action` of one agent; the word is a uint32 scalar of
        the agent's stream.
      keys: typed keys, a pair of [A]: of the first state, and of everything drawn in the episode.
      fixed: what `act` reads, leaves [A, ...], or with A at `axis`.
      environment: parameters of the environment, leaves [A, ...]; the task's own by default.
      axis: where the leaves of `fixed` have the axis A.
      kind: of `LOOPS`.
      behaviour: whether to describe the behaviour, too.

    Returns:
      An `Episode` of [A].
    """
    resets, draws = keys
    own = environment is not None

    def begin(key, environment):
        observation, state = task.env.reset(key, environment if own else task.params)
        nothing = jax.tree.map(jnp.zeros_like, task.trace(state)) if behaviour else ()
        return _Now(
            state,
            task.encode(observation),
            jnp.zeros(()),
            jnp.zeros(()),
            jnp.ones(()),
            jnp.int32(0),
            jnp.asarray(True),
            nothing,
            nothing,
        )

    data = jax.random.key_data(draws)
    environment = environment if own else ()
    carry = jax.vmap(begin)(resets, environment)

    def step(t, fixed, now):
        own_fixed, data, environment = fixed
        # Three words a step: one for the action, two for the key of the environment's step.
        first = jnp.uint32(3) * t
        action = act(own_fixed, now.observation, streams.threefry(data, first))
        words = [streams.threefry(data, first + jnp.uint32(n)) for n in (1, 2)]
        key = jax.random.wrap_key_data(jnp.stack(words), impl=streams.IMPLEMENTATION)
        observation, state, reward, terminated, truncated, _ = task.env.step(
            key, now.state, action, environment if own else task.params
        )
        last, total = now.last, now.total
        if behaviour:
            seen = task.trace(state)
            last = jnp.where(now.alive, seen, last)
            total = total + jnp.where(now.alive, seen, jnp.zeros_like(seen))
        return _Now(
            state,
            task.encode(observation),
            now.value + jnp.where(now.alive, now.weight * reward, jnp.zeros(())),
            now.undiscounted + jnp.where(now.alive, reward, jnp.zeros(())),
            now.weight * task.discount,
            now.steps + now.alive.astype(jnp.int32),
            now.alive & ~(terminated | truncated),
            last,
            total,
        )

    done = loop(
        step,
        lambda now: now.alive,
        (fixed, data, environment),
        carry,
        task.max_steps,
        kind,
        axes=(axis, 0, 0),
    )
    described = ()
    if behaviour:
        steps = jnp.maximum(done.steps, 1).astype(done.total.dtype)
        described = jax.vmap(task.summarise)(done.last, done.total / steps[:, None], done.steps)
        described = described.astype(done.value.dtype)
    return Episode(done.value, done.undiscounted, done.steps, described)
