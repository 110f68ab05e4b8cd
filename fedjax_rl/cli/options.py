"""The options of every command, as fields of dataclasses."""

from __future__ import annotations

import dataclasses
import functools
from typing import Annotated, Literal

from fedjax_rl.cli.cluster import joined
from fedjax_rl.cli.line import (
    PACKAGES,
    asks_for_help,
    asks_for_tuned,
    devices_in,
    named_in,
    study_in,
    uplinks_in,
)
from fedjax_rl.cli.named import algorithm, environment_options, factory_of, fitting
from fedjax_rl.cli.option import of_record, option, positional, values
from fedjax_rl.cli.outside import is_outside
from fedjax_rl.cli.process import prepare
from fedjax_rl.cli.settings import (
    clock_options,
    parameters,
    settings,
    takes_clocks,
    takes_uplinks,
    uplink_options,
)

SCALES = ("smoke", "quick", "paper")
SHELLS = ("bash", "zsh", "fish")
# What `list` can be asked for.
LISTS = (
    *("everything", "algorithms", "environments", "uplinks", "schedulers", "studies"),
    "tuned",
)
_OWN = "your own as MODULE:NAME"
_TUNED = "tuned: the settings of `fedjax-rl list tuned`, where none is given."
# Units of time that a run has by default.
DURATIONS = {"step": 100_000, "episode": 1000, "round": 200, "epoch": 300, "update": 1000}


def of_command(command: str, argv: list[str], held: dict | None = None) -> list[tuple]:
    """The fields of a command's arguments, for `dataclasses.make_dataclass`.

    Args:
      command: such as "run".
      argv: the whole line; the algorithm and the environment named there say which options exist.
      held: what holds of a simulation where nothing is given, as `given.held` has it.
    """
    if command == "list":
        text = f"One of {', '.join(LISTS)}; by default everything."
        more = "With options, papers, figures and where each runs."
        return [positional("what", text, LISTS[0]), option("long", bool, False, more)]
    if command == "resume":
        more = "Of a run or sweep that is to have more {}; as many as it was begun with by default."
        return [
            positional("directory", "As printed by the command that was stopped."),
            option("num_steps", int | None, None, more.format("steps")),
            option("seeds", tuple[int, ...] | None, None, more.format("seeds"), "INT ..."),
            option("devices", int | None, None, "Devices to go on over; as many as before."),
            _cache(),
            *_processes(argv),
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
            positional("game", "BigFish or CoinRun."),
            option("scale", Literal[SCALES], "quick", "Episodes of a run: 256, 2048 or all."),
            option("reference", str | None, None, text, "FILE"),
        ]
    if command == "view":
        import tyro

        text = "Of runs, sweeps, comparisons or studies, side by side."
        kind = Annotated[
            tuple[str, ...], tyro.conf.arg(help=text, metavar="DIRECTORY...", help_behavior_hint="")
        ]
        text = "The page; by default view.html in the directory, of several here."
        return [
            ("directories", tyro.conf.Positional[kind]),
            option("out", str | None, None, text, "FILE"),
        ]
    if command == "play":
        from fedjax_rl.envs.procgen.play import POLICIES

        text = f"One of {', '.join(POLICIES)}, or the directory of a run that has learned."
        return [
            positional("environment", "BigFish or CoinRun."),
            option("policy", str, "random", text, "NAME|DIR"),
            option("num_steps", int, 300, "Steps, each a picture."),
            option("mode", Literal[("easy", "hard")], "easy", "Of the game, with a NAME."),
            option("seed", int, 0, "Of levels and actions."),
            option("out", str | None, None, "The animated GIF to write.", "FILE"),
        ]
    return _of_simulation(command, argv, held or {})


def _of_study() -> list[tuple]:
    """A study, and how much of it."""
    scale = "smoke: it works; quick: minutes; paper: as published."
    return [
        positional("study", "STUDY, or STUDY:FIGURE[,FIGURE]; see `fedjax-rl list`."),
        option("scale", Literal[SCALES], "quick", scale),
        option("preset", str | None, None, "The protocol, such as paper or clean.", "NAME"),
    ]


