"""A page for every algorithm, made from what it declares and from what its program takes."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import pathlib
import re

import make

import fedjax_rl as frl
from fedjax_rl.algorithms import ALGORITHMS
from fedjax_rl.fields import described
from fedjax_rl.presets import table as presets

HERE = pathlib.Path(__file__).parent
FAMILIES = {
    "Tables and linear values": [
        "fedq",
        "fedtd",
        "dql",
        "ebcdql",
        "davia",
        "ef-td",
        "qavg",
        "pavg",
    ],
    "Evolution strategies": ["es", "espc", "iw-es", "ns-es", "nsr-es", "nsra-es"],
    "Policy gradients, one step a round": ["reinforce", "lapg"],
    "Policy gradients with local steps": [
        *("fedpg", "scaffold-pg", "fedprox-pg", "fedavgm-pg", "fedadam-pg", "fast-fedpg"),
        *("fedsvrpg-m", "fedhapg-m", "fedapg"),
    ],
    "At every arrival": ["afedpg", "a3c-pg", "a3c"],
    "Deep networks": ["fedppo", "feda2c", "feddqn"],
}
KINDS = {
    "mdp": "tabular MDPs and families of them",
    "tabular": "tasks around tables",
    "grid": "grid worlds",
    "task": "gymnax, brax, Procgen, `lqr` and tasks of your own",
}
GOES = {
    "agent": "traced, per agent",
    "federation": "traced",
    "word": "traced",
    "switch": "traced",
    "shared": "traced, shared",
    "static": "compiled",
    "host": "before the program",
    "engine": "the engine",
}
# Where it is asked which defaults follow from the environment.
PLACES = (
    "paper-mdp",
    "dirichlet-mdps",
    "simple-grid",
    "CartPole-v1",
    "gymnax/Pendulum-v1",
    "BigFish",
)
NEEDED = {"probabilistic": {"target": 1}, "top-k": {"k": 1}}


@functools.cache
def _place(name: str):
    return frl.envs.make(name)


def _cell(text: object) -> str:
    """Text within a table."""
    return str(text).replace("|", "\\|").replace("\n", " ").replace("<-", "←")


def _table(head: list[str], rows: list[list]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines) + "\n"


def _family(module: str) -> str:
    return module.rpartition(".")[2]


@functools.cache
def equations() -> dict[str, list[str]]:
    """Formulas by the module whose they are."""
    parts = re.split(r"^## (\w+)\n", (HERE / "equations.md").read_text(), flags=re.M)[1:]
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return {
        name: re.findall(r"\$\$.*?\$\$[^$]*(?:\$[^$]+\$[^$]*)*", text, re.S) for name, text in pairs
    }


def prose(module: str) -> str:
    """What a module says of its algorithms, with formulas set."""
    text = inspect.getdoc(importlib.import_module(module)) or ""
    left = [block.strip() for block in equations().get(_family(module), [])]
    parts = []
    for part in text.split("\n\n"):
        if part.startswith("    ") and left:
            parts.append(left.pop(0))
        else:
            parts.append(part)
    # The title of the page stands in for the first line.
    head, *rest = parts[1:] if len(parts) > 1 else parts
    return "\n\n".join([head, *left, *rest])


def shown_value(value) -> str:
    """A default as it is typed."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return type(value).__name__
    if isinstance(value, float) and value != 0 and abs(value) < 1e-3:
        return f"{value:g}"
    return repr(value)


