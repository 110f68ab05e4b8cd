r"""Exact objectives of policy gradients on tabular MDPs.

.. math:: J(\theta) = \rho^T (I - \gamma P_\pi)^{-1} r_\pi, \qquad
   r_\pi(s) = \sum_a \pi(a|s) [R(s, a) - \tau \log \pi(a|s)]

with pi the softmax of logits theta [S, U] and tau >= 0 the weight of an entropy bonus (Zhu, Heath
and Mitra, *Towards Fast Rates for Federated and Multi-Task Reinforcement Learning*, arXiv
2409.05291, and the literature on entropy regularisation). All are functions of JAX of one
MDP and of the dtype of the policy: to be traced, differentiated and mapped over families.

Axis letters: ``S`` states, ``U`` actions, ``S'`` next states.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl import backend, fields, lapack
from fedjax_rl.envs.tabular import TabularMDP

# Of one MDP; its leaves and those of the policies may be traced.
_ONE = fields.instance(
    TabularMDP, text="a TabularMDP", where=lambda mdp: np.ndim(mdp.transition) == 3
)
_FAMILY = fields.instance(
    TabularMDP,
    text="a family of TabularMDPs with one leading axis",
    where=lambda mdps: np.ndim(mdps.transition) == 4,
)
_TABLE = fields.anything(
    "an array [S, U] of finite floating-point numbers",
    lambda value: (
        isinstance(value, np.ndarray | jax.Array)
        and value.ndim == 2
        and jnp.issubdtype(value.dtype, np.floating)
        and bool(np.isfinite(np.asarray(value, np.float64)).all())
    ),
    traced=True,
    axes=2,
)
_ENTROPY = fields.number(0, follows=False)


def _check_shape(name: str, table: chex.Array, mdp: TabularMDP) -> None:
    if np.shape(table) != (mdp.num_states, mdp.num_actions):
        raise ValueError(
            f"{name} has shape {np.shape(table)}; allowed: {(mdp.num_states, mdp.num_actions)}, "
            "the states and the actions of the MDP"
        )


@fields.checked(mdp=_ONE, logits=_TABLE, entropy=_ENTROPY)
def value(mdp: TabularMDP, logits: chex.Array, entropy: chex.Array | float = 0.0) -> chex.Array:
    """Returns the discounted value of a softmax policy, by one linear solve.

    Args:
      mdp: one MDP.
      logits: [S, U], of the dtype that everything is calculated in.
      entropy: tau >= 0 [].

    Returns:
      J [].

    Raises:
      ValueError: If ``mdp`` is a family, or the shape of ``logits`` is not that of its tables.

    Example:
      >>> import jax, jax.numpy as jnp, fedjax_rl as frl
      >>> mdp = frl.envs.paper_mdp()
      >>> slope = jax.grad(frl.envs.value, argnums=1)(mdp, jnp.zeros((4, 3)))
      >>> slope.shape, bool(abs(slope.sum(-1)).max() < 1e-6)
      ((4, 3), True)
    """
    policy, reward = _regularised(mdp, logits, entropy)
    return discounted(mdp, policy, reward)


@fields.checked(mdps=_FAMILY, logits=_TABLE, entropy=_ENTROPY)
def mean_value(
    mdps: TabularMDP, logits: chex.Array, entropy: chex.Array | float = 0.0
) -> chex.Array:
    r"""Returns the mean of J over a family, of one softmax policy in every member.

    .. math:: J(\theta) = \frac{1}{N} \sum_i J_i(\theta)

    Of the agents' family it is what a federation maximises, see `optimum`; of one that is
    `held_out` it says how much of that carries over.

    Args:
      mdps: a family with one leading axis [N].
      logits: [S, U], of the dtype that everything is calculated in.
      entropy: tau >= 0 [].

    Returns:
      J [].

    Raises:
      ValueError: If ``mdps`` is no family, or the shape of ``logits`` is not that of its tables.

    Example:
      >>> import jax.numpy as jnp, fedjax_rl as frl
      >>> round(float(frl.envs.mean_value(frl.envs.dirichlet_mdps(4), jnp.zeros((5, 3)))), 3)
      2.331
    """
    return jnp.mean(jax.vmap(lambda mdp: value(mdp, logits, entropy))(mdps))


@fields.checked(mdp=_ONE, logits=_TABLE, horizon=fields.whole(0), entropy=_ENTROPY)
@backend.exact
def truncated_value(
    mdp: TabularMDP, logits: chex.Array, horizon: int, entropy: chex.Array | float = 0.0
) -> chex.Array:
    r"""Returns the discounted value of the first K steps of a softmax policy.

    .. math:: J_K = \sum_{t < K} \gamma^t \rho^T P_\pi^t r_\pi

    It is what episodes of K steps estimate without bias.

    Args:
      mdp: one MDP.
      logits: [S, U].
      horizon: K, static, at least 0.
      entropy: tau >= 0 [].

    Returns:
      J_K [].

    Raises:
      ValueError: As `value`, or if ``horizon`` is out of its range.

    Example:
      >>> import jax.numpy as jnp, fedjax_rl as frl
      >>> mdp, logits = frl.envs.paper_mdp(), jnp.zeros((4, 3))
      >>> short, whole = frl.envs.truncated_value(mdp, logits, 60), frl.envs.value(mdp, logits)
      >>> bool(abs(short - whole) < 1e-5)
      True
    """
    policy, reward = _regularised(mdp, logits, entropy)
    chain, discount, start = _chain(mdp, policy)
    total = jnp.sum(policy * reward, axis=-1)

    def step(to_go, _):
        return total + discount * (chain @ to_go), None

    to_go, _ = jax.lax.scan(step, jnp.zeros_like(total), length=horizon)
    return start @ to_go


@fields.checked(mdp=_ONE, policy=_TABLE)
def direct_value(mdp: TabularMDP, policy: chex.Array) -> chex.Array:
    r"""Returns the discounted value of a policy that is its own parameter.

    Its gradient in the [S, U] entries, taken as free, is that of the direct parametrisation,

    .. math:: \partial J / \partial \pi(a|s) = d(s) Q(s, a), \qquad d^T = \rho^T (I - \gamma P)^{-1}

    (Jin, Peng, Yang, Wang and Zhang, *Federated Reinforcement Learning with Environment
    Heterogeneity*, arXiv 2204.02634, PAvg).

    Args:
      mdp: one MDP.
      policy: [S, U], rows of probabilities; not checked.

    Returns:
      J [].

    Raises:
      ValueError: If ``mdp`` is a family, or the shape of ``policy`` is not that of its tables.

    Example:
      >>> import jax.numpy as jnp, fedjax_rl as frl
      >>> mdp, uniform = frl.envs.paper_mdp(), jnp.full((4, 3), 1 / 3)
      >>> bool(abs(frl.envs.direct_value(mdp, uniform) - frl.envs.value(mdp, uniform)) < 1e-6)
      True
    """
    _check_shape("policy", policy, mdp)
    return discounted(mdp, policy, mean_reward(mdp, policy.dtype))


def _regularised(mdp: TabularMDP, logits: chex.Array, entropy) -> tuple[chex.Array, chex.Array]:
    """Returns the policy and the reward of a state and an action less tau log pi, [S, U] each."""
    _check_shape("logits", logits, mdp)
    logs = jax.nn.log_softmax(logits, axis=-1)
    bonus = jnp.asarray(entropy, logits.dtype) * logs
    return jnp.exp(logs), mean_reward(mdp, logits.dtype) - bonus


def mean_reward(mdp: TabularMDP, dtype) -> chex.Array:
    """Returns the mean reward of a state and an action.

    Args:
      mdp: one MDP.
      dtype: to calculate in.

    Returns:
      [S, U].
    """
    # A reward of few extents is broadcast by the product.
    mean = jnp.asarray(mdp.transition, dtype) * jnp.asarray(mdp.reward, dtype)
    return jnp.sum(mean, axis=-1)


def _chain(mdp: TabularMDP, policy: chex.Array) -> tuple[chex.Array, chex.Array, chex.Array]:
    """Returns the chain of states [S, S'], the discount [] and where episodes begin [S]."""
    dtype = policy.dtype
    # A sum of products: under vmap, small batched matrix products are slower on every device.
    chain = jnp.sum(policy[:, :, None] * jnp.asarray(mdp.transition, dtype), axis=1)
    start = mdp.initial_distribution
    if start is None:
        start = jax.nn.one_hot(mdp.initial_state, mdp.num_states, dtype=dtype)
    return chain, jnp.asarray(mdp.discount, dtype), jnp.asarray(start, dtype)


@backend.exact
def discounted(mdp: TabularMDP, policy: chex.Array, reward: chex.Array) -> chex.Array:
    """Solves for the discounted value of a policy from the start of an MDP.

    Args:
      mdp: one MDP, whose own reward is not looked at.
      policy: [S, U].
      reward: [S, U], of a state and an action.

    Returns:
      J [].
    """
    chain, discount, start = _chain(mdp, policy)
    total = jnp.sum(policy * reward, axis=-1)
    system = jnp.eye(mdp.num_states, dtype=policy.dtype) - discount * chain
    return start @ lapack.solve(system, total)
