"""What a careless world does to a run: wrong input, kills, damaged files.

`python benchmarks/torture.py fuzz --cases N`, `kill --times N`, `damage --times N`. Each prints a
table of what came out, and its exit code is 1 where anything is not as it should be.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import pathlib
import sys

# A subcommand is a module beside this one with `options(parser)` and `main(arguments) -> int`.
COMMANDS = {
    "fuzz": "inputs of every kind: each is refused by name or valid",
    "kill": "runs killed at random moments and resumed: the same bits as undisturbed",
    "hosts": "one of several processes killed at random moments, all resumed: the same bits",
    "damage": "random files of a stopped run damaged, and resumed: the same bits",
}
HERE = pathlib.Path(__file__).resolve().parent


def load(command: str):
    """The module of a subcommand, or None where it is not there."""
    name = f"torture_{command}"
    if str(HERE) not in sys.path:
        sys.path.insert(0, str(HERE))
    return importlib.import_module(name) if importlib.util.find_spec(name) else None


def main(argv: list[str] | None = None) -> int:
    """Runs a subcommand and returns its exit code."""
    parser = argparse.ArgumentParser(prog="torture.py", description=__doc__)
    chosen = parser.add_subparsers(dest="command", required=True)
    for command, help_ in COMMANDS.items():
        if (module := load(command)) is not None:
            own = chosen.add_parser(command, help=help_, description=module.__doc__)
            module.options(own)
            own.set_defaults(main=module.main)
    arguments = parser.parse_args(argv)
    return arguments.main(arguments)


if __name__ == "__main__":
    sys.exit(main())
