"""The pictures of the study `communication-efficient`, one function per figure of the thesis.

Lines of a picture that are not in the thesis have a row of panels of their own, or are dashed.
"""

# ruff: noqa: RUF001 -- the labels say − as printed numbers do

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedjax_rl import analysis, envs, plotting
from fedjax_rl.plotting.style import GREY, MARKERS, OKABE_ITO, PAGE, Picture
from fedjax_rl.studies import communication_efficient_data as data

LAST = 20  # episodes whose mean return is compared, as the targets do
SMOOTH = 10  # episodes averaged on a logarithmic axis, and where there are few trials
LEAST_BYTES = 0.05  # where such an axis ends at the latest
FEWEST = 5  # trials for an interval of the mean along a curve
LETTERS = 125  # of a legend across the page
PUBLISHED = "as in the thesis"

_WORDS = {
    "reward": "return",
    "frequency": "messages per agent",
    "messages": "messages per episode",
    "size": "bytes per agent and episode",
}
_GRID = {**{n: _WORDS[n] for n in ("reward", "frequency", "size")}, "reward": "discounted return"}
_DASHES = (0, (4, 2))


# Lines, pages of panels, and points with intervals.


def _line(runs: xr.Dataset, label: str) -> xr.Dataset:
    """One variant: `reward`, `frequency`, `size` and `messages` of its trials [seed, time]."""
    own = runs.sel(label=label)
    own = own.isel(seed=slice(int(own["trials"])))
    out = own[["reward", "frequency", "size"]].drop_vars("label")
    out["messages"] = out["frequency"] * own["num_agents"]
    out["time"].attrs["long_name"] = "episode"
    return out


def _lines(runs: xr.Dataset, labels: Collection[str] | Mapping[str, str]) -> dict[str, xr.Dataset]:
    """Variants by what the legend calls them; a mapping goes from label to that."""
    shown = labels if isinstance(labels, Mapping) else {label: label for label in labels}
    return {words: _line(runs, label) for label, words in shown.items()}


def _page(
    rows: Mapping[str, Mapping[str, xr.Dataset]],
    variables: Mapping[str, str],
    *,
    title: str = "",
    dashed: Collection[str] = (),
    cumulative: Collection[str] = (),
    smooth: Mapping[str, int] | None = None,
    best: float | None = None,
) -> Figure:
    """Rows of panels, one panel per variable, with one legend per row.

    Args:
      rows: title -> legend -> a variant; lines of one name look the same in all rows.
      variables: variable -> words of its axis.
      title: of the whole.
      dashed: names of lines that are dashed.
      cumulative: variables summed up to each episode.
      smooth: variable -> episodes in a running mean; that of messages' sizes has `SMOOTH`.
      best: the largest expected return, a dotted line in the panels of `reward`.
    """
    names = list(dict.fromkeys(name for lines in rows.values() for name in lines))
    styles = {name: i for i, name in enumerate(names)}
    with plotting.style():
        figure = Picture(figsize=(PAGE, 2.8 * len(rows) + (0.3 if title else 0)))
        if title:
            figure.suptitle(title, x=0.01, ha="left")
        parts = figure.subfigures(len(rows), 1, squeeze=False).ravel()
        panels: dict[str, list[Axes]] = {name: [] for name in variables}
        for part, (words, lines) in zip(parts, rows.items(), strict=True):
            axes = part.subplots(1, len(variables), squeeze=False).ravel()
            for axis, (name, label) in zip(axes, variables.items(), strict=True):
                panels[name].append(axis)
                _curves(axis, lines, name, label, styles, cumulative, smooth or {})
                if name == "reward" and best is not None:
                    _level(axis, best, f"optimum {best:.2f}".replace("-", "−"))
            _dash(axes, [styles[n] for n in dashed if n in lines])
            _legend_below(part, axes, "; dashed: not in the thesis" if dashed else "")
            if words:
                part.suptitle(words, x=0.01, ha="left", fontsize=8.5)
        for name, column in panels.items():  # one range for a variable
            low = min(axis.get_ylim()[0] for axis in column)
            high = max(axis.get_ylim()[1] for axis in column)
            for axis in column:
                axis.set_ylim({"frequency": (-0.03, 1.06)}.get(name, (low, high)))
    return figure


