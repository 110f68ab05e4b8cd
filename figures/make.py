"""Makes the gallery: pictures and scoreboards of studies from their saved runs.

    fedjax-rl reproduce linear-speedup --scale paper --out out/paper
    fedjax-rl reproduce linear-speedup --scale paper --preset clean --out out/clean
    fedjax-rl reproduce linear-speedup:8-13 --scale smoke --out out/ppo
    python figures/make.py out/paper out/clean out/ppo

The study and the preset of a directory are those of its `summary.json`; what is not given stays
as it is. Figures that a study runs only where they are named have a section of their own. Nothing
here computes a number or a verdict.
"""

import argparse
import contextlib
import json
import pathlib
import re
import shutil
import tempfile
from collections.abc import Sequence

from fedjax_rl import plotting
from fedjax_rl.studies import STUDIES

HERE = pathlib.Path(__file__).parent
KINDS = ("*.png", "*.svg", "summary.json")
# section -> its paper, and what its presets are
PAPERS = {
    "linear-speedup": [
        "Einhorn, *Federated Reinforcement Learning Has Linear Speedup* (2023), the tabular half.",
    ],
    "linear-speedup:8-13": [
        "The same, the deep half: federated PPO on BigFish.",
    ],
    "communication-efficient": [
        "Gunn, *Communication Efficient Distributed Reinforcement Learning* (2023).",
    ],
    "fast-fedpg": [
        "Zhu, Heath and Mitra, *Towards Fast Rates for Federated and Multi-Task Reinforcement",
        "Learning*, arXiv 2409.05291.",
    ],
    "afedpg": [
        "Lan, Han, Hashemi, Aggarwal and Brinton, *Asynchronous Federated Reinforcement Learning",
        "with Policy Gradient Updates*, arXiv 2404.08003.",
    ],
    "momentum": [
        "Wang, He, Zhang, Miao and Anderson, *Momentum for the Win: Collaborative Federated",
        "Reinforcement Learning across Heterogeneous Environments*, arXiv 2405.19499.",
    ],
}
NOTES = {
    "linear-speedup:8-13": [
        "Not the paper's size: vectors instead of pictures, a multilayer perceptron, 16",
        "environments for 128 steps, 400 epochs, with a larger rate and less entropy so that so",
        "small a network learns in them; everything else is the author's protocol. Thresholds",
        "are 20, 40 and 60 % of the way to the best final reward: the numbers do not compare",
        "with the paper's, the orders do. With three trials a slope is known to about 0.4. More",
        "agents are faster at K = 1, less than linearly (P4: its band asks for -0.7 at every",
        "threshold), and less so at K = 10, as published (P6). P7 and P8 are marked ✗ because",
        "here many agents seem faster at K = 100, too. That is the author's reading: a",
        "threshold is reached when any agent's mean is above it, which with many noisy agents",
        "is soon. `mean of the agents` among the controls is the other reading.",
        "",
        "![A fish that eats smaller ones and avoids larger ones](bigfish.gif)",
        "",
        "Four agents with K = 10 after 3000 epochs of the preset `clean`:",
        "`fedjax-rl run fedppo BigFish --num-agents 4 --sync-period 10 --learning-rate 0.001",
        "--num-steps 3000`.",
    ],
    "afedpg": [
        "The figure-level numbers of the paper are not available. A band of a row A or B is 15 to",
        "40 % around what a prototype measured, of ten trials where they are sampled; those of a",
        "`claim` are what its sentence means. M3 is one MDP with five states and three actions.",
        "`reduced` runs Hopper of brax for few steps with episodes cut short. Times are simulated.",
        "",
        "Claim 3 is marked ✗ because a plain gradient, applied as it arrives with a large step, is",
        "the fastest to a gap of a tenth; it then stays there, where AFedPG goes on. B7 agents and",
        "B7 rounds: medians of thirty trials beside a prototype's of ten; with 16 agents that wait",
        "for each other the mean of the last 20 gaps cannot fall before round 20. What is left of",
        "the synchronous time beyond the prediction (B7 factor) is its step: eight times as long,",
        "it is not eight times as good. E2: on Hopper at the reduced size the means differ as the",
        "paper has it, by less than six trials can tell.",
    ],
    "linear-speedup": [
        "`paper` is the author's protocol: one local table, errors every 1010 steps, a stop rule",
        "on the errors. `clean` measures the same quantity on the server average, finely in time",
        "and for a fixed length (Fig. 5: over all agents, just before an exchange). A band is",
        "that of the published protocol, so a ✗ under `clean` marks a published number that is a",
        "property of how it was measured (which table, when, and at which rates) rather than of",
        "learning.",
    ],
    "communication-efficient": [
        "`paper` has the thesis's sizes, and the more trials that separate its curves. `reduced`",
        "runs Ant for fewer episodes, cut short. Rows, lines and dashes that say so are not in the",
        "thesis: the mean taken off the returns, the controls that tell what selection does, a",
        "constant added to the returns, and learning against bytes. The thesis publishes curves",
        "and no numbers; a band is that of its claim, or of a prototype written for it.",
        "",
        "The rows `claim` are sentences of the thesis. Where they are marked ✗, this is why. 2:",
        "who learns on Frozen Lake is decided by how ties in the untouched table are broken;",
        "DQL with random ties learns, with the first index it finds next to nothing. 4: with",
        "the mean taken off the returns the same network, optimiser and messages solve the",
        "grids. 7b: curves of small m are no rougher than those of large m. Why selection by",
        "ESPC helps, and stops to help once the mean is taken off, is in the pictures `snr`,",
        "`fig4-5-controls`, `offset`.",
    ],
    "fast-fedpg": [
        "The paper has theorems and no experiments; these are the experiments that they call for.",
        "`published` says what a theorem states, a band what that means for the quantity",
        "measured. M1 and M2 are families of MDPs with five states, three actions and an entropy",
        "bonus, whose optimum is known; M2's mean is the same for every even number of agents.",
        "`reduced` runs HalfCheetah for fewer rounds with episodes cut short.",
        "",
        "On CartPole the correction makes no difference (claim 4): one policy balances all poles,",
        "so that every agent's gradient vanishes with the mean and there is no bias to remove.",
        "HalfCheetah at the reduced size is too short for anybody to learn (claim 5).",
    ],
    "momentum": [
        "The paper's figures have no published numbers; a band is that of its claim, or of a",
        "prototype of the algorithms. `reduced` runs HalfCheetah for fewer rounds with episodes",
        "cut short; its first states differ as little as in the authors' code.",
        "",
        "Where a `claim` is marked ✗, this is why. 1: at a fixed step and number of local steps",
        "the fixed point has the bias of FedPG, whatever beta is; it vanishes as the local step",
        "shrinks, which costs no rounds here and does with averaging of parameters. 3, 3b:",
        "momentum makes the estimate of the gradient an order of magnitude better, the model not",
        "measurably. 4: truncated weights make longer steps, and at equal steps nothing is left",
        "of their advantage. 3c, 6, 8: the means differ as claimed, but by less than few trials",
        "can tell; on HalfCheetah this is too short for anybody to learn. B9b: at this step",
        "single runs collapse, of every method but the truncated one. B6: its bands are a third",
        "around a prototype's numbers.",
    ],
}
MARKS = {"reproduced": "✓", "not reproduced": "✗", "not run": "–"}


