"""The command line: `fedjax-rl list`, `run`, `sweep`, `reproduce`, `resume`, `doctor`.

Nothing here starts JAX before the arguments are read and the environment is set; what is heavy is
imported inside the command that needs it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import importlib.util
import io
import json
import os
import pathlib
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal

PROGRAM = "fedjax-rl"
SCALES = ("smoke", "quick", "paper")
SHELLS = ("bash", "zsh", "fish")
# Properties whose values are arrays or Python objects; everything else is a number or a word.
_PYTHON_ONLY = ("mdp", "env", "policy", "weights", "server_optimizer", "gradient")
_WORDS = {
    "list": "What there is: algorithms, environments, studies with their papers and figures.",
    "run": "Simulate one federation; save the result and a picture.",
    "sweep": "Simulate a grid: any property may take several values.",
    "reproduce": "Reproduce a published figure and compare it with the published values.",
    "resume": "Go on where a stopped run, sweep or study was.",
    "doctor": "Versions, devices, what would run where, memory a configuration needs.",
    "completion": "Print the completion script of a shell.",
}
_EXAMPLES = {
    "list": [""],
    "run": [
        "fedq paper-mdp",
        "fedq paper-mdp --num-agents 16 --sync-period 10 --learning-rate 0.05 --seed 7",
        "fedq random-mdp --env.num-states 20 --env.seed 3 --epsilon 1 --out runs/twenty",
    ],
    "sweep": [
        "fedq paper-mdp --num-agents 1 2 4 8 --sync-period 1 100 --seeds 0 1 2",
        "fedq paper-mdp --num-agents 1 2 4 --learning-rate-per-agent 0.002 --epsilon 1",
    ],
    "reproduce": ["linear-speedup", "linear-speedup:fig4,fig5 --scale quick --out runs/speedup"],
    "resume": ["runs/fedq-paper-mdp-1"],
    "doctor": ["", "fedq paper-mdp --num-agents 100000 --num-steps 1000000"],
    "completion": [
        "bash > ~/.local/share/bash-completion/completions/fedjax-rl",
        "zsh > ~/.zfunc/_fedjax-rl",
        "fish > ~/.config/fish/completions/fedjax-rl.fish",
    ],
}
_ABOUT = """Federated reinforcement learning as one array program.

