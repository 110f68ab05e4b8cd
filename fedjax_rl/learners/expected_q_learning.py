r"""Tabular Q-learning of which every update is its mean: a model of its own, that draws nothing.

With d_t the law of the state of an agent that behaves by pi_t, which may depend on its table,

    d_t(s, a) = d_t(s) pi_t(a | s)
    q(s, a) <- q(s, a) + alpha_t d_t(s, a) (sum_s' P(s' | s, a) (r + discount max_b q(s', b))
                                            - q(s, a))
    d_{t+1}(s') = sum_(s, a) d_t(s, a) P(s' | s, a).

The mean of many sampled runs has this limit for small rates; at rate alpha it differs by O(alpha),
as the mean of a maximum is not the maximum of the mean. Nothing being drawn, derivatives are exact
by whatever decides draws otherwise: behaviour, transitions and first states. Where transitions and
behaviour are deterministic, it is `q_learning.learn`.

Everything here is unbatched; callers vmap. A step costs S U S operations.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from fedjax_rl import backend
from fedjax_rl.learners import tables
from fedjax_rl.learners.behaviours import Behaviour
from fedjax_rl.learners.q_learning import Agent
from fedjax_rl.learners.tabular_steps import Shape


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
    at: Callable = lambda params, time: params,
) -> Agent:
    """So many expected steps of Q-learning on a trajectory.

    Args:
      key: of the agent; not used.
      agent: the agent before; its place is the law of its state, [S].
      params: its properties, those of its behaviour among them: "transition" [S, U, S'], "reward"
        [S, U], the mean over next states, and "discount".
      time: uint32 scalar.
      num_steps: static int or traced integer.
      shape: of the MDP.
      behaviour: how it acts.
      step_size: `(params, visits) -> alpha`, visits counting the update at hand.
      at: as in `q_learning.learn`.

    Returns:
      The agent after. Visits are expected ones; to the update at hand every pair counts as visited
      once more, as it does whenever it is updated.
    """
    del key
    sizes = (shape.num_states, shape.num_actions)
    states = jnp.arange(shape.num_states, dtype=jnp.int32)
    kernel, reward, discount = (params[name] for name in ("transition", "reward", "discount"))

    def laid(values):
        return tables.layout(values.reshape(-1), shape.unrolled)

    def step(i, agent):
        p = at(params, time + jnp.uint32(i))
        q = tables.as_array(agent.table).reshape(sizes)
        policy = jax.vmap(lambda s, row: behaviour.probabilities(s, tuple(row), p))(states, q)
        law = agent.place[:, None] * policy
        # Sums of products: a product of matrices would round differently in other batches.
        target = reward + discount * jnp.sum(kernel * jnp.max(q, axis=1)[None, None], axis=-1)
        counted = tables.is_there(agent.visits)
        visits = tables.as_array(agent.visits).reshape(sizes) if counted else None
        rate = step_size(p, visits + 1 if counted else None) * law
        weight = agent.log_weight
        if tables.is_there(weight):
            # Of what an entry was, the share 1 - rate is left.
            weight = laid(tables.as_array(weight).reshape(sizes) - jnp.log1p(-rate))
        place = jnp.sum(law[:, :, None] * kernel, axis=(0, 1))
        return agent._replace(
            table=laid(q + rate * (target - q)),
            visits=laid(visits + law) if counted else (),
            log_weight=weight,
            # Rows of a kernel sum to one but for rounding, which a million steps add up.
            place=place / jnp.sum(place),
        )

    first = 0 if isinstance(num_steps, int) else jnp.uint32(0)
    return backend.repeat(first, num_steps, step, agent)
