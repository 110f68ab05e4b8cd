"""From the words of a command line to arguments: commands, help, errors in one line."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
from typing import Any

from fedjax_rl.cli import compare, given, options
from fedjax_rl.cli.option import spelled_out
from fedjax_rl.cli.report import PROGRAM, say
from fedjax_rl.names import check_known

_WORDS = {
    "list": "What there is: algorithms, environments, uplinks, schedulers, studies.",
    "run": "Simulate one federation; save the result and a picture.",
    "sweep": "Simulate a grid: any property may take several values.",
    "compare": "Simulate several algorithms in one environment, for as long, with the same seeds.",
    "reproduce": "Reproduce a published figure and compare it with the published values.",
    "resume": "Go on where a stopped run, sweep or study was, or with more steps or seeds.",
    "view": "Write results or studies as one page for a browser, which needs no network.",
    "validate": "Hold a game against the reference numbers of the original.",
    "play": "Play a game, and save it as an animated GIF.",
    "doctor": "Versions, devices, what would run where, memory and time that something needs.",
    "completion": "Print the completion script of a shell.",
}
_EXAMPLES = {
    "list": ["", "algorithms --long", "studies", "tuned"],
    "run": [
        "fedq paper-mdp",
        "fedq paper-mdp --num-agents 16 --sync-period 10 --learning-rate 0.05 --seed 7",
        "fedq random-mdp --env.num-states 20 --env.seed 3 --epsilon 1 --out runs/twenty",
        "fedq paper-mdp --sync-period 10 --uplink top-k --uplink.k 3",
        "mymodule:my_algorithm mymodule:my_environment --num-steps 20 --debug",
        "espc CartPole-v1 --num-agents 50 --target-senders 25",
        "--config runs/fedq-paper-mdp-1/config.json --num-steps 200000",
        "afedpg dirichlet-mdp --num-agents 8 --clock.distribution two_class",
    ],
    "sweep": [
        "fedq paper-mdp --num-agents 1 2 4 8 --sync-period 1 100 --seeds 0 1 2",
        "fedq paper-mdp --num-agents 1 2 4 --learning-rate-per-agent 0.002 --epsilon 1",
        "fedq paper-mdp --sync-period 10 --uplink full top-k --uplink.k 1 3 --seeds 0 1 2",
    ],
    "compare": [
        "dql ebcdql simple-grid --num-agents 8 --seeds 0 1 2 3 4",
        "es espc CartPole-v1 --num-agents 20 --num-steps 100 --espc.target-senders 5",
        "small=fedpg large=fedpg dirichlet-mdp --small.learning-rate 0.1 --large.learning-rate 1",
        "fedpg fedavgm-pg CartPole-v1 --preset tuned --num-steps 100",
    ],
    "reproduce": ["linear-speedup", "linear-speedup:fig4,fig5 --scale quick --out runs/speedup"],
    "resume": [
        "runs/fedq-paper-mdp-1",
        "runs/fedq-paper-mdp-1 --num-steps 200000 --seeds 0 1 2 3",
    ],
    "view": [
        "runs/fedq-paper-mdp-1",
        "runs/slow runs/fast --out compared.html",
        "figures/momentum/paper",
    ],
    "validate": ["bigfish", "coinrun --scale paper"],
    "play": ["BigFish --policy circle", "BigFish --policy runs/fedppo-BigFish-1 --out fish.gif"],
    "doctor": [
        "",
        "fedq paper-mdp --num-agents 100000 --num-steps 1000000",
        "espc CartPole-v1 --num-agents 1000 --network.hidden 64 64",
        "compare fedpg fast-fedpg CartPole-v1 --num-agents 100",
        "linear-speedup:8-13 --scale paper",
    ],
    "completion": [
        "bash > ~/.local/share/bash-completion/completions/fedjax-rl",
        "zsh > ~/.zfunc/_fedjax-rl",
        "fish > ~/.config/fish/completions/fedjax-rl.fish",
    ],
}
_ABOUT = """Federated reinforcement learning as one array program.