def _curves(
    axis: Axes,
    lines: Mapping[str, xr.Dataset],
    name: str,
    label: str,
    styles: Mapping[str, int],
    cumulative: Collection[str] = (),
    smooth: Mapping[str, int] | None = None,
) -> None:
    """One variable of some variants in one panel."""
    sizes = [own.sizes for own in lines.values()]
    logarithmic = name == "size"
    # Single messages late in a run would fill a logarithmic axis with lines from top to bottom.
    window = (smooth or {}).get(name, SMOOTH if logarithmic else 1)
    window = window if min(own["time"] for own in sizes) > 10 * window else 1
    plotting.banded_curves(
        lines,
        {name: f"{label}\n(running mean of {window})" if window > 1 else label},
        log=(name,) if logarithmic else (),
        cumulative=[n for n in cumulative if n == name],
        # Of very few trials it would be wider than the picture.
        level=0.95 if min(own["seed"] for own in sizes) >= FEWEST else None,
        window=window,
        styles=styles,
        axes=axis,
    )
    for band in axis.collections:  # the more of them, the paler
        if band.get_gid() == "band":
            band.set_alpha(min(0.16, 0.5 / len(lines)))
    axis.set_xlim(0, max(own["time"] for own in sizes) * 1.01)
    if axis.get_yscale() == "log" and not logarithmic:
        return
    if logarithmic:
        axis.set_ylim(bottom=max(axis.get_ylim()[0], LEAST_BYTES))
        return
    shown = [line.get_ydata() for line in axis.lines if line.get_gid() == "mean"]
    for band in axis.collections:
        if band.get_gid() == "band":
            shown += [path.vertices[:, 1] for path in band.get_paths()]
    shown = np.concatenate(shown)
    low, high = shown.min(), shown.max()
    room = 0.05 * (high - low) or 1.0
    axis.set_ylim(0.0 if name == "messages" else low - room, high + room)


def _dash(axes: Sequence[Axes], places: Collection[int]) -> None:
    """Dashes the lines with these styles, in the panels and in the legend."""
    legend = axes[0].get_legend()
    lines = [line for axis in axes for line in axis.lines if line.get_gid() == "mean"]
    for line in (*lines, *legend.get_lines(), *axes[0].lines):
        colour = line.get_color()
        if colour in OKABE_ITO and OKABE_ITO.index(colour) in places and line.get_gid() != "limit":
            line.set_linestyle(_DASHES)


def _legend_below(part, axes: Sequence[Axes], more: str = "", caption: str = "") -> None:
    """Moves the legend of the first panel below its row; takes those of the others away."""
    legend = axes[0].get_legend()
    # The axes say what is a running mean; it is not the same in all panels.
    found = legend.get_title().get_text().replace("\n", "; ").split(", running means")[0]
    caption = (caption or found) + more
    handles, labels = axes[0].get_legend_handles_labels()
    for axis in axes:
        if axis.get_legend() is not None:
            axis.get_legend().remove()
    fitting = LETTERS // (9 + max(map(len, labels)))
    columns = -(-len(labels) // -(-len(labels) // max(1, fitting)))
    part.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=columns,
        title=caption,
        title_fontsize=7,
        handlelength=2.4,
    )


def _level(axis: Axes, height: float, words: str, below: bool = False) -> None:
    """A dotted line across, with words at its right end, above it or below."""
    axis.axhline(height, color="black", linestyle=":", linewidth=1, zorder=5)
    axis.annotate(
        words,
        (1, height),
        (-2, -3 if below else 3),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        ha="right",
        va="top" if below else "bottom",
        fontsize=6.5,
        zorder=6,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.6},
    )


