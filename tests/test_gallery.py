"""What studies declare, what is committed of them, and what the gallery and the README say."""

import importlib.util
import json
import math
import pathlib
import re

import pytest

from fedjax_rl.analysis import Claim, Measured, decide
from fedjax_rl.studies import STUDIES, Study, control, effect, exact, figure, number, page, scales
from fedjax_rl.studies.claims import Estimate
from fedjax_rl.studies.pictures import panel
from fedjax_rl.studies.study import SCALES

ROOT = pathlib.Path(__file__).parent.parent
FEWEST = 10  # runs of a claim at the scales that mean something
DECLARED = {name: study for name, study in STUDIES.items() if isinstance(study, Study)}


@pytest.fixture(scope="module")
def make():
    spec = importlib.util.spec_from_file_location("make", ROOT / "figures" / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# Declarations -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DECLARED)
def test_whatever_is_declared_can_be_judged(name):
    """Bands with their published numbers are asked for when a claim is made; so is a name each."""
    study = DECLARED[name]
    assert study.note
    for scale in SCALES:
        for preset in study.presets:
            made = study.declare(list(study.figures), study.size(scale, preset))
            for own in made:
                assert own.claims, f"{name}:{own.name} claims nothing"
                assert study.prose(own.name), f"{name}:{own.name} has no prose"
            kinds = [claim.claim.kind for own in made for claim in own.claims]
            assert "control" in kinds, f"{name} has no control at {scale}, {preset}"
            claims = {own.claim.id for one in made for own in one.claims}
            told = {re.split("[/!]", key)[0] for key in re.findall(r"\{([^{}]+)\}", study.found)}
            assert told <= claims


# What is committed --------------------------------------------------------------------------------


def committed():
    files = sorted((ROOT / "figures").glob("*/*/summary.json"))
    return [file.relative_to(ROOT / "figures").parent.as_posix() for file in files]


def recomputed(line):
    """The line of a claim from what it says that was measured."""
    names = ("id", "figure", "quantity", "band", "published", "kind", "reference", "corrected")
    claim = Claim(**{name: line[name] for name in names}, why=line["why"])
    columns = [line[name] for name in ("measured", "low", "high", "runs")]
    rows = list(zip(*columns, strict=True)) if claim.several else [columns]

    def of(row, verdict):
        value, low, high = (x if x is None else float(x) for x in row[:3])
        value = math.nan if value is None else value
        return None if verdict == "not run" else Measured(value, low, high, row[3])

    each = [of(row, verdict) for row, verdict in zip(rows, line["verdicts"], strict=True)]
    return decide(claim, each)


@pytest.mark.parametrize("place", committed())
def test_what_is_committed_follows_from_what_was_measured(place, make):
    summary = json.loads((ROOT / "figures" / place / "summary.json").read_text())
    if not make.is_new(summary):
        pytest.skip("to be run anew")
    study, preset = STUDIES[summary["study"]], summary["preset"]
    assert place == f"{study.name}/{preset}"
    assert len({line["id"] for line in summary["targets"]}) == len(summary["targets"])
    scale = {part["figure"]: part["scale"] for part in summary["parts"]}
    assert set(scale) <= set(study.figures)
    why = make.reasons(summary)
    for line in summary["targets"]:
        name = f"{place} {line['id']}"
        again = recomputed(line)
        assert {key: line[key] for key in again} == again, name
        declared = study.declare([line["part"]], study.size(scale[line["part"]], preset))[0]
        assert line["id"] in {own.claim.id for own in declared.claims}, name
        if line["verdict"] == "not reproduced":
            assert why.get(line["id"]), f"{name} does not hold and nobody says why"
        if line["verdict"] == "not run":
            assert line["command"], name
            assert line["cost"] > 0, name
        elif scale[line["part"]] != "smoke":
            counts = line["runs"] if isinstance(line["runs"], list) else [line["runs"]]
            few = min((count for count in counts if count is not None), default=FEWEST) < FEWEST
            said = f"{line['quantity']} {why.get(line['id'], '')}"
            assert not few or re.search(r"\b(runs|trials|seeds)\b", said), name


def test_gallery_and_readme_are_made(make):
    """`python figures/make.py` makes them."""
    assert (ROOT / "figures" / "README.md").read_text() == make.gallery()
    readme = (ROOT / "README.md").read_text()
    assert readme == make.readme(readme)


def test_pictures_of_the_gallery_are_there_and_small():
    for file in (ROOT / "figures").glob("*/*/*"):
        assert file.name == "summary.json" or file.suffix == ".png", file
    text = (ROOT / "figures" / "README.md").read_text()
    for name in re.findall(r"!\[[^]]*\]\(([^)]+)\)", text):
        assert (ROOT / "figures" / name).stat().st_size < 400_000, name


# How they are made --------------------------------------------------------------------------------


@figure("fig1", "what is there")
def _one(size):
    """Prose of the first."""
    yield number("T1", "states", exact(4), (4, 4), published=4, figure="Fig 1a")
    yield number("T2", "actions", exact(3), (1, 2), published=2, why="One is a joke. Of ours.")
    yield page("fig1", panel(lambda axis: axis.plot([1, 2], label="a")))


@figure("fig2", "what is sampled")
def _two(size):
    some = Estimate(lambda results: [Measured(0.5, -1.0, 2.0, 12), Measured(math.inf, runs=2)])
    yield effect("c", "two effects", some, published="it | rises", band=((0, None), (0, None)))
    yield control("null", "the same of nothing", exact(0.0))


SMALL = Study(
    "small",
    "Nobody (2000)",
    [_one, _two],
    scales(trials=(3, 4, 5)),
    note="A note.",
    found="There are {T1} states {T1!}, an effect of {c/0} {c!}, and {T9}.",
)


def test_a_gallery_says_what_was_found(tmp_path, make, monkeypatch):
    monkeypatch.setattr(make, "STUDIES", {"small": SMALL})
    monkeypatch.setattr(make, "FINDINGS", {"small": "There are {T1} states {T1!}."})
    monkeypatch.setattr(make, "HERE", tmp_path / "figures")
    (tmp_path / "figures" / "small" / "paper").mkdir(parents=True)
    old = tmp_path / "figures" / "small" / "paper" / "summary.json"
    old.write_text(json.dumps({"study": "small", "targets": [{"id": "T1"}]}))
    assert "To be run anew" in make.gallery()
    for scale, figures in (("quick", ["fig1", "fig2"]), ("paper", ["fig2"])):
        (tmp_path / scale).mkdir()
        SMALL.run(tmp_path / scale, figures, scale)
        make.take(tmp_path / scale)
    text = make.gallery().replace("\u2013", "-")
    assert "To be run anew" not in text
    assert "| `small` | 2 | 1 | 1 | 0 | quick, paper |" in text
    assert "* **T2**, actions: One is a joke." in text
    assert "Prose of the first." in text
    assert "A note." in text
    assert "`fedjax-rl reproduce small:fig1 --scale quick`: 0 s on cpu" in text
    assert "`fedjax-rl reproduce small:fig2 --scale paper`: 0 s on cpu" in text
    assert "| T1 | ✓ | Fig 1a: states | 4 | - | 4 | - | exact | [4, 4] |" in text
    assert (
        "| c | ? | two effects | it \\| rises | - | 0.5, inf | [-1, 2]; - | 12, 2 | > 0 each |"
        in text
    )
    assert "| null | ✓ | control: the same of nothing |" in text
    assert (tmp_path / "figures" / "small" / "paper" / "fig1.png").stat().st_size > 0
    summary = json.loads(old.read_text())
    assert [part["scale"] for part in summary["parts"]] == ["quick", "paper"]
    assert [recomputed(line)["verdict"] for line in summary["targets"]] == [
        line["verdict"] for line in summary["targets"]
    ]
    words = make.sentences(SMALL.found, summary)
    assert words == "There are 4 states ✓, an effect of 0.5 ?, and (not run)."
    readme = make.readme(f"Above\n{make.BEGIN}\nold\n{make.END}\nBelow\n")
    assert "* [small](figures/README.md#small): There are 4 states ✓." in readme
    assert "\nold\n" not in readme
    assert make.readme(readme) == readme
    with pytest.raises(ValueError, match=r"nowhere/summary.json does not exist"):
        make.take(tmp_path / "nowhere")


def test_a_figure_of_a_new_paper_takes_less_than_thirty_lines(tmp_path, monkeypatch):
    text = (ROOT / "CONTRIBUTING.md").read_text()
    code = re.search(r"<!-- a figure -->\n```python\n(.*?)```", text, re.S)[1]
    assert sum(bool(line.strip()) for line in code.splitlines()) < 30
    assert max(map(len, code.splitlines())) <= 100
    names: dict = {"__name__": "a_study"}
    exec(code, names)
    lines = names["STUDY"].run(tmp_path, scale="smoke")["targets"]
    assert [line["verdict"] for line in lines] == ["reproduced", "reproduced"]
    assert (tmp_path / "speedup.png").stat().st_size > 0
