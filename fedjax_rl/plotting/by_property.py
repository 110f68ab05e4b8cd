"""Any metric of any result, against time or what was swept, by what was swept."""

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from fedjax_rl.analysis import FEWEST, mean_interval
from fedjax_rl.names import check_known
from fedjax_rl.plotting import formats
from fedjax_rl.plotting.regressions import ticks
from fedjax_rl.plotting.rows import MAX_GROUPS, REPEATS, TIME, Rows, groups, to_rows, unique
from fedjax_rl.plotting.style import COLUMN, MARKERS, PAGE, canvas, colours, style

_DECADES = 30  # largest over smallest from which on an axis is logarithmic
_OCTAVES = 4  # the same of what was swept
_AXIS = "property to draw against."


def headline(result: xr.Dataset) -> str:
    """The metric that tells at a glance how well it went.

    Args:
        result: of a run or a sweep.

    Returns:
        The one that the algorithm names, or else the first that was recorded over time.

    Raises:
        ValueError: where nothing was recorded over time.
    """
    recorded = [name for name in result.data_vars if TIME in result[name].dims and name != "phase"]
    if not recorded:
        raise ValueError("no variable of the result has a time dimension")
    for name in (result.attrs.get("headline"), "error_server"):
        if name in recorded:
            return name
    return recorded[0]


