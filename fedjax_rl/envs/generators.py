"""Random tabular MDPs of one paper, and the one MDP of it that everything is measured on.

The generators run on the host in float64 with NumPy's own streams: the MDP of the linear speedup
paper is defined by one of them and cannot be drawn with ``jax.random``.
"""

import importlib.resources
import json
from collections.abc import Iterable
from typing import Any

import numpy as np

from fedjax_rl import fields
from fedjax_rl.envs.families import listed, stack_mdps
from fedjax_rl.envs.tabular import TabularMDP, check_size, tabular_mdp

_REWARDS = ("normal_next_state", "exponential_next_state", "normal_action_next_state")


@fields.checked(
    seed=fields.SEED,
    num_states=fields.COUNT,
    num_actions=fields.COUNT,
    power=fields.number(0, follows=False, single=False),
    signed=fields.switch(),
    reward_scale=fields.number(0, follows=False),
    reward=fields.word(_REWARDS),
    discount=fields.number(0, 1, below=True, follows=False, single=False),
)
def random_mdp(
    seed: int = 0,
    num_states: int = 4,
    num_actions: int = 3,
    power: float = 15.0,
    signed: bool = True,
    reward_scale: float = 1.0,
    reward: str = "normal_next_state",
    discount: float = 0.6,
) -> TabularMDP:
    r"""Draws an MDP whose rows are the softmax of a power of normal variates.

    Einhorn, "Federated Reinforcement Learning Has Linear Speedup" (2023):

    .. math:: P(\cdot|s,a) = softmax(sign(z) |z|^p), \quad z \sim N(0, 1)^{S \times U \times S'}

    The higher the power p, the more the choice of action matters: rows tend to point masses and
    to ties. At odd integers the formula is ``z ** p``, and it keeps its sign at any other power.
    A power large enough to overflow float64 is refused with the kernel that it gives.

    Args:
      seed: of ``numpy.random.default_rng``; z is drawn first, in C order, then the reward.
      num_states: S, at least 1.
      num_actions: U, at least 1.
      power: p >= 0; 0 leaves the softmax of the signs.
      signed: False drops the sign of z.
      reward_scale: standard deviation of a normal reward, mean of an exponential one; >= 0.
      reward: "normal_next_state" or "exponential_next_state", both [1, 1, S'], or
        "normal_action_next_state", [1, U, S'].
      discount: in [0, 1).

    Returns:
      One MDP that starts in state 0.

    Raises:
      ValueError: If an argument is out of its range.

    Example:
      >>> import fedjax_rl as frl
      >>> frl.envs.random_mdp(seed=1, num_states=6).transition.shape
      (6, 3, 6)
    """
    check_size("num_states", num_states, num_states, num_actions, num_states)
    rng = np.random.default_rng(seed)
    # The order of the draws is part of what a seed means, and so is C order.
    z = rng.standard_normal((num_states, num_actions, num_states))
    with np.errstate(over="ignore", invalid="ignore"):  # refused below
        logits = np.abs(z) ** power
        if signed:
            logits = np.sign(z) * logits
        # Powers reach 1e9 and more: without its maximum subtracted every row would overflow.
        weights = np.exp(logits - logits.max(-1, keepdims=True))
    transition = weights / weights.sum(-1, keepdims=True)
    if not np.isfinite(transition).all():
        raise ValueError(f"power is {power}, of which a kernel is nan; allowed: less")

    extents = (num_actions, num_states) if "action" in reward else (num_states,)
    draw = rng.standard_exponential if reward.startswith("exponential") else rng.standard_normal
    return tabular_mdp(transition, reward_scale * draw(extents), discount)


def random_mdps(seeds: Iterable[int], **options: Any) -> TabularMDP:
    """Draws one `random_mdp` per seed and stacks them on a leading axis [A].

    Args:
      seeds: one per agent or per federation; entry i is ``random_mdp(seeds[i], **options)``.
      **options: of `random_mdp`.

    Returns:
      A family of MDPs with unrelated kernels and rewards.

    Raises:
      ValueError: If there is no seed, or an option is out of its range.

    Example:
      >>> import fedjax_rl as frl
      >>> frl.envs.random_mdps(range(5), num_actions=2).transition.shape
      (5, 4, 2, 4)
    """
    seeds = listed("seeds", seeds, fields.SEED, "whole numbers from 0 to 4294967295")
    return stack_mdps([random_mdp(seed, **options) for seed in seeds])


def paper_mdp() -> TabularMDP:
    """Returns the MDP of Einhorn (2023): 4 states, 3 actions, discount 0.6, start in state 0.

    It is ``random_mdp(seed=3701)``, shipped as data because neither NumPy's stream nor the last
    digit of a power is promised for ever. Squared Frobenius norm of its optimal action values:
    13.731440581206957.

    Returns:
      One MDP.

    Example:
      >>> import fedjax_rl as frl
      >>> round(float((frl.envs.optimal_q(frl.envs.paper_mdp()) ** 2).sum()), 9)
      13.731440581
    """
    text = importlib.resources.files(__package__).joinpath("data", "paper_mdp.json").read_text()
    table = json.loads(text)
    return tabular_mdp(
        table["transition"], table["reward"], table["discount"], table["initial_state"]
    )
