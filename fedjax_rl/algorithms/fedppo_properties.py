"""Properties of FedPPO: presets, sizes, and what is allowed."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np

from fedjax_rl import fields
from fedjax_rl.algorithms import episodic
from fedjax_rl.algorithms.define import Averaged
from fedjax_rl.algorithms.fedppo_resources import check_memory, policy_of
from fedjax_rl.algorithms.learned import MOMENTS
from fedjax_rl.algorithms.observed import Observations
from fedjax_rl.algorithms.records import Varied
from fedjax_rl.federation.state import Params
from fedjax_rl.fields import is_number
from fedjax_rl.fields.record import Record, host, nested, record, static, traced
from fedjax_rl.learners import gae, ppo
from fedjax_rl.learners.sight import is_picture, seen
from fedjax_rl.names import check_known
from fedjax_rl.networks.heads import NETWORKS
from fedjax_rl.networks.mlp import ACTIVATIONS

AGGREGATIONS = ("mean", "sum")
BATCHING = ("auto", "together", "in turn")

# Einhorn (2023) as the code has it, which says more than the text: an epoch is a pass, advantages
# are normalised once a rollout, rewards are divided by ten and stand one step late.
_PAPER = {
    "learning_rate": 2.5e-4,
    "schedule.name": "cosine",
    "schedule.warmup_epochs": 10,
    "schedule.horizon_epochs": 1000,
    "passes": 3,
    "minibatches": None,  # one for each step of a rollout
    "shuffle": "steps",
    "discount": 0.99,
    "gae_lambda": 0.95,
    "loss.policy_clip": 0.2,
    "loss.value_clip": 0.2,
    "loss.value_coefficient": 0.5,
    "loss.entropy_coefficient": 0.01,
    "loss.normalize": "rollout",
    "gradient_clip": math.inf,
    "adam_epsilon": 1e-6,
    "rewards.alignment": "late",
    "rewards.scale": 0.1,
    "rewards.normalize": False,
    "rewards.normalization_discount": None,  # that of the values
    "bootstrap_timeouts": False,
    "stale_tail": 0,
}
# What a preset says of each property that is left out.
PRESETS: dict[str, dict] = {
    "clean": _PAPER
    | {
        "schedule.name": "constant",
        "minibatches": 8,
        "shuffle": "samples",
        "gradient_clip": 0.5,
        "rewards.alignment": "correct",
        "bootstrap_timeouts": True,
    },
    "paper": _PAPER,
    "procgen": _PAPER
    | {
        "learning_rate": 5e-4,
        "schedule.name": "constant",
        "minibatches": 8,
        "shuffle": "samples",
        "discount": 0.999,
        "loss.normalize": "minibatch",
        "gradient_clip": 0.5,
        "adam_epsilon": 1e-5,
        "rewards.alignment": "correct",
        "rewards.scale": 1.0,
        "rewards.normalize": True,
        "rewards.normalization_discount": 0.99,  # of Baselines, whatever the discount
    },
}
# The same for a size; its network is for pictures, others are seen by "mlp". A tiny one fits both,
# so that its properties can be handed on.
SIZES: dict[str, dict] = {
    "tiny": {"num_envs": 16, "rollout_steps": 128, "network.kind": None},
    "small": {"num_envs": 32, "rollout_steps": 128, "network.kind": "impala-small"},
    "paper": {"num_envs": 64, "rollout_steps": 256, "network.kind": "impala"},
}

_COUNT = fields.COUNT.or_none()
_POSITIVE = fields.POSITIVE.or_none()
_NOT_NEGATIVE = fields.NOT_NEGATIVE.or_none()
_PROBABILITY = fields.PROBABILITY.or_none()
_BOUND = fields.number(0, above=True, infinite=True).or_none()


@record
class PPONetwork(Record):
    """Policy and value of FedPPO. What is None follows from the size.

    Attributes:
      kind: "mlp", or for pictures "classic", "impala", "impala-small" or, by depth, heads and
        width, "vit-12-8-64", "vit-6-8-96", "vit-4-4-32" or "vit-3-4-16", whose patches are 4 x 4
        pixels, or "vit-3-4-32-8", whose patches are 8 x 8.
      hidden: units in each hidden layer of "mlp", of either tower.
      activation: of "mlp", "tanh" or "relu".
    """

    kind: str | None = host(None, fields.word(NETWORKS).or_none())
    hidden: tuple[int, ...] = host((64, 64), fields.sizes())
    activation: str = host("tanh", fields.word(ACTIVATIONS))


@record
class RateSchedule(Record):
    """How FedPPO's learning rate changes. What is None follows from the preset.

    Attributes:
      name: "constant", or "cosine": warm-up from 0, then a cosine that rises again after the
        horizon.
      warmup_epochs: of "cosine", at least 0.
      horizon_epochs: of "cosine", epochs until it is at its lowest, more than the warm-up.
    """

    name: str | None = static(None, fields.word(ppo.SCHEDULES).or_none())
    warmup_epochs: Any = traced(None, _NOT_NEGATIVE, scheduled=False)
    horizon_epochs: Any = traced(None, _POSITIVE, scheduled=False)


@record
class Loss(Record):
    """The loss of FedPPO. What is None follows from the preset.

    Attributes:
      policy_clip: epsilon, above 0.
      value_clip: farthest that a value may go from its old one unpunished, above 0; may be
        infinite.
      value_coefficient: of half the squared error, at least 0.
      entropy_coefficient: at least 0.
      normalize: advantages over the "rollout" of an agent, over each "minibatch", or "none".
    """

    policy_clip: Any = traced(None, _POSITIVE)
    value_clip: Any = traced(None, _BOUND)
    value_coefficient: Any = traced(None, _NOT_NEGATIVE)
    entropy_coefficient: Any = traced(None, _NOT_NEGATIVE)
    normalize: str | None = static(None, fields.word(ppo.NORMALISATIONS).or_none())


@record
class Rewards(Record):
    """What FedPPO learns from. What is None follows from the preset.

    Attributes:
      alignment: "correct", or "late": a reward counts for the action after the one that earned it.
      scale: factor of the rewards that are learned from, above 0.
      normalize: whether these are first divided by the running deviation of the discounted return.
      normalization_discount: of that return, in [0, 1].
    """

    alignment: str | None = static(None, fields.word(gae.ALIGNMENTS).or_none())
    scale: Any = traced(None, _POSITIVE)
    normalize: bool | None = static(None, fields.switch().or_none())
    normalization_discount: Any = traced(None, _PROBABILITY)


@record
class FedPPO(Varied, Averaged):
    """Properties of FedPPO. What is None follows from the preset and the size.

    Attributes:
      preset: "clean", "paper" (its errors included) or "procgen" (the published baseline of these
        games).
      size: "tiny", "small" or "paper": environments, steps of a rollout and the network. By default
        "small" where observations are pictures, "tiny" elsewhere.
      sync_first: whether epoch 0 is followed by the first average, as published: after epoch e if
        K divides e. Otherwise if it divides e + 1.
      sync_every_minibatches: average after so many updates within a pass, a number that divides
        the minibatches; with a period of 1.
      moments: Adam's at an average: "local" (each agent goes on with its own), "average" (they are
        sent, too) or "reset".
      aggregation: "mean" of the parameters, or "sum" of all changes since the last average.
      learning_rate: peak, above 0.
      schedule: of the learning rate.
      num_envs: E, environments of an agent.
      rollout_steps: T, steps of each in a rollout.
      passes: epochs for each rollout.
      minibatches: M, updates in a pass; it divides E T, or T where whole steps are shuffled.
      shuffle: "samples" (any samples make up a minibatch) or "steps" (all environments at a
        step).
      discount: gamma, in [0, 1].
      gae_lambda: lambda of the advantages, in [0, 1].
      loss: that is made smaller.
      gradient_clip: largest norm of a gradient, above 0; may be infinite.
      adam_epsilon: above 0.
      rewards: what is learned from.
      observations: what policies and values see; pictures are fractions of 255 as they are.
      bootstrap_timeouts: whether the value goes on where an episode is cut off; otherwise a
        timeout is an end.
      stale_tail: S, steps that an agent may go on beyond a rollout until every episode begun
        by then has ended, less than the rollout; they begin the next one, and are then an update
        old. The author's code has 64; 0 by default.
      network: of policy and value.
      deviation: first standard deviation of continuous actions, above 0; it is learned.
      evaluation_episodes: of the average parameters, per agent and record; 0 for no evaluation.
        Where observations are normalised, in each agent's environment by the statistics by which
        it acts, and in those held out by those of all agents together.
      uplink: what crosses the wire, everything by default. Uplinks other than `partial` act on the
        change since the last average, and everybody goes on from the server's parameters.
      batching: agents of a population "together" in one array or "in turn"; by default together,
        on an accelerator as many at a time as have room for their minibatches, but on a CPU they
        learn in turn, and networks for pictures act in turn, too. The same numbers but for
        rounding.
      derivative: as of `Federated`; "pathwise" is exact given the data, through every update and
        all that is computed of observations and actions. A return is data, its derivative 0.
    """

    preset: str = host("clean", fields.word(PRESETS))
    size: str | None = host(None, fields.word(SIZES).or_none())
    sync_first: bool = host(True, fields.switch())
    sync_every_minibatches: int | None = static(None, _COUNT)
    moments: str = static("local", fields.word(MOMENTS))
    aggregation: str = static("mean", fields.word(AGGREGATIONS))
    learning_rate: Any = traced(None, _POSITIVE)
    schedule: RateSchedule = nested(RateSchedule)
    num_envs: int | None = static(None, _COUNT)
    rollout_steps: int | None = static(None, _COUNT)
    passes: int | None = static(None, _COUNT)
    minibatches: int | None = static(None, _COUNT)
    shuffle: str | None = static(None, fields.word(ppo.SHUFFLES).or_none())
    discount: Any = traced(None, _PROBABILITY)
    gae_lambda: Any = traced(None, _PROBABILITY)
    loss: Loss = nested(Loss)
    gradient_clip: Any = traced(None, _BOUND)
    adam_epsilon: Any = traced(None, _POSITIVE)
    rewards: Rewards = nested(Rewards)
    observations: Observations = nested(Observations)
    bootstrap_timeouts: bool | None = static(None, fields.switch().or_none())
    stale_tail: int | None = static(None, fields.whole(0).or_none())
    network: PPONetwork = nested(PPONetwork)
    deviation: float = static(1.0, episodic.DEVIATION)
    evaluation_episodes: int = static(0, fields.whole(0))
    batching: str = static("auto", fields.word(BATCHING))

    def check(self) -> None:
        """Refuses what does not fit together."""
        super().check()
        full = self.resolved()
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
        one = is_number(full.sync_period) and full.sync_period == 1
        if every is not None and (full.minibatches % every or not one):
            raise ValueError(
                f"sync_every_minibatches is {every} with {full.minibatches} minibatches and "
                f"sync_period {full.sync_period}; allowed: a divisor of the minibatches, and 1"
            )
        warmup, horizon = full.schedule.warmup_epochs, full.schedule.horizon_epochs
        cosine = full.schedule.name == "cosine"
        if cosine and is_number(warmup, horizon) and horizon <= warmup:
            raise ValueError(
                f"schedule.horizon_epochs is {horizon}; allowed: more than warmup_epochs {warmup}"
            )
        if full.observations.normalize != "none" and is_picture(self.task):
            raise ValueError(
                f"observations.normalize is {full.observations.normalize} on {self.task.name}, "
                f"which shows pictures {seen(self.task).shape}; allowed: none"
            )
        if self.uplink is not None and self.aggregation == "sum":
            raise ValueError("aggregation is sum with an uplink; allowed: mean")

    def with_defaults(self):
        """With everything filled in that follows from the preset and the size."""
        pictures = is_picture(self.task)
        size = self.size or ("small" if pictures else "tiny")
        defaults = {**PRESETS[self.preset], **SIZES[size], "size": size}
        kind = defaults["network.kind"] or "classic"
        defaults["network.kind"] = kind if pictures else "mlp"
        given = {each.name: each.value for each in self.properties()}
        missing = {name: value for name, value in defaults.items() if given[name] is None}
        full = filled(self, missing)
        if full.minibatches is None:
            full = filled(full, {"minibatches": full.rollout_steps})
        if full.rewards.normalization_discount is None:
            full = filled(full, {"rewards.normalization_discount": full.discount})
        return full

    def static(self) -> tuple:
        """Besides the task the network."""
        return *super().static(), policy_of(self).module

    def derived(self, num_agents: int) -> Params:
        """Besides the environments when the first average is."""
        check_memory(self, num_agents)
        own = super().derived(num_agents)
        shift = np.uint32(0 if self.sync_first else 1)
        return Params(own.agent, {**own.federation, "sync_shift": shift}, {})


def filled(config, values: dict):
    """A record with properties filled in that need no check: they are defaults of ours."""
    config = copy.copy(config)
    for name, value in values.items():
        head, _, rest = name.partition(".")
        if rest:
            value = filled(getattr(config, head), {rest: value})
        object.__setattr__(config, head, value)
    return config


def preset(name: str, size: str | None = None) -> dict:
    """The properties of a preset, and of a size, as `fedppo` takes them, with dotted names.

    Args:
      name: of `PRESETS`.
      size: of `SIZES`, or None for no size.

    Raises:
      ValueError: an unknown name.
    """
    check_known(name, PRESETS, "preset")
    chosen = dict(PRESETS[name])
    if size is not None:
        check_known(size, SIZES, "size")
        chosen |= SIZES[size]
    return {name: value for name, value in chosen.items() if value is not None}


def first_exchange(config: FedPPO) -> int | None:
    """Epochs until the first average; None if unknown."""
    if config.sync_first or config.sync_every_minibatches is not None:
        return 1
    return config.sync_period if is_number(config.sync_period) else None


# Under which names learning finds the traced properties of `FedPPO`.
WEIGHTS = {
    "learning_rate": "learning_rate",
    "warmup_epochs": "schedule.warmup_epochs",
    "horizon_epochs": "schedule.horizon_epochs",
    "discount": "discount",
    "gae_lambda": "gae_lambda",
    "policy_clip": "loss.policy_clip",
    "value_clip": "loss.value_clip",
    "value_coefficient": "loss.value_coefficient",
    "entropy_coefficient": "loss.entropy_coefficient",
    "gradient_clip": "gradient_clip",
    "adam_epsilon": "adam_epsilon",
    "reward_scale": "rewards.scale",
    "normalization_discount": "rewards.normalization_discount",
}
