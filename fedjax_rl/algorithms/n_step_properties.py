"""Properties of agents that learn policy and value from n steps of each of their environments."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fedjax_rl import fields, memory, streams
from fedjax_rl.algorithms import episodic
from fedjax_rl.algorithms.fedppo_properties import PPONetwork, filled
from fedjax_rl.algorithms.learned import check_memory
from fedjax_rl.algorithms.records import GradientOptimizer, Varied
from fedjax_rl.federation.ledger import Wire
from fedjax_rl.federation.state import Params
from fedjax_rl.fields.record import Record, nested, record, static, traced
from fedjax_rl.learners import a2c, microbatches
from fedjax_rl.learners.actor_critic import ActorCritic, actor_critic_for
from fedjax_rl.learners.sight import is_picture
from fedjax_rl.remembered import remembered
from fedjax_rl.rollouts import batches, vectorised

NORMALISATIONS = ("none", "rollout")


@record
class A2CLoss(Record):
    """The loss of an advantage actor-critic.

    Attributes:
      value_coefficient: of half the squared error, at least 0.
      entropy_coefficient: at least 0.
      normalize: advantages over the "rollout" of an agent, or "none".
    """

    value_coefficient: Any = traced(0.5, fields.NOT_NEGATIVE)
    entropy_coefficient: Any = traced(0.01, fields.NOT_NEGATIVE)
    normalize: str = static("none", fields.word(NORMALISATIONS))


class Copies(NamedTuple):
    """How often what is large is there in a federation at one moment.

    Attributes:
      vectors: of as many numbers as there are parameters.
      rollouts: that are made and learned from at once.
    """

    vectors: int
    rollouts: int


@record
class NStep(Varied):
    """Properties of all of them.

    Attributes:
      learning_rate: of the optimiser, above 0.
      optimizer: of what learns: every agent, or the server.
      num_envs: E, environments of an agent.
      rollout_steps: n, steps of each in a rollout.
      discount: gamma, in [0, 1].
      gae_lambda: lambda of the advantages, in [0, 1]; 1 for n-step ones.
      loss: that is made smaller.
      gradient_clip: largest norm of an agent's gradient, above 0; may be infinite.
      reward_scale: factor of the rewards that are learned from, above 0.
      bootstrap_timeouts: whether the value goes on where an episode is cut off; otherwise a
        timeout is an end.
      network: of policy and value; by default "mlp", or "impala-small" where observations are
        pictures.
      deviation: first standard deviation of continuous actions, above 0; it is learned.
      evaluation_episodes: of the server's network, per agent and record; 0 for no evaluation.
      wire: the format of messages.
      derivative: as of `Federated`; "pathwise" is exact given the data, through every update and
        all that is computed of observations and actions. A return is data, its derivative 0.
    """

    learning_rate: Any = traced(2e-3, fields.POSITIVE)
    optimizer: GradientOptimizer = nested(GradientOptimizer)
    num_envs: int = static(8, fields.COUNT)
    rollout_steps: int = static(16, fields.COUNT)
    discount: Any = traced(0.99, fields.PROBABILITY)
    gae_lambda: Any = traced(0.95, fields.PROBABILITY)
    loss: A2CLoss = nested(A2CLoss)
    gradient_clip: Any = traced(0.5, fields.number(0, above=True, infinite=True))
    reward_scale: Any = traced(1.0, fields.POSITIVE)
    bootstrap_timeouts: bool = static(True, fields.switch())
    network: PPONetwork = nested(PPONetwork)
    deviation: float = static(1.0, episodic.DEVIATION)
    evaluation_episodes: int = static(0, fields.whole(0))
    wire: Wire = nested(Wire)

    def check(self) -> None:
        """Refuses a network that does not fit the task."""
        super().check()
        policy_of(self.resolved())

    def with_defaults(self):
        """With the network that fits the task."""
        if self.network.kind is not None:
            return self
        return filled(self, {"network.kind": "impala-small" if is_picture(self.task) else "mlp"})

    def static(self) -> tuple:
        """Besides the task the network."""
        return *super().static(), policy_of(self).module

    def derived(self, num_agents: int) -> Params:
        """The agents' environments, if there is memory for what is kept."""
        check_memory("num_envs", self.num_envs, memory_of(self, num_agents), num_agents)
        return super().derived(num_agents)

    def copies(self, num_agents: int) -> Copies:
        """What there is of a federation: of agents that learn parameters and moments, all at once.

        Args:
          num_agents: N.
        """
        return Copies(3 * num_agents, num_agents)


