"""Environments that run side by side and begin anew by themselves: rollouts of fixed length.

Axes: `G` agents that are simulated together, `E` environments of each, `T` steps. Environments are
stepped together whatever agent they belong to; what few of them need (a new episode, the value of
the last state of an episode that was cut off) is computed in the steps in which any needs it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fedjax_rl import streams
from fedjax_rl.learners import ppo
from fedjax_rl.learners.actor_critic import seen

# Random words that a step takes: the action, the environment, a new episode.
_WORDS = 5


class Crew(NamedTuple):
    """Where the environments of agents are; leaves [G, E, ...].

    Attributes:
      state: of the environments.
      observation: what the policy sees next.
      total: float32, rewards of the episode so far, as the environment gave them.
      steps: int32, of the episode so far.
      scale: `ppo.RewardScale` [G, ...], or () where rewards are not scaled.
      due: float32, the last reward, where rewards are one step late; or ().
    """

    state: Any
    observation: jax.Array
    total: jax.Array
    steps: jax.Array
    scale: Any = ()
    due: Any = ()


class Ended(NamedTuple):
    """The episodes that ended in a rollout; [G].

    Attributes:
      episodes: float32, their number.
      total: float32, sum of their undiscounted returns.
      steps: float32, sum of their lengths.
    """

    episodes: jax.Array
    total: jax.Array
    steps: jax.Array


def none_ended() -> Ended:
    """Before the first rollout, of one agent."""
    return Ended(*(jnp.zeros((), jnp.float32) for _ in Ended._fields))


def empty_batch(task, policy, num_envs: int, num_steps: int) -> ppo.Batch:
    """Zeros of the shape of one agent's rollout, [T, E, ...].

    Observations have the dtype that the environment gives them.
    """
    size, view = (num_steps, num_envs), seen(task)
    drawn = jax.eval_shape(
        policy.actions.sample,
        jax.ShapeDtypeStruct((policy.actions.outputs,), jnp.float32),
        jax.ShapeDtypeStruct((policy.actions.own,), jnp.float32),
        jax.ShapeDtypeStruct((), jnp.uint32),
    )
    number = jnp.zeros(size, jnp.float32)
    return ppo.Batch(
        jnp.zeros((*size, *view.shape), view.dtype),
        jnp.zeros((*size, *drawn.shape), drawn.dtype),
        *(number for _ in range(4)),
    )


def _worlds(keys, num_envs: int):
    """Keys [G] -> a key of every environment, [G, E]."""
    places = jnp.arange(num_envs, dtype=jnp.uint32)
    fold = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
    return jax.vmap(fold, in_axes=(0, None))(keys, places)


class _Environments:
    """The environments of G agents, stepped together."""

    def __init__(self, task, environment):
        """Takes the parameters of the environments, leaves [G, ...]; None for the task's own."""
        self.task, self.dtype = task, seen(task).dtype
        self.own = task.params if environment is None else environment
        self.axis = None if environment is None else 0

    def reset(self, keys):
        """Observations and states [G, E, ...] of new episodes from keys [G, E]."""
        reset = jax.vmap(self.task.env.reset, in_axes=(0, None))
        observation, state = jax.vmap(reset, in_axes=(0, self.axis))(keys, self.own)
        return observation.astype(self.dtype), state

    def step(self, keys, state, action):
        """What `env.step` returns, but for `info`; leaves [G, E, ...]."""
        step = jax.vmap(self.task.env.step, in_axes=(0, 0, 0, None))
        step = jax.vmap(step, in_axes=(0, 0, 0, self.axis))
        observation, state, reward, terminated, truncated, _ = step(keys, state, action, self.own)
        reward = reward.astype(jnp.float32)
        return observation.astype(self.dtype), state, reward, terminated, truncated


