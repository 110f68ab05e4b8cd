"""By which properties of an algorithm one can differentiate, and what that is worth."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl import fields
from fedjax_rl.federation.algorithm import Algorithm
from fedjax_rl.fields.record import Property
from fedjax_rl.fields.values import real_array
from fedjax_rl.names import brief, check_known

_MOST = 1000  # more properties than an algorithm has
# Where numbers are that the program is handed, or what it is handed is made of.
_NUMBERS = ("agent", "federation", "shared", "host", "engine")


def differentiable(algorithm: Algorithm, unset: bool = False) -> dict[str, str]:
    """What the derivative by each property is worth, for `frl.differentiate`.

    Example:
      >>> import fedjax_rl as frl
      >>> algorithm = frl.fedq(frl.envs.paper_mdp(), derivative="score")
      >>> kinds = frl.differentiable(algorithm)
      >>> kinds["learning_rate"], kinds["sync_period"]
      ('score', 'refused: is 1, which counts')

    Args:
      algorithm: whose property `derivative` says how draws count that depend on what is learned.
      unset: whether properties that are None, or follow a schedule, count as if they were numbers.

    Returns:
      Name of a property -> "exact"; "exact given the data", what is drawn held fixed, which leaves
      something out; "score", estimated without a bias; "relaxed", with one; or "refused: ..." with
      the reason, which is "is None" where it is not set.
    """
    config, contract = algorithm.config, algorithm.functions.contract
    reason = contract.wrong(config)
    if reason is not None:
        kind = f"refused: {reason}"
    elif algorithm.sampled(config) is None:
        kind = "exact"
    else:
        kind = {"pathwise": "exact given the data"}.get(config.derivative, config.derivative)
    draws = contract.guards(config).draws
    found = {}
    for each in config.resolved().properties():
        refused = _undeclared(each) or (None if unset else _refused(each))
        if refused is None and each.name.partition(".")[0] in draws:
            refused = "only decides what is drawn, who is heard or when"
        found[each.name] = kind if refused is None else f"refused: {refused}"
    return found


def values_of(algorithm: Algorithm, by) -> dict[str, jax.Array]:
    """The properties that are differentiated by, with their values; a ValueError where none can."""
    return {name: _value(algorithm, name) for name in _names(by)}


def _names(by) -> tuple[str, ...]:
    """One name or several."""
    if isinstance(by, str):
        return (by,)
    try:
        # No more than there can be, so that what never ends is refused, too.
        names = tuple(itertools.islice(iter(by), _MOST))
    except Exception:  # whatever an object does when somebody iterates over it
        names = ()
    fine = all(isinstance(name, str) for name in names) and len(set(names)) == len(names)
    if not names or not fine or len(names) == _MOST:
        raise ValueError(f"by is {brief(by)}; allowed: names of properties, each once")
    return names


def _value(algorithm: Algorithm, name: str):
    head, _, inner = name.partition(".")
    # Where a default follows from other properties, it is a number all the same.
    own = {each.name: each for each in algorithm.config.resolved().properties()}
    place = getattr(algorithm.config, head, None) if isinstance(head, str) else None
    if name not in own and inner and dataclasses.is_dataclass(place) and hasattr(place, inner):
        # Of an environment, which is not a record of properties.
        value = getattr(place, inner)
        refused = _no_number(value)
        if refused is not None:
            raise ValueError(
                f"by is {name!r}, which {refused}: there is no derivative; allowed: properties, or "
                f"what of {head} is made of numbers"
            )
        return jnp.asarray(value, float)
    check_known(name, tuple(own), f"property of {algorithm.name}")
    refused = _refused(own[name])
    if refused is not None:
        allowed = [n for n, each in own.items() if _refused(each) is None]
        raise ValueError(
            f"by is {name!r}, which {refused}: there is no derivative; allowed here: "
            f"{', '.join(allowed)}"
        )
    return jnp.asarray(own[name].value, float)


def _undeclared(each: Property) -> str | None:
    """Why nothing can be differentiated by a property whatever it is; None where it can."""
    counts = isinstance(each.value, int | np.integer) and each.by in ("engine", "static")
    if counts and not isinstance(each.value, bool):
        return f"is {each.value}, which counts"
    if each.by not in _NUMBERS or not each.allowed.traced or each.allowed.kind:
        return "shapes the program, or decides what is drawn"
    return None


def _refused(each: Property) -> str | None:
    """Why nothing can be differentiated by a property as it is; None where it can."""
    value, undeclared = each.value, _undeclared(each)
    if undeclared is not None:
        return undeclared
    if isinstance(value, fields.Schedule):
        return "is a schedule, a function (differentiate simulate by what it closes over)"
    return _no_number(value)


def _no_number(value) -> str | None:
    """Why a value is nothing to differentiate by; None where it is."""
    if value is None:
        return "is None"
    if not isinstance(value, jax.Array) and real_array(value) is None:
        return f"is {brief(value)}, no number"
    return None


def replaced(algorithm: Algorithm, values: Mapping) -> Algorithm:
    """The algorithm with these values of properties, and of fields of environments."""
    own = set(algorithm.properties)
    changes = {n: x for n, x in values.items() if n in own}
    for name in values.keys() - own:
        head, _, inner = name.partition(".")
        place = changes.get(head, getattr(algorithm.config, head))
        changes[head] = dataclasses.replace(place, **{inner: values[name]})
    return algorithm.replace(**changes)
