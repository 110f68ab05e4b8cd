"""Properties of FedPPO: presets, sizes, what is allowed, and what it takes to run them."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fedjax_rl import fields, memory
from fedjax_rl.algorithms import episodic
from fedjax_rl.envs.heterogeneity import LEVEL, PARTS, check_heterogeneity
from fedjax_rl.envs.tabular_tasks import TASK
from fedjax_rl.envs.task import Task
from fedjax_rl.federation import uplinks
from fedjax_rl.federation.derivatives import DERIVATIVE
from fedjax_rl.fields import declared, is_number
from fedjax_rl.identity import remembered
from fedjax_rl.learners import gae, ppo
from fedjax_rl.learners.actor_critic import ActorCritic, actor_critic_for, is_picture
from fedjax_rl.names import check_known
from fedjax_rl.networks.heads import NETWORKS
from fedjax_rl.networks.mlp import ACTIVATIONS
from fedjax_rl.rollouts import vectorised

MOMENTS = ("local", "average", "reset")
AGGREGATIONS = ("mean", "sum")
BATCHING = ("auto", "together", "in turn")

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
    "normalization_discount": None,  # that of the values
    "bootstrap_timeouts": False,
    "stale_tail": 0,
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
        "normalization_discount": 0.99,  # of Baselines, whatever the discount
    },
}
# The same for a size; its network is for pictures, others are seen by "mlp".
SIZES: dict[str, dict] = {
    "tiny": {"num_envs": 16, "rollout_steps": 128, "network": "mlp"},
    "small": {"num_envs": 32, "rollout_steps": 128, "network": "impala-small"},
    "paper": {"num_envs": 64, "rollout_steps": 256, "network": "impala"},
}

_COUNT = fields.COUNT.or_none()
_POSITIVE = fields.POSITIVE.or_none()
_NOT_NEGATIVE = fields.NOT_NEGATIVE.or_none()
_PROBABILITY = fields.PROBABILITY.or_none()
_BOUND = fields.number(0, above=True, infinite=True).or_none()


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
      reward_scale: factor of the rewards that are learned from, above 0.
      reward_normalization: whether these are first divided by the running deviation of the
        discounted return.
      bootstrap_timeouts: whether the value goes on where an episode is cut off; otherwise a
        timeout is an end.
      stale_tail: S, steps that an agent may go on beyond a rollout until every episode begun
        by then has ended, less than the rollout; they begin the next one, and are then an update
        old. The author's code has 64; 0 by default.
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
        but with convolutions and on a CPU they learn in turn, and on a CPU networks for pictures
        act in turn, too. The same numbers but for rounding.
      derivative: None, or "pathwise" to allow derivatives that leave out how actions are drawn;
        see `federation.derivatives`.
    """

    task: Task = declared(allowed=TASK)
    preset: str = declared("clean", fields.word(PRESETS))
    size: str | None = declared(None, fields.word(SIZES).or_none())
    sync_period: Any = declared(1, fields.whole(1, follows=True, traced=True))
    sync_first: bool = declared(True, fields.switch())
    sync_every_minibatches: int | None = declared(None, _COUNT)
    moments: str = declared("local", fields.word(MOMENTS))
    aggregation: str = declared("mean", fields.word(AGGREGATIONS))
    learning_rate: Any = declared(None, _POSITIVE)
    schedule: str | None = declared(None, fields.word(ppo.SCHEDULES).or_none())
    warmup_epochs: Any = declared(None, _NOT_NEGATIVE)
    horizon_epochs: Any = declared(None, _POSITIVE)
    num_envs: int | None = declared(None, _COUNT)
    rollout_steps: int | None = declared(None, _COUNT)
    passes: int | None = declared(None, _COUNT)
    minibatches: int | None = declared(None, _COUNT)
    shuffle: str | None = declared(None, fields.word(ppo.SHUFFLES).or_none())
    discount: Any = declared(None, _PROBABILITY)
    gae_lambda: Any = declared(None, _PROBABILITY)
    policy_clip: Any = declared(None, _POSITIVE)
    value_clip: Any = declared(None, _BOUND)
    value_coefficient: Any = declared(None, _NOT_NEGATIVE)
    entropy_coefficient: Any = declared(None, _NOT_NEGATIVE)
    normalize: str | None = declared(None, fields.word(ppo.NORMALISATIONS).or_none())
    gradient_clip: Any = declared(None, _BOUND)
    adam_epsilon: Any = declared(None, _POSITIVE)
    reward_alignment: str | None = declared(None, fields.word(gae.ALIGNMENTS).or_none())
    reward_scale: Any = declared(None, fields.POSITIVE.or_none())
    reward_normalization: bool | None = declared(None, fields.switch().or_none())
    normalization_discount: Any = declared(None, _PROBABILITY)
    bootstrap_timeouts: bool | None = declared(None, fields.switch().or_none())
    stale_tail: int | None = declared(None, fields.whole(0).or_none())
    network: str | None = declared(None, fields.word(NETWORKS).or_none())
    hidden: tuple[int, ...] = declared((64, 64), episodic.HIDDEN)
    activation: str = declared("tanh", fields.word(ACTIVATIONS))
    deviation: float = declared(1.0, episodic.DEVIATION)
    heterogeneity: Any = declared(0.0, LEVEL)
    heterogeneity_of: tuple[str, ...] | None = declared(None, PARTS)
    heterogeneity_seed: int = declared(0, fields.SEED)
    evaluation_episodes: int = declared(0, fields.whole(0))
    uplink: uplinks.Uplink | None = declared(None, episodic.UPLINK)
    batching: str = declared("auto", fields.word(BATCHING))
    derivative: str | None = declared(None, DERIVATIVE, cli=False)


