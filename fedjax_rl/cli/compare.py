"""`compare`: several algorithms in one environment, for as long and with the same seeds."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import re
from typing import Annotated

from fedjax_rl.cli.config import check_run, environment_values, run_values
from fedjax_rl.cli.given import again, read
from fedjax_rl.cli.line import is_environment
from fedjax_rl.cli.named import algorithm, check_fits
from fedjax_rl.cli.option import of_record, option, values
from fedjax_rl.cli.options import (
    DURATIONS,
    of_clocks,
    of_environments,
    of_process,
    of_records,
    of_uplinks,
    prepare_for,
)
from fedjax_rl.cli.outside import is_outside
from fedjax_rl.cli.parts import clock_config, finite, plain, uplink_config
from fedjax_rl.cli.settings import Setting, settings, takes_clocks, takes_uplinks

# Enough for an interval, and few enough to wait for.
SEEDS = (0, 1, 2, 3, 4)
_LABEL = re.compile(r"[A-Za-z][\w-]*")


def named_in(words) -> tuple[dict[str, str], str | None]:
    """The algorithms by label, and the environment, that words name: the last one is the place.

    Args:
      words: such as ["fedq", "slow=fedq", "paper-mdp"].

    Raises:
      ValueError: a label that is none, or that is there twice.
    """
    *algorithms, place = words or [None]
    found: dict[str, str] = {}
    for word in algorithms:
        label, equals, name = word.partition("=")
        if not equals:
            # Of one's own the function's name: a module has dots, which options have, too.
            name, label = word, re.split("[:.]", word)[-1]
        if not _LABEL.fullmatch(label):
            raise ValueError(f"a label is {label!r}; allowed: letters, digits, - and _")
        if label in found:
            raise ValueError(f"{label} is named twice; allowed: LABEL=ALGORITHM to tell them apart")
        found[label] = name
    return found, place


def labels_of(arguments) -> list[str]:
    """The labels of a line's algorithms; none of another command."""
    names = getattr(arguments, "names", None)
    return list(named_in(names)[0]) if names else []


def words_in(argv: list[str]) -> list[str]:
    """The words of a line that name algorithms and the environment."""
    return list(itertools.takewhile(lambda word: not word.startswith("-"), argv[1:]))


def fields_of(argv: list[str], held: dict) -> list[tuple]:
    """The fields of the command's arguments, for `dataclasses.make_dataclass`.

    Args:
      argv: the whole line, names first.
      held: what holds where nothing is given, as `given.held` has it.
    """
    import tyro

    labels, place = named_in(words_in(argv))
    prepare_for(argv, *labels.values(), place)
    known = {label: algorithm(name, place) for label, name in labels.items()}
    several = list(known.values())
    text = "Algorithms, as NAME or LABEL=NAME, and behind them the environment of all."
    words = Annotated[
        tuple[str, ...],
        tyro.conf.arg(help=text, metavar="ALGORITHM... ENVIRONMENT", help_behavior_hint=""),
    ]
    units = {one.unit for one in several}
    unit = units.pop() if len(units) == 1 else "step"
    scheduled = any(word.partition("=")[0] == "--scheduler" for word in argv)
    steps = held.get("num_steps", DURATIONS["update" if scheduled else unit])
    seeds = held.get("seeds", list(SEEDS))
    seeds = seeds if isinstance(seeds, list) else [seeds]
    agents = held.get("num_agents", 4)
    fields = [
        ("names", tyro.conf.Positional[words]),
        values(True, "num_agents", int, agents, "N, agents of every federation."),
        option("num_steps", int, steps, f"T, {unit}s of every agent, alike for all algorithms."),
        values(True, "seeds", int, seeds, "Of the agents' random numbers."),
    ]
    if several:
        shared = [own for own in settings(several[0]) if all(_has(one, own) for one in several)]
        fields += _nullable([s for s in shared if s.name != "preset"], "Of all: ", False)
    for at, (label, one) in enumerate(known.items()):
        kind = dataclasses.make_dataclass(f"Of{at}", _nullable(settings(one)))
        kind.__doc__ = f"Of {label} alone."
        own = Annotated[kind, tyro.conf.arg(name=label)]
        fields.append((_field(at), own, dataclasses.field(default_factory=kind)))
    # One that is not is refused once the line is read.
    fine = place is not None and (is_environment(place) or is_outside(place))
    text = "tuned: of each algorithm its settings of `fedjax-rl list tuned`, where none is given."
    file = "The config.json of a comparison that is made again."
    fields += [
        option("preset", str | None, None, text, "NAME"),
        *of_records(_metrics(several), unit, held),
        *of_process(argv),
        option("config", str | None, None, file, "FILE"),
        *(of_environments([place], held.get("options", {})) if several and fine else []),
    ]
    first = next((one for one in several if takes_clocks(one)), None)
    fields += [] if first is None else of_clocks(first, False, argv)
    return fields + (of_uplinks(argv, False) if any(map(takes_uplinks, several)) else [])


