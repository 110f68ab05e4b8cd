"""Tables for the reader of a terminal, as wide as that is."""

from __future__ import annotations

import math
import pathlib

from fedjax_rl.cli.report import FEWEST, WATCHED, interval, number, plural, say

# Metrics and rows that are shown of a sweep; the rest is in summary.json.
_COLUMNS, _ROWS = 8, 30
# Width where nobody looks on.
_WIDE = 200


def _console():
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=_WIDE)


def width() -> int:
    """Letters in a line of the terminal; more than any line has where there is none."""
    console = _console()
    return console.width if console.is_terminal else 10_000


def print_table(table) -> None:
    """Prints a table; where its words do not fit side by side, each row below the other.

    Args:
      table: of rich; columns that must not be folded say `no_wrap`.
    """
    console = _console()
    # Above it by itself: as its own it would be broken where the table ends.
    if table.title:
        console.print(str(table.title), style="italic", markup=False, highlight=False)
        table.title = None
    if fits(table, console.width):
        console.print(table)
        return
    from rich.table import Table

    heads = [str(column.header) for column in table.columns]
    for cells in zip(*(column.cells for column in table.columns), strict=True):
        # Of one row: the name of each column, and what it says there.
        block = Table(box=None, show_header=False, show_edge=False, pad_edge=False)
        block.add_column(style="dim")
        block.add_column(overflow="fold")
        for head, cell in zip(heads, cells, strict=True):
            if cell != "":
                block.add_row(head, cell)
        console.rule(style="dim")
        console.print(block)


def facts(title: str, values: dict[str, str]) -> None:
    """Prints names and what is said of each, below one another.

    Args:
      title: above them.
      values: by name.
    """
    print(title)
    longest = max(map(len, values), default=0)
    for name, value in values.items():
        print(f"  {name:{longest}}  {value}".rstrip())


def fits(table, width: int) -> bool:
    """Whether the words of a table, unfolded where it says so, stand side by side in a line."""
    from rich.text import Text

    needed = 1
    for column in table.columns:
        texts = [Text.from_markup(str(cell)).plain for cell in (column.header, *column.cells)]
        whole = column.no_wrap
        pieces = [part for text in texts for part in ([text] if whole else text.split() or [""])]
        needed += max(map(len, pieces)) + 3
    return needed <= width


def _apart(values) -> list[str]:
    """Cells of a column, of as many digits as tell different values apart."""
    for digits in (6, 9, 17):
        cells = [number(value, digits) for value in values]
        if len(set(cells)) == len(set(map(repr, values))):
            break
    return cells


def report(summary: dict, out: pathlib.Path) -> None:
    """What came of a run or sweep, for the reader of a terminal.

    Args:
      summary: of `summarise`.
      out: the directory where everything is.
    """
    rows = summary["rows"]
    varied = [n for n in rows[0] if n not in ("metrics", "ledger", "over_runs")]
    # Rows of other configurations may have others.
    metrics = list(dict.fromkeys(n for row in rows for n in row["metrics"] if n != "non_finite"))
    title = f"{summary['algorithm']} on {summary['environment']}, at the end"
    if len(rows) == 1:
        left_out = _of_one(rows[0], varied, metrics, title)
    else:
        left_out = _of_several(rows, varied, metrics, title, summary.get("command") == "compare")
    seeds = summary.get("seeds", 1)
    if seeds >= FEWEST:
        print(f"mean of {seeds} seeds [95 % Student t interval]")
    elif seeds > 1:
        print(f"mean of {seeds} runs, too few for an interval")
    if len(rows) > _ROWS:
        print(f"... and {len(rows) - _ROWS} more in {out / 'summary.json'}")
    if left_out:
        print(f"... and {left_out} more metrics in {out / 'summary.json'}")
    for at in summary["diverged"][:10]:
        print(f"diverged: {', '.join(f'{n} {number(v)}' for n, v in at.items())}")
    if len(summary["diverged"]) > 10:
        print(f"... {len(summary['diverged'])} federations diverged in all")
    broken = summary.get("non_finite")
    if broken:
        verb = "episode had" if broken == 1 else "episodes had"
        say(f"warning: {broken} {verb} a return that is not finite; they counted as 0")
    seconds = summary["seconds"]
    print(f"{seconds['compile']:.1f} s compiling, {seconds['run']:.1f} s running")
    print(f"saved in {out}: result.nc, figure.png, figure.svg, summary.json")


