"""Makes the gallery and what the README says of it, from saved runs of studies.

    fedjax-rl reproduce momentum --scale quick --out out/momentum
    fedjax-rl reproduce momentum:speedup --scale paper --out out/speedup
    python figures/make.py out/momentum out/speedup

The figures of a directory take the place of those of the same study and preset; all others stay as
they are, so that figures can be of different scales and devices. Without a directory only the texts
are made anew. Nothing here computes a number or a verdict.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import pathlib
import re
import tempfile

from PIL import Image

from fedjax_rl import plotting
from fedjax_rl.analysis.verdict import (
    MARKS,
    NOT_REPRODUCED,
    NOT_RUN,
    NUMBER,
    REPRODUCED,
    UNDECIDED,
)
from fedjax_rl.cli.study import duration, note
from fedjax_rl.saving import results
from fedjax_rl.studies import STUDIES

HERE = pathlib.Path(__file__).parent
README = HERE.parent / "README.md"
BEGIN = "<!-- What follows is made by figures/make.py -->"
END = "<!-- What is made ends here -->"
COLORS = 256  # of a picture: lines and letters need no more, and a file is a third as long
ORDER = (REPRODUCED, NOT_REPRODUCED, UNDECIDED, NOT_RUN)
LEGEND = """✓ holds: the 95 % interval of what was measured lies in a band that was fixed
beforehand; ✗ does not: it lies apart from the band; ? undecided: it does neither, or there are
fewer than three runs; – was not run."""

# A claim in a sentence: {id}, {id/place of several numbers}, {id!} for its verdict.
NAMED = r"\{([^{}/!]+)(?:/(\d+))?(!?)\}"
# What the README tells, with the numbers and the verdicts of claims in it: study -> sentence.
FINDINGS = {
    "linear-speedup": """N agents at N times the rate need an N-th of the time, which falls with N
    to the power {T20} ({T20!}); what averaging buys is the error, which agents alone make
    {T12 alone/1} times as large as sixteen that average ({T12 alone!}).""",
    "communication-efficient": """With equally many agents ESPC learns more than ES on CartPole from
    fewer messages, {C26/2} against {C26/1} ({C26 order!}); but with the mean taken off the returns
    ES reaches {C29/0}, more than ESPC ({C29 order!}).""",
    "fast-fedpg": """Local steps in environments that differ leave a bias that more agents do not
    remove (exponent of the gap in N {B2/0}); with a correction it falls nearly as 1/N ({B2/1}).""",
    "afedpg": """With agents that are always busy the time to a target falls with N to the power
    {claim 1} ({claim 1!}). AFedPG is faster than waiting for everybody: {claim 2!}; than a plain
    asynchronous gradient: {claim 3!}.""",
    "differentiate": """A step-size schedule that is learned by derivatives through the federation
    ends {9.3 times} times better than the best constant ({9.3 times!}).""",
}

Summary = dict


# What is there ------------------------------------------------------------------------------------


def place(study: str, preset: str) -> pathlib.Path:
    """Where the pictures and the summary of a study are."""
    return HERE / study / preset


def is_new(summary: Summary) -> bool:
    """Whether a summary has figures and verdicts one by one; others are to be run anew."""
    return "parts" in summary and all("verdicts" in line for line in summary["targets"])


def found() -> dict[tuple[str, str], Summary | None]:
    """(study, preset) -> its summary; None of one that is to be run anew."""
    out: dict[tuple[str, str], Summary | None] = {}
    for name, study in STUDIES.items():
        files = {preset: place(name, preset) / "summary.json" for preset in study.presets}
        there = {p: json.loads(file.read_text()) for p, file in files.items() if file.exists()}
        new = {(name, p): summary for p, summary in there.items() if is_new(summary)}
        out |= new or {(name, study.presets[0]): None}
    return out


def take(source: pathlib.Path) -> None:
    """Puts the figures of a run into the gallery, in place of the old ones.

    Raises:
      ValueError: the run is not finished, or of an older version.
    """
    file = source / "summary.json"
    if not file.exists():
        raise ValueError(f"{file} does not exist; is the run finished?")
    run = json.loads(file.read_text())
    if not is_new(run):
        raise ValueError(f"{file} is of an older version; run it anew")
    name, preset = run["study"], run["preset"]
    target = place(name, preset)
    target.mkdir(parents=True, exist_ok=True)
    before = found().get((name, preset)) or {"parts": [], "targets": []}
    own = {key: run[key] for key in ("scale", "device", "versions", "size")}
    parts = {part["figure"]: part for part in before["parts"]}
    parts |= {part["figure"]: {**part, **own} for part in run["parts"]}
    kept = [parts[figure] for figure in STUDIES[name].figures if figure in parts]
    lines: dict[str, list] = {}
    for line in before["targets"]:
        if line["part"] not in run["figures"]:
            lines.setdefault(line["part"], []).append(line)
    for line in run["targets"]:
        lines.setdefault(line["part"], []).append(line)
    stems = {stem for part in kept for stem in part["pictures"]}
    for old in target.iterdir():
        if old.stem not in stems or old.suffix != ".png":
            old.unlink()
    for part in run["parts"]:
        for stem in part["pictures"]:
            picture = Image.open(source / f"{stem}.png").convert("RGB")
            picture.quantize(COLORS).save(target / f"{stem}.png", optimize=True)
    summary = {
        "study": name,
        "preset": preset,
        "parts": kept,
        "targets": [line for part in kept for line in lines.get(part["figure"], [])],
    }
    results.write_json(target / "summary.json", summary)


def reasons(summary: Summary) -> dict[str, str]:
    """Claim -> what explains its verdict: as it is declared now, or was when it was run."""
    study, out = STUDIES[summary["study"]], {}
    for part in summary["parts"]:
        size = study.size(part["scale"], summary["preset"])
        (figure,) = study.declare([part["figure"]], size)
        out |= {own.claim.id: own.claim.why for own in figure.claims if own.claim.why}
    return {line["id"]: line["why"] for line in summary["targets"] if line["why"]} | out


# Cells --------------------------------------------------------------------------------------------


def number(value) -> str:
    """A number, several, or words, for a cell of a table."""
    if isinstance(value, list):
        return ", ".join(number(v) for v in value)
    if isinstance(value, float | int) and not isinstance(value, bool):
        counts = abs(value) < 1e7 and value == int(value)
        return f"{value:.0f}" if counts else f"{value:.4g}"
    return "–" if value is None else str(value)


def span(low, high) -> str:
    """An interval or a band with what is open, or several: once where all are the same."""
    if isinstance(low, list):
        each = [span(a, b) for a, b in zip(low, high, strict=True)]
        if len(set(each)) > 1:
            return "; ".join(each)
        return each[0] if each[0] == "–" else f"{each[0]} each"
    if low is None and high is None:
        return "–"
    if low is None:
        return f"≤ {number(high)}"
    return f"≥ {number(low)}" if high is None else f"[{number(low)}, {number(high)}]"


def band(value, strict: bool) -> str:
    """The band of a claim, or of each of its numbers; the ends of a strict one are outside it."""
    several = isinstance(value[0], list)
    text = span(*(map(list, zip(*value, strict=True)) if several else value))
    return text.replace("≥", ">").replace("≤", "<") if strict else text


def runs(value) -> str:
    """How many runs there are behind each number; "exact" where nothing is random."""
    each = value if isinstance(value, list) else [value]
    words = ["exact" if count is None else str(count) for count in each]
    return ", ".join(words if len(set(words)) > 1 else words[:1])


def row(*cells: str) -> str:
    """A row of a table."""
    return "| " + " | ".join(" ".join(c.replace("|", "\\|").split()) for c in cells) + " |"


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """A table, after an empty line."""
    return ["", row(*head), "|" + "---|" * len(head), *(row(*own) for own in rows)]


def claim(line: dict, why: str) -> list[str]:
    """The row of a claim."""
    quantity = line["quantity"]
    if line["figure"] != line["part"]:
        quantity = f"{line['figure']}: {quantity}"
    if line["kind"] == "control":
        quantity = f"control: {quantity}"
    ran = line["verdict"] != "not run"
    return [
        line["id"],
        MARKS[line["verdict"]],
        quantity,
        number(line["published"]),
        number(line["reference"]),
        number(line["measured"]) if ran else "–",
        span(line["low"], line["high"]),
        runs(line["runs"]) if ran else "–",
        band(line["band"], strict=line["kind"] != NUMBER),
        note({**line, "why": why}),
    ]


HEAD = ["id", "", "quantity", "published", "reference", "here", "95 % interval", "runs", "band"]


# Texts --------------------------------------------------------------------------------------------


def halves(study: str) -> dict[str, set[str]]:
    """Title -> figures: of the study, and of those that it runs only where they are named."""
    known = STUDIES[study]
    apart = [figure for figure in known.figures if figure in known.only_named]
    out = {study: set(known.figures) - set(apart)}
    numbered = [figure for figure in apart if figure.startswith("fig")]
    out |= {f"{study}:{figure}": {figure} for figure in apart if figure not in numbered}
    if numbered:
        first, last = (figure.removeprefix("fig") for figure in (numbered[0], numbered[-1]))
        out[f"{study}:{first}-{last}"] = set(numbered)
    return out


def overview() -> list[str]:
    """The table of how many claims of each work hold."""
    rows = []
    for (name, preset), summary in found().items():
        if summary is None:
            rows.append([f"`{name}`", *["–"] * len(ORDER), "to be run anew"])
            continue
        for title, figures in halves(name).items():
            lines = [line for line in summary["targets"] if line["part"] in figures]
            if not lines:
                continue
            several = len(STUDIES[name].presets) > 1
            verdicts = [line["verdict"] for line in lines]
            scales = dict.fromkeys(
                part["scale"] for part in summary["parts"] if part["figure"] in figures
            )
            rows.append(
                [
                    f"`{title}`" + f", preset `{preset}`" * several,
                    *(str(verdicts.count(verdict)) for verdict in ORDER),
                    ", ".join(scales),
                ]
            )
    return table(["work", *(f"{MARKS[v]} {v}" for v in ORDER), "scale"], rows)


def failed() -> list[str]:
    """Every claim that does not hold, with the first sentence of what explains it."""
    lines = []
    for (name, preset), summary in found().items():
        if summary is None:
            continue
        why = reasons(summary)
        own = [line for line in summary["targets"] if line["verdict"] == NOT_REPRODUCED]
        if own:
            several = len(STUDIES[name].presets) > 1
            lines += ["", f"✗ of `{name}`" + f", preset `{preset}`" * several + ":", ""]
        for line in own:
            reason = why.get(line["id"], "not explained yet")
            first = re.split(r"(?<=[a-z0-9)])\. (?=[A-Z])", " ".join(reason.split()))[0]
            lines.append(f"* **{line['id']}**, {line['quantity']}: {first.rstrip('.')}.")
    return lines


def section(name: str, preset: str, summary: Summary) -> list[str]:
    """A study in one preset: every figure with its prose, its pictures and its claims."""
    study, why = STUDIES[name], reasons(summary)
    several = len(study.presets) > 1
    lines = ["", f"## {name}" + f", preset `{preset}`" * several, "", f"{study.paper}."]
    lines += ["", study.note] if study.note else []
    # Of a preset with other figures it would say of everything that it was not run.
    told = {match[0] for match in re.findall(NAMED, study.found)}
    if study.found and told & {line["id"] for line in summary["targets"]}:
        lines += ["", f"In short: {sentences(study.found, summary)}"]
    folder = place(name, preset)
    for part in summary["parts"]:
        figure = part["figure"]
        lines += ["", f"### {figure}: {study.figures[figure]}"]
        prose = study.prose(figure)
        lines += ["", prose] if prose else []
        command = study.command(figure, part["scale"], preset)
        lines += ["", f"`{command}`: {duration(part['seconds'])} on {part['device']}."]
        for stem in part["pictures"]:
            lines += ["", f"![{stem}]({folder.relative_to(HERE)}/{stem}.png)"]
        own = [line for line in summary["targets"] if line["part"] == figure]
        rows = [claim(line, why.get(line["id"], "")) for line in own]
        lines += table([*HEAD, "note"], rows) if rows else []
    return lines


def gallery() -> str:
    """The text of the gallery, from the summaries in it."""
    lines = [
        "# Gallery",
        "",
        "Made by `figures/make.py` from saved runs; the verdicts were computed by the studies.",
        LEGEND,
        "*Published* is what the work states, *reference* anything else that one may compare with:",
        "a theorem, a prototype, another code. A *control* measures a claim where nothing is",
        "learned; ✓ says that it does not hold there.",
        *overview(),
        *failed(),
    ]
    for (name, preset), summary in found().items():
        if summary is not None:
            lines += section(name, preset, summary)
        else:
            lines += ["", f"## {name}", "", f"{STUDIES[name].paper}. To be run anew."]
    return "\n".join(lines).rstrip() + "\n"


def sentences(text: str, summary: Summary) -> str:
    """What came of a study, with the numbers and the verdicts of its claims in it."""
    lines = {line["id"]: line for line in summary["targets"]}

    def told(match: re.Match) -> str:
        key, at, mark = match.groups()
        if key not in lines:
            return MARKS[NOT_RUN] if mark else "(not run)"
        if mark:
            return MARKS[lines[key]["verdict"]]
        value = lines[key]["measured"]
        value = value[int(at)] if at else value
        return f"{value:.3g}" if isinstance(value, float | int) else number(value)

    return re.sub(NAMED, told, " ".join(text.split()))


def reproduced() -> str:
    """What the README says of the gallery."""
    known = {name: (preset, s) for (name, preset), s in reversed(found().items()) if s is not None}
    verdicts = collections.Counter(
        line["verdict"] for s in found().values() if s is not None for line in s["targets"]
    )
    counts = ", ".join(f"{MARKS[verdict]} {verdicts[verdict]}" for verdict in ORDER)
    lines = [
        f"[The gallery](figures/README.md) has all {verdicts.total()} claims of {len(known)} works",
        f"beside what was measured ({counts}), and every figure with the command, the scale and",
        "the machine that made it.",
        LEGEND,
        "",
    ]
    for name, text in FINDINGS.items():
        preset, summary = known[name]
        anchor = name if len(STUDIES[name].presets) == 1 else f"{name}-preset-{preset}"
        lines.append(f"* [{name}](figures/README.md#{anchor}): {sentences(text, summary)}")
    return "\n".join(lines) + "\n"


def readme(text: str) -> str:
    """The README with what is made in its place."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{reproduced()}{END}{rest.split(END)[1]}"


def readme_figure():
    """The figure that the ten lines of the README make, by running them."""
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)
    names: dict = {}
    with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(scratch):
        exec(next(block for block in blocks if "frl.sweep" in block), names)
    return names["figure"]


def main() -> None:
    """Takes the runs, writes the texts and, where it is asked for, the picture of the README."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="*", type=pathlib.Path, help="directories of finished runs")
    parser.add_argument("--picture", action="store_true", help="also the README's own picture")
    arguments = parser.parse_args()
    for source in arguments.runs:
        try:
            take(source)
        except ValueError as error:
            parser.error(str(error))
    (HERE / "README.md").write_text(gallery())
    README.write_text(readme(README.read_text()))
    if arguments.picture:
        plotting.save(readme_figure(), HERE / "speedup")


if __name__ == "__main__":
    main()
