"""The pictures of the study `momentum`, one function per figure."""

# ruff: noqa: RUF001 -- the labels say α, λ and − as the papers do

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes

from fedjax_rl import plotting
from fedjax_rl.plotting import formats
from fedjax_rl.plotting.page import HAIR, legend_below, power_law
from fedjax_rl.plotting.style import GREY, OKABE_ITO
from fedjax_rl.studies import momentum_control_figures as control
from fedjax_rl.studies import momentum_data as data
from fedjax_rl.studies import momentum_measures as measures
from fedjax_rl.studies import momentum_targets as targets
from fedjax_rl.studies import variant_runs
from fedjax_rl.studies.intervals import slope
from fedjax_rl.studies.momentum_data import label
from fedjax_rl.studies.momentum_panels import (
    HA,
    NAMES,
    PLAIN,
    STYLES,
    SV,
    WORDS,
    at_step,
    curves,
    of,
    page,
)
from fedjax_rl.studies.policy_gradients import ends, late

# Exact gradients ----------------------------------------------------------------------------------


def _bias(runs) -> dict:
    own = runs.exact

    def at(name, metric):
        return ends(own, name, metric)

    both = ("gap", "gradient_norm")
    with plotting.style():
        figure, axes = page(
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
        dashed = list(shown)[3:]  # of the colours of the first three
        curves(third, of(own, shown), "gap", styles=styles, log=True, dashed=dashed)
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
        figure, axes = page("Exact gradients without entropy, M1, 8 agents, H = 10", 1, 2, 2.9)
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
        shown = of(own, {method: label(method, kappa=1.0) for method in methods})
        curves(right, shown, "gap", log=True)
        right.set_ylim(bottom=least)
        right.set_title("κ = 1")
        legend_below(figure, [left], 4)
    return {"kernels": figure}


# Sampled gradients on M2 --------------------------------------------------------------------------


def _error(runs) -> dict:
    own = runs.error
    with plotting.style():
        trials = variant_runs.trials(own, label("SV", beta=1.0))
        title = f"M2, λ = 0.05, {trials} trials, 95 % intervals"
        figure, (row,) = page(title, 1, 3, 2.6)
        first, second, third = row
        lines = {}
        for name, words in (("SV", SV), ("HA", HA)):
            plain = measures.errors(own, label(name, beta=1.0)).mean()
            lines[words] = {
                b: measures.errors(own, label(name, beta=b)) / plain for b in data.ERROR_BETAS
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
            points = {v: measures.errors(own, label("SV", **{letter: v})) for v in values}
            plotting.points(
                {SV: points}, x_label=words, y_label=WORDS["estimator_error"], axes=axis
            )
            power_law(axis, points, OKABE_ITO[0])
            axis.set_title(f"β = 0.2, {'H = 10' if letter == 'N' else 'N = 8'}")
            axis.text(
                0.05,
                0.06,
                f"slope {formats.interval(slope(points))}",
                transform=axis.transAxes,
                fontsize=7,
            )
    return {"estimator-error": figure}


def _speedup(runs) -> dict:
    own = runs.speedup
    kinds = {("SV", 0.3): f"{SV}, β = 0.3", ("HA", 0.3): f"{HA}, β = 0.3", ("SV", 1.0): PLAIN}
    styles = dict(zip(kinds.values(), (0, 1, 6), strict=True))
    gaps = {words: measures.speedup_of(own, *key, data.AGENTS) for key, words in kinds.items()}
    norms = {
        words: {n: late(own, label(m, beta=b, N=n), "gradient_norm") for n in data.AGENTS}
        for (m, b), words in kinds.items()
    }
    past = [n for n in data.AGENTS if n not in targets.FAR]
    near = {words: past for words in styles if words != PLAIN}
    with plotting.style():
        count = variant_runs.trials(own, label("SV", beta=0.3, N=8))
        figure, (row,) = page(f"M2, λ = 0.5, H = 5, {count} trials, 95 % intervals", 1, 2, 2.9)
        left, right = row
        more = {"styles": styles, "hollow": near, "dodge": 0.07, "x_label": "agents N"}
        plotting.points(gaps, y_label=WORDS["gap"], axes=left, **more)
        left.set_title("mean over the second half of the rounds")
        for name, points in gaps.items():
            power_law(left, {n: points[n] for n in targets.FAR}, OKABE_ITO[styles[name]])
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
        names = [f"{name}: slope {formats.interval(found[name])}" for name in names]
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
            if (count := measures.lost(own, at_step(method, x)).sum())
        }
        for method in NAMES
    }
    with plotting.style():
        count = variant_runs.trials(own, at_step("plain", 0.5))
        title = (
            f"M2, N = 8, H = 10, B = 4, η = 0.005, {int(own['time'][-1])} rounds, {count} trials, "
            "95 % intervals"
        )
        figure, (row,) = page(title, 1, 3, 2.7)
        for place, (axis, text) in enumerate(zip(row, words, strict=True)):
            lines = {
                NAMES[method]: {x: measures.tuned_of(own, method, x)[place] for x in data.LAMBDAS}
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
        legend_below(figure, [row[0]], 4, caption)
    return {"tuned": figure}


PICTURES: dict[str, Callable] = {
    "bias": _bias,
    "estimator-error": _error,
    "speedup": _speedup,
    "tuned": _tuned,
    "clipping": control.clipping,
    "kernels": _kernels,
    "hyperparameters": control.hyperparameters,
    "cartpole": control.cartpole,
    "authors": control.authors,
    "halfcheetah": control.halfcheetah,
}
