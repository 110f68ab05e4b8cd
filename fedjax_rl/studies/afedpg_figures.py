"""The pictures of the study `afedpg`."""

# ruff: noqa: RUF001 -- the labels say − as printed numbers do

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

import fedjax_rl as frl
from fedjax_rl import analysis, plotting
from fedjax_rl.federation.clock import Clock
from fedjax_rl.plotting import formats
from fedjax_rl.plotting.page import describe, errors, page, shaded
from fedjax_rl.plotting.regressions import ticks
from fedjax_rl.plotting.style import GREY, MARKERS, OKABE_ITO, PAGE, Picture
from fedjax_rl.studies import afedpg_data as data
from fedjax_rl.studies import afedpg_exact as exact
from fedjax_rl.studies import afedpg_measures as measures
from fedjax_rl.studies import afedpg_targets as targets
from fedjax_rl.studies import variant_runs
from fedjax_rl.studies.intervals import mean
from fedjax_rl.studies.policy_gradients import late

STYLES = {name: place for place, name in enumerate(data.METHODS)}
TIMES = np.array([10, 20, 50, 100, 200, 500, 1000])  # ticks
SHOWN = 16.0  # time of the picture of a clock
SMOOTH = 15  # records averaged where a curve goes up and down


def _lookahead(runs) -> dict:
    table, transport = runs.lookahead["factor"], runs.transport
    words = {
        "without": "without: (1 − α) / α + δ",
        "with": "with: δ",
        "compensated": "with δ in the coefficient: 0",
    }
    with plotting.style():
        figure, ((left, right),) = page(1, 2, height=3.2)
        delays = table["delay"].values
        for place, (method, label) in enumerate(words.items()):
            values = table.sel(kind=method).values
            left.plot(
                delays, values, MARKERS[place] + "-", color=OKABE_ITO[place], ms=5, label=label
            )
        left.set_ylim(-0.5, 24)
        left.set_xticks(delays)
        left.legend(loc="upper left")
        describe(
            left,
            "a quadratic, α = 0.1",
            "δ, steps that a gradient is late",
            "‖error of d‖ / ‖Hessian × step‖",
        )
        reference, ours = transport["reference"].values, transport["parameters"].values
        right.plot(reference, ours, "o", color=OKABE_ITO[0], ms=4)
        ends = np.array([reference.min(), reference.max()]) * 1.1
        right.plot(ends, ends, ":", color=GREY, label="equal")
        apart = np.abs(ours - reference).max()
        right.legend(title=f"largest difference {apart:.0e}".replace("-", "−"), loc="upper left")
        describe(right, "one agent, 50 steps: parameters", "N-PG-IGT, written out", "AFedPG")
    return {"lookahead": figure}


def _bars(axis: Axes, clock: Clock, title: str) -> None:
    """Who works when: a bar from the model's handing over to the message, the rest is waiting."""
    works = exact.PROFILES["linear"]
    table = frl.timetable(clock, num_agents=8, num_steps=200)
    times = table.time[0]
    begun = np.zeros(8)
    for place, now in enumerate(times):
        if begun.min() > SHOWN:
            break
        for agent in table.agent[0, place]:
            axis.barh(
                agent + 1,
                works[agent] - 0.08,
                left=begun[agent] + 0.04,
                color=OKABE_ITO[0],
                height=0.7,
            )
            begun[agent] = now
    for now in np.unique(times[times <= SHOWN]):
        axis.axvline(now, color=GREY, lw=0.5, zorder=0)
    axis.set_xlim(0, SHOWN)
    axis.set_yticks(range(1, 9))
    axis.grid(visible=False)
    axis.set_title(title)


