"""The one check of a value against what is allowed, and the messages of what is not."""

from __future__ import annotations

import jax
import numpy as np

from fedjax_rl.fields.allowed import Allowed
from fedjax_rl.fields.functions import ByAgents, Schedule
from fedjax_rl.fields.values import SMALLEST, is_concrete, real_array
from fedjax_rl.names import brief, nearest


def check(name: str, value, allowed: Allowed) -> None:
    """Refuses what is not allowed.

    Args:
      name: of the property or argument.
      value: anything at all.
      allowed: what it may be.

    Raises:
      ValueError: naming the property, its value and what is allowed.
    """
    none = " or None" if allowed.optional and not allowed.text.startswith("None") else ""
    if value is None:
        good = allowed.optional
    elif isinstance(value, ByAgents):
        good = allowed.follows
    elif isinstance(value, Schedule):
        good = allowed.scheduled is not None
    # Of a tracer only its shape is known; its values are the caller's to keep within bounds.
    elif not allowed.kind and not is_concrete(value):
        if not allowed.traced:
            raise ValueError(
                f"{name} is traced, but decides what is drawn, who is heard or how a program looks,"
                f" which has no derivative; allowed: a value that is known, {allowed.text}"
            )
        good = _axes(value) <= allowed.axes
    else:
        good = holds(allowed, value)
        if not good and callable(value) and not isinstance(value, type):
            raise ValueError(_bare_function(name, allowed, none))
    if not good:
        near = nearest(value, allowed.words)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(
            f"{name} is {brief(value)}{_lost(value)}; allowed: {allowed.text}{none}{hint}"
        )


def _axes(value) -> float:
    """Axes of a traced array; infinitely many of a container of such."""
    return value.ndim if isinstance(value, jax.core.Tracer) else np.inf


def holds(allowed: Allowed, value) -> bool:
    """Whether the predicate is true of a value; what raises is not allowed.

    Args:
      allowed: with the predicate.
      value: anything at all.

    Returns:
      True or False.
    """
    try:
        return bool(allowed.fine(value))
    except Exception:  # a predicate need not know every type there is
        return False


def _lost(value) -> str:
    """What single precision makes of a number that it cannot hold, else nothing."""
    array = None if isinstance(value, list | tuple) else real_array(value)
    if array is None or array.ndim or not np.isfinite(array):
        return ""
    with np.errstate(over="ignore"):
        single = np.float32(array)
    # Programs set to zero what is below the smallest number with all its digits.
    single = np.float32(0) if np.abs(array) < SMALLEST else single
    lost = single != array and (single in (0, 1) or not np.isfinite(single))
    return f", {single:g} in float32" if lost else ""


def _bare_function(name: str, allowed: Allowed, none: str) -> str:
    """Says how a function is given, since one alone does not say what it is a function of."""
    ways = [allowed.text + none]
    if allowed.follows:
        ways.append("frl.by_agents(f) for a function of the number of agents")
    if allowed.scheduled:
        ways.append("frl.schedule(f) for a function of time")
    return f"{name} is a bare function; allowed: {', or '.join(ways)}"
