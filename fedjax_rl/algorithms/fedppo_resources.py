"""What of FedPPO's properties shapes a program, and how much memory it takes.

Of configurations that are resolved where nothing else is said.
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_rl import backend, memory, streams
from fedjax_rl.algorithms.observed import nothing_observed
from fedjax_rl.learners import microbatches, optimizers, ppo
from fedjax_rl.learners.actor_critic import ActorCritic, actor_critic_for
from fedjax_rl.remembered import remembered
from fedjax_rl.rollouts import batches, vectorised


@remembered()
def _policy(task, network, hidden, activation, deviation, clip) -> ActorCritic:
    policy = actor_critic_for(
        task, network, hidden=hidden, activation=activation, deviation=deviation
    )
    return dataclasses.replace(policy, clip=float(clip))


def policy_of(config) -> ActorCritic:
    """Policy and value of all agents, of a configuration that is resolved."""
    network = config.network
    shape = network.kind, network.hidden, network.activation
    return _policy(config.task, *shape, config.deviation, config.observations.clip)


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
    observations: str


def settings_of(config) -> Settings:
    """The settings of a configuration that is resolved."""
    return Settings(
        num_envs=config.num_envs,
        rollout_steps=config.rollout_steps,
        passes=config.passes,
        minibatches=config.minibatches,
        shuffle=config.shuffle,
        normalize=config.loss.normalize,
        schedule=config.schedule.name,
        reward_alignment=config.rewards.alignment,
        reward_normalization=config.rewards.normalize,
        bootstrap_timeouts=config.bootstrap_timeouts,
        stale_tail=config.stale_tail,
        observations=config.observations.normalize,
    )


class Together(NamedTuple):
    """How many agents make rollouts, and learn, as one array at most; None where all do."""

    rollouts: int | None
    passes: int | None


# Of an accelerator's memory, what minibatches of agents that learn together may take.
ROOM = 0.5


def together_of(config) -> Together:
    """What is done together, from a configuration that is resolved.

    On a CPU agents learn in turn: products with a matrix for every agent take a quarter longer than
    one after the other, and convolutions with a kernel for every agent three times as long. An
    accelerator waits for every kernel that it is handed, and does more in one: as many agents learn
    at a time as have room for their minibatches.
    """
    if config.batching != "auto":
        return Together(*(2 * [None if config.batching == "together" else 1]))
    if backend.kind() == "cpu":
        return Together(None if config.network.kind == "mlp" else 1, 1)
    there = memory.available(devices=1)
    if there is None:
        return Together(None, None)
    one = _each(config)["minibatch"]
    return Together(None, max(1, int(ROOM * there) // one))


def tail_of(task, policy, settings):
    """A blank batch as long as the steps beyond a rollout; None where there are none.

    Args:
      task: an `envs.Task`.
      policy: of all agents.
      settings: says how many steps a tail may have.
    """
    steps = settings.stale_tail
    return batches.empty_batch(task, policy, settings.num_envs, steps) if steps else None


def memory_of(config, num_agents: int = 1) -> dict[str, int]:
    """Bytes that a federation needs, from the shapes of its arrays; nothing is compiled.

    Args:
      config: of an algorithm.
      num_agents: N.

    Returns:
      "parameters" (with Adam's moments and statistics of observations), "rollout" (observations in
      their own dtype), "environments" (their states), "minibatch" (and what a backward pass
      keeps of a microbatch of it), "total". All but the minibatch are there twice, before a chunk
      of epochs and after it; the minibatch is there for as many agents as learn at a time. Where
      agents make rollouts in turn, those that are made are there once more, and so are the
      parameters of all.
    """
    config = config.resolved()
    each = _each(config)
    play, learn = (
        num_agents if most is None else min(most, num_agents) for most in together_of(config)
    )
    found = {n: num_agents * size for n, size in each.items()}
    lasting = found["parameters"] + found["rollout"] + found["environments"]
    found["minibatch"] = learn * each["minibatch"]
    in_turn = found["parameters"] + play * each["rollout"] if play < num_agents else 0
    return {**found, "total": 2 * lasting + in_turn + found["minibatch"]}


def _each(config) -> dict[str, int]:
    """Bytes of one agent, as of `memory_of`."""
    policy, settings = policy_of(config), settings_of(config)
    amount = settings.num_envs * settings.rollout_steps // settings.minibatches
    size = microbatches.at_once(policy.shape, amount)
    return _parts(config.task, policy, settings, amount, size)


@remembered()
def _parts(task, policy, settings, amount: int, size: int) -> dict[str, int]:
    """Bytes of one agent with minibatches of so many samples, microbatches of so many."""

    def parts(key):
        parameters = policy.init(key)
        observed = nothing_observed(settings.observations, math.prod(policy.shape))
        learned = parameters, optimizers.no_moments(parameters), observed
        batch = batches.empty_batch(task, policy, settings.num_envs, settings.rollout_steps)
        keys = jax.random.split(key, 1)
        tail = tail_of(task, policy, settings)
        # With everything that may be kept, so that no setting needs more.
        collector = vectorised.begin(
            task, keys, settings.num_envs, scale=True, late=True, tail=tail
        )
        return learned, batch, collector

    learned, batch, collector = jax.eval_shape(parts, streams.any_key())

    def samples(count):
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct((count, *x.shape[2:]), x.dtype), batch)

    number = jax.ShapeDtypeStruct((), jnp.float32)
    names = ("policy_clip", "value_clip", "value_coefficient", "entropy_coefficient")

    def backward(parameters, part, weights):
        # What the function encloses is what a backward pass keeps; only its shapes are looked at.
        return jax.vjp(lambda p: ppo.loss(policy, p, part, weights)[0], parameters)[1]

    kept = jax.eval_shape(backward, learned[0], samples(size), dict.fromkeys(names, number))
    return {
        "parameters": memory.size(learned),
        "rollout": memory.size(batch),
        "environments": memory.size(collector),
        "minibatch": memory.size(kept) + memory.size(samples(amount)),
    }


def check_memory(config, num_agents: int) -> None:
    """Refuses a federation that the device cannot hold.

    Args:
      config: of the algorithm.
      num_agents: N.
    """
    needed, there = memory_of(config, num_agents), memory.available()
    if there is not None and needed["total"] > there:
        raise ValueError(
            f"num_agents is {num_agents} with num_envs {config.num_envs}, rollout_steps "
            f"{config.rollout_steps} and network {config.network.kind}, which needs "
            f"{memory.words(needed['total'])} ({memory.words(needed['rollout'])} of rollouts, "
            f"{memory.words(needed['minibatch'])} of a minibatch); allowed: at most "
            f"{memory.words(there)}, what there is"
        )