# What of the ledger stands in every table; steps of environments where algorithms are compared.
_COSTS = {"exchanges": "communications", "bytes up": "bytes_up"}


def _cells(row: dict, metrics, costs) -> list[str]:
    own = row["metrics"]
    known = [interval(**own[n]["final"]) if n in own else "-" for n in metrics]
    return known + [f"{row['ledger'][n]:,.0f}" for n in costs.values()]


def _of_runs(found: dict | None) -> str:
    """A number over runs; that of fewer than three says so instead of an interval."""
    if found is None:
        return "-"
    few = found["runs"] < FEWEST and f" ({plural(found['runs'], 'run')})"
    return interval(found["value"], found["low"], found["high"]) + (few or "")


def _of_one(row: dict, varied, metrics, title: str) -> int:
    from rich.table import Table

    table = Table("", *(f"{n} {number(row[n])}" for n in varied[:1]), title=title)
    for name, cell in zip([*metrics, *_COSTS], _cells(row, metrics, _COSTS), strict=True):
        table.add_row(name, cell)
    print_table(table)
    return 0


def _of_several(rows: list, varied, metrics, title: str, compared: bool) -> int:
    """A table of many configurations, with as many metrics as there is room for.

    Returns:
      How many metrics were left out.
    """
    from rich.table import Table

    # What is the same in all rows is said once.
    same = [n for n in varied if len({repr(row[n]) for row in rows}) == 1]
    varied = [n for n in varied if n not in same]
    if same:
        title += f", {', '.join(f'{n} {number(rows[0][n])}' for n in same)}"
    costs = {"environment steps": "env_steps", **_COSTS} if compared else _COSTS
    if "over_runs" in rows[0]:
        headline = rows[0]["over_runs"]["metric"]
        metrics = [headline, *(n for n in metrics if n != headline)]
    watched = [n for n in metrics[_COLUMNS:] if n in WATCHED]
    kept = metrics[: _COLUMNS - len(watched)] + watched
    at = [_apart([row[n] for row in rows]) for n in varied]

    middle, above = "middle half", f"above {rows[0].get('algorithm')}"
    runs = {middle: "interquartile_mean", above: "above"} if "over_runs" in rows[0] else {}

    def made(shown):
        table = Table(title=title)
        for name in [*varied, *shown[:1], *runs, *shown[1:], *costs]:
            table.add_column(name, justify="right", no_wrap=True)
        for place, row in enumerate(rows[:_ROWS]):
            own, *rest = _cells(row, shown, costs)
            whole = [_of_runs(row["over_runs"][name]) for name in runs.values()]
            table.add_row(*(column[place] for column in at), own, *whole, *rest)
        return table

    width = _console().width
    while len(kept) > 1 and not fits(made(kept), width):
        kept = kept[:-1]
    print_table(made(kept))
    if compared:
        if runs:
            print(
                f"middle half: interquartile mean of {headline} at the end; {above}: how probably "
                "a run lies above one of these"
            )
        _say_of_budgets(rows)
    return len(metrics) - len(kept)


def _say_of_budgets(rows: list) -> None:
    """Warns where what is compared has not had as many steps of the environment."""
    steps: dict = {}
    for row in rows:
        steps.setdefault(row["num_agents"], {})[row["algorithm"]] = row["ledger"]["env_steps"]
    for n, own in steps.items():
        least, most = min(own.values()), max(own.values())
        if not math.isclose(least, most, rel_tol=0.01):
            words = ", ".join(f"{name} {count:,.0f}" for name, count in own.items())
            say(
                f"warning: with num_agents {n} the environment was stepped unequally often in as "
                f"many rounds: {words}; the picture counts rounds"
            )
