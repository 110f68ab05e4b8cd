"""What the algorithms have in common whose round is one episode of every agent.

The learner sends its model down, every agent runs one episode, every agent may send one message,
the learner updates. The learner is a machine of its own: a federation of one communicates, too.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl import fields, streams
from fedjax_rl.envs.tabular import check_mdp
from fedjax_rl.envs.task import Task
from fedjax_rl.federation.algorithm import Own
from fedjax_rl.federation.ledger import Wire
from fedjax_rl.federation.state import State
from fedjax_rl.rollouts.loops import LOOPS

METRICS = {
    "reward": ("federation", "mean over the agents of the discounted return of their episode"),
    "return": ("federation", "mean over the agents of the undiscounted return of their episode"),
    "frequency": ("federation", "messages per agent and episode"),
    "size": ("federation", "bytes sent per agent and episode"),
    "episode_steps": ("federation", "mean over the agents of the steps of their episode"),
    "non_finite": ("federation", "episodes so far whose outcome was not finite and counted as 0"),
    "reward_of_agent": ("agent", "discounted return of each agent's episode"),
    "return_of_agent": ("agent", "undiscounted return of each agent's episode"),
    "sent": ("agent", "whether each agent sent a message"),
    "bytes": ("agent", "size of each agent's message in bytes, 0 where none was sent"),
}

# An episode is made by its agent alone, with what the server sent down before it.
OWN = {
    "reward": Own("reward_of_agent", "round"),
    "return": Own("return_of_agent", "round"),
    "reward_of_agent": Own("reward_of_agent", "round"),
    "return_of_agent": Own("return_of_agent", "round"),
}

# What properties of the same name may be in every algorithm.
TASK = fields.instance(
    Task,
    text="an episodic task, one environment for all agents, such as envs.simple_grid() or "
    "envs.gymnax_task('CartPole-v1')",
    where=lambda task: task.members is None,
)
GRID = fields.instance(
    Task,
    text="a grid world, one for all agents, such as envs.simple_grid() or envs.frozen_lake()",
    where=lambda task: task.grid is not None and task.members is None,
)
LOOP = fields.word(LOOPS)
# The first deviation of a policy, part of its program.
DEVIATION = fields.POSITIVE.fixed()


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Experience:
    """What is kept of an agent's last episode.

    Attributes:
      value: discounted return, float.
      undiscounted: the sum of the rewards, float.
      steps: int32.
      broken: int32, episodes so far whose outcome was not finite.
      fine: bool, whether that of the last one was.
    """

    value: jax.Array
    undiscounted: jax.Array
    steps: jax.Array
    broken: jax.Array
    fine: jax.Array

    def following(self, value, undiscounted, steps, fine=True) -> Experience:
        """The experience after an episode; a return that is not finite counts as 0.

        Args:
          value: its discounted return.
          undiscounted: the sum of its rewards.
          steps: its length.
          fine: whether everything else that came of it is finite.
        """
        # One episode that diverged would leave its federation nan for ever; it is counted instead.
        good = jnp.isfinite(value) & fine
        value = jnp.where(good, value, jnp.zeros_like(value))
        undiscounted = jnp.where(good, undiscounted, jnp.zeros_like(undiscounted))
        return Experience(value, undiscounted, steps, self.broken + (~good).astype(jnp.int32), good)


def no_experience() -> Experience:
    """Of an agent that has not begun."""
    return Experience(jnp.zeros(()), jnp.zeros(()), jnp.int32(0), jnp.int32(0), jnp.asarray(True))


def episode_keys(state: State) -> tuple:
    """Keys of this round's first states, and of what is drawn in its episodes."""
    return pair_of(state.keys, state.time)


def pair_of(keys, *places) -> tuple:
    """Keys of first states, and of what is drawn in episodes, as `streams.keys_of`.

    Args:
      keys: typed keys [A].
      *places: the time to be folded in besides, or nothing.

    Returns:
      Two of [A].
    """
    kinds = streams.Episodic.RESET, streams.Episodic.EPISODE
    return tuple(streams.keys_of(keys, kind, *places) for kind in kinds)


def measure(population, state: State, wire: Wire, experience: Experience) -> dict:
    """The metrics of `METRICS`.

    Args:
      population: who belongs to whom.
      state: of now; tells what was sent.
      wire: the format of messages.
      experience: of the agents, leaves [A].

    Returns:
      Name -> [F], or [A] of those of agents.
    """
    sent, size = state.sent.messages.astype(jnp.float32), state.sent.bytes(wire)
    return {
        "reward": population.mean(experience.value),
        "return": population.mean(experience.undiscounted),
        "frequency": population.mean(sent),
        "size": population.mean(size),
        "episode_steps": population.mean(experience.steps.astype(jnp.float32)),
        "non_finite": population.sum(experience.broken).astype(jnp.float32),
        "reward_of_agent": experience.value,
        "return_of_agent": experience.undiscounted,
        "sent": sent,
        "bytes": size,
    }


def check_task(task: Task) -> None:
    """Refuses what somebody may have put into a task by hand and no environment computes with.

    Raises:
      ValueError: naming the part, its value and what is allowed.
    """
    if task.tabular:
        check_mdp(task.params, "task.params")
    if task.grid is not None:
        check_mdp(task.grid.mdp, "task.grid.mdp", undiscounted=True)
    for path, leaf in jax.tree_util.tree_leaves_with_path(task.params):
        values = fields.real_array(leaf) if fields.is_concrete(leaf) else None
        if values is not None and np.isnan(values).any():
            where = jax.tree_util.keystr(path)
            raise ValueError(f"task.params{where} is nan; allowed: numbers")


def check_shape(name: str, value, shape: tuple[int, ...]) -> None:
    """Refuses an array of another shape than the one that is learned; a number fills it.

    Args:
      name: of the property.
      value: a number, an array or what stands for one.
      shape: what is allowed.

    Raises:
      ValueError: naming the property, its shape and what is allowed.
    """
    if fields.is_number(value) and np.ndim(value) and np.shape(value) != shape:
        raise ValueError(f"{name} is an array {list(np.shape(value))}; allowed: {list(shape)}")


def filled(value, shape: tuple[int, ...]):
    """A number, or an array of a shape, as a flat array.

    Args:
      value: a number or an array.
      shape: of what is learned.

    Returns:
      Float [product of the shape]: float64, or, where the value is traced, the run's precision.
    """
    xp = np if fields.is_concrete(value) else jnp
    return xp.broadcast_to(xp.asarray(value, float), shape).reshape(-1)
