"""Writes what was measured into the README of the benchmarks and that of the package.

    python benchmarks/measured.py

Everything is read from `results/*.json`, which `run.py CASE --json FILE` writes; nothing is
measured here. What a case says of its limits is in its file, `cases/CASE.py`.
"""

from __future__ import annotations

import json
import pathlib
import textwrap
from collections.abc import Iterator

import cases

HERE = pathlib.Path(__file__).parent
READMES = HERE / "README.md", HERE.parent / "README.md"
BEGIN = "<!-- What follows is made by benchmarks/measured.py -->"
END = "<!-- What benchmarks/measured.py makes ends here -->"
TITLES = {
    "fedq": "Federated Q-learning",
    "brax": "Physics",
    "clock": "Clocks",
    "commands": "Commands from a cold start, and once more",
    "differentiate": "Derivatives",
    "episodes": "Loops of episodes",
    "es": "Evolution strategies",
    "gradients": "Policy gradients on tables",
    "ppo": "Proximal policy optimisation",
    "procgen": "Games with pictures",
    "returns": "What PPO learns",
    "scaling": "Scaling",
    "uplinks": "Uplinks",
}
# Peers of the README's table on Q-learning, and what they are called there.
PEERS = {
    "numba": "numba, scalar loop",
    "numpy": "NumPy over agents",
    "naive_jax": "JAX as one first writes it",
}


def saved() -> dict[str, dict]:
    """The results by the name of their file, in the order of the cases."""
    found = {path.stem: json.loads(path.read_text()) for path in (HERE / "results").glob("*.json")}
    order = {name: place for place, name in enumerate(cases.NAMES)}
    return dict(sorted(found.items(), key=lambda item: (order.get(item[1]["case"], 99), item[0])))


def tables(content, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], list[dict]]]:
    """The tables of a result, wherever they stand in it: where, and rows."""
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


def table(rows: list[dict], subject: str | None = None) -> list[str]:
    """Rows of a benchmark as a table, with few cases side by side and many below each other.

    Args:
      rows: as `harness.rows` makes them, with or without cases.
      subject: the row whose ratios to the others stand in brackets; the first one by default.
    """
    first = next((row for row in rows if row["name"] == subject), rows[0])
    rows = [first, *(row for row in rows if row is not first)]
    cases = list(first.get("cases") or ["median"])
    cells = {(row["name"], case): _cell(row, case, first) for row in rows for case in cases}
    names = [row["name"] for row in rows]
    if len(cases) > 4:  # lines of a page are longer than they are wide
        return _lines(names, cases, lambda case, name: cells[name, case])
    return _lines(cases, names, lambda name, case: cells[name, case])


def _lines(columns: list[str], lines: list[str], cell) -> list[str]:
    each = (f"| {line} | {' | '.join(cell(line, one) for one in columns)} |" for line in lines)
    return [f"| | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}", *each]


def _cell(row: dict, case: str, first: dict) -> str:
    own, top = (one["cases"].get(case) if one.get("cases") else one for one in (row, first))
    ratio = None if row is first else ((top or {}).get("ratio") or {}).get(row["name"])
    if own is None:
        return ""
    return rate(own["median"]) + (f" ({ratio:.2g})" if ratio else "")


def targets(content: dict) -> list[str]:
    """What numbers should come to, and whether they do; nothing where nothing should."""
    known = content.get("targets") or []
    if not known:
        return []
    lines = ["| | measured | limit | |", "|---|---|---|---|"]
    for one in known:
        met = "met" if one["met"] else "**not met**"
        least = (one["measured"] >= one["limit"]) == one["met"]
        limit = f"{'≥' if least else '≤'} {one['limit']:.3g}"
        lines.append(f"| {one['id']} | {one['measured']:.3g} | {limit} | {met} |")
    return lines


