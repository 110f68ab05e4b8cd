"""From arguments to plain values, as `config.json` has them, and back to an algorithm."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import re
from collections.abc import Callable, Iterator

from fedjax_rl.cli.settings import (
    algorithm,
    clock_options,
    fitting,
    settings,
    takes_clocks,
    takes_uplinks,
    uplink_options,
)


def config_of(arguments) -> dict:
    """The arguments of `run` or `sweep` as plain values, enough to run them again."""
    from fedjax_rl import fields
    from fedjax_rl.algorithms import ALGORITHMS
    from fedjax_rl.envs import registry
    from fedjax_rl.names import check_known
    from fedjax_rl.saving import results
    from fedjax_rl.sweeps.arguments import seeds as check_seeds

    name = "seeds" if "seeds" in vars(arguments) else "seed"
    check_seeds(_plain(vars(arguments)[name]), name)
    check_known(arguments.algorithm, ALGORITHMS, "algorithm")
    if registry.kind(arguments.environment) not in ALGORITHMS[arguments.algorithm].environments:
        raise ValueError(
            f"environment is {arguments.environment}; allowed with {arguments.algorithm}: "
            f"{', '.join(fitting(arguments.algorithm))}"
        )
    one, given = algorithm(arguments.algorithm), vars(arguments)
    env = vars(given["env"]) if "env" in given else {}
    known = registry.options(arguments.environment)
    # What was not given is the algorithm's to say, as it may depend on the environment.
    properties = {
        own.name: value
        for own in settings(one)
        if own.name in given
        and (value := _plain(given[own.name], own.is_tuple)) != _plain(own.default, own.is_tuple)
    }
    per_agent = given.get("learning_rate_per_agent")
    if per_agent is not None:
        if "learning_rate" in properties:
            raise ValueError(
                f"learning_rate_per_agent is {per_agent} beside a learning_rate; allowed: one of "
                "the two"
            )
        fields.check("learning_rate_per_agent", per_agent, fields.POSITIVE)
    _check_run(arguments)
    return {
        "command": type(arguments).__name__,
        "algorithm": arguments.algorithm,
        "environment": arguments.environment,
        # None where environments with defaults of their own share an option.
        "environment_options": {
            o: known[o] if v is None else v for o, v in env.items() if o in known
        },
        "num_agents": _plain(arguments.num_agents),
        "num_steps": arguments.num_steps,
        "seeds": _plain(given["seeds"] if "seeds" in given else given["seed"]),
        "properties": properties,
        "uplink": _uplink_config(given) if takes_uplinks(one) else None,
        "clock": _clock_config(given, one) if takes_clocks(one) else None,
        "learning_rate_per_agent": per_agent,
        "record_every": arguments.record_every,
        "metrics": list(given.get("metrics") or ()) or None,
        "devices": arguments.devices,
        "precision": precision(),
        "versions": results.versions(),
    }


def _check_run(arguments) -> None:
    """What a run is made of, looked at alike by the commands that run it and those that do not.

    Without starting JAX, for which `devices` is still to be set.
    """
    from fedjax_rl import fields

    given = vars(arguments)
    for name, allowed in (
        ("num_agents", fields.COUNT),
        ("num_steps", fields.COUNT),
        ("seed", fields.SEED),
        ("seeds", fields.SEED),
        ("record_every", fields.COUNT.or_none()),
    ):
        if name in given:
            values = given[name] if isinstance(given[name], tuple) else (given[name],)
            for value in values:
                fields.check(name, value, allowed)
    check_devices(arguments.devices)
    check_out(given.get("out"))


# A CPU can pretend to have so many; far more and the process dies when JAX starts.
MOST_DEVICES = 1024


def check_out(out: str | None) -> None:
    """Refuses an empty name, as a variable of a shell leaves it that is not set."""
    if out is not None and not out.strip():
        raise ValueError(f"out is {out!r}; allowed: a directory, or none for a new one in runs/")


def check_devices(devices: int) -> None:
    """Checks a number of devices before anybody knows how many there are."""
    from fedjax_rl import fields

    fields.check("devices", devices, fields.whole(1, MOST_DEVICES))


def precision() -> str:
    """In what this process computes, found out without starting JAX."""
    import jax

    return "float64" if jax.config.jax_enable_x64 else "float32"


def _is_whole(value, least: int = 0) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _each(good: Callable) -> Callable:
    """A list of what is good, with something in it, or one of it."""
    return lambda x: all(map(good, x)) and x != [] if isinstance(x, list) else good(x)


def _is_part(value, kinds=bool | int | float | str | list) -> bool:
    return isinstance(value, dict) and all(
        x is None or isinstance(x, kinds) for x in value.values()
    )


def _is_uplink(value) -> bool:
    return _is_part(value, bool | int | float | str) and _is_word(value.get("name"))


def _is_word(value) -> bool:
    return isinstance(value, str)


_RECORD = (_is_part, "a record of values")
_COUNT = (lambda x: _is_whole(x, 1), "a whole number of at least 1")
_WORDS = (lambda x: isinstance(x, list) and all(map(_is_word, x)), "a list of words")
# Of a configuration on disk: what is allowed, and the same in words. What the values mean is
# looked at where they are used.
_ANY = {"devices": _COUNT, "versions": _RECORD}
_STUDY = {
    "study": (_is_word, "a word"),
    "figures": _WORDS,
    "scale": (_is_word, "a word"),
    "preset": (_is_word, "a word"),
}
_RUN = {
    "algorithm": (_is_word, "a word"),
    "environment": (_is_word, "a word"),
    "environment_options": _RECORD,
    "num_agents": (_each(_COUNT[0]), "whole numbers of at least 1"),
    "num_steps": _COUNT,
    "seeds": (_each(_is_whole), "whole numbers of at least 0"),
    "properties": _RECORD,
    "uplink": (
        lambda x: x is None or _each(_is_uplink)(x),
        "null, or records with a name and single values",
    ),
    "clock": (
        lambda x: x is None or _each(lambda y: _is_part(y) and _is_word(y.get("scheduler")))(x),
        "null, or records with a scheduler",
    ),
    "learning_rate_per_agent": (
        lambda x: x is None or ((isinstance(x, float) or _is_whole(x)) and x > 0),
        "null, or a number above 0",
    ),
    "record_every": (lambda x: x is None or _is_whole(x, 1), "null, or at least 1"),
    "metrics": (lambda x: x is None or _WORDS[0](x), "null, or a list of words"),
}


def check(config: dict, path) -> None:
    """Checks a configuration that somebody may have written by hand.

    Args:
      config: of a directory of ours.
      path: where it stands.

    Raises:
      ValueError: naming the entry, its value and what is allowed.
    """
    command = config.get("command")
    if command not in ("run", "sweep", "reproduce"):
        raise ValueError(f"{path} has command {command!r}; allowed: run, sweep, reproduce")
    for name, (good, allowed) in (_ANY | (_STUDY if command == "reproduce" else _RUN)).items():
        if name not in config:
            raise ValueError(f"{path} has no {name}; allowed: {allowed}")
        if not good(config[name]):
            raise ValueError(f"{path} has {name} {config[name]!r}; allowed: {allowed}")
    if config.get("precision", "float32") not in ("float32", "float64"):
        raise ValueError(f"{path} has precision {config['precision']!r}; allowed: float32, float64")
    if command == "reproduce":
        return
    from fedjax_rl.algorithms import ALGORITHMS
    from fedjax_rl.envs import registry
    from fedjax_rl.names import check_known

    check_known(config["algorithm"], ALGORITHMS, "algorithm")
    registry.kind(config["environment"])
    known = registry.options(config["environment"])
    for name in config["environment_options"]:
        check_known(name, known, f"option of {config['environment']}")
    known = algorithm(config["algorithm"]).properties
    for name in config["properties"]:
        check_known(name, known, f"property of {config['algorithm']}")


def _plain(value, is_tuple: bool = False):
    """A value as JSON has it; a list of one value is that value."""
    if isinstance(value, tuple):
        return value[0] if len(value) == 1 and not is_tuple else list(value)
    return value


def _uplink_config(given: dict) -> dict | list[dict] | None:
    """The uplinks that were asked for, every combination of their values."""
    from fedjax_rl.federation.uplinks import UPLINKS
    from fedjax_rl.names import check_known

    names = given["uplink"] or ()
    names = dict.fromkeys((names,) if isinstance(names, str) else names)
    for name in names:
        check_known(name, UPLINKS, "uplink")
    values = vars(given["uplink_options"]) if "uplink_options" in given else {}
    used = {option.name for name in names for option in uplink_options(name)}
    for field in dataclasses.fields(given["uplink_options"]) if values else ():
        if field.name not in used and values[field.name] != field.default:
            users = [u for u in UPLINKS if field.name in (o.name for o in uplink_options(u))]
            raise ValueError(
                f"uplink.{field.name} is {_plain(values[field.name])}; allowed with "
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
            own = {o.name: _finite(v) for o, v in pairs if v is not None}
            found.append({"name": name, **own})
            _uplink(found[-1])
    return found[0] if len(found) == 1 else found or None


def _clock_config(given: dict, one) -> dict | list[dict] | None:
    """The clocks that were asked for, every combination of their values."""
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
                    f"clock.{option.name} is {_plain(value)}; allowed with --scheduler NAME"
                )
        return None
    found = []
    for name in dict.fromkeys(names):
        for combination in itertools.product(*each):
            pairs = zip(options, combination, strict=True)
            own = {o.name: _finite(v) for o, v in pairs if v != o.default}
            if len(names) > 1 and name != "semi-synchronous":
                own.pop("wait_for", None)
            if {"scheduler": name, **own} not in found:
                found.append({"scheduler": name, **own})
                _clock(found[-1])
    return found[0] if len(found) == 1 else found


def _clock(config: dict):
    """The clock of a configuration."""
    from fedjax_rl.federation.clock import Clock

    values = _numbers(config)
    with _prefixed("clock", values.keys() - {"scheduler"}):
        return Clock(**values)


def _finite(value):
    """A number that JSON has; what is not finite as a word."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _numbers(config: dict) -> dict:
    """Values as they were before `_finite`."""
    words = {word: float(word) for word in ("inf", "-inf", "nan")}
    return {name: words.get(value, value) for name, value in config.items()}


