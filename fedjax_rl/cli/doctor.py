"""`list`, `doctor` and `completion`: what there is, and what a configuration needs."""

from __future__ import annotations

import importlib.metadata
import os
import re
import sys

from fedjax_rl.cli import parse
from fedjax_rl.cli.config import check_devices, config_of, nested_errors
from fedjax_rl.cli.line import PACKAGES
from fedjax_rl.cli.named import fitting
from fedjax_rl.cli.options import SCALES
from fedjax_rl.cli.process import keeping, prepare
from fedjax_rl.cli.settings import clock_options, uplink_options
from fedjax_rl.cli.study import duration, studies, study_of

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

# Exit code where a run does not fit into memory.
UNFIT = 2


def overview(arguments) -> int:
    """The command `list`."""
    from fedjax_rl import fields

    fields.check("what", arguments.what, fields.word(("everything", "tuned")))
    return _tuned() if arguments.what == "tuned" else _everything()


def _everything() -> int:
    """Names, options, papers and figures of all that there is."""
    from fedjax_rl import presets
    from fedjax_rl.algorithms import ALGORITHMS
    from fedjax_rl.envs.registry import ALIASES, ENVIRONMENTS, options
    from fedjax_rl.federation.clock import SCHEDULERS
    from fedjax_rl.federation.uplinks import UPLINKS

    tuned: dict[str, list] = {}
    for one in presets.entries():
        tuned.setdefault(one.algorithm, []).append(one.environment)
    print("Algorithms")
    for name, entry in ALGORITHMS.items():
        print(f"  {name}  {_first(entry.make)}")
        print(f"    runs on: {', '.join(fitting(name))}")
        if name in tuned:
            print(f"    tuned for: {', '.join(tuned[name])}")
        # Papers are said once, in the docstrings of the algorithms.
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


def _tuned() -> int:
    """The tuned settings, with what they reach and the line that shows it."""
    from fedjax_rl import presets

    for one in presets.entries():
        print(f"{one.algorithm} {one.environment}")
        print(f"  {one.flags}")
        got = one.reached
        if got is None:
            print("  not measured yet")
        else:
            print(
                f"  {got.metric} {got.mean:.5g} [{got.low:.5g}, {got.high:.5g}], from "
                f"{got.start:.3g}, of {len(one.seeds)} seeds [95 % Student t interval]; "
                f"{duration(got.seconds)} on {got.device}"
            )
        print(f"  {one.command}")
    return 0


def _first(factory) -> str:
    """The first line of a docstring, without the pointer to another."""
    line = (factory.__doc__ or "").strip().partition("\n")[0]
    return line if "; see" not in line else f"{line.partition('; see')[0]}."


def _flags(prefix: str, names) -> None:
    if names:
        print(f"    options: {', '.join(f'--{prefix}.{n}'.replace('_', '-') for n in names)}")


def doctor(arguments) -> int:
    """The command `doctor`; its exit code says whether there is memory enough."""
    if "study" in vars(arguments):
        return _of_study(arguments)
    config = config_of(arguments)
    prepare(arguments.devices)
    _machine(arguments.devices)
    from fedjax_rl.cli.needs import of_configuration

    with nested_errors(config), keeping(arguments.cache):
        return 0 if of_configuration(config).show() else UNFIT


def _machine(devices: int) -> None:
    """Versions, devices, and how agents are spread over them."""
    import jax

    from fedjax_rl.saving import results
    from fedjax_rl.sweeps.cache import directory
    from fedjax_rl.sweeps.jobs import most_in_population

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
    print(f"  compiled programs are kept in {jax.config.jax_compilation_cache_dir or directory()}")
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


def _of_study(arguments) -> int:
    """What a study needs, as far as it says beforehand what it runs."""
    study, figures, preset = study_of(arguments)
    check_devices(arguments.devices)
    prepare(arguments.devices)
    _machine(arguments.devices)
    from fedjax_rl.cli.needs import Needs

    print(f"{study.name}, {', '.join(figures)}, scale {arguments.scale}, preset {preset}")
    seconds = study.seconds(figures, arguments.scale, preset)
    if seconds:
        print("Time of its stages, roughly, on two cores")
        for stage, own in seconds.items():
            print(f"  {stage}: {duration(own)}")
        print(f"  in all {duration(sum(seconds.values()))}")
    runs = study.plan(figures, arguments.scale, preset)
    if not runs:
        print("  nothing that is planned beforehand")
    fits = True
    for what, parts in runs.items():
        print(f"Runs of {what}")
        needs = Needs()
        for algorithm, counts, steps in parts:
            kept = sum(1 if side == "federation" else 0 for side, _ in algorithm.metrics.values())
            for n, federations in counts.items():
                needs.add(algorithm, n, federations, steps, steps)
                needs.keep(federations * steps * (kept + n))
        fits = needs.show() and fits
    return 0 if fits else UNFIT


def completion(arguments) -> int:
    """The command `completion`."""
    # The script is printed by the parser itself, which knows every argument.
    parse.read(["--tyro-print-completion", arguments.shell])
    return 0
