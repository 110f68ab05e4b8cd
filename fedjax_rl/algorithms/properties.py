"""What algorithms share in checking their properties and handing them to the engine."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from fedjax_rl import fields


def per_member(config, names, num_agents: int) -> dict:
    """Properties of agents as float leaves [N, ...], from a number, [N, ...] or a function of N."""

    def leaf(value):
        concrete = fields.is_concrete(value)
        value = np.asarray(value, np.float64) if concrete else value
        if value.ndim == 0:
            return (np if concrete else jnp).broadcast_to(value, (num_agents,))
        return value[:num_agents]

    return {name: leaf(_at(config, name, num_agents)) for name in names}


def per_federation(config, names, num_agents: int) -> dict:
    """Properties of federations as scalars, from a number or a function of N."""

    def leaf(value):
        return np.asarray(value, np.float64) if fields.is_concrete(value) else value

    return {name: leaf(_at(config, name, num_agents)) for name in names}


def _at(config, name: str, num_agents: int):
    """A property that has to be there, at N."""
    allowed = fields.declarations(type(config)).get(name, fields.ANYTHING)
    return fields.evaluated(
        name, getattr(config, name), allowed._replace(optional=False), num_agents
    )


def codes(config, names) -> dict:
    """Words as their places among those allowed, so that they can be traced."""
    known = fields.declarations(type(config))
    return {name: np.int32(known[name].words.index(getattr(config, name))) for name in names}