def _of_simulation(command: str, argv: list[str], held: dict) -> list[tuple]:
    """The fields of `run`, `sweep` and `doctor`."""
    from fedjax_rl.algorithms import ALGORITHMS
    from fedjax_rl.envs.registry import ENVIRONMENTS

    named, place = named_in(argv)
    prepare_for(argv, named, place)
    chosen = named or next(iter(ALGORITHMS))
    places = list(ENVIRONMENTS) if named is None else fitting(chosen)
    one, several = algorithm(chosen, place), command != "run"
    if asks_for_tuned(argv):
        tuned = _tuned(named, place)
        held = {**held, **{n: tuned[n] for n in ("num_agents", "num_steps") if n in tuned}}
        for part in ("properties", "options"):
            held[part] = {**held.get(part, {}), **tuned.get(part, {})}
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
    seeds = "seeds" if several else "seed"
    fields = [
        positional("algorithm", f"One of {', '.join(ALGORITHMS)}, or {_OWN}.", default[0]),
        positional("environment", allowed, default[1]),
        values(
            several, "num_agents", int, held.get("num_agents", 4), "N, agents of the federation."
        ),
        option("num_steps", int, held.get("num_steps", DURATIONS[unit]), steps),
        values(several, seeds, int, held.get("seeds", 0), "Of the agents' random numbers."),
        *_of_algorithm(one, several, held),
    ]
    if "preset" not in one.properties and not _is_asked_for_help(argv, named, place):
        fields.append(option("preset", str | None, None, _TUNED, "NAME"))
    if command == "doctor":
        fields += [of_records((), unit, held)[0], _devices(), _cache()]
    else:
        fields += [*of_records(one.metrics, unit, held), *of_process(argv)]
        text = "A config.json, or its directory, whose run is made again; what is given beside it"
        text += " holds instead."
        fields.append(option("config", str | None, None, text, "FILE"))
    fields += of_environments([place] if place else places, held.get("options", {}))
    fields += of_clocks(one, several, argv) if on_clock else []
    return fields + (of_uplinks(argv, several) if takes_uplinks(one) else [])


def prepare_for(argv: list[str], *names: str | None) -> None:
    """Sets the environment of a process, where what is named may start JAX when it is imported."""
    if any(is_outside(name) for name in names) and not joined():
        prepare(devices_in(argv))


def _is_asked_for_help(argv: list[str], named: str | None, place: str | None) -> bool:
    """Whether a line asks what can be given where there are no tuned settings to ask for."""
    from fedjax_rl import presets

    asked = asks_for_help(argv) and None not in (named, place)
    return asked and presets.find(named, place) is None


def of_records(metrics, unit: str, held: dict) -> list[tuple]:
    """How often to record, and what of these metrics."""
    every = f"{unit.capitalize()}s between records; about 100 records by default."
    text = f"What to record: {', '.join(metrics)}. By default those per federation."
    each = "Of whom to record metrics of agents, from 0 on, beside mean and quantiles over all."
    names, whom = held.get("metrics"), held.get("agents")
    return [
        option("record_every", int | None, held.get("record_every"), every),
        option("metrics", tuple[str, ...] | None, names and tuple(names), text, "NAME ..."),
        option("agents", tuple[int, ...] | None, whom and tuple(whom), each, "INT ..."),
    ]


def of_process(argv: list[str]) -> list[tuple]:
    """Where to write and on what to run."""
    text = "Compile nothing, one agent after the other; name the first value that breaks."
    debug = option("debug", bool, False, text)
    return [_out(), debug, _all_devices(), *_processes(argv), _cache()]


def _tuned(named: str | None, place: str | None) -> dict:
    """The settings that hold where none is given; none where there are no tuned ones."""
    from fedjax_rl import presets

    # Refused by `config_of`, once the line is read.
    found = None if None in (named, place) else presets.find(named, place)
    return {} if found is None else found._asdict()


def _of_algorithm(one, several: bool, held: dict) -> list[tuple]:
    """A field per property that a word or a number can set; texts are its docstring's."""
    fields, inner, instead = [], {}, held.get("properties", {})
    for own in settings(one):
        text = own.text
        own = own._replace(default=instead.get(own.name, own.default))
        if own.name == "preset":
            text = f"{text} {_TUNED}"
        if several and own.is_tuple:
            text = f"{text} One value for the whole grid."
        *records, name = own.name.split(".")
        place = functools.reduce(lambda at, word: at.setdefault(word, {}), records, inner)
        field = values(several and not own.is_tuple, name, *own[1:3], text)
        if records:
            place[name] = field
        else:
            fields.append(field)
    fields += [of_record(name, own) for name, own in inner.items()]
    if several and "learning_rate" in one.properties:
        text = "Instead of learning-rate: this value times num-agents."
        rate = held.get("learning_rate_per_agent")
        fields.append(option("learning_rate_per_agent", float | None, rate, text))
    return fields


