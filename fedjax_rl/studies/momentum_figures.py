"""The pictures of the study `momentum`, one function per figure."""

# ruff: noqa: RUF001 -- the labels say α, λ and − as the papers do

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedjax_rl import plotting
from fedjax_rl.plotting.style import GREY, OKABE_ITO, PAGE, Picture
from fedjax_rl.studies import momentum_data as data
from fedjax_rl.studies import momentum_targets as targets
from fedjax_rl.studies.measures import exponent, slope
from fedjax_rl.studies.momentum_data import label
from fedjax_rl.studies.policy_gradients import ends, late

FEWEST = 5  # trials for an interval of the mean along a curve; fewer are drawn each
SV, HA, PLAIN, CLIPPED = "FedSVRPG-M", "FedHAPG-M", "no momentum, β = 1", "FedSVRPG-M, clipped"
FALLEN = 75  # return that counts as lost where others reach 100
WORDS = {
    "gap": "gap J* − J",
    "gradient_norm": "norm of the gradient of J",
    "estimator_error": "squared error of u",
    "direction_norm": "norm of u",
    "return": "return",
    "weight_max": "largest weight of a round",
    "weight_mean": "mean weight of a round",
}
NAMES = {"plain": PLAIN, "SV": SV, "SV clip": CLIPPED, "HA": HA}
STYLES = {PLAIN: 6, SV: 0, HA: 1, CLIPPED: 2}
HAIR = {"color": GREY, "linestyle": ":", "linewidth": 1, "zorder": 1}


# Panels -------------------------------------------------------------------------------------------


def _page(title: str, rows: int, columns: int, height: float = 2.45) -> tuple[Figure, np.ndarray]:
    """A figure across the page with its axes [rows, columns]; call inside `plotting.style`."""
    figure = Picture(figsize=(PAGE, height * rows + 0.6))
    figure.suptitle(title, x=0.01, ha="left")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _trials(runs: xr.Dataset, name: str) -> int:
    return int(runs["trials"].sel(label=name))


def _curves(
    axis: Axes,
    shown: Mapping[str, tuple[xr.Dataset, str]],
    metric: str,
    *,
    styles: Mapping[str, int] | None = None,
    log: bool = False,
    dashed: Sequence[str] = (),
    legend: str = "",
) -> None:
    """A metric against rounds: words -> (runs, label); with a legend at a place, if any."""
    lines = {}
    for words, (runs, name) in shown.items():
        own = runs.sel(label=name).isel(seed=slice(_trials(runs, name)))
        lost = int(own["diverged"].sum())
        words = f"{words} ({lost} of {own.sizes['seed']} diverged)" if lost else words
        lines[words] = own[[metric]].drop_vars("label")
        lines[words]["time"].attrs["long_name"] = "round"
    places = range(len(shown)) if styles is None else (styles[words] for words in shown)
    styles = dict(zip(lines, places, strict=True))
    few = min(own.sizes["seed"] for own in lines.values()) < FEWEST
    plotting.banded_curves(
        lines,
        {metric: WORDS[metric]},
        log=(metric,) if log else (),
        level=None if few else 0.95,
        styles=styles,
        axes=axis,
    )
    for band in axis.collections:
        if band.get_gid() == "band":
            band.set_alpha(0.0 if few else min(0.16, 0.4 / len(lines)))
    for words, own in lines.items() if few else ():
        style = {"color": OKABE_ITO[styles[words]], "linewidth": 0.6, "alpha": 0.6, "gid": "limit"}
        axis.plot(own["time"], own[metric].values.T, **style)
    entries = zip(*axis.get_legend_handles_labels(), strict=True)
    for handle, words in entries:
        if words in dashed:
            for drawn in (handle, *axis.lines):
                if drawn.get_color() == handle.get_color() and drawn.get_gid() != "limit":
                    drawn.set_linestyle((0, (4, 2)))
    axis.get_legend().remove()
    if metric == "return":
        axis.set_ylim(0, 104)
    if legend:
        axis.legend(loc=legend)


