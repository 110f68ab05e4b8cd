"""What the study `communication-efficient` compares at the end of runs, and its theory."""

# ruff: noqa: RUF001 -- the labels say − as printed numbers do

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedjax_rl import analysis, plotting
from fedjax_rl.plotting import page as pages
from fedjax_rl.plotting.curve_page import curve_caption, episode_curves
from fedjax_rl.plotting.style import DASHES, GREY, MARKERS, OKABE_ITO, PAGE
from fedjax_rl.studies import communication_efficient_data as data
from fedjax_rl.studies import variant_runs
from fedjax_rl.studies.communication_efficient_panels import (
    LAST,
    PUBLISHED,
    TWO,
    thesis_page,
    untrained,
    variants,
)

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


def controls(runs) -> Figure:
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
        figure, ((axis,),) = pages.page(width=PAGE * 0.92, height=0.21 * len(rows) + 1.2)
        beside = axis.get_yaxis_transform()
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
                axis.text(column, place, text, transform=beside, va="center", fontsize=7)
        for column, text in ((1.03, "return"), (1.14, "messages\nper agent")):
            top = len(rows) - 0.35
            axis.text(column, top, text, transform=beside, va="bottom", fontsize=7, color=GREY)
        axis.set_yticks(range(len(rows)), [row[1] for row in rows])
        axis.set_ylim(-0.7, len(rows) - 0.3)
        axis.set_xlim(left=0)
        axis.set_xlabel(f"mean return of the last {LAST} episodes, 95 % interval of the mean")
        start = untrained(own)
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
        trials = variant_runs.trials(own, "ES n=50")
        axis.set_title(f"CartPole, {own.sizes['time']} episodes, {trials} trials")
        for kind, words in enumerate(_KINDS):
            if kind in {row[2] for row in rows}:
                axis.plot([], [], MARKERS[kind], color=OKABE_ITO[kind], label=words)
        figure.legend(loc="outside lower center", ncols=3)
    return figure


def _points(
    axis: Axes,
    x: Sequence[float],
    lines: Mapping[str, Sequence[np.ndarray]],
    first: int = 0,
    shift: float = 0.0,
) -> None:
    """Means of trials with 95 % intervals against a number, each line moved aside a little."""
    edge = {"markeredgecolor": "white", "markeredgewidth": 0.4, "markersize": 5}
    line = {"linewidth": 0.9, "linestyle": DASHES, "elinewidth": 1.2}
    for place, (name, trials) in enumerate(lines.items()):
        at = np.asarray(x, float) + shift * (place - (len(lines) - 1) / 2)
        found = [analysis.mean_interval(own) for own in trials]
        pages.errors(axis, at, found, first + place, label=name, **edge, **line)


_OWN = "not in the thesis: every agent takes off the mean of its own last returns (ES as above)"


def _senders(runs, prefix: str, values: Sequence[int], title: str, axis_words: str) -> dict:
    """Curves over a property, as published and with baselines, and the end against it."""
    own = runs.targets_and_windows
    raw = ["ES n=50", *(f"{prefix}={v}" for v in values)]
    centred = {"ES n=50": "ES n=50"} | {f"{label} own baseline": label for label in raw[1:]}
    curves = thesis_page(
        {PUBLISHED: variants(own, raw), _OWN: variants(own, centred)},
        TWO,
        title=title,
    )
    with plotting.style():
        end, ((axis,),) = pages.page(width=PAGE * 0.72)
        kinds = {"as in the thesis": "", "own baseline (not in the thesis)": " own baseline"}
        known = [v for v in sorted({*values, 25}) if f"{prefix}={v}" in own["label"].values]
        points = {
            words: [data.trial_means(own, f"{prefix}={v}{suffix}", LAST) for v in known]
            for words, suffix in kinds.items()
        }
        _points(axis, known, points, first=1, shift=(known[-1] - known[0]) / 80)
        es = analysis.mean_interval(data.trial_means(own, "ES n=50", LAST))
        axis.axhline(es.value, color=OKABE_ITO[0], linewidth=1, label="ES n=50")
        axis.axhspan(es.low, es.high, color=OKABE_ITO[0], alpha=0.14, linewidth=0)
        axis.set_xticks(known)
        axis.set_ylim(bottom=0)
        axis.set_xlabel(axis_words)
        axis.set_ylabel(f"mean return of the last {LAST} episodes")
        trials = variant_runs.trials(own, "ES n=50")
        axis.set_title(f"CartPole, {trials} trials, 95 % intervals of the mean")
        end.legend(loc="outside lower center", ncols=3)
    return {"": curves, "-end": end}


def fig4_8(runs) -> dict:
    """Messages wanted."""
    words = "messages wanted per episode, m of 50"
    title = "CartPole, 50 agents: messages wanted, m; window of 10 episodes"
    made = _senders(runs, "m", data.TARGETS_M, title, words)
    return {f"fig4-8{suffix}": figure for suffix, figure in made.items()}