def curves(
    result: xr.Dataset,
    metric: str | None = None,
    *,
    hue: str | Sequence[str] | None = None,
    x: str = TIME,
    facet: str | None = None,
    by: str | Sequence[str] | None = None,
    axes: Axes | Sequence[Axes] | None = None,
) -> Figure:
    """A metric of any result, by whatever was swept.

    Against time: median and interquartile band over the seeds. Against something that was swept:
    the mean over seeds of what each run was in the second half of its records, with 95 % Student t
    intervals where there are at least three runs.

    Args:
        result: of a run or a sweep.
        metric: variable to draw; by default the one that tells at a glance how well it went.
        hue: properties whose combinations get a line each: a colour for the first and a dash
            pattern for the others. All that are swept by default or, where that makes more than
            ten lines, the first of them; the spread is over everything else.
        x: "time", or a property.
        facet: a property whose values get a panel each.
        by: as `hue`, which it was called before.
        axes: where to draw, one per panel; new ones by default.

    Returns:
        The figure. The legend says how many runs of a line diverged; they count until then.

    Raises:
        ValueError: for an unknown variable or property (naming the nearest and what there is), one
            that is given twice, a metric without time against time, or more lines or panels asked
            for than can be told apart.

    Examples:
        >>> import fedjax_rl as frl
        >>> algorithm = frl.fedq(frl.envs.paper_mdp(), epsilon=1.0)
        >>> result = frl.sweep(algorithm, num_agents=[1, 2], sync_period=[1, 5], num_steps=20)
        >>> frl.plotting.curves(result).axes[0].get_xlabel()
        'environment steps of an agent'
        >>> figure = frl.plotting.curves(result, x="num_agents", facet="sync_period")
        >>> [axis.get_title("left") for axis in figure.axes]
        ['K = 1', 'K = 5']
    """
    if by is not None and hue is not None:
        raise ValueError(f"by is {by!r} beside hue, which it was called before; allowed: one")
    metric = headline(result) if metric is None else metric
    table = to_rows(result, metric)
    if x == TIME and not table.times.size:
        raise ValueError(
            f"{metric} has no time dimension; `heat` draws such a variable, and `curves` against "
            f"a property, x="
        )
    names = _names(table, hue if by is None else by, x, facet)
    whole = groups(table, (facet,) if facet else ())
    if len(whole) > MAX_GROUPS:
        raise ValueError(
            f"{len(whole)} values of {facet} are too many panels; allowed: at most {MAX_GROUPS}, "
            "select some of them"
        )
    columns = min(len(whole), 3)
    height = -(-len(whole) // columns)
    with style():
        size = (PAGE, 2.4 * height + 0.2) if len(whole) > 1 else (COLUMN * 1.35, 2.9)
        share = {"sharey": True, "sharex": True} if axes is None else {}
        shape = (height, columns) if axes is None else (1, len(whole))
        figure, flat = canvas(axes, size, *shape, **share)
        for axis in flat[len(whole) :]:
            axis.remove()
        flat = flat[: len(whole)]
        lines = Lines.of(table, names)
        log = _spans_decades(table)
        for axis, (label, member) in zip(flat, whole, strict=True):
            if x == TIME:
                _against_time(axis, table, lines, member)
            else:
                _against(axis, table, x, lines, member)
            axis.set_xlabel(formats.axis_label(x, result))
            axis.set_ylabel(textwrap.fill(formats.axis_label(metric, result), 34))
            if log:
                axis.set_yscale("log")
                ticks(axis.yaxis, 10.0)
            if facet:
                axis.set_title(formats.tag((facet,), label))
        said = _said(table, x, (*names, x, facet))
        _around(figure, flat, said, names, table, given=axes is not None)
    return figure


class Lines(NamedTuple):
    """What is drawn apart.

    Attributes:
        members: bool [R] of each line.
        texts: in the legend, all different.
        looks: colour and dash pattern of each.
    """

    members: list[np.ndarray]
    texts: list[str]
    looks: list[tuple]

    @classmethod
    def of(cls, table: Rows, names: Sequence[str]) -> "Lines":
        """The lines of all combinations of properties."""
        found = groups(table, names)
        if len(found) > 2 * MAX_GROUPS:
            raise ValueError(
                f"{len(found)} combinations of {', '.join(names)} are too many lines; select some "
                "of them, or give other names to `hue`"
            )
        texts = formats.tags(names, [label for label, _ in found])
        return cls([member for _, member in found], texts, line_styles(found))


def _names(table: Rows, hue, x: str, facet: str | None) -> tuple[str, ...]:
    """The properties that get lines, after everything that was named is found to be there."""
    check_known(x, (TIME, *table.columns), _AXIS)
    if facet is not None:
        check_known(facet, table.columns, "property of the result.")
    if facet == x:
        raise ValueError(f"facet is {facet}, as x is; allowed: another property")
    used = {x, facet}
    if hue is not None:
        names = (hue,) if isinstance(hue, str) else tuple(hue)
        for name in names:
            check_known(name, table.columns, "property of the result.")
            if name in used:
                raise ValueError(f"hue is {name}, as x or facet is; allowed: another property")
        return names
    names = tuple(name for name in table.swept if name not in used)
    return names if len(groups(table, names)) <= MAX_GROUPS else names[:1]


def _finite(table: Rows) -> np.ndarray:
    return np.where(np.isfinite(table.values), table.values, np.nan)


def _spans_decades(table: Rows) -> bool:
    values = table.values[np.isfinite(table.values)]
    return bool(values.size and values.min() > 0 and values.max() / values.min() > _DECADES)


def _against_time(axis: Axes, table: Rows, lines: Lines, panel: np.ndarray) -> None:
    """Medians and quartiles."""
    values = _finite(table)
    faint = 0.2 if len(lines.members) <= 6 else 0.08
    for own, text, (colour, dash) in zip(*lines, strict=True):
        member = own & panel
        if not member.any():
            continue
        text = _with_lost(text or "median", table, member)
        # Of two there are no quarters.
        few = 1 < member.sum() < FEWEST
        text += f" ({member.sum()} runs)" if few else ""
        low, middle, high = quantiles(values[member], [0.25, 0.5, 0.75])
        axis.plot(table.times, middle, color=colour, linestyle=dash, label=text)
        if member.sum() >= FEWEST:
            axis.fill_between(table.times, low, high, color=colour, alpha=faint, linewidth=0)
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: formats.number(x)))


def _against(axis: Axes, table: Rows, x: str, lines: Lines, panel: np.ndarray) -> None:
    """Means with intervals at each value of a property."""
    ends = settled(table)
    places = unique(table.columns[x])
    words = any(isinstance(place, str | bool) for place in places)
    where = range(len(places)) if words else places
    for i, (own, text, (colour, dash)) in enumerate(zip(*lines, strict=True)):
        member = own & panel
        at, found = [], []
        for place, value in zip(where, places, strict=True):
            runs = ends[member & (table.columns[x] == value)]
            if np.isfinite(runs).any():
                at.append(place)
                found.append(estimate(runs))
        if not at:
            continue
        mean, low, high = np.transpose(found)
        axis.errorbar(
            at,
            mean,
            [mean - low, high - mean],
            color=colour,
            linestyle="none" if words else dash,
            marker=MARKERS[i % len(MARKERS)],
            capsize=2,
            elinewidth=1,
            label=_with_lost(text or "mean", table, member),
        )
    if words:
        axis.set_xticks(where, places)
        axis.margins(x=0.15)
    elif min(places) > 0 and max(places) / min(places) >= _OCTAVES:
        axis.set_xscale("log")
        axis.autoscale_view()
        ticks(axis.xaxis, 10.0, places)
    elif len(places) <= MAX_GROUPS:
        axis.set_xticks(places, formats.numbers(places))


