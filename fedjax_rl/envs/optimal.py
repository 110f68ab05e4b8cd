r"""Optimal values of a tabular MDP by policy iteration, for every discount below 1.

One solver for references on the host (float64) and for values under a trace (the dtype of JAX):
Howard's policy iteration, every policy evaluated by a linear solve. It ends by itself after a few
policies, where sweeps of value iteration take 1 / (1 - discount) times as many.

Near a discount of 1 all values are large and nearly alike, and what learning is measured by is
their differences. A value is therefore held as two numbers,

.. math:: v(s) = g / (1 - \gamma) + h(s), \qquad h(0) = 0,

a gain per step and a difference (Puterman, "Markov Decision Processes", section 8.2.2), and the
equation that is solved never subtracts two of the large ones:

.. math:: e(s) (g / (1 - \gamma) + h(s)) + \gamma \sum_j P(j|s) (h(s) - h(j)) = r(s), \qquad
   e(s) = 1 - \gamma \sum_j P(j|s)

where e is :math:`1 - \gamma` but for the rounding of the row.

Axis letters: ``S`` states, ``U`` actions, ``S'`` next states.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl import lapack
from fedjax_rl.envs.tabular import TabularMDP

# An action takes over if it is better by more than this many roundings of what is compared.
_ROUNDINGS = 32


class Split(NamedTuple):
    """Values as a level and the differences to it.

    Attributes:
      gain: g [], (1 - discount) times the value of state 0.
      apart: what is added to ``g / (1 - discount)``: [S] of states, [S, U] of actions.
    """

    gain: Any
    apart: Any


class _Model(NamedTuple):
    """One MDP as the equation has it.

    Attributes:
      transition: [S, U, S'].
      reward: [S, U], the mean over next states.
      discount: [].
      stop: 1 - discount [], rounded once.
      excess: e [S, U].
    """

    transition: Any
    reward: Any
    discount: Any
    stop: Any
    excess: Any


def optimal_split(mdp: TabularMDP) -> Split:
    """Returns q* [S, U] of one MDP as a `Split`.

    On the host, in float64, unless the kernel, the reward or the discount is traced. A traced
    result has the exact derivative, that of the optimal policy's value, wherever no two actions are
    equally good: the policy is found without derivatives and one more linear solve carries them.

    Args:
      mdp: one MDP.

    Raises:
      ValueError: If rows of the kernel exceed one by so much that values diverge.
    """
    if not any(map(_traced, (mdp.transition, mdp.reward, mdp.discount))):
        model = _model(np, mdp, np.float64)
        return _actions(np, model, _howard(model))
    model = _model(jnp, mdp, jnp.result_type(float))
    fixed = jax.tree.map(jax.lax.stop_gradient, model)
    policy, found = _traced_howard(fixed)
    # One step of refinement more, which is Newton's: exact in what is traced, as the equation is
    # linear once the policy is given.
    return _actions(jnp, model, _refined(jnp, _chosen(jnp, model, policy), found))


def evaluated(mdp: TabularMDP, policy: np.ndarray) -> Split:
    """Returns the value of a policy [S, U], [S], as a `Split`; on the host in float64.

    Args:
      mdp: one MDP.
      policy: [S, U], rows of probabilities.
    """
    model = _model(np, mdp, np.float64)
    return _value(_mixed(model, policy, np.sum(policy * model.reward, axis=-1)))


def soft_optimal_values(mdp: TabularMDP, entropy: float) -> np.ndarray:
    r"""Solves :math:`v(s) = \tau \log \sum_a \exp((r + \gamma P v)(s, a) / \tau)`, on the host.

    Policy iteration again, with the softmax in the place of the best action; it is Newton's method
    and ends when rounding hides the gain.

    Args:
      mdp: one MDP.
      entropy: tau, above 0.

    Returns:
      v [S], in float64.
    """
    model = _model(np, mdp, np.float64)
    split, last = _howard(model), np.inf
    while True:
        more, size = _terms(np, model, split)
        top = more.max(-1, keepdims=True)
        logs = (more - top) / entropy
        logs = logs - np.log(np.sum(np.exp(logs), axis=-1, keepdims=True))
        # What the softmax gives more than the policy before, at least 0.
        lift = np.max(top[:, 0] - entropy * logs.max(-1))
        size = size.max() + entropy * math.log(model.reward.shape[1])
        eps = np.finfo(np.float64).eps
        if lift <= _ROUNDINGS * eps * size or (lift <= math.sqrt(eps) * size and lift >= last):
            return split.gain / model.stop + split.apart
        policy, last = np.exp(logs), lift
        reward = np.sum(policy * (model.reward - entropy * logs), axis=-1)
        split = _value(_mixed(model, policy, reward))


def _traced(leaf: Any) -> bool:
    return isinstance(leaf, jax.core.Tracer)


def _model(xp: Any, mdp: TabularMDP, dtype: Any) -> _Model:
    kernel, discount = mdp.transition, mdp.discount
    discount = discount if _traced(discount) else np.asarray(discount, np.float64)
    stop = 1 - discount
    if _traced(kernel):
        off = xp.sum(kernel.astype(dtype), axis=-1) - 1
    else:
        kernel = np.asarray(kernel, np.float64)
        # What a row is off from one, exact to the last digit: near a discount of 1 it counts.
        off = np.array([math.fsum([*row, -1.0]) for row in kernel.reshape(-1, kernel.shape[-1])])
        off = off.reshape(kernel.shape[:-1])
        off = xp.asarray(off, dtype) if _traced(discount) else off
    excess = stop - discount * off
    if not _traced(excess) and np.min(excess) <= 0:
        raise ValueError(
            f"mdp.transition has a row whose sum is 1 + {off.max():.3g} with discount {discount}; "
            "allowed: sums below 1 / discount, beyond which values are infinite"
        )
    transition = xp.asarray(kernel, dtype)
    reward = xp.sum(transition * xp.asarray(mdp.reward, dtype), axis=-1)
    reward = xp.broadcast_to(reward, kernel.shape[:-1])
    return _Model(transition, reward, *(xp.asarray(x, dtype) for x in (discount, stop, excess)))


class _Chain(NamedTuple):
    """A `_Model` under a policy: [S, S'], [S], [], [], [S]."""

    transition: Any
    reward: Any
    discount: Any
    stop: Any
    excess: Any


def _chosen(xp: Any, model: _Model, policy: Any) -> _Chain:
    """The chain under the action policy[s] in state s."""
    states = xp.arange(len(policy))
    return _Chain(
        model.transition[states, policy],
        model.reward[states, policy],
        model.discount,
        model.stop,
        model.excess[states, policy],
    )


def _mixed(model: _Model, policy: np.ndarray, reward: np.ndarray) -> _Chain:
    """The chain under the probabilities policy [S, U], with a reward [S]."""
    chain = np.einsum("su,sun->sn", policy, model.transition)
    excess = np.sum(policy * model.excess, axis=-1)
    return _Chain(chain, reward, model.discount, model.stop, excess)


def _matrix(xp: Any, chain: _Chain) -> Any:
    """What multiplies (g, h(1), h(2), ...), [S, S]; nothing in it is a small difference."""
    num = len(chain.reward)
    diagonal = xp.eye(num, dtype=chain.reward.dtype)
    moves = chain.discount * chain.transition * (1 - diagonal)
    matrix = diagonal * (chain.excess + xp.sum(moves, axis=-1))[:, None] - moves
    level = chain.excess / chain.stop
    return xp.concatenate([level[:, None], matrix[:, 1:]], axis=1)


def _residual(xp: Any, chain: _Chain, split: Split) -> Any:
    """What the equation lacks, [S]."""
    here = split.apart
    drop = xp.sum(chain.transition * (here[:, None] - here[None, :]), axis=-1)
    level = chain.excess / chain.stop * split.gain
    return chain.reward - level - chain.excess * here - chain.discount * drop


def _refined(xp: Any, chain: _Chain, split: Split) -> Split:
    """A better solution: the old one and the solution for what it lacks."""
    solve = np.linalg.solve if xp is np else lapack.solve
    more = solve(_matrix(xp, chain), _residual(xp, chain, split))
    rest = xp.concatenate([xp.zeros_like(more[:1]), more[1:]])
    return Split(split.gain + more[0], split.apart + rest)


def _value(chain: _Chain) -> Split:
    """The value of a chain, refined for as long as that brings it nearer."""
    split, last = Split(np.zeros(()), np.zeros_like(chain.reward)), np.inf
    best = split
    while True:
        lacks = np.abs(_residual(np, chain, split)).max()
        if not lacks < last:
            return best
        best, last = split, lacks
        split = _refined(np, chain, split)


def _terms(xp: Any, model: _Model, split: Split) -> tuple[Any, Any]:
    """What an action gives more than the state is worth, [S, U], and the size of its terms."""
    here = split.apart
    apart = here[:, None, None] - here[None, None, :]
    drop = model.discount * xp.sum(model.transition * apart, axis=-1)
    level = model.excess / model.stop * split.gain
    slack = model.excess * here[:, None]
    size = model.discount * xp.sum(model.transition * xp.abs(apart), axis=-1)
    size = size + xp.abs(model.reward) + xp.abs(level) + xp.abs(slack)
    return model.reward - level - slack - drop, size


def _actions(xp: Any, model: _Model, split: Split) -> Split:
    """The values of actions from those of states."""
    return Split(split.gain, split.apart[:, None] + _terms(xp, model, split)[0])


def _improved(xp: Any, model: _Model, policy: Any, split: Split) -> Any:
    """The best action of every state; the old one where nothing is better for certain."""
    more, size = _terms(xp, model, split)
    best = xp.argmax(more, axis=-1)
    states = xp.arange(len(policy))
    gain = more[states, best] - more[states, policy]
    least = _ROUNDINGS * np.finfo(more.dtype).eps * (size[states, best] + size[states, policy])
    return xp.where(gain > least, best, policy)


def _howard(model: _Model) -> Split:
    """The values of the states under the best policy, on the host."""
    policy, seen = model.reward.argmax(-1), set()
    while True:
        split = _value(_chosen(np, model, policy))
        # A policy that comes again is as good as the others since, but for rounding.
        if policy.tobytes() in seen:
            return split
        seen.add(policy.tobytes())
        policy = _improved(np, model, policy, split)


def _traced_howard(model: _Model) -> tuple[Any, Split]:
    """The best policy [S] and the values of the states under it."""

    def value(policy):
        chain = _chosen(jnp, model, policy)
        zero = Split(jnp.zeros_like(model.stop), jnp.zeros_like(chain.reward))
        return _refined(jnp, chain, _refined(jnp, chain, zero))

    def step(carry):
        _, policy, split, count = carry
        new = _improved(jnp, model, policy, split)
        return policy, new, value(new), count + 1

    def goes_on(carry):
        old, new, _, count = carry
        # The bound is for the case that rounding makes equals take turns.
        return jnp.any(old != new) & (count < 100 + model.reward.size)

    first = jnp.argmax(model.reward, axis=-1)
    carry = (first - 1, first, value(first), jnp.int32(0))
    _, policy, split, _ = jax.lax.while_loop(goes_on, step, carry)
    return policy, split