# Traced, one of each federation.
TRACED = (
    "learning_rate",
    "warmup_epochs",
    "horizon_epochs",
    "discount",
    "gae_lambda",
    "policy_clip",
    "value_clip",
    "value_coefficient",
    "entropy_coefficient",
    "gradient_clip",
    "adam_epsilon",
    "reward_scale",
    "normalization_discount",
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
    if config.normalization_discount is None:
        config = dataclasses.replace(config, normalization_discount=config.discount)
    return config


def check(config: FedPPO) -> None:
    """Refuses what does not fit together, before anything is compiled.

    Raises:
      ValueError: naming the property, its value and what is allowed.
    """
    check_heterogeneity(config)
    full = resolved(config)
    policy_of(full)
    if not full.stale_tail < full.rollout_steps:
        raise ValueError(
            f"stale_tail is {full.stale_tail}; allowed: a whole number from 0 to less than "
            f"rollout_steps {full.rollout_steps}"
        )
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
    if full.schedule == "cosine" and is_number(warmup, horizon) and horizon <= warmup:
        raise ValueError(f"horizon_epochs is {horizon}; allowed: more than warmup_epochs {warmup}")
    if config.uplink is not None and config.aggregation == "sum":
        raise ValueError("aggregation is sum with an uplink; allowed: mean")


def first_exchange(config: FedPPO) -> int | None:
    """Epochs until the first average; None if unknown."""
    if config.sync_first or config.sync_every_minibatches is not None:
        return 1
    return config.sync_period if is_number(config.sync_period) else None


def _is(value, number) -> bool:
    return is_number(value) and value == number


@remembered()
def _policy(task, network, hidden, activation, deviation) -> ActorCritic:
    return actor_critic_for(
        task, network, hidden=hidden, activation=activation, deviation=deviation
    )


def policy_of(config: FedPPO) -> ActorCritic:
    """Policy and value of all agents, of a configuration that is resolved."""
    hidden = tuple(config.hidden)
    return _policy(config.task, config.network, hidden, config.activation, config.deviation)


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
    stale_tail: int


def settings_of(config: FedPPO) -> Settings:
    """The settings of a configuration that is resolved."""
    return Settings(*(getattr(config, name) for name in Settings._fields))


def tail_of(task, policy, settings: Settings):
    """A blank batch as long as the steps beyond a rollout; None where there are none."""
    steps = settings.stale_tail
    return vectorised.empty_batch(task, policy, settings.num_envs, steps) if steps else None


class Together(NamedTuple):
    """Whether agents make rollouts, and learn, as one array."""

    rollouts: bool
    passes: bool


def together_of(config: FedPPO) -> Together:
    """What is done together, from a configuration that is resolved.

    On a CPU agents learn in turn: products with a matrix for every agent take a quarter longer than
    one after the other. Convolutions with a kernel for every agent are grouped ones; on a CPU they
    take three times as long, and their gradients are slow everywhere (jax issue 13800).
    """
    if config.batching != "auto":
        return Together(*(2 * [config.batching == "together"]))
    accelerated = jax.default_backend() != "cpu"
    return Together(
        accelerated or config.network == "mlp",
        accelerated and not config.network.startswith("impala"),
    )


# Resources ----------------------------------------------------------------------------------------


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
        num_agents if together_of(config).passes else 1,
    )


@remembered()
def _memory(task, policy, settings, num_agents: int, at_once: int) -> dict[str, int]:
    def parts():
        parameters = policy.init(jax.random.key(0))
        learned = parameters, ppo.no_moments(parameters)
        batch = vectorised.empty_batch(task, policy, settings.num_envs, settings.rollout_steps)
        keys = jax.random.split(jax.random.key(0), 1)
        tail = tail_of(task, policy, settings)
        collector = vectorised.begin(
            task, keys, settings.num_envs, scale=True, late=True, tail=tail
        )
        return learned, batch, collector

    learned, batch, collector = jax.eval_shape(parts)
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
        "worlds": num_agents * memory.size(collector),
        "minibatch": at_once * (memory.size(kept) + memory.size(part)),
    }
    lasting = found["parameters"] + found["rollout"] + found["worlds"]
    return {**found, "total": 2 * lasting + found["minibatch"]}


def check_memory(config: FedPPO, num_agents: int) -> None:
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
