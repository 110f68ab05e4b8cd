"""`doctor` and `completion`: what there is of machine and packages, and what something needs."""

from __future__ import annotations

import importlib.metadata
import os

from fedjax_rl.cli import compare, parse
from fedjax_rl.cli.config import check_devices, config_of, nested_errors
from fedjax_rl.cli.process import keeping, prepare
from fedjax_rl.cli.report import plural
from fedjax_rl.cli.study import duration, study_of
from fedjax_rl.cli.tables import facts

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
    "plotly": "pages for a browser",
    "scipy": "intervals",
    "statsmodels": "regressions",
    "tyro": "this command line",
    "rich": "this command line",
    "gymnax": "environments",
    "brax": "environments",
    "mujoco": "environments of brax",
    "mujoco-mjx": "environments of brax",
    "flax": "networks",
    "numba": "optional: benchmarks",
    "jupytext": "optional: notebooks",
}

# Exit code where a run does not fit into memory.
UNFIT = 2


def doctor(arguments) -> int:
    """The command `doctor`; its exit code says whether there is memory enough."""
    if "study" in vars(arguments):
        return _of_study(arguments)
    several = "names" in vars(arguments)
    config = compare.config_of(arguments) if several else config_of(arguments)
    prepare(config["devices"])
    _machine(config["devices"])
    from fedjax_rl.cli.needs import of_configuration

    with nested_errors(config), keeping(arguments.cache):
        return 0 if of_configuration(config).show() else UNFIT


def _machine(devices: int) -> None:
    """Versions, devices, and how agents are spread over them."""
    import jax

    from fedjax_rl.saving import results
    from fedjax_rl.sweeps.cache import directory
    from fedjax_rl.sweeps.jobs import most_in_population

    known = results.versions()
    for name in _PACKAGES:
        if name not in known:
            try:
                known[name] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                known[name] = "missing"
    facts("Versions", {name: f"{own:12} {_PACKAGES.get(name, '')}" for name, own in known.items()})
    own = {f"{d.platform} {d.id}": d.device_kind for d in jax.devices()}
    own["machine"] = results.device()
    own["programs"] = f"kept in {jax.config.jax_compilation_cache_dir or directory()}"
    own |= {name: os.environ.get(name, "") or "-" for name in ("JAX_PLATFORMS", "XLA_FLAGS")}
    facts("Devices", own)
    cores = os.cpu_count() or 1
    together = f"one population at a time, over {plural(devices, 'device')}"
    if jax.default_backend() == "cpu" and devices == 1:
        together = f"up to {plural(cores, 'population')} at a time, one thread each"
    most = most_in_population() * devices
    print("What would run where")
    print(f"  populations of at most {most:,} agents, unless one federation has more")
    print(f"  {together}")


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
        times = {stage: duration(own) for stage, own in seconds.items()}
        times["in all"] = duration(sum(seconds.values()))
        facts("Time of its stages, roughly, on two cores", times)
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
