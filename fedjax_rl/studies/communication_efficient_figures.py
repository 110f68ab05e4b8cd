"""The pictures of the study `communication-efficient`, one function per figure of the thesis.

Lines of a picture that are not in the thesis have a row of panels of their own, or are dashed.
"""

from __future__ import annotations

from collections.abc import Callable

from matplotlib.figure import Figure

from fedjax_rl import envs, plotting
from fedjax_rl.plotting.curve_page import SMOOTH, episode_curves
from fedjax_rl.plotting.page import fitted_below, level, page
from fedjax_rl.studies import communication_efficient_data as data
from fedjax_rl.studies import communication_efficient_ends as ends
from fedjax_rl.studies import variant_runs
from fedjax_rl.studies.communication_efficient_panels import (
    BOTH,
    PUBLISHED,
    THREE,
    TWO,
    WORDS,
    best_return,
    optimum,
    thesis_page,
    variants,
)

_GRID = {**{n: WORDS[n] for n in ("reward", "frequency", "size")}, "reward": "discounted return"}


# Chapter 3, and the grids of chapter 4.


def _fig3_4(runs) -> dict:
    figure = thesis_page(
        {"": variants(runs.simple, ("DQL", "EBCDQL", "DAVIA", "ES", "ES centred"))},
        _GRID,
        title="Simple Grid, 5 agents",
        dashed=("ES centred",),
        best=best_return(envs.simple_grid()),
        smooth={"reward": SMOOTH},
    )
    return {"fig3-4": figure}


def _fig3_5(runs) -> dict:
    shown = {name: name for name in ("DQL", "EBCDQL 0.8", "EBCDQL 0.05", "DAVIA", "ES")}
    shown |= {"EBCDQL 0.8": "EBCDQL, floor 0.8", "EBCDQL 0.05": "EBCDQL, floor 0.05"}
    shown["DQL first index"] = first = "DQL, first of ties"
    figure = thesis_page(
        {"": variants(runs.lake, shown)},
        {**_GRID, "reward": "return"},
        title="Frozen Lake, 5 agents",
        dashed=(first,),
        cumulative=("reward",),
    )
    return {"fig3-5": figure}


def _fig4_2(runs) -> dict:
    ours = ("ES", "ES centred", "ESPC", "ESPC own baseline")
    figure = thesis_page(
        {
            PUBLISHED: variants(runs.windy, ("DQL", "EBCDQL", "DAVIA", "ES", "ESPC")),
            "not in the thesis: the mean taken off the returns (ES and ESPC as above)": variants(
                runs.windy, ours
            ),
        },
        _GRID,
        title="Windy Grid, 30 agents, 15 messages wanted of ESPC",
        smooth={"reward": SMOOTH, "frequency": SMOOTH},
        best=best_return(envs.windy_grid()),
    )
    return {"fig4-2": figure}


def _fig4_3(runs) -> dict:
    lines = variants(runs.lake30, ("DQL", "EBCDQL", "DAVIA", "ES", "ESPC"))
    title = "Frozen Lake, 30 agents, 15 messages wanted of ESPC"
    # Successes are rare.
    smooth = {"reward": 5 * SMOOTH, "frequency": SMOOTH}
    return {"fig4-3": thesis_page({"": lines}, _GRID, title=title, smooth=smooth)}


