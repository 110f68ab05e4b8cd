"""Several processes of one command: how they find each other, and how they end.

Found by JAX (`jax.distributed`), which also ends every process whose coordinator hears no more of
another one. What is added is words: who was awaited where, who has ended and why, and how to go on.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pathlib
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator

from fedjax_rl.cli.process import on_cpu, prepare
from fedjax_rl.cli.report import PROGRAM, say

COMMANDS = ("run", "sweep", "compare", "resume")
# Seconds: to wait for all processes at the start, until a silent process counts as ended, between
# two looks at whether another one has ended, and until one that ends leaves the others.
_WAIT, _SILENT, _LOOK, _LEAVE = 300, 30, 1.0, 5.0
# To be asked whether another process has said that it ends.
_ENDED = "fedjax_rl/ended"
_FLAGS = ("coordinator", "num_processes", "process_index", "wait")

# Set once this process leaves, by itself or with the others.
_leaving = threading.Event()
# The directory that can be resumed, once there is one.
_directory: list[pathlib.Path] = []
# The process that says the last words of this one.
_witness: list[subprocess.Popen] = []


def joined() -> bool:
    """Whether this process is one of several that were told to find each other."""
    # Nothing heavy is imported for a command that needs none of it.
    return "jax" in sys.modules and sys.modules["jax"].distributed.is_initialized()


def is_follower() -> bool:
    """Whether another process reports for this one."""
    if not joined():
        return False
    from fedjax_rl import hosts

    return hosts.index() > 0


def losses() -> contextlib.AbstractContextManager:
    """Says of what JAX raises, when another process has gone, that this is so."""
    if not joined():
        return contextlib.nullcontext()
    from fedjax_rl import hosts

    return hosts.losses()


def join(argv: list[str]) -> None:
    """Finds the other processes, where a line says that there are some.

    Before the line is read: to find what it names a module may be imported that starts JAX.

    Args:
      argv: the whole line.

    Raises:
      ValueError: a flag that is wrong, or processes that JAX cannot find by itself.
      ConnectionError: they do not all come in time.
    """
    if argv[0] not in COMMANDS or {"--help", "-h"} & {*argv}:
        return
    given = _read(argv)
    if given is None:  # what it says cannot be read, and is refused by who reads all of it
        return
    named = {name: getattr(given, name) for name in _FLAGS if getattr(given, name) is not None}
    if not given.distributed:
        for name, value in named.items():
            flag = f"--{name.replace('_', '-')}"
            raise ValueError(f"{flag} is {value} without --distributed; allowed: with it")
        return
    _check(**named)
    prepare()
    import jax

    # Which would take SIGTERM for itself: it is ours to answer.
    jax.config.update("jax_enable_preemption_service", False)
    with _explained(named):
        jax.distributed.initialize(
            named.get("coordinator"),
            named.get("num_processes"),
            named.get("process_index"),
            initialization_timeout=int(named.get("wait", _WAIT)),
            heartbeat_timeout_seconds=_SILENT,
            # Process 0 has a picture to draw, for which all others wait.
            shutdown_timeout_seconds=3600,
        )
    threading.Thread(target=_look, daemon=True).start()
    _last_words()
    share(given.devices)


def _read(argv: list[str]) -> argparse.Namespace | None:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--distributed", action=argparse.BooleanOptionalAction, default=False)
    parser.add_argument("--coordinator")
    for name in ("--num-processes", "--process-index", "--devices"):
        parser.add_argument(name, type=int)
    parser.add_argument("--wait", type=float)
    words = [re.sub(r"^--[\w-]+", lambda name: name[0].replace("_", "-"), word) for word in argv]
    try:
        return parser.parse_known_args(words)[0]
    except (argparse.ArgumentError, SystemExit):
        return None


def _check(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_index: int | None = None,
    wait: float = _WAIT,
) -> None:
    """Refuses what no cluster has, before anybody waits for it.

    Raises:
      ValueError: naming the flag.
    """
    if coordinator is not None:
        host, _, port = coordinator.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
            raise ValueError(
                f"--coordinator is {coordinator!r}; allowed: HOST:PORT, where process 0 listens"
            )
    if num_processes is not None and num_processes < 1:
        raise ValueError(f"--num-processes is {num_processes}; allowed: at least 1")
    most = "num-processes - 1" if num_processes is None else num_processes - 1
    if process_index is not None and not 0 <= process_index < (num_processes or 2**31):
        raise ValueError(f"--process-index is {process_index}; allowed: 0 to {most}")
    if not 1 <= wait <= 10**6:
        raise ValueError(f"--wait is {wait:g}; allowed: 1 to 1e6 seconds")


@contextlib.contextmanager
def _explained(named: dict) -> Iterator[None]:
    """Says in one sentence what JAX says of processes that do not find each other."""
    import jax
    from jax._src import distributed  # names its client for what it has to be told besides

    made = distributed._jax.get_distributed_runtime_client

    def client(*args, **options):
        # Or JAX ends the process, with a trace of its own, where nobody comes in time: the time-out
        # of `initialize` raises nothing by itself, and it has no argument for this callback. That
        # cannot be handed what it would be told, which is raised instead.
        return made(*args, missed_heartbeat_callback=lambda status: None, **options)

    distributed._jax.get_distributed_runtime_client = client
    try:
        yield
    except (jax.errors.JaxRuntimeError, RuntimeError, ValueError, OSError) as error:
        words = " ".join(str(error).split())
        if "must be called before" in words:
            raise ValueError(
                "--distributed is given where JAX has started; allowed: in a process of its own"
            ) from error
        address = distributed.global_state.coordinator_address or named.get("coordinator")
        if address is None or "must be defined" in words or "should be defined" in words:
            raise ValueError(
                "--distributed is given, but JAX detects no cluster (SLURM, Open MPI, Kubernetes "
                "with jax[k8s], TPU) that says the rest; allowed: with --coordinator HOST:PORT "
                f"--num-processes P --process-index I ({words[:120]})"
            ) from error
        seconds = f"{named.get('wait', _WAIT):g} s"
        if "bad_cast" not in words and "DEADLINE" not in words:
            raise ConnectionError(f"processes cannot meet at {address}: {words[:160]}") from error
        if distributed.global_state.process_id == 0:
            many = named.get("num_processes")
            text = f"not all {many or ''} processes came to {address} within {seconds}"
        else:
            text = f"the coordinator at {address} did not answer within {seconds}"
        raise ConnectionError(f"{text}; allowed: --wait with more") from error
    finally:
        distributed._jax.get_distributed_runtime_client = made


def share(devices: int | None) -> None:
    """Has the CPUs of all processes pretend to be so many devices together.

    Args:
      devices: of all processes; None for one of each.

    Raises:
      ValueError: processes that would not have as many.
    """
    from fedjax_rl import hosts

    if not joined():
        prepare(devices or 1)
        return
    if devices is None or devices < 1:
        return
    if devices % hosts.count():
        raise ValueError(
            f"devices is {devices}; allowed: multiples of {hosts.count()}, as many of each process"
        )
    import jax

    own = devices // hosts.count()
    if on_cpu() and jax.config.jax_num_cpu_devices != own:
        jax.config.update("jax_num_cpu_devices", own)


def resumable(directory: pathlib.Path) -> None:
    """Notes the directory that goes on where this process ends.

    Args:
      directory: as `resume` takes it.
    """
    _directory[:] = [directory]
    _last_words()


def leave(code: int) -> int:
    """Ends this process with the others, however it ends.

    Args:
      code: of the process.

    Returns:
      It, where there is nobody else, or all has gone well.
    """
    if not joined():
        return code
    from fedjax_rl import hosts

    _leaving.set()
    if code == 0:
        # Waits for process 0, which has results to write.
        with contextlib.suppress(RuntimeError):
            sys.modules["jax"].distributed.shutdown()
    _last_words(silent=True)
    if code == 0:
        return 0
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    # All has been said: what JAX has to say of a coordinator that is gone would follow it.
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    # Not through JAX, which would wait for processes that are waiting for this one.
    with contextlib.suppress(Exception):
        client = hosts.global_state.client
        client.key_value_set(_ENDED, str(hosts.index()), allow_overwrite=True)
        client.wait_at_barrier("fedjax_rl/left", int(1000 * _LEAVE))
        # All are here, so that none waits long. Or who is slower than process 0, with which the
        # coordinator goes, is aborted by JAX before it comes to its own end.
        sys.modules["jax"].distributed.shutdown()
    os._exit(code)


def goes_on() -> str:
    """How to go on, as the end of a sentence; nothing where nothing was begun."""
    if not _directory:
        return ""
    return f"; `{PROGRAM} resume {shlex.quote(str(_directory[0]))} --distributed` goes on"


def _look() -> None:
    """Ends this process soon after another one has said that it ends."""
    from fedjax_rl import hosts

    while not _leaving.wait(_LOOK):
        with contextlib.suppress(Exception):  # there is no such word yet
            other = hosts.global_state.client.key_value_try_get(_ENDED)
            # It may end for what ends this one as well.
            if not _leaving.wait(2 * _LOOK):
                _end(f"process {other} has ended")


def _end(words: str) -> None:
    _last_words(silent=True)
    say(f"error: {words}{goes_on()}")
    os._exit(1)


# Says the last line that it has read, once who has written it is no more.
_WITNESS = "import sys\nfor line in sys.stdin: last = line\nsys.stderr.write(last.lstrip())"


def _last_words(silent: bool = False) -> None:
    """Leaves with a process besides this one what is to be said if this one is ended.

    JAX ends a process from within where another one, or the coordinator, does not answer, and asks
    nobody.

    Args:
      silent: that there is nothing to be said.
    """
    if not _witness:
        if not joined():
            return
        command = [sys.executable, "-I", "-S", "-c", _WITNESS]
        # Of another session, or Ctrl-C would end it first.
        _witness.append(
            subprocess.Popen(command, stdin=subprocess.PIPE, text=True, start_new_session=True)
        )
    from fedjax_rl import hosts

    words = (
        f"{PROGRAM}: process {hosts.index()} was ended from without, or by JAX as another process "
        f"does not answer{goes_on()}"
    )
    with contextlib.suppress(OSError, ValueError):
        _witness[0].stdin.write("\n" if silent else f"{words}\n")
        _witness[0].stdin.flush()