def _points(
    axis: Axes,
    x: Sequence[float],
    lines: Mapping[str, Sequence[np.ndarray]],
    styles: Mapping[str, int],
    shift: float = 0.0,
) -> None:
    """Means of trials with 95 % intervals against a number, each line moved aside a little."""
    for i, (name, trials) in enumerate(lines.items()):
        means, lows, highs = np.array([analysis.mean_interval(own) for own in trials]).T
        colour, place = OKABE_ITO[styles[name]], styles[name]
        axis.errorbar(
            np.asarray(x, float) + shift * (i - (len(lines) - 1) / 2),
            means,
            [means - lows, highs - means],
            color=colour,
            marker=MARKERS[place],
            markeredgecolor="white",
            markeredgewidth=0.4,
            markersize=5,
            linewidth=0.9,
            linestyle=_DASHES,
            elinewidth=1.2,
            capsize=2,
            label=name,
        )


def _best(task) -> float:
    """The largest expected return from the first state of a grid world."""
    return float(envs.optimal_q(task.grid.mdp).max(-1)[0])


def _trials(runs: xr.Dataset, label: str) -> int:
    return int(runs["trials"].sel(label=label))


# Chapter 3, and the grids of chapter 4.


def _fig3_4(runs) -> dict:
    figure = _page(
        {"": _lines(runs.simple, ("DQL", "EBCDQL", "DAVIA", "ES", "ES centred"))},
        _GRID,
        title="Simple Grid, 5 agents",
        dashed=("ES centred",),
        best=_best(envs.simple_grid()),
        smooth={"reward": SMOOTH},
    )
    return {"fig3-4": figure}


def _fig3_5(runs) -> dict:
    shown = {name: name for name in ("DQL", "EBCDQL 0.8", "EBCDQL 0.05", "DAVIA", "ES")}
    shown |= {"EBCDQL 0.8": "EBCDQL, floor 0.8", "EBCDQL 0.05": "EBCDQL, floor 0.05"}
    shown["DQL first index"] = first = "DQL, first of ties"
    figure = _page(
        {"": _lines(runs.lake, shown)},
        {**_GRID, "reward": "return"},
        title="Frozen Lake, 5 agents",
        dashed=(first,),
        cumulative=("reward",),
    )
    return {"fig3-5": figure}


def _fig4_2(runs) -> dict:
    ours = ("ES", "ES centred", "ESPC", "ESPC own baseline")
    figure = _page(
        {
            PUBLISHED: _lines(runs.windy, ("DQL", "EBCDQL", "DAVIA", "ES", "ESPC")),
            "not in the thesis: the mean taken off the returns (ES and ESPC as above)": _lines(
                runs.windy, ours
            ),
        },
        _GRID,
        title="Windy Grid, 30 agents, 15 messages wanted of ESPC",
        smooth={"reward": SMOOTH, "frequency": SMOOTH},
        best=_best(envs.windy_grid()),
    )
    return {"fig4-2": figure}


def _fig4_3(runs) -> dict:
    lines = _lines(runs.lake30, ("DQL", "EBCDQL", "DAVIA", "ES", "ESPC"))
    title = "Frozen Lake, 30 agents, 15 messages wanted of ESPC"
    # Successes are rare.
    smooth = {"reward": 5 * SMOOTH, "frequency": SMOOTH}
    return {"fig4-3": _page({"": lines}, _GRID, title=title, smooth=smooth)}


def _grids(runs) -> dict:
    many = ("ES", "ESPC", "ES centred", "ESPC |F|", "ESPC own baseline")
    styles = {name: i for i, name in enumerate(many)}
    panels = {
        "Simple Grid, 5 agents": (runs.simple, envs.simple_grid()),
        "Simple Grid, 30 agents": (runs.grids_by_es, envs.simple_grid()),
        "Windy Grid, 30 agents": (runs.windy, envs.windy_grid()),
    }
    with plotting.style():
        figure = Picture(figsize=(PAGE, 3.1))
        axes = figure.subplots(1, len(panels))
        for axis, (title, (own, task)) in zip(axes, panels.items(), strict=True):
            known = [name for name in many if name in own["label"].values]
            lines = _lines(own, known)
            smooth = {"reward": SMOOTH}
            _curves(axis, lines, "reward", "discounted return", styles, smooth=smooth)
            best = _best(task)
            _level(axis, best, f"optimum {best:.2f}".replace("-", "−"))
            axis.set_title(f"{title}, {_trials(own, known[0])} trials")
            _dash([axis], [styles[n] for n in many[2:]])
            axis.set_ylim(-10.4, -4.8)
        for axis in axes[1:]:
            axis.set_ylabel("")
        axes[0].get_legend().remove()
        caption = "means of the trials, 10 to 90 % of them shaded; dashed: not in the thesis"
        _legend_below(figure, axes[1:], caption=caption)
    return {"grids": figure}


