"""What federated Q-learning makes of its environment before the program runs."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from fedjax_rl.envs import optimal
from fedjax_rl.envs.families import average_mdp
from fedjax_rl.envs.tabular import TabularMDP
from fedjax_rl.fields import is_concrete
from fedjax_rl.learners import tables, tabular_steps
from fedjax_rl.remembered import remembered


def shape_of(mdp: TabularMDP) -> tabular_steps.Shape:
    """The static shape of an MDP, of a family too."""
    return tabular_steps.Shape(mdp.num_states, mdp.num_actions, tuple(mdp.reward.shape[-3:]))


def prepared(mdp: TabularMDP, discount, expected: bool = False) -> dict:
    """What the program wants of an MDP; once for all federations, so that leaves stay shared.

    Args:
      mdp: one, or a family.
      discount: for learning; None for the MDP's.
      expected: whether nothing is drawn from it.

    Returns:
      "own", the fields of `tabular_steps.Environment` and, where first states are drawn, "start";
      if nothing is drawn, what `expected_q_learning` wants, and "start" [S], the law of the first
      state. "family", whether these lead with the agents; "reference", q* as a table; "offset",
      what is subtracted from every value.
    """
    # Not where it is traced: a tracer must not outlive its trace.
    if is_concrete(mdp) and (discount is None or isinstance(discount, int | float)):
        return _remembered(mdp, discount, expected)
    return _derived(mdp, discount, expected)


def _derived(mdp: TabularMDP, discount, expected: bool) -> dict:
    """What `prepared` returns.

    In float32 an update below the spacing of floats at |q| is lost, which biases small learning
    rates. Tables therefore hold q - c with the constant c = mean of q*, learned from rewards
    r - (1 - discount) c: the same algorithm in exact arithmetic.
    """
    _check_known(mdp, expected)
    xp = np if is_concrete(mdp) and is_concrete(discount) else jnp
    learning = mdp.discount if discount is None else discount
    optimum = optimal.optimal_split(centre(mdp))
    middle = xp.mean(optimum.apart)
    # A family has one discount: `average_mdp` refuses others.
    first = mdp.discount if np.ndim(mdp.discount) == 0 else mdp.discount.reshape(-1)[0]
    # Level and differences apart: near a discount of 1 the level would take all their digits.
    offset = optimum.gain / (1 - first) + middle
    learning = xp.broadcast_to(xp.asarray(learning, float), np.shape(mdp.discount))
    own = _laws(xp, mdp, learning, offset) if expected else _draws(xp, mdp, learning, offset)
    return {
        "own": own,
        "family": mdp.transition.ndim > 3,
        "reference": tables.layout((optimum.apart - middle).reshape(-1), shape_of(mdp).unrolled),
        "offset": xp.asarray(offset, float),
    }


_remembered = remembered(256)(_derived)


def _check_known(mdp: TabularMDP, expected: bool) -> None:
    """Refuses tracers in what is drawn from, or counts."""
    for name, drawn in {"transition": "next", "initial_distribution": "first"}.items():
        if not expected and not is_concrete(getattr(mdp, name)):
            raise ValueError(
                f"mdp.{name} is traced: {drawn} states are sampled from it, and sampling has no "
                "derivative; differentiate with respect to rewards, rates, weights or mixing, or "
                "with sampling='expected', which draws nothing"
            )
    if not is_concrete(mdp.initial_state):
        raise ValueError(
            "mdp.initial_state is traced, and it counts; allowed: a number, or with "
            "sampling='expected' a traced mdp.initial_distribution"
        )


def _draws(xp, mdp: TabularMDP, learning, offset) -> dict:
    """Transitions as thresholds of words, and rewards, centred, of every transition."""
    shape, family = shape_of(mdp), mdp.transition.ndim > 3
    shift = (1 - learning) * offset
    reward = xp.asarray(mdp.reward, float) - (shift.reshape(-1, 1, 1, 1) if shift.ndim else shift)

    def split(array, trailing):
        array = array.reshape(*array.shape[: array.ndim - trailing], -1)
        # Entries lead: each becomes a vector over the agents.
        array = np.moveaxis(array, -1, 0) if family and shape.unrolled else array
        return tables.layout(array, shape.unrolled)

    own = {
        "thresholds": split(tabular_steps.thresholds(mdp.transition), 3),
        "reward": split(reward, 3),
        "discount": learning,
        "initial_state": np.asarray(mdp.initial_state, np.int32),
    }
    if mdp.initial_distribution is not None:
        own["start"] = tabular_steps.thresholds(mdp.initial_distribution)
    return own


def _laws(xp, mdp: TabularMDP, learning, offset) -> dict:
    """Transitions as probabilities, and mean rewards, centred, of every pair."""
    kernel = xp.asarray(mdp.transition, float)
    reward = xp.sum(kernel * xp.asarray(mdp.reward, float), axis=-1)
    # Of rows that do not sum to one, such as those next to which a derivative is taken, too.
    stop = 1 - learning[..., None, None] * xp.sum(kernel, axis=-1)
    start = mdp.initial_distribution
    if start is None:
        start = np.eye(mdp.num_states)[np.asarray(mdp.initial_state)]
    return {
        "transition": kernel,
        "reward": reward - stop * offset,
        "discount": learning,
        "start": xp.asarray(start, float),
    }


def centre(mdp: TabularMDP) -> TabularMDP:
    """The MDP whose q* errors are measured against: a family's mean."""
    if mdp.transition.ndim == 3:
        return mdp
    if is_concrete(mdp):
        return average_mdp(mdp)
    xp = np if is_concrete(mdp.transition) else jnp
    return mdp.replace(
        transition=xp.mean(mdp.transition, axis=0),
        reward=jnp.mean(jnp.asarray(mdp.reward, float), axis=0),
        discount=mdp.discount[0],
        # q* does not depend on where episodes begin.
        initial_distribution=None,
    )


def policy_of_agents(policy, shape: tabular_steps.Shape, num_agents: int, expected: bool):
    """A policy [S, U], or one for each agent, as the learner's words.

    Args:
      policy: [S, U] or [N, S, U], rows of probabilities.
      shape: of the MDP.
      num_agents: N.
      expected: whether nothing is drawn from it.

    Returns:
      A table of `thresholds`, leaves [N]; or probabilities, [N, S, U].
    """
    policy = np.asarray(policy, np.float64)
    if policy.ndim == 3 and len(policy) < num_agents:
        raise ValueError(
            f"policy has {len(policy)} members for num_agents {num_agents}; allowed: [S, U], "
            "or one for every agent"
        )
    policy = policy[:num_agents] if policy.ndim == 3 else policy
    if expected:
        return np.broadcast_to(policy, (num_agents, *policy.shape[-2:]))
    words = tabular_steps.thresholds(policy)
    words = np.broadcast_to(words, (num_agents, *words.shape[-2:])).reshape(num_agents, -1)
    return tables.layout(np.moveaxis(words, -1, 0) if shape.unrolled else words, shape.unrolled)
