"""What algorithms share in checking their properties and handing them to the engine."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl import fields, names


def is_concrete(value) -> bool:
    """Whether a property has a value now rather than under a trace."""
    return not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(value))


def check_value(name: str, value, allowed, text: str) -> None:
    """Refuses a value.

    Args:
      name: of the property.
      value: a number or an array; what is traced is not looked at.
      allowed: `array -> bool array`.
      text: what is allowed, in words.

    Raises:
      ValueError: naming the property, its value and what is allowed.
    """
    if is_concrete(value):
        names.check_value(name, value, allowed, text)


def check_ranges(config, ranges: dict) -> None:
    """Checks the properties of a configuration that have a value.

    Args:
      config: has the properties as attributes.
      ranges: name -> (allowed, text) as in `check_value`; None and functions are passed over.
    """
    for name, (allowed, text) in ranges.items():
        value = getattr(config, name)
        if (
            value is not None
            and not callable(value)
            and name not in fields.declarations(type(config))
        ):
            check_value(name, value, allowed, text)


PROBABILITY = (lambda x: (x >= 0) & (x <= 1), "in [0, 1]")
POSITIVE = (lambda x: (x > 0) & np.isfinite(x), "finite and above 0")
NOT_NEGATIVE = (lambda x: (x >= 0) & np.isfinite(x), "finite and at least 0")
FINITE = (np.isfinite, "finite")
COUNT = (lambda x: (x >= 1) & (x == np.floor(x)), "a whole number of at least 1")


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


def undifferentiated(reason: str):
    """An identity of pytrees that refuses to be differentiated.

    Args:
      reason: why there is no derivative, and what is allowed instead.

    Returns:
      `tree -> tree`; whoever differentiates it gets a ValueError with the reason.
    """

    @jax.custom_jvp
    def guard(value):
        return value

    @guard.defjvp
    def refuse(primals, tangents):
        raise ValueError(reason)

    def guarded(tree):
        return jax.tree.map(
            lambda x: guard(x) if jnp.issubdtype(jnp.result_type(x), jnp.floating) else x, tree
        )

    return guarded
