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
      tail: `Tail`, where steps beyond a rollout begin the next one; or ().
    """

    state: Any
    observation: jax.Array
    total: jax.Array
    steps: jax.Array
    scale: Any = ()
    due: Any = ()
    tail: Any = ()


class Tail(NamedTuple):
    """Steps beyond a rollout, at most S of them.

    Attributes:
      count: int32 [G].
      rows: what `roll_out` keeps of a step, leaves [G, S, E, ...]; the first `count` are there.
    """

    count: jax.Array
    rows: tuple


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


def begin(
    task, keys, num_envs: int, *, environment=None, scale: bool, late: bool, tail=None
) -> Crew:
    """The first states of agents.

    Args:
      task: an `envs.Task`.
      keys: typed keys [G].
      num_envs: E.
      environment: parameters of the environments, leaves [G, ...]; the task's own by default.
      scale: whether rewards are going to be divided by the running deviation of the return.
      late: whether they are one step late.
      tail: a batch of one agent as long as a tail may be, leaves [S, E, ...]; None for no tails.
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
        () if tail is None else _no_tail(tail, agents),
    )


def _no_tail(batch: ppo.Batch, agents: int) -> Tail:
    rows = *batch[:4], *_unfinished(batch.value)
    rows = jax.tree.map(lambda x: jnp.broadcast_to(x, (agents, *x.shape)), rows)
    return Tail(jnp.zeros(agents, jnp.int32), rows)


