"""The pictures of the study `momentum` on CartPole and HalfCheetah, and of the authors' code."""

from __future__ import annotations

import numpy as np

from fedjax_rl import plotting
from fedjax_rl.plotting.curve_page import FEWEST
from fedjax_rl.plotting.page import legend_below
from fedjax_rl.studies import momentum_data as data
from fedjax_rl.studies import momentum_measures as measures
from fedjax_rl.studies import momentum_targets as targets
from fedjax_rl.studies import variant_runs
from fedjax_rl.studies.momentum_data import label
from fedjax_rl.studies.momentum_panels import (
    FALLEN,
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
    spread,
)
from fedjax_rl.studies.policy_gradients import ends, late

# CartPole -----------------------------------------------------------------------------------------


def clipping(runs) -> dict:
    """Weights that are clipped: what they do to steps and to the return."""
    own, step = runs.sweeps, 0.003
    methods = {"plain": data.PLAIN_LAMBDAS, "SV": data.POLE_LAMBDAS, "SV clip": data.POLE_LAMBDAS}
    with plotting.style():
        count = variant_runs.trials(own, at_step("plain", step))
        title = f"CartPoles that differ, N = 5, H = B = 10, β = 1 or 0.2, {count} trials"
        figure, axes = page(title, 2, 3, 2.3)
        shown = of(own, {NAMES[m]: at_step(m, step) for m in methods})
        flat = axes.ravel()
        for axis, metric in zip(
            flat, ("weight_max", "weight_mean", "direction_norm", "return"), strict=False
        ):
            curves(axis, shown, metric, styles=STYLES, log=metric == "weight_max")
            axis.set_title(f"λ = {step:g}")
        number = targets.EARLY
        ends_ = {
            NAMES[m]: {x: measures.at(own, at_step(m, x), number) for x in steps}
            for m, steps in methods.items()
        }
        paths = {
            NAMES[m]: {
                float(measures.path(own, at_step(m, x), x).mean()): ends_[NAMES[m]][x]
                for x in steps
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
        legend_below(figure, [flat[3]], 3, f"clipped: w ≤ {data.CLIP:g}; {spread(count)}")
    return {"clipping": figure}


def hyperparameters(runs) -> dict:
    """Returns over β, λ, N and H."""
    own, step, clip = runs.sweeps, {"lambda": 0.003}, "SV clip"

    def over(name, letter, values, words):
        return of(own, {f"{words} = {v:g}": label(name, **{letter: v}) for v in values})

    hessian = {f"β = {b:g}": label("HA", beta=b, **step) for b in data.HA_BETAS}
    panels = {
        SV: over("SV", "beta", data.POLE_BETAS, "β"),
        f"{SV}, w ≤ {data.CLIP:g}": over(clip, "beta", data.POLE_BETAS, "β"),
        HA: of(runs.cartpole, hessian),
        "clipped, β = 0.2, η = λ / H": over(clip, "lambda", data.POLE_LAMBDAS, "λ"),
        "clipped, β = 0.2, agents": over(clip, "N", data.POLE_AGENTS, "N"),
        "clipped, β = 0.2, local steps": over(clip, "H", data.POLE_STEPS, "H"),
    }
    with plotting.style():
        count = variant_runs.trials(own, label(clip, **step))
        title = f"CartPoles that differ, λ = 0.003, N = 5, H = B = 10, {count} trials"
        figure, axes = page(title, 2, 3, 2.4)
        for axis, (words, shown) in zip(axes.ravel(), panels.items(), strict=True):
            place = "center right" if "λ /" in words else "lower right"
            curves(axis, shown, "return", legend=place)
            axis.set_title(words)
            axis.set_xlim(right=int(own["time"][-1]))
        for axis in axes[:, 1:].ravel():
            axis.set_ylabel("")
        figure.supxlabel(spread(count), fontsize=7)
    return {"hyperparameters": figure}


def cartpole(runs) -> dict:
    """All methods on CartPole."""
    own = runs.cartpole
    with plotting.style():
        count = variant_runs.trials(own, at_step("plain", 0.003))
        title = f"CartPoles that differ, N = 5, H = B = 10, {count} trials"
        figure, (row,) = page(title, 1, 3, 3.0)
        names = ("SCAFFOLD", "Fast-FedPG", "FedAvgM", "FedAdam")
        others = {"FedPG": at_step("plain", 0.01), **{n: label(n, eta=0.001) for n in names}}
        curves(row[0], of(own, others), "return", legend="lower right")
        row[0].set_title("η = 0.001")
        styles = {**STYLES, f"{HA}, β = 0.2": 1, f"{HA}, β = 0.5": 3}
        for axis, step in zip(row[1:], (0.003, 0.01), strict=True):
            shown = {NAMES[m]: at_step(m, step) for m in ("plain", "SV", "SV clip")}
            shown |= {
                f"{HA}, β = {b:g}": label("HA", beta=b, **{"lambda": step}) for b in (0.2, 0.5)
            }
            last = of(own, shown)
            curves(axis, last, "return", styles=styles)
            axis.set_title(f"λ = {step:g}, η = λ / H")
            axis.set_ylabel("")
        caption = f"FedSVRPG-M: β = 0.2; clipped: w ≤ {data.CLIP:g}; {spread(count)}"
        low = {
            words: int(np.sum(ends(own, n, "return") < FALLEN)) for words, (own, n) in last.items()
        }
        fallen = [f"{words}: {number} of {count}" for words, number in low.items() if number]
        if fallen:
            caption += f"\nend below {FALLEN} at λ = 0.01: {'; '.join(fallen)}"
        legend_below(figure, [row[1]], 5, caption)
    return {"cartpole": figure}


def authors(runs) -> dict:
    """The authors' code and another anchor beside the algorithm."""
    own, other, poles, theirs = (runs.tuned, runs.authors, runs.cartpole, runs.authors_cartpole)
    today = f"{SV}, anchor of today"
    styles = {SV: 0, today: 3, PLAIN: 6}
    with plotting.style():
        figure, axes = page("The authors' code, and another anchor, beside the algorithm", 2, 2)
        first, second, third, fourth = axes.ravel()
        sources = {SV: (own, "SV"), today: (other, "current"), PLAIN: (own, "plain")}
        lines = {
            words: {x: late(made, at_step(name, x), "estimator_error", 0.25) for x in data.ANCHORS}
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
            f"{SV}, λ = 0.5": (own, at_step("SV", 0.5)),
            f"{PLAIN}, λ = 0.5": (own, at_step("plain", 0.5)),
            **{
                f"authors' {words[3:]}, η = {e:g}": (other, label(f"{name} authors", eta=e))
                for name, words in (("SV", SV), ("HA", HA))
                for e in (0.25, 1.0)
            },
        }
        places = dict(zip(shown, (0, 6, 2, 4, 1, 3), strict=True))
        curves(second, shown, "gap", styles=places, log=True)
        second.set_ylim(4e-3, 4)
        second.legend(loc="upper right", ncols=2, fontsize=6, handlelength=1.2)
        second.set_title("M2, β = 0.1")
        alike = {"SV": at_step("SV clip", 0.003), "HA": label("HA", beta=0.2, **{"lambda": 0.003})}
        for axis, name, words in ((third, "SV", SV), (fourth, "HA", HA)):
            shown = {"the algorithm, λ = 0.003": (poles, alike[name])}
            shown |= {f"η = {e:g}": (theirs, label(name, beta=0.2, eta=e)) for e in data.POLE_ETAS}
            shown["η = 0.05, β = 1"] = (theirs, label(name, beta=1.0, eta=0.05))
            curves(axis, shown, "return")
            axis.set_title(f"CartPoles that differ: {words}, β = 0.2")
        count = variant_runs.trials(poles, alike["SV"])
        caption = f"CartPole, authors' code but for the algorithm, {count} trials; {spread(count)}"
        legend_below(figure, [third], 5, caption)
    return {"authors": figure}


def halfcheetah(runs) -> dict:
    """All methods on HalfCheetah."""
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
        figure, (row,) = page(title, 1, 2, 2.8)
        for axis, metric in zip(row, ("return", "direction_norm"), strict=True):
            curves(axis, of(own, shown), metric, log=metric == "direction_norm")
        row[0].set_ylim(auto=True)
        row[0].relim()
        row[0].autoscale_view()
        legend_below(figure, [row[0]], 4, spread(size.trials))
    return {"halfcheetah": figure}
