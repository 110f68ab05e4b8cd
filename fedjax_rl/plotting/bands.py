"""Learning against episodes: means of trials with the band between two percentiles."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from fedjax_rl.analysis import agent_mean, mean_interval, percentile_bands
from fedjax_rl.names import check_known
from fedjax_rl.plotting import formats
from fedjax_rl.plotting.style import COLUMN, MARKERS, OKABE_ITO, PAGE, canvas, style

TIMES = ("time", "episode")
TRIALS = ("seed", "trial")
MARKS = 6  # markers along a line
LETTERS = 110  # of a legend in a line across the page
FLOOR = 0.3  # lower end of a logarithmic axis, in parts of the smallest positive mean
SPAN = 1e-7  # of a logarithmic axis at most, in parts of the largest mean

# what the axes of the metrics say where the result does not
_WORDS = {
    "reward": "discounted return",
    "frequency": "messages per agent",
    "size": "bytes per agent and episode",
}


def banded_curves(
    results: xr.Dataset | Mapping[str, xr.Dataset | xr.DataArray],
    variables: str | Sequence[str] | Mapping[str, str] = "reward",
    *,
    log: Collection[str] = (),
    cumulative: Collection[str] = (),
    percentiles: tuple[float, float] = (10.0, 90.0),
    level: float | None = 0.95,
    window: int = 1,
    styles: Mapping[str, int] | None = None,
    axes: Axes | Sequence[Axes] | None = None,
) -> Figure:
    """Means over trials with percentile bands, a panel per variable (Gunn 2023, Fig. 3.4).

    Thick lines are means over trials, shades reach from one percentile across trials to the other,
    thin lines enclose the Student t interval of the mean. Lines differ in marker as well as in
    colour, and keep both from panel to panel.

    Args:
        results: a result, or one per line by label. The dimensions of a variable are the time
            ("time" or "episode"), the trials ("seed" or "trial", or none for a single one),
            "agent" if agents are still to be averaged, and in a result without labels one more,
            each of whose values makes a line.
        variables: names of variables, a panel each, or a mapping of them to the words of their
            axes. A DataArray serves for one variable only.
        log: variables with a logarithmic axis; what is zero there lies below its end.
        cumulative: variables summed over the records up to each; sums are smooth, and no running
            means are taken of them.
        percentiles: of the band, in [0, 100].
        level: of confidence of the mean; None draws no interval.
        window: records averaged in every trial first, a running mean that ends at each record.
        styles: label -> place among the colours and markers, so that a line looks the same in
            several pictures; the order of the lines by default.
        axes: one per variable; new ones side by side by default.

    Returns:
        The figure. A trial with a value that is not finite is left out; the legend counts these.

    Raises:
        ValueError: for an unknown variable (naming the nearest), dimensions or percentiles other
            than these, more lines than colours, a line without a style, a window without records,
            or a wrong number of axes.
    """
    names = (variables,) if isinstance(variables, str) else tuple(variables)
    words = dict(variables) if isinstance(variables, Mapping) else {}
    if not names:
        raise ValueError("variables is empty; at least one is needed")
    for name in (*log, *cumulative):
        check_known(name, names, "variable of this picture.")
    if window < 1:
        raise ValueError(f"window must be at least 1 record, not {window}")
    panels = {name: _lines(results, name) for name in names}
    labels = list(dict.fromkeys(label for lines in panels.values() for label in lines))
    if len(labels) > len(OKABE_ITO):
        raise ValueError(f"{len(labels)} lines cannot be told apart; at most {len(OKABE_ITO)}")
    styles = {label: i for i, label in enumerate(labels)} if styles is None else dict(styles)
    for label in labels:
        check_known(label, styles, "line with a style.")
    shape = (PAGE if len(names) > 1 else COLUMN * 1.35, 2.9 if len(names) > 2 else 3.1)
    with style():
        figure, flat = canvas(axes, shape, 1, len(names))
        # Sums are smooth by themselves.
        shown = window if set(names) - set(cumulative) else 1
        counts, lost = set(), dict.fromkeys(labels, 0)
        for axis, (name, lines) in zip(flat, panels.items(), strict=True):
            for label, (times, values) in lines.items():
                whole = np.isfinite(values).all(axis=1)
                lost[label] = max(lost[label], int((~whole).sum()))
                if not whole.any():
                    continue
                counts.add(int(whole.sum()))
                summed = name in cumulative
                values = values[whole].cumsum(axis=1) if summed else _running(values[whole], window)
                times = times[len(times) - values.shape[1] :]
                _line(axis, times, values, styles[label], percentiles, level)
            if name in log:
                _logarithmic(axis)
            axis.set_xlabel(_time_words(results, name))
            text = words.get(name) or _axis_words(results, name)
            axis.set_ylabel(f"cumulative {text}" if name in cumulative else text)
            axis.margins(x=0.01)
            axis.xaxis.set_major_locator(MaxNLocator(5))
            axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: formats.number(x)))
        _legend(
            figure,
            flat,
            axes,
            {label: styles[label] for label in labels},
            lost,
            _caption(counts, percentiles, level, shown, "\n" if len(names) == 1 else "; "),
        )
    return figure


def _line(axis, times, values, position, percentiles, level) -> None:
    """One line of values [trials, time] in the style of its position."""
    colour, marker = OKABE_ITO[position], MARKERS[position]
    band = percentile_bands(values, 0, *percentiles)
    # The first marker of each line sits elsewhere, so that markers of equal lines stay visible.
    step = max(1, len(times) // MARKS)
    first = int(step * (0.3 + 0.6 * position / len(OKABE_ITO)))
    axis.plot(
        times,
        band.mean,
        color=colour,
        marker=marker,
        markevery=(first, step),
        markersize=4,
        markeredgecolor="white",
        markeredgewidth=0.4,
        zorder=4,
        gid="mean",
    )
    if len(values) == 1:
        return
    axis.fill_between(
        times, band.low, band.high, color=colour, alpha=0.16, linewidth=0, zorder=2, gid="band"
    )
    if level is not None:
        interval = mean_interval(values, 0, level)
        for limit in (interval.low, interval.high):
            axis.plot(times, limit, color=colour, linewidth=0.5, alpha=0.7, zorder=3, gid="limit")


def _logarithmic(axis) -> None:
    """A logarithmic axis that ends just below the smallest positive mean."""
    means = [line.get_ydata() for line in axis.lines if line.get_gid() == "mean"]
    means = np.concatenate(means) if means else np.ones(1)
    axis.set_yscale("log", nonpositive="clip")
    if (means > 0).any():
        axis.set_ylim(bottom=max(FLOOR * means[means > 0].min(), SPAN * means.max()))


def _legend(figure, flat, axes, labels, lost, caption) -> None:
    entries = []
    for label, position in labels.items():
        text = f"{label} ({lost[label]} left out)" if lost[label] else label
        entries += flat[0].plot(
            [],
            [],
            color=OKABE_ITO[position],
            marker=MARKERS[position],
            markeredgecolor="white",
            markeredgewidth=0.4,
            label=text or "mean",
        )
    options = {"handles": entries, "title": caption, "title_fontsize": 7}
    if axes is None:
        fitting = (LETTERS if len(flat) > 1 else LETTERS // 2) // (6 + max(map(len, labels)))
        columns = max(1, min(len(labels), fitting, len(labels) if len(flat) > 1 else 3))
        figure.legend(loc="outside lower center", ncols=columns, **options)
    else:
        flat[0].legend(**options)


def _caption(counts, percentiles, level, window, between) -> str:
    if not counts or max(counts) == 1:
        return "a single trial"
    trials = f"{min(counts)} to {max(counts)}" if len(counts) > 1 else f"{max(counts)}"
    low, high = (formats.number(p) for p in percentiles)
    text = f"mean of {trials} trials, {low} to {high} % of them shaded"
    if level is not None:
        text += f"{between}{formats.number(100 * level)} % interval of the mean in thin lines"
    if window > 1:
        text += f", running means of {window}"
    return text


def _lines(results, name: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Label -> times [T] and values float64 [trials, T] of a variable."""
    if isinstance(results, Mapping) and not isinstance(results, xr.Dataset):
        if not results:
            raise ValueError("results is empty; at least one is needed")
        arrays = {}
        for label, result in results.items():
            if isinstance(result, xr.Dataset):
                check_known(name, result.data_vars, f"variable of {label}.")
                result = result[name]
            arrays[str(label)] = result
    else:
        check_known(name, results.data_vars, "variable of the result.")
        arrays = _split(results[name])
    return {label: _trials(name, label, array) for label, array in arrays.items()}


