"""The options of every command, as fields of dataclasses."""

from __future__ import annotations

import dataclasses
import functools
import re
import types
import typing
from collections.abc import Sequence
from typing import Annotated, Literal

from fedjax_rl.cli.cluster import joined
from fedjax_rl.cli.line import (
    PACKAGES,
    asks_for_tuned,
    devices_in,
    named_in,
    study_in,
    uplinks_in,
)
from fedjax_rl.cli.named import algorithm, environment_options, factory_of, fitting
from fedjax_rl.cli.outside import is_outside
from fedjax_rl.cli.process import prepare
from fedjax_rl.cli.settings import (
    clock_options,
    parameters,
    parts,
    settings,
    takes_clocks,
    takes_uplinks,
    uplink_options,
)

SCALES = ("smoke", "quick", "paper")
SHELLS = ("bash", "zsh", "fish")
_OWN = "your own as MODULE:NAME"
_TUNED = "tuned: the settings of `fedjax-rl list tuned`, where none is given."
# Units of time that a run has by default.
_DURATIONS = {"step": 100_000, "episode": 1000, "round": 200, "epoch": 300, "update": 1000}


def of_command(command: str, argv: list[str]) -> list[tuple]:
    """The fields of a command's arguments, for `dataclasses.make_dataclass`.

    Args:
      command: such as "run".
      argv: the whole line; the algorithm and the environment named there say which options exist.
    """
    if command == "list":
        text = "tuned: the tuned settings and what they reach; all else by default."
        return [_positional("what", text, "everything")]
    if command == "resume":
        more = "Of a run or sweep that is to have more {}; as many as it was begun with by default."
        return [
            _positional("directory", "As printed by the command that was stopped."),
            _option("num_steps", int | None, None, more.format("steps")),
            _option("seeds", tuple[int, ...] | None, None, more.format("seeds"), "INT ..."),
            _option("devices", int | None, None, "Devices to go on over; as many as before."),
            _cache(),
            *_processes(),
        ]
    if command == "completion":
        import tyro

        kind = Annotated[Literal[SHELLS], tyro.conf.arg(help="The shell.", metavar="SHELL")]
        return [("shell", tyro.conf.Positional[kind])]
    if command == "reproduce":
        return [*_of_study(), _out(), _devices(), _cache()]
    if command == "doctor" and study_in(argv):
        return [*_of_study(), _devices(), _cache()]
    if command == "validate":
        text = "Path of other reference numbers; those of the package by default."
        return [
            _positional("game", "BigFish or CoinRun."),
            _option("scale", Literal[SCALES], "quick", "Episodes of a run: 256, 2048 or all."),
            _option("reference", str | None, None, text, "FILE"),
        ]
    if command == "play":
        from fedjax_rl.envs.procgen.play import POLICIES

        text = f"One of {', '.join(POLICIES)}, or the directory of a run that has learned."
        return [
            _positional("environment", "BigFish or CoinRun."),
            _option("policy", str, "random", text, "NAME|DIR"),
            _option("num_steps", int, 300, "Steps, each a picture."),
            _option("mode", Literal[("easy", "hard")], "easy", "Of the game, with a NAME."),
            _option("seed", int, 0, "Of levels and actions."),
            _option("out", str | None, None, "The animated GIF to write.", "FILE"),
        ]
    return _of_simulation(command, argv)


def _of_study() -> list[tuple]:
    """A study, and how much of it."""
    scale = "smoke: it works; quick: minutes; paper: as published."
    return [
        _positional("study", "STUDY, or STUDY:FIGURE[,FIGURE]; see `fedjax-rl list`."),
        _option("scale", Literal[SCALES], "quick", scale),
        _option("preset", str | None, None, "The protocol, such as paper or clean.", "NAME"),
    ]


