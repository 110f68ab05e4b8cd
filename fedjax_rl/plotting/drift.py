"""How the local error grows with the steps between synchronisations."""

# ruff: noqa: RUF001 -- the labels say α and − as the papers do

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from fedjax_rl.analysis import DriftLaw
from fedjax_rl.plotting import formats
from fedjax_rl.plotting.regressions import colour_bar
from fedjax_rl.plotting.style import COLUMN, canvas, colour_map, norm, style


def drift(
    final_sq: ArrayLike,
    sync_period: ArrayLike,
    learning_rate: ArrayLike,
    num_agents: ArrayLike,
    law: DriftLaw | None = None,
    *,
    phases: ArrayLike | Sequence[ArrayLike] | None = None,
    axes: Axes | None = None,
) -> Figure:
    """Steady-state error against (K − 1) α², coloured by K (Fig. 5a of Einhorn 2023).

    If the error were a function of (K − 1) α² alone the points would lie on one line. The curves
    are the drift-saturation law of `analysis.DriftLaw`, one per learning rate.

    Args:
        final_sq: [n] steady-state squared distances of the local tables, positive.
        sync_period: [n] or scalar, K > 1.
        learning_rate: [n] or scalar, α.
        num_agents: [n] or scalar, N.
        law: the law to lay over the points, of `analysis.fit_drift_law`; none by default.
        phases: [n, P] or n sequences, the steps since the last synchronisation at which each value
            was measured; the law is averaged over them. By default it is drawn for K − 1, just
            before a synchronisation, where the error is largest.
        axes: where to draw; new ones by default.

    Returns:
        The figure.

    Raises:
        ValueError: if a value is not positive, K is not above 1 (no drift then), or `phases` are
            given for another number of runs.
    """
    y, period, alpha, agents = np.broadcast_arrays(
        *(
            np.asarray(v, dtype=np.float64)
            for v in (final_sq, sync_period, learning_rate, num_agents)
        )
    )
    for name, values, least in (
        ("final_sq", y, 0),
        ("sync_period", period, 1),
        ("learning_rate", alpha, 0),
    ):
        if not np.all((values > least) & np.isfinite(values)):
            raise ValueError(f"{name} must be finite and above {least} everywhere")
    with style():
        figure, (axis,) = canvas(axes, (COLUMN * 1.3, 3.1))
        axis.set_xscale("log")
        axis.set_yscale("log")
        points = axis.scatter(
            (period - 1) * alpha**2,
            y,
            c=period,
            cmap=colour_map(),
            norm=norm(period),
            s=11,
            alpha=0.85,
            linewidths=0,
            zorder=3,
        )
        colour_bar(axis, points, formats.axis_label("sync_period"))
        axis.set_xlabel("(K − 1) α²")
        axis.set_ylabel("steady-state squared distance D²")
        if law is not None:
            _curves(axis, law, period.ravel(), alpha.ravel(), agents.ravel(), phases)
    return figure


def _curves(axis, law, period, alpha, agents, phases):
    if phases is not None and len(phases) != len(period):
        raise ValueError(f"phases are given for {len(phases)} runs, final_sq for {len(period)}")
    pairs = sorted({*zip(alpha.tolist(), agents.tolist(), strict=True)})
    names = ("learning_rate", "num_agents")[: 1 + (len({n for _, n in pairs}) > 1)]
    for i, (a, n) in enumerate(pairs):
        if phases is None:
            ks = np.geomspace(period.min(), period.max(), 101)
            y = law(a, n, ks - 1)
        else:
            own = np.flatnonzero((alpha == a) & (agents == n))
            ks, first = np.unique(period[own], return_index=True)
            # Runs of fewer records have rows filled with NaN, as `fit_drift_law` takes them.
            y = np.array([np.nanmean(law(a, n, phases[row])) for row in own[first]])
        x = (ks - 1) * a**2
        label = "drift-saturation law" if i == 0 else None
        axis.plot(x, y, color="#222222", linewidth=0.9, label=label, zorder=4)
        text = formats.tag(names, (a, n)[: len(names)])
        axis.annotate(
            text if i == 0 else text.removeprefix("α = "),
            (x[-1], y[-1]),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=6.5,
        )
    axis.margins(x=0.12)
    axis.legend(loc="lower right")