def begin(task, keys, num_envs: int, *, environment=None, scale: bool, late: bool) -> Crew:
    """The first states of agents.

    Args:
      task: an `envs.Task`.
      keys: typed keys [G].
      num_envs: E.
      environment: parameters of the environments, leaves [G, ...]; the task's own by default.
      scale: whether rewards are going to be divided by the running deviation of the return.
      late: whether they are one step late.
    """
    observation, state = _Environments(task, environment).reset(_worlds(keys, num_envs))
    zeros = jnp.zeros(observation.shape[:2], jnp.float32)
    agents = observation.shape[0]
    alike = jax.tree.map(
        lambda x: jnp.broadcast_to(x, (agents, *x.shape)), ppo.reward_scale(num_envs)
    )
    return Crew(
        state,
        observation,
        zeros,
        jnp.zeros(zeros.shape, jnp.int32),
        alike if scale else (),
        zeros if late else (),
    )


def _act(policy, parameters, observation, words):
    """Actions, their outputs and values of G agents, [G, E, ...]."""
    outputs, value = jax.vmap(policy.apply)(parameters, observation)
    sample = jax.vmap(policy.sample, in_axes=(None, 0, 0))
    return jax.vmap(sample)(parameters, outputs, words), outputs, value


def _choose(condition, new, old):
    """Whole environments: `condition` [G, E], leaves [G, E, ...]."""

    def leaf(new, old):
        return jnp.where(condition.reshape(*condition.shape, *(1,) * (new.ndim - 2)), new, old)

    return jax.tree.map(leaf, new, old)


def _words(data, place, count: int):
    """So many words of every stream [G, E], from a place on."""
    word = jax.vmap(jax.vmap(streams.threefry, in_axes=(0, None)), in_axes=(0, None))
    return [word(data, place + jnp.uint32(n)) for n in range(count)]


def _key(first, second):
    return jax.random.wrap_key_data(
        jnp.stack([first, second], axis=-1), impl=streams.IMPLEMENTATION
    )


def roll_out(
    task, policy, keys, parameters, crew: Crew, batch: ppo.Batch, *, environment, weights, settings
) -> tuple[Crew, ppo.Batch, Ended]:
    """T steps of every environment under the policies of their agents, ready to learn from.

    An episode is cut off after `task.max_steps` steps, too.

    Args:
      task: an `envs.Task`.
      policy: a `learners.actor_critic.ActorCritic`.
      keys: typed keys [G] of this rollout; environment e has e folded in, whatever E is.
      parameters: [G, q].
      crew: where the environments are.
      batch: leaves [G, T, E, ...], to be overwritten.
      environment: parameters of the environments, leaves [G, ...], or None for the task's own.
      weights: float32 [G] each: "discount", "gae_lambda", "reward_scale".
      settings: has `bootstrap_timeouts`, `reward_normalization`, `reward_alignment` and
        `normalize` as attributes.

    Returns:
      The crew after it, the batch with leaves [G, T, E, ...], the episodes that ended.
    """
    worlds = _Environments(task, environment)
    steps, envs = batch.value.shape[1:]
    data = jax.random.key_data(_worlds(keys, envs))
    log_prob = jax.vmap(jax.vmap(policy.log_prob, in_axes=(None, 0, 0)))

    def step(t, carry):
        crew, ended, batch, rest = carry
        choice, *own = _words(data, jnp.uint32(_WORDS) * t.astype(jnp.uint32), _WORDS)
        action, outputs, value = _act(policy, parameters, crew.observation, choice)
        observation, state, reward, terminated, truncated = worlds.step(
            _key(*own[:2]), crew.state, policy.performed(action)
        )
        length, total = crew.steps + 1, crew.total + reward
        truncated = (truncated | (length >= task.max_steps)) & ~terminated
        over = terminated | truncated
        last_value = jnp.zeros_like(value)
        if settings.bootstrap_timeouts:
            last_value = jax.lax.cond(
                jnp.any(truncated),
                lambda: jax.vmap(policy.apply)(parameters, observation)[1],
                lambda: jnp.zeros_like(value),
            )
        scale, own_reward = crew.scale, reward
        if settings.reward_normalization:
            scale, own_reward = jax.vmap(ppo.scaled_rewards)(scale, reward, over)
        made = (
            crew.observation,
            action,
            log_prob(parameters, outputs, action),
            value,
        )
        more = (own_reward, terminated, truncated, last_value)

        def put(buffer, new):
            return jax.lax.dynamic_update_index_in_dim(buffer, new, t, 1)

        batch = jax.tree.map(put, batch, made)
        rest = jax.tree.map(put, rest, more)
        ended = Ended(
            ended.episodes + jnp.sum(over, axis=1, dtype=jnp.float32),
            ended.total + jnp.sum(jnp.where(over, total, 0.0), axis=1),
            ended.steps + jnp.sum(jnp.where(over, length, 0), axis=1).astype(jnp.float32),
        )
        observation, state = jax.lax.cond(
            jnp.any(over),
            lambda: _choose(over, worlds.reset(_key(*own[2:])), (observation, state)),
            lambda: (observation, state),
        )
        crew = Crew(
            state,
            observation,
            jnp.where(over, 0.0, total),
            jnp.where(over, 0, length),
            scale,
            crew.due,
        )
        return crew, ended, batch, rest

    nothing = jnp.zeros(batch.value.shape, jnp.float32)
    rest = (nothing, nothing > 0, nothing > 0, nothing)
    start = jax.tree.map(
        lambda x: jnp.broadcast_to(x, (batch.value.shape[0], *x.shape)), none_ended()
    )
    carry = crew, start, tuple(batch[:4]), rest
    crew, ended, made, rest = jax.lax.fori_loop(0, steps, step, carry)
    observation, action, logs, value = made
    _, following = jax.vmap(policy.apply)(parameters, crew.observation)

    def learnable(reward, terminated, truncated, last_value, value, following, due, weights):
        """Advantages and targets of one environment, [T]."""
        reward = reward * weights["reward_scale"]
        if settings.reward_alignment == "late":
            reward, due = ppo.late(reward, due)
        discount, trace = ppo.discounts(
            terminated,
            truncated,
            weights["discount"],
            weights["gae_lambda"],
            settings.bootstrap_timeouts,
        )
        after = jnp.concatenate([value[1:], following[None]])
        after = jnp.where(truncated, last_value, after)
        found = ppo.advantages(reward, value, after, discount, trace)
        return found, found + value, due

    is_late = settings.reward_alignment == "late"
    due = crew.due if is_late else nothing[:, 0]
    each = jax.vmap(learnable, in_axes=(1, 1, 1, 1, 1, 0, 0, None), out_axes=(1, 1, 0))
    found, target, due = jax.vmap(each)(*rest, value, following, due, weights)
    crew = crew._replace(due=due) if is_late else crew
    if settings.normalize == "rollout":
        found = jax.vmap(ppo.normalized)(found)
    return crew, ppo.Batch(observation, action, logs, value, found, target), ended