def _of_simulation(command: str, argv: list[str]) -> list[tuple]:
    """The fields of `run`, `sweep` and `doctor`."""
    from fedjax_rl.algorithms import ALGORITHMS
    from fedjax_rl.envs.registry import ENVIRONMENTS

    named, place = named_in(argv)
    # Whose module may start JAX when it is imported.
    if (is_outside(named) or is_outside(place)) and not joined():
        prepare(devices_in(argv))
    chosen = named or next(iter(ALGORITHMS))
    places = list(ENVIRONMENTS) if named is None else fitting(chosen)
    one, several = algorithm(chosen, place), command != "run"
    tuned = _tuned(named, place) if asks_for_tuned(argv) else {}
    default = (dataclasses.MISSING, dataclasses.MISSING)
    if command == "doctor":
        default = (chosen, place or fitting(chosen)[0])
    on_clock = takes_clocks(one)
    scheduled = on_clock and any(a.partition("=")[0] == "--scheduler" for a in argv)
    unit = "update" if scheduled else one.unit
    time = f"{unit}s"
    steps = f"T, {'environment ' if time == 'steps' else ''}{time} of every agent."
    steps = "T, steps of the server." if unit == "update" else steps
    others = [f"{p}/NAME" for p in PACKAGES if any(n.startswith(f"{p}/") for n in places)]
    allowed = f"One of {', '.join([*places, *others])}, or {_OWN}."
    fields = [
        _positional("algorithm", f"One of {', '.join(ALGORITHMS)}, or {_OWN}.", default[0]),
        _positional("environment", allowed, default[1]),
        _values(
            several, "num_agents", int, tuned.get("num_agents", 4), "N, agents of the federation."
        ),
        _option("num_steps", int, tuned.get("num_steps", _DURATIONS[unit]), steps),
        _values(several, "seeds" if several else "seed", int, 0, "Of the agents' random numbers."),
        *_of_algorithm(one, several, tuned.get("properties", {})),
    ]
    if "preset" not in one.properties:
        fields.append(_option("preset", str | None, None, _TUNED, "NAME"))
    every = f"{time.capitalize()} between records; about 100 records by default."
    fields.append(_option("record_every", int | None, None, every))
    if command != "doctor":
        text = f"What to record: {', '.join(one.metrics)}. By default those per federation."
        fields += [_option("metrics", tuple[str, ...] | None, None, text, "NAME ..."), _out()]
        text = "Of whom to record metrics of agents, from 0 on, beside mean and quantiles over all."
        fields.append(_option("agents", tuple[int, ...] | None, None, text, "INT ..."))
        text = "Compile nothing, one agent after the other; name the first value that breaks."
        fields.append(_option("debug", bool, False, text))
    fields += [_devices()] if command == "doctor" else [_all_devices(), *_processes()]
    fields += [_cache(), *_of_environments([place] if place else places, tuned)]
    fields += _of_clocks(one, several) if on_clock else []
    return fields + (_of_uplinks(uplinks_in(argv), several) if takes_uplinks(one) else [])


def _tuned(named: str | None, place: str | None) -> dict:
    """The settings that hold where none is given; none where there are no tuned ones."""
    from fedjax_rl import presets

    # Refused by `config_of`, once the line is read.
    found = None if None in (named, place) else presets.find(named, place)
    return {} if found is None else found._asdict()


def _of_algorithm(one, several: bool, tuned: dict) -> list[tuple]:
    """A field per property that a word or a number can set; texts are its docstring's."""
    fields, inner = [], {}
    for own in settings(one):
        text = own.text
        own = own._replace(default=tuned.get(own.name, own.default))
        if own.name == "preset":
            text = f"{text} {_TUNED}"
        if several and own.is_tuple:
            text = f"{text} One value for the whole grid."
        *records, name = own.name.split(".")
        place = functools.reduce(lambda at, word: at.setdefault(word, {}), records, inner)
        field = _values(several and not own.is_tuple, name, *own[1:3], text)
        if records:
            place[name] = field
        else:
            fields.append(field)
    fields += [_of_record(name, own) for name, own in inner.items()]
    if several and "learning_rate" in one.properties:
        text = "Instead of learning-rate: this value times num-agents."
        fields.append(_option("learning_rate_per_agent", float | None, None, text))
    return fields


def _of_record(name: str, inner: dict) -> tuple:
    """A field with the properties of a record as its own, so that they are `--network.hidden`."""
    fields = [own if isinstance(own, tuple) else _of_record(n, own) for n, own in inner.items()]
    kind = dataclasses.make_dataclass(name.title().replace("_", ""), fields)
    kind.__doc__ = f"Of {name.replace('_', '-')}."
    return name, kind, dataclasses.field(default_factory=kind)


def _of_environments(names: list[str], tuned: dict) -> list[tuple]:
    """One field `env` with the options of these environments, if they have any."""
    options = tuned.get("options", {})
    known: dict = {}
    for name in names:
        for option in parameters(factory_of(name)):
            if option.kind is not None:
                known.setdefault(option.name, []).append(option)
    fields = []
    for each in known.values():
        first = each[0]
        if any(option.default != first.default for option in each):
            # Environments that disagree about a default: each takes its own where none is given.
            first = first._replace(kind=first.kind | None, default=None, text="")
        default = options.get(first.name, first.default)
        fields.append(_option(first.name, first.kind, default, first.text or "Of the environment."))
    if not fields:
        return []
    env = dataclasses.make_dataclass("Env", fields)
    env.__doc__ = f"Options of {', '.join(name for name in names if environment_options(name))}."
    return [("env", env, dataclasses.field(default_factory=env))]


def _of_uplinks(names: Sequence[str], several: bool) -> list[tuple]:
    """The field `uplink`, and the options of these uplinks, or of all, under the same name."""
    import tyro

    from fedjax_rl.federation.uplinks import UPLINKS

    text = f"What of a message crosses the wire: {', '.join(UPLINKS)}. All of it by default."
    kind, metavar = (tuple[str, ...], "NAME ...") if several else (str, "NAME")
    fields = [_option("uplink", kind | None, None, text, metavar)]
    known: dict = {}
    for name in names or UPLINKS:
        for option in uplink_options(name):
            known.setdefault(option.name, (option, []))[1].append(name)
    if not known:
        return fields
    inner = []
    for option, users in known.values():
        text = f"Of {', '.join(users)}: {option.text}"
        inner.append(_values(several, *option[:3], text))
    own = dataclasses.make_dataclass("UplinkOptions", inner)
    own.__doc__ = f"Options of {', '.join(n for n in names or UPLINKS if uplink_options(n))}."
    kind = Annotated[own, tyro.conf.arg(name="uplink")]
    return [*fields, ("uplink_options", kind, dataclasses.field(default_factory=own))]