def _uplink(config: dict):
    """The uplink of a configuration."""
    from fedjax_rl.federation import uplinks

    values = _numbers(config)
    name = values.pop("name")
    with _prefixed("uplink", values):
        return uplinks.make(name, **values)


@contextlib.contextmanager
def _prefixed(prefix: str, names) -> Iterator[None]:
    """Errors about one of these names say where it was set."""
    try:
        yield
    except ValueError as error:
        match = re.match(r"(\w+)(?: at \w+ \d+)? (?:is|has)\b", str(error))
        if match is None or match[1] not in names:
            raise
        raise ValueError(f"{prefix}.{error}") from error


@contextlib.contextmanager
def nested_errors(config: dict) -> Iterator[None]:
    """While it runs, errors about values of a configuration's uplink or clock say so."""
    known = {*algorithm(config["algorithm"]).properties}
    with contextlib.ExitStack() as stack:
        for part in ("uplink", "clock"):
            given = config.get(part) or ()
            given = given if isinstance(given, list) else [given]
            names = {name for one in given for name in one} - {"scheduler"}
            stack.enter_context(_prefixed(part, names - known))
        yield


def resolved(one) -> dict:
    """Every property of an algorithm as it is used, defaults included, as JSON has them."""

    def words(value):
        if isinstance(value, dict):
            return {name: words(own) for name, own in value.items()}
        return [words(own) for own in value] if isinstance(value, list) else _finite(value)

    return words(one.describe(one.config))