def of_environments(names: list[str], held: dict) -> list[tuple]:
    """One field `env` with the options of these environments, if they have any.

    Args:
      names: of the environments.
      held: options that hold instead of the defaults.
    """
    known: dict = {}
    for name in names:
        for own in parameters(factory_of(name)):
            if own.kind is not None:
                known.setdefault(own.name, []).append(own)
    fields = []
    for each in known.values():
        first = each[0]
        if any(own.default != first.default for own in each):
            # Environments that disagree about a default: each takes its own where none is given.
            first = first._replace(kind=first.kind | None, default=None, text="")
        default = held.get(first.name, first.default)
        default = tuple(default) if isinstance(default, list) else default
        fields.append(option(first.name, first.kind, default, first.text or "Of the environment."))
    if not fields:
        return []
    env = dataclasses.make_dataclass("Env", fields)
    env.__doc__ = f"Options of {', '.join(name for name in names if environment_options(name))}."
    return [("env", env, dataclasses.field(default_factory=env))]


def of_uplinks(argv: list[str], several: bool) -> list[tuple]:
    """The field `uplink`, and the options of those that a line names, under the same name.

    Who names none is told of all options that there are no uplink for, and in the help of none.

    Args:
      argv: the whole line.
      several: whether it may name several, and several values of each option.
    """
    import tyro

    from fedjax_rl.federation.uplinks import UPLINKS

    names, help_only = uplinks_in(argv), asks_for_help(argv)
    text = f"What of a message crosses the wire: {', '.join(UPLINKS)}. All of it by default."
    if help_only and not names:
        text += " Options of one: `--uplink NAME --help`."
    kind, metavar = (tuple[str, ...], "NAME ...") if several else (str, "NAME")
    fields = [option("uplink", kind | None, None, text, metavar)]
    known: dict = {}
    for name in names or ([] if help_only else UPLINKS):
        for own in uplink_options(name):
            known.setdefault(own.name, (own, []))[1].append(name)
    if not known:
        return fields
    inner = []
    for own, users in known.values():
        text = f"Of {', '.join(users)}: {own.text}" if len(names) != 1 else own.text
        inner.append(values(several, *own[:3], text))
    own = dataclasses.make_dataclass("UplinkOptions", inner)
    own.__doc__ = f"Options of {', '.join(n for n in names or UPLINKS if uplink_options(n))}."
    kind = Annotated[own, tyro.conf.arg(name="uplink")]
    return [*fields, ("uplink_options", kind, dataclasses.field(default_factory=own))]


def of_clocks(one, several: bool, argv: list[str]) -> list[tuple]:
    """The field `scheduler`, and the options of the clock; in the help where there is one.

    Args:
      one: the algorithm with its defaults.
      several: whether several values may be given.
      argv: the whole line.
    """
    import tyro

    from fedjax_rl.federation.clock import SCHEDULERS

    text = f"Whom the server waits for: {', '.join(SCHEDULERS)}."
    hidden = False
    if one.config.clock is None:
        text += " Rounds without a clock by default."
        hidden = asks_for_help(argv) and not any(w.startswith("--scheduler") for w in argv)
        text += " Its times: `--scheduler NAME --help`." if hidden else ""
    else:
        text += f" By default {one.config.clock.scheduler}."
    kind, metavar = (tuple[str, ...], "NAME ...") if several else (str, "NAME")
    fields = [option("scheduler", kind | None, None, text, metavar)]
    if hidden:
        return fields
    inner = [values(several, *own[:4]) for own in clock_options()]
    own = dataclasses.make_dataclass("ClockOptions", inner)
    own.__doc__ = "Times of the agents."
    kind = Annotated[own, tyro.conf.arg(name="clock")]
    return [*fields, ("clock_options", kind, dataclasses.field(default_factory=own))]


def _out() -> tuple:
    return option("out", str | None, None, "Directory for everything; a new one in runs/.", "DIR")


def _cache() -> tuple:
    text = "Keep compiled programs in the user's cache directory, and use those that are there."
    return option("cache", bool, True, text)


def _devices() -> tuple:
    return option("devices", int, 1, "Devices to spread the agents over.")


def _all_devices() -> tuple:
    text = (
        "Devices to spread the agents over, of all processes together. One by default, and with "
        "--distributed all that there are."
    )
    return option("devices", int | None, None, text)


def _processes(argv: list[str]) -> list[tuple]:
    """What finds the other processes of a command; `fedjax_rl.cli.cluster` reads it beforehand."""
    found = "As JAX detects it by default (SLURM, Open MPI, Kubernetes, TPU)."
    text = "One of several processes, each given this command, that simulate together."
    wait = "Seconds to wait for all processes at the start; 300 by default."
    hidden = asks_for_help(argv) and "--distributed" not in argv
    first = option(
        "distributed",
        bool,
        False,
        f"{text} How they meet: `--distributed --help`." if hidden else text,
    )
    if hidden:
        return [first]
    return [
        first,
        option("coordinator", str | None, None, f"Where process 0 listens. {found}", "HOST:PORT"),
        option("num_processes", int | None, None, f"How many there are. {found}"),
        option("process_index", int | None, None, f"Which of them this is, from 0. {found}"),
        option("wait", float | None, None, wait),
    ]
