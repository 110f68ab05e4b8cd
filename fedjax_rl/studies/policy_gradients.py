"""What the studies of federated policy gradients have in common.

Zhu, Heath and Mitra, arXiv 2409.05291; Wang, He, Zhang, Miao and Anderson, arXiv 2405.19499. The
tables are our own: M1 is a family of MDPs whose rewards or kernels
differ, M2 one of opposed rewards whose mean is the same for every even number of agents. Their
objectives have an entropy bonus, so that the mean objective has one optimum.
"""

from __future__ import annotations

import functools
from typing import Any

from fedjax_rl import envs
from fedjax_rl.envs import heterogeneity
from fedjax_rl.envs.task import Task

ENTROPY = 0.3
# Physics that differ strongly between the poles; each is multiplied by exp(level u), |u| <= 1.
STRONG = {"gravity": 0.7, "length": 0.7, "force": 0.5}


@functools.cache
def m1(rewards: float = 1.0, kernels: float = 0.0, max_steps: int = 25) -> Task:
    """M1: five states, three actions, eight agents."""
    return envs.tabular_task(
        envs.dirichlet_mdps(8, rewards=rewards, kernels=kernels), max_steps=max_steps
    )


@functools.cache
def m2(spread: float = 1.0, max_steps: int = 25) -> Task:
    """M2: up to 32 agents, rewards opposed in pairs."""
    return envs.tabular_task(envs.opposed_mdps(spread), max_steps=max_steps)


@functools.cache
def cartpoles() -> Task:
    """CartPoles whose physics differ strongly, episodes of at most 100 steps as in Wang et al."""
    task = envs.gymnax_task("CartPole-v1", discount=0.995, max_steps=100)
    return task.replace(
        name="CartPole-v1, strongly different",
        members=lambda num_agents: heterogeneity.members(task, num_agents, STRONG),
    )


def exactly(**more) -> dict[str, Any]:
    """Properties of algorithms that see the whole gradient of tables."""
    return {"gradient": "exact", "entropy": ENTROPY, **more}
