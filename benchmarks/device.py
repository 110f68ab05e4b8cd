"""What the package reaches on this device, in minutes: one command for an accelerator on loan.

    python benchmarks/device.py                       about eight minutes of one H100 at most
    python benchmarks/device.py --scale smoke         that it runs, within two minutes of a CPU
    python benchmarks/device.py --seconds 300 --only fedq impala

Rows stand by worth. Each is saved as it ends, in `results/DEVICE.json`; the same command again goes
on with those that are not there yet. What would not end in the time that is left is skipped, and
what fails or ends the process is noted: both are said at the end, and the next call tries what
failed once more, last.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import re
import sys
import threading
import time

from lines import above_zero

_BEGAN = time.monotonic()
SECONDS = {"full": 480.0, "smoke": 120.0}
SCALES, FULL = tuple(SECONDS), "full"
PARTS = ("fedq", "grids", "games", "ppo", "impala", "brax", "es", "clock")
# Beyond its time a row that does not end, such as one that compiles for ever, ends the process.
GRACE = 30.0
# Exit codes: all is measured; some was skipped or has failed; a row did not end.
ALL, SOME, STUCK = 0, 1, 3


def parser() -> argparse.ArgumentParser:
    """The line."""
    own = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    own.add_argument("--scale", choices=SCALES, default=FULL, help="how much is measured")
    own.add_argument(
        "--seconds", type=above_zero(86_400), help="of wall time; 480, and 120 for smoke"
    )
    own.add_argument("--json", type=pathlib.Path, help="the file; results/DEVICE.json by default")
    own.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to measure")
    own.add_argument("--again", action="store_true", help="measure what is there anew")
    return own


class Book:
    """What has been measured, kept on disk: {rows, skipped, failed} and where it was.

    Attributes:
      path: of the file.
      content: of the file.
    """

    def __init__(self, path: pathlib.Path, begun: dict, again: bool) -> None:
        """Goes on with what is there, if it is of the same device, scale and versions.

        Args:
          path: of the file.
          begun: its content without rows.
          again: whether to begin anew.
        """
        self.path, self.content = path, {**begun, "rows": [], "failed": {}, "skipped": {}}
        if again or not path.is_file():
            return
        there = json.loads(path.read_text())
        if all(there.get(name) == value for name, value in begun.items()):
            self.content = {**there, "skipped": {}}
            if "running" in there:
                self.content["failed"][there["running"]] = "it ended the process"
                del self.content["running"]
        else:
            print(f"{path} is of another device, scale or version, and is begun anew")

    def save(self, **changes) -> None:
        """Writes the file, whole or not at all."""
        self.content |= changes
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_name(f".{self.path.name}.part")
        part.write_text(json.dumps(self.content, indent=1) + "\n")
        part.replace(self.path)

    def running(self, name: str | None) -> None:
        """Notes which row is under way, for whoever comes after a kill; None: none is."""
        self.content.pop("running", None)
        self.save(**({} if name is None else {"running": name}))


def name_of(device: str) -> str:
    """A file's name of a device: "1 x NVIDIA H100 80GB HBM3" is nvidia-h100-80gb-hbm3."""
    return re.sub(r"[^a-z0-9]+", "-", device.lower().removeprefix("1 x ")).strip("-")


