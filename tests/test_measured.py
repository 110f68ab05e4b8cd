"""What the pages say of speed follows from what was measured."""

import argparse
import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
sys.path.append(str(ROOT / "benchmarks"))
import cases  # noqa: E402
import measured  # noqa: E402
import run  # noqa: E402
from cases import returns  # noqa: E402


def test_pages_are_made():
    """`python benchmarks/measured.py` makes them."""
    for path, text in measured.pages().items():
        assert path.read_text() == text


def test_a_page_without_a_place_for_it_is_refused():
    with pytest.raises(ValueError, match="allowed: one that has both"):
        measured.written("# Benchmarks", "")


def rows(count):
    names = [f"{n} copies" for n in range(count)]
    ours = {n: {"median": 2e6, "ratio": {"peer": 4.0}} for n in names}
    peers = {n: {"median": 5e5, "ratio": {"ours": 0.25}} for n in names}
    return [{"name": "peer", "cases": peers}, {"name": "ours", "cases": ours}]


def test_tables_have_the_ratio_of_the_subject_to_the_others():
    assert measured.table(rows(1), "ours") == [
        "| | 0 copies |",
        "|---|---|",
        "| ours | 2 M |",
        "| peer | 500 k (4) |",
    ]
    assert measured.table(rows(5), "ours")[2] == "| 0 copies | 2 M | 500 k (4) |"


def test_targets_say_whether_they_are_met():
    known = [
        ("a", 2.0, 1.0, True),
        ("b", 0.5, 1.0, False),
        ("c", 0.5, 1.0, True),
        ("d", 2, 1, False),
    ]
    content = {
        "targets": [
            dict(zip(("id", "measured", "limit", "met"), one, strict=True)) for one in known
        ]
    }
    assert [line.split(" | ", 2)[2] for line in measured.targets(content)[2:]] == [
        "≥ 1 | met |",
        "≥ 1 | **not met** |",
        "≤ 1 | met |",
        "≤ 1 | **not met** |",
    ]


def test_limits_that_are_saved_are_those_of_the_case():
    for content in measured.saved().values():
        if content["case"] in cases.NAMES:
            made = cases.case(content["case"]).limits(content)
            saved = content.get("targets") or []
            assert [(one["id"], one["limit"]) for one in made] == [
                (one["id"], one["limit"]) for one in saved
            ], content["case"]


def test_all_cases_go_into_a_directory_whatever_fails(monkeypatch, tmp_path, capsys):
    def made(command, check):
        name, file = command[2], pathlib.Path(command[-1])
        if name == "fedq":
            return subprocess.CompletedProcess(command, 1)
        file.write_text(json.dumps({"case": name, "device": "cpu: one"}))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", made)
    monkeypatch.setattr(sys, "argv", ["run.py", "all", "--json", str(tmp_path), "--scale", "0.1"])
    with pytest.raises(SystemExit) as ended:
        run.main()
    assert ended.value.code == 1
    assert "not measured: fedq" in capsys.readouterr().err
    names = {f"{name}-cpu.json" for name in cases.NAMES if name != "fedq"}
    assert {path.name for path in tmp_path.iterdir()} == names
    assert json.loads((tmp_path / "es-cpu.json").read_text())["case"] == "es"


@pytest.mark.parametrize("words", [["all", "--json", "file"], ["es", "--json", "."]])
def test_numbers_of_all_cases_need_a_directory_and_of_one_a_file(words, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["run.py", *words])
    with pytest.raises(SystemExit, match="2"):
        run.main()
    assert f"--json is {words[-1]}; allowed: " in capsys.readouterr().err


def test_without_its_peers_a_case_measures_the_package_alone(monkeypatch, capsys):
    asked = []

    def rows(arguments):
        asked.append(tuple(arguments.only))
        return {"rows": []}

    never = cases.Case(rows, "steps", lambda content: 1 / 0, 1, "ours", {}, peers=("no_such_peer",))
    monkeypatch.setattr(cases, "case", lambda name: never)
    content = cases.measured("es", argparse.Namespace(only=(), repeats=1))
    assert asked == [("ours",)]
    assert content["targets"] == []
    assert 'needs no_such_peer; `pip install ".[bench]"`' in capsys.readouterr().out


def test_runs_of_hours_are_kept(tmp_path, monkeypatch):
    """By an interrupted command; not those of other code, of another size, or without a file."""
    made = []

    def of(value):
        made.append(value)
        return [0.5, value]

    def curves(file, values, scale=1.0):
        runs = returns._Runs(file, scale)
        names = ("ours", "theirs")[: len(values)]
        one = lambda name, value: runs("hopper", 100, name, lambda: of(value))
        return [one(name, value)[0] for name, value in zip(names, values, strict=True)]

    file = tmp_path / "returns.json"
    assert curves(file, [1.0]) == [[0.5, 1.0]]
    assert curves(file, [2.0, 3.0]) == [[0.5, 1.0], [0.5, 3.0]]
    assert curves(file, [4.0], scale=0.5) == [[0.5, 4.0]]
    assert curves(file, [4.5, 4.5]) == [[0.5, 1.0], [0.5, 3.0]]
    monkeypatch.setattr(returns, "_code", lambda: "other")
    assert curves(file, [5.0]) == [[0.5, 5.0]]
    assert curves(None, [6.0]) == curves(None, [6.0]) == [[0.5, 6.0]]
    assert made == [1.0, 3.0, 4.0, 5.0, 6.0, 6.0]
    assert [path.name for path in tmp_path.iterdir()] == ["returns.json.runs"]
