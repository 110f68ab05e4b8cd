"""Draws the pictures of the site, in light and in dark: `python docs/pictures.py [NAME ...]`.

Those of the concepts, and a small run of every algorithm; without names all of them. They are kept
beside the pages, as a build of the site should not have to simulate anything.
"""

from __future__ import annotations

import contextlib
import pathlib
import sys

import matplotlib as mpl
import numpy as np
from make import shown
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.ticker import MaxNLocator

import fedjax_rl as frl
from fedjax_rl.algorithms import ALGORITHMS
from fedjax_rl.plotting.style import OKABE_ITO, style

HERE = pathlib.Path(__file__).parent
BLUE, RED, GREEN, PINK, ORANGE, SKY = OKABE_ITO[:6]
# Ink, faint ink, and a blue that is seen on the ground.
THEMES = {"light": ("#24292F", "#7A8089", BLUE), "dark": ("#E2E6EA", "#8A93A0", "#4BA3DC")}
# A run of each unit of time, short: what matters is that every algorithm is there.
RUNS = {
    "step": {"num_steps": 2000, "record_every": 20},
    "episode": {"num_steps": 40, "record_every": 1},
    "round": {"num_steps": 20, "record_every": 1},
    "update": {"num_steps": 60, "record_every": 3},
    "epoch": {"num_steps": 12, "record_every": 3},
}
SETTINGS = {
    "fedppo": {"num_envs": 8, "rollout_steps": 64, "minibatches": 4, "learning_rate": 1e-3},
    "fedapg": {"local_steps": 2, "episodes_per_step": 8, "learning_rate": 0.005},
}
SHORT = {
    "feda2c": {"num_steps": 200, "record_every": 10},
    "feddqn": {"num_steps": 2000, "record_every": 100},
    "a3c": {"num_steps": 200, "record_every": 10},
    "fedapg": {"num_steps": 40, "record_every": 1},
    "fedppo": {"num_steps": 60, "record_every": 3},
    **{key: {"num_steps": 200, "record_every": 2} for key in ("dql", "ebcdql", "davia")},
}


@contextlib.contextmanager
def theme(name: str):
    """The house style on a ground without colour, in the ink of a theme."""
    ink, faint, blue = THEMES[name]
    inks = dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), ink
    )
    with style():
        mpl.rcParams.update(inks)
        mpl.rcParams.update(
            {
                "figure.facecolor": "none",
                "axes.facecolor": "none",
                "savefig.facecolor": "none",
                "legend.facecolor": "none",
                "grid.color": faint + "40",
                "svg.fonttype": "path",  # boxes fit their words whatever letters a reader has
            }
        )
        yield ink, faint, blue


def kept(figure: Figure, stem: str, name: str) -> None:
    """Writes a picture of a theme."""
    path = HERE / "assets" / f"{stem}-{name}.svg"
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})


