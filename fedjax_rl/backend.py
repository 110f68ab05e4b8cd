"""The kind of device that programs are made for, and how exact their products of matrices are.

Whatever has a form for CPUs and another one for accelerators asks here which it is to be, so that
the programs of a device can be lowered, and looked at, where there is none of it.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator

import jax

KINDS = ("cpu", "gpu", "tpu")
# Where local steps and exchanges of small tables become one kernel, see `federation.kernels`: of
# "triton", or of "interpret", a kernel as a program like any other, to look for mistakes.
KERNELS = {"gpu": "triton"}
_CHOSEN: contextvars.ContextVar[str | None] = contextvars.ContextVar("made_for", default=None)


def kind() -> str:
    """Of `KINDS`, as `jax.default_backend()` has it unless something else was chosen."""
    return _CHOSEN.get() or jax.default_backend()


def kernels() -> str | None:
    """How rounds of small tables become one kernel; None where they are a program like any other.

    A GPU needs longer to start the kernels of a step than a few thousand agents need to compute it;
    a CPU starts none.
    """
    return KERNELS.get(kind())


@contextlib.contextmanager
def made_for(chosen: str) -> Iterator[None]:
    """Makes programs for another kind of device, to be lowered; they do not run here.

    Args:
      chosen: of `KINDS`.
    """
    token = _CHOSEN.set(chosen)
    try:
        yield
    finally:
        _CHOSEN.reset(token)


def exact(function: Callable) -> Callable:
    """A function whose products of float32 matrices, and convolutions, are those of float32.

    By default a TPU multiplies bfloat16, and a GPU since 2020 TensorFloat-32, of 8 and 11 digits
    where float32 has 24. The package promises float32, and so asks for the highest precision
    wherever one of its programs is traced, unless JAX's own `jax_default_matmul_precision` says
    something else: whoever wants speed instead sets that. A CPU knows nothing less exact, and its
    programs stay as they are.

    Args:
      function: that is traced.

    Returns:
      The same function.
    """

    @functools.wraps(function)
    def wrapped(*args, **values):
        if kind() == "cpu" or jax.config.jax_default_matmul_precision is not None:
            return function(*args, **values)
        with jax.default_matmul_precision("highest"):
            return function(*args, **values)

    return wrapped
