"""Families of tabular MDPs for policy gradients.

The three reference MDPs are our own. They are drawn on the host in float64 from NumPy's default
generator, in the order that is written here, and golden values in ``tests/test_families.py`` hold
them fixed. Kernels have rows from a Dirichlet distribution, rewards are uniform, and episodes
begin in a uniformly drawn state.

* `dirichlet_mdps`: agents whose rewards and kernels differ by levels, the kernels mixed with a
  common one as in the tabular study of Wang, He, Zhang, Miao and Anderson, *Momentum for the Win:
  Collaborative Federated Reinforcement Learning across Heterogeneous Environments*, arXiv
  2405.19499 (its sizes are not published).
* `opposed_mdps`: agents whose rewards differ by a term of alternating sign, so that any even
  number of them has the same mean. For the rates of Zhu, Heath and Mitra, *Towards Fast Rates for
  Federated and Multi-Task Reinforcement Learning*, arXiv 2409.05291.
* `dirichlet_mdp`: one task.

Axis letters: ``S`` states, ``U`` actions, ``S'`` next states, ``N`` members of a family.
"""

import numpy as np

from fedjax_rl import fields
from fedjax_rl.envs.tabular import TabularMDP, check_size, tabular_mdp

# Members whose kernels `opposed_mdps` draws, whether or not they are used: the number decides
# what the draws behind them are.
_OPPOSED = 32

_LEVEL = fields.number(0, follows=False)
_SHARED = {
    "seed": fields.SEED,
    "num_states": fields.COUNT,
    "num_actions": fields.COUNT,
    "discount": fields.number(0, 1, below=True, follows=False, single=False),
    "concentration": fields.number(0, above=True, follows=False, single=False),
}


@fields.checked(
    num_agents=fields.COUNT,
    rewards=_LEVEL,
    kernels=fields.number(0, 1, follows=False),
    **_SHARED,
)
def dirichlet_mdps(
    num_agents: int = 8,
    rewards: float = 1.0,
    kernels: float = 0.0,
    seed: int = 0,
    num_states: int = 5,
    num_actions: int = 3,
    discount: float = 0.8,
    concentration: float = 0.3,
) -> TabularMDP:
    r"""A family whose rewards and kernels differ by two levels.

    .. math:: P_i = (1 - \kappa) P + \kappa Q_i, \qquad R_i(s, a) = B(s, a) + \zeta E_i(s, a)

    with rows of P and Q_i from a Dirichlet distribution, B uniform on [0, 1], and E_i uniform on
    [0, 1] less its mean over the agents: the mean task is that of B at any level. Episodes begin
    in a uniformly drawn state. The draws are P, all Q_i, B, all E_i. They depend on the number of
    agents, but not on the levels.

    Args:
      num_agents: N, at least 1.
      rewards: zeta, finite and at least 0.
      kernels: kappa in [0, 1].
      seed: of ``numpy.random.default_rng``.
      num_states: S, at least 1.
      num_actions: U, at least 1.
      discount: in [0, 1).
      concentration: parameter of the Dirichlet distribution, above 0; the smaller it is, the
        fewer next states have most of the probability.

    Returns:
      A family with leading axis [N]; rewards are [N, S, U, 1].

    Raises:
      ValueError: If an argument is out of its range.

    Example:
      >>> import fedjax_rl as frl
      >>> apart, alike = (frl.envs.dirichlet_mdps(4, rewards=level) for level in (2.0, 0.0))
      >>> bool(abs(apart.reward.mean(0) - alike.reward[0]).max() < 1e-12)
      True
    """
    check_size("num_states", num_states, num_states, num_actions, num_states)
    check_size("num_agents", num_agents, num_agents, num_states, num_actions, num_states)
    pairs = (num_states, num_actions)
    rng = np.random.default_rng(seed)
    alpha = np.full(num_states, concentration, np.float64)
    shared = _dirichlet(rng, alpha, pairs)
    own = _dirichlet(rng, alpha, (num_agents, *pairs))
    base = rng.random(pairs)
    apart = rng.random((num_agents, *pairs))
    apart -= apart.mean(0)  # which is why members depend on how many there are
    return tabular_mdp(
        (1 - kernels) * shared + kernels * own,
        (base + rewards * apart)[..., None],
        discount,
        initial_distribution=np.full(num_states, 1 / num_states),
    )


