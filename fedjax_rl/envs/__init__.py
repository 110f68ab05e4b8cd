"""Environments: tabular MDPs with exact solutions, behind the protocol of gymnax 1.x.

``reset(key, params) -> (obs, state)`` and ``step(key, state, action, params) -> (obs, state,
reward, terminated, truncated, info)``; heterogeneity is ``params`` with a leading agent axis.
"""

from fedjax_rl.envs.solvers import (
    LinearTheory,
    average_reward,
    drift,
    expected_return,
    expected_reward,
    greedy_policy,
    linear_theory,
    optimal_q,
    policy_q,
    policy_value,
    softmax_policy,
    stationary_distribution,
    steady_state,
    time_to_threshold,
    uniform_policy,
)
from fedjax_rl.envs.tabular import (
    TabularEnv,
    TabularMDP,
    average_mdp,
    paper_mdp,
    perturbed_mdps,
    random_mdp,
    random_mdps,
    stack_mdps,
    tabular_mdp,
)

__all__ = [
    "LinearTheory",
    "TabularEnv",
    "TabularMDP",
    "average_mdp",
    "average_reward",
    "drift",
    "expected_return",
    "expected_reward",
    "greedy_policy",
    "linear_theory",
    "optimal_q",
    "paper_mdp",
    "perturbed_mdps",
    "policy_q",
    "policy_value",
    "random_mdp",
    "random_mdps",
    "softmax_policy",
    "stack_mdps",
    "stationary_distribution",
    "steady_state",
    "tabular_mdp",
    "time_to_threshold",
    "uniform_policy",
]
