"""`run`, `sweep`, `compare` and `resume`: from a configuration to a directory with its result."""

from __future__ import annotations

import argparse
import contextlib
import pathlib
import re
from collections.abc import Iterator

from fedjax_rl.cli import cluster, compare, more, study
from fedjax_rl.cli.config import (
    algorithms_of,
    check_devices,
    config_of,
    first_of,
    headline_of,
    lists_of,
    nested_errors,
    precision,
    resolved,
)
from fedjax_rl.cli.picture import picture
from fedjax_rl.cli.process import free, held, interruptible, keeping, quiet
from fedjax_rl.cli.report import WATCHED, live, say, summarise
from fedjax_rl.cli.tables import report
from fedjax_rl.cli.written import check, check_names


def run(arguments) -> int:
    """The commands `run`, `sweep` and `compare`."""
    import jax

    from fedjax_rl import hosts
    from fedjax_rl.saving import results

    make = compare.config_of if type(arguments).__name__ == "compare" else config_of
    config = make(arguments)
    if arguments.out is not None and hosts.once(lambda: more.is_more(arguments.out, config)):
        asked = argparse.Namespace(**vars(arguments), directory=arguments.out)
        # As many steps as there are, and on as many devices unless it says so.
        asked.num_steps = None
        return resume(asked)
    cluster.share(arguments.devices)
    if cluster.joined() and arguments.devices is None:
        config["devices"] = jax.device_count()
    stem = re.sub("[/:.]", "-", f"{config['algorithm']}-{config['environment']}")
    out = results.place(hosts.once(lambda: str(results.place(arguments.out or free(stem)))))
    with contextlib.ExitStack() as stack:
        stack.enter_context(keeping(arguments.cache))
        stack.enter_context(_precision(config))
        claimed = []

        def claim() -> None:
            results.claim(out, config)
            stack.enter_context(held(out))

        # Called when all arguments have been accepted: what is refused leaves no directory behind.
        def accept() -> pathlib.Path:
            hosts.once(claim)
            claimed.append(out)
            cluster.resumable(out)
            return out / "checkpoints"

        with interruptible(lambda: claimed[0] if claimed else None):
            _work(config, out, accept, arguments.debug)
    return 0


def _work(config: dict, out: pathlib.Path, accept, debug: bool = False) -> None:
    """Simulates what `config` says, from its last checkpoint, and writes what comes of it.

    `result.nc` is written after `summary.json`, which alone knows the seconds, and before the
    picture; a directory that lacks one of them is finished by `resume`.
    """
    from fedjax_rl import hosts
    from fedjax_rl.fields import by_agents
    from fedjax_rl.saving import results
    from fedjax_rl.sweeps.sweep import sweep

    quiet()
    rate = config["learning_rate_per_agent"]
    follow = {} if rate is None else {"learning_rate": by_agents(lambda n: rate * n)}
    one, first = algorithms_of(config), first_of(config)
    config.setdefault("configuration", resolved(one))
    headline, metrics = headline_of(config), config["metrics"]
    if metrics and "non_finite" in first.metrics:  # to be warned of in any case
        metrics = list(dict.fromkeys([*metrics, "non_finite"]))
    # Of a grid the last values would be of one federation now and of another then.
    watched = [headline, *(n for n in WATCHED if n in first.metrics)]
    shown = watched if config["command"] == "run" else ()
    counted = "updates" if first.on_clock else f"agent-{first.unit}s"
    first_process = hosts.index() == 0
    telling = live(counted, shown) if first_process else contextlib.nullcontext((None, None))
    with nested_errors(config), telling as (progress, watch):
        result = sweep(
            one,
            num_agents=config["num_agents"],
            seeds=config["seeds"],
            num_steps=config["num_steps"],
            record_every=config["record_every"],
            metrics=metrics,
            agents=config.get("agents"),
            devices=config["devices"],
            checkpoints=accept,
            progress=progress,
            watch=watch if shown else None,
            debug=debug,
            **lists_of(config),
            **follow,
        )
    if first_process:
        results.write_sealed(out / "summary.json", summarise(config, result, headline))
        results.save(out, result)
        _finish(config, out)


def _finish(config: dict, out: pathlib.Path) -> None:
    """The picture and the report, from what is saved."""
    from fedjax_rl import plotting
    from fedjax_rl.saving import results

    result, summary = results.load(out), results.read_sealed(out / "summary.json")
    figure = picture(result, first_of(config), config["metrics"], headline_of(config))
    if figure is not None:
        plotting.save(figure, out / "figure")
    report(summary, out)


