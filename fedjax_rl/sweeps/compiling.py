"""How XLA is to compile the programs of the package, and what counts more: to run or to compile."""

from __future__ import annotations

import contextlib
import contextvars
import functools
from collections.abc import Iterator

import jax
import numpy as np

from fedjax_rl import backend

# The older of XLA's two makers of machine code takes half as long, for code half as fast; jaxlib
# 0.12 has the newer one alone.
_NEWER = "xla_cpu_use_fusion_emitters"
# Whether compiling counts for more than speed.
_QUICKLY: contextvars.ContextVar[bool] = contextvars.ContextVar("compiled_quickly", default=False)


@contextlib.contextmanager
def compiled_quickly() -> Iterator[None]:
    """Compiles populations in half of the time, for runs that take no longer than that.

    The last digits of floating-point results may be others than those of the same run without.
    """
    token = _QUICKLY.set(True)
    try:
        yield
    finally:
        _QUICKLY.reset(token)


def is_quick() -> bool:
    """Whether this is within `compiled_quickly`."""
    return _QUICKLY.get()


def compiler_options(*, runs_once: bool = False) -> dict:
    """Options for every program of the package on this backend.

    Args:
      runs_once: of a program whose compiling counts for more than its speed.
    """
    if backend.kind() != "cpu":
        return {}
    quick = {_NEWER: False} if runs_once and _is_option(_NEWER) else {}
    return quick | {
        # XLA prefers 256 bits; the inner loops are straight vector code and gain from 512 where
        # the machine has them.
        "xla_cpu_prefer_vector_width": "512",
        # One thread a program: a core each for several jobs, from as many Python threads, beats
        # two threads that split every small fusion between them and wait.
        "xla_cpu_multi_thread_eigen": False,
        # This scheduler has hung vmapped programs (jaxlib 0.10, jax issue 39257).
        "xla_cpu_enable_concurrency_optimized_scheduler": False,
    }


@functools.cache
def _is_option(name: str) -> bool:
    """Whether the compiler knows an option that may be false."""
    try:
        jax.jit(lambda x: x).lower(np.float32(0)).compile(compiler_options={name: False})
    except jax.errors.JaxRuntimeError:
        return False
    return True