def measure(rows, book: Book, ends: float) -> None:
    """Measures rows, those that failed before last, until the time is over.

    Args:
      rows: of `device_rows`, by worth.
      book: where they are noted.
      ends: on the monotonic clock.
    """
    import device_rows

    done = {row["name"] for row in book.content["rows"]}
    failed = book.content["failed"]
    left = sorted((row for row in rows if row.name not in done), key=lambda row: row.name in failed)
    for row in left:
        now = time.monotonic()
        if now + row.seconds > ends:
            book.content["skipped"][row.name] = (
                f"takes about {row.seconds:.0f} s, and {max(0, ends - now):.0f} s are left"
            )
            continue
        book.running(row.name)
        watch = _watch(row.name, max(ends - now, row.seconds) + GRACE)
        try:
            found = row.make()
        except Exception as error:  # whatever it is, the other rows are worth having
            text = str(error).strip() or type(error).__name__
            failed[row.name] = text.splitlines()[0][:300]
            print(f"{row.name}: failed, {failed[row.name]}", file=sys.stderr, flush=True)
        else:
            failed.pop(row.name, None)
            entry = {"name": row.name, "part": row.part, **found}
            entry |= {"seconds": time.monotonic() - now}
            peer = device_rows.peer_of(row)
            if peer is not None:
                entry |= {"cpu": peer, "times_cpu": found["median"] / peer["median"]}
            book.content["rows"].append(entry)
            print(f"{row.name}: {_number(found['median'])} {found['unit']}", flush=True)
        finally:
            watch.cancel()
        book.running(None)
    book.save()


def _watch(name: str, seconds: float) -> threading.Timer:
    """Ends the process if a row does not end; what has been measured is on disk."""

    def end() -> None:
        print(f"{name}: did not end, and is tried last by the next call", file=sys.stderr)
        sys.stderr.flush()
        # A compiler listens to nobody.
        os._exit(STUCK)

    watch = threading.Timer(seconds, end)
    watch.daemon = True
    watch.start()
    return watch


def _number(value: float) -> str:
    """Three digits, with a prefix."""
    for size, prefix in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{prefix}"
    return f"{value:.3g} "


def show(content: dict) -> None:
    """Prints what was measured, and what was not and why."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"fedjax_rl on {content['device']}")
    table.add_column("row")
    columns = ("rate or time", "low", "high", "x CPU core", "compile s", "B/agent", "us/unit")
    for column in columns:
        table.add_column(column, justify="right")
    for row in content["rows"]:
        times, unit = row.get("times_cpu"), row.get("seconds_per_unit_of_time")
        per_agent = row.get("bytes_per_agent")
        table.add_row(
            f"{row['name']} ({row['unit']})",
            *(_number(row[end]) for end in ("median", "low", "high")),
            "" if times is None else f"{times:.3g}",
            f"{row['compile_seconds']:.1f}",
            "" if per_agent is None else f"{per_agent:,.0f}",
            "" if unit is None else f"{1e6 * unit:,.1f}",
        )
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table)
    for name, why in content["failed"].items():
        console.print(f"failed: {name}: {why}", markup=False)
    for name, why in content["skipped"].items():
        console.print(f"skipped: {name}: {why}", markup=False)


def main(line: list[str] | None = None) -> int:
    """Measures; see the top of the file.

    Args:
      line: words of the line; those of the process by default.

    Returns:
      `ALL`, `SOME` or `STUCK`.
    """
    began = _BEGAN if line is None else time.monotonic()
    arguments = parser().parse_args(line)
    import jax

    # What is compiled is timed, and so not read from where programs are kept.
    jax.config.update("jax_enable_compilation_cache", False)
    import device_rows

    from fedjax_rl.saving import results

    device = results.device()
    here = {"case": "device", "device": device, "scale": arguments.scale}
    here |= {"versions": results.versions()}
    path = arguments.json
    if path is None:
        own = name_of(device) + ("" if arguments.scale == FULL else f"-{arguments.scale}")
        path = device_rows.RESULTS / f"{own}.json"
    book = Book(path, here, arguments.again)
    ends = began + (arguments.seconds or SECONDS[arguments.scale])
    rows = [row for row in device_rows.rows(arguments.scale) if row.part in arguments.only]
    measure(rows, book, ends)
    show(book.content)
    print(f"{path}: {len(book.content['rows'])} rows")
    return SOME if book.content["failed"] or book.content["skipped"] else ALL


if __name__ == "__main__":
    sys.exit(main())