def _field(place: int) -> str:
    """The field with what is of one algorithm alone: its label may be no name of Python's."""
    return f"of_{place}"


def _has(one, own: Setting) -> bool:
    return any((other.name, other.kind) == (own.name, own.kind) for other in settings(one))


def _metrics(several) -> list[str]:
    """What all of them measure, in the order of the first."""
    first = several[0].metrics if several else {}
    return [name for name in first if all(name in one.metrics for one in several)]


def _nullable(found: list[Setting], before: str = "", shown: bool = True) -> list[tuple]:
    """A field per setting that is None unless it is given, so that whoever is nearer wins."""
    flat, inner = [], {}
    for own in found:
        *records, name = own.name.split(".")
        at = functools.reduce(lambda at, word: at.setdefault(word, {}), records, inner)
        default = plain(own.default, own.is_tuple)
        hint = f"(default: {default})" if shown else "(default: of each its own)"
        field = option(name, own.kind | None, None, before + own.text, hint=hint)
        if records:
            at[name] = field
        else:
            flat.append(field)
    return flat + [of_record(name, own) for name, own in inner.items()]


def _given(found: list[Setting], arguments) -> dict:
    """What was given of settings, as JSON has it."""
    out = {}
    for own in found:
        try:
            value = functools.reduce(getattr, own.name.split("."), arguments)
        except AttributeError:  # that not all of them have
            continue
        if value is not None:
            out[own.name] = plain(value, own.is_tuple)
    return out


def config_of(arguments) -> dict:
    """The arguments as plain values, enough to run them again.

    Raises:
      ValueError: naming the argument, its value and what is allowed.
    """
    from fedjax_rl.sweeps.arguments import seeds as check_seeds

    labels, place = named_in(arguments.names)
    if len(labels) < 2:
        said = " ".join(arguments.names)
        raise ValueError(
            f"compare is given {said!r}; allowed: two algorithms or more, and behind them the "
            "environment of all"
        )
    given, found = vars(arguments), {}
    file = read(arguments.config)["algorithms"] if arguments.config else {}
    for name in labels.values():
        check_fits(name, place)
    for place_of, (label, name) in enumerate(labels.items()):
        one = algorithm(name, place)
        properties = _tuned(arguments.preset, name, place)
        properties |= file.get(label, {}).get("properties", {})
        properties |= _given([s for s in settings(one) if s.name != "preset"], arguments)
        properties |= _given(settings(one), given[_field(place_of)])
        found[label] = {
            "algorithm": name,
            "properties": finite(properties),
            "uplink": None,
            "clock": None,
        }
        for part, takes, make in (
            ("uplink", takes_uplinks, lambda one: uplink_config(given)),
            ("scheduler", takes_clocks, lambda one: clock_config(given, one)),
        ):
            if takes(one):
                found[label][{"scheduler": "clock"}.get(part, part)] = make(one)
            elif given.get(part) is not None:
                raise ValueError(
                    f"{part} is {given[part]}, which {label} has none of; allowed: none"
                )
    check_run(arguments)
    check_seeds(plain(arguments.seeds))
    config = {
        "command": "compare",
        "algorithm": ", ".join(labels),
        "algorithms": found,
        "environment": place,
        "environment_options": environment_values(given, place),
        "learning_rate_per_agent": None,
        **run_values(arguments),
    }
    return again(arguments, config)


def _tuned(preset: str | None, name: str, place: str) -> dict:
    """The tuned properties of an algorithm, where these are asked for."""
    from fedjax_rl import presets

    if preset is None:
        return {}
    if preset != "tuned":
        raise ValueError(f"preset is {preset}; allowed: tuned")
    found = None if is_outside(name) else presets.find(name, place)
    if found is None:
        raise ValueError(presets.refusal(name, place))
    return dict(found.properties)
