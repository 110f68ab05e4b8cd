"""What has to stand before jax starts: eight devices, strict promotion, programs kept."""

import contextlib
import gc
import importlib.util
import itertools
import mmap
import os
import pathlib
import shutil
import signal
import tempfile

# What several tests compile is compiled once, also by other processes: pytest's own, and commands.
_PROGRAMS = None
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _PROGRAMS = os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="fedjax_rl-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.5"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

# Several devices on one CPU, so that what is sharded can be held against what is not. With the
# default scheduler, programs for several CPU devices compile and run several times slower. Most
# programs here run for less time than they compile, so that nothing is spent on making them fast:
# code of the older emitters without optimisation compiles in half the time.
_FLAGS = (
    "--xla_force_host_platform_device_count=8",
    "--xla_cpu_enable_concurrency_optimized_scheduler=false",
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_parallel_codegen_split_count=1",
    "--xla_cpu_use_fusion_emitters=false",
)


def _known(flags) -> list[str]:
    """Those that this jaxlib has: one that it does not have ends the process."""
    folder = pathlib.Path(importlib.util.find_spec("jaxlib").origin).parent
    largest = max(folder.glob("*.so"), key=lambda path: path.stat().st_size)
    with (
        largest.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as library,
    ):
        names = {flag: flag.removeprefix("--").partition("=")[0].encode() for flag in flags}
        # As a whole string of C: a flag that is gone is still a word in descriptions of messages.
        return [flag for flag, name in names.items() if library.find(b"\0" + name + b"\0") >= 0]


# Processes of pytest's own have them from the first one.
if _FLAGS[0] not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = " ".join((os.environ.get("XLA_FLAGS", ""), *_known(_FLAGS))).strip()
os.environ.setdefault("MPLBACKEND", "Agg")

import jax  # noqa: E402
import matplotlib  # noqa: E402
import pytest  # noqa: E402
from daily import is_daily, place  # noqa: E402

from fedjax_rl.sweeps.programs import PROGRAMS  # noqa: E402

matplotlib.use("Agg")
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_configure(config):
    """Keeps the order below; xdist would have files with few tests last, however long they take."""
    config.option.loadscopereorder = False


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Marks the cases that are not run every day, before marks decide what is run.

    Files that take long come first, so that no process is left with one while the others are done.
    """
    for item in items:
        if not is_daily(item):
            item.add_marker(pytest.mark.thorough)
    items.sort(key=place)  # files stay whole, and tests within a file in their order


def pytest_unconfigure():
    """Removes the programs, in the process that made their directory."""
    if _PROGRAMS is not None:
        shutil.rmtree(_PROGRAMS, ignore_errors=True)


# XLA maps the code of every program into memory by itself. Linux lets a process have 65,530 maps,
# and one more is a segmentation fault somewhere else: a worker that runs many files comes near it.
_MORE_MAPS = 20_000
_TESTS, _LEFT = itertools.count(), [0]


def _maps() -> int:
    """How many maps this process has; 0 where nobody says."""
    with contextlib.suppress(OSError):
        return pathlib.Path("/proc/self/maps").read_bytes().count(b"\n")
    return 0


@pytest.fixture(autouse=True)
def programs_are_let_go_before_there_are_too_many():
    """What is needed again comes from the directory where programs are kept."""
    yield
    if next(_TESTS) % 10 == 0 and _maps() > _LEFT[0] + _MORE_MAPS:
        PROGRAMS.clear()
        jax.clear_caches()
        gc.collect()
        _LEFT[0] = _maps()


@pytest.fixture
def hears_signals():
    """This process ends by a signal that asks it to.

    What a shell starts in the background ignores interrupts, what nohup starts the end of the
    terminal; a test that stops itself would go on.
    """
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {own: signal.signal(own, handler) for own, handler in usual.items()}
    yield
    for own, handler in before.items():
        signal.signal(own, handler)
