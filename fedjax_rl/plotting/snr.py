"""Theory of probabilistic communication: how often agents speak, and how well it points."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from fedjax_rl import analysis
from fedjax_rl.plotting.style import COLUMN, GREY, MARKERS, OKABE_ITO, PAGE, canvas, style


def snr(
    ratio: ArrayLike,
    measured: Mapping[str, ArrayLike],
    models: Mapping[str, tuple[ArrayLike, ArrayLike]] | None = None,
    *,
    errors: Mapping[str, ArrayLike] | None = None,
    marks: Mapping[str, float] | None = None,
    axes: Axes | None = None,
) -> Figure:
    """Signal to noise of gradient estimates against the mean of the returns over their spread.

    Args:
        ratio: b / S [R] of the points.
        measured: method -> signal to noise [R], as `analysis.signal_to_noise` gives it.
        models: method -> (b / S [M], signal to noise [M]), e.g. `analysis.ideal_signal_to_noise`,
            a line without markers in the colour of the method; a method that was not measured
            gets a grey one.
        errors: method -> standard errors [R]; bars of two of them to either side.
        marks: words -> b / S, dotted upright lines, e.g. where an experiment was.
        axes: where to draw; new ones by default.

    Returns:
        The figure. Points of a method without a model are joined.

    Raises:
        ValueError: for more methods than colours, or values that do not match `ratio`.
    """
    ratio = np.asarray(ratio, dtype=np.float64)
    models, errors = dict(models or {}), dict(errors or {})
    if not measured or len(measured) > len(OKABE_ITO):
        raise ValueError(f"{len(measured)} methods were given; 1 to {len(OKABE_ITO)} can be drawn")
    for name, values in (*measured.items(), *errors.items()):
        if ratio.ndim != 1 or np.shape(values) != ratio.shape:
            raise ValueError(f"{name} has shape {np.shape(values)}, the ratios {ratio.shape}")
    with style():
        figure, (axis,) = canvas(axes, (PAGE * 0.72, 3.5))
        axis.axhline(0, color=GREY, linewidth=0.6, zorder=1)
        for i, (name, values) in enumerate(measured.items()):
            colour = OKABE_ITO[i]
            if name in models:
                axis.plot(*models[name], color=colour, linewidth=1, zorder=2, gid="model")
            axis.errorbar(
                ratio,
                values,
                2 * np.asarray(errors[name]) if name in errors else None,
                color=colour,
                marker=MARKERS[i],
                markersize=4.5,
                markeredgecolor="white",
                markeredgewidth=0.4,
                linestyle="none" if name in models else (0, (4, 2)),
                linewidth=1,
                elinewidth=0.8,
                label=name,
                zorder=4,
            )
        for name in models:
            if name not in measured:
                axis.plot(*models[name], color=GREY, linewidth=1, zorder=2, label=name)
        for words, place in (marks or {}).items():
            axis.axvline(place, color=GREY, linestyle=":", linewidth=1)
            axis.annotate(
                words,
                (place, 1),
                (2, -2),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                va="top",
                fontsize=6.5,
                color=GREY,
                zorder=6,
            )
        axis.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axis.set_xlabel("mean return over its standard deviation, b / S")
        axis.set_ylabel("signal to noise of the gradient")
        axis.set_title("points: simulation; full lines: closed form")
        if axes is None:
            figure.legend(loc="outside right center")
        else:
            axis.legend()
    return figure


def expected_communication(
    num_agents: int = 50,
    samples: int = 100_000,
    seed: int = 0,
    *,
    axes: Sequence[Axes] | None = None,
) -> Figure:
    """Expected communication against the messages wanted, m, and what simulation misses it by.

    Fig. 4.1 of Gunn (2023), with the error of the simulation beside it.

    Args:
        num_agents: n, at least 1.
        samples: normal scores drawn afresh for every m.
        seed: of the draws.
        axes: two; new ones by default.

    Returns:
        The figure. The band is two standard errors of the simulation, from the exact variance.

    Raises:
        ValueError: for no agents or samples, or a wrong number of axes.
    """
    senders = np.arange(num_agents + 1)
    exact = analysis.expected_communication(senders, num_agents)
    sampled = analysis.sampled_communication(senders, num_agents, samples, seed)
    line = senders / num_agents
    error = np.sqrt(analysis.communication_variance(senders, num_agents) / samples)
    with style():
        figure, (left, right) = canvas(axes, (PAGE, 2.9), 1, 2)
        left.plot(senders, line, color="black", linewidth=1, label="m / n")
        options = {"markersize": 3.4, "linestyle": "none", "markeredgewidth": 0.8}
        left.plot(
            senders,
            sampled,
            "o",
            color=OKABE_ITO[0],
            markerfacecolor="white",
            label="simulation",
            zorder=3,
            **options,
        )
        left.plot(senders, exact, "x", color=OKABE_ITO[1], label="quadrature", zorder=4, **options)
        left.set_ylabel("expected communication")
        left.legend(loc="upper left")
        left.set_title(f"{num_agents} agents")
        scale = 1e3
        right.fill_between(
            senders,
            -2 * scale * error,
            2 * scale * error,
            color=OKABE_ITO[0],
            alpha=0.16,
            linewidth=0,
            label="2 standard errors",
        )
        right.axhline(0, color="black", linewidth=1)
        right.plot(
            senders,
            scale * (sampled - line),
            "o",
            color=OKABE_ITO[0],
            markerfacecolor="white",
            zorder=3,
            **options,
        )
        right.plot(senders, scale * (exact - line), "x", color=OKABE_ITO[1], zorder=4, **options)
        right.set_ylabel("difference from m / n, in thousandths")
        power, found = np.mean(error**2), np.mean((sampled - line) ** 2)
        right.set_title(f"mean square {_power(found)}, expected {_power(power)}")
        most = max(2.0 * error.max(), np.abs(sampled - line).max()) or 1.0
        right.set_ylim(-1.35 * scale * most, 1.35 * scale * most)  # room for the legend
        right.legend(loc="upper left")
        for axis in (left, right):
            axis.set_xlabel("messages wanted per episode, m")
    return figure


def first_communication(num_agents: int = 50, *, axes: Axes | None = None) -> Figure:
    """The probability to send in the first episode against the messages wanted, m.

    Fig. 4.7 of Gunn (2023): an agent with a single sample has no scale to judge it by and takes
    it for average, p = 1 / 2.

    Args:
        num_agents: n, at least 1.
        axes: where to draw; new ones by default.

    Returns:
        The figure.

    Raises:
        ValueError: for no agents.
    """
    senders = np.arange(num_agents + 1)
    with style():
        figure, (axis,) = canvas(axes, (COLUMN, 2.7))
        axis.plot(
            senders,
            analysis.communication_probability(0.5, senders, num_agents),
            "o-",
            color=OKABE_ITO[0],
            markersize=3,
            label="episode 1, p = 1/2",
        )
        axis.plot(senders, senders / num_agents, "--", color=GREY, linewidth=1, label="m / n")
        axis.set_xlabel("messages wanted per episode, m")
        axis.set_ylabel("probability to send")
        axis.set_title(f"{num_agents} agents")
        axis.legend(loc="upper left")
    return figure


def _power(value: float) -> str:
    if value == 0:
        return "0"
    exponent = int(np.floor(np.log10(value)))
    return rf"${value / 10.0**exponent:.2f}\times10^{{{exponent}}}$"
