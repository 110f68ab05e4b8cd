"""From a record to what a program is handed: what shapes it, and what is traced."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from fedjax_rl import fields
from fedjax_rl.federation.state import Params
from fedjax_rl.fields.record import TRACED, Property, Record


def shape_key(config: Record) -> tuple:
    """Equal for records that one compilation serves: what is static, and what is there at all."""

    def part(each: Property):
        key = each.field.metadata.get("key")
        if key is not None or each.by == "static":
            return each.value if key is None else key(each.value)
        # A schedule is part of the program, the number that it stands for is not.
        return each.value if isinstance(each.value, fields.Schedule) else each.value is None

    return tuple(part(each) for each in config.properties() if each.by not in ("host", "engine"))


def schedules_of(config: Record) -> dict[str, tuple[str, Callable]]:
    """The traced properties that follow time: name -> (whose, function of time)."""
    return {
        each.name: (each.by, each.value)
        for each in config.properties()
        if each.by in ("agent", "federation") and isinstance(each.value, fields.Schedule)
    }


def at_step(schedules: dict, params: dict, time) -> dict:
    """The properties of one agent with those filled in that follow time, at a step of its own.

    Args:
      schedules: from `schedules_of`.
      params: flat.
      time: uint32 scalar.
    """
    when = time.astype(jnp.int32)
    return {**params, **{n: jnp.asarray(f(when), float) for n, (_, f) in schedules.items()}}


def parameters_of(config: Record, num_agents: int) -> Params:
    """The traced properties of one federation as the program takes them.

    Args:
      config: resolved.
      num_agents: N.

    Returns:
      `Params` of one federation: `agent` float leaves [N, ...], `federation` scalars, `shared` as
      given.

    Raises:
      ValueError: naming the property, its value at this N and what is allowed.
    """
    agent, federation, shared = {}, {}, {}
    for each in config.properties():
        if each.by not in TRACED or isinstance(each.value, fields.Schedule):
            continue
        value, absent = each.value, each.field.metadata.get("absent")
        if value is None and absent is None:
            continue
        if each.by == "shared":
            shared[each.name] = value
        elif each.by == "word":
            federation[each.name] = np.int32(each.allowed.words.index(value))
        elif each.by == "switch":
            federation[each.name] = np.bool_(value)
        else:
            value = absent if value is None else _at(each, num_agents)
            value = np.asarray(value, np.float64) if fields.is_concrete(value) else value
            if each.by == "federation":
                federation[each.name] = value
            else:
                agent[each.name] = _of_members(value, num_agents)
    return Params(agent, federation, shared)


def _at(each: Property, num_agents: int):
    """A property that is there, at N."""
    allowed = each.allowed._replace(optional=False)
    return fields.evaluated(each.name, each.value, allowed, num_agents)


def _of_members(value, num_agents: int):
    """One number for all, or the first N of those given, as [N, ...]."""
    if value.ndim == 0:
        xp = np if fields.is_concrete(value) else jnp
        return xp.broadcast_to(value, (num_agents,))
    # The first ones: an agent has its value in a federation of any size.
    return value[:num_agents]
