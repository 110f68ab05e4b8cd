"""Several processes of this machine that simulate together, as a cluster's would.

As a script it is one of them: `python processes.py HOST:PORT COUNT INDEX DIRECTORY NAME ...`.
"""

import os
import pathlib
import socket
import subprocess
import sys
from collections.abc import Sequence

import fedjax_rl as frl

ROOT = pathlib.Path(__file__).resolve().parent.parent


FEDQ = {"epsilon": 1.0, "participation": 0.7, "learning_rate": 0.1, "sync_period": 3}
METRICS = ["error_server", "error_local"]


def one(**options):
    """A federation that is spread."""
    algorithm = frl.fedq(frl.envs.paper_mdp(), **FEDQ)
    return frl.sweep(algorithm, num_agents=4, num_steps=20, metrics=METRICS, **options)


def fedq(**options):
    """Federations that fill a mesh, some of them spread over it, and one that is left over."""
    algorithm = frl.fedq(frl.envs.paper_mdp(), **FEDQ)
    options = {"num_steps": 60, "record_every": 10, "metrics": METRICS, **options}
    return frl.sweep(algorithm, num_agents=[1, 4], seeds=range(3), **options)


def es(**options):
    algorithm = frl.es(frl.envs.simple_grid(max_steps=5), network=(4,))
    return frl.sweep(algorithm, num_agents=8, num_steps=4, **options)


def fedpg(**options):
    algorithm = frl.fedpg(frl.envs.dirichlet_mdps(4))
    return frl.sweep(algorithm, num_agents=4, seeds=range(2), num_steps=4, **options)


def fedppo(**options):
    sizes = {"num_envs": 2, "rollout_steps": 8, "minibatches": 2, "network": {"hidden": (4,)}}
    algorithm = frl.fedppo(frl.envs.simple_grid(max_steps=5), **sizes)
    return frl.sweep(algorithm, num_agents=4, num_steps=2, **options)


CASES = {"one": one, "fedq": fedq, "es": es, "fedpg": fedpg, "fedppo": fedppo}


def environment() -> dict[str, str]:
    """Of a process with one device of its own, and the compiler's options of this one."""
    flags = os.environ.get("XLA_FLAGS", "").split()
    flags = [flag for flag in flags if "host_platform_device_count" not in flag]
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    own = {"JAX_PLATFORMS": "cpu", "PYTHONPATH": path, "XLA_FLAGS": " ".join(flags)}
    return {**os.environ, **own}


def address() -> str:
    """Where nobody listens yet."""
    with socket.socket() as own:
        own.bind(("localhost", 0))
        return f"localhost:{own.getsockname()[1]}"


def start(lines: Sequence[Sequence[str]]) -> list[subprocess.Popen]:
    """A process of Python for each line of arguments."""
    return [
        subprocess.Popen(
            [sys.executable, *line],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for line in lines
    ]


def ended(processes: Sequence[subprocess.Popen], seconds: float = 240) -> list[tuple[int, str]]:
    """The exit code of each, and what it said on stderr; none outlives this."""
    try:
        said = [own.communicate(timeout=seconds)[1] for own in processes]
    finally:
        for own in processes:
            own.kill()
    return [(own.returncode, words) for own, words in zip(processes, said, strict=True)]


def commands(words: Sequence[str], count: int, **others: Sequence[str]) -> list[list[str]]:
    """The lines of a command in so many processes.

    Args:
      words: of the command.
      count: of processes.
      **others: more words of a process, by `p` and its index.
    """
    where = address()
    return [
        [
            *("-m", "fedjax_rl", *words, "--distributed", "--coordinator", where),
            *("--num-processes", str(count), "--process-index", str(index)),
            *others.get(f"p{index}", ()),
        ]
        for index in range(count)
    ]


def main(argv: list[str]) -> None:
    import jax

    where, count, index, directory, *names = argv
    jax.distributed.initialize(where, int(count), int(index))
    for name in names:
        result = CASES[name]()
        if int(index) == 0:
            frl.save(pathlib.Path(directory) / name, result)


if __name__ == "__main__":
    main(sys.argv[1:])