def settled(table: Rows) -> np.ndarray:
    """Of each run the mean of the second half of its records, or its number where it has no time.

    Args:
        table: of a variable.

    Returns:
        float64 [R]; NaN where nothing is finite.
    """
    values = _finite(table)
    if not table.times.size:
        return values
    late = values[:, values.shape[-1] // 2 :]
    counts = np.isfinite(late).sum(axis=-1)
    return np.where(counts, np.nansum(late, axis=-1) / np.maximum(counts, 1), np.nan)


def estimate(runs: np.ndarray) -> tuple[float, float, float]:
    """Mean of those runs that are finite and ends of its 95 % interval.

    Args:
        runs: float64 [R].

    Returns:
        Mean, low and high; of fewer than three runs the ends are NaN.
    """
    runs = runs[np.isfinite(runs)]
    if len(runs) < FEWEST:
        return (runs.mean() if len(runs) else np.nan), np.nan, np.nan
    return tuple(float(each) for each in mean_interval(runs))


def _with_lost(text: str, table: Rows, member: np.ndarray) -> str:
    lost = int(table.diverged[member].sum())
    return f"{text} ({lost} of {member.sum()} diverged)" if lost else text


def _said(table: Rows, x: str, used: Sequence) -> str:
    """What a spread is of, and over what."""
    pooled = [n for n in (*REPEATS, *table.swept) if n not in used and n in table.columns]
    pooled = [n for n in dict.fromkeys(pooled) if len(unique(table.columns[n])) > 1]
    if not pooled:
        return "" if x == TIME or not table.times.size else "second half of each run"
    if x == TIME:
        own = [member for _, member in groups(table, [n for n in used if n in table.columns])]
        few = max(member.sum() for member in own) < FEWEST
        return f"median{'' if few else ' and quartiles'} over {_listed(pooled)}"
    runs = "second half of each run, " if table.times.size else ""
    return f"{runs}mean and 95 % interval over {_listed(pooled)}"


def _around(figure: Figure, flat, said: str, names, table: Rows, given: bool) -> None:
    """Title and legend, once where there are several panels."""
    several = len(flat) > 1
    if said and several and not given:
        figure.suptitle(said, fontsize=8.5)
    elif said and not several:
        flat[0].set_title(said)
    if several and not given:
        for axis in flat:
            axis.label_outer()
    if not names and not table.diverged.any():
        return
    if given or (not several and len(flat[0].get_legend_handles_labels()[1]) <= 6):
        flat[0].legend()
        return
    entries: dict = {}
    for axis in flat:
        for handle, text in zip(*axis.get_legend_handles_labels(), strict=True):
            entries.setdefault(text, handle)
    where = {"loc": "outside right upper"}
    if several:
        where = {"loc": "outside lower center", "ncols": min(len(entries), 5)}
    figure.legend(list(entries.values()), list(entries), **where)


def line_styles(found) -> list[tuple]:
    """A colour and a dash pattern per group: two properties that cross get one each.

    Args:
        found: pairs of the values of each group and what is in it.

    Returns:
        A colour and a dash pattern for each.
    """
    labels = [label for label, _ in found]
    dashes = ("-", "--", ":", "-.")
    firsts, rests = ({label[part] for label in labels} for part in (slice(1), slice(1, None)))
    firsts, rests = sorted(firsts), sorted(rests)
    if len(rests) > len(dashes):
        return [(colour, "-") for colour in colours([str(label) for label in labels])]
    shade = dict(zip(firsts, colours([first[0] if first else "" for first in firsts]), strict=True))
    return [(shade[label[:1]], dashes[rests.index(label[1:])]) for label in labels]


def quantiles(values: np.ndarray, q) -> np.ndarray:
    """Quantiles over runs, without a warning where no run has a value.

    Args:
        values: float64 [R, T].
        q: quantiles, any shape.

    Returns:
        float64 [..., T], NaN where no run has a value.
    """
    q = np.asarray(q)
    out = np.full((*q.shape, values.shape[-1]), np.nan)
    some = np.isfinite(values).any(axis=0)
    if some.any():
        out[..., some] = np.nanquantile(values[:, some], q, axis=0)
    return out


def _listed(names: Sequence[str]) -> str:
    plural = [{"seed": "seeds", "agent": "agents"}.get(n, n.replace("_", " ")) for n in names]
    return formats.listed(plural)
