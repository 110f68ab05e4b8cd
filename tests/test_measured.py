"""What the pages say of speed follows from what was measured."""

import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
sys.path.append(str(ROOT / "benchmarks"))
import cases  # noqa: E402
import measured  # noqa: E402


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
