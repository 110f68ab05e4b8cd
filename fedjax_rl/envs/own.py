"""Any environment as a task: one of a user's own, tables, or what is a task already."""

from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl import fields
from fedjax_rl.envs.adapting import actions_of, common_dtypes, encoding_of, mean_and_share, seen_of
from fedjax_rl.envs.gymnax_env import GymnaxEnv, OwnEnv, read
from fedjax_rl.envs.tabular import DISCOUNT, TabularMDP
from fedjax_rl.envs.tabular_tasks import task_of
from fedjax_rl.envs.task import Continuous, Discrete, Task, foreign
from fedjax_rl.names import brief

_RESET = "(observation, state)"
_STEP = "(observation, state, reward, terminated, truncated, info)"


@fields.checked(
    action=fields.anything(
        "a number of actions, envs.Discrete(U) or envs.Continuous(M)",
        lambda action: isinstance(action, Discrete | Continuous) or fields.COUNT.fine(action),
    ).or_none(),
    max_steps=fields.COUNT.or_none(),
    discount=DISCOUNT.or_none(),
    name=fields.NAME.or_none(),
    encode=fields.FUNCTION.or_none(),
    varies=fields.words().or_none(),
)
def as_task(
    environment: Any,
    params: Any = None,
    *,
    action: Discrete | Continuous | int | None = None,
    max_steps: int | None = None,
    discount: float | None = None,
    name: str | None = None,
    encode: Callable[[chex.Array], chex.Array] | None = None,
    varies: tuple[str, ...] | None = None,
) -> Task:
    """Makes a task of an environment, so that every algorithm of tasks takes it.

    An environment of one's own is any object with the functions of gymnax, for one agent and
    traceable: ``reset(key, params) -> (obs, state)`` and ``step(key, state, action, params) ->
    (obs, state, reward, terminated, truncated, info)``, or with one flag in place of two,
    which then means terminated. It must not begin a new episode by itself; of one that is derived
    from gymnax's own class the bare functions are called, which do not. Its behaviour, for
    novelty, is the mean of the first two entries of the observation and the share of the steps.

    Args:
      environment: such an object; or a `TabularMDP`, a family of them, or a `Task`, of which
        only ``max_steps`` and ``discount`` can be changed.
      params: pytree of its parameters; None is its ``default_params``, if it has any.
      action: `Continuous` actions reach it as [M] in [-1, 1], those of a `Discrete` number, or of
        a plain one, as int32 scalars. None is what its ``action_space(params)`` says, where
        bounded actions are stretched to their range, or its ``num_actions``.
      max_steps: T, at least 1; None is the parameter ``max_steps_in_episode``.
      discount: in [0, 1]; 0.99 by default.
      name: for messages and results; by default that of its class.
      encode: from an observation to what a policy sees, a float32 vector [D]; by default the
        observation, flattened.
      varies: names of parameters that agents may differ in by a factor, see `members` and the
        property `heterogeneity.of`.

    Returns:
      A `Task`; two are equal if environment, parameters and all the rest are, by content.

    Raises:
      ValueError: If the environment does not have the two functions, these fail or return
        something else, or an argument is out of its range.

    Example:
      >>> import jax, jax.numpy as jnp, fedjax_rl as frl
      >>> class Walk:
      ...     def reset(self, key, params):
      ...         return jnp.zeros(1), jnp.float32(0)
      ...     def step(self, key, state, action, params):
      ...         new = state + params["stride"] * (2 * action - 1)
      ...         return new[None], new, -abs(new - 3), new >= 3, False, {}
      >>> task = frl.envs.as_task(Walk(), {"stride": 0.5}, action=2, max_steps=20)
      >>> task.name, task.observation_size, task.action
      ('Walk', 1, Discrete(num=2))
      >>> frl.es(task).name
      'es'
    """
    episode = {"max_steps": max_steps, "discount": discount}
    episode = {option: value for option, value in episode.items() if value is not None}
    if isinstance(environment, Task | TabularMDP):
        given = {"params": params, "action": action, "encode": encode, "varies": varies}
        for argument, value in {**given, "name": name}.items():
            if value is not None:
                raise ValueError(
                    f"{argument} is {brief(value)} of {brief(environment)}, which is made already; "
                    "allowed: None"
                )
        task = task_of(environment)
        return task.replace(**episode) if episode else task

    name = type(environment).__name__ if name is None else name
    # The bare functions go first: gymnax's `step` begins a new episode behind the end of one.
    bare = all(callable(getattr(environment, f, None)) for f in ("reset_env", "step_env"))
    if not bare and not all(callable(getattr(environment, f, None)) for f in ("reset", "step")):
        raise ValueError(
            f"environment is {brief(environment)}; allowed: an object with reset(key, params) and "
            "step(key, state, action, params), a TabularMDP or a Task"
        )
    if params is None:
        params = getattr(environment, "default_params", None)
    if max_steps is None:
        max_steps = _own_length(name, params)
    if bare and read(params, "max_steps_in_episode") is not None:
        params = params.replace(max_steps_in_episode=max_steps)
    action, low, high = _actions(name, environment, params, action)
    observation, dtypes = _tried(name, environment, bare, params, action)
    size, own_encode = encoding_of(name, observation, environment, params)
    if encode is not None:
        size, own_encode = _encoded(observation, encode), encode
    for parameter in varies or ():
        if read(params, parameter) is None:
            raise ValueError(
                f"varies has {parameter!r}; allowed: parameters of {name}, by their names"
            )
    more = {} if bare else {"varies": tuple(varies or ())}
    adapter = GymnaxEnv if bare else OwnEnv
    discount = 0.99 if discount is None else discount
    return Task(
        name=name,
        env=adapter(environment, dtypes, low, high, True, **more),
        params=params,
        observation_size=size,
        action=action,
        max_steps=max_steps,
        discount=discount,
        encode=own_encode,
        trace=seen_of,
        summarise=mean_and_share(max_steps),
        behaviour_size=3,
        options=(("discount", discount), ("max_steps", max_steps)),
    )