def algorithm_of(config: dict):
    """The algorithm in its environment, with every property that has one value."""
    from fedjax_rl.algorithms import ALGORITHMS
    from fedjax_rl.envs.registry import make

    options = config["environment_options"]
    try:
        with _prefixed("env", options):
            environment = make(config["environment"], **options)
    except ImportError as error:
        raise ValueError(str(error)) from error
    one = ALGORITHMS[config["algorithm"]].make(environment)
    tuples = [own.name for own in settings(one) if own.is_tuple]
    properties = {
        name: tuple(value) if name in tuples and isinstance(value, list) else value
        for name, value in config["properties"].items()
        if name in tuples or not isinstance(value, list)
    }
    if isinstance(config.get("uplink"), dict):
        properties["uplink"] = _uplink(config["uplink"])
    if isinstance(config.get("clock"), dict):
        properties["clock"] = _clock(config["clock"])
    return one.replace(**properties)


def first_of(config: dict):
    """The algorithm of the first federation of a grid, which says what time counts in all."""
    return algorithm_of(config).replace(**{n: each[0] for n, each in lists_of(config).items()})


def lists_of(config: dict) -> dict[str, list]:
    """The properties of a configuration that have several values."""
    tuples = [own.name for own in settings(algorithm(config["algorithm"])) if own.is_tuple]
    lists = {
        name: value
        for name, value in config["properties"].items()
        if isinstance(value, list) and name not in tuples
    }
    if isinstance(config.get("uplink"), list):
        lists["uplink"] = [_uplink(one) for one in config["uplink"]]
    if isinstance(config.get("clock"), list):
        lists["clock"] = [_clock(one) for one in config["clock"]]
    return lists