def number(value) -> str:
    """A number, several, or words, for a cell of the table."""
    if isinstance(value, list):
        return ", ".join(number(v) for v in value)
    if isinstance(value, float | int) and not isinstance(value, bool):
        counts = abs(value) < 1e7 and value == int(value)
        return f"{value:.0f}" if counts else f"{value:.4g}"
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


def named(study: str) -> str:
    """The section of the figures that a study runs only where they are named, as one asks for them.

    Returns:
      Such as "linear-speedup:8-13"; the study itself where there are no such figures.
    """
    numbers = [figure.removeprefix("fig") for figure in STUDIES[study].only_named]
    return f"{study}:{numbers[0]}-{numbers[-1]}" if numbers else study


def where(summary: dict) -> tuple[str, pathlib.Path]:
    """The section of a run, and its place in the gallery."""
    study, preset = summary["study"], summary["preset"]
    apart = set(summary["figures"]) <= set(STUDIES[study].only_named)
    title = named(study) if apart else study
    return title, HERE / title.replace(":", "-") / preset


def scoreboard(summaries: dict[str, dict]) -> list[str]:
    """The table "published | here | interval | band | verdict", presets side by side.

    Args:
      summaries: preset -> summary; the first one's intervals are shown.
    """
    first, *others = summaries
    head = ["id", "figure", "quantity", "published", first, "interval", "band", ""]
    for preset in others:
        head += [preset, ""]
    lines = [
        ("| " + " | ".join(head) + " |").replace("  ", " "),
        "|" + "---|" * len(head),
    ]
    measured = {p: {line["id"]: line for line in s["targets"]} for p, s in summaries.items()}
    # A target that the first preset does not have takes its place after those that it has.
    known = {
        name: line for preset in reversed(summaries) for name, line in measured[preset].items()
    }
    order = dict.fromkeys(name for own in measured.values() for name in own)
    for name in order:
        line, own = known[name], measured[first].get(name)
        cells = [name, line["figure"], line["quantity"], number(line["published"])]
        cells += [number(own["measured"]), interval(own)] if own else ["–", "–"]
        cells += [band(line["band"]), MARKS[own["verdict"]] if own else "–"]
        for preset in others:
            other = measured[preset].get(name)
            cells += [number(other["measured"]), MARKS[other["verdict"]]] if other else ["–", "–"]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return lines


