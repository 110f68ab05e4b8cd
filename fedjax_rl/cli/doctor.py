"""`list`, `doctor` and `completion`: what there is, and what a configuration needs."""

from __future__ import annotations

import importlib.metadata
import itertools
import os
import re
import sys

from fedjax_rl.cli import parse
from fedjax_rl.cli.config import algorithm_of, check_devices, config_of, lists_of, nested_errors
from fedjax_rl.cli.options import PACKAGES, SCALES
from fedjax_rl.cli.process import prepare
from fedjax_rl.cli.settings import clock_options, fitting, uplink_options
from fedjax_rl.cli.study import studies, study_of

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
    if "study" in vars(arguments):
        return _of_study(arguments)
    config = config_of(arguments)
    prepare(arguments.devices)
    algorithm = algorithm_of(config)
    _machine(arguments.devices)
    with nested_errors(config):
        _configuration(config, algorithm)
    return 0


def _machine(devices: int) -> None:
    """Versions, devices, and how agents are spread over them."""
    import jax

    from fedjax_rl import results
    from fedjax_rl.jobs import most_in_population

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
    cores = os.cpu_count() or 1
    print(
        f"  populations of at most {most_in_population() * devices} agents, unless one federation "
        "has more"
    )
    if jax.default_backend() == "cpu" and devices == 1:
        print(f"  up to {cores} populations at a time, one thread each")
    else:
        print(f"  one population at a time, over {devices} device(s)")


def _configuration(config: dict, algorithm) -> None:
    """What a run or a sweep needs, from the shapes of its arrays."""
    rate = config["learning_rate_per_agent"]
    lists = lists_of(config)
    counts = config["num_agents"] if isinstance(config["num_agents"], list) else None
    counts = [config["num_agents"]] if counts is None else counts
    seeds = len(config["seeds"]) if isinstance(config["seeds"], list) else 1
    steps = config["num_steps"]
    records = steps // (config["record_every"] or max(1, steps // 100))
    needs = _Needs()
    for n, *values in itertools.product(counts, *lists.values()):
        own = dict(zip(lists, values, strict=True))
        own |= {} if rate is None else {"learning_rate": rate * n}
        one = algorithm.replace(**own)
        sides = [n if side == "agent" else 1 for side, _ in one.metrics.values()]
        kept = sum(sides) if config["metrics"] else sides.count(1)
        needs.add(one, n, seeds, steps, records * kept)
    needs.show()


def _of_study(arguments) -> int:
    """What a study needs, as far as it says beforehand what it runs."""
    study, figures, preset = study_of(arguments)
    check_devices(arguments.devices)
    prepare(arguments.devices)
    _machine(arguments.devices)
    print(f"{study.name}, {', '.join(figures)}, scale {arguments.scale}, preset {preset}")
    runs = study.plan(figures, arguments.scale, preset) if study.plan else {}
    if not runs:
        print("  nothing that is planned beforehand")
    for what, parts in runs.items():
        print(f"Runs of {what}")
        needs = _Needs()
        for algorithm, counts, steps in parts:
            kept = sum(1 if side == "federation" else 0 for side, _ in algorithm.metrics.values())
            for n, federations in counts.items():
                needs.add(algorithm, n, federations, steps, steps * (kept + n))
        needs.show()
    return 0


class _Needs:
    """Adds up what federations need; nothing is compiled, nothing is simulated."""

    def __init__(self) -> None:
        self.federations = self.agents = self.total = self.kept = 0
        self.largest: tuple[int, dict] = 0, {}
        self.operations = 0.0
        self.known = True

    def add(self, algorithm, num_agents: int, federations: int, steps: int, numbers: int) -> None:
        """So many federations alike, of which each records so many numbers."""
        parts = algorithm.memory and algorithm.memory(algorithm.config, num_agents)
        each = parts["total"] if parts else _bytes(algorithm, num_agents)
        self.federations += federations
        self.agents += num_agents * federations
        self.total += federations * each
        self.kept += 4 * federations * numbers
        if parts and each > self.largest[0]:
            self.largest = each, parts
        if algorithm.operations is None:
            self.known = False
        else:
            amount = algorithm.operations(algorithm.config)
            self.operations += amount * steps * num_agents * federations

    def show(self) -> None:
        """Prints it, with the time that a device like this one takes."""
        from fedjax_rl import memory

        each = self.total / self.agents
        print("Memory")
        print(
            f"  {self.federations} federation(s), {self.agents} agents, {each:,.0f} bytes an agent"
        )
        print(f"  {memory.words(self.total)} if all ran at once")
        print(f"  {memory.words(self.kept)} of records on the host")
        most, parts = self.largest
        if parts:
            rest = ", ".join(f"{n} {memory.words(x)}" for n, x in parts.items() if n != "total")
            print(f"  {memory.words(most)} for the largest federation: {rest}")
        free = memory.available(devices=1)
        if free:
            fits = "fits" if self.total < free else "does not fit at once"
            if parts and fits != "fits" and most < free:
                fits += "; federations take turns"
            print(f"  {memory.words(free)} available: {fits}")
        if self.known and self.operations:
            _time(self.operations)


def _bytes(algorithm, num_agents: int) -> int:
    """Parameters and state of a federation; the state is there before a chunk and after it."""
    import jax

    from fedjax_rl import memory, streams
    from fedjax_rl.federation.algorithm import bind
    from fedjax_rl.federation.population import population

    params = algorithm.parameters(algorithm.config, num_agents)
    everybody = population(num_agents)

    def start():
        keys = streams.agent_keys(jax.numpy.zeros(num_agents, "int32"), everybody.member_of)
        bound = bind([params])
        return bound, algorithm.functions(algorithm.config).init(everybody, bound, keys)

    bound, state = jax.eval_shape(start)
    return memory.size(bound) + 2 * memory.size(state)


# Networks reach so much of the speed of a product of large matrices, `benchmarks/run.py ppo`.
_REACHED = (0.1, 0.5)


def _time(operations: float) -> None:
    """Prints how long so many floating-point operations take on this device."""
    rate = _product()
    low, high = (operations / rate / reached for reached in reversed(_REACHED))
    print("Time")
    print(f"  {_three(operations / 1e12)} TFLOP of networks, forward and backward")
    print(f"  {_three(rate / 1e9)} GFLOP/s in a product of matrices on this device, measured")
    shares = " to ".join(f"{100 * share:.0f}" for share in _REACHED)
    print(f"  {_duration(low)} to {_duration(high)} if networks reach {shares} % of that")
    print("  environments, small networks and compiling come on top")


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= size:
            return f"{_three(seconds / size)} {unit}"
    return f"{_three(seconds)} seconds"


def _three(number: float) -> str:
    """Three digits, all those before the point."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _product() -> float:
    """Floating-point operations a second of a product of matrices, float32; best of five."""
    import time

    import jax
    import jax.numpy as jnp

    size = 1024 if jax.default_backend() == "cpu" else 8192
    x = jnp.ones((size, size), jnp.float32)
    product = jax.jit(lambda x: x @ x)
    product(x).block_until_ready()
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        product(x).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)


def completion(arguments) -> int:
    """The command `completion`."""
    # The script is printed by the parser itself, which knows every argument.
    parse.read(["--tyro-print-completion", arguments.shell])
    return 0
