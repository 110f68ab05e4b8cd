"""A linear system with quadratic costs, whose best policy is known.

    x' = A x + B u + noise,   reward -(x' Q x + u' R u)

of state and action before the step. The best action is linear in the state, u = -K x, with K from
a Riccati equation, see `envs.riccati`. A step is smooth in everything: policies can be
differentiated through whole episodes, and so can the matrices.

* Anderson and Moore, *Optimal Control: Linear Quadratic Methods* (1990), sections 2.4 and 3.1.
* Fazel, Ge, Kakade and Mesbahi, *Global Convergence of Policy Gradient Methods for the Linear
  Quadratic Regulator*, arXiv 1801.05039: what policy gradients do there.

Axis letters: `n` entries of a state, `M` of an action, `N` agents.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import chex
import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl import fields, streams
from fedjax_rl.envs.adapting import mean_and_share
from fedjax_rl.envs.tabular import DISCOUNT, check_size
from fedjax_rl.envs.task import Continuous, Task

# A mass on a line, observed every 0.2 s under a force that is constant in between.
_DYNAMICS = ((1.0, 0.2), (0.0, 1.0))
_CONTROL = ((0.02,), (0.2,))
_PARTS = ("drift", "control", "state_cost", "action_cost", "noise")
_LEVEL = fields.number(0, follows=False)
# Eigenvalues of a matrix that was rounded.
_ROUNDING = 1e-9


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LQRParams:
    """Parameters of a linear system, float; with a leading axis [N] of many agents.

    Attributes:
      dynamics: A, [n, n].
      control: B, [n, M].
      state_cost: Q, [n, n].
      action_cost: R, [M, M].
      noise: standard deviation of what is added to every entry of a state in a step, [].
      first: standard deviation of every entry of a first state, [].
    """

    dynamics: Any
    control: Any
    state_cost: Any
    action_cost: Any
    noise: Any
    first: Any


@dataclasses.dataclass(frozen=True)
class LQREnv:
    """A linear system behind the environment protocol; ``params`` are `LQRParams`.

    A state is x, float [n] in the run's precision, and observed as it is. No episode ends by
    itself.
    """

    endless: ClassVar[bool] = True

    def reset(self, key: chex.PRNGKey, params: LQRParams) -> tuple[chex.Array, chex.Array]:
        """Returns ``(obs, state)`` of a new episode, normal around 0.

        Args:
          key: consumed.
          params: of one agent.
        """
        dtype = jnp.result_type(float)
        size = jnp.shape(params.dynamics)[-1]
        state = jnp.asarray(params.first, dtype) * _normal(key, size, dtype)
        return state, state

    def step(
        self, key: chex.PRNGKey, state: chex.Array, action: chex.Array, params: LQRParams
    ) -> tuple[chex.Array, chex.Array, chex.Array, chex.Array, chex.Array, dict[str, Any]]:
        """Makes one step.

        Args:
          key: consumed by the noise.
          state: x, [n].
          action: u, [M], as large as it likes.
          params: of one agent.

        Returns:
          ``(obs, state, reward, terminated, truncated, info)``: the reward a float scalar, False
          twice, an empty dictionary.
        """
        dtype = state.dtype
        action = action.astype(dtype)
        own = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), params)
        cost = jnp.sum(state * _product(own.state_cost, state))
        cost = cost + jnp.sum(action * _product(own.action_cost, action))
        new = _product(own.dynamics, state) + _product(own.control, action)
        new = new + own.noise * _normal(key, state.size, dtype)
        never = jnp.zeros((), bool)
        return new, new, -cost, never, never, {}

    def parts(self, params: LQRParams) -> tuple[str, ...]:
        """What can differ between agents, as `envs.members` names it."""
        del params
        return _PARTS

    def vary(self, params: LQRParams, changes: Mapping[str, np.ndarray]) -> LQRParams:
        """Returns parameters of N agents, float64 on the host.

        Args:
          params: leaves [N, ...].
          changes: by part, factors [N]; that of "drift" multiplies A - I.
        """
        own = {field.name: getattr(params, field.name) for field in dataclasses.fields(params)}
        own = {name: np.asarray(value, np.float64) for name, value in own.items()}
        for part, factor in changes.items():
            if part == "drift":
                # What a step changes by itself: a factor of A would make stable systems unstable.
                still = np.eye(own["dynamics"].shape[-1])
                drift = factor[:, None, None] * (own["dynamics"] - still)
                own["dynamics"] = still + drift
            else:
                own[part] = own[part] * factor.reshape(-1, *(1,) * (own[part].ndim - 1))
        return LQRParams(**own)


def _product(matrix: chex.Array, vector: chex.Array) -> chex.Array:
    """A small matrix times a vector, as sums: under `vmap` vector code, and never of 16 bits."""
    return jnp.sum(matrix * vector[None, :], axis=1)


def _normal(key: chex.PRNGKey, size: int, dtype: Any) -> chex.Array:
    first, second = jax.random.key_data(key)
    places = jnp.arange(size, dtype=jnp.uint32)
    words = jax.vmap(lambda place: streams.threefry((first, second), place))(places)
    return streams.normal(words, dtype)


@fields.checked(noise=_LEVEL, first=_LEVEL, discount=DISCOUNT, max_steps=fields.COUNT)
def lqr(
    dynamics: Sequence[Sequence[float]] | None = None,
    control: Sequence[Sequence[float]] | None = None,
    state_cost: float | Sequence[Sequence[float]] = 1.0,
    action_cost: float | Sequence[Sequence[float]] = 1.0,
    noise: float = 0.1,
    first: float = 1.0,
    discount: float = 0.95,
    max_steps: int = 100,
) -> Task:
    """A linear system with quadratic costs; by default a mass that is pushed along a line.

    The default's state is a position in m and a velocity in m/s, its action an acceleration in
    m/s^2 that holds for 0.2 s. Actions are not bounded: in a box the best policy would be another
    one, and the derivative by an action that is cut off 0. Its behaviour, for novelty, is the mean
    of the first two entries of the state, and the share of the steps.

    What differs between agents, by factors: "drift" (of A - I), "control" (of B), "state_cost",
    "action_cost" and "noise". Agents of any other matrices are a family,
    ``task.replace(members=...)``, a function from N to `LQRParams` with leaves [N, ...].

    Args:
      dynamics: A, [n, n].
      control: B, [n, M].
      state_cost: Q, symmetric and nowhere negative, [n, n]; a number is that times the identity.
      action_cost: R, symmetric and everywhere positive, [M, M]; a number likewise.
      noise: standard deviation of every entry of a state in a step, at least 0.
      first: standard deviation of every entry of a first state, at least 0.
      discount: in [0, 1].
      max_steps: T, at least 1.

    Returns:
      A `Task`.

    Raises:
      ValueError: If a matrix has another shape, or is not what is said of it, or a number is out
        of its range.

    Example:
      >>> import fedjax_rl as frl
      >>> task = frl.envs.lqr(action_cost=0.5)
      >>> task.observation_size, task.action
      (2, Continuous(size=1, bounded=False))
      >>> frl.envs.lqr_gain(task).round(2)
      array([[0.94, 1.69]])
    """
    given = {"dynamics": dynamics, "control": control}
    given |= {"state_cost": state_cost, "action_cost": action_cost}
    a = _matrix("dynamics", _DYNAMICS if dynamics is None else dynamics)
    b = _matrix("control", _CONTROL if control is None else control)
    size, actions = b.shape
    if a.shape != (size, size):
        raise ValueError(
            f"dynamics has shape {a.shape} with control of shape {b.shape}; allowed: [n, n] with "
            "[n, M]"
        )
    q = _cost("state_cost", state_cost, size, positive=False)
    r = _cost("action_cost", action_cost, actions, positive=True)
    options = {"noise": noise, "first": first, "discount": discount, "max_steps": max_steps}
    for name, value in given.items():
        if value is not None:
            number = fields.real_array(value).ndim == 0
            options[name] = float(value) if number else _plain(value)
    scales = (np.asarray(float(scale)) for scale in (noise, first))
    return Task(
        name="lqr",
        env=LQREnv(),
        params=LQRParams(a, b, q, r, *scales),
        observation_size=size,
        action=Continuous(actions, bounded=False),
        max_steps=max_steps,
        discount=discount,
        encode=_itself,
        trace=_first_two,
        summarise=mean_and_share(max_steps),
        behaviour_size=3,
        options=tuple(sorted(options.items())),
        shape=("lqr", size, actions),
    )


def _matrix(name: str, value: Any) -> np.ndarray:
    """A matrix in float64, checked; a copy that nobody can write to."""
    own = fields.real_array(value)
    if own is None or own.ndim != 2 or not own.size or not np.isfinite(own).all():
        what = "no matrix of numbers" if own is None or own.ndim != 2 else "empty or not finite"
        raise ValueError(f"{name} is {what}; allowed: rows of finite numbers, all of one length")
    check_size(name, own.shape, *own.shape)
    own = np.array(own, np.float64)
    own.setflags(write=False)
    return own


def _cost(name: str, value: Any, size: int, positive: bool) -> np.ndarray:
    """A cost as a matrix; one that rewards being away from 0 has no best policy."""
    given = fields.real_array(value)
    if given is None or given.ndim == 0:
        kind = fields.number(0, above=positive, follows=False)
        fields.check(name, value, kind._replace(text=f"a matrix [{size}, {size}], or {kind.text}"))
        value = float(value) * np.eye(size)
    own = _matrix(name, value)
    if own.shape != (size, size):
        raise ValueError(f"{name} has shape {own.shape}; allowed: a number or [{size}, {size}]")
    lowest = np.linalg.eigvalsh(own)[0]
    scale = _ROUNDING * max(1.0, np.abs(own).max())
    if np.abs(own - own.T).max() > scale or lowest < (scale if positive else -scale):
        kind = "above 0" if positive else "at least 0"
        raise ValueError(
            f"{name} has the smallest eigenvalue {lowest:.3g} and differs from its transpose by "
            f"{np.abs(own - own.T).max():.3g}; allowed: symmetric with eigenvalues {kind}"
        )
    return own


def _plain(value: Any) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(x) for x in row) for row in np.asarray(value))


# Functions of the module, so that tasks can be pickled.


def _itself(observation: chex.Array) -> chex.Array:
    return observation


def _first_two(state: chex.Array) -> chex.Array:
    return jnp.pad(state[:2], (0, 2 - state[:2].size))
