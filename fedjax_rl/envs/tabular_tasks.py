"""Tabular MDPs and families of them as episodic tasks.

Axis letters: ``S`` states, ``U`` actions, ``N`` members of a family.
"""

import functools
import hashlib
from collections.abc import Mapping
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl import fields
from fedjax_rl.envs.tabular import TabularMDP, check_mdp
from fedjax_rl.envs.tabular_env import TabularEnv
from fedjax_rl.envs.task import Discrete, Task

TASK = fields.instance(
    Task,
    text="an episodic task or a tabular MDP, such as envs.gymnax_task('CartPole-v1') or "
    "envs.dirichlet_mdps(4)",
)


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
    the first N of a family, which has to be large enough; one MDP is that of all agents.

    Args:
      mdps: one MDP or a family with one leading axis, of one discount.
      max_steps: T, at least 1.
      name: by which tasks are told apart, together with the options; "tabular" by default.
      options: what makes the MDPs again under that name; by default a digest of their arrays.

    Returns:
      A `Task` with exact tables.

    Raises:
      ValueError: If ``mdps`` has several leading axes or several discounts, or ``max_steps`` is
        out of its range. From ``members``: if ``num_agents`` exceeds the family.

    Example:
      >>> import fedjax_rl as frl
      >>> task = frl.envs.tabular_task(frl.envs.dirichlet_mdps(8), max_steps=10)
      >>> task.observation_size, task.action, task.members(3).transition.shape
      (5, Discrete(num=3), (3, 5, 3, 5))
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
        # The discount stands in the options by itself, so that `replace` can change it.
        options = {"digest": digest(mdps)}

    onehot = functools.partial(_one_of, num_states)
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
        summarise=_mean,
        behaviour_size=num_states,
        options=tuple(sorted({**options, "discount": discount, "max_steps": max_steps}.items())),
        members=functools.partial(_members, mdps) if family else None,
        # Members are always arguments of a program, which then depends on their shapes alone.
        shape=(
            "tabular",
            num_states,
            num_actions,
            tuple(np.shape(mdps.reward)[-3:]),
            mdps.initial_distribution is not None,
        ),
    )


# Functions of the module, so that tasks can be pickled.


def _members(mdps: TabularMDP, num_agents: int) -> TabularMDP:
    size = len(mdps.transition)
    if num_agents > size:
        raise ValueError(
            f"num_agents is {num_agents} for a family of {size} MDPs; allowed: at most {size}"
        )
    return jax.tree.map(lambda leaf: leaf[:num_agents], mdps)


def _one_of(size: int, state: chex.Array) -> chex.Array:
    return jax.nn.one_hot(state, size, dtype=jnp.float32)


def _mean(last: chex.Array, mean: chex.Array, steps: chex.Array) -> chex.Array:
    del last, steps
    return mean


def task_of(environment):
    """An MDP or a family of them as a task whose episodes end where 1 % of the discount is left.

    Raises:
      ValueError: neither an MDP nor a task, or tables that are not allowed.
    """
    either = fields.instance(Task, TabularMDP, text="a Task or a TabularMDP")
    fields.check("task", environment, either)
    if isinstance(environment, Task):
        return environment
    check_mdp(environment)
    discount = float(np.max(environment.discount))
    steps = 1 if discount == 0 else int(np.ceil(np.log(0.01) / np.log(discount)))
    return tabular_task(environment, max_steps=steps)


def repeat(params: Any, num_agents: int) -> Any:
    """Gives N agents the parameters of one environment.

    Args:
      params: pytree; may be traced.
      num_agents: N.

    Returns:
      The pytree with leaves [N, ...], those on the host as views without memory of their own.
    """
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
