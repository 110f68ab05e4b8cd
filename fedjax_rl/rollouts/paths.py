"""Episodes whose returns can be differentiated through every step that led to them.

Reverse mode keeps the state of every step of an episode, and recomputes what is within a step.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fedjax_rl.learners.observations import joined, nothing_seen
from fedjax_rl.learners.stochastic_policies import Policy
from fedjax_rl.rollouts.engine import Step, Stepper
from fedjax_rl.rollouts.environments import choose
from fedjax_rl.rollouts.episodes import no_returns, play


class Paths(NamedTuple):
    """What came of the N episodes of every agent; leaves [A, N, ...].

    Attributes:
      value: discounted return, of the dtype of the parameters.
      steps: int32.
      observed: `Statistics` of what policies saw, of [A]; () unless asked for.
    """

    value: jax.Array
    steps: jax.Array
    observed: Any


def differentiable_episodes(
    task,
    policy: Policy,
    keys,
    parameters,
    num_episodes: int,
    *,
    environment=None,
    truncation: int | None = None,
    observes: bool = False,
) -> Paths:
    """N episodes of every agent under its own parameters, whose returns have a derivative.

    With the policy's words held fixed an action is a function of parameters and observation, and a
    return one of the parameters. Where an episode ends, and who touches whom, is no part of its
    derivative.

    Args:
      task: an `envs.Task` with a smooth step.
      policy: of all agents, smooth in parameters and observation.
      keys: as of `episodes.sample_trajectories`.
      parameters: float [A, q], or leaves [A, ...] of a policy that takes more.
      num_episodes: N, at least 1.
      environment: parameters of the environments, leaves [A, ...]; None for the task's own.
      truncation: steps after which derivatives are cut, that of step t at every multiple of it;
        None for whole episodes.
      observes: whether to gather what policies see.

    Returns:
      `Paths` of [A, N].
    """
    dtype, encode = jax.tree.leaves(parameters)[0].dtype, jax.vmap(task.encode)

    def memory(size: int):
        seen = nothing_seen(task.observation_size)
        alike = jax.tree.map(lambda x: jnp.broadcast_to(x, (size, *x.shape)), seen)
        return no_returns((size,), dtype), alike if observes else ()

    def note(step: Step, memory, inputs):
        del inputs
        returns, seen = memory
        if observes:
            inputs = jax.lax.stop_gradient(encode(step.observation).astype(jnp.float32))
            one = seen._replace(
                count=step.alive.astype(jnp.float32), mean=inputs, squares=jnp.zeros_like(inputs)
            )
            seen = joined(seen, one)
        return (returns.following(step, task.discount), seen), ()

    around = functools.partial(_smooth, truncation=truncation)
    (returns, seen), steps, _ = play(
        task,
        policy,
        keys,
        parameters,
        num_episodes,
        environment,
        "scan",
        note,
        memory,
        around=around,
    )
    if observes:
        # One episode after the other, in an order that does not depend on who else is there.
        each = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), seen)
        first, rest = (jax.tree.map(part, each) for part in (lambda x: x[0], lambda x: x[1:]))
        seen = jax.lax.scan(lambda one, other: (joined(one, other), None), first, rest)[0]
    return Paths(returns.value, steps, seen)


def _smooth(step: Stepper, truncation: int | None) -> Stepper:
    """A step that can be differentiated: recomputed, cut, and repeated behind the end."""

    def move(t, words, inputs, now):
        if truncation is not None:
            cut = t % jnp.uint32(truncation) == 0
            kept = jax.tree.map(functools.partial(_cut, cut), (now.state, now.observation))
            now = now._replace(state=kept[0], observation=kept[1])
        new, row = step.move(t, words, inputs, now)
        # Behind its end the last step is repeated, which had a derivative. What it does not count
        # for is multiplied by 0, and stepped on, it might be nan.
        state, observation = choose(
            new.alive, (new.state, new.observation), (now.state, now.observation)
        )
        return new._replace(state=state, observation=observation), row

    return dataclasses.replace(step, move=jax.checkpoint(move, prevent_cse=False))


def _cut(cut, leaf):
    if not jnp.issubdtype(leaf.dtype, jnp.inexact):
        return leaf
    return jnp.where(cut, jax.lax.stop_gradient(leaf), leaf)