def properties(name: str) -> str:
    """Every property: default, what is allowed, where it goes, what it is."""
    make_it = ALGORITHMS[name].make
    kind, signature = make_it.definition.record, inspect.signature(make_it)
    texts, rows = described.documentation(kind), []
    for field in described.in_order(kind):
        default = signature.parameters[field.name].default
        given = "given first" if field.metadata.get("environment") else ""
        if not given:
            given = "" if default is inspect.Parameter.empty else f"`{shown_value(default)}`"
        inner = field.metadata.get("record")
        rows.append([f"`{field.name}`", given, *_declared(field), texts.get(field.name, "")])
        if inner is None:
            continue
        own = described.documentation(inner)
        for part in dataclasses.fields(inner):
            value = getattr(default, part.name, part.default)
            missing = value is dataclasses.MISSING or value is inspect.Parameter.empty
            cell = "" if missing else f"`{shown_value(value)}`"
            rows.append(
                [f"`{field.name}.{part.name}`", cell, *_declared(part), own.get(part.name, "")]
            )
    table = _table(["property", "default", "allowed", "what it is"], rows)
    # In a box of its own: on a phone a row is four lines (assets/site.css).
    return f'<div class="properties" markdown>\n\n{table}\n</div>\n'


def _declared(field) -> list[str]:
    allowed = field.metadata.get("allowed")
    text = "" if allowed is None else allowed.text
    if allowed is not None and allowed.optional and "None" not in text:
        text += ", or None"
    goes = GOES.get(field.metadata.get("by"), "")
    return [f"{text}; *{goes}*" if goes else text]


def resolved(name: str) -> str:
    """Defaults that follow from the environment, by environment."""
    found: dict[str, dict] = {}
    for place in PLACES:
        try:
            config = ALGORITHMS[name].make(_place(place)).config
        except ValueError:
            continue
        own = config.resolved()
        found[place] = {
            f.name: _short(getattr(own, f.name))
            for f in dataclasses.fields(config)
            if not f.metadata.get("environment")
            and _short(getattr(config, f.name)) != _short(getattr(own, f.name))
        }
    names = list(dict.fromkeys(n for own in found.values() for n in own))
    if not names:
        return ""
    rows = [[f"`{place}`", *(own.get(n, "") for n in names)] for place, own in found.items()]
    head = ["environment", *(f"`{n}`" for n in names)]
    return "\n## Defaults that follow from the environment\n\n" + _table(head, rows)


def _short(value) -> str:
    if dataclasses.is_dataclass(value):
        told = ", ".join(
            f"{f.name} {shown_value(getattr(value, f.name))}" for f in dataclasses.fields(value)
        )
        return told
    return f"`{shown_value(value)}`"


def fits(name: str) -> str:
    """Which uplinks and clocks it takes, as found by asking."""
    algorithm = make.shown(name)[1]
    refused, taken = {}, []
    for known, uplink in frl.uplinks.UPLINKS.items():
        try:
            algorithm.replace(uplink=uplink(**NEEDED.get(known, {})))
            taken.append(f"`{known}`")
        except ValueError as error:
            refused[str(error).partition("allowed: ")[2]] = known
    lines = [
        f"**Uplinks**: {', '.join(taken)}." if taken else f"**Uplinks**: {'; '.join(refused)}."
    ]
    taken, refused = [], {}
    for scheduler in ("synchronous", "semi-synchronous", "asynchronous"):
        more = {"wait_for": 2} if scheduler == "semi-synchronous" else {}
        try:
            algorithm.replace(clock=frl.Clock(scheduler, **more))
            taken.append(scheduler)
        except ValueError as error:
            refused[str(error)] = scheduler
    told = f"**Clocks**: {', '.join(taken) or 'none'}."
    if refused:
        told += f' Refused otherwise: "{_cell(next(iter(refused)))}".'
    return "\n\n".join([*lines, told, ""])