def _split(variable: xr.DataArray) -> dict[str, xr.DataArray]:
    """One array per value of the dimension that is neither time, trials nor agents."""
    others = [dim for dim in variable.dims if dim not in (*TIMES, *TRIALS, "agent")]
    if len(others) > 1:
        raise ValueError(
            f"{variable.name} varies with {', '.join(map(str, others))}; select one value of all "
            f"but one, e.g. result.isel({others[0]}=0)"
        )
    if not others:
        return {"": variable}
    (dim,) = others
    values = variable[dim].values.tolist()
    words = all(isinstance(value, str) for value in values)
    labels = formats.numbered(values) if words else formats.tags([dim], [[v] for v in values])
    return {label: variable.isel({dim: i}) for i, label in enumerate(labels)}


def _trials(name: str, label: str, array: xr.DataArray) -> tuple[np.ndarray, np.ndarray]:
    if "agent" in array.dims:
        array = agent_mean(array)
    times = [dim for dim in array.dims if dim in TIMES]
    trials = [dim for dim in array.dims if dim in TRIALS]
    if len(times) != 1 or len(trials) > 1 or len(array.dims) != len(times) + len(trials):
        raise ValueError(
            f"{name} of {label or 'the result'} has the dimensions {', '.join(array.dims)}; it "
            f"must have one of {', '.join(TIMES)} and at most one of {', '.join(TRIALS)}"
        )
    values = array.transpose(*trials, *times).values.astype(np.float64)
    if values.size == 0:
        raise ValueError(f"{name} of {label or 'the result'} is empty")
    time = array[times[0]].values.astype(np.float64)
    order = np.argsort(time, kind="stable")
    return time[order], np.atleast_2d(values)[:, order]


def _running(values: np.ndarray, window: int) -> np.ndarray:
    """Running means [trials, T - window + 1] of values [trials, T]."""
    if window > values.shape[1]:
        raise ValueError(f"a window of {window} records is longer than the {values.shape[1]} given")
    return np.lib.stride_tricks.sliding_window_view(values, window, axis=1).mean(axis=-1)


def _one(results, name: str) -> xr.Dataset | xr.DataArray:
    if isinstance(results, xr.Dataset):
        return results[name]
    first = next(iter(results.values()))
    return first[name] if isinstance(first, xr.Dataset) else first


def _axis_words(results, name: str) -> str:
    return _one(results, name).attrs.get("long_name", _WORDS.get(name, name.replace("_", " ")))


def _time_words(results, name: str) -> str:
    array = _one(results, name)
    dim = next(dim for dim in array.dims if dim in TIMES)
    return array[dim].attrs.get("long_name", "episode")