def evaluate(task, policy, keys, parameters, num_episodes: int, *, environment=None):
    """How well agents do with their parameters, over so many episodes; actions are drawn.

    Args:
      task: an `envs.Task`.
      policy: a `learners.actor_critic.ActorCritic`.
      keys: typed keys [G]; episode n has n folded in.
      parameters: [G, q].
      num_episodes: at least 1, side by side.
      environment: parameters of the environments, leaves [G, ...]; the task's own by default.

    Returns:
      Mean undiscounted return and mean length, float32 [G].
    """
    worlds = _Environments(task, environment)
    keys = _worlds(keys, num_episodes)
    data = jax.random.key_data(keys)
    observation, state = worlds.reset(_key(*_words(data, jnp.uint32(0), 2)))
    nothing = jnp.zeros(keys.shape, jnp.float32)

    def go_on(carry):
        t, alive, *_ = carry
        return jnp.any(alive) & (t < task.max_steps)

    def step(carry):
        t, alive, observation, state, total, steps = carry
        place = jnp.uint32(_WORDS) * (t.astype(jnp.uint32) + jnp.uint32(1))
        choice, *own = _words(data, place, 3)
        action, _, _ = _act(policy, parameters, observation, choice)
        observation, state, reward, terminated, truncated = worlds.step(
            _key(*own), state, policy.performed(action)
        )
        total = total + jnp.where(alive, reward, 0.0)
        steps = steps + alive.astype(jnp.float32)
        return t + 1, alive & ~(terminated | truncated), observation, state, total, steps

    carry = jnp.int32(0), nothing == 0, observation, state, nothing, nothing
    *_, total, steps = jax.lax.while_loop(go_on, step, carry)
    return jnp.mean(total, axis=1), jnp.mean(steps, axis=1)
