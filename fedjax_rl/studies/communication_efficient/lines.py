"""What the figures of Gunn (2023) share: settings, readings of runs, and pages of curves."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from fedjax_rl import analysis, envs
from fedjax_rl.plotting import page as pages
from fedjax_rl.plotting.style import GREY, MARKERS, OKABE_ITO
from fedjax_rl.studies.claims import effect
from fedjax_rl.studies.estimates import together
from fedjax_rl.studies.numbers import Number
from fedjax_rl.studies.pictures import Panel, curves, styles_of
from fedjax_rl.studies.runs import Stage

METRICS = ("reward", "frequency", "size")
# Evolution strategies on the grids; the thesis states the units and "momentum".
GRID_ES = {"network": (4, 4), "learning_rate": 0.01, "sigma": 0.3, "l2": 0.0}
GRID_ES |= {"optimizer": "momentum"}
# As stated in the thesis.
CARTPOLE_ES = {"network": (8, 8), "learning_rate": 0.01, "sigma": 0.05, "l2": 0.05}
ANT_ES = {"network": (64, 64), "learning_rate": 0.005, "sigma": 0.02, "l2": 0.05}
CENTRED, BASELINE = {"shaping": "center"}, {"baseline": "own_window"}
HALF = {"target_senders": 25}  # of 50 agents

# Places among the colours, the same in all pictures; dashed lines may share one.
STYLES = {"DQL": 0, "DQL first": 0, "EBCDQL": 1, "EBCDQL 0.8": 1, "EBCDQL 0.3": 1, "DAVIA": 2}
STYLES |= {"DAVIA tuned": 2, "EBCDQL 0.05": 4, "EBCDQL as coded": 5, "ES": 3, "ES centred": 6}
STYLES |= {"ESPC": 4, "ESPC own baseline": 1, "ESPC |F|": 2, "ES n=25": 5, "ES n=50": 3}
STYLES |= {"ESPC n=50": 4, "ES n=50 centred": 6, "ES n=25 centred": 0, "ES n=50 own baseline": 2}
STYLES |= {"as in the thesis": 4, "own baseline": 1, "ES goes on": 3}
STYLES |= {f"m={m}": place for place, m in enumerate((5, 10, 15, 50, 45, 30))}
STYLES |= {"k=3": 0, "k=10": 1, "k=30": 2}
# What is not in the thesis is dashed.
TAKEN = re.compile("centred|own baseline$")
OURS = {"DQL first", "EBCDQL 0.3", "EBCDQL as coded", "DAVIA tuned", "ESPC |F|", "own baseline"}

MINIMAL = (None, 0.1)  # messages per agent and episode
NEAR = (0.8, 1.25)  # ratios of what is the same
LAST = 20  # episodes at the end of a run on CartPole and Ant
_WORDS = {
    "reward": "return",
    "frequency": "messages per agent",
    "messages": "messages per episode",
    "size": "bytes per agent and episode",
}


def gunn_grid():
    """The Windy Grid of the author's code: one wind blows towards the goal, one away from it."""
    empty = ("S....", *["....."] * 3, "....G")
    actions = ("left", "right", "up", "down", "stay")
    return envs.grid_world(empty, actions, wind={"down": 0.3, "left": 0.3}, clip="twice")


def best_return(task) -> float:
    """The largest expected return from the first state of a grid world."""
    return float(envs.optimal_q(task.grid.mdp).max(-1)[0])


def attainable(task, epsilon: float = 0.1) -> float:
    """The largest expected return of a policy that takes a random action with a probability."""
    mdp = task.grid.mdp
    reward, value = envs.expected_reward(mdp), np.zeros(mdp.num_states)
    for _ in range(2000):
        q = reward + float(mdp.discount) * np.asarray(mdp.transition) @ value
        value = (1 - epsilon) * q.max(-1) + epsilon * q.mean(-1)
    return float(value[0])


def of_fifty(*labels: str) -> dict[str, dict]:
    """Lines of Fig. 4.5 by what the legend says: the agents and properties of each."""
    half, known = {"target_senders": 25}, {}
    for n in (25, 50):
        known[f"ES n={n}"] = {"num_agents": n, "target_senders": n}
        known[f"ES n={n} centred"] = known[f"ES n={n}"] | CENTRED
        known[f"ES n={n} ranks"] = known[f"ES n={n}"] | {"shaping": "rank"}
        known[f"ES n={n} own baseline"] = known[f"ES n={n}"] | BASELINE
    known["ESPC n=50"] = half
    known["ESPC own baseline"] = half | BASELINE
    return {label: {"num_agents": 50, **known[label]} for label in labels}