def _grids(runs) -> dict:
    many = ("ES", "ESPC", "ES centred", "ESPC |F|", "ESPC own baseline")
    styles = {name: i for i, name in enumerate(many)}
    panels = {
        "Simple Grid, 5 agents": (runs.simple, envs.simple_grid()),
        "Simple Grid, 30 agents": (runs.grids_by_es, envs.simple_grid()),
        "Windy Grid, 30 agents": (runs.windy, envs.windy_grid()),
    }
    with plotting.style():
        figure, (axes,) = page(1, len(panels), height=3.1)
        for axis, (title, (own, task)) in zip(axes, panels.items(), strict=True):
            known = [name for name in many if name in own["label"].values]
            lines = variants(own, known)
            options = {"window": SMOOTH, "dashed": many[2:]}
            episode_curves(axis, lines, "reward", "discounted return", styles, **options)
            best = best_return(task)
            level(axis, best, optimum(best))
            axis.set_title(f"{title}, {variant_runs.trials(own, known[0])} trials")
            axis.set_ylim(-10.4, -4.8)
        for axis in axes[1:]:
            axis.set_ylabel("")
        caption = "means of the trials, 10 to 90 % of them shaded; dashed: not in the thesis"
        fitted_below(figure, axes[1], caption)
    return {"grids": figure}


# CartPole.


def _fig4_5(runs) -> dict:
    centred = (
        "ES n=25 centred",
        "ES n=50 centred",
        "ES n=50 own baseline",
        "ESPC own baseline",
        "ESPC n=50",
    )
    curves = thesis_page(
        {
            PUBLISHED: variants(runs.cartpole, THREE),
            "not in the thesis, but for ESPC n=50 again: the mean taken off the returns": variants(
                runs.cartpole, centred
            ),
        },
        BOTH,
        title="CartPole: sampled actions, normal initial weights; 25 messages wanted of ESPC",
    )
    other = thesis_page(
        {"": variants(runs.setting_a, (*THREE, "ES n=50 centred"))},
        BOTH,
        title="CartPole, the other setting: best action, uniform initial weights",
        dashed=("ES n=50 centred",),
    )
    return {"fig4-5": curves, "fig4-5-controls": ends.controls(runs), "fig4-5-setting-a": other}


# Ant.


def _ant_title(runs, stage: str, place: int, more: str) -> str:
    own, size = getattr(runs, stage), runs.scale.ant
    published = data.Ant()
    episodes, trials = own.sizes["time"], size.trials[place]
    title = f"Ant{more}: {trials} trials, {episodes} episodes of at most {size.max_steps} steps"
    if size != published:
        was = f"{published.trials[place]}, {published.episodes[place]} and {published.max_steps}"
        title += f" (thesis: {was})"
    return title


def _fig4_6(runs) -> dict:
    ours = ("ES n=50 centred", "ESPC own baseline", "ESPC n=50")
    figure = thesis_page(
        {
            PUBLISHED: variants(runs.ant, THREE),
            "not in the thesis, but for ESPC n=50 again: the mean taken off the returns": variants(
                runs.ant, ours
            ),
        },
        {**BOTH, "reward": "discounted return"},
        title=_ant_title(runs, "ant", 0, ""),
    )
    return {"fig4-6": figure}


def _ant_page(runs, stage: str, place: int, more: str) -> Figure:
    own = getattr(runs, stage)
    return thesis_page(
        {"": variants(own, own["label"].values.tolist())},
        {**TWO, "reward": "discounted return"},
        title=_ant_title(runs, stage, place, more),
    )


def _fig4_9(runs) -> dict:
    return {"fig4-9": _ant_page(runs, "ant_targets", 1, ", messages wanted m")}


def _fig4_11(runs) -> dict:
    return {"fig4-11": _ant_page(runs, "ant_windows", 2, ", window k")}


PICTURES: dict[str, Callable] = {
    "fig3-4": _fig3_4,
    "fig3-5": _fig3_5,
    "fig4-1": lambda runs: {"fig4-1": plotting.expected_communication()},
    "fig4-2": _fig4_2,
    "fig4-3": _fig4_3,
    "fig4-5": _fig4_5,
    "fig4-6": _fig4_6,
    "fig4-7": lambda runs: {"fig4-7": plotting.first_communication()},
    "fig4-8": ends.fig4_8,
    "fig4-9": _fig4_9,
    "fig4-10": ends.fig4_10,
    "fig4-11": _fig4_11,
    "snr": ends.snr,
    "offset": ends.offset,
    "grids": _grids,
    "pareto": ends.pareto,
}
