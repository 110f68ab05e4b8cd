"""What a line names, found before it is parsed: that decides which options there are."""

from __future__ import annotations

import itertools
import re

from fedjax_rl.cli.outside import is_outside
from fedjax_rl.cli.process import MOST_DEVICES

# Packages with environments beyond those that have a name of ours.
PACKAGES = ("gymnax", "brax")


def study_in(argv: list[str]) -> bool:
    """Whether the first word behind the command names a study."""
    from fedjax_rl.studies import STUDIES

    return len(argv) > 1 and argv[1].partition(":")[0] in STUDIES


def devices_in(argv: list[str]) -> int:
    """The devices that a line asks for, as far as that can be told before it is read."""
    # Joined by a character that no argument can have.
    given = re.search(r"\0--devices[\0=](\d{1,4})\0", "\0".join(["", *argv, ""]))
    return max(1, min(int(given[1]), MOST_DEVICES)) if given else 1


def named_in(argv: list[str]) -> tuple[str | None, str | None]:
    """The algorithm and the environment that a line names, in this order, as far as it does."""
    from fedjax_rl.algorithms import ALGORITHMS

    uplinks = {*uplinks_in(argv)}
    words = [
        word
        for word in argv[1:]
        if word in ALGORITHMS or is_environment(word) or (is_outside(word) and word not in uplinks)
    ]
    named = next((w for w in words[:1] if w in ALGORITHMS or is_outside(w)), None)
    place = next((w for w in words if is_environment(w)), None)
    rest = [w for w in words[named is not None :] if is_outside(w)]
    return named, place or next(iter(rest), None)


def is_environment(word: str) -> bool:
    """Whether a word names an environment of ours, or of a package."""
    from fedjax_rl.envs.registry import ALIASES, ENVIRONMENTS

    package, slash, rest = word.partition("/")
    return word in ENVIRONMENTS or word in ALIASES or bool(package in PACKAGES and slash and rest)


def asks_for_tuned(argv: list[str]) -> bool:
    """Whether a line asks for the tuned settings of its algorithm in its environment."""
    return bool(re.search("\0--preset[\0=]tuned\0", "\0".join(["", *argv, ""])))


def asks_for_help(argv: list[str]) -> bool:
    """Whether a line asks what can be given, so that what does not apply is left out."""
    return bool({"-h", "--help"} & {*argv})


def uplinks_in(argv: list[str]) -> list[str]:
    """The uplinks that a line names."""
    from fedjax_rl.federation.uplinks import UPLINKS

    words = [part for word in argv for part in re.split(r"(?<=^--uplink)=", word)]
    names = []
    for place, word in enumerate(words):
        if word == "--uplink":
            names += itertools.takewhile(lambda w: not w.startswith("-"), words[place + 1 :])
    return [name for name in dict.fromkeys(names) if name in UPLINKS or is_outside(name)]
