r"""FedPPO: agents learn by proximal policy optimisation and average their networks.

An epoch is one pass of every agent over its own last rollout; a new rollout is made after so many
passes. After epoch e = 0, 1, ... the agents average their parameters if K divides e:

    theta_i <- 1/N \sum_j theta_j.

* Einhorn, *Federated Reinforcement Learning Has Linear Speedup* (2023): the algorithm, and the
  preset "paper".
* Schulman et al., *Proximal Policy Optimization Algorithms*, arXiv 1707.06347: what an agent does.
* Cobbe et al., *Leveraging Procedural Generation to Benchmark Reinforcement Learning*, arXiv
  1912.01588: the preset "procgen".
* McMahan et al., *Communication-Efficient Learning of Deep Networks from Decentralized Data*, arXiv
  1602.05629: local passes and averaging.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl.algorithms import episodic, memory
from fedjax_rl.algorithms.local_gradient import (
    check_heterogeneity,
    differs,
    environments_of,
    task_of,
)
from fedjax_rl.algorithms.properties import (
    COUNT,
    NOT_NEGATIVE,
    POSITIVE,
    PROBABILITY,
    check_ranges,
    is_concrete,
    per_federation,
)
from fedjax_rl.envs.task import Task
from fedjax_rl.federation import aggregate
from fedjax_rl.federation import uplink as uplinks
from fedjax_rl.federation.aggregate import Total
from fedjax_rl.federation.algorithm import Algorithm, Functions, describe_config
from fedjax_rl.federation.exchange import Exchange, Params, State, exchange, first_state
from fedjax_rl.federation.ledger import line
from fedjax_rl.federation.uplink import norm_squared
from fedjax_rl.learners import crews, ppo
from fedjax_rl.learners.actor_critic import ActorCritic, actor_critic_for, is_picture
from fedjax_rl.names import check_known
from fedjax_rl.networks.heads import NETWORKS
from fedjax_rl.networks.mlp import ACTIVATIONS

MOMENTS = ("local", "average", "reset")
AGGREGATIONS = ("mean", "sum")
BATCHING = ("auto", "together", "in turn")

# Streams folded into an agent's key; the engine's own uplink has 1.
MODEL_STREAM, WORLD_STREAM, ROLLOUT_STREAM, SHUFFLE_STREAM, EVALUATION_STREAM = 2, 3, 4, 5, 6

_PAPER = {
    "learning_rate": 2.5e-4,
    "schedule": "cosine",
    "warmup_epochs": 10,
    "horizon_epochs": 1000,
    "passes": 3,
    "minibatches": None,  # one for each step of a rollout
    "shuffle": "steps",
    "discount": 0.99,
    "gae_lambda": 0.95,
    "policy_clip": 0.2,
    "value_clip": 0.2,
    "value_coefficient": 0.5,
    "entropy_coefficient": 0.01,
    "normalize": "rollout",
    "gradient_clip": math.inf,
    "adam_epsilon": 1e-6,
    "reward_alignment": "late",
    "reward_scale": 0.1,
    "reward_normalization": False,
    "bootstrap_timeouts": False,
}
# What a preset says of each property that is left out.
PRESETS: dict[str, dict] = {
    "clean": _PAPER
    | {
        "schedule": "constant",
        "minibatches": 8,
        "shuffle": "samples",
        "gradient_clip": 0.5,
        "reward_alignment": "correct",
        "bootstrap_timeouts": True,
    },
    "paper": _PAPER,
    "procgen": _PAPER
    | {
        "learning_rate": 5e-4,
        "schedule": "constant",
        "minibatches": 8,
        "shuffle": "samples",
        "discount": 0.999,
        "normalize": "minibatch",
        "gradient_clip": 0.5,
        "adam_epsilon": 1e-5,
        "reward_alignment": "correct",
        "reward_scale": 1.0,
        "reward_normalization": True,
    },
}
# The same for a size; its network is for pictures, others are seen by "mlp".
SIZES: dict[str, dict] = {
    "tiny": {"num_envs": 16, "rollout_steps": 128, "network": "mlp"},
    "small": {"num_envs": 32, "rollout_steps": 128, "network": "impala-small"},
    "paper": {"num_envs": 64, "rollout_steps": 256, "network": "impala"},
}

METRICS = {
    "episode_return": (
        "federation",
        "mean over the agents of the undiscounted return of the episodes that ended in the last "
        "rollout in which any did; 0 before",
    ),
    "episode_steps": ("federation", "the same of their lengths"),
    "episodes": ("federation", "episodes that ended in the current rollout, of all agents"),
    "entropy": ("federation", "of the policies in the last epoch, in nats"),
    "kl": ("federation", "estimated divergence from the policies of the rollout, in nats"),
    "clip_fraction": ("federation", "samples whose ratio of probabilities is out of bounds"),
    "policy_loss": ("federation", "mean over the agents in the last epoch"),
    "value_loss": ("federation", "mean over the agents in the last epoch"),
    "gradient_norm": ("federation", "mean over the agents in the last epoch, before clipping"),
    "drift": ("federation", "root mean square distance of the agents' parameters to their mean"),
    "episode_return_of_agent": ("agent", "episode_return of each agent"),
    "episode_steps_of_agent": ("agent", "episode_steps of each agent"),
    "entropy_of_agent": ("agent", "entropy of each agent's policy in the last epoch, in nats"),
    "kl_of_agent": ("agent", "kl of each agent, in nats"),
    "clip_fraction_of_agent": ("agent", "clip_fraction of each agent"),
}
OF_EVALUATION = {
    "return": (
        "federation",
        "mean undiscounted return of the agents' average parameters, in fresh episodes",
    ),
    "return_of_agent": ("agent", "the same in each agent's environment"),
}


@dataclasses.dataclass(frozen=True)
class FedPPO:
    """Properties of FedPPO. What is None follows from the preset and the size.

    Attributes:
      task: of every agent; a family gives each its own.
      preset: "clean", "paper" (its errors included) or "procgen" (the published baseline of these
        games).
      size: "tiny", "small" or "paper": environments, steps of a rollout and the network. By default
        "small" where observations are pictures, "tiny" elsewhere.
      sync_period: K, epochs between averages, at least 1.
      sync_first: whether epoch 0 is followed by the first average, as published: after epoch e if
        K divides e. Otherwise if it divides e + 1.
      sync_every_minibatches: average after so many updates within a pass, a number that divides
        the minibatches; with a period of 1.
      moments: Adam's at an average: "local" (each agent goes on with its own), "average" (they are
        sent, too) or "reset".
      aggregation: "mean" of the parameters, or "sum" of all changes since the last average.
      learning_rate: peak, above 0.
      schedule: "constant", or "cosine": warm-up from 0, then a cosine that rises again after the
        horizon.
      warmup_epochs: of "cosine", at least 0.
      horizon_epochs: of "cosine", epochs until it is at its lowest, more than the warm-up.
      num_envs: E, environments of an agent.
      rollout_steps: T, steps of each in a rollout.
      passes: epochs for each rollout.
      minibatches: M, updates in a pass; it divides E T, or T where whole steps are shuffled.
      shuffle: "samples" (any samples make up a minibatch) or "steps" (all environments at a
        step).
      discount: gamma, in [0, 1].
      gae_lambda: lambda of the advantages, in [0, 1].
      policy_clip: epsilon, above 0.
      value_clip: farthest that a value may go from its old one unpunished, above 0; may be
        infinite.
      value_coefficient: of half the squared error, at least 0.
      entropy_coefficient: at least 0.
      normalize: advantages over the "rollout" of an agent, over each "minibatch", or "none".
      gradient_clip: largest norm of a gradient, above 0; may be infinite.
      adam_epsilon: above 0.
      reward_alignment: "correct", or "late": a reward counts for the action after the one that
        earned it.
      reward_scale: factor of the rewards that are learned from.
      reward_normalization: whether these are first divided by the running deviation of the
        discounted return.
      bootstrap_timeouts: whether the value goes on where an episode is cut off; otherwise a
        timeout is an end.
      network: "mlp", "impala", "impala-small" or, by depth, heads and width, "vit-12-8-64",
        "vit-6-8-96", "vit-4-4-32" or "vit-3-4-16".
      hidden: units in each hidden layer of "mlp", of either tower.
      activation: of "mlp", "tanh" or "relu".
      deviation: first standard deviation of continuous actions, above 0; it is learned.
      heterogeneity: level of the difference between the agents' environments, at least 0.
      heterogeneity_of: what differs, such as gravity; by default all but what has a unit of its
        own.
      heterogeneity_seed: of the differences.
      evaluation_episodes: of the average parameters, per agent and record; 0 for no evaluation.
      uplink: what crosses the wire, everything by default. Uplinks other than `partial` act on the
        change since the last average, and everybody goes on from the server's parameters.
      batching: agents of a population "together" in one array or "in turn"; by default together,
        but in turn with convolutions and, on a CPU, with all networks for pictures. The same
        numbers but for rounding.
    """

    task: Task
    preset: str = "clean"
    size: str | None = None
    sync_period: Any = 1
    sync_first: bool = True
    sync_every_minibatches: int | None = None
    moments: str = "local"
    aggregation: str = "mean"
    learning_rate: Any = None
    schedule: str | None = None
    warmup_epochs: Any = None
    horizon_epochs: Any = None
    num_envs: int | None = None
    rollout_steps: int | None = None
    passes: int | None = None
    minibatches: int | None = None
    shuffle: str | None = None
    discount: Any = None
    gae_lambda: Any = None
    policy_clip: Any = None
    value_clip: Any = None
    value_coefficient: Any = None
    entropy_coefficient: Any = None
    normalize: str | None = None
    gradient_clip: Any = None
    adam_epsilon: Any = None
    reward_alignment: str | None = None
    reward_scale: Any = None
    reward_normalization: bool | None = None
    bootstrap_timeouts: bool | None = None
    network: str | None = None
    hidden: tuple[int, ...] = (64, 64)
    activation: str = "tanh"
    deviation: float = 1.0
    heterogeneity: Any = 0.0
    heterogeneity_of: tuple[str, ...] | None = None
    heterogeneity_seed: int = 0
    evaluation_episodes: int = 0
    uplink: uplinks.Uplink | None = None
    batching: str = "auto"


def fedppo(task: Task, **values) -> Algorithm:
    """Federated proximal policy optimisation; see `FedPPO` for the properties.

    Args:
      task: a `Task`, or a `TabularMDP`, whose episodes are then cut off.
      **values: of the properties.

    Raises:
      ValueError: naming the property, its value and what is allowed.
    """
    for value in values:
        check_known(value, [f.name for f in dataclasses.fields(FedPPO)], "property of fedppo")
    task = task_of(task)
    if not isinstance(task, Task):
        raise ValueError(
            f"task is a {type(task).__name__}; allowed: an episodic task, such as "
            "envs.gymnax_task('CartPole-v1')"
        )
    config = FedPPO(task=task, **values)
    _check(config)
    evaluated = config.evaluation_episodes > 0
    return Algorithm(
        name="fedppo",
        config=config,
        factory=fedppo,
        parameters=_parameters,
        functions=_functions,
        static=_static,
        metrics={**OF_EVALUATION, **METRICS} if evaluated else METRICS,
        describe=describe_config,
        unit="epoch",
        headline="return" if evaluated else "episode_return",
        first_exchange=_first_exchange,
        smallest_share=1,
        most_agents=_most_agents,
    )


def preset(name: str, size: str | None = None) -> dict:
    """The properties of a preset, and of a size, as `fedppo` takes them.

    Raises:
      ValueError: an unknown name.
    """
    check_known(name, PRESETS, "preset")
    chosen = dict(PRESETS[name])
    if size is not None:
        check_known(size, SIZES, "size")
        chosen |= SIZES[size]
    return {name: value for name, value in chosen.items() if value is not None}


def resolved(config: FedPPO) -> FedPPO:
    """The configuration with everything filled in that follows from the preset and the size."""
    pictures = is_picture(config.task)
    size = config.size or ("small" if pictures else "tiny")
    defaults = {**PRESETS[config.preset], **SIZES[size], "size": size}
    if not pictures:
        defaults["network"] = "mlp"
    given = {n: value for n, value in defaults.items() if getattr(config, n) is None}
    config = dataclasses.replace(config, **given)
    if config.minibatches is None:
        config = dataclasses.replace(config, minibatches=config.rollout_steps)
    return config


# Properties ---------------------------------------------------------------------------------------

_WORDS = {
    "preset": tuple(PRESETS),
    "moments": MOMENTS,
    "aggregation": AGGREGATIONS,
    "activation": tuple(ACTIVATIONS),
    "batching": BATCHING,
}
_OPTIONAL_WORDS = {
    "size": tuple(SIZES),
    "schedule": ppo.SCHEDULES,
    "shuffle": ppo.SHUFFLES,
    "normalize": ppo.NORMALISATIONS,
    "reward_alignment": ppo.ALIGNMENTS,
    "network": NETWORKS,
}
_ABOVE = (lambda x: x > 0, "above 0")
# Traced, one of each federation.
_TRACED = {
    "learning_rate": POSITIVE,
    "warmup_epochs": NOT_NEGATIVE,
    "horizon_epochs": POSITIVE,
    "discount": PROBABILITY,
    "gae_lambda": PROBABILITY,
    "policy_clip": POSITIVE,
    "value_clip": _ABOVE,
    "value_coefficient": NOT_NEGATIVE,
    "entropy_coefficient": NOT_NEGATIVE,
    "gradient_clip": _ABOVE,
    "adam_epsilon": POSITIVE,
    "reward_scale": (np.isfinite, "finite"),
}
_COUNTS = ("num_envs", "rollout_steps", "passes", "minibatches", "sync_every_minibatches")


def _check(config: FedPPO) -> None:
    episodic.check_words(config, _WORDS)
    given = {n: o for n, o in _OPTIONAL_WORDS.items() if getattr(config, n) is not None}
    episodic.check_words(config, given)
    check_ranges(config, _TRACED | dict.fromkeys((*_COUNTS, "sync_period"), COUNT))
    check_ranges(config, {"evaluation_episodes": (lambda x: (x >= 0) & (x == x // 1), "whole")})
    check_heterogeneity(config)
    full = resolved(config)
    policy_of(full)
    whole = full.shuffle == "steps"
    amount = full.rollout_steps * (1 if whole else full.num_envs)
    if amount % full.minibatches:
        made_of = "rollout_steps" if whole else "num_envs times rollout_steps"
        raise ValueError(
            f"minibatches is {full.minibatches}; allowed: a divisor of {made_of}, {amount}"
        )
    every = full.sync_every_minibatches
    if every is not None and (full.minibatches % every or not _is(full.sync_period, 1)):
        raise ValueError(
            f"sync_every_minibatches is {every} with {full.minibatches} minibatches and "
            f"sync_period {full.sync_period}; allowed: a divisor of the minibatches, and 1"
        )
    warmup, horizon = full.warmup_epochs, full.horizon_epochs
    known = all(is_concrete(x) and not callable(x) for x in (warmup, horizon))
    if full.schedule == "cosine" and known and np.any(np.asarray(horizon) <= np.asarray(warmup)):
        raise ValueError(f"horizon_epochs is {horizon}; allowed: more than warmup_epochs {warmup}")
    if config.uplink is not None and config.aggregation == "sum":
        raise ValueError("aggregation is sum with an uplink; allowed: mean")


def _first_exchange(config: FedPPO) -> int | None:
    """Epochs until the first average."""
    if config.sync_first or config.sync_every_minibatches is not None:
        return 1
    known = is_concrete(config.sync_period) and not callable(config.sync_period)
    return int(config.sync_period) if known else None


def _is(value, number) -> bool:
    return is_concrete(value) and not callable(value) and bool(np.all(value == number))


@functools.lru_cache(maxsize=64)
def _policy(task, network, hidden, activation, deviation) -> ActorCritic:
    return actor_critic_for(
        task, network, hidden=hidden, activation=activation, deviation=deviation
    )


def policy_of(config: FedPPO) -> ActorCritic:
    """Policy and value of all agents, of a configuration that is resolved."""
    hidden = tuple(config.hidden)
    return _policy(config.task, config.network, hidden, config.activation, config.deviation)


def _parameters(config: FedPPO, num_agents: int) -> Params:
    config = resolved(config)
    federation = per_federation(config, _TRACED, num_agents)
    period = per_federation(config, ["sync_period"], num_agents)["sync_period"]
    kind = np if is_concrete(period) else jnp
    federation["sync_period"] = kind.asarray(period, kind.uint32)
    federation["sync_shift"] = np.uint32(0 if config.sync_first else 1)
    policy = policy_of(config)
    numbers = policy.num_parameters * (3 if config.moments == "average" else 1)
    federation |= episodic.uplink_parameters(episodic.uplink_of(config), num_agents, numbers)
    agent = {}
    if differs(config):
        agent["environment"] = environments_of(config, num_agents)
    _check_memory(config, num_agents)
    return Params(agent, federation, {})


def _static(config: FedPPO) -> tuple:
    own = resolved(config)
    names = (
        "sync_every_minibatches",
        "moments",
        "aggregation",
        "evaluation_episodes",
        "batching",
    )
    return (
        own.task.static if differs(own) else own.task,
        differs(own),
        policy_of(own).module,
        own.deviation,
        tuple(getattr(own, name) for name in names),
        settings_of(own),
        episodic.uplink_of(own).static,
    )


class Settings(NamedTuple):
    """What shapes the learning of an agent; as of `FedPPO`."""

    num_envs: int
    rollout_steps: int
    passes: int
    minibatches: int
    shuffle: str
    normalize: str
    schedule: str
    reward_alignment: str
    reward_normalization: bool
    bootstrap_timeouts: bool


def settings_of(config: FedPPO) -> Settings:
    """The settings of a configuration that is resolved."""
    return Settings(*(getattr(config, name) for name in Settings._fields))


# Memory -------------------------------------------------------------------------------------------


def memory_of(config: FedPPO, num_agents: int = 1) -> dict[str, int]:
    """Bytes that a federation needs, from the shapes of its arrays; nothing is compiled.

    Args:
      config: of an algorithm.
      num_agents: N.

    Returns:
      "parameters" (with Adam's moments), "rollout" (observations in their own dtype), "worlds" (the
      states of the environments), "minibatch" (what a backward pass keeps of one), "total". All
      but the minibatch are there twice, before a chunk of epochs and after it; without batching
      the minibatch is there once.
    """
    config = resolved(config)
    return _memory(
        config.task,
        policy_of(config),
        settings_of(config),
        num_agents,
        num_agents if _together(config).passes else 1,
    )


@functools.lru_cache(maxsize=64)
def _memory(task, policy, settings, num_agents: int, at_once: int) -> dict[str, int]:
    def parts():
        parameters = policy.init(jax.random.key(0))
        learned = parameters, ppo.no_moments(parameters)
        batch = crews.empty_batch(task, policy, settings.num_envs, settings.rollout_steps)
        keys = jax.random.split(jax.random.key(0), 1)
        crew = crews.begin(task, keys, settings.num_envs, scale=True, late=True)
        return learned, batch, crew

    learned, batch, crew = jax.eval_shape(parts)
    amount = settings.num_envs * settings.rollout_steps // settings.minibatches
    part = jax.tree.map(lambda x: jax.ShapeDtypeStruct((amount, *x.shape[2:]), x.dtype), batch)
    number = jax.ShapeDtypeStruct((), jnp.float32)
    names = ("policy_clip", "value_clip", "value_coefficient", "entropy_coefficient")

    def backward(parameters, part, weights):
        return jax.vjp(lambda p: ppo.loss(policy, p, part, weights)[0], parameters)[1]

    kept = jax.eval_shape(backward, learned[0], part, dict.fromkeys(names, number))
    found = {
        "parameters": num_agents * memory.size(learned),
        "rollout": num_agents * memory.size(batch),
        "worlds": num_agents * memory.size(crew),
        "minibatch": at_once * (memory.size(kept) + memory.size(part)),
    }
    lasting = found["parameters"] + found["rollout"] + found["worlds"]
    return {**found, "total": 2 * lasting + found["minibatch"]}


def _most_agents(config: FedPPO) -> int:
    """Agents that a device holds, whatever their federations."""
    there = memory.available()
    each = jax.device_count() if jax.default_backend() != "cpu" else 1
    return 2**20 if there is None else there // each // memory_of(config)["total"]


def _check_memory(config: FedPPO, num_agents: int) -> None:
    """Refuses a federation that the device cannot hold."""
    needed, there = memory_of(config, num_agents), memory.available()
    if there is not None and needed["total"] > there:
        raise ValueError(
            f"num_agents is {num_agents} with num_envs {config.num_envs}, rollout_steps "
            f"{config.rollout_steps} and network {config.network}, which needs "
            f"{memory.words(needed['total'])} ({memory.words(needed['rollout'])} of rollouts, "
            f"{memory.words(needed['minibatch'])} of a minibatch); allowed: at most "
            f"{memory.words(there)}, what there is"
        )


# A population -------------------------------------------------------------------------------------


class Learned(NamedTuple):
    """What an agent has learned, and may share.

    Attributes:
      parameters: float32 [q].
      moments: `ppo.Moments`, of Adam.
    """

    parameters: jax.Array
    moments: ppo.Moments


class Agent(NamedTuple):
    """An agent; leaves [A, ...] in a population.

    Attributes:
      learned: `Learned`.
      crew: where its environments are.
      batch: its last rollout.
      ended: `crews.Ended` of that rollout.
      recent: float32 [2], mean return and length of the episodes that ended last.
      told: `ppo.Diagnostics` of the last epoch.
    """

    learned: Learned
    crew: crews.Crew
    batch: ppo.Batch
    ended: crews.Ended
    recent: jax.Array
    told: ppo.Diagnostics


class _Together(NamedTuple):
    """Whether agents make rollouts, and learn, as one array."""

    rollouts: bool
    passes: bool


def _together(config: FedPPO) -> _Together:
    """What is done together, from a configuration that is resolved.

    Convolutions with a kernel of its own for every agent are grouped ones. On a CPU they take three
    times as long as one after the other; their gradients are slow everywhere (jax issue 13800).
    """
    if config.batching != "auto":
        return _Together(*(2 * [config.batching == "together"]))
    if config.network == "mlp":
        return _Together(True, True)
    accelerated = jax.default_backend() != "cpu"
    return _Together(accelerated, accelerated and not config.network.startswith("impala"))


def _grouped(function, together: bool, *trees):
    """Calls a function of agents [G, ...] on all of them at once, or on one after the other."""
    if together or jax.tree.leaves(trees)[0].shape[0] == 1:
        return function(*trees)

    def one(trees):
        out = function(*jax.tree.map(lambda x: x[None], trees))
        return jax.tree.map(lambda x: x[0], out)

    return jax.lax.map(one, trees)


def _shared(config: FedPPO, learned: Learned):
    """What of it agents exchange."""
    if config.moments == "average":
        return learned.parameters, learned.moments.first, learned.moments.second
    return learned.parameters


def _link(config: FedPPO) -> Exchange:
    """What agents exchange: their parameters, and their moments if these are averaged."""
    uplink = episodic.uplink_of(config)
    changes = uplink.send is not None and uplink.silent != "absent"

    def message(learned, broadcast, params):
        if changes:
            return jax.tree.map(jnp.subtract, _shared(config, learned), broadcast)
        return _shared(config, learned)

    def receive(learned, broadcast, params):
        if config.moments == "average":
            parameters, first, second = broadcast
            # A compressed change of what is never negative may leave it so.
            second = jnp.maximum(second, 0.0)
            return Learned(parameters, ppo.Moments(learned.moments.count, first, second))
        if config.moments == "reset":
            return Learned(broadcast, ppo.no_moments(broadcast))
        return learned._replace(parameters=broadcast)

    def total(population, message, sent, weight, context):
        """The sum of the changes of parameters; moments are averaged."""
        mean = aggregate.mean(population, message).value
        rest = ()
        if config.moments == "average":
            message, *rest = message
            own, *_ = context.model
            _, *rest = mean
        else:
            own = context.model
        moved = population.sum(message - population.spread(own))
        parameters = own + moved
        return Total((parameters, *rest) if rest else parameters, None)

    server = aggregate.replace()
    return Exchange(
        message=message,
        receive=receive,
        uplink=uplink,
        aggregate=total if config.aggregation == "sum" else aggregate.mean,
        server=aggregate.of_changes(server) if changes else server,
    )


def _own(population, params) -> dict:
    """Properties of the agents' federations, float32 [A] each."""
    values = {name: params.federation[name] for name in _TRACED}
    return population.spread({n: x.astype(jnp.float32) for n, x in values.items()})


