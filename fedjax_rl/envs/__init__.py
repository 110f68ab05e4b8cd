"""Environments: tabular MDPs with exact solutions and episodic tasks, behind one protocol.

It is that of gymnax 1.x: ``reset(key, params) -> (obs, state)`` and ``step(key, state, action,
params) -> (obs, state, reward, terminated, truncated, info)``; heterogeneity is ``params`` with a
leading agent axis.
"""

from fedjax_rl.envs.brax_tasks import brax_task
from fedjax_rl.envs.dirichlet import dirichlet_mdp, dirichlet_mdps, opposed_mdps
from fedjax_rl.envs.families import average_mdp, perturbed_mdps, stack_mdps
from fedjax_rl.envs.family_optimum import optimum
from fedjax_rl.envs.generators import paper_mdp, random_mdp, random_mdps
from fedjax_rl.envs.grid_tables import GridEnv, GridWorld
from fedjax_rl.envs.grids import frozen_lake, grid_world, simple_grid, windy_grid
from fedjax_rl.envs.gymnax_tasks import gymnax_task
from fedjax_rl.envs.heterogeneity import held_out, members, parts
from fedjax_rl.envs.lanes import in_lanes
from fedjax_rl.envs.lqr import LQREnv, LQRParams, lqr
from fedjax_rl.envs.objective import direct_value, mean_value, truncated_value, value
from fedjax_rl.envs.own import as_task
from fedjax_rl.envs.policies import greedy_policy, softmax_policy, uniform_policy
from fedjax_rl.envs.procgen import procgen_task
from fedjax_rl.envs.registry import make
from fedjax_rl.envs.riccati import lqr_gain, lqr_gains, lqr_return
from fedjax_rl.envs.solvers import (
    average_reward,
    expected_return,
    expected_reward,
    optimal_q,
    policy_q,
    policy_value,
    stationary_distribution,
)
from fedjax_rl.envs.tabular import TabularMDP, tabular_mdp
from fedjax_rl.envs.tabular_env import TabularEnv
from fedjax_rl.envs.tabular_tasks import tabular_task
from fedjax_rl.envs.task import Continuous, Discrete, Task
from fedjax_rl.envs.theory import (
    LinearTheory,
    drift,
    linear_theory,
    steady_state,
    time_to_threshold,
)

__all__ = [
    "Continuous",
    "Discrete",
    "GridEnv",
    "GridWorld",
    "LQREnv",
    "LQRParams",
    "LinearTheory",
    "TabularEnv",
    "TabularMDP",
    "Task",
    "as_task",
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
    "held_out",
    "in_lanes",
    "linear_theory",
    "lqr",
    "lqr_gain",
    "lqr_gains",
    "lqr_return",
    "make",
    "mean_value",
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
