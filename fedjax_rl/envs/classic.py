"""Environments of gymnax (Lange 2022, https://github.com/RobertTLange/gymnax) as tasks.

Their bare functions are called, without the reset that gymnax puts behind every end of an episode
and without its compilation, so that a step inside a roll-out is nothing but its arithmetic.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl import fields
from fedjax_rl.envs.task import DISCOUNT, Continuous, Discrete, Task, cast, foreign
from fedjax_rl.names import check_known

_RESET_WIDTH = 0.05  # of gymnax
# What can differ between agents, and the parameter that it scales.
_PARTS = {
    "gravity": "gravity",
    "cart_mass": "masscart",
    "pole_mass": "masspole",
    "length": "length",
    "force": "force_mag",
}


class Watched(NamedTuple):
    """A state with what the behaviour needs of its observation.

    Attributes:
      state: of gymnax.
      seen: [2] float32, the first two entries of the observation.
    """

    state: Any
    seen: chex.Array


@dataclasses.dataclass(frozen=True, eq=False)
class GymnaxEnv:
    """An environment of gymnax behind the environment protocol; ``params`` are its own.

    Attributes:
      env: of gymnax.
      dtypes: of a state's leaves, the same after a reset and after a step.
      low: [M] lower end of every action, None where actions are discrete.
      high: [M] upper end.
      watch: whether a state is a `Watched` one or the bare one of gymnax.
    """

    env: Any
    dtypes: Any
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    watch: bool = False

    def reset(self, key: chex.PRNGKey, params: Any) -> tuple[chex.Array, Any]:
        """Returns ``(obs, state)`` of a new episode."""
        with foreign():
            obs, state = self.env.reset_env(key, params)
        return obs, self._watched(obs, cast(state, self.dtypes))

    def step(
        self, key: chex.PRNGKey, state: Any, action: chex.Array, params: Any
    ) -> tuple[chex.Array, Any, chex.Array, chex.Array, chex.Array, dict[str, Any]]:
        """Makes one step; at the end of an episode no new one starts.

        Args:
          key: consumed.
          state: of `reset` or a step.
          action: [] integer, or [M] in [-1, 1], which is stretched to the environment's range.
          params: of gymnax.

        Returns:
          ``(obs, state, reward, terminated, truncated, info)``: the reward [] float32, two bools
          of which the second is the environment's clock, an empty dictionary.
        """
        old = state.state if self.watch else state
        if self.low is not None:
            action = self.low + (action + 1) * ((self.high - self.low) / 2)
        with foreign():
            obs, new, reward, terminated, _ = self.env.step_env(key, old, action, params)
            truncated = self.env.is_truncated(new, params)
        return (
            obs,
            self._watched(obs, cast(new, self.dtypes)),
            jnp.asarray(reward, jnp.float32).reshape(()),
            jnp.asarray(terminated, bool),
            jnp.asarray(truncated, bool),
            {},
        )

    def limit(self, params: Any, max_steps: int) -> Any:
        """Returns parameters whose clock stops after ``max_steps`` steps."""
        return params.replace(max_steps_in_episode=max_steps)

    def _watched(self, obs: chex.Array, state: Any) -> Any:
        if not self.watch:
            return state
        seen = jnp.ravel(obs)[:2].astype(jnp.float32)
        return Watched(state, jnp.pad(seen, (0, 2 - seen.size)))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CartPoleParams:
    """Parameters of CartPole, those of gymnax and the width of a reset; [] or [N] each.

    Attributes:
      gravity: in m/s^2.
      masscart: in kg.
      masspole: in kg.
      total_mass: of cart and pole, in kg.
      length: half of the pole's, in m.
      polemass_length: mass of the pole times length, in kg m.
      force_mag: in N.
      tau: duration of a step, in s.
      theta_threshold_radians: angle at which the pole has fallen.
      x_threshold: distance at which the cart has left the track, in m.
      max_steps_in_episode: integer.
      reset_width: the four coordinates of a first state are uniform within plus and minus this,
        in m, m/s, rad and rad/s.
    """

    gravity: Any
    masscart: Any
    masspole: Any
    total_mass: Any
    length: Any
    polemass_length: Any
    force_mag: Any
    tau: Any
    theta_threshold_radians: Any
    x_threshold: Any
    max_steps_in_episode: Any
    reset_width: Any = _RESET_WIDTH

    def replace(self, **changes: Any) -> "CartPoleParams":
        """Returns a copy with some parameters exchanged, unchecked (they may be traced)."""
        return dataclasses.replace(self, **changes)

    def scaled(self, **factors: Any) -> "CartPoleParams":
        """Returns a copy with some parameters multiplied, and what is derived from them."""
        new = self.replace(**{name: getattr(self, name) * f for name, f in factors.items()})
        if "masscart" in factors or "masspole" in factors:
            new = new.replace(total_mass=new.masscart + new.masspole)
        if "length" in factors or "masspole" in factors:
            new = new.replace(polemass_length=new.masspole * new.length)
        return new


class CartPoleEnv(GymnaxEnv):
    """CartPole of gymnax with its states, and sine and cosine by polynomials.

    XLA's own on a CPU take as long as the rest of the step and a small network together. The
    angles of a pole are small, but any angle is right to a few units in the last place.
    ``params`` are `CartPoleParams`.
    """

    def reset(self, key: chex.PRNGKey, params: CartPoleParams) -> tuple[chex.Array, Any]:
        """Returns ``(obs, state)`` of a new episode, uniform within the reset width."""
        obs, state = super().reset(key, params)
        wider = params.reset_width / _RESET_WIDTH  # gymnax has the width in its code
        obs = obs * wider
        return obs, state.replace(x=obs[0], x_dot=obs[1], theta=obs[2], theta_dot=obs[3])

    def step(
        self, key: chex.PRNGKey, state: Any, action: chex.Array, params: CartPoleParams
    ) -> tuple[chex.Array, Any, chex.Array, chex.Array, chex.Array, dict[str, Any]]:
        """Makes one step of explicit Euler, as `GymnaxEnv.step`."""
        del key
        sine, cosine = sine_cosine(state.theta)
        force = jnp.where(action == 1, params.force_mag, -params.force_mag)
        pull = (force + params.polemass_length * state.theta_dot**2 * sine) / params.total_mass
        inertia = params.length * (4.0 / 3.0 - params.masspole * cosine**2 / params.total_mass)
        turn = (params.gravity * sine - cosine * pull) / inertia
        push = pull - params.polemass_length * turn * cosine / params.total_mass
        new = state.replace(
            x=state.x + params.tau * state.x_dot,
            x_dot=state.x_dot + params.tau * push,
            theta=state.theta + params.tau * state.theta_dot,
            theta_dot=state.theta_dot + params.tau * turn,
            time=state.time + 1,
        )
        fell = jnp.abs(new.x) > params.x_threshold
        fell = fell | (jnp.abs(new.theta) > params.theta_threshold_radians)
        obs = jnp.stack([new.x, new.x_dot, new.theta, new.theta_dot])
        reward = jnp.ones((), jnp.float32)
        return obs, new, reward, fell, new.time >= params.max_steps_in_episode, {}

    def parts(self, params: CartPoleParams) -> tuple[str, ...]:
        """What can differ between agents, as `envs.members` names it."""
        del params
        return (*_PARTS, "reset")

    def base(self, part: str, params: CartPoleParams) -> float:
        """The middle of a part that differs by a sum, "reset", in m."""
        del part
        return float(np.min(params.reset_width))

    def vary(self, params: CartPoleParams, changes: Mapping[str, np.ndarray]) -> CartPoleParams:
        """Returns parameters of N agents, on the host, in the dtypes of a state.

        Args:
          params: leaves [N].
          changes: by part, factors [N] or, for "reset", what the width differs by.
        """
        factors = {_PARTS[part]: change for part, change in changes.items() if part != "reset"}
        new = params.scaled(**factors)
        if "reset" in changes:
            new = new.replace(reset_width=new.reset_width + changes["reset"])
        fitting = {"max_steps_in_episode": self.dtypes.time}
        return CartPoleParams(
            **{
                field.name: np.asarray(
                    getattr(new, field.name), fitting.get(field.name, self.dtypes.x)
                )
                for field in dataclasses.fields(CartPoleParams)
            }
        )


def sine_cosine(angle: chex.Array) -> tuple[chex.Array, chex.Array]:
    """Sine and cosine by Taylor polynomials after a reduction to [-pi/2, pi/2].

    Args:
      angle: float32, in radians, any shape; accurate to 3e-7 within +-100.
    """
    turns = jnp.round(angle * (1 / math.pi))
    # pi in two parts, so that the difference of near numbers stays exact.
    rest = (angle - turns * 3.140625) - turns * (math.pi - 3.140625)
    square = rest * rest
    sign = 1 - 2 * jnp.abs(turns - 2 * jnp.floor(turns * 0.5))
    return sign * rest * _series(square, 1), sign * _series(square, 0)


def _series(square: chex.Array, first: int) -> chex.Array:
    """1 - x^2/((f+1)(f+2)) + ..., of sine (f = 1, without its factor x) or cosine (f = 0)."""
    total = jnp.ones_like(square)
    for place in range(6, 0, -1):
        low = 2 * place - 1 + first
        total = 1 - total * square * (1 / (low * (low + 1)))
    return total


@fields.checked(discount=DISCOUNT, max_steps=fields.COUNT.or_none())
def gymnax_task(
    name: str = "CartPole-v1", discount: float = 1.0, max_steps: int | None = None
) -> Task:
    """Adapts an environment of gymnax.

    CartPole's reward is 1 for every step, the one at which it falls included. Its behaviour is
    (mean position, mean angle, steps / 500), in m and rad; that of the others is the mean of the
    first two entries of the observation, and steps / max_steps. The dynamics are those of gymnax.
    They are Gymnasium's but for MountainCarContinuous, where gymnax takes the velocity away at the
    goal and leaves it at the left wall, and Gymnasium does it at the wall. Observations that are
    no vector are flattened, those that are one of a finite set are one-hot.

    Args:
      name: of gymnax, as ``gymnax.registered_envs`` lists it.
      discount: in [0, 1].
      max_steps: T, at least 1; None is the environment's own.

    Raises:
      ImportError: If gymnax is not installed.
      ValueError: If the environment is unknown, an argument is out of its range or the actions
        are neither discrete nor a bounded vector.
    """
    try:
        import gymnax
        from gymnax.environments import spaces
    except ImportError as error:
        raise ImportError(f"{name} needs gymnax: pip install 'gymnax>=1.0'") from error

    check_known(name, gymnax.registered_envs, "environment of gymnax")
    with foreign():
        try:
            env, params = gymnax.make(name)
        except OSError as error:
            raise ValueError(
                f"name is {name!r}, whose data cannot be fetched ({error}); allowed without a "
                "network: environments that need none"
            ) from error
        own = int(params.max_steps_in_episode)
        max_steps = own if max_steps is None else max_steps
        params = params.replace(max_steps_in_episode=max_steps)
        action_space = env.action_space(params)
        key = jax.random.key(0)
        observation, first = jax.eval_shape(env.reset_env, key, params)
        # What a reset gives as an integer, a step may give as a fraction.
        action = jnp.zeros(action_space.shape, action_space.dtype)
        _, second, *_ = jax.eval_shape(env.step_env, key, first, action, params)
        dtypes = jax.tree.map(lambda a, b: jnp.result_type(a.dtype, b.dtype), first, second)

    low = high = None
    if isinstance(action_space, spaces.Discrete):
        action = Discrete(int(action_space.n))
    else:
        action, low, high = _box(name, action_space)

    if not isinstance(observation, jax.ShapeDtypeStruct):
        raise ValueError(f"name is {name!r}; allowed: environments that observe one array")
    size, encode = math.prod(observation.shape), _vector
    if observation.shape == ():
        with foreign():
            categories = getattr(env.observation_space(params), "n", None)
        if categories:
            size = int(categories)
            encode = lambda obs: jax.nn.one_hot(obs, size, dtype=jnp.float32)

    if name == "CartPole-v1":
        trace, watch, longest = _cartpole_trace, False, own
        params = CartPoleParams(**dataclasses.asdict(params))
    else:
        trace, watch, longest = (lambda state: state.seen), True, max_steps

    def summarise(last: chex.Array, mean: chex.Array, steps: chex.Array) -> chex.Array:
        del last
        share = jnp.asarray(steps, jnp.float32) / longest
        return jnp.append(mean, share)

    return Task(
        name=name if name == "CartPole-v1" else f"gymnax/{name}",
        env=(CartPoleEnv if name == "CartPole-v1" else GymnaxEnv)(env, dtypes, low, high, watch),
        params=params,
        observation_size=size,
        action=action,
        max_steps=max_steps,
        discount=discount,
        encode=encode,
        trace=trace,
        summarise=summarise,
        behaviour_size=3,
        options=(("discount", discount), ("max_steps", max_steps)),
    )


def _vector(obs: chex.Array) -> chex.Array:
    """A float32 vector is itself; anything else is flattened and cast."""
    if obs.ndim == 1 and obs.dtype == jnp.float32:
        return obs
    return jnp.ravel(obs).astype(jnp.float32)


def _cartpole_trace(state: Any) -> chex.Array:
    return jnp.stack([state.x, state.theta])


def _box(name: str, space: Any) -> tuple[Continuous, np.ndarray, np.ndarray]:
    """Returns the actions of a box and its two ends, both float32 of the box's shape."""
    shape = getattr(space, "shape", None)
    if shape is None or len(shape) != 1 or not hasattr(space, "low"):
        raise ValueError(
            f"name is {name!r} with the actions {space}; allowed: environments with discrete "
            "actions or a vector of them"
        )
    low, high = (np.broadcast_to(np.asarray(e, np.float32), shape) for e in (space.low, space.high))
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise ValueError(f"name is {name!r} with unbounded actions; allowed: bounded actions")
    return Continuous(shape[0]), low, high
