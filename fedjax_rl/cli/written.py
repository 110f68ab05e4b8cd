"""What `config.json` says, looked at before it is believed: it may have been written by hand."""

from __future__ import annotations

from collections.abc import Callable

from fedjax_rl.cli.named import algorithm, check_fits, environment_options
from fedjax_rl.names import check_known


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
_LEARNER = {
    "algorithm": (_is_word, "a word"),
    "properties": _RECORD,
    "uplink": (
        lambda x: x is None or _each(_is_uplink)(x),
        "null, or records with a name and single values",
    ),
    "clock": (
        lambda x: x is None or _each(lambda y: _is_part(y) and _is_word(y.get("scheduler")))(x),
        "null, or records with a scheduler",
    ),
}
_RUN = {
    "environment": (_is_word, "a word"),
    "environment_options": _RECORD,
    "num_agents": (_each(_COUNT[0]), "whole numbers of at least 1"),
    "num_steps": _COUNT,
    "seeds": (_each(_is_whole), "whole numbers of at least 0"),
    "learning_rate_per_agent": (
        lambda x: x is None or ((isinstance(x, float) or _is_whole(x)) and x > 0),
        "null, or a number above 0",
    ),
    "record_every": (lambda x: x is None or _is_whole(x, 1), "null, or at least 1"),
    "metrics": (lambda x: x is None or _WORDS[0](x), "null, or a list of words"),
}
# What older versions did not write.
_LATER = {
    "agents": (
        lambda x: x is None or (isinstance(x, list) and _each(_is_whole)(x)),
        "null, or a list of whole numbers of at least 0",
    ),
}
_COMPARE = {
    "algorithms": (
        lambda x: isinstance(x, dict) and len(x) > 1 and all(map(_is_learner, x.values())),
        "two records or more, by label, each with algorithm, properties, uplink and clock",
    ),
}


def _is_learner(value) -> bool:
    return isinstance(value, dict) and all(
        name in value and good(value[name]) for name, (good, _) in _LEARNER.items()
    )


def check(config: dict, path) -> None:
    """Checks a configuration that somebody may have written by hand.

    Args:
      config: of a directory of ours.
      path: where it stands.

    Raises:
      ValueError: naming the entry, its value and what is allowed.
    """
    command = config.get("command")
    own = {"run": _RUN | _LEARNER, "compare": _COMPARE | _RUN}
    own = {name: asked | _LATER for name, asked in own.items()} | {"reproduce": _STUDY}
    own["sweep"] = own["run"]
    if command not in own:
        raise ValueError(f"{path} has command {command!r}; allowed: run, sweep, compare, reproduce")
    for name, (good, allowed) in (_ANY | own[command]).items():
        if name not in config and name not in _LATER:
            raise ValueError(f"{path} has no {name}; allowed: {allowed}")
        if name in config and not good(config[name]):
            raise ValueError(f"{path} has {name} {config[name]!r}; allowed: {allowed}")
    if config.get("precision", "float32") not in ("float32", "float64"):
        raise ValueError(f"{path} has precision {config['precision']!r}; allowed: float32, float64")


def check_names(config: dict) -> None:
    """Checks the names of a simulation's configuration; a user's modules are imported for that.

    Raises:
      ValueError: an unknown name, with the nearest known ones.
    """
    if config["command"] == "reproduce":
        return
    known = environment_options(config["environment"])
    several = config.get("algorithms") or {"": config}
    for own in several.values():
        check_fits(own["algorithm"], config["environment"])
    for name in config["environment_options"]:
        check_known(name, known, f"option of {config['environment']}")
    for own in several.values():
        known = algorithm(own["algorithm"], config["environment"]).properties
        for name in own["properties"]:
            check_known(name, known, f"property of {own['algorithm']}")
