"""`list`, `doctor` and `completion`: what there is, and what a configuration needs."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import pathlib
import re
import sys

from fedjax_rl.cli import parse
from fedjax_rl.cli.config import algorithm_of, config_of, lists_of, nested_errors
from fedjax_rl.cli.options import PACKAGES, SCALES
from fedjax_rl.cli.process import prepare
from fedjax_rl.cli.settings import clock_options, fitting, uplink_options
from fedjax_rl.cli.study import studies

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
    "flax": "networks",
    "numba": "optional: benchmarks",
    "jupytext": "optional: notebooks",
}


def overview(_) -> int:
    """The command `list`."""
    from fedjax_rl.algorithms import ALGORITHMS
    from fedjax_rl.envs.registry import ALIASES, ENVIRONMENTS, options
    from fedjax_rl.federation.clock import SCHEDULERS
    from fedjax_rl.federation.uplink import UPLINKS

    print("Algorithms")
    for name, entry in ALGORITHMS.items():
        print(f"  {name}  {_first(entry.make)}")
        print(f"    runs on: {', '.join(fitting(name))}")
        text = sys.modules[entry.make.__module__].__doc__ or ""
        for paper in re.findall(r"^\* ((?:.|\n(?!\* ))*)", text, re.MULTILINE):
            print(f"    - {' '.join(paper.replace('*', '').split())}")
    print("\nEnvironments")
    for name, factory in ENVIRONMENTS.items():
        print(f"  {name}  {_first(factory)}")
        _flags("env", options(name))
    print(f"  {', '.join(f'{p}/NAME' for p in PACKAGES)}  Any other environment of these packages.")
    print(f"  also called {', '.join(f'{alias} ({name})' for alias, name in ALIASES.items())}")
    print("\nUplinks")
    for name, factory in UPLINKS.items():
        print(f"  {name}  {_first(factory)}")
        _flags("uplink", [option.name for option in uplink_options(name)])
    print(f"\nSchedulers\n  {', '.join(SCHEDULERS)}")
    _flags("clock", [option.name for option in clock_options()])
    print("\nStudies")
    for name, study in studies().items():
        print(f"  {name}  {study.paper}")
        print(f"    presets: {', '.join(study.presets)}; scales: {', '.join(SCALES)}")
        for figure, text in study.figures.items():
            print(f"    {name}:{figure}  {text}")
    return 0


def _first(factory) -> str:
    """The first line of a docstring, without the pointer to another."""
    line = (factory.__doc__ or "").strip().partition("\n")[0]
    return line if "; see" not in line else f"{line.partition('; see')[0]}."


def _flags(prefix: str, names) -> None:
    if names:
        print(f"    options: {', '.join(f'--{prefix}.{n}'.replace('_', '-') for n in names)}")


def doctor(arguments) -> int:
    """The command `doctor`."""
    config = config_of(arguments)
    prepare(arguments.devices)
    algorithm = algorithm_of(config)

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
    with nested_errors(config):
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
    lists = lists_of(config)
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


def completion(arguments) -> int:
    """The command `completion`."""
    # The script is printed by the parser itself, which knows every argument.
    parse.read(["--tyro-print-completion", arguments.shell])
    return 0
