"""How far a run is: for a function, or as a bar in a terminal or a notebook."""

from __future__ import annotations

import collections
import contextlib
import importlib
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from fedjax_rl.sweeps.jobs import Place
from fedjax_rl.sweeps.programs import Job

# Seconds between two pictures of a notebook's bar.
_PAUSE = 0.2
# Columns of a terminal from which on a bar has room for how well it goes.
_WIDE = 100


class Counter:
    """What is done, counted by several threads."""

    def __init__(self, report: Callable | None, total: int, places: Sequence[Place]) -> None:
        """Starts at nothing.

        Args:
          report: called with agent-steps done, agent-steps in all, and cells done.
          total: agent-steps in all.
          places: where the numbers of each cell are.
        """
        self._report, self._total, self._lock = report, total, threading.Lock()
        self._of_job = collections.Counter(place.job for place in places)
        self._steps = self._cells = 0

    def advance(self, steps: int, cells: int = 0) -> None:
        """Counts agent-steps that are done.

        Args:
          steps: agent-steps since the last call.
          cells: that have been finished since.
        """
        # Under the lock reports come in order and one at a time, so that the caller's needs none.
        with self._lock:
            self._steps += steps
            self._cells += cells
            if self._report is not None and (steps or cells):
                self._report(self._steps, self._total, self._cells)

    def finish(self, job: int) -> None:
        """Counts the cells of a job."""
        self.advance(0, self._of_job[job])


def interactive() -> bool:
    """Whether this runs in IPython, where somebody waits for what comes."""
    # Where it has not been imported nobody runs in it.
    ipython = sys.modules.get("IPython")
    return ipython is not None and ipython.get_ipython() is not None


@contextlib.contextmanager
def counted(
    progress, watch: Callable | None, jobs: Sequence[Job], places: Sequence[Place]
) -> Iterator[tuple[Counter, Callable | None]]:
    """A counter that tells what it counts.

    Args:
      progress: a function of (done, total) agent-steps; True for a bar, False for none, None for
        one where IPython runs.
      watch: None, or a function of the last values by name.
      jobs: that are run.
      places: where the numbers of each cell are.

    Yields:
      The `Counter`, and what is to be called with the last values, if anything is.
    """
    total = int(sum(job.recording.times[-1] * job.side_by_side for job in jobs))
    if progress is None:
        progress = interactive()
    if progress is True:
        first = jobs[0].algorithm
        unit = "server-updates" if first.on_clock else f"agent-{first.unit}s"
        names = list(dict.fromkeys(job.algorithm.name for job in jobs))
        what = names[0] if len(names) == 1 else f"{len(names)} algorithms"
        with bar(len(places), what, unit, first.headline) as (report, look):
            yield Counter(report, total, places), _both(look, watch)
    elif progress:
        last = [0]

        def report(done: int, total: int, cells: int) -> None:
            if done != last[0]:  # a cell that is finished is no step more
                last[0] = done
                progress(done, total)

        yield Counter(report, total, places), watch
    else:
        yield Counter(None, total, places), watch


def _both(look: Callable, watch: Callable | None) -> Callable:
    """One function of the last values that calls two."""
    if watch is None:
        return look

    def told(values: dict[str, float]) -> None:
        look(values)
        watch(values)

    return told


@contextlib.contextmanager
def bar(
    cells: int, what: str, unit: str, headline: str = ""
) -> Iterator[tuple[Callable[[int, int, int], None], Callable[[dict[str, float]], None]]]:
    """A bar with the cells that are finished, the speed, the time left and how well it goes.

    Args:
      cells: federations in all.
      what: is run, beside the bar.
      unit: that the speed counts.
      headline: name of the metric whose last value, a mean over cells, stands at the end.

    Yields:
      What is to be called with agent-steps done, agent-steps in all and cells done; and what is to
      be called with the last values by name.
    """
    from rich import progress
    from rich.console import Console

    # Beside the output, which somebody may pipe.
    console = Console(stderr=True)
    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(bar_width=20),
        progress.TaskProgressColumn(),
        progress.TextColumn("{task.fields[speed]}"),
        progress.TimeRemainingColumn(compact=True),
        progress.TextColumn("left"),
        progress.TextColumn("{task.fields[value]}"),
    )
    shown = progress.Progress(*columns, console=console, disable=console.is_jupyter)
    task = shown.add_task(f"{what}: compiling", total=None, speed="", value="")
    draw = _notebook(shown) if console.is_jupyter else lambda last: None
    draw(True)  # what compiles for long says so

    def report(done: int, total: int, finished: int) -> None:
        rate = shown.tasks[0].speed or shown.tasks[0].finished_speed
        shown.update(
            task,
            description=f"{what}: {finished} of {cells} cells",
            completed=done,
            total=total,
            speed=f"{rate:,.3g} {unit}/s" if rate else "",
        )
        draw(done >= total and finished == cells)

    def look(values: dict[str, float]) -> None:
        value = values.get(headline, math.nan)
        # One of the configurations may have no such metric, and a narrow terminal no room.
        if not math.isnan(value) and (console.is_jupyter or console.width >= _WIDE):
            shown.update(task, value=f"{headline.replace('_', ' ')} {value:.4g}")

    with shown:
        yield report, look


def _notebook(shown) -> Callable[[bool], None]:
    """Draws a bar as the output of a notebook's cell, which a widget needs another package for."""
    from rich.console import Console

    # Where there is a notebook there is IPython, which is nothing that anything else needs.
    display = importlib.import_module("IPython.display").display
    drawn, last = [], [0.0]

    def draw(end: bool) -> None:
        now = time.monotonic()
        if not end and now - last[0] < _PAUSE:
            return
        last[0] = now
        console = Console(width=100, force_jupyter=False, force_terminal=False)
        with console.capture() as text:
            console.print(shown.get_renderable())
        line = {"text/plain": text.get().strip()}
        if drawn:
            drawn[0].update(line, raw=True)
        else:
            drawn.append(display(line, raw=True, display_id=True))

    return draw
