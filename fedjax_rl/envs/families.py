"""Families of tabular MDPs: stacked, spread around one of them, and their mean.

A family is one `TabularMDP` whose leaves carry a leading axis ``A``, one member for each agent.
"""

from collections.abc import Sequence
from typing import Any

import chex
import jax
import numpy as np

from fedjax_rl import fields
from fedjax_rl.envs.tabular import (
    TabularMDP,
    broadcast,
    check_entries,
    check_mdp,
    check_size,
    initial_distribution,
    tabular_mdp,
)
from fedjax_rl.names import brief


def listed(name: str, values: Any, each: fields.Allowed, text: str) -> list:
    """Reads a sequence of at least one value, and checks all of them.

    Args:
      name: of the argument, for messages.
      values: what somebody handed in.
      each: what every value may be.
      text: the same in words, for a sequence of them.

    Returns:
      The values.

    Raises:
      ValueError: no sequence, an empty one, or a value that is not allowed, by its place.
    """
    try:
        listed = [] if isinstance(values, str | bytes | dict) else list(values)
    except Exception:  # no sequence, or one that fails
        listed = []
    if not listed:
        raise ValueError(f"{name} is {brief(values)}; allowed: a sequence of {text}")
    for place, value in enumerate(listed):
        fields.check(f"{name}[{place}]", value, each)
    return listed


def stack_mdps(mdps: Sequence[TabularMDP]) -> TabularMDP:
    """Stacks MDPs of equal S and U on a new leading axis [A].

    Args:
      mdps: at least one; rewards of different extents are brought to their common one, and if one
        has an initial distribution, the initial states of the others are written as such.

    Returns:
      A family, entry i equal to ``mdps[i]``.

    Raises:
      ValueError: If there is none, or their shapes differ.

    Example:
      >>> import numpy as np, fedjax_rl as frl
      >>> mdp = frl.envs.paper_mdp()
      >>> apart = [mdp.replace(initial_state=np.int32(state)) for state in range(4)]
      >>> frl.envs.stack_mdps(apart).initial_state  # agents that start in different states
      array([0, 1, 2, 3], dtype=int32)
    """
    mdps = listed("mdps", mdps, fields.instance(TabularMDP), "TabularMDPs, at least one")
    for place, mdp in enumerate(mdps):
        check_mdp(mdp, f"mdps[{place}]", undiscounted=True)
    shapes = {np.shape(mdp.transition) for mdp in mdps}
    if len(shapes) != 1:
        raise ValueError(
            f"mdps has kernels of shapes {sorted(shapes)}; allowed: the same number of states and "
            "actions for all"
        )
    extents = np.broadcast_shapes(*(np.shape(mdp.reward) for mdp in mdps))
    return TabularMDP(
        transition=np.stack([mdp.transition for mdp in mdps]),
        reward=np.stack([np.broadcast_to(mdp.reward, extents) for mdp in mdps]),
        discount=np.stack([mdp.discount for mdp in mdps]),
        initial_state=np.stack([mdp.initial_state for mdp in mdps]),
        initial_distribution=_stacked_distributions(mdps),
    )


_LEVEL = fields.reals("of at least 0, one or one for each agent")


@fields.checked(
    mdp=fields.instance(TabularMDP),
    num_agents=fields.COUNT,
    seed=fields.SEED,
    kernel=_LEVEL,
    reward=_LEVEL,
)
def perturbed_mdps(
    mdp: TabularMDP,
    num_agents: int,
    seed: int = 0,
    kernel: chex.ArrayNumpy | float = 0.0,
    reward: chex.ArrayNumpy | float = 0.0,
) -> TabularMDP:
    r"""Spreads a heterogeneous family around one MDP.

    .. math:: P_i = (1 - \kappa) P + \kappa P'_i, \qquad R_i = R + \rho \, \xi_i

    with P'_i uniform over all kernels (flat Dirichlet rows) and xi_i standard normal, of the
    extents of the reward. A level of 0 leaves its part equal to the base bit for bit. Agent i
    draws the same P'_i and xi_i whatever the number of agents and the levels are.

    Args:
      mdp: the base, one MDP.
      num_agents: A, at least 1.
      seed: of ``numpy.random.default_rng``.
      kernel: kappa in [0, 1], a scalar or [A].
      reward: rho >= 0, a scalar or [A].

    Returns:
      A family with leading axis [A].

    Raises:
      ValueError: If an argument is out of its range or ``mdp`` is a family already.

    Example:
      >>> import fedjax_rl as frl
      >>> family = frl.envs.perturbed_mdps(frl.envs.paper_mdp(), 8, kernel=0.2)
      >>> family.transition.shape, bool((family.reward == frl.envs.paper_mdp().reward).all())
      ((8, 4, 3, 4), True)
    """
    check_mdp(mdp, undiscounted=True)
    if np.ndim(mdp.transition) != 3:
        raise ValueError(
            f"mdp has a kernel of shape {np.shape(mdp.transition)}; allowed: one MDP, [S, U, S]"
        )
    check_size("num_agents", num_agents, num_agents, *np.shape(mdp.transition))
    copies = jax.tree.map(lambda leaf: np.broadcast_to(leaf, (num_agents, *np.shape(leaf))), mdp)
    return perturbed(copies, seed, kernel, reward)