def _below(figure: Figure, axes: Sequence[Axes], columns: int, caption: str = "") -> None:
    """One legend for several panels, each entry once."""
    entries: dict = {}
    for axis in axes:
        for handle, words in zip(*axis.get_legend_handles_labels(), strict=True):
            entries.setdefault(words, handle)
    figure.legend(
        entries.values(),
        entries.keys(),
        loc="outside lower center",
        ncols=columns,
        title=caption or None,
        title_fontsize=7,
        handlelength=2.4,
    )


def _of(runs: xr.Dataset, names: Mapping[str, str]) -> dict:
    """Words -> (runs, label), from words -> label."""
    return {words: (runs, name) for words, name in names.items()}


def _step(method: str, step: float) -> str:
    return label(method, **{"lambda": step})


def _interval(found: tuple) -> str:
    """A number and its interval in words."""
    value, low, high = found
    words = f"{value:.2f}"
    if low is not None:
        words += f" [{low:.2f}, {high:.2f}]"
    return words.replace("-", "−")


def _spread(count: int) -> str:
    """What the curves of that many trials show besides their mean."""
    if count < FEWEST:
        return "thick: mean; thin: every trial"
    return "means; shaded: 10 to 90 % of the trials; thin lines: 95 % interval of the mean"


# Exact gradients ----------------------------------------------------------------------------------


def _bias(runs) -> dict:
    own = runs.exact

    def at(name, metric):
        return ends(own, name, metric)

    both = ("gap", "gradient_norm")
    with plotting.style():
        figure, axes = _page(
            "Exact gradients, M1 with rewards and kernels of their own, 8 agents", 2, 2, 2.5
        )
        first, second, third, fourth = axes.ravel()
        plotting.points(
            {WORDS[m]: {b: at(label("SV", beta=b), m) for b in data.BETAS} for m in both},
            x_label="β",
            y_label="at the end",
            axes=first,
        )
        first.set_title("η = 0.1, H = 10: the bias does not depend on β")
        first.set_ylim(1e-4, 2e-2)
        first.legend(loc="center left")
        lines = {
            f"{words}, {WORDS[metric].split()[0]}": {
                e: at(label(name, eta=e), metric) for e in data.ETAS
            }
            for name, words in (("SV", "λ = 1"), ("PA", "averaging"))
            for metric in both
        }
        plotting.points(
            lines, x_label="η", y_label="at the end", dashed=list(lines)[2:], axes=second
        )
        second.set_title(f"after {int(own['time'][-1])} rounds of H = 10")
        second.legend(loc="lower right", fontsize=6.5)
        shown = {
            f"{words} η = {e:g}": label(name, eta=e)
            for name, words in (("SV", "λ = 1,"), ("PA", "averaging,"))
            for e in (0.1, 0.01, 0.001)
        }
        styles = {words: place % 3 for place, words in enumerate(shown)}
        _curves(third, _of(own, shown), "gap", styles=styles, log=True)
        _distinct(third)
        third.set_ylim(bottom=1e-8)
        third.set_title("a smaller η costs no rounds; averaging: dashed")
        third.legend(*_entries(third, 3), loc="upper right")
        norms = {h: at(label("SV", H=h), "gradient_norm") for h in data.FIXED}
        plotting.points(
            {"measured": norms},
            log="",
            x_label="local steps H, η = 1 / H",
            y_label=WORDS["gradient_norm"],
            axes=fourth,
        )
        fine = np.linspace(1, max(data.FIXED), 200)
        most = float(norms[max(data.FIXED)][0])
        last = max(data.FIXED)
        fourth.plot(fine, most * (fine - 1) / fine * last / (last - 1), **HAIR)
        fourth.annotate("∝ η (H − 1)", (6, most * 0.8), color=GREY, fontsize=7, va="top")
        fourth.set_ylim(bottom=-0.0003)
        fourth.set_xticks(data.FIXED)
        fourth.set_title("fixed η H: no bias at H = 1 only")
    return {"bias": figure}


