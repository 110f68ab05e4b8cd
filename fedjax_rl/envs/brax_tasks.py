"""Environments of brax (Freeman et al. 2021, arXiv 2106.13281) as tasks."""

import contextlib
import copy
import dataclasses
import functools
import importlib
import io
import logging
import types
import warnings
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl import fields
from fedjax_rl.envs.lanes import in_lanes
from fedjax_rl.envs.task import DISCOUNT, Continuous, Task, cast, foreign
from fedjax_rl.names import brief, check_known

BACKENDS = ("spring", "positional", "generalized", "mjx")
TESTED = "0.14.2"

# Where an environment differs from the rest, by its name.
_BACKENDS = {"swimmer": ("generalized",)}
_MAX_STEPS = {"swimmer": 500}
# In m/s, in either direction; nothing that walks is a tenth as fast.
LARGEST_SPEED = 1000.0


class Physics(NamedTuple):
    """How an environment of brax departs from its own; [] or [N] each, None where it does not.

    Attributes:
      gravity: factor of its acceleration.
      mass: factor of the masses and of the inertias of all bodies.
      friction: factor of the friction of all contacts.
      gear: factor of the torques of all actuators.
      reset: width of the noise around the first state, as the environment defines it: half the
        range where it is uniform, the standard deviation where it is normal.
      target_speed: in m/s. The reward is then -|v - target_speed| - 0.1 ||action||^2 with v the
        forward velocity.
    """

    gravity: Any = None
    mass: Any = None
    friction: Any = None
    gear: Any = None
    reset: Any = None
    target_speed: Any = None


@dataclasses.dataclass(frozen=True, eq=False)
class BraxEnv:
    """An environment of brax behind the environment protocol; ``params`` is a `Physics`.

    The state is brax's own, with the observation, the reward and the metrics in it.

    Attributes:
      env: of brax, bare: no clock, no reset at the end of an episode.
    """

    env: Any
    # A step is thousands of operations: 4 to 8 s of a CPU core for every copy in a program.
    compiles_slowly: ClassVar[bool] = True

    @property
    def reversible(self) -> bool:
        """Whether a step has a derivative in reverse; that of MuJoCo's iterates until it fits."""
        return self.env.backend != "mjx" or self.env.sys.opt.iterations == 1

    def __reduce__(self) -> tuple:
        """By name where brax keeps its backend as a module, which no pickle takes."""
        # Arrays and numbers go along, so that no model is read and compiled again.
        own = vars(self.env)
        modules = {n: x.__name__ for n, x in own.items() if isinstance(x, types.ModuleType)}
        rest = {n: x for n, x in own.items() if n not in modules}
        return _made_again, (type(self.env), modules, rest)

    # Physics takes long to trace. What has been traced for training serves evaluation, too.
    @functools.partial(jax.jit, static_argnums=0)
    def reset(self, key: chex.PRNGKey, params: Physics) -> tuple[chex.Array, Any]:
        """Returns ``(obs, state)`` of a new episode.

        Args:
          key: consumed.
          params: of one agent.
        """
        with foreign():
            state = self._own(params).reset(key)
            state = cast(state, jax.tree.map(jnp.result_type, state))
        return state.obs, state

    @functools.partial(jax.jit, static_argnums=0)
    def step(
        self, key: chex.PRNGKey, state: Any, action: chex.Array, params: Physics
    ) -> tuple[chex.Array, Any, chex.Array, chex.Array, chex.Array, dict[str, Any]]:
        """Makes one control step; at the end of an episode no new one starts.

        Args:
          key: not needed, the physics is deterministic.
          state: of `reset` or a step.
          action: [M] in [-1, 1]; keeping it there is the policy's work.
          params: of one agent.

        Returns:
          ``(obs, state, reward, terminated, truncated, info)``: the reward [] float32, whether
          brax says that it is done, False, an empty dictionary.
        """
        del key
        return in_lanes(self._stepped)(state, action, params)

    def _stepped(self, state: Any, action: chex.Array, params: Physics) -> tuple:
        # brax writes its metrics into the dictionary that it is handed.
        mine = state.replace(metrics=dict(state.metrics), info=dict(state.info))
        with foreign():
            new = self._own(params).step(mine, action)
            reward = new.reward
            if params.target_speed is not None:
                missed = jnp.abs(new.metrics["x_velocity"] - params.target_speed)
                reward = -missed - 0.1 * jnp.sum(jnp.square(action))
            new = cast(new.replace(reward=reward), jax.tree.map(jnp.result_type, state))
        return new.obs, new, new.reward, new.done > 0, jnp.zeros((), bool), {}

    def parts(self, params: Physics) -> tuple[str, ...]:
        """What can differ between agents, as `envs.members` names it."""
        found = ("gravity", "mass", "friction", "gear")
        found += ("reset",) * hasattr(self.env, "_reset_noise_scale")
        return found + ("target_speed",) * (params.target_speed is not None)

    def base(self, part: str, params: Physics) -> float:
        """The middle of a part that differs by a sum, "reset" or "target_speed".

        Args:
          part: of `parts`.
          params: leaves [N], of which the least is the middle.
        """
        own = getattr(params, part)
        return self.env._reset_noise_scale if own is None else float(np.min(own))

    def vary(self, params: Physics, changes: Mapping[str, np.ndarray]) -> Physics:
        """Returns parameters of N agents, float32 on the host.

        Args:
          params: leaves [N].
          changes: by part, factors [N] or, for "reset" and "target_speed", what is added.
        """
        for part, change in changes.items():
            old = getattr(params, part)
            if part in ("reset", "target_speed"):
                change = change + (self.base(part, params) if old is None else old)
            elif old is not None:
                change = change * old
            params = params._replace(**{part: change})
        return jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), params)

    def _own(self, params: Physics) -> Any:
        """The environment of one agent: a shallow copy where anything is its own."""
        if all(own is None for own in params[:5]):
            return self.env
        env = copy.copy(self.env)
        env.sys = _system(env.sys, env.backend, params)
        if params.reset is not None:
            env._reset_noise_scale = params.reset
        return env


