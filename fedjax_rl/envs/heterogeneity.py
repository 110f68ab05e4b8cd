"""Families of environments from one task and one level for every part that differs.

A family is ``params`` with a leading axis [N], one environment per agent; it goes where a task's
``params`` go, as an argument and under ``vmap``. At level 0 a part is that of the task, bit for
bit.

* Physical parts are multiplied by exp(level u) with u uniform on [-1, 1]. The median agent is then
  the task, the mean one is not: the mean factor is sinh(level) / level, 1.08 at level 0.7 and 1.18
  at 1. ``centred`` divides by it. Gravity and length at level 0.7 with force at 0.5 are our strong
  family on CartPole.
* "reset", the width of the distribution of first states, has level u added, and nothing else
  differs in the experiments of Wang, He, Zhang, Miao and Anderson, *Momentum for the Win:
  Collaborative Federated Reinforcement Learning across Heterogeneous Environments*, arXiv
  2405.19499, as their public code has them: level 0.005 on CartPole (width 0.05) and 0.01 on
  HalfCheetah (0.1). In brax the width is that of positions and of velocities, whatever
  distributions the environment gives them.
* "target_speed" has level u added, in m/s; of a brax task that has one.
* "rewards" and "kernels" of tabular tasks differ as in `perturbed_mdps`.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from fedjax_rl import fields
from fedjax_rl.envs.brax_tasks import LARGEST_SPEED
from fedjax_rl.envs.families import perturbed
from fedjax_rl.envs.tabular_tasks import repeat
from fedjax_rl.envs.task import Task
from fedjax_rl.names import brief, check_known

_TABULAR = ("rewards", "kernels")
_ADDED = ("reset", "target_speed")
# Of physical parts: a hundred and fifty times stronger or weaker. Far beyond, factors overflow.
LARGEST_LEVEL = 5.0
# Of the difference between the agents' environments, which are made on the host.
_LARGEST = {"kernels": 1.0, "rewards": np.inf, "target_speed": LARGEST_SPEED}


@fields.checked(task=fields.instance(Task))
def parts(task: Task) -> tuple[str, ...]:
    """Returns the names of what can differ between the agents of a task.

    Args:
      task: any.

    Returns:
      A tuple of words, of which `members` takes levels; () if nothing can differ.

    Raises:
      ValueError: If ``task`` is no task.

    Example:
      >>> import fedjax_rl as frl
      >>> frl.envs.parts(frl.envs.gymnax_task("CartPole-v1"))
      ('gravity', 'cart_mass', 'pole_mass', 'length', 'force', 'reset')
      >>> frl.envs.parts(frl.envs.tabular_task(frl.envs.paper_mdp()))
      ('rewards', 'kernels')
    """
    if task.tabular:
        return _TABULAR
    return task.env.parts(task.params) if hasattr(task.env, "parts") else ()


def comparable(task: Task) -> tuple[str, ...]:
    """Returns the parts for which one level means the same: all but those in units of their own."""
    return tuple(part for part in parts(task) if part not in _ADDED)


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


def check_part(name: str, task: Task, part: str, level: float) -> None:
    """Checks the level of a part of a task.

    Args:
      name: of what sets it, for the message.
      task: the task.
      part: of `parts`; another is passed over.
      level: how far agents are apart.

    Raises:
      ValueError: a level that is negative, not finite or larger than the part can have.
    """
    if part not in parts(task):
        return
    largest = _LARGEST.get(part, LARGEST_LEVEL)
    if part == "reset":
        largest = task.env.base(part, task.params)
    check_level(name, level, largest)


@fields.checked(
    task=fields.instance(Task),
    num_agents=fields.COUNT,
    levels=fields.instance(Mapping, text="a dictionary from parts to levels"),
    seed=fields.SEED,
    centred=fields.switch(),
)
def members(
    task: Task,
    num_agents: int,
    levels: Mapping[str, float],
    seed: int = 0,
    centred: bool = False,
) -> Any:
    """Returns the parameters of N environments, which differ from the task's by some levels.

    Where the task is a family already, each member is varied around itself. Every part has a
    stream of its own with the agent as its slowest axis: agent i draws the same numbers whatever
    N and all the levels are.

    Parameters of brax have no leaf for a part of level 0, so that an environment is the cheaper
    the fewer parts differ: programs for different sets of such parts are compiled apart.

    Args:
      task: the task; any, if no level is above 0.
      num_agents: N, at least 1.
      levels: by part, of `parts`; parts that are left out have level 0.
      seed: of ``numpy.random.default_rng``.
      centred: whether the mean factor of physical parts is 1 instead of sinh(level) / level, so
        that the mean agent is the task; the median is then below it.

    Returns:
      A pytree on the host, of the structure of ``task.params`` but for brax; leaves [N, ...].

    Raises:
      ValueError: If a part is unknown, with the nearest known ones, or nothing of the task can
        differ; if a level is negative or not finite, that of kernels above 1, that of a reset
        above its width, or a physical one above 5; if ``num_agents`` is less than 1 or exceeds
        the task's family.

    Example:
      >>> import fedjax_rl as frl
      >>> task = frl.envs.gymnax_task("CartPole-v1")
      >>> frl.envs.members(task, 3, {"gravity": 0.5}).gravity.shape
      (3,)
    """
    known = parts(task)
    for part, level in levels.items():
        if not known:
            raise ValueError(f"{brief(part)} cannot differ in {task.name}; allowed: no levels")
        check_known(part, known, f"part of {task.name} that can differ")
        check_part(f"the level of {part}", task, part, level)
    if task.members is None:
        base = repeat(task.params, num_agents)
    else:
        base = task.members(num_agents)
        if _disagree(task.params, base):
            raise ValueError(
                f"params of {task.name} are not those of its first member; allowed: "
                "task.replace(params=...), which gives them to all, or task.replace(members=...)"
            )
    if task.tabular:
        kernel, reward = levels.get("kernels", 0.0), levels.get("rewards", 0.0)
        return perturbed(base, seed, kernel, reward) if kernel or reward else base
    if not known:
        return base
    # A stream for each part: a level that is 0 moves nobody else's draws.
    changes = {}
    for part, rng in zip(known, np.random.default_rng(seed).spawn(len(known)), strict=True):
        if levels.get(part):
            spread = levels[part] * rng.uniform(-1, 1, num_agents)
            changes[part] = spread if part in _ADDED else np.exp(spread)
            if centred and part not in _ADDED:
                changes[part] = changes[part] * levels[part] / np.sinh(levels[part])
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(base)):
        if changes:
            raise ValueError(
                f"the parameters of {task.name} are traced, and agents are to differ in "
                f"{', '.join(changes)}; allowed: one of the two"
            )
        return base
    return task.env.vary(base, changes)


@fields.checked(num_members=fields.COUNT, after=fields.COUNT)
def held_out(
    task: Task,
    num_members: int,
    levels: Mapping[str, float],
    seed: int = 0,
    centred: bool = False,
    *,
    after: int,
) -> Any:
    """Returns environments of the same kind as the agents', in which none of them learns.

    They are the next `members` of the same family: those of agents that a larger federation would
    have. A model that is measured in them is measured on what the family has in common.

    Args:
      task: as of `members`.
      num_members: M, how many.
      levels: as of `members`, and the same as those of the agents.
      seed: likewise.
      centred: likewise.
      after: N, the agents that learn; the largest number where several are compared, so that all
        are measured in the same environments.

    Returns:
      A pytree on the host as that of `members`; leaves [M, ...].

    Raises:
      ValueError: As `members` does for N + M agents, or if nothing differs between them.

    Example:
      >>> import numpy as np, fedjax_rl as frl
      >>> task = frl.envs.tabular_task(frl.envs.paper_mdp())
      >>> unseen = frl.envs.held_out(task, 2, {"kernels": 0.5}, after=4)
      >>> every = frl.envs.members(task, 6, {"kernels": 0.5})
      >>> np.array_equal(unseen.transition, every.transition[4:])
      True
    """
    every = members(task, after + num_members, levels, seed, centred)
    if all(np.array_equal(leaf[1:], leaf[:-1]) for leaf in jax.tree.leaves(every)):
        raise ValueError(
            f"levels is {brief(levels)}, at which all environments of {task.name} are the one in "
            "which agents learn; allowed: a level above 0, or a family"
        )
    return jax.tree.map(lambda leaf: leaf[after:], every)


def _disagree(params: Any, members: Any) -> bool:
    """Whether parameters are known not to be those of the first of some members.

    A copy of a family with other parameters beside its old members would run the members.
    """
    own, every = jax.tree.flatten(params), jax.tree.flatten(members)
    traced = any(isinstance(x, jax.core.Tracer) for x in (*own[0], *every[0]))
    if traced or own[1] != every[1]:  # brax leaves out what does not differ
        return False
    return not all(np.array_equal(all_[0], x) for all_, x in zip(every[0], own[0], strict=True))
