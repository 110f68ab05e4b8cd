"""Results that are kept by the content of what they are made of."""

from __future__ import annotations

import collections
import contextlib
import functools
import threading
from collections.abc import Callable

import jax

from fedjax_rl import backend
from fedjax_rl.identity import content

try:
    from jax.extend.core import get_opaque_trace_state
except ImportError:  # JAX before 0.9
    from jax.core import get_opaque_trace_state

# What JAX says where nothing is traced.
_UNTRACED = get_opaque_trace_state(convention="flax")


def now() -> contextlib.AbstractContextManager:
    """Computes at once what does not depend on tracers, within a program that is being traced.

    What is kept for later must not hold its tracers. Where nothing is traced there is nothing to be
    done: `jax.ensure_compile_time_eval` would compute the constants of everything that is traced in
    it, and draw all weights of a network of which only the shapes are asked for. Devices are not
    started: which there are may not be known yet, and those of several processes wait for all.
    """
    traced = get_opaque_trace_state(convention="flax") != _UNTRACED
    return jax.ensure_compile_time_eval() if traced else contextlib.nullcontext()


def remembered(size: int = 64) -> Callable:
    """Keeps the last results of a function by the content of its arguments.

    And by what else decides: the precision, and the kind of device that programs are made for.
    Arguments that cannot be looked into, such as tracers, are never kept: a tracer must not
    outlive its trace.

    Args:
      size: results to keep.
    """

    def decorate(function: Callable) -> Callable:
        kept: collections.OrderedDict = collections.OrderedDict()
        lock = threading.Lock()

        @functools.wraps(function)
        def wrapped(*args):
            key = content(*args)
            if not isinstance(key, str):
                return function(*args)
            key = key, jax.numpy.result_type(float), backend.chosen()
            with lock:
                if key in kept:
                    kept.move_to_end(key)
                    return kept[key]
            # Outside of the lock, or nobody could look anything up meanwhile; made twice it is the
            # same.
            with now():
                value = function(*args)
            with lock:
                kept[key] = value
                while len(kept) > size:
                    kept.popitem(last=False)
            return value

        wrapped.cache_clear = kept.clear
        return wrapped

    return decorate