def _streams(keys, stream: int, time):
    own = jax.vmap(lambda key: jax.random.fold_in(key, stream))(keys)
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(own, time)


def _functions(config: FedPPO) -> Functions:
    config = resolved(config)
    task, policy, settings = config.task, policy_of(config), settings_of(config)
    link, together = _link(config), _together(config)
    passes = jnp.uint32(settings.passes)
    late = settings.reward_alignment == "late"

    def init(population, params, keys) -> State:
        firsts = episodic.first_key(population, keys)
        own = jax.vmap(lambda key: jax.random.fold_in(key, MODEL_STREAM))(firsts)
        parameters = population.spread(jax.vmap(policy.init)(own))
        learned = Learned(parameters, jax.vmap(ppo.no_moments)(parameters))
        blank = (
            crews.empty_batch(task, policy, settings.num_envs, settings.rollout_steps),
            crews.none_ended(),
            jnp.zeros(2, jnp.float32),
            ppo.no_diagnostics(),
        )
        crew = crews.begin(
            task,
            _streams(keys, WORLD_STREAM, jnp.uint32(0)),
            settings.num_envs,
            environment=params.agent.get("environment"),
            scale=settings.reward_normalization,
            late=late,
        )
        model = population.first(_shared(config, learned))
        state = first_state(population, link, params, keys, learned, model)
        agents = Agent(learned, crew, *episodic.alike(population, blank))
        return dataclasses.replace(state, agents=agents)

    def collect(population, params, state) -> State:
        """A new rollout of every agent."""

        def made(keys, agents, environment, weights):
            crew, batch, ended = crews.roll_out(
                task,
                policy,
                keys,
                agents.learned.parameters,
                agents.crew,
                agents.batch,
                environment=environment or None,
                weights=weights,
                settings=settings,
            )
            count = ended.episodes[:, None]
            recent = jnp.stack([ended.total, ended.steps], axis=1) / jnp.maximum(count, 1)
            recent = jnp.where(count > 0, recent, agents.recent)
            return agents._replace(crew=crew, batch=batch, ended=ended, recent=recent)

        keys = _streams(state.keys, ROLLOUT_STREAM, state.time)
        environment = params.agent.get("environment", ())
        weights = _own(population, params)
        agents = _grouped(made, together.rollouts, keys, state.agents, environment, weights)
        return dataclasses.replace(state, agents=agents)

    def learn(population, params, state, place, count: int) -> State:
        """Some updates of the pass of every agent, from the minibatch `place` on."""

        def one(key, learned, batch, weights):
            size = settings.rollout_steps, settings.num_envs
            places = ppo.order(key, size, settings.minibatches, settings.shuffle)
            places = jax.lax.dynamic_slice_in_dim(places, place, count)
            peak, horizon = weights["learning_rate"], weights["horizon_epochs"]
            rate = ppo.rate(settings.schedule, peak, state.time, weights["warmup_epochs"], horizon)
            weights = {**weights, "rate": rate}
            parameters, moments, told = ppo.improve(
                policy, learned.parameters, learned.moments, batch, places, weights, settings
            )
            return Learned(parameters, moments), told

        agents = state.agents
        keys = _streams(state.keys, SHUFFLE_STREAM, state.time)
        weights = _own(population, params)
        learned, told = _grouped(
            jax.vmap(one), together.passes, keys, agents.learned, agents.batch, weights
        )
        return dataclasses.replace(state, agents=agents._replace(learned=learned, told=told))

    def share(population, params, state, due=None) -> State:
        """An average of those who have somebody to average with.

        What agents keep to themselves, such as their rollouts, is none of its business.
        """
        company = population.sizes > 1
        if not company.any():
            return state
        due = jnp.asarray(company) if due is None else due & company
        agents = state.agents
        state = exchange(
            population, link, params, dataclasses.replace(state, agents=agents.learned), due
        )
        return dataclasses.replace(state, agents=agents._replace(learned=state.agents))

    def epoch(population, params, state) -> State:
        begins = state.time % passes == 0
        state = jax.lax.cond(
            begins,
            lambda state: collect(population, params, state),
            lambda state: state,
            state,
        )
        sizes = jnp.asarray(population.sizes).astype(jnp.uint32)
        steps = jnp.where(begins, settings.num_envs * settings.rollout_steps, 0)
        spent = state.ledger.add(
            line(env_steps=1), sizes, jnp.broadcast_to(steps.astype(jnp.uint32), sizes.shape)
        )
        state = dataclasses.replace(state, ledger=spent)
        every = config.sync_every_minibatches
        if every is None:
            state = learn(population, params, state, 0, settings.minibatches)
            period, shift = (params.federation[f"sync_{name}"] for name in ("period", "shift"))
            due = (state.time + shift) % period == 0
            state = share(population, params, state, due)
        else:

            def some(state, turn):
                state = learn(population, params, state, turn * every, every)
                return share(population, params, state), None

            turns = jnp.arange(settings.minibatches // every, dtype=jnp.int32)
            state, _ = jax.lax.scan(some, state, turns)
        return dataclasses.replace(state, time=state.time + jnp.uint32(1))

    def round_(population, params, state, period):
        del period
        params, state = _no_gradient(params, state)
        return epoch(population, params, state)

    def advance(population, params, state, num_steps):
        end = state.time + jnp.uint32(num_steps)
        return jax.lax.while_loop(
            lambda state: state.time < end, lambda state: epoch(population, params, state), state
        )

    def measure(population, params, state) -> dict:
        agents = state.agents
        told, parameters = agents.told, agents.learned.parameters
        average = population.mean(parameters)
        apart = jax.vmap(norm_squared)(parameters - population.spread(average))
        returns, steps = agents.recent[:, 0], agents.recent[:, 1]
        mean = population.mean
        found = {
            "episode_return": mean(returns),
            "episode_steps": mean(steps),
            "episodes": population.sum(agents.ended.episodes),
            "entropy": mean(told.entropy),
            "kl": mean(told.kl),
            "clip_fraction": mean(told.clip_fraction),
            "policy_loss": mean(told.policy_loss),
            "value_loss": mean(told.value_loss),
            "gradient_norm": mean(told.gradient_norm),
            "drift": jnp.sqrt(mean(apart)),
            "episode_return_of_agent": returns,
            "episode_steps_of_agent": steps,
            "entropy_of_agent": told.entropy,
            "kl_of_agent": told.kl,
            "clip_fraction_of_agent": told.clip_fraction,
        }
        if not config.evaluation_episodes:
            return found

        def evaluate(keys, parameters, environment):
            return crews.evaluate(
                task,
                policy,
                keys,
                parameters,
                config.evaluation_episodes,
                environment=environment or None,
            )[0]

        keys = _streams(state.keys, EVALUATION_STREAM, state.time)
        environment = params.agent.get("environment", ())
        value = _grouped(evaluate, together.rollouts, keys, population.spread(average), environment)
        return {"return": mean(value), "return_of_agent": value, **found}

    def act(model, observation, word):
        parameters = model[0] if isinstance(model, tuple) else model
        outputs, _ = policy.apply(parameters, observation[None])
        return policy.performed(policy.sample(parameters, outputs[0], word))

    return Functions(init, round_, advance, measure, act=act)


@jax.custom_jvp
def _guard(value):
    return value


@_guard.defjvp
def _refuse(primals, tangents):
    raise ValueError(
        "fedppo has no derivative: its actions are sampled, and what is learned from them does not "
        "tell how their probabilities change; allowed: values that are not differentiated"
    )


def _no_gradient(params: Params, state: State):
    """Refuses to differentiate through a round."""

    def guarded(tree):
        return jax.tree.map(
            lambda x: _guard(x) if jnp.issubdtype(jnp.result_type(x), jnp.floating) else x, tree
        )

    agents = state.agents
    agents = agents._replace(learned=guarded(agents.learned))
    params = Params(params.agent, guarded(params.federation), params.shared)
    return params, dataclasses.replace(state, agents=agents)
