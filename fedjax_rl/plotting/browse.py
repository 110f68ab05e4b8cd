"""Results as one page for a browser: what is drawn, what is chosen there, and nothing fetched."""

import html
import importlib
import importlib.resources
import json
import math
import re
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from fedjax_rl.analysis import FEWEST, agent_mean, mean_interval
from fedjax_rl.plotting import formats
from fedjax_rl.plotting.rows import REPEATS, Rows, to_rows
from fedjax_rl.plotting.style import OKABE_ITO

RECORDS = 400  # of a curve at most; more than a screen shows
NUMBERS = 2_000_000  # of a page at most: about 15 MB
COSTS = {
    "env_steps": "environment steps",
    "communications": "exchanges",
    "bytes_up": "bytes up",
}
_SKIPPED = (*COSTS, "diverged", "phase")


def browsable(
    results: xr.Dataset | Mapping[str, xr.Dataset],
    *,
    configurations: Mapping[str, dict] | None = None,
    studies: Sequence[dict] = (),
    title: str = "fedjax_rl",
) -> str:
    """One self-contained HTML page: curves with hover, choices, a table, the configurations.

    It is drawn by Plotly, whose script lies within (4.8 MB); nothing is fetched from a network.

    Args:
        results: of `frl.sweep` or `frl.load`, or several by label, laid side by side.
        configurations: of each label what it was made with; what the result itself says by default.
        studies: of each "name", "summary" with its targets, and "pictures", name -> data of a PNG.
        title: of the page.

    Returns:
        The text of the page.

    Raises:
        ValueError: results that do not fit on common axes, by name, or nothing to show.
        ImportError: without Plotly.

    Examples:
        >>> import fedjax_rl as frl
        >>> result = frl.sweep(frl.fedq(frl.envs.paper_mdp()), seeds=range(3), num_steps=20)
        >>> page = frl.plotting.browsable(result)
        >>> page.startswith("<!doctype html>"), "http-equiv" in page
        (True, True)
    """
    results = {"": results} if isinstance(results, xr.Dataset) else dict(results)
    if not results and not studies:
        raise ValueError("results is empty; allowed: at least one result, or a study")
    data = {"studies": list(studies), "colours": list(OKABE_ITO), "fewest": FEWEST}
    if results:
        data |= content(results)
        own = {label: dict(configurations or {}).get(label) for label in results}
        data["configurations"] = [
            {"label": label, "values": own[label] or _configuration(result)}
            for label, result in results.items()
        ]
    # A script ends where this stands, whatever is around it.
    words = json.dumps(_plain(data), allow_nan=False).replace("</", "<\\/")
    parts = {
        "TITLE": html.escape(title),
        "STYLE": _file("browse.css"),
        "DATA": words,
        "PLOTLY": _plotly(),
        "SCRIPT": _file("browse.js") + _file("studies.js"),
    }
    # At once: what is put in may hold such a mark itself.
    return re.sub("@([A-Z]+)@", lambda match: parts[match[1]], _file("browse.html"))


def content(results: Mapping[str, xr.Dataset]) -> dict:
    """What the page draws of results, as plain values.

    Args:
        results: by label.

    Returns:
        "axes", each with its name and the words of its values; "metrics", name -> words; "time";
        "cells", each with the places of its values on the axes, runs, costs and curves: of each
        metric the mean over runs and the ends of its 95 % Student t interval, None for fewer than
        three runs.

    Raises:
        ValueError: results that do not fit on common axes, by name.
    """
    metrics = _metrics(results)
    _check_times(results)
    cells, swept = [], {}
    found = {label: _cells(label, result, metrics) for label, result in results.items()}
    for own in found.values():
        for at, *_ in own:
            swept |= dict.fromkeys(at)
    several = len(results) > 1
    names = [*(["directory"] if several else []), *swept]
    known: dict[str, list] = {name: [] for name in names}
    for label, result in results.items():
        for at, rest in found[label]:
            whole = {n: at[n] if n in at else _fixed(result, n) for n in swept}
            whole |= {"directory": label} if several else {}
            for name in names:
                if whole[name] not in known[name]:
                    known[name].append(whole[name])
            cells.append({"at": whole, **rest})
    words = {name: _words(values) for name, values in known.items()}
    tags = {name: _tags(name, own) for name, own in words.items()}
    for cell in cells:
        cell["at"] = [known[name].index(cell["at"][name]) for name in names]
    first = next(iter(results.values()))
    thin = _thinned(cells, metrics)
    return {
        "axes": [
            {"name": n, "label": formats.axis_label(n), "values": words[n], "tags": tags[n]}
            for n in names
        ],
        "metrics": [{"name": n, "label": text} for n, text in metrics.items()],
        "time": formats.axis_label("time") if not _unit(first) else _unit(first),
        "costs": list(COSTS.values()),
        "cells": cells,
        "thinned": thin,
    }


def _metrics(results: Mapping[str, xr.Dataset]) -> dict[str, str]:
    """What all of the results have recorded over time, and what it is."""
    own = {label: _recorded(result) for label, result in results.items()}
    found = {n: text for n, text in next(iter(own.values())).items()}
    for label, names in own.items():
        if not names:
            raise ValueError(f"{label or 'the result'} has nothing recorded over time to draw")
        found = {n: text for n, text in found.items() if n in names}
    if not found:
        words = "; ".join(f"{label} {', '.join(list(names)[:5])}" for label, names in own.items())
        raise ValueError(f"the results have no metric in common: {words}; allowed: a page for each")
    return found


