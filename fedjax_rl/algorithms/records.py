"""Records that several algorithms have within theirs."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax

from fedjax_rl import fields
from fedjax_rl.algorithms.define import Federated
from fedjax_rl.algorithms.episodic import check_task
from fedjax_rl.envs import heterogeneity
from fedjax_rl.envs.tabular import check_mdp
from fedjax_rl.envs.tabular_tasks import TASK
from fedjax_rl.envs.task import Task
from fedjax_rl.federation.state import Params
from fedjax_rl.fields.record import Record, environment, host, nested, record, static, traced
from fedjax_rl.learners import optimizers
from fedjax_rl.networks.mlp import ACTIVATIONS, INITIALIZERS


@record
class Network(Record):
    """A network of hidden layers.

    Example:
      >>> import fedjax_rl as frl
      >>> task = frl.envs.gymnax_task("CartPole-v1")
      >>> algorithm = frl.es(task, network=frl.Network(hidden=(64, 64), activation="relu"))
      >>> algorithm.replace(**{"network.activation": "tanh"}).config.network.hidden
      (64, 64)

    Attributes:
      hidden: units in each hidden layer.
      activation: of the hidden units, "tanh" or "relu".
      initializer: "normal" (weights N(0, 1 / inputs), biases 0), "uniform" (all parameters within
        +- 1 / sqrt(inputs)), "orthogonal" (times sqrt(2), 0.01 in the last layer; biases 0) or
        "zeros" (everything 0; for evolution strategies, as a gradient moves the last biases alone).
    """

    hidden: tuple[int, ...] = static((8, 8), fields.sizes())
    activation: str = static("tanh", fields.word(ACTIVATIONS))
    initializer: str = static("normal", fields.word(INITIALIZERS))


@record
class Optimizer(Record):
    """What a server makes of the mean of what its agents sent, before its learning rate.

    Example:
      >>> import fedjax_rl as frl
      >>> task = frl.envs.simple_grid(max_steps=20)
      >>> algorithm = frl.reinforce(task, optimizer={"name": "momentum", "momentum": 0.5})
      >>> algorithm.config.optimizer == frl.Optimizer(name="momentum", momentum=0.5)
      True

    Attributes:
      name: "sgd" (the mean as it is), "momentum" or "adam" (0.9, 0.999, 1e-8).
      momentum: of the optimizer "momentum", in [0, 1].
    """

    name: str = static("sgd", fields.word(("adam", "momentum", "sgd")))
    momentum: Any = traced(0.9, fields.PROBABILITY)

    def init(self, parameters) -> tuple:
        """What it keeps at first: Optax's state, and a velocity like the parameters."""
        rule = optax.scale_by_adam() if self.name == "adam" else optax.identity()
        return rule.init(parameters), jax.tree.map(jnp.zeros_like, parameters)

    def direction(self, uphill, state: tuple, parameters, momentum) -> tuple:
        """The direction of the next step.

        Args:
          uphill: a pytree like the parameters.
          state: as of `init`.
          parameters: of the model.
          momentum: scalar; the property of that name, traced.

        Returns:
          The direction, a pytree like the parameters, and the state after.
        """
        state, velocity = state
        direction = uphill
        if self.name == "adam":
            direction, state = optimizers.scaled_by_adam(uphill, state, 1e-8)
        if self.name == "momentum":
            # Not Optax's, whose decay is a constant of the program.
            velocity = jax.tree.map(lambda v, x: momentum * v + x, velocity, direction)
            direction = velocity
        return direction, (state, velocity)


@record
class GradientOptimizer(Record):
    """What becomes of a gradient before the learning rate.

    Example:
      >>> import fedjax_rl as frl
      >>> task = frl.envs.gymnax_task("CartPole-v1")
      >>> algorithm = frl.feda2c(task, optimizer={"name": "rmsprop", "decay": 0.9})
      >>> algorithm.config.optimizer == frl.GradientOptimizer(name="rmsprop", decay=0.9)
      True

    Attributes:
      name: "rmsprop", "adam" (0.9, 0.999), "momentum" (the running mean of gradients) or "sgd" (the
        gradient as it is).
      decay: of the mean of squares of "rmsprop", of the mean of "momentum", in [0, 1].
      epsilon: above 0; of "rmsprop" below the root, of "adam" beside it.
    """

    name: str = static("adam", fields.word(optimizers.NAMES))
    decay: Any = traced(0.99, fields.PROBABILITY)
    epsilon: Any = traced(1e-5, fields.POSITIVE)


