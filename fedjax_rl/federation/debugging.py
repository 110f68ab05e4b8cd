"""Looking for a mistake: one agent at a time, with values that can be seen, and where they broke.

While `debugging` runs nothing is compiled, and what the engine else does for all agents as one
array it does for one after the other: a print or a breakpoint in an algorithm's own functions
shows the numbers of one agent. After local work and after every exchange the state is looked at,
and the first value that is no longer finite ends the run by name.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

# What of a state is looked at, and whose it is.
_PARTS = {
    "agents": "agent",
    "uplink_state": "agent",
    "server": "server",
    "server_state": "server",
}


@dataclasses.dataclass
class _Watch:
    """What has not been finite so far, which is not complained of again.

    Attributes:
      unit: what time counts.
      known: by name of a leaf, bool, where it was not finite.
    """

    unit: str
    known: dict[str, np.ndarray] | None = None


# Of a context, as jobs run in threads that copy it, and another run beside them does not debug.
_WATCH: contextvars.ContextVar[_Watch | None] = contextvars.ContextVar("watch", default=None)


@contextlib.contextmanager
def debugging(unit: str) -> Iterator[None]:
    """While it runs, nothing is compiled, agents take turns, and what breaks is named.

    Args:
      unit: what time counts, for messages.
    """
    token = _WATCH.set(_Watch(unit))
    try:
        with jax.disable_jit():
            yield
    finally:
        _WATCH.reset(token)


def is_on() -> bool:
    """Whether somebody is looking for a mistake."""
    return _WATCH.get() is not None


def per_one(function: Callable, in_axes: tuple = ()) -> Callable:
    """`jax.vmap(function)`; or, while debugging, a loop of it wherever values are known.

    Args:
      function: of unbatched arguments.
      in_axes: 0 or None for each argument; 0 for all by default.

    Returns:
      A function of the same arguments, batched; its leaves [B, ...].
    """
    mapped = jax.vmap(function, in_axes=in_axes or 0)

    def called(*args):
        axes = in_axes or (0,) * len(args)
        leaves = jax.tree.leaves(args)
        # Under `grad` or somebody's own `vmap` no value can be seen, debugging or not.
        if not is_on() or any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
            return mapped(*args)
        batched = jax.tree.leaves([arg for arg, axis in zip(args, axes, strict=True) if axis == 0])

        def one(i: int):
            own = [
                arg if axis is None else jax.tree.map(lambda x: jnp.asarray(x)[i], arg)
                for arg, axis in zip(args, axes, strict=True)
            ]
            return function(*own)

        made = [one(i) for i in range(batched[0].shape[0])]
        return jax.tree.map(lambda *each: jnp.stack([jnp.asarray(x) for x in each]), *made)

    return called


def look(population, state, what: str, time=None) -> None:
    """While debugging, refuses a state in which something is no longer finite.

    Args:
      population: who belongs to whom.
      state: after `what`.
      what: has just been done, for the message.
      time: of it; the state's own by default.

    Raises:
      FloatingPointError: naming the time, the agent or server, the entry and its value.
    """
    watch = _WATCH.get()
    time = state.time if time is None else time
    if watch is None or isinstance(time, jax.core.Tracer):
        return
    seen = {}
    for part, owner in _PARTS.items():
        for path, leaf in jax.tree_util.tree_leaves_with_path(getattr(state, part)):
            if isinstance(leaf, jax.core.Tracer):
                return
            if not jnp.issubdtype(leaf.dtype, jnp.inexact):
                continue
            name = f"{part}{jax.tree_util.keystr(path)}"
            values = np.asarray(leaf)
            seen[name] = ~np.isfinite(values)
            # What an algorithm begins with may be infinite, such as the best of nothing yet.
            known = seen[name] if watch.known is None else watch.known.get(name, False)
            if (new := seen[name] & ~known).any():
                first = tuple(int(i) for i in np.argwhere(new)[0])
                inner = f"[{', '.join(map(str, first[1:]))}]" if len(first) > 1 else ""
                raise FloatingPointError(
                    f"{watch.unit} {int(np.max(time))}, {_who(population, owner, first[0])}: "
                    f"{name}{inner} is {values[first]} after {what}"
                )
    # Replaced, not added to: what is finite again is complained of when it breaks once more.
    watch.known = seen


def _who(population, owner: str, place: int) -> str:
    """An agent or a server in words; its federation is named where there are several."""
    several = population.num_federations > 1
    if owner == "server":
        return f"server of federation {place}" if several else "server"
    federation = int(population.federation_of[place])
    member = int(population.member_of[place])
    return f"agent {member} of federation {federation}" if several else f"agent {member}"