def _clock(runs) -> dict:
    own = runs.schedule
    names = own["profile"].values
    with plotting.style():
        figure = Picture(figsize=(PAGE, 5.2))
        grid = figure.add_gridspec(2, 3, height_ratios=(1.25, 1))
        for place, scheduler in enumerate(("synchronous", "semi-synchronous", "asynchronous")):
            axis = figure.add_subplot(grid[0, place])
            title = {"semi-synchronous": "first four of eight"}.get(scheduler, scheduler)
            wait_for = 4 if scheduler == "semi-synchronous" else None
            clock = Clock(scheduler, wait_for, compute_time=exact.PROFILES["linear"])
            _bars(axis, clock, title)
            axis.set_xlabel("time; a line is a step")
            if place == 0:
                axis.set_ylabel("agent")
        axis = figure.add_subplot(grid[1, :2])
        measured = own["round"].values / 8 / own["time"].values
        expected = [analysis.time_ratio(exact.PROFILES[name]) for name in names]
        places = np.arange(len(names))
        axis.bar(places, measured, 0.5, color=OKABE_ITO[0], label="20,000 arrivals, 1,000 rounds")
        for place, value in zip(places, expected, strict=True):
            axis.plot([place - 0.35, place + 0.35], [value, value], color="black", lw=1.4)
        axis.plot([], [], color="black", lw=1.4, label="$t_{max}$ / harmonic mean")
        axis.set_xticks(places, names)
        axis.set_ylim(0, 9)
        axis.grid(axis="x", visible=False)
        axis.legend(loc="upper left")
        axis.set_ylabel("time per message,\nsynchronous / asynchronous")
        axis = figure.add_subplot(grid[1, 2])
        for place, name in enumerate(names):
            clock = Clock("asynchronous", compute_time=exact.PROFILES[name])
            ages = np.sort(frl.timetable(clock, num_agents=8, num_steps=4000).staleness.ravel())
            share = np.arange(1, len(ages) + 1) / len(ages)
            axis.step(ages, share, where="post", color=OKABE_ITO[place], lw=1.3, label=names[place])
        axis.set_xscale("symlog", linthresh=1)
        axis.set_xlim(0, 100)
        axis.set_xticks([0, 1, 7, 20, 70], ["0", "1", "7", "20", "70"])
        axis.legend(loc="upper left", fontsize="x-small")
        describe(axis, "", "age of a message, mean 7", "share of messages")
    return {"clock": figure}


def _curve(axis: Axes, runs: xr.Dataset, label: str, colour, words: str, dashes: str = "-") -> None:
    """Mean gap against simulated time, and its 95 % interval."""
    gaps = variant_runs.line(runs, label, "gap")
    times = variant_runs.line(runs, label, "simulated_time").mean(axis=0)
    mean, low, high = analysis.mean_interval(gaps)
    line = {"color": colour, "lw": 1.3, "label": words, "linestyle": dashes}
    shaded(axis, times, np.maximum(low, 1e-3), mean, high, **line)


def _times(runs: xr.Dataset, labels) -> dict:
    """Times to the target of labels by x, [L] each; what never comes there is left out."""
    return {x: measures.reached(runs, label)[1] for x, label in labels.items()}


def _medians(axis: Axes, lines, styles) -> None:
    """Medians with intervals over seeds."""
    for name, own in lines.items():
        found = np.array([measures.median(values) for values in own.values()], float)
        errors(axis, list(own), found, styles[name], label=name, ms=5, lw=1)
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    ticks(axis.yaxis, 10.0, TIMES)


def _speedup(runs) -> dict:
    own = runs.speedup
    with plotting.style():
        figure, ((left, right),) = page(1, 2, height=3.4)
        for place, n in enumerate(data.AGENTS):
            _curve(left, own, f"asynchronous N={n}", OKABE_ITO[place], f"N = {n}")
        left.axhline(targets.SHARE * measures.first_gap(), color=GREY, ls="--", lw=1)
        left.set_xscale("log")
        left.set_yscale("log")
        left.set_ylim(1e-2, 1.5)
        left.legend(loc="lower left", ncols=2)
        describe(left, "AFedPG: mean, 95 % interval; dashed: target", "simulated time", "J* − J")
        lines, styles = {}, {"asynchronous": 0, "synchronous": 1}
        for name in styles:
            text = f"{name}: {formats.interval(measures.time_exponent(own, name))}"
            lines[text] = _times(own, {n: f"{name} N={n}" for n in data.AGENTS})
            styles = styles | {text: styles[name]}
        _medians(right, lines, styles)
        grid = np.array(data.AGENTS, float)
        start = np.median(next(iter(lines.values()))[1])
        right.plot(grid, start / grid, ":", color=GREY, label="1 / N")
        ticks(right.xaxis, 2.0, grid)
        right.set_xticks(grid, [f"{n:g}" for n in grid])
        right.legend(title="exponent", loc="lower left")
        describe(right, "equal speeds, B = 8", "agents", "median time to the target")
    return {"speedup": figure}


