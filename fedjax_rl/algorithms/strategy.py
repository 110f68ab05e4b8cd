"""What evolution strategies have in common: the agents' perturbations and the learner's step.

Every agent perturbs the learner's parameters and runs one episode; the learner draws the
perturbations again from the shared seeds and moves along their weighted mean. What the weights are
made of is the business of `es`, `iw_es` and `novelty`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl import fields, streams
from fedjax_rl.algorithms import episodic
from fedjax_rl.algorithms.properties import codes, per_federation
from fedjax_rl.envs.task import Discrete, Task
from fedjax_rl.federation import uplinks
from fedjax_rl.federation.aggregators import Aggregate
from fedjax_rl.federation.derivatives import DERIVATIVE
from fedjax_rl.federation.ledger import HEADER, WORD
from fedjax_rl.federation.server import SHARE, ServerStep
from fedjax_rl.federation.state import Params
from fedjax_rl.fields import declared
from fedjax_rl.learners import policies, rounding
from fedjax_rl.networks import MLP
from fedjax_rl.networks.mlp import ACTIVATIONS, INITIALIZERS
from fedjax_rl.rollouts import episodes

DENOMINATORS = ("received", "n")
L2_MODES = ("coupled", "decoupled")


@dataclasses.dataclass(frozen=True)
class Strategy:
    """Properties of everything whose learner draws the agents' perturbations again.

    Attributes:
      task: of every agent.
      sigma: standard deviation of the perturbations, above 0.
      learning_rate: of the optimiser, at least 0.
      optimizer: "adam" (0.9, 0.999, 1e-8), "momentum" or "sgd".
      momentum: of the optimiser "momentum", in [0, 1].
      l2: weight decay, at least 0.
      l2_mode: "coupled" (part of the gradient) or "decoupled" (beside the optimiser).
      denominator: the mean is over what was "received", or over all "n" agents, on a clock also
        over those who have not arrived.
      antithetic: whether agents 2i and 2i + 1 have opposite perturbations.
      hidden: units in each hidden layer.
      activation: of the hidden units, "tanh" or "relu".
      initializer: "normal" (weights N(0, 1 / inputs), biases 0), "uniform" (all parameters within
        +- 1 / sqrt(inputs)) or "orthogonal" (times sqrt(2), 0.01 in the last layer; biases 0).
      policy: discrete actions are drawn ("sample") or the best one ("argmax"); continuous
        actions are tanh of the outputs.
      return_offset: added to every return before anything is done with it, recorded as `reward`
        included; `return` is without it.
      uplink: who sends, see `federation.uplinks`; everybody by default.
      loop: of the episodes, "compact", "while" or "scan".
      word_bytes: bytes of a number on the wire, 2, 4 or 8.
      header_bytes: bytes of every message besides.
      derivative: None, or "pathwise" to allow derivatives that leave out how
        episodes come about; see `federation.derivatives`.
    """

    task: Task = declared(allowed=episodic.TASK)
    sigma: Any = declared(0.05, fields.POSITIVE)
    learning_rate: Any = declared(0.01, fields.NOT_NEGATIVE)
    optimizer: str = declared("adam", fields.word(episodic.OPTIMIZERS))
    momentum: Any = declared(0.9, fields.PROBABILITY)
    l2: Any = declared(0.05, fields.NOT_NEGATIVE)
    l2_mode: str = declared("coupled", fields.word(L2_MODES))
    denominator: str = declared("received", fields.word(DENOMINATORS))
    antithetic: bool = declared(False, fields.switch())
    hidden: tuple[int, ...] = declared((8, 8), episodic.HIDDEN)
    activation: str = declared("tanh", fields.word(ACTIVATIONS))
    initializer: str = declared("normal", fields.word(INITIALIZERS))
    policy: str = declared("sample", fields.word(policies.CHOICES))
    return_offset: Any = declared(0.0, fields.FINITE)
    uplink: uplinks.Uplink | None = declared(None, episodic.UPLINK)
    loop: str = declared("compact", episodic.LOOP)
    word_bytes: int = declared(4, WORD)
    header_bytes: int = declared(0, HEADER)
    derivative: str | None = declared(None, DERIVATIVE, cli=False)


# Words that are traced as numbers, so that variants share one program.
_TRACED_WORDS = ("denominator", "l2_mode")
_TRACED_NUMBERS = ("sigma", "learning_rate", "momentum", "l2", "return_offset")


def of_now(sent, context):
    """Who sent a sample in this round, bool [A] or None for all.

    Where an uplink goes on with old messages these count, too; but an old sample is one around
    other parameters, which not every learner can make use of.
    """
    heard = context.heard
    if sent is None or heard is None:
        return heard if sent is None else sent
    return sent & heard


def nothing_owed(numbers):
    """What was left out of a sample does not belong to the next one."""
    return jax.tree.map(jnp.zeros_like, numbers)


def network_of(config: Strategy) -> MLP:
    """The policy's network."""
    action = config.task.action
    outputs = action.num if isinstance(action, Discrete) else action.size
    return MLP((config.task.observation_size, *config.hidden, outputs), config.activation)


def traced(config: Strategy, num_agents: int) -> dict:
    """What is traced of a strategy, as scalars.

    Raises:
      ValueError: antithetic perturbations of an odd number of agents.
    """
    if config.antithetic and num_agents % 2:
        raise ValueError(
            f"num_agents is {num_agents} with antithetic perturbations; allowed: even numbers"
        )
    numbers = per_federation(config, _TRACED_NUMBERS, num_agents)
    return numbers | codes(config, _TRACED_WORDS)


