"""Families of tabular MDPs for policy gradients, and tabular MDPs as episodic tasks.

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

import hashlib
from collections.abc import Mapping
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl import fields
from fedjax_rl.envs.tabular import TabularEnv, TabularMDP, check_mdp, check_size, tabular_mdp
from fedjax_rl.envs.task import Discrete, Task

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
    """
    check_size("num_states", num_states, num_states, num_actions, num_states)
    check_size("num_agents", num_agents, num_agents, num_states, num_actions, num_states)
    pairs = (num_states, num_actions)
    rng = np.random.default_rng(seed)
    alpha = np.full(num_states, concentration)
    shared = _dirichlet(rng, alpha, pairs)
    own = _dirichlet(rng, alpha, (num_agents, *pairs))
    base = rng.random(pairs)
    apart = rng.random((num_agents, *pairs))
    apart -= apart.mean(0)
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

    Raises:
      ValueError: If an argument is out of its range.
    """
    check_size("num_states", num_states, num_states, num_actions, num_states)
    rng = np.random.default_rng(seed)
    alpha = np.full(num_states, concentration)
    transition = _dirichlet(rng, alpha, (num_states, num_actions))
    reward = rng.random((num_states, num_actions, 1))
    start = np.full(num_states, 1 / num_states)
    return tabular_mdp(transition, reward, discount, initial_distribution=start)


def check_level(name: str, value: float, largest: float = np.inf) -> None:
    """Checks how far agents are apart.

    Args:
      name: of what differs, for the message.
      value: the level.
      largest: what it may be at most.

    Raises:
      ValueError: If it is negative, above the largest or not finite.
    """
    fields.check(name, value, fields.number(0, largest, follows=False))


# Tasks --------------------------------------------------------------------------------------------


@fields.checked(
    mdps=fields.instance(TabularMDP),
    max_steps=fields.COUNT,
    name=fields.NAME.or_none(),
    options=fields.instance(
        Mapping,
        text="a dictionary of options by name",
        where=lambda options: all(isinstance(name, str) for name in options),
    ).or_none(),
)
def tabular_task(
    mdps: TabularMDP,
    max_steps: int = 25,
    name: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Task:
    """Makes an episodic task of an MDP, or of a family with an MDP for every agent.

    The environment goes on for ever; episodes are truncated after ``max_steps`` steps. Policies
    see the state as a one-hot vector [S]. The behaviour is the share of the steps that end in each
    state, [S]. The task's ``params`` are the MDP, of a family the first member; ``members`` are
    the first N of a family, which has to be large enough, or N times the one MDP.

    Args:
      mdps: one MDP or a family with one leading axis, of one discount.
      max_steps: T, at least 1.
      name: by which tasks are told apart, together with the options; "tabular" by default.
      options: what makes the MDPs again under that name; by default a digest of their arrays.

    Raises:
      ValueError: If ``mdps`` has several leading axes or several discounts, or ``max_steps`` is
        out of its range. From ``members``: if ``num_agents`` exceeds the family.
    """
    check_mdp(mdps, "mdps", undiscounted=True)
    if np.ndim(mdps.transition) not in (3, 4):
        raise ValueError(
            f"mdps has a kernel of shape {np.shape(mdps.transition)}; allowed: [S, U, S] or "
            "[N, S, U, S]"
        )
    discounts = np.unique(mdps.discount)
    if discounts.size > 1:
        raise ValueError(f"discount takes the values {discounts}; allowed: one for the family")
    discount = float(discounts[0])
    family = np.ndim(mdps.transition) == 4
    num_states, num_actions = mdps.num_states, mdps.num_actions
    if options is None:
        options = {"digest": digest(mdps)}

    def members(num_agents: int) -> TabularMDP:
        if not family:
            return repeat(mdps, num_agents)
        size = len(mdps.transition)
        if num_agents > size:
            raise ValueError(
                f"num_agents is {num_agents} for a family of {size} MDPs; allowed: at most {size}"
            )
        return jax.tree.map(lambda leaf: leaf[:num_agents], mdps)

    def onehot(state: chex.Array) -> chex.Array:
        return jax.nn.one_hot(state, num_states, dtype=jnp.float32)

    return Task(
        name="tabular" if name is None else name,
        env=TabularEnv(),
        params=jax.tree.map(lambda leaf: leaf[0], mdps) if family else mdps,
        observation_size=num_states,
        action=Discrete(num_actions),
        max_steps=max_steps,
        discount=discount,
        encode=onehot,
        trace=onehot,
        summarise=lambda last, mean, steps: mean,
        behaviour_size=num_states,
        options=tuple(sorted({**options, "discount": discount, "max_steps": max_steps}.items())),
        members=members,
        shape=(
            "tabular",
            num_states,
            num_actions,
            tuple(np.shape(mdps.reward)[-3:]),
            mdps.initial_distribution is not None,
        ),
    )


def repeat(params: Any, num_agents: int) -> Any:
    """Returns parameters of one environment for N agents, leaves [N, ...], all the same."""
    return jax.tree.map(
        lambda leaf: (
            jnp.broadcast_to(leaf, (num_agents, *leaf.shape))
            if isinstance(leaf, jax.core.Tracer)
            else np.broadcast_to(np.asarray(leaf), (num_agents, *np.shape(leaf)))
        ),
        params,
    )


def digest(mdps: TabularMDP) -> str:
    """Returns a word that tells the MDPs of different arrays apart, their discounts left out."""
    content = hashlib.sha256()
    for leaf in jax.tree.leaves(mdps.replace(discount=None)):
        leaf = np.ascontiguousarray(leaf)
        content.update(repr((leaf.shape, leaf.dtype.str)).encode())
        content.update(leaf.tobytes())
    return content.hexdigest()[:16]
