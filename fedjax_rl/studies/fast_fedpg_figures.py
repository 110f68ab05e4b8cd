"""The pictures of the study `fast-fedpg`; the paper has none."""

# ruff: noqa: RUF001 -- the labels say − as printed numbers do

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatterMathtext, LogLocator, MaxNLocator

from fedjax_rl import analysis, plotting
from fedjax_rl.plotting import formats
from fedjax_rl.plotting.page import describe, legend_below, page, shaded
from fedjax_rl.plotting.regressions import ticks
from fedjax_rl.plotting.style import GREY, MARKERS, OKABE_ITO, PAGE
from fedjax_rl.studies import fast_fedpg_data as data
from fedjax_rl.studies import fast_fedpg_exact as exact
from fedjax_rl.studies import fast_fedpg_measures as measures
from fedjax_rl.studies import fast_fedpg_targets as targets
from fedjax_rl.studies import variant_runs
from fedjax_rl.studies.intervals import slope

LEAST = 1e-16  # of a bar
ROUNDING = 1e-13  # of a gap
STYLES = {"FedPG": 1, "SCAFFOLD-PG": 2, "Fast-FedPG": 0}
COLOURS = {name: OKABE_ITO[place] for name, place in STYLES.items()}


def _powers(
    axis: Axes, lines: Mapping[str, Mapping[float, np.ndarray]], styles: Mapping[str, int], y: str
) -> None:
    """Trials [L] by legend and number of agents, with the exponents in the legend."""
    said = {}
    for name, own in lines.items():
        said[name] = f"{name}: {formats.interval(slope(own))}"
    plotting.points(
        {said[name]: own for name, own in lines.items()},
        x_label="agents",
        y_label=y,
        styles={said[name]: styles[name] for name in lines},
        axes=axis,
    )
    axis.legend(title="exponent", loc="lower left")


def _estimators(runs) -> dict:
    own, errors = runs.average, runs.estimators
    with plotting.style():
        figure, ((left, right),) = page(1, 2, height=3.3)
        names = list(errors["estimator"].values)
        values = np.maximum(errors["error"].values, LEAST)
        colours = [OKABE_ITO[0] if r else OKABE_ITO[1] for r in errors["right"].values]
        places = np.arange(len(names))[::-1]
        left.barh(places, values - LEAST, left=LEAST, color=colours, height=0.6)
        left.set_yticks(places, names)
        left.set_xscale("log")
        left.set_xlim(LEAST, 1)
        left.grid(axis="y", visible=False)
        describe(left, "expected error over all episodes", "largest entry", "")
        level = own["level"].values[1:]
        right.loglog(level, own["relative"].values[1:], "o-", color=OKABE_ITO[1], markersize=4.5)
        right.loglog(
            level, own["relative"].values[1] * level / level[0], ":", color=GREY, label="∝ level"
        )
        right.annotate(
            f"one kernel: {own['relative'].values[0]:.0e}".replace("-", "−"),
            (0.04, 0.9),
            xycoords="axes fraction",
        )
        right.legend(loc="lower right")
        ticks(right.xaxis, 10.0, level)
        describe(
            right,
            "mean gradient − that of the mean MDP",
            "level by which the kernels differ",
            "relative difference",
        )
    return {"estimators": figure}


def _exact(runs) -> dict:
    own = runs.exact
    lines = {
        "left": {
            "FedPG": ("FedPG H=10", "-", COLOURS["FedPG"]),
            "Fast-FedPG": ("Fast-FedPG H=10", "-", COLOURS["Fast-FedPG"]),
            "SCAFFOLD-PG": ("SCAFFOLD-PG H=10", "--", COLOURS["SCAFFOLD-PG"]),
            "FedPG, kernels differ": ("FedPG kernels", ":", COLOURS["FedPG"]),
            "Fast-FedPG, kernels differ": ("Fast-FedPG kernels", ":", COLOURS["Fast-FedPG"]),
        },
        "right": {
            f"H = {h}": (f"Fast-FedPG H={h}", "-", OKABE_ITO[place])
            for place, h in enumerate((10, 20, 40, 80))
        },
    }
    with plotting.style():
        figure, (axes,) = page(1, 2, height=3.4)
        rounds = own["time"].values
        for axis, shown in zip(axes, lines.values(), strict=True):
            for name, (label, dashes, colour) in shown.items():
                gaps = measures.curve(own, label)
                gaps = np.where(gaps > ROUNDING, gaps, np.nan)
                axis.semilogy(rounds, gaps, dashes, color=colour, label=name, lw=1.4)
            axis.set_ylim(ROUNDING, 1)
            axis.set_xlim(0, rounds[-1])
        fast = measures.curve(own, "Fast-FedPG H=10")
        part = measures.linear_part(fast)
        fit = analysis.ols(np.log(fast[part]), rounds=rounds[part])
        rate = np.exp(fit["rounds"])
        axes[0].semilogy(
            rounds[part],
            np.exp(fit["intercept"]) * rate ** rounds[part],
            color="black",
            linestyle=(0, (1, 3)),
            label=f"fit: {rate:.4f} per round",
        )
        axes[0].legend(loc="upper right", bbox_to_anchor=(1, 0.8))
        axes[1].legend(loc="upper right", bbox_to_anchor=(1, 0.8))
        describe(axes[0], "H = 10, η = 0.5", "round", "J* − J")
        describe(axes[1], "Fast-FedPG, η = 0.5", "round", "J* − J")
    return {"exact": figure}