def static_strategy(config: Strategy) -> tuple:
    """What shapes the program of a strategy, but for its uplink."""
    return (
        config.task,
        config.optimizer,
        config.antithetic,
        network_of(config),
        config.initializer,
        config.policy,
        config.loop,
        episodic.wire_of(config),
    )


def centred_ranks(population, values, counts):
    """Ranks in [-1/2, 1/2] among what was received, ties averaged; 0 where all are alike.

    Args:
      population: who belongs to whom.
      values: [A].
      counts: bool [A], which of them were received.

    Returns:
      [A], zero where nothing was received.
    """
    size = population.spread(jnp.maximum(population.sum(counts.astype(values.dtype)), 1))
    ranks = population.mid_rank(values, counts) / jnp.maximum(size - 1, 1) - 0.5
    # Of equal values a compiled division leaves a rounding, which Adam would make a step of.
    differ = counts & ~all_alike(population, values, counts)
    return jnp.where(differ, ranks, jnp.zeros_like(values))


def all_alike(population, values, counts):
    """Whether what a federation received is all the same but for rounding.

    Args:
      population: who belongs to whom.
      values: [A].
      counts: bool [A], which of them were received.

    Returns:
      bool [A], alike for all of a federation.
    """
    most = population.max(jnp.where(counts, values, -jnp.inf))
    least = -population.max(jnp.where(counts, -values, -jnp.inf))
    return population.spread((most < least) | rounding.alike(least, most))


def direction(population, values, noise, received, params: Params) -> Aggregate:
    """The mean of the perturbations [A, q] weighted by values [A]; received [F] of them count."""
    total = population.sum(values[:, None] * noise)
    every = params.federation["denominator"] == DENOMINATORS.index("n")
    size = jnp.asarray(population.sizes, values.dtype)
    if SHARE in params.federation:
        # On a clock those who are waited for are a part of all agents.
        size = jnp.round(size / params.federation[SHARE].astype(size.dtype))
    number = jnp.where(every, size, received)
    return Aggregate(total / jnp.maximum(number, 1)[:, None], received > 0)


def ascent(config: Strategy) -> ServerStep:
    """A step uphill of parameters [q], from `direction`."""
    optimizer = episodic.optimizer_of(config)

    def init(theta):
        return optimizer.init(theta), jnp.zeros_like(theta)

    def step(theta, memory, total, params):
        memory, speed = memory
        coupled = params["l2_mode"] == L2_MODES.index("coupled")
        gradient = total / params["sigma"]
        gradient = gradient - jnp.where(coupled, params["l2"], 0.0) * theta
        with jax.numpy_dtype_promotion("standard"):  # optax mixes integer counts with floats
            direction, memory = optimizer.update(gradient, memory, theta)
        if config.optimizer == "momentum":
            speed = params["momentum"] * speed + direction
            direction = speed
        decay = jnp.where(coupled, 0.0, params["l2"]) * theta
        theta = theta + params["learning_rate"] * (direction - decay)
        return theta, (memory, speed)

    return ServerStep(init, step)


def perturbations(config: Strategy, network: MLP, population, state):
    """The perturbation of every agent in this round, [A, q]."""
    keys = state.keys
    if config.antithetic:
        if population.axis_name is not None:
            raise ValueError("devices is more than 1 with antithetic perturbations; allowed: 1")
        partner = np.arange(population.num_agents) - population.member_of % 2
        keys = keys[partner]
    keys = streams.keys_of(keys, streams.Episodic.NOISE, state.time)
    counters = jnp.arange(network.num_parameters, dtype=jnp.uint32)

    def draw(key):
        words = jax.vmap(lambda n: streams.threefry(key, n))(counters)
        return streams.normal(words, jnp.result_type(float))

    # Half the time of jax.random.normal on a CPU.
    noise = jax.vmap(draw)(jax.random.key_data(keys))
    if config.antithetic:
        noise = noise * jnp.where(population.member_of % 2, -1.0, 1.0)[:, None]
    return noise


def behaviour_of(config: Strategy, network: MLP) -> Callable:
    """`(parameters, observation, word) -> action`, for `rollouts.episodes.run_episodes`."""
    discrete = isinstance(config.task.action, Discrete)

    def act(parameters, observation, word):
        outputs = network.apply(parameters, observation)
        if not discrete:
            return policies.squashed(outputs)
        if config.policy == "argmax":
            return policies.greedy(outputs)
        return policies.categorical(outputs, word)

    return act


def run_episodes(
    config: Strategy, network: MLP, keys, parameters, kind, **options
) -> episodes.Episode:
    """One episode of every policy with parameters [A, q]; options of `run_episodes`."""
    act = behaviour_of(config, network)
    if not network.unrolled:
        return episodes.run_episodes(config.task, act, keys, parameters, kind=kind, **options)

    def act_on_scalars(parameters, observation, word):
        scalars = tuple(parameters[n] for n in range(network.num_parameters))
        return act(scalars, observation, word)

    # One parameter of all agents after the other: each is a vector in the inner loop.
    return episodes.run_episodes(
        config.task, act_on_scalars, keys, parameters.T, axis=1, kind=kind, **options
    )


def run_perturbed(
    config: Strategy, network: MLP, population, params: Params, state, centre, kind, **options
) -> tuple[jax.Array, episodes.Episode]:
    """One episode of every agent with its own perturbation of the parameters centre [F, q].

    Returns:
      The perturbations [A, q] in units of sigma, and the episodes.
    """
    noise = perturbations(config, network, population, state)
    sigma = population.spread(params.federation["sigma"])
    perturbed = population.spread(centre) + sigma[:, None] * noise
    keys = episodic.episode_keys(state)
    return noise, run_episodes(config, network, keys, perturbed, kind, **options)