# CartPole.

_THREE = ("ES n=25", "ES n=50", "ESPC n=50")
_BOTH = {n: _WORDS[n] for n in ("reward", "frequency", "messages")}


def _fig4_5(runs) -> dict:
    centred = (
        "ES n=25 centred",
        "ES n=50 centred",
        "ES n=50 own baseline",
        "ESPC own baseline",
        "ESPC n=50",
    )
    curves = _page(
        {
            PUBLISHED: _lines(runs.cartpole, _THREE),
            "not in the thesis, but for ESPC n=50 again: the mean taken off the returns": _lines(
                runs.cartpole, centred
            ),
        },
        _BOTH,
        title="CartPole: sampled actions, normal initial weights; 25 messages wanted of ESPC",
    )
    other = _page(
        {"": _lines(runs.setting_a, (*_THREE, "ES n=50 centred"))},
        _BOTH,
        title="CartPole, the other setting: best action, uniform initial weights",
        dashed=("ES n=50 centred",),
    )
    return {"fig4-5": curves, "fig4-5-controls": _controls(runs), "fig4-5-setting-a": other}


# label -> words and kind
_SELECTION, _MEAN = "another selection or weight", "mean taken off the returns, or ranks"
_KINDS = (PUBLISHED, _SELECTION, _MEAN)
_VARIANTS = {
    "ES n=25": ("ES n=25", PUBLISHED),
    "ES n=50": ("ES n=50", PUBLISHED),
    "ESPC n=50": ("ESPC n=50", PUBLISHED),
    "ESPC by F": ("ESPC, chosen by the return alone", _SELECTION),
    "ESPC by norm": ("ESPC, chosen by the norm of the noise alone", _SELECTION),
    "ESPC equal weights": ("ESPC, senders weigh the same", _SELECTION),
    "random half": ("ES n=50, a random half sends", _SELECTION),
    "ESPC literal variance": ("ESPC, divides by the variance, as printed", _SELECTION),
    "ES n=25 centred": ("ES n=25, centred", _MEAN),
    "ES n=50 centred": ("ES n=50, centred", _MEAN),
    "ES n=50 own baseline": ("ES n=50, own baseline", _MEAN),
    "ES n=50 mirrored": ("ES n=50, mirrored pairs", _MEAN),
    "ES n=50 z-scored": ("ES n=50, z-scored", _MEAN),
    "ES n=50 ranks": ("ES n=50, ranks", _MEAN),
    "ES n=25 ranks": ("ES n=25, ranks", _MEAN),
    "ESPC own baseline": ("ESPC, own baseline", _MEAN),
    "ESPC centred": ("ESPC, centred over the senders", _MEAN),
    "ESPC ranks": ("ESPC, ranks over the senders", _MEAN),
}