# The numbers that a rollout and a step of descent read.
WEIGHTS = (
    *("learning_rate", "discount", "gae_lambda", "gradient_clip", "reward_scale"),
    *("loss.value_coefficient", "loss.entropy_coefficient"),
    *("optimizer.decay", "optimizer.epsilon"),
)


def policy_of(config: NStep) -> ActorCritic:
    """Policy and value of all agents, of a configuration that is resolved."""
    own = config.network
    return _policy(config.task, own.kind, own.hidden, own.activation, config.deviation)


@remembered()
def _policy(task, kind, hidden, activation, deviation) -> ActorCritic:
    return actor_critic_for(task, kind, hidden=hidden, activation=activation, deviation=deviation)


def memory_of(config: NStep, num_agents: int = 1) -> dict[str, int]:
    """Bytes that a federation needs, from the shapes of its arrays; nothing is compiled.

    Args:
      config: of an algorithm.
      num_agents: N.

    Returns:
      "parameters" (with what is kept or sent in as many numbers), "environments", "rollout" (with
      what a backward pass keeps of a microbatch of it) and "total": what lasts is written in place,
      a step has the gradients of all agents beside it, and of a rollout about two thirds are there
      at a time; where it is learned in microbatches, two copies or three of what was seen.
    """
    config = config.resolved()
    copies = config.copies(num_agents)
    each = _memory(config.task, policy_of(config), config.num_envs, config.rollout_steps)
    found = {
        "parameters": copies.vectors * each["parameters"],
        "environments": num_agents * each["environments"],
        "rollout": copies.rollouts * each["rollout"],
    }
    lasting = found["parameters"] + found["environments"]
    # As compiled, or more by a third at most (`tests/test_costs.py`).
    beside = num_agents * each["parameters"] + copies.rollouts * each["at a time"]
    return {**found, "total": lasting + beside}


@remembered()
def _memory(task, policy, num_envs: int, num_steps: int) -> dict[str, int]:
    """Of one vector of parameters, the environments of one agent, and one rollout."""

    def parts(key):
        keys = jax.random.split(key, 1)
        collector = vectorised.begin(task, keys, num_envs, scale=False, late=False)
        batch = batches.empty_batch(task, policy, num_envs, num_steps)
        return policy.init(key), collector, batch

    def backward(parameters, batch, weight):
        names = ("loss.value_coefficient", "loss.entropy_coefficient")
        weights = dict.fromkeys(names, weight)
        return jax.vjp(lambda p: a2c.loss(policy, p, batch, weights)[0], parameters)[1]

    parameters, collector, batch = jax.eval_shape(parts, streams.any_key())
    number = jax.ShapeDtypeStruct((), jnp.float32)
    size = microbatches.at_once(policy.shape, num_envs * num_steps)
    some = jax.tree.map(lambda x: jax.ShapeDtypeStruct((size, 1, *x.shape[2:]), x.dtype), batch)
    kept = jax.eval_shape(backward, parameters, some, number)
    seen, rollout = memory.size(batch), memory.size((batch, kept))
    whole = size == num_envs * num_steps
    return {
        "parameters": memory.size(parameters),
        "environments": memory.size(collector),
        "rollout": rollout,
        "at a time": rollout * 2 // 3 if whole else rollout + seen * 3 // 2,
    }
