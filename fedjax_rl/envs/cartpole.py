"""CartPole of gymnax with physics that can differ between agents."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl import streams
from fedjax_rl.envs.gymnax_env import GymnaxEnv

_RESET_WIDTH = 0.05  # of gymnax
# What can differ between agents, and the parameter that it scales.
_PARTS = {
    "gravity": "gravity",
    "cart_mass": "masscart",
    "pole_mass": "masspole",
    "length": "length",
    "force": "force_mag",
}


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
        """Returns ``(obs, state)`` of a new episode, uniform within the reset width.

        Args:
          key: consumed.
          params: of one agent.
        """
        _, state = super().reset(key, params)  # for its form alone
        # As gymnax draws them, but written out: the loop that `jax.random` calls takes longer than
        # many steps.
        share = streams.uniform_of(key, jnp.result_type(float), 4)
        obs = jnp.maximum(-_RESET_WIDTH, share * (2 * _RESET_WIDTH) - _RESET_WIDTH)
        wider = params.reset_width / _RESET_WIDTH  # gymnax has the width in its code
        obs = obs * wider
        return obs, state.replace(x=obs[0], x_dot=obs[1], theta=obs[2], theta_dot=obs[3])

    def step(
        self, key: chex.PRNGKey, state: Any, action: chex.Array, params: CartPoleParams
    ) -> tuple[chex.Array, Any, chex.Array, chex.Array, chex.Array, dict[str, Any]]:
        """Makes one step of explicit Euler, as `GymnaxEnv.step`.

        Args:
          key: not needed, the physics is deterministic.
          state: of `reset` or a step.
          action: [] integer, 1 pushes to the right.
          params: of one agent.
        """
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
        """The middle of a part that differs by a sum, "reset", in m.

        Args:
          part: of `parts`.
          params: leaves [N], of which the least is the middle.
        """
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
    # From the smallest term up, so that the large ones are rounded last.
    for place in range(6, 0, -1):
        low = 2 * place - 1 + first
        total = 1 - total * square * (1 / (low * (low + 1)))
    return total
