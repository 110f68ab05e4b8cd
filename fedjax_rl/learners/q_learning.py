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
import numpy as np

from fedjax_rl import rounding, streams
from fedjax_rl.learners import draws, tables

# Thresholds have 31 bits, so that "always" (2^31) is above every word of 31 bits.
_CERTAIN = 2.0**31


class Agent(NamedTuple):
    """What an agent carries between steps.

    Attributes:
      table: its estimates, a table of S*U entries.
      state: the state its environment is in, int32 scalar.
      words: the random words of its next step, from `words`.
      visits: a table counting the updates of every entry, or () where nobody asks.
      log_weight: a table of -sum log(1 - alpha_t) over the updates of every entry since the last
        exchange, for importance aggregation; or ().
      drawn: scalar 0 whose derivative is that of the log-probability of all its actions; or ().
      place: [S], its state as a vector of zeros and a one, where that has a derivative; or ().
    """

    table: object
    state: jax.Array
    words: tuple
    visits: object = ()
    log_weight: object = ()
    drawn: object = ()
    place: object = ()


class Environment(NamedTuple):
    """A tabular MDP as the learner's inner loop wants it.

    Attributes:
      thresholds: table of S*U*(S-1) words: cumulative transition probabilities in units of 2^-31.
      reward: table of the rewards, over those of (s, a, s') that they depend on.
      discount: scalar.
      initial_state: int32 scalar.
    """

    thresholds: object
    reward: object
    discount: jax.Array
    initial_state: jax.Array


class Shape(NamedTuple):
    """The static facts about an MDP that shape the program.

    Attributes:
      num_states: S.
      num_actions: U.
      reward: extents of the reward over (s, a, s'), each 1 or full.
    """

    num_states: int
    num_actions: int
    reward: tuple[int, int, int]

    @property
    def size(self) -> int:
        """Entries of a table, S*U."""
        return self.num_states * self.num_actions

    @property
    def unrolled(self) -> bool:
        """Whether tables are tuples of scalars rather than arrays."""
        return self.size <= tables.LARGEST_UNROLLED


def thresholds(probabilities) -> np.ndarray:
    """Cumulative probabilities as words: outcome j is drawn when the word passes j of them.

    Args:
      probabilities: [..., n], rows summing to one, on the host.

    Returns:
      uint32 [..., n-1], in units of 2^-31 so that impossible outcomes are never drawn.
    """
    cumulative = np.cumsum(np.asarray(probabilities, np.float64), axis=-1)[..., :-1]
    # Rounding may leave the sum of a row below one; the tail then belongs to the last outcome
    # of positive probability, not to the last one.
    tail = np.flip(np.cumsum(np.flip(probabilities, -1), -1), -1)[..., 1:] <= 0
    cumulative = np.where(tail, 1.0, cumulative)
    return np.minimum(np.round(cumulative * _CERTAIN), _CERTAIN).astype(np.uint32)


def outcome(word, bounds) -> jax.Array:
    """The outcome a word stands for: how many of the `thresholds` it reaches, int32 scalar."""
    fraction = word >> jnp.uint32(1)
    # A single outcome has no bounds, and is an int32 in double precision, too.
    return sum(((fraction >= bound).astype(jnp.int32) for bound in bounds), start=jnp.int32(0))


def outcome_of_row(word, bounds) -> jax.Array:
    """The same for bounds in an array [n - 1], which may be long."""
    return jnp.sum((word >> jnp.uint32(1)) >= jnp.asarray(bounds), dtype=jnp.int32)


def transition(environment: Environment, shape: Shape, state, action, word):
    """One step of the MDP.

    Returns:
      The next state, int32 scalar, and the reward.
    """
    bounds = tables.take_row(
        environment.thresholds, state * shape.num_actions + action, shape.num_states - 1
    )
    next_state = outcome(word, bounds)
    index = jnp.int32(0)
    for extent, at in zip(shape.reward, (state, action, next_state), strict=True):
        index = index * extent + at if extent > 1 else index
    return next_state, tables.take(environment.reward, index)


def td_target(r_t, discount_t, q_t):
    """r_t + discount_t max_b q_t(b), with `q_t` the row of the next state."""
    return r_t + discount_t * functools.reduce(jnp.maximum, q_t)


class Behaviour(NamedTuple):
    """How actions are chosen.

    Attributes:
      num_words: random words an action and the transition after it take together.
      act: `(words, state, row, params) -> (action, word left for the transition)`.
      uses_table: whether actions depend on what is learned, which makes the trajectory, and so
        every gradient through it, depend on the parameters.
      probabilities: `(row, params) -> [U]`, of every action, where these are differentiable; None
        where they are not, or nobody asks.
    """

    num_words: int
    act: Callable
    uses_table: bool
    probabilities: Callable | None = None


def uniform_behaviour(shape: Shape) -> Behaviour:
    """Every action alike; one word serves the action and the transition."""

    def act(words, state, row, params):
        return streams.scaled(words[0], shape.num_actions)

    return Behaviour(1, act, False)


def fixed_behaviour(shape: Shape) -> Behaviour:
    """A given policy: `params["policy"]` is a table of its `thresholds`, S*(U-1) words."""

    def act(words, state, row, params):
        bounds = tables.take_row(params["policy"], state, shape.num_actions - 1)
        return outcome(words[0], bounds), words[1]

    return Behaviour(2, act, False)