def _controls(runs) -> Figure:
    """Every variant's return at the end with its interval, and how much it sends."""
    own = runs.cartpole
    rows = []
    for label, (words, kind) in _VARIANTS.items():
        if label in own["label"].values:
            found = analysis.mean_interval(data.trial_means(own, label, LAST))
            sent = float(data.line(own, label, "frequency").mean())
            rows.append((found, words, _KINDS.index(kind), sent))
    rows.sort(key=lambda row: float(row[0].value))
    with plotting.style():
        figure = Picture(figsize=(PAGE * 0.92, 0.21 * len(rows) + 1.2))
        axis = figure.subplots()
        for place, ((mean, low, high), _, kind, sent) in enumerate(rows):
            axis.errorbar(
                mean,
                place,
                xerr=[[mean - low], [high - mean]],
                color=OKABE_ITO[kind],
                marker=MARKERS[kind],
                markersize=5.5,
                markeredgecolor="white",
                markeredgewidth=0.4,
                elinewidth=1.3,
                capsize=2,
            )
            for column, text in ((1.03, f"{mean:.0f}"), (1.14, f"{sent:.2f}")):
                axis.text(
                    column,
                    place,
                    text,
                    transform=axis.get_yaxis_transform(),
                    va="center",
                    fontsize=7,
                )
        for column, text in ((1.03, "return"), (1.14, "messages\nper agent")):
            axis.text(
                column,
                len(rows) - 0.35,
                text,
                transform=axis.get_yaxis_transform(),
                va="bottom",
                fontsize=7,
                color=GREY,
            )
        axis.set_yticks(range(len(rows)), [row[1] for row in rows])
        axis.set_ylim(-0.7, len(rows) - 0.3)
        axis.set_xlim(left=0)
        axis.set_xlabel(f"mean return of the last {LAST} episodes, 95 % interval of the mean")
        start = _untrained(own)
        axis.axvline(start, color="black", linestyle=":", linewidth=1, zorder=1)
        axis.annotate(
            f"untrained, {start:.1f}",
            (start, 0.99),
            (3, 0),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            va="top",
            fontsize=6.5,
        )
        trials = _trials(own, "ES n=50")
        axis.set_title(f"CartPole, {own.sizes['time']} episodes, {trials} trials")
        for kind, words in enumerate(_KINDS):
            if kind in {row[2] for row in rows}:
                axis.plot([], [], MARKERS[kind], color=OKABE_ITO[kind], label=words)
        figure.legend(loc="outside lower center", ncols=3)
    return figure


def _untrained(runs: xr.Dataset) -> float:
    """The mean return of the first episode, before anything was learned."""
    return float(np.nanmean(runs["reward"].values[:, :, 0]))


_TWO = {n: _WORDS[n] for n in ("reward", "frequency")}
_OWN = "not in the thesis: every agent takes off the mean of its own last returns (ES as above)"


def _senders(runs, prefix: str, values: Sequence[int], title: str, axis_words: str) -> dict:
    """Curves over a property, as published and with baselines, and the end against it."""
    own = runs.targets_and_windows
    raw = ["ES n=50", *(f"{prefix}={v}" for v in values)]
    centred = {"ES n=50": "ES n=50"} | {f"{label} own baseline": label for label in raw[1:]}
    curves = _page(
        {PUBLISHED: _lines(own, raw), _OWN: _lines(own, centred)},
        _TWO,
        title=title,
    )
    with plotting.style():
        end = Picture(figsize=(PAGE * 0.72, 3.0))
        axis = end.subplots()
        kinds = {"as in the thesis": "", "own baseline (not in the thesis)": " own baseline"}
        known = [v for v in sorted({*values, 25}) if f"{prefix}={v}" in own["label"].values]
        points = {
            words: [data.trial_means(own, f"{prefix}={v}{suffix}", LAST) for v in known]
            for words, suffix in kinds.items()
        }
        styles = {name: i + 1 for i, name in enumerate(kinds)}
        _points(axis, known, points, styles, shift=(known[-1] - known[0]) / 80)
        es = analysis.mean_interval(data.trial_means(own, "ES n=50", LAST))
        axis.axhline(es.value, color=OKABE_ITO[0], linewidth=1, label="ES n=50")
        axis.axhspan(es.low, es.high, color=OKABE_ITO[0], alpha=0.14, linewidth=0)
        axis.set_xticks(known)
        axis.set_ylim(bottom=0)
        axis.set_xlabel(axis_words)
        axis.set_ylabel(f"mean return of the last {LAST} episodes")
        axis.set_title(f"CartPole, {_trials(own, 'ES n=50')} trials, 95 % intervals of the mean")
        end.legend(loc="outside lower center", ncols=3)
    return {"": curves, "-end": end}


def _fig4_8(runs) -> dict:
    words = "messages wanted per episode, m of 50"
    title = "CartPole, 50 agents: messages wanted, m; window of 10 episodes"
    made = _senders(runs, "m", data.TARGETS_M, title, words)
    return {f"fig4-8{suffix}": figure for suffix, figure in made.items()}


def _fig4_10(runs) -> dict:
    words = "episodes in the window, k"
    title = "CartPole, 50 agents: episodes in the window, k; 25 messages wanted"
    made = _senders(runs, "k", data.WINDOWS_K, title, words)
    return {f"fig4-10{suffix}": figure for suffix, figure in made.items()}


