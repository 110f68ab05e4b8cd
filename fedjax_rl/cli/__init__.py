"""The command line: `fedjax-rl list`, `run`, `sweep`, `compare`, `reproduce`, `resume` and others.

Nothing here starts JAX before the arguments are read and the environment is set; what is heavy is
imported inside the command that needs it.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shlex
import signal
import sys
import warnings

from fedjax_rl.cli import cluster, compare, doctor, games, overview, parse, study, view, work
from fedjax_rl.cli.process import Stopped, prepare
from fedjax_rl.cli.report import PROGRAM, say
from fedjax_rl.saving import signals

__all__ = ["main", "prepare"]


def main(argv: list[str] | None = None) -> int:
    """Runs a command and returns its exit code.

    0, 1 for a fault, 2 for what cannot be run, and 128 and the number of the signal that stopped
    it: 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP.
    """
    return cluster.leave(_main(argv))


def _main(argv: list[str] | None) -> int:
    argv = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in argv or bool(os.environ.get("FEDJAX_RL_DEBUG"))
    if argv[:1] not in (["run"], ["sweep"], ["compare"]):  # which have an option of that name
        argv = [a for a in argv if a != "--debug"] or ["--help"]
    arguments = None
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal without the symbols shows others
            stream.reconfigure(errors="replace")
    try:
        words = f"{PROGRAM}: stopping when this part is saved; a second signal ends at once\n"
        with warnings.catch_warnings(), signals.as_exceptions(words):
            # Ours are for the user; those of other packages are for us.
            warnings.simplefilter("ignore")
            warnings.filterwarnings("always", module=r"fedjax_rl(\.|$)")
            warnings.showwarning = lambda message, *_: _warn(message)
            if argv[0] == "--version":
                return _version()
            cluster.join(argv)
            code, arguments = parse.read(argv)
            with cluster.losses():
                return code if arguments is None else _COMMANDS[argv[0]](arguments)
    except Stopped as stopped:
        if stopped.directory is None:
            say("stopped; nothing was written")
        else:
            more = " --distributed" if cluster.joined() else ""
            say(f"stopped; `{PROGRAM} resume {shlex.quote(str(stopped.directory))}{more}` goes on")
        return stopped.code
    except KeyboardInterrupt as stopped:
        say("stopped")
        return 128 + getattr(stopped, "number", signal.SIGINT)
    except BrokenPipeError:  # the reader of a pipe has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except ConnectionError as error:
        if debug:
            raise
        say(f"error: {error}{cluster.goes_on()}")
        return 1
    except FloatingPointError as error:
        say(f"error: {error}")
        return 1
    except (ValueError, OSError) as error:
        if debug:
            raise
        if hasattr(error, "said"):  # by process 0, of which it was heard
            return 2
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        if isinstance(error, OSError) and error.filename and str(error.filename) not in text:
            text = f"{error.filename}: {text}"
        say(f"error: {_flagged(text, arguments)}")
        return 2
    except Exception as error:
        if debug:
            raise
        text = " ".join(str(error).split("\n", 1)[0].split())
        if "RESOURCE_EXHAUSTED" in text:
            say(f"error: out of memory ({PROGRAM} doctor says what a run needs): {text}")
        else:
            say(f"error: {type(error).__name__}: {text} (--debug shows where)")
        return 1


# Arguments without a flag.
_POSITIONAL = (
    "algorithm",
    "environment",
    "directory",
    "study",
    "shell",
    "what",
    "names",
    "directories",
)


def _flagged(text: str, arguments) -> str:
    """One line, with the argument that it starts with as it is typed, and what that leads to."""
    text = " ".join(text.split())
    match = re.match(
        r"((?:[\w-]+\.)+)?([a-z0-9]+(?:_[a-z0-9]+)*)(?=(?: at \w+ \d+)? (?:is|has)\b)", text
    )
    if match is None:
        return text
    known = set() if arguments is None else vars(arguments).keys() - {*_POSITIONAL}
    first = (match[1] or match[2]).partition(".")[0]
    inner = {"env", "uplink", "clock", *compare.labels_of(arguments)}
    if first not in (known | inner if match[1] else known):
        return text
    said, colon, because = text[match.end() :].partition(": ")
    return f"--{match[0].replace('_', '-')}{said}{colon}{_flagged(because, arguments)}"


def _warn(message) -> None:
    """Says a warning, of several processes once."""
    if not cluster.is_follower():
        say(f"warning: {message}")


def _version() -> int:
    try:
        print(PROGRAM, importlib.metadata.version("fedjax_rl"))
    except importlib.metadata.PackageNotFoundError:
        print(PROGRAM, "from source, not installed")
    return 0


_COMMANDS = {
    "list": overview.overview,
    "run": work.run,
    "sweep": work.run,
    "compare": work.run,
    "reproduce": study.reproduce,
    "resume": work.resume,
    "view": view.view,
    "doctor": doctor.doctor,
    "completion": doctor.completion,
    "validate": games.validate,
    "play": games.play,
}
