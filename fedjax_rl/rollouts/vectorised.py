"""Vectorised environments that begin anew by themselves: batches of fixed length to learn from.

Axes: `G` agents that are simulated together, `E` environments of each, `T` steps, `S` steps that
may come after them. Environments are stepped together whatever agent they belong to; what few of
them need (a new episode, the value of the last state of an episode that was cut off) is computed
in the steps in which any needs it.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from fedjax_rl import streams
from fedjax_rl.learners import gae, ppo
from fedjax_rl.learners.sight import seen
from fedjax_rl.rollouts import engine
from fedjax_rl.rollouts.batches import (
    Collector,
    Ended,
    Row,
    Running,
    Tail,
    no_tail,
    none_ended,
    rows_of,
)
from fedjax_rl.rollouts.engine import Inputs, RolloutState
from fedjax_rl.rollouts.environments import VectorEnv, choose, key_of, words_at

# Random words that a step takes: the action, the environment, a new episode.
_WORDS = 5


def _vector_env(task) -> VectorEnv:
    # What a reset shows as an integer, a step may show as a fraction.
    return VectorEnv(task, nested=True, dtype=seen(task).dtype)


def _keys_of_environments(keys, num_envs: int):
    """Keys [G] -> a key of every environment, [G, E]."""
    places = jnp.arange(num_envs, dtype=jnp.uint32)
    return streams.fold(keys[:, None], places[None])


def one(tree):
    """Of an agent as of a group of one; None stays None."""
    return jax.tree.map(lambda x: jnp.asarray(x)[None], tree)


def alone(tree):
    """Of a group of one as of an agent."""
    return jax.tree.map(lambda x: x[0], tree)


def begin(
    task, keys, num_envs: int, *, environment=None, scale: bool, late: bool, tail=None
) -> Collector:
    """The first states of agents.

    Args:
      task: an `envs.Task`.
      keys: typed keys [G]; consumed.
      num_envs: E.
      environment: parameters of the environments, leaves [G, ...]; None for the task's own.
      scale: whether rewards are going to be divided by the running deviation of the return.
      late: whether they are one step late.
      tail: a batch of one agent as long as a tail may be, leaves [S, E, ...]; None for no tails.
    """
    environment = () if environment is None else environment
    own = _keys_of_environments(keys, num_envs)
    agents, zeros = len(keys), jnp.zeros(own.shape, jnp.float32)
    alike = jax.tree.map(
        lambda x: jnp.broadcast_to(x, (agents, *x.shape)), gae.reward_scale(num_envs)
    )
    running = Running(zeros, alike if scale else ())
    state = engine.begin(_vector_env(task), own, environment, running)
    return Collector(state, zeros if late else (), () if tail is None else no_tail(tail, agents))


def _acting(policy):
    """`act` of `engine.stepper` for G agents with E environments each."""

    def act(parameters, observation, words):
        outputs, value = jax.vmap(policy.apply)(parameters, observation)
        sample = jax.vmap(policy.sample, in_axes=(None, 0, 0))
        return jax.vmap(sample)(parameters, outputs, words), (outputs, value)

    return act


def _noting(policy, settings):
    """`note` of `engine.stepper`: a `Row`, and what is `Running`."""
    log_prob = jax.vmap(jax.vmap(policy.log_prob, in_axes=(None, 0, 0)))

    def note(step, running, inputs):
        parameters, (outputs, value) = inputs.policy, step.output
        reward = step.reward.astype(jnp.float32)
        # As the environment gave it: what is reported is neither scaled nor clipped.
        total, over = running.undiscounted + reward, step.over
        last_value = jnp.zeros_like(value)
        if settings.bootstrap_timeouts:
            last_value = jax.lax.cond(
                jnp.any(step.truncated),
                lambda: jax.vmap(policy.apply)(parameters, step.next_observation)[1],
                lambda: jnp.zeros_like(value),
            )
        scale, ended = running.scale, running.ended
        if settings.reward_normalization:
            looks_ahead = inputs.note["normalization_discount"]
            scale, reward = jax.vmap(gae.scaled_rewards)(scale, reward, over, looks_ahead)
        logs = log_prob(parameters, outputs, step.action)
        ended = Ended(
            ended.episodes + jnp.sum(over, axis=1, dtype=jnp.float32),
            ended.total + jnp.sum(jnp.where(over, total, 0.0), axis=1),
            ended.steps + jnp.sum(jnp.where(over, step.length, 0), axis=1).astype(jnp.float32),
        )
        row = Row(
            step.observation,
            step.action,
            logs,
            value,
            reward,
            step.terminated,
            step.truncated,
            last_value,
        )
        return Running(jnp.where(over, 0.0, total), scale, ended), row

    return note


def collect(
    task,
    policy,
    keys,
    parameters,
    collector: Collector,
    batch: ppo.Batch,
    *,
    environment,
    weights,
    settings,
) -> tuple[Collector, ppo.Batch, Ended]:
    """T steps of every environment under the policies of their agents, ready to learn from.

    An episode is cut off after `task.max_steps` steps, too. With a stale tail an agent goes on for
    up to S steps more until every episode that had begun by then has ended; these steps begin its
    next rollout, which is shorter by them. It is how Einhorn, *Federated Reinforcement Learning
    Has Linear Speedup* (2023), collects.

    Args:
      task: an `envs.Task`.
      policy: a `learners.actor_critic.ActorCritic`.
      keys: typed keys [G] of this rollout; environment e has e folded in, whatever E is.
      parameters: float32 [G, q], or `Normalizing` of leaves [G, ...].
      collector: where the environments are.
      batch: leaves [G, T, E, ...], to be overwritten.
      environment: parameters of the environments, leaves [G, ...], or None for the task's own.
      weights: float32 [G] each: "discount", "gae_lambda", "reward_scale" and
        "normalization_discount".
      settings: has `bootstrap_timeouts`, `reward_normalization`, `reward_alignment`, `normalize`
        and `stale_tail` (S, 0 for none) as attributes.

    Returns:
      The collector after it, the batch with leaves [G, T, E, ...], the episodes that ended.
    """
    agents, steps, envs = batch.value.shape
    step = engine.stepper(
        _vector_env(task),
        _acting(policy),
        _noting(policy, settings),
        performed=policy.performed,
        begins_anew=task.max_steps,
    )
    own = jax.random.key_data(_keys_of_environments(keys, envs))
    environment = () if environment is None else environment
    inputs = Inputs(parameters, own, environment, weights)
    state = collector.rollout
    ended = jax.tree.map(lambda x: jnp.broadcast_to(x, (agents, *x.shape)), none_ended())
    state = state._replace(memory=state.memory._replace(ended=ended))
    rows = rows_of(batch)
    if settings.stale_tail:
        state, rows, count = _with_tail(step, inputs, state, rows, collector.tail)
    else:
        state, rows = engine.rollout(step, inputs, state, steps, kind="fixed", rows=rows)
        count = jnp.full(agents, steps, jnp.int32)
    ended = state.memory.ended
    state = state._replace(memory=state.memory._replace(ended=()))
    # The one value that no row has: of the observation behind the last step.
    _, following = jax.vmap(policy.apply)(parameters, state.observation)
    is_late = settings.reward_alignment == "late"
    due = collector.due if is_late else jnp.zeros((agents, envs), jnp.float32)
    one = functools.partial(gae.targets, num_steps=steps, settings=settings)
    each = jax.vmap(one, in_axes=(1, 1, 1, 1, 1, 0, 0, None, None), out_axes=(1, 1, 0))
    seen_of_all = *rows[4:], rows.value, following, due, weights, count
    found, target, due = jax.vmap(each)(*seen_of_all)
    collector = collector._replace(rollout=state)
    if settings.stale_tail:
        left = jax.tree.map(lambda x: x[:, steps:], rows)
        collector = collector._replace(tail=Tail(count - steps, left))
    collector = collector._replace(due=due) if is_late else collector
    batch = ppo.Batch(*rows[:4], found, target)
    batch = jax.tree.map(lambda x: x[:, :steps], batch)
    if settings.normalize == "rollout":
        # Of every agent by itself: nobody knows the advantages of the others.
        batch = jax.vmap(ppo.with_normalized_advantage)(batch)
    return collector, batch, ended


def _with_tail(step, inputs: Inputs, state: RolloutState, rows: Row, tail: Tail):
    """Steps from the end of the last tail until the episodes of the rollout have ended.

    Args:
      step: of everybody, as `engine.stepper` makes it.
      inputs: what it reads.
      state: where the environments are.
      rows: of a rollout, leaves [G, T, E, ...], to be overwritten.
      tail: of the rollout before.

    Returns:
      The state, rows [G, T + S, E, ...] and how many of them are there, int32 [G].
    """
    steps, surplus = rows.value.shape[1], tail.rows.value.shape[1]
    rows = jax.tree.map(lambda old, new: jnp.concatenate([old, new], axis=1), tail.rows, rows)

    def busy(place, waiting):
        return (place < steps) | ((place < steps + surplus) & jnp.any(waiting, axis=1))

    def go_on(carry):
        _, place, waiting, *_ = carry
        return jnp.any(busy(place, waiting))

    def each(carry):
        t, place, waiting, state, rows = carry
        acting = busy(place, waiting)
        new, row = step(t, inputs, state)

        # Whoever waits for the others writes its row where the next one comes.
        at = jnp.minimum(place, steps + surplus - 1)
        write = jax.vmap(
            lambda buffer, x, at: jax.lax.dynamic_update_index_in_dim(buffer, x, at, 0)
        )
        kept = jax.vmap(lambda buffer, at: jax.lax.dynamic_index_in_dim(buffer, at, 0, False))
        rows = jax.tree.map(lambda b, x: write(b, choose(acting, x, kept(b, at)), at), rows, row)
        # An episode that begins behind the last step of the rollout is nobody's business.
        over = row.terminated | row.truncated
        running = jnp.where((place >= steps)[:, None], waiting & ~over, ~over)
        waiting = jnp.where((acting & (place >= steps - 1))[:, None], running, waiting)
        state = choose(acting, new, state)
        return t + jnp.uint32(1), place + acting.astype(jnp.int32), waiting, state, rows

    carry = jnp.uint32(0), tail.count, jnp.ones(state.alive.shape, bool), state, rows
    _, place, _, state, rows = jax.lax.while_loop(go_on, each, carry)
    return state, rows, place


def evaluate(task, policy, keys, parameters, num_episodes: int, *, environment=None):
    """How well agents do with their parameters, over so many episodes; actions are drawn.

    Args:
      task: an `envs.Task`.
      policy: a `learners.actor_critic.ActorCritic`.
      keys: typed keys [G]; episode n has n folded in.
      parameters: float32 [G, q], or `Normalizing` of leaves [G, ...].
      num_episodes: at least 1, side by side.
      environment: parameters of the environments, leaves [G, ...]; None for the task's own.

    Returns:
      Mean undiscounted return and mean length, float32 [G].
    """
    env, environment = _vector_env(task), () if environment is None else environment
    keys = _keys_of_environments(keys, num_episodes)
    words = jax.random.key_data(keys)

    def note(step, total, inputs):
        reward = step.reward.astype(jnp.float32)
        return total + jnp.where(step.alive, reward, 0.0), ()

    # The words of step 0 are those of a new episode, which the first step comes after.
    first = key_of(*words_at(words, jnp.uint32(0), 2))
    state = engine.begin(env, first, environment, jnp.zeros(keys.shape, jnp.float32))
    step = engine.stepper(
        env, _acting(policy), note, performed=policy.performed, words=(_WORDS, _WORDS)
    )
    inputs = Inputs(parameters, words, environment)
    state, _ = engine.rollout(step, inputs, state, task.max_steps)
    return jnp.mean(state.memory, axis=1), jnp.mean(state.steps.astype(jnp.float32), axis=1)
