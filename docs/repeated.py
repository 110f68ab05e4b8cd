"""Pages of the site that repeat what stands elsewhere in the repository: gallery, speed, rules."""

from __future__ import annotations

import pathlib
import re
import sys

import address

ROOT = pathlib.Path(__file__).parent.parent
sys.path.append(str(ROOT / "benchmarks"))
import measured  # noqa: E402

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


def speed() -> str:
    """The page on speed, from what benchmarks have saved."""
    return f"{SPEED}\n\n{measured.measured(level=2)}\n"


def made() -> dict[str, str]:
    """The pages, by their place in the site."""
    found = {name: page(path) for path, name in REPEATED.items() if (ROOT / path).exists()}
    return {**found, "speed.md": speed()}


SPEED = """# Speed

Medians of repetitions that take turns in one run, per second of the process's CPU time, so that a
row that uses a second core pays for it; in brackets, how many times as fast the first row is. What
the rows are, and how to measure your own machine, is in [Benchmarks](benchmarks.md):
`python benchmarks/run.py all`.

What to take from it: a step of federated Q-learning takes 2.4 ns, about 1 ns of it random numbers;
the ledger and the exchange cost 3 % of the bare kernel at most; the 3702 runs of a paper's two
grids, 24 further MDPs and all pictures take a minute and a half on two cores from a cold start."""
