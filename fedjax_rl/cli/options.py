"""What can be set: from algorithms and environments to options, and from these to plain values."""

from __future__ import annotations

import dataclasses
import re
from typing import Annotated, Any, Literal

from fedjax_rl.cli.report import unit

SCALES = ("smoke", "quick", "paper")
SHELLS = ("bash", "zsh", "fish")
# Properties whose values are arrays or Python objects; everything else is a number or a word.
_PYTHON_ONLY = ("mdp", "env", "policy", "weights", "server_optimizer", "gradient", "uplink")


def of_command(command: str, argv: list[str]) -> list[tuple]:
    """The fields of a command's arguments, for `dataclasses.make_dataclass`.

    Args:
      command: such as "run".
      argv: the whole line; the algorithm and the environment named there say which options exist.
    """
    if command == "list":
        return []
    if command == "resume":
        return [_positional("directory", "As printed by the command that was stopped.")]
    if command == "completion":
        import tyro

        kind = Annotated[Literal[SHELLS], tyro.conf.arg(help="The shell.", metavar="SHELL")]
        return [("shell", tyro.conf.Positional[kind])]
    if command == "reproduce":
        scale = "smoke: it works; quick: minutes; paper: as published."
        return [
            _positional("study", "STUDY, or STUDY:FIGURE[,FIGURE]; see `fedjax-rl list`."),
            _option("scale", Literal[SCALES], "quick", scale),
            _option("preset", str | None, None, "The protocol, such as paper or clean.", "NAME"),
            _out(),
            _devices(),
        ]
    return _of_simulation(command, argv)


def _of_simulation(command: str, argv: list[str]) -> list[tuple]:
    """The fields of `run`, `sweep` and `doctor`."""
    from fedjax_rl.envs.registry import ENVIRONMENTS

    known = algorithms()
    chosen = next((a for a in argv[1:] if a in known), next(iter(known)))
    place = next((a for a in argv[1:] if a in ENVIRONMENTS), None)
    algorithm, several = known[chosen], command != "run"
    default = (dataclasses.MISSING, dataclasses.MISSING)
    if command == "doctor":
        default = (chosen, place or next(iter(ENVIRONMENTS)))
    time = f"{unit(algorithm)}s"
    steps = f"T, {'environment ' if time == 'steps' else ''}{time} of every agent."
    fields = [
        _positional("algorithm", f"One of {', '.join(known)}.", default[0]),
        _positional("environment", f"One of {', '.join(ENVIRONMENTS)}.", default[1]),
        _values(several, "num_agents", int, 4, "N, agents of the federation."),
        _option("num_steps", int, 100_000, steps),
        _values(several, "seeds" if several else "seed", int, 0, "Of the agents' random numbers."),
        *_of_algorithm(algorithm, several),
    ]
    every = f"{time.capitalize()} between records; about 100 records by default."
    fields.append(_option("record_every", int | None, None, every, "INT"))
    if command != "doctor":
        text = f"What to record: {', '.join(algorithm.metrics)}. By default those per federation."
        fields += [_option("metrics", tuple[str, ...] | None, None, text, "NAME ..."), _out()]
    return [*fields, _devices(), *_of_environments([place] if place else list(ENVIRONMENTS))]


def _of_algorithm(algorithm, several: bool) -> list[tuple]:
    """A field per property that a word or a number can set; texts are its docstring's."""
    own, fields = algorithm.config, []
    texts = _attributes(type(own).__doc__)
    for name in algorithm.properties:
        value = getattr(own, name)
        if name not in _PYTHON_ONLY:
            kind = float | None if value is None else type(value)
            text = re.sub(r"`(\w+)`", lambda m: m[1].replace("_", "-"), texts.get(name, ""))
            fields.append(_values(several, name, kind, value, text))
    if several and "learning_rate" in algorithm.properties:
        text = "Instead of learning-rate: this value times num-agents."
        fields.append(_option("learning_rate_per_agent", float | None, None, text, "FLOAT"))
    return fields


def _of_environments(names: list[str]) -> list[tuple]:
    """One field `env` with the options of these environments, if they have any."""
    from fedjax_rl.envs.registry import options

    choices = {o: v for name in names for o, v in options(name).items()}
    if not choices:
        return []
    env = dataclasses.make_dataclass(
        "Env", [_option(o, type(v), v, "Of the environment.") for o, v in choices.items()]
    )
    env.__doc__ = f"Options of {', '.join(name for name in names if options(name))}."
    return [("env", env, dataclasses.field(default_factory=env))]