def _system(system: Any, backend: str, params: Physics) -> Any:
    """A system of brax with the physics of one agent."""
    native = backend != "mjx"  # mjx reads the fields of MuJoCo instead of brax's own
    new = {}

    def scale(field: str, factor: Any) -> None:
        value = functools.reduce(getattr, field.split("."), system)
        new[field] = value * factor

    if params.gravity is not None:
        scale("gravity" if native else "opt.gravity", params.gravity)
    if params.friction is not None:
        scale("geom_friction", params.friction)
    if params.gear is not None:
        scale("actuator.gear" if native else "actuator_gear", params.gear)
    if params.mass is not None and not native:
        for field in ("body_mass", "body_subtreemass", "body_inertia"):
            scale(field, params.mass)
        for field in ("body_invweight0", "dof_invweight0"):
            scale(field, 1 / params.mass)
    if params.mass is not None and backend == "generalized":
        for field in ("link.inertia.mass", "link.inertia.i"):
            scale(field, params.mass)
        for field in ("link.invweight", "dof.invweight"):
            scale(field, 1 / params.mass)
    if params.mass is not None and backend in ("spring", "positional"):
        # These backends use the power mass^(1 - spring_mass_scale), of Ant and Hopper the zeroth,
        # in which a factor would be lost: it belongs to the mass that the bodies move with.
        inertia = system.link.inertia
        mass = inertia.mass ** (1 - system.spring_mass_scale)
        moment = inertia.i ** (1 - system.spring_inertia_scale)
        new |= {"link.inertia.mass": mass * params.mass, "link.inertia.i": moment * params.mass}
        new |= {"spring_mass_scale": 0.0, "spring_inertia_scale": 0.0}
    return system.tree_replace(new)


def backends(name: str) -> tuple[str, ...]:
    """Backends on which an environment of brax runs, the default first."""
    return _BACKENDS.get(name, BACKENDS)


def longest(name: str) -> int:
    """Steps of an episode of an environment of brax, unless somebody wants another number."""
    return _MAX_STEPS.get(name, 1000)