def _heterogeneity(runs) -> dict:
    own = runs.heterogeneity
    styles = {"asynchronous": 0, "synchronous": 1}
    with plotting.style():
        figure, ((left, right),) = page(1, 2, height=3.3)
        lines = {name: _times(own, {r: f"{name} r={r}" for r in data.RATIOS}) for name in styles}
        _medians(left, lines, styles)
        left.set_xscale("log")
        left.set_xticks(data.RATIOS, [f"{r}" for r in data.RATIOS])
        left.minorticks_off()
        left.legend(loc="upper left")
        describe(left, "half of eight agents slower", "times slower", "median time to the target")
        medians = {n: np.array([np.median(x) for x in v.values()]) for n, v in lines.items()}
        ratio = medians["synchronous"] / medians["asynchronous"]
        expected = np.array([measures.prediction(r) for r in data.RATIOS])
        right.loglog(expected, ratio, "o-", color=OKABE_ITO[2], ms=5, label="measured")
        right.loglog(expected, expected, ":", color=GREY, label="predicted")
        factor = (ratio / expected).mean()
        right.loglog(
            expected, factor * expected, "--", color=GREY, lw=0.9, label=f"{factor:.2f} × predicted"
        )
        for axis in (right.xaxis, right.yaxis):
            ticks(axis, 10.0, np.array([1, 2, 5, 10, 20]))
        right.legend(loc="upper left")
        describe(
            right,
            "synchronous / asynchronous",
            "$t_{max}$ / harmonic mean",
            "ratio of the times to the target",
        )
    return {"heterogeneity": figure}


def _methods(runs) -> dict:
    own = runs.methods
    with plotting.style():
        figure, ((left, right),) = page(1, 2, height=3.9)
        for name, place in STYLES.items():
            rate, _ = measures.best(own, name)
            dashes = "--" if name == "FedPG, H = 5" else "-"
            _curve(left, own, f"{name} {rate:g}", OKABE_ITO[place], f"{name}, η = {rate:g}", dashes)
            rates = data.RATES.get(name, data.USUAL)
            found = np.array(
                [measures.median(measures.reached(own, f"{name} {r:g}")[1]) for r in rates]
            )
            found = np.where(np.isfinite(found.astype(float)), found.astype(float), np.nan)
            errors(right, rates, found, place, ls=dashes, ms=5, lw=1)
        left.axhline(targets.SHARE * measures.first_gap(), color=GREY, ls=":", lw=1)
        left.set_xscale("log")
        left.set_yscale("log")
        left.set_ylim(1e-2, 1.5)
        right.set_xscale("log")
        right.set_yscale("log")
        ticks(right.xaxis, 10.0, np.array([0.02, 0.05, 0.1, 0.3, 1]))
        ticks(right.yaxis, 10.0, TIMES)
        left.set_xlim(1, 600)
        describe(left, "best rate of each: mean, 95 % interval", "simulated time", "J* − J")
        describe(right, "every rate", "η", "median time to the target")
        handles, labels = left.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return {"methods": figure}


