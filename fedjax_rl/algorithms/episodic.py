"""What the algorithms have in common whose round is one episode of every agent.

The learner sends its model down, every agent runs one episode, every agent may send one message,
the learner updates. The learner is a machine of its own: a federation of one communicates, too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fedjax_rl import fields, streams
from fedjax_rl.envs.tabular import check_mdp
from fedjax_rl.envs.task import Task
from fedjax_rl.federation import clock as clocks
from fedjax_rl.federation import uplinks
from fedjax_rl.federation.algorithm import Algorithm, describe_config
from fedjax_rl.federation.clock.arrivals import driven
from fedjax_rl.federation.ledger import Wire
from fedjax_rl.federation.state import State
from fedjax_rl.names import check_known
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

OPTIMIZERS = ("adam", "momentum", "sgd")

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
UPLINK = uplinks.UPLINK.or_none()
CLOCK = clocks.CLOCK.or_none()
LOOP = fields.word(LOOPS)
HIDDEN = fields.sizes()
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
        good = jnp.isfinite(value) & fine
        value = jnp.where(good, value, jnp.zeros_like(value))
        undiscounted = jnp.where(good, undiscounted, jnp.zeros_like(undiscounted))
        return Experience(value, undiscounted, steps, self.broken + (~good).astype(jnp.int32), good)


def no_experience() -> Experience:
    """Of an agent that has not begun."""
    return Experience(jnp.zeros(()), jnp.zeros(()), jnp.int32(0), jnp.int32(0), jnp.asarray(True))


def alike(population, agent):
    """Agents [A, ...] that all begin as the one that is given."""
    agents = population.num_agents
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (agents, *leaf.shape)), agent)


def first_key(population, keys):
    """The key of every federation's first member, for what its learner draws: [A] -> [F]."""
    data = population.first(jax.random.key_data(keys))
    return jax.random.wrap_key_data(data, impl=streams.IMPLEMENTATION)


def episode_keys(state: State) -> tuple:
    """Keys of this round's first states, and of what is drawn in its episodes."""
    return (
        streams.keys_of(state.keys, streams.Episodic.RESET, state.time),
        streams.keys_of(state.keys, streams.Episodic.EPISODE, state.time),
    )


def measure(population, state: State, wire: Wire, experience: Experience) -> dict:
    """The metrics of `METRICS`."""
    sent, size = state.sent.messages.astype(jnp.float32), state.sent.bytes(wire)
    size = size.astype(jnp.float32)
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

    Raises:
      ValueError: naming the property, its shape and what is allowed.
    """
    if fields.is_number(value) and np.ndim(value) and np.shape(value) != shape:
        raise ValueError(f"{name} is an array {list(np.shape(value))}; allowed: {list(shape)}")


def filled(value, shape: tuple[int, ...]):
    """A number, or an array of a shape, as a flat float64 array."""
    xp = np if fields.is_concrete(value) else jnp
    return xp.broadcast_to(xp.asarray(value, float), shape).reshape(-1)


def wire_of(config) -> Wire:
    """The format of messages, from the properties of that name."""
    return Wire(word_bytes=config.word_bytes, header_bytes=config.header_bytes)


def build(
    name: str,
    kind: type,
    factory: Callable,
    task: Task,
    values: dict,
    *,
    check: Callable = lambda config: None,
    parameters: Callable,
    functions: Callable,
    static: Callable,
    metrics: dict = METRICS,
    unit: str = "episode",
    headline: str = "reward",
    sampled: Callable = lambda config: "episodes are drawn from what is learned",
    draws: tuple[str, ...] = (),
) -> Algorithm:
    """An algorithm on a task, its properties checked.

    Args:
      name: as on the command line.
      kind: frozen dataclass of the properties, `task` first.
      factory: what makes the algorithm from the task and its properties.
      task: of every agent.
      values: of the properties.
      check: `config -> None`, raises ValueError where properties do not fit together.
      parameters: as in `Algorithm`.
      functions: as in `Algorithm`.
      static: as in `Algorithm`.
      metrics: as in `Algorithm`.
      unit: "episode"; "round" where a round has several of them, "step" where it has one step.
      headline: as in `Algorithm`.
      sampled: as in `Algorithm`.
      draws: as in `Algorithm`.

    Raises:
      ValueError: naming the property, its value and what is allowed.
    """
    known = [field.name for field in dataclasses.fields(kind)]
    for value in values:
        check_known(value, known, f"property of {name}")
    config = fields.check_config(kind(task=task, **values))
    check_task(config.task)
    check(config)
    return driven(
        Algorithm(
            name=name,
            config=config,
            factory=factory,
            parameters=parameters,
            functions=functions,
            static=static,
            metrics=metrics,
            describe=describe_config,
            unit=unit,
            headline=headline,
            sampled=sampled,
            draws=draws,
        )
    )


def optimizer_of(config) -> optax.GradientTransformation:
    """Directions of the optimiser of that name, not yet scaled by the learning rate.

    Momentum is left to the server step, so that its decay can be traced.
    """
    return optax.scale_by_adam() if config.optimizer == "adam" else optax.identity()


def uplink_of(config) -> uplinks.Uplink:
    """The uplink of a configuration, everything by default."""
    return uplinks.full() if config.uplink is None else config.uplink


def uplink_parameters(uplink: uplinks.Uplink, num_agents: int, numbers: int) -> dict:
    """Its traced values as a property of the federation, if it has any."""
    if uplink.send is None:
        return {}
    values = uplink.resolve(num_agents, numbers)
    return {"uplink": values}
