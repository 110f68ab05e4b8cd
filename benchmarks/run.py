"""Speed of fedjax_rl against its peers, or against another version of itself.

python benchmarks/run.py CASE [--json FILE]
python benchmarks/run.py all [--json DIRECTORY]
python benchmarks/run.py CASE|all --against DIRECTORY [--json FILE]
"""

from __future__ import annotations

import argparse
import difflib
import json
import pathlib
import subprocess
import sys
import tempfile

import cases
from lines import above_zero
from versions import against

SCALING = ("agents", "devices", "processes", "memory", "saving")
SHAPINGS = ("raw", "center")


def _case(name: str) -> str:
    known = (*cases.NAMES, "all")
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}? " if near else ""
        raise argparse.ArgumentTypeError(f"{name!r} is no case; {hint}known: {', '.join(known)}")
    return name


def _file(name: str) -> pathlib.Path:
    path = pathlib.Path(name)
    if not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"{name!r} is not in an existing directory")
    return path


def _checkout(name: str) -> pathlib.Path:
    path = pathlib.Path(name).resolve()
    if not (path / "fedjax_rl" / "__init__.py").is_file():
        raise argparse.ArgumentTypeError(f"{name!r} has no package fedjax_rl in it")
    return path


def _at_least_one(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}; allowed: whole numbers of at least 1")
    return int(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", metavar="CASE", type=_case, help=", ".join((*cases.NAMES, "all")))
    parser.add_argument(
        "--json", type=_file, help="write the numbers there; of all, into this directory"
    )
    parser.add_argument("--repeats", type=_at_least_one, help="turns; each case has its own number")
    parser.add_argument(
        "--scale",
        type=above_zero(1000),
        default=1.0,
        help="factor on the steps of fedq's calls, of uplinks', of scaling's (and its largest "
        "federation), of clock's, brax's and procgen's, the trials of es, "
        "the rounds of gradients, the rollouts of returns, the rollouts and pictures of ppo",
    )
    parser.add_argument("--only", nargs="+", default=(), metavar="ROW", help="rows to measure")
    parser.add_argument(
        "--against",
        type=_checkout,
        metavar="DIRECTORY",
        help="another checkout: both measure the case in turn, in processes of their own, and the "
        "ratio of their medians is printed",
    )
    parser.add_argument(
        "--turns", type=_at_least_one, default=5, help="processes of each, with --against"
    )
    parser.add_argument(
        "--shapings", nargs="+", choices=SHAPINGS, default=SHAPINGS, help="cases of the case es"
    )
    parser.add_argument(
        "--parts",
        nargs="+",
        choices=SCALING,
        default=SCALING,
        help="of the case scaling; the others are kept as --json has them, if they are of this "
        "machine, these versions and this scale",
    )
    parser.add_argument(
        "--original", type=_file, help="a Python with procgen 0.10.7, for the case procgen"
    )
    arguments = parser.parse_args()
    whole = arguments.case == "all" and arguments.against is None
    if arguments.json is not None and arguments.json.is_dir() != whole:
        kind = "an existing directory, of all cases" if whole else "a file"
        parser.error(f"--json is {arguments.json}; allowed: {kind}")
    if whole:
        sys.exit(_all(sys.argv[1:], arguments.json))
    if arguments.against is not None:
        content = {
            name: against(name, arguments.against, arguments)
            for name in (cases.NAMES if arguments.case == "all" else (arguments.case,))
        }
    else:
        content = _one(arguments)
    if arguments.json is not None:
        _write(arguments.json, json.dumps(content, indent=1) + "\n")


def _one(arguments) -> dict:
    """Measures one case here and prints it."""
    if arguments.repeats is None:
        arguments.repeats = cases.case(arguments.case).repeats

    def wanted(rows: dict) -> dict:
        """The rows asked for; all where none of them is here."""
        return {n: row for n, row in rows.items() if n in arguments.only} or rows

    arguments.wanted = wanted
    content = cases.measured(arguments.case, arguments)
    cases.show(arguments.case, content)
    return content


def _all(line: list[str], directory: pathlib.Path | None) -> int:
    """Every case in a process of its own: what is set before JAX starts differs.

    Args:
      line: of the command.
      directory: gets `CASE-cpu.json`, or with the kind of device that it is, of each.

    Returns:
      1 where a case has failed; the others are measured all the same.
    """
    failed = []
    for name in cases.NAMES:
        with tempfile.TemporaryDirectory() as scratch:
            file = pathlib.Path(scratch, "made.json")
            # Of two the last counts.
            own = [name if word == "all" else word for word in line] + ["--json", str(file)]
            done = subprocess.run([sys.executable, __file__, *own], check=False)
            if done.returncode or not file.is_file():
                failed.append(name)
            elif directory is not None:
                text = file.read_text()
                kind = json.loads(text)["device"].partition(":")[0]
                _write(directory / f"{name}-{kind}.json", text)
    if failed:
        print(f"not measured: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


def _write(path: pathlib.Path, text: str) -> None:
    """As a file that is whole or absent."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(text)
    part.replace(path)


if __name__ == "__main__":
    main()