def section(content: dict, level: int) -> str:
    """What was measured in a case: device, tables, limits and what is to be said of them.

    Args:
      content: of a JSON file.
      level: of the heading.
    """
    name = content["case"]
    own = cases.case(name) if name in cases.NAMES else None
    versions = content["versions"]
    told = ", ".join(f"{n} {versions[n]}" for n in ("python", "jax", "numpy") if n in versions)
    parts = [
        f"{'#' * level} {TITLES.get(name, name)}",
        f"`{name}` on {content['device']}; {told}.",
    ]
    for place, rows in tables(content):
        said = [", ".join(place)] if place != ("rows",) else []
        said += [rows[0]["unit"]] if rows[0].get("unit") else []
        subject = own.subject if own and place == ("rows",) else None
        parts += [f"*{': '.join(said)}*" if said else "", "\n".join(table(rows, subject))]
    parts += ["\n".join(targets(content)), own.note if own else ""]
    return "\n\n".join(part for part in parts if part)


def measured(level: int = 3) -> str:
    """All results, under headings of a level."""
    return "\n\n".join(section(one, level) for one in saved().values() if any(tables(one)))


def speed() -> str:
    """What the README of the package says of speed."""
    found = {content["case"]: content for content in saved().values()}
    fedq = found["fedq"]
    rows = {row["name"]: row for row in fedq["rows"]}
    own = rows["fedjax_rl"]["cases"]
    device, repeats = fedq["device"].removeprefix("cpu: "), fedq["repeats"]
    lines = [
        f"Millions of agent-steps per core-second on {device}, medians of {repeats} interleaved",
        "repetitions; in brackets, how many times as fast `fedjax_rl` is:",
        "",
        f"| case | fedjax_rl | {' | '.join(PEERS.values())} |",
        f"|---|---|{'---|' * len(PEERS)}",
    ]
    for case, made in own.items():
        cells = [f"{made['median'] / 1e6:.0f}"]
        for peer in PEERS:
            other = rows[peer]["cases"][case]["median"]
            ratio = made["ratio"][peer]
            cells.append(f"{_few(other / 1e6)} ({_few(ratio)})")
        lines.append(f"| {case} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", _others(found)])


def _others(found: dict[str, dict]) -> str:
    """One sentence on everything else."""

    def ratios(case: str, row: str, peer: str) -> list[float]:
        own = next(one for one in found[case]["rows"] if one["name"] == row)
        return [of["ratio"][peer] for of in own["cases"].values()]

    def span(values: list[float]) -> str:
        low, high = _few(min(values)), _few(max(values))
        return low if low == high else f"{low} to {high}"

    told = [
        ("evolution strategies", "evosax", ratios("es", "fedjax_rl", "evosax")),
        (
            "policy gradients on tables",
            "NumPy with all federations in one array",
            ratios("gradients", "fedjax_rl", "numpy_joined"),
        ),
        ("PPO", "rejax", ratios("ppo", "fedjax_rl", "rejax")),
        ("five bodies of brax", "brax's own step", ratios("brax", "fedjax_rl", "brax")),
        (
            "BigFish and CoinRun with pictures",
            "the original in C++",
            ratios("procgen", "pixels, 64 copies", "original"),
        ),
        ("the games without pictures", "that", ratios("procgen", "rules, 64 copies", "original")),
    ]
    each = [f"{what} {span(values)} times as fast as {peer}" for what, peer, values in told]
    rest = "[all of it, with its conditions](benchmarks/README.md#measured)"
    text = f"Per core, {', '.join(each)}: {rest}."
    return textwrap.fill(text, 110, break_long_words=False, break_on_hyphens=False)


def _few(value: float) -> str:
    """Two digits, and never an exponent."""
    return f"{value:.0f}" if value >= 9.95 else f"{value:.2g}"


def written(text: str, made: str) -> str:
    """A page with what is made in its place.

    Raises:
      ValueError: the page has no place for it.
    """
    head, found, rest = text.partition(BEGIN)
    _, ended, tail = rest.partition(END)
    if not found or not ended:
        raise ValueError(f"a page without {BEGIN} and {END}; allowed: one that has both")
    return f"{head}{BEGIN}\n{made}\n{END}{tail}"


def pages() -> dict[pathlib.Path, str]:
    """What the pages should be."""
    made = zip(READMES, (measured(), speed()), strict=True)
    return {path: written(path.read_text(), text) for path, text in made}


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text)
