"""What is published: one address, one version, and files that run nobody's code."""

import ast
import pathlib
import re
import shutil
import sys
import tomllib

import pytest
from pages import DOCS

import fedjax_rl as frl

sys.path.append(str(DOCS))
import address

ROOT = DOCS.parent
PACKAGE = pathlib.Path(frl.__file__).parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_the_address_is_one():
    place = address.address()
    for path in address.files():
        found = set(re.findall(r"https://github\.com/[\w-]+/fedjax_rl", path.read_text()))
        assert found <= {place}, path
    assert all(url.startswith(place) for url in PROJECT["project"]["urls"].values())


def test_readme_and_citation_lead_to_what_answers():
    place, answers = address.address(), address.published()
    readme, citation = ((ROOT / name).read_text() for name in ("README.md", "CITATION.cff"))
    assert address.readme(readme, place, answers) == readme
    assert address.citation(citation, place, answers) == citation
    assert (place.removeprefix("https://") in readme) == answers


def test_another_address_is_written_everywhere(tmp_path, monkeypatch):
    for name in ("pyproject.toml", "README.md", "CITATION.cff"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    old = address.address().removeprefix("https://github.com/")
    monkeypatch.setattr(address, "ROOT", tmp_path)
    address.main(["https://github.com/else/where"])
    assert address.published()
    readme = (tmp_path / "README.md").read_text()
    assert "git clone https://github.com/else/where" in readme
    name = next(iter(address.notebooks()))
    assert f"{address.COLAB}/github/else/where/blob/main/notebooks/{name}" in readme
    assert (
        "repository-code: https://github.com/else/where\n"
        in (tmp_path / "CITATION.cff").read_text()
    )
    assert [p for p in address.files() if f"/{old}/" in p.read_text()] == []
    with pytest.raises(SystemExit, match="address is nowhere; allowed: https:"):
        address.main(["nowhere"])


def test_nothing_of_a_file_is_executed():
    """As SECURITY.md has it: what could run code from data is not even imported."""
    banned = {"pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib"}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names = {(node.module or "").partition(".")[0]}
            elif isinstance(node, ast.Call):
                called = node.func.id if isinstance(node.func, ast.Name) else ""
                assert called not in ("eval", "exec", "compile"), path
                assert all(word.arg != "allow_pickle" for word in node.keywords), path
                continue
            else:
                continue
            assert not names & banned, path


def test_the_archive_has_what_its_tests_read():
    taken = PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    for name in ("docs", "figures", "benchmarks", "notebooks", "tests", ".ci", "mkdocs.yml"):
        assert f"/{name}" in taken
        assert (ROOT / name).exists()
    assert (PACKAGE / "py.typed").exists()