def _distinct(axis: Axes) -> None:
    """Dashes the second half of the lines, which have the colours of the first."""
    means = [drawn for drawn in axis.lines if drawn.get_gid() == "mean"]
    for drawn in means[len(means) // 2 :]:
        drawn.set_linestyle((0, (4, 2)))


def _entries(axis: Axes, count: int) -> tuple:
    """The first entries of a legend, without what comes before the rate."""
    handles, words = axis.get_legend_handles_labels()
    return handles[:count], [w.split(", ")[-1] for w in words[:count]]


def _kernels(runs) -> dict:
    own, methods = runs.kernels, list(data._kernel_methods())
    least = 1e-5

    def gaps(method):
        return {k: np.maximum(ends(own, label(method, kappa=k)), 1e-9) for k in data.KAPPAS}

    with plotting.style():
        figure, axes = _page("Exact gradients without entropy, M1, 8 agents, H = 10", 1, 2, 2.9)
        left, right = axes.ravel()
        plotting.points(
            {method: gaps(method) for method in methods},
            x_label="κ: share of its own in every kernel and reward",
            y_label=WORDS["gap"],
            log="y",
            dodge=0.012,
            axes=left,
        )
        left.set_ylim(bottom=least)
        left.set_title("after all rounds; below the axis: exact")
        shown = _of(own, {method: label(method, kappa=1.0) for method in methods})
        _curves(right, shown, "gap", log=True)
        right.set_ylim(bottom=least)
        right.set_title("κ = 1")
        _below(figure, [left], 4)
    return {"kernels": figure}


# Sampled gradients on M2 --------------------------------------------------------------------------


def _error(runs) -> dict:
    own = runs.error
    with plotting.style():
        title = f"M2, λ = 0.05, {_trials(own, label('SV', beta=1.0))} trials, 95 % intervals"
        figure, (row,) = _page(title, 1, 3, 2.6)
        first, second, third = row
        lines = {}
        for name, words in (("SV", SV), ("HA", HA)):
            plain = targets.errors(own, label(name, beta=1.0)).mean()
            lines[words] = {
                b: targets.errors(own, label(name, beta=b)) / plain for b in data.ERROR_BETAS
            }
        plotting.points(
            lines, x_label="β", y_label="squared error of u, 1 at β = 1", dodge=0.06, axes=first
        )
        fine = np.geomspace(min(data.ERROR_BETAS), 1, 100)
        first.plot(fine, fine / (2 - fine), **{**HAIR, "color": "black"}, label="β / (2 − β)")
        first.legend(loc="lower right")
        first.set_title("N = 8, H = 10")
        for axis, letter, values, words in (
            (second, "N", data.AGENTS, "agents N"),
            (third, "H", data.STEPS, "local steps H"),
        ):
            points = {v: targets.errors(own, label("SV", **{letter: v})) for v in values}
            plotting.points(
                {SV: points}, x_label=words, y_label=WORDS["estimator_error"], axes=axis
            )
            _fit(axis, points, OKABE_ITO[0])
            axis.set_title(f"β = 0.2, {'H = 10' if letter == 'N' else 'N = 8'}")
            axis.text(
                0.05,
                0.06,
                f"slope {_interval(slope(points))}",
                transform=axis.transAxes,
                fontsize=7,
            )
    return {"estimator-error": figure}


def _fit(axis: Axes, points: Mapping[float, np.ndarray], colour: str) -> None:
    """The power law through the means, dotted."""
    x = np.array(list(points), float)
    means = np.array([own.mean() for own in points.values()])
    power = exponent(x, means)
    height = np.exp(np.mean(np.log(means) - power * np.log(x)))
    axis.plot(x, height * x**power, color=colour, linestyle=":", linewidth=1, zorder=1)


def _speedup(runs) -> dict:
    own = runs.speedup
    kinds = {("SV", 0.3): f"{SV}, β = 0.3", ("HA", 0.3): f"{HA}, β = 0.3", ("SV", 1.0): PLAIN}
    styles = dict(zip(kinds.values(), (0, 1, 6), strict=True))
    gaps = {words: targets.speedup_of(own, *key, data.AGENTS) for key, words in kinds.items()}
    norms = {
        words: {n: late(own, label(m, beta=b, N=n), "gradient_norm") for n in data.AGENTS}
        for (m, b), words in kinds.items()
    }
    past = [n for n in data.AGENTS if n not in targets.FAR]
    near = {words: past for words in styles if words != PLAIN}
    with plotting.style():
        count = _trials(own, label("SV", beta=0.3, N=8))
        figure, (row,) = _page(f"M2, λ = 0.5, H = 5, {count} trials, 95 % intervals", 1, 2, 2.9)
        left, right = row
        more = {"styles": styles, "hollow": near, "dodge": 0.07, "x_label": "agents N"}
        plotting.points(gaps, y_label=WORDS["gap"], axes=left, **more)
        left.set_title("mean over the second half of the rounds")
        for name, points in gaps.items():
            _fit(left, {n: points[n] for n in targets.FAR}, OKABE_ITO[styles[name]])
        left.axhline(targets.START, **HAIR)
        left.annotate(
            "untrained",
            (32, targets.START),
            (0, 2),
            textcoords="offset points",
            ha="right",
            fontsize=6.5,
            color=GREY,
        )
        found = {n: slope({x: p[x] for x in targets.FAR}) for n, p in gaps.items()}
        handles, names = left.get_legend_handles_labels()
        names = [f"{name}: slope {_interval(found[name])}" for name in names]
        plotting.points(norms, y_label=WORDS["gradient_norm"], axes=right, **more)
        right.set_title("a small gradient is no small gap")
        right.set_ylim(0.05, 0.22)
        figure.legend(
            handles,
            names,
            loc="outside lower center",
            ncols=2,
            title="slopes and dotted lines: N = 8 to 32; hollow: past the limit of stability",
            title_fontsize=7,
        )
    return {"speedup": figure}


def _tuned(runs) -> dict:
    own = runs.tuned
    words = (WORDS["gap"], "squared norm of the gradient of J", WORDS["estimator_error"])
    lost = {
        NAMES[method]: {
            x: int(count)
            for x in data.LAMBDAS
            if (count := targets.lost(own, _step(method, x)).sum())
        }
        for method in NAMES
    }
    with plotting.style():
        count = _trials(own, _step("plain", 0.5))
        title = (
            f"M2, N = 8, H = 10, B = 4, η = 0.005, {int(own['time'][-1])} rounds, {count} trials, "
            "95 % intervals"
        )
        figure, (row,) = _page(title, 1, 3, 2.7)
        for place, (axis, text) in enumerate(zip(row, words, strict=True)):
            lines = {
                NAMES[method]: {x: targets.tuned_of(own, method, x)[place] for x in data.LAMBDAS}
                for method in NAMES
            }
            plotting.points(
                lines,
                x_label="server's step λ",
                y_label=text,
                styles=STYLES,
                hollow=lost,
                dodge=0.05,
                axes=axis,
            )
        row[0].axhline(targets.START, **HAIR)
        caption = "β = 0.1 with momentum; clipped: w ≤ 1.5; hollow: runs lost, worse than untrained"
        told = [
            f"{name} λ = {x:g}: {k} of {count}" for name, at in lost.items() for x, k in at.items()
        ]
        half = -(-len(told) // 2)
        for part in (told[:half], told[half:]):
            caption += f"\n{'; '.join(part)}" if part else ""
        _below(figure, [row[0]], 4, caption)
    return {"tuned": figure}


# CartPole -----------------------------------------------------------------------------------------


def _clipping(runs) -> dict:
    own, step = runs.sweeps, 0.003
    methods = {"plain": data.PLAIN_LAMBDAS, "SV": data.POLE_LAMBDAS, "SV clip": data.POLE_LAMBDAS}
    with plotting.style():
        count = _trials(own, _step("plain", step))
        title = f"CartPoles that differ, N = 5, H = B = 10, β = 1 or 0.2, {count} trials"
        figure, axes = _page(title, 2, 3, 2.3)
        shown = _of(own, {NAMES[m]: _step(m, step) for m in methods})
        flat = axes.ravel()
        for axis, metric in zip(
            flat, ("weight_max", "weight_mean", "direction_norm", "return"), strict=False
        ):
            _curves(axis, shown, metric, styles=STYLES, log=metric == "weight_max")
            axis.set_title(f"λ = {step:g}")
        number = targets.EARLY
        ends_ = {
            NAMES[m]: {x: targets.at(own, _step(m, x), number) for x in steps}
            for m, steps in methods.items()
        }
        paths = {
            NAMES[m]: {
                float(targets.path(own, _step(m, x), x).mean()): ends_[NAMES[m]][x] for x in steps
            }
            for m, steps in methods.items()
        }
        words = f"return at round {number}"
        for axis, lines, text in (
            (flat[4], ends_, "server's step λ"),
            (flat[5], paths, f"Σ λ ‖u‖ of {number} rounds"),
        ):
            few = {"each": count < FEWEST, "styles": STYLES, "axes": axis}
            plotting.points(lines, x_label=text, y_label=words, log="x", **few)
            axis.set_ylim(0, 104)
        flat[4].set_title("at equal λ")
        flat[4].set_xticks(data.POLE_LAMBDAS, [f"{x:g}" for x in data.POLE_LAMBDAS])
        flat[5].set_title("at equal lengths of steps")
        _below(figure, [flat[3]], 3, f"clipped: w ≤ {data.CLIP:g}; {_spread(count)}")
    return {"clipping": figure}


def _hyperparameters(runs) -> dict:
    own, step, clip = runs.sweeps, {"lambda": 0.003}, "SV clip"

    def over(name, letter, values, words):
        return _of(own, {f"{words} = {v:g}": label(name, **{letter: v}) for v in values})

    hessian = {f"β = {b:g}": label("HA", beta=b, **step) for b in data.HA_BETAS}
    panels = {
        SV: over("SV", "beta", data.POLE_BETAS, "β"),
        f"{SV}, w ≤ {data.CLIP:g}": over(clip, "beta", data.POLE_BETAS, "β"),
        HA: _of(runs.cartpole, hessian),
        "clipped, β = 0.2, η = λ / H": over(clip, "lambda", data.POLE_LAMBDAS, "λ"),
        "clipped, β = 0.2, agents": over(clip, "N", data.POLE_AGENTS, "N"),
        "clipped, β = 0.2, local steps": over(clip, "H", data.POLE_STEPS, "H"),
    }
    with plotting.style():
        count = _trials(own, label(clip, **step))
        title = f"CartPoles that differ, λ = 0.003, N = 5, H = B = 10, {count} trials"
        figure, axes = _page(title, 2, 3, 2.4)
        for axis, (words, shown) in zip(axes.ravel(), panels.items(), strict=True):
            place = "center right" if "λ /" in words else "lower right"
            _curves(axis, shown, "return", legend=place)
            axis.set_title(words)
            axis.set_xlim(right=int(own["time"][-1]))
        for axis in axes[:, 1:].ravel():
            axis.set_ylabel("")
        figure.supxlabel(_spread(count), fontsize=7)
    return {"hyperparameters": figure}


def _cartpole(runs) -> dict:
    own = runs.cartpole
    with plotting.style():
        count = _trials(own, _step("plain", 0.003))
        title = f"CartPoles that differ, N = 5, H = B = 10, {count} trials"
        figure, (row,) = _page(title, 1, 3, 3.0)
        names = ("SCAFFOLD", "Fast-FedPG", "FedAvgM", "FedAdam")
        others = {"FedPG": _step("plain", 0.01), **{n: label(n, eta=0.001) for n in names}}
        _curves(row[0], _of(own, others), "return", legend="lower right")
        row[0].set_title("η = 0.001")
        styles = {**STYLES, f"{HA}, β = 0.2": 1, f"{HA}, β = 0.5": 3}
        for axis, step in zip(row[1:], (0.003, 0.01), strict=True):
            shown = {NAMES[m]: _step(m, step) for m in ("plain", "SV", "SV clip")}
            shown |= {
                f"{HA}, β = {b:g}": label("HA", beta=b, **{"lambda": step}) for b in (0.2, 0.5)
            }
            last = _of(own, shown)
            _curves(axis, last, "return", styles=styles)
            axis.set_title(f"λ = {step:g}, η = λ / H")
            axis.set_ylabel("")
        caption = f"FedSVRPG-M: β = 0.2; clipped: w ≤ {data.CLIP:g}; {_spread(count)}"
        low = {
            words: int(np.sum(ends(own, n, "return") < FALLEN)) for words, (own, n) in last.items()
        }
        fallen = [f"{words}: {number} of {count}" for words, number in low.items() if number]
        if fallen:
            caption += f"\nend below {FALLEN} at λ = 0.01: {'; '.join(fallen)}"
        _below(figure, [row[1]], 5, caption)
    return {"cartpole": figure}


def _authors(runs) -> dict:
    own, other, poles, theirs = (runs.tuned, runs.authors, runs.cartpole, runs.authors_cartpole)
    today = f"{SV}, anchor of today"
    styles = {SV: 0, today: 3, PLAIN: 6}
    with plotting.style():
        figure, axes = _page("The authors' code, and another anchor, beside the algorithm", 2, 2)
        first, second, third, fourth = axes.ravel()
        sources = {SV: (own, "SV"), today: (other, "current"), PLAIN: (own, "plain")}
        lines = {
            words: {x: late(made, _step(name, x), "estimator_error", 0.25) for x in data.ANCHORS}
            for words, (made, name) in sources.items()
        }
        plotting.points(
            lines,
            x_label="server's step λ",
            y_label=WORDS["estimator_error"],
            styles=styles,
            dodge=0.05,
            axes=first,
        )
        first.set_title("M2, β = 0.1")
        first.legend(loc="center left", bbox_to_anchor=(0, 0.62))
        shown = {
            f"{SV}, λ = 0.5": (own, _step("SV", 0.5)),
            f"{PLAIN}, λ = 0.5": (own, _step("plain", 0.5)),
            **{
                f"authors' {words[3:]}, η = {e:g}": (other, label(f"{name} authors", eta=e))
                for name, words in (("SV", SV), ("HA", HA))
                for e in (0.25, 1.0)
            },
        }
        places = dict(zip(shown, (0, 6, 2, 4, 1, 3), strict=True))
        _curves(second, shown, "gap", styles=places, log=True)
        second.set_ylim(4e-3, 4)
        second.legend(loc="upper right", ncols=2, fontsize=6, handlelength=1.2)
        second.set_title("M2, β = 0.1")
        alike = {"SV": _step("SV clip", 0.003), "HA": label("HA", beta=0.2, **{"lambda": 0.003})}
        for axis, name, words in ((third, "SV", SV), (fourth, "HA", HA)):
            shown = {"the algorithm, λ = 0.003": (poles, alike[name])}
            shown |= {f"η = {e:g}": (theirs, label(name, beta=0.2, eta=e)) for e in data.POLE_ETAS}
            shown["η = 0.05, β = 1"] = (theirs, label(name, beta=1.0, eta=0.05))
            _curves(axis, shown, "return")
            axis.set_title(f"CartPoles that differ: {words}, β = 0.2")
        count = _trials(poles, alike["SV"])
        caption = f"CartPole, authors' code but for the algorithm, {count} trials; {_spread(count)}"
        _below(figure, [third], 5, caption)
    return {"authors": figure}


def _halfcheetah(runs) -> dict:
    own, size = runs.halfcheetah, runs.scale.cheetah
    names = {"SV clip": f"{SV}, β = 0.2, w ≤ {data.CLIP:g}", "HA": f"{HA}, β = 0.5"}
    shown = {names.get(n, n): n for n in own["label"].values.tolist()}
    with plotting.style():
        title = (
            f"HalfCheetah, N = {size.num_agents}, H = {size.local_steps}, B = {size.episodes}, "
            f"episodes of {size.max_steps} steps, {size.trials} trials"
        )
        if size != data.Cheetah():
            title += f" (authors: {data.Cheetah().max_steps} steps, B = {data.Cheetah().episodes})"
        figure, (row,) = _page(title, 1, 2, 2.8)
        for axis, metric in zip(row, ("return", "direction_norm"), strict=True):
            _curves(axis, _of(own, shown), metric, log=metric == "direction_norm")
        row[0].set_ylim(auto=True)
        row[0].relim()
        row[0].autoscale_view()
        _below(figure, [row[0]], 4, _spread(size.trials))
    return {"halfcheetah": figure}


PICTURES: dict[str, Callable] = {
    "bias": _bias,
    "estimator-error": _error,
    "speedup": _speedup,
    "tuned": _tuned,
    "clipping": _clipping,
    "kernels": _kernels,
    "hyperparameters": _hyperparameters,
    "cartpole": _cartpole,
    "authors": _authors,
    "halfcheetah": _halfcheetah,
}