def softmax_behaviour(shape: Shape) -> Behaviour:
    """Softmax of `beta` times the row with probability 1 - epsilon, uniform otherwise.

    The mixture is drawn with one word, by inversion; `epsilon` 0 is the behaviour that the linear
    speedup paper calls epsilon = 0.
    """

    def act(words, state, row, params):
        epsilon, beta = params["epsilon"], params["beta"]
        top = functools.reduce(jnp.maximum, row)
        # Less the largest: nothing overflows, and the sum is at least 1.
        weights = [jnp.exp(beta * (value - top)) for value in row]
        total = functools.reduce(jnp.add, weights)
        # Comparing with unnormalised sums saves the division.
        level = streams.uniform(words[0], total.dtype) * total
        explore = epsilon * total / shape.num_actions
        action, cumulative = jnp.int32(0), jnp.zeros_like(total)
        # The last action is what is left: no rounding of the sum leaves a word without one.
        for weight in weights[:-1]:
            cumulative = cumulative + (explore + (1 - epsilon) * weight)
            action = action + (level >= cumulative).astype(jnp.int32)
        return action, words[1]

    def probabilities(row, params):
        epsilon = params["epsilon"]
        greedy = jax.nn.softmax(params["beta"] * jnp.stack(row))
        return epsilon / shape.num_actions + (1 - epsilon) * greedy

    return Behaviour(2, act, True, probabilities)


def greedy_behaviour(shape: Shape) -> Behaviour:
    """The first of the best actions with probability 1 - epsilon, uniform otherwise.

    Which are the best, `rounding.best_of` says.
    """

    def act(words, state, row, params):
        best = jnp.int32(0)
        # Backwards, so that the first of the best is what stays.
        for i, equal in reversed(list(enumerate(rounding.best_of(row)))):
            best = jnp.where(equal, jnp.int32(i), best)
        epsilon = params["epsilon"]
        level = streams.uniform(words[0], epsilon.dtype)
        # Below epsilon the word is a fraction of epsilon, uniform again after rescaling.
        spread = (level * shape.num_actions / jnp.maximum(epsilon, 2.0**-24)).astype(jnp.int32)
        spread = jnp.minimum(spread, shape.num_actions - 1)
        return jnp.where(level < epsilon, spread, best), words[1]

    return Behaviour(2, act, True)


def _kept(table) -> bool:
    """Whether something optional is there; what is absent is the empty tuple."""
    return not isinstance(table, tuple) or len(table) > 0


def words(key, time, count: int, generator: Callable = streams.threefry) -> tuple:
    """The `count` random words of the step at `time` (uint32 scalar) from an agent's stream."""
    data = jax.random.key_data(key)
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

    Returns:
      The agent after.
    """
    given = params
    environment = Environment(**{name: params[name] for name in Environment._fields})

    def flush(agent, pending):
        index, value, amount = pending
        return agent._replace(
            table=tables.put(agent.table, index, value),
            visits=tables.add(agent.visits, index, 1) if _kept(agent.visits) else (),
            log_weight=(
                tables.add(agent.log_weight, index, amount) if _kept(agent.log_weight) else ()
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
        if _kept(agent.drawn):
            chance = draws.positive(behaviour.probabilities(row, params)[action])
            agent = agent._replace(drawn=agent.drawn + draws.score(jnp.log(chance)))
        next_state, r_t = transition(environment, shape, state, action, word)
        if noisy:
            r_t = r_t + params["reward_noise"] * streams.normal(agent.words[-1], r_t.dtype)
        q_t = tables.take_row(agent.table, next_state, shape.num_actions)
        index = state * shape.num_actions + action
        visits = tables.take(agent.visits, index) + 1 if _kept(agent.visits) else None
        alpha = step_size(params, visits)
        # Of an array the row has been gathered above, and a gather is what costs.
        q_tm1 = tables.take(agent.table, index) if shape.unrolled else tables.take(row, action)
        value = q_tm1 + alpha * (td_target(r_t, environment.discount, q_t) - q_tm1)
        # The powers of 1 / (1 - alpha) of arXiv 2305.10697 overflow between rare exchanges.
        amount = -jnp.log1p(-alpha) if _kept(agent.log_weight) else ()
        pending = (index, value, amount)
        ahead = words(key, now + jnp.uint32(1), len(agent.words), generator)
        return agent._replace(state=next_state, words=ahead), pending

    def step(i, carry):
        return act(i, flush(*carry))

    # An index past the end: the first flush changes nothing.
    nothing = (jnp.int32(shape.size), jnp.zeros_like(tables.take(agent.table, 0)))
    amount = jnp.zeros_like(nothing[1]) if _kept(agent.log_weight) else ()
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
        carry = jax.lax.fori_loop(one, num_steps, step, carry)
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
        visits = tables.as_array(agent.visits) + 1 if _kept(agent.visits) else None
        alpha = step_size(own_params, visits)

        def laid(values):
            values = jnp.broadcast_to(values, (shape.size,))
            return tables.layout(values, shape.unrolled)

        weight = tables.as_array(agent.log_weight) if _kept(agent.log_weight) else None
        return agent._replace(
            table=laid(q + alpha * (target - q)),
            visits=() if visits is None else laid(visits),
            log_weight=() if weight is None else laid(weight - jnp.log1p(-alpha)),
        )

    first = 0 if isinstance(num_steps, int) else jnp.uint32(0)
    return jax.lax.fori_loop(first, num_steps, step, agent)
