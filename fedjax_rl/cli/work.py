"""`run`, `sweep` and `resume`: from a configuration to a directory with its result."""

from __future__ import annotations

import contextlib
import json
import pathlib

from fedjax_rl.cli import study
from fedjax_rl.cli.options import algorithm_of, config_of
from fedjax_rl.cli.process import free, held, interruptible, prepare, quiet
from fedjax_rl.cli.report import headline, live, report, say, summarise, unit


def run(arguments) -> int:
    """The commands `run` and `sweep`."""
    from fedjax_rl import results

    config = config_of(arguments)
    prepare(arguments.devices)
    out = pathlib.Path(arguments.out or free(f"{config['algorithm']}-{config['environment']}"))
    with contextlib.ExitStack() as stack:
        claimed = []

        def accept() -> pathlib.Path:
            claimed.append(results.claim(out, config))
            stack.enter_context(held(out))
            return out / "checkpoints"

        with interruptible(lambda: claimed[0] if claimed else None):
            _work(config, out, accept)
    return 0


def _work(config: dict, out: pathlib.Path, accept) -> None:
    """Simulates what `config` says, from its last checkpoint, and writes what comes of it.

    `result.nc` is written after `summary.json`, which alone knows the seconds, and before the
    picture; a directory that lacks one of them is finished by `resume`.
    """
    from fedjax_rl import results
    from fedjax_rl.sweep import sweep

    quiet()
    rate = config["learning_rate_per_agent"]
    follow = {} if rate is None else {"learning_rate": lambda num_agents: rate * num_agents}
    algorithm = algorithm_of(config)
    with live(f"agent-{unit(algorithm)}s") as progress:
        result = sweep(
            algorithm,
            num_agents=config["num_agents"],
            seeds=config["seeds"],
            num_steps=config["num_steps"],
            record_every=config["record_every"],
            metrics=config["metrics"],
            devices=config["devices"],
            checkpoints=accept,
            progress=progress,
            **config["properties"],
            **follow,
        )
    results.write_json(out / "summary.json", summarise(config, result))
    results.save(out, result)
    _finish(config, out)


def _finish(config: dict, out: pathlib.Path) -> None:
    """The picture and the report, from what is saved."""
    from fedjax_rl import plotting, results

    result = results.load(out)
    summary = json.loads((out / "summary.json").read_text())
    metric = config["metrics"][0] if config["metrics"] else headline(algorithm_of(config))
    drawable = result[metric].values
    if bool((drawable[drawable == drawable] > 0).any()):
        plotting.save(plotting.curves(result, metric), out / "figure")
    else:
        say(f"warning: {metric} has no positive value; there is no picture")
    report(summary, out)


def _is_finished(out: pathlib.Path) -> bool:
    names = ("summary.json", "result.nc", "figure.png", "figure.svg")
    return all((out / name).is_file() for name in names)


def resume(arguments) -> int:
    """The command `resume`."""
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
        say("warning: begun with other versions; the last digits may differ")
    prepare(config["devices"])
    with held(out), interruptible(lambda: out):
        results.tidy(out)
        if config["command"] == "reproduce":
            study.carry_out(config, out)
        elif (out / "summary.json").is_file() and _loads(out):
            _finish(config, out)
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