def fig4_10(runs) -> dict:
    """Episodes in the window."""
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


def offset(runs) -> dict:
    """A constant added to every return."""
    own, shifts = runs.offset, (-data.OFFSET, 0.0, data.OFFSET)
    signs = {shift: f"{shift:+.0f}" if shift else "0" for shift in shifts}
    styles = {name: i for i, name in enumerate(_SHIFTED)}
    shown = [sign.replace("-", "−") for sign in signs.values()]
    with plotting.style():
        figure, ((axis,),) = pages.page(width=PAGE * 0.72, height=3.2)
        points = {
            name: [data.trial_means(own, f"{name} {sign}", LAST) for sign in signs.values()]
            for name in _SHIFTED
        }
        _points(axis, range(len(shifts)), points, shift=0.07)
        _steps(axis)
        start = untrained(own)
        pages.level(axis, start, f"untrained, {start:.1f}", below=True)
        axis.set_xticks(range(len(shifts)), shown)
        axis.set_xlabel("constant added to every return that the learner sees")
        axis.set_ylabel(f"return of the task, last {LAST} episodes")
        trials = variant_runs.trials(own, "ES 0")
        axis.set_title(f"CartPole, 50 agents, {trials} trials, 95 % intervals (not in the thesis)")
        figure.legend(loc="outside lower center", ncols=len(_SHIFTED))

        curves, (axes,) = pages.page(1, len(shifts), sharey=True)
        top, captions = 0.0, []
        for axis, sign, words in zip(axes, signs.values(), shown, strict=True):
            lines = variants(own, {f"{name} {sign}": name for name in _SHIFTED})
            drawn = episode_curves(axis, lines, "reward", "return of the task", styles)
            captions.append(curve_caption(lines, drawn))
            axis.set_title(f"{words} added to every return" if sign != "0" else "nothing added")
            top = max(top, axis.get_ylim()[1])
            axis.set_ylim(bottom=10)
            _steps(axis)
        axes[0].set_ylim(top=top)
        for axis in axes[1:]:
            axis.set_ylabel("")
        pages.fitted_below(curves, axes[0], captions[0])
    return {"offset": figure, "offset-curves": curves}


_METHODS = ("ES n=50", "ES n=25", "ES n=50 centred", "ES n=25 centred", "ESPC m=25")
# ESPC m=25 is fifth in both, for one colour.
_COUNTS = ("ESPC m=5", "ESPC m=15", "ESPC m=30", "ESPC m=45", "ESPC m=25")


def snr(runs) -> dict:
    """Signal to noise of the estimates: simulated, and in closed form."""
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
        figure, ((left, right),) = pages.page(1, 2, height=3.9, sharey=True)
        few = (*_METHODS, "own baseline m=25")
        panel(left, few, models, "everybody sends, or 25 of 50", (*few, ideal_name))
        few = (*_COUNTS, "own baseline m=15")
        shown = (*sorted(_COUNTS, key=lambda n: int(n.split("=")[1])), few[-1], ideal_name)
        panel(right, few, (ideal_name,), "m messages wanted of 50 agents", shown)
        right.set_ylabel("")
        words = "points: simulated, with two standard errors; full lines: closed form"
        pages.headline(figure, words, fontsize=8.5)
    return {"snr": figure}


# Learning against bytes.


def _front(own: xr.Dataset, last: int, value: str, title: str) -> Figure:
    """Return at the end against the bytes that the learner received in the whole run."""
    points: dict[str, dict] = {}
    silent = []
    for label in own["label"].values.tolist():
        name, setting = label.split("|", 1)
        trials = variant_runs.trials(own, label)
        cost = own["bytes_up"].sel(label=label).values[:trials]
        if cost.mean() == 0:  # has no place on a logarithmic axis
            silent.append(label.replace("|", " "))
            continue
        points.setdefault(name, {})[setting] = (cost, data.trial_means(own, label, last))
    cost = f"bytes that the learner receives in {own.sizes['time']} episodes"
    figure = plotting.pareto(points, cost=cost, value=value)
    with plotting.style():
        words = f"{title}, {variant_runs.trials(own, own['label'].values[0])} trials"
        words += f"; never sent: {', '.join(silent)}" if silent else ""
        pages.headline(figure, words)
    return figure


def pareto(runs) -> dict:
    """Learning against bytes, on CartPole and on a grid."""
    value = f"mean return of the last {LAST} episodes"
    grid = "discounted return, mean of the last 100 episodes"
    return {
        "pareto-cartpole": _front(runs.pareto, LAST, value, "CartPole, up to 50 agents"),
        "pareto-grid": _front(runs.pareto_grid, 100, grid, "Simple Grid, 5 agents"),
    }