`fedjax-rl COMMAND --help` explains a command, with examples. `--version` prints the version,
`--debug` (or FEDJAX_RL_DEBUG=1) shows the traceback of an error; with run and sweep it also runs
one agent after the other, so that prints in an algorithm of your own show numbers."""


def read(argv: list[str]) -> tuple[int, Any]:
    """Exit code and arguments; no arguments where help was asked for or the line is wrong."""
    import tyro

    if argv[:2] == ["doctor", "compare"]:  # whatever could be compared
        return read(argv[1:])
    if not argv[0].startswith("-"):
        _check_command(argv)
    argv, held = given.expanded(argv)
    stderr = io.StringIO()
    try:
        with contextlib.redirect_stderr(stderr):
            commands = _commands(argv, held)
            if argv[0] in commands:
                argv = spelled_out(argv, commands[argv[0]])
            return 0, tyro.extras.subcommand_cli_from_dict(
                commands, prog=PROGRAM, description=_ABOUT, args=argv
            )
    except SystemExit as stop:
        if stop.code:
            say(f"error: {_summary(stderr.getvalue())}; see {PROGRAM} {_help_of(argv)}")
            return 2, None
        return 0, None


def _check_command(argv: list[str]) -> None:
    """Refuses what is no command; who has left it out is told so.

    Raises:
      ValueError: with the nearest commands.
    """
    if argv[0] not in _WORDS:
        from fedjax_rl.algorithms import ALGORITHMS

        if argv[0] in ALGORITHMS:
            line = " ".join(argv)
            raise ValueError(f"{argv[0]} is no command but an algorithm; allowed: run {line}")
    check_known(argv[0], _WORDS, "command")


def _help_of(argv: list[str]) -> str:
    return f"{argv[0]} --help" if argv[0] in _WORDS else "--help"


def _summary(box: str) -> str:
    """The parser's box of an error as one line."""
    sections: list = [[]]
    for line in box.splitlines():
        inside = line.strip("│╰╯ ")
        if line.startswith("╭") or (inside and not inside.strip("─-")):
            sections.append([])
        elif inside:
            sections[-1].append(inside)
    # Without Unicode the title is a section, and with it a line of the frame.
    sections = [section for section in sections if section][not box.startswith("╭") :] or [[""]]
    texts = [" ".join(section) for section in sections]
    value = re.match(r"Error parsing (\S+): .*?'(.*)'\]?$", texts[0])
    if value and len(sections) > 1 and len(sections[1]) > 1:
        given = value[2].replace("', '", " ")
        allowed = sections[1][1].partition(" ")[2]
        return f"{value[1]} is {given}; allowed: {allowed}"
    near = [flag for text in texts[1:2] for flag in re.findall(r"--[a-z][\w.-]*", text)]
    near = [flag for flag in dict.fromkeys(near) if flag != "--help"]
    near += [text for text in texts[1:2] if text.startswith("Available")]
    hint = f"; did you mean {' or '.join(near[:3])}?" if near and "Unrecog" in texts[0] else ""
    if hint and near[0].startswith("Available"):
        hint = f"; {near[0][0].lower()}{near[0][1:]}"
    return f"{texts[0].rstrip('.')}{hint}"


def _commands(argv: list[str], held: dict) -> dict[str, type]:
    """The commands as dataclasses; only the one that is asked for in full, unless completing."""
    complete = argv[0].startswith("--tyro")
    made = {}
    for name, words in _WORDS.items():
        full = complete or argv[0] == name
        fields = []
        if full:
            own = [] if complete else argv
            fields = compare.fields_of(own, held) if name == "compare" else None
            fields = fields or options.of_command(name, argv, held)
        made[name] = dataclasses.make_dataclass(name, fields)
        examples = [f"    {PROGRAM} {name} {example}" for example in _EXAMPLES[name]]
        show = full and not complete
        made[name].__doc__ = "\n\n".join(
            [words, *(["Examples:"] if show else []), *(["\n".join(examples)] if show else [])]
        ).replace("Examples:\n\n", "Examples\n")
    return made
