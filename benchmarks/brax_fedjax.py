"""The rows of the case `brax`: physics alone, within a federation, and of sixteen agents."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from harness import Call, compiled, started

import fedjax_rl as frl
from fedjax_rl import envs
from fedjax_rl.envs.task import foreign

COPIES, LENGTH = 128, 40  # environments, and steps of an episode, or of a roll-out
PASSES = 4
HIDDEN = (64, 64)


def _scan(step, state, size: int, turns: int) -> Call:
    """A scan of a step of many copies, with uniform actions; the first states again every turn."""

    def rollout(key):
        def one(carry, key):
            action = jax.random.uniform(key, (COPIES, size), minval=-1.0)
            return step(carry, action), None

        def turn(total, key):
            after, _ = jax.lax.scan(one, state, jax.random.split(key, LENGTH))
            return total + after.reward.sum(), None

        return jax.lax.scan(turn, 0.0, jax.random.split(key, turns))[0]

    with foreign():
        run, seconds = compiled(rollout, jax.random.key(0))
    return Call(functools.partial(run, jax.random.key(1)), COPIES * LENGTH * turns, seconds)


def bodies(name: str, turns: int) -> dict[str, Call]:
    """Steps of copies of an environment: by this package, and brax's own under `vmap`."""
    task = envs.brax_task(name)
    key = jax.random.key(0)
    _, state = jax.vmap(lambda key: task.env.reset(key, task.params))(jax.random.split(key, COPIES))
    ours = jax.vmap(lambda state, action: task.env.step(key, state, action, task.params)[1])
    theirs = jax.vmap(task.env.env.step)
    size = task.action.size
    return {
        "fedjax_rl": _scan(ours, state, size, turns),
        "brax": _scan(theirs, state, size, turns),
    }


def _advance(algorithm, agents: int, steps: int, units: int) -> Call:
    """So many steps of a federation."""
    everybody, functions, params, state = started(algorithm, agents)
    run, seconds = compiled(
        lambda p, s: functions.advance(everybody, p, s, jnp.uint32(steps)), params, state
    )
    return Call(functools.partial(run, params, state), units, seconds)


def _ppo(task, num_envs: int):
    return frl.fedppo(
        task,
        num_envs=num_envs,
        rollout_steps=LENGTH,
        passes=PASSES,
        minibatches=4,
        network={"hidden": HIDDEN},
    )


def learners(name: str, turns: int) -> dict[str, Call]:
    """ES and PPO in an environment, and a plain scan of its steps."""
    task = envs.brax_task(name, max_steps=LENGTH)
    units = COPIES * LENGTH * turns
    return {
        "es": _advance(frl.es(task, network=HIDDEN), COPIES, turns, units),
        "ppo": _advance(_ppo(task, COPIES), 1, turns * PASSES, units),
        **{f"scan, {row}": call for row, call in bodies(name, turns).items()},
    }


def agents(name: str, turns: int) -> dict[str, Call]:
    """PPO of one agent, and of sixteen that have as many environments together."""
    task = envs.brax_task(name)
    units = COPIES * LENGTH * turns
    return {
        "16 agents": _advance(_ppo(task, COPIES // 16), 16, turns * PASSES, units),
        "one agent": _advance(_ppo(task, COPIES), 1, turns * PASSES, units),
    }
