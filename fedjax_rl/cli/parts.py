"""What consists of values of its own: uplinks, clocks and records, to plain values and back."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import math
import re
from collections.abc import Iterator, Sequence

from fedjax_rl.cli import named
from fedjax_rl.cli.settings import Setting, clock_options, uplink_options


def plain(value, is_tuple: bool = False):
    """A value as JSON has it; a list of one value is that value.

    Args:
      value: of an argument.
      is_tuple: whether one value consists of several words, so that a list of one stays a list.
    """
    if isinstance(value, tuple):
        return value[0] if len(value) == 1 and not is_tuple else list(value)
    return value


def changed(settings: Sequence[Setting], given: dict) -> dict:
    """What was given of these settings and is not what holds anyway, as JSON has it.

    Args:
      settings: names with a dot are looked for in what is nested.
      given: arguments by name, what is nested as objects.
    """
    found = {}
    for own in settings:
        first, *rest = own.name.split(".")
        if first in given:
            value = functools.reduce(getattr, rest, given[first])
            if plain(value, own.is_tuple) != plain(own.default, own.is_tuple):
                found[own.name] = plain(value, own.is_tuple)
    return found


def uplink_config(given: dict) -> dict | list[dict] | None:
    """The uplinks that were asked for, every combination of their values."""
    from fedjax_rl.federation.uplinks import UPLINKS

    names = given["uplink"] or ()
    names = dict.fromkeys((names,) if isinstance(names, str) else names)
    for name in names:
        named.check_uplink(name)
    values = vars(given["uplink_options"]) if "uplink_options" in given else {}
    used = {option.name for name in names for option in uplink_options(name)}
    for field in dataclasses.fields(given["uplink_options"]) if values else ():
        if field.name not in used and values[field.name] != field.default:
            users = [u for u in UPLINKS if field.name in (o.name for o in uplink_options(u))]
            raise ValueError(
                f"uplink.{field.name} is {plain(values[field.name])}; allowed with "
                f"--uplink {' or '.join(users)}"
            )
    found = []
    for name in names:
        options = uplink_options(name)
        each = [values[option.name] for option in options]
        each = [value if isinstance(value, tuple) else (value,) for value in each]
        for option, value in zip(options, each, strict=True):
            if not value:
                raise ValueError(f"uplink.{option.name} is empty; allowed: at least one value")
            if option.required and None in value:
                raise ValueError(f"uplink.{option.name} is missing; {name} needs it")
        for combination in itertools.product(*each):
            pairs = zip(options, combination, strict=True)
            own = {o.name: finite(v) for o, v in pairs if v is not None}
            found.append({"name": name, **own})
            # Made here and dropped, so that a bad value is refused before anything runs.
            uplink(found[-1])
    return found[0] if len(found) == 1 else found or None


def clock_config(given: dict, one) -> dict | list[dict] | None:
    """The clocks that were asked for, every combination of their values.

    Args:
      given: arguments by name.
      one: the algorithm with its defaults.

    Returns:
      The properties of a clock by name, a list of them, or None without a clock.
    """
    names, values = given["scheduler"], vars(given["clock_options"])
    options = [option for option in clock_options() if option.name in values]
    if names is None and one.config.clock is not None:
        names = one.config.clock.scheduler
    names = (names,) if isinstance(names, str | None) else names
    each = [v if isinstance(v, tuple) else (v,) for v in (values[o.name] for o in options)]
    if names == (None,):
        for option, value in zip(options, each, strict=True):
            if value != (option.default,):
                raise ValueError(
                    f"clock.{option.name} is {plain(value)}; allowed with --scheduler NAME"
                )
        return None
    found = []
    for name in dict.fromkeys(names):
        for combination in itertools.product(*each):
            pairs = zip(options, combination, strict=True)
            own = {o.name: finite(v) for o, v in pairs if v != o.default}
            if len(names) > 1 and name != "semi-synchronous":
                # Of a grid's schedulers only this one waits for a number.
                own.pop("wait_for", None)
            if {"scheduler": name, **own} not in found:
                found.append({"scheduler": name, **own})
                clock(found[-1])
    return found[0] if len(found) == 1 else found


def clock(config: dict):
    """The clock of a configuration."""
    from fedjax_rl.federation.clock import Clock

    values = numbers(config)
    with prefixed("clock", values.keys() - {"scheduler"}):
        return Clock(**values)


def finite(value):
    """A value, or a dict or list of values, that JSON has; what is not finite as a word."""
    if isinstance(value, dict):
        return {name: finite(own) for name, own in value.items()}
    if isinstance(value, list):
        return [finite(own) for own in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


_WORDS = {word: float(word) for word in ("inf", "-inf", "nan")}


def numbers(config: dict) -> dict:
    """Values as they were before `finite`."""

    def number(value):
        if isinstance(value, list):
            return [number(own) for own in value]
        return _WORDS.get(value, value) if isinstance(value, str) else value

    return {name: number(value) for name, value in config.items()}


def uplink(config: dict):
    """The uplink of a configuration."""
    values = numbers(config)
    name = values.pop("name")
    with prefixed("uplink", values):
        return named.uplink(name, **values)


@contextlib.contextmanager
def prefixed(prefix: str, names, joint: str = ".") -> Iterator[None]:
    """Errors about one of these names say where it was set.

    Args:
      prefix: such as "uplink".
      names: what errors have to begin with.
      joint: between the prefix and the error.
    """
    try:
        yield
    except ValueError as error:
        match = re.match(r"(\w+)(?: at \w+ \d+)? (?:is|has)\b", str(error))
        if match is None or match[1] not in names:
            raise
        raise ValueError(f"{prefix}{joint}{error}") from error