def _is_made(out: pathlib.Path) -> bool:
    """Whether there are whole results, of which there is only a picture to be made."""
    from fedjax_rl.saving import results

    with contextlib.suppress(OSError):
        results.load(out)
        return results.read_sealed(out / "summary.json") is not None
    return False


def _is_pictured(out: pathlib.Path) -> bool:
    """Whether the pictures are there, and are pictures."""
    import xml.etree.ElementTree as Tree

    from PIL import Image

    try:
        with Image.open(out / "figure.png") as image:
            image.verify()
        Tree.parse(out / "figure.svg")
    except (OSError, SyntaxError, ValueError):  # what their readers say of junk
        return False
    return True


def resume(arguments) -> int:
    """The command `resume`."""
    from fedjax_rl import hosts
    from fedjax_rl.saving import results

    out = results.place(arguments.directory)
    with contextlib.ExitStack() as stack:
        stack.enter_context(interruptible(lambda: out))
        config = hosts.once(lambda: _begun(out, arguments, stack))
        cluster.share(config["devices"])
        # Devices wait for those of all processes, and what is looked at alone may ask for them.
        hosts.start()
        config, finished = hosts.once(lambda: _taken_up(out, config, arguments))
        cluster.resumable(out)
        if finished:
            return 0
        stack.enter_context(_precision(config))
        stack.enter_context(keeping(arguments.cache))
        if config["command"] == "reproduce":
            study.carry_out(config, out)
        elif not hosts.once(lambda: _is_made(out)):
            _work(config, out, lambda: out / "checkpoints")
        elif hosts.index() == 0:
            _finish(config, out)
    return 0


def _begun(out: pathlib.Path, arguments, stack: contextlib.ExitStack) -> dict:
    """What is run in a directory, which is ours until `stack` closes; starts no devices.

    Raises:
      ValueError: naming what cannot be gone on with.
    """
    from fedjax_rl.saving import results

    if not out.is_dir():
        raise ValueError(f"directory is {out}, which is not there; allowed: one of ours")
    if results.read_config(out) is None and not any(out.glob("checkpoints/*")):
        raise ValueError(
            f"directory is {out}, which has no config.json of ours: nothing had started there; "
            "allowed: give the command itself again"
        )
    stack.enter_context(held(out))
    config = results.recover_config(out)
    if config is None:
        raise ValueError(
            f"directory is {out}, whose config.json is damaged, and there is no copy of it; "
            "allowed: config.json as it was, or remove the directory and give the command "
            "itself again"
        )
    check(config, out / "config.json")
    if config["command"] == "reproduce" and cluster.joined():
        raise ValueError(
            f"directory is {out}, of a study; allowed with --distributed: one of run or sweep"
        )
    if arguments.devices is not None:
        check_devices(arguments.devices)
        config["devices"] = arguments.devices
    return config


def _taken_up(out: pathlib.Path, config: dict, arguments) -> tuple[dict, bool]:
    """What is to be run in a directory, with what is asked for besides; whether it is finished.

    Raises:
      ValueError: naming what cannot be gone on with.
    """
    from fedjax_rl.saving import results

    with _precision(config):
        check_names(config)
    if arguments.num_steps is not None or arguments.seeds is not None:
        config = more.with_more(config, arguments)
        # Results last: a directory without them is one that is gone on with.
        results.replace_config(out, config)
        for name in ("result.nc", "summary.json"):
            (out / name).unlink(missing_ok=True)
    finished = _is_made(out) and _is_pictured(out)
    if config["command"] == "reproduce":
        finished = results.read_sealed(out / "summary.json") is not None
    if finished:
        print(f"{out} is finished; nothing to do")
    else:
        if arguments.devices is not None:
            results.replace_config(out, config)
        # Checkpoints say so themselves.
        if config["command"] == "reproduce" and config["versions"] != results.versions():
            say("warning: begun with other versions; the last digits may differ")
        results.remove_temporary(out)
    return config, finished


@contextlib.contextmanager
def _precision(config: dict) -> Iterator[None]:
    """Computes in the precision that a run was begun in."""
    import jax

    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", config.get("precision", precision()) == "float64")
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", before)