@functools.cache
def _costs() -> dict[str, list[str]]:
    """Rows of the page on scale, which is made from the programs."""
    found = {}
    for line in (HERE / "scale.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] in ALGORITHMS and len(cells) == 8:
            found[cells[0]] = cells[1:]
    return found


def costs(name: str) -> str:
    """What a round costs an agent."""
    where, state, work, up, down, exchanges, updates = _costs()[name]
    kept = f"{state} bytes of state" + (f", {work} with all work" if work else "")
    return (
        f"With its defaults on `{where}`, where numbers have 4 bytes, an agent sends {up} bytes a "
        f"round and hears {down} ({_floats(up)} and {_floats(down)} floats), in {exchanges} "
        f"exchange{'s' * (exchanges != '1')}. It keeps {kept}, and makes {updates} updates one "
        "after the other. [What scale costs](../scale.md) has all algorithms beside each other.\n"
    )


def _floats(size: str) -> str:
    number = int(size.replace(",", "")) / 4
    return f"{number:,.0f}" if number == int(number) else f"about {number:,.0f}"


def metrics(name: str) -> str:
    """What is recorded."""
    algorithm = make.shown(name)[1]
    rows = [[f"`{n}`", axis, text] for n, (axis, text) in algorithm.metrics.items()]
    told = f"Time counts {algorithm.unit}s; `{algorithm.headline}` tells at a glance.\n\n"
    return told + _table(["metric", "per", "what it is"], rows)


def tuned(name: str) -> str:
    """Settings that are tuned, and what they reach."""
    rows = []
    for one in presets.entries():
        if one.algorithm == name:
            there = one.reached
            got = "" if there is None else f"{there.mean:.4g} [{there.low:.4g}, {there.high:.4g}]"
            start = "" if there is None else f"{there.start:.4g}"
            rows.append([f"`{one.environment}`", start, got, f"`{one.command}`"])
    if not rows:
        return ""
    head = ["environment", "return at first", "reached, 95 % interval", "command"]
    return "\n## Tuned settings\n\n" + _table(head, rows)


def picture(name: str) -> str:
    """The picture of a small run, where there is one."""
    stem = f"assets/algorithms/{name}"
    if not (HERE / f"{stem}-dark.svg").exists():  # drawn last
        return ""
    text = f"A small run of {name}"
    return (
        f"\n![{text}](../{stem}-light.svg#only-light){{ .run }}"
        f"![{text}](../{stem}-dark.svg#only-dark){{ .run }}\n"
    )


def first_line(name: str) -> str:
    """What it is, in one line."""
    return (inspect.getdoc(ALGORITHMS[name].make) or name).splitlines()[0]


def example(name: str) -> str:
    """The example of its docstring."""
    text = inspect.getdoc(ALGORITHMS[name].make) or ""
    lines = re.findall(r"^ *(?:>>>|\.\.\.) ?(.*)$", text, re.M)
    return "```python\n" + "\n".join(lines) + "\n```\n" if lines else ""


def derivatives(name: str) -> str:
    """What a derivative is worth."""
    return make.table(name).partition("\n\n")[2].strip()


def page(name: str) -> str:
    """The page of an algorithm."""
    entry = ALGORITHMS[name]
    where = "; ".join(KINDS[kind] for kind in KINDS if kind in entry.environments)
    public = entry.make.definition.home.rpartition(":")[2]
    return f"""# {name}

{first_line(name)}

`frl.{public}`, on the command line `fedjax-rl run {name} ENVIRONMENT`. Runs on {where}.
{picture(name)}
{example(name)}
## What it does

{prose(entry.make.__module__)}

## Properties

*Traced* properties are swept in one compilation, per agent where it says so; every other value of
what is *compiled* is another compilation. A list sweeps, see [Sweep](../concepts/sweep.md).

{properties(name)}{resolved(name)}{tuned(name)}
## What is measured

{metrics(name)}
## Who is heard, and when

{fits(name)}
## What a round costs

{costs(name)}
## What a derivative is worth

{derivatives(name)}

[What the words mean](../derivatives.md).
"""


def index() -> str:
    """All algorithms in a table."""
    lines = ["# Algorithms", ""]
    lines += [
        "Which one? See [Choose an algorithm](../how-to/choose.md). Each has a page, made from the",
        "code.",
        "",
    ]
    for head, names in FAMILIES.items():
        rows = [
            [f"[{n}]({n}.md)", first_line(n), ", ".join(ALGORITHMS[n].environments)] for n in names
        ]
        lines += [f"## {head}", "", _table(["algorithm", "", "environments"], rows)]
    return "\n".join(lines)


def made() -> dict[str, str]:
    """The pages, by their place in the site."""
    return {"algorithms/index.md": index(), **{f"algorithms/{n}.md": page(n) for n in ALGORITHMS}}