def _dirichlet(rng: np.random.Generator, alpha: np.ndarray, pairs: tuple[int, ...]) -> np.ndarray:
    """Rows [*pairs, S] from a Dirichlet distribution; parameters whose rows vanish are refused."""
    rows = rng.dirichlet(alpha, pairs)
    if not np.allclose(rows.sum(-1), 1):  # so NaN, and so rows of zeros
        raise ValueError(
            f"concentration is {alpha[0]}, of which rows do not sum to 1; allowed: a size between"
        )
    return rows


@fields.checked(
    spread=_LEVEL,
    num_agents=fields.COUNT,
    reward_seed=fields.SEED,
    **_SHARED,
)
def opposed_mdps(
    spread: float = 1.0,
    num_agents: int = 32,
    seed: int = 0,
    reward_seed: int = 5,
    num_states: int = 5,
    num_actions: int = 3,
    discount: float = 0.8,
    concentration: float = 0.3,
) -> TabularMDP:
    r"""A family of one kernel whose rewards are pushed to either side in turn.

    .. math:: R_i(s, a) = B(s, a) + (-1)^i \zeta E(s, a)

    with E uniform on [-1, 1] and the kernel and B those of ``dirichlet_mdps(32)``: the mean task
    of the first N agents is the same for every even N.

    Args:
      spread: zeta, finite and at least 0.
      num_agents: N, at least 1; member i is the same in every family.
      seed: of the kernel and of B.
      reward_seed: of E.
      num_states: S, at least 1.
      num_actions: U, at least 1.
      discount: in [0, 1).
      concentration: as of `dirichlet_mdps`.

    Returns:
      A family with leading axis [N]; rewards are [N, S, U, 1].

    Raises:
      ValueError: If an argument is out of its range.

    Example:
      >>> import fedjax_rl as frl
      >>> two, six = (frl.envs.opposed_mdps(num_agents=n).reward.mean(0) for n in (2, 6))
      >>> bool(abs(two - six).max() < 1e-12)
      True
    """
    check_size("num_states", num_states, _OPPOSED, num_states, num_actions, num_states)
    check_size("num_agents", num_agents, num_agents, num_states, num_actions, num_states)
    base = dirichlet_mdps(
        _OPPOSED, 0.0, 0.0, seed, num_states, num_actions, discount, concentration
    )
    push = np.random.default_rng(reward_seed).uniform(-1, 1, (num_states, num_actions))
    sign = np.where(np.arange(num_agents) % 2 == 0, 1.0, -1.0)[:, None, None]
    return tabular_mdp(
        np.broadcast_to(base.transition[0], (num_agents, *base.transition.shape[1:])),
        base.reward[0] + (spread * sign * push)[..., None],
        discount,
        initial_distribution=base.initial_distribution[0],
    )


@fields.checked(**_SHARED)
def dirichlet_mdp(
    seed: int = 3,
    num_states: int = 5,
    num_actions: int = 3,
    discount: float = 0.8,
    concentration: float = 0.3,
) -> TabularMDP:
    """One MDP: rows from a Dirichlet distribution, then rewards [S, U, 1] uniform on [0, 1].

    Episodes begin in a uniformly drawn state.

    Args:
      seed: of ``numpy.random.default_rng``.
      num_states: S, at least 1.
      num_actions: U, at least 1.
      discount: in [0, 1).
      concentration: as of `dirichlet_mdps`.

    Returns:
      One MDP.

    Raises:
      ValueError: If an argument is out of its range.

    Example:
      >>> import fedjax_rl as frl
      >>> frl.envs.dirichlet_mdp().initial_distribution
      array([0.2, 0.2, 0.2, 0.2, 0.2])
    """
    check_size("num_states", num_states, num_states, num_actions, num_states)
    rng = np.random.default_rng(seed)
    alpha = np.full(num_states, concentration, np.float64)
    transition = _dirichlet(rng, alpha, (num_states, num_actions))
    reward = rng.random((num_states, num_actions, 1))
    start = np.full(num_states, 1 / num_states)
    return tabular_mdp(transition, reward, discount, initial_distribution=start)