def perturbed(
    mdps: TabularMDP,
    seed: int = 0,
    kernel: chex.ArrayNumpy | float = 0.0,
    reward: chex.ArrayNumpy | float = 0.0,
) -> TabularMDP:
    """Perturbs every member of a family around itself; see `perturbed_mdps`.

    Args:
      mdps: a family with one leading axis [A].
      seed: of ``numpy.random.default_rng``.
      kernel: kappa in [0, 1], a scalar or [A].
      reward: rho >= 0, a scalar or [A].

    Returns:
      A family of the same shape.

    Raises:
      ValueError: If a level is out of its range.
    """
    num_agents, *table = np.shape(mdps.transition)
    kernel = broadcast("kernel", np.asarray(kernel, np.float64), [num_agents])
    reward = broadcast("reward", np.asarray(reward, np.float64), [num_agents])
    check_entries((kernel >= 0) & (kernel <= 1), "kernel", kernel, "in [0, 1]")
    fine = (reward >= 0) & (reward <= fields.LARGEST)
    check_entries(fine, "reward", reward, "finite and at least 0")

    # Two streams, each with the agent as its slowest axis: more agents only lengthen them.
    kernel_rng, reward_rng = np.random.default_rng(seed).spawn(2)
    other = kernel_rng.standard_exponential((num_agents, *table))
    other /= other.sum(-1, keepdims=True)  # rows of exponentials over their sums are flat Dirichlet
    noise = reward_rng.standard_normal(mdps.reward.shape)
    kernel, reward = kernel[:, None, None, None], reward[:, None, None, None]
    return tabular_mdp(
        (1 - kernel) * mdps.transition + kernel * other,
        mdps.reward + reward * noise,
        mdps.discount,
        mdps.initial_state,
        mdps.initial_distribution,
    )


@fields.checked(mdps=fields.instance(TabularMDP))
def average_mdp(mdps: TabularMDP) -> TabularMDP:
    """Returns the MDP of the mean kernel and the mean reward of a family.

    Args:
      mdps: a family with one leading axis [A], of one discount.

    Returns:
      One MDP. It begins where a member drawn at random does: where members begin in different
      states, its initial distribution is the mean of theirs.

    Raises:
      ValueError: If ``mdps`` is no family, or its discounts differ.

    Example:
      >>> import fedjax_rl as frl
      >>> family = frl.envs.random_mdps(range(3))
      >>> mean = frl.envs.average_mdp(family)
      >>> bool((mean.transition == family.transition.mean(0)).all())
      True
    """
    check_mdp(mdps, "mdps", undiscounted=True)
    if np.ndim(mdps.transition) != 4:
        raise ValueError(
            f"mdps has a kernel of shape {np.shape(mdps.transition)}; allowed: a family, "
            "[A, S, U, S]"
        )
    discounts = np.unique(mdps.discount)
    if discounts.size > 1:
        raise ValueError(f"discount takes the values {discounts}; allowed: one for the family")
    every = initial_distribution(mdps)
    alike = bool(np.all(every == every[:1]))
    state_alone = mdps.initial_distribution is None and alike
    # A mean of equal rows may differ from them by a rounding.
    start = None if state_alone else every[0] if alike else np.mean(every, axis=0)
    return tabular_mdp(
        np.mean(mdps.transition, axis=0),
        np.mean(mdps.reward, axis=0),
        mdps.discount[0],
        mdps.initial_state[0],
        start,
    )


def _stacked_distributions(mdps: Sequence[TabularMDP]) -> np.ndarray | None:
    """Returns where each of some MDPs begins, [A, S], or None if none has a distribution."""
    if all(mdp.initial_distribution is None for mdp in mdps):
        return None
    return np.stack([initial_distribution(mdp) for mdp in mdps])
