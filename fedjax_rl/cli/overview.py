"""`list`: what there is, a line each, or all that is said of it."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator

from fedjax_rl.cli.line import PACKAGES
from fedjax_rl.cli.listing import kept
from fedjax_rl.cli.named import fitting
from fedjax_rl.cli.options import LISTS, SCALES
from fedjax_rl.cli.report import PROGRAM
from fedjax_rl.cli.settings import clock_options, uplink_options
from fedjax_rl.cli.study import duration, studies
from fedjax_rl.cli.tables import width


def overview(arguments) -> int:
    """The command `list`."""
    from fedjax_rl.names import check_known

    check_known(arguments.what, LISTS, "list")
    most = width()  # now: what is kept is printed to no terminal
    shape = "long" if arguments.long else most
    print(kept(f"list-{arguments.what}-{shape}", lambda: _show(arguments, most)), end="")
    return 0


def _show(arguments, most: int) -> None:
    if arguments.what == "tuned":
        _tuned()
        return
    asked = [arguments.what] if arguments.what in _LISTS else _LISTS
    for place, name in enumerate(asked):
        print(f"{'' if place == 0 else chr(10)}{name.capitalize()}")
        entries = list(_LISTS[name]())
        longest = max(len(one) for one, *_ in entries)
        for one, text, details in entries:
            line = f"  {one:{longest}}  {text}".rstrip()
            print(line if arguments.long else _cut(line, most))
            for detail in details if arguments.long else ():
                print(f"    {detail}")
    if not arguments.long:
        what = arguments.what if arguments.what in _LISTS else "algorithms"
        print(f"\n`{PROGRAM} list {what} --long` says more: papers, options, what runs where")


def _cut(line: str, most: int) -> str:
    return line if len(line) <= most else f"{line[: most - 1]}…"


# Of each the name, a line about it, and what else there is to say.
Entries = Iterator[tuple[str, str, list[str]]]


def _algorithms() -> Entries:
    from fedjax_rl import presets
    from fedjax_rl.algorithms import ALGORITHMS

    tuned: dict[str, list] = {}
    for one in presets.entries():
        tuned.setdefault(one.algorithm, []).append(one.environment)
    for name, entry in ALGORITHMS.items():
        details = [f"runs on: {', '.join(fitting(name))}"]
        if name in tuned:
            details.append(f"tuned for: {', '.join(tuned[name])}")
        # Papers are said once, in the docstrings of the algorithms.
        text = sys.modules[entry.make.__module__].__doc__ or ""
        for paper in re.findall(r"^\* ((?:.|\n(?!\* ))*)", text, re.MULTILINE):
            details.append(f"- {' '.join(paper.replace('*', '').split())}")
        yield name, _first(entry.make), details


def _environments() -> Entries:
    from fedjax_rl.envs.registry import ALIASES, ENVIRONMENTS, options

    for name, factory in ENVIRONMENTS.items():
        yield name, _first(factory), _flags("env", options(name))
    for package in PACKAGES:
        yield f"{package}/NAME", f"Any other environment of {package}.", []
    called = ", ".join(f"{alias} ({name})" for alias, name in ALIASES.items())
    yield "also called", called, []


def _uplinks() -> Entries:
    from fedjax_rl.federation.uplinks import UPLINKS

    for name, factory in UPLINKS.items():
        yield name, _first(factory), _flags("uplink", [own.name for own in uplink_options(name)])


def _schedulers() -> Entries:
    from fedjax_rl.federation.clock import SCHEDULERS

    options = _flags("clock", [own.name for own in clock_options()])
    for name in SCHEDULERS:
        yield name, "", options if name == list(SCHEDULERS)[-1] else []


def _studies() -> Entries:
    for name, study in studies().items():
        details = [f"presets: {', '.join(study.presets)}; scales: {', '.join(SCALES)}"]
        details += [f"{name}:{figure}  {text}" for figure, text in study.figures.items()]
        yield name, study.paper, details


_LISTS = {
    "algorithms": _algorithms,
    "environments": _environments,
    "uplinks": _uplinks,
    "schedulers": _schedulers,
    "studies": _studies,
}


def _tuned() -> None:
    """The tuned settings, with what they reach and the line that shows it."""
    from fedjax_rl import presets

    for one in presets.entries():
        print(f"{one.algorithm} {one.environment}")
        print(f"  {one.flags}")
        got = one.reached
        if got is None:
            print("  not measured yet")
        else:
            print(
                f"  {got.metric} {got.mean:.5g} [{got.low:.5g}, {got.high:.5g}], from "
                f"{got.start:.3g}, of {len(one.seeds)} seeds [95 % Student t interval]; "
                f"{duration(got.seconds)} on {got.device}"
            )
        print(f"  {one.command}")


def _first(factory) -> str:
    """The first line of a docstring, without the pointer to another."""
    line = (factory.__doc__ or "").strip().partition("\n")[0]
    return line if "; see" not in line else f"{line.partition('; see')[0]}."


def _flags(prefix: str, names) -> list[str]:
    if not names:
        return []
    return [f"options: {', '.join(f'--{prefix}.{n}'.replace('_', '-') for n in names)}"]
