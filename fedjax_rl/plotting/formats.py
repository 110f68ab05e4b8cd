"""How properties and numbers are written in a picture: axes, legends, ticks."""

# ruff: noqa: RUF001 -- the labels say α and − as the papers do

from collections.abc import Sequence

import numpy as np
import xarray as xr

# name -> (symbol, label of an axis)
_LABELS = {
    "num_agents": ("N", "number of agents N"),
    "sync_period": ("K", "local steps per round K"),
    "learning_rate": ("α", "learning rate α"),
    "epsilon": ("ε", "exploration ε"),
    "time": ("t", "environment steps of an agent"),
    "error_server": ("D²", "squared distance to q*, server average"),
    "error_local_mean": ("D²", "squared distance to q*, mean over agents"),
    "error_local": ("D²", "squared distance to q*, one agent"),
    "sup_error_server": ("D∞", "largest distance to q*, server average"),
}


def axis_label(name: str, result: xr.Dataset | None = None) -> str:
    """What an axis says.

    Args:
        name: of a property or a variable.
        result: whose `long_name` counts for a name that is not known here.

    Returns:
        Words, such as "number of agents N".
    """
    attributes = result[name].attrs if result is not None and name in result.variables else {}
    said = attributes.get("long_name", name.replace("_", " "))
    # Time counts rounds, episodes or steps of a server, too.
    if name in _LABELS and (name != "time" or said.startswith(("time", "step"))):
        return _LABELS[name][1]
    return said


def tag(names: Sequence[str], values: Sequence, digits: int = 6) -> str:
    """A group in a legend, e.g. "K = 10, ε = 1".

    Args:
        names: of properties.
        values: of these.
        digits: significant digits of what is not whole.
    """
    symbols = (_LABELS[name][0] if name in _LABELS else name.replace("_", " ") for name in names)
    return ", ".join(
        # What an algorithm is called says by itself what it is.
        v if s == "algorithm" and isinstance(v, str) else f"{s} = {number(v, digits)}"
        for s, v in zip(symbols, values, strict=True)
    )


def tags(names: Sequence[str], groups: Sequence[Sequence]) -> list[str]:
    """Tags of several groups, of as many digits as tell them apart, or else with a count.

    Args:
        names: of properties.
        groups: the values of each group.

    Returns:
        One tag per group, all different.
    """
    for digits in (6, 9, 17):
        found = [tag(names, values, digits) for values in groups]
        if len(set(found)) == len(found):
            return found
    return numbered(found)


def numbers(values: Sequence) -> list[str]:
    """Numbers of as many digits as tell them apart."""
    for digits in (6, 9, 17):
        found = [number(value, digits) for value in values]
        if len(set(found)) == len(found):
            break
    return found


def numbered(labels: Sequence[str]) -> list[str]:
    """Labels, of equal ones the second and later with their number, so that none is lost."""
    seen: dict[str, int] = {}
    out = []
    for label in labels:
        seen[label] = seen.get(label, 0) + 1
        out.append(label if seen[label] == 1 else f"{label} ({seen[label]})")
    return out


def number(value, digits: int = 6) -> str:
    """A number in few letters: true minus sign, groups of three from five digits on.

    Args:
        value: a number; a word or a truth value stays what it is.
        digits: significant digits of what is not whole.

    Returns:
        Words.

    Examples:
        >>> from fedjax_rl.plotting import formats
        >>> [formats.number(x) for x in (3.0, -0.25, float("inf"))]
        ['3', '−0.25', '∞']
    """
    if isinstance(value, bool | np.bool_ | str):
        return str(value)
    value = float(value)
    if not np.isfinite(value):
        return {np.inf: "∞", -np.inf: "−∞"}.get(value, "NaN")
    if value.is_integer() and abs(value) < 1e15:
        text = f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.0f}"
    else:
        text = f"{value:.{digits}g}"
    return text.replace(",", "\u2009").replace("-", "−")


def listed(words: Sequence[str]) -> str:
    """Words as a sentence has them: "a, b and c"."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def interval(found: Sequence, digits: int = 2) -> str:
    """A number with its interval, `(value, low, high)`, where there is one: "−1.02 [−1.10, −0.94]".

    Args:
        found: value and ends of the interval; ends may be None.
        digits: behind the point.

    Returns:
        Words, with true minus signs.
    """
    value, low, high = found
    text = f"{value:.{digits}f}"
    if low is not None:
        text += f" [{low:.{digits}f}, {high:.{digits}f}]"
    return text.replace("-", "−")
