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
import jax.numpy as jnp

KINDS = ("cpu", "gpu", "tpu")
# Where local steps and exchanges of small tables become one kernel, see `federation.kernels`: of
# "triton", or of "interpret", a kernel as a program like any other, to look for mistakes.
KERNELS = {"gpu": "triton"}
# Turns that a loop of local steps makes at a time. After each a GPU asks the host whether there is
# another, some 10 microseconds, as long as four kernels take to start: of a step of ten kernels a
# quarter of its time, and with four turns at a time a tenth. Rounds have forty kernels and more,
# and would gain no more than that. A TPU counts by itself, and a CPU loses by longer code.
UNROLL = {"gpu": 4}
_CHOSEN: contextvars.ContextVar[str | None] = contextvars.ContextVar("made_for", default=None)


def chosen() -> str | None:
    """Of `KINDS`, as `made_for` was told; None where nothing was. No device is started."""
    return _CHOSEN.get()


def kind() -> str:
    """Of `KINDS`, as `jax.default_backend()` has it unless something else was chosen."""
    return chosen() or jax.default_backend()


def kernels() -> str | None:
    """How rounds of small tables become one kernel; None where they are a program like any other.

    A GPU needs longer to start the kernels of a step than a few thousand agents need to compute it;
    a CPU starts none.
    """
    return KERNELS.get(kind())


def repeat(first, last, body: Callable, carry):
    """`jax.lax.fori_loop`, of several turns at a time where that pays, see `UNROLL`.

    Args:
      first: integer scalar.
      last: integer scalar; a static one makes a loop that can be differentiated in reverse.
      body: `(i, carry) -> carry` for i from `first` up to `last`, without it.
      carry: before the first turn.

    Returns:
      The carry after the last one.
    """
    unroll = UNROLL.get(kind(), 1)
    if unroll == 1 or isinstance(last, int):
        return jax.lax.fori_loop(first, last, body, carry)

    def go_on(now):
        # Unsigned numbers have no difference below 0.
        return (now[0] < last) & (last - now[0] >= unroll)

    def several(now):
        i, carry = now
        for _ in range(unroll):
            carry, i = body(i, carry), i + jnp.ones_like(i)
        return i, carry

    i, carry = jax.lax.while_loop(go_on, several, (jnp.asarray(first, last.dtype), carry))
    return jax.lax.fori_loop(i, last, body, carry)


@jax.custom_jvp
def once(tree):
    """The same values, which are computed once however many read them.

    XLA merges what makes a number with all that read it, and one number per row of a picture is
    then made again for every pixel. A barrier keeps them apart, but not on a CPU (jaxlib 0.10 drops
    it before it merges), where only a loop does whose length XLA cannot know: here it is 1,
    whatever the first of the values is. What reads them is compiled as if it read arguments.

    Args:
      tree: a pytree of arrays that are small beside what is made of them, the first of at least
        one entry.
    """
    if kind() != "cpu":
        return jax.lax.optimization_barrier(tree)
    return turn_of_once(tree)


@once.defjvp
def _(primals, tangents):
    return once(*primals), tangents[0]


@jax.jit
def turn_of_once(tree):
    """The loop of `once`, by whose name a program that has it shows that it is no loop.

    Args:
      tree: as `once` takes it.
    """
    first = jax.tree.leaves(tree)[0].reshape(-1)[0]
    if first.dtype == bool:
        first = first.astype(jnp.uint32)
    word = jax.lax.bitcast_convert_type(first, f"uint{8 * first.dtype.itemsize}")
    one = jnp.ones_like(word)
    length = jnp.minimum(word | one, one)
    nothing = jnp.zeros_like(length), jax.tree.map(jnp.zeros_like, tree)
    return jax.lax.while_loop(
        lambda now: now[0] < length, lambda now: (now[0] + one, tree), nothing
    )[1]


@contextlib.contextmanager
def made_for(other: str) -> Iterator[None]:
    """Makes programs for another kind of device, to be lowered; they do not run here.

    Args:
      other: of `KINDS`.
    """
    token = _CHOSEN.set(other)
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