_SHIFTED = ("ES", "ESPC", "ESPC |F|", "ESPC own baseline")


def _steps(axis: Axes) -> None:
    """A logarithmic axis of returns with plain numbers, over the range it had."""
    low, high = axis.get_ylim()
    axis.set_yscale("log")
    axis.set_yticks([10, 20, 50, 100, 200, 500], ["10", "20", "50", "100", "200", "500"])
    axis.minorticks_off()
    axis.set_ylim(max(low, 10), high)


def _offset(runs) -> dict:
    own, shifts = runs.offset, (-data.OFFSET, 0.0, data.OFFSET)
    signs = {shift: f"{shift:+.0f}" if shift else "0" for shift in shifts}
    styles = {name: i for i, name in enumerate(_SHIFTED)}
    shown = [sign.replace("-", "−") for sign in signs.values()]
    with plotting.style():
        figure = Picture(figsize=(PAGE * 0.72, 3.2))
        axis = figure.subplots()
        points = {
            name: [data.trial_means(own, f"{name} {sign}", LAST) for sign in signs.values()]
            for name in _SHIFTED
        }
        _points(axis, range(len(shifts)), points, styles, shift=0.07)
        _steps(axis)
        start = _untrained(own)
        _level(axis, start, f"untrained, {start:.1f}", below=True)
        axis.set_xticks(range(len(shifts)), shown)
        axis.set_xlabel("constant added to every return that the learner sees")
        axis.set_ylabel(f"return of the task, last {LAST} episodes")
        trials = _trials(own, "ES 0")
        axis.set_title(f"CartPole, 50 agents, {trials} trials, 95 % intervals (not in the thesis)")
        figure.legend(loc="outside lower center", ncols=len(_SHIFTED))

        curves = Picture(figsize=(PAGE, 3.0))
        axes = curves.subplots(1, len(shifts), sharey=True)
        top = 0.0
        for axis, sign, words in zip(axes, signs.values(), shown, strict=True):
            lines = _lines(own, {f"{name} {sign}": name for name in _SHIFTED})
            _curves(axis, lines, "reward", "return of the task", styles)
            axis.set_title(f"{words} added to every return" if sign != "0" else "nothing added")
            top = max(top, axis.get_ylim()[1])
            axis.set_ylim(bottom=10)
            _steps(axis)
        axes[0].set_ylim(top=top)
        for axis in axes[1:]:
            axis.set_ylabel("")
        _legend_below(curves, axes)
    return {"offset": figure, "offset-curves": curves}


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
    figure = _page(
        {
            PUBLISHED: _lines(runs.ant, _THREE),
            "not in the thesis, but for ESPC n=50 again: the mean taken off the returns": _lines(
                runs.ant, ours
            ),
        },
        {**_BOTH, "reward": "discounted return"},
        title=_ant_title(runs, "ant", 0, ""),
    )
    return {"fig4-6": figure}


def _ant_page(runs, stage: str, place: int, more: str) -> Figure:
    own = getattr(runs, stage)
    return _page(
        {"": _lines(own, own["label"].values.tolist())},
        {**_TWO, "reward": "discounted return"},
        title=_ant_title(runs, stage, place, more),
    )


def _fig4_9(runs) -> dict:
    return {"fig4-9": _ant_page(runs, "ant_targets", 1, ", messages wanted m")}


def _fig4_11(runs) -> dict:
    return {"fig4-11": _ant_page(runs, "ant_windows", 2, ", window k")}


# Theory.


def _fig4_1(runs) -> dict:
    return {"fig4-1": plotting.expected_communication()}


def _fig4_7(runs) -> dict:
    return {"fig4-7": plotting.first_communication()}


_METHODS = ("ES n=50", "ES n=25", "ES n=50 centred", "ES n=25 centred", "ESPC m=25")
# ESPC m=25 is fifth in both, for one colour.
_COUNTS = ("ESPC m=5", "ESPC m=15", "ESPC m=30", "ESPC m=45", "ESPC m=25")