def _recorded(result: xr.Dataset) -> dict[str, str]:
    return {
        name: formats.axis_label(name, result)
        for name, variable in result.data_vars.items()
        if "time" in variable.dims and name not in _SKIPPED and "quantile" not in variable.dims
    }


def _unit(result: xr.Dataset) -> str:
    return result["time"].attrs.get("long_name", "")


def _check_times(results: Mapping[str, xr.Dataset]) -> None:
    units: dict[str, str] = {}
    for label, result in results.items():
        units.setdefault(_unit(result), label)
    if len(units) > 1:
        words = ", ".join(f"{label} counts {unit or 'time'}" for unit, label in units.items())
        raise ValueError(f"the results count time unalike: {words}; allowed: a page for each")


def _cells(label: str, result: xr.Dataset, metrics: Mapping[str, str]) -> list[tuple[dict, dict]]:
    """Of each configuration the values of what was swept, and what there is to show."""
    out: dict[tuple, tuple[dict, dict]] = {}
    for metric in metrics:
        variable = result[metric]
        flat = result[[n for n in ("diverged", *COSTS) if n in result]]
        flat[metric] = agent_mean(variable) if "agent" in variable.dims else variable
        table = to_rows(flat, metric)
        for at, member in _groups(table):
            key = tuple(at.items())
            if key not in out:
                costs = {n: _mean(flat, n, member) for n in COSTS if n in flat}
                rest = {"curves": {}, "costs": [costs.get(n) for n in COSTS]}
                rest |= {"diverged": int(table.diverged[member].sum()), "runs": int(member.sum())}
                out[key] = at, rest
            curve = _curve(table.times, table.values[member])
            if curve is not None:
                out[key][1]["curves"][metric] = curve
    return list(out.values())


def _groups(table: Rows) -> list[tuple[dict, np.ndarray]]:
    """The runs of each combination of what was swept; a value that is missing is one, too."""
    names = [name for name in table.swept if name not in REPEATS]
    columns = [[_value(x) for x in table.columns[name].tolist()] for name in names]
    places: dict[tuple, list[int]] = {}
    for place in range(len(table.diverged)):
        places.setdefault(tuple(column[place] for column in columns), []).append(place)
    count = len(table.diverged)
    return [
        (dict(zip(names, values, strict=True)), np.isin(np.arange(count), own))
        for values, own in places.items()
    ]


def _value(x):
    """A label as it can be compared: what has no value is None."""
    return None if isinstance(x, float) and math.isnan(x) else x


def _mean(flat: xr.Dataset, name: str, member: np.ndarray) -> float:
    return float(to_rows(flat, name).values[member].mean())


def _curve(times: np.ndarray, values: np.ndarray) -> dict | None:
    """Mean over the runs that are finite, and the ends of its interval; of none nothing."""
    whole = np.isfinite(values).all(axis=1)
    if not whole.any():
        return None
    found = mean_interval(values[whole])
    enough = whole.sum() >= FEWEST
    return {
        "time": times,
        "mean": found.value,
        "low": found.low if enough else None,
        "high": found.high if enough else None,
        "runs": int(whole.sum()),
        "lost": int((~whole).sum()),
    }


def _fixed(result: xr.Dataset, name: str):
    """What a result that does not vary in it has of a property; None where nobody knows."""
    if name in result.coords and result[name].ndim == 0:
        return _value(result[name].item())
    value = _configuration(result)
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value if isinstance(value, int | float | str) else None


def _configuration(result: xr.Dataset) -> dict:
    return json.loads(result.attrs.get("configuration", "{}"))


def _tags(name: str, words: list[str]) -> list[str]:
    """The values of an axis as a legend says them: with a name where they are no names."""
    if name in ("directory", "algorithm"):
        return words
    # By the symbol that papers have for it, where there is one.
    symbol = formats.tag([name], ["x"]).partition(" = ")[0]
    return [f"{symbol} = {word}" for word in words]


def _words(values: list) -> list[str]:
    """Labels of the values of an axis, all different; "none" where there is no value."""
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    told = dict(zip(map(repr, numbers), formats.numbers(numbers), strict=True))
    return formats.numbered(["none" if v is None else told.get(repr(v), str(v)) for v in values])


def _thinned(cells: list[dict], metrics: Mapping[str, str]) -> int:
    """Leaves out records of curves that no screen shows; returns how many each has then, or 0."""
    most = min(RECORDS, max(20, NUMBERS // (3 * max(len(cells), 1) * max(len(metrics), 1))))
    thinned = 0
    for curve in (curve for cell in cells for curve in cell["curves"].values()):
        count = len(curve["time"])
        if count > most:
            kept = np.unique(np.linspace(0, count - 1, most).round().astype(int))
            thinned = most
            for name in ("time", "mean", "low", "high"):
                curve[name] = None if curve[name] is None else curve[name][kept]
    return thinned


def _plain(value):
    """As JSON has it: arrays as lists of six digits, what is not finite as null."""
    if isinstance(value, Mapping):
        return {str(name): _plain(own) for name, own in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [_plain(own) for own in (value.tolist() if isinstance(value, np.ndarray) else value)]
    if isinstance(value, bool | str | int | None):
        return value
    if isinstance(value, float | np.floating):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return str(value)


def _file(name: str) -> str:
    return (importlib.resources.files("fedjax_rl.plotting") / "data" / name).read_text("utf-8")


def _plotly() -> str:
    """The script that draws.

    Raises:
        ImportError: it is not installed.
    """
    try:
        return importlib.import_module("plotly.offline").get_plotlyjs()
    except ModuleNotFoundError as error:
        raise ImportError('pages for a browser need plotly: pip install "plotly>=6"') from error