def place(stem: str, figures: Sequence[str]) -> tuple[int, str]:
    """Where a picture stands: by the figure that its name starts with, then by name."""
    for at, figure in enumerate(figures):
        if re.fullmatch(rf"{re.escape(figure)}(?!\d).*", stem):
            return at, stem
    return len(figures), stem


def device(summary: dict) -> str:
    """Scale and device of a run, for a sentence."""
    return f"Scale `{summary['scale']}` on {summary['device']}"


def section(title: str, summaries: dict[str, dict]) -> list[str]:
    """One section: what it is, how long it took, its scoreboard and its pictures."""
    name, first = next(iter(summaries.items()))
    study, seconds = first["study"], first["seconds"]
    lines = [f"## {title}", "", *PAPERS.get(title, [f"{STUDIES[study].paper}."])]
    lines += [
        f"{device(first)}: {seconds['compile']:.0f} s compiling and",
        f"{seconds['run']:.0f} s running (preset `{name}`), JAX {first['versions']['jax']}.",
    ]
    for preset, summary in summaries.items():
        if device(summary) != device(first):
            own = summary["seconds"]
            lines.append(
                f"{device(summary)}: {own['compile']:.0f} s and {own['run']:.0f} s (`{preset}`)."
            )
    if title in NOTES:
        lines += ["", *NOTES[title]]
    lines += ["", *scoreboard(summaries)]
    for preset, summary in summaries.items():
        folder = where(summary)[1]
        stems = {p.stem for p in folder.glob("*.png")} - {"scoreboard"}
        names = sorted(stems, key=lambda stem: place(stem, tuple(STUDIES[study].figures)))
        lines += ["", f"### Preset `{preset}`", ""]
        lines += [f"![{name}]({folder.relative_to(HERE)}/{name}.png)\n" for name in names]
    return lines


def gallery() -> str:
    """The text of the gallery, from the summaries in it."""
    lines = [
        "# Gallery",
        "",
        "Pictures and numbers below are made by `figures/make.py` from saved runs; the verdicts",
        "were computed by the study, never typed. ✓ reproduced, ✗ not reproduced, – not run.",
    ]
    for study, declared in STUDIES.items():
        for title in dict.fromkeys((study, named(study))):
            folder = HERE / title.replace(":", "-")
            files = {preset: folder / preset / "summary.json" for preset in declared.presets}
            found = {p: json.loads(file.read_text()) for p, file in files.items() if file.exists()}
            if found:
                lines += ["", *section(title, found)]
                lines[-1] = lines[-1].rstrip()
    return "\n".join(lines).rstrip() + "\n"


def take(source: pathlib.Path) -> pathlib.Path:
    """Copies the pictures and the summary of a run into the gallery, in place of the old ones."""
    summary = json.loads((source / "summary.json").read_text())
    target = where(summary)[1]
    if source.resolve() == target.resolve():
        return target
    target.mkdir(parents=True, exist_ok=True)
    for old in [file for kind in KINDS for file in target.glob(kind)]:
        old.unlink()
    for file in [file for kind in KINDS for file in source.glob(kind)]:
        shutil.copyfile(file, target / file.name)
    return target


def readme_figure():
    """The figure that the ten lines of the README make, by running them."""
    readme = (HERE.parent / "README.md").read_text()
    lines = next(b for b in re.findall(r"```python\n(.*?)```", readme, re.S) if "frl.sweep" in b)
    names: dict = {}
    with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(scratch):
        exec(lines, names)
    return names["figure"]


def main() -> None:
    """Copies the pictures, writes the scoreboards and the picture of the README."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=pathlib.Path, help="directories of finished runs")
    arguments = parser.parse_args()
    taken: dict[pathlib.Path, pathlib.Path] = {}
    for source in arguments.runs:
        summary = source / "summary.json"
        if not summary.exists():
            parser.error(f"{summary} does not exist; is the run finished?")
        key = where(json.loads(summary.read_text()))[1]
        if key in taken:
            own = key.relative_to(HERE)
            parser.error(f"{taken[key]} and {source} are both {own}; give one of them")
        taken[key] = source
    for source in arguments.runs:
        take(source)
    (HERE / "README.md").write_text(gallery())
    plotting.save(readme_figure(), HERE / "speedup")


if __name__ == "__main__":
    main()
