"""What algorithms share in checking their properties and handing them to the engine."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl import names


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
        if value is not None and not callable(value):
            check_value(name, value, allowed, text)


PROBABILITY = (lambda x: (x >= 0) & (x <= 1), "in [0, 1]")
POSITIVE = (lambda x: (x > 0) & np.isfinite(x), "finite and above 0")
NOT_NEGATIVE = (lambda x: (x >= 0) & np.isfinite(x), "finite and at least 0")
FINITE = (np.isfinite, "finite")
COUNT = (lambda x: (x >= 1) & (x == np.floor(x)), "a whole number of at least 1")


def per_member(name: str, value, num_agents: int):
    """A property of agents as a float leaf [N, ...] from a number, [N, ...] or a function of N."""
    value = value(num_agents) if callable(value) else value
    value = value if not is_concrete(value) else np.asarray(value, np.float64)
    if value.ndim == 0:
        return (np if is_concrete(value) else jnp).broadcast_to(value, (num_agents,))
    if value.shape[0] < num_agents:
        raise ValueError(
            f"{name} has {value.shape[0]} entries for num_agents {num_agents}; allowed: one "
            "number, or at least one entry per agent"
        )
    return value[:num_agents]


def per_federation(config, names, num_agents: int) -> dict:
    """Properties of federations as scalars; a function of N is evaluated."""
    out = {}
    for name in names:
        value = getattr(config, name)
        value = value(num_agents) if callable(value) else value
        out[name] = np.asarray(value, np.float64) if is_concrete(value) else value
    return out


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