def _own_length(name: str, params: Any) -> int:
    """Steps of an episode as the parameters say."""
    own = read(params, "max_steps_in_episode")
    if own is None:
        raise ValueError(
            f"max_steps is None of {name}, whose parameters have no max_steps_in_episode; allowed: "
            "a whole number of at least 1"
        )
    return int(own)


def _actions(name: str, env: Any, params: Any, action: Any) -> tuple:
    """The actions, and the ends of their range where they are to be stretched to it."""
    if action is not None:
        own = action if isinstance(action, Discrete | Continuous) else Discrete(int(action))
        return own, None, None
    if callable(getattr(env, "action_space", None)):
        with foreign():
            space = env.action_space(params)
        return actions_of(name, space)
    if fields.is_whole(getattr(env, "num_actions", None)):
        return Discrete(int(env.num_actions)), None, None
    raise ValueError(
        f"action is None of {name}, which has neither action_space nor num_actions; allowed: a "
        "number of actions, envs.Discrete(U) or envs.Continuous(M)"
    )


def _tried(name: str, env: Any, bare: bool, params: Any, action: Any) -> tuple[Any, Any]:
    """What an observation looks like, and the dtypes of a state, without running anything."""
    reset, step = (env.reset_env, env.step_env) if bare else (env.reset, env.step)
    kind = isinstance(action, Discrete)
    act = jnp.int32(0) if kind else jnp.zeros(action.size, jnp.float32)
    key = jax.random.key(0)
    # Shapes alone: somebody's reset may take seconds, or a device.
    made = _called(name, "reset", _RESET, (2,), reset, key, params)
    moved = _called(name, "step", _STEP, (5, 6), step, key, made[1], act, params)
    if jax.tree.structure(made[1]) != jax.tree.structure(moved[1]):
        raise ValueError(
            f"environment is {name}, whose states are {jax.tree.structure(made[1])} after a reset "
            f"and {jax.tree.structure(moved[1])} after a step; allowed: one structure"
        )
    if np.prod(getattr(moved[2], "shape", (2,)), dtype=int) != 1:
        raise ValueError(f"environment is {name}, whose reward is {moved[2]}; allowed: a number")
    with foreign():
        return made[0], common_dtypes(made[1], moved[1])


def _called(name: str, function: str, text: str, counts: tuple, call: Callable, *args) -> tuple:
    """What one of the two functions returns, its shapes alone."""
    try:
        with foreign():
            made = jax.eval_shape(call, *args)
    except Exception as error:  # whatever somebody's own code does
        raise ValueError(
            f"environment is {name}, whose {function} fails with {type(error).__name__}: "
            f"{' '.join(str(error).split())[:200]}; allowed: one that JAX can trace"
        ) from error
    if not isinstance(made, tuple) or len(made) not in counts:
        count = len(made) if isinstance(made, tuple) else 1
        raise ValueError(
            f"environment is {name}, whose {function} returns {count} values; allowed: {text}"
        )
    return made


def _encoded(observation: Any, encode: Callable) -> int:
    """D, the entries of what a policy sees."""
    try:
        with foreign():
            seen = jax.eval_shape(encode, observation)
        (size,) = seen.shape
    except Exception as error:  # whatever somebody's own code does
        raise ValueError(
            f"encode is {brief(encode)}; allowed: a function from an observation to a vector"
        ) from error
    return size