def fifty(algorithm, *labels: str) -> dict:
    """As `of_fifty`, with the algorithm."""
    return {label: (algorithm, own) for label, own in of_fifty(*labels).items()}


def end(stage: Stage, label, last: int = LAST, metric: str = "reward") -> Number:
    """Mean over the last episodes of every trial."""
    return stage[metric][label].last(last)


def over(stage: Stage, label, metric: str) -> Number:
    """Mean over all episodes of every trial."""
    return stage[metric][label].then(lambda array: array.mean("time"))


def episode(stage: Stage, label, which: int, metric: str = "reward") -> Number:
    """In one episode, counted from 1; in the last one of runs that are shorter."""
    return stage[metric][label].then(
        lambda array: array.isel(time=min(which, array.sizes["time"]) - 1)
    )


def pairs(number: Number, *differences: tuple[str, str]) -> list[Number]:
    """Differences of methods, the first minus the second."""
    return [number[a] - number[b] for a, b in differences]


def positive(id: str, quantity: str, *numbers: Number, **more):
    """Several effects in a row, all above 0; see `effect`."""
    band = ((0.0, None),) * len(numbers)
    return effect(id, quantity, together(*numbers), band=band, **more)


def messages(stage: Stage, agents: Mapping[str, int]) -> Number:
    """Messages per episode, of methods with so many agents."""
    times = xr.DataArray(list(agents.values()), {"method": list(agents)}, "method")
    return stage["frequency"][list(agents)].then(lambda array: array * times)


def row(
    stage: Stage,
    labels: Sequence[str],
    shown: Sequence[str] = METRICS,
    *,
    title: str = "",
    reward: str = "return",
    window: int = 1,
    level: tuple[float, str] | None = None,
    limits: tuple[float | None, float | None] | None = None,
    cumulative: bool = False,
    agents: Mapping[str, int] | None = None,
) -> list[Panel]:
    """Panels side by side: the return, how often messages are sent, and what they weigh.

    Args:
      stage: of the runs.
      labels: of the lines.
      shown: of "reward", "frequency", "messages", "size".
      title: above the first panel.
      reward: label of its axis.
      window: episodes in a running mean.
      level: a dotted line among the returns and its words.
      limits: ends of the axis of returns.
      cumulative: whether returns are summed.
      agents: of each line, for messages per episode.
    """
    made = []
    places = styles_of(list(labels), STYLES)
    for place, name in enumerate(shown):
        own = messages(stage, agents) if name == "messages" else stage[name]
        first = name == "reward"
        words = reward if first else _WORDS[name]
        options = {"level": level, "limits": limits, "cumulative": cumulative} if first else {}
        if name == "frequency":
            options["limits"] = (-0.03, 1.06)
        made.append(
            curves(
                own[list(labels)],
                title=title if place == 0 else "",
                y=words,
                log=name == "size",
                window=1 if first and cumulative else window,
                styles=places,
                dashed=[own for own in labels if own in OURS or TAKEN.search(own)],
                **options,
            )
        )
    return made


def forest(
    axis: Axes, rows: Mapping[str, tuple[np.ndarray, str, str]], value: str, beside: str
) -> None:
    """Means with 95 % intervals below one another, the largest above; colours are of groups.

    Args:
      axis: where to draw.
      rows: words -> trials [L], the group, and a number to be written at the right.
      value: label of the axis.
      beside: what the numbers at the right are.
    """
    groups = list(dict.fromkeys(group for _, group, _ in rows.values()))
    sorted_rows = sorted(rows.items(), key=lambda item: float(np.mean(item[1][0])))
    across = axis.get_yaxis_transform()
    for place, (_, (trials, group, text)) in enumerate(sorted_rows):
        found = analysis.mean_interval(trials)
        kind = groups.index(group)
        low, high = found.value - found.low, found.high - found.value
        axis.errorbar(
            found.value,
            place,
            xerr=[[low], [high]],
            color=OKABE_ITO[kind],
            marker=MARKERS[kind],
            capsize=2,
        )
        axis.text(1.02, place, text, transform=across, va="center", fontsize=7)
    axis.text(1.02, len(rows) - 0.35, beside, transform=across, fontsize=7, color=GREY)
    axis.set_yticks(range(len(rows)), [words for words, _ in sorted_rows])
    axis.set_ylim(-0.7, len(rows) - 0.3)
    axis.set_xlabel(value)
    for kind, group in enumerate(groups):
        axis.plot([], [], MARKERS[kind], color=OKABE_ITO[kind], label=group)


def untrained(axis: Axes, start: float) -> None:
    """A dotted upright line where learning began."""
    axis.axvline(start, label=f"untrained, {start:.1f}", **pages.HAIR)
