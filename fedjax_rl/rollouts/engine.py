r"""The one engine that steps environments.

A rollout is `loop` over `stepper`:

    u_t        ~ act(policy, o_t)                       and what else the policy says
    s_t+1, r_t ~ environment                            stepped for all episodes at once
    m_t+1, x_t = note(m_t, step)                        sums are kept, rows are written down
    o_t+1      = of s_t+1, or of a new episode          where episodes begin anew by themselves

Everything is written for arrays of episodes, leaves [B, ...], where B is the axis A of agents, or
G and E, the environments of each of G agents. Randomness is read off a stream of words per
episode by place, so that what an episode draws depends on nothing around it.

A task truncates: the environment may, and `max_steps` does. Where environments begin anew,
`Step.truncated` says either, and the observation of `Step.next_observation` is still that of the
episode that is over: a value can be bootstrapped from it (Pardo, Tavakoli, Levdik and Kormushev,
*Time Limits in Reinforcement Learning*, arXiv 1712.00378).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fedjax_rl.rollouts.environments import Environments, choose, key_of, words_at
from fedjax_rl.rollouts.loops import loop


class RolloutState(NamedTuple):
    """Where episodes are; leaves [B, ...].

    Attributes:
      state: of the environments.
      observation: what the policies see next.
      steps: int32, made so far in the episode.
      alive: bool, whether the episode is under way; always, where environments begin anew.
      memory: what `note` keeps from step to step.
    """

    state: Any
    observation: jax.Array
    steps: jax.Array
    alive: jax.Array
    memory: Any = ()


class Inputs(NamedTuple):
    """What a rollout reads and does not change.

    Attributes:
      policy: what `act` reads, such as parameters [A, q].
      words: uint32 [B, 2], key data of the stream of every episode.
      environment: parameters of the environments, leaves [A, ...]; () for the task's own.
      note: what `note` reads, leaves [A, ...].
    """

    policy: Any
    words: jax.Array
    environment: Any = ()
    note: Any = ()


class Step(NamedTuple):
    """One step of every episode; leaves [B, ...].

    Attributes:
      time: uint32 scalar, steps of the rollout before this one.
      alive: bool, whether the episode was under way. What is said of one that was not, says
        nothing.
      state: before the step.
      observation: before the step.
      action: as drawn.
      output: what `act` says besides.
      reward: as the environment gives it.
      length: int32, steps of the episode, this one included.
      next_state: after the step, the last one of its episode included.
      next_observation: likewise.
      terminated: bool, whether the MDP ended.
      truncated: bool, whether the episode was cut off for another reason.
    """

    time: jax.Array
    alive: jax.Array
    state: Any
    observation: jax.Array
    action: jax.Array
    output: Any
    reward: jax.Array
    length: jax.Array
    next_state: Any
    next_observation: jax.Array
    terminated: jax.Array
    truncated: jax.Array

    @property
    def over(self) -> jax.Array:
        """Whether the episode is over with this step, bool [B]."""
        return self.terminated | self.truncated


def begin(env: Environments, keys, environment=(), memory: Callable | Any = ()) -> RolloutState:
    """The first states of episodes.

    Args:
      env: steps the environments.
      keys: typed keys [B]; consumed.
      environment: parameters of the environments, leaves [A, ...]; () for the task's own.
      memory: leaves [B, ...], or a function from the observations to that.
    """
    observation, state = env.reset(keys, environment)
    memory = memory(observation) if callable(memory) else memory
    shape = keys.shape
    return RolloutState(
        state, observation, jnp.zeros(shape, jnp.int32), jnp.ones(shape, bool), memory
    )


def note_nothing(step: Step, memory, inputs: Inputs) -> tuple:
    """Keeps nothing of a step: no memory, no row."""
    del step, memory, inputs
    return (), ()


@dataclasses.dataclass(frozen=True, eq=False)
class Stepper:
    """The step of all episodes: `(t, inputs, state) -> (state, row)`, t a uint32 scalar.

    Attributes:
      words: `(t, inputs) -> list of uint32 [B]`, what is drawn in step t.
      move: `(t, words, inputs, state) -> (state, row)`, the step with these words.
    """

    words: Callable
    move: Callable

    def __call__(self, t, inputs: Inputs, state: RolloutState) -> tuple:
        """One step."""
        return self.move(t, self.words(t, inputs), inputs, state)


def stepper(
    env: Environments,
    act: Callable,
    note: Callable = note_nothing,
    *,
    performed: Callable = lambda action: action,
    begins_anew: int | None = None,
    words: tuple[int, int] | None = None,
) -> Stepper:
    """Makes the step of all episodes.

    Args:
      env: steps the environments.
      act: `(policy, observations [B, ...], words [B]) -> (actions [B, ...], output)`.
      note: `(step, memory, inputs) -> (memory, row)`: what is kept of a `Step`, and what is
        written down of it, leaves [B, ...].
      performed: from an action as it was drawn to what the environments are told, elementwise.
      begins_anew: T where an episode that is over, or T steps long, is followed by another one at
        once; None where it is stepped on, to no avail.
      words: the place of the first word of step 0 in the streams, and how many words there are
        to a step; by default 0, and as many as are needed: one for the action, those of the
        environment, two for a new episode.

    Returns:
      A `Stepper`.
    """
    # Words of a new episode are set aside in every step, so that a place depends on time alone.
    needed = 1 + env.words + (0 if begins_anew is None else 2)
    first, stride = (0, needed) if words is None else words

    def drawn(t, inputs: Inputs):
        return words_at(inputs.words, jnp.uint32(first) + jnp.uint32(stride) * t, needed)

    def move(t, words, inputs: Inputs, now: RolloutState):
        choice, *own = words
        action, output = act(inputs.policy, now.observation, choice)
        observation, state, reward, terminated, truncated = env.step(
            own[: env.words], now.state, performed(action), inputs.environment
        )
        length = now.steps + now.alive.astype(jnp.int32)
        if begins_anew is not None:
            # An MDP that ends in the last step has ended: there is no value to go on with.
            truncated = (truncated | (length >= begins_anew)) & ~terminated
        made = Step(
            t,
            now.alive,
            now.state,
            now.observation,
            action,
            output,
            reward,
            length,
            state,
            observation,
            terminated,
            truncated,
        )
        # Before anything begins anew, while the last observation of an episode is still there.
        memory, row = note(made, now.memory, inputs)
        if begins_anew is None:
            return RolloutState(state, observation, length, now.alive & ~made.over, memory), row
        # A reset costs as much as a step, or more: not in the steps in which nobody needs one.
        observation, state = jax.lax.cond(
            jnp.any(made.over),
            lambda: choose(
                made.over, env.reset(key_of(*own[-2:]), inputs.environment), (observation, state)
            ),
            lambda: (observation, state),
        )
        length = jnp.where(made.over, 0, length)
        return RolloutState(state, observation, length, now.alive, memory), row

    return Stepper(drawn, move)


def rollout(
    step: Stepper,
    inputs: Inputs,
    state: RolloutState,
    num_steps: int,
    *,
    kind: str = "while",
    axes: Inputs | int = 0,
    rows: Any = (),
    time_axis: int = 1,
) -> tuple[RolloutState, Any]:
    """Steps episodes until all are over, or a number of times.

    Args:
      step: of `stepper`.
      inputs: what it reads.
      state: where episodes are.
      num_steps: T.
      kind: of `loops.LOOPS`, or "fixed", see there.
      axes: where the leaves of the inputs have the axis B, as for `vmap`; "compact" alone.
      rows: buffers of what is written down, leaves [B, T, ...], or [T, B, ...].
      time_axis: where the buffers have the axis T; 0 is not for "compact".

    Returns:
      The state after the last step and the buffers. What stands in them behind the last step of
      an episode says nothing.
    """

    def each(t, inputs, carry):
        state, rows, words = carry
        state, row = step.move(t, words, inputs, state)
        # Drawn one step ahead: what a loop carries is computed by itself, many at a time. Fused
        # with the lookups of a table they are drawn one by one, for half of the time of the whole.
        words = step.words(t + jnp.uint32(1), inputs)
        place = t.astype(jnp.int32)
        rows = jax.tree.map(
            lambda old, new: jax.lax.dynamic_update_index_in_dim(old, new, place, time_axis),
            rows,
            row,
        )
        return state, rows, words

    carry = state, rows, step.words(jnp.uint32(0), inputs)
    end = loop(each, lambda carry: carry[0].alive, inputs, carry, num_steps, kind, axes)
    return end[0], end[1]


def empty_rows(step: Stepper, inputs: Inputs, state: RolloutState, num_steps: int, time_axis=1):
    """Buffers of zeros for what a step writes down, for `rollout`.

    Args:
      step: of `stepper`.
      inputs: what it reads.
      state: where episodes are.
      num_steps: T.
      time_axis: where the buffers have the axis T.

    Returns:
      Leaves [B, T, ...], or [T, B, ...].
    """
    rows = jax.eval_shape(step, jnp.uint32(0), inputs, state)[1]

    def buffer(row):
        shape = (*row.shape[:time_axis], num_steps, *row.shape[time_axis:])
        return jnp.zeros(shape, row.dtype)

    return jax.tree.map(buffer, rows)
