"""Functions of N and of time, looked at where they are called."""

from __future__ import annotations

import jax
import numpy as np

from fedjax_rl.fields.allowed import Allowed
from fedjax_rl.fields.check import check, holds
from fedjax_rl.fields.declared import declarations
from fedjax_rl.fields.functions import ByAgents, Schedule
from fedjax_rl.fields.values import WHOLE_LIMIT, is_concrete
from fedjax_rl.names import brief


def evaluated(name: str, value, allowed: Allowed, num_agents: int):
    """A property at N agents, looked at again: functions of N are called here.

    Args:
      name: of the property.
      value: as the user gave it.
      allowed: what it may be.
      num_agents: N.

    Returns:
      The value, with functions of N evaluated.

    Raises:
      ValueError: naming the property, its value at this N and what is allowed.
    """
    if not isinstance(value, ByAgents):
        if not isinstance(value, Schedule):
            check(name, value, allowed.at(num_agents))
            _check_entries(name, value, allowed, num_agents)
        return value
    check(name, value, allowed)
    try:
        given = value(num_agents)
    except Exception as error:
        raise ValueError(
            f"{name} is {value!r}, which fails at num_agents {num_agents} with "
            f"{type(error).__name__}: {brief(error)}; allowed: {allowed.text}"
        ) from error
    check(
        f"{name} at num_agents {num_agents}",
        given,
        # Nothing is a default to be found later, which has been too late for a number.
        allowed.at(num_agents)._replace(scheduled=None, optional=allowed.optional and allowed.kind),
    )
    _check_entries(f"{name} at num_agents {num_agents}", given, allowed, num_agents)
    return given


def _check_entries(name: str, value, allowed: Allowed, num_agents: int) -> None:
    """Refuses a traced array of fewer entries than agents, of which `check` sees the axes alone."""
    traced = allowed.per_agent and isinstance(value, jax.core.Tracer)
    if traced and value.ndim and value.shape[0] < num_agents:
        raise ValueError(
            f"{name} is a traced array of {value.shape[0]} entries; allowed: "
            f"{allowed.at(num_agents).text}"
        )


# Schedules are looked at where something may happen: at each of so many first times, and at so
# many later ones, ever farther apart.
_FIRST_TIMES, _LATER_TIMES = 4096, 4096


def looked_at(length: int = WHOLE_LIMIT) -> np.ndarray:
    """The times below a length at which schedules are looked at, int32 [n], the last one too."""
    first = np.arange(min(length, _FIRST_TIMES))
    later = np.geomspace(first[-1] + 1, length, _LATER_TIMES) - 1
    return np.unique(np.concatenate([first, np.minimum(later, length - 1)]).astype(np.int32))


def schedule_values(given: Schedule, times: np.ndarray):
    """What a schedule gives at many times, from one call.

    Args:
      given: the schedule.
      times: int32 [n].

    Returns:
      float [n, ...], traced if what the schedule gives is.
    """
    return jax.vmap(lambda time: jax.numpy.asarray(given(time), float))(jax.numpy.asarray(times))


def check_schedules(config, length: int = WHOLE_LIMIT) -> None:
    """Checks what the schedules of a configuration give below a length, where that is known.

    Args:
      config: a dataclass.
      length: of a run, in the algorithm's unit of time.

    Raises:
      ValueError: naming the property, its value at the first time at which that is not allowed,
        and what is.
    """
    for name, allowed in declarations(type(config)).items():
        value = getattr(config, name)
        if not isinstance(value, Schedule) or allowed.scheduled is None:
            continue
        times = looked_at(length)
        try:
            # Traced, as a run will call it: a schedule with an `if` on time fails here already.
            given = schedule_values(value, times)
        except Exception as error:
            raise ValueError(
                f"{name} is {value!r}, which fails for a traced time with "
                f"{type(error).__name__}: {brief(error)}; allowed: {allowed.scheduled.text}"
            ) from error
        if not is_concrete(given):
            continue
        given = np.asarray(given)
        # What is allowed has no gaps but near 0.
        size = np.abs(given[given != 0])
        ends = [given.min(), given.max(), *([size.min()] if size.size else [])]
        # Three looks for thousands of times; the others only serve to name the time that is wrong.
        if given.ndim == 1 and all(holds(allowed.scheduled, end) for end in ends):
            continue
        for time, one in zip(times, given, strict=True):
            check(f"{name} at time {time}", one, allowed.scheduled)