`fedjax-rl COMMAND --help` explains a command, with examples. `--version` prints the version,
`--debug` (or FEDJAX_RL_DEBUG=1) shows the traceback of an error."""


class Stopped(KeyboardInterrupt):
    """Interrupted; `args[0]` is the directory to resume, or None when nothing is written yet."""


def main(argv: list[str] | None = None) -> int:
    """Runs a command and returns its exit code: 0, 2 for what cannot be run, 130 for Ctrl-C."""
    argv = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in argv or bool(os.environ.get("FEDJAX_RL_DEBUG"))
    argv = [a for a in argv if a != "--debug"] or ["--help"]
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal without the symbols shows others
            stream.reconfigure(errors="replace")
    try:
        with warnings.catch_warnings():
            # Ours are for the user; those of other packages are for us.
            warnings.simplefilter("ignore")
            warnings.filterwarnings("always", module=r"fedjax_rl(\.|$)")
            warnings.showwarning = lambda message, *_: _say(f"warning: {message}")
            return _dispatch(argv)
    except Stopped as stopped:
        if stopped.args[0] is None:
            _say("stopped; nothing was written")
        else:
            _say(f"stopped; `{PROGRAM} resume {stopped.args[0]}` goes on")
        return 130
    except KeyboardInterrupt:
        _say("stopped")
        return 130
    except BrokenPipeError:  # the reader of a pipe has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except (ValueError, OSError) as error:
        if debug:
            raise
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        if isinstance(error, OSError) and error.filename and str(error.filename) not in text:
            text = f"{error.filename}: {text}"
        _say(f"error: {_flagged(text)}")
        return 2
    except Exception as error:
        if debug:
            raise
        text = " ".join(str(error).split("\n", 1)[0].split())
        if "RESOURCE_EXHAUSTED" in text:
            _say(f"error: out of memory ({PROGRAM} doctor says what a run needs): {text}")
        else:
            _say(f"error: {type(error).__name__}: {text} (--debug shows where)")
        return 1


def _say(text: str) -> None:
    print(f"{PROGRAM}: {text}", file=sys.stderr, flush=True)


def _flagged(text: str) -> str:
    """One line, with the argument that it starts with as it is typed."""
    text = " ".join(text.split())
    match = re.match(r"(env\.)?([a-z]+(?:_[a-z]+)*)(?= (?:is|has)\b)", text)
    if match is None or match[2] in ("cells", "mdp"):
        return text
    return f"--{match[0].replace('_', '-')}{text[match.end() :]}"


def _dispatch(argv: list[str]) -> int:
    if argv[0] == "--version":
        try:
            print(PROGRAM, importlib.metadata.version("fedjax_rl"))
        except importlib.metadata.PackageNotFoundError:
            print(PROGRAM, "from source, not installed")
        return 0
    code, arguments = _parse(argv)
    if arguments is None:
        return code
    return {
        "list": _list,
        "run": _run,
        "sweep": _run,
        "reproduce": _reproduce,
        "resume": _resume,
        "doctor": _doctor,
        "completion": _completion,
    }[argv[0]](arguments)


# Parsing -----------------------------------------------------------------------------------------


def _parse(argv: list[str]) -> tuple[int, Any]:
    """Exit code and arguments; no arguments where help was asked for or the line is wrong."""
    import tyro

    stderr = io.StringIO()
    try:
        with contextlib.redirect_stderr(stderr):
            return 0, tyro.extras.subcommand_cli_from_dict(
                _commands(argv), prog=PROGRAM, description=_ABOUT, args=argv
            )
    except SystemExit as stop:
        if stop.code:
            _say(f"error: {_summary(stderr.getvalue())}; see {PROGRAM} {_help_of(argv)}")
            return 2, None
        return 0, None


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


def _commands(argv: list[str]) -> dict[str, type]:
    """The commands as dataclasses; only the one that is asked for in full, unless completing."""
    complete = argv[0].startswith("--tyro")
    made = {}
    for name, words in _WORDS.items():
        full = complete or argv[0] == name
        fields = _fields(name, argv) if full else []
        made[name] = dataclasses.make_dataclass(name, fields)
        examples = [f"    {PROGRAM} {name} {example}" for example in _EXAMPLES[name]]
        show = full and not complete
        made[name].__doc__ = "\n\n".join(
            [words, *(["Examples:"] if show else []), *(["\n".join(examples)] if show else [])]
        ).replace("Examples:\n\n", "Examples\n")
    return made


def _fields(command: str, argv: list[str]) -> list[tuple]:
    import tyro

    def option(name, kind, default, text, metavar=None):
        text = text.replace("%", "%%")
        metavar = "FLOAT" if metavar is None and kind == float | None else metavar
        kind = Annotated[kind, tyro.conf.arg(help=text, metavar=metavar)]
        return name, kind, dataclasses.field(default=default)

    def positional(name, text, default=dataclasses.MISSING):
        # Any word: unknown names are answered by ourselves, with the nearest.
        kind = Annotated[str, tyro.conf.arg(help=text, metavar=name.upper())]
        kind = tyro.conf.Positional[kind]
        return name, kind, dataclasses.field(default=default)

    out = option("out", str | None, None, "Directory for everything; a new one in runs/.", "DIR")
    if command == "list":
        return []
    if command == "resume":
        return [positional("directory", "As printed by the command that was stopped.")]
    if command == "completion":
        kind = Annotated[Literal[SHELLS], tyro.conf.arg(help="The shell.", metavar="SHELL")]
        return [("shell", tyro.conf.Positional[kind])]
    if command == "reproduce":
        text = "STUDY, or STUDY:FIGURE[,FIGURE]; see `fedjax-rl list`."
        kind = Literal[SCALES]
        return [
            positional("study", text),
            option("scale", kind, "quick", "smoke: it works; quick: minutes; paper: as published."),
            option("preset", str | None, None, "The protocol, such as paper or clean.", "NAME"),
            out,
            option("devices", int, 1, "Devices to spread the agents over."),
        ]

    from fedjax_rl.envs.registry import ENVIRONMENTS, options

    several = command != "run"
    named = [a for a in argv[1:3] if not a.startswith("-")]
    algorithms = _algorithms()
    chosen = named[0] if named and named[0] in algorithms else next(iter(algorithms))
    place = named[1] if len(named) > 1 and named[1] in ENVIRONMENTS else None
    default = (
        (chosen, place or next(iter(ENVIRONMENTS)))
        if command == "doctor"
        else (
            dataclasses.MISSING,
            dataclasses.MISSING,
        )
    )

    def values(name, kind, default, text):
        if not several:
            return option(name, kind, default, text)
        metavar = {int: "INT ...", str: "STR ..."}.get(kind, "FLOAT ...")
        return option(name, tuple[kind, ...], (default,), text, metavar)

    fields = [
        positional("algorithm", f"One of {', '.join(algorithms)}.", default[0]),
        positional("environment", f"One of {', '.join(ENVIRONMENTS)}.", default[1]),
        values("num_agents", int, 4, "N, agents of the federation."),
        option("num_steps", int, 100_000, "T, environment steps of every agent."),
        values("seeds" if several else "seed", int, 0, "Of the agents' random numbers."),
    ]
    own = algorithms[chosen].config
    texts = _attributes(type(own).__doc__)
    for name in algorithms[chosen].properties:
        value = getattr(own, name)
        if name not in _PYTHON_ONLY:
            kind = float | None if value is None else type(value)
            text = re.sub(r"`(\w+)`", lambda m: m[1].replace("_", "-"), texts.get(name, ""))
            fields.append(values(name, kind, value, text))
    if several:
        text = "Instead of learning-rate: this value times num-agents."
        fields.append(option("learning_rate_per_agent", float | None, None, text, "FLOAT"))
    every = "Steps between records; about 100 records by default."
    fields.append(option("record_every", int | None, None, every, "INT"))
    if command != "doctor":
        known = ", ".join(algorithms[chosen].metrics)
        text = f"What to record: {known}. By default those per federation."
        fields += [option("metrics", tuple[str, ...] | None, None, text, "NAME ..."), out]
    fields.append(option("devices", int, 1, "Devices to spread the agents over."))
    environments = [place] if place else list(ENVIRONMENTS)
    choices = {o: v for name in environments for o, v in options(name).items()}
    if choices:
        env = dataclasses.make_dataclass(
            "Env", [option(o, type(v), v, "Of the environment.") for o, v in choices.items()]
        )
        owners = [name for name in environments if options(name)]
        env.__doc__ = f"Options of {', '.join(owners)}."
        fields.append(("env", env, dataclasses.field(default_factory=env)))
    return fields


def _algorithms() -> dict[str, Any]:
    """Every algorithm with its defaults, by name."""
    from fedjax_rl.algorithms import ALGORITHMS
    from fedjax_rl.envs.registry import ENVIRONMENTS, make

    environment = make(next(iter(ENVIRONMENTS)))
    return {name: factory(environment) for name, factory in ALGORITHMS.items()}


def _attributes(docstring: str) -> dict[str, str]:
    """The `Attributes` section of a docstring by name."""
    found: dict = {}
    name = None
    for line in docstring.partition("Attributes:\n")[2].splitlines():
        match = re.match(r"\s{4,8}(\w+): (.*)", line)
        if match:
            name = match[1]
            found[name] = match[2]
        elif name and line.strip():
            found[name] += f" {line.strip()}"
    return found


def _studies() -> dict[str, Any]:
    from fedjax_rl.studies import STUDIES

    return STUDIES


# The environment of the process ------------------------------------------------------------------


def prepare(devices: int = 1) -> None:
    """Sets what XLA reads when it starts, as far as the user has not.

    Options that concern our own programs are given where these are compiled; see
    `fedjax_rl.run.compiler_options`.

    Args:
      devices: how many a CPU pretends to have.
    """
    os.environ.setdefault("MPLBACKEND", "Agg")
    if not _on_cpu():
        return
    wanted = {"--xla_cpu_enable_concurrency_optimized_scheduler": "false"}
    if devices > 1:
        wanted["--xla_force_host_platform_device_count"] = str(devices)
    given = os.environ.get("XLA_FLAGS", "")
    missing = [f"{flag}={value}" for flag, value in wanted.items() if flag not in given]
    os.environ["XLA_FLAGS"] = " ".join([*given.split(), *missing])


def _on_cpu() -> bool:
    """Whether JAX will run on the CPU, found out without starting it."""
    platforms = os.environ.get("JAX_PLATFORMS", "")
    if platforms:
        return platforms.split(",")[0] == "cpu"
    plugins = list(importlib.metadata.entry_points(group="jax_plugins"))
    plugins += [d for d in ("libtpu",) if importlib.util.find_spec(d) is not None]
    if not plugins or sys.platform != "linux":
        return not plugins
    nodes = ("nvidia[0-9]*", "accel*", "vfio/[0-9]*", "kfd")
    return not any(next(pathlib.Path("/dev").glob(node), None) for node in nodes)


@contextlib.contextmanager
def _held(directory) -> Iterator[None]:
    """Keeps other processes from working in the same directory."""
    try:
        import fcntl
    except ImportError:  # no such locks on this system
        yield
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"directory is {directory}, where another process is at work; allowed: one at a "
                "time"
            ) from None
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(handle)


def _free(stem: str) -> pathlib.Path:
    """The first directory in `runs` that is not there yet."""
    number = 1
    while (path := pathlib.Path("runs") / f"{stem}-{number}").exists():
        number += 1
    return path


# run, sweep and resume ---------------------------------------------------------------------------


def _run(arguments) -> int:
    from fedjax_rl import results

    config = _config(arguments)
    prepare(arguments.devices)
    out = pathlib.Path(arguments.out or _free(f"{config['algorithm']}-{config['environment']}"))
    with contextlib.ExitStack() as stack:
        claimed = []

        def accept() -> pathlib.Path:
            claimed.append(results.claim(out, config))
            stack.enter_context(_held(out))
            return out / "checkpoints"

        with _interruptible(lambda: claimed[0] if claimed else None):
            _work(config, out, accept)
    return 0


def _config(arguments) -> dict:
    """The arguments of `run` or `sweep` as plain values, enough to run them again."""
    from fedjax_rl import results
    from fedjax_rl.algorithms import ALGORITHMS
    from fedjax_rl.envs.registry import ENVIRONMENTS, options
    from fedjax_rl.names import check_known

    check_known(arguments.algorithm, ALGORITHMS, "algorithm")
    check_known(arguments.environment, ENVIRONMENTS, "environment")
    given = vars(arguments)
    env = vars(given["env"]) if "env" in given else {}
    known = options(arguments.environment)
    every = {o: v for name in ENVIRONMENTS for o, v in options(name).items()}
    for option, value in env.items():
        if option not in known and value != every[option]:
            raise ValueError(
                f"env.{option} is {value}; allowed: "
                f"{', '.join(known) or 'no options'} with {arguments.environment}"
            )

    def plain(value):
        if isinstance(value, tuple):
            return value[0] if len(value) == 1 else list(value)
        return value

    properties = [n for n in _algorithms()[arguments.algorithm].properties if n in given]
    properties = {n: plain(given[n]) for n in properties}
    per_agent = given.get("learning_rate_per_agent")
    if per_agent is not None:
        default = _algorithms()[arguments.algorithm].config.learning_rate
        if properties.pop("learning_rate") != default:
            raise ValueError(
                f"learning_rate_per_agent is {per_agent} beside a learning_rate; allowed: one of "
                "the two"
            )
        if not per_agent > 0:
            raise ValueError(
                f"learning_rate_per_agent is {per_agent}; allowed: above 0, and at most 1 over "
                "the largest num_agents"
            )
    return {
        "command": type(arguments).__name__,
        "algorithm": arguments.algorithm,
        "environment": arguments.environment,
        "environment_options": {o: v for o, v in env.items() if o in known},
        "num_agents": plain(arguments.num_agents),
        "num_steps": arguments.num_steps,
        "seeds": plain(given["seeds"] if "seeds" in given else given["seed"]),
        "properties": properties,
        "learning_rate_per_agent": per_agent,
        "record_every": arguments.record_every,
        "metrics": list(given.get("metrics") or ()) or None,
        "devices": arguments.devices,
        "versions": results.versions(),
    }


def _algorithm(config: dict):
    """The algorithm in its environment; properties that are lists are left to the sweep."""
    from fedjax_rl.algorithms import ALGORITHMS
    from fedjax_rl.envs.registry import make

    try:
        environment = make(config["environment"], **config["environment_options"])
    except ValueError as error:
        raise ValueError(f"env.{error}") from error
    return ALGORITHMS[config["algorithm"]](environment)


@contextlib.contextmanager
def _interruptible(directory: Callable[[], pathlib.Path | None]) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise Stopped(directory()) from None


def _quiet() -> None:
    """Silences the chatter of libraries: what matters they raise."""
    import logging

    logging.getLogger("absl").setLevel(logging.CRITICAL)


def _work(config: dict, out: pathlib.Path, accept) -> None:
    """Simulates what `config` says, from its last checkpoint, and writes what comes of it.

    `result.nc` is written after `summary.json`, which alone knows the seconds, and before the
    picture; a directory that lacks one of them is finished by `resume`.
    """
    from fedjax_rl import results
    from fedjax_rl.sweep import sweep

    _quiet()
    rate = config["learning_rate_per_agent"]
    follow = {} if rate is None else {"learning_rate": lambda num_agents: rate * num_agents}
    with _live() as report:
        result = sweep(
            _algorithm(config),
            num_agents=config["num_agents"],
            seeds=config["seeds"],
            num_steps=config["num_steps"],
            record_every=config["record_every"],
            metrics=config["metrics"],
            devices=config["devices"],
            checkpoints=accept,
            progress=report,
            **config["properties"],
            **follow,
        )
    results.write_json(out / "summary.json", _summarise(config, result))
    results.save(out, result)
    _finish(out)


def _finish(out: pathlib.Path) -> None:
    """The picture and the report, from what is saved."""
    from fedjax_rl import plotting, results
    from fedjax_rl.federation.ledger import COLUMNS

    result = results.load(out)
    summary = json.loads((out / "summary.json").read_text())
    known = [n for n in result.data_vars if n not in (*COLUMNS, "diverged", "phase")]
    drawable = result[known[0]].values
    if bool((drawable[drawable == drawable] > 0).any()):
        plotting.save(plotting.curves(result, known[0]), out / "figure")
    else:
        _say(f"warning: {known[0]} has no positive value; there is no picture")
    _report(summary, out)


def _is_finished(out: pathlib.Path) -> bool:
    names = ("summary.json", "result.nc", "figure.png", "figure.svg")
    return all((out / name).is_file() for name in names)


def _resume(arguments) -> int:
    from fedjax_rl import results

    out = pathlib.Path(arguments.directory)
    config = results.read_config(out)
    if config is None:
        if not out.is_dir():
            raise ValueError(f"directory is {out}, which is not there; allowed: one of ours")
        raise ValueError(
            f"directory is {out}, which has no config.json of ours: nothing had started there; "
            "allowed: give the command itself again"
        )
    done = (out / "summary.json").is_file() if config["command"] == "reproduce" else None
    if done or (done is None and _is_finished(out)):
        print(f"{out} is finished; nothing to do")
        return 0
    if config["versions"] != results.versions():
        _say("warning: begun with other versions; the last digits may differ")
    prepare(config["devices"])
    with _held(out), _interruptible(lambda: out):
        results.tidy(out)
        if config["command"] == "reproduce":
            _study(config, out)
        elif (out / "summary.json").is_file() and _loads(out):
            _finish(out)
        else:
            _work(config, out, lambda: out / "checkpoints")
    return 0


def _loads(out: pathlib.Path) -> bool:
    from fedjax_rl import results

    try:
        results.load(out)
    except (OSError, ValueError):
        return False
    return True


@contextlib.contextmanager
def _live(unit: str = "agent-steps") -> Iterator[Callable[[float, float], None]]:
    """A bar with the time left, or a line every tenth where there is no terminal."""
    from rich import progress
    from rich.console import Console

    console = Console(stderr=True)
    columns = (
        progress.SpinnerColumn(),
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.TaskProgressColumn(),
        progress.TimeElapsedColumn(),
        progress.TextColumn("left"),
        progress.TimeRemainingColumn(),
        progress.TextColumn("{task.fields[speed]}"),
    )
    live = progress.Progress(*columns, console=console, disable=not console.is_terminal)
    task = live.add_task("compiling", total=None, speed="")
    shown = [0]

    def report(done: float, total: float) -> None:
        speed = live.tasks[0].speed
        text = f"{speed:.3g} {unit}/s" if speed and unit else ""
        live.update(task, description="running", completed=done, total=total, speed=text)
        tenth = int(10 * done / total)
        if not console.is_terminal and tenth > shown[0]:
            shown[0] = tenth
            seconds = live.tasks[0].time_remaining
            left = "" if seconds is None or done >= total else f", about {seconds:.0f} s left"
            _say(f"{10 * tenth} % done{left}")

    with live:
        yield report


def _summarise(config: dict, result) -> dict:
    """The content of `summary.json`: a row per configuration, seeds averaged, with intervals."""
    import numpy as np

    from fedjax_rl import analysis, results
    from fedjax_rl.federation.ledger import COLUMNS

    per_agent = [n for n in result.data_vars if "agent" in result[n].dims]
    metrics = [n for n in result.data_vars if n not in (*COLUMNS, "diverged", "phase")]
    dims = [d for d in result["diverged"].dims if d != "seed"]
    seeds = result.sizes.get("seed", 1)
    moved = result.transpose(*dims, ..., "time")

    def estimate(values) -> dict:
        values = np.asarray(values, np.float64).reshape(-1)
        with np.errstate(invalid="ignore", over="ignore"):
            interval = analysis.bootstrap_interval(values) if len(values) > 1 else None
            mean = values.mean()
        limits = (None, None) if interval is None else (interval.low, interval.high)
        numbers = zip(("mean", "low", "high"), (mean, *limits), strict=True)
        return {n: None if x is None or not np.isfinite(x) else float(x) for n, x in numbers}

    rows, diverged = [], []
    for index in np.ndindex(*(result.sizes[d] for d in dims)):
        one = moved.isel(dict(zip(dims, index, strict=True)))
        at = {n: one[n].item() for n in one.coords if one[n].ndim == 0 and n != "seed"}
        row = {**at, "metrics": {}}
        for name in metrics:
            values = one[name].mean("agent", skipna=True) if name in per_agent else one[name]
            row["metrics"][name] = {
                "final": estimate(values.isel(time=-1)),
                "second_half": estimate(
                    values.isel(time=slice(result.sizes["time"] // 2, None)).mean("time")
                ),
            }
        row["ledger"] = {n: float(one[n].mean()) for n in COLUMNS}
        rows.append(row)
        labels = np.atleast_1d(one["seed"].values)
        bad = labels[np.atleast_1d(one["diverged"].values)]
        diverged += [{**at, "seed": int(seed)} for seed in bad]
    return {
        "command": config["command"],
        "algorithm": config["algorithm"],
        "environment": config["environment"],
        "num_steps": config["num_steps"],
        "seeds": seeds,
        "interval": "95 % bootstrap over seeds; null for one seed",
        "rows": rows,
        "ledger": {n: int(result[n].sum()) for n in COLUMNS},
        "diverged": diverged,
        "seconds": json.loads(result.attrs["seconds"]),
        "versions": results.versions(),
        "device": results.device(),
    }


def _report(summary: dict, out: pathlib.Path) -> None:
    """What came of a run or sweep, for the reader of a terminal."""
    from rich.table import Table

    most = 30
    rows = summary["rows"]
    varied = [n for n in rows[0] if n not in ("metrics", "ledger")]
    metrics = list(rows[0]["metrics"])
    table = Table(title=f"{summary['algorithm']} on {summary['environment']}, at the end")
    for name in varied:
        table.add_column(name, justify="right")
    for name in metrics:
        table.add_column(name, justify="right")
    table.add_column("exchanges", justify="right")
    table.add_column("bytes up", justify="right")
    for row in rows[:most]:
        cells = [_interval(**row["metrics"][n]["final"]) for n in metrics]
        costs = [f"{row['ledger'][n]:,.0f}" for n in ("communications", "bytes_up")]
        table.add_row(*(_number(row[n]) for n in varied), *cells, *costs)
    _print(table)
    if len(rows) > most:
        print(f"... and {len(rows) - most} more in {out / 'summary.json'}")
    for at in summary["diverged"][:10]:
        print(f"diverged: {', '.join(f'{n} {_number(v)}' for n, v in at.items())}")
    if len(summary["diverged"]) > 10:
        print(f"... {len(summary['diverged'])} federations diverged in all")
    seconds = summary["seconds"]
    print(f"{seconds['compile']:.1f} s compiling, {seconds['run']:.1f} s running")
    print(f"saved in {out}: result.nc, figure.png, figure.svg, summary.json")


def _print(renderable) -> None:
    """Prints a table, wide where there is no terminal to fold it for."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    console.print(renderable)