@fields.checked(
    name=fields.NAME,
    backend=fields.NAME.or_none(),
    discount=DISCOUNT,
    max_steps=fields.COUNT.or_none(),
    target_speed=fields.number(-LARGEST_SPEED, LARGEST_SPEED, follows=False).or_none(),
)
def brax_task(
    name: str = "ant",
    backend: str | None = None,
    discount: float = 0.99,
    max_steps: int | None = None,
    target_speed: float | None = None,
) -> Task:
    """Adapts an environment of brax; its behaviour is where the torso is at the end (x, y), in m.

    The six that walk, run or swim, with the numbers of observations and actions and the control
    step in s: ant (27, 8, 0.05), halfcheetah (17, 6, 0.05), hopper (11, 3, 0.008), humanoid (244,
    17, 0.015), swimmer (8, 2, 0.04) and walker2d (17, 6, 0.008). Humanoid has 376 observations in
    MuJoCo; brax leaves out the contact forces, and bodies that it joins. A step of Ant gives the
    velocity forward, plus 1, minus half the squared norm of the action, and the episode ends when
    the torso's height leaves [0.2, 1].

    Steps have derivatives, in reverse mode too, on all backends but "mjx", and there where MuJoCo's
    solver makes one iteration, as of ant and humanoid. That a body touches the ground, and that an
    episode ends by its state, is no part of them.

    The backends are different simulators: returns of one do not compare with those of another,
    nor with MuJoCo's. Which one it is stands in the options, and so in every result.

    An agent draws the same random words wherever it stands in a population. Its episodes are the
    same to rounding only, and contacts make large differences of small ones. A CPU computes 16
    agents at a time, the lanes of a 512-bit vector, in groups of at most 128, and what is left over
    of a group by code that may round otherwise: of 200 agents on Ant, two groups of 100, the last
    four of each differed from the others at the first step; of 7, 8, 16, 20, 192 and 208 none did
    in 20 steps. Populations of different sizes, such as 16 and 20, round differently, too. One
    population run twice has the same bits.

    Args:
      name: of brax, such as "ant", "halfcheetah", "hopper", "humanoid", "swimmer", "walker2d".
      backend: "spring", "positional", "generalized" or "mjx"; of swimmer "generalized" only. None
        is the first of them that the environment has.
      discount: in [0, 1].
      max_steps: T, at least 1; None is 500 for swimmer and 1000 for all others.
      target_speed: in m/s; instead of brax's reward, a step gives minus the distance of the
        forward velocity from it, less 0.1 times the squared norm of the action.

    Returns:
      A `Task`.

    Raises:
      ImportError: If brax is not installed.
      ValueError: If the environment is unknown, the backend is unknown or none of the
        environment's, or an argument is out of range.

    Example:
      >>> import fedjax_rl as frl
      >>> task = frl.envs.brax_task("hopper")  # doctest: +SKIP
      >>> task.observation_size, task.action  # doctest: +SKIP
      (11, Continuous(size=3, bounded=True))
    """
    backend = backends(name)[0] if backend is None else backend
    max_steps = longest(name) if max_steps is None else max_steps
    if backend not in backends(name):
        allowed = ", ".join(backends(name))
        raise ValueError(f"backend is {brief(backend)} for {name}; allowed: {allowed}")
    envs = _brax_envs()
    # Fast, with which brax tests itself, has no bodies.
    check_known(name, envs._envs.keys() - {"fast"}, "environment of brax")
    with foreign(), warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message=".*not actively being maintained"
        )  # as said above
        env = envs.get_environment(name, backend=backend)
        # brax's own observation_size makes a whole reset, uncompiled.
        first = jax.eval_shape(env.reset, jax.random.key(0))
    (observation_size,) = first.obs.shape
    if target_speed is not None and "x_velocity" not in first.metrics:
        raise ValueError(
            f"target_speed is {target_speed} for {name}, which reports no forward velocity; "
            "allowed: None"
        )
    options = {"backend": backend, "discount": discount, "max_steps": max_steps}
    if target_speed is not None:
        options["target_speed"] = target_speed
    return Task(
        name=f"brax/{name}",
        env=BraxEnv(env),
        params=Physics(target_speed=target_speed),
        observation_size=observation_size,
        action=Continuous(int(env.action_size)),
        max_steps=max_steps,
        discount=discount,
        encode=_itself,
        trace=_place,
        summarise=_last,
        behaviour_size=2,
        options=tuple(sorted(options.items())),
    )


# Functions of the module, so that tasks can be pickled.


def _made_again(kind: type, modules: dict[str, str], rest: dict[str, Any]) -> BraxEnv:
    """An environment of brax without its constructor, which would read and compile its model."""
    env = object.__new__(kind)
    vars(env).update(rest)
    vars(env).update({n: importlib.import_module(name) for n, name in modules.items()})
    return BraxEnv(env)


def _itself(obs: chex.Array) -> chex.Array:
    return obs


def _place(state: Any) -> chex.Array:
    return state.pipeline_state.x.pos[0, :2]


def _last(last: chex.Array, mean: chex.Array, steps: chex.Array) -> chex.Array:
    del mean, steps
    return last


@functools.cache
def _brax_envs() -> Any:
    """Imports brax's environments, and says once what to expect of them."""
    try:
        # MuJoCo prints there which of its optional parts are missing.
        with foreign(), contextlib.redirect_stdout(io.StringIO()):
            import brax
            from brax import envs, fluid
    except ImportError as error:
        raise ImportError("environments of brax need it installed: pip install brax") from error
    # Swimmer's water calls jnp.clip with `a_min`, which JAX has given up.
    clip = {"clip": lambda x, a_min: jnp.maximum(x, a_min)}
    fluid.jp = types.SimpleNamespace(**vars(jnp) | clip)
    # A warning of Python's own would be an error to those who make them so.
    logging.getLogger("fedjax_rl").warning(
        "brax no longer maintains its environments. They are supported here, tested with brax %s; "
        "installed is %s.",
        TESTED,
        brax.__version__,
    )
    return envs
