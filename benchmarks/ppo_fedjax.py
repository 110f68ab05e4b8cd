"""The rows of the case `ppo`: agents on CartPole, and where the time of IMPALA goes."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from harness import Call, compiled, started
from ppo_peers import HYPER, MINIBATCHES, PASSES, STEPS

import fedjax_rl as frl
from fedjax_rl import envs
from fedjax_rl.algorithms import fedppo_resources as properties
from fedjax_rl.algorithms.fedppo_properties import WEIGHTS
from fedjax_rl.learners import optimizers, ppo
from fedjax_rl.networks import pictures
from fedjax_rl.rollouts import batches, vectorised
from fedjax_rl.rollouts.environments import VectorEnv

# Of the part about pictures: environments, steps of a rollout, minibatches of an agent.
SMALL = {"num_envs": 64, "rollout_steps": 16, "minibatches": 4}
AGENTS = 4


def epochs(algorithm, num_agents: int, count: int) -> tuple[Callable, float]:
    """So many epochs of a federation, and the seconds that it took to compile them."""
    everybody, functions, params, state = started(algorithm, num_agents)
    program, seconds = compiled(
        lambda p, s: functions.advance(everybody, p, s, jnp.uint32(count)), params, state
    )
    return functools.partial(program, params, state), seconds


def cartpole(num_agents: int, num_envs: int, rollouts: int, **values) -> Call:
    """FedPPO on CartPole with the hyper-parameters of the peer."""
    algorithm = _cartpole(num_envs, **values)
    run, seconds = epochs(algorithm, num_agents, rollouts * PASSES)
    return Call(run, rollouts * num_agents * num_envs * STEPS, seconds)


def _named(values: dict) -> dict:
    """Properties under their names in FedPPO's records, from those of the peers."""
    loss = ("policy_clip", "value_clip", "value_coefficient", "entropy_coefficient")
    return {f"loss.{name}" if name in loss else name: value for name, value in values.items()}


def _cartpole(num_envs: int, **values):
    return frl.fedppo(
        envs.gymnax_task("CartPole-v1"),
        num_envs=num_envs,
        rollout_steps=STEPS,
        passes=PASSES,
        minibatches=MINIBATCHES,
        shuffle="samples",
        rewards={"scale": 1.0},
        gradient_clip=np.inf,
        adam_epsilon=1e-8,
        bootstrap_timeouts=False,
        **{**_named(HYPER), "network.hidden": (64, 64), "loss.normalize": "minibatch", **values},
    )


