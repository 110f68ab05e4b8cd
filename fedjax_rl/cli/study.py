"""`reproduce`: published figures, and the verdicts on their values."""

from __future__ import annotations

import inspect
import pathlib
from typing import Any

from fedjax_rl.cli.config import check_devices, check_out
from fedjax_rl.cli.process import free, held, interruptible, keeping, prepare, quiet
from fedjax_rl.cli.report import live, number, print_table


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
    _check_devices(study, arguments.devices)
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
    """The figures of a list such as "fig4,fig5" or "8-13"; a number 8 stands for `fig8`."""
    found = []
    for word in words.split(","):
        first, dash, last = word.partition("-")
        plain = first.isdecimal() and (not dash or last.isdecimal())
        more = int(last or first) - int(first) if plain else -1
        # Not backwards, and not more figures than there are.
        if word in known or not 0 <= more <= len(known):
            found.append(word)
        else:
            found += [f"fig{n}" for n in range(int(first), int(last or first) + 1)]
    return found


def _check_devices(study, devices: int) -> None:
    import jax

    if devices > 1 and "devices" not in inspect.signature(study.run).parameters:
        raise ValueError(f"devices is {devices}; allowed: 1 with {study.name}")
    if devices > jax.device_count():
        raise ValueError(f"devices is {devices}; allowed: 1 to {jax.device_count()}")


def carry_out(config: dict, out: pathlib.Path) -> None:
    """Runs what `config` says of a study, from where it stopped, and says what came of it."""
    from fedjax_rl.saving import results

    quiet()
    study = studies()[config["study"]]
    more = {"devices": config["devices"]} if config["devices"] > 1 else {}
    with live() as (progress, _):
        summary = study.run(
            out,
            tuple(config["figures"]),
            scale=config["scale"],
            preset=config["preset"],
            progress=progress,
            **more,
        )
    if results.read_sealed(out / "summary.json") is None:
        results.write_sealed(out / "summary.json", summary)
    _verdicts(summary, out)


def _verdicts(summary: dict, out: pathlib.Path) -> None:
    """The table of published against measured, each verdict with a symbol and a word."""
    from rich.table import Table

    marks = {
        "reproduced": "[green]✓ reproduced",
        "not reproduced": "[red]✗ not reproduced",
        "not run": "[yellow]○ not run",
    }
    title = f"{summary['study']}, scale {summary['scale']}, preset {summary['preset']}"
    table = Table(title=title)
    for name in ("id", "figure", "quantity", "published", "measured", "interval", "band"):
        table.add_column(name)
    table.add_column("verdict", no_wrap=True)
    for target in summary["targets"]:
        low, high = target["low"], target["high"]
        missing = low is None or high is None
        pairs = zip(low, high, strict=True) if isinstance(low, list) else [(low, high)]
        table.add_row(
            target["id"],
            target["figure"],
            target["quantity"],
            number(target["published"]),
            number(target["measured"]),
            "-" if missing else ", ".join(_band(pair, "-") for pair in pairs),
            _band(target["band"]),
            marks.get(target["verdict"], target["verdict"]),
        )
    print_table(table)
    verdicts = [target["verdict"] for target in summary["targets"]]
    counts = [f"{verdicts.count(v)} {v}" for v in marks if v in verdicts]
    print(f"of {len(verdicts)} targets: {', '.join(counts) or 'none'}")
    print("the exit code does not depend on the verdicts")
    pictures = sorted(str(p.relative_to(out)) for p in out.rglob("*.png"))
    print(f"saved in {out}: {', '.join(['summary.json', *pictures])}")


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