def of_policy(config: Record, name: str, table: bool):
    """A property of a record, or its default `by_policy=(table, network)` where it is None.

    Args:
      config: of an algorithm with a policy.
      name: of the property.
      table: whether the policy is a table.
    """
    value = getattr(config, name)
    if value is not None:
        return value
    (own,) = (field for field in dataclasses.fields(config) if field.name == name)
    return own.metadata["by_policy"][0 if table else 1]


def resolved_by_policy(config: Record, table: bool):
    """A record with the defaults of a table, or of a network.

    Args:
      config: of an algorithm with a policy.
      table: whether the policy is a table.
    """
    missing = {
        field.name: of_policy(config, field.name, table)
        for field in dataclasses.fields(config)
        if "by_policy" in field.metadata and getattr(config, field.name) is None
    }
    return dataclasses.replace(config, **missing) if missing else config


@contextlib.contextmanager
def _said_of(words: str) -> Iterator[None]:
    """Refusals within, of whoever makes the environments, begin with the property, `words`."""
    try:
        yield
    except ValueError as error:
        if str(error).startswith(words[: words.index(".") + 1]):
            raise
        raise ValueError(f"{words}: {error}") from error


@record
class Heterogeneity(Record):
    """How the agents' environments differ; they are made on the host.

    Example:
      >>> import fedjax_rl as frl
      >>> task = frl.envs.gymnax_task("CartPole-v1")
      >>> algorithm = frl.fedpg(task, heterogeneity={"level": 0.3, "of": ("gravity",)})
      >>> own = algorithm.config.heterogeneity.members(task, num_agents=4)
      >>> own.gravity.shape, len(set(own.gravity.tolist()))
      ((4,), 4)

    Attributes:
      level: of the difference, at least 0; at 0 they are alike.
      of: what differs, such as gravity or kernels; by default all but what has a unit of its own,
        such as the width of the first states.
      seed: of the differences.
    """

    level: float = host(0.0, fields.NOT_NEGATIVE._replace(traced=False))
    of: tuple[str, ...] | None = host(None, fields.words().or_none())
    seed: int = host(0, fields.SEED)

    @property
    def some(self) -> bool:
        """Whether the level is, or may be, above 0."""
        return not (fields.is_number(self.level) and self.level == 0)

    def members(self, task: Task, num_agents: int):
        """Parameters of the agents' environments, leaves [N, ...].

        Args:
          task: of all agents, or a family of tasks.
          num_agents: N.

        Raises:
          ValueError: a family with fewer members, or a level that a part cannot have.
        """
        own = heterogeneity.members(task, num_agents, self.levels(task), self.seed)
        if task.tabular:
            check_mdp(own, "task.members")
        return own

    def levels(self, task: Task, name: str = "heterogeneity.level") -> dict[str, float]:
        """The level of every part that differs.

        Args:
          task: of all agents.
          name: of the level, for the message.

        Raises:
          ValueError: a level that a part cannot have.
        """
        varied = self.of or heterogeneity.comparable(task)
        for part in varied:
            heterogeneity.check_part(name, task, part, self.level)
        return dict.fromkeys(varied, self.level)

    def check_of(self, task: Task) -> None:
        """Refuses differences that a task cannot have.

        Raises:
          ValueError: an unknown part, a level out of range, or anything but 0 where nothing can
            differ.
        """
        known = heterogeneity.parts(task)
        if self.of is not None:
            fields.check("heterogeneity.of", self.of, fields.words(known))
        if not known and self.some:
            raise ValueError(
                f"heterogeneity.level is {self.level} on {task.name}, of which nothing can be "
                "varied; allowed: 0"
            )
        if known and fields.is_number(self.level):
            with _said_of(f"heterogeneity.level is {self.level} on {task.name}"):
                self.members(task, 1)