def learned(num_agents: int, num_envs: int, rollouts: int, seed: int) -> float:
    """Mean return after so many rollouts, of the agents' average, over 64 episodes."""
    found = frl.sweep(
        _cartpole(num_envs, evaluation_episodes=64 // num_agents),
        num_agents=num_agents,
        num_steps=rollouts * PASSES,
        record_every=rollouts * PASSES,
        seeds=seed,
    )
    return float(found["return"][-1])


# Pictures -----------------------------------------------------------------------------------------


def _bigfish():
    return envs.procgen_task(
        "BigFish",
        observation="pixels",
        paint_vel_info=True,
        use_backgrounds=False,
        restrict_themes=True,
        use_monochrome_assets=True,
    )


def multiplications(channels=(16, 32, 32), units: int = 256, side: int = 64, seen: int = 3) -> int:
    """Multiply-adds of IMPALA's forward pass on one picture; heads of 15 and 1 outputs."""
    count = 0
    for own in channels:
        count += 9 * seen * own * side**2
        side, seen = side // 2, own
        count += 4 * 9 * own**2 * side**2
    return count + side**2 * seen * units + 16 * units


def peak(seconds_of: Callable[[Callable], float]) -> float:
    """Floating-point operations per second of a large product of matrices, float32."""
    size = 4096 if jax.default_backend() != "cpu" else 1536
    x = jnp.ones((size, size), jnp.float32)
    program, _ = compiled(lambda x: x @ x, x)
    return 2 * size**3 / seconds_of(lambda: program(x))


def parts() -> dict[str, Call]:
    """One agent with IMPALA: an epoch with its rollout; environment, forward, backward apart.

    A unit is one frame of the rollout: a step of the environment, a forward pass to act, and as
    many passes forward and backward to learn as there are passes.
    """
    algorithm = frl.fedppo(_bigfish(), network="impala", passes=1, **SMALL)
    config = algorithm.config.resolved()
    task, policy = config.task, properties.policy_of(config)
    settings = properties.settings_of(config)
    frames = config.num_envs * config.rollout_steps
    whole, seconds = epochs(algorithm, 1, 1)
    keys = jax.random.split(jax.random.key(0), 1)
    collector = jax.jit(
        lambda k: vectorised.begin(task, k, config.num_envs, scale=False, late=False)
    )(keys)
    worlds = VectorEnv(task, nested=True)
    parameters = policy.init(jax.random.key(1))

    def environment(collector, key):
        def step(carry, key):
            state, last = carry
            words = jax.random.bits(key, (2, 1, config.num_envs))
            action = jax.random.randint(key, (1, config.num_envs), 0, 15)
            seen, state, *_ = worlds.step(words, state, action)
            return (state, seen), last[0, 0, 0, 0]

        carry = collector.rollout.state, collector.rollout.observation
        return jax.lax.scan(step, carry, jax.random.split(key, config.rollout_steps))

    def forward(parameters, seen):
        def step(carry, _):
            # What was seen depends on what came before, or it would be computed once.
            outputs, value = policy.apply(parameters + carry, seen)
            return 1e-20 * (jnp.mean(outputs) + jnp.mean(value)), None

        return jax.lax.scan(step, jnp.float32(0), None, config.rollout_steps)[0]

    blank = batches.empty_batch(task, policy, config.num_envs, config.rollout_steps)
    params = algorithm.parameters(algorithm.config, 1).federation
    weights = {name: jnp.float32(params[known]) for name, known in WEIGHTS.items()}
    weights |= {"rate": jnp.float32(1e-9), "adam_epsilon": jnp.float32(1e-5)}

    def learning(parameters, batch, key):
        size = config.rollout_steps, config.num_envs
        places = ppo.order(key, size, config.minibatches, config.shuffle)
        moments = optimizers.no_moments(parameters)
        return ppo.improve(policy, parameters, moments, batch, places, weights, settings)[0]

    made = {"whole": Call(whole, frames, seconds)}
    arguments = {
        "environment": (environment, collector, jax.random.key(2)),
        "acting": (forward, parameters, collector.rollout.observation[0]),
        "learning": (learning, parameters, blank, jax.random.key(3)),
    }
    for name, (function, *values) in arguments.items():
        program, seconds = compiled(function, *values)
        made[name] = Call(functools.partial(program, *values), frames, seconds)
    return made


def operations(kind: str) -> float:
    """Floating-point operations of a frame, of IMPALA's products alone.

    Backward they are twice those forward; the first layer needs none of its input.
    """
    one = 2.0 * multiplications()
    first = 2.0 * 9 * 3 * 16 * 64**2
    return {"acting": one, "learning": 3 * one - first, "whole": 4 * one - first}[kind]


def _in_turn(function):
    return lambda *trees: jax.lax.map(lambda each: function(*each), trees)


def _as_one(function):
    def one(parameters, seen):
        return function(parameters[0], seen.reshape(-1, *seen.shape[2:]))

    return one


LAYOUTS = {"together": jax.vmap, "in turn": _in_turn, "one batch, equal weights": _as_one}


def convolutions(num_pictures: int) -> dict[str, dict[str, Call]]:
    """Ways to apply the networks of several agents, forward and with the gradient.

    "xla" leaves the gradient of a convolution to XLA, "products" takes that of its kernel as nine
    products of matrices, which is what `networks.pictures` does on a CPU.
    """
    policy = properties.policy_of(
        frl.fedppo(_bigfish(), network="impala", **SMALL).config.resolved()
    )
    parameters = jnp.stack([policy.init(jax.random.key(n)) for n in range(AGENTS)])
    size = (AGENTS, num_pictures, 64, 64, 3)
    seen = jax.random.randint(jax.random.key(9), size, 0, 256).astype(jnp.uint8)

    def forward(parameters, seen):
        outputs, value = policy.apply(parameters, seen)
        return jnp.mean(outputs) + jnp.mean(value)

    units, made = AGENTS * num_pictures, {"forward": {}, "gradient": {}}
    gradients = {"xla": pictures._convolve, "products": pictures._convolve_on_cpu}
    for layout, wrap in LAYOUTS.items():
        program, seconds = compiled(wrap(forward), parameters, seen)
        call = functools.partial(program, parameters, seen)
        made["forward"][layout] = Call(call, units, seconds)
        for name, way in gradients.items():
            chosen, pictures.convolve = pictures.convolve, way
            try:

                def gradient(parameters, seen):
                    # Within a loop, as minibatches are.
                    def step(carry, _):
                        return carry - 1e-9 * jax.grad(forward)(carry, seen), None

                    return jax.lax.scan(step, parameters, None, 2)[0]

                program, seconds = compiled(wrap(gradient), parameters, seen)
            finally:
                pictures.convolve = chosen
            call = functools.partial(program, parameters, seen)
            made["gradient"][f"{layout}, {name}"] = Call(call, 2 * units, seconds)
    return made
