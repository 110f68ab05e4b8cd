"""Environments: tabular MDPs with exact solutions and episodic tasks, behind one protocol.

It is that of gymnax 1.x: ``reset(key, params) -> (obs, state)`` and ``step(key, state, action,
params) -> (obs, state, reward, terminated, truncated, info)``; heterogeneity is ``params`` with a
leading agent axis.
"""

from fedjax_rl.envs.brax import brax_task
from fedjax_rl.envs.classic import gymnax_task
from fedjax_rl.envs.families import dirichlet_mdp, dirichlet_mdps, opposed_mdps, tabular_task
from fedjax_rl.envs.grids import (
    GridEnv,
    GridWorld,
    frozen_lake,
    grid_world,
    simple_grid,
    windy_grid,
)
from fedjax_rl.envs.heterogeneity import members, parts
from fedjax_rl.envs.objective import direct_value, optimum, truncated_value, value
from fedjax_rl.envs.procgen import procgen_task
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
from fedjax_rl.envs.task import Continuous, Discrete, Task

__all__ = [
    "Continuous",
    "Discrete",
    "GridEnv",
    "GridWorld",
    "LinearTheory",
    "TabularEnv",
    "TabularMDP",
    "Task",
    "average_mdp",
    "average_reward",
    "brax_task",
    "direct_value",
    "dirichlet_mdp",
    "dirichlet_mdps",
    "drift",
    "expected_return",
    "expected_reward",
    "frozen_lake",
    "greedy_policy",
    "grid_world",
    "gymnax_task",
    "linear_theory",
    "members",
    "opposed_mdps",
    "optimal_q",
    "optimum",
    "paper_mdp",
    "parts",
    "perturbed_mdps",
    "policy_q",
    "policy_value",
    "procgen_task",
    "random_mdp",
    "random_mdps",
    "simple_grid",
    "softmax_policy",
    "stack_mdps",
    "stationary_distribution",
    "steady_state",
    "tabular_mdp",
    "tabular_task",
    "time_to_threshold",
    "truncated_value",
    "uniform_policy",
    "value",
    "windy_grid",
]
