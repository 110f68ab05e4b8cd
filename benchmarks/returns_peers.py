"""What PPO has learned in bodies of brax after equally many steps: this package's, and rejax's.

Both have the same body, the same episodes of at most 1,000 steps, networks with two hidden layers
of 64 tanh units, roll-outs, passes, minibatches, discounts, and normalised observations and
rewards. What rejax has not (a rate that falls, a value behind the end of the time) it is left
without. Brax's own training asks for a function that JAX 0.10 no longer has.
"""

from __future__ import annotations

import functools

import jax
import numpy as np

import fedjax_rl as frl

HIDDEN = (64, 64)
POINTS = 10  # evaluations of a run, the last one at its end
EPISODES = 128  # of an evaluation, with actions that are drawn
LONGEST = 1000  # steps of an episode


def _tuned(name: str, rollouts: int):
    """The tuned algorithm for so many roll-outs, and its epochs."""
    best = frl.tuned("fedppo", f"brax/{name}")
    epochs = rollouts * best.properties["passes"]
    horizon = {"schedule.horizon_epochs": epochs}
    return best.make(evaluation_episodes=EPISODES, **horizon), epochs


def rollouts_of(name: str, scale: float) -> int:
    """Roll-outs of a run, a number that the evaluations divide."""
    best = frl.tuned("fedppo", f"brax/{name}")
    whole = best.num_steps // best.properties["passes"]
    return max(1, round(scale * whole / POINTS)) * POINTS


def steps_of(name: str, rollouts: int) -> int:
    """Steps of the environment in so many roll-outs."""
    own = frl.tuned("fedppo", f"brax/{name}").properties
    return rollouts * own["num_envs"] * own["rollout_steps"]


def ours(name: str, rollouts: int, seed: int) -> list[float]:
    """Mean returns of one agent at the evaluations."""
    algorithm, epochs = _tuned(name, rollouts)
    made = frl.sweep(
        algorithm,
        num_agents=1,
        num_steps=epochs,
        seeds=[seed],
        record_every=epochs // POINTS,
        metrics=("return",),
    )
    return [float(value) for value in np.ravel(made["return"])]


class Body:
    """A body of brax as rejax takes environments; copies lie as here, which moves them alike."""

    default_params = None

    def __init__(self, name: str) -> None:
        from brax import envs

        body = envs.create(name, episode_length=LONGEST, backend="spring")
        body.unwrapped.step = frl.envs.in_lanes(body.unwrapped.step)
        self.body = body

    def __deepcopy__(self, memo):
        return self  # rejax copies what it is given, and bodies cannot be copied

    def reset(self, key, params):
        """Observation and state."""
        del params
        state = self.body.reset(key)
        return state.obs, state

    def step(self, key, state, action, params):
        """As of gymnax before it told two ends of an episode apart."""
        del key, params
        state = self.body.step(state, action)
        return state.obs, state, state.reward, state.done.astype(bool), {}

    def action_space(self, params):
        """Of numbers within +-1."""
        from gymnax.environments import spaces

        del params
        return spaces.Box(-1.0, 1.0, (self.body.action_size,))

    def observation_space(self, params):
        """Of any numbers."""
        from gymnax.environments import spaces

        del params
        return spaces.Box(-np.inf, np.inf, (self.body.observation_size,))


@functools.cache
def _rejax(name: str, rate: float):
    """Its beginning, a part of its training, and what is evaluated, compiled once."""
    import rejax
    from rejax.evaluate import evaluate_single

    own, body = frl.tuned("fedppo", f"brax/{name}").properties, Body(name)
    algorithm = rejax.PPO.create(
        env=body,
        agent_kwargs={"activation": "tanh", "hidden_layer_sizes": HIDDEN},
        num_envs=own["num_envs"],
        num_steps=own["rollout_steps"],
        num_epochs=own["passes"],
        num_minibatches=own["minibatches"],
        learning_rate=rate,
        gamma=own["discount"],
        gae_lambda=own["gae_lambda"],
        ent_coef=own["loss.entropy_coefficient"],
        clip_eps=0.2,
        max_grad_norm=0.5,
        normalize_observations=True,
        normalize_rewards=True,
    )

    def train(state, count):
        return jax.lax.fori_loop(0, count, lambda _, s: algorithm.train_iteration(s), state)

    def played(state, key):
        act = algorithm.make_act(state)
        one = functools.partial(evaluate_single, act, body, None)
        _, returns = jax.vmap(lambda key: one(key, LONGEST))(jax.random.split(key, EPISODES))
        return returns.mean()

    return jax.jit(algorithm.init_state), jax.jit(train), jax.jit(played)


def rejax(name: str, rollouts: int, seed: int, rate: float | None = None) -> list[float]:
    """The same of rejax; its rate is our first unless it is given."""
    own = frl.tuned("fedppo", f"brax/{name}").properties
    begin, train, played = _rejax(name, own["learning_rate"] if rate is None else rate)
    state, returns = begin(jax.random.key(seed)), []
    for point in range(POINTS):
        state = train(state, rollouts // POINTS)
        key = jax.random.fold_in(jax.random.key(seed), point)
        returns.append(float(played(state, key)))
    return returns
