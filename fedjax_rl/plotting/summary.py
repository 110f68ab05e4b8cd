"""A result as a table: what was asked, what came out of it and how sure that is."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Sequence

import numpy as np
import xarray as xr

from fedjax_rl.plotting import formats
from fedjax_rl.plotting.by_property import FEWEST, estimate, headline, settled
from fedjax_rl.plotting.rows import TIME, Rows, groups, to_rows, unique

_COSTS = {"messages_up": "messages up", "bytes_up": "bytes up", "bytes_down": "bytes down"}
_MOST = 40  # rows of a table


@dataclasses.dataclass(frozen=True, repr=False)
class Summary:
    """A table with the question that it answers; prints itself, and is a table in a notebook.

    Attributes:
        question: what was varied and what was looked at.
        header: of the columns.
        rows: words of each row.
        notes: what the numbers are.
    """

    question: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]

    def __repr__(self) -> str:
        """As lines of text."""
        table = (self.header, *self.rows)
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [
            "  ".join(w.rjust(n) for w, n in zip(row, widths, strict=True)).rstrip()
            for row in table
        ]
        return "\n".join((self.question, "", *lines, "", *self.notes))

    def _repr_html_(self) -> str:
        def row(words, tag: str) -> str:
            cells = "".join(f"<{tag}>{html.escape(word)}</{tag}>" for word in words)
            return f"<tr>{cells}</tr>"

        head, notes = row(self.header, "th"), "<br>".join(map(html.escape, self.notes))
        body = "".join(row(words, "td") for words in self.rows)
        return (
            f"<p><b>{html.escape(self.question)}</b></p><table><thead>{head}</thead>"
            f"<tbody>{body}</tbody></table><p>{notes}</p>"
        )


def summary(result: xr.Dataset, metric: str | None = None) -> Summary:
    """The question of a result, and its answer as a table with intervals.

    A row for every combination of what was swept: the mean over seeds of what each run was in the
    second half of its records, with a 95 % Student t interval where there are at least three runs;
    what was sent, a mean over seeds; and how many runs diverged, which count until then.

    Args:
        result: of a run or a sweep.
        metric: variable to look at; by default the one that tells at a glance how well it went.

    Returns:
        A table that prints itself; at most 40 rows of it.

    Raises:
        ValueError: for an unknown variable, naming the nearest and what there is.

    Examples:
        >>> import fedjax_rl as frl
        >>> algorithm = frl.fedq(frl.envs.paper_mdp(), epsilon=1.0, sync_period=5)
        >>> result = frl.sweep(algorithm, num_agents=[1, 2], seeds=range(3), num_steps=20)
        >>> print(frl.summary(result).question)
        How does error_server of fedq change with num_agents (1, 2)? 3 seeds, 20 steps.
    """
    metric = headline(result) if metric is None else metric
    table = to_rows(result, metric)
    found = groups(table, table.swept)
    ends = settled(table)
    costs = {name: to_rows(result, name) for name in _COSTS if name in result}
    rows = []
    for label, member in found[:_MOST]:
        words = [formats.number(value) for value in label]
        words.append(_with_interval(*estimate(ends[member])))
        # Beside algorithms that measure it: nothing was lost, nothing was looked at.
        if np.isnan(table.values[member]).all() and not table.diverged[member].any():
            words[-1] = "not measured"
        words += [_cost(cost, table.swept, label) for cost in costs.values()]
        if table.diverged.any():
            words.append(f"{int(table.diverged[member].sum())} of {member.sum()}")
        rows.append(tuple(words))
    lost = ["diverged"] if table.diverged.any() else []
    header = (*table.swept, metric, *(_COSTS[name] for name in costs), *lost)
    return Summary(
        _question(result, metric, table),
        tuple(name.replace("_", " ") for name in header),
        tuple(rows),
        _notes(result, metric, table, [int(member.sum()) for _, member in found]),
    )


def _question(result: xr.Dataset, metric: str, table: Rows) -> str:
    """What was asked, from what was varied."""
    whose = f" of {result.attrs['algorithm']}" if "algorithm" in result.attrs else ""
    by = [f"{name} ({_values(unique(table.columns[name]))})" for name in table.swept]
    change = f"How does {metric}{whose} change with {formats.listed(by)}?"
    asked = change if by else f"What does {metric}{whose} come to?"
    seeds = len(unique(table.columns["seed"])) if "seed" in table.columns else 1
    said = [f"{seeds} seed{'s' if seeds > 1 else ''}"]
    if table.times.size:
        words = str(result[TIME].attrs.get("long_name", "steps")).split()[0]
        said.append(f"{formats.number(table.times[-1])} {words}")
    return f"{asked} {', '.join(said)}."


def _notes(result: xr.Dataset, metric: str, table: Rows, counts: Sequence[int]) -> tuple[str, ...]:
    notes = []
    what = result[metric].attrs.get("long_name")
    when = "mean of the second half of each run" if table.times.size else "at the end of each run"
    notes.append(f"{metric}: {f'{what}; ' if what else ''}{when}")
    if max(counts) >= FEWEST:
        runs = str(min(counts)) if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
        notes.append(f"[95 % Student t interval over {runs} runs]")
    elif max(counts) > 1:
        notes.append(f"{max(counts)} runs are too few for an interval")
    if len(counts) > _MOST:
        notes.append(f"... and {len(counts) - _MOST} more rows; select some of them")
    return tuple(notes)


def _cost(cost: Rows, names: Sequence[str], label: tuple) -> str:
    """Mean over the runs of a row of what was counted in each."""
    member = np.ones(len(cost.diverged), bool)
    for name, value in zip(names, label, strict=True):
        if name in cost.columns:
            member &= (cost.columns[name] == value) | (cost.columns[name] != cost.columns[name])
    return formats.number(round(float(cost.values[member].mean())))


def _with_interval(mean: float, low: float, high: float) -> str:
    text = f"{mean:.4g}" if np.isfinite(mean) else "not finite"
    return text if np.isnan(low) else f"{text} [{low:.4g}, {high:.4g}]"


def _values(values: Sequence) -> str:
    words = formats.numbers(values)
    return ", ".join(words) if len(words) <= 6 else f"{words[0]} to {words[-1]}, {len(words)}"