def _of_clocks(one, several: bool) -> list[tuple]:
    """The field `scheduler`, and the options of the clock."""
    import tyro

    from fedjax_rl.federation.clock import SCHEDULERS

    text = f"Whom the server waits for: {', '.join(SCHEDULERS)}."
    if one.config.clock is None:
        text += " Rounds without a clock by default."
    else:
        text += f" By default {one.config.clock.scheduler}."
    kind, metavar = (tuple[str, ...], "NAME ...") if several else (str, "NAME")
    fields = [_option("scheduler", kind | None, None, text, metavar)]
    inner = [_values(several, *option[:4]) for option in clock_options()]
    own = dataclasses.make_dataclass("ClockOptions", inner)
    own.__doc__ = "Times of the agents."
    kind = Annotated[own, tyro.conf.arg(name="clock")]
    return [*fields, ("clock_options", kind, dataclasses.field(default_factory=own))]


def _option(name, kind, default, text, metavar=None) -> tuple:
    import tyro

    # The parser formats the help.
    text = text.replace("%", "%%")
    arg = tyro.conf.arg(help=text, metavar=metavar or _metavar(kind))
    return name, Annotated[kind, arg], dataclasses.field(default=default)


def _values(several: bool, name, kind, default, text) -> tuple:
    """An option of one value or of several."""
    if not several:
        return _option(name, kind, default, text)
    return _option(name, tuple[kind, ...], (default,), text)


def _metavar(kind) -> str | None:
    """What stands for a value in the help, or None where the parser knows better."""
    words = {int: "INT", float: "FLOAT", str: "STR"}
    each = [part for part in parts(kind) if part is not types.NoneType]
    if each == [int, float]:
        return "NUMBER"
    if len(each) != 1:
        return None
    if typing.get_origin(each[0]) is tuple:
        inner = typing.get_args(each[0])[0]
        inner = "True|False" if inner is bool else _metavar(inner)
        return inner and f"{inner} ..."
    return words.get(each[0])


def _positional(name, text, default=dataclasses.MISSING) -> tuple:
    import tyro

    # Any word: unknown names are answered by ourselves, with the nearest.
    kind = Annotated[str, tyro.conf.arg(help=text, metavar=name.upper())]
    return name, tyro.conf.Positional[kind], dataclasses.field(default=default)


def _out() -> tuple:
    return _option("out", str | None, None, "Directory for everything; a new one in runs/.", "DIR")


def _cache() -> tuple:
    text = "Keep compiled programs in the user's cache directory, and use those that are there."
    return _option("cache", bool, True, text)


def _devices() -> tuple:
    return _option("devices", int, 1, "Devices to spread the agents over.")


def _all_devices() -> tuple:
    text = (
        "Devices to spread the agents over, of all processes together. One by default, and with "
        "--distributed all that there are."
    )
    return _option("devices", int | None, None, text)


def _processes() -> list[tuple]:
    """What finds the other processes of a command; `fedjax_rl.cli.cluster` reads it beforehand."""
    found = "As JAX detects it by default (SLURM, Open MPI, Kubernetes, TPU)."
    text = "One of several processes, each given this command, that simulate together."
    wait = "Seconds to wait for all processes at the start; 300 by default."
    return [
        _option("distributed", bool, False, text),
        _option("coordinator", str | None, None, f"Where process 0 listens. {found}", "HOST:PORT"),
        _option("num_processes", int | None, None, f"How many there are. {found}"),
        _option("process_index", int | None, None, f"Which of them this is, from 0. {found}"),
        _option("wait", float | None, None, wait),
    ]


def spelled_out(argv: list[str], command: type) -> list[str]:
    """The line with a value behind every switch that a grid may give several values.

    Args:
      argv: as typed, with `--reset` or `--no-reset`.
      command: the dataclass of its arguments.
    """
    switches = _switches(command)
    out = []
    for word, following in zip(argv, [*argv[1:], "--"], strict=True):
        if word in switches and following.startswith("--"):
            out += [word, "True"]
        elif (positive := re.sub(r"^(--(?:[\w-]+\.)*)no-", r"\1", word)) in switches - {word}:
            out += [positive, "False"]
        else:
            out.append(word)
    return out


def _switches(command: type, prefix: str = "--") -> set[str]:
    """The options of a command, and of what is nested in it, that are lists of switches."""
    found = set()
    for field in dataclasses.fields(command):
        name = field.name.removesuffix("_options").replace("_", "-")
        if dataclasses.is_dataclass(field.default_factory):
            found |= _switches(field.default_factory, f"{prefix}{name}.")
        elif typing.get_args(field.type)[:1] == (tuple[bool, ...],):
            found.add(f"{prefix}{name}")
    return found