def _bias(runs) -> dict:
    own, formula = runs.bias, runs.formula
    where = measures.small(own)
    reach, norms, gaps = measures.reach(own), own["gradient_norm"].values, own["gap"].values
    with plotting.style():
        figure, (axes,) = page(1, 3, height=2.9)
        for values, colour, marker, name in (
            (norms, OKABE_ITO[0], "o", "gradient norm"),
            (gaps, OKABE_ITO[1], "s", "gap"),
        ):
            fit = analysis.loglog(reach[where], values[where])
            power = f"{name}: exponent {fit['slope']:.2f}"
            axes[0].loglog(reach[where], values[where], marker, color=colour, ms=4, label=power)
            axes[0].loglog(reach[~where], values[~where], marker, color=colour, ms=4, mfc="none")
            grid = np.geomspace(reach.min(), reach.max())
            axes[0].loglog(
                grid, 10 ** (fit["intercept"] + fit["slope"] * np.log10(grid)), color=colour, lw=0.8
            )
        spread = own["spread"].values
        for name, colour, marker in (
            ("gradient_norm", OKABE_ITO[0], "o"),
            ("gap", OKABE_ITO[1], "s"),
        ):
            values = own[f"{name}_by_spread"].values
            fit = analysis.loglog(spread, values)
            axes[1].loglog(
                spread,
                values,
                f"{marker}-",
                color=colour,
                ms=4,
                label=f"exponent {fit['slope']:.2f}",
            )
        ticks(axes[1].xaxis, 10.0, spread)
        measured, predicted = 1e4 * formula["measured"].values, 1e4 * formula["predicted"].values
        axes[2].plot(predicted, measured, "o", color=OKABE_ITO[2], ms=4)
        ends = 1.08 * np.array([predicted.min(), predicted.max()])
        axes[2].plot(ends, ends, ":", color=GREY, label="as predicted")
        for axis in axes:
            axis.legend(loc="upper left")
        for axis in axes[:2]:
            low, high = axis.get_ylim()
            axis.set_ylim(low, high * 30)
        describe(axes[0], "FedPG's fixed point", "η (H − 1); hollow: η H > 2", "")
        describe(axes[1], "η = 0.1, H = 10", "spread of the rewards", "")
        describe(axes[2], "∇J there, η = 0.01, H = 10", "first order, 10⁻⁴", "measured, 10⁻⁴")
    return {"bias": figure}


def _speedup(runs) -> dict:
    lines = {
        name: measures.by_agents(runs.speedup, name, data.AGENTS)
        for name in ("Fast-FedPG", "FedPG")
    }
    with plotting.style():
        figure, (axes,) = page(1, 2, height=3.3)
        _powers(axes[0], lines, STYLES, "late J* − J")
        axes[0].set_title("M2, η = 0.1, H = 5, one episode")
        for place, n in enumerate(data.AGENTS):
            gaps = variant_runs.line(runs.speedup, f"Fast-FedPG N={n}", "gap").mean(axis=0)
            axes[1].semilogy(
                runs.speedup["time"], gaps, color=OKABE_ITO[place], lw=1.1, label=f"N = {n}"
            )
        axes[1].legend(ncols=2, loc="lower left")
        low, high = axes[1].get_ylim()
        axes[1].set_ylim(low / 3, high)
        ticks(axes[1].yaxis, 10.0)
        describe(axes[1], "Fast-FedPG, mean over seeds", "round", "J* − J")
    return {"speedup": figure}


