"""The site: every algorithm and every public name has its place, and what pages show runs."""

import contextlib
import re
import shlex
import sys

import pytest
from pages import DOCS

import fedjax_rl as frl
from fedjax_rl.algorithms import ALGORITHMS
from fedjax_rl.cli import parse

sys.path.append(str(DOCS))
import algorithm_pages

PAGES = sorted(path for path in DOCS.rglob("*.md") if path.name != "equations.md")
# What only runs in a cluster is marked as of elsewhere.
BLOCK = re.compile(
    r"(?<!<!-- elsewhere -->\n)(?:<!-- raises: (.+?) -->\n)?^( *)```(python|bash)\n(.*?)^\2```",
    re.M | re.S,
)


def blocks(path, language):
    """Code of a page: what it has to raise, and its lines."""
    found = BLOCK.findall(path.read_text())
    return [
        (said, re.sub(rf"^{indent}", "", code, flags=re.M))
        for said, indent, kind, code in found
        if kind == language
    ]


def named(path):
    return path.relative_to(DOCS).as_posix()


@pytest.mark.thorough
@pytest.mark.parametrize("path", [p for p in PAGES if blocks(p, "python")], ids=named)
def test_the_code_of_a_page_runs(path, tmp_path):
    names = {"__name__": "page"}
    with contextlib.chdir(tmp_path):
        for said, code in blocks(path, "python"):
            refused = contextlib.nullcontext()
            if said:
                refused = pytest.raises((ValueError, OSError), match=re.escape(said))
            with refused:
                exec(compile(code, named(path), "exec"), names)


def commands():
    for path in PAGES:
        for _, code in blocks(path, "bash"):
            lines = code.replace("\\\n", " ").splitlines()
            yield from (line for line in lines if line.startswith("fedjax-rl "))


@pytest.mark.parametrize("line", sorted(set(commands())))
def test_a_command_of_a_page_is_understood(line, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    code, arguments = parse.read(shlex.split(line, comments=True)[1:])
    assert code == 0
    assert arguments is not None


def test_every_algorithm_has_a_page_with_its_formulas():
    listed = [name for names in algorithm_pages.FAMILIES.values() for name in names]
    assert sorted(listed) == sorted(ALGORITHMS)
    for name in ALGORITHMS:
        module = ALGORITHMS[name].make.__module__
        text = algorithm_pages.prose(module)
        assert "$$" in text, name
    homes = {entry.make.__module__.rpartition(".")[2] for entry in ALGORITHMS.values()}
    assert homes == set(algorithm_pages.equations())


def test_the_page_of_an_algorithm_says_what_it_declares():
    page = algorithm_pages.page("fedpg")
    for name in (
        "`local_steps`",
        "`optimizer.momentum`",
        "`gap`",
        "`dirichlet-mdps`",
        "asynchronous",
    ):
        assert name in page, name
    assert "finite and above 0, or None" in page  # of learning_rate
    assert "| `learning_rate` | refused | given the data |" not in algorithm_pages.page("fedq")


def test_every_public_name_is_in_the_reference():
    text = "\n".join(path.read_text() for path in (DOCS / "api").glob("*.md"))
    told = {name.rpartition(".")[2] for name in re.findall(r"^::: (\S+)", text, re.M)}
    made = {entry.make.__name__ for entry in ALGORITHMS.values()}  # which have pages of their own
    assert set(frl.__all__) - made <= told


def test_pictures_are_there_in_light_and_in_dark():
    for path in PAGES:
        for target in re.findall(r"\((\S+assets/\S+?)-(?:light|dark)\.svg#only", path.read_text()):
            for mode in ("light", "dark"):
                assert (path.parent / f"{target}-{mode}.svg").exists(), (named(path), target)
