"""Lines that somebody may type: every option of every command, with every word.

A line is refused with exit code 2 and one sentence on the terminal, and nothing is written, or it
is accepted as far as compiling and its value then fits.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import pathlib
import shutil
from collections.abc import Iterator

import torture_fuzz
from torture_environments import ENVIRONMENTS
from torture_targets import RUN, base, kind_of
from torture_values import fits

import fedjax_rl as frl
from fedjax_rl.fields import declarations

_PLAIN = """
nan inf -inf -1 0 1 2 0.5 1.5 -0.5 1e30 1e39 1e400 1e-30 1e-45 2147483648 4294967296
9223372036854775808 abc None True False yes [] 1,2 1,2,4 0x10 1_000 1e3 {} -- - -x ../x %s $HOME *
"""
_NAMES = """
fedq FEDQ feqd paper-mdp paper_mdp simple-grid bigfish BigFish gymnax/ gymnax/../x brax/nope
brax/__import__ gymnax/CartPole-v1/.. linear-speedup linear-speedup: linear-speedup:fig999
linear-speedup:4- linear-speedup:9-4 linear-speedup:, linear-speedup:1-999999999999 __class__ a/b
.. full top-k asynchronous smoke bash math:sqrt math:pi nope:x :x x: a:b:c json:loads json:nope
fedjax_rl.algorithms:fedq fedjax_rl.envs:simple_grid fedjax_rl.uplinks:full fedjax_rl:sweep
"""
# With nothing, blanks, a digit that is none of ASCII, bytes that end a string, and many letters.
_ODD = ("", " ", " 3", "a b", "\uff11", "é", "x\x00y", "a\nb", "z" * 3000)
WORDS = (*_PLAIN.split(), *_ODD)
NAMES = (*_NAMES.split(), *WORDS)
# Commands with a place for a name; "?" is that place.
PLACES = (
    "run ? paper-mdp",
    "run fedq ?",
    "sweep ? simple-grid",
    "sweep es ?",
    "reproduce ?",
    "resume ?",
    "doctor ?",
    "doctor fedq ?",
    "play ?",
    "play BigFish --policy ?",
    "play BigFish --mode ?",
    "play BigFish --num-steps ?",
    "play BigFish --seed ?",
    "play BigFish --out ?",
    "validate ?",
    "validate BigFish --scale ?",
    "completion ?",
    "list ?",
    "?",
    "--?",
    "run fedq paper-mdp ?",
    "run fedq paper-mdp --?",
    "run fedq paper-mdp --out ?",
    "run fedq paper-mdp --metrics ?",
    "sweep fedq paper-mdp --metrics error_server ?",
    "run fedq paper-mdp --uplink ?",
    "sweep fedq paper-mdp --uplink full ?",
    "run fedq paper-mdp --scheduler ?",
    "run fedq paper-mdp --devices ?",
    "sweep fedq paper-mdp --devices ?",
    "doctor fedq paper-mdp --devices ?",
    "sweep fedq paper-mdp --num-agents ?",
    "sweep fedq paper-mdp --num-agents 1 ?",
    "sweep fedq paper-mdp --seeds ?",
    "sweep fedq paper-mdp --seeds 0 ?",
    "sweep fedq paper-mdp --learning-rate-per-agent ?",
    "reproduce linear-speedup --scale ?",
    "reproduce linear-speedup --preset ?",
    "reproduce linear-speedup --devices ?",
    "reproduce fast-fedpg --devices ?",
    "reproduce linear-speedup --out ?",
)


def run(number: int, rng) -> list[torture_fuzz.Case]:
    """Tries so many lines, a third of them names and the rest options with a value."""
    if not number:
        return []
    lines = _lines()
    chosen = [lines[place] for place in rng.permutation(len(lines))[:number]]
    with _stopping_at_work():
        return [_tried(*line) for line in chosen]


@contextlib.contextmanager
def _stopping_at_work() -> Iterator[None]:
    """Stops every command where its checks are over and its work begins."""
    from fedjax_rl.cli import games, study
    from fedjax_rl.envs import procgen

    def reached(*_, **__):
        raise torture_fuzz.Reached

    places = ((games, "show"), (study, "carry_out"), (procgen, "validate"))
    before = [getattr(module, name) for module, name in places]
    for module, name in places:
        setattr(module, name, reached)
    try:
        yield
    finally:
        for (module, name), function in zip(places, before, strict=True):
            setattr(module, name, function)


def _lines() -> list[tuple]:
    """(argv, the word, its option, what fits)."""
    found = []
    for place in PLACES:
        for word in NAMES:
            argv = [part.replace("?", word) for part in place.split(" ")]
            flag = place.rpartition(" --")[2].split(" ")[0] if " --" in place else ""
            found.append((argv, word, flag, "anything"))
    for algorithm, environment, option, kind in _options():
        for word in WORDS:
            for command in ("run", "sweep", "doctor"):
                more = ["--uplink", _uplink_of(option)] if option.startswith("uplink.") else []
                if "probabilistic" in more and option != "uplink.target":
                    more += ["--uplink.target", "1"]
                if "top-k" in more and option != "uplink.k":
                    more += ["--uplink.k", "1"]
                more += ["--scheduler", "asynchronous"] if option.startswith("clock.") else []
                flag = f"--{option.replace('_', '-')}"
                if command != "run":
                    flag = {"--seed": "--seeds"}.get(flag, flag)
                argv = [command, algorithm, environment, *more, flag, word]
                found.append((argv, word, option, kind))
    return found


def _options() -> list[tuple[str, str, str, str]]:
    """Every option of `run` with every algorithm: (algorithm, environment, option, kind)."""
    from fedjax_rl.algorithms import ALGORITHMS
    from fedjax_rl.cli import named, settings
    from fedjax_rl.envs import registry
    from fedjax_rl.federation.uplinks import UPLINKS

    found = []
    for name in ALGORITHMS:
        one, place = base(name), named.fitting(name)[0]
        for own in settings.settings(one):
            kind = kind_of(own.name, one.config.allowed(own.name), own.default)
            found.append((name, place, own.name, kind))
        for option in ("num_agents", "num_steps", "seed", "record_every", "devices", "agents"):
            found.append(
                (name, place, option, "count?" if option == "record_every" else RUN[option])
            )
        if settings.takes_uplinks(one):
            for uplink in UPLINKS:
                for own in settings.uplink_options(uplink):
                    kind = kind_of(own.name, UPLINKS[uplink].allowed[own.name], own.default)
                    found.append((name, place, f"uplink.{own.name}", kind))
        if settings.takes_clocks(one):
            for own in settings.clock_options():
                kind = kind_of(own.name, declarations(frl.Clock)[own.name], own.default)
                found.append((name, place, f"clock.{own.name}", kind))
    for place in registry.ENVIRONMENTS:
        user = next(name for name in ALGORITHMS if place in named.fitting(name))
        for option, default in registry.options(place).items():
            kind = ENVIRONMENTS.get(option, "word")
            found.append((user, place, f"env.{option}", kind + "?" * (default is None)))
    return found


@functools.cache
def _uplink_of(option: str) -> str:
    """An uplink that has an option."""
    from fedjax_rl.cli.settings import uplink_options
    from fedjax_rl.federation.uplinks import UPLINKS

    own = option.partition(".")[2]
    return next(name for name in UPLINKS if own in [o.name for o in uplink_options(name)])


def _tried(argv: list[str], word: str, option: str, kind: str) -> torture_fuzz.Case:
    argv = list(argv)
    if argv[0] in ("run", "sweep", "reproduce"):
        argv += [] if "--out" in argv else ["--out", "fuzzed"]
    if argv[0] in ("run", "sweep", "doctor") and "--num-steps" not in argv:
        argv += ["--num-steps", "20"] if len(argv) > 2 else []
    before = set(os.listdir())
    outcome, words = _called(argv)
    written = set(os.listdir()) - before
    for name in written:
        shutil.rmtree(name, ignore_errors=True)
        pathlib.Path(name).unlink(missing_ok=True)
    if outcome == "refused" and written:
        outcome, words = "unnamed", f"wrote {', '.join(written)}: {words}"
    elif outcome == "refused" and not _is_named(words, argv, word, option):
        outcome = "unnamed"
    elif outcome == "accepted" and kind != "anything":
        value = _read(word)
        value = (value,) if kind.startswith("sizes") else value
        outcome = "nonsense" if fits(kind, value) is False else outcome
    shown = " ".join(argv)
    return torture_fuzz.Case("line", option or argv[0], shown[:120], outcome, words)


def _is_named(words: str, argv: list[str], word: str, option: str) -> bool:
    prefix, _, own = option.rpartition(".")
    names = [own, prefix, word[:20].strip(), repr(word)[:20], argv[0]]
    names += ["figure", "preset"] if argv[0] == "reproduce" else []
    return torture_fuzz.is_named(words, [name for name in names if name])


def _called(argv: list[str]) -> tuple[str, str]:
    """What comes of a line, and its words on the terminal."""
    from fedjax_rl.cli import main

    out, err, code = io.StringIO(), io.StringIO(), []

    def call():
        code.append(main(list(argv)))

    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        outcome, words = torture_fuzz.attempt(call)
    text = err.getvalue().strip()
    if outcome != "accepted" or not code or code[0] == 0:
        return outcome, words or text
    errors = [line for line in text.splitlines() if "warning" not in line.split(":")[:2]]
    if code[0] == 2 and len(errors) == 1 and "error: " in text:
        return "refused", text
    return "raw", f"exit code {code[0]}: {text[-300:]}"


def _read(word: str):
    """The value that somebody means who types a word."""
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(word)
    return {"None": None, "True": True, "False": False}.get(word, word)
