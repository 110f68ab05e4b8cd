"""Policies whose actions have a probability: a softmax table, and networks.

A policy is a frozen record of functions of one flat vector of parameters [q], which is what agents
exchange. Everything is for one agent; callers vmap.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from fedjax_rl import fields, streams
from fedjax_rl.envs.task import Continuous, Discrete, Task
from fedjax_rl.learners import policies
from fedjax_rl.names import check_known
from fedjax_rl.networks import MLP
from fedjax_rl.networks.mlp import INITIALIZERS

POLICIES = ("table", "mlp")

_DEVIATION = fields.number(0, above=True, follows=False)


def _check_network(policy) -> None:
    fields.check("network", policy.network, fields.instance(MLP))
    fields.check("encode", policy.encode, fields.FUNCTION)
    check_known(policy.initializer, INITIALIZERS, "initializer")


def _as_it_is(observation):
    return observation


class Policy:
    """What the estimators need of a policy.

    Attributes:
      num_parameters: q.
    """

    num_parameters: int

    def init(self, key) -> jax.Array:
        """First parameters, float [q]."""
        raise NotImplementedError

    def sample(self, parameters, observation, word) -> jax.Array:
        """Draws an action.

        Args:
          parameters: [q].
          observation: as the environment gives it.
          word: uint32 scalar, random.
        """
        raise NotImplementedError

    def log_prob(self, parameters, observation, action) -> jax.Array:
        """Logarithm of the probability, or of the density, of an action; a scalar."""
        raise NotImplementedError

    def performed(self, action) -> jax.Array:
        """What the environment is told to do when this action was drawn."""
        return action

    def log_probs(self, parameters, observation, action) -> jax.Array:
        """`log_prob` of T steps, [T].

        Args:
          parameters: [q].
          observation: [T, ...].
          action: [T, ...].
        """
        return jax.vmap(self.log_prob, in_axes=(None, 0, 0))(parameters, observation, action)

    def score(self, parameters, observation, action, weight) -> jax.Array:
        """Weighted sum of scores, [q]: `sum_t weight_t grad log pi(action_t | observation_t)`.

        One backward pass.

        Args:
          parameters: [q].
          observation: [T, ...].
          action: [T, ...].
          weight: [T].
        """

        def total(parameters):
            return jnp.sum(weight * self.log_probs(parameters, observation, action))

        return jax.grad(total)(parameters)


@dataclasses.dataclass(frozen=True)
class SoftmaxTable(Policy):
    """Softmax of one preference per state and action, laid out state by state; zeros at first.

    Attributes:
      num_states: S; observations are states in 0..S-1, an int32 scalar.
      num_actions: U.
    """

    num_states: int
    num_actions: int

    def __post_init__(self) -> None:
        """Checks the sizes; a ValueError names what is not allowed."""
        fields.check("num_states", self.num_states, fields.COUNT)
        fields.check("num_actions", self.num_actions, fields.COUNT)

    @property
    def num_parameters(self) -> int:
        """S U."""
        return self.num_states * self.num_actions

    def init(self, key) -> jax.Array:
        """Zeros: every action is as likely as any other; the key is not needed."""
        del key
        return jnp.zeros(self.num_parameters)

    def logits(self, parameters) -> jax.Array:
        """The preferences [S, U]."""
        return parameters.reshape(self.num_states, self.num_actions)

    def sample(self, parameters, observation, word) -> jax.Array:
        """An action in 0..U-1; as in `Policy`."""
        return policies.categorical(self.logits(parameters)[observation], word)

    def log_prob(self, parameters, observation, action) -> jax.Array:
        """As in `Policy`."""
        return jax.nn.log_softmax(self.logits(parameters)[observation])[action]

    def log_probs(self, parameters, observation, action) -> jax.Array:
        """As in `Policy`; the softmax is taken of the table and not of every step."""
        logs = jnp.ravel(jax.nn.log_softmax(self.logits(parameters), axis=-1))
        return logs[self._place(observation, action)]

    def score(self, parameters, observation, action, weight) -> jax.Array:
        """As in `Policy`, in closed form.

        Row s of the sum is what its actions weigh, minus the probabilities times what the visits
        of s weigh.
        """
        place = self._place(observation, action)
        taken = jnp.zeros_like(parameters).at[place].add(weight.astype(parameters.dtype))
        taken = self.logits(taken)
        chances = jax.nn.softmax(self.logits(parameters), axis=-1)
        return jnp.ravel(taken - chances * jnp.sum(taken, axis=-1, keepdims=True))

    def _place(self, observation, action) -> jax.Array:
        """Where the preference is among the parameters."""
        return observation * self.num_actions + action


@dataclasses.dataclass(frozen=True)
class Categorical(Policy):
    """Softmax of the outputs of a network.

    Attributes:
      network: one output per action.
      encode: from an observation to what the network sees, as of an `envs.Task`.
      initializer: of the network.
    """

    network: MLP
    encode: Callable = _as_it_is
    initializer: str = "normal"

    def __post_init__(self) -> None:
        """Checks the parts; a ValueError names what is not allowed."""
        _check_network(self)

    @property
    def num_parameters(self) -> int:
        """Those of the network."""
        return self.network.num_parameters

    def init(self, key) -> jax.Array:
        """As the network's."""
        return self.network.init(key, self.initializer)

    def outputs(self, parameters, observation) -> jax.Array:
        """What the softmax is taken of, [U]."""
        return self.network.apply(parameters, self.encode(observation).astype(parameters.dtype))

    def sample(self, parameters, observation, word) -> jax.Array:
        """An action in 0..U-1; as in `Policy`."""
        return policies.categorical(self.outputs(parameters, observation), word)

    def log_prob(self, parameters, observation, action) -> jax.Array:
        """As in `Policy`."""
        return jax.nn.log_softmax(self.outputs(parameters, observation))[action]