def _number(value) -> str:
    if value is None:
        return "-"
    if isinstance(value, list | tuple):
        return ", ".join(_number(v) for v in value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _interval(mean, low, high) -> str:
    text = "not finite" if mean is None else f"{mean:.4g}"
    return text if low is None or high is None else f"{text} [{low:.4g}, {high:.4g}]"


# reproduce ---------------------------------------------------------------------------------------


def _reproduce(arguments) -> int:
    from fedjax_rl import results
    from fedjax_rl.names import check_known

    studies = _studies()
    name, colon, figures = arguments.study.partition(":")
    check_known(name, studies, "study")
    study = studies[name]
    chosen = figures.split(",") if colon else list(study.figures)
    for figure in chosen:
        check_known(figure, study.figures, f"figure of {name}")
    preset = arguments.preset or study.presets[0]
    check_known(preset, study.presets, f"preset of {name}")
    if arguments.devices < 1:
        raise ValueError(f"devices is {arguments.devices}; allowed: at least 1")
    config = {
        "command": "reproduce",
        "study": name,
        "figures": list(dict.fromkeys(chosen)),
        "scale": arguments.scale,
        "preset": preset,
        "devices": arguments.devices,
        "versions": results.versions(),
    }
    prepare(arguments.devices)
    _check_devices(study, arguments.devices)
    stem = f"{name}-{'-'.join(chosen)}-{arguments.scale}" if colon else f"{name}-{arguments.scale}"
    out = results.claim(arguments.out or _free(stem), config)
    with _held(out), _interruptible(lambda: out):
        _study(config, out)
    return 0


def _check_devices(study, devices: int) -> None:
    import inspect

    import jax

    if devices > 1 and "devices" not in inspect.signature(study.run).parameters:
        raise ValueError(f"devices is {devices}; allowed: 1 with {study.name}")
    if devices > jax.device_count():
        raise ValueError(f"devices is {devices}; allowed: 1 to {jax.device_count()}")


def _study(config: dict, out: pathlib.Path) -> None:
    from fedjax_rl import results

    _quiet()
    study = _studies()[config["study"]]
    more = {"devices": config["devices"]} if config["devices"] > 1 else {}
    with _live(unit="") as report:
        summary = study.run(
            out,
            tuple(config["figures"]),
            scale=config["scale"],
            preset=config["preset"],
            progress=report,
            **more,
        )
    if not (out / "summary.json").is_file():
        results.write_json(out / "summary.json", summary)
    _verdicts(summary, out)


def _verdicts(summary: dict, out: pathlib.Path) -> None:
    """The table of published against measured, each verdict with a symbol and a word."""
    from rich.table import Table

    marks = {
        "reproduced": "[green]✓ reproduced",
        "not reproduced": "[red]✗ not reproduced",
        "not run": "[yellow]○ not run",
    }
    title = f"{summary['study']}, scale {summary['scale']}, preset {summary['preset']}"
    table = Table(title=title)
    for name in ("id", "figure", "quantity", "published", "measured", "interval", "band"):
        table.add_column(name)
    table.add_column("verdict", no_wrap=True)
    for target in summary["targets"]:
        low, high = target["low"], target["high"]
        missing = low is None or high is None
        pairs = zip(low, high, strict=True) if isinstance(low, list) else [(low, high)]
        table.add_row(
            target["id"],
            target["figure"],
            target["quantity"],
            _number(target["published"]),
            _number(target["measured"]),
            "-" if missing else ", ".join(_band(pair, "-") for pair in pairs),
            _band(target["band"]),
            marks.get(target["verdict"], target["verdict"]),
        )
    _print(table)
    verdicts = [target["verdict"] for target in summary["targets"]]
    counts = [f"{verdicts.count(v)} {v}" for v in marks if v in verdicts]
    print(f"of {len(verdicts)} targets: {', '.join(counts) or 'none'}")
    print("the exit code does not depend on the verdicts")
    pictures = sorted(str(p.relative_to(out)) for p in out.rglob("*.png"))
    print(f"saved in {out}: {', '.join(['summary.json', *pictures])}")


def _band(band, missing: str = "") -> str:
    if band and isinstance(band[0], list | tuple):
        return ", ".join(_band(b, missing) for b in band)
    low, high = band
    if low is None and high is None:
        return missing
    if low is None:
        return f"≤ {_number(high)}"
    if high is None:
        return f"≥ {_number(low)}"
    return f"[{_number(low)}, {_number(high)}]"


# list, doctor and completion ---------------------------------------------------------------------


def _list(_) -> int:
    from fedjax_rl.algorithms import ALGORITHMS
    from fedjax_rl.envs.registry import ENVIRONMENTS, options

    print("Algorithms")
    for name, factory in ALGORITHMS.items():
        text = (sys.modules[factory.__module__].__doc__ or factory.__doc__ or "").strip()
        print(f"  {name}  {text.splitlines()[0]}")
        for paper in re.findall(r"^\* ((?:.|\n(?!\* ))*)", text, re.MULTILINE):
            print(f"    - {' '.join(paper.replace('*', '').split())}")
    print("\nEnvironments")
    for name, factory in ENVIRONMENTS.items():
        print(f"  {name}  {(factory.__doc__ or '').strip().splitlines()[0]}")
        if options(name):
            print(
                f"    options: {', '.join(f'--env.{o}'.replace('_', '-') for o in options(name))}"
            )
    print("\nStudies")
    for name, study in _studies().items():
        print(f"  {name}  {study.paper}")
        print(f"    presets: {', '.join(study.presets)}; scales: {', '.join(SCALES)}")
        for figure, text in study.figures.items():
            print(f"    {name}:{figure}  {text}")
    return 0


_PACKAGES = {
    "jax": "everything",
    "jaxlib": "everything",
    "numpy": "everything",
    "optax": "schedules and servers",
    "xarray": "results",
    "h5netcdf": "results",
    "h5py": "results",
    "orbax-checkpoint": "resuming",
    "matplotlib": "pictures",
    "scipy": "intervals",
    "statsmodels": "regressions",
    "tyro": "this command line",
    "rich": "this command line",
    "gymnax": "optional: its environments",
    "brax": "optional: its environments",
    "flax": "optional: networks",
    "numba": "optional: benchmarks",
    "jupytext": "optional: notebooks",
}


def _doctor(arguments) -> int:
    config = _config(arguments)
    algorithm = _algorithm(config)
    prepare(arguments.devices)

    import jax

    from fedjax_rl import results
    from fedjax_rl.sweep import AGENTS_PER_JOB

    print("Versions")
    for name, version in results.versions().items():
        print(f"  {name} {version}")
    for name, use in _PACKAGES.items():
        if name not in results.versions():
            try:
                print(f"  {name} {importlib.metadata.version(name)} ({use})")
            except importlib.metadata.PackageNotFoundError:
                print(f"  {name} is not installed ({use})")
    print("Devices")
    for device in jax.devices():
        print(f"  {device.id}: {device.platform}, {device.device_kind}")
    print(f"  {results.device()}")
    for name in ("JAX_PLATFORMS", "XLA_FLAGS"):
        print(f"  {name}={os.environ.get(name, '')}")
    print("What would run where")
    cores, limit = os.cpu_count() or 1, AGENTS_PER_JOB.get(jax.default_backend(), 2**20)
    print(f"  populations of at most {limit * arguments.devices} agents")
    if jax.default_backend() == "cpu" and arguments.devices == 1:
        print(f"  up to {cores} populations at a time, one thread each")
    else:
        print(f"  one population at a time, over {arguments.devices} device(s)")
    _memory(config, algorithm)
    return 0


def _memory(config: dict, algorithm) -> None:
    """What a configuration needs, from the shapes of its arrays; nothing is compiled."""
    import itertools
    import math

    import jax

    from fedjax_rl import streams
    from fedjax_rl.federation.algorithm import bind
    from fedjax_rl.federation.population import population

    rate = config["learning_rate_per_agent"]
    lists = {n: v if isinstance(v, list) else [v] for n, v in config["properties"].items()}
    counts = config["num_agents"] if isinstance(config["num_agents"], list) else None
    counts = [config["num_agents"]] if counts is None else counts
    seeds = len(config["seeds"]) if isinstance(config["seeds"], list) else 1
    steps = config["num_steps"]
    records = steps // (config["record_every"] or max(1, steps // 100))

    def size(tree) -> int:
        return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))

    agents = total = kept = cells = 0
    for n, *values in itertools.product(counts, *lists.values()):
        if n < 1:
            raise ValueError(f"num_agents is {n}; allowed: whole numbers of at least 1")
        own = dict(zip(lists, values, strict=True))
        own |= {} if rate is None else {"learning_rate": rate * n}
        one = algorithm.replace(**own)
        params = one.parameters(one.config, n)
        each = population(n)

        def start(each=each, one=one, params=params, n=n):
            keys = streams.agent_keys(jax.numpy.zeros(n, "int32"), each.member_of)
            bound = bind([params])
            return bound, one.functions(one.config).init(each, bound, keys)

        bound, state = jax.eval_shape(start)
        agents, cells = agents + n * seeds, cells + seeds
        # The state is there twice, before a chunk and after it.
        total += seeds * (size(bound) + 2 * size(state))
        sides = [n if side == "agent" else 1 for side, _ in one.metrics.values()]
        kept += seeds * records * 4 * (sum(sides) if config["metrics"] else sides.count(1))
    print("Memory of this configuration")
    print(f"  {cells} federation(s), {agents} agents, {total / agents:,.0f} bytes an agent")
    print(f"  {_bytes(total)} of parameters and state if all ran at once")
    print(f"  {_bytes(kept)} of records on the host")
    limit = (jax.devices()[0].memory_stats() or {}).get("bytes_limit")
    free = limit or _free_memory()
    if free:
        fits = "fits" if total < free else "does not fit at once"
        print(f"  {_bytes(free)} available: {fits}")


def _bytes(count: float) -> str:
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    while count >= 1024 and len(units) > 1:
        count /= 1024
        del units[0]
    return f"{count:.3g} {units[0]}"


def _free_memory() -> int | None:
    with contextlib.suppress(OSError):
        found = re.search(r"MemAvailable:\s+(\d+) kB", pathlib.Path("/proc/meminfo").read_text())
        return int(found[1]) * 1024 if found else None
    return None


def _completion(arguments) -> int:
    # The script is printed by the parser itself, which knows every argument.
    _parse(["--tyro-print-completion", arguments.shell])
    return 0
