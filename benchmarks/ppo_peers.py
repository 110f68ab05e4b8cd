"""PPO as a published package has it: rejax, with the same hyper-parameters as `ppo_fedjax`."""

from __future__ import annotations

import gymnax
import jax
import numpy as np
from harness import Call, compiled

# Alike everywhere: environments of all agents, steps of a rollout, passes, minibatches.
ENVS, STEPS, PASSES, MINIBATCHES = 256, 128, 4, 8
HYPER = {
    "learning_rate": 3e-4,
    "discount": 0.99,
    "gae_lambda": 0.95,
    "policy_clip": 0.2,
    "value_coefficient": 0.5,
    "entropy_coefficient": 0.01,
}


def _joined(kind: type):
    """An environment of gymnax as rejax has known it: one flag for both ends of an episode."""

    class Joined(kind):
        def step(self, key, state, action, params):
            out = super().step(key, state, action, params)
            observation, state, reward, terminated, truncated, _ = out
            return observation, state, reward, terminated | truncated, {}

    return Joined()


def rejax_ppo(environment: str, envs: int, rollouts: int) -> tuple[Call, object]:
    """So many rollouts, each with its passes, of one agent; no evaluations between them.

    Returns:
      The call, and `seed -> mean return` of what it learned, over 64 episodes.
    """
    import rejax
    from rejax.evaluate import evaluate

    env, params = gymnax.make(environment)
    algorithm = rejax.PPO.create(
        env=_joined(type(env)),
        env_params=params,
        agent_kwargs={"activation": "tanh", "hidden_layer_sizes": (64, 64)},
        num_envs=envs,
        num_steps=STEPS,
        num_epochs=PASSES,
        num_minibatches=MINIBATCHES,
        learning_rate=HYPER["learning_rate"],
        gamma=HYPER["discount"],
        gae_lambda=HYPER["gae_lambda"],
        clip_eps=HYPER["policy_clip"],
        vf_coef=HYPER["value_coefficient"],
        ent_coef=HYPER["entropy_coefficient"],
        total_timesteps=rollouts * envs * STEPS,
    )

    def train(state):
        return jax.lax.fori_loop(0, rollouts, lambda _, s: algorithm.train_iteration(s), state)

    # Traced once: every call makes a class of its own for what it returns.
    begin = jax.jit(algorithm.init_state)
    state = begin(jax.random.key(0))
    program, seconds = compiled(train, state)

    def learned(seed: int) -> float:
        done = program(begin(jax.random.key(seed)))
        act, limit = algorithm.make_act(done), params.max_steps_in_episode
        key = jax.random.key(seed)
        lengths, returns = evaluate(act, key, algorithm.env, params, 64, limit)
        del lengths
        return float(np.mean(returns))

    return Call(lambda: program(state), rollouts * envs * STEPS, seconds), learned