def _unfinished(value) -> tuple:
    """Blank rewards, ends, timeouts and values of last states, like float32 values [..., E]."""
    nothing = jnp.zeros(value.shape, jnp.float32)
    return nothing, nothing > 0, nothing > 0, nothing


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

    An episode is cut off after `task.max_steps` steps, too. With a stale tail an agent goes on for
    up to S steps more until every episode that had begun by then has ended; these steps begin its
    next rollout, which is shorter by them. It is how Einhorn, *Federated Reinforcement Learning
    Has Linear Speedup* (2023), collects.

    Args:
      task: an `envs.Task`.
      policy: a `learners.actor_critic.ActorCritic`.
      keys: typed keys [G] of this rollout; environment e has e folded in, whatever E is.
      parameters: [G, q].
      crew: where the environments are.
      batch: leaves [G, T, E, ...], to be overwritten.
      environment: parameters of the environments, leaves [G, ...], or None for the task's own.
      weights: float32 [G] each: "discount", "gae_lambda", "reward_scale" and
        "normalization_discount".
      settings: has `bootstrap_timeouts`, `reward_normalization`, `reward_alignment`, `normalize`
        and `stale_tail` (S, 0 for none) as attributes.

    Returns:
      The crew after it, the batch with leaves [G, T, E, ...], the episodes that ended.
    """
    worlds = _Environments(task, environment)
    agents, steps, envs = batch.value.shape
    data = jax.random.key_data(_worlds(keys, envs))
    log_prob = jax.vmap(jax.vmap(policy.log_prob, in_axes=(None, 0, 0)))

    def step(t, crew, ended):
        """One step of everybody: the crew and the episodes after it, a row, and who is over."""
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
            looks_ahead = weights["normalization_discount"]
            scale, own_reward = jax.vmap(ppo.scaled_rewards)(scale, reward, over, looks_ahead)
        logs = log_prob(parameters, outputs, action)
        made = crew.observation, action, logs, value
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
        crew = crew._replace(
            state=state,
            observation=observation,
            total=jnp.where(over, 0.0, total),
            steps=jnp.where(over, 0, length),
            scale=scale,
        )
        return crew, ended, (*made, own_reward, terminated, truncated, last_value), over

    ended = jax.tree.map(lambda x: jnp.broadcast_to(x, (agents, *x.shape)), none_ended())
    rows = (*batch[:4], *_unfinished(batch.value))
    if settings.stale_tail:
        crew, ended, rows, count = _with_tail(step, crew, ended, rows, settings.stale_tail)
    else:

        def each(t, carry):
            crew, ended, rows = carry
            crew, ended, row, _ = step(t, crew, ended)

            def put(buffer, new):
                return jax.lax.dynamic_update_index_in_dim(buffer, new, t, 1)

            return crew, ended, jax.tree.map(put, rows, row)

        crew, ended, rows = jax.lax.fori_loop(0, steps, each, (crew, ended, rows))
        count = jnp.full(agents, steps, jnp.int32)
    observation, action, logs, value, *rest = rows
    _, following = jax.vmap(policy.apply)(parameters, crew.observation)
    is_late = settings.reward_alignment == "late"

    def learnable(reward, terminated, truncated, last_value, value, following, due, weights, count):
        """Advantages and targets of one environment, from its rows."""
        reward = reward * weights["reward_scale"]
        last = reward[steps - 1]
        if is_late:
            reward, _ = ppo.late(reward, due)
        discount, trace = ppo.discounts(
            terminated,
            truncated,
            weights["discount"],
            weights["gae_lambda"],
            settings.bootstrap_timeouts,
        )
        after = jnp.concatenate([value[1:], following[None]])
        own = value
        if settings.stale_tail:
            place = jnp.arange(value.shape[0])
            after = jnp.where(place == count - 1, following, after)
            there = place < count
            reward, own, after, trace = (
                jnp.where(there, x, jnp.zeros_like(x)) for x in (reward, value, after, trace)
            )
            last_value = jnp.where(there, last_value, 0.0)
        after = jnp.where(truncated, last_value, after)
        found = ppo.advantages(reward, own, after, discount, trace)
        return found, found + own, last

    due = crew.due if is_late else jnp.zeros((agents, envs), jnp.float32)
    each = jax.vmap(learnable, in_axes=(1, 1, 1, 1, 1, 0, 0, None, None), out_axes=(1, 1, 0))
    found, target, due = jax.vmap(each)(*rest, value, following, due, weights, count)
    if settings.stale_tail:
        left = jax.tree.map(lambda x: x[:, steps:], rows)
        crew = crew._replace(tail=Tail(count - steps, left))
    crew = crew._replace(due=due) if is_late else crew
    batch = ppo.Batch(observation, action, logs, value, found, target)
    batch = jax.tree.map(lambda x: x[:, :steps], batch)
    if settings.normalize == "rollout":
        batch = jax.vmap(ppo.with_normalized_advantage)(batch)
    return crew, batch, ended


def _with_tail(step, crew: Crew, ended: Ended, rows, surplus: int):
    """Steps from the end of the last tail until the episodes of the rollout have ended.

    Args:
      step: of everybody, as `roll_out` has it.
      crew: with its tail.
      ended: of nobody.
      rows: of a rollout, leaves [G, T, E, ...], to be overwritten.
      surplus: S.

    Returns:
      Crew, ended episodes, rows [G, T + S, E, ...] and how many of them are there, int32 [G].
    """
    steps, tail = rows[3].shape[1], crew.tail
    rows = jax.tree.map(lambda old, new: jnp.concatenate([old, new], axis=1), tail.rows, rows)
    crew = crew._replace(tail=())

    def busy(place, waiting):
        return (place < steps) | ((place < steps + surplus) & jnp.any(waiting, axis=1))

    def go_on(carry):
        _, place, waiting, *_ = carry
        return jnp.any(busy(place, waiting))

    def each(carry):
        t, place, waiting, crew, ended, rows = carry
        acting = busy(place, waiting)
        new, now, row, over = step(t, crew, ended)

        def chosen(new, old):
            return jnp.where(acting.reshape(-1, *(1,) * (new.ndim - 1)), new, old)

        # Whoever waits for the others writes its row where the next one comes.
        at = jnp.minimum(place, steps + surplus - 1)
        write = jax.vmap(
            lambda buffer, x, at: jax.lax.dynamic_update_index_in_dim(buffer, x, at, 0)
        )
        kept = jax.vmap(lambda buffer, at: jax.lax.dynamic_index_in_dim(buffer, at, 0, False))
        rows = jax.tree.map(lambda b, x: write(b, chosen(x, kept(b, at)), at), rows, row)
        # An episode that begins behind the last step of the rollout is nobody's business.
        running = jnp.where((place >= steps)[:, None], waiting & ~over, ~over)
        waiting = jnp.where((acting & (place >= steps - 1))[:, None], running, waiting)
        crew, ended = jax.tree.map(chosen, (new, now), (crew, ended))
        return t + 1, place + acting.astype(jnp.int32), waiting, crew, ended, rows

    everybody = jnp.ones(crew.total.shape, bool)
    carry = jnp.int32(0), tail.count, everybody, crew, ended, rows
    _, place, _, crew, ended, rows = jax.lax.while_loop(go_on, each, carry)
    return crew, ended, rows, place


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
