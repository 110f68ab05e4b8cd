"""Study `linear-speedup`: the figures of Einhorn (2023), with verdicts.

Figures 1 to 7 are about tables; 8 to 13, about federated PPO on BigFish, are run where they are
named.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fedjax_rl import plotting
from fedjax_rl.analysis import judge
from fedjax_rl.saving import results
from fedjax_rl.studies import federated_ppo_data as deep_data
from fedjax_rl.studies import federated_ppo_figures as deep_pictures
from fedjax_rl.studies import federated_ppo_targets as deep_targets
from fedjax_rl.studies import linear_speedup_data as data
from fedjax_rl.studies import linear_speedup_figures as pictures
from fedjax_rl.studies import linear_speedup_measures as measures
from fedjax_rl.studies import linear_speedup_targets as targets
from fedjax_rl.studies import stage_runs
from fedjax_rl.studies.study import Meter, Study, conclude

FIGURES = {
    "fig1": "the MDP of the paper: optimal values and transitions",
    "fig3": "learning curves",
    "fig4": "steady-state error against alpha/N",
    "fig5": "steady-state error against the sync period",
    "fig6": "time to the threshold against N",
    "fig7": "the same with the time of communication",
    "fig8": "PPO on BigFish: final reward and epochs of every run",
    "fig9": "PPO, K = 1: epochs to a reward against N",
    "fig10": "PPO, K = 10: the same",
    "fig11": "PPO, K = 100: the same",
    "fig12": "PPO, K = 1: the same with the time of communication",
    "fig13": "PPO: epochs to a reward against K",
}
PRESETS = ("paper", "clean")

# Those of federated PPO.
_DEEP = {
    "fig8": ("facts", "grid"),
    "fig9": ("grid", "controls"),
    **dict.fromkeys(("fig10", "fig11", "fig12", "fig13"), ("grid",)),
}
_NEEDS = {
    "fig1": (),
    "fig3": ("grid_a", "same"),
    "fig4": ("grid_a", "steady", "mdps"),
    "fig5": ("grid_b",),
    "fig6": ("grid_a", "fine", "mdps"),
    "fig7": ("grid_a",),
}


def run(
    directory,
    figures: Sequence[str] | None = None,
    scale: str = "quick",
    preset: str = "paper",
    progress: Callable[[float, float], None] | None = None,
    devices: int = 1,
) -> dict:
    """Runs the study, or some of its figures, into a directory.

    Args:
      directory: exists; gets `<figure>.png` and `.svg`, the runs as `<name>/result.nc`,
        `scoreboard.png` and `summary.json`.
      figures: of `FIGURES`; those of tables by default.
      scale: "smoke" (a look, a minute; with PPO a quarter of an hour), "quick" (enough seeds for
        the bands; PPO on pictures, for an accelerator) or "paper" (the author's full grids).
      preset: "paper" (the author's protocol) or "clean".
      progress: called with (done, total).
      devices: over which the agents are spread.

    Returns:
      The content of `summary.json`.
    """
    directory = results.place(directory)
    figures = tuple(f for f in FIGURES if f not in _DEEP) if not figures else tuple(figures)
    size, deep_size = (s[scale].replace(preset=preset) for s in (data.SCALES, deep_data.SCALES))
    tables = [f for f in figures if f not in _DEEP]
    needed = {n for f in tables for n in _NEEDS[f] if n != "mdps" or size.random_mdps}
    deep = {n for f in figures if f in _DEEP for n in _DEEP[f]}
    known = {**data.STAGES, **deep_data.STAGES}
    shares = {n: stage.seconds for n, stage in known.items() if n in needed | deep}
    meter = Meter(progress, shares, devices)
    runs = stage_runs.Runs(data.STAGES, size, meter, directory)
    of_ppo = stage_runs.Runs(deep_data.STAGES, deep_size, meter, directory)
    measured: dict = {}
    for name in figures:
        if name in _DEEP:
            measured |= deep_targets.measure(name, of_ppo)
            for stem, picture in deep_pictures.PICTURES[name](of_ppo).items():
                plotting.save(picture, directory / stem)
        else:
            measured |= _measure(name, runs, scale)
            for stem, picture in pictures.PICTURES[name](runs).items():
                plotting.save(picture, directory / stem)
    shown = {"".join(c for c in f if c.isdigit()) for f in figures}
    chosen = [
        *(t for t in targets.TARGETS if t.figure.split()[1][0] in shown & set("1234567")),
        *(t for t in deep_targets.TARGETS if deep_targets.FIGURE_OF[t.id] in figures),
    ]
    lines = [judge(t, *measured[t.id]) if t.id in measured else judge(t) for t in chosen]
    for name in sorted(needed):  # made in any case, and saved
        getattr(runs, name)
    plotting.save(plotting.scoreboard(lines), directory / "scoreboard")
    return conclude(
        directory,
        meter,
        lines,
        study=STUDY.name,
        scale=scale,
        preset=preset,
        figures=figures,
    )


def plan(figures: Sequence[str], scale: str, preset: str) -> dict:
    """What the figures about federated PPO run; those of tables take next to nothing."""
    size = deep_data.SCALES[scale].replace(preset=preset)
    return deep_data.plan(size, {n for f in figures if f in _DEEP for n in _DEEP[f]})


def _measure(name: str, runs: stage_runs.Runs, scale: str) -> dict:
    """What the targets of a figure come to; empty numbers where the scale has no runs for it."""
    if name == "fig1":
        return measures.fig1()
    if name == "fig3":
        out = measures.fig3(runs.grid_a, runs.same)
        return out if scale == "paper" else {k: v for k, v in out.items() if k != "T8"}
    if name == "fig4":
        out = measures.fig4(runs.grid_a, runs.steady)
        return out | (measures.other_mdps(runs.mdps) if runs.scale.random_mdps else {})
    if name == "fig5":
        return measures.fig5(runs.grid_b, complete=scale == "paper")
    if name == "fig6":
        return measures.fig6(runs.grid_a, runs.fine)
    return measures.fig7(runs.grid_a)


STUDY = Study(
    name="linear-speedup",
    paper="Einhorn, Federated Reinforcement Learning Has Linear Speedup (2023)",
    figures=FIGURES,
    presets=PRESETS,
    run=run,
    only_named=tuple(_DEEP),
    plan=plan,
)
