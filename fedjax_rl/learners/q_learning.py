r"""Tabular Q-learning of one agent on one trajectory, by equations.

    q(s_t, a_t) <- q(s_t, a_t) + alpha_t (r_{t+1} + discount max_b q(s_{t+1}, b) - q(s_t, a_t))

(Watkins and Dayan, *Q-learning*, 1992). Everything here is unbatched; callers vmap. A table is
indexed by `s U + a` and laid out as `fedjax_rl.learners.tables` describes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_rl import backend, streams
from fedjax_rl.learners import draws, tables
from fedjax_rl.learners.behaviours import Behaviour
from fedjax_rl.learners.tabular_steps import Environment, Shape, transition


class Agent(NamedTuple):
    """What an agent carries between steps.

    Attributes:
      table: its estimates, a table of S*U entries.
      state: the state its environment is in, int32 scalar; or () where nothing is drawn.
      words: the random words of its next step, from `words`.
      visits: a table counting the updates of every entry, or () where nobody asks.
      log_weight: a table of -sum log(1 - alpha_t) over the updates of every entry since the last
        exchange, for importance aggregation; or ().
      drawn: scalar 0 whose derivative is that of the log-probability of all its actions; or ().
      place: [S], its state as a vector of zeros and a one, where that has a derivative; its law,
        where nothing is drawn; or ().
    """

    table: object
    state: jax.Array
    words: tuple
    visits: object = ()
    log_weight: object = ()
    drawn: object = ()
    place: object = ()


def td_target(r_t, discount_t, q_t):
    """r_t + discount_t max_b q_t(b), with `q_t` the row of the next state."""
    return r_t + discount_t * functools.reduce(jnp.maximum, q_t)


def words(key, time, count: int, generator: Callable = streams.threefry) -> tuple:
    """The `count` random words of the step at `time` (uint32 scalar) from an agent's stream.

    The key is a typed one; in a kernel, which has no such thing, the pair of its words.
    """
    data = key if isinstance(key, tuple) else jax.random.key_data(key)
    first = time * jnp.uint32(count)
    return tuple(generator((data[0], data[1]), first + jnp.uint32(i)) for i in range(count))


def learn(
    key,
    agent: Agent,
    params,
    time,
    num_steps,
    *,
    shape: Shape,
    behaviour: Behaviour,
    step_size: Callable,
    generator: Callable = streams.threefry,
    noisy: bool = False,
    anywhere: bool = False,
    at: Callable = lambda params, time: params,
    loop: Callable = jax.lax.fori_loop,
) -> Agent:
    r"""So many steps of Q-learning from step `time` on.

    The loop carries the *pending write*: the table without its last update, and that update as
    (index, value). Were the update applied to every entry where it is computed, XLA would
    recompute the target, random numbers included, in each of the S*U outputs; a carried value is
    computed exactly once. For the same reason the random words of a step are drawn one step
    ahead, and the agent keeps those of the next step.

    Args:
      key: typed key of the agent; read by counter from `time`, not consumed.
      agent: the agent before.
      params: its properties: the fields of `Environment`, those of its behaviour, and
        `reward_noise`.
      time: uint32 scalar.
      num_steps: static int or traced integer.
      shape: of the MDP.
      behaviour: how it acts.
      step_size: `(params, visits) -> alpha`, visits counting the update at hand.
      generator: one of `streams.GENERATORS`.
      noisy: whether rewards carry Gaussian noise of standard deviation
        `params["reward_noise"]`.
      anywhere: whether every step is from a state drawn uniformly, with the first of its words,
        rather than from where the last one led.
      at: `(params, time) -> params`, with the properties that follow time as they are at a step.
      loop: as `jax.lax.fori_loop`, what a traced number of steps is made with.

    Returns:
      The agent after.
    """
    given = params
    environment = Environment(**{name: params[name] for name in Environment._fields})

    def flush(agent, pending):
        index, value, amount = pending
        return agent._replace(
            table=tables.put(agent.table, index, value),
            visits=tables.add(agent.visits, index, 1) if tables.is_there(agent.visits) else (),
            log_weight=(
                tables.add(agent.log_weight, index, amount)
                if tables.is_there(agent.log_weight)
                else ()
            ),
        )

    def act(i, agent):
        """The agent after acting at step `i`, and the update it has yet to write."""
        now = time + i
        params = at(given, now)
        state, own = agent.state, agent.words
        if anywhere:
            state, own = streams.scaled(own[0], shape.num_states)[0], own[1:]
        row = tables.take_row(agent.table, state, shape.num_actions)
        action, word = behaviour.act(own, state, row, params)
        if tables.is_there(agent.drawn):
            chance = draws.positive(behaviour.probabilities(state, row, params)[action])
            agent = agent._replace(drawn=agent.drawn + draws.score(jnp.log(chance)))
        next_state, r_t = transition(environment, shape, state, action, word)
        if noisy:
            r_t = r_t + params["reward_noise"] * streams.normal(agent.words[-1], r_t.dtype)
        q_t = tables.take_row(agent.table, next_state, shape.num_actions)
        index = state * shape.num_actions + action
        visits = tables.take(agent.visits, index) + 1 if tables.is_there(agent.visits) else None
        alpha = step_size(params, visits)
        # Of an array the row has been gathered above, and a gather is what costs.
        q_tm1 = tables.take(agent.table, index) if shape.unrolled else tables.take(row, action)
        value = q_tm1 + alpha * (td_target(r_t, environment.discount, q_t) - q_tm1)
        # The powers of 1 / (1 - alpha) of arXiv 2305.10697 overflow between rare exchanges.
        amount = -jnp.log1p(-alpha) if tables.is_there(agent.log_weight) else ()
        pending = (index, value, amount)
        ahead = words(key, now + jnp.uint32(1), len(agent.words), generator)
        return agent._replace(state=next_state, words=ahead), pending

    def step(i, carry):
        return act(i, flush(*carry))

    # An index past the end: the first flush changes nothing.
    nothing = (jnp.int32(shape.size), jnp.zeros_like(tables.take(agent.table, 0)))
    amount = jnp.zeros_like(nothing[1]) if tables.is_there(agent.log_weight) else ()
    carry = (agent, (*nothing, amount))
    if isinstance(num_steps, int):
        # A scan, hence differentiable in reverse; never unrolled, the fusions would explode.
        carry = jax.lax.fori_loop(0, num_steps, lambda i, c: step(jnp.uint32(i), c), carry)
    else:
        # The first step has nothing to write before it. It is a loop of its own, not straight
        # code, so that what it computes is carried too; where an exchange follows every step it
        # is all there is, and saves a pass over the table.
        one = jnp.uint32(1)
        carry = jax.lax.fori_loop(
            jnp.uint32(0), jnp.minimum(num_steps, one), lambda i, carry: act(i, carry[0]), carry
        )
        carry = loop(one, num_steps, step, carry)
    return flush(*carry)


def learn_everywhere(
    key,
    agent: Agent,
    params,
    time,
    num_steps,
    *,
    shape: Shape,
    step_size: Callable,
    generator: Callable = streams.threefry,
    noisy: bool = False,
    at: Callable = lambda params, time: params,
) -> Agent:
    """So many steps of synchronous Q-learning: in each, every pair (s, a) learns from a sample.

    Args:
      key: this and all others as in `learn`. In step t the pair (s, a) has word
        `t S U + s U + a`, or with noise the two from twice that on.
      agent: the agent before.
      params: its properties.
      time: uint32 scalar.
      num_steps: static int or traced integer.
      shape: of the MDP.
      step_size: as in `learn`.
      generator: as in `learn`.
      noisy: as in `learn`.
      at: as in `learn`.

    Returns:
      The agent after; its state is where it was.
    """
    environment = Environment(**{name: params[name] for name in Environment._fields})
    states, actions = jnp.divmod(jnp.arange(shape.size, dtype=jnp.int32), shape.num_actions)
    per_pair = 1 + noisy

    def sampled(state, action, words, q, noise):
        next_state, r_t = transition(environment, shape, state, action, words[0])
        if noisy:
            r_t = r_t + noise * streams.normal(words[-1], r_t.dtype)
        return td_target(r_t, environment.discount, q[next_state])

    def step(i, agent):
        now = time + jnp.uint32(i)
        own_params = at(params, now)
        turns = now * jnp.uint32(shape.size) + jnp.arange(shape.size, dtype=jnp.uint32)
        own = jax.vmap(lambda turn: jnp.stack(words(key, turn, per_pair, generator)))(turns)
        # Nothing is pending here: every entry is written in every step anyway.
        q = tables.as_array(agent.table)
        rows = q.reshape(shape.num_states, shape.num_actions)
        noise = own_params["reward_noise"] if noisy else None
        target = jax.vmap(sampled, (0, 0, 0, None, None))(states, actions, own, rows, noise)
        visits = tables.as_array(agent.visits) + 1 if tables.is_there(agent.visits) else None
        alpha = step_size(own_params, visits)

        def laid(values):
            values = jnp.broadcast_to(values, (shape.size,))
            return tables.layout(values, shape.unrolled)

        weight = tables.as_array(agent.log_weight) if tables.is_there(agent.log_weight) else None
        return agent._replace(
            table=laid(q + alpha * (target - q)),
            visits=() if visits is None else laid(visits),
            log_weight=() if weight is None else laid(weight - jnp.log1p(-alpha)),
        )

    first = 0 if isinstance(num_steps, int) else jnp.uint32(0)
    return backend.repeat(first, num_steps, step, agent)