def _option(name, kind, default, text, metavar=None) -> tuple:
    import tyro

    text = text.replace("%", "%%")
    metavar = "FLOAT" if metavar is None and kind == float | None else metavar
    kind = Annotated[kind, tyro.conf.arg(help=text, metavar=metavar)]
    return name, kind, dataclasses.field(default=default)


def _values(several: bool, name, kind, default, text) -> tuple:
    """An option of one value or of several."""
    if not several:
        return _option(name, kind, default, text)
    metavar = {int: "INT ...", str: "STR ..."}.get(kind, "FLOAT ...")
    return _option(name, tuple[kind, ...], (default,), text, metavar)


def _positional(name, text, default=dataclasses.MISSING) -> tuple:
    import tyro

    # Any word: unknown names are answered by ourselves, with the nearest.
    kind = Annotated[str, tyro.conf.arg(help=text, metavar=name.upper())]
    return name, tyro.conf.Positional[kind], dataclasses.field(default=default)


def _out() -> tuple:
    return _option("out", str | None, None, "Directory for everything; a new one in runs/.", "DIR")


def _devices() -> tuple:
    return _option("devices", int, 1, "Devices to spread the agents over.")


def algorithms() -> dict[str, Any]:
    """Every algorithm with its defaults, by name."""
    from fedjax_rl.algorithms import ALGORITHMS
    from fedjax_rl.envs.registry import ENVIRONMENTS, make

    environment = make(next(iter(ENVIRONMENTS)))
    return {name: factory(environment) for name, factory in ALGORITHMS.items()}


def _attributes(docstring: str) -> dict[str, str]:
    """The `Attributes` section of a docstring by name."""
    found: dict = {}
    name = None
    for line in docstring.partition("Attributes:\n")[2].splitlines():
        match = re.match(r"\s{4,8}(\w+): (.*)", line)
        if match:
            name = match[1]
            found[name] = match[2]
        elif name and line.strip():
            found[name] += f" {line.strip()}"
    return found


def config_of(arguments) -> dict:
    """The arguments of `run` or `sweep` as plain values, enough to run them again."""
    from fedjax_rl import results
    from fedjax_rl.algorithms import ALGORITHMS
    from fedjax_rl.envs.registry import ENVIRONMENTS, options
    from fedjax_rl.names import check_known

    check_known(arguments.algorithm, ALGORITHMS, "algorithm")
    check_known(arguments.environment, ENVIRONMENTS, "environment")
    given = vars(arguments)
    env = vars(given["env"]) if "env" in given else {}
    known = options(arguments.environment)
    every = {o: v for name in ENVIRONMENTS for o, v in options(name).items()}
    for option, value in env.items():
        if option not in known and value != every[option]:
            raise ValueError(
                f"env.{option} is {value}; allowed: "
                f"{', '.join(known) or 'no options'} with {arguments.environment}"
            )

    def plain(value):
        if isinstance(value, tuple):
            return value[0] if len(value) == 1 else list(value)
        return value

    properties = [n for n in algorithms()[arguments.algorithm].properties if n in given]
    properties = {n: plain(given[n]) for n in properties}
    per_agent = given.get("learning_rate_per_agent")
    if per_agent is not None:
        default = algorithms()[arguments.algorithm].config.learning_rate
        if properties.pop("learning_rate") != default:
            raise ValueError(
                f"learning_rate_per_agent is {per_agent} beside a learning_rate; allowed: one of "
                "the two"
            )
        if not per_agent > 0:
            raise ValueError(
                f"learning_rate_per_agent is {per_agent}; allowed: above 0, and at most 1 over "
                "the largest num_agents"
            )
    return {
        "command": type(arguments).__name__,
        "algorithm": arguments.algorithm,
        "environment": arguments.environment,
        "environment_options": {o: v for o, v in env.items() if o in known},
        "num_agents": plain(arguments.num_agents),
        "num_steps": arguments.num_steps,
        "seeds": plain(given["seeds"] if "seeds" in given else given["seed"]),
        "properties": properties,
        "learning_rate_per_agent": per_agent,
        "record_every": arguments.record_every,
        "metrics": list(given.get("metrics") or ()) or None,
        "devices": arguments.devices,
        "versions": results.versions(),
    }


def algorithm_of(config: dict):
    """The algorithm in its environment; properties that are lists are left to the sweep."""
    from fedjax_rl.algorithms import ALGORITHMS
    from fedjax_rl.envs.registry import make

    try:
        environment = make(config["environment"], **config["environment_options"])
    except ValueError as error:
        raise ValueError(f"env.{error}") from error
    return ALGORITHMS[config["algorithm"]](environment)
