"""The address of the repository, which stands in pyproject.toml, wherever else it is needed.

    python docs/address.py                                  writes it anew everywhere
    python docs/address.py https://github.com/OWNER/NAME    it is this one from now on

Until there is one that answers (`published` in pyproject.toml), README and citation say what works
in a checkout and lead nowhere else.
"""

from __future__ import annotations

import pathlib
import re
import sys
import tomllib

ROOT = pathlib.Path(__file__).parent.parent
BEGIN, END = "<!-- What follows is made by docs/address.py -->", "<!-- Made until here -->"
COLAB = "https://colab.research.google.com"
BADGE = f"{COLAB}/assets/colab-badge.svg"
# Where it may stand; nothing that was built or is hidden, but the templates.
FOLDERS = ("docs", "notebooks", "fedjax_rl", "benchmarks", "tests", "figures", ".github")
KINDS = (".md", ".py", ".ipynb", ".toml", ".cff", ".yml", ".sh")


def address() -> str:
    """Where the repository is, or will be."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Source"]


def published() -> bool:
    """Whether anybody answers there."""
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    return tools["fedjax_rl"]["published"]


def files() -> list[pathlib.Path]:
    """Texts in which the address may stand."""
    found = [path for path in ROOT.iterdir() if path.is_file() and path.suffix in KINDS]
    for folder in FOLDERS:
        found += [path for path in (ROOT / folder).rglob("*") if path.suffix in KINDS]
    return sorted(found)


def notebooks() -> dict[str, str]:
    """What each notebook asks: name -> its title."""
    found = {}
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        source = path.with_suffix(".py").read_text()
        found[path.name] = re.search(r"^# # (.+)$", source, re.M)[1]
    return found


def where(place: str, answers: bool) -> str:
    """What the README says of how to get it, and of the notebooks."""
    lines = []
    if answers:
        lines = [f"`pip install fedjax-rl`, or in a checkout (`git clone {place}`)"]
    else:
        lines = ["It is not on a package index yet: everything here works in a checkout"]
    lines = [f"{lines[0]}, with Python 3.11 or", "later. Notebooks, each of one question:", ""]
    for name, title in notebooks().items():
        line = f"* [{title}](notebooks/{name})"
        if answers:
            path = f"{place.removeprefix('https://github.com')}/blob/main/notebooks/{name}"
            line += f" [![Open In Colab]({BADGE})]({COLAB}/github{path})"
        lines.append(line)
    return "\n".join([*lines, ""])


def readme(text: str, place: str, answers: bool) -> str:
    """The README with what is made in its place."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{where(place, answers)}{END}{rest.split(END)[1]}"


def citation(text: str, place: str, answers: bool) -> str:
    """The citation, with the address once it answers."""
    text = re.sub(r"^repository-code: .*\n", "", text, flags=re.M)
    line = f"repository-code: {place}\n" if answers else ""
    return text.replace("references:\n", f"{line}references:\n")


def main(given: list[str]) -> None:
    """Writes the address everywhere, a new one where it is given."""
    old = address().removeprefix("https://github.com/")
    if given:
        if not re.fullmatch(r"https://github\.com/[\w-]+/[\w.-]+", given[0]):
            sys.exit(f"address is {given[0]}; allowed: https://github.com/OWNER/NAME")
        new = given[0].removeprefix("https://github.com/")
        for path in files():
            text = path.read_text()
            moved = text.replace(f"/{old}", f"/{new}")  # of pages, raw files and Colab alike
            if path.name == "pyproject.toml":
                moved = moved.replace("published = false", "published = true")
            if moved != text:
                path.write_text(moved)
    for name, write in (("README.md", readme), ("CITATION.cff", citation)):
        path = ROOT / name
        path.write_text(write(path.read_text(), address(), published()))


if __name__ == "__main__":
    main(sys.argv[1:])