def _floor(runs) -> dict:
    few, many = "Fast-FedPG, 4 for the memory", "Fast-FedPG, 80 for the memory"
    styles = {"FedPG": 1, "SCAFFOLD-PG": 2, few: 4, many: 0}
    with plotting.style():
        figure, ((axis,),) = page(width=PAGE * 0.72, height=3.6)
        lines = {name: measures.by_agents(runs.floor, name, data.FEW) for name in styles}
        _powers(axis, lines, styles, "late J* − J")
        low, high = axis.get_ylim()
        axis.set_ylim(low / 12, high)
        axis.set_title("M2, rewards opposed by 3, η = 0.05, H = 20, B = 4")
    return {"floor": figure}


def _samples(runs) -> dict:
    own, effort = runs.samples, measures.efforts(runs.samples)
    kinds = (
        ("gap", effort / np.log(effort), "NHT / log NHT", "last J* − J", "entropy: domination"),
        ("stationary", effort, "NHT", "mean of ‖∇J‖²", "no entropy: no domination"),
    )
    measured = measures.measure("samples", runs)
    with plotting.style():
        figure, (axes,) = page(1, 2, height=3.3)
        for axis, (name, x, words, value, title), found in zip(
            axes, kinds, measured.values(), strict=True
        ):
            lines = {
                f"N = {n}": dict(zip(x[place], own[name].values[place], strict=True))
                for place, n in enumerate(own["agents"].values)
            }
            plotting.points(lines, x_label=words, y_label=value, axes=axis)
            axis.set_title(title)
            axis.xaxis.set_major_locator(LogLocator())
            axis.xaxis.set_major_formatter(LogFormatterMathtext())
            axis.legend(title=f"exponent {formats.interval(found)}", loc="lower left")
    return {"samples": figure}


def _truncation(runs) -> dict:
    lengths = np.asarray(exact.LENGTHS)
    with plotting.style():
        figure, ((axis,),) = page(width=PAGE * 0.62, height=3.2)
        kinds = (("gradient_norm", "‖∇J‖", 1, "γ^K"), ("gap", "J* − J", 2, "γ^2K"))
        for place, (name, words, power, law) in enumerate(kinds):
            ends = [measures.curve(runs.truncation, f"{k}", name)[-1] for k in lengths]
            colour = OKABE_ITO[place]
            axis.semilogy(lengths, ends, MARKERS[place], color=colour, ms=5, label=words)
            rate = targets.GAMMA**power
            axis.semilogy(
                lengths,
                ends[1] * rate ** (lengths - lengths[1]),
                ":",
                color=colour,
                label=f"∝ {law}",
            )
        axis.set_xticks(lengths)
        axis.legend()
        describe(axis, "Fast-FedPG, gradients of K steps", "K, steps of an episode", "at round 200")
    return {"truncation": figure}


def _control(own: xr.Dataset, size, rates, title: str) -> Figure:
    with plotting.style():
        shape = {"title": title, "height": 2.6, "more": 0.5, "sharex": True, "sharey": True}
        figure, axes = page(len(rates), len(size.local_steps), **shape)
        for row, rate in zip(axes, rates, strict=True):
            for axis, steps in zip(row, size.local_steps, strict=True):
                for name, colour in COLOURS.items():
                    values = variant_runs.line(own, f"{name} H={steps} {rate:g}", "return")
                    low, high = np.percentile(values, [25, 75], axis=0)
                    line = {"color": colour, "lw": 1.4, "label": name}
                    shaded(axis, own["time"], low, values.mean(0), high, **line)
                axis.set_title(f"H = {steps}, η = {rate:g}")
        for axis in axes[-1]:
            axis.set_xlabel("round")
            axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        for row in axes:
            row[0].set_ylabel("return")
        caption = f"mean and quartiles of {size.trials} seeds"
        legend_below(figure, [axes[0, 0]], 3, caption, title_fontsize=8, handlelength=1.6)
    return figure


def _cartpole(runs) -> dict:
    words = "CartPole, 8 agents, strongly different physics, 5 episodes per gradient"
    size = runs.scale.cartpole
    return {"cartpole": _control(runs.cartpole, size, data.CARTPOLE_RATES, words)}


def _cheetah(runs) -> dict:
    size = runs.scale.cheetah
    words = (
        "HalfCheetah (brax spring), 8 agents, target speeds 0.5 to 3 m/s, "
        f"episodes of {size.max_steps} steps"
    )
    return {"cheetah": _control(runs.cheetah, size, (data.CHEETAH_RATE,), words)}


PICTURES: dict[str, Callable] = {
    "estimators": _estimators,
    "exact": _exact,
    "bias": _bias,
    "speedup": _speedup,
    "floor": _floor,
    "samples": _samples,
    "truncation": _truncation,
    "cartpole": _cartpole,
    "cheetah": _cheetah,
}