def _snr(runs) -> dict:
    own = runs.noise
    ratio = own["ratio"].values
    fine = np.linspace(0, ratio.max(), 200)
    ideal, ideal_name = analysis.ideal_signal_to_noise, "exactly the best 25 of 50"
    models = {
        "ES n=50": (fine, ideal("raw", fine, 50)),
        "ES n=25": (fine, ideal("raw", fine, 25)),
        "ES n=50 centred": (fine, ideal("center", fine, 50)),
        "ES n=25 centred": (fine, ideal("center", fine, 25)),
        ideal_name: (fine, ideal("top", fine, 50, 25, num_parameters=130)),
    }

    def panel(axis, methods, chosen, title, shown):
        at = {name: own.sel({"method": name}) for name in methods}
        plotting.snr(
            ratio,
            {name: one["value"].values for name, one in at.items()},
            {name: models[name] for name in chosen},
            errors={name: one["standard_error"].values for name, one in at.items()},
            marks={"CartPole, about 2": 2.0},
            axes=axis,
        )
        axis.set_title(title)
        axis.set_xlabel("mean return over its deviation, b / S")
        axis.set_ylim(-0.1, 4.0)
        entries = dict(zip(*axis.get_legend_handles_labels()[::-1], strict=True))
        axis.legend(
            [entries[n] for n in shown],
            shown,
            loc="upper center",
            bbox_to_anchor=(0.5, -0.17),
            ncols=2,
            fontsize=7,
        )

    with plotting.style():
        figure = Picture(figsize=(PAGE, 3.9))
        left, right = figure.subplots(1, 2, sharey=True)
        few = (*_METHODS, "own baseline m=25")
        panel(left, few, models, "everybody sends, or 25 of 50", (*few, ideal_name))
        few = (*_COUNTS, "own baseline m=15")
        shown = (*sorted(_COUNTS, key=lambda n: int(n.split("=")[1])), few[-1], ideal_name)
        panel(right, few, (ideal_name,), "m messages wanted of 50 agents", shown)
        right.set_ylabel("")
        words = "points: simulated, with two standard errors; full lines: closed form"
        figure.suptitle(words, x=0.01, ha="left", fontsize=8.5)
    return {"snr": figure}


# Learning against bytes.


def _front(own: xr.Dataset, last: int, value: str, title: str) -> Figure:
    """Return at the end against the bytes that the learner received in the whole run."""
    points: dict[str, dict] = {}
    silent = []
    for label in own["label"].values.tolist():
        name, setting = label.split("|", 1)
        trials = _trials(own, label)
        cost = own["bytes_up"].sel(label=label).values[:trials]
        if cost.mean() == 0:  # has no place on a logarithmic axis
            silent.append(label.replace("|", " "))
            continue
        points.setdefault(name, {})[setting] = (cost, data.trial_means(own, label, last))
    cost = f"bytes that the learner receives in {own.sizes['time']} episodes"
    figure = plotting.pareto(points, cost=cost, value=value)
    with plotting.style():
        words = f"{title}, {_trials(own, own['label'].values[0])} trials"
        words += f"; never sent: {', '.join(silent)}" if silent else ""
        figure.suptitle(words, x=0.01, ha="left")
    return figure


def _pareto(runs) -> dict:
    value = f"mean return of the last {LAST} episodes"
    grid = "discounted return, mean of the last 100 episodes"
    return {
        "pareto-cartpole": _front(runs.pareto, LAST, value, "CartPole, up to 50 agents"),
        "pareto-grid": _front(runs.pareto_grid, 100, grid, "Simple Grid, 5 agents"),
    }


PICTURES: dict[str, Callable] = {
    "fig3-4": _fig3_4,
    "fig3-5": _fig3_5,
    "fig4-1": _fig4_1,
    "fig4-2": _fig4_2,
    "fig4-3": _fig4_3,
    "fig4-5": _fig4_5,
    "fig4-6": _fig4_6,
    "fig4-7": _fig4_7,
    "fig4-8": _fig4_8,
    "fig4-9": _fig4_9,
    "fig4-10": _fig4_10,
    "fig4-11": _fig4_11,
    "snr": _snr,
    "offset": _offset,
    "grids": _grids,
    "pareto": _pareto,
}
