"""Error against time: the learning curves of a paper."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedjax_rl.analysis import tail_mean
from fedjax_rl.plotting import formats
from fedjax_rl.plotting.by_property import quantiles
from fedjax_rl.plotting.rows import MAX_GROUPS, TIME, groups, to_rows, unique
from fedjax_rl.plotting.style import COLUMN, GREEN, GREY, PAGE, RED, canvas, colours, style


def learning_curves(
    curves: xr.Dataset | Mapping[str, xr.Dataset],
    *,
    metric: str | None = None,
    by: str | None = "",
    start: float | None = None,
    threshold: float | None = 0.1,
    tail: int = 10,
    axes: Axes | Sequence[Axes] | None = None,
) -> Figure:
    """Every run as a thin line with the median of each category (Fig. 3 of Einhorn 2023).

    Logarithms of the error and of the steps. The red line is the mean over all curves of the mean
    of their last `tail` records, its band one sample standard deviation to either side, both in
    linear space, so that the band is lopsided here.

    Args:
        curves: a result, or one per panel by title; four panels make a square.
        metric: variable to draw, [..., time]; "error_local_mean" by default or, where there is
            none, the first one recorded over time, then without a threshold.
        by: property whose values get a colour; None for one colour. 0 is black, 1 is green. By
            default it is "epsilon" or, where that does not vary, the first that was swept.
        start: squared distance at the start (13.7314 in the paper), a dotted line; None for none.
        threshold: a dashed line; None for none.
        tail: records averaged for the steady state; 0 draws none.
            What is not positive lies below the axis, and counts in medians and means.
        axes: one per panel; new ones by default.

    Returns:
        The figure.

    Raises:
        ValueError: for an unknown variable or property (naming the nearest), a wrong number of
            axes, or a result without a positive value.
    """
    panels = {"": curves} if isinstance(curves, xr.Dataset) else dict(curves)
    if not panels:
        raise ValueError("curves is empty; at least one result is needed")
    if metric is None:
        metric = _first_metric(panels)
        threshold = threshold if metric == "error_local_mean" else None
    columns = 1 if len(panels) == 1 else 2
    height = -(-len(panels) // columns)
    with style():
        size = (COLUMN, 3.1) if columns == 1 else (PAGE, 2.3 * height + 0.3)
        share = {"sharex": True, "sharey": True} if axes is None else {}
        wanted = len(panels) if axes is not None else height * columns
        shape = (1, wanted) if axes is not None else (height, columns)
        figure, flat = canvas(axes, size, *shape, **share)
        limits = []
        for axis, (title, result) in zip(flat, panels.items(), strict=False):
            limits.append(_panel(axis, to_rows(result, metric), by, start, threshold, tail))
            axis.set_title(title)
            axis.set_xlabel(formats.axis_label("time"))
            axis.set_ylabel(
                "D²" if columns == 2 else textwrap.fill(formats.axis_label(metric, result), 26)
            )
        for i, axis in enumerate(flat):
            if i >= len(panels):
                axis.remove()
            elif axes is None:
                axis.label_outer()
                if i + columns >= len(panels):  # there may be no panel below
                    axis.tick_params(labelbottom=True)
                    axis.set_xlabel(formats.axis_label("time"))
        low, high = np.transpose(limits)
        for axis, *own in zip(flat, low, high, strict=False):
            axis.set_ylim((low.min(), high.max()) if share else own)
        # Panels have their categories and lines in common.
        if axes is None:
            figure.legend(
                *flat[0].get_legend_handles_labels(),
                loc="outside lower center",
                ncols=5 if columns == 2 else 2,
            )
        else:
            flat[0].legend(loc="lower left")
    return figure


def _first_metric(panels: Mapping[str, xr.Dataset]) -> str:
    """The error of the paper or else the first variable over time that all panels have."""
    first, *others = panels.values()
    recorded = [name for name in first.data_vars if TIME in first[name].dims]
    common = [name for name in recorded if all(name in one for one in others)]
    if not common:
        raise ValueError("no variable of the results has a time dimension")
    return "error_local_mean" if "error_local_mean" in common else common[0]


def _panel(axis, table, by, start, threshold, tail) -> tuple[float, float]:
    """Draws one panel and returns the range of D² to show."""
    positive = table.values > 0
    if not positive.any():
        raise ValueError(
            "no record is positive: there is nothing to draw on a logarithmic axis; "
            "`curves` draws any values"
        )
    # On this axis zeros lie below its end. They are values all the same, unlike NaN.
    values = np.where(np.isfinite(table.values), table.values, np.nan)
    if by == "":
        swept = [n for n in table.swept if len(unique(table.columns[n])) <= MAX_GROUPS]
        swept = ["epsilon"] if "epsilon" in table.columns else swept
        by = swept[0] if swept else None
    axis.set_xscale("log")
    axis.set_yscale("log")
    names = () if by is None else (by,)
    found = groups(table, names)
    palette = {0.0: "#222222", 1.0: GREEN}
    fallback = colours([label[0] for label, _ in found] if by else [None])
    texts = formats.tags(names, [label for label, _ in found])
    for (label, member), colour, tag in zip(found, fallback, texts, strict=True):
        colour = palette.get(label[0], colour) if label else "#222222"
        axis.plot(table.times, values[member].T, color=colour, linewidth=0.5, alpha=0.5)
        text = f"median, {tag}" if by else "median"
        axis.plot(table.times, quantiles(values[member], 0.5), color=colour, label=text, zorder=3)
    low, high = np.nanmin(values[positive]), np.nanmax(values)
    if start is not None:
        axis.axhline(start, color=GREY, linestyle=":", linewidth=1, label="start")
        high = max(high, start)
    if threshold is not None:
        axis.axhline(threshold, color=GREY, linestyle="--", linewidth=1, label="threshold")
        low, high = min(low, threshold), max(high, threshold)
    if tail and not table.diverged.all():
        whole = table.take(~table.diverged)
        ends = whole.ends
        last = np.minimum(tail, ends.min())
        final = tail_mean(whole.values, int(last), end=ends)
        mean, sd = final.mean(), final.std(ddof=1) if len(final) > 1 else 0.0
        # A band that reaches zero has no lower end on this axis.
        axis.axhspan(max(mean - sd, low / 10), mean + sd, color=RED, alpha=0.2, linewidth=0)
        text = "steady state, mean ± sd"
        if table.diverged.any():
            text += f" ({int(table.diverged.sum())} of {len(table.diverged)} diverged)"
        axis.axhline(mean, color=RED, linewidth=1, label=text)
    return low / 1.5, high * 1.5