@record
class HeldOut(Record):
    """Environments in which no agent learns, where the server's model is measured besides.

    They are the next members of the agents' family: those of agents of a larger federation.

    Example:
      >>> import fedjax_rl as frl
      >>> task = frl.envs.gymnax_task("CartPole-v1")
      >>> algorithm = frl.fedpg(task, heterogeneity=0.3, held_out={"members": 4, "after": 16})
      >>> algorithm.metrics["held_out_return"][0]
      'federation'

    Attributes:
      members: M, how many; 0 for none.
      episodes: in each of them for a record, at least 1, where the value is not known exactly.
      after: N, the agents of the largest federation that is compared, so that all are measured in
        the same environments; by default those of the federation.
      level: of the difference to the task, as of `Heterogeneity`; by default that of the agents.
      of: what differs, likewise.
      seed: of the differences, likewise.
    """

    members: int = static(0, fields.whole(0))
    episodes: int = static(10, fields.COUNT)
    after: int | None = host(None, fields.COUNT.or_none())
    level: float | None = host(None, fields.NOT_NEGATIVE.fixed().or_none())
    of: tuple[str, ...] | None = host(None, fields.words().or_none())
    seed: int | None = host(None, fields.SEED.or_none())

    def environments(self, task: Task, num_agents: int, agents: Heterogeneity):
        """Parameters of the environments, leaves [M, ...].

        Args:
          task: of all agents, or a family of tasks.
          num_agents: N.
          agents: how their environments differ.

        Raises:
          ValueError: environments of agents among them, a family with too few members, or a level
            that a part cannot have.
        """
        after = num_agents if self.after is None else self.after
        if after < num_agents:
            raise ValueError(
                f"held_out.after is {after} with num_agents {num_agents}; allowed: at least as many"
            )
        given = {n: getattr(self, n) for n in ("level", "of", "seed")}
        kind = dataclasses.replace(agents, **{n: x for n, x in given.items() if x is not None})
        whose = "heterogeneity" if self.level is None else "held_out"
        levels = kind.levels(task, f"{whose}.level")
        # On the host, as the agents' are: N is known here, where a family may be too small.
        own = heterogeneity.held_out(task, self.members, levels, kind.seed, after=after)
        if task.tabular:
            check_mdp(own, "task.members")
        return own

    def check_of(self, task: Task, agents: Heterogeneity) -> None:
        """Refuses environments that cannot be, or are no others than those of the agents.

        Args:
          task: of all agents.
          agents: how their environments differ.

        Raises:
          ValueError: naming the part of the record.
        """
        # Also where there are no members: what nobody asks for is refused where it stands.
        if self.of is not None:
            fields.check("held_out.of", self.of, fields.words(heterogeneity.parts(task)))
        if not self.members:
            return
        if self.level is not None or fields.is_number(agents.level):
            # What is wrong at every N is said at once, not when a run begins.
            with _said_of(f"held_out.members is {self.members} on {task.name}"):
                self.environments(task, 1, agents)

    def derived(self, task: Task, num_agents: int, agents: Heterogeneity) -> dict:
        """What of it is traced, of a federation: nothing unless it is asked for.

        Args:
          task: of all agents.
          num_agents: N.
          agents: how their environments differ.

        Returns:
          By name, leaves [M, ...].
        """
        if not self.members:
            return {}
        return {"held_out": self.environments(task, num_agents, agents)}


@record
class Varied(Federated):
    """Properties of algorithms whose agents may live in different environments.

    Attributes:
      task: of every agent; a family gives each its own.
      heterogeneity: of the agents' environments.
      held_out: environments in which no agent learns, for a metric of their own.
    """

    task: Task = environment(TASK, by="host")
    heterogeneity: Heterogeneity = nested(Heterogeneity)
    held_out: HeldOut = nested(HeldOut)

    @property
    def differs(self) -> bool:
        """Whether agents are handed environments of their own."""
        return self.heterogeneity.some or self.task.members is not None or self.task.tabular

    def check(self) -> None:
        """Refuses environments that cannot be, or cannot differ in that way."""
        check_task(self.task)
        self.heterogeneity.check_of(self.task)
        self.held_out.check_of(self.task, self.heterogeneity)

    def static(self) -> tuple:
        """The task, or what of it is the same for all agents."""
        return (self.task.static if self.differs else self.task), self.differs

    def derived(self, num_agents: int) -> Params:
        """The agents' environments, if they have their own, and those held out."""
        unseen = self.held_out.derived(self.task, num_agents, self.heterogeneity)
        if not self.differs:
            return Params({}, unseen, {})
        own = self.heterogeneity.members(self.task, num_agents)
        return Params({"environment": own}, unseen, {})
