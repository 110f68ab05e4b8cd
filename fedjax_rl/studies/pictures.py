"""What a figure shows: pages of panels, and any other picture of runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedjax_rl import plotting
from fedjax_rl.plotting import curve_page
from fedjax_rl.plotting import page as pages
from fedjax_rl.plotting.style import GREY, OKABE_ITO
from fedjax_rl.studies.numbers import Number
from fedjax_rl.studies.runs import Results, Stage

# Method -> place among the colours and markers: the same in every picture.
PLACES = {
    "FedPG": 6,
    "no momentum": 6,
    "independent": 5,
    "FedSVRPG-M": 0,
    "FedHAPG-M": 1,
    "Fast-FedPG": 2,
    "FedSVRPG-M, clipped": 4,
    "FedAvgM": 4,
    "FedAdam": 5,
    "SCAFFOLD": 3,
    "AFedPG": 0,
    "A3C": 1,
    "no lookahead": 2,
    "synchronous": 3,
    "first four": 4,
    "QAvg": 4,
    "PAvg": 5,
    "DQL": 0,
    "EBCDQL": 1,
    "DAVIA": 2,
    "ES": 3,
    "ESPC": 4,
}


@dataclasses.dataclass(frozen=True, eq=False)
class Picture:
    """A picture of runs.

    Attributes:
      stem: of its file.
      draw: `Results -> Figure`.
      needs: the stages that it shows.
    """

    stem: str
    draw: Callable[[Results], Figure]
    needs: tuple[Stage, ...]

    @property
    def there(self) -> bool:
        """Whether the scale has all the runs that it shows."""
        return all(stage.there for stage in self.needs)


@dataclasses.dataclass(frozen=True, eq=False)
class Panel:
    """One panel of a page.

    Attributes:
      draw: `(axes, Results)`.
      needs: the stages that it shows.
      title: above it.
    """

    draw: Callable[[Axes, Results], None]
    needs: tuple[Stage, ...] = ()
    title: str = ""


def picture(stem: str, function: Callable[..., Figure], *needs: Stage) -> Picture:
    """Any picture: `function` takes the datasets of the stages, in their order."""
    return Picture(stem, lambda results: function(*(results[stage] for stage in needs)), needs)


def panel(function: Callable, *needs: Stage, title: str = "") -> Panel:
    """Any panel: `function` takes the axes and the datasets of the stages."""
    return Panel(
        lambda axis, results: function(axis, *(results[stage] for stage in needs)), needs, title
    )


def page(
    stem: str,
    *panels: Panel,
    title: str = "",
    columns: int | None = None,
    height: float = 2.7,
    caption: str = "",
    legends: str = "",
) -> Picture:
    """Panels side by side, with one legend below them, or one in each or below each.

    Args:
      stem: of its file.
      *panels: row by row.
      title: above all.
      columns: panels in a row; three at most by default.
      height: of a row in inches.
      caption: of the legend.
      legends: place of one in every panel, such as "lower right"; or "below", where panels show
        other lines in the same colours; one below all by default.
    """
    columns = columns or min(3, len(panels))
    rows = -(-len(panels) // columns)

    def draw(results):
        with plotting.style():
            figure, axes = pages.page(rows, columns, title=title, height=height, more=0.6)
            shown = axes.ravel()[: len(panels)]
            for axis, own in zip(shown, panels, strict=True):
                own.draw(axis, results)
                axis.set_title(own.title)
                if legends == "below":
                    pages.legend_below_panel(axis)
                elif legends:
                    axis.legend(loc=legends, fontsize=6)
                elif axis.get_legend() is not None:
                    axis.get_legend().remove()
            for axis in axes.ravel()[len(panels) :]:
                axis.set_axis_off()
            if legends and caption:
                figure.supxlabel(caption, fontsize=7)
            words = [word for axis in shown for word in axis.get_legend_handles_labels()[1]]
            if words and not legends:
                longest = max(map(len, words))
                fitting = max(1, min(len(set(words)), pages.LETTERS // (9 + longest)))
                pages.legend_below(figure, list(shown), fitting, caption)
        return figure

    needs = dict.fromkeys(stage for own in panels for stage in own.needs)
    return Picture(stem, draw, tuple(needs))


def against(
    number: Number,
    dim: str,
    *,
    by: str = "method",
    title: str = "",
    x: str = "",
    y: str = "",
    log: str = "xy",
    power: Collection[float] = (),
    ideal: tuple[float, str] | None = None,
    level: tuple | None = None,
    styles: Mapping[str, int] | None = None,
    dashed: Collection[str] = (),
    dodge: float = 0.0,
) -> Panel:
    """Means with 95 % intervals against a dimension, one line per value of another.

    Args:
      number: with `seed`, `dim` and perhaps `by`.
      dim: along the axis.
      by: one line each.
      title: above the panel.
      x: label of the axis; the dimension by default.
      y: label of the other axis.
      log: which axes are logarithmic, letters of "xy".
      power: values of `dim` through whose means a power law is drawn.
      ideal: exponent and words of a grey line through the middle of the first line's means, those
        of `power` if there are any: `(-1, "1/N")` where more agents should be so much better.
      level: height of a dotted line and its words, and whether these are below it.
      styles: label -> place among the colours; that of the method by default.
      dashed: labels of dashed lines.
      dodge: as of `plotting.points`.
    """

    def draw(axis, results):
        array = number(results)
        lines = {}
        for label, own in _lines(array, by).items():
            table = own.transpose(dim, "seed").values
            lines[label] = dict(zip(own[dim].values.tolist(), table, strict=True))
        places = styles_of(lines, styles)
        plotting.points(
            lines,
            x_label=x or dim,
            y_label=y,
            log=log,
            styles=places,
            dashed=dashed,
            dodge=dodge,
            axes=axis,
        )
        if power:
            for label, points in lines.items():
                shown = {v: own for v, own in points.items() if np.isclose(v, list(power)).any()}
                pages.power_law(axis, shown, OKABE_ITO[places[label]])
        if ideal is not None:
            law, words = ideal
            first = next(iter(lines.values()))
            means = {v: own.mean() for v, own in first.items() if v in power or not power}
            means = {v: mean for v, mean in means.items() if np.isfinite(mean)}
            at, height = np.array(list(means), float), np.array(list(means.values()))
            middle = np.exp(np.mean(np.log(height) - law * np.log(at)))
            at = array[dim].values.astype(float)
            axis.plot(at, middle * at**law, "--", color=GREY, lw=1, zorder=1, label=words)
        if level is not None:
            pages.level(axis, *level)

    return Panel(draw, number.needs, title)


def curves(
    number: Number,
    *,
    by: str = "method",
    title: str = "",
    y: str = "",
    log: bool = False,
    window: int = 1,
    cumulative: bool = False,
    level: tuple[float, str] | None = None,
    limits: tuple[float | None, float | None] | None = None,
    styles: Mapping[str, int] | None = None,
    dashed: Collection[str] = (),
) -> Panel:
    """Means over seeds against time, one line per value of a dimension.

    Args:
      number: with `seed`, `time` and perhaps `by`.
      by: one line each.
      title: above the panel.
      y: label of the axis.
      log: whether that axis is logarithmic.
      window: records in a running mean.
      cumulative: whether the number is summed over time.
      level: height of a dotted line and its words.
      limits: ends of the axis.
      styles: as of `against`.
      dashed: labels of dashed lines.
    """

    def draw(axis, results):
        array = number(results)
        lines = {
            label: own.transpose("seed", "time").to_dataset(name="value")
            for label, own in _lines(array, by).items()
        }
        few = array.sizes["seed"] < curve_page.FEWEST
        curve_page.curves(
            axis,
            lines,
            "value",
            y,
            styles=styles_of(lines, styles),
            log=log,
            window=window,
            cumulative=cumulative,
            interval=None if few else 0.95,
            shade=min(0.16, 0.4 / len(lines)),
            dashed=dashed,
            each=few and len(lines) < 4,
        )
        if limits is not None:
            axis.set_ylim(*limits)
        if level is not None:
            pages.level(axis, *level)

    return Panel(draw, number.needs, title)


def styles_of(labels: Collection[str], styles: Mapping[str, int] | None = None) -> dict[str, int]:
    """Label -> place among the colours: the method's, whose name a label begins with."""
    out: dict[str, int] = {}
    left = [place for place in range(len(OKABE_ITO)) if place not in (styles or {}).values()]
    for label in labels:
        method = max((name for name in PLACES if label.startswith(name)), key=len, default=None)
        wanted = (styles or {}).get(label, PLACES.get(method))
        if wanted is None or (wanted in out.values() and not (styles and label in styles)):
            free = [place for place in left if place not in out.values()]
            wanted = free[0] if free else len(out) % len(OKABE_ITO)
        out[label] = wanted
    return out


def _lines(array: xr.DataArray, by: str) -> dict[str, xr.DataArray]:
    """Label -> what belongs to it; one line without a name where there is no such dimension."""
    if by not in array.dims:
        return {str(array.coords[by].values) if by in array.coords else "mean": array}
    values: Sequence = array[by].values.tolist()
    return {
        value if isinstance(value, str) else f"{by} = {value:g}": array.sel({by: value})
        for value in values
    }
