r"""Tabular Q-learning whose actions can be differentiated: `q_learning.learn` with relaxed draws.

Actions and states are vectors of zeros and a one with the derivative of a relaxation
(`draws.relaxed`): the action that is taken, where it leads, what is learned there. Values are those
of `q_learning.learn` on the same words. A step costs S U S operations instead of some U.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from fedjax_rl import streams
from fedjax_rl.learners import draws, tables
from fedjax_rl.learners.behaviours import Behaviour
from fedjax_rl.learners.q_learning import Agent, td_target, words
from fedjax_rl.learners.tabular_steps import Environment, Shape, transition


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
    at: Callable = lambda params, time: params,
    temperature: float = 0.5,
) -> Agent:
    """So many steps of Q-learning on a trajectory.

    Args:
      key: this and all others as in `q_learning.learn`; a stream of its own has the relaxations.
      agent: the agent before, with its place [S].
      params: its properties.
      time: uint32 scalar.
      num_steps: static int or traced integer.
      shape: of the MDP.
      behaviour: with probabilities.
      step_size: as in `q_learning.learn`.
      generator: as in `q_learning.learn`.
      noisy: as in `q_learning.learn`.
      at: as in `q_learning.learn`.
      temperature: of the relaxation.

    Returns:
      The agent after.
    """
    environment = Environment(**{name: params[name] for name in Environment._fields})
    own = jax.random.fold_in(key, streams.Tabular.RELAXED)
    sizes = (shape.num_states, shape.num_actions)
    states, actions = jnp.divmod(jnp.arange(shape.size, dtype=jnp.int32), shape.num_actions)

    def step(i, agent):
        now = time + jnp.uint32(i)
        p = at(params, now)
        q = tables.as_array(agent.table).reshape(sizes)
        row = agent.place @ q
        action, word = behaviour.act(agent.words, agent.state, tuple(row), p)
        chances = draws.positive(behaviour.probabilities(agent.state, tuple(row), p))
        turn = jnp.stack(words(own, now, shape.num_actions, generator))
        act = draws.relaxed(action, jnp.log(chances), turn, temperature)

        # Where each pair would lead with this word, and what it would pay.
        leads, pays = jax.vmap(lambda s, a: transition(environment, shape, s, a, word))(
            states, actions
        )
        here = jnp.outer(agent.place, act).reshape(-1)
        place = here @ jax.nn.one_hot(leads, shape.num_states, dtype=q.dtype)
        r_t = here @ pays
        if noisy:
            r_t = r_t + p["reward_noise"] * streams.normal(agent.words[-1], r_t.dtype)
        target = td_target(r_t, environment.discount, tuple(place @ q))

        index = agent.state * shape.num_actions + action
        counted = tables.is_there(agent.visits)
        visits = tables.add(agent.visits, index, 1) if counted else ()
        alpha = step_size(p, tables.take(visits, index) if counted else None)
        table = q.reshape(-1) + here * (alpha * (target - q.reshape(-1)))
        weight = agent.log_weight
        if tables.is_there(weight):
            weight = tables.as_array(weight) - here * jnp.log1p(-alpha)
            weight = tables.layout(weight, shape.unrolled)
        return agent._replace(
            table=tables.layout(table, shape.unrolled),
            state=jnp.argmax(place).astype(jnp.int32),
            words=words(key, now + jnp.uint32(1), len(agent.words), generator),
            visits=visits,
            log_weight=weight,
            place=place,
        )

    first = 0 if isinstance(num_steps, int) else jnp.uint32(0)
    return jax.lax.fori_loop(first, num_steps, step, agent)