def sheet(width: float, height: float):
    """An empty sheet, whose units are inches."""
    figure = Figure(figsize=(width, height), layout="none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.axis("off")
    return figure, axes


def box(axes, x, y, width, height, text, colour, ink, size=8, fill="22"):
    """A box with words in it."""
    shape = FancyBboxPatch(
        (x, y),
        width,
        height,
        boxstyle=f"round,pad=0,rounding_size={min(0.07, width / 4)}",
        lw=1.1,
        ec=colour,
        fc=colour + fill,
    )
    axes.add_patch(shape)
    axes.text(
        x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=size, color=ink
    )


def arrow(axes, start, end, colour, bend=0.0, both=False):
    """An arrow from one place to another."""
    form = "<|-|>" if both else "-|>"
    axes.add_patch(
        FancyArrowPatch(
            start,
            end,
            arrowstyle=form,
            mutation_scale=9,
            lw=1.1,
            color=colour,
            connectionstyle=f"arc3,rad={bend}",
            shrinkA=0,
            shrinkB=0,
        )
    )


def population(ink, faint, blue):
    """Federations side by side on one axis of agents."""
    figure, axes = sheet(6.6, 2.25)
    x, sizes = 0.25, [(1, blue), (1, blue), (2, GREEN), (2, GREEN), (4, RED), (4, RED)]
    place, wide = x, 0.37
    agent = 0
    for place_of, (size, colour) in enumerate(sizes):
        start = place
        for member in range(size):
            box(axes, place, 1.08, wide - 0.05, 0.42, str(member), colour, ink)
            place += wide
            agent += 1
        middle = (start + place - 0.05) / 2
        axes.plot(
            [start, start, place - 0.05, place - 0.05], [0.98, 0.9, 0.9, 0.98], color=colour, lw=1.1
        )
        axes.text(middle, 0.8, "mean", ha="center", va="top", fontsize=6.5, color=faint)
        axes.text(
            middle, 0.62, f"seed {place_of % 2}", ha="center", va="top", fontsize=6.5, color=ink
        )
        place += 0.13
    for at, text, colour in ((0.58, "N = 1", blue), (1.98, "N = 2", GREEN), (4.85, "N = 4", RED)):
        axes.text(at, 0.28, text, ha="center", fontsize=8.5, color=colour, weight="bold")
    arrow(axes, (0.25, 1.72), (place, 1.72), faint)
    axes.text(0.25, 1.86, "one axis A: every agent of every federation", fontsize=8, color=ink)
    return figure


def exchange(ink, faint, blue):
    """One trip up and down."""
    figure, axes = sheet(6.6, 2.7)
    for row, y in enumerate((2.0, 1.2, 0.4)):
        box(axes, 0.15, y, 1.0, 0.45, f"agent {row}\nwork", blue, ink, 7.5)
        box(axes, 2.05, y, 0.95, 0.45, "uplink", ORANGE, ink, 8)
        arrow(axes, (1.15, y + 0.225), (2.05, y + 0.225), blue)
        sent = row != 1
        if sent:
            arrow(axes, (3.0, y + 0.225), (3.9, 1.425 + (0.1 if row == 0 else -0.1)), ORANGE)
        else:
            axes.plot([3.0, 3.3], [y + 0.225] * 2, color=ORANGE, lw=1.1, ls=(0, (2, 2)))
            axes.text(3.36, y + 0.225, "silent", fontsize=7, color=faint, va="center")
    axes.text(1.6, 2.34, "message", ha="center", fontsize=7.5, color=ink)
    box(axes, 3.9, 1.12, 1.0, 0.6, "aggregate", GREEN, ink)
    box(axes, 5.45, 1.12, 0.95, 0.6, "server", RED, ink)
    arrow(axes, (4.9, 1.42), (5.45, 1.42), GREEN)
    axes.plot([5.92, 5.92, 0.05], [1.12, 0.14, 0.14], color=RED, lw=1.1)
    axes.plot([0.05, 0.05], [0.14, 2.22], color=RED, lw=1.1)
    for y in (2.225, 1.425, 0.625):
        arrow(axes, (0.05, y), (0.15, y), RED)
    axes.text(4.4, 0.2, "the model, back to everybody", ha="center", fontsize=7.5, color=ink)
    axes.text(
        5.0,
        2.3,
        "ledger: messages, floats,\nbytes, steps, time",
        ha="center",
        va="center",
        fontsize=7.5,
        color=ink,
    )
    arrow(axes, (4.15, 2.2), (3.35, 2.05), faint, 0.15)
    return figure


def sweep(ink, faint, blue):
    """From lists to a labelled result."""
    figure, axes = sheet(6.6, 2.3)
    lists = ["num_agents = [1, 4]", "learning_rate = [.1, .2]", "seeds = range(3)"]
    for row, text in enumerate(lists):
        box(axes, 0.1, 1.55 - 0.55 * row, 1.6, 0.4, text, blue, ink, 7)
    arrow(axes, (1.75, 1.2), (2.1, 1.2), faint)
    for i in range(12):
        box(
            axes,
            2.15 + 0.24 * (i % 4),
            1.5 - 0.3 * (i // 4),
            0.2,
            0.24,
            "",
            [GREEN, RED][i % 4 > 1],
            ink,
        )
    axes.text(2.61, 0.68, "12 cells", ha="center", fontsize=7.5, color=ink)
    arrow(axes, (3.15, 1.2), (3.5, 1.2), faint)
    for i in range(10):
        box(axes, 3.55 + 0.1 * i, 1.0, 0.085, 0.42, "", [GREEN, RED][i > 2], ink)
    axes.text(
        4.05, 0.68, "one population,\n30 agents", ha="center", va="center", fontsize=7.5, color=ink
    )
    arrow(axes, (4.6, 1.2), (4.95, 1.2), faint)
    box(
        axes,
        5.0,
        0.75,
        1.45,
        1.2,
        "xarray.Dataset\n\nnum_agents  2\nlearning_rate  2\nseed  3\ntime  100",
        ORANGE,
        ink,
        7,
    )
    axes.text(4.05, 1.88, "chunks of rounds", ha="center", fontsize=7.5, color=ink)
    arrow(axes, (3.75, 1.52), (4.35, 1.52), faint, -0.9)
    axes.text(
        3.3,
        0.1,
        "checked at first, compiled once, saved between chunks",
        ha="center",
        fontsize=7.5,
        color=faint,
    )
    return figure


def streams(ink, faint, blue):
    """Keys of a seed, of agents and of what they draw."""
    figure, axes = sheet(6.6, 2.55)
    for x, count, title in ((0.2, 2, "N = 2"), (2.95, 4, "N = 4")):
        middle = x + 0.43 * count
        box(axes, middle - 0.5, 2.0, 1.0, 0.36, "key(seed)", ORANGE, ink, 7.5)
        axes.text(middle + 0.62, 2.18, title, fontsize=8.5, color=ink, weight="bold", va="center")
        for i in range(count):
            at = x + 0.86 * i
            shared = i < 2
            colour = (blue, GREEN)[i] if shared else faint
            arrow(axes, (middle, 2.0), (at + 0.38, 1.52), faint)
            box(axes, at, 1.16, 0.76, 0.36, f"agent {i}", colour, ink, 7.5)
            arrow(axes, (at + 0.38, 1.16), (at + 0.38, 0.86), faint)
            rng = np.random.default_rng(i)
            bars = rng.random(9)
            for n, bar in enumerate(bars):
                axes.plot(
                    [at + 0.08 + 0.075 * n] * 2,
                    [0.5, 0.5 + 0.32 * bar],
                    color=colour,
                    lw=2.2,
                    solid_capstyle="butt",
                )
    axes.text(
        3.3,
        0.16,
        "agents 0 and 1 draw the same in both, whatever else there is",
        ha="center",
        fontsize=8,
        color=ink,
    )
    return figure


def ledger(ink, faint, blue):
    """Learning per round and per byte."""
    mdp = frl.envs.paper_mdp()
    ways = {
        "everything": frl.uplinks.full(),
        "two numbers": frl.uplinks.top_k(2),
        "signs": frl.uplinks.scaled_sign(),
    }
    result = frl.sweep(
        frl.fedq(mdp, epsilon=1.0, sync_period=20),
        uplink=list(ways.values()),
        num_agents=8,
        seeds=range(8),
        num_steps=4000,
        record_every=20,
    )
    figure = Figure(figsize=(6.6, 2.5), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    rounds = result.time.values / 20
    for place, (name, colour) in enumerate(zip(ways, (blue, GREEN, RED), strict=True)):
        own = result.isel(uplink=place)
        error = own.error_server.median("seed").values
        low, high = (own.error_server.quantile(q, "seed").values for q in (0.25, 0.75))
        # All exchanges cost the same.
        sent = float(own.bytes_up.mean()) / 1000 * rounds / rounds[-1]
        for axes, x in ((left, rounds), (right, sent)):
            axes.plot(x, error, color=colour, label=name)
            axes.fill_between(x, low, high, color=colour, alpha=0.2, lw=0)
    left.set(xlabel="rounds", ylabel="squared error of the server", yscale="log")
    right.set(xlabel="kilobytes sent", xscale="log")
    legend = left.legend(title=None)
    for text in legend.get_texts():
        text.set_color(ink)
    del faint
    return figure


def place_of(name: str):
    """Where there is something to be seen, if the smallest place is too small for that."""
    if name in ("dql", "ebcdql", "davia"):
        return frl.envs.simple_grid()
    if name in ("qavg", "pavg"):
        return frl.envs.tabular_task(frl.envs.dirichlet_mdps(8, kernels=0.5), max_steps=25)
    if name == "fedapg":
        return frl.envs.lqr()
    if name == "fedppo":
        return frl.envs.make("CartPole-v1")
    return None


def small_run(name: str):
    """A result of an algorithm: three seeds of one agent and of four."""
    place = place_of(name)
    algorithm = shown(name)[1] if place is None else ALGORITHMS[name].make(place)
    algorithm = algorithm.replace(**SETTINGS.get(name, {}))
    run = SHORT.get(name, RUNS[algorithm.unit])
    if name == "ef-td":
        run = {"num_steps": 2000, "record_every": 20}
    counts = [2, 8] if name in ("espc", "iw-es", "es") else [1, 4]
    metrics = (algorithm.headline,)
    return algorithm, frl.sweep(
        algorithm, num_agents=counts, seeds=range(3), metrics=metrics, **run
    )


def curves(algorithm, result, ink):
    """Median and range over the seeds, a line for every number of agents."""
    figure = Figure(figsize=(3.4, 2.1), layout="constrained")
    axes = figure.subplots()
    values = result[algorithm.headline]
    for place, colour in enumerate((SKY, RED)):
        own = values.isel(num_agents=place)
        axes.plot(own.time, own.median("seed"), color=colour, label=f"N = {int(own.num_agents)}")
        axes.fill_between(own.time, own.min("seed"), own.max("seed"), color=colour, alpha=0.2, lw=0)
    if algorithm.headline.endswith(("error", "gap", "error_server")) and float(values.min()) > 0:
        axes.set_yscale("log")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set(xlabel=f"{algorithm.unit}s", ylabel=algorithm.headline.replace("_", " "))
    for text in axes.legend().get_texts():
        text.set_color(ink)
    return figure


CONCEPTS = {one.__name__: one for one in (population, exchange, sweep, streams, ledger)}


def main(names: list[str]) -> None:
    """Draws what is named."""
    for name in names or [*CONCEPTS, *ALGORITHMS]:
        made = None if name in CONCEPTS else small_run(name)
        for mode in THEMES:
            with theme(mode) as inks:
                if made is None:
                    kept(CONCEPTS[name](*inks), f"concepts/{name}", mode)
                else:
                    kept(curves(*made, inks[0]), f"algorithms/{name}", mode)
        print(name, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
