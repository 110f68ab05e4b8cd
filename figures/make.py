"""Makes the gallery: pictures and scoreboard of a study from its saved runs.

    fedjax-rl reproduce linear-speedup --scale paper --out out/paper
    fedjax-rl reproduce linear-speedup --scale paper --preset clean --out out/clean
    python figures/make.py out/paper out/clean

Nothing here computes a number or a verdict; both come from the `summary.json` of the runs.
"""

import argparse
import contextlib
import json
import pathlib
import re
import shutil
import tempfile

from fedjax_rl import plotting

HERE = pathlib.Path(__file__).parent
MARKS = {"reproduced": "✓", "not reproduced": "✗", "not run": "–"}


def number(value) -> str:
    """A number, several, or words, for a cell of the table."""
    if isinstance(value, list):
        return ", ".join(number(v) for v in value)
    if isinstance(value, float | int) and not isinstance(value, bool):
        return f"{value:.4g}"
    return "–" if value is None else str(value)


def interval(line: dict, ends: tuple[str, str] = ("low", "high")) -> str:
    """The interval of a measurement, or of each."""
    low, high = (line[e] for e in ends)
    if isinstance(low, list):
        return "; ".join(interval({"low": a, "high": b}) for a, b in zip(low, high, strict=True))
    return "–" if low is None and high is None else f"[{number(low)}, {number(high)}]"


def band(value) -> str:
    """The band of a target, or of each of its numbers."""
    if value and isinstance(value[0], list):
        return "; ".join(band(v) for v in value)
    return f"[{number(value[0])}, {number(value[1])}]"


def scoreboard(paper: dict, clean: dict) -> str:
    """The table "published | here | interval | verdict", both presets side by side."""
    seconds = paper["seconds"]
    lines = [
        "# Gallery",
        "",
        "Pictures and numbers below are made by `figures/make.py` from saved runs; the verdicts",
        "were computed by the study, never typed. ✓ reproduced, ✗ not reproduced, – not run.",
        "",
        "## linear-speedup",
        "",
        "Einhorn, *Federated Reinforcement Learning Has Linear Speedup* (2023), the tabular half.",
        f"Scale `{paper['scale']}` on {paper['device']}: {seconds['compile']:.0f} s compiling and",
        f"{seconds['run']:.0f} s running (preset `paper`), JAX {paper['versions']['jax']}.",
        "",
        "`paper` is the author's protocol: one local table, errors every 1010 steps, a stop rule",
        "on the errors. `clean` measures the same quantity on the server average, finely in time",
        "and for a fixed length (Fig. 5: over all agents, just before an exchange). A band is",
        "that of the published protocol, so a ✗ under `clean` marks a published number that is a",
        "property of how it was measured (which table, when, and at which rates) rather than of",
        "learning.",
        "",
        "| id | figure | quantity | published | paper | interval | band | | clean | |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    others = {line["id"]: line for line in clean["targets"]}
    for line in paper["targets"]:
        other = others[line["id"]]
        cells = [
            line["id"],
            line["figure"],
            line["quantity"],
            number(line["published"]),
            number(line["measured"]),
            interval(line),
            band(line["band"]),
            MARKS[line["verdict"]],
            number(other["measured"]),
            MARKS[other["verdict"]],
        ]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    for preset in ("paper", "clean"):
        lines += ["", f"### Preset `{preset}`", ""]
        names = sorted(p.stem for p in (HERE / "linear-speedup" / preset).glob("fig*.png"))
        lines += [f"![{name}](linear-speedup/{preset}/{name}.png)\n" for name in names]
    return "\n".join(lines).rstrip() + "\n"


def readme_figure():
    """The figure that the ten lines of the README make, by running them."""
    readme = (HERE.parent / "README.md").read_text()
    lines = next(b for b in re.findall(r"```python\n(.*?)```", readme, re.S) if "frl.sweep" in b)
    names: dict = {}
    with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(scratch):
        exec(lines, names)
    return names["figure"]


def main() -> None:
    """Copies the pictures, writes the scoreboard and the picture of the README."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("paper", type=pathlib.Path)
    parser.add_argument("clean", type=pathlib.Path)
    arguments = parser.parse_args()
    summaries = {}
    for preset in ("paper", "clean"):
        source, target = getattr(arguments, preset), HERE / "linear-speedup" / preset
        target.mkdir(parents=True, exist_ok=True)
        for file in (*source.glob("*.png"), *source.glob("*.svg"), source / "summary.json"):
            shutil.copyfile(file, target / file.name)
        summaries[preset] = json.loads((target / "summary.json").read_text())
    (HERE / "README.md").write_text(scoreboard(summaries["paper"], summaries["clean"]))
    plotting.save(readme_figure(), HERE / "speedup")


if __name__ == "__main__":
    main()