def _ablation(runs) -> dict:
    own, delay = runs.ablation, runs.delay
    sampled = runs.scale.sampled
    with plotting.style():
        figure, (axes,) = page(1, 3, height=3.3)
        for place, (rate, momentum) in enumerate(data.SETTINGS):
            for name, dashes in (("with", "-"), ("without", "--")):
                values = variant_runs.line(own, f"exact {name} {rate:g}/{momentum:g}", "gap")[0]
                values = np.convolve(values, np.ones(SMOOTH) / SMOOTH, "valid")
                axes[0].semilogy(
                    own["time"][SMOOTH - 1 :],
                    np.maximum(values, 1e-6),
                    dashes,
                    color=OKABE_ITO[place],
                    lw=1,
                    label=f"{rate:g}, {momentum:g}" if name == "with" else None,
                )
        axes[0].legend(title="η, α; dashed: without", fontsize="x-small")
        describe(axes[0], "exact gradients, N = 8", "step (mean of 150)", "J* − J")
        if sampled:
            x = np.arange(len(data.SETTINGS))
            for place, (name, words) in enumerate((("with", "with"), ("without", "without"))):
                found = np.array([mean(v) for v in measures.ends(own, "sampled", name)], float)
                aside = x + 0.1 * (place - 0.5)
                errors(axes[1], aside, found, place, linestyle="none", ms=5, label=words)
            axes[1].set_xticks(x, [f"{a:g}, {b:g}" for a, b in data.SETTINGS], fontsize="x-small")
            axes[1].set_xlim(-0.5, len(x) - 0.5)
            axes[1].set_ylim(0)
            axes[1].legend()
        describe(axes[1], "64 episodes, N = 8", "η, α", "late J* − J")
        for place, name in enumerate(("with", "without", "compensated")):
            values = [late(delay, f"{name} N={n}", part=0.2).mean() for n in data.COMPANY]
            axes[2].loglog(
                data.COMPANY,
                np.maximum(values, 1e-6),
                MARKERS[place] + "-",
                color=OKABE_ITO[place],
                ms=4.5,
                lw=1,
                label={"compensated": "with, and N − 1"}.get(name, name),
            )
        axes[2].set_xscale("log", base=2)
        axes[2].set_xticks(data.COMPANY, [f"{n}" for n in data.COMPANY])
        axes[2].legend(loc="lower right")
        describe(axes[2], "exact, 0.01, 0.05", "agents; mean delay N − 1", "late J* − J")
    return {"ablation": figure}


def _brax(runs) -> dict:
    size = runs.scale.brax
    most = max(size.agents)
    with plotting.style():
        title = f"mean and quartiles of {size.trials} seeds, {size.episodes} episodes a message"
        title += f", cut at {size.max_steps} steps" if size.max_steps else ""
        title += ", spring" * ("swimmer" not in size.names)
        figure, axes = page(len(size.names), 2, title=title, height=2.9, more=0.6)
        for row, name in zip(axes, size.names, strict=True):
            own = runs.brax.sel(environment=name)
            for place, n in enumerate(size.agents):
                values = variant_runs.line(own, f"AFedPG N={n}", "return")
                low, high = np.percentile(values, [25, 75], axis=0)
                x = own["time"].values / n
                line = {"color": OKABE_ITO[place], "lw": 1.3, "label": f"AFedPG, N = {n}"}
                shaded(row[0], x, low, values.mean(0), high, **line)
            row[0].set_xscale("log")
            for place, method in enumerate(data.BRAX_METHODS):
                values = variant_runs.line(own, f"{method} N={most}", "return")
                times = variant_runs.line(own, f"{method} N={most}", "simulated_time").mean(axis=0)
                low, high = np.percentile(values, [25, 75], axis=0)
                line = {"color": OKABE_ITO[place], "lw": 1.3, "label": method}
                shaded(row[1], times, low, values.mean(0), high, **line)
            describe(row[0], name, "messages per agent", "return")
            describe(row[1], f"{name}, N = {most}, half four times slower", "simulated time", "")
        axes[0, 0].legend(fontsize="x-small")
        axes[0, 1].legend(fontsize="x-small")
    return {"brax": figure}


PICTURES: dict[str, Callable] = {
    "lookahead": _lookahead,
    "clock": _clock,
    "speedup": _speedup,
    "heterogeneity": _heterogeneity,
    "methods": _methods,
    "ablation": _ablation,
    "brax": _brax,
}
