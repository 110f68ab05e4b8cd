"""`run --config FILE`: what a config.json says holds wherever a line says nothing else."""

from __future__ import annotations

import dataclasses
import pathlib

from fedjax_rl.cli import named
from fedjax_rl.cli.parts import numbers
from fedjax_rl.cli.report import PROGRAM
from fedjax_rl.cli.settings import settings
from fedjax_rl.cli.written import check, check_names

# What the parser has a default of its own for, under the same names.
_RUN = (
    *("num_agents", "num_steps", "seeds", "record_every", "metrics", "agents"),
    "learning_rate_per_agent",
)


def read(file: str) -> dict:
    """The configuration in a file, or in a directory of ours, looked at.

    Raises:
      ValueError: there is none, it is of a study, or something in it is not allowed.
    """
    from fedjax_rl.saving import results
    from fedjax_rl.saving.directory import read_json

    path = results.place(file)
    path = path / "config.json" if path.is_dir() else path
    config = read_json(path)
    if config is None:
        what = "is damaged, or none of ours" if path.is_file() else "is not there"
        raise ValueError(f"config is {path}, which {what}; allowed: a config.json")
    check(config, path)
    if config["command"] == "reproduce":
        figures = ",".join(config["figures"])
        raise ValueError(
            f"config is {path}, of a study; allowed: `{PROGRAM} reproduce {config['study']}:"
            f"{figures} --scale {config['scale']} --preset {config['preset']}`"
        )
    check_names(config)
    return config


def expanded(argv: list[str]) -> tuple[list[str], dict]:
    """A line with what a file names put where one types it, and what holds besides.

    Args:
      argv: the whole line.

    Returns:
      The line, whose command is that of the file where it is none of several values, and the
      defaults of its options as `options.of_command` takes them; none without `--config`.

    Raises:
      ValueError: no such file, or another algorithm or environment beside it.
    """
    file = _file(argv)
    if argv[0] not in ("run", "sweep", "compare") or file is None:
        return argv, {}
    config = read(file)
    command = config["command"]
    if (argv[0], command) == ("sweep", "run"):
        command = "sweep"
    elif argv[0] not in ("run", command):
        raise ValueError(
            f"config is {pathlib.Path(file)}, of a {command}; allowed: `{PROGRAM} run --config`, "
            "which makes any again"
        )
    if command == "compare":
        own = [f"{label}={one['algorithm']}" for label, one in config["algorithms"].items()]
    else:
        own = [config["algorithm"]]
    own.append(config["environment"])
    typed = [word for word in argv[1:2] if not word.startswith("-")]
    if typed:
        raise ValueError(
            f"{typed[0]} stands beside --config {pathlib.Path(file)}, which says what is run: "
            f"{' '.join(own)}; allowed: options alone"
        )
    return [command, *own, *argv[1:]], held(config)


def _file(argv: list[str]) -> str | None:
    for word, following in zip(argv, [*argv[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if name == "--config":
            return value if equals else following
    return None


def held(config: dict) -> dict:
    """What a configuration has in place of the defaults of a command."""
    out = {name: config[name] for name in _RUN if config.get(name) is not None}
    out["options"] = config["environment_options"]
    if "algorithms" not in config:
        out["properties"] = _properties(config)
    return out


def _properties(config: dict) -> dict:
    """Its properties as a line gives them: lists of one value are tuples."""
    one = named.algorithm(config["algorithm"], config["environment"])
    tuples = [own.name for own in settings(one) if own.is_tuple]
    return {
        name: tuple(value) if name in tuples and isinstance(value, list) else value
        for name, value in numbers(config["properties"]).items()
    }


def again(arguments, config: dict) -> dict:
    """A configuration with what the file of `--config` has besides, where that was not given.

    Args:
      arguments: of the line.
      config: that it makes.
    """
    if getattr(arguments, "config", None) is None:
        return config
    file = read(arguments.config)
    config = {**config, "precision": file.get("precision", config["precision"])}
    if "algorithms" in config:
        parts = [(config["algorithms"][n], file["algorithms"][n]) for n in config["algorithms"]]
    else:
        parts = [(config, file)]
    for own, there in parts:
        if "algorithms" not in config:
            # What somebody wrote into the file and no option sets.
            one = named.algorithm(own["algorithm"], config["environment"])
            options = {known.name for known in settings(one)}
            rest = {n: v for n, v in there["properties"].items() if n not in options}
            own["properties"] = {**rest, **own["properties"]}
        for part, option in (("uplink", "uplink"), ("clock", "scheduler")):
            if part in own and not _is_touched(vars(arguments), option, f"{part}_options"):
                own[part] = there.get(part)
    return config


def _is_touched(given: dict, name: str, options: str) -> bool:
    """Whether a line says anything of an uplink or a clock."""
    if given.get(name) is not None:
        return True
    values = given.get(options)
    if values is None:
        return False
    return any(getattr(values, f.name) != f.default for f in dataclasses.fields(values))
