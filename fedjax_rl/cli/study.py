"""`reproduce`: published figures, and the verdicts on their values."""

from __future__ import annotations

import pathlib
import re
from typing import Any

from fedjax_rl.cli.config import check_devices, check_out
from fedjax_rl.cli.process import free, held, interruptible, keeping, prepare, quiet
from fedjax_rl.cli.report import live, number
from fedjax_rl.cli.tables import print_table


def studies() -> dict[str, Any]:
    """Every study by name."""
    from fedjax_rl.studies import STUDIES

    return STUDIES


def reproduce(arguments) -> int:
    """The command `reproduce`."""
    from fedjax_rl.saving import results

    study, chosen, preset = study_of(arguments)
    check_devices(arguments.devices)
    check_out(arguments.out)
    config = {
        "command": "reproduce",
        "study": study.name,
        "figures": chosen,
        "scale": arguments.scale,
        "preset": preset,
        "devices": arguments.devices,
        "versions": results.versions(),
    }
    prepare(arguments.devices)
    _check_devices(arguments.devices)
    stem = f"{arguments.study.replace(':', '-').replace(',', '-')}-{arguments.scale}"
    out = results.claim(arguments.out or free(stem), config)
    with held(out), interruptible(lambda: out), keeping(arguments.cache):
        carry_out(config, out)
    return 0


def study_of(arguments) -> tuple[Any, list[str], str]:
    """The study, the figures and the preset that a line names.

    Raises:
      ValueError: an unknown name.
    """
    from fedjax_rl.names import check_known

    known = studies()
    name, colon, figures = arguments.study.partition(":")
    check_known(name, known, "study")
    study = known[name]
    usual = [figure for figure in study.figures if figure not in study.only_named]
    chosen = _named(figures, study.figures) if colon else usual
    for figure in chosen:
        check_known(figure, study.figures, f"figure of {name}")
    preset = arguments.preset or study.presets[0]
    check_known(preset, study.presets, f"preset of {name}")
    return study, list(dict.fromkeys(chosen)), preset


def _named(words: str, known) -> list[str]:
    """The figures of a list such as "fig4,fig5", "4.5" or "8-13".

    A number stands for the figure of that number, 4.5 and 4-5 for `fig4-5`, and 5 for `fig5a` and
    `fig5b` where there is no `fig5`. Of 8-13 where there is no `fig8-13` it is all from 8 to 13.
    """
    found = []
    for word in words.split(","):
        own = _figures_of(word, known)
        first, dash, last = word.partition("-")
        if own or not (dash and first.isdecimal() and last.isdecimal()):
            found += own or [word]
            continue
        more = int(last) - int(first)
        # Not backwards, and not more figures than there are.
        if 0 <= more <= len(known):
            found += [
                name
                for n in range(int(first), int(last) + 1)
                for name in _figures_of(str(n), known) or [f"fig{n}"]
            ]
        else:
            found.append(word)
    return found


def _figures_of(word: str, known) -> list[str]:
    """The figures that a word stands for; none where it stands for none."""
    for name in (word, f"fig{word}", f"fig{word.replace('.', '-')}"):
        if name in known:
            return [name]
    return [name for name in known if word and re.fullmatch(rf"fig{re.escape(word)}[a-z]", name)]


def _check_devices(devices: int) -> None:
    import jax

    if devices > jax.device_count():
        raise ValueError(f"devices is {devices}; allowed: 1 to {jax.device_count()}")


def carry_out(config: dict, out: pathlib.Path) -> None:
    """Runs what `config` says of a study, from where it stopped, and says what came of it.

    Args:
      config: as of `config.json`.
      out: the directory of the study.
    """
    quiet()
    study = studies()[config["study"]]
    with live() as (progress, _):
        summary = study.run(
            out,
            tuple(config["figures"]),
            scale=config["scale"],
            preset=config["preset"],
            progress=progress,
            devices=config["devices"],
        )
    _verdicts(summary, out)


_COLOURS = {"reproduced": "green", "not reproduced": "red"}


def _verdicts(summary: dict, out: pathlib.Path) -> None:
    """The table of published against measured, each verdict with a symbol and a word."""
    from rich.table import Table

    from fedjax_rl.analysis.verdict import MARKS, VERDICTS

    title = f"{summary['study']}, scale {summary['scale']}, preset {summary['preset']}"
    table = Table(title=title)
    columns = {
        "published": number,
        "reference": number,
        "measured": number,
        "interval": str,
        "runs": _runs,
        "band": str,
    }
    for name in ("id", "figure", "quantity", *columns):
        table.add_column(name)
    table.add_column("verdict", no_wrap=True)
    table.add_column("note")
    for target in summary["targets"]:
        cells = {
            **target,
            "interval": _interval(target["low"], target["high"]),
            "band": _band(target["band"]),
        }
        table.add_row(
            *(target[name] for name in ("id", "figure", "quantity")),
            *(show(cells.get(name)) for name, show in columns.items()),
            f"[{_COLOURS.get(target['verdict'], 'yellow')}]{MARKS[target['verdict']]} "
            + target["verdict"],
            note({**target, "why": ""} if target["verdict"] == "reproduced" else target),
        )
    print_table(table)
    verdicts = [target["verdict"] for target in summary["targets"]]
    counts = [f"{verdicts.count(v)} {v}" for v in reversed(VERDICTS) if v in verdicts]
    print(f"of {len(verdicts)} claims: {', '.join(counts) or 'none'}")
    print("the exit code does not depend on the verdicts")
    pictures = sorted(str(p.relative_to(out)) for p in out.rglob("*.png"))
    print(f"saved in {out}: {', '.join(['summary.json', *pictures])}")


def note(target: dict) -> str:
    """What would decide, or what would run it and how long, and what explains the verdict.

    Args:
      target: a line of `summary.json`.
    """
    parts = [target.get("note", "")]
    if target["verdict"] == "not run" and "command" in target:
        parts.append(f"{target['command']} takes {duration(target.get('cost', 0.0))}")
    parts += [target.get("corrected", ""), target.get("why", "")]
    return "; ".join(part for part in parts if part)


def duration(seconds: float) -> str:
    """Such as "40 s", "12 min" or "3.5 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _runs(value) -> str:
    each = value if isinstance(value, list) else [value]
    return number(value if len(set(each)) > 1 else each[0])


def _interval(low, high) -> str:
    pairs = list(zip(low, high, strict=True)) if isinstance(low, list) else [(low, high)]
    if all(pair == (None, None) for pair in pairs):
        return "-"
    return ", ".join(_band(pair, "-") for pair in pairs)


def _band(band, missing: str = "") -> str:
    if band and isinstance(band[0], list | tuple):
        return ", ".join(_band(b, missing) for b in band)
    low, high = band
    if low is None and high is None:
        return missing
    if low is None:
        return f"≤ {number(high)}"
    if high is None:
        return f"≥ {number(low)}"
    return f"[{number(low)}, {number(high)}]"
