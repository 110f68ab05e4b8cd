"""Pages of the site that repeat what stands elsewhere in the repository: gallery, speed, rules."""

from __future__ import annotations

import json
import pathlib
import re

import address

ROOT = pathlib.Path(__file__).parent.parent
# Files at the root that are pages of the site, and what they are called there.
REPEATED = {
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "figures/README.md": "gallery.md",
    "benchmarks/README.md": "benchmarks.md",
}
LINK = re.compile(r"(!?\[[^\]]*\])\(([^)#\s]+)(#[^)\s]*)?\)")


def published_address() -> str:
    """Where the repository is, or "" before it answers."""
    return address.address() if address.published() else ""


def pictures() -> dict[str, pathlib.Path]:
    """Pictures of the gallery: their place in the site, and where they are."""
    found = {}
    for path in sorted((ROOT / "figures").rglob("*")):
        if path.suffix in (".png", ".gif") or path.name == "speedup.svg":
            found[path.relative_to(ROOT).as_posix()] = path
    return found


def page(source: str) -> str:
    """A file of the repository as a page: its links lead to pages, or are words in code."""
    folder = (ROOT / source).parent

    def moved(match: re.Match) -> str:
        text, target, anchor = match[1], match[2], match[3] or ""
        if re.match(r"[a-z]+:", target):
            return match[0]
        place = (folder / target).resolve().relative_to(ROOT).as_posix()
        if place.startswith("docs/"):
            return f"{text}({place.removeprefix('docs/')}{anchor})"
        if place in REPEATED:
            return f"{text}({REPEATED[place]}{anchor})"
        if text.startswith("!"):
            return f"{text}({place})"
        name = text[1:-1]
        return name if name == f"`{place}`" or place in name else f"{name} (`{place}`)"

    return LINK.sub(moved, (ROOT / source).read_text())


def tables(content, place: tuple[str, ...] = ()):
    """The tables of a saved benchmark, wherever they stand in it: where, and rows."""
    if isinstance(content, dict):
        for name, inner in content.items():
            yield from tables(inner, (*place, name))
    elif isinstance(content, list) and content and "median" in (content[0] or {}):
        yield place, content


def rate(value: float) -> str:
    """A number with three digits and the unit of thousands or millions."""
    for size, unit in ((1e6, " M"), (1e3, " k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def speed_table(rows: list[dict]) -> list[str]:
    """Rows of a benchmark by case; in brackets, the first row's rate over theirs."""
    first, cases = rows[0], list(rows[0].get("cases", {}))
    if len(cases) > 4:  # lines of a page are longer than they are wide
        return _by_case(rows, cases)
    lines = [f"| | {' | '.join(cases or ['median'])} |", f"|---|{'---|' * max(len(cases), 1)}"]
    for row in rows:
        cells = []
        for case in cases or [None]:
            own, top = (r["cases"].get(case) if cases else r for r in (row, first))
            ratio = ((top or {}).get("ratio") or {}).get(row["name"])
            told = "" if own is None else rate(own["median"])
            cells.append(told + (f" ({ratio:.2g})" if told and ratio else ""))
        lines.append(f"| {row['name']} | {' | '.join(cells)} |")
    return lines


def _by_case(rows: list[dict], cases: list[str]) -> list[str]:
    lines = [f"| | {' | '.join(row['name'] for row in rows)} |", f"|---|{'---|' * len(rows)}"]
    for case in cases:
        own = [row["cases"].get(case) for row in rows]
        ratios = ((own[0] or {}).get("ratio") or {}) | {rows[0]["name"]: None}
        cells = []
        for row, value in zip(rows, own, strict=True):
            told, ratio = "" if value is None else rate(value["median"]), ratios.get(row["name"])
            cells.append(told + (f" ({ratio:.2g})" if told and ratio else ""))
        lines.append(f"| {case} | {' | '.join(cells)} |")
    return lines


def speed() -> str:
    """The page on speed, from what benchmarks have saved."""
    parts = [SPEED]
    paths = (ROOT / "benchmarks" / "results").glob("*.json")
    for path in sorted(paths, key=lambda path: (not path.name.startswith("fedq"), path.name)):
        content = json.loads(path.read_text())
        if not any(True for _ in tables(content)):
            continue
        versions = content["versions"]
        told = ", ".join(f"{n} {versions[n]}" for n in ("python", "jax", "numpy") if n in versions)
        title = TITLES.get(content["case"], content["case"])
        parts += [f"## {title}", f"On {content['device']}; {told} (`{path.name}`)."]
        for place, rows in tables(content):
            title = f"*{', '.join(place)}*: " if place != ("rows",) else ""
            parts += [f"{title}{rows[0].get('unit', '')}.", "\n".join(speed_table(rows))]
    return "\n\n".join(parts) + "\n"


def made() -> dict[str, str]:
    """The pages, by their place in the site."""
    found = {name: page(path) for path, name in REPEATED.items() if (ROOT / path).exists()}
    return {**found, "speed.md": speed()}


TITLES = {
    "fedq": "Federated Q-learning",
    "clock": "Clocks",
    "differentiate": "Derivatives",
    "episodes": "Loops of episodes",
    "es": "Evolution strategies",
    "gradients": "Policy gradients on tables",
    "grids": "A paper from a cold start",
    "ppo": "Proximal policy optimisation",
    "procgen": "Games with pictures",
}
SPEED = """# Speed

Medians of repetitions that take turns in one run, per second of the process's CPU time, so that a
row that uses a second core pays for it; in brackets, how many times as fast the first row is. What
the rows are, and how to measure your own machine, is in [Benchmarks](benchmarks.md):
`python benchmarks/run.py all`.

What to take from it: a step of federated Q-learning takes 2.4 ns, about 1 ns of it random numbers;
the ledger and the exchange cost 3 % of the bare kernel at most; the 3702 runs of a paper's two
grids, 24 further MDPs and all pictures take a minute and a half on two cores from a cold start."""
