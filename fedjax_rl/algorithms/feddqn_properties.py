"""Properties of FedDQN, and how much memory they ask for."""

from __future__ import annotations

from typing import Any

import jax

from fedjax_rl import fields, memory, streams
from fedjax_rl.algorithms.define import Averaged
from fedjax_rl.algorithms.learned import MOMENTS, check_memory
from fedjax_rl.algorithms.records import Network, Varied
from fedjax_rl.federation.ledger import Wire
from fedjax_rl.federation.state import Params
from fedjax_rl.fields.record import Record, nested, record, static, traced
from fedjax_rl.learners import deep_q, replay
from fedjax_rl.learners.optimizers import no_moments
from fedjax_rl.learners.sight import is_picture, seen
from fedjax_rl.networks.heads import NETWORKS
from fedjax_rl.remembered import remembered
from fedjax_rl.rollouts import transitions


@record
class Exploration(Record):
    """How likely an action is a random one; constant where `first` is `last`.

    Attributes:
      first: epsilon at first, in [0, 1].
      last: epsilon at last, in [0, 1].
      steps: in which it falls linearly from one to the other, above 0.
    """

    first: Any = traced(1.0, fields.PROBABILITY)
    last: Any = traced(0.05, fields.PROBABILITY)
    steps: Any = traced(1000, fields.POSITIVE)


@record
class Target(Record):
    """How a target network follows what is learned.

    Attributes:
      every: updates between its moves.
      tau: part of the way that it then moves, in [0, 1]; 1 makes it a copy.
    """

    every: int = static(500, fields.COUNT)
    tau: Any = traced(1.0, fields.PROBABILITY)


@record
class QNetwork(Network):
    """The network of the values of actions.

    Attributes:
      hidden: units in each hidden layer, of "mlp".
      activation: of the hidden units, "tanh" or "relu".
      initializer: of "mlp", as of `Network`.
      kind: "mlp", or for pictures "classic", "impala", "impala-small" or a "vit"; by default "mlp",
        or "classic" where observations are pictures.
    """

    kind: str | None = static(None, fields.word(NETWORKS).or_none())


@record
class FedDQN(Varied, Averaged):
    """Properties of FedDQN.

    Attributes:
      learning_rate: of Adam, above 0.
      discount: gamma, in [0, 1].
      num_envs: E, environments of an agent; each is stepped once in a step.
      buffer_size: transitions that an agent keeps, a multiple of the environments.
      batch_size: B, transitions of an update.
      learning_starts: transitions that an agent has to have made before it learns.
      update_every: steps between times at which an agent learns.
      updates: made then, M.
      double: whether what is learned chooses the action of the target and the target network says
        what it is worth; otherwise the target network does both.
      loss: "huber" or "squared", of the errors.
      gradient_clip: largest norm of a gradient, above 0; may be infinite.
      adam_epsilon: above 0.
      moments: Adam's at an average: "local" (each agent goes on with its own), "average" (they are
        sent, too) or "reset".
      exploration: of the agents.
      target: the target network. An average leaves it as it is.
      network: of the values of actions.
      evaluation_episodes: of the server's network, per agent and record; 0 for no evaluation.
      wire: the format of messages.
      derivative: as of `Federated`; "pathwise" is exact given the data, through every update and
        all that is computed of observations and actions. A return is data, its derivative 0.
    """

    learning_rate: Any = traced(1e-3, fields.POSITIVE)
    discount: Any = traced(0.99, fields.PROBABILITY)
    num_envs: int = static(8, fields.COUNT)
    buffer_size: int = static(10_000, fields.COUNT)
    batch_size: int = static(64, fields.COUNT)
    learning_starts: int = static(1000, fields.whole(0))
    update_every: int = static(1, fields.COUNT)
    updates: int = static(1, fields.COUNT)
    double: bool = static(True, fields.switch())
    loss: str = static("huber", fields.word(deep_q.LOSSES))
    gradient_clip: Any = traced(10.0, fields.number(0, above=True, infinite=True))
    adam_epsilon: Any = traced(1e-8, fields.POSITIVE)
    moments: str = static("local", fields.word(MOMENTS))
    exploration: Exploration = nested(Exploration)
    target: Target = nested(Target)
    network: QNetwork = nested(QNetwork, hidden=(64, 64), activation="relu", initializer="uniform")
    evaluation_episodes: int = static(0, fields.whole(0))
    wire: Wire = nested(Wire)

    def check(self) -> None:
        """Refuses what does not fit together."""
        super().check()
        network_of(self)
        if self.buffer_size % self.num_envs:
            raise ValueError(
                f"buffer_size is {self.buffer_size}; allowed: multiples of num_envs {self.num_envs}"
            )
        if self.buffer_size < self.batch_size:
            raise ValueError(
                f"buffer_size is {self.buffer_size}; allowed: at least batch_size {self.batch_size}"
            )

    def derived(self, num_agents: int) -> Params:
        """The agents' environments, if there is memory for what agents keep."""
        check_memory("buffer_size", self.buffer_size, memory_of(self, num_agents), num_agents)
        return super().derived(num_agents)


def network_of(config: FedDQN) -> deep_q.QNetwork:
    """Values of actions, of all agents."""
    own = config.network
    kind = own.kind or ("classic" if is_picture(config.task) else "mlp")
    return _network(config.task, kind, own.hidden, own.activation, own.initializer)


@remembered()
def _network(task, kind, hidden, activation, initializer) -> deep_q.QNetwork:
    shape = {"hidden": hidden, "activation": activation, "initializer": initializer}
    return deep_q.q_network_for(task, kind, **shape)


def memory_of(config: FedDQN, num_agents: int = 1) -> dict[str, int]:
    """Bytes that a federation needs, from the shapes of its arrays; nothing is compiled.

    Args:
      config: of an algorithm.
      num_agents: N.

    Returns:
      "parameters" (with Adam's moments and the target network), "replay", "environments", "batch"
      (with what a backward pass keeps of it), and "total": what lasts is written in place, and an
      update has all that it changes of the parameters beside it.
    """
    slots = config.buffer_size // config.num_envs
    each = _memory(config.task, network_of(config), config.num_envs, slots, config.batch_size)
    found = {name: num_agents * size for name, size in each.items()}
    return {**found, "total": sum(found.values()) + found["parameters"]}


@remembered()
def _memory(task, q: deep_q.QNetwork, num_envs: int, slots: int, batch: int) -> dict[str, int]:
    def backward(key):
        part = replay.empty(seen(task), (1, batch)).observation[0]
        return part, jax.vjp(lambda p: q.apply(p, part)[0], q.init(key))[1]

    def parts(key):
        weights = q.init(key)
        keys = jax.random.split(key, num_envs)
        ring = replay.empty(seen(task), (slots, num_envs))
        learned = weights, weights, no_moments(weights)
        return learned, ring, transitions.begin(task, keys), backward(key)

    names = ("parameters", "replay", "environments", "batch")
    found = zip(names, jax.eval_shape(parts, streams.any_key()), strict=True)
    return {name: memory.size(tree) for name, tree in found}