@dataclasses.dataclass(frozen=True)
class Gaussian(Policy):
    """Independent normal actions: means from a network, deviations the same in every state.

    The parameters are the network's and then the logarithms of the deviations [M]. The environment
    gets the action clipped to [-1, 1]; the density is that of the action before.

    Attributes:
      network: M outputs, the means.
      encode: as of `Categorical`.
      initializer: of the network.
      deviation: at first, above 0.
    """

    network: MLP
    encode: Callable = _as_it_is
    initializer: str = "normal"
    deviation: float = 0.5

    def __post_init__(self) -> None:
        """Checks the parts; a ValueError names what is not allowed."""
        _check_network(self)
        fields.check("deviation", self.deviation, _DEVIATION)

    @property
    def num_actions(self) -> int:
        """M."""
        return self.network.sizes[-1]

    @property
    def num_parameters(self) -> int:
        """Those of the network and M."""
        return self.network.num_parameters + self.num_actions

    def init(self, key) -> jax.Array:
        """As the network's, with the deviation given."""
        log_deviation = jnp.full(self.num_actions, math.log(self.deviation))
        return jnp.concatenate([self.network.init(key, self.initializer), log_deviation])

    def moments(self, parameters, observation) -> tuple[jax.Array, jax.Array]:
        """Means and logarithms of the deviations, both [M]."""
        own = parameters[: self.network.num_parameters]
        mean = self.network.apply(own, self.encode(observation).astype(parameters.dtype))
        return mean, parameters[self.network.num_parameters :]

    def sample(self, parameters, observation, word) -> jax.Array:
        """An action [M], not clipped; as in `Policy`."""
        mean, log_deviation = self.moments(parameters, observation)
        key = (word, jnp.uint32(0))
        places = jnp.arange(self.num_actions, dtype=jnp.uint32)
        words = jax.vmap(lambda place: streams.threefry(key, place))(places)
        return mean + jnp.exp(log_deviation) * streams.normal(words, mean.dtype)

    def log_prob(self, parameters, observation, action) -> jax.Array:
        """As in `Policy`."""
        mean, log_deviation = self.moments(parameters, observation)
        scaled = (action.astype(mean.dtype) - mean) * jnp.exp(-log_deviation)
        each = -(scaled**2) / 2 - log_deviation - math.log(2 * math.pi) / 2
        return jnp.sum(each)

    def performed(self, action) -> jax.Array:
        """The action clipped to [-1, 1], of the dtype that `envs.Continuous` has."""
        return jnp.clip(action, -1.0, 1.0).astype(jnp.float32)


# Policies and tasks -------------------------------------------------------------------------------


@fields.checked(
    task=fields.instance(Task),
    hidden=fields.sizes(),
    deviation=_DEVIATION,
)
def policy_for(
    task,
    kind: str | None = None,
    *,
    hidden: tuple[int, ...] = (8, 8),
    activation: str = "tanh",
    initializer: str = "normal",
    deviation: float = 0.5,
) -> Policy:
    """The policy of that kind that fits a task.

    Args:
      task: an `envs.Task`.
      kind: "table" (where observations are states: softmax of one preference per state and
        action), "mlp" (a network: softmax for discrete actions, Gaussian for continuous ones) or
        None, the table where there is one.
      hidden: units in each hidden layer of the network.
      activation: of the hidden units, of `networks.mlp.ACTIVATIONS`.
      initializer: of the network, of `networks.mlp.INITIALIZERS`.
      deviation: first standard deviation of continuous actions, above 0.

    Raises:
      ValueError: an unknown word, a table where observations are no states, a network without
        units, a deviation that is not above 0.
    """
    if kind is not None:
        check_known(kind, POLICIES, "policy")
    states = task.num_states
    discrete = isinstance(task.action, Discrete)
    if kind == "table" and (states is None or not discrete):
        raise ValueError(
            f"policy is table on {task.name}; allowed: on a grid or a tabular MDP, whose "
            "observations are states"
        )
    if kind != "mlp" and states is not None and discrete:
        return SoftmaxTable(states, task.action.num)
    check_known(initializer, INITIALIZERS, "initializer")
    outputs = task.action.num if discrete else task.action.size
    units = tuple(int(number) for number in hidden)
    network = MLP((task.observation_size, *units, outputs), activation)
    if discrete:
        return Categorical(network, task.encode, initializer)
    return Gaussian(network, task.encode, initializer, float(deviation))


def check_fits(task, policy: Policy) -> None:
    """Checks that a policy acts in a task.

    A softmax table of too few states would be read at its last one, without a word.

    Args:
      task: an `envs.Task`.
      policy: a policy of this module; another is taken on trust.

    Raises:
      ValueError: observations or actions of another kind or number than the task's.
    """
    action = task.action
    if isinstance(policy, SoftmaxTable):
        if task.num_states not in (None, policy.num_states):
            raise ValueError(
                f"policy has {policy.num_states} states on {task.name}; allowed: {task.num_states}"
            )
        actions, kind = policy.num_actions, Discrete
    elif isinstance(policy, Categorical | Gaussian):
        inputs = policy.network.sizes[0]
        if inputs != task.observation_size:
            raise ValueError(
                f"policy has {inputs} inputs on {task.name}; allowed: {task.observation_size}"
            )
        kind = Discrete if isinstance(policy, Categorical) else Continuous
        actions = policy.network.sizes[-1]
    else:
        return
    if not isinstance(action, kind) or actions != action[0]:
        raise ValueError(
            f"policy has {actions} {kind.__name__.lower()} actions on {task.name}; allowed: "
            f"{action[0]} {type(action).__name__.lower()} ones"
        )
