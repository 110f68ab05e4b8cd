"""Learning against episodes: means of trials with the band between two percentiles."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedjax_rl.analysis import agent_mean
from fedjax_rl.names import check_known
from fedjax_rl.plotting import formats
from fedjax_rl.plotting.panel import PERCENTILES, caption, entries, panel, styles_of
from fedjax_rl.plotting.style import COLUMN, PAGE, canvas, style

TIMES = ("time", "episode")
TRIALS = ("seed", "trial")
LETTERS = 110  # of a legend in a line across the page

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
    percentiles: tuple[float, float] = PERCENTILES,
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

    Examples:
        >>> import numpy as np, xarray as xr
        >>> from fedjax_rl.plotting import banded_curves
        >>> values = np.random.default_rng(0).normal(size=(2, 5, 30)).cumsum(-1)
        >>> reward = xr.DataArray(values, dims=("momentum", "seed", "time"))
        >>> reward = reward.assign_coords(momentum=[0.0, 0.9], time=range(1, 31))
        >>> figure = banded_curves(xr.Dataset({"reward": reward}))
        >>> [text.get_text() for text in figure.legends[0].get_texts()]
        ['momentum = 0', 'momentum = 0.9']
    """
    names = (variables,) if isinstance(variables, str) else tuple(variables)
    texts = dict(variables) if isinstance(variables, Mapping) else {}
    if not names:
        raise ValueError("variables is empty; at least one is needed")
    for name in (*log, *cumulative):
        check_known(name, names, "variable of this picture.")
    lines = {name: lines_of(results, name) for name in names}
    labels = list(dict.fromkeys(label for own in lines.values() for label in own))
    styles = styles_of(labels, styles)
    shape = (PAGE if len(names) > 1 else COLUMN * 1.35, 2.9 if len(names) > 2 else 3.1)
    with style():
        figure, flat = canvas(axes, shape, 1, len(names))
        panels = []
        for axis, name in zip(flat, names, strict=True):
            text = texts.get(name) or _axis_label(results, name)
            panels.append(
                panel(
                    axis,
                    lines[name],
                    styles,
                    log=name in log,
                    cumulative=name in cumulative,
                    percentiles=percentiles,
                    level=level,
                    window=window,
                )
            )
            axis.set_xlabel(time_label(results, name))
            axis.set_ylabel(f"cumulative {text}" if name in cumulative else text)
        lost = {
            label: max(one.lost[label] for one in panels if label in one.lost) for label in labels
        }
        handles = entries(flat[0], {label: styles[label] for label in labels}, lost)
        counts = set().union(*(one.counts for one in panels))
        # Sums are smooth by themselves.
        shown = window if set(names) - set(cumulative) else 1
        between = "\n" if len(names) == 1 else "; "
        title = caption(counts, percentiles, level, shown, between)
        options = {"handles": handles, "title": title, "title_fontsize": 7}
        if axes is None:
            fitting = (LETTERS if len(flat) > 1 else LETTERS // 2) // (6 + max(map(len, labels)))
            columns = max(1, min(len(labels), fitting, len(labels) if len(flat) > 1 else 3))
            figure.legend(loc="outside lower center", ncols=columns, **options)
        else:
            flat[0].legend(**options)
    return figure


def lines_of(results, name: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The lines of a variable.

    Args:
        results: as `banded_curves` takes them.
        name: of the variable.

    Returns:
        Label -> times [T] and values float64 [trials, T].

    Raises:
        ValueError: for an unknown variable, or dimensions that make no line.
    """
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
    # Running means and cumulative sums take records in order.
    order = np.argsort(time, kind="stable")
    return time[order], np.atleast_2d(values)[:, order]


def _one(results, name: str) -> xr.Dataset | xr.DataArray:
    if isinstance(results, xr.Dataset):
        return results[name]
    first = next(iter(results.values()))
    return first[name] if isinstance(first, xr.Dataset) else first


def _axis_label(results, name: str) -> str:
    return _one(results, name).attrs.get("long_name", _WORDS.get(name, name.replace("_", " ")))


def time_label(results, name: str) -> str:
    """What the horizontal axis of a variable says.

    Args:
        results: as `banded_curves` takes them.
        name: of the variable.

    Returns:
        The long name of its time, "episode" where it has none.
    """
    array = _one(results, name)
    dim = next(dim for dim in array.dims if dim in TIMES)
    return array[dim].attrs.get("long_name", "episode")
